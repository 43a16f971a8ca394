//! What becomes of a hook that fails or panics, through the table that a library exports.

use immortal_monitor_api::fake::FakeHost;
use immortal_monitor_api::*;
use std::time::{Duration, Instant};

/// Fails or panics in the hook that its option names.
struct Bad {
    at: String,
    host: Host,
}

#[derive(Debug)]
struct Outer(std::num::ParseIntError);

impl std::fmt::Display for Outer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cannot count")
    }
}

impl std::error::Error for Outer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

fn go_wrong(at: &str, hook: &str) -> Result {
    match at.strip_prefix(hook) {
        Some("=panic") => panic!("boom in {hook}"),
        Some("=error") => Ok("x".parse::<u8>().map(drop).map_err(Outer)?),
        Some("=hint") => Err("no room\nhint: make room".into()),
        _ => Ok(()),
    }
}

impl Bad {
    fn go_wrong(&self, hook: &str) -> Result {
        go_wrong(&self.at, hook)
    }
}

impl Monitor for Bad {
    const OPTIONS: &'static [OptionSpec] = &[OptionSpec::string("at", "hook=panic, hook=error or hook=hint")];

    fn check(options: &Options) -> Result {
        go_wrong(options.opt_string("at")?.unwrap_or_default(), "check")
    }
    fn new(host: Host, options: &Options) -> Result<Self> {
        let at = options.opt_string("at")?.unwrap_or_default().to_owned();
        go_wrong(&at, "new")?;
        Ok(Self { at, host })
    }
    fn setup(&mut self, _: Why, _: &[u8]) -> Result<Readiness> {
        self.go_wrong("setup")?;
        Ok(Readiness::Pending)
    }
    fn stdout(&mut self, _: &[u8]) -> Result {
        self.go_wrong("stdout")
    }
    fn stderr(&mut self, _: &[u8]) -> Result {
        self.go_wrong("stderr")
    }
    fn spawn(&mut self, _: &Spawn) -> Result {
        self.go_wrong("spawn")
    }
    fn respawn(&mut self, _: &Spawn) -> Result {
        self.go_wrong("respawn")
    }
    fn exit(&mut self, _: &Exit) -> Result {
        self.go_wrong("exit")
    }
    fn idle(&mut self) -> Result {
        self.host.report("idle", 1);
        self.go_wrong("idle")
    }
    fn finish(&mut self, deadline: Instant) -> Result {
        assert!(deadline > Instant::now(), "the deadline is in the future");
        assert!(deadline < Instant::now() + Duration::from_secs(61), "and not far");
        self.go_wrong("finish")
    }
}

type Call = fn(&mut fake::Driver) -> core::result::Result<(), fake::HookError>;
const CALLS: [(&str, Call); 7] = [
    ("setup", |driver| driver.setup(Why::PumpStart, b"").map(drop)),
    ("stdout", |driver| driver.stdout(b"x")),
    ("stderr", |driver| driver.stderr(b"x")),
    ("spawn", |driver| driver.spawn(1)),
    ("respawn", |driver| driver.respawn(1)),
    ("exit", |driver| driver.exit(&Exit::with_code(1, 0))),
    ("idle", fake::Driver::idle),
];

#[test]
fn a_panic_in_any_hook_comes_back_with_the_hooks_name_and_the_place() {
    let fake = FakeHost::new();
    for (hook, call) in CALLS {
        let mut driver = fake.start::<Bad>(&[&format!("at={hook}=panic")]).unwrap();
        let error = call(&mut driver).unwrap_err();
        assert!(error.is_panic, "{hook}");
        let place = format!("{hook}: panicked at monitor-api/tests/hooks.rs:");
        let place_in_package = format!("{hook}: panicked at tests/hooks.rs:");
        assert!(error.text.starts_with(&place) || error.text.starts_with(&place_in_package), "{error}");
        assert!(error.text.ends_with(&format!(": boom in {hook}")), "{error}");
    }
    for error in [
        fake.check::<Bad>(&["at=check=panic"]).unwrap_err(),
        fake.start::<Bad>(&["at=new=panic"]).unwrap_err(),
        fake.start::<Bad>(&["at=finish=panic"]).unwrap().finish(Duration::from_secs(60)).unwrap_err(),
    ] {
        assert!(error.is_panic && error.text.contains(": panicked at "), "{error}");
    }
}

#[test]
fn an_error_in_any_hook_comes_back_with_its_sources() {
    let fake = FakeHost::new();
    for (hook, call) in CALLS {
        let mut driver = fake.start::<Bad>(&[&format!("at={hook}=error")]).unwrap();
        let error = call(&mut driver).unwrap_err();
        assert!(!error.is_panic, "{hook}");
        assert_eq!(error.text, format!("{hook}: cannot count: invalid digit found in string"));
    }
    let new = fake.start::<Bad>(&["at=new=error"]).unwrap_err();
    assert_eq!(new.text, "new: cannot count: invalid digit found in string");
    let finish = fake.start::<Bad>(&["at=finish=error"]).unwrap().finish(Duration::from_secs(60));
    assert_eq!(finish.unwrap_err().text, "finish: cannot count: invalid digit found in string");
}

#[test]
fn a_refusal_in_check_is_the_text_for_the_user() {
    let refused = FakeHost::new().check::<Bad>(&["at=check=error"]).unwrap_err();
    assert_eq!(refused.text, "cannot count: invalid digit found in string");
    let refused = FakeHost::new().check::<Bad>(&["at=check=hint"]).unwrap_err();
    assert_eq!(refused.text, "no room\nhint: make room");
}

#[test]
fn options_are_validated_before_check_and_new() {
    let refused = FakeHost::new().check::<Bad>(&["tea=yes"]).unwrap_err();
    assert_eq!(refused.text, "unknown option tea\nhint: it takes at");
    let refused = FakeHost::new().start::<Bad>(&["at:=null"]).unwrap_err();
    assert_eq!(refused.text, "new: option at:=null: cannot be null");
}

#[test]
fn after_a_panic_no_hook_runs_any_more() {
    let fake = FakeHost::new();
    let mut driver = fake.start::<Bad>(&["at=stdout=panic"]).unwrap();
    driver.stdout(b"x").unwrap_err();
    assert!(driver.idle().unwrap_err().is_panic);
    assert_eq!(fake.reported("idle"), None, "idle did not run");
    assert_eq!(fake.failures().len(), 1, "and nothing was told twice");
}

#[test]
fn after_an_error_hooks_run_on() {
    let fake = FakeHost::new();
    let mut driver = fake.start::<Bad>(&["at=stdout=error"]).unwrap();
    driver.stdout(b"x").unwrap_err();
    driver.idle().unwrap();
    assert_eq!(fake.reported("idle").as_deref(), Some("1"));
}

#[test]
fn pending_is_not_ready() {
    let mut driver = FakeHost::new().start::<Bad>(&[]).unwrap();
    assert_eq!(driver.setup(Why::PumpStart, b""), Ok(Readiness::Pending));
    assert!(!driver.host().is_ready());
    driver.host().host().ready();
    assert!(driver.host().is_ready());
}

/// Panics when it is dropped.
struct BadDrop;

impl Monitor for BadDrop {
    fn new(_: Host, _: &Options) -> Result<Self> {
        Ok(Self)
    }
}

impl Drop for BadDrop {
    fn drop(&mut self) {
        panic!("not so easily");
    }
}

#[test]
fn a_panic_in_drop_is_told_and_goes_no_further() {
    let fake = FakeHost::new();
    drop(fake.start::<BadDrop>(&[]).unwrap());
    let [text] = &fake.failures()[..] else { panic!("one failure") };
    assert!(text.starts_with("drop: panicked at ") && text.ends_with(": not so easily"), "{text}");
}

/// Logs, and panics on a thread of its own.
struct Chatty;

impl Monitor for Chatty {
    fn new(host: Host, _: &Options) -> Result<Self> {
        log::info!(target: "chat", "label {}", host.label());
        Ok(Self)
    }
    fn idle(&mut self) -> Result {
        let host = std::thread::Builder::new().name("own".into()).spawn(|| panic!("alone"))?.join();
        assert!(host.is_err(), "the thread panicked");
        Ok(())
    }
}

#[test]
fn records_and_panics_of_own_threads_reach_the_hosts_log() {
    // A record from outside a hook goes to the newest host of the library, and tests run at the same time.
    let fakes = std::iter::repeat_with(FakeHost::new).take(20);
    let found = fakes.into_iter().any(|fake| {
        let mut driver = fake.start::<Chatty>(&[]).unwrap();
        let log = fake.log();
        assert_eq!((log[0].target.as_str(), log[0].text.as_str()), ("chat", "label test"));
        assert_eq!(log[0].level, log::Level::Info);
        driver.idle().unwrap();
        assert_eq!(fake.failures(), [""; 0], "it is no hook's panic");
        fake.log().iter().any(|record| {
            record.level == log::Level::Error
                && record.text.starts_with("thread own panicked at ")
                && record.text.ends_with(": alone")
        })
    });
    assert!(found, "no host was told of the panic");
}
