//! The media of an overlay end user: linear PCM into and out of a WebRTC leg with Opus or G.711.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use call_model::{Codec, DtmfDigit, LegQuality, Side};

use crate::bridge::{Emit, Outgoing, Port};
use crate::codec::fec::FecPolicy;
use crate::codec::g711::Law;
use crate::codec::opus::{Bandwidth, EncoderConfig};
use crate::edge::{EdgeCodec, EdgeControl, Seen};
use crate::error::MediaError;
use crate::leg::rtp::CLOCK_RATE;
use crate::leg::webrtc::{LegEvent, LegFailure, LocalCandidate, WebRtcCounters, WebRtcLeg};
use crate::seed::Seeded;
use crate::stream::edge_receiver::EdgeReceiver;
use crate::stream::edge_sender::EdgeSender;
use crate::stream::{Fifo, Played, TICK};

/// Most ticks that are caught up after a late wake-up; audio older than that is given up.
const MAX_CATCH_UP: u128 = 10;
/// Frames that wait for the loudspeaker before the oldest is dropped: what a sound card that is
/// slower than our clock may lag.
const PLAYOUT_FRAMES: usize = 3;
const MAX_EVENTS: usize = 64;

/// Settings of a phone.
#[derive(Clone, Debug)]
pub struct PhoneConfig {
    /// Sampling rate of microphone and loudspeaker: 8000, 16000 or 48000 Hz.
    pub sample_rate: u32,
    /// Bit rate in bit/s.
    pub bitrate: u32,
    /// Complexity of the Opus encoder, 0 to 10.
    pub complexity: u8,
    /// When Opus carries in-band FEC.
    pub fec: FecPolicy,
    /// How long the other side may send nothing before [`PhoneEvent::Silent`].
    pub media_timeout: Duration,
    /// Whether G.711 is sent, where the leg negotiated it and the sampling rate is 8000 Hz: there is no resampler.
    /// [`EdgeCodec::Auto`] sends it only while the other side does, which knows what is behind it.
    pub edge: EdgeCodec,
}

impl PhoneConfig {
    /// Builds the usual settings for a sampling rate: 24 to 32 kbit/s, complexity 5, FEC from the
    /// first packet (one user's processor is idle anyway), 30 s media timeout, G.711 on a good path.
    pub fn new(sample_rate: u32) -> Self {
        let bitrate = if sample_rate > 8_000 { 32_000 } else { 24_000 };
        Self {
            sample_rate,
            bitrate,
            complexity: 5,
            fec: FecPolicy::Always,
            media_timeout: Duration::from_secs(30),
            edge: EdgeCodec::Auto,
        }
    }

    fn encoder(&self, remote_playback_rate: u32) -> EncoderConfig {
        // RFC 7587 6.1: what lies above the other side's maxplaybackrate is bits thrown away.
        let max_bandwidth = match remote_playback_rate.min(self.sample_rate) {
            0..=8_000 => Bandwidth::Narrowband,
            8_001..=12_000 => Bandwidth::Mediumband,
            12_001..=16_000 => Bandwidth::Wideband,
            16_001..=24_000 => Bandwidth::SuperWideband,
            _ => Bandwidth::Fullband,
        };
        EncoderConfig {
            sample_rate: self.sample_rate,
            bitrate: self.bitrate,
            complexity: self.complexity,
            fec: false,
            expected_loss_percent: 0,
            dtx: false,
            max_bandwidth,
        }
    }
}

/// What a phone reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhoneEvent {
    /// ICE and DTLS are through.
    Connected,
    /// The first RTP packet came.
    FirstPacket,
    /// The other side dialled a digit.
    Dtmf {
        /// The digit.
        digit: DtmfDigit,
        /// Its length in milliseconds.
        duration_ms: u16,
    },
    /// No packet came for the media timeout. Repeated each time it passes again; never on hold.
    Silent,
    /// The leg is over; it cannot come back.
    Failed {
        /// Why.
        failure: LegFailure,
    },
}

/// The media of an end user. Sans-IO and `Send`.
pub struct Phone {
    config: PhoneConfig,
    leg: WebRtcLeg,
    receiver: EdgeReceiver,
    sender: EdgeSender,
    control: EdgeControl,
    edge_seed: u64,
    playout: Fifo,
    frame: Box<[i16]>,
    heard: bool,
    held: bool,
    silent_at: Option<Instant>,
    tick_at: Instant,
    events: VecDeque<PhoneEvent>,
}

impl Phone {
    /// Builds a phone round a leg that has offered or answered, or is about to.
    pub fn new(config: PhoneConfig, leg: WebRtcLeg, seed: u64, now: Instant) -> Result<Self, MediaError> {
        let codec = |error: crate::codec::CodecError| MediaError::Codec(error.to_string());
        let mut seeds = Seeded::new(seed);
        let encoder = config.encoder(leg.remote_playback_rate());
        let frame = config.sample_rate as usize / 50;
        Ok(Self {
            receiver: EdgeReceiver::new(config.sample_rate, &mut seeds).map_err(codec)?,
            sender: EdgeSender::new(&encoder, config.fec, false, &mut seeds).map_err(codec)?,
            playout: Fifo::new(PLAYOUT_FRAMES * frame),
            frame: vec![0; frame].into_boxed_slice(),
            heard: false,
            held: false,
            silent_at: None,
            tick_at: now,
            events: VecDeque::with_capacity(MAX_EVENTS),
            control: EdgeControl::new(config.edge),
            edge_seed: seeds.next_u64(),
            config,
            leg,
        })
    }

    /// Takes the answer to the leg's offer. An error ends the leg.
    pub fn accept_answer(&mut self, sdp: &str, _now: Instant) -> Result<(), MediaError> {
        self.leg.accept_answer(sdp)
    }

    /// Adds a candidate of this side that was found late; see [`WebRtcLeg::add_local_candidate`].
    pub fn add_local_candidate(&mut self, candidate: LocalCandidate) -> Result<Option<String>, MediaError> {
        self.leg.add_local_candidate(candidate)
    }

    /// Takes a candidate of the other side; see [`WebRtcLeg::add_remote_candidate`].
    pub fn add_remote_candidate(&mut self, candidate: &str) -> Result<(), MediaError> {
        self.leg.add_remote_candidate(candidate)
    }

    /// Takes the place of a local address by another; see [`WebRtcLeg::replace_local`].
    pub fn replace_local(&mut self, gone: SocketAddr, new: SocketAddr) {
        self.leg.replace_local(gone, new);
    }

    /// Returns the addresses between which media goes; see [`WebRtcLeg::path`].
    pub fn path(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.leg.path()
    }

    /// Takes a datagram that came from `source` on the address `local`.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        local: SocketAddr,
        source: SocketAddr,
        packet: &[u8],
        emit: Emit<'_>,
    ) {
        self.leg.handle_datagram(now, local, source, packet, &mut leg_emit(emit));
        self.take_events(now);
    }

    /// Does what is due: ICE, DTLS and RTCP timers, the playout of each tick that has passed.
    pub fn handle_timeout(&mut self, now: Instant, emit: Emit<'_>) {
        if self.leg.poll_timeout().is_some_and(|at| at <= now) {
            self.leg.handle_timeout(now, &mut leg_emit(emit));
            self.take_events(now);
        }
        self.receiver.handle_timeout(now);
        self.take_digits();
        let late = now.saturating_duration_since(self.tick_at).as_millis() / TICK.as_millis();
        let skipped = late.saturating_sub(MAX_CATCH_UP);
        self.tick_at += TICK * u32::try_from(skipped).unwrap_or(u32::MAX);
        while self.tick_at <= now {
            if self.heard {
                let played = self.receiver.read(self.tick_at, &mut self.frame);
                if played == Played::Nothing && self.held {
                    self.frame.fill(0);
                }
                self.playout.push(&self.frame);
            }
            self.tick_at += TICK;
        }
        if self.silent_at.is_some_and(|at| at <= now) {
            self.silent_at = Some(now + self.config.media_timeout);
            if !self.held {
                self.report(PhoneEvent::Silent);
            }
        }
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timers = [self.leg.poll_timeout(), self.receiver.poll_timeout(), self.silent_at];
        timers.into_iter().flatten().chain([self.tick_at]).min()
    }

    /// Returns the next event. To be called until `None` after every call that takes a time.
    pub fn poll_event(&mut self) -> Option<PhoneEvent> {
        self.events.pop_front()
    }

    /// Sends 20 ms from the microphone. To be called every 20 ms; media time goes by these calls.
    /// Samples that are not exactly a frame are left out.
    pub fn write_frame(&mut self, now: Instant, samples: &[i16], emit: Emit<'_>) {
        let audible = samples.len() == self.frame.len() && !self.held;
        self.steer(now);
        self.sender.tick(now, audible.then_some(samples), &mut self.leg, &mut leg_emit(emit));
    }

    /// Fills 20 ms for the loudspeaker. Returns false, and fills silence, while nothing was ever
    /// received or `samples` is not exactly a frame.
    pub fn read_frame(&mut self, samples: &mut [i16]) -> bool {
        let fits = samples.len() == self.frame.len();
        if !(fits && self.heard && self.playout.pop(samples)) {
            samples.fill(0);
        }
        fits && self.heard
    }

    /// Queues a digit. Returns false if the other side has no telephone events in RTP, or too many
    /// digits wait: then signalling may carry it.
    pub fn send_dtmf(&mut self, digit: DtmfDigit, duration_ms: u16) -> bool {
        self.leg.has_telephone_event() && self.sender.queue_dtmf(digit, duration_ms)
    }

    /// Holds or resumes: on hold nothing from the microphone is sent and nothing is expected.
    pub fn set_hold(&mut self, on: bool) {
        self.held = on;
    }

    /// Ends the media: RTCP BYE and DTLS close_notify go out. Nothing is sent after.
    pub fn stop(&mut self, now: Instant, emit: Emit<'_>) {
        self.leg.close(now, &mut leg_emit(emit));
        self.silent_at = None;
    }

    /// Returns what was measured of the media that came in.
    pub fn quality(&self) -> LegQuality {
        self.receiver.quality(&self.leg)
    }

    /// Returns the number of lost frames that in-band FEC or redundancy brought back.
    pub fn frames_recovered(&self) -> u64 {
        self.receiver.recovered()
    }

    /// Returns how many of the frames before its own a packet that is sent carries once more (RFC 2198).
    pub fn redundancy(&self) -> u8 {
        self.sender.redundancy()
    }

    /// Goes on by another policy.
    pub fn set_edge(&mut self, policy: EdgeCodec) {
        self.config.edge = policy;
        self.control.set_policy(policy);
    }

    /// Returns the codec that is sent.
    pub fn sends(&self) -> Codec {
        self.sender.codec()
    }

    /// Returns the codec that is heard.
    pub fn receives(&self) -> Codec {
        self.receiver.codec()
    }

    /// Returns the counts of datagrams.
    pub fn counters(&self) -> &WebRtcCounters {
        self.leg.counters()
    }

    /// Says whether media can be sent.
    pub fn is_connected(&self) -> bool {
        self.leg.is_connected()
    }

    /// Returns the number of samples in a frame of 20 ms.
    pub fn frame_samples(&self) -> usize {
        self.frame.len()
    }

    fn take_events(&mut self, now: Instant) {
        while let Some(event) = self.leg.poll_event() {
            match event {
                LegEvent::Connected => {
                    self.silent_at = Some(now + self.config.media_timeout);
                    if self.leg.remote_playback_rate() < self.config.sample_rate {
                        // The settings differ from those that worked at first in bandwidth only.
                        let config = self.config.encoder(self.leg.remote_playback_rate());
                        if let Ok(encoder) = self.sender.encoder_of(&config) {
                            self.sender.set_encoder(encoder, &config);
                        }
                    }
                    self.control.connected(now);
                    let has_g711 = self.leg.has_g711(Law::A) || self.leg.has_g711(Law::Mu);
                    if has_g711 && self.config.sample_rate == CLOCK_RATE {
                        self.receiver.expect_g711(self.edge_seed);
                    }
                    self.report(PhoneEvent::Connected);
                }
                LegEvent::Packet(packet) => {
                    self.silent_at = Some(now + self.config.media_timeout);
                    if !std::mem::replace(&mut self.heard, true) {
                        self.report(PhoneEvent::FirstPacket);
                    }
                    self.receiver.receive(now, &packet);
                }
                LegEvent::RemoteLoss { percent } => {
                    self.sender.adapt(percent, &self.leg);
                    self.control.reported(now, percent);
                }
                LegEvent::Failed(failure) => {
                    self.silent_at = None;
                    self.report(PhoneEvent::Failed { failure });
                }
            }
        }
        self.take_digits();
    }

    /// Says what is sent from now on.
    fn steer(&mut self, now: Instant) {
        if self.control.wants_look(now) {
            let (received, lost) = self.receiver.totals();
            let seen = Seen {
                received,
                lost,
                bursts: self.receiver.bursts(),
                jitter_ms: self.receiver.jitter_ms(),
                round_trip: self.leg.round_trip(),
            };
            self.control.look(now, seen);
        }
        // What is heard in one law passes best if it is answered in the same.
        let heard = self.receiver.law();
        let laws = heard.into_iter().chain([Law::A, Law::Mu]);
        let law = laws.into_iter().find(|&law| self.leg.has_g711(law));
        let may = self.config.edge == EdgeCodec::Always || heard.is_some();
        let law = law.filter(|_| self.control.wants_g711(now) && may);
        self.sender.want(law, self.leg.has_g711_event());
    }

    fn take_digits(&mut self) {
        while let Some((digit, duration_ms)) = self.receiver.poll_dtmf() {
            self.report(PhoneEvent::Dtmf { digit, duration_ms });
        }
    }

    fn report(&mut self, event: PhoneEvent) {
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        }
    }
}

impl std::fmt::Debug for Phone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Phone").field("leg", &self.leg).field("held", &self.held).finish()
    }
}

fn leg_emit(emit: Emit<'_>) -> impl FnMut(SocketAddr, SocketAddr, &[u8]) {
    move |local, destination, bytes| {
        emit(Outgoing { side: Side::Overlay, port: Port::Rtp, local, destination, bytes });
    }
}
