//! Makes a path of what `--monitor` says.
//!
//! A value with a `/` is a path, relative to the caller's directory; all else is a name, looked for in a fixed
//! list of directories. Never in the working directory, and never by the dynamic loader's own search.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::file::{self, FileError};
use crate::sys::copy::OWN_EXECUTABLE;

/// Suffixes of a library on this system, best first.
#[cfg(target_os = "macos")]
const SUFFIXES: &[&str] = &["dylib", "so"];
/// Suffixes of a library on this system, best first.
#[cfg(not(target_os = "macos"))]
const SUFFIXES: &[&str] = &["so"];

/// The longest label, in characters: a file of a group has it in its name.
const LONGEST_LABEL: usize = 64;

/// Why there is no path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// What stands before the `=` is no label.
    #[error("`{label}` is not a monitor's label: letters, digits, `_` and `-`, not first")]
    BadLabel {
        /// The label as typed.
        label: String,
    },
    /// Files of a group are named by it.
    #[error("`{label}` is not a monitor's label: longer than {LONGEST_LABEL} characters")]
    LongLabel {
        /// The label as typed, or what would be the label.
        label: String,
    },
    /// A value without a `/` that is no name.
    #[error("`{name}` is not a monitor's name: letters, digits, `_` and `-`, not first")]
    BadName {
        /// The name as typed.
        name: String,
    },
    /// No directory of the list has a library of that name.
    #[error("monitor {name}: not found; looked in {}", listed(looked))]
    NotFound {
        /// The name.
        name: String,
        /// Every directory of the list.
        looked: Vec<PathBuf>,
    },
    /// There is no such file, or the way to it is barred.
    #[error("monitor {}", path.display())]
    NoFile {
        /// The path, made absolute.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A symbolic link on the way to it is not to be trusted.
    #[error("monitor {}", path.display())]
    Link {
        /// The path, made absolute.
        path: PathBuf,
        /// Why.
        source: FileError,
    },
}

impl ResolveError {
    /// Tells a wrong command line (exit status 2) from a monitor that is not there (125).
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::BadLabel { .. } | Self::LongLabel { .. } | Self::BadName { .. })
    }

    /// What to do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::BadName { name } => Some(format!("write ./{name} for a file of the current directory")),
            Self::LongLabel { .. } => Some("--monitor LABEL=PATH_OR_NAME gives it a shorter one".into()),
            Self::NotFound { .. } => Some("--monitor-path DIR searches another directory first".into()),
            Self::Link { source, .. } => source.hint(),
            Self::BadLabel { .. } | Self::NoFile { .. } => None,
        }
    }
}

/// One `--monitor` as typed: `[LABEL=]PATH_OR_NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The label that addresses it.
    pub label: String,
    /// The name or path.
    pub target: Target,
}

/// What a [`Spec`] leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To be looked for.
    Name(String),
    /// A file, relative to the caller's directory.
    Path(PathBuf),
}

impl Spec {
    /// Reads one argument of `--monitor`. What stands before a first `=` is a label unless it has a `/`, for then
    /// it is part of a path.
    ///
    /// # Errors
    /// [`ResolveError::BadLabel`], [`ResolveError::LongLabel`], [`ResolveError::BadName`].
    pub fn parse(argument: &OsStr) -> Result<Self, ResolveError> {
        let bytes = argument.as_bytes();
        let (label, rest) = match bytes.iter().position(|&byte| byte == b'=') {
            Some(sign) if !bytes[..sign].contains(&b'/') => (Some(&bytes[..sign]), &bytes[sign + 1..]),
            _ => (None, bytes),
        };
        let label = label.map(|label| String::from_utf8_lossy(label).into_owned());
        if let Some(label) = label.as_ref().filter(|label| !is_name(label)) {
            return Err(ResolveError::BadLabel { label: label.clone() });
        }
        let spec = if rest.contains(&b'/') {
            let path = PathBuf::from(OsString::from_vec(rest.to_vec()));
            Self { label: label.unwrap_or_else(|| label_of(&path)), target: Target::Path(path) }
        } else {
            let name = String::from_utf8_lossy(rest).into_owned();
            if !is_name(&name) {
                return Err(ResolveError::BadName { name });
            }
            Self { label: label.unwrap_or_else(|| name.clone()), target: Target::Name(name) }
        };
        if spec.label.len() > LONGEST_LABEL {
            return Err(ResolveError::LongLabel { label: spec.label });
        }
        Ok(spec)
    }

    /// The canonical path of the library. A first hit that cannot be used is an error of what comes after this;
    /// no further directory is tried for it.
    ///
    /// # Errors
    /// [`ResolveError::NotFound`], [`ResolveError::NoFile`], [`ResolveError::Link`].
    pub fn resolve(&self, directory: &Path, search: &SearchPath) -> Result<PathBuf, ResolveError> {
        self.target.resolve(directory, search)
    }
}

impl Target {
    pub(super) fn resolve(&self, directory: &Path, search: &SearchPath) -> Result<PathBuf, ResolveError> {
        let path = match self {
            Self::Path(path) => directory.join(path),
            Self::Name(name) => search.find(name)?,
        };
        let canonical = match path.canonicalize() {
            Ok(canonical) => canonical,
            Err(source) => return Err(ResolveError::NoFile { path, source }),
        };
        match file::judge_links(&path) {
            Ok(()) => Ok(canonical),
            Err(source) => Err(ResolveError::Link { path, source }),
        }
    }
}

/// The directories in which names are looked for, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchPath {
    directories: Vec<PathBuf>,
    /// Some of them were given for this one search.
    has_given: bool,
}

/// What [`SearchPath::new`] makes the list of.
#[derive(Debug, Clone, Default)]
pub struct Places<'a> {
    /// Every `--monitor-path`, in order; relative to `directory`.
    pub given: &'a [PathBuf],
    /// The caller's directory, absolute.
    pub directory: PathBuf,
    /// `$IMMORTAL_MONITOR_PATH`, colon-separated. Relative and empty entries are left out: they would mean
    /// whatever directory the caller happens to be in.
    pub environment: Option<OsString>,
    /// `$XDG_DATA_HOME`; left out if it is relative.
    pub data_home: Option<PathBuf>,
    /// The home directory, whose `.local/share` is the data home without `data_home`.
    pub home: Option<PathBuf>,
    /// Our own executable.
    pub executable: Option<PathBuf>,
}

impl SearchPath {
    /// Makes the list, in the order in which it is searched.
    #[must_use]
    pub fn new(places: &Places<'_>) -> Self {
        let mut directories: Vec<PathBuf> =
            places.given.iter().map(|given| places.directory.join(given)).collect();
        let entries = places.environment.iter().flat_map(std::env::split_paths);
        directories.extend(entries.filter(|entry| entry.is_absolute()));
        let data_home = places.data_home.clone().filter(|path| path.is_absolute());
        let home = || Some(places.home.clone().filter(|path| path.is_absolute())?.join(".local/share"));
        directories.extend(data_home.or_else(home).map(|data| data.join("immortal/monitors")));
        directories
            .extend(["/usr/local/lib/immortal/monitors", "/usr/lib/immortal/monitors"].map(PathBuf::from));
        if let Some(beside) = places.executable.as_deref().and_then(Path::parent) {
            directories.push(beside.join("monitors"));
            directories.extend(beside.parent().map(|prefix| prefix.join("lib/immortal/monitors")));
            directories.push(beside.to_owned());
        }
        let mut seen = std::collections::HashSet::new();
        directories.retain(|directory| seen.insert(directory.clone()));
        Self { directories, has_given: !places.given.is_empty() }
    }

    /// Makes the list from this process's environment. A set-user-id program does not heed the caller's.
    #[must_use]
    pub fn from_environment(given: &[PathBuf], directory: &Path, executable: &Path) -> Self {
        use nix::unistd::{User, getegid, geteuid, getgid, getuid};
        let is_plain = getuid() == geteuid() && getgid() == getegid();
        let variable = |name: &str| std::env::var_os(name).filter(|value| is_plain && !value.is_empty());
        let of_account = || Some(User::from_uid(geteuid()).ok()??.dir);
        Self::new(&Places {
            given,
            directory: directory.to_owned(),
            environment: variable("IMMORTAL_MONITOR_PATH"),
            data_home: variable("XDG_DATA_HOME").map(PathBuf::from),
            home: variable("HOME").map(PathBuf::from).or_else(of_account),
            executable: Some(canonical(executable)),
        })
    }

    /// Whether it is another one than the environment says.
    pub(super) fn has_given(&self) -> bool {
        self.has_given
    }

    /// The directories, in order.
    #[must_use]
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// The first file of the name.
    ///
    /// # Errors
    /// [`ResolveError::NotFound`], with every directory of the list.
    pub fn find(&self, name: &str) -> Result<PathBuf, ResolveError> {
        let candidates = candidates(name);
        self.directories
            .iter()
            .flat_map(|directory| candidates.iter().map(|file| directory.join(file)))
            .find(|path| path.symlink_metadata().is_ok())
            .ok_or_else(|| ResolveError::NotFound { name: name.to_owned(), looked: self.directories.clone() })
    }
}

fn canonical(executable: &Path) -> PathBuf {
    // The system's own name of it is canonical, and asked for at once.
    let path = match executable == Path::new(OWN_EXECUTABLE) {
        true => executable.read_link(),
        false => executable.canonicalize(),
    };
    path.unwrap_or_else(|_| executable.to_owned())
}

/// The file names that a name stands for, best first.
#[must_use]
pub fn candidates(name: &str) -> Vec<String> {
    let name = name.replace('-', "_");
    let stems = [format!("libimmortal_monitor_{name}"), format!("lib{name}"), name];
    let with = |suffix: &&str| stems.iter().map(|stem| format!("{stem}.{suffix}")).collect::<Vec<_>>();
    SUFFIXES.iter().flat_map(with).collect()
}

/// The label of a path: its file name less `lib`, `immortal_monitor_` and suffix. What no label may have becomes
/// `_`, so that every monitor can be addressed.
#[must_use]
pub fn label_of(path: &Path) -> String {
    let file = path.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
    let stem = [".so", ".dylib"].iter().find_map(|suffix| file.strip_suffix(suffix)).unwrap_or(&file);
    let stem = bare(stem);
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
    let label: String = stem.chars().map(plain).collect();
    if label.is_empty() { "monitor".into() } else { label }
}

/// The name that a file could be found by: its own less `lib`, `immortal_monitor_` and suffix; `None` without
/// the suffix of a library.
pub(super) fn stem_of(file: &str) -> Option<&str> {
    SUFFIXES.iter().find_map(|suffix| file.strip_suffix(suffix)?.strip_suffix('.')).map(bare)
}

fn bare(stem: &str) -> &str {
    let stem = stem.strip_prefix("lib").filter(|rest| !rest.is_empty()).unwrap_or(stem);
    stem.strip_prefix("immortal_monitor_").filter(|rest| !rest.is_empty()).unwrap_or(stem)
}

/// `[A-Za-z0-9][A-Za-z0-9_-]*`
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Spec {
        Spec::parse(OsStr::new(text)).unwrap()
    }

    fn label(text: &str) -> String {
        spec(text).label
    }

    fn search_in(directories: Vec<PathBuf>) -> SearchPath {
        SearchPath { directories, has_given: false }
    }

    #[test]
    fn slash_makes_a_path_and_all_else_is_a_name() {
        assert_eq!(spec("log").target, Target::Name("log".into()));
        assert_eq!(spec("./log").target, Target::Path("./log".into()));
        assert_eq!(spec("a=log"), Spec { label: "a".into(), target: Target::Name("log".into()) });
        assert_eq!(spec("a=/x/y.so").target, Target::Path("/x/y.so".into()));
        assert_eq!(spec("/x=y/z.so").target, Target::Path("/x=y/z.so".into()));
        let odd = Spec::parse(OsStr::from_bytes(b"./\xff.so")).unwrap();
        assert_eq!(odd.target, Target::Path(OsString::from_vec(b"./\xff.so".to_vec()).into()));
    }

    #[test]
    fn a_label_is_no_longer_than_a_file_of_the_group_can_bear() {
        let long = "x".repeat(65);
        for typed in [format!("{long}=log"), long.clone(), format!("./lib{long}.so")] {
            let error = Spec::parse(OsStr::new(&typed)).unwrap_err();
            assert!(error.is_usage() && error.hint().is_some(), "{error}");
        }
        assert_eq!(label(&"x".repeat(64)), "x".repeat(64));
        assert_eq!(label(&format!("a=./{long}.so")), "a");
    }

    #[test]
    fn label_is_the_name_or_the_bare_file_name() {
        assert_eq!(label("my-mon"), "my-mon");
        assert_eq!(label("/x/libimmortal_monitor_foo.so"), "foo");
        assert_eq!(label("/x/libfoo.so"), "foo");
        assert_eq!(label("./foo.dylib"), "foo");
        assert_eq!(label("./foo"), "foo");
        assert_eq!(label("./immortal_monitor_foo.so"), "foo");
        assert_eq!(label("./lib.so"), "lib");
        assert_eq!(label("./libfoo.so.1"), "foo_so_1");
    }

    #[test]
    fn words_that_are_no_names_are_usage_errors() {
        for bad in ["", "libm.so.6", "-x", "_x", "a b", "é", "=log", "a b=log", "a=", "a=b=c"] {
            assert!(Spec::parse(OsStr::new(bad)).unwrap_err().is_usage(), "{bad}");
        }
    }

    #[test]
    fn directories_are_searched_in_the_order_of_the_contract() {
        let search = SearchPath::new(&Places {
            given: &["here".into(), "/there".into()],
            directory: "/home/u".into(),
            environment: Some("/one:relative::/two".into()),
            data_home: None,
            home: Some("/home/u".into()),
            executable: Some("/opt/i/bin/immortal".into()),
        });
        let expected = [
            "/home/u/here",
            "/there",
            "/one",
            "/two",
            "/home/u/.local/share/immortal/monitors",
            "/usr/local/lib/immortal/monitors",
            "/usr/lib/immortal/monitors",
            "/opt/i/bin/monitors",
            "/opt/i/lib/immortal/monitors",
            "/opt/i/bin",
        ];
        assert_eq!(search.directories(), expected.map(PathBuf::from));
        let data = SearchPath::new(&Places {
            data_home: Some("/data".into()),
            home: Some("/home/u".into()),
            ..Places::default()
        });
        assert_eq!(data.directories()[0], Path::new("/data/immortal/monitors"));
    }

    #[test]
    fn first_hit_wins_and_a_dash_reads_as_an_underscore() {
        let root = tempfile::tempdir().unwrap();
        let (a, b) = (root.path().join("a"), root.path().join("b"));
        std::fs::create_dir_all(&a).unwrap();
        std::fs::create_dir_all(&b).unwrap();
        let search = search_in(vec![a.clone(), b.clone()]);
        let suffix = SUFFIXES[0];
        let found = || search.find("my-mon").unwrap();
        for file in [
            b.join(format!("my_mon.{suffix}")),
            b.join(format!("libmy_mon.{suffix}")),
            b.join(format!("libimmortal_monitor_my_mon.{suffix}")),
            a.join(format!("my_mon.{suffix}")),
        ] {
            std::fs::write(&file, "").unwrap();
            assert_eq!(found(), file);
        }
    }

    #[test]
    fn not_found_lists_where_it_looked() {
        let search = search_in(vec!["/nowhere/a".into(), "/nowhere/b".into()]);
        let error = spec("foo").resolve(Path::new("/"), &search).unwrap_err();
        assert_eq!(error.to_string(), "monitor foo: not found; looked in /nowhere/a, /nowhere/b");
        assert!(!error.is_usage());
    }

    #[test]
    fn path_is_relative_to_the_callers_directory_and_made_canonical() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        std::fs::write(root.join("x.so.1"), "").unwrap();
        std::os::unix::fs::symlink("x.so.1", root.join("x.so")).unwrap();
        let none = search_in(Vec::new());
        assert_eq!(spec("./x.so").resolve(&root, &none).unwrap(), root.join("x.so.1"));
        assert!(matches!(spec("./y.so").resolve(&root, &none), Err(ResolveError::NoFile { .. })));
    }
}
