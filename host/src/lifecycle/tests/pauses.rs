//! Short stories of restarting, pausing and ending, one a promise.

use crate::launch::{OnCrash, Policy, Restart, Strategy};
use crate::lifecycle::{Action, Event, Inherited, Lifecycle, Outcome, Phase, Timer, pause};
use proptest::prelude::{Just, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as _;
use std::time::Duration;

const MOMENT: Duration = Duration::from_millis(5);
const LONG: Duration = Duration::from_secs(60);

/// A pump that is told what happens.
struct Story {
    machine: Lifecycle,
    last: Vec<Action>,
}

impl Story {
    fn begin(policy: Policy, strategy: Strategy, group_started: bool, held: bool) -> Self {
        let (machine, last) =
            Lifecycle::new(policy, strategy, Inherited { group_started, held, ..Inherited::default() });
        Self { machine, last }
    }

    /// After a pump that has left this.
    fn after(policy: Policy, inherited: Inherited) -> Self {
        let (machine, last) = Lifecycle::new(policy, Strategy::Daemon, inherited);
        Self { machine, last }
    }

    fn with(policy: Policy) -> Self {
        Self::begin(policy, Strategy::Daemon, false, false)
    }

    /// Until the process runs.
    fn running(policy: Policy, strategy: Strategy) -> Self {
        Self::begin(policy, strategy, false, false).tell(Event::MonitorsReady).tell(Event::Spawned)
    }

    fn tell(mut self, event: Event) -> Self {
        self.last = self.machine.step(event);
        self
    }

    /// The process dies, and everything about it is done.
    fn dies(self, ran: Duration, success: bool, jitter: u16) -> Self {
        let story = self.tell(Event::ProcessDied { ran, success, jitter });
        story.tell(Event::Delivered).tell(Event::Cleared { everyone: false })
    }

    /// From a pause into the next life.
    fn resumes(self) -> Self {
        self.tell(Event::Elapsed(Timer::Backoff)).tell(Event::RelayHeld).tell(Event::Spawned)
    }

    fn spawns(&self) -> bool {
        self.last.contains(&Action::Spawn)
    }

    fn pause(&self) -> Option<Duration> {
        self.last.iter().find_map(|action| {
            if let Action::Arm(Timer::Backoff, span) = action { Some(*span) } else { None }
        })
    }

    fn left(&self) -> Option<Outcome> {
        self.last
            .iter()
            .find_map(|action| if let Action::Leave(outcome) = action { Some(*outcome) } else { None })
    }
}

fn policy(restart: Restart) -> Policy {
    Policy { restart, ..Policy::default() }
}

fn keep() -> Policy {
    Policy { on_crash: OnCrash::Keep, ..Policy::default() }
}

#[test]
fn unstable_deaths_are_followed_by_no_pause_then_by_pauses_that_double_up_to_the_longest() {
    let mut story = Story::running(policy(Restart::Always), Strategy::Daemon).dies(MOMENT, false, 0);
    assert!(story.spawns(), "{:?}", story.last);
    story = story.tell(Event::Spawned);
    for millis in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
        story = story.dies(MOMENT, false, 0);
        assert_eq!(story.pause(), Some(Duration::from_millis(millis)));
        assert!(!story.spawns());
        story = story.resumes();
    }
}

#[test]
fn a_stable_run_is_followed_by_a_respawn_at_once_and_the_count_begins_anew() {
    let mut story = Story::running(policy(Restart::Always), Strategy::Daemon);
    story = story.dies(MOMENT, false, 0).tell(Event::Spawned).dies(MOMENT, false, 0);
    assert_eq!(story.pause(), Some(Duration::from_millis(100)));
    story = story.resumes().dies(LONG, false, 0);
    assert!(story.spawns(), "{:?}", story.last);
    assert_eq!(story.machine.unstable(), 0);
    story = story.tell(Event::Spawned).dies(MOMENT, false, 0);
    assert!(story.spawns(), "{:?}", story.last);
}

#[test]
fn without_any_pause_in_the_policy_every_death_is_followed_by_a_respawn_at_once() {
    let none = Duration::ZERO;
    let policy = Policy { backoff: none, backoff_max: none, ..policy(Restart::Always) };
    let mut story = Story::running(policy, Strategy::Daemon);
    for _ in 0..50 {
        story = story.dies(MOMENT, false, 200);
        assert!(story.spawns(), "{:?}", story.last);
        story = story.tell(Event::Spawned);
    }
}

#[test]
fn a_program_that_can_no_longer_be_executed_is_tried_with_pauses_even_if_every_run_is_stable() {
    let policy = Policy { stable: Duration::ZERO, ..policy(Restart::Always) };
    let mut story = Story::running(policy, Strategy::Daemon).dies(MOMENT, false, 0);
    assert!(story.spawns(), "{:?}", story.last);
    for pause in [None, Some(Duration::from_millis(100))] {
        story =
            story.tell(Event::SpawnFailed).tell(Event::Delivered).tell(Event::Cleared { everyone: false });
        assert_eq!(story.pause(), pause);
    }
}

#[test]
fn every_death_none_or_those_without_success_are_followed_by_a_respawn() {
    for (restart, success, respawns) in [
        (Restart::Always, true, true),
        (Restart::Always, false, true),
        (Restart::OnFailure, true, false),
        (Restart::OnFailure, false, true),
        (Restart::Never, true, false),
        (Restart::Never, false, false),
    ] {
        let story = Story::running(policy(restart), Strategy::Unattached).dies(LONG, success, 0);
        assert_eq!(story.spawns(), respawns, "{restart:?} {success}");
        assert_eq!(story.machine.phase() == Phase::Held, !respawns, "{restart:?} {success}");
    }
}

#[test]
fn in_development_the_group_ends_with_its_process() {
    let story = Story::running(policy(Restart::Never), Strategy::Development).dies(LONG, true, 0);
    let story = story.tell(Event::Cleared { everyone: true }).tell(Event::Finished);
    assert_eq!(story.left(), Some(Outcome::Ended));
}

#[test]
fn in_development_a_restart_that_the_exit_hook_asks_for_brings_the_process_back() {
    let story = Story::running(policy(Restart::Never), Strategy::Development);
    let story = story.tell(Event::ProcessDied { ran: LONG, success: true, jitter: 0 });
    let story =
        story.tell(Event::RestartAsked).tell(Event::Delivered).tell(Event::Cleared { everyone: false });
    assert!(story.spawns(), "{:?}", story.last);
}

#[test]
fn a_restart_ends_the_process_with_the_stop_signal_first() {
    let story = Story::running(policy(Restart::Never), Strategy::Daemon).tell(Event::RestartAsked);
    assert!(story.last.contains(&Action::Signal) && !story.last.contains(&Action::Kill), "{:?}", story.last);
    assert!(story.dies(LONG, false, 0).spawns());
}

#[test]
fn a_restart_during_a_pause_is_not_put_off_to_its_end() {
    let mut story = Story::running(policy(Restart::Always), Strategy::Daemon);
    story =
        story.dies(MOMENT, false, 0).tell(Event::Spawned).dies(MOMENT, false, 0).tell(Event::RestartAsked);
    assert!(story.last.contains(&Action::Disarm(Timer::Backoff)), "{:?}", story.last);
    assert!(story.last.contains(&Action::Hold), "{:?}", story.last);
    assert!(story.tell(Event::RelayHeld).spawns());
}

#[test]
fn a_restart_brings_back_a_process_that_ended_for_good() {
    let story = Story::running(policy(Restart::Never), Strategy::Daemon).dies(LONG, true, 0);
    assert!(story.machine.is_held());
    let story = story.tell(Event::RestartAsked);
    assert!(!story.machine.is_held());
    assert!(story.tell(Event::RelayHeld).spawns());
}

#[test]
fn a_process_that_ended_for_good_is_still_stopped_under_the_next_pump() {
    let story = Story::begin(policy(Restart::Never), Strategy::Daemon, true, true).tell(Event::MonitorsReady);
    assert!(!story.spawns() && story.machine.phase() == Phase::Held, "{:?}", story.last);
}

#[test]
fn a_process_that_ended_for_good_is_still_stopped_after_its_daemon_died() {
    let story = Story::running(policy(Restart::Never), Strategy::Daemon).dies(LONG, true, 0);
    let story = story.tell(Event::DaemonDied).tell(Event::Cleared { everyone: true }).tell(Event::RelayHeld);
    assert_eq!(story.left(), Some(Outcome::HandedOver));
    assert!(story.machine.is_held());
}

#[test]
fn a_restart_asked_for_while_monitors_prepare_is_not_forgotten() {
    let story = Story::begin(policy(Restart::Never), Strategy::Daemon, true, true);
    assert!(story.tell(Event::RestartAsked).tell(Event::MonitorsReady).spawns());
}

/// A policy under which the process has to say that it is ready.
fn ready(restart: Restart) -> Policy {
    Policy { ready_within: Some(LONG), ..policy(restart) }
}

#[test]
fn a_restart_asked_for_before_the_first_process_is_ready_does_not_fail_the_start() {
    let story = Story::running(ready(Restart::Never), Strategy::Daemon).tell(Event::RestartAsked);
    assert!(story.dies(LONG, false, 0).spawns());
}

#[test]
fn a_restart_asked_for_while_an_unready_process_is_ended_is_not_forgotten() {
    let story = Story::running(ready(Restart::Never), Strategy::Daemon).tell(Event::Ready);
    let story = story.tell(Event::RestartAsked).dies(LONG, false, 0).tell(Event::Spawned);
    let story = story.tell(Event::Elapsed(Timer::Ready)).tell(Event::RestartAsked);
    assert!(story.dies(LONG, false, 0).spawns());
}

#[test]
fn a_start_whose_daemon_dies_before_the_process_is_ready_has_failed() {
    let story = Story::running(ready(Restart::Always), Strategy::Daemon).tell(Event::DaemonDied);
    let story =
        story.tell(Event::ProcessDied { ran: LONG, success: false, jitter: 0 }).tell(Event::Delivered);
    let story = story.tell(Event::Cleared { everyone: true }).tell(Event::Finished);
    assert_eq!(story.left(), Some(Outcome::StartFailed));
}

#[test]
fn sigterm_to_pump_and_daemon_ends_the_group_in_either_order() {
    for [first, second] in
        [[Event::Terminated, Event::DaemonTerminated], [Event::DaemonTerminated, Event::Terminated]]
    {
        let story = Story::running(policy(Restart::Always), Strategy::Daemon).tell(first);
        assert!(!story.last.contains(&Action::Signal), "{:?}", story.last);
        let story = story.tell(second);
        assert!(story.last.contains(&Action::Signal) && story.last.contains(&Action::AnnounceEnd));
        let story = story.tell(Event::ProcessDied { ran: LONG, success: false, jitter: 0 });
        let story =
            story.tell(Event::Delivered).tell(Event::Cleared { everyone: true }).tell(Event::Finished);
        assert_eq!(story.left(), Some(Outcome::Ended));
    }
}

#[test]
fn sigterm_to_a_pump_alone_is_a_death_like_any_other() {
    let story = Story::running(policy(Restart::Always), Strategy::Daemon).tell(Event::Terminated);
    assert!(story.last.contains(&Action::AnnounceTerm), "{:?}", story.last);
    assert_eq!(story.tell(Event::Elapsed(Timer::Term)).left(), Some(Outcome::Killed));
}

#[test]
fn a_process_that_ends_for_good_while_its_pump_is_told_to_die_stays_stopped() {
    let story = Story::running(policy(Restart::Never), Strategy::Daemon).tell(Event::Terminated);
    let story = story.dies(LONG, true, 0).tell(Event::Elapsed(Timer::Term));
    assert_eq!(story.left(), Some(Outcome::Killed));
    assert!(story.machine.is_held());
}

#[test]
fn a_restart_of_a_process_that_was_kept_is_reported_when_the_new_one_runs() {
    let kept = Inherited { group_started: true, kept: true, ..Inherited::default() };
    let wanted = Story::after(keep(), Inherited { restart_wanted: true, ..kept });
    for story in [wanted, Story::after(keep(), kept).tell(Event::RestartAsked)] {
        let story = story.tell(Event::MonitorsReady);
        assert!(story.last.contains(&Action::Signal), "{:?}", story.last);
        assert!(!story.last.contains(&Action::ReportStarted), "{:?}", story.last);
        let story = story.dies(LONG, false, 0).tell(Event::Spawned);
        assert!(story.last.contains(&Action::ReportStarted), "{:?}", story.last);
    }
}

#[test]
fn a_process_of_whose_end_the_pump_before_had_decided_is_not_judged_again() {
    let dead = Inherited { group_started: true, kept: true, held: true, ..Inherited::default() };
    let story = Story::after(Policy { restart: Restart::OnFailure, ..keep() }, dead);
    // Nobody knows any more that it was a success.
    let story = story.tell(Event::MonitorsReady).dies(MOMENT, false, 0);
    assert_eq!(story.machine.phase(), Phase::Held, "{:?}", story.last);
}

#[test]
fn a_stop_that_only_a_pump_had_heard_that_died_is_told_to_the_daemon_by_the_next_one() {
    let story = Story::after(
        keep(),
        Inherited { group_started: true, kept: true, stop_wanted: true, ..Inherited::default() },
    );
    assert!(story.last.contains(&Action::AnnounceEnd), "{:?}", story.last);
    // Monitors that hang do not hold it up for as long as at a start.
    let setup = story
        .last
        .iter()
        .find_map(|action| if let Action::Arm(Timer::Setup, span) = action { Some(*span) } else { None });
    assert!(setup.is_some_and(|span| span < Policy::default().setup_timeout), "{:?}", story.last);
}

#[test]
fn a_pump_that_makes_way_when_process_and_daemon_die_does_not_wait_for_their_ends() {
    for last in [Event::NotReplaced, Event::ShutdownAsked] {
        let story = Story::running(keep(), Strategy::Daemon).tell(Event::YieldAsked);
        let story = story.tell(Event::ProcessDied { ran: LONG, success: false, jitter: 0 });
        let story = story.tell(Event::DaemonDied).tell(last);
        assert!(story.last.contains(&Action::Clear { everyone: true }), "{last:?}: {:?}", story.last);
        assert!(story.tell(Event::Cleared { everyone: true }).left().is_some(), "{last:?}");
    }
}

#[test]
fn a_pump_that_stands_by_leaves_for_nothing_that_its_monitors_say() {
    let story = Story::running(keep(), Strategy::Daemon).tell(Event::YieldAsked).tell(Event::Finished);
    assert_eq!(story.machine.phase(), Phase::StandingBy, "{:?}", story.last);
    let story = story.tell(Event::HookFailed);
    assert_eq!(story.machine.phase(), Phase::StandingBy, "{:?}", story.last);
    assert!(story.last.is_empty(), "{:?}", story.last);
}

#[test]
fn a_pump_makes_way_for_another_one_only_when_the_process_is_ready() {
    let unready = || {
        let policy = Policy { on_crash: OnCrash::Keep, ..ready(Restart::Always) };
        let story = Story::running(policy, Strategy::Daemon).tell(Event::Ready).tell(Event::RestartAsked);
        story.dies(LONG, false, 0).tell(Event::Spawned)
    };
    let story = unready().tell(Event::YieldAsked);
    assert!(!story.last.contains(&Action::Finish), "{:?}", story.last);
    assert!(story.tell(Event::Ready).last.contains(&Action::Finish));
    // One that takes too long for that is ended first.
    let story = unready().tell(Event::Elapsed(Timer::Ready)).tell(Event::YieldAsked);
    assert!(!story.last.contains(&Action::Finish), "{:?}", story.last);
}

#[test]
fn a_hook_that_fails_while_the_end_is_delivered_is_not_waited_for() {
    let story = Story::running(policy(Restart::Always), Strategy::Unattached);
    let story =
        story.tell(Event::ProcessDied { ran: LONG, success: false, jitter: 0 }).tell(Event::HookFailed);
    assert!(story.last.contains(&Action::Clear { everyone: true }), "{:?}", story.last);
    assert_eq!(story.tell(Event::Cleared { everyone: true }).left(), Some(Outcome::Failed));
}

#[test]
fn a_stop_just_after_the_death_of_the_process_ends_those_who_left_its_group_too() {
    let story = Story::running(policy(Restart::Always), Strategy::Unattached);
    let story =
        story.tell(Event::ProcessDied { ran: LONG, success: false, jitter: 0 }).tell(Event::Delivered);
    let story = story.tell(Event::ShutdownAsked);
    assert!(story.last.contains(&Action::Clear { everyone: true }), "{:?}", story.last);
    // This one was under way before.
    let story = story.tell(Event::Cleared { everyone: false });
    assert_eq!(story.last, []);
    assert!(story.tell(Event::Cleared { everyone: true }).last.contains(&Action::Finish));
}

#[test]
fn a_start_whose_daemon_dies_while_monitors_prepare_has_failed() {
    let story = Story::with(policy(Restart::Always)).tell(Event::DaemonDied);
    assert_eq!(story.tell(Event::Cleared { everyone: true }).left(), Some(Outcome::StartFailed));
}

#[test]
fn a_program_that_cannot_be_executed_fails_the_start_even_if_a_monitor_fails_on_the_way_out() {
    let story = Story::with(policy(Restart::Always)).tell(Event::MonitorsReady).tell(Event::SpawnFailed);
    assert!(story.last.contains(&Action::Finish), "{:?}", story.last);
    assert_eq!(story.tell(Event::HookFailed).left(), Some(Outcome::StartFailed));
}

#[test]
fn what_survives_sigkill_by_forking_is_killed_again() {
    let mut story = Story::running(policy(Restart::Always), Strategy::Unattached).tell(Event::ShutdownAsked);
    for _ in 0..3 {
        story = story.tell(Event::Elapsed(Timer::Stop));
        assert!(matches!(story.last[..], [Action::Kill, Action::Arm(Timer::Stop, _)]), "{:?}", story.last);
    }
}

#[test]
fn the_end_of_the_process_at_once_is_sigkill_and_nothing_else() {
    let story = Story::running(policy(Restart::Always), Strategy::Development).tell(Event::KillAsked);
    assert_eq!(story.last, [Action::Kill]);
}

fn span() -> impl proptest::strategy::Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::MAX),
        (0..1_000_000_u64).prop_map(Duration::from_micros),
        any::<u64>().prop_map(Duration::from_millis),
    ]
}

proptest! {
    #[test]
    fn a_pause_doubles_up_to_the_longest_and_its_jitter_adds_at_most_a_fifth(
        backoff in span(), backoff_max in span(), unstable in 0..100_u32, jitter in 0..=200_u16,
    ) {
        let policy = Policy { backoff, backoff_max, ..Policy::default() };
        let nominal = |unstable| pause(&policy, unstable, 0);
        prop_assert_eq!(nominal(0), Duration::ZERO);
        prop_assert_eq!(nominal(1), Duration::ZERO);
        prop_assert_eq!(nominal(2), backoff.min(backoff_max));
        let doubled = nominal(unstable.max(2)).saturating_mul(2).min(backoff_max);
        prop_assert_eq!(nominal(unstable.max(2) + 1), doubled);
        let with = pause(&policy, unstable, jitter);
        prop_assert!(with >= nominal(unstable));
        prop_assert!(with - nominal(unstable) <= nominal(unstable) / 5);
    }
}
