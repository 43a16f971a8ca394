//! The log file: bytes go straight to it, one write each; what cannot be written is dropped and counted.
//!
//! Never an error to the caller once the group runs, never a buffer: what a write has taken is in the kernel's
//! hands, and survives the pump.

use crate::line;
use immortal_monitor_api::{Error, Host};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Who may read a log file that did not exist before; the umask takes away from it.
const MODE: u32 = 0o644;

pub(crate) struct LogFile {
    path: PathBuf,
    host: Host,
    /// `None` while it cannot be opened.
    file: Option<File>,
    /// Whether the last byte in the file is the end of a line, so that a line may begin.
    is_at_line_start: bool,
    /// Bytes dropped since the file last said so.
    unsaid_bytes: u64,
    /// Bytes dropped in the life of this pump.
    dropped_bytes: u64,
}

impl LogFile {
    /// Makes a log of this path, which is not opened yet.
    pub(crate) fn new(path: PathBuf, host: Host) -> Self {
        Self { path, host, file: None, is_at_line_start: true, unsaid_bytes: 0, dropped_bytes: 0 }
    }

    /// Opens the file, and looks how its last line ends.
    ///
    /// # Errors
    /// If it cannot be opened for appending. Every later write tries again.
    pub(crate) fn open(&mut self) -> io::Result<()> {
        refuse_odd_file(&self.path)?;
        let file = OpenOptions::new().append(true).create(true).mode(MODE).open(&self.path)?;
        self.is_at_line_start = ends_with_newline(&self.path, &file);
        self.file = Some(file);
        Ok(())
    }

    /// What to say when [`Self::open`] has failed and must not.
    pub(crate) fn refused(&self, error: &io::Error) -> Error {
        format!("unable to open {}: {error}", self.path.display()).into()
    }

    /// Appends output of the process.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        if self.is_healthy() || self.recover() {
            let written = self.write(bytes);
            self.count(bytes.len() - written);
        } else {
            self.count(bytes.len());
        }
    }

    /// Appends whole lines, at the beginning of a line.
    pub(crate) fn append_lines(&mut self, mut lines: Vec<u8>) {
        if !self.is_healthy() && !self.recover() {
            return self.count(lines.len());
        }
        if !self.is_at_line_start {
            lines.insert(0, b'\n');
        }
        let written = self.write(&lines);
        self.count(lines.len() - written);
    }

    /// Says what was dropped, if writing works again.
    pub(crate) fn settle(&mut self) {
        if self.unsaid_bytes > 0 {
            self.recover();
        }
    }

    /// Whether bytes may be written without anything before them.
    fn is_healthy(&self) -> bool {
        self.file.is_some() && self.unsaid_bytes == 0
    }

    /// Opens the file if it is not, and says in it what was dropped. Returns whether that was all written.
    #[cold]
    fn recover(&mut self) -> bool {
        if self.file.is_none() && self.open().is_err() {
            return false;
        }
        if self.unsaid_bytes == 0 {
            return true;
        }
        let mut notice = line::dropped(self.unsaid_bytes);
        if !self.is_at_line_start {
            notice.insert(0, b'\n');
        }
        let is_said = self.write(&notice) == notice.len();
        if is_said {
            self.unsaid_bytes = 0;
        }
        is_said
    }

    /// Writes as much as the file takes, and returns how much that was.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let Some(file) = &mut self.file else { return 0 };
        let mut written = 0;
        while written < bytes.len() {
            match file.write(&bytes[written..]) {
                Ok(0) => break,
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // Once in the life of a pump: a full disk may come and go with every line, and this is the
                    // crash channel.
                    if self.dropped_bytes == 0 {
                        log::warn!("unable to write {}: {error}; output is dropped", self.path.display());
                    }
                    break;
                }
            }
        }
        if let Some(last) = bytes[..written].last() {
            self.is_at_line_start = *last == b'\n';
        }
        written
    }

    fn count(&mut self, bytes: usize) {
        if bytes > 0 {
            let bytes = u64::try_from(bytes).expect("no slice is that long");
            self.unsaid_bytes += bytes;
            self.dropped_bytes += bytes;
            self.host.report("dropped_bytes", self.dropped_bytes);
        }
    }
}

/// Tries to open a log file for appending. A file that was not there before is not there afterwards.
///
/// # Errors
/// If it cannot be.
pub(crate) fn try_open(path: &Path) -> io::Result<()> {
    refuse_odd_file(path)?;
    match OpenOptions::new().append(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(_) => return Ok(()),
    }
    match OpenOptions::new().append(true).create_new(true).mode(MODE).open(path) {
        Ok(_) => fs::remove_file(path),
        // Somebody else was faster, or it is a link to a place where there is no file yet.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Refuses what cannot be a log file and would hang or baffle: a pipe waits for a reader when it is opened.
fn refuse_odd_file(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(metadata) if metadata.is_file() || metadata.file_type().is_char_device() => Ok(()),
        Ok(_) => Err(io::Error::other("not a regular file")),
        // Not there yet, or opening it says what is wrong.
        Err(_) => Ok(()),
    }
}

/// Whether a line may begin at the end of this file. One that cannot be read counts as not ended: an empty line
/// too many is better than an event line that is not one.
fn ends_with_newline(path: &Path, file: &File) -> bool {
    match file.metadata() {
        Ok(metadata) if !metadata.is_file() || metadata.len() == 0 => return true,
        Ok(_) | Err(_) => {}
    }
    let mut last = [0];
    let read = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)
    });
    read.is_ok() && last == *b"\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use immortal_monitor_api::fake::FakeHost;

    fn log(path: &Path) -> (FakeHost, LogFile) {
        let fake = FakeHost::new();
        let log = LogFile::new(path.to_owned(), fake.host());
        (fake, log)
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_counted_and_said_once_it_does() {
        let directory = tempfile::tempdir().unwrap();
        let (fake, mut log) = log(Path::new("/dev/full"));
        log.open().unwrap();
        log.append(b"12345");
        log.append(b"678\n");
        log.append_lines(b"=== event ===\n".to_vec());
        assert_eq!(fake.reported("dropped_bytes").as_deref(), Some("23"));

        log.path = directory.path().join("log");
        log.open().unwrap();
        log.append(b"back\n");
        log.append(b"again\n");
        let text = fs::read_to_string(&log.path).unwrap();
        assert_eq!(text, "=== ! 23 bytes dropped, the log could not be written ! ===\nback\nagain\n");
        assert_eq!(fake.reported("dropped_bytes").as_deref(), Some("23"), "the count stays");
    }

    #[test]
    fn a_lost_directory_that_comes_back_gets_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        let (_fake, mut log) = log(&inner.join("log"));
        log.open().unwrap_err();
        log.append(b"lost\n");
        fs::create_dir(&inner).unwrap();
        log.settle();
        log.append(b"kept\n");
        let text = fs::read_to_string(&log.path).unwrap();
        assert_eq!(text, "=== ! 5 bytes dropped, the log could not be written ! ===\nkept\n");
    }

    #[test]
    fn trying_leaves_no_file_behind_and_none_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        try_open(&path).unwrap();
        assert!(!path.exists());
        fs::write(&path, "old\n").unwrap();
        try_open(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old\n");
    }

    #[test]
    fn what_would_hang_or_baffle_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        try_open(directory.path()).unwrap_err();
        let socket = directory.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(try_open(&socket).unwrap_err().to_string(), "not a regular file");
        try_open(Path::new("/dev/null")).unwrap();
    }
}
