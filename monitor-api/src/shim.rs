//! The functions of the table: from C calls to the methods of a [`Monitor`], and no panic past them.
#![expect(unsafe_code, reason = "every function here takes raw pointers from across the boundary")]

use crate::abi::{self, HostTable, MonitorTable, Opt};
use crate::hook::{self, Fault};
use crate::options::{self, Options};
use crate::{Event, Host, Monitor, Output, Readiness, Result, Setup, Stream, Why, raw};
use core::ffi::{CStr, c_char, c_void};
use core::time::Duration;
use std::time::Instant;

/// What `create` returns a pointer to.
struct Instance<M> {
    host: Host,
    monitor: M,
    /// Set by a panic: what the monitor holds may be half done, so none of its code runs any more.
    poisoned: bool,
}

/// The table of a monitor with this name, version and description.
pub(crate) const fn table<M: Monitor>(
    name: &'static CStr,
    version: &'static CStr,
    about: &'static CStr,
) -> MonitorTable {
    MonitorTable {
        magic: abi::MAGIC,
        abi: abi::ABI,
        #[expect(clippy::cast_possible_truncation, reason = "a few hundred bytes")]
        size: size_of::<MonitorTable>() as u32,
        flags: if cfg!(panic = "abort") { abi::MONITOR_PANIC_ABORT } else { 0 },
        name: name.as_ptr(),
        version: version.as_ptr(),
        about: about.as_ptr(),
        check: Some(check::<M>),
        create: Some(create::<M>),
        setup: Some(setup::<M>),
        output: Some(output::<M>),
        event: Some(event::<M>),
        idle: Some(idle::<M>),
        finish: Some(finish::<M>),
        destroy: Some(destroy::<M>),
        get_extension: Some(get_extension::<M>),
        reserved_pointers: [core::ptr::null(); 8],
        reserved_numbers: [0; 4],
    }
}

extern "C" fn check<M: Monitor>(host: *const HostTable, given: *const Opt, count: usize) -> i32 {
    // SAFETY: the boundary promises a table that is never freed or written to ("im_host" in the header).
    let Some(host) = (unsafe { Host::from_raw(host) }) else { return abi::FAILED };
    hook::install(&host);
    let outcome = hook::run(&host, "check", || {
        // SAFETY: the boundary promises `count` options for the duration of this call.
        let options = unsafe { read_options::<M>(&host, given, count) }?;
        M::check(&options)
    });
    code(outcome)
}

extern "C" fn create<M: Monitor>(host: *const HostTable, given: *const Opt, count: usize) -> *mut c_void {
    // SAFETY: the boundary promises a table that is never freed or written to ("im_host" in the header).
    let Some(host) = (unsafe { Host::from_raw(host) }) else { return core::ptr::null_mut() };
    hook::install(&host);
    let made = hook::run(&host, "new", || {
        // SAFETY: the boundary promises `count` options for the duration of this call.
        let options = unsafe { read_options::<M>(&host, given, count) }?;
        M::new(host.clone(), &options)
    });
    match made {
        Ok(monitor) => Box::into_raw(Box::new(Instance { host, monitor, poisoned: false })).cast(),
        Err(_) => core::ptr::null_mut(),
    }
}

extern "C" fn setup<M: Monitor>(instance: *mut c_void, setup: *const abi::Setup) -> i32 {
    // SAFETY: the boundary promises a setup that stays there for the duration of this call.
    let Some(raw) = (unsafe { setup.as_ref() }) else { return abi::FAILED };
    let setup = Setup {
        why: Why::from_raw(raw.why),
        // SAFETY: as above, its message included.
        message: unsafe { raw::bytes(raw.message) },
        cut_bytes: raw.cut_bytes,
        stdout_offset: raw.first_offset[0],
        stderr_offset: raw.first_offset[1],
        kept: raw.flags & abi::FLAG_KEPT != 0,
        process_pid: (raw.process_pid > 0).then_some(raw.process_pid),
    };
    // SAFETY: the boundary promises an instance of this very table, and no other call on it meanwhile.
    let outcome = unsafe { with::<M, _>(instance, "setup", |monitor| monitor.setup_details(&setup)) };
    match outcome {
        Ok(Readiness::Ready) => abi::OK,
        Ok(Readiness::Pending) => abi::PENDING,
        Err(fault) => code(Err(fault)),
    }
}

extern "C" fn output<M: Monitor>(instance: *mut c_void, output: *const abi::Output) -> i32 {
    // SAFETY: the boundary promises an output that stays there for the duration of this call.
    let Some(raw) = (unsafe { output.as_ref() }) else { return abi::FAILED };
    let output = Output {
        stream: Stream::from_raw(raw.stream),
        // SAFETY: as above, its bytes included.
        bytes: unsafe { raw::bytes(raw.data) },
        offset: raw.offset,
        redelivered: raw.flags & abi::FLAG_REDELIVERED != 0,
        mono_ns: (raw.mono_ns != 0).then_some(raw.mono_ns),
    };
    let name = match output.stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
        Stream::Other(_) => "output",
    };
    // SAFETY: the boundary promises an instance of this very table, and no other call on it meanwhile.
    code(unsafe { with::<M, _>(instance, name, |monitor| monitor.output(&output)) })
}

extern "C" fn event<M: Monitor>(instance: *mut c_void, event: *const abi::Event) -> i32 {
    // SAFETY: the boundary promises an event that stays there for the duration of this call.
    let Some(raw) = (unsafe { event.as_ref() }) else { return abi::FAILED };
    let event = Event::from_raw(raw);
    // SAFETY: the boundary promises an instance of this very table, and no other call on it meanwhile.
    code(unsafe { with::<M, _>(instance, event.hook(), |monitor| monitor.event(&event)) })
}

extern "C" fn idle<M: Monitor>(instance: *mut c_void) -> i32 {
    // SAFETY: the boundary promises an instance of this very table, and no other call on it meanwhile.
    code(unsafe { with::<M, _>(instance, "idle", Monitor::idle) })
}

extern "C" fn finish<M: Monitor>(instance: *mut c_void, deadline_ns: u64) -> i32 {
    let deadline = instant(deadline_ns);
    // SAFETY: the boundary promises an instance of this very table, and no other call on it meanwhile.
    code(unsafe { with::<M, _>(instance, "finish", |monitor| monitor.finish(deadline)) })
}

extern "C" fn destroy<M: Monitor>(instance: *mut c_void) {
    if instance.is_null() {
        return;
    }
    // SAFETY: `create` of this table made it with `Box::into_raw`, and the boundary promises that this is its
    // last call.
    let instance = unsafe { Box::from_raw(instance.cast::<Instance<M>>()) };
    let Instance { host, monitor, poisoned } = *instance;
    if poisoned {
        core::mem::forget(monitor);
        return;
    }
    let dropped = hook::run(&host, "drop", || {
        drop(monitor);
        Ok(())
    });
    // A panic was told like any other, and this function has nothing to return it with.
    match dropped {
        Ok(()) | Err(Fault::Failed | Fault::Panicked) => {}
    }
}

extern "C" fn get_extension<M: Monitor>(name: *const c_char) -> *const c_void {
    if name.is_null() {
        return core::ptr::null();
    }
    // SAFETY: the boundary promises a NUL-terminated name for the duration of this call.
    let name = unsafe { CStr::from_ptr(name) };
    if name != abi::EXTENSION_OPTIONS {
        return core::ptr::null();
    }
    (&raw const *options::table(M::OPTIONS)).cast()
}

/// Runs a hook of an instance that no panic has poisoned.
///
/// # Safety
/// `instance` must be null or come from `create::<M>`, not be destroyed, and not be in use by another call.
unsafe fn with<M: Monitor, T>(
    instance: *mut c_void,
    name: &'static str,
    call: impl FnOnce(&mut M) -> Result<T>,
) -> Result<T, Fault> {
    // SAFETY: by this function's contract null or an `Instance<M>` that nobody else uses.
    let Some(instance) = (unsafe { instance.cast::<Instance<M>>().as_mut() }) else {
        return Err(Fault::Failed);
    };
    if instance.poisoned {
        return Err(Fault::Panicked);
    }
    let outcome = hook::run(&instance.host, name, || call(&mut instance.monitor));
    instance.poisoned = matches!(outcome, Err(Fault::Panicked));
    outcome
}

/// Reads and validates the options of a call.
///
/// # Safety
/// `given` must point at `count` options that stay there, their texts too, for the duration of this call.
unsafe fn read_options<M: Monitor>(host: &Host, given: *const Opt, count: usize) -> Result<Options> {
    // SAFETY: by this function's contract.
    let given = unsafe { raw::options(given, count) };
    // SAFETY: by this function's contract, for each of them; they are copied before it returns.
    let given = given.iter().map(|option| unsafe { options::Given::from_raw(option) });
    Ok(Options::new(host.clone(), M::OPTIONS, given)?)
}

fn code(outcome: Result<(), Fault>) -> i32 {
    match outcome {
        Ok(()) => abi::OK,
        Err(Fault::Failed) => abi::FAILED,
        Err(Fault::Panicked) => abi::PANICKED,
    }
}

/// The moment that `CLOCK_MONOTONIC` shows this many nanoseconds; one that is past is now.
fn instant(mono_ns: u64) -> Instant {
    /// Long enough to be "no deadline".
    const FAR: Duration = Duration::from_secs(86_400);
    let left = Duration::from_nanos(mono_ns.saturating_sub(monotonic_ns())).min(FAR);
    Instant::now() + left
}

/// What `CLOCK_MONOTONIC` shows now; `std` keeps the number of an [`Instant`] to itself.
pub(crate) fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a timespec of our own; the clock exists on every system we build for.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    let number = |number| u64::try_from(number).unwrap_or_default();
    number(now.tv_sec) * 1_000_000_000 + number(now.tv_nsec)
}
