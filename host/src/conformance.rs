//! Tests a monitor's library for what holds of every monitor, and measures it.
//!
//! Each test runs in a process of its own: this executable, started again under the hidden subcommand
//! [`ARGUMENT`], which loads the library and calls its hooks as the pump would. So a crash, an `exit`, a hang are
//! findings like any other, and no test sees what another has left behind. [`run`] goes through the catalogue and
//! makes verdicts; `child` is the other side; the tests themselves are in the files named after what they look
//! at: `declared` (table and options), `shapes` (the scripted lives), `orders` (every order, and random ones),
//! `chunking`, `borrowed` (what is lent for a call), `residue` (what is left behind), `timing`.
//!
//! What cannot be seen from outside is not tested: what a monitor writes, whether its files are whole after a
//! crash, whether it keeps its own promises.

mod bench;
mod borrowed;
mod catalogue;
mod child;
mod chunking;
mod declared;
mod life;
mod notes;
mod orders;
mod parent;
mod recorder;
mod residue;
mod shapes;
mod source;
mod timing;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use crate::loader::{Description, Settings};
use crate::options::OptionValue;

pub(crate) use bench::{Speed, measure};
pub(crate) use child::run as run_child;
pub(crate) use parent::run;
pub(crate) use wire::Finding;

/// The one argument of the process that runs a test.
pub(crate) const ARGUMENT: &str = "try-monitor";

/// What is tested, and how.
#[derive(Debug)]
pub(crate) struct Subject {
    /// The executable of immortal.
    pub(crate) executable: PathBuf,
    /// Label of the monitor.
    pub(crate) label: String,
    /// Canonical path of its library.
    pub(crate) path: PathBuf,
    /// What it says of itself.
    pub(crate) description: Description,
    /// Its options, routed and resolved.
    pub(crate) options: Vec<OptionValue>,
    /// What random sequences and chunks are made of.
    pub(crate) seed: u64,
    /// How long one test may take.
    pub(crate) limit: Duration,
}

/// One test with what came of it.
#[derive(Debug)]
pub(crate) struct Row {
    /// Name of the test.
    pub(crate) name: &'static str,
    /// What it is about, in a few words.
    pub(crate) about: &'static str,
    /// What came of it.
    pub(crate) finding: Finding,
    /// How long it took.
    pub(crate) took: Duration,
}

/// What a monitor under test can read.
fn settings() -> Settings {
    let single = [("name", "check"), ("strategy", "unattached"), ("file", "/bin/true"), ("cwd", "/")];
    let env = [&b"PATH=/usr/bin:/bin"[..], b"ODD=\xff\xfe"];
    Settings {
        single: single.map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec())).to_vec(),
        lists: vec![
            ("args".to_owned(), ["--flag", ""].into_iter().collect()),
            ("env".to_owned(), env.into_iter().collect()),
        ],
    }
}
