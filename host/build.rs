//! Names the two system paths: `linux_path` where Linux's own calls are used, `portable_path` elsewhere. The
//! feature `portable` chooses the latter on Linux too, so that it can be tested. And it makes the executable one
//! that starts quickly and shares its pages.

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
    }
    if has_static_unwinder() {
        // One library less to find, map and initialise at every start of a role.
        println!("cargo::rustc-cfg=unwinder_inside");
    }
    println!("cargo::rerun-if-changed=build.rs");
}

/// Whether the compiler driver that links has GCC's unwinder as an archive.
fn has_static_unwinder() -> bool {
    let is_gnu = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux")
        && std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu");
    let linker = std::env::var_os("RUSTC_LINKER").unwrap_or_else(|| "cc".into());
    let found = std::process::Command::new(linker).arg("-print-file-name=libgcc_eh.a").output();
    // Without such a file the answer is its bare name.
    is_gnu && found.is_ok_and(|found| found.stdout.starts_with(b"/"))
}
