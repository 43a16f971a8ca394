//! The file of the default monitor, taken apart.

use std::path::Path;

/// One part of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The text of an event line between `=== ` and ` ===`, with the text of the time line that follows it.
    Event(String, Option<String>),
    /// What the process, or between two events the dead pump, had written.
    Output(Vec<u8>),
}

/// The content of the file at one moment.
#[derive(Debug, Clone, Default)]
pub struct LogFile {
    /// As it is.
    pub bytes: Vec<u8>,
    /// Taken apart.
    pub items: Vec<Item>,
}

const CRASH: &str = "! An error occured in the monitor !";
const CRASH_END: &str = "error message end";
const TIME: &[u8] = b"=== Time: ";

impl LogFile {
    /// Reads the file; one that does not exist is empty.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_default();
        let mut items: Vec<Item> = Vec::new();
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let bare = line.strip_suffix(b"\n").unwrap_or(line);
            if let Some(text) = event_text(bare).filter(|_| line.ends_with(b"\n")) {
                items.push(Item::Event(text, None));
            } else if let (Some(time), Some(Item::Event(_, slot @ None))) =
                (bare.strip_prefix(TIME), items.last_mut())
            {
                *slot = Some(String::from_utf8_lossy(time).into_owned());
            } else if let Some(Item::Output(output)) = items.last_mut() {
                output.extend_from_slice(line);
            } else {
                items.push(Item::Output(line.to_vec()));
            }
        }
        Self { bytes, items }
    }

    /// The texts of all event lines, in order.
    #[must_use]
    pub fn events(&self) -> Vec<String> {
        self.items
            .iter()
            .filter_map(|item| match item {
                Item::Event(text, _) => Some(text.clone()),
                Item::Output(_) => None,
            })
            .collect()
    }

    /// What the process has written, without the event lines and the crash messages.
    #[must_use]
    pub fn output(&self) -> Vec<u8> {
        let mut in_crash = false;
        let mut output = Vec::new();
        for item in &self.items {
            match item {
                Item::Event(text, _) => in_crash = text == CRASH,
                Item::Output(bytes) if !in_crash => output.extend_from_slice(bytes),
                Item::Output(_) => {}
            }
        }
        output
    }

    /// What the process has written, as text.
    #[must_use]
    pub fn output_text(&self) -> String {
        String::from_utf8_lossy(&self.output()).into_owned()
    }

    /// The text of the first event line that starts with `prefix` and what was written before it, since the
    /// event line before.
    #[must_use]
    pub fn output_before(&self, prefix: &str) -> Option<Vec<u8>> {
        let at = self
            .items
            .iter()
            .position(|item| matches!(item, Item::Event(text, _) if text.starts_with(prefix)))?;
        match at.checked_sub(1).map(|before| &self.items[before]) {
            Some(Item::Output(bytes)) => Some(bytes.clone()),
            _ => Some(Vec::new()),
        }
    }

    /// The crash messages, in order.
    #[must_use]
    pub fn crash_messages(&self) -> Vec<String> {
        let mut messages = Vec::new();
        let mut open: Option<String> = None;
        for item in &self.items {
            match item {
                Item::Event(text, _) if text == CRASH => open = Some(String::new()),
                Item::Event(text, _) if text == CRASH_END => messages.extend(open.take()),
                Item::Event(..) => {}
                Item::Output(bytes) => {
                    if let Some(open) = &mut open {
                        open.push_str(&String::from_utf8_lossy(bytes));
                    }
                }
            }
        }
        messages
    }
}

/// The events at the first start of a group, in the order of the contract.
#[must_use]
pub fn start_events(pids: &crate::Pids) -> Vec<String> {
    let mut events = Vec::new();
    for (name, pid) in [("monitor", pids.monitor), ("daemon", pids.daemon), ("process", pids.process)] {
        events.extend(pid.map(|pid| format!("{name}#{pid} started for first time")));
    }
    events
}

fn event_text(line: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(line.strip_prefix(b"=== ")?.strip_suffix(b" ===")?).ok()?;
    let known = match text.split_once('#') {
        None => ["! process terminated !", CRASH, CRASH_END].contains(&text),
        Some((subject, rest)) => {
            let first = rest.trim_start_matches(|c: char| c.is_ascii_digit()) == " started for first time";
            let again = rest.trim_start_matches(|c: char| c.is_ascii_digit()) == " restarted !";
            let subject_first = ["monitor", "daemon", "process"].contains(&subject);
            let subject_again = ["! monitor", "! daemon", "! process"].contains(&subject);
            (first && subject_first) || (again && subject_again)
        }
    };
    known.then(|| text.to_owned())
}
