//! Overlay users in this process: a node each, and the media of their calls where the caller wants it.

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use call_model::{Address, CallId, Caller, Cause};
use p2p_edge::calling::{SessionCommand, SessionEvent};
use p2p_edge::identity::{Abilities, Authority, HandleClaims, NodeKey, Trust, Validity};
use p2p_edge::node::{IceServer, Node, NodeCommand, NodeConfig, NodeEvent, NodeHandle, NodeRole};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;
use transcoder::{DtlsIdentity, WebRtcConfig, WebRtcLeg};

/// How long joining, or a step of a call, may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Certifies users with the keys of the laboratory's authority.
#[derive(Debug)]
pub struct Issuer {
    authority: Authority,
    trust: Trust,
}

impl Issuer {
    /// Reads the folder that `causeway authority init` made.
    ///
    /// # Errors
    /// When a file is not there or not what it should be.
    pub fn open(folder: &Path) -> Result<Self> {
        let read = |name: &str| fs::read_to_string(folder.join(name)).with_context(|| name.to_owned());
        let authority = Authority::from_pem(&read("enrolment.key.pem")?, &read("enrolment.pem")?)?;
        Ok(Self { authority, trust: Trust::from_pem(&read("root.pem")?)? })
    }

    /// Makes the configuration of a user who listens nowhere: others reach it through relays only. Handle and key
    /// follow from the number.
    fn user(&self, number: u8, bootstrap: &[String]) -> Result<NodeConfig> {
        let key = NodeKey::from_seed([number; 32]);
        let certificate = self.authority.issue_handle(HandleClaims {
            handle: handle(number).parse()?,
            keys: vec![key.public()],
            serial: 1_000_000 + u64::from(number),
            validity: Validity {
                not_before: self.authority.validity().not_before,
                not_after: unix_ms()? / 1000 + 3600,
            },
            abilities: Abilities::CALLS,
            numbers: Vec::new(),
        })?;
        Ok(NodeConfig {
            bootstrap: bootstrap.to_vec(),
            ..NodeConfig::new(key, self.trust.clone(), NodeRole::User { certificate })
        })
    }
}

/// The handle of the user with this number.
#[must_use]
pub fn handle(number: u8) -> String {
    format!("user{number}")
}

/// A call that comes in.
#[derive(Debug)]
pub struct Ring {
    /// The call.
    pub call: CallId,
    /// The caller's session description.
    pub offer: String,
    /// What becomes of the call.
    pub events: UnboundedReceiver<SessionEvent>,
}

type Routes = Arc<Mutex<HashMap<CallId, UnboundedSender<SessionEvent>>>>;

/// A user that is online.
#[derive(Debug)]
pub struct User {
    node: NodeHandle,
    routes: Routes,
    dtls: DtlsIdentity,
    address: Ipv4Addr,
    /// Calls that come in.
    pub rings: Mutex<UnboundedReceiver<Ring>>,
    /// Whether calls are in G.711 from end to end.
    pub speaks_g711: bool,
}

/// A call that this side has made and the other has answered.
#[derive(Debug)]
pub struct Answered {
    /// The call.
    pub call: CallId,
    /// The socket of its media.
    pub socket: UdpSocket,
    /// Knows both descriptions.
    pub leg: WebRtcLeg,
    /// From the command to the answer.
    pub after: Duration,
    /// When the answer came.
    pub at: Instant,
}

impl User {
    /// Joins the overlay and waits until the user can be reached. Its media will be on `address`.
    ///
    /// # Errors
    /// When it does not come online within 20 s.
    pub async fn join(issuer: &Issuer, number: u8, bootstrap: &[String], address: Ipv4Addr) -> Result<Self> {
        let (node, mut events) = Node::spawn(issuer.user(number, bootstrap)?).await?;
        let online = async {
            while let Some(event) = events.recv().await {
                if event == NodeEvent::Online {
                    return Ok(());
                }
            }
            bail!("the node of {} stopped", handle(number))
        };
        timeout(PATIENCE, online)
            .await
            .with_context(|| format!("{} does not come online", handle(number)))??;
        let routes = Routes::default();
        let (ringing, rings) = unbounded_channel();
        tokio::spawn(dispatch(events, Arc::clone(&routes), ringing));
        let rings = Mutex::new(rings);
        Ok(Self { node, routes, dtls: DtlsIdentity::generate()?, address, rings, speaks_g711: false })
    }

    /// The same user, who speaks G.711 where the other side takes it, or Opus.
    #[must_use]
    pub fn speaking_g711(self, on: bool) -> Self {
        Self { speaks_g711: on, ..self }
    }

    /// The relays that supernodes serve the user with.
    ///
    /// # Errors
    /// When the node has stopped.
    pub async fn ice_servers(&self) -> Result<Vec<IceServer>> {
        Ok(self.node.ice_servers().await?)
    }

    /// Opens a socket and a leg on it.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn open_media(&self) -> Result<(UdpSocket, WebRtcLeg)> {
        let socket = UdpSocket::bind((self.address, 0))?;
        let config = WebRtcConfig {
            local: vec![socket.local_addr()?],
            ice_lite: false,
            g711: self.speaks_g711,
            redundancy: true,
        };
        Ok((socket, WebRtcLeg::new(config, &self.dtls, Instant::now())?))
    }

    /// Calls someone and waits for the answer.
    ///
    /// # Errors
    /// When the call ends without an answer, or none comes within 20 s.
    pub async fn call(&self, to: Address) -> Result<Answered> {
        let (socket, mut leg) = self.open_media()?;
        let offer = leg.create_offer()?;
        let began = Instant::now();
        let (call, answer) = self.invite(to, offer).await?;
        let at = Instant::now();
        leg.accept_answer(&answer)?;
        Ok(Answered { call, socket, leg, after: at - began, at })
    }

    /// Calls someone with media of the caller's own, and waits for the answer: the call, and the other side's session
    /// description.
    ///
    /// # Errors
    /// As [`User::call`].
    pub async fn invite(&self, to: Address, media: String) -> Result<(CallId, String)> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let call = CallId::new(unix_ms()?, u128::from(NEXT.fetch_add(1, Ordering::Relaxed)));
        let (sender, mut events) = unbounded_channel();
        self.routes.lock().unwrap_or_else(PoisonError::into_inner).insert(call, sender);
        let from = Caller { address: None, display_name: None, private: false };
        let invite = NodeCommand::Invite { call, from, to, media, ring_timeout: PATIENCE };
        self.node.send(invite).await?;
        let answer = async {
            loop {
                match events.recv().await.context("the node stopped")? {
                    SessionEvent::Answered { media } => return Ok(media),
                    SessionEvent::Ended { cause, text, .. } => bail!("the call ended with {cause}: {text}"),
                    _ => {}
                }
            }
        };
        Ok((call, timeout(PATIENCE, answer).await.context("no answer")??))
    }

    /// Does something in a call.
    ///
    /// # Errors
    /// When the node has stopped.
    pub async fn command(&self, call: CallId, command: SessionCommand) -> Result<()> {
        Ok(self.node.send(NodeCommand::Call { call, command }).await?)
    }

    /// Hangs up.
    ///
    /// # Errors
    /// When the node has stopped.
    pub async fn bye(&self, call: CallId) -> Result<()> {
        self.command(call, SessionCommand::Bye { cause: Cause::NORMAL_CALL_CLEARING, text: String::new() })
            .await
    }
}

/// Takes the events of a node for as long as it runs and hands each to its call.
async fn dispatch(mut events: Receiver<NodeEvent>, routes: Routes, ringing: UnboundedSender<Ring>) {
    while let Some(event) = events.recv().await {
        let mut routes = routes.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            NodeEvent::Incoming { call, media, .. } => {
                let (sender, events) = unbounded_channel();
                routes.insert(call, sender);
                // Nobody may be there to answer; then the caller gives up.
                let _ = ringing.send(Ring { call, offer: media, events });
            }
            NodeEvent::Call { call, event } => {
                let ended = matches!(event, SessionEvent::Ended { .. });
                if let Some(route) = routes.get(&call) {
                    // Whoever made the call may have lost interest in it.
                    let _ = route.send(event);
                }
                if ended {
                    routes.remove(&call);
                }
            }
            _ => {}
        }
    }
}

fn unix_ms() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64)
}
