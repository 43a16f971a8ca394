//! Does what is left to do for a log while the process is silent: to say what was dropped as soon as it can be
//! written, and to write what was held back for long enough.
//!
//! The thread exists only while there is such a thing; a log that is well wakes nothing up.

use crate::log_file::{LogFile, RETRY};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

/// A log file that is attended to.
pub(crate) struct Attended {
    shared: Arc<Shared>,
}

struct Shared {
    file: Mutex<LogFile>,
    /// Whether there is a thread.
    is_attended: Mutex<bool>,
}

impl Attended {
    pub(crate) fn new(file: LogFile) -> Self {
        Self { shared: Arc::new(Shared { file: Mutex::new(file), is_attended: Mutex::new(false) }) }
    }

    /// Does something with the file, says so in a checkpoint, and has the file attended to if something is left to do
    /// afterwards.
    pub(crate) fn with<T>(&self, what: impl FnOnce(&mut LogFile) -> T) -> T {
        let mut file = lock(&self.shared.file);
        let result = what(&mut file);
        file.commit();
        if file.is_waiting() {
            self.attend();
        }
        result
    }

    #[cold]
    fn attend(&self) {
        let mut is_attended = lock(&self.shared.is_attended);
        if *is_attended {
            return;
        }
        let shared = Arc::downgrade(&self.shared);
        let spawned = std::thread::Builder::new().name("log".to_owned()).spawn(move || attend(&shared));
        // Without it, the next output does what is left to do.
        *is_attended = spawned.is_ok();
    }
}

/// Attends to the log until nothing is left to do or the log is gone.
fn attend(shared: &Weak<Shared>) {
    loop {
        std::thread::sleep(RETRY);
        let Some(shared) = shared.upgrade() else { return };
        // After a panic in the middle of a write, what the pump believes of the file may be wrong.
        let Ok(mut file) = shared.file.lock() else { return };
        file.attend(SystemTime::now());
        file.commit();
        if !file.is_waiting() {
            // While the file is locked: whoever leaves something to do again starts a new thread.
            *lock(&shared.is_attended) = false;
            return;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
