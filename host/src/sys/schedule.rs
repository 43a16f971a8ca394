//! How soon a thread that wakes up gets a processor that is busy.

/// Lets the calling thread, and what it starts from now on, take a busy processor as soon as it wakes up: nothing else
/// is asked for than a short turn (Linux 6.12; before that this changes nothing), and its share of the processor stays
/// what it is. Otherwise whoever runs there, a thread of the kernel for instance, may finish its own turn first:
/// 3 ms and more.
pub(crate) fn be_prompt() {
    #[cfg(linux_path)]
    if let Err(error) = linux::be_prompt() {
        log::debug!("turns on the processor stay long: {error}");
    }
}

#[cfg(linux_path)]
#[expect(unsafe_code, reason = "sched_getattr and sched_setattr have no safe wrapper")]
mod linux {
    use nix::errno::Errno;
    use nix::libc::{self, sched_attr};
    use std::io;

    /// The shortest that Linux grants.
    pub(super) const TURN_NS: u64 = 100_000;

    pub(super) fn be_prompt() -> io::Result<()> {
        let attributes = get()?;
        if !matches!(i32::try_from(attributes.sched_policy), Ok(libc::SCHED_OTHER | libc::SCHED_BATCH)) {
            return Ok(());
        }
        let attributes = sched_attr { sched_runtime: TURN_NS, ..attributes };
        // SAFETY: the system reads a structure of the size that it names, and this one is alive.
        Errno::result(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })?;
        Ok(())
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

    #[test]
    fn turns_get_short_and_nothing_else_changes() {
        let thread = std::thread::spawn(|| {
            let before = linux::get().expect("attributes");
            super::be_prompt();
            (before, linux::get().expect("attributes"))
        });
        let (before, after) = thread.join().expect("no panic");
        assert_eq!(
            (after.sched_policy, after.sched_flags, after.sched_nice, after.sched_priority),
            (before.sched_policy, before.sched_flags, before.sched_nice, before.sched_priority)
        );
        // Before Linux 6.12 there is nothing to be set.
        let expected = if before.sched_runtime == 0 { 0 } else { linux::TURN_NS };
        assert_eq!(after.sched_runtime, expected);
    }
}
