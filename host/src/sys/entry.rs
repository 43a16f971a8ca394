//! What has to be done between the C library's start of a program and its first line of Rust, and after its last,
//! where Rust's runtime does not do it.

#![expect(unsafe_code, reason = "looks at descriptors that nobody owns yet")]

use std::io::Write;

/// Opens what the caller left closed of stdin, stdout and stderr, so that no file of ours gets their numbers, and
/// makes a write to a broken pipe, or past the limit of file sizes, an error instead of a death.
pub(crate) fn prepare() {
    for number in 0..=2 {
        // SAFETY: fcntl takes any number; open takes a NUL-terminated string and flags. Nobody owns a descriptor
        // of these numbers yet, and the lowest one that is free is the one that is missing.
        unsafe {
            if libc::fcntl(number, libc::F_GETFD) == -1 {
                libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            }
        }
    }
    for signal in [libc::SIGPIPE, libc::SIGXFSZ] {
        // SAFETY: ignoring a signal installs no code.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Writes out what is left in the buffer of stdout.
pub(crate) fn flush_stdout() {
    if let Err(error) = std::io::stdout().flush() {
        log::debug!("writing to stdout: {error}");
    }
}
