//! The event lines, letter for letter as the reference has them. Pure.

use jiff::Timestamp;
use std::time::SystemTime;

/// What is noted at one moment: whole lines.
pub(crate) struct Note {
    /// RFC 3339 in UTC with milliseconds.
    time: String,
    lines: Vec<u8>,
}

impl Note {
    pub(crate) fn at(at: SystemTime) -> Self {
        // Past the year 9999, or before -9999, there is no RFC 3339.
        let time = Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH);
        Self { time: format!("{time:.3}"), lines: Vec::new() }
    }

    /// A member of the group lives: `monitor`, `daemon` or `process`.
    pub(crate) fn lives(&mut self, member: &str, pid: i32, for_first_time: bool) {
        match for_first_time {
            true => self.event(&format!("=== {member}#{pid} started for first time ===")),
            false => self.event(&format!("=== ! {member}#{pid} restarted ! ===")),
        }
    }

    /// The monitors were reloaded, into the pump of this pid.
    pub(crate) fn reloaded(&mut self, pid: i32) {
        self.event(&format!("=== ! monitor#{pid} reloaded ! ==="));
    }

    /// The process died.
    pub(crate) fn terminated(&mut self) {
        self.event("=== ! process terminated ! ===");
    }

    /// The stderr of the pump that died.
    pub(crate) fn message(&mut self, message: &[u8]) {
        self.event("=== ! An error occured in the monitor ! ===");
        self.lines.extend_from_slice(message);
        if !message.ends_with(b"\n") {
            self.lines.push(b'\n');
        }
        self.lines.extend_from_slice(b"=== error message end ===\n");
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.lines
    }

    fn event(&mut self, line: &str) {
        for part in [line, "\n=== Time: ", &self.time, "\n"] {
            self.lines.extend_from_slice(part.as_bytes());
        }
    }
}

/// Says that bytes are missing before this line.
pub(crate) fn dropped(bytes: u64) -> Vec<u8> {
    format!("=== ! {bytes} bytes dropped, the log could not be written ! ===\n").into_bytes()
}
