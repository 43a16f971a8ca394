//! Old files as they are left behind by pumps, living and killed.

use super::*;
use crate::log_file::tests::read as read_old;
use std::time::Duration;
use tempfile::TempDir;

const AT: [&str; 4] = [
    "20260801T000000.000000Z",
    "20260801T000000.000001Z",
    "20260801T000001.000000Z",
    "20260802T000000.000000Z",
];

struct Sandbox {
    directory: TempDir,
    plan: Rotation,
}

impl Sandbox {
    fn new(compression: Compression) -> Self {
        let plan =
            Rotation { max_bytes: Some(100), every: None, keep: None, max_total_bytes: None, compression };
        Self { directory: tempfile::tempdir().unwrap(), plan }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn load(&self) -> Archive {
        Archive::load(&self.path("log"), &self.plan)
    }

    /// Loads it and waits for the compression.
    fn settle(&self) {
        self.load().finish(Instant::now() + Duration::from_secs(20));
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn name(index: usize, suffix: &str) -> String {
    format!("log.{}{suffix}", AT[index])
}

#[test]
fn old_files_are_compressed_and_give_back_what_was_in_them() {
    for (compression, suffix) in [(Compression::Gzip, ".gz"), (Compression::Zstd, ".zst")] {
        let sandbox = Sandbox::new(compression);
        let content = b"a line of no great interest\n".repeat(10_000);
        sandbox.put(&name(0, ""), &content);
        sandbox.put(&name(1, ""), b"");
        sandbox.settle();
        assert_eq!(sandbox.names(), [name(0, suffix), name(1, suffix)]);
        assert_eq!(read_old(&sandbox.path(&name(0, suffix))), content);
        assert_eq!(read_old(&sandbox.path(&name(1, suffix))), b"");
    }
}

#[test]
fn a_compressed_file_has_mode_and_time_of_the_plain_one() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new(Compression::Zstd);
    sandbox.put(&name(0, ""), b"secret\n");
    let plain = fs::File::options().append(true).open(sandbox.path(&name(0, ""))).unwrap();
    plain.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    plain.set_modified(time).unwrap();
    sandbox.settle();
    let metadata = fs::metadata(sandbox.path(&name(0, ".zst"))).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o640);
    assert_eq!(metadata.modified().unwrap(), time);
}

#[test]
fn what_a_killed_pump_left_half_compressed_is_compressed_anew() {
    let sandbox = Sandbox::new(Compression::Gzip);
    sandbox.put(&name(0, ""), b"whole\n");
    sandbox.put(&format!(".{}", name(0, ".gz.new")), b"\x1f\x8bhal");
    sandbox.put(&format!(".{}", name(1, ".zst.new")), b"hal");
    sandbox.settle();
    assert_eq!(sandbox.names(), [name(0, ".gz")]);
    assert_eq!(read_old(&sandbox.path(&name(0, ".gz"))), b"whole\n");
}

#[test]
fn of_a_file_in_both_forms_the_compressed_one_stays() {
    let sandbox = Sandbox::new(Compression::None);
    sandbox.put(&name(0, ""), b"plain\n");
    sandbox.put(&name(0, ".gz"), b"whole, for it has its name");
    sandbox.settle();
    assert_eq!(sandbox.names(), [name(0, ".gz")]);
}

#[test]
fn what_is_not_of_this_log_is_left_alone() {
    let sandbox = Sandbox::new(Compression::Gzip);
    let others = [".log.new", "log", "log.1", "log.bak", "other.20260801T000000.000000Z"];
    for other in others {
        sandbox.put(other, b"theirs\n");
    }
    sandbox.settle();
    assert_eq!(sandbox.names(), others);
}

#[test]
fn no_more_than_so_many_are_kept_in_whatever_form() {
    let mut sandbox = Sandbox::new(Compression::None);
    sandbox.plan.keep = Some(2);
    for (index, suffix) in [(0, ""), (1, ".gz"), (2, ".zst"), (3, "")] {
        sandbox.put(&name(index, suffix), b"x\n");
    }
    sandbox.settle();
    assert_eq!(sandbox.names(), [name(2, ".zst"), name(3, "")]);
}

#[test]
fn all_together_stay_within_the_total_with_room_for_a_full_log() {
    let mut sandbox = Sandbox::new(Compression::None);
    sandbox.plan.max_total_bytes = Some(300);
    for (index, bytes) in [100, 60, 80, 60].into_iter().enumerate() {
        sandbox.put(&name(index, ""), &vec![b'x'; bytes]);
    }
    sandbox.settle();
    assert_eq!(sandbox.names(), [name(1, ""), name(2, ""), name(3, "")]);
}

#[test]
fn a_file_set_aside_comes_after_all_that_are_there() {
    let sandbox = Sandbox::new(Compression::None);
    sandbox.put("log", b"now\n");
    sandbox.put("log.29990101T000000.000000Z.gz", b"from the future");
    let mut archive = sandbox.load();
    archive.take(&sandbox.path("log"), 4, SystemTime::now()).unwrap();
    archive.tidy();
    assert_eq!(sandbox.names(), ["log.29990101T000000.000000Z.gz", "log.29990101T000000.000001Z"]);
}

#[test]
fn with_none_to_keep_a_file_is_gone_when_it_is_set_aside() {
    let mut sandbox = Sandbox::new(Compression::Gzip);
    sandbox.plan.keep = Some(0);
    sandbox.put("log", b"now\n");
    let mut archive = sandbox.load();
    archive.take(&sandbox.path("log"), 4, SystemTime::now()).unwrap();
    archive.tidy();
    archive.finish(Instant::now() + Duration::from_secs(20));
    assert!(sandbox.names().is_empty(), "{:?}", sandbox.names());
}

#[test]
fn a_file_that_cannot_be_compressed_stays_plain() {
    let sandbox = Sandbox::new(Compression::Gzip);
    sandbox.put(&name(0, ""), b"whole\n");
    // Where the compressed form would be made, there is something that cannot be replaced.
    let hindrance = sandbox.path(&format!(".{}", name(0, ".gz.new")));
    let mut archive = Sandbox::load(&Sandbox::new(Compression::Gzip));
    archive.directory = sandbox.directory.path().to_owned();
    fs::create_dir(&hindrance).unwrap();
    let moment = Moment::after(None, SystemTime::now());
    fs::rename(sandbox.path(&name(0, "")), archive.path(moment, Compression::None)).unwrap();
    let half_done = hidden(&name::of(&archive.base, moment, Compression::Gzip), ".new");
    fs::rename(&hindrance, sandbox.path(half_done.to_str().unwrap())).unwrap();
    archive.shared.lock().files.push_back(OldFile { moment, compression: Compression::None, bytes: 6 });
    archive.compress();
    archive.finish(Instant::now() + Duration::from_secs(20));
    assert_eq!(fs::read(archive.path(moment, Compression::None)).unwrap(), b"whole\n");
    assert!(!archive.path(moment, Compression::Gzip).exists());
}

#[test]
fn many_files_within_a_moment_keep_their_order_while_they_are_compressed() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let sandbox = Sandbox::new(compression);
        let mut archive = sandbox.load();
        let now = SystemTime::now();
        for number in 0..200 {
            sandbox.put("log", format!("{number}\n").as_bytes());
            archive.take(&sandbox.path("log"), 4, now).unwrap();
            archive.tidy();
        }
        archive.finish(Instant::now() + Duration::from_secs(60));
        let names = sandbox.names();
        assert!(names.iter().all(|name| name.ends_with(compression.suffix())), "{names:?}");
        let numbers: Vec<u8> = names.iter().flat_map(|name| read_old(&sandbox.path(name))).collect();
        let expected: String = (0..200).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8(numbers).unwrap(), expected);
    }
}
