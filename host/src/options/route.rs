//! Decides which monitor gets which option.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use super::{OptionDecl, OptionError, OptionType, OptionValue, RawOption, RawValue, ValueKind};

/// Longest value that `KEY=@FILE` reads.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// One monitor as far as options are concerned.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Its label.
    pub label: &'a str,
    /// What it declares; `None` for a monitor without any declaration, which takes addressed options only.
    pub declared: Option<&'a [OptionDecl]>,
}

impl Target<'_> {
    fn names(&self) -> Option<Vec<String>> {
        Some(self.declared?.iter().map(|option| option.name.clone()).collect())
    }

    fn declaration(&self, key: &str) -> Option<&OptionDecl> {
        self.declared?.iter().find(|option| option.name == key)
    }
}

/// Refuses two equal labels.
///
/// # Errors
/// [`OptionError::EqualLabels`], which is a usage error.
pub fn unique_labels<'a>(labels: impl IntoIterator<Item = &'a str>) -> Result<(), OptionError> {
    let mut seen = std::collections::BTreeSet::new();
    for label in labels {
        if !seen.insert(label) {
            return Err(OptionError::EqualLabels { label: label.to_owned() });
        }
    }
    Ok(())
}

/// Reads the value of `KEY=@FILE`, at most 1 MiB, and removes one newline at its end.
///
/// # Errors
/// What the system says, or that the file is too long.
pub fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut value = Vec::new();
    std::fs::File::open(path)?.take(FILE_LIMIT_BYTES + 1).read_to_end(&mut value)?;
    if value.len() as u64 > FILE_LIMIT_BYTES {
        return Err(io::Error::other("longer than 1 MiB"));
    }
    if value.last() == Some(&b'\n') {
        value.pop();
    }
    Ok(value)
}

/// Gives every option to the monitors it is meant for; the result has one list for each of `monitors`.
///
/// A plain key goes to every monitor that declares it. Of several values for one key the last one holds, and one
/// that addresses the monitor goes before one that does not. `directory` is the caller's, absolute; files and
/// options declared as paths are relative to it. `read` is [`read_bounded`], or a test's own.
///
/// # Errors
/// Every variant of [`OptionError`] but those of parsing.
pub fn route(
    raw: &[RawOption],
    monitors: &[Target<'_>],
    directory: &Path,
    read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Vec<Vec<OptionValue>>, OptionError> {
    unique_labels(monitors.iter().map(|monitor| monitor.label))?;
    let mut routed: Vec<Vec<OptionValue>> = vec![Vec::new(); monitors.len()];
    // Plain ones first, so that the addressed ones replace them.
    for option in raw.iter().filter(|option| option.label.is_none()) {
        let takers: Vec<usize> =
            (0..monitors.len()).filter(|&at| monitors[at].declaration(&option.key).is_some()).collect();
        if takers.is_empty() {
            let declared =
                monitors.iter().map(|monitor| (monitor.label.to_owned(), monitor.names())).collect();
            return Err(OptionError::NobodyDeclares { key: option.key.clone(), declared });
        }
        for at in takers {
            put(&mut routed[at], option, &monitors[at], directory, read)?;
        }
    }
    for option in raw {
        let Some(label) = &option.label else { continue };
        let Some(at) = monitors.iter().position(|monitor| monitor.label == label) else {
            let labels = monitors.iter().map(|monitor| monitor.label.to_owned()).collect();
            return Err(OptionError::NoSuchLabel { label: label.clone(), key: option.key.clone(), labels });
        };
        if let (Some(declared), None) = (monitors[at].names(), monitors[at].declaration(&option.key)) {
            let (label, key) = (label.clone(), option.key.clone());
            return Err(OptionError::NotDeclared { label, key, declared });
        }
        put(&mut routed[at], option, &monitors[at], directory, read)?;
    }
    Ok(routed)
}

fn put(
    values: &mut Vec<OptionValue>,
    option: &RawOption,
    monitor: &Target<'_>,
    directory: &Path,
    read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<(), OptionError> {
    let (value, kind) = match &option.value {
        RawValue::Text(text) => (text.clone(), ValueKind::Text),
        RawValue::Json(json) => (json.clone(), ValueKind::Json),
        RawValue::File(path) => {
            let path = directory.join(path);
            match read(&path) {
                Ok(text) => (text, ValueKind::Text),
                Err(source) => return Err(OptionError::Unreadable { key: option.key.clone(), path, source }),
            }
        }
    };
    let is_path = monitor.declaration(&option.key).is_some_and(|option| option.kind == OptionType::Path);
    let (value, kind) = if is_path { absolute(value, kind, directory) } else { (value, kind) };
    values.retain(|earlier| earlier.key != option.key);
    values.push(OptionValue { key: option.key.clone(), value, kind });
    Ok(())
}

/// Makes a path absolute. An empty one stays empty, for the monitor to refuse; JSON that is not a string stays
/// what it is. A string of JSON becomes text, because a directory need not be UTF-8 and JSON must.
fn absolute(value: Vec<u8>, kind: ValueKind, directory: &Path) -> (Vec<u8>, ValueKind) {
    let path = match kind {
        ValueKind::Text => value,
        ValueKind::Json => match serde_json::from_slice::<String>(&value) {
            Ok(path) => path.into_bytes(),
            Err(_) => return (value, kind),
        },
    };
    if path.is_empty() {
        return (path, ValueKind::Text);
    }
    let joined = directory.join(OsStr::from_bytes(&path));
    let plain: PathBuf = joined.components().filter(|part| *part != Component::CurDir).collect();
    (plain.into_os_string().into_vec(), ValueKind::Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declare(name: &str, kind: OptionType) -> OptionDecl {
        OptionDecl {
            name: name.into(),
            help: String::new(),
            default: None,
            choices: Vec::new(),
            kind,
            required: false,
            nullable: false,
            secret: false,
        }
    }

    fn run(raw: &[&str], monitors: &[Target<'_>]) -> Result<Vec<Vec<(String, String)>>, OptionError> {
        let raw: Vec<RawOption> =
            raw.iter().map(|text| RawOption::parse(OsStr::new(text)).unwrap()).collect();
        let read = |path: &Path| match path.to_str() {
            Some("/home/u/secret") => Ok(b"hunter2".to_vec()),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        let routed = route(&raw, monitors, Path::new("/home/u"), &read)?;
        let show = |value: OptionValue| {
            let sign = if value.kind == ValueKind::Json { ":" } else { "" };
            (format!("{}{sign}", value.key), String::from_utf8(value.value).unwrap())
        };
        Ok(routed.into_iter().map(|values| values.into_iter().map(show).collect()).collect())
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }

    #[test]
    fn plain_key_goes_to_every_monitor_that_declares_it() {
        let (a, b) = ([declare("x", OptionType::String)], [declare("y", OptionType::String)]);
        let both = [a[0].clone(), b[0].clone()];
        let monitors = [
            Target { label: "a", declared: Some(&a) },
            Target { label: "b", declared: Some(&b) },
            Target { label: "both", declared: Some(&both) },
            Target { label: "c", declared: None },
        ];
        let routed = run(&["x=1", "y=2"], &monitors).unwrap();
        assert_eq!(routed[0], pairs(&[("x", "1")]));
        assert_eq!(routed[1], pairs(&[("y", "2")]));
        assert_eq!(routed[2], pairs(&[("x", "1"), ("y", "2")]));
        assert_eq!(routed[3], pairs(&[]));
    }

    #[test]
    fn key_that_nobody_declares_is_refused_with_what_there_is() {
        let a = [declare("x", OptionType::String), declare("y", OptionType::String)];
        let monitors = [Target { label: "a", declared: Some(&a) }, Target { label: "c", declared: None }];
        let error = run(&["z=hunter2"], &monitors).unwrap_err();
        assert!(!error.is_usage());
        assert_eq!(error.to_string(), "option z: no monitor has it; a has x, y; c declares none");
        assert!(error.hint().unwrap().contains("-o c.z=VALUE"));
    }

    #[test]
    fn label_addresses_one_monitor() {
        let x = [declare("x", OptionType::String)];
        let monitors = [Target { label: "a", declared: Some(&x) }, Target { label: "b", declared: Some(&x) }];
        let routed = run(&["b.x=2", "x=1"], &monitors).unwrap();
        assert_eq!(routed, [pairs(&[("x", "1")]), pairs(&[("x", "2")])]);
        assert!(matches!(run(&["d.x=1"], &monitors), Err(OptionError::NoSuchLabel { .. })));
        let error = run(&["a.z=1"], &monitors).unwrap_err();
        assert_eq!(error.to_string(), "monitor a: it has no option `z`; it has x");
    }

    #[test]
    fn monitor_without_a_declaration_takes_addressed_options_as_they_are() {
        let monitors = [Target { label: "c", declared: None }];
        let routed = run(&["c.any.thing=./x", "c.j:=\"./x\""], &monitors).unwrap();
        assert_eq!(routed[0], pairs(&[("any.thing", "./x"), ("j:", "\"./x\"")]));
        assert!(run(&["any=1"], &monitors).is_err());
    }

    #[test]
    fn last_value_of_a_key_holds() {
        let x = [declare("x", OptionType::String)];
        let routed = run(&["x=1", "x=2"], &[Target { label: "a", declared: Some(&x) }]).unwrap();
        assert_eq!(routed[0], pairs(&[("x", "2")]));
    }

    #[test]
    fn paths_become_absolute_and_null_stays() {
        let p = [declare("p", OptionType::Path)];
        let monitors = [Target { label: "a", declared: Some(&p) }];
        for (given, expected) in [
            ("p=log.txt", ("p", "/home/u/log.txt")),
            ("p=./d/./log.txt", ("p", "/home/u/d/log.txt")),
            ("p=../log.txt", ("p", "/home/u/../log.txt")),
            ("p=/abs", ("p", "/abs")),
            ("p=", ("p", "")),
            ("p:=\"j.txt\"", ("p", "/home/u/j.txt")),
            ("p:=null", ("p:", "null")),
            ("p:=7", ("p:", "7")),
            ("p=@secret", ("p", "/home/u/hunter2")),
        ] {
            assert_eq!(run(&[given], &monitors).unwrap()[0], pairs(&[expected]), "{given}");
        }
    }

    #[test]
    fn missing_file_is_named_and_is_not_a_usage_error() {
        let x = [declare("x", OptionType::String)];
        let error = run(&["x=@nothing"], &[Target { label: "a", declared: Some(&x) }]).unwrap_err();
        assert!(!error.is_usage());
        assert_eq!(error.to_string(), "option `x`: unable to read /home/u/nothing");
    }

    #[test]
    fn equal_labels_are_a_usage_error() {
        let monitors = [Target { label: "a", declared: None }, Target { label: "a", declared: None }];
        assert!(run(&[], &monitors).unwrap_err().is_usage());
    }

    #[test]
    fn one_newline_at_the_end_of_a_file_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("f");
        for (content, value) in [("a\n", "a"), ("a\n\n", "a\n"), ("a", "a"), ("", "")] {
            std::fs::write(&file, content).unwrap();
            assert_eq!(read_bounded(&file).unwrap(), value.as_bytes());
        }
        std::fs::write(&file, vec![b'x'; (1 << 20) + 1]).unwrap();
        assert!(read_bounded(&file).is_err());
    }
}
