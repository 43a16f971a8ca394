//! What `cargo bench` needs of the inside. No part of the public interface.

use crate::launch::{Policy, Strategy};
use crate::lifecycle::{Event, Inherited, Lifecycle, Phase, Timer};
use std::hint::black_box;
use std::time::Duration;

/// Takes a pump through this many deaths of its process, and returns how many steps those were.
///
/// # Panics
/// If the process was not respawned after every one.
#[must_use]
pub fn respawns(deaths: u32, are_runs_stable: bool) -> u32 {
    let policy = Policy::default();
    let ran = if are_runs_stable { policy.stable } else { Duration::ZERO };
    let (mut lifecycle, _) = Lifecycle::new(policy, Strategy::Daemon, Inherited::default());
    let mut steps = 0;
    let mut step = |event| {
        steps += 1;
        black_box(lifecycle.step(black_box(event)));
        lifecycle.phase()
    };
    step(Event::MonitorsReady);
    step(Event::Spawned);
    for _ in 0..deaths {
        step(Event::ProcessDied { ran, success: false, jitter: 100 });
        step(Event::Delivered);
        if step(Event::Cleared { everyone: false }) == Phase::Pausing {
            step(Event::Elapsed(Timer::Backoff));
            step(Event::RelayHeld);
        }
        assert_eq!(step(Event::Spawned), Phase::Running);
    }
    steps
}
