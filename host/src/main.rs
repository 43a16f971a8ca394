//! The executable: the command line, and the roles it starts itself again as.
//!
//! With glibc it does without Rust's runtime, which reads a whole file of `/proc` to tell an overflowing stack
//! from other crashes: that takes longer than all that a role does before it is ready for its work.

#![cfg_attr(all(not(test), target_os = "linux", target_env = "gnu"), no_main)]

// The unwinder as a part of this executable.
#[cfg(unwinder_inside)]
#[expect(unsafe_code, reason = "a block of foreign functions, though there is none in it")]
#[link(name = "gcc_eh", kind = "static", modifiers = "-bundle")]
unsafe extern "C" {}

/// What the C library calls.
#[cfg(all(not(test), target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the name by which the C library starts a program")]
// SAFETY: there is one `main` in a program, and it has the parameters and the result that C says.
#[unsafe(no_mangle)]
extern "C" fn main(_count: std::ffi::c_int, _arguments: *const *const std::ffi::c_char) -> std::ffi::c_int {
    immortal::main_of_c().into()
}

#[cfg(not(all(not(test), target_os = "linux", target_env = "gnu")))]
fn main() -> std::process::ExitCode {
    immortal::main().into()
}
