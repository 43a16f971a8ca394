//! What the way of a program's output costs, from its write to the last monitor: in large writes and in one write a
//! line, with a monitor that does nothing and with `log`. Measured on the built executable, from outside.
//!
//! `cargo bench -p immortal-benches --bench relay`, with `BENCH_DIR` for another place of the log than memory.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program that prints a table")]

use immortal_benches::{directory, is_trial, medians};
use immortal_tests::{Sandbox, artifacts};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

const LINE_BYTES: usize = 100;
/// This program is the one that is kept alive as well; then this is its first argument.
const WRITER: &str = "--write";

struct Case {
    monitor: &'static str,
    writes: &'static str,
    write_bytes: usize,
    total_bytes: u32,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, write_bytes, total_bytes, report] = &arguments[..]
        && first == WRITER
    {
        return write(write_bytes, total_bytes, report).expect("somebody who reads");
    }
    let scale = if is_trial() { 100 } else { 1 };
    let (bulk, lines) = ((1 << 29) / scale, 100_000_000 / scale);
    let case = |monitor, writes, write_bytes, total_bytes| Case { monitor, writes, write_bytes, total_bytes };
    let cases = [
        case("quiet", "none", LINE_BYTES, 0),
        case("quiet", "64 KiB", 1 << 16, bulk),
        case("log", "64 KiB", 1 << 16, bulk),
        case("quiet", "a line", LINE_BYTES, lines),
        case("log", "a line", LINE_BYTES, lines),
    ];
    let medians = medians(&cases, run);
    // What it takes to start a group and to end it is in every run.
    let [_, start_s] = medians[0];
    for (case, [wall_s, cpu_s]) in cases.iter().zip(&medians).skip(1) {
        let Case { monitor, writes, total_bytes, .. } = case;
        let (bytes, cpu_s) = (f64::from(*total_bytes), cpu_s - start_s);
        println!(
            "{writes:7} writes, monitor {monitor:6} {:6.0} MB/s  {:5.2} CPU s/GiB  {:5.2} CPU s/million lines",
            bytes / 1e6 / wall_s,
            cpu_s / bytes * f64::from(1 << 30),
            cpu_s / bytes * 100.0 * 1e6,
        );
    }
}

/// Seconds from the program's first write until all is delivered and the group gone, and seconds of CPU time of all
/// but the program.
fn run(case: &Case) -> [f64; 2] {
    let sandbox = Sandbox::new();
    let log = directory().join(format!("immortal-bench-{}", std::process::id()));
    let mut launch = sandbox
        .launch("development")
        .args(["--no-auto", "--no-relay", "--monitor"])
        .arg(artifacts().monitor(case.monitor));
    if case.monitor == "log" {
        launch = launch.set("output", &log).set("events", "false");
    }
    let program = std::env::current_exe().expect("a running program has a path");
    let report = sandbox.path("report");
    let launch = launch
        .program([program.as_os_str(), WRITER.as_ref()])
        .program_args([&case.write_bytes.to_string(), &case.total_bytes.to_string()])
        .program_args([&report]);
    let before_s = cpu_s(UsageWho::RUSAGE_CHILDREN);
    launch.run().assert_code(0);
    let end_s = now_s();
    let all_s = cpu_s(UsageWho::RUSAGE_CHILDREN) - before_s;
    if case.monitor == "log" {
        let written = std::fs::metadata(&log).expect("the log").len();
        assert_eq!(written, u64::from(case.total_bytes), "bytes in the log");
        std::fs::remove_file(&log).expect("it is ours");
    }
    let report = std::fs::read_to_string(report).expect("what the program says at its end");
    let numbers: Vec<f64> = report.split(' ').map(|number| number.parse().expect("a number")).collect();
    [end_s - numbers[0], all_s - numbers[1]]
}

/// The program: writes lines in pieces of this many bytes, and says when it began and what it took.
fn write(write_bytes: &str, total_bytes: &str, report: &str) -> io::Result<()> {
    let parse = |number: &str| number.parse::<usize>().map_err(io::Error::other);
    let (write_bytes, total_bytes) = (parse(write_bytes)?, parse(total_bytes)?);
    let line = [[b'x'; LINE_BYTES - 1].as_slice(), b"\n"].concat();
    // A multiple of both a line and a piece.
    let block = line.repeat(write_bytes);
    let mut pieces = block.chunks_exact(write_bytes).cycle();
    let begin_s = now_s();
    let mut left = total_bytes;
    while left > 0 {
        let piece = pieces.next().expect("it goes round");
        // Standard output holds back what follows the last newline, and so would join two pieces.
        write_all(&piece[..left.min(piece.len())])?;
        left -= left.min(piece.len());
    }
    std::fs::write(report, format!("{begin_s} {}", cpu_s(UsageWho::RUSAGE_SELF)))
}

fn write_all(mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        bytes = &bytes[nix::unistd::write(io::stdout(), bytes)?..];
    }
    Ok(())
}

fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("later than 1970").as_secs_f64()
}

fn cpu_s(who: UsageWho) -> f64 {
    let usage = getrusage(who).expect("it is our own");
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}
