//! Strategy `daemon`: whoever dies, the group comes back, and nobody stays behind.

use immortal_tests::{Group, Pids, Process, Role, Sandbox, Signal, eventually, holds_for, start_events};
use std::time::Duration;

const ALL: [Role; 3] = [Role::Process, Role::Monitor, Role::Daemon];

fn greeting(sandbox: &Sandbox) -> Group<'_> {
    let group = sandbox.launch("daemon").log().puppet(["out=hello", "hang"]).start();
    group.wait_log("the first line", |log| log.output() == b"hello\n");
    group
}

/// Kills one member and asserts who is new and that the log tells it in the order of the contract.
fn killed(role: Role, signal: Signal, renewed: &[Role], told: impl Fn(&Pids) -> Vec<String>) {
    let sandbox = Sandbox::new();
    let group = greeting(&sandbox);
    let old = group.started;
    group.member(role).signal(signal);
    let new = group.wait_renewed(old, renewed);
    let log = group.wait_log("the second line", |log| log.output() == b"hello\nhello\n");
    let mut expected = start_events(&old);
    expected.extend(told(&new));
    assert_eq!(log.events(), expected);
    let mut found: Vec<i32> = sandbox.processes().iter().map(|process| process.pid).collect();
    let mut members: Vec<i32> = new.members().iter().map(|process| process.pid).collect();
    found.sort_unstable();
    members.sort_unstable();
    assert_eq!(found, members, "the members and nobody else");
}

fn process_killed(signal: Signal) {
    killed(Role::Process, signal, &[Role::Process], |new| {
        vec!["! process terminated !".into(), format!("! process#{} restarted !", new.of(Role::Process))]
    });
}

fn pump_killed(signal: Signal) {
    killed(Role::Monitor, signal, &[Role::Process, Role::Monitor], |new| {
        vec![
            format!("! monitor#{} restarted !", new.of(Role::Monitor)),
            format!("! process#{} restarted !", new.of(Role::Process)),
        ]
    });
}

fn daemon_killed(signal: Signal) {
    killed(Role::Daemon, signal, &ALL, |new| {
        vec![
            format!("! monitor#{} restarted !", new.of(Role::Monitor)),
            format!("! daemon#{} restarted !", new.of(Role::Daemon)),
            format!("! process#{} restarted !", new.of(Role::Process)),
        ]
    });
}

#[test]
fn start_is_told_as_monitor_daemon_process() {
    let sandbox = Sandbox::new();
    let group = greeting(&sandbox);
    assert_eq!(group.log().events(), start_events(&group.started));
}

#[test]
fn a_group_is_its_three_members_and_nothing_else() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").recorder().puppet(["hang"]).start();
    assert_eq!(group.started.count(), 3);
    assert_eq!(sandbox.processes().len(), 3);
}

#[test]
fn a_terminated_process_is_respawned() {
    process_killed(Signal::SIGTERM);
}

#[test]
fn a_killed_process_is_respawned() {
    process_killed(Signal::SIGKILL);
}

#[test]
fn a_terminated_pump_is_respawned_with_the_process() {
    pump_killed(Signal::SIGTERM);
}

#[test]
fn an_interrupted_pump_is_respawned_with_the_process() {
    pump_killed(Signal::SIGINT);
}

#[test]
fn a_pump_that_got_a_hangup_is_respawned_with_the_process() {
    pump_killed(Signal::SIGHUP);
}

#[test]
fn a_killed_pump_is_respawned_with_the_process() {
    pump_killed(Signal::SIGKILL);
}

#[test]
fn a_terminated_daemon_is_replaced_with_everybody() {
    daemon_killed(Signal::SIGTERM);
}

#[test]
fn an_interrupted_daemon_is_replaced_with_everybody() {
    daemon_killed(Signal::SIGINT);
}

#[test]
fn a_daemon_that_got_a_hangup_is_replaced_with_everybody() {
    daemon_killed(Signal::SIGHUP);
}

#[test]
fn a_killed_daemon_is_replaced_with_everybody() {
    daemon_killed(Signal::SIGKILL);
}

#[test]
fn every_member_can_be_killed_again_and_again() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").recorder().args(["--stable", "0ms"]).puppet(["hang"]).start();
    let mut old = group.started;
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGKILL] {
        for (role, renewed) in [
            (Role::Daemon, &ALL[..]),
            (Role::Monitor, &[Role::Process, Role::Monitor]),
            (Role::Process, &[Role::Process]),
        ] {
            Process::find(old.of(role)).unwrap().signal(signal);
            old = group.wait_renewed(old, renewed);
        }
    }
    assert_eq!(sandbox.processes().len(), 3);
}

/// Asserts that one whole group is left or nothing at all, and that it stays so.
#[track_caller]
fn settles(group: &Group<'_>, what: &str) {
    holds_for(Duration::from_millis(300), &format!("{what}: a whole group or nothing"), || {
        let found = group.sandbox.processes();
        if found.is_empty() {
            return true;
        }
        let Some(status) = group.try_status() else { return false };
        let members = Pids::from_json(&status["pids"]).members();
        status["state"] == "running"
            && members.len() == 3
            && found.len() == 3
            && members.iter().all(|member| found.contains(member))
    });
}

/// Kills daemon and pump, this far apart, and asserts that one whole group is left or nothing at all.
fn both_killed(first: Role, signal: Signal, millis: std::ops::Range<u64>) {
    for apart in millis {
        let sandbox = Sandbox::new();
        let group = sandbox.launch("daemon").recorder().puppet(["hang"]).start();
        let second = if first == Role::Monitor { Role::Daemon } else { Role::Monitor };
        let (first, second) = (group.member(first), group.member(second));
        first.signal(signal);
        std::thread::sleep(Duration::from_millis(apart));
        second.signal(signal);
        eventually("both are gone", || (first.is_gone() && second.is_gone()).then_some(()));
        settles(&group, &format!("{apart} ms apart"));
        drop(group.command("stop"));
    }
}

#[test]
fn a_pump_and_a_daemon_killed_shortly_after_leave_no_stray() {
    both_killed(Role::Monitor, Signal::SIGKILL, 0..7);
}

#[test]
fn a_pump_and_a_daemon_killed_a_little_later_leave_no_stray() {
    both_killed(Role::Monitor, Signal::SIGKILL, 7..14);
}

#[test]
fn a_pump_and_a_daemon_killed_later_leave_no_stray() {
    both_killed(Role::Monitor, Signal::SIGKILL, 14..21);
}

#[test]
fn a_daemon_and_a_pump_killed_shortly_after_leave_no_stray() {
    both_killed(Role::Daemon, Signal::SIGKILL, 0..7);
}

#[test]
fn a_daemon_and_a_pump_killed_a_little_later_leave_no_stray() {
    both_killed(Role::Daemon, Signal::SIGKILL, 7..14);
}

#[test]
fn a_daemon_and_a_pump_killed_later_leave_no_stray() {
    both_killed(Role::Daemon, Signal::SIGKILL, 14..21);
}

#[test]
fn a_pump_and_a_daemon_terminated_shortly_after_each_other_leave_no_stray() {
    both_killed(Role::Monitor, Signal::SIGTERM, 0..11);
}

#[test]
fn a_daemon_and_a_pump_terminated_shortly_after_each_other_leave_no_stray() {
    both_killed(Role::Daemon, Signal::SIGTERM, 0..11);
}

#[test]
fn both_terminated_at_once_end_the_group_politely() {
    let sandbox = Sandbox::new();
    let steps = ["block=TERM", "touch=ready", "wait-signal=TERM", "touch=stopped", "exit=0"];
    let group = sandbox.launch("daemon").recorder().puppet(steps).start();
    eventually("the process is ready", || sandbox.path("ready").exists().then_some(()));
    let (pump, daemon) = (group.member(Role::Monitor), group.member(Role::Daemon));
    pump.signal(Signal::SIGTERM);
    daemon.signal(Signal::SIGTERM);
    eventually("the process got the stop signal", || sandbox.path("stopped").exists().then_some(()));
    eventually("everything is gone", || sandbox.processes().is_empty().then_some(()));
    holds_for(Duration::from_millis(300), "nothing comes back", || sandbox.processes().is_empty());
}

#[cfg(target_os = "linux")]
#[test]
fn a_process_that_ignores_the_stop_signal_is_orphaned_when_both_die_at_once() {
    let sandbox = Sandbox::new();
    let steps = ["block=TERM", "touch=ready", "hang"];
    let group = sandbox.launch("daemon").recorder().args(["--stop-timeout", "500ms"]).puppet(steps).start();
    eventually("the process is ready", || sandbox.path("ready").exists().then_some(()));
    let (process, pump, daemon) =
        (group.member(Role::Process), group.member(Role::Monitor), group.member(Role::Daemon));
    // Both stopped first, so that neither can act on the other's death.
    for member in [pump, daemon] {
        member.signal(Signal::SIGSTOP);
        eventually("it stands still", || member.is_stopped().then_some(()));
    }
    pump.signal(Signal::SIGKILL);
    daemon.signal(Signal::SIGKILL);
    let status = group.wait_state("orphaned");
    let pids = Pids::from_json(&status["pids"]);
    assert_eq!((pids.process, pids.monitor, pids.daemon), (Some(process.pid), None, None));
    group.command("stop").assert_code(0);
    assert!(process.is_gone());
    sandbox.assert_nothing_left();
}

fn stubborn_process_when(role: Role) {
    let sandbox = Sandbox::new();
    let steps = ["block=TERM", "note=ran", "hang"];
    let group = sandbox.launch("daemon").recorder().args(["--stop-timeout", "300ms"]).puppet(steps).start();
    eventually("the process is ready", || (!sandbox.noted("ran").is_empty()).then_some(()));
    let process = group.member(Role::Process);
    group.member(role).signal(Signal::SIGKILL);
    let new = eventually("a second run", || sandbox.noted("ran").get(1).copied());
    assert!(process.is_gone(), "the old one is ended before the new one {new} starts");
}

#[test]
fn a_process_that_ignores_the_stop_signal_is_killed_before_the_pumps_successor_starts_another() {
    stubborn_process_when(Role::Monitor);
}

#[test]
fn a_process_that_ignores_the_stop_signal_is_killed_before_the_daemons_successor_starts_another() {
    stubborn_process_when(Role::Daemon);
}

fn polite_stop_when(role: Role, signal: Signal) {
    let sandbox = Sandbox::new();
    let steps = ["block=TERM", "note=ran", "wait-signal=TERM", "sleep=100", "note=stopped", "exit=0"];
    let group = sandbox.launch("daemon").recorder().puppet(steps).start();
    let first = eventually("the process is ready", || sandbox.noted("ran").first().copied());
    group.member(role).signal(signal);
    eventually("a second run", || sandbox.noted("ran").get(1).copied());
    assert_eq!(sandbox.noted("stopped"), [first], "it was given the time to end by itself");
}

#[test]
fn the_process_is_stopped_politely_when_the_pump_is_killed() {
    polite_stop_when(Role::Monitor, Signal::SIGKILL);
}

#[test]
fn the_process_is_stopped_politely_when_the_pump_is_terminated() {
    polite_stop_when(Role::Monitor, Signal::SIGTERM);
}

#[test]
fn the_process_is_stopped_politely_when_the_daemon_is_killed() {
    polite_stop_when(Role::Daemon, Signal::SIGKILL);
}

#[test]
fn the_process_is_stopped_politely_when_the_daemon_is_terminated() {
    polite_stop_when(Role::Daemon, Signal::SIGTERM);
}

fn counts(group: &Group<'_>) -> [i64; 3] {
    let status = group.status();
    ["restarts", "monitor_restarts", "daemon_restarts"].map(|key| status[key].as_i64().expect("a count"))
}

#[test]
fn restarts_are_counted_for_each_role() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").recorder().puppet(["hang"]).start();
    assert_eq!(counts(&group), [0, 0, 0]);
    let old = group.started;
    group.member(Role::Process).signal(Signal::SIGKILL);
    let old = group.wait_renewed(old, &[Role::Process]);
    assert_eq!(counts(&group), [1, 0, 0]);
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    let old = group.wait_renewed(old, &[Role::Process, Role::Monitor]);
    assert_eq!(counts(&group), [2, 1, 0]);
    group.member(Role::Daemon).signal(Signal::SIGKILL);
    group.wait_renewed(old, &ALL);
    let [restarts, _, daemon_restarts] = counts(&group);
    assert_eq!([restarts, daemon_restarts], [3, 1]);
}

#[test]
fn the_end_of_a_process_that_went_with_its_pump_is_in_last_exit() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").recorder().puppet(["hang"]).start();
    let old = group.started;
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    group.wait_renewed(old, &[Role::Process, Role::Monitor]);
    let last = &group.status()["last_exit"];
    assert_eq!((&last["code"], &last["signal"]), (&serde_json::Value::Null, &"TERM".into()), "{last}");
    let exits = group.records().iter().filter(|record| record.hook() == "exit").count();
    assert_eq!(exits, 0, "it has no exit event of its own");
}

#[test]
fn a_stopped_pump_is_no_dead_pump() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").recorder().puppet(["hang"]).start();
    let pump = group.member(Role::Monitor);
    pump.signal(Signal::SIGSTOP);
    eventually("it stands still", || pump.is_stopped().then_some(()));
    pump.signal(Signal::SIGCONT);
    holds_for(Duration::from_millis(300), "the same pids", || group.pids() == group.started);
}

#[test]
fn a_process_that_stands_still_is_replaced_when_its_pump_dies() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").recorder().args(["--stop-timeout", "1h"]).puppet(["hang"]).start();
    let process = group.member(Role::Process);
    process.signal(Signal::SIGSTOP);
    eventually("it stands still", || process.is_stopped().then_some(()));
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    // Without the SIGCONT it would wait for a timeout that is longer than the test.
    group.wait_renewed(group.started, &[Role::Process, Role::Monitor]);
}

#[test]
fn a_daemon_killed_during_a_pause_is_replaced() {
    let sandbox = Sandbox::new();
    let pause = ["--backoff", "1h", "--backoff-max", "1h"];
    let steps = ["hang-after=2:count", "exit=1"];
    let group = sandbox.launch("daemon").recorder().args(pause).puppet(steps).start();
    group.wait_state("backoff");
    let daemon = group.member(Role::Daemon);
    daemon.signal(Signal::SIGKILL);
    eventually("another daemon", || {
        group.pids().daemon.filter(|pid| *pid != daemon.pid).and_then(Process::find)
    });
    group.stop();
}

/// No pump lives then that could execute another daemon.
#[test]
fn a_daemon_interrupted_in_the_pause_before_the_next_pump_leaves_the_group_to_that_pump() {
    for signal in [Signal::SIGINT, Signal::SIGHUP] {
        let sandbox = Sandbox::new();
        let pause = ["--stable", "1h", "--backoff", "1h", "--backoff-max", "1h"];
        let group = sandbox.launch("daemon").recorder().args(pause).puppet(["hang"]).start();
        group.member(Role::Monitor).signal(Signal::SIGKILL);
        let second = group.wait_renewed(group.started, &[Role::Process, Role::Monitor]);
        group.member(Role::Monitor).signal(Signal::SIGKILL);
        group.wait_state("backoff");
        group.member(Role::Daemon).signal(signal);
        group.wait_renewed(second, &ALL);
        group.stop();
        sandbox.assert_nothing_left();
    }
}

#[test]
fn a_daemon_killed_while_the_process_is_stopped_for_good_does_not_start_it() {
    let sandbox = Sandbox::new();
    let steps = ["note=ran", "wait-file=go", "exit=0"];
    let group = sandbox.launch("daemon").recorder().args(["--restart", "never"]).puppet(steps).start();
    sandbox.file("go", "", 0o600);
    group.wait_state("stopped");
    for role in [Role::Daemon, Role::Monitor] {
        let member = group.member(role);
        member.signal(Signal::SIGKILL);
        eventually("its successor", || {
            group.pids().get(role).filter(|pid| *pid != member.pid).and_then(Process::find)
        });
        group.wait_state("stopped");
    }
    holds_for(Duration::from_millis(300), "it ran once", || sandbox.noted("ran").len() == 1);
}

/// How often pump and daemon have gone to sleep so far.
#[cfg(target_os = "linux")]
fn sleeps(group: &Group<'_>) -> Vec<String> {
    [Role::Monitor, Role::Daemon]
        .into_iter()
        .flat_map(|role| {
            let threads =
                std::fs::read_dir(format!("/proc/{}/task", group.started.of(role))).expect("threads");
            threads.map(|thread| thread.expect("a thread").path().join("status")).collect::<Vec<_>>()
        })
        .map(|status| {
            let text = std::fs::read_to_string(status).expect("a thread's status");
            text.lines().filter(|line| line.contains("ctxt_switches")).collect()
        })
        .collect()
}

#[cfg(target_os = "linux")]
#[test]
fn an_idle_group_does_not_wake_up() {
    let sandbox = Sandbox::new();
    let group = greeting(&sandbox);
    // Nobody may look at it meanwhile: not even `status`.
    let mut before = sleeps(&group);
    let mut since = std::time::Instant::now();
    eventually("a second of sleep", || {
        let now = sleeps(&group);
        if now != before {
            (before, since) = (now, std::time::Instant::now());
        }
        (since.elapsed() > Duration::from_secs(1)).then_some(())
    });
}

#[test]
fn a_system_shutdown_ends_the_group() {
    for _ in 0..5 {
        let sandbox = Sandbox::new();
        let group = sandbox.launch("daemon").recorder().puppet(["hang"]).start();
        // As an init does: to everybody at once, in no order.
        group.started.members().iter().for_each(|member| member.signal(Signal::SIGTERM));
        eventually("everything is gone", || sandbox.processes().is_empty().then_some(()));
        holds_for(Duration::from_millis(200), "nothing comes back", || sandbox.processes().is_empty());
    }
}

#[test]
fn the_name_of_a_group_of_which_nothing_is_left_is_free() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").recorder().puppet(["hang"]).start();
    // Nobody can act on another's death, as at a power cut.
    let members = group.started.members();
    members.iter().for_each(|member| member.signal(Signal::SIGSTOP));
    eventually("all stand still", || members.iter().all(|member| member.is_stopped()).then_some(()));
    members.iter().for_each(|member| member.signal(Signal::SIGKILL));
    eventually("all are gone", || sandbox.processes().is_empty().then_some(()));
    let list = sandbox.immortal(["list", "--json"]).run().json();
    let states: Vec<_> = list.as_array().unwrap().iter().map(|group| group["state"].clone()).collect();
    assert!(states.is_empty() || states == ["failed"], "{list:#}");
    let again = sandbox.launch("unattached").recorder().puppet(["hang"]).start();
    assert_eq!(again.wait_running("again", |_| true), again.started);
}

fn children_are_ended_when(role: Role) {
    let sandbox = Sandbox::new();
    let child = ["spawn", "block=TERM", "note=child", "wait-signal=TERM", "sleep=50", "note=ended", "end"];
    let steps = [&child[..], &["wait-file=child", "note=ran", "hang"]].concat();
    let group = sandbox.launch("daemon").recorder().puppet(steps).start();
    let first = eventually("the first child", || {
        sandbox.noted("ran").first()?;
        sandbox.noted("child").first().copied()
    });
    group.member(role).signal(Signal::SIGKILL);
    eventually("the second run", || sandbox.noted("child").get(1).copied());
    assert_eq!(sandbox.noted("ended"), [first], "politely, and before the second run");
}

#[test]
fn the_rest_of_the_process_group_is_ended_when_the_pump_dies() {
    children_are_ended_when(Role::Monitor);
}

#[test]
fn the_rest_of_the_process_group_is_ended_when_the_daemon_dies() {
    children_are_ended_when(Role::Daemon);
}

/// Numbers that look random and are the same every time.
fn scrambled(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    }
}

/// Kills whoever there is, in an order and at times that only the seed knows.
fn storm(seed: u64) {
    let mut number = scrambled(seed);
    for round in 0..6 {
        let sandbox = Sandbox::new();
        let options = ["--backoff", "0ms", "--backoff-max", "0ms", "--stable", "0ms"];
        let group = sandbox.launch("daemon").recorder().args(options).puppet(["hang"]).start();
        for _ in 0..8 {
            let found = sandbox.processes();
            let Some(victim) = found.get(usize::try_from(number(4)).expect("a small number")) else {
                continue;
            };
            victim.signal([Signal::SIGKILL, Signal::SIGTERM][usize::from(number(3) == 0)]);
            std::thread::sleep(Duration::from_millis(number(12)));
        }
        settles(&group, &format!("seed {seed}, round {round}"));
        drop(group.command("stop"));
    }
}

#[test]
fn a_storm_of_kills_leaves_a_whole_group_or_nothing() {
    storm(1);
}

#[test]
fn another_storm_of_kills_leaves_a_whole_group_or_nothing() {
    storm(2);
}

#[test]
fn a_third_storm_of_kills_leaves_a_whole_group_or_nothing() {
    storm(3);
}
