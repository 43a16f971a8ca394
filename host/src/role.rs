//! What pump and daemon have in common: how they are started, and what they find when they begin.

use crate::launch::{FORMAT, Launch, number};
use crate::places::GroupFiles;
use crate::state::{Member, Page};
use crate::sys::{family, fd, signals, socket, spawn};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// A role that is another process of this executable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Pump,
    Daemon,
}

impl Role {
    /// Its hidden subcommand.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pump => "pump",
            Self::Daemon => "daemon",
        }
    }

    /// Whose pid it is on the page.
    pub(crate) fn member(self) -> Member {
        match self {
            Self::Pump => Member::Pump,
            Self::Daemon => Member::Daemon,
        }
    }
}

/// Why a role could not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoleError {
    #[error("this command is for immortal itself")]
    NotStartedByImmortal,
    #[error("the start was called off")]
    CalledOff,
    #[error("unable to read the launch data")]
    Launch(#[source] postcard::Error),
    #[error("unable to {0}")]
    System(&'static str, #[source] io::Error),
}

/// Adds what was attempted to a system error.
pub(crate) fn attempt<T>(what: &'static str, result: io::Result<T>) -> Result<T, RoleError> {
    result.map_err(|error| RoleError::System(what, error))
}

/// The descriptors that every role of a group holds.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) launch: Launch,
    launch_fd: OwnedFd,
    lock: Option<File>,
    pub(crate) listener: Option<OwnedFd>,
    page_fd: OwnedFd,
    pub(crate) page: Page,
    /// Reading and writing end of stdout and of stderr.
    pub(crate) streams: [(OwnedFd, OwnedFd); 2],
    /// Environment of this role, as it was inherited: what a monitor sets later does not spread.
    pub(crate) environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// What this role alone was given, by number.
    inherited: Vec<Option<OwnedFd>>,
}

/// Begins the life of a role: signals blocked, descriptors taken over, log and name set.
pub(crate) fn begin() -> Result<Group, RoleError> {
    attempt("block signals", signals::block_all())?;
    attempt("restore signals", signals::restore_defaults())?;
    // All at once and before anything else opens a descriptor, which might get a number of the table.
    let mut inherited: Vec<Option<OwnedFd>> =
        (0..=number::LAST).map(|n| (n > 2).then(|| fd::adopt(n))?).collect();
    family::name_process();
    let environment = std::env::vars_os().map(|(k, v)| (k.into_vec(), v.into_vec())).collect();
    receive_the_rest(&mut inherited)?;
    let mut take =
        |number: RawFd| usize::try_from(number).ok().and_then(|index| inherited.get_mut(index)?.take());
    let (Some(launch_fd), Some(page_fd)) = (take(number::LAUNCH), take(number::PAGE)) else {
        return Err(RoleError::NotStartedByImmortal);
    };
    let bytes = attempt("read the launch data", fd::read_from_start(&launch_fd))?;
    let launch = Launch::decode(&bytes).map_err(RoleError::Launch)?;
    if launch.format != FORMAT {
        return Err(RoleError::NotStartedByImmortal);
    }
    crate::logging::start(launch.log_level);
    let page = attempt("map the state page", page_of(&page_fd))?;
    let mut ends = |numbers: (RawFd, RawFd)| take(numbers.0).zip(take(numbers.1));
    let (Some(stdout), Some(stderr)) = (ends(number::STDOUT), ends(number::STDERR)) else {
        return Err(RoleError::NotStartedByImmortal);
    };
    Ok(Group {
        launch,
        launch_fd,
        lock: take(number::LOCK).map(File::from),
        listener: take(number::LISTENER),
        page_fd,
        page,
        streams: [stdout, stderr],
        environment,
        inherited,
    })
}

/// Waits for its descriptors, if it was started with nothing but a link: before it was sure that there would be a
/// group. If there is none, the link ends.
fn receive_the_rest(inherited: &mut [Option<OwnedFd>]) -> Result<(), RoleError> {
    let at = |number: RawFd| usize::try_from(number).unwrap_or(usize::MAX);
    let Some(link) = &inherited[at(number::LINK)] else { return Ok(()) };
    if inherited[at(number::LAUNCH)].is_some() {
        return Ok(());
    }
    let received = socket::receive_descriptors::<MOST_DESCRIPTORS>(link).map_err(|_| RoleError::CalledOff)?;
    for (fd, number) in received {
        if number == STDERR {
            attempt("take over stderr", fd::replace_stderr(fd))?;
        } else if let Some(place) = inherited.get_mut(at(number)) {
            *place = Some(fd);
        }
    }
    Ok(())
}

fn page_of(fd: &OwnedFd) -> io::Result<Page> {
    Page::map(&File::from(fd.try_clone()?))
}

/// The number of stderr.
pub(crate) const STDERR: RawFd = 2;

#[expect(clippy::cast_sign_loss, reason = "the numbers of the table are small")]
const MOST_DESCRIPTORS: usize = number::LAST as usize + 1;

/// The executable that this process runs, whatever its path holds now.
pub(crate) fn own_executable() -> PathBuf {
    #[cfg(target_os = "linux")]
    if std::path::Path::new("/proc/self/exe").exists() {
        return PathBuf::from("/proc/self/exe");
    }
    std::env::current_exe().unwrap_or_else(|_| PathBuf::from("immortal"))
}

/// What a new role gets besides the group's own descriptors.
#[derive(Default)]
pub(crate) struct Extra<'a> {
    pub(crate) descriptors: Vec<(BorrowedFd<'a>, RawFd)>,
    /// Its stderr; none: `/dev/null`.
    pub(crate) stderr: Option<BorrowedFd<'a>>,
    /// Becomes a child of init.
    pub(crate) detached: bool,
}

impl Group {
    /// Takes a descriptor that this role alone was given, if it was.
    pub(crate) fn take(&mut self, number: RawFd) -> Option<OwnedFd> {
        self.inherited.get_mut(usize::try_from(number).ok()?)?.take()
    }

    /// The group's directory, or the temporary one if it has none.
    pub(crate) fn directory(&self) -> PathBuf {
        let own = self.launch.directory.clone();
        own.map_or_else(std::env::temp_dir, |path| PathBuf::from(std::ffi::OsString::from_vec(path)))
    }

    /// The file of the recent output, if the group has a directory.
    pub(crate) fn open_recent(&self) -> Option<File> {
        let directory = PathBuf::from(std::ffi::OsString::from_vec(self.launch.directory.clone()?));
        let path = GroupFiles::at(directory).recent();
        match File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path) {
            Ok(file) => Some(file),
            Err(error) => {
                log::warn!("`logs` will show nothing: {error}");
                None
            }
        }
    }

    /// Removes the group's files, if it has any.
    pub(crate) fn remove_files(&self) {
        if let (Some(directory), Some(lock)) = (self.launch.directory.clone(), &self.lock) {
            GroupFiles::at(PathBuf::from(std::ffi::OsString::from_vec(directory))).remove(lock);
        }
    }

    /// Starts a role of this group from this same executable.
    pub(crate) fn start(&self, role: Role, extra: Extra<'_>) -> io::Result<i32> {
        let mut descriptors = vec![
            (self.launch_fd.as_fd(), number::LAUNCH),
            (self.page_fd.as_fd(), number::PAGE),
            (self.streams[0].0.as_fd(), number::STDOUT.0),
            (self.streams[0].1.as_fd(), number::STDOUT.1),
            (self.streams[1].0.as_fd(), number::STDERR.0),
            (self.streams[1].1.as_fd(), number::STDERR.1),
        ];
        descriptors.extend(self.lock.as_ref().map(|fd| (fd.as_fd(), number::LOCK)));
        descriptors.extend(self.listener.as_ref().map(|fd| (fd.as_fd(), number::LISTENER)));
        descriptors.extend(extra.descriptors);
        let launching = Launching {
            role,
            name: &self.launch.name,
            executable: own_executable(),
            environment: &self.environment,
            page: Some(self.page),
        };
        launching.start(descriptors, extra.stderr, extra.detached)
    }
}

/// How a role is executed.
pub(crate) struct Launching<'a> {
    pub(crate) role: Role,
    pub(crate) name: &'a str,
    pub(crate) executable: PathBuf,
    pub(crate) environment: &'a [(Vec<u8>, Vec<u8>)],
    /// The group's page, if there is one already.
    pub(crate) page: Option<Page>,
}

impl Launching<'_> {
    /// Executes the role with these descriptors and no others; returns its pid.
    pub(crate) fn start(
        &self,
        descriptors: Vec<(BorrowedFd<'_>, RawFd)>,
        stderr: Option<BorrowedFd<'_>>,
        detached: bool,
    ) -> io::Result<i32> {
        let null = fd::null()?;
        let null = null.as_fd();
        let standard = [(null, 0), (null, 1), (stderr.unwrap_or(null), 2)];
        let descriptors = descriptors.into_iter().chain(standard).collect();
        let candidates = [spawn::c_string(self.executable.as_os_str().as_bytes())?];
        let words = ["immortal", self.role.name(), self.name];
        let arguments: Vec<CString> =
            words.iter().map(|word| spawn::c_string(*word)).collect::<Result<_, _>>()?;
        let environment = environment_strings(self.environment)?;
        let member = self.role.member();
        let child = spawn::Child {
            candidates: &candidates,
            arguments: &arguments,
            environment: &environment,
            descriptors,
            directory: Some(c"/"),
            identity: None,
            limits: &[],
            umask: None,
            nice: None,
            session: true,
            detached,
            default_signals: false,
            parent_death_signal: None,
            pid_slot: self.page.map(|page| page.slot(member)),
        };
        let pid = spawn::spawn(&child).map_err(io::Error::other)?;
        if let Some(page) = self.page {
            page.set_member(member, pid);
        }
        Ok(pid)
    }
}

/// Turns pairs into `KEY=VALUE` strings.
pub(crate) fn environment_strings(environment: &[(Vec<u8>, Vec<u8>)]) -> io::Result<Vec<CString>> {
    environment.iter().map(|(key, value)| spawn::c_string([key.as_slice(), b"=", value].concat())).collect()
}
