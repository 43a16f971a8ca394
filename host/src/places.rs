//! Where things are: the runtime directory, and in it one directory a group.

use crate::orphan::Orphan;
use crate::state::{Member, Page, Snapshot};
use crate::sys::socket;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a lock that no role holds is waited for: somebody waits for the end of the group that was there.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// Why a place cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// The runtime directory is not safe to use.
    #[error("runtime directory {}: {why}", path.display())]
    Refused {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file or directory could not be made or opened.
    #[error("unable to {what} {}", path.display())]
    System {
        /// What was attempted.
        what: &'static str,
        /// With which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A group of this name lives.
    #[error("name {name}: it is in use")]
    InUse {
        /// The name.
        name: String,
    },
    /// A group of this name is being started.
    #[error("name {name}: a start of it is under way")]
    BeingStarted {
        /// The name.
        name: String,
    },
}

impl PlaceError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::InUse { name } => {
                Some(format!("choose another with --name, or end it: immortal stop {name}"))
            }
            Self::BeingStarted { .. } => Some("wait for that, or choose another with --name".into()),
            Self::Refused { .. } => Some("set IMMORTAL_RUNTIME_DIR to a directory of your own".into()),
            Self::System { .. } => None,
        }
    }

    pub(crate) fn system(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::System { what, path: path.to_owned(), source }
    }
}

/// The places to try for the runtime directory, best first.
fn candidates() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = variable("IMMORTAL_RUNTIME_DIR") {
        // Without a slash at the end, which would lead through a symbolic link.
        let path = std::path::absolute(&path).unwrap_or(path);
        return vec![path.components().collect()];
    }
    let uid = nix::unistd::geteuid();
    let mut all = Vec::new();
    if uid.is_root() {
        all.push(PathBuf::from("/run/immortal"));
    }
    let state = variable("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let state = state.or_else(|| variable("HOME").map(|home| home.join(".local/state")));
    all.extend(state.map(|path| path.join("immortal/run")));
    all.push(PathBuf::from(format!("/tmp/immortal-{uid}")));
    all
}

/// Finds the runtime directory, and makes it if there is none.
///
/// # Errors
/// It belongs to another user, others may write to it, it is a symbolic link, or none can be made.
pub(crate) fn runtime_directory() -> Result<PathBuf, PlaceError> {
    let mut first_error = None;
    for path in candidates() {
        match make(&path) {
            Ok(()) => {
                examine(&path)?;
                return Ok(path);
            }
            Err(error) => first_error = first_error.or(Some(PlaceError::system("make", &path, error))),
        }
    }
    Err(first_error
        .unwrap_or_else(|| PlaceError::system("make", Path::new("/tmp"), io::ErrorKind::NotFound.into())))
}

/// Finds the runtime directory that [`runtime_directory`] would, if it is there.
pub(crate) fn settled_runtime_directory() -> Option<PathBuf> {
    settled(candidates())
}

/// The best of the candidates, if it is there and fit: of any other it is not known that it would be the one.
fn settled(candidates: Vec<PathBuf>) -> Option<PathBuf> {
    let first = candidates.into_iter().next()?;
    examine(&first).ok().map(|()| first)
}

/// Finds the runtime directory without making one.
pub(crate) fn existing_runtime_directory() -> Result<Option<PathBuf>, PlaceError> {
    let found = candidates().into_iter().find(|path| path.symlink_metadata().is_ok());
    if let Some(path) = &found {
        examine(path)?;
    }
    Ok(found)
}

fn make(path: &Path) -> io::Result<()> {
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn examine(path: &Path) -> Result<(), PlaceError> {
    let refuse = |why: String| Err(PlaceError::Refused { path: path.to_owned(), why });
    let data = path.symlink_metadata().map_err(|error| PlaceError::system("look at", path, error))?;
    let me = nix::unistd::geteuid().as_raw();
    if data.is_symlink() {
        return refuse("it is a symbolic link".into());
    }
    if !data.is_dir() {
        return refuse("it is not a directory".into());
    }
    if data.uid() != me {
        return refuse(format!("it belongs to user {}, not to you ({me})", data.uid()));
    }
    if data.mode() & 0o022 != 0 {
        return refuse(format!("others may write to it (chmod go-w {})", path.display()));
    }
    Ok(())
}

/// The files of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupFiles {
    pub(crate) directory: PathBuf,
}

/// Where `log` writes for a group whose monitors are all set aside.
pub(crate) const FALLBACK_LOG: &str = "output.log";
/// Beginning of the names of files with bytes that were set aside.
const ASIDE: &str = "aside.";

/// Bytes that a monitor died of and was not given any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AsideFile {
    pub(crate) path: PathBuf,
    pub(crate) stream: String,
    /// Offset of the first of them in the stream.
    pub(crate) offset: u64,
    /// Label of the monitor.
    pub(crate) label: String,
    pub(crate) bytes: u64,
}

/// The name of the control socket.
pub(crate) const CONTROL: &str = "control";
const FACTS: &str = "facts";
/// Where they are written before they take their place.
const NEW_FACTS: &str = "facts.new";
const LAST_CRASH: &str = "last_crash";
/// Where it is written before it takes its place.
const NEW_LAST_CRASH: &str = "last_crash.new";
const FILES: [&str; 10] =
    [CONTROL, "state", FACTS, NEW_FACTS, "stderr", "recent", "notify", "reload", LAST_CRASH, NEW_LAST_CRASH];
/// What files end in that a monitor keeps here for its successors: `LABEL.delivered`.
const MONITORS_OWN: &[u8] = b".delivered";

impl GroupFiles {
    /// The files in this directory.
    pub(crate) fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// The files of the group of this name.
    pub(crate) fn of(runtime: &Path, name: &str) -> Self {
        Self { directory: runtime.join(name) }
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.directory.join("lock")
    }

    pub(crate) fn page(&self) -> PathBuf {
        self.directory.join("state")
    }

    pub(crate) fn stderr(&self) -> PathBuf {
        self.directory.join("stderr")
    }

    pub(crate) fn recent(&self) -> PathBuf {
        self.directory.join("recent")
    }

    /// Where bytes of a stream are that were set aside for a monitor.
    pub(crate) fn aside(&self, stream: &str, offset: u64, label: &str) -> PathBuf {
        self.directory.join(format!("{ASIDE}{stream}.{offset}.{label}"))
    }

    /// All bytes that were set aside.
    pub(crate) fn all_aside(&self) -> Vec<AsideFile> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let mut all: Vec<AsideFile> = entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let mut parts = name.strip_prefix(ASIDE)?.splitn(3, '.');
                let (stream, offset, label) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
                Some(AsideFile {
                    path: entry.path(),
                    stream: stream.to_owned(),
                    offset,
                    label: label.to_owned(),
                    bytes: entry.metadata().ok()?.len(),
                })
            })
            .collect();
        all.sort_by(|one, other| (&one.stream, one.offset).cmp(&(&other.stream, other.offset)));
        all
    }

    /// Removes all files of ours but the lock. What was set aside is the user's, and stays.
    fn clear(&self) -> io::Result<()> {
        for name in FILES {
            match fs::remove_file(self.directory.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            // A label has no dot.
            let label = name.as_bytes().strip_suffix(MONITORS_OWN);
            if label.is_some_and(|label| !label.contains(&b'.')) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes everything, if the directory is still the one that this lock, which the caller holds, belongs to.
    pub(crate) fn remove(&self, lock: &File) {
        if !is_same_file(lock, &self.lock()) {
            return;
        }
        let removed = self
            .clear()
            .and_then(|()| fs::remove_file(self.lock()))
            .and_then(|()| fs::remove_dir(&self.directory));
        if let Err(error) = removed
            && !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty)
        {
            log::warn!("unable to remove {}: {error}", self.directory.display());
        }
    }

    /// Writes what changes in the life of the group at a reload only: whoever reads it finds the old or the new.
    pub(crate) fn write_facts(&self, facts: &Facts) -> io::Result<()> {
        self.write_new_facts(facts)?;
        self.publish_facts()
    }

    /// The same without anybody finding it yet.
    pub(crate) fn write_new_facts(&self, facts: &Facts) -> io::Result<()> {
        let json = serde_json::to_vec(facts).map_err(io::Error::other)?;
        fs::write(self.directory.join(NEW_FACTS), json)
    }

    /// From now on what was written last is found, and with it the group.
    pub(crate) fn publish_facts(&self) -> io::Result<()> {
        fs::rename(self.directory.join(NEW_FACTS), self.directory.join(FACTS))
    }

    /// Reads what changes in the life of the group at a reload only.
    pub(crate) fn read_facts(&self) -> Option<Facts> {
        serde_json::from_slice(&fs::read(self.directory.join(FACTS)).ok()?).ok()
    }

    /// Writes how a role died; who reads meanwhile sees the old record or the new one.
    pub(crate) fn write_last_crash(&self, crash: &serde_json::Value) -> io::Result<()> {
        use std::io::Write;
        let path = self.directory.join(NEW_LAST_CRASH);
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        writeln!(file, "{crash}")?;
        fs::rename(path, self.directory.join(LAST_CRASH))
    }

    /// Reads how a role died, if one did.
    pub(crate) fn read_last_crash(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&fs::read(self.directory.join(LAST_CRASH)).ok()?).ok()
    }

    /// The stderr of an unattached pump, and when it wrote to it last (wall clock, nanoseconds); 0: it never did.
    pub(crate) fn last_stderr(&self) -> (Vec<u8>, u64) {
        let bytes = fs::read(self.stderr()).unwrap_or_default();
        let modified = fs::metadata(self.stderr()).and_then(|data| data.modified()).ok();
        let since = modified.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        let at_ns =
            since.filter(|_| !bytes.is_empty()).and_then(|since| u64::try_from(since.as_nanos()).ok());
        (bytes, at_ns.unwrap_or(0))
    }

    /// The last line of a dead pump's stderr.
    pub(crate) fn last_stderr_line(&self) -> Option<String> {
        last_line(&fs::read(self.stderr()).ok()?)
    }
}

/// The last line that is not empty.
pub(crate) fn last_line(bytes: &[u8]) -> Option<String> {
    let line = bytes.split(|byte| *byte == b'\n').rev().find(|line| !line.trim_ascii().is_empty())?;
    Some(String::from_utf8_lossy(line.trim_ascii()).into_owned())
}

/// What `list` and `status` say of a group that changes in its life at a reload only.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) strategy: String,
    pub(crate) file: String,
    pub(crate) args: Vec<String>,
    pub(crate) monitors: Vec<MonitorFacts>,
    pub(crate) settings: serde_json::Value,
    pub(crate) stop_signal: i32,
    pub(crate) stop_timeout_ms: u64,
}

/// One monitor, as `list` and `status` show it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MonitorFacts {
    pub(crate) label: String,
    pub(crate) name: String,
    pub(crate) path: String,
}

/// A name that is ours, with the files that a new group begins with.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) files: GroupFiles,
    pub(crate) lock: File,
    pub(crate) listener: UnixListener,
    pub(crate) page_file: File,
}

/// Takes a name: nobody else can while the lock is held. What an earlier group left is ended and removed.
pub(crate) fn claim(runtime: &Path, name: &str) -> Result<Claim, PlaceError> {
    let files = GroupFiles::of(runtime, name);
    let made = make_directory(&files)?;
    claim_in(files, name, made, |_| ())
}

/// Takes a name that has no directory, so that nothing has to give way to it; does this as soon as it is locked.
/// `None`: it has one, or cannot have one.
pub(crate) fn claim_unused(runtime: &Path, name: &str, locked: impl FnOnce(&File)) -> Option<Claim> {
    let files = GroupFiles::of(runtime, name);
    let made = make_directory(&files).ok()?;
    made.then(|| claim_in(files, name, made, locked).ok())?
}

/// Takes a name with its directory, which was made for that or was there before. Does this when it is locked, if it
/// was made.
fn claim_in(
    files: GroupFiles,
    name: &str,
    mut is_new: bool,
    locked: impl FnOnce(&File),
) -> Result<Claim, PlaceError> {
    let directory = &files.directory;
    let lock = match lock(&files, name, &mut is_new) {
        Ok(lock) => lock,
        Err(error) => {
            // Not if somebody else has made use of it.
            if is_new && let Err(error) = fs::remove_dir(directory) {
                log::debug!("{}: {error}", directory.display());
            }
            return Err(error);
        }
    };
    if is_new {
        locked(&lock);
    }
    let snapshot = Snapshot::read(&files.page());
    if let Some(snapshot) = &snapshot {
        end_orphan(&files, snapshot);
    }
    if !is_new || snapshot.is_some() {
        files.clear().map_err(|error| PlaceError::system("clear", directory, error))?;
    }
    let make = || -> io::Result<(UnixListener, File)> {
        let page_file =
            File::options().read(true).write(true).create_new(true).mode(0o600).open(files.page())?;
        let listener = socket::listen(directory, CONTROL)?;
        listener.set_nonblocking(true)?;
        Ok((listener, page_file))
    };
    match make() {
        Ok((listener, page_file)) => Ok(Claim { files, lock, listener, page_file }),
        Err(error) => {
            files.remove(&lock);
            Err(PlaceError::system("make the files of the group in", directory, error))
        }
    }
}

/// Makes the group's directory; `false`: it is there already.
fn make_directory(files: &GroupFiles) -> Result<bool, PlaceError> {
    match DirBuilder::new().mode(0o700).create(&files.directory) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(PlaceError::system("make", &files.directory, error)),
    }
}

/// Locks the group's directory. Between opening the lock and locking it the group may end and take the directory away,
/// so it is made again if it is gone, and the file that was locked must still be the one that the path names.
fn lock(files: &GroupFiles, name: &str, is_new: &mut bool) -> Result<File, PlaceError> {
    let patience = Instant::now() + LOCK_PATIENCE;
    let path = files.lock();
    loop {
        let file =
            match File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)
            {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    *is_new = make_directory(files)?;
                    continue;
                }
                Err(error) => return Err(PlaceError::system("open", &path, error)),
            };
        match file.try_lock() {
            Ok(()) if is_same_file(&file, &path) => return Ok(file),
            // Whoever had made it has removed it.
            Ok(()) => *is_new = false,
            Err(TryLockError::WouldBlock) => {
                let name = || name.to_owned();
                // A start whose monitors are being checked has roles already, and may come to nothing.
                let is_group = |page: &Snapshot| page.group_started() || files.directory.join(FACTS).exists();
                if Snapshot::read(&files.page()).is_some_and(|page| page.has_roles() && is_group(&page)) {
                    return Err(PlaceError::InUse { name: name() });
                }
                if Instant::now() >= patience {
                    return Err(PlaceError::BeingStarted { name: name() });
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(TryLockError::Error(error)) => return Err(PlaceError::system("lock", &path, error)),
        }
    }
}

fn is_same_file(file: &File, path: &Path) -> bool {
    let both = file.metadata().ok().zip(fs::metadata(path).ok());
    both.is_some_and(|(ours, named)| (ours.dev(), ours.ino()) == (named.dev(), named.ino()))
}

/// Ends a process whose pump and daemon are gone, politely, with what is left of its group and of its descendants; and
/// that, too, if it is dead itself, or there was none at that moment.
pub(crate) fn end_orphan(files: &GroupFiles, snapshot: &Snapshot) {
    let facts = files.read_facts();
    let signal = facts.as_ref().map_or(libc::SIGTERM, |facts| facts.stop_signal);
    let timeout = Duration::from_millis(facts.map_or(10_000, |facts| facts.stop_timeout_ms));
    let orphan = Orphan::new(snapshot.noted(Member::Process), snapshot.started(Member::Process));
    orphan.end(signal, timeout, &snapshot.marks());
}

/// Makes the page of a group that has not begun to live.
pub(crate) fn initialise_page(file: &File) -> Result<Page, PlaceError> {
    let page = Page::map(file).map_err(|error| PlaceError::system("map", Path::new("state"), error))?;
    page.initialise();
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_directory_is_settled_if_no_better_one_could_be_made() {
        let root = tempfile::tempdir().unwrap();
        let (better, worse) = (root.path().join("better"), root.path().join("worse"));
        make(&worse).unwrap();
        let candidates = || vec![better.clone(), worse.clone()];
        assert_eq!(settled(candidates()), None);
        make(&better).unwrap();
        assert_eq!(settled(candidates()), Some(better.clone()));
    }

    #[test]
    fn what_a_monitor_keeps_for_its_successors_goes_with_the_group() {
        let runtime = tempfile::tempdir().unwrap();
        let files = GroupFiles::of(runtime.path(), "web");
        fs::create_dir(&files.directory).unwrap();
        let lock = File::create(files.lock()).unwrap();
        for name in [CONTROL, "state", "log.delivered"] {
            fs::write(files.directory.join(name), "").unwrap();
        }
        // Somebody's own, for a monitor of that label.
        let own = files.directory.join("aside.stdout.0.delivered");
        fs::write(&own, "").unwrap();
        files.clear().unwrap();
        assert!(own.exists());
        fs::remove_file(own).unwrap();
        files.remove(&lock);
        assert!(!files.directory.exists());
    }
}
