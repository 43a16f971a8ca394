//! What monitors have done to pumps, and what follows: bytes are set aside that a monitor dies of again and again,
//! and so is a monitor that dies too often. No I/O, no clock.

use super::blame::Culprit;
use crate::delivery::Hook;
use std::time::{Duration, Instant};

/// So often in a row the delivery of the same bytes may end a pump.
const SAME_BYTES: u32 = 3;

/// The bytes that were being delivered: stream and offset of the chunk.
pub(super) type Place = (usize, u64);

/// Deaths of pumps for which a monitor is to blame.
#[derive(Debug)]
pub(super) struct Faults {
    /// So many within the window set a monitor aside; 0: never.
    most: u32,
    window: Duration,
    deaths: Vec<Death>,
    /// The monitor and the bytes it died of last, and how many times in a row.
    same: Option<(usize, Place, u32)>,
}

#[derive(Debug)]
struct Death {
    monitor: usize,
    at: Instant,
    /// Neither this pump nor one after it was ready: what takes longer than the window must not be forgotten by it.
    unready: bool,
}

/// What follows from a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Consequence {
    /// The bytes are to be set aside for this monitor.
    pub(super) bytes: bool,
    /// The monitor is to be set aside.
    pub(super) monitor: bool,
}

impl Faults {
    pub(super) fn new(most: u32, window: Duration) -> Self {
        Self { most, window, deaths: Vec::new(), same: None }
    }

    /// A monitor has ended a pump, at this moment, while these bytes were being delivered.
    pub(super) fn died(
        &mut self,
        culprit: Culprit,
        place: Option<Place>,
        was_ready: bool,
        now: Instant,
    ) -> Consequence {
        let monitor = culprit.monitor;
        self.deaths.retain(|death| death.unready || now.saturating_duration_since(death.at) <= self.window);
        self.deaths.push(Death { monitor, at: now, unready: !was_ready });
        let of_monitor = self.deaths.iter().filter(|death| death.monitor == monitor).count();
        let bytes = match place.filter(|_| culprit.hook.is_some_and(Hook::is_output)) {
            Some(place) => self.died_of(monitor, place),
            None => {
                self.same = None;
                false
            }
        };
        let too_often = self.most > 0 && of_monitor >= usize::try_from(self.most).unwrap_or(usize::MAX);
        if too_often {
            self.forgive(monitor);
        }
        Consequence { bytes, monitor: too_often }
    }

    fn died_of(&mut self, monitor: usize, place: Place) -> bool {
        let before = match self.same {
            Some((whose, what, count)) if (whose, what) == (monitor, place) => count,
            Some(_) | None => 0,
        };
        self.same = Some((monitor, place, before + 1));
        if before + 1 < SAME_BYTES {
            return false;
        }
        self.same = None;
        true
    }

    /// A pump has got ready: those before it that did not count for the window only.
    pub(super) fn got_ready(&mut self) {
        self.deaths.iter_mut().for_each(|death| death.unready = false);
    }

    /// Forgets what a monitor did: it begins anew.
    pub(super) fn forgive(&mut self, monitor: usize) {
        self.deaths.retain(|death| death.monitor != monitor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STDOUT: Culprit = Culprit { monitor: 1, hook: Some(Hook::Stdout) };
    const EXIT: Culprit = Culprit { monitor: 1, hook: Some(Hook::Exit) };
    const OWN: Culprit = Culprit { monitor: 1, hook: None };

    fn faults() -> (Faults, Instant) {
        (Faults::new(5, Duration::from_secs(60)), Instant::now())
    }

    #[test]
    fn bytes_are_set_aside_the_third_time_in_a_row() {
        let (mut faults, now) = faults();
        let nothing = Consequence::default();
        assert_eq!(faults.died(STDOUT, Some((0, 7)), true, now), nothing);
        assert_eq!(faults.died(STDOUT, Some((0, 7)), true, now), nothing);
        assert_eq!(faults.died(STDOUT, Some((0, 7)), true, now), Consequence { bytes: true, monitor: false });
        assert_eq!(faults.died(STDOUT, Some((0, 7)), true, now), nothing);
    }

    #[test]
    fn other_bytes_another_monitor_or_another_hook_begin_a_new_row() {
        let others = [
            (STDOUT, Some((0, 8))),
            (STDOUT, Some((1, 7))),
            (Culprit { monitor: 0, ..STDOUT }, Some((0, 7))),
            (OWN, Some((0, 7))),
            (EXIT, Some((0, 7))),
            (EXIT, None),
        ];
        for (hook, place) in others {
            let (mut faults, now) = faults();
            faults.died(STDOUT, Some((0, 7)), true, now);
            faults.died(STDOUT, Some((0, 7)), true, now);
            assert!(!faults.died(hook, place, true, now).bytes);
            assert!(!faults.died(STDOUT, Some((0, 7)), true, now).bytes, "{hook:?} {place:?}");
        }
    }

    #[test]
    fn a_monitor_is_set_aside_when_it_dies_too_often_within_the_window() {
        let (mut faults, now) = faults();
        for second in 0..4 {
            assert!(!faults.died(EXIT, None, true, now + Duration::from_secs(second)).monitor);
            assert!(!faults.died(Culprit { monitor: 2, ..EXIT }, None, true, now).monitor);
        }
        assert!(faults.died(OWN, None, true, now + Duration::from_secs(5)).monitor);
        // It begins anew.
        assert!(!faults.died(EXIT, None, true, now + Duration::from_secs(6)).monitor);
    }

    #[test]
    fn deaths_long_ago_do_not_count() {
        let (mut faults, now) = faults();
        for number in 0..50 {
            assert!(!faults.died(EXIT, None, true, now + Duration::from_secs(16 * number)).monitor);
        }
    }

    #[test]
    fn zero_sets_no_monitor_aside() {
        let mut faults = Faults::new(0, Duration::from_secs(60));
        let now = Instant::now();
        assert!((0..100).all(|_| !faults.died(EXIT, None, true, now).monitor));
    }

    #[test]
    fn pumps_that_never_get_ready_count_however_long_they_take_until_one_is_ready() {
        let (mut faults, now) = faults();
        let dies = |faults: &mut Faults, number: u64| {
            faults.died(OWN, None, false, now + Duration::from_secs(31 * number)).monitor
        };
        assert!(!(0..4).any(|number| dies(&mut faults, number)));
        assert!(dies(&mut faults, 4));
        assert!(!(5..9).any(|number| dies(&mut faults, number)));
        faults.got_ready();
        assert!(!dies(&mut faults, 9));
    }
}
