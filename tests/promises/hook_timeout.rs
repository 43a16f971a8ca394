//! `--hook-timeout`: a hook that does not return in time ends its pump and says so; any other is left alone.

use immortal_tests::{Group, Launch, Role, Sandbox, Signal, eventually, holds_for};
use std::time::Duration;

/// A group whose monitor hangs in one call of this hook, after so many that return.
fn hanging<'a>(sandbox: &'a Sandbox, strategy: &str, hook: &str, skip: usize) -> Launch<'a> {
    sandbox
        .launch(strategy)
        .recorder()
        .set("when", hook)
        .set("how", "hang")
        .set("skip", skip.to_string())
        .set("times", "1")
        .args(["--hook-timeout", "1s", "--stop-timeout", "1s"])
}

fn text(hook: &str) -> String {
    format!("monitor recorder: {hook} did not return within 1s (--hook-timeout)")
}

/// Waits for the setup that is told of the hook that did not return.
#[track_caller]
fn wait_for_message(group: &Group<'_>, hook: &str) {
    let setup = eventually(&format!("a setup that is told of {hook}"), || {
        let records = group.records();
        records.into_iter().find(|record| record.hook() == "setup" && !record.text("message").is_empty())
    });
    assert_eq!((setup.text("why"), setup.text("message")), ("pump restart", &*(text(hook) + "\n")));
}

#[test]
fn the_next_pump_is_told_which_hook_of_which_monitor_did_not_return() {
    for hook in ["stdout", "exit", "idle"] {
        let sandbox = Sandbox::new();
        let group = hanging(&sandbox, "daemon", hook, 0)
            .set("once_exists", if hook == "idle" { "go" } else { "." })
            .puppet(["wait-file=go", "out=hello", "hang"])
            .start();
        sandbox.file("go", "", 0o600);
        if hook == "exit" {
            group.member(Role::Process).signal(Signal::SIGKILL);
        }
        wait_for_message(&group, hook);
        group.wait_renewed(group.started, &[Role::Process, Role::Monitor]);
    }
}

#[test]
fn a_hook_of_a_new_pump_that_does_not_return_ends_it_as_well() {
    for hook in ["new", "setup", "respawn"] {
        let sandbox = Sandbox::new();
        let skip = usize::from(hook != "respawn");
        let group = hanging(&sandbox, "daemon", hook, skip).puppet(["hang"]).start();
        group.member(Role::Monitor).signal(Signal::SIGKILL);
        wait_for_message(&group, if hook == "new" { "create" } else { hook });
        group.wait_running("after it", |pids| pids.monitor != group.started.monitor);
    }
}

#[test]
fn a_kept_process_gets_through_a_hook_that_does_not_return() {
    for (hook, skip) in [("stdout", 0), ("exit", 0), ("setup", 1)] {
        let sandbox = Sandbox::new();
        let group = hanging(&sandbox, "daemon", hook, skip)
            .args(["--on-crash", "keep"])
            .puppet(["wait-file=go", "out=hello", "hang"])
            .start();
        sandbox.file("go", "", 0o600);
        let old = group.started;
        match hook {
            "setup" => group.member(Role::Monitor).signal(Signal::SIGKILL),
            "exit" => group.member(Role::Process).signal(Signal::SIGKILL),
            _ => {}
        }
        wait_for_message(&group, hook);
        let new = group.wait_running("with another pump", |pids| pids.monitor != old.monitor);
        assert_eq!(new.daemon, old.daemon);
        if hook == "exit" {
            let told = |hook| group.records().iter().filter(|record| record.hook() == hook).count();
            assert_eq!(told("exit"), 2, "the next pump tells the end again");
        } else {
            assert_eq!(new.process, old.process, "{hook}: it was to be kept");
            group.wait_records("its line", |records| {
                records.iter().rev().any(|record| {
                    record.hook() == "stdout" && record.pump() != old.of(Role::Monitor)
                        || hook == "setup" && record.hook() == "stdout"
                })
            });
        }
    }
}

#[test]
fn without_a_daemon_the_group_ends_and_says_why() {
    for hook in ["stdout", "exit"] {
        let sandbox = Sandbox::new();
        let group =
            hanging(&sandbox, "unattached", hook, 0).puppet(["wait-file=go", "out=hello", "hang"]).start();
        sandbox.file("go", "", 0o600);
        if hook == "exit" {
            group.member(Role::Process).signal(Signal::SIGKILL);
        }
        let status = group.wait_state("failed");
        assert_eq!(status["reason"], text(hook));
        assert!(sandbox.processes().is_empty(), "nobody is left");
    }
}

#[test]
fn an_attached_group_ends_and_says_why() {
    let sandbox = Sandbox::new();
    let outcome = hanging(&sandbox, "development", "stdout", 0).puppet(["out=hello", "hang"]).run();
    outcome.assert_code(125);
    assert!(outcome.err().contains(&text("stdout")), "{outcome}");
}

#[test]
fn a_start_whose_setup_does_not_return_is_refused() {
    for strategy in ["unattached", "daemon", "development"] {
        let sandbox = Sandbox::new();
        let outcome = hanging(&sandbox, strategy, "setup", 0).puppet(["note=ran", "hang"]).run();
        outcome.assert_code(125);
        assert!(outcome.err().contains(&text("setup")), "{outcome}");
        assert!(sandbox.noted("ran").is_empty(), "nothing was executed");
        sandbox.assert_nothing_left();
    }
}

#[test]
fn stop_does_not_wait_longer_for_a_finish_than_for_any_hook() {
    let sandbox = Sandbox::new();
    let group = hanging(&sandbox, "daemon", "finish", 0).puppet(["hang"]).start();
    let outcome = group.command("stop");
    outcome.assert_code(0);
    assert!(outcome.took < Duration::from_secs(4), "{outcome}");
    sandbox.assert_nothing_left();
}

#[test]
fn slow_hooks_below_the_limit_are_left_alone() {
    for keep in ["respawn", "keep"] {
        let sandbox = Sandbox::new();
        let group = sandbox
            .launch("daemon")
            .recorder()
            .set("slow", "700ms")
            .args(["--hook-timeout", "2s", "--on-crash", keep])
            .puppet(["ticks=1000000:10"])
            .start();
        // Together they take longer than one may.
        group.wait_hook("stdout", 5);
        assert_eq!(group.pids(), group.started);
    }
}

#[test]
fn waiting_to_be_ready_is_no_hook() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("daemon")
        .recorder()
        .set("ready", "later:1500ms")
        .args(["--hook-timeout", "500ms"])
        .puppet(["hang"])
        .start();
    assert_eq!(group.pids(), group.started);
}

#[test]
fn a_pump_that_is_stopped_in_a_hook_is_not_late() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("unattached")
        .recorder()
        .set("slow", "300ms")
        .args(["--hook-timeout", "1s"])
        .puppet(["wait-file=go", "out=hello", "hang"])
        .start();
    let pump = group.member(Role::Monitor);
    sandbox.file("go", "", 0o600);
    eventually("the pump reads", || {
        let waiting = std::fs::read_to_string(sandbox.path("run/group/recent"))
            .is_ok_and(|text| text.contains("hello"));
        waiting.then_some(())
    });
    pump.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(1500));
    pump.signal(Signal::SIGCONT);
    group.wait_hook("stdout", 0);
    holds_for(Duration::from_millis(500), "the pump lives", || group.pids() == group.started);
}

#[cfg(target_os = "linux")]
#[test]
fn an_idle_pump_looks_at_nothing() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("daemon")
        .recorder()
        .args(["--hook-timeout", "40ms"])
        .puppet(["out=hello", "hang"])
        .start();
    group.wait_hook("stdout", 0);
    let pump = group.started.of(Role::Monitor);
    let switches = || -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{pump}/task")).expect("the pump lives");
        let status = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok());
        status
            .flat_map(|text| {
                text.lines()
                    .filter(|line| line.contains("ctxt_switches"))
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .collect()
    };
    let mut before = switches();
    holds_for(Duration::from_millis(300), "the pump is at rest", || {
        let now = switches();
        std::mem::replace(&mut before, now.clone()) == now
    });
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(switches(), before, "no thread of the pump wakes up");
}
