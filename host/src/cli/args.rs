//! The one definition of the command line.

use super::later::Later;
use super::report::Failure;
use super::{monitor, names};
use crate::launch::{OnCrash, Restart, Strategy};
use crate::loader::CheckError;
use crate::options::RawOption;
use crate::signal;
use crate::start::{Start, StartError};
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::ArgValueCandidates;
use immortal_monitor_api::scalar;
use log::LevelFilter;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

/// Keeps a program alive and gives its output and its life events to monitors in shared libraries.
#[derive(Debug, Parser)]
#[command(name = "immortal", version, disable_help_subcommand = true)]
pub(super) struct Cli {
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Args)]
struct LogArgs {
    /// Shows more of immortal's own log (-v info, -vv debug, -vvv trace)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// Shows errors only
    #[arg(short, long, global = true)]
    quiet: bool,
}

/// What stands behind the word `start`: the command that somebody waits for, without all the others.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_version_flag = true)]
struct StartLine {
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    start: StartArgs,
}

/// The definition of [`StartLine`].
#[cfg(test)]
pub(super) fn start_line() -> clap::Command {
    use clap::CommandFactory;
    StartLine::command()
}

impl Cli {
    /// Reads the command line.
    pub(super) fn read() -> Result<Self, clap::Error> {
        Self::read_start().map_or_else(Self::try_parse, Ok)
    }

    /// Reads a command line that begins with `start`, which takes half the time without the tables of the other
    /// commands. One with an error is left for those who know of all of them.
    fn read_start() -> Option<Self> {
        let mut words = std::env::args_os().skip(1);
        words.next().filter(|command| command == "start")?;
        let mut command = StartLine::command();
        let mut matches = command.try_get_matches_from_mut(words).ok()?;
        let StartLine { log, start } = StartLine::from_arg_matches_mut(&mut matches).ok()?;
        // Hundreds of pieces of memory, and this process ends soon.
        std::mem::forget((command, matches));
        Some(Self { log, command: Command::Start(Later(Box::new(start))) })
    }

    pub(super) fn log_level(&self) -> LevelFilter {
        match (self.log.quiet, self.log.verbose) {
            (true, _) => LevelFilter::Error,
            (false, 0) => LevelFilter::Warn,
            (false, 1) => LevelFilter::Info,
            (false, 2) => LevelFilter::Debug,
            (false, _) => LevelFilter::Trace,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Starts a program and keeps it alive
    #[command(override_usage = "immortal start [OPTIONS] FILE [ARGS]...")]
    Start(Later<StartArgs>),
    /// Verifies all that start verifies, starting nothing
    #[command(override_usage = "immortal check [OPTIONS] FILE [ARGS]...")]
    Check(Later<StartArgs>),
    /// Shows every group of this user
    List {
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
    /// Shows one group in full
    Status {
        /// Name of the group
        #[arg(add = ArgValueCandidates::new(names::groups))]
        name: String,
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
    /// Ends whole groups; returns when every process of theirs is gone
    Stop {
        /// Names of the groups
        #[arg(required_unless_present = "all", conflicts_with = "all", add = ArgValueCandidates::new(names::groups))]
        names: Vec<String>,
        /// Ends every group
        #[arg(long)]
        all: bool,
    },
    /// Restarts the process of groups; returns when the new one runs
    Restart {
        /// Names of the groups
        #[arg(required = true, add = ArgValueCandidates::new(names::groups))]
        names: Vec<String>,
    },
    /// Replaces the monitors of a group, and immortal itself, under the process, which runs on
    ///
    /// Without options they are the same monitors, from their files as they are now. The group must have been started
    /// with --on-crash keep. If the new monitors do not get ready, the old ones are restored.
    Reload(Later<ReloadArgs>),
    /// Sends a signal to the process of a group
    Signal {
        /// Name of the group
        #[arg(add = ArgValueCandidates::new(names::groups))]
        name: String,
        /// The signal: TERM, SIGHUP, 10, …
        #[arg(value_parser = signal::parse)]
        signal: i32,
    },
    /// Prints a unit that brings a running group back after a reboot; it holds the values of its options
    Unit {
        /// Name of the group
        #[arg(add = ArgValueCandidates::new(names::groups))]
        name: String,
        /// For systemd (default)
        #[arg(long)]
        systemd: bool,
        /// For launchd
        #[arg(long, conflicts_with = "systemd")]
        launchd: bool,
        /// For a compose file
        #[arg(long, conflicts_with_all = ["systemd", "launchd"])]
        compose: bool,
    },
    /// Prints a script that completes commands, options, and the names of groups and monitors
    Completions {
        /// The shell
        #[arg(value_parser = ["bash", "elvish", "fish", "powershell", "zsh"])]
        shell: String,
    },
    /// Lists, describes, tests, measures and begins monitors
    #[command(subcommand)]
    Monitor(monitor::Command),
    /// Prints the manual page
    Man,
    /// Shows the recent output of a group, whatever its monitors do with it
    Logs {
        /// Name of the group
        #[arg(add = ArgValueCandidates::new(names::groups))]
        name: String,
        /// How many lines
        #[arg(short = 'n', long, value_name = "LINES", default_value_t = 20)]
        lines: usize,
        /// Goes on as output comes, until the group ends
        #[arg(short, long)]
        follow: bool,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum StrategyArg {
    Development,
    Unattached,
    Daemon,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RestartArg {
    Always,
    OnFailure,
    Never,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ReadyArg {
    Exec,
    Notify,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OnCrashArg {
    Respawn,
    Keep,
}

#[derive(Debug, Args)]
pub(super) struct ReloadArgs {
    /// Name of the group
    #[arg(add = ArgValueCandidates::new(names::groups))]
    pub(super) name: String,
    /// Monitor, by path or by name; repeatable; all of the group's are replaced, with their options
    #[arg(short, long, value_name = "[LABEL=]PATH_OR_NAME", add = ArgValueCandidates::new(names::monitors))]
    monitor: Vec<OsString>,
    /// Monitor option; repeatable; without --monitor the others stay as they are
    #[arg(short, long, value_name = "KEY=VALUE")]
    option: Vec<OsString>,
    /// Directory searched first for monitors; repeatable
    #[arg(long, value_name = "DIR")]
    monitor_path: Vec<PathBuf>,
}

// Everything after FILE belongs to the program. (A line of documentation would be shown as what `start` does.)
#[derive(Debug, Args)]
pub(super) struct StartArgs {
    /// Group name [default: base name of FILE]
    #[arg(short, long)]
    name: Option<String>,
    /// How the group's processes relate
    #[arg(short, long, alias = "mode", value_enum, default_value = "unattached")]
    strategy: StrategyArg,
    /// Monitor, by path or by name; repeatable [default: log]
    #[arg(short, long, value_name = "[LABEL=]PATH_OR_NAME", add = ArgValueCandidates::new(names::monitors))]
    monitor: Vec<OsString>,
    /// Monitor option; repeatable; KEY:=JSON for raw JSON, KEY=@FILE to read the value from a file, LABEL.KEY to
    /// address one monitor
    #[arg(short, long, value_name = "KEY=VALUE")]
    option: Vec<OsString>,
    /// Interpreter: runs PROGRAM FILE ARGS
    #[arg(long, value_name = "PROGRAM")]
    exec: Option<OsString>,
    /// Sets a variable of the process's environment; repeatable
    #[arg(short, long, value_name = "KEY=VALUE")]
    env: Vec<OsString>,
    /// Starts the process's environment empty
    #[arg(long)]
    env_clear: bool,
    /// Working directory of the process [default: the caller's]
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Reads variables of the process's environment from a file of KEY=VALUE lines; repeatable
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Runs the process as this user, with the user's groups
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Runs the process in this group
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// File mode creation mask of the process, in octal
    #[arg(long, value_name = "MASK", value_parser = octal)]
    umask: Option<u32>,
    /// Resource limit of the process; repeatable
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    rlimit: Vec<String>,
    /// Priority of the process, from -20 to 19
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-20..=19))]
    nice: Option<i32>,
    /// When to respawn
    #[arg(long, value_enum, default_value = "always")]
    restart: RestartArg,
    /// Never respawns
    #[arg(long, conflicts_with = "restart")]
    no_auto: bool,
    /// A run at least this long is stable
    #[arg(long, value_name = "DUR", default_value = "1s", value_parser = scalar::duration)]
    stable: Duration,
    /// First pause after unstable deaths in a row
    #[arg(long, value_name = "DUR", default_value = "100ms", value_parser = scalar::duration)]
    backoff: Duration,
    /// Longest pause
    #[arg(long, value_name = "DUR", default_value = "10s", value_parser = scalar::duration)]
    backoff_max: Duration,
    /// Gives up after so many respawns in a row without a stable run [default: unlimited]
    #[arg(long, value_name = "N")]
    max_restarts: Option<u32>,
    /// Signal of a polite stop
    #[arg(long, value_name = "SIG", default_value = "TERM", value_parser = signal::parse)]
    stop_signal: i32,
    /// How long a polite stop may take before SIGKILL
    #[arg(long, value_name = "DUR", default_value = "10s", value_parser = scalar::duration)]
    stop_timeout: Duration,
    /// When the program counts as started: when it is executed, or when it says so to its NOTIFY_SOCKET
    #[arg(long, value_enum, default_value = "exec")]
    ready: ReadyArg,
    /// How long the program may take to say so
    #[arg(long, value_name = "DUR", default_value = "30s", value_parser = scalar::duration)]
    ready_timeout: Duration,
    /// How long a monitor may take to be ready
    #[arg(long, value_name = "DUR", default_value = "30s", value_parser = scalar::duration)]
    setup_timeout: Duration,
    /// How much of the pump's stderr the daemon keeps
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = scalar::size)]
    buffer_limit: u64,
    /// Development: does not relay output to this terminal
    #[arg(long)]
    no_relay: bool,
    /// What becomes of the process when pump or daemon dies
    #[arg(long, value_enum, default_value = "respawn")]
    on_crash: OnCrashArg,
    /// With keep: a monitor that ends the pump so often within the window is set aside; 0: never
    #[arg(long, value_name = "N", default_value = "5")]
    monitor_crashes: u32,
    /// The window of --monitor-crashes
    #[arg(long, value_name = "DUR", default_value = "1m", value_parser = positive_duration)]
    monitor_crash_window: Duration,
    /// How long a hook of a monitor may take [default: unlimited]
    #[arg(long, value_name = "DUR", value_parser = positive_duration)]
    hook_timeout: Option<Duration>,
    /// Directory searched first for monitors; repeatable
    #[arg(long, value_name = "DIR")]
    monitor_path: Vec<PathBuf>,
    /// Prints a machine-readable result
    #[arg(long)]
    pub(super) json: bool,
    /// The program, and all that belongs to it
    #[arg(
        required = true,
        trailing_var_arg = true,
        value_names = ["FILE", "ARGS"],
        value_hint = clap::ValueHint::CommandWithArguments
    )]
    program: Vec<OsString>,
}

/// A span that is not empty.
fn positive_duration(text: &str) -> Result<Duration, String> {
    match scalar::duration(text) {
        Ok(Duration::ZERO) => Err("it must be longer than nothing".into()),
        other => other.map_err(|error| error.to_string()),
    }
}

fn octal(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mask) if mask <= 0o777 => Ok(mask),
        Ok(_) | Err(_) => Err("a mask is an octal number up to 777, such as 022".into()),
    }
}

fn usage(what: impl Into<String>, why: impl Into<String>) -> Failure {
    StartError::Usage { what: what.into(), why: why.into() }.into()
}

fn pair(argument: &OsStr) -> Result<(OsString, OsString), Failure> {
    let bytes = argument.as_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) if at > 0 => {
            let part = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
            Ok((part(&bytes[..at]), part(&bytes[at + 1..])))
        }
        Some(_) | None => Err(usage("option --env", "it must be KEY=VALUE")),
    }
}

impl ReloadArgs {
    /// Nothing of the group's monitors stays.
    pub(super) fn replaces_all(&self) -> bool {
        !self.monitor.is_empty()
    }

    /// The start that would make the group as it is to be, from the one that makes it as it is.
    pub(super) fn applied_to(self, mut start: StartArgs) -> Result<Start, Failure> {
        if self.replaces_all() {
            start.monitor = self.monitor;
            start.option.clear();
        } else {
            let given = self.option.iter().map(|option| RawOption::parse(option));
            let given =
                given.collect::<Result<Vec<_>, _>>().map_err(CheckError::from).map_err(StartError::from);
            let given = given.map_err(|error| Failure::from(error).of_a_command())?;
            start.option.retain(|present| RawOption::parse(present).is_ok_and(|p| !replaces(&given, &p)));
        }
        start.option.extend(self.option);
        start.monitor_path = self.monitor_path;
        Ok(start.into_start()?.0)
    }
}

/// Whether one of these has taken the place of an option that addresses its monitor.
fn replaces(given: &[RawOption], present: &RawOption) -> bool {
    given.iter().any(|g| g.key == present.key && (g.label.is_none() || g.label == present.label))
}

impl StartArgs {
    /// Whether monitors and options are as they were given, though they came as text.
    pub(super) fn is_exact(&self) -> bool {
        let mut words = self.monitor.iter().chain(&self.option);
        words.all(|word| word.to_str().is_some_and(|word| !word.contains(char::REPLACEMENT_CHARACTER)))
    }

    /// What to start, and whether this process stays with it.
    pub(super) fn into_start(self) -> Result<(Start, bool), Failure> {
        let mut program = self.program.into_iter();
        let file = program.next().unwrap_or_default();
        let strategy = match self.strategy {
            StrategyArg::Development => Strategy::Development,
            StrategyArg::Unattached => Strategy::Unattached,
            StrategyArg::Daemon => Strategy::Daemon,
        };
        let restart = match (self.no_auto, self.restart) {
            (true, _) | (false, RestartArg::Never) => Restart::Never,
            (false, RestartArg::Always) => Restart::Always,
            (false, RestartArg::OnFailure) => Restart::OnFailure,
        };
        let mut start = Start::new(file)
            .args(program)
            .strategy(strategy)
            .restart(restart)
            .stable(self.stable)
            .backoff(self.backoff, self.backoff_max)
            .stop(self.stop_signal, self.stop_timeout)
            .setup_timeout(self.setup_timeout)
            .buffer_limit(self.buffer_limit)
            .on_crash(match self.on_crash {
                OnCrashArg::Respawn => OnCrash::Respawn,
                OnCrashArg::Keep => OnCrash::Keep,
            })
            .monitor_crashes(self.monitor_crashes, self.monitor_crash_window)
            .relay(!self.no_relay)
            .executable(crate::role::own_executable());
        if matches!(self.ready, ReadyArg::Notify) {
            start = start.ready_notify(self.ready_timeout);
        }
        if let Some(timeout) = self.hook_timeout {
            start = start.hook_timeout(timeout);
        }
        if let Some(count) = self.max_restarts {
            start = start.max_restarts(count);
        }
        if let Some(name) = self.name {
            start = start.name(name);
        }
        if let Some(exec) = self.exec {
            start = start.exec(exec);
        }
        if let Some(directory) = self.cwd {
            start = start.cwd(directory);
        }
        if self.env_clear {
            start = start.env_clear();
        }
        if let Some(user) = self.user {
            start = start.user(user);
        }
        if let Some(group) = self.group {
            start = start.group(group);
        }
        if let Some(mask) = self.umask {
            start = start.umask(mask);
        }
        if let Some(nice) = self.nice {
            start = start.nice(nice);
        }
        start = self.rlimit.into_iter().fold(start, Start::rlimit);
        for path in &self.env_file {
            start = start.env_file(path)?;
        }
        for variable in &self.env {
            let (key, value) = pair(variable)?;
            start = start.env(key, value);
        }
        start = self.monitor.into_iter().fold(start, Start::monitor);
        start = self.option.into_iter().fold(start, Start::option);
        start = self.monitor_path.into_iter().fold(start, Start::monitor_path);
        Ok((start, strategy == Strategy::Development))
    }
}
