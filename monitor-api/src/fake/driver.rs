//! Drives an instance through its table, as the pump does.

use super::FakeHost;
use crate::abi::{self, MonitorTable, Opt};
use crate::{Event, Exit, Monitor, Output, Pids, Readiness, Setup, Spawn, Stream, Why, raw, shim};
use core::ffi::c_void;
use core::ptr::NonNull;
use core::time::Duration;
use std::time::{SystemTime, UNIX_EPOCH};

/// How a hook went wrong, with the text that the host was told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HookError {
    /// The text as a user sees it.
    pub text: String,
    /// Whether it was a panic.
    pub is_panic: bool,
}

impl core::fmt::Display for HookError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.text)
    }
}

impl core::error::Error for HookError {}

/// One instance of a monitor, and the pump's side of its calls. Dropping it destroys the instance.
pub struct Driver {
    fake: FakeHost,
    table: MonitorTable,
    instance: NonNull<c_void>,
    /// Bytes delivered so far, of stdout and of stderr.
    delivered: [u64; 2],
    count: u32,
}

impl core::fmt::Debug for Driver {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Driver").field("delivered", &self.delivered).finish_non_exhaustive()
    }
}

/// Calls `check` of a monitor's table.
pub(super) fn check<M: Monitor>(fake: &FakeHost, options: &[&str]) -> Result<(), HookError> {
    let check = table::<M>().check.expect("every shim is there");
    let code = with_options(options, |options| check(fake.host.table(), options.as_ptr(), options.len()));
    outcome(fake, code).map(drop)
}

impl Driver {
    pub(super) fn new<M: Monitor>(fake: &FakeHost, options: &[&str]) -> Result<Self, HookError> {
        let table = table::<M>();
        let create = table.create.expect("every shim is there");
        let told = fake.failures().len();
        let instance =
            with_options(options, |options| create(fake.host.table(), options.as_ptr(), options.len()));
        match NonNull::new(instance) {
            Some(instance) => Ok(Self { fake: fake.clone(), table, instance, delivered: [0; 2], count: 0 }),
            None => {
                let text = fake.failures().get(told).cloned().unwrap_or_default();
                Err(HookError { is_panic: text.starts_with("new: panicked"), text })
            }
        }
    }

    /// The host that the instance sees.
    pub fn host(&self) -> &FakeHost {
        &self.fake
    }

    /// Calls `setup` with this reason and message, and with the offsets that follow what was delivered.
    ///
    /// # Errors
    /// If the hook fails or panics.
    pub fn setup(&mut self, why: Why, message: &[u8]) -> Result<Readiness, HookError> {
        let [stdout_offset, stderr_offset] = self.delivered;
        self.setup_details(&Setup { stdout_offset, stderr_offset, ..Setup::new(why, message) })
    }

    /// Calls `setup` with all details; what is delivered next goes on from its offsets.
    ///
    /// # Errors
    /// If the hook fails or panics.
    pub fn setup_details(&mut self, setup: &Setup<'_>) -> Result<Readiness, HookError> {
        self.delivered = [setup.stdout_offset, setup.stderr_offset];
        let raw = abi::Setup {
            size: size::<abi::Setup>(),
            why: setup.why.to_raw(),
            flags: if setup.kept { abi::FLAG_KEPT } else { 0 },
            process_pid: setup.process_pid.unwrap_or(0),
            message: raw::text(setup.message),
            cut_bytes: setup.cut_bytes,
            first_offset: self.delivered,
        };
        let call = self.table.setup.expect("every shim is there");
        match outcome(&self.fake, call(self.instance.as_ptr(), &raw const raw))? {
            abi::PENDING => Ok(Readiness::Pending),
            _ => Ok(Readiness::Ready),
        }
    }

    /// Delivers bytes of stdout.
    ///
    /// # Errors
    /// If the hook fails or panics.
    pub fn stdout(&mut self, bytes: &[u8]) -> Result<(), HookError> {
        self.output(&Output::new(Stream::Stdout, bytes, self.delivered[0]))
    }

    /// Delivers bytes of stderr.
    ///
    /// # Errors
    /// If the hook fails or panics.
    pub fn stderr(&mut self, bytes: &[u8]) -> Result<(), HookError> {
        self.output(&Output::new(Stream::Stderr, bytes, self.delivered[1]))
    }

    /// Delivers bytes with all details.
    ///
    /// # Errors
    /// If the hook fails or panics.
    pub fn output(&mut self, output: &Output<'_>) -> Result<(), HookError> {
        let raw = abi::Output {
            size: size::<abi::Output>(),
            stream: output.stream.to_raw(),
            flags: if output.redelivered { abi::FLAG_REDELIVERED } else { 0 },
            reserved: 0,
            offset: output.offset,
            mono_ns: output.mono_ns.unwrap_or(0),
            data: raw::text(output.bytes),
        };
        let end = output.offset + u64::try_from(output.bytes.len()).expect("no slice is that long");
        match output.stream {
            Stream::Stdout => self.delivered[0] = end,
            Stream::Stderr => self.delivered[1] = end,
            Stream::Other(_) => {}
        }
        let call = self.table.output.expect("every shim is there");
        outcome(&self.fake, call(self.instance.as_ptr(), &raw const raw)).map(drop)
    }

    /// Says that the process started for the first time; from here on it is in the pids.
    ///
    /// # Errors
    /// If the hook fails or panics.
    pub fn spawn(&mut self, pid: i32) -> Result<(), HookError> {
        self.event(&Event::Spawn(Spawn::new(pid)))
    }

    /// Says that the process was started again; from here on it is in the pids.
    ///
    /// # Errors
    /// If the hook fails or panics.
    pub fn respawn(&mut self, pid: i32) -> Result<(), HookError> {
        self.count += 1;
        self.event(&Event::Respawn(Spawn { count: self.count, ..Spawn::new(pid) }))
    }

    /// Says that the process died; from here on there is none in the pids.
    ///
    /// # Errors
    /// If the hook fails or panics.
    pub fn exit(&mut self, exit: &Exit) -> Result<(), HookError> {
        self.event(&Event::Exit(exit.clone()))
    }

    /// Delivers an event with all details.
    ///
    /// # Errors
    /// If the hook fails or panics.
    pub fn event(&mut self, event: &Event) -> Result<(), HookError> {
        let process = match event {
            Event::Spawn(spawn) | Event::Respawn(spawn) => Some(spawn.pid),
            Event::Exit(_) => None,
            Event::Other(_) => self.fake.host.pids().process,
        };
        self.fake.set_pids(Pids { process, ..self.fake.host.pids() });
        let raw = raw_event(event);
        let call = self.table.event.expect("every shim is there");
        outcome(&self.fake, call(self.instance.as_ptr(), &raw const raw)).map(drop)
    }

    /// Says that there is nothing more to read.
    ///
    /// # Errors
    /// If the hook fails or panics.
    pub fn idle(&mut self) -> Result<(), HookError> {
        let call = self.table.idle.expect("every shim is there");
        outcome(&self.fake, call(self.instance.as_ptr())).map(drop)
    }

    /// Ends the group in order: calls `finish` with a deadline this far away, then destroys the instance.
    ///
    /// # Errors
    /// If the hook fails or panics.
    pub fn finish(self, within: Duration) -> Result<(), HookError> {
        let within_ns = u64::try_from(within.as_nanos()).unwrap_or(u64::MAX);
        let deadline_ns = shim::monotonic_ns().saturating_add(within_ns);
        let call = self.table.finish.expect("every shim is there");
        outcome(&self.fake, call(self.instance.as_ptr(), deadline_ns)).map(drop)
    }

    /// Dies as a pump does that is killed: no hook runs any more, and what the instance holds is leaked.
    pub fn crash(self) {
        core::mem::forget(self);
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let destroy = self.table.destroy.expect("every shim is there");
        destroy(self.instance.as_ptr());
    }
}

fn table<M: Monitor>() -> MonitorTable {
    shim::table::<M>(c"test", c"0.0.0", c"")
}

fn size<T>() -> u32 {
    u32::try_from(size_of::<T>()).expect("the structures are small")
}

/// Options as the boundary has them, for one call.
fn with_options<T>(options: &[&str], call: impl FnOnce(&[Opt]) -> T) -> T {
    let given = options.iter().map(|option| super::given(option));
    let raw = given.map(|given| Opt {
        key: raw::text(given.key),
        value: raw::text(given.value),
        kind: if given.is_json { abi::OPT_JSON } else { abi::OPT_TEXT },
        flags: 0,
    });
    call(&raw.collect::<Vec<_>>())
}

/// What a hook returned; on failure with the text that it told the host last.
fn outcome(fake: &FakeHost, code: i32) -> Result<i32, HookError> {
    match code {
        abi::OK | abi::PENDING => Ok(code),
        _ => {
            let text = fake.failures().pop().unwrap_or_default();
            Err(HookError { text, is_panic: code == abi::PANICKED })
        }
    }
}

fn raw_event(event: &Event) -> abi::Event {
    let wall = |at: SystemTime| {
        u64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
    };
    let mut raw = abi::Event {
        size: size::<abi::Event>(),
        kind: 0,
        pid: 0,
        code: -1,
        signal: -1,
        count: 0,
        flags: 0,
        reserved: 0,
        mono_ns: 0,
        wall_ns: 0,
        ran_ns: 0,
    };
    match event {
        Event::Spawn(spawn) | Event::Respawn(spawn) => {
            raw.kind = if matches!(event, Event::Spawn(_)) { abi::EVENT_SPAWN } else { abi::EVENT_RESPAWN };
            raw.pid = spawn.pid;
            raw.count = spawn.count;
            raw.flags = if spawn.kept { abi::FLAG_KEPT } else { 0 };
            (raw.mono_ns, raw.wall_ns) = (spawn.mono_ns, wall(spawn.at));
        }
        Event::Exit(exit) => {
            raw.kind = abi::EVENT_EXIT;
            raw.pid = exit.pid;
            raw.code = exit.code.unwrap_or(-1);
            raw.signal = exit.signal.unwrap_or(-1);
            raw.count = exit.count;
            raw.flags = if exit.core { abi::FLAG_CORE } else { 0 };
            (raw.mono_ns, raw.wall_ns) = (exit.mono_ns, wall(exit.at));
            raw.ran_ns = u64::try_from(exit.ran.as_nanos()).unwrap_or(u64::MAX);
        }
        Event::Other(kind) => raw.kind = *kind,
    }
    raw
}
