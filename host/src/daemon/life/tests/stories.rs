//! Short stories of a daemon, and histories that cannot happen.

use super::world::{Beginning, Luck, World};
use crate::daemon::life::{Action, Event, Life, Outcome, Phase, Timer};
use crate::launch::{OnCrash, Policy};
use proptest::prelude::{any, prop, prop_assert, proptest};
use std::collections::HashSet;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(5);

/// A daemon whose pump has started the process.
fn up() -> Life {
    let (mut life, _) = Life::new(Policy::default(), false, false);
    life.step(Event::Started);
    life
}

fn left(actions: &[Action]) -> Option<Outcome> {
    actions.iter().find_map(|action| if let Action::Leave(outcome) = action { Some(*outcome) } else { None })
}

fn pause(actions: &[Action]) -> Option<Duration> {
    let pause =
        |action: &Action| if let Action::Arm(Timer::Backoff, span) = action { Some(*span) } else { None };
    actions.iter().find_map(pause)
}

#[test]
fn a_pump_that_dies_again_and_again_is_respawned_after_pauses_that_double() {
    let mut life = up();
    life.step(Event::PumpDied { ran: MOMENT, jitter: 0, unfinished: false });
    assert!(life.step(Event::Swept).contains(&Action::SpawnPump));
    for millis in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
        life.step(Event::PumpDied { ran: MOMENT, jitter: 0, unfinished: false });
        let actions = life.step(Event::Swept);
        assert_eq!(pause(&actions), Some(Duration::from_millis(millis)), "{actions:?}");
        assert!(life.step(Event::Elapsed(Timer::Backoff)).contains(&Action::SpawnPump));
    }
    life.step(Event::PumpDied { ran: LONG, jitter: 0, unfinished: false });
    assert!(life.step(Event::Swept).contains(&Action::SpawnPump));
    assert_eq!(life.unstable(), 0);
}

#[test]
fn a_pump_that_cannot_be_started_is_tried_with_pauses_even_if_every_run_is_stable() {
    let policy = Policy { stable: Duration::ZERO, ..Policy::default() };
    let (mut life, _) = Life::new(policy, true, false);
    let pauses = [(); 3].map(|()| {
        life.step(Event::PumpNotStarted { jitter: 0 });
        let pause = pause(&life.step(Event::Swept));
        life.step(Event::Elapsed(Timer::Backoff));
        pause
    });
    assert_eq!(pauses, [None, Some(Duration::from_millis(100)), Some(Duration::from_millis(200))]);
}

#[test]
fn a_restart_during_a_pause_is_not_put_off_to_its_end() {
    let mut life = up();
    for _ in 0..2 {
        life.step(Event::PumpDied { ran: MOMENT, jitter: 0, unfinished: false });
        life.step(Event::Swept);
    }
    assert_eq!(life.phase(), Phase::Pausing);
    let actions = life.step(Event::RestartAsked);
    assert!(actions.contains(&Action::SpawnPump) && actions.contains(&Action::Disarm(Timer::Backoff)));
}

#[test]
fn a_start_fails_when_the_first_pump_dies_before_the_process_runs() {
    let (mut life, _) = Life::new(Policy::default(), false, false);
    life.step(Event::PumpDied { ran: LONG, jitter: 0, unfinished: false });
    assert_eq!(left(&life.step(Event::Swept)), Some(Outcome::StartFailed));
}

#[test]
fn a_group_whose_pump_ends_it_has_ended_when_everything_is_swept() {
    let mut life = up();
    life.step(Event::PumpEnds);
    assert_eq!(left(&life.step(Event::PumpDied { ran: LONG, jitter: 0, unfinished: false })), None);
    assert_eq!(left(&life.step(Event::Swept)), Some(Outcome::Ended));
}

#[test]
fn sigterm_to_daemon_and_pump_ends_the_group_in_either_order() {
    for [first, second] in
        [[Event::Terminated, Event::PumpTerminated], [Event::PumpTerminated, Event::Terminated]]
    {
        let mut life = up();
        let actions = [life.step(first), life.step(second)].concat();
        assert!(
            actions.contains(&Action::StopPump) && actions.contains(&Action::AnnounceTerm),
            "{actions:?}"
        );
        // The grace was measured already.
        assert_eq!(life.step(Event::Elapsed(Timer::Term)), []);
        life.step(Event::PumpDied { ran: LONG, jitter: 0, unfinished: false });
        assert_eq!(left(&life.step(Event::Swept)), Some(Outcome::Ended));
    }
}

#[test]
fn sigterm_to_a_daemon_alone_is_a_death_like_any_other() {
    let mut life = up();
    assert!(life.step(Event::Terminated).contains(&Action::AnnounceTerm));
    assert_eq!(left(&life.step(Event::Elapsed(Timer::Term))), Some(Outcome::Killed));
}

#[test]
fn sigterm_to_a_daemon_whose_pump_died_in_the_grace_ends_the_group() {
    let mut life = up();
    life.step(Event::Terminated);
    life.step(Event::PumpDied { ran: LONG, jitter: 0, unfinished: false });
    life.step(Event::Elapsed(Timer::Term));
    assert_eq!(left(&life.step(Event::Swept)), Some(Outcome::Ended));
}

/// A daemon in the pause before the next pump.
fn pausing(on_crash: OnCrash) -> Life {
    let policy = Policy { on_crash, ..Policy::default() };
    let (mut life, _) = Life::new(policy, true, false);
    for _ in 0..2 {
        assert_eq!(life.phase(), Phase::Up);
        life.step(Event::PumpDied { ran: MOMENT, jitter: 0, unfinished: true });
        if life.phase() == Phase::Sweeping {
            life.step(Event::Swept);
        }
    }
    assert_eq!(life.phase(), Phase::Pausing);
    life
}

#[test]
fn sigint_to_a_daemon_without_a_pump_leaves_the_group_to_a_new_pump() {
    for on_crash in [OnCrash::Keep, OnCrash::Respawn] {
        let actions = pausing(on_crash).step(Event::Interrupted);
        let spawned = actions.iter().position(|action| *action == Action::SpawnPump);
        assert!(spawned.is_some() && left(&actions) == Some(Outcome::Killed), "{actions:?}");
        assert!(!actions.contains(&Action::Sweep), "{actions:?}");
    }
}

#[test]
fn sigterm_to_a_daemon_without_a_pump_may_be_the_end_of_the_system_and_ends_the_group() {
    let mut life = pausing(OnCrash::Keep);
    assert!(life.step(Event::Terminated).contains(&Action::SpawnPump));
    assert!(life.is_stopping());
    let mut life = pausing(OnCrash::Respawn);
    assert!(!life.step(Event::Terminated).contains(&Action::SpawnPump));
    assert!(life.is_stopping());
}

#[test]
fn a_pump_that_floods_its_stderr_is_killed() {
    assert_eq!(up().step(Event::Flooded), [Action::KillPump]);
}

#[test]
fn what_survives_sigkill_by_forking_is_killed_again() {
    let mut life = up();
    life.step(Event::PumpDied { ran: LONG, jitter: 0, unfinished: false });
    for _ in 0..3 {
        let actions = life.step(Event::Elapsed(Timer::Stop));
        assert!(matches!(actions[..], [Action::Kill, Action::Arm(Timer::Stop, _)]), "{actions:?}");
    }
}

/// All histories, of any length, of events that may come in any order.
#[test]
fn events_that_cannot_happen_do_no_harm_and_nothing_follows_the_end() {
    let mut events = vec![
        Event::PredecessorGone,
        Event::Started,
        Event::PumpEnds,
        Event::PumpGivesUp,
        Event::PumpTerminated,
        Event::PumpDied { ran: LONG, jitter: 0, unfinished: false },
        Event::PumpDied { ran: MOMENT, jitter: 0, unfinished: true },
        Event::PumpNotStarted { jitter: 200 },
        Event::Swept,
        Event::PumpReady,
        Event::PumpYielded { unfinished: true },
        Event::ReloadAsked,
        Event::Flooded,
        Event::ShutdownAsked,
        Event::RestartAsked,
        Event::Terminated,
        Event::Interrupted,
    ];
    events.extend(Timer::ALL.map(Event::Elapsed));
    let mut reached: Vec<Life> =
        Beginning::all().into_iter().map(|beginning| beginning.machine().0).collect();
    let mut seen: HashSet<Life> = reached.iter().cloned().collect();
    while let Some(life) = reached.pop() {
        for event in &events {
            let mut after = life.clone();
            let actions = after.step(*event);
            let left = actions.iter().position(|action| matches!(action, Action::Leave(_)));
            let over = after.phase() == Phase::Over;
            assert_eq!(left.is_some(), over && life.phase() != Phase::Over, "{life:?} {event:?}");
            assert!(left.is_none_or(|at| at + 1 == actions.len()), "{actions:?} {life:?} {event:?}");
            if after.unstable() < 4 && seen.insert(after.clone()) {
                reached.push(after);
            }
        }
    }
    assert!(seen.len() > 100);
}

proptest! {
    #[test]
    fn long_histories_keep_every_promise(
        beginning in prop::sample::select(Beginning::all()),
        choices in prop::collection::vec((any::<u16>(), 1..4_usize, any::<[bool; 2]>()), 1..300),
    ) {
        let (mut life, mut world) = World::begin(beginning);
        let mut history = Vec::new();
        for (mut choice, count, [starts, gone]) in choices {
            let mut batch = Vec::new();
            let mut after = world.clone();
            for _ in 0..count {
                let possible = after.possible();
                // What ends everything is rare, so that histories are long: it comes first in the list.
                let at = usize::from(choice) % (possible.len() * 8);
                let at = if at < possible.len() { at } else { possible.len() - 1 - at % possible.len().min(5) };
                batch.push(possible[at]);
                after.occur(possible[at]);
                choice /= 7;
            }
            history.push((batch.clone(), life.phase()));
            let broken = world.run(&mut life, &batch, Luck { starts, gone });
            prop_assert!(broken.is_empty(), "{broken:?}: {history:#?}");
            if world.left.is_some() {
                break;
            }
        }
    }
}
