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
    /// Maps a file. One that is too short is filled up first, not only made longer: on a full file system a
    /// write tells, where touching a hole of the mapping would kill.
    pub(crate) fn map(file: &File) -> io::Result<Self> {
        use nix::sys::mman::{MapFlags, ProtFlags, mmap};
        fill_up(file, BYTES)?;
        let length = NonZeroUsize::new(BYTES).expect("the size is not zero");
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing of ours.
        let address: NonNull<_> =
            unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, file.as_fd(), 0)? };
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

/// Writes zeros behind the end of a file until it is this long.
pub(crate) fn fill_up(file: &File, length: usize) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let present = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    match length.checked_sub(present) {
        Some(missing) => file.write_all_at(&vec![0; missing], present as u64),
        None => Ok(()),
    }
}

/// A stretch of memory that one thread of one process writes, shared through a file so that others can read it.
#[derive(Debug)]
pub(crate) struct SharedBytes {
    memory: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to this value alone and stays for the life of the process.
unsafe impl Send for SharedBytes {}

impl SharedBytes {
    /// Maps the beginning of a file, which is at least this long.
    pub(crate) fn map(file: &File, length: usize) -> io::Result<Self> {
        use nix::sys::mman::{MapFlags, ProtFlags, mmap};
        let size = NonZeroUsize::new(length).ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing of ours.
        let memory = unsafe { mmap(None, size, access, MapFlags::MAP_SHARED, file, 0)? };
        Ok(Self { memory: memory.cast(), length })
    }

    /// Memory of this process alone, whose pages exist once they are written.
    pub(crate) fn private(length: usize) -> io::Result<Self> {
        use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
        let size = NonZeroUsize::new(length).ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: as above.
        let memory = unsafe { mmap_anonymous(None, size, access, MapFlags::MAP_PRIVATE)? };
        Ok(Self { memory: memory.cast(), length })
    }

    /// A part of it. Only this process writes to the memory; the kernel fills it in a read, and reports a page
    /// that cannot be had as an error of that read.
    pub(crate) fn part(&mut self, start: usize, length: usize) -> &mut [u8] {
        assert!(start <= self.length && length <= self.length - start, "the part is inside");
        // SAFETY: the range was checked to be inside the mapping, which is readable and writable and borrowed
        // mutably for as long as the slice lives; other processes only read it.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr().add(start), length) }
    }

    fn counter_word(&self) -> &AtomicU64 {
        // SAFETY: the mapping is page-aligned, longer than a number, and its first eight bytes are only ever
        // accessed as this atomic.
        unsafe { self.memory.cast::<AtomicU64>().as_ref() }
    }

    /// The number in the first eight bytes.
    pub(crate) fn counter(&self) -> u64 {
        self.counter_word().load(std::sync::atomic::Ordering::SeqCst)
    }

    /// Sets the number in the first eight bytes, after everything that was written before.
    pub(crate) fn set_counter(&self, value: u64) {
        self.counter_word().store(value, std::sync::atomic::Ordering::SeqCst);
    }
}
