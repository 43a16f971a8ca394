//! Strategy `development`: the parent stays, relays, and is the group's life line.

use immortal_tests::{
    Group, Process, Record, Role, Running, Sandbox, Signal, Terminal, eventually, pattern, records,
};
use std::path::Path;
use std::time::{Duration, Instant};

const NEVER: [&str; 2] = ["--restart", "never"];

fn ready(sandbox: &Sandbox, name: &str) {
    eventually(&format!("the file {name}"), || sandbox.path(name).exists().then_some(()));
}

fn gone(sandbox: &Sandbox) {
    eventually("everything is gone", || sandbox.processes().is_empty().then_some(()));
}

/// A group that says `stopped` in a file when it got the stop signal.
fn polite(sandbox: &Sandbox) -> Running {
    let steps = ["block=TERM", "touch=ready", "wait-signal=TERM", "touch=stopped", "exit=0"];
    let parent = sandbox.launch("development").recorder().puppet(steps).spawn();
    ready(sandbox, "ready");
    parent
}

#[test]
fn no_monitor_option_is_needed() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.launch("development").args(NEVER).puppet(["out=hello", "exit=0"]).run();
    outcome.assert_code(0);
    assert_eq!(outcome.out(), "hello\n");
}

#[test]
fn nothing_but_the_output_of_the_process_is_on_stdout() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.launch("development").args(NEVER).puppet(["raw-out=x", "exit=0"]).run();
    assert_eq!((outcome.out().as_str(), outcome.err().as_str()), ("x", ""));
}

#[test]
fn both_streams_are_relayed_byte_for_byte_and_unmixed() {
    let sandbox = Sandbox::new();
    let steps = ["pattern-out=3000001", "pattern-err=2000003", "pattern-out=1", "exit=0"];
    let outcome = sandbox.launch("development").args(NEVER).puppet(steps).run();
    outcome.assert_code(0);
    let expected = [pattern(3_000_001), pattern(1)].concat();
    assert!(outcome.stdout == expected, "{} bytes of {}", outcome.stdout.len(), expected.len());
    let expected = pattern(2_000_003);
    assert!(outcome.stderr == expected, "{} bytes of {}", outcome.stderr.len(), expected.len());
}

#[test]
fn the_monitors_get_what_is_relayed() {
    let sandbox = Sandbox::new();
    let steps = ["pattern-out=300001", "pattern-err=200003", "exit=0"];
    let outcome = sandbox.launch("development").recorder().args(NEVER).puppet(steps).run();
    outcome.assert_code(0);
    let records = records(&sandbox.path("record"));
    assert!(Record::stream(&records, "stdout") == pattern(300_001));
    assert!(Record::stream(&records, "stderr") == pattern(200_003));
}

#[test]
fn the_output_of_the_pump_is_relayed_to_stderr() {
    let sandbox = Sandbox::new();
    let outcome = sandbox
        .launch("development")
        .recorder()
        .set("stderr", "words of a monitor")
        .args(NEVER)
        .puppet(["out=hello", "exit=0"])
        .run();
    outcome.assert_code(0);
    assert_eq!((outcome.out().as_str(), outcome.err().as_str()), ("hello\n", "words of a monitor\n"));
}

#[test]
fn without_relay_only_the_monitors_get_the_output() {
    let sandbox = Sandbox::new();
    let outcome = sandbox
        .launch("development")
        .recorder()
        .args(NEVER)
        .arg("--no-relay")
        .puppet(["out=hello", "err=oops", "exit=4"])
        .run();
    outcome.assert_code(4);
    assert_eq!((outcome.out().as_str(), outcome.err().as_str()), ("", ""));
    assert_eq!(Record::stream(&records(&sandbox.path("record")), "stdout"), b"hello\n");
}

#[test]
fn a_slow_reader_loses_nothing() {
    let sandbox = Sandbox::new();
    let (mut far, near) = std::io::pipe().unwrap();
    let parent = sandbox
        .launch("development")
        .args(NEVER)
        .puppet(["pattern-out=1000000", "touch=written", "exit=0"])
        .invocation("start")
        .output(near)
        .spawn();
    // It cannot have written everything while nobody reads.
    eventually("the process runs", || {
        let pids = sandbox.immortal(["status", "group", "--json"]).run();
        (pids.code == Some(0)).then_some(())
    });
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut far, &mut bytes).unwrap();
    parent.wait().assert_code(0);
    assert!(bytes == pattern(1_000_000), "{} bytes", bytes.len());
}

#[test]
fn stdin_reaches_the_process_with_its_end() {
    let sandbox = Sandbox::new();
    let mut parent = sandbox.launch("development").args(NEVER).puppet(["copy", "out=end", "exit=0"]).spawn();
    let bytes = pattern(1_000_003);
    parent.write(&bytes);
    parent.close_input();
    let outcome = parent.wait();
    outcome.assert_code(0);
    let expected = [&bytes[..], b"end\n"].concat();
    assert!(outcome.stdout == expected, "{} bytes of {}", outcome.stdout.len(), expected.len());
}

#[test]
fn a_line_on_stdin_arrives_while_stdin_stays_open() {
    let sandbox = Sandbox::new();
    let mut parent = sandbox.launch("development").args(NEVER).puppet(["upper"]).spawn();
    parent.write(b"hello\n");
    parent.wait_stdout("HELLO\n");
    parent.close_input();
    parent.wait().assert_code(0);
}

#[test]
fn a_process_that_does_not_read_its_stdin_is_no_trouble() {
    let sandbox = Sandbox::new();
    let mut parent = sandbox.launch("development").args(NEVER).puppet(["wait-file=go", "exit=0"]).spawn();
    parent.write(b"never read\n");
    sandbox.file("go", "", 0o600);
    parent.wait().assert_code(0);
}

#[test]
fn the_exit_code_of_the_process_is_the_parents() {
    let sandbox = Sandbox::new();
    for code in [0, 1, 7, 255] {
        let exit = format!("exit={code}");
        sandbox.launch("development").args(NEVER).puppet([exit]).run().assert_code(code);
    }
}

#[test]
fn a_signal_that_ended_the_process_becomes_128_and_its_number() {
    let sandbox = Sandbox::new();
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGUSR1] {
        let step = format!("signal={}", signal.as_str().trim_start_matches("SIG"));
        sandbox.launch("development").args(NEVER).puppet([step]).run().assert_code(128 + signal as i32);
    }
}

#[test]
fn a_process_that_is_not_to_be_respawned_ends_the_group() {
    let sandbox = Sandbox::new();
    sandbox.launch("development").args(NEVER).puppet(["exit=0"]).run().assert_code(0);
    sandbox.assert_nothing_left();
}

#[test]
fn a_dead_process_is_respawned_under_the_same_pump() {
    let sandbox = Sandbox::new();
    let parent = sandbox.launch("development").recorder().puppet(["out=hello", "hang"]).spawn();
    let group = Group::find(&sandbox, "group");
    group.member(Role::Process).signal(Signal::SIGKILL);
    group.wait_renewed(group.started, &[Role::Process]);
    parent.wait_stdout("hello\nhello\n");
}

#[test]
fn a_monitor_that_asks_for_a_restart_at_the_exit_keeps_the_group() {
    let sandbox = Sandbox::new();
    let parent = sandbox
        .launch("development")
        .recorder()
        .set("restart_in", "exit")
        .args(NEVER)
        .puppet(["out=hello", "hang-after=1:count", "exit=0"])
        .spawn();
    parent.wait_stdout("hello\nhello\n");
    Group::find(&sandbox, "group").stop();
}

fn parent_got(signal: Signal) {
    let sandbox = Sandbox::new();
    let parent = polite(&sandbox);
    parent.signal(signal);
    let outcome = parent.wait();
    assert!(sandbox.path("stopped").exists(), "the process got the stop signal: {outcome}");
    outcome.assert_code(0);
    gone(&sandbox);
    sandbox.assert_nothing_left();
}

#[test]
fn an_interrupt_to_the_parent_stops_the_group() {
    parent_got(Signal::SIGINT);
}

#[test]
fn a_termination_of_the_parent_stops_the_group() {
    parent_got(Signal::SIGTERM);
}

#[test]
fn a_hangup_of_the_parent_stops_the_group() {
    parent_got(Signal::SIGHUP);
}

#[test]
fn a_process_that_dies_of_the_stop_signal_makes_the_parent_say_143() {
    let sandbox = Sandbox::new();
    let parent = sandbox.launch("development").puppet(["out=ready", "hang"]).spawn();
    parent.wait_stdout("ready\n");
    parent.signal(Signal::SIGINT);
    parent.wait().assert_code(143);
}

#[test]
fn output_written_after_the_stop_signal_is_relayed() {
    let sandbox = Sandbox::new();
    let steps = ["block=TERM", "out=ready", "wait-signal=TERM", "pattern-out=200000", "exit=5"];
    let parent = sandbox.launch("development").puppet(steps).spawn();
    parent.wait_stdout("ready\n");
    parent.signal(Signal::SIGTERM);
    let outcome = parent.wait();
    outcome.assert_code(5);
    let expected = [b"ready\ngot TERM\n".to_vec(), pattern(200_000)].concat();
    assert!(outcome.stdout == expected, "{} bytes of {}", outcome.stdout.len(), expected.len());
}

#[test]
fn a_killed_parent_takes_the_group_along_within_a_second() {
    let sandbox = Sandbox::new();
    let parent = sandbox.launch("development").recorder().puppet(["touch=ready", "hang"]).spawn();
    ready(&sandbox, "ready");
    let members = Group::find(&sandbox, "group").started.members();
    assert_eq!(members.len(), 2);
    let killed = Instant::now();
    parent.signal(Signal::SIGKILL);
    let took = eventually("process and pump are gone", || {
        members.iter().all(|member| member.is_gone()).then(|| killed.elapsed())
    });
    assert!(took < Duration::from_secs(1), "{took:?}");
    gone(&sandbox);
    sandbox.assert_nothing_left();
}

#[test]
fn a_killed_parent_ends_even_a_process_that_ignores_the_stop_signal() {
    let sandbox = Sandbox::new();
    let steps = ["block=TERM,INT,HUP", "touch=ready", "hang"];
    let parent =
        sandbox.launch("development").recorder().args(["--stop-timeout", "500ms"]).puppet(steps).spawn();
    ready(&sandbox, "ready");
    parent.signal(Signal::SIGKILL);
    gone(&sandbox);
}

#[test]
fn a_killed_parent_stops_the_process_politely() {
    let sandbox = Sandbox::new();
    let parent = polite(&sandbox);
    parent.signal(Signal::SIGKILL);
    ready(&sandbox, "stopped");
    gone(&sandbox);
}

fn pump_died(signal: Signal) {
    let sandbox = Sandbox::new();
    let parent = polite(&sandbox);
    Group::find(&sandbox, "group").member(Role::Monitor).signal(signal);
    let outcome = parent.wait();
    outcome.assert_code(125);
    let says = |line: &str| line.starts_with("error: the pump died: ");
    assert!(outcome.err().lines().any(says), "{outcome}");
    ready(&sandbox, "stopped");
    gone(&sandbox);
}

#[test]
fn a_terminated_pump_makes_the_parent_say_125() {
    pump_died(Signal::SIGTERM);
}

#[cfg(target_os = "linux")]
#[test]
fn a_killed_pump_makes_the_parent_say_125() {
    pump_died(Signal::SIGKILL);
}

#[test]
fn a_crashing_monitor_makes_the_parent_say_125_and_why() {
    for how in ["error", "panic", "abort", "segv", "exit0"] {
        let sandbox = Sandbox::new();
        let outcome = sandbox
            .launch("development")
            .recorder()
            .set("when", "stdout")
            .set("how", how)
            .puppet(["out=hello", "hang"])
            .run();
        outcome.assert_code(125);
        assert!(outcome.err().contains("fixture"), "{how}: {outcome}");
        let last = outcome.err().lines().last().unwrap_or_default().to_owned();
        assert!(last.starts_with("error: the pump died: "), "{how}: {outcome}");
        gone(&sandbox);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_a_process_writes_until_its_end_is_relayed_though_a_monitor_ends_the_pump() {
    for how in ["error", "panic", "abort", "segv", "exit0"] {
        let sandbox = Sandbox::new();
        let steps = [
            "block=TERM",
            "out=hello",
            "wait-signal=TERM",
            "pattern-out=1000001",
            "pattern-err=200003",
            "touch=written",
            "exit=0",
        ];
        let launch = sandbox.launch("development").recorder().set("when", "stdout").set("how", how);
        let outcome = launch.puppet(steps).run();
        outcome.assert_code(125);
        assert!(sandbox.path("written").exists(), "{how}: it was not killed");
        let expected = [&b"hello\ngot TERM\n"[..], &pattern(1_000_001)].concat();
        assert!(outcome.stdout == expected, "{how}: {} bytes", outcome.stdout.len());
        let stderr = pattern(200_003);
        assert!(outcome.stderr.windows(stderr.len()).any(|bytes| bytes == stderr), "{how}: its stderr");
        gone(&sandbox);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_pump_that_dies_while_nobody_reads_does_not_keep_the_parent() {
    let sandbox = Sandbox::new();
    let (far, near) = std::io::pipe().unwrap();
    let steps = ["pattern-out=1000000", "hang"];
    let launch = sandbox.launch("development").recorder().puppet(steps);
    let parent = launch.invocation("start").output(near).spawn();
    let group = eventually("the group", || {
        let group = Group::find(&sandbox, "group");
        group.try_status().filter(|status| status["state"] == "running").map(|_| group)
    });
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    parent.wait().assert_code(125);
    drop(far);
    gone(&sandbox);
}

#[test]
fn a_broken_relay_target_ends_relaying_and_not_the_group() {
    let sandbox = Sandbox::new();
    let (far, near) = std::io::pipe().unwrap();
    let steps = ["out=first", "wait-file=go", "pattern-out=300000", "err=last", "touch=written", "hang"];
    let parent =
        sandbox.launch("development").recorder().puppet(steps).invocation("start").output(near).spawn();
    drop(far);
    let group = Group::find(&sandbox, "group");
    sandbox.file("go", "", 0o600);
    ready(&sandbox, "written");
    group.wait_records("everything", |records| {
        Record::stream(records, "stdout").len() == b"first\n".len() + 300_000
    });
    eventually("the other stream is still relayed", || parent.stderr().ends_with(b"last\n").then_some(()));
    assert_eq!(group.pids(), group.started, "nobody died of it");
}

#[test]
fn a_parent_that_is_a_background_job_is_controlled_by_name() {
    let sandbox = Sandbox::new();
    let parent = polite(&sandbox);
    sandbox.immortal(["stop", "group"]).run().assert_code(0);
    parent.wait().assert_code(0);
    sandbox.assert_nothing_left();
}

#[test]
fn ctrl_c_ends_everything() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::new();
    let parent = terminal
        .immortal(&sandbox, ["start", "-s", "development", "-n", "group"])
        .arg(immortal_tests::artifacts().puppet())
        .args(["out=ready", "hang"])
        .spawn();
    terminal.wait_screen("ready");
    terminal.type_text("\u{3}");
    let outcome = parent.wait();
    assert_eq!(outcome.code, Some(143), "the process's own end: {outcome}");
    gone(&sandbox);
    sandbox.assert_nothing_left();
}

#[test]
fn what_is_typed_reaches_the_process() {
    let sandbox = Sandbox::new();
    let mut terminal = Terminal::new();
    let parent = terminal
        .immortal(&sandbox, ["start", "-s", "development", "-n", "group", "--restart", "never"])
        .arg(immortal_tests::artifacts().puppet())
        .args(["out=ready", "upper", "exit=6"])
        .spawn();
    terminal.wait_screen("ready");
    terminal.type_text("hello\n");
    terminal.wait_screen("HELLO");
    // The terminal's end of file.
    terminal.type_text("\u{4}");
    parent.wait().assert_code(6);
}

#[test]
fn a_program_that_reads_the_terminal_is_not_stopped_by_it() {
    let sandbox = Sandbox::new();
    let terminal = Terminal::new();
    let parent = terminal
        .immortal(&sandbox, ["start", "-s", "development", "-n", "group", "--restart", "never"])
        .arg(immortal_tests::artifacts().puppet())
        .args(["tty", "out=went on", "exit=0"])
        .spawn();
    terminal.wait_screen("tty: ");
    terminal.wait_screen("went on");
    parent.wait().assert_code(0);
}

#[test]
fn a_closed_terminal_ends_the_group() {
    let sandbox = Sandbox::new();
    let terminal = Terminal::new();
    let parent = terminal
        .immortal(&sandbox, ["start", "-s", "development", "-n", "group"])
        .arg(immortal_tests::artifacts().puppet())
        .args(["out=ready", "hang"])
        .spawn();
    terminal.wait_screen("ready");
    let members = Group::find(&sandbox, "group").started.members();
    // What the terminal would send when its window is closed.
    parent.signal(Signal::SIGHUP);
    drop(parent.wait());
    assert!(members.iter().all(|member: &Process| member.is_gone()));
}

#[test]
fn without_a_runtime_directory_it_runs_and_says_so() {
    let sandbox = Sandbox::new();
    let outcome = sandbox
        .launch("development")
        .env("IMMORTAL_RUNTIME_DIR", Path::new("/dev/null/run"))
        .args(NEVER)
        .puppet(["out=hello", "exit=3"])
        .run();
    outcome.assert_code(3);
    assert_eq!(outcome.out(), "hello\n");
    assert!(!outcome.stderr.is_empty(), "it says that it runs without control");
}
