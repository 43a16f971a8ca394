//! Verifies a group that is to be started: the program, then its monitors, which helpers load and let judge their
//! options meanwhile.

use super::launching::{Begun, Verified};
use super::{Start, StartError, attempt, default_name, find_executable, keeping, valid_name};
use crate::launch::{FORMAT, Launch, settings};
use crate::loader::{CheckContext, CheckError, Checking, Judging, Leftovers, SearchPath, Settings, Spec};
use crate::options::{OptionError, RawOption};
use crate::program;
use crate::role::Early;
use crate::signal;
use crate::strings::Strings;
use crate::sys::exit_status::FAILED;
use nix::sys::resource::{Resource, getrlimit};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// What a start, and every role that starts another one, may have open at the same time: the copies that it makes to
/// hand descriptors over have numbers from [`crate::sys::fd`]'s `PARKED` on. The rest is for monitors.
const LEAST_DESCRIPTORS: u64 = 64;

impl Start {
    /// The monitors that are wanted, none of them looked at yet.
    pub(super) fn wanted(&mut self, caller: &Path, executable: &Path) -> Result<Wanted, CheckError> {
        if self.monitors.is_empty() {
            self.monitors.push("log".into());
        }
        let specs = self.monitors.iter().map(|monitor| Spec::parse(monitor)).collect::<Result<_, _>>();
        let options = self.options.iter().map(|option| RawOption::parse(option));
        let options = options.collect::<Result<_, OptionError>>();
        let search = SearchPath::from_environment(&self.monitor_path, caller, executable);
        Ok(Wanted { specs: specs?, options: options?, search })
    }

    /// What the monitors can read.
    pub(super) fn settings(&self, name: &str, environment: &Strings) -> Settings {
        settings(name, self.strategy, None, &self.program, self.policy.on_crash, environment.clone())
    }

    /// Verifies all. While helpers load the monitors and let them judge their options, the first role gets ready and
    /// whatever can be made for the group is made.
    pub(super) fn verify(self) -> Result<Ready, StartError> {
        let mut judged = self.begin()?.judge()?;
        let first = judged.group.first_role()?;
        let name = judged.group.take_name_early(&first);
        let furnish = |group: &Verified| name.and_then(|name| group.furnish(name, &first).ok());
        // Nobody is to wait for the other: what can be judged by now is judged while the place is furnished.
        let (mut group, judging, place) = if judged.is_described()? {
            let (group, judging) = judged.complete()?;
            let place = furnish(&group);
            (group, judging, place)
        } else {
            let place = furnish(&judged.group);
            let (group, judging) = judged.complete()?;
            (group, judging, place)
        };
        let begun = place.map(|place| group.write_down(place));
        let (_, helpers) = judging.finish(&group.executable)?;
        Ok(Ready { group, first, begun: begun.transpose()?, helpers })
    }

    /// Has helpers load the monitors.
    pub(super) fn begin(mut self) -> Result<Loading, StartError> {
        let name = match self.name.take() {
            Some(name) => valid_name(name)?,
            None => default_name(&self.program.file),
        };
        let caller = attempt("find out the current directory", std::env::current_dir())?;
        let executable = match self.executable.take() {
            Some(path) => path,
            None => find_executable().ok_or(StartError::NoExecutable)?,
        };
        let checking = self.wanted(&caller, &executable).and_then(|wanted| {
            Ok((Checking::begin(&wanted.specs, &wanted.context(&executable, &caller))?, wanted))
        });
        // What is wrong with the monitors is said behind what is wrong with the program, but for a wrong command line.
        let checking = match checking {
            Err(error) if error.is_usage() => return Err(error.into()),
            checking => checking,
        };
        Ok(Loading { start: self, name, caller, executable, checking })
    }
}

/// A start whose monitors are being loaded.
pub(super) struct Loading {
    start: Start,
    name: String,
    /// The caller's directory.
    caller: PathBuf,
    executable: PathBuf,
    /// What is wrong with the monitors is said only if nothing is wrong with the program.
    checking: Result<(Checking, Wanted), CheckError>,
}

impl Loading {
    /// Verifies all but the monitors.
    pub(super) fn judge(self) -> Result<Judged, StartError> {
        let Self { mut start, name, caller, executable, checking } = self;
        judge_descriptors()?;
        let directory = match &start.working_directory {
            Some(directory) => caller.join(directory),
            None => caller.clone(),
        };
        if start.working_directory.is_some() && !directory.is_dir() {
            let source = io::Error::other(format!("{}: no such directory", directory.display()));
            return Err(StartError::System { what: "use the working directory", source });
        }
        start.program.caller_directory = caller.clone().into_os_string().into_vec();
        start.program.directory = directory.into_os_string().into_vec();
        judge_numbers(&start)?;
        let inherited = program::caller_environment();
        start.privileges.apply(&mut start.program)?;
        let environment = program::environment(&start.program, &inherited);
        program::prepare(&start.program, &environment)?;
        program::verify(&start.program, &environment)?;
        let spool = keeping::spool(&start.policy, start.strategy, start.monitors.len())?;
        let settings = start.settings(&name, &environment);
        let launch = Launch {
            format: FORMAT,
            name,
            strategy: start.strategy,
            directory: None,
            program: start.program,
            policy: start.policy,
            monitors: Vec::new(),
            log_level: log::max_level() as u8,
        };
        let (checking, wanted) = checking?;
        let group = Verified { launch, relay: start.relay, executable, inherited, spool };
        Ok(Judged { group, checking, wanted, settings, caller })
    }
}

/// Refuses a limit with which a group might start, and could not restore a role later.
fn judge_descriptors() -> Result<(), StartError> {
    let (most, _) = attempt(
        "find out how many files may be open",
        getrlimit(Resource::RLIMIT_NOFILE).map_err(io::Error::from),
    )?;
    if most >= LEAST_DESCRIPTORS {
        return Ok(());
    }
    let text = format!(
        "descriptors: no more than {most} files may be open here (ulimit -n), and a group needs {LEAST_DESCRIPTORS}"
    );
    Err(StartError::Role { status: FAILED, text, hint: Some("raise the limit: ulimit -n 1024".into()) })
}

/// Judges the numbers that a program may have set: those of a command line are right.
pub(super) fn judge_numbers(start: &Start) -> Result<(), StartError> {
    let refuse = |what: String, why: &str| Err(StartError::Usage { what, why: format!("it must be {why}") });
    match (start.program.umask, start.program.nice, start.policy.stop_signal) {
        (Some(mask), ..) if mask > 0o777 => refuse(format!("umask {mask:o}"), "an octal number up to 777"),
        (_, Some(nice), _) if !(-20..=19).contains(&nice) => refuse(format!("nice {nice}"), "from -20 to 19"),
        (.., number) if !signal::exists(number) => {
            refuse(format!("stop signal {number}"), "the number of a signal")
        }
        _ => Ok(()),
    }
}

/// The monitors that a command line names, with what they are looked for and judged by.
pub(super) struct Wanted {
    pub(super) specs: Vec<Spec>,
    pub(super) options: Vec<RawOption>,
    search: SearchPath,
}

impl Wanted {
    pub(super) fn context<'a>(&'a self, executable: &'a Path, caller: &'a Path) -> CheckContext<'a> {
        CheckContext { executable, directory: caller, search: &self.search, max_level: log::max_level() }
    }
}

/// A group of which everything is known to be right but its monitors.
pub(super) struct Judged {
    pub(super) group: Verified,
    checking: Checking,
    wanted: Wanted,
    settings: Settings,
    /// The caller's directory.
    caller: PathBuf,
}

impl Judged {
    /// Whether the monitors are loaded by now.
    fn is_described(&mut self) -> Result<bool, CheckError> {
        self.checking.is_described(&self.group.executable)
    }

    /// Waits until the monitors are loaded. With its monitors the group is complete, but they have not said yet whether
    /// they want their options.
    pub(super) fn complete(self) -> Result<(Verified, Judging), StartError> {
        let Self { mut group, checking, wanted, settings, caller } = self;
        let judging =
            checking.judge(&wanted.options, &settings, &wanted.context(&group.executable, &caller))?;
        group.launch.monitors = judging.monitors().to_vec();
        Ok((group, judging))
    }
}

/// A group of which everything is known to be right. Dropping this leaves nothing of it.
pub(super) struct Ready {
    pub(super) group: Verified,
    pub(super) first: Early,
    /// What could be made for it without harm before this was known.
    pub(super) begun: Option<Begun>,
    pub(super) helpers: Leftovers,
}
