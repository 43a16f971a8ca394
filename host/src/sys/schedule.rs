//! How soon a thread that wakes up gets a processor that is busy.

/// Asks for short turns on the processor for the calling thread, and for nothing else: its share stays what it is. Who
/// has them usually takes a processor that is busy as soon as it wakes up; otherwise whoever runs there, a thread of the
/// kernel for instance, may finish its own turn first, of some milliseconds.
///
/// Linux 6.12 and later; before that it changes nothing. Nor does it where system calls are filtered: a filter may kill
/// whoever asks.
pub(crate) fn be_prompt() {
    #[cfg(linux_path)]
    match linux::be_prompt() {
        Ok(true) => {}
        Ok(false) => log::debug!("turns on the processor stay as they are"),
        Err(error) => log::debug!("turns on the processor stay as they are: {error}"),
    }
}

#[cfg(linux_path)]
#[expect(unsafe_code, reason = "sched_getattr, sched_setattr and prctl have no safe wrapper")]
mod linux {
    use nix::errno::Errno;
    use nix::libc::{self, sched_attr};
    use std::io;

    /// The shortest that Linux grants.
    pub(super) const TURN_NS: u64 = 100_000;

    pub(super) const RESET_ON_FORK: u64 = libc::SCHED_FLAG_RESET_ON_FORK as u64;

    /// Returns whether it has asked.
    pub(super) fn be_prompt() -> io::Result<bool> {
        // SAFETY: this call takes numbers only.
        if unsafe { libc::prctl(libc::PR_GET_SECCOMP) } != 0 {
            return Ok(false);
        }
        let mut attributes = get()?;
        if i32::try_from(attributes.sched_policy) != Ok(libc::SCHED_OTHER) {
            return Ok(false);
        }
        attributes.sched_runtime = TURN_NS;
        if attributes.sched_nice >= 0 {
            // What this thread starts has turns as usual. With a negative number it would lose that, too.
            attributes.sched_flags |= RESET_ON_FORK;
        }
        // SAFETY: the system reads a structure of the size that it names, and this one is alive.
        Errno::result(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })?;
        Ok(true)
    }

    /// Of the calling thread.
    pub(super) fn get() -> io::Result<sched_attr> {
        // SAFETY: all of its fields are numbers.
        let mut attributes: sched_attr = unsafe { std::mem::zeroed() };
        let size = size_of_val(&attributes);
        // SAFETY: the system writes no more than this size, and the structure is alive.
        Errno::result(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) })?;
        Ok(attributes)
    }
}

#[cfg(all(test, linux_path))]
mod tests {
    use super::linux;
    use nix::libc::sched_attr;

    /// Of a thread before and after it asked, and of one that it has started then.
    fn asked() -> Option<[sched_attr; 3]> {
        let ask = || {
            let before = linux::get().expect("attributes");
            let asked = linux::be_prompt();
            let after = linux::get().expect("attributes");
            let started = std::thread::spawn(|| linux::get().expect("attributes")).join().expect("no panic");
            // It does not ask where calls are filtered, or these tests run as batch; or it is not allowed to.
            asked.is_ok_and(|asked| asked).then_some([before, after, started])
        };
        std::thread::spawn(ask).join().expect("no panic")
    }

    #[test]
    fn turns_get_short_and_nothing_else_changes() {
        let Some([before, after, started]) = asked() else { return };
        let rest = |of: &sched_attr| (of.sched_policy, of.sched_nice, of.sched_priority);
        assert_eq!(rest(&after), rest(&before));
        assert_eq!(rest(&started), rest(&before));
        // Before Linux 6.12 there is nothing to be set.
        assert_eq!(after.sched_runtime, if before.sched_runtime == 0 { 0 } else { linux::TURN_NS });
        if before.sched_nice >= 0 {
            assert_eq!(after.sched_flags, before.sched_flags | linux::RESET_ON_FORK);
            assert_eq!(started.sched_runtime, before.sched_runtime);
        }
    }
}
