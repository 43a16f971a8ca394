//! Groups as `list`, `status`, `stop`, `restart` and `reload` see them: from outside, by their files.

use crate::control::{self, ClientError, Command};
use crate::crash::{self, Crash};
use crate::launch::{FORMAT, OnCrash, Policy, Strategy};
use crate::loader::without_location;
use crate::orphan::Orphan;
use crate::places::{self, Facts, GroupFiles, PlaceError};
use crate::reload::{Report, Request, Setup, trial_timeout, yield_timeout};
use crate::role::Role;
use crate::spool::SPOOL_BYTES;
use crate::state::{Member, ReloadState, Snapshot, State, is_aside};
use crate::sys::clock::rfc3339;
use serde_json::{Value, json};
use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long an answer may take that needs no process to end.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a group may answer nobody: a role is being replaced.
const SILENCE: Duration = Duration::from_secs(60);
/// How long is waited between two looks at what becomes of a request.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Why a command on a group failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GroupError {
    #[error("group {0}: there is none of this name")]
    Unknown(String),
    #[error("group {0}: it has failed")]
    Failed(String),
    #[error("group {0}: its process is orphaned")]
    Orphaned(String),
    #[error("group {name}")]
    Client { name: String, source: ClientError },
    #[error("group {name}")]
    System { name: String, source: std::io::Error },
    #[error("group {0}: its process would not survive a reload: it was started without --on-crash keep")]
    NotKept(String),
    #[error("group {name}: it runs with format {theirs} of immortal, and this command with {ours}")]
    OtherFormat { name: String, theirs: u64, ours: u32 },
    #[error("group {name}: not reloaded, it goes on as before: {why}")]
    NotReloaded { name: String, why: String },
    #[error("group {name}: it ended during the reload")]
    EndedMeanwhile { name: String },
    #[error("group {name}: the reload has come to no end within {} s", .within.as_secs())]
    Endless { name: String, within: Duration },
    #[error(transparent)]
    Place(#[from] PlaceError),
}

impl GroupError {
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown(_) => Some("immortal list shows the groups there are".into()),
            Self::Failed(name) | Self::Orphaned(name) => Some(format!(
                "start it again with immortal start --name {name} …, or remove it: immortal stop {name}"
            )),
            Self::NotKept(name) | Self::OtherFormat { name, .. } => {
                Some(format!("end it and start it anew: immortal stop {name}, immortal start …"))
            }
            Self::NotReloaded { .. } => Some(
                "immortal monitor check tests a library; immortal logs shows the output meanwhile".into(),
            ),
            Self::EndedMeanwhile { .. } => Some("immortal list shows the groups there are".into()),
            Self::Endless { name, .. } => Some(format!("immortal status {name} shows what it is about")),
            Self::Place(error) => error.hint(),
            Self::Client { .. } | Self::System { .. } => None,
        }
    }
}

/// One group at one moment.
#[derive(Debug)]
pub(crate) struct Group {
    name: String,
    files: GroupFiles,
    snapshot: Snapshot,
    facts: Facts,
}

impl Group {
    /// Reads a group; `None`: there is none of this name, or nothing is left of it.
    fn read(runtime: &Path, name: &str) -> Option<Self> {
        let files = GroupFiles::of(runtime, name);
        let snapshot = Snapshot::read(&files.page())?;
        // A start that was killed on the way is no group, unless a process is left of it.
        let is_there = snapshot.group_started() || snapshot.has_roles();
        if !is_there && snapshot.alive(Member::Process) == 0 {
            return None;
        }
        let facts = files.read_facts()?;
        Some(Self { name: name.to_owned(), files, snapshot, facts })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn stop_timeout(&self) -> Duration {
        Duration::from_millis(self.facts.stop_timeout_ms)
    }

    fn state(&self) -> State {
        self.now().0
    }

    /// State, page and living members (process, pump, daemon) as they are now. That nobody is left is believed only
    /// if the page is still the same: who has just been replaced is gone, and the heir stands on the new page.
    fn now(&self) -> (State, Snapshot, [i32; 3]) {
        let mut snapshot = self.snapshot.clone();
        loop {
            // The members before the state: somebody may die in between, and nobody comes back to life.
            let alive = [Member::Process, Member::Pump, Member::Daemon].map(|member| snapshot.alive(member));
            let state = snapshot.state();
            match Snapshot::read(&self.files.page()) {
                Some(newer) if matches!(state, State::Failed | State::Orphaned) && newer != snapshot => {
                    snapshot = newer;
                }
                Some(_) | None => return (state, snapshot, alive),
            }
        }
    }

    /// Why a group that has failed did.
    fn reason(&self, state: State, snapshot: &Snapshot) -> Option<String> {
        let noted = snapshot.reason();
        match state {
            State::Failed => {}
            // A pump that keeps dying is named while its successor is waited for, and why there is no process.
            State::Backoff | State::Starting => return noted,
            State::Running | State::Stopping | State::Stopped | State::Orphaned => return None,
        }
        let words = || {
            let line = self.files.last_stderr_line();
            let label =
                |index: usize| self.facts.monitors.get(index).map_or("log", |monitor| monitor.label.as_str());
            let in_hook = snapshot.moment().in_hook;
            crash::with_hook(line.as_deref().unwrap_or("it left no text"), in_hook, label)
        };
        // Of what an unattached pump has noted before it was killed, that was not the reason.
        let is_its = snapshot.is_noted_as_failed() || self.facts.strategy != Strategy::Unattached.name();
        noted.filter(|_| is_its).or_else(|| Some(format!("the pump died: {}", words())))
    }

    /// Its recent output; `None`: it never had any.
    pub(crate) fn open_recent(&self) -> std::io::Result<Option<File>> {
        match File::open(self.files.recent()) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The group as `list` shows it.
    pub(crate) fn json(&self) -> Value {
        let (state, snapshot, [process, pump, daemon]) = self.now();
        let pid = |pid: i32| if pid == 0 || state == State::Failed { Value::Null } else { pid.into() };
        let (restarts, monitor_restarts, daemon_restarts) = snapshot.restarts();
        let last_exit = snapshot.last_exit().map(|last| {
            json!({
                "code": last.exit.code,
                "signal": last.exit.signal.map(crate::signal::name),
                "at": rfc3339(last.at_ns),
            })
        });
        let uptime = match process {
            0 => 0.0,
            _ => crate::sys::clock::wall_ns().saturating_sub(snapshot.since_ns()) as f64 / 1e9,
        };
        let monitors: Vec<_> = self
            .facts
            .monitors
            .iter()
            .map(|monitor| json!({"label": monitor.label, "name": monitor.name, "path": monitor.path}))
            .collect();
        ordered([
            ("name", self.name.clone().into()),
            ("strategy", self.facts.strategy.clone().into()),
            ("state", state.name().into()),
            ("reason", self.reason(state, &snapshot).into()),
            ("pids", pids_json(pid(process), pid(pump), pid(daemon))),
            ("started_at", rfc3339(snapshot.since_ns()).into()),
            ("uptime_s", uptime.into()),
            ("restarts", restarts.into()),
            ("monitor_restarts", monitor_restarts.into()),
            ("daemon_restarts", daemon_restarts.into()),
            ("last_exit", last_exit.unwrap_or(Value::Null)),
            ("monitors", monitors.into()),
            ("degraded", (snapshot.aside() != 0).into()),
            ("file", self.facts.file.clone().into()),
            ("args", self.facts.args.clone().into()),
        ])
    }

    /// How a pump or a daemon of the group died last. A pump without a daemon that was killed could leave nothing but
    /// its stderr and what it had noted on the page.
    fn last_crash(&self) -> Value {
        if let Some(noted) = self.files.read_last_crash() {
            return noted;
        }
        let page = &self.snapshot;
        let is_gone = page.group_started() && !page.has_roles() && !page.is_noted_as_failed();
        if self.facts.strategy != Strategy::Unattached.name() || !is_gone {
            return Value::Null;
        }
        let (stderr, at_ns) = self.files.last_stderr();
        let moment = page.moment();
        let label = |index: usize| self.facts.monitors.get(index).map_or("log", |monitor| &monitor.label);
        let crash =
            Crash::new(Role::Pump, page.noted(Member::Pump), moment).in_hook(moment, label).said(&stderr);
        crash.noticed(at_ns).json()
    }

    /// How much of the process's output is taken and not delivered to everybody yet, of a group that keeps it.
    fn spool(&self) -> Value {
        if self.facts.settings["on_crash"] != OnCrash::Keep.name() {
            return Value::Null;
        }
        ordered([("size", SPOOL_BYTES.into()), ("fill", self.snapshot.spool_fill().into())])
    }

    /// The group as `status` shows it.
    pub(crate) fn full_json(&self) -> Value {
        let mut object = self.json();
        let report = self.snapshot.report().and_then(|report| serde_json::from_str(&report).ok());
        let unstable = self.snapshot.unstable();
        let most = self.facts.settings["max_restarts"].as_u64();
        object["unstable"] = unstable.into();
        object["budget_left"] = most.map(|most| most.saturating_sub(unstable)).into();
        object["next_attempt"] = self.snapshot.next_attempt_ns().map(rfc3339).into();
        let mask = self.snapshot.aside();
        let aside = self.facts.monitors.iter().enumerate().filter(|(index, _)| is_aside(mask, *index));
        object["set_aside"] = aside.map(|(_, monitor)| monitor.label.clone()).collect();
        object["poisoned"] = self.files.all_aside().into_iter().map(poisoned_json).collect();
        object["last_crash"] = self.last_crash();
        object["spool"] = self.spool();
        object["reports"] = report.unwrap_or_else(|| json!({}));
        object["settings"] = self.facts.settings.clone();
        object
    }
}

fn poisoned_json(file: crate::places::AsideFile) -> Value {
    let path = file.path.to_string_lossy();
    json!({"monitor": file.label, "stream": file.stream, "offset": file.offset, "bytes": file.bytes, "file": path})
}

fn ordered<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    Value::Object(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// The three pids in the order of the contract.
pub(crate) fn pids_json(process: Value, monitor: Value, daemon: Value) -> Value {
    ordered([("process", process), ("monitor", monitor), ("daemon", daemon)])
}

/// All groups of this user, by name.
pub(crate) fn all() -> Result<Vec<Group>, GroupError> {
    let Some(runtime) = places::existing_runtime_directory()? else { return Ok(Vec::new()) };
    let entries = match std::fs::read_dir(&runtime) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(PlaceError::system("read", &runtime, error).into()),
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    Ok(names.iter().filter_map(|name| Group::read(&runtime, name)).collect())
}

/// The group of this name.
pub(crate) fn find(name: &str) -> Result<Group, GroupError> {
    let runtime = places::existing_runtime_directory()?;
    let valid = crate::start::valid_name(name.to_owned()).is_ok();
    let group = runtime.filter(|_| valid).and_then(|runtime| Group::read(&runtime, name));
    group.ok_or_else(|| GroupError::Unknown(name.to_owned()))
}

/// The group of this name, if it has roles that can answer.
fn find_answering(name: &str) -> Result<Group, GroupError> {
    let group = find(name)?;
    match group.state() {
        State::Failed => Err(GroupError::Failed(name.to_owned())),
        State::Orphaned => Err(GroupError::Orphaned(name.to_owned())),
        State::Starting | State::Running | State::Stopping | State::Backoff | State::Stopped => Ok(group),
    }
}

/// Whether a group of this name has a role or a process.
pub(crate) fn is_alive(name: &str) -> bool {
    find(name).is_ok_and(|group| group.state() != State::Failed)
}

/// Sends a signal to the process of a group.
pub(crate) fn signal(name: &str, signal: i32) -> Result<(), GroupError> {
    let group = find_answering(name)?;
    control::request(&group.files, Command::Signal(signal), ANSWER)
        .map(drop)
        .map_err(|source| GroupError::Client { name: name.to_owned(), source })
}

/// The arguments of the `start` that makes this group.
pub(crate) fn arguments(name: &str) -> Result<Vec<String>, GroupError> {
    let deadline = Instant::now() + SILENCE;
    loop {
        let group = find_answering(name)?;
        match control::request(&group.files, Command::Arguments, ANSWER) {
            Ok(arguments) => return Ok(arguments),
            Err(source) if matches!(source, ClientError::Refused(_)) || Instant::now() >= deadline => {
                return Err(GroupError::Client { name: name.to_owned(), source });
            }
            // A role is just being replaced.
            Err(_) => std::thread::sleep(LOOK_AGAIN),
        }
    }
}

/// Ends a group; returns when every process of it is gone. A failed one is removed. True: it had to be killed.
pub(crate) fn stop(name: &str) -> Result<bool, GroupError> {
    let system = |source| GroupError::System { name: name.to_owned(), source };
    let group = find(name)?;
    // Opened now: soon another group may have the name.
    let page = File::open(group.files.page()).ok();
    let lock = File::open(group.files.lock()).ok();
    let members = [Member::Process, Member::Pump, Member::Daemon];
    let mut known: Vec<(Member, Snapshot)> = members.map(|member| (member, group.snapshot.clone())).to_vec();
    let deadline = Instant::now() + SILENCE;
    let mut snapshot = group.snapshot.clone();
    while snapshot.has_roles() {
        wake(&snapshot);
        match control::request(&group.files, Command::Stop, ANSWER) {
            Ok(_) => break,
            Err(ClientError::Refused(why)) => {
                return Err(GroupError::Client { name: name.to_owned(), source: ClientError::Refused(why) });
            }
            Err(source) if Instant::now() >= deadline => {
                return Err(GroupError::Client { name: name.to_owned(), source });
            }
            // A role is just being replaced, or the group ends by itself.
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
        match Snapshot::read(&group.files.page()) {
            Some(now) => snapshot = now,
            None => break,
        }
    }
    if let Some(now) = Snapshot::read(&group.files.page()) {
        known.extend(members.map(|member| (member, now.clone())));
    }
    if let Some(lock) = lock {
        wait_for_end(&lock, page.as_ref()).map_err(system)?;
    }
    // Their locks are gone; their pids follow within a moment.
    let patience = Instant::now() + Duration::from_secs(2);
    while known.iter().any(|(member, page)| *member != Member::Process && page.alive(*member) != 0) {
        if Instant::now() >= patience {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let page = page.and_then(|page| Snapshot::of_file(&page));
    if let Some(page) = page.as_ref().filter(|page| page.has_lost_roles()) {
        // What left the process's group under a role that died is nobody's descendant any more.
        let orphan = Orphan::new(0, 0);
        orphan.end(group.facts.stop_signal, group.stop_timeout(), &page.marks());
    }
    let killed = page.is_some_and(|page| page.killed());
    remove_rest(&group.files).map_err(system)?;
    Ok(killed && !group.snapshot.killed())
}

/// Lets roles run that somebody has stopped (SIGSTOP): they are to end.
fn wake(page: &Snapshot) {
    for role in [Member::Pump, Member::Daemon] {
        crate::sys::family::signal(page.alive(role), libc::SIGCONT);
    }
}

/// Waits until no role of the group lives. How long that may take is the group's own affair: its stop timeout.
fn wait_for_end(lock: &File, page: Option<&File>) -> std::io::Result<()> {
    let mut woken = Instant::now();
    loop {
        match lock.try_lock_shared() {
            Ok(()) => return lock.unlock(),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
        std::thread::sleep(Duration::from_millis(2));
        if woken.elapsed() > Duration::from_secs(1) {
            woken = Instant::now();
            if let Some(page) = page.and_then(Snapshot::of_file) {
                wake(&page);
            }
        }
    }
}

/// Ends an orphaned process and removes the files that nobody else removed.
fn remove_rest(files: &GroupFiles) -> std::io::Result<()> {
    let Ok(lock) = File::open(files.lock()) else { return Ok(()) };
    if lock.try_lock().is_err() {
        // Somebody has started a new group of this name.
        return Ok(());
    }
    if let Some(snapshot) = Snapshot::read(&files.page()) {
        places::end_orphan(files, &snapshot);
    }
    files.remove(&lock);
    Ok(())
}

/// Restarts the process of a group; returns when the new one runs.
pub(crate) fn restart(name: &str) -> Result<(), GroupError> {
    let deadline = Instant::now() + SILENCE;
    let mut group = find_answering(name)?;
    let before = group.snapshot.restarts().0;
    loop {
        match control::request(&group.files, Command::Restart, ANSWER * 4 + group.stop_timeout()) {
            Ok(_) => return Ok(()),
            Err(source @ ClientError::Refused(_)) => {
                return Err(GroupError::Client { name: name.to_owned(), source });
            }
            Err(source) if Instant::now() >= deadline => {
                return Err(GroupError::Client { name: name.to_owned(), source });
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
        group = find_answering(name)?;
        // The role that was asked is gone, and its successor may have done it already.
        if group.state() == State::Running && group.snapshot.restarts().0 > before {
            return Ok(());
        }
    }
}

/// Refuses at once what no reload can do.
pub(crate) fn may_reload(name: &str) -> Result<(), GroupError> {
    let group = find_answering(name)?;
    if group.facts.settings["on_crash"] != OnCrash::Keep.name() {
        return Err(GroupError::NotKept(name.to_owned()));
    }
    let theirs = group.snapshot.roles_format();
    if theirs != u64::from(FORMAT) {
        return Err(GroupError::OtherFormat { name: name.to_owned(), theirs, ours: FORMAT });
    }
    Ok(())
}

/// Puts another set-up in the place of a group's; returns when its monitors are at work.
pub(crate) fn reload(name: &str, setup: &Setup, policy: &Policy) -> Result<(), GroupError> {
    let request = Request::new(setup);
    ask_for_reload(name, &request)?;
    let within = yield_timeout(policy) + trial_timeout(policy) + trial_timeout(policy);
    let deadline = Instant::now() + within;
    let made = |group: &Group| std::fs::metadata(group.files.page()).and_then(|page| page.created()).ok();
    let ended = || GroupError::EndedMeanwhile { name: name.to_owned() };
    let this = made(&find_answering(name).map_err(|_| ended())?);
    loop {
        let group = find_answering(name).map_err(|_| ended())?;
        if made(&group) != this {
            return Err(ended());
        }
        let report = || Report::read(&group.files.directory).filter(|report| report.id == request.id);
        let failed = |report: Option<Report>| {
            let why = report.map_or_else(|| "it is not known why".to_owned(), |report| report.why);
            Err(GroupError::NotReloaded { name: name.to_owned(), why: without_location(&why) })
        };
        match group.snapshot.reload() {
            (id, ReloadState::Done) if id == request.id => return Ok(()),
            (id, ReloadState::Failed) if id == request.id => return failed(report()),
            // Another one is under way, which was not accepted before this one was settled.
            (id, _) if id != request.id => return report().map_or(Ok(()), |report| failed(Some(report))),
            _ if Instant::now() >= deadline => {
                return Err(GroupError::Endless { name: name.to_owned(), within });
            }
            _ => std::thread::sleep(LOOK_AGAIN),
        }
    }
}

/// Asks until it is known that the reload is under way, whichever role dies meanwhile.
fn ask_for_reload(name: &str, request: &Request) -> Result<(), GroupError> {
    let deadline = Instant::now() + SILENCE;
    loop {
        let group = find_answering(name)?;
        match control::request(&group.files, Command::Reload(request.clone()), ANSWER) {
            Ok(_) => return Ok(()),
            Err(source @ (ClientError::Refused(_) | ClientError::TooLong(_))) => {
                return Err(GroupError::Client { name: name.to_owned(), source });
            }
            Err(source) if Instant::now() >= deadline => {
                return Err(GroupError::Client { name: name.to_owned(), source });
            }
            Err(_) if find(name)?.snapshot.reload().0 == request.id => return Ok(()),
            Err(_) => std::thread::sleep(LOOK_AGAIN),
        }
    }
}
