//! The fake host's side of the boundary: a table whose functions write down what they are called with.
#![expect(unsafe_code, reason = "every function here takes raw pointers, as the boundary has them")]

use super::LogRecord;
use crate::abi::{self, HostTable, Str};
use crate::{Host, Pids, raw};
use core::ffi::{CStr, c_char, c_void};
use core::sync::atomic::{AtomicPtr, Ordering};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the table's `ctx` points at; never freed.
pub(super) struct Shared {
    state: Mutex<State>,
    /// What is never freed, or null.
    crash: AtomicPtr<abi::Crash>,
}

/// What a fake host remembers.
#[derive(Default)]
pub(super) struct State {
    pub(super) pids: Pids,
    pub(super) settings: BTreeMap<String, Vec<&'static [u8]>>,
    pub(super) accepting: bool,
    pub(super) restarts: usize,
    pub(super) shutdowns: usize,
    pub(super) ready: bool,
    pub(super) reports: BTreeMap<String, String>,
    pub(super) durable: BTreeMap<u32, u64>,
    pub(super) log: Vec<LogRecord>,
    pub(super) failures: Vec<String>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of a crash from now on.
    pub(super) fn set_crash(&self, crash: &'static mut abi::Crash) {
        self.crash.store(crash, Ordering::SeqCst);
    }
}

/// Makes a host and what it remembers in.
pub(super) fn make() -> (Host, &'static Shared) {
    let state = State { accepting: true, ..State::default() };
    let shared = Shared { state: Mutex::new(state), crash: AtomicPtr::default() };
    let shared: &'static Shared = Box::leak(Box::new(shared));
    let table = Box::leak(Box::new(HostTable {
        abi: abi::ABI,
        size: u32::try_from(size_of::<HostTable>()).expect("a few hundred bytes"),
        ctx: (&raw const *shared).cast_mut().cast(),
        max_log_level: log::LevelFilter::Trace as u32,
        reserved_0: 0,
        log: Some(log),
        fail: Some(fail),
        ready: Some(ready),
        restart: Some(restart),
        shutdown: Some(shutdown),
        pids: Some(pids),
        get: Some(get),
        count: Some(count),
        at: Some(at),
        durable: Some(durable),
        report: Some(report),
        get_extension: Some(get_extension),
        reserved_pointers: [core::ptr::null(); 8],
        reserved_numbers: [0; 4],
    }));
    // SAFETY: the table was leaked just now, and nobody writes to it.
    let host = unsafe { Host::from_raw(table) };
    (host.expect("a table of this version"), shared)
}

extern "C" fn log(ctx: *mut c_void, level: u32, target: Str, text: Str) {
    let level = log::Level::iter().find(|known| *known as u32 == level).unwrap_or(log::Level::Trace);
    let record = LogRecord { level, target: string(target), text: string(text) };
    state(ctx).log.push(record);
}

extern "C" fn fail(ctx: *mut c_void, text: Str) {
    state(ctx).failures.push(string(text));
}

extern "C" fn ready(ctx: *mut c_void) {
    state(ctx).ready = true;
}

extern "C" fn restart(ctx: *mut c_void) -> u32 {
    let mut state = state(ctx);
    state.restarts += 1;
    u32::from(state.accepting)
}

extern "C" fn shutdown(ctx: *mut c_void) -> u32 {
    let mut state = state(ctx);
    state.shutdowns += 1;
    u32::from(state.accepting)
}

extern "C" fn pids(ctx: *mut c_void, pids: *mut abi::Pids) {
    let seen = state(ctx).pids;
    // SAFETY: `Host::pids`, the only caller, passes a structure of its own.
    let Some(pids) = (unsafe { pids.as_mut() }) else { return };
    pids.process = seen.process.unwrap_or(0);
    pids.monitor = seen.monitor;
    pids.daemon = seen.daemon.unwrap_or(0);
}

extern "C" fn get(ctx: *mut c_void, key: Str) -> Str {
    at(ctx, key, 0)
}

extern "C" fn count(ctx: *mut c_void, key: Str) -> usize {
    state(ctx).settings.get(&string(key)).map_or(0, Vec::len)
}

extern "C" fn at(ctx: *mut c_void, key: Str, index: usize) -> Str {
    let state = state(ctx);
    // What is returned was leaked by `FakeHost::set_settings`.
    state
        .settings
        .get(&string(key))
        .and_then(|values| values.get(index))
        .map_or(raw::NONE, |value| some(value))
}

extern "C" fn durable(ctx: *mut c_void, stream: u32, offset: u64) {
    state(ctx).durable.insert(stream, offset);
}

extern "C" fn report(ctx: *mut c_void, key: Str, value: Str) {
    let (key, value) = (string(key), string(value));
    let mut state = state(ctx);
    if value.is_empty() {
        state.reports.remove(&key);
    } else {
        state.reports.insert(key, value);
    }
}

extern "C" fn get_extension(ctx: *mut c_void, name: *const c_char) -> *const c_void {
    // SAFETY: `Host::extension`, the only caller, passes a `CStr` that it borrows for the call.
    if unsafe { CStr::from_ptr(name) } != abi::EXTENSION_CRASH {
        return core::ptr::null();
    }
    shared(ctx).crash.load(Ordering::SeqCst).cast_const().cast()
}

fn shared(ctx: *mut c_void) -> &'static Shared {
    // SAFETY: `ctx` of the one table that holds these functions is the `Shared` that `make` has leaked.
    unsafe { &*ctx.cast_const().cast::<Shared>() }
}

fn state(ctx: *mut c_void) -> MutexGuard<'static, State> {
    shared(ctx).lock()
}

fn string(text: Str) -> String {
    // SAFETY: `Host`, the only caller of these functions, passes slices that it borrows for the call.
    String::from_utf8_lossy(unsafe { raw::bytes(text) }).into_owned()
}

/// A setting that is there, though it may be empty: its pointer is not null.
fn some(value: &'static [u8]) -> Str {
    raw::text(value)
}
