//! What a monitor can ask of the host it runs in.

use crate::abi::{self, HostTable, Str};
use crate::raw;
use core::ffi::c_void;

/// The host, as one instance of a monitor sees it: the pump that loaded it, or a [`FakeHost`] in a unit test.
///
/// Cheap to clone, and every method may be called from any thread, inside hooks and outside; none blocks. A
/// monitor's own thread may keep a clone for the rest of the process's life.
///
/// [`FakeHost`]: crate::fake::FakeHost
#[derive(Clone)]
pub struct Host {
    table: &'static HostTable,
}

// SAFETY: a host promises that its table is never freed nor written to, and that each of its functions may be
// called from any thread at any time (include/immortal_monitor.h, "im_host").
#[expect(unsafe_code, reason = "the boundary promises what raw pointers hide from the compiler")]
unsafe impl Send for Host {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "the boundary promises what raw pointers hide from the compiler")]
unsafe impl Sync for Host {}

/// The pids of a group, from one consistent snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Pids {
    /// The process; `None` while there is none.
    pub process: Option<i32>,
    /// The pump, which hosts the monitors; 0 in `check`, where there is none yet.
    pub monitor: i32,
    /// The daemon; `None` in the strategies without one.
    pub daemon: Option<i32>,
}

impl Host {
    /// Takes the table that a host has passed to `check` or `create`; `None` if it is null or not of this ABI.
    ///
    /// # Safety
    /// `table` must be null or point at a [`HostTable`] that is never freed nor written to again.
    #[expect(unsafe_code, reason = "the table comes as a raw pointer from across the boundary")]
    pub(crate) unsafe fn from_raw(table: *const HostTable) -> Option<Self> {
        // SAFETY: null or, by this function's contract, a table that lives for ever.
        let table: &'static HostTable = unsafe { table.as_ref() }?;
        let known = table.abi == abi::ABI && table.size as usize >= size_of::<HostTable>();
        known.then_some(Self { table })
    }

    pub(crate) fn table(&self) -> &'static HostTable {
        self.table
    }

    /// Asks for a restart of the process. Takes effect after the current call. Returns whether there is
    /// something to restart.
    pub fn restart(&self) -> bool {
        self.table.restart.is_some_and(|restart| restart(self.table.ctx) != 0)
    }

    /// Asks for the end of the whole group. Takes effect after the current call. Returns whether the request
    /// was noted.
    pub fn shutdown(&self) -> bool {
        self.table.shutdown.is_some_and(|shutdown| shutdown(self.table.ctx) != 0)
    }

    /// Says that a monitor whose `setup` returned [`Readiness::Pending`] is ready now.
    ///
    /// [`Readiness::Pending`]: crate::Readiness::Pending
    pub fn ready(&self) {
        if let Some(ready) = self.table.ready {
            ready(self.table.ctx);
        }
    }

    /// Takes one consistent snapshot of the group's pids.
    pub fn pids(&self) -> Pids {
        let size = u32::try_from(size_of::<abi::Pids>()).expect("sixteen bytes");
        let mut raw = abi::Pids { size, process: 0, monitor: 0, daemon: 0 };
        if let Some(pids) = self.table.pids {
            pids(self.table.ctx, &raw mut raw);
        }
        let some = |pid: i32| (pid > 0).then_some(pid);
        Pids { process: some(raw.process), monitor: raw.monitor, daemon: some(raw.daemon) }
    }

    /// Reads a setting with one value: `name`, `label`, `strategy`, `exec`, `file`, `cwd`, `on_crash` (`respawn` or
    /// `keep`), `directory` (the group's, for what a monitor leaves to its successor). `None` if the host has no such
    /// setting or it is not set.
    pub fn setting(&self, key: &str) -> Option<&[u8]> {
        let get = self.table.get?;
        Self::borrow(get(self.table.ctx, raw::text(key.as_bytes())))
    }

    /// Reads all values of a list setting, in order: `args` (the process's arguments after FILE) or `env`
    /// (`KEY=VALUE` each). Empty if there is no such list.
    pub fn settings(&self, key: &str) -> impl Iterator<Item = &[u8]> {
        let key = key.to_owned();
        let count = match self.table.count {
            Some(count) if self.table.at.is_some() => count(self.table.ctx, raw::text(key.as_bytes())),
            Some(_) | None => 0,
        };
        (0..count).map_while(move |index| {
            let at = self.table.at?;
            Self::borrow(at(self.table.ctx, raw::text(key.as_bytes()), index))
        })
    }

    /// The process's arguments after FILE.
    pub fn args(&self) -> impl Iterator<Item = &[u8]> {
        self.settings("args")
    }

    /// The process's environment, `KEY=VALUE` each.
    pub fn env(&self) -> impl Iterator<Item = &[u8]> {
        self.settings("env")
    }

    /// The strategy: `development`, `unattached` or `daemon`; empty if the host does not say.
    pub fn strategy(&self) -> &str {
        self.text("strategy")
    }

    /// The group's name; empty if the host does not say.
    pub fn name(&self) -> &str {
        self.text("name")
    }

    /// The label that addresses this instance on the command line; empty if the host does not say.
    pub fn label(&self) -> &str {
        self.text("label")
    }

    /// Says that every byte of `stream` before `offset` is safe with this monitor. Said in `setup`, it tells the
    /// host where to go on.
    pub fn durable(&self, stream: crate::Stream, offset: u64) {
        if let Some(durable) = self.table.durable {
            durable(self.table.ctx, stream.to_raw(), offset);
        }
    }

    /// Shows `value` under a key of the monitor's own in `immortal status`; an empty value removes the key. All monitors
    /// of a group share 2560 bytes of JSON: a value for which there is no room is not shown, and the one before stays.
    pub fn report(&self, key: &str, value: impl core::fmt::Display) {
        if let Some(report) = self.table.report {
            let value = value.to_string();
            report(self.table.ctx, raw::text(key.as_bytes()), raw::text(value.as_bytes()));
        }
    }

    /// Fails the monitor from outside its hooks, from its own thread for instance: the pump ends with this
    /// text. A hook returns an error instead.
    pub fn fail(&self, text: &str) {
        if let Some(fail) = self.table.fail {
            fail(self.table.ctx, raw::text(text.as_bytes()));
        }
    }

    /// The last death of a pump or a daemon of the group, other than an orderly end; `None` if there was none, or if
    /// the host does not tell. It may be long ago: whether it is why this instance was made is said by the `why` of
    /// `setup`. The extension `immortal.crash/1`.
    pub fn last_crash(&self) -> Option<crate::Crash<'_>> {
        let raw = self.extension(abi::EXTENSION_CRASH);
        // SAFETY: what a host offers under this name is null or a structure that begins with its size.
        #[expect(unsafe_code, reason = "an extension comes as a raw pointer from across the boundary")]
        let size = unsafe { raw.cast::<u32>().as_ref() }?;
        if (*size as usize) < size_of::<abi::Crash>() {
            return None;
        }
        // SAFETY: it is not null and long enough, and lives as long as the table, which is never freed.
        #[expect(unsafe_code, reason = "an extension comes as a raw pointer from across the boundary")]
        let crash = unsafe { raw.cast::<abi::Crash>().as_ref() }?;
        Some(crate::Crash::from_raw(crash, Self::borrow))
    }

    /// Looks up a named extension of the host; null if it has none of that name. What it points at is said by
    /// the extension's own description.
    pub fn extension(&self, name: &core::ffi::CStr) -> *const c_void {
        self.table.get_extension.map_or(core::ptr::null(), |get| get(self.table.ctx, name.as_ptr()))
    }

    /// Writes a record to the host's own log.
    pub(crate) fn log(&self, level: log::Level, target: &str, text: &str) {
        if let Some(log) = self.table.log {
            log(self.table.ctx, level as u32, raw::text(target.as_bytes()), raw::text(text.as_bytes()));
        }
    }

    /// The most detailed level that the host wants to see.
    pub(crate) fn max_log_level(&self) -> log::LevelFilter {
        match self.table.max_log_level {
            0 => log::LevelFilter::Off,
            1 => log::LevelFilter::Error,
            2 => log::LevelFilter::Warn,
            3 => log::LevelFilter::Info,
            4 => log::LevelFilter::Debug,
            _ => log::LevelFilter::Trace,
        }
    }

    fn text(&self, key: &str) -> &str {
        self.setting(key).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    fn borrow(text: Str) -> Option<&'static [u8]> {
        if text.data.is_null() {
            return None;
        }
        // SAFETY: settings stay where they are as long as the table, which is never freed (`HostTable::get`).
        #[expect(unsafe_code, reason = "a setting comes as a raw pointer from across the boundary")]
        Some(unsafe { raw::bytes(text) })
    }
}

impl core::fmt::Debug for Host {
    /// Shows label and group, never a setting.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Host")
            .field("label", &self.label())
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}
