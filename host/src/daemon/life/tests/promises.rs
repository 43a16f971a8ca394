//! What holds in every history of a daemon, and what must come to pass.

use super::explore::everything;
use super::world::{Luck, Occurrence, Promise, Reload, World};
use crate::daemon::life::{Life, Outcome, Phase, Timer};

#[test]
fn there_is_one_pump_at_most() {
    everything().expect(Promise::OnePump);
}

#[test]
fn a_pump_is_spawned_only_when_all_that_the_last_one_left_is_gone() {
    everything().expect(Promise::SpawnAfterSweep);
}

#[test]
fn a_first_pump_that_dies_before_the_process_runs_is_not_replaced() {
    everything().expect(Promise::NoSpawnBeforeTheStart);
}

#[test]
fn no_pump_is_spawned_after_the_end_was_asked_for() {
    everything().expect(Promise::NoSpawnAfterShutdown);
}

#[test]
fn signals_are_sent_only_while_somebody_may_be_there_to_get_them() {
    everything().expect(Promise::SignalsTheLiving);
}

#[test]
fn nothing_follows_the_end_of_a_daemon() {
    everything().expect(Promise::NothingAfterLeave);
}

#[test]
fn a_group_ends_only_when_nothing_is_left_of_it() {
    everything().expect(Promise::NothingLeftAtTheEnd);
}

#[test]
fn a_daemon_dies_of_a_signal_only_while_a_pump_lives_that_replaces_it() {
    everything().expect(Promise::KilledWithAnHeir);
}

#[test]
fn a_start_has_failed_or_a_group_has_ended_as_it_was_asked_to() {
    everything().expect(Promise::OutcomeFits);
}

#[test]
fn a_process_that_is_to_be_kept_is_ended_only_when_somebody_asks_for_it() {
    everything().expect(Promise::KeptUntilAsked);
}

#[test]
fn what_a_pump_has_not_finished_is_finished_by_the_next_one() {
    everything().expect(Promise::SomeMayFinish);
}

#[test]
fn a_stop_is_not_held_up_by_pumps_that_crash_again_and_again() {
    everything().expect(Promise::FewMayFinish);
}

#[test]
fn a_reload_is_tried_once_and_kept_or_taken_back() {
    everything().expect(Promise::ReloadIsTriedOnce);
}

#[test]
fn a_daemon_that_leaves_in_order_has_settled_its_reload() {
    everything().expect(Promise::ReloadIsSettled);
}

/// How the world answers.
#[derive(Debug, Clone, Copy)]
struct Manner {
    /// SIGKILLs until everything is swept.
    kills: u8,
    timers_first: bool,
    /// Every pump dies before it has finished what it was to do.
    unfinished: bool,
}

impl Manner {
    fn all() -> Vec<Self> {
        let manner = |(kills, timers_first)| Self { kills, timers_first, unfinished: false };
        let mut all = [(0, false), (0, true), (1, false), (2, false), (2, true)].map(manner).to_vec();
        all.extend([0, 2].map(|kills| Self { kills, timers_first: false, unfinished: true }));
        all
    }
}

fn next(world: &World, manner: Manner) -> Option<Occurrence> {
    let Manner { kills, timers_first, unfinished } = manner;
    let rank = |occurrence: &Occurrence| match occurrence {
        Occurrence::Elapses(Timer::Stop) if world.kills == 2 => Some(5),
        Occurrence::Elapses(_) => Some(if timers_first { 0 } else { 4 }),
        Occurrence::PredecessorEnds | Occurrence::PumpYields => Some(1),
        // Where nothing is kept, nothing is left unfinished.
        Occurrence::PumpDies { unfinished: this, .. } => {
            world.asked.then_some(if *this == unfinished { 2 } else { 3 })
        }
        Occurrence::AllSwept => (world.kills >= kills).then_some(3),
        Occurrence::PumpStarts
        | Occurrence::PumpEndsGroup
        | Occurrence::PumpGivesUp
        | Occurrence::PumpGetsTerm
        | Occurrence::PumpFloods
        | Occurrence::PumpIsReady
        | Occurrence::Reload
        | Occurrence::Restart
        | Occurrence::Shutdown
        | Occurrence::Term
        | Occurrence::Interrupt => None,
    };
    let ranked = world.possible().into_iter().filter_map(|what| Some((rank(&what)?, what)));
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, what)| what)
}

/// From every reached state that `from` chooses, after `first`, `goal` is reached within a few occurrences.
fn leads(
    from: impl Fn(&Life, &World) -> bool,
    first: Option<Occurrence>,
    goal: impl Fn(&Life, &World) -> bool,
) {
    let explored = everything();
    let mut tried = 0;
    for manner in Manner::all() {
        for (index, reached) in explored.reached.iter().enumerate() {
            if reached.world.left.is_some() || !from(&reached.machine, &reached.world) {
                continue;
            }
            tried += 1;
            let (mut machine, mut world) = (reached.machine.clone(), reached.world.clone());
            let luck = Luck { starts: true, gone: false };
            if let Some(first) = first {
                world.run(&mut machine, &[first], luck);
            }
            let mut path = Vec::new();
            while !goal(&machine, &world) {
                let next = next(&world, manner);
                path.push(format!("{:?}: {next:?}", machine.phase()));
                let (Some(next), true) = (next, path.len() <= 14) else {
                    panic!("{}\n{first:?}, then, {manner:?}:\n{}", explored.history(index), path.join("\n"));
                };
                world.run(&mut machine, &[next], luck);
            }
        }
    }
    assert!(tried > 50, "only {tried} states to begin from");
}

#[test]
fn a_group_that_is_to_end_has_ended_soon_however_its_processes_behave() {
    // A pump that says that it ends the group dies by itself.
    let told = |_: &Life, world: &World| world.shutdown && (world.asked || !world.has_pump());
    leads(told, None, |_, world| {
        matches!(world.left, Some(Outcome::Ended | Outcome::GaveUp | Outcome::StartFailed))
    });
}

#[test]
fn a_stop_ends_the_group_whatever_the_daemon_is_doing() {
    let any = |_: &Life, world: &World| !world.shutdown;
    let over = |_: &Life, world: &World| {
        matches!(world.left, Some(Outcome::Ended | Outcome::GaveUp | Outcome::StartFailed))
    };
    leads(any, Some(Occurrence::Shutdown), over);
}

#[test]
fn a_pump_that_died_is_replaced_soon_once_the_process_had_run() {
    let dead = |_: &Life, world: &World| world.group_started && !world.shutdown && !world.has_pump();
    leads(dead, None, |machine, world| {
        let by_signal = world.terminated && matches!(world.left, Some(Outcome::Ended | Outcome::Killed));
        let gave_up = world.left == Some(Outcome::GaveUp);
        by_signal || gave_up || (machine.phase() == Phase::Up && world.has_pump())
    });
}

#[test]
fn a_pump_that_floods_its_stderr_is_replaced() {
    let up = |_: &Life, world: &World| {
        world.group_started && !world.shutdown && !world.terminated && world.has_pump() && !world.asked
    };
    leads(up, Some(Occurrence::PumpFloods), |machine, world| {
        let replaced = machine.phase() == Phase::Up && world.has_pump() && !world.asked;
        replaced || world.left == Some(Outcome::GaveUp)
    });
}

#[test]
fn sigterm_to_a_daemon_alone_kills_it_while_a_pump_lives_and_else_ends_the_group() {
    let told = |_: &Life, world: &World| world.terminated && world.is_armed(Timer::Term) && !world.shutdown;
    leads(told, None, |_, world| world.left.is_some());
}

#[test]
fn a_reload_is_settled_soon_whatever_the_pumps_do() {
    let under_way = |_: &Life, world: &World| world.reload != Reload::None;
    leads(under_way, None, |_, world| world.reload == Reload::None || world.left.is_some());
}
