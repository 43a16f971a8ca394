//! What a monitor is told, in which order, and what it can ask for.

use immortal_tests::{Group, Launch, Process, Record, Role, Sandbox, Signal, eventually, pattern};
use serde_json::{Value, json};

fn count(records: &[Record], hook: &str) -> usize {
    records.iter().filter(|record| record.hook() == hook).count()
}

fn has(hook: &'static str, times: usize) -> impl Fn(&[Record]) -> bool {
    move |records| count(records, hook) >= times
}

/// The index of the call of a hook after `skip` others of it.
fn index(records: &[Record], hook: &str, skip: usize) -> usize {
    let mut found = records.iter().enumerate().filter(|(_, record)| record.hook() == hook);
    found.nth(skip).map_or_else(|| panic!("no call {} of {hook} in {records:#?}", skip + 1), |(at, _)| at)
}

#[test]
fn a_life_is_told_in_order() {
    let sandbox = Sandbox::new();
    let steps = ["out=hello", "hang-after=1:count", "exit=0"];
    let group = sandbox.launch("unattached").recorder().puppet(steps).start();
    group.wait_records("the second run's output", has("stdout", 2));
    group.stop();
    assert_eq!(
        Record::order(&group.records()),
        ["check", "new", "setup", "spawn", "stdout", "exit", "respawn", "stdout", "exit", "finish"]
    );
}

#[test]
fn check_runs_in_no_member_of_the_group() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").recorder().puppet(["hang"]).start();
    let records = group.records();
    let checks: Vec<i32> =
        records.iter().filter(|record| record.hook() == "check").map(Record::pump).collect();
    assert!(!checks.is_empty());
    let pids = group.started;
    for check in checks {
        assert!(![pids.process, pids.monitor, pids.daemon].contains(&Some(check)), "{check} in {pids:?}");
    }
}

#[test]
fn every_other_call_comes_from_the_pump() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").recorder().puppet(["out=hello", "hang"]).start();
    let records = group.wait_records("output", has("stdout", 1));
    let others = records.iter().filter(|record| record.hook() != "check");
    others.for_each(|record| assert_eq!(Some(record.pump()), group.started.monitor, "{record:?}"));
}

#[test]
fn construction_is_told_what_was_started() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("daemon")
        .args(["--monitor", "eye=recorder"])
        .set("eye.record", sandbox.path("record"))
        .args(["--env", "COLOUR=green", "--exec", "/bin/sh"])
        .program([sandbox.file("script", "sleep 1000\n", 0o600).to_str().unwrap(), "two words", "ä"])
        .start();
    let settings = group.wait_hook("new", 0).0["settings"].clone();
    assert_eq!(settings["name"], "group");
    assert_eq!(settings["label"], "eye");
    assert_eq!(settings["strategy"], "daemon");
    assert_eq!(settings["args"], json!(["two words", "ä"]));
    assert!(settings["file"].as_str().unwrap().ends_with("script"), "{settings}");
    assert!(settings["exec"].as_str().unwrap().ends_with("sh"), "{settings}");
    let env = settings["env"].as_array().unwrap();
    assert!(env.contains(&json!("COLOUR=green")), "{settings}");
    assert!(env.contains(&json!(sandbox.marker_variable())), "the inherited ones too: {settings}");
}

#[test]
fn construction_is_told_the_pids() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").recorder().puppet(["hang"]).start();
    let pids = &group.wait_hook("new", 0).0["pids"];
    let started = group.started;
    assert_eq!(pids, &json!({ "process": null, "monitor": started.monitor, "daemon": started.daemon }));
}

#[test]
fn the_pids_can_be_read_at_any_time() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").recorder().puppet(["out=hello", "hang"]).start();
    let started = group.started;
    let expected =
        json!({ "process": started.process, "monitor": started.monitor, "daemon": started.daemon });
    for hook in ["spawn", "stdout"] {
        assert_eq!(group.wait_hook(hook, 0).0["pids"], expected, "{hook}");
    }
}

#[test]
fn the_first_setup_is_a_pump_start_without_a_message() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let group = sandbox.launch(strategy).recorder().puppet(["hang"]).start();
        let setup = group.wait_hook("setup", 0);
        assert_eq!((setup.text("why"), setup.text("message")), ("pump start", ""), "{strategy}");
    }
}

#[test]
fn the_setup_after_a_pumps_death_is_a_pump_restart() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").recorder().set("stderr", "last words").puppet(["hang"]).start();
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    let setup = group.wait_hook("setup", 1);
    assert_eq!((setup.text("why"), setup.text("message")), ("pump restart", "last words\n"));
}

#[test]
fn the_setup_after_a_daemons_death_is_a_daemon_restart_without_a_message() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").recorder().puppet(["hang"]).start();
    group.member(Role::Daemon).signal(Signal::SIGKILL);
    let setup = group.wait_hook("setup", 1);
    assert_eq!((setup.text("why"), setup.text("message")), ("daemon restart", ""));
}

#[test]
fn the_process_is_spawned_only_when_every_monitor_is_ready() {
    let sandbox = Sandbox::new();
    let record = sandbox.text_path("record");
    let group = sandbox
        .launch("unattached")
        .args(["-m", "early=recorder", "-m", "late=recorder"])
        .set("record", &record)
        .set("late.ready", "later:300ms")
        .puppet(["hang"])
        .start();
    let records = group.wait_records("both spawns", has("spawn", 2));
    assert!(index(&records, "ready", 0) < index(&records, "spawn", 0), "{records:#?}");
}

#[test]
fn both_streams_arrive_byte_for_byte() {
    let sandbox = Sandbox::new();
    let steps = ["pattern-out=2000001", "pattern-err=1000003", "pattern-out=5", "hang"];
    let group = sandbox.launch("unattached").recorder().puppet(steps).start();
    let records = group.wait_records("all bytes", |records| {
        let sizes = ["stdout", "stderr"].map(|stream| Record::stream(records, stream).len());
        sizes[0] >= 2_000_006 && sizes[1] >= 1_000_003
    });
    assert!(Record::stream(&records, "stdout") == [pattern(2_000_001), pattern(5)].concat());
    assert!(Record::stream(&records, "stderr") == pattern(1_000_003));
}

#[test]
fn a_slow_monitor_slows_the_process_down_and_loses_nothing() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("unattached")
        .recorder()
        .set("slow", "5ms")
        .puppet(["pattern-out=500000", "hang"])
        .start();
    let records =
        group.wait_records("all bytes", |records| Record::stream(records, "stdout").len() >= 500_000);
    assert!(Record::stream(&records, "stdout") == pattern(500_000));
}

#[test]
fn spawn_comes_before_the_first_byte() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("unattached").recorder().puppet(["out=hello", "err=oops", "hang"]).start();
    let records =
        group.wait_records("both streams", |records| has("stdout", 1)(records) && has("stderr", 1)(records));
    let spawn = index(&records, "spawn", 0);
    assert!(spawn < index(&records, "stdout", 0) && spawn < index(&records, "stderr", 0), "{records:#?}");
    assert_eq!(records[spawn].number("process"), i64::from(group.started.process.unwrap()));
}

#[test]
fn respawn_comes_before_the_first_byte_and_counts() {
    let sandbox = Sandbox::new();
    let pause = ["--backoff", "0ms", "--backoff-max", "0ms"];
    let steps = ["note=ran", "out=hello", "hang-after=3:count", "exit=1"];
    let group = sandbox.launch("unattached").recorder().args(pause).puppet(steps).start();
    let records = group.wait_records("the last run's output", has("stdout", 4));
    for (run, pid) in sandbox.noted("ran").into_iter().enumerate().skip(1) {
        let respawn = index(&records, "respawn", run - 1);
        assert!(index(&records, "exit", run - 1) < respawn && respawn < index(&records, "stdout", run));
        let (process, count) = (records[respawn].number("process"), records[respawn].number("count"));
        assert_eq!((process, count), (i64::from(pid), i64::try_from(run).unwrap()));
    }
}

#[test]
fn output_written_before_the_exit_is_delivered_before_it() {
    let sandbox = Sandbox::new();
    let steps = ["pattern-out=60000", "pattern-err=60000", "hang-after=1:count", "signal=KILL"];
    // The wait is after the first output of the second run, so that the second exit is not mistaken.
    let group = sandbox.launch("unattached").recorder().puppet(steps).start();
    let records = group.wait_records("the exit", has("exit", 1));
    let before = &records[..index(&records, "exit", 0)];
    assert!(Record::stream(before, "stdout") == pattern(60_000));
    assert!(Record::stream(before, "stderr") == pattern(60_000));
}

#[test]
fn exit_tells_the_code_and_how_long_it_ran() {
    let sandbox = Sandbox::new();
    let steps = ["sleep=150", "hang-after=1:count", "exit=9"];
    let group = sandbox.launch("unattached").recorder().puppet(steps).start();
    let exit = group.wait_hook("exit", 0);
    assert_eq!((&exit.0["code"], &exit.0["signal"]), (&json!(9), &Value::Null));
    assert_eq!(exit.number("process"), i64::from(group.started.process.unwrap()));
    assert!(exit.number("ran_ns") >= 150_000_000, "{exit:?}");
}

#[test]
fn exit_tells_the_signal() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("unattached").recorder().puppet(["hang"]).start();
    group.member(Role::Process).signal(Signal::SIGUSR1);
    let exit = group.wait_hook("exit", 0);
    assert_eq!((&exit.0["code"], &exit.0["signal"]), (&Value::Null, &json!(Signal::SIGUSR1 as i32)));
}

#[test]
fn what_a_survivor_of_the_process_writes_is_delivered() {
    let sandbox = Sandbox::new();
    let steps = [
        "hang-after=1:count",
        "session",
        "touch=child",
        "wait-file=go",
        "out=from the survivor",
        "end",
        "wait-file=child",
        "exit=0",
    ];
    let group = sandbox.launch("unattached").recorder().puppet(steps).start();
    group.wait_hook("respawn", 0);
    sandbox.file("go", "", 0o600);
    group.wait_records("its line", |records| Record::stream(records, "stdout") == b"from the survivor\n");
}

#[test]
fn a_process_that_closes_its_output_is_told_of_all_the_same() {
    let sandbox = Sandbox::new();
    let script = "exec >&- 2>&-; sleep 1000";
    let group = sandbox.launch("unattached").recorder().program(["/bin/sh", "-c", script]).start();
    group.member(Role::Process).signal(Signal::SIGKILL);
    group.wait_hook("respawn", 0);
}

/// A group whose monitor hangs in its first output and has more to read, with its pump killed then.
fn killed_with_unread_output<'a>(sandbox: &'a Sandbox, launch: Launch<'a>) -> Group<'a> {
    let steps = ["hang-after=1:count", "out=first", "wait-file=go", "out=unread", "touch=written", "hang"];
    let group =
        launch.recorder().set("when", "stdout").set("how", "hang").set("times", "1").puppet(steps).start();
    group.wait_hook("stdout", 0);
    sandbox.file("go", "", 0o600);
    eventually("more was written", || sandbox.path("written").exists().then_some(()));
    group
}

#[test]
fn the_successor_of_a_pump_gets_setup_then_the_unread_output_then_respawn() {
    let sandbox = Sandbox::new();
    let group = killed_with_unread_output(&sandbox, sandbox.launch("daemon"));
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    let records = group.wait_records("the respawn", has("respawn", 1));
    let told = &records[index(&records, "setup", 1)..];
    assert_eq!(Record::order(told), ["setup", "stdout", "respawn"]);
    assert_eq!(Record::stream(told, "stdout"), b"unread\n");
}

#[test]
fn the_successor_of_a_daemon_gets_setup_then_respawn() {
    let sandbox = Sandbox::new();
    let group =
        sandbox.launch("daemon").recorder().puppet(["hang-after=1:count", "out=hello", "hang"]).start();
    group.wait_hook("stdout", 0);
    group.member(Role::Daemon).signal(Signal::SIGKILL);
    let records = group.wait_records("the respawn", has("respawn", 1));
    let told = &records[index(&records, "setup", 1)..];
    assert_eq!(Record::order(told), ["setup", "respawn"]);
}

#[test]
fn several_monitors_each_get_everything_in_the_order_given() {
    let sandbox = Sandbox::new();
    let record = sandbox.text_path("record");
    let group = sandbox
        .launch("unattached")
        .args(["-m", "one=recorder", "-m", "two=recorder", "-m", "three=recorder"])
        .set("record", &record)
        .puppet(["pattern-out=200000", "hang-after=1:count", "exit=0"])
        .start();
    let records = group.wait_records("the second run", |records| {
        has("respawn", 3)(records) && Record::stream(records, "stdout").len() >= 3 * 400_000
    });
    let called: Vec<&Record> = records.iter().filter(|record| record.hook() != "check").collect();
    for calls in called.chunks(3) {
        let labels: Vec<&str> = calls.iter().map(|record| record.text("label")).collect();
        assert_eq!(labels, ["one", "two", "three"], "{calls:#?}");
        assert!(calls.iter().all(|record| record.hook() == calls[0].hook()), "{calls:#?}");
        assert!(calls.iter().all(|record| record.0["data_hex"] == calls[0].0["data_hex"]), "{calls:#?}");
    }
}

#[test]
fn a_monitor_can_ask_for_a_restart() {
    let sandbox = Sandbox::new();
    let steps =
        ["block=TERM", "hang-after=1:count", "out=again", "wait-signal=TERM", "touch=asked", "exit=0"];
    let group = sandbox.launch("daemon").recorder().set("restart_on", "again").puppet(steps).start();
    let new = group.wait_renewed(group.started, &[Role::Process]);
    assert!(sandbox.path("asked").exists(), "it is polite");
    let records = group.wait_records("the respawn", has("respawn", 1));
    assert_eq!(records[index(&records, "respawn", 0)].number("process"), i64::from(new.of(Role::Process)));
}

#[test]
fn a_monitor_can_ask_for_a_restart_of_a_process_that_is_not_to_be_respawned() {
    let sandbox = Sandbox::new();
    let steps = ["hang-after=1:count", "exit=0"];
    let group = sandbox
        .launch("unattached")
        .recorder()
        .set("restart_in", "exit")
        .args(["--restart", "never"])
        .puppet(steps)
        .start();
    group.wait_hook("respawn", 0);
}

#[test]
fn a_monitor_can_ask_for_the_end_of_the_group() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let steps = ["block=TERM", "wait-file=go", "out=end", "wait-signal=TERM", "touch=stopped", "exit=0"];
        let group = sandbox.launch(strategy).recorder().set("shutdown_on", "end").puppet(steps).start();
        sandbox.file("go", "", 0o600);
        eventually(&format!("{strategy}: everything is gone"), || {
            sandbox.processes().is_empty().then_some(())
        });
        assert!(sandbox.path("stopped").exists(), "the process was stopped politely");
        assert_eq!(Record::order(&group.records()).last().map(String::as_str), Some("finish"));
        sandbox.assert_nothing_left();
    }
}

#[test]
fn a_shutdown_asked_for_at_the_exit_ends_the_group() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("daemon")
        .recorder()
        .set("shutdown_in", "exit")
        .puppet(["note=ran", "wait-file=go", "exit=0"])
        .start();
    sandbox.file("go", "", 0o600);
    eventually("everything is gone", || sandbox.processes().is_empty().then_some(()));
    assert_eq!(sandbox.noted("ran").len(), 1);
    drop(group);
}

#[test]
fn a_monitor_may_run_children_of_its_own() {
    for hook in ["setup", "stdout", "exit"] {
        let sandbox = Sandbox::new();
        let group = sandbox
            .launch("daemon")
            .recorder()
            .set("when", hook)
            .set("how", "fork")
            .puppet(["out=hello", "hang-after=1:count", "exit=3"])
            .start();
        group.wait_records("the second run's output", has("stdout", 2));
        let status = group.status();
        assert_eq!(
            (&status["monitor_restarts"], &status["last_exit"]["code"]),
            (&json!(0), &json!(3)),
            "{hook}"
        );
    }
}

#[test]
fn a_monitors_own_child_that_it_forgets_is_not_mistaken_for_the_process() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("daemon")
        .recorder()
        .set("when", "spawn")
        .set("how", "fork")
        .puppet(["out=hello", "hang"])
        .start();
    group.wait_hook("stdout", 0);
    assert_eq!(group.pids(), group.started);
}

#[test]
fn idle_is_called_when_there_is_nothing_more_to_read() {
    let sandbox = Sandbox::new();
    let group =
        sandbox.launch("unattached").recorder().set("idle", "true").puppet(["out=hello", "hang"]).start();
    group.wait_records("idle after the output", |records| {
        let output = records.iter().position(|record| record.hook() == "stdout");
        let idle = records.iter().rposition(|record| record.hook() == "idle");
        output.is_some() && idle > output
    });
}

#[test]
fn finish_is_the_last_call_of_an_orderly_end() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let group = sandbox.launch(strategy).recorder().puppet(["out=hello", "hang"]).start();
        group.wait_hook("stdout", 0);
        group.stop();
        let records = group.records();
        assert_eq!(count(&records, "finish"), 1, "{strategy}: {records:#?}");
        assert_eq!(records.last().map(Record::hook), Some("finish"), "{strategy}");
    }
}

#[test]
fn a_monitor_that_fails_on_its_own_thread_ends_the_pump_with_its_text() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("daemon")
        .recorder()
        .set("when", "stdout")
        .set("how", "thread_fail")
        .set("times", "1")
        .puppet(["out=hello", "hang"])
        .start();
    let setup = group.wait_hook("setup", 1);
    assert_eq!(setup.text("why"), "pump restart");
    assert!(setup.text("message").contains("fixture thread_fail in stdout"), "{setup:?}");
}

#[test]
fn a_monitor_in_c_is_told_the_same() {
    let sandbox = Sandbox::new();
    let library = immortal_tests::CLibrary::new(include_str!("../fixtures/echo.c")).build(&sandbox, "echo");
    let group = sandbox
        .launch("daemon")
        .arg("--monitor")
        .arg(&library)
        .set("file", sandbox.path("echoed"))
        .puppet(["out=hello", "err=oops", "hang-after=1:count", "exit=5"])
        .start();
    let echoed = || std::fs::read_to_string(sandbox.path("echoed")).unwrap_or_default();
    eventually("the second run", || echoed().contains("respawn").then_some(()));
    let text = echoed();
    let pid = group.started.process.unwrap();
    assert!(text.starts_with(&format!("setup 1 0\nspawn {pid}\n")), "{text}");
    assert!(text.contains("1: hello\n") && text.contains("2: oops\n"), "{text}");
    assert!(text.contains(&format!("exit {pid} 5 -1\nrespawn ")), "{text}");
    let process = Process::find(group.started.monitor.unwrap()).unwrap();
    process.signal(Signal::SIGKILL);
    eventually("the next life", || echoed().contains("setup 2 0\n").then_some(()));
}
