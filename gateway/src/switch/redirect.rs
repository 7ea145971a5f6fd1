//! Where a trunk sends the calls that it was sent (RFC 3261 8.1.3.4).

use std::time::Instant;

use call_model::{Address, CallId, Gate, TrunkName, Verdict};
use sip_trunk::{Command, RedirectContact};

use super::Switch;
use super::call::{Call, Role};
use super::gates::{Evaluation, Origin, Target};
use super::record::ReleasedBy;
use super::release::End;

impl Switch {
    /// The callee's trunk names other places. The first that the gates let this caller call, by this
    /// trunk, is called; if there is none, the call ends with what the trunk said.
    pub(super) fn redirected(
        &mut self,
        now: Instant,
        sip: CallId,
        status: u16,
        contacts: &[RedirectContact],
    ) {
        let cause = sip_trunk::cause::cause_of_status(status);
        let Some((id, Role::Callee)) = self.locate(sip) else {
            return self.tell_trunk(Command::Release { call: sip, cause });
        };
        let callee = self.calls.get(&id).map(|call| &call.callee).filter(|leg| leg.is_open());
        // A leg that is being released ends by itself.
        let Some(trunk) = callee.and_then(|leg| leg.trunk.clone()) else { return };
        let rule = format!("trunks.{trunk}.redirects");
        for (index, contact) in contacts.iter().enumerate() {
            let verdict = self.evaluate_contact(id, &trunk, contact);
            let Some(call) = self.calls.get_mut(&id) else { return };
            match verdict {
                Ok(target) => {
                    let detail = format!("{trunk} redirects to {target} ({status})");
                    call.record.decide(Gate::Route, Verdict::Pass, &rule, detail);
                    self.asked.remove(call.called.as_ref(), id);
                    self.asked.add(Some(&target), id);
                    call.called = Some(target);
                    return self.tell_trunk(Command::FollowRedirect { call: sip, contact: index });
                }
                Err((gate, detail)) => {
                    let detail = format!("a redirection is not followed: {detail}");
                    call.record.decide(gate, Verdict::Skip, &rule, detail);
                }
            }
        }
        if let Some(call) = self.calls.get_mut(&id) {
            let detail = format!("{trunk} answered {status}, and nothing is left to follow");
            call.record.decide(Gate::FarAnswer, Verdict::Refuse, &format!("trunks.{trunk}"), detail);
        }
        let by = match self.calls.get(&id).map(|call| call.callee.side) {
            Some(call_model::Side::Onward) => ReleasedBy::Onward,
            _ => ReleasedBy::Trunk,
        };
        self.release(now, id, End { cause, sip_status: Some(status), by });
    }

    /// Puts a contact before the gates as if the caller had called it.
    fn evaluate_contact(
        &mut self,
        id: CallId,
        trunk: &TrunkName,
        contact: &RedirectContact,
    ) -> Result<Address, (Gate, String)> {
        let Some(target) = contact.target.clone() else {
            return Err((Gate::Normalisation, "it is neither a number nor a handle".to_owned()));
        };
        let evaluation = self.without(id, |switch, call| switch.evaluate_again(call, &target));
        let Some(evaluation) = evaluation else { return Ok(target) };
        match evaluation.target {
            Ok(Target::Trunks(trunks)) if trunks.contains(trunk) => Ok(target),
            Ok(_) => Err((Gate::Route, format!("no route of {target} leads to {trunk}"))),
            Err(_) => {
                let last = evaluation.decisions.last();
                Err(last.map_or((Gate::Route, String::new()), |step| (step.gate, step.detail.to_string())))
            }
        }
    }

    /// `None` for a call that no gate may stop.
    fn evaluate_again(&self, call: &Call, target: &Address) -> Option<Evaluation> {
        if call.details.emergency.is_some() {
            return None;
        }
        let origin = match &call.caller.trunk {
            Some(name) => Origin::Trunk { name: name.clone() },
            None => Origin::Overlay { handle: call.user.clone() },
        };
        Some(self.evaluate_with(&origin, &target.to_string(), Some(target), Some(&call.details)))
    }

    /// Asks something as if a call were not there: what it holds is not to count against itself.
    fn without<T>(&mut self, id: CallId, ask: impl FnOnce(&Self, &Call) -> Option<T>) -> Option<T> {
        let call = self.calls.remove(&id)?;
        let trunks = [call.caller.trunk.clone(), call.callee.trunk.clone()];
        trunks.iter().flatten().for_each(|trunk| self.trunk_calls.give_back(trunk));
        let of_user = call.user.as_ref().and_then(|user| self.calls_of_user.get_mut(user));
        of_user.into_iter().for_each(|count| *count -= 1);
        let said = ask(self, &call);
        trunks.iter().flatten().for_each(|trunk| self.trunk_calls.take(trunk));
        let of_user = call.user.as_ref().and_then(|user| self.calls_of_user.get_mut(user));
        of_user.into_iter().for_each(|count| *count += 1);
        self.calls.insert(id, call);
        said
    }
}
