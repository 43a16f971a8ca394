//! Exit statuses with a meaning of their own, as `env` and the shells use them.

/// The command line is wrong.
pub(crate) const USAGE: u8 = 2;
/// The program panicked, as Rust's runtime says it.
pub(crate) const PANICKED: u8 = 101;
/// We failed, before or beside the user's program.
pub(crate) const FAILED: u8 = 125;
/// The program is there and cannot be executed.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// The program is not there.
pub(crate) const NOT_FOUND: u8 = 127;
