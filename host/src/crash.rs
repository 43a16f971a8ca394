//! The crash record: what is known of the death of a pump or a daemon, for programs.
//!
//! Whoever notices the death makes it: the daemon when it reaps a pump, the pump when its daemon is gone. It is handed
//! from role to role by a descriptor, offered to monitors, and kept in a file for `status`. An orderly end is no crash.

use crate::delivery::{InHook, Moment};
use crate::loader::Checked;
use crate::role::Role;
use crate::sys::clock;
use crate::sys::family::Exit;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The most that is kept of a dead pump's stderr, in bytes.
pub(crate) const MOST_STDERR: usize = 4096;
/// Version of what the descriptor holds.
const FORMAT: u32 = 1;

/// How a role died.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Crash {
    format: u32,
    pub(crate) role: Role,
    /// Wall clock at which it was noticed; 0: not known.
    pub(crate) wall_ns: u64,
    /// Pid that it had.
    pub(crate) pid: i32,
    /// Exit code and signal, as far as they are known.
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    /// Label of the monitor, and its hook that was in progress.
    pub(crate) in_hook: Option<(String, String)>,
    /// Whether that hook caused it; none: not known.
    pub(crate) by_hook: Option<bool>,
    /// Up to where each stream was delivered to everybody.
    pub(crate) offsets: [u64; 2],
    /// The chunk behind that, taken and not delivered to everybody: its stream and its length.
    pub(crate) pending: Option<(usize, u64)>,
    /// How many crashes there were in a row, this one included.
    pub(crate) count: u32,
    /// The last bytes of its stderr.
    pub(crate) stderr: Vec<u8>,
}

impl Crash {
    /// The death of a role, noticed now, with nothing known of how.
    pub(crate) fn new(role: Role, pid: i32, moment: Moment) -> Self {
        Self {
            format: FORMAT,
            role,
            wall_ns: clock::wall_ns(),
            pid,
            code: None,
            signal: None,
            in_hook: None,
            by_hook: None,
            offsets: moment.offsets,
            pending: moment.pending,
            count: 1,
            stderr: Vec::new(),
        }
    }

    /// The crash before it, if there was one; `stable`: a pump ran for long enough in between, which ends a row.
    pub(crate) fn after(mut self, before: Option<&Self>, stable: bool) -> Self {
        let row = before.filter(|_| !stable).map_or(0, |before| before.count);
        self.count = row.saturating_add(1);
        self
    }

    /// When it was noticed, if not now; 0: that is not known.
    pub(crate) fn noticed(mut self, wall_ns: u64) -> Self {
        self.wall_ns = wall_ns;
        self
    }

    /// How it ended.
    pub(crate) fn ended(mut self, exit: Exit) -> Self {
        (self.code, self.signal) = (exit.code, exit.signal);
        self
    }

    /// The hook that was in progress, if one was, by the labels of the group's monitors.
    pub(crate) fn in_hook<'a>(mut self, moment: Moment, label: impl Fn(usize) -> &'a str) -> Self {
        self.in_hook = moment.in_hook.map(|at| (label(at.monitor).to_owned(), at.hook.name().to_owned()));
        self
    }

    /// Whether that hook caused it.
    pub(crate) fn by_hook(mut self, by_hook: bool) -> Self {
        self.by_hook = Some(by_hook);
        self
    }

    /// What it had on its stderr, of which the end is kept.
    pub(crate) fn said(mut self, stderr: &[u8]) -> Self {
        self.stderr = stderr[stderr.len().saturating_sub(MOST_STDERR)..].to_vec();
        self
    }

    /// What the descriptor holds.
    pub(crate) fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("plain data can be encoded")
    }

    /// Reads it back; `None`: it is of another version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok().filter(|crash: &Self| crash.format == FORMAT)
    }

    /// As `status` shows it.
    pub(crate) fn json(&self) -> Value {
        let (monitor, hook) = self.in_hook.clone().unzip();
        let pending = self.pending.map(|(stream, bytes)| {
            let name = if stream == 0 { "stdout" } else { "stderr" };
            json!({"stream": name, "offset": self.offsets[stream.min(1)], "bytes": bytes})
        });
        json!({
            "at": (self.wall_ns != 0).then(|| clock::rfc3339(self.wall_ns)),
            "role": self.role.name(),
            "pid": self.pid,
            "code": self.code,
            "signal": self.signal.map(crate::signal::name),
            "monitor": monitor,
            "hook": hook,
            "by_hook": self.by_hook,
            "offsets": {"stdout": self.offsets[0], "stderr": self.offsets[1]},
            "pending": pending,
            "in_a_row": self.count,
            "stderr": String::from_utf8_lossy(&self.stderr),
        })
    }
}

/// The label of the monitor at this index; behind the group's own there is the one that takes over when all of them
/// are set aside.
pub(crate) fn label_of(monitors: &[Checked], index: usize) -> &str {
    monitors.get(index).map_or("log", |monitor| monitor.label.as_str())
}

/// The last words of a role, with the hook that was in progress when it died.
pub(crate) fn with_hook<'a>(
    words: &str,
    in_hook: Option<InHook>,
    label: impl FnOnce(usize) -> &'a str,
) -> String {
    match in_hook {
        Some(InHook { monitor, hook }) => {
            format!("in {} of monitor {}: {words}", hook.name(), label(monitor))
        }
        None => words.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Hook;

    const MOMENT: Moment = Moment {
        offsets: [30, 7],
        pending: Some((0, 5)),
        in_hook: Some(InHook { monitor: 1, hook: Hook::Stdout }),
    };

    fn crash() -> Crash {
        let exit = Exit { code: None, signal: Some(libc::SIGSEGV), core: false };
        let label = |index: usize| ["first", "second"][index];
        Crash::new(Role::Pump, 12, MOMENT).ended(exit).in_hook(MOMENT, label).by_hook(true).said(b"oops\n")
    }

    #[test]
    fn a_record_comes_through_the_descriptor_as_it_was() {
        let crash = crash();
        assert_eq!(Crash::decode(&crash.encode()), Some(crash.clone()));
        assert_eq!(Crash::decode(&Crash { format: FORMAT + 1, ..crash }.encode()), None);
        assert_eq!(Crash::decode(b""), None);
    }

    #[test]
    fn programs_see_everything_by_name() {
        let mut shown = crash().noticed(1_000_000_000).json();
        assert_eq!(shown["at"].take(), "1970-01-01T00:00:01.000Z");
        let expected = json!({
            "at": null, "role": "pump", "pid": 12, "code": null, "signal": "SEGV", "monitor": "second",
            "hook": "stdout", "by_hook": true, "offsets": {"stdout": 30, "stderr": 7},
            "pending": {"stream": "stdout", "offset": 30, "bytes": 5}, "in_a_row": 1, "stderr": "oops\n",
        });
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_row_goes_on_until_a_pump_was_stable() {
        let first = crash().after(None, false);
        let second = crash().after(Some(&first), false);
        let third = crash().after(Some(&second), false);
        assert_eq!((first.count, second.count, third.count), (1, 2, 3));
        assert_eq!(crash().after(Some(&third), true).count, 1);
    }

    #[test]
    fn of_a_long_stderr_the_end_is_kept() {
        let long: Vec<u8> = (0..MOST_STDERR + 1).map(|at| u8::try_from(at % 251).unwrap()).collect();
        assert_eq!(crash().said(&long).stderr, long[1..]);
    }
}
