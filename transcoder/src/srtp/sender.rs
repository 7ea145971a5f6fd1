//! The sending side.

use call_model::SrtpKey;

use super::transform::SessionKeys;
use super::window::{Window, estimate};
use super::{MAX_PACKET, MAX_RTCP_LIFETIME, MAX_SOURCES, RtpHeader, SrtpError, rtcp_source};

#[derive(Clone, Copy)]
struct Source {
    ssrc: u32,
    /// Indices of the latest RTP packets.
    used: Option<Window>,
    /// Index of the next RTCP packet: from 0 on (RFC 3711 3.4).
    next_rtcp: u32,
}

/// Protects what a leg sends. Sources are told apart by their SSRC, and each has its own rollover
/// counter.
pub struct SrtpSender {
    keys: SessionKeys,
    mki: Box<[u8]>,
    lifetime: u64,
    rtp_packets: u64,
    rtcp_packets: u64,
    sources: Vec<Source>,
}

impl std::fmt::Debug for SrtpSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SrtpSender").field("sources", &self.sources.len()).finish_non_exhaustive()
    }
}

impl SrtpSender {
    /// Begins with a master key. Its identifier, if it has one, goes into every packet.
    pub fn new(key: &SrtpKey) -> Self {
        Self {
            keys: SessionKeys::derive(key),
            mki: key.mki().into(),
            lifetime: key.lifetime().unwrap_or(SrtpKey::LIFETIME_MAX),
            rtp_packets: 0,
            rtcp_packets: 0,
            sources: Vec::with_capacity(1),
        }
    }

    /// Goes on with another master key. Rollover counters and SRTCP indices are kept (RFC 3711 3.3.1).
    pub fn rekey(&mut self, key: &SrtpKey) {
        let sources = std::mem::take(&mut self.sources);
        *self = Self { sources, ..Self::new(key) };
    }

    /// Protects the RTP packet in the first `length` octets of `buffer`, in place, and returns the
    /// length of what is to be sent: at most [`MAX_OVERHEAD`](super::MAX_OVERHEAD) more. A source's
    /// packets may come out of order, as far as a receiver would take them.
    ///
    /// # Errors
    /// [`SrtpError::Replayed`] for a sequence number that was used, and [`SrtpError::TooOld`] for one of
    /// which that is not known any more, for to encrypt two packets with one index would give both
    /// away (RFC 3711 9.1); else what [`SrtpError`] says. The packet must not be sent then.
    pub fn protect_rtp(&mut self, buffer: &mut [u8], length: usize) -> Result<usize, SrtpError> {
        let packet = buffer.get(..length.min(MAX_PACKET)).filter(|packet| packet.len() == length);
        let header = RtpHeader::read(packet.ok_or(SrtpError::TooLong)?)?;
        if self.rtp_packets >= self.lifetime {
            return Err(SrtpError::Expired);
        }
        let source = self.source(header.ssrc)?;
        let used = self.sources[source].used;
        let sequence = header.sequence;
        let index = used.map_or(u64::from(sequence), |used| estimate(used.highest(), sequence));
        if let Some(used) = used {
            used.check(index)?;
        }
        let place = (length, header.len);
        let length = self.keys.rtp.seal_rtp(buffer, place, (header.ssrc, index), &self.mki)?;
        match &mut self.sources[source].used {
            Some(used) => used.accept(index),
            first => *first = Some(Window::new(index)),
        }
        self.rtp_packets += 1;
        Ok(length)
    }

    /// Protects the compound RTCP packet in the first `length` octets of `buffer`, in place, and
    /// returns the length of what is to be sent: at most [`MAX_OVERHEAD`](super::MAX_OVERHEAD) more.
    ///
    /// # Errors
    /// What [`SrtpError`] says; the packet must not be sent then.
    pub fn protect_rtcp(&mut self, buffer: &mut [u8], length: usize) -> Result<usize, SrtpError> {
        let packet = buffer.get(..length.min(MAX_PACKET)).filter(|packet| packet.len() == length);
        let ssrc = rtcp_source(packet.ok_or(SrtpError::TooLong)?)?;
        if self.rtcp_packets >= self.lifetime.min(MAX_RTCP_LIFETIME) {
            return Err(SrtpError::Expired);
        }
        let source = self.source(ssrc)?;
        let index = self.sources[source].next_rtcp;
        let length = self.keys.rtcp.seal_rtcp(buffer, length, (ssrc, index), &self.mki)?;
        self.sources[source].next_rtcp = (index + 1) & 0x7fff_ffff;
        self.rtcp_packets += 1;
        Ok(length)
    }

    /// Returns the rollover counter of a source, 0 before its first packet.
    pub fn rollover_counter(&self, ssrc: u32) -> u32 {
        let source = self.sources.iter().find(|source| source.ssrc == ssrc);
        source.and_then(|source| source.used).map_or(0, |used| (used.highest() >> 16) as u32)
    }

    fn source(&mut self, ssrc: u32) -> Result<usize, SrtpError> {
        if let Some(known) = self.sources.iter().position(|source| source.ssrc == ssrc) {
            return Ok(known);
        }
        if self.sources.len() >= MAX_SOURCES {
            return Err(SrtpError::TooManySources);
        }
        self.sources.push(Source { ssrc, used: None, next_rtcp: 0 });
        Ok(self.sources.len() - 1)
    }
}
