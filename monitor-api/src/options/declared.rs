//! The declarations as they cross the boundary: the extension `immortal.options/1`.

use super::{Kind, OptionSpec};
use crate::abi::{self, OptionDecl, OptionTable};
use core::ffi::c_char;
use std::ffi::CString;
use std::sync::{Mutex, PoisonError};

/// The tables made so far, each with the declarations it was made of. They live for ever, as the library does.
static TABLES: Mutex<Vec<Made>> = Mutex::new(Vec::new());

struct Made {
    specs: &'static [OptionSpec],
    table: &'static OptionTable,
}

// SAFETY: both are read-only and never freed; the pointers in the table lead to such data too.
#[expect(unsafe_code, reason = "the table holds raw pointers, and those are not Send")]
unsafe impl Send for Made {}

/// The table of these declarations, the same one at every call.
pub(crate) fn table(specs: &'static [OptionSpec]) -> &'static OptionTable {
    let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(made) = tables.iter().find(|made| core::ptr::eq(made.specs, specs)) {
        return made.table;
    }
    let options = specs.iter().map(declaration).collect::<Vec<_>>().leak();
    let size = u32::try_from(size_of::<OptionTable>()).expect("a few words");
    let table = OptionTable { size, flags: 0, options: options.as_ptr(), count: options.len() };
    let table = &*Box::leak(Box::new(table));
    tables.push(Made { specs, table });
    table
}

fn declaration(spec: &OptionSpec) -> OptionDecl {
    let (kind, choices) = match spec.kind {
        Kind::String => (abi::OPTION_STRING, [].as_slice()),
        Kind::Path => (abi::OPTION_PATH, [].as_slice()),
        Kind::Integer => (abi::OPTION_INTEGER, [].as_slice()),
        Kind::Boolean => (abi::OPTION_BOOLEAN, [].as_slice()),
        Kind::Size => (abi::OPTION_SIZE, [].as_slice()),
        Kind::Duration => (abi::OPTION_DURATION, [].as_slice()),
        Kind::OneOf(choices) => (abi::OPTION_CHOICE, choices),
    };
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    let choices = choices.iter().map(|choice| leak(choice)).collect::<Vec<_>>().leak();
    OptionDecl {
        name: leak(spec.name),
        help: leak(spec.help),
        default_value: spec.default.map_or(core::ptr::null(), leak),
        choices: if choices.is_empty() { core::ptr::null() } else { choices.as_ptr() },
        choice_count: choices.len(),
        kind,
        flags: flag(spec.required, abi::OPTION_REQUIRED)
            | flag(spec.nullable, abi::OPTION_NULLABLE)
            | flag(spec.secret, abi::OPTION_SECRET),
    }
}

/// A NUL-terminated copy that lives for ever; a text ends at its first NUL.
fn leak(text: &str) -> *const c_char {
    let text = text.split('\0').next().unwrap_or_default();
    CString::new(text).expect("cut at the first NUL").into_raw()
}
