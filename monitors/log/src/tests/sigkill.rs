//! The same with real processes and SIGKILL: a child delivers, as a pump does, and is killed at any moment.

use super::*;
use crate::log_file::tests::{read, unstamped};
use immortal_monitor_api::{Output, Setup, Stream};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

/// Tells a child where to work, whether it is the first, how it writes, and up to where in each stream.
const DIRECTORY: &str = "LOG_TEST_DIRECTORY";
const IS_FIRST: &str = "LOG_TEST_IS_FIRST";
const TIMESTAMPS: &str = "LOG_TEST_TIMESTAMPS";
const END: &str = "LOG_TEST_END";

const KILLS: usize = 120;

/// Numbers without order, to tell chunks and moments by.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// What the process writes at these offsets: numbered lines, in letters of each stream's own. Without stamps stderr
/// has no lines, so that every byte says what it belongs to.
fn content(stream: usize, is_stamped: bool, range: std::ops::Range<u64>) -> Vec<u8> {
    let (first, line_bytes) = [(b'a', 40), (b'A', 37)][stream];
    let byte = |offset: u64| {
        let (number, column) = (offset / line_bytes, offset % line_bytes);
        if column + 1 == line_bytes && (stream == 0 || is_stamped) {
            return b'\n';
        }
        let digit = number / 10_u64.pow(u32::try_from(column).unwrap() % 10) % 10;
        first + u8::try_from(digit).unwrap()
    };
    range.map(byte).collect()
}

/// Up to where the host knows each stream to be delivered.
fn acknowledged(file: &File) -> [u64; 2] {
    [0, 8].map(|at| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at).unwrap();
        u64::from_le_bytes(bytes)
    })
}

/// No test of its own: the child.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let directory = PathBuf::from(directory);
    let is_stamped = std::env::var(TIMESTAMPS).unwrap() != "none";
    let end: u64 = std::env::var(END).unwrap().parse().unwrap();
    let state = File::options().read(true).write(true).open(directory.join("state")).unwrap();
    println!("\nready");

    let fake = FakeHost::new();
    fake.set_setting("on_crash", "keep");
    fake.set_setting("directory", directory.join("group").to_str().unwrap());
    let output = format!("output={}", directory.join("log").display());
    let timestamps = format!("timestamps={}", std::env::var(TIMESTAMPS).unwrap());
    let compress = if is_stamped { "compress=zstd" } else { "compress=gzip" };
    let options = [&output, &timestamps, "max_size=64KiB", "keep:=null", "events=false", compress];
    let mut log = fake.start::<Log>(&options).unwrap();
    let mut offsets = acknowledged(&state);
    let is_first = std::env::var(IS_FIRST).unwrap() == "true";
    let mut setup = Setup::new(if is_first { Why::PumpStart } else { Why::PumpRestart }, b"");
    (setup.stdout_offset, setup.stderr_offset) = (offsets[0], offsets[1]);
    log.setup_details(&setup).unwrap();
    let mut dice = Dice(u64::from(std::process::id()) << 20 | 12_345);
    if dice.throw(2) == 0 {
        // Otherwise what is in the log already is delivered once more.
        offsets = [Stream::Stdout, Stream::Stderr].map(|stream| fake.durable(stream).unwrap_or(0));
    }
    while offsets.iter().any(|offset| *offset < end) {
        let stream = usize::from(dice.throw(3) == 0);
        let most = if dice.throw(50) == 0 { 20_000 } else { 300 };
        let next = (offsets[stream] + 1 + dice.throw(most)).min(end);
        let bytes = content(stream, is_stamped, offsets[stream]..next);
        let which = [Stream::Stdout, Stream::Stderr][stream];
        log.output(&Output::new(which, &bytes, offsets[stream])).unwrap();
        offsets[stream] = next;
        let known = acknowledged(&state);
        let now = [0, 1].map(|stream| offsets[stream].max(known[stream]).to_le_bytes());
        state.write_all_at(now.as_flattened(), 0).unwrap();
    }
    log.finish(Duration::from_secs(5)).unwrap();
}

/// Starts a child and waits until it begins. What it writes besides is to be read as long as it lives.
fn spawn_child(
    directory: &Path,
    is_first: bool,
    timestamps: &str,
    end: u64,
) -> (Child, impl Iterator<Item = String>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "tests::sigkill::child", "--nocapture"]).stdout(Stdio::piped());
    command.env(DIRECTORY, directory).env(IS_FIRST, is_first.to_string());
    command.env(TIMESTAMPS, timestamps).env(END, end.to_string());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line == "ready"), "{:?}", child.wait());
    (child, lines)
}

/// Kills pumps one after the other, lets the last one end, and looks whether the log is what was written.
fn kill_many(timestamps: &str) {
    let directory = killed::fast_directory();
    let directory = directory.path();
    fs::create_dir(directory.join("group")).unwrap();
    fs::write(directory.join("state"), [0; 16]).unwrap();
    let mut dice = Dice(0x5eed);
    for index in 0..KILLS {
        let (mut child, _lines) = spawn_child(directory, index == 0, timestamps, u64::MAX);
        std::thread::sleep(Duration::from_micros(dice.throw(4_000)));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }
    let state = File::open(directory.join("state")).unwrap();
    let end = acknowledged(&state).into_iter().max().unwrap() + 50_000;
    let (mut child, lines) = spawn_child(directory, false, timestamps, end);
    let said: Vec<String> = lines.collect();
    assert!(child.wait().unwrap().success(), "{said:?}");

    let mut files: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("log."));
    files.sort();
    files.push(directory.join("log"));
    let text = String::from_utf8(files.iter().flat_map(|path| read(path)).collect()).unwrap();
    let is_stamped = timestamps != "none";
    let text = if is_stamped { unstamped(&text) } else { text };
    let is_of_stdout = |c: &char| c.is_ascii_lowercase() || (*c == '\n' && !is_stamped);
    let delivered: [String; 2] = [
        text.chars().filter(is_of_stdout).collect(),
        text.chars().filter(char::is_ascii_uppercase).collect(),
    ];
    for (stream, delivered) in delivered.into_iter().enumerate() {
        let mut written = content(stream, is_stamped, 0..end);
        written.retain(|byte| !is_stamped || *byte != b'\n');
        let same = delivered.bytes().zip(&written).take_while(|(one, other)| one == *other).count();
        assert!(
            delivered.as_bytes() == written,
            "stream {stream} with {timestamps}: {} of {} bytes, another one at {same}",
            delivered.len(),
            written.len()
        );
    }
}

#[test]
fn pumps_that_are_killed_at_any_moment_leave_every_byte_once() {
    kill_many("none");
}

#[test]
fn pumps_that_are_killed_at_any_moment_leave_every_byte_once_with_stamps() {
    kill_many("rfc3339");
}
