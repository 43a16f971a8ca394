//! What the system shows as a process's arguments.

#![cfg_attr(linux_path, expect(unsafe_code, reason = "the system is told addresses"))]

use std::io;

/// Tells whether [`replace`] works here, where `/proc` is.
pub(crate) fn can_be_replaced() -> bool {
    #[cfg(linux_path)]
    return linux::takes_maps();
    #[cfg(portable_path)]
    false
}

/// Finds out what [`replace`] needs to know, so that it takes less time later.
pub(crate) fn prepare_to_replace() {
    #[cfg(linux_path)]
    linux::layout();
}

/// Shows these words as the arguments of this process, and nothing of what was there before. Takes some memory for
/// good.
pub(crate) fn replace(words: &[&str]) -> io::Result<()> {
    #[cfg(linux_path)]
    return linux::replace(words);
    #[cfg(portable_path)]
    {
        let _ = words;
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(linux_path)]
mod linux {
    use nix::errno::Errno;
    use std::io;
    use std::sync::OnceLock;

    /// `struct prctl_mm_map` of the kernel: where the parts of a program are.
    #[repr(C)]
    #[derive(Debug, Clone, Copy, Default)]
    pub(super) struct Map {
        start_code: u64,
        end_code: u64,
        start_data: u64,
        end_data: u64,
        start_brk: u64,
        brk: u64,
        start_stack: u64,
        arg_start: u64,
        arg_end: u64,
        env_start: u64,
        env_end: u64,
        auxv: u64,
        auxv_size: u32,
        exe_fd: u32,
    }

    /// Where the parts of this program are.
    pub(super) fn layout() -> Option<&'static Map> {
        static LAYOUT: OnceLock<Option<Map>> = OnceLock::new();
        LAYOUT.get_or_init(read_layout).as_ref()
    }

    /// Kernels can be built without.
    pub(super) fn takes_maps() -> bool {
        let mut size: libc::c_uint = 0;
        // SAFETY: the kernel writes one number to the pointer, which is to a live number of that type.
        let result = unsafe { libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_MAP_SIZE, &raw mut size, 0, 0) };
        result == 0 && usize::try_from(size) == Ok(size_of::<Map>())
    }

    fn read_layout() -> Option<Map> {
        // On the stack: what is allocated this early leaves a hole in the heap of a role for good.
        let mut text = [0; 2048];
        let length =
            std::io::Read::read(&mut std::fs::File::open("/proc/self/stat").ok()?, &mut text).ok()?;
        // The second field is the name, which may hold anything.
        let behind_name = text[..length].iter().rposition(|byte| *byte == b')')? + 2;
        let fields = text.get(behind_name..length)?.split(|byte| *byte == b' ');
        // Fields are counted from 1 in the manual of proc.
        let field = |number: usize| {
            let digits = str::from_utf8(fields.clone().nth(number - 3)?).ok()?;
            digits.trim_end().parse().ok().filter(|address| *address != 0)
        };
        Some(Map {
            start_code: field(26)?,
            end_code: field(27)?,
            start_stack: field(28)?,
            start_data: field(45)?,
            end_data: field(46)?,
            start_brk: field(47)?,
            env_start: field(50)?,
            env_end: field(51)?,
            exe_fd: u32::MAX,
            ..Map::default()
        })
    }

    pub(super) fn replace(words: &[&str]) -> io::Result<()> {
        let layout = layout().ok_or(io::ErrorKind::Unsupported)?;
        let text: Vec<u8> =
            words.iter().flat_map(|word| [word.as_bytes(), b"\0"]).flatten().copied().collect();
        // The system shows what is there, whenever it is asked.
        let range = Box::leak(text.into_boxed_slice()).as_ptr_range();
        // SAFETY: sbrk with 0 changes nothing.
        let brk = unsafe { libc::sbrk(0) };
        let map = Map {
            brk: brk.addr() as u64,
            arg_start: range.start.addr() as u64,
            arg_end: range.end.addr() as u64,
            ..*layout
        };
        // SAFETY: the kernel reads a structure of the size given; the addresses in it are those that it has already but
        // for the arguments, which are memory that is never freed.
        let result =
            unsafe { libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_MAP, &raw const map, size_of::<Map>(), 0) };
        Errno::result(result)?;
        Ok(())
    }
}

#[cfg(all(test, linux_path))]
mod tests {
    #[test]
    fn the_system_shows_other_arguments() {
        if !crate::sys::alone::is_alone() {
            return;
        }
        if !super::can_be_replaced() {
            return;
        }
        super::replace(&["immortal", "pump", "some-name"]).unwrap();
        assert_eq!(std::fs::read("/proc/self/cmdline").unwrap(), b"immortal\0pump\0some-name\0");
    }
}
