//! The overlay leg: ICE or ICE-lite (RFC 8445), DTLS-SRTP (RFC 5764), Opus (RFC 7587) and
//! telephone events at 48000 Hz (RFC 4733) on one UDP address, through str0m in RTP mode.
//!
//! str0m negotiates `telephone-event/48000` itself. It knows neither `maxplaybackrate` nor
//! `sprop-maxcapturerate` (RFC 7587 6.1), so those two are written into, and the first is read
//! from, the text of the session description here.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::config::{CryptoProvider, DtlsCert};
use str0m::format::{Codec, FormatParams};
use str0m::media::{Direction, Frequency, MediaKind, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{Extension, RtpPacket, RtpWrite};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig, RtcError};

use super::{LegPacket, PayloadKind};
use crate::error::MediaError;

/// Longest session description that is read, in bytes.
pub const MAX_SDP_LENGTH: usize = 8 * 1024;
/// Most candidate lines in a session description; more would let one peer cost us many pairs.
pub const MAX_CANDIDATES: usize = 32;
/// Most local addresses of a leg.
pub const MAX_LOCAL_ADDRESSES: usize = 8;
/// Longest time from both descriptions known to ICE connected. Not held by an ICE-lite answerer,
/// which cannot know when the peer is given its answer.
pub const ICE_LIMIT: Duration = Duration::from_secs(20);
/// Longest time from ICE connected to DTLS-SRTP keys agreed.
pub const DTLS_LIMIT: Duration = Duration::from_secs(10);
/// How long a lost ICE connection may take to come back.
pub const RECONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How often the other side's receiver reports are summed up into [`LegEvent::RemoteLoss`]; about
/// as often as they come (RFC 3550 6.2).
const STATISTICS_INTERVAL: Duration = Duration::from_secs(5);

/// RTP clock of everything on this leg, in Hz.
pub const CLOCK_RATE: u32 = 48_000;

const OPUS_PAYLOAD_TYPE: u8 = 111;
const TELEPHONE_EVENT_PAYLOAD_TYPE: u8 = 110;
const MAX_EVENTS: usize = 64;
const MAX_OUTPUTS: usize = 512;

/// The DTLS identity of the process: one certificate, whose fingerprint is in every session
/// description. Generating a key pair is dear; cloning this is not.
#[derive(Clone)]
pub struct DtlsIdentity {
    certificate: DtlsCert,
    provider: Arc<CryptoProvider>,
}

impl DtlsIdentity {
    /// Generates a self-signed certificate.
    pub fn generate() -> Result<Self, MediaError> {
        let provider = Arc::new(str0m::crypto::from_feature_flags());
        let certificate = provider.dtls_provider.generate_certificate().ok_or(MediaError::Certificate)?;
        Ok(Self { certificate, provider })
    }
}

impl std::fmt::Debug for DtlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DtlsIdentity")
    }
}

/// Settings of a WebRTC leg.
#[derive(Clone, Debug)]
pub struct WebRtcConfig {
    /// Host candidates: the UDP addresses on which the leg's packets are sent and received, as the
    /// other side can reach them. 1 to [`MAX_LOCAL_ADDRESSES`].
    pub local: Vec<SocketAddr>,
    /// ICE-lite (RFC 8445 2.5): answers connectivity checks and makes none. For a gateway on a
    /// public address; such a leg also announces that it plays and captures 8 kHz audio only, for
    /// behind it is a telephone.
    pub ice_lite: bool,
}

/// Why a WebRTC leg is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegFailure {
    /// No candidate pair worked within [`ICE_LIMIT`].
    Unreachable,
    /// DTLS did not finish within [`DTLS_LIMIT`], or failed.
    Handshake,
    /// The certificate is not the one of the session description (RFC 8122 5).
    Fingerprint,
    /// ICE consent was lost and did not come back within [`RECONNECT_LIMIT`].
    Lost,
    /// The other side closed DTLS.
    Closed,
}

impl LegFailure {
    /// Returns the failure as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            LegFailure::Unreachable => "unreachable",
            LegFailure::Handshake => "handshake",
            LegFailure::Fingerprint => "fingerprint",
            LegFailure::Lost => "lost",
            LegFailure::Closed => "closed",
        }
    }
}

/// What a WebRTC leg reports.
#[derive(Clone, Debug)]
pub enum LegEvent {
    /// ICE is connected and SRTP keys are agreed.
    Connected,
    /// A packet passed SRTP authentication.
    Packet(LegPacket),
    /// The other side reported how much of what we sent it lost (RFC 3550 6.4.1).
    RemoteLoss {
        /// The loss since its last report, in per cent.
        percent: f32,
    },
    /// The leg is over. Comes once, and last.
    Failed(LegFailure),
}

/// Counts of datagrams of a WebRTC leg.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WebRtcCounters {
    /// RTP packets accepted.
    pub received: u64,
    /// RTP packets sent.
    pub sent: u64,
    /// Datagrams that are neither STUN, DTLS, RTP nor RTCP (RFC 7983 7), or are cut short.
    pub malformed: u64,
    /// Datagrams from an address that ICE has not validated, or STUN with a wrong password.
    pub foreign: u64,
    /// DTLS records that were refused.
    pub dtls_refused: u64,
    /// RTP packets that failed authentication, were replayed, or have an unknown SSRC or payload type.
    pub unauthentic: u64,
    /// Datagrams that came after the end.
    pub after_end: u64,
}

impl WebRtcCounters {
    /// Returns the number of refused datagrams for any reason.
    pub fn refused(&self) -> u64 {
        self.malformed + self.foreign + self.dtls_refused + self.unauthentic + self.after_end
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The other description is not known.
    Negotiating,
    /// ICE or DTLS is under way.
    Connecting,
    Connected,
    Over,
}

/// One leg towards a peer of the overlay. Sans-IO: datagrams and times go in, datagrams and
/// [`LegEvent`]s come out.
pub struct WebRtcLeg {
    rtc: Rtc,
    state: State,
    pending: Option<SdpPendingOffer>,
    mid: Option<Mid>,
    opus: Option<Pt>,
    telephone_event: Option<Pt>,
    lite: bool,
    playback_rate: u32,
    remote_playback_rate: u32,
    sequence: Option<u64>,
    wake: Instant,
    /// The latest time that was told.
    seen: Instant,
    limit: Option<(Instant, LegFailure)>,
    ice_connected: bool,
    /// ICE-lite, and the answerer: the peer begins once it has the answer, which may be long after
    /// the offer was accepted (a telephone rings meanwhile). Nothing is timed until its first packet.
    waits_for_peer: bool,
    /// How long it did.
    waited: Duration,
    events: VecDeque<LegEvent>,
    counters: WebRtcCounters,
}

impl std::fmt::Debug for WebRtcLeg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebRtcLeg").field("state", &self.state).field("counters", &self.counters).finish()
    }
}

impl WebRtcLeg {
    /// Builds a leg. Sends nothing yet.
    pub fn new(config: WebRtcConfig, identity: &DtlsIdentity, now: Instant) -> Result<Self, MediaError> {
        if config.local.is_empty() || config.local.len() > MAX_LOCAL_ADDRESSES {
            return Err(MediaError::LocalAddressCount);
        }
        // Neither transport-wide feedback nor audio levels: they cost bytes in every packet and
        // serve video. MID stays, so that packets find their stream without an a=ssrc line.
        let mut rtc_config = RtcConfig::new()
            .set_crypto_provider(Arc::clone(&identity.provider))
            .set_dtls_cert(identity.certificate.clone())
            .set_rtp_mode(true)
            .set_ice_lite(config.ice_lite)
            .set_stats_interval(Some(STATISTICS_INTERVAL))
            .clear_extension_map()
            .set_extension(4, Extension::RtpMid)
            .clear_codecs();
        let codecs = rtc_config.codec_config();
        codecs.add_config(
            OPUS_PAYLOAD_TYPE.into(),
            None,
            Codec::Opus,
            Frequency::FORTY_EIGHT_KHZ,
            Some(2),
            FormatParams {
                min_p_time: Some(10),
                use_inband_fec: Some(true),
                use_dtx: Some(false),
                ..Default::default()
            },
        );
        codecs.add_config(
            TELEPHONE_EVENT_PAYLOAD_TYPE.into(),
            None,
            Codec::Tele,
            Frequency::FORTY_EIGHT_KHZ,
            None,
            FormatParams { telephone_event_max: Some(15), ..Default::default() },
        );
        let mut rtc = rtc_config.build(now);
        for address in &config.local {
            let candidate = Candidate::host(*address, "udp").map_err(|_| MediaError::LocalAddress)?;
            rtc.add_local_candidate(candidate).ok_or(MediaError::LocalAddress)?;
        }
        Ok(Self {
            rtc,
            state: State::Negotiating,
            pending: None,
            mid: None,
            opus: None,
            telephone_event: None,
            lite: config.ice_lite,
            playback_rate: if config.ice_lite { 8_000 } else { 48_000 },
            remote_playback_rate: 48_000,
            sequence: None,
            wake: now,
            seen: now,
            limit: None,
            ice_connected: false,
            waits_for_peer: false,
            waited: Duration::ZERO,
            events: VecDeque::with_capacity(8),
            counters: WebRtcCounters::default(),
        })
    }

    /// Writes an offer. At most one may be open.
    pub fn create_offer(&mut self) -> Result<String, MediaError> {
        if self.state != State::Negotiating || self.pending.is_some() {
            return Err(MediaError::OutOfOrder);
        }
        let mut api = self.rtc.sdp_api();
        let mid = api.add_media(MediaKind::Audio, Direction::SendRecv, None, None, None);
        let (offer, pending) = api.apply().ok_or(MediaError::OutOfOrder)?;
        self.mid = Some(mid);
        self.pending = Some(pending);
        Ok(self.with_audio_rates(&offer.to_sdp_string()))
    }

    /// Takes the answer to the open offer. ICE and DTLS start at the next
    /// [`handle_timeout`](Self::handle_timeout), which is due at once. An error ends the leg.
    pub fn accept_answer(&mut self, sdp: &str) -> Result<(), MediaError> {
        let pending = self.pending.take().ok_or(MediaError::OutOfOrder)?;
        let result = check_shape(sdp).and_then(|()| {
            let answer = SdpAnswer::from_sdp_string(sdp).map_err(|_| MediaError::SdpSyntax)?;
            self.rtc.sdp_api().accept_answer(pending, answer).map_err(refused)?;
            self.negotiated(sdp)
        });
        self.ended_by(result)
    }

    /// Takes an offer and returns the answer. The timers of ICE and DTLS start with it, so the
    /// answer should go out at once. An error ends the leg.
    pub fn accept_offer(&mut self, sdp: &str) -> Result<String, MediaError> {
        if self.state != State::Negotiating || self.pending.is_some() {
            return Err(MediaError::OutOfOrder);
        }
        let result = check_shape(sdp).and_then(|()| {
            let offer = SdpOffer::from_sdp_string(sdp).map_err(|_| MediaError::SdpSyntax)?;
            let answer = self.rtc.sdp_api().accept_offer(offer).map_err(refused)?.to_sdp_string();
            self.mid = attribute(&answer, "a=mid:").map(|mid| Mid::from(mid.trim()));
            self.negotiated(sdp)?;
            self.waits_for_peer = self.lite;
            Ok(self.with_audio_rates(&answer))
        });
        self.ended_by(result)
    }

    fn ended_by<T>(&mut self, result: Result<T, MediaError>) -> Result<T, MediaError> {
        if result.is_err() {
            self.rtc.disconnect();
            self.state = State::Over;
        }
        result
    }

    fn negotiated(&mut self, remote_sdp: &str) -> Result<(), MediaError> {
        let media = self.mid.and_then(|mid| self.rtc.media(mid)).ok_or(MediaError::NotOneAudio)?;
        if media.kind() != MediaKind::Audio || media.disabled() || media.stopped() {
            return Err(MediaError::NotOneAudio);
        }
        let agreed = media.remote_pts();
        let payload_type = |codec: Codec| {
            let of_codec = |pt: &&Pt| {
                self.rtc.codec_config().params().iter().any(|params| {
                    params.pt() == **pt
                        && params.spec().codec == codec
                        && params.spec().clock_rate == Frequency::FORTY_EIGHT_KHZ
                })
            };
            agreed.iter().find(of_codec).copied()
        };
        let opus = payload_type(Codec::Opus).ok_or(MediaError::NoOpus)?;
        self.telephone_event = payload_type(Codec::Tele);
        self.opus = Some(opus);
        self.remote_playback_rate = playback_rate(remote_sdp, *opus);
        self.state = State::Connecting;
        // The first check is due at once, not when str0m last wanted to be woken.
        self.wake = self.seen;
        Ok(())
    }

    /// RFC 7587 6.1: says what band is worth sending and what band is sent.
    fn with_audio_rates(&self, sdp: &str) -> String {
        let rate = self.playback_rate;
        let Some(payload_type) = opus_payload_type(sdp) else { return sdp.to_owned() };
        if rate >= CLOCK_RATE {
            return sdp.to_owned();
        }
        let prefix = format!("a=fmtp:{payload_type} ");
        let mut text = String::with_capacity(sdp.len() + 64);
        for line in sdp.lines() {
            text.push_str(line);
            if line.starts_with(&prefix) {
                text.push_str(&format!(";maxplaybackrate={rate};sprop-maxcapturerate={rate}"));
            }
            text.push_str("\r\n");
        }
        text
    }

    /// Takes a datagram. `local` is the address on which it came.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        local: SocketAddr,
        source: SocketAddr,
        packet: &[u8],
        emit: &mut dyn FnMut(SocketAddr, SocketAddr, &[u8]),
    ) {
        if self.state == State::Over {
            self.counters.after_end += 1;
            return;
        }
        let now = self.inner(now);
        let Ok(receive) = Receive::new(Protocol::Udp, source, local, packet) else {
            self.counters.malformed += 1;
            return;
        };
        let mut input = Input::Receive(now, receive);
        // STUN must carry our user name and password; everything else must come from a pair that
        // ICE has validated. This also keeps a stranger's ClientHello away from DTLS.
        if !self.rtc.accepts(&input) {
            self.counters.foreign += 1;
            return;
        }
        let now = self.peer_came(now);
        if let Input::Receive(at, _) = &mut input {
            *at = now;
        }
        let class = Class::of(packet);
        let received = self.counters.received;
        if self.rtc.handle_input(input).is_err() {
            match class {
                Class::Dtls => self.counters.dtls_refused += 1,
                _ => self.counters.malformed += 1,
            }
            if !self.rtc.is_alive() {
                self.fail(LegFailure::Handshake);
            }
        }
        self.drain(now, emit);
        if class == Class::Rtp && self.counters.received == received {
            self.counters.unauthentic += 1;
        }
    }

    /// Returns the time of the leg's own clock, which stands while it waits for its peer: DTLS
    /// otherwise gives up 40 s after the offer was accepted.
    fn inner(&mut self, now: Instant) -> Instant {
        let now = now.checked_sub(self.waited).unwrap_or(now);
        if !self.waits_for_peer {
            self.seen = now;
        }
        now
    }

    /// Lets the leg's clock go on once the peer's first packet is there.
    fn peer_came(&mut self, now: Instant) -> Instant {
        if !std::mem::take(&mut self.waits_for_peer) {
            return now;
        }
        self.waited = now.saturating_duration_since(self.seen);
        self.seen
    }

    /// Advances time.
    pub fn handle_timeout(&mut self, now: Instant, emit: &mut dyn FnMut(SocketAddr, SocketAddr, &[u8])) {
        if self.state == State::Over {
            return;
        }
        if self.waits_for_peer {
            return;
        }
        let now = self.inner(now);
        if self.state == State::Connecting && self.limit.is_none() && !self.ice_connected {
            self.limit = Some((now + ICE_LIMIT, LegFailure::Unreachable));
        }
        if self.rtc.handle_input(Input::Timeout(now)).is_err() {
            self.fail(LegFailure::Handshake);
            return;
        }
        self.drain(now, emit);
        if let Some((_, failure)) = self.limit.filter(|(at, _)| *at <= now) {
            self.fail(failure);
        }
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due, `None` once the leg is over and
    /// while an ICE-lite answerer waits for its peer.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.waits_for_peer {
            return None;
        }
        let limit = self.limit.map_or(self.wake, |(at, _)| at.min(self.wake));
        (self.state != State::Over).then_some(limit + self.waited)
    }

    /// Returns the next event. To be called until `None` after every call that takes a time.
    pub fn poll_event(&mut self) -> Option<LegEvent> {
        self.events.pop_front()
    }

    /// Sends a payload with a timestamp of [`CLOCK_RATE`]. Returns whether it was sent: not before
    /// the leg is connected, nor a telephone event that was not negotiated.
    ///
    /// str0m allocates twice per packet: the payload behind an `Arc`, and the datagram.
    pub fn send(
        &mut self,
        now: Instant,
        kind: PayloadKind,
        timestamp: u32,
        marker: bool,
        payload: &[u8],
        emit: &mut dyn FnMut(SocketAddr, SocketAddr, &[u8]),
    ) -> bool {
        let payload_type = match kind {
            PayloadKind::Audio => self.opus,
            PayloadKind::TelephoneEvent => self.telephone_event,
        };
        let now = self.inner(now);
        let (State::Connected, Some(payload_type), Some(mid)) = (self.state, payload_type, self.mid) else {
            return false;
        };
        {
            let mut api = self.rtc.direct_api();
            let Some(stream) = api.stream_tx_by_mid(mid, None) else { return false };
            // The SSRC is random, so the sequence starts at random too (RFC 3550 5.1), below 2^15
            // so that the rollover counter starts at nought (RFC 3711 3.3.1).
            let sequence = self.sequence.unwrap_or(u64::from(*stream.ssrc() & 0x7fff));
            self.sequence = Some(sequence + 1);
            stream.write_rtp(
                RtpWrite::new(payload_type, sequence.into(), timestamp, now, payload).marker(marker),
            );
        }
        self.counters.sent += 1;
        // str0m sends what was written when time moves.
        if self.rtc.handle_input(Input::Timeout(now)).is_err() {
            self.fail(LegFailure::Handshake);
            return false;
        }
        self.drain(now, emit);
        true
    }

    /// Closes the leg: RTCP BYE and DTLS close_notify go out, as far as the leg got.
    pub fn close(&mut self, now: Instant, emit: &mut dyn FnMut(SocketAddr, SocketAddr, &[u8])) {
        if self.state == State::Over {
            return;
        }
        let now = self.inner(now);
        if self.rtc.close().is_ok() {
            self.drain(now, emit);
        }
        self.rtc.disconnect();
        self.state = State::Over;
    }

    /// Says whether media can be sent.
    pub fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    /// Says whether the leg has failed or was closed.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Says whether both sides speak RFC 4733 on this leg. Known once the other description is.
    pub fn has_telephone_event(&self) -> bool {
        self.telephone_event.is_some()
    }

    /// Returns the sampling rate beyond which the other side plays nothing, 8000 to 48000 Hz
    /// (`maxplaybackrate`, RFC 7587 6.1).
    pub fn remote_playback_rate(&self) -> u32 {
        self.remote_playback_rate
    }

    /// Returns the counts so far.
    pub fn counters(&self) -> &WebRtcCounters {
        &self.counters
    }

    fn drain(&mut self, now: Instant, emit: &mut dyn FnMut(SocketAddr, SocketAddr, &[u8])) {
        for _ in 0..MAX_OUTPUTS {
            match self.rtc.poll_output() {
                Ok(Output::Transmit(transmit)) => {
                    emit(transmit.source, transmit.destination, &transmit.contents);
                }
                Ok(Output::Timeout(at)) => {
                    self.wake = at;
                    return;
                }
                Ok(Output::Event(event)) => self.on_event(now, event),
                Err(error) => {
                    let failure = match error {
                        RtcError::RemoteSdp(_) => LegFailure::Fingerprint,
                        _ => LegFailure::Handshake,
                    };
                    self.fail(failure);
                    return;
                }
            }
        }
        self.wake = now;
    }

    fn on_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::IceConnectionStateChange(state) if state.is_connected() => {
                self.ice_connected = true;
                self.limit =
                    (self.state == State::Connecting).then(|| (now + DTLS_LIMIT, LegFailure::Handshake));
            }
            Event::IceConnectionStateChange(state) if state.is_disconnected() && self.ice_connected => {
                self.limit = Some((now + RECONNECT_LIMIT, LegFailure::Lost));
            }
            Event::Connected if self.state == State::Connecting => {
                self.state = State::Connected;
                self.limit = None;
                self.report(LegEvent::Connected);
            }
            Event::RtpPacket(packet) => self.on_packet(packet),
            Event::MediaEgressStats(statistics) => {
                if let Some(fraction) = statistics.loss {
                    self.report(LegEvent::RemoteLoss { percent: fraction * 100.0 });
                }
            }
            Event::Closed => self.fail(LegFailure::Closed),
            _ => {}
        }
    }

    fn on_packet(&mut self, packet: RtpPacket) {
        let payload_type = Some(packet.header.payload_type);
        let kind = if payload_type == self.opus {
            PayloadKind::Audio
        } else if payload_type == self.telephone_event {
            PayloadKind::TelephoneEvent
        } else {
            return;
        };
        self.counters.received += 1;
        self.report(LegEvent::Packet(LegPacket {
            kind,
            sequence: packet.header.sequence_number,
            timestamp: packet.header.timestamp,
            marker: packet.header.marker,
            ssrc: *packet.header.ssrc,
            payload: packet.payload,
        }));
    }

    fn report(&mut self, event: LegEvent) {
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        }
    }

    fn fail(&mut self, failure: LegFailure) {
        if self.state == State::Over {
            return;
        }
        self.state = State::Over;
        self.limit = None;
        self.rtc.disconnect();
        self.events.push_back(LegEvent::Failed(failure));
    }
}

/// RFC 7983 7, with RTP told from RTCP by the payload type (RFC 5761 4).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Dtls,
    Rtp,
    Other,
}

impl Class {
    fn of(packet: &[u8]) -> Self {
        match packet {
            [20..=63, ..] => Class::Dtls,
            [128..=191, second, ..] if !(64..96).contains(&(second & 0x7f)) => Class::Rtp,
            _ => Class::Other,
        }
    }
}

/// Bounds what the parser sees, and admits one audio stream only.
fn check_shape(sdp: &str) -> Result<(), MediaError> {
    if sdp.len() > MAX_SDP_LENGTH {
        return Err(MediaError::SdpTooLong);
    }
    let mut streams = sdp.lines().filter_map(|line| line.strip_prefix("m="));
    let (Some(audio), None) = (streams.next(), streams.next()) else { return Err(MediaError::NotOneAudio) };
    // Port 0 refuses the stream (RFC 3264 6).
    let mut words = audio.split_whitespace();
    if words.next() != Some("audio") || words.next().is_none_or(|port| port == "0") {
        return Err(MediaError::NotOneAudio);
    }
    if sdp.lines().filter(|line| line.starts_with("a=candidate:")).count() > MAX_CANDIDATES {
        return Err(MediaError::SdpTooLong);
    }
    Ok(())
}

fn refused(error: RtcError) -> MediaError {
    match error {
        RtcError::ChangesOutOfOrder => MediaError::OutOfOrder,
        RtcError::Sdp(_) => MediaError::SdpSyntax,
        other => MediaError::SdpRefused(other.to_string()),
    }
}

fn attribute<'a>(sdp: &'a str, prefix: &str) -> Option<&'a str> {
    sdp.lines().find_map(|line| line.strip_prefix(prefix))
}

fn opus_payload_type(sdp: &str) -> Option<u8> {
    sdp.lines().filter_map(|line| line.strip_prefix("a=rtpmap:")).find_map(|map| {
        let (payload_type, encoding) = map.split_once(' ')?;
        encoding.to_ascii_lowercase().starts_with("opus/").then(|| payload_type.parse().ok()).flatten()
    })
}

fn playback_rate(sdp: &str, payload_type: u8) -> u32 {
    attribute(sdp, &format!("a=fmtp:{payload_type} "))
        .and_then(|parameters| {
            let values = parameters.split(';').filter_map(|parameter| parameter.trim().split_once('='));
            values.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("maxplaybackrate"))
        })
        .and_then(|(_, rate)| rate.trim().parse::<u32>().ok())
        .map_or(CLOCK_RATE, |rate| rate.clamp(8_000, CLOCK_RATE))
}
