//! How a pump begins: takes over what it was given, lays the program out, and starts its relay.

use super::deadline::Deadline;
use super::intake::Intake;
use super::mail::Mail;
use super::{Pump, Started, crash_file, relay};
use crate::control::Server;
use crate::delivery::Verdict;
use crate::ending::Ending;
use crate::frames::Link;
use crate::launch::{Limit, Strategy, number};
use crate::lifecycle::{Inherited, Lifecycle, Timer};
use crate::loader::LastCrash;
use crate::notify::NotifySocket;
use crate::program::{self, Prepared};
use crate::role::{self, Group, RoleError, attempt};
use crate::sink::Sink;
use crate::spool::SPOOL_BYTES;
use crate::state::Member;
use crate::strings::Strings;
use crate::sys::birth::Births;
use crate::sys::exit_status::FAILED;
use crate::sys::signals::Signals;
use crate::sys::{clock, family, fd, limits};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Pump {
    pub(super) fn begin(mut group: Group, relay: &relay::Thread) -> Result<Self, RoleError> {
        attempt("become a subreaper", family::become_subreaper())?;
        group.page.set_own(Member::Pump);
        let signals = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
        let signals = attempt("watch signals", Signals::watch(&signals))?;
        let LaidOut { prepared, environment, notify_socket, limits, umask, file_size } =
            LaidOut::of(&mut group)?;
        let listener = match &group.listener {
            Some(listener) => Some(attempt("keep the control socket", listener.try_clone())?),
            None => None,
        };
        let link = match group.take(number::LINK) {
            Some(fd) => Some(attempt("keep the link", Link::new(fd))?),
            None => None,
        };
        let parent = match group.take(number::PARENT) {
            Some(fd) => Some(attempt("keep the link to the parent", Link::new(fd))?),
            None => None,
        };
        let stdin = match group.take(number::STDIN) {
            Some(stdin) => stdin,
            None => attempt("open /dev/null", fd::null())?,
        };
        let kept = Kept::find(&group);
        let mail = attempt("make the letter boxes", Mail::new(group.launch.monitors.len() + 1, group.page))?;
        let mail = Arc::new(mail);
        let start = relay_start(&mut group, &mail, &environment, kept.as_ref())?;
        let relays = start.sinks.iter().any(Sink::is_open);
        relay.start(start);
        // From here on this thread has the time.
        let page = group.page;
        page.complete(Member::Launcher);
        page.complete(Member::Pump);
        let inherited = Inherited {
            group_started: page.group_started(),
            held: page.held(),
            unstable: page.unstable(),
            kept: kept.is_some(),
            stop_wanted: page.stop_wanted(),
            restart_wanted: page.restart_wanted(),
        };
        if kept.is_none() {
            // The one that is spawned now is what was wanted.
            page.set_restart_wanted(false);
        }
        let (lifecycle, actions) =
            Lifecycle::new(group.launch.policy.clone(), group.launch.strategy, inherited);
        let mut ending = Ending::new(group.launch.policy.stop_signal);
        let (process, watch) = match kept {
            Some(Kept { started, watch }) => {
                ending.take_stranger(started.pid, page.started(Member::Process));
                (Some(started), watch)
            }
            None => (None, None),
        };
        let deadline = group.launch.policy.hook_timeout.map(|within| Deadline::new(within, Instant::now()));
        let mut pump = Self {
            group,
            lifecycle,
            deadline,
            began: Instant::now(),
            prepared,
            stdin,
            relays,
            mail,
            signals,
            server: Server::new(listener),
            link,
            parent,
            notify_socket,
            timers: [None; Timer::ALL.len()],
            process,
            watch,
            limits,
            umask,
            file_size,
            adopted: process.is_some(),
            unexplained: None,
            dead: None,
            ending,
            events: VecDeque::new(),
            executed: page.group_started(),
            reported: false,
            births: Births::default(),
            restarting: Vec::new(),
            stopping: Vec::new(),
            reloading: Vec::new(),
            verdict: Verdict::Other,
            failure: None,
            not_running: None,
            last_status: FAILED,
            status: None,
        };
        pump.carry_out(actions);
        Ok(pump)
    }
}

/// The program as it is executed each time, and what of this role is kept for that.
struct LaidOut {
    prepared: Prepared,
    environment: Strings,
    notify_socket: Option<NotifySocket>,
    limits: Vec<Limit>,
    umask: Mode,
    file_size: Option<u64>,
}

impl LaidOut {
    fn of(group: &mut Group) -> Result<Self, RoleError> {
        // What a monitor does to its own mask does not reach the process.
        let umask = nix::sys::stat::umask(Mode::empty());
        nix::sys::stat::umask(umask);
        let file_size = match group.launch.policy.keeps() {
            true => attempt("raise the limit of file sizes", limits::allow_files_of(SPOOL_BYTES as u64))?,
            false => None,
        };
        let mut limits = group.launch.program.limits.clone();
        if let Some(soft) = file_size {
            restore_file_size(&mut limits, soft);
        }
        let inherited = group.keep_environment().clone();
        let mut environment = program::environment(&group.launch.program, &inherited);
        let notify_socket = match group.launch.policy.ready_within {
            Some(_) => Some(attempt("listen for readiness", NotifySocket::open(&group.directory()))?),
            None => None,
        };
        if let Some(socket) = &notify_socket {
            let address = socket.address();
            environment = program::with_variable(&environment, b"NOTIFY_SOCKET", address.as_encoded_bytes());
        }
        let prepared = program::prepare(&group.launch.program, &environment)
            .map_err(|error| RoleError::System("lay out the program", std::io::Error::other(error)))?;
        Ok(Self { prepared, environment, notify_socket, limits, umask, file_size })
    }
}

/// The program gets the limit that the caller had, unless it was started with one of its own.
fn restore_file_size(limits: &mut Vec<Limit>, soft: u64) {
    #[cfg_attr(target_os = "linux", expect(clippy::useless_conversion, reason = "the type differs on macOS"))]
    let resource = u32::try_from(libc::RLIMIT_FSIZE).unwrap_or_default();
    if limits.iter().all(|limit| limit.resource != resource) {
        let hard = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_FSIZE);
        limits.push(Limit { resource, soft, hard: hard.map_or(soft, |(_, hard)| hard) });
    }
}

/// A process that the pump before has left running, or whose end it had not dealt with.
struct Kept {
    started: Started,
    watch: Option<OwnedFd>,
}

impl Kept {
    fn find(group: &Group) -> Option<Self> {
        let watch = group.process.as_ref().and_then(|watch| watch.try_clone().ok());
        let page = group.page;
        let pid = page.pids().process;
        if !group.launch.policy.keeps() || !page.group_started() || pid == 0 {
            return None;
        }
        let ran = Duration::from_nanos(clock::monotonic_ns().saturating_sub(page.since_monotonic_ns()));
        let at = Instant::now().checked_sub(ran).unwrap_or_else(Instant::now);
        // One that was being executed when the pump died has written no more than its number.
        if page.started(Member::Process) == 0 && family::runs(pid, 0) {
            page.set_member(Member::Process, pid);
        }
        let watch = watch.or_else(|| family::watch_started(pid, page.started(Member::Process)));
        Some(Self { started: Started { pid, at }, watch })
    }
}

/// Everything that the relay starts with.
fn relay_start(
    group: &mut Group,
    mail: &Arc<Mail>,
    environment: &Strings,
    kept: Option<&Kept>,
) -> Result<relay::Start, RoleError> {
    let page = group.page;
    page.delivery().begin();
    let (why, cut_bytes) = page.why();
    let message = match group.take(number::MESSAGE) {
        Some(fd) => attempt("read the message", fd::read_from_start(&fd))?,
        None => Vec::new(),
    };
    let reader = |index: usize| {
        let stream = group.streams[index].0.try_clone()?;
        fd::set_nonblocking(&stream)?;
        std::io::Result::Ok(stream)
    };
    let streams = [attempt("keep a stream", reader(0))?, attempt("keep a stream", reader(1))?];
    let sinks = [number::RELAY_STDOUT, number::RELAY_STDERR].map(|number| Sink::new(group.take(number)));
    // In strategy daemon the descriptor is only held, so that a write to stderr never breaks.
    let held = group.take(number::CRASH);
    let launch = &group.launch;
    let crash = match launch.strategy {
        Strategy::Unattached => held.map(|fd| crash_file::CrashFile::new(fd, launch.policy.buffer_limit)),
        Strategy::Daemon | Strategy::Development => {
            std::mem::forget(held);
            None
        }
    };
    let predecessor = group.take(number::PREDECESSOR);
    let launch = &group.launch;
    let spool = match &group.spool {
        Some(spool) => Some(attempt("keep the spool", spool.try_clone())?),
        None => None,
    };
    let intake = Intake::new(streams, group.open_recent(), spool, page.delivery());
    let intake = attempt("go on with what was taken from the streams", intake)?;
    Ok(relay::Start {
        mail: Arc::clone(mail),
        page,
        settings: Arc::new(launch.settings(environment.clone())),
        monitors: launch.monitors.clone(),
        aside: page.aside(),
        executable: role::own_executable(),
        intake,
        sinks,
        why,
        message,
        cut_bytes,
        predecessor,
        last_crash: group.crash.as_ref().map(LastCrash::lend),
        kept: kept.map(|kept| relay::KeptProcess {
            pid: kept.started.pid,
            restarts: u32::try_from(page.restarts()).unwrap_or(u32::MAX),
            mono_ns: page.since_monotonic_ns(),
            wall_ns: page.since_ns(),
        }),
        crash,
    })
}
