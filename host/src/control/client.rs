//! The asking side of the control socket.

use super::{Answer, Command, LINE_BYTES, Request, VERSION};
use crate::places::{CONTROL, GroupFiles};
use crate::sys::socket;
use std::io::{self, BufRead, BufReader, Write};
use std::time::Duration;

/// Why a group did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    #[error("nobody answers")]
    Unreachable(#[source] io::Error),
    /// The role that had taken the request is gone; another one may take it.
    #[error("the answer did not come")]
    Broken(#[source] io::Error),
    #[error("{0}")]
    Refused(String),
    #[error("the request takes {0} bytes, and at most {LINE_BYTES} are accepted")]
    TooLong(usize),
}

/// Asks for something and waits as long as `patience` for the answer, which holds arguments if these were asked
/// for.
pub(crate) fn request(
    files: &GroupFiles,
    command: Command,
    patience: Duration,
) -> Result<Vec<String>, ClientError> {
    let broken = ClientError::Broken;
    let mut line = serde_json::to_vec(&Request { v: VERSION, command }).map_err(|e| broken(e.into()))?;
    line.push(b'\n');
    if line.len() > LINE_BYTES {
        return Err(ClientError::TooLong(line.len()));
    }
    let mut stream = socket::connect(&files.directory, CONTROL).map_err(ClientError::Unreachable)?;
    stream.set_read_timeout(Some(patience)).map_err(broken)?;
    stream.write_all(&line).map_err(broken)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).map_err(|error| {
        let is_late = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        if is_late { ClientError::Late(patience) } else { broken(error) }
    })?;
    if answer.is_empty() {
        return Err(broken(io::ErrorKind::UnexpectedEof.into()));
    }
    let answer: Answer = serde_json::from_str(&answer).map_err(|e| broken(e.into()))?;
    if answer.ok {
        Ok(answer.arguments.unwrap_or_default())
    } else {
        Err(ClientError::Refused(answer.error.unwrap_or_default()))
    }
}
