//! What a softphone knows of one call.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use call_model::{Address, CallId, Caller, DtmfDigit, LegQuality};
use p2p_edge::calling::{EndedBy, SessionEvent};

use crate::audio::Clip;
use crate::event::{Ended, Quality};
use crate::media::MediaHandle;
use crate::softphone::{AnswerMode, CallOptions};

/// Digits received that are kept for the `ended` event.
const MAX_DIGITS_KEPT: usize = 256;
/// Candidates that are kept for the answer.
const MAX_CANDIDATES_KEPT: usize = 16;

/// Which way a call goes, and what its negotiation waits for.
pub(crate) enum Negotiation {
    /// Outgoing: the offer is being made, for this invite.
    Preparing(Box<Preparing>),
    /// Outgoing: the offer is out, no answer was accepted yet.
    Offered,
    /// Incoming: the offer waits for an answer.
    Waiting { offer: String },
    /// Incoming: the answer is being made, to be sent in this way.
    Answering(Answering),
    /// Incoming: early media was answered with this description; the final answer repeats it.
    Early { answer: String },
    /// Both descriptions are known.
    Done,
}

/// An invite without its offer.
pub(crate) struct Preparing {
    pub(crate) from: Caller,
    pub(crate) to: Address,
    pub(crate) ring_timeout: Duration,
}

/// How a description goes out to the caller.
pub(crate) enum Answering {
    /// As early media, in which this is played.
    Early(Option<Clip>),
    /// As the answer.
    Final,
}

pub(crate) struct Call {
    pub(crate) negotiation: Negotiation,
    pub(crate) media: Option<MediaHandle>,
    pub(crate) options: CallOptions,
    /// Who is on the other side, as far as that is shown.
    pub(crate) party: Option<Address>,
    /// The call that ends when this one is transferred: that in which its target was consulted.
    pub(crate) ends_with_it: Option<CallId>,
    /// The other side is a gateway, whose word for a number counts.
    pub(crate) through_gateway: bool,
    pub(crate) media_up: bool,
    pub(crate) media_failed: bool,
    pub(crate) held_here: bool,
    pub(crate) held_there: bool,
    pub(crate) answer_at: Option<Instant>,
    pub(crate) hang_up_at: Option<Instant>,
    answered_at: Option<Instant>,
    digits: String,
    end: Option<(Instant, SessionEvent)>,
    /// Candidates of this side that the other cannot be told of before the answer.
    candidates: Vec<String>,
}

impl Call {
    pub(crate) fn outgoing(media: MediaHandle, invite: Preparing, options: CallOptions) -> Self {
        Self::new(Negotiation::Preparing(Box::new(invite)), Some(media), options)
    }

    pub(crate) fn incoming(offer: String, options: CallOptions) -> Self {
        Self::new(Negotiation::Waiting { offer }, None, options)
    }

    fn new(negotiation: Negotiation, media: Option<MediaHandle>, options: CallOptions) -> Self {
        Self {
            negotiation,
            media,
            options,
            party: None,
            ends_with_it: None,
            through_gateway: false,
            media_up: false,
            media_failed: false,
            held_here: false,
            held_there: false,
            answer_at: None,
            hang_up_at: None,
            answered_at: None,
            digits: String::new(),
            end: None,
            candidates: Vec::new(),
        }
    }

    /// Applies what the answering mode plans for a call that has just come in.
    pub(crate) fn plan(&mut self, mode: &AnswerMode, now: Instant) {
        self.answer_at = match mode {
            AnswerMode::After(wait) | AnswerMode::Early { wait, .. } => Some(now + *wait),
            AnswerMode::Manual | AnswerMode::Never | AnswerMode::Busy | AnswerMode::Reject => None,
        };
    }

    pub(crate) fn answered(&mut self, now: Instant) {
        self.answered_at.get_or_insert(now);
        self.answer_at = None;
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.answered_at.is_some()
    }

    /// Says whether the call waits for this side to answer.
    pub(crate) fn is_waiting(&self) -> bool {
        use Negotiation::{Answering, Early, Waiting};
        matches!(self.negotiation, Waiting { .. } | Answering(_) | Early { .. })
    }

    /// Keeps a candidate until the call is answered. Returns it where it already is.
    pub(crate) fn keep_candidate(&mut self, candidate: String) -> Option<String> {
        if self.is_answered() {
            return Some(candidate);
        }
        if self.candidates.len() < MAX_CANDIDATES_KEPT {
            self.candidates.push(candidate);
        }
        None
    }

    /// Takes the candidates that were kept.
    pub(crate) fn take_candidates(&mut self) -> Vec<String> {
        std::mem::take(&mut self.candidates)
    }

    /// Says whether both answer and media are there, so that the script of the call can begin, and
    /// begins its time.
    pub(crate) fn begin(&mut self, now: Instant) -> bool {
        let begins = self.is_answered() && self.media_up && self.end.is_none();
        if begins && self.hang_up_at.is_none() {
            self.hang_up_at = self.options.duration.map(|duration| now + duration);
        }
        begins
    }

    /// Makes sure that the call is over by `at`.
    pub(crate) fn hang_up_by(&mut self, at: Instant) {
        if !self.has_ended() {
            self.hang_up_at = Some(self.hang_up_at.map_or(at, |planned| planned.min(at)));
        }
    }

    /// Takes the digits of the script, once.
    pub(crate) fn take_digits(&mut self) -> VecDeque<DtmfDigit> {
        std::mem::take(&mut self.options.dtmf).into()
    }

    pub(crate) fn heard_digit(&mut self, digit: DtmfDigit) {
        if self.digits.len() < MAX_DIGITS_KEPT {
            self.digits.push(digit.as_char());
        }
    }

    pub(crate) fn end(&mut self, now: Instant, event: SessionEvent) {
        self.end.get_or_insert((now, event));
        (self.answer_at, self.hang_up_at) = (None, None);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.answer_at.into_iter().chain(self.hang_up_at).min()
    }

    /// Builds the last event of the call.
    pub(crate) fn ended(&self, call: CallId, quality: Option<LegQuality>) -> Option<Ended> {
        let (at, SessionEvent::Ended { cause, sip_status, text, by }) = self.end.as_ref()? else {
            return None;
        };
        let duration =
            self.answered_at.map_or_else(Default::default, |since| at.saturating_duration_since(since));
        Some(Ended {
            call,
            cause: cause.value(),
            cause_text: cause.to_string(),
            sip_status: *sip_status,
            text: text.clone(),
            by: EndedBy::as_str(*by),
            answered: self.answered_at.is_some(),
            media_up: self.media_up,
            media_failed: self.media_failed,
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            digits: self.digits.clone(),
            quality: quality.filter(|_| self.media_up).map(Quality::from),
        })
    }
}
