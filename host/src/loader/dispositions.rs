//! Remembers how signals are handled, and puts that back after a library was loaded.
//!
//! A monitor that installs a handler would take the pump's own signals from it, and one that ignores a signal
//! would pass that on to every program the pump executes.

#![expect(unsafe_code, reason = "sigaction has no safe form for every signal number")]

use std::mem::MaybeUninit;

/// More than the highest number of a signal.
const NUMBERS: usize = 65;

/// The dispositions of all signals at one moment.
pub struct Dispositions {
    /// By number. No `Vec`: ten kilobytes that are freed later would leave a hole below what a library allocates.
    actions: [Option<libc::sigaction>; NUMBERS],
}

impl std::fmt::Debug for Dispositions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispositions").field("signals", &self.actions.iter().flatten().count()).finish()
    }
}

impl Dispositions {
    /// Takes them.
    #[must_use]
    pub fn snapshot() -> Self {
        let mut actions = [None; NUMBERS];
        for (signal, action) in (0..=last_signal()).zip(&mut actions) {
            if !matches!(signal, 0 | libc::SIGKILL | libc::SIGSTOP) {
                *action = current(signal);
            }
        }
        Self { actions }
    }

    /// Puts them back, and names the signals that had been changed since.
    #[must_use = "the changed signals are worth a warning"]
    pub fn restore(&self) -> Vec<String> {
        let mut changed = Vec::new();
        for (signal, before) in (0..).zip(&self.actions) {
            let (Some(before), Some(now)) = (before, current(signal)) else { continue };
            if same(before, &now) {
                continue;
            }
            changed.push(signal_name(signal));
            // SAFETY: `before` is what sigaction itself returned for this signal in this process, so its
            // handler is a function that is still there: libraries are never unloaded.
            let failed = unsafe { libc::sigaction(signal, before, std::ptr::null_mut()) } != 0;
            if failed {
                log::warn!("unable to restore the handling of {}", signal_name(signal));
            }
        }
        changed
    }

    /// [`Dispositions::restore`], with one warning that names the monitor.
    pub fn restore_after(&self, label: &str) {
        let changed = self.restore();
        if !changed.is_empty() {
            log::warn!("monitor {label} had changed the handling of {}; it was put back", changed.join(", "));
        }
    }
}

/// `SIGSEGV` for 11; `signal 34` where there is no name.
#[must_use]
pub fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal)
        .map_or_else(|_| format!("signal {signal}"), |signal| signal.as_str().to_owned())
}

#[cfg(target_os = "linux")]
fn last_signal() -> i32 {
    libc::SIGRTMAX()
}

#[cfg(not(target_os = "linux"))]
fn last_signal() -> i32 {
    31
}

/// How a signal is handled; `None` for one that the C library keeps for itself.
fn current(signal: i32) -> Option<libc::sigaction> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null new action changes nothing, and `action` has room for the old one.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: it was zeroed, which is a valid sigaction, and on success filled in.
    (result == 0).then(|| unsafe { action.assume_init() })
}

/// Flags mean nothing without a function, and the C library sets one of its own.
fn same(a: &libc::sigaction, b: &libc::sigaction) -> bool {
    const FLAGS: i32 =
        libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART | libc::SA_NODEFER | libc::SA_RESETHAND;
    let has_function = a.sa_sigaction != libc::SIG_DFL && a.sa_sigaction != libc::SIG_IGN;
    a.sa_sigaction == b.sa_sigaction && (!has_function || a.sa_flags & FLAGS == b.sa_flags & FLAGS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_handling_is_named_and_put_back() {
        let before = Dispositions::snapshot();
        // SAFETY: ignoring a signal installs no code, and no other test sends this one.
        unsafe { libc::signal(libc::SIGUSR2, libc::SIG_IGN) };
        assert_eq!(before.restore(), ["SIGUSR2"]);
        assert_eq!(before.restore(), Vec::<String>::new());
    }
}
