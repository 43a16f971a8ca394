//! `--hook-timeout`: whether a hook has been running for too long.
//!
//! The relay notes every hook on the state page anyway. The main thread looks there four times in the span that a
//! hook may take, for as long as the relay does not rest; while it rests nobody looks, and nothing wakes up. Looks are
//! counted rather than a span measured, so that a pump that was stopped for a while (SIGSTOP, a debugger, a frozen
//! container) does not take that for a slow hook.

use crate::delivery::InHook;
use std::time::{Duration, Instant};

/// How many looks there are in the span that a hook may take.
const LOOKS: u32 = 4;

/// When to look next, and what was seen so far.
#[derive(Debug)]
pub(super) struct Deadline {
    within: Duration,
    /// None: the relay rests.
    next: Option<Instant>,
    /// The number of the hook that was last seen running, and how often it was.
    seen: Option<(u64, u32)>,
}

impl Deadline {
    /// Looks from now on.
    pub(super) fn new(within: Duration, now: Instant) -> Self {
        let mut deadline = Self { within, next: None, seen: None };
        deadline.arm(now);
        deadline
    }

    /// How long a hook may take.
    pub(super) fn within(&self) -> Duration {
        self.within
    }

    /// When to look next, if the relay does not rest.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// The relay does not rest any more, or still does not.
    pub(super) fn arm(&mut self, now: Instant) {
        self.next = now.checked_add(self.within / LOOKS);
    }

    /// The relay rests: there is no hook to wait for.
    pub(super) fn disarm(&mut self) {
        self.next = None;
        self.seen = None;
    }

    /// Takes one look: how many hooks were called so far, and the one that has not returned, if there is one. True:
    /// it has been running for the whole span.
    pub(super) fn look(&mut self, now: Instant, calls: u64, in_hook: Option<InHook>) -> bool {
        let times = match self.seen {
            Some((seen, times)) if seen == calls => times + 1,
            Some(_) | None => 1,
        };
        self.seen = in_hook.map(|_| (calls, times));
        self.arm(now);
        in_hook.is_some() && times > LOOKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Hook;

    const WITHIN: Duration = Duration::from_millis(400);
    const STDOUT: Option<InHook> = Some(InHook { monitor: 0, hook: Hook::Stdout });

    /// Looks whenever it is time to, until the time of a hook is up or the relay rests; `calls` says what there is to
    /// be seen at this moment.
    fn looks(calls: impl Fn(Duration) -> Option<(u64, Option<InHook>)>) -> Option<Duration> {
        let start = Instant::now();
        let mut deadline = Deadline::new(WITHIN, start);
        for _ in 0..100 {
            let now = deadline.next().expect("the relay does not rest");
            let (calls, in_hook) = calls(now - start)?;
            if deadline.look(now, calls, in_hook) {
                return Some(now - start);
            }
        }
        None
    }

    #[test]
    fn a_hook_that_hangs_is_found_between_the_span_and_a_quarter_more() {
        for begin in [0, 1, 99, 100, 101, 250] {
            let begin = Duration::from_millis(begin);
            let found = looks(|at| Some(if at >= begin { (8, STDOUT) } else { (7, None) })).unwrap();
            let took = found - begin;
            assert!(took >= WITHIN && took <= WITHIN * 5 / 4, "{took:?} after {begin:?}");
        }
    }

    #[test]
    fn one_hook_after_the_other_is_no_hook_that_hangs() {
        assert_eq!(looks(|at| Some((u64::try_from(at.as_millis()).unwrap() / 399, STDOUT))), None);
    }

    #[test]
    fn a_relay_that_waits_for_something_else_than_a_hook_is_left_alone() {
        assert_eq!(looks(|_| Some((7, None))), None);
    }

    #[test]
    fn a_pump_that_was_stopped_looks_again_before_it_judges() {
        let start = Instant::now();
        let mut deadline = Deadline::new(WITHIN, start);
        let late = start + Duration::from_secs(3600);
        assert!(!deadline.look(start + WITHIN / 4, 1, STDOUT));
        assert!(!deadline.look(late, 1, STDOUT));
        assert_eq!(deadline.next(), Some(late + WITHIN / 4));
    }

    #[test]
    fn what_was_seen_before_a_rest_does_not_count_after_it() {
        let start = Instant::now();
        let mut deadline = Deadline::new(WITHIN, start);
        for _ in 0..LOOKS {
            assert!(!deadline.look(start, 1, STDOUT));
        }
        deadline.disarm();
        assert_eq!(deadline.next(), None);
        assert!(!deadline.look(start, 1, STDOUT));
    }
}
