//! What one leg says, told to the other: the same for every pair of overlay and trunk.

use std::time::{Duration, Instant};

use call_model::{CallId, Caller, DigitPath, DtmfDigit, Side, TrunkName};
use p2p_edge::calling::SessionCommand;
use p2p_edge::node::NodeCommand;
use sip_trunk::{Command, LocalMedia};

use super::call::{Call, Role};
use super::record::Phase;
use super::{Action, MediaCommand, Switch};
use crate::config::Trunk;

impl Switch {
    pub(super) fn tell_overlay(&mut self, call: CallId, command: SessionCommand) {
        self.actions.push_back(Action::Overlay(NodeCommand::Call { call, command }));
    }

    pub(super) fn tell_trunk(&mut self, command: Command) {
        self.actions.push_back(Action::Sip(command));
    }

    pub(super) fn tell_media(&mut self, command: MediaCommand) {
        self.actions.push_back(Action::Media(command));
    }

    /// The called user is alerted.
    pub(super) fn callee_rings(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get_mut(&id).filter(|call| call.caller.is_open()) else { return };
        // RFC 3960 3.2: a 180 after early media does not bring local ringback back.
        if call.record.phase != Phase::Setup {
            return;
        }
        call.alerted(now, Phase::Ringing);
        let (overlay, call) = (call.caller.is_overlay(), call.caller.sip);
        if overlay {
            self.tell_overlay(id, SessionCommand::Ringing);
        } else {
            self.tell_trunk(Command::Ringing { call });
        }
    }

    /// The callee has described media ahead of the answer. Where it had rung before, the caller
    /// plays a tone until media really comes (RFC 3960 3.2): many send a description with 180 and
    /// nothing else.
    pub(super) fn callee_describes_media(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if call.record.phase == Phase::Ringing {
            call.early_waits = true;
        } else {
            self.early_media(now, id);
        }
    }

    /// The first packet came from a leg.
    pub(super) fn first_packet(&mut self, now: Instant, id: CallId, side: Side) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if call.early_waits && !call.is_answered() && call.callee.side == side {
            self.early_media(now, id);
        }
    }

    pub(super) fn early_media(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get_mut(&id).filter(|call| call.caller.is_open()) else { return };
        if call.is_answered() || call.record.phase >= Phase::Releasing {
            return;
        }
        call.alerted(now, Phase::Early);
        if std::mem::replace(&mut call.early_told, true) {
            return;
        }
        if call.caller.is_overlay() {
            if let Some(media) = call.overlay_sdp.clone() {
                self.tell_overlay(id, SessionCommand::Progress { media });
            }
        } else if let Some(rtp) = call.caller.rtp {
            let call = call.caller.sip;
            self.tell_trunk(Command::Progress { call, media: LocalMedia { rtp } });
        }
    }

    /// The called user has answered.
    pub(super) fn callee_answers(&mut self, now: Instant, id: CallId, rule: &str, detail: &str) {
        let Some(call) = self.calls.get_mut(&id).filter(|call| call.caller.is_open()) else { return };
        call.answered(now, rule, detail);
        self.asked.remove(call.called.as_ref(), id);
        if call.caller.is_overlay() {
            if let Some(media) = call.overlay_sdp.clone() {
                self.tell_overlay(id, SessionCommand::Answer { media });
            }
        } else if let Some(rtp) = call.caller.rtp {
            let call = call.caller.sip;
            self.tell_trunk(Command::Answer { call, media: LocalMedia { rtp } });
        }
        self.take_images(id);
        self.tell_connected(id);
    }

    /// The far side of one leg holds, or has taken back: so does the other.
    pub(super) fn hold(&mut self, id: CallId, from: Role, on: bool) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let joined = call.joined;
        let leg = call.leg_mut(from.other());
        if !leg.is_open() {
            // Behind a leg whose far side has left is the other call.
            if let Some((partner, role)) = joined.filter(|_| !leg.is_overlay()) {
                self.hold(partner, role, on);
            }
            return;
        }
        leg.holds = on;
        let (overlay, call) = (leg.is_overlay(), leg.sip);
        if overlay {
            self.tell_overlay(id, SessionCommand::Hold { on });
        } else {
            self.tell_trunk(Command::Hold { call, on });
        }
    }

    /// A digit came. One that has come the other way already is not counted again (RFC 4733 and INFO
    /// at once). Says whether it is new.
    pub(super) fn take_digit(
        &mut self,
        now: Instant,
        id: CallId,
        from: Role,
        path: DigitPath,
        (digit, duration_ms): (DtmfDigit, u16),
    ) -> bool {
        let Some(call) = self.calls.get_mut(&id) else { return false };
        let lasted = match path {
            DigitPath::Media => Duration::from_millis(duration_ms.into()),
            // How long it will be heard.
            DigitPath::Signalling => Duration::ZERO,
        };
        let new = call.leg_mut(from).digits.take(now, lasted, path, digit);
        call.record.dtmf_digits += u32::from(new);
        new
    }

    /// A digit came by signalling: it goes on in media, unless the other leg takes it by signalling.
    pub(super) fn digit(&mut self, now: Instant, id: CallId, from: Role, digit: DtmfDigit, duration_ms: u16) {
        if !self.take_digit(now, id, from, DigitPath::Signalling, (digit, duration_ms)) {
            return;
        }
        let Some(call) = self.calls.get(&id) else { return };
        let leg = call.leg(from.other());
        if leg.is_open() && self.takes_info(leg.trunk.as_ref()) {
            return self.digit_by_signalling(id, from, digit, duration_ms);
        }
        let side = leg.side;
        self.tell_media(MediaCommand::SendDtmf { call: id, side, digit, duration_ms });
    }

    /// Says whether a trunk is sent digits by INFO.
    pub(super) fn takes_info(&self, trunk: Option<&TrunkName>) -> bool {
        trunk.and_then(|name| self.trunk(name)).is_some_and(Trunk::takes_info)
    }

    /// A digit was heard that media does not carry on to the other leg.
    pub(super) fn digit_by_signalling(&mut self, id: CallId, from: Role, digit: DtmfDigit, duration_ms: u16) {
        let Some(leg) = self.calls.get(&id).map(|call| call.leg(from.other())) else { return };
        if !leg.is_open() {
            return;
        }
        if leg.is_overlay() {
            self.tell_overlay(id, SessionCommand::Dtmf { digit, duration_ms });
        } else if self.takes_info(leg.trunk.as_ref()) {
            let call = leg.sip;
            self.tell_trunk(Command::Dtmf { call, digit, duration_ms });
        }
    }

    /// A trunk said who is connected on it. Trunks are not told of each other's parties.
    pub(super) fn connected(&mut self, id: CallId, from: Role, party: Caller) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let known = match from {
            Role::Caller => call.record.from.address.as_ref(),
            Role::Callee => call.called.as_ref(),
        };
        // That the called number has answered is no news.
        let news = call.record.connected.is_some() || party.address.as_ref() != known;
        if news && call.leg(from.other()).is_overlay() {
            let party = Box::new(party);
            call.record.connected = Some(party.clone());
            call.connected = Some(party);
            self.tell_connected(id);
        }
    }

    fn tell_connected(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(&id).filter(|call| call.is_answered()) else { return };
        let overlay = [&call.caller, &call.callee].into_iter().any(|leg| leg.is_overlay() && leg.is_open());
        if let Some(party) = call.connected.take().filter(|_| overlay) {
            let party = shown_to_user(&party);
            self.tell_overlay(id, SessionCommand::Connected { party });
        }
    }

    /// Finds the call and the leg that the SIP endpoint means.
    pub(super) fn locate(&self, sip: CallId) -> Option<(CallId, Role)> {
        let id = self.onward.get(&sip).copied().unwrap_or(sip);
        let call = self.calls.get(&id)?;
        let is = |role: &Role| !call.leg(*role).is_overlay() && call.leg(*role).sip == sip;
        [Role::Caller, Role::Callee].into_iter().find(is).map(|role| (id, role))
    }
}

/// What an overlay user is told of a caller. Users are outside the trust domain, so a number that
/// was asked to be withheld ends here and stays in the record only (RFC 3325 7).
pub(super) fn shown_to_user(caller: &Caller) -> Caller {
    if caller.private {
        return Caller { address: None, display_name: None, private: true };
    }
    let display_name = caller.display_name.as_deref().and_then(Caller::clean_display_name);
    Caller { display_name, ..caller.clone() }
}

/// Whether a call may still be given media and rung.
pub(super) fn is_young(call: &Call) -> bool {
    call.record.phase < Phase::Releasing
}
