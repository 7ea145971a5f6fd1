//! Clients that run no DHT: they speak WebSocket, have their location put into the DHT for them, and
//! are told what others have stored.

use std::time::Duration;

use call_model::Number;
use futures::StreamExt;
use libp2p::Multiaddr;
use libp2p::request_response::{Event, Message};
use libp2p::swarm::SwarmEvent;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use p2p_edge::identity::{NodeKey, RevocationList, UserBundle};
use p2p_edge::node::{NodeLimits, Refusal};
use p2p_edge::record::{Device, LocationRecord, RecordKey, ValidRecord, validate};
use p2p_edge::testing::{Pki, key};

use super::attacks::{Attacker, EvilEvent};
use super::support::{
    Running, gateway, handle, limits, number, pki, start, supernode, three_supernodes, unix, user,
};

#[derive(Encode)]
#[cbor(map)]
struct Hello {
    #[n(0)]
    credential: ByteVec,
    #[n(1)]
    lists: Vec<u8>,
}

#[derive(Encode)]
#[cbor(map)]
struct Publish {
    #[n(0)]
    key: ByteVec,
    #[n(1)]
    value: ByteVec,
}

#[derive(Decode, Debug)]
#[cbor(map)]
struct Published {
    #[n(0)]
    stored: u32,
    #[n(1)]
    refused: Option<String>,
}

#[derive(Encode)]
#[cbor(map)]
struct Lookup {
    #[n(0)]
    keys: Vec<ByteVec>,
    #[n(1)]
    local_only: bool,
}

#[derive(Decode, Debug)]
#[cbor(map)]
struct Answers {
    #[n(0)]
    answers: Vec<Answer>,
}

#[derive(Decode, Debug)]
#[cbor(map)]
struct Answer {
    #[n(0)]
    records: Vec<ByteVec>,
    #[n(1)]
    providers: Vec<Provider>,
}

#[derive(Decode, Debug)]
#[cbor(map)]
struct Provider {
    #[n(0)]
    peer: ByteVec,
    #[n(1)]
    addresses: Vec<String>,
}

/// Sends one request and waits for its answer; `None` where the far end gives none.
pub(crate) async fn ask(
    client: &mut Attacker,
    protocol: &str,
    victim: &Running,
    request: Vec<u8>,
) -> Option<Vec<u8>> {
    let peer = victim.handle.peer_id().parse().unwrap();
    let swarm = client.swarm.behaviour_mut();
    match protocol {
        "identity" => swarm.identity.send_request(&peer, request),
        "lookup" => swarm.lookup.send_request(&peer, request),
        "turn" => swarm.turn.send_request(&peer, request),
        _ => swarm.publish.send_request(&peer, request),
    };
    loop {
        let SwarmEvent::Behaviour(event) = client.swarm.select_next_some().await else { continue };
        let (EvilEvent::Identity(event)
        | EvilEvent::Lookup(event)
        | EvilEvent::Publish(event)
        | EvilEvent::Turn(event)) = event
        else {
            continue;
        };
        match event {
            Event::Message { message: Message::Response { response, .. }, .. } => {
                return Some(response).filter(|bytes| !bytes.is_empty());
            }
            Event::OutboundFailure { .. } => return None,
            _ => {}
        }
    }
}

pub(crate) async fn hello(client: &mut Attacker, victim: &Running, bundle: &UserBundle) {
    let hello = Hello { credential: bundle.certificate.encode().into(), lists: Vec::new() };
    assert!(ask(client, "identity", victim, minicbor::to_vec(hello).unwrap()).await.is_some());
}

async fn publish(client: &mut Attacker, victim: &Running, value: &[u8]) -> Published {
    let key = RecordKey::Location(handle("alice")).to_bytes().into();
    let request = minicbor::to_vec(Publish { key, value: value.to_vec().into() }).unwrap();
    minicbor::decode(&ask(client, "publish", victim, request).await.expect("an answer")).unwrap()
}

async fn look_up(client: &mut Attacker, victim: &Running, keys: &[RecordKey]) -> Option<Vec<Answer>> {
    let keys = keys.iter().map(|key| key.to_bytes().into()).collect();
    let request = minicbor::to_vec(Lookup { keys, local_only: false }).unwrap();
    let Answers { answers } = minicbor::decode(&ask(client, "lookup", victim, request).await?).unwrap();
    Some(answers)
}

fn location(bundle: &UserBundle, signer: &NodeKey, sequence: u64) -> Vec<u8> {
    let address: Multiaddr = "/ip4/127.0.0.1/tcp/4002/ws".parse().unwrap();
    let peer = bundle.key.peer_id();
    let devices = vec![Device { peer, addresses: vec![address], abilities: 0, priority: 0 }];
    let record = LocationRecord { handle: handle("alice"), sequence, expires_unix: unix() + 600, devices };
    record.sign(&bundle.certificate, signer).unwrap()
}

fn alice(pki: &Pki) -> (UserBundle, Attacker) {
    let bundle = pki.user(&handle("alice"), 40).unwrap();
    let client = Attacker::new(&bundle.key);
    (bundle, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_without_dht_is_found_by_those_who_have_one() {
    let pki = pki();
    let nodes = three_supernodes(&pki).await;
    let (bundle, mut client) = alice(&pki);
    client.connect(&nodes[0]).await;
    let value = location(&bundle, &bundle.key, unix() * 1000);

    let refused = publish(&mut client, &nodes[0], &value).await;
    assert_eq!((refused.stored, refused.refused.as_deref()), (0, Some("unproven")), "before its hello");
    assert_eq!(nodes[0].handle.status().await.refused(Refusal::PublishUnproven), 1);
    assert_eq!(nodes[0].handle.status().await.records, 0);

    hello(&mut client, &nodes[0], &bundle).await;
    let published = publish(&mut client, &nodes[0], &value).await;
    assert!(published.stored >= 2 && published.refused.is_none(), "here and elsewhere: {published:?}");
    for node in &nodes {
        node.until("the record at every supernode", |status| status.records == 1).await;
    }
    assert_eq!(nodes[0].handle.status().await.published_for_clients, 1);

    // Whoever asks another supernode gets the very record, and verifies it without trusting it.
    let mut asker = Attacker::new(&key(41));
    asker.connect(&nodes[2]).await;
    let slot = RecordKey::Location(handle("alice"));
    let answers = look_up(&mut asker, &nodes[2], std::slice::from_ref(&slot)).await.unwrap();
    assert!(nodes[2].handle.status().await.lookups_served > 0);
    let [record] = answers[0].records.as_slice() else { panic!("{answers:?}") };
    let found = validate(&slot.to_bytes(), record, &pki.trust().unwrap(), &RevocationList::default(), unix());
    let Ok(ValidRecord::Location(found)) = found else { panic!("{found:?}") };
    assert_eq!(found.record.devices[0].peer, bundle.key.peer_id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_record_that_is_not_its_owners_is_not_published() {
    let pki = pki();
    let node = start(supernode(&pki, 1, &[])).await;
    let (bundle, mut client) = alice(&pki);
    client.connect(&node).await;
    hello(&mut client, &node, &bundle).await;

    let newest = location(&bundle, &bundle.key, unix() * 1000);
    let mut forged = newest.clone();
    *forged.last_mut().unwrap() ^= 1;
    let answer = publish(&mut client, &node, &forged).await;
    assert_eq!((answer.stored, answer.refused.as_deref()), (0, Some("record_bad_signature")));
    assert_eq!(node.handle.status().await.refused(Refusal::RecordInvalid), 1);

    assert_eq!(publish(&mut client, &node, &newest).await.stored, 1, "a supernode alone holds it itself");
    let old = location(&bundle, &bundle.key, unix() * 1000 - 5000);
    let answer = publish(&mut client, &node, &old).await;
    assert_eq!((answer.stored, answer.refused.as_deref()), (0, Some("stale_sequence")));
    assert_eq!(publish(&mut client, &node, &newest).await.stored, 1, "the same again is no fault");

    // Numbers belong to gateways, which run the DHT.
    let key = RecordKey::Number("+15550100".parse::<Number>().unwrap()).to_bytes().into();
    let request = minicbor::to_vec(Publish { key, value: newest.into() }).unwrap();
    assert!(ask(&mut client, "publish", &node, request).await.is_none());
    assert_eq!(node.handle.status().await.refused(Refusal::MessageMalformed), 1);
    assert_eq!(node.handle.status().await.published_for_clients, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn whoever_asks_too_much_gets_no_answer_and_others_do() {
    let pki = pki();
    let mut config = supernode(&pki, 1, &[]);
    config.limits = NodeLimits { lookup_rate: 1, ..limits() };
    let node = start(config).await;
    let mut greedy = Attacker::new(&key(41));
    greedy.connect(&node).await;
    let keys: Vec<RecordKey> =
        (0..5).map(|n| RecordKey::Number(number(&format!("+1555000000{n}")))).collect();
    let mut answered = 0;
    while look_up(&mut greedy, &node, &keys).await.is_some() {
        answered += 1;
        assert!(answered < 100, "never refused");
    }
    assert!((2..5).contains(&answered), "ten seconds' worth at once: {answered}");
    assert!(node.handle.status().await.refused(Refusal::LookupRate) >= 1);
    let mut other = Attacker::new(&key(43));
    other.connect(&node).await;
    assert!(look_up(&mut other, &node, &keys[..1]).await.is_some(), "another peer has its own");

    // A node that is told nothing takes no offence: it was not lied to.
    let mut bob = start(user(&pki, "bob", 42, &[&node])).await;
    bob.until("a supernode", |status| !status.certified.is_empty()).await;
    let before = node.handle.status().await.refused(Refusal::LookupRate);
    for serial in 0..10 {
        let call = bob.invite(serial, &format!("+1555000{serial:04}")).await;
        assert_ne!(bob.ended(call).await.0, 16, "nobody is there");
    }
    assert!(node.handle.status().await.refused(Refusal::LookupRate) > before);
    let status = bob.handle.status().await;
    assert_eq!((status.refused(Refusal::MessageMalformed), status.certified.len()), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn gateways_are_named_with_the_websocket_under_which_they_listen() {
    let pki = pki();
    let first = start(supernode(&pki, 1, &[])).await;
    let mut config = gateway(&pki, 10, &[("+44", 100)], &[], &[&first]);
    config.listen.push("/ip4/127.0.0.1/tcp/0/ws".to_owned());
    let mut gateway = start(config).await;
    gateway.online().await;
    let (bundle, mut client) = alice(&pki);
    client.connect(&first).await;
    hello(&mut client, &first, &bundle).await;
    let slot = RecordKey::Gateway("+44".parse().unwrap());
    let end = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let answers = look_up(&mut client, &first, std::slice::from_ref(&slot)).await.unwrap();
        if let [provider] = answers[0].providers.as_slice() {
            let peer = libp2p::PeerId::from_bytes(&provider.peer).unwrap();
            assert_eq!(peer.to_string(), gateway.handle.peer_id());
            assert!(provider.addresses.iter().any(|address| address.contains("/ws")), "{provider:?}");
            break;
        }
        assert!(tokio::time::Instant::now() < end, "{answers:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
