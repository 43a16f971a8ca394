//! Processes: who is alive, whose child it is, how it ended.
//!
//! A pid that has been reaped is never signalled. A process that is not our child is recognised by its start
//! time, which together with the boot makes a pid unique.

#![expect(unsafe_code, reason = "waitid with WNOWAIT for any signal number has no safe wrapper")]

use nix::errno::Errno;
use std::io;
#[cfg(linux_path)]
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Exit {
    /// Exit code, if it exited by itself.
    pub(crate) code: Option<i32>,
    /// Number of the signal that ended it, if one did.
    pub(crate) signal: Option<i32>,
    /// It left a core dump.
    pub(crate) core: bool,
}

impl Exit {
    /// How it ended, behind a subject.
    pub(crate) fn words(self) -> String {
        match (self.code, self.signal) {
            (Some(code), _) => format!("ended with status {code}"),
            (None, Some(signal)) => format!("was ended by SIG{}", crate::signal::name(signal)),
            (None, None) => "is gone".to_owned(),
        }
    }

    /// Reads what `wait` returns.
    #[cfg(linux_path)]
    fn of_status(status: i32) -> Self {
        if libc::WIFEXITED(status) {
            Self { code: Some(libc::WEXITSTATUS(status)), signal: None, core: false }
        } else {
            Self { code: None, signal: Some(libc::WTERMSIG(status)), core: libc::WCOREDUMP(status) }
        }
    }
}

/// Makes orphaned descendants come back to this process instead of to init (Linux).
pub(crate) fn become_subreaper() -> io::Result<()> {
    #[cfg(linux_path)]
    nix::sys::prctl::set_child_subreaper(true)?;
    Ok(())
}

/// Gives this process the name that `ps` and `top` show.
pub(crate) fn name_process() {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_name(c"immortal") {
        log::debug!("naming the process: {error}");
    }
}

/// Leaves at once, without running the exit handlers of loaded libraries: they may hang or crash.
pub(crate) fn leave(code: u8) -> ! {
    // SAFETY: `_exit` takes any number, ends the process and runs no code of this program.
    unsafe { libc::_exit(i32::from(code)) }
}

/// The priority of this process.
pub(crate) fn nice() -> i32 {
    // SAFETY: getpriority takes numbers only; 0 is this process.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

fn wait_id(kind: libc::idtype_t, id: libc::id_t, options: libc::c_int) -> Result<Option<(i32, Exit)>, Errno> {
    // SAFETY: `siginfo_t` is plain data for which all zeroes is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: `info` is a live `siginfo_t`; the other arguments are numbers.
        let result = unsafe { libc::waitid(kind, id, &raw mut info, options) };
        match Errno::result(result) {
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
            Ok(_) => break,
        }
    }
    // SAFETY: after a successful waitid the fields of SIGCHLD are set, or all are zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let exit = if info.si_code == libc::CLD_EXITED {
        Exit { code: Some(status), signal: None, core: false }
    } else {
        Exit { code: None, signal: Some(status), core: info.si_code == libc::CLD_DUMPED }
    };
    Ok(Some((pid, exit)))
}

/// Looks for an ended child of this thread without reaping it: its status stays, and its number stays taken.
/// What another thread forked, as a monitor may, is left alone; where the kernel cannot tell the threads apart,
/// so is everybody whose pid we do not know.
pub(crate) fn peek_any() -> Option<(i32, Exit)> {
    #[cfg(linux_path)]
    {
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WNOTHREAD;
        wait_id(libc::P_ALL, 0, options).ok().flatten()
    }
    #[cfg(portable_path)]
    None
}

/// Looks whether this child has ended, without reaping it.
pub(crate) fn peek(pid: i32) -> Option<Exit> {
    let id = libc::id_t::try_from(pid).ok()?;
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    wait_id(libc::P_PID, id, options).ok().flatten().map(|(_, exit)| exit)
}

/// How a child of ours has ended, if it has. One that somebody else in this process has reaped ended in a way
/// that nobody knows.
pub(crate) fn end_of(pid: i32) -> Option<Exit> {
    let id = libc::id_t::try_from(pid).ok()?;
    let end = wait_id(libc::P_PID, id, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT);
    end.map_or(Some(Exit::default()), |end| end.map(|(_, exit)| exit))
}

/// How a process that is not a child of this one has ended, if it has; none in there: that cannot be seen from here. It
/// is a zombie while the daemon or init has not reaped it; after that its pidfd, opened while it lived, knows (Linux
/// 6.15). `started`: its start time, if that is known, for another process may have its pid by now.
#[cfg(linux_path)]
pub(crate) fn end_of_stranger(pid: i32, started: u64, watch: Option<&OwnedFd>) -> Option<Option<Exit>> {
    if is_child(pid) {
        return peek(pid).map(Some);
    }
    if !has_ended(pid, started, watch) {
        return None;
    }
    let is_it = || stat(pid).is_some_and(|stat| started == 0 || stat.started == started);
    // Whoever reaps it does so between any two of these looks.
    let zombie = || is_it().then(|| status_of_zombie(pid)).flatten();
    let status = watch.and_then(status_of_pidfd).or_else(zombie);
    let status = status.or_else(|| watch.and_then(status_of_pidfd));
    Some(status.map(Exit::of_status))
}

/// Nothing is kept where there are no memory files.
#[cfg(portable_path)]
pub(crate) fn end_of_stranger(pid: i32, started: u64, watch: Option<&OwnedFd>) -> Option<Option<Exit>> {
    let _ = (started, watch);
    end_of(pid).map(Some)
}

#[cfg(linux_path)]
fn has_ended(pid: i32, started: u64, watch: Option<&OwnedFd>) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let Some(watch) = watch else { return !runs(pid, started) };
    let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok() && fds[0].any() == Some(true)
}

/// The last number of `/proc/PID/stat` of a zombie. The kernel shows zero to those who may not look at the process.
#[cfg(linux_path)]
fn status_of_zombie(pid: i32) -> Option<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let behind = text.get(text.rfind(')')? + 1..)?;
    let is_zombie = matches!(behind.split_ascii_whitespace().next()?, "Z" | "X");
    let status = behind.split_ascii_whitespace().next_back()?.parse().ok()?;
    (is_zombie && (status != 0 || may_look_at(pid))).then_some(status)
}

/// Whether a zero in there means zero: it is a process of the same user and group, or this one may look at all. Root in
/// a container may not.
#[cfg(linux_path)]
fn may_look_at(pid: i32) -> bool {
    const SYS_PTRACE: u32 = 19;
    let lines = |of: &str| std::fs::read_to_string(format!("/proc/{of}/status")).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("?");
        line.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let it = lines(&pid.to_string());
    let (uid, gid) = (nix::unistd::geteuid().to_string(), nix::unistd::getegid().to_string());
    let is_own = |ids: Vec<String>, own: &str| ids.iter().all(|id| id == own);
    if is_own(field(&it, "Uid:"), &uid) && is_own(field(&it, "Gid:"), &gid) {
        return true;
    }
    let capabilities = field(&lines("self"), "CapEff:");
    let bits = capabilities.first().and_then(|digits| u64::from_str_radix(digits, 16).ok());
    bits.is_some_and(|bits| bits >> SYS_PTRACE & 1 == 1)
}

/// Asks the kernel what a pidfd remembers of a process that was reaped.
#[cfg(linux_path)]
fn status_of_pidfd(watch: &OwnedFd) -> Option<i32> {
    use std::os::fd::AsRawFd;
    const EXIT: u64 = 1 << 3;
    #[repr(C)]
    #[derive(Default)]
    struct PidfdInfo {
        mask: u64,
        cgroup: u64,
        ids: [u32; 11],
        exit_code: i32,
    }
    // _IOWR(0xff, 11, struct pidfd_info)
    let request =
        (3 << 30) | (libc::c_ulong::try_from(size_of::<PidfdInfo>()).ok()? << 16) | (0xff << 8) | 11;
    let mut info = PidfdInfo { mask: EXIT, ..PidfdInfo::default() };
    // SAFETY: the request's number holds the size of the structure, which is live, and the kernel writes no more.
    let result = unsafe { libc::ioctl(watch.as_raw_fd(), request as _, &raw mut info) };
    (result == 0 && info.mask & EXIT != 0).then_some(info.exit_code)
}

/// Opens a descriptor that gets readable when this process ends (Linux). It tells what a signal may not: a thread
/// of a monitor whose runtime lets SIGCHLD through takes that signal away from everybody.
pub(crate) fn watch(pid: i32) -> Option<OwnedFd> {
    #[cfg(linux_path)]
    {
        // SAFETY: pidfd_open takes two numbers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = i32::try_from(Errno::result(fd).ok()?).ok()?;
        // SAFETY: the kernel has just opened this descriptor for us alone; it is close-on-exec from birth.
        Some(unsafe { OwnedFd::from_raw_fd(fd) })
    }
    #[cfg(portable_path)]
    {
        let _ = pid;
        None
    }
}

/// The same for a process that may be gone, and its pid be another one's: 0 if its start time is not known.
pub(crate) fn watch_started(pid: i32, started: u64) -> Option<OwnedFd> {
    let watch = watch(pid)?;
    // Looked at when the descriptor is there already: what has this start time now is what was opened.
    stat(pid).is_some_and(|stat| started == 0 || stat.started == started).then_some(watch)
}

/// Reaps this child if it has ended.
pub(crate) fn reap(pid: i32) -> Option<Exit> {
    let id = libc::id_t::try_from(pid).ok()?;
    wait_id(libc::P_PID, id, libc::WEXITED | libc::WNOHANG).ok().flatten().map(|(_, exit)| exit)
}

/// Tells whether this pid is a child of ours, ended or not.
pub(crate) fn is_child(pid: i32) -> bool {
    let Ok(id) = libc::id_t::try_from(pid) else { return false };
    wait_id(libc::P_PID, id, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT).is_ok()
}

/// Tells whether this process has children, ended or not.
#[cfg(linux_path)]
pub(crate) fn has_children() -> bool {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    wait_id(libc::P_ALL, 0, options) != Err(Errno::ECHILD)
}

/// Tells whether this thread has children that live, adopted ones included; where the kernel cannot tell the threads
/// apart, it may have.
pub(crate) fn has_living_children() -> bool {
    #[cfg(linux_path)]
    {
        // A child that has ended is none that could stop: if there are only such, this call has nothing to wait for.
        let options = libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL | libc::__WNOTHREAD;
        wait_id(libc::P_ALL, 0, options) != Err(Errno::ECHILD)
    }
    #[cfg(portable_path)]
    true
}

/// Waits until this process is not the parent of ours any more; false: after this span it still is.
pub(crate) fn is_left_by(parent: i32, within: std::time::Duration) -> bool {
    let since = std::time::Instant::now();
    while nix::unistd::getppid().as_raw() == parent {
        if since.elapsed() > within {
            return false;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    true
}

/// Waits for this child to end and reaps it.
pub(crate) fn wait(pid: i32) -> Option<Exit> {
    let id = libc::id_t::try_from(pid).ok()?;
    wait_id(libc::P_PID, id, libc::WEXITED).ok().flatten().map(|(_, exit)| exit)
}

/// Sends a signal to one process. One that is gone is no error.
pub(crate) fn signal(pid: i32, signal: i32) {
    send(pid, signal);
}

/// Whether this process may send that one a signal, or it is gone.
pub(crate) fn may_signal(pid: i32) -> bool {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None) != Err(Errno::EPERM)
}

/// Sends a signal to one process, and says why if that is not possible.
pub(crate) fn try_signal(pid: i32, signal: i32) -> io::Result<()> {
    if pid <= 1 || signal <= 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: `kill` takes any numbers and touches no memory; the numbers that would reach others are excluded.
    Errno::result(unsafe { libc::kill(pid, signal) })?;
    Ok(())
}

/// Sends a signal to a process group whose leader is not reaped. One that is empty is no error. A leader that was
/// forked just now may not lead its group yet: then the signal is for it alone.
pub(crate) fn signal_group(group: i32, signal: i32) {
    if !send(-group, signal) {
        send(group, signal);
    }
}

/// Returns whether there is anybody.
fn send(target: i32, signal: i32) -> bool {
    if target == 0 || target == -1 || target == 1 {
        return true;
    }
    // SAFETY: `kill` takes any numbers and touches no memory; 0 and -1, which would reach others, are excluded.
    match Errno::result(unsafe { libc::kill(target, signal) }) {
        Err(Errno::ESRCH) => return false,
        Err(error) => log::debug!("sending signal {signal} to {target}: {error}"),
        Ok(_) => {}
    }
    true
}

/// What the kernel says of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Its parent; 0: that is not known.
    pub(crate) parent: i32,
    /// Its process group.
    pub(crate) group: i32,
    /// It has ended and waits to be reaped.
    pub(crate) ended: bool,
    /// When it started, in clock ticks since the boot.
    pub(crate) started: u64,
}

/// Reads what the kernel says of a process; `None` if it is gone.
#[cfg(target_os = "linux")]
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    use std::io::Read;
    // More than the line can be as far as it is looked at. The kernel makes it up as a whole: one read gets it.
    let mut line = [0; 1024];
    let count = std::fs::File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut line).ok()?;
    parse_stat(&line[..count])
}

/// The name in parentheses may hold anything, so counting starts behind the last one.
#[cfg(target_os = "linux")]
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let behind = text.iter().rposition(|byte| *byte == b')')? + 1;
    let mut fields = std::str::from_utf8(text.get(behind..)?).ok()?.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let started = fields.nth(16)?.parse().ok()?;
    Some(Stat { parent, group, ended: matches!(state, "Z" | "X"), started })
}

/// Without `/proc` only the existence is known.
#[cfg(not(target_os = "linux"))]
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    let process = nix::unistd::Pid::from_raw(pid);
    match nix::sys::signal::kill(process, None) {
        Ok(()) | Err(Errno::EPERM) => {
            let group = nix::unistd::getpgid(Some(process)).map_or(0, nix::unistd::Pid::as_raw);
            Some(Stat { parent: 0, group, ended: false, started: 0 })
        }
        Err(_) => None,
    }
}

/// Tells whether the process that had this pid and start time still runs. An ended one that waits to be reaped
/// does not run.
pub(crate) fn runs(pid: i32, started: u64) -> bool {
    pid > 0 && stat(pid).is_some_and(|stat| !stat.ended && (started == 0 || stat.started == started))
}

/// The children of this thread, adopted ones included, ended or not.
#[cfg(linux_path)]
pub(crate) fn children() -> Vec<i32> {
    read_children("/proc/thread-self/children")
}

/// Nobody tells without `/proc`.
#[cfg(portable_path)]
pub(crate) fn children() -> Vec<i32> {
    Vec::new()
}

#[cfg(linux_path)]
fn read_children(path: &str) -> Vec<i32> {
    use std::io::Read;
    let mut text = Vec::with_capacity(256);
    // Not as a file, whose size would be asked for first: it has none.
    let read = std::fs::File::open(path).and_then(|file| file.take(u64::MAX).read_to_end(&mut text));
    if read.is_err() {
        return Vec::new();
    }
    let pids = std::str::from_utf8(&text).unwrap_or_default().split_ascii_whitespace();
    pids.filter_map(|pid| pid.parse().ok()).collect()
}

/// The children of this thread and everything below them.
pub(crate) fn descendants() -> Vec<i32> {
    descendants_of(children())
}

/// Everybody who lives; nobody where there is no `/proc`.
pub(crate) fn everybody() -> impl Iterator<Item = (i32, Stat)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| Some((pid, stat(pid)?))).filter(|(_, stat)| !stat.ended)
}

/// Who lives in this process group, with its leader and whoever they descend from.
pub(crate) fn members(group: i32) -> Vec<i32> {
    everybody().filter(|(_, stat)| stat.group == group).map(|(pid, _)| pid).collect()
}

/// This process and everything above it, as far as that is known.
pub(crate) fn own_line() -> Vec<i32> {
    let above = |pid: &i32| Some(stat(*pid)?.parent).filter(|parent| *parent > 0);
    std::iter::successors(Some(nix::unistd::getpid().as_raw()), above).collect()
}

/// These processes and everything below them.
pub(crate) fn descendants_of(roots: Vec<i32>) -> Vec<i32> {
    let mut all = roots;
    #[cfg(linux_path)]
    {
        let mut next = 0;
        while let Some(pid) = all.get(next).copied() {
            next += 1;
            let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
            for thread in threads.flatten() {
                let path = thread.path().join("children");
                for child in read_children(&path.to_string_lossy()) {
                    if !all.contains(&child) {
                        all.push(child);
                    }
                }
            }
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// Tells which boot of the machine this is, as a number that no other boot shares.
pub(crate) fn boot_id() -> u64 {
    #[cfg(target_os = "linux")]
    {
        use std::io::Read;
        let mut text = [0; 36];
        let read =
            std::fs::File::open("/proc/sys/kernel/random/boot_id").and_then(|mut file| file.read(&mut text));
        let digits =
            text[..read.unwrap_or(0)].iter().filter_map(|byte| char::from(*byte).to_digit(16)).take(16);
        digits.fold(0, |number, digit| number << 4 | u64::from(digit))
    }
    #[cfg(not(target_os = "linux"))]
    {
        // The moment of the boot, in seconds: the wall clock less the time since.
        (super::clock::wall_ns().saturating_sub(super::clock::monotonic_ns())) / 10_000_000_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_peeked_at_before_it_is_reaped() {
        let mut child = std::process::Command::new("/bin/sh").args(["-c", "exit 7"]).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        while peek(pid).is_none() {
            std::thread::yield_now();
        }
        assert_eq!(peek(pid).unwrap().code, Some(7));
        assert_eq!(reap(pid).unwrap().code, Some(7));
        assert!(!is_child(pid));
        assert!(child.try_wait().is_err());
    }

    #[test]
    fn a_parent_that_lives_is_told_from_one_that_is_gone() {
        assert!(!is_left_by(nix::unistd::getppid().as_raw(), std::time::Duration::ZERO));
        assert!(is_left_by(-1, std::time::Duration::ZERO));
    }

    #[cfg(linux_path)]
    #[test]
    fn a_child_that_has_ended_and_one_of_another_thread_do_not_count_as_living() {
        assert!(!has_living_children());
        let spawn =
            || std::process::Command::new("/bin/cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let (ask, asked) = std::sync::mpsc::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            let mut child = spawn();
            tell.send(()).unwrap();
            asked.recv().unwrap();
            drop(child.stdin.take());
            child.wait().unwrap();
        });
        told.recv().unwrap();
        assert!(!has_living_children(), "that of another thread");
        let mut child = spawn();
        assert!(has_living_children());
        drop(child.stdin.take());
        let pid = i32::try_from(child.id()).unwrap();
        while peek(pid).is_none() {
            std::thread::yield_now();
        }
        assert!(!has_living_children(), "it has ended");
        child.wait().unwrap();
        ask.send(()).unwrap();
        other.join().unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_name_with_parentheses_does_not_confuse_the_reader() {
        let line = b"12 (a) b) S 1 34 34 0 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 987 0 0";
        assert_eq!(parse_stat(line), Some(Stat { parent: 1, group: 34, ended: false, started: 987 }));
    }

    #[test]
    fn this_process_runs_and_one_with_another_start_time_does_not() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let started = stat(pid).unwrap().started;
        assert!(runs(pid, started));
        assert!(!runs(pid, started + 1) || started == 0);
    }
}
