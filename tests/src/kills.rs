//! Kills the roles of a group that keeps its process, again and again, at random moments. `IMMORTAL_TEST_KILLS` says
//! how often, `IMMORTAL_TEST_SEED` at which moments; a failed test tells its seed.

use crate::group::{Group, Pids, Role};
use crate::process::Process;
use crate::wait::eventually;
use nix::sys::signal::Signal;
use std::time::Duration;

/// Numbers that look random and are the same for the same seed.
#[derive(Debug, Clone)]
pub struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    /// Begins with the seed in `IMMORTAL_TEST_SEED`, else with this one.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let given = std::env::var("IMMORTAL_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let seed: u64 = given.unwrap_or(seed);
        // Zero would stay zero.
        Self { seed, state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    /// What it began with.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The next number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        // xorshift64, whose low bits are the weak ones.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 16) % bound
    }
}

/// Kills pump and daemon in turn.
#[derive(Debug)]
pub struct Kills<'a> {
    group: &'a Group<'a>,
    random: Random,
    process: i32,
    done: u64,
    victim: Option<Process>,
}

impl<'a> Kills<'a> {
    /// Begins; the process is to stay the one that runs now.
    #[must_use]
    #[track_caller]
    pub fn new(group: &'a Group<'a>, seed: u64) -> Self {
        let process = group.pids().of(Role::Process);
        Self { group, random: Random::new(seed), process, done: 0, victim: None }
    }

    /// How many kills a test is to do: what `IMMORTAL_TEST_KILLS` says, else this number.
    #[must_use]
    pub fn wanted(default: u64) -> u64 {
        std::env::var("IMMORTAL_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    }

    /// Kills the one whose turn it is; see [`Kills::kill_role`].
    #[track_caller]
    pub fn kill(&mut self) {
        self.kill_role(if self.done.is_multiple_of(2) { Role::Monitor } else { Role::Daemon });
    }

    /// Kills once more: waits until pump and daemon are there, then up to 20 ms, then kills one of them.
    ///
    /// # Panics
    /// If they do not come, or the process is another one.
    #[track_caller]
    pub fn kill_role(&mut self, role: Role) {
        let pids = self.settle();
        std::thread::sleep(Duration::from_micros(self.random.below(20_000)));
        self.victim = Process::find(pids.of(role));
        if let Some(victim) = self.victim {
            victim.signal(Signal::SIGKILL);
        }
        self.done += 1;
    }

    /// Kills so many times.
    #[track_caller]
    pub fn kill_times(&mut self, times: u64) {
        for _ in 0..times {
            self.kill();
        }
    }

    /// Waits until whoever was killed last has a successor and both roles are there.
    ///
    /// # Panics
    /// If they do not come, or the process is another one.
    #[track_caller]
    pub fn settle(&self) -> Pids {
        let what = format!("both roles after {self}");
        let pids = eventually(&what, || {
            // It is there for a moment after it was killed.
            if self.victim.is_some_and(|victim| !victim.is_gone()) {
                return None;
            }
            let pids = listed(self.group)?;
            (pids.monitor.is_some() && pids.daemon.is_some()).then_some(pids)
        });
        assert_eq!(pids.process, Some(self.process), "the process after {self}");
        pids.members().into_iter().for_each(|member| self.group.sandbox.adopt(member));
        pids
    }
}

impl std::fmt::Display for Kills<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} kills with seed {}", self.done, self.random.seed())
    }
}

/// What `list --json` says of a group's pids.
fn listed(group: &Group<'_>) -> Option<Pids> {
    let list = group.sandbox.immortal(["list", "--json"]).run();
    list.assert_code(0);
    let all = list.json();
    let found = all.as_array()?.iter().find(|one| one["name"] == group.name.as_str())?;
    Some(Pids::from_json(&found["pids"]))
}
