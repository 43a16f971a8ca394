//! What [`export_monitor!`](crate::export_monitor) expands to. Not for direct use.
//!
//! Both exported symbols are made here by safe generic code, so that the macro's expansion holds no unsafe block
//! and the author's crate needs no `abi_stable` of its own. What is left are two `#[unsafe(…)]` attributes that name
//! the symbols. Measured with rustc 1.95: the lint `unsafe_code` says nothing of attributes that come out of another
//! crate's macro, not even under `forbid`, while an `allow` beside them would be an error there. The statics are
//! exported although they are private to a `const` block, and nothing else is; `tests/forbid_unsafe.rs` and
//! `tests/exports.rs` hold this.

use crate::abi::{MonitorRoot, MonitorRootFields, MonitorTable};
use crate::{Monitor, shim};
use abi_stable::library::{CheckTypeLayout, ROOT_MODULE_LOADER_NAME, RootModule, RootModuleResult};
use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::{RResult, RStr};
use core::ffi::CStr;

pub use abi_stable::library::LibHeader;

/// The symbol that abi_stable looks for; a macro needs it as a literal, so it is held against the crate here.
const LOADER_SYMBOL: &str = "_1as_0lib_1header_0root_bmodule_bloader";
const _: () = assert!(equal(LOADER_SYMBOL.as_bytes(), ROOT_MODULE_LOADER_NAME.as_bytes()));

/// A library that exports a table.
pub trait Exported: 'static {
    /// The exported table.
    fn table() -> &'static MonitorTable;
}

/// The table of a monitor; the texts end with a NUL.
///
/// # Panics
/// At compile time, if one of the texts holds another NUL.
pub const fn table<M: Monitor>(
    name: &'static str,
    version: &'static str,
    about: &'static str,
) -> MonitorTable {
    shim::table::<M>(text(without_prefix(name.as_bytes())), text(version.as_bytes()), text(about.as_bytes()))
}

/// The header through which a host has abi_stable walk the layout of the table.
#[expect(unsafe_code, reason = "abi_stable's constructor is unsafe")]
pub const fn header<E: Exported>() -> LibHeader {
    // SAFETY: `root` returns an erased `MonitorRoot`, the type this is made for.
    unsafe { LibHeader::from_constructor::<MonitorRoot>(root::<E>, CheckTypeLayout::Yes) }
}

extern "C" fn root<E: Exported>() -> RootModuleResult {
    let fields = MonitorRootFields {
        table: E::table(),
        host: core::ptr::null(),
        options: core::ptr::null(),
        api_version: RStr::from_str(env!("CARGO_PKG_VERSION")),
    };
    let root = fields.leak_into_prefix();
    // SAFETY: an erased pointer to a prefix is what abi_stable's own export makes of a root module; nobody reads
    // it but through `MonitorRoot`, which checks the layout first.
    #[expect(unsafe_code, reason = "erasing the type of a prefix is unsafe")]
    let erased = unsafe { abi_stable::prefix_type::PrefixRefTrait::to_prefix_ref(root).cast() };
    RResult::ROk(erased)
}

impl RootModule for MonitorRoot {
    abi_stable::declare_root_module_statics! {MonitorRoot}
    const BASE_NAME: &'static str = "immortal_monitor";
    const NAME: &'static str = "immortal_monitor";
    const VERSION_STRINGS: VersionStrings = abi_stable::package_version_strings!();
}

const fn text(bytes: &'static [u8]) -> &'static CStr {
    match CStr::from_bytes_with_nul(bytes) {
        Ok(text) => text,
        Err(_) => panic!("a name, version or description with a NUL byte"),
    }
}

/// Takes `immortal-monitor-` or `immortal_monitor_` off a package's name.
const fn without_prefix(name: &'static [u8]) -> &'static [u8] {
    const PREFIXES: [&[u8]; 2] = [b"immortal-monitor-", b"immortal_monitor_"];
    let mut index = 0;
    while index < PREFIXES.len() {
        if name.len() > PREFIXES[index].len() {
            let (head, tail) = name.split_at(PREFIXES[index].len());
            if equal(head, PREFIXES[index]) {
                return tail;
            }
        }
        index += 1;
    }
    name
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut index = 0;
    while index < a.len() {
        if a[index] != b[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// Exports a type that implements [`Monitor`](crate::Monitor) as the monitor of this library: the last line of
/// a monitor's crate, whose `crate-type` is `cdylib`.
///
/// The monitor's name is the package's, less `immortal-monitor-`, or the second argument; version and
/// description are the package's. Two symbols are exported, `immortal_monitor_v1` and the one by which
/// `abi_stable` finds the layout. The expansion works in a crate with `#![forbid(unsafe_code)]`.
///
/// ```
/// use immortal_monitor_api::*;
/// struct Quiet;
/// impl Monitor for Quiet {
///     fn new(_: Host, _: &Options) -> Result<Self> {
///         Ok(Quiet)
///     }
/// }
/// export_monitor!(Quiet, name = "quiet");
/// ```
#[macro_export]
macro_rules! export_monitor {
    ($monitor:ty $(,)?) => {
        $crate::export_monitor!(@ $monitor, ::core::env!("CARGO_PKG_NAME"));
    };
    ($monitor:ty, name = $name:literal $(,)?) => {
        $crate::export_monitor!(@ $monitor, $name);
    };
    (@ $monitor:ty, $name:expr) => {
        const _: () = {
            #[unsafe(no_mangle)]
            #[allow(non_upper_case_globals)]
            static immortal_monitor_v1: $crate::abi::MonitorTable = $crate::export::table::<$monitor>(
                ::core::concat!($name, "\0"),
                ::core::concat!(::core::env!("CARGO_PKG_VERSION"), "\0"),
                ::core::concat!(::core::env!("CARGO_PKG_DESCRIPTION"), "\0"),
            );

            struct Exported;

            impl $crate::export::Exported for Exported {
                fn table() -> &'static $crate::abi::MonitorTable {
                    &immortal_monitor_v1
                }
            }

            #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
            static HEADER: $crate::export::LibHeader = $crate::export::header::<Exported>();
        };
    };
}
