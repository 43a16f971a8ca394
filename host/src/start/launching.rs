//! From a group that was verified to one that runs: starts its first role, gives it what it lives with, and waits for
//! the word of it. A start that fails leaves nothing behind.

use super::place::{Name, Needs, Place};
use super::{GroupPids, StartError, Started, attempt};
use crate::crash;
use crate::facts;
use crate::frames::{Frame, Link};
use crate::launch::{Launch, Strategy, number};
use crate::loader::{self, Leftovers};
use crate::role::{Early, Launching, Role, wait_until_gone};
use crate::state::Member;
use crate::strings::Strings;
use crate::sys::exit_status::FAILED;
use crate::sys::fd;
use crate::sys::poll::poll;
use crate::sys::signals::Signals;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;
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

/// A group that has its place, and is written down there.
pub(super) struct Begun {
    place: Place,
    /// Launch data, for the roles.
    launch: OwnedFd,
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

    /// Takes the name already, if nothing is lost should there be no group after all. If this process is killed before
    /// it is sure, the role removes the files.
    pub(super) fn take_name_early(&self, first: &Early) -> Option<Name> {
        let mut lent = Ok(());
        let name = Name::take_unused(&self.needs(), |lock| lent = first.lend_lock(lock))?;
        lent.ok().map(|()| name)
    }

    /// Makes what the group lives with; the first role is a member of it.
    pub(super) fn furnish(&self, name: Name, first: &Early) -> Result<Place, StartError> {
        let place = name.furnish(&self.needs())?;
        first.note_in(place.page);
        Ok(place)
    }

    /// Writes down, in its place, what the group is; nobody finds it there yet.
    pub(super) fn write_down(&mut self, place: Place) -> Result<Begun, StartError> {
        if let Some(files) = place.files() {
            self.launch.directory = Some(files.directory.clone().into_os_string().into_vec());
            attempt("write the facts of the group", files.write_new_facts(&facts::of(&self.launch)))?;
        }
        let launch = attempt("hand over the launch data", fd::sealed(&self.launch.encode()))?;
        Ok(Begun { place, launch })
    }

    fn needs(&self) -> Needs<'_> {
        let Launch { name, strategy, program, .. } = &self.launch;
        Needs { name, strategy: *strategy, identity: program.identity.as_ref(), relay: self.relay }
    }

    pub(super) fn launch(
        mut self,
        first: Early,
        begun: Option<Begun>,
        helpers: Leftovers,
        signals: Option<&mut Signals>,
    ) -> Result<Started, StartError> {
        let begun = match begun {
            Some(begun) => begun,
            None => {
                let name = Name::take(&self.needs())?;
                let lent = name.lock().map_or(Ok(()), |lock| first.lend_lock(lock));
                attempt("hand over the lock", lent)?;
                let place = self.furnish(name, &first)?;
                self.write_down(place)?
            }
        };
        let page = begun.place.page;
        let result = self.launch_in(first, begun, helpers, signals);
        page.set_member(Member::Launcher, 0);
        result
    }

    fn launch_in(
        self,
        first: Early,
        Begun { place, launch }: Begun,
        mut helpers: Leftovers,
        signals: Option<&mut Signals>,
    ) -> Result<Started, StartError> {
        // A pump waits for their end where it needs it, and gets that far meanwhile.
        let ending = match Role::first(self.launch.strategy) {
            Role::Pump => helpers.watch(),
            Role::Daemon => {
                helpers.wait();
                None
            }
        };
        if let Some(files) = place.files() {
            attempt("write the facts of the group", files.publish_facts())?;
        }
        let mut descriptors = place.descriptors();
        descriptors.push((launch.as_fd(), number::LAUNCH));
        descriptors.extend(self.spool.as_ref().map(|fd| (fd.as_fd(), number::SPOOL)));
        descriptors.extend(ending.as_ref().map(|fd| (fd.as_fd(), number::PREDECESSOR)));
        let handed_over = first.hand_over(&descriptors);
        let (mut link, pid) = attempt("hand over the launch data", handed_over)?;
        match attempt("wait for the group", wait_for_result(&mut link, signals, &mut helpers))? {
            Some(Frame::Started { process_pid, pump_pid, daemon_pid }) => {
                let daemon = (daemon_pid != 0).then_some(daemon_pid);
                let pids = GroupPids { process: process_pid, monitor: pump_pid, daemon };
                Ok(Started { name: self.launch.name, pids, attached: place.settle(link, pid) })
            }
            failed => {
                let pids = place.page.pids();
                wait_until_gone(&[pids.pump, pids.daemon]);
                place.end_process();
                let in_hook = place.page.delivery().in_hook();
                let line = place.last_line(pid);
                let words = line.as_deref().unwrap_or("it left no text");
                let label = |index| crash::label_of(&self.launch.monitors, index);
                Err(failure(failed, &crash::with_hook(words, in_hook, label)))
            }
        }
    }
}

/// How long helpers live on that are of no use any more, in milliseconds.
const HELPERS_LIVE_ON_MS: u8 = 50;

/// Waits for the first frame that decides; then, if it is a failure, until the roles are gone. A start that takes its time
/// has the time to end the helpers.
fn wait_for_result(
    link: &mut Link,
    mut signals: Option<&mut Signals>,
    helpers: &mut Leftovers,
) -> io::Result<Option<Frame>> {
    let mut failed = None;
    let mut interrupted = None;
    loop {
        let mut fds = vec![PollFd::new(link.as_fd(), PollFlags::POLLIN)];
        fds.extend(signals.as_ref().map(|signals| PollFd::new(signals.as_fd(), PollFlags::POLLIN)));
        let timeout = if helpers.are_there() { HELPERS_LIVE_ON_MS.into() } else { PollTimeout::NONE };
        poll(&mut fds, timeout)?;
        let is_late = fds.iter().all(|fd| fd.any() != Some(true));
        drop(fds);
        if is_late {
            helpers.end();
        }
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
                | Frame::Ready
                | Frame::Unrelayed => {}
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

fn failure(frame: Option<Frame>, words: &str) -> StartError {
    match frame {
        Some(Frame::Failed { status, text, hint }) => {
            StartError::Role { status, text: loader::without_location(&loader::one_line(&text)), hint }
        }
        Some(_) | None => {
            let text = format!("the pump died: {}", loader::without_location(words));
            StartError::Role { status: FAILED, text, hint: None }
        }
    }
}
