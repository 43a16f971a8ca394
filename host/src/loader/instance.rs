//! One monitor at work: its hooks as safe methods.
//!
//! Calls are serial, on the thread that created the instance. [`Instance::output`] is the hot path: two plain
//! stores, one call, one load; no lock, no allocation.

use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;

use immortal_monitor_api::abi;

use super::host_table::{Host, borrow, size_u32, this_thread};
use super::{Library, one_line, without_location};
use crate::options::{OptionValue, ValueKind};

/// What `setup` answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// The process may be spawned.
    Ready,
    /// Not yet: the monitor calls `ready` later.
    Pending,
}

/// Why a monitor is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The group starts.
    PumpStart,
    /// The pump died.
    PumpRestart,
    /// The daemon died.
    DaemonRestart,
    /// The monitors were reloaded; nothing died.
    Reload,
}

/// Argument of [`Instance::setup`].
#[derive(Debug, Clone, Copy)]
pub struct SetupArgs<'a> {
    /// Why.
    pub why: Why,
    /// The process was kept running.
    pub kept: bool,
    /// Pid of the process if it is running.
    pub process_pid: Option<i32>,
    /// Stderr of the dead pump, newest part.
    pub message: &'a [u8],
    /// How many bytes of it are missing before `message`.
    pub cut_bytes: u64,
    /// Offset of the first byte that will be delivered, of stdout and of stderr.
    pub first_offset: [u64; 2],
}

/// One of the group's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Argument of [`Instance::output`].
#[derive(Debug, Clone, Copy)]
pub struct Output<'a> {
    /// Which stream.
    pub stream: Stream,
    /// An earlier pump may have delivered these bytes already.
    pub redelivered: bool,
    /// Offset of the first byte in the group's stream.
    pub offset: u64,
    /// `CLOCK_MONOTONIC` at the read; 0 if it was not taken.
    pub mono_ns: u64,
    /// The bytes.
    pub data: &'a [u8],
}

/// What happened to the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It started for the first time.
    Spawn,
    /// It was started again.
    Respawn,
    /// It died.
    Exit,
}

/// Argument of [`Instance::event`].
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// Pid of the process it is about.
    pub process_pid: i32,
    /// Exit code, if it exited by itself.
    pub code: Option<i32>,
    /// Signal that ended it, if one did.
    pub signal: Option<i32>,
    /// How many times the process has been respawned in the life of the group.
    pub respawns: u32,
    /// It left a core dump.
    pub core: bool,
    /// It was kept running, it is not a new one.
    pub kept: bool,
    /// `CLOCK_MONOTONIC` of the fact.
    pub mono_ns: u64,
    /// Nanoseconds since 1970-01-01 UTC of the fact.
    pub wall_ns: u64,
    /// Of an exit: how long it ran.
    pub ran_ns: u64,
}

/// A hook failed or panicked. The monitor must not be called again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookError {
    /// Label of the monitor.
    pub label: String,
    /// Name of the hook.
    pub hook: &'static str,
    /// It panicked.
    pub panicked: bool,
    /// Its reason as it gave it, without the hook's name; empty if it gave none.
    pub text: String,
}

impl fmt::Display for HookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { label, hook, panicked, text } = self;
        match (text.as_str(), panicked) {
            ("", true) => write!(f, "monitor {label}: {hook} panicked and gave no reason"),
            ("", false) => write!(f, "monitor {label}: {hook} failed and gave no reason"),
            // A refusal of options is a message to the user, who knows of no hooks.
            (text, false) if *hook == "check" => {
                write!(f, "monitor {label}: {}", one_line(split_hint(text).0))
            }
            (text, true) if *hook == "check" => {
                write!(f, "monitor {label}: {hook}: {}", without_location(&one_line(text)))
            }
            (text, _) => write!(f, "monitor {label}: {hook}: {}", one_line(split_hint(text).0)),
        }
    }
}

impl HookError {
    /// What the monitor itself advises: the last line of its text, if that begins with `hint: `.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        split_hint(&self.text).1.map(one_line)
    }
}

fn split_hint(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once("\nhint: ") {
        Some((text, hint)) => (text, Some(hint)),
        None => (text, None),
    }
}

impl std::error::Error for HookError {}

/// Lets a monitor judge its options, without an instance. One without a check is content.
///
/// # Errors
/// What it says against them.
pub fn check_options(library: &Library, host: Host, options: &[OptionValue]) -> Result<(), HookError> {
    let Some(check) = library.table().check else { return Ok(()) };
    let options = lend(options);
    host.context.enter(this_thread());
    let code = check(host.table, options.as_ptr(), options.len());
    let failed = host.context.leave();
    judge(host, "check", code, failed)
}

/// A created monitor. Dropping it leaks the monitor's own object: after a failure nothing may be called any
/// more, and an orderly end is [`Instance::finish`] and [`Instance::destroy`].
#[derive(Debug)]
pub struct Instance {
    table: &'static abi::MonitorTable,
    host: Host,
    object: NonNull<c_void>,
    thread: usize,
    /// Not `Send`: all hooks are called on one thread.
    here: PhantomData<*const ()>,
}

impl Instance {
    /// Creates a monitor with its options.
    ///
    /// # Errors
    /// What it says against them; hook `create`.
    pub fn create(library: &Library, host: Host, options: &[OptionValue]) -> Result<Self, HookError> {
        Self::create_lent(library, host, &lend(options))
    }

    /// The same with options as they cross.
    ///
    /// # Errors
    /// As [`Instance::create`].
    pub(crate) fn create_lent(
        library: &Library,
        host: Host,
        options: &[abi::Opt],
    ) -> Result<Self, HookError> {
        let table = library.table();
        let create = table.create.expect("a table without create is refused when it is opened");
        let thread = this_thread();
        host.context.enter(thread);
        let object = create(host.table, options.as_ptr(), options.len());
        let failed = host.context.leave();
        match NonNull::new(object) {
            Some(object) if !failed => Ok(Self { table, host, object, thread, here: PhantomData }),
            Some(_) | None => Err(failure(host, "create", false)),
        }
    }

    /// Label of the monitor.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.host.context.label
    }

    /// Calls `setup`; a monitor without one is ready.
    ///
    /// # Errors
    /// Its failure, or its panic.
    pub fn setup(&mut self, args: &SetupArgs<'_>) -> Result<Readiness, HookError> {
        let setup_args = abi::Setup {
            size: size_u32::<abi::Setup>(),
            why: match args.why {
                Why::PumpStart => abi::WHY_PUMP_START,
                Why::PumpRestart => abi::WHY_PUMP_RESTART,
                Why::DaemonRestart => abi::WHY_DAEMON_RESTART,
                Why::Reload => abi::WHY_RELOAD,
            },
            flags: if args.kept { abi::FLAG_KEPT } else { 0 },
            process_pid: args.process_pid.unwrap_or(0),
            message: borrow(args.message),
            cut_bytes: args.cut_bytes,
            first_offset: args.first_offset,
        };
        self.setup_lent(&setup_args)
    }

    /// The same with the argument as it crosses.
    ///
    /// # Errors
    /// As [`Instance::setup`].
    pub(crate) fn setup_lent(&mut self, args: &abi::Setup) -> Result<Readiness, HookError> {
        let Some(setup) = self.table.setup else { return Ok(Readiness::Ready) };
        let (code, failed) = self.call(|object| setup(object, args));
        match code {
            abi::PENDING if !failed => Ok(Readiness::Pending),
            code => judge(self.host, "setup", code, failed).map(|()| Readiness::Ready),
        }
    }

    /// Delivers bytes of a stream.
    ///
    /// # Errors
    /// Its failure, or its panic; hook `stdout` or `stderr`.
    #[inline]
    pub fn output(&mut self, output: &Output<'_>) -> Result<(), HookError> {
        let args = abi::Output {
            size: size_u32::<abi::Output>(),
            stream: match output.stream {
                Stream::Stdout => abi::STREAM_STDOUT,
                Stream::Stderr => abi::STREAM_STDERR,
            },
            flags: if output.redelivered { abi::FLAG_REDELIVERED } else { 0 },
            reserved: 0,
            offset: output.offset,
            mono_ns: output.mono_ns,
            data: borrow(output.data),
        };
        self.output_lent(&args)
    }

    /// The same with the argument as it crosses.
    ///
    /// # Errors
    /// As [`Instance::output`].
    #[inline]
    pub(crate) fn output_lent(&mut self, args: &abi::Output) -> Result<(), HookError> {
        let Some(hook) = self.table.output else { return Ok(()) };
        let (code, failed) = self.call(|object| hook(object, args));
        if code == abi::OK && !failed {
            return Ok(());
        }
        let name = match args.stream {
            abi::STREAM_STDOUT => "stdout",
            abi::STREAM_STDERR => "stderr",
            _ => "output",
        };
        judge(self.host, name, code, failed)
    }

    /// Delivers an event of the process's life.
    ///
    /// # Errors
    /// Its failure, or its panic; hook `spawn`, `respawn` or `exit`.
    pub fn event(&mut self, event: &Event) -> Result<(), HookError> {
        let kind = match event.kind {
            EventKind::Spawn => abi::EVENT_SPAWN,
            EventKind::Respawn => abi::EVENT_RESPAWN,
            EventKind::Exit => abi::EVENT_EXIT,
        };
        let core = if event.core { abi::FLAG_CORE } else { 0 };
        let kept = if event.kept { abi::FLAG_KEPT } else { 0 };
        let args = abi::Event {
            size: size_u32::<abi::Event>(),
            kind,
            pid: event.process_pid,
            code: event.code.unwrap_or(-1),
            signal: event.signal.unwrap_or(-1),
            count: event.respawns,
            flags: core | kept,
            reserved: 0,
            mono_ns: event.mono_ns,
            wall_ns: event.wall_ns,
            ran_ns: event.ran_ns,
        };
        self.event_lent(&args)
    }

    /// The same with the argument as it crosses.
    ///
    /// # Errors
    /// As [`Instance::event`].
    pub(crate) fn event_lent(&mut self, args: &abi::Event) -> Result<(), HookError> {
        let Some(hook) = self.table.event else { return Ok(()) };
        let (code, failed) = self.call(|object| hook(object, args));
        let name = match args.kind {
            abi::EVENT_SPAWN => "spawn",
            abi::EVENT_RESPAWN => "respawn",
            abi::EVENT_EXIT => "exit",
            _ => "event",
        };
        judge(self.host, name, code, failed)
    }

    /// Tells the monitor that there is nothing more to read now.
    ///
    /// # Errors
    /// Its failure, or its panic.
    pub fn idle(&mut self) -> Result<(), HookError> {
        let Some(hook) = self.table.idle else { return Ok(()) };
        let (code, failed) = self.call(|object| hook(object));
        judge(self.host, "idle", code, failed)
    }

    /// Tells the monitor to write out everything before the deadline (`CLOCK_MONOTONIC`).
    ///
    /// # Errors
    /// Its failure, or its panic.
    pub fn finish(&mut self, deadline_ns: u64) -> Result<(), HookError> {
        let Some(hook) = self.table.finish else { return Ok(()) };
        let (code, failed) = self.call(|object| hook(object, deadline_ns));
        judge(self.host, "finish", code, failed)
    }

    /// Frees the monitor's object; the library stays.
    ///
    /// # Errors
    /// Its panic.
    pub fn destroy(self) -> Result<(), HookError> {
        let destroy = self.table.destroy.expect("a table without destroy is refused when it is opened");
        let ((), failed) = self.call(|object| destroy(object));
        if failed { Err(failure(self.host, "destroy", false)) } else { Ok(()) }
    }

    #[inline]
    fn call<R>(&self, hook: impl FnOnce(*mut c_void) -> R) -> (R, bool) {
        self.host.context.enter(self.thread);
        let result = hook(self.object.as_ptr());
        (result, self.host.context.leave())
    }
}

/// The options as they cross; they live as long as `options` does.
pub(crate) fn lend(options: &[OptionValue]) -> Vec<abi::Opt> {
    let lend_one = |option: &OptionValue| abi::Opt {
        key: borrow(option.key.as_bytes()),
        value: borrow(&option.value),
        kind: match option.kind {
            ValueKind::Text => abi::OPT_TEXT,
            ValueKind::Json => abi::OPT_JSON,
        },
        flags: 0,
    };
    options.iter().map(lend_one).collect()
}

/// What a returned code means. A hook that called `fail` has failed, whatever it returned.
fn judge(host: Host, hook: &'static str, code: i32, failed: bool) -> Result<(), HookError> {
    match code {
        abi::OK if !failed => Ok(()),
        abi::OK | abi::FAILED => Err(failure(host, hook, false)),
        abi::PANICKED => Err(failure(host, hook, true)),
        code => {
            let mut error = failure(host, hook, false);
            if error.text.is_empty() {
                error.text = format!("returned {code}, which means nothing");
            }
            Err(error)
        }
    }
}

/// Names that a monitor's own side may put before its reason: those of the table and those of the Rust trait.
const HOOKS: &[&str] = &[
    "check", "create", "new", "setup", "output", "stdout", "stderr", "event", "spawn", "respawn", "exit",
    "idle", "finish", "destroy",
];

#[cold]
fn failure(host: Host, hook: &'static str, panicked: bool) -> HookError {
    let text = host.context.take_text();
    let named = HOOKS.iter().find_map(|&name| Some((name, text.strip_prefix(name)?.strip_prefix(": ")?)));
    let (hook, text) = named.unwrap_or((hook, &text));
    let panicked = panicked || text.starts_with("panicked");
    HookError { label: host.context.label.clone(), hook, panicked, text: text.to_owned() }
}
