//! What time stamps cost: lines of 100 bytes in chunks of 64 KiB, as the pump delivers them, to a file.
//!
//! `cargo bench -p immortal-monitor-log`, with `BENCH_DIR` for another place than /dev/shm or the temporary one.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program that prints a table")]
#![allow(dead_code, unused_imports, reason = "the monitor's modules are compiled in, and not all is used")]

mod archive;
mod config;
mod line;
mod log_file;
mod pid_file;
mod stamp;

use immortal_benches::{directory, is_trial, medians};
use immortal_monitor_api::fake::FakeHost;
use log_file::{LogFile, Source};
use stamp::Format;
use std::path::Path;
use std::time::{Instant, SystemTime};

const CHUNK_BYTES: usize = 64 * 1024;
const LINE_BYTES: usize = 100;

fn main() {
    let chunk_count = if is_trial() { 16 } else { 4096 };
    let directory = directory();
    let formats = [("none", None), ("rfc3339", Some(Format::Rfc3339)), ("tai64n", Some(Format::Tai64n))];
    let medians = medians(&formats, |(_, format)| [megabytes_per_second(&directory, *format, chunk_count)]);
    for ((name, _), [median]) in formats.iter().zip(&medians) {
        println!("{name:8} {median:7.0} MB/s  {:.2}", median / medians[0][0]);
    }
}

/// Megabytes of the process's output, stamps not counted.
fn megabytes_per_second(directory: &Path, format: Option<Format>, chunk_count: usize) -> f64 {
    let directory = tempfile::tempdir_in(directory).expect("a directory to write to");
    let fake = FakeHost::new();
    let mut log = LogFile::new(directory.path().join("log"), format, None, fake.host());
    log.open(SystemTime::now()).expect("a file to write to");
    let line = [[b'x'; LINE_BYTES - 1].as_slice(), b"\n"].concat();
    let bytes = line.repeat(CHUNK_BYTES / 4);
    let chunks: Vec<&[u8]> = bytes.chunks_exact(CHUNK_BYTES).collect();
    let start = Instant::now();
    for index in 0..chunk_count {
        log.append(Source::Stdout, chunks[index % chunks.len()], SystemTime::now());
    }
    let seconds = start.elapsed().as_secs_f64();
    assert!(fake.reported("dropped_bytes").is_none(), "the disk is full");
    let bytes = u32::try_from(chunk_count * CHUNK_BYTES).expect("less than 4 GiB");
    f64::from(bytes) / 1e6 / seconds
}
