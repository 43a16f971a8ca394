//! What a monitor learns of the last crash of its group.

use immortal_monitor_api::fake::FakeHost;
use immortal_monitor_api::*;

/// Reports who is to blame.
struct Wary(Host);

impl Monitor for Wary {
    fn new(host: Host, _: &Options) -> Result<Self> {
        Ok(Self(host))
    }

    fn setup(&mut self, _: Why, _: &[u8]) -> Result<Readiness> {
        if let Some(crash) = self.0.last_crash() {
            let hook = crash.hook.unwrap_or("nothing");
            self.0.report("crash", format!("{} in {hook}, time {}", crash.role, crash.count));
        }
        Ok(Readiness::Ready)
    }
}

#[test]
fn a_group_without_a_crash_tells_of_none() {
    let fake = FakeHost::new();
    fake.start::<Wary>(&[]).unwrap().setup(Why::PumpStart, b"").unwrap();
    assert_eq!(fake.host().last_crash(), None);
    assert_eq!(fake.reported("crash"), None);
}

#[test]
fn a_monitor_sees_all_of_a_crash_that_its_test_made() {
    let fake = FakeHost::new();
    let mut crash = Crash::new(Role::Pump);
    crash.signal = Some(11);
    crash.pid = 77;
    crash.count = 3;
    (crash.monitor, crash.hook, crash.by_hook) = (Some("lines"), Some("stdout"), true);
    (crash.stdout_offset, crash.stderr_offset) = (1 << 40, 6);
    crash.pending = Some(Pending::new(Stream::Stdout, 1 << 40, 70));
    crash.stderr = b"\xffoops\n";
    fake.set_last_crash(&crash);
    assert_eq!(fake.host().last_crash(), Some(crash));
    fake.start::<Wary>(&[]).unwrap().setup(Why::PumpRestart, b"oops\n").unwrap();
    assert_eq!(fake.reported("crash").as_deref(), Some("pump in stdout, time 3"));
}

#[test]
fn nothing_known_of_a_daemon_stays_nothing() {
    let fake = FakeHost::new();
    let crash = Crash::new(Role::Daemon);
    fake.set_last_crash(&crash);
    assert_eq!(fake.host().last_crash(), Some(crash));
    let host = fake.host();
    assert!(host.extension(c"immortal.crash/2").is_null(), "another extension");
}
