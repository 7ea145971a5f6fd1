//! What the overlay says, and what follows from it.

use std::sync::Arc;
use std::time::Instant;

use call_model::{Actor, Address, CallId, Caller, Cause, Exchange, Gate, Protocol, Verdict, printable};
use p2p_edge::calling::{EndedBy, SessionCommand, SessionEvent};
use p2p_edge::node::{NodeEvent, VerifiedCaller};

use super::call::{Role, State};
use super::gates::{Origin, Target};
use super::record::{MAX_TEXT, Phase, ReleasedBy, RouteDirection};
use super::release::End;
use super::{MediaCommand, Switch};

impl Switch {
    /// Takes an event of the overlay node.
    pub fn handle_overlay(&mut self, now: Instant, event: NodeEvent) {
        match event {
            NodeEvent::Incoming { call, from, to, media } => {
                self.overlay_incoming(now, call, from, &to, media)
            }
            NodeEvent::Call { call, event } => self.overlay_event(now, call, event),
            // How the node stands in the overlay is not the business of any call.
            NodeEvent::Listening { .. }
            | NodeEvent::Online
            | NodeEvent::Offline { .. }
            | NodeEvent::Presence(_) => {}
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
        // The caller has chosen the id.
        if self.calls.contains_key(&id) || self.onward.contains_key(&id) {
            return;
        }
        let caller = caller_towards_trunk(&from);
        let direction = RouteDirection::OverlayToTrunk;
        let mut call = self.begin(now, id, direction, caller, to.to_string());
        call.caller.state = State::Open;
        // The session reports its invite only after the call it brought: the ladder begins with it.
        let (sender, receiver, label) = (Actor::Overlay, Actor::Gateway, "invite".into());
        let invite = Exchange { from: sender, to: receiver, protocol: Protocol::Overlay, label };
        call.record.exchange(now, invite);
        let origin = Origin::Overlay { handle: from.handle.clone() };
        let evaluation = self.evaluate(&origin, &to.to_string(), Some(to));
        call.record.decisions = evaluation.decisions;
        match evaluation.target {
            Ok(Target::Trunks(trunks)) => {
                if evaluation.emergency.is_none() {
                    self.claim_user(&mut call, from.handle);
                }
                Arc::make_mut(&mut call.details).emergency = evaluation.emergency;
                call.called = Some(to.clone());
                let playback_rate = self.playback_rate(trunks.iter());
                call.trunks_left = trunks.into();
                self.calls.insert(id, Box::new(call));
                self.tell_overlay(id, SessionCommand::Trying);
                self.tell_media(MediaCommand::Open { call: id, overlay_offer: Some(media), playback_rate });
            }
            Ok(Target::User(_) | Target::Number(_)) => {
                // The gates never send an overlay call back into the overlay.
                self.calls.insert(id, Box::new(call));
                self.release(now, id, End::gateway(Cause::NO_ROUTE_TO_DESTINATION));
            }
            Err(cause) => {
                call.goodbye = evaluation.text.unwrap_or_default();
                self.calls.insert(id, Box::new(call));
                self.release(now, id, End { sip_status: evaluation.sip_status, ..End::gateway(cause) });
            }
        }
    }

    fn overlay_event(&mut self, now: Instant, id: CallId, event: SessionEvent) {
        let Some(call) = self.calls.get_mut(&id) else {
            // The ladder of a call that is over still gets its last messages.
            if let (SessionEvent::Exchange(exchange), Some(record)) = (event, self.history.get_mut(id)) {
                record.exchange(now, exchange);
            }
            return;
        };
        let Some(role) = call.role_of(call_model::Side::Overlay) else { return };
        let (callee, open) = (role == Role::Callee, call.leg(role.other()).is_open());
        match event {
            SessionEvent::Exchange(exchange) if !callee && &*exchange.label == "invite" => {}
            SessionEvent::Exchange(exchange) => call.record.exchange(now, exchange),
            SessionEvent::Ended { cause, sip_status, text, by } => {
                call.leg_mut(role).state = State::Done;
                let far = by == EndedBy::Far;
                let refused = !call.is_answered() && callee;
                if call.record.phase < Phase::Releasing && (refused || !far) {
                    let text = printable(&text, MAX_TEXT);
                    let said = if text.is_empty() { text } else { format!(": {text}") };
                    let who = if far { "the overlay said" } else { "the overlay leg ended:" };
                    let detail = format!("{who} {cause} ({}){said}", by.as_str());
                    call.record.decide(Gate::FarAnswer, Verdict::Refuse, "overlay", detail);
                }
                // A timer, a lost stream or a rule of this node is no deed of the user.
                let by = if far { ReleasedBy::Overlay } else { ReleasedBy::Gateway };
                self.release(now, id, End { cause, sip_status, by });
            }
            SessionEvent::Hold { on } if open || call.joined.is_some() => {
                self.hold(id, role, on);
                self.tell_media(MediaCommand::OverlayHold { call: id, on });
            }
            SessionEvent::Dtmf { digit, duration_ms } => self.digit(now, id, role, digit, duration_ms),
            SessionEvent::Ringing if callee && open => self.callee_rings(now, id),
            SessionEvent::Progress { media } if callee && open => {
                self.apply_overlay_answer(id, media);
                self.early_media(now, id);
            }
            SessionEvent::Answered { media } if callee && open => {
                self.apply_overlay_answer(id, media);
                self.callee_answers(now, id, "overlay", "the overlay user answered");
            }
            // Text, candidates and refused requests have no counterpart on a trunk; what comes for a
            // leg that is being released has no use any more.
            _ => {}
        }
    }

    fn apply_overlay_answer(&mut self, id: CallId, sdp: String) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if !std::mem::replace(&mut call.overlay_answer_applied, true) {
            self.tell_media(MediaCommand::OverlayAnswer { call: id, sdp });
        }
    }
}

/// The caller's own number comes first, then the trunk's default, then the handle.
fn caller_towards_trunk(from: &VerifiedCaller) -> Caller {
    let own = from.numbers.first().cloned().map(Address::Number);
    let handle = from.handle.clone().map(Address::Handle);
    let name = from.caller.display_name.clone().or_else(|| from.handle.as_ref().map(ToString::to_string));
    Caller { address: own.or(handle), display_name: name, private: from.caller.private }
}
