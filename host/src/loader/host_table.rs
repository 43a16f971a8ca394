//! The host's side of the boundary: what one instance of a monitor may call.
//!
//! Every function here is called by foreign code, from any thread and at any time until the pump ends. So the
//! tables are never freed, nothing panics across, and null is survived everywhere.

#![expect(unsafe_code, reason = "texts arrive as pointer and length, and the context as a bare pointer")]

use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use immortal_monitor_api::abi;
use log::{Level, LevelFilter};

use super::LastCrash;

/// One consistent snapshot of the group's pids; `None` where there is no such process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pids {
    /// The process.
    pub process: Option<i32>,
    /// The pump.
    pub monitor: Option<i32>,
    /// The daemon.
    pub daemon: Option<i32>,
}

/// What the host does for one instance of a monitor. Every method may be called from any thread, inside hooks
/// and outside, and must not block.
pub trait Services: Send + Sync {
    /// Writes a record to the host's own log.
    fn log(&self, level: Level, target: &str, text: &str);
    /// The monitor says, outside its hooks, that it has failed: the pump is to end with this text.
    fn fail(&self, text: &str);
    /// The monitor is ready; it may say so before its `setup` has returned.
    fn ready(&self);
    /// Asks for a restart of the process, after the current hook. Tells whether it was noted.
    fn restart(&self) -> bool;
    /// Asks for the end of the group, after the current hook. Tells whether it was noted.
    fn shutdown(&self) -> bool;
    /// The pids at this moment.
    fn pids(&self) -> Pids;
    /// The value of a setting with one value.
    fn get(&self, key: &[u8]) -> Option<&[u8]>;
    /// How many values a setting has.
    fn count(&self, key: &[u8]) -> usize;
    /// One value of a list setting.
    fn at(&self, key: &[u8], index: usize) -> Option<&[u8]>;
    /// All bytes of the stream (`abi::STREAM_*`) before this offset are safe with the monitor.
    fn durable(&self, stream: u32, offset: u64);
    /// A value of the monitor's own for `status`; an empty one removes it.
    fn report(&self, key: &[u8], value: &[u8]);
    /// How a pump or a daemon of the group died last, if one did.
    fn last_crash(&self) -> Option<LastCrash> {
        None
    }
}

/// The services of one instance as its monitor sees them. Lives for ever.
#[derive(Clone, Copy)]
pub struct Host {
    pub(super) context: &'static Context,
    pub(super) table: &'static abi::HostTable,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("label", &self.context.label).finish_non_exhaustive()
    }
}

/// Makes the table that is given to one instance. It is never freed, because threads of the monitor may use it
/// for as long as the pump lives; a pump makes one for each of its monitors. `max_level` is what the monitor
/// need not format above.
#[must_use]
pub fn publish(label: &str, services: Arc<dyn Services>, max_level: LevelFilter) -> Host {
    let context: &'static Context = Box::leak(Box::new(Context {
        hook_thread: AtomicUsize::new(0),
        failed: AtomicBool::new(false),
        text: Mutex::new(String::new()),
        label: label.to_owned(),
        services,
    }));
    let table: &'static abi::HostTable = Box::leak(Box::new(abi::HostTable {
        abi: abi::ABI,
        size: size_u32::<abi::HostTable>(),
        ctx: std::ptr::from_ref(context).cast_mut().cast(),
        max_log_level: level_number(max_level),
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
        reserved_pointers: [std::ptr::null(); 8],
        reserved_numbers: [0; 4],
    }));
    Host { context, table }
}

/// What the functions of one table work on.
pub(super) struct Context {
    /// [`this_thread`] while a hook runs, else 0.
    hook_thread: AtomicUsize,
    /// `fail` was called inside the hook that runs.
    failed: AtomicBool,
    /// Its text.
    text: Mutex<String>,
    pub(super) label: String,
    services: Arc<dyn Services>,
}

impl Context {
    /// Notes that a hook begins, on this thread.
    #[inline]
    pub(super) fn enter(&self, thread: usize) {
        self.hook_thread.store(thread, Ordering::Relaxed);
    }

    /// Notes that the hook has returned; tells whether it called `fail`.
    #[inline]
    pub(super) fn leave(&self) -> bool {
        self.hook_thread.store(0, Ordering::Relaxed);
        self.failed.load(Ordering::Relaxed)
    }

    /// Takes the text that the hook gave to `fail`; empty if it gave none.
    pub(super) fn take_text(&self) -> String {
        self.failed.store(false, Ordering::Relaxed);
        std::mem::take(&mut self.text.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A text of the hook's own thread is why the hook fails. One of any other thread is the monitor's own word
    /// that it is broken, even if a hook happens to run: that hook will return as if nothing had happened.
    fn fail(&self, text: &str) {
        if self.hook_thread.load(Ordering::Relaxed) == this_thread() {
            text.clone_into(&mut self.text.lock().unwrap_or_else(PoisonError::into_inner));
            self.failed.store(true, Ordering::Relaxed);
        } else {
            self.services.fail(text);
        }
    }
}

/// A number that is this thread's alone while it lives, and never 0.
pub(super) fn this_thread() -> usize {
    thread_local!(static MARK: u8 = const { 0 });
    MARK.with(|mark| std::ptr::from_ref(mark).addr())
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "checked at compile time")]
pub(crate) fn size_u32<T>() -> u32 {
    const { assert!(size_of::<T>() < 4096) };
    size_of::<T>() as u32
}

pub(crate) const fn borrow(bytes: &[u8]) -> abi::Str {
    abi::Str { data: bytes.as_ptr(), len: bytes.len() }
}

fn level_number(level: LevelFilter) -> u32 {
    match level {
        LevelFilter::Off => 0,
        LevelFilter::Error => 1,
        LevelFilter::Warn => 2,
        LevelFilter::Info => 3,
        LevelFilter::Debug => 4,
        LevelFilter::Trace => 5,
    }
}

/// Runs the body of a callback: a null context and a panic both give `otherwise`.
fn guarded<R>(ctx: *mut c_void, otherwise: R, body: impl FnOnce(&'static Context) -> R) -> R {
    let context: *const Context = ctx.cast_const().cast();
    // SAFETY: the only `ctx` a monitor is given is the one of its table, which `publish` leaked; null is checked.
    let Some(context) = (unsafe { context.as_ref::<'static>() }) else { return otherwise };
    catch_unwind(AssertUnwindSafe(|| body(context))).unwrap_or(otherwise)
}

/// The bytes of a text that a monitor passes; none for null, and for a length that no memory can have.
fn bytes<'a>(text: abi::Str) -> &'a [u8] {
    if text.data.is_null() || text.len > isize::MAX.unsigned_abs() {
        return &[];
    }
    // SAFETY: not null, of a possible length, and by the boundary's rules readable until the callback returns;
    // no caller in this module keeps it longer.
    unsafe { std::slice::from_raw_parts(text.data, text.len) }
}

fn lent(value: Option<&'static [u8]>) -> abi::Str {
    value.map_or(abi::Str { data: std::ptr::null(), len: 0 }, borrow)
}

extern "C" fn log(ctx: *mut c_void, level: u32, target: abi::Str, text: abi::Str) {
    guarded(ctx, (), |context| {
        let level = match level {
            0 => return,
            1 => Level::Error,
            2 => Level::Warn,
            3 => Level::Info,
            4 => Level::Debug,
            _ => Level::Trace,
        };
        let (target, text) = (String::from_utf8_lossy(bytes(target)), String::from_utf8_lossy(bytes(text)));
        context.services.log(level, &target, &text);
    });
}

extern "C" fn fail(ctx: *mut c_void, text: abi::Str) {
    guarded(ctx, (), |context| context.fail(&String::from_utf8_lossy(bytes(text))));
}

extern "C" fn ready(ctx: *mut c_void) {
    guarded(ctx, (), |context| context.services.ready());
}

extern "C" fn restart(ctx: *mut c_void) -> u32 {
    guarded(ctx, 0, |context| u32::from(context.services.restart()))
}

extern "C" fn shutdown(ctx: *mut c_void) -> u32 {
    guarded(ctx, 0, |context| u32::from(context.services.shutdown()))
}

extern "C" fn pids(ctx: *mut c_void, out: *mut abi::Pids) {
    guarded(ctx, (), |context| {
        if out.is_null() {
            return;
        }
        // SAFETY: not null, and the caller sets `size`, the first member, before the call.
        let given = unsafe { out.cast::<u32>().read_unaligned() };
        let now = context.services.pids();
        let all = abi::Pids {
            size: given,
            process: now.process.unwrap_or(0),
            monitor: now.monitor.unwrap_or(0),
            daemon: now.daemon.unwrap_or(0),
        };
        let length = size_of::<abi::Pids>().min(given as usize);
        // SAFETY: the caller says that `given` bytes are there, no more of them are written, and `all` is no
        // shorter than `length`.
        unsafe { std::ptr::copy_nonoverlapping((&raw const all).cast::<u8>(), out.cast::<u8>(), length) };
    });
}

extern "C" fn get(ctx: *mut c_void, key: abi::Str) -> abi::Str {
    guarded(ctx, lent(None), |context| match bytes(key) {
        b"label" => lent(Some(context.label.as_bytes())),
        key => lent(context.services.get(key)),
    })
}

extern "C" fn count(ctx: *mut c_void, key: abi::Str) -> usize {
    guarded(ctx, 0, |context| match bytes(key) {
        b"label" => 1,
        key => context.services.count(key),
    })
}

extern "C" fn at(ctx: *mut c_void, key: abi::Str, index: usize) -> abi::Str {
    guarded(ctx, lent(None), |context| match bytes(key) {
        b"label" => lent(Some(context.label.as_bytes()).filter(|_| index == 0)),
        key => lent(context.services.at(key, index)),
    })
}

extern "C" fn durable(ctx: *mut c_void, stream: u32, offset: u64) {
    guarded(ctx, (), |context| context.services.durable(stream, offset));
}

extern "C" fn report(ctx: *mut c_void, key: abi::Str, value: abi::Str) {
    guarded(ctx, (), |context| context.services.report(bytes(key), bytes(value)));
}

extern "C" fn get_extension(ctx: *mut c_void, name: *const c_char) -> *const c_void {
    if name.is_null() {
        return std::ptr::null();
    }
    // SAFETY: not null, and by the boundary's rules a NUL-terminated text until the callback returns.
    let name = unsafe { CStr::from_ptr(name) };
    guarded(ctx, std::ptr::null(), |context| match name {
        name if name == abi::EXTENSION_CRASH => {
            context.services.last_crash().map_or(std::ptr::null(), LastCrash::as_ptr)
        }
        _ => std::ptr::null(),
    })
}
