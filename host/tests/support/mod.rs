//! Libraries to load, made by the C compiler of this machine, and checks as a start would make them.
#![allow(dead_code, reason = "every test file uses another part")]

pub(crate) mod command;
pub(crate) mod recorder;

use std::error::Error;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use immortal::loader::{CheckContext, CheckError, Checked, SearchPath, Settings, Spec, check_all, resolve};
use immortal::options::RawOption;

/// The executable whose helper is used.
pub(crate) const EXECUTABLE: &str = env!("CARGO_BIN_EXE_immortal");

/// A directory of one test, gone with it.
pub(crate) struct Sandbox {
    directory: tempfile::TempDir,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join(file)
    }

    /// Compiles `monitor.c` with these definitions; `None`, said on stdout, without a compiler.
    pub(crate) fn compile(&self, file: &str, definitions: &[&str]) -> Option<PathBuf> {
        self.compile_from("monitor.c", file, definitions)
    }

    /// The same with another source of this folder.
    pub(crate) fn compile_from(&self, source: &str, file: &str, definitions: &[&str]) -> Option<PathBuf> {
        if !has_compiler() {
            println!("skipped: no C compiler");
            return None;
        }
        let library = self.path(file);
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let output = Command::new("cc")
            .args(["-shared", "-fPIC", "-std=gnu11", "-w", "-pthread"])
            .args(definitions.iter().map(|definition| format!("-D{definition}")))
            .arg("-I")
            .arg(root.join("../monitor-api/include"))
            .arg(root.join("tests/support").join(source))
            .arg("-o")
            .arg(&library)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(library)
    }
}

fn has_compiler() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| Command::new("cc").arg("--version").output().is_ok())
}

/// Checks one library with these options.
pub(crate) fn check(library: &Path, options: &[&str]) -> Result<Checked, CheckError> {
    let spec = Spec { label: "m".into(), target: resolve::Target::Path(library.to_owned()) };
    check_specs(&[spec], options).map(|mut checked| checked.remove(0))
}

pub(crate) fn check_specs(specs: &[Spec], options: &[&str]) -> Result<Vec<Checked>, CheckError> {
    let raw: Vec<RawOption> =
        options.iter().map(|text| RawOption::parse(OsStr::new(text)).unwrap()).collect();
    let settings = Settings { single: vec![("name".into(), b"web".to_vec())], lists: Vec::new() };
    let context = CheckContext {
        executable: Path::new(EXECUTABLE),
        directory: Path::new("/"),
        search: &SearchPath::new(&resolve::Places::default()),
        max_level: log::LevelFilter::Warn,
    };
    check_all(specs, &raw, &settings, &context)
}

/// An error with its sources, as the command shows it.
pub(crate) fn line(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        line = format!("{line}: {error}");
        source = error.source();
    }
    assert!(!line.contains('\n'), "more than one line: {line}");
    line
}

/// Why a library is refused: the line without the part that names it.
pub(crate) fn refusal(library: &Path) -> String {
    let started = std::time::Instant::now();
    let error = check(library, &[]).unwrap_err();
    assert!(started.elapsed().as_secs() < 10, "took {:?}", started.elapsed());
    assert!(!error.is_usage(), "{error}");
    let line = line(&error);
    let prefix = format!("monitor m: {} cannot be loaded: ", library.display());
    line.strip_prefix(&prefix).unwrap_or_else(|| panic!("{line}")).to_owned()
}

/// Builds the library of a package that a test has written, without the network. What such packages depend on is
/// compiled once, in one folder. `flags` are for rustc.
pub(crate) fn build_package(folder: &Path, name: &str, flags: &str) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::copy(repository.join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    let target = package_folder("target");
    // Packages of one name take turns there, and what cargo finds fresh it leaves as another one has left it.
    let source = std::fs::File::options().append(true).open(folder.join("src/lib.rs")).unwrap();
    source.set_modified(std::time::SystemTime::now()).unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["rustc", "--offline", "--quiet", "--lib", "--target-dir"])
        .arg(&target)
        .args(["--", "--cap-lints", "allow"])
        .args(flags.split_whitespace())
        .current_dir(folder)
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let suffix = if cfg!(target_os = "macos") { "dylib" } else { "so" };
    let library = folder.join(format!("built.{suffix}"));
    let built = target.join(format!("debug/lib{name}.{suffix}"));
    // A new file in place of the old one: that may be loaded at this moment.
    std::fs::copy(built, folder.join("new")).unwrap();
    std::fs::rename(folder.join("new"), &library).unwrap();
    library
}

/// Builds the library of a monitor whose source is in this folder, as the package `immortal-monitor-NAME`.
pub(crate) fn build_monitor(name: &str, source: &str) -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let folder = package_folder(name);
    let api = repository.join("monitor-api");
    let manifest = format!(
        "[workspace]\n[package]\nname = \"immortal-monitor-{name}\"\nversion = \"0.3.0\"\nedition = \"2024\"\n\
         description = \"{name}\"\n[lib]\ncrate-type = [\"cdylib\"]\n\
         [dependencies]\nimmortal-monitor-api = {{ path = {:?} }}\n",
        api.display().to_string()
    );
    write(&folder.join("Cargo.toml"), &manifest);
    let source = std::fs::read_to_string(repository.join("host/tests/support").join(source)).unwrap();
    write(&folder.join("src/lib.rs"), &source);
    build_package(&folder, &format!("immortal_monitor_{name}"), "")
}

/// A folder for a package of a test, kept for the next run.
pub(crate) fn package_folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages").join(name);
    std::fs::create_dir_all(folder.join("src")).unwrap();
    folder
}

/// Writes a file unless it is the same already, so that cargo need not build again.
pub(crate) fn write(file: &Path, text: &str) {
    if std::fs::read_to_string(file).ok().as_deref() != Some(text) {
        std::fs::write(file, text).unwrap();
    }
}
