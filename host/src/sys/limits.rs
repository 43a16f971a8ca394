//! The limit of file sizes, which holds for files in memory as well.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io;

/// Raises the soft limit so that files may have this many bytes; returns what it was if it was lower.
pub(crate) fn allow_files_of(bytes: u64) -> io::Result<Option<u64>> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_FSIZE)?;
    if soft >= bytes {
        return Ok(None);
    }
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard)?;
    Ok(Some(soft))
}

/// Sets the soft limit.
pub(crate) fn set_file_size(soft: u64) -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE)?;
    setrlimit(Resource::RLIMIT_FSIZE, soft, hard)?;
    Ok(())
}
