//! What a group was started with: fixed until a reload, and handed from role to role by an inherited descriptor.
//!
//! Nothing of it travels in arguments or in the environment, which others can read or inherit.

use crate::loader::{Checked, Settings};
use crate::options::ValueKind;
use crate::strings::Strings;
use serde::{Deserialize, Serialize};
use std::os::fd::RawFd;
use std::time::Duration;

/// Version of all that roles of one group have in common: launch data, descriptors, frames and state page. Raised with
/// every change to one of them. Only a reload brings two executables together, and they must agree on it.
pub(crate) const FORMAT: u32 = 2;

/// Bytes of a path, an argument or an environment variable.
pub(crate) type Bytes = Vec<u8>;

/// The numbers under which a role finds its descriptors.
pub(crate) mod number {
    use super::RawFd;

    /// The launch data.
    pub(crate) const LAUNCH: RawFd = 3;
    /// The group's lock, one open description shared by all roles.
    pub(crate) const LOCK: RawFd = 4;
    /// The listening control socket.
    pub(crate) const LISTENER: RawFd = 5;
    /// The state page.
    pub(crate) const PAGE: RawFd = 6;
    /// Both ends of the stream of stdout.
    pub(crate) const STDOUT: (RawFd, RawFd) = (7, 8);
    /// Both ends of the stream of stderr.
    pub(crate) const STDERR: (RawFd, RawFd) = (9, 10);
    /// Socket to whoever started this role: the parent, or the pump's daemon.
    pub(crate) const LINK: RawFd = 11;
    /// The pump's own stderr: the file of an unattached pump, or the reading end that keeps a pipe unbroken.
    pub(crate) const CRASH: RawFd = 12;
    /// Stderr of the pump that died before this one.
    pub(crate) const MESSAGE: RawFd = 13;
    /// Development: reading end of the process's stdin.
    pub(crate) const STDIN: RawFd = 14;
    /// Development: the parent's stdout.
    pub(crate) const RELAY_STDOUT: RawFd = 15;
    /// Development: the parent's stderr.
    pub(crate) const RELAY_STDERR: RawFd = 16;
    /// Gets readable when the predecessor is gone, or the helper that has checked the monitor: reading end of a pipe whose
    /// writing end that holds, or its pidfd.
    pub(crate) const PREDECESSOR: RawFd = 17;
    /// The daemon's socket to the parent, for its first pump.
    pub(crate) const PARENT: RawFd = 18;
    /// Strategy daemon with `keep`: the spool.
    pub(crate) const SPOOL: RawFd = 19;
    /// With `keep`: pidfd of the process that is kept running.
    pub(crate) const PROCESS: RawFd = 20;
    /// Reload, the new pump: launch data and executable of the set-up before, for a daemon of that.
    pub(crate) const BEFORE: (RawFd, RawFd) = (21, 22);
    /// Reload, the new daemon: its link to the pump that lives.
    pub(crate) const PUMP: RawFd = 23;
    /// Reload, the new daemon: both ends of that pump's stderr.
    pub(crate) const PUMP_STDERR: (RawFd, RawFd) = (24, 25);
    /// How a role of the group died last.
    pub(crate) const LAST_CRASH: RawFd = 26;
    /// Reload, a daemon that was the new pump: launch data of the set-up that was tried.
    pub(crate) const TRIED: RawFd = 27;
    /// The highest number of this table.
    pub(crate) const LAST: RawFd = TRIED;
}

/// How the group's processes relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Strategy {
    /// The pump is a child of the parent, which stays and relays.
    Development,
    /// The pump stands alone.
    Unattached,
    /// A daemon and a pump keep each other alive.
    Daemon,
}

impl Strategy {
    /// The name used everywhere.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Unattached => "unattached",
            Self::Daemon => "daemon",
        }
    }
}

/// When a process that ended is respawned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Restart {
    /// After every end.
    Always,
    /// After any end but exit code 0.
    OnFailure,
    /// Never.
    Never,
}

impl Restart {
    /// The name used everywhere.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::OnFailure => "on-failure",
            Self::Never => "never",
        }
    }
}

/// What becomes of the process when its pump or daemon dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum OnCrash {
    /// It is ended and respawned.
    Respawn,
    /// It runs on and is handed over; strategy daemon only.
    Keep,
}

impl OnCrash {
    /// The name used everywhere.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Respawn => "respawn",
            Self::Keep => "keep",
        }
    }
}

/// When to start again, and how to end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Policy {
    pub(crate) restart: Restart,
    pub(crate) stable: Duration,
    pub(crate) backoff: Duration,
    pub(crate) backoff_max: Duration,
    pub(crate) stop_signal: i32,
    pub(crate) stop_timeout: Duration,
    pub(crate) setup_timeout: Duration,
    pub(crate) buffer_limit: u64,
    /// The process says itself when it is ready, within this span.
    pub(crate) ready_within: Option<Duration>,
    /// Respawns in a row without a stable run; none: unlimited.
    pub(crate) max_restarts: Option<u32>,
    pub(crate) on_crash: OnCrash,
    /// A hook that takes longer ends the pump; none: it may take for ever.
    pub(crate) hook_timeout: Option<Duration>,
    /// With `keep`: a monitor that ends the pump so often within the window is set aside; 0: never.
    pub(crate) monitor_crashes: u32,
    pub(crate) monitor_window: Duration,
}

impl Policy {
    /// Whether the process outlives its pump and its daemon.
    pub(crate) fn keeps(&self) -> bool {
        self.on_crash == OnCrash::Keep
    }

    /// Whether so many unstable deaths in a row are too many.
    pub(crate) fn gives_up(&self, unstable: u32) -> bool {
        self.max_restarts.is_some_and(|most| unstable > most)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            restart: Restart::Always,
            stable: Duration::from_secs(1),
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            stop_signal: libc::SIGTERM,
            stop_timeout: Duration::from_secs(10),
            setup_timeout: Duration::from_secs(30),
            buffer_limit: 1024 * 1024,
            ready_within: None,
            max_restarts: None,
            on_crash: OnCrash::Respawn,
            hook_timeout: None,
            monitor_crashes: 5,
            monitor_window: Duration::from_secs(60),
        }
    }
}

/// The user's program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    /// Interpreter, as given.
    pub(crate) exec: Option<Bytes>,
    /// The file, as given.
    pub(crate) file: Bytes,
    /// Its arguments.
    pub(crate) args: Vec<Bytes>,
    /// The caller's directory: what relative names are relative to.
    pub(crate) caller_directory: Bytes,
    /// Working directory of the process, absolute.
    pub(crate) directory: Bytes,
    /// Starts from an empty environment.
    pub(crate) env_clear: bool,
    /// Variables set on top.
    pub(crate) env: Vec<(Bytes, Bytes)>,
    /// User and groups to become.
    pub(crate) identity: Option<Identity>,
    /// Limits to set.
    pub(crate) limits: Vec<Limit>,
    pub(crate) umask: Option<u32>,
    /// Priority, absolute.
    pub(crate) nice: Option<i32>,
}

/// A user with the groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// One resource limit: the system's number of the resource, and both values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limit {
    pub(crate) resource: u32,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// What a group was started with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Launch {
    pub(crate) format: u32,
    pub(crate) name: String,
    pub(crate) strategy: Strategy,
    /// The group's directory.
    pub(crate) directory: Option<Bytes>,
    pub(crate) program: Program,
    pub(crate) policy: Policy,
    pub(crate) monitors: Vec<Checked>,
    /// Highest level that immortal's own log shows, as the number of `log::LevelFilter`.
    pub(crate) log_level: u8,
}

/// The settings that monitors can read, the same for all of them; `environment` is the process's.
pub(crate) fn settings(
    name: &str,
    strategy: Strategy,
    directory: Option<&Bytes>,
    program: &Program,
    on_crash: OnCrash,
    environment: Strings,
) -> Settings {
    let mut single = vec![
        ("name".to_owned(), name.as_bytes().to_vec()),
        ("strategy".to_owned(), strategy.name().as_bytes().to_vec()),
        ("file".to_owned(), program.file.clone()),
        ("cwd".to_owned(), program.directory.clone()),
        ("on_crash".to_owned(), on_crash.name().as_bytes().to_vec()),
    ];
    single.extend(program.exec.clone().map(|exec| ("exec".to_owned(), exec)));
    single.extend(directory.cloned().map(|directory| ("directory".to_owned(), directory)));
    Settings {
        single,
        lists: vec![("args".to_owned(), program.args.iter().collect()), ("env".to_owned(), environment)],
    }
}

impl Launch {
    /// The arguments of the `start` that makes this group, with every path absolute.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut words: Vec<String> = vec!["start".into()];
        let mut add = |option: &str, value: String| words.extend([option.to_owned(), value]);
        let (program, policy, plain) = (&self.program, &self.policy, Policy::default());
        let span = |span: Duration| format!("{}ms", span.as_millis());
        add("--name", self.name.clone());
        add("--strategy", self.strategy.name().into());
        for monitor in &self.monitors {
            add("--monitor", format!("{}={}", monitor.label, monitor.path.display()));
            for option in &monitor.options {
                let sign = if option.kind == ValueKind::Json { ":=" } else { "=" };
                let value = text(&option.value);
                // A value that begins with @ would be read from a file.
                let escape = if sign == "=" && value.starts_with('@') { "@" } else { "" };
                add("--option", format!("{}.{}{sign}{escape}{value}", monitor.label, option.key));
            }
        }
        add("--cwd", text(&program.directory));
        for (key, value) in &program.env {
            add("--env", format!("{}={}", text(key), text(value)));
        }
        if let Some(identity) = &program.identity {
            add("--user", identity.uid.to_string());
            add("--group", identity.gid.to_string());
        }
        for limit in &program.limits {
            add("--rlimit", crate::privileges::show(limit));
        }
        if let Some(mask) = program.umask {
            add("--umask", format!("{mask:03o}"));
        }
        if let Some(nice) = program.nice {
            add("--nice", nice.to_string());
        }
        if policy.restart != plain.restart {
            add("--restart", policy.restart.name().into());
        }
        for (option, value, default) in [
            ("--stable", policy.stable, plain.stable),
            ("--backoff", policy.backoff, plain.backoff),
            ("--backoff-max", policy.backoff_max, plain.backoff_max),
            ("--stop-timeout", policy.stop_timeout, plain.stop_timeout),
            ("--setup-timeout", policy.setup_timeout, plain.setup_timeout),
            ("--monitor-crash-window", policy.monitor_window, plain.monitor_window),
        ] {
            if value != default {
                add(option, span(value));
            }
        }
        if policy.stop_signal != plain.stop_signal {
            add("--stop-signal", crate::signal::name(policy.stop_signal));
        }
        if policy.on_crash != plain.on_crash {
            add("--on-crash", policy.on_crash.name().into());
        }
        if policy.monitor_crashes != plain.monitor_crashes {
            add("--monitor-crashes", policy.monitor_crashes.to_string());
        }
        if let Some(within) = policy.hook_timeout {
            add("--hook-timeout", span(within));
        }
        if let Some(most) = policy.max_restarts {
            add("--max-restarts", most.to_string());
        }
        if let Some(within) = policy.ready_within {
            add("--ready", "notify".into());
            add("--ready-timeout", span(within));
        }
        if policy.buffer_limit != plain.buffer_limit {
            add("--buffer-limit", policy.buffer_limit.to_string());
        }
        if let Some(exec) = &program.exec {
            add("--exec", text(exec));
        }
        words.extend(program.env_clear.then(|| "--env-clear".to_owned()));
        words.push("--".into());
        let searched = program.exec.is_none() && !program.file.contains(&b'/');
        words.push(if searched { text(&program.file) } else { text(&self.absolute_file()) });
        words.extend(program.args.iter().map(|arg| text(arg)));
        words
    }

    fn absolute_file(&self) -> Bytes {
        use std::ffi::OsStr;
        use std::os::unix::ffi::{OsStrExt, OsStringExt};
        let caller = std::path::Path::new(OsStr::from_bytes(&self.program.caller_directory));
        caller.join(OsStr::from_bytes(&self.program.file)).into_os_string().into_vec()
    }

    /// The settings that monitors can read.
    pub(crate) fn settings(&self, environment: Strings) -> Settings {
        let directory = self.directory.as_ref();
        settings(&self.name, self.strategy, directory, &self.program, self.policy.on_crash, environment)
    }

    /// Turns the launch data into what the descriptor holds.
    pub(crate) fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("plain data can be encoded")
    }

    /// Reads the launch data back.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, postcard::Error> {
        postcard::from_bytes(bytes)
    }
}
