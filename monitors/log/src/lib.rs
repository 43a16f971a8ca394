//! Placeholder
#![forbid(unsafe_code)]
use immortal_monitor_api::*;

/// Quiet.
struct Quiet;

impl Monitor for Quiet {
    const OPTIONS: &'static [OptionSpec] = &[OptionSpec::integer("max", "x").default("1000")];
    fn new(_: Host, _: &Options) -> Result<Self> {
        Ok(Self)
    }
}
export_monitor!(Quiet);
