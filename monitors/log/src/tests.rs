//! The monitor as a whole, driven as the pump drives it.

use super::Log;
use immortal_monitor_api::fake::{Driver, FakeHost};
use immortal_monitor_api::{Exit, Pids, Why};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

struct Sandbox {
    directory: TempDir,
    fake: FakeHost,
}

impl Sandbox {
    fn new() -> Self {
        let fake = FakeHost::new();
        fake.set_pids(Pids { process: None, monitor: 11, daemon: Some(10) });
        Self { directory: tempfile::tempdir().unwrap(), fake }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn output(&self) -> String {
        format!("output={}", self.path("log").display())
    }

    fn start(&self, more: &[&str]) -> Driver {
        let output = self.output();
        let options: Vec<&str> = std::iter::once(output.as_str()).chain(more.iter().copied()).collect();
        self.fake.start::<Log>(&options).unwrap()
    }

    fn refusal(&self, options: &[&str]) -> String {
        self.fake.check::<Log>(options).unwrap_err().text
    }

    /// The log, every time in it replaced by `T` once it is seen to be one.
    fn log(&self) -> String {
        let text = fs::read_to_string(self.path("log")).unwrap();
        let lines = text.split_inclusive('\n').map(|line| match line.strip_prefix("=== Time: ") {
            Some(time) => {
                let time = time.strip_suffix('\n').expect("a whole line");
                time.parse::<jiff::Timestamp>().expect("RFC 3339");
                "T\n"
            }
            None => line,
        });
        lines.collect()
    }
}

fn directory_is_empty(path: &Path) -> bool {
    fs::read_dir(path).unwrap().next().is_none()
}

#[test]
fn a_start_is_noted_as_monitor_daemon_process_each_with_its_time() {
    let sandbox = Sandbox::new();
    let mut log = sandbox.start(&[]);
    log.setup(Why::PumpStart, b"").unwrap();
    log.spawn(12).unwrap();
    assert_eq!(
        sandbox.log(),
        "=== monitor#11 started for first time ===\nT\n\
         === daemon#10 started for first time ===\nT\n\
         === process#12 started for first time ===\nT\n"
    );
}

#[test]
fn without_a_daemon_no_daemon_is_noted() {
    let sandbox = Sandbox::new();
    sandbox.fake.set_pids(Pids { process: None, monitor: 11, daemon: None });
    let mut log = sandbox.start(&[]);
    log.setup(Why::PumpStart, b"").unwrap();
    assert_eq!(sandbox.log(), "=== monitor#11 started for first time ===\nT\n");
}

#[test]
fn both_streams_are_appended_byte_for_byte() {
    let sandbox = Sandbox::new();
    let mut log = sandbox.start(&["events=false"]);
    log.setup(Why::PumpStart, b"").unwrap();
    log.stdout(b"a\0\xff\r\n").unwrap();
    log.stderr(b"b").unwrap();
    log.stdout(b"").unwrap();
    log.stdout(b"\n\nc").unwrap();
    assert_eq!(fs::read(sandbox.path("log")).unwrap(), b"a\0\xff\r\nb\n\nc");
}

#[test]
fn a_death_of_the_process_is_noted_between_what_the_two_wrote() {
    let sandbox = Sandbox::new();
    let mut log = sandbox.start(&[]);
    log.setup(Why::PumpStart, b"").unwrap();
    log.spawn(12).unwrap();
    fs::write(sandbox.path("log"), "").unwrap();
    log.stdout(b"last words\n").unwrap();
    log.exit(&Exit::with_signal(12, 9)).unwrap();
    log.respawn(13).unwrap();
    log.stdout(b"first words\n").unwrap();
    assert_eq!(
        sandbox.log(),
        "last words\n\
         === ! process terminated ! ===\nT\n\
         === ! process#13 restarted ! ===\nT\n\
         first words\n"
    );
}

#[test]
fn an_event_line_starts_at_the_beginning_of_a_line() {
    let sandbox = Sandbox::new();
    let mut log = sandbox.start(&[]);
    log.setup(Why::PumpStart, b"").unwrap();
    fs::write(sandbox.path("log"), "").unwrap();
    log.stdout(b"no newline").unwrap();
    log.exit(&Exit::with_code(12, 0)).unwrap();
    assert_eq!(sandbox.log(), "no newline\n=== ! process terminated ! ===\nT\n");
}

#[test]
fn after_a_restart_the_files_own_last_byte_counts() {
    let sandbox = Sandbox::new();
    for (old, new) in [("half", "half\n"), ("whole\n", "whole\n"), ("", "")] {
        fs::write(sandbox.path("log"), old).unwrap();
        let mut log = sandbox.start(&[]);
        log.setup(Why::PumpRestart, b"").unwrap();
        assert_eq!(sandbox.log(), format!("{new}=== ! monitor#11 restarted ! ===\nT\n"));
    }
}

#[test]
fn a_death_of_the_pump_is_noted_as_its_message_monitor_leftover_output_process() {
    let sandbox = Sandbox::new();
    let mut log = sandbox.start(&[]);
    log.setup(Why::PumpRestart, b"stdout: panicked\nat the disco").unwrap();
    log.stdout(b"left over").unwrap();
    log.respawn(13).unwrap();
    assert_eq!(
        sandbox.log(),
        "=== ! An error occured in the monitor ! ===\nT\n\
         stdout: panicked\nat the disco\n\
         === error message end ===\n\
         === ! monitor#11 restarted ! ===\nT\n\
         left over\n\
         === ! process#13 restarted ! ===\nT\n"
    );
}

#[test]
fn a_death_of_the_daemon_is_noted_as_monitor_daemon_process() {
    let sandbox = Sandbox::new();
    let mut log = sandbox.start(&[]);
    log.setup(Why::DaemonRestart, b"").unwrap();
    log.respawn(13).unwrap();
    assert_eq!(
        sandbox.log(),
        "=== ! monitor#11 restarted ! ===\nT\n\
         === ! daemon#10 restarted ! ===\nT\n\
         === ! process#13 restarted ! ===\nT\n"
    );
}

#[test]
fn without_events_there_is_output_alone() {
    let sandbox = Sandbox::new();
    let mut log = sandbox.start(&["events=false"]);
    log.setup(Why::PumpRestart, b"message").unwrap();
    log.respawn(12).unwrap();
    log.stdout(b"one").unwrap();
    log.exit(&Exit::with_code(12, 0)).unwrap();
    log.stdout(b"two").unwrap();
    assert_eq!(sandbox.log(), "onetwo");
}

#[test]
fn the_pid_file_follows_every_change_and_goes_with_the_group() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("pids.json");
    let pids = || fs::read_to_string(&path).unwrap();
    let mut log = sandbox.start(&[&format!("pid_file={}", path.display())]);
    log.setup(Why::PumpStart, b"").unwrap();
    assert_eq!(pids(), "{\"process\":null,\"monitor\":11,\"daemon\":10}\n");
    log.spawn(12).unwrap();
    assert_eq!(pids(), "{\"process\":12,\"monitor\":11,\"daemon\":10}\n");
    log.exit(&Exit::with_code(12, 0)).unwrap();
    assert_eq!(pids(), "{\"process\":null,\"monitor\":11,\"daemon\":10}\n");
    sandbox.fake.set_pids(Pids { process: None, monitor: 21, daemon: None });
    log.respawn(22).unwrap();
    assert_eq!(pids(), "{\"process\":22,\"monitor\":21,\"daemon\":null}\n");
    log.finish(Duration::from_secs(1)).unwrap();
    let left: Vec<_> = fs::read_dir(sandbox.directory.path()).unwrap().map(|entry| entry.unwrap()).collect();
    assert!(left.iter().all(|entry| entry.file_name() == "log"), "{left:?}");
}

#[test]
fn a_pid_file_that_cannot_be_replaced_fails_no_hook() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("inner/pids.json");
    fs::create_dir(sandbox.path("inner")).unwrap();
    let mut log = sandbox.start(&[&format!("pid_file={}", path.display())]);
    log.setup(Why::PumpStart, b"").unwrap();
    fs::remove_dir_all(sandbox.path("inner")).unwrap();
    log.spawn(12).unwrap();
    log.exit(&Exit::with_code(12, 0)).unwrap();
    assert_eq!(sandbox.fake.log().len(), 1, "said once: {:?}", sandbox.fake.log());
}

#[test]
fn output_is_required_but_in_development() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.refusal(&[]), "option output is required\nhint: -o output=FILE");
    sandbox.fake.check::<Log>(&["output:=null"]).unwrap();
    sandbox.fake.set_setting("strategy", "development");
    sandbox.fake.check::<Log>(&[]).unwrap();
}

#[test]
fn without_output_everything_else_works() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("pids.json");
    let pid_file = format!("pid_file={}", path.display());
    let mut log = sandbox.fake.start::<Log>(&["output:=null", &pid_file]).unwrap();
    log.setup(Why::PumpStart, b"").unwrap();
    log.stdout(b"nowhere\n").unwrap();
    log.spawn(12).unwrap();
    assert!(path.exists());
}

#[test]
fn check_refuses_what_could_not_be_written_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let here = sandbox.directory.path().display();
    for key in ["output", "pid_file"] {
        let refusal = |path: &str| {
            sandbox.refusal(&["output=/dev/null", &format!("{key}={path}")]).replace("\nhint", "|hint")
        };
        assert_eq!(
            refusal(&format!("{here}/none/log")),
            format!("option {key}={here}/none/log: its directory does not exist|hint: mkdir -p {here}/none")
        );
        assert_eq!(
            refusal("/dev/null/log"),
            format!("option {key}=/dev/null/log: /dev/null is not a directory")
        );
        assert!(refusal(&here.to_string()).contains("a directory"), "{}", refusal(&here.to_string()));
    }
    let same = format!("pid_file={here}/log");
    assert!(sandbox.refusal(&[&sandbox.output(), &same]).ends_with("the same file as output"));
    sandbox.fake.check::<Log>(&[&sandbox.output(), &format!("pid_file={here}/pids")]).unwrap();
    assert!(directory_is_empty(sandbox.directory.path()));
}

#[test]
fn a_log_that_cannot_be_opened_fails_a_start_but_no_restart() {
    let sandbox = Sandbox::new();
    let output = format!("output={}", sandbox.path("inner/log").display());
    let start = || sandbox.fake.start::<Log>(&[&output]).unwrap();
    start().setup(Why::PumpStart, b"").unwrap_err();
    for why in [Why::PumpRestart, Why::DaemonRestart, Why::Other(7)] {
        let mut log = start();
        log.setup(why, b"").unwrap();
        log.respawn(12).unwrap();
        log.stdout(b"lost\n").unwrap();
        assert!(sandbox.fake.reported("dropped_bytes").is_some());
    }
}

#[test]
fn a_monitor_that_was_killed_leaves_what_it_was_given() {
    let sandbox = Sandbox::new();
    let mut log = sandbox.start(&["events=false"]);
    log.setup(Why::PumpStart, b"").unwrap();
    log.stdout(b"safe").unwrap();
    log.crash();
    assert_eq!(sandbox.log(), "safe");
}
