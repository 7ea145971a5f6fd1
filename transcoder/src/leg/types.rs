//! What an RTP leg tells of the packets it got.

use std::net::IpAddr;

use crate::codec::g711::Law;
use crate::rtp::rtcp::ReportBlock;
use crate::rtp::{RtpPacket, VoipMetrics};

/// Why a packet on the trunk side was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It came before any media was negotiated.
    NotNegotiated,
    /// It came from another address or port than the negotiated one.
    Source,
    /// It is not RTP, or cut short.
    Malformed,
    /// It is not RTCP, or cut short.
    MalformedRtcp,
    /// Its payload type was not negotiated.
    PayloadType,
    /// It has no payload.
    Payload,
    /// Its SSRC is another than the pinned one, and not yet believed.
    Ssrc,
    /// Its SSRC is our own: a loop.
    Loop,
    /// It is not protected as was negotiated, or forged (RFC 3711 3.3).
    Unauthentic,
    /// It has come before, or is too old to tell (RFC 3711 3.3.2).
    Replayed,
    /// It came before DTLS had agreed on the keys (RFC 5764 4.1).
    Keyless,
    /// It is of a DTLS handshake that is not wanted, or that failed.
    Handshake,
    /// It brought a certificate that is not the one of the session description (RFC 8122 5).
    Fingerprint,
}

impl Refusal {
    /// Every refusal, in the order of [`RtpCounters::refused`].
    pub const ALL: [Refusal; 13] = [
        Refusal::NotNegotiated,
        Refusal::Source,
        Refusal::Malformed,
        Refusal::MalformedRtcp,
        Refusal::PayloadType,
        Refusal::Payload,
        Refusal::Ssrc,
        Refusal::Loop,
        Refusal::Unauthentic,
        Refusal::Replayed,
        Refusal::Keyless,
        Refusal::Handshake,
        Refusal::Fingerprint,
    ];

    /// Returns the refusal as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::NotNegotiated => "not_negotiated",
            Refusal::Source => "source",
            Refusal::Malformed => "malformed",
            Refusal::MalformedRtcp => "malformed_rtcp",
            Refusal::PayloadType => "payload_type",
            Refusal::Payload => "payload",
            Refusal::Ssrc => "ssrc",
            Refusal::Loop => "loop",
            Refusal::Unauthentic => "unauthentic",
            Refusal::Replayed => "replayed",
            Refusal::Keyless => "keyless",
            Refusal::Handshake => "handshake",
            Refusal::Fingerprint => "fingerprint",
        }
    }
}

/// Counts of packets of an RTP leg.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RtpCounters {
    /// RTP packets accepted.
    pub received: u64,
    /// RTP packets sent.
    pub sent: u64,
    /// RTCP packets accepted.
    pub rtcp_received: u64,
    /// RTCP packets sent.
    pub rtcp_sent: u64,
    /// Packets dropped because this side does not receive at present.
    pub held: u64,
    /// Times that a new SSRC was believed.
    pub ssrc_changes: u64,
    /// RTCP BYEs of the source that was heard (RFC 3550 6.6). The call goes on until signalling ends it.
    pub byes: u64,
    /// Times that another source than the described one was believed, or left again (RFC 7362 4).
    pub moves: u64,
    /// Packets not sent because the SRTP key had protected as many as it may (RFC 3711 9.2).
    pub expired: u64,
    pub(super) refused: [u64; Refusal::ALL.len()],
}

impl RtpCounters {
    /// Returns the number of packets dropped for one reason.
    pub fn refused_for(&self, refusal: Refusal) -> u64 {
        self.refused[refusal as usize]
    }

    /// Returns the number of packets dropped for any reason.
    pub fn refused(&self) -> u64 {
        self.refused.iter().sum()
    }
}

/// What the other side says of the media we send, in its last report (RFC 3550 6.4.1, RFC 3611 4.7).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RemoteReport {
    /// Packets lost on the way in all; duplicates may make it negative.
    pub cumulative_lost: i32,
    /// Loss since its report before, 0 to 100 per cent.
    pub loss_percent: f32,
    /// Interarrival jitter in milliseconds.
    pub jitter_ms: f32,
    /// Its VoIP metrics, if it sends any.
    pub metrics: Option<VoipMetrics>,
}

impl RemoteReport {
    /// Takes in a report block about us.
    pub(super) fn take(&mut self, block: &ReportBlock, clock_rate: u32) {
        self.cumulative_lost = block.cumulative_lost;
        self.loss_percent = f32::from(block.fraction_lost) * 100.0 / 256.0;
        self.jitter_ms = block.jitter as f32 * 1_000.0 / clock_rate.max(1) as f32;
    }
}

/// Where the packets of a leg may come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceRule {
    /// From the address that offer and answer named, and nowhere else.
    #[default]
    Negotiated,
    /// From another as well, if SRTP says that it is the other side: a peer behind an address translator. Media
    /// then goes there, until offer and answer name another address; it moves once for each (RFC 7362 4).
    Authenticated,
    /// As [`SourceRule::Authenticated`]; and without SRTP from another port or address too, if it is at the address
    /// that the signalling of the call comes from. That only until the named address has been heard: who can be heard
    /// there is behind no translator.
    Signalling(IpAddr),
}

/// What an accepted datagram of the trunk carries.
#[derive(Clone, Copy, Debug)]
pub enum Received<'a> {
    /// Voice, in the law of its payload type.
    Audio(RtpPacket<'a>, Law),
    /// Voice in G.722 (RFC 3551 4.5.2).
    G722(RtpPacket<'a>),
    /// Voice in Opus (RFC 7587).
    Opus(RtpPacket<'a>),
    /// Comfort noise (RFC 3389).
    ComfortNoise(RtpPacket<'a>),
    /// A telephone event.
    TelephoneEvent(RtpPacket<'a>),
    /// RTCP or DTLS, already dealt with, or a packet during hold.
    Nothing,
}
