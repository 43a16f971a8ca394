//! Monitors that panic, fail, abort, fault, exit, hang or flood: their pump is replaced, and the next monitor
//! learns why.

use immortal_tests::{Group, Process, Record, Role, Sandbox, Signal, eventually, holds_for};
use std::time::Duration;

/// The hooks of a running group, with what makes each of them be called once more than is harmless.
const HOOKS: [&str; 8] = ["new", "setup", "spawn", "stdout", "stderr", "idle", "exit", "respawn"];

/// Starts a group whose monitor fails once in this hook, and returns the setup of the monitor after it. `None` if
/// the pump died before `start` had its answer, so that nothing was started.
fn setup_after(hook: &str, how: &str) -> Option<Record> {
    let sandbox = Sandbox::new();
    // The first life has to get through these two, or the start would fail.
    let skip = if ["new", "setup"].contains(&hook) { "1" } else { "0" };
    // Called at any time, also before the process runs; with this, not before the start is over.
    let once_exists = if hook == "idle" { "go" } else { "." };
    let start = sandbox
        .launch("daemon")
        .recorder()
        .set("when", hook)
        .set("how", how)
        .set("once_exists", once_exists)
        .set("skip", skip)
        .set("times", "1")
        .puppet(["wait-file=go", "out=hello", "err=oops", "hang"])
        .run();
    if hook == "spawn" && start.code == Some(125) {
        return None;
    }
    start.assert_code(0);
    let group = Group::find(&sandbox, "group");
    match hook {
        "new" | "setup" => group.member(Role::Monitor).signal(Signal::SIGKILL),
        "exit" | "respawn" => group.member(Role::Process).signal(Signal::SIGKILL),
        _ => {}
    }
    sandbox.file("go", "", 0o600);
    let message_of_the_crash =
        |record: &&Record| record.hook() == "setup" && record.text("message").contains("fixture");
    let setup = eventually(&format!("a setup after the {how} in {hook}"), || {
        group.records().iter().find(message_of_the_crash).cloned()
    });
    group.wait_running("after the crash", |_| true);
    Some(setup)
}

#[test]
fn a_process_that_is_not_to_be_respawned_is_not_because_a_monitor_crashes_at_its_end() {
    for (policy, keep) in [("never", false), ("on-failure", false), ("never", true)] {
        for how in ["error", "segv"] {
            let sandbox = Sandbox::new();
            let launch =
                sandbox.launch("daemon").recorder().set("when", "exit").set("how", how).set("times", "1");
            let launch = if keep { launch.keep() } else { launch };
            let start =
                launch.args(["--restart", policy]).puppet(["note=ran", "wait-file=go", "exit=0"]).run();
            start.assert_code(0);
            let group = Group::find(&sandbox, "group");
            sandbox.file("go", "", 0o600);
            eventually("the second pump", || (group.status()["monitor_restarts"] == 1).then_some(()));
            let status = group.wait_state("stopped");
            assert_eq!(status["restarts"], 0, "{policy}, {how}");
            assert_eq!(sandbox.noted("ran").len(), 1, "{policy}, {how}");
            group.command("restart").assert_code(0);
            eventually("it runs again when asked", || (sandbox.noted("ran").len() == 2).then_some(()));
        }
    }
}

#[test]
fn a_restart_is_refused_while_no_monitor_gets_ready() {
    let sandbox = Sandbox::new();
    let pauses = ["--backoff", "60s", "--backoff-max", "60s"];
    let launch =
        sandbox.launch("daemon").recorder().set("when", "setup").set("how", "error").set("times", "1000");
    let group = launch.set("once_exists", "broken").args(pauses).puppet(["hang"]).start();
    sandbox.file("broken", "", 0o600);
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    group.wait_state("backoff");
    let run = group.command("restart");
    run.assert_refused(1);
    assert!(run.err().contains("fixture error in setup"), "{run}");
    std::fs::remove_file(sandbox.path("broken")).unwrap();
    group.command("restart").assert_code(0);
    group.wait_running("after the restart", |_| true);
}

#[test]
fn the_hint_of_a_monitor_that_refuses_a_start_is_shown() {
    for strategy in ["unattached", "daemon", "development"] {
        for hook in ["check", "new", "setup"] {
            let sandbox = Sandbox::new();
            let run = sandbox
                .launch(strategy)
                .recorder()
                .set("when", hook)
                .set("how", "hint")
                .puppet(["hang"])
                .run();
            run.assert_code(125);
            let err = run.err();
            let lines: Vec<&str> = err.lines().collect();
            let shown = lines.iter().position(|line| line.starts_with("error: monitor recorder: "));
            let hint = shown.and_then(|at| lines.get(at + 1));
            assert_eq!(hint, Some(&"hint: fixture hint"), "{strategy}, {hook}: {run}");
        }
    }
}

#[test]
fn a_start_whose_monitor_crashes_names_it_and_its_hook() {
    for strategy in ["unattached", "daemon", "development"] {
        for (hook, name) in [("new", "create"), ("setup", "setup")] {
            for how in ["abort", "segv"] {
                let sandbox = Sandbox::new();
                let run = sandbox
                    .launch(strategy)
                    .recorder()
                    .set("when", hook)
                    .set("how", how)
                    .puppet(["hang"])
                    .run();
                run.assert_code(125);
                let last = run.err().lines().last().unwrap_or_default().to_owned();
                let expected = format!("error: the pump died: in {name} of monitor recorder: ");
                assert!(last.starts_with(&expected), "{strategy}, {how} in {hook}: {run}");
                assert!(sandbox.processes().is_empty(), "{strategy}, {how} in {hook}");
            }
        }
    }
}

#[track_caller]
fn text_reaches_the_next_setup(how: &str, text: impl Fn(&str) -> Vec<String>) {
    for hook in HOOKS {
        let setup = (0..50).find_map(|_| setup_after(hook, how));
        let setup = setup.unwrap_or_else(|| panic!("{how} in {hook} always fails the start"));
        assert_eq!(setup.text("why"), "pump restart", "{hook}: {setup:?}");
        for text in text(hook) {
            assert!(setup.text("message").contains(&text), "{hook}: {text:?} in {setup:?}");
        }
    }
}

#[test]
fn a_panic_in_any_hook_reaches_the_next_setup_with_the_hooks_name() {
    text_reaches_the_next_setup("panic", |hook| vec!["fixture panic".into(), hook.into()]);
}

#[test]
fn an_error_of_any_hook_reaches_the_next_setup() {
    text_reaches_the_next_setup("error", |hook| vec![format!("fixture error in {hook}")]);
}

#[test]
fn the_last_words_before_an_abort_in_any_hook_reach_the_next_setup() {
    text_reaches_the_next_setup("abort", |hook| vec![format!("fixture abort in {hook}")]);
}

#[test]
fn the_last_words_before_a_fault_in_any_hook_reach_the_next_setup() {
    text_reaches_the_next_setup("segv", |hook| vec![format!("fixture segv in {hook}")]);
}

#[test]
fn the_last_words_before_an_exit_in_any_hook_reach_the_next_setup() {
    text_reaches_the_next_setup("exit0", |hook| vec![format!("fixture exit0 in {hook}")]);
}

#[test]
fn a_crash_gives_a_new_pump_and_process_under_the_same_daemon() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("daemon")
        .recorder()
        .set("when", "stdout")
        .set("how", "panic")
        .set("times", "1")
        .puppet(["wait-file=go", "out=hello", "hang"])
        .start();
    sandbox.file("go", "", 0o600);
    group.wait_renewed(group.started, &[Role::Process, Role::Monitor]);
}

#[test]
fn what_the_others_had_not_got_when_a_monitor_crashed_is_delivered_by_the_next_pump() {
    for how in ["panic", "error", "abort", "segv", "exit0"] {
        let sandbox = Sandbox::new();
        let group = sandbox
            .launch("daemon")
            .recorder()
            .log()
            .set("recorder.when", "stdout")
            .set("recorder.how", how)
            .set("recorder.times", "1")
            .puppet(["wait-file=go", "out=hello", "hang"])
            .start();
        sandbox.file("go", "", 0o600);
        // The new process says it too.
        let log = group.wait_log("both lines", |log| log.output_text().matches("hello\n").count() == 2);
        assert_eq!(log.output_text(), "hello\nhello\n", "{how}");
        let of_first = log.output_before("! process#").is_none_or(|before| before.ends_with(b"hello\n"));
        assert!(of_first, "{how}: it comes before the respawn");
        let heard = group.records().iter().filter(|record| record.hook() == "stdout").count();
        assert_eq!(heard, 2, "{how}: the one that crashed had received it already");
        group.stop();
    }
}

#[test]
fn a_crash_is_told_in_the_log_of_another_monitor() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("daemon")
        .log()
        .recorder()
        .set("recorder.when", "stdout")
        .set("recorder.how", "error")
        .set("recorder.times", "1")
        .puppet(["wait-file=go", "out=hello", "hang"])
        .start();
    let old = group.started;
    sandbox.file("go", "", 0o600);
    let new = group.wait_renewed(old, &[Role::Process, Role::Monitor]);
    let log = group.wait_log("the process's restart", |log| log.events().len() >= 7);
    let mut expected = immortal_tests::start_events(&old);
    expected.extend([
        "! An error occured in the monitor !".into(),
        "error message end".into(),
        format!("! monitor#{} restarted !", new.of(Role::Monitor)),
        format!("! process#{} restarted !", new.of(Role::Process)),
    ]);
    assert_eq!(log.events(), expected);
    let messages = log.crash_messages();
    assert!(messages.len() == 1 && messages[0].contains("fixture error in stdout"), "{messages:?}");
}

#[test]
fn a_monitor_that_always_fails_in_setup_does_not_spin_and_starts_no_process() {
    for hook in ["setup", "new"] {
        let sandbox = Sandbox::new();
        let group = sandbox
            .launch("daemon")
            .recorder()
            .set("when", hook)
            .set("how", "error")
            .set("skip", "1")
            .args(["--backoff", "100ms", "--backoff-max", "10s"])
            .puppet(["note=ran", "hang"])
            .start();
        eventually("the process ran", || sandbox.noted("ran").first().copied());
        group.member(Role::Monitor).signal(Signal::SIGKILL);
        let lives = |records: &[Record]| -> Vec<i64> {
            records
                .iter()
                .filter(|record| record.hook() == hook)
                .map(|record| record.number("at_ms"))
                .collect()
        };
        // The second life and its failure, one respawn at once, and then the pauses: 100, 200, 400 ms.
        let records = group.wait_records("six lives", |records| lives(records).len() >= 6);
        let pauses: Vec<i64> = lives(&records).windows(2).map(|pair| pair[1] - pair[0]).skip(2).collect();
        for (pause, least) in pauses.iter().zip([80, 160, 320]) {
            assert!(*pause >= least, "{hook}: pauses of {pauses:?} ms");
        }
        assert_eq!(sandbox.noted("ran").len(), 1, "{hook}: the process was not started");
        let status = group.status();
        assert_eq!(status["pids"]["process"], serde_json::Value::Null, "{status:#}");
        assert_ne!(status["state"], "running", "{status:#}");
        group.stop();
    }
}

#[test]
fn a_monitor_that_always_fails_in_setup_gets_the_message_each_time() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("daemon")
        .recorder()
        .set("when", "setup")
        .set("how", "error")
        .set("skip", "1")
        .puppet(["hang"])
        .start();
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    for life in 2..4 {
        let setup = group.wait_hook("setup", life);
        assert_eq!(setup.text("why"), "pump restart");
        assert!(setup.text("message").contains("fixture error in setup"), "{setup:?}");
    }
}

#[test]
fn a_monitor_that_is_not_ready_in_time_at_a_respawn_ends_the_pump_and_not_the_group() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("daemon")
        .recorder()
        .set("when", "setup")
        .set("how", "hang")
        .set("skip", "1")
        .set("times", "1")
        .args(["--setup-timeout", "500ms"])
        .puppet(["hang"])
        .start();
    let old = group.started;
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    let new = group.wait_running("the third life is good", |pids| pids.process != old.process);
    assert_eq!(new.daemon, old.daemon);
    assert_eq!(group.wait_hook("setup", 2).text("why"), "pump restart");
}

#[test]
fn a_message_is_for_the_next_setup_and_no_other() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("daemon")
        .recorder()
        .set("when", "stdout")
        .set("how", "error")
        .set("times", "1")
        .puppet(["wait-file=go", "out=hello", "hang"])
        .start();
    sandbox.file("go", "", 0o600);
    let new = group.wait_renewed(group.started, &[Role::Process, Role::Monitor]);
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    group.wait_renewed(new, &[Role::Process, Role::Monitor]);
    assert_eq!(group.wait_hook("setup", 2).text("message"), "");
}

#[test]
fn a_crash_without_a_word_has_an_empty_message() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").recorder().puppet(["hang"]).start();
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    let setup = group.wait_hook("setup", 1);
    assert_eq!((setup.text("why"), setup.text("message")), ("pump restart", ""));
}

/// The numbers of the lines `flood NUMBER` in a message, which may begin with a cut line.
fn flood_numbers(message: &str) -> Vec<u64> {
    message.lines().filter_map(|line| line.strip_prefix("flood ")?.parse().ok()).collect()
}

#[test]
fn a_flood_on_stderr_is_cut_off_and_its_newest_part_handed_on() {
    let limit = 64 << 10;
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("daemon")
        .recorder()
        .set("when", "stdout")
        .set("how", "flood")
        .set("times", "1")
        .args(["--buffer-limit", "64KiB"])
        .puppet(["wait-file=go", "out=hello", "hang"])
        .start();
    sandbox.file("go", "", 0o600);
    let setup = group.wait_hook("setup", 1);
    group.wait_running("after the flood", |_| true);
    let message = setup.text("message");
    // A line that says how much was cut comes on top.
    assert!(message.len() <= limit + 200, "{} bytes", message.len());
    let cut = setup.number("cut_bytes");
    assert!(cut > 0, "something was cut");
    assert!(message.contains(&cut.to_string()), "{cut} in {}", &message[..200]);
    let numbers = flood_numbers(message);
    assert!(numbers.len() > limit / 40, "{} lines", numbers.len());
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "one piece, in order");
    // Each line is 19 bytes long: what was cut came before what is there.
    let first_byte = numbers[0] * 19;
    assert!(first_byte.abs_diff(cut.unsigned_abs()) < 400, "{first_byte} and {cut}");
}

#[test]
fn a_short_message_is_not_cut() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("daemon")
        .recorder()
        .set("when", "stdout")
        .set("how", "abort")
        .set("times", "1")
        .puppet(["wait-file=go", "out=hello", "hang"])
        .start();
    sandbox.file("go", "", 0o600);
    let setup = group.wait_hook("setup", 1);
    assert_eq!((setup.text("message"), setup.number("cut_bytes")), ("fixture abort in stdout\n", 0));
}

#[test]
fn what_the_pump_wrote_long_before_its_death_is_in_the_message_too() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").recorder().set("stderr", "an early word").puppet(["hang"]).start();
    group.member(Role::Monitor).signal(Signal::SIGTERM);
    let setup = group.wait_hook("setup", 1);
    assert!(setup.text("message").starts_with("an early word\n"), "{setup:?}");
}

fn hung(sandbox: &Sandbox) -> Group<'_> {
    let group = sandbox
        .launch("daemon")
        .recorder()
        .set("when", "stdout")
        .set("how", "hang")
        .args(["--stop-timeout", "1s"])
        .puppet(["out=hello", "hang"])
        .start();
    group.wait_hook("stdout", 0);
    group
}

#[test]
fn status_answers_while_a_hook_hangs() {
    let sandbox = Sandbox::new();
    let group = hung(&sandbox);
    assert_eq!(group.pids(), group.started);
}

#[test]
fn stop_works_while_a_hook_hangs() {
    let sandbox = Sandbox::new();
    hung(&sandbox).stop();
}

#[test]
fn a_pump_with_a_hanging_hook_dies_of_a_signal_and_is_replaced() {
    let sandbox = Sandbox::new();
    let group = hung(&sandbox);
    group.member(Role::Monitor).signal(Signal::SIGTERM);
    group.wait_hook("setup", 1);
    eventually("the old pump is gone", || {
        Process::find(group.started.monitor.expect("a pump")).is_none().then_some(())
    });
}

#[test]
fn a_crash_while_the_process_writes_leaves_it_no_stray() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("daemon")
        .recorder()
        .set("when", "stdout")
        .set("how", "abort")
        .set("skip", "3")
        .set("times", "1")
        .puppet(["lines=100000000"])
        .start();
    group.wait_hook("setup", 1);
    group.wait_running("after the crash", |pids| pids.monitor != group.started.monitor);
    holds_for(Duration::from_millis(200), "three members", || sandbox.processes().len() == 3);
}

#[test]
fn an_error_in_finish_does_not_keep_the_group() {
    for how in ["error", "panic", "abort", "exit0"] {
        let sandbox = Sandbox::new();
        let group = sandbox
            .launch("daemon")
            .recorder()
            .set("when", "finish")
            .set("how", how)
            .puppet(["hang"])
            .start();
        group.stop();
    }
}

#[test]
fn a_finish_that_hangs_does_not_keep_the_group() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("daemon")
        .recorder()
        .set("when", "finish")
        .set("how", "hang")
        .args(["--stop-timeout", "1s"])
        .puppet(["hang"])
        .start();
    group.stop();
}

#[test]
fn a_pump_that_crashes_again_and_again_while_its_process_runs_backs_off() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("daemon")
        .recorder()
        .set("when", "spawn")
        .set("how", "error")
        .set("skip", "1")
        .args(["--backoff", "1h", "--backoff-max", "1h"])
        .puppet(["hang"])
        .start();
    // Killed twice: at once after the first unstable death, and then the pause.
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    let new = group.wait_renewed(group.started, &[Role::Process, Role::Monitor]);
    Process::find(new.of(Role::Monitor)).expect("the pump").signal(Signal::SIGKILL);
    group.wait_state("backoff");
}

#[test]
fn stop_works_while_a_setup_hangs() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("daemon")
        .recorder()
        .set("when", "setup")
        .set("how", "hang")
        .set("skip", "1")
        .args(["--stop-timeout", "1s", "--setup-timeout", "1h"])
        .puppet(["hang"])
        .start();
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    group.wait_hook("setup", 1);
    group.stop();
}

#[test]
fn a_daemon_killed_while_a_hook_hangs_is_replaced_with_everybody() {
    let sandbox = Sandbox::new();
    let group = hung(&sandbox);
    let old = group.started;
    group.member(Role::Daemon).signal(Signal::SIGKILL);
    // The next monitor hangs in its first output as well, but the group runs.
    group.wait_renewed(old, &[Role::Process, Role::Monitor, Role::Daemon]);
}
