//! Finds, judges, opens and calls monitors.
//!
//! In the order in which a library passes through: [`resolve`] makes a path of a name, [`mod@file`] refuses what
//! somebody else may have written, [`header`] refuses what is no library of this machine, [`table`] opens it and
//! reads its table, `layout` lets abi_stable walk the types of a Rust monitor, [`instance`] calls its hooks, and
//! [`host_table`] is what it may call. [`helper`] does the first opening in a process of its own, because a
//! library may crash, hang or exit while it is loaded; [`check`] puts these together.
//!
//! Never here: unloading. A library has threads, thread-locals and `atexit` functions that would be gone.

pub mod check;
pub mod dispositions;
pub mod file;
pub mod found;
pub mod header;
pub mod helper;
pub mod host_table;
pub mod instance;
mod last_crash;
mod layout;
pub mod resolve;
pub mod settings;
pub mod table;

use serde::{Deserialize, Serialize};

use crate::options::OptionDecl;

pub use check::{CheckContext, CheckError, Checked, check_all, describe, load_trusted};
pub(crate) use check::{Checking, Judging, Leftovers};
pub use dispositions::Dispositions;
pub use file::{FileError, Identity};
pub use header::HeaderError;
pub use host_table::{Host, Pids, Services, publish};
pub(crate) use host_table::{borrow, size_u32};
pub(crate) use instance::lend;
pub use instance::{
    Event, EventKind, HookError, Instance, Output, Readiness, SetupArgs, Stream, Why, check_options,
};
pub use last_crash::LastCrash;
pub use resolve::{ResolveError, SearchPath, Spec, Target};
pub use settings::{Settings, Strings};
pub use table::{Library, Trust, open};

/// How a library came to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Door {
    /// A Rust monitor whose layout was compared type by type.
    RustVerified,
    /// A Rust monitor with an abi_stable that this version cannot compare; its table alone was judged.
    RustUnverified,
    /// A monitor in C, or whatever speaks C: its table alone was judged.
    C,
}

impl std::fmt::Display for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::RustVerified => "Rust, layout verified",
            Self::RustUnverified => "Rust, layout not verified",
            Self::C => "C",
        })
    }
}

impl Door {
    /// The word for programs: `rust-verified`, `rust-unverified`, `c`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::RustVerified => "rust-verified",
            Self::RustUnverified => "rust-unverified",
            Self::C => "c",
        }
    }
}

/// What a library says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Its name; the file's where it says none.
    pub name: String,
    /// Its version; empty where it says none.
    pub version: String,
    /// One line about it; empty where it says none.
    pub about: String,
    /// The version of `immortal-monitor-api` it was built with; only a verified Rust monitor tells.
    pub api_version: Option<String>,
    /// How it came to be trusted.
    pub door: Door,
    /// The options it declares; `None` if it declares nothing at all.
    pub options: Option<Vec<OptionDecl>>,
}

/// Why a library cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file itself is refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its first bytes are not those of a shared library of this machine.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// It could not be opened, or its table is not one.
    #[error(transparent)]
    Table(#[from] table::TableError),
    /// It failed in the helper process; the text is the whole reason.
    #[error("{text}")]
    Helper {
        /// What is wrong.
        text: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

impl LoadError {
    /// What to do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::Header(_) => None,
            Self::Table(error) => error.hint(),
            Self::Helper { hint, .. } => hint.clone(),
        }
    }
}

/// Joins an error and all its sources with `: `, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let why = error.to_string();
        if !text.ends_with(&why) {
            text.push_str(": ");
            text.push_str(&why);
        }
        source = error.source();
    }
    one_line(&text)
}

/// Takes the place in the source out of the text of a panic: it tells a user nothing.
pub(crate) fn without_location(text: &str) -> String {
    let Some((before, at)) = text.split_once("panicked at ") else { return text.to_owned() };
    match at.split_once(": ") {
        Some((_, message)) => format!("{before}panicked: {message}"),
        None => text.to_owned(),
    }
}

/// Makes one line of a text: line ends become `; `, other control characters spaces.
pub(crate) fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ").replace(|c: char| c.is_control(), " ")
}
