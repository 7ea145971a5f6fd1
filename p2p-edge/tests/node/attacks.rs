//! Nodes that do not keep to the rules: a bare swarm without any of this crate's checks.

use std::io;
use std::time::{Duration, Instant};

use call_model::{Address, CallId, Caller};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::kad::store::MemoryStore;
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::NetworkBehaviour;
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identify, kad, noise, tcp, yamux};
use p2p_edge::calling::{Body, Frame, Invite, ResumeToken};
use p2p_edge::identity::{Assertion, NodeKey, RevocationReason, UserBundle};
use p2p_edge::node::{NodeEvent, Refusal};
use p2p_edge::record::{Device, LocationRecord, RecordKey};
use p2p_edge::testing::{Pki, key};

use super::support::{Running, gateway, handle, pki, start, supernode, unix, user};

#[derive(Clone)]
pub(crate) struct Raw;

async fn read_all<T: AsyncRead + Unpin + Send>(io: &mut T) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io.read_to_end(&mut bytes).await?;
    Ok(bytes)
}

impl request_response::Codec for Raw {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read_all(io).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read_all(io).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&bytes).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&bytes).await
    }
}

#[derive(NetworkBehaviour)]
pub(crate) struct Evil {
    pub(crate) kad: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
    pub(crate) calls: request_response::Behaviour<Raw>,
    pub(crate) lookup: request_response::Behaviour<Raw>,
    pub(crate) publish: request_response::Behaviour<Raw>,
    pub(crate) turn: request_response::Behaviour<Raw>,
    pub(crate) identity: request_response::Behaviour<Raw>,
    pub(crate) revocations: request_response::Behaviour<Raw>,
}

pub(crate) struct Attacker {
    pub(crate) swarm: Swarm<Evil>,
    pub(crate) peer: PeerId,
}

impl Attacker {
    pub(crate) fn new(key: &NodeKey) -> Self {
        let swarm = SwarmBuilder::with_existing_identity(key.keypair())
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|key| {
                let id = key.public().to_peer_id();
                let config = kad::Config::new(StreamProtocol::new("/causeway/kad/1"));
                let mut kad = kad::Behaviour::with_config(id, MemoryStore::new(id), config);
                kad.set_mode(Some(kad::Mode::Server));
                let raw = |name, support| {
                    let protocol = (StreamProtocol::new(name), support);
                    request_response::Behaviour::with_codec(Raw, [protocol], Default::default())
                };
                Evil {
                    kad,
                    identify: identify::Behaviour::new(identify::Config::new(
                        "causeway/1".into(),
                        key.public(),
                    )),
                    calls: raw("/causeway/call/1", ProtocolSupport::Outbound),
                    lookup: raw("/causeway/lookup/1", ProtocolSupport::Outbound),
                    publish: raw("/causeway/publish/1", ProtocolSupport::Outbound),
                    turn: raw("/causeway/turn/1", ProtocolSupport::Outbound),
                    identity: raw("/causeway/identity/1", ProtocolSupport::Full),
                    revocations: raw("/causeway/revocations/1", ProtocolSupport::Inbound),
                }
            })
            .unwrap()
            .build();
        Self { peer: *swarm.local_peer_id(), swarm }
    }

    pub(crate) async fn connect(&mut self, victim: &Running) -> PeerId {
        let address: Multiaddr = victim.address.parse().unwrap();
        let peer: PeerId = victim.handle.peer_id().parse().unwrap();
        self.swarm.behaviour_mut().kad.add_address(&peer, address.clone());
        self.swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        self.swarm.dial(address).unwrap();
        while !self.swarm.is_connected(&peer) {
            self.swarm.select_next_some().await;
        }
        peer
    }

    /// Runs the swarm until the victim has refused something for this reason.
    pub(crate) async fn until_refused(&mut self, victim: &Running, reason: Refusal, count: u64) {
        let begin = Instant::now();
        while victim.handle.status().await.refused(reason) < count {
            let status = victim.handle.status().await;
            assert!(begin.elapsed() < Duration::from_secs(10), "not refused as {reason:?}: {status:#?}");
            let _ = tokio::time::timeout(Duration::from_millis(10), self.swarm.select_next_some()).await;
        }
    }

    pub(crate) async fn send_invite(&mut self, victim: PeerId, invite: &Invite) {
        let body = Body::Invite { invite: Box::new(invite.clone()), token: ResumeToken::new([7; 16]) };
        let frame = Frame { sequence: 1, body }.encode();
        self.swarm.behaviour_mut().calls.send_request(&victim, frame);
    }
}

pub(crate) fn invite(serial: u128, certificate: Vec<u8>, from: &str, signer: &NodeKey) -> Invite {
    let call = CallId::new(unix() * 1000, serial);
    let from = Caller { address: Some(from.parse().unwrap()), ..Caller::default() };
    let to: Address = "+15550100".parse().unwrap();
    let (media, nonce, expires_unix) = ("v=0\r\n".to_owned(), [serial as u8; 16], unix() + 60);
    let assertion = Assertion { call, from: &from, to: &to, nonce, expires_unix, media: &media };
    let signature = assertion.sign(signer).to_vec();
    Invite { call, certificate, from, to, media, nonce, expires_unix, signature }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn calls_with_forged_expired_revoked_or_replayed_identity_are_refused() {
    let pki = pki();
    let UserBundle { key: mallory, certificate } = pki.user(&handle("mallory"), 66).unwrap();
    let revoked_serial = pki.handle(&handle("gone"), &[&mallory], 9).unwrap();
    let mut config = gateway(&pki, 21, &[("+1", 1)], &[], &[]);
    let list = pki.enrolment.revoke(None, 2009, RevocationReason::Withdrawn, unix()).unwrap();
    config.revocations.apply(list, &config.trust, unix()).unwrap();
    let mut victim = start(config).await;

    let mut attacker = Attacker::new(&mallory);
    let peer = attacker.connect(&victim).await;
    let own = certificate.encode();

    // Another root with the same names.
    let time = p2p_edge::identity::Validity::days_from(unix() - 60, 30);
    let root = p2p_edge::identity::Authority::init_root("Test Root", [0x66; 32], time).unwrap();
    let mut forged_pki = super::support::pki();
    forged_pki.enrolment = root.init_enrolment("Test Enrolment", [0x67; 32], 2, time).unwrap();
    forged_pki.root = root;
    let forged = forged_pki.user(&handle("alice"), 66).unwrap().certificate.encode();
    attacker.send_invite(peer, &invite(1, forged, "alice", &mallory)).await;
    attacker.until_refused(&victim, Refusal::CallCertificate, 1).await;

    let expired = Pki::new(unix() - 31 * 86_400).unwrap().user(&handle("mallory"), 66).unwrap().certificate;
    attacker.send_invite(peer, &invite(2, expired.encode(), "mallory", &mallory)).await;
    attacker.until_refused(&victim, Refusal::CallCertificate, 2).await;

    attacker.send_invite(peer, &invite(3, revoked_serial.encode(), "gone", &mallory)).await;
    attacker.until_refused(&victim, Refusal::CallCertificate, 3).await;

    // The certificate of somebody else, read off the overlay.
    let alice = pki.user(&handle("alice"), 11).unwrap();
    attacker.send_invite(peer, &invite(4, alice.certificate.encode(), "alice", &mallory)).await;
    attacker.until_refused(&victim, Refusal::CallKeyMismatch, 1).await;

    attacker.send_invite(peer, &invite(5, own.clone(), "alice", &mallory)).await;
    attacker.until_refused(&victim, Refusal::CallCallerMismatch, 1).await;

    let mut altered = invite(6, own.clone(), "mallory", &mallory);
    altered.media.push_str("a=altered\r\n");
    attacker.send_invite(peer, &altered).await;
    attacker.until_refused(&victim, Refusal::CallSignature, 1).await;

    let mut late = invite(7, own.clone(), "mallory", &mallory);
    late.expires_unix = unix() - 1;
    attacker.send_invite(peer, &late).await;
    attacker.until_refused(&victim, Refusal::CallExpired, 1).await;
    assert!(
        !std::iter::from_fn(|| victim.events.try_recv().ok())
            .any(|e| matches!(e, NodeEvent::Incoming { .. })),
        "none of these calls was presented"
    );

    let honest = invite(8, own, "mallory", &mallory);
    attacker.send_invite(peer, &honest).await;
    let begin = Instant::now();
    loop {
        let _ = tokio::time::timeout(Duration::from_millis(10), attacker.swarm.select_next_some()).await;
        match victim.events.try_recv() {
            Ok(NodeEvent::Incoming { call, from, .. }) => {
                assert_eq!((call, from.handle), (honest.call, Some(handle("mallory"))));
                break;
            }
            _ => assert!(begin.elapsed() < Duration::from_secs(10), "the honest call was not presented"),
        }
    }
    attacker.send_invite(peer, &honest).await;
    attacker.until_refused(&victim, Refusal::CallReplayed, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_uncertified_node_is_not_routed_to_and_stores_nothing() {
    let pki = pki();
    let victim = start(supernode(&pki, 1, &[])).await;
    let mut attacker = Attacker::new(&key(66));
    let peer = attacker.connect(&victim).await;

    // A record of somebody else's handle, rubbish, and a gateway that nobody has certified.
    let bob = pki.user(&handle("bob"), 12).unwrap();
    let slot = RecordKey::Location(handle("alice")).to_bytes();
    let device = Device { peer: bob.key.peer_id(), addresses: Vec::new(), abilities: 0, priority: 0 };
    let record = LocationRecord {
        handle: handle("bob"),
        sequence: 1,
        expires_unix: unix() + 60,
        devices: vec![device],
    };
    let wrong_slot = record.sign(&bob.certificate, &bob.key).unwrap();
    let kad = &mut attacker.swarm.behaviour_mut().kad;
    for value in [wrong_slot.clone(), b"rubbish".to_vec()] {
        kad.put_record_to(kad::Record::new(slot.clone(), value), [peer].into_iter(), kad::Quorum::One);
    }
    kad.start_providing(kad::RecordKey::new(&b"/causeway/gw/+44")).unwrap();
    attacker.until_refused(&victim, Refusal::RecordInvalid, 2).await;
    let status = victim.handle.status().await;
    assert_eq!((status.records, status.providers, status.routing_table), (0, 0, 0), "{status:#?}");
    assert!(!status.certified.contains(&attacker.peer.to_string()));

    // The same record under its own key is welcome, whoever brings it.
    let own_slot = RecordKey::Location(handle("bob")).to_bytes();
    let kad = &mut attacker.swarm.behaviour_mut().kad;
    kad.put_record_to(kad::Record::new(own_slot, wrong_slot), [peer].into_iter(), kad::Quorum::One);
    let begin = Instant::now();
    while victim.handle.status().await.records != 1 {
        assert!(begin.elapsed() < Duration::from_secs(10), "a valid record was not stored");
        let _ = tokio::time::timeout(Duration::from_millis(10), attacker.swarm.select_next_some()).await;
    }

    // A node under another root proves nothing either, and gets no place on the relay.
    let time = p2p_edge::identity::Validity::days_from(unix() - 60, 30);
    let root = p2p_edge::identity::Authority::init_root("Test Root", [0x66; 32], time).unwrap();
    let mut other = super::support::pki();
    other.enrolment = root.init_enrolment("Test Enrolment", [0x67; 32], 2, time).unwrap();
    other.root = root;
    let stranger = start(supernode(&other, 5, &[&victim])).await;
    let lodger = start(user(&other, "eve", 6, &[&victim])).await;
    victim
        .until("refusals", |status| {
            status.refused(Refusal::NodeCertificate) > 0 && status.refused(Refusal::UserCertificate) > 0
        })
        .await;
    let status = victim.handle.status().await;
    assert_eq!((status.routing_table, status.reservations_served), (0, 0));
    assert_eq!(stranger.handle.status().await.routing_table, 0, "and it does not believe the other side");
    assert!(!lodger.handle.status().await.online);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn malformed_requests_are_counted_and_harm_nothing() {
    let pki = pki();
    let victim = start(supernode(&pki, 1, &[])).await;
    let mut attacker = Attacker::new(&key(66));
    let peer = attacker.connect(&victim).await;
    attacker.swarm.behaviour_mut().lookup.send_request(&peer, vec![0xff; 100]);
    attacker.until_refused(&victim, Refusal::MessageMalformed, 1).await;
    // A length that no frame may have, and a frame that begins no call.
    attacker.swarm.behaviour_mut().calls.send_request(&peer, vec![0xff, 0xff, 0xff, 0xff]);
    attacker.until_refused(&victim, Refusal::FrameInvalid, 1).await;
    attacker
        .swarm
        .behaviour_mut()
        .calls
        .send_request(&peer, Frame { sequence: 1, body: Body::Ping }.encode());
    attacker.until_refused(&victim, Refusal::FrameInvalid, 2).await;
    let (call, token) = (CallId::new(1, 1), ResumeToken::new([1; 16]));
    let resume = Frame { sequence: 0, body: Body::Resume { call, token, received: 0 } };
    attacker.swarm.behaviour_mut().calls.send_request(&peer, resume.encode());
    attacker.until_refused(&victim, Refusal::ResumeUnknown, 1).await;
    let mut alice = start(user(&pki, "alice", 11, &[&victim])).await;
    alice.online().await;
}
