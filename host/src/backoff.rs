//! How long to pause before another attempt, for processes and pumps alike.

use crate::launch::Policy;
use std::time::Duration;

/// The pause after this many unstable deaths in a row: none after the first, then doubling.
pub(crate) fn pause(policy: &Policy, unstable: u32, jitter: u16) -> Duration {
    let Some(doublings) = unstable.checked_sub(2) else { return Duration::ZERO };
    let first = policy.backoff.min(policy.backoff_max);
    let double = |pause: Duration, _| pause.saturating_mul(2).min(policy.backoff_max);
    // After so many doublings even a nanosecond has become the longest span there is.
    let nominal = (0..doublings.min(94)).fold(first, double);
    nominal.saturating_add((nominal / 1000).saturating_mul(u32::from(jitter.min(200))))
}
