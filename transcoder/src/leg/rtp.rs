//! The trunk leg: RTP and RTCP (RFC 3550), plain or under SRTP (RFC 3711) keyed by signalling (RFC 4568) or by DTLS
//! between the media addresses (RFC 5763, RFC 5764), under a strict source rule.
//!
//! A packet counts only if it comes from the very address and port that offer and answer named.
//! Nothing is learned from a packet unless a [`SourceRule`] says what proves it, so nothing that a stranger sends can
//! move, copy or inject media (the class of attacks known as RTP Bleed, RFC 7362 4). A second synchronisation source
//! on the right address is let in only after [`SSRC_RUN`] packets in sequence, or at once if SRTP says
//! that it is the other side's; one that an earlier call left on the port is not let in at all.

mod dtls;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use call_model::{Codec, Direction, LegMedia, MediaSecurity, TelephoneEvent};

use super::PayloadKind;
use super::components::Components;
use super::latch::{Latch, Origin};
use super::security::Security;
use super::source::Sources;
pub use super::types::{Received, Refusal, RemoteReport, RtpCounters, SourceRule};
use super::webrtc::DtlsIdentity;
use crate::bridge::Port;
use crate::codec::g711::Law;
use crate::error::MediaError;
use crate::rtp::rtcp::{self, Cname, NtpTime, Report, RtcpPacket};
use crate::rtp::{
    HEADER_LEN, Numbering, ReceiverStatistics, RtpError, RtpPacket, RtpSender, VoipMetrics, is_rtcp,
};
use crate::seed::Seeded;
use crate::srtp::{MAX_OVERHEAD, SrtpError};
use dtls::{is_dtls, plain_of, security_of};

/// RTP clock of G.711 and G.722, in Hz. That of Opus is [`Codec::clock_rate`](call_model::Codec::clock_rate).
pub const CLOCK_RATE: u32 = 8_000;
/// Packets in sequence after which a new SSRC on the negotiated address is believed (RFC 3550 A.1).
pub const SSRC_RUN: u8 = 2;
/// Mean time between RTCP reports (RFC 3550 6.2).
pub const RTCP_INTERVAL: Duration = Duration::from_secs(5);
/// Payload type of comfort noise (RFC 3389 4).
pub const COMFORT_NOISE_PAYLOAD_TYPE: u8 = 13;
/// Most milliseconds of audio in a packet that is sent.
pub const MAX_PACKET_TIME_MS: u16 = 60;

/// Most octets of a payload that is sent: what one leg makes of PCM, and what it passes on as it
/// came. More does not go through an Ethernet in one piece.
const MAX_PAYLOAD: usize = 1_280;
const RTCP_BUFFER: usize = 256;

/// What [`Received`] will be, while the packet is still being looked at.
#[derive(Clone, Copy)]
enum Content {
    Audio(Law),
    G722,
    Opus,
    ComfortNoise,
    TelephoneEvent,
    Nothing,
}

/// One leg towards a trunk. Sans-IO.
pub struct RtpLeg {
    media: Option<LegMedia>,
    /// With the keys of signalling. In a box: the contexts are large, and most legs have none.
    security: Option<Box<Security>>,
    /// Our certificate; `None`: DTLS cannot be spoken.
    identity: Option<DtlsIdentity>,
    dtls: Option<Box<Components>>,
    /// The last datagram of DTLS that came before there was a description to judge it by.
    early: Option<(Port, SocketAddr, Box<[u8]>)>,
    sender: RtpSender,
    statistics: ReceiverStatistics,
    cname: Cname,
    epoch: Instant,
    random: Seeded,
    report_at: Option<Instant>,
    sources: Sources,
    /// Where RTP and what shares its port comes from and goes to, and RTCP where it has a port of its own.
    latches: [Latch; 2],
    round_trip: Option<Duration>,
    remote: Option<RemoteReport>,
    /// What goes out with the next report.
    metrics: Option<VoipMetrics>,
    counters: RtpCounters,
}

/// Receives what a leg sends: port, destination, bytes.
pub type RtpEmit<'a> = &'a mut dyn FnMut(Port, SocketAddr, &[u8]);

impl RtpLeg {
    /// Builds a leg that neither sends nor accepts anything until [`set_media`](Self::set_media).
    pub fn new(seed: u64, now: Instant) -> Self {
        let mut seeds = Seeded::new(seed);
        Self {
            media: None,
            security: None,
            identity: None,
            dtls: None,
            early: None,
            sender: RtpSender::new(seeds.next_u64()),
            statistics: ReceiverStatistics::new(CLOCK_RATE),
            cname: Cname::new(seeds.next_u64()),
            epoch: now,
            random: seeds,
            report_at: None,
            sources: Sources::default(),
            latches: [Latch::default(); 2],
            round_trip: None,
            remote: None,
            metrics: None,
            counters: RtpCounters::default(),
        }
    }

    /// Sets what was negotiated, the first time or anew. A new remote address unpins the SSRC. New
    /// SRTP keys count from the next packet on; rollover counters are kept (RFC 3711 3.3.1). A DTLS association
    /// goes on if its parameters are as before (RFC 8842 4.1); until a new one has keys, no media goes either way.
    /// On an error everything stays as it was.
    pub fn set_media(&mut self, media: &LegMedia, now: Instant) -> Result<(), MediaError> {
        if !(10..=MAX_PACKET_TIME_MS).contains(&media.packet_time_ms)
            || !media.packet_time_ms.is_multiple_of(10)
        {
            return Err(MediaError::TrunkMedia("packet time"));
        }
        let events = media.telephone_event.map(|event| (event.send_payload_type, event.receive_payload_type));
        let (send, receive) = events.unwrap_or_default();
        if [media.send_payload_type, media.receive_payload_type, send, receive].iter().any(|&pt| pt > 127) {
            return Err(MediaError::TrunkMedia("payload type"));
        }
        self.set_dtls(media, now)?;
        let mut media = media.clone();
        // RFC 3264 8.4: 0.0.0.0 is the old spelling of hold. Who says it may still send.
        if media.remote_rtp.port() == 0 || media.remote_rtp.ip().is_unspecified() {
            media.direction =
                if media.direction.receives() { Direction::RecvOnly } else { Direction::Inactive };
            if let Some(old) = &self.media {
                (media.remote_rtp, media.remote_rtcp) = (old.remote_rtp, old.remote_rtcp);
            }
        }
        if self.media.as_ref().is_none_or(|old| old.remote_rtp != media.remote_rtp) {
            self.sources.reset();
        }
        if let MediaSecurity::Sdes(keys) = &media.security {
            match &mut self.security {
                Some(security) => security.set_keys(keys),
                None => self.security = Some(Box::new(Security::new(keys))),
            }
        }
        if self.report_at.is_none() {
            self.report_at = Some(now + self.report_interval() / 2);
        }
        self.statistics.set_clock_rate(media.codec.clock_rate());
        let [rtp, rtcp] = &mut self.latches;
        rtp.describe(Some(media.remote_rtp));
        rtcp.describe(media.remote_rtcp);
        self.media = Some(media);
        self.take_early(now);
        Ok(())
    }

    /// Sets where packets may come from. What was learned by another rule stays until the next offer and answer.
    pub fn set_source_rule(&mut self, rule: SourceRule) {
        self.latches.iter_mut().for_each(|latch| latch.set_rule(rule));
    }

    /// Returns where packets of RTP may come from, and what was learned of it.
    pub(crate) fn latch(&self) -> &Latch {
        &self.latches[Port::Rtp as usize]
    }

    /// Returns which port of the peer a kind of packet goes to: RTCP shares that of RTP unless it has another
    /// (RFC 5761).
    fn component(&self, rtcp: bool) -> Port {
        let separate = self.media.as_ref().is_some_and(|media| media.remote_rtcp.is_some());
        if rtcp && separate { Port::Rtcp } else { Port::Rtp }
    }

    /// A packet from `source` was good: if it may, media goes there from now on.
    fn follow(&mut self, component: Port, source: SocketAddr, origin: Origin) {
        self.counters.moves += u64::from(self.latches[component as usize].accept(source, origin));
    }

    /// The RTP clock of what was negotiated, in Hz.
    fn clock_rate(&self) -> u32 {
        self.media.as_ref().map_or(CLOCK_RATE, |media| media.codec.clock_rate())
    }

    /// Returns what was negotiated.
    pub fn media(&self) -> Option<&LegMedia> {
        self.media.as_ref()
    }

    /// Says whether one side holds the other, so that silence is as it should be.
    pub fn is_held(&self) -> bool {
        // `c=0.0.0.0` is the hold of RFC 2543 (RFC 3264 8.4).
        self.media.as_ref().is_some_and(|media| {
            media.remote_rtp.ip().is_unspecified() || !(media.direction.sends() && media.direction.receives())
        })
    }

    /// Says whether both sides speak RFC 4733, on the clock of the voice beside it (RFC 4733 2.1).
    pub fn has_telephone_event(&self) -> bool {
        self.media.as_ref().and_then(telephone_event).is_some()
    }

    /// Says whether silence may be sent as comfort noise.
    pub fn has_comfort_noise(&self) -> bool {
        self.media.as_ref().is_some_and(sends_comfort_noise)
    }

    /// Takes a datagram that came on the RTP or the RTCP port.
    pub fn handle_datagram<'a>(
        &'a mut self,
        now: Instant,
        port: Port,
        source: SocketAddr,
        datagram: &'a [u8],
    ) -> Result<Received<'a>, Refusal> {
        let result = match port {
            _ if is_dtls(datagram) && self.expects_dtls() => self.receive_dtls(now, port, source, datagram),
            Port::Rtp if is_rtcp(datagram) => self.receive_rtcp(now, port, source, datagram),
            Port::Rtp => self.receive_rtp(now, source, datagram),
            Port::Rtcp => self.receive_rtcp(now, port, source, datagram),
        };
        let (content, length) =
            result.inspect_err(|&refusal| self.counters.refused[refusal as usize] += 1)?;
        let packet =
            |leg: &'a Self| RtpPacket::parse(leg.plain(datagram, length)).map_err(|_| Refusal::Malformed);
        Ok(match content {
            Content::Audio(law) => Received::Audio(packet(self)?, law),
            Content::G722 => Received::G722(packet(self)?),
            Content::Opus => Received::Opus(packet(self)?),
            Content::ComfortNoise => Received::ComfortNoise(packet(self)?),
            Content::TelephoneEvent => Received::TelephoneEvent(packet(self)?),
            Content::Nothing => Received::Nothing,
        })
    }

    /// Checks that a datagram came from where it must, and takes SRTP off it. Returns its length, and what its source
    /// is. What came to `port` may move what is sent from there, and nothing else.
    fn open(
        &mut self,
        port: Port,
        source: SocketAddr,
        datagram: &[u8],
        rtcp: bool,
    ) -> Result<(usize, Origin), Refusal> {
        let component = self.component(rtcp);
        let media = self.media.as_ref().ok_or(Refusal::NotNegotiated)?;
        let origin = self.latches[component as usize].judge(source, is_secured(media));
        let security = security_of(media, &mut self.security, &mut self.dtls, rtcp);
        let unprotect = |security: &mut Security| security.unprotect(datagram, rtcp);
        let length = match origin {
            Origin::Expected => security?.map_or(Ok(datagram.len()), unprotect)?,
            Origin::Candidate if port == component && rtcp == (component == Port::Rtcp) => {
                // What nobody has authenticated is a stranger's, whatever is wrong with it.
                let security = security.map_err(|_| Refusal::Source)?;
                security.map_or(Ok(datagram.len()), unprotect).map_err(|_| Refusal::Source)?
            }
            Origin::Candidate | Origin::Stranger => return Err(Refusal::Source),
        };
        Ok((length, origin))
    }

    /// Returns what [`open`](Self::open) made of a datagram.
    fn plain<'a>(&'a self, datagram: &'a [u8], length: usize) -> &'a [u8] {
        plain_of(self.media.as_ref(), &self.security, &self.dtls, datagram, length, false)
    }

    fn receive_rtp(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &[u8],
    ) -> Result<(Content, usize), Refusal> {
        let (length, origin) = self.open(Port::Rtp, source, datagram, false)?;
        let media = self.media.as_ref().ok_or(Refusal::NotNegotiated)?;
        let packet = RtpPacket::parse(self.plain(datagram, length)).map_err(|_| Refusal::Malformed)?;
        let payload_type = packet.payload_type();
        let event = telephone_event(media);
        let content = if let Some(voice) = voice_of(media, payload_type) {
            voice
        } else if event.is_some_and(|event| event.receive_payload_type == payload_type) {
            Content::TelephoneEvent
        } else if payload_type == COMFORT_NOISE_PAYLOAD_TYPE && media.codec.clock_rate() == CLOCK_RATE {
            Content::ComfortNoise
        } else {
            return Err(Refusal::PayloadType);
        };
        if packet.payload().is_empty() {
            return Err(Refusal::Payload);
        }
        let authentic = is_secured(media);
        if !media.direction.receives() {
            self.counters.held += 1;
            if authentic {
                self.follow(Port::Rtp, source, origin);
            }
            return Ok((Content::Nothing, length));
        }
        let (ssrc, sequence, timestamp) = (packet.ssrc(), packet.sequence(), packet.timestamp());
        self.check_ssrc(now, ssrc, sequence, authentic)?;
        self.follow(Port::Rtp, source, origin);
        self.statistics.receive(now, ssrc, sequence, timestamp);
        self.counters.received += 1;
        Ok((content, length))
    }

    /// RFC 3550 8.2 and A.1.
    fn check_ssrc(&mut self, now: Instant, ssrc: u32, sequence: u16, authentic: bool) -> Result<(), Refusal> {
        if ssrc == self.sender.ssrc() {
            return Err(Refusal::Loop);
        }
        let changed = self.sources.admit(now, ssrc, sequence, authentic)?;
        self.counters.ssrc_changes += u64::from(changed);
        Ok(())
    }

    /// Never hears these sources, unless SRTP says that they are the other side's: what an earlier call on the same
    /// port was heard from, which may still be sent. The last four are kept.
    pub fn refuse_sources(&mut self, sources: &[u32]) {
        self.sources.refuse(sources);
    }

    /// Returns the synchronisation source that is heard.
    pub fn source(&self) -> Option<u32> {
        self.sources.pinned()
    }

    /// Returns the synchronisation source of what is sent.
    pub fn own_source(&self) -> u32 {
        self.sender.ssrc()
    }

    fn receive_rtcp(
        &mut self,
        now: Instant,
        port: Port,
        source: SocketAddr,
        datagram: &[u8],
    ) -> Result<(Content, usize), Refusal> {
        let (length, origin) = self.open(port, source, datagram, true)?;
        let plain = plain_of(self.media.as_ref(), &self.security, &self.dtls, datagram, length, true);
        let packets = rtcp::parse(plain).map_err(|_| Refusal::MalformedRtcp)?;
        let clock_rate = self.media.as_ref().map_or(CLOCK_RATE, |media| media.codec.clock_rate());
        let own = self.sender.ssrc();
        let ntp = NtpTime::from_elapsed(now.saturating_duration_since(self.epoch));
        for packet in packets {
            let blocks = match packet {
                RtcpPacket::SenderReport { ssrc, info, blocks } => {
                    if self.sources.pinned() == Some(ssrc) {
                        self.statistics.handle_sender_report(now, info.ntp);
                    }
                    blocks
                }
                RtcpPacket::ReceiverReport { blocks, .. } => blocks,
                RtcpPacket::ExtendedReport { mut voip, .. } => {
                    if let Some(metrics) = voip.find(|metrics| metrics.ssrc == own) {
                        self.remote.get_or_insert_default().metrics = Some(metrics);
                    }
                    continue;
                }
                RtcpPacket::Goodbye { ssrc } => {
                    self.counters.byes += u64::from(ssrc.is_some() && ssrc == self.sources.pinned());
                    continue;
                }
                _ => continue,
            };
            if let Some(block) = blocks.into_iter().find(|block| block.ssrc == own) {
                self.round_trip = rtcp::round_trip(ntp, &block).or(self.round_trip);
                self.remote.get_or_insert_default().take(&block, clock_rate);
            }
        }
        self.counters.rtcp_received += 1;
        if self.component(true) == Port::Rtcp {
            self.follow(Port::Rtcp, source, origin);
        }
        Ok((Content::Nothing, length))
    }

    /// Sends a payload, unless hold or the lack of a negotiation forbids. `media_time` is in ticks
    /// of the codec's clock since the stream began. Returns whether it was sent.
    pub fn send(
        &mut self,
        now: Instant,
        kind: PayloadKind,
        marker: bool,
        media_time: u64,
        payload: &[u8],
        emit: RtpEmit<'_>,
    ) -> bool {
        self.write(kind, payload, emit, |sender, payload_type, packet| {
            sender.write_header(now, payload_type, marker, media_time, payload.len(), packet)
        })
    }

    /// Sends a payload with the numbers given, as [`send`](Self::send) does otherwise: what comes
    /// from another leg keeps the order and the gaps it had there.
    pub fn forward(
        &mut self,
        now: Instant,
        kind: PayloadKind,
        marker: bool,
        numbering: Numbering,
        payload: &[u8],
        emit: RtpEmit<'_>,
    ) -> bool {
        self.write(kind, payload, emit, |sender, payload_type, packet| {
            sender.write_numbered(now, payload_type, marker, numbering, payload.len(), packet)
        })
    }

    /// Returns the numbers of a packet that follows all that were sent.
    pub fn next_numbering(&self, now: Instant) -> Numbering {
        self.sender.next(now, self.clock_rate())
    }

    fn write(
        &mut self,
        kind: PayloadKind,
        payload: &[u8],
        emit: RtpEmit<'_>,
        header: impl FnOnce(&mut RtpSender, u8, &mut [u8]) -> Result<(), RtpError>,
    ) -> bool {
        let Some(media) = self.media.as_ref().filter(|media| media.direction.sends()) else { return false };
        // RFC 5764 4.1: nothing before there are keys.
        let Ok(security) = security_of(media, &mut self.security, &mut self.dtls, false) else {
            return false;
        };
        let payload_type = match kind {
            PayloadKind::Audio => media.send_payload_type,
            PayloadKind::TelephoneEvent => match telephone_event(media) {
                Some(event) => event.send_payload_type,
                None => return false,
            },
            PayloadKind::ComfortNoise if sends_comfort_noise(media) => COMFORT_NOISE_PAYLOAD_TYPE,
            PayloadKind::ComfortNoise => return false,
            // Of the overlay's legs only.
            PayloadKind::G711(_) | PayloadKind::G711Event => return false,
        };
        if payload.len() > MAX_PAYLOAD {
            return false;
        }
        let mut length = HEADER_LEN + payload.len();
        // Not kept in the leg: it would be the larger part of one that is silent.
        let mut buffer = [0; HEADER_LEN + MAX_PAYLOAD + MAX_OVERHEAD];
        let packet = &mut buffer[..length];
        packet[HEADER_LEN..].copy_from_slice(payload);
        if header(&mut self.sender, payload_type, packet).is_err() {
            return false;
        }
        if let Some(security) = security {
            match security.outgoing.protect_rtp(&mut buffer, length) {
                Ok(protected) => length = protected,
                // A copy of a packet that went out, or one that nobody would wait for (RFC 3711 9.1).
                Err(SrtpError::Replayed | SrtpError::TooOld) => return true,
                Err(_) => {
                    self.counters.expired += 1;
                    return false;
                }
            }
        }
        self.counters.sent += 1;
        emit(Port::Rtp, self.latches[0].remote().unwrap_or(media.remote_rtp), &buffer[..length]);
        true
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let dtls = self.dtls.as_ref().and_then(|dtls| dtls.poll_timeout());
        self.report_at.into_iter().chain(dtls).min()
    }

    /// Sends the RTCP report and the messages of DTLS that are due, if any are.
    pub fn handle_timeout(&mut self, now: Instant, emit: RtpEmit<'_>) {
        self.poll_transmit(now, emit);
        if self.report_at.is_some_and(|at| at <= now) {
            self.report_at = Some(now + self.report_interval());
            self.report(now, false, emit);
        }
    }

    /// Sets the VoIP metrics that go out with the reports after (RFC 3611 4.7); without any, none do.
    pub fn set_metrics(&mut self, metrics: Option<VoipMetrics>) {
        self.metrics = metrics;
    }

    /// Ends the leg with an RTCP BYE (RFC 3550 6.6), unless it never sent anything (6.3.7), and with a close_notify
    /// where there is a DTLS association.
    pub fn stop(&mut self, now: Instant, emit: RtpEmit<'_>) {
        if self.counters.sent + self.counters.rtcp_sent > 0 {
            self.report(now, true, emit);
        }
        self.close_dtls(emit);
        self.report_at = None;
        self.media = None;
    }

    fn report(&mut self, now: Instant, bye: bool, emit: RtpEmit<'_>) {
        let port = self.component(true);
        let Some(media) = self.media.as_ref() else { return };
        let Some(destination) = self.latches[port as usize].remote() else { return };
        if destination.ip().is_unspecified() || destination.port() == 0 {
            return;
        }
        let ntp = NtpTime::from_elapsed(now.saturating_duration_since(self.epoch));
        let clock_rate = media.codec.clock_rate();
        let Ok(security) = security_of(media, &mut self.security, &mut self.dtls, true) else { return };
        let block = self.statistics.report_block(now);
        let report = Report {
            ssrc: self.sender.ssrc(),
            sender: self.sender.sender_info(now, ntp, clock_rate),
            blocks: block.as_slice(),
            cname: self.cname.as_str(),
            metrics: self.metrics.as_ref(),
            bye,
        };
        let mut buffer = [0; RTCP_BUFFER + MAX_OVERHEAD];
        let Ok(mut length) = report.write(&mut buffer[..RTCP_BUFFER]) else { return };
        if let Some(security) = security {
            match security.outgoing.protect_rtcp(&mut buffer, length) {
                Ok(protected) => length = protected,
                Err(_) => {
                    self.counters.expired += 1;
                    return;
                }
            }
        }
        self.counters.rtcp_sent += 1;
        emit(port, destination, &buffer[..length]);
    }

    /// RFC 3550 6.2: half to one and a half of the mean.
    fn report_interval(&mut self) -> Duration {
        let fraction = (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        RTCP_INTERVAL / 2 + RTCP_INTERVAL.mul_f64(fraction)
    }

    /// Returns the counts so far.
    pub fn counters(&self) -> &RtpCounters {
        &self.counters
    }

    /// Returns what was measured of the received stream.
    pub fn statistics(&self) -> &ReceiverStatistics {
        &self.statistics
    }

    /// Returns the round trip time that the last RTCP report about us showed (RFC 3550 6.4.1).
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Returns what the other side last reported of the media we send.
    pub fn remote_report(&self) -> Option<&RemoteReport> {
        self.remote.as_ref()
    }
}

/// Finds the codec of a payload type. Whatever both sides agreed on may come at any time, whichever of
/// them is sent (RFC 3264 6.1), on one clock.
fn voice_of(media: &LegMedia, payload_type: u8) -> Option<Content> {
    let first = (media.receive_payload_type, media.codec);
    let mut known = [first].into_iter().chain(media.also_receives.iter().copied());
    let (_, codec) = known.find(|(number, _)| *number == payload_type)?;
    let fits = codec.clock_rate() == media.codec.clock_rate();
    fits.then(|| match (codec, Law::of(codec)) {
        (_, Some(law)) => Content::Audio(law),
        (Codec::G722, None) => Content::G722,
        (_, None) => Content::Opus,
    })
}

/// The telephone events, if they run on the clock of the voice (RFC 4733 2.1), or on that of 8 kHz that many peers
/// know alone.
fn telephone_event(media: &LegMedia) -> Option<TelephoneEvent> {
    media.telephone_event.filter(|event| [CLOCK_RATE, media.codec.clock_rate()].contains(&event.clock_rate))
}

/// RFC 3389 4: payload type 13 is for a clock of 8 kHz. Beside G.722, where it leaves open what rate the spectrum is of,
/// none is sent.
fn sends_comfort_noise(media: &LegMedia) -> bool {
    media.comfort_noise && media.codec.clock_rate() == CLOCK_RATE && media.codec != Codec::G722
}

fn is_secured(media: &LegMedia) -> bool {
    media.security != MediaSecurity::None
}
