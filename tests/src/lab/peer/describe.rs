//! Session descriptions as peers write them.

use std::{fmt, net::SocketAddrV4};

/// A description of one audio stream in A-law, changed until it is odd enough.
#[derive(Debug, Clone)]
pub struct Describe {
    rtp: SocketAddrV4,
    version: u32,
    connection: Option<String>,
    profile: &'static str,
    events: Option<u8>,
    packet_ms: u32,
    direction: &'static str,
    more: String,
}

impl Describe {
    /// A-law at `rtp` in packets of 20 ms, with telephone events of type 101.
    #[must_use]
    pub fn at(rtp: SocketAddrV4) -> Self {
        Self {
            rtp,
            version: 1,
            connection: None,
            profile: "RTP/AVP",
            events: Some(101),
            packet_ms: 20,
            direction: "sendrecv",
            more: String::new(),
        }
    }

    /// The payload type of telephone events; `None` for no such events.
    #[must_use]
    pub fn events(self, payload: Option<u8>) -> Self {
        Self { events: payload, ..self }
    }

    /// The packet time that is wished for.
    #[must_use]
    pub fn packets_of(self, packet_ms: u32) -> Self {
        Self { packet_ms, ..self }
    }

    /// Another direction and with it another version (RFC 3264 8).
    #[must_use]
    pub fn directed(self, direction: &'static str) -> Self {
        Self { direction, version: self.version + 1, ..self }
    }

    /// Another address in `c=` than where media is, such as `0.0.0.0`.
    #[must_use]
    pub fn connection(self, address: &str) -> Self {
        Self { connection: Some(address.to_owned()), ..self }
    }

    /// SRTP with a key in the description (RFC 4568).
    #[must_use]
    pub fn protected(self, crypto: &str) -> Self {
        let more = format!("{}a=crypto:{crypto}\r\n", self.more);
        Self { profile: "RTP/SAVP", more, ..self }
    }

    /// One more line.
    #[must_use]
    pub fn line(self, line: &str) -> Self {
        Self { more: format!("{}{line}\r\n", self.more), ..self }
    }
}

impl fmt::Display for Describe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, port) = (self.rtp.ip(), self.rtp.port());
        let connection = self.connection.clone().unwrap_or_else(|| address.to_string());
        write!(
            f,
            "v=0\r\no=peer 99 {} IN IP4 {address}\r\ns=-\r\nc=IN IP4 {connection}\r\nt=0 0\r\n",
            self.version
        )?;
        write!(f, "m=audio {port} {} 8", self.profile)?;
        if let Some(payload) = self.events {
            write!(f, " {payload}")?;
        }
        write!(f, "\r\na=rtpmap:8 PCMA/8000\r\n")?;
        if let Some(payload) = self.events {
            write!(f, "a=rtpmap:{payload} telephone-event/8000\r\na=fmtp:{payload} 0-15\r\n")?;
        }
        write!(f, "a=ptime:{}\r\na={}\r\n{}", self.packet_ms, self.direction, self.more)
    }
}
