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

/// Does something that needs files of this many bytes, with the soft limit out of the way for so long.
pub(crate) fn with_files_of<T>(bytes: u64, run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let before = allow_files_of(bytes)?;
    let result = run();
    if let Some(before) = before {
        set_file_size(before)?;
    }
    result
}

/// Sets the soft limit.
pub(crate) fn set_file_size(soft: u64) -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE)?;
    setrlimit(Resource::RLIMIT_FSIZE, soft, hard)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_over_may_be_longer_than_files_may_be() {
        let before = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
        let long = vec![b'x'; 33 << 20];
        // The limit holds for the whole process, which other tests share: it is one that none of them reaches.
        let low = 32 << 20;
        setrlimit(Resource::RLIMIT_FSIZE, low, before.1).unwrap();
        let sealed = crate::sys::fd::sealed(&long).and_then(crate::sys::fd::read_from_start);
        let after = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
        setrlimit(Resource::RLIMIT_FSIZE, before.0, before.1).unwrap();
        assert_eq!(sealed.unwrap().len(), long.len());
        assert_eq!(after.0, low);
    }
}
