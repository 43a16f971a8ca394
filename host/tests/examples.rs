//! The example monitors build, pass their own tests and the conformance run, and do their work in a group.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may, and its helpers are no tests to clippy"
)]

mod support;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::command::{Said, immortal, said};
use support::{Sandbox, package_folder, write};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Copies an example as an author would, builds and tests it; its library.
fn rust(name: &str) -> PathBuf {
    let (from, folder) = (repository().join("examples/monitors").join(name), package_folder(name));
    let manifest = std::fs::read_to_string(from.join("Cargo.toml")).unwrap();
    let api = repository().join("monitor-api").display().to_string();
    write(&folder.join("Cargo.toml"), &manifest.replace("\"../../../monitor-api\"", &format!("{api:?}")));
    write(&folder.join("src/lib.rs"), &std::fs::read_to_string(from.join("src/lib.rs")).unwrap());
    std::fs::copy(repository().join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    for arguments in [&["test", "--offline", "--quiet"][..], &["build", "--offline", "--quiet"]] {
        let mut command = Command::new(env!("CARGO"));
        command.args(arguments).current_dir(&folder).env_remove("RUSTFLAGS");
        let said = said(&command.env("CARGO_TARGET_DIR", package_folder("target")).output().unwrap());
        assert_eq!(said.status, Some(0), "{name} {arguments:?}: {}{}", said.stdout, said.stderr);
    }
    let file = format!("libimmortal_monitor_{}{}", name.replace('-', "_"), std::env::consts::DLL_SUFFIX);
    package_folder("target").join("debug").join(file)
}

/// Copies an example with a Makefile, puts the header beside it, and makes it; `None` without the compiler.
fn made(sandbox: &Sandbox, name: &str, library: &str, compiler: &[&str]) -> Option<PathBuf> {
    let has = |program: &str, argument: &str| Command::new(program).arg(argument).output().is_ok();
    if !has("make", "--version") || !has(compiler[0], compiler[1]) {
        println!("skipped: no make, or no {}", compiler[0]);
        return None;
    }
    for entry in repository().join("examples/monitors").join(name).read_dir().unwrap().flatten() {
        std::fs::copy(entry.path(), sandbox.path("").join(entry.file_name())).unwrap();
    }
    let header = repository().join("monitor-api/include/immortal_monitor.h");
    std::fs::copy(header, sandbox.path("immortal_monitor.h")).unwrap();
    let mut make = Command::new("make");
    make.current_dir(sandbox.path("")).env("GOCACHE", package_folder("go")).env("GOFLAGS", "-buildvcs=false");
    let said = said(&make.output().unwrap());
    assert_eq!(said.status, Some(0), "{}{}", said.stdout, said.stderr);
    Some(sandbox.path(&format!("libimmortal_monitor_{library}{}", std::env::consts::DLL_SUFFIX)))
}

/// The conformance run fails nowhere; names of the tests that warn.
fn check(library: &Path, options: &[&str]) -> Vec<String> {
    let library = library.display().to_string();
    let said = immortal(Path::new("/"), &[&["monitor", "check", &library, "--json"], options].concat());
    let value: Value = serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{}", said.stderr));
    assert_eq!((said.status, &value["failed"]), (Some(0), &0.into()), "{value}");
    let warned = value["tests"].as_array().unwrap().iter().filter(|row| row["status"] == "warn");
    warned.map(|row| row["name"].as_str().unwrap().to_owned()).collect()
}

/// Runs a script in a group of strategy development.
fn run(library: &Path, more: &[&str], script: &str) -> Said {
    let sandbox = Sandbox::new();
    let library = library.display().to_string();
    let start = ["start", "-s", "development", "--restart", "on-failure", "--stable", "0ms", "-m", &library];
    immortal(&sandbox.path(""), &[&start, more, &["--", "/bin/sh", "-c", script]].concat())
}

#[test]
fn restart_on_pattern_restarts_the_program() {
    let library = rust("restart-on-pattern");
    assert_eq!(check(&library, &[]), Vec::<String>::new());
    assert_eq!(check(&library, &["-o", "pattern=panic", "chunking", "random"]), Vec::<String>::new());
    let script = "if [ -e mark ]; then echo well; exit 0; fi; touch mark; echo I am stuck; exec sleep 60";
    let said = run(&library, &["-o", "pattern=stuck"], script);
    assert_eq!((said.status, said.stdout.as_str()), (Some(0), "I am stuck\nwell\n"), "{}", said.stderr);
}

#[test]
fn warm_up_is_ready_later_and_the_program_waits_for_it() {
    let library = rust("warm-up");
    assert_eq!(check(&library, &[]), Vec::<String>::new());
    let begun = std::time::Instant::now();
    let said = run(&library, &["-o", "delay=300ms"], "echo hi");
    assert_eq!((said.status, said.stdout.as_str()), (Some(0), "hi\n"), "{}", said.stderr);
    assert!(begun.elapsed().as_millis() >= 300);
    let said = run(&library, &["-o", "delay=1m", "--setup-timeout", "200ms"], "echo hi");
    assert_eq!((said.status, said.stdout.as_str()), (Some(125), ""), "{}", said.stderr);
}

#[test]
fn echo_in_c_echoes_lines_to_the_log() {
    let sandbox = Sandbox::new();
    let Some(library) = made(&sandbox, "echo-c", "echo", &["cc", "--version"]) else { return };
    assert_eq!(check(&library, &[]), Vec::<String>::new());
    let said = run(&library, &["-v"], "echo one; printf 'no end' >&2");
    assert_eq!((said.status, said.stdout.as_str()), (Some(0), "one\n"), "{}", said.stderr);
    let logged = |text: &str| said.stderr.lines().any(|line| line.contains("echo") && line.ends_with(text));
    assert!(logged(": one") && logged(": no end"), "{}", said.stderr);
    let said = run(&library, &["-o", "stream=stdout"], "echo one");
    assert_eq!(said.status, Some(125));
    assert_eq!(
        said.stderr.lines().next().unwrap(),
        "error: monitor echo: option stream: neither both nor stderr"
    );
}

#[test]
fn longest_in_cpp_keeps_its_exceptions_to_itself() {
    let sandbox = Sandbox::new();
    let Some(library) = made(&sandbox, "longest-cpp", "longest", &["c++", "--version"]) else { return };
    assert_eq!(check(&library, &[]), Vec::<String>::new());
    let said = run(&library, &["-o", "max=10"], "echo one; echo the longest line");
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    let said = run(&library, &["-o", "max=many"], "echo one");
    assert_eq!(said.status, Some(125));
    assert_eq!(
        said.stderr.lines().next().unwrap(),
        "error: monitor longest: option max: not a number of bytes"
    );
}

#[test]
fn tally_in_go_works_though_its_runtime_stays() {
    let sandbox = Sandbox::new();
    let Some(library) = made(&sandbox, "tally-go", "tally", &["go", "version"]) else { return };
    // Go's runtime starts threads and handles its own faults while the library is loaded.
    assert_eq!(check(&library, &[]), ["threads-ended", "signals-untouched"]);
    // Its threads take SIGCHLD away from the pump, which notices the program's end all the same.
    #[cfg(target_os = "linux")]
    for _ in 0..10 {
        let said = run(&library, &[], "echo one");
        assert_eq!((said.status, said.stdout.as_str()), (Some(0), "one\n"), "{}", said.stderr);
    }
}
