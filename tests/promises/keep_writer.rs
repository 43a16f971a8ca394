//! `--on-crash keep`, accounted for line by line: whoever is killed or crashes, the process stays, and not a line of
//! it is lost.
#![cfg(target_os = "linux")]

use immortal_tests::{Group, Kills, Launch, Ledger, Role, Sandbox, Signal, eventually, holds_for};
use std::path::PathBuf;
use std::time::Duration;

/// Lines a second; 0: at full speed.
const FAST: u64 = 0;
const STEADY: u64 = 1000;
/// How many kills each of these tests does; `IMMORTAL_TEST_KILLS` asks for more.
const KILLS: u64 = 60;

fn count(sandbox: &Sandbox) -> PathBuf {
    sandbox.path("count")
}

fn writer<'a>(launch: Launch<'a>, sandbox: &Sandbox, rate: u64) -> Group<'a> {
    let group = launch.keep().puppet([Ledger::step(&count(sandbox), rate, 0)]).start();
    wait_written(sandbox, 1);
    group
}

#[track_caller]
fn wait_written(sandbox: &Sandbox, least: u64) {
    eventually(&format!("{least} lines are written"), || {
        (Ledger::written(&count(sandbox)) >= least).then_some(())
    });
}

/// Stops the group and holds what `log` has against what was written.
#[track_caller]
fn ledger_of_log(group: &Group<'_>) -> Ledger {
    group.stop();
    Ledger::new(&count(group.sandbox), &group.log().output())
}

/// Kills pump and daemon in turn while the process writes.
#[track_caller]
fn killed_in_turn(rate: u64, seed: u64) -> (Ledger, String) {
    let sandbox = Sandbox::new();
    let group = writer(sandbox.launch("daemon").log(), &sandbox, rate);
    let mut kills = Kills::new(&group, seed);
    kills.kill_times(Kills::wanted(KILLS));
    kills.settle();
    (ledger_of_log(&group), kills.to_string())
}

#[test]
fn no_line_is_missing_when_pump_and_daemon_are_killed_in_turn() {
    let (ledger, what) = killed_in_turn(STEADY, 1);
    ledger.assert_complete(&what);
}

#[test]
fn no_line_is_missing_at_full_speed_when_pump_and_daemon_are_killed_in_turn() {
    let (ledger, what) = killed_in_turn(FAST, 2);
    ledger.assert_complete(&what);
}

#[test]
fn log_has_every_line_once_when_pump_and_daemon_are_killed_in_turn() {
    let (ledger, what) = killed_in_turn(STEADY, 3);
    ledger.assert_exact(&what);
}

#[test]
fn log_has_every_line_once_at_full_speed_when_pump_and_daemon_are_killed_in_turn() {
    let (ledger, what) = killed_in_turn(FAST, 4);
    ledger.assert_exact(&what);
}

/// How often the recorder's hook was called, by all its instances.
fn calls(sandbox: &Sandbox) -> u64 {
    std::fs::metadata(sandbox.path("calls")).map_or(0, |data| data.len())
}

/// `log` beside a monitor that fails in this way in every so-many-th call, as long as the file `fails` exists.
fn failing<'a>(sandbox: &'a Sandbox, how: &str, every: u64) -> Launch<'a> {
    sandbox.file("fails", "", 0o600);
    sandbox
        .launch("daemon")
        .log()
        .args(["--monitor", "recorder", "--monitor-crashes", "0"])
        .set("recorder.when", "stdout")
        .set("recorder.how", how)
        .set("recorder.every", every.to_string())
        .set("recorder.once_exists", sandbox.path("fails"))
        .set("recorder.counter", sandbox.path("calls"))
}

/// The same while a second monitor fails now and then. A daemon is killed only while it does not: if its pump crashed
/// at that moment, both would be gone.
#[track_caller]
fn killed_and_crashing(rate: u64, how: &str, every: u64, seed: u64) {
    let sandbox = Sandbox::new();
    let launch = failing(&sandbox, how, every).args(["--hook-timeout", "300ms"]);
    let group = writer(launch, &sandbox, rate);
    let mut kills = Kills::new(&group, seed);
    for _ in 0..Kills::wanted(KILLS) / 20 {
        let before = calls(&sandbox);
        for _ in 0..3 {
            kills.kill_role(Role::Monitor);
        }
        eventually(&format!("a crash by {how} after {kills}"), || {
            (calls(&sandbox) > before + every).then_some(())
        });
        std::fs::remove_file(sandbox.path("fails")).expect("it is there");
        kills.kill_role(Role::Monitor);
        kills.kill_role(Role::Daemon);
        kills.settle();
        sandbox.file("fails", "", 0o600);
    }
    let what = format!("{kills}, {} calls, {how} in every {every}th", calls(&sandbox));
    ledger_of_log(&group).assert_complete(&what);
}

#[test]
fn no_line_is_missing_when_another_monitor_panics_as_well() {
    killed_and_crashing(STEADY, "panic", 200, 5);
    killed_and_crashing(FAST, "panic", 500, 6);
}

#[test]
fn no_line_is_missing_when_another_monitor_faults_as_well() {
    killed_and_crashing(STEADY, "segv", 200, 7);
    killed_and_crashing(FAST, "segv", 500, 8);
}

#[test]
fn no_line_is_missing_when_another_monitor_exits_as_well() {
    killed_and_crashing(STEADY, "exit0", 200, 9);
    killed_and_crashing(FAST, "exit0", 500, 10);
}

#[test]
fn no_line_is_missing_when_another_monitor_fails_as_well() {
    killed_and_crashing(STEADY, "error", 200, 11);
}

#[test]
fn no_line_is_missing_when_another_monitor_hangs_as_well() {
    killed_and_crashing(STEADY, "hang", 200, 12);
    killed_and_crashing(FAST, "hang", 500, 13);
}

#[test]
fn no_line_is_missing_when_another_monitor_is_set_aside_at_last() {
    let sandbox = Sandbox::new();
    let launch = sandbox
        .launch("daemon")
        .log()
        .args(["--monitor", "recorder", "--monitor-crashes", "5"])
        .set("recorder.when", "stdout")
        .set("recorder.how", "abort")
        .set("recorder.every", "100")
        .set("recorder.counter", sandbox.path("calls"));
    let group = writer(launch, &sandbox, STEADY);
    eventually("the monitor is set aside", || (group.status()["degraded"] == true).then_some(()));
    let so_far = Ledger::written(&count(&sandbox));
    let mut kills = Kills::new(&group, 14);
    kills.kill_times(10);
    kills.settle();
    wait_written(&sandbox, so_far + 100);
    ledger_of_log(&group).assert_complete(&kills.to_string());
}

#[test]
fn a_process_waits_while_a_monitor_hangs_and_goes_on_behind_it() {
    let sandbox = Sandbox::new();
    let group = writer(failing(&sandbox, "hang", 20).set("recorder.times", "1"), &sandbox, FAST);
    eventually("the monitor hangs", || (calls(&sandbox) == 20).then_some(()));
    // What a pipe and the spool hold is soon written; then the process waits.
    let mut written = 0;
    holds_for(Duration::from_millis(300), "the process waits", || {
        let before = std::mem::replace(&mut written, Ledger::written(&count(&sandbox)));
        written == before
    });
    let waiting_bytes = written * 16;
    let group_bytes = group.log().output().len() as u64;
    assert!(
        waiting_bytes - group_bytes < 3 << 20,
        "{waiting_bytes} bytes were written, {group_bytes} delivered"
    );
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    wait_written(&sandbox, written + 100_000);
    ledger_of_log(&group).assert_complete("after the pump with the hanging monitor was killed");
}

#[test]
fn recent_output_goes_on_after_kills() {
    let sandbox = Sandbox::new();
    let group = writer(sandbox.launch("daemon").log(), &sandbox, STEADY);
    let newest = || -> u64 {
        let logs = sandbox.immortal(["logs", "group", "-n", "40"]).run();
        logs.assert_code(0);
        logs.out().lines().filter_map(|line| line.parse().ok()).max().unwrap_or(0)
    };
    let mut kills = Kills::new(&group, 15);
    for _ in 0..6 {
        kills.kill();
        kills.settle();
        let so_far = Ledger::written(&count(&sandbox));
        eventually(&format!("`logs` shows line {so_far} after {kills}"), || {
            (newest() >= so_far).then_some(())
        });
    }
}

#[test]
fn following_the_recent_output_outlives_pump_and_daemon() {
    let sandbox = Sandbox::new();
    let group = writer(sandbox.launch("daemon").log(), &sandbox, STEADY);
    let follow = sandbox.immortal(["logs", "group", "-n", "1", "-f"]).spawn();
    eventually("it follows", || (!follow.stdout().is_empty()).then_some(()));
    let mut kills = Kills::new(&group, 16);
    kills.kill_times(6);
    kills.settle();
    let last = Ledger::written(&count(&sandbox));
    follow.wait_stdout(&format!("{last:015}\n"));
    let text = String::from_utf8_lossy(&follow.stdout()).into_owned();
    let numbers: Vec<u64> = text.lines().filter_map(|line| line.parse().ok()).collect();
    let first = *numbers.iter().min().expect("a line");
    let missing: Vec<u64> = (first..=last).filter(|number| !numbers.contains(number)).collect();
    assert!(missing.is_empty(), "not shown after {kills}: {missing:?}");
}
