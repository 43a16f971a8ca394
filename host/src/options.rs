//! Options of monitors: what `-o` says, what monitors declare, and which value goes to which monitor.
//!
//! Everything here is pure: reading the file of `KEY=@FILE` is a function that the caller passes in. Values are
//! bytes and are never shown, neither by `Debug` nor by an error: an option may be a secret.

mod parse;
mod route;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use parse::{RawOption, RawValue};
pub use route::{Target, read_bounded, route, unique_labels};

/// What kind of value a declared option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OptionType {
    /// Any text.
    String,
    /// A path; made absolute against the caller's directory before the monitor sees it.
    Path,
    /// A signed 64-bit integer.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// A number of bytes such as `10MiB`.
    Size,
    /// A span of time such as `500ms`.
    Duration,
    /// One of the listed choices.
    Choice,
    /// A kind that this version does not know; treated as text.
    Other(u32),
}

impl fmt::Display for OptionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::String => "string",
            Self::Path => "path",
            Self::Integer => "integer",
            Self::Boolean => "boolean",
            Self::Size => "size",
            Self::Duration => "duration",
            Self::Choice => "choice",
            Self::Other(_) => "text",
        })
    }
}

/// One option as a monitor declares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptionDecl {
    /// Its name, `[a-z][a-z0-9_]*`.
    pub name: String,
    /// One line of help.
    pub help: String,
    /// The default as the user would type it.
    pub default: Option<String>,
    /// The choices of [`OptionType::Choice`]; empty otherwise.
    pub choices: Vec<String>,
    /// What kind of value it takes.
    pub kind: OptionType,
    /// It must be given.
    pub required: bool,
    /// `KEY:=null` is accepted and means "none".
    pub nullable: bool,
    /// The value is a secret.
    pub secret: bool,
}

/// What the bytes of an [`OptionValue`] hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ValueKind {
    /// Text as typed.
    Text,
    /// One JSON value.
    Json,
}

/// One option as a monitor gets it: files read, relative paths resolved.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptionValue {
    /// Name of the option.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
    /// What `value` holds.
    pub kind: ValueKind,
}

impl fmt::Debug for OptionValue {
    /// Shows the key and the kind, never the value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OptionValue")
            .field("key", &self.key)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// Why the options of a start cannot be given to its monitors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptionError {
    /// The argument of `-o` has no `=`, or nothing before it.
    #[error("option {text}: it is not KEY=VALUE")]
    NotKeyValue {
        /// What stands before the first `=`, or the whole argument if there is none.
        text: String,
    },
    /// The name of an option is not UTF-8.
    #[error("option `{key}`: its name is not UTF-8")]
    KeyNotUtf8 {
        /// The name, with what is not UTF-8 replaced.
        key: String,
    },
    /// Two monitors have the same label.
    #[error("label {label}: two monitors have it")]
    EqualLabels {
        /// The label.
        label: String,
    },
    /// The value of `KEY:=JSON` is not JSON.
    #[error("option `{key}` is not valid JSON")]
    BadJson {
        /// Name of the option.
        key: String,
        /// Where and why; serde_json names positions and never contents.
        source: serde_json::Error,
    },
    /// The file of `KEY=@FILE` cannot be read.
    #[error("option `{key}`: unable to read {}", path.display())]
    Unreadable {
        /// Name of the option.
        key: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// `LABEL.KEY` addresses a label that no monitor has.
    #[error("option `{label}.{key}`: no monitor has the label `{label}`")]
    NoSuchLabel {
        /// The label.
        label: String,
        /// Name of the option.
        key: String,
        /// The labels there are.
        labels: Vec<String>,
    },
    /// `LABEL.KEY` is not declared by that monitor.
    #[error("monitor {label}: it has no option `{key}`; it has {}", listed(declared))]
    NotDeclared {
        /// Label of the monitor.
        label: String,
        /// Name of the option.
        key: String,
        /// What it declares.
        declared: Vec<String>,
    },
    /// A plain key that no monitor declares.
    #[error("option {key}: no monitor has it; {}", per_monitor(declared))]
    NobodyDeclares {
        /// Name of the option.
        key: String,
        /// Each label with what it declares, `None` for a monitor that declares nothing at all.
        declared: Vec<(String, Option<Vec<String>>)>,
    },
}

impl OptionError {
    /// Tells a wrong command line (exit status 2) from options that are refused (125).
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::NotKeyValue { .. }
            | Self::KeyNotUtf8 { .. }
            | Self::EqualLabels { .. }
            | Self::BadJson { .. } => true,
            Self::Unreadable { .. }
            | Self::NoSuchLabel { .. }
            | Self::NotDeclared { .. }
            | Self::NobodyDeclares { .. } => false,
        }
    }

    /// What to do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotKeyValue { .. } => Some("write -o KEY=VALUE, -o KEY:=JSON or -o KEY=@FILE".into()),
            Self::EqualLabels { .. } => Some("give one of them another label: -m LABEL=NAME".into()),
            Self::BadJson { key, .. } => {
                Some(format!("text needs no quotes with a plain equals sign: -o {key}=TEXT"))
            }
            Self::NoSuchLabel { labels, .. } => Some(format!("the labels are {}", labels.join(", "))),
            Self::NobodyDeclares { key, declared } => {
                declared.iter().find(|(_, options)| options.is_none()).map(|(label, _)| {
                    format!("monitor {label} declares no options: address it with -o {label}.{key}=VALUE")
                })
            }
            Self::KeyNotUtf8 { .. } | Self::Unreadable { .. } | Self::NotDeclared { .. } => None,
        }
    }
}

fn listed(declared: &[String]) -> String {
    if declared.is_empty() { "none".into() } else { declared.join(", ") }
}

fn per_monitor(declared: &[(String, Option<Vec<String>>)]) -> String {
    let known: BTreeSet<String> = declared
        .iter()
        .map(|(label, options)| match options {
            Some(options) => format!("{label} has {}", listed(options)),
            None => format!("{label} declares none"),
        })
        .collect();
    if known.is_empty() {
        "there is no monitor".into()
    } else {
        known.into_iter().collect::<Vec<_>>().join("; ")
    }
}
