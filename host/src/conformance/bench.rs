//! How many bytes and calls a monitor takes per second, through the very calls that the pump makes.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::life::{Broken, Context, How, Life};
use super::notes::{step, write};
use super::source::Source;
use super::wire::{Finding, Job, Note};
use super::{Subject, parent};
use crate::loader::Stream;

/// Sizes of the chunks.
const CHUNKS: [usize; 5] = [1, 64, 1 << 10, 4 << 10, 64 << 10];
/// How long each is measured.
const SPAN: Duration = Duration::from_millis(400);
/// Bytes of output that come round and round.
const LOOP_BYTES: usize = 1 << 20;

/// One measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Speed {
    pub(crate) chunk_bytes: u64,
    pub(crate) calls: u64,
    pub(crate) seconds: f64,
}

impl Speed {
    pub(crate) fn calls_per_second(&self) -> f64 {
        self.calls as f64 / self.seconds
    }

    pub(crate) fn bytes_per_second(&self) -> f64 {
        self.calls_per_second() * self.chunk_bytes as f64
    }

    pub(crate) fn ns_per_call(&self) -> f64 {
        self.seconds * 1e9 / self.calls as f64
    }
}

/// Measures one library; its text says why it could not be done.
///
/// # Errors
/// The helper process could not be used.
pub(crate) fn measure(subject: &Subject) -> std::io::Result<Result<Vec<Speed>, String>> {
    let ran = parent::run_one(subject, "", Duration::from_secs(10))?;
    Ok(match ran.finding {
        Finding::Pass(_) => Ok(ran.speeds),
        finding @ (Finding::Warn(_) | Finding::Fail(_) | Finding::Skip(_)) => Err(finding.text().to_owned()),
    })
}

/// The child's side.
pub(super) fn all(context: &Context<'_>) -> Result<(), Broken> {
    let Job { seed, .. } = context.job;
    let bytes = Source::new(*seed).lines(LOOP_BYTES);
    let mut life = Life::begin(context)?;
    life.spawn()?;
    for size in CHUNKS {
        step(&format!("stdout in chunks of {size} bytes"));
        let speed = one(&mut life, &bytes, size)?;
        life.idle()?;
        write(&Note::Speed(speed))?;
    }
    life.exit(How::Code(0))?;
    life.end()
}

fn one(life: &mut Life, bytes: &[u8], size: usize) -> Result<Speed, Broken> {
    let begun = Instant::now();
    let mut calls = 0;
    loop {
        // A clock for every chunk would cost as much as the call itself.
        for chunk in bytes.chunks_exact(size).take(64) {
            let offset = life.pass(0, size);
            let stream = Stream::Stdout;
            let output =
                crate::loader::Output { stream, redelivered: false, offset, mono_ns: 0, data: chunk };
            life.instance.output(&output)?;
            calls += 1;
        }
        let took = begun.elapsed();
        if took >= SPAN {
            return Ok(Speed { chunk_bytes: size as u64, calls, seconds: took.as_secs_f64() });
        }
    }
}
