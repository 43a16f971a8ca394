//! Hooks get what they are given, and what goes wrong in one is told with the hook's name.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may, and its helpers are no tests to clippy"
)]

mod support;

use std::path::Path;

use immortal::loader::{
    Dispositions, Event, EventKind, HookError, Instance, Library, Output, Readiness, SetupArgs, Stream,
    Trust, Why, open,
};
use support::Sandbox;
use support::recorder::{host, options};

fn library(sandbox: &Sandbox) -> Option<Library> {
    Some(open(&sandbox.compile("good.so", &[])?, Trust::Unknown).unwrap())
}

const SETUP: SetupArgs<'_> = SetupArgs {
    why: Why::PumpRestart,
    kept: true,
    process_pid: Some(77),
    message: b"the stderr",
    cut_bytes: 5,
    first_offset: [10, 20],
};

fn output(stream: Stream, data: &[u8]) -> Output<'_> {
    Output { stream, redelivered: true, offset: 9, mono_ns: 0, data }
}

fn event(kind: EventKind) -> Event {
    Event {
        kind,
        process_pid: 77,
        code: None,
        signal: Some(9),
        respawns: 4,
        core: true,
        kept: false,
        mono_ns: 1,
        wall_ns: 2,
        ran_ns: 3,
    }
}

#[test]
fn hooks_get_what_they_are_given() {
    let sandbox = Sandbox::new();
    let Some(library) = library(&sandbox) else { return };
    let (recorder, host) = host();
    let mut instance = Instance::create(&library, host, &[]).unwrap();
    assert_eq!(instance.setup(&SETUP).unwrap(), Readiness::Ready);
    assert_eq!(recorder.last("setup"), "why 2 flags 1 pid 77 cut 5 from 10 20: the stderr");
    instance.output(&output(Stream::Stderr, b"some bytes")).unwrap();
    assert_eq!(recorder.last("output"), "2 4 9 some bytes");
    instance.event(&event(EventKind::Exit)).unwrap();
    assert_eq!(recorder.last("event"), "3 77 -1 9 4 2");
    instance.idle().unwrap();
    instance.finish(0).unwrap();
    assert_eq!(recorder.last("hook"), "finish");
    instance.destroy().unwrap();
    assert_eq!(recorder.last("hook"), "destroy");
    let pending = options(&[("fail", "pending")]);
    let mut instance = Instance::create(&library, host, &pending).unwrap();
    assert_eq!(instance.setup(&SETUP).unwrap(), Readiness::Pending);
}

fn fail_in(library: &Library, hook: &str, rest: &[(&str, &str)]) -> HookError {
    let (_, host) = host();
    let mut given = vec![("fail", hook)];
    given.extend(rest);
    let given = options(&given);
    let mut instance = match Instance::create(library, host, &given) {
        Ok(instance) => instance,
        Err(error) => return error,
    };
    let outcomes = [
        instance.setup(&SETUP).map(drop),
        instance.output(&output(Stream::Stdout, b"x")),
        instance.output(&output(Stream::Stderr, b"x")),
        instance.event(&event(EventKind::Spawn)),
        instance.event(&event(EventKind::Respawn)),
        instance.event(&event(EventKind::Exit)),
        instance.idle(),
        instance.finish(0),
        instance.destroy(),
    ];
    let errors: Vec<HookError> = outcomes.into_iter().filter_map(Result::err).collect();
    assert_eq!(errors.len(), 1, "{hook}: {errors:?}");
    errors.into_iter().next().unwrap()
}

#[test]
fn failure_of_any_hook_is_told_with_its_name() {
    let sandbox = Sandbox::new();
    let Some(library) = library(&sandbox) else { return };
    for hook in
        ["create", "setup", "stdout", "stderr", "spawn", "respawn", "exit", "idle", "finish", "destroy"]
    {
        let error = fail_in(&library, hook, &[("text", "the disk is full")]);
        assert_eq!(error.to_string(), format!("monitor m: {hook}: the disk is full"));
        let named = fail_in(&library, hook, &[("text", &format!("{hook}: the disk is full"))]);
        assert_eq!(named.to_string(), format!("monitor m: {hook}: the disk is full"), "not doubled");
    }
    assert_eq!(fail_in(&library, "create", &[("text", "new: no")]).to_string(), "monitor m: new: no");
}

#[test]
fn hook_without_a_reason_and_odd_codes_are_failures_all_the_same() {
    let sandbox = Sandbox::new();
    let Some(library) = library(&sandbox) else { return };
    assert_eq!(fail_in(&library, "setup", &[]).to_string(), "monitor m: setup failed and gave no reason");
    let panicked =
        fail_in(&library, "setup", &[("code", "-2"), ("text", "setup: panicked at a.rs:1: oh\nleft: 1")]);
    assert!(panicked.panicked);
    assert_eq!(panicked.to_string(), "monitor m: setup: panicked at a.rs:1: oh; left: 1");
    let odd = fail_in(&library, "stdout", &[("code", "42")]);
    assert_eq!(odd.to_string(), "monitor m: stdout: returned 42, which means nothing");
    let (_, host) = host();
    let mut quiet = Instance::create(&library, host, &options(&[("fail", "quietly")])).unwrap();
    let error = quiet.output(&output(Stream::Stdout, b"x")).unwrap_err();
    assert_eq!(error.to_string(), "monitor m: stdout: and goes on", "fail counts whatever is returned");
    let next = quiet.idle();
    assert!(next.is_ok(), "one failure is told once: {next:?}");
}

#[test]
fn failure_on_a_thread_of_the_monitors_own_reaches_the_services_even_during_a_hook() {
    let sandbox = Sandbox::new();
    let Some(library) = library(&sandbox) else { return };
    let (recorder, host) = host();
    let mut instance = Instance::create(&library, host, &options(&[("fail", "thread")])).unwrap();
    instance.output(&output(Stream::Stdout, b"x")).unwrap();
    assert_eq!(*recorder.failures.lock().unwrap(), ["a thread has failed"]);
}

#[test]
fn two_instances_of_one_library_are_apart() {
    let sandbox = Sandbox::new();
    let Some(library) = library(&sandbox) else { return };
    let ((one, host_one), (two, host_two)) = (host(), host());
    let mut first = Instance::create(&library, host_one, &[]).unwrap();
    let second = Instance::create(&library, host_two, &[]).unwrap();
    first.output(&output(Stream::Stdout, b"x")).unwrap();
    assert_eq!(one.last("hook"), "stdout");
    assert_eq!(two.last("hook"), "create");
    second.destroy().unwrap();
    first.idle().unwrap();
}

#[test]
fn signals_that_a_library_changes_are_put_back() {
    let sandbox = Sandbox::new();
    let Some(file) = sandbox.compile("signals.so", &["CTOR_SIGNALS"]) else { return };
    let before = Dispositions::snapshot();
    open(&file, Trust::Unknown).unwrap();
    assert_eq!(before.restore(), ["SIGTERM"]);
    assert_eq!(before.restore(), Vec::<String>::new());
}

#[test]
fn relative_path_is_never_passed_to_the_loader() {
    assert!(open(Path::new("libm.so.6"), Trust::Unknown).is_err());
}
