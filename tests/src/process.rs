//! Processes by identity: a pid together with its start time, so that a number used again is not mistaken.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// One process that existed when this was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    started: u64,
}

/// What the system says of a process right now.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) parent: i32,
    pub(crate) state: char,
    started: u64,
}

impl Process {
    /// Finds the process of this number; `None` if there is none or only a zombie.
    #[must_use]
    pub fn find(pid: i32) -> Option<Self> {
        let facts = facts(pid)?;
        (facts.state != 'Z').then_some(Self { pid, started: facts.started })
    }

    /// Whether it has ended: nothing of that number, another process of that number, or a zombie.
    #[must_use]
    pub fn is_gone(self) -> bool {
        Self::find(self.pid) != Some(self)
    }

    /// Whether it is stopped, by a signal or by a terminal.
    #[must_use]
    pub fn is_stopped(self) -> bool {
        facts(self.pid).is_some_and(|facts| facts.started == self.started && facts.state == 'T')
    }

    /// Sends a signal, unless it is gone.
    pub fn signal(self, signal: Signal) {
        if !self.is_gone() {
            // It may end in between, and then there is nothing to do.
            kill(Pid::from_raw(self.pid), signal).ok();
        }
    }

    /// Its command line as others see it, arguments joined by blanks.
    #[must_use]
    pub fn command_line(self) -> String {
        command_line(self.pid)
    }

    /// Its environment as it was when the program was executed, NUL between the variables.
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn environment(self) -> Vec<u8> {
        std::fs::read(format!("/proc/{}/environ", self.pid)).unwrap_or_default()
    }

    /// What its descriptors lead to.
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn descriptors(self) -> Vec<(i32, String)> {
        let Ok(listing) = std::fs::read_dir(format!("/proc/{}/fd", self.pid)) else { return Vec::new() };
        let mut found: Vec<(i32, String)> = listing
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let target = std::fs::read_link(entry.path()).ok()?;
                Some((entry.file_name().to_str()?.parse().ok()?, target.to_string_lossy().into_owned()))
            })
            .collect();
        found.sort();
        found
    }
}

/// All processes whose environment holds `marker`, and all their descendants.
pub(crate) fn marked(marker: &str) -> Vec<Process> {
    let all = all();
    let mut found: Vec<i32> =
        all.iter().map(|(pid, _)| *pid).filter(|pid| environment_holds(*pid, marker)).collect();
    loop {
        let children: Vec<i32> = all
            .iter()
            .filter(|(pid, facts)| found.contains(&facts.parent) && !found.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if children.is_empty() {
            break;
        }
        found.extend(children);
    }
    found.into_iter().filter_map(Process::find).collect()
}

/// Children of `parent` that have ended and were not waited for.
#[must_use]
pub(crate) fn zombies_of(parents: &[i32]) -> Vec<i32> {
    all()
        .into_iter()
        .filter(|(_, facts)| facts.state == 'Z' && parents.contains(&facts.parent))
        .map(|(pid, _)| pid)
        .collect()
}

#[cfg(target_os = "linux")]
fn all() -> Vec<(i32, Facts)> {
    let Ok(listing) = std::fs::read_dir("/proc") else { return Vec::new() };
    listing
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, facts(pid)?)))
        .collect()
}

#[cfg(target_os = "linux")]
pub(crate) fn facts(pid: i32) -> Option<Facts> {
    // A negative or zero number would name something else than a process.
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", u32::try_from(pid).ok()?)).ok()?;
    // The name is in parentheses and may hold anything; what follows the last one is numbers.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    // Field 22 of proc_pid_stat(5); the state was field 3.
    let started = fields.nth(17)?.parse().ok()?;
    // X: dying, already waited for.
    Some(Facts { parent, state: if state == 'X' { 'Z' } else { state }, started })
}

#[cfg(target_os = "linux")]
fn environment_holds(pid: i32, marker: &str) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|variable| variable == marker.as_bytes())
}

#[cfg(target_os = "linux")]
fn command_line(pid: i32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_end_matches('\0').replace('\0', " ")
}

#[cfg(not(target_os = "linux"))]
fn ps(arguments: &[&str]) -> String {
    let output = std::process::Command::new("ps").env("LC_ALL", "C").args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

#[cfg(not(target_os = "linux"))]
fn all() -> Vec<(i32, Facts)> {
    ps(&["-axo", "pid=,ppid=,state=,lstart="]).lines().filter_map(parsed).collect()
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn facts(pid: i32) -> Option<Facts> {
    let number = u32::try_from(pid).ok()?.to_string();
    ps(&["-o", "pid=,ppid=,state=,lstart=", "-p", &number]).lines().find_map(parsed).map(|(_, facts)| facts)
}

#[cfg(not(target_os = "linux"))]
fn parsed(line: &str) -> Option<(i32, Facts)> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut fields = line.split_whitespace();
    let pid = fields.next()?.parse().ok()?;
    let parent = fields.next()?.parse().ok()?;
    let state = fields.next()?.chars().next()?;
    // A date in words: only its sameness matters.
    let mut hasher = DefaultHasher::new();
    fields.collect::<Vec<_>>().hash(&mut hasher);
    Some((pid, Facts { parent, state, started: hasher.finish() }))
}

#[cfg(not(target_os = "linux"))]
fn environment_holds(pid: i32, marker: &str) -> bool {
    ps(&["-Eww", "-o", "command=", "-p", &pid.to_string()]).contains(marker)
}

#[cfg(not(target_os = "linux"))]
fn command_line(pid: i32) -> String {
    ps(&["-ww", "-o", "command=", "-p", &pid.to_string()]).trim().to_owned()
}
