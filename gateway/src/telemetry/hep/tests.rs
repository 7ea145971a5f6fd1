//! The encoder against written-out octets, what is masked, and the exporter with a collector on loopback.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use call_model::{Codec, LegQuality, Rating};
use sip_trunk::quality::{MediaAddress, StreamDescription};
use sip_trunk::{Reported, auth::Secret};

use super::redact::{call_id, redact};
use super::*;
use crate::telemetry::hep::decoded::{Decoded, decode};

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn packet(payload: &[u8]) -> Packet<'_> {
    Packet {
        kind: Kind::Sip,
        protocol: UDP,
        source: address("192.0.2.10:5060"),
        destination: address("198.51.100.1:5062"),
        unix_us: 1_700_000_000_123_456,
        capture_id: 2_001,
        key: Some("pw"),
        correlation: Some("c1@h"),
        payload,
    }
}

// HEP3 network protocol specification: header, then the generic chunks, each with its own header in its length.
#[test]
fn f25_a_packet_of_hep_is_written_octet_by_octet() {
    let mut out = vec![9; 3];
    packet(b"OPTIONS").write(&mut out).unwrap();
    let mut golden = b"HEP3\x00\x7c".to_vec();
    golden.extend(b"\x00\x00\x00\x01\x00\x07\x02"); // IPv4
    golden.extend(b"\x00\x00\x00\x02\x00\x07\x11"); // UDP
    golden.extend(b"\x00\x00\x00\x03\x00\x0a\xc0\x00\x02\x0a");
    golden.extend(b"\x00\x00\x00\x04\x00\x0a\xc6\x33\x64\x01");
    golden.extend(b"\x00\x00\x00\x07\x00\x08\x13\xc4");
    golden.extend(b"\x00\x00\x00\x08\x00\x08\x13\xc6");
    golden.extend(b"\x00\x00\x00\x09\x00\x0a\x65\x53\xf1\x00");
    golden.extend(b"\x00\x00\x00\x0a\x00\x0a\x00\x01\xe2\x40");
    golden.extend(b"\x00\x00\x00\x0b\x00\x07\x01"); // SIP
    golden.extend(b"\x00\x00\x00\x0c\x00\x0a\x00\x00\x07\xd1");
    golden.extend(b"\x00\x00\x00\x0e\x00\x08pw");
    golden.extend(b"\x00\x00\x00\x11\x00\x0ac1@h");
    golden.extend(b"\x00\x00\x00\x0f\x00\x0dOPTIONS");
    assert_eq!(golden.len(), 0x7c);
    assert_eq!(out, golden);
}

#[test]
fn f25_hep_over_ipv6_and_of_mixed_families() {
    let (mut out, six) = (Vec::new(), address("[2001:db8::10]:5061"));
    let whole = Packet { source: six, protocol: TCP, key: None, correlation: None, ..packet(b"x") };
    whole.write(&mut out).unwrap();
    assert!(out[6..].starts_with(b"\x00\x00\x00\x01\x00\x07\x0a\x00\x00\x00\x02\x00\x07\x06"), "{out:x?}");
    let known = decode(&out).unwrap();
    assert_eq!((known.source, known.destination), (six, address("[::ffff:198.51.100.1]:5062")));
    assert_eq!((known.key, known.correlation), (None, None));
    // An address that is IPv4 in the clothes of IPv6 is IPv4.
    let mapped = Packet { source: address("[::ffff:192.0.2.10]:5060"), ..packet(b"x") };
    mapped.write(&mut out).unwrap();
    assert_eq!(decode(&out).unwrap().source, address("192.0.2.10:5060"));
}

#[test]
fn f25_what_is_too_long_for_a_datagram_is_not_written() {
    let mut out = Vec::new();
    let overhead = {
        packet(b"").write(&mut out).unwrap();
        out.len()
    };
    let payload = vec![b'x'; 70_000];
    let most = MAX_PACKET - overhead;
    for (length, fits) in [(most, true), (most + 1, false), (65_529, false), (65_530, false), (70_000, false)]
    {
        assert_eq!(packet(&payload[..length]).write(&mut out).is_ok(), fits, "{length}");
    }
}

/// Masks a message, and checks that nothing but letters changed.
fn masked(message: &str) -> String {
    let mut text = message.as_bytes().to_vec();
    redact(&mut text);
    assert_eq!(text.len(), message.len());
    String::from_utf8(text).unwrap()
}

#[test]
fn f25_captures_hold_no_credentials() {
    for (line, secret) in [
        ("Authorization: Digest username=\"gw\", nonce=\"n\", response=\"5eCret\"", "5eCret"),
        (
            "PROXY-authorization : Digest username=\"gw\",\r\n response=\"5eCret\",\r\n\tcnonce=\"5eCret\"",
            "5eCret",
        ),
        ("Authorization:Bearer 5eCret", "5eCret"),
        ("Authorization: 5eCret", "5eCret"),
        ("Authentication-Info: rspauth=\"5eCret\", qop=auth", "5eCret"),
        ("Proxy-Authentication-Info: nextnonce=\"5eCret\"", "5eCret"),
        ("Contact: <sip:gw:5eCret@192.0.2.1>, \"sip:b:c\" <sips:b:5eCret@c>", "5eCret"),
        ("Refer-To: <sip:a@b?Authorization=Digest%205eCret&Subject=x>", "5eCret"),
    ] {
        let message = format!(
            "REGISTER sip:a:5eCret@example.com SIP/2.0\r\nVia: SIP/2.0/UDP h\r\n{line}\r\nTo: <sip:gw@example.com>\r\nCall-ID: c1\r\n\r\n"
        );
        let clean = masked(&message);
        assert!(!clean.contains(secret), "{clean}");
        assert!(clean.contains("To: <sip:gw@example.com>\r\nCall-ID: c1\r\n\r\n"), "{clean}");
        assert!(
            clean.starts_with("REGISTER sip:a:xxxxxx@example.com SIP/2.0\r\nVia: SIP/2.0/UDP h\r\n"),
            "{clean}"
        );
    }
    let clean = masked("REGISTER sip:a SIP/2.0\r\nAuthorization: Digest response=\"1\"\r\n\r\n");
    assert!(clean.contains("Authorization: Digest xxxxxxxxxxxx\r\n"), "the scheme stays: {clean}");
    // A challenge is no secret, and neither is a port.
    let plain = "SIP/2.0 401 Unauthorized\r\nWWW-Authenticate: Digest realm=\"a\", nonce=\"n1\"\r\nContact: <sip:192.0.2.1:5060>\r\n\r\n";
    assert_eq!(masked(plain), plain);
}

// RFC 4568 9.1, RFC 8866 5.12, RFC 4567 3.1, RFC 8839 5.4.
#[test]
fn f25_captures_hold_no_keys_of_media_and_no_digits() {
    let body = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\nk=clear:5eCret\r\nm=audio 1 RTP/SAVP 8\r\n\
                a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:5eCretAAAA|2^20|1:4;INLINE:5eCretBBBB FEC_ORDER=FEC_SRTP\r\n\
                A=Crypto:2 AES_CM_128_HMAC_SHA1_32 inline:5eCretCCCC\r\na=key-mgmt:mikey 5eCret\r\n\
                a=ice-ufrag:u\r\na=ice-pwd:5eCret\r\na=sendrecv\r\n";
    let clean = masked(&format!("INVITE sip:a SIP/2.0\r\nCall-ID: c1\r\n\r\n{body}"));
    assert!(!clean.contains("5eCret"), "{clean}");
    for kept in [
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:xxx",
        " FEC_ORDER=FEC_SRTP\r\n",
        "a=ice-ufrag:u\r\n",
        "a=sendrecv\r\n",
        "m=audio 1 RTP/SAVP 8\r\n",
    ] {
        assert!(clean.contains(kept), "{kept} is not in {clean}");
    }
    let clean = masked("INFO sip:a SIP/2.0\r\nCall-ID: c1\r\n\r\nSignal=5\r\nDuration=160\r\n");
    assert!(clean.ends_with("Call-ID: c1\r\n\r\nxxxxxxxx\r\nxxxxxxxxxxxx\r\n"), "{clean}");
    // A message within another.
    let clean = masked(
        "NOTIFY sip:a SIP/2.0\r\n\r\nINVITE sip:b SIP/2.0\r\nAuthorization: Digest response=\"5eCret\"\r\n",
    );
    assert!(!clean.contains("5eCret"), "{clean}");
}

#[test]
fn f25_anything_at_all_is_masked_without_harm() {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let words: [&[u8]; 12] = [
        b"\r\n",
        b"\n",
        b":",
        b" ",
        b"Authorization",
        b"sip:",
        b"@",
        b"a=crypto:",
        b"inline:",
        b"INFO ",
        b"\xff\0",
        b"\t",
    ];
    for round in 0..20_000 {
        let mut message = Vec::new();
        for _ in 0..round % 24 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            message.extend_from_slice(words[(seed % 12) as usize]);
        }
        let length = message.len();
        redact(&mut message);
        assert_eq!(message.len(), length);
        let _ = call_id(&message);
    }
}

#[test]
fn f25_a_message_is_known_by_its_call_id() {
    assert_eq!(call_id(b"OPTIONS a SIP/2.0\r\nCall-ID:  c1@h \r\n\r\ni: body\r\n"), Some("c1@h"));
    assert_eq!(call_id(b"OPTIONS a SIP/2.0\r\nI : c2\r\n\r\n"), Some("c2"));
    assert_eq!(call_id(b"OPTIONS a SIP/2.0\r\nVia: x\r\n\r\nCall-ID: body\r\n"), None);
    assert_eq!(call_id(b"OPTIONS a SIP/2.0\r\nCall-ID: \xff\r\n\r\n"), None);
    assert_eq!(call_id(&[b"Call-ID: ".as_slice(), &[b'a'; 300]].concat()), None);
}

fn config(collector: SocketAddr) -> Hep {
    Hep { collector, capture_id: 77, key: Some(Secret::new("pw")), messages: true, quality: true }
}

fn captured(outgoing: bool, bytes: &'static [u8]) -> Captured {
    Captured {
        at: Instant::now(),
        outgoing,
        transport: Transport::Udp,
        local: address("127.0.0.1:5060"),
        remote: address("127.0.0.10:5070"),
        bytes: Bytes::from_static(bytes),
    }
}

fn report() -> Box<SessionReport> {
    let stream = StreamDescription { payload_type: 8, codec: Codec::Pcma, packet_ms: Some(20.0) };
    let rating = |mos| Some(Rating { r_factor: 90.0, mos, cause: None });
    Box::new(SessionReport {
        reported: Reported::Session,
        call_id: "c1@h".into(),
        local: None,
        remote: None,
        incoming: true,
        local_address: MediaAddress { address: address("192.0.2.1:20000"), ssrc: Some(1) },
        remote_address: MediaAddress { address: address("192.0.2.10:30000"), ssrc: Some(0xbeef) },
        local_group: "a".into(),
        remote_group: "b".into(),
        from_unix_ms: 1_700_000_000_000,
        until_unix_ms: 1_700_000_005_500,
        received: stream,
        sent: stream,
        quality: LegQuality {
            packets_received: 240,
            packets_lost: 10,
            jitter_ms: 2.5,
            rating: rating(4.25),
            worst: rating(3.5),
            ..LegQuality::default()
        },
        tags: None,
    })
}

/// Receives what comes to a collector, until nothing has for a while.
fn collect(socket: &UdpSocket) -> Vec<Decoded> {
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut packet = vec![0; 65_536];
    let mut all = Vec::new();
    while let Ok((length, _)) = socket.recv_from(&mut packet) {
        all.push(decode(&packet[..length]).unwrap());
    }
    all
}

fn counts(counters: &HepCounters) -> [u64; 4] {
    [&counters.sent, &counters.dropped, &counters.oversize, &counters.failed]
        .map(|counter| counter.load(Ordering::Relaxed))
}

#[test]
fn f25_a_collector_gets_messages_both_ways_and_the_figures_of_a_call() {
    let collector = UdpSocket::bind("127.0.0.1:0").unwrap();
    let now = Instant::now();
    let exporter =
        Exporter::start(&config(collector.local_addr().unwrap()), now, 1_700_000_000_000_000).unwrap();
    exporter.message(captured(
        false,
        b"INVITE sip:a SIP/2.0\r\ni: c1@h\r\nAuthorization: Digest a=5eCret\r\n\r\n",
    ));
    exporter.message(captured(true, b"SIP/2.0 100 Trying\r\nCall-ID: c1@h\r\n\r\n"));
    exporter.quality(now + Duration::from_millis(2_500), report());
    let counters = exporter.counters();
    drop(exporter);
    let came = collect(&collector);
    assert_eq!((came.len(), counts(&counters)), (4, [4, 0, 0, 0]));
    for packet in &came {
        assert_eq!((packet.capture_id, packet.key.as_deref()), (77, Some("pw")));
        assert_eq!(packet.correlation.as_deref(), Some("c1@h"));
    }
    let [invite, trying, voice, rtp] = &came[..] else { panic!("{came:?}") };
    assert_eq!(
        (invite.kind, invite.source, invite.destination),
        (1, address("127.0.0.10:5070"), address("127.0.0.1:5060"))
    );
    assert!(invite.text().starts_with("INVITE ") && !invite.text().contains("5eCret"));
    assert_eq!((trying.kind, trying.source), (1, address("127.0.0.1:5060")));
    assert_eq!((voice.kind, rtp.kind), (35, 34));
    assert_eq!(voice.unix_us, 1_700_000_002_500_000);
    assert_eq!((voice.source, voice.destination), (address("192.0.2.10:30000"), address("192.0.2.1:20000")));
    assert!(voice.text().starts_with("VQSessionReport: CallTerm\r\nCallID: c1@h\r\n"), "{}", voice.text());
    assert!(voice.text().contains("NLR=4.00"), "{}", voice.text());
    let json: serde_json::Value = serde_json::from_str(rtp.text()).unwrap();
    for (name, value) in [
        ("CORRELATION_ID", serde_json::json!("c1@h")),
        ("REPORT_TS", serde_json::json!(1_700_000_005)),
        ("TOTAL_PK", serde_json::json!(240)),
        ("EXPECTED_PK", serde_json::json!(250)),
        ("PACKET_LOSS", serde_json::json!(10)),
        ("JITTER", serde_json::json!(2.5)),
        ("MOS", serde_json::json!(4.25)),
        ("MIN_MOS", serde_json::json!(3.5)),
        ("RFACTOR", serde_json::json!(90.0)),
        ("SRC_IP", serde_json::json!("192.0.2.10")),
        ("DST_PORT", serde_json::json!(20_000)),
        ("CODEC_NAME", serde_json::json!("PCMA")),
    ] {
        assert_eq!(json[name], value, "{name} in {json}");
    }
    assert!(json.get("RTT").is_none(), "what was not measured is left out");
}

#[test]
fn f25_an_exporter_never_waits_and_counts_what_it_drops() {
    // Nobody takes anything out of this queue.
    let (queue, inbox) = sync_channel(2);
    let counters = Arc::new(HepCounters::default());
    let exporter = Exporter {
        queue: Some(queue),
        thread: None,
        counters: Arc::clone(&counters),
        epoch: (Instant::now(), 0),
    };
    for _ in 0..5 {
        exporter.message(captured(true, b"ACK"));
    }
    assert_eq!(counts(&counters), [0, 3, 0, 0]);
    drop(inbox);
    exporter.message(captured(true, b"ACK"));
    assert_eq!(counts(&counters), [0, 4, 0, 0]);
    // What is too long is counted apart, and what comes after it goes out.
    let collector = UdpSocket::bind("127.0.0.1:0").unwrap();
    let exporter = Exporter::start(&config(collector.local_addr().unwrap()), Instant::now(), 0).unwrap();
    exporter.message(Captured { bytes: Bytes::from(vec![b'A'; 65_535]), ..captured(true, b"") });
    exporter.message(captured(true, b"ACK"));
    let counters = exporter.counters();
    drop(exporter);
    assert_eq!((collect(&collector).len(), counts(&counters)), (1, [1, 0, 1, 0]));
}
