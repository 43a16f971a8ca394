//! Sends what a monitor logs through the `log` crate to the host's own log.
//!
//! A library has its own copy of that crate's statics, so the host's logger never sees the monitor's records.

use crate::{Host, hook};
use log::{Log, Metadata, Record};

struct Forward;

/// Makes the library's `log` speak to the host; a logger that is there already stays.
pub(crate) fn install(host: &Host) {
    if log::set_logger(&Forward).is_ok() || log::max_level() < host.max_log_level() {
        log::set_max_level(host.max_log_level());
    }
}

impl Log for Forward {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        let Some(host) = hook::host().filter(|host| record.level() <= host.max_log_level()) else { return };
        match record.args().as_str() {
            Some(text) => host.log(record.level(), record.target(), text),
            None => host.log(record.level(), record.target(), &record.args().to_string()),
        }
    }

    fn flush(&self) {}
}
