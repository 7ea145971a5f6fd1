//! The overlay leg: ICE or ICE-lite (RFC 8445), DTLS-SRTP (RFC 5764), Opus (RFC 7587) and
//! telephone events at 48000 Hz (RFC 4733) on one UDP address; beside them G.711 where both sides have it.
//!
//! Session descriptions, ICE and DTLS are str0m's. RTP and RTCP are not: a voice packet touches
//! nothing but `media`, with the keys that `dtls` took out of str0m.
//!
//! str0m negotiates `telephone-event/48000` itself. It knows neither `maxplaybackrate` nor
//! `sprop-maxcapturerate` (RFC 7587 6.1), so those two are written into, and the first is read
//! from, the text of the session description here.

mod candidates;
mod class;
mod description;
mod dtls;
mod g711;
mod media;
mod types;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::format::{Codec, FormatParams};
use str0m::media::{Direction, Frequency, MediaKind, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::Extension;
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig, RtcError};

use super::PayloadKind;
use super::rtp::RemoteReport;
use crate::codec::g711::Law;
use crate::error::MediaError;
use crate::rtp::Numbering;
use crate::rtp::redundancy::Copy;
use candidates::Followed;
pub use candidates::{LocalCandidate, MAX_ADDED_CANDIDATES};
use class::Class;
use description::{check_shape, playback_rate, refused, with_audio_rates};
use dtls::Handover;
use g711::AgreedG711;
use media::{Agreed, Media, Place, Refused, mid_extension};
pub(in crate::leg) use types::fingerprint_of;
pub use types::{DtlsIdentity, LegEvent, LegFailure, WebRtcConfig, WebRtcCounters};

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

/// Longest RTP or RTCP datagram that is taken or sent, in octets.
const MAX_DATAGRAM: usize = 1_500;

/// RTP clock of Opus and the events beside it, in Hz.
pub const CLOCK_RATE: u32 = 48_000;

const TELEPHONE_EVENT_PAYLOAD_TYPE: u8 = 110;
const MAX_EVENTS: usize = 64;
const MAX_OUTPUTS: usize = 512;

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
    handover: Arc<Handover>,
    state: State,
    pending: Option<SdpPendingOffer>,
    mid: Option<Mid>,
    agreed: Option<Agreed>,
    /// RTP and RTCP, once there are keys.
    media: Option<Box<Media>>,
    /// The nominated candidate pair, once there are keys: our address and the other side's.
    path: Option<(SocketAddr, SocketAddr)>,
    /// Where media comes from instead, and so goes.
    followed: Followed,
    /// Candidates of this side and of the other that came one by one.
    added: (usize, usize),
    lite: bool,
    playback_rate: u32,
    remote_playback_rate: u32,
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
            .set_dtls_cert(identity.certificate.as_ref().clone())
            .set_rtp_mode(true)
            .set_ice_lite(config.ice_lite)
            .clear_extension_map()
            .set_extension(4, Extension::RtpMid)
            .clear_codecs();
        let codecs = rtc_config.codec_config();
        // Payload types 111, and 63 for redundancy, as browsers have them.
        codecs.enable_opus(true, config.redundancy);
        codecs.add_config(
            TELEPHONE_EVENT_PAYLOAD_TYPE.into(),
            None,
            Codec::Tele,
            Frequency::FORTY_EIGHT_KHZ,
            None,
            FormatParams { telephone_event_max: Some(15), ..Default::default() },
        );
        if config.g711 {
            g711::configure(codecs);
        }
        let (mut rtc, handover) = dtls::build(rtc_config, now).ok_or(MediaError::Certificate)?;
        for address in &config.local {
            let candidate = Candidate::host(*address, "udp").map_err(|_| MediaError::LocalAddress)?;
            rtc.add_local_candidate(candidate).ok_or(MediaError::LocalAddress)?;
        }
        Ok(Self {
            rtc,
            handover,
            state: State::Negotiating,
            pending: None,
            mid: None,
            agreed: None,
            media: None,
            path: None,
            followed: Followed::new(),
            added: (0, 0),
            lite: config.ice_lite,
            playback_rate: if config.ice_lite { 8_000 } else { 48_000 },
            remote_playback_rate: 48_000,
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

    /// Sets the sampling rate in Hz beyond which nothing need be sent here, 8000 to 48000: offers and answers from now on
    /// say so (`maxplaybackrate`, RFC 7587 6.1). A leg with ICE-lite says 8000 unless it is told otherwise, any other
    /// 48000.
    pub fn set_playback_rate(&mut self, rate: u32) {
        self.playback_rate = rate.clamp(8_000, CLOCK_RATE);
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
        self.followed.offered();
        Ok(with_audio_rates(&offer.to_sdp_string(), self.playback_rate))
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
            self.mid = description::mid(&answer).map(Mid::from);
            self.negotiated(sdp)?;
            self.waits_for_peer = self.lite;
            Ok(with_audio_rates(&answer, self.playback_rate))
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
        let payload_type = |codec: Codec, clock_rate: Frequency| {
            let of_codec = |pt: &&Pt| {
                self.rtc.codec_config().params().iter().any(|params| {
                    params.pt() == **pt
                        && params.spec().codec == codec
                        && params.spec().clock_rate == clock_rate
                })
            };
            agreed.iter().find(of_codec).map(|payload_type| **payload_type)
        };
        let clock_rate = Frequency::FORTY_EIGHT_KHZ;
        let opus = payload_type(Codec::Opus, clock_rate).ok_or(MediaError::NoOpus)?;
        let telephone_event = payload_type(Codec::Tele, clock_rate);
        let g711 = AgreedG711::read(payload_type);
        let params = self.rtc.codec_config().params();
        let redundancy = params.iter().find(|params| *params.pt() == opus).and_then(|params| params.red());
        let redundancy = redundancy.map(|payload_type| *payload_type);
        let cname = media.cname().to_owned();
        let mid = media.remote_extmap().id_of(Extension::RtpMid);
        let mid = mid.map_or_else(Vec::new, |id| mid_extension(id, &media.mid()));
        let ssrc = self.take_streams(remote_sdp).ok_or(MediaError::NotOneAudio)?;
        self.agreed = Some(Agreed { opus, telephone_event, g711, redundancy, ssrc, cname, mid });
        self.remote_playback_rate = playback_rate(remote_sdp, opus);
        self.state = State::Connecting;
        // The first check is due at once, not when str0m last wanted to be woken.
        self.wake = self.seen;
        Ok(())
    }

    /// Takes the streams away from str0m, which else reports on them from time to time. Returns our
    /// source, the one that our description names.
    fn take_streams(&mut self, remote_sdp: &str) -> Option<u32> {
        let mut api = self.rtc.direct_api();
        let ssrc = api.stream_tx_by_mid(self.mid?, None)?.ssrc();
        api.remove_stream_tx(ssrc);
        for theirs in description::sources(remote_sdp) {
            api.remove_stream_rx(theirs.into());
        }
        Some(*ssrc)
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
        let class = Class::of(packet);
        let validated = matches!(class, Class::Rtp | Class::Rtcp) && self.path() == Some((local, source));
        if !validated {
            let Ok(receive) = Receive::new(Protocol::Udp, source, local, packet) else {
                self.counters.malformed += 1;
                return;
            };
            let input = Input::Receive(now, receive);
            // STUN must carry our user name and password; everything else must come from a pair that
            // ICE has validated. This also keeps a stranger's ClientHello away from DTLS.
            if !self.rtc.accepts(&input) {
                self.counters.foreign += 1;
                return;
            }
        }
        match class {
            Class::Rtp => self.receive_rtp(now, local, source, packet),
            Class::Rtcp => self.receive_rtcp(now, packet),
            Class::Dtls | Class::Other => self.handle_signalling(now, local, source, packet, class, emit),
        }
    }

    /// Takes STUN or DTLS.
    fn handle_signalling(
        &mut self,
        now: Instant,
        local: SocketAddr,
        source: SocketAddr,
        packet: &[u8],
        class: Class,
        emit: &mut dyn FnMut(SocketAddr, SocketAddr, &[u8]),
    ) {
        let now = self.peer_came(now);
        let Ok(receive) = Receive::new(Protocol::Udp, source, local, packet) else { return };
        if self.rtc.handle_input(Input::Receive(now, receive)).is_err() {
            match class {
                Class::Dtls => self.counters.dtls_refused += 1,
                _ => self.counters.malformed += 1,
            }
            if !self.rtc.is_alive() {
                self.fail(LegFailure::Handshake);
            }
        }
        self.ask_for_path();
        self.drain(now, emit);
    }

    fn receive_rtp(&mut self, now: Instant, local: SocketAddr, source: SocketAddr, packet: &[u8]) {
        let received = match &mut self.media {
            Some(media) => media.receive_rtp(now, packet),
            None => Err(Refused::Unauthentic),
        };
        match received {
            Ok(packet) => {
                self.counters.received += 1;
                self.followed.heard(now, self.path, (local, source));
                self.report(LegEvent::Packet(packet));
            }
            Err(refused) => self.refuse(&refused),
        }
    }

    fn receive_rtcp(&mut self, now: Instant, packet: &[u8]) {
        let received = match &mut self.media {
            Some(media) => media.receive_rtcp(now, packet),
            None => Err(Refused::Unauthentic),
        };
        match received {
            Ok(Some(percent)) => self.report(LegEvent::RemoteLoss { percent }),
            Ok(None) => {}
            Err(refused) => self.refuse(&refused),
        }
    }

    fn refuse(&mut self, refused: &Refused) {
        match refused {
            Refused::Unauthentic => self.counters.unauthentic += 1,
            Refused::Malformed => self.counters.malformed += 1,
            Refused::Redundancy(reason) => {
                // Those of a sender have no place.
                if let Some(count) = self.counters.redundancy.get_mut(*reason as usize) {
                    *count += 1;
                }
            }
        }
    }

    /// ICE may nominate another pair whenever it has had something to do.
    fn ask_for_path(&mut self) {
        if self.state == State::Connected {
            self.handover.ask_for_path();
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
        if self.wake <= now {
            if self.rtc.handle_input(Input::Timeout(now)).is_err() {
                self.fail(LegFailure::Handshake);
                return;
            }
            self.ask_for_path();
            self.drain(now, emit);
        }
        self.send_report(now, emit);
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
        let report = self.media.as_ref().map_or(limit, |media| media.report_at().min(limit));
        (self.state != State::Over).then_some(report + self.waited)
    }

    /// Returns the next event. To be called until `None` after every call that takes a time.
    pub fn poll_event(&mut self) -> Option<LegEvent> {
        self.events.pop_front()
    }

    /// Sends a payload with a timestamp on the clock of its kind. Returns whether it was sent: not before
    /// the leg is connected, nor what was not negotiated.
    pub fn send(
        &mut self,
        now: Instant,
        kind: PayloadKind,
        timestamp: u32,
        marker: bool,
        payload: &[u8],
        emit: &mut dyn FnMut(SocketAddr, SocketAddr, &[u8]),
    ) -> bool {
        self.write(now, kind, Place::Next { timestamp }, marker, payload, &[], emit)
    }

    /// Sends a frame of Opus with copies of those before it (RFC 2198), as [`send`](Self::send) does otherwise; without
    /// them where redundancy was not negotiated.
    pub fn send_redundant(
        &mut self,
        now: Instant,
        timestamp: u32,
        marker: bool,
        payload: &[u8],
        copies: &[Copy<'_>],
        emit: &mut dyn FnMut(SocketAddr, SocketAddr, &[u8]),
    ) -> bool {
        self.write(now, PayloadKind::Audio, Place::Next { timestamp }, marker, payload, copies, emit)
    }

    /// Sends a payload with the numbers given, as [`send`](Self::send) does otherwise: what comes
    /// from another leg keeps the order and the gaps it had there.
    pub fn forward(
        &mut self,
        now: Instant,
        kind: PayloadKind,
        numbering: Numbering,
        marker: bool,
        payload: &[u8],
        emit: &mut dyn FnMut(SocketAddr, SocketAddr, &[u8]),
    ) -> bool {
        self.write(now, kind, Place::At(numbering), marker, payload, &[], emit)
    }

    /// Returns the numbers of a packet that follows all that were sent in the stream of Opus; `None` before the
    /// leg is connected.
    pub fn next_numbering(&mut self, now: Instant) -> Option<Numbering> {
        self.next_numbering_of(now, PayloadKind::Audio)
    }

    /// As [`next_numbering`](Self::next_numbering), in the stream of a kind.
    pub fn next_numbering_of(&mut self, now: Instant, kind: PayloadKind) -> Option<Numbering> {
        let now = self.inner(now);
        let media = self.media.as_ref().filter(|_| self.state == State::Connected)?;
        Some(media.next_numbering(now, kind))
    }

    // One argument per fact of a packet; a struct would only be taken apart again.
    #[allow(clippy::too_many_arguments)]
    fn write(
        &mut self,
        now: Instant,
        kind: PayloadKind,
        place: Place,
        marker: bool,
        payload: &[u8],
        copies: &[Copy<'_>],
        emit: &mut dyn FnMut(SocketAddr, SocketAddr, &[u8]),
    ) -> bool {
        let now = self.inner(now);
        let path = self.path();
        let (State::Connected, Some(media), Some((local, remote))) = (self.state, &mut self.media, path)
        else {
            return false;
        };
        let Some(packet) = media.write(now, kind, place, marker, payload, copies) else { return false };
        emit(local, remote, packet);
        self.counters.sent += 1;
        true
    }

    /// Sends the RTCP report that is due, if one is.
    fn send_report(&mut self, now: Instant, emit: &mut dyn FnMut(SocketAddr, SocketAddr, &[u8])) {
        let path = self.path();
        let (State::Connected, Some(media), Some((local, remote))) = (self.state, &mut self.media, path)
        else {
            return;
        };
        if media.report_at() <= now
            && let Some(packet) = media.report(now, false)
        {
            emit(local, remote, packet);
        }
    }

    /// Closes the leg: RTCP BYE and DTLS close_notify go out, as far as the leg got.
    pub fn close(&mut self, now: Instant, emit: &mut dyn FnMut(SocketAddr, SocketAddr, &[u8])) {
        if self.state == State::Over {
            return;
        }
        let now = self.inner(now);
        let path = self.path();
        if let (Some(media), Some((local, remote))) = (&mut self.media, path)
            && let Some(packet) = media.report(now, true)
        {
            emit(local, remote, packet);
        }
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
        self.agreed.as_ref().is_some_and(|agreed| agreed.telephone_event.is_some())
    }

    /// Says whether both sides take a law of G.711 beside Opus. Known once the other description is.
    pub fn has_g711(&self, law: Law) -> bool {
        self.agreed.as_ref().is_some_and(|agreed| agreed.g711.payload_type(law).is_some())
    }

    /// Says whether both sides speak RFC 4733 on the clock of G.711.
    pub fn has_g711_event(&self) -> bool {
        self.agreed.as_ref().is_some_and(|agreed| agreed.g711.telephone_event.is_some())
    }

    /// Says whether both sides take redundant audio data (RFC 2198) in place of plain Opus. Known once the other
    /// description is.
    pub fn has_redundancy(&self) -> bool {
        self.agreed.as_ref().is_some_and(|agreed| agreed.redundancy.is_some())
    }

    /// Returns the round trip time to the other side, once RTCP has shown it (RFC 3550 6.4.1).
    pub fn round_trip(&self) -> Option<Duration> {
        self.media.as_ref().and_then(|media| media.round_trip())
    }

    /// Returns the sampling rate beyond which the other side plays nothing, 8000 to 48000 Hz
    /// (`maxplaybackrate`, RFC 7587 6.1).
    pub fn remote_playback_rate(&self) -> u32 {
        self.remote_playback_rate
    }

    /// Returns what the other side last reported of the media we send.
    pub fn remote_report(&self) -> Option<&RemoteReport> {
        self.media.as_ref().and_then(|media| media.remote_report())
    }

    /// Returns the counts so far.
    pub fn counters(&self) -> &WebRtcCounters {
        &self.counters
    }

    fn drain(&mut self, now: Instant, emit: &mut dyn FnMut(SocketAddr, SocketAddr, &[u8])) {
        for _ in 0..MAX_OUTPUTS {
            match self.rtc.poll_output() {
                // What was asked for in `ask_for_path`.
                Ok(Output::Transmit(transmit)) if transmit.contents.is_empty() => {
                    self.nominated((transmit.source, transmit.destination));
                }
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
            Event::Connected if self.state == State::Connecting => self.connected(now),
            Event::Closed => self.fail(LegFailure::Closed),
            _ => {}
        }
    }

    fn connected(&mut self, now: Instant) {
        let (Some(keys), Some(agreed)) = (self.handover.take_keys(), self.agreed.clone()) else {
            self.fail(LegFailure::Handshake);
            return;
        };
        self.media = Some(Box::new(Media::new(agreed, &keys, now)));
        self.state = State::Connected;
        self.limit = None;
        self.ask_for_path();
        self.report(LegEvent::Connected);
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
