//! Reloads: the process that is there is the same, and in the end one whole group has the old set-up or the new one,
//! whoever dies and whatever is asked for on the way.

use super::group::Rules;
use super::kept::{KEEP, steps, strike, whole};

#[test]
fn a_reload_costs_one_pump_and_leaves_the_process_as_it_is() {
    for seed in 0..500 {
        let mut group = whole(KEEP, seed);
        for round in 1..=5 {
            group.reload();
            group.settle();
            assert!(group.is_whole() && group.process_number() == 1, "{}\n{group:#?}", group.story());
            assert_eq!((group.setup(), group.pumps), (Some(round), 1 + round), "{}", group.story());
        }
    }
}

#[test]
fn monitors_that_fail_are_taken_back_and_the_process_is_left_as_it_is() {
    let mut reloaded = 0;
    for seed in 0..2000 {
        let mut group = whole(KEEP, seed);
        group.fail_hooks(30);
        group.reload();
        group.settle();
        assert!(group.is_whole() && group.process_number() == 1, "{}\n{group:#?}", group.story());
        reloaded += group.setup().unwrap_or_else(|| panic!("{}\n{group:#?}", group.story()));
    }
    assert!((800..1800).contains(&reloaded), "{reloaded}");
}

#[test]
fn one_role_that_dies_during_a_reload_leaves_a_whole_group_with_the_old_set_up_or_the_new_one() {
    let mut reloaded = 0;
    for seed in 0..6000 {
        let mut group = whole(KEEP, seed);
        group.reload();
        strike(&mut group);
        group.settle();
        assert!(group.is_whole() && group.process_number() == 1, "{}\n{group:#?}", group.story());
        reloaded += group.setup().unwrap_or_else(|| panic!("{}\n{group:#?}", group.story()));
    }
    assert!((2000..5900).contains(&reloaded), "{reloaded}");
}

#[test]
fn roles_that_die_again_and_again_during_reloads_leave_a_whole_group_or_an_orphan() {
    for seed in 0..6000 {
        let mut group = whole(KEEP, seed);
        for _ in 0..3 {
            group.reload();
            strike(&mut group);
        }
        group.settle();
        assert_eq!(group.process_number(), 1, "{}\n{group:#?}", group.story());
        let agreed = group.is_whole() && group.setup().is_some();
        assert!(agreed || group.is_orphaned(), "{}\n{group:#?}", group.story());
    }
}

#[test]
fn a_stop_or_a_restart_during_a_reload_comes_to_pass() {
    for seed in 0..6000 {
        let rules = Rules { ignores_signal: seed % 7 == 0, ..KEEP };
        let mut group = whole(rules, seed);
        group.fail_hooks([0, 20][seed as usize % 2]);
        group.reload();
        steps(&mut group, seed % 13);
        let stops = seed % 3 == 0;
        if stops {
            group.stop()
        } else {
            group.restart()
        }
        // The command asks until somebody has heard it.
        while stops && !group.wants_end() {
            group.stop();
            steps(&mut group, 3);
        }
        let heard = group.wants_restart();
        group.settle();
        if stops {
            assert!(group.is_nothing(), "{}\n{group:#?}", group.story());
        } else {
            assert!(group.is_whole() && group.setup().is_some(), "{}\n{group:#?}", group.story());
            assert!(!heard || group.process_number() == 2, "{}", group.story());
        }
    }
}

#[test]
fn the_end_of_the_process_during_a_reload_is_told_once() {
    for seed in 0..6000 {
        let mut group = whole(KEEP, seed);
        group.fail_hooks([0, 20][seed as usize % 2]);
        group.reload();
        steps(&mut group, seed % 13);
        group.process_dies();
        if seed % 3 == 0 {
            strike(&mut group);
        }
        group.settle();
        assert_eq!(group.told_wrong(), [0_u32; 0], "{}\n{group:#?}", group.story());
        let orphaned = group.daemon.is_none() && group.pump.is_none();
        assert!(group.is_whole() || orphaned, "{}\n{group:#?}", group.story());
    }
}
