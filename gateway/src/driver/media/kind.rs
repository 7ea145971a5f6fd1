//! The media of a call, of whichever kind: one match per packet, and no more.

use std::net::SocketAddr;
use std::time::Instant;

use call_model::{DtmfDigit, ImageMedia, LegMedia, LegQuality, Side};
use transcoder::leg::rtp::SourceRule;
use transcoder::{Bridge, BridgeEvent, Emit, Port, Relay};

use super::refusals::Refusals;
use crate::switch::WholeCall;

/// Between an overlay user and a trunk, or between two trunks.
#[derive(Debug)]
pub(super) enum Media {
    Bridge(Box<Bridge>),
    Relay(Box<Relay>),
}

impl Media {
    /// Returns the leg that has the first socket of the call.
    pub(super) fn first_side(&self) -> Side {
        match self {
            Media::Bridge(_) => Side::Overlay,
            Media::Relay(_) => Side::Onward,
        }
    }

    /// Sets when the first tick is due, where there are ticks.
    pub(super) fn set_tick(&mut self, at: Instant) {
        if let Media::Bridge(bridge) = self {
            bridge.set_tick(at);
        }
    }

    pub(super) fn accept_overlay_answer(&mut self, sdp: &str, now: Instant) -> Result<(), String> {
        match self {
            Media::Bridge(bridge) => {
                bridge.accept_overlay_answer(sdp, now).map_err(|error| error.to_string())
            }
            Media::Relay(_) => Ok(()),
        }
    }

    pub(super) fn set_trunk_media(
        &mut self,
        side: Side,
        media: &LegMedia,
        in_band_digits: bool,
        now: Instant,
    ) -> Result<(), String> {
        let set = match self {
            Media::Bridge(bridge) => {
                bridge.set_in_band_digits(in_band_digits);
                bridge.set_trunk_media(media, now)
            }
            Media::Relay(relay) => relay.set_media(side, media, now),
        };
        set.map_err(|error| error.to_string())
    }

    /// Sets where the packets of a trunk leg may come from.
    pub(super) fn set_source_rule(&mut self, side: Side, rule: SourceRule) {
        match self {
            Media::Bridge(bridge) => bridge.set_trunk_source_rule(rule),
            Media::Relay(relay) => relay.set_source_rule(side, rule),
        }
    }

    /// Returns what was refused so far on the trunk legs.
    pub(super) fn refusals(&self) -> Refusals {
        let mut refusals = Refusals::default();
        match self {
            Media::Bridge(bridge) => refusals.add_rtp(bridge.trunk_counters()),
            Media::Relay(relay) => {
                for side in [Side::Trunk, Side::Onward] {
                    refusals.add_rtp(&relay.counters(side));
                    refusals.add_image(&relay.image_counters(side));
                }
            }
        }
        refusals
    }

    /// Sets the effort of the Opus encoder, 0 to 10, where there is one.
    pub(super) fn set_complexity(&mut self, complexity: u8) {
        if let Media::Bridge(bridge) = self {
            // Every value in that range is taken.
            let _ = bridge.set_complexity(complexity);
        }
    }

    /// Never hears this source on the trunk leg, unless SRTP says that it is the other side's.
    pub(super) fn refuse_trunk_source(&mut self, source: Option<u32>) {
        if let (Media::Bridge(bridge), Some(source)) = (self, source) {
            bridge.refuse_trunk_sources(&[source]);
        }
    }

    /// Returns the source that is heard on the trunk leg.
    pub(super) fn trunk_source(&self) -> Option<u32> {
        match self {
            Media::Bridge(bridge) => bridge.trunk_source(),
            Media::Relay(_) => None,
        }
    }

    /// Returns what both legs show together.
    pub(super) fn whole(&self) -> WholeCall {
        match self {
            Media::Bridge(bridge) => WholeCall {
                overlay_codec: Some(bridge.overlay_receives()),
                to_trunk: bridge.path_rating(Side::Overlay),
                to_overlay: bridge.path_rating(Side::Trunk),
                audio: bridge.audio(),
            },
            Media::Relay(_) => WholeCall::default(),
        }
    }

    /// Lets a side carry T.38. With an overlay user it is refused before.
    pub(super) fn set_trunk_image(
        &mut self,
        side: Side,
        image: &ImageMedia,
        now: Instant,
    ) -> Result<(), String> {
        match self {
            Media::Bridge(_) => Ok(()),
            Media::Relay(relay) => relay.set_image(side, image, now).map_err(|error| error.to_string()),
        }
    }

    pub(super) fn set_overlay_hold(&mut self, on: bool, now: Instant) {
        if let Media::Bridge(bridge) = self {
            bridge.set_overlay_hold(on, now);
        }
    }

    /// Sends a digit on a side. Returns false if it cannot go in RTP there.
    pub(super) fn send_dtmf(&mut self, now: Instant, side: Side, digit: DtmfDigit, duration_ms: u16) -> bool {
        match self {
            Media::Bridge(bridge) => bridge.send_dtmf(now, side, digit, duration_ms),
            Media::Relay(relay) => relay.send_dtmf(now, side, digit, duration_ms),
        }
    }

    // One argument per fact of a datagram, as the bridge has it.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        side: Side,
        port: Port,
        local: SocketAddr,
        source: SocketAddr,
        packet: &[u8],
        emit: Emit<'_>,
    ) {
        match self {
            Media::Bridge(bridge) => bridge.handle_datagram(now, side, port, local, source, packet, emit),
            Media::Relay(relay) => relay.handle_datagram(now, side, port, source, packet, emit),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, emit: Emit<'_>) {
        match self {
            Media::Bridge(bridge) => bridge.handle_timeout(now, emit),
            Media::Relay(relay) => relay.handle_timeout(now, emit),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Media::Bridge(bridge) => bridge.poll_timeout(),
            Media::Relay(relay) => relay.poll_timeout(),
        }
    }

    pub(super) fn poll_event(&mut self) -> Option<BridgeEvent> {
        match self {
            Media::Bridge(bridge) => bridge.poll_event(),
            Media::Relay(relay) => relay.poll_event(),
        }
    }

    pub(super) fn stop(&mut self, now: Instant, emit: Emit<'_>) {
        match self {
            Media::Bridge(bridge) => bridge.stop(now, emit),
            Media::Relay(relay) => relay.stop(now, emit),
        }
    }

    pub(super) fn quality(&self, side: Side) -> LegQuality {
        match self {
            Media::Bridge(bridge) => bridge.quality(side),
            Media::Relay(relay) => relay.quality(side),
        }
    }
}
