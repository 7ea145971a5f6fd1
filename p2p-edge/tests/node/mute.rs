//! A certified gateway that offers calls, takes streams and then says nothing.

use std::time::{Duration, Instant};

use call_model::Codec;
use futures::StreamExt;
use libp2p::kad::store::MemoryStore;
use libp2p::request_response::{self, Event, Message, ProtocolSupport};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, kad, noise, tcp, yamux};
use minicbor::Encode;
use minicbor::bytes::ByteVec;
use p2p_edge::identity::{NodeBundle, Price};
use p2p_edge::record::GatewayOffer;
use p2p_edge::testing::Pki;

use super::attacks::Raw;
use super::revocations::Hello;
use super::support::{Running, gateway, pki, prefix, start, supernode, unix, user};

#[derive(NetworkBehaviour)]
struct Mute {
    kad: kad::Behaviour<MemoryStore>,
    identity: request_response::Behaviour<Raw>,
    offer: request_response::Behaviour<Raw>,
    /// Reads until the far end closes, and so never answers.
    calls: request_response::Behaviour<Raw>,
}

#[derive(Encode)]
#[cbor(map)]
struct Offers {
    #[n(0)]
    offers: Vec<ByteVec>,
}

fn swarm(bundle: &NodeBundle) -> Swarm<Mute> {
    SwarmBuilder::with_existing_identity(bundle.key.keypair())
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| {
            let id = key.public().to_peer_id();
            let config = kad::Config::new(StreamProtocol::new("/causeway/kad/1"));
            let raw = |name, support| {
                let protocol = (StreamProtocol::new(name), support);
                request_response::Behaviour::with_codec(Raw, [protocol], Default::default())
            };
            Mute {
                kad: kad::Behaviour::with_config(id, MemoryStore::new(id), config),
                identity: raw("/causeway/identity/1", ProtocolSupport::Full),
                offer: raw("/causeway/offer/1", ProtocolSupport::Inbound),
                calls: raw("/causeway/call/1", ProtocolSupport::Inbound),
            }
        })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build()
}

/// Starts the cheapest gateway for +44, known to one supernode.
fn start_mute(pki: &Pki, first: &Running) {
    let bundle = pki.gateway(31, &[prefix("+44")]).unwrap();
    let offer = GatewayOffer {
        prefixes: vec![prefix("+44")],
        price: Price { micros_per_minute: 1, currency: "EUR".parse().unwrap() },
        codecs: vec![Codec::Opus],
        capacity: 10,
        load: 0,
        sequence: 1,
        expires_unix: unix() + 300,
    };
    let offers = Offers { offers: vec![offer.sign(&bundle.chain, &bundle.key).unwrap().into()] };
    let offers = minicbor::to_vec(offers).unwrap();
    let hello = Hello { credential: bundle.chain.encode().into(), lists: Vec::new() };
    let hello = minicbor::to_vec(hello).unwrap();
    let (address, peer): (Multiaddr, PeerId) =
        (first.address.parse().unwrap(), first.handle.peer_id().parse().unwrap());
    let mut swarm = swarm(&bundle);
    swarm.behaviour_mut().kad.add_address(&peer, address.clone());
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    tokio::spawn(async move {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { address: own, .. } => {
                    swarm.add_external_address(own);
                    swarm.dial(address.clone()).unwrap();
                }
                SwarmEvent::ConnectionEstablished { peer_id, .. } if peer_id == peer => {
                    swarm.behaviour_mut().identity.send_request(&peer, hello.clone());
                }
                SwarmEvent::Behaviour(MuteEvent::Identity(Event::Message { message, .. })) => match message {
                    Message::Request { channel, .. } => {
                        let _ = swarm.behaviour_mut().identity.send_response(channel, hello.clone());
                    }
                    Message::Response { .. } => {
                        let key = kad::RecordKey::new(&b"/causeway/gw/+44");
                        swarm.behaviour_mut().kad.start_providing(key).unwrap();
                    }
                },
                SwarmEvent::Behaviour(MuteEvent::Offer(Event::Message {
                    message: Message::Request { channel, .. },
                    ..
                })) => {
                    let _ = swarm.behaviour_mut().offer.send_response(channel, offers.clone());
                }
                _ => {}
            }
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_gateway_that_does_not_acknowledge_makes_way_for_the_next() {
    let pki = pki();
    let first = start(supernode(&pki, 1, &[])).await;
    let mut dear = start(gateway(&pki, 21, &[("+44", 900)], &[], &[&first])).await;
    dear.online().await;
    start_mute(&pki, &first);
    first.until("both gateways", |status| status.providers == 2).await;
    let mut alice = start(user(&pki, "alice", 11, &[&first])).await;
    alice.online().await;
    let begin = Instant::now();
    let call = alice.invite(1, "+442079460018").await;
    assert_eq!(dear.incoming().await.0, call);
    let waited = begin.elapsed();
    assert!(waited > Duration::from_secs(3), "the mute one was asked first: {waited:?}");
    dear.take(call).await;
    alice.answered(call).await;
}
