//! The least that a Rust monitor is made of: the table, and abi_stable's way to it.
//! Built beside an `abi.rs` that a test may have changed.

#[path = "abi.rs"]
pub mod abi;

use abi::{MonitorRoot, MonitorRootFields, MonitorTable};
use abi_stable::library::{CheckTypeLayout, LibHeader, RootModule, RootModuleResult};
use abi_stable::prefix_type::{PrefixRefTrait, PrefixTypeTrait};
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::{RResult, RStr};

impl RootModule for MonitorRoot {
    abi_stable::declare_root_module_statics! {MonitorRoot}
    const BASE_NAME: &'static str = "immortal_monitor";
    const NAME: &'static str = "immortal_monitor";
    const VERSION_STRINGS: VersionStrings = abi_stable::package_version_strings!();
}

const fn zeroed() -> MonitorTable {
    // SAFETY: null functions, null pointers and numbers are all zeroes.
    unsafe { core::mem::zeroed() }
}

extern "C" fn destroy(_: *mut core::ffi::c_void) {}

#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static immortal_monitor_v1: MonitorTable = MonitorTable {
    magic: abi::MAGIC,
    abi: abi::ABI,
    size: size_of::<MonitorTable>() as u32,
    name: c"layout".as_ptr(),
    // SAFETY: it is never called, only its address counts.
    create: Some(unsafe { core::mem::transmute::<extern "C" fn(*mut core::ffi::c_void), _>(destroy) }),
    destroy: Some(destroy),
    ..zeroed()
};

static ANOTHER: MonitorTable = MonitorTable { size: 1, ..zeroed() };

extern "C" fn root() -> RootModuleResult {
    let fields = MonitorRootFields {
        table: if cfg!(another_table) { &ANOTHER } else { &immortal_monitor_v1 },
        host: core::ptr::null(),
        options: core::ptr::null(),
        api_version: RStr::from_str(env!("CARGO_PKG_VERSION")),
        /* more fields */
    };
    // SAFETY: `header` says that this is a `MonitorRoot`.
    RResult::ROk(unsafe { fields.leak_into_prefix().to_prefix_ref().cast() })
}

#[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
// SAFETY: `root` returns a `MonitorRoot`.
pub static HEADER: LibHeader = unsafe { LibHeader::from_constructor::<MonitorRoot>(root, CheckTypeLayout::Yes) };
