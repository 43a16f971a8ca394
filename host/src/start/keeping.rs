//! What `--on-crash keep` needs of the system and of the group; judged before anything starts.

use super::StartError;
use crate::delivery::MOST_MONITORS;
use crate::launch::{Policy, Strategy};
use crate::spool::{self, SPOOL_BYTES};
use crate::sys::exit_status::FAILED;
use crate::sys::limits;
use nix::sys::resource::{Resource, getrlimit};
use std::os::fd::OwnedFd;

/// How many monitors a group that keeps may have: one place is for the monitor that takes over when all others are
/// set aside.
const MOST: usize = MOST_MONITORS - 1;

fn what() -> String {
    "option --on-crash keep".to_owned()
}

/// Refuses more monitors than a group that keeps its process can have.
pub(super) fn judge_count(policy: &Policy, monitors: usize) -> Result<(), StartError> {
    if !policy.keeps() || monitors <= MOST {
        return Ok(());
    }
    Err(StartError::Usage { what: what(), why: format!("a group has at most {MOST} monitors then") })
}

/// Makes the spool, if the process is to be kept.
pub(super) fn spool(
    policy: &Policy,
    strategy: Strategy,
    monitors: usize,
) -> Result<Option<OwnedFd>, StartError> {
    if !policy.keeps() {
        return Ok(None);
    }
    if strategy != Strategy::Daemon {
        let why = format!("it needs --strategy daemon, and this is {}", strategy.name());
        return Err(StartError::Usage { what: what(), why });
    }
    judge_count(policy, monitors)?;
    let refuse = |why: &str| StartError::Role {
        status: FAILED,
        text: format!("{}: {why}", what()),
        hint: Some("leave it out: --on-crash respawn works everywhere".into()),
    };
    let (_, most) = getrlimit(Resource::RLIMIT_FSIZE)
        .map_err(|error| refuse(&format!("the limit of file sizes is unknown: {error}")))?;
    if most < SPOOL_BYTES as u64 {
        return Err(refuse(&format!("files may not be larger than {most} bytes here (ulimit -f)")));
    }
    let spool = limits::with_files_of(SPOOL_BYTES as u64, spool::create);
    let spool =
        spool.map_err(|error| refuse(&format!("this system cannot hold a process's output: {error}")))?;
    Ok(Some(spool))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::OnCrash;

    fn keep() -> Policy {
        Policy { on_crash: OnCrash::Keep, ..Policy::default() }
    }

    fn refusal(result: Result<Option<OwnedFd>, StartError>) -> String {
        result.expect_err("it is refused").to_string()
    }

    #[cfg(portable_path)]
    #[test]
    fn a_system_without_spool_or_subreaper_is_refused_in_one_line() {
        let error = refusal(spool(&keep(), Strategy::Daemon, 1));
        assert!(error.starts_with("option --on-crash keep: this system cannot hold"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }

    #[cfg(linux_path)]
    #[test]
    fn a_group_that_keeps_has_a_spool_and_no_other_has_one() {
        assert!(matches!(spool(&keep(), Strategy::Daemon, MOST), Ok(Some(_))));
        assert!(matches!(spool(&Policy::default(), Strategy::Daemon, 1), Ok(None)));
    }

    #[test]
    fn other_strategies_and_too_many_monitors_are_refused() {
        for strategy in [Strategy::Development, Strategy::Unattached] {
            let error = refusal(spool(&keep(), strategy, 1));
            assert!(error.contains(strategy.name()), "{error}");
        }
        let error = refusal(spool(&keep(), Strategy::Daemon, MOST + 1));
        assert!(error.contains(&MOST.to_string()), "{error}");
    }
}
