//! What trunks say, and what follows from it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use call_model::{
    Actor, Address, CallId, Caller, Cause, Direction, Exchange, Gate, Handle, LegMedia, Side, TrunkName,
    Verdict, printable,
};
use sip_trunk::trunk::retry::{DEFAULT_RETRY, may_try_elsewhere};
use sip_trunk::{CallDetails, Command, Event, LocalMedia};
use transcoder::leg::rtp::SourceRule;

use super::call::{Call, Role, State};
use super::gates::{Origin, Target};
use super::record::{CallRecord, MAX_TEXT, Phase, ReleasedBy, RouteDirection};
use super::release::End;
use super::{Action, MediaCommand, Switch};

/// How long a leg that is silent although its far side is there may stay so.
const SILENT_GRACE: Duration = Duration::from_secs(10);

impl Switch {
    /// Takes an event of the SIP endpoint.
    pub fn handle_sip(&mut self, now: Instant, event: Event) {
        let Some(event) = self.successor_event(now, event) else { return };
        match event {
            Event::Incoming { call, trunk, called_user, called, caller, details, .. } => {
                self.trunk_incoming(now, call, trunk, called_user, called.as_ref(), caller, details);
            }
            // The endpoint knows what to make of it; the trunk stands as long as one target does.
            Event::TargetHealth { .. } => {}
            // For whoever collects them.
            Event::QualityReport { .. } => {}
            Event::TrunkHealth { trunk, up, detail } => {
                if up {
                    self.trunks_down.remove(&trunk);
                } else {
                    self.trunks_down.insert(trunk.clone());
                }
                self.trunk_details.insert(trunk, printable(&detail, MAX_TEXT));
            }
            Event::Exchange { call, exchange } => self.trunk_exchange(now, call, exchange),
            Event::Trying { .. } => {}
            Event::TransferRequested { call, request } => self.transfer_requested(now, call, &request),
            // No transfer is asked for here.
            Event::TransferProgress { .. } | Event::TransferEnded { .. } => {}
            Event::Replacing { call, replaced, early, trunk, caller, .. } => {
                self.replacing(call, replaced, early, trunk, caller);
            }
            Event::Redirected { call, status, contacts } => self.redirected(now, call, status, &contacts),
            Event::Ringing { call } => {
                if let Some((id, Role::Callee)) = self.locate(call) {
                    self.callee_rings(now, id);
                }
            }
            Event::Media { call, media, early, signalling } => {
                self.trunk_media(now, call, (media, signalling), early);
            }
            Event::ImageOffered { call, image } => self.image_offered(call, *image),
            Event::Image { call, image } => self.image_settled(call, image.map(|image| *image)),
            Event::ImageWithdrawn { call } => self.image_withdrawn(call),
            Event::Answered { call } => {
                let Some((id, Role::Callee)) = self.locate(call) else { return };
                let Some(leg) = self.calls.get(&id).map(|call| &call.callee) else { return };
                if leg.is_open() {
                    let rule = leg.trunk.as_ref().map_or_else(String::new, |trunk| format!("trunks.{trunk}"));
                    self.callee_answers(now, id, &rule, "the trunk answered 200");
                }
            }
            Event::Dtmf { call, digit, duration_ms } => {
                if let Some((id, role)) = self.locate(call) {
                    self.digit(now, id, role, digit, duration_ms);
                }
            }
            Event::Connected { call, party } => {
                if let Some((id, role)) = self.locate(call) {
                    self.connected(id, role, party);
                }
            }
            Event::Alive { call } => self.trunk_alive(now, call),
            Event::Ended { call, cause, status, text, by } => {
                self.trunk_ended(
                    now,
                    call,
                    End { cause, sip_status: status, by: ReleasedBy::Gateway },
                    &text,
                    by,
                );
            }
        }
    }

    fn trunk_exchange(&mut self, now: Instant, sip: CallId, mut exchange: Exchange) {
        let id = self.onward.get(&sip).copied().unwrap_or(sip);
        let live = self.calls.get_mut(&id).map(|live| &mut live.record);
        let Some(record) = live.or_else(|| self.history.get_mut(id)) else { return };
        if record.onward_leg == Some(sip) {
            for actor in [&mut exchange.from, &mut exchange.to] {
                if *actor == Actor::Trunk {
                    *actor = Actor::Onward;
                }
            }
        }
        record.exchange(now, exchange);
    }

    // What an INVITE says; a struct would only be taken apart again.
    #[allow(clippy::too_many_arguments)]
    fn trunk_incoming(
        &mut self,
        now: Instant,
        id: CallId,
        trunk: TrunkName,
        dialled: String,
        to: Option<&Address>,
        from: Caller,
        details: Arc<CallDetails>,
    ) {
        let shown = to.map_or_else(|| dialled.clone(), ToString::to_string);
        let origin = Origin::Trunk { name: trunk.clone() };
        let evaluation = self.evaluate_with(&origin, &dialled, to, Some(&details));
        let direction = match evaluation.target {
            Ok(Target::Trunks(_)) => RouteDirection::TrunkToTrunk,
            _ => RouteDirection::TrunkToOverlay,
        };
        let mut call = self.begin(now, id, direction, from, shown);
        call.caller.state = State::Open;
        self.trunk_calls.take(&trunk);
        call.caller.trunk = Some(trunk.clone());
        call.record.trunk = Some(trunk);
        call.record.decisions = evaluation.decisions;
        match evaluation.target {
            Ok(Target::User(handle)) => {
                self.claim_user(&mut call, Some(handle.clone()));
                call.called = Some(Address::Handle(handle));
                let playback_rate = self.playback_rate(call.caller.trunk.iter());
                self.calls.insert(id, Box::new(call));
                self.tell_media(MediaCommand::Open { call: id, overlay_offer: None, playback_rate });
            }
            Ok(Target::Number(number)) => {
                call.called = Some(Address::Number(number));
                let playback_rate = self.playback_rate(call.caller.trunk.iter());
                self.calls.insert(id, Box::new(call));
                self.tell_media(MediaCommand::Open { call: id, overlay_offer: None, playback_rate });
            }
            Ok(Target::Trunks(trunks)) => {
                call.called = to.cloned();
                call.trunks_left = trunks.into();
                call.details = details;
                // What the first trunk says of who is connected there is not for the second.
                if call.details.connected.is_some() {
                    Arc::make_mut(&mut call.details).connected = None;
                }
                call.callee.sip = self.spare_id(id);
                call.record.onward_leg = Some(call.callee.sip);
                self.onward.insert(call.callee.sip, id);
                self.calls.insert(id, Box::new(call));
                self.tell_media(MediaCommand::OpenRelay { call: id });
            }
            Err(cause) => {
                self.calls.insert(id, Box::new(call));
                self.release(now, id, End { sip_status: evaluation.sip_status, ..End::gateway(cause) });
            }
        }
    }

    /// An id for the second SIP leg of a call, next to the one of the first.
    pub(super) fn spare_id(&self, id: CallId) -> CallId {
        let mut number = u128::from_be_bytes(id.to_bytes());
        loop {
            number = number.wrapping_add(1);
            let spare = CallId::from_bytes(number.to_be_bytes());
            if !self.calls.contains_key(&spare) && !self.onward.contains_key(&spare) {
                return spare;
            }
        }
    }

    pub(super) fn begin(
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

    pub(super) fn claim_user(&mut self, call: &mut Call, user: Option<Handle>) {
        if let Some(user) = user {
            *self.calls_of_user.entry(user.clone()).or_insert(0) += 1;
            call.user = Some(user);
        }
    }

    /// `from` is where the signalling of the far side comes from.
    pub(super) fn trunk_media(
        &mut self,
        now: Instant,
        sip: CallId,
        (media, from): (LegMedia, IpAddr),
        early: bool,
    ) {
        let Some((id, role)) = self.locate(sip) else { return };
        let Some(call) = self.calls.get_mut(&id).filter(|call| call.leg(role).is_open()) else { return };
        match call.leg(role).side {
            Side::Onward => call.record.onward_codec = Some(media.codec),
            _ => call.record.trunk_codec = Some(media.codec),
        }
        let answered = call.is_answered();
        let leg = call.leg_mut(role);
        // `inactive` is how some trunks are held (RFC 3264 8.4): that was our wish, not theirs.
        let ours = leg.holds && media.direction == Direction::Inactive;
        // What is not let through ahead of the answer is no hold, and no tone to wait for either
        // (RFC 5009 8): the caller goes on hearing a tone of its own.
        let held = !early && !media.direction.sends() && !ours;
        let changed = answered && held != leg.held;
        leg.held = held;
        let (side, heard, faxed) = (leg.side, media.direction.receives(), std::mem::take(&mut leg.image));
        let trunk = leg.trunk.clone();
        let in_band_digits = !self.takes_info(trunk.as_ref());
        let behind_nat = trunk.as_ref().and_then(|trunk| self.trunk(trunk)).is_some_and(|known| known.nat);
        let source_rule = if behind_nat { SourceRule::Signalling(from) } else { SourceRule::Negotiated };
        let trunk_media = MediaCommand::TrunkMedia { call: id, side, media, in_band_digits, source_rule };
        self.tell_media(trunk_media);
        if changed {
            self.hold(id, role, held);
        } else if early && heard && role == Role::Callee {
            self.callee_describes_media(now, id);
        }
        if faxed {
            self.audio_is_back(id, role);
        }
    }

    fn trunk_ended(&mut self, now: Instant, sip: CallId, end: End, text: &str, by: sip_trunk::EndedBy) {
        let Some((id, role)) = self.locate(sip) else { return };
        // The far side of a leg that was joined to another call had to leave.
        let Some(call) = self.calls.get_mut(&id).filter(|call| call.leg(role).state != State::Done) else {
            return;
        };
        let followed = Self::is_followed(call, role);
        let leg = call.leg_mut(role);
        leg.state = State::Done;
        if followed {
            return;
        }
        let trunk = leg.trunk.clone();
        let side = leg.side;
        if !call.is_answered() && call.record.phase < Phase::Releasing && role == Role::Callee {
            let name = trunk.as_ref().map_or("trunk", TrunkName::as_str);
            let text = printable(text, MAX_TEXT);
            let answer = match end.sip_status {
                Some(status) => format!("{name} answered {status} {text}"),
                None => format!("{name} did not answer: {text}"),
            };
            call.record.decide(Gate::FarAnswer, Verdict::Refuse, &format!("trunks.{name}"), answer);
            // RFC 3261 21.5.4, RFC 3263 4.3: some answers say "elsewhere, perhaps"; any other
            // is the callee's word and is not tried again.
            let nothing_heard = call.record.phase == Phase::Setup;
            let left = !call.trunks_left.is_empty();
            let chosen = trunk.as_ref().and_then(|trunk| self.trunk(trunk));
            let chosen = chosen.map_or(DEFAULT_RETRY, |known| &known.retry_statuses);
            if may_try_elsewhere(end.sip_status, chosen) && nothing_heard && left {
                return self.try_next_trunk(now, id);
            }
        }
        let by = match (by, side) {
            (sip_trunk::EndedBy::Far, Side::Onward) => ReleasedBy::Onward,
            (sip_trunk::EndedBy::Far, _) => ReleasedBy::Trunk,
            _ => ReleasedBy::Gateway,
        };
        self.release(now, id, End { by, ..end });
    }

    /// Places the call on the next trunk of its route.
    pub(super) fn try_next_trunk(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let (Some(trunk), Some(called), Some(rtp)) =
            (call.trunks_left.pop_front(), call.called.clone(), call.callee.rtp)
        else {
            return self.release(now, id, End::gateway(Cause::NO_ROUTE_TO_DESTINATION));
        };
        let caller = call.record.from.clone();
        match call.callee.side {
            Side::Onward => call.record.onward = Some(trunk.clone()),
            _ => call.record.trunk = Some(trunk.clone()),
        }
        let earlier = call.callee.trunk.replace(trunk.clone());
        call.callee.state = State::Open;
        let (sip, details, media) = (call.callee.sip, Arc::clone(&call.details), LocalMedia { rtp });
        if let Some(earlier) = earlier {
            self.trunk_calls.give_back(&earlier);
        }
        self.trunk_calls.take(&trunk);
        self.asked.add(Some(&called), id);
        let caller = self.shown_to_trunk(&trunk, caller);
        self.tell_trunk(Command::InviteWith { call: sip, trunk, called, caller, media, details });
    }

    /// What a trunk is told of a caller: one without a number has the trunk's own.
    pub(super) fn shown_to_trunk(&self, trunk: &TrunkName, mut caller: Caller) -> Caller {
        let default = self.trunk(trunk).and_then(|known| known.default_caller.clone());
        if let (Some(Address::Handle(_)) | None, Some(number)) = (&caller.address, default) {
            caller.address = Some(Address::Number(number));
        }
        caller
    }

    /// A leg has been silent for too long. A trunk is asked whether it is there before the call is
    /// ended; the overlay's sessions see to themselves.
    pub(super) fn silent(&mut self, now: Instant, id: CallId, side: Side) {
        let Some(call) = self.calls.get_mut(&id).filter(|call| call.is_answered()) else { return };
        let Some(role) = call.role_of(side) else { return };
        // Of two calls that are joined, each watches over its own far side.
        if call.joined.is_some() && !call.leg(role).is_open() {
            return;
        }
        let detail = format!("no media came from the {side} side for too long");
        let leg = call.leg_mut(role);
        if !leg.is_overlay() && leg.is_open() && !leg.probed {
            leg.probed = true;
            let sip = leg.sip;
            call.record.decide(Gate::Codec, Verdict::Skip, "media.silence_timeout_s", detail);
            return self.tell_trunk(Command::Probe { call: sip });
        }
        call.record.decide(Gate::Codec, Verdict::Refuse, "media.silence_timeout_s", detail);
        self.release(now, id, End::gateway(Cause::RECOVERY_ON_TIMER_EXPIRY));
    }

    /// A silent leg's far side is there after all: it has a little longer to be heard.
    fn trunk_alive(&mut self, now: Instant, sip: CallId) {
        let Some((id, role)) = self.locate(sip) else { return };
        let Some(call) = self.calls.get_mut(&id) else { return };
        if call.leg(role).probed && call.silent_until.is_none() && call.record.phase == Phase::Active {
            let until = now + SILENT_GRACE;
            call.silent_until = Some(until);
            self.silences.insert((until, id));
        }
    }

    /// A leg that was silent is heard again, or holds: nothing is expected of it.
    pub(super) fn heard_again(&mut self, id: CallId, role: Role) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if std::mem::take(&mut call.leg_mut(role).probed)
            && let Some(until) = call.silent_until.take()
        {
            self.silences.remove(&(until, id));
        }
    }

    pub(super) fn end_silent_calls(&mut self, now: Instant) {
        while let Some((_, id)) = self.silences.first().copied().filter(|(at, _)| *at <= now) {
            self.silences.pop_first();
            let Some(call) = self.calls.get_mut(&id) else { continue };
            call.silent_until = None;
            let held = call.caller.held || call.callee.held || call.caller.holds || call.callee.holds;
            if held {
                (call.caller.probed, call.callee.probed) = (false, false);
                continue;
            }
            let detail = "the far side is there and sends no media";
            call.record.decide(Gate::Codec, Verdict::Refuse, "media.silence_timeout_s", detail);
            self.release(now, id, End::gateway(Cause::RECOVERY_ON_TIMER_EXPIRY));
        }
    }
}
