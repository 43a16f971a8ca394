//! From a group that was verified to one that runs: makes its files and descriptors, starts its first role, and
//! waits for the word of it. A start that fails leaves nothing behind.

use super::{GroupPids, StartError, Started, attempt};
use crate::attached::{Attached, Pipes};
use crate::facts;
use crate::frames::{Frame, Link};
use crate::launch::{Launch, Strategy, number};
use crate::loader::{self, chain};
use crate::places::{self, GroupFiles, PlaceError};
use crate::role::{Early, Launching, Role, STDERR, wait_until_gone};
use crate::state::{Member, Page};
use crate::strings::Strings;
use crate::sys::fd;
use crate::sys::poll::poll;
use crate::sys::signals::Signals;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A group that may be started.
pub(super) struct Verified {
    pub(super) launch: Launch,
    pub(super) relay: bool,
    pub(super) executable: PathBuf,
    pub(super) inherited: Strings,
    /// Where the output of a process that is kept is held.
    pub(super) spool: Option<OwnedFd>,
}

/// The files and descriptors of a group that is about to be.
struct Begun {
    files: Option<(GroupFiles, File)>,
    listener: Option<OwnedFd>,
    page_file: File,
    page: Page,
}

impl Begun {
    /// Takes the name and makes the files. Development can do without where none can be made.
    fn new(name: &str, strategy: Strategy) -> Result<Self, StartError> {
        let claim = match places::runtime_directory().and_then(|runtime| places::claim(&runtime, name)) {
            Ok(claim) => claim,
            Err(error @ PlaceError::System { .. }) if strategy == Strategy::Development => {
                log::warn!("{}: this group cannot be controlled by name", chain(&error));
                let page_file = File::from(attempt("make the state page", fd::unlinked_page())?);
                let page = places::initialise_page(&page_file)?;
                return Ok(Self { files: None, listener: None, page_file, page });
            }
            Err(error) => return Err(error.into()),
        };
        let page = match places::initialise_page(&claim.page_file) {
            Ok(page) => page,
            Err(error) => {
                claim.files.remove(&claim.lock);
                return Err(error.into());
            }
        };
        let files = Some((claim.files, claim.lock));
        Ok(Self { files, listener: Some(claim.listener.into()), page_file: claim.page_file, page })
    }

    fn remove(&self) {
        if let Some((files, lock)) = &self.files {
            files.remove(lock);
        }
    }
}

impl Verified {
    /// Starts the first role, while it is not sure yet that there will be a group.
    pub(super) fn first_role(&self) -> Result<Early, StartError> {
        let launching = Launching {
            role: Role::first(self.launch.strategy),
            name: &self.launch.name,
            executable: self.executable.clone(),
            environment: &self.inherited,
            page: None,
        };
        let is_child = self.launch.strategy == Strategy::Development;
        attempt("start the group", Early::begin(&launching, is_child))
    }

    pub(super) fn launch(
        mut self,
        first: Early,
        signals: Option<&mut Signals>,
    ) -> Result<Started, StartError> {
        let mut begun = Begun::new(&self.launch.name, self.launch.strategy)?;
        begun.page.set_member(Member::Launcher, nix::unistd::getpid().as_raw());
        let result = self.launch_in(first, &mut begun, signals);
        if result.is_err() {
            begun.remove();
        }
        begun.page.set_member(Member::Launcher, 0);
        result
    }

    fn launch_in(
        &mut self,
        first: Early,
        begun: &mut Begun,
        signals: Option<&mut Signals>,
    ) -> Result<Started, StartError> {
        let strategy = self.launch.strategy;
        if let Some((files, _)) = &begun.files {
            self.launch.directory = Some(files.directory.clone().into_os_string().into_vec());
            attempt("write the facts of the group", files.write_facts(&facts::of(&self.launch)))?;
        }
        let launch = attempt("hand over the launch data", fd::sealed(&self.launch.encode()))?;
        let streams = [attempt("make a pipe", fd::pipe())?, attempt("make a pipe", fd::pipe())?];
        if let Some(identity) = &self.launch.program.identity {
            // So that the user may open /dev/stdout and /dev/stderr.
            for (_, writer) in &streams {
                attempt("give the streams to the user", fd::give(writer, identity.uid, identity.gid))?;
            }
        }
        let mut descriptors = vec![
            (launch.as_fd(), number::LAUNCH),
            (begun.page_file.as_fd(), number::PAGE),
            (streams[0].0.as_fd(), number::STDOUT.0),
            (streams[0].1.as_fd(), number::STDOUT.1),
            (streams[1].0.as_fd(), number::STDERR.0),
            (streams[1].1.as_fd(), number::STDERR.1),
        ];
        descriptors.extend(begun.files.as_ref().map(|(_, lock)| (lock.as_fd(), number::LOCK)));
        descriptors.extend(self.spool.as_ref().map(|fd| (fd.as_fd(), number::SPOOL)));
        descriptors.extend(begun.listener.as_ref().map(|fd| (fd.as_fd(), number::LISTENER)));
        let (pipes, stderr_file);
        match strategy {
            Strategy::Development => {
                pipes = Some(attempt("make the pipes of the parent", Attached::pipes(self.relay))?);
                descriptors.extend(pipes.iter().flat_map(Pipes::descriptors));
                descriptors.extend(pipes.iter().map(|pipes| (pipes.stderr(), STDERR)));
            }
            Strategy::Unattached | Strategy::Daemon => {
                pipes = None;
                stderr_file = match (&begun.files, strategy) {
                    (Some((files, _)), Strategy::Unattached) => {
                        let open = File::options().append(true).read(true).create(true).open(files.stderr());
                        Some(attempt("make the file of the pump's stderr", open)?)
                    }
                    (Some(_) | None, _) => None,
                };
                let stderr = stderr_file.as_ref().map(|file| file.as_fd());
                descriptors.extend(stderr.into_iter().flat_map(|fd| [(fd, STDERR), (fd, number::CRASH)]));
            }
        }
        let handed_over = first.hand_over(begun.page, &descriptors);
        let (mut link, pid) = attempt("hand over the descriptors", handed_over)?;
        drop(descriptors);
        let attached = pipes.map(|pipes| (pipes, pid));
        match attempt("wait for the group", wait_for_result(&mut link, signals))? {
            Some(Frame::Started { process_pid, pump_pid, daemon_pid }) => {
                let daemon = (daemon_pid != 0).then_some(daemon_pid);
                let pids = GroupPids { process: process_pid, monitor: pump_pid, daemon };
                let attached = attached.map(|(parts, pump)| parts.attach(link, pump, begun.files.take()));
                Ok(Started { name: self.launch.name.clone(), pids, attached })
            }
            failed => {
                let pids = begun.page.pids();
                wait_until_gone(&[pids.pump, pids.daemon]);
                let stderr = attached.map(|(parts, pump)| parts.give_up(pump));
                let line = match (stderr, &begun.files) {
                    (Some(text), _) => places::last_line(&text),
                    (None, Some((files, _))) => files.last_stderr_line(),
                    (None, None) => None,
                };
                Err(failure(failed, line))
            }
        }
    }
}

/// Waits for the first frame that decides; then, if it is a failure, until the roles are gone.
fn wait_for_result(link: &mut Link, mut signals: Option<&mut Signals>) -> io::Result<Option<Frame>> {
    let mut failed = None;
    let mut interrupted = None;
    loop {
        let mut fds = vec![PollFd::new(link.as_fd(), PollFlags::POLLIN)];
        fds.extend(signals.as_ref().map(|signals| PollFd::new(signals.as_fd(), PollFlags::POLLIN)));
        poll(&mut fds, PollTimeout::NONE)?;
        drop(fds);
        while let Some(signal) = signals.as_mut().and_then(|signals| signals.next()) {
            if signal != Signal::SIGCHLD {
                link.send(if interrupted.is_some() { &Frame::Kill } else { &Frame::Stop });
                interrupted = Some(signal);
            }
        }
        let (frames, gone) = link.receive();
        for (index, frame) in frames.iter().enumerate() {
            match frame {
                Frame::Started { .. } => {
                    // A program that ends at once has its end behind its start.
                    link.put_back(&frames[index + 1..]);
                    return Ok(Some(frame.clone()));
                }
                Frame::Failed { .. } => failed = Some(frame.clone()),
                Frame::Ending
                | Frame::GivingUp { .. }
                | Frame::Terminated
                | Frame::Over { .. }
                | Frame::Reap { .. }
                | Frame::Stop
                | Frame::Kill
                | Frame::Reload { .. }
                | Frame::ReloadAnswer { .. }
                | Frame::Yield
                | Frame::Yielded
                | Frame::Dismissed
                | Frame::Ready => {}
            }
        }
        if gone {
            let by_signal = |signal: Signal| Frame::Failed {
                status: 128_u8.saturating_add(u8::try_from(signal as i32).unwrap_or(0)),
                text: format!("start: it was interrupted by {signal}"),
                hint: None,
            };
            return Ok(interrupted.map(by_signal).or(failed));
        }
    }
}

fn failure(frame: Option<Frame>, line: Option<String>) -> StartError {
    match frame {
        Some(Frame::Failed { status, text, hint }) => {
            StartError::Role { status, text: loader::without_location(&loader::one_line(&text)), hint }
        }
        Some(_) | None => {
            let why = line.unwrap_or_else(|| "it left no text".into());
            let text = format!("the pump died: {}", loader::without_location(&why));
            StartError::Role { status: 125, text, hint: None }
        }
    }
}
