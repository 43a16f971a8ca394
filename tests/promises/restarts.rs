//! When a process is respawned, after which pause, and how it and what it left behind are ended before.

use immortal_tests::{Group, Record, Role, Sandbox, Signal, eventually, holds_for};
use std::time::Duration;

/// Milliseconds from each `exit` to the event that follows it.
fn pauses(records: &[Record]) -> Vec<i64> {
    let events: Vec<&Record> =
        records.iter().filter(|record| ["exit", "respawn"].contains(&record.hook())).collect();
    events
        .windows(2)
        .filter(|pair| pair[0].hook() == "exit" && pair[1].hook() == "respawn")
        .map(|pair| pair[1].number("at_ms") - pair[0].number("at_ms"))
        .collect()
}

fn respawns(group: &Group<'_>, count: usize) -> Vec<Record> {
    group.wait_records(&format!("{count} respawns"), |records| {
        records.iter().filter(|record| record.hook() == "respawn").count() >= count
    })
}

#[test]
fn the_first_unstable_death_is_followed_by_a_respawn_at_once() {
    let sandbox = Sandbox::new();
    // Any pause would outlast the test.
    let pause = ["--backoff", "1h", "--backoff-max", "1h"];
    let group = sandbox.launch("unattached").recorder().args(pause).puppet(["note=ran", "exit=1"]).start();
    respawns(&group, 1);
    let status = group.wait_state("backoff");
    assert_eq!(status["pids"]["process"], serde_json::Value::Null);
    assert_eq!(sandbox.noted("ran").len(), 2, "and the second one by a pause");
}

#[test]
fn pauses_double_up_to_the_longest() {
    let sandbox = Sandbox::new();
    let pause = ["--backoff", "100ms", "--backoff-max", "300ms"];
    let group = sandbox.launch("unattached").recorder().args(pause).puppet(["exit=1"]).start();
    let pauses = pauses(&respawns(&group, 5));
    // Jitter may take a fifth away; how much later a busy machine is, nobody can say.
    for (pause, least) in pauses.iter().zip([0, 80, 160, 240, 240]) {
        assert!(*pause >= least, "{pauses:?}");
    }
}

#[test]
fn a_start_pause_above_the_longest_is_the_longest() {
    let sandbox = Sandbox::new();
    let pause = ["--backoff", "1h", "--backoff-max", "50ms"];
    let group = sandbox.launch("unattached").recorder().args(pause).puppet(["exit=1"]).start();
    respawns(&group, 4);
}

#[test]
fn zero_for_both_means_no_pause_ever() {
    let sandbox = Sandbox::new();
    let pause = ["--backoff", "0ms", "--backoff-max", "0ms"];
    let group = sandbox.launch("unattached").recorder().args(pause).puppet(["exit=1"]).start();
    // With any doubling pause this many would take hours.
    respawns(&group, 60);
}

#[test]
fn a_stable_run_resets_the_pauses() {
    let sandbox = Sandbox::new();
    let options = ["--backoff", "1h", "--backoff-max", "1h", "--stable", "0ms"];
    let group = sandbox.launch("unattached").recorder().args(options).puppet(["exit=1"]).start();
    respawns(&group, 10);
}

#[test]
fn restart_ends_a_pause() {
    let sandbox = Sandbox::new();
    let pause = ["--backoff", "1h", "--backoff-max", "1h"];
    let steps = ["hang-after=2:count", "exit=1"];
    let group = sandbox.launch("unattached").recorder().args(pause).puppet(steps).start();
    group.wait_state("backoff");
    group.command("restart").assert_code(0);
    group.wait_running("after the pause", |_| true);
}

#[test]
fn always_respawns_after_any_end() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("unattached").recorder().puppet(["hang-after=1:count", "exit=0"]).start();
    respawns(&group, 1);
}

#[test]
fn on_failure_does_not_respawn_after_exit_code_0() {
    let sandbox = Sandbox::new();
    let steps = ["note=ran", "wait-file=go", "exit=0"];
    let group =
        sandbox.launch("unattached").recorder().args(["--restart", "on-failure"]).puppet(steps).start();
    sandbox.file("go", "", 0o600);
    group.wait_state("stopped");
    assert_eq!(sandbox.noted("ran").len(), 1);
}

#[test]
fn on_failure_respawns_after_another_exit_code() {
    let sandbox = Sandbox::new();
    let steps = ["hang-after=1:count", "exit=1"];
    let group =
        sandbox.launch("unattached").recorder().args(["--restart", "on-failure"]).puppet(steps).start();
    respawns(&group, 1);
}

#[test]
fn on_failure_respawns_after_a_signal() {
    let sandbox = Sandbox::new();
    let steps = ["hang-after=1:count", "signal=TERM"];
    let group =
        sandbox.launch("unattached").recorder().args(["--restart", "on-failure"]).puppet(steps).start();
    respawns(&group, 1);
}

fn stopped<'a>(sandbox: &'a Sandbox, never: &[&str], strategy: &str) -> Group<'a> {
    let steps = ["note=ran", "hang-after=1:count", "wait-file=go", "exit=3"];
    let group = sandbox.launch(strategy).recorder().args(never).puppet(steps).start();
    sandbox.file("go", "", 0o600);
    group.wait_state("stopped");
    group
}

#[test]
fn never_leaves_the_roles_and_no_process() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let group = stopped(&sandbox, &["--restart", "never"], strategy);
        let pids = group.pids();
        assert_eq!(pids.process, None);
        assert_eq!((pids.monitor, pids.daemon), (group.started.monitor, group.started.daemon));
        assert_eq!(group.status()["last_exit"]["code"], 3);
        assert_eq!(sandbox.noted("ran").len(), 1);
    }
}

#[test]
fn no_auto_is_another_word_for_never() {
    let sandbox = Sandbox::new();
    let group = stopped(&sandbox, &["--no-auto"], "unattached");
    assert_eq!(group.pids().process, None);
}

#[test]
fn restart_starts_a_stopped_process_again() {
    let sandbox = Sandbox::new();
    let group = stopped(&sandbox, &["--restart", "never"], "daemon");
    group.command("restart").assert_code(0);
    let pids = group.wait_running("again", |_| true);
    eventually("the second run", || (sandbox.noted("ran").get(1).copied() == pids.process).then_some(()));
}

#[test]
fn stop_ends_a_stopped_group() {
    let sandbox = Sandbox::new();
    let group = stopped(&sandbox, &["--restart", "never"], "daemon");
    group.stop();
    sandbox.assert_nothing_left();
}

#[test]
fn a_program_that_vanishes_is_an_unstable_death_with_127() {
    let sandbox = Sandbox::new();
    let program = sandbox.executable(immortal_tests::artifacts().puppet(), "program");
    let pause = ["--backoff", "1h", "--backoff-max", "1h"];
    let group = sandbox
        .launch("unattached")
        .recorder()
        .args(pause)
        .program([program.to_str().unwrap(), "hang"])
        .start();
    std::fs::remove_file(&program).unwrap();
    group.member(Role::Process).signal(Signal::SIGKILL);
    let status = group.wait_state("backoff");
    assert_eq!(status["last_exit"]["code"], 127, "{status:#}");
    let reason = status["reason"].as_str().unwrap_or_else(|| panic!("no reason in {status:#}"));
    assert!(reason.starts_with(&format!("{}: ", program.display())), "{reason}");
    sandbox.executable(immortal_tests::artifacts().puppet(), "program");
    group.command("restart").assert_code(0);
    let status = group.wait_state("running");
    assert!(status["reason"].is_null(), "{status:#}");
}

#[test]
fn a_directory_that_vanishes_is_named_in_the_pause_and_when_the_group_gives_up() {
    let sandbox = Sandbox::new();
    let directory = sandbox.path("work");
    let launch = |args: &[&str]| {
        std::fs::create_dir(&directory).unwrap();
        let cwd = ["--cwd", directory.to_str().unwrap()];
        let group = sandbox.launch("unattached").recorder().args(cwd).args(args).puppet(["hang"]).start();
        std::fs::remove_dir(&directory).unwrap();
        group.member(Role::Process).signal(Signal::SIGKILL);
        group
    };
    let why = "working directory: No such file or directory";
    let waits = launch(&["--backoff", "1h", "--backoff-max", "1h"]);
    let status = waits.wait_state("backoff");
    assert!(status["reason"].as_str().unwrap().ends_with(why), "{status:#}");
    // That was not why the group has failed.
    waits.member(Role::Monitor).signal(Signal::SIGKILL);
    let status = waits.wait_state("failed");
    assert!(status["reason"].as_str().unwrap().starts_with("the pump died: "), "{status:#}");
    waits.command("stop").assert_code(0);
    let gives_up = launch(&["--backoff", "0ms", "--backoff-max", "0ms", "--max-restarts", "2"]);
    let status = gives_up.wait_state("failed");
    let reason = status["reason"].as_str().unwrap();
    assert!(reason.starts_with("gave up after 2 respawns") && reason.ends_with(why), "{reason}");
}

#[test]
fn of_several_reasons_the_newest_is_named() {
    let sandbox = Sandbox::new();
    let directory = sandbox.path("work");
    std::fs::create_dir(&directory).unwrap();
    let program = sandbox.executable(immortal_tests::artifacts().puppet(), "program");
    let group = sandbox
        .launch("unattached")
        .recorder()
        .args(["--cwd", directory.to_str().unwrap(), "--backoff", "1h", "--backoff-max", "1h"])
        .program([program.to_str().unwrap(), "hang"])
        .start();
    std::fs::remove_dir(&directory).unwrap();
    group.member(Role::Process).signal(Signal::SIGKILL);
    assert!(group.wait_state("backoff")["reason"].as_str().unwrap().contains("working directory"));
    std::fs::create_dir(&directory).unwrap();
    std::fs::remove_file(&program).unwrap();
    group.command("restart").assert_refused(1);
    let reason = |status: &serde_json::Value| status["reason"].as_str().unwrap_or_default().to_owned();
    let second = reason(&group.wait_state("backoff"));
    assert!(!second.contains("working directory") && second.contains("No such file"), "{second}");
    group.member(Role::Monitor).signal(Signal::SIGTERM);
    assert_eq!(reason(&group.wait_state("failed")), "the pump got SIGTERM");
}

#[test]
fn a_program_that_loses_its_permission_is_an_unstable_death_with_126() {
    let sandbox = Sandbox::new();
    let program = sandbox.executable(immortal_tests::artifacts().puppet(), "program");
    let pause = ["--backoff", "1h", "--backoff-max", "1h"];
    let group = sandbox
        .launch("unattached")
        .recorder()
        .args(pause)
        .program([program.to_str().unwrap(), "hang"])
        .start();
    // Another file under the name: the running one cannot be written to.
    std::fs::remove_file(&program).unwrap();
    sandbox.file("program", "", 0o600);
    group.member(Role::Process).signal(Signal::SIGKILL);
    let status = group.wait_state("backoff");
    assert_eq!(status["last_exit"]["code"], 126, "{status:#}");
}

#[test]
fn what_is_left_of_the_process_group_is_ended_politely_before_a_respawn() {
    let sandbox = Sandbox::new();
    let child = ["spawn", "block=TERM", "touch=child", "wait-signal=TERM", "sleep=100", "touch=ended", "end"];
    let steps = [&["exists=ended"], &child[..], &["wait-file=child", "note=ran", "hang"]].concat();
    let group = sandbox.launch("unattached").log().puppet(steps).start();
    eventually("the first run", || (sandbox.noted("ran").len() == 1).then_some(()));
    group.member(Role::Process).signal(Signal::SIGKILL);
    eventually("the second run", || (sandbox.noted("ran").len() == 2).then_some(()));
    let said = group.wait_log("both answers", |log| log.output_text().contains("yes")).output_text();
    assert!(said.starts_with("no\n"), "{said:?}");
    let answers: Vec<&str> = said.lines().filter(|line| ["yes", "no"].contains(line)).collect();
    assert_eq!(answers, ["no", "yes"], "the second run found the child ended: {said:?}");
}

#[test]
fn what_ignores_the_stop_signal_is_killed_before_a_respawn() {
    let sandbox = Sandbox::new();
    let child = ["spawn", "block=TERM", "note=child", "hang", "end"];
    let steps = [&child[..], &["hang-after=1:count", "wait-file=child", "sleep=100", "exit=1"]].concat();
    let group =
        sandbox.launch("unattached").recorder().args(["--stop-timeout", "300ms"]).puppet(steps).start();
    respawns(&group, 1);
    let first = eventually("the first child", || sandbox.noted("child").first().copied());
    assert!(immortal_tests::Process::find(first).is_none(), "it was there when the process was respawned");
}

#[test]
fn a_child_in_a_session_of_its_own_survives_a_respawn() {
    let sandbox = Sandbox::new();
    let steps = ["hang-after=1:count", "session", "note=child", "hang", "end", "wait-file=child", "exit=1"];
    let group = sandbox.launch("unattached").recorder().puppet(steps).start();
    respawns(&group, 1);
    let child = eventually("the child", || sandbox.noted("child").first().copied());
    assert!(immortal_tests::Process::find(child).is_some(), "it left the process group");
}

#[test]
fn the_stop_signal_is_the_one_that_was_chosen() {
    let sandbox = Sandbox::new();
    let steps = ["block=USR1", "out=ready", "wait-signal=USR1", "exit=0"];
    let group = sandbox.launch("unattached").log().args(["--stop-signal", "USR1"]).puppet(steps).start();
    group.wait_log("it is ready", |log| log.output() == b"ready\n");
    group.stop();
    assert_eq!(group.log().output_text(), "ready\ngot USR1\n");
}

#[test]
fn a_stop_signal_may_be_written_with_sig() {
    let sandbox = Sandbox::new();
    let steps = ["block=INT", "out=ready", "wait-signal=INT", "exit=0"];
    let group = sandbox.launch("unattached").log().args(["--stop-signal", "SIGINT"]).puppet(steps).start();
    group.wait_log("it is ready", |log| log.output() == b"ready\n");
    group.stop();
    assert_eq!(group.log().output_text(), "ready\ngot INT\n");
}

#[test]
fn the_stop_signal_goes_to_the_whole_process_group() {
    let sandbox = Sandbox::new();
    let child = ["spawn", "block=TERM", "touch=child", "wait-signal=TERM", "touch=ended", "end"];
    let steps = [&child[..], &["wait-file=child", "out=ready", "hang"]].concat();
    let group = sandbox.launch("unattached").log().puppet(steps).start();
    group.wait_log("it is ready", |log| log.output() == b"ready\n");
    group.stop();
    assert!(sandbox.path("ended").exists());
}

#[test]
fn a_stopped_process_is_continued_so_that_it_can_end() {
    let sandbox = Sandbox::new();
    // Without the SIGCONT only the timeout would end it, and that is longer than the test.
    let group =
        sandbox.launch("unattached").recorder().args(["--stop-timeout", "1h"]).puppet(["hang"]).start();
    let process = group.member(Role::Process);
    process.signal(Signal::SIGSTOP);
    eventually("it stands still", || process.is_stopped().then_some(()));
    group.stop();
}

#[test]
fn a_process_that_ignores_the_stop_signal_is_killed_after_the_timeout() {
    let sandbox = Sandbox::new();
    let steps = ["block=TERM", "note=ran", "hang"];
    let group =
        sandbox.launch("unattached").recorder().args(["--stop-timeout", "300ms"]).puppet(steps).start();
    eventually("it is ready", || sandbox.noted("ran").first().copied());
    group.stop();
}

#[cfg(target_os = "linux")]
#[test]
fn descendants_that_left_the_process_group_are_killed_after_the_timeout() {
    for way in ["session", "orphan"] {
        for strategy in ["unattached", "daemon"] {
            let sandbox = Sandbox::new();
            let steps =
                ["block=TERM", way, "setsid", "block=TERM", "note=child", "hang", "end", "note=ran", "hang"];
            // A session's leader cannot lead another one.
            let steps: Vec<&str> =
                steps.into_iter().filter(|step| way == "orphan" || *step != "setsid").collect();
            let group =
                sandbox.launch(strategy).recorder().args(["--stop-timeout", "300ms"]).puppet(steps).start();
            eventually("both are ready", || {
                (sandbox.noted("child").len() + sandbox.noted("ran").len() == 2).then_some(())
            });
            group.stop();
        }
    }
}

#[test]
fn children_of_the_process_are_no_zombies_after_its_death() {
    let sandbox = Sandbox::new();
    let steps = ["orphan", "setsid", "sleep=20", "exit=0", "end", "hang-after=10:count", "exit=1"];
    let pause = ["--backoff", "0ms", "--backoff-max", "0ms"];
    for strategy in ["unattached", "daemon"] {
        let group = sandbox.launch(strategy).name(strategy).recorder().args(pause).puppet(steps).start();
        respawns(&group, 1);
    }
    eventually("both hang", || (std::fs::metadata(sandbox.path("count")).ok()?.len() >= 12).then_some(()));
    holds_for(Duration::from_millis(300), "no zombies", || sandbox.zombies().is_empty());
}

#[test]
fn a_process_that_dies_with_all_its_children_leaves_no_zombies() {
    let script = "for i in 1 2 3 4; do sleep 100000 & done; echo ready >>runs; wait";
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let group = sandbox.launch(strategy).recorder().args(["--stable", "0ms"]);
        let group = group.program(["/bin/sh", "-c", script]).start();
        let mut old = group.started;
        for run in 1..=5 {
            let lines = || {
                std::fs::read_to_string(sandbox.path("runs")).is_ok_and(|text| text.lines().count() == run)
            };
            eventually("the children run", || lines().then_some(()));
            let process_group = nix::unistd::Pid::from_raw(group.member(Role::Process).pid);
            nix::sys::signal::killpg(process_group, Signal::SIGKILL).expect("they run");
            old = group.wait_renewed(old, &[Role::Process]);
            assert_eq!(sandbox.zombies(), [0_i32; 0], "{strategy}: death {run}");
        }
    }
}

#[test]
fn the_pid_of_the_process_before_is_free_when_the_next_one_looks() {
    let script = "{ read old <pid; } 2>/dev/null; \
                  if [ -n \"$old\" ] && kill -0 \"$old\" 2>/dev/null; then echo \"$old\" >>found; fi; \
                  echo $$ >pid; echo ran >>runs; \
                  [ $(wc -l <runs) -ge 200 ] && exec sleep 100000; kill -9 $$";
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let pause = ["--backoff", "0ms", "--backoff-max", "0ms"];
        let group =
            sandbox.launch(strategy).recorder().args(pause).program(["/bin/sh", "-c", script]).start();
        respawns(&group, 199);
        assert!(!sandbox.path("found").exists(), "{strategy}");
    }
}

/// Asserts that the lines of each run are whole, in order and there once: `PID NUMBER`, from 0 on. The last line
/// of a run may be cut.
fn assert_lines(output: &str) -> usize {
    let mut runs: Vec<(String, u64)> = Vec::new();
    for line in output.lines() {
        let (pid, number) = line.split_once(' ').unwrap_or((line, ""));
        match runs.last_mut() {
            Some((run, next)) if run == pid && *number == next.to_string() => *next += 1,
            _ if number == "0" => runs.push((pid.to_owned(), 1)),
            // What a killed run could not finish: a part of the line that would have come next.
            Some((run, next)) if format!("{run} {next}").starts_with(line) => {}
            // Killed before its first line was whole.
            _ if line.len() < 10 && !line.contains(' ') => {}
            last => panic!("line {line:?} after {last:?}"),
        }
    }
    runs.len()
}

/// The last few lines of a file that may be large.
fn end_of(path: &std::path::Path) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let mut bytes = Vec::new();
    if let Ok(mut file) = std::fs::File::open(path) {
        let length = file.metadata().map_or(0, |data| data.len());
        drop(file.seek(SeekFrom::Start(length.saturating_sub(4096))));
        drop(file.take(4096).read_to_end(&mut bytes));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn no_byte_is_lost_or_doubled_when_the_process_is_killed_while_it_writes() {
    let sandbox = Sandbox::new();
    let pause = ["--backoff", "0ms", "--backoff-max", "0ms"];
    let group =
        sandbox.launch("unattached").log().args(pause).puppet(["note=ran", "lines=100000000"]).start();
    for kill in 1..=15 {
        let pid = eventually("the next run", || sandbox.noted("ran").get(kill - 1).copied());
        let own = format!("\n{pid} ");
        eventually("it has written", || end_of(&sandbox.path("log")).contains(&own).then_some(()));
        if let Some(process) = immortal_tests::Process::find(pid) {
            process.signal(if kill % 2 == 0 { Signal::SIGKILL } else { Signal::SIGTERM });
        }
    }
    eventually("the last run", || sandbox.noted("ran").get(15).copied());
    group.stop();
    let runs = assert_lines(&group.log().output_text());
    assert!(runs >= 15, "{runs} runs");
}

#[test]
fn all_that_the_dead_process_had_written_stands_before_its_end() {
    for signal in ["KILL", "TERM"] {
        let sandbox = Sandbox::new();
        let steps = ["hang-after=1:count", "lines=4000", &format!("signal={signal}")].map(str::to_owned);
        let group = sandbox.launch("daemon").log().puppet(steps).start();
        let log = group.wait_log("the restart", |log| log.events().len() == 5);
        let pid = group.started.process.unwrap();
        let expected: String = (0..4000).map(|number| format!("{pid} {number}\n")).collect();
        let written = log.output_before("! process terminated").unwrap();
        assert!(
            String::from_utf8_lossy(&written) == expected,
            "{signal}: {} bytes of {}",
            written.len(),
            expected.len()
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn respawns_leak_no_descriptor() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let pause = ["--backoff", "0ms", "--backoff-max", "0ms"];
        let steps = ["hang-after=30:count", "out=hello", "exit=1"];
        let group = sandbox.launch(strategy).log().args(pause).puppet(steps).start();
        let roles = [group.started.monitor, group.started.daemon];
        let open = || -> Vec<usize> {
            let found = roles.iter().flatten().filter_map(|pid| immortal_tests::Process::find(*pid));
            found.map(|role| role.descriptors().len()).collect()
        };
        eventually("the last respawn", || {
            (std::fs::metadata(sandbox.path("count")).ok()?.len() > 30).then_some(())
        });
        let before = open();
        std::fs::write(sandbox.path("count"), "").unwrap();
        group.member(Role::Process).signal(Signal::SIGKILL);
        eventually("thirty more", || {
            (std::fs::metadata(sandbox.path("count")).ok()?.len() > 30).then_some(())
        });
        eventually(&format!("{strategy}: {before:?} descriptors again"), || (open() == before).then_some(()));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn respawns_of_the_pump_leak_no_descriptor_of_the_daemon() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").recorder().args(["--stable", "0ms"]).puppet(["hang"]).start();
    let renew = |mut old: immortal_tests::Pids| {
        for _ in 0..5 {
            group.member(Role::Monitor).signal(Signal::SIGKILL);
            old = group.wait_renewed(old, &[Role::Process, Role::Monitor]);
        }
        old
    };
    let open = || group.member(Role::Daemon).descriptors().len();
    let old = renew(group.started);
    let before = open();
    renew(old);
    eventually(&format!("{before} descriptors again"), || (open() == before).then_some(()));
}
