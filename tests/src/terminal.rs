//! A terminal with a program on it, for Ctrl-C and for programs that read the terminal.

use crate::artifacts::artifacts;
use crate::invocation::{Invocation, contains};
use crate::sandbox::Sandbox;
use crate::wait::eventually;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// The far end of a pseudo-terminal.
#[derive(Debug)]
pub struct Terminal {
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
    path: PathBuf,
    // Open until the end, so that the screen can be read after the program has gone.
    _near_end: OwnedFd,
}

impl Default for Terminal {
    fn default() -> Self {
        Self::new()
    }
}

impl Terminal {
    /// Opens a terminal.
    ///
    /// # Panics
    /// If the system has none left.
    #[must_use]
    pub fn new() -> Self {
        let pair = nix::pty::openpty(None, None).expect("a pseudo-terminal");
        let path = nix::unistd::ttyname(&pair.slave).expect("it has a name");
        let keyboard = File::from(pair.master);
        let mut reader = keyboard.try_clone().expect("a descriptor can be copied");
        let screen = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                shared.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..count]);
            }
        });
        Self { keyboard, screen, path, _near_end: pair.slave }
    }

    /// Prepares a run of `immortal` whose controlling terminal, input and output this is.
    #[must_use]
    pub fn immortal<A: AsRef<OsStr>>(
        &self,
        sandbox: &Sandbox,
        arguments: impl IntoIterator<Item = A>,
    ) -> Invocation {
        sandbox
            .invocation(artifacts().puppet())
            .arg(format!("terminal={}", self.path.display()))
            .arg(artifacts().immortal())
            .args(arguments)
    }

    /// Types.
    ///
    /// # Panics
    /// If the terminal is gone.
    pub fn type_text(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("a terminal takes keys");
    }

    /// Waits until the screen shows a text.
    #[track_caller]
    pub fn wait_screen(&self, text: &str) {
        eventually(&format!("{text:?} on the terminal"), || {
            contains(&self.screen(), text.as_bytes()).then_some(())
        });
    }

    /// Everything that was shown.
    #[must_use]
    pub fn screen(&self) -> Vec<u8> {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
