//! Starts processes: the user's program and our own roles. The only code that runs between fork and exec.
//!
//! On Linux the child borrows this process's memory until it executes (`CLONE_VM | CLONE_VFORK`), so that
//! nothing is copied and the failing step is known without a pipe. Elsewhere it is a fork and a pipe. Everything
//! the child needs is laid out before; the child itself makes system calls and nothing else: no allocation, no
//! lock, no log.

#![expect(unsafe_code, reason = "fork, exec and what is allowed between them")]

use super::birth::Birth;
use super::fd::PARKED;
use crate::launch::{Identity, Limit};
use crate::sys::exit_status::{FAILED, NOT_EXECUTABLE, NOT_FOUND};
use nix::errno::Errno;
use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// A child to start.
#[derive(Default)]
pub(crate) struct Child<'a> {
    /// Paths to execute, tried in order as `execvp` does.
    pub(crate) candidates: &'a [CString],
    /// Arguments, the zeroth included.
    pub(crate) arguments: &'a [CString],
    /// The whole environment.
    pub(crate) environment: &'a [&'a CStr],
    /// Descriptors and the numbers they get. All others are closed.
    pub(crate) descriptors: Vec<(BorrowedFd<'a>, RawFd)>,
    /// Working directory; none: unchanged.
    pub(crate) directory: Option<&'a CStr>,
    /// Leads a session of its own.
    pub(crate) session: bool,
    /// Becomes a child of init: an intermediate leads the new session, starts it, and ends at once.
    pub(crate) detached: bool,
    /// User and groups to become.
    pub(crate) identity: Option<&'a Identity>,
    /// Resource limits to set.
    pub(crate) limits: &'a [Limit],
    pub(crate) umask: Option<u32>,
    /// Priority, absolute.
    pub(crate) nice: Option<c_int>,
    /// Starts with default signal dispositions and nothing blocked; otherwise with everything blocked.
    pub(crate) default_signals: bool,
    /// Gets this signal when the thread that started it dies (Linux).
    #[cfg_attr(portable_path, expect(dead_code, reason = "no other system has such a signal"))]
    pub(crate) parent_death_signal: Option<c_int>,
    /// Where the child's pid is before it executes; on Linux before its first instruction.
    pub(crate) pid_slot: Option<&'a AtomicU64>,
    /// Learns when the child has started (Linux).
    #[cfg_attr(portable_path, expect(dead_code, reason = "such a child has memory of its own"))]
    pub(crate) birth: Option<&'a Birth>,
}

/// What the child could not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Step {
    Fork = 1,
    Descriptors,
    Directory,
    Limits,
    Priority,
    Identity,
    Execute,
    /// Executed nothing though the file is there: its interpreter is missing.
    Interpreter,
}

/// A child that was not started.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("{}: {}", match step {
    Step::Fork => "unable to fork",
    Step::Descriptors => "unable to hand over descriptors",
    Step::Directory => "unable to enter the working directory",
    Step::Limits => "unable to set a resource limit",
    Step::Priority => "unable to set the priority",
    Step::Identity => "unable to become that user",
    Step::Execute => "unable to execute it",
    Step::Interpreter => "its interpreter is missing",
}, errno.desc())]
pub(crate) struct SpawnError {
    pub(crate) step: Step,
    pub(crate) errno: Errno,
}

impl SpawnError {
    /// The exit status a shell would report: 127 not found, 126 found but not executable; 125 it is our fault.
    pub(crate) fn status(self) -> u8 {
        match (self.step, self.errno) {
            (Step::Execute, Errno::ENOENT | Errno::ENOTDIR) => NOT_FOUND,
            (Step::Execute | Step::Interpreter, _) => NOT_EXECUTABLE,
            (
                Step::Fork
                | Step::Descriptors
                | Step::Directory
                | Step::Limits
                | Step::Priority
                | Step::Identity,
                _,
            ) => FAILED,
        }
    }
}

/// Everything the child touches, as raw pointers and numbers.
struct Plan<'a> {
    candidates: Vec<*const c_char>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    moves: Vec<(RawFd, RawFd)>,
    parked: Vec<RawFd>,
    highest: RawFd,
    directory: *const c_char,
    identity: Option<&'a Identity>,
    limits: &'a [Limit],
    umask: Option<u32>,
    nice: Option<c_int>,
    session: bool,
    detached: bool,
    default_signals: bool,
    #[cfg(linux_path)]
    parent_death_signal: c_int,
    parent: libc::pid_t,
    pid_slot: Option<&'a AtomicU64>,
    #[cfg(linux_path)]
    birth: Option<&'a Birth>,
    /// The failure of the child: step and errno.
    failed: (c_int, c_int),
    /// Pid of the program, when an intermediate started it.
    grandchild: libc::pid_t,
    #[cfg(portable_path)]
    report: RawFd,
}

fn terminated(strings: &[impl AsRef<CStr>]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ref().as_ptr()).chain([std::ptr::null()]).collect()
}

impl<'a> Plan<'a> {
    fn new(child: &Child<'a>) -> Self {
        let moves: Vec<_> = child.descriptors.iter().map(|(fd, number)| (fd.as_raw_fd(), *number)).collect();
        Self {
            candidates: child.candidates.iter().map(|path| path.as_ptr()).collect(),
            argv: terminated(child.arguments),
            envp: terminated(child.environment),
            parked: Vec::with_capacity(moves.len()),
            highest: moves.iter().map(|(_, number)| *number).max().unwrap_or(2).max(2),
            moves,
            directory: child.directory.map_or(std::ptr::null(), CStr::as_ptr),
            identity: child.identity,
            limits: child.limits,
            umask: child.umask,
            nice: child.nice,
            session: child.session,
            detached: child.detached,
            default_signals: child.default_signals,
            #[cfg(linux_path)]
            parent_death_signal: child.parent_death_signal.unwrap_or(0),
            parent: nix::unistd::getpid().as_raw(),
            pid_slot: child.pid_slot,
            #[cfg(linux_path)]
            birth: child.birth,
            failed: (0, 0),
            grandchild: 0,
            #[cfg(portable_path)]
            report: -1,
        }
    }

    /// Notes the failing step, in the memory or the pipe that the parent looks at.
    fn fail(&mut self, step: Step) {
        self.failed = (step as c_int, Errno::last_raw());
        #[cfg(portable_path)]
        {
            let words = [self.failed.0, self.failed.1];
            // SAFETY: the buffer is a live array of that size; write is async-signal-safe.
            unsafe { libc::write(self.report, words.as_ptr().cast(), size_of_val(&words)) };
        }
    }

    /// Gives every descriptor its number and closes all others.
    fn place_descriptors(&mut self) -> bool {
        for (source, _) in &self.moves {
            // SAFETY: fcntl with F_DUPFD_CLOEXEC takes numbers only. The vector has room for all: no allocation.
            let parked = unsafe { libc::fcntl(*source, libc::F_DUPFD_CLOEXEC, PARKED) };
            if parked == -1 {
                return false;
            }
            self.parked.push(parked);
        }
        for ((_, number), parked) in self.moves.iter().zip(&self.parked) {
            // SAFETY: dup2 takes numbers only.
            if unsafe { libc::dup2(*parked, *number) } == -1 {
                return false;
            }
        }
        for number in 0..=self.highest {
            if !self.moves.iter().any(|(_, taken)| *taken == number) {
                // SAFETY: this process is about to execute another program, which is to have no such descriptor.
                // With shared memory the table of descriptors is still the child's own (no CLONE_FILES).
                unsafe { libc::close(number) };
            }
        }
        self.close_behind();
        true
    }

    /// Marks every descriptor behind the highest placed one to be closed at the exec.
    fn close_behind(&self) {
        let first = self.highest + 1;
        #[cfg(linux_path)]
        {
            // SAFETY: close_range takes numbers only.
            let result = unsafe {
                libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
            };
            if result == 0 {
                return;
            }
        }
        // SAFETY: sysconf and fcntl take numbers only.
        unsafe {
            let limit = libc::sysconf(libc::_SC_OPEN_MAX).clamp(1024, 65536);
            for number in first..c_int::try_from(limit).unwrap_or(1024) {
                libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }

    /// Sets limits, priority and umask, and then becomes the user, who may not be allowed to.
    fn restrict(&self) -> Result<(), Step> {
        for limit in self.limits {
            let values = libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard };
            // SAFETY: `values` is a live rlimit; an unknown resource is refused by the kernel.
            if unsafe { libc::setrlimit(limit.resource as _, &raw const values) } == -1 {
                return Err(Step::Limits);
            }
        }
        if let Some(nice) = self.nice {
            // SAFETY: setpriority takes numbers only; 0 is this process.
            if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } == -1 {
                return Err(Step::Priority);
            }
        }
        if let Some(mask) = self.umask {
            // SAFETY: umask takes a number; this process shares no file-system attributes (no CLONE_FS).
            unsafe { libc::umask(libc::mode_t::try_from(mask).unwrap_or(0o22)) };
        }
        match self.identity {
            Some(identity) if !become_user(identity) => Err(Step::Identity),
            Some(_) | None => Ok(()),
        }
    }

    fn reset_signals(&self) {
        // SAFETY: an all-zero sigaction is SIG_DFL with an empty mask and no flags; both calls are
        // async-signal-safe, and this process has signal tables of its own (no CLONE_SIGHAND).
        unsafe {
            let default: libc::sigaction = std::mem::zeroed();
            for number in 1..=64 {
                libc::sigaction(number, &raw const default, std::ptr::null_mut());
            }
        }
    }

    /// Tries each candidate. Returns only when none could be executed.
    fn execute(&mut self) {
        let (argv, envp) = (self.argv.as_ptr(), self.envp.as_ptr());
        let mut refused = 0;
        for index in 0..self.candidates.len() {
            let path = self.candidates[index];
            // SAFETY: path, argv and envp are NUL-terminated strings and null-terminated arrays that live in
            // the parent, which does not run on before this process has executed or ended.
            unsafe { libc::execve(path, argv, envp) };
            let error = Errno::last();
            if error == Errno::EACCES {
                refused = libc::EACCES;
                continue;
            }
            if !matches!(error, Errno::ENOENT | Errno::ENOTDIR) {
                return self.fail(Step::Execute);
            }
            // SAFETY: as above.
            if unsafe { libc::access(path, libc::F_OK) } == 0 {
                Errno::set_raw(libc::ENOENT);
                return self.fail(Step::Interpreter);
            }
            Errno::set_raw(libc::ENOENT);
        }
        if refused != 0 || self.candidates.is_empty() {
            Errno::set_raw(if refused == 0 { libc::ENOENT } else { refused });
        }
        self.fail(Step::Execute);
    }

    /// The child from its first instruction to the exec. Returns only on failure.
    fn run(&mut self) {
        #[cfg(linux_path)]
        if let Some(birth) = self.birth {
            birth.alive_ns.store(boot_ns(), Ordering::SeqCst);
        }
        if self.session {
            // SAFETY: setsid takes nothing; failing means that it leads a group already, which is as good.
            unsafe { libc::setsid() };
        }
        if !self.place_descriptors() {
            return self.fail(Step::Descriptors);
        }
        if let Err(step) = self.restrict() {
            return self.fail(step);
        }
        // SAFETY: the directory is a NUL-terminated string of the parent.
        if !self.directory.is_null() && unsafe { libc::chdir(self.directory) } == -1 {
            return self.fail(Step::Directory);
        }
        if self.default_signals {
            self.reset_signals();
        }
        // The pid is on the page before the program can run: whoever comes after a crash finds it.
        if let Some(slot) = self.pid_slot {
            // SAFETY: getpid takes nothing.
            let pid = unsafe { libc::getpid() };
            slot.store(u64::try_from(pid).unwrap_or(0), Ordering::SeqCst);
        }
        #[cfg(linux_path)]
        if self.parent_death_signal != 0 {
            // SAFETY: prctl, getppid and raise take numbers only.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, self.parent_death_signal);
                // The parent may have died before the line above: then nobody will send the signal any more.
                if libc::getppid() != self.parent {
                    libc::_exit(i32::from(FAILED));
                }
            }
        }
        if self.default_signals {
            // SAFETY: an all-zero sigset is made empty before it is used.
            unsafe {
                let mut none: libc::sigset_t = std::mem::zeroed();
                libc::sigemptyset(&raw mut none);
                libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
            }
        }
        self.execute();
    }
}

/// [`super::clock::boot_ns`] between fork and exec; 0: it cannot be told.
#[cfg(linux_path)]
fn boot_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a live timespec; clock_gettime is async-signal-safe.
    if unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) } != 0 {
        return 0;
    }
    let (seconds, rest) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

/// The kernel's own calls: those of the C library would tell every thread of the program that shares this memory.
#[cfg(linux_path)]
fn become_user(identity: &Identity) -> bool {
    let groups = &identity.groups;
    // SAFETY: the pointer and length are those of a live array of the kernel's gid type; the others are numbers.
    unsafe {
        libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) == 0
            && libc::syscall(libc::SYS_setresgid, identity.gid, identity.gid, identity.gid) == 0
            && libc::syscall(libc::SYS_setresuid, identity.uid, identity.uid, identity.uid) == 0
    }
}

#[cfg(portable_path)]
#[cfg_attr(
    target_vendor = "apple",
    expect(clippy::cast_possible_truncation, reason = "nobody is in so many groups")
)]
fn become_user(identity: &Identity) -> bool {
    let groups = &identity.groups;
    // SAFETY: as above; this process has memory and threads of its own.
    unsafe {
        libc::setgroups(groups.len() as _, groups.as_ptr()) == 0
            && libc::setgid(identity.gid) == 0
            && libc::setuid(identity.uid) == 0
    }
}

/// Starts the child and returns its pid once it has executed.
pub(crate) fn spawn(child: &Child<'_>) -> Result<i32, SpawnError> {
    let mut plan = Plan::new(child);
    // All signals are blocked from before the fork: with shared memory no handler of this program may run in
    // the child.
    let mut before = nix::sys::signal::SigSet::empty();
    let all = nix::sys::signal::SigSet::all();
    let fork_error = |errno| SpawnError { step: Step::Fork, errno };
    nix::sys::signal::pthread_sigmask(
        nix::sys::signal::SigmaskHow::SIG_SETMASK,
        Some(&all),
        Some(&mut before),
    )
    .map_err(fork_error)?;
    let result = start(&mut plan);
    nix::sys::signal::pthread_sigmask(nix::sys::signal::SigmaskHow::SIG_SETMASK, Some(&before), None)
        .map_err(fork_error)?;
    let pid = result.map_err(fork_error)?;
    let intermediate_ended = plan.detached.then(|| super::family::wait(pid));
    if let Some(step) = step_of(plan.failed.0) {
        if intermediate_ended.is_none() {
            super::family::wait(pid);
        }
        if let Some(slot) = plan.pid_slot {
            slot.store(0, Ordering::SeqCst);
        }
        return Err(SpawnError { step, errno: Errno::from_raw(plan.failed.1) });
    }
    Ok(if plan.detached { plan.grandchild } else { pid })
}

fn step_of(number: c_int) -> Option<Step> {
    use Step::{Descriptors, Directory, Execute, Fork, Identity, Interpreter, Limits, Priority};
    [Fork, Descriptors, Directory, Limits, Priority, Identity, Execute, Interpreter]
        .into_iter()
        .find(|step| *step as c_int == number)
}

#[cfg(linux_path)]
use shared::start;

#[cfg(linux_path)]
mod shared {
    use super::{AtomicU64, Errno, Plan, Step, c_int};
    use std::ffi::c_void;

    /// Deep enough for a handful of system calls.
    const STACK_BYTES: usize = 32 * 1024;

    fn clone(entry: extern "C" fn(*mut c_void) -> c_int, plan: &mut Plan<'_>) -> Result<libc::pid_t, Errno> {
        let mut stack = Vec::<u128>::with_capacity(STACK_BYTES / size_of::<u128>());
        let mut unread = 0;
        // The kernel notes the pid before the child runs: if this process is killed in that moment, the child goes on,
        // and whoever comes next has to know of it.
        let noted = plan.pid_slot.map_or(&raw mut unread, low_half);
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PARENT_SETTID | libc::SIGCHLD;
        // SAFETY: the stack is `STACK_BYTES` long, aligned to 16 and grows down from its end; this thread does
        // not run on, and so neither drops nor touches the stack or the plan, before the child has executed or
        // ended (CLONE_VFORK). The pid is written to a live number of that size.
        let pid = unsafe {
            let top = stack.as_mut_ptr().byte_add(STACK_BYTES);
            libc::clone(entry, top.cast(), flags, std::ptr::from_mut(plan).cast(), noted)
        };
        Errno::result(pid)
    }

    /// The part of a number that holds a pid; the other one is zero.
    fn low_half(slot: &AtomicU64) -> *mut libc::pid_t {
        let whole: *mut libc::pid_t = slot.as_ptr().cast();
        if cfg!(target_endian = "big") { whole.wrapping_add(1) } else { whole }
    }

    pub(super) fn start(plan: &mut Plan<'_>) -> Result<libc::pid_t, Errno> {
        // A child allocates nothing, so the stack of an intermediate's own child is allocated here as well.
        if plan.detached { clone_detached(plan) } else { clone(child, plan) }
    }

    extern "C" fn child(plan: *mut c_void) -> c_int {
        // SAFETY: the pointer is the plan that `clone` was given; the parent is suspended until we are done.
        let plan = unsafe { &mut *plan.cast::<Plan<'_>>() };
        plan.run();
        127
    }

    struct Detached<'p, 'a> {
        plan: &'p mut Plan<'a>,
        inner_stack: Vec<u128>,
    }

    fn clone_detached(plan: &mut Plan<'_>) -> Result<libc::pid_t, Errno> {
        let words = STACK_BYTES / size_of::<u128>();
        let mut stack = Vec::<u128>::with_capacity(words);
        let mut detached = Detached { plan, inner_stack: Vec::with_capacity(words) };
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: as in `clone`; the intermediate ends only after its own child has executed or ended, so both
        // stacks outlive their users.
        let pid = unsafe {
            let top = stack.as_mut_ptr().byte_add(STACK_BYTES);
            libc::clone(intermediate, top.cast(), flags, (&raw mut detached).cast())
        };
        Errno::result(pid)
    }

    extern "C" fn intermediate(argument: *mut c_void) -> c_int {
        // SAFETY: the pointer is the `Detached` of the suspended parent.
        let detached = unsafe { &mut *argument.cast::<Detached<'_, '_>>() };
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: setsid and getpid take nothing; the inner stack is allocated and ours alone; we are suspended
        // until our child has executed or ended.
        let pid = unsafe {
            libc::setsid();
            detached.plan.parent = libc::getpid();
            let top = detached.inner_stack.as_mut_ptr().byte_add(STACK_BYTES);
            libc::clone(child, top.cast(), flags, std::ptr::from_mut::<Plan<'_>>(detached.plan).cast())
        };
        detached.plan.grandchild = pid;
        if pid == -1 {
            detached.plan.fail(Step::Fork);
        }
        0
    }
}

#[cfg(portable_path)]
use forked::start;

#[cfg(portable_path)]
mod forked {
    use super::{AsRawFd, Errno, Plan, Step};
    use std::io::Read;

    /// Forks; the child runs the plan with the writing end of a pipe that closes at the exec.
    pub(super) fn start(plan: &mut Plan<'_>) -> Result<libc::pid_t, Errno> {
        let (reader, writer) = super::super::fd::pipe().map_err(|_| Errno::EMFILE)?;
        // The report must survive the placing of the descriptors.
        // SAFETY: fcntl takes numbers only.
        let report =
            Errno::result(unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_DUPFD_CLOEXEC, super::PARKED) })?;
        plan.report = report;
        // SAFETY: the child makes async-signal-safe calls only and ends by exec or `_exit`.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            in_child(plan);
        }
        drop(writer);
        // SAFETY: the duplicate was made above and is owned by nobody else.
        unsafe { libc::close(report) };
        let pid = Errno::result(pid)?;
        let mut words = Vec::new();
        if let Err(error) = std::fs::File::from(reader).read_to_end(&mut words) {
            log::debug!("reading the report of a child: {error}");
        }
        for pair in words.chunks_exact(8) {
            let word = |at: usize| i32::from_ne_bytes([pair[at], pair[at + 1], pair[at + 2], pair[at + 3]]);
            if word(0) == 0 { plan.grandchild = word(4) } else { plan.failed = (word(0), word(4)) }
        }
        Ok(pid)
    }

    fn in_child(plan: &mut Plan<'_>) -> ! {
        if plan.detached {
            // SAFETY: setsid, getpid, fork, write and _exit are async-signal-safe.
            unsafe {
                libc::setsid();
                plan.parent = libc::getpid();
                let pid = libc::fork();
                if pid != 0 {
                    if pid == -1 {
                        plan.fail(Step::Fork);
                    }
                    let words = [0, pid];
                    libc::write(plan.report, words.as_ptr().cast(), size_of_val(&words));
                    libc::_exit(0);
                }
            }
        }
        plan.run();
        // SAFETY: as above.
        unsafe { libc::_exit(127) }
    }
}

/// Turns bytes into a C string; a NUL inside is refused.
pub(crate) fn c_string(bytes: impl Into<Vec<u8>>) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "it holds a NUL byte"))
}
