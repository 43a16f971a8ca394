//! A group that was started, seen through `immortal status`.

use crate::invocation::Outcome;
use crate::log_file::LogFile;
use crate::process::Process;
use crate::records::{Record, records};
use crate::sandbox::Sandbox;
use crate::wait::eventually;
use serde_json::Value;

/// The pids of a group at one moment; `None` where there is no such process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pids {
    /// The user's program.
    pub process: Option<i32>,
    /// The pump.
    pub monitor: Option<i32>,
    /// The daemon.
    pub daemon: Option<i32>,
}

/// One member of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The user's program.
    Process,
    /// The pump.
    Monitor,
    /// The daemon.
    Daemon,
}

/// A group that was started in a sandbox.
#[derive(Debug)]
pub struct Group<'a> {
    /// The sandbox it lives in.
    pub sandbox: &'a Sandbox,
    /// Its name.
    pub name: String,
    /// Its pids as `start` reported them.
    pub started: Pids,
}

impl Pids {
    /// Reads the object under the key `pids`.
    ///
    /// # Panics
    /// If a key is missing or neither a number nor null.
    #[must_use]
    #[track_caller]
    pub fn from_json(value: &Value) -> Self {
        let pid = |key: &str| match value.get(key) {
            Some(Value::Null) => None,
            Some(number) => Some(
                number
                    .as_i64()
                    .and_then(|number| i32::try_from(number).ok())
                    .filter(|pid| *pid > 0)
                    .unwrap_or_else(|| panic!("{key:?} is no pid in {value}")),
            ),
            None => panic!("no {key:?} in {value}"),
        };
        Self { process: pid("process"), monitor: pid("monitor"), daemon: pid("daemon") }
    }

    /// The pid of one role.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    #[track_caller]
    pub fn of(&self, role: Role) -> i32 {
        self.get(role).unwrap_or_else(|| panic!("no {role:?} in {self:?}"))
    }

    /// The pid of one role, if there is such a process.
    #[must_use]
    pub fn get(&self, role: Role) -> Option<i32> {
        match role {
            Role::Process => self.process,
            Role::Monitor => self.monitor,
            Role::Daemon => self.daemon,
        }
    }

    /// The members that run now.
    #[must_use]
    pub fn members(&self) -> Vec<Process> {
        [self.process, self.monitor, self.daemon].into_iter().flatten().filter_map(Process::find).collect()
    }

    /// How many members there are.
    #[must_use]
    pub fn count(&self) -> usize {
        [self.process, self.monitor, self.daemon].into_iter().flatten().count()
    }
}

impl<'a> Group<'a> {
    pub(crate) fn new(sandbox: &'a Sandbox, name: &str, started: Pids) -> Self {
        let group = Self { sandbox, name: name.to_owned(), started };
        group.adopt(&started);
        group
    }

    /// A group that another way than [`crate::Launch::start`] has started, in development for one. Waits until
    /// it runs.
    #[track_caller]
    #[must_use]
    pub fn find(sandbox: &'a Sandbox, name: &str) -> Self {
        let group = Self { sandbox, name: name.to_owned(), started: Pids::default() };
        let started = group.wait_running("it has started", |_| true);
        Self { started, ..group }
    }

    fn adopt(&self, pids: &Pids) {
        pids.members().into_iter().for_each(|process| self.sandbox.adopt(process));
    }

    /// Runs `immortal COMMAND NAME`.
    #[track_caller]
    #[must_use]
    pub fn command(&self, command: &str) -> Outcome {
        self.sandbox.immortal([command, &self.name]).run()
    }

    /// The answer of `immortal status NAME --json`; `None` when there is no such group.
    #[must_use]
    #[track_caller]
    pub fn try_status(&self) -> Option<Value> {
        let outcome = self.sandbox.immortal(["status", &self.name, "--json"]).run();
        (outcome.code == Some(0)).then(|| outcome.json())
    }

    /// The answer of `immortal status NAME --json`.
    ///
    /// # Panics
    /// If there is no such group.
    #[must_use]
    #[track_caller]
    pub fn status(&self) -> Value {
        let outcome = self.sandbox.immortal(["status", &self.name, "--json"]).run();
        outcome.assert_code(0);
        outcome.json()
    }

    /// The pids that `status` reports.
    #[must_use]
    #[track_caller]
    pub fn pids(&self) -> Pids {
        let pids = Pids::from_json(&self.status()["pids"]);
        self.adopt(&pids);
        pids
    }

    /// The process that has a role according to `status`.
    #[must_use]
    #[track_caller]
    pub fn member(&self, role: Role) -> Process {
        eventually(&format!("a running {role:?}"), || Process::find(self.pids().get(role)?))
    }

    /// Waits for a state.
    #[track_caller]
    pub fn wait_state(&self, state: &str) -> Value {
        eventually(&format!("the state {state:?}"), || {
            let status = self.try_status()?;
            (status["state"] == state).then_some(status)
        })
    }

    /// Waits until the group runs with all its members alive and its pids are as wanted.
    #[track_caller]
    pub fn wait_running(&self, what: &str, wanted: impl Fn(&Pids) -> bool) -> Pids {
        eventually(&format!("the group runs and {what}"), || {
            let status = self.try_status()?;
            if status["state"] != "running" {
                return None;
            }
            let pids = Pids::from_json(&status["pids"]);
            self.adopt(&pids);
            let alive = pids.process.is_some() && pids.members().len() == pids.count();
            (alive && wanted(&pids)).then_some(pids)
        })
    }

    /// Waits until the group runs with new pids in exactly these roles, and asserts that the others kept theirs
    /// and that the old processes are gone.
    #[track_caller]
    pub fn wait_renewed(&self, old: Pids, roles: &[Role]) -> Pids {
        let new = self.wait_running(&format!("{roles:?} are new"), |pids| {
            roles.iter().all(|role| pids.get(*role) != old.get(*role))
        });
        for role in [Role::Process, Role::Monitor, Role::Daemon] {
            if !roles.contains(&role) {
                assert_eq!(new.get(role), old.get(role), "{role:?} was to stay, {old:?} became {new:?}");
            }
        }
        for role in roles {
            let pid = old.of(*role);
            eventually(&format!("the old {role:?} {pid} is gone"), || {
                Process::find(pid).is_none().then_some(())
            });
        }
        new
    }

    /// What the default monitor has written.
    #[must_use]
    pub fn log(&self) -> LogFile {
        LogFile::read(&self.sandbox.path("log"))
    }

    /// Waits until the default monitor's file satisfies a condition.
    #[track_caller]
    pub fn wait_log(&self, what: &str, wanted: impl Fn(&LogFile) -> bool) -> LogFile {
        eventually(&format!("in the log: {what}"), || {
            let log = self.log();
            wanted(&log).then_some(log)
        })
    }

    /// What the recorder has recorded.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        records(&self.sandbox.path("record"))
    }

    /// Waits until the records satisfy a condition.
    #[track_caller]
    pub fn wait_records(&self, what: &str, wanted: impl Fn(&[Record]) -> bool) -> Vec<Record> {
        eventually(&format!("in the record: {what}"), || {
            let records = self.records();
            wanted(&records).then_some(records)
        })
    }

    /// Waits for the next record of a hook after the first `skip` records of it.
    #[track_caller]
    pub fn wait_hook(&self, hook: &str, skip: usize) -> Record {
        eventually(&format!("call {} of {hook} in the record", skip + 1), || {
            self.records().into_iter().filter(|record| record.hook() == hook).nth(skip)
        })
    }

    /// Stops the group and asserts that this works and leaves no process.
    #[track_caller]
    pub fn stop(&self) {
        self.command("stop").assert_code(0);
        let left: Vec<String> = self
            .sandbox
            .processes()
            .iter()
            .map(|process| format!("{}: {}", process.pid, process.command_line()))
            .collect();
        assert!(left.is_empty(), "left after stop: {left:#?}");
    }
}
