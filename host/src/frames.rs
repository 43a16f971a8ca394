//! What a role and whoever started it say to each other: frames on a socket pair, whose end of file says that
//! the other one is gone.

use crate::reload::Setup;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// The longest frame, in bytes, that is accepted.
const MOST: usize = 64 * 1024;

/// The longest text in a frame, in characters of at most four bytes.
const TEXT_CHARS: usize = 4096;

/// One thing said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Frame {
    /// The process was executed.
    Started { process_pid: i32, pump_pid: i32, daemon_pid: i32 },
    /// The start failed; `status` is the exit status of `start`.
    Failed { status: u8, text: String, hint: Option<String> },
    /// The group is about to end: nobody is to be respawned.
    Ending,
    /// The group has failed: the process died too often. Nobody is to be respawned.
    GivingUp { reason: String },
    /// The sender got SIGTERM.
    Terminated,
    /// The group has ended; the exit status of the process, as a shell has it.
    Over { status: u8 },
    /// Reap this process, whose end the pump has dealt with: it is a child of the daemon.
    Reap { process_pid: i32 },
    /// End the group.
    Stop,
    /// End the process at once.
    Kill,
    /// This set-up is wanted in the place of the group's; `id` is the asker's.
    Reload { id: u64, setup: Setup },
    /// What becomes of that request: why it is refused, if it is.
    ReloadAnswer { id: u64, refusal: Option<String> },
    /// Make way for another pump.
    Yield,
    /// The sender has made way and stands by.
    Yielded,
    /// The other pump is there.
    Dismissed,
    /// All monitors are ready.
    Ready,
    /// The sender reads the streams no more.
    Unrelayed,
}

/// One end of the socket pair.
#[derive(Debug)]
pub(crate) struct Link {
    stream: UnixStream,
    received: Vec<u8>,
}

impl Link {
    /// Takes an end over.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        let stream = UnixStream::from(fd);
        stream.set_nonblocking(true)?;
        Ok(Self { stream, received: Vec::new() })
    }

    /// Says something. That nobody listens any more is noticed when reading, not here.
    pub(crate) fn send(&mut self, frame: &Frame) {
        let bytes = encode(frame);
        if let Err(error) = self.stream.write_all(&bytes) {
            log::debug!("telling {frame:?}: {error}");
        }
    }

    /// Whether nothing is on its way that this process alone holds.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.received.is_empty()
    }

    /// Gives back what was taken too early; it comes first the next time.
    pub(crate) fn put_back(&mut self, frames: &[Frame]) {
        let mut bytes: Vec<u8> = frames.iter().flat_map(encode).collect();
        bytes.append(&mut self.received);
        self.received = bytes;
    }

    /// Takes what was said, and whether the other end is gone.
    // Its buffer is not to be a part of the stack of whoever sleeps.
    #[inline(never)]
    pub(crate) fn receive(&mut self) -> (Vec<Frame>, bool) {
        let mut gone = false;
        let mut chunk = [0; 4096];
        while self.received.len() < MOST {
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    gone = true;
                    break;
                }
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    gone = true;
                    break;
                }
            }
        }
        let mut frames = Vec::new();
        while let Some((frame, length)) = decode(&self.received) {
            self.received.drain(..length);
            frames.extend(frame);
        }
        (frames, gone || self.received.len() >= MOST)
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn encode(frame: &Frame) -> Vec<u8> {
    let mut body = postcard::to_allocvec(&shortened(frame)).expect("plain data can be encoded");
    let length = u32::try_from(body.len()).expect("its texts were shortened");
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.append(&mut body);
    bytes
}

/// The frame, with the beginnings of texts that are too long for one.
fn shortened(frame: &Frame) -> Frame {
    let begin = |text: &str| text.chars().take(TEXT_CHARS).collect::<String>();
    match frame {
        Frame::Failed { status, text, hint } => {
            Frame::Failed { status: *status, text: begin(text), hint: hint.as_deref().map(begin) }
        }
        Frame::GivingUp { reason } => Frame::GivingUp { reason: begin(reason) },
        Frame::ReloadAnswer { id, refusal } => {
            Frame::ReloadAnswer { id: *id, refusal: refusal.as_deref().map(begin) }
        }
        Frame::Started { .. }
        | Frame::Ending
        | Frame::Terminated
        | Frame::Over { .. }
        | Frame::Reap { .. }
        | Frame::Stop
        | Frame::Kill
        | Frame::Reload { .. }
        | Frame::Yield
        | Frame::Yielded
        | Frame::Dismissed
        | Frame::Ready
        | Frame::Unrelayed => frame.clone(),
    }
}

/// The first whole frame (`None`: an unknown one) and its length with the head.
fn decode(bytes: &[u8]) -> Option<(Option<Frame>, usize)> {
    let head: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
    let length = 4 + usize::try_from(u32::from_le_bytes(head)).ok()?.min(MOST);
    let body = bytes.get(4..length)?;
    Some((postcard::from_bytes(body).ok(), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_in_order_and_the_end_is_noticed() {
        let (one, other) = crate::sys::socket::pair().unwrap();
        let (mut one, mut other) = (Link::new(one).unwrap(), Link::new(other).unwrap());
        one.send(&Frame::Ending);
        one.send(&Frame::Started { process_pid: 7, pump_pid: 6, daemon_pid: 0 });
        drop(one);
        let (frames, gone) = other.receive();
        assert_eq!(frames, [Frame::Ending, Frame::Started { process_pid: 7, pump_pid: 6, daemon_pid: 0 }]);
        assert!(gone);
    }

    #[test]
    fn what_was_taken_too_early_comes_again() {
        let (one, other) = crate::sys::socket::pair().unwrap();
        let (mut one, mut other) = (Link::new(one).unwrap(), Link::new(other).unwrap());
        one.send(&Frame::Ending);
        one.send(&Frame::Over { status: 3 });
        drop(one);
        let (frames, _) = other.receive();
        other.put_back(&frames[1..]);
        assert_eq!(other.receive(), (vec![Frame::Over { status: 3 }], true));
    }

    #[test]
    fn a_text_that_is_too_long_arrives_with_its_beginning() {
        let (one, other) = crate::sys::socket::pair().unwrap();
        let (mut one, mut other) = (Link::new(one).unwrap(), Link::new(other).unwrap());
        one.send(&Frame::Failed { status: 125, text: "why ".repeat(100_000), hint: None });
        let (frames, _) = other.receive();
        assert!(matches!(&frames[..], [Frame::Failed { text, .. }] if text.starts_with("why why")));
    }

    #[test]
    fn half_a_frame_waits_for_its_rest() {
        let bytes = encode(&Frame::Failed { status: 126, text: "no".into(), hint: None });
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_none());
        }
        assert!(decode(&bytes).is_some());
    }
}
