use call_model::{Cause, DtmfDigit};

use super::{Random, invite, token};
use crate::calling::*;

fn every_body() -> Vec<Body> {
    let media = "v=0".to_owned();
    vec![
        Body::Invite { invite: Box::new(invite()), token: token(1) },
        Body::Trying,
        Body::Ringing,
        Body::Progress { media: media.clone() },
        Body::Answer { media },
        Body::Candidate { candidate: "candidate:1 1 udp 1 192.0.2.1 9 typ host".into() },
        Body::Update { hold: true },
        Body::Update { hold: false },
        Body::Dtmf { digit: DtmfDigit::from_char('#').unwrap(), duration_ms: 160 },
        Body::Refer { target: "bob".parse().unwrap() },
        Body::Message { text: "grüß dich".into() },
        Body::Connected { party: call_model::Caller { private: true, ..invite().from } },
        Body::Bye { cause: Cause::NORMAL_CALL_CLEARING, text: "bye".into() },
        Body::Cancel { answered_elsewhere: true },
        Body::Reject { cause: Cause::USER_BUSY, sip_status: Some(486), text: String::new() },
        Body::Ping,
        Body::Ack { acknowledged: 7, code: AckCode::Resumed, token: Some(token(2)) },
        Body::Resume { call: invite().call, token: token(3), received: 4 },
        Body::Unknown { kind: 999 },
    ]
}

fn sequence_of(body: &Body) -> u32 {
    if matches!(body, Body::Ack { .. } | Body::Resume { .. }) { 0 } else { 70_000 }
}

fn feed_all(decoder: &mut FrameDecoder, mut bytes: &[u8]) -> Result<Vec<Frame>, FrameError> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        frames.extend(decoder.feed(&mut bytes)?);
    }
    Ok(frames)
}

/// One frame with the given CBOR body.
fn framed(body: &[u8]) -> Vec<u8> {
    let mut out = vec![(body.len() & 0x7f) as u8];
    if body.len() >= 0x80 {
        out[0] |= 0x80;
        out.push((body.len() >> 7) as u8);
    }
    out.extend_from_slice(body);
    out
}

fn map(fields: impl FnOnce(&mut minicbor::Encoder<Vec<u8>>), count: u64) -> Vec<u8> {
    let mut encoder = minicbor::Encoder::new(Vec::new());
    encoder.map(count).unwrap();
    fields(&mut encoder);
    framed(&encoder.into_writer())
}

#[test]
fn every_frame_survives_every_split_of_the_stream() {
    let bodies = every_body();
    let mut stream = Vec::new();
    for body in &bodies {
        stream.extend(Frame { sequence: sequence_of(body), body: body.clone() }.encode());
    }
    let expected: Vec<Vec<u8>> =
        feed_all(&mut FrameDecoder::new(), &stream).unwrap().iter().map(Frame::encode).collect();
    assert_eq!(expected.concat(), stream, "encoding is deterministic and loses nothing");
    for seed in 0..200 {
        let mut random = Random(seed);
        let (mut decoder, mut frames, mut rest) = (FrameDecoder::new(), Vec::new(), &stream[..]);
        while !rest.is_empty() {
            let take = (1 + random.below(if seed == 0 { 1 } else { 90 }) as usize).min(rest.len());
            frames.extend(feed_all(&mut decoder, &rest[..take]).unwrap());
            rest = &rest[take..];
        }
        let got: Vec<Vec<u8>> = frames.iter().map(Frame::encode).collect();
        assert_eq!(got, expected, "seed {seed}");
        for (frame, body) in frames.iter().zip(&bodies) {
            assert_eq!(frame.body.name(), body.name());
        }
    }
}

#[test]
fn an_invite_comes_back_as_it_was_signed() {
    let bytes =
        Frame { sequence: 1, body: Body::Invite { invite: Box::new(invite()), token: token(1) } }.encode();
    let frames = feed_all(&mut FrameDecoder::new(), &bytes).unwrap();
    let Body::Invite { invite: got, .. } = &frames[0].body else { panic!("{frames:?}") };
    assert_eq!(**got, invite());
}

#[test]
fn unknown_keys_are_skipped() {
    let bytes = map(
        |e| {
            e.u8(0).unwrap().u8(10).unwrap(); // message
            e.u8(1).unwrap().u8(3).unwrap();
            e.u8(15).unwrap().str("hi").unwrap();
            e.u16(4000).unwrap().array(2).unwrap().u8(1).unwrap().str("later").unwrap();
        },
        4,
    );
    let frames = feed_all(&mut FrameDecoder::new(), &bytes).unwrap();
    assert!(matches!(&frames[0].body, Body::Message { text } if text == "hi"));
}

#[test]
fn what_is_wrong_is_named() {
    let long = "x".repeat(MAX_TEXT + 1);
    let cases: Vec<(Vec<u8>, FrameError)> = vec![
        (vec![0x81, 0x80, 0x01], FrameError::TooLong), // 16385
        (vec![0xff, 0xff, 0xff, 0xff], FrameError::BadVarint),
        (vec![0x80, 0x00], FrameError::BadVarint), // not the shortest form of 0
        (vec![0x00], FrameError::BadCbor),
        (vec![0x01, 0xff], FrameError::BadCbor),
        (vec![0x02, 0xa0, 0xa0], FrameError::BadCbor),
        (map(|_| {}, 0), FrameError::BadCbor),
        (
            map(
                |e| {
                    e.u8(0).unwrap().u8(2).unwrap();
                },
                1,
            ),
            FrameError::MissingField("sequence"),
        ),
        (
            map(
                |e| {
                    e.u8(0).unwrap().u8(4).unwrap().u8(1).unwrap().u8(1).unwrap();
                },
                2,
            ),
            FrameError::MissingField("media"),
        ),
        (
            map(
                |e| {
                    e.u8(0).unwrap().u8(7).unwrap().u8(1).unwrap().str("no").unwrap();
                },
                2,
            ),
            FrameError::BadCbor,
        ),
        (
            Frame { sequence: 1, body: Body::Message { text: long } }.encode(),
            FrameError::FieldTooLong("text"),
        ),
        (
            Frame { sequence: 1, body: Body::Answer { media: "m".repeat(MAX_MEDIA + 1) } }.encode(),
            FrameError::FieldTooLong("media"),
        ),
        (
            map(
                |e| {
                    e.u8(0)
                        .unwrap()
                        .u8(11)
                        .unwrap()
                        .u8(1)
                        .unwrap()
                        .u8(1)
                        .unwrap()
                        .u8(13)
                        .unwrap()
                        .u8(0)
                        .unwrap();
                },
                3,
            ),
            FrameError::BadField("cause"),
        ),
        (
            map(
                |e| {
                    e.u8(0).unwrap().u8(8).unwrap().u8(1).unwrap().u8(1).unwrap();
                    e.u8(17).unwrap().u8(16).unwrap().u8(18).unwrap().u8(100).unwrap();
                },
                4,
            ),
            FrameError::BadField("digit"),
        ),
    ];
    for (bytes, error) in cases {
        let mut shown = bytes.clone();
        shown.truncate(24);
        assert_eq!(feed_all(&mut FrameDecoder::new(), &bytes).unwrap_err(), error, "{shown:02x?}");
    }
}

#[test]
fn a_display_name_that_could_smuggle_is_refused_not_repaired() {
    let mut bad = invite();
    bad.from.display_name = Some("Al\r\nice".into());
    let bytes = Frame { sequence: 1, body: Body::Invite { invite: Box::new(bad), token: token(1) } }.encode();
    assert_eq!(
        feed_all(&mut FrameDecoder::new(), &bytes).unwrap_err(),
        FrameError::BadField("display_name"),
        "a repaired name would no longer match the signature"
    );
}

#[test]
fn random_and_damaged_bytes_never_panic_and_never_grow_the_decoder() {
    let good: Vec<u8> = every_body()
        .into_iter()
        .flat_map(|body| Frame { sequence: sequence_of(&body), body }.encode())
        .collect();
    for seed in 0..3_000 {
        let mut random = Random(seed);
        let mut bytes = good.clone();
        for _ in 0..=random.below(6) {
            let at = random.below(bytes.len() as u64) as usize;
            match random.below(3) {
                0 => bytes[at] = random.next() as u8,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, random.next() as u8),
            }
        }
        let mut rest = &bytes[..];
        let mut decoder = FrameDecoder::new();
        while !rest.is_empty() {
            match decoder.feed(&mut rest) {
                Ok(_) => {}
                Err(FrameError::TooLong | FrameError::BadVarint) => break,
                Err(error) => assert!(!error.as_str().is_empty(), "seed {seed}"),
            }
        }
    }
}

#[test]
fn secrets_and_names_stay_out_of_debug_output() {
    let shown = format!("{:?}", Body::Invite { invite: Box::new(invite()), token: token(0xAB) });
    assert!(!shown.contains("171") && !shown.contains("alice") && !shown.contains("4420"), "{shown}");
}
