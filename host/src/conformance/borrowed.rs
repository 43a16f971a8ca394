//! What is lent for a call: nothing may be read past its end, nor after the call.
//!
//! Everything is lent from pages of its own that end where the bytes end, in [`within_bounds`], and that are
//! taken away when the call has returned, in [`not_kept`]. Whoever reads there is ended by the system, which the
//! command then sees.

use std::io;
use std::thread::sleep;
use std::time::Duration;

use immortal_monitor_api::abi;

use super::life::{Context, How, Life, Outcome};
use super::notes::step;
use super::recorder::Recorder;
use super::wire::Finding;
use crate::loader::{Instance, Readiness, Stream, borrow, size_u32};
use crate::sys::guard::Guarded;

/// How long a thread of the monitor's may take to read what it has kept.
const LINGER: Duration = Duration::from_millis(30);

/// What becomes of the pages after the call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// They stay.
    Stay,
    /// They are taken away.
    Go,
}

pub(super) fn within_bounds(context: &Context<'_>) -> Outcome {
    life(context, After::Stay)
}

pub(super) fn not_kept(context: &Context<'_>) -> Outcome {
    life(context, After::Go)
}

fn life(context: &Context<'_>, after: After) -> Outcome {
    let (recorder, host) = Recorder::publish(&context.job.label);
    step("create");
    let texts: Vec<(Guarded<u8>, Guarded<u8>)> = context
        .job
        .options
        .iter()
        .map(|option| Ok((Guarded::copy(option.key.as_bytes())?, Guarded::copy(&option.value)?)))
        .collect::<io::Result<_>>()?;
    let options: Vec<abi::Opt> = crate::loader::lend(&context.job.options)
        .into_iter()
        .zip(&texts)
        .map(|(option, (key, value))| abi::Opt {
            key: borrow(key.values()),
            value: borrow(value.values()),
            ..option
        })
        .collect();
    let options = Guarded::copy(&options)?;
    let instance = Instance::create_lent(&context.library, host, options.values())?;
    let mut life = Life::of(instance, recorder);
    done(options, after)?;
    for (key, value) in texts {
        done(key, after)?;
        done(value, after)?;
    }
    setup(context, &mut life, after)?;
    life.spawn()?;
    for round in 0..4 {
        for (stream, bytes) in [
            (1, &b"a line\n"[..]),
            (2, b"and no newline"),
            (1, b"x"),
            (2, b""),
            (1, b"\xf0\x9f\xa6"),
            (1, b"more\nlines\n"),
        ] {
            output(&mut life, stream, bytes, after)?;
        }
        if round % 2 == 1 {
            life.idle()?;
            sleep(LINGER);
        }
    }
    output(&mut life, abi::STREAM_STDOUT, &b"a long line".repeat(10_000), after)?;
    event(&mut life, after)?;
    life.idle()?;
    life.respawn()?;
    life.output(Stream::Stdout, b"the last bytes\n")?;
    life.exit(How::Code(0))?;
    life.finish()?;
    life.destroy()?;
    step("what goes on after destroy");
    sleep(LINGER);
    Ok(Finding::pass())
}

fn done<T: Copy>(guarded: Guarded<T>, after: After) -> io::Result<()> {
    match after {
        After::Go => guarded.take_away(),
        After::Stay => Ok(()),
    }
}

fn setup(context: &Context<'_>, life: &mut Life, after: After) -> Result<(), super::life::Broken> {
    step("setup");
    let message = Guarded::copy(b"the last words of a pump\nin two lines")?;
    let setup = Guarded::copy(&[abi::Setup {
        size: size_u32::<abi::Setup>(),
        why: abi::WHY_PUMP_RESTART,
        flags: 0,
        process_pid: 0,
        message: borrow(message.values()),
        cut_bytes: 0,
        first_offset: [0; 2],
    }])?;
    let readiness = life.instance.setup_lent(&setup.values()[0])?;
    done(setup, after)?;
    done(message, after)?;
    if readiness == Readiness::Pending {
        life.recorder.wait_ready(context.limit() / 2);
    }
    Ok(())
}

fn output(life: &mut Life, stream: u32, bytes: &[u8], after: After) -> Result<(), super::life::Broken> {
    step(if stream == abi::STREAM_STDOUT { "stdout" } else { "stderr" });
    let offset = life.pass(usize::from(stream == abi::STREAM_STDERR), bytes.len());
    let bytes = Guarded::copy(bytes)?;
    let size = size_u32::<abi::Output>();
    let data = borrow(bytes.values());
    let output =
        Guarded::copy(&[abi::Output { size, stream, flags: 0, reserved: 0, offset, mono_ns: 0, data }])?;
    life.instance.output_lent(&output.values()[0])?;
    done(output, after)?;
    done(bytes, after)?;
    Ok(())
}

fn event(life: &mut Life, after: After) -> Result<(), super::life::Broken> {
    step("exit");
    let event = Guarded::copy(&[abi::Event {
        size: size_u32::<abi::Event>(),
        kind: abi::EVENT_EXIT,
        pid: 500_000_000,
        code: 1,
        signal: -1,
        count: 0,
        flags: 0,
        reserved: 0,
        mono_ns: 0,
        wall_ns: 0,
        ran_ns: 0,
    }])?;
    life.instance.event_lent(&event.values()[0])?;
    done(event, after)?;
    Ok(())
}
