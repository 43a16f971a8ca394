//! `--ready notify`, and what immortal says to the service manager that has started it.

use immortal_tests::{Group, Pids, Process, Role, Running, Sandbox, Signal, eventually};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

const NOTIFY: [&str; 2] = ["--ready", "notify"];

#[test]
fn start_returns_when_the_program_says_that_it_is_ready() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let steps = ["note=ran", "wait-file=go", "touch=said", "say=READY=1", "hang"];
        let mut start = sandbox.launch(strategy).recorder().args(NOTIFY).puppet(steps).spawn();
        start.close_input();
        eventually("it runs", || sandbox.noted("ran").first().copied());
        let list = sandbox.immortal(["list", "--json"]).run().json();
        assert_eq!(list[0]["state"], "starting", "{strategy}: {list:#}");
        assert!(Process::find(start.pid()).is_some(), "{strategy}: start waits");
        sandbox.file("go", "", 0o600);
        start.wait().assert_code(0);
        assert!(sandbox.path("said").exists());
        let group = Group::find(&sandbox, "group");
        assert_eq!(group.status()["state"], "running");
    }
}

#[test]
fn other_words_than_ready_do_not_count() {
    let sandbox = Sandbox::new();
    let steps = [
        "say=STATUS=loading",
        "say=READY=0",
        "say=XREADY=1",
        "say=",
        "note=ran",
        "wait-file=go",
        "say=STATUS=x\nREADY=1",
        "hang",
    ];
    let start = sandbox.launch("daemon").recorder().args(NOTIFY).puppet(steps).spawn();
    eventually("it has said all that", || sandbox.noted("ran").first().copied());
    let list = sandbox.immortal(["list", "--json"]).run().json();
    assert_eq!(list[0]["state"], "starting", "{list:#}");
    sandbox.file("go", "", 0o600);
    start.wait().assert_code(0);
}

#[test]
fn a_child_of_the_process_may_say_it() {
    let sandbox = Sandbox::new();
    let steps = ["spawn", "say=READY=1", "hang", "end", "hang"];
    drop(sandbox.launch("daemon").recorder().args(NOTIFY).puppet(steps).start());
}

#[test]
fn a_helper_that_is_gone_at_once_may_say_it() {
    // As `systemd-notify` in a shell script: by chance nobody knows any more whose child it was.
    for _ in 0..20 {
        let sandbox = Sandbox::new();
        let script = "\"$0\" say=READY=1; exec sleep 100000";
        let puppet = immortal_tests::artifacts().puppet();
        let launch = sandbox.launch("unattached").recorder().args(NOTIFY).args(["--ready-timeout", "3s"]);
        drop(launch.program(["/bin/sh", "-c", script, puppet.to_str().unwrap()]).start());
    }
}

/// A start that waits for its program, and the address at which that is to say so.
#[cfg(target_os = "linux")]
fn waiting(sandbox: &Sandbox) -> (Running, String) {
    let steps = ["dump=dump", "note=ran", "wait-file=go", "say=READY=1", "hang"];
    let start = sandbox.launch("unattached").recorder().args(NOTIFY).puppet(steps).spawn();
    eventually("it runs", || sandbox.noted("ran").first().copied());
    let dump = std::fs::read_to_string(sandbox.path("dump")).expect("the process has written it");
    let address = dump.lines().find_map(|line| line.strip_prefix("env NOTIFY_SOCKET="));
    (start, address.expect("the process was told").to_owned())
}

#[cfg(target_os = "linux")]
fn assert_still_waiting(sandbox: &Sandbox, start: Running) {
    immortal_tests::holds_for(Duration::from_millis(300), "it is still starting", || {
        sandbox.immortal(["list", "--json"]).run().json()[0]["state"] == "starting"
    });
    sandbox.file("go", "", 0o600);
    start.wait().assert_code(0);
}

#[cfg(target_os = "linux")]
#[test]
fn a_stranger_may_not_say_it() {
    let sandbox = Sandbox::new();
    let (start, address) = waiting(&sandbox);
    let puppet = immortal_tests::artifacts().puppet();
    let stranger = sandbox.invocation(puppet).env("NOTIFY_SOCKET", address);
    let stranger = stranger.args(["say=READY=1", "touch=said", "hang"]).spawn();
    eventually("it is said", || sandbox.path("said").exists().then_some(()));
    assert_still_waiting(&sandbox, start);
    drop(stranger);
}

#[cfg(target_os = "linux")]
#[test]
fn another_user_may_not_say_it() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    std::fs::set_permissions(sandbox.path(""), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let puppet = sandbox.executable(immortal_tests::artifacts().puppet(), "puppet");
    let (start, address) = waiting(&sandbox);
    let said = sandbox.invocation(puppet).user(65534, 65534).env("NOTIFY_SOCKET", address);
    // Whether the socket takes it or not, and though the sender is gone at once.
    drop(said.args(["say=READY=1"]).run());
    assert_still_waiting(&sandbox, start);
}

#[test]
fn a_program_that_never_says_it_fails_the_start_and_leaves_nothing() {
    for strategy in ["unattached", "daemon", "development"] {
        let sandbox = Sandbox::new();
        let options = ["--ready-timeout", "400ms", "--stop-timeout", "300ms"];
        let steps = ["block=TERM", "note=ran", "hang"];
        let failed = sandbox.launch(strategy).recorder().args(NOTIFY).args(options).puppet(steps).run();
        let error = failed.assert_refused(125);
        assert!(error.contains("READY=1") && error.contains("400ms"), "{strategy}: {error}");
        assert!(failed.took < Duration::from_secs(4), "{strategy}: {failed}");
        assert_eq!(sandbox.noted("ran").len(), 1, "{strategy}");
        sandbox.assert_nothing_left();
    }
}

#[test]
fn a_program_that_dies_before_it_says_it_fails_the_start_and_leaves_nothing() {
    for strategy in ["unattached", "daemon", "development"] {
        let sandbox = Sandbox::new();
        let options = ["--ready-timeout", "5s"];
        let failed = sandbox.launch(strategy).recorder().args(NOTIFY).args(options).puppet(["exit=3"]).run();
        failed.assert_refused(125);
        assert!(failed.took < Duration::from_secs(12), "{strategy}: {failed}");
        sandbox.assert_nothing_left();
    }
}

#[test]
fn a_caller_that_goes_away_before_it_is_ready_takes_the_group_along() {
    let sandbox = Sandbox::new();
    let start = sandbox.launch("daemon").recorder().args(NOTIFY).puppet(["note=ran", "hang"]).spawn();
    eventually("it runs", || sandbox.noted("ran").first().copied());
    start.signal(Signal::SIGKILL);
    drop(start.wait());
    eventually("nobody is left", || sandbox.processes().is_empty().then_some(()));
    sandbox.assert_nothing_left();
}

/// A program that says it as long as the file `mute` is not there.
fn talkative<'a>(sandbox: &'a Sandbox, options: &[&str]) -> Group<'a> {
    let script = "echo $$ >>ran; [ -e mute ] && exec sleep 100000; exec \"$0\" say=READY=1 hang";
    sandbox
        .launch("daemon")
        .recorder()
        .args(NOTIFY)
        .args(options)
        .program([
            "/bin/sh",
            "-c",
            script,
            immortal_tests::artifacts().puppet().to_str().expect("a plain path"),
        ])
        .start()
}

#[test]
fn a_respawned_process_is_starting_until_it_says_it_again() {
    let sandbox = Sandbox::new();
    let group = talkative(&sandbox, &[]);
    sandbox.file("mute", "", 0o600);
    group.member(Role::Process).signal(Signal::SIGKILL);
    eventually("it runs again", || (sandbox.noted("ran").len() == 2).then_some(()));
    let status = group.wait_state("starting");
    assert_eq!(Pids::from_json(&status["pids"]).process, sandbox.noted("ran").last().copied(), "{status:#}");
    std::fs::remove_file(sandbox.path("mute")).unwrap();
    group.command("restart").assert_code(0);
    group.wait_running("it has said it", |_| true);
}

#[test]
fn a_respawned_process_that_does_not_say_it_is_an_unstable_death() {
    let sandbox = Sandbox::new();
    let options = ["--ready-timeout", "300ms", "--backoff", "1h", "--backoff-max", "1h", "--stable", "1h"];
    let group = talkative(&sandbox, &options);
    sandbox.file("mute", "", 0o600);
    group.member(Role::Process).signal(Signal::SIGKILL);
    let status = group.wait_state("backoff");
    assert_eq!(sandbox.noted("ran").len(), 2, "{status:#}");
    std::fs::remove_file(sandbox.path("mute")).unwrap();
    group.command("restart").assert_code(0);
    group.wait_running("it has said it", |_| true);
}

#[test]
fn the_reason_is_why_the_last_attempt_was_not_ready() {
    let sandbox = Sandbox::new();
    let options = ["--ready-timeout", "300ms", "--stable", "1h", "--backoff", "1h", "--backoff-max", "1h"];
    let script = "[ -e mute ] && exec sleep 100000; [ -e end ] && exit 3; exec \"$0\" say=READY=1 hang";
    let group = sandbox
        .launch("daemon")
        .recorder()
        .args(NOTIFY)
        .args(options)
        .program(["/bin/sh", "-c", script, immortal_tests::artifacts().puppet().to_str().unwrap()])
        .start();
    let reason = |status: &serde_json::Value| status["reason"].as_str().unwrap_or_default().to_owned();
    sandbox.file("mute", "", 0o600);
    group.member(Role::Process).signal(Signal::SIGKILL);
    let silent = reason(&group.wait_state("backoff"));
    assert_eq!(silent, "the program: it did not say READY=1 within 300ms (--ready-timeout)");
    std::fs::remove_file(sandbox.path("mute")).unwrap();
    sandbox.file("end", "", 0o600);
    let ended = "the program: it ended before it said READY=1";
    let refused = group.command("restart");
    assert!(refused.assert_refused(1).contains(ended), "{refused}");
    eventually("the newer reason", || (reason(&group.try_status()?) == ended).then_some(()));
    std::fs::remove_file(sandbox.path("end")).unwrap();
    group.command("restart").assert_code(0);
    assert_eq!(reason(&group.wait_state("running")), "");
    group.stop();
}

#[test]
fn the_program_says_it_under_another_pump_and_daemon_too() {
    let sandbox = Sandbox::new();
    let group = talkative(&sandbox, &["--stable", "0ms"]);
    group.member(Role::Monitor).signal(Signal::SIGKILL);
    let old = group.wait_renewed(group.started, &[Role::Process, Role::Monitor]);
    group.member(Role::Daemon).signal(Signal::SIGKILL);
    group.wait_renewed(old, &[Role::Process, Role::Monitor, Role::Daemon]);
    group.stop();
}

#[test]
fn without_notify_the_process_has_no_such_socket() {
    let sandbox = Sandbox::new();
    let manager = Manager::new(&sandbox.path("manager"));
    let steps = ["dump=dump", "hang"];
    let launch = sandbox.launch("daemon").recorder().env("NOTIFY_SOCKET", manager.path());
    drop(launch.puppet(steps).start());
    let dump = eventually("the dump", || std::fs::read_to_string(sandbox.path("dump")).ok());
    assert!(!dump.contains("NOTIFY_SOCKET"), "{dump}");
}

/// The service manager's end of `NOTIFY_SOCKET`.
struct Manager {
    socket: UnixDatagram,
    path: std::path::PathBuf,
    heard: Mutex<Vec<String>>,
}

impl Manager {
    fn new(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("a socket in the sandbox");
        socket.set_nonblocking(true).expect("it can be");
        Self { socket, path: path.to_owned(), heard: Mutex::default() }
    }

    fn path(&self) -> &Path {
        &self.path
    }

    /// All lines so far.
    fn heard(&self) -> Vec<String> {
        let mut heard = self.heard.lock().expect("nobody has panicked");
        let mut text = [0; 4096];
        while let Ok(count) = self.socket.recv(&mut text) {
            heard.extend(String::from_utf8_lossy(&text[..count]).lines().map(str::to_owned));
        }
        heard.clone()
    }

    #[track_caller]
    fn wait_for(&self, line: &str) {
        eventually(&format!("{line} among {:?}", self.heard()), || {
            self.heard().iter().any(|heard| heard == line).then_some(())
        });
    }
}

#[test]
fn the_manager_hears_ready_main_pid_status_and_stopping() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let manager = Manager::new(&sandbox.path("manager"));
        let steps = ["dump=dump", "hang"];
        let group =
            sandbox.launch(strategy).recorder().env("NOTIFY_SOCKET", manager.path()).puppet(steps).start();
        let main = group.started.daemon.or(group.started.monitor).unwrap();
        let heard = manager.heard();
        for line in ["READY=1".to_owned(), format!("MAINPID={main}")] {
            assert!(heard.contains(&line), "{strategy}: {heard:?}");
        }
        assert!(heard.iter().any(|line| line.starts_with("STATUS=")), "{strategy}: {heard:?}");
        assert!(!heard.contains(&"STOPPING=1".to_owned()), "{strategy}: {heard:?}");
        // Never passed on, neither at the start nor later.
        for _ in 0..2 {
            let dump = eventually("the dump", || std::fs::read_to_string(sandbox.path("dump")).ok());
            assert!(!dump.contains("NOTIFY_SOCKET"), "{strategy}: {dump}");
            std::fs::remove_file(sandbox.path("dump")).unwrap();
            group.command("restart").assert_code(0);
        }
        group.stop();
        manager.wait_for("STOPPING=1");
        let heard = manager.heard();
        assert_eq!(heard.iter().filter(|line| *line == "READY=1").count(), 1, "{strategy}: {heard:?}");
    }
}

#[test]
fn the_manager_hears_of_a_new_main_pid() {
    let sandbox = Sandbox::new();
    let manager = Manager::new(&sandbox.path("manager"));
    let group =
        sandbox.launch("daemon").recorder().env("NOTIFY_SOCKET", manager.path()).puppet(["hang"]).start();
    group.member(Role::Daemon).signal(Signal::SIGKILL);
    let new = group.wait_renewed(group.started, &[Role::Process, Role::Monitor, Role::Daemon]);
    manager.wait_for(&format!("MAINPID={}", new.of(Role::Daemon)));
    assert!(!manager.heard().contains(&"STOPPING=1".to_owned()), "{:?}", manager.heard());
}

#[test]
fn a_development_parent_tells_the_manager_and_is_the_main_process_itself() {
    let sandbox = Sandbox::new();
    let manager = Manager::new(&sandbox.path("manager"));
    let launch = sandbox.launch("development").recorder().env("NOTIFY_SOCKET", manager.path());
    let parent: Running = launch.puppet(["hang"]).spawn();
    manager.wait_for("READY=1");
    let other_pid =
        |line: &String| line.starts_with("MAINPID=") && *line != format!("MAINPID={}", parent.pid());
    assert!(!manager.heard().iter().any(other_pid), "{:?}", manager.heard());
    parent.signal(Signal::SIGTERM);
    parent.wait().assert_code(143);
    manager.wait_for("STOPPING=1");
}

#[test]
fn the_manager_is_told_only_when_the_program_is_ready() {
    let sandbox = Sandbox::new();
    let manager = Manager::new(&sandbox.path("manager"));
    let steps = ["dump=dump", "note=ran", "wait-file=go", "say=READY=1", "hang"];
    let launch = sandbox.launch("daemon").recorder().env("NOTIFY_SOCKET", manager.path()).args(NOTIFY);
    let start = launch.puppet(steps).spawn();
    eventually("it runs", || sandbox.noted("ran").first().copied());
    assert!(!manager.heard().contains(&"READY=1".to_owned()), "{:?}", manager.heard());
    let dump = std::fs::read_to_string(sandbox.path("dump")).unwrap();
    assert!(!dump.contains(manager.path().to_str().unwrap()), "the process has another one: {dump}");
    sandbox.file("go", "", 0o600);
    start.wait().assert_code(0);
    assert!(manager.heard().contains(&"READY=1".to_owned()), "{:?}", manager.heard());
}

#[test]
fn a_failed_start_does_not_say_ready() {
    let sandbox = Sandbox::new();
    let manager = Manager::new(&sandbox.path("manager"));
    let launch = sandbox.launch("daemon").recorder().env("NOTIFY_SOCKET", manager.path());
    launch.program(["/nonexistent"]).run().assert_code(127);
    assert!(!manager.heard().contains(&"READY=1".to_owned()), "{:?}", manager.heard());
}

#[test]
fn a_manager_that_is_gone_is_no_failure() {
    let sandbox = Sandbox::new();
    let missing = sandbox.path("nobody-listens");
    let group = sandbox.launch("daemon").recorder().env("NOTIFY_SOCKET", &missing).puppet(["hang"]).start();
    group.stop();
}

#[cfg(target_os = "linux")]
#[test]
fn a_manager_at_an_abstract_address_is_told() {
    use std::os::linux::net::SocketAddrExt;
    let sandbox = Sandbox::new();
    let name = format!("{}/manager", sandbox.text_path(""));
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let launch = sandbox.launch("daemon").recorder().env("NOTIFY_SOCKET", format!("@{name}"));
    drop(launch.puppet(["hang"]).start());
    let mut text = [0; 4096];
    let count = socket.recv(&mut text).unwrap();
    assert!(String::from_utf8_lossy(&text[..count]).contains("READY=1"));
}
