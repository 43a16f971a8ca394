//! The options as given, validated against what is declared, and the typed accessors.

use super::error::{OptionError, shown};
use super::json::{self, Scalar};
use super::{Kind, OptionSpec, scalar};
use crate::abi::{self, Opt};
use crate::{Host, raw};
use core::time::Duration;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The options of one instance: what the user gave, completed by the defaults.
///
/// Every accessor comes in two forms. The plain one ([`integer`](Self::integer)) fails if there is no value:
/// neither given, nor a default, or `null`. The `opt_` one says `None` then. Both fail for an option that is not
/// declared in [`Monitor::OPTIONS`], which is a mistake in the monitor.
///
/// A text is understood by the type of the option. A JSON value may be a string that is then understood the same
/// way, or `true`, `false` or a number.
///
/// [`Monitor::OPTIONS`]: crate::Monitor::OPTIONS
pub struct Options {
    host: Host,
    specs: &'static [OptionSpec],
    /// One for each of `specs`.
    values: Vec<Value>,
}

/// What an option has come to.
#[derive(Clone)]
enum Value {
    /// Not given, and without a default.
    Absent,
    /// Given as `null`.
    Null,
    Bytes(Vec<u8>),
}

impl Value {
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Absent | Self::Null => None,
            Self::Bytes(bytes) => Some(bytes),
        }
    }
}

impl Options {
    /// Validates what was given against what is declared. Of two of the same name the last wins.
    pub(crate) fn new<'a>(
        host: Host,
        specs: &'static [OptionSpec],
        given: impl Iterator<Item = Given<'a>>,
    ) -> Result<Self, OptionError> {
        let mut values = vec![Value::Absent; specs.len()];
        for given in given {
            let index = specs.iter().position(|spec| spec.name.as_bytes() == given.key).ok_or_else(|| {
                OptionError::Unknown {
                    key: String::from_utf8_lossy(given.key).into_owned(),
                    known: specs.iter().map(|spec| spec.name).collect(),
                }
            })?;
            values[index] = given.value_for(&specs[index])?;
        }
        for (spec, value) in specs.iter().zip(&mut values) {
            match (&value, spec.default) {
                (Value::Null | Value::Bytes(_), _) => {}
                (Value::Absent, Some(default)) => {
                    let given =
                        Given { key: spec.name.as_bytes(), value: default.as_bytes(), is_json: false };
                    *value = given.value_for(spec)?;
                }
                (Value::Absent, None) if spec.required => return Err(missing(spec)),
                (Value::Absent, None) => {}
            }
        }
        Ok(Self { host, specs, values })
    }

    /// The host, so that `check` can ask for the strategy or the process's arguments.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Whether the option has a value: given or by default, and not `null`.
    ///
    /// # Errors
    /// If it is not declared.
    pub fn is_set(&self, key: &str) -> Result<bool, OptionError> {
        Ok(self.opt_bytes(key)?.is_some())
    }

    /// Whether the option was given as `null`, which is more than not given.
    ///
    /// # Errors
    /// If it is not declared.
    pub fn is_null(&self, key: &str) -> Result<bool, OptionError> {
        Ok(matches!(self.find(key)?.1, Value::Null))
    }

    /// The value as bytes.
    ///
    /// # Errors
    /// If there is none.
    pub fn bytes(&self, key: &str) -> Result<&[u8], OptionError> {
        self.require(key, self.opt_bytes(key)?)
    }

    /// The value as bytes, if there is one.
    ///
    /// # Errors
    /// If the option is not declared.
    pub fn opt_bytes(&self, key: &str) -> Result<Option<&[u8]>, OptionError> {
        Ok(self.find(key)?.1.bytes())
    }

    /// The value as text.
    ///
    /// # Errors
    /// If there is none, or it is not UTF-8.
    pub fn string(&self, key: &str) -> Result<&str, OptionError> {
        self.require(key, self.opt_string(key)?)
    }

    /// The value as text, if there is one.
    ///
    /// # Errors
    /// If it is not UTF-8.
    pub fn opt_string(&self, key: &str) -> Result<Option<&str>, OptionError> {
        self.read(key, Ok)
    }

    /// The value as a path.
    ///
    /// # Errors
    /// If there is none.
    pub fn path(&self, key: &str) -> Result<&Path, OptionError> {
        self.require(key, self.opt_path(key)?)
    }

    /// The value as a path, if there is one.
    ///
    /// # Errors
    /// If the option is not declared.
    pub fn opt_path(&self, key: &str) -> Result<Option<&Path>, OptionError> {
        Ok(self.opt_bytes(key)?.map(|bytes| Path::new(OsStr::from_bytes(bytes))))
    }

    /// The value as an integer.
    ///
    /// # Errors
    /// If there is none.
    pub fn integer(&self, key: &str) -> Result<i64, OptionError> {
        self.require(key, self.opt_integer(key)?)
    }

    /// The value as an integer, if there is one.
    ///
    /// # Errors
    /// If it is no integer.
    pub fn opt_integer(&self, key: &str) -> Result<Option<i64>, OptionError> {
        self.read(key, scalar::integer)
    }

    /// The value as a boolean.
    ///
    /// # Errors
    /// If there is none.
    pub fn boolean(&self, key: &str) -> Result<bool, OptionError> {
        self.require(key, self.opt_boolean(key)?)
    }

    /// The value as a boolean, if there is one.
    ///
    /// # Errors
    /// If it is no boolean.
    pub fn opt_boolean(&self, key: &str) -> Result<Option<bool>, OptionError> {
        self.read(key, scalar::boolean)
    }

    /// The value as a number of bytes.
    ///
    /// # Errors
    /// If there is none.
    pub fn size(&self, key: &str) -> Result<u64, OptionError> {
        self.require(key, self.opt_size(key)?)
    }

    /// The value as a number of bytes, if there is one.
    ///
    /// # Errors
    /// If it is no size.
    pub fn opt_size(&self, key: &str) -> Result<Option<u64>, OptionError> {
        self.read(key, scalar::size)
    }

    /// The value as a span of time.
    ///
    /// # Errors
    /// If there is none.
    pub fn duration(&self, key: &str) -> Result<Duration, OptionError> {
        self.require(key, self.opt_duration(key)?)
    }

    /// The value as a span of time, if there is one.
    ///
    /// # Errors
    /// If it is no duration.
    pub fn opt_duration(&self, key: &str) -> Result<Option<Duration>, OptionError> {
        self.read(key, scalar::duration)
    }

    /// The value as the one of the declared choices that it is.
    ///
    /// # Errors
    /// If there is none.
    pub fn choice(&self, key: &str) -> Result<&'static str, OptionError> {
        self.require(key, self.opt_choice(key)?)
    }

    /// The value as the one of the declared choices that it is, if there is one.
    ///
    /// # Errors
    /// If the option is not declared with choices.
    pub fn opt_choice(&self, key: &str) -> Result<Option<&'static str>, OptionError> {
        let choices = match self.find(key)?.0.kind {
            Kind::OneOf(choices) => choices,
            Kind::String | Kind::Path | Kind::Integer | Kind::Boolean | Kind::Size | Kind::Duration => &[],
        };
        self.read(key, |text| {
            choices.iter().find(|choice| **choice == text).copied().ok_or_else(|| "not a choice".to_owned())
        })
    }

    fn find(&self, key: &str) -> Result<(&'static OptionSpec, &Value), OptionError> {
        let index = self.specs.iter().position(|spec| spec.name == key);
        let index = index.ok_or_else(|| OptionError::Undeclared { key: key.to_owned() })?;
        Ok((&self.specs[index], &self.values[index]))
    }

    fn read<'a, T>(
        &'a self,
        key: &str,
        parse: impl FnOnce(&'a str) -> Result<T, String>,
    ) -> Result<Option<T>, OptionError> {
        let (spec, value) = self.find(key)?;
        let Some(value) = value.bytes() else { return Ok(None) };
        let text = core::str::from_utf8(value).map_err(|_| "not valid UTF-8".to_owned());
        text.and_then(parse)
            .map(Some)
            .map_err(|why| Given { key: key.as_bytes(), value, is_json: false }.invalid(spec, why))
    }

    fn require<T>(&self, key: &str, value: Option<T>) -> Result<T, OptionError> {
        match value {
            Some(value) => Ok(value),
            None => Err(missing(self.find(key)?.0)),
        }
    }
}

impl core::fmt::Debug for Options {
    /// Shows which options are set, never their values.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let set = self.specs.iter().zip(&self.values).filter(|(_, value)| value.bytes().is_some());
        f.debug_list().entries(set.map(|(spec, _)| spec.name)).finish()
    }
}

/// One option as it came from the host.
pub(crate) struct Given<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) is_json: bool,
}

impl<'a> Given<'a> {
    /// Reads one option of the boundary.
    ///
    /// # Safety
    /// Its texts must be as [`raw::bytes`] demands, for `'a`.
    #[expect(unsafe_code, reason = "an option's texts come as raw pointers from across the boundary")]
    pub(crate) unsafe fn from_raw(raw: &Opt) -> Self {
        // SAFETY: the caller vouches for both texts of this option.
        let key = unsafe { raw::bytes(raw.key) };
        // SAFETY: as above.
        let value = unsafe { raw::bytes(raw.value) };
        Self { key, value, is_json: raw.kind == abi::OPT_JSON }
    }

    /// The value once it fits the declaration.
    fn value_for(&self, spec: &OptionSpec) -> Result<Value, OptionError> {
        let value = match self.is_json {
            false => self.value.to_vec(),
            true => match json::scalar(self.value).map_err(|why| self.invalid(spec, why))? {
                Scalar::Null if spec.nullable => return Ok(Value::Null),
                Scalar::Null => return Err(self.invalid(spec, "cannot be null".to_owned())),
                Scalar::Literal(text) | Scalar::Text(text) => text.into_bytes(),
            },
        };
        spec.judge(&value).map_err(|why| self.invalid(spec, why))?;
        Ok(Value::Bytes(value))
    }

    fn invalid(&self, spec: &OptionSpec, why: String) -> OptionError {
        let equals = if self.is_json { ":=" } else { "=" };
        let value = if spec.secret { "***".to_owned() } else { shown(self.value) };
        OptionError::Invalid { given: format!("{}{equals}{value}", spec.name), why }
    }
}

fn missing(spec: &OptionSpec) -> OptionError {
    OptionError::Missing { key: spec.name, placeholder: spec.placeholder() }
}
