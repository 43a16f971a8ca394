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

/// Says what is called from now on; nothing is written when that is what was said last.
pub(super) fn step(what: &str) {
    thread_local!(static LAST: RefCell<String> = const { RefCell::new(String::new()) });
    LAST.with_borrow_mut(|last| {
        if last != what {
            what.clone_into(last);
            // A command that is gone hears nothing more; the verdict finds that out.
            if let Err(error) = write(&Note::Step(what.to_owned())) {
                log::trace!("{error}");
            }
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
