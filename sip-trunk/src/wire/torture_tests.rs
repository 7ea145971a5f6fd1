//! The kinds of message that RFC 4475 and RFC 5118 torment a parser with, each with the outcome
//! at the wire: read, answered with an error, or dropped.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use proptest::prelude::*;

use super::limits::MessageLimits;
use super::message::{Message, parse};
use super::tolerance::{Framing, Tolerance, refusal_answer, tolerate};

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Request,
    Response(u16),
    Answered(u16),
    Dropped,
}

use Outcome::{Answered, Dropped, Request, Response};

fn outcome(raw: &[u8]) -> Outcome {
    let limits = MessageLimits::default();
    let status = match tolerate(raw, Framing::Datagram, &Tolerance::default(), &limits) {
        Ok(tolerated) => match parse(tolerated.bytes, &limits) {
            Ok(Message::Request(_)) => return Request,
            Ok(Message::Response(response)) => return Response(response.status),
            Err(fault) => Some(fault.status),
        },
        Err(refusal) => refusal.status(),
    };
    let remote: SocketAddr = "192.0.2.7:5060".parse().unwrap();
    let answer = status.and_then(|status| refusal_answer(raw, status, "x", "t", remote));
    match (status, answer) {
        (Some(status), Some(answer)) => {
            // It echoes what was broken; its framing is sound all the same.
            let strict = tolerate(&answer, Framing::Stream, &Tolerance::default(), &limits);
            assert!(strict.is_ok(), "{}", String::from_utf8_lossy(&answer));
            Answered(status)
        }
        _ => Dropped,
    }
}

const INVITE: &str = "INVITE sip:bob@example.org SIP/2.0\r\n\
    Via: SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bK74bf9\r\n\
    Max-Forwards: 70\r\n\
    From: \"Alice\" <sip:alice@example.org>;tag=9fxced76sl\r\n\
    To: <sip:bob@example.org>\r\n\
    Call-ID: 3848276298220188511@example.org\r\n\
    CSeq: 2 INVITE\r\n\
    Contact: <sip:alice@192.0.2.7>\r\n\
    Content-Length: 0\r\n\r\n";

const OK: &str = "SIP/2.0 200 OK\r\n\
    Via: SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bK74bf9\r\n\
    From: <sip:alice@example.org>;tag=1\r\n\
    To: <sip:bob@example.org>;tag=2\r\n\
    Call-ID: a@b\r\n\
    CSeq: 2 INVITE\r\n\
    Content-Length: 0\r\n\r\n";

fn invite(from: &str, to: &str) -> Vec<u8> {
    assert!(INVITE.contains(from), "{from}");
    INVITE.replacen(from, to, 1).into_bytes()
}

fn ok(from: &str, to: &str) -> Vec<u8> {
    assert!(OK.contains(from), "{from}");
    OK.replacen(from, to, 1).into_bytes()
}

/// RFC 4475 3.1.1: ugly and valid.
#[test]
fn ugly_messages_are_read() {
    let tortuous = "INVITE sip:vivek@gw;unknown_param SIP/2.0\r\nTO :\r\n sip:vivek@gw ;   tag    = 19n\r\n\
        from   : \"J Rosenberg \\\\\\\"\"       <sip:jr@example.org>\r\n  ;\r\n  tag = 98asjd8\r\n\
        MaX-fOrWaRdS: 0068\r\nCall-ID: w@192.0.2.1\r\nContent-Length   : 0\r\ncseq: 0009\r\n  INVITE\r\n\
        Via  : SIP  /   2.0\r\n /UDP\r\n    192.0.2.2;branch=390skdjuw\r\ns :\r\nNewHeader:  value\r\n continued\r\n\
        UnknownHeaderWithUnusualValue: ;;,,;;,;\r\nContent-Type: application/sdp\r\n\
        v:  SIP  / 2.0  / TCP     spindle.example.com   ;\r\n  branch  =   z9hG4bK9ikj8  ,\r\n SIP  /    2.0   / UDP  192.168.255.111   ; branch=\r\n z9hG4bK30239\r\n\
        m:\"Quoted string \\\"\\\"\" <sip:jdrosen@example.com> ; newparam =\r\n      newvalue ;\r\n  secondparam ; q = 0.33\r\n\r\n";
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("3.1.1.1 folding, blanks and letter case", tortuous.into()),
        (
            "3.1.1.2 unusual method",
            INVITE.replace("INVITE", "!interesting-Method0123456789_*+`.%indeed'~").into(),
        ),
        ("3.1.1.2 quoted NUL", invite("\"Alice\"", "\"BEL:\\\u{7} NUL:\\\0 DEL:\\\u{7f}\"")),
        ("3.1.1.3 escapes in URIs", invite("sip:bob@", "sip:sips%3Auser%40example.com@")),
        ("3.1.1.4 escaped nulls", invite("sip:alice@example.org", "sip:null-%00-null@example.org")),
        ("3.1.1.5 escapes outside URIs are none", invite("Contact:", "X%20Y: z\r\nContact:")),
        ("3.1.1.6 no blank behind the display name", invite("\"Alice\" <", "Alice<")),
        ("3.1.1.7 long values", invite("Contact:", &format!("X: {}\r\nContact:", "long".repeat(900)))),
        ("3.1.1.8 noise behind the message", [INVITE, "\r\n", INVITE].concat().into()),
        ("3.1.1.9 semicolon in the user part", invite("sip:bob@", "sip:user;par=u%40example.net@")),
        ("3.1.1.10 unknown transport", invite("SIP/2.0/UDP", "SIP/2.0/UNKNOWN")),
        ("compact names", INVITE.replace("Via", "v").replace("From", "f").replace("Call-ID", "i").into()),
        ("display name in Latin-1", INVITE.bytes().map(|b| if b == b'l' { 0xe9 } else { b }).collect()),
        ("RFC 5118 4.1 IPv6 reference", invite("sip:bob@example.org", "sip:[2001:db8::10]")),
        (
            "RFC 5118 4.4 IPv6 in Via",
            invite("192.0.2.7:5060;", "[2001:db8::9:1]:6050;received=2001:db8::9:255;"),
        ),
        ("no Max-Forwards", invite("Max-Forwards: 70\r\n", "")),
    ];
    for (name, raw) in cases {
        // The Latin-1 case spoils "Call-ID" and "example", nothing that frames the message.
        let raw = if name.starts_with("display") { invite_latin() } else { raw };
        assert_eq!(outcome(&raw), Request, "{name}\n{}", String::from_utf8_lossy(&raw));
    }
    assert_eq!(
        outcome(&ok("200 OK", "200 = 2**3 * 5**2 \u{43d}\u{43e}")),
        Response(200),
        "3.1.1.12 odd reason"
    );
    assert_eq!(outcome(&ok("200 OK", "100 ")), Response(100), "3.1.1.13 empty reason");
}

fn invite_latin() -> Vec<u8> {
    let at = INVITE.find("Alice").unwrap();
    [&INVITE.as_bytes()[..at], b"Al\xefce", &INVITE.as_bytes()[at + 5..]].concat()
}

/// RFC 4475 3.1.2 and 3.3: a request is answered, a response dropped.
#[test]
fn broken_messages_are_answered_or_dropped() {
    let cases: Vec<(&str, Vec<u8>, Outcome)> = vec![
        (
            "3.1.2.2 Content-Length too large",
            invite("Content-Length: 0", "Content-Length: 9999"),
            Answered(400),
        ),
        (
            "3.1.2.3 negative Content-Length",
            invite("Content-Length: 0", "Content-Length: -999"),
            Answered(400),
        ),
        ("3.1.2.4 overlarge CSeq", invite("CSeq: 2", "CSeq: 36893488147419103232"), Answered(400)),
        ("3.1.2.5 overlarge CSeq in a response", ok("CSeq: 2", "CSeq: 9292394834772304023312"), Dropped),
        ("3.1.2.6 open quote", invite("To: <sip:bob@", "To: \"Mr. J. User <sip:bob@"), Answered(400)),
        (
            "3.1.2.7 brackets around the request URI",
            invite("sip:bob@example.org", "<sip:bob@example.org>"),
            Answered(400),
        ),
        (
            "3.1.2.8 blank in the request URI",
            invite("sip:bob@example.org", "sip:bob@example.org; lr"),
            Answered(400),
        ),
        (
            "3.1.2.9 two blanks in the start line",
            invite(" SIP/2.0\r\nVia", "  SIP/2.0\r\nVia"),
            Answered(400),
        ),
        ("3.1.2.16 unknown version", invite("SIP/2.0\r\nVia", "SIP/7.0\r\nVia"), Answered(505)),
        ("3.1.2.17 methods differ", invite("CSeq: 2 INVITE", "CSeq: 2 OPTIONS"), Answered(400)),
        ("3.1.2.19 overlarge status", ok("200 OK", "4294967301 better not break"), Dropped),
        ("3.3.1 no Call-ID", invite("Call-ID", "X-Call-ID"), Answered(400)),
        ("3.3.8 two From", invite("To:", "From: <sip:x@y>;tag=1\r\nTo:"), Answered(400)),
        ("3.3.9 two Content-Length", invite("Content-Length: 0", "Content-Length: 0\r\nl: 0"), Answered(400)),
        ("two Content-Length in a response", ok("Content-Length: 0", "Content-Length: 0\r\nl: 0"), Dropped),
        ("broken ACK", INVITE.replace("INVITE", "ACK").replace("Content-Length: 0", "l: x").into(), Dropped),
        (
            "RFC 5118 4.2 IPv6 without brackets",
            invite("sip:bob@example.org", "sip:2001:db8::10"),
            Answered(400),
        ),
        ("bare CR", invite("To:", "X: a\rb\r\nTo:"), Answered(400)),
        ("no From", invite("From", "X-From"), Answered(400)),
        ("no CSeq", invite("CSeq", "X-CSeq"), Dropped),
        (
            "STUN",
            b"\x00\x01\x00\x00\x21\x12\xa4\x42\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00".to_vec(),
            Dropped,
        ),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n".to_vec(), Dropped),
    ];
    for (name, raw, expected) in cases {
        assert_eq!(outcome(&raw), expected, "{name}\n{}", String::from_utf8_lossy(&raw));
    }
}

proptest! {
    #[test]
    fn changed_bytes_are_survived(response in any::<bool>(), edits in prop::collection::vec((any::<u16>(), any::<u8>()), 1..8)) {
        let mut raw = if response { OK } else { INVITE }.as_bytes().to_vec();
        for (at, byte) in edits {
            let at = usize::from(at) % raw.len();
            raw[at] = byte;
        }
        outcome(&raw);
    }

    #[test]
    fn cut_messages_are_survived(at in 0usize..600, from in 0usize..100) {
        let raw = INVITE.as_bytes();
        let end = at.min(raw.len());
        outcome(&raw[from.min(end)..end]);
    }
}
