//! The default monitor: the process's output byte for byte, the event lines, the pid file.

use immortal_tests::{Group, Item, Pids, Role, Sandbox, Signal, eventually, pattern, start_events};
use serde_json::Value;

#[test]
fn it_is_the_default_monitor() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("unattached").set("output", "log").puppet(["out=hello", "hang"]).start();
    group.wait_log("the output", |log| log.output() == b"hello\n");
    assert_eq!(group.status()["monitors"][0]["name"], "log");
}

#[test]
fn the_file_of_a_first_start_is_as_in_the_contract() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").log().puppet(["out=hello", "hang"]).start();
    let log = group.wait_log("the output", |log| log.output() == b"hello\n");
    let text = String::from_utf8(log.bytes).unwrap();
    let shape: String = text
        .lines()
        .map(
            |line| {
                if line.starts_with("=== Time: ") { "=== Time: \n".to_owned() } else { format!("{line}\n") }
            },
        )
        .collect();
    let Pids { process, monitor, daemon } = group.started;
    let expected = format!(
        "=== monitor#{} started for first time ===\n=== Time: \n\
         === daemon#{} started for first time ===\n=== Time: \n\
         === process#{} started for first time ===\n=== Time: \nhello\n",
        monitor.unwrap(),
        daemon.unwrap(),
        process.unwrap()
    );
    assert_eq!(shape, expected);
}

#[test]
fn every_event_line_is_followed_by_its_time() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").log().puppet(["out=hello", "hang"]).start();
    let new = {
        group.member(Role::Process).signal(Signal::SIGKILL);
        group.wait_renewed(group.started, &[Role::Process])
    };
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    let new = group.wait_renewed(new, &[Role::Process, Role::Monitor]);
    let last = format!("! process#{} restarted !", new.of(Role::Process));
    let log = group.wait_log("the last event", |log| {
        log.events().last() == Some(&last) && log.output() == b"hello\nhello\nhello\n"
    });
    for item in &log.items {
        let Item::Event(text, time) = item else { continue };
        let time = time.as_deref().unwrap_or_else(|| panic!("no time after {text:?}"));
        let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert!(shape.starts_with("0000-00-00T00:00:00"), "{text:?}: {time:?}");
        let zone = &shape[19..].trim_start_matches(['.', '0']);
        assert!(
            zone.is_empty() && time.ends_with('Z') || ["Z", "+00:00", "-00:00"].contains(zone),
            "{time:?}"
        );
    }
}

#[test]
fn a_death_is_told_as_terminated_and_restarted() {
    let sandbox = Sandbox::new();
    let steps = ["out=hello", "hang-after=1:count", "exit=0"];
    let group = sandbox.launch("unattached").log().puppet(steps).start();
    let log = group.wait_log("both runs", |log| log.output() == b"hello\nhello\n");
    let mut expected = start_events(&group.started);
    expected.push("! process terminated !".into());
    expected.push(format!("! process#{} restarted !", group.pids().of(Role::Process)));
    assert_eq!(log.events(), expected);
    let order: Vec<bool> = log.items.iter().map(|item| matches!(item, Item::Output(_))).collect();
    assert_eq!(order, [false, false, true, false, false, true], "{:#?}", log.items);
}

#[test]
fn output_is_written_byte_for_byte() {
    let sandbox = Sandbox::new();
    let steps = ["pattern-out=1000001", "out=", "hang"];
    let group = sandbox.launch("unattached").log().set("events", "false").puppet(steps).start();
    let expected = [pattern(1_000_001), b"\n".to_vec()].concat();
    let log = group.wait_log("all of it", |log| log.bytes.len() >= expected.len());
    assert!(log.bytes == expected, "{} bytes of {}", log.bytes.len(), expected.len());
}

#[test]
fn stdout_and_stderr_go_to_the_same_file() {
    let sandbox = Sandbox::new();
    let steps = ["out=one", "wait-file=go", "err=two", "hang"];
    let group = sandbox.launch("unattached").log().puppet(steps).start();
    group.wait_log("the first", |log| log.output() == b"one\n");
    sandbox.file("go", "", 0o600);
    group.wait_log("the second", |log| log.output() == b"one\ntwo\n");
}

#[test]
fn without_events_only_the_output_is_written() {
    let sandbox = Sandbox::new();
    let steps = ["raw-out=hello", "hang-after=1:count", "exit=0"];
    let group = sandbox.launch("unattached").log().set("events", "false").puppet(steps).start();
    group.wait_log("both runs", |log| log.bytes == b"hellohello");
}

#[test]
fn an_event_line_starts_at_the_beginning_of_a_line() {
    let sandbox = Sandbox::new();
    let steps = ["raw-out=no newline", "hang-after=1:count", "exit=0"];
    let group = sandbox.launch("unattached").log().puppet(steps).start();
    let log = group.wait_log("the restart", |log| log.events().len() == 4);
    assert_eq!(log.output_before("! process terminated").unwrap(), b"no newline\n");
}

#[test]
fn an_event_line_after_a_killed_pump_starts_at_the_beginning_of_a_line() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").log().puppet(["raw-out=no newline", "hang"]).start();
    group.wait_log("the output", |log| log.bytes.ends_with(b"no newline"));
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    let log = group.wait_log("the restart", |log| log.events().len() == 5);
    assert!(log.bytes.windows(15).any(|window| window == b"no newline\n=== "), "{:#?}", log.items);
}

#[test]
fn output_that_ends_a_line_gets_no_empty_line() {
    let sandbox = Sandbox::new();
    let steps = ["out=line", "hang-after=1:count", "exit=0"];
    let group = sandbox.launch("unattached").log().puppet(steps).start();
    let log = group.wait_log("the restart", |log| log.events().len() == 4);
    assert_eq!(log.output_before("! process terminated").unwrap(), b"line\n");
}

#[test]
fn an_existing_file_is_appended_to() {
    let sandbox = Sandbox::new();
    sandbox.file("log", "what was there\n", 0o600);
    let group = sandbox.launch("unattached").log().puppet(["out=hello", "hang"]).start();
    let log = group.wait_log("the output", |log| log.output().ends_with(b"hello\n"));
    assert!(log.bytes.starts_with(b"what was there\n=== monitor#"), "{:#?}", log.items);
}

#[test]
fn a_crash_is_told_between_its_two_lines() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("daemon")
        .log()
        .recorder()
        .set("recorder.stderr", "the monitor's last words")
        .puppet(["hang"])
        .start();
    let old = group.started;
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    let new = group.wait_renewed(old, &[Role::Process, Role::Monitor]);
    let log = group.wait_log("the restart", |log| log.events().len() == 7);
    let after = &log.events()[3..];
    assert_eq!(after[..2], ["! An error occured in the monitor !", "error message end"]);
    assert_eq!(after[2], format!("! monitor#{} restarted !", new.of(Role::Monitor)));
    assert_eq!(after[3], format!("! process#{} restarted !", new.of(Role::Process)));
    assert_eq!(log.crash_messages(), ["the monitor's last words\n"]);
}

#[test]
fn a_crash_without_a_word_is_told_without_a_message() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").log().puppet(["hang"]).start();
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    let log = group.wait_log("the restart", |log| log.events().len() >= 5);
    assert!(log.crash_messages().is_empty(), "{:#?}", log.items);
    assert_eq!(log.events().len(), 5);
}

#[test]
fn output_is_required_with_a_hint() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let outcome = sandbox.launch(strategy).puppet(["hang"]).run();
        assert!(outcome.assert_refused(125).contains("output"), "{outcome}");
        let hint =
            outcome.err().lines().find(|line| line.starts_with("hint: ")).unwrap_or_default().to_owned();
        assert!(hint.contains("-o output=FILE"), "{outcome}");
        sandbox.assert_nothing_left();
    }
}

#[test]
fn null_means_no_file() {
    let sandbox = Sandbox::new();
    let group =
        sandbox.launch("unattached").args(["-o", "output:=null"]).puppet(["out=hello", "hang"]).start();
    group.stop();
    assert!(!sandbox.path("null").exists());
}

#[test]
fn a_directory_that_is_missing_is_refused() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.launch("unattached").set("output", "no-such-dir/log").puppet(["hang"]).run();
    assert!(outcome.assert_refused(125).contains("no-such-dir"), "{outcome}");
    assert!(!sandbox.path("no-such-dir").exists());
    sandbox.assert_nothing_left();
}

#[test]
fn a_directory_as_the_file_is_refused() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.launch("unattached").set("output", "home").puppet(["hang"]).run();
    assert!(outcome.assert_refused(125).contains("home"), "{outcome}");
    sandbox.assert_nothing_left();
}

#[test]
fn check_makes_no_file() {
    let sandbox = Sandbox::new();
    sandbox.launch("unattached").log().puppet(["hang"]).check().assert_code(0);
    assert!(!sandbox.path("log").exists());
}

#[test]
fn the_file_is_relative_to_the_callers_directory() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("daemon")
        .set("output", "log")
        .args(["--cwd", "/"])
        .puppet(["out=hello", "hang"])
        .start();
    group.wait_log("the output", |log| log.output() == b"hello\n");
}

fn pid_file(sandbox: &Sandbox) -> Option<Value> {
    let bytes = std::fs::read(sandbox.path("pids")).ok()?;
    Some(serde_json::from_slice(&bytes).expect("a pid file is whole whenever it is read"))
}

#[track_caller]
fn wait_pid_file(sandbox: &Sandbox, wanted: Pids) {
    eventually(&format!("the pid file says {wanted:?}"), || {
        (Pids::from_json(&pid_file(sandbox)?) == wanted).then_some(())
    });
}

fn with_pid_file<'a>(sandbox: &'a Sandbox, strategy: &str, options: &[&str]) -> Group<'a> {
    sandbox.launch(strategy).log().set("pid_file", "pids").args(options).puppet(["hang"]).start()
}

#[test]
fn the_pid_file_has_the_three_pids() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let group = with_pid_file(&sandbox, strategy, &[]);
        wait_pid_file(&sandbox, group.started);
        let keys: Vec<String> = pid_file(&sandbox).unwrap().as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys.len(), 3, "{keys:?}");
    }
}

#[test]
fn the_pid_file_follows_every_death() {
    let sandbox = Sandbox::new();
    let group = with_pid_file(&sandbox, "daemon", &[]);
    let mut old = group.started;
    for (role, renewed) in [
        (Role::Process, &[Role::Process][..]),
        (Role::Monitor, &[Role::Process, Role::Monitor]),
        (Role::Daemon, &[Role::Process, Role::Monitor, Role::Daemon]),
    ] {
        group.member(role).signal(Signal::SIGKILL);
        old = group.wait_renewed(old, renewed);
        wait_pid_file(&sandbox, old);
    }
}

#[test]
fn the_pid_file_says_null_while_there_is_no_process() {
    let sandbox = Sandbox::new();
    let group = with_pid_file(&sandbox, "daemon", &["--restart", "never"]);
    group.member(Role::Process).signal(Signal::SIGKILL);
    group.wait_state("stopped");
    wait_pid_file(&sandbox, Pids { process: None, ..group.started });
}

#[test]
fn the_pid_file_is_whole_at_every_moment() {
    let sandbox = Sandbox::new();
    let pause = ["--backoff", "0ms", "--backoff-max", "0ms"];
    let group = sandbox
        .launch("unattached")
        .log()
        .set("pid_file", "pids")
        .args(pause)
        .puppet(["hang-after=100:count", "exit=1"])
        .start();
    eventually("a hundred respawns", || {
        drop(pid_file(&sandbox));
        (std::fs::metadata(sandbox.path("count")).ok()?.len() > 100).then_some(())
    });
    wait_pid_file(&sandbox, group.wait_running("at last", |_| true));
}

#[test]
fn two_logs_with_two_labels_write_two_files() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("unattached")
        .args(["-m", "log", "-m", "copy=log"])
        .set("log.output", "log")
        .set("copy.output", "log2")
        .set("events", "false")
        .puppet(["out=hello", "hang"])
        .start();
    group.wait_log("the output", |log| log.bytes == b"hello\n");
    eventually("the copy", || (std::fs::read(sandbox.path("log2")).ok()? == b"hello\n").then_some(()));
}

#[test]
fn a_secret_looking_log_file_is_not_world_writable() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    let _group = sandbox.launch("unattached").log().puppet(["hang"]).start();
    let mode = std::fs::metadata(sandbox.path("log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o022, 0, "{mode:o}");
}
