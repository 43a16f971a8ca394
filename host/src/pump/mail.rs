//! What the pump's two threads say to each other. Neither ever waits for the other while it says something.

use crate::delivery::Verdict;
use crate::state::Page;
use crate::sys::family::Exit;
use crate::sys::wake::Waker;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// From the main thread to the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// Stop reading, and say so.
    Hold,
    /// Read.
    Read,
    /// The process was executed: tell the monitors, then read.
    /// `kept`: it is not new, and an earlier pump may have told some of them.
    Spawned { process_pid: i32, respawn: bool, count: u32, mono_ns: u64, wall_ns: u64, kept: bool },
    /// The process died: deliver what it had written, tell the monitors, and say so.
    Exited { process_pid: i32, exit: Exit, ran: Duration, count: u32, mono_ns: u64, wall_ns: u64, kept: bool },
    /// Let the monitors end in order within this span, and say so.
    Finish { within: Duration },
}

/// From the relay, and from monitors in any thread, to the main thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    /// All monitors are ready, and what was left in the streams is delivered.
    Ready,
    /// The relay reads no more.
    Held,
    /// The end of the process is delivered.
    Delivered,
    /// The monitors have ended.
    Finished,
    /// A hook failed, or something else that the relay or a monitor cannot go on without.
    Failed { text: String, hint: Option<String>, verdict: Verdict },
    /// The relay has ended, for something failed.
    Unrelayed,
    /// A monitor asks for a restart of the process.
    Restart,
    /// A monitor asks for the end of the group.
    Shutdown,
}

/// The relay works, and the main thread may look how long its hooks take.
const BUSY: u8 = 0;
/// The relay rests: it calls no hook before it has said that it works again.
const RESTING: u8 = 1;
/// The same, and the main thread has stopped looking: it wants to be woken.
const UNWATCHED: u8 = 2;

/// The two letter boxes.
#[derive(Debug)]
pub(super) struct Mail {
    commands: Mutex<VecDeque<Command>>,
    notices: Mutex<VecDeque<Notice>>,
    /// Wakes the relay.
    pub(super) relay: Waker,
    /// Wakes the main thread.
    pub(super) main: Waker,
    /// Monitors that said `ready` after their `setup`, by their index.
    ready: Vec<AtomicBool>,
    /// Monitors that were not ready when their `setup` returned, by their index.
    pending: Vec<AtomicBool>,
    /// Up to where each stream is safe with a monitor, plus one; 0: it said nothing.
    durable: Vec<[AtomicU64; 2]>,
    /// What the monitors report of themselves: label, key, value.
    reports: Mutex<Vec<(String, String, String)>>,
    /// There was no room for a report: that is said once.
    has_refused: AtomicBool,
    /// What the relay does, as one of the numbers above.
    relay_state: AtomicU8,
    page: Page,
}

impl Mail {
    pub(super) fn new(monitor_count: usize, page: Page) -> io::Result<Self> {
        Ok(Self {
            commands: Mutex::default(),
            notices: Mutex::default(),
            relay: Waker::new()?,
            main: Waker::new()?,
            ready: (0..monitor_count).map(|_| AtomicBool::new(false)).collect(),
            pending: (0..monitor_count).map(|_| AtomicBool::new(false)).collect(),
            durable: (0..monitor_count).map(|_| Default::default()).collect(),
            reports: Mutex::default(),
            has_refused: AtomicBool::new(false),
            relay_state: AtomicU8::new(BUSY),
            page,
        })
    }

    pub(super) fn command(&self, command: Command) {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).push_back(command);
        self.relay.wake();
    }

    pub(super) fn next_command(&self) -> Option<Command> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    pub(super) fn notice(&self, notice: Notice) {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).push_back(notice);
        self.main.wake();
    }

    /// Whether there is something for the main thread.
    pub(super) fn has_notice(&self) -> bool {
        !self.notices.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub(super) fn next_notice(&self) -> Option<Notice> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    pub(super) fn set_ready(&self, monitor: usize) {
        if let Some(flag) = self.ready.get(monitor) {
            flag.store(true, Ordering::SeqCst);
            self.relay.wake();
        }
    }

    /// This monitor said in its `setup` that it is not ready yet.
    pub(super) fn set_pending(&self, monitor: usize) {
        if let Some(flag) = self.pending.get(monitor) {
            flag.store(true, Ordering::SeqCst);
        }
    }

    /// Monitors that have not said `ready` after a `setup` that was not enough.
    pub(super) fn unready(&self) -> Vec<usize> {
        let flags = self.pending.iter().zip(&self.ready).enumerate();
        let is_unready = |(pending, ready): (&AtomicBool, &AtomicBool)| {
            pending.load(Ordering::SeqCst) && !ready.load(Ordering::SeqCst)
        };
        flags.filter(|(_, flags)| is_unready(*flags)).map(|(index, _)| index).collect()
    }

    pub(super) fn set_durable(&self, monitor: usize, stream: usize, offset: u64) {
        if let Some(word) = self.durable.get(monitor).and_then(|streams| streams.get(stream)) {
            word.store(offset.saturating_add(1), Ordering::SeqCst);
        }
    }

    /// Up to where a stream is safe with a monitor, if it says so.
    pub(super) fn durable(&self, monitor: usize, stream: usize) -> Option<u64> {
        self.durable.get(monitor)?.get(stream)?.load(Ordering::SeqCst).checked_sub(1)
    }

    /// The relay is about to wait for as long as it takes.
    pub(super) fn rest(&self) {
        self.relay_state.store(RESTING, Ordering::SeqCst);
    }

    /// The relay goes on.
    pub(super) fn work(&self) {
        if self.relay_state.swap(BUSY, Ordering::SeqCst) == UNWATCHED {
            self.main.wake();
        }
    }

    /// Stops looking if the relay rests; tells whether it does. It will wake the main thread.
    pub(super) fn leave_resting(&self) -> bool {
        let left = self.relay_state.compare_exchange(RESTING, UNWATCHED, Ordering::SeqCst, Ordering::SeqCst);
        left.is_ok()
    }

    /// Whether the relay has gone on since [`Mail::leave_resting`].
    pub(super) fn is_watched(&self) -> bool {
        self.relay_state.load(Ordering::SeqCst) != UNWATCHED
    }

    /// Shows a monitor's value in `status`; an empty one removes it. If there is no room for it, the one before stays.
    pub(super) fn report(&self, label: &str, key: &str, value: &str) {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let others = reports.iter().filter(|(l, k, _)| (l.as_str(), k.as_str()) != (label, key));
        let mut all: Vec<_> = others.cloned().collect();
        if !value.is_empty() {
            all.push((label.to_owned(), key.to_owned(), value.to_owned()));
        }
        let mut object = serde_json::Map::new();
        for (label, key, value) in &all {
            let monitor = object.entry(label.clone()).or_insert_with(|| serde_json::json!({}));
            monitor[key.as_str()] = serde_json::Value::String(value.clone());
        }
        if self.page.set_report(&serde_json::Value::Object(object).to_string()) {
            *reports = all;
        } else if !self.has_refused.swap(true, Ordering::SeqCst) {
            let length = value.len();
            log::warn!("monitor {label} reports {length} bytes as {key:?}, for which `status` has no room");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Snapshot;

    #[test]
    fn a_report_without_room_leaves_the_others_as_they_are() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(crate::sys::page::BYTES as u64).unwrap();
        let page = Page::map(&file).unwrap();
        page.initialise();
        let mail = Mail::new(1, page).unwrap();
        let shown = || Snapshot::of_file(&file).unwrap().report();
        mail.report("log", "lines", "1");
        mail.report("log", "text", &"x".repeat(3000));
        assert_eq!(shown().unwrap(), r#"{"log":{"lines":"1"}}"#);
        mail.report("log", "lines", "2");
        assert_eq!(shown().unwrap(), r#"{"log":{"lines":"2"}}"#);
        mail.report("log", "lines", "");
        assert_eq!(shown().unwrap(), "{}");
    }
}
