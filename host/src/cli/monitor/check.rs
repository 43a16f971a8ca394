//! `monitor check`: the conformance run, and what it says to people and programs.

use super::{Which, failure, gather};
use crate::cli::report::{self, Failure};
use crate::conformance::{self, Finding, Row};
use crate::loader::{self, CheckError};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// What comes behind the name of a monitor.
pub(super) struct Asked<'a> {
    pub(super) options: &'a [OsString],
    pub(super) filters: &'a [String],
    pub(super) seed: Option<u64>,
    pub(super) limit: Duration,
    pub(super) json: bool,
}

pub(super) fn run(which: &Which, asked: &Asked<'_>) -> Result<u8, Failure> {
    let (label, path) = which.resolve()?;
    let seed = asked.seed.unwrap_or_else(any_seed);
    let subject = match gather(label.clone(), path.clone(), asked.options, seed, asked.limit)? {
        Ok(subject) => subject,
        // A library that cannot be loaded is the first finding of the run, and its last.
        Err(CheckError::Load { source, .. }) => {
            let reason = loader::chain(&source);
            if !asked.json {
                report::line(&format!("{}, seed {seed}", path.display()))?;
                report::line(&format!("fail  {:20} {reason}", "loads"))?;
                report::line("0 passed, 0 warned, 1 failed, 0 skipped")?;
                return Ok(1);
            }
            let test = json!({ "name": "loads", "status": "fail", "reason": reason, "ms": 0 });
            report::json(&json!({
                "monitor": { "label": label, "path": path.to_string_lossy() },
                "seed": seed,
                "tests": [test],
                "passed": 0, "warned": 0, "failed": 1, "skipped": 0,
            }))?;
            return Ok(1);
        }
        Err(error) => return Err(failure(error)),
    };
    let mut rows = Vec::new();
    if !asked.json {
        let told = &subject.description;
        report::line(&format!(
            "{} {} ({}), {}, seed {seed}",
            told.name,
            told.version,
            path.display(),
            told.door
        ))?;
    }
    let mut show = |row: &Row| {
        if !asked.json {
            line(row)?;
        }
        rows.push((row.finding.word(), as_value(row)));
        Ok(())
    };
    match conformance::run(&subject, asked.filters, &mut show) {
        Ok(()) => {}
        // Whoever reads has had enough, as `head` has; what was found so far decides.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            return Ok(u8::from(rows.iter().any(|(status, _)| *status == "fail")));
        }
        Err(error) => {
            let text = format!("unable to test {}: {error}", path.display());
            return Err(Failure::new(1, text, None));
        }
    }
    if rows.is_empty() {
        let hint = "without a filter all tests run, and each is named".to_owned();
        return Err(Failure::new(
            2,
            format!("no test has {} in its name", asked.filters.join(" or ")),
            Some(hint),
        ));
    }
    let count = |word: &str| rows.iter().filter(|(status, _)| *status == word).count();
    let [passed, warned, failed, skipped] = ["pass", "warn", "fail", "skip"].map(count);
    if asked.json {
        let told = &subject.description;
        report::json(&json!({
            "monitor": {
                "label": label,
                "name": told.name,
                "version": told.version,
                "door": told.door.word(),
                "path": path.to_string_lossy(),
            },
            "seed": seed,
            "tests": rows.iter().map(|(_, row)| row).collect::<Vec<_>>(),
            "passed": passed, "warned": warned, "failed": failed, "skipped": skipped,
        }))?;
    } else {
        report::line(&format!("{passed} passed, {warned} warned, {failed} failed, {skipped} skipped"))?;
        if failed + warned > 0 {
            report::line(&format!("the same again: immortal monitor check --seed {seed} …"))?;
        }
    }
    Ok(u8::from(failed > 0))
}

fn as_value(row: &Row) -> Value {
    let reason = Some(row.finding.text()).filter(|text| !text.is_empty());
    json!({
        "name": row.name,
        "about": row.about,
        "status": row.finding.word(),
        "reason": reason,
        "ms": (row.took.as_secs_f64() * 1e5).round() / 1e2,
    })
}

fn line(row: &Row) -> io::Result<()> {
    let colour = match &row.finding {
        Finding::Pass(_) => "32",
        Finding::Warn(_) => "33",
        Finding::Fail(_) => "31",
        Finding::Skip(_) => "2",
    };
    let mut out = io::stdout().lock();
    let word = row.finding.word();
    let word = if out.is_terminal() { format!("\x1b[{colour}m{word}\x1b[0m") } else { word.to_owned() };
    let text = row.finding.text();
    let text = if text.is_empty() { row.about } else { text };
    writeln!(out, "{word}  {:20} {text}", row.name)
}

/// A number that no two runs share; the standard library seeds its hashes from the system.
fn any_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // Short enough to be typed.
    std::collections::hash_map::RandomState::new().build_hasher().finish() % 1_000_000_000
}
