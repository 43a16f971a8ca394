//! Puts the unwinder into the library, where the compiler driver that links has it as an archive: one library less
//! to find, map and initialise whenever a pump starts.

fn main() {
    let is_linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux");
    let is_gnu = is_linux && std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu");
    if is_linux {
        // Data that is written begins a page of its own, and so takes no more of a pump's pages than it must.
        println!("cargo::rustc-link-arg-cdylib=-Wl,-z,separate-loadable-segments");
    }
    let linker = std::env::var_os("RUSTC_LINKER").unwrap_or_else(|| "cc".into());
    let found = std::process::Command::new(linker).arg("-print-file-name=libgcc_eh.a").output();
    // Without such a file the answer is its bare name.
    if is_gnu && found.is_ok_and(|found| found.stdout.starts_with(b"/")) {
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
