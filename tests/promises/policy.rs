//! The words for a group's state, each at its moment, and the budget of restarts.

use immortal_tests::{Group, Pids, Process, Role, Sandbox, Signal, eventually};
use serde_json::Value;

const NO_PAUSE: [&str; 4] = ["--backoff", "0ms", "--backoff-max", "0ms"];
const LONG_PAUSE: [&str; 4] = ["--backoff", "1h", "--backoff-max", "1h"];

/// What `list` says of the only group there is.
fn listed_state(sandbox: &Sandbox) -> Option<String> {
    let list = sandbox.immortal(["list", "--json"]).run();
    list.assert_code(0);
    list.json()[0]["state"].as_str().map(str::to_owned)
}

/// `list` and `status`, for programs and for people, agree about the state.
#[track_caller]
fn assert_state_everywhere(group: &Group<'_>, state: &str) {
    assert_eq!(group.status()["state"], state);
    assert_eq!(listed_state(group.sandbox).as_deref(), Some(state));
    for arguments in [&["list"][..], &["status", &group.name]] {
        let shown = group.sandbox.immortal(arguments).run();
        shown.assert_code(0);
        assert!(shown.out().contains(state), "{state} in {shown}");
    }
}

#[test]
fn starting_is_the_state_until_the_monitors_are_ready() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let start = sandbox.launch(strategy).recorder().set("ready", "later:1500ms").puppet(["hang"]).spawn();
        eventually("the state starting", || {
            (listed_state(&sandbox).as_deref() == Some("starting")).then_some(())
        });
        start.wait().assert_code(0);
        assert_eq!(listed_state(&sandbox).as_deref(), Some("running"));
    }
}

#[test]
fn starting_is_the_state_while_a_new_pump_sets_up() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("daemon")
        .recorder()
        .set("ready", "later:1000ms")
        .args(NO_PAUSE)
        .puppet(["hang"])
        .start();
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    // The old process may still be ending at first.
    eventually("starting without a process", || {
        let status = group.status();
        (status["state"] == "starting" && status["pids"]["process"].is_null()).then_some(())
    });
    group.wait_renewed(group.started, &[Role::Process, Role::Monitor]);
}

#[test]
fn running_backoff_and_failed_are_seen_in_this_order() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let pause = ["--backoff", "700ms", "--backoff-max", "700ms", "--max-restarts", "2"];
        let steps = ["note=ran", "wait-file=go", "exit=4"];
        let group = sandbox.launch(strategy).recorder().args(pause).puppet(steps).start();
        assert_state_everywhere(&group, "running");
        sandbox.file("go", "", 0o600);
        group.wait_state("backoff");
        let status = group.wait_state("failed");
        assert_state_everywhere(&group, "failed");
        assert_eq!(Pids::from_json(&status["pids"]), Pids::default(), "{strategy}");
        assert_eq!(status["last_exit"]["code"], 4, "{strategy}");
        assert_eq!(sandbox.noted("ran").len(), 3, "{strategy}: the first run and two respawns");
        let reason = status["reason"].as_str().unwrap();
        assert!(reason.contains('2') && reason.contains("respawns"), "{strategy}: {reason}");
        eventually("the roles have ended", || sandbox.processes().is_empty().then_some(()));
    }
}

#[test]
fn stopping_is_the_state_while_the_process_may_still_end_by_itself() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let steps = ["block=TERM", "note=ran", "wait-signal=TERM", "wait-file=go", "exit=0"];
        let group = sandbox.launch(strategy).recorder().puppet(steps).start();
        eventually("it is ready", || sandbox.noted("ran").first().copied());
        let stop = sandbox.immortal(["stop", "group"]).spawn();
        let status = group.wait_state("stopping");
        assert_eq!(Pids::from_json(&status["pids"]), group.started, "{strategy}: all are still there");
        sandbox.file("go", "", 0o600);
        let stopped = stop.wait();
        stopped.assert_code(0);
        assert!(!stopped.out().contains("kill"), "{stopped}");
        sandbox.assert_nothing_left();
    }
}

#[test]
fn stopping_is_the_state_while_a_restart_waits_for_the_old_process() {
    let sandbox = Sandbox::new();
    let steps = ["block=TERM", "note=ran", "wait-signal=TERM", "wait-file=go", "exit=0"];
    let group = sandbox.launch("daemon").recorder().puppet(steps).start();
    eventually("it is ready", || sandbox.noted("ran").first().copied());
    let restart = sandbox.immortal(["restart", "group"]).spawn();
    group.wait_state("stopping");
    sandbox.file("go", "", 0o600);
    restart.wait().assert_code(0);
    assert_ne!(group.wait_running("again", |_| true).process, group.started.process);
}

#[test]
fn stopped_is_the_state_of_a_process_that_is_not_to_be_respawned() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let steps = ["wait-file=go", "exit=0"];
        let group =
            sandbox.launch(strategy).recorder().args(["--restart", "on-failure"]).puppet(steps).start();
        sandbox.file("go", "", 0o600);
        let status = group.wait_state("stopped");
        assert_state_everywhere(&group, "stopped");
        assert_eq!((&status["reason"], &status["last_exit"]["code"]), (&Value::Null, &0.into()));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn orphaned_is_the_state_of_a_process_whose_roles_are_gone() {
    let sandbox = Sandbox::new();
    let steps = ["block=TERM", "note=ran", "hang"];
    let group = sandbox.launch("unattached").recorder().puppet(steps).start();
    eventually("it is ready", || sandbox.noted("ran").first().copied());
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    let status = group.wait_state("orphaned");
    let pids = Pids::from_json(&status["pids"]);
    assert_eq!(pids, Pids { process: group.started.process, monitor: None, daemon: None });
    assert_state_everywhere(&group, "orphaned");
    // It cannot be restarted or signalled by those who are gone, and the answer says what to do.
    for command in [&["restart", "group"][..], &["signal", "group", "USR1"]] {
        let refused = sandbox.immortal(command).run();
        refused.assert_refused(1);
        assert!(refused.err().contains("hint: "), "{refused}");
    }
    group.stop();
    sandbox.assert_nothing_left();
}

#[test]
fn a_pause_tells_the_next_attempt_and_what_is_left_of_the_budget() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("unattached")
        .recorder()
        .args(LONG_PAUSE)
        .args(["--max-restarts", "5"])
        .puppet(["note=ran", "exit=1"])
        .start();
    let status = group.wait_state("backoff");
    // Two deaths, one respawn at once in between.
    assert_eq!((&status["restarts"], &status["unstable"]), (&1.into(), &2.into()), "{status:#}");
    assert_eq!(status["budget_left"], 3, "the next attempt is counted: {status:#}");
    let at = status["next_attempt"].as_str().unwrap();
    assert!(at > status["last_exit"]["at"].as_str().unwrap(), "{status:#}");
    let shown = sandbox.immortal(["status", "group"]).run().out();
    assert!(shown.contains(at), "{at} in {shown}");
}

#[test]
fn without_a_limit_there_is_no_budget() {
    let sandbox = Sandbox::new();
    let status = sandbox.launch("unattached").recorder().puppet(["hang"]).start().status();
    assert_eq!((&status["budget_left"], &status["next_attempt"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_stable_run_gives_the_budget_back() {
    let sandbox = Sandbox::new();
    let options = ["--max-restarts", "1", "--stable", "0ms"];
    let steps = ["note=ran", "hang-after=9:count", "exit=1"];
    let group = sandbox.launch("unattached").recorder().args(NO_PAUSE).args(options).puppet(steps).start();
    eventually("ten runs", || (sandbox.noted("ran").len() == 10).then_some(()));
    group.wait_running("it has not given up", |_| true);
    assert_eq!(group.status()["restarts"], 9);
}

#[test]
fn a_restart_that_was_asked_for_gives_the_budget_back() {
    let sandbox = Sandbox::new();
    let options = ["--max-restarts", "2", "--stable", "1h"];
    let group = sandbox.launch("daemon").recorder().args(NO_PAUSE).args(options).puppet(["hang"]).start();
    for _ in 0..3 {
        for _ in 0..2 {
            let old = group.pids();
            group.member(Role::Process).signal(Signal::SIGKILL);
            group.wait_renewed(old, &[Role::Process]);
        }
        assert_eq!(group.status()["budget_left"], 0);
        group.command("restart").assert_code(0);
        assert_eq!(group.status()["budget_left"], 2);
    }
}

#[test]
fn no_respawn_is_allowed_with_a_budget_of_none() {
    let sandbox = Sandbox::new();
    let steps = ["note=ran", "wait-file=go", "exit=1"];
    let group = sandbox.launch("daemon").recorder().args(["--max-restarts", "0"]).puppet(steps).start();
    sandbox.file("go", "", 0o600);
    group.wait_state("failed");
    assert_eq!(sandbox.noted("ran").len(), 1);
}

#[test]
fn a_development_group_that_gives_up_ends_with_the_status_of_the_process() {
    let sandbox = Sandbox::new();
    let options = ["--restart", "on-failure", "--max-restarts", "3"];
    let ended = sandbox
        .launch("development")
        .recorder()
        .args(NO_PAUSE)
        .args(options)
        .puppet(["note=ran", "exit=5"])
        .run();
    ended.assert_code(5);
    assert_eq!(sandbox.noted("ran").len(), 4);
    sandbox.assert_nothing_left();
}

/// A pump that dies in `setup` from now on: its monitor fails.
fn with_a_pump_that_dies<'a>(sandbox: &'a Sandbox, options: &[&str]) -> Group<'a> {
    let group = sandbox
        .launch("daemon")
        .recorder()
        .set("when", "setup")
        .set("how", "abort")
        .set("once_exists", sandbox.path("fail"))
        .args(options)
        .puppet(["note=ran", "hang"])
        .start();
    sandbox.file("fail", "", 0o600);
    // It is executed, but need not have come to its first instruction.
    eventually("the process runs", || (!sandbox.noted("ran").is_empty()).then_some(()));
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    group
}

#[test]
fn a_pump_that_keeps_dying_uses_up_the_budget_and_is_named_in_the_reason() {
    let sandbox = Sandbox::new();
    let options = [&NO_PAUSE[..], &["--max-restarts", "3", "--stable", "1h"]].concat();
    let group = with_a_pump_that_dies(&sandbox, &options);
    let status = group.wait_state("failed");
    let reason = status["reason"].as_str().unwrap();
    assert!(reason.contains("fixture abort in setup"), "{reason}");
    assert_eq!(sandbox.noted("ran").len(), 1, "the process was not started by pumps that were not ready");
    eventually("nobody is left", || sandbox.processes().is_empty().then_some(()));
}

#[test]
fn a_pump_that_keeps_dying_is_named_during_the_pause() {
    let sandbox = Sandbox::new();
    let group = with_a_pump_that_dies(&sandbox, &[&LONG_PAUSE[..], &["--stable", "1h"]].concat());
    let status = group.wait_state("backoff");
    let reason = status["reason"].as_str().unwrap_or_else(|| panic!("no reason in {status:#}"));
    assert!(reason.contains("fixture abort in setup"), "{reason}");
    assert!(status["next_attempt"].is_string(), "{status:#}");
    assert_eq!(Pids::from_json(&status["pids"]).process, None);
}

#[test]
fn a_restart_ends_the_pause_before_the_next_pump() {
    let sandbox = Sandbox::new();
    let group = with_a_pump_that_dies(&sandbox, &[&LONG_PAUSE[..], &["--stable", "1h"]].concat());
    group.wait_state("backoff");
    std::fs::remove_file(sandbox.path("fail")).unwrap();
    group.command("restart").assert_code(0);
    let pids = group.wait_running("again", |_| true);
    assert_eq!(pids.daemon, group.started.daemon);
    assert!(Process::find(pids.of(Role::Process)).is_some());
}

#[test]
fn a_group_whose_pump_is_waited_for_can_be_stopped_and_signalled_at() {
    let sandbox = Sandbox::new();
    let group = with_a_pump_that_dies(&sandbox, &[&LONG_PAUSE[..], &["--stable", "1h"]].concat());
    group.wait_state("backoff");
    // There is no process to get it.
    sandbox.immortal(["signal", "group", "USR1"]).run().assert_refused(1);
    sandbox.immortal(["logs", "group"]).run().assert_code(0);
    let stopped = group.command("stop");
    stopped.assert_code(0);
    assert!(stopped.took.as_secs() < 3, "{stopped}");
    sandbox.assert_nothing_left();
}
