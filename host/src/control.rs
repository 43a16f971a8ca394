//! The control socket: one line of JSON each way.
//!
//! A request is `{"v":1,"command":"stop"}`, `{"v":1,"command":"restart"}` or
//! `{"v":1,"command":{"signal":15}}`; the answer `{"v":1,"ok":true}` or `{"v":1,"ok":false,"error":"…"}`. `stop`
//! is answered when it is noted, `restart` when the new process runs, `signal` when it was sent. `arguments` is
//! answered with `"arguments":["start",…]`, which make this group again. `{"reload":{…}}` is answered when the reload is
//! under way; what comes of it is on the state page.

mod client;
mod server;

pub(crate) use client::{ClientError, request};
pub(crate) use server::{ClientId, Server};

use crate::reload;
use serde::{Deserialize, Serialize};

/// Version of the protocol.
const VERSION: u32 = 1;
/// The longest line that is accepted, in bytes.
const LINE_BYTES: usize = 64 * 1024;

/// What is wanted of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Command {
    Stop,
    Restart,
    Signal(i32),
    /// The arguments of the `start` that makes this group.
    Arguments,
    /// Another set-up in the place of the group's.
    Reload(reload::Request),
}

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    v: u32,
    command: Command,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    v: u32,
    ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    arguments: Option<Vec<String>>,
}
