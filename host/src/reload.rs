//! What a reload is about: the set-up that is to take the place of a group's own, as the command hands it to the roles,
//! and how the command learns what came of it.

use crate::delivery::Got;
use crate::launch::{Bytes, FORMAT, Launch, Policy, number};
use crate::lifecycle::{DELIVER_TIMEOUT, FINISH_TIMEOUT};
use crate::loader::Checked;
use crate::role::{Group, own_executable};
use crate::state::{Page, is_aside};
use crate::sys::fd;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, Metadata};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How much longer than it has any reason to a pump may take to yield or to get ready before it is killed.
const SLACK: Duration = Duration::from_secs(5);

/// How long a pump may take to yield: it finishes what it is about first.
pub(crate) fn yield_timeout(policy: &Policy) -> Duration {
    let about = policy.setup_timeout + policy.stop_timeout + policy.ready_within.unwrap_or_default();
    about + DELIVER_TIMEOUT + FINISH_TIMEOUT + SLACK
}

/// How long a pump with a new set-up may take to get ready.
pub(crate) fn trial_timeout(policy: &Policy) -> Duration {
    policy.setup_timeout + SLACK
}

/// What is to take the place of what a group runs with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// What pump and daemon are to be executed from.
    pub(crate) executable: Executable,
    /// Monitors that have passed the check.
    pub(crate) monitors: Vec<Checked>,
}

/// A file and which one it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Executable {
    path: Bytes,
    device: u64,
    inode: u64,
}

fn is_file(data: &Metadata, device: u64, inode: u64) -> bool {
    (data.dev(), data.ino()) == (device, inode)
}

impl Executable {
    /// The one that this process runs.
    ///
    /// # Errors
    /// Its path leads to another file by now.
    pub(crate) fn own() -> io::Result<Self> {
        let path = std::env::current_exe()?;
        let own = fs::metadata(own_executable())?;
        if !fs::metadata(&path).is_ok_and(|data| is_file(&data, own.dev(), own.ino())) {
            return Err(io::Error::other(format!("{} was replaced meanwhile", path.display())));
        }
        Ok(Self { path: path.into_os_string().into_vec(), device: own.dev(), inode: own.ino() })
    }

    /// Opens it for being executed; none: this process runs it already.
    ///
    /// # Errors
    /// In words: it is not there, or another file by now.
    pub(crate) fn open(&self) -> Result<Option<OwnedFd>, String> {
        let path = Path::new(std::ffi::OsStr::from_bytes(&self.path));
        let cannot = |error: io::Error| format!("{}: {error}", path.display());
        let file = fd::open_to_execute(path).map_err(cannot)?;
        let data = file.metadata().map_err(cannot)?;
        if !is_file(&data, self.device, self.inode) {
            return Err(format!("{} is not the executable that asks for the reload", path.display()));
        }
        let own = fs::metadata(own_executable()).map_err(cannot)?;
        Ok((!is_file(&data, own.dev(), own.ino())).then(|| file.into()))
    }
}

/// The request for a reload as it stands on the control socket. The set-up is opaque there, so that a group that knows
/// another form of it can read the number of the format all the same.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Version of what roles and command have in common.
    format: u32,
    /// Tells this request from any other.
    pub(crate) id: u64,
    /// The set-up, in hexadecimal digits.
    setup: String,
}

impl fmt::Debug for Request {
    /// Shows no set-up: values of options are in there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("format", &self.format).field("id", &self.id).finish_non_exhaustive()
    }
}

impl Request {
    /// A request that is like no other.
    pub(crate) fn new(setup: &Setup) -> Self {
        let id = RandomState::new().build_hasher().finish() | 1;
        let bytes = postcard::to_allocvec(setup).expect("plain data can be encoded");
        let setup = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { format: FORMAT, id, setup }
    }

    /// What is wanted.
    ///
    /// # Errors
    /// In words: it cannot be read here.
    pub(crate) fn open(&self) -> Result<Setup, String> {
        if self.format != FORMAT {
            let asked = self.format;
            return Err(format!(
                "the group's format is {FORMAT} and the command's is {asked}: they cannot mix"
            ));
        }
        let digits = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Option<Vec<u8>> = self.setup.as_bytes().chunks(2).map(digits).collect();
        let setup = bytes.and_then(|bytes| postcard::from_bytes::<Setup>(&bytes).ok());
        let is_whole = |setup: &Setup| self.id != 0 && !setup.monitors.is_empty();
        setup.filter(is_whole).ok_or_else(|| "that is no set-up".to_owned())
    }
}

/// Why the last reload failed: a file in the group's directory, written before the page says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Which request it is about.
    pub(crate) id: u64,
    /// The reason, in one line.
    pub(crate) why: String,
}

impl Report {
    fn path(directory: &Path) -> PathBuf {
        directory.join("reload")
    }

    /// Writes it.
    pub(crate) fn write(&self, directory: &Path) -> io::Result<()> {
        fs::write(Self::path(directory), serde_json::to_vec(self).map_err(io::Error::other)?)
    }

    /// Reads it.
    pub(crate) fn read(directory: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(Self::path(directory)).ok()?).ok()
    }
}

/// For each of these monitors the one of those before that has the same label.
pub(crate) fn heirs(monitors: &[Checked], before: &[Checked]) -> Vec<Option<usize>> {
    let ancestor = |monitor: &Checked| before.iter().position(|other| other.label == monitor.label);
    monitors.iter().map(ancestor).collect()
}

/// The monitors of a group are others from now on, and each goes on where the one of its label was. A newcomer is told
/// only what not everybody at work was told. Returns what those before had got.
pub(crate) fn hand_over(page: Page, before: &[Checked], monitors: &[Checked]) -> Vec<Got> {
    let delivery = page.delivery();
    let heirs = heirs(monitors, before);
    // The one behind the last is at work if all others are set aside.
    let got = delivery.got(before.len() + 1);
    let mask = page.aside();
    let at_work = (0..before.len()).filter(|monitor| !is_aside(mask, *monitor));
    let told = at_work.map(|monitor| got[monitor].told).min().unwrap_or(got[before.len()].told);
    delivery.hand_over(&got, &heirs, told);
    delivery.hand_over_aside(&heirs);
    got
}

/// The monitors of a set-up that was tried are replaced by those before again: for a daemon that was the pump of the
/// former. Not before: its relay went on to its last moment.
pub(crate) fn hand_back(group: &mut Group) {
    let Some(tried) = group.take(number::TRIED) else { return };
    let tried = fd::read_from_start(&tried).ok().and_then(|bytes| Launch::decode(&bytes).ok());
    if let Some(tried) = tried {
        hand_over(group.page, &tried.monitors, &group.launch.monitors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loader::{Door, Identity};
    use crate::options::{OptionValue, ValueKind};

    fn setup() -> Setup {
        let executable = Executable::own().unwrap();
        let path = PathBuf::from(std::ffi::OsString::from_vec(executable.path.clone()));
        let secret = OptionValue { key: "key".into(), value: b"s3cret".to_vec(), kind: ValueKind::Text };
        let monitor = Checked {
            label: "a".into(),
            identity: Identity::of(&path).unwrap(),
            path,
            name: "a".into(),
            version: "1".into(),
            door: Door::C,
            options: vec![secret],
        };
        Setup { executable, monitors: vec![monitor] }
    }

    #[test]
    fn a_request_arrives_as_it_was_meant_and_shows_no_value_on_the_way() {
        let setup = setup();
        let request = Request::new(&setup);
        let line = serde_json::to_string(&request).unwrap();
        let read: Request = serde_json::from_str(&line).unwrap();
        assert_eq!((read.id, read.open()), (request.id, Ok(setup.clone())));
        assert!(!format!("{request:?} {setup:?}").contains("s3cret"));
    }

    #[test]
    fn a_request_of_another_format_is_refused_whatever_it_holds() {
        let request = Request { format: FORMAT + 1, id: 7, setup: "?".into() };
        assert!(request.open().unwrap_err().contains("format"), "{:?}", request.open());
        for setup in ["", "0", "zz", "00"] {
            let request = Request { format: FORMAT, id: 7, setup: setup.into() };
            assert_eq!(request.open(), Err("that is no set-up".to_owned()));
        }
    }

    #[test]
    fn an_executable_is_told_from_another_file_at_its_path() {
        let own = Executable::own().unwrap();
        assert!(matches!(own.open(), Ok(None)));
        let other = Executable { inode: own.inode ^ 1, ..own };
        assert!(other.open().unwrap_err().contains("is not the executable"));
        let missing = Executable { path: b"/nowhere".to_vec(), ..other };
        assert!(missing.open().unwrap_err().starts_with("/nowhere: "));
    }
}
