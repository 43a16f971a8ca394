//! Every legal order of short lives, and long lives by chance.

use super::life::{Broken, Context, How, Life, Outcome};
use super::notes::place;
use super::source::Source;
use super::wire::Finding;
use crate::loader::{Stream, Why};

/// Calls between `setup` and `finish` in [`every_order`].
const SHORT: u32 = 4;
/// Lives in [`random`], and the most calls in one.
const LIVES: usize = 60;
const LONG: usize = 80;

/// One thing that can happen.
#[derive(Debug, Clone, Copy)]
enum Act {
    Stdout,
    Stderr,
    Idle,
    /// The process dies, or is started, whichever can be.
    Turn,
}

const ACTS: [Act; 4] = [Act::Stdout, Act::Stderr, Act::Idle, Act::Turn];

/// A life whose process runs, does not yet run, or is dead.
struct Story {
    life: Life,
    is_running: bool,
    has_run: bool,
}

impl Story {
    fn begin(context: &Context<'_>, why: Why) -> Result<Self, Broken> {
        let mut life = Life::create(context)?;
        let message: &[u8] = if why == Why::PumpRestart { b"a message" } else { b"" };
        life.setup(context, why, message, 0)?;
        Ok(Self { life, is_running: false, has_run: why != Why::PumpStart })
    }

    fn act(&mut self, act: Act, bytes: &[u8], how: How) -> Result<(), Broken> {
        match act {
            Act::Stdout => self.life.output(Stream::Stdout, bytes),
            Act::Stderr => self.life.output(Stream::Stderr, bytes),
            Act::Idle => self.life.idle(),
            Act::Turn => self.turn(how),
        }
    }

    fn turn(&mut self, how: How) -> Result<(), Broken> {
        let (was_running, had_run) = (self.is_running, self.has_run);
        (self.is_running, self.has_run) = (!was_running, true);
        match (was_running, had_run) {
            (true, _) => self.life.exit(how),
            (false, true) => self.life.respawn(),
            (false, false) => self.life.spawn(),
        }
    }
}

pub(super) fn every_order(context: &Context<'_>) -> Outcome {
    let mut lives = 0;
    for why in [Why::PumpStart, Why::PumpRestart, Why::DaemonRestart] {
        for length in 0..=SHORT {
            for number in 0..4_usize.pow(length) {
                if context.is_late() {
                    return Ok(Finding::Pass(format!(
                        "{lives} orders; time was up before all had been tried"
                    )));
                }
                let mut story = Story::begin(context, why)?;
                // Nothing is written by a process that was never started.
                if why == Why::PumpStart {
                    story.turn(How::Code(0))?;
                }
                for place in 0..length {
                    let act = ACTS[number / 4_usize.pow(place) % 4];
                    story.act(act, b"some text\n", How::Code(1))?;
                }
                story.life.end()?;
                lives += 1;
            }
        }
    }
    Ok(Finding::Pass(format!("{lives} orders")))
}

pub(super) fn random(context: &Context<'_>) -> Outcome {
    let seed = context.job.seed;
    let mut source = Source::new(seed);
    for number in 0..LIVES {
        if context.is_late() {
            return Ok(Finding::Pass(format!("{number} lives of seed {seed}; time was up before all")));
        }
        one_by_chance(context, &mut source, number)?;
    }
    Ok(Finding::Pass(format!("{LIVES} lives of seed {seed}")))
}

fn one_by_chance(context: &Context<'_>, source: &mut Source, number: usize) -> Result<(), Broken> {
    let mut calls = Vec::new();
    let why = [Why::PumpStart, Why::PumpRestart, Why::DaemonRestart][source.below(3)];
    let mut say = |what: String| {
        calls.push(what);
        let from = calls.len().saturating_sub(6);
        place(format!(" (life {number} of seed {}; {})", context.job.seed, calls[from..].join(", ")));
    };
    say("create".into());
    let mut life = Life::create(context)?;
    let length = source.length(1 << 16);
    let message = if why == Why::PumpStart { Vec::new() } else { source.bytes(length) };
    life.go_on_at([source.below(1 << 40) as u64, source.below(100) as u64], 0);
    say(format!("setup {why:?} with a message of {} bytes", message.len()));
    life.setup(context, why, &message, source.below(2) as u64)?;
    let mut story = Story { life, is_running: false, has_run: why != Why::PumpStart };
    if why == Why::PumpStart {
        say("spawn".into());
        story.turn(How::Code(0))?;
    }
    for _ in 0..source.below(LONG) {
        let act = [Act::Stdout, Act::Stdout, Act::Stderr, Act::Idle, Act::Turn][source.below(5)];
        let length = source.length(1 << 16);
        let bytes = source.bytes(length);
        let how = match source.below(2) {
            0 => How::Code(i32::try_from(source.below(256)).unwrap_or(0)),
            _ => How::Signal(i32::try_from(source.below(31)).unwrap_or(0) + 1, source.below(2) == 0),
        };
        say(match act {
            Act::Stdout | Act::Stderr => format!("{act:?} of {length} bytes").to_lowercase(),
            Act::Idle => "idle".into(),
            Act::Turn if story.is_running => format!("exit {how:?}"),
            Act::Turn => "respawn".into(),
        });
        story.act(act, &bytes, how)?;
    }
    say("finish and destroy".into());
    story.life.end()
}
