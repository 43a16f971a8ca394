//! Stderr of an unattached pump: a file in the group's directory, whose end tells why the pump died.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

/// The file, kept within bounds.
#[derive(Debug)]
pub(super) struct CrashFile {
    file: File,
    limit_bytes: u64,
    deliveries: u32,
}

/// How many deliveries come between two looks at the size, under output that never pauses.
const DELIVERIES: u32 = 256;

impl CrashFile {
    /// Keeps this file, which is open for appending, below twice the limit.
    pub(super) fn new(file: OwnedFd, limit_bytes: u64) -> Self {
        Self { file: file.into(), limit_bytes: limit_bytes.max(4096), deliveries: 0 }
    }

    /// Looks at the size now and then.
    pub(super) fn count_delivery(&mut self) {
        self.deliveries = (self.deliveries + 1) % DELIVERIES;
        if self.deliveries == 0 {
            self.trim();
        }
    }

    /// Drops all but the newest bytes once there are too many.
    pub(super) fn trim(&mut self) {
        if let Err(error) = self.try_trim() {
            log::debug!("trimming the pump's stderr: {error}");
        }
    }

    fn try_trim(&mut self) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        if length <= self.limit_bytes.saturating_mul(2) {
            return Ok(());
        }
        let mut newest = vec![0; usize::try_from(self.limit_bytes).unwrap_or(usize::MAX)];
        self.file.read_exact_at(&mut newest, length - self.limit_bytes)?;
        self.file.set_len(0)?;
        self.file.write_all(&newest)
    }
}
