//! `immortal monitor check` finds what is wrong with a monitor, names it, and finds nothing wrong with a good one.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may, and its helpers are no tests to clippy"
)]

mod support;

use serde_json::Value;
use std::path::Path;
use support::command::{Said, immortal};
use support::{Sandbox, build_monitor};

/// Runs `monitor check` on a library of the directory.
fn check(directory: &Path, library: &str, more: &[&str]) -> (Said, Value) {
    let arguments = [&["monitor", "check", library, "--json", "--seed", "7"], more].concat();
    let said = immortal(directory, &arguments);
    assert_eq!(said.stderr, "", "{}", said.stdout);
    let value = serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {}", said.stdout));
    (said, value)
}

/// Status and reason of one test.
fn of<'a>(value: &'a Value, test: &str) -> (&'a str, &'a str) {
    let tests = value["tests"].as_array().unwrap();
    let row =
        tests.iter().find(|row| row["name"] == test).unwrap_or_else(|| panic!("no test {test}: {value}"));
    (row["status"].as_str().unwrap(), row["reason"].as_str().unwrap_or_default())
}

/// Definition of the fault, the test that finds it, its verdict, and what the reason says.
const FAULTS: &[(&str, &str, &str, &str)] = &[
    ("CTOR_CRASH", "loads", "fail", "it crashed with SIGSEGV while loading it"),
    ("NO_VERSION", "table", "fail", "it has no version"),
    ("RESERVED", "table", "fail", "reserved members are not zero"),
    (
        "DEFAULT=\"many\"",
        "options-declared",
        "fail",
        "option max: its default `many` is ill-typed: not an integer",
    ),
    ("TWICE", "options-declared", "fail", "option max is declared twice"),
    ("NO_CHOICES", "options-declared", "fail", "option mode is a choice without choices"),
    ("REFUSE_DEFAULT", "options-accepted", "fail", "it refuses its own default max=1000000000"),
    ("ACCEPT_ANYTHING", "options-ill-typed", "fail", "check accepts max=abc (integer)"),
    ("NEVER_READY", "ready", "fail", "it never became ready"),
    ("LATE_FINISH", "ready", "fail", "finish returned 0.2 s after its deadline"),
    ("CALL_EXIT", "life", "fail", "it called exit(0) in exit"),
    ("HANG_IN_EXIT", "life", "fail", "it hangs: no end within 3 s of exit"),
    ("EMPTY_IS_WRONG", "output-empty", "fail", "stdout failed: no bytes"),
    ("FIXED_BUFFER", "output-long-line", "fail", "a chunk too long for my buffer"),
    ("CRASH_ON_NUL", "output-nul", "fail", "it crashed with SIGSEGV in stdout"),
    ("SLOW_CHUNK", "output-many-chunks", "fail", "of 100000 small chunks"),
    ("CRASH_ON_SIGNAL", "exits", "fail", "it crashed with SIGABRT in exit"),
    ("ABORT_ON_MESSAGE", "pump-restart", "fail", "it crashed with SIGABRT in setup"),
    ("FAIL_ON_MESSAGE", "pump-restart", "fail", "setup failed: the message is too long"),
    ("ONE_INSTANCE", "two-instances", "fail", "create failed: there is one of me already"),
    ("NO_OTHER_EVENTS", "newer-host", "fail", "event failed: no such event"),
    ("CRASH_AFTER_DEATH", "every-order", "fail", "it crashed with SIGABRT in stderr"),
    ("CRASH_AFTER_DEATH", "random", "fail", "it crashed with SIGABRT in stderr (life "),
    ("COUNT_CHUNKS", "chunking", "fail", "when the same bytes come byte by byte"),
    ("OVERREAD", "within-bounds", "fail", "it reads past the end of what it was lent (SIGSEGV in stdout)"),
    ("KEEP_DATA", "data-not-kept", "fail", "it reads what it was lent for an earlier call (SIGSEGV in std"),
    ("LEAK_DESCRIPTOR", "descriptors-closed", "fail", "3 lives left 3 descriptors open"),
    ("THREAD_ALIVE", "threads-ended", "fail", "3 lives left 3 threads alive after destroy"),
    ("FORGET_DESTROY", "memory-freed", "fail", "bytes of each instance are never freed"),
    ("CHANGE_SIGTERM", "signals-untouched", "fail", "it changed the handling of SIGTERM in create"),
    (
        "CTOR_HANDLER=SIGHUP",
        "signals-untouched",
        "fail",
        "it changed the handling of SIGHUP while it was loaded",
    ),
    (
        "CTOR_HANDLER=SIGSEGV",
        "signals-untouched",
        "warn",
        "SIGSEGV while it was loaded; the pump puts that back",
    ),
    ("UNBLOCK_SIGNALS", "signals-untouched", "fail", "it blocks or unblocks SIGUSR1"),
    ("SLOW_EXIT", "time-per-call", "warn", "slow: longest call exit: "),
    ("WRITE_STDERR", "stderr-quiet", "warn", "\"the process has died; the process has died\""),
    ("WRITE_STDOUT", "stdout-untouched", "fail", "it wrote to stdout in the test stdout-untouched"),
];

#[test]
fn each_planted_fault_is_found_and_named() {
    let sandbox = Sandbox::new();
    let mut missed = Vec::new();
    for (number, (fault, test, status, reason)) in FAULTS.iter().enumerate() {
        let file = format!("fault{number}.so");
        let Some(_) = sandbox.compile_from("faulty.c", &file, &[fault]) else { return };
        let (said, value) = check(&sandbox.path(""), &format!("./{file}"), &[test, "--time-limit", "3s"]);
        let found = of(&value, test);
        let is_found = found.0 == *status && found.1.contains(reason);
        if !is_found || said.status != Some(i32::from(*status == "fail")) {
            missed.push(format!("{fault}: {found:?}, exit status {:?}", said.status));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn kept_options_are_found() {
    let sandbox = Sandbox::new();
    let Some(_) = sandbox.compile_from("faulty.c", "m.so", &["KEEP_OPTIONS"]) else { return };
    let (_, value) = check(&sandbox.path(""), "./m.so", &["-o", "max=5", "data-not-kept"]);
    let found = of(&value, "data-not-kept");
    assert_eq!(found, ("fail", "it reads what it was lent for an earlier call (SIGSEGV in setup)"));
}

#[test]
fn good_monitor_passes_every_test() {
    let sandbox = Sandbox::new();
    for definitions in [&[][..], &["READY_LATER"]] {
        let Some(_) = sandbox.compile_from("faulty.c", "m.so", definitions) else { return };
        let (said, value) = check(&sandbox.path(""), "./m.so", &[]);
        assert_eq!(said.status, Some(0), "{}", said.stdout);
        assert_eq!(
            (&value["failed"], &value["warned"], &value["skipped"]),
            (&0.into(), &0.into(), &0.into()),
            "{}",
            said.stdout
        );
        assert!(value["passed"].as_u64().unwrap() >= 30, "{}", said.stdout);
        assert_eq!(value["seed"], 7);
    }
}

#[test]
fn panic_on_invalid_utf8_is_found_in_a_rust_monitor() {
    build_monitor("faulty", "faulty.rs");
    let folder = support::package_folder("faulty");
    let (said, value) = check(&folder, "./built.so", &["output"]);
    assert_eq!(said.status, Some(1));
    let (status, reason) = of(&value, "output-invalid-utf8");
    assert_eq!(status, "fail");
    assert!(
        reason.starts_with("stdout panicked: at src/lib.rs:") && reason.contains("output is text"),
        "{reason}"
    );
    assert_eq!(of(&value, "output-nul").0, "pass", "{}", said.stdout);
}

#[test]
fn hang_is_a_verdict_and_the_run_goes_on() {
    let sandbox = Sandbox::new();
    let Some(_) = sandbox.compile_from("faulty.c", "m.so", &["HANG_IN_EXIT"]) else { return };
    let (said, value) = check(&sandbox.path(""), "./m.so", &["life", "output-n", "--time-limit", "1s"]);
    assert_eq!(said.status, Some(1));
    assert_eq!(of(&value, "output-nul"), ("fail", "it hangs: no end within 1 s of exit"));
}

#[test]
fn random_life_comes_again_with_its_seed() {
    let sandbox = Sandbox::new();
    let Some(_) = sandbox.compile_from("faulty.c", "m.so", &["CRASH_AFTER_DEATH"]) else { return };
    let reason = || of(&check(&sandbox.path(""), "./m.so", &["random"]).1, "random").1.to_owned();
    assert_eq!(reason(), reason());
}

#[test]
fn run_is_shown_to_people_with_its_seed() {
    let sandbox = Sandbox::new();
    let Some(_) = sandbox.compile_from("faulty.c", "m.so", &["CRASH_ON_NUL"]) else { return };
    let said = immortal(&sandbox.path(""), &["monitor", "check", "./m.so", "output-"]);
    assert_eq!(said.status, Some(1), "{}", said.stderr);
    let first = said.stdout.lines().next().unwrap();
    assert!(first.starts_with("faulty 1.0 (/") && first.contains("m.so), C, seed "), "{first}");
    assert!(
        said.stdout.contains("\nfail  output-nul           it crashed with SIGSEGV in stdout\n"),
        "{}",
        said.stdout
    );
    assert!(said.stdout.contains("\npass  output-one-byte "), "{}", said.stdout);
    assert!(said.stdout.contains("\n7 passed, 0 warned, 1 failed, 0 skipped\n"), "{}", said.stdout);
    let said = immortal(&sandbox.path(""), &["monitor", "check", "./m.so", "no-such-test"]);
    assert_eq!(said.status, Some(2));
    let said = immortal(&sandbox.path(""), &["monitor", "check", "./m.so", "-o", "wrong=1"]);
    assert_eq!((said.status, said.stdout.as_str()), (Some(1), ""));
    assert_eq!(said.stderr, "error: option wrong: no monitor has it; m has max\n");
}

#[test]
fn speed_is_measured_through_the_table() {
    let sandbox = Sandbox::new();
    let Some(_) = sandbox.compile_from("faulty.c", "m.so", &[]) else { return };
    let said = immortal(&sandbox.path(""), &["monitor", "bench", "./m.so", "--json"]);
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    let value: Value = serde_json::from_str(&said.stdout).unwrap();
    let sizes: Vec<u64> = value["speeds"]
        .as_array()
        .unwrap()
        .iter()
        .map(|speed| speed["chunk_bytes"].as_u64().unwrap())
        .collect();
    assert_eq!(sizes, [1, 64, 1024, 4096, 65536]);
    assert!(value["speeds"][4]["bytes_per_second"].as_f64().unwrap() > 1e6, "{value}");
    let Some(_) =
        sandbox.compile_from("faulty.c", "m2.so", &["ABORT_ON_MESSAGE", "CRASH_ON_NUL", "CALL_EXIT"])
    else {
        return;
    };
    let said = immortal(&sandbox.path(""), &["monitor", "bench", "./m2.so"]);
    assert_eq!(said.status, Some(1));
    assert!(said.stderr.ends_with(": it called exit(0) in exit\n"), "{}", said.stderr);
}
