//! One call with one remote device, in either role.
//!
//! ```text
//!            invite     trying    ringing    progress     answer    MediaUp    update
//! Idle -> Inviting -> Trying -> Ringing -> Early ----> Answered -> Active <-> Held
//!    \________\__________\_________\__________\___________\___________\________/
//!                  bye, cancel, reject, a timer, a broken rule
//!                                    |
//!                          Ending (last request unacknowledged) -> Done
//! ```
//! `Ended` is reported once, on the way into `Ending` or `Done`. A call that has ended still
//! flushes its last frames: drive it until [`CallSession::is_finished`].

mod api;
mod receive;
mod timer;

pub use api::{
    CommandError, EndedBy, ResumeError, Role, SessionCommand, SessionCounters, SessionEvent, SessionState,
    SessionTimers,
};

use std::collections::VecDeque;
use std::time::Instant;

use call_model::{Actor, CallId, Cause, Exchange, Protocol};

use super::frame::{AckCode, Body, Frame, FrameError, Invite, ResumeToken, check_name};
use super::wire::FrameDecoder;
use super::{MAX_DTMF_MS, MAX_MEDIA, MAX_TEXT};
use timer::{Budget, Deadlines};

/// Requests that may wait for their acknowledgement before a command is refused. Frames that end
/// the call are always taken.
const MAX_UNACKNOWLEDGED: usize = 64;
/// Events that may wait for the user of the call before the other side counts as a flood.
const MAX_EVENTS: usize = 1024;

/// One overlay call with one remote device, in either role. Sans-IO; see the module.
#[derive(Debug)]
pub struct CallSession {
    call: CallId,
    role: Role,
    state: SessionState,
    timers: SessionTimers,
    token: ResumeToken,
    /// Whether the other side has agreed that the call may move to another stream.
    resumable: bool,
    attached: bool,
    /// A `resume` was sent on this stream and its acknowledgement has not come.
    resuming: bool,
    media_up: bool,
    local_hold: bool,
    remote_hold: bool,
    acknowledged: bool,
    /// Whether a `refer` of the other side is passed on.
    takes_refer: bool,

    decoder: FrameDecoder,
    next_sequence: u32,
    last_received: u32,
    unacknowledged: VecDeque<Unacknowledged>,
    transmit: VecDeque<Vec<u8>>,
    events: VecDeque<SessionEvent>,
    deadlines: Deadlines,
    budget: Budget,
    last_error: Option<FrameError>,
    counters: SessionCounters,
}

#[derive(Debug)]
struct Unacknowledged {
    sequence: u32,
    refer: bool,
    bytes: Vec<u8>,
}

/// How a call ends, as the user hears it.
struct Ending {
    cause: Cause,
    sip_status: Option<u16>,
    text: String,
    by: EndedBy,
}

impl CallSession {
    /// Starts a call on a stream that is open, and queues the invite. `token` is 128 bits from a
    /// cryptographic random source, one per session.
    ///
    /// # Errors
    /// `Invalid` where a field of the invite is too long or its display name is not clean.
    pub fn outgoing(
        invite: Invite,
        token: ResumeToken,
        timers: SessionTimers,
        now: Instant,
    ) -> Result<Self, CommandError> {
        invite.check().map_err(CommandError::Invalid)?;
        let mut session = Self::new(invite.call, Role::Caller, token, timers, now);
        session.deadlines.acknowledge = Some(now + timers.acknowledge);
        session.deadlines.ringing = Some(now + timers.ringing);
        session.request(now, Body::Invite { invite: Box::new(invite), token });
        Ok(session)
    }

    /// Takes a call from the first frame of a stream that another device has opened. The first
    /// event is `Invited`. Hand the bytes that follow the frame to [`CallSession::handle_bytes`].
    ///
    /// # Errors
    /// `NotAnInvite` for any other frame.
    pub fn incoming(first: Frame, timers: SessionTimers, now: Instant) -> Result<Self, FrameError> {
        let Frame { sequence: 1, body: Body::Invite { invite, token } } = first else {
            return Err(FrameError::NotAnInvite);
        };
        let mut session = Self::new(invite.call, Role::Callee, token, timers, now);
        session.state = SessionState::Inviting;
        session.acknowledged = true;
        session.resumable = true;
        session.last_received = 1;
        session.counters.frames_in = 1;
        session.deadlines.ringing = Some(now + timers.ringing + timers.ringing_margin);
        session.exchange(Role::Caller, "invite");
        session.events.push_back(SessionEvent::Invited(*invite));
        session.acknowledge(AckCode::Ok, Some(token));
        Ok(session)
    }

    fn new(call: CallId, role: Role, token: ResumeToken, timers: SessionTimers, now: Instant) -> Self {
        Self {
            call,
            role,
            state: SessionState::Idle,
            timers,
            token,
            resumable: false,
            attached: true,
            resuming: false,
            media_up: false,
            local_hold: false,
            remote_hold: false,
            acknowledged: false,
            takes_refer: false,
            decoder: FrameDecoder::new(),
            next_sequence: 1,
            last_received: 0,
            unacknowledged: VecDeque::new(),
            transmit: VecDeque::new(),
            events: VecDeque::new(),
            deadlines: Deadlines::new(now, &timers),
            budget: Budget::new(now),
            last_error: None,
            counters: SessionCounters::default(),
        }
    }

    /// Carries out what the user of the call wants. Ends of a call are forgiving: `Bye`, `Cancel`
    /// and `Reject` become the frame that the state asks for.
    ///
    /// # Errors
    /// `Ended` after the call has ended, `State` where the command has no place, `Congested` where
    /// the other side does not acknowledge, `Invalid` for a field out of bounds. Nothing is sent.
    pub fn handle_command(&mut self, now: Instant, command: SessionCommand) -> Result<(), CommandError> {
        if self.has_ended() {
            return Err(CommandError::Ended);
        }
        check(&command)?;
        let ends = matches!(
            command,
            SessionCommand::Bye { .. } | SessionCommand::Cancel { .. } | SessionCommand::Reject { .. }
        );
        if !ends && self.unacknowledged.len() >= MAX_UNACKNOWLEDGED {
            return Err(CommandError::Congested);
        }
        let callee_unanswered = self.role == Role::Callee && !self.is_answered();
        match command {
            SessionCommand::Trying | SessionCommand::Ringing | SessionCommand::Progress { .. }
                if !callee_unanswered =>
            {
                return Err(CommandError::State);
            }
            SessionCommand::Trying => {
                if self.state == SessionState::Inviting {
                    self.state = SessionState::Trying;
                    self.request(now, Body::Trying);
                }
            }
            SessionCommand::Ringing => {
                if matches!(self.state, SessionState::Inviting | SessionState::Trying) {
                    self.state = SessionState::Ringing;
                    self.request(now, Body::Ringing);
                }
            }
            SessionCommand::Progress { media } => {
                self.state = SessionState::Early;
                self.request(now, Body::Progress { media });
            }
            SessionCommand::Answer { media } => {
                if !callee_unanswered {
                    return Err(CommandError::State);
                }
                self.request(now, Body::Answer { media });
                self.enter_answered(now);
            }
            SessionCommand::MediaUp => self.media_is_up(),
            SessionCommand::Hold { on } => {
                if !self.is_answered() {
                    return Err(CommandError::State);
                }
                if self.local_hold != on {
                    self.local_hold = on;
                    self.request(now, Body::Update { hold: on });
                    self.settle_hold();
                }
            }
            SessionCommand::Dtmf { digit, duration_ms } => {
                if !self.is_answered() && self.state != SessionState::Early {
                    return Err(CommandError::State);
                }
                self.request(now, Body::Dtmf { digit, duration_ms });
            }
            SessionCommand::Message { text } => self.when_reached(now, Body::Message { text })?,
            SessionCommand::Connected { party } => {
                if !self.is_answered() {
                    return Err(CommandError::State);
                }
                self.request(now, Body::Connected { party });
            }
            SessionCommand::Candidate { candidate } => {
                self.when_reached(now, Body::Candidate { candidate })?;
            }
            SessionCommand::Refer { target } => {
                if !self.is_answered() {
                    return Err(CommandError::State);
                }
                self.request(now, Body::Refer { target });
            }
            SessionCommand::Reject { cause, sip_status, text } => {
                if self.role == Role::Caller {
                    return Err(CommandError::State);
                }
                self.end_locally(now, Ending { cause, sip_status, text, by: EndedBy::Local });
            }
            SessionCommand::Bye { cause, text } => {
                self.end_locally(now, Ending { cause, sip_status: None, text, by: EndedBy::Local });
            }
            SessionCommand::Cancel { answered_elsewhere } => {
                let ending = Ending {
                    cause: cancel_cause(answered_elsewhere),
                    sip_status: Some(487),
                    text: cancel_text(answered_elsewhere).to_owned(),
                    by: EndedBy::Local,
                };
                self.end_locally(now, ending);
            }
        }
        Ok(())
    }

    /// Takes note that the stream is lost. Media goes on: a call whose other side has agreed can
    /// be put on another stream until the resume timer runs out; any other call ends.
    pub fn handle_closed(&mut self, now: Instant) {
        if !self.attached {
            return;
        }
        self.attached = false;
        self.resuming = false;
        self.decoder = FrameDecoder::new();
        self.transmit.clear();
        let window = if self.is_answered() { self.timers.resume } else { self.timers.resume_unanswered };
        match self.state {
            SessionState::Done => {}
            SessionState::Ending if self.resumable && !self.unacknowledged.is_empty() => {
                // The other side may not have heard that the call is over: give it the time in
                // which it still believes in the call.
                self.deadlines.ending = self.deadlines.ending.max(Some(now + self.timers.resume));
            }
            SessionState::Ending => self.become_done(),
            _ if self.resumable => {
                self.deadlines.resume.get_or_insert(now + window);
            }
            _ => self.lose(if self.acknowledged {
                Cause::TEMPORARY_FAILURE
            } else {
                Cause::DESTINATION_OUT_OF_ORDER
            }),
        }
    }

    /// Says whether the caller's driver should open a new stream to the same device and call
    /// [`CallSession::resume`]. A stream that is still open is dead by then: drop it.
    pub fn wants_resume(&self) -> bool {
        self.role == Role::Caller && !self.attached && self.state != SessionState::Done
    }

    /// Puts the call on a new stream that the caller's driver has opened: asks the other side to
    /// resume, and sends what was not acknowledged once it agrees.
    ///
    /// # Errors
    /// `NotCaller` at the callee, which waits for the caller; `NotLost` while a stream carries the
    /// call; `Over` when the call is done.
    pub fn resume(&mut self, now: Instant) -> Result<(), ResumeError> {
        match (self.role, self.state) {
            (_, SessionState::Done) => return Err(ResumeError::Over),
            (Role::Callee, _) => return Err(ResumeError::NotCaller),
            (Role::Caller, _) if self.attached => return Err(ResumeError::NotLost),
            (Role::Caller, _) => {}
        }
        self.attached = true;
        self.resuming = true;
        self.deadlines.request = Some(now + self.timers.request);
        let body = Body::Resume { call: self.call, token: self.token, received: self.last_received };
        self.transmit.push_back(Frame { sequence: 0, body }.encode());
        Ok(())
    }

    /// Puts the call on a new stream whose first frame was `resume`. The stream that carried it
    /// before, if the driver still has it, is to be dropped.
    ///
    /// # Errors
    /// `NotCallee` at the caller, `Refused` where call or token are not those of this session,
    /// `Over` when the call is done. Answer with [`Frame::resume_refused`].
    pub fn reattach(&mut self, now: Instant, first: &Frame) -> Result<(), ResumeError> {
        let Body::Resume { call, token, received } = &first.body else { return Err(ResumeError::Refused) };
        if self.role == Role::Caller {
            return Err(ResumeError::NotCallee);
        }
        if *call != self.call || !token.matches(&self.token) || *received >= self.next_sequence {
            return Err(ResumeError::Refused);
        }
        if self.state == SessionState::Done {
            return Err(ResumeError::Over);
        }
        self.transmit.clear();
        self.decoder = FrameDecoder::new();
        self.attached = true;
        self.heard(now);
        self.deadlines.resume = None;
        self.counters.resumed += 1;
        self.acknowledge(AckCode::Resumed, None);
        self.forget_acknowledged(now, *received);
        self.send_again(now);
        if self.state == SessionState::Ending {
            self.deadlines.ending = Some(now + self.timers.ending);
        }
        Ok(())
    }

    /// Passes on what the other side asks for by `refer`, which is refused otherwise.
    #[must_use]
    pub fn taking_refer(mut self, takes: bool) -> Self {
        self.takes_refer = takes;
        self
    }

    /// Another device waits in the place of this one: where the stream is lost before the answer, the
    /// call is given up unless it is on another stream by then.
    pub fn resume_by(&mut self, at: Instant) {
        if !self.is_answered() && !self.has_ended() {
            self.deadlines.resume = self.deadlines.resume.map(|deadline| deadline.min(at));
        }
    }

    /// Gives up a call whose stream was lost before the answer.
    pub fn give_up(&mut self) {
        if self.deadlines.resume.is_some() && !self.is_answered() && !self.has_ended() {
            self.lose(Cause::NETWORK_OUT_OF_ORDER);
        }
    }

    /// Returns the next bytes for the stream, one whole frame.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        let bytes = self.transmit.pop_front()?;
        if self.state == SessionState::Idle {
            self.state = SessionState::Inviting;
        }
        self.counters.frames_out += 1;
        Some(bytes)
    }

    /// Returns the next event.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    /// Returns the id of the call.
    pub fn call(&self) -> CallId {
        self.call
    }

    /// Returns which side of the call this is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Returns the state.
    pub fn state(&self) -> SessionState {
        self.state
    }

    /// Says whether the other device has acknowledged the invite.
    pub fn is_acknowledged(&self) -> bool {
        self.acknowledged
    }

    /// Says whether the call was answered and has not ended.
    pub fn is_answered(&self) -> bool {
        matches!(self.state, SessionState::Answered | SessionState::Active | SessionState::Held)
    }

    /// Says whether `Ended` was reported.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, SessionState::Ending | SessionState::Done)
    }

    /// Says whether nothing is left to do or to read: the driver closes the stream and drops it.
    pub fn is_finished(&self) -> bool {
        self.state == SessionState::Done && self.transmit.is_empty() && self.events.is_empty()
    }

    /// Returns what the last refused frame was refused for, for the driver's counters.
    pub fn last_error(&self) -> Option<FrameError> {
        self.last_error
    }

    /// Returns what was counted so far.
    pub fn counters(&self) -> &SessionCounters {
        &self.counters
    }

    fn enter_answered(&mut self, now: Instant) {
        self.deadlines.ringing = None;
        self.state = SessionState::Answered;
        self.deadlines.ping = Some(now + self.timers.ping);
        if !self.attached {
            self.deadlines.resume = Some(now + self.timers.resume);
        }
        if self.media_up {
            self.settle_hold();
        } else {
            self.deadlines.media = Some(now + self.timers.media);
        }
    }

    /// Media may come up before the answer (early media); then the answer makes the call active.
    fn media_is_up(&mut self) {
        self.media_up = true;
        self.deadlines.media = None;
        if self.state == SessionState::Answered {
            self.settle_hold();
        }
    }

    fn settle_hold(&mut self) {
        if self.media_up && self.is_answered() {
            let held = self.local_hold || self.remote_hold;
            self.state = if held { SessionState::Held } else { SessionState::Active };
        }
    }

    fn when_reached(&mut self, now: Instant, body: Body) -> Result<(), CommandError> {
        if !self.acknowledged {
            return Err(CommandError::State);
        }
        self.request(now, body);
        Ok(())
    }

    /// Ends the call from this side with the frame that role and state ask for.
    fn end_locally(&mut self, now: Instant, ending: Ending) {
        let body = match (self.role, self.is_answered()) {
            (_, true) => Body::Bye { cause: ending.cause, text: ending.text.clone() },
            (Role::Caller, false) => {
                Body::Cancel { answered_elsewhere: ending.cause == Cause::NON_SELECTED_USER_CLEARING }
            }
            (Role::Callee, false) => {
                Body::Reject { cause: ending.cause, sip_status: ending.sip_status, text: ending.text.clone() }
            }
        };
        self.request(now, body);
        self.report_end(ending);
        self.state = SessionState::Ending;
        let until = now + self.timers.ending;
        let lost_until = self.deadlines.resume.take();
        self.deadlines.clear_for_ending(Some(until).max(lost_until));
        if !self.attached && !self.resumable {
            self.become_done();
        }
    }

    /// Ends the call because the other side has, or can no longer be told.
    fn end_silently(&mut self, ending: Ending) {
        self.report_end(ending);
        self.become_done();
    }

    fn lose(&mut self, cause: Cause) {
        let text = "the signalling connection was lost".to_owned();
        self.end_silently(Ending { cause, sip_status: None, text, by: EndedBy::Lost });
    }

    fn report_end(&mut self, ending: Ending) {
        let Ending { cause, sip_status, text, by } = ending;
        self.events.push_back(SessionEvent::Ended { cause, sip_status, text, by });
    }

    fn become_done(&mut self) {
        self.state = SessionState::Done;
        self.unacknowledged.clear();
        self.deadlines = Deadlines::default();
    }

    /// Numbers, remembers and, where a stream carries the call, sends a request.
    fn request(&mut self, now: Instant, body: Body) {
        if !matches!(body, Body::Ping) {
            self.exchange(self.role, body.name());
        }
        let refer = matches!(body, Body::Refer { .. });
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let bytes = Frame { sequence, body }.encode();
        if self.attached && !self.resuming {
            self.transmit.push_back(bytes.clone());
            let wait = self.request_wait();
            self.deadlines.request.get_or_insert(now + wait);
        }
        self.unacknowledged.push_back(Unacknowledged { sequence, refer, bytes });
    }

    fn acknowledge(&mut self, code: AckCode, token: Option<ResumeToken>) {
        let body = Body::Ack { acknowledged: self.last_received, code, token };
        self.transmit.push_back(Frame { sequence: 0, body }.encode());
    }

    fn forget_acknowledged(&mut self, now: Instant, acknowledged: u32) {
        while self.unacknowledged.front().is_some_and(|frame| frame.sequence <= acknowledged) {
            self.unacknowledged.pop_front();
        }
        let waiting = !self.unacknowledged.is_empty() && self.attached;
        self.deadlines.request = waiting.then_some(now + self.request_wait());
        if self.unacknowledged.is_empty() && self.state == SessionState::Ending {
            self.become_done();
        }
    }

    fn send_again(&mut self, now: Instant) {
        for frame in &self.unacknowledged {
            self.transmit.push_back(frame.bytes.clone());
        }
        let waiting = !self.unacknowledged.is_empty();
        self.deadlines.request = waiting.then_some(now + self.timers.request);
    }

    /// Reports a frame for the ladder of the call. This end of the session is the gateway's.
    fn exchange(&mut self, sender: Role, label: &str) {
        let (from, to) = if sender == self.role {
            (Actor::Gateway, Actor::Overlay)
        } else {
            (Actor::Overlay, Actor::Gateway)
        };
        let exchange = Exchange { from, to, protocol: Protocol::Overlay, label: label.into() };
        self.events.push_back(SessionEvent::Exchange(exchange));
    }
}

fn cancel_cause(answered_elsewhere: bool) -> Cause {
    if answered_elsewhere { Cause::NON_SELECTED_USER_CLEARING } else { Cause::NORMAL_CALL_CLEARING }
}

fn cancel_text(answered_elsewhere: bool) -> &'static str {
    if answered_elsewhere { "answered elsewhere" } else { "cancelled" }
}

fn check(command: &SessionCommand) -> Result<(), CommandError> {
    let (field, length, limit) = match command {
        SessionCommand::Progress { media } | SessionCommand::Answer { media } => {
            ("media", media.len(), MAX_MEDIA)
        }
        SessionCommand::Message { text }
        | SessionCommand::Bye { text, .. }
        | SessionCommand::Reject { text, .. } => ("text", text.len(), MAX_TEXT),
        SessionCommand::Candidate { candidate } => ("candidate", candidate.len(), MAX_TEXT),
        SessionCommand::Connected { party } => return check_name(party).map_err(CommandError::Invalid),
        SessionCommand::Dtmf { duration_ms, .. } if *duration_ms > MAX_DTMF_MS => {
            return Err(CommandError::Invalid(FrameError::BadField("duration_ms")));
        }
        _ => return Ok(()),
    };
    if length > limit { Err(CommandError::Invalid(FrameError::FieldTooLong(field))) } else { Ok(()) }
}
