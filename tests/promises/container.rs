//! `immortal start --strategy development` as process 1 of a container: it reaps whatever comes to it, ends with the
//! last member, and says how that went. Linux, and only for root: another process 1 needs a pid namespace.
#![cfg(target_os = "linux")]

use immortal_tests::{Invocation, Process, Running, Sandbox, Signal, artifacts, eventually};
use std::time::Duration;

/// Prepares `immortal start` as process 1 of a pid namespace; `None`, and a line that says so, where that cannot be
/// had.
fn first<'a>(sandbox: &'a Sandbox, options: &[&'a str], program: &[&'a str]) -> Option<Invocation> {
    let namespace = ["--pid", "--fork", "--mount-proc", "--kill-child"];
    let possible = std::process::Command::new("unshare").args(namespace).arg("true").output();
    if !possible.is_ok_and(|output| output.status.success()) {
        #[expect(clippy::print_stderr, reason = "a test that looked at nothing says so")]
        {
            eprintln!("skipped: no pid namespace can be made here");
        }
        return None;
    }
    let strategy = ["start", "--name", "group", "--strategy", "development"];
    Some(
        sandbox
            .invocation("unshare")
            .args(namespace)
            .arg(artifacts().immortal())
            .args(strategy)
            .args(options)
            .args(program),
    )
}

/// Process 1 of the namespace, seen from outside.
fn first_process(sandbox: &Sandbox) -> Process {
    eventually("process 1", || {
        let own = artifacts().immortal().to_string_lossy().into_owned();
        sandbox.processes().into_iter().find(|process| process.command_line().starts_with(&own))
    })
}

fn started(sandbox: &Sandbox, options: &[&str], program: &[&str]) -> Option<Running> {
    let running = first(sandbox, options, program)?.spawn();
    running.wait_stdout("ready\n");
    Some(running)
}

#[test]
fn ten_thousand_orphans_are_reaped() {
    let sandbox = Sandbox::new();
    // `(true &)`: the parent of `true` is gone at once. The namespace's own /proc shows who is left.
    let script = "n=0; while [ $n -lt 10000 ]; do (true &); n=$((n + 1)); done; \
                  for look in $(seq 1 200); do \
                  left=$(cat /proc/[0-9]*/stat 2>/dev/null | sed 's/.*) //' | grep -c '^Z'); \
                  [ \"$left\" -eq 0 ] && break; sleep 0.1; done; \
                  echo \"left $left of $n\"; exit 7";
    let Some(run) = first(&sandbox, &["--no-auto"], &["/bin/sh", "-c", script]) else { return };
    let ended = run.run();
    ended.assert_code(7);
    assert_eq!(ended.out(), "left 0 of 10000\n", "{ended}");
    sandbox.assert_nothing_left();
}

#[test]
fn a_termination_ends_everything_and_the_status_is_that_of_the_process() {
    let sandbox = Sandbox::new();
    let script = "trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let Some(run) = started(&sandbox, &[], &["/bin/sh", "-c", script]) else { return };
    first_process(&sandbox).signal(Signal::SIGTERM);
    let ended = run.wait();
    ended.assert_code(9);
    assert_eq!(ended.out(), "ready\nbye\n");
    sandbox.assert_nothing_left();
}

#[test]
fn a_process_that_the_termination_ends_makes_it_143() {
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 143), (Signal::SIGHUP, 143)] {
        let sandbox = Sandbox::new();
        let program = ["/bin/sh", "-c", "echo ready; exec sleep 100000"];
        let Some(run) = started(&sandbox, &[], &program) else { return };
        first_process(&sandbox).signal(signal);
        run.wait().assert_code(code);
        sandbox.assert_nothing_left();
    }
}

#[test]
fn strangers_that_ignore_the_termination_end_within_the_stop_timeout() {
    let sandbox = Sandbox::new();
    let script = "(trap '' TERM HUP; setsid sh -c 'trap \"\" TERM; sleep 100000' &); \
                  trap '' TERM; echo ready; sleep 100000; sleep 100000";
    let Some(run) = started(&sandbox, &["--stop-timeout", "600ms"], &["/bin/sh", "-c", script]) else {
        return;
    };
    let since = std::time::Instant::now();
    first_process(&sandbox).signal(Signal::SIGTERM);
    let ended = run.wait();
    ended.assert_code(137);
    assert!(since.elapsed() < Duration::from_millis(600) + Duration::from_secs(1), "{:?}", since.elapsed());
    assert!(sandbox.processes().is_empty());
    sandbox.assert_nothing_left();
}

#[test]
fn a_second_termination_does_not_wait() {
    let sandbox = Sandbox::new();
    let script = "trap 'echo noted' TERM; echo ready; while :; do sleep 0.05; done";
    let Some(run) = started(&sandbox, &["--stop-timeout", "1h"], &["/bin/sh", "-c", script]) else { return };
    let process = first_process(&sandbox);
    process.signal(Signal::SIGTERM);
    run.wait_stdout("noted\n");
    process.signal(Signal::SIGTERM);
    run.wait().assert_code(137);
}

#[test]
fn giving_up_ends_the_container_with_the_last_status() {
    let sandbox = Sandbox::new();
    let options =
        ["--restart", "on-failure", "--max-restarts", "3", "--backoff", "10ms", "--backoff-max", "10ms"];
    let program = ["/bin/sh", "-c", "echo run; exit 4"];
    let Some(run) = first(&sandbox, &options, &program) else { return };
    let ended = run.run();
    ended.assert_code(4);
    assert_eq!(ended.out(), "run\n".repeat(4), "the first run and three respawns");
    let sandbox = Sandbox::new();
    let Some(run) = first(&sandbox, &options, &["/bin/sh", "-c", "echo run; exit 0"]) else { return };
    let ended = run.run();
    ended.assert_code(0);
    assert_eq!(ended.out(), "run\n", "what ends well is not respawned");
}

#[test]
fn a_program_that_is_not_there_ends_the_container_with_127() {
    let sandbox = Sandbox::new();
    let Some(run) = first(&sandbox, &[], &["/nonexistent"]) else { return };
    let ended = run.run();
    ended.assert_refused(127);
}

#[test]
fn it_is_controlled_from_inside() {
    let sandbox = Sandbox::new();
    let script = "\"$0\" status group --json; \"$0\" list; echo ready; exec sleep 100000";
    let immortal = artifacts().immortal();
    let program = ["/bin/sh", "-c", script, immortal.to_str().unwrap()];
    let Some(run) = started(&sandbox, &[], &program) else { return };
    let text = String::from_utf8_lossy(&run.stdout()).into_owned();
    let status: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(status["name"], "group");
    assert!(["starting", "running"].contains(&status["state"].as_str().unwrap()), "{status:#}");
    first_process(&sandbox).signal(Signal::SIGTERM);
    run.wait().assert_code(143);
}

#[test]
fn a_read_only_container_is_no_trouble() {
    let sandbox = Sandbox::new();
    let program = ["/bin/sh", "-c", "echo ready; exec sleep 100000"];
    let Some(run) = first(&sandbox, &[], &program) else { return };
    // Nothing can be made below a file.
    let run = run.env("IMMORTAL_RUNTIME_DIR", "/proc/version/run").spawn();
    run.wait_stdout("ready\n");
    first_process(&sandbox).signal(Signal::SIGTERM);
    let ended = run.wait();
    ended.assert_code(143);
    assert!(ended.err().contains("cannot be controlled"), "{ended}");
}
