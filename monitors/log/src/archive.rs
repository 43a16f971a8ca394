//! The old files beside the log: their names, how many there may be, and which are compressed.
//!
//! An old file is `NAME.20260801T123456.789012Z`, the log's own name and the time in UTC at which it was set
//! aside; compressed it ends in `.gz` or `.zst` besides. The names of one log grow strictly, even within a
//! microsecond or when the clock is set back, so that their order is that of the bytes in them.

mod compress;
mod name;

use crate::config::Rotation;
use crate::kill;
use name::Moment;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

pub(crate) use compress::keep_owner;

/// How old files are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }
}

/// The old files of one log.
pub(crate) struct Archive {
    directory: PathBuf,
    /// The log's own name in it.
    base: OsString,
    plan: Rotation,
    /// The newest name given.
    newest: Option<Moment>,
    shared: Arc<Shared>,
    has_warned: bool,
}

/// What the compressing thread and the delivering one both see. Neither holds the lock for longer than a rename.
struct Shared {
    state: Mutex<State>,
    /// Told when the compressing thread ends.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    /// Oldest first.
    files: VecDeque<OldFile>,
    is_compressing: bool,
    is_stopping: bool,
}

struct OldFile {
    moment: Moment,
    compression: Compression,
    bytes: u64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Archive {
    /// Looks what is beside this log, and puts in order what a pump that was killed has left half done: a file
    /// that was being compressed is compressed anew, for the plain one goes only when the other is whole.
    pub(crate) fn load(log: &Path, plan: &Rotation) -> Self {
        let directory = match log.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            Some(_) | None => PathBuf::from("."),
        };
        let base = log.file_name().unwrap_or_default().to_owned();
        let shared = Shared { state: Mutex::default(), ended: Condvar::new() };
        let mut archive = Self {
            directory,
            base,
            plan: plan.clone(),
            newest: None,
            shared: Arc::new(shared),
            has_warned: false,
        };
        match archive.scan() {
            Ok(files) => {
                archive.newest = files.back().map(|file| file.moment);
                archive.shared.lock().files = files;
            }
            Err(error) => archive.warn("read the directory of", log, &error),
        }
        archive.tidy();
        archive
    }

    /// Whether this is the archive of that log.
    pub(crate) fn is_of(&self, log: &Path) -> bool {
        log.parent() == Some(&self.directory) && log.file_name() == Some(&self.base)
    }

    /// Sets the log aside under a new name. [`Self::tidy`] does the rest, once there is a new log.
    ///
    /// # Errors
    /// If it cannot be renamed.
    pub(crate) fn take(&mut self, log: &Path, bytes: u64, now: SystemTime) -> io::Result<()> {
        let moment = Moment::after(self.newest, now);
        fs::rename(log, self.path(moment, Compression::None))?;
        kill::point();
        self.newest = Some(moment);
        self.shared.lock().files.push_back(OldFile { moment, compression: Compression::None, bytes });
        Ok(())
    }

    /// Removes what is too much, and has the rest compressed.
    pub(crate) fn tidy(&mut self) {
        self.prune();
        self.compress();
    }

    /// Waits for the compressing thread until then, and makes it leave the rest to the next pump.
    pub(crate) fn finish(&self, until: Instant) {
        let mut state = self.shared.lock();
        while state.is_compressing {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.shared.ended.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.is_stopping = true;
    }

    /// Finds the old files, oldest first, and removes what must not be there.
    fn scan(&self) -> io::Result<VecDeque<OldFile>> {
        let mut files: Vec<OldFile> = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let file_name = entry.file_name();
            if compress::is_half_done(&self.base, &file_name) {
                fs::remove_file(entry.path())?;
                kill::point();
                continue;
            }
            let Some((moment, compression)) = name::parse(&self.base, &file_name) else { continue };
            files.push(OldFile { moment, compression, bytes: entry.metadata()?.len() });
        }
        // Of two forms of the same file the compressed one is whole: it has its name. It comes first.
        files.sort_by_key(|file| (file.moment, file.compression == Compression::None));
        let mut last = None;
        files.retain(|file| {
            let is_twin = last.replace(file.moment) == Some(file.moment);
            if is_twin && let Err(error) = fs::remove_file(self.path(file.moment, file.compression)) {
                log::warn!(
                    "unable to remove {}: {error}",
                    self.path(file.moment, file.compression).display()
                );
            }
            !is_twin
        });
        Ok(files.into())
    }

    /// Removes the oldest files as long as there are too many, or they are too large together with a log that is
    /// as large as it may become.
    fn prune(&mut self) {
        let keep = self.plan.keep.unwrap_or(usize::MAX);
        let most_bytes = match (self.plan.max_total_bytes, self.plan.max_bytes) {
            (Some(total), max) => total.saturating_sub(max.unwrap_or(0)),
            (None, _) => u64::MAX,
        };
        loop {
            let oldest = {
                let mut state = self.shared.lock();
                let bytes = || state.files.iter().map(|file| file.bytes).sum::<u64>();
                if state.files.len() <= keep && (most_bytes == u64::MAX || bytes() <= most_bytes) {
                    return;
                }
                state.files.pop_front()
            };
            let Some(oldest) = oldest else { return };
            let path = self.path(oldest.moment, oldest.compression);
            let removed = fs::remove_file(&path);
            kill::point();
            match removed {
                Ok(()) => {}
                // Its owner has tidied up.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.warn("remove", &path, &error),
            }
        }
    }

    /// Has the plain files compressed, in a thread that lives as long as there are some.
    fn compress(&mut self) {
        if self.plan.compression == Compression::None {
            return;
        }
        {
            let mut state = self.shared.lock();
            let has_plain = state.files.iter().any(|file| file.compression == Compression::None);
            if state.is_compressing || !has_plain {
                return;
            }
            state.is_compressing = true;
        }
        let work = compress::Work {
            shared: Arc::clone(&self.shared),
            directory: self.directory.clone(),
            base: self.base.clone(),
            compression: self.plan.compression,
        };
        let fate = kill::Fate::of_this_thread();
        let spawned = std::thread::Builder::new().name("compress".to_owned()).spawn(move || {
            fate.share();
            work.run();
        });
        if let Err(error) = spawned {
            self.shared.lock().is_compressing = false;
            let directory = self.directory.clone();
            self.warn("start the compression of old files in", &directory, &error);
        }
    }

    fn path(&self, moment: Moment, compression: Compression) -> PathBuf {
        self.directory.join(name::of(&self.base, moment, compression))
    }

    /// Said once in the life of a pump: its stderr is the crash channel.
    fn warn(&mut self, what: &str, path: &Path, error: &io::Error) {
        if !self.has_warned {
            self.has_warned = true;
            log::warn!("unable to {what} {}: {error}", path.display());
        }
    }
}

/// Tries whether files could be made beside this log, and leaves nothing behind.
///
/// # Errors
/// If they cannot be.
pub(crate) fn try_beside(log: &Path) -> io::Result<()> {
    let beside = log.with_file_name(hidden(log.file_name().unwrap_or_default(), ".try"));
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside) {
        Ok(_) => fs::remove_file(&beside),
        // Somebody else tries at this moment, or has died over it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::remove_file(&beside),
        Err(error) => Err(error),
    }
}

/// The name of a file that is not to be seen: `.NAME` and a suffix.
fn hidden(name: &OsStr, suffix: &str) -> OsString {
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(suffix);
    hidden
}

#[cfg(test)]
mod tests;
