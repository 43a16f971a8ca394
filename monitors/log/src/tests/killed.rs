//! Pumps that are killed while the process is kept running: whenever it happens, the log is what was written.

use super::*;
use crate::COMPRESSION;
use crate::kill::Plan;
use crate::log_file::tests::{read, unstamped};
use immortal_monitor_api::{Event, Monitor, Output, Setup, Spawn, Stream};
use proptest::prelude::*;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// What a host has a monitor do.
#[derive(Debug, Clone)]
enum Act {
    Output(Stream, Vec<u8>),
    Event(Event),
    Idle,
    /// Somebody moves the log away.
    Move,
    /// Somebody removes what a disk was full of.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "no small disk can be made there"))]
    Free,
}

/// A group whose pump is killed now and then.
struct Group {
    directory: TempDir,
    /// Where the log is.
    logs: PathBuf,
    options: Vec<String>,
    acts: Vec<Act>,
    /// How many of the acts the host knows to be done.
    done: usize,
    /// How many acts of those the host has forgotten when a pump is dead.
    forgets: usize,
    /// Whether the host asks from where on output is to be delivered again.
    asks: bool,
    /// Whether the write that a pump is killed after is half done.
    tears: bool,
    lives: i32,
    /// How long all of them took, but for their ends.
    took: Duration,
    dropped: u64,
}

/// The mode of the log, which is that of no new file.
const MODE: u32 = 0o660;

/// A directory that is as fast as can be.
pub(super) fn fast_directory() -> TempDir {
    let fast = Path::new("/dev/shm");
    if fast.is_dir() { tempfile::tempdir_in(fast).unwrap() } else { tempfile::tempdir().unwrap() }
}

impl Group {
    fn new(options: &[&str], acts: &[Act]) -> Self {
        let directory = fast_directory();
        let logs = directory.path().to_owned();
        Self::with_logs_in(logs, directory, options, acts)
    }

    fn with_logs_in(logs: PathBuf, directory: TempDir, options: &[&str], acts: &[Act]) -> Self {
        let output = format!("output={}", logs.join("log").display());
        let options = [output].into_iter().chain(options.iter().map(|option| (*option).to_owned())).collect();
        fs::create_dir(directory.path().join("group")).unwrap();
        let log = fs::File::options().append(true).create(true).open(logs.join("log")).unwrap();
        log.set_permissions(fs::Permissions::from_mode(MODE)).unwrap();
        Self {
            directory,
            logs,
            options,
            acts: acts.to_vec(),
            done: 0,
            forgets: 0,
            asks: true,
            tears: false,
            lives: 0,
            took: Duration::ZERO,
            dropped: 0,
        }
    }

    fn host(&self) -> FakeHost {
        let fake = FakeHost::new();
        fake.set_setting("on_crash", "keep");
        fake.set_setting("directory", self.directory.path().join("group").to_str().unwrap());
        fake.set_pids(Pids { process: None, monitor: 100 + self.lives, daemon: Some(10) });
        fake
    }

    /// Lets the group live: each pump is killed after so many points, the last one is not. Returns whether the first
    /// one came to that.
    fn live(&mut self, kills: &[i64]) -> bool {
        let killed: Vec<bool> = kills.iter().map(|points| self.live_once(Some(*points))).collect();
        self.live_once(None);
        killed.first() == Some(&true)
    }

    /// One life of a pump. Returns whether it was killed.
    fn live_once(&mut self, killed_after: Option<i64>) -> bool {
        let fake = self.host();
        let (is_first, tears) = (self.lives == 0, self.tears);
        self.lives += 1;
        let begin = || Plan::begin(killed_after.unwrap_or(i64::MAX), tears);
        // A group whose first pump dies before it is set up is none.
        let mut plan = (!is_first).then(begin);
        let born_at = Instant::now();
        let mut finished_at = None;
        let ended = catch_unwind(AssertUnwindSafe(|| {
            let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
            let mut log = Log::new(fake.host(), &fake.options::<Log>(&options).unwrap()).unwrap();
            let from = self.done.saturating_sub(self.forgets);
            let mut offsets = self.offsets(from);
            let mut setup = Setup::new(if is_first { Why::PumpStart } else { Why::PumpRestart }, b"");
            (setup.stdout_offset, setup.stderr_offset) = (offsets[0], offsets[1]);
            setup.kept = !is_first;
            log.setup_details(&setup).unwrap();
            plan.get_or_insert_with(begin);
            let durable = [Stream::Stdout, Stream::Stderr].map(|stream| fake.durable(stream).unwrap_or(0));
            for index in from..self.acts.len() {
                self.act(&mut log, index, &mut offsets, if self.asks { durable } else { [0; 2] });
                self.done = self.done.max(index + 1);
            }
            finished_at = Some(Instant::now());
            // The compressing thread may be dead already.
            let patience = if killed_after.is_some() {
                COMPRESSION + Duration::from_millis(5)
            } else {
                COMPRESSION * 10
            };
            log.finish(Instant::now() + patience).unwrap();
        }));
        self.took += finished_at.unwrap_or_else(Instant::now) - born_at;
        let plan = plan.expect("it was begun");
        assert!(ended.is_ok() || plan.is_over(), "panicked by itself: {:?}", fake.log());
        self.dropped = fake.reported("dropped_bytes").map_or(0, |bytes| bytes.parse().unwrap());
        plan.end()
    }

    /// The offsets of the streams before this act.
    fn offsets(&self, act: usize) -> [u64; 2] {
        let of = |wanted: Stream| {
            let lengths = self.acts[..act].iter().map(|act| match act {
                Act::Output(stream, bytes) if *stream == wanted => bytes.len(),
                Act::Output(..) | Act::Event(_) | Act::Idle | Act::Move | Act::Free => 0,
            });
            u64::try_from(lengths.sum::<usize>()).unwrap()
        };
        [of(Stream::Stdout), of(Stream::Stderr)]
    }

    fn act(&self, log: &mut Log, index: usize, offsets: &mut [u64; 2], durable: [u64; 2]) {
        match &self.acts[index] {
            Act::Output(stream, bytes) => {
                let number = usize::from(*stream == Stream::Stderr);
                let begin = offsets[number];
                let end = begin + u64::try_from(bytes.len()).unwrap();
                offsets[number] = end;
                let from = begin.max(durable[number]);
                if from < end {
                    let bytes = &bytes[usize::try_from(from - begin).unwrap()..];
                    let mut output = Output::new(*stream, bytes, from);
                    output.redelivered = index <= self.done;
                    log.output(&output).unwrap();
                }
            }
            Act::Idle => log.idle().unwrap(),
            // What is known to be done is not done again.
            _ if index < self.done => {}
            Act::Event(event) => log.event(event).unwrap(),
            Act::Move => {
                fs::rename(self.logs.join("log"), self.logs.join(format!("log.{index:03}"))).unwrap()
            }
            Act::Free => fs::remove_file(self.logs.join("filler")).unwrap(),
        }
    }

    /// The content of each file, oldest first.
    fn files(&self) -> Vec<Vec<u8>> {
        let entries = fs::read_dir(&self.logs).unwrap().map(|entry| entry.unwrap().path());
        let is_old = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("log.");
        let mut paths: Vec<PathBuf> = entries.filter(is_old).collect();
        paths.sort();
        paths.push(self.logs.join("log"));
        paths.iter().map(|path| read(path)).collect()
    }

    fn text(&self) -> Vec<u8> {
        self.files().concat()
    }

    /// The text without what the pumps say of themselves, times, and the stamps if there are any.
    fn lines(&self) -> String {
        let text: String = self.files().into_iter().map(|file| without_own(&file)).collect();
        let is_stamped = self.options.iter().any(|option| option.starts_with("timestamps="));
        if is_stamped { unstamped(&text) } else { text }
    }
}

/// A text without what pumps say of themselves, and without times.
fn without_own(text: &[u8]) -> String {
    let mut lines = String::new();
    let mut is_own = false;
    for line in core::str::from_utf8(text).unwrap().split_inclusive('\n') {
        let is_time = line.starts_with("=== Time: ");
        let is_member =
            ["=== monitor#", "=== ! monitor#", "=== daemon#"].iter().any(|own| line.starts_with(own));
        is_own = is_member || (is_own && is_time);
        if !is_own {
            lines.push_str(if is_time { "=== T\n" } else { line });
        }
    }
    lines
}

fn out(text: impl AsRef<[u8]>) -> Act {
    Act::Output(Stream::Stdout, text.as_ref().to_vec())
}

fn err(text: impl AsRef<[u8]>) -> Act {
    Act::Output(Stream::Stderr, text.as_ref().to_vec())
}

fn respawn(count: u32) -> Act {
    let mut spawn = Spawn::new(1000 + i32::try_from(count).unwrap());
    spawn.count = count;
    Act::Event(Event::Respawn(spawn))
}

fn exit(count: u32) -> Act {
    let mut exit = Exit::with_code(1000 + i32::try_from(count).unwrap(), 0);
    exit.count = count;
    Act::Event(Event::Exit(exit))
}

/// What the acts say, to the byte.
fn all(acts: &[Act]) -> Vec<u8> {
    let outputs = acts.iter().map(|act| match act {
        Act::Output(_, bytes) => bytes.as_slice(),
        Act::Event(_) | Act::Idle | Act::Move | Act::Free => b"",
    });
    outputs.flatten().copied().collect()
}

/// Kills a pump at each point of its life, and the next one once more soon after it has begun.
fn kill_everywhere(make: impl Fn() -> Group, judge: impl Fn(&Group, &str)) {
    let mut points = 0;
    let mut was_killed = true;
    while was_killed {
        was_killed = false;
        for tears in [false, true] {
            let group = loop {
                let mut group = make();
                group.forgets = usize::try_from(points % 3).unwrap();
                group.asks = points % 2 == 0;
                group.tears = tears;
                let again = [points % 7, 7 + points % 23, i64::MAX][usize::try_from(points % 3).unwrap()];
                was_killed |= group.live(&[points, again]);
                // On a busy machine; what is held back would not be held any more.
                if group.took < Duration::from_millis(900) {
                    break group;
                }
            };
            judge(&group, &format!("{:?}, killed after {points} points, {tears}", group.options));
        }
        points += 1;
    }
    assert!(points > 15, "few points: {points}");
}

const COMPRESS: [&str; 3] = ["compress=none", "compress=gzip", "compress=zstd"];

fn talk() -> Vec<Act> {
    vec![
        out("one\ntwo\nthr"),
        out("ee\n"),
        err("first\nsec"),
        out(
            "a line of more than two times as many bytes as a file is to have at most, which is cut there, is it not, ",
        ),
        out(
            "and it goes on, and on, and on, for so long that a third file is needed for it, yes, it is; now it ends\n",
        ),
        Act::Idle,
        err("ond\n"),
        out("x".repeat(50) + "\n" + &"y".repeat(40) + "\n" + &"z".repeat(30)),
        err("third\n"),
        out("\n\nlast, without an end"),
    ]
}

#[test]
fn killed_at_any_point_the_files_are_what_was_written() {
    for compress in COMPRESS {
        let acts = talk();
        let options = ["max_size=64", "keep:=null", "events=false", compress];
        kill_everywhere(
            || Group::new(&options, &acts),
            |group, when| {
                let text = group.text();
                assert_eq!(String::from_utf8_lossy(&text), String::from_utf8_lossy(&all(&acts)), "{when}");
                assert_eq!(group.dropped, 0);
                let mode = fs::metadata(group.logs.join("log")).unwrap().permissions().mode();
                assert_eq!(mode & 0o777, MODE, "{when}");
            },
        );
    }
}

#[test]
fn killed_at_any_point_every_event_is_noted_once() {
    let acts = [
        out("one\ntwo\n"),
        exit(0),
        respawn(1),
        err("three\n"),
        out("four, which is of some length\n"),
        exit(1),
        respawn(2),
        out("five\n"),
    ];
    let terminated = "=== ! process terminated ! ===\n=== T\n";
    let expected = format!(
        "one\ntwo\n{terminated}=== ! process#1001 restarted ! ===\n=== T\nthree\nfour, which is of some length\n\
         {terminated}=== ! process#1002 restarted ! ===\n=== T\nfive\n"
    );
    for options in [&["max_size=100", "keep:=null"][..], &["keep:=null"]] {
        kill_everywhere(
            || Group::new(options, &acts),
            |group, when| assert_eq!(group.lines(), expected, "{when}"),
        );
    }
}

#[test]
fn killed_at_any_point_lines_have_one_stamp_each() {
    for compress in ["compress=none", "compress=zstd"] {
        let options = ["max_size=64", "keep:=null", "events=false", "timestamps=rfc3339", compress];
        let mut quiet = Group::new(&options, &talk());
        quiet.live(&[]);
        let expected = quiet.lines();
        kill_everywhere(
            || Group::new(&options, &talk()),
            |group, when| assert_eq!(group.lines(), expected, "{when}"),
        );
    }
}

#[test]
fn killed_at_any_point_a_log_that_is_moved_away_goes_on_in_another() {
    let acts = [
        out("one\n"),
        Act::Move,
        out("two\nthr"),
        err("what goes to the file that was moved away\n"),
        exit(0),
        out("ee\n"),
        Act::Move,
        respawn(1),
        err("four\n"),
    ];
    let expected = "one\ntwo\nthrwhat goes to the file that was moved away\n\
        === ! process terminated ! ===\n=== T\nee\n=== ! process#1001 restarted ! ===\n=== T\nfour\n";
    kill_everywhere(
        || Group::new(&[], &acts),
        |group, when| {
            // A pump that begins within a line ends it.
            let lines = group.lines();
            let lines = lines.replace("thr\nwhat", "thrwhat");
            assert_eq!(lines, expected, "{when}");
        },
    );
}

/// Kills pumps that fill a disk with numbered lines, in pieces of these sizes and then as much as there is. Before the
/// last but one the disk gets room.
#[cfg(target_os = "linux")]
fn fill_a_disk(timestamps: &str, count: usize, before: &str, pieces: &[usize]) {
    use full_disk::{Disk, numbers_and_dropped};
    let bytes: Vec<u8> = (0..count).flat_map(|number| format!("{number:09}\n").into_bytes()).collect();
    let mut rest = bytes.as_slice();
    let mut acts: Vec<Act> = pieces.iter().map(|piece| out(rest.split_off(..*piece).unwrap())).collect();
    acts.push(out(rest));
    acts.insert(acts.len() - 2, Act::Free);
    let timestamps = format!("timestamps={timestamps}");
    let options = [timestamps.as_str(), "events=false"];
    let disks = std::cell::RefCell::new(Vec::new());
    let make = || {
        let disk = Disk::mount("32k").expect("it worked before");
        fs::write(disk.path("filler"), [0; 16_000]).unwrap();
        fs::write(disk.path("log"), before).unwrap();
        let logs = disk.path("");
        disks.borrow_mut().push(disk);
        Group::with_logs_in(logs, fast_directory(), &options, &acts)
    };
    if Disk::mount("32k").is_none() {
        return;
    }
    kill_everywhere(make, |group, when| {
        let text = String::from_utf8(group.text()).unwrap();
        let (numbers, said) = numbers_and_dropped(&text);
        assert!(numbers.is_sorted_by(|earlier, later| earlier < later), "out of order: {text}, {when}");
        assert_eq!(numbers.len() * 10 + usize::try_from(group.dropped).unwrap(), bytes.len(), "{when}");
        assert_eq!(said, group.dropped, "{when}");
        assert!(said > 0, "the disk was not full");
        disks.borrow_mut().clear();
    });
}

#[test]
#[cfg(target_os = "linux")]
fn killed_at_any_point_what_a_full_disk_costs_is_counted_once() {
    fill_a_disk("none", 2_400, "", &[2_403; 9]);
    fill_a_disk("tai64n", 700, "", &[703; 9]);
}

/// The disk takes four bytes of a line, the first of them with what was before.
#[test]
#[cfg(target_os = "linux")]
fn killed_at_any_point_a_line_that_a_full_disk_divides_is_dropped_whole() {
    let in_parts = |bytes| [[bytes].as_slice(), &[1; 12], &[100]].concat();
    fill_a_disk("none", 1_700, "", &in_parts(16_382));
    fill_a_disk("tai64n", 500, "=== ! 0 x\n", &in_parts(4_542));
}

/// What a process may do, in pieces of any size.
fn some_acts(with_events: bool) -> impl Strategy<Value = Vec<Act>> {
    let bytes = |letters: core::ops::RangeInclusive<u8>| {
        prop::collection::vec(prop_oneof![9 => letters, 1 => Just(b'\n')], 0..200)
    };
    let act = prop_oneof![
        6 => bytes(b'a'..=b'z').prop_map(out),
        3 => bytes(b'A'..=b'Z').prop_map(err),
        1 => Just(Act::Idle),
        2 => Just(exit(0)),
    ];
    prop::collection::vec(act, 1..25).prop_map(move |mut acts| {
        let mut count = 0;
        for act in &mut acts {
            if matches!(act, Act::Event(_)) {
                let is_exit = count % 2 == 0;
                *act = match (with_events, is_exit) {
                    (true, true) => exit(count / 2),
                    (true, false) => respawn(count / 2 + 1),
                    (false, _) => Act::Idle,
                };
                count += 1;
            }
        }
        acts
    })
}

fn some_kills() -> impl Strategy<Value = Vec<i64>> {
    prop::collection::vec(prop_oneof![0_i64..8, 0_i64..40, 0_i64..200], 0..5)
}

/// The letters of a stream, in order.
fn letters(text: &str, is_of_stream: fn(&char) -> bool) -> String {
    text.chars().filter(is_of_stream).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn killed_again_and_again_the_files_are_what_was_written(
        acts in some_acts(false),
        kills in some_kills(),
        (forgets, asks, tears) in (0_usize..4, any::<bool>(), any::<bool>()),
        (max, compress) in (64_u32..400, prop::sample::select(COMPRESS.to_vec())),
    ) {
        let max_size = format!("max_size={max}");
        let mut group = Group::new(&[&max_size, "keep:=null", "events=false", compress], &acts);
        (group.forgets, group.asks, group.tears) = (forgets, asks, tears);
        group.live(&kills);
        prop_assert_eq!(String::from_utf8(group.text()).unwrap(), String::from_utf8(all(&acts)).unwrap());
        prop_assert_eq!(group.dropped, 0);
    }

    #[test]
    fn killed_again_and_again_every_line_has_one_stamp_and_every_event_its_place(
        acts in some_acts(true),
        kills in some_kills(),
        (forgets, asks, tears) in (0_usize..4, any::<bool>(), any::<bool>()),
        (max, stamps) in (100_u32..400, prop::sample::select(vec!["none", "rfc3339", "tai64n"])),
    ) {
        let (max_size, timestamps) = (format!("max_size={max}"), format!("timestamps={stamps}"));
        let mut group = Group::new(&[&max_size, "keep:=null", &timestamps], &acts);
        if stamps == "none" {
            group.options.pop();
        }
        (group.forgets, group.asks, group.tears) = (forgets, asks, tears);
        group.live(&kills);
        let lines = group.lines();
        let written = String::from_utf8(all(&acts)).unwrap();
        let (events, output): (Vec<&str>, Vec<&str>) =
            lines.split_inclusive('\n').partition(|line| line.starts_with("==="));
        let output = output.concat();
        for is_of_stream in [char::is_ascii_lowercase, char::is_ascii_uppercase] {
            prop_assert_eq!(letters(&output, is_of_stream), letters(&written, is_of_stream));
        }
        prop_assert!(!output.contains("==="), "within a line: {}", lines);
        let expected = acts.iter().filter_map(|act| match act {
            Act::Event(Event::Exit(_)) => Some("=== ! process terminated ! ===\n=== T\n".to_owned()),
            Act::Event(Event::Respawn(spawn)) => {
                Some(format!("=== ! process#{} restarted ! ===\n=== T\n", spawn.pid))
            }
            Act::Event(_) | Act::Output(..) | Act::Idle | Act::Move | Act::Free => None,
        });
        prop_assert_eq!(events.concat(), expected.collect::<String>());
        prop_assert_eq!(group.dropped, 0);
    }
}

impl Sandbox {
    /// A sandbox whose process is kept running when its pump dies.
    fn keeping() -> Self {
        let sandbox = Self::new();
        fs::create_dir(sandbox.path("group")).unwrap();
        sandbox.fake.set_setting("on_crash", "keep");
        sandbox.fake.set_setting("directory", sandbox.path("group").to_str().unwrap());
        sandbox
    }

    /// Starts a pump after one that was killed, which had delivered so much of stdout and nothing of stderr.
    fn restart(&self, why: Why, delivered: u64) -> Driver {
        let mut log = self.start(&["events=false"]);
        let mut setup = Setup::new(why, b"");
        setup.stdout_offset = delivered;
        log.setup_details(&setup).unwrap();
        log
    }

    fn first(&self) -> Driver {
        self.restart(Why::PumpStart, 0)
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    /// Adds to the log what a pump wrote that was killed right afterwards.
    fn half_done(&self, bytes: &str) {
        use std::io::Write;
        let mut file = fs::File::options().append(true).open(self.path("log")).unwrap();
        file.write_all(bytes.as_bytes()).unwrap();
    }
}

#[test]
fn only_who_is_to_keep_the_process_has_a_file_for_it() {
    for (on_crash, files) in [("keep", 1), ("respawn", 0)] {
        let sandbox = Sandbox::keeping();
        sandbox.fake.set_setting("on_crash", on_crash);
        let mut log = sandbox.first();
        log.stdout(b"one\n").unwrap();
        assert_eq!(fs::read_dir(sandbox.path("group")).unwrap().count(), files, "{on_crash}");
        let durable = sandbox.fake.durable(Stream::Stdout);
        log.crash();
        let log = sandbox.restart(Why::PumpRestart, 0);
        assert_eq!(sandbox.fake.durable(Stream::Stdout), (files == 1).then_some(4), "{on_crash}");
        assert_eq!(durable, None, "said too early");
        log.finish(Duration::from_secs(1)).unwrap();
    }
    let sandbox = Sandbox::keeping();
    let mut log = sandbox.fake.start::<Log>(&["output:=null"]).unwrap();
    log.setup(Why::PumpStart, b"").unwrap();
    log.stdout(b"one\n").unwrap();
    assert_eq!(fs::read_dir(sandbox.path("group")).unwrap().count(), 0);
}

#[test]
fn what_a_killed_pump_wrote_and_did_not_say_is_cut_off() {
    let sandbox = Sandbox::keeping();
    let mut log = sandbox.first();
    log.stdout(b"one\nhal").unwrap();
    log.crash();
    sandbox.half_done("f\ntwo");
    let mut log = sandbox.restart(Why::DaemonRestart, 4);
    assert_eq!(sandbox.text(), "one\nhal");
    assert_eq!(sandbox.fake.durable(Stream::Stdout), Some(7));
    assert_eq!(sandbox.fake.durable(Stream::Stderr), Some(0));
    let mut again = Output::new(Stream::Stdout, b"half\ntwo\n", 4);
    again.redelivered = true;
    log.output(&again).unwrap();
    assert_eq!(sandbox.text(), "one\nhalf\ntwo\n");
    again.offset = 0;
    again.bytes = b"one\nhalf\n";
    log.output(&again).unwrap();
    assert_eq!(sandbox.text(), "one\nhalf\ntwo\n");
}

#[test]
fn a_new_group_does_not_go_on_where_another_of_its_name_was_killed() {
    let sandbox = Sandbox::keeping();
    let mut log = sandbox.first();
    log.stdout(b"one\n").unwrap();
    log.crash();
    sandbox.half_done("two\n");
    let mut log = sandbox.first();
    log.stdout(b"three\n").unwrap();
    assert_eq!(sandbox.text(), "one\ntwo\nthree\n");
    assert_eq!(sandbox.fake.durable(Stream::Stdout), None);
}

#[test]
fn a_log_that_was_moved_away_meanwhile_is_left_as_it_is() {
    let sandbox = Sandbox::keeping();
    let mut log = sandbox.first();
    log.stdout(b"one\nhal").unwrap();
    log.crash();
    fs::rename(sandbox.path("log"), sandbox.path("moved")).unwrap();
    for theirs in ["", "theirs\n"] {
        fs::write(sandbox.path("log"), theirs).unwrap();
        let mut log = sandbox.restart(Why::PumpRestart, 7);
        log.output(&Output::new(Stream::Stdout, b"lf\n", 6)).unwrap();
        assert_eq!(sandbox.text(), format!("{theirs}f\n"));
        log.crash();
        fs::remove_file(sandbox.path("log")).unwrap();
        // As if this pump had never been.
        fs::remove_file(sandbox.path("group/test.delivered")).unwrap();
        let mut log = sandbox.first();
        log.stdout(b"one\nhal").unwrap();
        log.crash();
        fs::remove_file(sandbox.path("log")).unwrap();
    }
    assert_eq!(fs::read_to_string(sandbox.path("moved")).unwrap(), "one\nhal");
}

#[test]
fn a_log_that_was_cut_meanwhile_is_gone_on_with_at_its_end() {
    let sandbox = Sandbox::keeping();
    let mut log = sandbox.first();
    log.stdout(b"one\ntwo\n").unwrap();
    log.crash();
    fs::write(sandbox.path("log"), "on").unwrap();
    let mut log = sandbox.restart(Why::PumpRestart, 8);
    log.stdout(b"three\n").unwrap();
    assert_eq!(sandbox.text(), "onthree\n");
}

#[test]
fn a_log_that_somebody_else_writes_to_is_not_cut() {
    let sandbox = Sandbox::keeping();
    let mut log = sandbox.first();
    sandbox.half_done("theirs\n");
    // After so much it is looked at.
    let much = "x".repeat(1 << 20) + "\n";
    log.stdout(much.as_bytes()).unwrap();
    log.stdout(b"two\n").unwrap();
    log.crash();
    sandbox.half_done("theirs, too\n");
    let mut log = sandbox.restart(Why::PumpRestart, u64::try_from(much.len()).unwrap() + 4);
    log.stdout(b"three\n").unwrap();
    assert_eq!(sandbox.text().replace('x', ""), "theirs\n\ntwo\ntheirs, too\nthree\n");
}

#[test]
fn a_log_that_was_left_in_order_is_not_cut() {
    let sandbox = Sandbox::keeping();
    let mut log = sandbox.first();
    log.stdout(b"one\nhal").unwrap();
    log.finish(Duration::from_secs(1)).unwrap();
    sandbox.half_done("f, of another monitor\n");
    let mut log = sandbox.restart(Why::Reload, 7);
    log.stdout(b"two\n").unwrap();
    log.crash();
    sandbox.half_done("thr");
    let _log = sandbox.restart(Why::PumpRestart, 7);
    assert_eq!(sandbox.text(), "one\nhalf, of another monitor\ntwo\n");
}

#[test]
fn another_log_after_a_reload_begins_where_the_first_one_ends() {
    let sandbox = Sandbox::keeping();
    let mut log = sandbox.first();
    log.stdout(b"one\ntwo\n").unwrap();
    log.crash();
    let output = format!("output={}", sandbox.path("other").display());
    let mut log = sandbox.fake.start::<Log>(&[&output, "events=false"]).unwrap();
    let mut setup = Setup::new(Why::Reload, b"");
    setup.stdout_offset = 4;
    log.setup_details(&setup).unwrap();
    log.output(&Output::new(Stream::Stdout, b"two\nthree\n", 4)).unwrap();
    assert_eq!(sandbox.text(), "one\ntwo\n");
    assert_eq!(fs::read_to_string(sandbox.path("other")).unwrap(), "three\n");
}

#[test]
fn a_checkpoint_that_could_not_be_replaced_does_not_cost_what_was_written_since() {
    let sandbox = Sandbox::keeping();
    let mut log = sandbox.first();
    log.stdout(b"one\n").unwrap();
    let old = fs::read(sandbox.path("group/test.delivered")).unwrap();
    log.stdout(b"two\n").unwrap();
    log.crash();
    fs::write(sandbox.path("group/test.delivered"), old).unwrap();
    let mut log = sandbox.restart(Why::PumpRestart, 8);
    assert_eq!(sandbox.fake.durable(Stream::Stdout), None);
    log.stdout(b"three\n").unwrap();
    assert_eq!(sandbox.text(), "one\ntwo\nthree\n");
}

#[test]
fn without_room_for_checkpoints_the_log_is_written_all_the_same() {
    let sandbox = Sandbox::keeping();
    fs::remove_dir(sandbox.path("group")).unwrap();
    let mut log = sandbox.first();
    log.stdout(b"one\n").unwrap();
    log.crash();
    let mut log = sandbox.restart(Why::PumpRestart, 4);
    log.stdout(b"two\n").unwrap();
    assert_eq!(sandbox.text(), "one\ntwo\n");
    let checkpoint = sandbox.path("group/test.delivered").display().to_string();
    // A thread of another test may log here, too.
    let warnings: Vec<_> =
        sandbox.fake.log().into_iter().filter(|record| record.text.contains(&checkpoint)).collect();
    assert_eq!(warnings.len(), 2, "one for each pump: {warnings:?}");
    assert!(warnings.iter().all(|record| record.level == log::Level::Warn), "{warnings:?}");
}

#[test]
fn a_reload_is_noted_as_such() {
    let sandbox = Sandbox::keeping();
    let mut log = sandbox.start(&[]);
    let mut setup = Setup::new(Why::Reload, b"");
    (setup.kept, setup.process_pid) = (true, Some(12));
    log.setup_details(&setup).unwrap();
    assert_eq!(sandbox.log(), "=== ! monitor#11 restarted ! ===\nT\n");
}

#[test]
fn a_process_that_was_kept_running_was_not_restarted() {
    let sandbox = Sandbox::keeping();
    let pid_file = format!("pid_file={}", sandbox.path("pids.json").display());
    let mut log = sandbox.start(&[&pid_file]);
    let mut setup = Setup::new(Why::DaemonRestart, b"last words");
    (setup.kept, setup.process_pid) = (true, Some(12));
    log.setup_details(&setup).unwrap();
    let mut spawn = Spawn::new(12);
    spawn.kept = true;
    log.event(&Event::Respawn(spawn)).unwrap();
    assert_eq!(
        sandbox.log(),
        "=== ! An error occured in the monitor ! ===\nT\nlast words\n=== error message end ===\n\
         === ! monitor#11 restarted ! ===\nT\n=== ! daemon#10 restarted ! ===\nT\n"
    );
    let pids = fs::read_to_string(sandbox.path("pids.json")).unwrap();
    assert_eq!(pids, "{\"process\":12,\"monitor\":11,\"daemon\":10}\n");
}
