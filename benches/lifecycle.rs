//! How many steps a second the pump's decisions take, without anything being done about them.
//!
//! `cargo bench -p immortal-benches --bench lifecycle`
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program that prints a table")]

use immortal_benches::{is_trial, medians};
use std::time::Instant;

fn main() {
    let deaths = if is_trial() { 100 } else { 1_000_000 };
    // A death that is followed by a respawn at once, and one that is followed by a pause.
    let cases = [("stable runs", true), ("unstable runs", false)];
    let rates = medians(&cases, |(_, is_stable)| {
        let start = Instant::now();
        let steps = immortal::bench::respawns(deaths, *is_stable);
        let seconds = start.elapsed().as_secs_f64();
        [f64::from(steps) / seconds, f64::from(deaths) / seconds]
    });
    for ((name, _), [steps, respawns]) in cases.iter().zip(rates) {
        println!("{name:14} {:6.1} M steps/s  {:6.1} M respawns/s", steps / 1e6, respawns / 1e6);
    }
}
