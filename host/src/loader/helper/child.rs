//! The helper's side.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::confine;
use super::wire::{Reply, Request, receive, send};
use crate::loader::header::{self, Native};
use crate::loader::host_table::{Pids, Services, publish};
use crate::loader::layout;
use crate::loader::table::{Library, Trust, open};
use crate::loader::{
    Door, FileError, Identity, LoadError, SearchPath, Settings, Target, chain, check_options, file,
};
use crate::sys::exit_status;
use crate::sys::fd;
use crate::sys::holdings::Holdings;

/// The helper process from start to end. It serves one parent over its standard input, and one library.
#[must_use]
pub fn run() -> u8 {
    serve_parent(None)
}

fn serve_parent(likely: Option<&Target>) -> u8 {
    let is_socket = nix::sys::socket::getsockname::<nix::sys::socket::UnixAddr>(raw_stdin()).is_ok();
    if !is_socket {
        return complain("error: check-monitor: it is started by immortal itself");
    }
    let served = confine::enter().and_then(|channel| serve(CHANNEL.get_or_init(|| channel), likely));
    match served {
        Ok(()) => 0,
        Err(error) => complain(&format!("error: check-monitor: {}", chain(&error))),
    }
}

/// The helper process as a copy of the parent: `channel` and `stderr` take the places that they have in one that
/// was executed.
pub(super) fn run_copy(
    channel: OwnedFd,
    stderr: OwnedFd,
    directory: Option<&Path>,
    likely: Option<&Target>,
) -> u8 {
    match take_places(channel, stderr, directory) {
        Ok(()) => serve_parent(likely),
        // Without a word it is known that it could not begin.
        Err(_) => exit_status::FAILED,
    }
}

fn take_places(channel: OwnedFd, stderr: OwnedFd, directory: Option<&Path>) -> io::Result<()> {
    use nix::unistd::{Pid, setpgid};
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    if let Some(directory) = directory {
        std::env::set_current_dir(directory)?;
    }
    // What has their numbers afterwards is not theirs.
    let [channel, null, stderr] = [channel, fd::null()?, stderr].map(ManuallyDrop::new);
    fd::keep_only(&[(channel.as_fd(), 0), (null.as_fd(), 1), (stderr.as_fd(), 2)], 2)
}

fn raw_stdin() -> i32 {
    use std::os::fd::AsRawFd;
    io::stdin().as_fd().as_raw_fd()
}

#[expect(clippy::print_stderr, reason = "nobody else is there to tell it")]
fn complain(text: &str) -> u8 {
    eprintln!("{text}");
    2
}

fn serve(channel: &UnixStream, likely: Option<&Target>) -> io::Result<()> {
    reply(&Reply::Begun)?;
    let before = Holdings::now();
    // One in reserve has the time.
    let early = match likely {
        _ if has_come(channel, PollTimeout::ZERO) => None,
        Some(target) => load_early(target),
        None => {
            layout::rehearse();
            None
        }
    };
    let Some(Request::Describe { path, label, max_level }) = next(channel)? else { return Ok(()) };
    let max_level = LevelFilter::iter().nth(max_level).unwrap_or(LevelFilter::Warn);
    crate::logging::divert(&Forward, max_level);
    let path = PathBuf::from(std::ffi::OsString::from_vec(path));
    let loaded = match early {
        Some((early, loaded)) if early == path => loaded,
        Some(_) | None => load(&path),
    };
    let library = match loaded {
        Ok((library, identity)) => {
            reply(&Reply::Described { description: library.description().clone(), identity })?;
            library
        }
        Err(error) => {
            reply(&Reply::Failed { text: chain(&error), hint: error.hint() })?;
            return wait_for_end(channel);
        }
    };
    let Some(Request::Check { token, options, settings }) = next(channel)? else { return Ok(()) };
    let host = publish(&label, Arc::new(Checking { settings }), max_level);
    // What is not in Rust may well leave what cannot be told.
    let is_safe = library.description().door == Door::RustVerified;
    reply(&match check_options(&library, host, &options) {
        Ok(()) => Reply::Passed { token, is_clean: is_safe && before.is_some() && Holdings::now() == before },
        Err(error) => Reply::Failed { text: error.to_string(), hint: error.hint() },
    })?;
    wait_for_end(channel)
}

/// Loads the library that a monitor has where the environment says, if it has one there.
fn load_early(target: &Target) -> Option<(PathBuf, Loaded)> {
    let directory = std::env::current_dir().ok()?;
    let search = SearchPath::from_environment(&[], &directory, &crate::start::find_executable()?);
    let path = target.resolve(&directory, &search).ok()?;
    crate::logging::divert(&Forward, LevelFilter::Warn);
    let loaded = load(&path);
    Some((path, loaded))
}

/// Waits for a request; `None` at the end of the channel.
fn next(mut channel: &UnixStream) -> io::Result<Option<Request>> {
    // To sleep in a read is to be woken whenever the parent has read a reply.
    has_come(channel, PollTimeout::NONE);
    receive(&mut channel)
}

/// Whether there is something to read, or will be in time.
fn has_come(channel: &UnixStream, timeout: PollTimeout) -> bool {
    let mut fds = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, timeout).is_ok_and(|ready| ready > 0)
}

/// The parent kills the helper when all have passed, so that no exit function of the library runs.
fn wait_for_end(channel: &UnixStream) -> io::Result<()> {
    next(channel).map(drop)
}

type Loaded = Result<(Library, Identity), LoadError>;

fn load(path: &Path) -> Loaded {
    let (file, identity) = file::inspect(path)?;
    if let Some(native) = Native::of_this_machine() {
        header::examine(&file, native)?;
    }
    let library = open(path, Trust::Unknown)?;
    match Identity::of(path) {
        Ok(after) if after == identity => Ok((library, identity)),
        Ok(_) | Err(_) => Err(FileError::Replaced.into()),
    }
}

/// The channel, which the log shares with the replies.
static CHANNEL: OnceLock<UnixStream> = OnceLock::new();
/// Held while a message is written: a monitor may log from any thread.
static WRITING: Mutex<()> = Mutex::new(());

fn reply(reply: &Reply) -> io::Result<()> {
    let mut channel = CHANNEL.get().expect("set before anything is served");
    let _whole_message = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    send(&mut channel, reply)
}

/// Sends log records to the parent; this process has no log of its own.
struct Forward;

impl Log for Forward {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let (target, text) = (record.target().to_owned(), record.args().to_string());
        let sent = reply(&Reply::Log { level: record.level() as usize, target, text });
        // A parent that is gone reads no log; the next reply finds that out.
        drop(sent);
    }

    fn flush(&self) {}
}

/// What a monitor may call while it judges its options: its settings and the log. There is no group yet.
struct Checking {
    settings: Settings,
}

impl Services for Checking {
    fn log(&self, level: Level, target: &str, text: &str) {
        log::log!(target: target, level, "{text}");
    }

    fn fail(&self, text: &str) {
        log::error!("{text}");
    }

    fn ready(&self) {}

    fn restart(&self) -> bool {
        false
    }

    fn shutdown(&self) -> bool {
        false
    }

    fn pids(&self) -> Pids {
        Pids::default()
    }

    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.settings.get(key)
    }

    fn count(&self, key: &[u8]) -> usize {
        self.settings.count(key)
    }

    fn at(&self, key: &[u8], index: usize) -> Option<&[u8]> {
        self.settings.at(key, index)
    }

    fn durable(&self, _: u32, _: u64) {}

    fn report(&self, _: &[u8], _: &[u8]) {}
}
