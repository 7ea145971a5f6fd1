//! What comes from an overlay leg: Opus, and G.711 where the other side sends that. The two are streams of their
//! own (RFC 7160 4.1), and the other side goes from one to the other in the middle of a word.
//!
//! Each has its jitter buffer. When packets of the other codec come, they wait in theirs until the one that plays
//! has played all that lies before them; timestamps say what that is, if the sender's two clocks began at one
//! moment (see [`order`](crate::order)), and the times of arrival if not. What was lost at the seam is concealed
//! by the codec that was there before.

use std::time::Instant;

use call_model::{Codec, DtmfDigit, LegQuality};

use super::coding::LONGEST;
use super::opus::{self, OpusReceiver};
use super::sampled::SampledReceiver;
use super::{Fifo, Played};
use crate::codec::CodecError;
use crate::codec::g711::Law;
use crate::codec::noise::PAYLOAD_LEN;
use crate::codec::opus::{Decoder, is_dtx};
use crate::leg::rtp::CLOCK_RATE;
use crate::leg::webrtc::WebRtcLeg;
use crate::leg::{LegPacket, PayloadKind};
use crate::order::{Arrival, COMMON_CLOCK_RATE, Inserted, JitterBuffer, JitterConfig};
use crate::quality::Heard;
use crate::rtp::ReceiverStatistics;
use crate::seed::Seeded;

/// Moments of two streams that are further apart than this, in ticks of the common clock, have nothing to do with
/// each other: two seconds.
const RELATED: u32 = 2 * COMMON_CLOCK_RATE;
/// Packets missing in a row that are a burst.
const BURST: u16 = 3;
/// A jump of sequence numbers beyond this is another stream, not loss (RFC 3550 A.1).
const MAX_DROPOUT: u16 = 3_000;

/// What was received in G.711.
struct Companion {
    receiver: SampledReceiver,
    statistics: ReceiverStatistics,
    refused: u64,
}

/// Packets of either codec in, PCM out.
pub(crate) struct EdgeReceiver {
    opus: OpusReceiver,
    /// Where both sides have it.
    g711: Option<Box<Companion>>,
    /// Whether G.711 plays.
    plays_g711: bool,
    /// The audio is voiceband data.
    voiceband: bool,
    /// Packets of the other codec wait for their turn.
    pending: bool,
    /// The timestamps of both say what follows what.
    related: bool,
    /// The law that came last.
    law: Option<Law>,
    /// Packets of a codec that was over already.
    late: u64,
    /// Source and number of the last packet in sequence, and how often many were missing before one.
    last: Option<(u32, u16)>,
    bursts: u64,
}

impl EdgeReceiver {
    pub(crate) fn new(sample_rate: u32, seed: &mut Seeded) -> Result<Self, CodecError> {
        Ok(Self {
            opus: OpusReceiver::new(sample_rate, seed)?,
            g711: None,
            plays_g711: false,
            voiceband: false,
            pending: false,
            related: false,
            law: None,
            late: 0,
            last: None,
            bursts: 0,
        })
    }

    /// Makes room for G.711. For PCM at 8 or 16 kHz only.
    pub(crate) fn expect_g711(&mut self, seed: u64) {
        let (voiceband, sample_rate) = (self.voiceband, self.opus.sample_rate());
        self.g711.get_or_insert_with(|| {
            let mut receiver = SampledReceiver::new(sample_rate, &mut Seeded::new(seed));
            // The same least delay as Opus has: at a change nothing is to be stretched or cut.
            let config = JitterConfig { min_delay: opus::MIN_DELAY, ..JitterConfig::g711() };
            receiver.jitter = JitterBuffer::new(config);
            receiver.set_voiceband(voiceband);
            Box::new(Companion { receiver, statistics: ReceiverStatistics::new(CLOCK_RATE), refused: 0 })
        });
    }

    /// Goes on with the PCM at the rate of a decoder: 8 or 16 kHz. What was decoded at another is given up.
    pub(crate) fn set_decoder(&mut self, decoder: Decoder) {
        if let Some(g711) = &mut self.g711 {
            g711.receiver.set_sample_rate(decoder.sample_rate());
        }
        self.opus.set_decoder(decoder);
    }

    /// Takes the audio for voiceband data from now on, or for voice again.
    pub(crate) fn set_voiceband(&mut self, on: bool) {
        self.voiceband = on;
        self.opus.set_voiceband(on);
        if let Some(g711) = &mut self.g711 {
            g711.receiver.set_voiceband(on);
        }
    }

    /// Counts a packet that is passed on as it is.
    pub(crate) fn count(&mut self, now: Instant, packet: &LegPacket) {
        self.watch(packet);
        match (&mut self.g711, packet.kind.is_g711()) {
            (Some(g711), true) => {
                g711.statistics.receive(now, packet.ssrc, packet.sequence, packet.timestamp);
            }
            _ => self.opus.count(now, packet),
        }
    }

    pub(crate) fn receive(&mut self, now: Instant, packet: &LegPacket) {
        self.watch(packet);
        let is_g711 = packet.kind.is_g711();
        if packet.kind.is_event() {
            match &mut self.g711 {
                Some(g711) if is_g711 => g711.receive_event(now, packet),
                _ => self.opus.receive(now, packet),
            }
            return;
        }
        if is_g711 != self.plays_g711 && !self.admit(packet) {
            self.late += 1;
            self.count(now, packet);
            return;
        }
        match (&mut self.g711, packet.kind) {
            (Some(g711), PayloadKind::G711(law)) => {
                self.law = Some(law);
                g711.receive(now, packet, law);
            }
            (_, PayloadKind::Audio) => self.opus.receive(now, packet),
            _ => {}
        }
    }

    /// Notes how many are missing before a packet.
    fn watch(&mut self, packet: &LegPacket) {
        let Some((ssrc, sequence)) = self.last.filter(|(ssrc, _)| *ssrc == packet.ssrc) else {
            self.last = Some((packet.ssrc, packet.sequence));
            return;
        };
        let ahead = packet.sequence.wrapping_sub(sequence);
        if ahead.cast_signed() > 0 || ahead > MAX_DROPOUT {
            self.last = Some((ssrc, packet.sequence));
            self.bursts += u64::from((BURST + 1..=MAX_DROPOUT).contains(&ahead));
        }
    }

    fn jitter_of(&self, g711: bool) -> Option<&JitterBuffer> {
        if g711 { self.g711.as_ref().map(|g711| &g711.receiver.jitter) } else { Some(&self.opus.jitter) }
    }

    /// Says whether a packet of the codec that does not play is to wait for its turn, rather than come too late.
    fn admit(&mut self, packet: &LegPacket) -> bool {
        let is_g711 = packet.kind.is_g711();
        let (Some(playing), Some(other)) = (self.jitter_of(self.plays_g711), self.jitter_of(is_g711)) else {
            return false;
        };
        let Some(position) = playing.position() else {
            // Nothing was played yet.
            self.plays_g711 = is_g711;
            return true;
        };
        let ahead = other.moment(packet.timestamp).wrapping_sub(position).cast_signed();
        if !self.pending {
            self.related = ahead.unsigned_abs() < RELATED;
        }
        if self.related && ahead < 0 && !self.primes(is_g711, ahead) {
            return false;
        }
        if !std::mem::replace(&mut self.pending, true) {
            self.begin_waiting(is_g711, packet.timestamp);
        }
        true
    }

    /// Says whether what lies before the position is still of use: a decoder of Opus that has not heard the frame
    /// before the first that is played begins with 6.5 ms of something else.
    fn primes(&self, is_g711: bool, ahead: i32) -> bool {
        !is_g711 && ahead.unsigned_abs() <= COMMON_CLOCK_RATE / 50
    }

    /// Readies the receiver of the codec whose first packet has come.
    fn begin_waiting(&mut self, is_g711: bool, timestamp: u32) {
        let Some(g711) = &mut self.g711 else { return };
        let g711 = &mut g711.receiver;
        let (jitter, before) = if is_g711 {
            g711.reset();
            (&mut g711.jitter, &self.opus.jitter)
        } else {
            self.opus.fifo.clear();
            (&mut self.opus.jitter, &g711.jitter)
        };
        if self.related { jitter.follow(before, timestamp) } else { jitter.reset() }
    }

    /// Goes over to the codec that waits, once it is its turn.
    fn hand_over(&mut self, tick: Instant, samples: usize) {
        let Some(g711) = &mut self.g711 else { return };
        let g711 = &mut g711.receiver;
        let to_g711 = !self.plays_g711;
        let opus = &mut self.opus;
        type Half<'a> = (&'a mut JitterBuffer, &'a mut Fifo);
        let (before, after): (Half<'_>, Half<'_>) = if to_g711 {
            ((&mut opus.jitter, &mut opus.fifo), (&mut g711.jitter, &mut g711.fifo))
        } else {
            ((&mut g711.jitter, &mut g711.fifo), (&mut opus.jitter, &mut opus.fifo))
        };
        if before.0.queued() > 0 || before.1.len() >= samples {
            return;
        }
        let mut silent = false;
        let position = before.0.position().filter(|_| self.related);
        if let Some(position) = position {
            while let Some(payload) = after.0.take_before(position) {
                // What it decodes to was heard already, in the other codec.
                if !to_g711 {
                    silent = is_dtx(payload);
                    let _ = opus.decoder.decode(payload, &mut opus.scratch);
                }
            }
        }
        let follows = position.is_some_and(|position| {
            after.0.position().is_some_and(|next| next.wrapping_sub(position).cast_signed() <= 0)
        });
        // A gap before what waits is made up by what plays, as long as that would make up a gap of its own.
        let over = position.is_none() || !before.0.is_playing();
        if !(follows || silent || (over && after.0.is_due(tick))) {
            return;
        }
        after.0.begin(tick);
        after.1.take_all(before.1);
        before.0.reset();
        (self.plays_g711, self.pending) = (to_g711, false);
    }

    /// Fills `out` with the next tick. `tick` is the nominal time of it.
    pub(crate) fn read(&mut self, tick: Instant, out: &mut [i16]) -> Played {
        if self.pending {
            self.hand_over(tick, out.len());
        }
        let played = match &mut self.g711 {
            Some(g711) if self.plays_g711 => g711.receiver.read(tick, out),
            _ => self.opus.read(tick, out),
        };
        // RFC 4733 2.5.1.3, whichever stream the event is in.
        if self.hears_digit() {
            out.fill(0);
        }
        played
    }

    /// Says whether it is G.711 that plays.
    pub(crate) fn plays_g711(&self) -> bool {
        self.plays_g711
    }

    /// Gives up what waits of G.711, where Opus that goes another way has come.
    pub(crate) fn end_g711(&mut self) {
        if let Some(g711) = self.g711.as_mut().filter(|_| self.plays_g711) {
            g711.receiver.reset();
            self.opus.jitter.reset();
            (self.plays_g711, self.pending) = (false, false);
        }
    }

    /// Says whether a digit is down.
    pub(crate) fn hears_digit(&self) -> bool {
        self.opus.hears_digit() || self.g711.as_ref().is_some_and(|g711| g711.receiver.hears_digit())
    }

    pub(crate) fn poll_dtmf(&mut self) -> Option<(DtmfDigit, u16)> {
        self.opus.poll_dtmf().or_else(|| self.g711.as_mut()?.receiver.poll_dtmf())
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let g711 = self.g711.as_ref().and_then(|g711| g711.receiver.poll_timeout());
        self.opus.poll_timeout().into_iter().chain(g711).min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.opus.handle_timeout(now);
        if let Some(g711) = &mut self.g711 {
            g711.receiver.handle_timeout(now);
        }
    }

    /// Returns the law that came last, while G.711 comes.
    pub(crate) fn law(&self) -> Option<Law> {
        self.law.filter(|_| self.plays_g711 || self.pending)
    }

    /// Returns the codec that plays.
    pub(crate) fn codec(&self) -> Codec {
        match self.law.filter(|_| self.plays_g711) {
            Some(Law::Mu) => Codec::Pcmu,
            Some(Law::A) => Codec::Pcma,
            None => Codec::Opus,
        }
    }

    /// Returns the number of lost frames that in-band FEC or redundancy brought back.
    pub(crate) fn recovered(&self) -> u64 {
        self.opus.recovered()
    }

    /// Returns the packets received and lost in all, passed on or not.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let opus = self.opus.statistics();
        let g711 = self.g711.as_ref().map(|g711| (g711.statistics.packets(), g711.statistics.lost()));
        let (packets, lost) = g711.unwrap_or_default();
        (opus.packets() + packets, opus.lost() + lost)
    }

    /// Returns how often three packets or more were missing in a row.
    pub(crate) fn bursts(&self) -> u64 {
        self.bursts
    }

    /// Returns the jitter of the stream that plays, in milliseconds.
    pub(crate) fn jitter_ms(&self) -> f32 {
        match &self.g711 {
            Some(g711) if self.plays_g711 => g711.statistics.jitter_ms(),
            _ => self.opus.statistics().jitter_ms(),
        }
    }

    /// Returns the jitter buffer of the stream that plays.
    pub(crate) fn jitter(&self) -> &JitterBuffer {
        match &self.g711 {
            Some(g711) if self.plays_g711 => &g711.receiver.jitter,
            _ => self.opus.jitter(),
        }
    }

    /// Returns the comfort noise payload (RFC 3389 3) of the tick that was read last, if the far side was silent in
    /// all of it.
    pub(crate) fn comfort_noise(&mut self) -> Option<[u8; PAYLOAD_LEN]> {
        if self.plays_g711 { None } else { self.opus.comfort_noise() }
    }

    /// Returns what was heard of both streams and what was not.
    pub(crate) fn heard(&self) -> Heard {
        let opus = self.opus.heard();
        let Some(g711) = &self.g711 else { return opus };
        let mut heard = opus.with(&g711.receiver.heard(), self.plays_g711);
        heard.expected += self.late;
        heard.discarded += self.late;
        heard
    }

    /// Returns the same of streams that pass as they are: nothing waits, so nothing is too late.
    pub(crate) fn passed(&self) -> Heard {
        let opus = Heard::passed(self.opus.statistics());
        match &self.g711 {
            Some(g711) => opus.with(&Heard::passed(&g711.statistics), self.plays_g711),
            None => opus,
        }
    }

    pub(crate) fn quality(&self, leg: &WebRtcLeg) -> LegQuality {
        let mut quality = self.opus.quality(leg);
        let Some(g711) = &self.g711 else { return quality };
        let (receiver, jitter) = (&g711.receiver, g711.receiver.jitter.counters());
        quality.packets_received += jitter.received.saturating_sub(jitter.duplicates) + self.late;
        quality.packets_lost += jitter.lost;
        quality.packets_late += jitter.late + self.late;
        quality.packets_discarded += jitter.discarded;
        quality.packets_duplicate += jitter.duplicates;
        quality.packets_refused += g711.refused + receiver.refused();
        quality.frames_concealed += receiver.concealed();
        quality.frames_played += receiver.played();
        quality.jitter_ms = self.jitter_ms();
        quality.playout_delay_ms = self.jitter().target_delay().as_secs_f32() * 1_000.0;
        quality
    }
}

impl Companion {
    fn receive_event(&mut self, now: Instant, packet: &LegPacket) {
        self.statistics.receive(now, packet.ssrc, packet.sequence, packet.timestamp);
        let receiver = &mut self.receiver;
        receiver.jitter.mark(packet.ssrc, packet.sequence);
        if receiver.dtmf.receive(now, packet.timestamp, packet.marker, &packet.payload).is_err() {
            self.refused += 1;
        }
    }

    fn receive(&mut self, now: Instant, packet: &LegPacket, law: Law) {
        self.statistics.receive(now, packet.ssrc, packet.sequence, packet.timestamp);
        let Some(duration) = u32::try_from(packet.payload.len()).ok().filter(|&duration| duration > 0) else {
            self.refused += 1;
            return;
        };
        let arrival = Arrival {
            ssrc: packet.ssrc,
            sequence: packet.sequence,
            timestamp: packet.timestamp,
            marker: packet.marker,
            duration,
            silence: false,
        };
        let receiver = &mut self.receiver;
        // Either law may come at any time (RFC 3264 6.1); what waits is all in one.
        let mut made = [0; LONGEST];
        let payload = if law == receiver.law() {
            &packet.payload[..]
        } else {
            let table = receiver.law().codes_of_other();
            let length = packet.payload.len().min(LONGEST);
            for (made, code) in made.iter_mut().zip(packet.payload.iter()) {
                *made = table[usize::from(*code)];
            }
            &made[..length]
        };
        if matches!(receiver.jitter.insert(now, arrival, payload), Inserted::TooLarge) {
            self.refused += 1;
        }
    }
}
