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

use super::mail::{Command, Mail, Notice};
use super::offer::Offer;
use super::sink::Sink;
use crate::loader::{
    self, Checked, Dispositions, Event, EventKind, Instance, Output, Readiness, Settings, SetupArgs, Stream,
    Why,
};
use crate::recent::{CHUNK_BYTES, Ring};
use crate::state::Page;
use crate::sys::{clock, fd};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long lines may gather after a short read.
const GATHER: Duration = Duration::from_micros(500);
/// The same for a stream whose pipe is full before that and cannot hold more: its writer would wait for us.
const GATHER_IN_SMALL_PIPE: Duration = Duration::from_micros(50);
/// What a pipe is made to hold that was found full, in bytes.
const GROWN_PIPE_BYTES: i32 = 1024 * 1024;

/// What the relay starts with.
pub(super) struct Start {
    pub(super) mail: Arc<Mail>,
    pub(super) page: Page,
    pub(super) settings: Arc<Settings>,
    pub(super) monitors: Vec<Checked>,
    /// The executable that runs the check of a library that has changed since the start.
    pub(super) executable: PathBuf,
    /// Reading ends of stdout and stderr.
    pub(super) streams: [OwnedFd; 2],
    /// Development: where the streams are copied to.
    pub(super) sinks: [Sink; 2],
    pub(super) why: u32,
    pub(super) message: Vec<u8>,
    pub(super) cut_bytes: u64,
    /// The file of the recent output.
    pub(super) recent: Option<File>,
    /// Keeps an unattached pump's stderr within bounds.
    pub(super) crash: Option<super::crash_file::CrashFile>,
}

/// Why the relay ended.
struct Failure {
    text: String,
    hint: Option<String>,
}

impl From<loader::HookError> for Failure {
    fn from(error: loader::HookError) -> Self {
        Self { text: error.to_string(), hint: None }
    }
}

/// Runs the relay until it is told to finish or a hook fails.
pub(super) fn run(start: Start) {
    let mail = Arc::clone(&start.mail);
    let result = Relay::prepare(start).and_then(Relay::serve);
    match result {
        Ok(()) => mail.notice(Notice::Finished),
        Err(Failure { text, hint }) => mail.notice(Notice::Failed { text, hint }),
    }
}

struct Relay {
    mail: Arc<Mail>,
    page: Page,
    instances: Vec<Instance>,
    streams: [OwnedFd; 2],
    sinks: [Sink; 2],
    offsets: [u64; 2],
    /// Made at the first byte.
    ring: Option<Ring>,
    recent: Option<File>,
    reading: bool,
    gather: Duration,
    grown: [bool; 2],
    crash: Option<super::crash_file::CrashFile>,
}

impl Relay {
    /// Loads and sets up every monitor, waits until all are ready, and delivers what was left in the streams.
    fn prepare(start: Start) -> Result<Self, Failure> {
        let Start { mail, page, settings, monitors, executable, streams, sinks, .. } = start;
        let mut relay = Self {
            instances: Vec::with_capacity(monitors.len()),
            offsets: [page.offset(0), page.offset(1)],
            ring: None,
            recent: start.recent,
            reading: false,
            gather: GATHER,
            grown: [false; 2],
            crash: start.crash,
            mail,
            page,
            streams,
            sinks,
        };
        let dispositions = Dispositions::snapshot();
        for (index, checked) in monitors.iter().enumerate() {
            let library = loader::load_trusted(checked, &executable, &settings, log::max_level())
                .map_err(|error| Failure { text: loader::chain(&error), hint: error.hint() })?;
            let offer = Offer {
                mail: Arc::clone(&relay.mail),
                settings: Arc::clone(&settings),
                page,
                label: checked.label.clone(),
                index,
            };
            let host = loader::publish(&checked.label, Arc::new(offer), log::max_level());
            let instance = Instance::create(&library, host, &checked.options)?;
            dispositions.restore_after(&checked.label);
            log::info!("monitor {} ({} {}) is loaded", checked.label, checked.name, checked.version);
            relay.instances.push(instance);
        }
        let labels: Vec<String> = monitors.iter().map(|monitor| monitor.label.clone()).collect();
        relay.set_up(start.why, &start.message, start.cut_bytes)?;
        dispositions.restore_after(&labels.join(", "));
        for stream in 0..2 {
            relay.deliver_waiting(stream)?;
        }
        relay.idle()?;
        relay.mail.notice(Notice::Ready);
        Ok(relay)
    }

    fn set_up(&mut self, why: u32, message: &[u8], cut_bytes: u64) -> Result<(), Failure> {
        use immortal_monitor_api::abi;
        let why = match why {
            abi::WHY_PUMP_START => Why::PumpStart,
            abi::WHY_DAEMON_RESTART => Why::DaemonRestart,
            _ => Why::PumpRestart,
        };
        let args =
            SetupArgs { why, kept: false, process_pid: None, message, cut_bytes, first_offset: self.offsets };
        let mut pending = Vec::new();
        for (index, instance) in self.instances.iter_mut().enumerate() {
            if instance.setup(&args)? == Readiness::Pending {
                pending.push(index);
            }
        }
        while !pending.iter().all(|index| self.mail.is_ready(*index)) {
            let mut fds = [PollFd::new(self.mail.relay.as_fd(), PollFlags::POLLIN)];
            wait(&mut fds, None).map_err(|error| broken("waiting for the monitors", error))?;
            self.mail.relay.clear();
        }
        Ok(())
    }

    fn serve(mut self) -> Result<(), Failure> {
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
                Took::Nothing => {
                    self.idle()?;
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
            Command::Spawned { process_pid, respawn, count, mono_ns, wall_ns } => {
                let kind = if respawn { EventKind::Respawn } else { EventKind::Spawn };
                self.tell(&Event {
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
                })?;
                self.reading = true;
            }
            Command::Exited { process_pid, exit, ran, count, mono_ns, wall_ns } => {
                self.reading = false;
                for stream in 0..2 {
                    self.deliver_waiting(stream)?;
                }
                self.tell(&Event {
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
                })?;
                self.mail.notice(Notice::Delivered);
            }
            Command::Finish { .. } => {}
        }
        Ok(())
    }

    fn tell(&mut self, event: &Event) -> Result<(), Failure> {
        for instance in &mut self.instances {
            instance.event(event)?;
        }
        Ok(())
    }

    fn idle(&mut self) -> Result<(), Failure> {
        for instance in &mut self.instances {
            instance.idle()?;
        }
        if let Some(crash) = &mut self.crash {
            crash.trim();
        }
        Ok(())
    }

    /// Reads each stream once.
    fn read_both(&mut self) -> Result<Took, Failure> {
        let mut took = Took::Nothing;
        for stream in 0..2 {
            match self.read(stream, CHUNK_BYTES)? {
                (0, _) => {}
                (count, asked) if count == asked => {
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
        if let Err(error) = fd::grow_pipe(&self.streams[stream], GROWN_PIPE_BYTES) {
            log::debug!("the pipe of a busy stream stays small: {error}");
            self.gather = GATHER_IN_SMALL_PIPE;
        }
    }

    /// Delivers exactly what waits in a stream at this moment: reading until it is empty need not end when a
    /// descendant writes on.
    fn deliver_waiting(&mut self, stream: usize) -> Result<(), Failure> {
        let mut left =
            fd::waiting(&self.streams[stream]).map_err(|error| broken("measuring a stream", error))?;
        while left > 0 {
            match self.read(stream, left)?.0 {
                0 => break,
                count => left -= count,
            }
        }
        Ok(())
    }

    /// Reads at most this much of a stream and delivers it. Returns how much there was (0: nothing now) and how
    /// much there was room for.
    fn read(&mut self, stream: usize, most: usize) -> Result<(usize, usize), Failure> {
        let mut ring = match self.ring.take() {
            Some(ring) => ring,
            None => self.make_ring()?,
        };
        let result = self.read_into(&mut ring, stream, most);
        self.ring = Some(ring);
        result
    }

    fn make_ring(&mut self) -> Result<Ring, Failure> {
        Ring::new(self.recent.as_ref())
            .or_else(|error| {
                log::warn!("`logs` will show nothing: {error}");
                Ring::new(None)
            })
            .map_err(|error| broken("making room for the output", error))
    }

    fn read_into(&mut self, ring: &mut Ring, stream: usize, most: usize) -> Result<(usize, usize), Failure> {
        let (count, room) = loop {
            let place = ring.place(most);
            let room = place.len();
            match nix::unistd::read(&self.streams[stream], place) {
                Ok(count) => break (count, room),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok((0, room)),
                Err(Errno::EFAULT) if self.recent.take().is_some() => {
                    // The file has no room for its pages: from now on the memory is this process's own.
                    log::warn!("`logs` shows nothing new: there is no room in the runtime directory");
                    *ring = self.make_ring()?;
                }
                Err(error) => return Err(broken("reading a stream", error.into())),
            }
        };
        if count == 0 {
            return Ok((0, room));
        }
        ring.took(count);
        let data = ring.last(count);
        let output = Output {
            stream: if stream == 0 { Stream::Stdout } else { Stream::Stderr },
            redelivered: false,
            offset: self.offsets[stream],
            mono_ns: clock::monotonic_ns(),
            data,
        };
        for instance in &mut self.instances {
            instance.output(&output)?;
        }
        if let Some(crash) = &mut self.crash {
            crash.count_delivery();
        }
        self.sinks[stream].write(data);
        self.offsets[stream] += count as u64;
        self.page.set_offset(stream, self.offsets[stream]);
        Ok((count, room))
    }

    /// Sleeps until a command comes, with `streams` also until there is something to read, at most `within`.
    fn sleep(&mut self, within: Option<Duration>, streams: bool) -> Result<(), Failure> {
        let [stdout, stderr] = &self.streams;
        let mut fds = [
            PollFd::new(self.mail.relay.as_fd(), PollFlags::POLLIN),
            PollFd::new(stdout.as_fd(), PollFlags::POLLIN),
            PollFd::new(stderr.as_fd(), PollFlags::POLLIN),
        ];
        let watched = if streams { 3 } else { 1 };
        wait(&mut fds[..watched], within).map_err(|error| broken("waiting for output", error))?;
        if fds[0].any() == Some(true) {
            self.mail.relay.clear();
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
        for instance in &mut self.instances {
            if let Err(error) = instance.finish(deadline_ns) {
                log::error!("{error}");
                result = Err(error.into());
            }
        }
        for instance in self.instances {
            if let Err(error) = instance.destroy() {
                log::error!("{error}");
                result = Err(error.into());
            }
        }
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
    Failure { text: format!("{what}: {error}"), hint: None }
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
