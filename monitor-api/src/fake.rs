//! A host for unit tests: records what a monitor asks for, and drives it as the pump would.
//!
//! Everything goes through the very table that the library exports, so a test sees validated options, caught
//! panics and the texts that a user would see.
//!
//! ```
//! use immortal_monitor_api::fake::FakeHost;
//! use immortal_monitor_api::*;
//!
//! struct Lines { host: Host, left: i64 }
//!
//! impl Monitor for Lines {
//!     const OPTIONS: &'static [OptionSpec] = &[OptionSpec::integer("max", "restart after so many").default("2")];
//!     fn new(host: Host, options: &Options) -> Result<Self> {
//!         Ok(Self { host, left: options.integer("max")? })
//!     }
//!     fn stdout(&mut self, bytes: &[u8]) -> Result {
//!         self.left -= bytes.iter().filter(|byte| **byte == b'\n').count() as i64;
//!         if self.left < 0 {
//!             self.host.restart();
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let fake = FakeHost::new();
//! let mut monitor = fake.start::<Lines>(&["max=1"])?;
//! monitor.setup(Why::PumpStart, b"")?;
//! monitor.spawn(100)?;
//! monitor.stdout(b"one\n")?;
//! assert_eq!(fake.restarts(), 0);
//! monitor.stdout(b"two\n")?;
//! assert_eq!(fake.restarts(), 1);
//!
//! let refused = fake.start::<Lines>(&["max=many"]).unwrap_err();
//! assert_eq!(refused.to_string(), "new: option max=many: not an integer");
//! # Ok::<(), immortal_monitor_api::fake::HookError>(())
//! ```

mod calls;
mod driver;

use crate::options::Given;
use crate::{Crash, Host, Monitor, OptionError, Options, Pids, Stream, raw};
use calls::Shared;
use core::sync::atomic::{AtomicBool, Ordering};

pub use driver::{Driver, HookError};

/// Set for good by the first fake host of this library.
static IN_USE: AtomicBool = AtomicBool::new(false);

/// A host that does nothing but remember. Clones are the same host.
///
/// As a real host's, its table is never freed: a test leaks some hundred bytes for each one it makes.
#[derive(Clone)]
pub struct FakeHost {
    host: Host,
    shared: &'static Shared,
}

/// A record that a monitor has logged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogRecord {
    /// Its level.
    pub level: log::Level,
    /// Its target, the module by default.
    pub target: String,
    /// Its text.
    pub text: String,
}

impl FakeHost {
    /// Makes a host of the strategy `unattached`, with the group `test`, the label `test` and the pid 1000 for
    /// the pump; nothing else is set.
    pub fn new() -> Self {
        IN_USE.store(true, Ordering::Relaxed);
        let (host, shared) = calls::make();
        let fake = Self { host, shared };
        for (key, value) in [("name", "test"), ("label", "test"), ("strategy", "unattached")] {
            fake.set_setting(key, value);
        }
        fake.set_pids(Pids { process: None, monitor: 1000, daemon: None });
        fake
    }

    /// The host as the monitor gets it.
    pub fn host(&self) -> Host {
        self.host.clone()
    }

    /// Validates options, each `KEY=VALUE` or `KEY:=JSON`, against those that `M` declares.
    ///
    /// # Errors
    /// What validation says.
    pub fn options<M: Monitor>(&self, options: &[&str]) -> Result<Options, OptionError> {
        let given = options.iter().map(|option| given(option));
        Options::new(self.host(), M::OPTIONS, given)
    }

    /// Calls `check`, as the helper process does. Options are `KEY=VALUE` or `KEY:=JSON`.
    ///
    /// # Errors
    /// If it refuses or panics.
    pub fn check<M: Monitor>(&self, options: &[&str]) -> Result<(), HookError> {
        driver::check::<M>(self, options)
    }

    /// Makes an instance, as the pump does, for the test to drive. Options are `KEY=VALUE` or `KEY:=JSON`.
    ///
    /// # Errors
    /// If the options are refused, or `new` fails or panics.
    pub fn start<M: Monitor>(&self, options: &[&str]) -> Result<Driver, HookError> {
        Driver::new::<M>(self, options)
    }

    /// Sets the pids that the monitor sees.
    pub fn set_pids(&self, pids: Pids) {
        self.shared.lock().pids = pids;
    }

    /// Sets a setting with one value: `name`, `label`, `strategy`, `exec`, `file`, `cwd`.
    pub fn set_setting(&self, key: &str, value: impl AsRef<[u8]>) {
        self.set_settings(key, &[value]);
    }

    /// Sets a list setting: `args`, `env`.
    pub fn set_settings(&self, key: &str, values: &[impl AsRef<[u8]>]) {
        let values = values.iter().map(|value| -> &'static [u8] { value.as_ref().to_vec().leak() }).collect();
        self.shared.lock().settings.insert(key.to_owned(), values);
    }

    /// Sets what [`Host::last_crash`] tells of.
    pub fn set_last_crash(&self, crash: &Crash<'_>) {
        let raw = crash.to_raw(|text| raw::text(text.to_vec().leak()));
        self.shared.set_crash(Box::leak(Box::new(raw)));
    }

    /// Makes `restart` and `shutdown` say that there is nothing to do it to (`false`), or take it again.
    pub fn set_accepting(&self, accepting: bool) {
        self.shared.lock().accepting = accepting;
    }

    /// How often a restart was asked for.
    pub fn restarts(&self) -> usize {
        self.shared.lock().restarts
    }

    /// How often the end of the group was asked for.
    pub fn shutdowns(&self) -> usize {
        self.shared.lock().shutdowns
    }

    /// Whether the monitor said that it is ready.
    pub fn is_ready(&self) -> bool {
        self.shared.lock().ready
    }

    /// What is shown in `status` under a key of the monitor's own.
    pub fn reported(&self, key: &str) -> Option<String> {
        self.shared.lock().reports.get(key).cloned()
    }

    /// Up to where the monitor said that this stream is safe.
    pub fn durable(&self, stream: Stream) -> Option<u64> {
        self.shared.lock().durable.get(&stream.to_raw()).copied()
    }

    /// What was logged, oldest first. The library has one logger: with several fake hosts at once, as when tests
    /// run in parallel, a record from outside a hook goes to the newest.
    pub fn log(&self) -> Vec<LogRecord> {
        self.shared.lock().log.clone()
    }

    /// The texts that hooks failed with, or the monitor's threads outside of hooks, oldest first.
    pub fn failures(&self) -> Vec<String> {
        self.shared.lock().failures.clone()
    }
}

impl Default for FakeHost {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Debug for FakeHost {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("FakeHost").field("host", &self.host).finish_non_exhaustive()
    }
}

/// Whether a fake host was made in this library, so that this is a test.
pub(crate) fn in_use() -> bool {
    IN_USE.load(Ordering::Relaxed)
}

/// Splits `KEY=VALUE` or `KEY:=JSON`; without an equals sign the value is empty.
fn given(option: &str) -> Given<'_> {
    let (key, value) = option.split_once('=').unwrap_or((option, ""));
    let (key, is_json) = key.strip_suffix(':').map_or((key, false), |key| (key, true));
    Given { key: key.as_bytes(), value: value.as_bytes(), is_json }
}
