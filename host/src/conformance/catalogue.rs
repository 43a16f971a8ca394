//! All tests, in the order in which they run. Names are part of what `monitor check` promises.

use super::life::{Context, Outcome};
use super::{borrowed, chunking, declared, orders, residue, shapes, timing};

/// One test.
pub(super) struct Test {
    /// Its name.
    pub(super) name: &'static str,
    /// What it is about.
    pub(super) about: &'static str,
    /// What it does.
    pub(super) run: fn(&Context<'_>) -> Outcome,
    /// What a test must have passed for this one to have sense.
    pub(super) needs: &'static [&'static str],
    /// What an access to barred memory means.
    pub(super) fault: Option<&'static str>,
}

const LOADS: &str = "loads";
const ACCEPTED: &str = "options-accepted";
const READY: &str = "ready";
/// The test whose verdict is made from what all others wrote to stdout.
pub(super) const STDOUT: &str = "stdout-untouched";
/// The test in which nothing is to be written to stderr.
pub(super) const STDERR: &str = "stderr-quiet";

/// What a test of a life needs.
const LIFE: &[&str] = &[LOADS, ACCEPTED, READY];

const fn test(
    name: &'static str,
    about: &'static str,
    needs: &'static [&'static str],
    run: fn(&Context<'_>) -> Outcome,
) -> Test {
    Test { name, about, run, needs, fault: None }
}

pub(super) const TESTS: &[Test] = &[
    test(LOADS, "the library can be loaded", &[], declared::loads),
    test("table", "name, version, flags and reserved members", &[LOADS], declared::table),
    test("options-declared", "names, types, defaults and choices agree", &[LOADS], declared::declaration),
    test(
        ACCEPTED,
        "check and create take the options given, and every default",
        &[LOADS],
        declared::accepted,
    ),
    test("options-unknown", "an unknown option is refused", &[LOADS, ACCEPTED], declared::unknown_refused),
    test(
        "options-ill-typed",
        "ill-typed and missing options are refused",
        &[LOADS, ACCEPTED],
        declared::ill_typed_refused,
    ),
    test(READY, "setup ends in being ready", &[LOADS, ACCEPTED], shapes::ready),
    test("life", "start, output, exit, respawn, end", LIFE, shapes::whole_life),
    test("output-none", "a process that writes nothing", LIFE, shapes::no_output),
    test("output-empty", "chunks of no bytes", LIFE, shapes::empty_chunks),
    test("output-one-byte", "chunks of one byte", LIFE, shapes::one_byte),
    test("output-no-newline", "output without a newline", LIFE, shapes::no_newline),
    test("output-long-line", "a line of 1 MiB", LIFE, shapes::long_line),
    test("output-nul", "NUL bytes", LIFE, shapes::nul_bytes),
    test(
        "output-invalid-utf8",
        "bytes that are not UTF-8, and characters cut in two",
        LIFE,
        shapes::invalid_utf8,
    ),
    test("output-many-chunks", "100,000 small chunks", LIFE, shapes::many_chunks),
    test("exits", "exit codes and signals, each followed by a respawn", LIFE, shapes::exits),
    test("pump-restart", "set up with a dead pump's stderr", LIFE, shapes::pump_restart),
    test("daemon-restart", "set up after the death of a daemon", LIFE, shapes::daemon_restart),
    test("two-instances", "two instances side by side", LIFE, shapes::two_instances),
    test("newer-host", "kinds it cannot know, and longer structures", LIFE, shapes::newer_host),
    test("every-order", "every legal order of calls", LIFE, orders::every_order),
    test("random", "long lives by chance", LIFE, orders::random),
    test("chunking", "the same bytes in other pieces", LIFE, chunking::pieces),
    Test {
        fault: Some("it reads past the end of what it was lent"),
        ..test("within-bounds", "nothing is read past its end", LIFE, borrowed::within_bounds)
    },
    Test {
        fault: Some("it reads what it was lent for an earlier call"),
        ..test("data-not-kept", "nothing is read after the call it was lent for", LIFE, borrowed::not_kept)
    },
    test("descriptors-closed", "no descriptor left open", LIFE, residue::descriptors),
    test("threads-ended", "no thread left after destroy", LIFE, residue::threads),
    test("memory-freed", "destroy frees what create made", LIFE, residue::memory),
    test("signals-untouched", "the handling of signals is left alone", &[LOADS, ACCEPTED], residue::signals),
    test("time-per-call", "no hook takes long", LIFE, timing::calls),
    test(STDERR, "nothing is written to stderr in a quiet life", LIFE, shapes::whole_life),
    test(STDOUT, "nothing is written to stdout, in any test", LIFE, shapes::whole_life),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_needs_come_first() {
        for (at, test) in TESTS.iter().enumerate() {
            let earlier = &TESTS[..at];
            assert!(earlier.iter().all(|other| other.name != test.name), "{}", test.name);
            for need in test.needs {
                assert!(earlier.iter().any(|other| other.name == *need), "{} needs {need}", test.name);
            }
        }
    }
}
