//! The stream of a trunk leg in a sample-based encoding, G.711 or G.722: 8000 Hz RTP clock, PCM at 8 or 16 kHz.

use std::time::{Duration, Instant};

use call_model::{DtmfDigit, LegMedia, LegQuality};

use super::coding::{Coding, Decoder, Encoder, LONGEST, NARROW};
use super::{Fifo, Played, VOICEBAND_DELAY};
use crate::codec::Concealer;
use crate::codec::g711::Law;
use crate::codec::noise::{ComfortNoise, PAYLOAD_LEN};
use crate::dtmf::{DtmfEvent, DtmfReceiver, DtmfSender, ToneDetector, ToneSender};
use crate::leg::PayloadKind;
use crate::leg::rtp::{CLOCK_RATE, MAX_PACKET_TIME_MS, Received, RtpEmit, RtpLeg};
use crate::order::{Arrival, Frame, Inserted, JitterBuffer, JitterConfig, TimeScaler};
use crate::quality::Heard;
use crate::rtp::RtpPacket;
use crate::seed::Seeded;

const MAX_POPS: usize = 8;
/// How long after a tone of ours what is heard of it may be its echo: there and back, with a jitter buffer at either
/// end, and until it is told as a digit.
const MAX_ECHO: Duration = Duration::from_millis(800);
/// Octets, or ticks of the clock, of a millisecond, and of the longest packet that is sent.
const PER_MS: usize = CLOCK_RATE as usize / 1_000;
const MAX_PACKET_OCTETS: usize = PER_MS * MAX_PACKET_TIME_MS as usize;

/// Ticks after which comfort noise is described again: 400 ms.
const NOISE_REPEAT: usize = 3_200;
/// So much of another level, in dB, is told sooner.
const NOISE_CHANGE: u8 = 2;

/// Packets in, PCM out.
pub(crate) struct SampledReceiver {
    /// What waits and is decoded is all in one coding: that which came last.
    decoder: Decoder,
    /// Source and number of the newest packet of voice.
    newest: Option<(u32, u16)>,
    /// Samples of PCM in a tick of the clock.
    scale: usize,
    pub(super) jitter: JitterBuffer,
    concealer: Concealer,
    scaler: TimeScaler,
    noise: ComfortNoise,
    /// Whether comfort noise was what came last: it sounds until voice comes.
    comfort: bool,
    pub(super) dtmf: DtmfReceiver,
    /// While the far end has no telephone events.
    tones: Option<Box<ToneDetector>>,
    /// Samples of the far end's audio that the detector of tones still holds back.
    held_back: usize,
    /// The audio is voiceband data: nothing is made up, left out or stretched.
    voiceband: bool,
    clock_rate: u32,
    event_clock_rate: u32,
    pub(super) fifo: Fifo,
    scratch: Box<[i16]>,
    played: u64,
    concealed: u64,
    refused: u64,
}

fn scratch(scale: usize) -> Box<[i16]> {
    vec![0; LONGEST * scale].into_boxed_slice()
}

fn fifo(scale: usize) -> Fifo {
    Fifo::new((LONGEST + 320) * scale)
}

impl SampledReceiver {
    /// Builds a receiver whose PCM is at 8 or 16 kHz.
    pub(crate) fn new(sample_rate: u32, seed: &mut Seeded) -> Self {
        let scale = (sample_rate / NARROW) as usize;
        Self {
            decoder: Decoder::new(sample_rate),
            newest: None,
            scale,
            jitter: JitterBuffer::new(JitterConfig::g711()),
            concealer: Concealer::for_rate(sample_rate),
            scaler: TimeScaler::new(sample_rate),
            noise: ComfortNoise::new(seed.next_u64()),
            comfort: false,
            dtmf: DtmfReceiver::new(CLOCK_RATE),
            tones: None,
            held_back: 0,
            voiceband: false,
            clock_rate: CLOCK_RATE,
            event_clock_rate: CLOCK_RATE,
            fifo: fifo(scale),
            scratch: scratch(scale),
            played: 0,
            concealed: 0,
            refused: 0,
        }
    }

    /// Sets the rate of the PCM: 8 or 16 kHz. What was decoded at another is given up.
    pub(crate) fn set_sample_rate(&mut self, sample_rate: u32) {
        let scale = (sample_rate / NARROW) as usize;
        if scale == self.scale {
            return;
        }
        self.scale = scale;
        let before = std::mem::replace(&mut self.decoder, Decoder::new(sample_rate));
        if before.knows(Coding::G722) {
            self.decoder.expect_g722();
        }
        self.decoder.set_coding(before.coding());
        (self.concealer, self.scaler) = (Concealer::for_rate(sample_rate), TimeScaler::new(sample_rate));
        (self.fifo, self.scratch, self.held_back) = (fifo(scale), scratch(scale), 0);
        if let Some(tones) = &mut self.tones {
            **tones = ToneDetector::for_rate(sample_rate);
            tones.set_listening(!self.voiceband);
        }
    }

    /// Lets G.722 come beside G.711 from now on.
    pub(crate) fn expect_g722(&mut self) {
        self.decoder.expect_g722();
    }

    /// Sets the coding that is expected. What waits in another would sound as noise and is given up.
    pub(crate) fn set_coding(&mut self, coding: Coding) {
        if coding == Coding::G722 {
            self.decoder.expect_g722();
        }
        if self.decoder.coding() != coding {
            self.reset();
            self.decoder.set_coding(coding);
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

    /// Listens for digits that come as tones, from a far end without telephone events, or no longer does.
    pub(crate) fn set_in_band(&mut self, on: bool) {
        if on != self.tones.is_some() {
            let sample_rate = NARROW * self.scale as u32;
            self.tones = on.then(|| Box::new(ToneDetector::for_rate(sample_rate)));
            self.held_back = 0;
        }
    }

    /// Takes the audio for voiceband data from now on, or for voice again.
    pub(crate) fn set_voiceband(&mut self, on: bool) {
        self.voiceband = on;
        self.jitter.set_fixed(on.then_some(VOICEBAND_DELAY));
        self.concealer.reset();
        if let Some(tones) = &mut self.tones {
            tones.set_listening(!on);
        }
    }

    /// Returns the law in which packets wait; A-law while they are G.722.
    pub(super) fn law(&self) -> Law {
        self.decoder.coding().law().unwrap_or(Law::A)
    }

    /// Returns the number of frames that were made up.
    pub(super) fn concealed(&self) -> u64 {
        self.concealed
    }

    /// Returns the number of ticks in which the far end was heard.
    pub(super) fn played(&self) -> u64 {
        self.played
    }

    /// Returns the number of packets that could not be used.
    pub(super) fn refused(&self) -> u64 {
        self.refused + self.dtmf.refused()
    }

    /// Says whether a digit is down.
    pub(crate) fn hears_digit(&self) -> bool {
        self.dtmf.is_active()
    }

    pub(crate) fn reset(&mut self) {
        self.jitter.reset();
        self.concealer.reset();
        self.decoder.reset();
        self.newest = None;
        self.comfort = false;
        self.fifo.clear();
        self.held_back = 0;
        if let Some(tones) = &mut self.tones {
            tones.reset();
        }
    }

    pub(crate) fn receive(&mut self, now: Instant, received: Received<'_>) {
        match received {
            Received::Audio(packet, law) => self.receive_voice(now, &packet, Coding::Law(law)),
            Received::G722(packet) => self.receive_voice(now, &packet, Coding::G722),
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

    /// RFC 3264 6.1: whatever was agreed on may come, whichever of it is expected.
    fn receive_voice(&mut self, now: Instant, packet: &RtpPacket<'_>, coding: Coding) {
        let duration = u32::try_from(packet.payload().len()).unwrap_or(0);
        let newer = self.newest.is_none_or(|(ssrc, sequence)| {
            ssrc != packet.ssrc() || packet.sequence().wrapping_sub(sequence).cast_signed() > 0
        });
        if newer {
            self.newest = Some((packet.ssrc(), packet.sequence()));
        }
        match (self.decoder.coding(), coding) {
            (waiting, coming) if waiting == coming => {
                self.insert(now, packet, packet.payload(), duration, false);
            }
            // What waits is all in one law.
            (Coding::Law(law), Coding::Law(_)) => {
                let (mut payload, table) = ([0; LONGEST], law.codes_of_other());
                let length = packet.payload().len().min(LONGEST);
                for (made, code) in payload.iter_mut().zip(packet.payload()) {
                    *made = table[usize::from(*code)];
                }
                self.insert(now, packet, &payload[..length], length as u32, false);
            }
            // What waits in the codec before cannot wait beside this, and one of before does not bring that back.
            _ if newer && self.decoder.knows(coding) => {
                self.jitter.reset();
                self.decoder.set_coding(coding);
                self.insert(now, packet, packet.payload(), duration, false);
            }
            _ => self.refused += 1,
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
            let scale = self.scale;
            let samples = |ticks: u32| (ticks as usize).min(LONGEST) * scale;
            let length = match self.jitter.pop(tick, (self.fifo.len() / scale) as u32) {
                Frame::Packet { payload, duration, silence: true, pace, .. } => {
                    self.noise.describe(payload);
                    self.comfort = true;
                    let length = samples(duration);
                    self.noise.fill(&mut self.scratch[..length]);
                    self.scaler.apply(&mut self.scratch, length, pace)
                }
                Frame::Packet { payload, pace, .. } => {
                    self.comfort = false;
                    let length = self.decoder.decode(payload, &mut self.scratch);
                    self.noise.hear(&self.scratch[..length]);
                    self.concealer.receive(&mut self.scratch[..length]);
                    self.scaler.apply(&mut self.scratch, length, pace)
                }
                Frame::Lost { duration, .. } => {
                    let length = samples(duration);
                    let gap = &mut self.scratch[..length];
                    // What a voice might have gone on with is noise to a modem (ITU-T V.152 6.1).
                    if self.voiceband {
                        gap.fill(0);
                    } else {
                        self.concealed += 1;
                        self.concealer.conceal(gap);
                    }
                    length
                }
                Frame::Silence { duration } => {
                    let length = samples(duration);
                    self.fill_silence(length);
                    length
                }
                Frame::Empty => {
                    if !self.comfort {
                        played = Played::Nothing;
                    }
                    break;
                }
            };
            self.fifo.push(&self.scratch[..length]);
        }
        let length = self.fifo.pop_some(out);
        let missing = out.len() - length;
        self.fill_silence(missing);
        out[length..].copy_from_slice(&self.scratch[..missing]);
        if let Some(tones) = &mut self.tones {
            tones.process(out);
            // What is held back is heard before silence is.
            let heard = match played {
                Played::Audio => ToneDetector::DELAY * self.scale,
                Played::Nothing => self.held_back.saturating_sub(out.len()),
            };
            if std::mem::replace(&mut self.held_back, heard) > 0 {
                played = Played::Audio;
            }
        }
        self.played += u64::from(played == Played::Audio);
        // RFC 4733 2.5.1.3: what sounds under an event is the same digit once more.
        if self.dtmf.is_active() {
            out.fill(0);
        }
        played
    }

    /// Makes comfort noise, or true silence where nothing is to be made up.
    fn fill_silence(&mut self, length: usize) {
        let silence = &mut self.scratch[..length];
        if self.voiceband { silence.fill(0) } else { self.noise.fill(silence) }
    }

    pub(crate) fn poll_dtmf(&mut self) -> Option<(DtmfDigit, u16)> {
        while let Some(event) = self.dtmf.poll_event() {
            match event {
                DtmfEvent::Started { .. } => {}
                DtmfEvent::Ended { digit, duration_ms } => return Some((digit, duration_ms)),
            }
        }
        self.tones.as_mut()?.poll_digit()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.dtmf.poll_timeout()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.dtmf.handle_timeout(now);
    }

    /// Returns what was heard and what was not.
    pub(crate) fn heard(&self) -> Heard {
        Heard::ordered(&self.jitter, 0)
    }

    pub(crate) fn jitter(&self) -> &JitterBuffer {
        &self.jitter
    }

    /// Returns the samples taken out and put in to change the delay.
    #[cfg(test)]
    pub(crate) fn scaled(&self) -> (u64, u64) {
        (self.scaler.shortened(), self.scaler.stretched())
    }

    /// Returns the counts of the leg.
    pub(crate) fn quality(&self, leg: &RtpLeg) -> LegQuality {
        let (counters, jitter) = (leg.counters(), self.jitter.counters());
        LegQuality {
            packets_received: jitter.received.saturating_sub(jitter.duplicates),
            packets_sent: counters.sent,
            packets_lost: jitter.lost,
            packets_late: jitter.late,
            packets_refused: counters.refused() + self.refused + self.dtmf.refused(),
            frames_concealed: self.concealed,
            jitter_ms: leg.statistics().jitter_ms(),
            packets_discarded: jitter.discarded,
            packets_duplicate: jitter.duplicates,
            frames_played: self.played,
            playout_delay_ms: self.jitter.target_delay().as_secs_f32() * 1_000.0,
            playout_delay_max_ms: self.jitter.longest_delay().as_secs_f32() * 1_000.0,
            playout_delay_limit_ms: self.jitter.config().max_delay.as_secs_f32() * 1_000.0,
            ..LegQuality::default()
        }
    }
}

/// PCM in, packets of the trunk's packet time out. The PCM is at the rate of the coding.
pub(crate) struct SampledSender {
    encoder: Encoder,
    /// Octets of a packet, which are ticks of the clock.
    packet_octets: usize,
    /// Samples of an octet.
    scale: usize,
    fifo: Fifo,
    dtmf: DtmfSender,
    /// Where digits go out as tones.
    tones: Option<Box<ToneSender>>,
    /// The digit that was sent last as a tone, and until when an echo of it may come back.
    echo: Option<(DtmfDigit, Instant)>,
    media_time: u64,
    talking: bool,
    /// Packets of silence since the last one of comfort noise, and the level of that; `None` while voice is sent.
    quiet: Option<(u32, u8)>,
    pcm: Box<[i16]>,
    payload: [u8; MAX_PACKET_OCTETS],
}

fn packet_samples(scale: usize) -> Box<[i16]> {
    vec![0; MAX_PACKET_OCTETS * scale].into_boxed_slice()
}

impl SampledSender {
    pub(crate) fn new() -> Self {
        Self {
            encoder: Encoder::new(),
            packet_octets: 20 * PER_MS,
            scale: 1,
            fifo: Fifo::new(2 * MAX_PACKET_OCTETS),
            dtmf: DtmfSender::new(CLOCK_RATE),
            tones: None,
            echo: None,
            media_time: 0,
            talking: false,
            quiet: None,
            pcm: packet_samples(1),
            payload: [0; MAX_PACKET_OCTETS],
        }
    }

    /// Sends in a coding from now on. What is left of a packet at another rate is given up.
    pub(crate) fn set_media(&mut self, coding: Coding, media: &LegMedia) {
        if coding.sample_rate() != self.encoder.coding().sample_rate() {
            self.media_time += (self.fifo.len() / self.scale) as u64;
            self.scale = (coding.sample_rate() / NARROW) as usize;
            (self.fifo, self.pcm) =
                (Fifo::new(2 * MAX_PACKET_OCTETS * self.scale), packet_samples(self.scale));
            if let Some(tones) = &mut self.tones {
                **tones = ToneSender::for_rate(coding.sample_rate());
            }
        }
        self.encoder.set_coding(coding);
        self.packet_octets =
            (PER_MS * usize::from(media.packet_time_ms)).clamp(10 * PER_MS, MAX_PACKET_OCTETS);
    }

    /// Lets time pass without packets, in ticks of the clock.
    pub(crate) fn skip(&mut self, ticks: u64) {
        self.media_time += ticks;
        self.talking = false;
        self.quiet = None;
    }

    /// Sends digits as tones from now on, or as telephone events. Those that wait are given up.
    pub(crate) fn set_in_band(&mut self, on: bool) {
        if on != self.tones.is_some() {
            let rate = self.encoder.coding().sample_rate();
            let tones = || Box::new(ToneSender::for_rate(rate));
            (self.tones, self.dtmf) = (on.then(tones), DtmfSender::new(CLOCK_RATE));
        }
    }

    /// Says whether digits go out as tones.
    pub(crate) fn is_in_band(&self) -> bool {
        self.tones.is_some()
    }

    pub(crate) fn queue_dtmf(&mut self, digit: DtmfDigit, duration_ms: u16) -> bool {
        match &mut self.tones {
            Some(tones) => tones.queue(digit, duration_ms).is_ok(),
            None => self.dtmf.queue(digit, duration_ms).is_ok(),
        }
    }

    /// Says whether a digit that the far end's audio held is one of ours that came back: a hybrid at the far end
    /// returns part of what it is sent (ITU-T G.168).
    pub(crate) fn is_echo(&self, now: Instant, digit: DtmfDigit) -> bool {
        self.echo.is_some_and(|(sent, until)| sent == digit && now <= until)
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
        let octets = self.packet_octets;
        let samples = octets * self.scale;
        loop {
            let silent = !self.fifo.is_marked();
            if !self.fifo.pop(&mut self.pcm[..samples]) {
                break;
            }
            let time = self.media_time;
            self.media_time += octets as u64;
            let before = std::mem::take(&mut self.talking);
            // Events wait while hold or the lack of keys forbids to send, rather than being lost.
            if !leg.can_send() {
                continue;
            }
            if let Some(event) = self.dtmf.next(time, octets as u32) {
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
            let tone = self.tones.as_mut().and_then(|tones| tones.fill(&mut self.pcm[..samples]));
            if let Some(digit) = tone {
                self.echo = Some((digit, now + MAX_ECHO));
            }
            if let Some(noise) = noise.filter(|_| silent && tone.is_none()) {
                self.send_noise(now, time, &noise, leg, emit);
                continue;
            }
            self.quiet = None;
            self.encoder.encode(&self.pcm[..samples], &mut self.payload);
            self.talking = leg.send(now, PayloadKind::Audio, !before, time, &self.payload[..octets], emit);
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
        let repeat = (NOISE_REPEAT / self.packet_octets) as u32;
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
