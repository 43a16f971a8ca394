//! Waiting for a recorded fact with a deadline, and the pattern that the puppet writes.

use std::time::{Duration, Instant};

/// How long a fact may take to appear before a test fails. Generous: the machine may be busy with other tests.
pub const DEADLINE: Duration = Duration::from_secs(20);

const PAUSE: Duration = Duration::from_millis(5);

/// Calls `look` until it finds something and returns that.
///
/// # Panics
/// After [`DEADLINE`], naming what was waited for.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited {} s in vain for: {what}", DEADLINE.as_secs());
        std::thread::sleep(PAUSE);
    }
}

/// Waits until `look` holds at every look of a whole span. For facts about what does *not* happen any more, and
/// for states that pass through good-looking moments before they settle.
///
/// # Panics
/// After [`DEADLINE`] without such a span.
#[track_caller]
pub fn holds_for(span: Duration, what: &str, mut look: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE + span;
    let mut since = Instant::now();
    loop {
        if !look() {
            since = Instant::now();
        } else if since.elapsed() >= span {
            return;
        }
        assert!(Instant::now() < until, "never settled within {} s: {what}", DEADLINE.as_secs());
        std::thread::sleep(PAUSE);
    }
}

/// The first bytes of the pattern that the puppet writes: every byte value occurs, and a lost, doubled or swapped
/// part shows.
#[must_use]
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(7) ^ (at / 251)).to_le_bytes()[0]).collect()
}
