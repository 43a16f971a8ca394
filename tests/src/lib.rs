//! Drives the built `immortal` from outside and asserts what the contract promises. Nothing here links the host:
//! a test has the command line, files, signals and `/proc`, as a user has.
//!
//! A test makes a [`Sandbox`], starts groups in it through a [`Launch`], and waits with [`eventually`] for what it
//! expects; it never sleeps to synchronise. When the sandbox is dropped its groups end with it, and after a failed
//! assertion it first prints everything that happened in it.

mod artifacts;
mod c_library;
mod group;
mod http;
mod invocation;
mod kills;
mod launch;
mod ledger;
mod log_file;
mod other_layout;
mod process;
mod records;
mod sandbox;
mod terminal;
mod wait;

pub use artifacts::{Artifacts, artifacts};
pub use c_library::CLibrary;
pub use group::{Group, Pids, Role};
pub use http::get;
pub use invocation::{Invocation, Outcome, Running};
pub use kills::{Kills, Random};
pub use launch::Launch;
pub use ledger::Ledger;
pub use log_file::{Item, LogFile, start_events};
pub use nix::sys::signal::Signal;
pub use other_layout::other_layout;
pub use process::Process;
pub use records::{Record, records};
pub use sandbox::Sandbox;
pub use terminal::Terminal;
pub use wait::{DEADLINE, eventually, holds_for, pattern};
