//! The node: a libp2p swarm that finds and is found, relays, keeps records and carries calls.
//!
//! The only input and output of this crate. One tokio task owns the swarm, every call session and
//! every hunt; commands reach it through one bounded queue, events leave it through another.

mod behaviour;
mod bootstrap;
mod calls;
mod candidates;
mod config;
mod devices;
mod gateways;
mod health;
mod incoming;
mod linger;
mod lookup;
mod own;
mod peers;
mod presence;
mod publish;
mod pump;
mod puts;
mod rates;
mod registry;
mod requests;
mod reserve;
mod revocations;
mod serving;
mod status;
mod store;
mod streams;
mod task;
mod timers;
mod turn;
mod wire;

use std::collections::BTreeSet;
use std::time::Duration;

use call_model::{Address, Availability, CallId, Caller, Handle, Number};
use tokio::sync::{mpsc, oneshot};

pub use bootstrap::{BootstrapWays, WayReport};
pub use config::{NodeConfig, NodeLimits, NodeRole, NodeTimers};
pub use health::HealthStatus;
pub use status::{NodeStatus, Refusal};
pub use task::check_address;
pub use turn::{IceEndpoint, IceServer, IceTransport, TurnCertificate, TurnConfig, TurnError, TurnStatus};

use crate::calling::{SessionCommand, SessionEvent};
use crate::identity::{Credential, IdentityError, NumberAssignment, SignedRevocations};
use crate::presence::{ClientEvent, TextId};
use crate::record::{RecordError, RecordKey, ValidRecord};

/// Commands that may wait for the node.
pub const COMMAND_QUEUE: usize = 256;
/// Events that may wait for the owner of the node.
pub const EVENT_QUEUE: usize = 1024;

/// Assignments of numbers that a node holds and publishes.
pub const MAX_HELD_NUMBERS: usize = 4096;

/// Starts nodes.
pub struct Node;

impl Node {
    /// Starts a node. Returns when it listens on every address of the configuration.
    ///
    /// # Errors
    /// When the own certificate does not verify (expired, revoked, for another key, not under the
    /// root), when an address cannot be parsed or listened on, or when a transport cannot be built.
    pub async fn spawn(config: NodeConfig) -> Result<(NodeHandle, mpsc::Receiver<NodeEvent>), NodeError> {
        task::start(config).await
    }
}

/// Speaks to a running node. Cheap to clone; the node stops when the last handle is gone.
#[derive(Clone, Debug)]
pub struct NodeHandle {
    peer_id: String,
    commands: mpsc::Sender<Request>,
}

impl NodeHandle {
    /// Returns the node's PeerId.
    pub fn peer_id(&self) -> String {
        self.peer_id.clone()
    }

    /// Sends a command, waiting while the queue of 256 is full.
    ///
    /// # Errors
    /// When the node has stopped.
    pub async fn send(&self, command: NodeCommand) -> Result<(), NodeClosed> {
        self.commands.send(Request::Command(command)).await.map_err(|_| NodeClosed)
    }

    /// Sends a command unless the queue is full.
    ///
    /// # Errors
    /// When the queue is full or the node has stopped.
    pub fn try_send(&self, command: NodeCommand) -> Result<(), TrySendError> {
        self.commands.try_send(Request::Command(command)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => TrySendError::Full,
            mpsc::error::TrySendError::Closed(_) => TrySendError::Closed,
        })
    }

    /// Returns the state of the node; the default one when it has stopped.
    pub async fn status(&self) -> NodeStatus {
        let (sender, receiver) = oneshot::channel();
        if self.commands.send(Request::Status(sender)).await.is_err() {
            return NodeStatus::default();
        }
        receiver.await.unwrap_or_default()
    }

    /// Looks for the record under a key as a call does: in the DHT, and by asking connected servers.
    /// Takes [`NodeTimers::lookup`] at the longest. For whoever watches the overlay's health.
    ///
    /// # Errors
    /// When the node has stopped.
    pub async fn look_up(&self, key: RecordKey) -> Result<LookedUp, NodeClosed> {
        let (sender, receiver) = oneshot::channel();
        self.commands.send(Request::LookUp(key, sender)).await.map_err(|_| NodeClosed)?;
        receiver.await.map_err(|_| NodeClosed)
    }

    /// Returns supernodes that relay for this node, with credentials for them: at most three, the first
    /// two of different networks where there are such. They are asked for and kept until half of the
    /// time of their credentials is over. Takes 2 s at the longest.
    ///
    /// # Errors
    /// When the node has stopped.
    pub async fn ice_servers(&self) -> Result<Vec<IceServer>, NodeClosed> {
        let (sender, receiver) = oneshot::channel();
        self.commands.send(Request::IceServers(sender)).await.map_err(|_| NodeClosed)?;
        receiver.await.map_err(|_| NodeClosed)
    }

    /// Goes on under a new certificate: one for the same key, name and kind of node. Calls and
    /// connections stay; peers are told, and records are published under the new one.
    ///
    /// # Errors
    /// What is wrong with the certificate; the one in use stays then.
    pub async fn change_certificate(&self, certificate: Credential) -> Result<(), NodeError> {
        let (sender, receiver) = oneshot::channel();
        let request = Request::Certificate(Box::new(certificate), sender);
        self.commands.send(request).await.map_err(|_| NodeError::Stopped)?;
        receiver.await.unwrap_or(Err(NodeError::Stopped))
    }

    /// Publishes exactly these assignments of numbers from now on, at most [`MAX_HELD_NUMBERS`]: what an
    /// authority has said once, whoever holds it keeps in the overlay. One that ends or is revoked later
    /// is published no more.
    ///
    /// # Errors
    /// What is wrong with the first that is not valid; those of before stay then.
    pub async fn hold_numbers(&self, numbers: Vec<NumberAssignment>) -> Result<(), NodeError> {
        let (sender, receiver) = oneshot::channel();
        let request = Request::Numbers(numbers, sender);
        self.commands.send(request).await.map_err(|_| NodeError::Stopped)?;
        receiver.await.unwrap_or(Err(NodeError::Stopped))
    }

    /// Ends every call with `bye`, waits until that is sent, and stops the node: at the deadline at
    /// the latest.
    pub async fn shutdown(&self, deadline: Duration) {
        let (sender, receiver) = oneshot::channel();
        if self.commands.send(Request::Shutdown(deadline, sender)).await.is_ok() {
            let _ = receiver.await;
        }
    }
}

/// What reaches the task of a node.
enum Request {
    Command(NodeCommand),
    Certificate(Box<Credential>, oneshot::Sender<Result<(), NodeError>>),
    Numbers(Vec<NumberAssignment>, oneshot::Sender<Result<(), NodeError>>),
    Status(oneshot::Sender<NodeStatus>),
    LookUp(RecordKey, oneshot::Sender<LookedUp>),
    IceServers(oneshot::Sender<Vec<IceServer>>),
    Shutdown(Duration, oneshot::Sender<()>),
}

/// What a look-up has found, and what it took.
#[derive(Clone, Debug, Default)]
pub struct LookedUp {
    /// The record with the highest sequence, verified.
    pub record: Option<ValidRecord>,
    /// How long it took until there was a record at all.
    pub first: Option<Duration>,
    /// How long it took until the highest sequence was settled.
    pub took: Duration,
    /// Nodes that have answered.
    pub answered: usize,
    /// Requests that were sent in the DHT.
    pub dht_requests: u32,
    /// Connected servers that were asked beside it.
    pub servers_asked: u32,
}

/// What the owner of a node may ask for.
#[derive(Clone, Debug)]
pub enum NodeCommand {
    /// Calls someone. Everything that follows comes as [`NodeEvent::Call`], `Ended` last.
    Invite {
        /// Names the call from now on.
        call: CallId,
        /// The caller as it is shown. A user may only name its own handle or certified numbers;
        /// where the address is absent, the node puts its handle.
        from: Caller,
        /// Whom to call.
        to: Address,
        /// SDP offer, at most 8 KiB.
        media: String,
        /// How long to ring, at most 180 s.
        ring_timeout: Duration,
    },
    /// Does something in a call.
    Call {
        /// The call.
        call: CallId,
        /// What to do.
        command: SessionCommand,
    },
    /// Does something for the presence of the user, or sends a text. Of a supernode, which has no
    /// user, nothing comes of it.
    Presence(PresenceCommand),
    /// Takes a newer revocation list and spreads it: what it revokes is dropped at once.
    Revocations(SignedRevocations),
}

/// What a user may want of presence and text. What does not keep the bounds of
/// [`crate::presence::Client`] comes back as [`ClientEvent::Rejected`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PresenceCommand {
    /// Says how available the user is; offline hides the device.
    Set {
        /// How available.
        availability: Availability,
        /// What the user says besides, at most 128 bytes.
        note: String,
    },
    /// Watches exactly these users.
    Contacts(BTreeSet<Handle>),
    /// Says who may see the user and send it text. Before this is said nobody may.
    Rules {
        /// Whether everybody may who is not refused.
        everybody: bool,
        /// Who may.
        allowed: BTreeSet<Handle>,
        /// Who may not.
        refused: BTreeSet<Handle>,
    },
    /// Sends a text, which waits for the devices of its addressee for a week.
    Text {
        /// Random; names the text in [`ClientEvent::Taken`].
        id: TextId,
        /// The addressee.
        to: Handle,
        /// At most 2 KiB.
        text: String,
    },
}

/// What a node tells its owner.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeEvent {
    /// The node listens on an address.
    Listening {
        /// A multiaddr.
        address: String,
    },
    /// The node has joined: it is connected, users hold a relay reservation, and its own records
    /// were read back from another node where there is one.
    Online,
    /// The node has lost the overlay and keeps trying to come back.
    Offline {
        /// What is missing.
        reason: String,
    },
    /// A call comes in. The caller's certificate, its revocation, its signature and its key on the
    /// connection have been verified.
    Incoming {
        /// Names the call from now on.
        call: CallId,
        /// Who calls.
        from: VerifiedCaller,
        /// Whom the call is for.
        to: Address,
        /// SDP offer.
        media: String,
    },
    /// Something happened in a call, of either direction. `Ended` comes exactly once, as the last.
    Call {
        /// The call.
        call: CallId,
        /// What happened.
        event: SessionEvent,
    },
    /// A contact is shown otherwise, or a text has come or was taken.
    Presence(ClientEvent),
}

/// A caller whose identity was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedCaller {
    /// The caller as it is shown. From a user its address is certified; a gateway vouches for
    /// whom it brings.
    pub caller: Caller,
    /// The certified handle, where a user calls.
    pub handle: Option<Handle>,
    /// The certified numbers of the user.
    pub numbers: Vec<Number>,
    /// What kind of node calls.
    pub role: CallerRole,
    /// PeerId of the node.
    pub peer: String,
}

/// What kind of node calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallerRole {
    /// A user's device.
    User,
    /// A gateway, for someone in the telephone network.
    Gateway,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The node's own certificate does not verify; the text names it and the remedy.
    #[error("own certificate: {0}")]
    Certificate(#[from] IdentityError),
    /// A supernode's certificate does not make a gateway.
    #[error("own certificate: that of {subject} is for a supernode: have a gateway certificate issued")]
    NotGateway {
        /// Whom the certificate is for.
        subject: String,
    },
    /// A new certificate is for somebody else than the node is.
    #[error(
        "the new certificate is for another name or kind of node than {subject} is: that needs a restart"
    )]
    OtherIdentity {
        /// Who the node is.
        subject: String,
    },
    /// The node has stopped meanwhile.
    #[error("the node has stopped")]
    Stopped,
    /// An address is malformed.
    #[error("`{address}` is not a multiaddr{expected}")]
    Address {
        /// The address.
        address: String,
        /// What it lacks.
        expected: &'static str,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address.
        address: String,
        /// What the system says.
        reason: String,
    },
    /// An own offer or number is outside the own certificate.
    #[error("own {what}: {reason}")]
    Record {
        /// Which record.
        what: String,
        /// What is wrong.
        reason: RecordError,
    },
    /// The TURN server cannot be started.
    #[error(transparent)]
    Turn(#[from] TurnError),
    /// More assignments of numbers than a node holds.
    #[error("{count} numbers: a node publishes at most {MAX_HELD_NUMBERS}, give some to another")]
    TooManyNumbers {
        /// How many there are.
        count: usize,
    },
    /// A transport cannot be built.
    #[error("cannot set up the transports: {0}")]
    Transport(String),
}

/// The node has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node has stopped")]
pub struct NodeClosed;

/// Why a command was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrySendError {
    /// 256 commands are waiting.
    #[error("the command queue of the node is full")]
    Full,
    /// The node has stopped.
    #[error("the node has stopped")]
    Closed,
}
