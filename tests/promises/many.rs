//! Many respawns, many groups, many kills: nothing piles up and nothing gets lost. One of these at a time, for they
//! look at time and memory.

use immortal_tests::{Pids, Process, Role, Sandbox, Signal, eventually, holds_for};
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
#[cfg(target_os = "linux")]
use std::time::Instant;

fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory of a process that is its own or that it has touched, in KiB.
#[cfg(target_os = "linux")]
fn memory_kib(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the role runs");
    let line = text.lines().find(|line| line.starts_with("Rss:")).expect("the kernel tells it");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number of KiB")
}

#[cfg(target_os = "linux")]
#[test]
fn fifteen_hundred_respawns_leave_descriptors_and_memory_as_they_were() {
    const WARM_UP: u64 = 100;
    const RESPAWNS: u64 = 1500;
    let _turn = alone();
    let sandbox = Sandbox::new();
    let pause = ["--backoff", "0ms", "--backoff-max", "0ms"];
    let group = sandbox.launch("daemon").log().args(pause).program(["/bin/true"]).start();
    let roles = [group.started.of(Role::Monitor), group.started.of(Role::Daemon)];
    let respawned = |least: u64| {
        let until = Instant::now() + Duration::from_secs(120);
        loop {
            let count = group.status()["restarts"].as_u64().expect("a count");
            if count >= least {
                return count;
            }
            assert!(Instant::now() < until, "{count} respawns only");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    // The fewest of several looks: a respawn that is under way has a few descriptors more.
    let open = || {
        roles.map(|pid| {
            let look = |_| {
                // Not all of them at one respawn.
                std::thread::sleep(Duration::from_millis(2));
                Some(Process::find(pid)?.descriptors().len())
            };
            let looks = (0..50).filter_map(look);
            looks.min().expect("the role runs")
        })
    };
    let first = respawned(WARM_UP);
    let (descriptors, memory) = (open(), roles.map(memory_kib));
    let since = Instant::now();
    let last = respawned(first + RESPAWNS);
    let took = since.elapsed();
    let now = open();
    let grown = now.iter().zip(&descriptors).any(|(now, before)| now > before);
    assert!(
        !grown,
        "descriptors of pump and daemon: {descriptors:?} became {now:?} after {} respawns",
        last - first
    );
    for (before, pid) in memory.into_iter().zip(roles) {
        let now = memory_kib(pid);
        assert!(
            now < before + 512,
            "{}: {before} KiB became {now}",
            Process::find(pid).unwrap().command_line()
        );
    }
    assert_eq!(group.pids().monitor, group.started.monitor, "it is still the same pump");
    // One that has just ended and is about to be reaped is none that stays.
    let mut zombies: BTreeSet<i32> = sandbox.zombies().into_iter().collect();
    for _ in 0..20 {
        let now = sandbox.zombies();
        zombies.retain(|zombie| now.contains(zombie));
    }
    assert!(zombies.is_empty(), "{zombies:?}");
    assert!(took < Duration::from_secs(60), "without a pause, and yet {took:?}");
    group.stop();
}

/// All groups by name with their pids, and whether all of them run.
fn listed(sandbox: &Sandbox) -> (Vec<(String, Pids)>, bool, Duration) {
    let outcome = sandbox.immortal(["list", "--json"]).run();
    outcome.assert_code(0);
    let list = outcome.json();
    let groups = list.as_array().expect("an array");
    let all_run = groups.iter().all(|group| group["state"] == "running");
    let named = |group: &serde_json::Value| {
        (group["name"].as_str().expect("a name").to_owned(), Pids::from_json(&group["pids"]))
    };
    (groups.iter().map(named).collect(), all_run, outcome.took)
}

#[test]
fn two_hundred_groups_started_by_eight_callers_come_back_when_all_processes_are_killed() {
    const CALLERS: usize = 8;
    const EACH: usize = 25;
    const ALL: usize = CALLERS * EACH;
    let _turn = alone();
    let sandbox = Sandbox::new();
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let sandbox = &sandbox;
            scope.spawn(move || {
                for number in 0..EACH {
                    let name = format!("g{caller}-{number}");
                    let output = sandbox.path(&name);
                    let launch = sandbox.launch("daemon").name(&name).set("output", output);
                    launch.program(["/bin/sleep", "100000"]).run().assert_code(0);
                }
            });
        }
    });
    let (before, all_run, _) = listed(&sandbox);
    assert_eq!(before.len(), ALL);
    assert!(all_run, "{before:?}");
    let quickest = (0..5).map(|_| listed(&sandbox).2).min().unwrap();
    assert!(quickest < Duration::from_secs(1), "list took {quickest:?} at best");

    for (_, pids) in &before {
        Process::find(pids.of(Role::Process)).expect("it runs").signal(Signal::SIGKILL);
    }
    let after = eventually("all are back", || {
        let (after, all_run, _) = listed(&sandbox);
        let new = after
            .iter()
            .zip(&before)
            .all(|((_, new), (_, old))| new.process.is_some() && new.process != old.process);
        (all_run && new && after.len() == ALL).then_some(after)
    });
    for ((name, new), (old_name, old)) in after.iter().zip(&before) {
        assert_eq!((name, new.monitor, new.daemon), (old_name, old.monitor, old.daemon));
    }
    assert_eq!(sandbox.processes().len(), 3 * ALL);

    sandbox.immortal(["stop", "--all"]).run().assert_code(0);
    assert!(sandbox.processes().is_empty(), "{:?}", sandbox.processes());
    let (left, _, _) = listed(&sandbox);
    assert!(left.is_empty(), "{left:?}");
    assert!(sandbox.runtime_files().is_empty(), "{:?}", sandbox.runtime_files());
}

/// Numbers that look random and are the same every time.
fn scrambled(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).expect("31 bits") % below
    }
}

#[test]
fn after_each_of_sixty_kills_there_is_exactly_one_whole_group() {
    let _turn = alone();
    let sandbox = Sandbox::new();
    let options = ["--backoff", "0ms", "--backoff-max", "0ms", "--stable", "0ms"];
    let group = sandbox.launch("daemon").log().args(options).program(["/bin/sleep", "100000"]).start();
    let mut number = scrambled(7);
    let mut pids = group.started;
    let mut kills = Vec::new();
    for _ in 0..60 {
        let role = [Role::Process, Role::Monitor, Role::Daemon][number(3)];
        let signal = [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGSEGV][number(3)];
        kills.push((role, signal));
        Process::find(pids.of(role)).unwrap_or_else(|| panic!("it runs: {kills:?}")).signal(signal);
        let renewed: &[Role] = match role {
            Role::Process => &[Role::Process],
            Role::Monitor => &[Role::Process, Role::Monitor],
            Role::Daemon => &[Role::Process, Role::Monitor, Role::Daemon],
        };
        pids = group.wait_renewed(pids, renewed);
        let whole: BTreeSet<i32> =
            [Role::Process, Role::Monitor, Role::Daemon].map(|role| pids.of(role)).into();
        eventually(&format!("{whole:?} and no other after {kills:?}"), || {
            let there: BTreeSet<i32> = sandbox.processes().iter().map(|process| process.pid).collect();
            (there == whole).then_some(())
        });
    }
    let status = group.status();
    let killed = |role: Role| kills.iter().filter(|kill| kill.0 == role).count();
    assert_eq!(status["daemon_restarts"], killed(Role::Daemon), "{kills:?}");
    assert_eq!(status["monitor_restarts"], killed(Role::Daemon) + killed(Role::Monitor), "{kills:?}");
    assert_eq!(status["restarts"], kills.len(), "{kills:?}");
    holds_for(Duration::from_millis(300), "it stays as it is", || group.pids() == pids);
    group.stop();
    sandbox.assert_nothing_left();
}
