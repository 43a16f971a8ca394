//! Whose fault the death of a pump was.

use crate::delivery::{Delivery, Hook, InHook, Verdict};
use crate::sys::family::Exit;

/// Signals that a process gets for what its own code does. Those that come from outside are nobody's fault.
const FAULTS: [i32; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGABRT, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];

/// The monitor that ended a pump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Culprit {
    /// Its index.
    pub(super) monitor: usize,
    /// The hook that did it; none: it said so outside its hooks.
    pub(super) hook: Option<Hook>,
}

impl Culprit {
    /// The hook that did it, and whose.
    pub(super) fn in_hook(self) -> Option<InHook> {
        let Self { monitor, hook } = self;
        hook.map(|hook| InHook { monitor, hook })
    }
}

/// Whose hook ended a pump: it was in progress, and it failed, panicked, took too long, called `exit`, or did
/// something for which the kernel ends a process. Or the monitor said outside its hooks that it has failed.
pub(super) fn blame(delivery: Delivery, exit: Exit) -> Option<Culprit> {
    let of_itself = match delivery.verdict() {
        Verdict::Monitor(monitor) => return Some(Culprit { monitor, hook: None }),
        Verdict::Late(InHook { monitor, hook }) => return Some(Culprit { monitor, hook: Some(hook) }),
        Verdict::Hook => true,
        Verdict::Other => false,
        Verdict::None => exit.code.is_some() || exit.signal.is_some_and(|signal| FAULTS.contains(&signal)),
    };
    let InHook { monitor, hook } = delivery.in_hook().filter(|_| of_itself)?;
    Some(Culprit { monitor, hook: Some(hook) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::WORDS;
    use std::sync::atomic::AtomicU64;

    fn delivery(hook: Option<Hook>, verdict: Verdict) -> Delivery {
        let words: Vec<AtomicU64> = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        let delivery = Delivery::new(Vec::leak(words));
        if let Some(hook) = hook {
            delivery.enter(2, hook);
        }
        delivery.set_verdict(verdict);
        delivery
    }

    fn exited(code: i32) -> Exit {
        Exit { code: Some(code), ..Exit::default() }
    }

    fn killed(signal: i32) -> Exit {
        Exit { signal: Some(signal), ..Exit::default() }
    }

    #[test]
    fn a_hook_is_to_blame_for_what_it_does() {
        let stdout = Some(Culprit { monitor: 2, hook: Some(Hook::Stdout) });
        for exit in [exited(0), exited(3), killed(libc::SIGSEGV), killed(libc::SIGABRT), killed(libc::SIGBUS)]
        {
            assert_eq!(blame(delivery(Some(Hook::Stdout), Verdict::None), exit), stdout);
            assert_eq!(blame(delivery(None, Verdict::None), exit), None);
        }
        assert_eq!(blame(delivery(Some(Hook::Stdout), Verdict::Hook), exited(125)), stdout);
    }

    #[test]
    fn a_monitor_that_says_of_itself_that_it_failed_is_to_blame_whoever_was_in_a_hook() {
        for hook in [None, Some(Hook::Stdout)] {
            for monitor in [0, 1, 2, 7] {
                let blamed = blame(delivery(hook, Verdict::Monitor(monitor)), exited(125));
                assert_eq!(blamed, Some(Culprit { monitor, hook: None }));
            }
        }
    }

    #[test]
    fn the_hook_that_took_too_long_is_to_blame_whatever_came_after_it() {
        for after in [None, Some(Hook::Stdout)] {
            for monitor in [0, 1, 7] {
                for hook in [Hook::Create, Hook::Setup, Hook::Stderr, Hook::Destroy] {
                    let late = Verdict::Late(InHook { monitor, hook });
                    let blamed = blame(delivery(after, late), exited(125));
                    assert_eq!(blamed, Some(Culprit { monitor, hook: Some(hook) }));
                }
            }
        }
    }

    #[test]
    fn nobody_is_to_blame_for_what_comes_from_outside() {
        for signal in [libc::SIGKILL, libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            assert_eq!(blame(delivery(Some(Hook::Stdout), Verdict::None), killed(signal)), None);
        }
        assert_eq!(blame(delivery(Some(Hook::Stdout), Verdict::Other), exited(125)), None);
    }
}
