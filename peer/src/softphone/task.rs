//! The task of a softphone: commands, events of the node and of the media, answering by policy.

mod media_events;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use call_model::{Address, CallId, Caller, Cause, DtmfDigit};
use p2p_edge::calling::{SessionCommand, SessionEvent};
use p2p_edge::identity::Credential;
use p2p_edge::node::{CallerRole, NodeCommand, NodeEvent, NodeHandle, PresenceCommand, VerifiedCaller};
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use transcoder::MediaError;

use super::presence::TRANSFERRED;
use super::{AnswerMode, AnswerPolicy, CallOptions, Command, MAX_CALLS};
use crate::call::{Answering, Call, Negotiation, Preparing};
use crate::event::Event;
use crate::ice::Reach;
use crate::media::{self, MediaCommand, MediaEvent, MediaSettings};

/// What the transports of a node that has ended get to close their connections in order. A relay
/// that believes in a dead connection would send calls there when this device comes back.
const LINGER: Duration = Duration::from_millis(300);
/// How long the end of a call may come after the end of its media before this side ends the call.
const CLOSED_GRACE: Duration = Duration::from_secs(3);
/// How long the supernodes may take to say which servers of STUN and TURN there are, before the user hears of the
/// overlay without them.
const SERVERS_PATIENCE: Duration = Duration::from_millis(500);
/// How long calls may take to end when the softphone stops.
const FAREWELL: Duration = Duration::from_secs(3);
const FAREWELL_LIMIT: Duration = Duration::from_secs(5);

pub(super) struct Task {
    pub(super) caller: Address,
    pub(super) node: NodeHandle,
    pub(super) node_events: mpsc::Receiver<NodeEvent>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) media_events: mpsc::Receiver<(CallId, MediaEvent)>,
    pub(super) media: MediaSettings,
    pub(super) policy: AnswerPolicy,
    pub(super) calls: BTreeMap<CallId, Call>,
    pub(super) online: bool,
    /// Has the supernodes asked for servers of STUN and TURN, and says when they have answered.
    pub(super) joined: mpsc::Sender<()>,
    pub(super) servers_answered: mpsc::Receiver<()>,
    /// When the user hears at the latest that the overlay was joined: a call that is made at once wants the servers.
    pub(super) online_by: Option<Instant>,
    pub(super) dropped: u64,
    /// Set once the softphone is stopping.
    pub(super) leave_by: Option<Instant>,
}

impl Task {
    pub(super) async fn run(mut self) {
        loop {
            let calls_due = self.calls.values().filter_map(Call::next_deadline);
            let due = calls_due.chain(self.leave_by).chain(self.online_by).min();
            let leaving = self.leave_by.is_some();
            tokio::select! {
                event = self.node_events.recv() => match event {
                    Some(event) => self.handle_node(event).await,
                    None => break,
                },
                Some((call, event)) = self.media_events.recv() => self.handle_media(call, event),
                Some(()) = self.servers_answered.recv() => self.report_online(),
                command = self.commands.recv(), if !leaving => match command {
                    Some(command) => self.handle_command(command).await,
                    None => self.leave(),
                },
                () = wait_until(due) => {
                    if self.leave_by.is_some_and(|at| at <= Instant::now()) {
                        break;
                    }
                    self.handle_timeout().await;
                }
            }
        }
        // The node is gone: calls that have ended still owe their last event.
        while self.calls.values().any(Call::has_ended) {
            let event = tokio::time::timeout(Duration::from_secs(1), self.media_events.recv()).await;
            let Ok(Some((call, event))) = event else { break };
            self.handle_media(call, event);
        }
        tokio::time::sleep(LINGER).await;
    }

    fn leave(&mut self) {
        self.leave_by = Some(Instant::now() + FAREWELL_LIMIT);
        let node = self.node.clone();
        tokio::spawn(async move { node.shutdown(FAREWELL).await });
    }

    async fn handle_timeout(&mut self) {
        let now = Instant::now();
        if self.online_by.is_some_and(|at| at <= now) {
            self.report_online();
        }
        let due: Vec<CallId> = self
            .calls
            .iter()
            .filter(|(_, call)| call.next_deadline().is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let Some(call) = self.calls.get_mut(&id) else { continue };
            if call.answer_at.take_if(|at| *at <= now).is_some() {
                self.negotiate(id, Answering::Final);
            } else if call.hang_up_at.take_if(|at| *at <= now).is_some() {
                self.hang_up(id, Cause::NORMAL_CALL_CLEARING, "");
            }
        }
    }

    async fn handle_command(&mut self, command: Command) {
        match command {
            Command::Call { to, display_name, private, ring_timeout, options } => {
                self.call(to, display_name, private, ring_timeout, options).await;
            }
            Command::Answer { call, options } => {
                let Some(id) = self.which(call) else { return };
                if let (Some(call), Some(options)) = (self.calls.get_mut(&id), options) {
                    call.options = options;
                }
                self.negotiate(id, Answering::Final);
            }
            Command::Progress { call, clip } => {
                let Some(id) = self.which(call) else { return };
                self.negotiate(id, Answering::Early(clip));
            }
            Command::Reject { call, cause, sip_status } => {
                let Some(id) = self.which(call) else { return };
                if self.calls.get(&id).is_some_and(Call::is_waiting) {
                    self.tell(id, SessionCommand::Reject { cause, sip_status, text: String::new() });
                } else {
                    self.complain(id, "the call does not wait for an answer", "use `hangup`");
                }
            }
            Command::HangUp { call, cause } => {
                if let Some(id) = self.which(call) {
                    self.hang_up(id, cause, "");
                }
            }
            Command::Hold { call, on } => {
                let Some(id) = self.which(call) else { return };
                let Some(call) = self.calls.get_mut(&id).filter(|call| call.is_answered()) else {
                    self.complain(id, "only an answered call can be held", "wait for the `answered` event");
                    return;
                };
                call.held_here = on;
                self.apply_hold(id);
                self.tell(id, SessionCommand::Hold { on });
                self.report(Event::Hold { call: id, on, by: "local" });
            }
            Command::Dtmf { call, digits } => {
                let Some(id) = self.which(call) else { return };
                self.dial(id, digits);
            }
            Command::Message { call, text } => {
                if let Some(id) = self.which(call) {
                    self.tell(id, SessionCommand::Message { text });
                }
            }
            Command::Transfer { call, target } => {
                if let Some(id) = self.which(call) {
                    self.transfer(id, target);
                }
            }
            Command::Presence { availability, note } => {
                self.tell_presence(PresenceCommand::Set { availability, note });
            }
            Command::Contacts(contacts) => {
                self.tell_presence(PresenceCommand::Contacts(contacts));
            }
            Command::Rules { everybody, allowed, refused } => {
                self.tell_presence(PresenceCommand::Rules { everybody, allowed, refused });
            }
            Command::Text { to, text } => self.send_text(to, text),
            Command::Numbers(assignments) => {
                let numbers = assignments.iter().map(|one| one.claims().number.to_string()).collect();
                let held = self.node.hold_numbers(assignments).await;
                self.report(match held {
                    Ok(()) => Event::Numbers { numbers },
                    Err(error) => Event::error(None, &error, "the numbers of before stay"),
                });
            }
            Command::Play { call, clip } => self.tell_media(call, MediaCommand::Play(clip)),
            Command::Echo { call, on } => self.tell_media(call, MediaCommand::Echo(on)),
            Command::Record { call, path } => self.tell_media(call, MediaCommand::Record(path)),
            Command::Policy(policy) => self.policy = policy,
            Command::Certificate(certificate, lists) => {
                for list in lists {
                    // A node that has stopped ends its events: that is noticed there.
                    let _ = self.node.send(NodeCommand::Revocations(list)).await;
                }
                let not_after_unix = certificate.claims().validity.not_after;
                let changed = self.node.change_certificate(Credential::Handle(*certificate)).await;
                self.report(match changed {
                    Ok(()) => Event::Certificate { not_after_unix },
                    Err(error) => Event::error(None, &error, "the certificate in use stays"),
                });
            }
            Command::Show(event) => self.report(event),
            Command::Status => {
                let status = self.node.status().await;
                self.report(Event::Status {
                    online: self.online,
                    peers: status.peers,
                    reservations: status.reservations_held,
                    calls: self.calls.keys().map(ToString::to_string).collect(),
                    events_dropped: self.dropped,
                });
            }
            Command::Quit => self.leave(),
        }
    }

    pub(super) async fn call(
        &mut self,
        to: Address,
        display_name: Option<String>,
        private: bool,
        ring_timeout: Duration,
        options: CallOptions,
    ) {
        if self.calls.len() >= MAX_CALLS {
            let message = format!("{MAX_CALLS} calls are in progress");
            self.report(Event::error(Some("to"), message, "hang up one of them first"));
            return;
        }
        let call = new_call_id();
        // Numbers are reached through gateways only.
        let through_gateway = matches!(to, Address::Number(_));
        let media = match media::open(&self.media, call, reach(through_gateway)) {
            Ok(media) => media,
            Err(error) => {
                self.report(Event::error(None, error, "check --media-address"));
                return;
            }
        };
        media.send(MediaCommand::Offer);
        if let Some(path) = options.record.clone() {
            media.send(MediaCommand::Record(path));
        }
        let from = Caller {
            address: Some(self.caller.clone()),
            display_name: display_name.as_deref().and_then(Caller::clean_display_name),
            private,
        };
        self.report(Event::Calling { call, to: to.to_string() });
        let party = to.clone();
        let mut outgoing = Call::outgoing(media, Preparing { from, to, ring_timeout }, options);
        outgoing.through_gateway = through_gateway;
        outgoing.party = Some(party);
        self.calls.insert(call, outgoing);
    }

    /// Ends a call of which the node does not know.
    fn end_unsent(&mut self, call: CallId, cause: Cause, text: &str) {
        let event = SessionEvent::Ended {
            cause,
            sip_status: None,
            text: text.to_owned(),
            by: p2p_edge::calling::EndedBy::Local,
        };
        self.handle_ended(call, event);
    }

    /// The media of a call has described itself, or cannot.
    fn handle_described(&mut self, id: CallId, sdp: Result<String, MediaError>) {
        let Some(call) = self.calls.get_mut(&id).filter(|call| !call.has_ended()) else { return };
        match (std::mem::replace(&mut call.negotiation, Negotiation::Done), sdp) {
            (Negotiation::Preparing(invite), Ok(media)) => {
                call.negotiation = Negotiation::Offered;
                let Preparing { from, to, ring_timeout } = *invite;
                let invite = NodeCommand::Invite { call: id, from, to, media, ring_timeout };
                if self.node.try_send(invite).is_err() {
                    let cause = Cause::SWITCHING_EQUIPMENT_CONGESTION;
                    self.end_unsent(id, cause, "the overlay node takes no more commands");
                }
            }
            (Negotiation::Preparing(_), Err(error)) => {
                call.media_failed = true;
                self.complain(id, error, "check --media-address");
                self.end_unsent(id, Cause::BEARER_CAPABILITY_NOT_AVAILABLE, "no media");
            }
            (Negotiation::Answering(how), Ok(answer)) => self.send_answer(id, answer, how),
            (Negotiation::Answering(_), Err(error)) => self.refuse_media(id, &error),
            (before, _) => call.negotiation = before,
        }
    }

    fn refuse_media(&mut self, id: CallId, error: &dyn std::fmt::Display) {
        if let Some(call) = self.calls.get_mut(&id) {
            call.media_failed = true;
        }
        let cause = Cause::INCOMPATIBLE_DESTINATION;
        let text = "media negotiation failed".to_owned();
        self.tell(id, SessionCommand::Reject { cause, sip_status: Some(488), text });
        self.complain(id, error, "check --media-address and what the caller offers");
    }

    async fn handle_node(&mut self, event: NodeEvent) {
        match event {
            NodeEvent::Listening { address } => self.report(Event::Listening { address }),
            NodeEvent::Online => {
                self.online = true;
                self.online_by = Some(Instant::now() + SERVERS_PATIENCE);
                // They are being asked already where the notice finds no room.
                let _ = self.joined.try_send(());
            }
            NodeEvent::Offline { reason } => {
                self.online = false;
                self.online_by = None;
                self.report(Event::Offline { reason });
            }
            NodeEvent::Incoming { call, from, to, media } => self.incoming(call, from, to, media).await,
            NodeEvent::Call { call, event: SessionEvent::Refer { target } } => {
                self.asked_to_call(call, target).await;
            }
            NodeEvent::Call { call, event } => self.handle_call(call, event),
            NodeEvent::Presence(event) => self.handle_presence(event),
        }
    }

    fn report_online(&mut self) {
        if self.online_by.take().is_some() {
            self.report(Event::Online);
        }
    }

    async fn incoming(&mut self, id: CallId, from: VerifiedCaller, to: Address, offer: String) {
        let VerifiedCaller { caller, role, .. } = from;
        let shown = caller.address.filter(|_| !caller.private);
        let party = shown.clone();
        self.report(Event::Incoming {
            call: id,
            from: shown.map(|address| address.to_string()),
            display_name: caller.display_name.filter(|_| !caller.private),
            private: caller.private,
            role: match role {
                CallerRole::User => "user",
                CallerRole::Gateway => "gateway",
            },
            to: to.to_string(),
        });
        let AnswerPolicy { mut mode, options, reject_anonymous, .. } = self.policy.clone();
        let anonymous = reject_anonymous && caller.private;
        if anonymous {
            mode = AnswerMode::Reject;
        }
        if self.calls.len() >= MAX_CALLS {
            mode = AnswerMode::Busy;
        }
        let mut call = Call::incoming(offer, options);
        call.through_gateway = role == CallerRole::Gateway;
        call.party = party;
        call.plan(&mode, Instant::now());
        if !matches!(mode, AnswerMode::Busy | AnswerMode::Reject) {
            // While the telephone rings, candidates are gathered.
            match media::open(&self.media, id, reach(call.through_gateway)) {
                Ok(media) => call.media = Some(media),
                Err(error) => {
                    self.calls.insert(id, call);
                    self.refuse_media(id, &error);
                    return;
                }
            }
        }
        self.calls.insert(id, call);
        let text = String::new();
        match mode {
            AnswerMode::Busy => {
                let cause = Cause::USER_BUSY;
                self.tell(id, SessionCommand::Reject { cause, sip_status: Some(486), text });
            }
            AnswerMode::Reject if anonymous => {
                // RFC 5079: the caller may call again and be shown.
                let (cause, text) =
                    (Cause::ANONYMOUS_CALL_REJECTED, "anonymous calls are refused".to_owned());
                self.tell(id, SessionCommand::Reject { cause, sip_status: Some(433), text });
            }
            AnswerMode::Reject => {
                let cause = Cause::CALL_REJECTED;
                self.tell(id, SessionCommand::Reject { cause, sip_status: Some(603), text });
            }
            AnswerMode::Early { clip, .. } => {
                self.tell(id, SessionCommand::Trying);
                self.negotiate(id, Answering::Early(clip));
            }
            AnswerMode::Manual | AnswerMode::After(_) | AnswerMode::Never => {
                self.tell(id, SessionCommand::Trying);
                self.tell(id, SessionCommand::Ringing);
            }
        }
    }

    /// Describes the media of a call that came in, so that it goes out in the way given.
    fn negotiate(&mut self, id: CallId, how: Answering) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        match std::mem::replace(&mut call.negotiation, Negotiation::Done) {
            Negotiation::Early { answer } => self.send_answer(id, answer, how),
            Negotiation::Waiting { offer } => {
                call.negotiation = Negotiation::Answering(how);
                if let Some(media) = &call.media {
                    if let Some(path) = call.options.record.clone() {
                        media.send(MediaCommand::Record(path));
                    }
                    media.send(MediaCommand::Answer(offer));
                }
            }
            // It is being made: the latest word counts.
            Negotiation::Answering(_) => call.negotiation = Negotiation::Answering(how),
            before @ (Negotiation::Preparing(_) | Negotiation::Offered | Negotiation::Done) => {
                call.negotiation = before;
                self.complain(id, "the call does not wait for an answer", "answer a call that came in");
            }
        }
    }

    fn send_answer(&mut self, id: CallId, answer: String, how: Answering) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        match how {
            Answering::Early(clip) => {
                if let (Some(media), Some(clip)) = (&call.media, clip) {
                    media.send(MediaCommand::Play(clip));
                }
                call.negotiation = Negotiation::Early { answer: answer.clone() };
                self.tell(id, SessionCommand::Progress { media: answer });
                self.report(Event::Early { call: id });
            }
            Answering::Final => {
                call.negotiation = Negotiation::Done;
                call.answered(Instant::now());
                self.tell(id, SessionCommand::Answer { media: answer });
                self.report(Event::Answered { call: id });
                self.tell_candidates(id);
                self.begin(id);
            }
        }
    }

    /// Tells the other side of the candidates that have come before the answer.
    fn tell_candidates(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        for candidate in call.take_candidates() {
            self.tell(id, SessionCommand::Candidate { candidate });
        }
    }

    fn handle_call(&mut self, id: CallId, event: SessionEvent) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        match event {
            SessionEvent::Trying => self.report(Event::Trying { call: id }),
            SessionEvent::Ringing => self.report(Event::Ringing { call: id }),
            SessionEvent::Progress { media } => {
                accept(call, media);
                self.report(Event::Early { call: id });
            }
            SessionEvent::Answered { media } => {
                accept(call, media);
                call.answered(Instant::now());
                let replaced = call.options.replaces.take();
                self.report(Event::Answered { call: id });
                self.tell_candidates(id);
                self.begin(id);
                if let Some(other) = replaced.filter(|other| self.calls.contains_key(other)) {
                    self.hang_up(other, Cause::NORMAL_CALL_CLEARING, TRANSFERRED);
                }
            }
            SessionEvent::Candidate { candidate } => {
                if let Some(media) = &call.media {
                    media.send(MediaCommand::Candidate(candidate));
                }
            }
            SessionEvent::Hold { on } => {
                call.held_there = on;
                self.apply_hold(id);
                self.report(Event::Hold { call: id, on, by: "far" });
            }
            SessionEvent::Dtmf { digit, duration_ms } => {
                call.heard_digit(digit);
                let digit = digit.as_char();
                self.report(Event::Dtmf { call: id, digit, duration_ms, via: "signalling" });
            }
            SessionEvent::Connected { party } => {
                let Caller { address, display_name, private } = party;
                // Between users certificates say who is there.
                if call.through_gateway {
                    let shown = address.filter(|_| !private).map(|address| address.to_string());
                    let display_name = display_name.filter(|_| !private);
                    self.report(Event::Connected { call: id, party: shown, display_name, private });
                }
            }
            SessionEvent::Message { text } => self.report(Event::Message { call: id, text }),
            SessionEvent::NotSupported { request } => {
                let message = format!("the other side does not support `{request}`");
                self.complain(id, message, "go on without it");
            }
            event @ SessionEvent::Ended { .. } => self.handle_ended(id, event),
            SessionEvent::Invited(_) | SessionEvent::Refer { .. } | SessionEvent::Exchange(_) => {}
        }
    }

    /// The last event waits for what media has measured.
    fn handle_ended(&mut self, id: CallId, event: SessionEvent) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.end(Instant::now(), event);
        if let Some(consult) = call.ends_with_it.take().filter(|other| self.calls.contains_key(other)) {
            self.hang_up(consult, Cause::NORMAL_CALL_CLEARING, TRANSFERRED);
        }
        let Some(call) = self.calls.get_mut(&id) else { return };
        match call.media.take() {
            // Where the queue is full, the end of the queue says the same.
            Some(media) => drop(media.send(MediaCommand::Stop)),
            None => self.forget(id, None),
        }
    }

    fn forget(&mut self, id: CallId, quality: Option<call_model::LegQuality>) {
        if let Some(ended) = self.calls.remove(&id).and_then(|call| call.ended(id, quality)) {
            self.report(Event::Ended(ended));
        }
    }

    /// Starts the script of a call that has both answer and media.
    fn begin(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if !call.begin(Instant::now()) {
            return;
        }
        let digits = call.take_digits();
        if let Some(media) = &call.media {
            if let Some(clip) = call.options.play.take() {
                media.send(MediaCommand::Play(clip));
            } else if call.options.echo {
                media.send(MediaCommand::Echo(true));
            }
        }
        self.dial(id, digits.into());
    }

    fn dial(&mut self, id: CallId, digits: Vec<DtmfDigit>) {
        let Some(media) = self.calls.get(&id).and_then(|call| call.media.as_ref()) else {
            self.complain(id, "the call has no media yet", "wait for the `media_up` event");
            return;
        };
        if !digits.into_iter().all(|digit| media.send(MediaCommand::Dtmf(digit))) {
            self.complain(id, "too many digits at once", "send at most 100 digits, 280 ms each");
        }
    }

    fn apply_hold(&mut self, id: CallId) {
        if let Some(call) = self.calls.get(&id)
            && let Some(media) = &call.media
        {
            media.send(MediaCommand::Hold(call.held_here || call.held_there));
        }
    }

    pub(super) fn hang_up(&mut self, id: CallId, cause: Cause, text: &str) {
        let call = self.calls.get(&id);
        if call.is_some_and(|call| matches!(call.negotiation, Negotiation::Preparing(_)) && !call.has_ended())
        {
            self.end_unsent(id, cause, text);
            return;
        }
        self.tell(id, SessionCommand::Bye { cause, text: text.to_owned() });
    }

    pub(super) fn tell(&mut self, call: CallId, command: SessionCommand) {
        if self.node.try_send(NodeCommand::Call { call, command }).is_err() {
            self.complain(call, "the overlay node takes no more commands", "try again");
        }
    }

    fn tell_media(&mut self, call: Option<CallId>, command: MediaCommand) {
        let Some(id) = self.which(call) else { return };
        let taken =
            self.calls.get(&id).and_then(|call| call.media.as_ref()).is_some_and(|media| media.send(command));
        if !taken {
            self.complain(id, "the call has no media yet", "wait for the `media_up` event");
        }
    }

    /// Finds the call that a command means.
    fn which(&mut self, call: Option<CallId>) -> Option<CallId> {
        let mut open = self.calls.iter().filter(|(_, call)| !call.has_ended()).map(|(id, _)| *id);
        let found = match call {
            Some(call) => open.find(|id| *id == call),
            None => open.next().filter(|_| open.next().is_none()),
        };
        if found.is_none() {
            let (message, remedy) = match call {
                Some(call) => {
                    (format!("there is no call {call}"), "use the id of an `incoming` or `calling` event")
                }
                None => ("there is not exactly one call".to_owned(), "name the call"),
            };
            self.report(Event::error(Some("call"), message, remedy));
        }
        found
    }

    pub(super) fn complain(&mut self, call: CallId, message: impl ToString, remedy: &str) {
        self.report(Event::Error {
            call: Some(call),
            field: None,
            message: message.to_string(),
            remedy: remedy.to_owned(),
        });
    }

    /// Reports an event. Calls must go on when nobody reads: then events are dropped and counted.
    pub(super) fn report(&mut self, event: Event) {
        if self.events.try_send(event).is_err() {
            self.dropped += 1;
        }
    }
}

/// Takes the description of the other side, the first that comes: that of the answer repeats that
/// of early media.
fn accept(call: &mut Call, media: String) {
    if matches!(call.negotiation, Negotiation::Offered) {
        call.negotiation = Negotiation::Done;
        if let Some(handle) = &call.media {
            handle.send(MediaCommand::Accept(media));
        }
    }
}

fn reach(through_gateway: bool) -> Reach {
    if through_gateway { Reach::Gateway } else { Reach::User }
}

async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

fn new_call_id() -> CallId {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let random = u128::from(getrandom::u64().unwrap_or_default()) << 64
        | u128::from(getrandom::u64().unwrap_or_default());
    CallId::new(u64::try_from(unix.as_millis()).unwrap_or_default(), random)
}
