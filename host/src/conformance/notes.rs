//! The child's channel to the command: what is called now, log records, the verdict.

use std::cell::RefCell;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, OnceLock, PoisonError};

use log::{Log, Metadata, Record};

use super::wire::Note;
use crate::loader::helper::wire::send;

static CHANNEL: OnceLock<UnixStream> = OnceLock::new();
/// Held while a note is written: a monitor may log from any thread.
static WRITING: Mutex<()> = Mutex::new(());

/// Makes the channel known, once.
pub(super) fn open(channel: UnixStream) -> &'static UnixStream {
    CHANNEL.get_or_init(|| channel)
}

/// Writes one note.
pub(super) fn write(note: &Note) -> io::Result<()> {
    let mut channel = CHANNEL.get().expect("opened before anything is tested");
    let _whole_note = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    send(&mut channel, note)
}

thread_local! {
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Says where in a longer story the next steps are; every step is told anew there.
pub(super) fn place(place: String) {
    LAST.with_borrow_mut(String::clear);
    PLACE.set(place);
}

/// The place that was said last; empty in a short story.
pub(super) fn here() -> String {
    PLACE.with_borrow(String::clone)
}

/// Says what is called from now on; nothing is written when that is what was said last.
pub(super) fn step(what: &str) {
    LAST.with_borrow_mut(|last| {
        if last == what {
            return;
        }
        what.clone_into(last);
        let whole = PLACE.with_borrow(|place| format!("{what}{place}"));
        // A command that is gone hears nothing more; the verdict finds that out.
        if let Err(error) = write(&Note::Step(whole)) {
            log::trace!("{error}");
        }
    });
}

/// Sends log records to the command.
pub(super) struct Forward;

impl Log for Forward {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let (target, text) = (record.target().to_owned(), record.args().to_string());
        // As for a step; and there is nowhere else to tell it.
        drop(write(&Note::Log { level: record.level() as usize, target, text }));
    }

    fn flush(&self) {}
}
