//! `immortal reload`: the monitors, and immortal itself, are replaced under a process that never notices.

use immortal_tests::{
    CLibrary, Group, Launch, LogFile, Outcome, Record, Role, Running, Sandbox, Signal, artifacts, eventually,
    records,
};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

fn keep(sandbox: &Sandbox) -> Launch<'_> {
    sandbox.launch("daemon").args(["--on-crash", "keep"])
}

/// Runs `immortal reload` with these arguments behind the name.
fn reload(group: &Group<'_>, arguments: &[&str]) -> Outcome {
    group.sandbox.immortal(["reload", &group.name]).args(arguments).run()
}

/// The same, and returns while it goes on.
fn begin_reload(group: &Group<'_>, arguments: &[&str]) -> Running {
    group.sandbox.immortal(["reload", &group.name]).args(arguments).spawn()
}

/// The recorder anew, with another file for what it records.
fn other_recorder(sandbox: &Sandbox, more: &[&str]) -> Vec<String> {
    let library = artifacts().monitor("recorder");
    let mut arguments = vec!["--monitor".to_owned(), format!("recorder={}", library.display())];
    let record = format!("record={}", sandbox.text_path("other"));
    for option in std::iter::once(record.as_str()).chain(more.iter().copied()) {
        arguments.extend(["--option".to_owned(), option.to_owned()]);
    }
    arguments
}

fn words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn other_records(sandbox: &Sandbox) -> Vec<Record> {
    records(&sandbox.path("other"))
}

fn of_hook<'a>(records: &'a [Record], hook: &str) -> Vec<&'a Record> {
    records.iter().filter(|record| record.hook() == hook).collect()
}

/// Waits until the new recorder is being set up.
fn wait_trial(sandbox: &Sandbox) -> Record {
    eventually("the new monitor is set up", || {
        of_hook(&other_records(sandbox), "setup").first().copied().cloned()
    })
}

/// One error line and a hint, and nothing else.
#[track_caller]
fn assert_refused(outcome: &Outcome, code: i32, what: &str) {
    outcome.assert_code(code);
    let error = outcome.err();
    let lines: Vec<&str> = error.lines().collect();
    assert!(
        lines.len() == 2 && lines[0].starts_with("error: ") && lines[1].starts_with("hint: "),
        "{outcome}"
    );
    assert!(lines[0].contains(what), "{what:?} is not in {error}");
}

/// What is missing of the numbered lines of a process, and how many came twice.
fn lost_and_doubled(text: &str, process: i32, count: usize) -> (usize, usize) {
    let mut seen = vec![0_u32; count];
    for line in text.lines() {
        let (pid, number) = line.split_once(' ').unwrap_or_else(|| panic!("half a line: {line:?}"));
        assert_eq!(pid, process.to_string(), "of another process");
        seen[number.parse::<usize>().expect("a number")] += 1;
    }
    let doubled = seen.iter().map(|times| times.saturating_sub(1) as usize).sum();
    (seen.iter().filter(|times| **times == 0).count(), doubled)
}

/// A monitor in C that appends what it is given to a file. `broken`: how it fails.
fn probe(sandbox: &Sandbox, name: &str, broken: &str) -> PathBuf {
    let source = format!(
        r#"
        #include <fcntl.h>
        #include <unistd.h>
        #include "immortal_monitor.h"
        static const im_host *host;
        static int file = -1;
        static void fail(const im_host *h, const char *text, size_t len) {{
            im_str said = {{ (const uint8_t *)text, len }};
            h->fail(h->ctx, said);
        }}
        #define FAIL(h) (fail(h, "not today", 9), IM_FAILED)
        static int32_t check(const im_host *h, const im_opt *o, size_t n) {{
            (void)h; (void)o; (void)n;
            {check}
            return IM_OK;
        }}
        static void *create(const im_host *h, const im_opt *o, size_t n) {{
            (void)o; (void)n;
            host = h;
            file = open("{path}", O_WRONLY | O_APPEND | O_CREAT, 0600);
            return &file;
        }}
        static int32_t setup(void *self, const im_setup *s) {{
            (void)self; (void)s; (void)host;
            {setup}
            return IM_OK;
        }}
        static int32_t output(void *self, const im_output *o) {{
            (void)self;
            if (o->stream != IM_STDOUT) return IM_OK;
            return write(file, o->data.data, o->data.len) == (ssize_t)o->data.len ? IM_OK : IM_FAILED;
        }}
        static void destroy(void *self) {{ (void)self; close(file); }}
        const im_monitor immortal_monitor_v1 = {{
            .magic = IM_MAGIC, .abi = IM_ABI, .size = sizeof(im_monitor), .name = "{name}", .version = "1",
            .about = "appends", .check = check, .create = create, .setup = setup, .output = output,
            .destroy = destroy,
        }};
        "#,
        path = sandbox.text_path("probe"),
        check = if broken == "check" { "return FAIL(h);" } else { "" },
        setup = match broken {
            "setup" => "return FAIL(host);",
            "segv" => "*(volatile int *)0 = 1;",
            "never" => "return IM_PENDING;",
            _ => "",
        },
    );
    CLibrary::new(source).build(sandbox, name)
}

#[test]
fn the_monitors_are_replaced_and_the_process_never_notices() {
    let sandbox = Sandbox::new();
    let group = keep(&sandbox).log().recorder().puppet(["ticks=300:2", "hang"]).start();
    let log = format!("output={}", sandbox.text_path("log"));
    let mut arguments = vec!["--monitor".to_owned(), "log".into(), "--option".into(), format!("log.{log}")];
    arguments.extend(other_recorder(&sandbox, &[]));
    group.wait_hook("stdout", 3);
    let done = reload(&group, &words(&arguments));
    done.assert_code(0);
    assert_eq!(done.out().trim(), "reloaded group");
    let pids = group.wait_renewed(group.started, &[Role::Monitor]);
    let status = group.status();
    assert_eq!((&status["restarts"], &status["unstable"]), (&0.into(), &0.into()), "{status}");
    group.wait_log("the last line", |log| log.output_text().ends_with(" 299\n"));
    let process = pids.of(Role::Process);
    assert_eq!(lost_and_doubled(&group.log().output_text(), process, 300), (0, 0));
    // The old one ended in order, the new one knows why it is there and is told of nothing that did not happen.
    let old = group.records();
    assert_eq!(of_hook(&old, "finish").len(), 1, "{old:?}");
    let new = other_records(&sandbox);
    let setup = of_hook(&new, "setup");
    assert_eq!((setup.len(), setup[0].text("why"), setup[0].text("message")), (1, "reload", ""), "{new:?}");
    for event in ["spawn", "respawn", "exit"] {
        assert_eq!(of_hook(&new, event).len(), 0, "{event}: {new:?}");
    }
    let given = |records: &[Record]| {
        of_hook(records, "stdout").iter().map(|record| record.text("data")).collect::<String>()
    };
    let both = format!("{}{}", given(&old), given(&new));
    assert_eq!(lost_and_doubled(&both, process, 300), (0, 0), "each line to one of the two");
    group.stop();
}

#[test]
fn twenty_reloads_between_two_builds_lose_and_double_nothing_though_every_fifth_fails() {
    let sandbox = Sandbox::new();
    let builds = [probe(&sandbox, "one", ""), probe(&sandbox, "two", "")];
    let broken = ["check", "setup", "segv", "never"].map(|how| (how, probe(&sandbox, how, how)));
    let library = |path: &PathBuf| format!("probe={}", path.display());
    let log = format!("log.output={}", sandbox.text_path("log"));
    let count = 200_000;
    let group = keep(&sandbox)
        .args(["--setup-timeout", "3s", "--monitor", &library(&builds[0])])
        .log()
        .puppet([format!("ticks={count}:0"), "wait-file=go".into(), "exit=7".to_owned()])
        .args(["--restart", "never"])
        .start();
    let process = group.started.of(Role::Process);
    let mut in_force = 0;
    for number in 1..=20 {
        let fails = (number % 5 == 0).then(|| &broken[number / 5 - 1]);
        let path = fails.map_or(&builds[number % 2], |(_, path)| path);
        let monitors = ["--monitor", &library(path), "--monitor", "log", "--option", &log];
        let done = reload(&group, &monitors);
        match fails {
            None => {
                done.assert_code(0);
                in_force = number % 2;
            }
            // As at a start: the monitor's word, and its hint if it has one.
            Some(("check", _)) => {
                done.assert_code(1);
                assert_eq!(done.err(), "error: monitor probe: not today\n");
            }
            Some(("segv", _)) => {
                assert_refused(&done, 1, "monitor probe: setup: the pump was ended by SIGSEGV")
            }
            Some(("never", _)) => assert_refused(&done, 1, "within 3s (--setup-timeout)"),
            Some(_) => assert_refused(&done, 1, "monitor probe: setup: not today"),
        }
        let status = group.wait_state("running");
        let names = ["one", "two"];
        assert_eq!(status["monitors"][0]["name"], names[in_force], "after {number}: {status}");
        assert_eq!(status["pids"]["process"], process, "after {number}");
        assert_eq!(status["pids"]["daemon"], group.started.of(Role::Daemon), "after {number}");
    }
    let last = format!("{process} {}\n", count - 1);
    group.wait_log("the last line", |log| log.output().ends_with(last.as_bytes()));
    assert_eq!(lost_and_doubled(&group.log().output_text(), process, count), (0, 0));
    let probed = std::fs::read_to_string(sandbox.path("probe")).expect("the probes wrote");
    assert_eq!(lost_and_doubled(&probed, process, count), (0, 0));
    sandbox.file("go", "", 0o600);
    let status = group.wait_state("stopped");
    assert_eq!(status["last_exit"]["code"], 7, "{status}");
    group.stop();
    sandbox.assert_nothing_left();
}

#[test]
fn without_options_the_same_monitors_come_from_their_files_as_they_are_now() {
    let sandbox = Sandbox::new();
    let library = probe(&sandbox, "one", "");
    let group =
        keep(&sandbox).args(["--monitor", &format!("probe={}", library.display())]).puppet(["hang"]).start();
    assert_eq!(group.status()["monitors"][0]["name"], "one");
    std::fs::rename(probe(&sandbox, "two", ""), &library).expect("the new build in the place of the old one");
    reload(&group, &[]).assert_code(0);
    let monitor = group.status()["monitors"][0].clone();
    assert_eq!((&monitor["label"], &monitor["name"]), (&"probe".into(), &"two".into()), "{monitor}");
    group.wait_renewed(group.started, &[Role::Monitor]);
}

#[test]
fn an_option_alone_changes_that_one_and_leaves_the_others() {
    let sandbox = Sandbox::new();
    let group = keep(&sandbox)
        .log()
        .recorder()
        .set("recorder.text", "old")
        .set("recorder.secret", "@@hidden=1")
        .args(["--option", "recorder.integer:=5"])
        .puppet(["hang"])
        .start();
    let given = |nth: usize| group.wait_hook("new", nth).0["options"].clone();
    assert_eq!(given(0)["text"], "old");
    reload(&group, &["--option", "recorder.text=new"]).assert_code(0);
    let now = given(1);
    let told = (&now["text"], &now["secret"], &now["integer"]);
    assert_eq!(told, (&"new".into(), &"@hidden=1".into(), &5.into()), "{now}");
    // One that addresses nobody goes to everybody that declares it, as at a start.
    reload(&group, &["--option", "text=newer"]).assert_code(0);
    assert_eq!(given(2)["text"], "newer");
    // Those of before are gone with their monitors.
    let record = format!("record={}", sandbox.text_path("record"));
    reload(&group, &["--monitor", "recorder", "--option", &record]).assert_code(0);
    assert_eq!(given(3)["text"], serde_json::Value::Null);
    let status = group.status();
    assert_eq!(status["monitors"].as_array().map(Vec::len), Some(1), "{status}");
    assert_eq!(status["settings"]["options"]["recorder"], serde_json::json!({"record": "***"}), "{status}");
}

#[test]
fn what_check_refuses_changes_nothing() {
    let sandbox = Sandbox::new();
    let group = keep(&sandbox).recorder().puppet(["hang"]).start();
    for (arguments, code, what) in [
        (&["--option", "when=check", "--option", "how=error"][..], 1, "fixture error in check"),
        (&["--option", "nonsense=1"], 1, "nonsense"),
        (&["--monitor", "/nowhere/lib.so"], 1, "/nowhere/lib.so"),
        (&["--monitor", "log"], 1, "output"),
        (&["--monitor", "recorder", "--monitor", "recorder"], 2, "recorder"),
        (&["--option", "without a sign"], 2, "without a sign"),
    ] {
        let done = reload(&group, arguments);
        done.assert_code(code);
        let error = done.err();
        assert!(
            error.starts_with("error: ") && error.lines().next().is_some_and(|l| l.contains(what)),
            "{done}"
        );
        assert_eq!(group.pids(), group.started, "{arguments:?}");
    }
    assert_eq!(of_hook(&group.records(), "setup").len(), 1);
}

#[test]
fn a_group_that_does_not_keep_its_process_is_not_reloaded() {
    let sandbox = Sandbox::new();
    for strategy in ["daemon", "unattached"] {
        let group = sandbox.launch(strategy).name(strategy).log().puppet(["hang"]).start();
        assert_refused(&reload(&group, &[]), 1, "--on-crash keep");
        assert_eq!(group.pids(), group.started);
        group.command("stop").assert_code(0);
    }
    let unknown = sandbox.immortal(["reload", "nobody"]).run();
    assert_refused(&unknown, 1, "nobody");
}

fn asked(group: &Group<'_>, line: &str) -> serde_json::Value {
    let path = group.sandbox.runtime().join(&group.name).join("control");
    let mut stream = UnixStream::connect(path).expect("the group listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream.write_all(format!("{line}\n").as_bytes()).expect("the line is taken");
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).expect("an answer");
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

#[test]
fn a_command_of_another_format_is_refused_and_so_is_nonsense() {
    let sandbox = Sandbox::new();
    let group = keep(&sandbox).log().puppet(["hang"]).start();
    let request = |format: u32, setup: &str| {
        let reload = serde_json::json!({"format": format, "id": 7, "setup": setup});
        asked(&group, &serde_json::json!({"v": 1, "command": {"reload": reload}}).to_string())
    };
    let refused = request(999, "of a later version");
    assert_eq!(refused["ok"], false, "{refused}");
    let why = refused["error"].as_str().expect("a reason");
    assert!(why.contains("999"), "{why}");
    let own: u32 = why.split(' ').find_map(|word| word.parse().ok()).expect("the group's own format");
    for nonsense in ["", "0", "zz", "00", &"00".repeat(1000)] {
        assert_eq!(request(own, nonsense)["ok"], false, "{nonsense}");
    }
    assert_eq!(group.pids(), group.started);
    reload(&group, &[]).assert_code(0);
}

/// What the new monitors do wrong, and what the command says of it.
#[test]
fn the_old_monitors_come_back_if_the_new_ones_do_not_get_ready() {
    for (when, how, why) in [
        ("new", "error", "fixture error in new"),
        ("setup", "panic", "fixture panic"),
        ("setup", "abort", "fixture abort in setup"),
        ("setup", "segv", "fixture segv in setup"),
        ("setup", "exit0", "fixture exit0 in setup"),
        ("setup", "hang", "--setup-timeout"),
    ] {
        let sandbox = Sandbox::new();
        let group = keep(&sandbox)
            .args(["--setup-timeout", "2s"])
            .recorder()
            .puppet(["out=before", "wait-file=go", "out=after", "hang"])
            .start();
        group.wait_hook("stdout", 0);
        let more = [format!("when={when}"), format!("how={how}")];
        let arguments = other_recorder(&sandbox, &words(&more));
        assert_refused(&reload(&group, &words(&arguments)), 1, why);
        group.wait_renewed(group.started, &[Role::Monitor]);
        sandbox.file("go", "", 0o600);
        let again = group.wait_hook("setup", 1);
        assert_eq!(again.text("why"), "reload", "{again:?}");
        assert_eq!(group.wait_hook("stdout", 1).text("data"), "after\n", "{how}");
        assert_eq!(of_hook(&group.records(), "spawn").len(), 1, "{how}");
        assert_eq!(of_hook(&group.records(), "respawn").len(), 0, "{how}");
        let status = group.status();
        assert_eq!((&status["unstable"], &status["degraded"]), (&0.into(), &false.into()), "{how}: {status}");
        reload(&group, &[]).assert_code(0);
        group.stop();
    }
}

#[test]
fn the_executable_is_replaced_in_pump_and_daemon() {
    let sandbox = Sandbox::new();
    let group = keep(&sandbox).log().puppet(["ticks=100000:1"]).start();
    let process = group.started.of(Role::Process);
    std::fs::create_dir(sandbox.path("bin")).expect("a folder");
    let runs = |role: Role| {
        let pid = group.pids().of(role);
        std::fs::read_link(format!("/proc/{pid}/exe")).expect("its executable")
    };
    for name in ["bin/newer", "bin/newest"] {
        let executable = sandbox.executable(artifacts().immortal(), name);
        sandbox.invocation(&executable).args(["reload", "group"]).run().assert_code(0);
        group.wait_running("all is replaced", |pids| pids.process == group.started.process);
        assert_eq!((runs(Role::Monitor), runs(Role::Daemon)), (executable.clone(), executable.clone()));
        // Whoever is replaced from now on comes from there, also when nothing is left of it.
        std::fs::remove_file(&executable).expect("it can go");
        for role in [Role::Monitor, Role::Daemon] {
            let before = group.pids();
            group.member(role).signal(Signal::SIGKILL);
            group.wait_running("it is back", |pids| pids.get(Role::Monitor) != before.get(Role::Monitor));
            assert!(
                runs(role).starts_with(&executable) || runs(role).to_string_lossy().contains(name),
                "{role:?}"
            );
            assert_eq!(group.pids().process, group.started.process);
        }
    }
    // And back to the first one.
    reload(&group, &[]).assert_code(0);
    assert_eq!(runs(Role::Daemon), artifacts().immortal());
    assert_eq!(group.pids().of(Role::Process), process);
    group.stop();
    sandbox.assert_nothing_left();
}

#[test]
fn the_end_of_the_process_during_a_reload_is_known_and_told_once() {
    let sandbox = Sandbox::new();
    let group = keep(&sandbox)
        .args(["--restart", "never"])
        .recorder()
        .puppet(["wait-file=go", "out=last words", "exit=7"])
        .start();
    let arguments = other_recorder(&sandbox, &["ready=later:1500ms"]);
    let command = begin_reload(&group, &words(&arguments));
    wait_trial(&sandbox);
    sandbox.file("go", "", 0o600);
    command.wait().assert_code(0);
    let status = group.wait_state("stopped");
    assert_eq!((&status["last_exit"]["code"], &status["restarts"]), (&7.into(), &0.into()), "{status}");
    let told = other_records(&sandbox);
    let hooks: Vec<&str> =
        told.iter().map(Record::hook).filter(|hook| !["check", "new", "ready"].contains(hook)).collect();
    assert_eq!(hooks, ["setup", "stdout", "exit"], "{told:?}");
    assert_eq!(of_hook(&told, "exit")[0].number("code"), 7);
    assert_eq!(of_hook(&group.records(), "exit").len(), 0, "the old monitors are gone");
    // What is stopped can be reloaded as well, and started again.
    reload(&group, &[]).assert_code(0);
    assert_eq!(group.wait_state("stopped")["last_exit"]["code"], 7);
    group.command("restart").assert_code(0);
    let told = || of_hook(&other_records(&sandbox), "respawn").len();
    immortal_tests::eventually("the respawn is told", || (told() == 1).then_some(()));
    group.stop();
}

#[test]
fn a_pump_killed_while_the_new_monitors_get_ready_brings_the_old_ones_back() {
    let sandbox = Sandbox::new();
    let group = keep(&sandbox).recorder().puppet(["wait-file=go", "out=after", "hang"]).start();
    let arguments = other_recorder(&sandbox, &["ready=later:3000ms"]);
    let command = begin_reload(&group, &words(&arguments));
    let trial = wait_trial(&sandbox).pump();
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    assert_refused(&command.wait(), 1, "SIGKILL");
    let now = group.wait_renewed(group.started, &[Role::Monitor]);
    assert_ne!(now.of(Role::Monitor), trial);
    sandbox.file("go", "", 0o600);
    assert_eq!(group.wait_hook("stdout", 0).pump(), now.of(Role::Monitor));
    group.stop();
    sandbox.assert_nothing_left();
}

#[test]
fn a_daemon_killed_while_the_new_monitors_get_ready_brings_the_old_ones_back() {
    let sandbox = Sandbox::new();
    let group = keep(&sandbox).recorder().puppet(["wait-file=go", "out=after", "hang"]).start();
    let newer = sandbox.executable(artifacts().immortal(), "newer");
    let arguments = other_recorder(&sandbox, &["ready=later:3000ms"]);
    let command = sandbox.invocation(&newer).args(["reload", "group"]).args(&arguments).spawn();
    let trial = wait_trial(&sandbox).pump();
    group.member(Role::Daemon).signal(Signal::SIGKILL);
    assert_refused(&command.wait(), 1, "the daemon died meanwhile");
    let now = group.wait_renewed(group.started, &[Role::Daemon, Role::Monitor]);
    assert_eq!(now.of(Role::Daemon), trial, "the new pump has become the old daemon");
    for role in [Role::Daemon, Role::Monitor] {
        let runs = std::fs::read_link(format!("/proc/{}/exe", now.of(role))).expect("its executable");
        assert_eq!(runs, artifacts().immortal(), "{role:?}");
    }
    sandbox.file("go", "", 0o600);
    assert_eq!(group.wait_hook("stdout", 0).pump(), now.of(Role::Monitor));
    assert_eq!(group.wait_hook("setup", 1).text("why"), "daemon restart");
    assert_eq!(of_hook(&group.records(), "respawn").len(), 0);
    reload(&group, &[]).assert_code(0);
    group.stop();
    sandbox.assert_nothing_left();
}

#[test]
fn a_role_killed_while_the_old_monitors_end_leaves_one_whole_group() {
    for role in [Role::Monitor, Role::Daemon] {
        let sandbox = Sandbox::new();
        let group = keep(&sandbox)
            .recorder()
            .set("recorder.when", "finish")
            .set("recorder.how", "hang")
            .puppet(["wait-file=go", "out=after", "hang"])
            .start();
        let arguments = other_recorder(&sandbox, &[]);
        let command = begin_reload(&group, &words(&arguments));
        group.wait_hook("finish", 0);
        group.member(role).signal(Signal::SIGKILL);
        let done = command.wait();
        sandbox.file("go", "", 0o600);
        if role == Role::Monitor {
            done.assert_code(0);
            let new = eventually("its output", || {
                of_hook(&other_records(&sandbox), "stdout").first().copied().cloned()
            });
            assert_eq!(new.text("data"), "after\n");
        } else {
            assert_refused(&done, 1, "the daemon died meanwhile");
            assert_eq!(group.wait_hook("stdout", 0).text("data"), "after\n");
        }
        let now = group.wait_running("whole again", |pids| pids.monitor != group.started.monitor);
        assert_eq!(now.process, group.started.process, "{role:?}");
        group.stop();
        sandbox.assert_nothing_left();
    }
}

#[test]
fn an_old_monitor_that_hangs_at_its_end_does_not_keep_the_reload() {
    let sandbox = Sandbox::new();
    let group = keep(&sandbox)
        .recorder()
        .set("recorder.when", "stdout")
        .set("recorder.how", "hang")
        .puppet(["out=hello", "hang"])
        .start();
    group.wait_hook("stdout", 0);
    let done = reload(&group, &words(&other_recorder(&sandbox, &[])));
    done.assert_code(0);
    assert!(done.took < Duration::from_secs(15), "{:?}", done.took);
    // What it hung in was not done with: the new one gets it.
    let told = eventually("hello", || of_hook(&other_records(&sandbox), "stdout").first().copied().cloned());
    assert_eq!(told.text("data"), "hello\n");
    group.wait_renewed(group.started, &[Role::Monitor]);
}

#[test]
fn both_roles_killed_during_a_reload_leave_an_orphan_that_is_listed() {
    let sandbox = Sandbox::new();
    let group = keep(&sandbox).recorder().puppet(["hang"]).start();
    let command = begin_reload(&group, &words(&other_recorder(&sandbox, &["ready=later:3000ms"])));
    wait_trial(&sandbox);
    let (pump, daemon) = (group.member(Role::Monitor), group.member(Role::Daemon));
    for role in [pump, daemon] {
        role.signal(Signal::SIGSTOP);
    }
    for role in [pump, daemon] {
        role.signal(Signal::SIGKILL);
    }
    assert_refused(&command.wait(), 1, "ended during the reload");
    let status = group.wait_state("orphaned");
    assert_eq!(status["pids"]["process"], group.started.of(Role::Process), "{status}");
    group.stop();
}

#[test]
fn a_stop_wins_over_a_reload() {
    let sandbox = Sandbox::new();
    let group = keep(&sandbox).recorder().puppet(["hang"]).start();
    let command = begin_reload(&group, &words(&other_recorder(&sandbox, &["ready=never"])));
    wait_trial(&sandbox);
    let stopped = group.command("stop");
    stopped.assert_code(0);
    assert!(stopped.took < Duration::from_secs(15), "{stopped}");
    command.wait().assert_code(1);
    sandbox.assert_nothing_left();
}

#[test]
fn one_reload_at_a_time() {
    let sandbox = Sandbox::new();
    let group = keep(&sandbox).recorder().puppet(["hang"]).start();
    let first = begin_reload(&group, &words(&other_recorder(&sandbox, &["ready=later:1500ms"])));
    wait_trial(&sandbox);
    let second = reload(&group, &[]);
    second.assert_code(1);
    assert!(second.err().contains("another reload is under way"), "{second}");
    first.wait().assert_code(0);
    reload(&group, &[]).assert_code(0);
}

#[test]
fn a_pump_that_keeps_dying_is_helped_by_a_reload_at_once() {
    let sandbox = Sandbox::new();
    let group = keep(&sandbox)
        .args(["--backoff", "1h", "--backoff-max", "1h", "--stable", "1h"])
        .recorder()
        .set("recorder.when", "setup")
        .set("recorder.how", "error")
        .set("recorder.once_exists", sandbox.path("bad"))
        .puppet(["hang"])
        .start();
    sandbox.file("bad", "", 0o600);
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    group.wait_state("backoff");
    let done = reload(&group, &words(&other_recorder(&sandbox, &[])));
    done.assert_code(0);
    let now = group.wait_running("with the new monitor", |_| true);
    assert_eq!(now.process, group.started.process);
    assert_eq!(group.status()["unstable"], 0);
}

#[test]
fn a_monitor_that_was_set_aside_is_tried_again() {
    let sandbox = Sandbox::new();
    let group = keep(&sandbox)
        .args(["--backoff", "5ms", "--backoff-max", "5ms", "--monitor-crashes", "2"])
        .log()
        .recorder()
        .set("recorder.when", "setup")
        .set("recorder.how", "error")
        .set("recorder.once_exists", sandbox.path("bad"))
        .puppet(["ticks=100000:2"])
        .start();
    sandbox.file("bad", "", 0o600);
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    let degraded = |wanted: bool| {
        eventually("degraded or not", || group.try_status().filter(|status| status["degraded"] == wanted))
    };
    assert_eq!(degraded(true)["set_aside"], serde_json::json!(["recorder"]));
    // It is no better: the group is as it was.
    assert_refused(&reload(&group, &[]), 1, "fixture error in setup");
    group.wait_running("without it", |_| true);
    assert_eq!(degraded(true)["set_aside"], serde_json::json!(["recorder"]));
    std::fs::remove_file(sandbox.path("bad")).expect("it gets better");
    reload(&group, &[]).assert_code(0);
    assert_eq!(degraded(false)["set_aside"], serde_json::json!([]));
    let process = group.started.of(Role::Process);
    assert_eq!(group.pids().of(Role::Process), process);
    let lines = |log: &LogFile| log.output_text().lines().count();
    let count = lines(&group.log());
    let log = group.wait_log("more lines", |log| lines(log) > count);
    let text = log.output_text();
    let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    assert_eq!(lost_and_doubled(whole, process, whole.lines().count()), (0, 0));
    group.stop();
}
