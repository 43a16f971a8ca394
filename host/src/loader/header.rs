//! Judges the first bytes of a library before the dynamic loader sees it.
//!
//! The loader maps what the headers promise: of a truncated file it dies with SIGBUS, and of a foreign one it
//! says "no such file". So what is promised is compared with the length of the file here. Pure: bytes in, verdict
//! out; both formats are read on every system.

mod elf;
mod macho;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Why a file is no shared library of this machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// It cannot be read.
    #[error("unable to read it")]
    Read(#[source] io::Error),
    /// It has no bytes.
    #[error("it is empty")]
    Empty,
    /// It is something else altogether.
    #[error("it is {what}, not a shared library")]
    NotALibrary {
        /// What.
        what: &'static str,
    },
    /// It is a library of another machine.
    #[error("it is built for {found}, this machine is {}", native.name())]
    Foreign {
        /// What it is built for.
        found: String,
        /// What this machine is.
        native: Native,
    },
    /// Its headers promise more than there is.
    #[error("it is truncated: {length} bytes of at least {needed}")]
    Truncated {
        /// How long it is.
        length: u64,
        /// How long it must be.
        needed: u64,
    },
    /// Its headers contradict themselves.
    #[error("it is damaged: {what}")]
    Damaged {
        /// In what way.
        what: &'static str,
    },
}

/// Which format and machine this build of immortal loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Native {
    /// ELF, with the number of the machine in its header.
    Elf(u16),
    /// Mach-O, with the number of the processor in its header.
    MachO(u32),
}

impl Native {
    /// What this executable was built for; `None` for a machine whose number is not known here, where the
    /// dynamic loader has to judge alone.
    #[must_use]
    pub fn of_this_machine() -> Option<Self> {
        if cfg!(target_os = "macos") {
            macho::of_this_machine().map(Self::MachO)
        } else if cfg!(all(target_pointer_width = "64", target_endian = "little")) {
            elf::of_this_machine().map(Self::Elf)
        } else {
            None
        }
    }

    fn name(self) -> String {
        match self {
            Self::Elf(machine) => elf::machine_name(machine),
            Self::MachO(processor) => macho::processor_name(processor),
        }
    }
}

/// A file, or bytes that stand for one.
pub trait Source {
    /// Its length.
    ///
    /// # Errors
    /// What the system says.
    fn length(&self) -> io::Result<u64>;
    /// Fills `buffer` from this offset.
    ///
    /// # Errors
    /// What the system says; `UnexpectedEof` where the file is shorter.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl Source for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}

impl Source for [u8] {
    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let bytes = start.and_then(|start| self.get(start..start.checked_add(buffer.len())?));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Accepts a whole shared library of `native`, and nothing else.
///
/// # Errors
/// Every [`HeaderError`].
pub fn examine(source: &(impl Source + ?Sized), native: Native) -> Result<(), HeaderError> {
    let view = View { source, length: source.length().map_err(HeaderError::Read)? };
    if view.length == 0 {
        return Err(HeaderError::Empty);
    }
    let mut head = [0; 64];
    let known = usize::try_from(view.length).unwrap_or(usize::MAX).min(head.len());
    let head = &mut head[..known];
    source.read_at(0, head).map_err(HeaderError::Read)?;
    match (native, guess(head)) {
        (Native::Elf(machine), Guess::Elf) => elf::examine(&view, machine),
        (Native::MachO(processor), Guess::MachO) => macho::examine(&view, processor),
        (Native::Elf(_), Guess::MachO) => Err(HeaderError::Foreign { found: "macOS".into(), native }),
        (Native::MachO(_), Guess::Elf) => Err(HeaderError::Foreign { found: "Linux or BSD".into(), native }),
        (_, Guess::Other(what)) => Err(HeaderError::NotALibrary { what }),
    }
}

enum Guess {
    Elf,
    MachO,
    Other(&'static str),
}

/// Tells what a file is by how it begins. One that ends within the four bytes that all formats begin with is
/// taken for that format, to be told truncated.
fn guess(head: &[u8]) -> Guess {
    let begins = |magic: &[u8]| head.starts_with(magic);
    if b"\x7fELF".starts_with(&head[..head.len().min(4)]) {
        return Guess::Elf;
    }
    if macho::MAGICS.iter().any(|magic| begins(magic)) {
        return Guess::MachO;
    }
    let is_text = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..=0x7e | 0x80..);
    Guess::Other(match () {
        () if begins(b"#!") => "a script",
        () if begins(b"!<arch>") || begins(b"!<thin>") => "a static archive",
        () if begins(b"MZ") => "a Windows program",
        () if begins(b"\0asm") => "a WebAssembly module",
        () if head.iter().all(is_text) => "a text file",
        () => "something unknown",
    })
}

/// A source with its length, read number by number.
struct View<'a, S: ?Sized> {
    source: &'a S,
    length: u64,
}

impl<S: Source + ?Sized> View<'_, S> {
    /// Refuses a range that is not inside the file.
    fn within(&self, offset: u64, size: u64) -> Result<(), HeaderError> {
        let needed = offset
            .checked_add(size)
            .ok_or(HeaderError::Damaged { what: "an offset is beyond all bounds" })?;
        if needed > self.length {
            return Err(HeaderError::Truncated { length: self.length, needed });
        }
        Ok(())
    }

    fn bytes<const N: usize>(&self, offset: u64) -> Result<[u8; N], HeaderError> {
        self.within(offset, N as u64)?;
        let mut bytes = [0; N];
        self.source.read_at(offset, &mut bytes).map_err(HeaderError::Read)?;
        Ok(bytes)
    }

    fn table(&self, offset: u64, entries: u64, entry_size: u64) -> Result<Vec<u8>, HeaderError> {
        let size = entries.checked_mul(entry_size).filter(|&size| size <= 1 << 24);
        let size = size.ok_or(HeaderError::Damaged { what: "a table is beyond all bounds" })?;
        self.within(offset, size)?;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        self.source.read_at(offset, &mut bytes).map_err(HeaderError::Read)?;
        Ok(bytes)
    }
}

/// Numbers of a record; one that is not in it is 0.
fn le16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_le_bytes)
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    le32(bytes, at).swap_bytes()
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    le64(bytes, at).swap_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> String {
        examine(bytes, Native::Elf(62)).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_library_is_named() {
        assert_eq!(text(b""), "it is empty");
        assert_eq!(text(b"hello\n"), "it is a text file, not a shared library");
        assert_eq!(text(b"#!/bin/sh\n"), "it is a script, not a shared library");
        assert_eq!(text(b"!<arch>\n"), "it is a static archive, not a shared library");
        assert_eq!(text(b"MZ\0\0"), "it is a Windows program, not a shared library");
        assert_eq!(text(b"\0\x01\x02"), "it is something unknown, not a shared library");
        assert_eq!(text(&[0xcf, 0xfa, 0xed, 0xfe]), "it is built for macOS, this machine is x86-64");
        assert_eq!(text(b"\x7fE"), "it is truncated: 2 bytes of at least 64");
    }
}
