//! Calls we place (RFC 3261 13.2).

use std::time::Instant;

use bytes::Bytes;
use call_model::{Address, CallId, Caller, Cause, Direction};

use super::call::{Call, Phase, acknowledge, label, refuse_fork};
use super::session_timer::SessionTimer;
use super::{Dialog, without_port};
use crate::cause::{cause_of_release, cause_of_response, reason_value};
use crate::endpoint::api::{CommandError, EndedBy, Event, LocalMedia};
use crate::endpoint::core::{Core, Extra};
use crate::endpoint::io::hex;
use crate::sdp::OfferAnswer;
use crate::transaction::client::{ClientKey, Outcome, Owner, Upcall};
use crate::trunk::details::CallDetails;
use crate::trunk::identity::{IdentityStyle, write_caller};
use crate::trunk::parameters::with_parameters;
use crate::trunk::{AnswerChange, GroupForm, Trunk};
use crate::wire::message::{Content, Method, Request, Response, content};

/// What only a call that was not answered yet needs.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(super) key: Option<ClientKey>,
    pub(super) deadline: Instant,
    lines: Vec<(&'static str, String)>,
    forks: Vec<Fork>,
    trying: bool,
    ringing: bool,
}

/// An early dialog: one per To tag (RFC 3261 12.1, 13.2.2.4).
#[derive(Debug)]
struct Fork {
    tag: String,
    offer_answer: OfferAnswer,
    /// Its BYE overtook its 2xx.
    ended: Option<Cause>,
}

/// The most early dialogs of one INVITE; more are not tracked.
const MAX_FORKS: usize = 8;

/// Sends the INVITE of a new call.
pub(crate) fn place(
    core: &mut Core,
    id: CallId,
    trunk: usize,
    (called, caller): (&Address, &Caller),
    media: LocalMedia,
    details: CallDetails,
) -> Result<Call, CommandError> {
    let at = core.trunks.get(trunk).ok_or(CommandError::UnknownTrunk)?;
    let config = &at.config;
    // RFC 5626 4.3: by the flow that is registered, the route the registrar gave (RFC 3608 5) ahead.
    let to_target = || core.io.path(config.transport, config.target, config.local);
    let path = at.flow().or_else(to_target).ok_or(CommandError::Unusable)?;
    let routes = at.registrar.as_ref().map(|r| r.routes().to_vec()).unwrap_or_default();
    let deadline = core.io.now + config.ring_timeout;
    let own_host = at.own_host(&path);
    let preferred = preferred_identity(at, caller);
    let (header, trusted, privacy) = (config.identity, config.trusted, config.privacy);
    let style = IdentityStyle { header, trusted, privacy, wish: details.privacy };
    let mut caller = write_caller(caller, &config.numbers, &own_host, style);
    let said =
        |name: &str| ["P-Asserted-Identity", "P-Preferred-Identity", "Remote-Party-ID"].contains(&name);
    if !caller.headers.iter().any(|(name, _)| said(name)) {
        caller.headers.extend(preferred);
    }
    // The bracket that ends the URI is the last: a display name may hold one too.
    if let Some((group, GroupForm::Otg)) = &config.trunk_group
        && let Some(open) = caller.from.strip_suffix('>')
    {
        caller.from = format!("{open};otg={}>", group.label);
    }
    let parameters = details.parameters.write(config.portability);
    let target = with_parameters(&config.numbers.uri_of(called, &config.host), &parameters);
    let (key, session) = (core.io.random.number(), core.io.random.number());
    let to = config.numbers.uri_of(called, without_port(&config.host));
    caller.headers.extend(details.lines(config, &target, &own_host, || core.io.random.hex()));
    let dialog = Dialog {
        trunk,
        established: false,
        udp_only: false,
        call_id: core.io.random.hex(),
        local: format!("{};tag={}", caller.from, hex(key)),
        remote: format!("<{to}>"),
        remote_tag: String::new(),
        cseq: 0,
        remote_cseq: None,
        target,
        routes,
        fallback: path,
    };
    let outgoing = Outgoing {
        key: None,
        deadline,
        lines: caller.headers,
        forks: Vec::new(),
        trying: false,
        ringing: false,
    };
    let mut call = Call::new(key, id, trunk, Phase::Outgoing(Box::new(outgoing)), dialog, session);
    call.local = Some(media.rtp);
    *call.details = details;
    call.modify.owns_call_id = true;
    call.offer_answer
        .make_offer(media.rtp, &at.policy, Direction::SendRecv)
        .map_err(|_| CommandError::Unusable)?;
    call.send_invite(core);
    call.arm(core);
    Ok(call)
}

/// Returns the identity of the account that fits the caller, or its default one, for the registrar's
/// network to assert (RFC 3325 9.2, RFC 7315 4.1). It never stands beside one we assert.
fn preferred_identity(trunk: &Trunk, caller: &Caller) -> Option<(&'static str, String)> {
    let associated = trunk.registrar.as_ref()?.associated();
    let address = caller.address.as_ref().filter(|_| !caller.private)?;
    let fits = |uri: &&String| trunk.config.numbers.address_of_uri(uri).as_ref() == Some(address);
    let uri = associated.iter().find(fits).or_else(|| associated.first())?;
    Some(("P-Preferred-Identity", format!("<{uri}>")))
}

impl Call {
    /// Sends the INVITE: first, with credentials, or by another transport; each time with a new
    /// branch and the next CSeq.
    fn send_invite(&mut self, core: &mut Core) {
        self.dialog.cseq += 1;
        let sdp = Bytes::copy_from_slice(self.offer_answer.local_body().unwrap_or_default());
        let mut lines = self.credentials(core, Method::Invite, &sdp);
        let Phase::Outgoing(outgoing) = &mut self.phase else { return };
        lines.extend(outgoing.lines.iter().cloned());
        let extra = Extra { lines, sdp: Some(&sdp), ..Extra::default() };
        let path = self.dialog.fallback;
        let key = core.request(&self.dialog, Method::Invite, path, Owner::Call(self.key), &extra);
        outgoing.key = Some(key);
        self.note(core, false, label("INVITE", true));
    }

    pub(super) fn on_invite_outcome(&mut self, core: &mut Core, upcall: Upcall) {
        match &upcall.outcome {
            Outcome::Response(response, source) => match response.status {
                ..200 => self.on_provisional(core, response),
                200..300 => self.on_success(core, response, &upcall),
                401 | 407 if self.take_challenge(core, response, *source) => self.send_invite(core),
                status => {
                    let reasons = response.head.reasons();
                    let cause = cause_of_response(status, reasons.iter().map(String::as_str));
                    self.end(core, cause, Some(status), response.reason.clone(), EndedBy::Far);
                    self.finished = true;
                }
            },
            Outcome::Timeout => {
                let cause = Cause::RECOVERY_ON_TIMER_EXPIRY;
                self.end(core, cause, None, "no answer to INVITE".to_owned(), EndedBy::Timeout);
                self.finished = true;
            }
            Outcome::TransportError => self.on_transport_error(core, &upcall),
        }
    }

    /// RFC 3261 18.1.1: a large request that TCP did not deliver is tried on UDP. After a
    /// provisional response no transport error comes, so nobody is rung twice.
    fn on_transport_error(&mut self, core: &mut Core, upcall: &Upcall) {
        if self.leave_tcp(core, &upcall.path) {
            self.send_invite(core);
            return;
        }
        let cause = Cause::NETWORK_OUT_OF_ORDER;
        self.end(core, cause, None, "transport error".to_owned(), EndedBy::Transport);
        self.finished = true;
    }

    fn on_provisional(&mut self, core: &mut Core, response: &Response) {
        let Phase::Outgoing(outgoing) = &mut self.phase else { return };
        let call = self.id;
        if !outgoing.trying {
            outgoing.trying = true;
            core.events.push_back(Event::Trying { call });
        }
        if response.status == 100 {
            return;
        }
        // RFC 2543 peers send no tag: taken as empty (RFC 3261 12.1.2).
        let tag = response.head.to.tag.as_deref().unwrap_or_default();
        if response.status == 199 {
            // RFC 6228: this early dialog is over.
            outgoing.forks.retain(|fork| fork.tag != tag || fork.ended.is_some());
            return;
        }
        if !outgoing.forks.iter().any(|fork| fork.tag == tag) && outgoing.forks.len() < MAX_FORKS {
            let offer_answer = self.offer_answer.clone();
            outgoing.forks.push(Fork { tag: tag.to_owned(), offer_answer, ended: None });
        }
        if response.status == 180 && !outgoing.ringing {
            outgoing.ringing = true;
            core.events.push_back(Event::Ringing { call });
        }
        let Content::Sdp(body) = content(&response.head, &response.body) else { return };
        let Some(at) = core.trunks.get(self.trunk) else { return };
        let Some(fork) = outgoing.forks.iter_mut().find(|fork| fork.tag == tag) else { return };
        // RFC 3261 13.2.1: to the letter, the first description is the answer.
        if at.config.answer_change == AnswerChange::Ignore && fork.offer_answer.media().is_some() {
            return;
        }
        // An unreliable 18x only previews the answer: what cannot be used is left to the 2xx.
        if let Ok(negotiated) = fork.offer_answer.accept_answer(&body, &at.policy) {
            if negotiated.changed {
                let media = negotiated.media;
                core.events.push_back(Event::Media { call, media, early: true });
            }
            for repair in negotiated.repairs.iter() {
                core.io.counters.repair(repair.as_str());
            }
        } else {
            core.io.counters.refuse("early_answer");
        }
    }

    fn on_success(&mut self, core: &mut Core, response: &Response, upcall: &Upcall) {
        let Phase::Outgoing(outgoing) = &mut self.phase else { return refuse_fork(core, upcall) };
        let tag = response.head.to.tag.as_deref().unwrap_or_default();
        let forks = std::mem::take(&mut outgoing.forks);
        let (cseq, udp_only) = (self.dialog.cseq, self.dialog.udp_only);
        self.phase = Phase::Confirmed;
        self.dialog = Dialog::of_response(response, self.trunk, upcall.path);
        (self.dialog.cseq, self.dialog.udp_only) = (cseq, udp_only);
        acknowledge(core, upcall.key, &self.dialog);
        self.note(core, false, "ACK".to_owned());
        self.challenges = 0;
        if let Some(cause) = forks.iter().find(|fork| fork.tag == tag).and_then(|fork| fork.ended) {
            self.end(core, cause, None, "BYE".to_owned(), EndedBy::Far);
            self.finished = true;
            return;
        }

        // The state of this very fork; failing that, a peer that changed its tag in between, and
        // says nothing new, means the last preview it sent.
        let body = match content(&response.head, &response.body) {
            Content::Sdp(body) => Some(body),
            _ => None,
        };
        let own = forks.iter().rposition(|fork| fork.tag == tag);
        // RFC 3261 13.2.1: once there was an answer, later descriptions "MUST" be ignored. Most
        // trunks mean the last one all the same.
        let strict =
            core.trunks.get(self.trunk).is_some_and(|t| t.config.answer_change == AnswerChange::Ignore);
        let answered = own.and_then(|i| forks.get(i)).is_some_and(|f| f.offer_answer.media().is_some());
        let ignored = strict && answered && body.is_some();
        let body = body.filter(|_| !ignored);
        let preview = || forks.iter().rposition(|fork| fork.offer_answer.media().is_some());
        let chosen = if body.is_some() {
            own
        } else {
            own.filter(|&i| forks.get(i).is_some_and(|f| f.offer_answer.media().is_some())).or_else(preview)
        };
        if let Some(fork) = chosen.and_then(|index| forks.into_iter().nth(index)) {
            self.offer_answer = fork.offer_answer;
        }
        let Some(at) = core.trunks.get(self.trunk) else { return };
        let outcome = match &body {
            Some(body) => self.offer_answer.accept_answer(body, &at.policy).map_err(|e| e.cause()),
            None => {
                match self.offer_answer.media() {
                    Some(media) => {
                        // C3: the answer was only previewed, against RFC 3261 13.2.1. It counts.
                        if !ignored {
                            core.io.counters.repair("answer_in_provisional");
                        }
                        let (media, repairs) = (media.clone(), crate::wire::tolerance::Repairs::default());
                        Ok(crate::sdp::Negotiated { media, changed: false, repairs })
                    }
                    None => Err(Cause::INTERWORKING),
                }
            }
        };
        match outcome {
            Ok(negotiated) => {
                for repair in negotiated.repairs.iter() {
                    core.io.counters.repair(repair.as_str());
                }
                let (call, media) = (self.id, negotiated.media);
                core.events.push_back(Event::Media { call, media, early: false });
                self.note_connected(core, &response.head);
                core.events.push_back(Event::Answered { call });
                self.session = SessionTimer::of_response(&response.head, core.io.now);
                self.run_modify(core);
            }
            Err(cause) => {
                self.hang_up(core, cause);
                let text = "no usable answer in the 2xx".to_owned();
                self.end(core, cause, Some(response.status), text, EndedBy::Local);
            }
        }
    }

    /// Nobody answered for as long as the trunk lets it ring.
    pub(super) fn on_ring_timeout(&mut self, core: &mut Core) {
        let cause = Cause::NO_ANSWER_FROM_USER;
        self.send_cancel(core, cause);
        self.end(core, cause, None, "no answer in time".to_owned(), EndedBy::Timeout);
    }

    /// Gives the INVITE up: CANCEL, once there was a provisional response.
    pub(super) fn send_cancel(&mut self, core: &mut Core, cause: Cause) {
        let Phase::Outgoing(outgoing) = &self.phase else { return };
        let reason = Some(reason_value(cause));
        if outgoing.key.is_some_and(|key| core.clients.cancel(&mut core.io, key, reason)) {
            self.note(core, false, "CANCEL".to_owned());
        }
        self.finished = true;
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
            outgoing.forks.push(Fork { tag: tag.to_owned(), offer_answer, ended });
        }
    }
}
