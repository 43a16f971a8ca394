//! What the helper process does to itself before it loads anything, so that nothing a library does there leaves
//! a trace: no core file, no descriptor of the caller's, no life after the parent's.

#![expect(unsafe_code, reason = "resets signals and closes descriptors that nobody owns")]

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};

/// Seconds after which the helper ends by itself, should its parent have gone without it noticing.
const ALARM_SECONDS: u32 = 15;
/// Where the channel moves to: out of the way of libraries that count on low numbers.
const CHANNEL_AT_LEAST: i32 = 100;

/// Confines this process and takes the channel off standard input.
pub(crate) fn enter() -> io::Result<UnixStream> {
    reset_signals()?;
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    // What it leaves behind, however deep, is its child then.
    crate::sys::family::become_subreaper()?;
    nix::unistd::alarm::set(ALARM_SECONDS);
    refuse_core_files()?;
    close_all_above_stderr();
    let stdin = std::io::stdin();
    let channel = above(stdin.as_fd())?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    Ok(UnixStream::from(channel))
}

/// Rust's runtime catches SIGSEGV and SIGBUS, and the caller may have ignored or blocked anything.
fn reset_signals() -> io::Result<()> {
    for number in [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGALRM, Signal::SIGCHLD, Signal::SIGABRT] {
        // SAFETY: the default action is no code of ours.
        unsafe { signal(number, SigHandler::SigDfl) }?;
    }
    SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// A limit of one byte, not of none: with none Linux still starts the program that collects core dumps.
fn refuse_core_files() -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE)?;
    setrlimit(Resource::RLIMIT_CORE, hard.min(1), hard)?;
    Ok(())
}

/// A copy of a descriptor with a high number, close-on-exec; where the limit is too low for that, any number.
fn above(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    let duplicate = |lowest| nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(lowest));
    let raw = duplicate(CHANNEL_AT_LEAST).or_else(|_| duplicate(3))?;
    // SAFETY: the system has just made this descriptor for us, and nothing else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Closes what the caller left open without close-on-exec.
fn close_all_above_stderr() {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the process has just begun: it owns no descriptor but the first three.
        if unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) } == 0 {
            return;
        }
    }
    let listed = std::fs::read_dir("/dev/fd").map(|entries| {
        let number =
            |entry: io::Result<std::fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse::<i32>().ok();
        entries.filter_map(number).collect::<Vec<_>>()
    });
    for number in listed.unwrap_or_else(|_| (3..1024).collect()).into_iter().filter(|&number| number > 2) {
        // SAFETY: as above; the descriptor of the listing itself is closed already, which this may find out.
        unsafe { libc::close(number) };
    }
}
