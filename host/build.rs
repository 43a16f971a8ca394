//! Names the two system paths: `linux_path` where Linux's own calls are used, `portable_path` elsewhere. The
//! feature `portable` chooses the latter on Linux too, so that it can be tested.

fn main() {
    let is_linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux");
    let is_portable = std::env::var_os("CARGO_FEATURE_PORTABLE").is_some() || !is_linux;
    println!("cargo::rustc-check-cfg=cfg(linux_path, portable_path)");
    println!("cargo::rustc-cfg={}", if is_portable { "portable_path" } else { "linux_path" });
    if is_linux {
        // Pointers are fixed by the linker and not by each process at its start: a group's roles share those pages.
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
