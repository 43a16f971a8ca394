//! A role's side of the control socket. Bounded in everything, and it never waits for a client.

use super::{Answer, Command, LINE_BYTES, Request, VERSION};
use nix::poll::{PollFd, PollFlags};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

/// How many clients are served at once; one more displaces the oldest that has asked nothing yet.
const CLIENTS: usize = 32;

/// Which client asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientId(u64);

#[derive(Debug)]
struct Client {
    id: ClientId,
    stream: UnixStream,
    received: Vec<u8>,
    asked: bool,
}

/// The listening socket and its clients.
#[derive(Debug, Default)]
pub(crate) struct Server {
    listener: Option<UnixListener>,
    clients: Vec<Client>,
    next: u64,
}

impl Server {
    /// Serves this listening socket, which the roles of a group share; none: nobody can ask.
    pub(crate) fn new(listener: Option<OwnedFd>) -> Self {
        let listener = listener.map(UnixListener::from);
        Self { listener, ..Self::default() }
    }

    /// What to wait for; `accepting`: new clients too.
    pub(crate) fn poll_fds(&self, accepting: bool) -> Vec<PollFd<'_>> {
        let listener = self.listener.as_ref().filter(|_| accepting).map(|listener| listener.as_fd());
        let clients = self.clients.iter().map(|client| client.stream.as_fd());
        listener.into_iter().chain(clients).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect()
    }

    /// Takes new clients and what the old ones ask.
    pub(crate) fn take(&mut self, accepting: bool) -> Vec<(ClientId, Command)> {
        if accepting {
            self.accept();
        }
        let mut asked = Vec::new();
        let mut gone = Vec::new();
        for client in &mut self.clients {
            match client.read() {
                Ok(Some(command)) => asked.push((client.id, command)),
                Ok(None) => {}
                Err(error) => {
                    log::debug!("a control client: {error}");
                    gone.push(client.id);
                }
            }
        }
        self.clients.retain(|client| !gone.contains(&client.id));
        asked
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        while let Ok((stream, _)) = listener.accept() {
            let allowed = crate::sys::socket::peer_uid(&stream)
                .is_ok_and(|uid| uid == 0 || uid == nix::unistd::geteuid().as_raw());
            if !allowed || stream.set_nonblocking(true).is_err() {
                continue;
            }
            if self.clients.len() >= CLIENTS {
                let oldest = self.clients.iter().position(|client| !client.asked).unwrap_or(0);
                self.clients.remove(oldest);
            }
            self.next += 1;
            self.clients.push(Client { id: ClientId(self.next), stream, received: Vec::new(), asked: false });
        }
    }

    /// Answers a client, if it is still there.
    pub(crate) fn answer(&mut self, id: ClientId, result: Result<(), String>) {
        self.answer_with(id, result.map(|()| None));
    }

    /// Answers a client with the arguments it has asked for.
    pub(crate) fn answer_arguments(&mut self, id: ClientId, arguments: Vec<String>) {
        self.answer_with(id, Ok(Some(arguments)));
    }

    fn answer_with(&mut self, id: ClientId, result: Result<Option<Vec<String>>, String>) {
        if let Some(client) = self.clients.iter_mut().find(|client| client.id == id) {
            client.answer(result);
        }
    }
}

impl Client {
    fn read(&mut self) -> io::Result<Option<Command>> {
        let mut chunk = [0; 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            if self.received.len() > LINE_BYTES {
                self.answer(Err(format!("a request is at most {LINE_BYTES} bytes")));
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        let Some(end) = self.received.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line: Vec<u8> = self.received.drain(..=end).collect();
        match serde_json::from_slice::<Request>(&line) {
            Ok(request) if request.v == VERSION => {
                self.asked = true;
                Ok(Some(request.command))
            }
            Ok(request) => {
                self.answer(Err(format!("version {} is not spoken here, {VERSION} is", request.v)));
                Ok(None)
            }
            Err(error) => {
                self.answer(Err(format!("no request: {error}")));
                Err(io::ErrorKind::InvalidData.into())
            }
        }
    }

    /// A client that does not read its answer loses it.
    fn answer(&mut self, result: Result<Option<Vec<String>>, String>) {
        let (arguments, error) = match result {
            Ok(arguments) => (arguments, None),
            Err(error) => (None, Some(error)),
        };
        let answer = Answer { v: VERSION, ok: error.is_none(), error, arguments };
        let mut line = serde_json::to_vec(&answer).unwrap_or_default();
        line.push(b'\n');
        if let Err(error) = self.stream.write_all(&line) {
            log::debug!("answering a control client: {error}");
        }
    }
}
