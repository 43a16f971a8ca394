//! `--on-crash keep` and the end: how the process ended is known and told once, whoever was dead at that moment; what
//! is left without roles is found and ended; `stop` and `restart` do what they say in the middle of a crash.
#![cfg(target_os = "linux")]

use immortal_tests::{
    Group, Launch, Ledger, Pids, Process, Random, Record, Role, Running, Sandbox, Signal, artifacts,
    eventually, holds_for,
};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How a process ends, and what is to be told of it.
#[derive(Debug, Clone, Copy)]
enum End {
    Code(i32),
    Signal(Signal),
}

const ENDS: [End; 3] = [End::Code(7), End::Code(0), End::Signal(Signal::SIGKILL)];

impl End {
    /// The steps of a process that gets there when it is told to.
    fn steps(self) -> Vec<String> {
        match self {
            Self::Code(code) => {
                vec!["note=ran".into(), "out=hello".into(), format!("writer=count:50:{code}")]
            }
            Self::Signal(_) => vec!["note=ran".into(), "out=hello".into(), "hang".into()],
        }
    }

    fn reach(self, process: Process) {
        process.signal(match self {
            Self::Code(_) => Signal::SIGTERM,
            Self::Signal(signal) => signal,
        });
    }

    fn code_and_signal(self) -> (Value, Value) {
        match self {
            Self::Code(code) => (code.into(), Value::Null),
            Self::Signal(signal) => (Value::Null, (signal as i32).into()),
        }
    }
}

fn group_that<'a>(launch: Launch<'a>, end: End) -> Group<'a> {
    let group = launch.puppet(end.steps()).start();
    // From here on the writer handles the signal.
    group.wait_records("the first line", |records| !Record::stream(records, "stdout").is_empty());
    if matches!(end, End::Code(_)) {
        let count = group.sandbox.path("count");
        eventually("it writes", || std::fs::metadata(&count).is_ok_and(|data| data.len() == 8).then_some(()));
    }
    group
}

fn keeping(sandbox: &Sandbox) -> Launch<'_> {
    sandbox.launch("daemon").recorder().keep()
}

/// With a pause of this length after the second death of a pump.
fn pausing<'a>(sandbox: &'a Sandbox, pause: &str) -> Launch<'a> {
    let pauses = ["--stable", "1h", "--backoff", pause, "--backoff-max", pause];
    sandbox.launch("daemon").recorder().args(["--on-crash", "keep"]).args(pauses)
}

/// Kills the pump until its daemon pauses.
#[track_caller]
fn kill_into_pause(group: &Group<'_>) {
    let first = group.member(Role::Monitor);
    first.signal(Signal::SIGKILL);
    successor(group, Role::Monitor, first).signal(Signal::SIGKILL);
    let status = group.wait_state("backoff");
    assert_eq!(status["pids"]["monitor"], Value::Null, "{status:#}");
}

/// Waits for the end of a process to be told, and asserts that it is told right and once, that `status` knows it, and
/// that the process is respawned after that.
#[track_caller]
fn assert_told_once(group: &Group<'_>, process: Process, end: End) {
    let of_process = |record: &Record| record.number("process") == i64::from(process.pid);
    let told = format!("the exit of {} ({end:?})", process.pid);
    let records = group.wait_records(&told, |records| {
        records.iter().any(|record| record.hook() == "respawn")
            && records.iter().any(|record| record.hook() == "exit" && of_process(record))
    });
    let exits: Vec<&Record> =
        records.iter().filter(|record| record.hook() == "exit" && of_process(record)).collect();
    assert_eq!(exits.len(), 1, "{told} is told once: {exits:#?}");
    assert_eq!(
        (exits[0].0["code"].clone(), exits[0].0["signal"].clone()),
        end.code_and_signal(),
        "{exits:#?}"
    );
    let spawned = |record: &&Record| ["spawn", "respawn"].contains(&record.hook());
    let spawns: Vec<&Record> = records.iter().filter(spawned).collect();
    assert_eq!(spawns.len(), 2, "one spawn and one respawn: {spawns:#?}");
    let last = &group.status()["last_exit"];
    let signal = match end {
        End::Code(_) => Value::Null,
        End::Signal(signal) => signal.as_str().trim_start_matches("SIG").into(),
    };
    assert_eq!((&last["code"], &last["signal"]), (&end.code_and_signal().0, &signal), "{last}");
    group.wait_running("the next process runs", |pids| pids.process != Some(process.pid));
    assert_eq!(group.sandbox.noted("ran").len(), 2, "it was respawned once");
}

/// Waits until a role has another pid.
#[track_caller]
fn successor(group: &Group<'_>, role: Role, old: Process) -> Process {
    eventually(&format!("the successor of {role:?} {}", old.pid), || {
        group.pids().get(role).filter(|pid| *pid != old.pid).and_then(Process::find)
    })
}

#[test]
fn the_end_is_known_of_a_process_that_ends_while_its_pump_is_dead() {
    for end in ENDS {
        let sandbox = Sandbox::new();
        let group = group_that(pausing(&sandbox, "1s"), end);
        let process = group.member(Role::Process);
        kill_into_pause(&group);
        end.reach(process);
        eventually("it has ended", || process.is_gone().then_some(()));
        assert!(
            group.records().iter().all(|record| record.hook() != "exit"),
            "{end:?}: nobody can tell it yet"
        );
        assert_told_once(&group, process, end);
    }
}

#[test]
fn the_end_is_known_of_a_process_that_ends_at_the_moment_of_its_pumps_death() {
    for end in ENDS {
        let sandbox = Sandbox::new();
        let group = group_that(keeping(&sandbox), end);
        let process = group.member(Role::Process);
        group.member(Role::Monitor).signal(Signal::SIGKILL);
        end.reach(process);
        assert_told_once(&group, process, end);
    }
}

#[test]
fn the_end_is_known_of_a_process_that_ends_while_its_daemon_is_dead() {
    for end in ENDS {
        let sandbox = Sandbox::new();
        let group = group_that(keeping(&sandbox), end);
        let process = group.member(Role::Process);
        let (pump, daemon) = (group.member(Role::Monitor), group.member(Role::Daemon));
        // So that nobody takes the daemon's place before the process has ended.
        pump.signal(Signal::SIGSTOP);
        eventually("the pump stands still", || pump.is_stopped().then_some(()));
        daemon.signal(Signal::SIGKILL);
        eventually("the daemon is gone", || daemon.is_gone().then_some(()));
        end.reach(process);
        eventually("it has ended", || process.is_gone().then_some(()));
        pump.signal(Signal::SIGCONT);
        assert_told_once(&group, process, end);
    }
}

#[test]
fn the_end_is_known_of_a_process_that_ends_at_the_moment_of_its_daemons_death() {
    for end in ENDS {
        let sandbox = Sandbox::new();
        let group = group_that(keeping(&sandbox), end);
        let process = group.member(Role::Process);
        group.member(Role::Daemon).signal(Signal::SIGKILL);
        end.reach(process);
        assert_told_once(&group, process, end);
    }
}

/// Whether the kernel remembers the status of a process for who holds a pidfd of it: since Linux 6.15. Before that the
/// end of a process that init reaps is a race.
fn knows_ends_of_strangers() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (6, 15) {
        #[expect(clippy::print_stderr, reason = "a test that looked at nothing says so")]
        {
            eprintln!(
                "skipped: Linux {}.{} forgets the status of what somebody else reaps",
                version.0, version.1
            );
        }
    }
    version >= (6, 15)
}

/// Has pump and daemon replaced, one after the other: the process is a child of neither then.
fn give_to_init(group: &Group<'_>) {
    let pump = group.member(Role::Monitor);
    pump.signal(Signal::SIGKILL);
    successor(group, Role::Monitor, pump);
    let daemon = group.member(Role::Daemon);
    daemon.signal(Signal::SIGKILL);
    successor(group, Role::Daemon, daemon);
}

#[test]
fn the_end_is_known_of_a_process_that_has_lost_pump_and_daemon_one_after_the_other() {
    if !knows_ends_of_strangers() {
        return;
    }
    for end in ENDS {
        let sandbox = Sandbox::new();
        let group = group_that(keeping(&sandbox), end);
        let process = group.member(Role::Process);
        give_to_init(&group);
        group.wait_running("both are replaced", |_| true);
        end.reach(process);
        assert_told_once(&group, process, end);
    }
}

#[test]
fn the_end_is_known_of_a_process_that_ends_while_the_next_daemon_is_dead_too() {
    if !knows_ends_of_strangers() {
        return;
    }
    for (role, other) in [(Role::Monitor, Role::Daemon), (Role::Daemon, Role::Monitor)] {
        for end in ENDS {
            let sandbox = Sandbox::new();
            let group = group_that(keeping(&sandbox), end);
            let process = group.member(Role::Process);
            give_to_init(&group);
            group.wait_running("both are replaced", |_| true);
            // The one that is left stands still until the process has ended.
            let (victim, left) = (group.member(role), group.member(other));
            left.signal(Signal::SIGSTOP);
            eventually("it stands still", || left.is_stopped().then_some(()));
            victim.signal(Signal::SIGKILL);
            end.reach(process);
            eventually("it has ended", || process.is_gone().then_some(()));
            left.signal(Signal::SIGCONT);
            assert_told_once(&group, process, end);
        }
    }
}

#[test]
fn every_end_is_told_while_pump_and_daemon_are_killed_again_and_again() {
    if !knows_ends_of_strangers() {
        return;
    }
    let sandbox = Sandbox::new();
    let steps = ["note=ran", "out=hello", "sleep=20", "exit=7"];
    let group = keeping(&sandbox).puppet(steps).start();
    for turn in 0..40 {
        let role = if turn % 2 == 0 { Role::Monitor } else { Role::Daemon };
        let old = group.member(role);
        old.signal(Signal::SIGKILL);
        eventually("it is gone", || old.is_gone().then_some(()));
        successor(&group, role, old);
        eventually("both are there", || {
            let pids = group.pids();
            (pids.monitor.is_some() && pids.daemon.is_some()).then_some(())
        });
    }
    group.stop();
    let ran = sandbox.noted("ran");
    let records = group.records();
    let of = |pid: &i32, hooks: &[&str]| -> Vec<&Record> {
        records
            .iter()
            .filter(|record| hooks.contains(&record.hook()) && record.number("process") == i64::from(*pid))
            .collect()
    };
    let story: String = records
        .iter()
        .filter(|record| !["stdout", "new"].contains(&record.hook()))
        .map(|record| {
            let [at, pump, process] = ["at_ms", "pump", "process"].map(|key| record.number(key));
            format!("{at}: {} by pump {pump} of process {process}\n", record.hook())
        })
        .collect();
    let story = format!("{ran:?} ran, and this was told:\n{story}");
    // A hook that was in progress when its pump was killed is called again: so at least once, and one a pump.
    for (at, pid) in ran.iter().enumerate() {
        for hooks in [&["spawn", "respawn"][..], &["exit"]] {
            let told = of(pid, hooks);
            assert!(!told.is_empty(), "{hooks:?} of process {pid}: {story}");
            let mut pumps: Vec<i32> = told.iter().map(|record| record.pump()).collect();
            pumps.dedup();
            assert_eq!(pumps.len(), told.len(), "{hooks:?} of process {pid} twice by one pump: {story}");
        }
        // The last one may have been ended by `stop`.
        if at + 1 < ran.len() {
            let exit = of(pid, &["exit"])[0];
            assert_eq!(exit.number("code"), 7, "process {pid}: {exit:#?}");
        }
    }
    assert!(ran.len() > 8, "{} runs only", ran.len());
}

/// Asserts that the bytes of a stream were given without a gap, in order, and what was given again in one piece.
#[track_caller]
fn assert_gapless(records: &[Record], stream: &str, what: &str) {
    let mut end = 0;
    for record in records.iter().filter(|record| record.hook() == stream) {
        let offset = record.number("offset");
        assert!(offset <= end, "{what}: {stream} has a gap from {end} to {offset}");
        end = end.max(offset + record.number("length"));
    }
    assert!(end > 0, "{what}: nothing on {stream}");
}

#[test]
fn whatever_is_killed_and_asked_for_there_is_one_process_and_all_of_it_is_told() {
    if !knows_ends_of_strangers() {
        return;
    }
    let sandbox = Sandbox::new();
    let steps = ["note=ran", "writer=count:2000:7"];
    let group = keeping(&sandbox).set("bytes", "false").puppet(steps).start();
    let mut random = Random::new(30);
    let mut story = format!("seed {}:", random.seed());
    let mut gone: Vec<Process> = Vec::new();
    for _ in 0..30 {
        let what = format!("whole again after {story}");
        eventually(&what, || gone.iter().all(|process| process.is_gone()).then_some(()));
        let pids = group.wait_running(&what, |pids| pids.count() == 3);
        gone.clear();
        std::thread::sleep(Duration::from_micros(random.below(20_000)));
        let mut strike = |role: Role, signal: Signal| {
            if let Some(process) = Process::find(pids.of(role)) {
                process.signal(signal);
                gone.push(process);
            }
        };
        let (role, name) = match random.below(3) {
            0 => (Some(Role::Monitor), "pump"),
            1 => (Some(Role::Daemon), "daemon"),
            _ => (None, "nobody"),
        };
        let signal = if random.below(4) == 0 { Signal::SIGTERM } else { Signal::SIGKILL };
        if let Some(role) = role {
            strike(role, signal);
        }
        let then = usize::try_from(random.below(3)).expect("it is small");
        story +=
            &format!(" {signal} to {name}, then {};", ["nothing", "the process is ended", "`restart`"][then]);
        match then {
            0 => {}
            1 => strike(Role::Process, signal),
            _ => {
                let restarted = group.command("restart");
                assert_eq!(restarted.code, Some(0), "{story}: {restarted}");
            }
        }
    }
    group.wait_running(&story, |pids| pids.count() == 3);
    assert_eq!(sandbox.processes().len(), 3, "the group and nobody else: {story}");
    group.stop();
    sandbox.assert_nothing_left();
    let records = group.records();
    for stream in ["stdout", "stderr"] {
        assert_gapless(&records, stream, &story);
    }
    for pid in sandbox.noted("ran") {
        for hooks in [&["spawn", "respawn"][..], &["exit"]] {
            let told = |record: &&Record| {
                hooks.contains(&record.hook()) && record.number("process") == i64::from(pid)
            };
            assert!(records.iter().any(|record| told(&record)), "{hooks:?} of {pid} is told: {story}");
        }
    }
}

/// Kills pump and daemon so that neither can act on the other's death.
#[track_caller]
fn orphan(group: &Group<'_>) -> Process {
    let process = group.member(Role::Process);
    let roles = [group.member(Role::Monitor), group.member(Role::Daemon)];
    for role in roles {
        role.signal(Signal::SIGSTOP);
        eventually("it stands still", || role.is_stopped().then_some(()));
    }
    for role in roles {
        role.signal(Signal::SIGKILL);
    }
    let status = group.wait_state("orphaned");
    let pids = Pids::from_json(&status["pids"]);
    assert_eq!((pids.process, pids.monitor, pids.daemon), (Some(process.pid), None, None));
    process
}

#[test]
fn a_process_that_loses_both_at_once_goes_on_and_is_listed_as_orphaned() {
    let sandbox = Sandbox::new();
    let group = keeping(&sandbox).puppet(["note=ran", "hang"]).start();
    let process = orphan(&group);
    let list = sandbox.immortal(["list", "--json"]).run();
    list.assert_code(0);
    let listed = &list.json()[0];
    assert_eq!((&listed["state"], &listed["pids"]["process"]), (&"orphaned".into(), &process.pid.into()));
    holds_for(Duration::from_millis(300), "it goes on and nobody else comes", || {
        sandbox.processes() == [process]
    });
    for command in ["restart", "signal"] {
        let mut arguments = vec![command, "group"];
        arguments.extend((command == "signal").then_some("USR1"));
        sandbox.immortal(arguments).run().assert_refused(1);
    }
    assert!(!process.is_gone(), "what cannot be done has no effect");
}

#[test]
fn stop_ends_an_orphaned_process() {
    let sandbox = Sandbox::new();
    let group = keeping(&sandbox).puppet(["writer=count:0:0"]).start();
    // It writes, and soon waits for a reader that will not come.
    let process = orphan(&group);
    group.command("stop").assert_code(0);
    assert!(process.is_gone());
    sandbox.assert_nothing_left();
}

#[test]
fn stop_kills_an_orphaned_process_that_does_not_end_by_itself() {
    let sandbox = Sandbox::new();
    let steps = ["block=TERM", "touch=ready", "hang"];
    let group = keeping(&sandbox).args(["--stop-timeout", "300ms"]).puppet(steps).start();
    eventually("it is ready", || sandbox.path("ready").exists().then_some(()));
    let process = orphan(&group);
    group.command("stop").assert_code(0);
    assert!(process.is_gone());
    sandbox.assert_nothing_left();
}

#[cfg(target_os = "linux")]
#[test]
fn stop_ends_what_left_the_group_under_roles_that_have_died_since() {
    let sandbox = Sandbox::new();
    let steps = ["hang-after=1:count", "session", "note=there", "hang", "end", "wait-file=there", "exit=1"];
    let group = keeping(&sandbox).puppet(steps).start();
    let left = eventually("its child is there", || sandbox.noted("there").first().copied());
    let left = Process::find(left).unwrap();
    group.wait_running("again", |pids| pids.process != group.started.process);
    for role in [Role::Monitor, Role::Daemon] {
        let before = group.pids();
        group.member(role).signal(Signal::SIGKILL);
        group.wait_running("with another pump", |pids| pids.monitor != before.monitor);
    }
    assert!(!left.is_gone());
    group.command("stop").assert_code(0);
    assert!(left.is_gone());
    sandbox.assert_nothing_left();
}

#[cfg(target_os = "linux")]
#[test]
fn a_stop_from_within_an_orphaned_process_ends_it_politely_and_returns() {
    for session in ["", "setsid "] {
        let sandbox = Sandbox::new();
        let immortal = immortal_tests::artifacts().immortal();
        let script = format!(
            "trap 'touch polite; exit 0' TERM; \
             {session}sh -c 'while ! test -e go; do sleep 0.01; done; {} stop group && touch stopped' & \
             touch ready; while :; do sleep 0.01; done",
            immortal.display()
        );
        let group = keeping(&sandbox).program(["/bin/sh", "-c", &script]).start();
        eventually("it is ready", || sandbox.path("ready").exists().then_some(()));
        let process = orphan(&group);
        sandbox.file("go", "", 0o600);
        eventually("the stop returns", || sandbox.path("stopped").exists().then_some(()));
        assert!(process.is_gone() && sandbox.path("polite").exists(), "{session}: by the stop signal");
        eventually("nobody is left", || sandbox.processes().is_empty().then_some(()));
        sandbox.assert_nothing_left();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn stop_ends_what_has_left_the_group_of_an_orphaned_process_too() {
    // The process ends at once, or with its children when the time is up.
    for first in ["note=there", "block=TERM"] {
        let sandbox = Sandbox::new();
        let steps = [first, "session", "block=TERM", "note=there", "hang", "end"];
        let steps = steps.into_iter().chain([
            "spawn",
            "block=TERM",
            "note=there",
            "hang",
            "end",
            "touch=ready",
            "hang",
        ]);
        let group = keeping(&sandbox).args(["--stop-timeout", "300ms"]).puppet(steps).start();
        eventually("it is ready", || sandbox.path("ready").exists().then_some(()));
        let children = eventually("its children are there", || {
            let pids = sandbox.noted("there");
            (pids.len() == 2 + usize::from(first != "block=TERM")).then_some(pids)
        });
        let children: Vec<Process> = children.into_iter().filter_map(Process::find).collect();
        orphan(&group);
        group.command("stop").assert_code(0);
        assert!(children.iter().all(|child| child.is_gone()), "{first}: {children:?}");
        sandbox.assert_nothing_left();
    }
}

#[test]
fn a_start_of_the_name_ends_an_orphaned_process_first() {
    let sandbox = Sandbox::new();
    let steps = ["block=TERM", "note=ran", "wait-signal=TERM", "touch=polite", "exit=0"];
    let group = keeping(&sandbox).puppet(steps).start();
    eventually("it is ready", || (sandbox.noted("ran").len() == 1).then_some(()));
    let process = orphan(&group);
    let next = keeping(&sandbox).puppet(["exists=polite", "hang"]).start();
    assert!(process.is_gone());
    next.wait_records("the next process runs", |records| {
        Record::stream(records, "stdout").ends_with(b"yes\n")
    });
    assert_eq!(sandbox.processes().len(), 3, "the new group and nobody else");
    next.stop();
    sandbox.assert_nothing_left();
}

#[test]
fn an_orphan_that_ends_leaves_a_failed_group_that_stop_removes() {
    let sandbox = Sandbox::new();
    let group = keeping(&sandbox).puppet(["hang"]).start();
    orphan(&group).signal(Signal::SIGKILL);
    group.wait_state("failed");
    group.command("stop").assert_code(0);
    sandbox.assert_nothing_left();
}

/// In a pid namespace of its own a number can be used again on purpose.
#[test]
fn a_stranger_with_the_number_of_an_orphan_is_left_alone() {
    let namespace = ["--pid", "--fork", "--mount-proc", "--kill-child"];
    let possible = std::process::Command::new("unshare").args(namespace).arg("true").output();
    if !possible.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no pid namespace can be made here");
        return;
    }
    let sandbox = Sandbox::new();
    // Process 1 is the shell, which reaps: it waits for all that comes to it.
    let script = r#"
        pids() { "$I" status group --json | sed 's/.*"process":\([0-9]*\),"monitor":\([0-9]*\),"daemon":\([0-9]*\).*/\1 \2 \3/'; }
        "$I" start --name group --strategy daemon --on-crash keep --option output:=null sleep 100000 || exit 90
        set -- $(pids)
        echo "members $1 $2 $3"
        kill -STOP $2 $3; kill -KILL $2 $3
        while [ -e /proc/$2/exe ] || [ -e /proc/$3/exe ]; do sleep 0.01; done
        "$I" list --json | sed 's/.*"state":"\([a-z]*\)".*"process":\([0-9]*\).*/\1 \2/'
        kill -KILL $1
        while [ -e /proc/$1 ]; do sleep 0.01; done
        # Start times are in hundredths of a second.
        sleep 0.1
        echo $(($1 - 1)) > /proc/sys/kernel/ns_last_pid
        setsid sleep 200000 &
        stranger=$!
        echo "stranger $stranger"
        "$I" list --json | sed 's/.*"state":"\([a-z]*\)".*"process":\([a-z0-9]*\).*/\1 \2/'
        "$I" stop group
        sleep 0.2
        [ -e /proc/$stranger/exe ] && echo "left alone"
        kill -KILL $stranger
        exit 7
    "#;
    let run = sandbox
        .invocation("unshare")
        .args(namespace)
        .args(["/bin/sh", "-c", script])
        .env("I", artifacts().immortal())
        .run();
    run.assert_code(7);
    let out = run.out();
    let lines: Vec<&str> = out.lines().collect();
    let members = lines.iter().find_map(|line| line.strip_prefix("members ")).expect("the members");
    let process = members.split(' ').next().expect("the process");
    assert!(lines.contains(&format!("orphaned {process}").as_str()), "{run}");
    assert!(lines.contains(&format!("stranger {process}").as_str()), "the number is used again: {run}");
    assert!(lines.contains(&"failed null"), "the stranger is nobody's process: {run}");
    assert!(lines.contains(&"left alone"), "{run}");
    sandbox.assert_nothing_left();
}

/// Sends `stop` this long after a kill; everything that was written is delivered, and nothing is left.
#[track_caller]
fn stopped_after_kill(role: Role, millis: u64) {
    let sandbox = Sandbox::new();
    let group = keeping(&sandbox).puppet(["out=hello", "writer=count:1000:0"]).start();
    eventually("it writes", || (Ledger::written(&sandbox.path("count")) > 20).then_some(()));
    group.member(role).signal(Signal::SIGKILL);
    std::thread::sleep(Duration::from_millis(millis));
    let since = Instant::now();
    group.command("stop").assert_code(0);
    assert!(since.elapsed() < Duration::from_secs(9), "without SIGKILL: {:?}", since.elapsed());
    let what = format!("{role:?} was killed {millis} ms before `stop`");
    sandbox.assert_nothing_left();
    let records = group.records();
    let mut bytes = Record::stream(&records, "stdout").split_off("hello\n".len());
    bytes.extend(Record::stream(&records, "stderr"));
    Ledger::new(&sandbox.path("count"), &bytes).assert_complete(&what);
    let exits: Vec<&Record> = records.iter().filter(|record| record.hook() == "exit").collect();
    assert_eq!(exits.len(), 1, "{what}: {exits:#?}");
    assert_eq!(exits[0].number("code"), 0, "{what}: {exits:#?}");
    assert_eq!(records.last().map(Record::hook), Some("finish"), "{what}");
}

#[test]
fn stop_right_after_a_pumps_death_ends_all_and_loses_nothing() {
    for millis in [0, 1, 2, 4, 8, 16] {
        stopped_after_kill(Role::Monitor, millis);
    }
}

#[test]
fn stop_right_after_a_daemons_death_ends_all_and_loses_nothing() {
    for millis in [0, 1, 2, 4, 8, 16] {
        stopped_after_kill(Role::Daemon, millis);
    }
}

/// Kills a role this long after `stop` or `restart` was begun.
fn killed_during(command: &str, role: Role, millis: u64) {
    let sandbox = Sandbox::new();
    // It takes a while to end, so that the kill finds the command under way.
    let steps = ["block=TERM", "note=ran", "out=hello", "wait-signal=TERM", "sleep=40", "out=bye", "exit=0"];
    let group = keeping(&sandbox).puppet(steps).start();
    let first = eventually("it is ready", || sandbox.noted("ran").first().copied());
    group.wait_records("the first line", |records| !Record::stream(records, "stdout").is_empty());
    let victim = group.member(role);
    let running = sandbox.immortal([command, "group"]).spawn();
    std::thread::sleep(Duration::from_millis(millis));
    victim.signal(Signal::SIGKILL);
    let outcome = running.wait();
    let what = format!("{role:?} was killed {millis} ms after `{command}` was begun: {outcome}");
    assert_eq!(outcome.code, Some(0), "{what}");
    if command == "restart" {
        group.wait_running(&what, |pids| pids.process.is_some_and(|pid| pid != first));
        eventually("the next process is ready", || (sandbox.noted("ran").len() > 1).then_some(()));
        group.stop();
        // Asked once more when the role that was asked is gone: by then it may have been done.
        let ran = sandbox.noted("ran").len();
        assert!((2..=3).contains(&ran), "{ran} runs: {what}");
    }
    sandbox.assert_nothing_left();
    let records = group.records();
    let stdout = String::from_utf8_lossy(&Record::stream(&records, "stdout")).into_owned();
    let once = "hello\ngot TERM\nbye\n";
    assert!(stdout.starts_with(once), "{what}: all that it wrote: {stdout:?}");
    let exits: Vec<&Record> =
        records.iter().filter(|record| record.number("process") == i64::from(first)).collect();
    let exits: Vec<&&Record> = exits.iter().filter(|record| record.hook() == "exit").collect();
    assert!(!exits.is_empty() && exits[0].number("code") == 0, "{what}: {exits:#?}");
}

#[test]
fn stop_works_while_the_pump_is_killed() {
    for millis in [5, 20, 40, 60] {
        killed_during("stop", Role::Monitor, millis);
    }
}

#[test]
fn stop_works_while_the_daemon_is_killed() {
    for millis in [5, 20, 40, 60] {
        killed_during("stop", Role::Daemon, millis);
    }
}

#[test]
fn restart_works_while_the_pump_is_killed() {
    for millis in [5, 20, 40, 60] {
        killed_during("restart", Role::Monitor, millis);
    }
}

#[test]
fn restart_works_while_the_daemon_is_killed() {
    for millis in [5, 20, 40, 60] {
        killed_during("restart", Role::Daemon, millis);
    }
}

#[test]
fn a_signal_reaches_the_process_while_no_pump_lives() {
    let sandbox = Sandbox::new();
    let steps = ["block=USR1", "out=ready", "wait-signal=USR1", "touch=got", "hang"];
    let group = pausing(&sandbox, "1h").puppet(steps).start();
    group.wait_records("the first line", |records| !Record::stream(records, "stdout").is_empty());
    kill_into_pause(&group);
    assert_eq!(group.pids().process, group.started.process);
    sandbox.immortal(["signal", "group", "USR1"]).run().assert_code(0);
    eventually("the process got it", || sandbox.path("got").exists().then_some(()));
}

#[test]
fn a_restart_in_the_pause_of_a_dead_pump_returns_when_the_next_process_runs() {
    let sandbox = Sandbox::new();
    let steps = ["block=TERM", "note=ran", "out=hello", "wait-signal=TERM", "sleep=100", "exit=4"];
    let group = pausing(&sandbox, "1h").puppet(steps).start();
    eventually("it is ready", || (!sandbox.noted("ran").is_empty()).then_some(()));
    kill_into_pause(&group);
    let old = group.member(Role::Process);
    group.command("restart").assert_code(0);
    assert!(old.is_gone());
    let new = group.pids();
    assert!(new.process.is_some() && new.process != group.started.process, "{new:?}");
    let exit = group.wait_hook("exit", 0);
    assert_eq!((exit.number("process"), exit.number("code")), (i64::from(old.pid), 4), "{exit:#?}");
    assert_eq!(group.wait_hook("respawn", 0).number("process"), i64::from(new.of(Role::Process)));
}

#[test]
fn both_terminated_at_once_end_the_group_and_deliver_all() {
    let sandbox = Sandbox::new();
    let steps = ["block=TERM", "out=hello", "wait-signal=TERM", "out=bye", "exit=3"];
    let group = keeping(&sandbox).puppet(steps).start();
    group.wait_records("the first line", |records| !Record::stream(records, "stdout").is_empty());
    let (pump, daemon) = (group.member(Role::Monitor), group.member(Role::Daemon));
    pump.signal(Signal::SIGTERM);
    daemon.signal(Signal::SIGTERM);
    eventually("everything is gone", || sandbox.processes().is_empty().then_some(()));
    holds_for(Duration::from_millis(300), "nothing comes back", || sandbox.processes().is_empty());
    let records = group.records();
    assert_eq!(Record::stream(&records, "stdout"), b"hello\ngot TERM\nbye\n");
    assert_eq!(group.wait_hook("exit", 0).number("code"), 3);
    sandbox.assert_nothing_left();
}

#[test]
fn one_that_is_terminated_alone_is_replaced_and_the_process_stays() {
    for (role, signal) in [
        (Role::Monitor, Signal::SIGTERM),
        (Role::Daemon, Signal::SIGTERM),
        (Role::Monitor, Signal::SIGINT),
        (Role::Daemon, Signal::SIGHUP),
    ] {
        let sandbox = Sandbox::new();
        let group = keeping(&sandbox).puppet(["hang"]).start();
        let old = group.member(role);
        old.signal(signal);
        successor(&group, role, old);
        let new = group.wait_running(&format!("after {signal} to {role:?}"), |_| true);
        assert_eq!(new.process, group.started.process, "{signal} to {role:?}");
        assert_eq!(sandbox.processes().len(), 3, "{signal} to {role:?}");
    }
}

/// A group whose second monitor fails at each of its first `times` outputs.
fn crashing<'a>(sandbox: &'a Sandbox, times: &str, steps: &[&str]) -> Group<'a> {
    let group = sandbox
        .launch("daemon")
        .log()
        .args(["--monitor", "recorder"])
        .set("recorder.when", "stdout")
        .set("recorder.how", "error")
        .set("recorder.times", times)
        .set("recorder.counter", sandbox.path("calls"))
        .args(["--on-crash", "keep", "--stable", "1h", "--backoff", "1h", "--backoff-max", "1h"])
        .puppet(steps)
        .start();
    sandbox.file("go", "", 0o600);
    group.wait_state("backoff");
    group
}

#[test]
fn stop_in_the_pause_of_a_crashing_monitor_delivers_what_it_can() {
    let sandbox = Sandbox::new();
    let steps =
        ["wait-file=go", "out=hello", "block=TERM", "touch=ready", "wait-signal=TERM", "out=bye", "exit=0"];
    // It fails twice, and then no more.
    let group = crashing(&sandbox, "2", &steps);
    eventually("the process is ready", || sandbox.path("ready").exists().then_some(()));
    group.stop();
    let log = group.log();
    assert_eq!(log.output_text(), "hello\ngot TERM\nbye\n");
    assert_eq!(log.events().last().map(String::as_str), Some("! process terminated !"));
    sandbox.assert_nothing_left();
}

#[test]
fn stop_in_the_pause_of_a_monitor_that_always_crashes_ends_all() {
    let sandbox = Sandbox::new();
    let group = crashing(&sandbox, "1000000", &["wait-file=go", "out=hello", "hang"]);
    let since = Instant::now();
    group.stop();
    assert!(since.elapsed() < Duration::from_secs(9), "{:?}", since.elapsed());
    let list = sandbox.immortal(["list", "--json"]).run();
    assert_eq!(
        list.json(),
        serde_json::json!([]),
        "what the monitor died of may be set aside, but the group is gone"
    );
}

#[test]
fn a_process_that_ended_for_good_is_not_started_again_after_kills() {
    let sandbox = Sandbox::new();
    let steps = ["note=ran", "out=hello", "exit=5"];
    let group = keeping(&sandbox).args(["--restart", "never"]).puppet(steps).start();
    group.wait_state("stopped");
    for role in [Role::Monitor, Role::Daemon, Role::Monitor, Role::Daemon] {
        let old = group.member(role);
        old.signal(Signal::SIGKILL);
        successor(&group, role, old);
        let status = group.wait_state("stopped");
        assert_eq!((&status["last_exit"]["code"], &status["pids"]["process"]), (&5.into(), &Value::Null));
    }
    assert_eq!(sandbox.noted("ran").len(), 1, "it ran once");
    let exits = group.records().iter().filter(|record| record.hook() == "exit").count();
    assert_eq!(exits, 1, "its end is told once");
    // And it can be started again by hand.
    group.command("restart").assert_code(0);
    eventually("a second run", || (sandbox.noted("ran").len() == 2).then_some(()));
    group.stop();
}

fn catches_sigterm(process: Process) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0").trim();
    u64::from_str_radix(caught, 16).is_ok_and(|bits| bits >> (Signal::SIGTERM as i32 - 1) & 1 == 1)
}

#[test]
fn the_exit_code_is_right_also_where_root_may_not_look_at_the_process_of_a_user() {
    let can = || std::process::Command::new("setpriv").arg("--version").output().is_ok();
    if !nix::unistd::geteuid().is_root() || !can() {
        eprintln!("skipped: only root can do without a capability of root's, and with setpriv");
        return;
    }
    for role in [Role::Monitor, Role::Daemon] {
        let sandbox = Sandbox::new();
        // As in a container.
        let without = ["--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", "--"];
        let start = ["start", "--name", "group", "--strategy", "daemon", "--on-crash", "keep"];
        let options = ["--restart", "never", "--user", "65534", "--cwd", "/", "--option", "output:=null"];
        let program = ["/bin/sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.05; done"];
        let setpriv = sandbox.invocation("setpriv").args(without).arg(artifacts().immortal());
        setpriv.args(start).args(options).args(program).run().assert_code(0);
        let group = Group::find(&sandbox, "group");
        let process = group.member(Role::Process);
        eventually("it has a trap", || catches_sigterm(process).then_some(()));
        let monitor = group.member(Role::Monitor);
        group.member(role).signal(Signal::SIGKILL);
        group.wait_running("again", |pids| pids.monitor != Some(monitor.pid));
        process.signal(Signal::SIGTERM);
        let status = group.wait_state("stopped");
        assert_eq!(status["last_exit"]["code"], 7, "{role:?}: {status:#}");
    }
}

/// Kills the roles of a group that waits for its process to be ready, and `start` too if that is asked for; returns the
/// command and the process.
fn killed_before_it_was_there(sandbox: &Sandbox, with_start: bool) -> (Running, i32) {
    let launch = sandbox.launch("daemon").recorder().args(["--on-crash", "keep", "--ready", "notify"]);
    let start = launch.puppet(["note=ran", "hang"]).spawn();
    let process = eventually("it runs", || sandbox.noted("ran").first().copied());
    let list = sandbox.immortal(["list", "--json"]).run().json();
    let pids = Pids::from_json(&list[0]["pids"]);
    let roles = [Role::Daemon, Role::Monitor].map(|role| Process::find(pids.of(role)).expect("it lives"));
    // None of them is to act on the death of another.
    roles.iter().for_each(|role| role.signal(Signal::SIGSTOP));
    if with_start {
        start.signal(Signal::SIGKILL);
    }
    roles.iter().for_each(|role| role.signal(Signal::SIGKILL));
    (start, process)
}

#[test]
fn a_start_whose_roles_are_killed_ends_the_process_that_they_have_left() {
    let sandbox = Sandbox::new();
    let (start, _) = killed_before_it_was_there(&sandbox, false);
    start.wait().assert_refused(125);
    sandbox.assert_nothing_left();
}

#[test]
fn a_process_that_a_killed_start_has_left_is_an_orphan_that_stop_ends() {
    let sandbox = Sandbox::new();
    let (start, process) = killed_before_it_was_there(&sandbox, true);
    drop(start.wait());
    let group = eventually("its roles are gone", || {
        let list = sandbox.immortal(["list", "--json"]).run().json();
        (list[0]["state"] == "orphaned").then(|| list[0].clone())
    });
    assert_eq!(group["pids"]["process"], process);
    sandbox.immortal(["stop", "group"]).run().assert_code(0);
    sandbox.assert_nothing_left();
}
