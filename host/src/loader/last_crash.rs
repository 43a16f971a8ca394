//! The crash record as it crosses to monitors: made once, and never freed.

#![expect(unsafe_code, reason = "a structure with pointers is shared by all threads")]

use std::ffi::c_void;

use immortal_monitor_api::abi;

use super::host_table::{borrow, size_u32};
use crate::crash::Crash;
use crate::role::Role;

/// What monitors are offered as `immortal.crash/1`.
#[derive(Debug, Clone, Copy)]
pub struct LastCrash {
    raw: &'static abi::Crash,
}

// SAFETY: nobody writes to the structure or to what its texts point at, and neither is ever freed.
unsafe impl Send for LastCrash {}
// SAFETY: as above.
unsafe impl Sync for LastCrash {}

impl LastCrash {
    /// Makes what crosses; a pump does it once.
    pub(crate) fn lend(crash: &Crash) -> Self {
        let text = |bytes: &[u8]| borrow(bytes.to_vec().leak());
        let name = |name: Option<&String>| name.map_or(NONE, |name| text(name.as_bytes()));
        let in_hook = crash.in_hook.as_ref();
        let (pending_stream, pending_offset, pending_bytes) = match crash.pending {
            Some((0, bytes)) => (abi::STREAM_STDOUT, crash.offsets[0], bytes),
            Some((_, bytes)) => (abi::STREAM_STDERR, crash.offsets[1], bytes),
            None => (0, 0, 0),
        };
        let raw = abi::Crash {
            size: size_u32::<abi::Crash>(),
            role: match crash.role {
                Role::Pump => abi::ROLE_PUMP,
                Role::Daemon => abi::ROLE_DAEMON,
            },
            code: crash.code.unwrap_or(-1),
            signal: crash.signal.unwrap_or(-1),
            wall_ns: crash.wall_ns,
            pid: crash.pid,
            count: crash.count,
            monitor: name(in_hook.map(|(monitor, _)| monitor)),
            hook: name(in_hook.map(|(_, hook)| hook)),
            offsets: crash.offsets,
            pending_stream,
            flags: if crash.by_hook == Some(true) { abi::CRASH_BY_HOOK } else { 0 },
            pending_offset,
            pending_bytes,
            stderr_tail: text(&crash.stderr),
        };
        Self { raw: Box::leak(Box::new(raw)) }
    }

    /// What `get_extension` returns.
    pub(super) fn as_ptr(self) -> *const c_void {
        std::ptr::from_ref(self.raw).cast()
    }
}

const NONE: abi::Str = abi::Str { data: std::ptr::null(), len: 0 };
