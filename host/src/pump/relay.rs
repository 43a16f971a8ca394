//! The pump's second thread: loads the monitors, reads the streams, and calls every hook.
//!
//! A chunk goes from the pipe through one buffer to each monitor in turn; nothing is queued and nothing handed
//! over. After a short read the relay waits half a millisecond before it reads again, so that the lines of a
//! program that writes them one by one gather; it drains at once when the process has ended, and arms no timer
//! while nothing comes.
//!
//! It reads only between a `spawn` or `respawn` and the `exit` that follows, or when it is told to: what it
//! delivers before an `exit` is what was in the streams at that moment, which is all that the dead process had
//! written.

use super::fallback;
use super::intake::{Chunk, Intake, Taken};
use super::mail::{Command, Mail, Notice};
use super::offer::Offer;
use crate::delivery::{Delivery, Hook, Verdict};
use crate::loader::{
    self, Checked, Dispositions, Event, EventKind, Instance, LastCrash, Output, Readiness, Settings,
    SetupArgs, Stream, Why,
};
use crate::recent::CHUNK_BYTES;
use crate::sink::Sink;
use crate::state::{Page, is_aside};
use crate::sys::arrivals::Arrivals;
use crate::sys::{clock, fd, memory, schedule};
use immortal_monitor_api::abi;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Given by us and not by `RUST_MIN_STACK` of whoever started the group.
const STACK_BYTES: usize = 2 << 20;
/// How long lines may gather after a short read.
const GATHER: Duration = Duration::from_micros(500);
/// The same for a stream whose pipe is full before that and cannot hold more: its writer would wait for us.
const GATHER_IN_SMALL_PIPE: Duration = Duration::from_micros(50);
/// What a pipe is made to hold that was found full, in bytes.
const GROWN_PIPE_BYTES: i32 = 512 * 1024;

/// As much in one read as a pipe holds that nobody has grown, or nearly: there is likely to be more at once.
const MUCH_BYTES: usize = 56 * 1024;

/// What the relay starts with.
pub(super) struct Start {
    pub(super) mail: Arc<Mail>,
    pub(super) page: Page,
    pub(super) settings: Arc<Settings>,
    pub(super) monitors: Vec<Checked>,
    /// Those that are set aside, a bit for each.
    pub(super) aside: u64,
    /// The executable that runs the check of a library that has changed since the start.
    pub(super) executable: PathBuf,
    pub(super) intake: Intake,
    /// Development: where the streams are copied to.
    pub(super) sinks: [Sink; 2],
    pub(super) why: u32,
    pub(super) message: Vec<u8>,
    pub(super) cut_bytes: u64,
    /// Gets readable when the pump before, which stands by without monitors, is gone, or the helper of the start.
    pub(super) predecessor: Option<OwnedFd>,
    pub(super) last_crash: Option<LastCrash>,
    /// The process that was kept running, if it was.
    pub(super) kept: Option<KeptProcess>,
    /// Keeps an unattached pump's stderr within bounds.
    pub(super) crash: Option<super::crash_file::CrashFile>,
}

/// The process of the pump before.
pub(super) struct KeptProcess {
    pub(super) pid: i32,
    /// How many times the group had respawned it.
    pub(super) restarts: u32,
    /// When it was started.
    pub(super) mono_ns: u64,
    pub(super) wall_ns: u64,
}

/// Why the relay ended.
struct Failure {
    text: String,
    hint: Option<String>,
    verdict: Verdict,
}

impl From<loader::HookError> for Failure {
    fn from(error: loader::HookError) -> Self {
        Self { text: error.to_string(), hint: error.hint(), verdict: Verdict::Hook }
    }
}

impl From<loader::CheckError> for Failure {
    fn from(error: loader::CheckError) -> Self {
        Self { text: loader::chain(&error), hint: error.hint(), verdict: Verdict::Hook }
    }
}

/// The relay's thread, which waits for its start.
pub(super) struct Thread(mpsc::Sender<Start>);

/// Starts the thread of the relay.
pub(super) fn start_thread() -> io::Result<Thread> {
    let (sender, receiver) = mpsc::channel();
    let run = move || run(&receiver);
    std::thread::Builder::new().name("relay".into()).stack_size(STACK_BYTES).spawn(run)?;
    Ok(Thread(sender))
}

impl Thread {
    /// Starts the relay.
    pub(super) fn start(&self, start: Start) {
        self.0.send(start).expect("the relay waits for it");
    }
}

/// Runs the relay, once it is started, until it is told to finish or a hook fails.
fn run(starts: &mpsc::Receiver<Start>) {
    let Some((mail, relay)) = begin(starts) else { return };
    match relay.and_then(Relay::serve) {
        Ok(()) => mail.notice(Notice::Finished),
        Err(Failure { text, hint, verdict }) => {
            mail.notice(Notice::Failed { text, hint, verdict });
            mail.notice(Notice::Unrelayed);
        }
    }
}

/// Waits for the start, and prepares the relay.
// Kept apart, so that what it needs of the stack is not in use for ever.
#[inline(never)]
fn begin(starts: &mpsc::Receiver<Start>) -> Option<(Arc<Mail>, Result<Relay, Failure>)> {
    let dispositions = Dispositions::snapshot();
    // A pump that does not get that far takes this thread with it.
    let start = starts.recv().ok()?;
    let mail = Arc::clone(&start.mail);
    Some((mail, Relay::prepare(start, &dispositions)))
}

/// A monitor at work.
struct Seat {
    /// Its index among those of the group.
    index: usize,
    instance: Instance,
}

struct Relay {
    mail: Arc<Mail>,
    delivery: Delivery,
    seats: Vec<Seat>,
    intake: Intake,
    arrivals: Arrivals,
    sinks: [Sink; 2],
    reading: bool,
    gather: Duration,
    grown: [bool; 2],
    crash: Option<super::crash_file::CrashFile>,
    trimmed: bool,
}

impl Relay {
    /// Loads and sets up every monitor, waits until all are ready, and delivers what was left in the streams.
    fn prepare(start: Start, dispositions: &Dispositions) -> Result<Self, Failure> {
        let Start { mail, page, settings, monitors, executable, intake, sinks, .. } = start;
        let mut relay = Self {
            seats: Vec::with_capacity(monitors.len()),
            delivery: page.delivery(),
            arrivals: Arrivals::new(intake.streams()),
            intake,
            reading: false,
            gather: GATHER,
            grown: [false; 2],
            crash: start.crash,
            trimmed: false,
            mail,
            sinks,
        };
        if let Some(predecessor) = &start.predecessor {
            // What monitors have left to the end of their process, a file or a port, is free then.
            let mut fds = [PollFd::new(predecessor.as_fd(), PollFlags::POLLIN)];
            while fds[0].any() != Some(true) {
                wait(&mut fds, None).map_err(|error| broken("waiting for an end", error))?;
            }
        }
        let mut monitors: Vec<(usize, Checked)> =
            monitors.into_iter().enumerate().filter(|(index, _)| !is_aside(start.aside, *index)).collect();
        if monitors.is_empty() {
            let index = usize::try_from(start.aside.count_ones()).unwrap_or(usize::MAX);
            monitors.push((index, fallback::log(&settings, &executable)?));
        }
        for (index, checked) in &monitors {
            let index = *index;
            // Its constructors run when it is loaded.
            relay.delivery.enter(index, Hook::Create);
            let library = loader::load_trusted(checked, &executable, &settings, log::max_level())?;
            let offer = Offer {
                mail: Arc::clone(&relay.mail),
                settings: Arc::clone(&settings),
                page,
                label: checked.label.clone(),
                index,
                last_crash: start.last_crash,
            };
            let host = loader::publish(&checked.label, Arc::new(offer), log::max_level());
            let instance = Instance::create(&library, host, &checked.options)?;
            relay.delivery.leave();
            dispositions.restore_after(&checked.label);
            log::info!("monitor {} ({} {}) is loaded", checked.label, checked.name, checked.version);
            relay.seats.push(Seat { index, instance });
        }
        let labels: Vec<&str> = monitors.iter().map(|(_, monitor)| monitor.label.as_str()).collect();
        let why = match start.why {
            abi::WHY_PUMP_START => Why::PumpStart,
            abi::WHY_DAEMON_RESTART => Why::DaemonRestart,
            abi::WHY_RELOAD => Why::Reload,
            _ => Why::PumpRestart,
        };
        let args = SetupArgs {
            why,
            kept: start.kept.is_some(),
            process_pid: start.kept.as_ref().map(|kept| kept.pid),
            message: &start.message,
            cut_bytes: start.cut_bytes,
            first_offset: [0; 2],
        };
        relay.set_up(args)?;
        dispositions.restore_after(&labels.join(", "));
        if let Some(kept) = &start.kept {
            // Before its first byte: the pump that started it may have died before it could tell everybody.
            relay.obey(Command::Spawned {
                process_pid: kept.pid,
                respawn: kept.restarts > 0,
                count: kept.restarts,
                mono_ns: kept.mono_ns,
                wall_ns: kept.wall_ns,
                kept: true,
            })?;
            relay.reading = false;
        }
        relay.deliver(true)?;
        for stream in 0..2 {
            relay.deliver_waiting(stream)?;
        }
        relay.idle()?;
        relay.mail.notice(Notice::Ready);
        Ok(relay)
    }

    fn set_up(&mut self, args: SetupArgs<'_>) -> Result<(), Failure> {
        let offsets = self.delivery.standing().offsets;
        for seat in &mut self.seats {
            let next = |stream: usize| self.delivery.done(seat.index, stream).max(offsets[stream]);
            let args = SetupArgs { first_offset: [next(0), next(1)], ..args };
            self.delivery.enter(seat.index, Hook::Setup);
            if seat.instance.setup(&args)? == Readiness::Pending {
                self.mail.set_pending(seat.index);
            }
            self.delivery.leave();
        }
        while !self.mail.unready().is_empty() {
            let mut fds = [PollFd::new(self.mail.relay.as_fd(), PollFlags::POLLIN)];
            self.mail.rest();
            let waited = wait(&mut fds, None);
            self.mail.work();
            waited.map_err(|error| broken("waiting for the monitors", error))?;
            self.mail.relay.clear();
        }
        if self.intake.has_spool() {
            for seat in &self.seats {
                for stream in 0..2 {
                    if let Some(offset) = self.mail.durable(seat.index, stream) {
                        self.delivery.set_durable(seat.index, stream, offset);
                    }
                }
            }
        }
        Ok(())
    }

    fn serve(mut self) -> Result<(), Failure> {
        schedule::be_prompt();
        loop {
            while let Some(command) = self.mail.next_command() {
                if let Command::Finish { within } = command {
                    return self.finish(within);
                }
                self.obey(command)?;
            }
            if !self.reading {
                self.sleep(None, false)?;
                continue;
            }
            match self.read_both()? {
                // A full buffer means that more waits: go on at once.
                Took::Much => {}
                Took::Little => self.sleep(Some(self.gather), false)?,
                // Something may have come unnoticed.
                Took::Nothing if !self.arrivals.prepare(self.intake.streams()) => {}
                Took::Nothing => {
                    self.idle()?;
                    self.intake.rest();
                    self.trim();
                    self.sleep(None, true)?;
                }
            }
        }
    }

    fn obey(&mut self, command: Command) -> Result<(), Failure> {
        match command {
            Command::Hold => {
                self.reading = false;
                self.mail.notice(Notice::Held);
            }
            Command::Read => self.reading = true,
            Command::Spawned { process_pid, respawn, count, mono_ns, wall_ns, kept } => {
                let kind = if respawn { EventKind::Respawn } else { EventKind::Spawn };
                let event = Event {
                    kind,
                    process_pid,
                    code: None,
                    signal: None,
                    respawns: count,
                    core: false,
                    kept: false,
                    mono_ns,
                    wall_ns,
                    ran_ns: 0,
                };
                self.tell(&event, 2 * u64::from(count) + 1, kept)?;
                self.reading = true;
            }
            Command::Exited { process_pid, exit, ran, count, mono_ns, wall_ns, kept } => {
                self.reading = false;
                for stream in 0..2 {
                    self.deliver_waiting(stream)?;
                }
                let event = Event {
                    kind: EventKind::Exit,
                    process_pid,
                    code: exit.code,
                    signal: exit.signal,
                    respawns: count,
                    core: exit.core,
                    kept: false,
                    mono_ns,
                    wall_ns,
                    ran_ns: u64::try_from(ran.as_nanos()).unwrap_or(u64::MAX),
                };
                self.tell(&event, 2 * u64::from(count) + 2, kept)?;
                self.mail.notice(Notice::Delivered);
            }
            Command::Finish { .. } => {}
        }
        Ok(())
    }

    /// Tells the monitors of an event; of one of a kept process, which another pump may have begun to tell, only
    /// those that do not know of it.
    fn tell(&mut self, event: &Event, number: u64, kept: bool) -> Result<(), Failure> {
        let hook = match event.kind {
            EventKind::Spawn => Hook::Spawn,
            EventKind::Respawn => Hook::Respawn,
            EventKind::Exit => Hook::Exit,
        };
        for seat in &mut self.seats {
            if kept && self.delivery.told(seat.index) >= number {
                continue;
            }
            self.delivery.enter(seat.index, hook);
            seat.instance.event(event)?;
            self.delivery.leave();
            self.delivery.set_told(seat.index, number);
        }
        Ok(())
    }

    fn idle(&mut self) -> Result<(), Failure> {
        for seat in &mut self.seats {
            self.delivery.enter(seat.index, Hook::Idle);
            seat.instance.idle()?;
            self.delivery.leave();
        }
        if let Some(crash) = &mut self.crash {
            crash.trim();
        }
        Ok(())
    }

    /// Before the first sleep, gives back what only the start needed. Not again: the monitors' memory may be large.
    fn trim(&mut self) {
        if !std::mem::replace(&mut self.trimmed, true) {
            memory::trim_heap();
            memory::trim_stack();
        }
    }

    /// Reads each stream once.
    fn read_both(&mut self) -> Result<Took, Failure> {
        let mut took = Took::Nothing;
        for stream in 0..2 {
            let taken = self.pass_on(stream, CHUNK_BYTES)?;
            self.arrivals.came(stream, self.intake.stream(stream), taken.count);
            match taken {
                Taken { count: 0, .. } => {}
                // A pipe of short lines is full before it holds as many bytes as it has room for.
                Taken { count, room } if count > MUCH_BYTES.min(room - room / 8) => {
                    took = Took::Much;
                    self.grow(stream);
                }
                _ if took == Took::Nothing => took = Took::Little,
                _ => {}
            }
        }
        Ok(took)
    }

    /// Gives a busy stream a larger pipe, once. A user may hold only so many pages in pipes: then lines gather for
    /// a shorter time.
    fn grow(&mut self, stream: usize) {
        if std::mem::replace(&mut self.grown[stream], true) {
            return;
        }
        if let Err(error) = fd::grow_pipe(self.intake.stream(stream), GROWN_PIPE_BYTES) {
            log::debug!("the pipe of a busy stream stays small: {error}");
            self.gather = GATHER_IN_SMALL_PIPE;
        }
    }

    /// Delivers exactly what waits in a stream at this moment: reading until it is empty need not end when a
    /// descendant writes on.
    fn deliver_waiting(&mut self, stream: usize) -> Result<(), Failure> {
        let mut left = self.intake.waiting(stream).map_err(|error| broken("measuring a stream", error))?;
        while left > 0 {
            match self.pass_on(stream, left)?.count {
                0 => break,
                count => left -= count,
            }
        }
        Ok(())
    }

    /// Takes at most this much of a stream and delivers it.
    fn pass_on(&mut self, stream: usize, most: usize) -> Result<Taken, Failure> {
        let taken = self.intake.take(stream, most).map_err(|error| broken("taking from a stream", error))?;
        if taken.count > 0 {
            self.deliver(false)?;
        }
        Ok(taken)
    }

    /// Delivers what is pending to every monitor that has not got it.
    fn deliver(&mut self, redelivered: bool) -> Result<(), Failure> {
        let acknowledges_late = self.intake.has_spool();
        let Some(Chunk { stream, offset, bytes }) = self.intake.pending() else { return Ok(()) };
        let end = offset + bytes.len() as u64;
        let hook = if stream == 0 { Hook::Stdout } else { Hook::Stderr };
        // First: a group in development has no next pump that could show what this one dies of.
        self.sinks[stream].write(bytes);
        let mono_ns = clock::monotonic_ns();
        for seat in &mut self.seats {
            let done = self.delivery.done(seat.index, stream).max(offset);
            if done >= end {
                continue;
            }
            let skipped = usize::try_from(done - offset).expect("it is less than the length of the chunk");
            let output = Output {
                stream: if stream == 0 { Stream::Stdout } else { Stream::Stderr },
                redelivered,
                offset: done,
                mono_ns,
                data: &bytes[skipped..],
            };
            if !acknowledges_late {
                self.delivery.set_done(seat.index, stream, end);
            }
            self.delivery.enter(seat.index, hook);
            seat.instance.output(&output)?;
            self.delivery.leave();
            self.delivery.set_done(seat.index, stream, end);
        }
        if let Some(crash) = &mut self.crash {
            crash.count_delivery();
        }
        self.intake.acknowledge();
        Ok(())
    }

    /// Sleeps until a command comes, with `streams` also until there is something to read, at most `within`.
    fn sleep(&mut self, within: Option<Duration>, streams: bool) -> Result<(), Failure> {
        let source = self.arrivals.source();
        let [stdout, stderr] = self.intake.streams();
        let mut fds = [self.mail.relay.as_fd(), source.unwrap_or(stdout), stderr]
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let watched = match (streams, source) {
            (false, _) => 1,
            (true, Some(_)) => 2,
            (true, None) => 3,
        };
        // A wait with an end is so short that nobody need know of it.
        if within.is_none() {
            self.mail.rest();
        }
        let waited = wait(&mut fds[..watched], within);
        if within.is_none() {
            self.mail.work();
        }
        waited.map_err(|error| broken("waiting for output", error))?;
        if fds[0].any() == Some(true) {
            self.mail.relay.clear();
        }
        if streams {
            self.arrivals.clear();
        }
        Ok(())
    }

    fn finish(mut self, within: Duration) -> Result<(), Failure> {
        for stream in 0..2 {
            self.deliver_waiting(stream)?;
        }
        let span = u64::try_from(within.as_nanos()).unwrap_or(u64::MAX);
        let deadline_ns = clock::monotonic_ns().saturating_add(span);
        let mut result = Ok(());
        for seat in &mut self.seats {
            self.delivery.enter(seat.index, Hook::Finish);
            if let Err(error) = seat.instance.finish(deadline_ns) {
                log::error!("{error}");
                result = Err(error.into());
            }
        }
        for seat in self.seats {
            self.delivery.enter(seat.index, Hook::Destroy);
            if let Err(error) = seat.instance.destroy() {
                log::error!("{error}");
                result = Err(error.into());
            }
        }
        self.delivery.leave();
        result
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Took {
    Nothing,
    Little,
    Much,
}

fn broken(what: &str, error: io::Error) -> Failure {
    Failure { text: format!("{what}: {error}"), hint: None, verdict: Verdict::Other }
}

/// Waits for descriptors; an interruption is a wake-up without a reason.
fn wait(fds: &mut [PollFd<'_>], within: Option<Duration>) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    let result = nix::poll::ppoll(fds, within.map(nix::sys::time::TimeSpec::from_duration), None);
    #[cfg(not(target_os = "linux"))]
    let result = {
        let milliseconds =
            within.map_or(nix::poll::PollTimeout::NONE, |_| nix::poll::PollTimeout::from(1_u8));
        nix::poll::poll(fds, milliseconds)
    };
    match result {
        Ok(_) => crate::sys::poll::all_open(fds),
        Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
