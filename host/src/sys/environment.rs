//! The environment as it lies in memory.

#![expect(unsafe_code, reason = "the environment is a table of pointers")]

use std::ffi::{CStr, c_char};

#[cfg(not(target_os = "macos"))]
fn table() -> *const *const c_char {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    // SAFETY: the C library has this variable and keeps it initialised.
    unsafe { environ }
}

#[cfg(target_os = "macos")]
fn table() -> *const *const c_char {
    // SAFETY: it takes nothing and returns the address of a variable that always exists.
    unsafe { (*libc::_NSGetEnviron()).cast_const().cast() }
}

/// The variables of this process, `KEY=VALUE` each, without a copy of them. For a role before it has loaded
/// anybody's code, or that never does: else somebody might be changing them.
pub(crate) fn variables() -> impl Iterator<Item = &'static [u8]> + Clone {
    let table = table();
    let variable = move |index: usize| {
        if table.is_null() {
            return None;
        }
        // SAFETY: the table ends with a null, behind which nobody asks: `map_while` stops there.
        let variable = unsafe { table.add(index).read() };
        // SAFETY: what stands in the table is a NUL-terminated string, which nobody changes (see above).
        (!variable.is_null()).then(|| unsafe { CStr::from_ptr(variable) }.to_bytes())
    };
    (0..).map_while(variable)
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_what_the_standard_library_reads() {
        use std::os::unix::ffi::OsStrExt;
        let theirs = std::env::vars_os();
        let theirs = theirs.map(|(key, value)| [key.as_bytes(), b"=", value.as_bytes()].concat());
        let ours = super::variables().filter(|variable| variable.iter().skip(1).any(|byte| *byte == b'='));
        assert!(ours.map(<[u8]>::to_vec).eq(theirs));
    }
}
