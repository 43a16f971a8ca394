//! The command line: what was typed, and what comes of it.

mod args;
mod later;
mod logs;
pub(crate) mod lookahead;
mod monitor;
mod names;
mod reload;
mod report;
mod unit;

use crate::start::{Start, StartError, Started};
use crate::sys::signals;
use crate::{attached, groups, notify};
use args::{Cli, Command, StartArgs};
use clap::CommandFactory;
use clap_complete::CompleteEnv;
use clap_complete::env::Shells;
use report::Failure;
use serde_json::Value;

/// The variable by which a shell's completion script asks.
const COMPLETE: &str = "IMMORTAL_COMPLETE";

/// Runs one command.
#[inline(never)]
pub(crate) fn run() -> u8 {
    if std::env::var_os(COMPLETE).is_some() {
        CompleteEnv::with_factory(Cli::command).var(COMPLETE).complete();
    }
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(error) => return monitor::with_help(report::usage(&error), &error),
    };
    crate::logging::start(cli.log_level() as u8);
    match obey(cli.command) {
        Ok(status) => status,
        Err(failure) => failure.report(),
    }
}

fn obey(command: Command) -> Result<u8, Failure> {
    match command {
        Command::Start(args) => start(*args.0),
        Command::Check(args) => {
            args.0.into_start()?.0.check()?;
            Ok(0)
        }
        Command::List { json } => {
            let groups: Vec<Value> = groups::all()?.iter().map(groups::Group::json).collect();
            if json {
                report::json(&Value::Array(groups))?
            } else {
                report::table(&groups)?
            }
            Ok(0)
        }
        Command::Status { name, json } => {
            let status = groups::find(&name)?.full_json();
            if json {
                report::json(&status)?
            } else {
                report::status(&status)?
            }
            Ok(0)
        }
        Command::Stop { names, all } => {
            let names = if all {
                groups::all()?.iter().map(|group| group.name().to_owned()).collect()
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
        Command::Reload(args) => {
            report::line(&reload::reload(*args.0)?)?;
            Ok(0)
        }
        Command::Signal { name, signal } => {
            groups::signal(&name, signal)?;
            Ok(0)
        }
        Command::Unit { name, launchd, compose, .. } => {
            let manager = match (launchd, compose) {
                (true, _) => unit::Manager::Launchd,
                (false, true) => unit::Manager::Compose,
                (false, false) => unit::Manager::Systemd,
            };
            let executable = std::env::current_exe()?.to_string_lossy().into_owned();
            let arguments = groups::arguments(&name)?;
            if let Some(what) = unit::refusal(manager, &arguments) {
                let text = format!("group {name}: its arguments or its environment have {what}");
                return Err(Failure::new(1, text, None));
            }
            let text = unit::write(manager, &name, &executable, &arguments);
            report::bytes(text.as_bytes())?;
            Ok(0)
        }
        Command::Completions { shell } => {
            completions(&shell)?;
            Ok(0)
        }
        Command::Monitor(command) => monitor::obey(command),
        Command::Man => {
            manual()?;
            Ok(0)
        }
        Command::Logs { name, lines, follow } => {
            logs::show(&name, lines, follow)?;
            Ok(0)
        }
    }
}

/// Prints the script by which a shell asks this executable for what may come next.
fn completions(shell: &str) -> std::io::Result<()> {
    let shells = Shells::builtins();
    let completer = shells.completer(shell).ok_or(std::io::ErrorKind::NotFound)?;
    let mut script = Vec::new();
    completer.write_registration(COMPLETE, "immortal", "immortal", "immortal", &mut script)?;
    report::bytes(&script)
}

/// One command of the manual page, as subsections of one section.
fn manual_section(command: &clap::Command, title: &str, page: &mut Vec<u8>) -> std::io::Result<()> {
    let section = clap_mangen::Man::new(command.clone().bin_name(title));
    let mut text = Vec::new();
    section.render_synopsis_section(&mut text)?;
    section.render_description_section(&mut text)?;
    section.render_options_section(&mut text)?;
    let text = String::from_utf8_lossy(&text).replace(".SH ", ".SS ");
    let name = title.trim_start_matches("immortal ").to_uppercase();
    page.extend_from_slice(format!(".SH COMMAND {name}\n{text}").as_bytes());
    Ok(())
}

/// Prints the manual page: the command, then each of its subcommands with its options.
fn manual() -> std::io::Result<()> {
    let mut page = Vec::new();
    let command = Cli::command();
    let main = clap_mangen::Man::new(command.clone());
    main.render_title(&mut page)?;
    main.render_name_section(&mut page)?;
    main.render_synopsis_section(&mut page)?;
    main.render_description_section(&mut page)?;
    main.render_options_section(&mut page)?;
    for subcommand in command.get_subcommands() {
        let name = subcommand.get_name().to_owned();
        let title = format!("immortal {name}");
        manual_section(subcommand, &title, &mut page)?;
        for inner in subcommand.get_subcommands() {
            manual_section(inner, &format!("{title} {}", inner.get_name()), &mut page)?;
        }
    }
    report::bytes(&page)
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
    let main_pid = started.pids.daemon.unwrap_or(started.pids.monitor);
    notify::tell_manager(&format!("MAINPID={main_pid}\nREADY=1\nSTATUS=process {}", started.pids.process));
    let told = if json { report::json(&report::started_json(&started)) } else { report::started(&started) };
    if let Err(error) = told {
        // The group is there all the same.
        Failure::from(error).report();
    }
    Ok(0)
}

/// Development: this process stays until the group has ended.
fn run_attached(start: Start) -> Result<u8, Failure> {
    let system = |what| move |source| StartError::System { what, source };
    let stop = start.stop_policy();
    signals::restore_defaults().map_err(system("restore signals"))?;
    crate::sys::family::become_subreaper().map_err(system("become a subreaper"))?;
    let (Started { attached, pids, .. }, signals) = start.start_watching()?;
    notify::tell_manager(&format!("READY=1\nSTATUS=process {}", pids.process));
    let Some(attached) = attached else { return Ok(0) };
    let mut ended = attached.wait_with(Some(signals)).map_err(system("wait for the group"))?;
    attached::sweep(&mut ended, stop.0, stop.1);
    match ended.failure {
        Some(text) => Err(Failure::new(ended.status, text, None)),
        None => Ok(ended.status),
    }
}
