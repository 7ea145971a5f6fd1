//! A small DNS server on loopback that answers, stays silent, truncates and lies.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use hickory_resolver::proto::op::{Message, MessageType, OpCode};
use hickory_resolver::proto::rr::Record as Answered;
use hickory_resolver::proto::rr::rdata::{A, CNAME, NAPTR, SRV};
use sip_trunk::trunk::resolve::{Destination, Families, Located, Resolver, ResolverLimits, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::*;

/// How the server behaves over UDP for names that begin with a word.
struct Server {
    address: SocketAddr,
    udp: Arc<AtomicUsize>,
    tcp: Arc<AtomicUsize>,
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// The zone: what a question gets.
fn answers(question: &Name, wanted: Wire) -> Vec<RData> {
    let text = question.to_ascii().to_ascii_lowercase();
    let srv = |priority, port, target: &str| RData::SRV(SRV::new(priority, 10, port, name(target)));
    match (text.as_str(), wanted) {
        ("carrier.test.", Wire::NAPTR) => vec![RData::NAPTR(NAPTR::new(
            10,
            20,
            b"s".to_vec().into(),
            b"SIP+D2U".to_vec().into(),
            Vec::new().into(),
            name("_sip._udp.carrier.test."),
        ))],
        ("_sip._udp.carrier.test.", Wire::SRV) => {
            vec![srv(20, 5070, "two.carrier.test."), srv(10, 5080, "alias.carrier.test.")]
        }
        ("alias.carrier.test.", _) => vec![RData::CNAME(CNAME(name("one.carrier.test.")))],
        ("one.carrier.test.", Wire::A) => vec![RData::A(A(Ipv4Addr::new(127, 0, 0, 11)))],
        ("two.carrier.test.", Wire::A) => vec![RData::A(A(Ipv4Addr::new(127, 0, 0, 12)))],
        ("loop-a.test.", _) => vec![RData::CNAME(CNAME(name("loop-b.test.")))],
        ("loop-b.test.", _) => vec![RData::CNAME(CNAME(name("loop-a.test.")))],
        ("huge.test.", Wire::A) => {
            (0..1000u32).map(|n| RData::A(A(Ipv4Addr::from(0x7f01_0000 + n)))).collect()
        }
        (name, Wire::A) if ["cut.test.", "slow.test.", "id.test.", "question.test."].contains(&name) => {
            vec![RData::A(A(Ipv4Addr::new(127, 0, 0, 66)))]
        }
        _ => Vec::new(),
    }
}

fn respond(question: &Message, over_tcp: bool) -> Option<Vec<u8>> {
    let query = question.queries.first()?.clone();
    let text = query.name().to_ascii().to_ascii_lowercase();
    let found = answers(query.name(), query.query_type());
    let mut id = question.id;
    let mut asked = query.clone();
    match (text.as_str(), over_tcp) {
        ("silent.test.", _) => return None,
        ("id.test.", _) => id = id.wrapping_add(1),
        ("question.test.", _) => {
            asked.set_name(name("other.test."));
        }
        _ => {}
    };
    let mut answer = Message::new(id, MessageType::Response, OpCode::Query);
    let cut = !over_tcp && ["cut.test.", "huge.test."].contains(&text.as_str());
    answer.metadata.truncation = cut;
    answer.metadata.recursion_available = true;
    if text == "failing.test." {
        answer.metadata.response_code = ResponseCode::ServFail;
    } else if found.is_empty() {
        answer.metadata.response_code = ResponseCode::NXDomain;
    }
    let owner = asked.name().clone();
    answer.add_query(asked);
    if !cut {
        let records = found.into_iter().map(|data| Answered::from_rdata(owner.clone(), 120, data));
        answer.add_answers(records);
    }
    answer.to_vec().ok()
}

impl Server {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        let (udp, tcp) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&udp);
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                count.fetch_add(1, Ordering::SeqCst);
                let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
                if let Some(answer) = respond(&question, false) {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        let count = Arc::clone(&tcp);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut question = vec![0; usize::from(length)];
                        stream.read_exact(&mut question).await.ok()?;
                        let answer = respond(&Message::from_vec(&question).ok()?, true)?;
                        stream.write_u16(answer.len() as u16).await.ok()?;
                        stream.write_all(&answer).await.ok()?;
                    }
                    Some(())
                });
            }
        });
        Self { address, udp, tcp }
    }

    fn asker(&self) -> (Asker, mpsc::Receiver<Answer>) {
        Asker::new(&Dns { servers: vec![self.address], timeout: Duration::from_millis(300) })
    }
}

/// Asks one question and waits.
async fn ask(server: &Server, name: &str, record: RecordType) -> Result<Vec<Record>, Failure> {
    let (asker, mut inbox) = server.asker();
    asker.ask(Query { id: 7, name: name.parse().unwrap(), record });
    let answer = tokio::time::timeout(Duration::from_secs(5), inbox.recv()).await.unwrap().unwrap();
    assert_eq!(answer.id, 7);
    answer.answer
}

/// A resolver of the endpoint's kind with the real thing behind it.
async fn locate(server: &Server, target: &str) -> Vec<String> {
    let (asker, mut inbox) = server.asker();
    let mut resolver = Resolver::new(ResolverLimits::default());
    let destination = Destination::of(target.parse().unwrap());
    let offered = [(Service::Udp, Families { v4: true, v6: false })];
    loop {
        let located = resolver.locate(Instant::now(), &destination, &offered);
        while let Some(query) = resolver.poll_query() {
            asker.ask(query);
        }
        match located {
            Located::Known { candidates, complete: true, .. } => {
                return candidates.iter().map(|c| c.address.to_string()).collect();
            }
            Located::Nowhere { .. } => return vec!["nowhere".to_owned()],
            Located::Unavailable { .. } => return vec!["unavailable".to_owned()],
            _ => {}
        }
        let Answer { id, answer } =
            tokio::time::timeout(Duration::from_secs(5), inbox.recv()).await.unwrap().unwrap();
        resolver.handle_answer(Instant::now(), id, answer);
    }
}

// RFC 3263 4.1, 4.2.
#[tokio::test]
async fn a25_a_name_is_followed_by_naptr_srv_and_address() {
    let server = Server::start().await;
    assert_eq!(locate(&server, "carrier.test").await, ["127.0.0.11:5080", "127.0.0.12:5070"]);
    assert_eq!(locate(&server, "nothing.test").await, ["nowhere"]);
    assert_eq!(locate(&server, "loop-a.test").await.len(), 1, "a circle ends");
    assert_eq!(server.tcp.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a25_a_truncated_answer_is_fetched_by_tcp() {
    let server = Server::start().await;
    let found = ask(&server, "cut.test", RecordType::A).await.unwrap();
    assert_eq!(found[0].data, RecordData::A(Ipv4Addr::new(127, 0, 0, 66)));
    assert_eq!(found[0].ttl, 120);
    assert!(server.tcp.load(Ordering::SeqCst) >= 1);
    let huge = ask(&server, "huge.test", RecordType::A).await.unwrap();
    assert_eq!(huge.len(), 1000, "what of it is kept is the endpoint's matter");
}

#[tokio::test]
async fn a25_silence_failure_and_lies_are_no_answer_and_end_in_time() {
    let server = Server::start().await;
    for text in ["silent.test", "failing.test", "id.test", "question.test"] {
        let started = Instant::now();
        let answer = ask(&server, text, RecordType::A).await;
        assert_eq!(answer, Err(Failure::Unavailable), "{text}");
        assert!(started.elapsed() < Duration::from_secs(3), "{text}: {:?}", started.elapsed());
    }
    assert!(server.udp.load(Ordering::SeqCst) >= 4);
    let gone = ask(&server, "nothing.test", RecordType::Srv).await;
    assert!(matches!(gone, Err(Failure::Nothing { .. })), "{gone:?}");
}

#[tokio::test]
async fn questions_under_way_are_bounded_and_all_are_answered() {
    let server = Server::start().await;
    let (asker, mut inbox) = server.asker();
    for id in 0..300 {
        asker.ask(Query { id, name: "silent.test".parse().unwrap(), record: RecordType::A });
    }
    let mut seen = HashMap::new();
    while seen.len() < 300 {
        let answer = tokio::time::timeout(Duration::from_secs(10), inbox.recv()).await.unwrap().unwrap();
        assert_eq!(seen.insert(answer.id, answer.answer), None);
    }
    assert!(server.udp.load(Ordering::SeqCst) <= IN_FLIGHT * 8);
}
