//! Compresses old files, one after the other, in a thread of its own that ends when there are none left.
//!
//! A plain file goes only when the compressed one is whole, on the disk, and has its name. Whatever happens in
//! between, a power cut included, leaves one of the two whole; what is half done has a hidden name.

use super::name::{self, Moment};
use super::{Compression, OldFile, Shared, hidden};
use crate::kill;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a file that is being compressed ends in.
const HALF_DONE: &str = ".new";

/// How much is read at once. After each such piece the thread looks whether it is to stop.
const PIECE_BYTES: usize = 64 * 1024;

/// Half a mebibyte of memory instead of three and a half with the default level and window, of which the allocator
/// keeps the most; and of log lines it makes files of the same size.
const ZSTD_LEVEL: i32 = 1;
const ZSTD_WINDOW_LOG: u32 = 17;

pub(super) struct Work {
    pub(super) shared: Arc<Shared>,
    pub(super) directory: PathBuf,
    pub(super) base: OsString,
    pub(super) compression: Compression,
}

/// Whether this is a file that was being compressed for this log.
pub(super) fn is_half_done(base: &OsStr, name: &OsStr) -> bool {
    name::between(name, b".", HALF_DONE.as_bytes()).is_some_and(|inner| name::parse(base, &inner).is_some())
}

impl Work {
    /// Compresses what is plain, oldest first. The first failure ends it: what hinders one, as a full disk does,
    /// hinders all. The next file that is set aside tries again.
    pub(super) fn run(self) {
        let mut done = Ok(());
        while done.is_ok() {
            let oldest = {
                let mut state = self.shared.lock();
                let oldest = state.files.iter().find(|file| file.compression == Compression::None);
                match oldest.map(|file| file.moment) {
                    Some(moment) if !state.is_stopping => moment,
                    // Said under the lock: who sets a file aside later starts a new thread.
                    Some(_) | None => {
                        state.is_compressing = false;
                        self.shared.ended.notify_all();
                        return;
                    }
                }
            };
            done = self.compress(oldest);
        }
        if let Err(error) = done {
            log::warn!(
                "unable to compress old files of {}: {error}",
                self.directory.join(&self.base).display()
            );
        }
        self.shared.lock().is_compressing = false;
        self.shared.ended.notify_all();
    }

    fn compress(&self, moment: Moment) -> io::Result<()> {
        let plain = self.directory.join(name::of(&self.base, moment, Compression::None));
        let name = name::of(&self.base, moment, self.compression);
        let half_done = self.directory.join(hidden(&name, HALF_DONE));
        let written = self.write(&plain, &half_done);
        let bytes = match written {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return remove_if_there(&half_done),
            Err(error) => {
                remove_if_there(&half_done)?;
                let mut state = self.shared.lock();
                if error.kind() == io::ErrorKind::NotFound {
                    // Its owner has tidied up, or it has become too old meanwhile.
                    state.files.retain(|file| file.moment != moment);
                    return Ok(());
                }
                return Err(error);
            }
        };
        {
            let mut state = self.shared.lock();
            match state.files.iter_mut().find(|file| file.moment == moment) {
                Some(file) => {
                    if let Err(error) = fs::rename(&half_done, self.directory.join(&name)) {
                        remove_if_there(&half_done)?;
                        return Err(error);
                    }
                    kill::point();
                    *file = OldFile { moment, compression: self.compression, bytes };
                }
                // It has become too old, and the plain one is gone.
                None => return remove_if_there(&half_done),
            }
        }
        File::open(&self.directory)?.sync_all()?;
        remove_if_there(&plain)
    }

    /// Writes the compressed form and returns its size; `None` if it was told to stop.
    fn write(&self, plain: &Path, half_done: &Path) -> io::Result<Option<u64>> {
        let mut input = File::open(plain)?;
        let metadata = input.metadata()?;
        remove_if_there(half_done)?;
        let output = OpenOptions::new().write(true).create_new(true).mode(0o600).open(half_done)?;
        kill::point();
        let output = BufWriter::new(output);
        let output = match self.compression {
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(output, flate2::Compression::default());
                if !self.copy(&mut input, &mut encoder)? {
                    return Ok(None);
                }
                encoder.finish()?
            }
            Compression::Zstd | Compression::None => {
                let mut encoder = zstd::Encoder::new(output, ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                encoder.window_log(ZSTD_WINDOW_LOG)?;
                // Small files get a small window.
                encoder.set_pledged_src_size(Some(metadata.len()))?;
                if !self.copy(&mut input, &mut encoder)? {
                    return Ok(None);
                }
                encoder.finish()?
            }
        };
        let output = output.into_inner().map_err(io::IntoInnerError::into_error)?;
        output.set_permissions(metadata.permissions())?;
        output.set_modified(metadata.modified()?)?;
        keep_owner(&output, &metadata)?;
        output.sync_all()?;
        kill::point();
        Ok(Some(output.metadata()?.len()))
    }

    /// Copies all there is. Returns whether it was not told to stop.
    fn copy(&self, input: &mut File, output: &mut impl Write) -> io::Result<bool> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let count = match input.read(&mut piece) {
                Ok(0) => return Ok(true),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            output.write_all(&piece[..count])?;
            if self.shared.lock().is_stopping {
                return Ok(false);
            }
        }
    }
}

/// Gives a file that takes the place of another its owner and group, if they differ and this user may.
pub(crate) fn keep_owner(file: &File, of: &fs::Metadata) -> io::Result<()> {
    let own = file.metadata()?;
    if (own.uid(), own.gid()) == (of.uid(), of.gid()) {
        return Ok(());
    }
    match fchown(file, Some(of.uid()), Some(of.gid())) {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    let removed = fs::remove_file(path);
    kill::point();
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
