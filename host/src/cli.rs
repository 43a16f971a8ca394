//! The command line: what was typed, and what comes of it.

mod args;
mod logs;
mod report;

use crate::start::{Start, StartError, Started};
use crate::sys::signals::{self, Signals};
use crate::{attached, groups};
use args::{Cli, Command, StartArgs};
use clap::Parser;
use nix::sys::signal::Signal;
use report::Failure;
use serde_json::Value;
use std::process::ExitCode;

/// Runs one command.
pub(crate) fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return report::usage(&error),
    };
    crate::logging::start(cli.log_level() as u8);
    match obey(cli.command) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => failure.report(),
    }
}

fn obey(command: Command) -> Result<u8, Failure> {
    match command {
        Command::Start(args) => start(*args),
        Command::Check(args) => {
            args.into_start()?.0.check()?;
            Ok(0)
        }
        Command::List { json } => {
            let groups: Vec<Value> = groups::all()?.iter().map(groups::Group::json).collect();
            if json { report::json(&Value::Array(groups))? } else { report::table(&groups)? }
            Ok(0)
        }
        Command::Status { name, json } => {
            let status = groups::find(&name)?.full_json();
            if json { report::json(&status)? } else { report::status(&status)? }
            Ok(0)
        }
        Command::Stop { names, all } => {
            let names = if all {
                groups::all()?.iter().map(|group| report::text(&group.json()["name"])).collect()
            } else {
                names
            };
            on_each(names, |name| {
                let note = if groups::stop(name)? { ", it had to be killed" } else { "" };
                Ok(format!("stopped {name}{note}"))
            })
        }
        Command::Restart { names } => on_each(names, |name| {
            groups::restart(name)?;
            Ok(format!("restarted {name}"))
        }),
        Command::Signal { name, signal } => {
            groups::signal(&name, signal)?;
            Ok(0)
        }
        Command::Logs { name, lines, follow } => {
            logs::show(&name, lines, follow)?;
            Ok(0)
        }
    }
}

/// Does it to all of them at once, and reports every failure.
fn on_each(names: Vec<String>, f: fn(&str) -> Result<String, groups::GroupError>) -> Result<u8, Failure> {
    let workers: Vec<_> = names.into_iter().map(|name| std::thread::spawn(move || f(&name))).collect();
    let mut status = 0;
    for worker in workers {
        match worker.join().expect("a command on a group does not panic") {
            Ok(done) => report::line(&done)?,
            Err(error) => {
                status = 1;
                Failure::from(error).report();
            }
        }
    }
    Ok(status)
}

fn start(args: StartArgs) -> Result<u8, Failure> {
    let json = args.json;
    let (start, is_development) = args.into_start()?;
    if is_development {
        return run_attached(start);
    }
    let started = start.start()?;
    if json { report::json(&report::started_json(&started))? } else { report::started(&started)? }
    Ok(0)
}

/// Development: this process stays until the group has ended.
fn run_attached(start: Start) -> Result<u8, Failure> {
    let system = |what| move |source| StartError::System { what, source };
    let stop = start.stop_policy();
    signals::block_all().map_err(system("block signals"))?;
    let watched = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD];
    let signals = Signals::watch(&watched).map_err(system("watch signals"))?;
    crate::sys::family::become_subreaper().map_err(system("become a subreaper"))?;
    let Started { attached, .. } = start.start()?;
    let Some(attached) = attached else { return Ok(0) };
    let status = attached.wait_with(Some(signals)).map_err(system("wait for the group"))?;
    attached::sweep(stop.0, stop.1);
    Ok(status)
}
