//! What pump and daemon have in common: how they are started, and what they find when they begin.

mod early;

use crate::crash::Crash;
use crate::launch::{FORMAT, Launch, number};
use crate::places::GroupFiles;
use crate::state::{Member, Page};
use crate::strings::Strings;
use crate::sys::exit_status::FAILED;
use crate::sys::{arguments, copy, environment, family, fd, memory, signals, socket, spawn};
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

pub(crate) use early::{Early, dismiss_reserve, keep_one_in_reserve, wait_until_gone};

/// A role that is another process of this executable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    #[error("command line: this command is for immortal itself")]
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
    /// Strategy daemon with `keep`: what was taken from the streams.
    pub(crate) spool: Option<OwnedFd>,
    /// With `keep`: pidfd of the process that the pump before has left, if it was handed over.
    pub(crate) process: Option<OwnedFd>,
    /// How a role of the group died last, if one did.
    pub(crate) crash: Option<Crash>,
    /// Keep the numbers free that this role needs if it becomes the daemon in place.
    _reserved: Vec<OwnedFd>,
    /// A pump whose monitors are new by a reload: the set-up before, until they are ready.
    pub(crate) before: Option<Before>,
    /// Environment of this role, as it was inherited: what a monitor sets later does not spread. Not kept where
    /// there are no monitors.
    environment: Option<Strings>,
    /// What this role alone was given, by number.
    inherited: Vec<Option<OwnedFd>>,
}

/// The set-up before a reload.
#[derive(Debug)]
pub(crate) struct Before {
    pub(crate) launch: OwnedFd,
    pub(crate) executable: OwnedFd,
}

/// A role that has begun its life: signals blocked, descriptors taken over. If it is the first of its group, it may
/// not have them yet, for it is not sure yet that there will be a group.
#[derive(Debug)]
pub(crate) struct Begun {
    role: Role,
    /// What it was given, by number.
    inherited: Vec<Option<OwnedFd>>,
    /// The system shows the arguments of the command whose copy it is.
    is_unnamed: bool,
}

/// Begins the life of a role that was executed, with whatever of the table was left open for it.
pub(crate) fn begin(role: Role) -> Result<Begun, RoleError> {
    begin_with(role, 0..=number::LAST)
}

/// Begins the life of a role with these descriptors of the table, which may be open.
fn begin_with(role: Role, numbers: RangeInclusive<RawFd>) -> Result<Begun, RoleError> {
    memory::share_heap();
    attempt("block signals", signals::block_all())?;
    attempt("restore signals", signals::restore_defaults())?;
    // All at once and before anything else opens a descriptor, which might get a number of the table.
    let adopt = |n: RawFd| (n > 2 && numbers.contains(&n)).then(|| fd::adopt(n))?;
    let inherited = (0..=number::LAST).map(adopt).collect();
    family::name_process();
    Ok(Begun { role, inherited, is_unnamed: false })
}

impl Begun {
    /// Joins its group: waits for its descriptors, if it does not have them yet, and sets the log. If there is to be no
    /// group, its link ends instead.
    // Kept apart, so that what it needs of the stack is not in use while the role lives.
    #[inline(never)]
    pub(crate) fn join(mut self) -> Result<Box<Group>, RoleError> {
        receive_the_rest(&mut self.inherited)?;
        let group = group_of(self.role, self.inherited)?;
        if self.is_unnamed {
            let arguments = ["immortal", self.role.name(), &group.launch.name];
            attempt("show its arguments", arguments::replace(&arguments))?;
        }
        Ok(group)
    }
}

fn group_of(role: Role, mut inherited: Vec<Option<OwnedFd>>) -> Result<Box<Group>, RoleError> {
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
    let handed = if role == Role::Daemon { page.take_handed() } else { 0 };
    if handed != 0 {
        // What threads of a monitor had just opened when their pump became this daemon is not ours.
        (3..=number::LAST).filter(|number| handed >> number & 1 == 0).for_each(|number| drop(take(number)));
        fd::close_behind(number::LAST);
    }
    let mut ends = |numbers: (RawFd, RawFd)| take(numbers.0).zip(take(numbers.1));
    let (Some(stdout), Some(stderr)) = (ends(number::STDOUT), ends(number::STDERR)) else {
        return Err(RoleError::NotStartedByImmortal);
    };
    let before = ends(number::BEFORE).map(|(launch, executable)| Before { launch, executable });
    let spool = take(number::SPOOL);
    let process = take(number::PROCESS);
    let record = take(number::LAST_CRASH);
    let crash = match &record {
        Some(record) => Crash::decode(&attempt("read the crash record", fd::read_from_start(record))?),
        None => None,
    };
    let mut reserved: Vec<OwnedFd> = record.into_iter().collect();
    if spool.is_some() {
        for (number, is_taken) in
            [(number::PROCESS, process.is_some()), (number::LAST_CRASH, !reserved.is_empty())]
        {
            if !is_taken {
                reserved.push(attempt("reserve a descriptor", fd::reserve(number))?);
            }
        }
    }
    Ok(Box::new(Group {
        launch,
        launch_fd,
        lock: take(number::LOCK).map(File::from),
        listener: take(number::LISTENER),
        page_fd,
        page,
        streams: [stdout, stderr],
        spool,
        process,
        crash,
        _reserved: reserved,
        before,
        environment: None,
        inherited,
    }))
}

/// Waits for its descriptors, if it was started with nothing but a link: before it was sure that there would be a
/// group. If there is none, the link ends.
fn receive_the_rest(inherited: &mut [Option<OwnedFd>]) -> Result<(), RoleError> {
    let at = |number: RawFd| usize::try_from(number).unwrap_or(usize::MAX);
    let Some(link) = inherited[at(number::LINK)].take() else { return Ok(()) };
    // The lock may have come alone.
    while inherited[at(number::LAUNCH)].is_none() {
        let Ok(received) = socket::receive_descriptors::<MOST_DESCRIPTORS>(&link) else {
            inherited[at(number::LOCK)].take().map(File::from).iter().for_each(forsake);
            return Err(RoleError::CalledOff);
        };
        for (fd, number) in received {
            if number == STDERR {
                attempt("take over stderr", fd::replace_stderr(fd))?;
            } else if let Some(place) = inherited.get_mut(at(number)) {
                *place = Some(fd);
            }
        }
    }
    inherited[at(number::LINK)] = Some(link);
    Ok(())
}

/// Removes the files of a group that will not be, for whoever made them may have been killed.
fn forsake(lock: &File) {
    if let Some(directory) = fd::place_of(lock).as_deref().and_then(Path::parent) {
        GroupFiles::at(directory.to_owned()).remove(lock);
    }
}

fn own_environment() -> Strings {
    Strings::copy(environment::variables())
}

fn page_of(fd: &OwnedFd) -> io::Result<Page> {
    Page::map(&File::from(fd.try_clone()?))
}

/// The number of stderr.
pub(crate) const STDERR: RawFd = 2;

const MOST_DESCRIPTORS: usize = number::LAST as usize + 1;

/// The executable that this process runs, whatever its path holds now.
pub(crate) fn own_executable() -> PathBuf {
    // A copy of this process need not ask again.
    static OWN: OnceLock<PathBuf> = OnceLock::new();
    let find = || {
        #[cfg(target_os = "linux")]
        if std::fs::read_link(copy::OWN_EXECUTABLE).is_ok() {
            return PathBuf::from(copy::OWN_EXECUTABLE);
        }
        std::env::current_exe().unwrap_or_else(|_| PathBuf::from("immortal"))
    };
    OWN.get_or_init(find).clone()
}

/// What a new role gets besides the group's own descriptors.
#[derive(Default)]
pub(crate) struct Extra<'a> {
    pub(crate) descriptors: Vec<(BorrowedFd<'a>, RawFd)>,
    /// Its stderr; none: `/dev/null`.
    pub(crate) stderr: Option<BorrowedFd<'a>>,
    /// Becomes a child of init.
    pub(crate) detached: bool,
    /// Launch data and executable, if they are not the group's own.
    pub(crate) setup: Option<(BorrowedFd<'a>, PathBuf)>,
    /// What a copy of this process does to be the role, where that is as good as to execute it.
    pub(crate) copy: Option<fn() -> u8>,
}

impl Group {
    /// Takes a descriptor that this role alone was given, if it was.
    pub(crate) fn take(&mut self, number: RawFd) -> Option<OwnedFd> {
        self.inherited.get_mut(usize::try_from(number).ok()?)?.take()
    }

    /// Keeps this role's environment as it is now.
    pub(crate) fn keep_environment(&mut self) -> &Strings {
        self.environment.get_or_insert_with(own_environment)
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

    /// Keeps how a role has died: for the monitors of the next pump, and in a file for `status`.
    pub(crate) fn note_crash(&mut self, crash: Crash) {
        if let Some(directory) = self.launch.directory.clone() {
            let files = GroupFiles::at(PathBuf::from(std::ffi::OsString::from_vec(directory)));
            if let Err(error) = files.write_last_crash(&crash.json()) {
                log::warn!("`status` will not show the last crash: {error}");
            }
        }
        self.crash = Some(crash);
    }

    /// What is in the file of an unattached pump's stderr.
    pub(crate) fn last_stderr(&self) -> Vec<u8> {
        let directory = self.launch.directory.clone();
        let path = directory.map(|path| PathBuf::from(std::ffi::OsString::from_vec(path)));
        path.map(|path| GroupFiles::at(path).last_stderr().0).unwrap_or_default()
    }

    /// Removes the group's files, if it has any.
    pub(crate) fn remove_files(&self) {
        if let (Some(directory), Some(lock)) = (self.launch.directory.clone(), &self.lock) {
            GroupFiles::at(PathBuf::from(std::ffi::OsString::from_vec(directory))).remove(lock);
        }
    }

    /// What every role of the group gets, with these launch data.
    fn descriptors<'a>(&'a self, launch: BorrowedFd<'a>) -> Vec<(BorrowedFd<'a>, RawFd)> {
        let mut descriptors = vec![
            (launch, number::LAUNCH),
            (self.page_fd.as_fd(), number::PAGE),
            (self.streams[0].0.as_fd(), number::STDOUT.0),
            (self.streams[0].1.as_fd(), number::STDOUT.1),
            (self.streams[1].0.as_fd(), number::STDERR.0),
            (self.streams[1].1.as_fd(), number::STDERR.1),
        ];
        descriptors.extend(self.lock.as_ref().map(|fd| (fd.as_fd(), number::LOCK)));
        descriptors.extend(self.listener.as_ref().map(|fd| (fd.as_fd(), number::LISTENER)));
        descriptors.extend(self.spool.as_ref().map(|fd| (fd.as_fd(), number::SPOOL)));
        descriptors
    }

    /// How a role died last, as the next ones read it.
    fn crash_record(&self) -> io::Result<Option<OwnedFd>> {
        self.crash.as_ref().map(|crash| fd::sealed(&crash.encode())).transpose()
    }

    /// Starts a role of this group, from this same executable if nothing else is said.
    pub(crate) fn start(&self, role: Role, extra: Extra<'_>) -> io::Result<i32> {
        let copy = extra.copy.filter(|_| extra.setup.is_none());
        let (launch, executable) = match extra.setup {
            Some((launch, executable)) => (launch, executable),
            None => (self.launch_fd.as_fd(), own_executable()),
        };
        let mut descriptors = self.descriptors(launch);
        let record = self.crash_record()?;
        descriptors.extend(record.as_ref().map(|fd| (fd.as_fd(), number::LAST_CRASH)));
        descriptors.extend(extra.descriptors);
        let launching = Launching {
            role,
            name: &self.launch.name,
            executable,
            environment: &self.environment.clone().unwrap_or_else(own_environment),
            page: Some(self.page),
        };
        match copy {
            Some(live) if can_be_copied() => launching.copy(descriptors, extra.stderr, live),
            Some(_) | None => launching.start(descriptors, extra.stderr, extra.detached),
        }
    }

    /// The launch data of the group, and from now on these.
    pub(crate) fn take_launch(&mut self, launch: Launch, file: OwnedFd) {
        self.launch = launch;
        self.launch_fd = file;
    }

    /// The launch data of the group, for a pump that is to know those before a reload.
    pub(crate) fn launch_file(&self) -> BorrowedFd<'_> {
        self.launch_fd.as_fd()
    }

    /// Executes the group's daemon in this process: same pid, same children. A pump that was to replace another one and
    /// is not ready takes the set-up before for that. Returns only if it fails.
    pub(crate) fn become_daemon(&self, process: Option<OwnedFd>) -> io::Error {
        let mut descriptors: Vec<_> =
            process.iter().map(|process| (process.as_fd(), number::PROCESS)).collect();
        let own = self.launch_fd.as_fd();
        match &self.before {
            None => self.execute_daemon(&own_executable(), own, descriptors),
            Some(before) => {
                descriptors.push((own, number::TRIED));
                self.execute_daemon(&fd::path_of(&before.executable), before.launch.as_fd(), descriptors)
            }
        }
    }

    /// Executes the group's daemon in this process, which is the daemon already, from another executable. Returns only
    /// if that fails, and then this process cannot go on: its descriptors have changed places.
    pub(crate) fn renew_daemon(&self, executable: &Path, own: Vec<(BorrowedFd<'_>, RawFd)>) -> io::Error {
        self.execute_daemon(executable, self.launch_fd.as_fd(), own)
    }

    fn execute_daemon(
        &self,
        executable: &Path,
        launch: BorrowedFd<'_>,
        own: Vec<(BorrowedFd<'_>, RawFd)>,
    ) -> io::Error {
        let execute = || -> io::Result<std::convert::Infallible> {
            let environment = self.environment.clone().unwrap_or_else(own_environment);
            let executable = spawn::c_string(executable.as_os_str().as_bytes())?;
            let words = ["immortal", Role::Daemon.name(), &self.launch.name];
            let arguments: Vec<CString> =
                words.iter().map(|word| spawn::c_string(*word)).collect::<Result<_, _>>()?;
            let null = fd::null()?;
            let mut descriptors = self.descriptors(launch);
            let record = self.crash_record()?;
            descriptors.extend(record.as_ref().map(|fd| (fd.as_fd(), number::LAST_CRASH)));
            descriptors.extend(own);
            descriptors.push((null.as_fd(), 2));
            nix::unistd::chdir("/")?;
            self.page.set_handed(descriptors.iter().fold(0, |mask, (_, number)| mask | 1 << number));
            fd::place(&descriptors)?;
            Ok(nix::unistd::execve(&executable, &arguments, &environment.c_strings()?)?)
        };
        let error = match execute() {
            Ok(never) => match never {},
            Err(error) => error,
        };
        self.page.set_handed(0);
        error
    }
}

/// How a role is executed.
pub(crate) struct Launching<'a> {
    pub(crate) role: Role,
    pub(crate) name: &'a str,
    pub(crate) executable: PathBuf,
    pub(crate) environment: &'a Strings,
    /// The group's page, if there is one already.
    pub(crate) page: Option<Page>,
}

/// Tells whether a copy of this process can be a role.
fn can_be_copied() -> bool {
    arguments::can_be_replaced() && copy::is_possible()
}

/// Makes a copy of this process what an executed role is: with these descriptors and no others, in a session of its own.
fn take_places(descriptors: Vec<(BorrowedFd<'_>, RawFd)>, stderr: Option<BorrowedFd<'_>>) -> io::Result<()> {
    nix::unistd::setsid()?;
    nix::unistd::chdir("/")?;
    // What has its number afterwards is another one.
    let null = std::mem::ManuallyDrop::new(fd::null()?);
    let null = null.as_fd();
    let standard = [(null, 0), (null, 1), (stderr.unwrap_or(null), 2)];
    let all: Vec<_> = descriptors.into_iter().chain(standard).collect();
    fd::keep_only(&all, number::LAST)
}

impl Launching<'_> {
    /// Has a copy of this process be the role, with these descriptors and no others; returns its pid.
    fn copy(
        &self,
        descriptors: Vec<(BorrowedFd<'_>, RawFd)>,
        stderr: Option<BorrowedFd<'_>>,
        live: fn() -> u8,
    ) -> io::Result<i32> {
        let member = self.role.member();
        let slot = self.page.map(|page| page.slot(member));
        let begin = || {
            if let Some(slot) = slot {
                slot.store(u64::from(std::process::id()), Ordering::SeqCst);
            }
            arguments::replace(&["immortal", self.role.name(), self.name])?;
            take_places(descriptors, stderr)
        };
        let pid = copy::start(|| match begin() {
            Ok(()) => live(),
            Err(_) => FAILED,
        })?;
        if let Some(page) = self.page {
            page.set_member(member, pid);
        }
        Ok(pid)
    }

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
        let environment = self.environment.c_strings()?;
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
            birth: None,
        };
        let pid = spawn::spawn(&child).map_err(io::Error::other)?;
        // Zero: the intermediate was killed before it could say the pid, which the role itself writes as well.
        if let Some(page) = self.page.filter(|_| pid > 0) {
            page.set_member(member, pid);
        }
        Ok(pid)
    }
}
