//! Runs the built command as a user does.

use std::path::Path;
use std::process::{Command, Output};

/// What a command said.
pub(crate) struct Said {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `immortal` with these arguments in a directory, with no monitor of the machine's in the search path but
/// those beside the executable.
pub(crate) fn immortal(directory: &Path, arguments: &[&str]) -> Said {
    let home = tempfile::tempdir().unwrap();
    let output = Command::new(super::EXECUTABLE)
        .args(arguments)
        .current_dir(directory)
        .env("HOME", home.path())
        .env("IMMORTAL_RUNTIME_DIR", home.path().join("run"))
        .env_remove("XDG_DATA_HOME")
        .env_remove("IMMORTAL_MONITOR_PATH")
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    said(&output)
}

pub(crate) fn said(output: &Output) -> Said {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { status: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}
