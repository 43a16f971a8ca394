//! How everything that `cargo bench` runs is timed: each case once a round, and the median of the rounds.
//!
//! What disturbs a round disturbs all its cases, so a ratio holds on a busy machine where a number of its own does
//! not. No statistics beyond that, and no crate for it: these tables are read by people who look for a factor.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "programs that print tables")]

use std::path::PathBuf;

const ROUNDS: usize = 7;

/// Whether this is no measurement but a look whether it works: without the `--bench` that `cargo bench` adds, as in
/// `cargo test`, and with `cargo bench -- --test`.
#[must_use]
pub fn is_trial() -> bool {
    let has = |wanted: &str| std::env::args().any(|argument| argument == wanted);
    has("--test") || !has("--bench")
}

/// Where files are written: `BENCH_DIR`, or else memory where there is some, so that no disk is measured.
#[must_use]
pub fn directory() -> PathBuf {
    let shm = PathBuf::from("/dev/shm");
    let default = if shm.is_dir() { shm } else { std::env::temp_dir() };
    std::env::var_os("BENCH_DIR").map_or(default, PathBuf::from)
}

/// Takes `N` numbers of every case, round by round, and returns the median of each.
pub fn medians<Case, const N: usize>(
    cases: &[Case],
    mut measure: impl FnMut(&Case) -> [f64; N],
) -> Vec<[f64; N]> {
    let rounds = if is_trial() { 1 } else { ROUNDS };
    if is_trial() {
        println!("one short round, to see whether it works; the numbers mean nothing");
    }
    let mut samples = vec![[const { Vec::new() }; N]; cases.len()];
    for _ in 0..rounds {
        for (case, samples) in cases.iter().zip(&mut samples) {
            for (samples, sample) in samples.iter_mut().zip(measure(case)) {
                samples.push(sample);
            }
        }
    }
    samples.into_iter().map(|numbers| numbers.map(median)).collect()
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_one_in_the_middle() {
        assert_eq!(median(vec![3.0]).to_bits(), 3.0_f64.to_bits());
        assert_eq!(median(vec![9.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
    }
}
