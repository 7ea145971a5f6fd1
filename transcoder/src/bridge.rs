//! The media of one call: Opus or G.711 over DTLS-SRTP on the overlay side, G.711 or G.722 over RTP or SRTP on the
//! trunk side, everything in between at 8 kHz, or at 16 kHz with G.722. Where the trunk speaks Opus too, packets pass as
//! they are.

mod agreed;
mod edge;
mod figures;
mod outgoing;
mod voiceband;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use call_model::{Codec, DigitFilter, DigitPath, DtmfDigit, Side};

use crate::codec::fec::FecPolicy;
use crate::edge::{EdgeCodec, EdgeControl};
use crate::error::MediaError;
use crate::leg::rtp::{Received, RtpLeg};
use crate::leg::webrtc::{DtlsIdentity, LegEvent, LegFailure, WebRtcLeg};
use crate::leg::{LegPacket, PayloadKind};
use crate::quality::{AudioMeter, Meter};
use crate::rtp::Numbering;
use crate::seed::Seeded;
use crate::stream::coding::NARROW;
use crate::stream::edge_receiver::EdgeReceiver;
use crate::stream::edge_sender::EdgeSender;
use crate::stream::passage::Passage;
use crate::stream::sampled::{SampledReceiver, SampledSender};
use crate::stream::{Played, TICK};
use crate::tone::voiceband::VoicebandSignal;
use agreed::codec_error;
use edge::TrunkEncoder;
use outgoing::{overlay_emit, pass_to_overlay, trunk_emit};
use voiceband::Voiceband;

/// Samples of a tick at 8 kHz, which are ticks of the clock of the trunk's sample-based codecs, and at 16 kHz.
const TICK_SAMPLES: usize = 160;
const MOST_SAMPLES: usize = 2 * TICK_SAMPLES;
/// Most ticks that are caught up after a late wake-up; audio older than that is given up.
const MAX_CATCH_UP: u32 = 10;
/// Most events that wait to be polled.
pub(crate) const MAX_EVENTS: usize = 64;
/// A digit is forwarded no shorter than what receivers must detect (ITU-T Q.24) ...
pub(crate) const MIN_DIGIT_MS: u16 = 40;
/// ... and no longer than this, for it holds the voice up meanwhile.
pub(crate) const MAX_DIGIT_MS: u16 = 1_000;

/// Which of the two sockets of a leg is meant. The overlay leg has [`Port::Rtp`] only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Port {
    /// RTP, or everything where RTCP shares the port (RFC 5761).
    Rtp,
    /// RTCP.
    Rtcp,
}

/// A datagram to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The leg that sends it.
    pub side: Side,
    /// The socket of the leg.
    pub port: Port,
    /// The address to send from.
    pub local: SocketAddr,
    /// The address to send to.
    pub destination: SocketAddr,
    /// The datagram.
    pub bytes: &'a [u8],
}

/// Receives what is to be sent.
pub type Emit<'a> = &'a mut dyn FnMut(Outgoing<'_>);

/// Settings of a bridge.
#[derive(Clone, Debug)]
pub struct BridgeConfig {
    /// Our RTP address towards the trunk.
    pub trunk_rtp: SocketAddr,
    /// Our RTCP address towards the trunk.
    pub trunk_rtcp: SocketAddr,
    /// How long a side may send nothing before [`BridgeEvent::Silent`].
    pub media_timeout: Duration,
    /// Bit rate of Opus towards the overlay in narrow band, in bit/s. With in-band FEC it is at least
    /// [`FEC_BITRATE`](crate::codec::fec::FEC_BITRATE). In wide band it is 12,000 more, and
    /// with FEC at least [`WIDEBAND_FEC_BITRATE`](crate::codec::fec::WIDEBAND_FEC_BITRATE).
    pub bitrate: u32,
    /// Complexity of the Opus encoder, 0 to 10.
    pub complexity: u8,
    /// When Opus carries in-band FEC.
    pub fec: FecPolicy,
    /// Whether silence from the trunk is left unencoded and sent as DTX.
    pub suppress_silence: bool,
    /// Whether digits go to the trunk as tones in its audio (ITU-T Q.23) where it has no telephone events. If not,
    /// they are left to signalling.
    pub in_band_digits: bool,
    /// Whether G.711 goes to the overlay, where the overlay leg negotiated it.
    pub edge: EdgeCodec,
    /// Our certificate towards a trunk whose media DTLS keys (RFC 5764); `None`: no such trunk.
    pub identity: Option<DtlsIdentity>,
}

impl BridgeConfig {
    /// Builds the usual settings: RTCP on the port above RTP, 30 s media timeout, 16 kbit/s,
    /// complexity 5, FEC once the other side reports loss, silence suppressed, no digits as tones, G.711 on a good
    /// path.
    pub fn new(trunk_rtp: SocketAddr) -> Self {
        let trunk_rtcp = SocketAddr::new(trunk_rtp.ip(), trunk_rtp.port().wrapping_add(1));
        Self {
            trunk_rtp,
            trunk_rtcp,
            media_timeout: Duration::from_secs(30),
            bitrate: 16_000,
            complexity: 5,
            fec: FecPolicy::ByLoss,
            suppress_silence: true,
            in_band_digits: false,
            edge: EdgeCodec::Auto,
            identity: None,
        }
    }
}

/// What a bridge reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BridgeEvent {
    /// ICE and DTLS of the overlay leg are through.
    OverlayConnected,
    /// The first usable RTP packet came from a side.
    FirstPacket {
        /// The side that sent it.
        side: Side,
    },
    /// A digit was dialled.
    Dtmf {
        /// The side that sent it.
        side: Side,
        /// The digit.
        digit: DtmfDigit,
        /// Its length in milliseconds.
        duration_ms: u16,
        /// Whether it goes on in RTP to the other side, as an event or as a tone. If not, signalling may carry it.
        forwarded: bool,
    },
    /// A fax machine or a modem is heard. Until [`BridgeEvent::VoicebandEnded`] the audio of both sides is voiceband
    /// data (ITU-T V.152): jitter buffers are fixed, lost frames are silence, and silence is sent.
    Voiceband {
        /// The side that it was heard of.
        side: Side,
        /// What was heard. Each signal of a side is told once.
        signal: VoicebandSignal,
    },
    /// Neither side has said anything for 8 s: the audio is voice again.
    VoicebandEnded,
    /// No packet came from a side for the media timeout. Repeated each time it passes again;
    /// never while either side holds the other.
    Silent {
        /// The silent side.
        side: Side,
    },
    /// The overlay leg is over; it cannot come back.
    OverlayFailed {
        /// Why.
        failure: LegFailure,
    },
    /// DTLS with a trunk failed: there is no media with it, unless another offer and answer follow.
    TrunkFailed {
        /// The side of that trunk.
        side: Side,
        /// Why.
        failure: LegFailure,
    },
}

/// When a side was last heard.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    pub(crate) heard: bool,
    pub(crate) deadline: Option<Instant>,
}

/// Both directions of Opus that passes.
struct Passing {
    to_overlay: Passage,
    to_trunk: Passage,
    /// For an overlay user who sends G.711 all the same.
    encoder: TrunkEncoder,
}

/// The media of one call. Sans-IO and `Send`; the driver hands in datagrams and time and sends
/// what comes out of `emit`.
pub struct Bridge {
    config: BridgeConfig,
    overlay: WebRtcLeg,
    overlay_in: EdgeReceiver,
    overlay_out: EdgeSender,
    control: EdgeControl,
    edge_seed: u64,
    overlay_held: bool,
    overlay_watch: Watch,
    /// The digits that go from the overlay to the trunk: those of its media and those it signals.
    overlay_digits: DigitFilter,
    trunk: RtpLeg,
    trunk_in: SampledReceiver,
    trunk_out: SampledSender,
    trunk_watch: Watch,
    trunk_digits: DigitFilter,
    /// Sampling rate between the legs, in Hz.
    sample_rate: u32,
    voiceband: Voiceband,
    /// While both legs speak Opus.
    passing: Option<Box<Passing>>,
    /// Whether they ever did.
    has_passed: bool,
    trunk_codec: Codec,
    audio: AudioMeter,
    overlay_meter: Meter,
    trunk_meter: Meter,
    tick_at: Instant,
    ticks_skipped: u64,
    events: VecDeque<BridgeEvent>,
}

impl Bridge {
    /// Builds a bridge round an overlay leg that has offered or answered. The seed decides
    /// SSRCs, first sequence numbers and timestamps, RTCP times and the phase of the tick.
    pub fn new(
        config: BridgeConfig,
        overlay: WebRtcLeg,
        seed: u64,
        now: Instant,
    ) -> Result<Self, MediaError> {
        let mut seeds = Seeded::new(seed);
        let encoder = agreed::encoder_config(&config, NARROW, NARROW);
        let phase = Duration::from_micros(seeds.next_u64() % 8 * 2_500);
        Ok(Self {
            overlay,
            overlay_in: EdgeReceiver::new(NARROW, &mut seeds).map_err(codec_error)?,
            overlay_out: EdgeSender::new(&encoder, config.fec, config.suppress_silence, &mut seeds)
                .map_err(codec_error)?,
            overlay_held: false,
            overlay_watch: Watch::default(),
            overlay_digits: DigitFilter::default(),
            trunk: RtpLeg::new(seeds.next_u64(), now).with_identity(config.identity.clone()),
            trunk_in: SampledReceiver::new(NARROW, &mut seeds),
            trunk_out: SampledSender::new(),
            trunk_watch: Watch::default(),
            trunk_digits: DigitFilter::default(),
            sample_rate: NARROW,
            voiceband: Voiceband::default(),
            passing: None,
            has_passed: false,
            trunk_codec: Codec::Pcma,
            audio: AudioMeter::new(),
            overlay_meter: Meter::default(),
            trunk_meter: Meter::default(),
            tick_at: now + phase,
            ticks_skipped: 0,
            events: VecDeque::with_capacity(MAX_EVENTS),
            control: EdgeControl::new(config.edge),
            edge_seed: seeds.next_u64(),
            config,
        })
    }

    /// Sets when the next tick is due; those after follow every 20 ms. A driver that looks at its
    /// sockets in turns puts the ticks of its calls on them, so that none waits for a turn.
    pub fn set_tick(&mut self, at: Instant) {
        self.tick_at = at;
    }

    /// Chooses whether digits go to the trunk as tones ([`BridgeConfig::in_band_digits`]), where the trunk is chosen
    /// after the bridge was built. Counts from the next [`set_trunk_media`](Self::set_trunk_media) on.
    pub fn set_in_band_digits(&mut self, on: bool) {
        self.config.in_band_digits = on;
    }

    /// Takes the answer to the overlay leg's offer. An error ends that leg.
    pub fn accept_overlay_answer(&mut self, sdp: &str, _now: Instant) -> Result<(), MediaError> {
        self.overlay.accept_answer(sdp)
    }

    /// Queues a digit that the other side signalled to be sent on a side, unless it is one that came with the
    /// media of that side. Returns false if the side takes no digits in RTP, or too many digits wait:
    /// then signalling may carry it.
    pub fn send_dtmf(&mut self, now: Instant, side: Side, digit: DtmfDigit, duration_ms: u16) -> bool {
        self.forward_digit(now, side, DigitPath::Signalling, digit, duration_ms)
    }

    /// Sends a digit on a side that came by one way, once if it comes by the other too (RFC 4733 and INFO at
    /// once). What goes out by no event is not taken: whoever carries it otherwise tells it by itself.
    fn forward_digit(
        &mut self,
        now: Instant,
        side: Side,
        path: DigitPath,
        digit: DtmfDigit,
        duration_ms: u16,
    ) -> bool {
        let lasted = match path {
            DigitPath::Media => Duration::from_millis(duration_ms.into()),
            // How long it will be heard.
            DigitPath::Signalling => Duration::ZERO,
        };
        if !self.carries_digits(side) {
            return false;
        }
        let duration_ms = duration_ms.clamp(MIN_DIGIT_MS, MAX_DIGIT_MS);
        match side {
            Side::Overlay => {
                !self.trunk_digits.take(now, lasted, path, digit)
                    || match &mut self.passing {
                        Some(passing) => passing.to_overlay.queue_dtmf(digit, duration_ms),
                        None => self.overlay_out.queue_dtmf(digit, duration_ms),
                    }
            }
            Side::Trunk => {
                !self.overlay_digits.take(now, lasted, path, digit)
                    || match &mut self.passing {
                        Some(passing) => passing.to_trunk.queue_dtmf(digit, duration_ms),
                        None => self.trunk_out.queue_dtmf(digit, duration_ms),
                    }
            }
            Side::Onward => false,
        }
    }

    /// Says whether a side takes digits in RTP: as telephone events, or as tones where that is wanted
    /// ([`BridgeConfig::in_band_digits`]). If not, signalling may carry them.
    pub fn carries_digits(&self, side: Side) -> bool {
        (side == Side::Trunk && self.trunk_out.is_in_band()) || self.has_telephone_event(side)
    }

    /// Says whether a side has telephone events in RTP (RFC 4733).
    pub fn has_telephone_event(&self, side: Side) -> bool {
        match side {
            Side::Overlay => self.overlay.has_telephone_event(),
            Side::Trunk => self.trunk.has_telephone_event(),
            Side::Onward => false,
        }
    }

    /// Takes a datagram that came from `source` on the address `local`. Anything at all may come:
    /// what is not wanted is counted.
    // One argument per fact of a datagram; a struct would only be taken apart again.
    #[allow(clippy::too_many_arguments)]
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        side: Side,
        port: Port,
        local: SocketAddr,
        source: SocketAddr,
        packet: &[u8],
        emit: Emit<'_>,
    ) {
        match side {
            Side::Overlay => {
                self.overlay.handle_datagram(now, local, source, packet, &mut overlay_emit(emit));
                self.take_overlay_events(now, emit);
            }
            Side::Trunk => {
                let Ok(received) = self.trunk.handle_datagram(now, port, source, packet) else {
                    return self.poll_trunk(now, emit);
                };
                self.trunk_watch.deadline = Some(now + self.config.media_timeout);
                if !matches!(received, Received::Nothing)
                    && !std::mem::replace(&mut self.trunk_watch.heard, true)
                {
                    report(&mut self.events, BridgeEvent::FirstPacket { side: Side::Trunk });
                }
                if let (Received::Opus(packet), Some(passing)) = (&received, &mut self.passing) {
                    let silent = self.overlay_held || self.trunk_in.hears_digit();
                    pass_to_overlay(now, packet, silent, &mut passing.to_overlay, &mut self.overlay, emit);
                }
                self.trunk_in.receive(now, received);
                self.take_digits(now);
                self.poll_trunk(now, emit);
            }
            Side::Onward => {}
        }
    }

    /// Does what is due: ICE, DTLS and RTCP timers, the audio of each tick that has passed.
    pub fn handle_timeout(&mut self, now: Instant, emit: Emit<'_>) {
        if self.overlay.poll_timeout().is_some_and(|at| at <= now) {
            self.overlay.handle_timeout(now, &mut overlay_emit(emit));
            self.take_overlay_events(now, emit);
        }
        if self.trunk.poll_timeout().is_some_and(|at| at <= now) {
            self.trunk.set_metrics(self.trunk_metrics());
            self.trunk.handle_timeout(now, &mut trunk_emit(&self.config, emit));
            self.poll_trunk(now, emit);
        }
        self.overlay_in.handle_timeout(now);
        self.trunk_in.handle_timeout(now);
        self.take_digits(now);
        self.skip_hopeless_ticks(now);
        while self.tick_at <= now {
            self.tick(now, emit);
            self.tick_at += TICK;
        }
        // Tones are heard in what was played.
        self.take_digits(now);
        self.watch(now);
    }

    fn skip_hopeless_ticks(&mut self, now: Instant) {
        let late = now.saturating_duration_since(self.tick_at).as_millis() / TICK.as_millis();
        let late = u32::try_from(late).unwrap_or(u32::MAX);
        if let Some(skipped) = late.checked_sub(MAX_CATCH_UP).filter(|&skipped| skipped > 0) {
            self.tick_at += TICK * skipped;
            self.ticks_skipped += u64::from(skipped);
            self.overlay_out.skip(u64::from(skipped));
            self.trunk_out.skip(u64::from(skipped) * TICK_SAMPLES as u64);
            if let Some(passing) = &mut self.passing {
                passing.to_overlay.skip(u64::from(skipped));
                passing.to_trunk.skip(u64::from(skipped));
            }
        }
    }

    fn tick(&mut self, now: Instant, emit: Emit<'_>) {
        self.rate_tick();
        if self.passing.is_some() {
            return self.tick_passing(now, emit);
        }
        self.steer(now);
        let (mut pcm, mut from_overlay) = ([0; MOST_SAMPLES], [0; MOST_SAMPLES]);
        let samples = self.sample_rate as usize / 50;
        let (pcm, from_overlay) = (&mut pcm[..samples], &mut from_overlay[..samples]);
        let mut heard = Played::Nothing;
        if self.voiceband.has_ended() {
            self.end_voiceband();
        }
        if self.trunk.media().is_some() {
            // The trunk gets a steady stream, silence included, from the start: border elements
            // on the way open for it.
            heard = self.overlay_in.read(self.tick_at, from_overlay);
            self.listen(Side::Overlay, from_overlay);
            let noise = self.overlay_in.comfort_noise();
            let emit = &mut trunk_emit(&self.config, emit);
            self.trunk_out.tick(now, from_overlay, noise, &mut self.trunk, emit);
        }
        let played = self.trunk_in.read(self.tick_at, pcm);
        self.listen(Side::Trunk, pcm);
        let overlay = (heard == Played::Audio).then_some(&from_overlay[..]);
        let trunk = (played == Played::Audio).then_some(&pcm[..]);
        self.audio.observe(overlay, trunk, self.is_held());
        let audible = played == Played::Audio && !self.overlay_held;
        let frame = audible.then_some(&pcm[..]);
        self.overlay_out.tick(now, frame, &mut self.overlay, &mut overlay_emit(emit));
    }

    /// Listens for fax machines and modems in what a side said.
    fn listen(&mut self, side: Side, pcm: &[i16]) {
        let Some(signal) = self.voiceband.hear(side, pcm) else { return };
        report(&mut self.events, BridgeEvent::Voiceband { side, signal });
        if self.voiceband.begin() {
            self.set_voiceband(true);
        }
    }

    fn end_voiceband(&mut self) {
        if self.voiceband.is_active() {
            self.set_voiceband(false);
            report(&mut self.events, BridgeEvent::VoicebandEnded);
        }
        self.voiceband.end();
    }

    fn set_voiceband(&mut self, on: bool) {
        self.trunk_in.set_voiceband(on);
        self.overlay_in.set_voiceband(on);
        self.overlay_out.set_voiceband(on);
    }

    /// Sends the digits that are due where voice passes by itself.
    fn tick_passing(&mut self, now: Instant, emit: Emit<'_>) {
        // The clocks of what is made here go on, for the trunk may speak G.711 again.
        self.overlay_out.skip(1);
        self.trunk_out.skip(TICK_SAMPLES as u64);
        self.encode_for_trunk(now, &mut *emit);
        let Some(passing) = &mut self.passing else { return };
        let kind = PayloadKind::TelephoneEvent;
        // Digits wait while hold or the lack of keys forbids to send.
        if self.trunk.can_send() {
            if let Some(event) = passing.to_trunk.tick(self.trunk.next_numbering(now)) {
                let mut out = trunk_emit(&self.config, &mut *emit);
                self.trunk.forward(now, kind, event.marker, event.numbering, &event.payload, &mut out);
            }
        } else {
            passing.to_trunk.skip(1);
        }
        if let Some(next) = self.overlay.next_numbering(now)
            && let Some(event) = passing.to_overlay.tick(next)
        {
            let mut out = overlay_emit(emit);
            self.overlay.forward(now, kind, event.numbering, event.marker, &event.payload, &mut out);
        }
    }

    /// Passes a packet of the overlay's on to a trunk that speaks Opus. Says whether there is one.
    fn pass_to_trunk(&mut self, now: Instant, packet: &LegPacket, emit: Emit<'_>) -> bool {
        let Some(passing) = &mut self.passing else { return false };
        self.overlay_in.end_g711();
        self.overlay_in.count(now, packet);
        // RFC 4733 2.5.1.3: what sounds under an event is the same digit once more.
        if self.overlay_in.hears_digit() {
            passing.to_trunk.pause();
            return true;
        }
        let was = Numbering { sequence: packet.sequence, timestamp: packet.timestamp };
        let next = self.trunk.next_numbering(now);
        if let Some((numbering, marker)) = passing.to_trunk.number(packet.ssrc, was, packet.marker, next) {
            let mut out = trunk_emit(&self.config, emit);
            if !self.trunk.forward(now, PayloadKind::Audio, marker, numbering, &packet.payload, &mut out) {
                passing.to_trunk.pause();
            }
        }
        true
    }

    fn watch(&mut self, now: Instant) {
        let held = self.is_held();
        for (side, watch) in [(Side::Overlay, &mut self.overlay_watch), (Side::Trunk, &mut self.trunk_watch)]
        {
            if watch.deadline.is_some_and(|at| at <= now) {
                watch.deadline = Some(now + self.config.media_timeout);
                if !held {
                    report(&mut self.events, BridgeEvent::Silent { side });
                }
            }
        }
    }

    fn take_overlay_events(&mut self, now: Instant, emit: Emit<'_>) {
        while let Some(event) = self.overlay.poll_event() {
            match event {
                LegEvent::Connected => {
                    self.overlay_watch.deadline = Some(now + self.config.media_timeout);
                    self.expect_g711(now);
                    self.fit_playback_rate();
                    report(&mut self.events, BridgeEvent::OverlayConnected);
                }
                LegEvent::Packet(packet) => {
                    self.overlay_watch.deadline = Some(now + self.config.media_timeout);
                    if !std::mem::replace(&mut self.overlay_watch.heard, true) {
                        report(&mut self.events, BridgeEvent::FirstPacket { side: Side::Overlay });
                    }
                    if packet.kind != PayloadKind::Audio || !self.pass_to_trunk(now, &packet, emit) {
                        self.overlay_in.receive(now, &packet);
                    }
                }
                LegEvent::RemoteLoss { percent } => {
                    self.overlay_out.adapt(percent, &self.overlay);
                    self.control.reported(now, percent);
                }
                LegEvent::Failed(failure) => {
                    self.overlay_watch.deadline = None;
                    report(&mut self.events, BridgeEvent::OverlayFailed { failure });
                }
            }
        }
        self.take_digits(now);
    }

    /// A digit goes on when it has ended, so that its length is known; it is sent once.
    fn take_digits(&mut self, now: Instant) {
        let path = DigitPath::Media;
        while let Some((digit, duration_ms)) = self.overlay_in.poll_dtmf() {
            let forwarded = self.forward_digit(now, Side::Trunk, path, digit, duration_ms);
            report(
                &mut self.events,
                BridgeEvent::Dtmf { side: Side::Overlay, digit, duration_ms, forwarded },
            );
        }
        while let Some((digit, duration_ms)) = self.trunk_in.poll_dtmf() {
            if self.trunk_out.is_echo(now, digit) {
                continue;
            }
            let forwarded = self.overlay.is_connected()
                && self.forward_digit(now, Side::Overlay, path, digit, duration_ms);
            report(&mut self.events, BridgeEvent::Dtmf { side: Side::Trunk, digit, duration_ms, forwarded });
        }
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timers = [
            self.overlay.poll_timeout(),
            self.trunk.poll_timeout(),
            self.overlay_in.poll_timeout(),
            self.trunk_in.poll_timeout(),
        ];
        timers.into_iter().flatten().chain([self.tick_at]).min()
    }

    /// Returns the next event. To be called until `None` after every call that takes a time.
    pub fn poll_event(&mut self) -> Option<BridgeEvent> {
        self.events.pop_front()
    }

    /// Ends the media: RTCP BYE to both sides and DTLS close_notify go out. Nothing is sent after.
    pub fn stop(&mut self, now: Instant, emit: Emit<'_>) {
        self.trunk.set_metrics(self.trunk_metrics());
        self.trunk.stop(now, &mut trunk_emit(&self.config, emit));
        self.overlay.close(now, &mut overlay_emit(emit));
        self.overlay_watch.deadline = None;
        self.trunk_watch.deadline = None;
    }

    /// Sets the complexity of the Opus encoder, 0 to 10: what a busy worker turns down first.
    pub fn set_complexity(&mut self, complexity: u8) -> Result<(), MediaError> {
        self.overlay_out.set_complexity(complexity).map_err(codec_error)?;
        self.config.complexity = complexity;
        Ok(())
    }

    /// Says whether the overlay leg can carry media.
    pub fn is_overlay_connected(&self) -> bool {
        self.overlay.is_connected()
    }
}

impl std::fmt::Debug for Bridge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bridge")
            .field("overlay", &self.overlay)
            .field("trunk", self.trunk.counters())
            .finish()
    }
}

pub(crate) fn report(events: &mut VecDeque<BridgeEvent>, event: BridgeEvent) {
    if events.len() < MAX_EVENTS {
        events.push_back(event);
    }
}
