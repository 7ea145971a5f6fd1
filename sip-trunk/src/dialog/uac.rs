//! Calls we place (RFC 3261 13.2).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use call_model::{Address, CallId, Caller, Cause, Direction};

use super::call::{Call, Phase, acknowledge, label, refuse_fork};
use super::early::Fork;
pub(crate) use super::failover::{has_emergency_priority, is_urgent};
use super::in_dialog::take_offer;
use super::redirect::Redirection;
use super::session_timer::{SessionTimer, min_se};
use super::{Dialog, without_port};
use crate::cause::{cause_of_response, reason_value};
use crate::endpoint::api::{CommandError, EndedBy, Event, LocalMedia, Transport};
use crate::endpoint::core::{Core, Extra};
use crate::endpoint::io::hex;
use crate::referral::plain_uri;
use crate::registrar::{Reach, contacts, escaped_user};
use crate::sdp::{Answer, Negotiated, NegotiationError};
use crate::sdp::{OfferAnswer, Srtp};
use crate::transaction::client::{ClientKey, Outcome, Owner, Upcall};
use crate::trunk::details::CallDetails;
use crate::trunk::emergency::{EmergencyForm, Enclosure};
use crate::trunk::identity::{IdentityStyle, write_caller};
use crate::trunk::parameters::with_parameters;
use crate::trunk::{AnswerChange, GroupForm, Reliable, Trunk};
use crate::wire::message::{Content, Method, Response, addr_uri, content};
use crate::wire::tolerance::Repairs;

/// What only a call that was not answered yet needs.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(super) key: Option<ClientKey>,
    pub(super) deadline: Instant,
    pub(super) lines: Vec<(&'static str, String)>,
    /// The targets not tried yet.
    pub(super) targets: VecDeque<(Transport, SocketAddr)>,
    /// When the next is tried, if this one has said nothing until then.
    pub(super) switch_at: Option<Instant>,
    /// How long targets are looked for.
    pub(super) search_until: Instant,
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
    /// The session interval asked for, in seconds.
    session_expires: Option<u32>,
    /// How often a larger one was demanded.
    enlarged: u8,
    /// The contacts of an account that were not tried yet.
    others: VecDeque<Reach>,
    /// Where the caller is, in an emergency.
    enclosure: Option<Enclosure>,
}

/// How often an INVITE is sent again with a larger session interval.
const MAX_ENLARGED: u8 = 4;

/// Answers that say no more than that a contact was not reached: another may be tried (RFC 5626 5.3 has
/// 430).
const NOT_REACHED: [u16; 6] = [404, 408, 410, 430, 480, 503];

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
    details: Arc<CallDetails>,
) -> Result<Call, CommandError> {
    let at = core.trunks.get(trunk).ok_or(CommandError::UnknownTrunk)?;
    let config = &at.config;
    // RFC 5626 4.3: by the flow that is registered, the route the registrar gave (RFC 3608 5) ahead.
    let called_user = details.called_user.as_deref().map(escaped_user);
    let in_user = |uri: String| match (&called_user, uri.split_once('@')) {
        (Some(user), Some((_, host))) => {
            format!("sip:{user}@{}", host.split(';').next().unwrap_or(host))
        }
        _ => uri,
    };
    let uri = |host: &str| match &details.emergency {
        Some(emergency) => format!("sip:{}@{host}", emergency.dialled),
        None => in_user(config.numbers.uri_of(called, host)),
    };
    let plain = uri(&config.host);
    let mut others = VecDeque::new();
    let mut reach = None;
    if at.account.is_some() {
        let user =
            plain.split_once(':').and_then(|(_, rest)| rest.split_once('@')).map_or("", |(user, _)| user);
        others.extend(contacts(core, trunk, user));
        reach = Some(others.pop_front().ok_or(CommandError::NotRegistered)?);
    }
    let (now, urgent) = (core.io.now, is_urgent(core, called, &details));
    let mut targets = VecDeque::new();
    if at.account.is_none() {
        targets.extend(at.targets.order(now, &mut core.io.random, urgent));
        if targets.is_empty() && at.targets.len() > 0 {
            core.io.counters.refuse("far_side_overloaded");
            return Err(CommandError::Overloaded);
        }
    }
    let registered = || at.flow().filter(|flow| at.targets.is_good(flow.remote, now));
    let flow = reach.as_ref().map(|reach| reach.path).or_else(registered);
    targets.retain(|(transport, remote)| {
        flow.is_none_or(|flow| (flow.transport, flow.remote) != (*transport, *remote))
    });
    let mut next = || {
        let (transport, remote) = targets.pop_front()?;
        Some(core.io.path(transport, remote, config.local))
    };
    let path =
        flow.or_else(|| std::iter::from_fn(&mut next).flatten().next()).ok_or(CommandError::Unusable)?;
    let mut routes = match &reach {
        Some(reach) => reach.routes.clone(),
        None => at.registrar.as_ref().map(|r| r.routes().to_vec()).unwrap_or_default(),
    };
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
    let by_number = || with_parameters(&uri(&config.host), &parameters);
    // A contact is reached by its own URI, whoever is meant.
    let service = details.emergency.as_ref().filter(|_| config.emergency == EmergencyForm::Service);
    let service = service.filter(|_| reach.is_none()).map(|emergency| emergency.service.urn());
    let target = reach.map(|reach| reach.uri).or_else(|| service.clone()).or_else(|| named.clone());
    let target = target.unwrap_or_else(by_number);
    if service.is_some() && routes.is_empty() {
        // RFC 3261 8.1.2: a URN leads nowhere by itself, so the route says where it goes.
        routes.push(format!("<sip:{};lr>", config.host));
    }
    let (key, session) = (core.io.random.number(), core.io.random.number());
    let to = service.or(named).unwrap_or_else(|| uri(without_port(&config.host)));
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
    let location = details.emergency.as_ref().and_then(|emergency| emergency.location.as_deref());
    let from = addr_uri(&caller.from).unwrap_or_default();
    let enclosure = location.map(|at| Enclosure::new(at, from, &own_host, || core.io.random.number()));
    let mut lines = caller.headers;
    lines.extend(enclosure.iter().flat_map(Enclosure::lines));
    if config.reliable_provisional == Reliable::Required {
        lines.push(("Require", "100rel".to_owned()));
    }
    if config.p_early_media {
        // RFC 5009 8: without, nothing is to be said of early media to us.
        lines.push(("P-Early-Media", "supported".to_owned()));
    }
    let delayed = config.delayed_offer;
    let srtp = config.srtp;
    let redirection = Redirection::new(at, called, &dialog.target);
    let outgoing = Outgoing {
        key: None,
        deadline,
        lines,
        targets,
        switch_at: None,
        search_until: now + config.failover_limit,
        redirection,
        forks: Vec::new(),
        trying: false,
        ringing: false,
        delayed,
        pracks: 0,
        session_expires: None,
        enlarged: 0,
        others,
        enclosure,
    };
    let mut call = Call::new(key, id, trunk, Phase::Outgoing(Box::new(outgoing)), dialog, session);
    call.local = Some(media.rtp);
    call.details = details;
    call.modify.owns_call_id = true;
    if srtp.has_signalled_keys() {
        call.offer_answer = OfferAnswer::new(session).with_seed(core.io.random.key());
    } else if srtp == Srtp::Dtls {
        let fingerprint = core.config.media_fingerprint.clone();
        call.offer_answer = OfferAnswer::new(session).with_fingerprint(fingerprint);
    }
    let at = core.trunks.get(trunk).ok_or(CommandError::UnknownTrunk)?;
    if !delayed {
        call.offer_answer
            .make_offer(media.rtp, &at.policy, Direction::SendRecv)
            .map_err(|_| CommandError::Unusable)?;
    }
    let interval = call.timer_wish(core).seconds;
    if let Phase::Outgoing(outgoing) = &mut call.phase {
        outgoing.session_expires = interval;
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
        let enclosure = match &self.phase {
            Phase::Outgoing(outgoing) => outgoing.enclosure.as_ref(),
            _ => None,
        };
        let enclosed = enclosure.map(|enclosure| enclosure.body(sdp.as_deref()));
        let body = enclosed.as_ref().map(|(_, body)| body).or(sdp.as_ref());
        let body = body.cloned().unwrap_or_default();
        let mut lines = self.credentials(core, Method::Invite, &body);
        let (wish, min_se) = (self.timer_wish(core), self.modify.min_se);
        let Phase::Outgoing(outgoing) = &mut self.phase else { return };
        lines.extend(outgoing.lines.iter().cloned());
        lines.extend(outgoing.session_expires.map(|seconds| wish.request_line(seconds)));
        lines.extend(min_se.map(|seconds| ("Min-SE", seconds.to_string())));
        // What the INVITE before this one began is over with its final response.
        outgoing.forks.clear();
        let hops = self.details.max_forwards.map(|hops| hops.saturating_sub(1));
        let body = enclosed.as_ref().map(|(kind, body)| (kind.as_str(), body.as_ref()));
        let extra = Extra { lines, sdp: sdp.as_deref(), body, hops, ..Extra::default() };
        let path = self.dialog.fallback;
        let key = core.request(&self.dialog, Method::Invite, path, Owner::Call(self.key), &extra);
        outgoing.key = Some(key);
        let timeout = core.trunks.get(self.trunk).map(|t| t.config.target_timeout).unwrap_or_default();
        let next = (!outgoing.targets.is_empty()).then(|| core.io.now + timeout);
        outgoing.switch_at = Some(next.map_or(outgoing.search_until, |at| at.min(outgoing.search_until)));
        self.note(core, false, label("INVITE", sdp.is_some()));
    }

    pub(super) fn on_invite_outcome(&mut self, core: &mut Core, upcall: Upcall) {
        match &upcall.outcome {
            Outcome::Response(response, source) => match response.status {
                ..200 => self.on_provisional(core, response, upcall.path),
                200..300 => self.on_success(core, response, &upcall),
                401 | 407 if self.take_challenge(core, response, *source) => self.send_invite(core),
                422 if self.enlarge_interval(response) => self.send_invite(core),
                415 | 424 if self.leave_location_out() => self.send_invite(core),
                // RFC 3263 4.3; the transaction has acknowledged it.
                408 | 503 if self.try_next_target(core) => {}
                status if NOT_REACHED.contains(&status) && self.try_next_contact(core) => {}
                _ if self.redirected(core, response) => {}
                status => {
                    let reasons = response.head.reasons();
                    let cause = cause_of_response(status, reasons.iter().map(String::as_str));
                    self.end(core, cause, Some(status), response.reason.clone(), EndedBy::Far);
                    self.finished = true;
                }
            },
            Outcome::Timeout if self.try_next_target(core) || self.try_next_contact(core) => {}
            Outcome::Timeout => {
                let cause = Cause::RECOVERY_ON_TIMER_EXPIRY;
                self.end(core, cause, None, "no answer to INVITE".to_owned(), EndedBy::Timeout);
                self.finished = true;
            }
            Outcome::TransportError => self.on_transport_error(core, &upcall),
        }
    }

    /// Takes the least interval that a 422 demands (RFC 4028 7.3). Says whether to try again with it.
    fn enlarge_interval(&mut self, response: &Response) -> bool {
        let Phase::Outgoing(outgoing) = &mut self.phase else { return false };
        let Some(least) = min_se(&response.head).filter(|_| outgoing.enlarged < MAX_ENLARGED) else {
            return false;
        };
        outgoing.enlarged += 1;
        outgoing.session_expires = outgoing.session_expires.max(Some(least));
        self.modify.min_se = self.modify.min_se.max(Some(least));
        true
    }

    /// A call for help is not lost for what it carries: where the location is not understood (415), or cannot
    /// be used (424, RFC 6442 4.4), it goes without. Says whether there was one.
    fn leave_location_out(&mut self) -> bool {
        let Phase::Outgoing(outgoing) = &mut self.phase else { return false };
        let Some(enclosure) = outgoing.enclosure.take() else { return false };
        outgoing.lines.retain(|(name, _)| !enclosure.lines().iter().any(|(ours, _)| ours == name));
        true
    }

    /// RFC 3261 18.1.1: a large request that TCP did not deliver is tried on UDP. After a
    /// provisional response no transport error comes, so nobody is rung twice.
    fn on_transport_error(&mut self, core: &mut Core, upcall: &Upcall) {
        if self.leave_tcp(core, &upcall.path) {
            self.send_invite(core);
            return;
        }
        if self.try_next_target(core) || self.try_next_contact(core) {
            return;
        }
        let cause = Cause::NETWORK_OUT_OF_ORDER;
        self.end(core, cause, None, "transport error".to_owned(), EndedBy::Transport);
        self.finished = true;
    }

    /// Tries the next contact of an account, one after another. Says whether there is one.
    fn try_next_contact(&mut self, core: &mut Core) -> bool {
        let Phase::Outgoing(outgoing) = &mut self.phase else { return false };
        let Some(reach) = outgoing.others.pop_front() else { return false };
        (self.dialog.target, self.dialog.routes) = (reach.uri, reach.routes);
        self.dialog.fallback = reach.path;
        self.challenges = 0;
        self.send_invite(core);
        true
    }

    fn on_success(&mut self, core: &mut Core, response: &Response, upcall: &Upcall) {
        let Phase::Outgoing(outgoing) = &mut self.phase else { return refuse_fork(core, upcall) };
        let tag = response.head.to.tag.as_deref().unwrap_or_default();
        let (mut forks, delayed) = (std::mem::take(&mut outgoing.forks), outgoing.delayed);
        let interval = outgoing.session_expires;
        forks.retain(|fork| !fork.gone || fork.ended.is_some());
        let (cseq, udp_only) = (self.dialog.cseq, self.dialog.udp_only);
        self.phase = Phase::Confirmed;
        self.dialog = Dialog::of_response(response, self.trunk, upcall.path);
        (self.dialog.cseq, self.dialog.udp_only) = (cseq, udp_only);
        self.challenges = 0;
        self.learn_methods(&response.head);
        self.leave_early_modify(core, tag);
        let own = forks.iter().rposition(|fork| fork.tag == tag);
        let ended = own.and_then(|index| forks.get(index)).and_then(|fork| fork.ended);
        let (answer, outcome) = self.conclude(core, response, forks, own, delayed);
        if self.modify.pending_key().is_none() {
            // The UPDATE with it went to another early dialog.
            self.offer_answer.withdraw_offer();
        }
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
                let (call, media, signalling) = (self.id, negotiated.media, self.signalling);
                core.events.push_back(Event::Media { call, media, early: false, signalling });
                self.note_connected(core, &response.head);
                core.events.push_back(Event::Answered { call });
                self.session = SessionTimer::of_response(&response.head, core.io.now, interval);
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
        self.drop_modify(core);
        let Phase::Outgoing(outgoing) = &self.phase else { return };
        let reason = Some(reason_value(cause));
        if outgoing.key.is_some_and(|key| core.clients.cancel(&mut core.io, key, reason)) {
            self.note(core, false, "CANCEL".into());
        }
        self.finished = true;
    }
}
