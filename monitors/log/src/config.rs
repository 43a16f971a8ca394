//! The options of the monitor, and what can be said of them before anything is started.

use crate::archive::{self, Compression};
use crate::stamp::Format;
use crate::{log_file, pid_file};
use immortal_monitor_api::{Error, OptionSpec, Options, Result};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec::path("output", "log file to append to; null for none, as by default in development")
        .nullable(),
    OptionSpec::path("pid_file", "JSON file with the group's pids, kept up to date").nullable(),
    OptionSpec::one_of(
        "timestamps",
        "what to write before each line of output",
        &["none", "rfc3339", "tai64n"],
    )
    .default("none"),
    OptionSpec::size("max_size", "begin a new file rather than let this one grow past this size").nullable(),
    OptionSpec::duration("rotate_every", "begin a new file at each multiple of this span of local time")
        .nullable(),
    OptionSpec::integer("keep", "how many old files are kept; null for all").default("10").nullable(),
    OptionSpec::size("max_total", "remove the oldest files to keep all together within this size").nullable(),
    OptionSpec::one_of("compress", "how old files are compressed", &["none", "gzip", "zstd"]).default("none"),
    OptionSpec::boolean("events", "note events of the group in the log file").default("true"),
];

/// A file must be able to hold a stamp and something besides.
const LEAST_MAX_SIZE: u64 = 64;

/// The options, read.
#[derive(Debug)]
pub(crate) struct Config {
    /// `None`: nothing is logged.
    pub(crate) output: Option<PathBuf>,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) timestamps: Option<Format>,
    pub(crate) rotation: Option<Rotation>,
    pub(crate) events: bool,
}

/// When a new file is begun, and what becomes of the old ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rotation {
    pub(crate) max_bytes: Option<u64>,
    pub(crate) every: Option<Duration>,
    /// `None`: all.
    pub(crate) keep: Option<usize>,
    pub(crate) max_total_bytes: Option<u64>,
    pub(crate) compression: Compression,
}

impl Rotation {
    /// `None` if files are never rotated.
    fn read(options: &Options) -> Result<Option<Self>> {
        let rotation = Self {
            max_bytes: options.opt_size("max_size")?,
            every: options.opt_duration("rotate_every")?,
            keep: match options.opt_integer("keep")? {
                None => None,
                Some(count) => {
                    let count = usize::try_from(count);
                    Some(count.map_err(|_| "option keep: less than 0; null keeps all".to_owned())?)
                }
            },
            max_total_bytes: options.opt_size("max_total")?,
            compression: match options.choice("compress")? {
                "gzip" => Compression::Gzip,
                "zstd" => Compression::Zstd,
                _ => Compression::None,
            },
        };
        rotation.judge()?;
        Ok((rotation.max_bytes.is_some() || rotation.every.is_some()).then_some(rotation))
    }

    /// Refuses what would not do what was meant.
    fn judge(&self) -> Result {
        match (self.max_bytes, self.max_total_bytes) {
            (Some(max), _) if max < LEAST_MAX_SIZE => {
                return Err(format!("option max_size={max}: less than {LEAST_MAX_SIZE} bytes").into());
            }
            (None, Some(_)) => return Err("option max_total: needs max_size as well".into()),
            (Some(max), Some(total)) if total / 2 < max => {
                return Err("option max_total: less than twice max_size".into());
            }
            (Some(_) | None, None) | (Some(_), Some(_)) => {}
        }
        if self.every.is_some_and(|every| every < Duration::from_secs(1)) {
            return Err("option rotate_every: less than a second".into());
        }
        if self.compression != Compression::None && self.max_bytes.is_none() && self.every.is_none() {
            return Err("option compress: nothing is rotated without max_size or rotate_every".into());
        }
        Ok(())
    }
}

impl Config {
    /// Reads the options. `output` may be left out in development alone; there it is null.
    pub(crate) fn read(options: &Options) -> Result<Self> {
        let may_be_absent = options.host().strategy() == "development" || options.is_null("output")?;
        let output = if may_be_absent { options.opt_path("output")? } else { Some(options.path("output")?) };
        Ok(Self {
            output: output.map(Path::to_owned),
            pid_file: options.opt_path("pid_file")?.map(Path::to_owned),
            timestamps: match options.choice("timestamps")? {
                "rfc3339" => Some(Format::Rfc3339),
                "tai64n" => Some(Format::Tai64n),
                _ => None,
            },
            rotation: Rotation::read(options)?,
            events: options.boolean("events")?,
        })
    }

    /// Tries what the monitor will do, and leaves nothing behind.
    pub(crate) fn check(&self) -> Result {
        if let Some(path) = &self.output {
            directory_exists("output", path)?;
            log_file::try_open(path).map_err(|error| refused("output", path, &error.to_string()))?;
            if self.rotation.is_some() {
                if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
                    return Err(refused("output", path, "cannot be rotated: not a regular file"));
                }
                archive::try_beside(path)
                    .map_err(|error| refused("output", path, &format!("cannot be rotated: {error}")))?;
            }
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
            let shown = directory.display().to_string();
            let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+,@%".contains(letter);
            let quoted = format!("'{}'", shown.replace('\'', r"'\''"));
            let typed = if shown.chars().all(is_plain) { shown } else { quoted };
            let why = format!("its directory does not exist\nhint: mkdir -p {typed}");
            Err(refused(key, path, &why))
        }
        Err(error) => Err(refused(key, path, &format!("{}: {error}", directory.display()))),
    }
}

fn refused(key: &str, path: &Path, why: &str) -> Error {
    format!("option {key}={}: {why}", path.display()).into()
}
