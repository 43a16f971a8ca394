//! `monitor list`: all that a name can lead to, and what is wrong with those that cannot be used.

use super::{Search, columns};
use crate::cli::report::{self, Failure};
use crate::loader::found::{self, Found};
use crate::loader::{self, CheckError, Description, LoadError};
use crate::role::own_executable;
use serde_json::{Value, json};

/// How many libraries are loaded at once, each in a helper process of its own.
const AT_ONCE: usize = 8;

/// A file with what loading it told.
struct Entry {
    found: Found,
    outcome: Result<Description, (String, Option<String>)>,
}

pub(super) fn show(search: &Search, as_json: bool) -> Result<u8, Failure> {
    let search = search.path()?;
    let entries = look_into(found::list(&search));
    if as_json {
        report::json(&Value::Array(entries.iter().map(as_value).collect()))?;
        return Ok(0);
    }
    if entries.is_empty() {
        let looked = search.directories().iter().map(|directory| format!("  {}\n", directory.display()));
        report::bytes(format!("no monitors; looked in\n{}", looked.collect::<String>()).as_bytes())?;
        return Ok(0);
    }
    let heads = ["NAME", "VERSION", "FILE", "NOTE"].map(String::from);
    let lines = columns(std::iter::once(heads).chain(entries.iter().map(row)));
    report::bytes((lines.join("\n") + "\n").as_bytes())?;
    Ok(0)
}

fn look_into(found: Vec<Found>) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut rest = found.into_iter().peekable();
    while rest.peek().is_some() {
        let batch: Vec<Found> = rest.by_ref().take(AT_ONCE).collect();
        std::thread::scope(|scope| {
            let workers: Vec<_> = batch.into_iter().map(|found| scope.spawn(|| look_at(found))).collect();
            entries.extend(workers.into_iter().map(|worker| worker.join().expect("loading does not panic")));
        });
    }
    entries
}

fn look_at(found: Found) -> Entry {
    let refused = |error: &LoadError| (loader::chain(error), error.hint());
    let outcome = match (found.path.canonicalize(), loader::file::judge_links(&found.path)) {
        (Err(error), _) => Err((error.to_string(), None)),
        (_, Err(error)) => Err((loader::chain(&error), error.hint())),
        (Ok(path), Ok(())) => match loader::describe(&own_executable(), &found.name, &path) {
            Ok((description, _)) => Ok(description),
            Err(CheckError::Load { source, .. }) => Err(refused(&source)),
            Err(error) => Err((loader::chain(&error), error.hint())),
        },
    };
    Entry { found, outcome }
}

fn as_value(entry: &Entry) -> Value {
    let told = entry.outcome.as_ref().ok();
    let refused = entry.outcome.as_ref().err();
    json!({
        "name": entry.found.name,
        "version": told.map(|told| &told.version),
        "description": told.map(|told| &told.about),
        "door": told.map(|told| told.door.word()),
        "path": entry.found.path.to_string_lossy(),
        "shadowed_by": entry.found.shadowed_by.as_ref().map(|path| path.to_string_lossy()),
        "refused": refused.map(|(why, _)| why),
        "hint": refused.and_then(|(_, hint)| hint.as_ref()),
    })
}

fn row(entry: &Entry) -> [String; 4] {
    let Found { name, path, shadowed_by } = &entry.found;
    let mut notes = Vec::new();
    if let Some(path) = shadowed_by {
        notes.push(format!("shadowed by {}", path.display()));
    }
    let version = match &entry.outcome {
        Ok(told) => {
            if notes.is_empty() {
                notes.push(told.about.clone());
            }
            told.version.clone()
        }
        Err((why, hint)) => {
            let hint = hint.as_ref().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
            notes.push(format!("refused: {why}{hint}"));
            "-".into()
        }
    };
    [name.clone(), version, path.display().to_string(), notes.join("; ")]
}
