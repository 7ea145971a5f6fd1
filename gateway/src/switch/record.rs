use std::time::{Duration, Instant};

use call_model::{
    CallId, Caller, Cause, Codec, Decision, Exchange, Gate, LegQuality, Outcome, Side, TrunkName, Verdict,
    printable,
};

use super::media::WholeCall;

/// Messages of a call that are kept; later ones are counted.
const MAX_EXCHANGES: usize = 200;
/// Room that a record grows by: a call between two trunks has 14 messages until it is answered, and six more at its
/// end.
const EXCHANGES_ON: usize = 7;
const DECISIONS_ON: usize = 4;
/// Characters of one text from the network that are kept, of a sentence around such a text, and of
/// the name of a message.
pub(super) const MAX_TEXT: usize = 128;
const MAX_SENTENCE: usize = 256;
const MAX_LABEL: usize = 64;

/// Which way a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteDirection {
    /// An overlay user calls a number.
    OverlayToTrunk,
    /// A PBX or carrier calls an overlay user.
    TrunkToOverlay,
    /// A PBX or carrier calls a number that another leads to.
    TrunkToTrunk,
}

impl RouteDirection {
    /// Every direction, for metrics that pre-register their series.
    pub const ALL: [RouteDirection; 3] =
        [RouteDirection::OverlayToTrunk, RouteDirection::TrunkToOverlay, RouteDirection::TrunkToTrunk];

    /// Returns the name used in metrics and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            RouteDirection::OverlayToTrunk => "overlay_to_trunk",
            RouteDirection::TrunkToOverlay => "trunk_to_overlay",
            RouteDirection::TrunkToTrunk => "trunk_to_trunk",
        }
    }
}

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nothing from the far side yet.
    Setup,
    /// The far side rings.
    Ringing,
    /// Media flows before the answer.
    Early,
    /// Answered.
    Active,
    /// Being released.
    Releasing,
    /// Over.
    Ended,
}

/// Who ended a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleasedBy {
    /// The overlay user.
    Overlay,
    /// The PBX or carrier; of a call between two trunks, the one it came by.
    Trunk,
    /// The PBX or carrier by which a call from another trunk went on.
    Onward,
    /// This gateway: a gate, a timer, the operator.
    Gateway,
}

impl ReleasedBy {
    /// Returns the name used by the API.
    pub fn as_str(self) -> &'static str {
        match self {
            ReleasedBy::Overlay => "overlay",
            ReleasedBy::Trunk => "trunk",
            ReleasedBy::Onward => "onward",
            ReleasedBy::Gateway => "gateway",
        }
    }
}

/// All that is remembered of a call.
#[derive(Clone, Debug)]
pub struct CallRecord {
    /// The call.
    pub id: CallId,
    /// Which way it goes.
    pub direction: RouteDirection,
    /// Where it stands.
    pub phase: Phase,
    /// Who calls.
    pub from: Caller,
    /// Whom, as it was dialled.
    pub to: String,
    /// The trunk, once one was chosen; of a call between two trunks, the one it came by.
    pub trunk: Option<TrunkName>,
    /// The trunk by which a call from another trunk goes on, once one was chosen.
    pub onward: Option<TrunkName>,
    /// Who is connected on the trunk, where it said so and that is not the number called.
    pub connected: Option<Box<Caller>>,
    /// Wall clock at the beginning, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// The beginning.
    pub started: Instant,
    /// First ringing or early media, since the beginning.
    pub alerted: Option<Duration>,
    /// Answer, since the beginning.
    pub answered: Option<Duration>,
    /// End, since the beginning.
    pub ended: Option<Duration>,
    /// Why it ended.
    pub cause: Option<Cause>,
    /// SIP status that came from the trunk, or went to it, with a refusal.
    pub sip_status: Option<u16>,
    /// Result class.
    pub outcome: Option<Outcome>,
    /// Who ended it.
    pub released_by: Option<ReleasedBy>,
    /// Every gate's word.
    pub decisions: Vec<Decision>,
    /// Messages, with the time since the beginning.
    pub exchanges: Vec<(Duration, Exchange)>,
    /// Messages beyond the bound.
    pub exchanges_dropped: u64,
    /// Codec of the trunk leg.
    pub trunk_codec: Option<Codec>,
    /// Codec of the leg by which a call from another trunk goes on.
    pub onward_codec: Option<Codec>,
    /// Media received from the overlay.
    pub overlay_quality: LegQuality,
    /// Media received from the trunk.
    pub trunk_quality: LegQuality,
    /// Media received from the trunk by which a call from another goes on.
    pub onward_quality: LegQuality,
    /// What both legs show together.
    pub whole: WholeCall,
    /// What the SIP endpoint knows that leg as.
    pub(super) onward_leg: Option<CallId>,
    /// The legs whose trunks want a report of their quality once its figures are complete, with what the SIP
    /// endpoint knew each as.
    pub(super) reports_due: Vec<(Side, CallId)>,
    /// Digits that passed.
    pub dtmf_digits: u32,
}

impl CallRecord {
    pub(super) fn new(
        id: CallId,
        direction: RouteDirection,
        from: Caller,
        to: String,
        now: Instant,
        unix_ms: u64,
    ) -> Self {
        let display_name = from.display_name.as_deref().and_then(Caller::clean_display_name);
        let (from, to) = (Caller { display_name, ..from }, printable(&to, MAX_TEXT));
        Self {
            id,
            direction,
            phase: Phase::Setup,
            from,
            to,
            trunk: None,
            onward: None,
            connected: None,
            started_unix_ms: unix_ms,
            started: now,
            alerted: None,
            answered: None,
            ended: None,
            cause: None,
            sip_status: None,
            outcome: None,
            released_by: None,
            decisions: Vec::new(),
            exchanges: Vec::new(),
            exchanges_dropped: 0,
            trunk_codec: None,
            onward_codec: None,
            overlay_quality: LegQuality::default(),
            trunk_quality: LegQuality::default(),
            onward_quality: LegQuality::default(),
            whole: WholeCall::default(),
            onward_leg: None,
            reports_due: Vec::new(),
            dtmf_digits: 0,
        }
    }

    pub(super) fn since_start(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    pub(super) fn exchange(&mut self, now: Instant, mut exchange: Exchange) {
        if self.exchanges.len() < MAX_EXCHANGES {
            exchange.label = printable(&exchange.label, MAX_LABEL).into();
            if self.exchanges.len() == self.exchanges.capacity() {
                self.exchanges.reserve_exact(EXCHANGES_ON);
            }
            self.exchanges.push((self.since_start(now), exchange));
        } else {
            self.exchanges_dropped += 1;
        }
    }

    pub(super) fn decide(&mut self, gate: Gate, verdict: Verdict, rule: &str, detail: impl Into<String>) {
        // A call that is tried on many trunks must not grow without end.
        if self.decisions.len() < 64 {
            let detail = printable(&detail.into(), MAX_SENTENCE).into();
            if self.decisions.len() == self.decisions.capacity() {
                self.decisions.reserve_exact(DECISIONS_ON);
            }
            self.decisions.push(Decision { gate, verdict, rule: rule.into(), detail });
        }
    }

    /// Returns one paragraph that tells a person why the call went as it did.
    pub fn summary(&self) -> String {
        let from = match &self.from.address {
            Some(address) => address.to_string(),
            None => "an anonymous caller".into(),
        };
        let way = match self.direction {
            RouteDirection::OverlayToTrunk => "from the overlay",
            RouteDirection::TrunkToOverlay | RouteDirection::TrunkToTrunk => "from the trunk",
        };
        let mut text = format!("{from} called {} {way}", self.to);
        if let Some(trunk) = &self.trunk {
            text += &format!(" by trunk {trunk}");
        }
        if let Some(onward) = &self.onward {
            text += &format!(" and trunk {onward}");
        }
        text += ". ";
        if let Some(refusal) =
            self.decisions.iter().rev().find(|decision| decision.verdict == Verdict::Refuse)
        {
            text += &format!(
                "The {} gate refused ({}): {}. ",
                refusal.gate.as_str(),
                refusal.rule,
                refusal.detail
            );
        }
        match self.answered {
            Some(after) => text += &format!("It was answered after {} ms", after.as_millis()),
            None if self.ended.is_some() => text += "It was not answered",
            None => text += "It is not answered yet",
        }
        if let (Some(cause), Some(by), Some(ended)) = (self.cause, self.released_by, self.ended) {
            let by = match by {
                ReleasedBy::Overlay => "the overlay user",
                ReleasedBy::Trunk => "the trunk",
                ReleasedBy::Onward => "the trunk it went on by",
                ReleasedBy::Gateway => "this gateway",
            };
            text += &format!(
                " and ended after {} ms by {by}: {cause} (Q.850 {})",
                ended.as_millis(),
                cause.value()
            );
            if let Some(status) = self.sip_status {
                text += &format!(", SIP {status}");
            }
        }
        text.push('.');
        text
    }
}
