//! Digits to a user whose media takes none.

use std::time::{Duration, Instant};

use call_model::DtmfDigit;
use p2p_edge::calling::{SessionCommand, SessionEvent};
use p2p_edge::identity::UserBundle;
use p2p_edge::node::{Node, NodeCommand, NodeEvent, NodeHandle, NodeRole};
use peer::event::Event;
use peer::{AnswerPolicy, CallOptions, Command};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use transcoder::{DtlsIdentity, Outgoing, Phone, PhoneConfig, WebRtcConfig, WebRtcLeg};

use crate::common::{LOOPBACK, Overlay, RATE};

/// A description without telephone events (RFC 4733).
fn without_events(sdp: &str) -> String {
    let number = |line: &str| {
        let mapped = line.strip_prefix("a=rtpmap:")?;
        mapped.contains("telephone-event").then(|| mapped.split(' ').next().unwrap().to_owned())
    };
    let numbers: Vec<String> = sdp.lines().filter_map(number).collect();
    assert!(!numbers.is_empty(), "there are none anyway: {sdp}");
    let is_of = |line: &str| {
        let of = |number: &String| line.split([':', ' ']).nth(1) == Some(number);
        (line.starts_with("a=rtpmap:") || line.starts_with("a=fmtp:") || line.starts_with("a=rtcp-fb:"))
            && numbers.iter().any(of)
    };
    let kept = sdp.lines().filter(|line| !is_of(line)).map(|line| {
        if !line.starts_with("m=") {
            return line.to_owned();
        }
        let words = line.split(' ').enumerate();
        let kept = words.filter(|(at, word)| *at < 3 || !numbers.contains(&(*word).to_owned()));
        kept.map(|(_, word)| word).collect::<Vec<_>>().join(" ")
    });
    kept.map(|line| line + "\r\n").collect()
}

/// Keeps the media of a call up, as long as there is somebody to talk to.
async fn carry(mut phone: Phone, socket: UdpSocket) {
    let local = socket.local_addr().unwrap();
    let mut packet = vec![0; 2048];
    loop {
        let mut send = |out: Outgoing<'_>| drop(socket.try_send_to(out.bytes, out.destination));
        let due = phone.poll_timeout().unwrap_or_else(|| Instant::now() + Duration::from_millis(20));
        tokio::select! {
            received = socket.recv_from(&mut packet) => {
                if let Ok((length, source)) = received {
                    phone.handle_datagram(Instant::now(), local, source, &packet[..length], &mut send);
                }
            }
            () = tokio::time::sleep_until(due.into()) => phone.handle_timeout(Instant::now(), &mut send),
        }
        while phone.poll_event().is_some() {}
    }
}

/// A user's node without a softphone.
async fn bare_user(overlay: &Overlay, handle: &str, number: u8) -> (NodeHandle, mpsc::Receiver<NodeEvent>) {
    let UserBundle { key, certificate } = overlay.pki.user(&handle.parse().unwrap(), number).unwrap();
    let config = overlay.config(key, NodeRole::User { certificate });
    let (node, mut events) = Node::spawn(config).await.unwrap();
    while next(&mut events).await != NodeEvent::Online {}
    (node, events)
}

async fn next(events: &mut mpsc::Receiver<NodeEvent>) -> NodeEvent {
    let event = tokio::time::timeout(Duration::from_secs(30), events.recv()).await;
    event.expect("something happens").expect("the node runs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn digits_go_by_signalling_where_the_media_of_the_other_side_takes_none() {
    let overlay = Overlay::start().await;
    let (bob, mut events) = bare_user(&overlay, "bob", 12).await;
    let mut alice = overlay.user("alice", 11, AnswerPolicy::default()).await;
    alice
        .send(Command::Call {
            to: "bob".parse().unwrap(),
            display_name: None,
            private: false,
            ring_timeout: Duration::from_secs(30),
            options: CallOptions::default(),
        })
        .await;
    let (call, offer) = loop {
        if let NodeEvent::Incoming { call, media, .. } = next(&mut events).await {
            break (call, media);
        }
    };
    let socket = UdpSocket::bind((LOOPBACK, 0)).await.unwrap();
    let local = vec![socket.local_addr().unwrap()];
    let config = WebRtcConfig { local, ice_lite: false, g711: false, redundancy: false };
    let mut leg = WebRtcLeg::new(config, &DtlsIdentity::generate().unwrap(), Instant::now()).unwrap();
    let media = without_events(&leg.accept_offer(&offer).unwrap());
    tokio::spawn(carry(Phone::new(PhoneConfig::new(RATE), leg, 7, Instant::now()).unwrap(), socket));
    for command in [SessionCommand::Answer { media }, SessionCommand::MediaUp] {
        bob.send(NodeCommand::Call { call, command }).await.unwrap();
    }
    alice.wait("media_up", |event| matches!(event, Event::MediaUp { .. }).then_some(())).await;
    let digits: Vec<DtmfDigit> = "4#".chars().map(|c| DtmfDigit::from_char(c).unwrap()).collect();
    alice.send(Command::Dtmf { call: None, digits: digits.clone() }).await;
    let mut heard = Vec::new();
    while heard.len() < digits.len() {
        match next(&mut events).await {
            NodeEvent::Call { event: SessionEvent::Dtmf { digit, .. }, .. } => heard.push(digit),
            NodeEvent::Call { event: event @ SessionEvent::Ended { .. }, .. } => panic!("{event:?}"),
            _ => {}
        }
    }
    assert_eq!(heard, digits);
}
