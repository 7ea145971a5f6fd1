//! Calls we place (RFC 3261 13.2).

use std::time::Instant;

use bytes::Bytes;
use call_model::{Address, CallId, Caller, Cause, Direction};

use super::call::{Call, Phase, acknowledge, label, refuse_fork};
use super::early::Fork;
use super::in_dialog::take_offer;
use super::redirect::Redirection;
use super::session_timer::SessionTimer;
use super::{Dialog, without_port};
use crate::cause::{cause_of_response, reason_value};
use crate::endpoint::api::{CommandError, EndedBy, Event, LocalMedia};
use crate::endpoint::core::{Core, Extra};
use crate::endpoint::io::hex;
use crate::referral::plain_uri;
use crate::sdp::{Answer, Negotiated, NegotiationError};
use crate::transaction::client::{ClientKey, Outcome, Owner, Upcall};
use crate::trunk::details::CallDetails;
use crate::trunk::identity::{IdentityStyle, write_caller};
use crate::trunk::parameters::with_parameters;
use crate::trunk::{AnswerChange, GroupForm, Reliable, Trunk};
use crate::wire::message::{Content, Method, Response, content};
use crate::wire::tolerance::Repairs;

/// What only a call that was not answered yet needs.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(super) key: Option<ClientKey>,
    pub(super) deadline: Instant,
    pub(super) lines: Vec<(&'static str, String)>,
    /// Of a trunk that may redirect.
    pub(super) redirection: Option<Box<Redirection>>,
    /// The early dialogs: one per To tag (RFC 3261 12.1, 13.2.2.4).
    pub(super) forks: Vec<Fork>,
    pub(super) trying: bool,
    pub(super) ringing: bool,
    /// The INVITE carries no offer.
    pub(super) delayed: bool,
    /// How many reliable responses were acknowledged.
    pub(super) pracks: u8,
}

impl Outgoing {
    /// Says whether one of the early dialogs has a tag.
    pub(crate) fn has_fork(&self, tag: &str) -> bool {
        let lives = |fork: &Fork| fork.dialog.is_some() && !fork.gone && fork.ended.is_none();
        self.forks.iter().any(|fork| fork.tag == tag && lives(fork))
    }
}

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
    let referral = details.referral.as_ref();
    // Without Replaces the call would be another one: it would ring.
    if referral.is_some_and(|r| r.replaces.is_some()) && !config.replacing.sends() {
        return Err(CommandError::Unusable);
    }
    let sip = |uri: &&String| uri.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("sip:"));
    let named = referral.and_then(|r| r.uri.as_ref()).filter(sip).and_then(|uri| plain_uri(uri));
    let uri = |host: &str| match &details.emergency {
        Some(dialled) => format!("sip:{dialled}@{host}"),
        None => config.numbers.uri_of(called, host),
    };
    let by_number = || with_parameters(&uri(&config.host), &parameters);
    let target = named.clone().unwrap_or_else(by_number);
    let (key, session) = (core.io.random.number(), core.io.random.number());
    let to = named.unwrap_or_else(|| uri(without_port(&config.host)));
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
    let mut lines = caller.headers;
    if config.reliable_provisional == Reliable::Required {
        lines.push(("Require", "100rel".to_owned()));
    }
    let delayed = config.delayed_offer;
    let redirection = Redirection::new(at, called, &dialog.target);
    let outgoing = Outgoing {
        key: None,
        deadline,
        lines,
        redirection,
        forks: Vec::new(),
        trying: false,
        ringing: false,
        delayed,
        pracks: 0,
    };
    let mut call = Call::new(key, id, trunk, Phase::Outgoing(Box::new(outgoing)), dialog, session);
    call.local = Some(media.rtp);
    *call.details = details;
    call.modify.owns_call_id = true;
    if !delayed {
        call.offer_answer
            .make_offer(media.rtp, &at.policy, Direction::SendRecv)
            .map_err(|_| CommandError::Unusable)?;
    }
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
    pub(super) fn send_invite(&mut self, core: &mut Core) {
        self.dialog.cseq += 1;
        let sdp = self.offer_answer.local_body().map(Bytes::copy_from_slice);
        let mut lines = self.credentials(core, Method::Invite, sdp.as_deref().unwrap_or_default());
        let Phase::Outgoing(outgoing) = &mut self.phase else { return };
        lines.extend(outgoing.lines.iter().cloned());
        // What the INVITE before this one began is over with its final response.
        outgoing.forks.clear();
        let hops = self.details.max_forwards.map(|hops| hops.saturating_sub(1));
        let extra = Extra { lines, sdp: sdp.as_deref(), hops, ..Extra::default() };
        let path = self.dialog.fallback;
        let key = core.request(&self.dialog, Method::Invite, path, Owner::Call(self.key), &extra);
        outgoing.key = Some(key);
        self.note(core, false, label("INVITE", sdp.is_some()));
    }

    pub(super) fn on_invite_outcome(&mut self, core: &mut Core, upcall: Upcall) {
        match &upcall.outcome {
            Outcome::Response(response, source) => match response.status {
                ..200 => self.on_provisional(core, response, upcall.path),
                200..300 => self.on_success(core, response, &upcall),
                401 | 407 if self.take_challenge(core, response, *source) => self.send_invite(core),
                _ if self.redirected(core, response) => {}
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

    fn on_success(&mut self, core: &mut Core, response: &Response, upcall: &Upcall) {
        let Phase::Outgoing(outgoing) = &mut self.phase else { return refuse_fork(core, upcall) };
        let tag = response.head.to.tag.as_deref().unwrap_or_default();
        let (mut forks, delayed) = (std::mem::take(&mut outgoing.forks), outgoing.delayed);
        forks.retain(|fork| !fork.gone || fork.ended.is_some());
        let (cseq, udp_only) = (self.dialog.cseq, self.dialog.udp_only);
        self.phase = Phase::Confirmed;
        self.dialog = Dialog::of_response(response, self.trunk, upcall.path);
        (self.dialog.cseq, self.dialog.udp_only) = (cseq, udp_only);
        self.challenges = 0;
        self.learn_methods(&response.head);
        let own = forks.iter().rposition(|fork| fork.tag == tag);
        let ended = own.and_then(|index| forks.get(index)).and_then(|fork| fork.ended);
        let (answer, outcome) = self.conclude(core, response, forks, own, delayed);
        // RFC 3261 13.2.2.4: the CSeq of the INVITE, whatever was sent in the early dialog.
        acknowledge(core, upcall.key, &Dialog { cseq, ..self.dialog.clone() }, answer.as_deref());
        self.note(core, false, label("ACK", answer.is_some()));
        if let Some(cause) = ended {
            self.end(core, cause, None, "BYE".to_owned(), EndedBy::Far);
            self.finished = true;
            return;
        }
        match outcome {
            Ok(negotiated) => {
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

    /// Ends the offer/answer exchange of the INVITE with its 2xx. Returns the answer that the ACK
    /// carries, if the offer was the far side's.
    fn conclude(
        &mut self,
        core: &mut Core,
        response: &Response,
        mut forks: Vec<Fork>,
        own: Option<usize>,
        delayed: bool,
    ) -> (Option<Bytes>, Result<Negotiated, Cause>) {
        let body = match content(&response.head, &response.body) {
            Content::Sdp(body) => Some(body),
            _ => None,
        };
        // The early dialog goes on: its CSeqs have counted.
        if let Some(early) = own.and_then(|index| forks.get(index)).and_then(|fork| fork.dialog.as_ref()) {
            self.dialog.cseq = self.dialog.cseq.max(early.cseq);
            self.dialog.remote_cseq = early.remote_cseq;
        }
        // The state of this very fork; failing that, a peer that changed its tag in between, and
        // says nothing new, means the last preview it sent.
        let agreed = |fork: &Fork| fork.offer_answer.media().is_some();
        let chosen = match (&body, own) {
            (None, Some(index)) if forks.get(index).is_some_and(agreed) => own,
            (None, _) if !delayed => forks.iter().rposition(agreed),
            _ => own,
        };
        let mut settled = None;
        if let Some(index) = chosen.filter(|&index| index < forks.len()) {
            let fork = forks.swap_remove(index);
            self.offer_answer = fork.offer_answer;
            settled = fork.settled;
        }
        let kept = self.offer_answer.media().cloned();
        let kept = kept.map(|media| Negotiated { media, changed: false, repairs: Repairs::default() });
        let Some(at) = core.trunks.get(self.trunk) else { return (None, Err(Cause::INTERWORKING)) };
        match (settled, body) {
            // RFC 3261 13.2.1: a reliable response had the answer already; what comes later is to be
            // ignored.
            (Some(first), body) => {
                if body.is_some_and(|body| body != first) {
                    core.io.counters.refuse("second_answer");
                }
                (None, kept.ok_or(Cause::INTERWORKING))
            }
            (None, Some(offer)) if delayed => {
                let (local, direction) = (self.local, self.wanted_direction(core));
                let local = local.ok_or(NegotiationError::WrongState);
                let offer_answer = &mut self.offer_answer;
                match local.and_then(|l| take_offer(core, self.trunk, offer_answer, l, direction, &offer)) {
                    Ok(Answer { body, media, changed, repairs }) => {
                        (Some(Bytes::from(body)), Ok(Negotiated { media, changed, repairs }))
                    }
                    Err(error) => (None, Err(error.cause())),
                }
            }
            // RFC 3261 13.2.1: once there was an answer, later descriptions "MUST" be ignored. Most
            // trunks mean the last one all the same.
            (None, Some(_)) if at.config.answer_change == AnswerChange::Ignore && kept.is_some() => {
                (None, kept.ok_or(Cause::INTERWORKING))
            }
            (None, Some(answer)) => {
                let outcome = self.offer_answer.accept_answer(&answer, &at.policy);
                if let Ok(negotiated) = &outcome {
                    for repair in negotiated.repairs.iter() {
                        core.io.counters.repair(repair.as_str());
                    }
                }
                (None, outcome.map_err(|error| error.cause()))
            }
            (None, None) => {
                if kept.is_some() {
                    // C3: the answer was only previewed, against RFC 3261 13.2.1. It counts.
                    core.io.counters.repair("answer_in_provisional");
                }
                (None, kept.ok_or(Cause::INTERWORKING))
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
}
