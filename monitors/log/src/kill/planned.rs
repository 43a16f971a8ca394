//! Kills by plan.

use std::cell::RefCell;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

thread_local! {
    static PLAN: RefCell<Option<Arc<Plan>>> = const { RefCell::new(None) };
}

/// When the threads that share it are killed.
#[derive(Debug)]
pub(crate) struct Plan {
    /// How many more points they pass.
    left: AtomicI64,
    /// Whether a write before the last one is half done.
    tears: bool,
    is_over: AtomicBool,
}

/// What threads unwind with.
struct Killed;

impl Plan {
    /// Has this thread, and those that it starts, killed at the point after so many others.
    pub(crate) fn begin(points: i64, tears: bool) -> Arc<Self> {
        let (left, is_over) = (AtomicI64::new(points), AtomicBool::new(false));
        let plan = Arc::new(Self { left, tears, is_over });
        PLAN.set(Some(Arc::clone(&plan)));
        plan
    }

    /// Whether it has come to that.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// Kills what still runs, and waits until it is gone. Returns whether it had come to the point.
    pub(crate) fn end(self: Arc<Self>) -> bool {
        let was_over = self.is_over();
        self.is_over.store(true, Ordering::SeqCst);
        PLAN.set(None);
        while Arc::strong_count(&self) > 1 {
            std::thread::sleep(Duration::from_micros(50));
        }
        was_over
    }

    fn pass(&self) {
        if self.left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            self.is_over.store(true, Ordering::SeqCst);
        }
        if self.is_over() {
            resume_unwind(Box::new(Killed));
        }
    }

    fn tears_now(&self) -> bool {
        self.tears && self.left.load(Ordering::SeqCst) <= 0
    }
}

fn plan() -> Option<Arc<Plan>> {
    PLAN.with_borrow(Clone::clone)
}

pub(crate) fn point() {
    if let Some(plan) = plan() {
        plan.pass();
    }
}

/// The first half of them if the write is not to be completed.
pub(crate) fn part(bytes: &[u8]) -> &[u8] {
    match plan() {
        Some(plan) if plan.tears_now() => &bytes[..bytes.len().div_ceil(2)],
        Some(_) | None => bytes,
    }
}

pub(crate) struct Fate(Option<Arc<Plan>>);

impl Fate {
    pub(crate) fn of_this_thread() -> Self {
        Self(plan())
    }

    pub(crate) fn share(self) {
        PLAN.set(self.0);
    }
}
