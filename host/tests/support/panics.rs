//! A monitor that panics or fails in the hook that its option names, and sees to no signal that it should not.

use immortal_monitor_api::*;

struct Panics {
    hook: String,
}

impl Panics {
    fn act(&self, hook: &str) -> Result {
        if self.hook == hook {
            panic!("on purpose in {hook}\nsecond line");
        }
        if self.hook == format!("error-{hook}") {
            return Err("an error on purpose".into());
        }
        Ok(())
    }
}

impl Monitor for Panics {
    const OPTIONS: &'static [OptionSpec] = &[
        OptionSpec::string("hook", "where").required(),
        OptionSpec::path("file", "some file").nullable(),
    ];
    fn check(options: &Options) -> Result {
        Panics { hook: options.string("hook")?.into() }.act("check")
    }
    fn new(_: Host, options: &Options) -> Result<Self> {
        let made = Panics { hook: options.string("hook")?.into() };
        made.act("new")?;
        Ok(made)
    }
    fn setup(&mut self, _: Why, _: &[u8]) -> Result<Readiness> {
        self.act("setup").map(|()| Readiness::Ready)
    }
    fn stdout(&mut self, _: &[u8]) -> Result {
        self.act("stdout")
    }
    fn stderr(&mut self, _: &[u8]) -> Result {
        self.act("stderr")
    }
    fn spawn(&mut self, _: &Spawn) -> Result {
        self.act("spawn")
    }
    fn respawn(&mut self, _: &Spawn) -> Result {
        self.act("respawn")
    }
    fn exit(&mut self, _: &Exit) -> Result {
        self.act("exit")
    }
    fn idle(&mut self) -> Result {
        self.act("idle")
    }
    fn finish(&mut self, _: std::time::Instant) -> Result {
        self.act("finish")
    }
}

export_monitor!(Panics, name = "panics");
