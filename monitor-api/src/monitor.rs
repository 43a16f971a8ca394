//! The trait that a monitor implements.

use crate::{Event, Exit, Host, OptionSpec, Options, Output, Readiness, Setup, Spawn, Stream, Why};
use std::time::Instant;

/// What a hook fails with: any error, or a text. Its text ends up on the pump's stderr and is the next monitor's
/// message. A second line `hint: …` says what to do.
pub type Error = Box<dyn core::error::Error + Send + Sync>;

/// What hooks return; `?` turns any error into an [`Error`].
pub type Result<T = (), E = Error> = core::result::Result<T, E>;

/// A monitor: told of everything a process writes and of its life.
///
/// All hooks but [`new`](Self::new) have a default that does nothing. They are called in this order: `check`, in
/// a process of its own; then in the pump `new`, `setup`, any number of outputs, events and `idle`, `finish`.
/// Calls are serial, on one thread, and never re-entrant. What is borrowed ends with the call.
///
/// A hook that fails or panics ends the pump; see the crate's description for what follows. After a panic no
/// hook of the instance runs any more, and it is not dropped.
pub trait Monitor: Sized + 'static {
    /// The options that the monitor takes. They are validated before `check` and `new` run.
    const OPTIONS: &'static [OptionSpec] = &[];

    /// Judges the options before anything is started; by default all that fit [`Self::OPTIONS`] will do.
    ///
    /// Runs in a short-lived helper process in the caller's directory: leave nothing behind, carry nothing over.
    ///
    /// # Errors
    /// An error ends `immortal start` with its text, and nothing is started.
    fn check(options: &Options) -> Result {
        let _ = options;
        Ok(())
    }

    /// Makes the instance, in the pump.
    ///
    /// # Errors
    /// An error ends the pump.
    fn new(host: Host, options: &Options) -> Result<Self>;

    /// First call of an instance: the process is spawned only when every monitor is ready. `message` is the
    /// stderr of the pump that died, if one did.
    ///
    /// # Errors
    /// An error ends the pump; the process is not spawned.
    fn setup(&mut self, why: Why, message: &[u8]) -> Result<Readiness> {
        let _ = (why, message);
        Ok(Readiness::Ready)
    }

    /// The same with all that is known; by default it calls [`setup`](Self::setup).
    ///
    /// # Errors
    /// As for `setup`.
    fn setup_details(&mut self, setup: &Setup<'_>) -> Result<Readiness> {
        self.setup(setup.why, setup.message)
    }

    /// Takes bytes of the process's stdout, in order, as one read returned them.
    ///
    /// # Errors
    /// An error ends the pump.
    fn stdout(&mut self, bytes: &[u8]) -> Result {
        let _ = bytes;
        Ok(())
    }

    /// Takes bytes of the process's stderr, in order, as one read returned them.
    ///
    /// # Errors
    /// An error ends the pump.
    fn stderr(&mut self, bytes: &[u8]) -> Result {
        let _ = bytes;
        Ok(())
    }

    /// Takes bytes of either stream with their offset; by default it calls [`stdout`](Self::stdout) or
    /// [`stderr`](Self::stderr).
    ///
    /// # Errors
    /// An error ends the pump.
    fn output(&mut self, output: &Output<'_>) -> Result {
        match output.stream {
            Stream::Stdout => self.stdout(output.bytes),
            Stream::Stderr => self.stderr(output.bytes),
            Stream::Other(_) => Ok(()),
        }
    }

    /// The process started for the first time; called before its first byte.
    ///
    /// # Errors
    /// An error ends the pump.
    fn spawn(&mut self, spawn: &Spawn) -> Result {
        let _ = spawn;
        Ok(())
    }

    /// The process was restarted; called before its first byte.
    ///
    /// # Errors
    /// An error ends the pump.
    fn respawn(&mut self, spawn: &Spawn) -> Result {
        let _ = spawn;
        Ok(())
    }

    /// The process died; called after its last byte.
    ///
    /// # Errors
    /// An error ends the pump.
    fn exit(&mut self, exit: &Exit) -> Result {
        let _ = exit;
        Ok(())
    }

    /// Takes any event; by default it calls [`spawn`](Self::spawn), [`respawn`](Self::respawn) or
    /// [`exit`](Self::exit), and ignores what it does not know.
    ///
    /// # Errors
    /// An error ends the pump.
    fn event(&mut self, event: &Event) -> Result {
        match event {
            Event::Spawn(spawn) => self.spawn(spawn),
            Event::Respawn(spawn) => self.respawn(spawn),
            Event::Exit(exit) => self.exit(exit),
            Event::Other(_) => Ok(()),
        }
    }

    /// There is nothing more to read for now: a good moment to write out what was gathered.
    ///
    /// # Errors
    /// An error ends the pump.
    fn idle(&mut self) -> Result {
        Ok(())
    }

    /// The group ends in order: last chance to write things out, until `deadline`. The instance is dropped
    /// afterwards.
    ///
    /// # Errors
    /// An error is logged; the group ends all the same.
    fn finish(&mut self, deadline: Instant) -> Result {
        let _ = deadline;
        Ok(())
    }
}
