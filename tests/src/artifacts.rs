//! What the tests drive: the executable, the monitor libraries and the fixtures, built once by cargo, for
//! `cargo test` builds no executable of another package and puts no cdylib in the target folder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where the built things are. All of them are in one folder, as after `cargo build`.
#[derive(Debug)]
pub struct Artifacts {
    folder: PathBuf,
}

/// Packages that the tests need built.
const PACKAGES: &[&str] = &[
    "immortal",
    "immortal-monitor-log",
    "immortal-fixture-puppet",
    "immortal-fixture-quiet",
    "immortal-fixture-recorder",
];

/// Builds everything on the first call in this process; cargo's own lock keeps several test binaries apart.
///
/// # Panics
/// If it cannot be built, with what cargo said.
#[must_use]
pub fn artifacts() -> &'static Artifacts {
    static BUILT: OnceLock<Artifacts> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = profile_folder();
        let mut arguments: Vec<String> = vec!["build".into()];
        for package in PACKAGES {
            arguments.extend(["-p".into(), (*package).into()]);
        }
        build(&folder, workspace(), &arguments);
        Artifacts { folder }
    })
}

impl Artifacts {
    /// The executable under test.
    #[must_use]
    pub fn immortal(&self) -> PathBuf {
        self.folder.join("immortal")
    }

    /// The program that does what its arguments say.
    #[must_use]
    pub fn puppet(&self) -> PathBuf {
        self.folder.join("puppet")
    }

    /// The library of a monitor by its name.
    #[must_use]
    pub fn monitor(&self, name: &str) -> PathBuf {
        self.folder.join(library_file(name))
    }

    /// The folder that holds them all.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// File name of the library of the monitor `name`.
pub(crate) fn library_file(name: &str) -> String {
    format!("libimmortal_monitor_{name}{}", std::env::consts::DLL_SUFFIX)
}

/// Folder of the workspace's root.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace")
}

/// `target/debug` or what it is called this time: a test executable is in its `deps`.
pub(crate) fn profile_folder() -> PathBuf {
    let executable = std::env::current_exe().expect("a running program has a path");
    executable.parent().and_then(Path::parent).expect("cargo puts tests two folders deep").to_owned()
}

/// Runs cargo in `directory`, with the profile and the target folder of the tests.
pub(crate) fn build(folder: &Path, directory: &Path, arguments: &[String]) {
    let target = folder.parent().expect("a profile's folder lies in the target folder");
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(other) => other,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let run = |offline: bool| {
        let mut command = Command::new(&cargo);
        command
            .current_dir(directory)
            .args(arguments)
            .args(["--profile", profile, "--target-dir"])
            .arg(target);
        if offline {
            command.arg("--offline");
        }
        command.output().expect("cargo can be run")
    };
    // What the tests themselves were built from is at hand, so the network is a last resort.
    if run(true).status.success() {
        return;
    }
    let output = run(false);
    assert!(
        output.status.success(),
        "cargo {arguments:?} failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
