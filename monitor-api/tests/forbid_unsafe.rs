//! A monitor's crate may forbid unsafe code, and needs nothing but this crate.
#![forbid(unsafe_code)]
#![deny(warnings)]

use immortal_monitor_api::*;

struct Quiet;

impl Monitor for Quiet {
    fn new(_: Host, _: &Options) -> Result<Self> {
        Ok(Self)
    }
}

export_monitor!(Quiet);

#[test]
fn export_monitor_works_where_unsafe_code_is_forbidden() {
    let mut driver = fake::FakeHost::new().start::<Quiet>(&[]).unwrap();
    assert_eq!(driver.setup(Why::PumpStart, b""), Ok(Readiness::Ready));
}
