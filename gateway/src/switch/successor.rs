//! Trunk legs that change hands: transfers that a trunk asks for (RFC 3515, RFC 5589), and calls that
//! take the place of others (RFC 3891).
//!
//! The new leg has the media of the one before: the same ports, and the far side's new address from
//! the moment it counts. Until then the leg before stays as it is.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use call_model::{
    Address, CallId, Caller, Cause, Codec, DigitFilter, Direction, Gate, LegMedia, MediaSecurity, Side,
    TelephoneEvent, TrunkName, Verdict,
};
use sip_trunk::trunk::retry::{DEFAULT_RETRY, may_try_elsewhere};
use sip_trunk::{CallDetails, Command, Event, LocalMedia, Referral, TransferRequest};
use transcoder::leg::rtp::SourceRule;

use super::call::{Call, Role, State};
use super::gates::Target;
use super::record::{Phase, ReleasedBy};
use super::release::End;
use super::{MediaCommand, Switch};

/// What a transfer is declined with: the gates are the operator's policy (RFC 3261 21.6.2).
const DECLINED: u16 = 603;

/// Payload types between two calls of ours that were joined.
const AUDIO: u8 = 8;
const EVENTS: u8 = 101;

/// A leg that is to take the place of one of a call.
#[derive(Debug)]
pub(super) struct Successor {
    /// Which one it follows.
    role: Role,
    sip: CallId,
    trunk: TrunkName,
    why: Why,
    /// What it has negotiated, where it signals from, and whether that counts.
    media: Option<(LegMedia, IpAddr)>,
    answered: bool,
    rang: bool,
}

#[derive(Debug)]
enum Why {
    /// The far side of the leg before asked for it by REFER.
    Transfer(Box<Transfer>),
    /// It called to take over (RFC 3891 3).
    Replaces(Caller),
}

#[derive(Debug)]
struct Transfer {
    /// The leg whose far side asked, and its trunk.
    asked: CallId,
    home: TrunkName,
    called: Address,
    caller: Caller,
    referral: Referral,
    trunks_left: VecDeque<TrunkName>,
}

impl Switch {
    /// Takes an event of a leg that is to follow another. Gives back what is none.
    pub(super) fn successor_event(&mut self, now: Instant, event: Event) -> Option<Event> {
        let (Event::Ringing { call }
        | Event::Media { call, .. }
        | Event::Answered { call }
        | Event::Redirected { call, .. }
        | Event::Ended { call, .. }) = &event
        else {
            return Some(event);
        };
        let sip = *call;
        let Some(id) = self.onward.get(&sip).copied() else { return Some(event) };
        let live = self.calls.get_mut(&id).and_then(|call| call.successor.as_mut());
        let Some(successor) = live.filter(|successor| successor.sip == sip) else { return Some(event) };
        match event {
            Event::Ringing { .. } => {
                if let (false, Why::Transfer(transfer)) = (successor.rang, &successor.why) {
                    let asked = transfer.asked;
                    successor.rang = true;
                    self.tell_trunk(Command::ReportTransfer { call: asked, status: 180 });
                }
            }
            Event::Media { media, signalling, .. } => {
                successor.media = Some((media, signalling));
                self.follow(now, id);
            }
            Event::Answered { .. } => {
                successor.answered = true;
                self.follow(now, id);
            }
            // Where the target is, the far side has said; its trunk has no second say.
            Event::Redirected { .. } => {
                self.tell_trunk(Command::Release { call: sip, cause: Cause::NO_ROUTE_TO_DESTINATION });
            }
            Event::Ended { cause, status, .. } => self.successor_ended(now, id, cause, status),
            _ => {}
        }
        None
    }

    /// A trunk asks for the far side of its call to be put through to somebody else (RFC 3515 2.4.2).
    pub(super) fn transfer_requested(&mut self, now: Instant, sip: CallId, request: &TransferRequest) {
        let refuse = Command::RefuseTransfer { call: sip, status: DECLINED };
        let Some((id, role)) = self.locate(sip).filter(|(id, role)| self.may_follow(*id, *role)) else {
            return self.tell_trunk(refuse);
        };
        let Some(home) = self.calls.get(&id).and_then(|call| call.leg(role).trunk.clone()) else {
            return self.tell_trunk(refuse);
        };
        if let Some(other) = request.replaced {
            return self.join((id, role), &home, other, refuse);
        }
        let evaluation = self.evaluate_transfer(&home, request);
        let decision = evaluation.decisions.last().cloned();
        let spare = self.spare_leg(id);
        let Some(call) = self.calls.get_mut(&id) else { return };
        let whom = &request.target_user;
        let (Ok(Target::Trunks(trunks)), Some(called)) = (evaluation.target, request.target.clone()) else {
            if let Some(decision) = decision {
                let detail = format!("no transfer to {whom}: {}", decision.detail);
                call.record.decide(decision.gate, Verdict::Skip, &decision.rule, detail);
            }
            return self.tell_trunk(refuse);
        };
        let detail = format!("{home} transfers to {whom}");
        call.record.decide(Gate::Policy, Verdict::Pass, &format!("trunks.{home}.transfers"), detail);
        // The far side of the call is who calls: RFC 5589 6.
        let caller = party(call, role.other());
        let transfer = Transfer {
            asked: sip,
            home: home.clone(),
            called,
            caller,
            referral: request.referral(),
            trunks_left: trunks.into(),
        };
        let why = Why::Transfer(Box::new(transfer));
        let successor =
            Successor { role, sip: spare, trunk: home, why, media: None, answered: false, rang: false };
        call.successor = Some(Box::new(successor));
        self.tell_trunk(Command::AcceptTransfer { call: sip });
        self.call_target(now, id, None);
    }

    /// Says whether a leg may be followed by another now: one at a time.
    fn may_follow(&self, id: CallId, role: Role) -> bool {
        self.calls.get(&id).is_some_and(|call| {
            let leg = call.leg(role);
            let active = call.is_answered() && call.record.phase == Phase::Active;
            active && leg.is_open() && leg.rtp.is_some() && call.successor.is_none()
        })
    }

    /// An id for another leg, beyond those of the call.
    fn spare_leg(&self, id: CallId) -> CallId {
        let latest = self.calls.get(&id).map_or(id, |call| call.caller.sip.max(call.callee.sip));
        self.spare_id(latest)
    }

    /// Calls the target of a transfer by the next of its trunks; `status` is what the one before said.
    fn call_target(&mut self, now: Instant, id: CallId, status: Option<u16>) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some(successor) = call.successor.as_mut() else { return };
        let Why::Transfer(transfer) = &mut successor.why else { return };
        let rtp = match successor.role {
            Role::Caller => call.caller.rtp,
            Role::Callee => call.callee.rtp,
        };
        let (Some(trunk), Some(rtp)) = (transfer.trunks_left.pop_front(), rtp) else {
            return self.give_up(now, id, status);
        };
        let mut referral = transfer.referral.clone();
        // A name means something where it was given, and a number everywhere.
        if trunk != transfer.home {
            referral.uri = None;
        }
        let (called, caller) = (transfer.called.clone(), transfer.caller.clone());
        successor.trunk = trunk.clone();
        let sip = successor.sip;
        self.onward.insert(sip, id);
        self.trunk_calls.take(&trunk);
        let caller = self.shown_to_trunk(&trunk, caller);
        let details = Arc::new(CallDetails { referral: Some(Box::new(referral)), ..CallDetails::default() });
        let media = LocalMedia { rtp };
        self.tell_trunk(Command::InviteWith { call: sip, trunk, called, caller, media, details });
    }

    fn successor_ended(&mut self, now: Instant, id: CallId, cause: Cause, status: Option<u16>) {
        let Some(call) = self.calls.get(&id) else { return };
        let Some(successor) = &call.successor else { return };
        let (sip, trunk, rang) = (successor.sip, successor.trunk.clone(), successor.rang);
        self.onward.remove(&sip);
        self.trunk_calls.give_back(&trunk);
        let retry = self.trunk(&trunk).map_or(DEFAULT_RETRY, |known| &known.retry_statuses);
        let left = matches!(&successor.why, Why::Transfer(transfer) if !transfer.trunks_left.is_empty());
        let answered = successor.answered;
        if left && !rang && !answered && may_try_elsewhere(status, retry) {
            let spare = self.spare_leg(id);
            if let Some(successor) = self.calls.get_mut(&id).and_then(|call| call.successor.as_mut()) {
                (successor.sip, successor.media) = (spare, None);
            }
            return self.call_target(now, id, status);
        }
        let status = status.filter(|status| *status >= 300);
        self.give_up(now, id, status.or(Some(sip_trunk::cause::status_of_cause(cause))));
    }

    /// Nobody takes the place of the leg. It stays, if its far side has not left already.
    fn give_up(&mut self, now: Instant, id: CallId, status: Option<u16>) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some(successor) = call.successor.take() else { return };
        let status = status.unwrap_or(503);
        let rule = format!("trunks.{}", successor.trunk);
        let detail = format!("who was to take over the leg was not reached: {status}");
        call.record.decide(Gate::FarAnswer, Verdict::Skip, &rule, detail);
        let gone = !call.leg(successor.role).is_open();
        if let Why::Transfer(transfer) = &successor.why {
            self.tell_trunk(Command::ReportTransfer { call: transfer.asked, status });
        }
        if gone {
            let cause = sip_trunk::cause::cause_of_status(status);
            self.release(now, id, End { cause, sip_status: None, by: ReleasedBy::Gateway });
        }
    }

    /// The new leg takes the place of the old, once it is answered and has media.
    fn follow(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let ready = |successor: &mut Box<Successor>| successor.answered && successor.media.is_some();
        let Some(successor) = call.successor.take_if(ready) else { return };
        let Successor { role, sip, trunk, why, media, .. } = *successor;
        let Some(media) = media else { return };
        let answered = call.is_answered();
        let holds = call.leg(role).holds;
        let leg = call.leg_mut(role);
        let (former, open) = (std::mem::replace(&mut leg.sip, sip), leg.is_open());
        let former_trunk = leg.trunk.replace(trunk.clone());
        (leg.state, leg.probed, leg.digits) = (State::Open, false, DigitFilter::default());
        leg.image = false;
        match leg.side {
            Side::Onward => {
                (call.record.onward, call.record.onward_leg) = (Some(trunk.clone()), Some(sip));
            }
            _ => call.record.trunk = Some(trunk.clone()),
        }
        self.onward.remove(&former);
        if let Some(former_trunk) = &former_trunk {
            self.trunk_calls.give_back(former_trunk);
        }
        let (rule, detail, party, called) = match why {
            Why::Transfer(transfer) => {
                let whom = Caller { address: Some(transfer.called.clone()), ..Caller::default() };
                self.tell_trunk(Command::ReportTransfer { call: transfer.asked, status: 200 });
                if open {
                    let cause = Cause::NORMAL_CALL_CLEARING;
                    self.tell_trunk(Command::Release { call: former, cause });
                }
                ("transfers", "the target of the transfer answered", whom, Some(transfer.called))
            }
            // RFC 3891 3: the endpoint ends the call that was replaced.
            Why::Replaces(caller) => ("replaces", "another call took the place of this leg", caller, None),
        };
        if let Some(call) = self.calls.get_mut(&id).filter(|_| answered) {
            call.record.decide(Gate::FarAnswer, Verdict::Pass, &format!("trunks.{trunk}.{rule}"), detail);
        }
        self.end_images(id);
        // What the far side before held is held no more.
        self.trunk_media(now, sip, media, false);
        if holds {
            self.tell_trunk(Command::Hold { call: sip, on: true });
        }
        if answered {
            self.take_images(id);
        } else {
            self.callee_answers(now, id, &format!("trunks.{trunk}.{rule}"), "the call was picked up");
        }
        self.connected(id, role, party);
        if let Some(call) = self.calls.get_mut(&id).filter(|_| role == Role::Callee) {
            call.called = called.or(call.called.take());
        }
    }

    /// A trunk calls to take the place of one of its legs here (RFC 3891 3).
    pub(super) fn replacing(
        &mut self,
        sip: CallId,
        replaced: CallId,
        early: bool,
        trunk: TrunkName,
        caller: Caller,
    ) {
        let located = self.locate(replaced).and_then(|(id, role)| {
            let call = self.calls.get_mut(&id)?;
            let leg = call.leg(role);
            let rings = early && role == Role::Callee && !call.is_answered();
            let there = call.record.phase < Phase::Releasing && (rings || call.is_answered());
            let rtp = leg.rtp.filter(|_| there && leg.is_open() && call.successor.is_none())?;
            Some((id, role, rtp, call))
        });
        let Some((id, role, rtp, call)) = located else {
            // RFC 3891 3: a dialog that is over, or about to change hands.
            let cause = Cause::CALL_REJECTED;
            return self.tell_trunk(Command::Reject { call: sip, status: DECLINED, cause });
        };
        let detail = format!("{trunk} takes over its leg");
        call.record.decide(Gate::Policy, Verdict::Pass, &format!("trunks.{trunk}.replaces"), detail);
        let (why, taken) = (Why::Replaces(caller), trunk.clone());
        let successor = Successor { role, sip, trunk, why, media: None, answered: true, rang: false };
        call.successor = Some(Box::new(successor));
        self.onward.insert(sip, id);
        self.trunk_calls.take(&taken);
        self.tell_trunk(Command::Answer { call: sip, media: LocalMedia { rtp } });
    }

    /// The far side of two calls wants those behind them joined (RFC 5589 7): it leaves both, and
    /// their media go from one to the other.
    fn join(&mut self, first: (CallId, Role), home: &TrunkName, other: CallId, refuse: Command) {
        let second = self.locate(other);
        let second = second.filter(|(id, role)| *id != first.0 && self.may_follow(*id, *role));
        let free = |id: CallId| self.calls.get(&id).is_some_and(|call| call.joined.is_none());
        let Some(second) = second.filter(|second| free(first.0) && free(second.0)) else {
            return self.tell_trunk(refuse);
        };
        let leg = |(id, role): (CallId, Role)| self.calls.get(&id).map(|call| call.leg(role));
        let ends = leg(first).and_then(|leg| Some((leg.sip, leg.rtp?)));
        let (Some((asked, first_rtp)), Some((_, second_rtp))) =
            (ends, leg(second).and_then(|leg| Some((leg.sip, leg.rtp?))))
        else {
            return self.tell_trunk(refuse);
        };
        self.tell_trunk(Command::AcceptTransfer { call: asked });
        let parties =
            [second, first].map(|(id, role)| self.calls.get(&id).map(|call| party(call, role.other())));
        let mut holders = Vec::new();
        for ((id, role), partner, towards) in [(first, second, second_rtp), (second, first, first_rtp)] {
            let Some(call) = self.calls.get_mut(&id) else { continue };
            let detail = format!("joined with call {} by a transfer", partner.0);
            call.record.decide(Gate::FarAnswer, Verdict::Pass, &format!("trunks.{home}.transfers"), detail);
            call.joined = Some(partner);
            let leg = call.leg_mut(role);
            (leg.state, leg.probed, leg.image) = (State::Done, false, false);
            let (side, trunk, held) = (leg.side, leg.trunk.take(), std::mem::take(&mut leg.held));
            if leg.holds {
                holders.push(partner);
            }
            if let Some(trunk) = trunk {
                self.trunk_calls.give_back(&trunk);
            }
            // Media goes on to the gateway itself, with telephone events.
            let media = between(towards);
            self.tell_media(MediaCommand::TrunkMedia {
                call: id,
                side,
                media,
                in_band_digits: false,
                source_rule: SourceRule::Negotiated,
            });
            if held {
                self.hold(id, role, false);
            }
            self.end_images(id);
        }
        for (id, role) in holders {
            self.hold(id, role, true);
        }
        for ((id, role), party) in [first, second].into_iter().zip(parties) {
            if let Some(party) = party {
                self.connected(id, role, party);
            }
        }
        self.tell_trunk(Command::ReportTransfer { call: asked, status: 200 });
        for call in [other, asked] {
            self.tell_trunk(Command::Release { call, cause: Cause::NORMAL_CALL_CLEARING });
        }
    }

    /// Ends what hangs on a call that ends: a leg that was to join it, and the call it is joined with.
    pub(super) fn release_company(&mut self, now: Instant, id: CallId, cause: Cause) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let (successor, joined) = (call.successor.take(), call.joined.take());
        if let Some(successor) = successor {
            self.onward.remove(&successor.sip);
            self.trunk_calls.give_back(&successor.trunk);
            if let Why::Transfer(transfer) = &successor.why {
                self.tell_trunk(Command::ReportTransfer { call: transfer.asked, status: 487 });
            }
            self.tell_trunk(Command::Release { call: successor.sip, cause });
        }
        if let Some((partner, _)) = joined {
            self.release(now, partner, End::gateway(cause));
        }
    }

    /// Says whether the far side of a leg may leave, because another is about to take its place.
    pub(super) fn is_followed(call: &Call, role: Role) -> bool {
        let followed = call.successor.as_ref().is_some_and(|successor| successor.role == role);
        followed && call.record.phase < Phase::Releasing
    }
}

/// Who is at a side of a call.
fn party(call: &Call, role: Role) -> Caller {
    match role {
        Role::Caller => call.record.from.clone(),
        Role::Callee => Caller { address: call.called.clone(), ..Caller::default() },
    }
}

/// Media between two calls of ours: what any leg towards a trunk speaks.
fn between(towards: SocketAddr) -> LegMedia {
    let event = TelephoneEvent { send_payload_type: EVENTS, receive_payload_type: EVENTS, clock_rate: 8_000 };
    LegMedia {
        codec: Codec::Pcma,
        send_payload_type: AUDIO,
        receive_payload_type: AUDIO,
        also_receives: Vec::new(),
        telephone_event: Some(event),
        comfort_noise: false,
        packet_time_ms: 20,
        remote_rtp: towards,
        remote_rtcp: Some(SocketAddr::new(towards.ip(), towards.port().wrapping_add(1))),
        direction: Direction::SendRecv,
        security: MediaSecurity::None,
    }
}
