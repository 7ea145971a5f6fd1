//! A call between two trunks, and what a collector of HEP gets of it.

use std::net::UdpSocket;

use super::*;
use crate::telemetry::decoded::{Decoded, decode};

/// What no capture may hold.
const SECRET: &str = "5eCret";
const SOON: Duration = Duration::from_secs(20);

/// A SIP peer by hand.
struct Peer {
    sip: UdpSocket,
    rtp: UdpSocket,
}

impl Peer {
    fn new(address: &str) -> Self {
        let bind = || {
            let socket = UdpSocket::bind((address, 0)).unwrap();
            socket.set_read_timeout(Some(SOON)).unwrap();
            socket
        };
        Self { sip: bind(), rtp: bind() }
    }

    fn at(&self) -> SocketAddr {
        self.sip.local_addr().unwrap()
    }

    /// Waits for a message that begins so.
    fn wait_for(&self, start: &str) -> String {
        let mut message = vec![0; 65_536];
        loop {
            let (length, _) = self.sip.recv_from(&mut message).unwrap();
            let text = String::from_utf8_lossy(&message[..length]).into_owned();
            if text.starts_with(start) {
                return text;
            }
        }
    }

    fn description(&self, profile: &str, more: &str) -> String {
        let rtp = self.rtp.local_addr().unwrap();
        format!(
            "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} {profile} 8\r\na=rtpmap:8 PCMA/8000\r\n{more}",
            ip = rtp.ip(),
            port = rtp.port()
        )
    }
}

fn message(start: &str, lines: &[String], body: &str) -> String {
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!("{start}\r\n{}\r\n{kind}Content-Length: {}\r\n\r\n{body}", lines.join("\r\n"), body.len())
}

/// The line of a message that begins so.
fn line(message: &str, start: &str) -> String {
    message
        .split("\r\n")
        .find(|line| line.starts_with(start))
        .unwrap_or_else(|| panic!("{message}"))
        .to_owned()
}

/// Answers a request as the one who is called.
fn answer(peer: &Peer, gateway: SocketAddr, request: &str, body: &str) {
    let mut lines: Vec<String> =
        ["Via:", "From:", "Call-ID:", "CSeq:"].iter().map(|start| line(request, start)).collect();
    let to = line(request, "To:");
    lines.push(if to.contains(";tag=") { to } else { format!("{to};tag=b") });
    lines.push(format!("Contact: <sip:b@{}>", peer.at()));
    peer.sip.send_to(message("SIP/2.0 200 OK", &lines, body).as_bytes(), gateway).unwrap();
}

/// Places a call of A to B over the gateway, says twenty packets, and hangs up.
fn call(a: &Peer, b: &Peer, gateway: SocketAddr) {
    let target = format!("sip:+442079460018@{gateway}");
    let common = |cseq: &str, to: String| {
        vec![
            format!("Via: SIP/2.0/UDP {};branch=z9hG4bK{};rport", a.at(), cseq.replace(' ', "")),
            "Max-Forwards: 70".to_owned(),
            format!("From: <sip:+15551000@{}>;tag=a", a.at()),
            to,
            "Call-ID: of-a@127.0.0.31".to_owned(),
            format!("CSeq: {cseq}"),
            format!("Contact: <sip:a@{}>", a.at()),
            format!("Authorization: Digest username=\"a\", response=\"{SECRET}\""),
        ]
    };
    let say = |text: String| a.sip.send_to(text.as_bytes(), gateway).unwrap();
    let to = format!("To: <{target}>");
    say(message(&format!("INVITE {target} SIP/2.0"), &common("1 INVITE", to), &a.description("RTP/AVP", "")));
    let invite = b.wait_for("INVITE ");
    assert!(line(&invite, "m=audio").contains("RTP/SAVP"), "{invite}");
    let key = SECRET.repeat(7);
    let crypto = format!("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{}\r\n", &key[..40]);
    answer(b, gateway, &invite, &b.description("RTP/SAVP", &crypto));
    let ok = a.wait_for("SIP/2.0 200");
    let to = line(&ok, "To:");
    say(message(&format!("ACK {target} SIP/2.0"), &common("1 ACK", to.clone()), ""));
    b.wait_for("ACK ");
    let port = line(&ok, "m=audio").split(' ').nth(1).unwrap().parse::<u16>().unwrap();
    let mut heard = [0; 1_500];
    for sequence in 0..20u16 {
        let mut packet = vec![0x80, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        packet[2..4].copy_from_slice(&sequence.to_be_bytes());
        packet[4..8].copy_from_slice(&(u32::from(sequence) * 160).to_be_bytes());
        packet.extend([0xd5; 160]);
        // Each goes on before the next; the first ones may come before the order that opens the media.
        b.rtp.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let came = (0..40).any(|_| {
            a.rtp.send_to(&packet, (gateway.ip(), port)).unwrap();
            b.rtp.recv_from(&mut heard).is_ok_and(|(length, _)| length > 160)
        });
        assert!(came, "packet {sequence} does not go on");
    }
    say(message(&format!("BYE {target} SIP/2.0"), &common("2 BYE", to), ""));
    a.wait_for("SIP/2.0 200");
    let bye = b.wait_for("BYE ");
    answer(b, gateway, &bye, "");
}

/// Receives packets until both legs have been reported, twice each.
fn collect(collector: &UdpSocket) -> Vec<Decoded> {
    collector.set_read_timeout(Some(SOON)).unwrap();
    let mut all: Vec<Decoded> = Vec::new();
    let mut packet = vec![0; 65_536];
    while all.iter().filter(|packet| packet.kind != 1).count() < 4 {
        let (length, _) = collector.recv_from(&mut packet).unwrap();
        all.push(decode(&packet[..length]).unwrap());
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn f25_a_collector_of_hep_sees_a_call_and_its_quality_and_no_secret() {
    let site = Site::new("hep");
    let (a, b) = (Peer::new("127.0.0.31"), Peer::new("127.0.0.32"));
    let collector = UdpSocket::bind("127.0.0.1:0").unwrap();
    std::fs::write(site.0.join("hep.key"), "open sesame\n").unwrap();
    let digest = admin_api::TokenDigest::of("reader");
    let rest = format!(
        r#"
        trunk_ports = "42200-42239"
        overlay_ports = "42240-42259"
        [[trunks]]
        name = "a"
        target = "udp:{}"
        options_interval_s = 0
        [[trunks]]
        name = "b"
        target = "udp:{}"
        options_interval_s = 0
        srtp = "required"
        [[routes]]
        prefix = "+44"
        trunks = ["b"]
        from = ["a"]
        [telemetry.hep]
        collector = "{}"
        capture_id = 4711
        key_file = "hep.key"
        messages = true
        [admin]
        listen = "127.0.0.1:0"
        tokens = [{{ sha256 = "{digest}", scope = "read" }}]
        "#,
        a.at(),
        b.at(),
        collector.local_addr().unwrap()
    );
    let config = site.config("", &rest);
    let gateway = config.sip.as_ref().unwrap().listen[0].1;
    let daemon = Daemon::start(config).await.unwrap();
    let url = format!("http://{}/metrics", daemon.admin_address().unwrap());
    let at = a.at();
    let worked = tokio::task::spawn_blocking(move || {
        call(&a, &b, gateway);
        let came = collect(&collector);
        let mut answer = ureq::get(&url).header("Authorization", "Bearer reader").call().unwrap();
        (came, answer.body_mut().read_to_string().unwrap())
    });
    let (came, metrics) = worked.await.unwrap();
    daemon.stop().await;
    for packet in &came {
        assert!(!packet.text().contains(SECRET), "{}", packet.text());
        assert_eq!((packet.capture_id, packet.key.as_deref()), (4_711, Some("open sesame")));
    }
    let messages: Vec<&Decoded> = came.iter().filter(|packet| packet.kind == 1).collect();
    let first = |start: &str, from: Option<SocketAddr>| {
        let fits = |packet: &&&Decoded| {
            packet.text().starts_with(start) && from.is_none_or(|from| packet.source == from)
        };
        *messages.iter().find(fits).unwrap_or_else(|| panic!("no {start} from {from:?}"))
    };
    let invite = first("INVITE ", Some(at));
    assert_eq!((invite.destination, invite.correlation.as_deref()), (gateway, Some("of-a@127.0.0.31")));
    let onward = first("INVITE ", Some(gateway));
    assert!(onward.text().contains(" inline:xxxx"), "our own keys are no less secret: {}", onward.text());
    let other = onward.correlation.clone().unwrap();
    for start in ["SIP/2.0 200", "ACK ", "BYE "] {
        first(start, Some(gateway));
    }
    for kind in [34, 35] {
        let mut of: Vec<_> = came.iter().filter(|packet| packet.kind == kind).collect();
        of.sort_by_key(|packet| packet.correlation.as_deref() != Some("of-a@127.0.0.31"));
        let calls: Vec<_> = of.iter().map(|packet| packet.correlation.as_deref().unwrap()).collect();
        assert_eq!(calls, ["of-a@127.0.0.31", &other], "each leg once, under its own Call-ID");
        if kind == 34 {
            let json: serde_json::Value = serde_json::from_str(of[0].text()).unwrap();
            assert!(json["TOTAL_PK"].as_u64().unwrap() >= 20 && json["PACKET_LOSS"] == 0, "{json}");
            assert!(json["MOS"].as_f64().unwrap() > 4.0, "{json}");
        } else {
            assert!(of[0].text().contains("CallID: of-a@127.0.0.31\r\n"), "{}", of[0].text());
        }
    }
    let sent = metrics.lines().find(|line| line.starts_with("causeway_hep_packets_total{result=\"sent\"}"));
    let sent = sent.and_then(|line| line.split(' ').next_back()?.parse::<usize>().ok());
    // The last messages may have gone out after the reports.
    assert!(sent.is_some_and(|sent| sent >= came.len()), "{metrics}");
}
