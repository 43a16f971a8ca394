//! ELF, 64 bits, little-endian.

use super::{HeaderError, Native, Source, View, le16, le32, le64};

const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: u64 = 56;
const SECTION_HEADER_BYTES: u64 = 64;
const DYNAMIC_ENTRY_BYTES: u64 = 16;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const SHT_NULL: u32 = 0;
const SHT_NOBITS: u32 = 8;
const DT_NULL: u64 = 0;
const DT_FLAGS_1: u64 = 0x6fff_fffb;
const DF_1_PIE: u64 = 0x0800_0000;

pub(super) fn of_this_machine() -> Option<u16> {
    let known = [("x86_64", 62), ("aarch64", 183), ("riscv64", 243), ("powerpc64", 21), ("loongarch64", 258)];
    known.iter().find(|(arch, _)| *arch == std::env::consts::ARCH).map(|&(_, machine)| machine)
}

pub(super) fn machine_name(machine: u16) -> String {
    match machine {
        3 => "32-bit x86".into(),
        8 => "MIPS".into(),
        20 => "PowerPC".into(),
        21 => "64-bit PowerPC".into(),
        22 => "s390x".into(),
        40 => "32-bit Arm".into(),
        43 => "SPARC".into(),
        62 => "x86-64".into(),
        183 => "64-bit Arm (aarch64)".into(),
        243 => "RISC-V".into(),
        258 => "LoongArch".into(),
        other => format!("machine number {other}"),
    }
}

pub(super) fn examine<S: Source + ?Sized>(view: &View<'_, S>, machine: u16) -> Result<(), HeaderError> {
    let header: [u8; HEADER_BYTES] = view.bytes(0)?;
    let foreign = |found| Err(HeaderError::Foreign { found, native: Native::Elf(machine) });
    match (header[4], header[5]) {
        (2, 1) => {}
        (1, 1) => return foreign(format!("{} (32 bits)", machine_name(le16(&header, 18)))),
        (1 | 2, 2) => return foreign("a big-endian machine".into()),
        _ => return Err(HeaderError::Damaged { what: "its ELF header makes no sense" }),
    }
    if le16(&header, 18) != machine {
        return foreign(machine_name(le16(&header, 18)));
    }
    match le16(&header, 16) {
        1 => return Err(HeaderError::NotALibrary { what: "an object file" }),
        2 => return Err(HeaderError::NotALibrary { what: "an executable" }),
        3 => {}
        4 => return Err(HeaderError::NotALibrary { what: "a core dump" }),
        _ => return Err(HeaderError::Damaged { what: "its ELF type is unknown" }),
    }
    let (offset, count) = (le64(&header, 32), u64::from(le16(&header, 56)));
    if count == 0 || u64::from(le16(&header, 54)) != PROGRAM_HEADER_BYTES {
        return Err(HeaderError::Damaged { what: "it has no program headers" });
    }
    let programs = view.table(offset, count, PROGRAM_HEADER_BYTES)?;
    sections(view, &header)?;
    let (mut is_loadable, mut dynamic) = (false, None);
    for program in programs.chunks_exact(56) {
        let (kind, offset) = (le32(program, 0), le64(program, 8));
        let (in_file, in_memory) = (le64(program, 32), le64(program, 40));
        match kind {
            PT_LOAD if in_file > in_memory => {
                return Err(HeaderError::Damaged { what: "a segment is longer in the file than in memory" });
            }
            PT_LOAD => {
                view.within(offset, in_file)?;
                is_loadable = true;
            }
            PT_DYNAMIC => {
                view.within(offset, in_file)?;
                dynamic = Some((offset, in_file));
            }
            _ => {}
        }
    }
    match dynamic {
        Some((offset, size)) if is_loadable => refuse_program(view, offset, size),
        _ => Err(HeaderError::Damaged { what: "it has nothing to load" }),
    }
}

/// A position-independent executable looks like a library but for one flag. (An interpreter is no sign: libc
/// has one.)
fn refuse_program<S: Source + ?Sized>(view: &View<'_, S>, offset: u64, size: u64) -> Result<(), HeaderError> {
    let entries = view.table(offset, size / DYNAMIC_ENTRY_BYTES, DYNAMIC_ENTRY_BYTES)?;
    let entries = entries.chunks_exact(16).map(|entry| (le64(entry, 0), le64(entry, 8)));
    let mut flags = entries.take_while(|&(tag, _)| tag != DT_NULL).filter(|&(tag, _)| tag == DT_FLAGS_1);
    if flags.any(|(_, flags)| flags & DF_1_PIE != 0) {
        return Err(HeaderError::NotALibrary { what: "an executable" });
    }
    Ok(())
}

/// The dynamic loader does not need the sections, but their table stands at the end of the file: where it is cut
/// off, something was lost in a copy.
fn sections<S: Source + ?Sized>(view: &View<'_, S>, header: &[u8]) -> Result<(), HeaderError> {
    let (offset, count) = (le64(header, 40), u64::from(le16(header, 60)));
    if offset == 0 || count == 0 || u64::from(le16(header, 58)) != SECTION_HEADER_BYTES {
        return Ok(());
    }
    let table = view.table(offset, count, SECTION_HEADER_BYTES)?;
    for section in table.chunks_exact(64) {
        if !matches!(le32(section, 4), SHT_NULL | SHT_NOBITS) {
            view.within(le64(section, 24), le64(section, 32))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::examine;
    use super::*;

    /// A library of one loadable segment that is the whole file, with a dynamic section of these entries.
    fn library(entries: &[(u64, u64)]) -> Vec<u8> {
        let mut file = vec![0; 64 + 2 * 56];
        file[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\x00");
        file[16] = 3;
        file[18] = 62;
        file[32] = 64;
        file[54] = 56;
        file[56] = 2;
        for (tag, value) in entries {
            file.extend(tag.to_le_bytes());
            file.extend(value.to_le_bytes());
        }
        let (length, dynamic) = (file.len() as u64, entries.len() as u64 * 16);
        let mut program = |index: usize, kind: u8, offset: u64, size: u64| {
            let at = 64 + index * 56;
            file[at] = kind;
            file[at + 8..at + 16].copy_from_slice(&offset.to_le_bytes());
            file[at + 32..at + 40].copy_from_slice(&size.to_le_bytes());
            file[at + 40..at + 48].copy_from_slice(&size.to_le_bytes());
        };
        program(0, 1, 0, length);
        program(1, 2, length - dynamic, dynamic);
        file
    }

    fn judge(bytes: &[u8]) -> Result<(), String> {
        examine(bytes, Native::Elf(62)).map_err(|error| error.to_string())
    }

    #[test]
    fn whole_library_is_accepted_and_every_truncation_refused() {
        let whole = library(&[(1, 7), (0, 0)]);
        judge(&whole).unwrap();
        for length in 1..whole.len() {
            let error = judge(&whole[..length]).unwrap_err();
            assert!(error.starts_with("it is truncated: "), "{length}: {error}");
        }
    }

    #[test]
    fn executables_of_both_kinds_are_refused() {
        assert_eq!(
            judge(&library(&[(DT_FLAGS_1, DF_1_PIE)])).unwrap_err(),
            "it is an executable, not a shared library"
        );
        judge(&library(&[(DT_FLAGS_1, 8)])).unwrap();
        let mut plain = library(&[(0, 0)]);
        plain[16] = 2;
        assert_eq!(judge(&plain).unwrap_err(), "it is an executable, not a shared library");
        plain[16] = 1;
        assert_eq!(judge(&plain).unwrap_err(), "it is an object file, not a shared library");
    }

    #[test]
    fn foreign_machines_are_named() {
        let mut file = library(&[(0, 0)]);
        file[18] = 183;
        assert_eq!(judge(&file).unwrap_err(), "it is built for 64-bit Arm (aarch64), this machine is x86-64");
        file[4] = 1;
        file[18] = 3;
        assert_eq!(judge(&file).unwrap_err(), "it is built for 32-bit x86 (32 bits), this machine is x86-64");
        file[5] = 2;
        assert_eq!(judge(&file).unwrap_err(), "it is built for a big-endian machine, this machine is x86-64");
    }

    #[test]
    fn absurd_offsets_are_refused() {
        let mut file = library(&[(0, 0)]);
        file[64 + 8..64 + 16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(judge(&file).unwrap_err().starts_with("it is damaged: "));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(changes in proptest::collection::vec((0usize..200, any::<u8>()), 0..12), cut in 0usize..220) {
            let mut file = library(&[(1, 7), (0, 0)]);
            let length = file.len();
            for (at, byte) in changes {
                file[at % length] = byte;
            }
            drop(judge(&file[..cut.min(length)]));
        }
    }

    #[test]
    fn libraries_of_this_system_are_accepted() {
        let Some(native) = Native::of_this_machine().filter(|native| matches!(native, Native::Elf(_))) else {
            return;
        };
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mut seen = 0;
        for path in maps.split_whitespace().filter(|word| word.starts_with('/') && word.contains(".so")) {
            examine(&std::fs::File::open(path).unwrap(), native)
                .unwrap_or_else(|error| panic!("{path}: {error}"));
            seen += 1;
        }
        assert!(seen > 0 || cfg!(target_env = "musl"), "libc at least is loaded");
        let own = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(
            examine(&own, native).unwrap_err().to_string(),
            "it is an executable, not a shared library"
        );
    }
}
