//! `logs`: the recent output of a group, whatever its monitors do with it.

use immortal_tests::{Group, Outcome, Role, Sandbox, Signal, eventually};
use std::time::Duration;

fn logs(sandbox: &Sandbox, options: &[&str]) -> Outcome {
    let outcome = sandbox.immortal(["logs", "group"]).args(options).run();
    outcome.assert_code(0);
    outcome
}

/// Waits until the group's recent output ends with a text, so that everything before it is there too.
#[track_caller]
fn wait_for_end(sandbox: &Sandbox, text: &str) {
    eventually(&format!("{text:?} at the end of the logs"), || {
        logs(sandbox, &["-n", "1"]).out().ends_with(text).then_some(())
    });
}

fn lines<'a>(sandbox: &'a Sandbox, strategy: &str, monitor: &[&str]) -> Group<'a> {
    let steps = ["ticks=50:0", "err=an error", "out=the end", "hang"];
    sandbox.launch(strategy).args(monitor).puppet(steps).start()
}

#[test]
fn the_last_twenty_lines_are_shown_whatever_the_monitor() {
    for strategy in ["unattached", "daemon"] {
        for monitor in [
            &["--monitor", "recorder"][..],
            &["--monitor", "log", "--option", "output:=null"],
            &["--monitor", "log", "--option", "output=log"],
        ] {
            let sandbox = Sandbox::new();
            let group = lines(&sandbox, strategy, monitor);
            eventually("both streams", || {
                let text = logs(&sandbox, &["-n", "100"]).out();
                (text.contains("the end\n") && text.contains("an error\n")).then_some(())
            });
            let text = logs(&sandbox, &[]).out();
            assert_eq!(text.lines().count(), 20, "{strategy} {monitor:?}: {text}");
            let all = logs(&sandbox, &["--lines", "1000"]).out();
            assert_eq!(all.lines().count(), 52, "{strategy} {monitor:?}: {all}");
            assert!(all.starts_with(&format!("{} 0\n", group.started.of(Role::Process))), "{all}");
            assert!(all.ends_with(&text), "the last of the same lines");
        }
    }
}

#[test]
fn as_many_lines_as_wanted_are_shown() {
    let sandbox = Sandbox::new();
    let steps = ["out=one", "out=two", "raw-out=half", "hang"];
    drop(sandbox.launch("daemon").recorder().puppet(steps).start());
    wait_for_end(&sandbox, "half");
    for (count, text) in
        [("0", ""), ("1", "half"), ("2", "two\nhalf"), ("3", "one\ntwo\nhalf"), ("99", "one\ntwo\nhalf")]
    {
        assert_eq!(logs(&sandbox, &["-n", count]).out(), text, "-n {count}");
    }
}

#[test]
fn bytes_are_shown_as_they_are() {
    let sandbox = Sandbox::new();
    let script = "printf 'a\\000b\\377\\r\\033[0m\\n'; exec sleep 100000";
    drop(sandbox.launch("daemon").recorder().program(["/bin/sh", "-c", script]).start());
    wait_for_end(&sandbox, "\n");
    assert_eq!(logs(&sandbox, &[]).stdout, b"a\0b\xff\r\x1b[0m\n");
}

#[test]
fn only_so_much_is_kept_and_it_is_the_newest() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").recorder().puppet(["lines=200000", "out=the end", "hang"]).start();
    wait_for_end(&sandbox, "the end\n");
    let text = logs(&sandbox, &["-n", "1000000"]).out();
    assert!((64 * 1024..=256 * 1024).contains(&text.len()), "{} bytes", text.len());
    assert!(text.ends_with(&format!("{} 199999\nthe end\n", group.started.of(Role::Process))));
}

#[test]
fn a_group_without_output_has_none() {
    let sandbox = Sandbox::new();
    drop(sandbox.launch("daemon").recorder().puppet(["hang"]).start());
    assert_eq!(logs(&sandbox, &[]).out(), "");
}

#[test]
fn what_was_written_before_a_death_of_process_pump_or_daemon_is_still_shown() {
    let sandbox = Sandbox::new();
    let steps = ["note=ran", "ticks=1:0", "hang"];
    let group = sandbox.launch("daemon").recorder().args(["--stable", "0ms"]).puppet(steps).start();
    let mut old = group.started;
    let mut expected = Vec::new();
    let roles: [(Role, &[Role]); 3] = [
        (Role::Process, &[Role::Process]),
        (Role::Monitor, &[Role::Process, Role::Monitor]),
        (Role::Daemon, &[Role::Process, Role::Monitor, Role::Daemon]),
    ];
    for (role, renewed) in roles {
        expected.push(format!("{} 0\n", old.of(Role::Process)));
        wait_for_end(&sandbox, expected.last().unwrap());
        group.member(role).signal(Signal::SIGKILL);
        old = group.wait_renewed(old, renewed);
    }
    expected.push(format!("{} 0\n", old.of(Role::Process)));
    wait_for_end(&sandbox, expected.last().unwrap());
    assert_eq!(logs(&sandbox, &[]).out(), expected.concat());
}

#[test]
fn a_failed_group_still_shows_the_end_of_its_output() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let steps = ["wait-file=go", "out=last words", "exit=1"];
        let group = sandbox.launch(strategy).recorder().args(["--max-restarts", "0"]).puppet(steps).start();
        sandbox.file("go", "", 0o600);
        group.wait_state("failed");
        assert_eq!(logs(&sandbox, &[]).out(), "last words\n", "{strategy}");
        // There is nothing to follow.
        assert_eq!(logs(&sandbox, &["-f"]).out(), "last words\n", "{strategy}");
        group.command("stop").assert_code(0);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_group_whose_pump_was_killed_still_shows_the_end_of_its_output() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("unattached").recorder().puppet(["out=last words", "hang"]).start();
    wait_for_end(&sandbox, "last words\n");
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    group.wait_state("failed");
    assert_eq!(logs(&sandbox, &[]).out(), "last words\n");
}

#[test]
fn follow_goes_on_with_what_comes_and_ends_with_the_group() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let steps = ["out=one", "out=two", "wait-file=go", "out=three", "hang"];
        let group = sandbox.launch(strategy).recorder().puppet(steps).start();
        wait_for_end(&sandbox, "two\n");
        let follower = sandbox.immortal(["logs", "group", "-n", "1", "-f"]).spawn();
        follower.wait_stdout("two\n");
        sandbox.file("go", "", 0o600);
        follower.wait_stdout("two\nthree\n");
        group.command("stop").assert_code(0);
        let ended = follower.wait();
        ended.assert_code(0);
        assert_eq!(ended.out(), "two\nthree\n", "{strategy}");
    }
}

#[test]
fn follow_shows_what_the_process_writes_as_it_is_stopped() {
    let sandbox = Sandbox::new();
    let steps = ["block=TERM", "out=ready", "wait-signal=TERM", "out=goodbye", "exit=0"];
    let group = sandbox.launch("daemon").recorder().puppet(steps).start();
    let follower = sandbox.immortal(["logs", "group", "-f"]).spawn();
    follower.wait_stdout("ready\n");
    group.command("stop").assert_code(0);
    assert_eq!(follower.wait().out(), "ready\ngot TERM\ngoodbye\n");
}

#[test]
fn follow_goes_on_across_the_death_of_pump_and_daemon() {
    let sandbox = Sandbox::new();
    let steps = ["note=ran", "ticks=1:0", "hang"];
    let group = sandbox.launch("daemon").recorder().args(["--stable", "0ms"]).puppet(steps).start();
    let follower = sandbox.immortal(["logs", "group", "-f"]).spawn();
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    let old = group.wait_renewed(group.started, &[Role::Process, Role::Monitor]);
    group.member(Role::Daemon).signal(Signal::SIGKILL);
    let old = group.wait_renewed(old, &[Role::Process, Role::Monitor, Role::Daemon]);
    follower.wait_stdout(&format!("{} 0\n", old.of(Role::Process)));
    group.command("stop").assert_code(0);
    follower.wait().assert_code(0);
}

#[test]
fn a_follower_of_a_group_that_has_not_written_yet_waits() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").recorder().puppet(["wait-file=go", "out=hello", "hang"]).start();
    let follower = sandbox.immortal(["logs", "group", "-f"]).spawn();
    // Long enough for it to have looked.
    std::thread::sleep(Duration::from_millis(200));
    sandbox.file("go", "", 0o600);
    follower.wait_stdout("hello\n");
    group.command("stop").assert_code(0);
    follower.wait().assert_code(0);
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").recorder().puppet(["ticks=100000:1"]).start();
    for options in [&["-n", "1000"][..], &["-f"]] {
        let (far, near) = std::io::pipe().unwrap();
        let follower = sandbox.immortal(["logs", "group"]).args(options).output(near).spawn();
        drop(far);
        let ended = follower.wait();
        ended.assert_code(0);
        assert_eq!(ended.err(), "", "{ended}");
    }
    // Nor is one that just stands still: the group does not wait for it.
    let (far, near) = std::io::pipe().unwrap();
    let follower = sandbox.immortal(["logs", "group", "-f"]).output(near).spawn();
    group.command("stop").assert_code(0);
    drop(far);
    drop(follower.wait());
}

#[test]
fn logs_of_an_unknown_group_is_1_and_of_none_is_2() {
    let sandbox = Sandbox::new();
    sandbox.immortal(["logs", "nobody"]).run().assert_refused(1);
    sandbox.immortal(["logs", "nobody", "-f"]).run().assert_refused(1);
    sandbox.immortal(["logs"]).run().assert_refused(2);
    sandbox.immortal(["logs", "nobody", "-n", "many"]).run().assert_refused(2);
}
