use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use call_model::{Address, CallId, Caller, DigitFilter, Handle, Side, TrunkName};
use sip_trunk::CallDetails;

use super::record::{CallRecord, Phase, RouteDirection};
use super::successor::Successor;
use call_model::{Gate, Verdict};

/// How far a leg has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not begun.
    Idle,
    /// Begun and not over.
    Open,
    /// Asked to end; its word is awaited.
    Releasing,
    /// Over.
    Done,
}

/// Which of the two legs of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The one that the call came by.
    Caller,
    /// The one by which it goes on.
    Callee,
}

impl Role {
    pub(super) fn other(self) -> Self {
        match self {
            Role::Caller => Role::Callee,
            Role::Callee => Role::Caller,
        }
    }
}

/// One of the two legs of a call.
#[derive(Clone, Debug)]
pub(super) struct Leg {
    /// What is at its end.
    pub(super) side: Side,
    pub(super) state: State,
    /// The call that the SIP endpoint knows a trunk's leg as.
    pub(super) sip: CallId,
    /// The trunk, once one was chosen; it counts against its limit.
    pub(super) trunk: Option<TrunkName>,
    /// Where a trunk sends RTP, once the ports are open.
    pub(super) rtp: Option<SocketAddr>,
    /// Its far side holds.
    pub(super) held: bool,
    /// It was asked to hold, because the other leg's far side does.
    pub(super) holds: bool,
    /// Its session carries T.38 instead of audio.
    pub(super) image: bool,
    /// It was silent and is asked whether anybody is there.
    pub(super) probed: bool,
    /// Tells the digits that come both with media and by signalling.
    pub(super) digits: DigitFilter,
}

impl Leg {
    fn new(side: Side, call: CallId) -> Self {
        Self {
            side,
            state: State::Idle,
            sip: call,
            trunk: None,
            rtp: None,
            held: false,
            holds: false,
            image: false,
            probed: false,
            digits: DigitFilter::default(),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    pub(super) fn is_overlay(&self) -> bool {
        self.side == Side::Overlay
    }
}

/// One live call.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) record: CallRecord,
    pub(super) caller: Leg,
    pub(super) callee: Leg,
    /// SDP for an overlay user who called.
    pub(super) overlay_sdp: Option<String>,
    /// The callee's media description has gone where it belongs: to the caller as early media, or,
    /// of an overlay user, to the media worker.
    pub(super) early_told: bool,
    pub(super) overlay_answer_applied: bool,
    /// The callee rang and has described its media since: early media begins with its first packet.
    pub(super) early_waits: bool,
    pub(super) media_open: bool,
    /// Whom the call goes to, and by which trunks it may still be tried.
    pub(super) called: Option<Address>,
    pub(super) trunks_left: VecDeque<TrunkName>,
    /// A leg that is to take the place of one of the two.
    pub(super) successor: Option<Box<Successor>>,
    /// The call whose media meets this one's instead of a far side, and its leg there.
    pub(super) joined: Option<(CallId, Role)>,
    /// The leg whose far side offers T.38 and waits for the word of the other.
    pub(super) image_offer: Option<Role>,
    /// What a trunk said of the call, for the next.
    pub(super) details: Arc<CallDetails>,
    /// Who is connected on the trunk, to be told to the overlay user once the call is answered.
    pub(super) connected: Option<Box<Caller>>,
    /// What an overlay user who called is told beside the cause.
    pub(super) goodbye: String,
    /// The overlay user that counts against the limit per user.
    pub(super) user: Option<Handle>,
    /// When a leg that stays silent although its far side is there ends the call; stands in the
    /// switch's queue.
    pub(super) silent_until: Option<Instant>,
    /// When it is dropped although a leg has not confirmed its end; stands in the switch's queue.
    pub(super) drop_at: Option<Instant>,
}

impl Call {
    pub(super) fn new(record: CallRecord) -> Self {
        let (caller, callee) = match record.direction {
            RouteDirection::OverlayToTrunk => (Side::Overlay, Side::Trunk),
            RouteDirection::TrunkToOverlay => (Side::Trunk, Side::Overlay),
            RouteDirection::TrunkToTrunk => (Side::Trunk, Side::Onward),
        };
        Self {
            caller: Leg::new(caller, record.id),
            callee: Leg::new(callee, record.id),
            record,
            overlay_sdp: None,
            early_told: false,
            overlay_answer_applied: false,
            early_waits: false,
            media_open: false,
            called: None,
            trunks_left: VecDeque::new(),
            successor: None,
            joined: None,
            image_offer: None,
            details: Arc::default(),
            connected: None,
            goodbye: String::new(),
            user: None,
            silent_until: None,
            drop_at: None,
        }
    }

    pub(super) fn leg(&self, role: Role) -> &Leg {
        match role {
            Role::Caller => &self.caller,
            Role::Callee => &self.callee,
        }
    }

    pub(super) fn leg_mut(&mut self, role: Role) -> &mut Leg {
        match role {
            Role::Caller => &mut self.caller,
            Role::Callee => &mut self.callee,
        }
    }

    /// Finds the leg on a side.
    pub(super) fn role_of(&self, side: Side) -> Option<Role> {
        [Role::Caller, Role::Callee].into_iter().find(|&role| self.leg(role).side == side)
    }

    pub(super) fn is_answered(&self) -> bool {
        self.record.answered.is_some()
    }

    pub(super) fn is_over(&self) -> bool {
        let over = |leg: &Leg| matches!(leg.state, State::Idle | State::Done);
        over(&self.caller) && over(&self.callee)
    }

    pub(super) fn alerted(&mut self, now: Instant, phase: Phase) {
        if self.record.phase < phase {
            self.record.phase = phase;
        }
        let after = self.record.since_start(now);
        self.record.alerted.get_or_insert(after);
    }

    pub(super) fn answered(&mut self, now: Instant, rule: &str, detail: &str) {
        if !self.is_answered() {
            self.record.phase = Phase::Active;
            self.record.answered = Some(self.record.since_start(now));
            self.record.decide(Gate::FarAnswer, Verdict::Pass, rule, detail);
        }
    }
}
