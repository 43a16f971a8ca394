//! What became of the lines of the puppet's step `writer`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

/// Digits of a line.
const DIGITS: usize = 15;

/// The lines that were written, held against those that arrived.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// How many writes had returned.
    pub written: u64,
    /// How often each line arrived, by number.
    arrived: Vec<u8>,
    /// What arrived and is no line, such as the first part of one that arrived again.
    pub damaged: Vec<String>,
}

impl Ledger {
    /// The step that writes so many lines a second, 0: as fast as possible, and notes their count in this file. It
    /// ends with this code at SIGTERM.
    #[must_use]
    pub fn step(count: &Path, lines_per_second: u64, code: u8) -> OsString {
        let mut step = OsString::from("writer=");
        step.push(count);
        step.push(format!(":{lines_per_second}:{code}"));
        step
    }

    /// How many writes have returned so far.
    #[must_use]
    pub fn written(count: &Path) -> u64 {
        let bytes = std::fs::read(count).unwrap_or_default();
        bytes.try_into().map_or(0, u64::from_le_bytes)
    }

    /// Holds what arrived against the count in a file.
    #[must_use]
    pub fn new(count: &Path, arrived: &[u8]) -> Self {
        let mut ledger = Self { written: Self::written(count), ..Self::default() };
        for line in arrived.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let text = String::from_utf8_lossy(line);
            match text.parse::<usize>() {
                // A number out of all bounds is damage too, and no reason to ask for memory.
                Ok(number) if line.len() == DIGITS && number as u64 <= ledger.written => {
                    if ledger.arrived.len() <= number {
                        ledger.arrived.resize(number + 1, 0);
                    }
                    ledger.arrived[number] = ledger.arrived[number].saturating_add(1);
                }
                Ok(_) | Err(_) => ledger.damaged.push(text.into_owned()),
            }
        }
        ledger
    }

    /// The numbers of the lines that were written and did not arrive, as ranges.
    #[must_use]
    pub fn missing(&self) -> Vec<std::ops::Range<u64>> {
        let arrived = |number: u64| {
            usize::try_from(number).ok().and_then(|index| self.arrived.get(index)).is_some_and(|n| *n > 0)
        };
        ranges((0..self.written).filter(|number| !arrived(*number)))
    }

    /// The numbers of the lines that arrived more than once, as ranges.
    #[must_use]
    pub fn doubled(&self) -> Vec<std::ops::Range<u64>> {
        ranges((0_u64..).zip(&self.arrived).filter(|(_, times)| **times > 1).map(|(number, _)| number))
    }

    /// Asserts that everything that was written has arrived.
    #[track_caller]
    pub fn assert_complete(&self, what: &str) {
        let missing = self.missing();
        assert!(missing.is_empty(), "{what}: of {} lines are missing {}", self.written, shown(&missing));
        assert!(self.written > 0, "{what}: nothing was written");
    }

    /// Asserts that everything that was written has arrived once, and nothing else.
    #[track_caller]
    pub fn assert_exact(&self, what: &str) {
        self.assert_complete(what);
        let doubled = self.doubled();
        assert!(doubled.is_empty(), "{what}: of {} lines are doubled {}", self.written, shown(&doubled));
        assert!(self.damaged.is_empty(), "{what}: these are no lines: {:?}", self.damaged);
    }
}

/// How many there are, and the first of them.
fn shown(ranges: &[std::ops::Range<u64>]) -> String {
    let count: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    format!("{count}, the first: {:?}", &ranges[..ranges.len().min(8)])
}

/// Joins neighbours.
fn ranges(numbers: impl Iterator<Item = u64>) -> Vec<std::ops::Range<u64>> {
    let mut joined: BTreeMap<u64, u64> = BTreeMap::new();
    for number in numbers {
        match joined.last_entry() {
            Some(mut last) if *last.get() == number => *last.get_mut() = number + 1,
            Some(_) | None => _ = joined.insert(number, number + 1),
        }
    }
    joined.into_iter().map(|(begin, end)| begin..end).collect()
}
