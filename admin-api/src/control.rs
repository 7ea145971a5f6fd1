use std::fmt;
use std::future::Future;
use std::str::FromStr;

use call_model::{Address, CallId, IdError, TrunkName};
use serde::{Deserialize, Serialize};

use crate::overlay::OverlayView;

/// The daemon did not answer in time or is stopping; the caller may try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the daemon did not answer in time: try again")]
pub struct Unavailable;

/// What the admin API may ask of the daemon.
pub trait Control: Send + Sync + 'static {
    /// Lists calls, live ones first, then finished ones from the newest.
    fn calls(&self, filter: CallFilter) -> impl Future<Output = Result<CallList, Unavailable>> + Send;
    /// Returns one call, live or finished.
    fn call(&self, id: CallId) -> impl Future<Output = Result<Option<CallView>, Unavailable>> + Send;
    /// Explains why a call went as it did.
    fn why(&self, id: CallId) -> impl Future<Output = Result<Option<WhyView>, Unavailable>> + Send;
    /// Returns the messages of a call in order.
    fn ladder(&self, id: CallId) -> impl Future<Output = Result<Option<LadderView>, Unavailable>> + Send;
    /// Ends a live call. Returns false when there is no such live call.
    fn hang_up(&self, id: CallId) -> impl Future<Output = Result<bool, Unavailable>> + Send;
    /// Decides a call without placing it.
    fn route_test(
        &self,
        to: Address,
        from: Option<Address>,
        trunk: Option<TrunkName>,
    ) -> impl Future<Output = Result<RouteTest, Unavailable>> + Send;
    /// Lists the trunks.
    fn trunks(&self) -> impl Future<Output = Result<Vec<TrunkView>, Unavailable>> + Send;
    /// Reads the configuration again and applies what can change.
    fn reload(&self) -> impl Future<Output = Result<Reloaded, ReloadFailure>> + Send;
    /// Says how the node in the overlay is.
    fn overlay(&self) -> impl Future<Output = Result<OverlayView, Unavailable>> + Send;
    /// Says how the daemon is. Must not wait for the signalling loop longer than a second.
    fn health(&self) -> impl Future<Output = Health> + Send;
    /// Returns the metrics in OpenMetrics text form. Must not wait for the signalling loop.
    fn metrics(&self) -> String;
}

/// What came of reading the configuration again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Keys whose change is in force.
    pub applied: Vec<String>,
    /// Keys whose change needs a restart.
    pub restart: Vec<String>,
}

/// Why the configuration in force stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReloadFailure {
    /// The file has a fault: file, line, key, and remedy.
    #[error("{0}")]
    Broken(String),
    /// The daemon did not answer in time.
    #[error("the daemon did not answer in time: try again")]
    Unavailable,
}

/// Narrows a list of calls.
#[derive(Clone, Debug, Default)]
pub struct CallFilter {
    /// Rows wanted, 1 to 250.
    pub limit: usize,
    /// Continues after this call, as `next` of the page before said.
    pub after: Option<Cursor>,
    /// Live calls only.
    pub live: bool,
}

/// The last row of a page. Says in which part of the list the call stood then, because it may
/// have ended since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// Among the live calls.
    Live(CallId),
    /// Among the finished ones.
    Finished(CallId),
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cursor::Live(id) => write!(f, "live-{id}"),
            Cursor::Finished(id) => id.fmt(f),
        }
    }
}

impl FromStr for Cursor {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        match text.strip_prefix("live-") {
            Some(id) => id.parse().map(Cursor::Live),
            None => text.parse().map(Cursor::Finished),
        }
    }
}

/// One page of calls.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CallList {
    /// The rows.
    pub calls: Vec<CallView>,
    /// What to give as `after` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallState {
    /// The gates are being passed or the far side has not answered yet.
    Setup,
    /// The far side rings.
    Ringing,
    /// Media flows before the answer.
    Early,
    /// Answered.
    Active,
    /// Over on one side, being released on the other.
    Releasing,
    /// Over.
    Ended,
}

/// One call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CallView {
    /// The call id, 32 hexadecimal digits.
    pub id: String,
    /// `overlay_to_trunk`, `trunk_to_overlay` or `trunk_to_trunk`.
    pub direction: String,
    /// Where it stands.
    pub state: CallState,
    /// The caller's number or handle; absent where none was given.
    pub from: Option<String>,
    /// The called number or handle.
    pub to: String,
    /// The trunk, once one was chosen; of a call between two trunks, the one it came by.
    pub trunk: Option<String>,
    /// The trunk by which a call from another goes on, once one was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onward: Option<String>,
    /// Who is connected on the trunk, where it said so and that is not the number called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected: Option<String>,
    /// When it began, RFC 3339 UTC with milliseconds.
    pub started: String,
    /// Milliseconds from the beginning to the first ringing or early media.
    pub post_dial_delay_ms: Option<u64>,
    /// Milliseconds from the beginning to the answer.
    pub setup_ms: Option<u64>,
    /// Milliseconds from the answer to the end, or to now.
    pub duration_ms: Option<u64>,
    /// Result class; absent while the call is live.
    pub outcome: Option<String>,
    /// Why it ended; absent while the call is live.
    pub cause: Option<CauseView>,
    /// Who ended it: `overlay`, `trunk`, `onward` or `gateway`.
    pub released_by: Option<String>,
    /// DTMF digits that passed, in each direction.
    pub dtmf_digits: u32,
    /// Media received from the overlay.
    pub overlay: LegView,
    /// Media received from the trunk.
    pub trunk_leg: LegView,
    /// Media received from the trunk by which a call from another goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onward_leg: Option<LegView>,
    /// How the overlay user is heard at the far end of the trunk, through both legs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_by_trunk: Option<RatingView>,
    /// How the far end of the trunk is heard by the overlay user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_by_overlay: Option<RatingView>,
    /// Milliseconds in which both sides spoke.
    #[serde(default)]
    pub talk_over_ms: u64,
    /// The side that gives no sound though the other speaks: `overlay` or `trunk`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_way: Option<String>,
}

/// A Q.850 cause, with the SIP status beside it where there was one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CauseView {
    /// Q.850 value, 1 to 127.
    pub q850: u8,
    /// Its name.
    pub text: String,
    /// SIP status received from or sent to the trunk.
    pub sip_status: Option<u16>,
}

/// The media of one leg.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LegView {
    /// Encoding name, once negotiated.
    pub codec: Option<String>,
    /// Packets received and usable.
    pub packets_received: u64,
    /// Packets sent.
    pub packets_sent: u64,
    /// Packets that never came.
    pub packets_lost: u64,
    /// Packets that came too late.
    pub packets_late: u64,
    /// Packets refused for source, shape or authentication.
    pub packets_refused: u64,
    /// Frames made up by concealment.
    pub frames_concealed: u64,
    /// Interarrival jitter in milliseconds.
    pub jitter_ms: f32,
    /// Packets given up by the jitter buffer to catch up.
    #[serde(default)]
    pub packets_discarded: u64,
    /// Packets that came more than once.
    #[serde(default)]
    pub packets_duplicate: u64,
    /// Frames lost that in-band FEC or redundancy (RFC 2198) brought back.
    #[serde(default)]
    pub frames_recovered: u64,
    /// Those of them that redundancy did.
    #[serde(default)]
    pub frames_redundant: u64,
    /// Milliseconds for which the jitter buffer holds the fastest packets back.
    #[serde(default)]
    pub playout_delay_ms: f32,
    /// Milliseconds to the other side and back, once its reports have shown it.
    #[serde(default)]
    pub round_trip_ms: Option<f32>,
    /// Bursts of loss (RFC 3611 4.7.2).
    #[serde(default)]
    pub bursts: u64,
    /// Packets missing within them, in per cent.
    #[serde(default)]
    pub burst_loss_percent: f32,
    /// How what came is judged, over the whole call.
    #[serde(default)]
    pub rating: Option<RatingView>,
    /// The same of the last five seconds.
    #[serde(default)]
    pub recent: Option<RatingView>,
    /// The worst five seconds.
    #[serde(default)]
    pub worst: Option<RatingView>,
    /// What the other side says of what it was sent.
    #[serde(default)]
    pub remote: Option<RemoteView>,
    /// Milliseconds of voice.
    #[serde(default)]
    pub voice_ms: u64,
    /// Milliseconds that were clipped.
    #[serde(default)]
    pub clipped_ms: u64,
    /// Milliseconds that were an echo of what the other side of the call said.
    #[serde(default)]
    pub echo_ms: u64,
    /// Mean level of the voice in dBov.
    #[serde(default)]
    pub voice_dbov: Option<f32>,
    /// Level of the background in dBov.
    #[serde(default)]
    pub noise_dbov: Option<f32>,
}

/// How media is judged by the E-model (ITU-T G.107, narrowband).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RatingView {
    /// Transmission rating R, 0 to 100.
    pub r_factor: f32,
    /// Mean opinion score, 1 to 4.5.
    pub mos: f32,
    /// What costs most: `network_loss`, `jitter_discard`, `codec` or `delay`; absent where nothing does.
    pub cause: Option<String>,
}

/// What the other side of a leg has reported (RFC 3550 6.4.1, RFC 3611 4.7).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemoteView {
    /// Packets lost on the way to it, in per cent.
    pub loss_percent: f32,
    /// Packets it could not play, in per cent.
    pub discard_percent: f32,
    /// Interarrival jitter in milliseconds.
    pub jitter_ms: f32,
    /// How it judges what it hears, or how its figures are judged here.
    pub rating: Option<RatingView>,
}

/// One step of the decision record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionView {
    /// The gate.
    pub gate: String,
    /// `pass`, `refuse` or `skip`.
    pub verdict: String,
    /// The rule that decided.
    pub rule: String,
    /// One sentence.
    pub detail: String,
}

/// Why a call went as it did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WhyView {
    /// The call.
    pub call: CallView,
    /// One paragraph for a person.
    pub summary: String,
    /// The steps behind it.
    pub decisions: Vec<DecisionView>,
}

/// One message of a call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExchangeView {
    /// Milliseconds since the call began.
    pub at_ms: f64,
    /// Sender: `overlay`, `gateway`, `trunk` or `onward`.
    pub from: String,
    /// Receiver, likewise.
    pub to: String,
    /// What it was.
    pub label: String,
}

/// The messages of a call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LadderView {
    /// The call.
    pub call: CallView,
    /// Its messages, oldest first.
    pub exchanges: Vec<ExchangeView>,
    /// Messages beyond the bound that were not kept.
    pub dropped: u64,
}

/// What would become of a call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RouteTest {
    /// Whether the call would be placed.
    pub placed: bool,
    /// Trunks in the order in which they would be tried, or the overlay handle.
    pub targets: Vec<String>,
    /// The steps.
    pub decisions: Vec<DecisionView>,
}

/// One trunk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TrunkView {
    /// Its name in the configuration.
    pub name: String,
    /// Where its requests go, `udp:192.0.2.1:5060`.
    pub target: String,
    /// `up`, `down` or `unknown` (not asked yet, or asking is switched off).
    pub state: String,
    /// What the last health check said.
    pub detail: String,
    /// Calls on it now.
    pub calls: usize,
    /// Calls it may carry.
    pub max_calls: usize,
    /// It is behind an address translator: its media may come from where its signalling does (`nat`).
    #[serde(default)]
    pub nat: bool,
    /// The addresses its requests go to now, in the order in which they are tried.
    #[serde(default)]
    pub targets: Vec<TargetView>,
}

/// One target of a trunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetView {
    /// Its address, `udp:192.0.2.1:5060`.
    pub address: String,
    /// `up`, `suspect`, `demoted` or `unknown`.
    pub state: String,
    /// The last answer to OPTIONS, if there was one.
    pub last_status: Option<u16>,
    /// It asked by Retry-After to be left alone for now.
    pub barred: bool,
    /// The part of new calls it asks to be spared, in percent.
    pub reduction_percent: u8,
}

/// How the daemon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// Takes calls.
    Ready,
    /// Not in the overlay yet.
    Starting,
    /// Finishing its calls; takes no new ones.
    Draining,
    /// The signalling loop does not answer.
    Unresponsive,
}

/// The health report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Health {
    /// The sum of it.
    pub state: HealthState,
    /// Version of the daemon.
    pub version: String,
    /// Seconds since start.
    pub uptime_s: u64,
    /// Live calls.
    pub calls: usize,
    /// Role in the overlay: `gateway` or `supernode`.
    pub role: String,
    /// The node's id in the overlay.
    pub peer_id: String,
    /// Where the overlay node listens.
    pub overlay_addresses: Vec<String>,
    /// Nodes connected to.
    pub overlay_peers: usize,
    /// Relay reservations served to users.
    pub reservations: usize,
    /// Relayed addresses of the TURN server that are in use; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub turn_allocations: Option<usize>,
    /// Records held for others.
    pub records: usize,
    /// What the node keeps and does for presence.
    #[serde(default)]
    pub presence: PresenceView,
}

/// What a node keeps and does for presence and text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceView {
    /// Users of whom it is a home.
    pub handles: usize,
    /// Of these, those who are on.
    pub on: usize,
    /// Texts that wait.
    pub texts: usize,
    /// Devices attached.
    pub devices: usize,
    /// Users watched for these.
    pub watched: usize,
}
