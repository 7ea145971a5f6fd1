#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

fn tolerated(raw: &[u8]) -> Result<Tolerated, Refusal> {
    tolerate(raw, Framing::Datagram, &Tolerance::default(), &MessageLimits::default())
}

fn remote() -> SocketAddr {
    "192.0.2.7:5062".parse().unwrap()
}

const PLAIN: &str = "INVITE sip:bob@gw SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1;rport\r\n\
    From: <sip:a@b>;tag=1\r\nTo: <sip:bob@gw>\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n\
    Max-Forwards: 70\r\nContent-Length: 4\r\n\r\nbody";

#[test]
fn a_good_message_passes_untouched() {
    let result = tolerated(PLAIN.as_bytes()).unwrap();
    assert_eq!(&result.bytes[..], PLAIN.as_bytes());
    assert!(result.repairs.is_empty());
    let strict = tolerate(PLAIN.as_bytes(), Framing::Stream, &Tolerance::STRICT, &MessageLimits::default());
    assert_eq!(strict.unwrap().bytes, result.bytes);
}

/// Each repair: the message, what becomes of it, and what a strict trunk says.
#[test]
fn repairs_are_done_and_named() {
    let latin =
        [b"OPTIONS sip:gw SIP/2.0\r\nFrom: \"J\xf6rg\" <sip:a@b>\r\nl: 0\r\n\r\n".as_slice()].concat();
    let cases: [(&[u8], &[u8], Repair, Refusal); 6] = [
        (
            b"\r\n\r\nOPTIONS sip:gw SIP/2.0\r\nl: 0\r\n\r\n",
            b"OPTIONS sip:gw SIP/2.0\r\nl: 0\r\n\r\n",
            Repair::LeadingCrlf,
            Refusal::LeadingCrlf,
        ),
        (
            b"OPTIONS sip:gw SIP/2.0\nl: 3\n\na\nb",
            b"OPTIONS sip:gw SIP/2.0\r\nl: 3\r\n\r\na\nb",
            Repair::BareLf,
            Refusal::HeaderCharacter,
        ),
        (
            b"OPTIONS sip:gw SIP/2.0\r\nX: y\r\n\r\nrest",
            b"OPTIONS sip:gw SIP/2.0\r\nX: y\r\n\r\nrest",
            Repair::MissingContentLength,
            Refusal::ContentLengthMissing,
        ),
        (
            b"INVITE sip:*21#@gw SIP/2.0\r\nTo: \"sip:#@\" <sip:*21#@gw>\r\nSubject: #1\r\nl: 0\r\n\r\n",
            b"INVITE sip:*21%23@gw SIP/2.0\r\nTo: \"sip:#@\" <sip:*21%23@gw>\r\nSubject: #1\r\nl: 0\r\n\r\n",
            Repair::RawHash,
            Refusal::RawHash,
        ),
        (&latin, &latin, Repair::NonUtf8, Refusal::NonUtf8),
        // RFC 3261 18.3: noise behind the body of a datagram is no part of the message.
        (
            b"\nOPTIONS sip:gw SIP/2.0\r\nl: 1\r\n\r\nbnoise",
            b"OPTIONS sip:gw SIP/2.0\r\nl: 1\r\n\r\nb",
            Repair::LeadingCrlf,
            Refusal::LeadingCrlf,
        ),
    ];
    for (raw, expected, repair, refusal) in cases {
        let text = String::from_utf8_lossy(raw);
        let result = tolerated(raw).unwrap_or_else(|e| panic!("{text:?}: {e}"));
        assert_eq!(&result.bytes[..], expected, "{text:?}");
        assert_eq!(result.repairs.iter().collect::<Vec<_>>(), [repair], "{text:?}");
        let strict = tolerate(raw, Framing::Datagram, &Tolerance::STRICT, &MessageLimits::default());
        assert_eq!(strict, Err(refusal), "{text:?}");
    }
}

#[test]
fn what_two_readers_would_read_differently_is_refused() {
    let with = |line: &str| PLAIN.replacen("\r\n", &format!("\r\n{line}\r\n"), 1);
    let cases = [
        (with("l: 4"), Refusal::ContentLengthTwice, Some(400)),
        (with("f: <sip:x@y>;tag=2"), Refusal::FromTwice, Some(400)),
        (with("t : <sip:x@y>"), Refusal::ToTwice, Some(400)),
        (with("I: y"), Refusal::CallIdTwice, Some(400)),
        (with("CSEQ: 1 INVITE"), Refusal::CseqTwice, Some(400)),
        (with("Max-Forwards: 7"), Refusal::MaxForwardsTwice, Some(400)),
        (with("X: a\0b"), Refusal::HeaderCharacter, Some(400)),
        (with("X: a\rb"), Refusal::HeaderCharacter, Some(400)),
        (with(" folded: onto nothing"), Refusal::HeaderSyntax, Some(400)),
        (with("no colon"), Refusal::HeaderSyntax, Some(400)),
        (with("b@d: name"), Refusal::HeaderSyntax, Some(400)),
        (
            PLAIN.replace("Content-Length: 4", "Content-Length: 4, 4"),
            Refusal::ContentLengthInvalid,
            Some(400),
        ),
        (PLAIN.replace("Content-Length: 4", "Content-Length: -4"), Refusal::ContentLengthInvalid, Some(400)),
        (PLAIN.replace("Content-Length: 4", "Content-Length: 5"), Refusal::BodyTruncated, Some(400)),
        (PLAIN.replace("Content-Length: 4", "Content-Length: 65537"), Refusal::BodyTooLarge, Some(413)),
        (PLAIN.replace("SIP/2.0\r\nVia", "SIP/7.0\r\nVia"), Refusal::Version, Some(505)),
        (PLAIN.replace("gw SIP/2.0\r\nVia", "gw SIP/2.0 x\r\nVia"), Refusal::StartLine, Some(400)),
        (with(&format!("X: {}", "a".repeat(17_000))), Refusal::HeaderTooLarge, Some(513)),
        (with("X: a\r\n".repeat(250).trim_end()), Refusal::TooManyHeaders, Some(400)),
        (PLAIN[..60].to_owned(), Refusal::HeaderUnfinished, Some(400)),
        ("\r\n\r\n".to_owned(), Refusal::KeepAlive, None),
        (String::new(), Refusal::KeepAlive, None),
        ("\0\0\0\0".to_owned(), Refusal::KeepAlive, None),
        ("\u{1}\0\0\0!\u{12}".to_owned(), Refusal::NotSip, None),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), Refusal::NotSip, None),
    ];
    for (raw, refusal, status) in cases {
        let short: String = raw.chars().take(120).collect();
        assert_eq!(tolerated(raw.as_bytes()), Err(refusal), "{short:?}");
        assert_eq!(refusal.status(), status, "{refusal}");
    }
    let missing = PLAIN.replace("Content-Length: 4\r\n", "");
    let stream =
        tolerate(missing.as_bytes(), Framing::Stream, &Tolerance::default(), &MessageLimits::default());
    assert_eq!(stream, Err(Refusal::ContentLengthMissing));
}

/// RFC 4475 3.1.1.2: a quoted NUL is ugly, and legal.
#[test]
fn a_quoted_nul_passes() {
    let raw = "OPTIONS sip:gw SIP/2.0\r\nFrom: \"NUL:\\\0\" <sip:a@b>\r\nl: 0\r\n\r\n";
    assert!(tolerated(raw.as_bytes()).unwrap().repairs.is_empty());
}

#[test]
fn folded_fields_count_once_and_keep_their_value() {
    let raw = "OPTIONS sip:gw SIP/2.0\r\nContent-Length:\r\n  3\r\nX: a\r\n\tb\r\n\r\nxyz";
    assert_eq!(&tolerated(raw.as_bytes()).unwrap().bytes[..], raw.as_bytes());
}

/// RFC 3261 8.2.6.2 and 18.2.1, RFC 3581 4.
#[test]
fn a_refused_request_can_be_answered() {
    let raw = "INVITE sip:b@gw SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1;rport, SIP/2.0/UDP c\r\n\
        v: SIP/2.0/TCP d\r\nf: <sip:a@b>\r\n ;tag=1\r\nTo: <sip:b@gw>\r\nl: 1\r\nl: 2\r\ni: x\r\nCSeq: 1 INVITE\r\n\r\n";
    let answer = refusal_answer(raw.as_bytes(), 400, "Bad Request", "t0", remote()).unwrap();
    assert_eq!(
        String::from_utf8(answer).unwrap(),
        "SIP/2.0 400 Bad Request\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1;rport=5062;received=192.0.2.7, SIP/2.0/UDP c\r\n\
         Via: SIP/2.0/TCP d\r\nFrom: <sip:a@b> ;tag=1\r\nTo: <sip:b@gw>;tag=t0\r\nCall-ID: x\r\n\
         CSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
    );
    let ack = raw.replace("INVITE", "ACK");
    assert_eq!(refusal_answer(ack.as_bytes(), 400, "Bad Request", "t", remote()), None);
    let response = raw.replace("INVITE sip:b@gw SIP/2.0", "SIP/2.0 200 OK");
    assert_eq!(refusal_answer(response.as_bytes(), 400, "Bad Request", "t", remote()), None);
    let no_via = raw.replace("Via:", "X:").replace("v:", "X:");
    assert_eq!(refusal_answer(no_via.as_bytes(), 400, "Bad Request", "t", remote()), None);
}

#[test]
fn labels_are_distinct() {
    let mut labels: Vec<&str> = Refusal::ALL.iter().map(|r| r.as_str()).collect();
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), Refusal::ALL.len());
    let mut all = Repairs::default();
    Repair::ALL.iter().for_each(|&r| all.insert(r));
    assert_eq!(all.iter().count(), Repair::ALL.len());
}

proptest! {
    #[test]
    fn rubbish_is_survived(raw in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = tolerated(&raw);
        let _ = refusal_answer(&raw, 400, "Bad Request", "t", remote());
    }

    /// One byte changed anywhere: no panic, and what passes once passes again unchanged.
    #[test]
    fn mended_messages_need_no_second_mending(at in 0usize..220, byte in any::<u8>()) {
        let mut raw = PLAIN.as_bytes().to_vec();
        let at = at % raw.len();
        raw[at] = byte;
        let answer = refusal_answer(&raw, 400, "Bad Request", "t", remote());
        if let Some(answer) = answer {
            prop_assert!(tolerated(&answer).is_ok(), "{}", String::from_utf8_lossy(&answer));
        }
        if let Ok(first) = tolerated(&raw) {
            let second = tolerated(&first.bytes).unwrap();
            prop_assert_eq!(&second.bytes, &first.bytes);
            prop_assert!(!second.repairs.contains(Repair::RawHash) && !second.repairs.contains(Repair::BareLf));
        }
    }
}
