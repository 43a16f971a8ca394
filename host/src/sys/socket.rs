//! Unix sockets, at paths of any length.

#![expect(unsafe_code, reason = "descriptors that a message brought belong to nobody yet")]

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Makes a connected pair of stream sockets.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    #[cfg(target_os = "linux")]
    let flags = SockFlag::SOCK_CLOEXEC;
    #[cfg(not(target_os = "linux"))]
    let flags = SockFlag::empty();
    let (one, other) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)?;
    super::fd::set_close_on_exec(&one)?;
    super::fd::set_close_on_exec(&other)?;
    Ok((one, other))
}

/// Sends descriptors with the numbers that they are known by, as one message.
pub(crate) fn send_descriptors(socket: impl AsFd, descriptors: &[(BorrowedFd<'_>, RawFd)]) -> io::Result<()> {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    let numbers = descriptors.iter().map(|(_, number)| u8::try_from(*number));
    let numbers: Vec<u8> = numbers.collect::<Result<_, _>>().map_err(io::Error::other)?;
    let fds: Vec<RawFd> = descriptors.iter().map(|(fd, _)| fd.as_raw_fd()).collect();
    let parts = [IoSlice::new(&numbers)];
    let rights = [ControlMessage::ScmRights(&fds)];
    // Where there is no such flag, a program that starts groups has to ignore SIGPIPE as every Rust program does.
    #[cfg(target_os = "linux")]
    let flags = MsgFlags::MSG_NOSIGNAL;
    #[cfg(not(target_os = "linux"))]
    let flags = MsgFlags::empty();
    sendmsg::<()>(socket.as_fd().as_raw_fd(), &parts, &rights, flags, None)?;
    Ok(())
}

/// Waits for the message of [`send_descriptors`], of at most `N` descriptors. An end of file is an error.
pub(crate) fn receive_descriptors<const N: usize>(socket: impl AsFd) -> io::Result<Vec<(OwnedFd, RawFd)>> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    #[cfg(target_os = "linux")]
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    #[cfg(not(target_os = "linux"))]
    let flags = MsgFlags::empty();
    let mut numbers = [0; N];
    let mut space = nix::cmsg_space!([RawFd; N]);
    let mut parts = [IoSliceMut::new(&mut numbers)];
    let message = loop {
        match recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            // SAFETY: the system has just made these descriptors for us, and nobody else knows their numbers.
            fds.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let count = message.bytes;
    if count == 0 || count != fds.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    #[cfg(not(target_os = "linux"))]
    fds.iter().try_for_each(super::fd::set_close_on_exec)?;
    Ok(fds.into_iter().zip(numbers.map(RawFd::from)).collect())
}

/// Listens at `directory/name`, whatever the length of the directory's path.
pub(crate) fn listen(directory: &Path, name: &str) -> io::Result<UnixListener> {
    with_short_path(directory, name, |path| UnixListener::bind(path))
}

/// Connects to `directory/name`, whatever the length of the directory's path.
pub(crate) fn connect(directory: &Path, name: &str) -> io::Result<UnixStream> {
    with_short_path(directory, name, |path| UnixStream::connect(path))
}

/// An address holds about a hundred bytes of path. On Linux an open directory has a short second name; elsewhere
/// a short link in the temporary directory serves for the moment of the call.
fn with_short_path<T>(directory: &Path, name: &str, f: impl Fn(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = directory.join(name);
    if path.as_os_str().len() < 100 {
        return f(&path);
    }
    #[cfg(target_os = "linux")]
    {
        let open = std::fs::File::open(directory)?;
        f(Path::new(&format!("/proc/self/fd/{}/{name}", open.as_raw_fd())))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let link =
            Path::new("/tmp").join(format!(".immortal-{}-{}", std::process::id(), super::clock::wall_ns()));
        std::os::unix::fs::symlink(directory, &link)?;
        let result = f(&link.join(name));
        std::fs::remove_file(&link)?;
        result
    }
}

/// Tells which user is at the other end.
pub(crate) fn peer_uid(stream: &UnixStream) -> io::Result<u32> {
    #[cfg(target_os = "linux")]
    {
        use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
        Ok(getsockopt(stream, PeerCredentials)?.uid())
    }
    #[cfg(not(target_os = "linux"))]
    {
        let (uid, _) = nix::unistd::getpeereid(stream)?;
        Ok(uid.as_raw())
    }
}

fn datagram_address(address: &std::ffi::OsStr) -> io::Result<std::os::unix::net::SocketAddr> {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::SocketAddr;
    #[cfg(target_os = "linux")]
    if let Some(name) = address.as_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt;
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(Path::new(std::ffi::OsStr::from_bytes(address.as_bytes())))
}

/// Sends one datagram to a path, or on Linux to an abstract address that begins with `@`.
pub(crate) fn send_datagram(address: &std::ffi::OsStr, bytes: &[u8]) -> io::Result<()> {
    let socket = std::os::unix::net::UnixDatagram::unbound()?;
    socket.send_to_addr(bytes, &datagram_address(address)?)?;
    Ok(())
}

/// Listens for datagrams and returns the address to tell: on Linux an abstract one, which a process of any user
/// and in any directory can reach, elsewhere a path.
pub(crate) fn datagram_listener(
    directory: &Path,
) -> io::Result<(std::os::unix::net::UnixDatagram, std::ffi::OsString)> {
    use std::os::unix::net::UnixDatagram;
    #[cfg(linux_path)]
    {
        let _ = directory;
        let mut random = [0; 16];
        std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut random)?;
        let name = format!("@immortal-{:032x}", u128::from_ne_bytes(random));
        let socket = UnixDatagram::bind_addr(&datagram_address(name.as_ref())?)?;
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::PassCred, &true)?;
        Ok((socket, name.into()))
    }
    #[cfg(portable_path)]
    {
        let path = directory.join("notify");
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        Ok((UnixDatagram::bind(&path)?, path.into_os_string()))
    }
}

/// Takes one datagram, and the pid and user of its sender where the system tells.
pub(crate) fn receive_with_sender(
    socket: &std::os::unix::net::UnixDatagram,
    buffer: &mut [u8],
) -> io::Result<(usize, Option<(i32, u32)>)> {
    #[cfg(linux_path)]
    {
        use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg};
        let mut space = nix::cmsg_space!(UnixCredentials);
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
        let sender = message.cmsgs()?.find_map(|control| {
            let ControlMessageOwned::ScmCredentials(sender) = control else { return None };
            Some((sender.pid(), sender.uid()))
        });
        Ok((message.bytes, sender))
    }
    #[cfg(portable_path)]
    Ok((socket.recv(buffer)?, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_arrive_with_their_numbers_and_an_end_is_an_error() {
        let (one, other) = pair().unwrap();
        let (reader, writer) = super::super::fd::pipe().unwrap();
        send_descriptors(&one, &[(reader.as_fd(), 7), (writer.as_fd(), 9)]).unwrap();
        drop(reader);
        drop(one);
        let arrived = receive_descriptors::<4>(&other).unwrap();
        assert_eq!(arrived.iter().map(|(_, number)| *number).collect::<Vec<_>>(), [7, 9]);
        nix::unistd::write(&writer, b"x").unwrap();
        assert_eq!(nix::unistd::read(&arrived[0].0, &mut [0; 8]), Ok(1));
        assert!(receive_descriptors::<4>(&other).is_err());
    }
}
