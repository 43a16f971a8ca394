//! Reads the argument of one `-o`: `KEY=VALUE`, `KEY:=JSON`, `KEY=@FILE`, each with or without `LABEL.`.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serde::de::IgnoredAny;

use super::OptionError;

/// One `-o` as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawOption {
    /// The monitor it is addressed to; `None` for every monitor that declares it.
    pub label: Option<String>,
    /// Name of the option.
    pub key: String,
    /// What stands behind the sign.
    pub value: RawValue,
}

/// The value of a [`RawOption`].
#[derive(Clone, PartialEq, Eq)]
pub enum RawValue {
    /// `KEY=VALUE`
    Text(Vec<u8>),
    /// `KEY:=JSON`; it is valid JSON.
    Json(Vec<u8>),
    /// `KEY=@FILE`
    File(PathBuf),
}

impl fmt::Debug for RawValue {
    /// Shows the kind, and the path of a file; never a value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(…)"),
            Self::Json(_) => f.write_str("Json(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

impl RawOption {
    /// Reads one argument of `-o`. The key ends at the first `=`; a `:` right before it makes the rest JSON, an
    /// `@` right behind it a file (`@@` is a literal `@`).
    ///
    /// # Errors
    /// [`OptionError::NotKeyValue`], [`OptionError::KeyNotUtf8`], [`OptionError::BadJson`].
    pub fn parse(argument: &OsStr) -> Result<Self, OptionError> {
        let bytes = argument.as_bytes();
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let Some(sign) = bytes.iter().position(|&byte| byte == b'=') else {
            return Err(OptionError::NotKeyValue { text: shown(bytes) });
        };
        let (name, value) = (&bytes[..sign], &bytes[sign + 1..]);
        let (name, is_json) = name.strip_suffix(b":").map_or((name, false), |name| (name, true));
        let name = str::from_utf8(name).map_err(|_| OptionError::KeyNotUtf8 { key: shown(name) })?;
        let (label, key) = match name.split_once('.') {
            Some((label, key)) => (Some(label), key),
            None => (None, name),
        };
        if key.is_empty() || label == Some("") {
            return Err(OptionError::NotKeyValue { text: format!("{name}=") });
        }
        let value = if is_json {
            serde_json::from_slice::<IgnoredAny>(value)
                .map_err(|source| OptionError::BadJson { key: name.to_owned(), source })?;
            RawValue::Json(value.to_vec())
        } else if let Some(literal) = value.strip_prefix(b"@@") {
            RawValue::Text([b"@", literal].concat())
        } else if let Some(path) = value.strip_prefix(b"@") {
            RawValue::File(PathBuf::from(OsStr::from_bytes(path)))
        } else {
            RawValue::Text(value.to_vec())
        };
        Ok(Self { label: label.map(str::to_owned), key: key.to_owned(), value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> RawOption {
        RawOption::parse(OsStr::new(text)).unwrap()
    }

    #[test]
    fn value_is_all_behind_the_first_equals_sign() {
        assert_eq!(parse("a=b=c").value, RawValue::Text(b"b=c".to_vec()));
        assert_eq!(parse("a=").value, RawValue::Text(Vec::new()));
        assert_eq!(parse("a=b:=c").value, RawValue::Text(b"b:=c".to_vec()));
    }

    #[test]
    fn label_ends_at_the_first_dot() {
        let option = parse("log.output=/x.y=z");
        assert_eq!((option.label.as_deref(), option.key.as_str()), (Some("log"), "output"));
        assert_eq!(parse("c.a.b=1").key, "a.b");
        assert_eq!(parse("output=log.txt").label, None);
    }

    #[test]
    fn colon_before_the_sign_makes_json() {
        assert_eq!(parse("a:=null").value, RawValue::Json(b"null".to_vec()));
        assert_eq!(parse("x.a:={\"b\": [1]}").value, RawValue::Json(b"{\"b\": [1]}".to_vec()));
    }

    #[test]
    fn bad_json_is_named_without_its_contents() {
        for bad in ["a:=", "a:=hunter2", "a:=\"hunter2", "a:={\"hunter2\"}", "a:=1 hunter2"] {
            let error = RawOption::parse(OsStr::new(bad)).unwrap_err();
            let why = std::error::Error::source(&error).unwrap().to_string();
            assert!(error.to_string().contains("`a` is not valid JSON"), "{error}");
            assert!(!format!("{error} {why} {error:?}").contains("hunter2"), "{error}: {why}");
        }
    }

    #[test]
    fn at_sign_names_a_file_and_two_are_a_literal_one() {
        assert_eq!(parse("a=@f").value, RawValue::File("f".into()));
        assert_eq!(parse("a=@@f").value, RawValue::Text(b"@f".to_vec()));
        assert_eq!(parse("a=b@f").value, RawValue::Text(b"b@f".to_vec()));
    }

    #[test]
    fn argument_without_key_or_sign_is_a_usage_error() {
        for bad in ["", "a", "=b", ":=1", ".a=b", "a.=b"] {
            let error = RawOption::parse(OsStr::new(bad)).unwrap_err();
            assert!(error.is_usage(), "{bad}: {error}");
        }
        assert!(RawOption::parse(OsStr::from_bytes(b"\xff=1")).unwrap_err().is_usage());
    }

    #[test]
    fn value_need_not_be_utf8() {
        let option = RawOption::parse(OsStr::from_bytes(b"a=\xff\xfe")).unwrap();
        assert_eq!(option.value, RawValue::Text(vec![0xff, 0xfe]));
    }

    #[test]
    fn debug_never_shows_a_value() {
        assert!(!format!("{:?}", parse("a=hunter2")).contains("hunter2"));
    }
}
