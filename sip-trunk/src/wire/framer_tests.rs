#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;
use crate::wire::tolerance::{Framing, tolerate};

const OPTIONS: &str = "OPTIONS sip:gw SIP/2.0\r\nVia: SIP/2.0/TCP a;branch=z9hG4bKx\r\nl: 4\r\n\r\nbody";
const BYE: &str = "BYE sip:gw SIP/2.0\nCSeq: 2 BYE\nContent-Length:\n 0\n\n";

fn run(chunks: &[&[u8]]) -> (Vec<Framed>, Option<Refusal>) {
    let mut framer = Framer::new(MessageLimits::default(), Tolerance::default());
    let mut out = Vec::new();
    for chunk in chunks {
        framer.push(chunk);
        loop {
            match framer.poll() {
                Ok(Some(framed)) => out.push(framed),
                Ok(None) => break,
                Err(refusal) => return (out, Some(refusal)),
            }
        }
    }
    (out, None)
}

fn message(text: &str) -> Framed {
    Framed::Message(Bytes::copy_from_slice(text.as_bytes()))
}

/// RFC 3261 18.3.
#[test]
fn messages_are_cut_by_content_length() {
    let stream = format!("{OPTIONS}\r\n{BYE}\r\n\r\n{OPTIONS}");
    let (framed, refusal) = run(&[stream.as_bytes()]);
    assert_eq!(refusal, None);
    assert_eq!(framed, [message(OPTIONS), message(BYE), Framed::Ping, message(OPTIONS)]);
}

/// RFC 5626 4.4.1.
#[test]
fn a_double_crlf_is_a_ping_and_a_single_one_the_expected_pong() {
    let mut framer = Framer::new(MessageLimits::default(), Tolerance::default());
    framer.push(b"\r\n");
    assert_eq!(framer.poll(), Ok(None));
    framer.push(b"\r");
    assert_eq!(framer.poll(), Ok(None));
    framer.push(b"\n");
    assert_eq!(framer.poll(), Ok(Some(Framed::Ping)));
    assert_eq!(framer.poll(), Ok(None));
    // A peer that pings and answers no ping is not taken to have answered.
    framer.expect_pong();
    framer.push(b"\r\n\r\n");
    assert_eq!(framer.poll(), Ok(Some(Framed::Ping)));
    framer.push(b"\r\n");
    assert_eq!(framer.poll(), Ok(Some(Framed::Pong)));
    framer.push(b"\r\n");
    assert_eq!(framer.poll(), Ok(None), "it was expected once");
    assert_eq!(framer.buffered(), 0);
}

#[test]
fn what_cannot_be_framed_closes_the_stream() {
    let long = format!("OPTIONS sip:gw SIP/2.0\r\nX: {}", "a".repeat(17_000));
    let cases: [(&[u8], Refusal); 8] = [
        (b"OPTIONS sip:gw SIP/2.0\r\n\r\n", Refusal::ContentLengthMissing),
        (b"OPTIONS sip:gw SIP/2.0\r\nl: 1\r\nContent-Length: 1\r\n\r\n", Refusal::ContentLengthTwice),
        (b"OPTIONS sip:gw SIP/2.0\r\nl: -1\r\n\r\n", Refusal::ContentLengthInvalid),
        (b"OPTIONS sip:gw SIP/2.0\r\nl: 99999999\r\n\r\n", Refusal::BodyTooLarge),
        (b"OPTIONS sip:gw SIP/2.0\r\nl: 99999999999999999999999\r\n\r\n", Refusal::ContentLengthInvalid),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::NotSip),
        (b"\x16\x03\x01\x02\x00", Refusal::NotSip),
        (long.as_bytes(), Refusal::HeaderTooLarge),
    ];
    for (bytes, expected) in cases {
        assert_eq!(run(&[bytes]), (vec![], Some(expected)), "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn a_refusal_is_final_and_leaves_the_header_to_be_answered() {
    let mut framer = Framer::new(MessageLimits::default(), Tolerance::default());
    let bad = b"OPTIONS sip:gw SIP/2.0\r\nl: x\r\n\r\n";
    framer.push(bad);
    assert_eq!(framer.poll(), Err(Refusal::ContentLengthInvalid));
    framer.push(OPTIONS.as_bytes());
    assert_eq!(framer.poll(), Err(Refusal::ContentLengthInvalid));
    assert_eq!(framer.head(), bad);
}

proptest! {
    /// However a stream is split, the same things come out of it.
    #[test]
    fn splits_do_not_matter(
        parts in prop::collection::vec(prop_oneof![
            Just(OPTIONS.to_owned()), Just(BYE.to_owned()), Just("\r\n".to_owned()), Just("\r\n\r\n".to_owned()),
            Just("GARBAGE\r\n\r\n".to_owned()), Just("OPTIONS x SIP/2.0\r\nl: 70000\r\n\r\n".to_owned()),
        ], 0..8),
        cuts in prop::collection::vec(0usize..700, 0..12),
    ) {
        let stream = parts.concat().into_bytes();
        let whole = run(&[&stream]);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|w| &stream[w[0]..w[1]]).collect();
        prop_assert_eq!(&run(&chunks), &whole);
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        prop_assert_eq!(&run(&bytes), &whole);
    }

    /// Arbitrary bytes neither panic nor grow the buffer without bound.
    #[test]
    fn rubbish_is_survived(stream in prop::collection::vec(any::<u8>(), 0..600), size in 1usize..40) {
        let chunks: Vec<&[u8]> = stream.chunks(size).collect();
        run(&chunks);
        let mut framer = Framer::new(MessageLimits::default(), Tolerance::default());
        framer.push(&stream);
        while let Ok(Some(framed)) = framer.poll() {
            if let Framed::Message(bytes) = framed {
                let _ = tolerate(&bytes, Framing::Stream, &Tolerance::default(), &MessageLimits::default());
            }
        }
        prop_assert!(framer.buffered() <= stream.len());
    }
}
