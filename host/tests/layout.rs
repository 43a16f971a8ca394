//! A Rust monitor whose types differ from ours is refused although magic number, version and sizes are the same;
//! one that is merely older or newer is not.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use immortal::loader::{CheckError, Description, Door, describe};
use support::{EXECUTABLE, line};

/// A change to the text of a fixture.
type Edit = (&'static str, &'static str);

/// Builds a monitor from a copy of our own `abi.rs` with these changes, as package `immortal-monitor-api` of
/// this version, and without the network. Built one after the other in one folder, so that what they depend on
/// is compiled once.
fn build(name: &str, version: &str, abi_edits: &[Edit], lib_edits: &[Edit], flags: &str) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("layout").join(name);
    std::fs::create_dir_all(folder.join("src")).unwrap();
    let edited = |from: PathBuf, edits: &[Edit]| {
        edits.iter().fold(std::fs::read_to_string(&from).unwrap(), |text, (old, new)| {
            assert!(text.contains(old), "{} has no `{old}`", from.display());
            text.replace(old, new)
        })
    };
    let write = |file: &str, text: String| {
        let file = folder.join(file);
        if std::fs::read_to_string(&file).ok().as_deref() != Some(&text) {
            std::fs::write(file, text).unwrap();
        }
    };
    write("src/abi.rs", edited(repository.join("monitor-api/src/abi.rs"), abi_edits));
    write("src/lib.rs", edited(repository.join("host/tests/support/layout.rs"), lib_edits));
    write(
        "Cargo.toml",
        format!(
            "[workspace]\n[package]\nname = \"immortal-monitor-api\"\nversion = \"{version}\"\nedition = \"2024\"\n\
             [lib]\ncrate-type = [\"cdylib\"]\n\
             [dependencies]\nabi_stable = {{ version = \"0.11.3\", default-features = false }}\n"
        ),
    );
    std::fs::copy(repository.join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("layout/target");
    let output = Command::new(env!("CARGO"))
        .args(["rustc", "--offline", "--quiet", "--lib", "--target-dir"])
        .arg(&target)
        .args(["--", "--cap-lints", "allow"])
        .args(flags.split_whitespace())
        .current_dir(&folder)
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let suffix = if cfg!(target_os = "macos") { "dylib" } else { "so" };
    let library = folder.join(format!("{name}.{suffix}"));
    std::fs::copy(target.join(format!("debug/libimmortal_monitor_api.{suffix}")), &library).unwrap();
    library
}

fn judge(library: &Path) -> Result<Description, CheckError> {
    describe(Path::new(EXECUTABLE), "m", library).map(|(description, _)| description)
}

fn refusal(library: &Path) -> String {
    let error = judge(library).unwrap_err();
    assert_eq!(error.hint().as_deref(), Some("rebuild it with immortal-monitor-api 1.x"), "{error:?}");
    let line = line(&error);
    let (_, why) =
        line.split_once("cannot be loaded: it was built with another layout: ").unwrap_or_else(|| {
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
    let why = refusal(&build("swapped", "1.0.0", &edits, &[], ""));
    assert!(why.contains("signal") && why.contains("code") && why.contains("event"), "{why}");
}

#[test]
fn changed_argument_of_one_function_is_refused() {
    let edits = [(
        "fn(ctx: *mut c_void, stream: u32, offset: u64)",
        "fn(ctx: *mut c_void, stream: u64, offset: u64)",
    )];
    let why = refusal(&build("argument", "1.0.0", &edits, &[], ""));
    assert!(why.contains("durable") && why.contains("u64") && why.contains("u32"), "{why}");
}

#[test]
fn other_major_version_is_refused_by_its_number_alone() {
    let why = refusal(&build("major", "2.0.0", &[], &[], ""));
    assert_eq!(why, "it was built with immortal-monitor-api 2.0.0, this immortal speaks 1.0.0");
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
    let why = refusal(&build("another", "1.0.0", &[], &[], "--cfg another_table"));
    assert_eq!(why, "its root module leads to another table than `immortal_monitor_v1`");
}

#[test]
fn abi_stable_that_cannot_be_compared_is_let_pass_as_not_verified() {
    let library = build("unknown", "1.0.0", &[], &[], "");
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
