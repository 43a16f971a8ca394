//! Runs one hook: catches what it throws, and tells the host the text.
//!
//! A library has its own copy of std and so its own panic hook. Ours keeps the text of a panic inside a hook for
//! the host, which writes it to the pump's stderr itself, and sends a panic of a thread of the monitor's own to
//! the host's log.

use crate::{Error, Host, Result, fake, logger};
use core::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::{Mutex, Once, PoisonError};

thread_local! {
    /// The hook that runs on this thread.
    static RUNNING: RefCell<Option<(&'static str, Host)>> = const { RefCell::new(None) };
    /// The text of a panic that nobody has asked for yet.
    static PANIC: Cell<Option<String>> = const { Cell::new(None) };
}

/// The host of the instance that was made last: for threads that run outside any hook.
static LATEST: Mutex<Option<Host>> = Mutex::new(None);

/// How a hook went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It returned an error.
    Failed,
    /// It panicked.
    Panicked,
}

/// Makes this library's logger and panic hook speak to this host.
pub(crate) fn install(host: &Host) {
    static ONCE: Once = Once::new();
    *LATEST.lock().unwrap_or_else(PoisonError::into_inner) = Some(host.clone());
    logger::install(host);
    if std::thread::panicking() {
        return;
    }
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| on_panic(info, &before)));
    });
}

/// The host that something said on this thread belongs to.
pub(crate) fn host() -> Option<Host> {
    let running = RUNNING.try_with(|running| Some(running.try_borrow().ok()?.as_ref()?.1.clone()));
    match running {
        Ok(Some(host)) => Some(host),
        Ok(None) | Err(_) => LATEST.lock().unwrap_or_else(PoisonError::into_inner).clone(),
    }
}

/// Runs one hook. What goes wrong is told to `host` with the hook's name.
pub(crate) fn run<T>(host: &Host, name: &'static str, hook: impl FnOnce() -> Result<T>) -> Result<T, Fault> {
    let outer = RUNNING.replace(Some((name, host.clone())));
    PANIC.set(None);
    let outcome = panic::catch_unwind(AssertUnwindSafe(hook));
    RUNNING.set(outer);
    match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            host.fail(&failure(name, &error));
            // An error is the author's type: its drop may panic too.
            discard(error);
            Err(Fault::Failed)
        }
        Err(payload) => {
            let text = PANIC.take().unwrap_or_else(|| format!("panicked: {}", message(&*payload)));
            host.fail(&format!("{name}: {text}"));
            discard(payload);
            Err(Fault::Panicked)
        }
    }
}

/// Drops a value of the author's; a panic in that is forgotten, for there is nobody left to tell.
fn discard<T>(value: T) {
    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| drop(value))) {
        core::mem::forget(payload);
    }
}

/// The text of an error with its sources, on one line; what follows the first line of the error itself (a hint)
/// stays behind it. A refusal in `check` is a message to the user and goes without the hook's name.
fn failure(name: &str, error: &Error) -> String {
    panic::catch_unwind(AssertUnwindSafe(|| {
        let text = error.to_string();
        let (first, rest) = match text.find('\n') {
            Some(end) => text.split_at(end),
            None => (text.as_str(), ""),
        };
        let mut line = if name == "check" { first.to_owned() } else { format!("{name}: {first}") };
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Some errors quote their source in their own text.
            if !line.ends_with(&cause_text) {
                line.push_str(": ");
                line.push_str(&cause_text);
            }
            source = cause.source();
        }
        line + rest
    }))
    .unwrap_or_else(|payload| {
        core::mem::forget(payload);
        format!("{name}: an error whose text cannot be had: it panics")
    })
}

fn on_panic(info: &PanicHookInfo<'_>, before: &dyn Fn(&PanicHookInfo<'_>)) {
    let place = info.location().map_or_else(|| "unknown place".to_owned(), ToString::to_string);
    let text = format!("panicked at {place}: {}", message(info.payload()));
    let running = RUNNING.try_with(|running| running.try_borrow().ok()?.as_ref().map(|(name, _)| *name));
    match running {
        Ok(Some(name)) => in_hook(name, text),
        Ok(None) | Err(_) => in_own_thread(info, &text, before),
    }
}

fn in_hook(name: &str, text: String) {
    // With `panic = "abort"` nothing runs after this function, and a panic while another is under way aborts as
    // well: their texts would be lost with the shim that never gets to tell them.
    let told_later = cfg!(panic = "unwind");
    let earlier = PANIC.replace(None);
    if let Some(host) = host().filter(|_| !told_later || earlier.is_some()) {
        let text = format!("{name}: {text}");
        host.log(log::Level::Error, env!("CARGO_CRATE_NAME"), &text);
        if !told_later {
            host.fail(&text);
        }
    }
    PANIC.set(Some(text));
}

fn in_own_thread(info: &PanicHookInfo<'_>, text: &str, before: &dyn Fn(&PanicHookInfo<'_>)) {
    if let Some(host) = host() {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("without a name");
        host.log(log::Level::Error, env!("CARGO_CRATE_NAME"), &format!("thread {name} {text}"));
        if !fake::in_use() {
            return;
        }
    }
    // A unit test's own assertions, or no host yet.
    before(info);
}

fn message(payload: &(dyn core::any::Any + Send)) -> &str {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text,
        (None, None) => "a value that is not a text",
    }
}
