//! `immortal start`: its results, its messages, and that a failed start leaves nothing.

use immortal_tests::{Group, Outcome, Process, Sandbox, Signal, eventually, holds_for};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

const STRATEGIES: [&str; 3] = ["unattached", "daemon", "development"];

/// Starts FILE under every strategy with a monitor that needs nothing, and asserts the refusal; each of the
/// messages must hold all of `texts`.
#[track_caller]
fn refused_under_every_strategy(file: impl Fn(&Sandbox) -> PathBuf, code: i32, texts: &[&str]) {
    for strategy in STRATEGIES {
        let sandbox = Sandbox::new();
        let outcome = sandbox.launch(strategy).recorder().program([file(&sandbox)]).run();
        let error = outcome.assert_refused(code);
        for text in texts {
            assert!(error.contains(text), "{strategy}: {text:?} in {error:?}");
        }
        sandbox.assert_nothing_left();
    }
}

/// Starts with these arguments before FILE and asserts the refusal.
#[track_caller]
fn refused(arguments: &[&str], code: i32, texts: &[&str]) {
    let sandbox = Sandbox::new();
    let outcome = sandbox.launch("unattached").recorder().args(arguments).puppet(["note=ran", "hang"]).run();
    let error = outcome.assert_refused(code);
    for text in texts {
        assert!(error.contains(text), "{text:?} in {error:?}");
    }
    assert!(sandbox.noted("ran").is_empty(), "the program ran");
    sandbox.assert_nothing_left();
}

fn started_line(outcome: &Outcome) -> String {
    outcome.assert_code(0);
    assert!(outcome.stderr.is_empty(), "nothing to complain about: {outcome}");
    outcome.out()
}

#[test]
fn start_prints_one_line_with_the_pids() {
    let sandbox = Sandbox::new();
    let line = started_line(&sandbox.launch("unattached").recorder().puppet(["hang"]).run());
    let pids = Group::find(&sandbox, "group").pids();
    let (process, monitor) = (pids.process.unwrap(), pids.monitor.unwrap());
    assert_eq!(line, format!("started group: process {process}, monitor {monitor}\n"));
}

#[test]
fn start_under_a_daemon_prints_the_daemon_too() {
    let sandbox = Sandbox::new();
    let line = started_line(&sandbox.launch("daemon").recorder().puppet(["hang"]).run());
    let pids = Group::find(&sandbox, "group").pids();
    let (process, monitor, daemon) = (pids.process.unwrap(), pids.monitor.unwrap(), pids.daemon.unwrap());
    assert_eq!(line, format!("started group: process {process}, monitor {monitor}, daemon {daemon}\n"));
}

#[test]
fn start_with_json_prints_name_and_pids_in_order() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.launch("unattached").recorder().arg("--json").puppet(["hang"]).run();
    let text = started_line(&outcome);
    let at = |key: &str| text.find(&format!("\"{key}\"")).unwrap_or_else(|| panic!("{key} in {text}"));
    assert!(at("name") < at("pids") && at("pids") < at("process"), "{text}");
    assert!(at("process") < at("monitor") && at("monitor") < at("daemon"), "{text}");
    let answer = outcome.json();
    assert_eq!(answer["name"], "group");
    assert_eq!(answer["pids"], Group::find(&sandbox, "group").status()["pids"]);
    assert_eq!(answer["pids"]["daemon"], Value::Null);
}

#[test]
fn the_pids_of_start_are_alive_when_it_returns() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let group = sandbox.launch(strategy).recorder().puppet(["hang"]).start();
        assert_eq!(group.started.members().len(), group.started.count(), "{strategy}");
        let executed = Process::find(group.started.process.unwrap()).unwrap().command_line();
        assert!(executed.contains("puppet"), "the program was executed: {executed:?}");
    }
}

#[test]
fn start_holds_no_stream_of_the_caller() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let outcome = sandbox.launch(strategy).recorder().puppet(["hang"]).run();
        outcome.assert_code(0);
        assert!(outcome.streams_closed, "{strategy}: somebody holds the caller's output: {outcome}");
    }
}

#[test]
fn a_missing_program_is_127() {
    refused_under_every_strategy(|sandbox| sandbox.path("no-such-program"), 127, &["no-such-program"]);
}

#[test]
fn a_program_that_is_not_in_path_is_127() {
    refused_under_every_strategy(|_| "no-such-program".into(), 127, &["no-such-program"]);
}

#[test]
fn a_wrong_command_line_is_2_whatever_else_is_wrong() {
    let cases: [&[&str]; 3] = [&["-m", "log", "-m", "log"], &["-m", "a.b=log"], &["-o", "no-value"]];
    for arguments in cases {
        let sandbox = Sandbox::new();
        let outcome = sandbox.launch("unattached").args(arguments).program(["no-such-program"]).run();
        outcome.assert_refused(2);
        sandbox.assert_nothing_left();
    }
}

#[test]
fn a_result_that_cannot_be_written_does_not_undo_the_start() {
    let sandbox = Sandbox::new();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let started =
        sandbox.launch("unattached").recorder().puppet(["hang"]).invocation("start").output(full).run();
    started.assert_code(0);
    assert!(started.err().starts_with("error: unable to write the result: "), "{started}");
    Group::find(&sandbox, "group").stop();
}

#[test]
fn a_file_without_execute_permission_is_126() {
    refused_under_every_strategy(|sandbox| sandbox.file("plain", "#!/bin/sh\n", 0o644), 126, &["plain"]);
}

#[test]
fn a_directory_is_126() {
    refused_under_every_strategy(|sandbox| sandbox.path("home"), 126, &["home"]);
}

#[test]
fn a_missing_interpreter_is_126() {
    refused_under_every_strategy(
        |sandbox| sandbox.file("script", "#!/no/such/interpreter\n", 0o755),
        126,
        &["script"],
    );
}

#[test]
fn a_file_without_a_known_format_is_126_and_not_given_to_a_shell() {
    for strategy in STRATEGIES {
        let sandbox = Sandbox::new();
        let script = sandbox.file("formless", format!("touch {}\n", sandbox.text_path("ran")), 0o755);
        let outcome = sandbox.launch(strategy).recorder().program([script]).run();
        let error = outcome.assert_refused(126);
        assert!(error.contains("formless"), "{error}");
        assert!(!sandbox.path("ran").exists(), "a shell ran it");
        sandbox.assert_nothing_left();
    }
}

#[test]
fn a_missing_program_starts_no_process_even_under_a_daemon() {
    let sandbox = Sandbox::new();
    let missing = sandbox.path("missing");
    sandbox.launch("daemon").recorder().program([missing]).run().assert_refused(127);
    let hooks = immortal_tests::records(&sandbox.path("record"));
    assert!(hooks.iter().all(|record| record.hook() != "spawn"), "{hooks:#?}");
}

#[test]
fn an_unknown_option_is_2() {
    refused(&["--no-such-option"], 2, &["--no-such-option"]);
}

#[test]
fn an_unknown_strategy_is_2() {
    let sandbox = Sandbox::new();
    let error = sandbox.launch("sempiternal").recorder().puppet(["hang"]).run().assert_refused(2);
    assert!(error.contains("sempiternal"), "{error}");
}

#[test]
fn an_unknown_signal_is_2() {
    refused(&["--stop-signal", "NOSUCH"], 2, &["NOSUCH"]);
}

#[test]
fn a_span_without_a_unit_is_2() {
    refused(&["--stop-timeout", "5"], 2, &["5"]);
}

#[test]
fn no_program_is_2() {
    let sandbox = Sandbox::new();
    sandbox.launch("unattached").recorder().run().assert_refused(2);
    sandbox.assert_nothing_left();
}

#[test]
fn a_monitor_option_that_nobody_declares_is_125() {
    refused(&["-o", "no_such=1"], 125, &["no_such"]);
}

#[test]
fn a_monitor_option_for_an_unknown_label_is_125() {
    refused(&["-o", "nobody.text=1"], 125, &["nobody"]);
}

#[test]
fn a_monitor_option_of_the_wrong_type_is_125() {
    refused(&["-o", "integer=many"], 125, &["integer", "many"]);
}

#[test]
fn a_monitor_option_that_is_not_json_is_125_or_2() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.launch("unattached").recorder().args(["-o", "integer:={"]).puppet(["hang"]).run();
    let code = outcome.code.unwrap_or(-1);
    assert!([2, 125].contains(&code), "{outcome}");
    assert!(outcome.assert_refused(code).contains("integer"), "{outcome}");
    sandbox.assert_nothing_left();
}

#[test]
fn an_unknown_monitor_is_125() {
    refused(&["--monitor", "no_such_monitor"], 125, &["no_such_monitor"]);
}

#[test]
fn a_missing_working_directory_is_refused() {
    let sandbox = Sandbox::new();
    let outcome =
        sandbox.launch("unattached").recorder().args(["--cwd", "no-such-dir"]).puppet(["hang"]).run();
    let error = outcome.assert_refused(125);
    assert!(error.contains("no-such-dir"), "{error}");
    sandbox.assert_nothing_left();
}

#[test]
fn a_monitor_that_refuses_in_check_ends_start_with_its_message() {
    for strategy in STRATEGIES {
        let sandbox = Sandbox::new();
        let outcome = sandbox
            .launch(strategy)
            .recorder()
            .set("when", "check")
            .set("how", "error")
            .puppet(["note=ran", "hang"])
            .run();
        let error = outcome.assert_refused(125);
        assert!(error.contains("fixture error in check"), "{strategy}: {error}");
        sandbox.assert_nothing_left();
    }
}

#[test]
fn nothing_is_started_before_every_check_has_passed() {
    let sandbox = Sandbox::new();
    let record = sandbox.text_path("record");
    let outcome = sandbox
        .launch("daemon")
        .args(["-m", "first=recorder", "-m", "last=recorder"])
        .set("record", &record)
        .set("last.when", "check")
        .set("last.how", "error")
        .puppet(["hang"])
        .run();
    outcome.assert_refused(125);
    let records = immortal_tests::records(&sandbox.path("record"));
    assert!(records.iter().all(|record| record.hook() == "check"), "{records:#?}");
}

#[test]
fn a_check_that_panics_shows_no_panic_text_and_no_backtrace() {
    let sandbox = Sandbox::new();
    let outcome = sandbox
        .launch("unattached")
        .env("RUST_BACKTRACE", "1")
        .recorder()
        .set("when", "check")
        .set("how", "panic")
        .puppet(["hang"])
        .run();
    let error = outcome.assert_refused(125);
    assert!(!error.contains("stack backtrace") && !error.contains("panicked at"), "{error}");
    assert!(error.contains("fixture panic") && error.contains("check"), "it says what and where: {error}");
}

#[test]
fn a_check_that_crashes_does_not_take_the_launcher_along() {
    for how in ["abort", "segv", "exit0"] {
        let sandbox = Sandbox::new();
        let outcome = sandbox
            .launch("unattached")
            .recorder()
            .set("when", "check")
            .set("how", how)
            .puppet(["hang"])
            .run();
        outcome.assert_refused(125);
        sandbox.assert_nothing_left();
    }
}

#[test]
fn a_check_that_hangs_is_refused_within_ten_seconds() {
    let sandbox = Sandbox::new();
    let outcome = sandbox
        .launch("unattached")
        .recorder()
        .set("when", "check")
        .set("how", "hang")
        .puppet(["hang"])
        .run();
    outcome.assert_refused(125);
    assert!(outcome.took < Duration::from_secs(11), "{outcome}");
    sandbox.assert_nothing_left();
}

#[test]
fn a_monitor_that_fails_in_setup_fails_an_unattached_start() {
    for hook in ["new", "setup"] {
        let sandbox = Sandbox::new();
        let outcome = sandbox
            .launch("unattached")
            .recorder()
            .set("when", hook)
            .set("how", "error")
            .puppet(["note=ran", "hang"])
            .run();
        let error = outcome.assert_refused(125);
        assert!(error.contains(&format!("fixture error in {hook}")), "{error}");
        assert!(sandbox.noted("ran").is_empty(), "the program ran");
        sandbox.assert_nothing_left();
    }
}

#[test]
fn a_monitor_that_always_fails_in_setup_fails_a_start_under_a_daemon() {
    let sandbox = Sandbox::new();
    let outcome = sandbox
        .launch("daemon")
        .recorder()
        .set("when", "setup")
        .set("how", "error")
        .puppet(["note=ran", "hang"])
        .run();
    let error = outcome.assert_refused(125);
    assert!(error.contains("fixture error in setup"), "{error}");
    assert!(sandbox.noted("ran").is_empty(), "the program ran");
    sandbox.assert_nothing_left();
}

#[test]
fn a_monitor_that_is_never_ready_fails_the_start_after_the_setup_timeout() {
    for strategy in STRATEGIES {
        let sandbox = Sandbox::new();
        let outcome = sandbox
            .launch(strategy)
            .recorder()
            .set("ready", "never")
            .args(["--setup-timeout", "300ms"])
            .puppet(["note=ran", "hang"])
            .run();
        outcome.assert_refused(125);
        assert!(sandbox.noted("ran").is_empty(), "{strategy}: the program ran");
        sandbox.assert_nothing_left();
    }
}

#[test]
fn a_monitor_that_hangs_in_setup_fails_the_start_after_the_setup_timeout() {
    for strategy in STRATEGIES {
        let sandbox = Sandbox::new();
        let outcome = sandbox
            .launch(strategy)
            .recorder()
            .set("when", "setup")
            .set("how", "hang")
            .args(["--setup-timeout", "300ms"])
            .puppet(["note=ran", "hang"])
            .run();
        outcome.assert_refused(125);
        assert!(sandbox.noted("ran").is_empty(), "{strategy}: the program ran");
        sandbox.assert_nothing_left();
    }
}

#[test]
fn a_monitor_whose_construction_hangs_fails_the_start_after_the_setup_timeout() {
    for strategy in STRATEGIES {
        let sandbox = Sandbox::new();
        let outcome = sandbox
            .launch(strategy)
            .recorder()
            .set("when", "new")
            .set("how", "hang")
            .args(["--setup-timeout", "300ms"])
            .puppet(["note=ran", "hang"])
            .run();
        outcome.assert_refused(125);
        sandbox.assert_nothing_left();
    }
}

#[test]
fn what_a_monitor_does_after_a_start_that_failed_does_not_hide_why_it_failed() {
    for strategy in STRATEGIES {
        for how in ["error", "hang"] {
            let sandbox = Sandbox::new();
            let busy = sandbox.executable(immortal_tests::artifacts().puppet(), "busy");
            let _open = std::fs::OpenOptions::new().append(true).open(&busy).unwrap();
            let launch = sandbox.launch(strategy).recorder().set("when", "finish").set("how", how);
            let refused =
                launch.args(["--hook-timeout", "200ms"]).program([busy.to_str().unwrap(), "hang"]).run();
            let error = refused.assert_refused(126);
            assert!(error.contains("Text file busy"), "{strategy} {how}: {refused}");
            sandbox.assert_nothing_left();
        }
    }
}

#[test]
fn a_monitor_that_fails_while_the_program_begins_is_named() {
    for _ in 0..8 {
        let sandbox = Sandbox::new();
        let launch = sandbox.launch("unattached").recorder().set("when", "setup").set("how", "thread_fail");
        let outcome = launch.puppet(["hang"]).run();
        let said = if outcome.err().is_empty() {
            let reason = || {
                let status = sandbox.immortal(["status", "group", "--json"]).run().json();
                (status["state"] == "failed").then(|| status["reason"].as_str().map(str::to_owned))
            };
            eventually("the group has failed", reason).unwrap_or_default()
        } else {
            outcome.assert_refused(125);
            outcome.err().to_owned()
        };
        assert!(said.contains("monitor recorder: fixture thread_fail in setup"), "{said}");
    }
}

#[test]
fn a_start_names_the_monitors_that_are_not_ready() {
    let cases: [(&[(&str, &str)], &str); 4] = [
        (&[("b.ready", "never")], "monitor b: it was"),
        (&[("b.ready", "never"), ("c.ready", "never")], "monitors b, c: they were"),
        (&[("b.when", "setup"), ("b.how", "hang")], "monitor b: it was"),
        (&[("a.ready", "never"), ("b.when", "setup"), ("b.how", "hang")], "monitor b: it was"),
    ];
    for (options, who) in cases {
        let sandbox = Sandbox::new();
        let labels = ["-m", "a=recorder", "-m", "b=recorder", "-m", "c=recorder"];
        let launch = sandbox.launch("unattached").args(labels).args(["--setup-timeout", "300ms"]);
        let launch = options.iter().fold(launch, |launch, (key, value)| launch.set(key, value));
        let outcome = launch.puppet(["hang"]).run();
        outcome.assert_refused(125);
        let text = format!("error: {who} not ready within 300ms (--setup-timeout)");
        assert_eq!(outcome.err().lines().last(), Some(&*text), "{outcome}");
        sandbox.assert_nothing_left();
    }
}

#[test]
fn start_waits_for_a_monitor_that_is_ready_later() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("unattached").recorder().set("ready", "later:300ms").puppet(["hang"]).start();
    let records =
        group.wait_records("the spawn", |records| records.iter().any(|record| record.hook() == "spawn"));
    let order = immortal_tests::Record::order(&records);
    assert_eq!(order, ["check", "new", "setup", "ready", "spawn"]);
}

#[test]
fn a_name_in_use_is_refused_and_its_group_untouched() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("unattached").recorder().puppet(["hang"]).start();
    let error = sandbox.launch("daemon").recorder().puppet(["hang"]).run().assert_refused(125);
    assert!(error.contains("group"), "{error}");
    assert_eq!(group.pids(), group.started);
    assert_eq!(sandbox.processes().len(), 2, "process and pump, nothing else");
}

#[test]
fn of_starts_of_one_name_at_once_one_wins() {
    for strategy in ["unattached", "daemon"] {
        for _ in 0..3 {
            let sandbox = Sandbox::new();
            let starts: Vec<_> = (0..4)
                .map(|_| sandbox.launch(strategy).recorder().puppet(["note=ran", "hang"]).spawn())
                .collect();
            let outcomes: Vec<Outcome> = starts.into_iter().map(|start| start.wait()).collect();
            let won = outcomes.iter().filter(|outcome| outcome.code == Some(0)).count();
            assert_eq!(won, 1, "{strategy}: {}", outcomes.iter().map(Outcome::to_string).collect::<String>());
            outcomes.iter().filter(|outcome| outcome.code != Some(0)).for_each(|outcome| {
                outcome.assert_refused(125);
            });
            let pids = Group::find(&sandbox, "group").pids();
            eventually("the losers are gone", || (sandbox.processes().len() == pids.count()).then_some(()));
            eventually("the program runs", || sandbox.noted("ran").first().copied());
            assert_eq!(sandbox.noted("ran"), [pids.process.unwrap()], "{strategy}: the program ran once");
        }
    }
}

#[test]
fn a_caller_that_dies_before_the_process_runs_takes_the_group_along() {
    for strategy in ["unattached", "daemon"] {
        for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT] {
            let sandbox = Sandbox::new();
            let start =
                sandbox.launch(strategy).recorder().set("ready", "never").puppet(["note=ran"]).spawn();
            eventually("the monitor's setup", || {
                let records = immortal_tests::records(&sandbox.path("record"));
                records.iter().any(|record| record.hook() == "setup").then_some(())
            });
            start.signal(signal);
            drop(start.wait());
            eventually(&format!("{strategy}, {signal}: everything is gone"), || {
                sandbox.processes().is_empty().then_some(())
            });
            sandbox.assert_nothing_left();
            assert!(sandbox.noted("ran").is_empty(), "the program ran");
        }
    }
}

#[test]
fn a_caller_killed_at_any_moment_leaves_a_whole_group_or_nothing() {
    for strategy in ["unattached", "daemon"] {
        for millis in (0..24).step_by(2) {
            let sandbox = Sandbox::new();
            let start = sandbox.launch(strategy).recorder().puppet(["hang"]).spawn();
            std::thread::sleep(Duration::from_millis(millis));
            start.signal(Signal::SIGKILL);
            drop(start.wait());
            holds_for(
                Duration::from_millis(200),
                &format!("{strategy}, {millis} ms: whole or nothing"),
                || {
                    let found = sandbox.processes();
                    let list = sandbox.immortal(["list", "--json"]).run().json();
                    match list.get(0) {
                        None => found.is_empty(),
                        Some(group) => {
                            let pids = immortal_tests::Pids::from_json(&group["pids"]);
                            let whole = if strategy == "daemon" { 3 } else { 2 };
                            let members = pids.members().len();
                            group["state"] == "running" && members == whole && found.len() == whole
                        }
                    }
                },
            );
        }
    }
}

#[test]
fn everything_after_the_program_belongs_to_it() {
    let sandbox = Sandbox::new();
    let steps = ["dump=dump", "hang", "--name", "other", "--", "-o", "x=y", "--help"];
    let _group = sandbox.launch("unattached").recorder().arg("--").puppet(steps).start();
    let dump = eventually("the program's dump", || std::fs::read_to_string(sandbox.path("dump")).ok());
    let arguments: Vec<&str> = dump.lines().filter_map(|line| line.strip_prefix("arg ")).skip(1).collect();
    assert_eq!(arguments, steps);
}

#[test]
fn check_of_a_good_command_line_is_0_and_starts_nothing() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.launch("daemon").recorder().puppet(["note=ran", "hang"]).check();
    outcome.assert_code(0);
    assert!(outcome.stderr.is_empty(), "{outcome}");
    assert!(sandbox.noted("ran").is_empty(), "the program ran");
    sandbox.assert_nothing_left();
}

#[test]
fn check_finds_what_start_would_refuse() {
    let wrong: [&[&str]; 4] =
        [&["-o", "no_such=1"], &["-m", "no_such_monitor"], &["-o", "when=check"], &["-o", "integer=many"]];
    for arguments in wrong {
        let sandbox = Sandbox::new();
        let outcome = sandbox.launch("daemon").recorder().args(arguments).puppet(["hang"]).check();
        outcome.assert_refused(outcome.code.unwrap_or(0));
        assert_ne!(outcome.code, Some(0), "{arguments:?}");
    }
    let sandbox = Sandbox::new();
    let outcome = sandbox.launch("daemon").recorder().program(["no-such-program"]).check();
    assert!(outcome.assert_refused(outcome.code.unwrap_or(0)).contains("no-such-program"));
}

#[test]
fn the_mode_is_another_word_for_the_strategy() {
    let sandbox = Sandbox::new();
    sandbox.launch("").args(["--mode", "daemon"]).recorder().puppet(["hang"]).run().assert_code(0);
    assert_eq!(Group::find(&sandbox, "group").status()["strategy"], "daemon");
}

#[test]
fn unattached_is_the_default() {
    let sandbox = Sandbox::new();
    sandbox.launch("").recorder().puppet(["hang"]).run().assert_code(0);
    assert_eq!(Group::find(&sandbox, "group").status()["strategy"], "unattached");
}

#[test]
fn a_start_whose_pump_dies_at_once_names_no_pid_that_is_none() {
    for _ in 0..20 {
        let sandbox = Sandbox::new();
        let outcome = sandbox
            .launch("daemon")
            .recorder()
            .arg("--json")
            .set("when", "spawn")
            .set("how", "error")
            .set("times", "1")
            .puppet(["hang"])
            .run();
        if outcome.code == Some(0) {
            let pids = immortal_tests::Pids::from_json(&outcome.json()["pids"]);
            assert_eq!(pids.count(), 3, "{outcome}");
        } else {
            outcome.assert_refused(125);
        }
    }
}
