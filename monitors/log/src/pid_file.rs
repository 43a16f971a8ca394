//! The pid file: a JSON object with the group's pids, replaced atomically at every change.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Who may read the file; the umask takes away from it.
const MODE: u32 = 0o644;

pub(crate) struct PidFile {
    path: PathBuf,
    /// Whether the last change could not be written; said once.
    is_failing: bool,
}

impl PidFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, is_failing: false }
    }

    /// Replaces the file. One that cannot be written is logged, and nothing else.
    pub(crate) fn write(&mut self, process: Option<i32>, monitor: i32, daemon: Option<i32>) {
        let number = |pid: Option<i32>| pid.map_or_else(|| "null".to_owned(), |pid| pid.to_string());
        let (process, daemon) = (number(process), number(daemon));
        let json = format!("{{\"process\":{process},\"monitor\":{monitor},\"daemon\":{daemon}}}\n");
        let replaced =
            write_beside(&self.path, json.as_bytes()).and_then(|beside| fs::rename(&beside, &self.path));
        self.judge(replaced);
    }

    /// Removes the file: the group has ended in order.
    pub(crate) fn remove(&mut self) {
        let removed = fs::remove_file(&self.path);
        self.judge(removed);
    }

    fn judge(&mut self, outcome: io::Result<()>) {
        match outcome {
            Ok(()) => self.is_failing = false,
            Err(error) if !self.is_failing => {
                self.is_failing = true;
                log::warn!("unable to replace {}: {error}", self.path.display());
            }
            Err(_) => {}
        }
    }
}

/// Tries whether the file could be written, and leaves nothing behind.
///
/// # Errors
/// If it cannot be.
pub(crate) fn try_write(path: &Path) -> io::Result<()> {
    fs::remove_file(write_beside(path, b"")?)
}

/// Writes a new file beside the path, and returns its path. What a dead pump has left there is replaced; a link
/// that somebody else has put there is not followed.
fn write_beside(path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let mut name = OsString::from(".");
    name.push(path.file_name().ok_or(io::ErrorKind::InvalidFilename)?);
    name.push(".new");
    let beside = path.with_file_name(name);
    match fs::remove_file(&beside) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&beside)?;
    match file.write_all(bytes) {
        Ok(()) => Ok(beside),
        Err(error) => {
            fs::remove_file(&beside)?;
            Err(error)
        }
    }
}
