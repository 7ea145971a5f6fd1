//! What goes into a session and what comes out of it.

use std::time::Duration;

use call_model::{Address, Caller, Cause, DtmfDigit, Exchange};

use crate::calling::frame::{FrameError, Invite};

/// Which side of a call a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sent the invite.
    Caller,
    /// Received it.
    Callee,
}

impl Role {
    /// Returns the role of the other side.
    pub fn other(self) -> Self {
        match self {
            Role::Caller => Role::Callee,
            Role::Callee => Role::Caller,
        }
    }
}

/// The state of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SessionState {
    /// The invite waits for the stream.
    Idle,
    /// The invite is on its way or has just come.
    Inviting,
    /// The callee's node works on it.
    Trying,
    /// The callee is being alerted.
    Ringing,
    /// Media flows before the answer.
    Early,
    /// Answered; ICE and DTLS are at work.
    Answered,
    /// Answered and media is up.
    Active,
    /// Active, and at least one side holds.
    Held,
    /// Ended; the last request waits for its acknowledgement.
    Ending,
    /// Over.
    Done,
}

impl SessionState {
    /// Returns the name used in metrics and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            SessionState::Idle => "idle",
            SessionState::Inviting => "inviting",
            SessionState::Trying => "trying",
            SessionState::Ringing => "ringing",
            SessionState::Early => "early",
            SessionState::Answered => "answered",
            SessionState::Active => "active",
            SessionState::Held => "held",
            SessionState::Ending => "ending",
            SessionState::Done => "done",
        }
    }
}

/// How long a session waits, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionTimers {
    /// For the acknowledgement of the invite.
    pub acknowledge: Duration,
    /// For the answer, from the invite on; a matter of policy, at most 180 s.
    pub ringing: Duration,
    /// What the callee waits beyond `ringing`, so that it is the caller who gives up.
    pub ringing_margin: Duration,
    /// For media, from the answer on.
    pub media: Duration,
    /// For another stream when the one of an answered call is lost.
    pub resume: Duration,
    /// For another stream when the one of an unanswered call is lost.
    pub resume_unanswered: Duration,
    /// For the acknowledgement of any later request before the stream counts as lost.
    pub request: Duration,
    /// For the acknowledgement of the request that ends the call.
    pub ending: Duration,
    /// Of silence before a `ping` while the caller waits for an answer: somebody is waiting.
    pub alive: Duration,
    /// For the acknowledgement of a request meanwhile before the stream counts as lost.
    pub alive_request: Duration,
    /// Of silence before a `ping`.
    pub ping: Duration,
    /// Of silence before the call counts as lost.
    pub liveness: Duration,
}

impl Default for SessionTimers {
    fn default() -> Self {
        Self {
            acknowledge: Duration::from_secs(4),
            ringing: Duration::from_secs(120),
            ringing_margin: Duration::from_secs(5),
            media: Duration::from_secs(8),
            resume: Duration::from_secs(45),
            resume_unanswered: Duration::from_secs(6),
            request: Duration::from_secs(10),
            ending: Duration::from_secs(4),
            alive: Duration::from_secs(2),
            alive_request: Duration::from_millis(2500),
            ping: Duration::from_secs(5 * 60),
            liveness: Duration::from_secs(15 * 60),
        }
    }
}

impl SessionTimers {
    /// Returns the timers with another ringing time, capped at 180 s.
    #[must_use]
    pub fn with_ringing(self, ringing: Duration) -> Self {
        Self { ringing: ringing.min(Duration::from_secs(180)), ..self }
    }
}

/// What the user of a call may ask for.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionCommand {
    /// Callee: the call is being worked on.
    Trying,
    /// Callee: the user is being alerted.
    Ringing,
    /// Callee: early media, with an SDP answer of at most 8 KiB.
    Progress {
        /// SDP answer.
        media: String,
    },
    /// Callee: the user has answered, with an SDP answer of at most 8 KiB (that of `Progress`, if
    /// there was one).
    Answer {
        /// SDP answer.
        media: String,
    },
    /// Either: ICE and DTLS are up. Must come within 8 s of the answer, or the call ends. May come
    /// before the answer, and more than once.
    MediaUp,
    /// Callee: refuses the call.
    Reject {
        /// Why.
        cause: Cause,
        /// SIP status that says it best, 300 to 699.
        sip_status: Option<u16>,
        /// Free text, at most 512 bytes.
        text: String,
    },
    /// Either: ends the call, whatever its state.
    Bye {
        /// Why.
        cause: Cause,
        /// Free text, at most 512 bytes.
        text: String,
    },
    /// Caller: gives the call up.
    Cancel {
        /// Another device has answered.
        answered_elsewhere: bool,
    },
    /// Either: holds the other side, or takes it back.
    Hold {
        /// Hold or take back.
        on: bool,
    },
    /// Either: a digit that could not go in media.
    Dtmf {
        /// The digit.
        digit: DtmfDigit,
        /// Milliseconds, at most 6000.
        duration_ms: u16,
    },
    /// Either: text to the user, at most 512 bytes.
    Message {
        /// The text.
        text: String,
    },
    /// Either: who is connected on this side now, where that has changed since the answer. What is
    /// not to be shown is left out.
    Connected {
        /// The party.
        party: Caller,
    },
    /// Either: one more ICE candidate, at most 512 bytes.
    Candidate {
        /// The value of an SDP `candidate` attribute.
        candidate: String,
    },
    /// Either: asks the other side to call someone else.
    Refer {
        /// Whom.
        target: Address,
    },
}

/// What happened in a call.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionEvent {
    /// Callee: the call came in. Always the first event of an incoming session.
    Invited(Invite),
    /// Caller: the other node works on it.
    Trying,
    /// Caller: the other user is being alerted.
    Ringing,
    /// Caller: early media.
    Progress {
        /// SDP answer.
        media: String,
    },
    /// Caller: answered.
    Answered {
        /// SDP answer.
        media: String,
    },
    /// The other side holds, or has taken back.
    Hold {
        /// Whether it holds.
        on: bool,
    },
    /// A digit that came outside of media.
    Dtmf {
        /// The digit.
        digit: DtmfDigit,
        /// Milliseconds, at most 6000.
        duration_ms: u16,
    },
    /// Text from the other user.
    Message {
        /// The text, at most 512 bytes. May hold any character.
        text: String,
    },
    /// Another is connected on the other side than before, as that side says. Nothing proves it: only
    /// a gateway's word for a number is to be believed.
    Connected {
        /// The party; its display name is clean.
        party: Caller,
    },
    /// One more ICE candidate of the other side.
    Candidate {
        /// The value of an SDP `candidate` attribute.
        candidate: String,
    },
    /// The other side asks this one to call someone else, who is to take its place in the call. Who is
    /// called, and at whose cost, is for the user of the call to decide.
    Refer {
        /// Whom.
        target: Address,
    },
    /// The other side does not do what was asked.
    NotSupported {
        /// Name of the request, such as `refer`.
        request: &'static str,
    },
    /// The call is over. Exactly one per session, and the last event.
    Ended {
        /// Why.
        cause: Cause,
        /// SIP status, where one side named one.
        sip_status: Option<u16>,
        /// Free text, at most 512 bytes.
        text: String,
        /// Who ended it.
        by: EndedBy,
    },
    /// A frame was sent or received, for the ladder of the call.
    Exchange(Exchange),
}

/// Who ended a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndedBy {
    /// The other side.
    Far,
    /// This side: a command, or a rule that the other side broke.
    Local,
    /// A timer.
    Timeout,
    /// The loss of the stream.
    Lost,
}

impl EndedBy {
    /// Returns the name used in metrics and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            EndedBy::Far => "far",
            EndedBy::Local => "local",
            EndedBy::Timeout => "timeout",
            EndedBy::Lost => "lost",
        }
    }
}

/// Says why a command was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The call has ended.
    #[error("the call has ended")]
    Ended,
    /// The command has no place in the state or role of the call.
    #[error("the command has no place in the present state of the call")]
    State,
    /// The other side has not acknowledged the last 64 requests.
    #[error("the other side does not acknowledge: too many requests are waiting")]
    Congested,
    /// A field is out of bounds.
    #[error("the command is invalid: {0}")]
    Invalid(FrameError),
}

/// Says why a call was not put on another stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// The callee waits for the caller.
    #[error("only the caller opens another stream")]
    NotCaller,
    /// The caller is not resumed by others.
    #[error("only the callee is resumed by the other side")]
    NotCallee,
    /// A stream carries the call.
    #[error("the stream of the call is not lost")]
    NotLost,
    /// Call, token or numbers do not match.
    #[error("the call or its token do not match")]
    Refused,
    /// The call is done.
    #[error("the call is over")]
    Over,
}

/// What a session has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounters {
    /// Frames received whole and well-formed.
    pub frames_in: u64,
    /// Frames handed to the stream, repetitions included.
    pub frames_out: u64,
    /// Frames of unknown type: acknowledged and skipped.
    pub unknown: u64,
    /// Frames without a place in the state: acknowledged and skipped.
    pub misplaced: u64,
    /// Frames that had been received before.
    pub duplicate: u64,
    /// Requests that this end does not do.
    pub not_supported: u64,
    /// Frames refused; see [`FrameError::as_str`].
    pub refused: u64,
    /// Times the call was put on another stream.
    pub resumed: u64,
}
