//! One open log file: what it takes, how long it is, and whether it is still where it was.

use crate::archive::keep_owner;
use memchr::memrchr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Who may read a log file that did not exist before; the umask takes away from it.
const MODE: u32 = 0o644;

pub(super) struct OpenFile {
    file: File,
    /// Bytes in it: as found, and as written since.
    pub(super) length: u64,
    pub(super) is_regular: bool,
    /// Device and inode.
    identity: (u64, u64),
}

/// What became of a write.
#[derive(Debug)]
pub(super) struct Written {
    /// How many of the bytes are in the file.
    pub(super) count: usize,
    /// Whether the beginning of their first line, which was in it before, is not any more.
    pub(super) has_cut_begun: bool,
    /// Why it was not all.
    pub(super) error: Option<io::Error>,
}

/// What a look at the path of a file finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The file, as it was written.
    Here,
    /// The file; but somebody has cut it or added to it.
    Changed,
    /// Something else or nothing. All that was written to the file is where its owner wants it: under another
    /// name, or removed.
    Moved,
    /// Something else or nothing. The file was written to when it had no name any more.
    Lost,
}

impl OpenFile {
    /// Opens a file for appending; makes it if it is not there.
    ///
    /// # Errors
    /// If it cannot be, or is no file that a log can be written to.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        refuse_odd_file(path)?;
        Self::with(OpenOptions::new().append(true).create(true).mode(MODE).open(path)?)
    }

    /// Makes the file that takes the place of one that was renamed, for the same readers.
    ///
    /// # Errors
    /// If it cannot be made, or somebody else has made it.
    pub(super) fn replace(path: &Path, old: &Metadata) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create_new(true).mode(MODE).open(path)?;
        file.set_permissions(old.permissions())?;
        keep_owner(&file, old)?;
        Self::with(file)
    }

    fn with(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let is_regular = metadata.is_file();
        let length = if is_regular { metadata.len() } else { 0 };
        Ok(Self { file, length, is_regular, identity: identity(&metadata) })
    }

    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// Whether a line may begin at its end. One that cannot be read counts as not ended: an empty line too many
    /// is better than an event line that is not one.
    pub(super) fn ends_with_newline(&self, path: &Path) -> bool {
        if !self.is_regular || self.length == 0 {
            return true;
        }
        let mut last = [0];
        let read = File::open(path).and_then(|mut file| {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)
        });
        read.is_ok() && last == *b"\n"
    }

    /// Writes as much as the file takes.
    ///
    /// A full disk takes what fits, in the middle of a line. That line is cut off again, with what was in the file
    /// of it before: the last `begun` bytes, or none that may be cut off if that is `None`.
    pub(super) fn write(&mut self, bytes: &[u8], begun: Option<u64>) -> Written {
        let mut written = 0;
        let error = loop {
            if written == bytes.len() {
                break None;
            }
            match self.file.write(&bytes[written..]) {
                Ok(0) => break Some(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Some(error),
            }
        };
        let before = self.length;
        self.length += u64::try_from(written).expect("no slice is that long");
        if error.is_some() {
            let whole = match (memrchr(b'\n', &bytes[..written]), begun) {
                (Some(end), _) => Some((end + 1, 0)),
                (None, Some(begun)) => Some((0, begun)),
                (None, None) => None,
            };
            if let Some((whole, begun)) = whole {
                let length = before + u64::try_from(whole).expect("no slice is that long") - begun;
                if length < self.length && self.cut(length) {
                    return Written { count: whole, has_cut_begun: begun > 0, error };
                }
            }
        }
        Written { count: written, has_cut_begun: false, error }
    }

    /// Cuts the file to this length, if nobody else has written to it.
    fn cut(&mut self, length: u64) -> bool {
        let is_own = self.is_regular && self.metadata().is_ok_and(|now| now.len() == self.length);
        let is_cut = is_own && self.file.set_len(length).is_ok();
        if is_cut {
            self.length = length;
        }
        is_cut
    }

    /// Looks whether the path still leads to this file, and how long that is.
    pub(super) fn look(&mut self, path: &Path) -> Place {
        let Ok(own) = self.metadata() else { return Place::Here };
        if !fs::metadata(path).is_ok_and(|there| identity(&there) == self.identity) {
            // A write sets both times, and the removal of the last name only the time of change (unlink(3p)).
            let written_last = (own.mtime(), own.mtime_nsec()) >= (own.ctime(), own.ctime_nsec());
            return if own.nlink() == 0 && written_last { Place::Lost } else { Place::Moved };
        }
        if !self.is_regular || own.len() == self.length {
            return Place::Here;
        }
        self.length = own.len();
        Place::Changed
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

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

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
