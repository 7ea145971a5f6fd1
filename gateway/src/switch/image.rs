//! T.38 between two trunks (ITU-T T.38 annex D): what one far side offers is put to the other, and its word goes back.
//! The media workers pass UDPTL on as soon as both sides carry it.

use call_model::{CallId, Gate, ImageMedia, Verdict};
use sip_trunk::Command;

use super::call::{Call, Role};
use super::record::{Phase, RouteDirection};
use super::{MediaCommand, Switch};

/// What the record says of a call that became a facsimile.
const FAX: &str = "T.38 on both trunks";

impl Switch {
    /// Lets the far sides of an answered call between two trunks offer T.38.
    pub(super) fn take_images(&mut self, id: CallId) {
        let Some(call) = self.calls.get(&id) else { return };
        if call.record.direction != RouteDirection::TrunkToTrunk {
            return;
        }
        for call in [call.caller.sip, call.callee.sip] {
            self.tell_trunk(Command::TakeImages { call, on: true });
        }
    }

    /// A far side offers T.38: it is for the other to say whether it takes it.
    pub(super) fn image_offered(&mut self, sip: CallId, image: ImageMedia) {
        let located = self.locate(sip).filter(|(id, _)| self.calls.get(id).is_some_and(|call| may_fax(call)));
        let Some((call, role)) = located.and_then(|(id, role)| Some((self.calls.get_mut(&id)?, role))) else {
            return self.tell_trunk(Command::AnswerImage { call: sip, attributes: None });
        };
        call.image_offer = Some(role);
        let other = call.leg(role.other()).sip;
        self.tell_trunk(Command::OfferImage { call: other, attributes: Some(Box::new(image.attributes)) });
    }

    /// A leg carries T.38 now, or its far side has refused to.
    pub(super) fn image_settled(&mut self, sip: CallId, image: Option<ImageMedia>) {
        let Some((id, role)) = self.locate(sip) else { return };
        let Some(call) = self.calls.get_mut(&id).filter(|call| call.leg(role).is_open()) else { return };
        let waits = call.image_offer.take_if(|asked| *asked == role.other()).is_some();
        let other = call.leg(role.other()).sip;
        let attributes = image.as_ref().map(|image| Box::new(image.attributes.clone()));
        if let Some(image) = image {
            let leg = call.leg_mut(role);
            leg.image = true;
            let side = leg.side;
            // A far side may begin and end as often as it likes.
            let both = call.caller.image && call.callee.image;
            if both && !call.record.decisions.iter().any(|step| &*step.detail == FAX) {
                call.record.decide(Gate::Codec, Verdict::Pass, "media", FAX);
            }
            self.tell_media(MediaCommand::TrunkImage { call: id, side, image });
        }
        if waits {
            self.tell_trunk(Command::AnswerImage { call: other, attributes });
        }
    }

    /// A far side waits for an answer to its offer of T.38 no longer: the other is not to carry it either.
    pub(super) fn image_withdrawn(&mut self, sip: CallId) {
        let Some((id, role)) = self.locate(sip) else { return };
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.image_offer.take_if(|asked| *asked == role);
        self.audio_again(id, role.other());
    }

    /// The far side of a leg has gone back to audio: so does the other.
    pub(super) fn audio_is_back(&mut self, id: CallId, role: Role) {
        if self.calls.get(&id).is_some_and(|call| call.leg(role.other()).image) {
            self.audio_again(id, role.other());
        }
    }

    fn audio_again(&mut self, id: CallId, role: Role) {
        let Some(leg) = self.calls.get(&id).map(|call| call.leg(role)).filter(|leg| leg.is_open()) else {
            return;
        };
        let call = leg.sip;
        self.tell_trunk(Command::OfferImage { call, attributes: None });
    }

    /// One of the legs is another now, or gone: what the two had of T.38 is over.
    pub(super) fn end_images(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let asked = call.image_offer.take();
        let carries = [Role::Caller, Role::Callee].map(|role| (role, call.leg(role).image));
        if let Some(role) = asked {
            let (from, to) = (call.leg(role).sip, role.other());
            self.tell_trunk(Command::AnswerImage { call: from, attributes: None });
            self.audio_again(id, to);
        }
        for (role, _) in carries.into_iter().filter(|(_, image)| *image) {
            self.audio_again(id, role);
        }
    }
}

/// Says whether a facsimile may pass through a call now: two trunks, and nothing else under way.
fn may_fax(call: &Call) -> bool {
    let open = call.caller.is_open() && call.callee.is_open();
    let two_trunks = call.record.direction == RouteDirection::TrunkToTrunk;
    let free = call.successor.is_none() && call.joined.is_none() && call.image_offer.is_none();
    open && two_trunks && free && call.is_answered() && call.record.phase == Phase::Active
}
