//! The command's side: starts a process for each test, hears it, and tells what became of it.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use log::Level;
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::bench::Speed;
use super::catalogue::{STDERR, STDOUT, TESTS, Test};
use super::wire::{Finding, Job, Note};
use super::{ARGUMENT, Row, Subject};
use crate::loader::dispositions::signal_name;
use crate::loader::helper::wire::{receive, send};
use crate::loader::one_line;

/// How much of what a process writes is kept.
const KEPT_BYTES: usize = 4096;
const SHOWN_CHARS: usize = 160;
/// How long a test may take once one has hung: it is likely to hang again.
const SHORT: Duration = Duration::from_secs(1);

/// What a process of one test came to.
pub(super) struct Ran {
    pub(super) finding: Finding,
    pub(super) speeds: Vec<Speed>,
    has_hung: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Runs every test whose name holds one of the filters, all without one; each is shown as soon as it is over.
///
/// # Errors
/// A process for a test could not be started.
pub(crate) fn run(
    subject: &Subject,
    filters: &[String],
    show: &mut dyn FnMut(&Row) -> io::Result<()>,
) -> io::Result<()> {
    let is_wanted =
        |test: &&Test| filters.is_empty() || filters.iter().any(|filter| test.name.contains(filter.as_str()));
    let mut failed: Vec<&str> = Vec::new();
    let mut wrote: Option<String> = None;
    let mut limit = subject.limit;
    for test in TESTS.iter().filter(is_wanted) {
        let begun = Instant::now();
        let finding = match test.needs.iter().find(|need| failed.contains(need)) {
            Some(need) => Finding::Skip(format!("{need} has failed")),
            None => {
                let ran = run_one(subject, test.name, limit)?;
                if ran.has_hung {
                    limit = limit.min(SHORT);
                }
                if !ran.stdout.is_empty() && wrote.is_none() {
                    wrote = Some(format!(
                        "it wrote to stdout in the test {}: \"{}\"",
                        test.name,
                        excerpt(&ran.stdout)
                    ));
                }
                judge(test, ran, wrote.as_ref())
            }
        };
        if matches!(finding, Finding::Fail(_))
            || (matches!(finding, Finding::Skip(_)) && !test.needs.is_empty())
        {
            failed.push(test.name);
        }
        show(&Row { name: test.name, about: test.about, finding, took: begun.elapsed() })?;
    }
    Ok(())
}

/// The verdict of a test, from what its process said and what it wrote.
fn judge(test: &Test, ran: Ran, wrote: Option<&String>) -> Finding {
    match (test.name, &ran.finding) {
        (STDOUT, Finding::Pass(_)) => wrote.map_or(ran.finding, |text| Finding::Fail(text.clone())),
        (STDERR, Finding::Pass(_)) if !ran.stderr.is_empty() => Finding::Warn(format!(
            "it wrote to stderr, which is the next monitor's message: \"{}\"",
            excerpt(&ran.stderr)
        )),
        _ => ran.finding,
    }
}

fn excerpt(bytes: &[u8]) -> String {
    one_line(&String::from_utf8_lossy(bytes)).chars().take(SHOWN_CHARS).collect()
}

/// Runs one test in a process of its own; an empty name measures.
///
/// # Errors
/// The process could not be started.
pub(super) fn run_one(subject: &Subject, test: &str, limit: Duration) -> io::Result<Ran> {
    let job = Job {
        test: test.to_owned(),
        path: subject.path.as_os_str().as_bytes().to_vec(),
        label: subject.label.clone(),
        options: subject.options.clone(),
        seed: subject.seed,
        limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        max_level: log::max_level() as usize,
    };
    let (mut channel, theirs) = UnixStream::pair()?;
    let mut child = Command::new(&subject.executable)
        .arg(ARGUMENT)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let stdout = child.stdout.take().map(|pipe| collect(pipe, Keep::First));
    let stderr = child.stderr.take().map(|pipe| collect(pipe, Keep::Last));
    // One that has died already says so at the other end of the channel.
    if let Err(error) = send(&mut channel, &job) {
        log::debug!("test {test}: {error}");
    }
    let heard = hear(&mut channel, subject, Instant::now() + limit);
    kill(&child);
    let status = child.wait()?;
    let written = |from: Option<Receiver<Vec<u8>>>| {
        from.and_then(|from| from.recv_timeout(Duration::from_secs(1)).ok()).unwrap_or_default()
    };
    let (stdout, stderr) = (written(stdout), written(stderr));
    let has_hung = matches!(heard.end, End::Late);
    let fault = TESTS.iter().find(|known| known.name == test).and_then(|test| test.fault);
    let finding = match heard.end {
        End::Verdict(finding) => finding,
        End::Late => {
            Finding::Fail(format!("it hangs: no end within {} s of {}", limit.as_secs_f32(), heard.step))
        }
        End::Gone if !heard.has_begun => {
            return Err(io::Error::other(format!("it could not begin: {}", excerpt(&stderr))));
        }
        End::Gone => Finding::Fail(obituary(status, &heard.step, fault, &stderr)),
    };
    Ok(Ran { finding, speeds: heard.speeds, has_hung, stdout, stderr })
}

/// How hearing a process ended.
enum End {
    Verdict(Finding),
    Late,
    Gone,
}

struct Heard {
    end: End,
    has_begun: bool,
    step: String,
    speeds: Vec<Speed>,
}

fn hear(channel: &mut UnixStream, subject: &Subject, deadline: Instant) -> Heard {
    let mut heard = Heard { end: End::Gone, has_begun: false, step: "loading".into(), speeds: Vec::new() };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || channel.set_read_timeout(Some(left)).is_err() {
            heard.end = End::Late;
            return heard;
        }
        match receive::<Note>(channel) {
            Ok(Some(Note::Begun)) => heard.has_begun = true,
            Ok(Some(Note::Step(step))) => heard.step = step,
            Ok(Some(Note::Speed(speed))) => heard.speeds.push(speed),
            // What a monitor says of provoked calls is for its author alone: seen with -vv.
            Ok(Some(Note::Log { level, target, text })) => {
                let level = Level::iter().nth(level.saturating_sub(1)).unwrap_or(Level::Trace);
                log::debug!(target: &target, "monitor {}: {level}: {}", subject.label, excerpt(text.as_bytes()));
            }
            Ok(Some(Note::Verdict(finding))) => {
                heard.end = End::Verdict(finding);
                return heard;
            }
            Ok(None) => return heard,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => {
                log::debug!("{error}");
                return heard;
            }
        }
    }
}

/// What a process died of.
fn obituary(status: ExitStatus, step: &str, fault: Option<&str>, stderr: &[u8]) -> String {
    let said = String::from_utf8_lossy(stderr);
    let last = said.lines().rev().map(str::trim).find(|line| !line.is_empty());
    let detail = last.map_or_else(String::new, |line| format!(" (\"{}\")", excerpt(line.as_bytes())));
    match (status.signal(), status.code()) {
        (Some(signal @ (libc::SIGSEGV | libc::SIGBUS)), _) if fault.is_some() => {
            format!("{} ({} in {step})", fault.unwrap_or_default(), signal_name(signal))
        }
        // Killed by us, after it had closed its end of the channel or written what is no note.
        (Some(libc::SIGKILL), _) => {
            format!("it closed or disturbed a descriptor that is not its own, in {step}{detail}")
        }
        (Some(signal), _) => format!("it crashed with {} in {step}{detail}", signal_name(signal)),
        (None, code) => format!("it called exit({}) in {step}{detail}", code.unwrap_or_default()),
    }
}

/// Kills the process and all it started. It has not been waited for, so its number is its own.
fn kill(child: &Child) {
    let group = Pid::from_raw(i32::try_from(child.id()).expect("the system's pids fit"));
    match killpg(group, Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => {}
        Err(error) => log::warn!("unable to kill the process of a test: {error}"),
    }
}

/// Which end of what is written is kept.
#[derive(Clone, Copy)]
enum Keep {
    First,
    Last,
}

/// Reads to the end on a thread of its own. One that never ends, because a process has escaped with the other
/// end, is left to itself.
fn collect(mut pipe: impl Read + Send + 'static, keep: Keep) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        let mut buffer = [0; 8192];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            kept.extend_from_slice(&buffer[..count]);
            match keep {
                Keep::First => kept.truncate(KEPT_BYTES),
                Keep::Last => drop(kept.drain(..kept.len().saturating_sub(KEPT_BYTES))),
            }
        }
        // Nobody waits any more: the command has given up on it.
        drop(sender.send(kept));
    });
    receiver
}
