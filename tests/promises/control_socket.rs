//! The control socket and what is around it: strangers, garbage, crowds, and answers in the middle of a storm.

use immortal_tests::{Group, Pids, Process, Role, Sandbox, Signal, artifacts, eventually};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const NOBODY: u32 = 65534;

fn running<'a>(sandbox: &'a Sandbox, strategy: &str) -> Group<'a> {
    sandbox.launch(strategy).recorder().puppet(["out=hello", "hang"]).start()
}

fn socket(group: &Group<'_>) -> PathBuf {
    group.sandbox.runtime().join(&group.name).join("control")
}

fn connected(group: &Group<'_>) -> UnixStream {
    let stream = UnixStream::connect(socket(group)).expect("the group listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream.set_write_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream
}

fn answer(stream: &UnixStream) -> Value {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("an answer");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

fn asked(group: &Group<'_>, line: &str) -> Value {
    let mut stream = connected(group);
    stream.write_all(line.as_bytes()).expect("the line is taken");
    stream.write_all(b"\n").expect("and its end");
    answer(&stream)
}

/// The group is what it was, and does at once what it is asked to.
#[track_caller]
fn assert_well(group: &Group<'_>) {
    let now = group.pids();
    assert_eq!((now.monitor, now.daemon), (group.started.monitor, group.started.daemon), "the same roles");
    assert_eq!(now.process, group.started.process, "the same process");
    let signalled = group.sandbox.immortal(["signal", &group.name, "CONT"]).run();
    signalled.assert_code(0);
    assert!(signalled.took < Duration::from_secs(3), "{signalled}");
}

#[test]
fn the_protocol_is_as_documented() {
    let sandbox = Sandbox::new();
    let group = running(&sandbox, "daemon");
    assert_eq!(asked(&group, r#"{"v":1,"command":{"signal":18}}"#), serde_json::json!({"v": 1, "ok": true}));
    assert_eq!(asked(&group, r#"{"v":1,"command":"restart"}"#)["ok"], true);
    assert_ne!(group.pids().process, group.started.process);
    let arguments = asked(&group, r#"{"v":1,"command":"arguments"}"#)["arguments"].clone();
    assert_eq!(arguments[0], "start", "{arguments}");
    assert_eq!(asked(&group, r#"{"v":1,"command":"stop"}"#)["ok"], true);
    eventually("the group ends", || group.try_status().is_none().then_some(()));
}

#[test]
fn another_version_is_refused_in_an_answer() {
    let sandbox = Sandbox::new();
    let group = running(&sandbox, "daemon");
    let refused = asked(&group, r#"{"v":2,"command":"stop"}"#);
    assert_eq!((&refused["v"], &refused["ok"]), (&1.into(), &false.into()), "{refused}");
    assert!(refused["error"].as_str().unwrap().contains('2'), "{refused}");
    assert_well(&group);
}

#[test]
fn garbage_is_answered_and_the_connection_closed() {
    let sandbox = Sandbox::new();
    let group = running(&sandbox, "daemon");
    let deep = "[".repeat(60_000);
    for garbage in ["", "stop", "{}", r#"{"v":1}"#, r#"{"v":1,"command":"fly"}"#, "null", "\u{1}\u{2}", &deep]
    {
        let mut stream = connected(&group);
        writeln!(stream, "{garbage}").unwrap();
        let refused = answer(&stream);
        assert_eq!(refused["ok"], false, "{refused}");
        assert!(refused["error"].is_string(), "{refused}");
        assert_eq!(stream.read(&mut [0; 16]).unwrap_or(0), 0, "it is closed");
    }
    let mut stream = connected(&group);
    stream.write_all(b"{\"v\":1,\"command\":\"\xff\xfe\"}\n").unwrap();
    assert_eq!(answer(&stream)["ok"], false);
    // No number of a signal.
    for signal in ["4294967297", "9.5", "\"TERM\""] {
        let refused = asked(&group, &format!(r#"{{"v":1,"command":{{"signal":{signal}}}}}"#));
        assert_eq!(refused["ok"], false, "{signal}: {refused}");
    }
    assert_well(&group);
}

#[test]
fn ten_megabytes_of_garbage_harm_nobody() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let group = running(&sandbox, strategy);
        for end in ["", "\n"] {
            let mut stream = connected(&group);
            let chunk = vec![b'x'; 1 << 16];
            let mut sent = 0_usize;
            while sent < 10_000_000 && stream.write_all(&chunk).is_ok() {
                sent += chunk.len();
            }
            drop(stream.write_all(end.as_bytes()));
            assert!(sent < 10_000_000, "{strategy}: {sent} bytes were taken");
        }
        assert_well(&group);
        group.stop();
    }
}

#[test]
fn clients_that_say_nothing_or_half_a_line_harm_nobody() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let group = running(&sandbox, strategy);
        let mut silent: Vec<UnixStream> = Vec::new();
        for number in 0..150 {
            // A full queue of connections is not waited for either.
            let mut stream = connected(&group);
            if number % 3 == 0 {
                stream.write_all(b"{\"v\":1,\"comm").unwrap_or_default();
            }
            silent.push(stream);
        }
        assert_well(&group);
        let restarted = group.command("restart");
        restarted.assert_code(0);
        assert!(restarted.took < Duration::from_secs(5), "{restarted}");
        let stopped = group.command("stop");
        stopped.assert_code(0);
        assert!(stopped.took < Duration::from_secs(5), "{stopped}");
        sandbox.assert_nothing_left();
        drop(silent);
    }
}

#[test]
fn a_client_that_never_reads_harms_nobody() {
    let sandbox = Sandbox::new();
    let group = running(&sandbox, "daemon");
    let mut slow = connected(&group);
    slow.set_nonblocking(true).unwrap();
    // Far more answers than a socket holds.
    let line = b"{\"v\":1,\"command\":\"arguments\"}\n";
    let until = Instant::now() + Duration::from_secs(2);
    let mut asked = 0;
    while Instant::now() < until && asked < 20_000 {
        match slow.write(line) {
            Ok(_) => asked += 1,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(_) => break,
        }
    }
    assert!(asked > 0);
    assert_well(&group);
    group.stop();
}

#[test]
fn a_client_that_leaves_before_the_answer_harms_nobody() {
    let sandbox = Sandbox::new();
    let group = running(&sandbox, "daemon");
    for _ in 0..50 {
        connected(&group).write_all(b"{\"v\":1,\"command\":{\"signal\":18}}\n").unwrap();
    }
    assert_well(&group);
}

#[cfg(target_os = "linux")]
#[test]
fn clients_cost_a_role_no_descriptor_for_good() {
    let sandbox = Sandbox::new();
    let group = running(&sandbox, "daemon");
    let open = || [Role::Monitor, Role::Daemon].map(|role| group.member(role).descriptors().len());
    let before = open();
    for round in 0..200 {
        let mut stream = connected(&group);
        if round % 2 == 0 {
            stream.write_all(b"nonsense\n").unwrap();
        }
    }
    eventually(&format!("{before:?} descriptors again"), || (open() == before).then_some(()));
}

/// Whether this can become another user, and so play a stranger.
fn can_play_a_stranger() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        #[expect(clippy::print_stderr, reason = "a test that looked at nothing says so")]
        {
            eprintln!("skipped: only root can play another user");
        }
    }
    is_root
}

/// The executable and the puppet where anybody can reach them, and the directories of a group open to all: what is
/// left to keep a stranger out is who is asking.
fn opened(group: &Group<'_>) -> PathBuf {
    let sandbox = group.sandbox;
    let allow = |path: PathBuf| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).expect("root may");
    };
    allow(sandbox.path(""));
    allow(sandbox.runtime().join(&group.name));
    allow(socket(group));
    std::fs::set_permissions(sandbox.runtime(), PermissionsExt::from_mode(0o755)).expect("root may");
    let tools = sandbox.path("tools");
    std::fs::create_dir(&tools).expect("a folder");
    for file in [artifacts().immortal(), artifacts().puppet()] {
        sandbox.executable(&file, tools.join(file.file_name().expect("a name")));
    }
    allow(tools.clone());
    tools
}

#[test]
fn another_user_is_kept_out_by_the_directory() {
    if !can_play_a_stranger() {
        return;
    }
    let sandbox = Sandbox::new();
    let group = running(&sandbox, "daemon");
    let mode = |path: PathBuf| path.symlink_metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(sandbox.runtime()), 0o700);
    assert_eq!(mode(sandbox.runtime().join("group")) & 0o077, 0);
    // The way there is open, the directory itself is not.
    std::fs::set_permissions(sandbox.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    let elsewhere = Sandbox::new();
    std::fs::set_permissions(elsewhere.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    let puppet = elsewhere.executable(artifacts().puppet(), "puppet");
    let question = format!("ask={}:{}", socket(&group).display(), r#"{"v":1,"command":"stop"}"#);
    let heard = elsewhere.invocation(&puppet).user(NOBODY, NOBODY).arg(question).run();
    assert!(heard.out().contains("ermission denied"), "{heard}");
    assert_well(&group);
}

#[test]
fn another_user_who_reaches_the_socket_is_not_answered() {
    if !can_play_a_stranger() {
        return;
    }
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let group = running(&sandbox, strategy);
        let tools = opened(&group);
        for command in [r#""stop""#, r#""restart""#, r#"{"signal":9}"#, r#""arguments""#] {
            let question = format!("ask={}:{{\"v\":1,\"command\":{command}}}", socket(&group).display());
            let heard = sandbox.invocation(tools.join("puppet")).user(NOBODY, NOBODY).arg(question).run();
            assert!(heard.out().starts_with("answer: ") && !heard.out().contains('{'), "{heard}");
        }
        assert_well(&group);
    }
}

#[test]
fn commands_of_another_user_find_nothing_and_change_nothing() {
    if !can_play_a_stranger() {
        return;
    }
    let sandbox = Sandbox::new();
    let group = running(&sandbox, "daemon");
    let tools = opened(&group);
    let stranger = |arguments: &[&str]| {
        sandbox.invocation(tools.join("immortal")).user(NOBODY, NOBODY).args(arguments).run()
    };
    for arguments in [
        &["list"][..],
        &["list", "--json"],
        &["status", "group"],
        &["logs", "group"],
        &["signal", "group", "KILL"],
        &["restart", "group"],
        &["unit", "group"],
        &["stop", "group"],
        &["stop", "--all"],
    ] {
        let refused = stranger(arguments);
        let error = refused.assert_refused(1);
        assert!(!refused.err().contains("hello"), "{refused}");
        assert!(error.contains("run"), "it names the directory: {error}");
    }
    // With a runtime directory of their own they see nothing of it either.
    let own = sandbox.path("own");
    let list = sandbox
        .invocation(tools.join("immortal"))
        .env("IMMORTAL_RUNTIME_DIR", &own)
        .user(NOBODY, NOBODY)
        .args(["list", "--json"])
        .run();
    list.assert_code(0);
    assert_eq!(list.json(), serde_json::json!([]));
    assert_well(&group);
}

#[test]
fn root_may_control_the_group_of_another_user_through_its_socket() {
    if !can_play_a_stranger() {
        return;
    }
    let sandbox = Sandbox::new();
    let puppet = sandbox.path("bin/puppet");
    let started = sandbox
        .unprivileged()
        .args(["start", "--name", "group", "--monitor", "recorder"])
        .arg(&puppet)
        .arg("hang")
        .run();
    started.assert_code(0);
    let stream = UnixStream::connect(sandbox.runtime().join("group/control")).unwrap();
    (&stream).write_all(b"{\"v\":1,\"command\":\"stop\"}\n").unwrap();
    assert_eq!(answer(&stream)["ok"], true);
    eventually("it ends", || sandbox.processes().is_empty().then_some(()));
}

const KEYS: [&str; 14] = [
    "name",
    "strategy",
    "state",
    "reason",
    "pids",
    "started_at",
    "uptime_s",
    "restarts",
    "monitor_restarts",
    "daemon_restarts",
    "last_exit",
    "monitors",
    "file",
    "args",
];
const STATES: [&str; 7] = ["starting", "running", "stopping", "backoff", "stopped", "failed", "orphaned"];

/// The keys in their order, and values of the types that the contract names.
#[track_caller]
fn assert_shape(group: &Value) {
    let keys: Vec<&String> = group.as_object().expect("an object").keys().collect();
    assert!(KEYS.iter().all(|key| group.get(key).is_some()), "{keys:?}");
    assert!(
        group["name"].is_string() && group["strategy"].is_string() && group["file"].is_string(),
        "{group}"
    );
    let state = group["state"].as_str().expect("a word");
    assert!(STATES.contains(&state), "{group}");
    assert!(group["reason"].is_null() || group["reason"].is_string(), "{group}");
    let pids = Pids::from_json(&group["pids"]);
    assert!(state != "running" || (pids.process.is_some() && pids.monitor.is_some()), "{group}");
    assert!(state != "failed" || pids == Pids::default(), "{group}");
    assert!(group["started_at"].as_str().is_some_and(|at| at.contains('T')), "{group}");
    assert!(group["uptime_s"].as_f64().is_some_and(|uptime| (0.0..3600.0).contains(&uptime)), "{group}");
    for count in ["restarts", "monitor_restarts", "daemon_restarts"] {
        assert!(group[count].is_u64(), "{group}");
    }
    let last = &group["last_exit"];
    assert!(
        last.is_null() || (last["at"].is_string() && (last["code"].is_u64() != last["signal"].is_string())),
        "{group}"
    );
    assert_eq!(group["monitors"][0]["label"], "recorder", "{group}");
    assert!(group["args"].is_array(), "{group}");
}

#[test]
fn json_is_whole_while_everything_is_killed_around_it() {
    let sandbox = Sandbox::new();
    let options = ["--backoff", "0ms", "--backoff-max", "0ms", "--stable", "0ms"];
    drop(sandbox.launch("daemon").recorder().args(options).puppet(["hang"]).start());
    let (over, kills) = (AtomicBool::new(false), AtomicUsize::new(0));
    let until = Instant::now() + Duration::from_secs(60);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0_usize.. {
                // Nobody says that it is over when a look has failed.
                if over.load(Ordering::Relaxed) || Instant::now() > until {
                    break;
                }
                // One at a time: what becomes of a group that loses two at once is told elsewhere.
                let list = sandbox.immortal(["list", "--json"]).run();
                let pids = Pids::from_json(&list.json()[0]["pids"]);
                let role = [Role::Process, Role::Monitor, Role::Daemon][round % 3];
                if pids.count() == 3
                    && let Some(victim) = pids.get(role).and_then(Process::find)
                {
                    victim.signal(Signal::SIGKILL);
                    eventually("its end", || victim.is_gone().then_some(()));
                    kills.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let mut states = std::collections::BTreeMap::<String, usize>::new();
        let mut looks = 0;
        while looks < 150 || (kills.load(Ordering::Relaxed) < 12 && Instant::now() < until) {
            looks += 1;
            let list = sandbox.immortal(["list", "--json"]).run();
            list.assert_code(0);
            assert_eq!(list.json().as_array().unwrap().len(), 1, "{list}");
            assert_shape(&list.json()[0]);
            let status = sandbox.immortal(["status", "group", "--json"]).run();
            status.assert_code(0);
            assert_shape(&status.json());
            for group in [&list.json()[0], &status.json()] {
                // One at a time is killed: there is always somebody to go on.
                assert!(!["failed", "orphaned"].contains(&group["state"].as_str().unwrap()), "{group:#}");
            }
            assert!(status.json()["settings"].is_object(), "{status}");
            *states.entry(status.json()["state"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        over.store(true, Ordering::Relaxed);
        let kills = kills.load(Ordering::Relaxed);
        assert!(kills >= 12 && states.len() > 1, "{kills} kills: {states:?}");
    });
}

#[test]
fn commands_are_answered_while_roles_are_replaced() {
    let sandbox = Sandbox::new();
    let options = ["--backoff", "0ms", "--backoff-max", "0ms", "--stable", "0ms"];
    let group = sandbox.launch("daemon").recorder().args(options).puppet(["hang"]).start();
    let mut old = group.started;
    for round in 0..12 {
        let role = [Role::Monitor, Role::Daemon][round % 2];
        Process::find(old.of(role)).unwrap().signal(Signal::SIGKILL);
        let restarted = group.command("restart");
        restarted.assert_code(0);
        assert!(restarted.took < Duration::from_secs(5), "{restarted}");
        old = group.wait_running("it is whole", |pids| pids.count() == 3 && pids.monitor != old.monitor);
    }
    Process::find(old.of(Role::Monitor)).unwrap().signal(Signal::SIGKILL);
    group.stop();
    sandbox.assert_nothing_left();
}

/// Kills everything at once, as a power cut does.
fn power_cut(group: &Group<'_>) {
    let members = group.pids().members();
    members.iter().for_each(|member| member.signal(Signal::SIGSTOP));
    eventually("all stand still", || members.iter().all(|member| member.is_stopped()).then_some(()));
    members.iter().for_each(|member| member.signal(Signal::SIGKILL));
    eventually("all are gone", || members.iter().all(|member| member.is_gone()).then_some(()));
}

/// `list` tells the truth, and the name is free.
fn assert_name_is_free(sandbox: &Sandbox, what: &str) {
    let list = sandbox.immortal(["list", "--json"]).run();
    list.assert_code(0);
    for group in list.json().as_array().expect("an array") {
        assert_eq!(group["state"], "failed", "{what}: {list}");
        assert_eq!(Pids::from_json(&group["pids"]), Pids::default(), "{what}: {list}");
    }
    let group = running(sandbox, "daemon");
    assert_eq!(group.wait_running("again", |_| true), group.started, "{what}");
    group.stop();
    sandbox.assert_nothing_left();
}

#[test]
fn after_a_kill_of_everything_list_tells_the_truth_and_the_name_is_free() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        power_cut(&running(&sandbox, strategy));
        assert_name_is_free(&sandbox, strategy);
    }
}

#[test]
fn what_an_earlier_boot_left_is_ignored_whoever_has_its_pids_now() {
    let sandbox = Sandbox::new();
    let group = running(&sandbox, "daemon");
    let page = sandbox.runtime().join("group/state");
    let kept = std::fs::read(&page).unwrap();
    power_cut(&group);
    // The page of a running group, of another boot: its third word is the boot.
    std::fs::write(&page, kept).unwrap();
    let file = std::fs::File::options().read(true).write(true).open(&page).unwrap();
    let mut boot = [0; 8];
    file.read_exact_at(&mut boot, 16).unwrap();
    file.write_all_at(&(u64::from_le_bytes(boot) ^ 1).to_le_bytes(), 16).unwrap();
    assert_name_is_free(&sandbox, "another boot");
}

#[test]
fn whatever_lies_in_the_runtime_directory_does_not_disturb_other_groups() {
    let sandbox = Sandbox::new();
    let healthy = sandbox.launch("daemon").name("healthy").recorder().puppet(["hang"]).start();
    let place = sandbox.runtime();
    std::fs::write(place.join("a-file"), "x").unwrap();
    std::fs::create_dir(place.join("empty")).unwrap();
    std::fs::create_dir(place.join("not a name")).unwrap();
    std::os::unix::fs::symlink("/nonexistent", place.join("dangling")).unwrap();
    std::os::unix::fs::symlink("healthy", place.join("alias")).unwrap();
    for (name, page, facts) in [
        ("short", &b"immortal"[..], &b"{}"[..]),
        ("zeros", &[0; 4096], b"{}"),
        ("noise", &[0xa5; 4096], b"\xff\xff"),
        ("nofacts", b"", b""),
    ] {
        std::fs::create_dir(place.join(name)).unwrap();
        std::fs::write(place.join(name).join("state"), page).unwrap();
        std::fs::write(place.join(name).join("facts"), facts).unwrap();
    }
    // A page that says that this test is the pump of a running group, but has no facts.
    std::fs::create_dir(place.join("torn")).unwrap();
    std::fs::copy(place.join("healthy/state"), place.join("torn/state")).unwrap();
    let list = sandbox.immortal(["list", "--json"]).run();
    list.assert_code(0);
    assert!(list.json().as_array().unwrap().iter().any(|group| group["name"] == "healthy"), "{list}");
    for name in ["short", "zeros", "noise", "nofacts", "empty", "torn", "a-file", "dangling"] {
        let status = sandbox.immortal(["status", name]).run();
        status.assert_refused(1);
    }
    for name in ["short", "zeros", "noise", "nofacts", "empty"] {
        drop(sandbox.launch("unattached").name(name).recorder().puppet(["hang"]).start());
        sandbox.immortal(["stop", name]).run().assert_code(0);
    }
    assert_eq!(healthy.pids(), healthy.started);
    healthy.command("stop").assert_code(0);
}
