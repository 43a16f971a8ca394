#![doc = include_str!("../README.md")]

pub mod abi;
#[doc(hidden)]
pub mod export;
pub mod fake;
mod hook;
mod host;
mod logger;
mod monitor;
mod options;
mod raw;
mod shim;
mod told;

pub use host::{Host, Pids};
pub use monitor::{Error, Monitor, Result};
pub use options::{OptionError, OptionSpec, Options, scalar};
pub use told::{Crash, Event, Exit, Output, Pending, Readiness, Role, Setup, Spawn, Stream, Why};
