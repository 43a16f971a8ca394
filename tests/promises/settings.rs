//! What the process may be and have: user, groups, limits, mask, priority, variables of a file. What cannot be is
//! refused before anything starts.

#[cfg(target_os = "linux")]
use immortal_tests::{CLibrary, Process, start_events};
use immortal_tests::{Group, Role, Sandbox, Signal, artifacts, eventually};
use std::collections::BTreeMap;
use std::path::Path;

/// Says on stdout what the process is and has.
const SELF_PORTRAIT: &str = "echo uid=$(id -u); echo gid=$(id -g); echo groups=$(id -G); echo umask=$(umask); \
     echo nofile=$(ulimit -Sn):$(ulimit -Hn); echo core=$(ulimit -Sc):$(ulimit -Hc); echo nice=$(nice); \
     echo A=$A; echo B=$B; echo C=$C; echo end; exec sleep 100000";

/// The facts of the last portrait in the log.
fn portrait(group: &Group<'_>, number: usize) -> BTreeMap<String, String> {
    let log = group.wait_log("the portrait", |log| log.output_text().matches("end\n").count() > number);
    let text = log.output_text();
    let last = text.split("end\n").nth(number).expect("it is there");
    last.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn sitting<'a>(sandbox: &'a Sandbox, strategy: &str, options: &[&str]) -> Group<'a> {
    sandbox.launch(strategy).log().args(options).program(["/bin/sh", "-c", SELF_PORTRAIT]).start()
}

fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program).args(arguments).output().expect("it can be run");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Whether this is root, who alone can give a process to somebody else.
fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        #[expect(clippy::print_stderr, reason = "a test that looked at nothing says so")]
        {
            eprintln!("skipped: only root can run a program as somebody else");
        }
    }
    is_root
}

#[cfg(target_os = "linux")]
fn user_of(process: Process) -> String {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).expect("it runs");
    status.lines().find(|line| line.starts_with("Uid:")).expect("the kernel tells it").to_owned()
}

#[test]
fn a_process_runs_as_nobody_with_nobodys_groups() {
    if !is_root() {
        return;
    }
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let group = sitting(&sandbox, strategy, &["--user", "nobody"]);
        let seen = portrait(&group, 0);
        for (key, option) in [("uid", "-u"), ("gid", "-g"), ("groups", "-G")] {
            assert_eq!(seen[key], output_of("id", &[option, "nobody"]), "{strategy}: {seen:?}");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn monitor_and_daemon_stay_who_they_are_and_the_next_process_is_nobody_too() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let group = sitting(&sandbox, "daemon", &["--user", "nobody", "--stable", "0ms"]);
    let nobody = output_of("id", &["-u", "nobody"]);
    let mut old = group.started;
    let roles: [(Role, &[Role]); 3] = [
        (Role::Process, &[Role::Process]),
        (Role::Monitor, &[Role::Process, Role::Monitor]),
        (Role::Daemon, &[Role::Process, Role::Monitor, Role::Daemon]),
    ];
    for (number, (role, renewed)) in roles.into_iter().enumerate() {
        assert_eq!(portrait(&group, number)["uid"], nobody);
        for own in [Role::Monitor, Role::Daemon] {
            assert_eq!(user_of(group.member(own)), "Uid:\t0\t0\t0\t0", "{own:?}");
        }
        group.member(role).signal(Signal::SIGKILL);
        old = group.wait_renewed(old, renewed);
    }
    assert_eq!(portrait(&group, 3)["uid"], nobody);
    group.stop();
}

#[cfg(target_os = "linux")]
#[test]
fn a_process_of_another_user_goes_with_its_pump() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    // The signal that tells it is lost at a change of user, unless it is asked for afterwards.
    let group = sitting(&sandbox, "unattached", &["--user", "nobody"]);
    portrait(&group, 0);
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    group.wait_state("failed");
    eventually("the process is gone", || sandbox.processes().is_empty().then_some(()));
}

#[test]
fn dev_stdout_and_dev_stderr_can_be_opened_by_the_user() {
    if !is_root() {
        return;
    }
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let script = "echo hello >/dev/stdout; echo there >/dev/stderr; echo hidden 2>&1 >/dev/fd/1; exec sleep 100000";
        let group = sandbox
            .launch(strategy)
            .log()
            .args(["--user", "nobody"])
            .program(["/bin/sh", "-c", script])
            .start();
        group.wait_log("all of it", |log| {
            let text = log.output_text();
            ["hello\n", "there\n", "hidden\n"].iter().all(|line| text.contains(line))
                && !text.contains("denied")
        });
    }
}

#[test]
fn a_group_alone_and_numbers_are_taken_too() {
    if !is_root() {
        return;
    }
    let cases: [(&[&str], &str, &str, &str); 4] = [
        (&["--group", "daemon"], "0", "1", ""),
        (&["--user", "nobody", "--group", "daemon"], "65534", "1", ""),
        (&["--user", "54321"], "54321", "54321", "54321"),
        (&["--user", "54321", "--group", "54322"], "54321", "54322", "54322"),
    ];
    for (options, uid, gid, groups) in cases {
        if cfg!(not(target_os = "linux")) && uid == "65534" {
            continue;
        }
        let sandbox = Sandbox::new();
        let seen = portrait(&sitting(&sandbox, "unattached", options), 0);
        assert_eq!((seen["uid"].as_str(), seen["gid"].as_str()), (uid, gid), "{options:?}");
        assert!(groups.is_empty() || seen["groups"] == groups, "{options:?}: {seen:?}");
        assert!(seen["groups"].split(' ').any(|group| group == gid), "{options:?}: {seen:?}");
    }
}

#[test]
fn umask_limits_and_priority_are_what_was_asked_for_each_time() {
    let sandbox = Sandbox::new();
    let options = [
        "--umask",
        "027",
        "--rlimit",
        "nofile=100:200",
        "--rlimit",
        "core=0",
        "--nice",
        "7",
        "--stable",
        "0ms",
    ];
    let group = sitting(&sandbox, "daemon", &options);
    let mut old = group.started;
    for number in 0..3 {
        let seen = portrait(&group, number);
        assert!(["0027", "027"].contains(&seen["umask"].as_str()), "{seen:?}");
        assert_eq!((seen["nofile"].as_str(), seen["core"].as_str()), ("100:200", "0:0"), "{seen:?}");
        assert_eq!(seen["nice"], "7", "{seen:?}");
        let (role, renewed) = [
            (Role::Process, &[Role::Process][..]),
            (Role::Monitor, &[Role::Process, Role::Monitor]),
            (Role::Process, &[Role::Process]),
        ][number];
        group.member(role).signal(Signal::SIGKILL);
        old = group.wait_renewed(old, renewed);
    }
    let settings = group.status()["settings"].clone();
    assert_eq!((&settings["umask"], &settings["nice"]), (&"0027".into(), &7.into()));
    assert_eq!(settings["rlimits"], serde_json::json!(["nofile=100:200", "core=0:0"]));
}

#[cfg(target_os = "linux")]
#[test]
fn the_limits_of_the_process_are_not_those_of_the_roles() {
    let sandbox = Sandbox::new();
    let limits = |pid: i32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        text.lines().find(|line| line.starts_with("Max open files")).unwrap().to_owned()
    };
    let group = sitting(&sandbox, "daemon", &["--rlimit", "nofile=64"]);
    portrait(&group, 0);
    assert_ne!(limits(group.started.of(Role::Process)), limits(group.started.of(Role::Monitor)));
    assert_ne!(limits(group.started.of(Role::Process)), limits(group.started.of(Role::Daemon)));
}

/// Starts the group `group`, which keeps its process, with at most so many files open.
fn with_descriptors(sandbox: &Sandbox, most: u32, command: &str) -> immortal_tests::Outcome {
    sandbox
        .invocation("/bin/sh")
        .args(["-c", &format!("ulimit -n {most}; exec \"$@\""), "sh"])
        .arg(artifacts().immortal())
        .args([command, "--name", "group", "--strategy", "daemon", "--on-crash", "keep"])
        .args(["--option", "output:=null"])
        .arg(artifacts().puppet())
        .args(["note=ran", "hang"])
        .run()
}

#[test]
fn too_few_descriptors_are_refused() {
    let sandbox = Sandbox::new();
    for most in [8, 35, 48, 63] {
        for command in ["start", "check"] {
            let error = with_descriptors(&sandbox, most, command).assert_refused(125);
            assert!(error.contains(&format!("no more than {most} files")), "{error}");
            assert!(error.contains("ulimit -n"), "{error}");
        }
    }
    assert!(sandbox.noted("ran").is_empty());
    sandbox.assert_nothing_left();
}

#[cfg(target_os = "linux")]
#[test]
fn with_just_enough_descriptors_roles_are_restored_and_monitors_replaced() {
    let sandbox = Sandbox::new();
    with_descriptors(&sandbox, 64, "start").assert_code(0);
    let group = Group::find(&sandbox, "group");
    let process = group.started.of(Role::Process);
    for role in [Role::Monitor, Role::Daemon, Role::Monitor] {
        let old = group.pids();
        group.member(role).signal(Signal::SIGKILL);
        group.wait_running("again", |pids| pids.of(Role::Monitor) != old.of(Role::Monitor));
    }
    group.command("reload").assert_code(0);
    assert_eq!(group.pids().of(Role::Process), process);
}

#[cfg(target_os = "linux")]
#[test]
fn a_filter_that_kills_whoever_asks_the_scheduler_kills_nobody() {
    let sandbox = Sandbox::new();
    let filter = CLibrary::new(include_str!("../fixtures/filter.c")).build_program(&sandbox, "filter");
    sandbox
        .invocation(filter)
        .arg(artifacts().immortal())
        .args(["start", "--name", "group", "--strategy", "daemon", "--option", "output:=null"])
        .arg(artifacts().puppet())
        .arg("hang")
        .run()
        .assert_code(0);
    let group = Group::find(&sandbox, "group");
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    let old = group.started;
    group.wait_running("again", |pids| pids.of(Role::Monitor) != old.of(Role::Monitor));
    assert_eq!(group.pids().of(Role::Daemon), old.of(Role::Daemon));
}

/// Before Linux 5.14 a user who may have no process gets not even the first one.
#[cfg(target_os = "linux")]
#[test]
fn a_dead_process_takes_no_room_from_the_next_one() {
    let release = output_of("uname", &["-r"]);
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    if !is_root() || (numbers.next(), numbers.next()) < (Some(5), Some(14)) {
        return;
    }
    for (strategy, user) in [("unattached", "54331"), ("daemon", "54332")] {
        let sandbox = Sandbox::new();
        let options = ["--user", user, "--rlimit", "nproc=0", "--stable", "0ms"];
        let group = sandbox.launch(strategy).log().args(options).program(["/bin/sleep", "100000"]).start();
        let mut expected = start_events(&group.started);
        let mut old = group.started;
        for _ in 0..2 {
            group.member(Role::Process).signal(Signal::SIGKILL);
            old = group.wait_renewed(old, &[Role::Process]);
            expected.push("! process terminated !".into());
            expected.push(format!("! process#{} restarted !", old.of(Role::Process)));
        }
        let log = group.wait_log("the events", |log| log.events().len() >= expected.len());
        assert_eq!(log.events(), expected, "{strategy}: none was tried in vain");
    }
}

#[test]
fn an_environment_file_gives_variables_and_env_goes_before_it() {
    let sandbox = Sandbox::new();
    let text =
        "# a comment\n\n; another\nA=from the file\nB=\"in quotes = kept\"\n  C = 'x'  \nA=the last counts\n";
    let first = sandbox.file("first.env", text, 0o600);
    let second = sandbox.file("second.env", "C=second\n", 0o600);
    let files = ["--env-file", first.to_str().unwrap(), "--env-file", second.to_str().unwrap()];
    let group = sitting(&sandbox, "unattached", &files);
    let seen = portrait(&group, 0);
    assert_eq!((seen["A"].as_str(), seen["B"].as_str()), ("the last counts", "in quotes = kept"), "{seen:?}");
    assert_eq!(seen["C"], "second", "the later file counts");
    group.stop();
    let sandbox = Sandbox::new();
    // Whatever the order on the command line.
    for options in [["--env", "A=typed", files[0], files[1]], [files[0], files[1], "--env", "A=typed"]] {
        let group = sitting(&sandbox, "unattached", &options);
        assert_eq!(portrait(&group, 0)["A"], "typed", "{options:?}");
        group.stop();
        std::fs::remove_file(sandbox.path("log")).unwrap();
    }
}

#[test]
fn values_of_an_environment_file_are_not_shown() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("env", "A=xyzzy\n", 0o600);
    let group = sitting(&sandbox, "daemon", &["--env-file", file.to_str().unwrap()]);
    for arguments in [&["status", "group"][..], &["status", "group", "--json"], &["list", "--json"]] {
        let shown = sandbox.immortal(arguments).run().out();
        assert!(!shown.contains("xyzzy"), "{shown}");
    }
    for member in group.started.members() {
        assert!(!member.command_line().contains("xyzzy"), "{}", member.command_line());
    }
}

/// Refused as a usage error or as a failure, in one line that names the matter, and nothing is left.
#[track_caller]
fn assert_refused(sandbox: &Sandbox, options: &[&str], names: &str) {
    for strategy in ["unattached", "daemon", "development"] {
        for command in ["start", "check"] {
            let launch = sandbox.launch(strategy).recorder().args(options).puppet(["note=ran", "hang"]);
            let outcome = launch.invocation(command).run();
            let code = if outcome.code == Some(2) { 2 } else { 125 };
            let error = outcome.assert_refused(code);
            assert!(error.contains(names), "{options:?}: {error}");
            assert!(!outcome.err().contains("panicked"), "{outcome}");
        }
    }
    assert!(!sandbox.path("ran").exists(), "{options:?}: nothing was run");
    assert!(!sandbox.path("record").exists(), "{options:?}: no monitor was asked");
    sandbox.assert_nothing_left();
}

#[test]
fn wrong_settings_are_refused_in_one_line_before_anything_starts() {
    let sandbox = Sandbox::new();
    let cases: [(&[&str], &str); 21] = [
        (&["--user", "no-such-user"], "no-such-user"),
        (&["--user", ""], "user"),
        (&["--user", "-1"], "-1"),
        (&["--user", "4294967296"], "4294967296"),
        (&["--group", "no-such-group"], "no-such-group"),
        (&["--rlimit", "nofile"], "nofile"),
        (&["--rlimit", "nofile=many"], "nofile"),
        (&["--rlimit", "nofile=2:1"], "nofile"),
        (&["--rlimit", "nofile=-1"], "nofile"),
        (&["--rlimit", "files=10"], "files"),
        (&["--rlimit", "=10"], "rlimit"),
        (&["--nice", "20"], "20"),
        (&["--nice", "fast"], "fast"),
        (&["--umask", "0999"], "0999"),
        (&["--umask", "1000"], "1000"),
        (&["--umask", "rwx"], "rwx"),
        (&["--env-file", "missing.env"], "missing.env"),
        (&["--env-file", "."], "."),
        (&["--cwd", "missing"], "missing"),
        (&["--ready", "maybe"], "maybe"),
        (&["--ready-timeout", "5"], "5"),
    ];
    for (options, names) in cases {
        assert_refused(&sandbox, options, names);
    }
}

#[test]
fn a_limit_that_is_none_is_a_wrong_command_line() {
    let sandbox = Sandbox::new();
    for limit in ["nofile", "nofile=many", "nofile=2:1", "files=10"] {
        let launch = sandbox.launch("unattached").recorder().args(["--rlimit", limit]);
        launch.puppet(["hang"]).run().assert_refused(2);
    }
    sandbox.assert_nothing_left();
}

/// Root may not have so many either: the system says so when the limit is set.
#[cfg(target_os = "linux")]
#[test]
fn a_limit_that_cannot_be_set_is_named() {
    let sandbox = Sandbox::new();
    for strategy in ["unattached", "daemon", "development"] {
        let launch = sandbox.launch(strategy).recorder().args(["--rlimit", "nofile=unlimited"]);
        let error = launch.puppet(["hang"]).run().assert_refused(125);
        assert!(error.contains("nofile=unlimited"), "{error}");
    }
    sandbox.assert_nothing_left();
}

#[test]
fn an_environment_file_with_a_bad_line_is_refused_with_its_number_and_without_its_text() {
    let sandbox = Sandbox::new();
    for (number, text) in ["A=1\n\n# comment\nxyzzy secret\n", "A=1\n\n\n=xyzzy\n"].into_iter().enumerate() {
        let file = sandbox.file(&format!("{number}.env"), text, 0o600);
        let options = ["--env-file", file.to_str().unwrap()];
        assert_refused(&sandbox, &options, "line 4");
        let refused = sandbox.launch("").recorder().args(options).puppet(["hang"]).run();
        assert!(!refused.err().contains("xyzzy"), "{refused}");
    }
    let file = sandbox.file("nul.env", b"A=1\0xyzzy\n", 0o600);
    assert_refused(&sandbox, &["--env-file", file.to_str().unwrap()], "");
}

/// Starts as somebody who is not root.
fn started_by_nobody(sandbox: &Sandbox, options: &[&str]) -> immortal_tests::Outcome {
    let prepared = sandbox.unprivileged();
    let puppet = match nix::unistd::geteuid().is_root() {
        true => sandbox.path("bin/puppet"),
        false => immortal_tests::artifacts().puppet(),
    };
    prepared
        .args(["start", "--name", "group", "--monitor", "recorder"])
        .args(options)
        .arg(puppet)
        .arg("hang")
        .run()
}

#[test]
fn who_is_not_root_can_become_nobody_else_and_raise_nothing() {
    let sandbox = Sandbox::new();
    let cases: [(&[&str], &str); 4] = [
        (&["--user", "root"], "root"),
        (&["--user", "0"], "0"),
        (&["--group", "0"], "0"),
        (&["--nice", "-5"], "-5"),
    ];
    for (options, names) in cases {
        let error = started_by_nobody(&sandbox, options).assert_refused(125);
        assert!(error.contains(names) && error.contains("root"), "{options:?}: {error}");
    }
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    if hard < 1 << 40 {
        started_by_nobody(&sandbox, &["--rlimit", "nofile=unlimited"]).assert_refused(125);
    }
    sandbox.assert_nothing_left();
}

#[test]
fn who_is_not_root_may_name_themselves_and_lower_limits() {
    let sandbox = Sandbox::new();
    let own = match nix::unistd::geteuid().is_root() {
        true => "65534".to_owned(),
        false => nix::unistd::geteuid().to_string(),
    };
    started_by_nobody(&sandbox, &["--user", &own, "--rlimit", "nofile=64", "--nice", "19", "--umask", "077"])
        .assert_code(0);
    eventually("it runs", || (sandbox.processes().len() == 2).then_some(()));
}

#[test]
fn a_program_that_the_user_may_not_execute_is_126() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    std::fs::set_permissions(sandbox.path(""), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let program = sandbox.executable(immortal_tests::artifacts().puppet(), "program");
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    for strategy in ["unattached", "daemon", "development"] {
        let refused = sandbox
            .launch(strategy)
            .recorder()
            .args(["--user", "nobody"])
            .program([program.as_path(), Path::new("hang")])
            .run();
        refused.assert_refused(126);
    }
    sandbox.assert_nothing_left();
}
