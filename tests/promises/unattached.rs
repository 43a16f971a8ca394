//! Strategy `unattached`: who there is, whose child it is, and what the death of one member means.

use immortal_tests::{Group, Pids, Record, Role, Sandbox, Signal, eventually, start_events};

/// A process that says on the log that it got the stop signal, and ends.
const POLITE: [&str; 5] = ["block=TERM", "touch=ready", "wait-signal=TERM", "touch=stopped", "exit=0"];

fn polite(sandbox: &Sandbox) -> Group<'_> {
    let group = sandbox.launch("unattached").recorder().puppet(POLITE).start();
    eventually("the process is ready", || sandbox.path("ready").exists().then_some(()));
    group
}

#[test]
fn a_group_is_its_process_and_its_pump_and_nothing_else() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("unattached").recorder().puppet(["hang"]).start();
    assert_eq!(group.started.daemon, None);
    let mut members = group.started.members();
    let mut found = sandbox.processes();
    members.sort_by_key(|process| process.pid);
    found.sort_by_key(|process| process.pid);
    assert_eq!(found, members);
}

#[cfg(target_os = "linux")]
#[test]
fn the_pump_leads_a_session_of_its_own() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("unattached").recorder().puppet(["hang"]).start();
    let pump = group.started.monitor.unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{pump}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    // State, parent, process group, session: proc_pid_stat(5).
    let ours = nix::unistd::getsid(None).unwrap().to_string();
    assert_ne!(fields[3], ours, "the caller's session: {stat}");
    assert_eq!(fields[4], "0", "no controlling terminal: {stat}");
}

#[test]
fn output_goes_to_the_monitors_alone() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.launch("unattached").log().puppet(["out=hello", "err=oops", "hang"]).run();
    outcome.assert_code(0);
    let group = Group::find(&sandbox, "group");
    group.wait_log("both streams", |log| log.output().len() == b"hello\noops\n".len());
    assert_eq!(outcome.out().lines().count(), 1, "start's own line: {outcome}");
    assert!(outcome.stderr.is_empty(), "{outcome}");
}

fn process_killed(signal: Signal) {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("unattached").log().puppet(["out=hello", "hang"]).start();
    group.wait_log("the first line", |log| log.output() == b"hello\n");
    let old = group.started;
    group.member(Role::Process).signal(signal);
    let new = group.wait_renewed(old, &[Role::Process]);
    let log = group.wait_log("the second line", |log| log.output() == b"hello\nhello\n");
    let mut expected = start_events(&old);
    expected.push("! process terminated !".into());
    expected.push(format!("! process#{} restarted !", new.of(Role::Process)));
    assert_eq!(log.events(), expected);
}

#[test]
fn a_terminated_process_is_respawned_under_the_same_pump() {
    process_killed(Signal::SIGTERM);
}

#[test]
fn a_killed_process_is_respawned_under_the_same_pump() {
    process_killed(Signal::SIGKILL);
}

fn pump_killed(signal: Signal) {
    let sandbox = Sandbox::new();
    let group = polite(&sandbox);
    group.member(Role::Monitor).signal(signal);
    eventually("the process gets the stop signal", || sandbox.path("stopped").exists().then_some(()));
    eventually("everything is gone", || sandbox.processes().is_empty().then_some(()));
    let status = group.wait_state("failed");
    assert_eq!(Pids::from_json(&status["pids"]), Pids::default());
    assert!(status["reason"].is_string(), "{status:#}");
}

#[test]
fn a_terminated_pump_stops_the_process_and_fails_the_group() {
    pump_killed(Signal::SIGTERM);
}

#[test]
fn an_interrupted_pump_stops_the_process_and_fails_the_group() {
    pump_killed(Signal::SIGINT);
}

#[test]
fn a_pump_that_got_a_hangup_stops_the_process_and_fails_the_group() {
    pump_killed(Signal::SIGHUP);
}

#[cfg(target_os = "linux")]
#[test]
fn a_killed_pump_takes_the_process_along_by_the_stop_signal() {
    pump_killed(Signal::SIGKILL);
}

#[cfg(target_os = "linux")]
#[test]
fn the_death_of_a_pump_sends_the_stop_signal_that_was_chosen() {
    let sandbox = Sandbox::new();
    let steps = ["block=INT", "touch=ready", "wait-signal=INT", "touch=stopped", "exit=0"];
    let group = sandbox.launch("unattached").recorder().args(["--stop-signal", "INT"]).puppet(steps).start();
    eventually("the process is ready", || sandbox.path("ready").exists().then_some(()));
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    eventually("the process gets it", || sandbox.path("stopped").exists().then_some(()));
}

#[test]
fn a_pump_that_crashed_gives_its_last_line_as_the_reason() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("unattached")
        .recorder()
        .set("when", "stdout")
        .set("how", "error")
        .puppet(["wait-file=go", "out=hello", "hang"])
        .start();
    sandbox.file("go", "", 0o600);
    let status = group.wait_state("failed");
    let reason = status["reason"].as_str().unwrap();
    assert!(reason.contains("fixture error in stdout"), "{reason}");
}

/// A group whose pump was killed and whose process does not care.
#[cfg(target_os = "linux")]
fn orphan(sandbox: &Sandbox) -> (Group<'_>, immortal_tests::Process) {
    let steps = ["block=TERM", "note=ran", "hang"];
    let group =
        sandbox.launch("unattached").recorder().args(["--stop-timeout", "500ms"]).puppet(steps).start();
    eventually("the process is ready", || (!sandbox.noted("ran").is_empty()).then_some(()));
    let process = group.member(Role::Process);
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    group.wait_state("orphaned");
    assert!(!process.is_gone(), "it ignores the signal");
    (group, process)
}

#[cfg(target_os = "linux")]
#[test]
fn a_process_that_ignores_the_stop_signal_outlives_its_pump_as_an_orphan() {
    let sandbox = Sandbox::new();
    let (group, process) = orphan(&sandbox);
    let pids = group.pids();
    assert_eq!((pids.process, pids.monitor), (Some(process.pid), None));
}

#[cfg(target_os = "linux")]
#[test]
fn stop_ends_an_orphan() {
    let sandbox = Sandbox::new();
    let (group, process) = orphan(&sandbox);
    group.command("stop").assert_code(0);
    assert!(process.is_gone());
    sandbox.assert_nothing_left();
}

#[cfg(target_os = "linux")]
#[test]
fn a_new_start_of_the_name_ends_the_orphan_first() {
    let sandbox = Sandbox::new();
    let (_, process) = orphan(&sandbox);
    let group = sandbox.launch("unattached").recorder().puppet(["hang"]).start();
    assert!(process.is_gone());
    assert_eq!(group.wait_running("again", |_| true), group.started);
}

#[cfg(target_os = "linux")]
#[test]
fn what_a_dead_process_has_left_in_its_group_ends_with_a_stop_or_a_start_of_the_name() {
    for how in ["stop", "start"] {
        let sandbox = Sandbox::new();
        let stubborn = ["spawn", "block=TERM", "note=there", "hang", "end"];
        let polite =
            ["spawn", "block=TERM", "note=there", "wait-signal=TERM", "touch=polite", "exit=0", "end"];
        let elsewhere = ["session", "note=there", "hang", "end"];
        let steps = stubborn.into_iter().chain(polite).chain(elsewhere).chain(["hang"]);
        let group =
            sandbox.launch("unattached").recorder().args(["--stop-timeout", "500ms"]).puppet(steps).start();
        let left = eventually("its children are there", || {
            let pids = sandbox.noted("there");
            (pids.len() == 3).then_some(pids)
        });
        let left: Vec<_> = left.into_iter().filter_map(immortal_tests::Process::find).collect();
        let process = group.member(Role::Process);
        group.member(Role::Monitor).signal(Signal::SIGKILL);
        group.wait_state("failed");
        eventually("the kernel has ended the process", || process.is_gone().then_some(()));
        assert!(left.iter().all(|child| !child.is_gone()), "its children live");
        let next = (how == "start").then(|| sandbox.launch("unattached").recorder().puppet(["hang"]).start());
        if next.is_none() {
            group.command("stop").assert_code(0);
        }
        assert!(left.iter().all(|child| child.is_gone()), "{how}: {left:?}");
        assert!(sandbox.path("polite").exists(), "{how}: the stop signal comes first");
        next.iter().for_each(Group::stop);
        sandbox.assert_nothing_left();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_a_process_left_before_a_pause_ends_with_a_stop_though_the_pump_was_killed_meanwhile() {
    let sandbox = Sandbox::new();
    let steps = ["session", "note=there", "hang", "end", "wait-file=there", "exit=1"];
    let pauses = ["--backoff", "1h", "--backoff-max", "1h"];
    let group = sandbox.launch("unattached").recorder().args(pauses).puppet(steps).start();
    let status = group.wait_state("backoff");
    assert!(status["pids"]["process"].is_null(), "{status:#}");
    let left: Vec<_> = sandbox.noted("there").into_iter().filter_map(immortal_tests::Process::find).collect();
    assert!(!left.is_empty());
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    group.wait_state("failed");
    group.command("stop").assert_code(0);
    assert!(left.iter().all(|child| child.is_gone()), "{left:?}");
    sandbox.assert_nothing_left();
}

#[test]
fn a_polite_end_tells_the_monitor_and_then_ends() {
    let sandbox = Sandbox::new();
    let group = polite(&sandbox);
    group.stop();
    let order = Record::order(&group.records());
    assert_eq!(order.last().map(String::as_str), Some("finish"), "{order:?}");
}

#[test]
fn a_system_shutdown_ends_the_group() {
    let sandbox = Sandbox::new();
    let group = polite(&sandbox);
    group.started.members().iter().for_each(|member| member.signal(Signal::SIGTERM));
    eventually("everything is gone", || sandbox.processes().is_empty().then_some(()));
    assert!(sandbox.path("stopped").exists());
}
