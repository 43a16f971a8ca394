//! Options: how a monitor declares what it takes, and how it reads what it was given.
//!
//! One declaration ([`Monitor::OPTIONS`]) gives validation before anything starts, `immortal monitor info` and
//! shell completion. Validation runs in the monitor's own library, before its `check` and its `new`.
//!
//! [`Monitor::OPTIONS`]: crate::Monitor::OPTIONS

mod declared;
mod error;
mod given;
mod json;
pub mod scalar;

pub use error::OptionError;
pub use given::Options;

pub(crate) use declared::table;
pub(crate) use given::Given;

/// Declaration of one option. Made by one of the constructors, completed by the builders, all of them `const`:
///
/// ```
/// use immortal_monitor_api::OptionSpec;
/// const OPTIONS: &[OptionSpec] = &[
///     OptionSpec::path("output", "file to append to").required(),
///     OptionSpec::size("max_size", "rotate past this size").default("10MiB"),
///     OptionSpec::one_of("compress", "how to compress old files", &["none", "gzip"]).default("none"),
/// ];
/// ```
#[derive(Debug, Clone, Copy)]
pub struct OptionSpec {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) kind: Kind,
    pub(crate) default: Option<&'static str>,
    pub(crate) required: bool,
    pub(crate) nullable: bool,
    pub(crate) secret: bool,
}

/// What the value of an option is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    String,
    Path,
    Integer,
    Boolean,
    Size,
    Duration,
    OneOf(&'static [&'static str]),
}

impl OptionSpec {
    const fn new(name: &'static str, help: &'static str, kind: Kind) -> Self {
        Self { name, help, kind, default: None, required: false, nullable: false, secret: false }
    }

    /// Declares a text. `name` is `[a-z][a-z0-9_]*` and `help` one line, as in all constructors.
    pub const fn string(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::String)
    }

    /// Declares a path; the host makes a relative one absolute against the caller's directory.
    pub const fn path(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Path)
    }

    /// Declares a signed 64-bit integer.
    pub const fn integer(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Integer)
    }

    /// Declares `true` or `false`.
    pub const fn boolean(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Boolean)
    }

    /// Declares a number of bytes such as `10MiB`; see [`scalar::size`] for the units.
    pub const fn size(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Size)
    }

    /// Declares a span of time such as `500ms`; see [`scalar::duration`] for the units.
    pub const fn duration(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Duration)
    }

    /// Declares one of the listed choices.
    pub const fn one_of(name: &'static str, help: &'static str, choices: &'static [&'static str]) -> Self {
        Self::new(name, help, Kind::OneOf(choices))
    }

    /// Gives the value, as a user would type it, that is taken when the option is not given.
    pub const fn default(mut self, value: &'static str) -> Self {
        self.default = Some(value);
        self
    }

    /// Refuses a start that does not give the option.
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// Accepts `KEY:=null`, which means "none" even where there is a default.
    pub const fn nullable(mut self) -> Self {
        self.nullable = true;
        self
    }

    /// Keeps the value out of every message.
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// The option's name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What a user types as the value, for messages.
    pub(crate) fn placeholder(&self) -> String {
        match self.kind {
            Kind::String => "TEXT".to_owned(),
            Kind::Path => "FILE".to_owned(),
            Kind::Integer => "N".to_owned(),
            Kind::Boolean => "true|false".to_owned(),
            Kind::Size => "SIZE".to_owned(),
            Kind::Duration => "DURATION".to_owned(),
            Kind::OneOf(choices) => choices.join("|"),
        }
    }

    /// Says why a value is none of this option's, if so.
    pub(crate) fn judge(&self, value: &[u8]) -> Result<(), String> {
        let text = || core::str::from_utf8(value).map_err(|_| "not valid UTF-8".to_owned());
        match self.kind {
            Kind::String => Ok(()),
            Kind::Path if value.is_empty() => Err("an empty path".to_owned()),
            Kind::Path if value.contains(&0) => Err("a path cannot hold a NUL byte".to_owned()),
            Kind::Path => Ok(()),
            Kind::Integer => scalar::integer(text()?).map(drop),
            Kind::Boolean => scalar::boolean(text()?).map(drop),
            Kind::Size => scalar::size(text()?).map(drop),
            Kind::Duration => scalar::duration(text()?).map(drop),
            Kind::OneOf(choices) if choices.iter().any(|choice| choice.as_bytes() == value) => Ok(()),
            Kind::OneOf(choices) => Err(format!("not one of {}", choices.join(", "))),
        }
    }
}
