//! What a command says: results on stdout, errors as one line on stderr.

use crate::groups::{GroupError, pids_json};
use crate::loader::{chain, one_line};
use crate::places::last_line;
use crate::start::{StartError, Started};
use serde_json::{Map, Value, json};
use std::io::{self, IsTerminal, Write};

/// Writes a line to stderr; where that cannot be written, the exit status has to do.
macro_rules! complain {
    ($($text:tt)*) => {
        drop(writeln!(io::stderr(), $($text)*))
    };
}

/// A command that failed: its exit status, what and why, and what to do.
#[derive(Debug)]
pub(super) struct Failure {
    status: u8,
    text: String,
    hint: Option<String>,
}

impl Failure {
    /// A failure of a command that has no error type of its own.
    pub(super) fn new(status: u8, text: impl Into<String>, hint: Option<String>) -> Self {
        Self { status, text: text.into(), hint }
    }

    /// The same of a command other than `start`, which has no exit status of its own for what it refuses.
    pub(super) fn of_a_command(self) -> Self {
        let status = if self.status == 2 { 2 } else { 1 };
        Self { status, ..self }
    }

    /// Shows it; returns the exit status.
    pub(super) fn report(&self) -> u8 {
        complain!("error: {}", self.text);
        if let Some(hint) = &self.hint {
            complain!("hint: {}", one_line(hint));
        }
        self.status
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self { status: error.status(), text: chain(&error), hint: error.hint() }
    }
}

impl From<GroupError> for Failure {
    fn from(error: GroupError) -> Self {
        Self { status: 1, text: chain(&error), hint: error.hint() }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self { status: 1, text: format!("unable to write the result: {error}"), hint: None }
    }
}

/// A wrong command line: one line and a hint, or the help that was asked for.
pub(super) fn usage(error: &clap::Error) -> u8 {
    use clap::error::ErrorKind;
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return u8::from(error.print().is_err());
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        complain!("error: command line: a command is missing");
        complain!("hint: immortal --help lists them");
        return 2;
    }
    let text = error.to_string();
    let what: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("tip:"))
        .filter(|line| !line.is_empty() && !line.starts_with("For more information"))
        .collect();
    let what = what.join(" ");
    complain!("error: command line: {}", what.trim_start_matches("error: "));
    let tip = text.lines().map(str::trim).find_map(|line| line.strip_prefix("tip: "));
    complain!("hint: {}", tip.unwrap_or("immortal --help, immortal start --help"));
    2
}

/// Writes one JSON value.
pub(super) fn json(value: &Value) -> io::Result<()> {
    line(&value.to_string())
}

/// Writes bytes; a reader that has had enough, as `head` has, is no error.
pub(super) fn bytes(bytes: &[u8]) -> io::Result<()> {
    match io::stdout().lock().write_all(bytes) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes one line.
pub(super) fn line(text: &str) -> io::Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// The text of a JSON value, without quotes.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// The result of `start` for programs.
pub(super) fn started_json(started: &Started) -> Value {
    let pids = started.pids;
    json!({
        "name": started.name,
        "pids": pids_json(pids.process.into(), pids.monitor.into(), pids.daemon.into()),
    })
}

/// The result of `start` for people.
pub(super) fn started(started: &Started) -> io::Result<()> {
    let pids = started.pids;
    let daemon = pids.daemon.map(|pid| format!(", daemon {pid}")).unwrap_or_default();
    let mut out = io::stdout().lock();
    writeln!(out, "started {}: process {}, monitor {}{daemon}", started.name, pids.process, pids.monitor)
}

/// A span as people say it.
fn span(seconds: f64) -> String {
    let seconds = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86400, seconds % 86400 / 3600),
    }
}

/// All groups as a table.
pub(super) fn table(groups: &[Value]) -> io::Result<()> {
    let heads = ["NAME", "STRATEGY", "STATE", "PID", "UPTIME", "RESTARTS", "MONITORS"].map(String::from);
    let rows = groups.iter().map(|group| {
        let monitors = group["monitors"].as_array().into_iter().flatten();
        let uptime = group["uptime_s"].as_f64().filter(|_| !group["pids"]["process"].is_null());
        [
            text(&group["name"]),
            text(&group["strategy"]),
            text(&group["state"]),
            text(&group["pids"]["process"]),
            uptime.map_or_else(|| "-".into(), span),
            text(&group["restarts"]),
            monitors.map(|monitor| text(&monitor["label"])).collect::<Vec<_>>().join(","),
        ]
    });
    let rows: Vec<[String; 7]> = std::iter::once(heads).chain(rows).collect();
    let widths: Vec<usize> =
        (0..7).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
    let coloured = io::stdout().is_terminal();
    let mut out = io::stdout().lock();
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let padding = " ".repeat(widths[column] - cell.len());
            let shown = match (coloured && number > 0 && column == 2, cell.as_str()) {
                (true, "running") => format!("\x1b[32m{cell}\x1b[0m"),
                (true, "failed" | "orphaned") => format!("\x1b[31m{cell}\x1b[0m"),
                (true, _) => format!("\x1b[33m{cell}\x1b[0m"),
                (false, _) => cell.clone(),
            };
            line.push_str(&shown);
            line.push_str(&padding);
            line.push_str("  ");
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// A crash in one line: when, who, how, in which hook, how often, and the last words.
fn crash_line(crash: &Map<String, Value>) -> String {
    let fact = |key: &str| crash.get(key).filter(|value| !value.is_null()).map(text);
    let named = |name: &str, key: &str| fact(key).map(|value| format!("{name} {value}"));
    let facts = [
        fact("at"),
        fact("role").map(|role| format!("{role} {}", fact("pid").unwrap_or_default())),
        named("code", "code"),
        named("signal", "signal"),
        fact("hook").map(|hook| format!("in {hook} of {}", fact("monitor").unwrap_or_default())),
        fact("in_a_row").map(|count| format!("{count} in a row")),
    ];
    let facts = facts.into_iter().flatten().collect::<Vec<_>>().join(", ");
    match last_line(fact("stderr").unwrap_or_default().as_bytes()) {
        Some(words) => format!("{facts}: {}", one_line(&words)),
        None => facts,
    }
}

/// One group for people: a line a fact.
pub(super) fn status(group: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let Some(object) = group.as_object() else { return Ok(()) };
    for (key, value) in object {
        match value {
            Value::Object(inner) if matches!(key.as_str(), "pids" | "last_exit" | "spool") => {
                let facts = inner.iter().map(|(key, value)| format!("{key} {}", text(value)));
                writeln!(out, "{key:17} {}", facts.collect::<Vec<_>>().join(", "))?;
            }
            Value::Object(crash) if key == "last_crash" => writeln!(out, "{key:17} {}", crash_line(crash))?,
            Value::Object(inner) => {
                writeln!(out, "{key}")?;
                for (key, value) in inner {
                    writeln!(out, "  {key:15} {}", text(value))?;
                }
            }
            Value::Array(items) if key == "monitors" => {
                for monitor in items {
                    let [label, name, path] = ["label", "name", "path"].map(|part| text(&monitor[part]));
                    writeln!(out, "{:17} {label} ({name}, {path})", "monitor")?;
                }
            }
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(text).collect();
                writeln!(out, "{key:17} {}", items.join(" "))?;
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                writeln!(out, "{key:17} {}", text(value))?;
            }
        }
    }
    Ok(())
}
