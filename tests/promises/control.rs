//! `stop`, `restart`, `list` and `status`: ending and observing groups.

use immortal_tests::{Group, Pids, Process, Role, Sandbox, Signal, eventually};
use serde_json::{Value, json};

fn hanging<'a>(sandbox: &'a Sandbox, strategy: &str, name: &str) -> Group<'a> {
    sandbox.launch(strategy).name(name).recorder().puppet(["hang"]).start()
}

#[test]
fn stop_returns_when_every_process_of_the_group_is_gone() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        hanging(&sandbox, strategy, "group").stop();
    }
}

#[test]
fn stop_leaves_no_file_of_the_group() {
    let sandbox = Sandbox::new();
    hanging(&sandbox, "daemon", "group").stop();
    sandbox.assert_nothing_left();
}

#[test]
fn stop_takes_several_names_and_leaves_the_others() {
    let sandbox = Sandbox::new();
    let [one, two, three] = ["one", "two", "three"].map(|name| hanging(&sandbox, "daemon", name));
    sandbox.immortal(["stop", "one", "three"]).run().assert_code(0);
    assert!(one.try_status().is_none() && three.try_status().is_none());
    assert_eq!(two.pids(), two.started);
    assert_eq!(sandbox.processes().len(), 3);
}

#[test]
fn stop_all_stops_every_group() {
    let sandbox = Sandbox::new();
    for strategy in ["unattached", "daemon"] {
        hanging(&sandbox, strategy, strategy);
    }
    sandbox.immortal(["stop", "--all"]).run().assert_code(0);
    assert!(sandbox.processes().is_empty());
    sandbox.assert_nothing_left();
}

#[test]
fn stop_all_without_a_group_is_0() {
    let sandbox = Sandbox::new();
    sandbox.immortal(["stop", "--all"]).run().assert_code(0);
}

#[test]
fn stop_waits_for_a_slow_process() {
    let sandbox = Sandbox::new();
    let steps = ["block=TERM", "touch=ready", "wait-signal=TERM", "sleep=500", "touch=ended", "exit=0"];
    let group = sandbox.launch("daemon").recorder().puppet(steps).start();
    eventually("it is ready", || sandbox.path("ready").exists().then_some(()));
    group.stop();
    assert!(sandbox.path("ended").exists());
}

#[test]
fn stop_works_while_the_process_floods_its_output() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").log().puppet(["lines=100000000"]).start();
    eventually("some of it", || (std::fs::metadata(sandbox.path("log")).ok()?.len() > 1000).then_some(()));
    group.stop();
}

#[test]
fn the_output_of_a_polite_end_reaches_the_monitor() {
    let sandbox = Sandbox::new();
    let steps = ["block=TERM", "out=ready", "wait-signal=TERM", "lines=2000", "exit=0"];
    let group = sandbox.launch("daemon").log().puppet(steps).start();
    group.wait_log("it is ready", |log| log.output() == b"ready\n");
    let pid = group.started.process.unwrap();
    group.stop();
    let text = group.log().output_text();
    assert!(text.ends_with(&format!("{pid} 1999\n")), "{text:?}");
}

#[test]
fn two_stops_at_once_are_both_content() {
    let sandbox = Sandbox::new();
    let group = hanging(&sandbox, "daemon", "group");
    let other = sandbox.immortal(["stop", "group"]).spawn();
    let here = group.command("stop");
    let there = other.wait();
    // One of them may come too late to find the group.
    assert!(here.code == Some(0) || there.code == Some(0), "{here}{there}");
    assert!(sandbox.processes().is_empty());
}

#[test]
fn an_unknown_group_is_1() {
    let sandbox = Sandbox::new();
    for command in ["stop", "restart", "status"] {
        let error = sandbox.immortal([command, "nobody"]).run().assert_refused(1);
        assert!(error.contains("nobody"), "{command}: {error}");
    }
}

#[test]
fn a_command_without_a_name_is_2() {
    let sandbox = Sandbox::new();
    for command in ["stop", "restart", "status"] {
        sandbox.immortal([command]).run().assert_refused(2);
    }
}

#[test]
fn an_unknown_command_is_2() {
    let sandbox = Sandbox::new();
    sandbox.immortal(["resurrect"]).run().assert_refused(2);
}

#[test]
fn restart_returns_when_the_new_process_runs() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let group = hanging(&sandbox, strategy, "group");
        group.command("restart").assert_code(0);
        let new = group.pids();
        assert_ne!(new.process, group.started.process, "{strategy}");
        assert!(Process::find(new.of(Role::Process)).is_some(), "{strategy}");
        assert_eq!((new.monitor, new.daemon), (group.started.monitor, group.started.daemon), "{strategy}");
    }
}

#[test]
fn restart_is_polite() {
    let sandbox = Sandbox::new();
    let steps = ["block=TERM", "note=ran", "wait-signal=TERM", "note=ended", "exit=0"];
    let group = sandbox.launch("daemon").recorder().puppet(steps).start();
    let first = eventually("it is ready", || sandbox.noted("ran").first().copied());
    group.command("restart").assert_code(0);
    assert_eq!(sandbox.noted("ended"), [first]);
}

#[test]
fn restart_kills_a_process_that_ignores_the_stop_signal() {
    let sandbox = Sandbox::new();
    let steps = ["block=TERM", "note=ran", "hang"];
    let group = sandbox.launch("daemon").recorder().args(["--stop-timeout", "300ms"]).puppet(steps).start();
    let first = eventually("it is ready", || sandbox.noted("ran").first().copied());
    group.command("restart").assert_code(0);
    assert!(Process::find(first).is_none());
}

#[test]
fn restart_takes_several_names() {
    let sandbox = Sandbox::new();
    let groups = ["one", "two"].map(|name| hanging(&sandbox, "unattached", name));
    sandbox.immortal(["restart", "one", "two"]).run().assert_code(0);
    for group in groups {
        assert_ne!(group.pids().process, group.started.process);
    }
}

#[test]
fn restart_is_not_held_up_by_a_pause() {
    let sandbox = Sandbox::new();
    let pause = ["--backoff", "1h", "--backoff-max", "1h", "--stable", "1h"];
    let group = sandbox.launch("daemon").recorder().args(pause).puppet(["hang"]).start();
    for _ in 0..3 {
        group.command("restart").assert_code(0);
    }
    assert_eq!(group.status()["restarts"], 3);
}

#[test]
fn list_is_empty_without_a_group() {
    let sandbox = Sandbox::new();
    let list = sandbox.immortal(["list", "--json"]).run();
    list.assert_code(0);
    assert_eq!(list.json(), json!([]));
}

#[test]
fn list_names_every_group() {
    let sandbox = Sandbox::new();
    let groups = ["one", "two"].map(|name| hanging(&sandbox, "unattached", name));
    let list = sandbox.immortal(["list", "--json"]).run().json();
    let mut found: Vec<(&str, Pids)> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["name"].as_str().unwrap(), Pids::from_json(&entry["pids"])))
        .collect();
    found.sort_by_key(|(name, _)| *name);
    assert_eq!(found, [("one", groups[0].started), ("two", groups[1].started)]);
}

#[test]
fn list_for_people_shows_name_strategy_state_and_pid() {
    let sandbox = Sandbox::new();
    let group = hanging(&sandbox, "daemon", "web-server");
    let list = sandbox.immortal(["list"]).run();
    list.assert_code(0);
    let process = group.started.process.unwrap().to_string();
    let line = list.out().lines().find(|line| line.contains("web-server")).unwrap().to_owned();
    for word in ["daemon", "running", &process, "recorder"] {
        assert!(line.contains(word), "{word} in {line:?}");
    }
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

#[test]
fn list_has_the_keys_of_the_contract() {
    let sandbox = Sandbox::new();
    hanging(&sandbox, "daemon", "group");
    let list = sandbox.immortal(["list", "--json"]).run().json();
    for key in KEYS {
        assert!(list[0].get(key).is_some(), "{key} in {list:#}");
    }
}

#[test]
fn status_has_the_keys_of_the_contract() {
    let sandbox = Sandbox::new();
    let status = hanging(&sandbox, "daemon", "group").status();
    for key in KEYS.into_iter().chain(["settings"]) {
        assert!(status.get(key).is_some(), "{key} in {status:#}");
    }
}

#[test]
fn status_says_what_was_started() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").recorder().puppet(["hang", "more words", "ä"]).start();
    let status = group.status();
    assert_eq!(status["name"], "group");
    assert_eq!(status["strategy"], "daemon");
    assert_eq!(status["state"], "running");
    assert_eq!(status["reason"], Value::Null);
    assert_eq!(status["last_exit"], Value::Null);
    assert_eq!(status["args"], json!(["hang", "more words", "ä"]));
    assert!(status["file"].as_str().unwrap().ends_with("puppet"), "{status:#}");
    let monitor = &status["monitors"][0];
    assert_eq!(monitor["label"], "recorder");
    assert!(monitor["name"].is_string(), "{monitor}");
    assert!(monitor["path"].as_str().unwrap().starts_with('/'), "{monitor}");
}

#[test]
fn a_running_group_has_all_its_members_whenever_one_looks() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").recorder().args(["--stable", "0ms"]).puppet(["hang"]).start();
    let mut old = group.started;
    for _ in 0..10 {
        group.member(Role::Monitor).signal(Signal::SIGKILL);
        old = eventually("a new process", || {
            let status = group.status();
            let pids = Pids::from_json(&status["pids"]);
            assert!(status["state"] != "running" || pids.count() == 3, "{status:#}");
            (pids.count() == 3 && pids.process != old.process).then_some(pids)
        });
    }
}

#[test]
fn status_for_people_names_the_group_and_its_pids() {
    let sandbox = Sandbox::new();
    let group = hanging(&sandbox, "daemon", "group");
    let outcome = sandbox.immortal(["status", "group"]).run();
    outcome.assert_code(0);
    for role in [Role::Process, Role::Monitor, Role::Daemon] {
        let pid = group.started.of(role).to_string();
        assert!(outcome.out().contains(&pid), "{role:?} {pid} in {outcome}");
    }
}

#[test]
fn uptime_grows_and_started_at_is_rfc_3339() {
    let sandbox = Sandbox::new();
    let group = hanging(&sandbox, "unattached", "group");
    let first = group.status();
    let at = first["started_at"].as_str().unwrap();
    let shape: String = at.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert!(shape.starts_with("0000-00-00T00:00:00"), "{at}");
    let uptime = first["uptime_s"].as_f64().unwrap();
    assert!(uptime >= 0.0, "{uptime}");
    eventually("a longer uptime", || (group.status()["uptime_s"].as_f64()? > uptime).then_some(()));
}

#[test]
fn the_last_exit_is_told_by_code() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("unattached").recorder().puppet(["hang-after=1:count", "exit=7"]).start();
    group.wait_hook("respawn", 0);
    let last = group.status()["last_exit"].clone();
    assert_eq!((&last["code"], &last["signal"]), (&json!(7), &Value::Null));
    assert!(last["at"].as_str().unwrap().contains('T'), "{last}");
}

#[test]
fn the_last_exit_is_told_by_signal() {
    let sandbox = Sandbox::new();
    let group = hanging(&sandbox, "unattached", "group");
    group.member(Role::Process).signal(Signal::SIGKILL);
    group.wait_hook("respawn", 0);
    let last = group.status()["last_exit"].clone();
    assert_eq!((&last["code"], &last["signal"]), (&Value::Null, &json!("KILL")));
}

#[test]
fn restarts_count_respawns_of_the_process() {
    let sandbox = Sandbox::new();
    let pause = ["--backoff", "0ms", "--backoff-max", "0ms"];
    let steps = ["hang-after=3:count", "exit=1"];
    let group = sandbox.launch("unattached").recorder().args(pause).puppet(steps).start();
    group.wait_hook("respawn", 2);
    assert_eq!(group.status()["restarts"], 3);
}

#[test]
fn status_shows_no_value_of_options_and_environment() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("daemon")
        .recorder()
        .set("text", "xyzzy-option")
        .set("secret", "xyzzy-secret")
        .args(["--env", "TOKEN=xyzzy-variable"])
        .puppet(["hang"])
        .start();
    for arguments in [&["status", &group.name, "--json"][..], &["status", &group.name], &["list", "--json"]] {
        let outcome = sandbox.immortal(arguments).run();
        assert!(!outcome.out().contains("xyzzy"), "{outcome}");
    }
}

#[test]
fn status_shows_the_settings_of_the_command_line() {
    let sandbox = Sandbox::new();
    let options = ["--stop-signal", "INT", "--stop-timeout", "3s", "--env", "TOKEN=1"];
    let group = sandbox.launch("daemon").recorder().args(options).puppet(["hang"]).start();
    let settings = group.status()["settings"].to_string();
    for text in ["INT", "3s", "TOKEN", "record"] {
        assert!(settings.contains(text), "{text} in {settings}");
    }
}

fn failed(sandbox: &Sandbox) -> Group<'_> {
    let group = sandbox
        .launch("unattached")
        .recorder()
        .set("when", "stdout")
        .set("how", "abort")
        .puppet(["wait-file=go", "out=hello", "hang"])
        .start();
    sandbox.file("go", "", 0o600);
    group.wait_state("failed");
    group
}

#[test]
fn a_failed_group_has_no_pids_and_a_reason() {
    let sandbox = Sandbox::new();
    let status = failed(&sandbox).status();
    assert_eq!(Pids::from_json(&status["pids"]), Pids::default());
    let reason = status["reason"].as_str().unwrap();
    assert!(reason.contains("fixture abort in stdout"), "{reason}");
}

#[test]
fn stop_removes_a_failed_group() {
    let sandbox = Sandbox::new();
    failed(&sandbox).command("stop").assert_code(0);
    sandbox.assert_nothing_left();
}

#[test]
fn start_replaces_a_failed_group() {
    let sandbox = Sandbox::new();
    failed(&sandbox);
    let group = hanging(&sandbox, "daemon", "group");
    assert_eq!(group.wait_running("again", |_| true), group.started);
}

#[test]
fn restart_of_a_failed_group_is_1_with_a_hint() {
    let sandbox = Sandbox::new();
    let outcome = failed(&sandbox).command("restart");
    outcome.assert_refused(1);
    assert!(outcome.err().contains("hint: "), "{outcome}");
}

#[test]
fn a_name_is_free_after_stop() {
    let sandbox = Sandbox::new();
    for _ in 0..3 {
        hanging(&sandbox, "daemon", "group").stop();
    }
}

#[test]
fn two_runtime_directories_know_nothing_of_each_other() {
    let [here, there] = [Sandbox::new(), Sandbox::new()];
    let group = hanging(&here, "unattached", "group");
    hanging(&there, "unattached", "group").stop();
    assert_eq!(group.pids(), group.started);
}

#[test]
fn twenty_groups_can_be_started_at_once_and_stopped_at_once() {
    let sandbox = Sandbox::new();
    let starts: Vec<_> = (0..20)
        .map(|number| {
            sandbox.launch("daemon").name(&format!("g{number}")).recorder().puppet(["hang"]).spawn()
        })
        .collect();
    for start in starts {
        start.wait().assert_code(0);
    }
    let list = sandbox.immortal(["list", "--json"]).run().json();
    assert_eq!(list.as_array().unwrap().len(), 20);
    assert!(list.as_array().unwrap().iter().all(|group| group["state"] == "running"), "{list:#}");
    sandbox.immortal(["stop", "--all"]).run().assert_code(0);
    assert!(sandbox.processes().is_empty());
}

#[test]
fn immortals_own_log_goes_to_stderr() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.immortal(["-vvv", "list", "--json"]).run();
    outcome.assert_code(0);
    assert_eq!(outcome.json(), json!([]));
    let outcome = sandbox.immortal(["list", "--json"]).env("RUST_LOG", "trace").run();
    assert_eq!(outcome.json(), json!([]));
}

#[test]
fn a_broken_standard_output_is_no_crash() {
    let sandbox = Sandbox::new();
    hanging(&sandbox, "unattached", "group");
    let (far, near) = std::io::pipe().unwrap();
    drop(far);
    let outcome = sandbox.immortal(["list"]).output(near).spawn().wait();
    assert!(!outcome.err().contains("panicked"), "{outcome}");
}
