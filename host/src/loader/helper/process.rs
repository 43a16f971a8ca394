//! The process of a helper: executed, copied when it is needed, or copied in reserve.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, setpgid};

use super::{ARGUMENT, child};
use crate::loader::{SearchPath, Spec, Target};
use crate::sys::family::{self, Exit};
use crate::sys::{copy, fd};

/// A helper's process, which leads a process group. Dropping it kills it and all it started.
#[derive(Debug)]
pub(super) struct Process {
    pid: i32,
    /// How it ended; from then on its number is not its own any more.
    ended: Option<Exit>,
}

/// What the parent has of a new helper.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) process: Process,
    pub(super) channel: UnixStream,
    /// Reading end of its stderr.
    pub(super) stderr: OwnedFd,
}

impl Process {
    /// Kills it and everything it started.
    pub(super) fn kill(&self) {
        if self.ended.is_some() {
            return;
        }
        match killpg(Pid::from_raw(self.pid), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => {}
            Err(error) => log::warn!("unable to kill the helper {}: {error}", self.pid),
        }
    }

    /// Gets readable when it is gone, where the system can tell.
    pub(super) fn watch(&self) -> Option<OwnedFd> {
        if self.ended.is_some() { None } else { family::watch(self.pid) }
    }

    /// Kills it, and tells how it has ended; it may have done so before.
    pub(super) fn end(&mut self) -> Exit {
        self.kill();
        *self.ended.get_or_insert_with(|| family::wait(self.pid).unwrap_or_default())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// This process is the command.
static COPIES: AtomicBool = AtomicBool::new(false);

/// The helper in reserve, and which monitor's library it is loading.
static RESERVE: Mutex<Option<(Begun, Option<Target>)>> = Mutex::new(None);

fn reserve() -> MutexGuard<'static, Option<(Begun, Option<Target>)>> {
    RESERVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on helpers are copies of this process, as long as it has one thread.
pub(crate) fn allow_copies() {
    COPIES.store(true, Ordering::Relaxed);
}

/// Copies a helper in reserve. The sooner, the smaller is the process that is copied; and the copy gets ready while
/// this process finds out what is to be checked. If it is told which monitor that is likely to be, it loads its library.
pub(crate) fn keep_one_in_reserve(likely: Option<Spec>) {
    let likely = likely.map(|spec| spec.target);
    match begin_copy(None, likely.as_ref()) {
        Ok(begun) => *reserve() = Some((begun, likely)),
        Err(error) => log::debug!("no helper in reserve: {error}"),
    }
}

/// Ends the helper in reserve if it is loading another library than that of this monitor, or looks for it elsewhere;
/// whether there is one that is loading it.
pub(in crate::loader) fn keep_reserve_for(target: &Target, search: &SearchPath) -> bool {
    let mut reserve = reserve();
    let Some((_, Some(likely))) = reserve.as_ref() else { return false };
    let fits = likely == target && !search.has_given();
    if !fits {
        *reserve = None;
    }
    fits
}

/// This copy of the command is no command: it does not copy itself, and the helper in reserve is not its own.
pub(crate) fn forget_reserve() {
    COPIES.store(false, Ordering::Relaxed);
    // To drop it would end the command's.
    std::mem::forget(reserve().take());
}

/// Ends the helper in reserve, if it was not needed.
pub(crate) fn dismiss_reserve() {
    drop(reserve().take());
}

/// Starts a helper: a copy of this process if it may and can be copied, else the executable.
pub(super) fn begin(executable: &Path, directory: Option<&Path>) -> io::Result<Begun> {
    let is_own = COPIES.load(Ordering::Relaxed) && copy::is_of(executable);
    if is_own && let Some((begun, _)) = reserve().take() {
        return Ok(begun);
    }
    if is_own && copy::is_possible() {
        return begin_copy(directory, None);
    }
    begin_with(|channel, stderr| execute(executable, channel, stderr, directory))
}

fn begin_copy(directory: Option<&Path>, likely: Option<&Target>) -> io::Result<Begun> {
    if !copy::is_possible() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    begin_with(|channel, stderr| start_copy(channel, stderr, directory, likely))
}

fn begin_with(start: impl FnOnce(OwnedFd, OwnedFd) -> io::Result<i32>) -> io::Result<Begun> {
    let (channel, theirs) = UnixStream::pair()?;
    let (stderr, their_stderr) = fd::pipe()?;
    let pid = start(theirs.into(), their_stderr)?;
    fd::set_nonblocking(&stderr)?;
    channel.set_nonblocking(true)?;
    Ok(Begun { process: Process { pid, ended: None }, channel, stderr })
}

fn execute(
    executable: &Path,
    channel: OwnedFd,
    stderr: OwnedFd,
    directory: Option<&Path>,
) -> io::Result<i32> {
    let mut command = Command::new(executable);
    if let Some(directory) = directory {
        command.current_dir(directory);
    }
    command.arg(ARGUMENT).stdin(channel).stdout(Stdio::null()).stderr(stderr).process_group(0);
    Ok(i32::try_from(command.spawn()?.id()).expect("the system's pids fit"))
}

fn start_copy(
    channel: OwnedFd,
    stderr: OwnedFd,
    directory: Option<&Path>,
    likely: Option<&Target>,
) -> io::Result<i32> {
    let pid = copy::start(|| child::run_copy(channel, stderr, directory, likely))?;
    // The copy does the same; whoever comes first, it leads a group before anybody signals that.
    match setpgid(Pid::from_raw(pid), Pid::from_raw(pid)) {
        Ok(()) | Err(Errno::EACCES | Errno::ESRCH) => {}
        Err(error) => log::debug!("the process group of the helper {pid}: {error}"),
    }
    Ok(pid)
}
