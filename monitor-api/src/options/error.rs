//! What can be wrong with options.

/// Why options are refused. Its text is one line, in some cases followed by a line `hint: …`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionError {
    /// The monitor declares no option of this name.
    Unknown {
        /// The name as it was given.
        key: String,
        /// The names that the monitor declares.
        known: Vec<&'static str>,
    },
    /// The value does not fit the option's type.
    Invalid {
        /// `KEY=VALUE` or `KEY:=JSON` as it may be shown: shortened, and masked if it is a secret.
        given: String,
        /// What is wrong with it.
        why: String,
    },
    /// The option was not given, or is null, and the monitor cannot go on without.
    Missing {
        /// The option's name.
        key: &'static str,
        /// What to type for the value.
        placeholder: String,
    },
    /// The monitor asks for an option that it does not declare: a mistake in the monitor.
    Undeclared {
        /// The name that was asked for.
        key: String,
    },
}

impl core::fmt::Display for OptionError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Unknown { key, known } if known.is_empty() => {
                write!(f, "unknown option {}\nhint: this monitor takes no options", key.escape_debug())
            }
            Self::Unknown { key, known } => {
                write!(f, "unknown option {}\nhint: it takes {}", key.escape_debug(), known.join(", "))
            }
            Self::Invalid { given, why } => write!(f, "option {given}: {why}"),
            Self::Missing { key, placeholder } => {
                write!(f, "option {key} is required\nhint: -o {key}={placeholder}")
            }
            Self::Undeclared { key } => write!(f, "the monitor reads option {key} but does not declare it"),
        }
    }
}

impl core::error::Error for OptionError {}

/// Shows a value on one line and not without end.
pub(super) fn shown(value: &[u8]) -> String {
    const MAX_CHARS: usize = 60;
    let text = String::from_utf8_lossy(value);
    let mut shown: String = text.chars().take(MAX_CHARS).flat_map(one_line).collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

fn one_line(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control().then(|| c.escape_debug());
    let plain = (!c.is_control()).then_some(c);
    escaped.into_iter().flatten().chain(plain)
}
