//! A certified supernode that grants a reservation long after it was asked for one.

use std::io;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::request_response::{self, Event, Message, ProtocolSupport};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{StreamProtocol, Swarm, SwarmBuilder, noise, tcp, yamux};
use p2p_edge::testing::Pki;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::attacks::Raw;
use super::revocations::Hello;
use super::support::{PATIENCE, pki, start, unix, user};

/// How long a look-up may take here; twice that for a reservation.
const LOOKUP: Duration = Duration::from_millis(300);
/// How long the relay waits.
const LATE: Duration = Duration::from_millis(1_500);

/// Messages of circuit relay v2: a length of one or two octets before each. Requests are short.
#[derive(Clone, Copy)]
struct Hop;

impl request_response::Codec for Hop {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut length = [0];
        io.read_exact(&mut length).await?;
        let mut message = vec![0; usize::from(length[0])];
        io.read_exact(&mut message).await?;
        Ok(message)
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, _: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, _: &mut T, _: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&bytes).await
    }
}

#[derive(NetworkBehaviour)]
struct Late {
    identity: request_response::Behaviour<Raw>,
    hop: request_response::Behaviour<Hop>,
}

/// `STATUS` with `OK`, until an hour from now and at the relay's own address (circuit relay v2, `HopMessage`).
fn granted(address: &[u8]) -> Vec<u8> {
    let mut number = unix() + 3600;
    let mut reservation = vec![0x08];
    while number >= 0x80 {
        reservation.push(number as u8 | 0x80);
        number >>= 7;
    }
    reservation.extend([number as u8, 0x12, address.len() as u8]);
    reservation.extend_from_slice(address);
    let mut message = vec![0x08, 2, 0x1a, reservation.len() as u8];
    message.extend(reservation);
    message.extend([0x28, 100]);
    let mut framed = vec![message.len() as u8];
    framed.extend(message);
    framed
}

/// Starts the relay. Returns its address, and what says when it has answered.
async fn start_late(pki: &Pki) -> (String, oneshot::Receiver<()>) {
    let bundle = pki.supernode(61).unwrap();
    let hello = Hello { credential: bundle.chain.encode().into(), lists: Vec::new() };
    let hello = minicbor::to_vec(hello).unwrap();
    let mut swarm: Swarm<Late> = SwarmBuilder::with_existing_identity(bundle.key.keypair())
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| {
            let identity = (StreamProtocol::new("/causeway/identity/1"), ProtocolSupport::Full);
            let hop = (StreamProtocol::new("/libp2p/circuit/relay/0.2.0/hop"), ProtocolSupport::Inbound);
            Late {
                identity: request_response::Behaviour::with_codec(Raw, [identity], Default::default()),
                hop: request_response::Behaviour::with_codec(Hop, [hop], Default::default()),
            }
        })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let (listening, listens) = oneshot::channel();
    let (answered, answer) = oneshot::channel();
    tokio::spawn(async move {
        let (mut listening, mut answered) = (Some(listening), Some(answered));
        let mut own = Vec::new();
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { address, .. } => {
                    let full = address.with_p2p(*swarm.local_peer_id()).unwrap();
                    own = full.to_vec();
                    if let Some(listening) = listening.take() {
                        listening.send(full.to_string()).unwrap();
                    }
                }
                SwarmEvent::Behaviour(LateEvent::Identity(Event::Message {
                    message: Message::Request { channel, .. },
                    ..
                })) => {
                    let _ = swarm.behaviour_mut().identity.send_response(channel, hello.clone());
                }
                SwarmEvent::Behaviour(LateEvent::Hop(Event::Message {
                    message: Message::Request { channel, .. },
                    ..
                })) => {
                    sleep(LATE).await;
                    let _ = swarm.behaviour_mut().hop.send_response(channel, granted(&own));
                }
                SwarmEvent::Behaviour(LateEvent::Hop(Event::ResponseSent { .. })) => {
                    if let Some(answered) = answered.take() {
                        answered.send(()).unwrap();
                    }
                }
                _ => {}
            }
        }
    });
    (timeout(PATIENCE, listens).await.unwrap().unwrap(), answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_reservation_that_is_granted_late_is_taken_and_harms_nobody() {
    let pki = pki();
    let (address, answer) = start_late(&pki).await;
    let mut config = user(&pki, "alice", 11, &[]);
    config.bootstrap = vec![address];
    config.limits.timers.lookup = LOOKUP;
    let alice = start(config).await;
    timeout(PATIENCE, answer).await.unwrap().unwrap();
    alice.until("a reservation", |status| status.reservations_held == 1).await;
}
