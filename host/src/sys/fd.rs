//! Descriptors: pipes, duplicates, unlinked files, how much a pipe holds.
//!
//! Every descriptor made here is close-on-exec from birth.

#![expect(unsafe_code, reason = "taking over inherited descriptors and two ioctls have no safe wrapper")]

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

/// Numbers at or above this one are used for the moment in which descriptors change places.
pub(super) const PARKED: RawFd = 32;

/// Makes a pipe: reading end, writing end.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    #[cfg(target_os = "linux")]
    let ends = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    #[cfg(not(target_os = "linux"))]
    let ends = {
        let ends = nix::unistd::pipe()?;
        set_close_on_exec(&ends.0)?;
        set_close_on_exec(&ends.1)?;
        ends
    };
    Ok(ends)
}

/// By which it is known whether two descriptors are of one pipe; 0: that is not known.
pub(crate) fn inode(fd: impl AsFd) -> u64 {
    nix::sys::stat::fstat(fd).map_or(0, |stat| stat.st_ino)
}

/// Sets close-on-exec.
pub(crate) fn set_close_on_exec(fd: impl AsFd) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(())
}

/// Makes reads and writes return at once instead of waiting.
pub(crate) fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd.as_fd(), FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Takes over a descriptor that an exec left open, and makes it close-on-exec; `None` if it is not open.
pub(crate) fn adopt(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: `fcntl(F_GETFD)` takes any number and touches no memory.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
        return None;
    }
    // SAFETY: the descriptor is open, and a role adopts each number of the table once, before anything else
    // opens one, so nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    set_close_on_exec(&fd).ok()?;
    Some(fd)
}

/// Makes this the process's stderr.
pub(crate) fn replace_stderr(fd: OwnedFd) -> io::Result<()> {
    nix::unistd::dup2_stderr(fd)?;
    Ok(())
}

/// Opens `/dev/null` for reading and writing.
pub(crate) fn null() -> io::Result<OwnedFd> {
    Ok(File::options().read(true).write(true).open("/dev/null")?.into())
}

/// Makes a file that no path leads to, holding `bytes`; on Linux it can never be changed again.
pub(crate) fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    use std::io::Write;
    let mut file = unlinked()?;
    // The message of a pump may be longer than the files that the caller of `start` allowed himself.
    super::limits::with_files_of(bytes.len() as u64, || file.write_all(bytes))?;
    #[cfg(linux_path)]
    fcntl(&file, FcntlArg::F_ADD_SEALS(nix::fcntl::SealFlag::all()))?;
    Ok(file.into())
}

#[cfg(linux_path)]
fn unlinked() -> io::Result<File> {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    Ok(memfd_create(c"immortal", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?.into())
}

#[cfg(portable_path)]
fn unlinked() -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let directory = std::env::temp_dir();
    for attempt in 0..1000_u32 {
        let path =
            directory.join(format!(".immortal-{}-{}-{attempt}", std::process::id(), super::clock::wall_ns()));
        match File::options().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Reads a whole file from its beginning without moving its offset, which other roles share.
pub(crate) fn read_from_start(fd: impl AsFd) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let file = File::from(fd.as_fd().try_clone_to_owned()?);
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Tells how many bytes wait in a pipe.
pub(crate) fn waiting(fd: impl AsFd) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one `int` to the pointer, which is to a live `int`.
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut count) };
    Errno::result(result)?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Makes `number` a duplicate of a descriptor, whatever it was before.
pub(crate) fn duplicate_to(fd: impl AsFd, number: RawFd) -> io::Result<()> {
    // SAFETY: `dup2` takes two numbers; the one it closes belongs to nobody who would use it again, for the callers
    // are about to execute another program.
    Errno::result(unsafe { libc::dup2(fd.as_fd().as_raw_fd(), number) })?;
    Ok(())
}

/// Opens a file only in order to execute it, by [`path_of`], and under a number that stays free of whatever a child
/// is given before it executes.
pub(crate) fn open_to_execute(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    #[cfg(target_os = "linux")]
    let file = File::options().read(true).custom_flags(libc::O_PATH).open(path)?;
    #[cfg(not(target_os = "linux"))]
    let file = File::options().read(true).custom_flags(0).open(path)?;
    let number = fcntl(&file, FcntlArg::F_DUPFD_CLOEXEC(PARKED))?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number) }.into())
}

/// A path that leads to an open file, whatever its own path holds now.
pub(crate) fn path_of(fd: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

/// Where an open file is in the file system, if it is there still.
pub(crate) fn place_of(fd: impl AsFd) -> Option<PathBuf> {
    #[cfg(target_os = "macos")]
    {
        let mut path = PathBuf::new();
        fcntl(fd, FcntlArg::F_GETPATH(&mut path)).ok()?;
        Some(path)
    }
    #[cfg(not(target_os = "macos"))]
    std::fs::read_link(path_of(fd)).ok()
}

/// Gives descriptors their numbers, whatever was there before and whichever of them have numbers of others. For a
/// process that is about to execute another program: all are left open over that, and so are the standard ones, and
/// no others.
pub(crate) fn place(descriptors: &[(BorrowedFd<'_>, RawFd)]) -> io::Result<()> {
    // What other threads, which a monitor may have, open from now on gets no number here.
    #[cfg(linux_path)]
    // SAFETY: unshare takes a number. This thread has a copy of the table then, in which all descriptors are the same.
    if let Err(error) = Errno::result(unsafe { libc::unshare(libc::CLONE_FILES) }) {
        log::debug!("taking a table of descriptors of its own: {error}");
    }
    let parked: Vec<(OwnedFd, RawFd)> = descriptors.iter().map(park).collect::<io::Result<_>>()?;
    for (fd, number) in &parked {
        duplicate_to(fd, *number)?;
    }
    let numbers: Vec<RawFd> = descriptors.iter().map(|(_, number)| *number).collect();
    inherit_only(&numbers)
}

/// The same for a process that goes on as it is, and that nobody will ever ask for what it had: closes all others, and
/// the standard ones have to be among these. Of one thread.
pub(crate) fn keep_only(descriptors: &[(BorrowedFd<'_>, RawFd)], last: RawFd) -> io::Result<()> {
    let parked: Vec<(OwnedFd, RawFd)> = descriptors.iter().map(park).collect::<io::Result<_>>()?;
    for (fd, number) in &parked {
        duplicate_to(fd, *number)?;
    }
    drop(parked);
    let mut kept: Vec<RawFd> =
        descriptors.iter().map(|(_, number)| *number).filter(|number| *number <= last).collect();
    kept.sort_unstable();
    let mut first = 0;
    for number in kept.into_iter().chain([last + 1]) {
        close_from(first, number - 1);
        first = number + 1;
    }
    close_behind(last);
    Ok(())
}

/// Closes what is open between these two, both included. For numbers whose owner is not asked any more.
fn close_from(first: RawFd, last: RawFd) {
    #[cfg(linux_path)]
    // SAFETY: close_range takes numbers only, and whoever opened these is not in this process any more.
    if first > last || unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        return;
    }
    for number in first..=last {
        // SAFETY: as above.
        unsafe { libc::close(number) };
    }
}

/// Duplicates a descriptor out of the way of all that get their numbers.
fn park((fd, number): &(BorrowedFd<'_>, RawFd)) -> io::Result<(OwnedFd, RawFd)> {
    let parked = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(PARKED))?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok((unsafe { OwnedFd::from_raw_fd(parked) }, *number))
}

/// Closes every descriptor behind this number. For a process that has opened none of its own yet.
pub(crate) fn close_behind(last: RawFd) {
    #[cfg(linux_path)]
    {
        // SAFETY: close_range takes numbers only, and whoever opened these is not in this process any more.
        let result = unsafe { libc::syscall(libc::SYS_close_range, last + 1, libc::c_uint::MAX, 0) };
        if let Err(error) = Errno::result(result) {
            log::debug!("closing what nobody handed over: {error}");
        }
    }
    #[cfg(portable_path)]
    let _ = last;
}

/// Takes a number that nobody has yet.
pub(crate) fn reserve(number: RawFd) -> io::Result<OwnedFd> {
    let null = null()?;
    duplicate_to(&null, number)?;
    adopt(number).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Leaves these descriptors and the standard ones open over an exec, and no others.
fn inherit_only(numbers: &[RawFd]) -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
            continue;
        };
        let flag = if number <= 2 || numbers.contains(&number) { 0 } else { libc::FD_CLOEXEC };
        // SAFETY: `fcntl(F_SETFD)` takes numbers and touches no memory; one that is closed meanwhile is an error
        // that does not matter.
        unsafe { libc::fcntl(number, libc::F_SETFD, flag) };
    }
    Ok(())
}

/// Makes a file in memory that can be written to, where the system has such.
pub(crate) fn memory() -> io::Result<OwnedFd> {
    #[cfg(linux_path)]
    return Ok(unlinked()?.into());
    #[cfg(portable_path)]
    Err(io::ErrorKind::Unsupported.into())
}

/// Moves at most this many bytes from a pipe into a file, and the file's offset with them, in one call that no kill
/// can divide. Does not wait for bytes.
pub(crate) fn splice(pipe: impl AsFd, file: impl AsFd, most: usize) -> Result<usize, Errno> {
    #[cfg(linux_path)]
    {
        use nix::fcntl::SpliceFFlags;
        nix::fcntl::splice(pipe, None, file, None, most, SpliceFFlags::SPLICE_F_NONBLOCK)
    }
    #[cfg(portable_path)]
    {
        let _ = (pipe, file, most);
        Err(Errno::ENOSYS)
    }
}

/// Whether a file is in memory and nowhere else, as far as the system tells.
pub(crate) fn is_memory(file: impl AsFd) -> bool {
    #[cfg(linux_path)]
    {
        use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
        fstatfs(file).is_ok_and(|system| system.filesystem_type() == TMPFS_MAGIC)
    }
    #[cfg(portable_path)]
    {
        let _ = file;
        false
    }
}

/// Gives the memory of a part of a file back, which holds zeros then, where the system and the file system can.
pub(crate) fn punch_hole(file: impl AsFd, offset: u64, length: u64) -> io::Result<()> {
    #[cfg(linux_path)]
    {
        use nix::fcntl::FallocateFlags;
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let offset = offset.try_into().map_err(io::Error::other)?;
        nix::fcntl::fallocate(file, flags, offset, length.try_into().map_err(io::Error::other)?)?;
    }
    #[cfg(portable_path)]
    let _ = (file, offset, length);
    Ok(())
}

/// Opens the pipe behind a descriptor anew, for reading and writing: who writes to it finds a reader always.
pub(crate) fn both_ways(pipe: impl AsFd) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", pipe.as_fd().as_raw_fd());
    Ok(File::options().read(true).write(true).open(path)?.into())
}

/// Makes a file that no path leads to, for a state page that nobody else reads.
pub(crate) fn unlinked_page() -> io::Result<OwnedFd> {
    Ok(unlinked()?.into())
}

/// Makes a pipe hold this many bytes, where the system can and the user may.
pub(crate) fn grow_pipe(pipe: impl AsFd, bytes: i32) -> io::Result<()> {
    #[cfg(linux_path)]
    fcntl(pipe, FcntlArg::F_SETPIPE_SZ(bytes))?;
    #[cfg(portable_path)]
    let _ = (pipe, bytes);
    Ok(())
}

/// Gives a descriptor's file to a user.
pub(crate) fn give(fd: impl AsFd, uid: u32, gid: u32) -> io::Result<()> {
    nix::unistd::fchown(fd, Some(uid.into()), Some(gid.into()))?;
    Ok(())
}
