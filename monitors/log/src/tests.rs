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

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_log_that_can_be_written_again_says_so_while_the_process_is_silent() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("inner")).unwrap();
    let output = format!("output={}", sandbox.path("inner/log").display());
    let mut log = sandbox.fake.start::<Log>(&[&output]).unwrap();
    log.setup(Why::PumpStart, b"").unwrap();
    fs::remove_dir_all(sandbox.path("inner")).unwrap();
    log.spawn(12).unwrap();
    log.stdout(b"lost\n").unwrap();
    fs::create_dir(sandbox.path("inner")).unwrap();
    let text = || fs::read_to_string(sandbox.path("inner/log")).unwrap_or_default();
    wait_until("the line that says what was dropped", || text().ends_with("could not be written ! ===\n"));
    log.stdout(b"kept\n").unwrap();
    assert!(text().ends_with("===\nkept\n"), "{}", text());
}

#[test]
fn a_group_that_ends_leaves_its_old_files_compressed() {
    let sandbox = Sandbox::new();
    let mut log = sandbox.start(&["max_size=1KiB", "compress=gzip", "keep:=null"]);
    log.setup(Why::PumpStart, b"").unwrap();
    for _ in 0..10 {
        log.stdout(&[[b'x'; 299].as_slice(), b"\n"].concat()).unwrap();
    }
    log.finish(Duration::from_secs(5)).unwrap();
    let entries = fs::read_dir(sandbox.directory.path()).unwrap();
    let names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names.iter().filter(|name| name.ends_with("Z.gz")).count(), 3, "{names:?}");
    assert_eq!(names.len(), 4, "{names:?}");
}

#[test]
fn stamps_are_before_output_and_not_before_events() {
    let sandbox = Sandbox::new();
    let mut log = sandbox.start(&["timestamps=rfc3339"]);
    log.setup(Why::PumpStart, b"").unwrap();
    fs::write(sandbox.path("log"), "").unwrap();
    log.stdout(b"one\ntwo").unwrap();
    log.exit(&Exit::with_code(12, 0)).unwrap();
    let text = sandbox.log();
    let rests: Vec<&str> = text.lines().map(|line| line.get(30..).unwrap_or_default()).collect();
    assert_eq!(rests[..2], ["one", "two"], "{text}");
    assert!(text.ends_with("two\n=== ! process terminated ! ===\nT\n"), "{text}");
}

#[test]
fn options_that_would_not_do_what_was_meant_are_refused() {
    let sandbox = Sandbox::new();
    for (options, why) in [
        (["max_size=10", "keep=1"], "option max_size=10: less than 64 bytes"),
        (["keep=-1", "max_size=1KiB"], "option keep: less than 0; null keeps all"),
        (["max_total=1MiB", "rotate_every=1h"], "option max_total: needs max_size as well"),
        (["max_total=1MiB", "max_size=1MiB"], "option max_total: less than twice max_size"),
        (["rotate_every=10ms", "keep=1"], "option rotate_every: less than a second"),
        (["compress=gzip", "keep=1"], "option compress: nothing is rotated without max_size or rotate_every"),
        (["compress=xz", "max_size=1KiB"], "option compress=xz: not one of none, gzip, zstd"),
        (["timestamps=iso", "keep=1"], "option timestamps=iso: not one of none, rfc3339, tai64n"),
    ] {
        assert_eq!(sandbox.refusal(&[&sandbox.output(), options[0], options[1]]), why);
    }
    let device = sandbox.refusal(&["output=/dev/null", "max_size=1KiB"]);
    assert_eq!(device, "option output=/dev/null: cannot be rotated: not a regular file");
    let all = ["max_size=1MiB", "max_total=10MiB", "rotate_every=24h", "keep:=null", "compress=zstd"];
    let output = sandbox.output();
    let all: Vec<&str> = all.into_iter().chain([output.as_str()]).collect();
    sandbox.fake.check::<Log>(&all).unwrap();
    assert!(directory_is_empty(sandbox.directory.path()));
}

mod killed;
mod sigkill;

/// Nothing but root can mount a disk that is full so soon, and not everywhere.
#[cfg(target_os = "linux")]
mod full_disk {
    use super::*;
    use crate::log_file::tests::read;
    use std::process::Command;

    pub(super) struct Disk {
        directory: TempDir,
    }

    impl Disk {
        pub(super) fn mount(size: &str) -> Option<Self> {
            let directory = tempfile::tempdir().unwrap();
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(directory.path());
            let is_mounted = mount.output().is_ok_and(|output| output.status.success());
            is_mounted.then_some(Self { directory })
        }

        pub(super) fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }
    }

    impl Drop for Disk {
        fn drop(&mut self) {
            let unmounted = Command::new("umount").arg("-l").arg(self.directory.path()).status().unwrap();
            assert!(unmounted.success());
        }
    }

    /// What a log says: the numbers in it, in order, and how many bytes it says were dropped.
    pub(super) fn numbers_and_dropped(text: &str) -> (Vec<u64>, u64) {
        let (mut numbers, mut dropped) = (Vec::new(), 0);
        for line in text.split_inclusive('\n') {
            let line = line.strip_suffix('\n').expect("a whole line");
            match line.strip_prefix("=== ! ") {
                Some(notice) => {
                    dropped += notice.split(' ').next().unwrap().parse::<u64>().unwrap();
                }
                None => {
                    let line = line.rsplit(' ').next().unwrap();
                    assert_eq!(line.len(), 9, "a whole number: {line:?}");
                    numbers.push(line.parse().unwrap());
                }
            }
        }
        (numbers, dropped)
    }

    #[test]
    fn a_full_disk_costs_whole_lines_and_every_one_is_counted() {
        // Chunks that end with a line, and with a page of the disk, are the special ones.
        for (timestamps, chunk_bytes) in
            [("none", 4_090), ("none", 4_096), ("rfc3339", 4_093), ("tai64n", 4_096)]
        {
            let Some(disk) = Disk::mount("256k") else { return };
            let (path, filler) = (disk.path("log"), disk.path("filler"));
            let fake = FakeHost::new();
            let options = [
                format!("output={}", path.display()),
                format!("timestamps={timestamps}"),
                "events=false".to_owned(),
            ];
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            let mut log = fake.start::<Log>(&options).unwrap();
            log.setup(Why::PumpStart, b"").unwrap();
            fs::write(&filler, vec![0; 100 << 10]).unwrap();
            let bytes: Vec<u8> =
                (0..60_000).flat_map(|number| format!("{number:09}\n").into_bytes()).collect();
            for (index, chunk) in bytes.chunks(chunk_bytes).enumerate() {
                log.stdout(chunk).unwrap();
                if index == 60 {
                    fs::remove_file(&filler).unwrap();
                    std::thread::sleep(crate::log_file::RETRY * 2);
                }
            }
            fs::copy(&path, disk.directory.path().with_extension("copy")).unwrap();
            let copy = disk.directory.path().with_extension("copy");
            let first = fs::read_to_string(&copy).unwrap();
            fs::remove_file(&copy).unwrap();
            fs::write(&path, "").unwrap();
            log.finish(Duration::from_secs(1)).unwrap();
            let text = first + &fs::read_to_string(&path).unwrap();

            let (numbers, dropped) = numbers_and_dropped(&text);
            assert!(numbers.is_sorted_by(|earlier, later| earlier < later), "out of order");
            assert!(numbers.iter().any(|number| *number > 25_000), "writing was not taken up again");
            let lost = (60_000 - numbers.len()) * 10;
            assert_eq!(dropped, u64::try_from(lost).unwrap(), "{timestamps}");
            assert_eq!(fake.reported("dropped_bytes"), Some(lost.to_string()), "{timestamps}");
        }
    }

    #[test]
    fn rotation_on_a_full_disk_loses_nothing_but_what_is_counted() {
        for compress in ["none", "gzip", "zstd"] {
            let Some(disk) = Disk::mount("256k") else { return };
            let path = disk.path("log");
            let fake = FakeHost::new();
            let options = [
                format!("output={}", path.display()),
                format!("compress={compress}"),
                "max_size=10KiB".to_owned(),
                "keep:=null".to_owned(),
                "events=false".to_owned(),
            ];
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            let mut log = fake.start::<Log>(&options).unwrap();
            log.setup(Why::PumpStart, b"").unwrap();
            let bytes: Vec<u8> =
                (0..100_000).flat_map(|number| format!("{number:09}\n").into_bytes()).collect();
            for chunk in bytes.chunks(10 << 10) {
                log.stdout(chunk).unwrap();
            }
            let dropped = fake.reported("dropped_bytes").map_or(0, |bytes| bytes.parse::<usize>().unwrap());
            log.finish(Duration::from_secs(5)).unwrap();
            let entries = fs::read_dir(disk.directory.path()).unwrap();
            let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
            paths.retain(|other| *other != path);
            paths.sort();
            paths.push(path);
            let text: Vec<u8> =
                paths.iter().filter(|path| path.exists()).flat_map(|path| read(path)).collect();
            let (numbers, _) = numbers_and_dropped(&String::from_utf8(text).unwrap());
            assert!(numbers.is_sorted_by(|earlier, later| earlier < later), "out of order");
            assert_eq!(numbers.len() * 10 + dropped, bytes.len(), "{compress}");
        }
    }
}
