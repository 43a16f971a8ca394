//! What the pump offers to one monitor: its settings, the pids, and requests that take effect later.

use super::mail::{Mail, Notice};
use crate::delivery::Verdict;
use crate::loader::{LastCrash, Pids, Services, Settings};
use crate::state::Page;
use immortal_monitor_api::abi;
use std::sync::Arc;

/// The pump, as one monitor sees it.
pub(super) struct Offer {
    pub(super) mail: Arc<Mail>,
    pub(super) settings: Arc<Settings>,
    pub(super) page: Page,
    pub(super) label: String,
    pub(super) index: usize,
    pub(super) last_crash: Option<LastCrash>,
}

fn pid(pid: i32) -> Option<i32> {
    (pid != 0).then_some(pid)
}

impl Services for Offer {
    fn log(&self, level: log::Level, target: &str, text: &str) {
        log::log!(target: "monitor", level, "{}: {target}: {text}", self.label);
    }

    fn fail(&self, text: &str) {
        let text = format!("monitor {}: {text}", self.label);
        self.mail.notice(Notice::Failed { text, hint: None, verdict: Verdict::Monitor(self.index) });
    }

    fn ready(&self) {
        self.mail.set_ready(self.index);
    }

    fn restart(&self) -> bool {
        self.mail.notice(Notice::Restart);
        true
    }

    fn shutdown(&self) -> bool {
        self.mail.notice(Notice::Shutdown);
        true
    }

    fn pids(&self) -> Pids {
        let pids = self.page.pids();
        Pids { process: pid(pids.process), monitor: pid(pids.pump), daemon: pid(pids.daemon) }
    }

    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.settings.get(key)
    }

    fn count(&self, key: &[u8]) -> usize {
        self.settings.count(key)
    }

    fn at(&self, key: &[u8], index: usize) -> Option<&[u8]> {
        self.settings.at(key, index)
    }

    fn durable(&self, stream: u32, offset: u64) {
        let stream = match stream {
            abi::STREAM_STDOUT => 0,
            abi::STREAM_STDERR => 1,
            _ => return,
        };
        self.mail.set_durable(self.index, stream, offset);
    }

    fn report(&self, key: &[u8], value: &[u8]) {
        self.mail.report(&self.label, &String::from_utf8_lossy(key), &String::from_utf8_lossy(value));
    }

    fn last_crash(&self) -> Option<LastCrash> {
        self.last_crash
    }
}
