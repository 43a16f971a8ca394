//! Starts a group: what `immortal start` does, for programs.

mod keeping;
mod launching;
mod place;
mod verifying;

use crate::attached::Attached;
use crate::launch::{OnCrash, Policy, Program, Restart, Strategy};
use crate::loader::{self, CheckError, Checked};
use crate::places::PlaceError;
use crate::privileges::{PrivilegeError, Privileges};
use crate::program::{self, ProgramError};
use crate::sys::exit_status::{FAILED, USAGE};
use crate::sys::signals::{self, Signals};
use nix::sys::signal::Signal;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use verifying::Ready;

/// Why a group was not started. Nothing of it is left then: no process and no file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The command line is wrong.
    #[error("{what}: {why}")]
    Usage {
        /// Which part.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A monitor or its options.
    #[error(transparent)]
    Monitor(#[from] CheckError),
    /// User, group, limits or priority.
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    /// The program cannot be executed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The runtime directory, or the name in it.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The executable that provides pump and daemon is not there.
    #[error("immortal's executable: not found beside this program nor in PATH")]
    NoExecutable,
    /// A system call failed.
    #[error("unable to {what}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A role said why it could not start the process.
    #[error("{text}")]
    Role {
        /// The exit status of `start`: 125, 126 or 127.
        status: u8,
        /// What failed, and why.
        text: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

impl StartError {
    /// The exit status of `start`.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Self::Usage { .. } => USAGE,
            Self::Monitor(error) if error.is_usage() => USAGE,
            Self::Privileges(error) if error.is_usage() => USAGE,
            Self::Program(error) => error.status(),
            Self::Role { status, .. } => *status,
            Self::Monitor(_)
            | Self::Privileges(_)
            | Self::Place(_)
            | Self::NoExecutable
            | Self::System { .. } => FAILED,
        }
    }

    /// What to do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Monitor(error) => error.hint(),
            Self::Place(error) => error.hint(),
            Self::Role { hint, .. } => hint.clone(),
            Self::NoExecutable => Some("give its path with Start::executable".into()),
            Self::Usage { .. } | Self::Privileges(_) | Self::Program(_) | Self::System { .. } => None,
        }
    }
}

fn attempt<T>(what: &'static str, result: io::Result<T>) -> Result<T, StartError> {
    result.map_err(|source| StartError::System { what, source })
}

/// The pids of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupPids {
    /// The user's program.
    pub process: i32,
    /// The pump, which hosts the monitors.
    pub monitor: i32,
    /// The daemon, in strategy `daemon`.
    pub daemon: Option<i32>,
}

/// A group that was started.
#[derive(Debug)]
#[non_exhaustive]
pub struct Started {
    /// Its name.
    pub name: String,
    /// Its pids at the start.
    pub pids: GroupPids,
    /// In strategy `development`: what ties the group to this program. Dropping it ends the group.
    pub attached: Option<Attached>,
}

/// A group to start.
///
/// ```no_run
/// use immortal::{Start, Strategy};
///
/// let started = Start::new("/usr/local/bin/server")
///     .args(["--port", "8080"])
///     .strategy(Strategy::Daemon)
///     .option("output=/var/log/server.log")
///     .start()?;
/// println!("{} runs as {}", started.name, started.pids.process);
/// # Ok::<(), immortal::StartError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is started before `start` is called"]
pub struct Start {
    program: Program,
    name: Option<String>,
    strategy: Strategy,
    monitors: Vec<OsString>,
    options: Vec<OsString>,
    monitor_path: Vec<PathBuf>,
    working_directory: Option<PathBuf>,
    privileges: Privileges,
    policy: Policy,
    relay: bool,
    executable: Option<PathBuf>,
}

impl Start {
    /// A group that keeps this program alive, in strategy `unattached`.
    pub fn new(file: impl Into<OsString>) -> Self {
        Self {
            program: Program { file: file.into().into_vec(), ..Program::default() },
            name: None,
            strategy: Strategy::Unattached,
            monitors: Vec::new(),
            options: Vec::new(),
            monitor_path: Vec::new(),
            working_directory: None,
            privileges: Privileges::default(),
            policy: Policy::default(),
            relay: true,
            executable: None,
        }
    }

    /// Adds arguments of the program.
    pub fn args<S: Into<OsString>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.program.args.extend(args.into_iter().map(|arg| arg.into().into_vec()));
        self
    }

    /// Names the group; default: the base name of the file.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Chooses the strategy.
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Adds a monitor: `[LABEL=]PATH_OR_NAME`. Without any it is `log`.
    pub fn monitor(mut self, monitor: impl Into<OsString>) -> Self {
        self.monitors.push(monitor.into());
        self
    }

    /// Adds an option of the monitors: `[LABEL.]KEY=VALUE`, `KEY:=JSON` or `KEY=@FILE`.
    pub fn option(mut self, option: impl Into<OsString>) -> Self {
        self.options.push(option.into());
        self
    }

    /// Searches this directory first for monitors.
    pub fn monitor_path(mut self, directory: impl Into<PathBuf>) -> Self {
        self.monitor_path.push(directory.into());
        self
    }

    /// Runs the file with an interpreter.
    pub fn exec(mut self, program: impl Into<OsString>) -> Self {
        self.program.exec = Some(program.into().into_vec());
        self
    }

    /// Sets a variable of the process's environment.
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.program.env.push((key.into().into_vec(), value.into().into_vec()));
        self
    }

    /// Sets variables of the process's environment from a file: lines `KEY=VALUE`, a value perhaps in quotes;
    /// empty lines and those that begin with `#` or `;` count for nothing.
    ///
    /// # Errors
    /// The file cannot be read, or a line is none of these.
    pub fn env_file(mut self, path: impl AsRef<Path>) -> Result<Self, StartError> {
        self.program.env.extend(program::read_env_file(path.as_ref())?);
        Ok(self)
    }

    /// Starts the process's environment empty.
    pub fn env_clear(mut self) -> Self {
        self.program.env_clear = true;
        self
    }

    /// Chooses the working directory of the process; default: the caller's.
    pub fn cwd(mut self, directory: impl Into<PathBuf>) -> Self {
        self.working_directory = Some(directory.into());
        self
    }

    /// Runs the process as this user (name or number), with the user's groups.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.privileges.user = Some(user.into());
        self
    }

    /// Runs the process in this group (name or number) instead of the user's.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.privileges.group = Some(group.into());
        self
    }

    /// Sets a resource limit of the process: `NAME=SOFT[:HARD]`, as in `nofile=1024:4096`.
    pub fn rlimit(mut self, limit: impl Into<String>) -> Self {
        self.privileges.limits.push(limit.into());
        self
    }

    /// Sets the file mode creation mask of the process: up to `0o777`, else the start is refused
    /// ([`StartError::Usage`]).
    pub fn umask(mut self, mask: u32) -> Self {
        self.program.umask = Some(mask);
        self
    }

    /// Sets the priority of the process: from -20 to 19, else the start is refused ([`StartError::Usage`]).
    pub fn nice(mut self, nice: i32) -> Self {
        self.program.nice = Some(nice);
        self
    }

    /// Says when the process is respawned; default: always.
    pub fn restart(mut self, restart: Restart) -> Self {
        self.policy.restart = restart;
        self
    }

    /// Says how long a run must be to count as stable; default: 1 s.
    pub fn stable(mut self, span: Duration) -> Self {
        self.policy.stable = span;
        self
    }

    /// Chooses the first pause and the longest one; default: 100 ms and 10 s.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.policy.backoff = first;
        self.policy.backoff_max = longest;
        self
    }

    /// Chooses the signal (its number) and the patience of a polite stop; default: SIGTERM and 10 s. With a number that
    /// no signal has the start is refused ([`StartError::Usage`]).
    pub fn stop(mut self, signal: i32, timeout: Duration) -> Self {
        self.policy.stop_signal = signal;
        self.policy.stop_timeout = timeout;
        self
    }

    /// Says how long a monitor may take to be ready; default: 30 s.
    pub fn setup_timeout(mut self, timeout: Duration) -> Self {
        self.policy.setup_timeout = timeout;
        self
    }

    /// Says how much of the pump's stderr the daemon keeps, in bytes; default: 1 MiB.
    pub fn buffer_limit(mut self, bytes: u64) -> Self {
        self.policy.buffer_limit = bytes;
        self
    }

    /// Counts the group as started only when the process says `READY=1` to its `NOTIFY_SOCKET`, within this
    /// span; default: as soon as it is executed.
    pub fn ready_notify(mut self, within: Duration) -> Self {
        self.policy.ready_within = Some(within);
        self
    }

    /// Says what becomes of the process when pump or daemon dies; default: it is respawned.
    pub fn on_crash(mut self, on_crash: OnCrash) -> Self {
        self.policy.on_crash = on_crash;
        self
    }

    /// Ends the pump when a monitor's hook takes longer than this; default: it may take for ever.
    pub fn hook_timeout(mut self, timeout: Duration) -> Self {
        self.policy.hook_timeout = Some(timeout);
        self
    }

    /// With [`OnCrash::Keep`]: sets a monitor aside that ends the pump so often within this span (0: never); default:
    /// 5 times within a minute.
    pub fn monitor_crashes(mut self, count: u32, within: Duration) -> Self {
        self.policy.monitor_crashes = count;
        self.policy.monitor_window = within;
        self
    }

    /// Gives up after so many respawns in a row without a stable run; default: never.
    pub fn max_restarts(mut self, count: u32) -> Self {
        self.policy.max_restarts = Some(count);
        self
    }

    /// Development: relays output to this program's stdout and stderr (the default) or does not.
    pub fn relay(mut self, relay: bool) -> Self {
        self.relay = relay;
        self
    }

    /// Gives the executable that provides pump and daemon. Default: `immortal` beside this program, then in
    /// `PATH`.
    pub fn executable(mut self, path: impl Into<PathBuf>) -> Self {
        self.executable = Some(path.into());
        self
    }

    /// Signal and patience of a polite stop.
    pub(crate) fn stop_policy(&self) -> (i32, Duration) {
        (self.policy.stop_signal, self.policy.stop_timeout)
    }

    /// Verifies all that `start` verifies, starting nothing.
    ///
    /// # Errors
    /// Whatever `start` would refuse.
    pub fn check(self) -> Result<(), StartError> {
        let (group, judging) = self.begin()?.judge()?.complete()?;
        judging.finish(&group.executable)?;
        Ok(())
    }

    /// Starts the group; returns when the program has been executed.
    ///
    /// # Errors
    /// The name is taken, a monitor refuses, the program cannot be executed, …; nothing is left of the group.
    pub fn start(self) -> Result<Started, StartError> {
        let Ready { group, first, begun, helpers } = self.verify()?;
        group.launch(first, begun, helpers, None)
    }

    /// Starts the group as a program that lives for it alone: SIGINT, SIGTERM and SIGHUP end the start from the
    /// moment at which there is something to end, and are the caller's to watch afterwards.
    pub(crate) fn start_watching(self) -> Result<(Started, Signals), StartError> {
        let Ready { group, first, begun, helpers } = self.verify()?;
        let watched = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD];
        attempt("block signals", signals::block(&watched))?;
        let mut signals = attempt("watch signals", Signals::watch(&watched))?;
        let started = group.launch(first, begun, helpers, Some(&mut signals))?;
        Ok((started, signals))
    }

    /// Verifies the monitors alone, as `start` does.
    ///
    /// # Errors
    /// Whatever `start` would refuse of them.
    pub(crate) fn check_monitors(mut self) -> Result<(Vec<Checked>, Policy), StartError> {
        let name = self.name.take().unwrap_or_else(|| default_name(&self.program.file));
        let caller = attempt("find out the current directory", std::env::current_dir())?;
        let directory = self.working_directory.take().unwrap_or_else(|| caller.clone());
        self.program.caller_directory = caller.clone().into_os_string().into_vec();
        self.program.directory = directory.into_os_string().into_vec();
        let environment = program::environment(&self.program, &program::caller_environment());
        let executable = match self.executable.take() {
            Some(path) => path,
            None => find_executable().ok_or(StartError::NoExecutable)?,
        };
        keeping::judge_count(&self.policy, self.monitors.len())?;
        let wanted = self.wanted(&caller, &executable)?;
        let settings = self.settings(&name, &environment);
        let context = wanted.context(&executable, &caller);
        let monitors = loader::check_all(&wanted.specs, &wanted.options, &settings, &context)?;
        Ok((monitors, self.policy))
    }
}

/// The name as given, if it is one.
pub(crate) fn valid_name(name: String) -> Result<String, StartError> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte);
    let valid = (1..=64).contains(&name.len()) && name.bytes().all(known) && !name.starts_with(['.', '-']);
    if valid {
        return Ok(name);
    }
    let why = "a name is 1 to 64 of A-Z a-z 0-9 . _ @ - and starts with neither a dot nor a dash".into();
    Err(StartError::Usage { what: format!("name {name:?}"), why })
}

fn default_name(file: &[u8]) -> String {
    let base = Path::new(OsStr::from_bytes(file)).file_name().map_or(file, OsStr::as_bytes);
    let known = |letter: char| letter.is_ascii_alphanumeric() || "._@-".contains(letter);
    let base = String::from_utf8_lossy(base);
    let mut name: String =
        base.chars().map(|letter| if known(letter) { letter } else { '_' }).take(64).collect();
    if name.is_empty() || name.starts_with(['.', '-']) {
        name.replace_range(..usize::from(!name.is_empty()), "_");
    }
    name
}

/// `immortal` beside this program (which may be it), then in `PATH`.
pub(crate) fn find_executable() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let beside = own.with_file_name("immortal");
    // Test and example executables are in a directory of their own below.
    let above = own.parent()?.parent()?.join("immortal");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|directory| directory.join("immortal"));
    [beside, above].into_iter().chain(in_path).find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_made() {
        for good in ["a", "web-1", "x@y", "A.b_c", &"n".repeat(64)] {
            assert!(valid_name(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "a/b", "a b", "ä", &"n".repeat(65)] {
            assert_eq!(valid_name(bad.to_owned()).unwrap_err().status(), 2, "{bad}");
        }
        assert_eq!(default_name(b"/usr/bin/my server!"), "my_server_");
        assert_eq!(default_name(b"./.hidden"), "_hidden");
        assert_eq!(default_name(b"-x"), "_x");
        assert_eq!(default_name("h\u{e9} \u{20ac}.sh".as_bytes()), "h___.sh");
    }

    #[test]
    fn numbers_that_no_command_line_could_hold_are_refused() {
        let start = || Start::new("x");
        let second = Duration::from_secs(1);
        for good in [start(), start().umask(0o777), start().nice(-20), start().stop(libc::SIGINT, second)] {
            assert!(verifying::judge_numbers(&good).is_ok(), "{good:?}");
        }
        let bad = [start().umask(0o1000), start().nice(20), start().nice(-21)];
        for bad in bad.into_iter().chain([0, -1, 1000].map(|signal| start().stop(signal, second))) {
            assert_eq!(verifying::judge_numbers(&bad).unwrap_err().status(), 2, "{bad:?}");
        }
    }
}
