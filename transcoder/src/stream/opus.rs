//! The Opus stream of an overlay leg: 48000 Hz RTP clock, PCM at 8, 16 or 48 kHz.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use call_model::{DtmfDigit, LegQuality};

use super::{Fifo, Played, is_quiet};
use crate::codec::fec::{FEC_BITRATE, FecControl, FecPolicy};
use crate::codec::opus::{Decoder, Encoder, EncoderConfig, MAX_PACKET, has_fec, is_dtx, packet_duration};
use crate::codec::{ActivityDetector, CodecError, ComfortNoise};
use crate::dtmf::{DtmfEvent, DtmfReceiver, DtmfSender};
use crate::leg::webrtc::{CLOCK_RATE, WebRtcLeg};
use crate::leg::{LegPacket, PayloadKind};
use crate::order::{Arrival, Frame, Inserted, JitterBuffer, JitterConfig};
use crate::quality::leg_quality;
use crate::rtp::ReceiverStatistics;
use crate::seed::Seeded;

/// RTP clock ticks of a tick.
const TICK_TIME: u32 = CLOCK_RATE / 50;
/// Ticks of that clock in one of G.711's.
const CLOCK_RATIO: u64 = 6;
/// Least that a packet is held back: half a frame more than order asks for, so that at a gap the
/// packet after it is there, with the FEC that fills the gap.
const MIN_DELAY: Duration = Duration::from_millis(30);
/// A tick in which this many frames are thrown away or broken has been given its due.
const MAX_POPS: usize = 8;
/// Ticks of silence after which the far end is told again: 400 ms, as libopus does.
const SILENCE_REPEAT: u32 = 20;

/// Packets in, PCM out.
pub(crate) struct OpusReceiver {
    sample_rate: u32,
    pub(super) jitter: JitterBuffer,
    pub(super) decoder: Decoder,
    noise: ComfortNoise,
    statistics: ReceiverStatistics,
    dtmf: DtmfReceiver,
    pub(super) fifo: Fifo,
    pub(super) scratch: Box<[i16]>,
    concealed: u64,
    recovered: u64,
    refused: u64,
}

impl OpusReceiver {
    pub(crate) fn new(sample_rate: u32, seed: &mut Seeded) -> Result<Self, CodecError> {
        // RFC 6716 3.2.5: at most 120 ms in a packet.
        let longest = sample_rate as usize * 120 / 1000;
        Ok(Self {
            sample_rate,
            jitter: JitterBuffer::new(JitterConfig { min_delay: MIN_DELAY, ..JitterConfig::opus() }),
            decoder: Decoder::new(sample_rate)?,
            noise: ComfortNoise::new(seed.next_u64()),
            statistics: ReceiverStatistics::new(CLOCK_RATE),
            dtmf: DtmfReceiver::new(CLOCK_RATE),
            fifo: Fifo::new(longest + sample_rate as usize / 25),
            scratch: vec![0; longest].into_boxed_slice(),
            concealed: 0,
            recovered: 0,
            refused: 0,
        })
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
            // Of another stream.
            PayloadKind::G711(_) | PayloadKind::G711Event => {}
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
                if matches!(self.jitter.insert(now, arrival, &packet.payload), Inserted::TooLarge) {
                    self.refused += 1;
                }
            }
        }
    }

    /// Fills `out` with the next tick. `tick` is the nominal time of it.
    pub(crate) fn read(&mut self, tick: Instant, out: &mut [i16]) -> Played {
        let mut played = Played::Audio;
        for _ in 0..MAX_POPS {
            if self.fifo.len() >= out.len() {
                break;
            }
            let rate = self.sample_rate;
            let longest = self.scratch.len();
            // Concealment works in steps of 2.5 ms.
            let samples = |duration: u32| {
                let samples = (u64::from(duration) * u64::from(rate) / u64::from(CLOCK_RATE)) as usize;
                samples.min(longest) / (rate as usize / 400) * (rate as usize / 400)
            };
            let length = match self.jitter.pop(tick) {
                Frame::Packet { payload, duration, silence, surplus, .. } => {
                    match self.decoder.decode(payload, &mut self.scratch) {
                        Ok(length) => {
                            if silence {
                                self.noise.observe(&self.scratch[..length]);
                            }
                            if surplus && is_quiet(&self.scratch[..length]) { 0 } else { length }
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
                            self.concealed += 1;
                            self.decoder.conceal(gap).unwrap_or(0)
                        }
                    }
                }
                Frame::Wait => {
                    self.concealed += 1;
                    self.decoder.conceal(&mut self.scratch[..out.len()]).unwrap_or(0)
                }
                Frame::Silence { duration } => {
                    let length = samples(duration);
                    self.noise.fill(&mut self.scratch[..length]);
                    length
                }
                Frame::Empty => {
                    played = Played::Nothing;
                    self.fifo.clear();
                    break;
                }
            };
            self.fifo.push(&self.scratch[..length]);
        }
        if !self.fifo.pop(out) {
            self.noise.fill(out);
        }
        // RFC 4733 2.5.1.3: what sounds under an event is the same digit once more.
        if self.dtmf.is_active() {
            out.fill(0);
        }
        played
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

    /// Returns the number of lost frames that in-band FEC brought back.
    pub(crate) fn recovered(&self) -> u64 {
        self.recovered
    }

    pub(crate) fn quality(&self, leg: &WebRtcLeg) -> LegQuality {
        let counters = leg.counters();
        let refused = counters.refused() + self.refused + self.dtmf.refused();
        leg_quality(&self.statistics, &self.jitter.counters(), counters.sent, refused, self.concealed)
    }
}

fn protected(config: &EncoderConfig, fec: &FecControl) -> Result<Encoder, CodecError> {
    let percent = fec.percent();
    let bitrate = bitrate(config.bitrate, percent);
    Encoder::new(&EncoderConfig { fec: percent > 0, expected_loss_percent: percent, bitrate, ..*config })
}

fn bitrate(without_fec: u32, percent: u8) -> u32 {
    if percent > 0 { without_fec.max(FEC_BITRATE) } else { without_fec }
}

/// PCM in, packets out.
pub(crate) struct OpusSender {
    encoder: Encoder,
    fec: FecControl,
    /// Bit rate without FEC, in bit/s.
    bitrate: u32,
    detector: Option<ActivityDetector>,
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
    /// Builds a sender. With `detect` it does not encode silence; for 8 kHz audio only. What the
    /// settings say of FEC gives way to `fec`.
    pub(crate) fn new(
        config: &EncoderConfig,
        fec: FecPolicy,
        detect: bool,
        seed: &mut Seeded,
    ) -> Result<Self, CodecError> {
        let fec = FecControl::new(fec);
        Ok(Self {
            encoder: protected(config, &fec)?,
            fec,
            bitrate: config.bitrate,
            detector: detect.then(ActivityDetector::new),
            dtmf: DtmfSender::new(CLOCK_RATE),
            origin: seed.next_u64() as u32,
            media_time: 0,
            talking: false,
            quiet_ticks: 0,
            payload: [0; MAX_PACKET],
        })
    }

    /// Puts an encoder with other settings in the place of the old.
    pub(crate) fn set_encoder(&mut self, config: &EncoderConfig) -> Result<(), CodecError> {
        self.encoder = protected(config, &self.fec)?;
        self.bitrate = config.bitrate;
        Ok(())
    }

    /// Fits in-band FEC to the loss in per cent that the other side reports.
    pub(crate) fn adapt(&mut self, reported: f32) {
        if let Some(percent) = self.fec.report(reported) {
            // Both requests take any value that the control gives.
            let _ = self.encoder.set_expected_loss(percent);
            let _ = self.encoder.set_fec(percent > 0);
            let _ = self.encoder.set_bitrate(bitrate(self.bitrate, percent));
        }
    }

    /// Returns the loss in per cent that in-band FEC is made for, 0 without it.
    pub(crate) fn fec_percent(&self) -> u8 {
        self.fec.percent()
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
        let active = self.detector.as_mut().is_none_or(|detector| detector.is_active(pcm));
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
            leg.send(now, PayloadKind::Audio, timestamp, !before, &self.payload[..length], emit);
            return false;
        }
        // Silence is a frame without content (RFC 6716 2.1.9): the TOC byte alone, now and then.
        if self.quiet_ticks.is_multiple_of(SILENCE_REPEAT) {
            let toc = [self.payload[0] & !3];
            leg.send(now, PayloadKind::Audio, timestamp, false, &toc, emit);
        }
        self.quiet_ticks = self.quiet_ticks.wrapping_add(1);
        false
    }
}
