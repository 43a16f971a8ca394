//! Lets abi_stable compare the types of a Rust monitor with ours. The only place that uses abi_stable.
//!
//! Its own check accepts a monitor that is as new as the host or newer, and refuses every older one. Both
//! directions are safe for us, because what may differ (fields at the end of the root module) is read by what
//! the monitor itself says it has; so it is enough that one of them holds.

#![expect(unsafe_code, reason = "reads abi_stable's header symbol from an opened library")]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "abi_stable has thirty causes, and most say enough themselves"
)]

use std::ffi::{CStr, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use abi_stable::StableAbi;
use abi_stable::abi_stability::abi_checking::{
    AbiInstability, AbiInstabilityError, AbiInstabilityErrors, CheckingGlobals,
    check_layout_compatibility_with_globals,
};
use abi_stable::library::{AbiHeaderRef, LibHeader, ROOT_MODULE_LOADER_NAME_WITH_NUL};
use abi_stable::type_layout::TypeLayout;
use immortal_monitor_api::abi::{MonitorRoot, MonitorTable};

use super::one_line;

/// How many causes are told.
const MOST_CAUSES: usize = 3;

/// What comparing has shown.
pub(super) enum Verdict {
    /// The library has no abi_stable header: it is not a Rust monitor.
    Absent,
    /// The layout is ours, and the root module leads to the same table.
    Same {
        /// The `immortal-monitor-api` it was built with.
        api_version: String,
    },
    /// It has an abi_stable that cannot be compared with ours.
    Unknown {
        /// Why.
        why: String,
    },
    /// The layout differs, or the root module leads to another table.
    Different {
        /// The whole of it, with at most three causes, joined with `; `.
        text: String,
    },
}

/// Name of the symbol to pass to [`verify`].
pub(super) const SYMBOL: &CStr = match CStr::from_bytes_with_nul(ROOT_MODULE_LOADER_NAME_WITH_NUL.as_bytes())
{
    Ok(name) => name,
    Err(_) => panic!("abi_stable's name of the symbol ends with a NUL"),
};

/// Compares the whole layout that `table` is part of. `symbol` is the address of [`SYMBOL`] in its library, if
/// it has one.
pub(super) fn verify(symbol: Option<NonNull<c_void>>, table: &'static MonitorTable) -> Verdict {
    let Some(symbol) = symbol else { return Verdict::Absent };
    // SAFETY: an `AbiHeaderRef` is a transparent reference to what a symbol of this name is: abi_stable's header,
    // in a library that is never closed. It begins with a magic string, which is compared before anything else.
    let header = unsafe { std::mem::transmute::<NonNull<c_void>, AbiHeaderRef>(symbol) };
    if !header.is_valid() {
        let (major, minor) = (header.abi_major, header.abi_minor);
        return Verdict::Unknown { why: format!("it was built with abi_stable {major}.{minor}") };
    }
    // abi_stable panics where it finds what it thinks impossible, as in a damaged library.
    catch_unwind(AssertUnwindSafe(|| compare(header, table)))
        .unwrap_or_else(|_| different("abi_stable could not walk its types"))
}

fn compare(header: AbiHeaderRef, table: &'static MonitorTable) -> Verdict {
    let header: &'static LibHeader = match header.upgrade() {
        Ok(header) => header,
        Err(error) => return different(&error.to_string()),
    };
    let Some(theirs) = header.layout() else {
        return Verdict::Unknown { why: "it was built without a description of its layout".into() };
    };
    let ours = <MonitorRoot as StableAbi>::LAYOUT;
    if let Err(errors) = both_ways(ours, theirs) {
        log::trace!("layout: {errors}");
        return Verdict::Different { text: causes(&errors) };
    }
    // SAFETY: the layout of its root module has just been compared with that of `MonitorRoot`.
    let root = match unsafe { header.unchecked_layout::<MonitorRoot>() } {
        Ok(root) => root,
        Err(error) => return different(&error.to_string()),
    };
    if !std::ptr::eq(root.table(), table) {
        return different("its root module leads to another table than `immortal_monitor_v1`");
    }
    Verdict::Same { api_version: one_line(root.api_version().as_str()) }
}

/// Compares our types with themselves, so that the comparison that follows finds its code and its memory ready.
pub(in crate::loader) fn rehearse() {
    let ours = <MonitorRoot as StableAbi>::LAYOUT;
    // Nobody asks for the result, and there is but one.
    drop(both_ways(ours, ours));
}

fn different(why: &str) -> Verdict {
    Verdict::Different { text: format!("it was built with another layout: {}", first_line(why)) }
}

/// Accepts what is compatible in either direction. The globals are fresh for each: shared ones remember older
/// libraries and refuse newer ones for it.
fn both_ways(ours: &'static TypeLayout, theirs: &'static TypeLayout) -> Result<(), AbiInstabilityErrors> {
    let one_way = |a, b| check_layout_compatibility_with_globals(a, b, &CheckingGlobals::new());
    one_way(ours, theirs).or_else(|errors| one_way(theirs, ours).map_err(|_| errors))
}

fn causes(errors: &AbiInstabilityErrors) -> String {
    let mut causes = Vec::new();
    for error in &errors.errors {
        let place = place(error);
        for cause in &error.errs {
            if let AbiInstability::PackageVersion(versions) = cause {
                // Everything else follows from this one.
                let (ours, theirs) = (&versions.expected, &versions.found);
                return format!(
                    "it was built with immortal-monitor-api {theirs}, this immortal speaks {ours}"
                );
            }
            let cause = format!("{place}{}", words(cause));
            if !causes.contains(&cause) {
                causes.push(cause);
            }
        }
    }
    causes.truncate(MOST_CAUSES);
    format!("it was built with another layout: {}", causes.join("; "))
}

/// The way from the root to where types differ: `table > event > param_1 > code: `.
fn place(error: &AbiInstabilityError) -> String {
    use abi_stable::type_layout::TLFieldOrFunction;
    let steps = error.stack_trace.iter().map(|step| match step.expected {
        TLFieldOrFunction::Field(field) => field.name().to_owned(),
        TLFieldOrFunction::Function(function) => function.name.to_string(),
    });
    // A parameter is a step that has the names of all parameters, a pointer is one of the name 0, and a function
    // comes twice: as a field and as itself.
    let mut steps: Vec<String> = steps.filter(|step| step != "0" && !step.contains(',')).collect();
    steps.dedup();
    if steps.is_empty() { String::new() } else { format!("{}: ", steps.join(" > ")) }
}

fn words(cause: &AbiInstability) -> String {
    let differs = |what: &str, ours: &dyn std::fmt::Display, theirs: &dyn std::fmt::Display| {
        format!("{what} {} instead of {}", one_line(&theirs.to_string()), one_line(&ours.to_string()))
    };
    match cause {
        AbiInstability::Name(both) => differs("type", &both.expected, &both.found),
        AbiInstability::Package(both) => differs("package", &both.expected, &both.found),
        AbiInstability::Size(both) => differs("size", &both.expected, &both.found),
        AbiInstability::Alignment(both) => differs("alignment", &both.expected, &both.found),
        AbiInstability::FieldCountMismatch(both) => differs("number of fields", &both.expected, &both.found),
        AbiInstability::UnexpectedField(both) => differs("field", &both.expected.name(), &both.found.name()),
        AbiInstability::MismatchedPrimitive(both) => {
            format!("type {:?} instead of {:?}", both.found, both.expected)
        }
        other => first_line(&format!("{other:?}")),
    }
}

/// abi_stable's own texts run over many lines, sometimes many kilobytes; the first says what it is about.
fn first_line(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("unknown cause");
    one_line(&line.chars().take(160).collect::<String>())
}
