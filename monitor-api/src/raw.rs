//! From raw parts of the boundary to slices and back: the one place where a [`Str`] is taken at its word.

use crate::abi::{Opt, Str};

/// Borrows what a [`Str`] points at.
///
/// # Safety
/// Unless it is null or empty, `text` must point at `len` initialised bytes that nobody writes to while `'a`
/// lasts.
#[expect(unsafe_code, reason = "a pointer and a length from across the boundary become a slice here")]
pub(crate) unsafe fn bytes<'a>(text: Str) -> &'a [u8] {
    if text.data.is_null() || text.len == 0 {
        return &[];
    }
    // SAFETY: not null and not empty, so by this function's contract `len` initialised bytes are there for 'a.
    unsafe { core::slice::from_raw_parts(text.data, text.len) }
}

/// Borrows an array of options.
///
/// # Safety
/// Unless it is null or `count` is 0, `options` must point at `count` options that stay there for `'a`.
#[expect(unsafe_code, reason = "a pointer and a count from across the boundary become a slice here")]
pub(crate) unsafe fn options<'a>(options: *const Opt, count: usize) -> &'a [Opt] {
    if options.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: not null and not empty, so by this function's contract `count` options are there for 'a.
    unsafe { core::slice::from_raw_parts(options, count) }
}

/// Makes a [`Str`] of borrowed bytes; valid as long as they are.
pub(crate) const fn text(bytes: &[u8]) -> Str {
    Str { data: bytes.as_ptr(), len: bytes.len() }
}

/// The [`Str`] that says "no such setting".
pub(crate) const NONE: Str = Str { data: core::ptr::null(), len: 0 };
