//! Readiness as systemd's `sd_notify` has it: a datagram of `KEY=VALUE` lines to the socket in `NOTIFY_SOCKET`.
//!
//! immortal hears it from the process (`--ready notify`), on a socket of its own, and says it to whoever started
//! immortal. The one is never passed on as the other.

use crate::sys::socket;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;

/// Tells the service manager that started us, if one did and wants to know.
pub(crate) fn tell_manager(text: &str) {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else {
        return;
    };
    if let Err(error) = socket::send_datagram(&address, text.as_bytes()) {
        log::warn!("telling the service manager: {error}");
    }
}

/// Where a process says that it is ready.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    socket: UnixDatagram,
    address: OsString,
}

impl NotifySocket {
    /// Opens one; `directory` is used where the system has no abstract addresses.
    pub(crate) fn open(directory: &std::path::Path) -> io::Result<Self> {
        let (socket, address) = socket::datagram_listener(directory)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, address })
    }

    /// The value of `NOTIFY_SOCKET`.
    pub(crate) fn address(&self) -> &OsString {
        &self.address
    }

    /// Takes what was said; true if a sender whom `accept` knows by pid and user said `READY=1`. A sender whom
    /// the system does not name is accepted: its address was told to the process alone.
    // Its buffer is not to be a part of the stack of whoever sleeps.
    #[inline(never)]
    pub(crate) fn receive_ready(&self, accept: impl Fn(i32, u32) -> bool) -> bool {
        let mut ready = false;
        let mut text = [0; 4096];
        while let Ok((count, sender)) = socket::receive_with_sender(&self.socket, &mut text) {
            let says_so = text[..count].split(|byte| *byte == b'\n').any(|line| line == b"READY=1");
            ready |= says_so && sender.is_none_or(|(pid, uid)| accept(pid, uid));
        }
        ready
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_heard_from_those_who_may_say_it() {
        let directory = tempfile::tempdir().unwrap();
        let own = NotifySocket::open(directory.path()).unwrap();
        assert!(!own.receive_ready(|_, _| true));
        socket::send_datagram(own.address(), b"STATUS=soon\nREADY=1\n").unwrap();
        assert!(own.receive_ready(|pid, _| pid == i32::try_from(std::process::id()).unwrap()));
        socket::send_datagram(own.address(), b"READY=0").unwrap();
        assert!(!own.receive_ready(|_, _| true));
    }
}
