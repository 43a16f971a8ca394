//! The file as a whole, with the time in the tests' hands.

use super::*;
use crate::archive::Compression;
use immortal_monitor_api::fake::FakeHost;
use jiff::Timestamp;
use proptest::prelude::*;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::UNIX_EPOCH;
use tempfile::TempDir;

struct Sandbox {
    directory: TempDir,
    fake: FakeHost,
    log: LogFile,
    /// What the clock shows.
    now: SystemTime,
}

impl Sandbox {
    fn new(timestamps: Option<Format>, rotation: Option<config::Rotation>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fake = FakeHost::new();
        let log = LogFile::new(directory.path().join("log"), timestamps, rotation, fake.host());
        let mut sandbox = Self { directory, fake, log, now: SystemTime::now() };
        sandbox.log.open(sandbox.now).unwrap();
        sandbox
    }

    fn plain() -> Self {
        Self::new(None, None)
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn pass(&mut self, span: Duration) {
        self.now += span;
    }

    fn out(&mut self, bytes: &[u8]) {
        self.log.append(Source::Stdout, bytes, self.now);
    }

    fn err(&mut self, bytes: &[u8]) {
        self.log.append(Source::Stderr, bytes, self.now);
    }

    fn event(&mut self) {
        self.log.append_lines(b"=== event ===\n", self.now);
    }

    fn dropped(&self) -> u64 {
        self.fake.reported("dropped_bytes").map_or(0, |bytes| bytes.parse().unwrap())
    }

    /// The current file.
    fn text(&self) -> String {
        String::from_utf8(fs::read(self.path()).unwrap()).unwrap()
    }

    /// The current file without its stamps, which must all be of the same form.
    fn lines(&self) -> String {
        unstamped(&self.text())
    }

    /// The names of the old files, sorted.
    fn old(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name != "log").collect();
        names.sort();
        names
    }

    /// The content of each file, oldest first, the current one last.
    fn files(&self) -> Vec<Vec<u8>> {
        let old = self.old().into_iter().map(|name| read(&self.directory.path().join(name)));
        old.chain([fs::read(self.path()).unwrap()]).collect()
    }
}

/// Waits until the clock of a file system, which stands still between ticks, shows another time.
fn outlast_a_tick() {
    std::thread::sleep(Duration::from_millis(30));
}

/// The content of a file, decompressed.
pub(crate) fn read(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).unwrap();
            plain
        }
        Some("zst") => zstd::decode_all(bytes.as_slice()).unwrap(),
        _ => bytes,
    }
}

/// A text without its stamps, which must all be of the same form.
pub(crate) fn unstamped(text: &str) -> String {
    let lines = text.split_inclusive('\n').map(|line| {
        if line.starts_with("===") {
            return line;
        }
        let (stamp, rest) = line.split_once(' ').unwrap_or_else(|| panic!("no stamp: {line:?}"));
        if let Some(digits) = stamp.strip_prefix('@') {
            assert_eq!(digits.len(), 24, "{line:?}");
            u128::from_str_radix(digits, 16).unwrap();
        } else {
            assert_eq!(stamp.len(), 29, "{line:?}");
            stamp.parse::<Timestamp>().unwrap();
        }
        rest
    });
    lines.collect()
}

fn rotation(max_bytes: u64) -> config::Rotation {
    config::Rotation {
        max_bytes: Some(max_bytes),
        every: None,
        keep: None,
        max_total_bytes: None,
        compression: Compression::None,
    }
}

const FORMATS: [Format; 2] = [Format::Rfc3339, Format::Tai64n];

#[test]
#[cfg(target_os = "linux")]
fn what_a_full_disk_does_not_take_is_counted_and_said_once_it_does() {
    let mut sandbox = Sandbox::plain();
    let path = sandbox.path();
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    sandbox.event();
    sandbox.out(b"12345");
    sandbox.out(b"678\n");
    assert_eq!(sandbox.dropped(), 14 + 9);
    fs::remove_file(&path).unwrap();
    sandbox.pass(LOOK);
    sandbox.out(b"back\n");
    sandbox.out(b"again\n");
    assert_eq!(sandbox.text(), "=== ! 23 bytes dropped, the log could not be written ! ===\nback\nagain\n");
    assert_eq!(sandbox.dropped(), 23, "the count stays");
}

#[test]
fn a_lost_directory_that_comes_back_gets_the_rest() {
    let mut sandbox = Sandbox::plain();
    let inner = sandbox.directory.path().join("inner");
    sandbox.log.path = inner.join("log");
    sandbox.event();
    sandbox.out(b"lost\n");
    fs::create_dir(&inner).unwrap();
    sandbox.pass(RETRY);
    sandbox.out(b"kept\n");
    let text = fs::read_to_string(inner.join("log")).unwrap();
    assert_eq!(text, "=== ! 19 bytes dropped, the log could not be written ! ===\nkept\n");
}

#[test]
fn a_directory_in_place_of_the_file_costs_what_is_written_meanwhile() {
    let mut sandbox = Sandbox::plain();
    sandbox.out(b"before\n");
    outlast_a_tick();
    fs::remove_file(sandbox.path()).unwrap();
    fs::create_dir(sandbox.path()).unwrap();
    sandbox.pass(LOOK);
    sandbox.out(b"lost\n");
    fs::remove_dir(sandbox.path()).unwrap();
    sandbox.pass(RETRY);
    sandbox.out(b"after\n");
    assert_eq!(sandbox.text(), "=== ! 5 bytes dropped, the log could not be written ! ===\nafter\n");
}

#[test]
fn a_file_that_cannot_be_opened_is_not_tried_at_every_write() {
    let mut sandbox = Sandbox::plain();
    fs::remove_file(sandbox.path()).unwrap();
    fs::create_dir(sandbox.path()).unwrap();
    sandbox.event();
    fs::remove_dir(sandbox.path()).unwrap();
    sandbox.pass(RETRY / 2);
    sandbox.out(b"too early\n");
    assert!(!sandbox.path().exists());
    sandbox.pass(RETRY / 2);
    sandbox.out(b"now\n");
    assert_eq!(sandbox.text(), "=== ! 24 bytes dropped, the log could not be written ! ===\nnow\n");
}

#[test]
fn the_rest_of_a_line_whose_beginning_was_dropped_is_dropped_too() {
    let mut sandbox = Sandbox::plain();
    fs::remove_file(sandbox.path()).unwrap();
    fs::create_dir(sandbox.path()).unwrap();
    sandbox.pass(LOOK);
    sandbox.out(b"one\ntw");
    fs::remove_dir(sandbox.path()).unwrap();
    sandbox.pass(RETRY);
    sandbox.err(b"other\n");
    sandbox.out(b"o\nthree\n");
    assert_eq!(
        sandbox.text(),
        "=== ! 6 bytes dropped, the log could not be written ! ===\nother\n\
         === ! 2 bytes dropped, the log could not be written ! ===\nthree\n"
    );
    assert_eq!(sandbox.dropped(), 8);
}

#[test]
fn output_without_any_newline_is_not_dropped_for_ever() {
    let mut sandbox = Sandbox::plain();
    fs::remove_file(sandbox.path()).unwrap();
    fs::create_dir(sandbox.path()).unwrap();
    sandbox.pass(LOOK);
    sandbox.out(b"x");
    fs::remove_dir(sandbox.path()).unwrap();
    sandbox.pass(RETRY);
    sandbox.out(&vec![b'y'; SKIP_BYTES + 7]);
    assert!(sandbox.text().ends_with("===\nyyyyyyy"), "{}", sandbox.text());
    assert_eq!(sandbox.dropped(), 1 + u64::try_from(SKIP_BYTES).unwrap());
}

#[test]
fn a_moved_file_gets_no_more_than_a_second_of_output() {
    let mut sandbox = Sandbox::plain();
    let moved = sandbox.directory.path().join("moved");
    sandbox.out(b"one\n");
    fs::rename(sandbox.path(), &moved).unwrap();
    sandbox.out(b"two\n");
    sandbox.pass(LOOK);
    sandbox.out(b"three\n");
    assert_eq!(fs::read(&moved).unwrap(), b"one\ntwo\n");
    assert_eq!(sandbox.text(), "three\n");
    assert_eq!(sandbox.dropped(), 0);
}

#[test]
fn a_moved_file_gets_no_more_than_a_mebibyte_of_output() {
    let mut sandbox = Sandbox::plain();
    let moved = sandbox.directory.path().join("moved");
    fs::rename(sandbox.path(), &moved).unwrap();
    let chunk = [vec![b'x'; 65_535], b"\n".to_vec()].concat();
    for _ in 0..17 {
        sandbox.out(&chunk);
    }
    assert_eq!(fs::metadata(&moved).unwrap().len(), LOOK_BYTES);
    assert_eq!(sandbox.text().len(), chunk.len());
}

#[test]
fn an_event_is_never_written_to_a_moved_file() {
    let mut sandbox = Sandbox::plain();
    let moved = sandbox.directory.path().join("moved");
    sandbox.out(b"unfinished");
    fs::rename(sandbox.path(), &moved).unwrap();
    sandbox.event();
    assert_eq!(fs::read(&moved).unwrap(), b"unfinished");
    assert_eq!(sandbox.text(), "=== event ===\n");
}

#[test]
fn what_was_written_to_a_removed_file_is_counted() {
    let mut sandbox = Sandbox::plain();
    sandbox.out(b"one\n");
    fs::remove_file(sandbox.path()).unwrap();
    outlast_a_tick();
    sandbox.out(b"two\n");
    sandbox.event();
    assert!(sandbox.dropped() >= 4, "{}", sandbox.dropped());
    assert!(sandbox.text().ends_with("===\n=== event ===\n"), "{}", sandbox.text());
}

#[test]
fn a_file_that_its_owner_removes_is_not_counted() {
    let mut sandbox = Sandbox::plain();
    sandbox.out(b"one\n");
    outlast_a_tick();
    fs::remove_file(sandbox.path()).unwrap();
    sandbox.pass(LOOK);
    sandbox.out(b"two\n");
    assert_eq!((sandbox.dropped(), sandbox.text().as_str()), (0, "two\n"));
}

#[test]
fn a_file_that_was_cut_is_gone_on_with() {
    let mut sandbox = Sandbox::new(None, Some(rotation(100)));
    sandbox.out(&[b'x'; 90]);
    fs::write(sandbox.path(), b"").unwrap();
    sandbox.pass(LOOK);
    sandbox.out(b"on\n");
    sandbox.event();
    assert_eq!(sandbox.text(), "on\n=== event ===\n");
    assert!(sandbox.old().is_empty());
}

#[test]
fn each_line_has_the_stamp_of_the_read_that_its_first_byte_came_with() {
    let mut sandbox = Sandbox::new(Some(Format::Tai64n), None);
    sandbox.now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    sandbox.out(b"a\n\nb");
    sandbox.pass(Duration::from_millis(1));
    sandbox.out(b"b\nc\n");
    let (one, two) = ("@400000006553f10a00000000", "@400000006553f10a000f4240");
    assert_eq!(sandbox.text(), format!("{one} a\n{one} \n{one} bb\n{two} c\n"));
}

#[test]
fn both_forms_of_stamps_can_be_read() {
    for format in FORMATS {
        let mut sandbox = Sandbox::new(Some(format), None);
        sandbox.out(b"one\ntwo\n");
        assert_eq!(sandbox.lines(), "one\ntwo\n");
    }
}

#[test]
fn an_event_has_no_stamp_and_ends_a_line_under_way() {
    let mut sandbox = Sandbox::new(Some(Format::Rfc3339), None);
    sandbox.out(b"half");
    sandbox.event();
    sandbox.out(b"rest\n");
    assert_eq!(sandbox.lines(), "half\n=== event ===\nrest\n");
}

#[test]
fn the_first_line_after_a_crash_is_not_the_rest_of_the_last_one() {
    let mut sandbox = Sandbox::new(Some(Format::Rfc3339), None);
    sandbox.out(b"half");
    sandbox.log.open(sandbox.now).unwrap();
    sandbox.out(b"line\n");
    assert_eq!(sandbox.lines(), "half\nline\n");
    sandbox.out(b"half");
    sandbox.log.process_ended(sandbox.now);
    sandbox.out(b"line\n");
    assert_eq!(sandbox.lines(), "half\nline\nhalf\nline\n");
}

#[test]
fn a_stream_that_talks_alone_is_never_held_back() {
    let mut sandbox = Sandbox::new(Some(Format::Rfc3339), None);
    sandbox.out(b"pass");
    assert_eq!(sandbox.lines(), "pass");
    sandbox.out(b"word: ");
    assert_eq!(sandbox.lines(), "password: ");
}

#[test]
fn streams_that_talk_at_once_do_not_cut_each_others_lines() {
    let mut sandbox = Sandbox::new(Some(Format::Rfc3339), None);
    sandbox.err(b"err 1\n");
    sandbox.out(b"out 1\nou");
    sandbox.err(b"err 2\ner");
    sandbox.out(b"t 2\n");
    sandbox.err(b"r 3");
    assert_eq!(sandbox.lines(), "err 1\nout 1\nerr 2\nout 2\n");
    sandbox.log.rest(SystemTime::now());
    sandbox.pass(Duration::from_secs(1));
    sandbox.log.attend(sandbox.now);
    assert_eq!(sandbox.lines(), "err 1\nout 1\nerr 2\nout 2\nerr 3");
    sandbox.err(b" ends\n");
    assert_eq!(sandbox.lines(), "err 1\nout 1\nerr 2\nout 2\nerr 3 ends\n");
}

#[test]
fn nothing_is_held_back_for_longer_than_a_second() {
    let mut sandbox = Sandbox::new(Some(Format::Rfc3339), None);
    sandbox.err(b"err\n");
    sandbox.out(b"prompt");
    for _ in 0..10 {
        assert!(!sandbox.lines().contains("prompt"));
        sandbox.pass(Duration::from_millis(100));
        sandbox.err(b"err\n");
    }
    assert!(sandbox.lines().ends_with("prompt\nerr\n"), "{}", sandbox.lines());
}

#[test]
fn a_line_that_two_streams_write_in_parts_is_divided_and_not_glued() {
    let mut sandbox = Sandbox::new(Some(Format::Rfc3339), None);
    sandbox.out(b"out ");
    sandbox.err(b"err\n");
    sandbox.out(b"goes on\n");
    assert_eq!(sandbox.lines(), "out \nerr\ngoes on\n");
}

#[test]
fn with_stamps_the_dropped_bytes_are_those_of_the_process() {
    let mut sandbox = Sandbox::new(Some(Format::Rfc3339), None);
    fs::remove_file(sandbox.path()).unwrap();
    fs::create_dir(sandbox.path()).unwrap();
    sandbox.pass(LOOK);
    sandbox.out(b"one\ntwo\nthr");
    assert_eq!(sandbox.dropped(), 11);
    fs::remove_dir(sandbox.path()).unwrap();
    sandbox.pass(RETRY);
    sandbox.out(b"ee\nfour\n");
    assert_eq!(sandbox.dropped(), 14);
    assert_eq!(sandbox.lines(), "=== ! 14 bytes dropped, the log could not be written ! ===\nfour\n");
}

#[test]
fn a_file_is_set_aside_before_it_would_grow_past_its_size() {
    let mut sandbox = Sandbox::new(None, Some(rotation(10)));
    for _ in 0..5 {
        sandbox.out(b"1234\n");
    }
    assert_eq!(sandbox.files(), [b"1234\n1234\n".as_slice(), b"1234\n1234\n", b"1234\n"]);
}

#[test]
fn a_file_that_is_not_its_own_any_more_is_not_set_aside() {
    let mut sandbox = Sandbox::new(None, Some(rotation(10)));
    sandbox.out(b"12345678\n");
    let moved = sandbox.directory.path().join("moved");
    fs::rename(sandbox.path(), &moved).unwrap();
    fs::write(sandbox.path(), b"theirs\n").unwrap();
    sandbox.out(b"12\n");
    assert_eq!(sandbox.text(), "theirs\n12\n");
    assert_eq!(sandbox.old(), ["moved"]);
}

#[test]
fn a_log_behind_a_link_is_set_aside_beside_itself() {
    let mut sandbox = Sandbox::plain();
    let inner = sandbox.directory.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let link = sandbox.directory.path().join("link");
    std::os::unix::fs::symlink(inner.join("real"), &link).unwrap();
    let mut log = LogFile::new(link.clone(), None, Some(rotation(4)), sandbox.fake.host());
    log.open(sandbox.now).unwrap();
    log.append(Source::Stdout, b"one\ntwo\n", sandbox.now);
    sandbox.log = log;
    assert!(link.is_symlink());
    assert_eq!(fs::read(&link).unwrap(), b"two\n");
    assert_eq!(fs::read_dir(&inner).unwrap().count(), 2);
}

#[test]
fn the_new_file_has_the_mode_of_the_old_one() {
    use std::os::unix::fs::PermissionsExt;
    let mut sandbox = Sandbox::new(None, Some(rotation(4)));
    fs::set_permissions(sandbox.path(), fs::Permissions::from_mode(0o660)).unwrap();
    sandbox.out(b"one\ntwo\n");
    assert_eq!(fs::metadata(sandbox.path()).unwrap().permissions().mode() & 0o777, 0o660);
}

#[test]
fn an_event_of_several_lines_stays_in_one_file() {
    let mut sandbox = Sandbox::new(None, Some(rotation(40)));
    sandbox.out(b"no end, and then some more to come");
    sandbox.log.append_lines(b"=== event ===\n=== Time: T\n", sandbox.now);
    assert_eq!(
        sandbox.files(),
        [b"no end, and then some more to come\n".as_slice(), b"=== event ===\n=== Time: T\n"]
    );
}

#[test]
fn a_log_that_cannot_be_renamed_is_gone_on_with() {
    let mut sandbox = Sandbox::new(None, Some(rotation(10)));
    // Nothing can be renamed into a directory that is not there.
    let lost = sandbox.directory.path().join("lost");
    fs::create_dir(&lost).unwrap();
    fs::write(lost.join("log"), b"").unwrap();
    let plan = rotation(10);
    sandbox.log.rotation.as_mut().unwrap().archive =
        Some(crate::archive::Archive::load(&lost.join("log"), &plan));
    fs::remove_dir_all(&lost).unwrap();
    sandbox.out(b"12345678\n");
    sandbox.out(b"12345678\n");
    sandbox.out(b"12345678\n");
    assert_eq!(sandbox.text().len(), 27);
    assert_eq!(sandbox.dropped(), 0);
}

#[test]
fn a_new_span_of_time_begins_a_new_file_also_after_a_restart() {
    let mut plan = rotation(1 << 20);
    plan.every = Some(Duration::from_secs(3600));
    let mut sandbox = Sandbox::new(None, Some(plan.clone()));
    sandbox.out(b"one\n");
    sandbox.pass(Duration::from_secs(3600));
    sandbox.out(b"two\nthr");
    sandbox.pass(Duration::from_secs(3600));
    // A line under way is completed first.
    sandbox.out(b"ee\nfour\n");
    assert_eq!(sandbox.files(), [b"one\n".as_slice(), b"two\nthree\n", b"four\n"]);

    let an_hour_ago = sandbox.now - Duration::from_secs(3600);
    fs::File::options().append(true).open(sandbox.path()).unwrap().set_modified(an_hour_ago).unwrap();
    sandbox.log = LogFile::new(sandbox.path(), None, Some(plan), sandbox.fake.host());
    sandbox.log.open(sandbox.now).unwrap();
    sandbox.out(b"five\n");
    assert_eq!(sandbox.files().len(), 4);
    assert_eq!(sandbox.text(), "five\n");
}

#[test]
fn an_empty_file_is_not_set_aside_and_begins_its_span_with_its_first_line() {
    for stamped in [None, Some(Format::Tai64n)] {
        let mut plan = rotation(1 << 20);
        plan.every = Some(Duration::from_secs(1000));
        let mut sandbox = Sandbox::new(stamped, Some(plan));
        sandbox.now = UNIX_EPOCH + Duration::from_secs(4_000_000_000);
        sandbox.out(b"one\ntwo\n");
        sandbox.pass(Duration::from_secs(1));
        sandbox.out(b"three\n");
        assert!(sandbox.old().is_empty(), "{stamped:?}");
        sandbox.pass(Duration::from_secs(1000));
        sandbox.out(b"four\n");
        assert_eq!(sandbox.old().len(), 1, "{stamped:?}");
    }
}

/// What a process may do.
#[derive(Debug, Clone)]
enum Act {
    Out(Vec<u8>),
    Err(Vec<u8>),
    Event,
    Rest,
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let bytes = || prop::collection::vec(prop_oneof![9 => b'a'..b'f', 1 => Just(b'\n')], 0..200);
    prop_oneof![
        6 => bytes().prop_map(Act::Out),
        3 => bytes().prop_map(Act::Err),
        1 => Just(Act::Event),
        1 => Just(Act::Rest),
        1 => (0_u64..1500).prop_map(Act::Pass),
    ]
}

impl Sandbox {
    fn act(&mut self, act: &Act) {
        match act {
            Act::Out(bytes) => self.out(bytes),
            Act::Err(bytes) => self.err(bytes),
            Act::Event => self.event(),
            Act::Rest => self.log.attend(self.now),
            Act::Pass(millis) => self.pass(Duration::from_millis(*millis)),
        }
    }
}

proptest! {
    #[test]
    fn all_files_together_are_what_was_written(
        acts in prop::collection::vec(act(), 1..40),
        max in 64_u64..300,
    ) {
        let mut sandbox = Sandbox::new(None, Some(rotation(max)));
        let mut expected: Vec<u8> = Vec::new();
        for act in &acts {
            match act {
                Act::Out(bytes) | Act::Err(bytes) => expected.extend_from_slice(bytes),
                Act::Event => {
                    if expected.last().is_some_and(|last| *last != b'\n') {
                        expected.push(b'\n');
                    }
                    expected.extend_from_slice(b"=== event ===\n");
                }
                Act::Rest | Act::Pass(_) => {}
            }
            sandbox.act(act);
        }
        let files = sandbox.files();
        prop_assert_eq!(files.concat(), expected, "{:?}", files);
        prop_assert_eq!(sandbox.dropped(), 0);
        for (index, file) in files.iter().enumerate() {
            let length = u64::try_from(file.len()).unwrap();
            prop_assert!(length <= 2 * max, "{length} bytes");
            let is_last = index + 1 == files.len();
            prop_assert!(is_last || file.ends_with(b"\n") || length == 2 * max, "divided: {:?}", file);
        }
    }

    #[test]
    fn with_stamps_every_line_is_whole_and_each_stream_in_order(
        acts in prop::collection::vec(act(), 1..40),
        max in prop_oneof![64_u64..300, 300_u64..3000],
        format in prop::sample::select(FORMATS.to_vec()),
    ) {
        let mut sandbox = Sandbox::new(Some(format), Some(rotation(max)));
        // Each stream has letters of its own.
        let upper = |bytes: &[u8]| bytes.to_ascii_uppercase();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        for act in &acts {
            match act {
                Act::Out(bytes) => out.extend_from_slice(bytes),
                Act::Err(bytes) => err.extend(upper(bytes)),
                Act::Event | Act::Rest | Act::Pass(_) => {}
            }
            match act {
                Act::Err(bytes) => sandbox.err(&upper(bytes)),
                Act::Out(_) | Act::Event | Act::Rest | Act::Pass(_) => sandbox.act(act),
            }
        }
        sandbox.log.flush(sandbox.now);
        let text = unstamped(&String::from_utf8(sandbox.files().concat()).unwrap());
        // A letter of the stamps (T, a to f) does not survive `unstamped`, which fails where there is no stamp.
        let letters = |bytes: &[u8], is: fn(&u8) -> bool| bytes.iter().copied().filter(is).collect::<Vec<u8>>();
        let text = text.replace("=== event ===\n", "");
        prop_assert_eq!(letters(text.as_bytes(), u8::is_ascii_lowercase), letters(&out, u8::is_ascii_lowercase));
        prop_assert_eq!(letters(text.as_bytes(), u8::is_ascii_uppercase), letters(&err, u8::is_ascii_uppercase));
        for line in text.lines() {
            let is_mixed = line.bytes().any(|byte| byte.is_ascii_lowercase())
                && line.bytes().any(|byte| byte.is_ascii_uppercase());
            prop_assert!(!is_mixed, "glued: {line:?}");
        }
        prop_assert_eq!(sandbox.dropped(), 0);
    }
}

#[test]
fn lines_of_its_own_do_not_divide_a_line_whose_rest_is_still_to_come() {
    for stamped in [None, Some(Format::Tai64n)] {
        let mut sandbox = Sandbox::new(stamped, None);
        let now = sandbox.now;
        sandbox.out(b"one\nfirst half, ");
        sandbox.log.append_lines_behind(b"=== restarted ===\n", now);
        sandbox.out(b"second ");
        sandbox.out(b"half\nnext\nbegun");
        sandbox.log.append_lines_behind(b"=== again ===\n", now);
        // Nothing more comes for now.
        sandbox.log.rest(now);
        sandbox.log.append_lines_behind(b"=== at once ===\n", now);
        let lines = if stamped.is_some() { sandbox.lines() } else { sandbox.text() };
        assert_eq!(
            lines,
            "one\nfirst half, second half\n=== restarted ===\nnext\nbegun\n=== again ===\n=== at once ===\n",
            "{stamped:?}"
        );
    }
}
