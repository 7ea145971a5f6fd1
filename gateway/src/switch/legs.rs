//! What the two sides and the media say, and what follows from it.

use std::time::Instant;

use call_model::{
    Actor, Address, CallId, Caller, Cause, Exchange, Gate, Handle, Protocol, Side, TrunkName, Verdict,
    printable,
};
use p2p_edge::calling::{EndedBy, SessionCommand, SessionEvent};
use p2p_edge::node::{NodeCommand, NodeEvent, VerifiedCaller};
use sip_trunk::trunk::retry::{DEFAULT_RETRY, may_try_elsewhere};
use sip_trunk::{Command, Event, LocalMedia};

use super::call::{Call, Leg};
use super::gates::{Origin, Target};
use super::record::{CallRecord, MAX_TEXT, Phase, ReleasedBy, RouteDirection};
use super::release::End;
use super::{Action, MediaCommand, MediaEvent, Switch};

impl Switch {
    /// Takes an event of the overlay node.
    pub fn handle_overlay(&mut self, now: Instant, event: NodeEvent) {
        match event {
            NodeEvent::Incoming { call, from, to, media } => {
                self.overlay_incoming(now, call, from, &to, media)
            }
            NodeEvent::Call { call, event } => self.overlay_event(now, call, event),
            // How the node stands in the overlay is not the business of any call.
            NodeEvent::Listening { .. } | NodeEvent::Online | NodeEvent::Offline { .. } => {}
        }
    }

    fn overlay_incoming(
        &mut self,
        now: Instant,
        id: CallId,
        from: VerifiedCaller,
        to: &Address,
        media: String,
    ) {
        if self.calls.contains_key(&id) {
            return;
        }
        let caller = self.caller_towards_trunk(&from);
        let direction = RouteDirection::OverlayToTrunk;
        let mut call = self.begin(now, id, direction, caller, to.to_string());
        call.overlay = Leg::Open;
        // The session reports its invite only after the call it brought: the ladder begins with it.
        let (sender, receiver, label) = (Actor::Overlay, Actor::Gateway, "invite".to_owned());
        let invite = Exchange { from: sender, to: receiver, protocol: Protocol::Overlay, label };
        call.record.exchange(now, invite);
        let origin = Origin::Overlay { handle: from.handle.clone() };
        let evaluation = self.evaluate(&origin, &to.to_string(), Some(to));
        call.record.decisions = evaluation.decisions;
        match evaluation.target {
            Ok(Target::Trunks(trunks)) => {
                self.claim_user(&mut call, from.handle);
                call.called = Some(to.clone());
                call.trunks_left = trunks.into();
                self.calls.insert(id, call);
                self.tell_overlay(id, SessionCommand::Trying);
                self.actions
                    .push_back(Action::Media(MediaCommand::Open { call: id, overlay_offer: Some(media) }));
            }
            Ok(Target::User(_)) => {
                // The gates never send an overlay call back into the overlay.
                self.calls.insert(id, call);
                self.release(now, id, End::gateway(Cause::NO_ROUTE_TO_DESTINATION));
            }
            Err(cause) => {
                self.calls.insert(id, call);
                self.release(now, id, End::gateway(cause));
            }
        }
    }

    /// The caller's own number comes first, then the trunk's default, then the handle.
    fn caller_towards_trunk(&self, from: &VerifiedCaller) -> Caller {
        let own = from.numbers.first().cloned().map(Address::Number);
        let handle = from.handle.clone().map(Address::Handle);
        let name = from.caller.display_name.clone().or_else(|| from.handle.as_ref().map(ToString::to_string));
        Caller { address: own.or(handle), display_name: name, private: from.caller.private }
    }

    fn begin(
        &mut self,
        now: Instant,
        id: CallId,
        direction: RouteDirection,
        from: Caller,
        to: String,
    ) -> Call {
        self.actions.push_back(Action::Started { call: id, direction });
        Call::new(CallRecord::new(id, direction, from, to, now, self.unix_ms(now)))
    }

    fn claim_user(&mut self, call: &mut Call, user: Option<Handle>) {
        if let Some(user) = user {
            *self.calls_of_user.entry(user.clone()).or_insert(0) += 1;
            call.user = Some(user);
        }
    }

    pub(super) fn tell_overlay(&mut self, call: CallId, command: SessionCommand) {
        self.actions.push_back(Action::Overlay(NodeCommand::Call { call, command }));
    }

    fn overlay_event(&mut self, now: Instant, id: CallId, event: SessionEvent) {
        let Some(call) = self.calls.get_mut(&id) else {
            // The ladder of a call that is over still gets its last messages.
            if let (SessionEvent::Exchange(exchange), Some(record)) = (event, self.history.get_mut(id)) {
                record.exchange(now, exchange);
            }
            return;
        };
        let outgoing = call.record.direction == RouteDirection::TrunkToOverlay;
        match event {
            SessionEvent::Exchange(exchange) if !outgoing && exchange.label == "invite" => {}
            SessionEvent::Exchange(exchange) => call.record.exchange(now, exchange),
            SessionEvent::Ended { cause, sip_status, text, by } => {
                call.overlay = Leg::Done;
                let far = by == EndedBy::Far;
                let refused = call.record.answered.is_none() && outgoing;
                if call.record.phase < Phase::Releasing && (refused || !far) {
                    let text = printable(&text, MAX_TEXT);
                    let said = if text.is_empty() { text } else { format!(": {text}") };
                    let who = if far { "the overlay said" } else { "the overlay leg ended:" };
                    let detail = format!("{who} {cause} ({}){said}", by.as_str());
                    call.record.decide(Gate::FarAnswer, Verdict::Refuse, "overlay", detail);
                }
                // A timer, a lost stream or a rule of this node is no deed of the user.
                let by = if far { ReleasedBy::Overlay } else { ReleasedBy::Gateway };
                self.leg_ended(now, id, End { cause, sip_status, by });
            }
            SessionEvent::Hold { on } if call.trunk == Leg::Open => {
                self.actions.push_back(Action::Sip(Command::Hold { call: id, on }));
                self.actions.push_back(Action::Media(MediaCommand::OverlayHold { call: id, on }));
            }
            SessionEvent::Dtmf { digit, duration_ms } => {
                call.record.dtmf_digits += 1;
                let side = Side::Trunk;
                self.actions.push_back(Action::Media(MediaCommand::SendDtmf {
                    call: id,
                    side,
                    digit,
                    duration_ms,
                }));
            }
            SessionEvent::Ringing if outgoing && call.trunk == Leg::Open => {
                call.alerted(now, Phase::Ringing);
                self.actions.push_back(Action::Sip(Command::Ringing { call: id }));
            }
            SessionEvent::Progress { media } if outgoing && call.trunk == Leg::Open => {
                call.alerted(now, Phase::Early);
                let local = call.trunk_rtp.map(|rtp| LocalMedia { rtp });
                self.apply_overlay_answer(id, media);
                if let Some(media) = local {
                    self.actions.push_back(Action::Sip(Command::Progress { call: id, media }));
                }
            }
            SessionEvent::Answered { media } if outgoing && call.trunk == Leg::Open => {
                call.answered(now, "overlay", "the overlay user answered");
                let local = call.trunk_rtp.map(|rtp| LocalMedia { rtp });
                self.apply_overlay_answer(id, media);
                if let Some(media) = local {
                    self.actions.push_back(Action::Sip(Command::Answer { call: id, media }));
                }
            }
            // Text, candidates and refused requests have no counterpart on a trunk; what comes for a
            // leg that is being released has no use any more.
            _ => {}
        }
    }

    fn apply_overlay_answer(&mut self, id: CallId, sdp: String) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if !std::mem::replace(&mut call.overlay_answer_applied, true) {
            self.actions.push_back(Action::Media(MediaCommand::OverlayAnswer { call: id, sdp }));
        }
    }

    /// Takes an event of the SIP endpoint.
    pub fn handle_sip(&mut self, now: Instant, event: Event) {
        match event {
            Event::Incoming { call, trunk, called_user, called, caller, .. } => {
                self.trunk_incoming(now, call, trunk, called_user, called.as_ref(), caller);
            }
            Event::TrunkHealth { trunk, up, detail } => {
                if up {
                    self.trunks_down.remove(&trunk);
                } else {
                    self.trunks_down.insert(trunk.clone());
                }
                self.trunk_details.insert(trunk, printable(&detail, MAX_TEXT));
            }
            // The endpoint knows what to make of it; the trunk stands as long as one target does.
            Event::TargetHealth { .. } => {}
            Event::Exchange { call, exchange } => {
                if let Some(call) = self.calls.get_mut(&call) {
                    call.record.exchange(now, exchange);
                } else if let Some(record) = self.history.get_mut(call) {
                    record.exchange(now, exchange);
                }
            }
            Event::Trying { .. } => {}
            Event::Ringing { call } => self.trunk_ringing(now, call),
            Event::Media { call, media, early } => {
                let Some(live) = self.calls.get_mut(&call).filter(|live| live.trunk == Leg::Open) else {
                    return;
                };
                live.record.trunk_codec = Some(media.codec);
                if live.record.answered.is_none()
                    && live.record.direction == RouteDirection::OverlayToTrunk
                    && early
                {
                    live.alerted(now, Phase::Early);
                }
                let held = !media.direction.sends();
                let changed = live.record.answered.is_some() && held != live.held_by_trunk;
                live.held_by_trunk = held;
                self.actions.push_back(Action::Media(MediaCommand::TrunkMedia { call, media }));
                if changed {
                    self.tell_overlay(call, SessionCommand::Hold { on: held });
                } else if early {
                    self.early_media_towards_overlay(call);
                }
            }
            Event::Answered { call } => self.trunk_answered(now, call),
            Event::Dtmf { call, digit, duration_ms } => {
                let Some(live) = self.calls.get_mut(&call) else { return };
                live.record.dtmf_digits += 1;
                let side = Side::Overlay;
                self.actions.push_back(Action::Media(MediaCommand::SendDtmf {
                    call,
                    side,
                    digit,
                    duration_ms,
                }));
            }
            Event::Ended { call, cause, status, text, by } => {
                let Some(live) = self.calls.get_mut(&call) else { return };
                live.trunk = Leg::Done;
                let far = matches!(by, sip_trunk::EndedBy::Far);
                let unanswered = live.record.answered.is_none() && live.record.phase < Phase::Releasing;
                if unanswered && live.record.direction == RouteDirection::OverlayToTrunk {
                    let trunk = live.record.trunk.as_ref().map_or("trunk", TrunkName::as_str);
                    let text = printable(&text, MAX_TEXT);
                    let answer = match status {
                        Some(status) => format!("{trunk} answered {status} {text}"),
                        None => format!("{trunk} did not answer: {text}"),
                    };
                    let rule = format!("trunks.{trunk}");
                    live.record.decide(Gate::FarAnswer, Verdict::Refuse, &rule, answer);
                    // RFC 3261 21.5.4, RFC 3263 4.3: some answers say "elsewhere, perhaps"; any other
                    // is the callee's word and is not tried again.
                    let chosen = self
                        .config
                        .trunks
                        .iter()
                        .find(|known| Some(&known.name) == live.record.trunk.as_ref());
                    let chosen = chosen.map_or(DEFAULT_RETRY, |known| &known.retry_statuses);
                    let elsewhere = may_try_elsewhere(status, chosen);
                    let nothing_heard = live.record.phase == Phase::Setup;
                    if elsewhere && nothing_heard && !live.trunks_left.is_empty() {
                        return self.try_next_trunk(now, call);
                    }
                }
                let by = if far { ReleasedBy::Trunk } else { ReleasedBy::Gateway };
                self.leg_ended(now, call, End { cause, sip_status: status, by });
            }
        }
    }

    fn trunk_incoming(
        &mut self,
        now: Instant,
        id: CallId,
        trunk: TrunkName,
        dialled: String,
        to: Option<&Address>,
        from: Caller,
    ) {
        let shown = to.map_or_else(|| dialled.clone(), ToString::to_string);
        let mut call = self.begin(now, id, RouteDirection::TrunkToOverlay, from, shown);
        call.trunk = Leg::Open;
        let evaluation = self.evaluate(&Origin::Trunk { name: trunk.clone() }, &dialled, to);
        self.trunk_calls.take(&trunk);
        call.record.trunk = Some(trunk);
        call.record.decisions = evaluation.decisions;
        let target = match evaluation.target {
            Ok(Target::User(handle)) => Ok(handle),
            Ok(Target::Trunks(_)) => Err(Cause::NO_ROUTE_TO_DESTINATION),
            Err(cause) => Err(cause),
        };
        match target {
            Ok(handle) => {
                self.claim_user(&mut call, Some(handle.clone()));
                call.called = Some(Address::Handle(handle));
                self.calls.insert(id, call);
                self.actions.push_back(Action::Media(MediaCommand::Open { call: id, overlay_offer: None }));
            }
            Err(cause) => {
                self.calls.insert(id, call);
                self.release(now, id, End::gateway(cause));
            }
        }
    }

    fn trunk_ringing(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        // RFC 3960 3.2: a 180 after early media does not bring local ringback back.
        if call.record.phase == Phase::Setup && call.record.direction == RouteDirection::OverlayToTrunk {
            call.alerted(now, Phase::Ringing);
            self.tell_overlay(id, SessionCommand::Ringing);
        }
    }

    fn early_media_towards_overlay(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if call.record.direction == RouteDirection::OverlayToTrunk && call.overlay == Leg::Open {
            let sdp = call.overlay_sdp.clone();
            if let Some(media) = sdp.filter(|_| !std::mem::replace(&mut call.overlay_answer_applied, true)) {
                self.tell_overlay(id, SessionCommand::Progress { media });
            }
        }
    }

    fn trunk_answered(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if call.record.direction != RouteDirection::OverlayToTrunk || call.trunk != Leg::Open {
            return;
        }
        let rule = call.record.trunk.as_ref().map_or_else(String::new, |trunk| format!("trunks.{trunk}"));
        call.answered(now, &rule, "the trunk answered 200");
        if let Some(media) = call.overlay_sdp.clone() {
            self.tell_overlay(id, SessionCommand::Answer { media });
        }
    }

    pub(super) fn try_next_trunk(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let (Some(trunk), Some(called), Some(rtp)) =
            (call.trunks_left.pop_front(), call.called.clone(), call.trunk_rtp)
        else {
            return self.release(now, id, End::gateway(Cause::NO_ROUTE_TO_DESTINATION));
        };
        let mut caller = call.record.from.clone();
        let configured = self.config.trunks.iter().find(|known| known.name == trunk);
        let default = configured.and_then(|known| known.default_caller.clone());
        if let (Some(Address::Handle(_)) | None, Some(number)) = (&caller.address, default) {
            caller.address = Some(Address::Number(number));
        }
        if let Some(earlier) = call.record.trunk.replace(trunk.clone()) {
            self.trunk_calls.give_back(&earlier);
        }
        self.trunk_calls.take(&trunk);
        call.trunk = Leg::Open;
        let media = LocalMedia { rtp };
        self.actions.push_back(Action::Sip(Command::Invite { call: id, trunk, called, caller, media }));
    }

    /// Takes an event of the media workers.
    pub fn handle_media(&mut self, now: Instant, event: MediaEvent) {
        match event {
            MediaEvent::Opened { call, trunk_rtp, overlay_sdp } => {
                self.media_opened(now, call, trunk_rtp, overlay_sdp)
            }
            MediaEvent::Refused { call, cause, detail } => {
                let Some(live) = self.calls.get_mut(&call) else { return };
                live.record.decide(Gate::Codec, Verdict::Refuse, "media", detail);
                self.release(now, call, End::gateway(cause));
            }
            MediaEvent::OverlayConnected { call } => {
                if self.calls.get(&call).is_some_and(|live| live.overlay == Leg::Open) {
                    self.tell_overlay(call, SessionCommand::MediaUp);
                }
            }
            MediaEvent::OverlayFailed { call, detail } => {
                let Some(live) = self.calls.get_mut(&call) else { return };
                live.record.decide(Gate::Codec, Verdict::Refuse, "media.overlay", detail);
                self.release(now, call, End::gateway(Cause::TEMPORARY_FAILURE));
            }
            MediaEvent::Silent { call, side } => {
                let Some(live) = self.calls.get_mut(&call).filter(|live| live.record.answered.is_some())
                else {
                    return;
                };
                let detail = format!("no media came from the {side} side for too long");
                live.record.decide(Gate::Codec, Verdict::Refuse, "media.silence_timeout_s", detail);
                self.release(now, call, End::gateway(Cause::RECOVERY_ON_TIMER_EXPIRY));
            }
            MediaEvent::Dtmf { call, side, digit, duration_ms, forwarded } => {
                let Some(live) = self.calls.get_mut(&call) else { return };
                live.record.dtmf_digits += 1;
                if !forwarded && side == Side::Trunk && live.overlay == Leg::Open {
                    self.tell_overlay(call, SessionCommand::Dtmf { digit, duration_ms });
                }
            }
            MediaEvent::FirstPacket { .. } => {}
            MediaEvent::Quality { call, overlay, trunk } => {
                let live = self.calls.get_mut(&call).map(|live| &mut live.record);
                if let Some(record) = live.or_else(|| self.history.get_mut(call)) {
                    (record.overlay_quality, record.trunk_quality) = (overlay, trunk);
                }
            }
        }
    }

    fn media_opened(
        &mut self,
        now: Instant,
        id: CallId,
        trunk_rtp: std::net::SocketAddr,
        overlay_sdp: String,
    ) {
        let Some(call) = self.calls.get_mut(&id).filter(|call| call.record.phase < Phase::Releasing) else {
            // The call ended while its ports were being opened.
            self.actions.push_back(Action::Media(MediaCommand::Close { call: id }));
            return;
        };
        call.media_open = true;
        call.trunk_rtp = Some(trunk_rtp);
        call.record.decide(Gate::Codec, Verdict::Pass, "media", "Opus in the overlay, G.711 on the trunk");
        match call.record.direction {
            RouteDirection::OverlayToTrunk => {
                call.overlay_sdp = Some(overlay_sdp);
                self.try_next_trunk(now, id);
            }
            RouteDirection::TrunkToOverlay => {
                let Some(to) = call.called.clone() else { return };
                call.overlay = Leg::Open;
                let from = shown_to_user(&call.record.from);
                let trunk = call.record.trunk.as_ref();
                let configured =
                    trunk.and_then(|trunk| self.config.trunks.iter().find(|known| known.name == *trunk));
                let ring_timeout =
                    configured.map_or(std::time::Duration::from_secs(120), |known| known.ring_timeout);
                let invite = NodeCommand::Invite { call: id, from, to, media: overlay_sdp, ring_timeout };
                self.actions.push_back(Action::Overlay(invite));
            }
        }
    }
}

/// What an overlay user is told of a caller. Users are outside the trust domain, so a number that
/// was asked to be withheld ends here and stays in the record only (RFC 3325 7).
fn shown_to_user(caller: &Caller) -> Caller {
    if caller.private {
        return Caller { address: None, display_name: None, private: true };
    }
    caller.clone()
}

impl Call {
    fn alerted(&mut self, now: Instant, phase: Phase) {
        if self.record.phase < phase {
            self.record.phase = phase;
        }
        let after = self.record.since_start(now);
        self.record.alerted.get_or_insert(after);
    }

    fn answered(&mut self, now: Instant, rule: &str, detail: &str) {
        if self.record.answered.is_none() {
            self.record.phase = Phase::Active;
            self.record.answered = Some(self.record.since_start(now));
            self.record.decide(Gate::FarAnswer, Verdict::Pass, rule, detail);
        }
    }
}
