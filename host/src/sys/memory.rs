//! Memory that a process which sleeps for days need not hold.
//!
//! The allocator keeps the pages that it has ever touched. Where the C library is not glibc this does nothing.

#![cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "the allocator's controls have no safe form")
)]

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
