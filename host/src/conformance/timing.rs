//! How long the hooks take. While one runs, the pump reads nothing, and the process waits as soon as its pipe is
//! full.

use std::time::Duration;

use super::life::{Context, How, Life, Outcome};
use super::wire::Finding;
use crate::loader::Stream;

/// What is worth a warning, and what no hook may take.
const SLOW: Duration = Duration::from_millis(100);
const TOO_SLOW: Duration = Duration::from_secs(1);
/// What a chunk of 4 KiB may take on average.
const SLOW_CHUNK: Duration = Duration::from_millis(1);

pub(super) fn calls(context: &Context<'_>) -> Outcome {
    let mut life = Life::begin(context)?;
    life.spawn()?;
    let chunk = b"a line of forty bytes, the last is a LF\n".repeat(102);
    for number in 0..1000 {
        if context.is_late() {
            break;
        }
        life.output(if number % 2 == 0 { Stream::Stdout } else { Stream::Stderr }, &chunk)?;
        if number % 10 == 9 {
            life.idle()?;
        }
        if number % 50 == 49 {
            life.exit(How::Code(1))?;
            life.respawn()?;
        }
    }
    life.exit(How::Code(0))?;
    life.finish()?;
    let times = life.destroy()?;
    // Waiting until it is ready is no call; what finish writes out is its own affair, within its deadline.
    let hooks = times.iter().filter(|(hook, _)| **hook != "finish");
    let Some((hook, (_, _, longest))) = hooks.max_by_key(|(_, (_, _, longest))| *longest) else {
        return Ok(Finding::pass());
    };
    let average = ["stdout", "stderr"]
        .iter()
        .filter_map(|hook| times.get(hook))
        .map(|(calls, all, _)| *all / *calls)
        .max();
    let average = average.unwrap_or_default();
    let longest_ms = longest.as_secs_f64() * 1e3;
    let text = format!(
        "longest call {hook}: {longest_ms:.2} ms; a chunk of 4 KiB takes {:.1} µs",
        average.as_secs_f64() * 1e6
    );
    Ok(if *longest >= TOO_SLOW {
        Finding::Fail(format!("slow: {text}"))
    } else if *longest >= SLOW || average >= SLOW_CHUNK {
        Finding::Warn(format!("slow: {text}; the process waits meanwhile"))
    } else {
        Finding::Pass(text)
    })
}
