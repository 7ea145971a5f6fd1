//! What the media workers are asked for and report, and what follows from that.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use call_model::{
    CallAudio, CallId, Cause, Codec, DigitPath, DtmfDigit, Gate, ImageMedia, LegMedia, LegQuality, Rating,
    Side, TrunkName, Verdict,
};
use p2p_edge::calling::SessionCommand;
use p2p_edge::node::NodeCommand;
use sip_trunk::{Command, QualityReport, Reported};
use transcoder::leg::rtp::SourceRule;

use super::call::State;
use super::cross::{is_young, shown_to_user};
use super::record::RouteDirection;
use super::release::End;
use super::{Action, Switch};

/// How long a call may ring where the trunk it came by does not say.
const RING_TIMEOUT: Duration = Duration::from_secs(120);

/// What the media workers are asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum MediaCommand {
    /// Take ports and make the two legs. With an offer of the overlay side it is answered;
    /// without, the gateway makes the offer.
    Open {
        /// The call.
        call: CallId,
        /// The overlay side's SDP offer.
        overlay_offer: Option<String>,
        /// The sampling rate in Hz beyond which the overlay side need send nothing: as much as the trunk may carry.
        playback_rate: u32,
    },
    /// Take ports and make the two legs of a call between two trunks.
    OpenRelay {
        /// The call.
        call: CallId,
    },
    /// The overlay side answered the gateway's offer.
    OverlayAnswer {
        /// The call.
        call: CallId,
        /// SDP answer.
        sdp: String,
    },
    /// A trunk negotiated, or changed.
    TrunkMedia {
        /// The call.
        call: CallId,
        /// The leg.
        side: Side,
        /// The result.
        media: LegMedia,
        /// Whether digits go to it as tones where it has no telephone events.
        in_band_digits: bool,
        /// Where its packets may come from.
        source_rule: SourceRule,
    },
    /// A leg of a call between two trunks carries T.38 instead of audio, until [`MediaCommand::TrunkMedia`], or goes on
    /// with another address.
    TrunkImage {
        /// The call.
        call: CallId,
        /// The leg.
        side: Side,
        /// The result.
        image: ImageMedia,
    },
    /// The overlay side holds, or has taken back.
    OverlayHold {
        /// The call.
        call: CallId,
        /// Whether it holds.
        on: bool,
    },
    /// A digit that came by signalling goes out in media.
    SendDtmf {
        /// The call.
        call: CallId,
        /// The leg to send on.
        side: Side,
        /// The digit.
        digit: DtmfDigit,
        /// Milliseconds.
        duration_ms: u16,
    },
    /// Give everything back.
    Close {
        /// The call.
        call: CallId,
    },
}

/// What the media workers report.
#[derive(Clone, Debug, PartialEq)]
pub enum MediaEvent {
    /// The two legs stand.
    Opened {
        /// The call.
        call: CallId,
        /// Where the trunk sends RTP.
        trunk_rtp: SocketAddr,
        /// SDP for the overlay: an answer if there was an offer, else the gateway's offer.
        overlay_sdp: String,
    },
    /// The two legs of a call between two trunks stand.
    RelayOpened {
        /// The call.
        call: CallId,
        /// Where the trunk that the call came by sends RTP.
        trunk_rtp: SocketAddr,
        /// Where the other one does.
        onward_rtp: SocketAddr,
    },
    /// The two legs could not be made.
    Refused {
        /// The call.
        call: CallId,
        /// Why, in Q.850 terms.
        cause: Cause,
        /// Why, in words.
        detail: String,
    },
    /// ICE and DTLS are up.
    OverlayConnected {
        /// The call.
        call: CallId,
    },
    /// ICE or DTLS failed, or the answer could not be used.
    OverlayFailed {
        /// The call.
        call: CallId,
        /// Why, in words.
        detail: String,
    },
    /// DTLS with a trunk failed: its media has no keys.
    TrunkFailed {
        /// The call.
        call: CallId,
        /// The leg.
        side: Side,
        /// Why, in words.
        detail: String,
    },
    /// The first packet came in on a leg.
    FirstPacket {
        /// The call.
        call: CallId,
        /// The leg.
        side: Side,
    },
    /// Nothing has come in on a leg for the configured time.
    Silent {
        /// The call.
        call: CallId,
        /// The leg.
        side: Side,
    },
    /// A digit was heard.
    Dtmf {
        /// The call.
        call: CallId,
        /// The leg it came from.
        side: Side,
        /// The digit.
        digit: DtmfDigit,
        /// Milliseconds.
        duration_ms: u16,
        /// Whether it went on to the other leg in media.
        forwarded: bool,
    },
    /// A digit that came by signalling cannot go out in media.
    DtmfUnsent {
        /// The call.
        call: CallId,
        /// The leg it was to go out on.
        side: Side,
        /// The digit.
        digit: DtmfDigit,
        /// Milliseconds.
        duration_ms: u16,
    },
    /// Figures of both legs, about once a second and once at the end. What a call does not have stays
    /// at nought.
    Quality {
        /// The call.
        call: CallId,
        /// Of the media received from the overlay.
        overlay: LegQuality,
        /// Of the media received from the trunk.
        trunk: LegQuality,
        /// Of the media received from the trunk by which a call from another goes on.
        onward: LegQuality,
        /// What both legs show together.
        whole: WholeCall,
        /// The media has been closed: no more will come.
        last: bool,
    },
}

/// What the media of a call with an overlay user shows from end to end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WholeCall {
    /// The codec that comes from the overlay at present.
    pub overlay_codec: Option<Codec>,
    /// How the overlay user is heard at the far end of the trunk.
    pub to_trunk: Option<Rating>,
    /// How the far end of the trunk is heard by the overlay user.
    pub to_overlay: Option<Rating>,
    /// What the sound shows.
    pub audio: CallAudio,
}

impl Switch {
    /// Takes an event of the media workers.
    pub fn handle_media(&mut self, now: Instant, event: MediaEvent) {
        match event {
            MediaEvent::Opened { call, trunk_rtp, overlay_sdp } => {
                self.bridge_opened(now, call, trunk_rtp, overlay_sdp)
            }
            MediaEvent::RelayOpened { call, trunk_rtp, onward_rtp } => {
                self.relay_opened(now, call, trunk_rtp, onward_rtp);
            }
            MediaEvent::Refused { call, cause, detail } => {
                let Some(live) = self.calls.get_mut(&call) else { return };
                live.record.decide(Gate::Codec, Verdict::Refuse, "media", detail);
                self.release(now, call, End::gateway(cause));
            }
            MediaEvent::OverlayConnected { call } => {
                let overlay =
                    self.calls.get(&call).and_then(|live| Some(live.leg(live.role_of(Side::Overlay)?)));
                if overlay.is_some_and(|leg| leg.is_open()) {
                    self.tell_overlay(call, SessionCommand::MediaUp);
                }
            }
            MediaEvent::OverlayFailed { call, detail } => {
                let Some(live) = self.calls.get_mut(&call) else { return };
                let rule = match live.record.direction {
                    RouteDirection::TrunkToTrunk => "media",
                    _ => "media.overlay",
                };
                live.record.decide(Gate::Codec, Verdict::Refuse, rule, detail);
                self.release(now, call, End::gateway(Cause::TEMPORARY_FAILURE));
            }
            MediaEvent::TrunkFailed { call, side, detail } => {
                let Some(live) = self.calls.get_mut(&call).filter(|live| live.role_of(side).is_some()) else {
                    return;
                };
                live.record.decide(Gate::Codec, Verdict::Refuse, "media.trunk", detail);
                self.release(now, call, End::gateway(Cause::TEMPORARY_FAILURE));
            }
            MediaEvent::Silent { call, side } => self.silent(now, call, side),
            MediaEvent::Dtmf { call, side, digit, duration_ms, forwarded } => {
                let Some(role) = self.calls.get(&call).and_then(|live| live.role_of(side)) else { return };
                let new = self.take_digit(now, call, role, DigitPath::Media, (digit, duration_ms));
                if new && !forwarded {
                    self.digit_by_signalling(call, role, digit, duration_ms);
                }
            }
            MediaEvent::DtmfUnsent { call, side, digit, duration_ms } => {
                let Some(role) = self.calls.get(&call).and_then(|live| live.role_of(side)) else { return };
                self.digit_by_signalling(call, role.other(), digit, duration_ms);
            }
            MediaEvent::FirstPacket { call, side } => self.first_packet(now, call, side),
            MediaEvent::Quality { call, overlay, trunk, onward, whole, last } => {
                let live = self.calls.get_mut(&call).map(|live| &mut live.record);
                if let Some(record) = live.or_else(|| self.history.get_mut(call)) {
                    record.whole = whole;
                }
                self.take_figures(
                    call,
                    [(Side::Overlay, overlay), (Side::Trunk, trunk), (Side::Onward, onward)],
                );
                if last {
                    self.report_quality(call);
                }
            }
        }
    }

    fn take_figures(&mut self, id: CallId, figures: [(Side, LegQuality); 3]) {
        for (side, quality) in figures {
            let live = self.calls.get_mut(&id);
            let role = live.as_ref().and_then(|live| live.role_of(side));
            let Some(record) = live.map(|live| &mut live.record).or_else(|| self.history.get_mut(id)) else {
                return;
            };
            let kept = match side {
                Side::Overlay => &mut record.overlay_quality,
                Side::Trunk => &mut record.trunk_quality,
                Side::Onward => &mut record.onward_quality,
            };
            let heard = quality.packets_received > kept.packets_received;
            *kept = quality;
            if let Some(role) = role.filter(|_| heard) {
                self.heard_again(id, role);
            }
        }
    }

    /// Has the trunks' collectors told how good a call was, once it is over and its figures are complete.
    fn report_quality(&mut self, id: CallId) {
        let Some(record) = self.history.get_mut(id) else { return };
        let due = std::mem::take(&mut record.reports_due);
        let (Some(answered), Some(ended)) = (record.answered, record.ended) else { return };
        let unix_ms = |after: Duration| record.started_unix_ms + after.as_millis() as u64;
        let (from_unix_ms, until_unix_ms) = (unix_ms(answered), unix_ms(ended));
        for (side, call) in due {
            let quality = match side {
                Side::Overlay => record.overlay_quality,
                Side::Trunk => record.trunk_quality,
                Side::Onward => record.onward_quality,
            };
            let reported = Reported::Session;
            let report = Box::new(QualityReport { reported, from_unix_ms, until_unix_ms, quality });
            self.actions.push_back(Action::Sip(Command::ReportQuality { call, report }));
        }
    }

    fn bridge_opened(&mut self, now: Instant, id: CallId, trunk_rtp: SocketAddr, overlay_sdp: String) {
        let Some(call) = self.calls.get_mut(&id).filter(|call| is_young(call)) else {
            // The call ended while its ports were being opened.
            return self.actions.push_back(Action::Media(MediaCommand::Close { call: id }));
        };
        call.media_open = true;
        if let Some(role) = call.role_of(Side::Trunk) {
            call.leg_mut(role).rtp = Some(trunk_rtp);
        }
        call.record.decide(
            Gate::Codec,
            Verdict::Pass,
            "media",
            "Opus in the overlay, what is agreed on with the trunk",
        );
        if call.caller.is_overlay() {
            call.overlay_sdp = Some(overlay_sdp);
            return self.try_next_trunk(now, id);
        }
        let Some(to) = call.called.clone() else { return };
        call.callee.state = State::Open;
        let from = shown_to_user(&call.record.from);
        let trunk = call.caller.trunk.clone();
        let configured = trunk.as_ref().and_then(|trunk| self.trunk(trunk));
        let ring_timeout = configured.map_or(RING_TIMEOUT, |known| known.ring_timeout);
        let invite = NodeCommand::Invite { call: id, from, to, media: overlay_sdp, ring_timeout };
        self.actions.push_back(Action::Overlay(invite));
    }

    fn relay_opened(&mut self, now: Instant, id: CallId, trunk_rtp: SocketAddr, onward_rtp: SocketAddr) {
        let Some(call) = self.calls.get_mut(&id).filter(|call| is_young(call)) else {
            return self.actions.push_back(Action::Media(MediaCommand::Close { call: id }));
        };
        call.media_open = true;
        (call.caller.rtp, call.callee.rtp) = (Some(trunk_rtp), Some(onward_rtp));
        let names: Vec<TrunkName> = call.caller.trunk.iter().chain(&call.trunks_left).cloned().collect();
        let mut codecs: Vec<&str> = Vec::new();
        for codec in self.codecs_of(names.iter()).map(Codec::encoding_name) {
            if !codecs.contains(&codec) {
                codecs.push(codec);
            }
        }
        let codecs = match codecs.as_slice() {
            [one] => format!("{one} on either trunk"),
            several => {
                format!("{} on either trunk, made into each other where they differ", several.join(" or "))
            }
        };
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.record.decide(Gate::Codec, Verdict::Pass, "media", codecs);
        self.try_next_trunk(now, id);
    }
    /// Returns the codecs of trunks that are configured, some more than once.
    fn codecs_of<'a>(&'a self, names: impl Iterator<Item = &'a TrunkName>) -> impl Iterator<Item = Codec> {
        names.filter_map(|name| self.trunk(name)).flat_map(|trunk| trunk.codecs.iter().copied())
    }

    /// Returns the sampling rate in Hz beyond which an overlay user need send nothing: the widest that any of these
    /// trunks may carry, 8000 at least.
    pub(super) fn playback_rate<'a>(&'a self, names: impl Iterator<Item = &'a TrunkName>) -> u32 {
        self.codecs_of(names).map(Codec::sample_rate).fold(Codec::Pcma.sample_rate(), u32::max)
    }
}
