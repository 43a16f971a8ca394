//! A monitor for immortal: counts the lines of the program's stdout, and asks for a restart after a number of
//! them.

#![forbid(unsafe_code)]

use immortal_monitor_api::{Exit, Host, Monitor, OptionSpec, Options, Readiness, Result, Why, export_monitor};

struct Counter {
    host: Host,
    /// Lines of one run after which a restart is asked for; 0: never.
    limit: u64,
    /// Lines of this run.
    lines: u64,
}

impl Monitor for Counter {
    // Given as `-o limit=100`; seen in `immortal monitor info`. What does not fit is refused before anything starts.
    const OPTIONS: &'static [OptionSpec] =
        &[OptionSpec::integer("limit", "ask for a restart after this many lines; 0 for never").default("0")];

    // Runs in a short-lived process before anything is started: says what the types above cannot say.
    fn check(options: &Options) -> Result {
        if options.integer("limit")? < 0 {
            return Err("option limit: must not be negative\nhint: 0 means never".into());
        }
        Ok(())
    }

    fn new(host: Host, options: &Options) -> Result<Self> {
        Ok(Self { host, limit: options.integer("limit")?.unsigned_abs(), lines: 0 })
    }

    // The first call. After the death of a pump, the message is what the dead one had on its stderr.
    fn setup(&mut self, why: Why, message: &[u8]) -> Result<Readiness> {
        if why != Why::PumpStart {
            let last = message.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty());
            log::warn!("{why}: {}", String::from_utf8_lossy(last.unwrap_or_default()));
        }
        Ok(Readiness::Ready)
    }

    // Bytes as one read returned them: they respect no line, and need not be text.
    fn stdout(&mut self, bytes: &[u8]) -> Result {
        for _ in bytes.iter().filter(|byte| **byte == b'\n') {
            self.lines += 1;
            if self.lines == self.limit {
                self.host.restart();
            }
        }
        Ok(())
    }

    // The program died, and all it wrote has been seen. It is started again unless the user wants otherwise.
    fn exit(&mut self, exit: &Exit) -> Result {
        log::info!("{} lines in {:?}, code {:?}, signal {:?}", self.lines, exit.ran, exit.code, exit.signal);
        self.host.report("lines_of_last_run", self.lines);
        self.lines = 0;
        Ok(())
    }
}

export_monitor!(Counter);

#[cfg(test)]
mod tests {
    use super::*;
    use immortal_monitor_api::fake::FakeHost;

    #[test]
    fn restart_is_asked_for_once_after_the_limit() {
        let fake = FakeHost::new();
        let mut monitor = fake.start::<Counter>(&["limit=2"]).unwrap();
        monitor.setup(Why::PumpStart, b"").unwrap();
        monitor.spawn(100).unwrap();
        monitor.stdout(b"one\ntw").unwrap();
        assert_eq!(fake.restarts(), 0);
        monitor.stdout(b"o\nthree\n").unwrap();
        assert_eq!(fake.restarts(), 1);
    }

    #[test]
    fn limit_must_not_be_negative() {
        let refused = FakeHost::new().check::<Counter>(&["limit=-1"]).unwrap_err();
        assert!(refused.to_string().contains("must not be negative"), "{refused}");
    }
}
