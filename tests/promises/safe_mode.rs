//! `--on-crash keep`: bytes and monitors that pumps die of again and again are set aside, and the group goes on.

use immortal_tests::{Group, Launch, Process, Role, Sandbox, Signal, artifacts, eventually};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// A group that keeps its process, with short pauses.
fn keep(sandbox: &Sandbox) -> Launch<'_> {
    sandbox.launch("daemon").args(["--on-crash", "keep", "--backoff", "5ms", "--backoff-max", "5ms"])
}

fn aside_files(sandbox: &Sandbox) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(sandbox.runtime().join("group")).into_iter().flatten().flatten();
    let is_aside = |path: &PathBuf| path.to_string_lossy().contains("/aside.");
    entries.map(|entry| entry.path()).filter(is_aside).collect()
}

fn set_aside(group: &Group<'_>, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || group.try_status().filter(|status| wanted(status)))
}

fn is_degraded(status: &Value) -> bool {
    status["degraded"] == true
}

#[test]
fn bytes_that_a_monitor_dies_of_three_times_are_set_aside_for_it_alone() {
    for how in ["panic", "error", "abort", "segv", "exit0"] {
        let sandbox = Sandbox::new();
        let group = keep(&sandbox)
            .log()
            .recorder()
            .set("recorder.when", "stdout")
            .set("recorder.how", how)
            .set("recorder.skip", "1")
            .set("recorder.times", "3")
            .puppet(["out=good", "wait-file=go", "raw-out=evil", "wait-file=on", "out=after", "hang"])
            .start();
        let process = group.started.of(Role::Process);
        group.wait_hook("stdout", 0);
        sandbox.file("go", "", 0o600);
        let poisoned = |status: &Value| status["poisoned"].as_array().is_some_and(|list| !list.is_empty());
        let status = set_aside(&group, &format!("bytes set aside after three times {how}"), poisoned);
        let entry = &status["poisoned"][0];
        assert_eq!((entry["monitor"].as_str(), entry["stream"].as_str()), (Some("recorder"), Some("stdout")));
        assert_eq!((entry["offset"].as_u64(), entry["bytes"].as_u64()), (Some(5), Some(4)));
        let file = PathBuf::from(entry["file"].as_str().expect("a path"));
        assert_eq!(std::fs::read(&file).unwrap(), b"evil");
        group.wait_running("again", |pids| pids.get(Role::Process) == Some(process));
        sandbox.file("on", "", 0o600);
        group.wait_log("what came after", |log| log.output_text().contains("after"));
        eventually("what came after at the monitor that died", || {
            group
                .records()
                .iter()
                .any(|record| record.hook() == "stdout" && record.text("data") == "after\n")
                .then_some(())
        });
        let told = group.records().into_iter().rfind(|record| record.hook() == "setup").expect("a setup");
        assert!(told.text("message").contains(&*file.to_string_lossy()), "{told:?}");
        assert!(!is_degraded(&group.status()), "three deaths are not too many");
        assert_eq!(group.log().output_text().replace('\n', " ").trim(), "good evil after", "{how}");
        group.stop();
        assert_eq!(aside_files(&sandbox), [file], "what was set aside stays");
    }
}

#[test]
fn a_monitor_that_dies_too_often_is_set_aside_and_the_others_get_everything() {
    let sandbox = Sandbox::new();
    let group = keep(&sandbox)
        .log()
        .recorder()
        .set("recorder.when", "stdout")
        .set("recorder.how", "abort")
        .puppet(["ticks=400:5", "hang"])
        .start();
    let process = group.started.of(Role::Process);
    let status = set_aside(&group, "the recorder is set aside", is_degraded);
    assert_eq!(status["set_aside"], serde_json::json!(["recorder"]));
    let list = sandbox.immortal(["list", "--json"]).run().json();
    assert_eq!(list[0]["degraded"], true);
    let pids = group.wait_running("without it", |pids| pids.get(Role::Process) == Some(process));
    let log = group.wait_log("the last line", |log| log.output_text().ends_with(" 399\n"));
    let numbers: Vec<u64> =
        log.output_text().lines().filter_map(|line| line.split(' ').nth(1)?.parse().ok()).collect();
    assert_eq!(numbers, (0..400).collect::<Vec<_>>(), "every line once and in order");
    assert_eq!(group.pids(), pids);
    group.stop();
}

#[test]
fn a_monitor_that_fails_in_a_thread_of_its_own_is_set_aside_and_not_the_one_whose_hook_runs() {
    let sandbox = Sandbox::new();
    let group = keep(&sandbox)
        .log()
        .recorder()
        .args(["--monitor", "slow=recorder"])
        .set("slow.slow", "20ms")
        .set("recorder.when", "stdout")
        .set("recorder.how", "thread_fail")
        .puppet(["ticks=400:5", "hang"])
        .start();
    let process = group.started.of(Role::Process);
    let status = set_aside(&group, "the recorder is set aside", is_degraded);
    assert_eq!(status["set_aside"], serde_json::json!(["recorder"]));
    assert_eq!(status["last_crash"]["by_hook"], false, "{status}");
    group.wait_running("without it", |pids| pids.get(Role::Process) == Some(process));
    let log = group.wait_log("the last line", |log| log.output_text().ends_with(" 399\n"));
    let numbers: Vec<u64> =
        log.output_text().lines().filter_map(|line| line.split(' ').nth(1)?.parse().ok()).collect();
    assert_eq!(numbers, (0..400).collect::<Vec<_>>(), "every line once and in order");
    group.stop();
}

#[test]
fn a_monitor_that_never_gets_ready_is_set_aside_however_long_that_takes() {
    let sandbox = Sandbox::new();
    let group = keep(&sandbox)
        .log()
        .recorder()
        .args(["--setup-timeout", "300ms", "--monitor-crash-window", "1s"])
        .set("recorder.when", "setup")
        .set("recorder.how", "hang")
        .set("recorder.skip", "1")
        .puppet(["hang"])
        .start();
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    let status = set_aside(&group, "the recorder is set aside", is_degraded);
    assert_eq!(status["set_aside"], serde_json::json!(["recorder"]));
    group.wait_running("without it", |pids| pids.get(Role::Process) == group.started.get(Role::Process));
    group.stop();
}

#[test]
fn a_monitor_that_hangs_in_what_it_is_given_again_is_named_and_the_bytes_are_set_aside() {
    let sandbox = Sandbox::new();
    let group = keep(&sandbox)
        .recorder()
        .args(["--setup-timeout", "300ms"])
        .set("recorder.when", "stdout")
        .set("recorder.how", "hang")
        .set("recorder.times", "4")
        .puppet(["raw-out=evil", "hang"])
        .start();
    group.wait_hook("stdout", 0);
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    let poisoned = |status: &Value| status["poisoned"].as_array().is_some_and(|list| !list.is_empty());
    let status = set_aside(&group, "the bytes are set aside", poisoned);
    let crash = &status["last_crash"];
    assert_eq!(crash["by_hook"], true, "{status}");
    assert_eq!(crash["hook"], "stdout", "{status}");
    let files = aside_files(&sandbox);
    assert_eq!(std::fs::read(&files[0]).unwrap(), b"evil");
    group.wait_running("it goes on", |pids| pids.get(Role::Process) == group.started.get(Role::Process));
    let setups: Vec<_> = group.records().into_iter().filter(|record| record.hook() == "setup").collect();
    let message = String::from_utf8(setups[2].bytes("message")).unwrap();
    assert!(message.contains("monitor recorder: it was not ready within 300ms"), "{message}");
    group.stop();
}

#[test]
fn when_no_monitor_is_left_log_writes_into_the_groups_directory() {
    let sandbox = Sandbox::new();
    let group = keep(&sandbox)
        .args(["--monitor-crashes", "2"])
        .recorder()
        .set("when", "stdout")
        .set("how", "segv")
        .puppet(["out=first", "wait-file=go", "out=second", "hang"])
        .start();
    set_aside(&group, "the recorder is set aside", is_degraded);
    sandbox.file("go", "", 0o600);
    let path = sandbox.runtime().join("group/output.log");
    let whole = || std::fs::read_to_string(&path).unwrap_or_default();
    eventually("both lines in the group's own log", || {
        (whole().contains("\nfirst\n") && whole().contains("\nsecond\n")).then_some(())
    });
    group.stop();
    assert!(whole().contains("process terminated"), "{}", whole());
    assert!(sandbox.immortal(["list", "--json"]).run().json().as_array().is_some_and(Vec::is_empty));
    // The name is free, and the file is not in the way.
    let again = keep(&sandbox).recorder().puppet(["hang"]).start();
    again.stop();
    assert!(path.exists());
}

#[test]
fn kills_from_outside_set_nothing_aside() {
    let sandbox = Sandbox::new();
    let group = keep(&sandbox)
        .args(["--monitor-crashes", "2"])
        .recorder()
        .set("slow", "3600s")
        .puppet(["out=held", "hang"])
        .start();
    let process = group.started.of(Role::Process);
    let mut pump = group.started.of(Role::Monitor);
    for round in 0..5 {
        // It is in the middle of the hook, which thinks about the line for ever, and before that in `setup`.
        group.wait_hook("setup", round);
        std::thread::sleep(Duration::from_millis(20));
        let signal = if round % 2 == 0 { Signal::SIGKILL } else { Signal::SIGTERM };
        Process::find(pump).expect("the pump lives").signal(signal);
        let old = pump;
        let other = |pids: &immortal_tests::Pids| pids.get(Role::Monitor).filter(|pid| *pid != old);
        pump = eventually("another pump", || other(&group.pids()));
    }
    let status = group.status();
    assert!(!is_degraded(&status), "{status}");
    assert_eq!(status["poisoned"], serde_json::json!([]));
    assert_eq!(status["pids"]["process"], process);
    group.stop();
}

#[test]
fn a_monitor_that_was_set_aside_is_tried_again_when_its_file_has_changed() {
    let sandbox = Sandbox::new();
    let library = sandbox.executable(artifacts().monitor("recorder"), "librecorder.so");
    let group = keep(&sandbox)
        .args(["--monitor-crashes", "1"])
        .arg("--monitor")
        .arg(format!("rec={}", library.display()))
        .set("rec.record", sandbox.path("record"))
        .set("rec.when", "stdout")
        .set("rec.how", "exit0")
        .set("rec.times", "1")
        .log()
        .puppet(["out=first", "wait-file=go", "out=second", "hang"])
        .start();
    set_aside(&group, "the recorder is set aside", is_degraded);
    let old = group.wait_running("without it", |_| true);
    // The same file: it stays aside.
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    let new = group.wait_running("a new pump", |pids| pids.get(Role::Monitor) != old.get(Role::Monitor));
    assert!(is_degraded(&group.status()));
    let fresh = sandbox.executable(artifacts().monitor("recorder"), "fresh.so");
    std::fs::rename(fresh, &library).unwrap();
    let another = |pids: &immortal_tests::Pids| pids.get(Role::Monitor) != new.get(Role::Monitor);
    let pids = group.wait_running("another pump, by itself", another);
    assert_eq!(pids.get(Role::Process), old.get(Role::Process));
    assert!(!is_degraded(&group.status()));
    sandbox.file("go", "", 0o600);
    eventually("the second line at the recorder", || {
        group
            .records()
            .iter()
            .any(|record| record.hook() == "stdout" && record.text("data").contains("second"))
            .then_some(())
    });
    group.stop();
}

#[test]
fn zero_sets_no_monitor_aside() {
    let sandbox = Sandbox::new();
    let group = keep(&sandbox)
        .args(["--monitor-crashes", "0"])
        .log()
        .recorder()
        .set("recorder.when", "setup")
        .set("recorder.how", "abort")
        .set("recorder.skip", "1")
        .set("recorder.times", "12")
        .puppet(["hang"])
        .start();
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    let status = set_aside(&group, "twelve crashes are over", |status| {
        status["state"] == "running" && status["monitor_restarts"].as_u64() >= Some(13)
    });
    assert!(!is_degraded(&status), "{status}");
    assert_eq!(status["pids"]["process"], group.started.of(Role::Process));
    group.stop();
}
