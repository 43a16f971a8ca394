//! Goes through everything that can happen to a daemon: from every state that can be reached, all single
//! occurrences and all pairs of which the machine hears in one go.

use super::world::{Beginning, Luck, Occurrence, Promise, World};
use crate::daemon::life::Life;
use std::collections::HashMap;
use std::sync::OnceLock;

/// A machine and its world, with how they came to be.
pub(super) struct Reached {
    pub(super) machine: Life,
    pub(super) world: World,
    from: Option<(usize, Vec<Occurrence>, Luck)>,
}

/// Everything that was reached.
pub(super) struct Explored {
    pub(super) reached: Vec<Reached>,
    broken: Vec<(Promise, String)>,
}

/// Everything, once for all tests of this program.
pub(super) fn everything() -> &'static Explored {
    static EXPLORED: OnceLock<Explored> = OnceLock::new();
    EXPLORED.get_or_init(explore)
}

impl Explored {
    /// How one of them was reached.
    pub(super) fn history(&self, index: usize) -> String {
        let reached = &self.reached[index];
        match &reached.from {
            None => format!("{:?}", reached.world),
            Some((before, batch, luck)) => {
                format!("{}\n{batch:?} with {luck:?}: {:?}", self.history(*before), reached.machine.phase())
            }
        }
    }

    /// What was found of a promise.
    pub(super) fn expect(&self, promise: Promise) {
        if let Some((_, history)) = self.broken.iter().find(|(broken, _)| *broken == promise) {
            panic!("{promise:?} was broken:\n{history}");
        }
        assert!(self.reached.len() > 200, "only {} states were reached", self.reached.len());
    }
}

fn explore() -> Explored {
    let mut explored = Explored { reached: Vec::new(), broken: Vec::new() };
    let mut seen = HashMap::new();
    for beginning in Beginning::all() {
        let (machine, world) = World::begin(beginning);
        seen.insert((machine.clone(), world.clone()), ());
        explored.reached.push(Reached { machine, world, from: None });
    }
    let mut next = 0;
    while next < explored.reached.len() {
        let (machine, world) = (explored.reached[next].machine.clone(), explored.reached[next].world.clone());
        // A bound on the count keeps the number of states finite.
        let expand = world.left.is_none() && machine.unstable() < 4;
        let possible = if expand { world.possible() } else { Vec::new() };
        let mut batches: Vec<Vec<Occurrence>> = possible.iter().map(|first| vec![*first]).collect();
        for first in &possible {
            let mut after = world.clone();
            after.occur(*first);
            batches.extend(after.possible().into_iter().map(|second| vec![*first, second]));
        }
        for batch in batches {
            for (starts, gone) in [(true, false), (true, true), (false, false), (false, true)] {
                let luck = Luck { starts, gone };
                let (mut machine, mut world) = (machine.clone(), world.clone());
                for promise in world.run(&mut machine, &batch, luck) {
                    if explored.broken.iter().all(|(known, _)| *known != promise) {
                        let history = explored.history(next);
                        explored.broken.push((promise, format!("{history}\n{batch:?} with {luck:?}")));
                    }
                }
                if seen.insert((machine.clone(), world.clone()), ()).is_none() {
                    let from = Some((next, batch.clone(), luck));
                    explored.reached.push(Reached { machine, world, from });
                }
            }
        }
        next += 1;
    }
    explored
}
