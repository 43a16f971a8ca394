//! Histories that cannot happen, and very long ones that can.

use super::explore::fingerprint;
use super::given::{Beginning, Luck};
use super::world::World;
use crate::lifecycle::{Action, Event, Lifecycle, Phase, Timer};
use proptest::prelude::{any, prop, prop_assert, proptest};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// Every event there is.
fn events() -> Vec<Event> {
    let mut all = vec![
        Event::MonitorsReady,
        Event::RelayHeld,
        Event::Spawned,
        Event::SpawnFailed,
        Event::Ready,
        Event::Delivered,
        Event::Cleared { everyone: false },
        Event::Cleared { everyone: true },
        Event::RestartAsked,
        Event::ShutdownAsked,
        Event::KillAsked,
        Event::DaemonDied,
        Event::NotReplaced,
        Event::YieldAsked,
        Event::Dismissed,
        Event::HookFailed,
        Event::Finished,
        Event::Terminated,
        Event::Interrupted,
        Event::DaemonTerminated,
    ];
    for (seconds, success) in [(0, false), (60, true)] {
        all.push(Event::ProcessDied { ran: Duration::from_secs(seconds), success, jitter: 0 });
    }
    all.extend(Timer::ALL.map(Event::Elapsed));
    all
}

fn seen_of(machine: &Lifecycle) -> u64 {
    let mut hasher = DefaultHasher::new();
    machine.hash(&mut hasher);
    hasher.finish()
}

/// All histories, of any length, of events that may come in any order.
#[test]
fn events_that_cannot_happen_do_no_harm_and_nothing_follows_the_end() {
    for beginning in Beginning::all() {
        let (machine, _) = World::begin(beginning);
        let mut seen = HashSet::from([seen_of(&machine)]);
        let mut reached = vec![machine];
        while let Some(machine) = reached.pop() {
            for event in events() {
                let mut after = machine.clone();
                let actions = after.step(event);
                let left = actions.iter().position(|action| matches!(action, Action::Leave(_)));
                let over = after.phase() == Phase::Over;
                assert_eq!(left.is_some(), over && machine.phase() != Phase::Over, "{machine:?} {event:?}");
                assert!(left.is_none_or(|at| at + 1 == actions.len()), "{actions:?} {machine:?} {event:?}");
                // A bound on the count keeps the number of states finite.
                if after.unstable() < 4 && seen.insert(seen_of(&after)) {
                    reached.push(after);
                }
            }
        }
        assert!(seen.len() > if beginning.stop_wanted { 10 } else { 100 });
    }
}

proptest! {
    #[test]
    fn long_histories_keep_every_promise(
        beginning in prop::sample::select(Beginning::all()),
        choices in prop::collection::vec((any::<u16>(), 1..4_usize, any::<[bool; 4]>()), 1..300),
    ) {
        let (mut machine, mut world) = World::begin(beginning);
        let mut history = Vec::new();
        for (mut choice, count, [executes, group_gone, everyone_gone, becomes]) in choices {
            let mut batch = Vec::new();
            let mut after = world.clone();
            for _ in 0..count {
                let possible = after.possible();
                // What ends everything is rare, so that histories are long.
                let at = usize::from(choice) % (possible.len() * 8);
                let at = if at < possible.len() { at } else { at % possible.len().min(3) };
                batch.push(possible[at]);
                after.occur(possible[at]);
                choice /= 7;
            }
            history.push((batch.clone(), machine.phase()));
            let went = world.run(&mut machine, &batch, Luck { executes, group_gone, everyone_gone, becomes });
            prop_assert!(went.broken.is_empty(), "{:?}: {history:#?}", went.broken);
            prop_assert!(world.agrees_on_held(&machine), "held: {history:#?}");
            if world.is_over() {
                break;
            }
        }
    }
}

#[test]
fn equal_states_have_equal_fingerprints() {
    let [one, two] = [(); 2].map(|()| World::begin(Beginning::all()[0]));
    assert_eq!(fingerprint(&one.0, &one.1), fingerprint(&two.0, &two.1));
}
