//! `monitor new`: a monitor to start from, in a directory of its own.

use crate::cli::report::{self, Failure};
use clap::ValueEnum;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the source of `immortal-monitor-api` lay when this executable was built. It is not published yet, and
/// until it is, a project in Rust refers to it by path.
const BUILT_WITH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../monitor-api");
/// Where a package of immortal may put it, seen from the executable's directory.
const INSTALLED: &str = "../share/immortal/monitor-api";

const RUST: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("../../../templates/rust/Cargo.toml.in")),
    ("src/lib.rs", include_str!("../../../templates/rust/src/lib.rs")),
    ("README.md", include_str!("../../../templates/rust/README.md")),
    (".gitignore", include_str!("../../../templates/rust/gitignore")),
];

const C: &[(&str, &str)] = &[
    ("monitor.c", include_str!("../../../templates/c/monitor.c")),
    ("test.c", include_str!("../../../templates/c/test.c")),
    ("Makefile", include_str!("../../../templates/c/Makefile")),
    ("README.md", include_str!("../../../templates/c/README.md")),
    (".gitignore", include_str!("../../../templates/c/gitignore")),
    ("immortal_monitor.h", include_str!("../../../../monitor-api/include/immortal_monitor.h")),
];

/// What the monitor is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Lang {
    Rust,
    C,
}

pub(super) fn run(
    name: &str,
    lang: Lang,
    api: Option<&Path>,
    directory: Option<PathBuf>,
) -> Result<u8, Failure> {
    if !is_name(name) {
        let text = format!(
            "`{name}` is not a name for a monitor: small letters, digits, `_` and `-`, a letter first"
        );
        return Err(Failure::new(2, text, None));
    }
    let api = match lang {
        Lang::Rust => Some(find_api(api)?),
        Lang::C => None,
    };
    let directory = directory.unwrap_or_else(|| PathBuf::from(name));
    let files = if lang == Lang::Rust { RUST } else { C };
    write_all(&directory, files, &|text| fill_in(text, name, api.as_deref())).map_err(|(path, error)| {
        Failure::new(1, format!("unable to write {}: {error}", path.display()), None)
    })?;
    let (build, library) = match lang {
        Lang::Rust => ("cargo build --release", "target/release/"),
        Lang::C => ("make", ""),
    };
    report::line(&format!("created {}", directory.display()))?;
    if let Some(api) = api {
        let note = "immortal-monitor-api is not published yet: Cargo.toml refers to its source in";
        report::line(&format!("{note} {}", api.display()))?;
    }
    let file = format!("libimmortal_monitor_{}{}", name.replace('-', "_"), std::env::consts::DLL_SUFFIX);
    let next = format!("cd {} && {build} && immortal monitor check ./{library}{file}", directory.display());
    report::line(&format!("next: {next}"))?;
    Ok(0)
}

/// What is a name on the command line, a package's and a part of a C identifier.
fn is_name(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(is_part) && name.len() <= 64
}

fn find_api(given: Option<&Path>) -> Result<PathBuf, Failure> {
    let is_api = |path: &PathBuf| path.join("Cargo.toml").is_file() && path.join("src/abi.rs").is_file();
    if let Some(given) = given {
        let path = given.canonicalize().map_err(|error| {
            Failure::new(1, format!("unable to use --api {}: {error}", given.display()), None)
        })?;
        return Some(path).filter(is_api).ok_or_else(|| {
            let text = format!("{} is not the source of immortal-monitor-api", given.display());
            Failure::new(1, text, Some("it is the folder monitor-api of immortal's source".into()))
        });
    }
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(INSTALLED)));
    let places = [Some(PathBuf::from(BUILT_WITH)), beside];
    let found = places.into_iter().flatten().filter_map(|path| path.canonicalize().ok()).find(is_api);
    found.ok_or_else(|| {
        let text =
            "the source of immortal-monitor-api is not on this machine, and the crate is not published yet";
        let hint = "--api PATH: the folder monitor-api of immortal's source; or --lang c, which needs none";
        Failure::new(1, text, Some(hint.into()))
    })
}

fn fill_in(text: &str, name: &str, api: Option<&Path>) -> String {
    let api = api.map(|path| format!("{{ path = {} }}", toml_string(&path.display().to_string())));
    text.replace("@NAME@", name)
        .replace("@IDENT@", &name.replace('-', "_"))
        .replace("@API@", &api.unwrap_or_default())
}

/// A basic string of TOML.
fn toml_string(text: &str) -> String {
    let escape = |c: char| match c {
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
        c => c.to_string(),
    };
    format!("\"{}\"", text.chars().map(escape).collect::<String>())
}

/// Writes all files into a directory that is new, or empty.
fn write_all(
    directory: &Path,
    files: &[(&str, &str)],
    fill_in: &dyn Fn(&str) -> String,
) -> Result<(), (PathBuf, io::Error)> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| (path, error)
    };
    fs::create_dir_all(directory).map_err(at(directory))?;
    if fs::read_dir(directory).map_err(at(directory))?.next().is_some() {
        let error = io::Error::new(io::ErrorKind::DirectoryNotEmpty, "the directory is not empty");
        return Err((directory.to_owned(), error));
    }
    for (file, text) in files {
        let path = directory.join(file);
        let folder = path.parent().unwrap_or(directory);
        fs::create_dir_all(folder).map_err(at(folder))?;
        fs::write(&path, fill_in(text)).map_err(at(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_one_for_packages_and_identifiers() {
        for name in ["hello", "a-b_c9"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "Hello", "9a", "-a", "a b", "a.b", "a/b", "ä"] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn path_of_the_api_is_quoted_for_toml() {
        let text = fill_in("x = @API@", "a-b", Some(Path::new("/q\"uo\\te")));
        assert_eq!(text, "x = { path = \"/q\\\"uo\\\\te\" }");
    }
}
