//! Waits for several helpers at once.

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::parent::{Failure, Helper};

/// Talks to all helpers until each has answered what it was last asked, or one has failed; that one's index is
/// with its failure. Waits in `poll` and nowhere else.
pub(in crate::loader) fn exchange(helpers: &mut [Helper]) -> Result<(), (usize, Failure)> {
    loop {
        let ready = match wait(helpers) {
            Ok(None) => return Ok(()),
            Ok(Some(ready)) => ready,
            Err(source) => return Err((0, Failure::Helper { source })),
        };
        for (at, has) in ready.into_iter().enumerate() {
            let helper = &mut helpers[at];
            if has.stderr {
                helper.listen();
            }
            if has.outlet {
                helper.write().map_err(|source| (at, Failure::Helper { source }))?;
            }
            if has.inlet {
                helper.read().map_err(|failure| (at, failure))?;
            }
            if !helper.is_waiting() && Instant::now() >= helper.deadline {
                return Err((at, helper.late()));
            }
        }
    }
}

/// Hears what the helpers have said by now; whether each has answered what it was last asked. A failure as in
/// [`exchange`].
pub(in crate::loader) fn hear(helpers: &mut [Helper]) -> Result<bool, (usize, Failure)> {
    for (at, helper) in helpers.iter_mut().enumerate().filter(|(_, helper)| !helper.is_waiting()) {
        helper.read().map_err(|failure| (at, failure))?;
    }
    Ok(helpers.iter().all(Helper::is_waiting))
}

/// What of a helper can be read or written.
#[derive(Debug, Clone, Copy, Default)]
struct Has {
    inlet: bool,
    outlet: bool,
    stderr: bool,
}

/// Waits for the next thing to happen, or the next deadline; `None` when every helper has answered.
fn wait(helpers: &[Helper]) -> io::Result<Option<Vec<Has>>> {
    let Some(deadline) =
        helpers.iter().filter(|helper| !helper.is_waiting()).map(|helper| helper.deadline).min()
    else {
        return Ok(None);
    };
    let mut owners = Vec::new();
    let mut fds = Vec::new();
    for (at, helper) in helpers.iter().enumerate().filter(|(_, helper)| !helper.is_waiting()) {
        let write = if helper.outbox.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
        owners.push((at, false));
        fds.push(PollFd::new(helper.channel.as_fd(), PollFlags::POLLIN | write));
        if let Some(stderr) = &helper.stderr {
            owners.push((at, true));
            fds.push(PollFd::new(stderr.as_fd(), PollFlags::POLLIN));
        }
    }
    // Rounded up, so that it does not wake a moment too early and spin.
    let left = deadline.saturating_duration_since(Instant::now()).as_millis() + 1;
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    let mut ready = vec![Has::default(); helpers.len()];
    match poll(&mut fds, timeout) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok(Some(ready)),
        Err(error) => return Err(error.into()),
    }
    for ((at, is_stderr), fd) in owners.into_iter().zip(&fds) {
        let flags = fd.revents().unwrap_or(PollFlags::empty());
        let can_read = flags.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR);
        if is_stderr {
            ready[at].stderr = can_read;
        } else {
            ready[at].inlet = can_read;
            ready[at].outlet = flags.contains(PollFlags::POLLOUT);
        }
    }
    Ok(Some(ready))
}
