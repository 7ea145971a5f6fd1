//! The short way and the long way agree: on messages as they are, and on a great many that were damaged.

use super::super::message::parse;
use super::super::tolerance::{Framing, Tolerance, tolerate};
use super::*;

const SDP: &str =
    "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8\r\n";

fn message(start: &str, fields: &str, body: &str) -> Vec<u8> {
    let fields: String = fields.lines().map(|line| format!("{}\r\n", line.trim())).collect();
    format!("{start}\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Messages as trunks send them.
fn corpus() -> Vec<Vec<u8>> {
    let invite = "Via: SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bK-524287-1---f2;rport
        Via: SIP/2.0/TCP edge.example.com;branch=z9hG4bK77;received=198.51.100.2
        Max-Forwards: 69
        Record-Route: <sip:192.0.2.7;lr;ftag=8a>
        Contact: <sip:+12025550100@192.0.2.7:5060;transport=udp;ob>
        To: <sip:+442079460018@203.0.113.1;user=phone>
        From: \"Alice (home)\" <sip:+12025550100@192.0.2.7>;tag=8a0c
        Call-ID: 2f1c@192.0.2.7
        CSeq: 314159 INVITE
        Session-Expires: 1800;refresher=uac
        Allow: INVITE, ACK, BYE, CANCEL, OPTIONS
        Supported: timer, 100rel, replaces
        P-Asserted-Identity: \"Alice\" <sip:+12025550100@example.com>
        X-Charge: a:b;c=d
        Content-Type: application/sdp";
    let short = "v: SIP/2.0/TLS pbx.example.com:5061;branch=z9hG4bKnashds8;alias
        f: Bob Two <sips:bob@example.com;transport=tls>;tag=a73kszlfl
        t: sip:carol@chicago.example.com
        i: f81d4fae-7dec-11d0-a765-00a0c91e6bf6
        CSeq: 0009 OPTIONS
        Max-Forwards: 0
        k: timer";
    let reply =
        "Via: SIP/2.0/UDP 203.0.113.1:5060;branch=z9hG4bK00000000000000aa;rport=5060;received=192.0.2.7
        From: <sip:+12025550100@203.0.113.1>;tag=00000000000000aa
        To: <sip:+442079460018@192.0.2.7>;tag=as7f;x=y
        Call-ID: 77
        CSeq: 2 INVITE
        Reason: Q.850;cause=17;text=\"User busy\"
        Contact: <sip:192.0.2.7>";
    let bye = "Via: SIP/2.0/UDP 192.0.2.7;branch=1
        From: <tel:+12025550100>;tag=1
        To: <tel:+442079460018;phone-context=x>;tag=2
        Call-ID: a
        CSeq: 2147483647 BYE
        Route: <sip:203.0.113.1;lr>
        Max-Forwards: 255";
    let mut all = vec![
        message("INVITE sip:+442079460018@203.0.113.1:5060;user=phone SIP/2.0", invite, SDP),
        message("OPTIONS sips:203.0.113.1 SIP/2.0", short, ""),
        message("BYE tel:+442079460018 SIP/2.0", bye, ""),
        message("SIP/2.0 486 Busy Here", reply, ""),
        message("SIP/2.0 200 OK", reply, SDP),
        message("SIP/2.0 100 ", reply, ""),
    ];
    for method in ["ACK", "CANCEL", "INFO", "PRACK", "UPDATE", "REFER", "NOTIFY", "REGISTER"] {
        let fields = bye.replace("BYE", method);
        all.push(message(&format!("{method} sip:a;b=c@example.com;lr SIP/2.0"), &fields, "x"));
    }
    all
}

/// Says whether the message goes the short way; where it does, both ways have to agree.
fn compare(raw: &[u8]) -> bool {
    let limits = MessageLimits::default();
    let Some(short) = read(raw, &limits) else { return false };
    let shown = String::from_utf8_lossy(raw);
    let tolerated = tolerate(raw, Framing::Stream, &Tolerance::STRICT, &limits)
        .unwrap_or_else(|refusal| panic!("{refusal} the long way: {shown}"));
    assert_eq!(&tolerated.bytes[..], raw, "{shown}");
    let long =
        parse(tolerated.bytes, &limits).unwrap_or_else(|fault| panic!("{fault:?} the long way: {shown}"));
    match (&short, &long) {
        (Message::Request(a), Message::Request(b)) => assert_eq!(
            (a.method, &a.uri, a.scheme, &a.body),
            (b.method, &b.uri, b.scheme, &b.body),
            "{shown}"
        ),
        (Message::Response(a), Message::Response(b)) => {
            assert_eq!((a.status, &a.reason, &a.body), (b.status, &b.reason, &b.body), "{shown}");
        }
        _ => panic!("a request one way, a response the other: {shown}"),
    }
    let heads = [&short, &long].map(|message| match message {
        Message::Request(request) => &request.head,
        Message::Response(response) => &response.head,
    });
    let parts = |head: &Head| {
        format!(
            "{:?} {:?} {:?} {} {} {:?}",
            head.via, head.from, head.to, head.call_id, head.cseq, head.cseq_method
        )
    };
    assert_eq!(parts(heads[0]), parts(heads[1]), "{shown}");
    let fields = |head: &Head| {
        let spelt = |name: Name, spelt: &str| match name {
            // The long way has them by their long names.
            Name::Other => {
                let name = sipx_sip::HeaderName::parse(&Bytes::copy_from_slice(spelt.as_bytes()));
                String::from_utf8_lossy(name.canonical()).to_ascii_lowercase()
            }
            known => format!("{known:?}"),
        };
        let line = |(name, was, value): (Name, &str, &str)| (spelt(name, was), value.to_owned());
        head.fields().iter().map(line).collect::<Vec<_>>()
    };
    assert_eq!(fields(heads[0]), fields(heads[1]), "{shown}");
    true
}

#[test]
fn what_trunks_send_goes_the_short_way_and_reads_the_same() {
    for raw in corpus() {
        assert!(compare(&raw), "{}", String::from_utf8_lossy(&raw));
    }
}

#[test]
fn what_is_odd_goes_the_long_way() {
    let limits = MessageLimits::default();
    let invite = String::from_utf8(corpus().remove(0)).unwrap();
    let odd = [
        ("To: ", "To: <sip:x@y>\r\nTo: "),
        ("To: ", "To : "),
        ("<sip:+442079460018@203.0.113.1;user=phone>", "<sip:+442079460018@203.0.113.1\r\n ;user=phone>"),
        ("Alice (home)", "Al\\\"ice"),
        ("Alice (home)", "Zo\u{eb}"),
        (":5060;user=phone SIP", ":0;user=phone SIP"),
        (":5060;user=phone SIP", ":5060;user=phone;user=phone SIP"),
        (":5060;user=phone SIP", ":5060?a=b SIP"),
        ("314159 INVITE", "314159 BYE"),
        ("314159 INVITE", "2147483648 INVITE"),
        ("Max-Forwards: 69", "Max-Forwards: 256"),
        ("SIP/2.0/UDP 192.0.2.7:5060", "SIP/2.0/UDP 192.0.2.7:0"),
        ("SIP/2.0/UDP 192.0.2.7:5060", "SIP / 2.0 / UDP 192.0.2.7:5060"),
        ("a:b;c=d", "#"),
        ("Content-Length: ", "Content-Length: 1"),
        ("INVITE sip", "invite sip"),
        (" SIP/2.0\r\nVia", " SIP/3.0\r\nVia"),
    ];
    for (was, is) in odd {
        assert!(invite.contains(was), "{was}");
        assert!(read(invite.replacen(was, is, 1).as_bytes(), &limits).is_none(), "{was} -> {is}");
    }
    let narrow = MessageLimits { headers: 5, ..limits };
    assert!(read(invite.as_bytes(), &narrow).is_none(), "more fields than the limit");
    let narrow = MessageLimits { header_bytes: 100, ..limits };
    assert!(read(invite.as_bytes(), &narrow).is_none(), "a longer header than the limit");
    let narrow = MessageLimits { body_bytes: 10, ..limits };
    assert!(read(invite.as_bytes(), &narrow).is_none(), "a longer body than the limit");
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
    }
}

fn damage(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    const PIECES: [&str; 44] = [
        ";",
        ",",
        ":",
        "\"",
        "<",
        ">",
        "=",
        "@",
        " ",
        "\t",
        "\r\n",
        "\r\n ",
        "%",
        "%41",
        "?",
        "/",
        "\\",
        "[::1]",
        ";tag=",
        ";tag",
        ";branch=z9hG4bK",
        ";rport",
        ";lr",
        "sip:",
        "sips:",
        "tel:",
        "tel:+1",
        "SIP/2.0",
        "INVITE",
        "From: ",
        "Via: ",
        "v:",
        "Content-Length: 0\r\n",
        "CSeq: 1 INVITE\r\n",
        "0",
        "65536",
        "-",
        ".",
        "256.1.1.1",
        "()",
        "&",
        "\u{e9}",
        "=1;a",
        ";TAG=q",
    ];
    let mut raw = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(3) {
        let at = random.below(raw.len());
        match random.below(6) {
            0 => raw[at] = u8::try_from(random.below(256)).unwrap(),
            1 => raw[at] = b' ' + u8::try_from(random.below(95)).unwrap(),
            2 => drop(raw.remove(at)),
            3 => {
                let piece = PIECES[random.below(PIECES.len())];
                raw.splice(at..at, piece.bytes());
            }
            4 => {
                // A line of another message.
                let other = &corpus[random.below(corpus.len())];
                let lines: Vec<_> = other.split_inclusive(|&b| b == b'\n').collect();
                let line = lines[random.below(lines.len())];
                let begin = raw[..at].iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
                raw.splice(begin..begin, line.iter().copied());
            }
            _ => {
                let end = (at + random.below(12)).min(raw.len());
                let copy = raw[at..end].to_vec();
                let to = random.below(raw.len());
                raw.splice(to..to, copy);
            }
        }
        if raw.is_empty() {
            return corpus[0].clone();
        }
    }
    // The body may be what it says again.
    if random.below(2) == 0
        && let Some(end) = raw.windows(4).position(|w| w == b"\r\n\r\n")
        && let Some(from) = raw.windows(16).position(|w| w == b"Content-Length: ").filter(|&from| from < end)
    {
        let to = raw[from..].iter().position(|&b| b == b'\r').map_or(from + 16, |length| from + length);
        let length = raw.len() - end - 4;
        raw.splice(from + 16..to.max(from + 16), length.to_string().bytes());
    }
    raw
}

#[test]
fn damaged_messages_read_the_same_both_ways() {
    let seed = std::env::var("CAUSEWAY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed_5eed);
    println!("CAUSEWAY_SEED={seed}");
    let (corpus, mut random) = (corpus(), Random(seed | 1));
    let (mut plain, rounds) = (0, 60_000);
    for _ in 0..rounds {
        plain += usize::from(compare(&damage(&mut random, &corpus)));
    }
    // Enough of them stay plain for the comparison to say something, and enough do not.
    println!("{plain} of {rounds} went the short way");
    assert!((rounds / 20..rounds * 19 / 20).contains(&plain), "{plain} of {rounds}");
}
