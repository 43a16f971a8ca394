//! Monitors for immortal.
pub mod abi;
