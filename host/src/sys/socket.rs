//! Unix sockets, at paths of any length.

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::io;
use std::os::fd::OwnedFd;
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
        use std::os::fd::AsRawFd;
        let open = std::fs::File::open(directory)?;
        f(Path::new(&format!("/proc/self/fd/{}/{name}", open.as_raw_fd())))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let link = Path::new("/tmp").join(format!(".immortal-{}-{}", std::process::id(), super::clock::wall_ns()));
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
