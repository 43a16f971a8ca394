//! immortal's own log: the `log` crate to stderr, one line a record.

use log::{LevelFilter, Log, Metadata, Record};
use std::io::Write;
use std::sync::OnceLock;

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
    let logger = builder.build();
    let most = logger.filter();
    match log::set_boxed_logger(Box::new(Own(logger))) {
        Ok(()) => log::set_max_level(most),
        Err(error) => log::debug!("the log was started already: {error}"),
    }
}

/// Sends every record up to a level elsewhere from now on, whether the log was started or not. Only the first
/// place that is said counts.
pub(crate) fn divert(elsewhere: &'static dyn Log, most: LevelFilter) {
    if log::set_logger(elsewhere).is_ok() || ELSEWHERE.set(elsewhere).is_ok() {
        log::set_max_level(most);
    }
}

static ELSEWHERE: OnceLock<&dyn Log> = OnceLock::new();

/// Stderr, until the records are diverted.
struct Own(env_logger::Logger);

impl Own {
    fn target(&self) -> &dyn Log {
        ELSEWHERE.get().copied().unwrap_or(&self.0)
    }
}

impl Log for Own {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.target().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        self.target().log(record);
    }

    fn flush(&self) {
        self.target().flush();
    }
}
