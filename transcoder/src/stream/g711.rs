//! The G.711 stream of a trunk leg: 8000 Hz RTP clock, PCM at 8 kHz.

use std::time::{Duration, Instant};

use call_model::{DtmfDigit, LegMedia, LegQuality};

use super::{Fifo, Played};
use crate::codec::Concealer;
use crate::codec::g711::Law;
use crate::codec::noise::{ComfortNoise, PAYLOAD_LEN};
use crate::dtmf::{DtmfEvent, DtmfReceiver, DtmfSender};
use crate::leg::PayloadKind;
use crate::leg::rtp::{CLOCK_RATE, MAX_PACKET_TIME_MS, Received, RtpEmit, RtpLeg};
use crate::order::{Arrival, Frame, Inserted, JitterBuffer, JitterConfig, TimeScaler};
use crate::quality::leg_quality;
use crate::rtp::RtpPacket;
use crate::seed::Seeded;

/// Samples of the longest frame that is decoded at once: 120 ms.
const LONGEST: usize = 960;
const MAX_POPS: usize = 8;
const MAX_PACKET_SAMPLES: usize = 8 * MAX_PACKET_TIME_MS as usize;

/// Samples after which comfort noise is described again: 400 ms.
const NOISE_REPEAT: usize = 3_200;
/// So much of another level, in dB, is told sooner.
const NOISE_CHANGE: u8 = 2;

/// Packets in, PCM out.
pub(crate) struct G711Receiver {
    law: Law,
    jitter: JitterBuffer,
    concealer: Concealer,
    scaler: TimeScaler,
    noise: ComfortNoise,
    dtmf: DtmfReceiver,
    clock_rate: u32,
    event_clock_rate: u32,
    fifo: Fifo,
    scratch: [i16; LONGEST],
    concealed: u64,
    refused: u64,
}

impl G711Receiver {
    pub(crate) fn new(seed: &mut Seeded) -> Self {
        Self {
            law: Law::A,
            jitter: JitterBuffer::new(JitterConfig::g711()),
            concealer: Concealer::new(),
            scaler: TimeScaler::new(CLOCK_RATE),
            noise: ComfortNoise::new(seed.next_u64()),
            dtmf: DtmfReceiver::new(CLOCK_RATE),
            clock_rate: CLOCK_RATE,
            event_clock_rate: CLOCK_RATE,
            fifo: Fifo::new(LONGEST + 320),
            scratch: [0; LONGEST],
            concealed: 0,
            refused: 0,
        }
    }

    /// Sets the law. What waits in another law would sound as noise and is given up.
    pub(crate) fn set_law(&mut self, law: Law) {
        if self.law != law {
            self.reset();
            self.law = law;
        }
    }

    /// Sets the clock of the voice and that of the telephone events beside it, in Hz. The second should be the first
    /// (RFC 4733 2.1), but there are those who send events of 8 kHz beside Opus.
    pub(crate) fn set_clock_rates(&mut self, voice: u32, events: u32) {
        if self.clock_rate != voice {
            self.clock_rate = voice;
            self.reset();
        }
        if self.event_clock_rate != events {
            (self.event_clock_rate, self.dtmf) = (events, DtmfReceiver::new(events));
        }
    }

    /// Says whether a digit is down.
    pub(crate) fn hears_digit(&self) -> bool {
        self.dtmf.is_active()
    }

    /// Fixes the delay, or lets it follow the network again. While it is fixed nothing is made up for what is
    /// missing: a gap is silence.
    pub(crate) fn set_fixed(&mut self, delay: Option<Duration>) {
        self.jitter.set_fixed(delay);
    }

    /// Forgets the stream before, whose packets must not sound after a change of address.
    pub(crate) fn reset(&mut self) {
        self.jitter.reset();
        self.concealer.reset();
        self.fifo.clear();
    }

    pub(crate) fn receive(&mut self, now: Instant, received: Received<'_>) {
        match received {
            Received::Audio(packet, law) if law == self.law => {
                let duration = u32::try_from(packet.payload().len()).unwrap_or(0);
                self.insert(now, &packet, packet.payload(), duration, false);
            }
            // RFC 3264 6.1: the other law may come as well; what waits is all in one.
            Received::Audio(packet, _) => {
                let (mut payload, table) = ([0; LONGEST], self.law.codes_of_other());
                let length = packet.payload().len().min(LONGEST);
                for (made, code) in payload.iter_mut().zip(packet.payload()) {
                    *made = table[usize::from(*code)];
                }
                self.insert(now, &packet, &payload[..length], length as u32, false);
            }
            Received::ComfortNoise(packet) => self.insert(now, &packet, packet.payload(), 0, true),
            Received::TelephoneEvent(packet) => {
                self.jitter.mark(packet.ssrc(), packet.sequence());
                if self.dtmf.receive(now, packet.timestamp(), packet.marker(), packet.payload()).is_err() {
                    self.refused += 1;
                }
            }
            // Passed on as it is.
            Received::Opus(_) | Received::Nothing => {}
        }
    }

    fn insert(&mut self, now: Instant, packet: &RtpPacket<'_>, payload: &[u8], duration: u32, silence: bool) {
        let arrival = Arrival {
            ssrc: packet.ssrc(),
            sequence: packet.sequence(),
            timestamp: packet.timestamp(),
            marker: packet.marker(),
            duration,
            silence,
        };
        if matches!(self.jitter.insert(now, arrival, payload), Inserted::TooLarge) {
            self.refused += 1;
        }
    }

    /// Fills `out` with the next tick. `tick` is the nominal time of it.
    pub(crate) fn read(&mut self, tick: Instant, out: &mut [i16]) -> Played {
        let mut played = Played::Audio;
        let fixed = self.jitter.is_fixed();
        for _ in 0..MAX_POPS {
            if self.fifo.len() >= out.len() {
                break;
            }
            let length = match self.jitter.pop(tick, self.fifo.len() as u32) {
                Frame::Packet { payload, duration, silence: true, pace, .. } => {
                    self.noise.describe(payload);
                    let length = (duration as usize).min(LONGEST);
                    self.noise.fill(&mut self.scratch[..length]);
                    self.scaler.apply(&mut self.scratch, length, pace)
                }
                Frame::Packet { payload, pace, .. } => {
                    let length = self.law.decode_into(payload, &mut self.scratch);
                    self.noise.hear(&self.scratch[..length]);
                    self.concealer.receive(&mut self.scratch[..length]);
                    self.scaler.apply(&mut self.scratch, length, pace)
                }
                Frame::Lost { duration, .. } => {
                    let length = (duration as usize).min(LONGEST);
                    let gap = &mut self.scratch[..length];
                    if fixed {
                        gap.fill(0);
                    } else {
                        self.concealed += 1;
                        self.concealer.conceal(gap);
                    }
                    length
                }
                Frame::Silence { duration } => {
                    let length = (duration as usize).min(LONGEST);
                    self.fill_silence(length, fixed);
                    length
                }
                Frame::Empty => {
                    played = Played::Nothing;
                    break;
                }
            };
            self.fifo.push(&self.scratch[..length]);
        }
        let length = self.fifo.pop_some(out);
        let missing = out.len() - length;
        self.fill_silence(missing, fixed);
        out[length..].copy_from_slice(&self.scratch[..missing]);
        // RFC 4733 2.5.1.3: what sounds under an event is the same digit once more.
        if self.dtmf.is_active() {
            out.fill(0);
        }
        played
    }

    /// Makes comfort noise, or true silence where nothing is to be made up.
    fn fill_silence(&mut self, length: usize, fixed: bool) {
        let silence = &mut self.scratch[..length];
        if fixed { silence.fill(0) } else { self.noise.fill(silence) }
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

    /// Returns the counts of the jitter buffer, and the frames that were made up.
    #[cfg(test)]
    pub(crate) fn counters(&self) -> (crate::order::JitterCounters, u64) {
        (self.jitter.counters(), self.concealed)
    }

    /// Returns the samples taken out and put in to change the delay.
    #[cfg(test)]
    pub(crate) fn scaled(&self) -> (u64, u64) {
        (self.scaler.shortened(), self.scaler.stretched())
    }

    pub(crate) fn quality(&self, leg: &RtpLeg) -> LegQuality {
        let counters = leg.counters();
        let refused = counters.refused() + self.refused + self.dtmf.refused();
        leg_quality(leg.statistics(), &self.jitter.counters(), counters.sent, refused, self.concealed)
    }
}

/// PCM in, packets of the trunk's packet time out.
pub(crate) struct G711Sender {
    law: Law,
    packet_samples: usize,
    fifo: Fifo,
    dtmf: DtmfSender,
    media_time: u64,
    talking: bool,
    /// Packets of silence since the last one of comfort noise, and the level of that; `None` while voice is sent.
    quiet: Option<(u32, u8)>,
    pcm: [i16; MAX_PACKET_SAMPLES],
    payload: [u8; MAX_PACKET_SAMPLES],
}

impl G711Sender {
    pub(crate) fn new() -> Self {
        Self {
            law: Law::A,
            packet_samples: 160,
            fifo: Fifo::new(2 * MAX_PACKET_SAMPLES),
            dtmf: DtmfSender::new(CLOCK_RATE),
            media_time: 0,
            talking: false,
            quiet: None,
            pcm: [0; MAX_PACKET_SAMPLES],
            payload: [0; MAX_PACKET_SAMPLES],
        }
    }

    pub(crate) fn set_media(&mut self, law: Law, media: &LegMedia) {
        self.law = law;
        self.packet_samples = (8 * usize::from(media.packet_time_ms)).clamp(80, MAX_PACKET_SAMPLES);
    }

    /// Lets time pass without packets.
    pub(crate) fn skip(&mut self, samples: u64) {
        self.media_time += samples;
        self.talking = false;
        self.quiet = None;
    }

    pub(crate) fn queue_dtmf(&mut self, digit: DtmfDigit, duration_ms: u16) -> bool {
        self.dtmf.queue(digit, duration_ms).is_ok()
    }

    /// Takes a tick of audio and sends the packets that are full. An event that is due takes the
    /// place of audio. Audio that is nothing but the noise given goes as comfort noise (RFC 3389), now and then,
    /// where the leg has that.
    pub(crate) fn tick(
        &mut self,
        now: Instant,
        pcm: &[i16],
        noise: Option<[u8; PAYLOAD_LEN]>,
        leg: &mut RtpLeg,
        emit: RtpEmit<'_>,
    ) {
        self.fifo.push(pcm);
        let noise = noise.filter(|_| leg.has_comfort_noise());
        if noise.is_none() {
            self.fifo.mark();
        }
        let samples = self.packet_samples;
        loop {
            let silent = !self.fifo.is_marked();
            if !self.fifo.pop(&mut self.pcm[..samples]) {
                break;
            }
            let time = self.media_time;
            self.media_time += samples as u64;
            let before = std::mem::take(&mut self.talking);
            // Events wait while hold forbids to send, rather than being lost.
            let sends = leg.media().is_some_and(|media| media.direction.sends());
            if !sends {
                continue;
            }
            if let Some(event) = self.dtmf.next(time, samples as u32) {
                leg.send(
                    now,
                    PayloadKind::TelephoneEvent,
                    event.marker,
                    event.media_time,
                    &event.payload,
                    emit,
                );
                continue;
            }
            if let Some(noise) = noise.filter(|_| silent) {
                self.send_noise(now, time, &noise, leg, emit);
                continue;
            }
            self.quiet = None;
            self.law.encode_into(&self.pcm[..samples], &mut self.payload);
            self.talking = leg.send(now, PayloadKind::Audio, !before, time, &self.payload[..samples], emit);
        }
    }

    /// Sends comfort noise when silence begins, when its level is another, and every 400 ms: who hears it may have
    /// lost one, and what is on the way may close.
    fn send_noise(
        &mut self,
        now: Instant,
        time: u64,
        noise: &[u8; PAYLOAD_LEN],
        leg: &mut RtpLeg,
        emit: RtpEmit<'_>,
    ) {
        let repeat = (NOISE_REPEAT / self.packet_samples) as u32;
        let due = self.quiet.is_none_or(|(packets, level)| {
            packets >= repeat || level.abs_diff(noise[0]) > NOISE_CHANGE && packets > repeat / 4
        });
        let (packets, level) = match self.quiet {
            Some((packets, level)) if !due => (packets + 1, level),
            _ => (1, noise[0]),
        };
        self.quiet = Some((packets, level));
        if due {
            leg.send(now, PayloadKind::ComfortNoise, false, time, noise, emit);
        }
    }
}
