//! All histories of a pump's life against a small model of the world around it.

mod explore;
mod given;
mod liveness;
mod pauses;
mod promises;
mod random;
mod world;
