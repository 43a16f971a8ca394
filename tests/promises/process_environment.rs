//! What the process is given, and what can be read by others about a group.

use immortal_tests::{Group, Role, Sandbox, Signal, artifacts, eventually};
use std::collections::BTreeSet;

/// The lines of the puppet's dump with this key.
fn dumped(sandbox: &Sandbox, key: &str) -> Vec<String> {
    let dump = eventually("the dump", || std::fs::read_to_string(sandbox.path("dump")).ok());
    let prefix = format!("{key} ");
    dump.lines().filter_map(|line| Some(line.strip_prefix(&prefix)?.to_owned())).collect()
}

/// The environment that every command of a sandbox is given.
fn inherited(sandbox: &Sandbox) -> BTreeSet<String> {
    BTreeSet::from([
        "PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin".to_owned(),
        format!("HOME={}", sandbox.text_path("home")),
        format!("IMMORTAL_RUNTIME_DIR={}", sandbox.runtime().display()),
        sandbox.marker_variable(),
    ])
}

fn environment_of_process(sandbox: &Sandbox) -> BTreeSet<String> {
    dumped(sandbox, "env").into_iter().collect()
}

const STRATEGIES: [&str; 3] = ["unattached", "daemon", "development"];
const DUMP: [&str; 2] = ["dump=dump", "hang"];

/// Runs the puppet's dump under every strategy; development's parent goes on until the check is done.
fn under_every_strategy(check: impl Fn(&str, &Sandbox)) {
    for strategy in STRATEGIES {
        let sandbox = Sandbox::new();
        let parent = sandbox.launch(strategy).recorder().puppet(DUMP).spawn();
        check(strategy, &sandbox);
        drop(sandbox.immortal(["stop", "--all"]).run());
        drop(parent);
    }
}

#[test]
fn the_environment_is_the_callers() {
    under_every_strategy(|strategy, sandbox| {
        assert_eq!(environment_of_process(sandbox), inherited(sandbox), "{strategy}");
    });
}

#[test]
fn env_adds_and_replaces_variables() {
    let sandbox = Sandbox::new();
    let options = ["--env", "COLOUR=green=ish", "-e", "HOME=/elsewhere", "-e", "EMPTY="];
    let _group = sandbox.launch("unattached").recorder().args(options).puppet(DUMP).start();
    let mut expected = inherited(&sandbox);
    expected.retain(|variable| !variable.starts_with("HOME="));
    expected.extend(["COLOUR=green=ish", "HOME=/elsewhere", "EMPTY="].map(str::to_owned));
    assert_eq!(environment_of_process(&sandbox), expected);
}

#[test]
fn env_clear_leaves_what_is_given() {
    let sandbox = Sandbox::new();
    let options = ["--env-clear", "--env", "COLOUR=green"];
    let _group = sandbox.launch("unattached").recorder().args(options).puppet(DUMP).start();
    assert_eq!(environment_of_process(&sandbox), BTreeSet::from(["COLOUR=green".to_owned()]));
}

#[test]
fn the_last_of_two_values_counts() {
    let sandbox = Sandbox::new();
    let options = ["--env", "COLOUR=green", "--env", "COLOUR=red"];
    let _group = sandbox.launch("unattached").recorder().args(options).puppet(DUMP).start();
    let colours: Vec<String> =
        dumped(&sandbox, "env").into_iter().filter(|variable| variable.starts_with("COLOUR=")).collect();
    assert_eq!(colours, ["COLOUR=red"]);
}

#[test]
fn a_variable_without_an_equals_sign_is_2() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.launch("unattached").recorder().args(["--env", "COLOUR"]).puppet(["hang"]).run();
    outcome.assert_refused(2);
}

#[test]
fn what_is_meant_for_the_caller_alone_is_not_inherited() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let _group = sandbox
            .launch(strategy)
            .env("NOTIFY_SOCKET", "/run/notify")
            .env("WATCHDOG_USEC", "1000000")
            .env("WATCHDOG_PID", "1")
            .env("LISTEN_FDS", "1")
            .env("LISTEN_PID", "1")
            .env("LISTEN_FDNAMES", "web")
            .recorder()
            .puppet(DUMP)
            .start();
        assert_eq!(environment_of_process(&sandbox), inherited(&sandbox), "{strategy}");
    }
}

#[test]
fn values_that_are_no_text_are_passed_on() {
    use std::os::unix::ffi::OsStrExt;
    let sandbox = Sandbox::new();
    let value = std::ffi::OsStr::from_bytes(b"a\xff\xfeb\nc");
    let _group =
        sandbox.launch("unattached").env("STRANGE", value).log().program(["/usr/bin/env", "-0"]).start();
    let wanted = b"STRANGE=a\xff\xfeb\nc\0";
    eventually("the variable as it was", || {
        let log = std::fs::read(sandbox.path("log")).ok()?;
        log.windows(wanted.len()).any(|window| window == wanted).then_some(())
    });
}

#[test]
fn an_environment_and_arguments_of_a_hundred_kilobytes_are_passed_on() {
    let sandbox = Sandbox::new();
    let big = "x".repeat(100_000);
    let _group =
        sandbox.launch("daemon").env("BIG", &big).recorder().puppet(["dump=dump", "hang", &big]).start();
    assert_eq!(dumped(&sandbox, "arg")[3], big);
    assert!(environment_of_process(&sandbox).contains(&format!("BIG={big}")));
}

#[test]
fn the_descriptors_are_0_1_and_2() {
    under_every_strategy(|strategy, sandbox| {
        let numbers: Vec<String> = dumped(sandbox, "fd")
            .into_iter()
            .map(|line| line.split(' ').next().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(numbers, ["0", "1", "2"], "{strategy}");
    });
}

#[test]
fn the_descriptors_are_0_1_and_2_after_a_respawn_too() {
    for role in [Role::Process, Role::Monitor, Role::Daemon] {
        let sandbox = Sandbox::new();
        let group = sandbox.launch("daemon").recorder().puppet(DUMP).start();
        drop(dumped(&sandbox, "fd"));
        std::fs::remove_file(sandbox.path("dump")).unwrap();
        group.member(role).signal(Signal::SIGKILL);
        let numbers: Vec<String> = dumped(&sandbox, "fd")
            .into_iter()
            .map(|line| line.split(' ').next().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(numbers, ["0", "1", "2"], "{role:?}");
    }
}

#[test]
fn no_descriptor_of_the_caller_is_kept() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        sandbox.file("open", "", 0o600);
        // The shell leaves number 7 open for the program that it becomes.
        let script = "exec 7<open; exec \"$@\"";
        let outcome = sandbox
            .invocation("/bin/sh")
            .args(["-c", script, "sh"])
            .arg(artifacts().immortal())
            .args(["start", "-s", strategy, "-n", "group", "-m", "recorder"])
            .arg(artifacts().puppet())
            .args(DUMP)
            .run();
        outcome.assert_code(0);
        assert!(outcome.streams_closed, "{strategy}: {outcome}");
        assert_eq!(dumped(&sandbox, "fd").len(), 3, "{strategy}: the process has three descriptors");
        #[cfg(target_os = "linux")]
        for process in sandbox.processes() {
            let open: Vec<_> =
                process.descriptors().into_iter().filter(|(_, target)| target.ends_with("/open")).collect();
            assert!(open.is_empty(), "{strategy}: {} has {open:?}", process.command_line());
        }
    }
}

#[test]
fn missing_standard_descriptors_of_the_caller_are_no_trouble() {
    let sandbox = Sandbox::new();
    let outcome = sandbox
        .invocation("/bin/sh")
        .args(["-c", "exec \"$@\" <&- >&- 2>&-", "sh"])
        .arg(artifacts().immortal())
        .args(["start", "-s", "daemon", "-n", "group", "-m", "recorder"])
        .arg(artifacts().puppet())
        .args(DUMP)
        .run();
    outcome.assert_code(0);
    assert_eq!(dumped(&sandbox, "fd").len(), 3);
    assert_eq!(Group::find(&sandbox, "group").pids().count(), 3);
}

#[test]
fn standard_input_is_empty() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let mut parent = sandbox.launch(strategy).log().puppet(["copy", "out=end", "hang"]).spawn();
        parent.write(b"not for the process\n");
        parent.wait().assert_code(0);
        let group = Group::find(&sandbox, "group");
        group.wait_log("the end", |log| log.output() == b"end\n");
    }
}

#[test]
fn the_process_leads_its_own_session_and_process_group() {
    under_every_strategy(|strategy, sandbox| {
        let pid = dumped(sandbox, "pid");
        assert_eq!((dumped(sandbox, "sid"), dumped(sandbox, "pgid")), (pid.clone(), pid), "{strategy}");
    });
}

#[test]
fn the_process_has_no_controlling_terminal() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("unattached").log().puppet(["tty", "hang"]).start();
    let log = group.wait_log("what it found", |log| !log.output().is_empty());
    assert!(!log.output_text().contains("read"), "{}", log.output_text());
}

/// The pending, blocked and ignored signals of a program that changes none of them, as in `/proc/PID/status`.
#[cfg(target_os = "linux")]
fn masks(sandbox: &Sandbox, start: immortal_tests::Invocation) -> Vec<String> {
    let outcome = start
        .arg(artifacts().immortal())
        .args(["start", "-n", "group", "--restart", "never", "-m", "log", "-o", "output=log"])
        .args(["/bin/cat", "/proc/self/status"])
        .run();
    outcome.assert_code(0);
    let text = eventually("the masks", || {
        let log = std::fs::read_to_string(sandbox.path("log")).ok()?;
        log.contains("process terminated").then_some(log)
    });
    // 32 and 33 are the C library's own, which lets nobody change them: what is inherited stays.
    let kept_by_the_library = 3_u64 << 31;
    let mask = |line: &str| {
        let (name, mask) = line.split_once(":\t")?;
        let mask = u64::from_str_radix(mask, 16).ok()? & !kept_by_the_library;
        ["SigPnd", "SigBlk", "SigIgn"].contains(&name).then(|| format!("{name} {mask:x}"))
    };
    text.lines().filter_map(mask).collect()
}

#[cfg(target_os = "linux")]
const NO_SIGNAL: [&str; 3] = ["SigPnd 0", "SigBlk 0", "SigIgn 0"];

#[cfg(target_os = "linux")]
#[test]
fn signals_that_the_caller_ignores_have_their_default_action() {
    let sandbox = Sandbox::new();
    let shell =
        sandbox.invocation("/bin/sh").args(["-c", "trap '' HUP INT QUIT PIPE USR1 CHLD; exec \"$@\"", "sh"]);
    assert_eq!(masks(&sandbox, shell), NO_SIGNAL);
}

#[cfg(target_os = "linux")]
#[test]
fn signals_that_the_caller_blocks_are_not_blocked() {
    let sandbox = Sandbox::new();
    let puppet = sandbox.invocation(artifacts().puppet()).args(["block=HUP,INT,USR1,USR2,CHLD", "become"]);
    assert_eq!(masks(&sandbox, puppet), NO_SIGNAL);
}

#[test]
fn a_group_of_a_caller_that_ignores_hangups_ends_all_the_same() {
    let sandbox = Sandbox::new();
    let outcome = sandbox
        .invocation("/bin/sh")
        .args(["-c", "trap '' HUP INT TERM; exec \"$@\"", "sh"])
        .arg(artifacts().immortal())
        .args(["start", "-s", "daemon", "-n", "group", "-m", "recorder"])
        .arg(artifacts().puppet())
        .arg("hang")
        .run();
    outcome.assert_code(0);
    Group::find(&sandbox, "group").stop();
}

#[cfg(target_os = "linux")]
const SECRET: &str = "xyzzy-0451";

/// A group with a secret in an option and another one in the process's environment.
#[cfg(target_os = "linux")]
fn secretive<'a>(sandbox: &'a Sandbox, strategy: &str) -> Group<'a> {
    sandbox
        .launch(strategy)
        .recorder()
        .set("secret", format!("{SECRET}-option"))
        .args(["--env", &format!("TOKEN={SECRET}-variable")])
        .puppet(["out=hello", "hang"])
        .start()
}

#[cfg(target_os = "linux")]
#[test]
fn options_and_environment_are_in_no_command_line() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        drop(secretive(&sandbox, strategy));
        for process in sandbox.processes() {
            assert!(!process.command_line().contains(SECRET), "{strategy}: {}", process.command_line());
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn options_are_in_no_environment() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        drop(secretive(&sandbox, strategy));
        for process in sandbox.processes() {
            let environment = String::from_utf8_lossy(&process.environment()).into_owned();
            assert!(!environment.contains(&format!("{SECRET}-option")), "{strategy}: {environment}");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn nothing_of_the_launch_is_in_the_environment_of_the_process() {
    for role in [None, Some(Role::Monitor), Some(Role::Daemon)] {
        let sandbox = Sandbox::new();
        let group = sandbox.launch("daemon").recorder().puppet(["note=ran", "hang"]).start();
        if let Some(role) = role {
            group.member(role).signal(Signal::SIGKILL);
            eventually("the second run", || sandbox.noted("ran").get(1).copied());
        }
        let pid = group.wait_running("again", |pids| {
            pids.process.is_some() && pids.process == sandbox.noted("ran").last().copied()
        });
        let environment = immortal_tests::Process::find(pid.of(Role::Process)).unwrap().environment();
        let found: BTreeSet<String> = environment
            .split(|byte| *byte == 0)
            .filter(|variable| !variable.is_empty())
            .map(|variable| String::from_utf8_lossy(variable).into_owned())
            .collect();
        assert_eq!(found, inherited(&sandbox), "{role:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn pump_and_daemon_keep_the_callers_environment() {
    let sandbox = Sandbox::new();
    let group = sandbox
        .launch("daemon")
        .recorder()
        .args(["--env", "TOKEN=x", "--env-clear"])
        .puppet(["hang"])
        .start();
    for role in [Role::Monitor, Role::Daemon] {
        let environment = group.member(role).environment();
        let found: BTreeSet<String> = environment
            .split(|byte| *byte == 0)
            .filter(|variable| !variable.is_empty())
            .map(|variable| String::from_utf8_lossy(variable).into_owned())
            .collect();
        assert_eq!(found, inherited(&sandbox), "{role:?}");
    }
}

#[test]
fn the_working_directory_is_the_callers() {
    let sandbox = Sandbox::new();
    let _group = sandbox
        .launch("unattached")
        .recorder()
        .cwd(sandbox.path("home"))
        .puppet(["dump=../dump", "hang"])
        .start();
    assert_eq!(dumped(&sandbox, "cwd"), [sandbox.text_path("home")]);
}

#[test]
fn cwd_is_relative_to_the_callers_directory() {
    let sandbox = Sandbox::new();
    let dump = format!("dump={}", sandbox.text_path("dump"));
    let _group = sandbox.launch("daemon").recorder().args(["--cwd", "home"]).puppet([&dump, "hang"]).start();
    assert_eq!(dumped(&sandbox, "cwd"), [sandbox.text_path("home")]);
}

#[test]
fn a_program_with_a_slash_is_relative_to_the_caller_and_not_to_cwd() {
    let sandbox = Sandbox::new();
    sandbox.executable(artifacts().puppet(), "program");
    sandbox.file("home/program", "#!/no/such/interpreter\n", 0o755);
    let dump = format!("dump={}", sandbox.text_path("dump"));
    let group = sandbox
        .launch("daemon")
        .recorder()
        .args(["--cwd", "home"])
        .program(["./program", &dump, "hang"])
        .start();
    drop(dumped(&sandbox, "cwd"));
    // The same at a respawn, by a pump that was started by another directory's owner.
    std::fs::remove_file(sandbox.path("dump")).unwrap();
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    assert_eq!(dumped(&sandbox, "cwd"), [sandbox.text_path("home")]);
}

#[test]
fn a_program_without_a_slash_is_searched_in_the_path_of_the_process() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("tools")).unwrap();
    sandbox.executable(artifacts().puppet(), "tools/marionette");
    let path = format!("PATH={}", sandbox.text_path("tools"));
    let _group = sandbox
        .launch("unattached")
        .recorder()
        .args(["--env", &path])
        .program(["marionette", "dump=dump", "hang"])
        .start();
    drop(dumped(&sandbox, "pid"));
}

#[test]
fn a_program_that_only_the_callers_path_has_is_127() {
    let sandbox = Sandbox::new();
    let path = format!("PATH={}", sandbox.text_path("home"));
    let outcome =
        sandbox.launch("unattached").recorder().args(["--env", &path]).program(["sleep", "1000"]).run();
    outcome.assert_refused(127);
}

#[test]
fn a_program_is_not_searched_in_the_working_directory() {
    let sandbox = Sandbox::new();
    sandbox.executable(artifacts().puppet(), "marionette");
    sandbox.launch("unattached").recorder().program(["marionette", "hang"]).run().assert_refused(127);
}

#[test]
fn exec_runs_the_file_with_its_arguments() {
    let sandbox = Sandbox::new();
    let script = sandbox.file("script", "echo \"$1|$2|$#\"; exec sleep 1000\n", 0o600);
    let group = sandbox
        .launch("unattached")
        .log()
        .args(["--exec", "/bin/sh"])
        .program([script.to_str().unwrap(), "two words", ""])
        .start();
    group.wait_log("its arguments", |log| log.output() == b"two words||2\n");
}

#[test]
fn exec_searches_the_interpreter_and_takes_the_file_from_the_callers_directory() {
    let sandbox = Sandbox::new();
    sandbox.file("script", "echo hello; exec sleep 1000\n", 0o600);
    let group = sandbox
        .launch("unattached")
        .log()
        .args(["--exec", "sh", "--cwd", "home"])
        .program(["script"])
        .start();
    group.wait_log("its output", |log| log.output() == b"hello\n");
}

#[test]
fn exec_of_a_missing_interpreter_is_127() {
    let sandbox = Sandbox::new();
    sandbox.file("script", "", 0o600);
    let outcome =
        sandbox.launch("unattached").recorder().args(["--exec", "no-such-shell"]).program(["script"]).run();
    assert!(outcome.assert_refused(127).contains("no-such-shell"), "{outcome}");
    sandbox.assert_nothing_left();
}

#[test]
fn exec_of_a_missing_file_is_127() {
    let sandbox = Sandbox::new();
    let outcome =
        sandbox.launch("unattached").recorder().args(["--exec", "/bin/sh"]).program(["no-such-script"]).run();
    assert!(outcome.assert_refused(127).contains("no-such-script"), "{outcome}");
    sandbox.assert_nothing_left();
}

#[test]
fn exec_of_a_directory_is_126() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.launch("unattached").recorder().args(["--exec", "/bin/sh"]).program(["home"]).run();
    outcome.assert_refused(126);
    sandbox.assert_nothing_left();
}

#[test]
fn a_process_that_reads_a_closed_pipe_dies_of_it_as_usual() {
    // Rust programs ignore SIGPIPE, and their children would without care.
    let sandbox = Sandbox::new();
    let script = "(while :; do echo y; done; touch survived) | true; echo done; exec sleep 1000";
    let group = sandbox.launch("unattached").log().program(["/bin/sh", "-c", script]).start();
    group.wait_log("the end of the pipe", |log| log.output() == b"done\n");
    assert!(!sandbox.path("survived").exists());
}

#[test]
fn resource_limits_of_the_caller_hold_for_the_process() {
    let sandbox = Sandbox::new();
    let outcome = sandbox
        .invocation("/bin/sh")
        .args(["-c", "ulimit -n 250; ulimit -c 0; exec \"$@\"", "sh"])
        .arg(artifacts().immortal())
        .args(["start", "-s", "daemon", "-n", "group", "-m", "log", "-o", "output=log"])
        .args(["/bin/sh", "-c", "ulimit -n; exec sleep 1000"])
        .run();
    outcome.assert_code(0);
    Group::find(&sandbox, "group").wait_log("the limit", |log| log.output() == b"250\n");
}

#[test]
fn the_umask_of_the_caller_holds_for_the_process() {
    let sandbox = Sandbox::new();
    let outcome = sandbox
        .invocation("/bin/sh")
        .args(["-c", "umask 027; exec \"$@\"", "sh"])
        .arg(artifacts().immortal())
        .args(["start", "-s", "daemon", "-n", "group", "-m", "log", "-o", "output=log"])
        .args(["/bin/sh", "-c", "umask; exec sleep 1000"])
        .run();
    outcome.assert_code(0);
    Group::find(&sandbox, "group").wait_log("the mask", |log| log.output() == b"0027\n");
}

/// Others can read the command line; what was typed may hold secrets.
#[test]
fn roles_show_what_they_are_and_nothing_of_what_was_typed() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        // Which role is copied is guessed before the arguments are read. Here the guess is wrong.
        let misleading = if strategy == "daemon" { "development" } else { "daemon" };
        let options = ["-e", "SECRET=x", "--monitor-path", misleading];
        for options in [&options[..2], &options[..]] {
            let group = sandbox.launch(strategy).recorder().args(options).puppet(DUMP).start();
            let roles = [Role::Monitor, Role::Daemon];
            for role in roles.into_iter().filter(|role| group.started.get(*role).is_some()) {
                let word = if role == Role::Monitor { "pump" } else { "daemon" };
                assert_eq!(group.member(role).command_line(), format!("immortal {word} group"), "{strategy}");
            }
            group.stop();
        }
    }
}
