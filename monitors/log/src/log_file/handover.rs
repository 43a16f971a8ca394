//! How a log is handed over from a pump that is killed to the next one, to the byte (`--on-crash keep`).
//!
//! Writes go first, and a checkpoint says afterwards what they have made of the log. A pump that is killed in between
//! leaves a file that is longer than its checkpoint says; the next one cuts it there, and is given again what was cut
//! off. So everything that changes the file or what is remembered of it is followed by a checkpoint before the hook
//! returns, and what cannot be undone by cutting has a checkpoint of its own before it (a rename, a cut).

use super::checkpoint::{Checkpoint, CheckpointFile, Left, Mark, Told};
use super::{LogFile, OpenFile, Source, line_of_changed};
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{fs, io};

impl LogFile {
    /// Keeps checkpoints in this file from now on, and takes over what a dead pump has left there. The log is to be
    /// opened afterwards. Returns up to where each stream is in it, if that was left.
    ///
    /// `first_offsets` is what would be delivered first otherwise. `is_first`: there was no pump before.
    pub(crate) fn keep_checkpoints(
        &mut self,
        path: PathBuf,
        first_offsets: [u64; 2],
        is_first: bool,
    ) -> Option<[u64; 2]> {
        self.positions = first_offsets;
        match CheckpointFile::open(path.clone(), self.stamped.is_some(), is_first) {
            Ok((checkpoints, left)) => {
                self.checkpoints = Some(Box::new(checkpoints));
                // One that is behind what was acknowledged since is of no use: it could not be replaced.
                let left =
                    left.filter(|left| (0..2).all(|i| left.checkpoint.positions[i] >= first_offsets[i]))?;
                self.take_over(left);
                Some(self.positions)
            }
            Err(error) => {
                log::warn!(
                    "unable to keep {}: {error}; output may be in the log twice after a crash",
                    path.display()
                );
                discard(&path);
                None
            }
        }
    }

    fn take_over(&mut self, left: Left) {
        let Checkpoint {
            positions,
            mark,
            line,
            begun_bytes,
            begun_stamp_bytes,
            unsaid_bytes,
            dropped_bytes,
            skip_bytes,
            has_talked,
            written_at,
            told,
        } = left.checkpoint;
        self.positions = positions;
        self.inherited = Some(mark);
        self.line = line;
        (self.begun_bytes, self.begun_stamp_bytes) = (begun_bytes, begun_stamp_bytes);
        (self.unsaid_bytes, self.dropped_bytes) = (unsaid_bytes, dropped_bytes);
        self.skip_bytes = skip_bytes;
        self.written_at = written_at;
        self.told = told;
        if dropped_bytes > 0 {
            self.host.report("dropped_bytes", dropped_bytes);
        }
        if let Some(stamped) = &mut self.stamped {
            stamped.has_talked = has_talked;
        }
        for (source, held) in [Source::Stdout, Source::Stderr].into_iter().zip(left.held) {
            let Some((since, bytes)) = held else { continue };
            match &mut self.stamped {
                Some(stamped) => stamped.hold_again(source, &bytes, since),
                // A pump was killed over a reload that took the stamps away.
                None => self.count(bytes.len()),
            }
        }
    }

    /// Goes on with a file that was opened: where the dead pump's checkpoint says, or at its end.
    pub(super) fn go_on_with(&mut self, mut file: OpenFile, now: SystemTime) -> OpenFile {
        match self.inherited.take() {
            // It was to be renamed, and was; this one has taken its place, and with it the line under way.
            Some(mark) if mark.is_set_aside && file.length == 0 => {
                (self.begun_bytes, self.begun_stamp_bytes) = (0, 0);
                let alike = self.find_moved(&mark).map(|old| file.resemble(&old.metadata()?));
                if let Some(Err(error)) = alike {
                    self.warn("change the mode of", &error);
                }
            }
            Some(mark) if mark.identity == file.identity => self.go_back(&mut file, mark),
            mark => {
                // It was moved away before the pump died, which had not seen that yet.
                if let Some(mark) = mark.filter(Mark::owns_the_rest)
                    && let Some(mut moved) = self.find_moved(&mark)
                    && moved.length > mark.length
                    && let Err(error) = moved.cut(mark.length)
                {
                    self.warn("cut", &error);
                }
                self.written_at = file.metadata().and_then(|metadata| metadata.modified()).unwrap_or(now);
                (self.begun_bytes, self.begun_stamp_bytes) = (0, 0);
                self.line = file.line_at_end(&self.path);
            }
        }
        file
    }

    /// Goes back to what this file was when the checkpoint was written.
    fn go_back(&mut self, file: &mut OpenFile, mark: Mark) {
        file.is_shared = mark.is_shared;
        if file.length > mark.length
            && mark.owns_the_rest()
            && let Err(error) = file.cut(mark.length)
        {
            self.warn("cut", &error);
        }
        if file.length != mark.length {
            (self.begun_bytes, self.begun_stamp_bytes) = (0, 0);
            self.line = line_of_changed(self.line, file, &self.path);
        }
    }

    /// Looks beside the log for a file that was at its path.
    fn find_moved(&self, mark: &Mark) -> Option<OpenFile> {
        let path = self.path.canonicalize();
        let directory = path.as_ref().unwrap_or(&self.path).parent()?;
        let mut entries = directory.read_dir().ok()?.flatten();
        let entry = entries.find(|entry| entry.ino() == mark.identity.inode)?;
        OpenFile::open_existing(&entry.path()).ok().filter(|file| file.identity == mark.identity)
    }

    /// What of these bytes at this offset of their stream is not in the log yet.
    pub(crate) fn fresh<'a>(&mut self, source: Source, offset: u64, bytes: &'a [u8]) -> &'a [u8] {
        let position = &mut self.positions[source as usize];
        if self.checkpoints.is_none() || offset >= *position {
            *position = offset;
            return bytes;
        }
        let known = usize::try_from(*position - offset).unwrap_or(usize::MAX);
        bytes.get(known..).unwrap_or_default()
    }

    /// Whether this event was noted by a pump that was killed before it could say so.
    pub(crate) fn was_told(&self, event: Told) -> bool {
        self.checkpoints.is_some() && self.told == event
    }

    /// This event is noted now.
    pub(crate) fn is_told(&mut self, event: Told) {
        self.told = event;
    }

    /// Says that all is in the log as it is to be, if anybody is to know.
    pub(crate) fn commit(&mut self) {
        if self.checkpoints.is_some() {
            self.write_checkpoint(false);
        }
    }

    /// The same before the file is renamed.
    pub(super) fn commit_before_renaming(&mut self) {
        if self.checkpoints.is_some() {
            self.write_checkpoint(true);
        }
    }

    fn write_checkpoint(&mut self, is_set_aside: bool) {
        let Some(mut checkpoints) = self.checkpoints.take() else { return };
        let held = self.stamped.as_ref().map_or([None, None], |stamped| stamped.held());
        match checkpoints.write(&self.checkpoint(is_set_aside), held) {
            Ok(()) => self.checkpoints = Some(checkpoints),
            Err(error) => {
                log::warn!(
                    "unable to write {}: {error}; output may be in the log twice after a crash",
                    checkpoints.path().display()
                );
                discard(checkpoints.path());
            }
        }
    }

    /// What is in the log now.
    fn checkpoint(&self, is_set_aside: bool) -> Checkpoint {
        let mark = self.file.as_ref().map(|file| Mark {
            identity: file.identity,
            length: file.length,
            is_shared: file.is_shared,
            is_set_aside,
            is_finished: self.is_finished,
        });
        Checkpoint {
            positions: self.positions,
            mark: mark.or(self.inherited).unwrap_or_default(),
            line: self.line,
            begun_bytes: self.begun_bytes,
            begun_stamp_bytes: self.begun_stamp_bytes,
            unsaid_bytes: self.unsaid_bytes,
            dropped_bytes: self.dropped_bytes,
            skip_bytes: self.skip_bytes,
            has_talked: self.stamped.as_ref().map_or([false; 2], |stamped| stamped.has_talked),
            written_at: self.written_at,
            told: self.told,
        }
    }
}

/// Removes a file of checkpoints that are not written any more: they would have the next pump go back too far. One that
/// cannot be removed either is seen to be old as soon as something was delivered.
fn discard(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            log::debug!("unable to remove {}: {error}", path.display());
        }
        Ok(()) | Err(_) => {}
    }
}
