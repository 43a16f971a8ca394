//! A Rust monitor that was built against another layout of the boundary: two members of the same size changed
//! places, which neither a magic number nor a size gives away.

use crate::artifacts::{build, library_file, profile_folder, workspace};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

const MONITOR: &str = "\
//! Built against a changed copy of the boundary.
use immortal_monitor_api::*;
struct Swapped;
impl Monitor for Swapped {
    fn new(_: Host, _: &Options) -> Result<Self> { Ok(Self) }
}
export_monitor!(Swapped);
";

const MANIFEST: &str = "\
[package]
name = \"swapped\"
version = \"0.0.0\"
edition = \"2024\"
[lib]
name = \"immortal_monitor_swapped\"
path = \"lib.rs\"
crate-type = [\"cdylib\"]
[dependencies]
immortal-monitor-api.workspace = true
";

/// Builds the library, once for all test processes, and returns its path.
///
/// # Panics
/// If it cannot be built.
#[must_use]
pub fn other_layout() -> PathBuf {
    let profile = profile_folder();
    let folder = profile.join("immortal-tests-other-layout");
    fs::create_dir_all(folder.join("swapped")).expect("a folder in the target folder");
    let lock = File::create(folder.join("lock")).expect("a file in it");
    lock.lock().expect("a lock on it");

    copy(&workspace().join("monitor-api"), &folder.join("monitor-api"));

    let manifest = fs::read_to_string(workspace().join("Cargo.toml")).expect("the workspace has one");
    let lists = |line: &&str| !line.starts_with("members") && !line.starts_with("default-members");
    let kept: Vec<&str> = manifest.lines().filter(lists).collect();
    let changed =
        kept.join("\n").replace("[workspace]", "[workspace]\nmembers = [\"monitor-api\", \"swapped\"]");
    write(&folder.join("Cargo.toml"), &changed);
    // Not written again: cargo removes from it what is not needed here.
    if !folder.join("Cargo.lock").exists() {
        fs::copy(workspace().join("Cargo.lock"), folder.join("Cargo.lock")).expect("the lock file");
    }
    write(&folder.join("swapped/lib.rs"), MONITOR);
    write(&folder.join("swapped/Cargo.toml"), MANIFEST);
    build(&profile, &folder, &["build".into(), "-p".into(), "swapped".into()]);
    profile.join(library_file("swapped"))
}

/// Copies a folder with the two members swapped.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder to copy").map(|entry| entry.expect("an entry")) {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target);
            continue;
        }
        let text = fs::read_to_string(&source).expect("a text file");
        let text = match source.file_name().and_then(|name| name.to_str()) {
            Some("abi.rs") => swapped(&text),
            // Another version: cargo would take one for the other, in the target folder that they share.
            Some("Cargo.toml") => text.replacen("version = \"1.0.0\"", "version = \"1.0.99\"", 1),
            Some(_) | None => text,
        };
        write(&target, &text);
    }
}

fn swapped(text: &str) -> String {
    let (code, signal) = ("    pub code: i32,", "    pub signal: i32,");
    assert!(text.contains(code) && text.contains(signal), "the members to swap are there");
    text.replace(code, "@").replace(signal, code).replace('@', signal)
}

/// Writes only what is different, so that cargo does not build it again.
fn write(path: &Path, text: &str) {
    if fs::read_to_string(path).ok().as_deref() != Some(text) {
        fs::write(path, text).expect("a file in the target folder");
    }
}
