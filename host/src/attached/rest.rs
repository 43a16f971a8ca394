//! What the process has written and the pump, which copies it to the parent's output, did not live to copy.
//!
//! In a thread for each stream, which may wait for its target: the parent does not.

use crate::sink::Sink;
use crate::sys::{fd, signals};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How much is copied at once, in bytes.
const MOST_BYTES: usize = 4096;
/// For so long it is waited for a target that takes nothing.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked for more.
const BEAT: Duration = Duration::from_millis(5);

/// The streams of a group in development, by their reading ends, and where they are copied to.
#[derive(Debug)]
pub(crate) struct Rest {
    /// Those that nobody copies yet.
    waiting: Vec<(OwnedFd, Sink)>,
    copying: Vec<Arc<Progress>>,
}

/// How far the thread of a stream is.
#[derive(Debug, Default)]
struct Progress {
    /// It is to copy what waits, and to end.
    is_last: AtomicBool,
    has_ended: AtomicBool,
    copied: AtomicU64,
}

impl Rest {
    /// Those of stdout and stderr.
    pub(super) fn new(streams: [OwnedFd; 2], targets: [OwnedFd; 2]) -> Self {
        let sinks = targets.map(|target| Sink::new(Some(target)));
        Self { waiting: streams.into_iter().zip(sinks).collect(), copying: Vec::new() }
    }

    /// Begins to copy, if that has not begun. Only when no pump reads any more.
    pub(super) fn copy(&mut self) {
        for (stream, sink) in std::mem::take(&mut self.waiting) {
            let progress = Arc::new(Progress::default());
            let theirs = Arc::clone(&progress);
            let run = move || copy(&stream, sink, &theirs);
            // Signals are for the threads of whoever started the group.
            let start = || std::thread::Builder::new().name("rest".into()).spawn(run);
            match signals::while_blocked(start).and_then(|thread| thread.map(drop)) {
                Ok(()) => self.copying.push(progress),
                Err(error) => log::error!("relaying what the pump has left: {error}"),
            }
        }
    }

    /// Copies all that waits at this moment: the last that is copied.
    pub(super) fn finish(mut self) {
        let is_empty = |(stream, _): &(OwnedFd, Sink)| fd::waiting(stream).unwrap_or(0) == 0;
        if self.copying.is_empty() && self.waiting.iter().all(is_empty) {
            return;
        }
        self.copy();
        self.copying.iter().for_each(|progress| progress.is_last.store(true, Ordering::SeqCst));
        let copied = || self.copying.iter().map(|progress| progress.copied.load(Ordering::SeqCst)).sum();
        let (mut before, mut since): (u64, _) = (copied(), Instant::now());
        while self.copying.iter().any(|progress| !progress.has_ended.load(Ordering::SeqCst)) {
            if copied() != before {
                (before, since) = (copied(), Instant::now());
            } else if since.elapsed() > PATIENCE {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A stream whose target breaks is closed, so that whoever writes into it finds that out.
fn copy(stream: &OwnedFd, mut sink: Sink, progress: &Progress) {
    let mut chunk = [0; MOST_BYTES];
    while sink.is_open() {
        let is_last = progress.is_last.load(Ordering::SeqCst);
        // Reading until it is empty need not end when somebody writes on.
        let mut left = fd::waiting(stream).unwrap_or(0);
        while left > 0 && sink.is_open() {
            let most = left.min(chunk.len());
            let count = nix::unistd::read(stream, &mut chunk[..most]).unwrap_or(0);
            sink.write(&chunk[..count]);
            progress.copied.fetch_add(count as u64, Ordering::SeqCst);
            left = if count > 0 { left - count } else { 0 };
        }
        if is_last {
            break;
        }
        std::thread::sleep(BEAT);
    }
    progress.has_ended.store(true, Ordering::SeqCst);
}
