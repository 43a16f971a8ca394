//! Judges a library's file before anything of it is used: what it is, whose it is, and who may write to it.

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use nix::unistd::{Uid, User, geteuid};
use serde::{Deserialize, Serialize};

/// The sticky bit of a mode.
const STICKY: u32 = 0o1000;
/// More links than any system follows on the way to one file.
const MOST_LINKS: usize = 64;

/// What tells one state of a file from every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Length.
    pub size: u64,
    /// Last change of the contents, nanoseconds since 1970.
    pub mtime_ns: i128,
    /// Last change of contents, owner or mode, nanoseconds since 1970.
    pub ctime_ns: i128,
}

impl Identity {
    /// Reads the identity of the file at a path.
    ///
    /// # Errors
    /// What the system says.
    pub fn of(path: &Path) -> io::Result<Self> {
        Ok(Self::new(&path.metadata()?))
    }

    fn new(metadata: &Metadata) -> Self {
        let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Self {
            dev: metadata.dev(),
            ino: metadata.ino(),
            size: metadata.size(),
            mtime_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Why a file is not used as a library.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The system refuses it.
    #[error("unable to {action}")]
    System {
        /// `look at it` or `read it`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not a regular file.
    #[error("it is {what}, not a file")]
    NotRegular {
        /// What it is.
        what: &'static str,
    },
    /// The path led elsewhere while it was looked at.
    #[error("it was replaced while it was looked at")]
    Replaced,
    /// Somebody else owns it.
    #[error("it belongs to {owner}, who is neither root nor you", owner = account(*owner))]
    Owner {
        /// The file.
        path: PathBuf,
        /// The owner.
        owner: u32,
    },
    /// Others may write to it.
    #[error("{who} may write to it")]
    Writable {
        /// The file.
        path: PathBuf,
        /// Who.
        who: Writers,
    },
    /// Somebody else owns a symbolic link on the way to it.
    #[error("the link {} belongs to {owner}, who is neither root nor you", link.display(), owner = account(*owner))]
    LinkOwner {
        /// The link.
        link: PathBuf,
        /// Its owner's number.
        owner: u32,
    },
    /// For root: its directory belongs to somebody else, who may put another file in its place.
    #[error("its directory {} belongs to {}", directory.display(), account(*owner))]
    DirectoryOwner {
        /// The directory.
        directory: PathBuf,
        /// Its owner's number.
        owner: u32,
    },
    /// Others may write to its directory, and so put another file in its place.
    #[error("{who} may write to the directory {}", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// Who.
        who: Writers,
    },
}

/// Who may write that should not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    /// Everybody.
    World,
    /// A group that is not root's.
    Group(u32),
}

impl std::fmt::Display for Writers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::World => f.write_str("everybody"),
            Self::Group(gid) => write!(f, "the group {gid}"),
        }
    }
}

impl Writers {
    fn letter(self) -> char {
        match self {
            Self::World => 'o',
            Self::Group(_) => 'g',
        }
    }
}

impl FileError {
    /// The command to type, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::System { action: "read it", path, source }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Some(format!("chmod a+r {}", quoted(path)))
            }
            Self::Owner { path, .. } => {
                Some(format!("chown {} {}", account(geteuid().as_raw()), quoted(path)))
            }
            Self::LinkOwner { link, .. } => {
                Some(format!("chown -h {} {}", account(geteuid().as_raw()), quoted(link)))
            }
            Self::Writable { path, who } => Some(format!("chmod {}-w {}", who.letter(), quoted(path))),
            Self::DirectoryOwner { directory, .. } => Some(format!("chown root {}", quoted(directory))),
            Self::Directory { directory, who } => {
                Some(format!("chmod {}-w {}", who.letter(), quoted(directory)))
            }
            Self::System { .. } | Self::NotRegular { .. } | Self::Replaced => None,
        }
    }
}

/// Opens a library's file for reading, after judging what it is and who may write to it.
///
/// The file is looked at before it is opened, because opening a FIFO waits for its other end and opening a
/// device may do anything; and again after it, because the path may lead elsewhere by then.
///
/// # Errors
/// Every [`FileError`].
pub fn inspect(path: &Path) -> Result<(File, Identity), FileError> {
    let system = |action| move |source| FileError::System { action, path: path.to_owned(), source };
    let before = path.metadata().map_err(system("look at it"))?;
    regular(&before)?;
    judge(path, &before, geteuid())?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
        .map_err(system("read it"))?;
    let after = file.metadata().map_err(system("look at it"))?;
    regular(&after)?;
    if Identity::new(&before) != Identity::new(&after) {
        return Err(FileError::Replaced);
    }
    Ok((file, Identity::new(&after)))
}

fn regular(metadata: &Metadata) -> Result<(), FileError> {
    let kind = metadata.file_type();
    let what = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(FileError::NotRegular { what })
}

/// Owner and mode. For root, the directories as well: the file's own may be written to by root and root's group alone,
/// those above it not by everybody (distributions hand `/usr/local` to a group), and a sticky one is exempt,
/// for nobody can replace another's file there.
fn judge(path: &Path, metadata: &Metadata, caller: Uid) -> Result<(), FileError> {
    let owner = metadata.uid();
    if owner != 0 && owner != caller.as_raw() {
        return Err(FileError::Owner { path: path.to_owned(), owner });
    }
    if let Some(who) = writers(metadata, caller.is_root()) {
        return Err(FileError::Writable { path: path.to_owned(), who });
    }
    if caller.is_root() { judge_directories(path, true) } else { Ok(()) }
}

/// Judges the symbolic links on the way to a file, an absolute path: like its directory they decide what is loaded. In
/// a sticky directory each must belong to root or the caller, and for root each lies in a directory as the file must.
///
/// # Errors
/// [`FileError::System`], [`FileError::Replaced`], [`FileError::LinkOwner`], [`FileError::DirectoryOwner`],
/// [`FileError::Directory`].
pub(crate) fn judge_links(path: &Path) -> Result<(), FileError> {
    let caller = geteuid();
    let mut rest = parts(path);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = rest.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        at.push(&part);
        let system = |source| FileError::System { action: "look at it", path: at.clone(), source };
        let metadata = at.symlink_metadata().map_err(system)?;
        if !metadata.is_symlink() {
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(FileError::Replaced);
        }
        if caller.is_root() {
            judge_directories(&at, rest.is_empty())?;
        }
        // Elsewhere it was made by whoever may write to the directory.
        let owner = metadata.uid();
        if owner != 0 && owner != caller.as_raw() && is_sticky(&at).map_err(system)? {
            return Err(FileError::LinkOwner { link: at, owner });
        }
        let target = at.read_link().map_err(system)?;
        at.pop();
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        rest.extend(parts(&target));
    }
    Ok(())
}

/// Whether everybody may make links beside this one, but not replace it.
fn is_sticky(link: &Path) -> io::Result<bool> {
    let directory = link.parent().unwrap_or(Path::new("/"));
    Ok(directory.metadata()?.mode() & STICKY != 0)
}

/// The names and `..` of a path, last first.
fn parts(path: &Path) -> Vec<OsString> {
    let part = |part: Component<'_>| {
        matches!(part, Component::Normal(_) | Component::ParentDir).then(|| part.as_os_str().to_owned())
    };
    path.components().rev().filter_map(part).collect()
}

/// The directories that a path leads through. `is_own`: the last one is the library's own, and judged as such.
fn judge_directories(path: &Path, is_own: bool) -> Result<(), FileError> {
    for (level, directory) in path.ancestors().skip(1).enumerate() {
        let is_own = is_own && level == 0;
        let metadata = directory.metadata().map_err(|source| FileError::System {
            action: "look at its directory",
            path: directory.to_owned(),
            source,
        })?;
        if metadata.mode() & STICKY != 0 {
            continue;
        }
        if is_own && metadata.uid() != 0 {
            return Err(FileError::DirectoryOwner { directory: directory.to_owned(), owner: metadata.uid() });
        }
        if let Some(who) = writers(&metadata, is_own) {
            return Err(FileError::Directory { directory: directory.to_owned(), who });
        }
    }
    Ok(())
}

fn writers(metadata: &Metadata, is_group_judged: bool) -> Option<Writers> {
    match metadata.mode() {
        mode if mode & 0o002 != 0 => Some(Writers::World),
        mode if mode & 0o020 != 0 && is_group_judged && metadata.gid() != 0 => {
            Some(Writers::Group(metadata.gid()))
        }
        _ => None,
    }
}

/// The name of an account, its number where it has none.
fn account(uid: u32) -> String {
    if uid == 0 {
        return "root".into();
    }
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

/// A path as a shell reads it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,@%".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    fn sandbox() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().canonicalize().unwrap().join("it is.so");
        std::fs::write(&file, "x").unwrap();
        mode(&file, 0o644);
        (directory, file)
    }

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn refusal(path: &Path) -> (String, Option<String>) {
        let error = inspect(path).unwrap_err();
        (crate::loader::chain(&error), error.hint())
    }

    #[test]
    fn plain_file_is_accepted_with_its_identity() {
        let (_sandbox, file) = sandbox();
        let (_, identity) = inspect(&file).unwrap();
        assert_eq!(identity, Identity::of(&file).unwrap());
        std::fs::write(&file, "xy").unwrap();
        assert_ne!(identity, Identity::of(&file).unwrap());
    }

    #[test]
    fn what_is_no_regular_file_is_refused_without_waiting_for_it() {
        let (sandbox, file) = sandbox();
        let fifo = sandbox.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(refusal(&fifo).0, "it is a FIFO, not a file");
        assert_eq!(refusal(sandbox.path()).0, "it is a directory, not a file");
        assert_eq!(refusal(Path::new("/dev/null")).0, "it is a device, not a file");
        assert!(refusal(&file.join("below")).0.starts_with("unable to look at it: "));
    }

    #[test]
    fn world_writable_file_is_refused_with_the_chmod_to_type() {
        let (_sandbox, file) = sandbox();
        mode(&file, 0o646);
        let (text, hint) = refusal(&file);
        assert_eq!(text, "everybody may write to it");
        assert_eq!(hint.unwrap(), format!("chmod o-w '{}'", file.display()));
    }

    #[test]
    fn root_trusts_no_foreign_owner_group_or_directory() {
        if !geteuid().is_root() {
            println!("skipped: not root");
            return;
        }
        let (_sandbox, file) = sandbox();
        chown(&file, Some(65534), Some(0)).unwrap();
        let (text, hint) = refusal(&file);
        assert!(text.starts_with("it belongs to ") && text.ends_with("neither root nor you"), "{text}");
        assert!(hint.unwrap().starts_with("chown root "));
        chown(&file, Some(0), Some(0)).unwrap();
        mode(&file, 0o664);
        assert!(inspect(&file).is_ok(), "root's own group may write");
        chown(&file, Some(0), Some(65534)).unwrap();
        assert_eq!(refusal(&file).0, "the group 65534 may write to it");
        mode(&file, 0o644);
        let directory = file.parent().unwrap();
        mode(directory, 0o777);
        assert!(refusal(&file).0.starts_with("everybody may write to the directory "));
        assert_eq!(refusal(&file).1.unwrap(), format!("chmod o-w {}", directory.display()));
        mode(directory, 0o1777);
        assert!(inspect(&file).is_ok(), "a sticky directory is exempt");
        mode(directory, 0o755);
        chown(directory, Some(65534), None).unwrap();
        let (text, hint) = refusal(&file);
        assert!(text.starts_with("its directory ") && text.contains(" belongs to "), "{text}");
        assert_eq!(hint.unwrap(), format!("chown root {}", directory.display()));
    }

    #[test]
    fn links_are_judged_like_the_directory_of_the_file() {
        if !geteuid().is_root() {
            println!("skipped: not root");
            return;
        }
        let (sandbox, file) = sandbox();
        let root = sandbox.path().canonicalize().unwrap();
        let open = root.join("open");
        std::fs::create_dir(&open).unwrap();
        let (link, way) = (open.join("link.so"), root.join("way"));
        std::os::unix::fs::symlink("../it is.so", &link).unwrap();
        std::os::unix::fs::symlink(&open, &way).unwrap();
        let refusal = |path: &Path| {
            let error = judge_links(path).unwrap_err();
            (crate::loader::chain(&error), error.hint().unwrap())
        };
        assert!(judge_links(&file).is_ok() && judge_links(&link).is_ok());
        mode(&open, 0o777);
        for path in [&link, &way.join("link.so")] {
            let (text, hint) = refusal(path);
            assert_eq!(text, format!("everybody may write to the directory {}", open.display()));
            assert_eq!(hint, format!("chmod o-w {}", open.display()));
        }
        assert!(judge_links(&open.join("../it is.so")).is_ok(), "no link in it is followed");
        mode(&open, 0o1777);
        assert!(judge_links(&link).is_ok(), "a sticky directory is exempt");
        std::os::unix::fs::lchown(&way, Some(65534), None).unwrap();
        assert!(judge_links(&way.join("link.so")).is_ok(), "nobody but root could make it there");
        std::os::unix::fs::lchown(&link, Some(65534), None).unwrap();
        for path in [&link, &way.join("link.so")] {
            let (text, hint) = refusal(path);
            assert!(text.starts_with(&format!("the link {} belongs to ", link.display())), "{text}");
            assert_eq!(hint, format!("chown -h root {}", link.display()));
        }
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("link.so", &link).unwrap();
        assert!(matches!(judge_links(&link), Err(FileError::Replaced)), "it leads to itself by now");
    }

    #[test]
    fn paths_in_hints_survive_a_shell() {
        assert_eq!(quoted(Path::new("/a/b.so")), "/a/b.so");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
