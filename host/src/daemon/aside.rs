//! Sets bytes and monitors aside that pumps die of, and says so (`--on-crash keep`).

use super::Daemon;
use super::blame::Culprit;
use crate::loader::Identity;
use crate::places::GroupFiles;
use crate::spool;
use crate::state::is_aside;
use crate::sys::file_watch::FileWatch;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Instant;

/// What is noted of monitors that are set aside: the file as it was, by index.
pub(super) type Aside = Vec<(usize, Option<Identity>)>;

impl Daemon {
    /// A monitor has ended the pump: what follows.
    pub(super) fn take_fault(&mut self, culprit: Culprit, was_ready: bool) {
        let delivery = self.group.page.delivery();
        let standing = delivery.standing();
        let place = (delivery.fill() > 0).then_some((standing.stream, standing.offsets[standing.stream]));
        let consequence = self.faults.died(culprit, place, was_ready, Instant::now());
        if consequence.bytes
            && let Err(error) = self.set_bytes_aside(culprit)
        {
            // They stay where they are, and are tried again.
            self.remark(&format!(
                "the bytes that monitor {} dies of cannot be set aside: {error}",
                self.label(culprit)
            ));
        }
        if consequence.monitor {
            self.set_monitor_aside(culprit);
        }
    }

    fn label(&self, culprit: Culprit) -> String {
        let monitor = self.group.launch.monitors.get(culprit.monitor);
        monitor.map_or_else(|| "log".to_owned(), |monitor| monitor.label.clone())
    }

    /// Adds a line of our own to what the next monitors are told.
    fn remark(&mut self, text: &str) {
        log::warn!("{text}");
        self.tail.add(format!("immortal: {text}\n").as_bytes(), Instant::now());
    }

    /// The bytes go into a file of their own; for this monitor they count as delivered.
    fn set_bytes_aside(&mut self, culprit: Culprit) -> io::Result<()> {
        let delivery = self.group.page.delivery();
        let standing = delivery.standing();
        let Some(spool) = &self.group.spool else { return Ok(()) };
        let bytes = spool::pending_bytes(spool, delivery)?;
        let offset = standing.offsets[standing.stream];
        let end = offset + bytes.len() as u64;
        let start = delivery.done(culprit.monitor, standing.stream).clamp(offset, end);
        let bytes = &bytes[usize::try_from(start - offset).unwrap_or(bytes.len())..];
        let stream = if standing.stream == 0 { "stdout" } else { "stderr" };
        let label = self.label(culprit);
        let directory = self.group.launch.directory.clone().unwrap_or_default();
        let files = GroupFiles::at(PathBuf::from(std::ffi::OsString::from_vec(directory)));
        let path = files.aside(stream, start, &label);
        std::fs::write(&path, bytes)?;
        delivery.set_aside(culprit.monitor, standing.stream, end);
        self.remark(&format!(
            "monitor {label} died three times in a row of the same {} bytes of {stream} at offset {start}: they are \
             set aside in {}",
            bytes.len(),
            path.display()
        ));
        Ok(())
    }

    /// The group goes on without the monitor, until its file changes or the group is reloaded.
    fn set_monitor_aside(&mut self, culprit: Culprit) {
        let Some(monitor) = self.group.launch.monitors.get(culprit.monitor) else { return };
        let identity = Identity::of(&monitor.path).ok();
        self.aside.push((culprit.monitor, identity));
        self.watch_aside();
        let page = self.group.page;
        page.set_aside(page.aside() | 1 << culprit.monitor);
        // What it did is no reason to wait or to give up any more.
        page.set_unstable(0);
        let policy = &self.group.launch.policy;
        let (count, window) = (policy.monitor_crashes, policy.monitor_window);
        let label = self.label(culprit);
        self.remark(&format!(
            "monitor {label} ended the pump {count} times within {window:?}: it is set aside until its file changes or \
             the group is reloaded"
        ));
    }

    /// Watches the places of the files of all monitors that are set aside.
    pub(super) fn watch_aside(&mut self) {
        let monitors = &self.group.launch.monitors;
        let paths = self.aside.iter().filter_map(|(index, _)| monitors.get(*index)?.path.parent());
        self.aside_watch = match self.aside.is_empty() {
            true => None,
            false => FileWatch::of(paths)
                .inspect_err(|error| log::warn!("new files of monitors are seen at the next pump: {error}"))
                .ok(),
        };
    }

    /// Has a monitor tried again that is set aside and whose file has changed.
    pub(super) fn take_new_files(&mut self) {
        let is_told = self.aside_watch.as_ref().is_some_and(FileWatch::take);
        if is_told && self.proposal.is_none() && !self.changed_aside().is_empty() {
            self.propose_again();
        }
    }

    /// Indices of the monitors that are set aside and whose file is not the one that was.
    pub(super) fn changed_aside(&self) -> Vec<usize> {
        let monitors = &self.group.launch.monitors;
        let is_new = |(index, identity): &&(usize, Option<Identity>)| {
            let now = monitors.get(*index).and_then(|monitor| Identity::of(&monitor.path).ok());
            now.is_some() && now != *identity
        };
        self.aside.iter().filter(is_new).map(|(index, _)| *index).collect()
    }

    /// Notes the files of monitors that a daemon before this one has set aside.
    pub(super) fn remember_aside(&mut self) {
        let mask = self.group.page.aside();
        for (index, monitor) in self.group.launch.monitors.iter().enumerate() {
            if is_aside(mask, index) {
                self.aside.push((index, Identity::of(&monitor.path).ok()));
            }
        }
        self.watch_aside();
    }

    /// Takes back every monitor whose file is not the one that was set aside.
    pub(super) fn take_back_changed(&mut self) {
        let changed = self.changed_aside();
        let page = self.group.page;
        for index in &changed {
            log::info!(
                "monitor {} has a new file and is tried again",
                self.group.launch.monitors[*index].label
            );
            page.set_aside(page.aside() & !(1 << index));
            self.faults.forgive(*index);
        }
        if !changed.is_empty() {
            self.aside.retain(|(index, _)| !changed.contains(index));
            self.watch_aside();
        }
    }
}
