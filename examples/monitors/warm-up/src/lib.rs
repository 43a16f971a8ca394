//! Does its work on a thread of its own: `setup` says "not yet", the thread says when, and what comes in meanwhile
//! waits in a bounded queue. The pattern for a monitor that connects to something, or writes to something slow.

#![forbid(unsafe_code)]

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use immortal_monitor_api::{Host, Monitor, OptionSpec, Options, Readiness, Result, Why, export_monitor};

/// So many bytes may wait. Beyond that they are dropped and counted: the program must not wait for us. Bytes and
/// not chunks, because a chunk may be one byte.
const QUEUE_BYTES: usize = 1 << 20;

struct WarmUp {
    host: Host,
    delay: Duration,
    worker: Option<Worker>,
    dropped_bytes: u64,
}

struct Worker {
    queue: Arc<Queue>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Queue {
    /// What waits, and whether that is all.
    state: Mutex<(Vec<u8>, bool)>,
    changed: Condvar,
}

impl Queue {
    /// Adds bytes; false if there is no room for them.
    fn push(&self, bytes: &[u8]) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = state.0.len() + bytes.len() <= QUEUE_BYTES;
        if has_room {
            state.0.extend_from_slice(bytes);
            self.changed.notify_one();
        }
        has_room
    }

    /// Takes all that waits, as soon as there is something; `None` at the end.
    fn take(&self) -> Option<Vec<u8>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_empty = |state: &mut (Vec<u8>, bool)| state.0.is_empty() && !state.1;
        let mut state = self.changed.wait_while(state, is_empty).unwrap_or_else(PoisonError::into_inner);
        Some(std::mem::take(&mut state.0)).filter(|bytes| !bytes.is_empty())
    }

    fn end(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.changed.notify_one();
    }
}

impl Monitor for WarmUp {
    const OPTIONS: &'static [OptionSpec] =
        &[OptionSpec::duration("delay", "how long it takes until it is ready").default("1ms")];

    fn new(host: Host, options: &Options) -> Result<Self> {
        Ok(Self { host, delay: options.duration("delay")?, worker: None, dropped_bytes: 0 })
    }

    fn setup(&mut self, _: Why, _: &[u8]) -> Result<Readiness> {
        let (host, delay) = (self.host.clone(), self.delay);
        let queue = Arc::new(Queue::default());
        let theirs = queue.clone();
        let thread =
            std::thread::Builder::new().name("warm-up".into()).spawn(move || work(&host, delay, &theirs))?;
        self.worker = Some(Worker { queue, thread });
        Ok(Readiness::Pending)
    }

    fn stdout(&mut self, bytes: &[u8]) -> Result {
        let Some(worker) = &self.worker else { return Ok(()) };
        if worker.thread.is_finished() {
            // It has panicked, and that was logged. This is of no use without it.
            return Err("the worker has ended".into());
        }
        if !worker.queue.push(bytes) {
            self.dropped_bytes += bytes.len() as u64;
            self.host.report("dropped_bytes", self.dropped_bytes);
        }
        Ok(())
    }

    // The group ends in order: what waits is worked off until the deadline.
    fn finish(&mut self, deadline: Instant) -> Result {
        let Some(Worker { queue, thread }) = self.worker.take() else { return Ok(()) };
        queue.end();
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        if thread.is_finished() {
            thread.join().map_err(|_| "the worker has panicked".into())
        } else {
            Ok(())
        }
    }
}

/// The thread's work. It may use the host for as long as it likes.
fn work(host: &Host, delay: Duration, queue: &Queue) {
    // In place of a connection, a large file, a cache.
    std::thread::sleep(delay);
    log::debug!("ready after {delay:?}");
    host.ready();
    let bytes: u64 = std::iter::from_fn(|| queue.take()).map(|chunk| chunk.len() as u64).sum();
    host.report("bytes", bytes);
}

export_monitor!(WarmUp);

#[cfg(test)]
mod tests {
    use super::*;
    use immortal_monitor_api::fake::FakeHost;

    #[test]
    fn it_becomes_ready_later() {
        let fake = FakeHost::new();
        let mut monitor = fake.start::<WarmUp>(&["delay=20ms"]).unwrap();
        assert_eq!(monitor.setup(Why::PumpStart, b"").unwrap(), Readiness::Pending);
        let deadline = Instant::now() + Duration::from_secs(5);
        while !fake.is_ready() {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(1));
        }
        monitor.stdout(b"hello").unwrap();
        monitor.finish(Duration::from_secs(5)).unwrap();
        assert_eq!(fake.reported("bytes").as_deref(), Some("5"));
    }
}
