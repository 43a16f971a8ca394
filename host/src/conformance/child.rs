//! The process of one test: loads the library, runs the test, says what came of it.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Instant;

use log::LevelFilter;
use nix::sys::signal::{SigSet, Signal};

use super::bench;
use super::catalogue::TESTS;
use super::life::{Broken, Context, Outcome};
use super::notes::{self, Forward, step};
use super::wire::{Finding, Job, Note};
use crate::loader::helper::confine;
use crate::loader::helper::wire::receive;
use crate::loader::{Dispositions, Trust, chain, open};
use crate::sys::usage;

/// The process from start to end. It serves one command over its standard input.
// What it needs of the stack, 20 KiB, is not its caller's, of whom copies are made that live long.
#[inline(never)]
#[must_use]
pub(crate) fn run() -> u8 {
    use std::os::fd::{AsFd, AsRawFd};
    let stdin = io::stdin().as_fd().as_raw_fd();
    if nix::sys::socket::getsockname::<nix::sys::socket::UnixAddr>(stdin).is_err() {
        return complain("error: try-monitor: it is started by immortal itself");
    }
    match confine::enter().and_then(|channel| serve(notes::open(channel))) {
        Ok(()) => 0,
        Err(error) => complain(&format!("error: try-monitor: {}", chain(&error))),
    }
}

#[expect(clippy::print_stderr, reason = "nobody else is there to tell it")]
fn complain(text: &str) -> u8 {
    eprintln!("{text}");
    2
}

fn serve(mut channel: &UnixStream) -> io::Result<()> {
    let Some(job) = receive::<Job>(&mut channel)? else { return Ok(()) };
    // Should the command go away without the system telling: some seconds after it would have given up.
    nix::unistd::alarm::set(u32::try_from(job.limit_ms / 1000).unwrap_or(u32::MAX).saturating_add(5));
    if log::set_logger(&Forward).is_ok() {
        log::set_max_level(LevelFilter::iter().nth(job.max_level).unwrap_or(LevelFilter::Warn));
    }
    notes::write(&Note::Begun)?;
    let finding = attempt(&job).unwrap_or_else(|Broken(text)| Finding::Fail(text + &notes::here()));
    usage::flush_c_streams();
    notes::write(&Note::Verdict(finding))?;
    // The command kills this process when it has heard enough, so that no exit function of the library runs.
    receive::<Job>(&mut channel).map(drop)
}

fn attempt(job: &Job) -> Outcome {
    let path = PathBuf::from(OsString::from_vec(job.path.clone()));
    // The pump blocks its signals before it loads anything, so that threads of a monitor's do not get them.
    let mut signals = SigSet::all();
    // The alarm is ours, and faults cannot be put off.
    for own in
        [Signal::SIGALRM, Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGFPE, Signal::SIGILL, Signal::SIGABRT]
    {
        signals.remove(own);
    }
    signals.thread_set_mask().map_err(io::Error::from)?;
    let signals_before = Dispositions::snapshot();
    step("loading");
    let begun = Instant::now();
    let library = match open(&path, Trust::Unknown) {
        Ok(library) => library,
        Err(error) => return Ok(Finding::Fail(chain(&error))),
    };
    let load_time = begun.elapsed();
    let context = Context { job, library, load_time, signals_before, started: Instant::now() };
    match TESTS.iter().find(|test| test.name == job.test) {
        Some(test) => (test.run)(&context),
        None => bench::all(&context).map(|()| Finding::pass()),
    }
}
