//! The names that a shell can complete.

use crate::groups::{self, Group};
use crate::loader::SearchPath;
use crate::role::own_executable;
use clap_complete::CompletionCandidate;
use std::collections::BTreeSet;

/// Every group of this user.
pub(super) fn groups() -> Vec<CompletionCandidate> {
    let groups = groups::all().unwrap_or_default();
    groups.iter().map(|group| CompletionCandidate::new(Group::name(group))).collect()
}

/// Every monitor that can be given by name.
pub(super) fn monitors() -> Vec<CompletionCandidate> {
    let directory = std::env::current_dir().unwrap_or_default();
    let search = SearchPath::from_environment(&[], &directory, &own_executable());
    let mut names = BTreeSet::new();
    for entry in
        search.directories().iter().filter_map(|directory| directory.read_dir().ok()).flatten().flatten()
    {
        let file = entry.file_name();
        let stem = file.to_str().and_then(|file| file.strip_suffix(std::env::consts::DLL_SUFFIX));
        // What is called a library of another kind is found as well, but is hardly meant.
        names.extend(stem.and_then(|stem| stem.strip_prefix("libimmortal_monitor_")).map(str::to_owned));
    }
    names.into_iter().map(CompletionCandidate::new).collect()
}
