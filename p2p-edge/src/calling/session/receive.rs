//! What a session does with the frames of the other side.

use std::time::Instant;

use call_model::Cause;

use super::{
    AckCode, Body, CallSession, EndedBy, Ending, Frame, FrameError, MAX_EVENTS, ResumeToken, Role,
    SessionEvent, SessionState, cancel_cause, cancel_text,
};

impl CallSession {
    /// Takes bytes of the stream, split in any way. A frame that breaks the protocol ends the call:
    /// without its number it cannot be acknowledged.
    pub fn handle_bytes(&mut self, now: Instant, mut bytes: &[u8]) {
        while self.attached && self.state != SessionState::Done && !bytes.is_empty() {
            match self.decoder.feed(&mut bytes) {
                Ok(Some(frame)) if self.events.len() < MAX_EVENTS && self.budget.take(now) => {
                    self.handle_frame(now, frame);
                }
                Ok(Some(_)) => self.refuse(now, FrameError::Flood),
                Ok(None) => {}
                Err(error) => self.refuse(now, error),
            }
        }
    }

    fn handle_frame(&mut self, now: Instant, frame: Frame) {
        self.counters.frames_in += 1;
        self.heard(now);
        match frame.body {
            Body::Ack { acknowledged, code, token } => self.acked(now, acknowledged, code, token),
            Body::Resume { .. } => self.refuse(now, FrameError::NotAnInvite),
            _ if self.resuming => self.refuse(now, FrameError::SequenceGap),
            _ if frame.sequence <= self.last_received => {
                self.counters.duplicate += 1;
                self.acknowledge(AckCode::Ok, None);
            }
            _ if frame.sequence != self.last_received + 1 => self.refuse(now, FrameError::SequenceGap),
            body => {
                self.last_received = frame.sequence;
                self.handle_request(now, body);
            }
        }
    }

    /// Ends the call over a frame that cannot be understood. The stream has no boundaries to go on
    /// with, so nothing more is read from it.
    fn refuse(&mut self, now: Instant, error: FrameError) {
        self.counters.refused += 1;
        self.last_error = Some(error);
        if self.has_ended() {
            self.become_done();
            return;
        }
        let cause = if error == FrameError::Flood {
            Cause::SWITCHING_EQUIPMENT_CONGESTION
        } else {
            Cause::PROTOCOL_ERROR
        };
        self.end_locally(
            now,
            Ending { cause, sip_status: None, text: error.to_string(), by: EndedBy::Local },
        );
        self.become_done();
    }

    fn acked(&mut self, now: Instant, acknowledged: u32, code: AckCode, token: Option<ResumeToken>) {
        if code == AckCode::ResumeRefused {
            if self.resuming && !self.has_ended() {
                self.lose(Cause::NETWORK_OUT_OF_ORDER);
            } else if self.resuming {
                self.become_done();
            }
            return;
        }
        if acknowledged >= self.next_sequence || (code == AckCode::Resumed) != self.resuming {
            self.counters.misplaced += 1;
            return;
        }
        if code == AckCode::NotSupported
            && !self.has_ended()
            && self.unacknowledged.iter().any(|frame| frame.sequence == acknowledged && frame.refer)
        {
            self.events.push_back(SessionEvent::NotSupported { request: "refer" });
        }
        if self.resuming {
            self.resuming = false;
            self.deadlines.resume = None;
            self.counters.resumed += 1;
            self.forget_acknowledged(now, acknowledged);
            self.send_again(now);
            return;
        }
        if !self.acknowledged && acknowledged >= 1 {
            self.acknowledged = true;
            self.deadlines.acknowledge = None;
            self.deadlines.ping = Some(now + self.ping_after());
            self.resumable = token.is_some_and(|token| token.matches(&self.token));
        }
        self.forget_acknowledged(now, acknowledged);
    }

    fn handle_request(&mut self, now: Instant, body: Body) {
        let code = if self.has_ended() { self.after_the_end(&body) } else { self.apply(now, body) };
        match code {
            AckCode::Misplaced => self.counters.misplaced += 1,
            AckCode::NotSupported => self.counters.not_supported += 1,
            _ => {}
        }
        self.acknowledge(code, None);
    }

    /// Both sides may end the call at once: the other's last word is the last of all.
    fn after_the_end(&mut self, body: &Body) -> AckCode {
        if matches!(body, Body::Bye { .. } | Body::Cancel { .. } | Body::Reject { .. }) {
            self.become_done();
        }
        AckCode::Ok
    }

    fn apply(&mut self, now: Instant, body: Body) -> AckCode {
        let caller_waits = self.role == Role::Caller && !self.is_answered();
        match &body {
            Body::Ping => return AckCode::Ok,
            Body::Unknown { .. } => {
                self.counters.unknown += 1;
                return AckCode::Ok;
            }
            _ => self.exchange(self.role.other(), body.name()),
        }
        match body {
            Body::Trying | Body::Ringing | Body::Progress { .. } | Body::Answer { .. } if !caller_waits => {
                return AckCode::Misplaced;
            }
            Body::Trying => {
                if self.state < SessionState::Trying {
                    self.state = SessionState::Trying;
                    self.events.push_back(SessionEvent::Trying);
                }
            }
            Body::Ringing => {
                self.state = self.state.max(SessionState::Ringing);
                self.events.push_back(SessionEvent::Ringing);
            }
            Body::Progress { media } => {
                self.state = SessionState::Early;
                self.events.push_back(SessionEvent::Progress { media });
            }
            Body::Answer { media } => {
                self.events.push_back(SessionEvent::Answered { media });
                self.enter_answered(now);
            }
            Body::Candidate { candidate } => self.events.push_back(SessionEvent::Candidate { candidate }),
            Body::Update { hold } => {
                if !self.is_answered() {
                    return AckCode::Misplaced;
                }
                if self.remote_hold != hold {
                    self.remote_hold = hold;
                    self.settle_hold();
                    self.events.push_back(SessionEvent::Hold { on: hold });
                }
            }
            Body::Dtmf { digit, duration_ms } => {
                if !self.is_answered() && self.state != SessionState::Early {
                    return AckCode::Misplaced;
                }
                self.events.push_back(SessionEvent::Dtmf { digit, duration_ms });
            }
            Body::Message { text } => self.events.push_back(SessionEvent::Message { text }),
            Body::Connected { party } => {
                if !self.is_answered() {
                    return AckCode::Misplaced;
                }
                self.events.push_back(SessionEvent::Connected { party });
            }
            Body::Refer { .. } if !self.takes_refer => return AckCode::NotSupported,
            Body::Refer { target } => {
                if !self.is_answered() {
                    return AckCode::Misplaced;
                }
                self.events.push_back(SessionEvent::Refer { target });
            }
            Body::Bye { cause, text } => {
                self.end_silently(Ending { cause, sip_status: None, text, by: EndedBy::Far });
            }
            // A cancel that crossed the answer still ends the call.
            Body::Cancel { answered_elsewhere } if self.role == Role::Callee => {
                self.end_silently(Ending {
                    cause: cancel_cause(answered_elsewhere),
                    sip_status: Some(487),
                    text: cancel_text(answered_elsewhere).to_owned(),
                    by: EndedBy::Far,
                });
            }
            Body::Reject { cause, sip_status, text } if self.role == Role::Caller => {
                self.end_silently(Ending { cause, sip_status, text, by: EndedBy::Far });
            }
            Body::Invite { .. } | Body::Cancel { .. } | Body::Reject { .. } => return AckCode::Misplaced,
            Body::Ping | Body::Ack { .. } | Body::Resume { .. } | Body::Unknown { .. } => {}
        }
        AckCode::Ok
    }
}
