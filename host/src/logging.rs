//! immortal's own log: the `log` crate to stderr, one line a record.

use log::LevelFilter;
use std::io::Write;

/// Starts it. `RUST_LOG` wins over the level.
pub(crate) fn start(level: u8) {
    let level = LevelFilter::iter().nth(usize::from(level)).unwrap_or(LevelFilter::Warn);
    let mut builder = env_logger::Builder::new();
    builder.filter_level(level);
    if let Ok(filter) = std::env::var("RUST_LOG") {
        builder.parse_filters(&filter);
    }
    builder.format(|out, record| {
        let level = record.level().as_str().to_ascii_lowercase();
        writeln!(out, "{level}: {}", record.args())
    });
    if let Err(error) = builder.try_init() {
        log::debug!("the log was started already: {error}");
    }
}
