//! Tries again on behalf of a process that is silent: a log that could not be written is to say so as soon as it
//! can be, not when the process next writes.
//!
//! The thread exists only while there is something to say; a log that is well wakes nothing up.

use crate::log_file::{LogFile, RETRY};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

/// A log file that recovers by itself.
pub(crate) struct Retried {
    shared: Arc<Shared>,
}

struct Shared {
    file: Mutex<LogFile>,
    /// Whether there is a thread.
    is_retrying: Mutex<bool>,
}

impl Retried {
    pub(crate) fn new(file: LogFile) -> Self {
        Self { shared: Arc::new(Shared { file: Mutex::new(file), is_retrying: Mutex::new(false) }) }
    }

    /// Does something with the file, and has it tried again later if it is not well afterwards.
    pub(crate) fn with<T>(&self, what: impl FnOnce(&mut LogFile) -> T) -> T {
        let mut file = lock(&self.shared.file);
        let result = what(&mut file);
        if !file.is_healthy() {
            self.retry_later();
        }
        result
    }

    #[cold]
    fn retry_later(&self) {
        let mut is_retrying = lock(&self.shared.is_retrying);
        if *is_retrying {
            return;
        }
        let shared = Arc::downgrade(&self.shared);
        let spawned = std::thread::Builder::new().name("retry".to_owned()).spawn(move || retry(&shared));
        // Without it, the next output tries again.
        *is_retrying = spawned.is_ok();
    }
}

/// Tries again until all is well or the log is gone.
fn retry(shared: &Weak<Shared>) {
    loop {
        std::thread::sleep(RETRY);
        let Some(shared) = shared.upgrade() else { return };
        let mut file = lock(&shared.file);
        if file.is_healthy() || file.recover(SystemTime::now()) {
            // While the file is locked: whoever finds it ill again starts a new thread.
            *lock(&shared.is_retrying) = false;
            return;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
