//! G.722 on a trunk (RFC 3551 4.5.2).

use super::*;

fn wideband() -> MediaPolicy {
    MediaPolicy::new(vec![Codec::G722, Codec::Pcma, Codec::Pcmu], 20)
}

/// RFC 3551 4.5.2, RFC 4733 2.1: payload type 9 and a clock of 8000 Hz, which its events have as well.
#[test]
fn g722_is_offered_as_payload_type_9_with_a_clock_of_8_khz() {
    let mut session = session();
    let body = session.make_offer(local(), &wideband(), Direction::SendRecv).unwrap();
    let body = String::from_utf8(body).unwrap();
    assert!(body.contains("RTP/AVP 9 8 0 101\r\na=rtpmap:9 G722/8000\r\na=rtpmap:8 PCMA/8000\r\n"), "{body}");
    assert!(!body.contains("48000") && !body.contains("a=fmtp:9 "), "{body}");
    let alone = "m=audio 5000 RTP/AVP 9 97\r\na=rtpmap:97 telephone-event/8000\r\n";
    let media = session.accept_answer(offer(1, alone).as_bytes(), &wideband()).unwrap().media;
    assert_eq!((media.codec, media.send_payload_type, media.receive_payload_type), (Codec::G722, 9, 9));
    let event = media.telephone_event.unwrap();
    assert_eq!((event.send_payload_type, event.receive_payload_type, event.clock_rate), (97, 101, 8_000));
    assert!(media.also_receives.is_empty());
}

/// RFC 3264 6.1: whatever an answer has may come; the first is sent.
#[test]
fn an_answer_with_several_codecs_lets_each_of_them_come() {
    for (formats, codec, others) in [
        ("9 8", Codec::G722, vec![(8, Codec::Pcma)]),
        ("0 9", Codec::Pcmu, vec![(9, Codec::G722)]),
        ("8", Codec::Pcma, Vec::new()),
    ] {
        let mut session = session();
        session.make_offer(local(), &wideband(), Direction::SendRecv).unwrap();
        let answer = offer(1, &format!("m=audio 5000 RTP/AVP {formats}\r\n"));
        let media = session.accept_answer(answer.as_bytes(), &wideband()).unwrap().media;
        assert_eq!((media.codec, media.also_receives), (codec, others), "{formats}");
    }
}

/// RFC 3551 6: static, so with or without an rtpmap line; under the number of the offer where it has another.
#[test]
fn g722_that_a_trunk_offers_is_answered_where_the_trunk_may_speak_it() {
    for (lines, number) in [
        ("m=audio 5000 RTP/AVP 9 8\r\n", 9),
        ("m=audio 5000 RTP/AVP 9 8\r\na=rtpmap:9 g722/8000/1\r\n", 9),
        ("m=audio 5000 RTP/AVP 98 8\r\na=rtpmap:98 G722/8000\r\n", 98),
    ] {
        let mut with = session();
        with.receive_offer(offer(1, lines).as_bytes(), &wideband()).unwrap();
        let answer = with.make_answer(local(), &wideband(), Direction::SendRecv).unwrap();
        let body = String::from_utf8(answer.body).unwrap();
        assert!(body.contains(&format!("RTP/AVP {number}\r\na=rtpmap:{number} G722/8000\r\n")), "{body}");
        assert_eq!((answer.media.codec, answer.media.send_payload_type), (Codec::G722, number));
        let mut without = session();
        without.receive_offer(offer(1, lines).as_bytes(), &policy()).unwrap();
        let answer = without.make_answer(local(), &policy(), Direction::SendRecv).unwrap();
        assert_eq!(answer.media.codec, Codec::Pcma, "{lines}");
    }
    // FreeSWITCH offers Opus first, then G.722.
    let mut session = session();
    session.receive_offer(FREESWITCH.as_bytes(), &wideband()).unwrap();
    let media = session.make_answer(local(), &wideband(), Direction::SendRecv).unwrap().media;
    assert_eq!(media.codec, Codec::G722);
    assert_eq!(
        media.telephone_event.map(|event| (event.send_payload_type, event.clock_rate)),
        Some((104, 8_000))
    );
}

/// A clock of 16 kHz is not that of G.722: who names it may count time by it, and would not be heard.
#[test]
fn g722_of_another_clock_is_no_codec_in_common() {
    for odd in ["G722/16000", "G722/8000/2", "G722.1/16000", "G7221/16000"] {
        let body = offer(1, &format!("m=audio 5000 RTP/AVP 9\r\na=rtpmap:9 {odd}\r\n"));
        let refused = session().receive_offer(body.as_bytes(), &wideband());
        assert_eq!(refused, Err(NegotiationError::NoCommonCodec), "{odd}");
    }
}
