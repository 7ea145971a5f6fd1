//! Certified supernodes that lie about records, keep them back or say nothing, nearest of all to
//! the key they are about.

use std::time::{Duration, Instant};

use call_model::Handle;
use futures::StreamExt;
use libp2p::kad::KBucketKey;
use libp2p::kad::store::MemoryStore;
use libp2p::request_response::{self, Event, Message, ProtocolSupport};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, SwarmBuilder, identify, kad, noise, tcp, yamux};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use p2p_edge::identity::NodeBundle;
use p2p_edge::node::Refusal;
use p2p_edge::record::{Device, LocationRecord, RecordKey};
use p2p_edge::testing::{Pki, key};
use tokio::sync::watch;

use super::attacks::Raw;
use super::revocations::Hello;
use super::support::{Running, handle, pki, start, supernode, three_supernodes, unix, user};

/// What a lying supernode says to whoever asks it for a record.
#[derive(Clone)]
enum Lie {
    /// That there is none.
    Nothing,
    /// Nothing at all.
    Silence,
    /// These bytes, to everybody and about everything.
    Record(Vec<u8>),
    /// That there is none, until it dies without a word: connections to it stay open and new ones are
    /// never refused.
    Death(watch::Receiver<bool>),
}

#[derive(NetworkBehaviour)]
struct Liar {
    kad: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
    identity: request_response::Behaviour<Raw>,
    lookup: request_response::Behaviour<Raw>,
}

#[derive(Decode)]
#[cbor(map)]
struct Asked {
    #[n(0)]
    keys: Vec<ByteVec>,
}

#[derive(Encode)]
#[cbor(map)]
struct Answers {
    #[n(0)]
    answers: Vec<Answer>,
}

#[derive(Encode, Clone, Default)]
#[cbor(map)]
struct Answer {
    #[n(0)]
    records: Vec<ByteVec>,
    #[n(1)]
    providers: Vec<ByteVec>,
}

/// Returns the numbers of `count` test keys that are nearer to a record than the first 20 keys.
fn nearest(record: &RecordKey, count: usize) -> Vec<u8> {
    let target = KBucketKey::new(record.to_bytes());
    let mut numbers: Vec<u8> = (30..=250).collect();
    let peer = |number: &u8| -> PeerId { key(*number).peer_id().to_string().parse().unwrap() };
    numbers.sort_by_key(|number| target.distance(&KBucketKey::from(peer(number))));
    numbers.truncate(count);
    let honest = (0..20).map(|number| target.distance(&KBucketKey::from(peer(&number)))).min().unwrap();
    assert!(numbers.iter().all(|number| target.distance(&KBucketKey::from(peer(number))) < honest));
    numbers
}

/// Starts a certified supernode that keeps none of the rules. Returns its address.
async fn start_liar(pki: &Pki, number: u8, first: Option<&Running>, lie: Lie) -> String {
    let NodeBundle { key, chain } = pki.supernode(number).unwrap();
    let mut swarm = SwarmBuilder::with_existing_identity(key.keypair())
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| {
            let id = key.public().to_peer_id();
            let config = kad::Config::new(StreamProtocol::new("/causeway/kad/1"));
            let mut kad = kad::Behaviour::with_config(id, MemoryStore::new(id), config);
            kad.set_mode(Some(kad::Mode::Server));
            let raw = |name| {
                let protocol = (StreamProtocol::new(name), ProtocolSupport::Full);
                request_response::Behaviour::with_codec(Raw, [protocol], Default::default())
            };
            let identify = identify::Config::new("causeway/1".into(), key.public());
            let identify = identify::Behaviour::new(identify);
            Liar { kad, identify, identity: raw("/causeway/identity/1"), lookup: raw("/causeway/lookup/1") }
        })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build();
    let hello = Hello { credential: chain.encode().into(), lists: Vec::new() };
    let hello = minicbor::to_vec(hello).unwrap();
    // Each in a network of its own.
    swarm.listen_on(format!("/ip4/127.{number}.0.1/tcp/0").parse().unwrap()).unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    swarm.add_external_address(address.clone());
    if let Some(first) = first {
        swarm.dial(first.address.parse::<Multiaddr>().unwrap()).unwrap();
    }
    let known = format!("{address}/p2p/{}", swarm.local_peer_id());
    tokio::spawn(async move {
        // Requests that are never answered: dropping one would tell the asker at once.
        let mut kept = Vec::new();
        let mut dies = match &lie {
            Lie::Death(dies) => dies.clone(),
            _ => watch::channel(false).1,
        };
        loop {
            let died = async {
                if dies.wait_for(|dies| *dies).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            let event = tokio::select! {
                event = swarm.select_next_some() => Some(event),
                () = died => None,
            };
            // The dead keep what they have.
            let Some(event) = event else { return std::future::pending().await };
            match event {
                SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                    swarm.behaviour_mut().identity.send_request(&peer_id, hello.clone());
                }
                SwarmEvent::Behaviour(LiarEvent::Identity(Event::Message {
                    message: Message::Request { channel, .. },
                    ..
                })) => {
                    let _ = swarm.behaviour_mut().identity.send_response(channel, hello.clone());
                }
                SwarmEvent::Behaviour(LiarEvent::Lookup(Event::Message {
                    message: Message::Request { request, channel, .. },
                    ..
                })) => {
                    let Asked { keys } = minicbor::decode(&request).unwrap();
                    let answer = match &lie {
                        Lie::Silence => {
                            kept.push(channel);
                            continue;
                        }
                        Lie::Nothing | Lie::Death(_) => Answer::default(),
                        Lie::Record(bytes) => {
                            Answer { records: vec![bytes.clone().into()], ..Answer::default() }
                        }
                    };
                    let answers = Answers { answers: vec![answer; keys.len()] };
                    let answers = minicbor::to_vec(answers).unwrap();
                    let _ = swarm.behaviour_mut().lookup.send_response(channel, answers);
                }
                _ => {}
            }
        }
    });
    known
}

/// Where bob was an hour ago, truly signed by himself; or where mallory says that he is.
fn location(pki: &Pki, who: &Handle, signer: &str, number: u8) -> Vec<u8> {
    let signer = pki.user(&handle(signer), number).unwrap();
    let device = Device {
        peer: signer.key.peer_id(),
        addresses: vec!["/ip4/127.0.0.1/tcp/9".parse().unwrap()],
        abilities: 0,
        priority: 0,
    };
    let record = LocationRecord {
        handle: who.clone(),
        sequence: 1,
        expires_unix: unix() + 300,
        devices: vec![device],
    };
    record.sign(&signer.certificate, &signer.key).unwrap()
}

async fn bob_is_called_although(lie: impl Fn(&Pki) -> Lie, refused: Option<Refusal>) {
    let pki = pki();
    let supernodes = three_supernodes(&pki).await;
    let bobs = RecordKey::Location(handle("bob"));
    let mut liars = Vec::new();
    for number in nearest(&bobs, 2) {
        liars.push(start_liar(&pki, number, Some(&supernodes[0]), lie(&pki)).await);
    }
    supernodes[0].until("the liars in the table", |status| status.routing_table == 4).await;
    let [first, second, third] = &supernodes;
    let mut bob = start(user(&pki, "bob", 12, &[first, second, third])).await;
    bob.online().await;
    // Those who lie are the first that alice knows, and the nearest that she can ask.
    let mut config = user(&pki, "alice", 11, &[first, second, third]);
    config.bootstrap.splice(0..0, liars.clone());
    config.limits.own_reservations = 5;
    let mut alice = start(config).await;
    alice.online().await;
    alice.until("all five", |status| status.certified.len() == 5).await;
    let begin = Instant::now();
    let call = alice.invite(1, "bob").await;
    assert_eq!(bob.incoming().await.0, call);
    assert!(begin.elapsed() < Duration::from_secs(4), "a lie costs little time: {:?}", begin.elapsed());
    bob.take(call).await;
    alice.answered(call).await;
    if let Some(reason) = refused {
        alice.until("the liars' answers", |status| status.refused(reason) > 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn supernodes_that_deny_a_record_hide_nobody() {
    bob_is_called_although(|_| Lie::Nothing, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn supernodes_that_say_nothing_hide_nobody() {
    bob_is_called_although(|_| Lie::Silence, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn supernodes_that_forge_a_record_are_not_believed() {
    let forged = |pki: &Pki| Lie::Record(location(pki, &handle("mallory"), "mallory", 66));
    bob_is_called_although(forged, Some(Refusal::AnswerInvalid)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn supernodes_that_keep_to_an_old_record_mislead_nobody() {
    bob_is_called_although(|pki| Lie::Record(location(pki, &handle("bob"), "bob", 12)), None).await;
}

/// The same lies with the defence away: nobody else to ask.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn whoever_knows_liars_alone_is_misled() {
    let pki = pki();
    let first = start(supernode(&pki, 1, &[])).await;
    let mut bob = start(user(&pki, "bob", 12, &[&first])).await;
    bob.online().await;
    let number = nearest(&RecordKey::Location(handle("bob")), 1)[0];
    let liar = start_liar(&pki, number, None, Lie::Nothing).await;
    let mut config = user(&pki, "alice", 11, &[]);
    config.bootstrap = vec![liar];
    let mut alice = start(config).await;
    alice.until("the liar", |status| status.certified.len() == 1).await;
    let call = alice.invite(1, "bob").await;
    assert_eq!(alice.ended(call).await.1, Some(404));
}

#[tokio::test(flavor = "multi_thread")]
async fn supernodes_that_die_without_a_word_keep_nobody_from_being_found() {
    let pki = pki();
    let supernodes = three_supernodes(&pki).await;
    let (kill, dies) = watch::channel(false);
    for number in 30..42 {
        start_liar(&pki, number, Some(&supernodes[0]), Lie::Death(dies.clone())).await;
    }
    supernodes[0].until("all of them in the table", |status| status.routing_table == 14).await;
    kill.send(true).unwrap();
    // Twelve of the fifteen that would hold the record of bob are dead, and nobody knows it yet.
    let [first, second, third] = &supernodes;
    let begin = Instant::now();
    let mut bob = start(user(&pki, "bob", 12, &[first, second, third])).await;
    bob.online().await;
    assert!(begin.elapsed() < Duration::from_secs(10), "it took {:?}", begin.elapsed());
    let alice = start(user(&pki, "alice", 11, &[third, second])).await;
    let call = alice.invite(1, "bob").await;
    assert_eq!(bob.incoming().await.0, call);
}

/// Pings tell after 25 s at the most, and a look-up takes 5 s.
#[tokio::test(flavor = "multi_thread")]
async fn who_loses_every_server_without_a_word_finds_others_before_pings_tell() {
    let pki = pki();
    let supernodes = three_supernodes(&pki).await;
    let [first, second, third] = &supernodes;
    let mut bob = start(user(&pki, "bob", 12, &[first, second, third])).await;
    bob.online().await;
    let (kill, dies) = watch::channel(false);
    // Alice joins by the three that will die, which are as many as she wants; of others she has heard only.
    let mut config = user(&pki, "alice", 11, &[first, second, third]);
    let mut doomed = Vec::new();
    for number in 30..33 {
        doomed.push(start_liar(&pki, number, None, Lie::Death(dies.clone())).await);
    }
    config.bootstrap.splice(0..0, doomed.clone());
    let alice = start(config).await;
    alice.until("three servers", |status| status.certified.len() == 3).await;
    let servers = alice.handle.status().await.certified;
    assert!(servers.iter().all(|peer| doomed.iter().any(|known| known.ends_with(peer))), "{servers:?}");
    kill.send(true).unwrap();
    let found = alice.handle.look_up(RecordKey::Location(handle("bob"))).await.unwrap();
    assert!(found.record.is_some(), "after {:?} {} nodes had answered", found.took, found.answered);
    assert!(found.took < Duration::from_secs(5), "it took {:?}", found.took);
}
