//! Mach-O, 64 bits, little-endian; alone or in a universal file.

use super::{HeaderError, Native, Source, View, be32, be64, le32, le64};

const PLAIN: [u8; 4] = [0xcf, 0xfa, 0xed, 0xfe];
const OLD: [u8; 4] = [0xce, 0xfa, 0xed, 0xfe];
const UNIVERSAL: [u8; 4] = [0xca, 0xfe, 0xba, 0xbe];
const UNIVERSAL_64: [u8; 4] = [0xca, 0xfe, 0xba, 0xbf];

/// How such a file may begin.
pub(super) const MAGICS: [[u8; 4]; 4] = [PLAIN, OLD, UNIVERSAL, UNIVERSAL_64];

const HEADER_BYTES: u64 = 32;
const LC_SEGMENT_64: u32 = 0x19;
/// A universal file of more parts is a Java class, which begins with the same four bytes.
const MOST_PARTS: u32 = 30;

pub(super) fn of_this_machine() -> Option<u32> {
    let known = [("x86_64", 0x0100_0007), ("aarch64", 0x0100_000c)];
    known.iter().find(|(arch, _)| *arch == std::env::consts::ARCH).map(|&(_, processor)| processor)
}

pub(super) fn processor_name(processor: u32) -> String {
    match processor {
        7 => "32-bit x86".into(),
        12 => "32-bit Arm".into(),
        0x0100_0007 => "x86-64".into(),
        0x0100_000c => "64-bit Arm (arm64)".into(),
        18 | 0x0100_0012 => "PowerPC".into(),
        other => format!("processor number {other:#x}"),
    }
}

pub(super) fn examine<S: Source + ?Sized>(view: &View<'_, S>, processor: u32) -> Result<(), HeaderError> {
    match view.bytes::<4>(0)? {
        PLAIN => image(view, 0, view.length, processor),
        OLD => {
            let found = processor_name(le32(&view.bytes::<8>(0)?, 4));
            Err(HeaderError::Foreign { found, native: Native::MachO(processor) })
        }
        magic => universal(view, magic == UNIVERSAL_64, processor),
    }
}

fn universal<S: Source + ?Sized>(view: &View<'_, S>, is_64: bool, processor: u32) -> Result<(), HeaderError> {
    let count = be32(&view.bytes::<8>(0)?, 4);
    if count == 0 || count > MOST_PARTS {
        return Err(HeaderError::NotALibrary { what: "something unknown" });
    }
    let entry_bytes: u64 = if is_64 { 32 } else { 20 };
    let table = view.table(8, u64::from(count), entry_bytes)?;
    let mut found = Vec::new();
    for part in table.chunks_exact(if is_64 { 32 } else { 20 }) {
        let kind = be32(part, 0);
        if kind != processor {
            found.push(processor_name(kind));
            continue;
        }
        let (offset, size) = if is_64 {
            (be64(part, 8), be64(part, 16))
        } else {
            (u64::from(be32(part, 8)), u64::from(be32(part, 12)))
        };
        view.within(offset, size)?;
        return image(view, offset, size, processor);
    }
    Err(HeaderError::Foreign { found: found.join(" and "), native: Native::MachO(processor) })
}

/// One image that begins at `start` and has `size` bytes.
fn image<S: Source + ?Sized>(
    view: &View<'_, S>,
    start: u64,
    size: u64,
    processor: u32,
) -> Result<(), HeaderError> {
    let within = |offset: u64, length: u64| {
        let needed = offset
            .checked_add(length)
            .ok_or(HeaderError::Damaged { what: "an offset is beyond all bounds" })?;
        if needed > size { Err(HeaderError::Truncated { length: size, needed }) } else { Ok(()) }
    };
    within(0, HEADER_BYTES)?;
    let header: [u8; 32] = view.bytes(start)?;
    if header[..4] != PLAIN {
        return Err(HeaderError::Damaged { what: "a part of it is no Mach-O image" });
    }
    if le32(&header, 4) != processor {
        let found = processor_name(le32(&header, 4));
        return Err(HeaderError::Foreign { found, native: Native::MachO(processor) });
    }
    match le32(&header, 12) {
        1 => return Err(HeaderError::NotALibrary { what: "an object file" }),
        2 => return Err(HeaderError::NotALibrary { what: "an executable" }),
        6 | 8 => {}
        _ => return Err(HeaderError::NotALibrary { what: "another kind of Mach-O file" }),
    }
    let (count, bytes) = (le32(&header, 16), u64::from(le32(&header, 20)));
    within(HEADER_BYTES, bytes)?;
    let commands = view.table(start + HEADER_BYTES, bytes, 1)?;
    let mut rest = commands.as_slice();
    for _ in 0..count {
        let length = le32(rest, 4) as usize;
        if length < 8 || length > rest.len() {
            return Err(HeaderError::Damaged { what: "its load commands make no sense" });
        }
        let (command, after) = rest.split_at(length);
        if le32(command, 0) == LC_SEGMENT_64 {
            within(le64(command, 40), le64(command, 48))?;
        }
        rest = after;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::examine;
    use super::*;

    const ARM: u32 = 0x0100_000c;

    fn library(processor: u32, kind: u32) -> Vec<u8> {
        let mut file = Vec::new();
        for word in [0xfeed_facf_u32, processor, 0, kind, 1, 72, 0, 0, LC_SEGMENT_64, 72] {
            file.extend(word.to_le_bytes());
        }
        file.extend([0; 16 + 16]);
        file.extend(0u64.to_le_bytes());
        file.extend(200u64.to_le_bytes());
        file.resize(200, 0);
        file
    }

    fn universal(parts: &[(u32, &[u8])]) -> Vec<u8> {
        let mut file = UNIVERSAL.to_vec();
        let size = |bytes: usize| u32::try_from(bytes).unwrap();
        file.extend(size(parts.len()).to_be_bytes());
        let mut offset = 8 + 20 * size(parts.len());
        for (processor, bytes) in parts {
            for word in [*processor, 0, offset, size(bytes.len()), 0] {
                file.extend(word.to_be_bytes());
            }
            offset += size(bytes.len());
        }
        file.extend(parts.iter().flat_map(|(_, bytes)| *bytes));
        file
    }

    fn judge(bytes: &[u8]) -> Result<(), String> {
        examine(bytes, Native::MachO(ARM)).map_err(|error| error.to_string())
    }

    #[test]
    fn whole_library_is_accepted_and_every_truncation_refused() {
        let whole = library(ARM, 6);
        judge(&whole).unwrap();
        judge(&library(ARM, 8)).unwrap();
        for length in 4..whole.len() {
            let error = judge(&whole[..length]).unwrap_err();
            assert!(error.starts_with("it is truncated: "), "{length}: {error}");
        }
    }

    #[test]
    fn part_of_a_universal_file_for_this_machine_is_judged() {
        let (intel, arm) = (library(0x0100_0007, 6), library(ARM, 6));
        let both = universal(&[(0x0100_0007, &intel), (ARM, &arm)]);
        judge(&both).unwrap();
        for length in 8..both.len() {
            assert!(judge(&both[..length]).is_err(), "{length}");
        }
        let error = judge(&universal(&[(0x0100_0007, &intel)])).unwrap_err();
        assert_eq!(error, "it is built for x86-64, this machine is 64-bit Arm (arm64)");
    }

    #[test]
    fn what_is_no_library_is_refused() {
        assert_eq!(judge(&library(ARM, 2)).unwrap_err(), "it is an executable, not a shared library");
        let error = judge(&library(0x0100_0007, 6)).unwrap_err();
        assert_eq!(error, "it is built for x86-64, this machine is 64-bit Arm (arm64)");
        assert_eq!(
            judge(b"\x7fELF").unwrap_err(),
            "it is built for Linux or BSD, this machine is 64-bit Arm (arm64)"
        );
        let mut broken = library(ARM, 6);
        broken[36] = 0;
        assert!(judge(&broken).unwrap_err().starts_with("it is damaged: "));
    }
}
