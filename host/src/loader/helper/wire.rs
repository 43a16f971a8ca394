//! What parent and helper say to each other: a length of four bytes, little-endian, then a value in postcard.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use crate::loader::{Description, Identity, Settings};
use crate::options::OptionValue;

/// Longest message; the environment and the options are in it.
const LIMIT_BYTES: usize = 64 << 20;

/// From the parent.
#[derive(Serialize, Deserialize)]
pub(super) enum Request {
    /// Load the library and say what it is.
    Describe {
        /// Absolute path, as bytes.
        path: Vec<u8>,
        /// The monitor's label.
        label: String,
        /// What is logged, as `log::LevelFilter` in numbers.
        max_level: usize,
    },
    /// Let it judge its options.
    Check {
        /// What comes back on success.
        token: [u64; 2],
        /// The options.
        options: Vec<OptionValue>,
        /// The settings.
        settings: Settings,
    },
}

/// From the helper.
#[derive(Serialize, Deserialize)]
pub(super) enum Reply {
    /// The helper runs: what happens from here on is the library's doing.
    Begun,
    /// The library is loaded.
    Described {
        /// What it says of itself.
        description: Description,
        /// What was loaded.
        identity: Identity,
    },
    /// The library has nothing against its options.
    Passed {
        /// The parent's.
        token: [u64; 2],
        /// It is in Rust, and has left nothing in the helper that would go with it: no descriptor, no thread, no child.
        is_clean: bool,
    },
    /// It cannot be loaded, or it refuses its options.
    Failed {
        /// Why, in one line.
        text: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// A record for the parent's log.
    Log {
        /// 1 error to 5 trace.
        level: usize,
        /// Its target.
        target: String,
        /// Its text.
        text: String,
    },
}

/// A message as it travels.
pub(crate) fn frame<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let body = postcard::to_allocvec(message).map_err(io::Error::other)?;
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= LIMIT_BYTES);
    let length = length.ok_or_else(|| io::Error::other("the options and the environment are too long"))?;
    Ok([&length.to_le_bytes(), body.as_slice()].concat())
}

/// Takes the first whole message out of what has arrived; `None` while it is not complete.
pub(crate) fn unframe<T: for<'de> Deserialize<'de>>(inbox: &mut Vec<u8>) -> io::Result<Option<T>> {
    let Some(length) = inbox.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    if length > LIMIT_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let Some(body) = inbox.get(4..4 + length) else { return Ok(None) };
    let message = postcard::from_bytes(body).map_err(io::Error::other)?;
    inbox.drain(..4 + length);
    Ok(Some(message))
}

/// Writes a message and waits until it is out.
pub(crate) fn send<T: Serialize>(channel: &mut impl Write, message: &T) -> io::Result<()> {
    channel.write_all(&frame(message)?)
}

/// Waits for a message; `None` at the end of the channel.
pub(crate) fn receive<T: for<'de> Deserialize<'de>>(channel: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match channel.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > LIMIT_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length];
    channel.read_exact(&mut body)?;
    postcard::from_bytes(&body).map(Some).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_arrives_whole_however_it_is_cut() {
        let bytes = frame(&Reply::Failed { text: "why".into(), hint: None }).unwrap();
        let mut inbox = Vec::new();
        for (at, byte) in bytes.iter().enumerate() {
            assert!(unframe::<Reply>(&mut inbox).unwrap().is_none(), "{at}");
            inbox.push(*byte);
        }
        inbox.push(9);
        let reply: Reply = unframe(&mut inbox).unwrap().unwrap();
        assert!(matches!(reply, Reply::Failed { text, hint: None } if text == "why"));
        assert_eq!(inbox, [9]);
    }

    #[test]
    fn absurd_length_is_an_error() {
        assert!(unframe::<Reply>(&mut vec![0xff; 4]).is_err());
        assert!(receive::<Reply>(&mut [0xff; 8].as_slice()).is_err());
        assert!(receive::<Reply>(&mut [].as_slice()).unwrap().is_none());
    }
}
