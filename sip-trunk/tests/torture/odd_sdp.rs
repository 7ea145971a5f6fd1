//! Odd session descriptions in the offer of an INVITE.

use crate::odd::{Case, SDP, body, check};
use crate::rig::Family::V4;
use crate::rig::Outcome::{self, Answer, Call};
use crate::rig::Rig;

fn offer(sdp: &str) -> Vec<u8> {
    body("Content-Type: application/sdp\r\n", sdp)
}

/// The usual offer with a piece of it exchanged.
fn with(from: &str, to: &str) -> Vec<u8> {
    assert!(SDP.contains(from), "{from}");
    offer(&SDP.replacen(from, to, 1))
}

fn media(line: &str) -> Vec<u8> {
    with("m=audio 30000 RTP/AVP 8 101", line)
}

fn address(line: &str) -> Vec<u8> {
    with("c=IN IP4 10.0.0.2", line)
}

fn plus(lines: &str) -> Vec<u8> {
    offer(&format!("{SDP}{lines}\r\n"))
}

/// RFC 8866 5 and 9: lines of the session.
#[test]
fn a16_odd_sessions_have_their_outcome() {
    check(vec![
        ("nothing odd", offer(SDP), Call),
        ("o= with spaces in the user", with("o=-", "o=Cisco SystemsCCM SIP"), Call),
        ("o= of 20 digits", with("o=- 1 1", "o=- 99999999999999999999 99999999999999999999"), Call),
        ("o= with letters for numbers", with("o=- 1 1", "o=- abc def"), Call),
        ("o= with four fields", with("o=- 1 1 IN", "o=1 IN"), Call),
        ("o= empty", with("o=- 1 1 IN IP4 10.0.0.2", "o="), Call),
        ("o= missing", with("o=- 1 1 IN IP4 10.0.0.2\r\n", ""), Call),
        ("v= missing", with("v=0\r\n", ""), Answer(400)),
        ("s= missing", with("s=-\r\n", ""), Call),
        ("s= empty", with("s=-", "s="), Call),
        ("t= missing", with("t=0 0\r\n", ""), Call),
        ("t= with one number", with("t=0 0", "t=0"), Call),
        ("t= with 20 digits", with("t=0 0", "t=99999999999999999999 0"), Call),
        ("version 1", with("v=0", "v=1"), Answer(400)),
        ("byte order mark", offer(&format!("\u{feff}{SDP}")), Call),
        (
            "lines in disorder",
            with("v=0\r\no=- 1 1 IN IP4 10.0.0.2\r\n", "o=- 1 1 IN IP4 10.0.0.2\r\nv=0\r\n"),
            Call,
        ),
        ("LF only", offer(&SDP.replace("\r\n", "\n")), Call),
        ("CR only", offer(&SDP.replace("\r\n", "\r")), Answer(400)),
        ("no end of the last line", offer(SDP.trim_end()), Call),
        ("empty lines between", offer(&SDP.replace("\r\n", "\r\n\r\n")), Call),
        ("NUL in s=", with("s=-", "s=a\0b"), Call),
        ("NUL behind", offer(&format!("{SDP}\0")), Call),
        ("UTF-8 in s=", with("s=-", "s=\u{1f4de}"), Call),
        ("prose", offer("hello\r\n"), Answer(400)),
        ("one CRLF", offer("\r\n"), Answer(400)),
        ("an attribute of 10 KiB", plus(&format!("a=x:{}", "y".repeat(10_240))), Call),
        ("1,000 attributes", plus(&vec!["a=x:y"; 1000].join("\r\n")), Call),
        ("60 KiB of lines without =", plus(&vec!["x"; 20_000].join("\r\n")), Call),
        ("unknown letters", plus("q=1\r\nx=2\r\n==\r\n="), Call),
    ]);
}

/// RFC 8866 5.7; RFC 3264 5.1, 8.4; RFC 4291.
#[test]
fn a16_odd_media_addresses_have_their_outcome() {
    let at_media = SDP.replace("c=IN IP4 10.0.0.2\r\n", "") + "c=IN IP4 10.0.0.2\r\n";
    check(vec![
        ("c= at the m-line only", offer(&at_media), Call),
        ("c= missing", with("c=IN IP4 10.0.0.2\r\n", ""), Answer(488)),
        ("c= twice", address("c=IN IP4 10.0.0.2\r\nc=IN IP4 10.0.0.3"), Call),
        ("c= without an address", address("c=IN IP4"), Answer(400)),
        ("c= with a host name", address("c=IN IP4 media.example.com"), Answer(488)),
        ("c= with a TTL", address("c=IN IP4 10.0.0.2/127"), Call),
        ("c= with an IPv6 zone", address("c=IN IP6 fe80::1%eth0"), Answer(488)),
        ("c= of four numbers too large", address("c=IN IP4 10.0.0.256"), Answer(488)),
        ("c=0.0.0.0: held from the first", address("c=IN IP4 0.0.0.0"), Call),
        ("c= of multicast", address("c=IN IP4 224.0.0.1"), Answer(488)),
        ("c= of broadcast", address("c=IN IP4 255.255.255.255"), Answer(488)),
        ("c= of the metadata service", address("c=IN IP4 169.254.169.254"), Answer(488)),
        ("c= of the metadata service, mapped", address("c=IN IP6 ::ffff:169.254.169.254"), Answer(488)),
    ]);
}

/// RFC 6157 3, RFC 3261 20.43: IPv6 media on a trunk that is reached by IPv4 is taken, and refused
/// only where our own media has no IPv6.
#[test]
fn a16_ipv6_media_on_an_ipv4_trunk() {
    for line in ["c=IN IP6 2001:db8::2", "c=IN IP6 [2001:db8::2]"] {
        let own = [("[2001:db8::1]:20000", "SIP/2.0 200 "), ("10.0.0.1:20000", "Warning: 301 ")];
        for (rtp, holds) in own {
            let mut rig = Rig::new(V4);
            assert_eq!(rig.outcome(&address(line)).0, Call);
            let sent = rig.answer_all_at(rtp);
            assert!(sent.len() == 1 && sent[0].contains(holds), "{line} {rtp}: {sent:?}");
            rig.rest();
        }
    }
}

/// RFC 8866 5.14; RFC 3264 5.1, 6; RFC 3551 6.
#[test]
fn a16_odd_media_lines_have_their_outcome() {
    let formats = |n: usize| (0..n).map(|n| (n % 128).to_string()).collect::<Vec<_>>().join(" ");
    let lines = |n: usize| vec!["m=video 4000 RTP/AVP 31"; n].join("\r\n");
    check(vec![
        ("two audio lines", plus("m=audio 30002 RTP/AVP 0"), Call),
        ("video first", media("m=video 4000 RTP/AVP 31\r\nm=audio 30000 RTP/AVP 8 101"), Call),
        ("no m-line", offer(SDP.split("m=").next().unwrap()), Answer(488)),
        ("video only", media("m=video 4000 RTP/AVP 31"), Answer(488)),
        ("fax only", media("m=image 4000 udptl t38"), Answer(488)),
        ("text only", media("m=message 4000 TCP/MSRP *"), Answer(488)),
        ("port 0", media("m=audio 0 RTP/AVP 8"), Answer(488)),
        ("port 0, then audio", media("m=audio 0 RTP/AVP 8\r\nm=audio 30000 RTP/AVP 8"), Call),
        ("port 0 without formats", plus("m=video 0 RTP/AVP"), Call),
        ("port 65535: none for RTCP", media("m=audio 65535 RTP/AVP 8"), Answer(488)),
        ("port 65536", media("m=audio 65536 RTP/AVP 8"), Answer(400)),
        ("negative port", media("m=audio -1 RTP/AVP 8"), Answer(400)),
        ("port of letters", media("m=audio rtp RTP/AVP 8"), Answer(400)),
        ("two ports", media("m=audio 30000/2 RTP/AVP 8"), Call),
        ("no formats", media("m=audio 30000 RTP/AVP"), Answer(400)),
        ("empty m-line", media("m="), Answer(400)),
        ("format twice", media("m=audio 30000 RTP/AVP 8 8 8"), Call),
        ("format 256", media("m=audio 30000 RTP/AVP 256"), Answer(488)),
        ("negative format", media("m=audio 30000 RTP/AVP -8"), Answer(488)),
        ("64 formats", media(&format!("m=audio 30000 RTP/AVP {}", formats(64))), Call),
        ("65 formats", media(&format!("m=audio 30000 RTP/AVP {}", formats(65))), Answer(400)),
        ("16 m-lines", plus(&lines(15)), Call),
        ("17 m-lines", plus(&lines(16)), Answer(400)),
        ("no codec in common", media("m=audio 30000 RTP/AVP 4 18"), Answer(488)),
        ("telephone events alone", media("m=audio 30000 RTP/AVP 101"), Answer(488)),
        ("SDES demanded", media("m=audio 30000 RTP/SAVP 8"), Answer(488)),
        ("DTLS demanded", media("m=audio 30000 UDP/TLS/RTP/SAVPF 8"), Answer(488)),
        ("unknown transport", media("m=audio 30000 RTP/XYZ 8"), Answer(488)),
    ]);
}

/// RFC 8866 6; RFC 4733; RFC 3605.
#[test]
fn a16_odd_attributes_have_their_outcome() {
    check(vec![
        ("rtpmap without a number", plus("a=rtpmap:PCMU/8000"), Call),
        ("rtpmap without a codec", plus("a=rtpmap:8"), Call),
        ("rtpmap of nothing", plus("a=rtpmap:"), Call),
        ("rtpmap missing for a static type", with("a=rtpmap:8 PCMA/8000\r\n", ""), Call),
        ("static type remapped", with("rtpmap:8 PCMA/8000", "rtpmap:8 G729/8000"), Answer(488)),
        (
            "G.711 under a dynamic type",
            offer(&SDP.replace("AVP 8", "AVP 96").replace("rtpmap:8 ", "rtpmap:96 ")),
            Call,
        ),
        ("clock of 0", with("PCMA/8000", "PCMA/0"), Answer(488)),
        ("clock of 20 digits", with("PCMA/8000", "PCMA/99999999999999999999"), Answer(488)),
        ("packet time 0", plus("a=ptime:0"), Call),
        ("packet time 1000", plus("a=ptime:1000"), Call),
        ("packet time 65536", plus("a=ptime:65536"), Call),
        ("negative packet time", plus("a=ptime:-20"), Call),
        ("packet time of nothing", plus("a=ptime"), Call),
        ("most packet time 1", plus("a=maxptime:1"), Call),
        ("telephone events at 48000", with("telephone-event/8000", "telephone-event/48000"), Call),
        ("telephone events of all kinds", plus("a=fmtp:101 0-15,66,70-255,,-1"), Call),
        ("rtcp on port 0", plus("a=rtcp:0"), Call),
        ("rtcp on port 65536", plus("a=rtcp:65536"), Call),
        ("rtcp to the metadata service", plus("a=rtcp:80 IN IP4 169.254.169.254"), Answer(488)),
        ("two directions", plus("a=inactive"), Call),
        ("unknown direction", with("a=sendrecv", "a=both"), Call),
        ("crypto without SAVP", plus("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:short"), Call),
        ("candidates of rubbish", plus("a=candidate:x\r\na=ice-ufrag:\r\na=fingerprint:sha-256 zz"), Call),
        ("empty attribute", plus("a="), Call),
    ]);
}

/// RFC 3264 6: whatever is offered, the answer has its m-lines, and a packet time that is sent.
#[test]
fn a16_answers_to_odd_offers_fit_them() {
    let cases: Vec<Case> = vec![
        ("two audio lines", plus("m=audio 30002 RTP/AVP 0"), Call),
        ("video first", media("m=video 4000 RTP/AVP 31\r\nm=audio 30000 RTP/AVP 8 101"), Call),
        ("packet time 1000", plus("a=ptime:1000"), Call),
        ("packet time 0", plus("a=ptime:0"), Call),
        ("most packet time 1", plus("a=maxptime:1"), Call),
        ("16 m-lines", plus(&vec!["m=video 4000 RTP/AVP 31"; 15].join("\r\n")), Call),
    ];
    for (name, bytes, _) in cases {
        let offered = String::from_utf8(bytes.clone()).unwrap();
        let mut rig = Rig::new(V4);
        let (outcome, _): (Outcome, _) = rig.outcome(&bytes);
        assert_eq!(outcome, Call, "{name}");
        let ok = rig.answer_all().remove(0);
        let kinds = |text: &str| -> Vec<String> {
            let lines = text.split("\r\n").filter_map(|l| l.strip_prefix("m="));
            lines.map(|l| l.split(' ').next().unwrap().to_owned()).collect()
        };
        assert_eq!(kinds(&ok), kinds(&offered), "{name}: {ok}");
        let used = ok.split("\r\n").filter(|l| l.starts_with("m=") && !l.contains(" 0 ")).count();
        assert_eq!(used, 1, "{name}: {ok}");
        if let Some(time) = ok.split("\r\n").find_map(|l| l.strip_prefix("a=ptime:")) {
            assert!((10..=60).contains(&time.parse::<u32>().unwrap()), "{name}: {ok}");
        }
        rig.rest();
    }
}
