//! `reload`: what the group would be started with today, checked as `start` checks it, and handed to the group.

use super::args::{Cli, Command, ReloadArgs, StartArgs};
use super::report::Failure;
use crate::groups::{self, GroupError};
use crate::reload::{Executable, Setup};
use clap::Parser;

/// Reloads a group; returns what to say of it when the new monitors are at work.
pub(super) fn reload(args: ReloadArgs) -> Result<String, Failure> {
    let name = args.name.clone();
    groups::may_reload(&name)?;
    let present = present(&args, &groups::arguments(&name)?)?;
    let start = args.applied_to(present)?;
    let checked = start.check_monitors();
    let (monitors, policy) = checked.map_err(|error| Failure::from(error).of_a_command())?;
    let executable = Executable::own().map_err(|source| GroupError::System { name: name.clone(), source })?;
    groups::reload(&name, &Setup { executable, monitors }, &policy)?;
    Ok(format!("reloaded {name}"))
}

/// The start that makes the group as it is.
fn present(args: &ReloadArgs, arguments: &[String]) -> Result<StartArgs, Failure> {
    let words = std::iter::once("immortal").chain(arguments.iter().map(String::as_str));
    match Cli::try_parse_from(words) {
        Ok(Cli { command: Command::Start(start), .. }) if args.replaces_all() || start.0.is_exact() => {
            Ok(*start.0)
        }
        Ok(_) | Err(_) => Err(Failure::new(
            1,
            format!(
                "group {}: its monitors or their options are no text that can be given once more",
                args.name
            ),
            Some(format!("name them all: immortal reload {} --monitor … --option …", args.name)),
        )),
    }
}
