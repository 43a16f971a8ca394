//! What time stamps and checkpoints cost: lines of 100 bytes to a file, in chunks of 64 KiB, as the pump delivers them
//! in bulk, and of 4000 bytes, which is what a few lines are that have gathered.
//!
//! `cargo bench -p immortal-monitor-log`, with `BENCH_DIR` for another place than /dev/shm or the temporary one.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program that prints a table")]
#![allow(dead_code, unused_imports, reason = "the monitor's modules are compiled in, and not all is used")]

mod archive;
mod config;
mod kill;
mod line;
mod log_file;
mod pid_file;
mod stamp;

use immortal_benches::{directory, is_trial, medians};
use immortal_monitor_api::fake::FakeHost;
use log_file::{LogFile, Source};
use stamp::Format;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

const CHUNKS_BYTES: [usize; 2] = [64 * 1024, 4_000];
const TOTAL_BYTES: usize = 256 << 20;
const LINE_BYTES: usize = 100;

/// What is compared.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    format: Option<Format>,
    has_checkpoints: bool,
}

fn main() {
    let total_bytes = if is_trial() { 1 << 20 } else { TOTAL_BYTES };
    let directory = directory();
    let formats = [("none", None), ("rfc3339", Some(Format::Rfc3339)), ("tai64n", Some(Format::Tai64n))];
    let cases = formats.into_iter().flat_map(|(name, format)| {
        [false, true].map(|has_checkpoints| Case { name, format, has_checkpoints })
    });
    let cases: Vec<Case> = cases.collect();
    for chunk_bytes in CHUNKS_BYTES {
        println!("chunks of {chunk_bytes} bytes");
        let medians =
            medians(&cases, |case| [megabytes_per_second(&directory, *case, chunk_bytes, total_bytes)]);
        for (case, [median]) in cases.iter().zip(&medians) {
            let checkpoints = if case.has_checkpoints { "checkpoints" } else { "" };
            println!("{:8} {checkpoints:11} {median:7.0} MB/s  {:.3}", case.name, median / medians[0][0]);
        }
    }
}

/// Megabytes of the process's output, stamps not counted.
fn megabytes_per_second(directory: &Path, case: Case, chunk_bytes: usize, total_bytes: usize) -> f64 {
    let directory = tempfile::tempdir_in(directory).expect("a directory to write to");
    let fake = FakeHost::new();
    let mut log = LogFile::new(directory.path().join("log"), case.format, None, fake.host());
    if case.has_checkpoints {
        log.keep_checkpoints(directory.path().join("checkpoints"), [0; 2], true);
    }
    log.open(SystemTime::now()).expect("a file to write to");
    let line = [[b'x'; LINE_BYTES - 1].as_slice(), b"\n"].concat();
    let bytes = line.repeat(chunk_bytes / 4);
    let chunks: Vec<&[u8]> = bytes.chunks_exact(chunk_bytes).collect();
    let mut offset = 0;
    let start = Clock::start();
    for index in 0..total_bytes / chunk_bytes {
        let chunk = log.fresh(Source::Stdout, offset, chunks[index % chunks.len()]);
        log.append(Source::Stdout, chunk, SystemTime::now());
        log.commit();
        offset += u64::try_from(chunk_bytes).expect("no slice is that long");
    }
    let seconds = start.seconds();
    assert!(fake.reported("dropped_bytes").is_none(), "the disk is full");
    let bytes = u32::try_from(total_bytes).expect("less than 4 GiB");
    f64::from(bytes) / 1e6 / seconds
}

/// The time that this thread had a processor; what has passed where nobody says.
struct Clock {
    start: Instant,
    start_ns: Option<u64>,
}

impl Clock {
    fn start() -> Self {
        Self { start: Instant::now(), start_ns: Self::running_ns() }
    }

    fn seconds(&self) -> f64 {
        let running =
            Self::running_ns().zip(self.start_ns).map(|(now, start)| Duration::from_nanos(now - start));
        running.unwrap_or_else(|| self.start.elapsed()).as_secs_f64()
    }

    fn running_ns() -> Option<u64> {
        std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse().ok()
    }
}
