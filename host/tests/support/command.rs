//! Runs the built command as a user does.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(60);

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
    let child = Command::new(super::EXECUTABLE)
        .args(arguments)
        .current_dir(directory)
        .env("HOME", home.path())
        .env("IMMORTAL_RUNTIME_DIR", home.path().join("run"))
        .env_remove("XDG_DATA_HOME")
        .env_remove("IMMORTAL_MONITOR_PATH")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    match receiver.recv_timeout(LIMIT) {
        Ok(output) => said(&output.unwrap()),
        Err(_) => {
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
            panic!("no end within {LIMIT:?}: immortal {}", arguments.join(" "));
        }
    }
}

pub(crate) fn said(output: &Output) -> Said {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { status: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}
