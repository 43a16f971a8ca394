//! What must come to pass from every state that can be reached, however unkind the world is.

use super::explore::{Explored, Mixing, everything, fingerprint};
use super::given::{Luck, Occurrence};
use super::world::{Process, World};
use crate::launch::Strategy;
use crate::lifecycle::{Goal, Lifecycle, Outcome, Phase, Timer};
use std::collections::HashMap;

/// How many occurrences it may take.
const MOST: usize = 20;

/// What the world does when something is expected of it. Nobody does anything unasked.
#[derive(Debug, Clone, Copy)]
struct Manner {
    /// The relay hangs in a hook for ever.
    relay_hangs: bool,
    /// How many SIGKILLs it takes to end the process and its descendants: 1: the stop signal is ignored, 2: they
    /// forked while everyone was being killed.
    kills: u8,
    /// Timers run out before anything else happens.
    timers_first: bool,
}

const KIND: Manner = Manner { relay_hangs: false, kills: 0, timers_first: false };

impl Manner {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for relay_hangs in [false, true] {
            for kills in 0..=2 {
                all.extend([false, true].map(|timers_first| Self { relay_hangs, kills, timers_first }));
            }
        }
        all
    }

    /// What comes next: the one of the lowest rank.
    fn next(self, world: &World) -> Option<Occurrence> {
        let ranked = world.possible().into_iter().filter_map(|what| Some((self.rank(world, what)?, what)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, what)| what)
    }

    fn rank(self, world: &World, occurrence: Occurrence) -> Option<u8> {
        match occurrence {
            // It begins anew for as long as somebody is left.
            Occurrence::Elapses(Timer::Stop) if world.kills == 2 => Some(5),
            Occurrence::Elapses(_) if self.timers_first => Some(0),
            Occurrence::MonitorsReady | Occurrence::RelayAnswers => (!self.relay_hangs).then_some(1),
            Occurrence::EndIsSeen | Occurrence::Dismiss => Some(1),
            Occurrence::ProcessDies { .. } => (world.asked && world.kills >= self.kills).then_some(2),
            Occurrence::AllCleared => (world.kills >= self.kills).then_some(3),
            Occurrence::Elapses(_) => Some(4),
            Occurrence::HookFails
            | Occurrence::SaysReady
            | Occurrence::Restart
            | Occurrence::Shutdown
            | Occurrence::Term
            | Occurrence::Interrupt
            | Occurrence::DaemonDies
            | Occurrence::Yield
            | Occurrence::DaemonGetsTerm => None,
        }
    }
}

/// From every reached state that `from` chooses, in this manner, `goal` is reached soon. `first` comes before.
fn leads(
    manner: Manner,
    first: Option<Occurrence>,
    from: impl Fn(&Lifecycle, &World) -> bool,
    goal: impl Fn(&Lifecycle, &World) -> bool,
) {
    let explored = everything();
    let mut known = Known::default();
    let mut tried = 0;
    for (index, reached) in explored.reached.iter().enumerate() {
        if !from(&reached.machine, &reached.world) {
            continue;
        }
        tried += 1;
        if first.is_none() && known.contains_key(&reached.fingerprint) {
            continue;
        }
        let (mut machine, mut world) = (reached.machine.clone(), reached.world.clone());
        if let Some(first) = first {
            world.run(&mut machine, &[first], Luck::PLAIN);
        }
        follow(manner, &mut known, &goal, machine, world)
            .unwrap_or_else(|path| fail(explored, index, manner, &path));
    }
    assert!(tried > 100, "only {tried} states to begin from");
}

fn fail(explored: &Explored, index: usize, manner: Manner, path: &[Passed]) -> usize {
    panic!("{}\nthen, {manner:?}:\n{path:#?}", explored.history(index))
}

/// Where the pump was and what came next.
type Passed = (Phase, Goal, Option<Occurrence>);

/// How many occurrences it takes from states that were passed.
type Known = HashMap<u64, usize, Mixing>;

/// How many occurrences it takes from here; `known`: from where it was found out before.
fn follow(
    manner: Manner,
    known: &mut Known,
    goal: &impl Fn(&Lifecycle, &World) -> bool,
    mut machine: Lifecycle,
    mut world: World,
) -> Result<usize, Vec<Passed>> {
    let mut path = Vec::new();
    let mut passed = Vec::new();
    let distance = loop {
        if goal(&machine, &world) {
            break 0;
        }
        let here = fingerprint(&machine, &world);
        if let Some(distance) = known.get(&here) {
            break *distance;
        }
        passed.push(here);
        let next = manner.next(&world);
        path.push((machine.phase(), machine.goal, next));
        let (Some(next), true) = (next, path.len() <= MOST) else { return Err(path) };
        world.run(&mut machine, &[next], Luck::PLAIN);
    };
    let total = distance + passed.len();
    for (steps, here) in passed.into_iter().rev().enumerate() {
        known.insert(here, distance + steps + 1);
    }
    if total <= MOST { Ok(total) } else { Err(path) }
}

fn has_left(_: &Lifecycle, world: &World) -> bool {
    world.is_over()
}

#[test]
fn a_group_that_is_to_end_has_ended_soon_however_relay_and_process_behave() {
    for manner in Manner::all() {
        leads(
            manner,
            None,
            |_, world| world.shutdown,
            |_, world| match world.left {
                Some(Outcome::Ended | Outcome::GaveUp | Outcome::StartFailed) => true,
                // The daemon counts how many pumps may try.
                Some(Outcome::Crashed) => world.has_heir(),
                Some(Outcome::Yielded) => world.has_daemon(),
                Some(Outcome::Failed | Outcome::Killed | Outcome::HandedOver) | None => false,
            },
        );
    }
}

#[test]
fn a_pump_without_its_daemon_has_left_soon_however_relay_and_process_behave() {
    for manner in Manner::all() {
        leads(manner, None, |_, world| world.daemon_death && !world.shutdown, has_left);
    }
}

#[test]
fn a_group_whose_monitor_failed_has_left_soon_however_the_process_behaves() {
    for manner in Manner::all().into_iter().filter(|manner| !manner.relay_hangs) {
        leads(manner, Some(Occurrence::HookFails), |_, _| true, has_left);
    }
}

/// The group goes on and this pump stays.
fn goes_on(machine: &Lifecycle, world: &World) -> bool {
    let stays =
        !(world.shutdown || world.daemon_death || world.terminated || world.yields || machine.is_ending());
    stays && machine.phase() != Phase::Finishing
}

#[test]
fn a_process_that_died_runs_again_or_is_held_soon() {
    for kills in 0..=2 {
        leads(Manner { kills, ..KIND }, None, goes_on, |machine, world| {
            let development = world.rules.strategy == Strategy::Development;
            let runs = machine.phase() == Phase::Running && world.process == Process::Alive;
            let settled = runs || machine.phase() == Phase::Held;
            let gave_up = world.left == Some(Outcome::GaveUp);
            settled || gave_up || (development && world.left == Some(Outcome::Ended))
        });
    }
}

#[test]
fn a_restart_that_was_asked_for_ends_in_a_running_process() {
    for kills in 0..=2 {
        leads(Manner { kills, ..KIND }, Some(Occurrence::Restart), goes_on, |machine, world| {
            machine.phase() == Phase::Running && world.process == Process::Alive && !world.restart
        });
    }
}

#[test]
fn a_process_that_was_kept_is_taken_over_and_reported_soon() {
    let kept = |machine: &Lifecycle, world: &World| world.kept && goes_on(machine, world);
    leads(KIND, None, kept, |machine, world| {
        let reported = machine.phase() == Phase::Running && (!world.kept || world.is_reported());
        reported || machine.phase() == Phase::Held || world.left == Some(Outcome::GaveUp)
    });
}

#[test]
fn a_pump_that_is_to_make_way_for_another_one_has_left_soon_however_relay_and_process_behave() {
    for manner in Manner::all() {
        leads(
            manner,
            None,
            |_, world| world.yields,
            |machine, world| {
                // A relay that hangs then, and has not been found out before, the daemon does not wait for.
                let hangs = manner.relay_hangs && !world.hung && machine.phase() == Phase::Holding;
                world.is_over() || hangs
            },
        );
    }
}

#[test]
fn a_pump_whose_daemon_dies_is_the_daemon_at_once_and_the_process_knows_nothing() {
    let there = |machine: &Lifecycle, world: &World| {
        world.rules.keeps && world.group_started && goes_on(machine, world) && world.has_daemon()
    };
    leads(KIND, Some(Occurrence::DaemonDies), there, |machine, world| {
        world.became && machine.phase() != Phase::Over
    });
}

#[test]
fn sigterm_to_a_pump_alone_kills_it_and_sigterm_to_its_daemon_too_ends_the_group() {
    let told = |_: &Lifecycle, world: &World| {
        let daemon = world.rules.strategy == Strategy::Daemon;
        daemon && world.terminated && !world.shutdown && !world.daemon_death && world.is_armed(Timer::Term)
    };
    leads(KIND, None, told, |machine, world| {
        // A start that fails meanwhile may be faster.
        matches!(world.left, Some(Outcome::Killed | Outcome::GaveUp | Outcome::Yielded))
            || (machine.phase() == Phase::Over && !world.group_started)
    });
    leads(KIND, Some(Occurrence::DaemonGetsTerm), told, |_, world| {
        let ended = matches!(world.left, Some(Outcome::Ended | Outcome::GaveUp | Outcome::Yielded));
        if world.group_started { ended } else { world.left == Some(Outcome::StartFailed) }
    });
}
