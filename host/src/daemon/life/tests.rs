//! All histories of a daemon's life against a small model of the world around it.

mod explore;
mod group;
mod kept;
mod promises;
mod stories;
mod together;
mod world;
