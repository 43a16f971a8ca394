//! Tests that look at the whole process: each runs in one of its own, for others open and change things too.

use std::process::Command;

const ALONE: &str = "IMMORTAL_TEST_ALONE";

/// Whether the calling test has a process for itself; if not, it has been run in one, and has passed there.
pub(crate) fn is_alone() -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let name = std::thread::current().name().expect("tests have names").to_owned();
    let mut alone = Command::new(std::env::current_exe().expect("the test knows its executable"));
    let alone = alone.args(["--exact", &name, "--test-threads=1"]).env(ALONE, "1").output().expect("it runs");
    assert!(alone.status.success(), "{alone:?}");
    assert!(String::from_utf8_lossy(&alone.stdout).contains("1 passed"), "{alone:?}");
    false
}
