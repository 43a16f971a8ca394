//! `start --help` with the options of the monitors that the command line names.

use super::{Search, Which, failure, option_lines};
use crate::cli::args::Cli;
use crate::cli::report::{self, Failure};
use crate::loader;
use crate::role::own_executable;
use clap::CommandFactory;
use clap::error::ErrorKind;
use std::ffi::OsString;
use std::path::PathBuf;

/// Adds to the help of `start` and `check`, once it is shown, what each `-m` before it can be told. A monitor
/// that cannot be loaded is an error, as it would be for the start. Every other help stays as it is.
pub(in crate::cli) fn with_help(shown: u8, error: &clap::Error) -> u8 {
    if error.kind() != ErrorKind::DisplayHelp {
        return shown;
    }
    match add(std::env::args_os().collect()) {
        Ok(()) => shown,
        Err(failure) => failure.report(),
    }
}

fn add(arguments: Vec<OsString>) -> Result<(), Failure> {
    let Some((monitors, monitor_path)) = named(arguments) else { return Ok(()) };
    for monitor in monitors {
        let search = Search { monitor_path: monitor_path.clone() };
        let (label, path) = Which { monitor, search }.resolve()?;
        let (description, _) = loader::describe(&own_executable(), &label, &path).map_err(failure)?;
        let lines = option_lines(&description);
        let mut text = format!("\nOptions of monitor {label} ({} {})", description.name, description.version);
        match (&description.options, lines.is_empty()) {
            (None, _) => {
                text.push_str(&format!(": none declared; -o {label}.KEY=VALUE reaches it all the same\n"))
            }
            (Some(_), true) => text.push_str(": none\n"),
            (Some(_), false) => {
                text.push_str(", each given as -o KEY=VALUE:\n");
                lines.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
            }
        }
        report::bytes(text.as_bytes())?;
    }
    Ok(())
}

/// The monitors and the search path of a command line that is complete but for FILE and asks for help.
fn named(arguments: Vec<OsString>) -> Option<(Vec<OsString>, Vec<PathBuf>)> {
    let asked = |argument: &OsString| argument != "-h" && argument != "--help";
    let arguments = arguments.into_iter().filter(asked);
    let matches = Cli::command().ignore_errors(true).try_get_matches_from(arguments).ok()?;
    let (command, matches) = matches.subcommand()?;
    if !matches!(command, "start" | "check") {
        return None;
    }
    let monitors = matches.get_many::<OsString>("monitor")?.cloned().collect();
    let directories = matches.get_many::<PathBuf>("monitor_path").into_iter().flatten().cloned().collect();
    Some((monitors, directories))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monitors_are_found_around_the_question_for_help() {
        let named = |line: &str| named(line.split(' ').map(OsString::from).collect());
        for line in [
            "immortal start -m foo -m ./b.so --monitor-path d --help",
            "immortal start --help -m foo --monitor ./b.so --monitor-path d",
            "immortal check -n x -m foo -h -m ./b.so --monitor-path=d",
        ] {
            let (monitors, directories) = named(line).unwrap();
            assert_eq!(monitors, ["foo", "./b.so"].map(OsString::from), "{line}");
            assert_eq!(directories, [PathBuf::from("d")], "{line}");
        }
        assert!(named("immortal start --help").is_none());
        assert!(named("immortal --help").is_none());
        assert!(named("immortal list --help").is_none());
    }
}
