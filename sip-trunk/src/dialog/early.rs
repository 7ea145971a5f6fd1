//! Early dialogs of calls we place: one per To tag (RFC 3261 12.1, 13.2.2.4), and what passes within
//! them before the answer: PRACK (RFC 3262 4), UPDATE (RFC 3311 5.2) and a BYE ahead of its 2xx.

use std::net::IpAddr;

use bytes::Bytes;
use call_model::{CallId, Cause, Direction, LegMedia};

use super::Dialog;
use super::call::{Call, Phase, label};
use super::in_dialog::take_offer;
use super::uas::{explain, unsupported_media};
use crate::cause::cause_of_release;
use crate::endpoint::api::{EndedBy, Event};
use crate::endpoint::core::{Core, Extra};
use crate::endpoint::io::Path;
use crate::sdp::{NegotiationError, OfferAnswer, State};
use crate::transaction::client::{ClientKey, Outcome, Owner, Upcall};
use crate::trunk::{AnswerChange, Trunk};
use crate::wire::message::{Content, Head, Method, Name, Request, Response, content};

/// An early dialog.
#[derive(Debug)]
pub(super) struct Fork {
    pub(super) tag: String,
    /// Missing while nothing but a BYE came.
    pub(super) dialog: Option<Dialog>,
    pub(super) offer_answer: OfferAnswer,
    /// The description that ended the offer/answer exchange of the INVITE, in a reliable response.
    pub(super) settled: Option<Bytes>,
    /// The RSeq of the last reliable response that was taken.
    rseq: Option<u32>,
    pracks: Vec<Prack>,
    /// Its BYE overtook its 2xx.
    pub(super) ended: Option<Cause>,
    /// A 199 closed it (RFC 6228). It is kept so that a repeated 199 is known as such.
    pub(super) gone: bool,
    /// What P-Early-Media last allowed (RFC 5009), as we see it.
    gate: Option<Direction>,
    /// What was told of its media.
    shown: Option<Box<LegMedia>>,
}

/// A PRACK that was not answered yet.
#[derive(Debug)]
struct Prack {
    key: Option<ClientKey>,
    rack: String,
    /// The answer to an offer in the reliable response.
    answer: Option<Bytes>,
    challenges: u8,
    /// The transport lost it and it went out a second time.
    repeated: bool,
}

/// The most early dialogs of one INVITE; more are not tracked.
const MAX_FORKS: usize = 8;

/// The most PRACKs of one INVITE: each goes to wherever a Contact says, so that their number is not
/// left to the far side.
pub(super) const MAX_PRACKS: u8 = 64;

/// The most PRACKs of one early dialog whose outcome is awaited.
const MAX_PENDING: usize = 4;

impl Fork {
    /// Tells of the media of the early dialog, as far as it is let through, where that is news.
    fn show(&mut self, core: &mut Core, (call, signalling): (CallId, IpAddr)) {
        let Some(mut media) = self.offer_answer.media().cloned() else { return };
        media.direction = media.direction.restricted_to(self.gate.unwrap_or_default());
        if self.shown.as_deref() != Some(&media) {
            self.shown = Some(Box::new(media.clone()));
            core.events.push_back(Event::Media { call, media, early: true, signalling });
        }
    }

    /// Says whether an UPDATE of ours with an offer may go to it (RFC 3311 5.1): offer and answer of the
    /// INVITE have passed reliably, and no PRACK is on its way.
    fn may_take_update(&self) -> bool {
        self.settled.is_some()
            && self.pracks.is_empty()
            && !self.gone
            && self.ended.is_none()
            && self.dialog.is_some()
    }

    fn new(tag: &str, dialog: Option<Dialog>, offer_answer: OfferAnswer) -> Self {
        Self {
            tag: tag.to_owned(),
            dialog,
            offer_answer,
            settled: None,
            rseq: None,
            pracks: Vec::new(),
            ended: None,
            gone: false,
            gate: None,
            shown: None,
        }
    }
}

/// Reads the RSeq of a provisional response that is to be acknowledged (RFC 3262 4); 100 never is.
fn reliable(response: &Response) -> Option<u32> {
    if !(101..200).contains(&response.status) || !response.head.has_token(&Name::Require, "100rel") {
        return None;
    }
    response.head.text(&Name::RSeq)?.trim().parse().ok()
}

impl Call {
    /// Says whether a reliable response is a repetition, or came ahead of one before it: such are
    /// neither acknowledged nor processed (RFC 3262 4).
    pub(super) fn skips(&self, core: &mut Core, response: &Response) -> bool {
        let Phase::Outgoing(outgoing) = &self.phase else { return false };
        let tag = response.head.to.tag.as_deref().unwrap_or_default();
        let last = outgoing.forks.iter().find(|fork| fork.tag == tag).and_then(|fork| fork.rseq);
        let (Some(last), Some(rseq)) = (last, reliable(response)) else { return false };
        if rseq <= last {
            core.io.counters.duplicates += 1;
            return true;
        }
        if rseq - last > 1 {
            core.io.counters.refuse("rseq");
        }
        rseq - last > 1
    }

    pub(super) fn on_provisional(&mut self, core: &mut Core, response: &Response, path: Path) {
        let Phase::Outgoing(outgoing) = &mut self.phase else { return };
        let call = self.id;
        outgoing.switch_at = None;
        if !outgoing.trying {
            outgoing.trying = true;
            core.events.push_back(Event::Trying { call });
        }
        if response.status == 100 {
            return;
        }
        let rseq = reliable(response);
        let index = self.fork_of(core, response, path);
        let Phase::Outgoing(outgoing) = &mut self.phase else { return };
        if rseq.is_some() {
            if index.is_none() || outgoing.pracks >= MAX_PRACKS {
                core.io.counters.refuse("reliable_provisional");
                return;
            }
            outgoing.pracks += 1;
        }
        if response.status == 180 && !outgoing.ringing {
            outgoing.ringing = true;
            core.events.push_back(Event::Ringing { call });
        }
        let Some(index) = index else { return };
        self.learn_methods(&response.head);
        self.gate_early_media(core, index, &response.head);
        let taken = match content(&response.head, &response.body) {
            Content::Sdp(body) => self.take_early_body(core, index, &body, rseq.is_some()),
            _ => Ok(None),
        };
        if let Some(rseq) = rseq {
            let Phase::Outgoing(outgoing) = &mut self.phase else { return };
            if let Some(fork) = outgoing.forks.get_mut(index) {
                fork.rseq = Some(rseq);
            }
            let rack = format!("{rseq} {} INVITE", response.head.cseq);
            let answer = taken.as_ref().ok().cloned().flatten();
            self.send_prack(core, index, Prack { key: None, rack, answer, challenges: 0, repeated: false });
        }
        if let Err(error) = taken {
            // An offer without an answer: there is no way on from here (RFC 3262 5).
            self.send_cancel(core, error.cause());
            self.end(core, error.cause(), Some(response.status), error.to_string(), EndedBy::Local);
            return;
        }
        let Phase::Outgoing(outgoing) = &mut self.phase else { return };
        if response.status == 199
            && let Some(fork) = outgoing.forks.get_mut(index)
        {
            // RFC 6228: this early dialog is over.
            fork.gone = true;
        }
        self.run_modify(core);
    }

    /// RFC 5009 8: the first direction is that of our one stream. `sendonly` is of the far side.
    fn gate_early_media(&mut self, core: &mut Core, index: usize, head: &Head) {
        if !core.trunks.get(self.trunk).is_some_and(|trunk| trunk.config.p_early_media) {
            return;
        }
        let Phase::Outgoing(outgoing) = &mut self.phase else { return };
        let Some(fork) = outgoing.forks.get_mut(index) else { return };
        let values = head.texts_named("P-Early-Media");
        let gate = values.iter().flat_map(|value| value.split(',')).find_map(|parameter| {
            match parameter.trim().to_ascii_lowercase().as_str() {
                "sendrecv" => Some(Direction::SendRecv),
                "sendonly" => Some(Direction::RecvOnly),
                "recvonly" => Some(Direction::SendOnly),
                "inactive" => Some(Direction::Inactive),
                _ => None,
            }
        });
        if gate.is_some() && gate != fork.gate {
            fork.gate = gate;
            if fork.shown.is_some() {
                fork.show(core, (self.id, self.signalling));
            }
        }
    }

    /// Sends what is wanted of an early dialog by UPDATE (RFC 3311 5.1).
    pub(super) fn run_early_modify(&mut self, core: &mut Core) {
        let Phase::Outgoing(outgoing) = &self.phase else { return };
        let Some(index) = outgoing.forks.iter().rposition(Fork::may_take_update) else { return };
        if !self.updates || self.modify.in_fork || !self.modify.may_begin() {
            return;
        }
        self.modify.fork = outgoing.forks.get(index).map(|fork| fork.tag.clone());
        self.challenges = 0;
        self.in_fork(core, index, |call, core| {
            if call.offer_answer.state() == State::Stable
                && let Some(offer) = call.next_offer(core, true)
            {
                call.send_modify(core, Method::Update, Some(offer));
            }
        });
    }

    /// Something happened to a request that changes the session: in the dialog, or in the early one
    /// that it went to.
    pub(super) fn on_any_modify_outcome(&mut self, core: &mut Core, upcall: Upcall) {
        let Phase::Outgoing(outgoing) = &self.phase else { return self.on_modify_outcome(core, upcall) };
        let tag = self.modify.fork.as_deref();
        match outgoing.forks.iter().position(|fork| Some(fork.tag.as_str()) == tag) {
            Some(index) => {
                self.in_fork(core, index, |call, core| call.on_modify_outcome(core, upcall));
                self.run_modify(core);
            }
            None => self.drop_modify(core),
        }
    }

    /// Lets an early dialog and its session stand in for those of the call.
    fn in_fork(&mut self, core: &mut Core, index: usize, what: impl FnOnce(&mut Self, &mut Core)) {
        self.swap_fork(index);
        self.modify.in_fork = true;
        what(self, core);
        self.modify.in_fork = false;
        self.swap_fork(index);
        let (call, tell) = ((self.id, self.signalling), std::mem::take(&mut self.modify.tell));
        if let Phase::Outgoing(outgoing) = &mut self.phase
            && let Some(fork) = outgoing.forks.get_mut(index)
        {
            fork.shown.take_if(|_| tell);
            fork.show(core, call);
        }
    }

    fn swap_fork(&mut self, index: usize) {
        let Phase::Outgoing(outgoing) = &mut self.phase else { return };
        if let Some(fork) = outgoing.forks.get_mut(index)
            && let Some(dialog) = &mut fork.dialog
        {
            std::mem::swap(&mut self.dialog, dialog);
            std::mem::swap(&mut self.offer_answer, &mut fork.offer_answer);
        }
    }

    /// The 2xx of an early dialog came: what was changed in another counts no more.
    pub(super) fn leave_early_modify(&mut self, core: &mut Core, tag: &str) {
        if let Some(key) = self.modify.leave_early(tag) {
            core.clients.orphan(&mut core.io, key);
        }
    }

    /// Finds the early dialog of a response, or makes it.
    fn fork_of(&mut self, core: &mut Core, response: &Response, path: Path) -> Option<usize> {
        let Phase::Outgoing(outgoing) = &mut self.phase else { return None };
        // RFC 2543 peers send no tag: taken as empty (RFC 3261 12.1.2).
        let tag = response.head.to.tag.as_deref().unwrap_or_default();
        let known = outgoing.forks.iter().position(|fork| fork.tag == tag);
        if known.is_none() {
            if outgoing.forks.len() >= MAX_FORKS {
                let Some(gone) = outgoing.forks.iter().position(|fork| fork.gone) else {
                    core.io.counters.refuse("forks");
                    return None;
                };
                outgoing.forks.remove(gone);
            }
            let mut offer_answer = self.offer_answer.clone();
            let keys = |trunk: &Trunk| trunk.config.srtp.has_signalled_keys();
            if outgoing.delayed && core.trunks.get(self.trunk).is_some_and(keys) {
                // RFC 4568 7.3: each answerer of its own key.
                offer_answer = offer_answer.with_seed(core.io.random.key());
            }
            outgoing.forks.push(Fork::new(tag, None, offer_answer));
        }
        let index = known.unwrap_or(outgoing.forks.len() - 1);
        let fork = outgoing.forks.get_mut(index)?;
        if fork.dialog.is_none() {
            let mut dialog = Dialog::of_response(response, self.trunk, path);
            dialog.cseq = self.dialog.cseq;
            fork.dialog = Some(dialog);
        }
        Some(index)
    }

    /// Takes the description in a provisional response. Returns what the PRACK must carry.
    ///
    /// # Errors
    /// An offer that cannot be answered.
    fn take_early_body(
        &mut self,
        core: &mut Core,
        index: usize,
        body: &Bytes,
        reliable: bool,
    ) -> Result<Option<Bytes>, NegotiationError> {
        let (call, local) = ((self.id, self.signalling), self.local);
        let direction = self.wanted_direction(core);
        let Phase::Outgoing(outgoing) = &mut self.phase else { return Ok(None) };
        let Some(fork) = outgoing.forks.get_mut(index).filter(|fork| !fork.gone) else { return Ok(None) };
        if let Some(first) = &fork.settled {
            // RFC 3261 13.2.1: the first one is the answer, later ones are ignored.
            if first != body {
                core.io.counters.refuse("second_answer");
            }
            return Ok(None);
        }
        if outgoing.delayed {
            // RFC 3261 13.2.1: an offer is one only in a reliable response.
            if !reliable {
                return Ok(None);
            }
            let local = local.ok_or(NegotiationError::WrongState)?;
            let answer = take_offer(core, self.trunk, &mut fork.offer_answer, local, direction, body)?;
            fork.settled = Some(body.clone());
            fork.show(core, call);
            return Ok(Some(Bytes::from(answer.body)));
        }
        let Some(at) = core.trunks.get(self.trunk) else { return Ok(None) };
        // RFC 3261 13.2.1: to the letter, the first description is the answer, reliable or not. A
        // reliable response ends the exchange even so.
        if at.config.answer_change == AnswerChange::Ignore && fork.offer_answer.media().is_some() {
            fork.settled = reliable.then(|| body.clone());
            return Ok(None);
        }
        // In an unreliable response the answer is only previewed: what cannot be used is left to
        // the 2xx. So it is in a reliable one, as the call is the far side's to end.
        match fork.offer_answer.accept_answer(body, &at.policy) {
            Ok(negotiated) => {
                if reliable {
                    fork.settled = Some(body.clone());
                }
                for repair in negotiated.repairs.iter() {
                    core.io.counters.repair(repair.as_str());
                }
                fork.show(core, call);
            }
            Err(_) => core.io.counters.refuse("early_answer"),
        }
        Ok(None)
    }

    /// Sends a PRACK in an early dialog (RFC 3262 4): by its Contact, route set and To tag, and by the
    /// transport of the INVITE unless they name another. It may carry an answer, and never an offer,
    /// though RFC 3262 5 allows one: UPDATE does the same, and no response has to wait for it.
    fn send_prack(&mut self, core: &mut Core, index: usize, mut prack: Prack) {
        let udp_only = self.dialog.udp_only;
        let Phase::Outgoing(outgoing) = &mut self.phase else { return };
        let Some(dialog) = outgoing.forks.get_mut(index).and_then(|fork| fork.dialog.as_mut()) else {
            return;
        };
        dialog.udp_only = udp_only;
        dialog.cseq += 1;
        let dialog = dialog.clone();
        let mut lines = vec![("RAck", prack.rack.clone())];
        let sdp = prack.answer.clone();
        lines.extend(self.credentials_in(core, &dialog, Method::Prack, sdp.as_deref().unwrap_or_default()));
        self.note(core, false, label("PRACK", sdp.is_some()));
        let extra = Extra { lines, sdp: sdp.as_deref(), ..Extra::default() };
        let path = dialog.path(&core.io);
        prack.key = Some(core.request(&dialog, Method::Prack, path, Owner::Call(self.key), &extra));
        let Phase::Outgoing(outgoing) = &mut self.phase else { return };
        if let Some(fork) = outgoing.forks.get_mut(index)
            && fork.pracks.len() < MAX_PENDING
        {
            fork.pracks.push(prack);
        }
    }

    /// A PRACK was answered, or not. A challenge is met (RFC 3261 22), a lost connection replaced;
    /// anything else is left to the far side, which has the INVITE to refuse.
    pub(super) fn on_prack_outcome(&mut self, core: &mut Core, upcall: &Upcall) {
        let Phase::Outgoing(outgoing) = &mut self.phase else { return };
        if matches!(&upcall.outcome, Outcome::Response(response, _) if response.status < 200) {
            return;
        }
        let found = outgoing.forks.iter().enumerate().find_map(|(index, fork)| {
            let at = fork.pracks.iter().position(|prack| prack.key == Some(upcall.key))?;
            Some((index, at))
        });
        let Some((index, at)) = found else { return };
        let Some(fork) = outgoing.forks.get_mut(index) else { return };
        let mut prack = fork.pracks.remove(at);
        match &upcall.outcome {
            Outcome::Response(response, source)
                if matches!(response.status, 401 | 407)
                    && self.answer_challenge(core, response, *source, prack.challenges) =>
            {
                prack.challenges += 1;
                self.send_prack(core, index, prack);
            }
            Outcome::TransportError if !prack.repeated => {
                prack.repeated = true;
                self.leave_tcp(core, &upcall.path);
                self.send_prack(core, index, prack);
            }
            _ => self.run_modify(core),
        }
    }

    /// Says whether a request of the far side is one that an early dialog may see.
    pub(super) fn owns_early(&self, request: &Request) -> bool {
        let Phase::Outgoing(outgoing) = &self.phase else { return false };
        let tag = request.head.from.tag.as_deref().unwrap_or_default();
        match request.method {
            Method::Bye => true,
            Method::Update => outgoing
                .forks
                .iter()
                .any(|f| f.tag == tag && f.dialog.is_some() && !f.gone && f.ended.is_none()),
            _ => false,
        }
    }

    /// UPDATE in an early dialog of a call we placed (RFC 3311 5.2).
    pub(super) fn on_early_update(&mut self, core: &mut Core, request: &Request, server: u64) {
        let (call, local) = ((self.id, self.signalling), self.local);
        let direction = self.wanted_direction(core);
        let Phase::Outgoing(outgoing) = &mut self.phase else { return };
        let delayed = outgoing.delayed;
        let tag = request.head.from.tag.as_deref().unwrap_or_default();
        let Some(fork) = outgoing.forks.iter_mut().find(|fork| fork.tag == tag) else { return };
        let Some(dialog) = &mut fork.dialog else { return };
        // RFC 3261 12.2.2: what is out of order is refused.
        if dialog.remote_cseq.is_some_and(|last| request.head.cseq <= last) {
            return self.reply(core, server, 500, vec![("Retry-After", "1".to_owned())]);
        }
        dialog.remote_cseq = Some(request.head.cseq);
        let answer = match content(&request.head, &request.body) {
            Content::None => Ok(None),
            Content::Other => Err(unsupported_media()),
            Content::Sdp(_) if fork.settled.is_none() => {
                // The exchange of the INVITE is open: our offer 491, theirs 500.
                return if delayed {
                    self.reply_later(core, server)
                } else {
                    self.reply(core, server, 491, Vec::new())
                };
            }
            // RFC 3311 5.2: an UPDATE of ours with an offer is open.
            Content::Sdp(_) if fork.offer_answer.state() == State::LocalOffer => {
                return self.reply(core, server, 491, Vec::new());
            }
            Content::Sdp(body) => {
                let local = local.ok_or(NegotiationError::WrongState);
                let offer_answer = &mut fork.offer_answer;
                local
                    .and_then(|local| take_offer(core, self.trunk, offer_answer, local, direction, &body))
                    .map(Some)
                    .map_err(|e| explain(&e))
            }
        };
        match answer {
            Ok(answer) => {
                dialog.refresh_target(&request.head);
                let sdp = answer.as_ref().map(|answer| Bytes::copy_from_slice(&answer.body));
                fork.show(core, call);
                self.note_connected(core, &request.head);
                self.respond(core, server, 200, &Extra { sdp: sdp.as_deref(), ..Extra::default() });
            }
            Err((status, lines)) => self.reply(core, server, status, lines),
        }
    }

    /// A BYE that overtook the 2xx of its dialog, which ends the call when it comes.
    pub(super) fn on_early_bye(&mut self, core: &mut Core, request: &Request, server: u64) {
        self.reply(core, server, 200, Vec::new());
        let Phase::Outgoing(outgoing) = &mut self.phase else { return };
        let tag = request.head.from.tag.as_deref().unwrap_or_default();
        let reasons = request.head.reasons();
        let ended = Some(cause_of_release(reasons.iter().map(String::as_str)));
        if let Some(fork) = outgoing.forks.iter_mut().find(|fork| fork.tag == tag) {
            fork.ended = ended;
        } else if outgoing.forks.len() < MAX_FORKS {
            let offer_answer = self.offer_answer.clone();
            outgoing.forks.push(Fork { ended, ..Fork::new(tag, None, offer_answer) });
        }
    }
}
