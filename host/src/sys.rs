//! The only place that talks to the operating system: descriptors, processes, signals, clocks, sockets.
//!
//! What is Linux-only sits beside a portable path for macOS; the feature `portable` compiles that path on Linux
//! too. Nothing here knows what a group is; of the rest of the program it knows the types in which `launch` says who and
//! with which limits a program is to be.

#[cfg(all(test, linux_path))]
pub(crate) mod alone;
pub(crate) mod arguments;
pub(crate) mod arrivals;
pub(crate) mod birth;
pub(crate) mod clock;
pub(crate) mod copy;
pub(crate) mod entry;
pub(crate) mod environment;
pub(crate) mod exit_status;
pub(crate) mod family;
pub(crate) mod fd;
pub(crate) mod file_watch;
pub(crate) mod guard;
pub(crate) mod holdings;
pub(crate) mod limits;
pub(crate) mod memory;
pub(crate) mod page;
pub(crate) mod poll;
pub(crate) mod schedule;
pub(crate) mod signals;
pub(crate) mod socket;
pub(crate) mod spawn;
pub(crate) mod usage;
pub(crate) mod user;
pub(crate) mod wake;
