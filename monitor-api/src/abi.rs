//! The boundary itself: the C structures that cross between host and monitor, and nothing else.
//!
//! These structures are frozen byte for byte since 1.0.0 (a test compares every size and offset). New things
//! come as named extensions through `get_extension`, or use the reserved members; enumerations cross as `u32`
//! and unknown values are ignored. `include/immortal_monitor.h` is the same text in C.
//!
//! Every type derives `StableAbi`, so that a host can let `abi_stable` walk the whole layout of a Rust monitor
//! before it trusts the table. `abi_stable` is used in this module and in the export macro alone.
//!
//! Rules for every pointer: data is borrowed for the duration of the call, allocation never crosses, a text is
//! a pointer and a length and need be neither UTF-8 nor NUL-terminated.

use abi_stable::StableAbi;
use core::ffi::{c_char, c_void};

/// First four bytes of every monitor table: `IMMO` read as a little-endian number.
pub const MAGIC: u32 = u32::from_le_bytes(*b"IMMO");
/// Version of the boundary. A breaking change is a new symbol, so within `immortal_monitor_v1` this is 1.
pub const ABI: u32 = 1;

/// A hook did what it was asked to do; from `setup`: the monitor is ready.
pub const OK: i32 = 0;
/// From `setup` alone: not ready yet, `ready` of the host will be called later.
pub const PENDING: i32 = 1;
/// A hook failed; the reason was given to `fail` of the host before it returned.
pub const FAILED: i32 = -1;
/// A hook panicked; the text was given to `fail` of the host before it returned.
pub const PANICKED: i32 = -2;

/// `why` of a first start.
pub const WHY_PUMP_START: u32 = 1;
/// `why` after the death of a pump.
pub const WHY_PUMP_RESTART: u32 = 2;
/// `why` after the death of a daemon.
pub const WHY_DAEMON_RESTART: u32 = 3;
/// `why` after a reload of the monitors.
pub const WHY_RELOAD: u32 = 4;

/// Stream number of standard output.
pub const STREAM_STDOUT: u32 = 1;
/// Stream number of standard error.
pub const STREAM_STDERR: u32 = 2;

/// Event: the process started for the first time.
pub const EVENT_SPAWN: u32 = 1;
/// Event: the process was started again.
pub const EVENT_RESPAWN: u32 = 2;
/// Event: the process died.
pub const EVENT_EXIT: u32 = 3;

/// Flag of [`Setup`] and [`Event`]: the process was kept running, it is not a new one.
pub const FLAG_KEPT: u32 = 1 << 0;
/// Flag of [`Event`]: the process left a core dump.
pub const FLAG_CORE: u32 = 1 << 1;
/// Flag of [`Output`]: an earlier pump may have delivered these bytes already.
pub const FLAG_REDELIVERED: u32 = 1 << 2;

/// Kind of [`Opt`]: the value is text as typed.
pub const OPT_TEXT: u32 = 0;
/// Kind of [`Opt`]: the value is one JSON value (`null`, a number, a quoted string, …).
pub const OPT_JSON: u32 = 1;

/// Flag of [`MonitorTable`]: built with `panic = "abort"`, so that a panic ends the pump without its text.
pub const MONITOR_PANIC_ABORT: u32 = 1 << 0;

/// Name of the options extension of a monitor: `get_extension` returns a `const im_options *`.
pub const EXTENSION_OPTIONS: &core::ffi::CStr = c"immortal.options/1";
/// Name of the crash extension of a host: `get_extension` returns a `const im_crash *`, or null if no pump and no
/// daemon of the group has died.
pub const EXTENSION_CRASH: &core::ffi::CStr = c"immortal.crash/1";

/// Role in [`Crash`]: a pump, which hosts the monitors.
pub const ROLE_PUMP: u32 = 1;
/// Role in [`Crash`]: a daemon, which keeps the pump alive.
pub const ROLE_DAEMON: u32 = 2;
/// Flag of [`Crash`]: the hook in progress ended the pump. It failed, panicked, took too long, called `exit`, or did
/// something for which the kernel ends a process. Not set if the pump was killed from outside.
pub const CRASH_BY_HOOK: u32 = 1 << 0;

/// Option type: any text.
pub const OPTION_STRING: u32 = 1;
/// Option type: a path; made absolute against the caller's directory before the monitor sees it.
pub const OPTION_PATH: u32 = 2;
/// Option type: a signed 64-bit integer.
pub const OPTION_INTEGER: u32 = 3;
/// Option type: `true` or `false`.
pub const OPTION_BOOLEAN: u32 = 4;
/// Option type: a number of bytes such as `10MiB`.
pub const OPTION_SIZE: u32 = 5;
/// Option type: a span of time such as `500ms`.
pub const OPTION_DURATION: u32 = 6;
/// Option type: one of the listed choices.
pub const OPTION_CHOICE: u32 = 7;

/// Flag of [`OptionDecl`]: must be given.
pub const OPTION_REQUIRED: u32 = 1 << 0;
/// Flag of [`OptionDecl`]: `KEY:=null` is accepted and means "none".
pub const OPTION_NULLABLE: u32 = 1 << 1;
/// Flag of [`OptionDecl`]: the value is a secret and never shown.
pub const OPTION_SECRET: u32 = 1 << 2;

/// Bytes with a length, borrowed for the call. `data` may be null when `len` is 0; a null `data` from `get` or
/// `at` of the host means "no such setting".
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct Str {
    /// First byte.
    pub data: *const u8,
    /// Number of bytes.
    pub len: usize,
}

/// One option as given by the user, after the host has resolved `KEY=@FILE` and relative paths.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct Opt {
    /// Name of the option.
    pub key: Str,
    /// Its value; what it holds is said by `kind`.
    pub value: Str,
    /// [`OPT_TEXT`] or [`OPT_JSON`].
    pub kind: u32,
    /// Zero.
    pub flags: u32,
}

/// Argument of `setup`.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct Setup {
    /// Size of this structure in bytes.
    pub size: u32,
    /// `WHY_*`; unknown values are to be treated as a restart.
    pub why: u32,
    /// [`FLAG_KEPT`] or zero.
    pub flags: u32,
    /// Pid of the process if it is running (kept), else 0.
    pub process_pid: i32,
    /// Stderr of the dead pump, newest part; empty where there is none.
    pub message: Str,
    /// How many bytes of the dead pump's stderr are missing before `message`.
    pub cut_bytes: u64,
    /// Offset of the first byte that will be delivered, of stdout and of stderr.
    pub first_offset: [u64; 2],
}

/// Argument of `output`: bytes of one stream.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct Output {
    /// Size of this structure in bytes.
    pub size: u32,
    /// `STREAM_*`.
    pub stream: u32,
    /// [`FLAG_REDELIVERED`] or zero.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
    /// Offset of the first byte of `data` in the group's stream.
    pub offset: u64,
    /// `CLOCK_MONOTONIC` at the read, in nanoseconds; 0 if it was not taken.
    pub mono_ns: u64,
    /// The bytes; a chunk is whatever one read returned and respects no line.
    pub data: Str,
}

/// Argument of `event`.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct Event {
    /// Size of this structure in bytes; a longer event begins with this one.
    pub size: u32,
    /// `EVENT_*`; unknown values are to be ignored.
    pub kind: u32,
    /// Pid of the process the event is about.
    pub pid: i32,
    /// Exit code, -1 if the process did not exit by itself.
    pub code: i32,
    /// Signal that ended the process, -1 if none did.
    pub signal: i32,
    /// How many times the process has been respawned in the life of the group.
    pub count: u32,
    /// [`FLAG_KEPT`], [`FLAG_CORE`].
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
    /// `CLOCK_MONOTONIC` of the fact, in nanoseconds.
    pub mono_ns: u64,
    /// Nanoseconds since 1970-01-01 UTC of the fact.
    pub wall_ns: u64,
    /// Of an exit: how long the process ran, in nanoseconds; else 0.
    pub ran_ns: u64,
}

/// Filled in by `pids` of the host: one consistent snapshot; 0 where there is no such process.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct Pids {
    /// Set by the caller to the size of this structure; the host writes no more than that.
    pub size: u32,
    /// Pid of the process.
    pub process: i32,
    /// Pid of the pump, which hosts the monitor.
    pub monitor: i32,
    /// Pid of the daemon.
    pub daemon: i32,
}

/// One declared option; element of [`OptionTable`].
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct OptionDecl {
    /// Name, NUL-terminated UTF-8: `[a-z][a-z0-9_]*`.
    pub name: *const c_char,
    /// One line of help, NUL-terminated UTF-8.
    pub help: *const c_char,
    /// Default as the user would type it, NUL-terminated UTF-8; null for none.
    pub default_value: *const c_char,
    /// The choices of [`OPTION_CHOICE`], NUL-terminated UTF-8 each; null otherwise.
    pub choices: *const *const c_char,
    /// Number of choices.
    pub choice_count: usize,
    /// `OPTION_*` type; unknown values are to be treated as text.
    pub kind: u32,
    /// [`OPTION_REQUIRED`], [`OPTION_NULLABLE`], [`OPTION_SECRET`].
    pub flags: u32,
}

/// The extension [`EXTENSION_OPTIONS`] of a monitor.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct OptionTable {
    /// Size of this structure in bytes.
    pub size: u32,
    /// Zero.
    pub flags: u32,
    /// First declaration.
    pub options: *const OptionDecl,
    /// Number of declarations.
    pub count: usize,
}

/// The extension [`EXTENSION_CRASH`] of a host: the last death of a pump or a daemon of the group, other than an
/// orderly end. It lives as long as the [`HostTable`] it was asked of, which is for ever.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct Crash {
    /// Size of this structure in bytes; a longer one begins with this one.
    pub size: u32,
    /// `ROLE_*`; unknown values are to be accepted.
    pub role: u32,
    /// Exit code, -1 if it did not exit by itself or that is not known (of a daemon it is not).
    pub code: i32,
    /// Signal that ended it, -1 if none did or that is not known.
    pub signal: i32,
    /// Nanoseconds since 1970-01-01 UTC at which its death was noticed.
    pub wall_ns: u64,
    /// Pid that it had.
    pub pid: i32,
    /// How many crashes there were in a row, this one included; a pump that ran for `--stable` ends a row.
    pub count: u32,
    /// Label of the monitor whose hook was in progress; `data` is null if none was.
    pub monitor: Str,
    /// Name of that hook, as the Rust trait has it (`create` for `new`); `data` is null if none was in progress.
    pub hook: Str,
    /// Up to where stdout and stderr were delivered to every monitor.
    pub offsets: [u64; 2],
    /// `STREAM_*` of the chunk that was taken and not delivered to every monitor; 0: there was none.
    pub pending_stream: u32,
    /// [`CRASH_BY_HOOK`] or zero.
    pub flags: u32,
    /// Offset of that chunk in its stream.
    pub pending_offset: u64,
    /// Length of that chunk, in bytes.
    pub pending_bytes: u64,
    /// The last bytes of its stderr, at most 4096; the message of `setup` may have more.
    pub stderr_tail: Str,
}

/// What the host offers to one instance of a monitor. Never freed, so that a monitor's own thread may call it
/// at any time; every function may be called from any thread, inside hooks and outside, and does not block.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct HostTable {
    /// [`ABI`].
    pub abi: u32,
    /// Size of this structure in bytes.
    pub size: u32,
    /// First argument of every function.
    pub ctx: *mut c_void,
    /// Records above this level are not wanted: 0 off, 1 error, 2 warn, 3 info, 4 debug, 5 trace.
    pub max_log_level: u32,
    /// Zero.
    pub reserved_0: u32,
    /// Writes a record (level as above, target, text) to the host's own log, under the monitor's label.
    pub log: Option<extern "C" fn(ctx: *mut c_void, level: u32, target: Str, text: Str)>,
    /// Says why a hook fails, before it returns [`FAILED`]. Outside a hook it ends the pump with that text.
    pub fail: Option<extern "C" fn(ctx: *mut c_void, text: Str)>,
    /// Says that a monitor whose `setup` returned [`PENDING`] is ready.
    pub ready: Option<extern "C" fn(ctx: *mut c_void)>,
    /// Asks for a restart of the process; takes effect after the current call. Returns 1 if it was noted, 0 if
    /// there is nothing to restart.
    pub restart: Option<extern "C" fn(ctx: *mut c_void) -> u32>,
    /// Asks for the end of the whole group; takes effect after the current call. Returns as `restart` does.
    pub shutdown: Option<extern "C" fn(ctx: *mut c_void) -> u32>,
    /// Fills in a consistent snapshot of the group's pids.
    pub pids: Option<extern "C" fn(ctx: *mut c_void, pids: *mut Pids)>,
    /// Reads a setting with one value: `name`, `label`, `strategy`, `exec`, `file`, `cwd`, `on_crash`, `directory`.
    /// Valid as long as this table, which is for ever.
    pub get: Option<extern "C" fn(ctx: *mut c_void, key: Str) -> Str>,
    /// Number of values of a list setting: `args`, `env`. 1 or 0 for a setting with one value.
    pub count: Option<extern "C" fn(ctx: *mut c_void, key: Str) -> usize>,
    /// Reads one value of a list setting. Valid as long as this table, which is for ever.
    pub at: Option<extern "C" fn(ctx: *mut c_void, key: Str, index: usize) -> Str>,
    /// Says that all bytes of a stream before this offset are safe with this monitor. Said in `setup` it tells
    /// the host where to go on.
    pub durable: Option<extern "C" fn(ctx: *mut c_void, stream: u32, offset: u64)>,
    /// Shows a value under a key of the monitor's own in `status`; an empty value removes it. All monitors of a group
    /// share 2560 bytes of JSON: a value for which there is no room is not shown.
    pub report: Option<extern "C" fn(ctx: *mut c_void, key: Str, value: Str)>,
    /// Looks up a named extension of the host (NUL-terminated); null if it has none of that name.
    pub get_extension: Option<extern "C" fn(ctx: *mut c_void, name: *const c_char) -> *const c_void>,
    /// Null.
    pub reserved_pointers: [*const c_void; 8],
    /// Zero.
    pub reserved_numbers: [u64; 4],
}

/// What a monitor library exports as the data symbol `immortal_monitor_v1`. A null function is "not
/// implemented", which only `create` and `destroy` may not be. All calls on one instance are serial, on one
/// thread, and never re-entrant.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct MonitorTable {
    /// [`MAGIC`].
    pub magic: u32,
    /// [`ABI`].
    pub abi: u32,
    /// Size of this structure in bytes.
    pub size: u32,
    /// [`MONITOR_PANIC_ABORT`] or zero.
    pub flags: u32,
    /// Name, NUL-terminated UTF-8.
    pub name: *const c_char,
    /// Version, NUL-terminated UTF-8.
    pub version: *const c_char,
    /// One line about the monitor, NUL-terminated UTF-8.
    pub about: *const c_char,
    /// Judges the options before anything is started, in a helper process. Returns [`OK`] or [`FAILED`].
    pub check: Option<extern "C" fn(host: *const HostTable, options: *const Opt, count: usize) -> i32>,
    /// Makes an instance in the pump; null after `fail`.
    pub create:
        Option<extern "C" fn(host: *const HostTable, options: *const Opt, count: usize) -> *mut c_void>,
    /// First call of an instance. Returns [`OK`], [`PENDING`] or [`FAILED`].
    pub setup: Option<extern "C" fn(instance: *mut c_void, setup: *const Setup) -> i32>,
    /// Takes bytes of a stream.
    pub output: Option<extern "C" fn(instance: *mut c_void, output: *const Output) -> i32>,
    /// Takes an event of the process's life.
    pub event: Option<extern "C" fn(instance: *mut c_void, event: *const Event) -> i32>,
    /// There is nothing more to read now: a good moment to write out what was gathered.
    pub idle: Option<extern "C" fn(instance: *mut c_void) -> i32>,
    /// The group ends in order: write out everything before the deadline (`CLOCK_MONOTONIC`, nanoseconds).
    pub finish: Option<extern "C" fn(instance: *mut c_void, deadline_ns: u64) -> i32>,
    /// Last call, after `finish`; frees the instance.
    pub destroy: Option<extern "C" fn(instance: *mut c_void)>,
    /// Looks up a named extension of the monitor (NUL-terminated); null if it has none of that name. May be
    /// called before `create`.
    pub get_extension: Option<extern "C" fn(name: *const c_char) -> *const c_void>,
    /// Null.
    pub reserved_pointers: [*const c_void; 8],
    /// Zero.
    pub reserved_numbers: [u64; 4],
}

// SAFETY: the table is read-only data; its pointers lead to static strings and functions.
#[expect(unsafe_code, reason = "an exported static must be Sync, and raw pointers are not")]
unsafe impl Sync for MonitorTable {}

/// The abi_stable root module of a Rust monitor: it leads the layout walk to the table.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = MonitorRoot)))]
#[sabi(missing_field(option))]
pub struct MonitorRootFields {
    /// The same table as the data symbol; a host compares the addresses.
    pub table: &'static MonitorTable,
    /// The host's side of the boundary, for the walk only: always null.
    pub host: *const HostTable,
    /// The arguments that the walk would not reach otherwise: always null.
    pub options: *const OptionTable,
    /// Version of `immortal-monitor-api` that the monitor was built with.
    #[sabi(last_prefix_field)]
    pub api_version: abi_stable::std_types::RStr<'static>,
}

// SAFETY: a root module is read-only data that is never freed; its pointers are null or lead to such data.
#[expect(unsafe_code, reason = "a root module is shared by all threads, and raw pointers are not Sync")]
unsafe impl Sync for MonitorRootFields_Prefix {}
