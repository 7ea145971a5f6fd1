//! The way out of a bridge: packets that pass, and whose they are.

use std::net::SocketAddr;
use std::time::Instant;

use call_model::Side;

use super::{Bridge, BridgeConfig, BridgeEvent, Emit, Outgoing, Port, report};
use crate::leg::PayloadKind;
use crate::leg::webrtc::WebRtcLeg;
use crate::rtp::RtpPacket;
use crate::stream::passage::Passage;

impl Bridge {
    /// Sends what a handshake with the trunk calls for, and says if it failed.
    pub(super) fn poll_trunk(&mut self, now: Instant, emit: Emit<'_>) {
        self.trunk.poll_transmit(now, &mut trunk_emit(&self.config, emit));
        if let Some(failure) = self.trunk.poll_failure() {
            report(&mut self.events, BridgeEvent::TrunkFailed { side: Side::Trunk, failure });
        }
    }
}

/// Passes a packet of the trunk's on to the overlay, unless that is to hear nothing.
pub(super) fn pass_to_overlay(
    now: Instant,
    packet: &RtpPacket<'_>,
    silent: bool,
    passage: &mut Passage,
    overlay: &mut WebRtcLeg,
    emit: Emit<'_>,
) {
    let Some(next) = overlay.next_numbering(now).filter(|_| !silent) else { return passage.pause() };
    let numbered = passage.number(packet.ssrc(), packet.numbering(), packet.marker(), next);
    let Some((numbering, marker)) = numbered else { return };
    let mut out = overlay_emit(emit);
    if !overlay.forward(now, PayloadKind::Audio, numbering, marker, packet.payload(), &mut out) {
        passage.pause();
    }
}

pub(super) fn overlay_emit(emit: Emit<'_>) -> impl FnMut(SocketAddr, SocketAddr, &[u8]) {
    move |local, destination, bytes| {
        emit(Outgoing { side: Side::Overlay, port: Port::Rtp, local, destination, bytes });
    }
}

pub(super) fn trunk_emit<'a>(
    config: &BridgeConfig,
    emit: Emit<'a>,
) -> impl FnMut(Port, SocketAddr, &[u8]) + 'a {
    let (rtp, rtcp) = (config.trunk_rtp, config.trunk_rtcp);
    move |port, destination, bytes| {
        let local = match port {
            Port::Rtp => rtp,
            Port::Rtcp => rtcp,
        };
        emit(Outgoing { side: Side::Trunk, port, local, destination, bytes });
    }
}
