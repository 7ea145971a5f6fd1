//! What goes out on an overlay leg: Opus, or G.711 while that is wanted.
//!
//! Both streams count time from one moment, so that who hears them can put one behind the other without a gap:
//! a timestamp of Opus is six times that of G.711 at the same moment (modulo 2^32). What the encoder of Opus
//! delays, G.711 is delayed by as well: else a change would leave out 6.5 ms, or say them twice.

use std::net::SocketAddr;
use std::time::Instant;

use call_model::{Codec, DtmfDigit};

use super::opus::OpusSender;
use crate::codec::CodecError;
use crate::codec::fec::FecPolicy;
use crate::codec::g711::Law;
use crate::codec::opus::{Encoder, EncoderConfig};
use crate::dtmf::DtmfSender;
use crate::leg::PayloadKind;
use crate::leg::rtp::CLOCK_RATE;
use crate::leg::webrtc::WebRtcLeg;
use crate::seed::Seeded;

/// Samples of a tick at 8 kHz.
const TICK_SAMPLES: usize = 160;
/// The look-ahead of Opus at 8 kHz, 6.5 ms, in samples (RFC 6716 2.1.1: SILK's, and what libopus adds so that its
/// modes can follow each other).
const DELAY: usize = 52;

type LegEmit<'a> = &'a mut dyn FnMut(SocketAddr, SocketAddr, &[u8]);

/// PCM in, packets of either codec out.
pub(crate) struct EdgeSender {
    opus: OpusSender,
    /// The PCM is what G.711 carries.
    is_8_khz: bool,
    /// The law that is sent and the one that is to be; `None` is Opus.
    law: Option<Law>,
    wanted: Option<Law>,
    /// Digits go in the stream of G.711 while that is sent.
    has_events: bool,
    dtmf: DtmfSender,
    /// The end of the tick before, which G.711 has still to say.
    delayed: [i16; DELAY],
    talking: bool,
}

impl EdgeSender {
    /// Builds a sender, as [`OpusSender::new`] does.
    pub(crate) fn new(
        config: &EncoderConfig,
        fec: FecPolicy,
        detect: bool,
        seed: &mut Seeded,
    ) -> Result<Self, CodecError> {
        Ok(Self {
            opus: OpusSender::new(config, fec, detect, seed)?,
            is_8_khz: config.sample_rate == CLOCK_RATE,
            law: None,
            wanted: None,
            has_events: false,
            dtmf: DtmfSender::new(CLOCK_RATE),
            delayed: [0; DELAY],
            talking: false,
        })
    }

    /// Builds an encoder of other settings for [`set_encoder`](Self::set_encoder).
    pub(crate) fn encoder_of(&self, config: &EncoderConfig) -> Result<Encoder, CodecError> {
        self.opus.encoder_of(config)
    }

    /// Puts an encoder with other settings in the place of the old. PCM is at its rate from now on: G.711 goes out at
    /// 8 kHz only.
    pub(crate) fn set_encoder(&mut self, encoder: Encoder, config: &EncoderConfig) {
        self.opus.set_encoder(encoder, config);
        self.is_8_khz = config.sample_rate == CLOCK_RATE;
        self.wanted = self.wanted.filter(|_| self.is_8_khz);
        self.delayed = [0; DELAY];
    }

    /// Fits redundancy or in-band FEC to the loss in per cent that the other side reports.
    pub(crate) fn adapt(&mut self, reported: f32, leg: &WebRtcLeg) {
        self.opus.adapt(reported, leg);
    }

    /// Returns the loss in per cent that in-band FEC is made for, 0 without it.
    pub(crate) fn fec_percent(&self) -> u8 {
        self.opus.fec_percent()
    }

    /// Returns how many of the frames before its own a packet of Opus carries once more.
    pub(crate) fn redundancy(&self) -> u8 {
        self.opus.redundancy()
    }

    /// Leaves nothing out from now on, or silence again (ITU-T V.152 6.1).
    pub(crate) fn set_voiceband(&mut self, on: bool) {
        self.opus.set_voiceband(on);
    }

    pub(crate) fn set_complexity(&mut self, complexity: u8) -> Result<(), CodecError> {
        self.opus.set_complexity(complexity)
    }

    /// Says what to send from the next tick on that is not within a digit: G.711 in a law, or Opus. `has_events`
    /// says whether digits may go with G.711; they go with Opus if not.
    pub(crate) fn want(&mut self, law: Option<Law>, has_events: bool) {
        self.wanted = law.filter(|_| self.is_8_khz);
        if self.dtmf.is_idle() {
            self.has_events = has_events;
        }
    }

    /// Returns what is sent.
    pub(crate) fn codec(&self) -> Codec {
        match self.law {
            Some(Law::Mu) => Codec::Pcmu,
            Some(Law::A) => Codec::Pcma,
            None => Codec::Opus,
        }
    }

    /// Lets time pass without packets.
    pub(crate) fn skip(&mut self, ticks: u64) {
        self.opus.skip(ticks);
        self.talking = false;
        self.delayed = [0; DELAY];
    }

    pub(crate) fn queue_dtmf(&mut self, digit: DtmfDigit, duration_ms: u16) -> bool {
        if self.law.is_some() && self.has_events {
            self.dtmf.queue(digit, duration_ms).is_ok()
        } else {
            self.opus.queue_dtmf(digit, duration_ms)
        }
    }

    /// Sends what the next tick asks for: a telephone event if one is due, else `pcm` if there is any.
    pub(crate) fn tick(&mut self, now: Instant, pcm: Option<&[i16]>, leg: &mut WebRtcLeg, emit: LegEmit<'_>) {
        let mut leaves = None;
        if self.wanted != self.law && leg.is_connected() && self.dtmf.is_idle() && self.opus.has_no_digit() {
            let before = std::mem::replace(&mut self.law, self.wanted);
            leaves = before.filter(|_| self.wanted.is_none());
        }
        let timestamp = self.opus.g711_timestamp();
        let Some(law) = self.law else {
            // The last frame goes in both: whoever decodes Opus from here on has then heard what it builds on.
            if let Some(law) = leaves {
                self.send(now, law, timestamp, pcm, leg, &mut *emit);
                self.talking = false;
            } else {
                self.keep(pcm);
            }
            self.opus.tick(now, pcm, leg, emit);
            return;
        };
        let event = if leg.is_connected() {
            self.dtmf.next(self.opus.g711_time(), TICK_SAMPLES as u32)
        } else {
            None
        };
        if let Some(event) = event {
            self.opus.skip(1);
            let began = self.opus.g711_timestamp_at(event.media_time);
            leg.send(now, PayloadKind::G711Event, began, event.marker, &event.payload, emit);
            self.talking = false;
            self.keep(pcm);
        } else if self.opus.tick(now, None, leg, &mut *emit) {
            self.talking = false;
            self.keep(pcm);
        } else {
            self.send(now, law, timestamp, pcm, leg, emit);
        }
    }

    /// Keeps what G.711 would have to say next.
    fn keep(&mut self, pcm: Option<&[i16]>) {
        match pcm.and_then(|pcm| pcm.last_chunk::<DELAY>()) {
            Some(last) => self.delayed = *last,
            None => self.delayed = [0; DELAY],
        }
    }

    /// Sends a tick of G.711. There is no DTX in it: silence is sent as it is.
    fn send(
        &mut self,
        now: Instant,
        law: Law,
        timestamp: u32,
        pcm: Option<&[i16]>,
        leg: &mut WebRtcLeg,
        emit: LegEmit<'_>,
    ) {
        let before = std::mem::take(&mut self.talking);
        if let Some(pcm) = pcm.filter(|pcm| pcm.len() == TICK_SAMPLES) {
            let mut payload = [0; TICK_SAMPLES];
            law.encode_into(&self.delayed, &mut payload);
            law.encode_into(&pcm[..TICK_SAMPLES - DELAY], &mut payload[DELAY..]);
            self.talking = leg.send(now, PayloadKind::G711(law), timestamp, !before, &payload, emit);
        }
        self.keep(pcm);
    }
}
