//! How a pump begins: takes over what it was given, lays the program out, and starts its relay.

use super::mail::Mail;
use super::{FAILED, Pump, crash_file, relay, sink};
use crate::control::Server;
use crate::ending::Ending;
use crate::frames::Link;
use crate::launch::{Strategy, number};
use crate::lifecycle::{Lifecycle, Timer};
use crate::notify::Ear;
use crate::program;
use crate::role::{self, Group, RoleError, attempt};
use crate::state::Member;
use crate::sys::signals::Signals;
use crate::sys::{family, fd};
use nix::sys::signal::Signal;
use std::collections::VecDeque;
use std::sync::Arc;

impl Pump {
    pub(super) fn begin(mut group: Group) -> Result<Self, RoleError> {
        attempt("become a subreaper", family::become_subreaper())?;
        group.page.set_member(Member::Pump, nix::unistd::getpid().as_raw());
        let strategy = group.launch.strategy;
        let signals = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
        let signals = attempt("watch signals", Signals::watch(&signals))?;
        // What a monitor does to its own mask does not reach the process.
        let umask = nix::sys::stat::umask(nix::sys::stat::Mode::empty());
        nix::sys::stat::umask(umask);
        #[cfg_attr(
            target_os = "linux",
            expect(clippy::useless_conversion, reason = "a mode is u16 on macOS")
        )]
        let mask = umask.bits().into();
        group.launch.program.umask.get_or_insert(mask);
        let mut environment = program::environment(&group.launch.program, &group.environment);
        let ear = match group.launch.policy.ready_within {
            Some(_) => Some(attempt("listen for readiness", Ear::open(&group.directory()))?),
            None => None,
        };
        if let Some(ear) = &ear {
            environment.retain(|(key, _)| key != b"NOTIFY_SOCKET");
            environment.push((b"NOTIFY_SOCKET".to_vec(), ear.address().as_encoded_bytes().to_vec()));
        }
        let prepared = program::prepare(&group.launch.program, &environment)
            .map_err(|error| RoleError::System("lay out the program", std::io::Error::other(error)))?;
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
        let mail = attempt("make the letter boxes", Mail::new(group.launch.monitors.len(), group.page))?;
        let mail = Arc::new(mail);
        let start = relay_start(&mut group, &mail, &environment)?;
        let thread = std::thread::Builder::new().name("relay".into()).spawn(move || relay::run(start));
        attempt("start the relay", thread)?;
        let page = group.page;
        let (lifecycle, actions) = Lifecycle::new(
            group.launch.policy.clone(),
            strategy,
            page.executed(),
            page.held(),
            page.unstable(),
        );
        let ending = Ending::new(group.launch.policy.stop_signal);
        let mut pump = Self {
            group,
            lifecycle,
            prepared,
            stdin,
            mail,
            signals,
            server: Server::new(listener),
            link,
            parent,
            ear,
            timers: [None; Timer::ALL.len()],
            process: None,
            dead: None,
            ending,
            events: VecDeque::new(),
            executed: page.executed(),
            restarting: Vec::new(),
            stopping: Vec::new(),
            failure: None,
            last_status: FAILED,
            status: None,
        };
        pump.carry_out(actions);
        Ok(pump)
    }
}

/// Everything that the relay starts with.
fn relay_start(
    group: &mut Group,
    mail: &Arc<Mail>,
    environment: &[(Vec<u8>, Vec<u8>)],
) -> Result<relay::Start, RoleError> {
    let page = group.page;
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
    let sinks =
        [number::RELAY_STDOUT, number::RELAY_STDERR].map(|number| sink::Sink::new(group.take(number)));
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
    let environment = environment.iter().map(|(key, value)| [key.as_slice(), b"=", value].concat()).collect();
    Ok(relay::Start {
        mail: Arc::clone(mail),
        page,
        settings: Arc::new(launch.settings(environment)),
        monitors: launch.monitors.clone(),
        executable: role::own_executable(),
        streams,
        sinks,
        why,
        message,
        cut_bytes,
        recent: group.open_recent(),
        crash,
    })
}
