//! From what the user typed to monitors that may be loaded, and from those to libraries.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use log::LevelFilter;
use serde::{Deserialize, Serialize};

use super::header::{self, Native};
use super::helper::{Failure, Helper, exchange, hear, keep_reserve_for};
use super::table::{Library, Trust, open};
use super::{Description, Door, Identity, LoadError, ResolveError, SearchPath, Settings, Spec, file};
use crate::options::{self, OptionError, OptionValue, RawOption, Target};

/// What a check goes by, besides the monitors and their options.
#[derive(Debug, Clone, Copy)]
pub struct CheckContext<'a> {
    /// The executable of immortal, which is started again as the helper.
    pub executable: &'a Path,
    /// The caller's directory, absolute.
    pub directory: &'a Path,
    /// Where names are looked for.
    pub search: &'a SearchPath,
    /// Records above this are not wanted of them.
    pub max_level: LevelFilter,
}

/// A monitor that has passed, as it is handed to the pump. Serializes with every path and value as bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Its label.
    pub label: String,
    /// Canonical path of its library.
    #[serde(with = "path_bytes")]
    pub path: PathBuf,
    /// The file that was checked.
    pub identity: Identity,
    /// What it calls itself.
    pub name: String,
    /// Its version.
    pub version: String,
    /// How it came to be trusted.
    pub door: Door,
    /// Its options, routed and resolved.
    pub options: Vec<OptionValue>,
}

/// Why the monitors of a start cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// There is no library.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// An option is wrong or goes nowhere.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// A library cannot be used.
    #[error("monitor {label}: {} cannot be loaded", path.display())]
    Load {
        /// Label of the monitor.
        label: String,
        /// Its library.
        path: PathBuf,
        /// Why.
        source: LoadError,
    },
    /// A monitor refuses its options.
    #[error("{text}")]
    Refused {
        /// Label of the monitor.
        label: String,
        /// The whole line, which names the monitor and its `check`.
        text: String,
        /// What it advises.
        hint: Option<String>,
    },
    /// The helper process could not be used.
    #[error("unable to check monitor {label} with {}", executable.display())]
    Helper {
        /// Label of the monitor.
        label: String,
        /// The executable.
        executable: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl CheckError {
    /// Tells a wrong command line (exit status 2) from a refusal (125).
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Resolve(error) => error.is_usage(),
            Self::Option(error) => error.is_usage(),
            Self::Load { .. } | Self::Refused { .. } | Self::Helper { .. } => false,
        }
    }

    /// What to do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Resolve(error) => error.hint(),
            Self::Option(error) => error.hint(),
            Self::Load { source, .. } => source.hint(),
            Self::Refused { hint, .. } => hint.clone(),
            Self::Helper { .. } => None,
        }
    }
}

/// Finds all monitors, loads each in a helper process, gives them their options and what else they can read, and lets
/// them judge these. The helpers run side by side; nothing of them is left.
///
/// # Errors
/// The first thing that is wrong.
pub fn check_all(
    specs: &[Spec],
    raw: &[RawOption],
    settings: &Settings,
    context: &CheckContext<'_>,
) -> Result<Vec<Checked>, CheckError> {
    let judging = Checking::begin(specs, context)?.judge(raw, settings, context)?;
    judging.finish(context.executable).map(|(checked, _)| checked)
}

/// The monitors of a start, each being loaded in a helper process. Dropping this kills them.
#[derive(Debug)]
pub(crate) struct Checking {
    paths: Vec<(String, PathBuf)>,
    helpers: Vec<Helper>,
}

/// The same when their helpers have loaded them and let them judge their options.
#[derive(Debug)]
pub(crate) struct Judging {
    monitors: Vec<Checked>,
    helpers: Vec<Helper>,
}

impl Checking {
    /// Finds the monitors and starts the helpers.
    pub(crate) fn begin(specs: &[Spec], context: &CheckContext<'_>) -> Result<Self, CheckError> {
        options::unique_labels(specs.iter().map(|spec| spec.label.as_str()))?;
        let resolve =
            |spec: &Spec| Ok((spec.label.clone(), spec.resolve(context.directory, context.search)?));
        let paths = specs.iter().map(resolve).collect::<Result<Vec<_>, CheckError>>()?;
        let is_loading = specs.first().is_some_and(|first| keep_reserve_for(&first.target, context.search));
        let mut checking = Self { paths, helpers: Vec::new() };
        let monitors = checking.monitors();
        // A helper judges the file as well before it loads it.
        if !is_loading || monitors.len() > 1 {
            judge_each(&monitors)?;
        }
        checking.helpers =
            start_each(context.executable, Some(context.directory), &monitors, context.max_level)?;
        Ok(checking)
    }

    /// Whether the helpers have described the libraries by now: does not wait.
    pub(crate) fn is_described(&mut self, executable: &Path) -> Result<bool, CheckError> {
        let heard = hear(&mut self.helpers);
        heard.map_err(|(at, failure)| {
            let (label, path) = &self.paths[at];
            failed(executable, (label, path), failure)
        })
    }

    /// Waits until the helpers have described the libraries, and gives them the options, which they begin to judge.
    pub(crate) fn judge(
        mut self,
        raw: &[RawOption],
        settings: &Settings,
        context: &CheckContext<'_>,
    ) -> Result<Judging, CheckError> {
        let mut helpers = std::mem::take(&mut self.helpers);
        let monitors = self.monitors();
        hear_each(context.executable, &monitors, &mut helpers)?;
        let described: Vec<(Description, Identity)> =
            helpers.iter().filter_map(|helper| helper.described().cloned()).collect();
        let targets: Vec<Target<'_>> = monitors
            .iter()
            .zip(&described)
            .map(|(&(label, _), (description, _))| Target { label, declared: description.options.as_deref() })
            .collect();
        let routed = options::route(raw, &targets, context.directory, &options::read_bounded)?;
        ask_each(context.executable, &monitors, &mut helpers, &routed, settings)?;
        let judged = monitors.iter().zip(described).zip(routed);
        let judged =
            judged.map(|((&(label, path), described), options)| record(label, path, described, options));
        Ok(Judging { monitors: judged.collect(), helpers })
    }

    fn monitors(&self) -> Vec<(&str, &Path)> {
        self.paths.iter().map(|(label, path)| (label.as_str(), path.as_path())).collect()
    }
}

impl Judging {
    /// What may be loaded if all pass.
    pub(crate) fn monitors(&self) -> &[Checked] {
        &self.monitors
    }

    /// Waits for all verdicts.
    pub(crate) fn finish(self, executable: &Path) -> Result<(Vec<Checked>, Leftovers), CheckError> {
        let Self { monitors, mut helpers } = self;
        let named: Vec<_> =
            monitors.iter().map(|monitor| (monitor.label.as_str(), monitor.path.as_path())).collect();
        hear_each(executable, &named, &mut helpers)?;
        helpers.iter().filter(|helper| !helper.is_clean()).for_each(Helper::kill);
        for Checked { label, path, name, version, door, .. } in &monitors {
            log::info!("monitor {label}: {name} {version} ({door:?}) from {}", path.display());
        }
        Ok((monitors, Leftovers { helpers }))
    }
}

/// Helpers whose monitors have passed. They are of no use any more; but to end takes them a processor for as long as
/// half a start, so those in which nothing is left live on. Dropping this ends them, and waits until all are gone.
#[derive(Debug)]
pub(crate) struct Leftovers {
    helpers: Vec<Helper>,
}

impl Leftovers {
    /// Gets readable when those are gone in which a monitor has left something, a lock or a port, which is free then.
    /// `None`: there are none.
    pub(crate) fn watch(&mut self) -> Option<OwnedFd> {
        let mut left = self.helpers.iter().filter(|helper| !helper.is_clean());
        if let (Some(helper), None) = (left.next(), left.next())
            && let Some(watch) = helper.watch()
        {
            return Some(watch);
        }
        self.wait();
        None
    }

    /// Waits until those are gone in which a monitor has left something.
    pub(crate) fn wait(&mut self) {
        self.helpers.retain(Helper::is_clean);
    }

    /// Whether some live on.
    pub(crate) fn are_there(&self) -> bool {
        !self.helpers.is_empty()
    }

    /// Ends all, and waits until they are gone.
    pub(crate) fn end(&mut self) {
        self.helpers.clear();
    }
}

/// Loads one library in a helper process and says what it is.
///
/// # Errors
/// [`CheckError::Load`], [`CheckError::Helper`].
pub fn describe(executable: &Path, label: &str, path: &Path) -> Result<(Description, Identity), CheckError> {
    let helpers = describe_each(executable, None, &[(label, path)], log::max_level())?;
    Ok(helpers[0].described().cloned().expect("an exchange without failure has described it"))
}

/// Opens the library of a monitor that has passed. If its file is still the one that was checked, that alone is
/// compared; if it has changed since, as after an upgrade, the helper checks the new one with the same options.
///
/// # Errors
/// As [`check_all`]; without a change, [`CheckError::Load`].
pub fn load_trusted(
    checked: &Checked,
    executable: &Path,
    settings: &Settings,
    max_level: LevelFilter,
) -> Result<Library, CheckError> {
    let (label, path) = (checked.label.as_str(), checked.path.as_path());
    let is_unchanged = Identity::of(path).is_ok_and(|now| now == checked.identity);
    let door = if is_unchanged {
        checked.door
    } else {
        log::info!("monitor {label}: {} has changed and is checked anew", path.display());
        let mut helpers = describe_each(executable, None, &[(label, path)], max_level)?;
        let options = std::slice::from_ref(&checked.options);
        ask_each(executable, &[(label, path)], &mut helpers, options, settings)?;
        hear_each(executable, &[(label, path)], &mut helpers)?;
        helpers[0].described().map_or(checked.door, |(description, _)| description.door)
    };
    open(path, Trust::Checked(door)).map_err(|error| cannot_load(label, path, error.into()))
}

fn record(
    label: &str,
    path: &Path,
    (description, identity): (Description, Identity),
    options: Vec<OptionValue>,
) -> Checked {
    let Description { name, version, door, .. } = description;
    Checked { label: label.to_owned(), path: path.to_owned(), identity, name, version, door, options }
}

/// Loads all of the monitors in helpers and hears what they are.
fn describe_each(
    executable: &Path,
    directory: Option<&Path>,
    monitors: &[(&str, &Path)],
    max_level: LevelFilter,
) -> Result<Vec<Helper>, CheckError> {
    judge_each(monitors)?;
    let mut helpers = start_each(executable, directory, monitors, max_level)?;
    hear_each(executable, monitors, &mut helpers)?;
    Ok(helpers)
}

/// Has all of the monitors loaded in helpers.
fn start_each(
    executable: &Path,
    directory: Option<&Path>,
    monitors: &[(&str, &Path)],
    max_level: LevelFilter,
) -> Result<Vec<Helper>, CheckError> {
    let start = |&monitor: &(&str, &Path)| {
        Helper::start(executable, directory, monitor, max_level)
            .map_err(|source| failed(executable, monitor, Failure::Helper { source }))
    };
    monitors.iter().map(start).collect()
}

/// Waits for the answers of all helpers.
fn hear_each(
    executable: &Path,
    monitors: &[(&str, &Path)],
    helpers: &mut [Helper],
) -> Result<(), CheckError> {
    exchange(helpers).map_err(|(at, failure)| failed(executable, monitors[at], failure))
}

/// Gives the options to all of the helpers, each of which has its monitor judge them.
fn ask_each(
    executable: &Path,
    monitors: &[(&str, &Path)],
    helpers: &mut [Helper],
    options: &[Vec<OptionValue>],
    settings: &Settings,
) -> Result<(), CheckError> {
    for ((helper, options), &monitor) in helpers.iter_mut().zip(options).zip(monitors) {
        helper
            .check(options, settings)
            .map_err(|source| failed(executable, monitor, Failure::Helper { source }))?;
    }
    Ok(())
}

/// Judges every file here, where it costs microseconds, before a helper is started for one of them.
fn judge_each(monitors: &[(&str, &Path)]) -> Result<(), CheckError> {
    for &(label, path) in monitors {
        judge_file(path).map_err(|error| cannot_load(label, path, error))?;
    }
    Ok(())
}

fn judge_file(path: &Path) -> Result<(), LoadError> {
    let (file, _) = file::inspect(path)?;
    match Native::of_this_machine() {
        Some(native) => Ok(header::examine(&file, native)?),
        None => Ok(()),
    }
}

fn failed(executable: &Path, (label, path): (&str, &Path), failure: Failure) -> CheckError {
    match failure {
        Failure::Helper { source } => {
            CheckError::Helper { label: label.to_owned(), executable: executable.to_owned(), source }
        }
        Failure::Load { text, hint } => cannot_load(label, path, LoadError::Helper { text, hint }),
        Failure::Refused { text, hint } => CheckError::Refused { label: label.to_owned(), text, hint },
    }
}

fn cannot_load(label: &str, path: &Path, source: LoadError) -> CheckError {
    CheckError::Load { label: label.to_owned(), path: path.to_owned(), source }
}

/// A path as bytes: serde's own form refuses what is not UTF-8.
mod path_bytes {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        path.as_os_str().as_bytes().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        Ok(PathBuf::from(OsString::from_vec(Vec::deserialize(deserializer)?)))
    }
}
