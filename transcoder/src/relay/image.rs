//! One side of a relay while it carries T.38: UDPTL datagrams (ITU-T T.38 9.1), passed on as they are.

use std::net::SocketAddr;

use call_model::ImageMedia;

use crate::error::MediaError;
use crate::leg::latch::{Latch, Origin};
use crate::leg::rtp::RtpLeg;
use crate::rtp::RtpPacket;

/// Octets of the longest UDPTL datagram that is passed on: what goes through an Ethernet in one piece. What a side says
/// that it takes (`T38FaxMaxDatagram`) is kept to by the other.
pub const MAX_UDPTL: usize = 1_472;
/// Octets of the shortest there can be: sequence number, and length and one octet of the primary packet.
const MIN_UDPTL: usize = 4;

/// Why a datagram was not passed on as UDPTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageRefusal {
    /// It came from another address or port than the negotiated one, or to the port of RTCP.
    Source,
    /// It is longer than [`MAX_UDPTL`].
    Oversize,
    /// It is too short to be UDPTL.
    Malformed,
    /// It is a packet of the voice that went before, still under way.
    Audio,
    /// The other side does not carry T.38, or not yet.
    NotNegotiated,
}

impl ImageRefusal {
    /// Every refusal, in the order of the counts.
    pub const ALL: [ImageRefusal; 5] = [
        ImageRefusal::Source,
        ImageRefusal::Oversize,
        ImageRefusal::Malformed,
        ImageRefusal::Audio,
        ImageRefusal::NotNegotiated,
    ];

    /// Returns the refusal as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            ImageRefusal::Source => "source",
            ImageRefusal::Oversize => "oversize",
            ImageRefusal::Malformed => "malformed",
            ImageRefusal::Audio => "audio",
            ImageRefusal::NotNegotiated => "not_negotiated",
        }
    }
}

/// Counts of UDPTL datagrams of one side of a relay, over all its facsimiles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageCounters {
    /// Accepted, and passed on to the other side.
    pub received: u64,
    /// Sent, as they came from the other side.
    pub sent: u64,
    /// Times that another source than the described one was believed, or left again (RFC 7362 4).
    pub moves: u64,
    refused: [u64; ImageRefusal::ALL.len()],
}

impl ImageCounters {
    /// Returns the number of datagrams dropped for one reason.
    pub fn refused_for(&self, refusal: ImageRefusal) -> u64 {
        self.refused[refusal as usize]
    }

    /// Returns the number of datagrams dropped for any reason.
    pub fn refused(&self) -> u64 {
        self.refused.iter().sum()
    }
}

/// One side.
#[derive(Debug, Default)]
pub(super) struct ImageLeg {
    /// Where UDPTL comes from and goes to.
    latch: Latch,
    active: bool,
    pub(super) counters: ImageCounters,
}

impl ImageLeg {
    /// Begins, or goes on with another address. What was learned of the voice that goes before is where UDPTL goes if
    /// both have one address: a translator has given them one.
    pub(super) fn set(
        &mut self,
        image: &ImageMedia,
        local: SocketAddr,
        voice: &RtpLeg,
    ) -> Result<(), MediaError> {
        let remote = image.remote_udptl;
        if remote.port() == 0 || remote.ip().is_unspecified() || remote.is_ipv4() != local.is_ipv4() {
            return Err(MediaError::TrunkMedia("image address"));
        }
        self.latch.set_rule(voice.latch().rule());
        self.latch.describe(Some(remote));
        if !self.active {
            let same = voice.media().is_some_and(|media| media.remote_rtp == remote);
            self.latch.begin_at(voice.latch().learned().filter(|_| same));
        }
        self.active = true;
        Ok(())
    }

    /// The side carries audio again.
    pub(super) fn clear(&mut self) {
        self.active = false;
    }

    pub(super) fn is_active(&self) -> bool {
        self.active
    }

    /// Returns where UDPTL goes, while the side carries T.38.
    fn remote(&self) -> Option<SocketAddr> {
        self.latch.remote().filter(|_| self.active)
    }

    /// Takes a datagram of the side; `voice` is its leg of RTP. Returns where it goes on the
    /// other side.
    pub(super) fn receive(
        &mut self,
        voice: &RtpLeg,
        source: Option<SocketAddr>,
        datagram: &[u8],
        to: &mut Self,
    ) -> Result<SocketAddr, ImageRefusal> {
        let judged = self.judge(voice, source, datagram, to);
        match &judged {
            Ok((_, source, origin)) => {
                self.counters.moves += u64::from(self.latch.accept(*source, *origin));
                self.counters.received += 1;
                to.counters.sent += 1;
            }
            Err(refusal) => self.counters.refused[*refusal as usize] += 1,
        }
        judged.map(|(destination, ..)| destination)
    }

    fn judge(
        &self,
        voice: &RtpLeg,
        source: Option<SocketAddr>,
        datagram: &[u8],
        to: &Self,
    ) -> Result<(SocketAddr, SocketAddr, Origin), ImageRefusal> {
        let source = source.ok_or(ImageRefusal::Source)?;
        // UDPTL is protected by nothing.
        let origin = self.latch.judge(source, false);
        if origin == Origin::Stranger {
            return Err(ImageRefusal::Source);
        }
        if datagram.len() > MAX_UDPTL {
            return Err(ImageRefusal::Oversize);
        }
        if datagram.len() < MIN_UDPTL {
            return Err(ImageRefusal::Malformed);
        }
        // Nothing else tells RTP from UDPTL for certain, whose sequence numbers may begin with any octet.
        if RtpPacket::parse(datagram).is_ok_and(|packet| voice.source() == Some(packet.ssrc())) {
            return Err(ImageRefusal::Audio);
        }
        let destination = to.remote().ok_or(ImageRefusal::NotNegotiated)?;
        Ok((destination, source, origin))
    }
}
