//! The options of the monitor, and what can be said of them before anything is started.

use crate::{log_file, pid_file};
use immortal_monitor_api::{Error, OptionSpec, Options, Result};
use std::io;
use std::path::{Path, PathBuf};

pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec::path("output", "log file to append to; null for none, as by default in development")
        .nullable(),
    OptionSpec::path("pid_file", "JSON file with the group's pids, kept up to date").nullable(),
    OptionSpec::boolean("events", "note events of the group in the log file").default("true"),
];

/// The options, read.
#[derive(Debug)]
pub(crate) struct Config {
    /// `None`: nothing is logged.
    pub(crate) output: Option<PathBuf>,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) events: bool,
}

impl Config {
    /// Reads the options. `output` may be left out in development alone; there it is null.
    pub(crate) fn read(options: &Options) -> Result<Self> {
        let may_be_absent = options.host().strategy() == "development" || options.is_null("output")?;
        let output = if may_be_absent { options.opt_path("output")? } else { Some(options.path("output")?) };
        Ok(Self {
            output: output.map(Path::to_owned),
            pid_file: options.opt_path("pid_file")?.map(Path::to_owned),
            events: options.boolean("events")?,
        })
    }

    /// Tries what the monitor will do, and leaves nothing behind.
    pub(crate) fn check(&self) -> Result {
        if let Some(path) = &self.output {
            directory_exists("output", path)?;
            log_file::try_open(path).map_err(|error| refused("output", path, &error.to_string()))?;
        }
        if let Some(path) = &self.pid_file {
            directory_exists("pid_file", path)?;
            if self.output.as_ref() == Some(path) {
                return Err(refused("pid_file", path, "the same file as output"));
            }
            if path.is_dir() {
                return Err(refused("pid_file", path, "a directory"));
            }
            pid_file::try_write(path).map_err(|error| refused("pid_file", path, &error.to_string()))?;
        }
        Ok(())
    }
}

fn directory_exists(key: &str, path: &Path) -> Result {
    let directory = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        // The root itself; opening it says what is wrong.
        None => return Ok(()),
    };
    match directory.metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(refused(key, path, &format!("{} is not a directory", directory.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let why = format!("its directory does not exist\nhint: mkdir -p {}", directory.display());
            Err(refused(key, path, &why))
        }
        Err(error) => Err(refused(key, path, &format!("{}: {error}", directory.display()))),
    }
}

fn refused(key: &str, path: &Path, why: &str) -> Error {
    format!("option {key}={}: {why}", path.display()).into()
}
