//! One instance under test, and the calls of its life as the pump would make them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::notes::step;
use super::recorder::Recorder;
use super::wire::{Finding, Job};
use crate::loader::{
    Event, EventKind, HookError, Host, Instance, Library, Output, Readiness, SetupArgs, Stream, Why, one_line,
};
use crate::sys::clock;

/// Pid of the first process of a life. No system gives out one so high, so nothing can come of a signal to it.
const FIRST_PID: i32 = 500_000_000;

/// What a test works with.
pub(super) struct Context<'a> {
    pub(super) job: &'a Job,
    pub(super) library: Library,
    /// How long opening the library took.
    pub(super) load_time: Duration,
    /// How signals were handled before it.
    pub(super) signals_before: crate::loader::Dispositions,
    pub(super) started: Instant,
}

impl Context<'_> {
    /// Most of the time that the test may take has gone.
    pub(super) fn is_late(&self) -> bool {
        self.started.elapsed() > self.limit() * 6 / 10
    }

    pub(super) fn limit(&self) -> Duration {
        Duration::from_millis(self.job.limit_ms)
    }
}

/// What a test comes to; a hook that fails in a plain life is a failure.
pub(super) type Outcome = Result<Finding, Broken>;

/// A hook failed, or the test itself could not go on.
#[derive(Debug)]
pub(super) struct Broken(pub(super) String);

impl From<HookError> for Broken {
    fn from(error: HookError) -> Self {
        let what = if error.panicked { "panicked" } else { "failed" };
        let text = match error.text.split_once("\nhint: ") {
            Some((text, _)) => one_line(text),
            None => one_line(&error.text),
        };
        let text = text.strip_prefix("panicked ").unwrap_or(&text);
        Self(if text.is_empty() {
            format!("{} {what} and gave no reason", error.hook)
        } else {
            format!("{} {what}: {text}", error.hook)
        })
    }
}

impl From<std::io::Error> for Broken {
    fn from(error: std::io::Error) -> Self {
        Self(format!("the test could not go on: {error}"))
    }
}

/// How a process died.
#[derive(Debug, Clone, Copy)]
pub(super) enum How {
    Code(i32),
    Signal(i32, bool),
}

/// An instance, and where its group stands.
pub(super) struct Life {
    pub(super) instance: Instance,
    pub(super) recorder: Arc<Recorder>,
    offsets: [u64; 2],
    pid: i32,
    respawns: u32,
    /// Of each hook: calls, all their time, the longest.
    pub(super) times: BTreeMap<&'static str, (u32, Duration, Duration)>,
}

impl Life {
    /// Creates, sets up for a first start, and waits until it is ready.
    pub(super) fn begin(context: &Context<'_>) -> Result<Self, Broken> {
        let mut life = Self::create(context)?;
        life.setup(context, Why::PumpStart, b"", 0)?;
        Ok(life)
    }

    /// Creates an instance with a host of its own.
    pub(super) fn create(context: &Context<'_>) -> Result<Self, Broken> {
        let (recorder, host) = Recorder::publish(&context.job.label);
        Self::create_for(context, recorder, host)
    }

    /// Creates an instance for a host, which may have had others.
    pub(super) fn create_for(
        context: &Context<'_>,
        recorder: Arc<Recorder>,
        host: Host,
    ) -> Result<Self, Broken> {
        step("create");
        let begun = Instant::now();
        let instance = Instance::create(&context.library, host, &context.job.options)?;
        let mut life = Self::of(instance, recorder);
        life.note("create", begun);
        Ok(life)
    }

    pub(super) fn of(instance: Instance, recorder: Arc<Recorder>) -> Self {
        Self { instance, recorder, offsets: [0; 2], pid: 0, respawns: 0, times: BTreeMap::new() }
    }

    fn note(&mut self, hook: &'static str, begun: Instant) {
        let took = begun.elapsed();
        let entry = self.times.entry(hook).or_default();
        *entry = (entry.0 + 1, entry.1 + took, entry.2.max(took));
    }

    fn judge(
        &mut self,
        hook: &'static str,
        begun: Instant,
        result: Result<(), HookError>,
    ) -> Result<(), Broken> {
        self.note(hook, begun);
        result?;
        match self.recorder.take_failure() {
            Some(text) => Err(Broken(format!("it failed outside its hooks: {}", one_line(&text)))),
            None => Ok(()),
        }
    }

    /// Calls `setup`, and waits until the monitor is ready.
    pub(super) fn setup(
        &mut self,
        context: &Context<'_>,
        why: Why,
        message: &[u8],
        cut_bytes: u64,
    ) -> Result<(), Broken> {
        step("setup");
        let first_offset = self.offsets;
        let args = SetupArgs { why, kept: false, process_pid: None, message, cut_bytes, first_offset };
        let begun = Instant::now();
        let result = self.instance.setup(&args);
        self.judge("setup", begun, result.as_ref().map(|_| ()).map_err(Clone::clone))?;
        match result? {
            Readiness::Ready => Ok(()),
            Readiness::Pending => self.wait_ready(context.limit() * 8 / 10),
        }
    }

    fn wait_ready(&mut self, limit: Duration) -> Result<(), Broken> {
        step("waiting until it is ready");
        if self.recorder.wait_ready(limit) {
            return Ok(());
        }
        Err(Broken(match self.recorder.take_failure() {
            Some(text) => format!("it failed before it was ready: {}", one_line(&text)),
            None => {
                format!("setup returned \"not yet\", and it never became ready ({} s)", limit.as_secs_f32())
            }
        }))
    }

    /// The offsets go on from here, as after the death of a pump.
    pub(super) fn go_on_at(&mut self, offsets: [u64; 2], respawns: u32) {
        (self.offsets, self.respawns) = (offsets, respawns);
    }

    /// Where bytes of a stream begin, which the caller delivers himself.
    pub(super) fn pass(&mut self, at: usize, length: usize) -> u64 {
        let offset = self.offsets[at];
        self.offsets[at] += length as u64;
        offset
    }

    pub(super) fn output(&mut self, stream: Stream, data: &[u8]) -> Result<(), Broken> {
        let (at, hook) = match stream {
            Stream::Stdout => (0, "stdout"),
            Stream::Stderr => (1, "stderr"),
        };
        step(hook);
        let offset = self.pass(at, data.len());
        let output = Output { stream, redelivered: false, offset, mono_ns: clock::monotonic_ns(), data };
        let begun = Instant::now();
        let result = self.instance.output(&output);
        self.judge(hook, begun, result)
    }

    pub(super) fn spawn(&mut self) -> Result<(), Broken> {
        self.pid = FIRST_PID;
        self.event(EventKind::Spawn, None)
    }

    pub(super) fn respawn(&mut self) -> Result<(), Broken> {
        self.pid = self.pid.max(FIRST_PID) + 1;
        self.respawns += 1;
        self.event(EventKind::Respawn, None)
    }

    pub(super) fn exit(&mut self, how: How) -> Result<(), Broken> {
        let result = self.event(EventKind::Exit, Some(how));
        self.recorder.set_process(0);
        result
    }

    fn event(&mut self, kind: EventKind, how: Option<How>) -> Result<(), Broken> {
        let hook = match kind {
            EventKind::Spawn => "spawn",
            EventKind::Respawn => "respawn",
            EventKind::Exit => "exit",
        };
        step(hook);
        self.recorder.set_process(self.pid);
        let (code, signal, core) = match how {
            None => (None, None, false),
            Some(How::Code(code)) => (Some(code), None, false),
            Some(How::Signal(signal, core)) => (None, Some(signal), core),
        };
        let event = Event {
            kind,
            process_pid: self.pid,
            code,
            signal,
            respawns: self.respawns,
            core,
            kept: false,
            mono_ns: clock::monotonic_ns(),
            wall_ns: clock::wall_ns(),
            ran_ns: if how.is_some() { 1_500_000_000 } else { 0 },
        };
        let begun = Instant::now();
        let result = self.instance.event(&event);
        self.judge(hook, begun, result)
    }

    pub(super) fn idle(&mut self) -> Result<(), Broken> {
        step("idle");
        let begun = Instant::now();
        let result = self.instance.idle();
        self.judge("idle", begun, result)
    }

    /// Calls `finish`, with two seconds to go.
    pub(super) fn finish(&mut self) -> Result<(), Broken> {
        const DEADLINE: Duration = Duration::from_secs(2);
        step("finish");
        let begun = Instant::now();
        let deadline = clock::monotonic_ns() + u64::try_from(DEADLINE.as_nanos()).unwrap_or(u64::MAX);
        let result = self.instance.finish(deadline);
        self.judge("finish", begun, result)?;
        if begun.elapsed() > DEADLINE {
            return Err(Broken(format!(
                "finish returned {:.1} s after its deadline",
                (begun.elapsed() - DEADLINE).as_secs_f32()
            )));
        }
        Ok(())
    }

    /// Calls `destroy`; returns the times of all calls.
    pub(super) fn destroy(mut self) -> Result<BTreeMap<&'static str, (u32, Duration, Duration)>, Broken> {
        step("destroy");
        let begun = Instant::now();
        let result = self.instance.destroy();
        let took = begun.elapsed();
        self.times.insert("destroy", (1, took, took));
        result?;
        Ok(self.times)
    }

    /// Ends in order.
    pub(super) fn end(mut self) -> Result<(), Broken> {
        self.finish()?;
        self.destroy().map(drop)
    }

    /// A little of everything, from the first start to the end.
    pub(super) fn whole(mut self) -> Result<(), Broken> {
        self.spawn()?;
        self.output(Stream::Stdout, b"one line\nand a half")?;
        self.output(Stream::Stderr, b"a warning\n")?;
        self.idle()?;
        self.exit(How::Code(1))?;
        self.respawn()?;
        self.output(Stream::Stdout, b" more\n")?;
        self.exit(How::Signal(libc::SIGTERM, false))?;
        self.end()
    }
}
