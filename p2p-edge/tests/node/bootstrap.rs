//! Joining by each way, with the others blocked, and by what is left of yesterday.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use p2p_edge::bootstrap::{Invite, Way};
use p2p_edge::identity::{Authority, BootstrapList, NodeClaims, Trust, Validity};
use p2p_edge::node::{BootstrapWays, NodeConfig, NodeRole, Refusal};
use p2p_edge::testing::{Pki, key};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::support::{Running, pki, start, supernode, three_supernodes, unix, user};

/// Tells the test that it runs in a network namespace of its own.
const INSIDE: &str = "CAUSEWAY_TEST_INSIDE";
/// The address of the only device there, beside the loopback device.
const HERE: &str = "10.77.0.1";
/// The six ways.
const WAYS: [Way; 6] = [Way::List, Way::Dns, Way::Mirror, Way::Disk, Way::Lan, Way::Invite];

/// A node that is not there, but whose address swallows what is sent to it.
fn dead() -> String {
    format!("/ip4/10.77.0.66/tcp/4001/p2p/{}", key(250).peer_id())
}

fn signed_list(pki: &Pki, folder: &Path, name: &str, nodes: &[String]) -> (PathBuf, String) {
    let list = BootstrapList::new(unix(), Validity::days_from(unix() - 60, 30), nodes, &[], &[]).unwrap();
    let text = pki.root.sign_bootstrap(list).unwrap().to_pem();
    let file = folder.join(name);
    std::fs::write(&file, &text).unwrap();
    (file, text)
}

/// Answers every question for TXT records with these, in turn of strings of 255 bytes.
async fn name_server(texts: Vec<String>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query).await {
            let end = query[12..length].iter().position(|byte| *byte == 0).unwrap() + 12 + 5;
            let count = u8::try_from(texts.len()).unwrap();
            // RFC 1035 4.1.1: an answer, without error, of one question.
            let mut answer = vec![query[0], query[1], 0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0];
            answer.extend_from_slice(&query[12..end]);
            for text in &texts {
                let strings: Vec<u8> = (text.as_bytes().chunks(255))
                    .flat_map(|part| [&[u8::try_from(part.len()).unwrap()], part].concat())
                    .collect();
                // The name of the question, TXT, IN, a minute.
                answer.extend_from_slice(&[0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60]);
                answer.extend_from_slice(&u16::try_from(strings.len()).unwrap().to_be_bytes());
                answer.extend_from_slice(&strings);
            }
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    address
}

/// Hands out a text by HTTPS. Returns its address; the certificate of the host goes into a file.
async fn mirror(folder: &Path, text: String) -> (String, PathBuf) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let ca = folder.join("mirror.pem");
    std::fs::write(&ca, made.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, text) = (acceptor.clone(), text.clone());
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await.unwrap();
                let _ = stream.read(&mut [0; 4096]).await.unwrap();
                let head =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len());
                stream.write_all((head + &text).as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            });
        }
    });
    (format!("https://{address}/list.pem"), ca)
}

/// What is asked for, and is never answered.
async fn silent() -> (SocketAddr, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = (socket.local_addr().unwrap(), format!("https://{}/", listener.local_addr().unwrap()));
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
        drop(socket);
    });
    addresses
}

/// A network, and every way to it: one that works and one that is blocked.
struct Network {
    pki: Pki,
    _nodes: Vec<Running>,
    good: BootstrapWays,
    blocked: BootstrapWays,
    _folder: tempfile::TempDir,
}

impl Network {
    async fn start() -> Self {
        let (pki, folder) = (pki(), tempfile::tempdir().unwrap());
        let at = |config: NodeConfig| {
            let ways = BootstrapWays { lan: true, ..BootstrapWays::default() };
            NodeConfig { listen: vec![format!("/ip4/{HERE}/tcp/0")], ways, ..config }
        };
        let first = start(at(supernode(&pki, 1, &[]))).await;
        let mut second = start(at(supernode(&pki, 2, &[&first]))).await;
        second.online().await;
        let nodes = [first.address.clone(), second.address.clone()];
        let (list, text) = signed_list(&pki, folder.path(), "good.pem", &nodes);
        let (dead_list, _) = signed_list(&pki, folder.path(), "dead.pem", &[dead()]);
        let (mirror, ca) = mirror(folder.path(), text).await;
        // One leads to the nodes by way of another name.
        let records = nodes.iter().map(|node| format!("dnsaddr={node}")).chain(["v=spf1 -all".to_owned()]);
        let (quiet_dns, quiet_mirror) = silent().await;
        let peers = |name: &str, address: &str| {
            let file = folder.path().join(name);
            let (host, peer) = address.split_once("/p2p/").unwrap();
            std::fs::write(&file, format!("causeway-peers 1\n{peer}\t{}\t1\t0\t{host}\n", unix())).unwrap();
            Some(file)
        };
        let good = BootstrapWays {
            list_file: Some(list),
            dns_names: vec!["boot.example.org".into()],
            dns_servers: vec![name_server(records.collect()).await],
            mirrors: vec![quiet_mirror.clone(), mirror],
            mirror_ca_file: Some(ca),
            peers_file: peers("peers", &nodes[1]),
            lan: true,
            invites: vec![Invite::new(None, &nodes).unwrap()],
        };
        let blocked = BootstrapWays {
            list_file: Some(dead_list),
            dns_servers: vec![quiet_dns],
            mirrors: vec![quiet_mirror],
            peers_file: peers("dead-peers", &dead()),
            lan: false,
            invites: vec![Invite::new(None, &[dead()]).unwrap()],
            ..good.clone()
        };
        Self { pki, _nodes: vec![first, second], good, blocked, _folder: folder }
    }

    /// Every way blocked but some.
    fn open(&self, open: &[Way]) -> BootstrapWays {
        let mut ways = self.blocked.clone();
        for way in open {
            let good = self.good.clone();
            match way {
                Way::List => ways.list_file = good.list_file,
                Way::Dns => ways.dns_servers = good.dns_servers,
                Way::Mirror => ways.mirrors = good.mirrors,
                Way::Disk => ways.peers_file = good.peers_file,
                Way::Lan => ways.lan = true,
                Way::Invite => ways.invites = good.invites,
                Way::Configured => panic!("not one of the six"),
            }
        }
        ways
    }

    /// Lets a user join. Returns the ways by which it has.
    async fn join(&self, number: u8, open: &[Way]) -> Vec<&'static str> {
        let name = format!("user{number}");
        let mut config = NodeConfig { ways: self.open(open), ..user(&self.pki, &name, number, &[]) };
        // Each has a file of its own.
        let file = config.ways.peers_file.take().unwrap();
        let own = file.with_extension(number.to_string());
        std::fs::copy(&file, &own).unwrap();
        config.ways.peers_file = Some(own);
        let mut node = start(config).await;
        node.online().await;
        let status = node.handle.status().await;
        status.health.ways.iter().filter(|way| way.joined > 0).map(|way| way.way).collect()
    }
}

/// RFC 6762 needs a device with multicast: the loopback device has none, and that of this machine is
/// nobody's business. So this runs again in a network namespace, with a device that leads nowhere.
fn enter() -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let prepare = format!(
        "ip link set lo up && ip link add lan0 type veth peer name lan1 && ip link set lan1 up && \
         ip addr add {HERE}/24 dev lan0 && ip link set lan0 multicast on up && exec \"$@\""
    );
    let thread = std::thread::current();
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--", "sh", "-c", &prepare, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", thread.name().expect("tests have names")])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(
        status.success(),
        "in a namespace of its own: {status}; it takes unshare (util-linux), ip and user namespaces"
    );
    false
}

#[test]
fn a_node_joins_with_any_four_of_the_six_ways_blocked() {
    if !enter() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let network = Network::start().await;
        let mut sets: Vec<Vec<Way>> = WAYS.iter().map(|way| vec![*way]).collect();
        for (at, first) in WAYS.iter().enumerate() {
            sets.extend(WAYS[at + 1..].iter().map(|second| vec![*first, *second]));
        }
        assert_eq!(sets.len(), 6 + 15);
        let joins = sets.iter().zip(100..).map(|(open, number)| network.join(number, open));
        let joined = futures::future::join_all(joins).await;
        for (open, by) in sets.iter().zip(&joined) {
            let open: Vec<&str> = open.iter().map(|way| way.as_str()).collect();
            assert!(!by.is_empty() && by.iter().all(|way| open.contains(way)), "{by:?} of {open:?}");
        }
        // With all blocked nobody joins: what was shown above is no accident.
        let closed = NodeConfig { ways: network.open(&[]), ..user(&network.pki, "outside", 99, &[]) };
        let outside = start(closed).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        let status = outside.handle.status().await;
        assert!(!status.online && status.peers == 0, "{status:#?}");
        let asked = status.health.ways.iter().filter(|way| way.asked > 0).count();
        assert_eq!(asked, 2, "DNS and mirrors: {:?}", status.health.ways);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_yesterday_joins_although_all_first_supernodes_are_gone() {
    let (pki, folder) = (pki(), tempfile::tempdir().unwrap());
    let [mut first, second, third] = three_supernodes(&pki).await;
    let with = |config: NodeConfig| {
        let ways =
            BootstrapWays { peers_file: Some(folder.path().join("peers")), ..BootstrapWays::default() };
        NodeConfig { ways, ..config }
    };
    for (number, is_user) in [(11, true), (4, false)] {
        let config = || match is_user {
            true => with(user(&pki, "alice", number, &[&first])),
            false => with(supernode(&pki, number, &[&first])),
        };
        let mut node = start(config()).await;
        node.online().await;
        node.until("three servers that are remembered", |status| status.health.good_peers >= 3).await;
        node.handle.shutdown(Duration::from_secs(1)).await;
        let text = std::fs::read_to_string(folder.path().join("peers")).unwrap();
        for known in [&second, &third] {
            assert!(text.contains(&known.handle.peer_id()), "{text}");
        }
    }
    let known_to_the_first = first.address.clone();
    first.vanish();
    // A disk does what disks do, too.
    let damaged = std::fs::read_to_string(folder.path().join("peers")).unwrap() + "12D3Koo\tcut off he";
    std::fs::write(folder.path().join("peers"), damaged).unwrap();
    let mut config = with(user(&pki, "alice", 11, &[]));
    config.bootstrap = vec![known_to_the_first.clone()];
    let mut alice = start(config).await;
    alice.online().await;
    let ways = alice.handle.status().await.health.ways;
    assert!(ways.iter().any(|way| way.way == "disk" && way.joined > 0), "{ways:?}");
    assert!(ways.iter().all(|way| way.way == "disk" || way.joined == 0), "{ways:?}");
    // Without its memory it is lost.
    let mut config = user(&pki, "bob", 12, &[]);
    config.bootstrap = vec![known_to_the_first];
    let bob = start(config).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(bob.handle.status().await.peers, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_a_hint_leads_to_has_to_prove_its_certificate() {
    let ours = pki();
    // A supernode of another network, whose authorities have the same names.
    let validity = Validity::days_from(unix() - 3600, 30);
    let root = Authority::init_root("Test Root", [0x66; 32], validity).unwrap();
    let enrolment = root.init_enrolment("Test Enrolment", [0x67; 32], 2, validity).unwrap();
    let claims = NodeClaims::supernode();
    let chain = enrolment.issue_node("node-1", &key(1).public(), &claims, 5, validity).unwrap();
    let mut config = supernode(&ours, 1, &[]);
    config.trust = Trust::from_pem(&root.certificate_pem()).unwrap();
    config.role = NodeRole::Supernode { chain };
    let stranger = start(config).await;
    let good = start(supernode(&ours, 2, &[])).await;
    let mut config = user(&ours, "alice", 11, &[]);
    config.ways.invites = vec![Invite::new(None, std::slice::from_ref(&stranger.address)).unwrap()];
    let alice = start(config.clone()).await;
    alice.until("the stranger, refused", |status| status.refused(Refusal::NodeCertificate) > 0).await;
    let status = alice.handle.status().await;
    assert!(status.certified.is_empty() && !status.online, "{status:#?}");
    assert!(status.health.ways.iter().all(|way| way.joined == 0) && status.health.good_peers == 0);
    // The address of a good node, under the name of another: no connection comes of it.
    let host = good.address.split("/p2p/").next().unwrap();
    let liar = format!("{host}/p2p/{}", stranger.handle.peer_id());
    config.ways.invites = vec![Invite::new(None, &[liar]).unwrap()];
    let bob = start(config.clone()).await;
    bob.until("a dial in vain", |status| status.health.dials_failed > 0).await;
    assert!(bob.handle.status().await.certified.is_empty());
    // Beside a good one neither does any harm.
    let links = [stranger.address.clone(), good.address.clone()];
    config.ways.invites = vec![Invite::new(None, &links).unwrap()];
    start(config).await.online().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reservations_are_held_in_different_networks() {
    let pki = pki();
    let on = |number: u8, ip: IpAddr| {
        let mut config = supernode(&pki, number, &[]);
        config.listen = vec![format!("/ip4/{ip}/tcp/0")];
        config
    };
    let mut here = Vec::new();
    for number in 1..=3 {
        here.push(start(on(number, IpAddr::from([127, 1, 0, number]))).await);
    }
    // Where the fourth will be is known; it comes later.
    let probe = std::net::TcpListener::bind("127.2.0.1:0").unwrap();
    let port = probe.local_addr().unwrap().port();
    drop(probe);
    let mut config = user(&pki, "alice", 11, &here.iter().collect::<Vec<_>>());
    config.bootstrap.push(format!("/ip4/127.2.0.1/tcp/{port}/p2p/{}", key(4).peer_id()));
    config.limits.own_reservations = 2;
    let mut alice = start(config).await;
    alice.online().await;
    alice.until("two reservations in one network", |status| status.reservations_held == 2).await;
    assert_eq!(alice.handle.status().await.health.reservation_networks, 1);
    let mut config = on(4, IpAddr::from([127, 2, 0, 1]));
    config.listen = vec![format!("/ip4/127.2.0.1/tcp/{port}")];
    let mut elsewhere = start(config).await;
    alice
        .until("reservations in two networks", |status| {
            status.reservations_held == 2 && status.health.reservation_networks == 2
        })
        .await;
    // One that is lost is replaced, if only by one of the same network.
    elsewhere.vanish();
    alice
        .until("two reservations again", |status| {
            status.reservations_held == 2 && status.health.reservation_networks == 1
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_measured_by_a_put_here_and_a_get_there() {
    let pki = pki();
    let quick = |mut config: NodeConfig| {
        config.limits.timers.probe = Duration::from_secs(1);
        config
    };
    let mut first = start(quick(supernode(&pki, 1, &[]))).await;
    first.online().await;
    let alone = first.handle.status().await.health;
    assert_eq!((alone.round_trips, alone.since_round_trip), (0, None), "nobody could answer");
    let mut second = start(quick(supernode(&pki, 2, &[&first]))).await;
    second.online().await;
    for node in [&first, &second] {
        node.until("round trips", |status| status.health.round_trips >= 3).await;
        let status = node.handle.status().await;
        assert!(status.health.since_round_trip.unwrap() < Duration::from_secs(3), "{status:#?}");
        assert!(status.health.round_trip.unwrap() < Duration::from_secs(2), "{status:#?}");
        assert_eq!((status.records, status.published, status.unpublished), (0, 0, 0), "a probe is no record");
    }
    let alice = start(user(&pki, "alice", 11, &[&first])).await;
    alice.until("its location, read back", |status| status.health.round_trips >= 1).await;
    let before = second.handle.status().await.health;
    assert_eq!(before.dials_per_mille, Some(1000), "{before:?}");
    first.vanish();
    second
        .until("what does not work any more", |status| {
            status.health.since_round_trip.is_some_and(|since| since > Duration::from_secs(3))
                && status.health.dials_failed > 0
        })
        .await;
}
