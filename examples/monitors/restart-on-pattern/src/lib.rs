//! Counts the lines of stdout and stderr, and asks for a restart of the program when a line holds a pattern:
//! for a server that says "out of memory" and lives on, of no use to anybody.

#![forbid(unsafe_code)]

use immortal_monitor_api::{
    Exit, Host, Monitor, OptionSpec, Options, Output, Result, Spawn, Stream, export_monitor,
};

/// As much of a line is looked at; what is behind that is counted as part of the line, and no more.
const LINE_BYTES: usize = 8192;

struct RestartOnPattern {
    host: Host,
    pattern: Vec<u8>,
    stdout: Lines,
    stderr: Lines,
    /// A restart was asked for, and the program has not died yet.
    is_asked: bool,
}

/// One stream, cut into lines. A chunk may end anywhere, so the start of a line is kept until its end has come.
#[derive(Default)]
struct Lines {
    count: u64,
    begun: Vec<u8>,
}

impl Lines {
    /// Takes bytes; tells whether a line that ended among them held the pattern.
    fn take(&mut self, bytes: &[u8], pattern: &[u8]) -> bool {
        let mut is_found = false;
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE_BYTES - self.begun.len();
            self.begun.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                self.count += 1;
                is_found |= self.begun.windows(pattern.len()).any(|window| window == pattern);
                self.begun.clear();
            }
        }
        is_found
    }
}

impl Monitor for RestartOnPattern {
    const OPTIONS: &'static [OptionSpec] =
        &[OptionSpec::string("pattern", "text that no healthy line holds").default("out of memory")];

    fn check(options: &Options) -> Result {
        match options.bytes("pattern")?.len() {
            0 => {
                Err("option pattern: every line holds nothing\nhint: leave it out for `out of memory`".into())
            }
            1..=LINE_BYTES => Ok(()),
            _ => Err(format!(
                "option pattern: longer than the {LINE_BYTES} bytes of a line that are looked at"
            )
            .into()),
        }
    }

    fn new(host: Host, options: &Options) -> Result<Self> {
        let pattern = options.bytes("pattern")?.to_vec();
        Ok(Self { host, pattern, stdout: Lines::default(), stderr: Lines::default(), is_asked: false })
    }

    // Both streams come here, because this is written instead of `stdout` and `stderr`.
    fn output(&mut self, output: &Output<'_>) -> Result {
        let lines = match output.stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
            _ => return Ok(()),
        };
        if lines.take(output.bytes, &self.pattern) && !self.is_asked {
            self.is_asked = self.host.restart();
            log::warn!("line {} of {:?} holds the pattern: restart", lines.count, output.stream);
        }
        Ok(())
    }

    fn exit(&mut self, _: &Exit) -> Result {
        self.host.report("stdout_lines", self.stdout.count);
        self.host.report("stderr_lines", self.stderr.count);
        Ok(())
    }

    fn respawn(&mut self, _: &Spawn) -> Result {
        self.is_asked = false;
        Ok(())
    }
}

export_monitor!(RestartOnPattern);

#[cfg(test)]
mod tests {
    use super::*;
    use immortal_monitor_api::Why;
    use immortal_monitor_api::fake::FakeHost;

    #[test]
    fn pattern_is_found_though_it_is_cut_and_only_once_a_run() {
        let fake = FakeHost::new();
        let mut monitor = fake.start::<RestartOnPattern>(&[]).unwrap();
        monitor.setup(Why::PumpStart, b"").unwrap();
        monitor.spawn(100).unwrap();
        monitor.stdout(b"fine\nalmost out of mem").unwrap();
        assert_eq!(fake.restarts(), 0);
        monitor.stderr(b"ory\n").unwrap();
        assert_eq!(fake.restarts(), 0, "the other stream has lines of its own");
        monitor.stdout(b"ory\nstill out of memory\n").unwrap();
        assert_eq!(fake.restarts(), 1);
    }

    #[test]
    fn empty_pattern_is_refused() {
        assert!(FakeHost::new().check::<RestartOnPattern>(&["pattern="]).is_err());
    }
}
