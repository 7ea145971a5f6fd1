//! Requests the far side sends within a call (RFC 3261 12.2.2).

use std::net::SocketAddr;

use bytes::Bytes;
use call_model::{CallId, Direction};

use super::call::{Call, Phase, label};
use super::session_timer::{Negotiated, SessionTimer};
use super::uas::{explain, unsupported_media};
use crate::cause::cause_of_release;
use crate::endpoint::api::{EndedBy, Event};
use crate::endpoint::core::{Core, Extra};
use crate::endpoint::io::Path;
use crate::sdp::{Answer, NegotiationError, OfferAnswer, State};
use crate::trunk::Transfers;
use crate::wire::message::{Content, Method, Request, content};

impl Call {
    /// Says whether a request belongs to the dialog of this call. A call without an answer has
    /// none, but a BYE may overtake the 2xx that makes it.
    pub(crate) fn owns(&self, request: &Request) -> bool {
        let head = &request.head;
        head.call_id == self.dialog.call_id
            && match self.phase {
                Phase::Outgoing(_) => self.owns_early(request),
                _ => head.from.tag.as_deref().unwrap_or_default() == self.dialog.remote_tag,
            }
    }

    /// Takes in a request that the general checks let pass: not ACK, not CANCEL. `replaced` is the call
    /// of ours that the Replaces of a REFER means.
    pub(crate) fn on_request(
        &mut self,
        core: &mut Core,
        request: &Request,
        source: SocketAddr,
        path: Path,
        replaced: Option<CallId>,
    ) {
        self.heard_from(source);
        let sdp = matches!(content(&request.head, &request.body), Content::Sdp(_));
        self.note(core, true, label(request.method.as_str(), sdp));
        let server = core.servers.start(request, source, path, Some(self.key));
        if matches!(self.phase, Phase::Outgoing(_)) {
            return match request.method {
                Method::Update => self.on_early_update(core, request, server),
                _ => self.on_early_bye(core, request, server),
            };
        }
        // RFC 3261 12.2.2: what is out of order is refused.
        if self.dialog.remote_cseq.is_some_and(|last| request.head.cseq <= last) {
            self.reply(core, server, 500, vec![("Retry-After", "1".to_owned())]);
            return;
        }
        self.dialog.remote_cseq = Some(request.head.cseq);
        match request.method {
            Method::Bye => self.on_bye(core, request, server),
            // The subscription may have outlived the call.
            _ if matches!(self.phase, Phase::Closing { .. })
                && !(self.lingers && request.method == Method::Subscribe) =>
            {
                self.reply(core, server, 481, Vec::new());
            }
            Method::Invite => self.on_reinvite(core, request, server),
            Method::Update => self.on_update(core, request, server),
            Method::Info => self.on_info(core, request, server),
            Method::Options => {
                self.reply(core, server, 200, vec![("Accept", crate::sdp::CONTENT_TYPE.to_owned())])
            }
            Method::Refer => self.on_refer(core, request, server, replaced),
            Method::Prack => self.on_prack(core, request, server),
            Method::Subscribe if core.transfers(self.trunk) == Transfers::Accept => {
                self.on_subscribe(core, request, server);
            }
            Method::Notify => self.on_notify(core, request, server),
            Method::Other => self.reply(core, server, 501, Vec::new()),
            _ => self.reply(core, server, 405, Vec::new()),
        }
        self.arm(core);
    }

    pub(super) fn reply(
        &mut self,
        core: &mut Core,
        server: u64,
        status: u16,
        lines: Vec<(&'static str, String)>,
    ) {
        self.respond(core, server, status, &Extra { lines, ..Extra::default() });
    }

    /// 500 to a request that may come again in a moment (RFC 3261 14.2, RFC 3311 5.2).
    pub(super) fn reply_later(&mut self, core: &mut Core, server: u64) {
        let wait = core.io.random.between(0, 10).to_string();
        self.reply(core, server, 500, vec![("Retry-After", wait)]);
    }

    fn on_bye(&mut self, core: &mut Core, request: &Request, server: u64) {
        let reasons = request.head.reasons();
        let cause = cause_of_release(reasons.iter().map(String::as_str));
        self.reply(core, server, 200, Vec::new());
        // An early BYE: the INVITE still needs its final response (RFC 3261 15.1.2).
        if matches!(self.phase, Phase::Incoming(_)) {
            self.refuse(core, 487, Vec::new());
        }
        self.unacked = None;
        self.drop_modify(core);
        self.end(core, cause, None, "BYE".to_owned(), EndedBy::Far);
        if let Some(expires) = self.reports_until() {
            // RFC 5057 3.2: the subscription outlives the call in the same dialog. Its last NOTIFY has
            // its own end.
            self.lingers = true;
            let until = expires + core.config.timers.give_up() * 8;
            self.phase = Phase::Closing { cause, waits_for_ack: false, until };
            return;
        }
        self.finished = true;
    }

    /// A re-INVITE (RFC 3261 14.2).
    fn on_reinvite(&mut self, core: &mut Core, request: &Request, server: u64) {
        if matches!(self.phase, Phase::Incoming(_)) {
            return self.reply_later(core, server);
        }
        // RFC 3261 14.2: the one before has no final response yet.
        if self.images.offer.is_some() {
            return self.reply_later(core, server);
        }
        if self.modify.offers() || self.unacked.as_ref().is_some_and(|u| u.offered) {
            return self.reply(core, server, 491, Vec::new());
        }
        self.learn_methods(&request.head);
        // Whoever sends a re-INVITE has seen our 2xx, even if the ACK is lost.
        self.unacked = None;
        if !self.defers(core, request, server) {
            self.answer_reinvite(core, request, server);
        }
    }

    /// Sends the final response to a re-INVITE.
    pub(super) fn answer_reinvite(&mut self, core: &mut Core, request: &Request, server: u64) {
        match self.renegotiate(core, request, true) {
            Ok((body, session, offered)) => {
                let lines = session.as_ref().map(Negotiated::lines).unwrap_or_default();
                let sdp = body.as_deref();
                self.respond_success(
                    core,
                    server,
                    request.head.cseq,
                    &Extra { lines, sdp, ..Extra::default() },
                    offered,
                );
            }
            Err((status, lines)) => self.reply(core, server, status, lines),
        }
    }

    /// UPDATE (RFC 3311 5.2): as a re-INVITE, answered at once and without ACK.
    fn on_update(&mut self, core: &mut Core, request: &Request, server: u64) {
        if !request.body.is_empty() {
            // Our offer is open: 491. Theirs is, or its answer has not passed reliably: 500.
            if self.offer_answer.state() == State::LocalOffer {
                return self.reply(core, server, 491, Vec::new());
            }
            let waits = self.images.offer.is_some();
            if waits || matches!(self.phase, Phase::Incoming(_)) && !self.may_take_early_offer() {
                return self.reply_later(core, server);
            }
        }
        self.learn_methods(&request.head);
        match self.renegotiate(core, request, false) {
            Ok((body, session, _)) => {
                let lines = session.as_ref().map(Negotiated::lines).unwrap_or_default();
                let extra = Extra { lines, sdp: body.as_deref(), ..Extra::default() };
                self.respond(core, server, 200, &extra);
            }
            Err((status, lines)) => self.reply(core, server, status, lines),
        }
    }

    /// Answers the offer of a re-INVITE or UPDATE; a re-INVITE without one gets ours. On error the
    /// session is unchanged.
    #[allow(clippy::type_complexity)]
    fn renegotiate(
        &mut self,
        core: &mut Core,
        request: &Request,
        invite: bool,
    ) -> Result<(Option<Bytes>, Option<Negotiated>, bool), (u16, Vec<(&'static str, String)>)> {
        let timer = SessionTimer::of_request(&request.head, self.timer_wish(core))?;
        let direction = self.wanted_direction(core);
        let body = match content(&request.head, &request.body) {
            Content::Other => return Err(unsupported_media()),
            Content::None if !invite => None,
            content => {
                let local = self.local.ok_or((500, Vec::new()))?;
                if let Content::Sdp(offer) = &content
                    && let Some(answer) = self.answer_image_offer(core, offer)
                {
                    Some(answer.map_err(|e| explain(&e))?)
                } else if let Content::Sdp(offer) = &content {
                    let faxed = !self.offer_answer.carries_audio();
                    let offer_answer = &mut self.offer_answer;
                    let answer = take_offer(core, self.trunk, offer_answer, local, direction, offer)
                        .map_err(|e| explain(&e))?;
                    if faxed {
                        self.image_is_over();
                    }
                    // Behind an address translator the same description may be of another place.
                    if answer.changed || std::mem::take(&mut self.moved) {
                        let (call, media) = (self.id, answer.media);
                        let (early, signalling) = (matches!(self.phase, Phase::Incoming(_)), self.signalling);
                        core.events.push_back(Event::Media { call, media, early, signalling });
                    }
                    Some(Bytes::from(answer.body))
                } else {
                    let at = core.trunks.get(self.trunk).ok_or((500, Vec::new()))?;
                    let offer = match self.offer_answer.own_image().cloned() {
                        Some(image) => self.offer_answer.make_image_offer(local, &at.policy, &image),
                        None => self.offer_answer.make_offer(local, &at.policy, direction),
                    };
                    Some(Bytes::from(offer.map_err(|e| explain(&e))?))
                }
            }
        };
        self.dialog.refresh_target(&request.head);
        self.note_connected(core, &request.head);
        if self.session.is_some() || timer.is_some() {
            self.session = timer.as_ref().map(|t| SessionTimer::start(t, core.io.now));
        }
        let offered = invite && request.body.is_empty();
        Ok((body, timer, offered))
    }
}

/// Answers an offer of the far side. On error the session is as it was.
pub(super) fn take_offer(
    core: &mut Core,
    trunk: usize,
    offer_answer: &mut OfferAnswer,
    local: SocketAddr,
    direction: Direction,
    body: &[u8],
) -> Result<Answer, NegotiationError> {
    let at = core.trunks.get(trunk).ok_or(NegotiationError::WrongState)?;
    let offer = offer_answer.receive_offer(body, &at.policy)?;
    let answer = offer_answer.make_answer(local, &at.policy, direction);
    let answer = answer.inspect_err(|_| offer_answer.reject_offer())?;
    for repair in offer.repairs.iter() {
        core.io.counters.repair(repair.as_str());
    }
    Ok(answer)
}
