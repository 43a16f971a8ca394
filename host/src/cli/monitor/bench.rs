//! `monitor bench`: how much a monitor takes per second.

use super::{Which, columns, failure, gather};
use crate::cli::report::{self, Failure};
use crate::conformance::{self, Speed};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::time::Duration;

/// What the output is made of, so that two runs can be compared.
const SEED: u64 = 1;

pub(super) fn run(which: &Which, options: &[OsString], as_json: bool) -> Result<u8, Failure> {
    let (label, path) = which.resolve()?;
    let subject = gather(label, path.clone(), options, SEED, Duration::from_secs(10))?.map_err(failure)?;
    let unable = |why: String| Failure::new(1, format!("unable to measure {}: {why}", path.display()), None);
    let speeds =
        conformance::measure(&subject).map_err(|error| unable(error.to_string()))?.map_err(unable)?;
    if as_json {
        let told = &subject.description;
        report::json(&json!({
            "monitor": { "name": told.name, "version": told.version, "path": path.to_string_lossy() },
            "speeds": speeds.iter().map(as_value).collect::<Vec<_>>(),
        }))?;
        return Ok(0);
    }
    let heads = ["CHUNK", "CALLS/S", "MB/S", "NS/CALL"].map(String::from);
    let lines = columns(std::iter::once(heads).chain(speeds.iter().map(row)));
    report::bytes((lines.join("\n") + "\n").as_bytes())?;
    Ok(0)
}

fn as_value(speed: &Speed) -> Value {
    json!({
        "chunk_bytes": speed.chunk_bytes,
        "calls": speed.calls,
        "seconds": speed.seconds,
        "calls_per_second": speed.calls_per_second().round(),
        "bytes_per_second": speed.bytes_per_second().round(),
        "ns_per_call": speed.ns_per_call(),
    })
}

fn row(speed: &Speed) -> [String; 4] {
    [
        speed.chunk_bytes.to_string(),
        format!("{:.0}", speed.calls_per_second()),
        format!("{:.1}", speed.bytes_per_second() / 1e6),
        format!("{:.1}", speed.ns_per_call()),
    ]
}
