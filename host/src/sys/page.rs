//! A page of memory that several processes share through a file: numbers, each read and written atomically.

#![expect(unsafe_code, reason = "shared memory has no safe form")]

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// How many numbers a page holds.
pub(crate) const WORDS: usize = 512;
/// Size of the file, in bytes.
pub(crate) const BYTES: usize = WORDS * 8;

/// The mapping. It is never unmapped: a process maps one page in its life, and the forked child writes to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharedWords {
    words: &'static [AtomicU64; WORDS],
}

impl SharedWords {
    /// Maps a file, which is made long enough first.
    pub(crate) fn map(file: &File) -> io::Result<Self> {
        use nix::sys::mman::{MapFlags, ProtFlags, mmap};
        if file.metadata()?.len() < BYTES as u64 {
            file.set_len(BYTES as u64)?;
        }
        let length = NonZeroUsize::new(BYTES).expect("the size is not zero");
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing of ours.
        let address: NonNull<_> = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, file.as_fd(), 0)? };
        // SAFETY: the mapping is `BYTES` long, page-aligned, zeroed or written by this same code, and stays for
        // the life of the process. All access to it, here and in other processes, is through atomics, and the
        // file is never shortened (only its owner may open it), so no access can fault.
        let words = unsafe { address.cast::<[AtomicU64; WORDS]>().as_ref() };
        Ok(Self { words })
    }

    /// The numbers.
    pub(crate) fn words(self) -> &'static [AtomicU64; WORDS] {
        self.words
    }
}
