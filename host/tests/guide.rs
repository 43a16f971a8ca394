//! Every code block of the author's guide is built or run: those in Rust by its own documentation tests as well.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may, and its helpers are no tests to clippy"
)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::command::{immortal, said};
use support::{EXECUTABLE, Sandbox, build_package, package_folder, write};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The blocks of the guide, each with its language.
fn blocks() -> Vec<(String, String)> {
    let guide = std::fs::read_to_string(repository().join("monitor-api/README.md")).unwrap();
    let parts: Vec<&str> = guide.split("\n```").collect();
    let block =
        |part: &&str| part.split_once('\n').map(|(lang, text)| (lang.to_owned(), text.to_owned() + "\n"));
    parts[1..].iter().step_by(2).filter_map(block).collect()
}

fn of(lang: &str) -> Vec<String> {
    blocks().into_iter().filter(|(this, _)| this == lang).map(|(_, text)| text).collect()
}

#[test]
fn guide_has_no_block_that_nobody_tries() {
    for (lang, text) in blocks() {
        assert!(["rust", "toml", "c", "sh"].contains(&lang.as_str()), "{lang}: {text}");
    }
    assert_eq!((of("toml").len(), of("c").len()), (1, 1));
}

#[test]
fn complete_monitor_builds_and_passes() {
    let folder = package_folder("lines");
    let api = repository().join("monitor-api").display().to_string();
    let manifest = of("toml")[0]
        .replace("immortal-monitor-api = \"1\"", &format!("immortal-monitor-api = {{ path = {api:?} }}"));
    write(&folder.join("Cargo.toml"), &(manifest + "\n[workspace]\n"));
    write(&folder.join("src/lib.rs"), &of("rust")[0]);
    build_package(&folder, "immortal_monitor_lines", "");
    let said = immortal(&folder, &["monitor", "check", "./built.so"]);
    assert_eq!(said.status, Some(0), "{}{}", said.stdout, said.stderr);
}

#[test]
fn monitor_in_c_builds_without_a_warning_and_passes() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("quiet.c"), &of("c")[0]).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args([
        "-std=c99",
        "-Wall",
        "-Wextra",
        "-Wpedantic",
        "-Werror",
        "-shared",
        "-fPIC",
        "-o",
        "quiet.so",
    ]);
    compiler.arg("-I").arg(repository().join("monitor-api/include")).arg("quiet.c");
    let Ok(output) = compiler.current_dir(sandbox.path("")).output() else {
        return println!("skipped: no cc");
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = immortal(&sandbox.path(""), &["monitor", "check", "./quiet.so"]);
    assert_eq!(said.status, Some(0), "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains(" 0 warned, 0 failed, "), "{}", said.stdout);
}

#[test]
fn commands_of_the_guide_work_one_after_the_other() {
    let sandbox = Sandbox::new();
    let script = format!("set -eu\n{}", of("sh").concat());
    let home = PathBuf::from(std::env::var_os("HOME").unwrap());
    let or_home = |name: &str, folder: &str| std::env::var_os(name).map_or(home.join(folder), PathBuf::from);
    let mut path = vec![Path::new(EXECUTABLE).parent().unwrap().to_owned()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).current_dir(sandbox.path("")).stdin(Stdio::null());
    shell
        .env("CARGO_HOME", or_home("CARGO_HOME", ".cargo"))
        .env("RUSTUP_HOME", or_home("RUSTUP_HOME", ".rustup"));
    shell.env("HOME", sandbox.path("")).env("PATH", std::env::join_paths(path).unwrap());
    shell.env("IMMORTAL_RUNTIME_DIR", sandbox.path("run")).env("CARGO_NET_OFFLINE", "true");
    for name in ["CARGO_TARGET_DIR", "RUSTFLAGS", "XDG_DATA_HOME", "IMMORTAL_MONITOR_PATH", "RUST_LOG"] {
        shell.env_remove(name);
    }
    let said = said(&shell.output().unwrap());
    assert_eq!(said.status, Some(0), "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("\nhello\n"), "{}", said.stdout);
    assert!(said.stdout.contains("\nname         hello\n"), "{}", said.stdout);
}
