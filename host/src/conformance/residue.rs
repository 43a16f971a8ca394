//! What is left when instances are gone: descriptors, threads, memory, handlers of signals.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use super::life::{Broken, Context, Life, Outcome};
use super::notes::step;
use super::recorder::Recorder;
use super::wire::Finding;
use crate::sys::usage;

/// Lives that are compared with the first one.
const LIVES: usize = 3;
/// How long a thread may take to close its things and to end.
const GRACE: Duration = Duration::from_millis(500);
/// Lives of one batch in [`memory`], and what is no sign of a leak in one life.
const BATCH: usize = 32;
const CRUMB_BYTES: usize = 16;

fn lives(context: &Context<'_>, count: usize) -> Result<(), Broken> {
    (0..count).try_for_each(|_| Life::begin(context)?.whole())
}

/// Looks again and again until what is seen is no more than before, or the grace is over.
fn settled<T>(look: impl Fn() -> Option<T>, is_calm: impl Fn(&T) -> bool) -> Option<T> {
    let deadline = Instant::now() + GRACE;
    loop {
        let seen = look()?;
        if is_calm(&seen) || Instant::now() >= deadline {
            return Some(seen);
        }
        sleep(Duration::from_millis(5));
    }
}

pub(super) fn descriptors(context: &Context<'_>) -> Outcome {
    let unseen = || Finding::Skip("this system does not list descriptors".into());
    let Some(before) = usage::descriptors() else { return Ok(unseen()) };
    lives(context, 1)?;
    let Some(first) = settled(usage::descriptors, |seen| seen.len() <= before.len()) else {
        return Ok(unseen());
    };
    lives(context, LIVES)?;
    step("looking for open descriptors");
    let Some(last) = settled(usage::descriptors, |seen| seen.len() <= first.len()) else {
        return Ok(unseen());
    };
    if last.len() > first.len() {
        let left = last.len() - first.len();
        return Ok(Finding::Fail(format!(
            "{LIVES} lives left {left} descriptors open: {}",
            new(&last, &first)
        )));
    }
    if first.len() > before.len() {
        return Ok(Finding::Warn(format!("it keeps open after destroy: {}", new(&first, &before))));
    }
    Ok(Finding::pass())
}

/// Descriptors that are in one and not in the other, as far as one line has room.
fn new(now: &BTreeMap<i32, String>, before: &BTreeMap<i32, String>) -> String {
    let shown = |(number, leads_to): (&i32, &String)| format!("{number} ({leads_to})");
    let new = now.iter().filter(|(number, _)| !before.contains_key(number)).map(shown);
    new.take(4).collect::<Vec<_>>().join(", ")
}

pub(super) fn threads(context: &Context<'_>) -> Outcome {
    let Some(before) = usage::threads() else {
        return Ok(Finding::Skip("this system does not list threads".into()));
    };
    lives(context, 1)?;
    let first = settled(usage::threads, |&seen| seen <= before).unwrap_or(before);
    lives(context, LIVES)?;
    step("waiting for threads to end");
    let last = settled(usage::threads, |&seen| seen <= first).unwrap_or(first);
    Ok(if last > first {
        Finding::Fail(format!("{LIVES} lives left {} threads alive after destroy", last - first))
    } else if first > before {
        Finding::Warn(format!(
            "{} threads outlive destroy, however many instances there were",
            first - before
        ))
    } else {
        Finding::pass()
    })
}

/// Whether `destroy` gives back what `create` took.
pub(super) fn memory(context: &Context<'_>) -> Outcome {
    let unseen = || Finding::Skip("this system does not tell how much is allocated".into());
    let (recorder, host) = Recorder::publish(&context.job.label);
    let batch = || -> Result<bool, Broken> {
        for _ in 0..BATCH {
            if context.is_late() {
                return Ok(false);
            }
            recorder.reset();
            let mut life = Life::create_for(context, recorder.clone(), host)?;
            life.setup(context, crate::loader::Why::PumpStart, b"", 0)?;
            life.whole()?;
        }
        recorder.reset();
        Ok(true)
    };
    let mut seen = Vec::new();
    // The first batch fills caches.
    for _ in 0..3 {
        if !batch()? {
            return Ok(Finding::Skip("its lives take too long to count what they leave".into()));
        }
        let Some(bytes) = usage::allocated_bytes() else { return Ok(unseen()) };
        seen.push(bytes);
    }
    let growth = seen.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).min().unwrap_or(0) / BATCH;
    Ok(if growth >= CRUMB_BYTES {
        Finding::Fail(format!("about {growth} bytes of each instance are never freed: destroy forgets them"))
    } else {
        Finding::pass()
    })
}

/// Handlers that the run-time of a language installs for its own faults; the pump takes them away again.
const OF_RUNTIMES: &[&str] = &[
    "SIGSEGV",
    "SIGBUS",
    "SIGFPE",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGPIPE",
    "SIGURG",
    "SIGPROF",
    "SIGSYS",
    "SIGSTKFLT",
];

pub(super) fn signals(context: &Context<'_>) -> Outcome {
    let before = &context.signals_before;
    let mask = SigSet::thread_get_mask().map_err(std::io::Error::from)?;
    let mut changed: Vec<(&str, Vec<String>)> = vec![("while it was loaded", before.restore())];
    let mut life = Life::create(context)?;
    changed.push(("in create", before.restore()));
    life.setup(context, crate::loader::Why::PumpStart, b"", 0)?;
    changed.push(("in setup", before.restore()));
    life.whole()?;
    changed.push(("after setup", before.restore()));
    let blocked = SigSet::thread_get_mask().map_err(std::io::Error::from)?;
    let differs = |signal: &Signal| mask.contains(*signal) != blocked.contains(*signal);
    let masked: Vec<String> =
        Signal::iterator().filter(differs).map(|signal| signal.as_str().to_owned()).collect();
    if !masked.is_empty() {
        return Ok(Finding::Fail(format!(
            "it blocks or unblocks {} on the pump's thread",
            masked.join(", ")
        )));
    }
    let taken = usage::signals_taken_by_other_threads(&mask).unwrap_or_default();
    let taken: Vec<&str> =
        taken.iter().map(|signal| signal.as_str()).filter(|name| !OF_RUNTIMES.contains(name)).collect();
    changed.retain(|(_, signals)| !signals.is_empty());
    let is_mild = |(when, signals): &(&str, Vec<String>)| {
        *when == "while it was loaded" && signals.iter().all(|signal| OF_RUNTIMES.contains(&signal.as_str()))
    };
    let text: Vec<String> = changed
        .iter()
        .map(|(when, signals)| {
            const SHOWN: usize = 6;
            let more = if signals.len() > SHOWN { " and others" } else { "" };
            format!(
                "it changed the handling of {}{more} {when}",
                signals[..signals.len().min(SHOWN)].join(", ")
            )
        })
        .collect();
    let text_of_threads = format!("its threads take {} from the pump", taken.join(", "));
    Ok(match (text.is_empty(), changed.iter().all(is_mild)) {
        (_, true) if !taken.is_empty() => Finding::Warn([text, vec![text_of_threads]].concat().join("; ")),
        (true, _) => Finding::pass(),
        (false, true) => Finding::Warn(format!("{}; the pump puts that back", text.join("; "))),
        (false, false) => Finding::Fail(text.join("; ")),
    })
}
