//! What the fixture monitor `recorder` has written: one JSON object a line, one line a call.

use serde_json::Value;
use std::path::Path;

/// One call of a hook.
#[derive(Debug, Clone)]
pub struct Record(pub Value);

/// Reads a record file; one that does not exist is empty.
///
/// # Panics
/// If a complete line is no JSON: the monitor writes each line at once.
#[must_use]
pub fn records(path: &Path) -> Vec<Record> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n'))
        .map(|line| Record(serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"))))
        .collect()
}

impl Record {
    /// Name of the hook: `check`, `new`, `setup`, `stdout`, `stderr`, `spawn`, `respawn`, `exit`, `idle`,
    /// `finish`.
    #[must_use]
    pub fn hook(&self) -> &str {
        self.0["hook"].as_str().unwrap_or_default()
    }

    /// Pid of the process that called the hook: the pump's, but for `check`.
    #[must_use]
    pub fn pump(&self) -> i32 {
        self.number("pump").try_into().unwrap_or(-1)
    }

    /// A text of the call; empty if there is none.
    #[must_use]
    pub fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_default()
    }

    /// A number of the call; -1 if there is none.
    #[must_use]
    pub fn number(&self, key: &str) -> i64 {
        self.0[key].as_i64().unwrap_or(-1)
    }

    /// Bytes of the call: the `hex` of a key.
    ///
    /// # Panics
    /// If they are not there.
    #[must_use]
    pub fn bytes(&self, key: &str) -> Vec<u8> {
        let hex =
            self.0[format!("{key}_hex")].as_str().unwrap_or_else(|| panic!("no {key}_hex in {}", self.0));
        hex.as_bytes()
            .chunks_exact(2)
            .map(|pair| u8::from_str_radix(&String::from_utf8_lossy(pair), 16).expect("hexadecimal"))
            .collect()
    }

    /// All bytes that the calls of one hook were given, in order.
    #[must_use]
    pub fn stream(records: &[Record], hook: &str) -> Vec<u8> {
        records
            .iter()
            .filter(|record| record.hook() == hook)
            .flat_map(|record| record.bytes("data"))
            .collect()
    }

    /// The hooks in the order of their calls, without `idle` and with equal neighbours joined.
    #[must_use]
    pub fn order(records: &[Record]) -> Vec<String> {
        let mut order: Vec<String> =
            records.iter().map(|record| record.hook().to_owned()).filter(|hook| hook != "idle").collect();
        order.dedup();
        order
    }
}
