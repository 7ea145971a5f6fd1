//! T.38 on a call that goes on to another trunk (ITU-T T.38 annex D): the offer of one far side is put to the other,
//! and waits for what that says. Going back to audio needs no asking.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use call_model::{Cause, ImageAttributes, LegMedia};

use super::call::{Call, Phase};
use super::session_timer::SessionTimer;
use crate::endpoint::api::{CommandError, Event};
use crate::endpoint::core::{Core, Extra};
use crate::sdp::{NegotiationError, Srtp};
use crate::wire::message::{Content, Request, content};
use crate::wire::tolerance::Repairs;

/// A re-INVITE with an offer of T.38 that waits for the other side.
#[derive(Debug)]
pub(super) struct ImageOffer {
    request: Request,
    server: u64,
    pub(super) until: Instant,
}

/// What is wanted of T.38.
#[derive(Debug, Default)]
pub(super) struct Images {
    /// An offer of T.38 may be put to the other side.
    pub(super) taken: bool,
    /// What is said of our side of the stream that is wanted; `None`: audio is.
    pub(super) wanted: Option<Box<ImageAttributes>>,
    /// The user waits to hear what becomes of it.
    asked: bool,
    pub(super) offer: Option<Box<ImageOffer>>,
}

impl Call {
    /// Carries out `TakeImages`.
    pub(crate) fn take_images(&mut self, on: bool) -> Result<(), CommandError> {
        self.images.taken = on;
        Ok(())
    }

    /// Carries out `OfferImage`.
    pub(crate) fn offer_image(
        &mut self,
        core: &mut Core,
        attributes: Option<Box<ImageAttributes>>,
    ) -> Result<(), CommandError> {
        if !matches!(self.phase, Phase::Confirmed) {
            return Err(CommandError::WrongState);
        }
        let offers = attributes.is_some();
        if let Some(image) = self.offer_answer.image().filter(|_| offers).cloned() {
            // The far side carries T.38 already.
            let call = self.id;
            core.events.push_back(Event::Image { call, image: Some(Box::new(image)) });
            return Ok(());
        }
        if offers && core.trunks.get(self.trunk).is_none_or(|at| at.policy.srtp == Srtp::Required) {
            // UDPTL is not protected.
            core.events.push_back(Event::Image { call: self.id, image: None });
            return Ok(());
        }
        (self.images.wanted, self.images.asked) = (attributes, offers);
        self.modify.begin_anew();
        self.run_modify(core);
        self.arm(core);
        Ok(())
    }

    /// Says whether what the session carries is not what is wanted.
    pub(super) fn images_differ(&self) -> bool {
        match self.images.wanted {
            Some(_) => self.offer_answer.image().is_none(),
            None => !self.offer_answer.carries_audio(),
        }
    }

    /// Lets a re-INVITE wait if it asks for T.38, the other side may take that, and it is news. Says whether it does.
    pub(super) fn defers(&mut self, core: &mut Core, request: &Request, server: u64) -> bool {
        let Content::Sdp(body) = content(&request.head, &request.body) else { return false };
        let known = self.images.wanted.is_some();
        if !self.images.taken
            || known
            || SessionTimer::of_request(&request.head, self.timer_wish(core)).is_err()
        {
            return false;
        }
        let (Some(at), Some(local)) = (core.trunks.get(self.trunk), self.local) else { return false };
        let Ok(Some(image)) = self.offer_answer.receive_image_offer(&body, &at.policy) else { return false };
        if !same_family(local, image.remote_udptl) {
            self.offer_answer.reject_offer();
            return false;
        }
        // As long as a transfer waits for its answer: the far side has a fax machine waiting.
        let until = core.io.now + core.config.timers.give_up() / 4;
        self.images.offer = Some(Box::new(ImageOffer { request: request.clone(), server, until }));
        // RFC 3261 17.2.1: it does not come again.
        self.respond(core, server, 100, &Extra::default());
        core.events.push_back(Event::ImageOffered { call: self.id, image: Box::new(image) });
        true
    }

    /// Carries out `AnswerImage`.
    pub(crate) fn answer_image(
        &mut self,
        core: &mut Core,
        attributes: Option<Box<ImageAttributes>>,
    ) -> Result<(), CommandError> {
        let Some(offer) = self.images.offer.take() else { return Err(CommandError::WrongState) };
        self.offer_answer.reject_offer();
        let accepted = attributes.is_some();
        self.images.wanted = attributes;
        self.answer_reinvite(core, &offer.request, offer.server);
        if self.offer_answer.image().is_none() {
            self.images.wanted = None;
            if accepted {
                // The trunk takes no such offer any more.
                core.events.push_back(Event::ImageWithdrawn { call: self.id });
            }
        }
        self.run_modify(core);
        self.arm(core);
        Ok(())
    }

    /// Answers an offer of T.38 by itself: one that was accepted, or that says again what is agreed on. `None`: it is
    /// none, or none that is wanted.
    pub(super) fn answer_image_offer(
        &mut self,
        core: &mut Core,
        body: &[u8],
    ) -> Option<Result<Bytes, NegotiationError>> {
        let wanted = self.images.wanted.as_deref()?;
        let (at, local) = (core.trunks.get(self.trunk)?, self.local?);
        // What cannot be taken may have audio beside it.
        self.offer_answer.receive_image_offer(body, &at.policy).ok()??;
        let answer = self.offer_answer.make_image_answer(local, wanted);
        Some(match answer {
            Ok(answer) => {
                count(core, answer.repairs);
                self.tell_image(core, answer.changed);
                Ok(Bytes::from(answer.body))
            }
            Err(error) => {
                self.offer_answer.reject_offer();
                Err(error)
            }
        })
    }

    /// The far side has gone back to audio by itself.
    pub(super) fn image_is_over(&mut self) {
        (self.images.wanted, self.images.asked) = (None, false);
    }

    /// Takes the answer to our offer of T.38.
    pub(super) fn take_image_answer(&mut self, core: &mut Core, body: &[u8]) {
        let Some(at) = core.trunks.get(self.trunk) else { return };
        let agreed = self.offer_answer.accept_image_answer(body, &at.policy);
        if let Ok(agreed) = &agreed {
            count(core, agreed.repairs);
        }
        match agreed {
            Ok(agreed) if agreed.image.is_some() => self.tell_image(core, agreed.changed),
            // An answer that cannot be used is as good as a refusal: audio is what both have spoken.
            _ => self.image_refused(core),
        }
    }

    /// Our offer came to nothing: what is carried is what is wanted.
    pub(super) fn settle_for_agreed(&mut self, core: &mut Core) {
        let refused = self.images.wanted.is_some() && self.offer_answer.image().is_none();
        self.images.wanted = self.offer_answer.own_image().cloned().map(Box::new);
        if refused {
            self.image_refused(core);
        }
    }

    fn image_refused(&mut self, core: &mut Core) {
        self.images.wanted = None;
        self.images.asked = false;
        core.events.push_back(Event::Image { call: self.id, image: None });
    }

    fn tell_image(&mut self, core: &mut Core, changed: bool) {
        let asked = std::mem::take(&mut self.images.asked);
        if let Some(image) = self.offer_answer.image().filter(|_| changed || asked) {
            core.events.push_back(Event::Image { call: self.id, image: Some(Box::new(image.clone())) });
        }
    }

    /// Takes the answer to an offer of ours in a 2xx or an ACK. Returns the audio, if it is about that, and whether
    /// it differs from before.
    ///
    /// # Errors
    /// Why the call cannot go on.
    pub(super) fn take_answer(
        &mut self,
        core: &mut Core,
        body: &[u8],
    ) -> Result<Option<(LegMedia, bool)>, (Cause, String)> {
        if self.offer_answer.offers_image() {
            self.take_image_answer(core, body);
            return Ok(None);
        }
        let Some(at) = core.trunks.get(self.trunk) else { return Ok(None) };
        let answer = self.offer_answer.accept_answer(body, &at.policy);
        let negotiated = answer.map_err(|error| (error.cause(), error.to_string()))?;
        count(core, negotiated.repairs);
        Ok(Some((negotiated.media, negotiated.changed)))
    }

    /// Returns when the offer that waits is refused.
    pub(super) fn image_next(&self) -> Option<Instant> {
        self.images.offer.as_ref().map(|offer| offer.until)
    }

    pub(super) fn on_image_timer(&mut self, core: &mut Core) {
        if self.image_next().is_some_and(|until| until <= core.io.now) {
            core.events.push_back(Event::ImageWithdrawn { call: self.id });
            // There is one that waits.
            let _ = self.answer_image(core, None);
        }
    }

    /// The far side cancelled a re-INVITE (RFC 3261 9.2): 487, and the session is as it was. Says whether it is the
    /// one that waits.
    pub(super) fn cancel_image(&mut self, core: &mut Core, server: u64) -> bool {
        let Some(offer) = self.images.offer.take_if(|offer| offer.server == server) else { return false };
        self.offer_answer.reject_offer();
        self.reply(core, offer.server, 487, Vec::new());
        core.events.push_back(Event::ImageWithdrawn { call: self.id });
        self.run_modify(core);
        true
    }

    /// The call ends: what waits gets its final response (RFC 3261 15.1.2).
    pub(super) fn drop_image(&mut self, core: &mut Core) {
        if let Some(offer) = self.images.offer.take() {
            self.reply(core, offer.server, 487, Vec::new());
        }
    }
}

fn count(core: &mut Core, repairs: Repairs) {
    for repair in repairs.iter() {
        core.io.counters.repair(repair.as_str());
    }
}

fn same_family(local: SocketAddr, remote: SocketAddr) -> bool {
    local.is_ipv4() == remote.is_ipv4()
}
