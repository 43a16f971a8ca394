//! What the command and the process of one test say to each other, in the form of the loader's helper.

use serde::{Deserialize, Serialize};

use super::bench::Speed;
use crate::options::OptionValue;

/// What to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    /// Name in the catalogue; empty: measure.
    pub(super) test: String,
    /// Absolute path of the library, as bytes.
    pub(super) path: Vec<u8>,
    pub(super) label: String,
    pub(super) options: Vec<OptionValue>,
    pub(super) seed: u64,
    pub(super) limit_ms: u64,
    /// What is logged, as `log::LevelFilter` in numbers.
    pub(super) max_level: usize,
}

/// What is going on.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Note {
    /// The process runs: what happens from here on is the library's doing.
    Begun,
    /// What is called now.
    Step(String),
    /// A record for the command's log.
    Log { level: usize, target: String, text: String },
    /// One measurement.
    Speed(Speed),
    /// The test is over.
    Verdict(Finding),
}

/// What came of a test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Finding {
    /// All is well; with a remark, or an empty one.
    Pass(String),
    /// It works, and yet.
    Warn(String),
    /// Something that must hold does not.
    Fail(String),
    /// The test had no sense, or no way to look.
    Skip(String),
}

impl Finding {
    /// `pass`, `warn`, `fail`, `skip`.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Pass(_) => "pass",
            Self::Warn(_) => "warn",
            Self::Fail(_) => "fail",
            Self::Skip(_) => "skip",
        }
    }

    /// The reason or remark; may be empty.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Pass(text) | Self::Warn(text) | Self::Fail(text) | Self::Skip(text) => text,
        }
    }

    /// A pass that needs no remark.
    pub(super) fn pass() -> Self {
        Self::Pass(String::new())
    }

    /// Nothing worth a word, else a failure with these words.
    pub(super) fn of_faults(faults: &[String]) -> Self {
        const SHOWN: usize = 3;
        if faults.is_empty() {
            return Self::pass();
        }
        let more =
            if faults.len() > SHOWN { format!("; and {} more", faults.len() - SHOWN) } else { String::new() };
        Self::Fail(faults.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ") + &more)
    }
}
