//! A monitor that takes all output for UTF-8, and whose own thread panics.

use immortal_monitor_api::*;

struct Faulty;

impl Monitor for Faulty {
    const OPTIONS: &'static [OptionSpec] = &[OptionSpec::boolean("thread", "panic on a thread").default("false")];

    fn new(_: Host, options: &Options) -> Result<Self> {
        if options.boolean("thread")? {
            std::thread::spawn(|| panic!("boom on a thread")).join().ok();
        }
        Ok(Self)
    }

    fn stdout(&mut self, bytes: &[u8]) -> Result {
        let text = std::str::from_utf8(bytes).expect("output is text");
        assert!(text.len() == bytes.len());
        Ok(())
    }
}

export_monitor!(Faulty);
