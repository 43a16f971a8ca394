//! Monitors kept as source of version 1.0 go on working, in this host and in one that has grown; and a monitor
//! that has grown works in this host. `support/frozen` is never changed.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may, and its helpers are no tests to clippy"
)]
#![expect(unsafe_code, reason = "looks at the layouts of two libraries as a host of another version would")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use abi_stable::abi_stability::abi_checking::{CheckingGlobals, check_layout_compatibility_with_globals};
use abi_stable::library::{AbiHeaderRef, LibHeader};
use abi_stable::type_layout::TypeLayout;
use immortal::loader::{Door, describe};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use support::command::immortal;
use support::{EXECUTABLE, Sandbox, build_package, package_folder, write};

/// What 1.1 would add to the root module of a Rust monitor: an extension that 1.0 does not know.
const GROWTH: (&str, &str) = (
    "pub api_version: abi_stable::std_types::RStr<'static>,",
    "pub api_version: abi_stable::std_types::RStr<'static>,\n    /// More.\n    pub more: Option<extern \"C\" fn()>,",
);

fn support_file(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support").join(file)
}

/// Builds a monitor with the boundary of 1.0, which may have grown.
fn build(name: &str, version: &str, has_grown: bool) -> PathBuf {
    let folder = package_folder(name);
    let mut abi = std::fs::read_to_string(support_file("frozen/abi_1_0.rs.txt")).unwrap();
    let mut lib = std::fs::read_to_string(support_file("layout.rs")).unwrap();
    if has_grown {
        assert!(abi.contains(GROWTH.0));
        abi = abi.replace(GROWTH.0, GROWTH.1);
        lib = lib.replace("/* more fields */", "more: None,");
    }
    write(&folder.join("src/abi.rs"), &abi);
    write(&folder.join("src/lib.rs"), &lib);
    let manifest = format!(
        "[workspace]\n[package]\nname = \"immortal-monitor-api\"\nversion = \"{version}\"\nedition = \"2024\"\n\
         [lib]\ncrate-type = [\"cdylib\"]\n\
         [dependencies]\nabi_stable = {{ version = \"0.11.3\", default-features = false }}\n"
    );
    write(&folder.join("Cargo.toml"), &manifest);
    build_package(&folder, "immortal_monitor_api", "")
}

/// The layout of a library's root module. The library stays open.
fn layout(library: &Path) -> &'static TypeLayout {
    // SAFETY: the fixture's constructors do nothing.
    let opened = unsafe { Library::open(Some(library), RTLD_NOW | RTLD_LOCAL) }.unwrap();
    let opened = std::mem::ManuallyDrop::new(opened);
    // SAFETY: `AbiHeaderRef` is a pointer, and the symbol's address is what it points at.
    let header = unsafe { opened.get::<AbiHeaderRef>(b"_1as_0lib_1header_0root_bmodule_bloader\0") }.unwrap();
    let header: &'static LibHeader = (*header).upgrade().unwrap();
    header.layout().unwrap()
}

fn fits(interface: &'static TypeLayout, implementation: &'static TypeLayout) -> bool {
    check_layout_compatibility_with_globals(interface, implementation, &CheckingGlobals::new()).is_ok()
}

#[test]
fn rust_monitor_of_1_0_is_verified_by_this_host_and_by_one_that_has_grown() {
    let old = build("frozen", "1.0.8", false);
    let grown = build("grown", "1.1.8", true);
    for (library, version) in [(&old, "1.0.8"), (&grown, "1.1.8")] {
        let (description, _) = describe(Path::new(EXECUTABLE), "m", library).unwrap();
        assert_eq!(
            (description.door, description.api_version.as_deref()),
            (Door::RustVerified, Some(version))
        );
    }
    // A host takes a monitor whose layout fits in either direction. The grown one's own stands for a grown host's.
    let (old, grown) = (layout(&old), layout(&grown));
    assert!(fits(old, grown), "a grown monitor in a host of 1.0");
    assert!(!fits(grown, old), "what the second direction is for");
    assert!(fits(grown, old) || fits(old, grown), "a monitor of 1.0 in a grown host");
}

#[test]
fn c_monitor_with_the_header_of_1_0_passes_the_conformance_run() {
    let sandbox = Sandbox::new();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-std=gnu11", "-w", "-pthread", "-o", "old.so", "-I"]);
    compiler.arg(support_file("frozen")).arg(support_file("faulty.c"));
    let Ok(output) = compiler.current_dir(sandbox.path("")).output() else {
        return println!("skipped: no cc");
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The test newer-host hands it longer structures and kinds that did not exist.
    let said = immortal(&sandbox.path(""), &["monitor", "check", "./old.so"]);
    assert_eq!(said.status, Some(0), "{}{}", said.stdout, said.stderr);
}
