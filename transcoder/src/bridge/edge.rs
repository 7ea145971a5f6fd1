//! What the bridge has of the choice between Opus and G.711 on its overlay leg.

use std::time::Instant;

use call_model::Codec;

use super::{Bridge, Emit, TICK_SAMPLES, trunk_emit};
use crate::codec::g711::Law;
use crate::codec::opus::{Encoder, EncoderConfig, MAX_PACKET};
use crate::edge::{EdgeCodec, Seen};
use crate::leg::PayloadKind;
use crate::leg::webrtc::CLOCK_RATE;
use crate::rtp::Numbering;
use crate::stream::Played;

/// Makes Opus of G.711 for a trunk that speaks Opus only. Built when it is first asked for.
#[derive(Default)]
pub(super) struct TrunkEncoder {
    encoder: Option<Encoder>,
    /// The timestamp of the next packet, if it goes on where the last one ended.
    timestamp: Option<u32>,
}

impl TrunkEncoder {
    /// Encodes a tick into `out` and returns the octets.
    fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> Option<usize> {
        if self.encoder.is_none() {
            self.encoder = Encoder::new(&EncoderConfig::default()).ok();
        }
        self.encoder.as_mut()?.encode(pcm, out).ok()
    }
}

impl Bridge {
    /// Says what goes to the overlay from now on: where the trunk speaks G.711, it may be that, in the trunk's law
    /// if the other side takes it.
    pub(super) fn steer(&mut self, now: Instant) {
        if self.control.wants_look(now) {
            let (received, lost) = self.overlay_in.totals();
            let seen = Seen {
                received,
                lost,
                bursts: self.overlay_in.bursts(),
                jitter_ms: self.overlay_in.jitter_ms(),
                round_trip: self.overlay.round_trip(),
            };
            self.control.look(now, seen);
        }
        let law = self.trunk.media().and_then(|media| Law::of(media.codec));
        let law = law.and_then(|law| [law, law.other()].into_iter().find(|&law| self.overlay.has_g711(law)));
        let law = law.filter(|_| self.control.wants_g711(now));
        self.overlay_out.want(law, self.overlay.has_g711_event());
    }

    /// Readies both directions for G.711, once it is known that both sides have it.
    pub(super) fn expect_g711(&mut self, now: Instant) {
        self.control.connected(now);
        if self.overlay.has_g711(Law::Mu) || self.overlay.has_g711(Law::A) {
            self.overlay_in.expect_g711(self.edge_seed);
        }
    }

    /// Sends a tick of G.711 that comes from the overlay to a trunk that speaks Opus. A user who follows our choice
    /// never makes this necessary, for Opus is what such a call sends.
    pub(super) fn encode_for_trunk(&mut self, now: Instant, emit: Emit<'_>) {
        let Some(passing) = self.passing.as_mut().filter(|_| self.overlay_in.plays_g711()) else { return };
        let (mut pcm, mut payload) = ([0; TICK_SAMPLES], [0; MAX_PACKET]);
        let played = self.overlay_in.read(self.tick_at, &mut pcm);
        let before = passing.encoder.timestamp.take();
        // A digit takes the place of what is said (RFC 4733 2.5.1.2).
        if played != Played::Audio || passing.to_trunk.is_sending_digit() {
            return;
        }
        let Some(length) = passing.encoder.encode(&pcm, &mut payload) else { return };
        let next = self.trunk.next_numbering(now);
        let numbering = Numbering { timestamp: before.unwrap_or(next.timestamp), ..next };
        passing.to_trunk.pause();
        let (kind, mut out) = (PayloadKind::Audio, trunk_emit(&self.config, emit));
        if self.trunk.forward(now, kind, before.is_none(), numbering, &payload[..length], &mut out) {
            passing.encoder.timestamp = Some(numbering.timestamp.wrapping_add(CLOCK_RATE / 50));
        }
    }

    /// Goes on by another policy.
    pub fn set_edge(&mut self, policy: EdgeCodec) {
        self.control.set_policy(policy);
    }

    /// Returns the codec that goes to the overlay.
    pub fn overlay_sends(&self) -> Codec {
        if self.passing.is_some() { Codec::Opus } else { self.overlay_out.codec() }
    }

    /// Returns the codec that comes from the overlay.
    pub fn overlay_receives(&self) -> Codec {
        self.overlay_in.codec()
    }
}
