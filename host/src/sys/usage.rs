//! What this process holds at the moment: descriptors, threads, allocated memory. For telling what was left
//! behind; `None` where the system does not say.

#![expect(unsafe_code, reason = "the C library's functions for this have no safe form")]

use nix::sys::signal::{SigSet, Signal};
use std::collections::BTreeMap;

/// Open descriptors, each with what it leads to as far as that is known.
pub(crate) fn descriptors() -> Option<BTreeMap<i32, String>> {
    let directory = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };
    let listed: Vec<i32> = std::fs::read_dir(directory)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    // The descriptor of the listing itself is closed by now.
    let leads_to = |number: i32| {
        let target = std::fs::read_link(format!("{directory}/{number}"));
        target.map(|target| target.display().to_string()).unwrap_or_default()
    };
    let is_open = |number: &i32| std::fs::symlink_metadata(format!("{directory}/{number}")).is_ok();
    Some(listed.into_iter().filter(is_open).map(|number| (number, leads_to(number))).collect())
}

/// Threads of this process.
pub(crate) fn threads() -> Option<usize> {
    match std::fs::read_dir("/proc/self/task") {
        Ok(entries) => Some(entries.count()),
        Err(_) => None,
    }
}

/// Signals that some thread of this process does not block, of those that the calling one does.
pub(crate) fn signals_taken_by_other_threads(blocked: &SigSet) -> Option<Vec<Signal>> {
    let mut taken = Vec::new();
    for entry in std::fs::read_dir("/proc/self/task").ok()?.flatten() {
        let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else { continue };
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
        let Some(mask) = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()) else { continue };
        let is_taken = |signal: &Signal| blocked.contains(*signal) && mask >> (*signal as i32 - 1) & 1 == 0;
        taken.extend(Signal::iterator().filter(is_taken));
    }
    taken.sort();
    taken.dedup();
    Some(taken)
}

/// Bytes that malloc has given out and not got back, over all its arenas.
pub(crate) fn allocated_bytes() -> Option<usize> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: it takes no argument and fills in a structure of numbers, under malloc's own locks.
        let info = unsafe { libc::mallinfo2() };
        Some(info.uordblks + info.hblkhd)
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    None
}

/// Writes out what C code has left in the buffers of its streams.
pub(crate) fn flush_c_streams() {
    // SAFETY: null means all streams that are open for writing; each is locked while it is flushed.
    if unsafe { libc::fflush(std::ptr::null_mut()) } != 0 {
        log::debug!("unable to flush: {}", std::io::Error::last_os_error());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_file_is_among_the_descriptors() {
        use std::os::fd::AsRawFd;
        let file = std::fs::File::open("/dev/null").unwrap();
        let open = descriptors().unwrap();
        assert!(open.contains_key(&file.as_raw_fd()), "{open:?}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn own_thread_is_counted() {
        assert!(threads().unwrap() >= 1);
    }
}
