//! What the bridge has of the choice between Opus and G.711 on its overlay leg.

use std::time::Instant;

use call_model::Codec;

use super::Bridge;
use crate::codec::g711::Law;
use crate::edge::{EdgeCodec, Seen};

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
