//! One run of a program with captured output and a deadline.

use crate::process::Process;
use crate::wait::{DEADLINE, eventually};
use nix::sys::signal::Signal;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A command to be run. Its standard input is empty unless [`Invocation::spawn`] is given a pipe.
#[derive(Debug)]
pub struct Invocation {
    command: Command,
    input: Stdio,
    output: Option<Stdio>,
}

/// What a run that has ended left behind.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Signal that ended it.
    pub signal: Option<i32>,
    /// What it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error.
    pub stderr: Vec<u8>,
    /// How long it took.
    pub took: Duration,
    /// Whether both streams were closed by everybody shortly after it ended.
    pub streams_closed: bool,
    shown: String,
}

/// A run that goes on.
#[derive(Debug)]
pub struct Running {
    child: Child,
    input: Option<ChildStdin>,
    stdout: Capture,
    stderr: Capture,
    since: Instant,
    shown: String,
}

impl Invocation {
    /// Prepares a run of `program` with an empty environment.
    #[must_use]
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.env_clear();
        Self { command, input: Stdio::null(), output: None }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Removes a variable from its environment.
    #[must_use]
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        self.command.env_remove(key);
        self
    }

    /// Sets its working directory.
    #[must_use]
    pub fn cwd(mut self, directory: impl AsRef<Path>) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// Runs it as this user and group, with no further groups. Only root may.
    #[must_use]
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.command.uid(uid).gid(gid);
        self
    }

    /// Gives it something else than an empty standard input.
    #[must_use]
    pub fn input(mut self, input: impl Into<Stdio>) -> Self {
        self.input = input.into();
        self
    }

    /// Gives it another standard output, which is not captured then.
    #[must_use]
    pub fn output(mut self, output: impl Into<Stdio>) -> Self {
        self.output = Some(output.into());
        self
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// If it does not end within three deadlines; it is killed then.
    #[must_use]
    #[track_caller]
    pub fn run(self) -> Outcome {
        self.spawn().wait()
    }

    /// Starts it and returns at once.
    ///
    /// # Panics
    /// If it cannot be executed.
    #[must_use]
    #[track_caller]
    pub fn spawn(mut self) -> Running {
        let shown = format!("{:?}", self.command);
        self.command
            .stdin(self.input)
            .stdout(self.output.unwrap_or_else(Stdio::piped))
            .stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("cannot run {shown}: {error}"));
        let stdout = child.stdout.take().map_or_else(Capture::nothing, Capture::of);
        let stderr = child.stderr.take().map_or_else(Capture::nothing, Capture::of);
        Running { input: child.stdin.take(), child, stdout, stderr, since: Instant::now(), shown }
    }
}

impl Running {
    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid fits")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(process) = Process::find(self.pid()) {
            process.signal(signal);
        }
    }

    /// Writes to its standard input.
    ///
    /// # Panics
    /// If there is no pipe to it, or nobody reads it.
    pub fn write(&mut self, bytes: &[u8]) {
        let input = self.input.as_mut().expect("standard input is a pipe");
        input.write_all(bytes).and_then(|()| input.flush()).expect("standard input is read");
    }

    /// Closes its standard input.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// What it has written to its standard output so far.
    #[must_use]
    pub fn stdout(&self) -> Vec<u8> {
        self.stdout.so_far()
    }

    /// What it has written to its standard error so far.
    #[must_use]
    pub fn stderr(&self) -> Vec<u8> {
        self.stderr.so_far()
    }

    /// Waits until its standard output holds `text`.
    #[track_caller]
    pub fn wait_stdout(&self, text: &str) {
        eventually(&format!("{text:?} on the standard output of {}", self.shown), || {
            contains(&self.stdout(), text.as_bytes()).then_some(())
        });
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end within three deadlines; it is killed then.
    #[must_use]
    #[track_caller]
    pub fn wait(self) -> Outcome {
        let shown = self.shown.clone();
        self.wait_within(3 * DEADLINE).unwrap_or_else(|(stdout, stderr)| {
            panic!("did not end: {shown}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
        })
    }

    /// Waits for its end; after this span it is killed, and what it had written so far is the error.
    pub(crate) fn wait_within(mut self, span: Duration) -> Result<Outcome, (String, String)> {
        let until = Instant::now() + span;
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                break status;
            }
            if Instant::now() > until {
                let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
                return Err((text(self.stdout()), text(self.stderr())));
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let took = self.since.elapsed();
        let streams_closed = self.stdout.closed_soon() & self.stderr.closed_soon();
        Ok(Outcome {
            code: status.code(),
            signal: status.signal(),
            stdout: self.stdout(),
            stderr: self.stderr(),
            took,
            streams_closed,
            shown: self.shown.clone(),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ended and waited for already, unless a test failed before; then the errors do not matter.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Outcome {
    /// Standard output as text.
    #[must_use]
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    #[must_use]
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {self}"))
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn assert_code(&self, code: i32) {
        assert_eq!(self.code, Some(code), "exit code of {self}");
    }

    /// Asserts a failure as the contract wants every failure: this exit code, nothing on standard output, and on
    /// standard error one `error:` line, with `hint:` lines at most. Returns the `error:` line.
    #[track_caller]
    pub fn assert_refused(&self, code: i32) -> String {
        self.assert_code(code);
        assert!(self.stdout.is_empty(), "standard output is for results: {self}");
        let text = self.err();
        let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
        let others: Vec<&str> =
            text.lines().filter(|line| !line.starts_with("error: ") && !line.starts_with("hint: ")).collect();
        assert_eq!((errors.len(), others.len()), (1, 0), "one error line and hints: {self}");
        errors[0].to_owned()
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.shown)?;
        writeln!(f, "code {:?}, signal {:?}, {:?}", self.code, self.signal, self.took)?;
        writeln!(f, "--- stdout\n{}--- stderr\n{}---", self.out(), self.err())
    }
}

/// Bytes of a stream, gathered by a thread.
#[derive(Debug)]
struct Capture {
    state: Arc<Mutex<(Vec<u8>, bool)>>,
}

impl Capture {
    fn nothing() -> Self {
        Self { state: Arc::new(Mutex::new((Vec::new(), true))) }
    }

    fn of(mut stream: impl Read + Send + 'static) -> Self {
        let state = Arc::new(Mutex::new((Vec::new(), false)));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            loop {
                let count = stream.read(&mut buffer).unwrap_or(0);
                let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
                if count == 0 {
                    state.1 = true;
                    return;
                }
                state.0.extend_from_slice(&buffer[..count]);
            }
        });
        Self { state }
    }

    fn so_far(&self) -> Vec<u8> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Waits a little for the end of the stream: what was written just before the end is still on its way.
    fn closed_soon(&self) -> bool {
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            if self.state.lock().unwrap_or_else(PoisonError::into_inner).1 {
                return true;
            }
            if Instant::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || haystack.windows(needle.len()).any(|window| window == needle)
}
