//! A client on a stream: TCP, or TLS over it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustls::ServerConnection;

use crate::turn::{Client, MAX_PACKET};

/// Bytes that wait for a client which does not read. What comes on top is dropped: voice that waits is
/// worth nothing.
const MAX_WAITING: usize = 32 * 1024;
/// Within this time the first message has come, the handshake of TLS before it.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);
/// A connection without an allocation is closed after this time without a message.
const IDLE: Duration = Duration::from_secs(60);

/// What reading has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readable {
    /// There may be whole packets in the input.
    More,
    /// Nothing more for now.
    Drained,
    /// The client is gone, or does not speak TLS.
    Closed,
}

/// A connection.
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    pub(super) client: Client,
    tls: Option<Box<ServerConnection>>,
    /// What was read and is no whole packet yet.
    pub(super) input: Vec<u8>,
    /// What is written as soon as the socket takes it. With TLS it is rustls that keeps it.
    output: Vec<u8>,
    /// Bytes given to rustls since its output was empty.
    waiting: usize,
    began: Instant,
    heard: Option<Instant>,
    /// Whether the socket is watched for room.
    pub(super) is_blocked: bool,
}

impl Connection {
    pub(super) fn new(
        socket: TcpStream,
        client: Client,
        tls: Option<ServerConnection>,
        now: Instant,
    ) -> Self {
        Self {
            socket,
            client,
            tls: tls.map(|mut tls| {
                tls.set_buffer_limit(Some(2 * MAX_WAITING));
                Box::new(tls)
            }),
            input: Vec::new(),
            output: Vec::new(),
            waiting: 0,
            began: now,
            heard: None,
            is_blocked: false,
        }
    }

    /// Reads once from the socket into the input, which holds at most one packet that is not whole
    /// before.
    pub(super) fn read(&mut self, scratch: &mut [u8]) -> Readable {
        match &mut self.tls {
            None => match self.socket.read(scratch) {
                Ok(0) => Readable::Closed,
                Ok(read) => {
                    self.input.extend_from_slice(scratch.get(..read).unwrap_or_default());
                    Readable::More
                }
                Err(error) => unread(&error),
            },
            Some(tls) => match tls.read_tls(&mut self.socket) {
                Ok(0) => Readable::Closed,
                Ok(_) if tls.process_new_packets().is_err() => {
                    // The alert that says what is wrong.
                    let _ = tls.write_tls(&mut self.socket);
                    Readable::Closed
                }
                Ok(_) => read_plain(tls, &mut self.input, scratch),
                Err(error) => unread(&error),
            },
        }
    }

    /// Takes `used` bytes off the input.
    pub(super) fn consume(&mut self, used: usize) {
        self.input.drain(..used.min(self.input.len()));
    }

    /// A whole packet has come.
    pub(super) fn hear(&mut self, now: Instant) {
        self.heard = Some(now);
    }

    /// Sends a packet. Returns whether there was room for it.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<bool> {
        if self.waiting + bytes.len() > MAX_WAITING {
            return Ok(false);
        }
        match &mut self.tls {
            Some(tls) => {
                tls.writer().write_all(bytes)?;
                self.waiting += bytes.len();
                self.flush()?;
            }
            None if self.output.is_empty() => {
                let written = written(self.socket.write(bytes))?;
                self.output.extend_from_slice(bytes.get(written..).unwrap_or_default());
                self.waiting = self.output.len();
            }
            None => {
                self.output.extend_from_slice(bytes);
                self.waiting = self.output.len();
            }
        }
        Ok(true)
    }

    /// Writes what waits, as far as the socket takes it.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                if written(tls.write_tls(&mut self.socket))? == 0 {
                    return Ok(());
                }
            }
            self.waiting = 0;
        } else if !self.output.is_empty() {
            let written = written(self.socket.write(&self.output))?;
            self.output.drain(..written);
            self.waiting = self.output.len();
        }
        Ok(())
    }

    /// Says whether something waits for the socket to take it.
    pub(super) fn wants_write(&self) -> bool {
        self.tls.as_ref().map_or(!self.output.is_empty(), |tls| tls.wants_write())
    }

    /// Says whether the connection has said nothing for too long.
    pub(super) fn is_idle(&self, now: Instant, has_allocation: bool) -> bool {
        match self.heard {
            None => now >= self.began + FIRST_MESSAGE,
            Some(heard) => !has_allocation && now >= heard + IDLE,
        }
    }
}

/// Takes what rustls has decrypted.
fn read_plain(tls: &mut ServerConnection, input: &mut Vec<u8>, scratch: &mut [u8]) -> Readable {
    loop {
        match tls.reader().read(scratch) {
            Ok(0) => return Readable::Closed,
            Ok(read) => input.extend_from_slice(scratch.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Readable::More,
            Err(_) => return Readable::Closed,
        }
    }
}

fn unread(error: &io::Error) -> Readable {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Readable::Drained,
        _ => Readable::Closed,
    }
}

/// Says how much was written: nothing where the socket is full.
fn written(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
        result => result,
    }
}

/// Bytes that one reading takes at most.
pub(super) const READ: usize = 4 * MAX_PACKET;
