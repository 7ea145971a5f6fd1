//! One packet of HEP version 3, the Extensible Encapsulation Protocol of HOMER and its like: a header, and chunks of
//! vendor, type, length and value.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// What a packet begins with; its length follows in two octets.
const MAGIC: &[u8; 4] = b"HEP3";
const HEADER: usize = 6;
/// Vendor, type and length of a chunk, which count in its length.
const CHUNK_HEADER: usize = 6;
/// Vendor of the chunks that everybody knows.
const GENERIC: u16 = 0;
/// The largest payload of UDP over IPv4: 65,535 octets, less the headers of IP and UDP.
pub(super) const MAX_PACKET: usize = 65_507;

/// IP protocol numbers.
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// Address families, as `AF_INET` and `AF_INET6` of Linux.
const FAMILY_4: u8 = 2;
const FAMILY_6: u8 = 10;

/// The generic chunks, in the order in which they are written.
mod chunk {
    pub(super) const FAMILY: u16 = 0x0001;
    pub(super) const PROTOCOL: u16 = 0x0002;
    pub(super) const SOURCE_4: u16 = 0x0003;
    pub(super) const DESTINATION_4: u16 = 0x0004;
    pub(super) const SOURCE_6: u16 = 0x0005;
    pub(super) const DESTINATION_6: u16 = 0x0006;
    pub(super) const SOURCE_PORT: u16 = 0x0007;
    pub(super) const DESTINATION_PORT: u16 = 0x0008;
    pub(super) const SECONDS: u16 = 0x0009;
    pub(super) const MICROSECONDS: u16 = 0x000a;
    pub(super) const KIND: u16 = 0x000b;
    pub(super) const CAPTURE_ID: u16 = 0x000c;
    pub(super) const KEY: u16 = 0x000e;
    pub(super) const PAYLOAD: u16 = 0x000f;
    pub(super) const CORRELATION: u16 = 0x0011;
}

/// What a payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A SIP message.
    Sip,
    /// Figures of a stream of RTP, in JSON with the names that `captagent` gave them.
    RtpReport,
    /// A report of the event package `vq-rtcpxr` (RFC 6035 4.6).
    VoiceQuality,
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Kind::Sip => 1,
            Kind::RtpReport => 34,
            Kind::VoiceQuality => 35,
        }
    }
}

/// What is encapsulated, and where it was seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    pub(super) kind: Kind,
    /// [`TCP`] or [`UDP`].
    pub(super) protocol: u8,
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    /// Wall clock in microseconds since 1970.
    pub(super) unix_us: u64,
    /// Which agent captured it.
    pub(super) capture_id: u32,
    /// What the collector knows the agent by.
    pub(super) key: Option<&'a str>,
    /// What it belongs to: the Call-ID.
    pub(super) correlation: Option<&'a str>,
    pub(super) payload: &'a [u8],
}

/// The packet would not go into a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too long for a datagram")]
pub(super) struct TooLong;

impl Packet<'_> {
    /// Writes the packet in place of what is in `out`.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        out.clear();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[0; HEADER - MAGIC.len()]);
        let family = match (self.source.ip().to_canonical(), self.destination.ip().to_canonical()) {
            (IpAddr::V4(_), IpAddr::V4(_)) => FAMILY_4,
            _ => FAMILY_6,
        };
        put(out, chunk::FAMILY, &[family])?;
        put(out, chunk::PROTOCOL, &[self.protocol])?;
        for (address, four, six) in [
            (self.source, chunk::SOURCE_4, chunk::SOURCE_6),
            (self.destination, chunk::DESTINATION_4, chunk::DESTINATION_6),
        ] {
            match address.ip().to_canonical() {
                IpAddr::V4(ip) if family == FAMILY_4 => put(out, four, &ip.octets())?,
                ip => put(out, six, &sixteen(ip).octets())?,
            }
        }
        put(out, chunk::SOURCE_PORT, &self.source.port().to_be_bytes())?;
        put(out, chunk::DESTINATION_PORT, &self.destination.port().to_be_bytes())?;
        let (seconds, microseconds) = (self.unix_us / 1_000_000, self.unix_us % 1_000_000);
        put(out, chunk::SECONDS, &(seconds as u32).to_be_bytes())?;
        put(out, chunk::MICROSECONDS, &(microseconds as u32).to_be_bytes())?;
        put(out, chunk::KIND, &[self.kind.number()])?;
        put(out, chunk::CAPTURE_ID, &self.capture_id.to_be_bytes())?;
        if let Some(key) = self.key {
            put(out, chunk::KEY, key.as_bytes())?;
        }
        if let Some(correlation) = self.correlation {
            put(out, chunk::CORRELATION, correlation.as_bytes())?;
        }
        put(out, chunk::PAYLOAD, self.payload)?;
        let length = u16::try_from(out.len()).map_err(|_| TooLong)?.to_be_bytes();
        if out.len() > MAX_PACKET {
            return Err(TooLong);
        }
        for (octet, value) in out.iter_mut().skip(MAGIC.len()).zip(length) {
            *octet = value;
        }
        Ok(())
    }
}

fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) -> Result<(), TooLong> {
    let length = u16::try_from(CHUNK_HEADER + value.len()).map_err(|_| TooLong)?;
    for part in [GENERIC, kind, length] {
        out.extend_from_slice(&part.to_be_bytes());
    }
    out.extend_from_slice(value);
    Ok(())
}

fn sixteen(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}
