//! The G.711 stream of a trunk leg: 8000 Hz RTP clock, PCM at 8 kHz.

use std::time::Instant;

use call_model::{DtmfDigit, LegMedia, LegQuality};

use super::{Fifo, Played, is_quiet};
use crate::codec::g711::Law;
use crate::codec::{ComfortNoise, Concealer};
use crate::dtmf::{DtmfEvent, DtmfReceiver, DtmfSender};
use crate::leg::PayloadKind;
use crate::leg::rtp::{CLOCK_RATE, MAX_PACKET_TIME_MS, Received, RtpEmit, RtpLeg};
use crate::order::{Arrival, Frame, Inserted, JitterBuffer, JitterConfig};
use crate::quality::leg_quality;
use crate::rtp::RtpPacket;
use crate::seed::Seeded;

/// Samples of the longest frame that is decoded at once: 120 ms.
pub(super) const LONGEST: usize = 960;
const MAX_POPS: usize = 8;
const MAX_PACKET_SAMPLES: usize = 8 * MAX_PACKET_TIME_MS as usize;

/// Packets in, PCM out.
pub(crate) struct G711Receiver {
    law: Law,
    pub(super) jitter: JitterBuffer,
    concealer: Concealer,
    noise: ComfortNoise,
    pub(super) dtmf: DtmfReceiver,
    clock_rate: u32,
    event_clock_rate: u32,
    pub(super) fifo: Fifo,
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

    /// Returns the law in which packets wait.
    pub(super) fn law(&self) -> Law {
        self.law
    }

    /// Returns the number of frames that were made up.
    pub(super) fn concealed(&self) -> u64 {
        self.concealed
    }

    /// Returns the number of packets that could not be used.
    pub(super) fn refused(&self) -> u64 {
        self.refused + self.dtmf.refused()
    }

    /// Says whether a digit is down.
    pub(crate) fn hears_digit(&self) -> bool {
        self.dtmf.is_active()
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
        for _ in 0..MAX_POPS {
            if self.fifo.len() >= out.len() {
                break;
            }
            let length = match self.jitter.pop(tick) {
                Frame::Packet { payload, duration, silence: true, .. } => {
                    self.noise.set_level(payload.first().map_or(127, |level| level & 0x7f));
                    let length = (duration as usize).min(LONGEST);
                    self.noise.fill(&mut self.scratch[..length]);
                    length
                }
                Frame::Packet { payload, surplus, .. } => {
                    let length = self.law.decode_into(payload, &mut self.scratch);
                    let frame = &mut self.scratch[..length];
                    self.concealer.receive(frame);
                    if surplus && is_quiet(frame) { 0 } else { length }
                }
                Frame::Lost { duration, .. } => {
                    self.concealed += 1;
                    let length = (duration as usize).min(LONGEST);
                    self.concealer.conceal(&mut self.scratch[..length]);
                    length
                }
                Frame::Wait => {
                    self.concealed += 1;
                    self.concealer.conceal(&mut self.scratch[..out.len()]);
                    out.len()
                }
                Frame::Silence { duration } => {
                    let length = (duration as usize).min(LONGEST);
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
    }

    pub(crate) fn queue_dtmf(&mut self, digit: DtmfDigit, duration_ms: u16) -> bool {
        self.dtmf.queue(digit, duration_ms).is_ok()
    }

    /// Takes a tick of audio and sends the packets that are full. An event that is due takes the
    /// place of audio.
    pub(crate) fn tick(&mut self, now: Instant, pcm: &[i16], leg: &mut RtpLeg, emit: RtpEmit<'_>) {
        self.fifo.push(pcm);
        let samples = self.packet_samples;
        while self.fifo.pop(&mut self.pcm[..samples]) {
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
            self.law.encode_into(&self.pcm[..samples], &mut self.payload);
            self.talking = leg.send(now, PayloadKind::Audio, !before, time, &self.payload[..samples], emit);
        }
    }
}
