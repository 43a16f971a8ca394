//! A monitor as an author writes it, from the check to the last hook.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may, and its helpers are no tests to clippy"
)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use immortal::loader::{
    Dispositions, Door, Event, EventKind, HookError, Instance, Output, Settings, SetupArgs, Stream, Why,
    load_trusted,
};
use log::LevelFilter;
use support::recorder::host;
use support::{EXECUTABLE, build_monitor, check, line};

fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| build_monitor("panics", "panics.rs"))
}

/// Checks it, loads it and calls all its hooks; the first that fails.
fn run(hook: &str) -> Option<HookError> {
    let passed = check(library(), &[&format!("hook={hook}")]).unwrap();
    assert_eq!(
        (passed.name.as_str(), passed.version.as_str(), passed.door),
        ("panics", "0.3.0", Door::RustVerified)
    );
    let before = Dispositions::snapshot();
    let loaded =
        load_trusted(&passed, Path::new(EXECUTABLE), &Settings::default(), LevelFilter::Warn).unwrap();
    let (_, host) = host();
    let setup = SetupArgs {
        why: Why::PumpStart,
        kept: false,
        process_pid: None,
        message: b"",
        cut_bytes: 0,
        first_offset: [0; 2],
    };
    let event = |kind| Event {
        kind,
        process_pid: 7,
        code: Some(0),
        signal: None,
        respawns: 0,
        core: false,
        kept: false,
        mono_ns: 0,
        wall_ns: 0,
        ran_ns: 0,
    };
    let output = |stream| Output { stream, redelivered: false, offset: 0, mono_ns: 0, data: b"x" };
    let call_all = || {
        let mut instance = Instance::create(&loaded, host, &passed.options)?;
        instance.setup(&setup)?;
        instance.event(&event(EventKind::Spawn))?;
        instance.output(&output(Stream::Stdout))?;
        instance.output(&output(Stream::Stderr))?;
        instance.idle()?;
        instance.event(&event(EventKind::Exit))?;
        instance.event(&event(EventKind::Respawn))?;
        instance.finish(0)?;
        instance.destroy()
    };
    let outcome = call_all();
    assert_eq!(before.restore(), Vec::<String>::new());
    outcome.err()
}

#[test]
fn panic_and_error_of_any_hook_come_back_with_its_name() {
    assert_eq!(run("none"), None);
    for hook in ["new", "setup", "spawn", "stdout", "stderr", "idle", "exit", "respawn", "finish"] {
        let panicked = run(hook).unwrap_or_else(|| panic!("{hook} did not panic"));
        assert!(panicked.panicked, "{panicked:?}");
        let text = panicked.to_string();
        assert!(text.starts_with(&format!("monitor m: {hook}: panicked at src/lib.rs:")), "{text}");
        assert!(text.ends_with(&format!(": on purpose in {hook}; second line")), "{text}");
        let failed = run(&format!("error-{hook}")).unwrap_or_else(|| panic!("{hook} did not fail"));
        assert!(!failed.panicked);
        assert_eq!(failed.to_string(), format!("monitor m: {hook}: an error on purpose"));
    }
}

#[test]
fn refusal_and_panic_of_check_are_told_apart() {
    let refusal = |options: &[&str]| {
        let error = check(library(), options).unwrap_err();
        (line(&error), error.hint())
    };
    assert_eq!(refusal(&["hook=error-check"]).0, "monitor m: an error on purpose");
    let panicked = refusal(&["hook=check"]).0;
    assert!(panicked.starts_with("monitor m: check: panicked: "), "{panicked}");
    let (text, hint) = refusal(&[]);
    assert_eq!(text, "monitor m: option hook is required");
    assert!(hint.unwrap().starts_with("-o hook="));
}

#[test]
fn library_cut_at_any_length_is_refused() {
    let whole = std::fs::read(library()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let part = directory.path().canonicalize().unwrap().join("part.so");
    for eighth in 0..64 {
        std::fs::write(&part, &whole[..(whole.len() - 1) * eighth / 64 + 1]).unwrap();
        let text = support::refusal(&part);
        assert!(text.starts_with("it is truncated: "), "{eighth}/64: {text}");
    }
}

#[test]
fn panic_of_a_thread_is_logged_with_the_monitors_name_and_ends_nothing() {
    build_monitor("faulty", "faulty.rs");
    let folder = support::package_folder("faulty");
    let start = ["start", "-s", "development", "--no-auto", "-m", "mine=./built.so", "-o", "thread=true"];
    let said =
        support::command::immortal(&folder, &[&start[..], &["--", "/bin/echo", "still here"]].concat());
    assert_eq!((said.status, said.stdout.as_str()), (Some(0), "still here\n"), "{}", said.stderr);
    let is_it = |line: &&str| line.contains("mine") && line.contains("boom on a thread");
    assert_eq!(said.stderr.lines().filter(is_it).count(), 1, "{}", said.stderr);
}
