//! The first role of a group, while it is not sure yet that there will be a group: it gets ready, and then waits for
//! its descriptors, of which the lock comes first: with that alone it can do nothing but remove what was made for the
//! group.
//!
//! A command makes a copy of itself in reserve before it reads its arguments: it is small then, and the copy gets
//! ready meanwhile. Whoever cannot be copied has the role executed.

use super::{Begun, Launching, Role, RoleError, begin_with, can_be_copied, take_places};
use crate::frames::Link;
use crate::launch::{Strategy, number};
use crate::loader::helper;
use crate::state::Page;
use crate::sys::exit_status::FAILED;
use crate::sys::{arguments, copy, family, socket};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a role that is not a child is waited for that has nothing any more.
const PATIENCE: Duration = Duration::from_secs(2);

/// The role. Dropping it calls it off, and waits until it is gone.
#[derive(Debug)]
pub(crate) struct Early {
    role: Role,
    pid: i32,
    /// A child of ours, not of init.
    is_child: bool,
    /// To the role, until it has its descriptors.
    link: Option<OwnedFd>,
}

/// The copy in reserve.
static RESERVE: Mutex<Option<Early>> = Mutex::new(None);

fn reserve() -> MutexGuard<'static, Option<Early>> {
    RESERVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Copies this process in reserve, if it can be copied, for the first role of a group, which is likely to be this one;
/// the copy does this to live as it.
pub(crate) fn keep_one_in_reserve(role: Role, live: fn(Result<Begun, RoleError>) -> u8) {
    if !can_be_copied() {
        return;
    }
    match Early::copy(role, live) {
        Ok(early) => *reserve() = Some(early),
        Err(error) => log::debug!("no role in reserve: {error}"),
    }
}

/// Ends the copy in reserve, if it was not needed.
pub(crate) fn dismiss_reserve() {
    drop(reserve().take());
}

impl Role {
    /// The first role of a group.
    pub(crate) fn first(strategy: Strategy) -> Self {
        match strategy {
            Strategy::Daemon => Self::Daemon,
            Strategy::Unattached | Strategy::Development => Self::Pump,
        }
    }
}

impl Early {
    /// Takes the copy in reserve, if there is one and it runs the executable, or executes the role.
    pub(crate) fn begin(launching: &Launching<'_>, is_child: bool) -> io::Result<Self> {
        let reserve = reserve().take();
        let fits = |early: &Self| {
            let is_the_same = early.role == launching.role && copy::is_of(&launching.executable);
            is_the_same && !is_child
        };
        match reserve.filter(fits) {
            Some(early) => Ok(early),
            None => Self::execute(launching, is_child),
        }
    }

    fn copy(role: Role, live: fn(Result<Begun, RoleError>) -> u8) -> io::Result<Self> {
        let (ours, theirs) = socket::pair()?;
        let pid = copy::start(|| {
            helper::forget_reserve();
            match take_places(vec![(theirs.as_fd(), number::LINK)], None) {
                Ok(()) => {
                    arguments::prepare_to_replace();
                    live(
                        begin_with(role, number::LINK..=number::LINK)
                            .map(|begun| Begun { is_unnamed: true, ..begun }),
                    )
                }
                Err(_) => FAILED,
            }
        })?;
        Ok(Self { role, pid, is_child: true, link: Some(ours) })
    }

    fn execute(launching: &Launching<'_>, is_child: bool) -> io::Result<Self> {
        let (ours, theirs) = socket::pair()?;
        let pid = launching.start(vec![(theirs.as_fd(), number::LINK)], None, !is_child)?;
        Ok(Self { role: launching.role, pid, is_child, link: Some(ours) })
    }

    /// Gives it the lock of a group that may come to live. From now on it removes the group's files if nobody else does.
    pub(crate) fn lend_lock(&self, lock: &File) -> io::Result<()> {
        self.send(&[(lock.as_fd(), number::LOCK)])
    }

    /// Notes it as a member of a group that may come to live.
    pub(crate) fn note_in(&self, page: Page) {
        page.set_pid(self.role.member(), self.pid);
    }

    /// Gives it its descriptors, with which the group begins to live; returns the link, and the role's pid.
    pub(crate) fn hand_over(mut self, descriptors: &[(BorrowedFd<'_>, RawFd)]) -> io::Result<(Link, i32)> {
        self.send(descriptors)?;
        let link = self.link.take().expect("it is taken here and when this is dropped");
        Ok((Link::new(link)?, self.pid))
    }

    fn send(&self, descriptors: &[(BorrowedFd<'_>, RawFd)]) -> io::Result<()> {
        self.link.as_ref().map_or(Ok(()), |link| socket::send_descriptors(link, descriptors))
    }
}

impl Drop for Early {
    fn drop(&mut self) {
        if self.link.take().is_none() {
            return;
        }
        if self.is_child {
            family::wait(self.pid);
        } else {
            wait_until_gone(&[self.pid]);
        }
    }
}

/// These roles have closed everything; they are gone within a moment.
pub(crate) fn wait_until_gone(pids: &[i32]) {
    let patience = Instant::now() + PATIENCE;
    while pids.iter().any(|pid| family::runs(*pid, 0)) && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(1));
    }
}
