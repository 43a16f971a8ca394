//! The helper process: loads a library and lets it judge its options where nobody minds if it crashes, hangs or
//! exits.
//!
//! The parent starts this executable again with the one argument [`ARGUMENT`] and a socket as its standard input,
//! over which everything travels. Or it copies itself, which is the same without loading the executable once
//! more: the command does so, which has one thread; another program that starts a group is not ours to copy.
//!
//! Only the token that the parent made up, coming back, is success: a library whose code calls `exit(0)` has not
//! passed. It says with it whether the library has left anything in the process; if not, the process may live on for a
//! moment and does no harm.

mod child;
pub(crate) mod confine;
mod exchange;
mod parent;
mod process;
pub(crate) mod wire;

pub use child::run;
pub(super) use exchange::{exchange, hear};
pub(super) use parent::{Failure, Helper};
pub(super) use process::keep_reserve_for;
pub(crate) use process::{allow_copies, dismiss_reserve, forget_reserve, keep_one_in_reserve};

/// The one argument of the helper process; `main` passes it on to [`run`] before it looks at anything else.
pub const ARGUMENT: &str = "check-monitor";
