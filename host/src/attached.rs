//! Strategy `development`: what ties a group to the parent, which stays.
//!
//! The pump copies the process's output to the parent's own stdout and stderr by itself. The parent feeds its
//! stdin to the process, copies the pump's stderr to its own, and ends the group when it is told to or dies.

mod rest;

use crate::ending::Ending;
use crate::frames::{Frame, Link};
use crate::launch::number;
use crate::places::{GroupFiles, last_line};
use crate::sys::exit_status::FAILED;
use crate::sys::poll::poll;
use crate::sys::signals::Signals;
use crate::sys::{family, fd, signals};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

pub(crate) use rest::Rest;

/// The ends of the pipes between parent and group.
#[derive(Debug)]
pub(crate) struct Pipes {
    stdin: (OwnedFd, OwnedFd),
    stderr: (OwnedFd, OwnedFd),
    relay: Option<(OwnedFd, OwnedFd)>,
}

/// A group that ends with this program. Dropping it ends the group, without waiting for that.
#[derive(Debug)]
pub struct Attached {
    link: Link,
    pump: i32,
    /// Reading end of the pump's stderr.
    stderr: OwnedFd,
    /// Where the pump's stderr goes.
    relay: bool,
    /// With a relay: what the pump leaves of the process's output.
    rest: Option<Rest>,
    /// The newest of it.
    last_words: Vec<u8>,
    /// The group's files: the pump removes them unless it is killed.
    files: Option<(GroupFiles, File)>,
}

/// How a group in development has ended.
pub(crate) struct Ended {
    /// Exit status for the parent.
    pub(crate) status: u8,
    /// Why the pump died, if it did.
    pub(crate) failure: Option<String>,
    /// What the process, which may not have ended yet, writes without a pump.
    rest: Option<Rest>,
}

/// As much is kept of what the pump said last.
const LAST_WORDS_BYTES: usize = 4096;

impl Attached {
    pub(crate) fn pipes(relay: bool) -> io::Result<Pipes> {
        let relay = match relay {
            true => {
                Some((io::stdout().as_fd().try_clone_to_owned()?, io::stderr().as_fd().try_clone_to_owned()?))
            }
            false => None,
        };
        Ok(Pipes { stdin: fd::pipe()?, stderr: fd::pipe()?, relay })
    }

    /// Asks the group to end.
    pub fn stop(&mut self) {
        self.link.send(&Frame::Stop);
    }

    /// Waits for the end of the group and returns the exit status of the process as a shell has it (128+N for
    /// signal N), 125 if the pump failed.
    ///
    /// # Errors
    /// Waiting failed.
    pub fn wait(self) -> io::Result<u8> {
        let ended = self.wait_with(None)?;
        if let Some(rest) = ended.rest {
            rest.finish();
        }
        Ok(ended.status)
    }

    /// As [`Attached::wait`]; SIGINT, SIGTERM and SIGHUP, which must be blocked, end the group, and a second one
    /// ends it at once. Orphans that come to this process are reaped.
    pub(crate) fn wait_with(mut self, mut signals: Option<Signals>) -> io::Result<Ended> {
        let mut status = None;
        let mut asked = false;
        loop {
            let mut fds = vec![
                PollFd::new(self.link.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.stderr.as_fd(), PollFlags::POLLIN),
            ];
            fds.extend(signals.as_ref().map(|signals| PollFd::new(signals.as_fd(), PollFlags::POLLIN)));
            // What was taken with the start's answer is there without a further word.
            let timeout = if self.link.is_at_rest() { PollTimeout::NONE } else { PollTimeout::ZERO };
            poll(&mut fds, timeout)?;
            drop(fds);
            self.copy_stderr();
            while let Some(signal) = signals.as_mut().and_then(Signals::next) {
                if signal == Signal::SIGCHLD {
                    reap_strangers(self.pump);
                } else {
                    crate::notify::tell_manager("STOPPING=1");
                    self.link.send(if asked { &Frame::Kill } else { &Frame::Stop });
                    asked = true;
                }
            }
            let (frames, gone) = self.link.receive();
            for frame in frames {
                if let Frame::Over { status: of_process } = frame {
                    status = Some(of_process);
                }
                if let Some(rest) = self.rest.as_mut().filter(|_| frame == Frame::Unrelayed) {
                    rest.copy();
                }
            }
            if gone {
                break;
            }
        }
        let exit = family::wait(self.pump).unwrap_or_default();
        self.copy_stderr();
        if let Some((files, lock)) = &self.files {
            files.remove(lock);
        }
        let died = || {
            let line = last_line(&self.last_words);
            format!(
                "the pump died: {}",
                line.unwrap_or_else(|| format!("it {} and left no text", exit.words()))
            )
        };
        let failure = status.is_none().then(died);
        Ok(Ended { status: status.unwrap_or(FAILED), failure, rest: self.rest })
    }

    /// Copies what is there of the pump's stderr; a broken stderr of ours loses it.
    fn copy_stderr(&mut self) {
        let bytes = read_available(&self.stderr);
        self.last_words.extend_from_slice(&bytes);
        self.last_words.drain(..self.last_words.len().saturating_sub(LAST_WORDS_BYTES));
        if self.relay
            && !bytes.is_empty()
            && let Err(error) = io::stderr().write_all(&bytes)
        {
            log::debug!("relaying the pump's stderr: {error}");
            self.relay = false;
        }
    }
}

fn reap_strangers(pump: i32) {
    while let Some((child, _)) = family::peek_any() {
        if child == pump || family::reap(child).is_none() {
            break;
        }
    }
}

fn read_available(fd: &OwnedFd) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(count) = nix::unistd::read(fd, &mut chunk) {
        if count == 0 {
            break;
        }
        bytes.extend_from_slice(&chunk[..count]);
    }
    bytes
}

impl Pipes {
    /// What the pump gets of them.
    pub(crate) fn descriptors(&self) -> Vec<(BorrowedFd<'_>, RawFd)> {
        let mut descriptors =
            vec![(self.stdin.0.as_fd(), number::STDIN), (self.stderr.0.as_fd(), number::CRASH)];
        if let Some((stdout, stderr)) = &self.relay {
            descriptors
                .extend([(stdout.as_fd(), number::RELAY_STDOUT), (stderr.as_fd(), number::RELAY_STDERR)]);
        }
        descriptors
    }

    /// The pump's stderr.
    pub(crate) fn stderr(&self) -> BorrowedFd<'_> {
        self.stderr.1.as_fd()
    }

    /// The group lives: begins to feed it.
    pub(crate) fn attach(
        self,
        link: Link,
        pump: i32,
        files: Option<(GroupFiles, File)>,
        streams: [OwnedFd; 2],
    ) -> Attached {
        feed(self.stdin.1);
        let stderr = self.stderr.0;
        if let Err(error) = fd::set_nonblocking(&stderr) {
            log::error!("preparing the pump's stderr: {error}");
        }
        let relay = self.relay.is_some();
        let rest = self.relay.map(|(stdout, stderr)| Rest::new(streams, [stdout, stderr]));
        Attached { link, pump, stderr, relay, rest, last_words: Vec::new(), files }
    }

    /// The start failed: reaps the pump and returns what it wrote to its stderr.
    pub(crate) fn give_up(self, pump: i32) -> Vec<u8> {
        family::wait(pump);
        if let Err(error) = fd::set_nonblocking(&self.stderr.0) {
            log::error!("preparing the pump's stderr: {error}");
        }
        read_available(&self.stderr.0)
    }
}

/// Copies stdin to the process in a thread of its own, which ends with this program. A parent in the background
/// does not take the terminal's input away from the foreground.
fn feed(target: OwnedFd) {
    let copy = move || {
        let mut target = File::from(target);
        let mut chunk = vec![0; 64 * 1024];
        let mut stdin = io::stdin().lock();
        loop {
            match stdin.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => {
                    if target.write_all(&chunk[..count]).is_err() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A terminal that is not ours at the moment.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                    std::thread::sleep(Duration::from_millis(200));
                }
                Err(_) => break,
            }
        }
    };
    // Signals are for the threads of whoever started the group.
    let start = || std::thread::Builder::new().name("stdin".into()).spawn(copy);
    if let Err(error) = signals::while_blocked(start).and_then(|thread| thread.map(drop)) {
        log::error!("feeding stdin: {error}");
    }
}

/// Ends what a dead pump left behind: it came back to this process, which is its subreaper (Linux). What that still
/// writes is relayed.
pub(crate) fn sweep(ended: &mut Ended, stop_signal: i32, stop_timeout: Duration) {
    let mut rest = ended.rest.take();
    if let Some(rest) = rest.as_mut().filter(|_| ended.failure.is_some()) {
        rest.copy();
    }
    let mut ending = Ending::new(stop_signal);
    ending.clear(None, true);
    let deadline = Instant::now().checked_add(stop_timeout);
    let mut killed = false;
    loop {
        for child in family::children() {
            family::reap(child);
        }
        if ending.is_over(None) {
            break;
        }
        if !killed && deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            killed = true;
            ending.kill(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    if let Some(rest) = rest {
        rest.finish();
    }
}
