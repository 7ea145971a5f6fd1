//! The softphone: one task that owns the calls and answers by policy.

mod presence;
mod servers;
mod task;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use call_model::{Address, Availability, CallId, Cause, DtmfDigit, Handle};
use p2p_edge::identity::{HandleCertificate, NumberAssignment, SignedRevocations};
use p2p_edge::node::{Node, NodeConfig, NodeError, NodeRole};
use tokio::sync::{mpsc, watch};
use transcoder::{DtlsIdentity, MediaError};

use crate::audio::Clip;
use crate::event::Event;
use crate::ice::{IceServer, MediaAddress};
use crate::media::MediaSettings;
use task::Task;

/// Calls at one time. One more that comes in is busy; one more that should go out is an error.
pub const MAX_CALLS: usize = 64;
/// Commands and events that may wait.
const COMMAND_QUEUE: usize = 64;
const EVENT_QUEUE: usize = 1024;
const MEDIA_QUEUE: usize = 256;

/// Configures a softphone.
#[derive(Clone, Debug)]
pub struct SoftphoneConfig {
    /// The node; its role is `User`.
    pub node: NodeConfig,
    /// Where media is sent and received.
    pub media_address: MediaAddress,
    /// Servers of STUN and TURN, asked before those that supernodes offer.
    pub ice_servers: Vec<IceServer>,
    /// Sampling rate of clips and recordings: 8000, 16000 or 48000 Hz.
    pub sample_rate: u32,
    /// What happens to calls that come in.
    pub policy: AnswerPolicy,
}

/// What happens to calls that come in.
#[derive(Clone, Debug, Default)]
pub struct AnswerPolicy {
    /// When to answer.
    pub mode: AnswerMode,
    /// What to do in the call then.
    pub options: CallOptions,
    /// Refuse callers who ask not to be shown: cause 24, which is SIP 433 (RFC 5079).
    pub reject_anonymous: bool,
    /// Call whomever the other side of a call asks to call in its place. Such calls are at the cost of
    /// this user.
    pub follow_transfers: bool,
}

/// When to answer a call.
#[derive(Clone, Debug, Default)]
pub enum AnswerMode {
    /// Ring until a command comes.
    #[default]
    Manual,
    /// Ring, and answer after a while.
    After(Duration),
    /// Play a clip as early media, and answer after a while.
    Early {
        /// When to answer.
        wait: Duration,
        /// What to play.
        clip: Option<Clip>,
    },
    /// Ring and never answer.
    Never,
    /// Refuse as busy.
    Busy,
    /// Refuse as rejected by the user.
    Reject,
}

/// What to do in a call once it is answered and media is up.
#[derive(Clone, Debug, Default)]
pub struct CallOptions {
    /// Play this.
    pub play: Option<Clip>,
    /// Record what is heard, early media included, to a wav file.
    pub record: Option<PathBuf>,
    /// Send back what is heard.
    pub echo: bool,
    /// Send these digits.
    pub dtmf: Vec<DtmfDigit>,
    /// Hang up after this time.
    pub duration: Option<Duration>,
    /// End this other call once this one is answered.
    pub replaces: Option<CallId>,
}

/// What a softphone may be asked. Where `call` is absent, its only call is meant.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields are those of the JSON commands in `control`")]
pub enum Command {
    /// Calls someone.
    Call {
        to: Address,
        display_name: Option<String>,
        private: bool,
        ring_timeout: Duration,
        options: CallOptions,
    },
    /// Answers a call that came in. `None` keeps the options of the policy.
    Answer { call: Option<CallId>, options: Option<CallOptions> },
    /// Sends early media in a call that came in.
    Progress { call: Option<CallId>, clip: Option<Clip> },
    /// Refuses a call that came in.
    Reject { call: Option<CallId>, cause: Cause, sip_status: Option<u16> },
    /// Ends a call in any state.
    HangUp { call: Option<CallId>, cause: Cause },
    /// Holds the other side, or takes it back.
    Hold { call: Option<CallId>, on: bool },
    /// Sends digits, in media where the other side takes them there.
    Dtmf { call: Option<CallId>, digits: Vec<DtmfDigit> },
    /// Sends text.
    Message { call: Option<CallId>, text: String },
    /// Asks the other side to call somebody else in this one's place.
    Transfer { call: Option<CallId>, target: TransferTarget },
    /// Says how available the user is.
    Presence { availability: Availability, note: String },
    /// Watches exactly these users.
    Contacts(BTreeSet<Handle>),
    /// Says who may see the user and send it text; nobody may before.
    Rules { everybody: bool, allowed: BTreeSet<Handle>, refused: BTreeSet<Handle> },
    /// Sends text to a user, who need not be there.
    Text { to: Handle, text: String },
    /// Publishes exactly these numbers that an authority has assigned.
    Numbers(Vec<NumberAssignment>),
    /// Plays a clip.
    Play { call: Option<CallId>, clip: Clip },
    /// Sends back what is heard, or stops to.
    Echo { call: Option<CallId>, on: bool },
    /// Records what is heard.
    Record { call: Option<CallId>, path: PathBuf },
    /// Changes what happens to calls that come in from now on.
    Policy(AnswerPolicy),
    /// Goes on under a new certificate for the same key and handle, and with newer revocation
    /// lists. Calls stay.
    Certificate(Box<HandleCertificate>, Vec<SignedRevocations>),
    /// Reports an event as it is: so complaints about commands keep their place among them.
    Show(Event),
    /// Asks for [`Event::Status`].
    Status,
    /// Ends all calls and stops.
    Quit,
}

/// To whom a call is transferred.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferTarget {
    /// To this number or user, without a word.
    Address(Address),
    /// To the other side of another call, with whom it was talked over; that call ends when this one
    /// does.
    PartyOf(CallId),
}

/// Says why a softphone did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The role of the node is not `User`.
    #[error("a softphone is an overlay user; the node is configured as a server")]
    NotUser,
    /// The sampling rate is not one of the three.
    #[error("{0} Hz is not a sampling rate of a phone: 8000, 16000 or 48000")]
    SampleRate(u32),
    /// The media address is not one that others can send to.
    #[error("media address {0}: name the address of an interface, not a wildcard")]
    MediaAddress(IpAddr),
    /// The node did not start.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The media certificate could not be made.
    #[error(transparent)]
    Media(#[from] MediaError),
}

/// The softphone has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the softphone has stopped")]
pub struct SoftphoneClosed;

/// A softphone on its way: itself and its events.
pub type Starting =
    Pin<Box<dyn Future<Output = Result<(Softphone, mpsc::Receiver<Event>), StartError>> + Send>>;

/// Speaks to a running softphone. Cheap to clone; it stops when the last handle is gone.
#[derive(Clone, Debug)]
pub struct Softphone {
    commands: mpsc::Sender<Command>,
}

impl Softphone {
    /// Starts a softphone. The first event is [`Event::Ready`]; the events end when it has stopped.
    ///
    /// # Errors
    /// When a setting is wrong or the node does not start.
    pub fn start(config: SoftphoneConfig) -> Starting {
        // Boxed here, so that the swarm is compiled into this library and not into its every user.
        Box::pin(Self::start_here(config))
    }

    async fn start_here(config: SoftphoneConfig) -> Result<(Self, mpsc::Receiver<Event>), StartError> {
        let NodeRole::User { certificate } = &config.node.role else { return Err(StartError::NotUser) };
        let handle = certificate.claims().handle.clone();
        if !crate::audio::RATES.contains(&config.sample_rate) {
            return Err(StartError::SampleRate(config.sample_rate));
        }
        if let MediaAddress::Fixed(address) = config.media_address
            && (address.is_unspecified() || address.is_multicast())
        {
            return Err(StartError::MediaAddress(address));
        }
        let identity = DtlsIdentity::generate()?;
        let (node, node_events) = Node::spawn(config.node).await?;
        let (command_sender, commands) = mpsc::channel(COMMAND_QUEUE);
        let (events, event_receiver) = mpsc::channel(EVENT_QUEUE);
        let (servers, current_servers) = watch::channel(config.ice_servers.clone());
        let (joined, asked) = mpsc::channel(1);
        let (answered, servers_answered) = mpsc::channel(1);
        tokio::spawn(servers::keep(node.clone(), config.ice_servers, servers, asked, answered));
        let (media_sender, media_events) = mpsc::channel(MEDIA_QUEUE);
        let mut task = Task {
            caller: Address::Handle(handle.clone()),
            node,
            node_events,
            commands,
            events,
            media_events,
            media: MediaSettings {
                address: config.media_address,
                servers: current_servers,
                udp_dead: Arc::default(),
                sample_rate: config.sample_rate,
                identity,
                events: media_sender,
            },
            policy: config.policy,
            calls: BTreeMap::new(),
            online: false,
            joined,
            servers_answered,
            online_by: None,
            dropped: 0,
            leave_by: None,
        };
        task.report(Event::Ready { peer_id: task.node.peer_id(), handle: handle.to_string() });
        tokio::spawn(task.run());
        Ok((Self { commands: command_sender }, event_receiver))
    }

    /// Sends a command, waiting while 64 are waiting.
    ///
    /// # Errors
    /// When the softphone has stopped.
    pub async fn send(&self, command: Command) -> Result<(), SoftphoneClosed> {
        self.commands.send(command).await.map_err(|_| SoftphoneClosed)
    }
}
