//! `stop` ends everything that descends from the process, however it hides, and in time.

#[cfg(target_os = "linux")]
use immortal_tests::{Group, Role};
use immortal_tests::{Process, Sandbox, Signal, eventually};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_millis(800);
/// What the contract allows on top of the timeout.
const GRACE: Duration = Duration::from_secs(1);

/// What a process may do so as not to be ended, with how many pids note themselves when all is set up. On systems
/// without subreapers nobody can find what has left its process group.
const WAYS: &[(&str, &[&str], usize)] = &[
    ("a process that ignores TERM", &["block=TERM", "note=there", "hang"], 1),
    (
        "grandchildren that ignore TERM",
        &[
            "spawn",
            "block=TERM",
            "spawn",
            "block=TERM",
            "note=there",
            "hang",
            "end",
            "spawn",
            "block=TERM",
            "note=there",
            "hang",
            "end",
            "note=there",
            "hang",
            "end",
            "note=there",
            "hang",
        ],
        4,
    ),
    #[cfg(target_os = "linux")]
    (
        "a child that called setsid",
        &["session", "block=TERM", "note=there", "hang", "end", "note=there", "hang"],
        2,
    ),
    #[cfg(target_os = "linux")]
    (
        "a double fork",
        &["orphan", "setsid", "block=TERM", "note=there", "hang", "end", "note=there", "hang"],
        2,
    ),
    #[cfg(target_os = "linux")]
    (
        "a double fork whose descendants fork on",
        &[
            "orphan",
            "setsid",
            "block=TERM",
            "orphan",
            "setsid",
            "block=TERM",
            "note=there",
            "hang",
            "end",
            "session",
            "block=TERM",
            "note=there",
            "hang",
            "end",
            "note=there",
            "hang",
            "end",
            "block=TERM",
            "note=there",
            "hang",
        ],
        4,
    ),
];

fn timeout() -> [String; 2] {
    ["--stop-timeout".to_owned(), format!("{}ms", TIMEOUT.as_millis())]
}

/// The pids that have noted themselves, as processes.
fn hidden(sandbox: &Sandbox, what: &str, count: usize) -> Vec<Process> {
    let pids = eventually(&format!("{what}: {count} pids"), || {
        let pids = sandbox.noted("there");
        (pids.len() == count).then_some(pids)
    });
    let found: Vec<Process> = pids.into_iter().filter_map(Process::find).collect();
    assert_eq!(found.len(), count, "{what}: all of them run");
    found
}

#[track_caller]
fn assert_gone(sandbox: &Sandbox, what: &str, hidden: &[Process]) {
    let left: Vec<String> = hidden
        .iter()
        .filter(|process| !process.is_gone())
        .map(|process| format!("{}: {}", process.pid, process.command_line()))
        .collect();
    assert!(left.is_empty(), "{what}: {left:#?}");
    assert!(sandbox.processes().is_empty(), "{what}: {:?}", sandbox.processes());
    assert_eq!(sandbox.zombies(), [0_i32; 0], "{what}");
}

fn stops_in_time(strategy: &str) {
    for (way, steps, count) in WAYS {
        let what = format!("{strategy}, {way}");
        let sandbox = Sandbox::new();
        let group = sandbox.launch(strategy).recorder().args(timeout()).puppet(*steps).start();
        let hidden = hidden(&sandbox, &what, *count);
        let stopped = group.command("stop");
        // At this very moment, not a little later.
        assert_gone(&sandbox, &what, &hidden);
        stopped.assert_code(0);
        assert!(stopped.took >= TIMEOUT, "{what}: not politely: {stopped}");
        assert!(stopped.took < TIMEOUT + GRACE, "{what}: {stopped}");
        assert!(stopped.out().contains("killed"), "{what}: it says that it had to kill: {stopped}");
        sandbox.assert_nothing_left();
    }
}

#[test]
fn nothing_is_left_within_the_stop_timeout_and_a_second_under_unattached() {
    stops_in_time("unattached");
}

#[test]
fn nothing_is_left_within_the_stop_timeout_and_a_second_under_a_daemon() {
    stops_in_time("daemon");
}

#[test]
fn nothing_is_left_within_the_stop_timeout_and_a_second_in_development() {
    for (way, steps, count) in WAYS {
        for by_signal in [false, true] {
            let what = format!("development, {way}, by signal: {by_signal}");
            let sandbox = Sandbox::new();
            let parent = sandbox.launch("development").recorder().args(timeout()).puppet(*steps).spawn();
            let hidden = hidden(&sandbox, &what, *count);
            let since = std::time::Instant::now();
            if by_signal {
                parent.signal(Signal::SIGTERM);
            } else {
                sandbox.immortal(["stop", "group"]).run().assert_code(0);
            }
            let ended = parent.wait();
            assert_gone(&sandbox, &what, &hidden);
            assert!(since.elapsed() < TIMEOUT + GRACE, "{what}: {:?}", since.elapsed());
            assert!(ended.code.is_some_and(|code| code == 137 || code == 143), "{what}: {ended}");
            sandbox.assert_nothing_left();
        }
    }
}

#[test]
fn a_polite_end_is_not_called_a_kill() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").recorder().puppet(["hang"]).start();
    let stopped = group.command("stop");
    stopped.assert_code(0);
    assert_eq!(stopped.out(), "stopped group\n");
}

/// A group with a descendant that only a sweep finds.
#[cfg(target_os = "linux")]
fn with_a_stranger<'a>(sandbox: &'a Sandbox, strategy: &str, last: &[&str], options: &[&str]) -> Group<'a> {
    let steps =
        [&["orphan", "setsid", "block=TERM", "note=there", "hang", "end", "wait-file=there"][..], last]
            .concat();
    sandbox.launch(strategy).recorder().args(timeout()).args(options).puppet(steps).start()
}

#[cfg(target_os = "linux")]
#[test]
fn strangers_end_with_a_group_that_a_monitor_shuts_down() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let options = ["--option", "recorder.shutdown_on=enough"];
        with_a_stranger(&sandbox, strategy, &["wait-file=go", "out=enough", "hang"], &options);
        let hidden = hidden(&sandbox, strategy, 1);
        sandbox.file("go", "", 0o600);
        eventually("the group has ended", || sandbox.processes().is_empty().then_some(()));
        assert_gone(&sandbox, strategy, &hidden);
        sandbox.assert_nothing_left();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn strangers_end_with_a_group_that_gives_up() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let group =
            with_a_stranger(&sandbox, strategy, &["wait-file=go", "exit=1"], &["--max-restarts", "0"]);
        let hidden = hidden(&sandbox, strategy, 1);
        sandbox.file("go", "", 0o600);
        group.wait_state("failed");
        eventually("the roles have ended", || sandbox.processes().is_empty().then_some(()));
        assert_gone(&sandbox, strategy, &hidden);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn strangers_end_with_a_group_at_a_system_shutdown() {
    let sandbox = Sandbox::new();
    let group = with_a_stranger(&sandbox, "daemon", &["hang"], &[]);
    let hidden = hidden(&sandbox, "daemon", 1);
    for role in [Role::Monitor, Role::Daemon] {
        Process::find(group.started.of(role)).unwrap().signal(Signal::SIGTERM);
    }
    eventually("the group has ended", || sandbox.processes().is_empty().then_some(()));
    assert_gone(&sandbox, "daemon", &hidden);
    sandbox.assert_nothing_left();
}

#[cfg(target_os = "linux")]
#[test]
fn strangers_of_a_dead_pump_are_swept_by_its_daemon() {
    let sandbox = Sandbox::new();
    let group = with_a_stranger(&sandbox, "daemon", &["hang"], &[]);
    let hidden = hidden(&sandbox, "daemon", 1);
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    group.wait_renewed(group.started, &[Role::Process, Role::Monitor]);
    assert!(hidden[0].is_gone(), "the daemon lets nothing of the dead pump go on");
}

#[cfg(target_os = "linux")]
#[test]
fn strangers_end_with_a_development_group_whose_process_has_ended() {
    let sandbox = Sandbox::new();
    let steps = [
        "orphan",
        "setsid",
        "block=TERM",
        "note=there",
        "hang",
        "end",
        "wait-file=there",
        "wait-file=go",
        "exit=3",
    ];
    let parent =
        sandbox.launch("development").recorder().args(timeout()).arg("--no-auto").puppet(steps).spawn();
    let hidden = hidden(&sandbox, "development", 1);
    sandbox.file("go", "", 0o600);
    parent.wait().assert_code(3);
    assert_gone(&sandbox, "development", &hidden);
}

#[cfg(target_os = "linux")]
#[test]
fn a_crowd_that_forks_while_it_is_stopped_is_ended() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        // Each of them starts another one in a session of its own, and then ends: a chain that never stands still.
        let script = "trap '' TERM; echo $$ >>there; while :; do setsid \"$0\" -c 'trap \"\" TERM; sleep 0.05; \
                      exec setsid sh -c \"sleep 0.05; sleep 1000\"' & sleep 0.02; done";
        let group = sandbox
            .launch(strategy)
            .recorder()
            .args(timeout())
            .program(["/bin/sh", "-c", script, "/bin/sh"])
            .start();
        eventually("a crowd", || (sandbox.processes().len() > 12).then_some(()));
        let stopped = group.command("stop");
        stopped.assert_code(0);
        assert!(stopped.took < TIMEOUT + 3 * GRACE, "{strategy}: {stopped}");
        assert!(sandbox.processes().is_empty(), "{strategy}: {:?}", sandbox.processes());
        sandbox.assert_nothing_left();
    }
}

#[test]
fn stop_works_while_a_hook_hangs() {
    for (strategy, hook) in [("unattached", "stdout"), ("daemon", "stdout"), ("daemon", "exit")] {
        let sandbox = Sandbox::new();
        let group = sandbox
            .launch(strategy)
            .recorder()
            .set("when", hook)
            .set("how", "hang")
            .args(["--stop-timeout", "300ms"])
            .puppet(["out=hello", "wait-file=go", "exit=1"])
            .start();
        if hook == "exit" {
            sandbox.file("go", "", 0o600);
        }
        group.wait_hook(hook, 0);
        // Nobody but the hook is busy.
        assert_eq!(group.status()["name"], "group");
        assert_eq!(sandbox.immortal(["logs", "group"]).run().out(), "hello\n", "{strategy} {hook}");
        if hook == "stdout" {
            sandbox.immortal(["signal", "group", "CONT"]).run().assert_code(0);
        }
        let stopped = group.command("stop");
        stopped.assert_code(0);
        // Monitors have 5 s to take the last output and 5 s to end; the rest is the machine's.
        assert!(stopped.took < Duration::from_secs(14), "{strategy} {hook}: {stopped}");
        assert!(sandbox.processes().is_empty(), "{strategy} {hook}");
        sandbox.assert_nothing_left();
    }
}
