//! Goes through everything that can happen to a pump: from every state that can be reached, all single
//! occurrences, and all pairs of which the machine hears in one go. What is found is shared by all tests.

use super::given::{Beginning, Luck, Occurrence, Promise, Went};
use super::world::World;
use crate::lifecycle::Lifecycle;
use std::collections::HashSet;
use std::fmt::Write;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::OnceLock;

/// Pairs are tried from what is reached in fewer steps than this.
const PAIRS: usize = 3;

/// A machine and its world, with how they came to be.
#[derive(Debug, Clone)]
pub(super) struct Reached {
    pub(super) machine: Lifecycle,
    pub(super) world: World,
    pub(super) fingerprint: u64,
    depth: usize,
    from: Option<(usize, Vec<Occurrence>, Luck)>,
}

/// Everything that was reached in which the pump lives.
pub(super) struct Explored {
    pub(super) reached: Vec<Reached>,
    /// The first breach of each promise.
    pub(super) broken: Vec<(Promise, String)>,
}

/// Everything, once for all tests of this program.
pub(super) fn everything() -> &'static Explored {
    static EXPLORED: OnceLock<Explored> = OnceLock::new();
    EXPLORED.get_or_init(explore)
}

impl Explored {
    /// How one of them was reached.
    pub(super) fn history(&self, index: usize) -> String {
        let mut lines = Vec::new();
        let mut at = index;
        while let Some((before, batch, luck)) = &self.reached[at].from {
            lines.push(line(batch, *luck, &self.reached[at].machine));
            at = *before;
        }
        lines.push(format!("{:?}", self.reached[at].world));
        lines.reverse();
        lines.join("\n")
    }

    /// What was found of a promise.
    pub(super) fn expect(&self, promise: Promise) {
        if let Some((_, history)) = self.broken.iter().find(|(broken, _)| *broken == promise) {
            panic!("{promise:?} was broken:\n{history}");
        }
        assert!(self.reached.len() > 1000, "only {} states were reached", self.reached.len());
    }
}

fn line(batch: &[Occurrence], luck: Luck, machine: &Lifecycle) -> String {
    format!("{batch:?} with {luck:?}: {:?}, {:?}", machine.phase(), machine.goal)
}

/// Tells one state from another.
pub(super) fn fingerprint(machine: &Lifecycle, world: &World) -> u64 {
    let mut mixer = Mixer::default();
    (machine, world).hash(&mut mixer);
    mixer.finish()
}

/// Much faster than the standard hasher, which withstands an attacker.
#[derive(Default)]
pub(super) struct Mixer(u64);

/// For tables of fingerprints.
pub(super) type Mixing = BuildHasherDefault<Mixer>;

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        self.0 = mixed ^ (mixed >> 29);
    }

    fn write_isize(&mut self, number: isize) {
        self.write_u64(number.cast_unsigned() as u64);
    }
}

fn explore() -> Explored {
    let mut explored = Explored { reached: Vec::new(), broken: Vec::new() };
    let mut seen = HashSet::default();
    for beginning in Beginning::all() {
        let (machine, world) = World::begin(beginning);
        let fingerprint = fingerprint(&machine, &world);
        seen.insert(fingerprint);
        explored.reached.push(Reached { machine, world, fingerprint, depth: 0, from: None });
    }
    let mut next = 0;
    while next < explored.reached.len() {
        let Reached { machine, world, depth, .. } = explored.reached[next].clone();
        // A bound on the count keeps the number of states finite.
        if machine.unstable() < 3 {
            let possible = world.possible();
            for first in &possible {
                explored.go(next, &[*first], &world, &mut seen);
                let others = possible.iter().filter(|second| *second != first && depth < PAIRS);
                for second in others {
                    explored.go(next, &[*first, *second], &world, &mut seen);
                }
            }
        }
        next += 1;
    }
    explored
}

impl Explored {
    fn go(&mut self, from: usize, batch: &[Occurrence], world: &World, seen: &mut HashSet<u64, Mixing>) {
        // One that was excluded by the other of the pair.
        if let [first, second] = batch {
            let mut after = world.clone();
            after.occur(*first);
            if !after.possible().contains(second) {
                return;
            }
        }
        let went = self.try_luck(from, batch, Luck::PLAIN, seen);
        if went.spawned {
            self.try_luck(from, batch, Luck { executes: false, ..Luck::PLAIN }, seen);
        }
        if went.became {
            self.try_luck(from, batch, Luck { becomes: false, ..Luck::PLAIN }, seen);
        }
        if went.cleared && batch.len() > 1 {
            self.try_luck(from, batch, Luck { group_gone: true, ..Luck::PLAIN }, seen);
            self.try_luck(from, batch, Luck { group_gone: true, everyone_gone: true, ..Luck::PLAIN }, seen);
        }
    }

    fn try_luck(
        &mut self,
        from: usize,
        batch: &[Occurrence],
        luck: Luck,
        seen: &mut HashSet<u64, Mixing>,
    ) -> Went {
        let Reached { mut machine, mut world, .. } = self.reached[from].clone();
        let mut went = world.run(&mut machine, batch, luck);
        if !world.agrees_on_held(&machine) {
            went.broken.push(Promise::HeldIsHandedOn);
        }
        for promise in &went.broken {
            if self.broken.iter().all(|(known, _)| known != promise) {
                let mut history = self.history(from);
                let _ = write!(history, "\n{}", line(batch, luck, &machine));
                self.broken.push((*promise, history));
            }
        }
        let fingerprint = fingerprint(&machine, &world);
        if !world.is_over() && seen.insert(fingerprint) {
            let depth = self.reached[from].depth + 1;
            self.reached.push(Reached {
                machine,
                world,
                fingerprint,
                depth,
                from: Some((from, batch.to_vec(), luck)),
            });
        }
        went
    }
}
