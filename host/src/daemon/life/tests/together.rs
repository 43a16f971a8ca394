//! Whatever strikes the roles: when everything has come to rest, there is one whole group or nothing.

use super::group::{Blow, Group, Role, Rules};

const ROLES: [Role; 2] = [Role::Daemon, Role::Pump];
const BLOWS: [Blow; 3] = [Blow::Kill, Blow::Term, Blow::Interrupt];

/// The process goes with its roles.
const RESPAWN: Rules = Rules {
    keeps: false,
    ignores_signal: false,
    failing_hooks: 0,
    failing_execs: 0,
    gives_up: false,
    broken_reloads: 0,
};

#[test]
fn one_death_of_a_role_is_always_followed_by_a_whole_group_again() {
    for ignores_signal in [false, true] {
        for (role, blow) in ROLES.into_iter().flat_map(|role| BLOWS.map(|blow| (role, blow))) {
            for seed in 0..50 {
                let mut group = Group::begin(Rules { ignores_signal, ..RESPAWN }, seed);
                group.settle();
                assert!(group.is_whole(), "{}", group.story());
                for _ in 0..3 {
                    group.blow(role, blow);
                    group.settle();
                    assert!(group.is_whole(), "{}\n{group:#?}", group.story());
                }
            }
        }
    }
}

#[test]
fn two_deaths_at_any_moment_leave_one_whole_group_or_nothing() {
    let blows = |role: Role| BLOWS.map(|blow| (role, blow));
    let all: Vec<_> = ROLES.into_iter().flat_map(blows).collect();
    for ((first, second), seed) in all
        .iter()
        .flat_map(|a| all.iter().map(move |b| (a, b)))
        .flat_map(|pair| (0..2).map(move |seed| (pair, seed)))
    {
        for at in 0..25 {
            for gap in 0..12 {
                let mut group = Group::begin(RESPAWN, seed * 7919 + at * 31 + gap);
                for _ in 0..at {
                    group.step();
                }
                group.blow(first.0, first.1);
                for _ in 0..gap {
                    group.step();
                }
                group.blow(second.0, second.1);
                group.settle();
                assert!(group.is_whole() || group.is_nothing(), "{}\n{group:#?}", group.story());
            }
        }
    }
}

#[test]
fn sigterm_to_both_roles_at_any_moment_leaves_nothing_and_in_either_order() {
    for [first, second] in [ROLES, [Role::Pump, Role::Daemon]] {
        for seed in 0..200 {
            for gap in 0..3 {
                for keeps in [false, true] {
                    let mut group =
                        Group::begin(Rules { keeps, ignores_signal: seed % 2 == 0, ..RESPAWN }, seed);
                    group.settle();
                    group.blow(first, Blow::Term);
                    for _ in 0..gap {
                        group.step();
                    }
                    // Only while both are still there: the grace is over otherwise.
                    let both = group.pump.is_some() && group.daemon.is_some();
                    group.blow(second, Blow::Term);
                    group.settle();
                    assert!(group.is_nothing() || !both, "{}\n{group:#?}", group.story());
                }
            }
        }
    }
}
