//! The place of a group that is about to be: its name, its files, and the descriptors that its roles live with.

use super::{StartError, attempt};
use crate::attached::{Attached, Pipes};
use crate::frames::Link;
use crate::launch::{Identity, Strategy, number};
use crate::loader::chain;
use crate::places::{self, Claim, GroupFiles, PlaceError};
use crate::role::STDERR;
use crate::state::{Marks, Member, Page, Snapshot};
use crate::sys::{birth, fd};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

/// What is made for a group before it lives. Dropping it removes the files.
pub(super) struct Place {
    pub(super) page: Page,
    page_file: File,
    files: Files,
    listener: Option<OwnedFd>,
    /// Reading and writing end of stdout and of stderr.
    streams: [(OwnedFd, OwnedFd); 2],
    stderr: Stderr,
}

/// The group's files and its lock, if it has any. Dropping this removes them.
struct Files(Option<(GroupFiles, File)>);

impl Drop for Files {
    fn drop(&mut self) {
        if let Some((files, lock)) = &self.0 {
            files.remove(lock);
        }
    }
}

/// Where the stderr of the pump goes.
enum Stderr {
    /// To the parent, as more does.
    Parent(Pipes),
    /// Into a file of the group.
    File(File),
    /// To the daemon, or nowhere.
    Elsewhere,
}

/// What a place is made for.
pub(super) struct Needs<'a> {
    pub(super) name: &'a str,
    pub(super) strategy: Strategy,
    /// Who the process is to be, if it is somebody else.
    pub(super) identity: Option<&'a Identity>,
    /// Development: output is relayed to this program's own.
    pub(super) relay: bool,
}

/// A name that is taken, with the first of its files. Dropping it gives it back.
pub(super) struct Name {
    files: Files,
    listener: Option<OwnedFd>,
    page_file: File,
}

impl Name {
    /// Takes the name; what an earlier group of that name has left is ended and removed. Development can do without
    /// files where none can be made.
    pub(super) fn take(needs: &Needs<'_>) -> Result<Self, StartError> {
        let claim = places::runtime_directory().and_then(|runtime| places::claim(&runtime, needs.name));
        match claim {
            Ok(claim) => Ok(claim.into()),
            Err(error @ PlaceError::System { .. }) if needs.strategy == Strategy::Development => {
                log::warn!("{}: this group cannot be controlled by name", chain(&error));
                let page_file = File::from(attempt("make the state page", fd::unlinked_page())?);
                Ok(Self { files: Files(None), listener: None, page_file })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes a name of which nothing is there, not even of an earlier group, and does this as soon as it is locked.
    /// `None`: it is not as simple as that.
    pub(super) fn take_unused(needs: &Needs<'_>, locked: impl FnOnce(&File)) -> Option<Self> {
        let runtime = places::settled_runtime_directory()?;
        places::claim_unused(&runtime, needs.name, locked).map(Self::from)
    }

    /// The lock, if there are files.
    pub(super) fn lock(&self) -> Option<&File> {
        self.files.0.as_ref().map(|(_, lock)| lock)
    }

    /// Makes the rest of what its group lives with.
    pub(super) fn furnish(self, needs: &Needs<'_>) -> Result<Place, StartError> {
        let Self { files, listener, page_file } = self;
        let page = places::initialise_page(&page_file)?;
        page.set_own(Member::Launcher);
        let since = birth::tick_now();
        let streams = [attempt("make a pipe", fd::pipe())?, attempt("make a pipe", fd::pipe())?];
        page.set_marks(Marks {
            pipes: [fd::inode(&streams[0].1), fd::inode(&streams[1].1)],
            since,
            uid: needs.identity.map_or_else(|| nix::unistd::geteuid().as_raw(), |identity| identity.uid),
        });
        if let Some(identity) = needs.identity {
            // So that the user may open /dev/stdout and /dev/stderr.
            for (_, writer) in &streams {
                attempt("give the streams to the user", fd::give(writer, identity.uid, identity.gid))?;
            }
        }
        let stderr = match (needs.strategy, &files.0) {
            (Strategy::Development, _) => {
                Stderr::Parent(attempt("make the pipes of the parent", Attached::pipes(needs.relay))?)
            }
            (Strategy::Unattached, Some((files, _))) => {
                let open = File::options().append(true).read(true).create(true).open(files.stderr());
                Stderr::File(attempt("make the file of the pump's stderr", open)?)
            }
            (Strategy::Unattached | Strategy::Daemon, _) => Stderr::Elsewhere,
        };
        Ok(Place { page, page_file, files, listener, streams, stderr })
    }
}

impl From<Claim> for Name {
    fn from(Claim { files, lock, listener, page_file }: Claim) -> Self {
        Self { files: Files(Some((files, lock))), listener: Some(listener.into()), page_file }
    }
}

impl Place {
    /// The group's files, if it has any.
    pub(super) fn files(&self) -> Option<&GroupFiles> {
        self.files.0.as_ref().map(|(files, _)| files)
    }

    /// What the first role gets of it.
    pub(super) fn descriptors(&self) -> Vec<(BorrowedFd<'_>, RawFd)> {
        let mut descriptors = vec![
            (self.page_file.as_fd(), number::PAGE),
            (self.streams[0].0.as_fd(), number::STDOUT.0),
            (self.streams[0].1.as_fd(), number::STDOUT.1),
            (self.streams[1].0.as_fd(), number::STDERR.0),
            (self.streams[1].1.as_fd(), number::STDERR.1),
        ];
        descriptors.extend(self.files.0.as_ref().map(|(_, lock)| (lock.as_fd(), number::LOCK)));
        descriptors.extend(self.listener.as_ref().map(|fd| (fd.as_fd(), number::LISTENER)));
        match &self.stderr {
            Stderr::Parent(pipes) => {
                descriptors.extend(pipes.descriptors());
                descriptors.push((pipes.stderr(), STDERR));
            }
            Stderr::File(file) => {
                descriptors.extend([STDERR, number::CRASH].map(|number| (file.as_fd(), number)))
            }
            Stderr::Elsewhere => {}
        }
        descriptors
    }

    /// The group lives: the files are its own now. Development: ties it to this program.
    pub(super) fn settle(mut self, link: Link, pump: i32) -> Option<Attached> {
        let files = self.files.0.take();
        match self.stderr {
            Stderr::Parent(pipes) => {
                Some(pipes.attach(link, pump, files, self.streams.map(|(reader, _)| reader)))
            }
            Stderr::File(_) | Stderr::Elsewhere => None,
        }
    }

    /// The group does not live, and its roles are gone: ends the process that they have left if they were killed.
    pub(super) fn end_process(&self) {
        if let (Some(files), Some(page)) = (self.files(), Snapshot::of_file(&self.page_file))
            && !page.has_roles_besides_launcher()
        {
            places::end_orphan(files, &page);
        }
    }

    /// The group does not live, and its roles are gone: the last line of what its pump has written to its stderr.
    pub(super) fn last_line(self, pump: i32) -> Option<String> {
        match (self.stderr, &self.files.0) {
            (Stderr::Parent(pipes), _) => places::last_line(&pipes.give_up(pump)),
            (Stderr::File(_) | Stderr::Elsewhere, Some((files, _))) => files.last_stderr_line(),
            (Stderr::File(_) | Stderr::Elsewhere, None) => None,
        }
    }
}
