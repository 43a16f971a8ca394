//! What holds in every history: each promise was looked at in every step of the exploration.

use super::explore::everything;
use super::given::Promise;

#[test]
fn a_process_is_never_spawned_while_another_one_runs_or_lies_unreaped() {
    everything().expect(Promise::OneProcess);
}

#[test]
fn a_process_is_never_spawned_while_the_relay_may_read() {
    everything().expect(Promise::SpawnWhileRelayHeld);
}

#[test]
fn signals_are_sent_only_while_somebody_may_be_there_to_get_them() {
    everything().expect(Promise::SignalsTheLiving);
}

#[test]
fn what_is_left_is_ended_only_when_the_process_itself_is_dead() {
    everything().expect(Promise::ClearsTheDead);
}

#[test]
fn a_process_is_reaped_only_when_its_group_is_gone() {
    everything().expect(Promise::ReapsTheDead);
}

#[test]
fn spawn_is_told_once_and_before_any_respawn() {
    everything().expect(Promise::SpawnToldFirst);
}

#[test]
fn a_start_is_reported_once_for_each_process_and_only_while_there_is_one() {
    everything().expect(Promise::StartReportedOnce);
}

#[test]
fn exit_is_told_once_for_each_process_unless_it_goes_with_its_daemon() {
    everything().expect(Promise::ExitToldOnce);
}

#[test]
fn a_process_is_reaped_only_when_its_end_was_delivered() {
    everything().expect(Promise::ExitDeliveredBeforeReap);
}

#[test]
fn nothing_follows_the_end_of_a_pump() {
    everything().expect(Promise::NothingAfterLeave);
}

#[test]
fn a_group_ends_only_when_nothing_is_left_of_it() {
    everything().expect(Promise::NothingLeftAtTheEnd);
}

#[test]
fn a_pump_hands_over_at_the_moment_it_starts_a_daemon() {
    everything().expect(Promise::HandedOverAfterStartDaemon);
}

#[test]
fn a_dead_daemon_is_replaced_unless_the_group_is_to_end() {
    everything().expect(Promise::DaemonIsReplaced);
}

#[test]
fn a_process_is_left_to_a_living_daemon_only() {
    everything().expect(Promise::LeavesProcessToDaemonOnly);
}

#[test]
fn nothing_is_spawned_after_the_end_was_asked_for() {
    everything().expect(Promise::NoSpawnAfterShutdown);
}

#[test]
fn a_pump_that_was_told_to_die_spawns_nothing_more() {
    everything().expect(Promise::NoSpawnAfterTerm);
}

#[test]
fn a_process_that_ended_for_good_comes_back_only_when_it_is_asked_for() {
    everything().expect(Promise::HeldUntilAsked);
}

#[test]
fn the_next_pump_learns_that_the_process_ended_for_good() {
    everything().expect(Promise::HeldIsHandedOn);
}

#[test]
fn a_start_whose_daemon_died_has_failed_and_leaves_no_group_behind() {
    everything().expect(Promise::NobodyReplacedBeforeTheStart);
}

#[test]
fn the_daemon_learns_that_the_group_ends_before_the_pump_has_left() {
    everything().expect(Promise::EndIsAnnounced);
}

#[test]
fn only_a_group_with_a_limit_of_restarts_gives_up() {
    everything().expect(Promise::GivesUpIfToldTo);
}

#[test]
fn a_process_that_is_to_be_kept_is_ended_only_when_somebody_asks_for_it() {
    everything().expect(Promise::KeptUntilAsked);
}

#[test]
fn a_pump_becomes_the_daemon_once_and_only_when_that_is_gone() {
    everything().expect(Promise::BecomesDaemonOnce);
}

#[test]
fn the_next_pump_learns_that_the_group_is_to_end() {
    everything().expect(Promise::StopIsHandedOn);
}

#[test]
fn a_pump_makes_way_for_another_one_when_it_has_nothing_else_to_finish() {
    everything().expect(Promise::YieldsAtRest);
}

#[test]
fn a_pump_that_is_to_end_the_group_leaves_that_to_the_next_one_only_if_there_is_something_to_deliver() {
    everything().expect(Promise::LeavesSomethingToFinish);
}

#[test]
fn the_next_pump_learns_that_a_restart_is_wanted() {
    everything().expect(Promise::RestartIsHandedOn);
}
