//! The crash record: what `status --json` and the next monitors are told of the death of a pump or a daemon.

use immortal_tests::{CLibrary, Group, Role, Sandbox, Signal, eventually};
use serde_json::{Value, json};

/// A group whose monitor fails in its second call of stdout in this way, with 6 bytes of stdout and 5 of stderr
/// delivered before; waits for what `status` says of that.
fn crashed<'a>(sandbox: &'a Sandbox, how: &str, on_crash: &str) -> (Group<'a>, Value) {
    let group = sandbox
        .launch("daemon")
        .recorder()
        .set("when", "stdout")
        .set("how", how)
        .set("skip", "1")
        .set("times", "1")
        .args(["--on-crash", on_crash])
        .puppet(["out=hello", "err=oops", "wait-file=go", "out=again!", "hang"])
        .start();
    group.wait_hook("stdout", 0);
    group.wait_hook("stderr", 0);
    sandbox.file("go", "", 0o600);
    let crash = wait_for_crash(&group, 1);
    (group, crash)
}

#[track_caller]
fn wait_for_crash(group: &Group<'_>, pumps: u64) -> Value {
    eventually("a crash in status, and the group runs", || {
        let status = group.try_status()?;
        let there = status["monitor_restarts"].as_u64() >= Some(pumps) && status["state"] == "running";
        (there && !status["last_crash"].is_null()).then(|| status["last_crash"].clone())
    })
}

/// Takes away what is different each time, after a look at it.
#[track_caller]
fn settled(mut crash: Value, pid: Option<i32>) -> Value {
    let at = crash["at"].take();
    assert!(at.as_str().is_some_and(|at| at.starts_with("20") && at.ends_with('Z')), "{at}");
    assert_eq!(crash["pid"].take(), json!(pid));
    crash
}

#[test]
fn a_group_without_a_crash_has_none() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").recorder().puppet(["hang"]).start();
    assert_eq!(group.status()["last_crash"], Value::Null);
    assert_eq!(group.wait_hook("setup", 0).0["crash"], Value::Null);
    // Nor is the end of the process a crash, or a restart that was asked for.
    group.command("restart").assert_code(0);
    assert_eq!(group.status()["last_crash"], Value::Null);
}

#[test]
fn a_crash_in_a_hook_is_told_with_everything_that_is_known() {
    for (how, code, signal, stderr) in [
        ("segv", None, Some("SEGV"), "fixture segv in stdout\n"),
        ("abort", None, Some("ABRT"), "fixture abort in stdout\n"),
        ("exit0", Some(0), None, "fixture exit0 in stdout\n"),
        ("exit3", Some(3), None, "fixture exit3 in stdout\n"),
        ("error", Some(125), None, "monitor recorder: stdout: fixture error in stdout\n"),
    ] {
        for on_crash in ["respawn", "keep"] {
            let sandbox = Sandbox::new();
            let (group, crash) = crashed(&sandbox, how, on_crash);
            let pending = json!({"stream": "stdout", "offset": 6, "bytes": 7});
            let expected = json!({
                "at": null, "role": "pump", "pid": null, "code": code, "signal": signal,
                "monitor": "recorder", "hook": "stdout", "by_hook": true,
                "offsets": {"stdout": 6, "stderr": 5}, "pending": pending, "in_a_row": 1, "stderr": stderr,
            });
            assert_eq!(settled(crash.clone(), group.started.monitor), expected, "{how}, {on_crash}");
            let told = group.wait_hook("setup", 1).0["crash"].clone();
            let expected = json!({
                "role": "pump", "pid": group.started.monitor, "code": code,
                "signal": signal.map(|name| if name == "SEGV" { 11 } else { 6 }), "at_ms": told["at_ms"],
                "count": 1, "monitor": "recorder", "hook": "stdout", "by_hook": true, "offsets": [6, 5],
                "pending": {"stream": "Stdout", "offset": 6, "bytes": 7}, "stderr": stderr,
            });
            assert_eq!(told, expected, "{how}, {on_crash}: what the next monitor is told");
        }
    }
}

#[test]
fn a_panic_is_told_with_its_text() {
    let sandbox = Sandbox::new();
    let (_, crash) = crashed(&sandbox, "panic", "keep");
    assert_eq!(
        (&crash["code"], &crash["hook"], &crash["by_hook"]),
        (&json!(125), &json!("stdout"), &json!(true))
    );
    let stderr = crash["stderr"].as_str().expect("a text");
    assert!(
        stderr.starts_with("monitor recorder: stdout: panicked") && stderr.contains("fixture panic"),
        "{stderr}"
    );
}

#[test]
fn of_a_long_stderr_the_last_4_kib_are_told() {
    let sandbox = Sandbox::new();
    let (_, crash) = crashed(&sandbox, "flood", "respawn");
    let stderr = crash["stderr"].as_str().expect("a text");
    assert_eq!(stderr.len(), 4096);
    assert!(stderr.contains("\nflood 0000"), "{stderr}");
}

#[test]
fn a_kill_from_outside_is_no_hooks_fault() {
    for on_crash in ["respawn", "keep"] {
        let sandbox = Sandbox::new();
        let group = sandbox
            .launch("daemon")
            .recorder()
            .set("when", "stdout")
            .set("how", "hang")
            .set("times", "1")
            .args(["--on-crash", on_crash])
            .puppet(["out=hello", "hang"])
            .start();
        group.wait_hook("stdout", 0);
        group.member(Role::Monitor).signal(Signal::SIGKILL);
        let crash = wait_for_crash(&group, 1);
        let pending = json!({"stream": "stdout", "offset": 0, "bytes": 6});
        let expected = json!({
            "at": null, "role": "pump", "pid": null, "code": null, "signal": "KILL",
            "monitor": "recorder", "hook": "stdout", "by_hook": false,
            "offsets": {"stdout": 0, "stderr": 0}, "pending": pending, "in_a_row": 1, "stderr": "",
        });
        assert_eq!(settled(crash, group.started.monitor), expected, "{on_crash}");
    }
}

#[test]
fn a_pump_that_dies_between_hooks_names_none() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("daemon").recorder().set("stderr", "a word").puppet(["hang"]).start();
    group.member(Role::Monitor).signal(Signal::SIGTERM);
    let crash = wait_for_crash(&group, 1);
    let expected = json!({
        "at": null, "role": "pump", "pid": null, "code": 125, "signal": null, "monitor": null, "hook": null,
        "by_hook": false, "offsets": {"stdout": 0, "stderr": 0}, "pending": null, "in_a_row": 1,
        "stderr": "a word\n",
    });
    assert_eq!(settled(crash, group.started.monitor), expected);
}

#[test]
fn the_death_of_a_daemon_is_told_as_far_as_it_is_known() {
    for (on_crash, signal) in
        [("respawn", Signal::SIGKILL), ("keep", Signal::SIGKILL), ("keep", Signal::SIGTERM)]
    {
        let sandbox = Sandbox::new();
        let group = sandbox
            .launch("daemon")
            .recorder()
            .args(["--on-crash", on_crash])
            .puppet(["out=hello", "hang"])
            .start();
        group.wait_hook("stdout", 0);
        group.member(Role::Daemon).signal(signal);
        let crash = wait_for_crash(&group, 1);
        let expected = json!({
            "at": null, "role": "daemon", "pid": null, "code": null, "signal": null, "monitor": null,
            "hook": null, "by_hook": false, "offsets": {"stdout": 6, "stderr": 0}, "pending": null,
            "in_a_row": 1, "stderr": "",
        });
        assert_eq!(settled(crash, group.started.daemon), expected, "{on_crash}");
        let setup = group.wait_hook("setup", 1);
        assert_eq!(setup.text("why"), "daemon restart");
        assert_eq!(setup.0["crash"]["role"], "daemon", "{setup:?}");
        assert_eq!(setup.0["crash"]["pid"], json!(group.started.daemon));
    }
}

#[test]
fn crashes_in_a_row_are_counted_across_pumps_and_daemons() {
    for on_crash in ["respawn", "keep"] {
        let sandbox = Sandbox::new();
        let group = sandbox
            .launch("daemon")
            .recorder()
            .args(["--on-crash", on_crash, "--stable", "1h", "--backoff", "0ms", "--backoff-max", "0ms"])
            .puppet(["hang"])
            .start();
        for (role, count) in [(Role::Monitor, 1), (Role::Daemon, 2), (Role::Monitor, 3), (Role::Daemon, 4)] {
            group.member(role).signal(Signal::SIGKILL);
            let crash = wait_for_crash(&group, count);
            assert_eq!(crash["in_a_row"], count, "{on_crash}: {crash:#}");
            let setup = group.wait_hook("setup", usize::try_from(count).expect("a few"));
            assert_eq!(setup.0["crash"]["count"], count, "{setup:?}");
        }
    }
}

#[test]
fn a_stable_run_ends_a_row_and_the_last_crash_stays_known() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("daemon")
        .recorder()
        .args(["--stable", "1ms", "--backoff", "0ms", "--backoff-max", "0ms"])
        .puppet(["hang"])
        .start();
    for pumps in 1..3 {
        group.member(Role::Monitor).signal(Signal::SIGKILL);
        assert_eq!(wait_for_crash(&group, pumps)["in_a_row"], 1);
    }
    group.command("restart").assert_code(0);
    assert_eq!(group.status()["last_crash"]["signal"], "KILL");
}

/// Reports what it is told of the last crash.
const TELLS: &str = r#"
#include "immortal_monitor.h"
#include <stdio.h>
#include <string.h>
static im_str text(const char *text) { im_str str = {(const uint8_t *)text, strlen(text)}; return str; }
static void *create(const im_host *host, const im_opt *options, size_t count) {
    (void)options; (void)count;
    const im_crash *crash = host->get_extension(host->ctx, IM_EXTENSION_CRASH);
    char told[200] = "none";
    if (crash && crash->size >= sizeof(im_crash))
        snprintf(told, sizeof told, "%s, pid %d, signal %d, %u in a row, in %.*s of %.*s",
            crash->role == IM_ROLE_PUMP ? "pump" : "daemon", crash->pid, crash->signal, crash->count,
            (int)crash->hook.len, (const char *)crash->hook.data,
            (int)crash->monitor.len, (const char *)crash->monitor.data);
    host->report(host->ctx, text("crash"), text(told));
    static int instance;
    return host->get_extension(host->ctx, "immortal.crash/2") ? NULL : &instance;
}
static void destroy(void *instance) { (void)instance; }
const im_monitor immortal_monitor_v1 = {
    .magic = IM_MAGIC, .abi = IM_ABI, .size = sizeof(im_monitor),
    .name = "tells", .version = "1", .about = "tells of the last crash", .create = create, .destroy = destroy,
};
"#;

#[test]
fn a_monitor_in_c_is_told_as_well() {
    let sandbox = Sandbox::new();
    let library = CLibrary::new(TELLS).build(&sandbox, "tells");
    let group = sandbox
        .launch("daemon")
        .arg("--monitor")
        .arg(library)
        .recorder()
        .set("when", "stdout")
        .set("how", "segv")
        .set("times", "1")
        .puppet(["wait-file=go", "out=hello", "hang"])
        .start();
    assert_eq!(group.status()["reports"]["tells"]["crash"], "none");
    sandbox.file("go", "", 0o600);
    wait_for_crash(&group, 1);
    let pump = group.started.of(Role::Monitor);
    let expected = format!("pump, pid {pump}, signal 11, 1 in a row, in stdout of recorder");
    assert_eq!(group.status()["reports"]["tells"]["crash"], json!(expected));
}

#[test]
fn status_shows_a_crash_in_one_line() {
    let sandbox = Sandbox::new();
    let (group, crash) = crashed(&sandbox, "segv", "respawn");
    let shown = group.command("status").out();
    let expected = format!(
        "last_crash        {}, pump {}, signal SEGV, in stdout of recorder, 1 in a row: fixture segv in stdout\n",
        crash["at"].as_str().expect("a time"),
        crash["pid"],
    );
    assert!(shown.contains(&expected), "{expected} in {shown}");
}

#[test]
fn a_group_that_was_given_up_shows_its_last_crash_until_it_is_removed() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("daemon")
        .recorder()
        .set("when", "respawn")
        .set("how", "abort")
        .args(["--max-restarts", "1", "--stable", "1h", "--backoff", "0ms", "--backoff-max", "0ms"])
        .puppet(["hang"])
        .start();
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    let crash = group.wait_state("failed")["last_crash"].clone();
    assert_eq!(
        (&crash["hook"], &crash["signal"], &crash["in_a_row"]),
        (&json!("respawn"), &json!("ABRT"), &json!(2))
    );
    group.stop();
    sandbox.assert_nothing_left();
}

#[test]
fn an_unattached_pump_that_was_killed_left_its_stderr() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("unattached")
        .recorder()
        .set("stderr", "a word")
        .set("when", "stdout")
        .set("how", "segv")
        .puppet(["wait-file=go", "out=hello", "hang"])
        .start();
    assert_eq!(group.status()["last_crash"], Value::Null);
    sandbox.file("go", "", 0o600);
    let crash = group.wait_state("failed")["last_crash"].clone();
    let pending = json!({"stream": "stdout", "offset": 0, "bytes": 6});
    let expected = json!({
        "at": null, "role": "pump", "pid": null, "code": null, "signal": null, "monitor": "recorder",
        "hook": "stdout", "by_hook": null, "offsets": {"stdout": 0, "stderr": 0}, "pending": pending,
        "in_a_row": 1, "stderr": "a word\nfixture segv in stdout\n",
    });
    assert_eq!(settled(crash, group.started.monitor), expected);
}

#[test]
fn nobody_knows_when_an_unattached_pump_without_a_word_was_killed() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("unattached").recorder().puppet(["hang"]).start();
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    let crash = group.wait_state("failed")["last_crash"].clone();
    assert_eq!((&crash["at"], &crash["stderr"]), (&Value::Null, &json!("")));
    let shown = group.command("status").out();
    let line = format!("last_crash        pump {}, 1 in a row\n", group.started.of(Role::Monitor));
    assert!(shown.contains(&line), "{shown}");
}

#[test]
fn an_unattached_pump_notes_its_own_failure() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("unattached")
        .recorder()
        .set("when", "exit")
        .set("how", "error")
        .puppet(["out=hello", "hang"])
        .start();
    group.wait_hook("stdout", 0);
    group.member(Role::Process).signal(Signal::SIGKILL);
    let crash = group.wait_state("failed")["last_crash"].clone();
    let expected = json!({
        "at": null, "role": "pump", "pid": null, "code": 125, "signal": null, "monitor": "recorder",
        "hook": "exit", "by_hook": true, "offsets": {"stdout": 6, "stderr": 0}, "pending": null,
        "in_a_row": 1, "stderr": "monitor recorder: exit: fixture error in exit\n",
    });
    assert_eq!(settled(crash, group.started.monitor), expected);
    group.stop();
    sandbox.assert_nothing_left();
}

#[test]
fn a_group_that_gave_up_on_its_process_has_not_crashed() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let group = sandbox
            .launch(strategy)
            .recorder()
            .args(["--max-restarts", "1", "--backoff", "0ms", "--backoff-max", "0ms"])
            .puppet(["exit=3"])
            .start();
        assert_eq!(group.wait_state("failed")["last_crash"], Value::Null, "{strategy}");
    }
}
