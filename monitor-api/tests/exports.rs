//! What a library with `export_monitor!` exports, seen as a host sees it.
#![expect(unsafe_code, reason = "a host reads foreign tables")]

use immortal_monitor_api::abi::{self, MonitorRoot, MonitorTable, OptionTable};
use immortal_monitor_api::*;
use std::ffi::{CStr, c_char};

struct Quiet;

impl Monitor for Quiet {
    const OPTIONS: &'static [OptionSpec] = &[
        OptionSpec::path("output", "where to").required(),
        OptionSpec::one_of("color", "which", &["red", "green"]).default("red").nullable(),
        OptionSpec::string("token", "a secret").secret(),
    ];
    fn new(_: Host, _: &Options) -> Result<Self> {
        Ok(Self)
    }
}

export_monitor!(Quiet);

unsafe extern "C" {
    static immortal_monitor_v1: MonitorTable;
    #[link_name = "_1as_0lib_1header_0root_bmodule_bloader"]
    #[expect(improper_ctypes, reason = "abi_stable's own header holds a marker without a size")]
    static HEADER: export::LibHeader;
}

fn table() -> &'static MonitorTable {
    // SAFETY: `export_monitor!` above defines it.
    unsafe { &immortal_monitor_v1 }
}

fn text(text: *const c_char) -> &'static str {
    assert!(!text.is_null(), "a text is missing");
    // SAFETY: not null, and the texts of a table are NUL-terminated and static.
    unsafe { CStr::from_ptr(text) }.to_str().expect("UTF-8")
}

#[test]
fn the_table_names_itself() {
    let table = table();
    assert_eq!((table.magic, table.abi), (abi::MAGIC, abi::ABI));
    assert_eq!(table.size as usize, size_of::<MonitorTable>());
    assert_eq!(text(table.name), "api", "the package's name less immortal-monitor-");
    assert_eq!(text(table.version), env!("CARGO_PKG_VERSION"));
    assert_eq!(text(table.about), env!("CARGO_PKG_DESCRIPTION"));
    assert_eq!(table.reserved_numbers, [0; 4]);
}

#[test]
fn abi_stable_finds_the_same_table() {
    // SAFETY: `export_monitor!` above defines it.
    let header = unsafe { &HEADER };
    let layout = header.layout().expect("with its layout");
    let ours = <MonitorRoot as abi_stable::StableAbi>::LAYOUT;
    let globals = abi_stable::abi_stability::abi_checking::CheckingGlobals::new();
    abi_stable::abi_stability::abi_checking::check_layout_compatibility_with_globals(ours, layout, &globals)
        .expect("the layout is ours");
    let root = header.init_root_module::<MonitorRoot>().expect("a root module");
    assert!(std::ptr::eq(root.table(), table()));
    assert_eq!(root.api_version().as_str(), "1.0.0");
}

#[test]
fn the_options_are_declared_by_the_extension() {
    let get = table().get_extension.expect("an extension");
    assert!(get(c"no.such.thing/1".as_ptr()).is_null());
    assert!(get(std::ptr::null()).is_null());
    let options = get(abi::EXTENSION_OPTIONS.as_ptr()).cast::<OptionTable>();
    assert_eq!(options, get(abi::EXTENSION_OPTIONS.as_ptr()).cast(), "the same at every call");
    // SAFETY: the extension of this name is an `OptionTable` that lives as long as the library.
    let options = unsafe { options.as_ref() }.expect("not null");
    // SAFETY: a table points at that many declarations.
    let options = unsafe { std::slice::from_raw_parts(options.options, options.count) };

    let names: Vec<_> = options.iter().map(|option| (text(option.name), text(option.help))).collect();
    assert_eq!(names, [("output", "where to"), ("color", "which"), ("token", "a secret")]);
    let kinds: Vec<_> = options.iter().map(|option| (option.kind, option.flags)).collect();
    let expected = [
        (abi::OPTION_PATH, abi::OPTION_REQUIRED),
        (abi::OPTION_CHOICE, abi::OPTION_NULLABLE),
        (abi::OPTION_STRING, abi::OPTION_SECRET),
    ];
    assert_eq!(kinds, expected);
    assert!(options[0].default_value.is_null() && options[0].choices.is_null());
    assert_eq!(text(options[1].default_value), "red");
    // SAFETY: a declaration points at that many choices.
    let choices = unsafe { std::slice::from_raw_parts(options[1].choices, options[1].choice_count) };
    assert_eq!(choices.iter().map(|choice| text(*choice)).collect::<Vec<_>>(), ["red", "green"]);
}

#[test]
fn a_host_of_another_abi_is_refused_without_a_call() {
    assert_eq!(table().check.expect("check")(std::ptr::null(), std::ptr::null(), 0), abi::FAILED);
    assert!(table().create.expect("create")(std::ptr::null(), std::ptr::null(), 0).is_null());
}
