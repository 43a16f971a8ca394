//! A Rust monitor whose types differ from ours is refused although magic number, version and sizes are the same;
//! one that is merely older or newer is not.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may, and its helpers are no tests to clippy"
)]

mod support;

use std::path::{Path, PathBuf};

use immortal::loader::{CheckError, Description, Door, describe};
use support::{EXECUTABLE, build_package, line, package_folder, write};

/// A change to the text of a fixture.
type Edit = (&'static str, &'static str);

/// Builds a monitor from a copy of our own `abi.rs` with these changes, as package `immortal-monitor-api` of
/// this version. The versions differ from test to test: to cargo two folders with one version are one package,
/// and it would take the one's library for the other's.
fn build(name: &str, version: &str, abi_edits: &[Edit], lib_edits: &[Edit], flags: &str) -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = package_folder(name);
    let edited = |from: PathBuf, edits: &[Edit]| {
        edits.iter().fold(std::fs::read_to_string(&from).unwrap(), |text, (old, new)| {
            assert!(text.contains(old), "{} has no `{old}`", from.display());
            text.replace(old, new)
        })
    };
    write(&folder.join("src/abi.rs"), &edited(repository.join("monitor-api/src/abi.rs"), abi_edits));
    write(&folder.join("src/lib.rs"), &edited(repository.join("host/tests/support/layout.rs"), lib_edits));
    let manifest = format!(
        "[workspace]\n[package]\nname = \"immortal-monitor-api\"\nversion = \"{version}\"\nedition = \"2024\"\n\
         [lib]\ncrate-type = [\"cdylib\"]\n\
         [dependencies]\nabi_stable = {{ version = \"0.11.3\", default-features = false }}\n"
    );
    write(&folder.join("Cargo.toml"), &manifest);
    // All of them have one file name in the target folder, where cargo leaves another one's library if this one is
    // fresh: so it never is.
    let source = std::fs::File::options().append(true).open(folder.join("src/lib.rs")).unwrap();
    source.set_modified(std::time::SystemTime::now()).unwrap();
    build_package(&folder, "immortal_monitor_api", flags)
}

fn judge(library: &Path) -> Result<Description, CheckError> {
    describe(Path::new(EXECUTABLE), "m", library).map(|(description, _)| description)
}

fn refusal(library: &Path) -> String {
    let error = judge(library).unwrap_err();
    assert_eq!(error.hint().as_deref(), Some("rebuild it with immortal-monitor-api 1.x"), "{error:?}");
    let line = line(&error);
    let (_, why) = line.split_once("cannot be loaded: it was built with ").unwrap_or_else(|| {
        panic!("{line}");
    });
    assert!(why.len() < 500, "a line that nobody reads: {why}");
    why.to_owned()
}

#[test]
fn same_layout_is_verified() {
    let description = judge(&build("same", "1.0.0", &[], &[], "")).unwrap();
    assert_eq!((description.door, description.api_version.as_deref()), (Door::RustVerified, Some("1.0.0")));
}

#[test]
fn two_fields_of_one_size_swapped_are_refused() {
    let edits = [
        ("pub code: i32", "pub x: i32"),
        ("pub signal: i32", "pub code: i32"),
        ("pub x: i32", "pub signal: i32"),
    ];
    let why = refusal(&build("swapped", "1.0.1", &edits, &[], ""));
    assert!(
        why.starts_with("another layout: table > event > param_1: field signal instead of code; "),
        "{why}"
    );
}

#[test]
fn changed_argument_of_one_function_is_refused() {
    let edits = [(
        "fn(ctx: *mut c_void, stream: u32, offset: u64)",
        "fn(ctx: *mut c_void, stream: u64, offset: u64)",
    )];
    let why = refusal(&build("argument", "1.0.2", &edits, &[], ""));
    assert!(why.ends_with("> durable > param_1: type u64 instead of u32"), "{why}");
}

#[test]
fn other_major_version_is_refused_by_its_number_alone() {
    let why = refusal(&build("major", "2.0.0", &[], &[], ""));
    assert_eq!(why, "immortal-monitor-api 2.0.0, this immortal speaks 1.0.0");
}

#[test]
fn newer_minor_version_with_more_to_tell_is_accepted() {
    let abi = [(
        "pub api_version: abi_stable::std_types::RStr<'static>,",
        "pub api_version: abi_stable::std_types::RStr<'static>,\n    /// More.\n    pub more: Option<extern \"C\" fn()>,",
    )];
    let library = build("newer", "1.1.0", &abi, &[("/* more fields */", "more: None,")], "");
    assert_eq!(judge(&library).unwrap().api_version.as_deref(), Some("1.1.0"));
}

#[test]
fn root_that_leads_to_another_table_is_refused() {
    let why = refusal(&build("another", "1.0.3", &[], &[], "--cfg another_table"));
    assert_eq!(why, "another layout: its root module leads to another table than `immortal_monitor_v1`");
}

#[test]
fn abi_stable_that_cannot_be_compared_is_let_pass_as_not_verified() {
    let library = build("unknown", "1.0.4", &[], &[], "");
    // The header begins with a magic string and two numbers; the minor one is that of abi_stable's version.
    let mut bytes = std::fs::read(&library).unwrap();
    let magic = b"abi stable library for Rust     ";
    let places: Vec<usize> =
        bytes.windows(32).enumerate().filter(|(_, window)| window == magic).map(|(at, _)| at).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at + 36..at + 40].copy_from_slice(&99_u32.to_le_bytes());
    }
    let changed = library.with_file_name("changed.so");
    std::fs::write(&changed, bytes).unwrap();
    assert_eq!(judge(&changed).unwrap().door, Door::RustUnverified);
}
