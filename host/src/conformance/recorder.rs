//! What the monitor under test may call, and what it called.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::Level;

use super::settings;
use crate::loader::{Host, Pids, Services, Settings, publish};

/// Services that remember.
pub(super) struct Recorder {
    settings: Settings,
    process_pid: AtomicI32,
    restarts: AtomicU32,
    shutdowns: AtomicU32,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    ready: bool,
    failure: Option<String>,
    reports: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Recorder {
    /// Makes a host for instances, and what remembers behind it.
    pub(super) fn publish(label: &str) -> (Arc<Self>, Host) {
        let recorder = Arc::new(Self {
            settings: settings(),
            process_pid: AtomicI32::new(0),
            restarts: AtomicU32::new(0),
            shutdowns: AtomicU32::new(0),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let host = publish(label, recorder.clone(), log::max_level());
        (recorder, host)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets all that was asked for.
    pub(super) fn reset(&self) {
        *self.lock() = State::default();
        self.restarts.store(0, Ordering::Relaxed);
        self.shutdowns.store(0, Ordering::Relaxed);
    }

    pub(super) fn set_process(&self, pid: i32) {
        self.process_pid.store(pid, Ordering::Relaxed);
    }

    /// Waits until the monitor says that it is ready, or has failed; true if it is ready.
    pub(super) fn wait_ready(&self, limit: Duration) -> bool {
        let waiting = |state: &mut State| !state.ready && state.failure.is_none();
        let waited = self.changed.wait_timeout_while(self.lock(), limit, waiting);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.ready
    }

    /// What the monitor has said against itself outside its hooks.
    pub(super) fn take_failure(&self) -> Option<String> {
        self.lock().failure.take()
    }

    /// The values that are shown in `status` now.
    pub(super) fn reports(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.lock().reports.clone()
    }

    /// Whether a restart and a shutdown were asked for.
    pub(super) fn requests(&self) -> (bool, bool) {
        (self.restarts.load(Ordering::Relaxed) > 0, self.shutdowns.load(Ordering::Relaxed) > 0)
    }
}

impl Services for Recorder {
    fn log(&self, level: Level, target: &str, text: &str) {
        log::log!(target: target, level, "{text}");
    }

    fn fail(&self, text: &str) {
        self.lock().failure.get_or_insert_with(|| text.to_owned());
        self.changed.notify_all();
    }

    fn ready(&self) {
        self.lock().ready = true;
        self.changed.notify_all();
    }

    fn restart(&self) -> bool {
        self.restarts.fetch_add(1, Ordering::Relaxed);
        self.process_pid.load(Ordering::Relaxed) > 0
    }

    fn shutdown(&self) -> bool {
        self.shutdowns.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn pids(&self) -> Pids {
        let process = Some(self.process_pid.load(Ordering::Relaxed)).filter(|&pid| pid > 0);
        Pids { process, monitor: Some(nix::unistd::getpid().as_raw()), daemon: None }
    }

    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.settings.get(key)
    }

    fn count(&self, key: &[u8]) -> usize {
        self.settings.count(key)
    }

    fn at(&self, key: &[u8], index: usize) -> Option<&[u8]> {
        self.settings.at(key, index)
    }

    fn durable(&self, _: u32, _: u64) {}

    fn report(&self, key: &[u8], value: &[u8]) {
        let mut state = self.lock();
        if value.is_empty() {
            state.reports.remove(key);
        } else {
            state.reports.insert(key.to_vec(), value.to_vec());
        }
    }
}
