//! Messages out of a byte stream (RFC 3261 18.3) and the keep-alives between them (RFC 5626 4.4.1).

use bytes::{Buf, Bytes, BytesMut};

use super::limits::MessageLimits;
use super::tolerance::{Head, Refusal, Tolerance};

/// Something whole that a stream carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Framed {
    /// The bytes of one message, still to be passed through
    /// [`tolerate`](super::tolerance::tolerate).
    Message(Bytes),
    /// A double CRLF: the peer wants a single CRLF back.
    Ping,
    /// The single CRLF that answers our own ping.
    Pong,
}

/// Cuts a stream into messages by their Content-Length.
///
/// Whoever polls until nothing whole is left holds at most one unfinished message, and the limits
/// bound that.
#[derive(Debug)]
pub struct Framer {
    buffer: BytesMut,
    limits: MessageLimits,
    tolerance: Tolerance,
    /// Whole length of the message at the front, once its header is complete.
    message_length: Option<usize>,
    /// Bytes of the buffer in which no end of a header was found.
    scanned: usize,
    /// Whether an unanswered empty line precedes: the first half of a ping.
    half_ping: bool,
    /// A ping of ours has no answer yet.
    pong_expected: bool,
    failed: Option<Refusal>,
}

impl Framer {
    /// Builds a framer for one connection.
    pub fn new(limits: MessageLimits, tolerance: Tolerance) -> Self {
        Self {
            buffer: BytesMut::new(),
            limits,
            tolerance,
            message_length: None,
            scanned: 0,
            half_ping: false,
            pong_expected: false,
            failed: None,
        }
    }

    /// Takes in bytes as they arrived. After a refusal they are thrown away.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Notes that a ping (`CRLF CRLF`) was sent: the next lone CRLF between messages is its pong.
    pub fn expect_pong(&mut self) {
        self.pong_expected = true;
    }

    /// Returns the bytes held.
    #[cfg(test)]
    pub(crate) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Returns the beginning of the message at the front, so that a refusal can be answered.
    pub fn head(&self) -> &[u8] {
        &self.buffer
    }

    /// Returns the next whole message or keep-alive; `None` until more bytes come.
    ///
    /// # Errors
    /// A refusal is final. Where the next message would begin cannot be known any more, so the
    /// connection is to be closed; every later call returns the same refusal.
    pub fn poll(&mut self) -> Result<Option<Framed>, Refusal> {
        if let Some(refusal) = self.failed {
            return Err(refusal);
        }
        self.advance().inspect_err(|&refusal| self.failed = Some(refusal))
    }

    fn advance(&mut self) -> Result<Option<Framed>, Refusal> {
        if self.message_length.is_none() {
            if let Some(keep_alive) = self.skip_empty_lines()? {
                return Ok(Some(keep_alive));
            }
            let Some(first) = self.buffer.first() else { return Ok(None) };
            // Neither TLS nor binary rubbish is waited for.
            if *first != b'\r' && !first.is_ascii_graphic() {
                return Err(Refusal::NotSip);
            }
            self.message_length = self.find_message()?;
        }
        match self.message_length {
            Some(length) if self.buffer.len() >= length => {
                self.message_length = None;
                self.scanned = 0;
                self.half_ping = false;
                Ok(Some(Framed::Message(self.buffer.split_to(length).freeze())))
            }
            _ => Ok(None),
        }
    }

    /// Drops empty lines in front of a message; two of them in a row are a ping.
    fn skip_empty_lines(&mut self) -> Result<Option<Framed>, Refusal> {
        loop {
            let length = match self.buffer.as_ref() {
                [b'\r', b'\n', ..] => 2,
                [b'\n', ..] if self.tolerance.bare_lf => 1,
                [b'\r', other, ..] if *other != b'\n' => return Err(Refusal::HeaderCharacter),
                _ => return Ok(None),
            };
            self.buffer.advance(length);
            // Two in a row are the peer's own ping, whatever we wait for.
            let lone = !self.half_ping && !matches!(self.buffer.first(), Some(b'\r' | b'\n'));
            if lone && std::mem::take(&mut self.pong_expected) {
                return Ok(Some(Framed::Pong));
            }
            self.half_ping = !self.half_ping;
            if !self.half_ping {
                return Ok(Some(Framed::Ping));
            }
        }
    }

    /// Looks for the end of the header and computes where the message ends.
    fn find_message(&mut self) -> Result<Option<usize>, Refusal> {
        if !self.header_ends() {
            let too_large = self.buffer.len() > self.limits.header_bytes;
            return if too_large { Err(Refusal::HeaderTooLarge) } else { Ok(None) };
        }
        let head = Head::read(&self.buffer, &self.limits)?;
        let length = head.content_length.ok_or(Refusal::ContentLengthMissing)?;
        if length > self.limits.body_bytes {
            return Err(Refusal::BodyTooLarge);
        }
        Ok(Some(head.end + length))
    }

    /// Says whether the buffer holds an empty line. Looks at each byte once.
    fn header_ends(&mut self) -> bool {
        let window = self.buffer.len().min(self.limits.header_bytes + 1);
        while let Some(offset) =
            self.buffer.get(self.scanned..window).and_then(|b| b.iter().position(|&b| b == b'\n'))
        {
            let next = self.scanned + offset + 1;
            match self.buffer.get(next..) {
                Some([b'\n', ..] | [b'\r', b'\n', ..]) => return true,
                // Not enough to tell: come back to this line end.
                Some([] | [b'\r']) => {
                    self.scanned = next - 1;
                    return false;
                }
                _ => self.scanned = next,
            }
        }
        self.scanned = self.scanned.max(window);
        false
    }
}

#[cfg(test)]
#[path = "framer_tests.rs"]
mod tests;
