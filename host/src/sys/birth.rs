//! When a process has started, in clock ticks since the boot, without asking the kernel for it.
//!
//! The kernel tells in `/proc/PID/stat`, which takes it 12 µs: it looks the process up, makes up the whole line, and
//! has to forget what it has looked up when the process ends. A child's start lies between two readings of the same
//! clock, one before the fork and one by the child itself. Where both are in the same tick, and that is nearly always,
//! that tick is it. Whether this is true here is found out with the first child.

use super::{clock, family};
use std::sync::atomic::{AtomicU64, Ordering};

/// Works out when children have started.
#[derive(Debug, Default)]
pub(crate) struct Births {
    /// Whether the kernel said the same of an earlier child.
    agreed: Option<bool>,
}

/// One child that is about to be started.
#[derive(Debug)]
pub(crate) struct Birth {
    before_ns: u64,
    /// The child's first reading of the clock of [`clock::boot_ns`]; 0: it could not tell.
    pub(crate) alive_ns: AtomicU64,
}

impl Birth {
    /// To be made right before the fork.
    pub(crate) fn expect() -> Self {
        Self { before_ns: clock::boot_ns(), alive_ns: AtomicU64::new(0) }
    }

    fn tick(&self) -> Option<u64> {
        let tick_ns = tick_ns()?;
        let (before, alive) = (self.before_ns / tick_ns, self.alive_ns.load(Ordering::SeqCst) / tick_ns);
        (before == alive && before > 0).then_some(before)
    }
}

impl Births {
    /// When this child has started; 0: nobody knows.
    pub(crate) fn started(&mut self, pid: i32, birth: &Birth) -> u64 {
        let tick = birth.tick();
        if let (Some(tick), Some(true)) = (tick, self.agreed) {
            return tick;
        }
        let told = family::stat(pid).map_or(0, |stat| stat.started);
        if let Some(tick) = tick.filter(|_| told != 0) {
            self.agreed.get_or_insert(tick == told);
        }
        told
    }
}

/// The clock tick of this moment; 0: that is not known.
pub(crate) fn tick_now() -> u64 {
    tick_ns().map_or(0, |tick_ns| clock::boot_ns() / tick_ns)
}

/// How long a tick is; `None`: no whole number of nanoseconds.
fn tick_ns() -> Option<u64> {
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten()?;
    let per_second = u64::try_from(per_second).ok().filter(|ticks| *ticks > 0)?;
    1_000_000_000_u64.is_multiple_of(per_second).then(|| 1_000_000_000 / per_second)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_childs_start_is_worked_out_as_the_kernel_tells_it() {
        let mut births = Births::default();
        for _ in 0..50 {
            let birth = Birth::expect();
            let mut child = std::process::Command::new("/bin/sleep").arg("100").spawn().unwrap();
            birth.alive_ns.store(clock::boot_ns(), Ordering::SeqCst);
            let pid = i32::try_from(child.id()).unwrap();
            let (told, worked_out) = (family::stat(pid).unwrap().started, births.started(pid, &birth));
            child.kill().unwrap();
            child.wait().unwrap();
            assert_eq!(told, worked_out);
        }
        assert_eq!(births.agreed, Some(true), "it was asked each time");
    }

    #[test]
    fn a_clock_that_the_kernel_does_not_agree_with_is_never_trusted() {
        let own = i32::try_from(std::process::id()).unwrap();
        let told = family::stat(own).unwrap().started;
        let mut births = Births::default();
        for _ in 0..2 {
            let wrong_ns = clock::boot_ns() / 2;
            let birth = Birth { before_ns: wrong_ns, alive_ns: AtomicU64::new(wrong_ns) };
            assert_eq!(births.started(own, &birth), told);
        }
        assert_eq!(births.agreed, Some(false));
    }
}
