//! The two clocks: one to measure spans with, one to say when something was.

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock).expect("a POSIX system has this clock");
    Duration::from(time)
}

/// Reads `CLOCK_MONOTONIC`, in nanoseconds.
pub(crate) fn monotonic_ns() -> u64 {
    u64::try_from(read(ClockId::CLOCK_MONOTONIC).as_nanos()).unwrap_or(u64::MAX)
}

/// Reads the clock by which the system says when a process has started, in nanoseconds since the boot.
pub(crate) fn boot_ns() -> u64 {
    #[cfg(target_os = "linux")]
    let clock = ClockId::CLOCK_BOOTTIME;
    #[cfg(not(target_os = "linux"))]
    let clock = ClockId::CLOCK_MONOTONIC;
    u64::try_from(read(clock).as_nanos()).unwrap_or(u64::MAX)
}

/// A moment of the wall clock as people and programs write it, in UTC.
pub(crate) fn rfc3339(wall_ns: u64) -> String {
    Timestamp::from_nanosecond(i128::from(wall_ns)).map_or_else(|_| String::new(), |at| format!("{at:.3}"))
}

/// Reads the wall clock, in nanoseconds since 1970-01-01 UTC.
pub(crate) fn wall_ns() -> u64 {
    u64::try_from(read(ClockId::CLOCK_REALTIME).as_nanos()).unwrap_or(u64::MAX)
}
