//! `monitor`: what an author and a user of monitors asks for.

mod bench;
mod check;
mod help;
mod info;
mod list;
mod new;

use super::names;
use super::report::Failure;
use crate::conformance::Subject;
use crate::loader::{self, CheckError, Description, SearchPath, Spec};
use crate::options::{self, OptionDecl, RawOption, Target};
use crate::role::own_executable;
use clap::{Args, Subcommand};
use clap_complete::ArgValueCandidates;
use immortal_monitor_api::scalar;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub(super) use help::with_help;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Lists every monitor that is found by name, in search order
    List {
        #[command(flatten)]
        search: Search,
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
    /// Shows what a monitor says of itself, and its options
    Info {
        #[command(flatten)]
        which: Which,
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
    /// Tests a monitor's library for what must hold of every monitor; exit status 1 if a test fails
    Check {
        #[command(flatten)]
        which: Which,
        /// Only the tests whose names hold one of these
        #[arg(value_name = "FILTER")]
        filters: Vec<String>,
        /// Monitor option, as for start; repeatable
        #[arg(short, long, value_name = "KEY=VALUE")]
        option: Vec<OsString>,
        /// Makes random sequences and chunks come again as they were
        #[arg(long, value_name = "N")]
        seed: Option<u64>,
        /// How long one test may take
        #[arg(long, value_name = "DUR", default_value = "5s", value_parser = scalar::duration)]
        time_limit: Duration,
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
    /// Measures how many bytes and calls a monitor takes per second
    Bench {
        #[command(flatten)]
        which: Which,
        /// Monitor option, as for start; repeatable
        #[arg(short, long, value_name = "KEY=VALUE")]
        option: Vec<OsString>,
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
    /// Makes a new monitor to start from
    New {
        /// Its name: small letters, digits, `_` and `-`
        name: String,
        /// Where it is made; new, or empty [default: ./NAME]
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
        /// What it is written in
        #[arg(long, value_enum, default_value = "rust")]
        lang: new::Lang,
        /// Source of immortal-monitor-api, for Rust
        #[arg(long, value_name = "PATH")]
        api: Option<PathBuf>,
    },
}

/// Where names are looked for.
#[derive(Debug, Args)]
pub(super) struct Search {
    /// Directory searched first for monitors; repeatable
    #[arg(long, value_name = "DIR")]
    monitor_path: Vec<PathBuf>,
}

/// One monitor.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Name of the monitor, or path of its library (with a `/`)
    #[arg(value_name = "NAME|PATH", add = ArgValueCandidates::new(names::monitors))]
    monitor: OsString,
    #[command(flatten)]
    search: Search,
}

pub(super) fn obey(command: Command) -> Result<u8, Failure> {
    match command {
        Command::List { search, json } => list::show(&search, json),
        Command::Info { which, json } => info::show(&which, json),
        Command::Check { which, filters, option, seed, time_limit: limit, json } => {
            let asked = check::Asked { options: &option, filters: &filters, seed, limit, json };
            check::run(&which, &asked)
        }
        Command::Bench { which, option, json } => bench::run(&which, &option, json),
        Command::New { name, directory, lang, api } => new::run(&name, lang, api.as_deref(), directory),
    }
}

impl Search {
    fn path(&self) -> Result<SearchPath, Failure> {
        Ok(SearchPath::from_environment(&self.monitor_path, &directory()?, &own_executable()))
    }
}

impl Which {
    /// Label and canonical path.
    fn resolve(&self) -> Result<(String, PathBuf), Failure> {
        let spec = Spec::parse(&self.monitor).map_err(failure)?;
        let path = spec.resolve(&directory()?, &self.search.path()?).map_err(failure)?;
        Ok((spec.label, path))
    }
}

/// The caller's directory.
fn directory() -> Result<PathBuf, Failure> {
    std::env::current_dir()
        .map_err(|error| Failure::new(1, format!("unable to read the current directory: {error}"), None))
}

/// Loads the library for a first look, and gives it its options. The inner error is the library's own.
fn gather(
    label: String,
    path: PathBuf,
    options: &[OsString],
    seed: u64,
    limit: Duration,
) -> Result<Result<Subject, CheckError>, Failure> {
    let raw = options.iter().map(|option| RawOption::parse(option)).collect::<Result<Vec<_>, _>>();
    let raw = raw.map_err(failure)?;
    let executable = own_executable();
    let description = match loader::describe(&executable, &label, &path) {
        Ok((description, _)) => description,
        Err(error) => return Ok(Err(error)),
    };
    let target = Target { label: &label, declared: description.options.as_deref() };
    let routed = options::route(&raw, &[target], &directory()?, &options::read_bounded).map_err(failure)?;
    let options = routed.into_iter().next().unwrap_or_default();
    Ok(Ok(Subject { executable, label, path, description, options, seed, limit }))
}

fn failure(error: impl Into<CheckError>) -> Failure {
    let error = error.into();
    Failure::new(if error.is_usage() { 2 } else { 1 }, loader::chain(&error), error.hint())
}

/// One declared option for programs.
fn option_json(option: &OptionDecl) -> Value {
    json!({
        "name": option.name,
        "type": option.kind.to_string(),
        "default": option.default,
        "choices": option.choices,
        "required": option.required,
        "nullable": option.nullable,
        "secret": option.secret,
        "help": option.help,
    })
}

/// The declared options for people, a line each, in columns: name, type, default or `required`, help.
fn option_lines(description: &Description) -> Vec<String> {
    let row = |option: &OptionDecl| {
        let mut kind = match option.choices.as_slice() {
            [] => option.kind.to_string(),
            choices => choices.join("|"),
        };
        if option.nullable {
            kind.push_str(" or null");
        }
        let default = match (&option.default, option.required) {
            (_, true) => "required".to_owned(),
            (Some(default), false) => format!("[{default}]"),
            (None, false) => "-".to_owned(),
        };
        let secret = if option.secret { " (secret)" } else { "" };
        [option.name.clone(), kind, default, format!("{}{secret}", option.help)]
    };
    columns(description.options.iter().flatten().map(row))
}

/// Rows with every column as wide as its widest cell.
fn columns<const N: usize>(rows: impl Iterator<Item = [String; N]>) -> Vec<String> {
    let rows: Vec<[String; N]> = rows.collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}
