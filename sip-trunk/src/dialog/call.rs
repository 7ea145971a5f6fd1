//! One call: its phase, its deadlines and its end.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use call_model::{CallId, Cause, Direction};

use super::Dialog;
use super::digits::Digits;
use super::image::Images;
use super::modify::Modify;
use super::refer::Refer;
use super::session_timer::SessionTimer;
use super::transfer::Transfer;
use super::uac::Outgoing;
use super::uas::Incoming;
use crate::auth::ClientAuth;
use crate::cause::{reason_phrase, reason_value};
use crate::endpoint::api::{EndedBy, Event, Transport};
use crate::endpoint::core::{Core, Extra};
use crate::endpoint::io::{Path, hex};
use crate::quality::Session;
use crate::sdp::{CONTENT_TYPE, OfferAnswer};
use crate::transaction::client::{ClientKey, Outcome, Owner, Upcall};
use crate::transaction::timer::{Alarm, Due};
use crate::trunk::HoldForm;
use crate::trunk::details::{CallDetails, connected};
use crate::wire::message::{Content, Head, Method, Name, Response, content};

/// A call from the first INVITE until nothing of it is left to do.
#[derive(Debug)]
pub(crate) struct Call {
    /// The number of our tag: the key in the table of calls.
    pub(crate) key: u64,
    pub(crate) id: CallId,
    pub(crate) trunk: usize,
    pub(crate) phase: Phase,
    pub(crate) dialog: Dialog,
    pub(super) offer_answer: OfferAnswer,
    /// Our RTP address.
    pub(super) local: Option<SocketAddr>,
    /// Where the far side's last message came from; before the first, where ours went.
    pub(super) signalling: IpAddr,
    /// That is another address than before, and the user may not know.
    pub(super) moved: bool,
    pub(super) auth: Option<Box<ClientAuth>>,
    /// Challenges the request under way has met.
    pub(super) challenges: u8,
    /// In a box: for a moment of the call only.
    pub(super) unacked: Option<Box<Unacked>>,
    pub(super) modify: Modify,
    pub(super) images: Images,
    pub(super) session: Option<SessionTimer>,
    /// RSeq and CSeq of a reliable provisional response that our 2xx did not wait for: its PRACK
    /// may still come (RFC 3262 3).
    pub(super) late_prack: Option<(u32, u32)>,
    /// The OPTIONS that asks whether the far side still knows the call.
    pub(super) probe: Option<ClientKey>,
    /// The far side listed UPDATE in its last Allow.
    pub(super) updates: bool,
    /// What goes out by INFO.
    pub(super) digits: Option<Box<Digits>>,
    /// The transfer that the far side asked for, and how many it did.
    pub(super) transfer: Option<Box<Transfer>>,
    pub(super) refers: u32,
    /// The transfer that we asked for.
    pub(super) refer: Option<Box<Refer>>,
    /// The far side called, and does not want to be shown.
    pub(super) private_caller: bool,
    /// The call (by the number of our tag) that this one takes the place of when it is answered.
    pub(super) takes_over: Option<u64>,
    /// What else is known of the call; the user has it too.
    pub(crate) details: Arc<CallDetails>,
    /// `Ended` was sent: the user no longer knows the call.
    pub(crate) ended: bool,
    /// Nothing is left to do.
    pub(crate) finished: bool,
    /// The far side ended the call and still hears of its transfer.
    pub(super) lingers: bool,
    /// The BYE could not be delivered and went out a second time.
    bye_repeated: bool,
    pub(super) alarm: Alarm,
}

/// Where a call is in its life.
#[derive(Debug)]
pub(crate) enum Phase {
    /// We sent an INVITE; no final response yet.
    Outgoing(Box<Outgoing>),
    /// We received an INVITE and have not answered it finally.
    Incoming(Box<Incoming>),
    /// A 2xx passed.
    Confirmed,
    /// Ended, and a BYE is under way or waits for the ACK of our 2xx (RFC 3261 15).
    Closing { cause: Cause, waits_for_ack: bool, until: Instant },
}

/// A 2xx of ours that waits for its ACK (RFC 3261 13.3.1.4).
#[derive(Debug)]
pub(super) struct Unacked {
    pub(super) cseq: u32,
    bytes: Bytes,
    path: Path,
    interval: Duration,
    next: Instant,
    expires: Instant,
    /// The 2xx held our offer; the ACK brings the answer.
    pub(super) offered: bool,
}

impl Call {
    pub(super) fn new(
        key: u64,
        id: CallId,
        trunk: usize,
        phase: Phase,
        dialog: Dialog,
        session: u64,
    ) -> Self {
        Self {
            key,
            id,
            trunk,
            phase,
            signalling: dialog.fallback.remote.ip(),
            moved: false,
            dialog,
            offer_answer: OfferAnswer::new(session),
            local: None,
            auth: None,
            challenges: 0,
            unacked: None,
            modify: Modify::default(),
            images: Images::default(),
            session: None,
            late_prack: None,
            updates: false,
            digits: None,
            transfer: None,
            refers: 0,
            refer: None,
            private_caller: false,
            takes_over: None,
            details: Arc::default(),
            ended: false,
            finished: false,
            lingers: false,
            probe: None,
            bye_repeated: false,
            alarm: Alarm::default(),
        }
    }

    pub(super) fn tag(&self) -> String {
        hex(self.key)
    }

    /// Returns what a report of its quality tells of it; `None` before media is agreed on.
    pub(crate) fn reportable(&self) -> Option<Session> {
        let incoming = !self.modify.owns_call_id;
        let media = self.offer_answer.media()?;
        Some(Session::new(&self.dialog, (incoming, self.private_caller), self.tag(), self.local?, media))
    }

    /// The direction we want: while we hold, the one the trunk understands.
    pub(super) fn wanted_direction(&self, core: &Core) -> Direction {
        match core.trunks.get(self.trunk).map(|t| t.config.hold) {
            _ if !self.modify.hold_wanted => Direction::SendRecv,
            Some(HoldForm::Inactive) => Direction::Inactive,
            _ => Direction::SendOnly,
        }
    }

    /// Takes note of who is connected now, if the far side says so (RFC 4916, RFC 5876).
    pub(super) fn note_connected(&mut self, core: &mut Core, head: &Head) {
        if let Some(at) = core.trunks.get(self.trunk)
            && let Some(party) = connected(head, &at.config)
            && self.details.connected.as_ref() != Some(&party)
        {
            Arc::make_mut(&mut self.details).connected = Some(party.clone());
            core.events.push_back(Event::Connected { call: self.id, party });
        }
    }

    /// Takes note of where a message of the far side came from.
    pub(super) fn heard_from(&mut self, source: SocketAddr) {
        self.moved |= self.signalling != source.ip();
        self.signalling = source.ip();
    }

    /// Something happened to a client transaction of this call.
    pub(crate) fn on_upcall(&mut self, core: &mut Core, upcall: Upcall) {
        if let Outcome::Response(response, source) = &upcall.outcome {
            self.heard_from(*source);
            if upcall.method == Method::Invite && self.skips(core, response) {
                return;
            }
            self.note_response(core, response);
        }
        match (&self.phase, upcall.method) {
            (Phase::Outgoing(outgoing), Method::Invite) if outgoing.key == Some(upcall.key) => {
                self.on_invite_outcome(core, upcall);
            }
            (_, Method::Invite | Method::Update) if self.modify.pending_key() == Some(upcall.key) => {
                self.on_any_modify_outcome(core, upcall);
            }
            (_, Method::Info) if self.awaits_info(upcall.key) => self.on_info_outcome(core, &upcall),
            (Phase::Outgoing(_), Method::Prack) => self.on_prack_outcome(core, &upcall),
            (_, Method::Invite) => refuse_fork(core, &upcall),
            (_, Method::Notify) => self.on_notify_outcome(core, &upcall),
            (_, Method::Refer) => self.on_refer_outcome(core, &upcall),
            (Phase::Confirmed, Method::Options) if self.probe == Some(upcall.key) => {
                self.on_probe_outcome(core, &upcall);
            }
            (Phase::Closing { .. }, Method::Bye) => self.on_bye_outcome(core, &upcall),
            _ => {}
        }
        self.arm(core);
    }

    fn on_bye_outcome(&mut self, core: &mut Core, upcall: &Upcall) {
        let Phase::Closing { cause, .. } = self.phase else { return };
        match &upcall.outcome {
            Outcome::Response(response, _) if response.status < 200 => return,
            Outcome::Response(response, source)
                if matches!(response.status, 401 | 407) && self.take_challenge(core, response, *source) =>
            {
                return self.send_bye(core, cause);
            }
            // A far side that never hears of the end keeps the call, and bills it.
            Outcome::TransportError if !self.bye_repeated => {
                self.bye_repeated = true;
                self.leave_tcp(core, &upcall.path);
                return self.send_bye(core, cause);
            }
            _ => {}
        }
        self.finished = true;
    }

    /// RFC 3261 18.1.1: where TCP was chosen for the size of a request alone and failed, UDP it is.
    /// Says whether that is news.
    pub(super) fn leave_tcp(&mut self, core: &Core, failed: &Path) -> bool {
        let udp = core.trunks.get(self.trunk).is_some_and(|t| t.config.transport == Transport::Udp);
        let news = udp && failed.transport == Transport::Tcp && !self.dialog.udp_only;
        self.dialog.udp_only |= news;
        news
    }

    /// Takes credentials for the challenge of a response, if it is one this trunk may make
    /// (RFC 3261 22). Says whether to send the request again.
    pub(super) fn take_challenge(&mut self, core: &Core, response: &Response, source: SocketAddr) -> bool {
        let taken = self.answer_challenge(core, response, source, self.challenges);
        self.challenges = self.challenges.saturating_add(u8::from(taken));
        taken
    }

    /// As [`Self::take_challenge`], for a request that met `answered` challenges before.
    pub(super) fn answer_challenge(
        &mut self,
        core: &Core,
        response: &Response,
        source: SocketAddr,
        answered: u8,
    ) -> bool {
        let Some(trunk) = core.trunks.get(self.trunk) else { return false };
        if !trunk.owns(source.ip()) {
            return false;
        }
        let Some(credentials) = &trunk.config.credentials else { return false };
        let auth = self.auth.get_or_insert_with(|| Box::new(ClientAuth::new(credentials.clone())));
        let www = response.head.texts(&Name::WwwAuthenticate);
        let proxy = response.head.texts(&Name::ProxyAuthenticate);
        let (www, proxy) = (www.iter().map(String::as_str), proxy.iter().map(String::as_str));
        auth.challenged(www, proxy, answered).is_ok()
    }

    /// Returns the credentials for the next request, once a challenge was met.
    pub(super) fn credentials(
        &mut self,
        core: &mut Core,
        method: Method,
        body: &[u8],
    ) -> Vec<(&'static str, String)> {
        let Some(auth) = &mut self.auth else { return Vec::new() };
        let cnonce = core.io.random.hex();
        let (uri, _) = self.dialog.uri_and_routes();
        auth.headers(method.as_str(), uri, body, &cnonce)
    }

    /// As [`Self::credentials`], for a request of an early dialog.
    pub(super) fn credentials_in(
        &mut self,
        core: &mut Core,
        dialog: &Dialog,
        method: Method,
        body: &[u8],
    ) -> Vec<(&'static str, String)> {
        let Some(auth) = &mut self.auth else { return Vec::new() };
        let cnonce = core.io.random.hex();
        let (uri, _) = dialog.uri_and_routes();
        auth.headers(method.as_str(), uri, body, &cnonce)
    }

    /// Remembers whether the far side takes UPDATE (RFC 3311 4), where it says so.
    pub(super) fn learn_methods(&mut self, head: &Head) {
        if head.text(&Name::Allow).is_some() {
            self.updates = head.has_token(&Name::Allow, "UPDATE");
        }
    }

    /// Sends a request of a confirmed dialog with the next CSeq.
    pub(super) fn send_request(
        &mut self,
        core: &mut Core,
        method: Method,
        lines: Vec<(&'static str, String)>,
        sdp: Option<&[u8]>,
    ) -> ClientKey {
        self.send_request_with(core, method, lines, sdp.map(|sdp| (CONTENT_TYPE, sdp)))
    }

    /// As [`Self::send_request`], with a body of any type.
    pub(super) fn send_request_with(
        &mut self,
        core: &mut Core,
        method: Method,
        mut lines: Vec<(&'static str, String)>,
        body: Option<(&'static str, &[u8])>,
    ) -> ClientKey {
        self.dialog.cseq += 1;
        lines.extend(self.credentials(core, method, body.map(|(_, body)| body).unwrap_or_default()));
        let path = self.dialog.path(&core.io);
        let sdp = body.is_some_and(|(kind, _)| kind == CONTENT_TYPE);
        self.note(core, false, label(method.as_str(), sdp));
        let extra = Extra { lines, body, ..Extra::default() };
        core.request(&self.dialog, method, path, Owner::Call(self.key), &extra)
    }

    /// Sends BYE and goes on closing until it is answered.
    pub(super) fn send_bye(&mut self, core: &mut Core, cause: Cause) {
        self.drop_modify(core);
        let until = core.io.now + core.config.timers.give_up() * 2;
        self.phase = Phase::Closing { cause, waits_for_ack: false, until };
        let lines = vec![("Reason", reason_value(cause))];
        self.send_request(core, Method::Bye, lines, None);
    }

    /// Ends the call by BYE: at once, or after the ACK of our 2xx (RFC 3261 15).
    pub(super) fn hang_up(&mut self, core: &mut Core, cause: Cause) {
        self.session = None;
        self.conclude_transfer(core);
        if self.unacked.is_some() {
            self.drop_modify(core);
            let until = core.io.now + core.config.timers.give_up() * 2;
            self.phase = Phase::Closing { cause, waits_for_ack: true, until };
        } else {
            self.challenges = 0;
            self.send_bye(core, cause);
        }
    }

    /// Carries out `Reject`.
    pub(crate) fn reject(&mut self, core: &mut Core, status: u16, cause: Cause) {
        if !matches!(self.phase, Phase::Incoming(_)) || !(400..700).contains(&status) {
            return self.release(core, cause);
        }
        self.refuse(core, status, vec![("Reason", reason_value(cause))]);
        self.end(core, cause, Some(status), cause.to_string(), EndedBy::Local);
        self.arm(core);
    }

    /// Carries out `Release`.
    pub(crate) fn release(&mut self, core: &mut Core, cause: Cause) {
        match &mut self.phase {
            Phase::Outgoing(_) => self.send_cancel(core, cause),
            Phase::Incoming(_) => {
                let status = crate::cause::status_of_cause(cause);
                self.refuse(core, status, vec![("Reason", reason_value(cause))]);
            }
            Phase::Confirmed => self.hang_up(core, cause),
            Phase::Closing { .. } => return,
        }
        self.end(core, cause, None, cause.to_string(), EndedBy::Local);
        self.arm(core);
    }

    /// Tells the user that the call is over, once.
    pub(super) fn end(
        &mut self,
        core: &mut Core,
        cause: Cause,
        status: Option<u16>,
        text: String,
        by: EndedBy,
    ) {
        if self.ended {
            return;
        }
        self.drop_image(core);
        self.drop_transfer(core);
        self.drop_refer(core);
        self.ended = true;
        if let Some(trunk) = core.trunks.get_mut(self.trunk) {
            trunk.calls = trunk.calls.saturating_sub(1);
        }
        let text = text.chars().filter(|c| !c.is_control()).take(128).collect();
        core.events.push_back(Event::Ended { call: self.id, cause, status, text, by });
    }

    /// Reports a message of the call, while the user knows the call.
    pub(super) fn note(&self, core: &mut Core, incoming: bool, label: Box<str>) {
        if !self.ended {
            core.exchange(self.id, incoming, label);
        }
    }

    fn note_response(&self, core: &mut Core, response: &Response) {
        if self.ended {
            return;
        }
        let sdp = matches!(content(&response.head, &response.body), Content::Sdp(_));
        let said = response.reason.as_str();
        let phrase = said.char_indices().nth(40).map_or(said, |(end, _)| said.get(..end).unwrap_or_default());
        let phrase = if phrase.is_empty() { reason_phrase(response.status) } else { phrase };
        self.note(core, true, label(&format!("{} {phrase}", response.status), sdp));
        if response.status >= 300 && response.head.cseq_method == Method::Invite {
            self.note(core, false, "ACK".into());
        }
    }

    /// Answers a request of the call and reports it.
    pub(super) fn respond(&mut self, core: &mut Core, server: u64, status: u16, extra: &Extra<'_>) -> Bytes {
        self.note(core, false, label(&format!("{status} {}", reason_phrase(status)), extra.sdp.is_some()));
        let tag = self.tag();
        core.respond(self.trunk, server, status, &tag, extra)
    }

    /// Sends a 2xx to INVITE and repeats it until its ACK (RFC 3261 13.3.1.4).
    pub(super) fn respond_success(
        &mut self,
        core: &mut Core,
        server: u64,
        cseq: u32,
        extra: &Extra<'_>,
        offered: bool,
    ) {
        let path = core.servers.path(server);
        let bytes = self.respond(core, server, 200, extra);
        let (now, timers) = (core.io.now, core.config.timers);
        if let Some(path) = path {
            let interval = timers.t1;
            let (next, expires) = (now + interval, now + timers.give_up());
            let unacked = Unacked { cseq, bytes, path, interval, next, expires, offered };
            self.unacked = Some(Box::new(unacked));
        }
    }

    /// A deadline surfaced.
    pub(crate) fn on_timer(&mut self, core: &mut Core, at: Instant) {
        if !self.alarm.surfaced(&mut core.io.timers, Due::Call(self.key), at, core.io.now) {
            return;
        }
        let now = core.io.now;
        if let Some(unacked) = &mut self.unacked {
            if unacked.expires <= now {
                self.unacked = None;
                self.on_no_ack(core);
            } else if unacked.next <= now {
                core.io.counters.retransmitted += 1;
                core.io.send(&mut unacked.path, unacked.bytes.clone());
                unacked.interval = (unacked.interval * 2).min(core.config.timers.t2);
                unacked.next = now + unacked.interval;
            }
        }
        self.on_transfer_timer(core);
        self.on_refer_timer(core);
        self.on_image_timer(core);
        match &self.phase {
            Phase::Outgoing(outgoing) if outgoing.deadline <= now => self.on_ring_timeout(core),
            Phase::Outgoing(outgoing) if outgoing.switch_at.is_some_and(|at| at <= now) => {
                self.on_silence(core)
            }
            Phase::Incoming(incoming) if incoming.deadline <= now => self.on_unanswered(core),
            Phase::Incoming(_) => {
                self.on_provisional_timer(core);
                self.on_modify_timer(core);
            }
            Phase::Outgoing(_) => self.on_modify_timer(core),
            Phase::Closing { until, .. } if *until <= now => self.finished = true,
            Phase::Confirmed => {
                self.on_modify_timer(core);
                self.on_session_timer(core);
            }
            _ => {}
        }
        self.arm(core);
    }

    /// No ACK came for 64 times T1: BYE (RFC 3261 13.3.1.4).
    fn on_no_ack(&mut self, core: &mut Core) {
        if let Phase::Closing { waits_for_ack: true, cause, .. } = self.phase {
            self.send_bye(core, cause);
            return;
        }
        let cause = Cause::RECOVERY_ON_TIMER_EXPIRY;
        self.hang_up(core, cause);
        self.end(core, cause, None, "no ACK".to_owned(), EndedBy::Timeout);
    }

    /// Sets the alarm to the next deadline of any part.
    pub(super) fn arm(&mut self, core: &mut Core) {
        let phase = match &self.phase {
            Phase::Outgoing(outgoing) => {
                Some(outgoing.switch_at.map_or(outgoing.deadline, |at| at.min(outgoing.deadline)))
            }
            Phase::Incoming(incoming) => Some(incoming.next()),
            Phase::Confirmed => self.session.as_ref().map(SessionTimer::next),
            Phase::Closing { until, .. } => Some(*until),
        };
        let unacked = self.unacked.as_ref().map(|u| u.next.min(u.expires));
        let transfers = self.transfer_next().into_iter().chain(self.refer_next()).chain(self.image_next());
        let others = unacked.into_iter().chain(self.modify.retry_at).chain(transfers);
        let at = if self.finished { None } else { phase.into_iter().chain(others).min() };
        self.alarm.set(&mut core.io.timers, Due::Call(self.key), at);
    }
}

/// Ends a dialog nobody wants: a second fork that answered, or an answer that crossed our CANCEL
/// (RFC 3261 13.2.2.4, 15): ACK and BYE, from nothing but the 2xx.
pub(crate) fn refuse_fork(core: &mut Core, upcall: &Upcall) {
    let Outcome::Response(response, _) = &upcall.outcome else { return };
    if upcall.method != Method::Invite || !(200..300).contains(&response.status) {
        return;
    }
    let dialog = Dialog::of_response(response, upcall.trunk, upcall.path);
    acknowledge(core, upcall.key, &dialog, None);
    if upcall.in_dialog {
        // A re-INVITE that the end of its dialog overtook: that BYE went out.
        return;
    }
    let key = core.io.random.number();
    let id = CallId::new(0, u128::from(key));
    let mut stray = Call::new(key, id, upcall.trunk, Phase::Confirmed, dialog, 0);
    // Nobody knows it, so nobody is told of it.
    stray.ended = true;
    stray.send_bye(core, Cause::NORMAL_CALL_CLEARING);
    stray.arm(core);
    core.strays.push(stray);
}

/// Sends the ACK of a 2xx (RFC 3261 13.2.2.4) with the credentials of its INVITE (22.1); the
/// dialog's CSeq is that of the INVITE. `sdp` is the answer to an offer in the 2xx.
pub(super) fn acknowledge(core: &mut Core, key: ClientKey, dialog: &Dialog, sdp: Option<&[u8]>) {
    let path = dialog.path(&core.io);
    let branch = core.io.random.number();
    let extra = Extra { copied: core.clients.credentials(key), sdp, ..Extra::default() };
    let bytes = core.write_request(dialog, Method::Ack, dialog.cseq, &path, branch, &extra);
    core.acknowledge(dialog, key, bytes, path);
}

/// Writes the label of a message for a ladder: at most 64 characters.
pub(super) fn label(what: &str, sdp: bool) -> Box<str> {
    let end = what.char_indices().nth(58).map_or(what.len(), |(end, _)| end);
    let parts = [what.get(..end).unwrap_or_default(), if sdp { " (SDP)" } else { "" }];
    parts.concat().into_boxed_str()
}
