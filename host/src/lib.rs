//! Keeps a program alive and gives its output and its life events to monitors in shared libraries.
//!
//! [`Start`] starts a group: the program with a pump, which loads the monitors, and in strategy `daemon` a
//! daemon that keeps the pump alive. The command `immortal` does the same from a shell; pump and daemon are that
//! executable, started again.

mod attached;
mod backoff;
#[doc(hidden)]
pub mod bench;
mod cli;
mod conformance;
mod control;
mod crash;
mod daemon;
mod delivery;
mod ending;
mod facts;
mod frames;
mod groups;
mod launch;
mod lifecycle;
pub mod loader;
mod logging;
mod notify;
pub mod options;
mod orphan;
mod places;
mod privileges;
mod program;
mod pump;
mod recent;
mod reload;
mod role;
mod signal;
mod sink;
mod spool;
mod start;
mod state;
mod strings;
mod sys;

use cli::lookahead;
use loader::helper;
use role::{Begun, Role, RoleError};
use std::io::Write;
use sys::exit_status::{FAILED, PANICKED};

pub use attached::Attached;
pub use launch::{OnCrash, Restart, Strategy};
pub use places::PlaceError;
pub use privileges::PrivilegeError;
pub use program::ProgramError;
pub use start::{GroupPids, Start, StartError, Started};

/// [`main`] for a program that the C library has just started, without Rust's runtime: of what that would have
/// set up, only what a command needs.
#[must_use]
pub fn main_of_c() -> u8 {
    sys::entry::prepare();
    // A panic has said what it had to say.
    let status = std::panic::catch_unwind(main).unwrap_or(PANICKED);
    sys::entry::flush_stdout();
    status
}

/// The whole command `immortal`: a role if it was started as one, else what the command line says. Returns the
/// exit status.
#[must_use]
pub fn main() -> u8 {
    let hidden = std::env::args_os().nth(1);
    match hidden.as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("pump") => pump(),
        Some("daemon") => daemon(),
        other => no_role(other),
    }
}

/// Lives as the pump that this process was executed, or copied, to be.
fn pump() -> u8 {
    live_as_pump(role::begin(Role::Pump))
}

fn live_as_pump(begun: Result<Begun, RoleError>) -> u8 {
    end(begun.and_then(pump::run).map(|never| match never {}))
}

/// The same for the daemon.
fn daemon() -> u8 {
    live_as_daemon(role::begin(Role::Daemon))
}

fn live_as_daemon(begun: Result<Begun, RoleError>) -> u8 {
    end(begun.and_then(|begun| daemon::run(begun, pump)))
}

fn end(result: Result<u8, RoleError>) -> u8 {
    match result {
        Ok(status) => status,
        Err(error) => role_failed(&error),
    }
}

/// Kept apart, so that what these need of the stack is not in use while a role sleeps.
#[inline(never)]
fn no_role(argument: Option<&str>) -> u8 {
    match argument {
        Some(helper::ARGUMENT) => helper::run(),
        Some(conformance::ARGUMENT) => conformance::run_child(),
        Some(_) | None => command(argument),
    }
}

/// Runs a command. For one that starts a group, the helper that checks the first monitor and the first role get ready
/// meanwhile: in this order, for it is the helper that the command waits for first.
// What the copies find of the stack in use is theirs for life: it has to be little.
#[inline(never)]
fn command(argument: Option<&str>) -> u8 {
    helper::allow_copies();
    if matches!(argument, Some("start" | "check")) {
        // What is logged while it is loaded may be wanted then.
        let is_logged = std::env::var_os("RUST_LOG").is_some();
        helper::keep_one_in_reserve(lookahead::monitor(std::env::args_os()).filter(|_| !is_logged));
    }
    if argument == Some("start") {
        match lookahead::strategy(std::env::args_os()) {
            Strategy::Daemon => role::keep_one_in_reserve(Role::Daemon, live_as_daemon),
            Strategy::Unattached => role::keep_one_in_reserve(Role::Pump, live_as_pump),
            // Its pump is executed as a child of the command, which lives on.
            Strategy::Development => {}
        }
    }
    let status = cli::run();
    role::dismiss_reserve();
    helper::dismiss_reserve();
    status
}

/// A role's stderr is where its parent or the next monitor reads, if there is one still.
#[inline(never)]
fn role_failed(error: &role::RoleError) -> u8 {
    drop(writeln!(std::io::stderr(), "error: {}", loader::chain(error)));
    FAILED
}
