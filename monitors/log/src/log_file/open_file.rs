//! One open log file: what it takes, how long it is, and whether it is still where it was.

use super::{Line, to_u64};
use crate::archive::keep_owner;
use crate::kill;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Who may read a log file that did not exist before; the umask takes away from it.
const MODE: u32 = 0o644;

pub(super) struct OpenFile {
    file: File,
    /// Bytes in it: as found, and as written since.
    pub(super) length: u64,
    pub(super) is_regular: bool,
    /// Whether somebody else was seen to write to it.
    pub(super) is_shared: bool,
    pub(super) identity: Identity,
}

/// Which file it is, among all there are and were: the number of a file that was removed is given to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Identity {
    pub(super) device: u64,
    pub(super) inode: u64,
    /// When it was made; 0 if the file system does not say.
    pub(super) born_ns: u64,
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
        let file = OpenOptions::new().append(true).create(true).mode(MODE).open(path)?;
        kill::point();
        Self::with(file)
    }

    /// Opens a file for appending that is there.
    ///
    /// # Errors
    /// If it cannot be, or is no file that a log can be written to.
    pub(super) fn open_existing(path: &Path) -> io::Result<Self> {
        refuse_odd_file(path)?;
        Self::with(OpenOptions::new().append(true).open(path)?)
    }

    /// Makes the file that takes the place of one that was renamed, for the same readers.
    ///
    /// # Errors
    /// If it cannot be made, or somebody else has made it.
    pub(super) fn replace(path: &Path, old: &Metadata) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create_new(true).mode(MODE & old.mode()).open(path)?;
        kill::point();
        let file = Self::with(file)?;
        file.resemble(old)?;
        Ok(file)
    }

    /// Gives it the readers and the owner of another file.
    ///
    /// # Errors
    /// If its mode cannot be changed.
    pub(super) fn resemble(&self, old: &Metadata) -> io::Result<()> {
        self.file.set_permissions(old.permissions())?;
        keep_owner(&self.file, old)
    }

    fn with(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let is_regular = metadata.is_file();
        let length = if is_regular { metadata.len() } else { 0 };
        Ok(Self { file, length, is_regular, is_shared: false, identity: Identity::of(&metadata) })
    }

    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// What its end is. One that cannot be read counts as not ended: an empty line too many is better than an event
    /// line that is not one.
    pub(super) fn line_at_end(&self, path: &Path) -> Line {
        if !self.is_regular || self.length == 0 {
            return Line::Ended;
        }
        let mut last = [0];
        let read = File::open(path).and_then(|mut file| {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)
        });
        if read.is_ok() && last == *b"\n" { Line::Ended } else { Line::Open(None) }
    }

    /// Writes as much as the file takes. Returns how much that was, and why it was not all.
    pub(super) fn write(&mut self, bytes: &[u8]) -> (usize, Option<io::Error>) {
        let mut written = 0;
        let error = loop {
            if written == bytes.len() {
                break None;
            }
            let taken = self.file.write(kill::part(&bytes[written..]));
            kill::point();
            match taken {
                Ok(0) => break Some(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Some(error),
            }
        };
        self.length += to_u64(written);
        (written, error)
    }

    /// Whether it is as long as it must be if nobody else writes to it, so that its end may be cut off.
    pub(super) fn is_own(&self) -> bool {
        self.is_regular && self.metadata().is_ok_and(|now| now.len() == self.length)
    }

    /// Cuts the file to this length.
    ///
    /// # Errors
    /// If it cannot be cut; then it is as long as it was.
    pub(super) fn cut(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        kill::point();
        self.length = length;
        Ok(())
    }

    /// Looks whether the path still leads to this file, and how long that is.
    pub(super) fn look(&mut self, path: &Path) -> Place {
        let Ok(own) = self.metadata() else { return Place::Here };
        if !fs::metadata(path).is_ok_and(|there| self.identity.is_of(&there)) {
            // A write sets both times, and the removal of the last name only the time of change (unlink(3p)).
            let written_last = (own.mtime(), own.mtime_nsec()) >= (own.ctime(), own.ctime_nsec());
            return if own.nlink() == 0 && written_last { Place::Lost } else { Place::Moved };
        }
        if !self.is_regular || own.len() == self.length {
            return Place::Here;
        }
        self.is_shared |= own.len() > self.length;
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

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        let born = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let born_ns = born.map_or(0, |born| u64::try_from(born.as_nanos()).unwrap_or(u64::MAX));
        Self { device: metadata.dev(), inode: metadata.ino(), born_ns }
    }

    /// Whether this is the file, which still exists.
    fn is_of(&self, metadata: &Metadata) -> bool {
        (self.device, self.inode) == (metadata.dev(), metadata.ino())
    }
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
