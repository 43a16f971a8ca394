//! A host for instances under test.

use std::sync::{Arc, Mutex};

use immortal::loader::{Host, Pids, Services, publish};
use immortal::options::{OptionValue, ValueKind};
use log::{Level, LevelFilter};

/// Keeps what an instance reports and where it fails outside its hooks.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) reports: Mutex<Vec<(String, String)>>,
    pub(crate) failures: Mutex<Vec<String>>,
}

impl Services for Recorder {
    fn log(&self, _: Level, _: &str, _: &str) {}
    fn fail(&self, text: &str) {
        self.failures.lock().unwrap().push(text.into());
    }
    fn ready(&self) {}
    fn restart(&self) -> bool {
        true
    }
    fn shutdown(&self) -> bool {
        false
    }
    fn pids(&self) -> Pids {
        Pids { process: Some(3), monitor: Some(2), daemon: None }
    }
    fn get(&self, _: &[u8]) -> Option<&[u8]> {
        None
    }
    fn count(&self, _: &[u8]) -> usize {
        0
    }
    fn at(&self, _: &[u8], _: usize) -> Option<&[u8]> {
        None
    }
    fn durable(&self, _: u32, _: u64) {}
    fn report(&self, key: &[u8], value: &[u8]) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        self.reports.lock().unwrap().push((text(key), text(value)));
    }
}

impl Recorder {
    pub(crate) fn last(&self, key: &str) -> String {
        let reports = self.reports.lock().unwrap();
        reports.iter().rfind(|(name, _)| name == key).unwrap().1.clone()
    }
}

pub(crate) fn host() -> (Arc<Recorder>, Host) {
    let recorder = Arc::new(Recorder::default());
    let host = publish("m", recorder.clone(), LevelFilter::Info);
    (recorder, host)
}

pub(crate) fn options(pairs: &[(&str, &str)]) -> Vec<OptionValue> {
    let text = |(key, value): &(&str, &str)| OptionValue {
        key: (*key).into(),
        value: value.as_bytes().to_vec(),
        kind: ValueKind::Text,
    };
    pairs.iter().map(text).collect()
}
