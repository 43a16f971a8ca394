//! Starts a group from a program of your own, as `immortal start` does from a shell.
//!
//! ```text
//! cargo build
//! cargo run -p immortal --example start -- /tmp/server.log python3 -m http.server
//! ```
//!
//! The group outlives this program: `immortal status`, `restart` and `stop` find it under its name. Pump and
//! daemon are the executable `immortal`, which is looked for beside this program, one folder above, and in
//! `PATH`; [`Start::executable`] names another. The monitor `log` is looked for beside that executable, among
//! other places.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is a command")]

use immortal::{Restart, Start, StartError, Started, Strategy};
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(log), Some(file)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: start LOGFILE FILE [ARGS]...");
        return ExitCode::from(2);
    };
    match start(log, file, arguments) {
        Ok(started) => {
            // The order in which pids are always reported. The daemon is there because of the strategy.
            let pids = started.pids;
            println!("process {}, pump {}, daemon {:?}", pids.process, pids.monitor, pids.daemon);
            println!("end it with: immortal stop {}", started.name);
            ExitCode::SUCCESS
        }
        Err(error) => {
            report(&error);
            ExitCode::from(error.status())
        }
    }
}

/// Returns as soon as the program has been executed. After an error nothing is left of the group.
fn start(log: OsString, file: OsString, args: impl Iterator<Item = OsString>) -> Result<Started, StartError> {
    let mut output = OsString::from("output=");
    output.push(log);
    Start::new(file)
        .args(args)
        .strategy(Strategy::Daemon)
        // Without a monitor it would be `log` as well. Options are written as on the command line.
        .monitor("log")
        .option(output)
        .env("GREETING", "hello")
        .restart(Restart::OnFailure)
        .backoff(Duration::from_millis(100), Duration::from_secs(5))
        .stop(libc::SIGINT, Duration::from_secs(3))
        .start()
}

/// Shows what failed and why, and what to do about it.
fn report(error: &StartError) {
    eprint!("{error}");
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        eprint!(": {error}");
        source = error.source();
    }
    eprintln!();
    if let Some(hint) = error.hint() {
        eprintln!("hint: {hint}");
    }
}
