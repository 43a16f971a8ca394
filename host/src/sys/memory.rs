//! Memory that a process which sleeps for days need not hold.
//!
//! Both allocator and stack keep the pages that they have ever touched. Where the C library is not glibc this does
//! nothing.

#![cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "the allocator's controls and madvise have no safe form")
)]

/// How far below its frames a stack is looked at, in bytes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const DEPTH_BYTES: usize = 128 * 1024;

/// Lets all threads allocate from one heap. Otherwise the allocator gives each thread one of its own, of which a
/// few pages are always in use. To be called before there are threads.
pub(crate) fn share_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: mallopt takes two numbers.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }
}

/// Gives the system back the pages of the heap that hold nothing. It looks through the whole heap.
pub(crate) fn trim_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: malloc_trim takes a number and works under the allocator's own locks.
        unsafe { libc::malloc_trim(0) };
    }
}

/// Gives the system back the pages that this thread's stack once reached down to: within two microseconds. For a
/// thread with a stack of more than 128 KiB that is about to sleep.
#[inline(never)]
pub(crate) fn trim_stack() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// What the call below may have in use below the frame of this function.
        const FRAMES_BYTES: usize = 512;
        let local = 0_u8;
        let page = super::guard::page_bytes();
        let end = ((&raw const local).addr() - FRAMES_BYTES) / page * page;
        let start = std::ptr::without_provenance_mut(end - DEPTH_BYTES);
        // SAFETY: the range is below all frames of this thread, where nothing is kept, and belongs to its stack
        // alone: the stack of a thread that calls this is deep enough, and below the main thread's, which grows,
        // the system leaves a gap of more than that. The pages read as zeros when the stack reaches them again.
        unsafe { libc::madvise(start, DEPTH_BYTES, libc::MADV_DONTNEED) };
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    #[test]
    fn what_a_deep_call_has_touched_is_given_back() {
        #[inline(never)]
        fn deep(fill: u8) -> usize {
            let mut bytes = [fill; 64 * 1024];
            std::hint::black_box(&mut bytes);
            bytes.as_ptr().addr()
        }
        let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(|| {
            let kept = std::hint::black_box([7_u8; 4096]);
            let address = deep(1);
            let before = resident(address);
            super::trim_stack();
            let after = resident(address);
            (before, after, kept.iter().all(|byte| *byte == 7))
        });
        let (before, after, is_kept) = thread.unwrap().join().unwrap();
        assert!(before && !after && is_kept, "{before} {after} {is_kept}");
    }

    /// Whether the page of this address is in memory.
    fn resident(address: usize) -> bool {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::open("/proc/self/pagemap").expect("Linux has it");
        let mut entry = [0; 8];
        let at = address / crate::sys::guard::page_bytes() * entry.len();
        file.read_exact_at(&mut entry, at as u64).expect("there is an entry for each page");
        u64::from_ne_bytes(entry) >> 63 == 1
    }
}
