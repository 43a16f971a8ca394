//! The same with `keep`: whatever strikes the roles, the process that is there is the same, until somebody asks for
//! its end.

use super::group::{Blow, Group, Role, Rules};

const KEEP: Rules = Rules {
    keeps: true,
    ignores_signal: false,
    failing_hooks: 0,
    failing_execs: 0,
    gives_up: false,
    broken_reloads: 0,
};

/// Deaths of a role that are no shutdown of the system.
const BLOWS: [(Role, Blow); 5] = [
    (Role::Daemon, Blow::Kill),
    (Role::Pump, Blow::Kill),
    (Role::Pump, Blow::Term),
    (Role::Pump, Blow::Interrupt),
    (Role::Daemon, Blow::Interrupt),
];

/// A group that runs.
fn whole(rules: Rules, seed: u32) -> Group {
    let mut group = Group::begin(rules, seed);
    group.settle();
    assert!(group.is_whole(), "{}", group.story());
    group
}

fn steps(group: &mut Group, count: u32) {
    for _ in 0..count {
        group.step();
    }
}

/// What may strike a group soon: a role gets a signal, or is killed between any two actions.
fn strike(group: &mut Group) {
    let (role, blow) = BLOWS[group.chance(5) as usize];
    let count = group.chance(12);
    steps(group, count);
    if blow == Blow::Kill && group.chance(2) == 0 {
        let actions = group.chance(8);
        group.blow_after(role, actions);
    } else {
        group.blow(role, blow);
    }
}

#[test]
fn roles_that_die_one_after_the_other_leave_the_process_as_it_is_however_often() {
    for seed in 0..100 {
        let mut group = whole(KEEP, seed);
        for round in 0..40 {
            let (role, blow) = BLOWS[(seed + round * 7) as usize % BLOWS.len()];
            group.blow(role, blow);
            group.settle();
            assert!(group.is_whole() && group.process_number() == 1, "{}\n{group:#?}", group.story());
        }
        // Each of them cost one pump, or a daemon and the pump that became it.
        assert!(group.pumps <= 41, "{}", group.story());
    }
}

#[test]
fn roles_that_die_at_any_moment_leave_the_process_as_it_is_with_one_pump_or_as_an_orphan() {
    let mut orphans = 0;
    for seed in 0..6000 {
        let mut group = whole(KEEP, seed);
        for _ in 0..4 {
            strike(&mut group);
        }
        group.settle();
        assert_eq!(group.process_number(), 1, "{}\n{group:#?}", group.story());
        assert!(group.is_whole() || group.is_orphaned(), "{}\n{group:#?}", group.story());
        orphans += u32::from(group.is_orphaned());
    }
    assert!((1..4500).contains(&orphans), "{orphans}");
}

#[test]
fn a_start_whose_roles_die_has_failed_or_leaves_the_process_whole_or_as_an_orphan() {
    for seed in 0..6000 {
        let mut group = Group::begin(KEEP, seed);
        strike(&mut group);
        group.settle();
        let orphaned = group.is_orphaned() && group.is_there();
        // Killed between the execution and the word of it: the launcher hears of a failure, and ends what is left.
        let failed = !group.is_there() && group.daemon.is_none() && group.pump.is_none();
        assert!(group.is_whole() || orphaned || failed, "{}\n{group:#?}", group.story());
        assert!(!group.is_whole() || group.process_number() == 1, "{}", group.story());
    }
}

#[test]
fn monitors_that_fail_again_and_again_leave_the_process_as_it_is() {
    for seed in 0..1000 {
        let mut group = whole(Rules { failing_hooks: 50, ..KEEP }, seed);
        for round in 0..3 {
            group.blow(BLOWS[(seed + round) as usize % 5].0, Blow::Kill);
            group.settle();
            assert!(group.is_whole() && group.process_number() == 1, "{}\n{group:#?}", group.story());
        }
    }
}

#[test]
fn a_stop_ends_the_group_after_few_pumps_however_its_monitors_fail_and_whoever_dies() {
    for seed in 0..6000 {
        let failing_hooks = [0, 30, 100][seed as usize % 3];
        let ignores_signal = seed % 7 == 0;
        let mut group = whole(Rules { ignores_signal, ..KEEP }, seed);
        group.fail_hooks(failing_hooks);
        if seed % 4 == 0 {
            group.blow(Role::Pump, Blow::Kill);
            steps(&mut group, seed % 9);
        }
        group.stop();
        if seed % 5 != 0 {
            strike(&mut group);
        }
        // The command asks until somebody has heard it.
        while !group.wants_end() && (group.daemon.is_some() || group.pump.is_some()) {
            group.stop();
            steps(&mut group, 3);
        }
        let pumps = group.pumps;
        group.settle();
        let orphaned = group.daemon.is_none() && group.pump.is_none();
        assert!(group.is_nothing() || orphaned, "{}\n{group:#?}", group.story());
        assert!(group.pumps <= pumps + 5, "{} pumps: {}", group.pumps - pumps, group.story());
    }
}

#[test]
fn a_restart_that_was_heard_comes_whoever_dies_meanwhile() {
    let mut restarted = 0;
    for seed in 0..6000 {
        let mut group = whole(KEEP, seed);
        if seed % 3 == 0 {
            group.blow(Role::Pump, Blow::Kill);
            steps(&mut group, seed % 11);
        }
        group.restart();
        steps(&mut group, seed % 4);
        let heard = group.wants_restart();
        strike(&mut group);
        group.settle();
        assert!(group.is_whole() || group.is_orphaned() || group.is_lost(), "{}\n{group:#?}", group.story());
        assert!(!(heard && group.is_whole()) || group.process_number() == 2, "{}", group.story());
        restarted += u32::from(group.process_number() == 2);
    }
    assert!(restarted > 3000, "{restarted}");
}

#[test]
fn the_end_of_a_process_is_told_once_whoever_lives_at_that_moment() {
    for seed in 0..6000 {
        let failing_hooks = [0, 30][seed as usize % 2];
        let mut group = whole(KEEP, seed);
        group.fail_hooks(failing_hooks);
        for round in 0..3 {
            strike(&mut group);
            steps(&mut group, (seed + round) % 9);
            group.process_dies();
            steps(&mut group, (seed + round) % 5);
        }
        group.settle();
        assert_eq!(group.told_wrong(), [0_u32; 0], "{}\n{group:#?}", group.story());
        let orphaned = group.daemon.is_none() && group.pump.is_none();
        assert!(group.is_whole() || orphaned, "{}\n{group:#?}", group.story());
    }
}

#[test]
fn a_pump_that_cannot_become_the_daemon_makes_a_group_that_is_whole() {
    for seed in 0..2000 {
        let mut group = whole(Rules { failing_execs: 100, ..KEEP }, seed);
        for _ in 0..2 {
            group.blow(Role::Daemon, Blow::Kill);
            group.settle();
            assert!(group.is_whole(), "{}\n{group:#?}", group.story());
        }
        assert_eq!(group.told_wrong(), [0_u32; 0], "{}\n{group:#?}", group.story());
    }
}

#[test]
fn a_group_that_gives_up_on_its_monitors_leaves_nothing() {
    for seed in 0..500 {
        let mut group = whole(Rules { gives_up: true, ..KEEP }, seed);
        group.fail_hooks(100);
        group.blow(Role::Pump, Blow::Kill);
        group.settle();
        assert!(group.is_nothing(), "{}\n{group:#?}", group.story());
    }
}

#[test]
fn reloads_leave_the_process_as_it_is_whatever_the_new_monitors_do_and_whoever_dies() {
    for seed in 0..6000 {
        let broken_reloads = [0, 30, 100][seed as usize % 3];
        let mut group = whole(Rules { broken_reloads, ..KEEP }, seed);
        for round in 0..4 {
            group.reload();
            if (seed + round) % 3 != 0 {
                strike(&mut group);
            }
            steps(&mut group, round * 5);
        }
        group.settle();
        assert_eq!(group.process_number(), 1, "{}\n{group:#?}", group.story());
        let settled = group.is_whole() && group.is_settled();
        assert!(settled || group.is_orphaned(), "{}\n{group:#?}", group.story());
    }
}

#[test]
fn one_role_that_dies_during_a_reload_leaves_no_orphan() {
    for seed in 0..6000 {
        let mut group = whole(KEEP, seed);
        group.reload();
        strike(&mut group);
        group.settle();
        let settled = group.is_whole() && group.is_settled();
        assert!(settled && group.process_number() == 1, "{}\n{group:#?}", group.story());
    }
}

#[test]
fn the_end_of_a_process_is_told_once_also_during_a_reload() {
    for seed in 0..6000 {
        let broken_reloads = [0, 30][seed as usize % 2];
        let mut group = whole(Rules { broken_reloads, ..KEEP }, seed);
        for round in 0..3 {
            group.reload();
            if (seed + round) % 3 == 0 {
                strike(&mut group);
            }
            steps(&mut group, seed % 13);
            group.process_dies();
            steps(&mut group, (seed + round) % 7);
        }
        group.settle();
        assert_eq!(group.told_wrong(), [0_u32; 0], "{}\n{group:#?}", group.story());
        let orphaned = group.daemon.is_none() && group.pump.is_none();
        assert!(group.is_whole() && group.is_settled() || orphaned, "{}\n{group:#?}", group.story());
    }
}

#[test]
fn a_stop_or_a_restart_during_a_reload_is_not_forgotten() {
    for seed in 0..4000 {
        let mut group = whole(Rules { broken_reloads: 50, ..KEEP }, seed);
        group.reload();
        steps(&mut group, seed % 17);
        if seed % 2 == 0 {
            group.stop();
            group.settle();
            while !group.wants_end() && !group.is_nothing() {
                // The pump that was asked had made way already, and the command asks again.
                group.stop();
                group.settle();
            }
            assert!(group.is_nothing(), "{}\n{group:#?}", group.story());
        } else {
            group.restart();
            group.settle();
            if group.process_number() == 1 {
                group.restart();
                group.settle();
            }
            let settled = group.is_whole() && group.is_settled();
            assert!(settled && group.process_number() == 2, "{}\n{group:#?}", group.story());
        }
    }
}
