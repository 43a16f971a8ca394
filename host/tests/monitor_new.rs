//! `immortal monitor new` makes projects that build, pass their own tests and the conformance run, and work.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may, and its helpers are no tests to clippy"
)]

mod support;

use serde_json::Value;
use std::path::Path;
use std::process::Command;
use support::command::{immortal, said};
use support::{Sandbox, package_folder};

/// The library may be so large, stripped.
const LARGEST_BYTES: u64 = 450 * 1000;

/// Runs a tool in a folder; it has to succeed.
fn tool(folder: &Path, program: &str, arguments: &[&str]) {
    let mut command = Command::new(program);
    // What projects depend on is compiled once; each project has a name of its own.
    command.args(arguments).current_dir(folder).env("CARGO_TARGET_DIR", package_folder("target"));
    let said = said(&command.env_remove("RUSTFLAGS").output().unwrap());
    assert_eq!(said.status, Some(0), "{program} {arguments:?}: {}{}", said.stdout, said.stderr);
}

/// The conformance run without any option finds nothing at all, and the group runs.
fn passes(folder: &Path, library: &str) {
    let said = immortal(folder, &["monitor", "check", library, "--json"]);
    let value: Value = serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{}", said.stderr));
    assert_eq!((said.status, &value["failed"], &value["warned"]), (Some(0), &0.into(), &0.into()), "{value}");
    let said =
        immortal(folder, &["start", "-s", "development", "--no-auto", "-m", library, "/bin/echo", "hi"]);
    assert_eq!((said.status, said.stdout.as_str()), (Some(0), "hi\n"), "{}", said.stderr);
}

#[test]
fn rust_project_builds_passes_and_is_small() {
    let sandbox = Sandbox::new();
    let said = immortal(&sandbox.path(""), &["monitor", "new", "hello-there"]);
    assert_eq!((said.status, said.stderr.as_str()), (Some(0), ""));
    assert!(said.stdout.starts_with("created hello-there\n"), "{}", said.stdout);
    assert!(
        said.stdout.contains("not published yet: Cargo.toml refers to its source in /"),
        "{}",
        said.stdout
    );
    let project = sandbox.path("hello-there");
    for file in ["README.md", ".gitignore", "Cargo.toml", "src/lib.rs"] {
        assert!(project.join(file).is_file(), "{file}");
    }
    // The versions that are on this machine, so that it works without a network.
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::copy(repository.join("Cargo.lock"), project.join("Cargo.lock")).unwrap();
    tool(&project, env!("CARGO"), &["test", "--offline", "--quiet"]);
    tool(&project, env!("CARGO"), &["build", "--release", "--offline", "--quiet"]);
    let file = format!("libimmortal_monitor_hello_there{}", std::env::consts::DLL_SUFFIX);
    let built = package_folder("target").join("release").join(&file);
    let size = built.metadata().unwrap().len();
    assert!(size < LARGEST_BYTES, "{size} bytes");
    std::fs::copy(built, project.join(&file)).unwrap();
    passes(&project, &format!("./{file}"));
}

#[test]
fn c_project_builds_with_make_and_passes() {
    let sandbox = Sandbox::new();
    let has = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if !has("make") || !has("cc") {
        return println!("skipped: no make, or no C compiler");
    }
    let said = immortal(&sandbox.path(""), &["monitor", "new", "tick", "--lang", "c", "elsewhere/tick"]);
    assert_eq!((said.status, said.stderr.as_str()), (Some(0), ""));
    let project = sandbox.path("elsewhere/tick");
    tool(&project, "make", &["CFLAGS=-std=c99 -Wall -Wextra -Wpedantic -Werror"]);
    tool(&project, "make", &["test"]);
    let file = format!("libimmortal_monitor_tick{}", std::env::consts::DLL_SUFFIX);
    let libraries = project.read_dir().unwrap().flatten();
    let libraries: Vec<_> = libraries.map(|entry| entry.file_name()).filter(|name| *name == *file).collect();
    assert_eq!(libraries.len(), 1, "one library in the root");
    passes(&project, &format!("./{file}"));
    let header = std::fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../monitor-api/include/immortal_monitor.h"),
    );
    assert_eq!(std::fs::read(project.join("immortal_monitor.h")).unwrap(), header.unwrap());
}

#[test]
fn nothing_is_overwritten_and_bad_names_are_usage_errors() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("full")).unwrap();
    std::fs::write(sandbox.path("full/file"), "mine").unwrap();
    let said = immortal(&sandbox.path(""), &["monitor", "new", "full"]);
    assert_eq!(said.status, Some(1));
    assert_eq!(said.stderr, "error: unable to write full: the directory is not empty\n");
    assert_eq!(immortal(&sandbox.path(""), &["monitor", "new", "Bad.Name"]).status, Some(2));
    let said = immortal(&sandbox.path(""), &["monitor", "new", "x", "--api", "full"]);
    assert_eq!(said.status, Some(1));
    assert!(
        said.stderr.starts_with("error: full is not the source of immortal-monitor-api\nhint: "),
        "{}",
        said.stderr
    );
    assert!(!sandbox.path("x").exists(), "nothing is made before it is known to work");
}
