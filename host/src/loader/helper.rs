//! The helper process: loads a library and lets it judge its options where nobody minds if it crashes, hangs or
//! exits.
//!
//! The parent starts this executable again with the one argument [`ARGUMENT`] and a socket as its standard input,
//! over which everything travels. Only the token that the parent made up, coming back, is success: a library
//! whose code calls `exit(0)` has not passed. Nothing of the helper outlives the exchange.

mod child;
pub(crate) mod confine;
mod exchange;
mod parent;
pub(crate) mod wire;

pub use child::run;
pub(super) use exchange::exchange;
pub(super) use parent::{Failure, Helper};

/// The one argument of the helper process; `main` passes it on to [`run`] before it looks at anything else.
pub const ARGUMENT: &str = "check-monitor";
