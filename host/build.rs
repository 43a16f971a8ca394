//! Names the two system paths: `linux_path` where Linux's own calls are used, `portable_path` elsewhere. The
//! feature `portable` chooses the latter on Linux too, so that it can be tested. And it makes the executable one
//! that starts quickly and shares its pages.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::process::{Command, Stdio};

fn main() {
    let is_linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux");
    let is_portable = std::env::var_os("CARGO_FEATURE_PORTABLE").is_some() || !is_linux;
    println!("cargo::rustc-check-cfg=cfg(linux_path, portable_path, unwinder_inside)");
    println!("cargo::rustc-cfg={}", if is_portable { "portable_path" } else { "linux_path" });
    if is_linux {
        // Pointers are fixed by the linker and not by each process at its start: a group's roles share those pages.
        println!("cargo::rustc-link-arg-bins=-no-pie");
        // Data that is written begins a page of its own, and so touches no more of them than it must.
        println!("cargo::rustc-link-arg-bins=-Wl,-z,separate-loadable-segments");
        if linker_takes(IN_ONE_PIECE) {
            println!("cargo::rustc-link-arg-bins={IN_ONE_PIECE}");
        }
    }
    if has_static_unwinder() {
        // One library less to find, map and initialise at every start of a role.
        println!("cargo::rustc-cfg=unwinder_inside");
    }
    println!("cargo::rerun-if-changed=build.rs");
}

/// For LLD from version 21 on: code and constants are one segment, and the executable is written by one call (its
/// `--mmap-output-file` does that; by default it is filled through a mapping, see LLVM's issue 207459). The kernel
/// then keeps the executable in pieces of up to 2 MiB and maps them as such, where a start else takes a page fault for
/// each 64 KiB, in each of three processes. Another linker that knows the options does nothing worse than without.
const IN_ONE_PIECE: &str = "-Wl,--no-rosegment,--mmap-output-file";

/// Whether the linker that the compiler uses here takes such an argument: a program without anything is linked.
fn linker_takes(argument: &str) -> bool {
    let Some((compiler, target, directory)) = compiler() else { return false };
    let mut link = Command::new(compiler);
    link.args(["--crate-type", "bin", "--crate-name", "probe", "--target", &target, "-C"]);
    link.arg(format!("link-arg={argument}")).arg("--out-dir").arg(directory).arg("-");
    if let Some(linker) = std::env::var_os("RUSTC_LINKER") {
        link.arg("-C").arg(OsString::from_iter([OsStr::new("linker="), &linker]));
    }
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    link.args(flags.split('\u{1f}').filter(|flag| !flag.is_empty()));
    link.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut running) = link.spawn() else { return false };
    let told = running.stdin.take().is_some_and(|mut source| source.write_all(b"fn main() {}").is_ok());
    running.wait().is_ok_and(|status| told && status.success())
}

/// The compiler, what it compiles for, and where a build script may write.
fn compiler() -> Option<(OsString, String, OsString)> {
    Some((std::env::var_os("RUSTC")?, std::env::var("TARGET").ok()?, std::env::var_os("OUT_DIR")?))
}

/// Whether the compiler driver that links has GCC's unwinder as an archive.
fn has_static_unwinder() -> bool {
    let is_gnu = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux")
        && std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu");
    let linker = std::env::var_os("RUSTC_LINKER").unwrap_or_else(|| "cc".into());
    let found = Command::new(linker).arg("-print-file-name=libgcc_eh.a").output();
    // Without such a file the answer is its bare name.
    is_gnu && found.is_ok_and(|found| found.stdout.starts_with(b"/"))
}
