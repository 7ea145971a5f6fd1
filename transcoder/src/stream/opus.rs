//! The Opus stream of an overlay leg: 48000 Hz RTP clock, PCM at 8, 16 or 48 kHz.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use call_model::{DtmfDigit, LegQuality};

use super::history::History;
use super::{Fifo, Played, VOICEBAND_DELAY};
use crate::codec::fec::{FEC_BITRATE, FecControl, FecPolicy, WIDEBAND_FEC_BITRATE};
use crate::codec::noise::{ComfortNoise, PAYLOAD_LEN};
use crate::codec::opus::{
    Bandwidth, Decoder, Encoder, EncoderConfig, MAX_PACKET, has_fec, is_dtx, packet_duration,
};
use crate::codec::redundancy::{LossReport, RedundancyControl};
use crate::codec::{ActivityDetector, CodecError};
use crate::dtmf::{DtmfEvent, DtmfReceiver, DtmfSender};
use crate::leg::webrtc::{CLOCK_RATE, WebRtcLeg};
use crate::leg::{LegPacket, PayloadKind};
use crate::order::{Arrival, Frame, FrameCopy, Inserted, JitterBuffer, JitterConfig, TimeScaler};
use crate::quality::Heard;
use crate::rtp::ReceiverStatistics;
use crate::seed::Seeded;

/// RTP clock ticks of a tick.
const TICK_TIME: u32 = CLOCK_RATE / 50;
/// Ticks of that clock in one of G.711's.
const CLOCK_RATIO: u64 = 6;
/// Least that a packet is held back: half a frame more than order asks for, so that at a gap the
/// packet after it is there, with the FEC that fills the gap.
pub(super) const MIN_DELAY: Duration = Duration::from_millis(30);
/// A tick in which this many frames are thrown away or broken has been given its due.
const MAX_POPS: usize = 8;
/// Ticks of silence after which the far end is told again: 400 ms, as libopus does.
const SILENCE_REPEAT: u32 = 20;

/// Packets in, PCM out.
pub(crate) struct OpusReceiver {
    sample_rate: u32,
    pub(super) jitter: JitterBuffer,
    pub(super) decoder: Decoder,
    scaler: TimeScaler,
    noise: ComfortNoise,
    statistics: ReceiverStatistics,
    dtmf: DtmfReceiver,
    pub(super) fifo: Fifo,
    /// Whether the last tick was comfort noise.
    silent: bool,
    pub(super) scratch: Box<[i16]>,
    played: u64,
    /// The audio is voiceband data: nothing is made up, left out or stretched.
    voiceband: bool,
    concealed: u64,
    recovered: u64,
    refused: u64,
}

/// Returns room for the longest packet, at most 120 ms (RFC 6716 3.2.5), and for what it may grow by; and for what is
/// left of it after a tick.
fn room(sample_rate: u32, scaler: &TimeScaler) -> (Box<[i16]>, Fifo) {
    let longest = sample_rate as usize * 120 / 1000 + scaler.most_growth();
    (vec![0; longest].into_boxed_slice(), Fifo::new(longest + sample_rate as usize / 50))
}

impl OpusReceiver {
    pub(crate) fn new(sample_rate: u32, seed: &mut Seeded) -> Result<Self, CodecError> {
        let scaler = TimeScaler::new(sample_rate);
        let (scratch, fifo) = room(sample_rate, &scaler);
        Ok(Self {
            sample_rate,
            jitter: JitterBuffer::new(JitterConfig { min_delay: MIN_DELAY, ..JitterConfig::opus() }),
            decoder: Decoder::new(sample_rate)?,
            scaler,
            noise: ComfortNoise::new(seed.next_u64()),
            statistics: ReceiverStatistics::new(CLOCK_RATE),
            dtmf: DtmfReceiver::new(CLOCK_RATE),
            fifo,
            silent: false,
            scratch,
            played: 0,
            voiceband: false,
            concealed: 0,
            recovered: 0,
            refused: 0,
        })
    }

    /// Returns the rate of the PCM in Hz.
    pub(super) fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    /// Goes on with another decoder, at its rate. What waits stays; what was decoded at the other rate is given up.
    pub(crate) fn set_decoder(&mut self, decoder: Decoder) {
        self.sample_rate = decoder.sample_rate();
        self.scaler = TimeScaler::new(self.sample_rate);
        (self.scratch, self.fifo) = room(self.sample_rate, &self.scaler);
        (self.decoder, self.silent) = (decoder, false);
    }

    /// Takes the audio for voiceband data from now on, or for voice again.
    pub(crate) fn set_voiceband(&mut self, on: bool) {
        self.voiceband = on;
        self.jitter.set_fixed(on.then_some(VOICEBAND_DELAY));
    }

    /// Counts a packet that is passed on as it is.
    pub(crate) fn count(&mut self, now: Instant, packet: &LegPacket) {
        self.statistics.receive(now, packet.ssrc, packet.sequence, packet.timestamp);
    }

    /// What was received, passed on or not.
    pub(crate) fn statistics(&self) -> &ReceiverStatistics {
        &self.statistics
    }

    /// Says whether a digit is down.
    pub(crate) fn hears_digit(&self) -> bool {
        self.dtmf.is_active()
    }

    pub(crate) fn receive(&mut self, now: Instant, packet: &LegPacket) {
        self.statistics.receive(now, packet.ssrc, packet.sequence, packet.timestamp);
        match packet.kind {
            PayloadKind::TelephoneEvent => {
                self.jitter.mark(packet.ssrc, packet.sequence);
                if self.dtmf.receive(now, packet.timestamp, packet.marker, &packet.payload).is_err() {
                    self.refused += 1;
                }
            }
            // No overlay leg has the first, and the others are of another stream.
            PayloadKind::ComfortNoise | PayloadKind::G711(_) | PayloadKind::G711Event => {}
            PayloadKind::Audio => {
                let Some(duration) = packet_duration(&packet.payload) else {
                    self.refused += 1;
                    return;
                };
                let arrival = Arrival {
                    ssrc: packet.ssrc,
                    sequence: packet.sequence,
                    timestamp: packet.timestamp,
                    marker: packet.marker,
                    duration,
                    silence: is_dtx(&packet.payload),
                };
                match self.jitter.insert(now, arrival, &packet.payload) {
                    Inserted::Queued | Inserted::Restarted => self.receive_copies(now, packet, &arrival),
                    Inserted::TooLarge => self.refused += 1,
                    _ => {}
                }
            }
        }
    }

    /// Takes the frames before its own that a packet carries (RFC 2198).
    fn receive_copies(&mut self, now: Instant, packet: &LegPacket, arrival: &Arrival) {
        for copy in packet.copies().filter(|copy| !copy.payload.is_empty()) {
            let Some(duration) = packet_duration(copy.payload) else {
                self.refused += 1;
                continue;
            };
            let (offset, payload) = (copy.offset, copy.payload);
            let copy = FrameCopy { offset, duration, silence: is_dtx(payload), payload };
            self.jitter.insert_copy(now, arrival, copy);
        }
    }

    /// Fills `out` with the next tick. `tick` is the nominal time of it.
    pub(crate) fn read(&mut self, tick: Instant, out: &mut [i16]) -> Played {
        let mut played = Played::Audio;
        let rate = self.sample_rate;
        let longest = self.scratch.len() - self.scaler.most_growth();
        // Concealment works in steps of 2.5 ms.
        let samples = |duration: u32| {
            let samples = (u64::from(duration) * u64::from(rate) / u64::from(CLOCK_RATE)) as usize;
            samples.min(longest) / (rate as usize / 400) * (rate as usize / 400)
        };
        for _ in 0..MAX_POPS {
            if self.fifo.len() >= out.len() {
                break;
            }
            let stored = self.fifo.len() as u32 * (CLOCK_RATE / rate);
            let mut voice = true;
            let length = match self.jitter.pop(tick, stored) {
                Frame::Packet { payload, duration, silence, pace, .. } => {
                    match self.decoder.decode(payload, &mut self.scratch) {
                        Ok(length) => {
                            // What libopus makes up for DTX is noise of its own.
                            voice = !silence;
                            if voice {
                                self.noise.hear(&self.scratch[..length]);
                            }
                            self.scaler.apply(&mut self.scratch, length, pace)
                        }
                        Err(_) => {
                            self.refused += 1;
                            self.concealed += 1;
                            self.decoder.conceal(&mut self.scratch[..samples(duration)]).unwrap_or(0)
                        }
                    }
                }
                Frame::Lost { duration, next } => {
                    let gap = &mut self.scratch[..samples(duration)];
                    match next.filter(|next| has_fec(next)) {
                        Some(next) => {
                            self.recovered += 1;
                            self.decoder.decode_fec(next, gap).unwrap_or(0)
                        }
                        None => {
                            // The decoder is told of the loss, whatever is heard of it.
                            let length = self.decoder.conceal(gap).unwrap_or(0);
                            if self.voiceband {
                                gap.fill(0);
                            } else {
                                self.concealed += 1;
                            }
                            length
                        }
                    }
                }
                Frame::Silence { duration } => {
                    let length = samples(duration);
                    self.fill_silence(length);
                    voice = false;
                    length
                }
                Frame::Empty => {
                    played = Played::Nothing;
                    break;
                }
            };
            self.fifo.push(&self.scratch[..length]);
            if voice {
                self.fifo.mark();
            }
        }
        self.silent = !self.fifo.is_marked() && !self.voiceband;
        let length = self.fifo.pop_some(out);
        let missing = out.len() - length;
        self.fill_silence(missing);
        out[length..].copy_from_slice(&self.scratch[..missing]);
        self.played += u64::from(played == Played::Audio);
        // RFC 4733 2.5.1.3: what sounds under an event is the same digit once more.
        if self.dtmf.is_active() {
            out.fill(0);
        }
        played
    }

    /// Returns the comfort noise payload (RFC 3389 3) of the tick that was read last, if the far side was silent in
    /// all of it.
    pub(crate) fn comfort_noise(&mut self) -> Option<[u8; PAYLOAD_LEN]> {
        self.silent.then(|| self.noise.model().payload())
    }

    /// Makes comfort noise, or true silence where nothing is to be made up.
    fn fill_silence(&mut self, length: usize) {
        let silence = &mut self.scratch[..length];
        if self.voiceband { silence.fill(0) } else { self.noise.fill(silence) }
    }

    pub(crate) fn poll_dtmf(&mut self) -> Option<(DtmfDigit, u16)> {
        loop {
            match self.dtmf.poll_event()? {
                DtmfEvent::Started { .. } => {}
                DtmfEvent::Ended { digit, duration_ms } => return Some((digit, duration_ms)),
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.dtmf.poll_timeout()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.dtmf.handle_timeout(now);
    }

    /// Returns the number of lost frames that in-band FEC or redundancy brought back.
    pub(crate) fn recovered(&self) -> u64 {
        self.recovered + self.jitter.counters().recovered
    }

    /// Returns what was heard and what was not.
    pub(crate) fn heard(&self) -> Heard {
        Heard::ordered(&self.jitter, self.recovered())
    }

    pub(crate) fn jitter(&self) -> &JitterBuffer {
        &self.jitter
    }

    /// Returns the frames that were made up.
    #[cfg(test)]
    pub(crate) fn concealed(&self) -> u64 {
        self.concealed
    }

    /// Returns the samples taken out and put in to change the delay.
    #[cfg(test)]
    pub(crate) fn scaled(&self) -> (u64, u64) {
        (self.scaler.shortened(), self.scaler.stretched())
    }

    /// Returns the counts of the leg.
    pub(crate) fn quality(&self, leg: &WebRtcLeg) -> LegQuality {
        let (counters, jitter) = (leg.counters(), self.jitter.counters());
        LegQuality {
            packets_received: jitter.received.saturating_sub(jitter.duplicates),
            packets_sent: counters.sent,
            packets_lost: jitter.lost,
            packets_late: jitter.late,
            packets_refused: counters.refused() + self.refused + self.dtmf.refused(),
            frames_concealed: self.concealed,
            jitter_ms: self.statistics.jitter_ms(),
            packets_discarded: jitter.discarded,
            packets_duplicate: jitter.duplicates,
            frames_played: self.played,
            frames_recovered: self.recovered(),
            frames_redundant: jitter.recovered,
            playout_delay_ms: self.jitter.target_delay().as_secs_f32() * 1_000.0,
            playout_delay_max_ms: self.jitter.longest_delay().as_secs_f32() * 1_000.0,
            playout_delay_limit_ms: self.jitter.config().max_delay.as_secs_f32() * 1_000.0,
            ..LegQuality::default()
        }
    }
}

/// Bit rates in bit/s without in-band FEC, and with it at least.
#[derive(Clone, Copy, Debug)]
struct Bitrate {
    plain: u32,
    with_fec: u32,
}

impl Bitrate {
    fn of(config: &EncoderConfig) -> Self {
        let least = match config.max_bandwidth {
            Bandwidth::Wideband => WIDEBAND_FEC_BITRATE,
            _ => FEC_BITRATE,
        };
        Self { plain: config.bitrate, with_fec: config.bitrate.max(least) }
    }

    /// With FEC made for a loss in per cent; 0 is without.
    fn at(self, percent: u8) -> u32 {
        if percent > 0 { self.with_fec } else { self.plain }
    }
}

fn protected(config: &EncoderConfig, percent: u8) -> Result<Encoder, CodecError> {
    let bitrate = Bitrate::of(config).at(percent);
    Encoder::new(&EncoderConfig { fec: percent > 0, expected_loss_percent: percent, bitrate, ..*config })
}

/// PCM in, packets out.
pub(crate) struct OpusSender {
    encoder: Encoder,
    fec: FecControl,
    redundancy: RedundancyControl,
    /// Copies that packets carry. In-band FEC rests meanwhile.
    depth: u8,
    history: History,
    bitrate: Bitrate,
    detector: Option<ActivityDetector>,
    /// The audio is voiceband data, whose silence is sent too.
    voiceband: bool,
    dtmf: DtmfSender,
    /// The timestamp of G.711 at media time 0; that of Opus is six times as much.
    origin: u32,
    media_time: u64,
    /// Whether the packet before was voice: the next after a pause carries the marker.
    talking: bool,
    quiet_ticks: u32,
    payload: [u8; MAX_PACKET],
}

impl OpusSender {
    /// Builds a sender. With `detect` it does not encode silence. What the
    /// settings say of FEC gives way to `fec`.
    pub(crate) fn new(
        config: &EncoderConfig,
        fec: FecPolicy,
        detect: bool,
        seed: &mut Seeded,
    ) -> Result<Self, CodecError> {
        let fec = FecControl::new(fec);
        Ok(Self {
            encoder: protected(config, fec.percent())?,
            fec,
            redundancy: RedundancyControl::default(),
            depth: 0,
            history: History::new(),
            bitrate: Bitrate::of(config),
            detector: detect.then(|| ActivityDetector::for_rate(config.sample_rate)),
            voiceband: false,
            dtmf: DtmfSender::new(CLOCK_RATE),
            origin: seed.next_u64() as u32,
            media_time: 0,
            talking: false,
            quiet_ticks: 0,
            payload: [0; MAX_PACKET],
        })
    }

    /// Leaves nothing out from now on, or silence again (ITU-T V.152 6.1).
    pub(crate) fn set_voiceband(&mut self, on: bool) {
        self.voiceband = on;
    }

    /// Builds an encoder of other settings for [`set_encoder`](Self::set_encoder).
    pub(crate) fn encoder_of(&self, config: &EncoderConfig) -> Result<Encoder, CodecError> {
        protected(config, self.fec_percent())
    }

    /// Puts an encoder with other settings in the place of the old.
    pub(crate) fn set_encoder(&mut self, encoder: Encoder, config: &EncoderConfig) {
        (self.encoder, self.bitrate) = (encoder, Bitrate::of(config));
        self.detector = self.detector.as_ref().map(|_| ActivityDetector::for_rate(config.sample_rate));
    }

    /// Fits redundancy, or in-band FEC where the other side takes none, to the loss in per cent that it reports.
    pub(crate) fn adapt(&mut self, reported: f32, leg: &WebRtcLeg) {
        let before = self.fec_percent();
        self.fec.report(reported);
        if leg.has_redundancy() {
            let metrics = leg.remote_report().and_then(|report| report.metrics);
            let burst_density = metrics.map(|metrics| f32::from(metrics.burst_density) / 256.0);
            self.depth = self.redundancy.report(LossReport { percent: reported, burst_density });
        }
        let percent = self.fec_percent();
        if percent != before {
            // Both requests take any value that the control gives.
            let _ = self.encoder.set_expected_loss(percent);
            let _ = self.encoder.set_fec(percent > 0);
            let _ = self.encoder.set_bitrate(self.bitrate.at(percent));
        }
    }

    /// Returns the loss in per cent that in-band FEC is made for, 0 without it: also while whole frames are sent
    /// again.
    pub(crate) fn fec_percent(&self) -> u8 {
        if self.depth > 0 { 0 } else { self.fec.percent() }
    }

    /// Returns how many of the frames before its own a packet carries once more.
    pub(crate) fn redundancy(&self) -> u8 {
        self.depth
    }

    pub(crate) fn set_complexity(&mut self, complexity: u8) -> Result<(), CodecError> {
        self.encoder.set_complexity(complexity)
    }

    /// Says whether no digit is being sent or waiting.
    pub(super) fn has_no_digit(&self) -> bool {
        self.dtmf.is_idle()
    }

    /// Returns the media time in ticks of G.711.
    pub(super) fn g711_time(&self) -> u64 {
        self.media_time / CLOCK_RATIO
    }

    /// Returns the timestamp that G.711 has at this time.
    pub(super) fn g711_timestamp(&self) -> u32 {
        self.g711_timestamp_at(self.g711_time())
    }

    /// Returns the timestamp that G.711 has at a media time in its ticks.
    pub(super) fn g711_timestamp_at(&self, media_time: u64) -> u32 {
        self.origin.wrapping_add(media_time as u32)
    }

    fn timestamp(&self, media_time: u64) -> u32 {
        self.origin.wrapping_mul(CLOCK_RATIO as u32).wrapping_add(media_time as u32)
    }

    /// Lets time pass without packets.
    pub(crate) fn skip(&mut self, ticks: u64) {
        self.media_time += ticks * u64::from(TICK_TIME);
        self.talking = false;
    }

    pub(crate) fn queue_dtmf(&mut self, digit: DtmfDigit, duration_ms: u16) -> bool {
        self.dtmf.queue(digit, duration_ms).is_ok()
    }

    /// Sends what the next tick asks for: a telephone event if one is due, else `pcm` if there is any. Says whether
    /// it was an event.
    pub(crate) fn tick(
        &mut self,
        now: Instant,
        pcm: Option<&[i16]>,
        leg: &mut WebRtcLeg,
        emit: &mut dyn FnMut(SocketAddr, SocketAddr, &[u8]),
    ) -> bool {
        let time = self.media_time;
        let before = std::mem::take(&mut self.talking);
        self.media_time += u64::from(TICK_TIME);
        if !leg.is_connected() {
            return false;
        }
        if let Some(event) = self.dtmf.next(time, TICK_TIME) {
            let timestamp = self.timestamp(event.media_time);
            leg.send(now, PayloadKind::TelephoneEvent, timestamp, event.marker, &event.payload, emit);
            return true;
        }
        let Some(pcm) = pcm else { return false };
        let timestamp = self.timestamp(time);
        let active = self.detector.as_mut().is_none_or(|detector| detector.is_active(pcm)) || self.voiceband;
        let length = if active {
            match self.encoder.encode(pcm, &mut self.payload) {
                Ok(length) => length,
                Err(_) => return false,
            }
        } else {
            0
        };
        if length > 2 {
            self.quiet_ticks = 0;
            self.talking = true;
            self.send(now, timestamp, !before, length, leg, emit);
            self.history.push(timestamp, TICK_TIME, &self.payload[..length]);
            return false;
        }
        // Silence is a frame without content (RFC 6716 2.1.9): the TOC byte alone, now and then.
        if self.quiet_ticks.is_multiple_of(SILENCE_REPEAT) {
            self.payload[0] &= !3;
            self.send(now, timestamp, false, 1, leg, emit);
        }
        self.quiet_ticks = self.quiet_ticks.wrapping_add(1);
        false
    }

    /// Sends the first octets of what was encoded, and with them the frames before that are due again. Silence is never
    /// one of these.
    fn send(
        &mut self,
        now: Instant,
        timestamp: u32,
        marker: bool,
        length: usize,
        leg: &mut WebRtcLeg,
        emit: &mut dyn FnMut(SocketAddr, SocketAddr, &[u8]),
    ) {
        let (copies, count) = self.history.copies(timestamp, TICK_TIME, length, self.depth);
        leg.send_redundant(now, timestamp, marker, &self.payload[..length], &copies[..count], emit);
    }
}
