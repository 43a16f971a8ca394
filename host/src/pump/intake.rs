//! Where bytes are between a stream and the monitors: taken, delivered from one place in memory, acknowledged.
//!
//! Without a spool a read fills a part of the ring of recent output, which is also what the monitors are given. With
//! one (`--on-crash keep`) they are spliced into the spool, from where they are delivered, and the ring gets a copy.
//! Either way the state page says what is pending, for a successor.

use crate::delivery::{Delivery, Standing};
use crate::recent::{CHUNK_BYTES, Ring};
use crate::spool::{self, Spool};
use crate::sys::fd;
use nix::errno::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes of one stream that were taken and are to be delivered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk<'a> {
    /// 0 stdout, 1 stderr.
    pub(super) stream: usize,
    /// Offset of the first byte in the stream.
    pub(super) offset: u64,
    pub(super) bytes: &'a [u8],
}

/// How much a stream gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) count: usize,
    /// How much there was room for.
    pub(super) room: usize,
}

/// Both streams, and what is pending of them: one chunk at most.
pub(super) struct Intake {
    /// Reading ends of stdout and stderr.
    streams: [OwnedFd; 2],
    delivery: Delivery,
    /// Made at the first byte.
    ring: Option<Ring>,
    /// The file of the recent output, until the ring is made.
    recent: Option<File>,
    spool: Option<Spool>,
}

impl Intake {
    /// Goes on where the pump before stopped, which must have ended.
    pub(super) fn new(
        streams: [OwnedFd; 2],
        recent: Option<File>,
        spool: Option<OwnedFd>,
        delivery: Delivery,
    ) -> io::Result<Self> {
        let spool = spool.map(|file| Spool::open(file, delivery)).transpose()?;
        let mut intake = Self { streams, delivery, ring: None, recent, spool };
        if intake.spool.is_none() && delivery.standing().length > 0 {
            intake.find_pending()?;
        }
        Ok(intake)
    }

    /// Looks whether the ring still holds what the pump before had read and not delivered to everybody.
    fn find_pending(&mut self) -> io::Result<()> {
        let standing = self.delivery.standing();
        let ring = if self.recent.is_some() { Some(self.make_ring()?) } else { None };
        let is_there = ring.as_ref().is_some_and(|ring| ring.total() == standing.from + standing.length);
        self.ring = ring;
        if !is_there {
            self.acknowledge();
        }
        Ok(())
    }

    /// Whether bytes are acknowledged only when every monitor's hook has returned.
    pub(super) fn has_spool(&self) -> bool {
        self.spool.is_some()
    }

    pub(super) fn stream(&self, stream: usize) -> BorrowedFd<'_> {
        self.streams[stream].as_fd()
    }

    /// stdout and stderr.
    pub(super) fn streams(&self) -> [BorrowedFd<'_>; 2] {
        self.streams.each_ref().map(AsFd::as_fd)
    }

    /// How many bytes wait in a stream.
    pub(super) fn waiting(&self, stream: usize) -> io::Result<usize> {
        fd::waiting(&self.streams[stream])
    }

    /// Takes at most this much of a stream; it is pending then. Nothing must be pending before.
    pub(super) fn take(&mut self, stream: usize, most: usize) -> io::Result<Taken> {
        let mut ring = match self.ring.take() {
            Some(ring) => ring,
            // A group that never writes needs none.
            None if self.waiting(stream)? == 0 => {
                return Ok(Taken { count: 0, room: most.min(CHUNK_BYTES) });
            }
            None => self.make_ring()?,
        };
        let result = match &mut self.spool {
            Some(spool) => splice(spool, &mut ring, &self.streams[stream], stream, most),
            None => self.read(&mut ring, stream, most),
        };
        self.ring = Some(ring);
        result
    }

    fn make_ring(&mut self) -> io::Result<Ring> {
        match self.recent.take().map(Ring::new) {
            Some(Ok(ring)) => return Ok(ring),
            Some(Err(error)) => log::warn!("`logs` will show nothing: {error}"),
            None => {}
        }
        Ring::private(0)
    }

    /// There is nothing to read for now: gives memory back. Nothing may be pending.
    pub(super) fn rest(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.trim();
        }
    }

    fn read(&mut self, ring: &mut Ring, stream: usize, most: usize) -> io::Result<Taken> {
        let (count, room) = loop {
            let place = ring.place(most);
            let room = place.len();
            match nix::unistd::read(&self.streams[stream], place) {
                Ok(count) => break (count, room),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break (0, room),
                Err(Errno::EFAULT) if !ring.is_private() => find_room(ring)?,
                Err(error) => return Err(error.into()),
            }
        };
        if count > 0 {
            let standing = self.delivery.standing();
            let pending = Standing { from: ring.total(), stream, length: count as u64, ..standing };
            ring.took(count);
            self.delivery.commit(pending);
        }
        Ok(Taken { count, room })
    }

    /// What is pending.
    pub(super) fn pending(&mut self) -> Option<Chunk<'_>> {
        let standing = self.delivery.standing();
        let bytes = match &mut self.spool {
            Some(spool) => spool.bytes(),
            None if standing.length == 0 => &[],
            None => self.ring.as_mut()?.last(usize::try_from(standing.length).ok()?),
        };
        let (stream, offset) = (standing.stream, standing.offsets[standing.stream]);
        (!bytes.is_empty()).then_some(Chunk { stream, offset, bytes })
    }

    /// What is pending is delivered to everybody.
    pub(super) fn acknowledge(&mut self) {
        if let Some(spool) = &mut self.spool {
            return spool.acknowledge();
        }
        let mut standing = self.delivery.standing();
        standing.offsets[standing.stream] += standing.length;
        self.delivery.commit(Standing { length: 0, ..standing });
    }
}

/// Takes by way of the spool; `logs` gets a copy.
fn splice(
    spool: &mut Spool,
    ring: &mut Ring,
    pipe: &OwnedFd,
    stream: usize,
    most: usize,
) -> io::Result<Taken> {
    let room = most.min(spool::CHUNK_BYTES);
    let count = spool.take(pipe, stream, room)?;
    let mut left = spool.bytes();
    while let Err(error) = ring.copy(&mut left) {
        if ring.is_private() {
            return Err(error);
        }
        find_room(ring)?;
    }
    Ok(Taken { count, room })
}

/// The file of the recent output has no room for its pages: makes some, or takes memory of this process's own from now
/// on.
fn find_room(ring: &mut Ring) -> io::Result<()> {
    if !ring.make_room() {
        log::warn!("`logs` shows nothing new: there is no room in the runtime directory");
        *ring = Ring::private(ring.total())?;
    }
    Ok(())
}
