//! What the process may do: its user and groups, its limits, its priority. Everything is judged before anything
//! is started; the child only carries it out.

use crate::launch::{Identity, Limit, Program};
use crate::sys::{family, user};
use immortal_monitor_api::scalar;
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{Gid, Group, Uid, User};
use std::ffi::CString;

/// Why user, group, limits or priority are refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivilegeError {
    /// There is no such user.
    #[error("user {0}: there is no such user")]
    UnknownUser(String),
    /// There is no such group.
    #[error("group {0}: there is no such group")]
    UnknownGroup(String),
    /// The system does not say which groups the user is in.
    #[error("user {0}: unable to find the user's groups")]
    Groups(String, #[source] nix::errno::Errno),
    /// Only root may become somebody else, or a member of another group.
    #[error("{0}: only root may run a program as somebody else")]
    NotRoot(String),
    /// The limit is none.
    #[error("rlimit {limit}: {why}")]
    Limit {
        /// As given.
        limit: String,
        /// What is wrong with it.
        why: String,
    },
    /// Only root may go so far.
    #[error("rlimit {0}: only root may go above the caller's hard limit of {1}")]
    AboveHard(String, u64),
    /// Only root may raise the priority.
    #[error("nice {0}: only root may go below the caller's {1}")]
    Nice(i32, i32),
}

impl PrivilegeError {
    /// Tells a wrong command line (exit status 2) from what this system or this user cannot have (125).
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Limit { .. })
    }
}

/// What was asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Privileges {
    pub(crate) user: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) limits: Vec<String>,
}

impl Privileges {
    /// Judges what was asked for and notes it in the program.
    pub(crate) fn apply(&self, program: &mut Program) -> Result<(), PrivilegeError> {
        let is_root = Uid::effective().is_root();
        program.identity = self.identity(is_root)?;
        program.limits =
            self.limits.iter().map(|limit| parse_limit(limit, is_root)).collect::<Result<_, _>>()?;
        if let Some(nice) = program.nice {
            let current = family::nice();
            if nice < current && !is_root {
                return Err(PrivilegeError::Nice(nice, current));
            }
        }
        Ok(())
    }

    fn identity(&self, is_root: bool) -> Result<Option<Identity>, PrivilegeError> {
        if self.user.is_none() && self.group.is_none() {
            return Ok(None);
        }
        let user = self.user.as_deref().map(find_user).transpose()?;
        let group = self.group.as_deref().map(find_group).transpose()?;
        let own = || User::from_uid(Uid::effective()).ok().flatten();
        let (uid, primary, name) = match user {
            Some((uid, gid, name)) => (uid, gid, name),
            None => (Uid::effective(), Gid::effective(), own().map(|user| user.name)),
        };
        let gid = group.unwrap_or(primary);
        let is_own = uid == Uid::effective() && gid == Gid::effective();
        if !is_root {
            let group = || self.group.as_ref().map(|group| format!("group {group}"));
            let shown = self.user.as_ref().map(|user| format!("user {user}")).or_else(group);
            return if is_own { Ok(None) } else { Err(PrivilegeError::NotRoot(shown.unwrap_or_default())) };
        }
        // A number without a name is in no other group.
        let groups = match name {
            Some(name) => groups_of(&name, gid).map_err(|error| PrivilegeError::Groups(name, error))?,
            None => vec![gid],
        };
        let groups = groups.into_iter().map(Gid::as_raw).collect();
        Ok(Some(Identity { uid: uid.as_raw(), gid: gid.as_raw(), groups }))
    }
}

fn groups_of(name: &str, gid: Gid) -> nix::Result<Vec<Gid>> {
    let name = CString::new(name).map_err(|_| nix::errno::Errno::EINVAL)?;
    user::groups(&name, gid)
}

fn find_user(text: &str) -> Result<(Uid, Gid, Option<String>), PrivilegeError> {
    if let Ok(Some(user)) = User::from_name(text) {
        return Ok((user.uid, user.gid, Some(user.name)));
    }
    let unknown = || PrivilegeError::UnknownUser(text.to_owned());
    let number = text.parse::<u32>().map_err(|_| unknown())?;
    match User::from_uid(Uid::from_raw(number)) {
        Ok(Some(user)) => Ok((user.uid, user.gid, Some(user.name))),
        Ok(None) => Ok((Uid::from_raw(number), Gid::from_raw(number), None)),
        Err(_) => Err(unknown()),
    }
}

fn find_group(text: &str) -> Result<Gid, PrivilegeError> {
    if let Ok(Some(group)) = Group::from_name(text) {
        return Ok(group.gid);
    }
    text.parse::<u32>().map(Gid::from_raw).map_err(|_| PrivilegeError::UnknownGroup(text.to_owned()))
}

/// The limits by the names of the shell's `ulimit` manual and of systemd's units.
const RESOURCES: &[(&str, Resource)] = &[
    ("core", Resource::RLIMIT_CORE),
    ("cpu", Resource::RLIMIT_CPU),
    ("data", Resource::RLIMIT_DATA),
    ("fsize", Resource::RLIMIT_FSIZE),
    #[cfg(target_os = "linux")]
    ("memlock", Resource::RLIMIT_MEMLOCK),
    ("nofile", Resource::RLIMIT_NOFILE),
    #[cfg(target_os = "linux")]
    ("nproc", Resource::RLIMIT_NPROC),
    ("stack", Resource::RLIMIT_STACK),
    #[cfg(target_os = "linux")]
    ("as", Resource::RLIMIT_AS),
    #[cfg(target_os = "linux")]
    ("locks", Resource::RLIMIT_LOCKS),
    #[cfg(target_os = "linux")]
    ("msgqueue", Resource::RLIMIT_MSGQUEUE),
    #[cfg(target_os = "linux")]
    ("nice", Resource::RLIMIT_NICE),
    #[cfg(target_os = "linux")]
    ("rss", Resource::RLIMIT_RSS),
    #[cfg(target_os = "linux")]
    ("rtprio", Resource::RLIMIT_RTPRIO),
    #[cfg(target_os = "linux")]
    ("rttime", Resource::RLIMIT_RTTIME),
    #[cfg(target_os = "linux")]
    ("sigpending", Resource::RLIMIT_SIGPENDING),
];

fn parse_limit(text: &str, is_root: bool) -> Result<Limit, PrivilegeError> {
    let refuse = |why: String| PrivilegeError::Limit { limit: text.to_owned(), why };
    let (name, values) = text
        .split_once('=')
        .ok_or_else(|| refuse("it must be NAME=SOFT[:HARD], as in nofile=1024".into()))?;
    let lower = name.to_ascii_lowercase();
    let known = RESOURCES.iter().find(|(known, _)| *known == lower.trim_start_matches("rlimit_"));
    let Some((_, resource)) = known else {
        let names: Vec<&str> = RESOURCES.iter().map(|(name, _)| *name).collect();
        return Err(refuse(format!("there is no limit {name}; there are {}", names.join(", "))));
    };
    let value = |text: &str| match text {
        "unlimited" | "infinity" => Ok(nix::libc::RLIM_INFINITY),
        text => text.parse::<u64>().or_else(|_| scalar::size(text)).map_err(&refuse),
    };
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (value(soft)?, value(hard)?),
        None => (value(values)?, value(values)?),
    };
    if soft > hard {
        return Err(refuse("the soft limit is above the hard one".into()));
    }
    let (_, current) = getrlimit(*resource).map_err(|errno| refuse(errno.to_string()))?;
    if hard > current && !is_root {
        return Err(PrivilegeError::AboveHard(text.to_owned(), current));
    }
    Ok(Limit { resource: *resource as u32, soft, hard })
}

/// A limit as `status` shows it.
pub(crate) fn show(limit: &Limit) -> String {
    let name = RESOURCES.iter().find(|(_, known)| *known as u32 == limit.resource);
    let value = |number: u64| match number {
        nix::libc::RLIM_INFINITY => "unlimited".to_owned(),
        number => number.to_string(),
    };
    format!("{}={}:{}", name.map_or("?", |(name, _)| name), value(limit.soft), value(limit.hard))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_and_shown() {
        assert_eq!(show(&parse_limit("nofile=64:128", true).unwrap()), "nofile=64:128");
        assert_eq!(show(&parse_limit("CORE=0", false).unwrap()), "core=0:0");
        for bad in ["nofile", "nofile=x", "nofile=2:1", "files=1", "=1", "nofile="] {
            assert!(parse_limit(bad, true).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unknown_user_or_group_is_named() {
        let unknown = Privileges { user: Some("no-such-user".into()), ..Privileges::default() };
        let error = unknown.apply(&mut Program::default()).unwrap_err();
        assert_eq!(error.to_string(), "user no-such-user: there is no such user");
        let unknown = Privileges { group: Some("no-such-group".into()), ..Privileges::default() };
        assert!(unknown.apply(&mut Program::default()).is_err());
    }
}
