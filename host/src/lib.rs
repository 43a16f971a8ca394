//! Keeps a program alive and gives its output and its life events to monitors in shared libraries.
pub mod loader;
pub mod options;
