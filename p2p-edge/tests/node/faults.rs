//! Peers that prove nothing, and peers that only seem to do wrong.

use std::time::{Duration, Instant};

use futures::StreamExt;
use libp2p::request_response::{self, Event, Message, ProtocolSupport};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, kad, noise, relay, tcp, yamux};
use p2p_edge::identity::{Credential, NodeKey};
use p2p_edge::node::{NodeEvent, Refusal};
use p2p_edge::record::{Device, LocationRecord, RecordKey};
use p2p_edge::testing::key;

use super::attacks::{Attacker, Raw, invite};
use super::revocations::Hello;
use super::support::{Running, gateway, handle, pki, start, supernode, unix, user};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn refused_invites_take_no_room_of_others() {
    let pki = pki();
    let mut config = gateway(&pki, 21, &[("+1", 1)], &[], &[]);
    config.limits.calls = 1;
    let mut victim = start(config).await;
    let mallory = pki.user(&handle("mallory"), 66).unwrap();
    let mut attacker = Attacker::new(&mallory.key);
    let peer = attacker.connect(&victim).await;
    let own = mallory.certificate.encode();
    for serial in 1..6 {
        let mut altered = invite(serial, own.clone(), "mallory", &mallory.key);
        altered.media.push_str("a=altered\r\n");
        attacker.send_invite(peer, &altered).await;
        attacker.until_refused(&victim, Refusal::CallSignature, u64::try_from(serial).unwrap()).await;
    }
    let status = victim.handle.status().await;
    assert_eq!((status.calls, status.refused(Refusal::CallLimit)), (0, 0), "{status:#?}");
    let honest = invite(9, own, "mallory", &mallory.key);
    attacker.send_invite(peer, &honest).await;
    let begin = Instant::now();
    let call = loop {
        let _ = tokio::time::timeout(Duration::from_millis(10), attacker.swarm.select_next_some()).await;
        match victim.events.try_recv() {
            Ok(NodeEvent::Incoming { call, .. }) => break call,
            _ => assert!(begin.elapsed() < Duration::from_secs(10), "the honest call was not presented"),
        }
    };
    assert_eq!(call, honest.call);
}

/// A bare client of relays that can say who it is.
#[derive(NetworkBehaviour)]
pub(crate) struct Caller {
    relay: relay::client::Behaviour,
    pub(crate) identity: request_response::Behaviour<Raw>,
}

/// Builds a bare client of relays.
pub(crate) fn caller(key: &NodeKey) -> Swarm<Caller> {
    SwarmBuilder::with_existing_identity(key.keypair())
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_relay_client(noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_, relay| {
            let protocol = (StreamProtocol::new("/causeway/identity/1"), ProtocolSupport::Full);
            let identity = request_response::Behaviour::with_codec(Raw, [protocol], Default::default());
            Caller { relay, identity }
        })
        .unwrap()
        .build()
}

/// Asks a relay for a circuit, after a hello with this credential. Returns whether it got one.
async fn gets_circuit(key: &NodeKey, relay: &Running, callee: &str, credential: Vec<u8>) -> bool {
    let mut swarm = caller(key);
    let (address, peer): (Multiaddr, PeerId) =
        (relay.address.parse().unwrap(), relay.handle.peer_id().parse().unwrap());
    swarm.dial(address.clone()).unwrap();
    let hello = minicbor::to_vec(Hello { credential: credential.into(), lists: Vec::new() }).unwrap();
    let trying = async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { peer_id, .. } if peer_id == peer => {
                    swarm.behaviour_mut().identity.send_request(&peer, hello.clone());
                }
                // The answer to the hello: the credential is decided.
                SwarmEvent::Behaviour(CallerEvent::Identity(Event::Message {
                    message: Message::Response { .. },
                    ..
                })) => {
                    let circuit = format!("{address}/p2p-circuit/p2p/{callee}");
                    swarm.dial(circuit.parse::<Multiaddr>().unwrap()).unwrap();
                }
                SwarmEvent::ConnectionEstablished { endpoint, .. } if endpoint.is_relayed() => return true,
                SwarmEvent::OutgoingConnectionError { .. } => return false,
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), trying).await.expect("the relay decides")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_circuit_is_for_those_who_prove_who_they_are() {
    let pki = pki();
    let relay = start(supernode(&pki, 1, &[])).await;
    let mut bob = start(user(&pki, "bob", 12, &[&relay])).await;
    bob.online().await;
    let callee = bob.handle.peer_id();
    let mallory = pki.user(&handle("mallory"), 66).unwrap();
    let credential = Credential::Handle(mallory.certificate).encode();
    assert!(
        !gets_circuit(&key(67), &relay, &callee, credential.clone()).await,
        "somebody else's certificate"
    );
    assert!(!gets_circuit(&key(67), &relay, &callee, b"rubbish".to_vec()).await);
    assert!(gets_circuit(&mallory.key, &relay, &callee, credential).await);
}

/// What comes of two writers, of clocks or of full tables is no reason to disconnect anybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_peer_that_brings_old_records_stays_connected() {
    let pki = pki();
    let victim = start(supernode(&pki, 1, &[])).await;
    let mut attacker = Attacker::new(&key(66));
    let peer = attacker.connect(&victim).await;
    let bob = pki.user(&handle("bob"), 12).unwrap();
    let slot = RecordKey::Location(handle("bob")).to_bytes();
    let put = |attacker: &mut Attacker, peer: PeerId, sequence| {
        let device = Device { peer: bob.key.peer_id(), addresses: Vec::new(), abilities: 0, priority: 0 };
        let record = LocationRecord {
            handle: handle("bob"),
            sequence,
            expires_unix: unix() + 60,
            devices: vec![device],
        };
        let value = record.sign(&bob.certificate, &bob.key).unwrap();
        let record = kad::Record::new(slot.clone(), value);
        attacker.swarm.behaviour_mut().kad.put_record_to(record, [peer].into_iter(), kad::Quorum::One);
    };
    put(&mut attacker, peer, 1_000);
    let begin = Instant::now();
    while victim.handle.status().await.records != 1 {
        assert!(begin.elapsed() < Duration::from_secs(10), "a valid record was not stored");
        let _ = tokio::time::timeout(Duration::from_millis(10), attacker.swarm.select_next_some()).await;
    }
    for count in 1..=100 {
        put(&mut attacker, peer, count);
        if count % 10 == 0 {
            attacker.until_refused(&victim, Refusal::RecordNotNewer, count).await;
        }
    }
    assert!(attacker.swarm.is_connected(&peer));
    assert_eq!(victim.handle.status().await.peers, 1);
}
