//! Starts a group: what `immortal start` does, for programs.

use crate::attached::Attached;
use crate::frames::{Frame, Link};
use crate::launch::{FORMAT, Launch, Policy, Program, Restart, Strategy, number, settings};
use crate::loader::{self, CheckContext, CheckError, Checked, SearchPath, Spec, chain};
use crate::options::{OptionError, RawOption};
use crate::places::{self, Facts, GroupFiles, MonitorFacts, PlaceError};
use crate::privileges::{self, PrivilegeError, Privileges};
use crate::program::{self, ProgramError};
use crate::role::{Launching, Role};
use crate::state::{Member, Page};
use crate::sys::poll::poll;
use crate::sys::signals::{self, Signals};
use crate::sys::{family, fd, socket};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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
            Self::Usage { .. } => 2,
            Self::Monitor(error) if error.is_usage() => 2,
            Self::Program(error) => error.status(),
            Self::Role { status, .. } => *status,
            Self::Monitor(_)
            | Self::Privileges(_)
            | Self::Place(_)
            | Self::NoExecutable
            | Self::System { .. } => 125,
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

    /// Sets the file mode creation mask of the process.
    pub fn umask(mut self, mask: u32) -> Self {
        self.program.umask = Some(mask & 0o777);
        self
    }

    /// Sets the priority of the process, from -20 to 19.
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

    /// Chooses the signal (its number) and the patience of a polite stop; default: SIGTERM and 10 s.
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
        self.verify().map(drop)
    }

    /// Starts the group; returns when the program has been executed.
    ///
    /// # Errors
    /// The name is taken, a monitor refuses, the program cannot be executed, …; nothing is left of the group.
    pub fn start(self) -> Result<Started, StartError> {
        self.verify()?.launch(None)
    }

    /// Starts the group as a program that lives for it alone: SIGINT, SIGTERM and SIGHUP end the start from the
    /// moment at which there is something to end, and are the caller's to watch afterwards.
    pub(crate) fn start_watching(self) -> Result<(Started, Signals), StartError> {
        let verified = self.verify()?;
        let watched = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD];
        attempt("block signals", signals::block(&watched))?;
        let mut signals = attempt("watch signals", Signals::watch(&watched))?;
        let started = verified.launch(Some(&mut signals))?;
        Ok((started, signals))
    }

    fn verify(mut self) -> Result<Verified, StartError> {
        let name = match self.name.take() {
            Some(name) => valid_name(name)?,
            None => default_name(&self.program.file),
        };
        let caller = attempt("find out the current directory", std::env::current_dir())?;
        let directory = match &self.working_directory {
            Some(directory) => caller.join(directory),
            None => caller.clone(),
        };
        if self.working_directory.is_some() && !directory.is_dir() {
            let source = io::Error::other(format!("{}: no such directory", directory.display()));
            return Err(StartError::System { what: "use the working directory", source });
        }
        self.program.caller_directory = caller.clone().into_os_string().into_vec();
        self.program.directory = directory.into_os_string().into_vec();
        let inherited: Vec<_> = std::env::vars_os().map(|(k, v)| (k.into_vec(), v.into_vec())).collect();
        self.privileges.apply(&mut self.program)?;
        let environment = program::environment(&self.program, &inherited);
        program::prepare(&self.program, &environment)?;
        program::verify(&self.program, &environment)?;
        let executable = match self.executable.take() {
            Some(path) => path,
            None => find_executable().ok_or(StartError::NoExecutable)?,
        };
        if self.monitors.is_empty() {
            self.monitors.push("log".into());
        }
        let specs = self.monitors.iter().map(|monitor| Spec::parse(monitor)).collect::<Result<Vec<_>, _>>();
        let specs = specs.map_err(CheckError::from)?;
        let options = self.options.iter().map(|option| RawOption::parse(option));
        let options = options.collect::<Result<Vec<_>, OptionError>>().map_err(CheckError::from)?;
        let list = environment.iter().map(|(key, value)| [key.as_slice(), b"=", value].concat()).collect();
        let context = CheckContext {
            executable: &executable,
            directory: &caller,
            search: &SearchPath::from_environment(&self.monitor_path, &caller, &executable),
            settings: &settings(&name, self.strategy, None, &self.program, list),
            max_level: log::max_level(),
        };
        let monitors = loader::check_all(&specs, &options, &context)?;
        Ok(Verified {
            launch: Launch {
                format: FORMAT,
                name,
                strategy: self.strategy,
                directory: None,
                program: self.program,
                policy: self.policy,
                monitors,
                log_level: log::max_level() as u8,
            },
            relay: self.relay,
            executable,
            inherited,
        })
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
    let mut name: String = base
        .iter()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() || b"._@-".contains(byte) { char::from(*byte) } else { '_' }
            },
        )
        .take(64)
        .collect();
    if name.is_empty() || name.starts_with(['.', '-']) {
        name.replace_range(..usize::from(!name.is_empty()), "_");
    }
    name
}

/// `immortal` beside this program (which may be it), then in `PATH`.
fn find_executable() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let beside = own.with_file_name("immortal");
    // Test and example executables are in a directory of their own below.
    let above = own.parent()?.parent()?.join("immortal");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|directory| directory.join("immortal"));
    [beside, above].into_iter().chain(in_path).find(|candidate| candidate.is_file())
}

/// A group that may be started.
struct Verified {
    launch: Launch,
    relay: bool,
    executable: PathBuf,
    inherited: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The files and descriptors of a group that is about to be.
struct Begun {
    files: Option<(GroupFiles, File)>,
    listener: Option<OwnedFd>,
    page_file: File,
    page: Page,
}

impl Begun {
    /// Takes the name and makes the files. Development can do without where none can be made.
    fn new(name: &str, strategy: Strategy) -> Result<Self, StartError> {
        let claim = match places::runtime_directory().and_then(|runtime| places::claim(&runtime, name)) {
            Ok(claim) => claim,
            Err(error @ PlaceError::System { .. }) if strategy == Strategy::Development => {
                log::warn!("{}: this group cannot be controlled by name", chain(&error));
                let page_file = File::from(attempt("make the state page", fd::unlinked_page())?);
                let page = places::initialise_page(&page_file)?;
                return Ok(Self { files: None, listener: None, page_file, page });
            }
            Err(error) => return Err(error.into()),
        };
        let page = match places::initialise_page(&claim.page_file) {
            Ok(page) => page,
            Err(error) => {
                claim.files.remove(&claim.lock);
                return Err(error.into());
            }
        };
        let files = Some((claim.files, claim.lock));
        Ok(Self { files, listener: Some(claim.listener.into()), page_file: claim.page_file, page })
    }

    fn remove(&self) {
        if let Some((files, lock)) = &self.files {
            files.remove(lock);
        }
    }
}

impl Verified {
    fn launch(mut self, signals: Option<&mut Signals>) -> Result<Started, StartError> {
        let mut begun = Begun::new(&self.launch.name, self.launch.strategy)?;
        begun.page.set_member(Member::Launcher, nix::unistd::getpid().as_raw());
        let result = self.launch_in(&mut begun, signals);
        if result.is_err() {
            begun.remove();
        }
        begun.page.set_member(Member::Launcher, 0);
        result
    }

    fn launch_in(&mut self, begun: &mut Begun, signals: Option<&mut Signals>) -> Result<Started, StartError> {
        let strategy = self.launch.strategy;
        if let Some((files, _)) = &begun.files {
            self.launch.directory = Some(files.directory.clone().into_os_string().into_vec());
            attempt("write the facts of the group", files.write_facts(&facts(&self.launch)))?;
        }
        let launch = attempt("hand over the launch data", fd::sealed(&self.launch.encode()))?;
        let streams = [attempt("make a pipe", fd::pipe())?, attempt("make a pipe", fd::pipe())?];
        if let Some(identity) = &self.launch.program.identity {
            // So that the user may open /dev/stdout and /dev/stderr.
            for (_, writer) in &streams {
                attempt("give the streams to the user", fd::give(writer, identity.uid, identity.gid))?;
            }
        }
        let (ours, theirs) = attempt("make a socket pair", socket::pair())?;
        let mut descriptors = vec![
            (launch.as_fd(), number::LAUNCH),
            (begun.page_file.as_fd(), number::PAGE),
            (streams[0].0.as_fd(), number::STDOUT.0),
            (streams[0].1.as_fd(), number::STDOUT.1),
            (streams[1].0.as_fd(), number::STDERR.0),
            (streams[1].1.as_fd(), number::STDERR.1),
            (theirs.as_fd(), number::LINK),
        ];
        descriptors.extend(begun.files.as_ref().map(|(_, lock)| (lock.as_fd(), number::LOCK)));
        descriptors.extend(begun.listener.as_ref().map(|fd| (fd.as_fd(), number::LISTENER)));
        let launching = Launching {
            role: if strategy == Strategy::Daemon { Role::Daemon } else { Role::Pump },
            name: &self.launch.name,
            executable: self.executable.clone(),
            environment: &self.inherited,
            page: begun.page,
        };
        let mut attached = None;
        let stderr_file;
        match strategy {
            Strategy::Development => {
                let parts = attempt("make the pipes of the parent", Attached::pipes(self.relay))?;
                descriptors.extend(parts.descriptors());
                let stderr = parts.stderr();
                let pump = launching.start(descriptors, Some(stderr), false);
                let pump = attempt("start the pump", pump)?;
                attached = Some((parts, pump));
            }
            Strategy::Unattached | Strategy::Daemon => {
                stderr_file = match (&begun.files, strategy) {
                    (Some((files, _)), Strategy::Unattached) => {
                        let open = File::options().append(true).read(true).create(true).open(files.stderr());
                        Some(attempt("make the file of the pump's stderr", open)?)
                    }
                    (Some(_) | None, _) => None,
                };
                let stderr = stderr_file.as_ref().map(|file| file.as_fd());
                descriptors.extend(stderr.map(|fd| (fd, number::CRASH)));
                attempt("start the group", launching.start(descriptors, stderr, true))?;
            }
        }
        drop(theirs);
        let mut link = attempt("keep the link", Link::new(ours))?;
        match attempt("wait for the group", wait_for_result(&mut link, signals))? {
            Some(Frame::Started { process_pid, pump_pid, daemon_pid }) => {
                let daemon = (daemon_pid != 0).then_some(daemon_pid);
                let pids = GroupPids { process: process_pid, monitor: pump_pid, daemon };
                let attached = attached.map(|(parts, pump)| parts.attach(link, pump, begun.files.take()));
                Ok(Started { name: self.launch.name.clone(), pids, attached })
            }
            failed => {
                wait_until_gone(begun.page);
                let stderr = attached.map(|(parts, pump)| parts.give_up(pump));
                let line = match (stderr, &begun.files) {
                    (Some(text), _) => places::last_line(&text),
                    (None, Some((files, _))) => files.last_stderr_line(),
                    (None, None) => None,
                };
                Err(failure(failed, line))
            }
        }
    }
}

/// Waits for the first frame that decides; then, if it is a failure, until the roles are gone.
fn wait_for_result(link: &mut Link, mut signals: Option<&mut Signals>) -> io::Result<Option<Frame>> {
    let mut failed = None;
    let mut interrupted = None;
    loop {
        let mut fds = vec![PollFd::new(link.as_fd(), PollFlags::POLLIN)];
        fds.extend(signals.as_ref().map(|signals| PollFd::new(signals.as_fd(), PollFlags::POLLIN)));
        poll(&mut fds, PollTimeout::NONE)?;
        drop(fds);
        while let Some(signal) = signals.as_mut().and_then(|signals| signals.next()) {
            if signal != Signal::SIGCHLD {
                link.send(if interrupted.is_some() { &Frame::Kill } else { &Frame::Stop });
                interrupted = Some(signal);
            }
        }
        let (frames, gone) = link.receive();
        for (index, frame) in frames.iter().enumerate() {
            match frame {
                Frame::Started { .. } => {
                    // A program that ends at once has its end behind its start.
                    link.put_back(&frames[index + 1..]);
                    return Ok(Some(frame.clone()));
                }
                Frame::Failed { .. } => failed = Some(frame.clone()),
                Frame::Ending
                | Frame::GivingUp { .. }
                | Frame::Terminated
                | Frame::Over { .. }
                | Frame::Stop
                | Frame::Kill => {}
            }
        }
        if gone {
            let by_signal = |signal: Signal| Frame::Failed {
                status: 128_u8.saturating_add(u8::try_from(signal as i32).unwrap_or(0)),
                text: format!("start: it was interrupted by {signal}"),
                hint: None,
            };
            return Ok(interrupted.map(by_signal).or(failed));
        }
    }
}

/// The roles have closed everything; they are gone within a moment.
fn wait_until_gone(page: Page) {
    let pids = page.pids();
    let patience = Instant::now() + Duration::from_secs(2);
    while [pids.pump, pids.daemon].iter().any(|pid| family::runs(*pid, 0)) && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn failure(frame: Option<Frame>, line: Option<String>) -> StartError {
    match frame {
        Some(Frame::Failed { status, text, hint }) => {
            StartError::Role { status, text: loader::without_location(&loader::one_line(&text)), hint }
        }
        Some(_) | None => {
            let why = line.unwrap_or_else(|| "it left no text".into());
            let text = format!("the pump died: {}", loader::without_location(&why));
            StartError::Role { status: 125, text, hint: None }
        }
    }
}

/// What `list` and `status` show; values of options and of the environment are masked.
fn facts(launch: &Launch) -> Facts {
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let policy = &launch.policy;
    let span = |span: Duration| format!("{span:?}");
    let options = |checked: &Checked| -> serde_json::Map<String, serde_json::Value> {
        checked.options.iter().map(|option| (option.key.clone(), "***".into())).collect()
    };
    let monitors: Vec<_> = launch.monitors.iter().map(|m| (m.label.clone(), options(m).into())).collect();
    let environment: Vec<_> = launch.program.env.iter().map(|(key, _)| (lossy(key), "***".into())).collect();
    Facts {
        strategy: launch.strategy.name().to_owned(),
        file: lossy(&launch.program.file),
        args: launch.program.args.iter().map(|arg| lossy(arg)).collect(),
        monitors: launch
            .monitors
            .iter()
            .map(|m| MonitorFacts {
                label: m.label.clone(),
                name: m.name.clone(),
                path: m.path.to_string_lossy().into_owned(),
            })
            .collect(),
        settings: serde_json::json!({
            "exec": launch.program.exec.as_ref().map(|exec| lossy(exec)),
            "cwd": lossy(&launch.program.directory),
            "env": serde_json::Map::from_iter(environment),
            "env_clear": launch.program.env_clear,
            "uid": launch.program.identity.as_ref().map(|identity| identity.uid),
            "gid": launch.program.identity.as_ref().map(|identity| identity.gid),
            "umask": launch.program.umask.map(|mask| format!("{mask:04o}")),
            "nice": launch.program.nice,
            "rlimits": launch.program.limits.iter().map(privileges::show).collect::<Vec<_>>(),
            "options": serde_json::Map::from_iter(monitors),
            "restart": policy.restart.name(),
            "stable": span(policy.stable),
            "backoff": span(policy.backoff),
            "backoff_max": span(policy.backoff_max),
            "stop_signal": crate::signal::name(policy.stop_signal),
            "stop_timeout": span(policy.stop_timeout),
            "setup_timeout": span(policy.setup_timeout),
            "buffer_limit": policy.buffer_limit,
            "max_restarts": policy.max_restarts,
            "ready_timeout": policy.ready_within.map(span),
            "on_crash": "respawn",
        }),
        stop_signal: policy.stop_signal,
        stop_timeout_ms: u64::try_from(policy.stop_timeout.as_millis()).unwrap_or(u64::MAX),
    }
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
    }
}
