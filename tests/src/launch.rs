//! A command line of `immortal start` or `immortal check` in the making.

use crate::artifacts::artifacts;
use crate::group::{Group, Pids};
use crate::invocation::{Invocation, Outcome, Running};
use crate::sandbox::Sandbox;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// What is to be started; see [`Sandbox::launch`].
#[derive(Debug)]
#[must_use]
pub struct Launch<'a> {
    sandbox: &'a Sandbox,
    name: Option<String>,
    options: Vec<OsString>,
    program: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
}

impl<'a> Launch<'a> {
    pub(crate) fn new(sandbox: &'a Sandbox, strategy: &str) -> Self {
        let options = match strategy {
            "" => Vec::new(),
            strategy => vec!["--strategy".into(), strategy.into()],
        };
        let name = Some("group".to_owned());
        Self { sandbox, name, options, program: Vec::new(), environment: Vec::new(), directory: None }
    }

    /// Gives the group another name than `group`.
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Leaves the name to immortal.
    pub fn unnamed(mut self) -> Self {
        self.name = None;
        self
    }

    /// Adds an argument before FILE.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.options.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments before FILE.
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.options.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets an option of a monitor.
    pub fn set(self, key: &str, value: impl AsRef<OsStr>) -> Self {
        let mut assignment = OsString::from(format!("{key}="));
        assignment.push(value);
        self.arg("--option").arg(assignment)
    }

    /// Adds the default monitor, writing to the sandbox's `log`.
    pub fn log(self) -> Self {
        let path = self.sandbox.path("log");
        self.args(["--monitor", "log"]).set("log.output", path)
    }

    /// Adds the monitor that records every call in the sandbox's `record`.
    pub fn recorder(self) -> Self {
        let path = self.sandbox.path("record");
        self.args(["--monitor", "recorder"]).set("recorder.record", path)
    }

    /// Keeps the process when pump or daemon dies, and replaces them without a pause.
    pub fn keep(self) -> Self {
        self.args(["--on-crash", "keep", "--backoff", "0ms", "--backoff-max", "0ms"])
    }

    /// Sets a variable in the environment of the command.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Runs the command in another folder than the sandbox's.
    pub fn cwd(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Takes FILE and its arguments.
    pub fn program<A: AsRef<OsStr>>(mut self, program: impl IntoIterator<Item = A>) -> Self {
        self.program = program.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
        self
    }

    /// Adds arguments of FILE.
    pub fn program_args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.program.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Takes the puppet as FILE, with these steps.
    pub fn puppet<A: AsRef<OsStr>>(self, steps: impl IntoIterator<Item = A>) -> Self {
        let mut launch = self.program([artifacts().puppet()]);
        launch.program.extend(steps.into_iter().map(|step| step.as_ref().to_owned()));
        launch
    }

    /// The command line as it stands, to be run.
    #[must_use]
    pub fn invocation(self, command: &str) -> Invocation {
        let mut invocation = self.sandbox.immortal([command]);
        if let Some(name) = &self.name {
            invocation = invocation.arg("--name").arg(name);
        }
        for (key, value) in &self.environment {
            invocation = invocation.env(key, value);
        }
        if let Some(directory) = &self.directory {
            invocation = invocation.cwd(directory);
        }
        invocation.args(&self.options).args(&self.program)
    }

    /// Runs `immortal start` to its end.
    #[must_use]
    #[track_caller]
    pub fn run(self) -> Outcome {
        self.invocation("start").run()
    }

    /// Runs `immortal check` to its end.
    #[must_use]
    #[track_caller]
    pub fn check(self) -> Outcome {
        self.invocation("check").run()
    }

    /// Runs `immortal start` and returns while it goes on, its standard input a pipe.
    #[must_use]
    #[track_caller]
    pub fn spawn(self) -> Running {
        self.invocation("start").input(std::process::Stdio::piped()).spawn()
    }

    /// Starts the group and returns when `immortal start` has ended well.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Group<'a> {
        let sandbox = self.sandbox;
        let mut launch = self;
        launch.options.insert(0, "--json".into());
        let outcome = launch.invocation("start").run();
        outcome.assert_code(0);
        let answer = outcome.json();
        let name = answer["name"].as_str().expect("a name in the answer of start");
        Group::new(sandbox, name, Pids::from_json(&answer["pids"]))
    }
}
