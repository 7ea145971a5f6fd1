//! Calls we receive (RFC 3261 13.3).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use call_model::{Address, CallId, Cause, Direction};

use super::Dialog;
use super::call::{Call, Phase, label};
use super::reliable::{Provisionals, Wanted};
use super::session_timer::{Negotiated, SessionTimer, Wish};
use crate::cause::{cause_of_release, reason_value};
use crate::endpoint::api::{CommandError, EndedBy, Event, LocalMedia};
use crate::endpoint::core::{Core, Extra};
use crate::endpoint::io::{Path, hex};
use crate::sdp::{NegotiationError, OfferAnswer, Srtp};
use crate::trunk::Trunk;
use crate::trunk::details::CallDetails;
use crate::trunk::identity::{CallerHeaders, quote, read_caller, unmet_privacy};
use crate::trunk::numbers::user_part;
use crate::wire::message::{Content, Name, Request, addr_uri, content};

/// What only a call that was not answered yet needs.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// The transaction of its INVITE.
    pub(super) server: u64,
    pub(super) deadline: Instant,
    /// When the last provisional response is sent again.
    repeat: Option<Instant>,
    pub(super) cseq: u32,
    pub(super) has_offer: bool,
    pub(super) ringing: bool,
    session: Option<Negotiated>,
    /// Provisional responses are sent reliably.
    pub(super) reliable: Option<Provisionals>,
}

impl Incoming {
    pub(super) fn next(&self) -> Instant {
        let reliable = self.reliable.as_ref().and_then(Provisionals::next);
        self.repeat.into_iter().chain(reliable).fold(self.deadline, Instant::min)
    }

    /// A provisional response goes out now.
    pub(super) fn repeat_later(&mut self, now: Instant) {
        self.repeat = Some(now + REPEAT_PROVISIONAL);
    }
}

/// Proxies forget a call that says nothing for three minutes (RFC 3261 13.3.1.1, 16.6).
const REPEAT_PROVISIONAL: Duration = Duration::from_secs(60);

/// A refusal: the status and what explains it.
pub(crate) type Refused = (u16, Vec<(&'static str, String)>);

/// The call whose place an INVITE takes (RFC 3891).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Takeover {
    /// The number of our tag.
    pub(crate) key: u64,
    pub(crate) call: CallId,
    /// It rings at the far side.
    pub(crate) early: bool,
}

/// Takes in an INVITE that begins a dialog; the general checks of RFC 3261 8.2 went before.
pub(crate) fn receive(
    core: &mut Core,
    trunk: usize,
    request: &Request,
    source: SocketAddr,
    (reply_path, path): (Path, Path),
    id: CallId,
    takeover: Option<Takeover>,
) -> Result<Call, Refused> {
    let (key, session) = (core.io.random.number(), core.io.random.number());
    let head = &request.head;
    let dialog = Dialog::of_invite(head, &hex(key), trunk, path).ok_or((400, Vec::new()))?;
    let wish = Wish::of(&core.trunks.get(trunk).ok_or((500, Vec::new()))?.config);
    let timer = SessionTimer::of_request(head, wish)?;
    let privacy = head.texts(&Name::Privacy);
    // RFC 3323 5: without the privacy it cannot do without, the call fails.
    if let Some(unmet) = unmet_privacy(&privacy) {
        let warning = format!("399 causeway {}", quote(&format!("privacy unavailable: {unmet}")));
        return Err((500, vec![("Warning", warning)]));
    }
    let reliable = Provisionals::of_invite(core, head, trunk)?;
    let at = core.trunks.get(trunk).ok_or((500, Vec::new()))?;
    let mut offer_answer = OfferAnswer::new(session);
    if at.config.srtp.has_signalled_keys() {
        offer_answer = offer_answer.with_seed(core.io.random.key());
    } else if at.config.srtp == Srtp::Dtls {
        offer_answer = offer_answer.with_fingerprint(core.config.media_fingerprint.clone());
    }
    let has_offer = match content(head, &request.body) {
        Content::None => false,
        Content::Sdp(body) => {
            let offer = offer_answer.receive_offer(&body, &at.policy).map_err(|e| explain(&e))?;
            for repair in offer.repairs.iter() {
                core.io.counters.repair(repair.as_str());
            }
            true
        }
        Content::Other => return Err(unsupported_media()),
    };
    let (asserted, remote_party) = (head.list(&Name::PAssertedIdentity), head.texts_named("Remote-Party-ID"));
    let (preferred, diversion) = (head.list(&Name::PPreferredIdentity), head.texts_named("Diversion"));
    let headers = CallerHeaders {
        from: &head.from.value,
        asserted: asserted.iter().map(String::as_str).collect(),
        remote_party: remote_party.first().map(String::as_str),
        privacy: privacy.iter().map(String::as_str).collect(),
        preferred: preferred.first().map(String::as_str),
        diversion: diversion.first().map(String::as_str),
        cli: at.config.cli,
    };
    let caller = read_caller(&headers, at.config.trusted, &at.config.numbers);
    let called_uri = called_uri(at, request);
    let called = at.config.numbers.address_of_uri(&called_uri);
    let called_user = user_part(&called_uri).unwrap_or_default();
    let details = CallDetails::of_invite(head, &called_uri, &at.config, || core.io.random.hex());
    let (trunk_name, answer_timeout) = (at.config.name.clone(), at.config.answer_timeout);

    let server = core.servers.start(request, source, reply_path, Some(key));
    let deadline = core.io.now + answer_timeout.unwrap_or(core.config.timers.incoming);
    let incoming = Incoming {
        server,
        deadline,
        repeat: None,
        cseq: head.cseq,
        has_offer,
        ringing: false,
        session: timer,
        reliable,
    };
    let mut call = Call::new(key, id, trunk, Phase::Incoming(Box::new(incoming)), dialog, session);
    call.offer_answer = offer_answer;
    call.details = Arc::new(details);
    call.private_caller = caller.private;
    call.learn_methods(head);
    call.takes_over = takeover.map(|takeover| takeover.key);
    let trunk = trunk_name;
    let details = Arc::clone(&call.details);
    core.events.push_back(match takeover {
        Some(Takeover { call: replaced, early, .. }) => {
            Event::Replacing { call: id, replaced, early, trunk, caller, source, has_offer }
        }
        None => Event::Incoming { call: id, trunk, called_user, called, caller, source, has_offer, details },
    });
    call.note(core, true, label("INVITE", has_offer));
    call.respond(core, server, 100, &Extra::default());
    call.arm(core);
    Ok(call)
}

/// Returns whom the INVITE is for. A registrar's network replaces that by our Contact, and tells it in
/// P-Called-Party-ID (RFC 7315 4.2) or, as carriers do, in a To with a number.
fn called_uri(trunk: &Trunk, request: &Request) -> String {
    let contact = trunk.registrar.as_ref().is_some_and(|r| r.is_contact(&request.uri));
    let number = |uri: &&str| matches!(trunk.config.numbers.address_of_uri(uri), Some(Address::Number(_)));
    let party = request.head.texts_named("P-Called-Party-ID");
    let told = || {
        party.first().and_then(|p| addr_uri(p)).or_else(|| addr_uri(&request.head.to.value).filter(number))
    };
    if contact && let Some(uri) = told() { uri.to_owned() } else { request.uri.clone() }
}

/// Explains why an offer cannot be taken: 488 or 400, with a Warning where RFC 3261 20.43 has one.
pub(super) fn explain(error: &NegotiationError) -> Refused {
    let warning = error.warning().map(|(code, text)| ("Warning", format!("{code} causeway \"{text}\"")));
    (error.status(), warning.into_iter().collect())
}

/// 415, saying what is accepted (RFC 3261 8.2.3).
pub(crate) fn unsupported_media() -> Refused {
    let accept = format!("{}, multipart/mixed", crate::sdp::CONTENT_TYPE);
    (415, vec![("Accept", accept), ("Accept-Encoding", "identity".to_owned())])
}

impl Call {
    /// Carries out `Ringing`.
    pub(crate) fn ringing(&mut self, core: &mut Core) -> Result<(), CommandError> {
        let Phase::Incoming(incoming) = &mut self.phase else { return Err(CommandError::WrongState) };
        if !incoming.ringing && incoming.reliable.is_some() {
            self.want_provisional(core, Wanted::Ringing)?;
        } else if !incoming.ringing {
            incoming.repeat_later(core.io.now);
            let server = incoming.server;
            self.respond(core, server, 180, &Extra::default());
        }
        if let Phase::Incoming(incoming) = &mut self.phase {
            incoming.ringing = true;
        }
        self.arm(core);
        Ok(())
    }

    /// Carries out `Progress`.
    pub(crate) fn progress(&mut self, core: &mut Core, media: LocalMedia) -> Result<(), CommandError> {
        let Phase::Incoming(incoming) = &mut self.phase else { return Err(CommandError::WrongState) };
        if incoming.reliable.is_some() {
            self.want_provisional(core, Wanted::Progress(media))?;
            self.arm(core);
            return Ok(());
        }
        incoming.repeat_later(core.io.now);
        let (server, has_offer) = (incoming.server, incoming.has_offer);
        let answer = if has_offer { self.answer_offer(core, media, true) } else { Ok(Bytes::new()) };
        match answer {
            Ok(body) => {
                let sdp = has_offer.then_some(&body[..]);
                self.respond(core, server, 183, &Extra { sdp, ..Extra::default() });
            }
            Err(error) => self.give_up(core, &error),
        }
        self.arm(core);
        Ok(())
    }

    /// Carries out `Answer`.
    pub(crate) fn answer(&mut self, core: &mut Core, media: LocalMedia) -> Result<(), CommandError> {
        let Phase::Incoming(incoming) = &mut self.phase else { return Err(CommandError::WrongState) };
        let (server, cseq, has_offer) = (incoming.server, incoming.cseq, incoming.has_offer);
        let mut settled = false;
        let mut late_prack = None;
        if let Some(reliable) = &mut incoming.reliable {
            if reliable.answer.is_some() {
                return Err(CommandError::WrongState);
            }
            // RFC 3262 3: no 2xx while a description is not acknowledged.
            if reliable.holds_answer() {
                reliable.answer = Some(media);
                return Ok(());
            }
            settled = reliable.settled;
            late_prack = reliable.open_rseq().map(|rseq| (rseq, cseq));
        }
        let session = incoming.session.take();
        let body = if settled {
            // RFC 3261 13.2.1: the one description of ours went out reliably.
            Ok(None)
        } else if has_offer {
            self.answer_offer(core, media, false).map(Some)
        } else {
            self.offer(core, media).map(Some)
        };
        match body {
            Ok(body) => {
                let lines = session.as_ref().map(Negotiated::lines).unwrap_or_default();
                let extra = Extra { lines, sdp: body.as_deref(), ..Extra::default() };
                self.phase = Phase::Confirmed;
                self.late_prack = late_prack;
                self.respond_success(core, server, cseq, &extra, !has_offer && !settled);
                core.replaced.extend(self.takes_over.take());
                self.session = session.map(|s| SessionTimer::start(&s, core.io.now));
            }
            Err(error) => self.give_up(core, &error),
        }
        self.arm(core);
        Ok(())
    }

    /// Makes the answer to the offer of the INVITE, or repeats the one made for a 183.
    pub(super) fn answer_offer(
        &mut self,
        core: &mut Core,
        media: LocalMedia,
        early: bool,
    ) -> Result<Bytes, NegotiationError> {
        if self.offer_answer.media().is_some()
            && let Some(body) = self.offer_answer.local_body()
        {
            return Ok(Bytes::copy_from_slice(body));
        }
        let at = core.trunks.get(self.trunk).ok_or(NegotiationError::WrongState)?;
        let answer = self.offer_answer.make_answer(media.rtp, &at.policy, Direction::SendRecv)?;
        self.local = Some(media.rtp);
        let (call, media, signalling) = (self.id, answer.media, self.signalling);
        core.events.push_back(Event::Media { call, media, early, signalling });
        Ok(Bytes::from(answer.body))
    }

    /// Our media does not fit what was offered.
    pub(super) fn give_up(&mut self, core: &mut Core, error: &NegotiationError) {
        let (status, lines) = explain(error);
        self.refuse(core, status, lines);
        self.end(core, error.cause(), Some(status), error.to_string(), EndedBy::Local);
    }

    /// Sends a final error response to the INVITE.
    pub(super) fn refuse(&mut self, core: &mut Core, status: u16, lines: Vec<(&'static str, String)>) {
        self.drop_modify(core);
        let Phase::Incoming(incoming) = &self.phase else { return };
        let server = incoming.server;
        self.respond(core, server, status, &Extra { lines, ..Extra::default() });
        self.finished = true;
    }

    /// The caller cancelled (RFC 3261 9.2): 487, if we have not answered. The CANCEL itself has its
    /// 200 already.
    pub(crate) fn on_cancel(&mut self, core: &mut Core, server: u64, cancel: &Request) {
        if !matches!(&self.phase, Phase::Incoming(incoming) if incoming.server == server) {
            if self.cancel_image(core, server) {
                self.arm(core);
            }
            return;
        }
        self.note(core, true, "CANCEL".into());
        self.note(core, false, "200 OK".into());
        self.refuse(core, 487, Vec::new());
        let reasons = cancel.head.reasons();
        let cause = cause_of_release(reasons.iter().map(String::as_str));
        self.end(core, cause, Some(487), "cancelled".to_owned(), EndedBy::Far);
        self.arm(core);
    }

    /// Repeats the last 18x every minute, so that no proxy gives the call up.
    pub(super) fn on_provisional_timer(&mut self, core: &mut Core) {
        let Phase::Incoming(incoming) = &mut self.phase else { return };
        let due = incoming.repeat.is_some_and(|at| at <= core.io.now);
        if incoming.reliable.is_some() {
            self.on_reliable_timer(core);
            if due && !self.finished {
                self.keep_ringing(core);
            }
        } else if due {
            incoming.repeat_later(core.io.now);
            core.servers.repeat_provisional(&mut core.io, incoming.server);
        }
    }

    /// Our user never answered.
    pub(super) fn on_unanswered(&mut self, core: &mut Core) {
        let cause = Cause::NO_ANSWER_FROM_USER;
        self.refuse(core, 480, vec![("Reason", reason_value(cause))]);
        self.end(core, cause, Some(480), "not answered in time".to_owned(), EndedBy::Timeout);
    }

    /// The ACK of a 2xx came.
    pub(crate) fn on_ack(&mut self, core: &mut Core, request: &Request) {
        let Some(unacked) = self.unacked.take_if(|u| u.cseq == request.head.cseq) else { return };
        let content = content(&request.head, &request.body);
        self.note(core, true, label("ACK", matches!(content, Content::Sdp(_))));
        if let Phase::Closing { waits_for_ack: true, cause, .. } = self.phase {
            self.send_bye(core, cause);
        } else if unacked.offered {
            self.on_delayed_answer(core, &content);
        }
        if matches!(self.phase, Phase::Confirmed) {
            self.run_modify(core);
        }
        self.arm(core);
    }

    /// The ACK had to bring the answer to the offer of our 2xx (RFC 3261 13.2.1).
    fn on_delayed_answer(&mut self, core: &mut Core, content: &Content) {
        let outcome = match content {
            Content::Sdp(body) => self.take_answer(core, body),
            _ => Err((Cause::PROTOCOL_ERROR, "no answer in the ACK".to_owned())),
        };
        match outcome {
            Ok(Some((media, _))) => {
                let (call, signalling) = (self.id, self.signalling);
                core.events.push_back(Event::Media { call, media, early: false, signalling });
            }
            Ok(None) => {}
            Err((cause, text)) => {
                self.hang_up(core, cause);
                self.end(core, cause, None, text, EndedBy::Local);
            }
        }
    }
}
