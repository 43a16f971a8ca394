//! `--on-crash keep`: what monitors are told of it, what the process and the roles keep through it, and where it is
//! refused.
#![cfg(target_os = "linux")]

use immortal_tests::{
    CLibrary, Group, Kills, Launch, Process, Record, Role, Sandbox, Signal, artifacts, eventually,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn keeping(sandbox: &Sandbox) -> Launch<'_> {
    sandbox.launch("daemon").recorder().keep()
}

#[track_caller]
fn wait_stdout(group: &Group<'_>, bytes: &[u8]) -> Vec<Record> {
    let what = format!("{:?} on stdout", String::from_utf8_lossy(bytes));
    group.wait_records(&what, |records| Record::stream(records, "stdout") == bytes)
}

/// Kills a role and returns the `setup` of the pump that comes next.
#[track_caller]
fn setup_after(group: &Group<'_>, role: Role) -> Record {
    let setups = group.records().iter().filter(|record| record.hook() == "setup").count();
    group.member(role).signal(Signal::SIGKILL);
    group.wait_hook("setup", setups)
}

#[test]
fn the_next_pump_is_told_that_the_process_was_kept() {
    let sandbox = Sandbox::new();
    let steps = ["out=hello", "err=oops", "wait-file=go", "out=more", "hang"];
    let group = keeping(&sandbox).puppet(steps).start();
    wait_stdout(&group, b"hello\n");
    group.wait_hook("stderr", 0);
    let first = group.wait_hook("setup", 0);
    assert_eq!(
        (first.text("why"), &first.0["kept"], &first.0["process"]),
        ("pump start", &json!(false), &Value::Null)
    );
    for (role, why) in [
        (Role::Monitor, "pump restart"),
        (Role::Daemon, "daemon restart"),
        (Role::Monitor, "pump restart"),
        (Role::Daemon, "daemon restart"),
    ] {
        let setup = setup_after(&group, role);
        assert_eq!(setup.text("why"), why, "{setup:#?}");
        assert_eq!(setup.0["kept"], true, "{setup:#?}");
        assert_eq!(setup.number("process"), i64::from(group.started.of(Role::Process)), "{setup:#?}");
        assert_eq!(setup.text("message"), "", "{setup:#?}");
        assert_eq!(setup.0["first_offset"], json!([6, 5]), "{setup:#?}");
        group.wait_running("again", |pids| pids.process == group.started.process);
    }
    sandbox.file("go", "", 0o600);
    let records = wait_stdout(&group, b"hello\nmore\n");
    let order: Vec<String> = Record::order(&records)
        .into_iter()
        .filter(|hook| !["new", "stderr"].contains(&hook.as_str()))
        .collect();
    let expected = ["check", "setup", "spawn", "stdout", "setup", "stdout"];
    let mut joined = order.clone();
    joined.dedup();
    assert_eq!(joined, expected, "no `spawn` or `respawn` for a process that did not restart");
}

#[test]
fn the_dead_pumps_last_words_reach_the_next_one() {
    let sandbox = Sandbox::new();
    let group = keeping(&sandbox)
        .set("when", "stdout")
        .set("how", "panic")
        .set("times", "1")
        .puppet(["wait-file=go", "out=hello", "hang"])
        .start();
    sandbox.file("go", "", 0o600);
    let setup = group.wait_hook("setup", 1);
    assert!(setup.text("message").contains("fixture panic"), "{setup:#?}");
    assert_eq!((setup.text("why"), &setup.0["kept"]), ("pump restart", &json!(true)));
    // What it died of was not acknowledged.
    let again = group.wait_hook("stdout", 1);
    assert_eq!(
        (again.text("data"), &again.0["redelivered"], again.number("offset")),
        ("hello\n", &json!(true), 0)
    );
    assert_eq!(group.wait_running("again", |_| true).process, group.started.process);
}

#[test]
fn the_counts_of_restarts_tell_who_was_replaced() {
    let sandbox = Sandbox::new();
    let group = keeping(&sandbox).puppet(["hang"]).start();
    let mut kills = Kills::new(&group, 20);
    kills.kill_times(5);
    kills.settle();
    let status = group.status();
    let counts = ["restarts", "monitor_restarts", "daemon_restarts"].map(|key| status[key].clone());
    // The successor of a daemon was the pump, which got a successor of its own.
    assert_eq!(counts, [json!(0), json!(5), json!(2)], "{status:#}");
    assert_eq!(status["last_exit"], Value::Null);
}

#[test]
fn a_daemon_is_succeeded_by_its_pump_in_place() {
    let sandbox = Sandbox::new();
    let group = keeping(&sandbox).puppet(["hang"]).start();
    group.member(Role::Daemon).signal(Signal::SIGKILL);
    let new = group.wait_running("with a new pump", |pids| pids.monitor != group.started.monitor);
    assert_eq!((new.daemon, new.process), (group.started.monitor, group.started.process));
    let command = Process::find(new.of(Role::Daemon)).expect("the daemon").command_line();
    assert_eq!(command, "immortal daemon group");
    assert_eq!(sandbox.processes().len(), 3);
}

/// The chunks that one monitor was given, as offset and text.
fn chunks(records: &[Record], label: &str) -> Vec<(i64, String)> {
    let of_label = |record: &&Record| record.hook() == "stdout" && record.text("label") == label;
    records
        .iter()
        .filter(of_label)
        .map(|record| (record.number("offset"), record.text("data").to_owned()))
        .collect()
}

#[test]
fn bytes_are_given_again_only_to_the_monitors_that_have_not_taken_them() {
    let sandbox = Sandbox::new();
    let record = sandbox.path("record");
    let group = sandbox
        .launch("daemon")
        .keep()
        .args(["--monitor", "before=recorder", "--monitor", "dies=recorder", "--monitor", "behind=recorder"])
        .set("record", record)
        .set("dies.when", "stdout")
        .set("dies.how", "segv")
        .set("dies.times", "1")
        .puppet(["wait-file=go", "out=hello", "wait-file=on", "out=more", "hang"])
        .start();
    sandbox.file("go", "", 0o600);
    group.wait_records("all have it", |records| chunks(records, "behind").len() == 1);
    sandbox.file("on", "", 0o600);
    let records = group.wait_records("all have the rest", |records| chunks(records, "behind").len() == 2);
    let (hello, more) = ((0, "hello\n".to_owned()), (6, "more\n".to_owned()));
    assert_eq!(chunks(&records, "before"), [hello.clone(), more.clone()], "it had returned");
    assert_eq!(chunks(&records, "dies"), [hello.clone(), hello.clone(), more.clone()]);
    assert_eq!(chunks(&records, "behind"), [hello, more], "its turn had not come");
}

/// What the system says of a role: environment, working directory, masks, users and limits.
fn settings(process: Process) -> Vec<String> {
    let of_process = |name: &str| format!("/proc/{}/{name}", process.pid);
    let status = std::fs::read_to_string(of_process("status")).expect("it runs");
    let values = |keys: &[&str]| -> Vec<(String, String)> {
        let pairs = status.lines().filter_map(|line| line.split_once(":\t"));
        let wanted = pairs.filter(|(key, _)| keys.contains(key));
        wanted.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    };
    let mut lines: Vec<String> = values(&["Umask", "Uid", "Gid", "Groups", "NoNewPrivs"])
        .into_iter()
        .map(|(key, value)| format!("{key} {value}"))
        .collect();
    for (key, value) in values(&["SigBlk", "SigIgn", "SigCgt"]) {
        // 32 and 33 are the C library's own, and change with the first thread.
        let signals = u64::from_str_radix(&value, 16).expect("hexadecimal") & 0x7fff_ffff;
        lines.push(format!("{key} {signals:08x}"));
    }
    lines.push(String::from_utf8_lossy(&process.environment()).replace('\0', "\n"));
    lines.push(std::fs::read_link(of_process("cwd")).expect("it has one").to_string_lossy().into_owned());
    lines.push(std::fs::read_to_string(of_process("limits")).expect("it runs"));
    let standard = process.descriptors().into_iter().take_while(|(number, _)| *number < 2);
    lines.push(format!("{:?}", standard.collect::<Vec<_>>()));
    lines
}

/// The descriptors of a role that has nothing to do: some are open for a moment only, and a new one has few.
fn descriptors(pid: i32) -> Vec<i32> {
    let look = || -> Vec<i32> {
        let process = Process::find(pid).expect("the role runs");
        process.descriptors().into_iter().map(|(number, _)| number).collect()
    };
    let mut before = look();
    let mut since = Instant::now();
    eventually("descriptors that stay as they are", || {
        let now = look();
        if now != before {
            (before, since) = (now, Instant::now());
        }
        (since.elapsed() > Duration::from_millis(300)).then(|| before.clone())
    })
}

#[test]
fn fifty_kills_change_nothing_of_the_roles_and_the_process() {
    let sandbox = Sandbox::new();
    // The masks and limits are the test's own otherwise.
    let script = "umask 027; ulimit -n 700; ulimit -c 0; ulimit -S -f 100000; exec \"$@\"";
    let immortal = artifacts().immortal();
    let started = sandbox
        .invocation("/bin/sh")
        .args(["-c", script, "sh"])
        .arg(immortal)
        .args(["start", "--name", "group", "--strategy", "daemon", "--monitor", "recorder", "--option"])
        .arg(format!("record={}", sandbox.text_path("record")))
        .args(["--on-crash", "keep", "--backoff", "0ms", "--backoff-max", "0ms", "--cwd", "/usr"])
        .args(["--env", "COLOUR=green"])
        .arg(artifacts().puppet())
        .arg(format!("dump={}", sandbox.text_path("first")))
        .arg("hang")
        .run();
    started.assert_code(0);
    let group = Group::find(&sandbox, "group");
    eventually("the process has said what it was given", || sandbox.path("first").exists().then_some(()));
    let unit = group.command("unit").out();
    for option in ["--umask", "--rlimit"] {
        assert!(!unit.contains(option), "{option} was not given: {unit}");
    }
    let process = group.member(Role::Process);
    let of_process = settings(process);
    let roles = [Role::Monitor, Role::Daemon];
    let of_roles = roles.map(|role| settings(group.member(role)));
    let mut kills = Kills::new(&group, 21);
    // The first successors hold a pidfd of the process, which the first pump had opened itself.
    kills.kill_times(2);
    let pids = kills.settle();
    group.wait_running("again", |_| true);
    let open = roles.map(|role| descriptors(pids.of(role)));
    kills.kill_times(50);
    let pids = kills.settle();
    group.wait_running(&format!("again after {kills}"), |_| true);
    for (at, role) in roles.into_iter().enumerate() {
        let now = Process::find(pids.of(role)).expect("it runs");
        assert_eq!(settings(now), of_roles[at], "{role:?} after {kills}");
        assert_eq!(descriptors(now.pid), open[at], "descriptors of {role:?} after {kills}");
    }
    assert_eq!(settings(process), of_process, "the process after {kills}");
    assert_eq!(process.descriptors().into_iter().map(|(number, _)| number).collect::<Vec<_>>(), [0, 1, 2]);
    // The next process finds what the first one has found.
    std::fs::rename(sandbox.path("first"), sandbox.path("before")).expect("it is there");
    group.command("restart").assert_code(0);
    eventually("the next process has said it", || sandbox.path("first").exists().then_some(()));
    let given = |name: &str| -> Vec<String> {
        let text = std::fs::read_to_string(sandbox.path(name)).expect("it was written");
        let own = ["pid ", "ppid ", "pgid ", "sid "];
        text.lines().filter(|line| own.iter().all(|key| !line.starts_with(key))).map(str::to_owned).collect()
    };
    assert_eq!(given("first"), given("before"));
    assert!(given("first").contains(&"env COLOUR=green".to_owned()), "{:#?}", given("first"));
    assert!(given("first").contains(&"cwd /usr".to_owned()), "{:#?}", given("first"));
    assert_eq!(settings(group.member(Role::Process)), of_process);
}

#[test]
fn the_process_has_its_three_descriptors_and_leads_its_session() {
    let sandbox = Sandbox::new();
    let group = keeping(&sandbox).puppet(["dump=given", "hang"]).start();
    let text =
        eventually("it has said what it was given", || std::fs::read_to_string(sandbox.path("given")).ok());
    let lines = |key: &str| -> Vec<&str> { text.lines().filter_map(|line| line.strip_prefix(key)).collect() };
    let numbers: Vec<&str> = lines("fd ").iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(numbers, ["0", "1", "2"], "{text}");
    let pid = group.started.of(Role::Process).to_string();
    assert_eq!((lines("pgid "), lines("sid ")), (vec![&*pid], vec![&*pid]), "{text}");
}

#[test]
fn a_low_limit_of_file_sizes_is_the_process_own() {
    let sandbox = Sandbox::new();
    let size = |process: Process| {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.pid)).expect("it runs");
        limits.lines().find(|line| line.starts_with("Max file size")).map(str::to_owned)
    };
    let started = sandbox
        .invocation("/bin/sh")
        .args(["-c", "ulimit -S -f 100; exec \"$@\"", "sh"])
        .arg(artifacts().immortal())
        .args(["start", "--name", "group", "--strategy", "daemon", "--on-crash", "keep"])
        .args(["--option", "output:=null"])
        .arg(artifacts().puppet())
        .args(["pattern-out=1000000", "pattern-err=1000000", "touch=done", "hang"])
        .run();
    started.assert_code(0);
    let group = Group::find(&sandbox, "group");
    eventually("everything is taken", || sandbox.path("done").exists().then_some(()));
    let first = size(group.member(Role::Process)).expect("the kernel tells it");
    assert!(first.contains("51200"), "{first}");
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    group.wait_running("again", |pids| pids.monitor != group.started.monitor);
    group.command("restart").assert_code(0);
    assert_eq!(size(group.member(Role::Process)), Some(first));
}

#[test]
fn a_hard_limit_of_file_sizes_that_is_too_low_is_refused() {
    let sandbox = Sandbox::new();
    let refused = sandbox
        .invocation("/bin/sh")
        .args(["-c", "ulimit -f 100; exec \"$@\"", "sh"])
        .arg(artifacts().immortal())
        .args(["start", "--name", "group", "--strategy", "daemon", "--on-crash", "keep"])
        .args(["--option", "output:=null"])
        .arg(artifacts().puppet())
        .args(["note=ran", "hang"])
        .run();
    let error = refused.assert_refused(125);
    assert!(
        error.contains("--on-crash keep") && error.contains("51200") && error.contains("ulimit -f"),
        "{error}"
    );
    assert!(sandbox.noted("ran").is_empty());
    sandbox.assert_nothing_left();
}

#[test]
fn strategies_without_a_daemon_are_refused() {
    for strategy in ["unattached", "development"] {
        for command in ["start", "check"] {
            let sandbox = Sandbox::new();
            let launch =
                sandbox.launch(strategy).recorder().args(["--on-crash", "keep"]).puppet(["note=ran", "hang"]);
            let error = launch.invocation(command).run().assert_refused(2);
            assert!(
                error.contains("--on-crash keep") && error.contains("daemon"),
                "{command} {strategy}: {error}"
            );
            assert!(sandbox.noted("ran").is_empty());
            sandbox.assert_nothing_left();
        }
    }
}

/// How often the roles have gone to sleep so far.
fn sleeps(roles: &[i32]) -> Vec<String> {
    let threads = roles.iter().flat_map(|pid| {
        let listing = std::fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
        listing.map(|thread| thread.expect("a thread").path().join("status"))
    });
    let counts = threads.map(|status| {
        let text = std::fs::read_to_string(status).expect("a thread's status");
        text.lines().filter(|line| line.contains("ctxt_switches")).collect()
    });
    counts.collect()
}

#[test]
fn roles_that_took_a_process_over_do_not_wake_up_while_it_is_idle() {
    let sandbox = Sandbox::new();
    let group = keeping(&sandbox).puppet(["out=hello", "hang"]).start();
    let mut kills = Kills::new(&group, 22);
    kills.kill_times(4);
    let pids = kills.settle();
    group.wait_running("again", |_| true);
    let roles = [pids.of(Role::Monitor), pids.of(Role::Daemon)];
    // Nobody may look at it meanwhile: not even `status`.
    let mut before = sleeps(&roles);
    let mut since = Instant::now();
    eventually("a second of sleep", || {
        let now = sleeps(&roles);
        if now != before {
            (before, since) = (now, Instant::now());
        }
        (since.elapsed() > Duration::from_secs(1)).then_some(())
    });
    assert_eq!(before.len(), 3, "a daemon and the two threads of a pump");
}

#[test]
fn fifty_groups_whose_pumps_are_killed_at_once_keep_their_processes() {
    let sandbox = Sandbox::new();
    let groups: Vec<Group<'_>> = (0..50)
        .map(|number| {
            sandbox
                .launch("daemon")
                .name(&format!("group{number}"))
                .set("output", sandbox.path(format!("log{number}")))
                .keep()
                .puppet(["block=TERM", "out=hello", "wait-signal=TERM", "out=bye", "exit=0"])
                .start()
        })
        .collect();
    let pumps: Vec<Process> =
        groups.iter().filter_map(|group| Process::find(group.started.of(Role::Monitor))).collect();
    assert_eq!(pumps.len(), 50);
    pumps.iter().for_each(|pump| pump.signal(Signal::SIGKILL));
    let listed = || -> Vec<Value> {
        let list = sandbox.immortal(["list", "--json"]).run();
        list.assert_code(0);
        list.json().as_array().expect("a list").clone()
    };
    let again = eventually("all run with another pump", || {
        let all = listed();
        let replaced = |one: &Value| {
            let pump = one["pids"]["monitor"].as_i64().unwrap_or(0);
            one["state"] == "running" && pump > 0 && pumps.iter().all(|old| i64::from(old.pid) != pump)
        };
        (all.len() == 50 && all.iter().all(replaced)).then_some(all)
    });
    for group in &groups {
        let now = again.iter().find(|one| one["name"] == group.name.as_str()).expect("it is listed");
        assert_eq!(now["pids"]["process"], group.started.of(Role::Process), "{now}");
        assert_eq!(now["pids"]["daemon"], group.started.of(Role::Daemon), "{now}");
    }
    sandbox.immortal(["stop", "--all"]).run().assert_code(0);
    for number in 0..50 {
        let log = immortal_tests::LogFile::read(&sandbox.path(format!("log{number}")));
        assert_eq!(log.output_text(), "hello\ngot TERM\nbye\n", "group{number}");
    }
    sandbox.assert_nothing_left();
}

/// Opens and closes files all the time, in a thread of its own, and leaves them open over an exec.
const OPENER: &str = r#"
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>
static void *open_and_close(void *nothing) {
    for (;;) {
        int files[8];
        for (int i = 0; i < 8; i++) files[i] = open("/dev/zero", O_RDONLY);
        for (int i = 0; i < 8; i++) close(files[i]);
    }
    return nothing;
}
static int32_t setup(void *self, const im_setup *args) {
    pthread_t thread;
    (void)self; (void)args;
    pthread_create(&thread, 0, open_and_close, 0);
    return IM_OK;
}
#define MORE .setup = setup,
"#;

#[test]
fn a_daemon_has_none_of_the_files_that_monitors_opened_while_their_pump_became_it() {
    let sandbox = Sandbox::new();
    let library = CLibrary::quiet(OPENER).arg("-pthread").build(&sandbox, "opener");
    let pauses = ["--backoff", "0ms", "--backoff-max", "0ms"];
    let launch = sandbox.launch("daemon").arg("--monitor").arg(&library).args(["--on-crash", "keep"]);
    let group = launch.args(pauses).puppet(["hang"]).start();
    for round in 0..8 {
        let old = group.pids();
        group.member(Role::Daemon).signal(Signal::SIGKILL);
        let new =
            group.wait_running("again", |pids| pids.daemon != old.daemon && pids.monitor != old.monitor);
        assert_eq!((new.process, new.daemon), (old.process, old.monitor), "round {round}");
        let daemon = Process::find(new.of(Role::Daemon)).expect("the daemon");
        let files: Vec<_> = daemon.descriptors().into_iter().filter(|(_, to)| to == "/dev/zero").collect();
        assert!(files.is_empty(), "round {round}: {files:?}");
    }
}

/// In a mount namespace of its own a directory can be so small.
#[test]
fn a_full_runtime_directory_costs_logs_and_nothing_else() {
    let possible = std::process::Command::new("unshare").args(["--mount", "true"]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no mount namespace can be made here");
        return;
    }
    let sandbox = Sandbox::new();
    let log = sandbox.path("log");
    let script = r#"
        mkdir -p -m 700 "$IMMORTAL_RUNTIME_DIR"
        mount -t tmpfs -o size=$((32 * $(getconf PAGESIZE))),mode=700 none "$IMMORTAL_RUNTIME_DIR" || exit 90
        "$I" start --name group --strategy daemon --on-crash keep --option "output=$LOG" \
            sh -c 'seq 1 100000; exec sleep 100000' || exit 91
        for look in $(seq 1 600); do
            [ "$(tail -n 1 "$LOG")" = 100000 ] && break
            sleep 0.05
        done
        "$I" status group --json
        "$I" stop group
    "#;
    let run = sandbox
        .invocation("unshare")
        .args(["--mount", "/bin/sh", "-c", script])
        .env("I", artifacts().immortal())
        .env("LOG", &log)
        .run();
    run.assert_code(0);
    assert!(run.out().contains("\"monitor_restarts\":0"), "no pump died of it: {run}");
    let text = std::fs::read_to_string(&log).expect("the log");
    let numbers = text.lines().filter(|line| !line.starts_with("==="));
    assert!(numbers.eq((1..=100_000).map(|number| number.to_string())), "a line is missing or doubled");
    sandbox.assert_nothing_left();
}
