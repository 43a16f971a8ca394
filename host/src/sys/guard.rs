//! Memory that can be taken away: who reads it afterwards, or past its end, is ended by the system.

#![expect(unsafe_code, reason = "maps and protects pages")]

use std::io;
use std::ptr::{NonNull, null_mut};

/// A copy of some values whose last byte is the last that can be read: the page behind them is barred. The
/// addresses are never used again, so that a pointer kept too long stays recognisable.
pub(crate) struct Guarded<T: Copy> {
    start: NonNull<u8>,
    /// Bytes up to the barred page.
    length: usize,
    first: NonNull<T>,
    count: usize,
}

impl<T: Copy> Guarded<T> {
    /// Copies the values. Their size is to be a multiple of their alignment, as that of all types is.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn copy(values: &[T]) -> io::Result<Self> {
        let page = page_bytes();
        let length = size_of_val(values).div_ceil(page).max(1) * page;
        // SAFETY: an anonymous mapping at an address of the system's choice touches no memory that is in use.
        let mapped = unsafe {
            libc::mmap(
                null_mut(),
                length + page,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANON,
                -1,
                0,
            )
        };
        let start = NonNull::new(mapped.cast::<u8>()).filter(|_| mapped != libc::MAP_FAILED);
        let start = start.ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the mapping has `length + page` bytes, so this address is within it, or one past it.
        let behind = unsafe { start.add(length) };
        bar(behind, page)?;
        // SAFETY: `length` is at least the size of the values, so this is within the mapping.
        let first: NonNull<T> = unsafe { behind.sub(size_of_val(values)) }.cast();
        // SAFETY: the values fit between `first` and the barred page; a page's end is aligned for every type, and
        // so is an address that is a multiple of the type's size before it. Nobody else knows the mapping.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), first.as_ptr(), values.len()) };
        Ok(Self { start, length, first, count: values.len() })
    }

    /// The copies.
    pub(crate) fn values(&self) -> &[T] {
        // SAFETY: as many initialised values stand there, readable until `take_away`, which consumes `self`.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.count) }
    }

    /// Bars the copies as well: every later access ends the process with SIGSEGV (SIGBUS on macOS).
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn take_away(self) -> io::Result<()> {
        bar(self.start, self.length)
    }
}

/// Takes all rights from pages.
fn bar(start: NonNull<u8>, length: usize) -> io::Result<()> {
    // SAFETY: called for pages of a mapping of this module alone, to which no reference is left.
    match unsafe { libc::mprotect(start.as_ptr().cast(), length, libc::PROT_NONE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Size of a page.
pub(crate) fn page_bytes() -> usize {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| usize::try_from(size).ok()).unwrap_or(1 << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_end_where_the_page_ends() {
        for length in [0, 1, 4095, 4096, 100_000] {
            let bytes: Vec<u8> = (0..length).map(|at: i32| at.to_le_bytes()[0]).collect();
            let guarded = Guarded::copy(&bytes).unwrap();
            assert_eq!(guarded.values(), bytes);
            assert_eq!(guarded.values().as_ptr_range().end.addr() % page_bytes(), 0);
            guarded.take_away().unwrap();
        }
        let numbers = Guarded::copy(&[1_u64, 2, 3]).unwrap();
        assert_eq!(numbers.values(), [1, 2, 3]);
    }
}
