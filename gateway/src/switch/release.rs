//! How calls end: one side or a rule ends them, the other leg is released with the same cause,
//! and when both have confirmed it, one record remains.

use std::time::Instant;

use call_model::{CallId, Cause, Outcome, Verdict};
use p2p_edge::calling::SessionCommand;
use sip_trunk::Command;

use super::call::{Call, Leg, Role, State};
use super::gates::USER_LIMIT;
use super::record::{Phase, ReleasedBy, RouteDirection};
use super::{Action, MediaCommand, RELEASE_GUARD, Switch};

/// Why a call ends, and by whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) cause: Cause,
    pub(super) sip_status: Option<u16>,
    pub(super) by: ReleasedBy,
}

impl End {
    pub(super) fn gateway(cause: Cause) -> Self {
        Self { cause, sip_status: None, by: ReleasedBy::Gateway }
    }
}

impl Switch {
    /// Ends a live call for the operator. Returns false when there is no such call.
    pub fn hang_up(&mut self, now: Instant, id: CallId) -> bool {
        let live = self.calls.get(&id).is_some_and(|call| call.record.phase < Phase::Releasing);
        if live {
            self.release(now, id, End::gateway(Cause::NORMAL_UNSPECIFIED));
        }
        live
    }

    /// Ends every live call.
    pub fn hang_up_all(&mut self, now: Instant, cause: Cause) {
        let ids: Vec<CallId> = self.calls.keys().copied().collect();
        for id in ids {
            self.release(now, id, End::gateway(cause));
        }
    }

    /// Ends both legs, as far as they are not over. The first cause stays.
    pub(super) fn release(&mut self, now: Instant, id: CallId, end: End) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if call.record.phase < Phase::Releasing {
            // Told by how far the call had come, so before it counts as being released.
            call.record.outcome = Some(outcome(call, end));
            call.record.phase = Phase::Releasing;
            call.record.ended = Some(call.record.since_start(now));
            call.record.cause = Some(end.cause);
            call.record.sip_status = end.sip_status;
            call.record.released_by = Some(end.by);
            let drop_at = now + RELEASE_GUARD;
            call.drop_at = Some(drop_at);
            self.releases.insert((drop_at, id));
        }
        let cause = call.record.cause.unwrap_or(end.cause);
        self.release_company(now, id, cause);
        for role in [Role::Caller, Role::Callee] {
            let Some(call) = self.calls.get_mut(&id).filter(|call| call.leg(role).is_open()) else {
                continue;
            };
            call.leg_mut(role).state = State::Releasing;
            if call.leg(role).is_overlay() {
                let command = overlay_goodbye(call, role, cause);
                self.tell_overlay(id, command);
            } else {
                let command = trunk_goodbye(call, role, cause);
                self.tell_trunk(command);
            }
        }
        if self.calls.get(&id).is_some_and(|call| call.is_over()) {
            self.finish(now, id);
        }
    }

    pub(super) fn finish(&mut self, now: Instant, id: CallId) {
        let Some(mut call) = self.calls.remove(&id) else { return };
        if let Some(drop_at) = call.drop_at {
            self.releases.remove(&(drop_at, id));
        }
        if let Some(until) = call.silent_until {
            self.silences.remove(&(until, id));
        }
        self.onward.remove(&call.caller.sip);
        self.onward.remove(&call.callee.sip);
        self.asked.remove(call.called.as_ref(), id);
        for trunk in [&call.caller.trunk, &call.callee.trunk].into_iter().flatten() {
            self.trunk_calls.give_back(trunk);
        }
        if let Some(user) = &call.user
            && let Some(count) = self.calls_of_user.get_mut(user)
        {
            *count -= 1;
            if *count == 0 {
                self.calls_of_user.remove(user);
            }
        }
        if call.media_open {
            self.actions.push_back(Action::Media(MediaCommand::Close { call: id }));
        }
        if call.is_answered() {
            let reported = |leg: &&Leg| {
                let trunk = leg.trunk.as_ref().and_then(|name| self.trunk(name));
                trunk.is_some_and(|trunk| self.config.tell_quality || trunk.quality_reports.is_some())
            };
            let legs = [&call.caller, &call.callee].into_iter().filter(reported);
            call.record.reports_due = legs.map(|leg| (leg.side, leg.sip)).collect();
        }
        let record = &mut call.record;
        record.phase = Phase::Ended;
        let ended = record.ended.unwrap_or_else(|| record.since_start(now));
        self.actions.push_back(Action::Ended {
            call: id,
            direction: record.direction,
            outcome: record.outcome.unwrap_or(Outcome::Server),
            cause: record.cause.unwrap_or(Cause::NORMAL_UNSPECIFIED),
            trunk: record.trunk.clone(),
            setup: record.answered,
            duration: record.answered.map(|answered| ended.saturating_sub(answered)),
        });
        self.history.push(call.record);
    }
}

fn overlay_goodbye(call: &Call, role: Role, cause: Cause) -> SessionCommand {
    let text = call.goodbye.clone();
    match (call.is_answered(), role) {
        (true, _) => SessionCommand::Bye { cause, text },
        (false, Role::Caller) => {
            // A 2xx whose description was of no use ended it: that is no refusal, and cannot be told as one.
            let sip_status = call.record.sip_status.filter(|status| (300..700).contains(status));
            SessionCommand::Reject { cause, sip_status, text }
        }
        (false, Role::Callee) => SessionCommand::Cancel { answered_elsewhere: false },
    }
}

fn trunk_goodbye(call: &Call, role: Role, cause: Cause) -> Command {
    let sip = call.leg(role).sip;
    let own = call.record.released_by == Some(ReleasedBy::Gateway);
    let says_better = |status: &u16| own || is_the_callees_word(*status);
    let status = call.record.sip_status.filter(says_better);
    match status.filter(|_| role == Role::Caller && !call.is_answered()) {
        Some(status) => Command::Reject { call: sip, status, cause },
        None => Command::Release { call: sip, cause },
    }
}

/// Says whether a status of the far leg says of the callee what the caller is to hear, rather than
/// something of the way there. A cause alone does not tell these apart (RFC 3398 7.2.4.1).
fn is_the_callees_word(status: u16) -> bool {
    matches!(status, 403 | 404 | 410 | 433 | 480 | 484 | 485 | 486 | 488 | 600 | 603 | 604 | 606 | 607 | 608)
}

/// Says whose doing the end of a call was.
fn outcome(call: &Call, end: End) -> Outcome {
    if call.is_answered() {
        return Outcome::Success;
    }
    let caller = match call.record.direction {
        RouteDirection::OverlayToTrunk => ReleasedBy::Overlay,
        RouteDirection::TrunkToOverlay | RouteDirection::TrunkToTrunk => ReleasedBy::Trunk,
    };
    let nothing_heard = call.record.phase == Phase::Setup && call.record.alerted.is_none();
    let refused_by = call.record.decisions.iter().rev().find(|step| step.verdict == Verdict::Refuse);
    let user_is_full = refused_by.is_some_and(|step| &*step.rule == USER_LIMIT);
    match end.by {
        by if by == caller => Outcome::Client,
        // A limit on one user is reached by that user's own calls, not for want of room here.
        ReleasedBy::Gateway if user_is_full => match call.record.direction {
            RouteDirection::OverlayToTrunk => Outcome::Client,
            RouteDirection::TrunkToOverlay | RouteDirection::TrunkToTrunk => Outcome::Upstream,
        },
        ReleasedBy::Gateway => match end.cause {
            Cause::UNALLOCATED_NUMBER
            | Cause::NO_ROUTE_TO_DESTINATION
            | Cause::CALL_REJECTED
            | Cause::EXCHANGE_ROUTING_ERROR
            | Cause::SERVICE_NOT_AVAILABLE
            | Cause::INVALID_NUMBER_FORMAT => Outcome::Client,
            Cause::NO_ANSWER_FROM_USER | Cause::SUBSCRIBER_ABSENT => Outcome::Upstream,
            Cause::RECOVERY_ON_TIMER_EXPIRY | Cause::NO_USER_RESPONDING if nothing_heard => {
                Outcome::Indeterminate
            }
            _ => Outcome::Server,
        },
        _ => Outcome::Upstream,
    }
}
