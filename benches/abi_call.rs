//! What it costs to cross the boundary: nanoseconds for one call of `output` of a loaded monitor that does nothing,
//! through the very call that the pump makes.
//!
//! `cargo bench -p immortal-benches --bench abi_call`; needs the C compiler `cc`.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program that prints a table")]

use immortal::loader::{Host, Instance, Output, Pids, Services, Stream, Trust, open, publish};
use immortal_benches::{is_trial, medians};
use immortal_tests::{CLibrary, Sandbox, artifacts};
use log::{Level, LevelFilter};
use std::cell::RefCell;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const IN_C: &str = r#"
#include "immortal_monitor.h"
static void *create(const im_host *host, const im_opt *options, size_t count) {
    (void)options; (void)count;
    return (void *)host;
}
static void destroy(void *instance) { (void)instance; }
static int32_t output(void *instance, const im_output *output) {
    (void)instance; (void)output;
    return IM_OK;
}
const im_monitor immortal_monitor_v1 = {
    .magic = IM_MAGIC, .abi = IM_ABI, .size = sizeof(im_monitor),
    .name = "quiet", .version = "1", .about = "does nothing",
    .create = create, .output = output, .destroy = destroy,
};
"#;

fn main() {
    let calls: u32 = if is_trial() { 1000 } else { 20_000_000 };
    let sandbox = Sandbox::new();
    let in_c = CLibrary::new(IN_C).arg("-O2").build(&sandbox, "quiet");
    let cases = [
        ("none at all", None),
        ("in C", Some(RefCell::new(instance(&in_c)))),
        ("in Rust", Some(RefCell::new(instance(&artifacts().monitor("quiet"))))),
    ];
    let bytes = [b'x'; 100];
    let medians = medians(&cases, |(_, instance)| {
        let start = Instant::now();
        for offset in 0..calls {
            let output = Output {
                stream: Stream::Stdout,
                redelivered: false,
                offset: u64::from(offset),
                mono_ns: 1,
                data: &bytes,
            };
            let output = black_box(&output);
            if let Some(instance) = instance {
                instance.borrow_mut().output(output).expect("it does nothing, so it does not fail");
            }
        }
        [start.elapsed().as_secs_f64() * 1e9 / f64::from(calls)]
    });
    // What the loop itself costs is in every row.
    for ((name, _), [nanoseconds]) in cases.iter().zip(medians) {
        println!("monitor {name:12} {nanoseconds:6.2} ns a call");
    }
}

fn instance(library: &Path) -> Instance {
    let library = open(library, Trust::Unknown).expect("a library that can be loaded");
    let host: Host = publish("quiet", Arc::new(Nothing), LevelFilter::Off);
    Instance::create(&library, host, &[]).expect("a monitor without options")
}

/// A host of which nothing is asked.
struct Nothing;

impl Services for Nothing {
    fn log(&self, _: Level, _: &str, _: &str) {}
    fn fail(&self, _: &str) {}
    fn ready(&self) {}
    fn restart(&self) -> bool {
        false
    }
    fn shutdown(&self) -> bool {
        false
    }
    fn pids(&self) -> Pids {
        Pids::default()
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
    fn report(&self, _: &[u8], _: &[u8]) {}
}
