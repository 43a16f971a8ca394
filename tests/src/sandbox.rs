//! One test's own world: folders, runtime directory, environment, and the end of everything started in it.

use crate::artifacts::artifacts;
use crate::invocation::Invocation;
use crate::launch::Launch;
use crate::process::{self, Process};
use crate::wait::DEADLINE;
use nix::sys::signal::Signal;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tempfile::TempDir;

/// A folder with a home and a runtime directory, and a marker in the environment by which every process that was
/// started in it is found again.
#[derive(Debug)]
pub struct Sandbox {
    directory: TempDir,
    root: PathBuf,
    marker: String,
    known: Mutex<HashSet<Process>>,
}

const MARKER: &str = "IMMORTAL_TEST_SANDBOX";

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Sandbox {
    /// Makes an empty one.
    ///
    /// # Panics
    /// If no folder can be made.
    #[must_use]
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("immortal-test-").tempdir().expect("a folder");
        let root = directory.path().canonicalize().expect("it exists");
        let marker = root.file_name().expect("it has a name").to_string_lossy().into_owned();
        std::fs::create_dir(root.join("home")).expect("a home");
        Self { directory, root, marker, known: Mutex::default() }
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// A path in it, as text.
    #[must_use]
    pub fn text_path(&self, name: &str) -> String {
        self.path(name).to_str().expect("a temporary folder has a plain path").to_owned()
    }

    /// The runtime directory of [`Sandbox::immortal`].
    #[must_use]
    pub fn runtime(&self) -> PathBuf {
        self.path("run")
    }

    /// Writes a file with these permissions and returns its path.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>, mode: u32) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).expect("a file in the sandbox can be written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("and its mode set");
        path
    }

    /// Copies an executable and returns the path of the copy. By another program: a descriptor that is open for
    /// writing here would be inherited by what other tests are just starting, and the copy be busy until they run.
    ///
    /// # Panics
    /// If it cannot be copied.
    pub fn executable(&self, from: impl AsRef<Path>, name: impl AsRef<Path>) -> PathBuf {
        let path = self.path(name);
        let copied = std::process::Command::new("cp").arg(from.as_ref()).arg(&path).status();
        assert!(copied.is_ok_and(|status| status.success()), "cannot copy to {}", path.display());
        path
    }

    /// Prepares a run of any program in the sandbox's environment.
    #[must_use]
    pub fn invocation(&self, program: impl AsRef<OsStr>) -> Invocation {
        Invocation::new(program)
            .cwd(&self.root)
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin")
            .env("HOME", self.path("home"))
            .env("IMMORTAL_RUNTIME_DIR", self.runtime())
            .env(MARKER, &self.marker)
    }

    /// Prepares a run of `immortal` in the sandbox's environment.
    #[must_use]
    pub fn immortal<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Invocation {
        self.invocation(artifacts().immortal()).args(arguments)
    }

    /// Prepares a run of `immortal` as somebody who is not root, in the sandbox's environment. If root runs the
    /// tests, the executable and its libraries are copied to where that user can reach them, and the sandbox is
    /// given away.
    ///
    /// # Panics
    /// If that cannot be done.
    #[must_use]
    pub fn unprivileged(&self) -> Invocation {
        if !nix::unistd::geteuid().is_root() {
            return self.immortal::<&str>([]);
        }
        const NOBODY: u32 = 65534;
        let folder = self.path("bin");
        if !folder.exists() {
            std::fs::create_dir(&folder).expect("a folder for the executable");
            let built = artifacts();
            for file in [built.immortal(), built.puppet(), built.monitor("log"), built.monitor("recorder")] {
                self.executable(&file, folder.join(file.file_name().expect("a file has a name")));
            }
            for path in [self.root.clone(), self.path("home")] {
                std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("root may give away");
            }
        }
        self.invocation(folder.join("immortal")).user(NOBODY, NOBODY)
    }

    /// Prepares `immortal start` of a group called `group` under a strategy; an empty one is not mentioned.
    pub fn launch(&self, strategy: &str) -> Launch<'_> {
        Launch::new(self, strategy)
    }

    /// Every process of this sandbox that runs now.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        process::marked(&self.marker_variable())
    }

    /// The marker, as it stands in an environment.
    #[must_use]
    pub fn marker_variable(&self) -> String {
        format!("{MARKER}={}", self.marker)
    }

    /// Children of the sandbox's processes that have ended and were not waited for.
    #[must_use]
    pub fn zombies(&self) -> Vec<i32> {
        let parents: Vec<i32> = self.processes().iter().map(|process| process.pid).collect();
        process::zombies_of(&parents)
    }

    /// Remembers a process that may not be found by the marker, so that it ends with the sandbox.
    pub fn adopt(&self, process: Process) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(process);
    }

    /// The pids in a file that the puppet's `note=` step has written, oldest first.
    #[must_use]
    pub fn noted(&self, name: &str) -> Vec<i32> {
        let text = std::fs::read_to_string(self.path(name)).unwrap_or_default();
        // A line that is still being written has no newline yet.
        text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')?.parse().ok()).collect()
    }

    /// The files below the runtime directory, relative to it.
    #[must_use]
    pub fn runtime_files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(&self.runtime(), &mut |path| {
            found.push(path.strip_prefix(self.runtime()).unwrap_or(path).to_owned());
        });
        found
    }

    /// Asserts that nothing is left of a group called `group`: no process, no file, no entry in the list.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let left: Vec<String> = self
            .processes()
            .iter()
            .map(|process| format!("{}: {}", process.pid, process.command_line()))
            .collect();
        assert!(left.is_empty(), "processes are left: {left:#?}");
        let files: Vec<_> = self
            .runtime_files()
            .into_iter()
            .filter(|path| path.to_string_lossy().contains("group"))
            .collect();
        assert!(files.is_empty(), "files are left: {files:#?}");
        let listed = self.immortal(["list", "--json"]).run();
        listed.assert_code(0);
        assert_eq!(listed.json(), serde_json::json!([]), "groups are left");
    }

    fn print_what_happened(&self) {
        let mut text = format!("\n===== what happened in {} =====\n", self.root.display());
        for process in self.processes() {
            let parent = process::facts(process.pid).map_or(0, |facts| facts.parent);
            text += &format!("process {} (parent {parent}): {}\n", process.pid, process.command_line());
        }
        if self.runtime().exists() {
            match self.immortal(["list", "--json"]).spawn().wait_within(DEADLINE) {
                Ok(list) => text += &format!("immortal list: {}{}", list.out(), list.err()),
                Err(_) => text += "immortal list does not answer\n",
            }
        }
        walk(&self.root, &mut |path| {
            let (length, end) = end_of(path);
            text += &format!("--- {} ({length} bytes)\n", path.display());
            if !end.contains(&0) {
                text += &String::from_utf8_lossy(&end);
            }
        });
        #[expect(clippy::print_stderr, reason = "the test runner shows it with the failed test")]
        {
            eprintln!("{text}\n===== end =====");
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_what_happened();
        }
        let known = std::mem::take(&mut *self.known.lock().unwrap_or_else(PoisonError::into_inner));
        let left = |sandbox: &Self| {
            let mut left = sandbox.processes();
            left.extend(known.iter().filter(|process| !process.is_gone()));
            left
        };
        if !left(self).is_empty() && !std::thread::panicking() {
            // Whether it works is for other tests to find out; what it leaves is killed.
            drop(self.immortal(["stop", "--all"]).spawn().wait_within(DEADLINE));
        }
        // New ones may appear while the first are killed: a daemon's death makes a pump start another.
        for _ in 0..200 {
            let left = left(self);
            if left.is_empty() {
                break;
            }
            left.iter().for_each(|process| process.signal(Signal::SIGKILL));
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        // Tests take permissions away; the folder must be removable all the same.
        drop(std::fs::set_permissions(self.directory.path(), PermissionsExt::from_mode(0o700)));
    }
}

/// The length of a file and the last of its bytes; nothing of what is no file.
fn end_of(path: &Path) -> (u64, Vec<u8>) {
    let mut end = Vec::new();
    let Ok(data) = path.symlink_metadata() else { return (0, end) };
    if data.is_file()
        && let Ok(mut file) = std::fs::File::open(path)
        && file.seek(SeekFrom::Start(data.len().saturating_sub(8192))).is_ok()
        && file.take(8192).read_to_end(&mut end).is_err()
    {
        end.clear();
    }
    (data.len(), end)
}

/// Calls `visit` for everything below a folder, sorted.
fn walk(folder: &Path, visit: &mut impl FnMut(&Path)) {
    let Ok(listing) = std::fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = listing.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    for path in paths {
        if path.symlink_metadata().is_ok_and(|data| data.is_dir()) {
            walk(&path, visit);
        } else {
            visit(&path);
        }
    }
}
