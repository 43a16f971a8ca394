//! Opens a library and reads its table. The only place that uses libloading.
//!
//! Opening runs foreign code. A process that cannot afford to die of it lets the helper process do it first.

#![expect(unsafe_code, reason = "opens libraries and follows the pointers of their tables")]

use std::ffi::{CStr, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::{NonNull, null_mut};

use immortal_monitor_api::abi::{self, MonitorTable};
use libloading::os::unix::{Library as Opened, RTLD_LOCAL, RTLD_NOW};

use super::layout::{self, Verdict};
use super::{Description, Door, one_line};
use crate::options::{OptionDecl, OptionType};

/// Longest text that is read from a table.
const TEXT_LIMIT_BYTES: usize = 4096;
/// Most options and most choices that are read from a declaration.
const DECLARATION_LIMIT: usize = 1024;

/// An opened library. It stays open for as long as the process lives.
#[derive(Clone, Copy)]
pub struct Library {
    table: &'static MonitorTable,
    description: &'static Description,
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library").field("description", self.description).finish_non_exhaustive()
    }
}

impl Library {
    /// What it says of itself.
    #[must_use]
    pub fn description(&self) -> &'static Description {
        self.description
    }

    /// Its table; every function in it may be called as the boundary says.
    pub(crate) fn table(&self) -> &'static MonitorTable {
        self.table
    }
}

/// How much of a library is checked when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Nothing is known: the layout of a Rust monitor is compared.
    Unknown,
    /// The same file has been compared before; it came in by this door. What options it declares is not asked
    /// again: neither side keeps them for the life of the pump.
    Checked(Door),
}

/// Why a library cannot be opened, or its table not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The path has a NUL byte, or is relative: the system would search for it.
    #[error("{} cannot be passed to the dynamic loader", path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// The dynamic loader refused it.
    #[error("the dynamic loader refused it: {why}")]
    Open {
        /// What it says.
        why: String,
    },
    /// It is a library, but not of a monitor.
    #[error("it is not a monitor: it has no symbol `immortal_monitor_v1`")]
    NoEntry,
    /// The symbol is there and leads to something else.
    #[error(
        "it is not a monitor: `immortal_monitor_v1` is not a monitor's table (wrong magic number {found:#010x})"
    )]
    Magic {
        /// What stands in place of the magic number.
        found: u32,
    },
    /// The symbol is not aligned as a table is.
    #[error("it is not a monitor: `immortal_monitor_v1` is not a monitor's table (not aligned)")]
    Unaligned,
    /// It was built for another version of the boundary.
    #[error("it was built for version {found} of the monitor ABI, this immortal speaks version {}", abi::ABI)]
    Abi {
        /// Its version.
        found: u32,
    },
    /// Its table is too short.
    #[error("its table has {found} bytes instead of at least {}", size_of::<MonitorTable>())]
    Size {
        /// The size it gives.
        found: u32,
    },
    /// A function is missing that must not be.
    #[error("its table has no function `{function}`")]
    Missing {
        /// Which.
        function: &'static str,
    },
    /// Its types have another layout.
    #[error("{text}")]
    Layout {
        /// In what way; at most three causes, joined with `; `.
        text: String,
    },
}

impl TableError {
    /// What to do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Layout { .. } | Self::Size { .. } => {
                Some("rebuild it with immortal-monitor-api 1.x".into())
            }
            Self::Abi { found } if *found > abi::ABI => {
                Some("install a newer immortal, or rebuild the monitor with immortal-monitor-api 1.x".into())
            }
            Self::Abi { .. } => Some("rebuild it with immortal-monitor-api 1.x".into()),
            Self::NoEntry => Some("a Rust monitor ends with `export_monitor!(Type);`".into()),
            Self::Path { .. }
            | Self::Open { .. }
            | Self::Magic { .. }
            | Self::Unaligned
            | Self::Missing { .. } => None,
        }
    }
}

/// Opens the library of an absolute path and reads its table. Opening the same file again gives the same table.
///
/// # Errors
/// What the dynamic loader says, or what is wrong with the table.
pub fn open(path: &Path, trust: Trust) -> Result<Library, TableError> {
    if !path.is_absolute() || path.as_os_str().as_bytes().contains(&0) {
        return Err(TableError::Path { path: path.to_owned() });
    }
    // SAFETY: its constructors run here. The process has agreed to that: either it is the helper, which may die
    // of it, or the same file has passed the helper. The path is absolute, so that nothing is searched.
    let opened = unsafe { Opened::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
    // Never closed, not even when it is refused: it may have started threads.
    let opened =
        std::mem::ManuallyDrop::new(opened.map_err(|error| TableError::Open { why: why(&error, path) })?);
    // SAFETY: the symbol's address is taken as a pointer and read below with care for whatever is there.
    let symbol = unsafe { opened.get::<*const MonitorTable>(c"immortal_monitor_v1") };
    let address = symbol.map(libloading::os::unix::Symbol::as_raw_ptr).map_err(|_| TableError::NoEntry)?;
    let table = judge_head(address.cast_const().cast())?;
    // SAFETY: as above; the address alone is taken.
    let root =
        unsafe { opened.get::<*const c_void>(layout::SYMBOL) }.map(libloading::os::unix::Symbol::as_raw_ptr);
    let (door, api_version) = match trust {
        Trust::Checked(door) => (door, None),
        Trust::Unknown => match layout::verify(NonNull::new(root.unwrap_or(null_mut())), table) {
            Verdict::Absent => (Door::C, None),
            Verdict::Same { api_version } => (Door::RustVerified, Some(api_version)),
            Verdict::Unknown { why } => {
                log::warn!("{}: layout not verified: {why}", path.display());
                (Door::RustUnverified, None)
            }
            Verdict::Different { text } => return Err(TableError::Layout { text }),
        },
    };
    for (function, is_there) in [("create", table.create.is_some()), ("destroy", table.destroy.is_some())] {
        if !is_there {
            return Err(TableError::Missing { function });
        }
    }
    let stem = || path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let description = Description {
        name: text(table.name).filter(|name| !name.is_empty()).or_else(stem).unwrap_or_default(),
        version: text(table.version).unwrap_or_default(),
        about: text(table.about).unwrap_or_default(),
        api_version,
        door,
        options: match trust {
            Trust::Unknown => declared(table),
            Trust::Checked(_) => None,
        },
    };
    Ok(Library { table, description: Box::leak(Box::new(description)) })
}

/// The reason of the dynamic loader: libloading's own text is only "dlopen failed", the reason is its source.
/// The path that it begins with is said elsewhere.
fn why(error: &libloading::Error, path: &Path) -> String {
    let mut reason: &dyn std::error::Error = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    let text = one_line(&reason.to_string());
    let prefix = format!("{}: ", path.display());
    text.strip_prefix(&prefix).map_or_else(|| text.clone(), str::to_owned)
}

/// Reads magic number, version and size, in this order, each before it says how to go on.
fn judge_head(address: *const u8) -> Result<&'static MonitorTable, TableError> {
    if address.is_null() {
        return Err(TableError::NoEntry);
    }
    let word = |index: usize| {
        // SAFETY: a symbol's address is mapped, and so is the rest of its page. Whatever the symbol is, a code
        // or a short object, four more words of it are bytes of the same library's image.
        unsafe { address.cast::<u32>().add(index).read_unaligned() }
    };
    let (magic, abi, size) = (word(0), word(1), word(2));
    if magic != abi::MAGIC {
        return Err(TableError::Magic { found: magic });
    }
    if abi != abi::ABI {
        return Err(TableError::Abi { found: abi });
    }
    if (size as usize) < size_of::<MonitorTable>() {
        return Err(TableError::Size { found: size });
    }
    let table: *const MonitorTable = address.cast();
    if !table.is_aligned() {
        return Err(TableError::Unaligned);
    }
    // SAFETY: aligned, not null, and it calls itself a table of this version with at least this size. Every
    // member is valid for any bits but the functions, whose nullness alone is looked at here. The library is
    // never closed, so the reference holds for ever.
    Ok(unsafe { &*table })
}

/// A text of the table, in one line; `None` for null.
fn text(start: *const c_char) -> Option<String> {
    if start.is_null() {
        return None;
    }
    let mut bytes = Vec::new();
    while bytes.len() < TEXT_LIMIT_BYTES {
        // SAFETY: not null, and every byte before this one was not the NUL that ends the text.
        let byte = unsafe { start.add(bytes.len()).cast::<u8>().read() };
        if byte == 0 {
            break;
        }
        bytes.push(byte);
    }
    Some(one_line(&String::from_utf8_lossy(&bytes)))
}

/// The options that a library declares; `None` if it has no such extension.
fn declared(table: &MonitorTable) -> Option<Vec<OptionDecl>> {
    let name: &CStr = abi::EXTENSION_OPTIONS;
    let extension: *const abi::OptionTable = table.get_extension?(name.as_ptr()).cast();
    if extension.is_null() || !extension.is_aligned() {
        return None;
    }
    // SAFETY: not null and aligned; by the extension's name it leads to this structure, which is never freed.
    let options = unsafe { &*extension };
    if (options.size as usize) < size_of::<abi::OptionTable>() {
        return None;
    }
    let count = options.count.min(DECLARATION_LIMIT);
    if options.options.is_null() {
        return Some(Vec::new());
    }
    // SAFETY: not null, and the extension says that so many declarations are there.
    let declarations = unsafe { std::slice::from_raw_parts(options.options, count) };
    Some(declarations.iter().filter_map(declaration).collect())
}

fn declaration(option: &abi::OptionDecl) -> Option<OptionDecl> {
    let choice_count = if option.choices.is_null() { 0 } else { option.choice_count.min(DECLARATION_LIMIT) };
    let choice = |index: usize| {
        // SAFETY: not null (else the count is 0), and the declaration says that so many choices are there.
        text(unsafe { option.choices.add(index).read() })
    };
    Some(OptionDecl {
        name: text(option.name).filter(|name| !name.is_empty())?,
        help: text(option.help).unwrap_or_default(),
        default: text(option.default_value),
        choices: (0..choice_count).filter_map(choice).collect(),
        kind: match option.kind {
            abi::OPTION_STRING => OptionType::String,
            abi::OPTION_PATH => OptionType::Path,
            abi::OPTION_INTEGER => OptionType::Integer,
            abi::OPTION_BOOLEAN => OptionType::Boolean,
            abi::OPTION_SIZE => OptionType::Size,
            abi::OPTION_DURATION => OptionType::Duration,
            abi::OPTION_CHOICE => OptionType::Choice,
            other => OptionType::Other(other),
        },
        required: option.flags & abi::OPTION_REQUIRED != 0,
        nullable: option.flags & abi::OPTION_NULLABLE != 0,
        secret: option.flags & abi::OPTION_SECRET != 0,
    })
}
