//! Row F07: Opus on a trunk.

use super::*;

fn with_opus() -> MediaPolicy {
    MediaPolicy::new(vec![Codec::Opus, Codec::Pcma], 20)
}

/// RFC 7587 7, RFC 4733 2.1: the events have the clock of the voice.
#[test]
fn f07_opus_is_offered_with_events_of_its_clock() {
    let mut session = session();
    let body = session.make_offer(local(), &with_opus(), Direction::SendRecv).unwrap();
    let body = String::from_utf8(body).unwrap();
    for line in [
        "RTP/AVP 111 8 110 101\r\n",
        "a=rtpmap:111 opus/48000/2\r\n",
        "a=fmtp:111 useinbandfec=1\r\n",
        "a=rtpmap:8 PCMA/8000\r\n",
        "a=rtpmap:110 telephone-event/48000\r\n",
        "a=fmtp:110 0-15\r\n",
        "a=rtpmap:101 telephone-event/8000\r\n",
    ] {
        assert!(body.contains(line), "no {line} in {body}");
    }
    // Each answer has the events of its codec, under the numbers that either side chose.
    let opus = "m=audio 5000 RTP/AVP 96 97 98\r\na=rtpmap:96 OPUS/48000/2\r\na=rtpmap:97 telephone-event/8000\r\n\
                a=rtpmap:98 telephone-event/48000\r\n";
    let mut other = session.clone();
    let media = session.accept_answer(offer(1, opus).as_bytes(), &with_opus()).unwrap().media;
    assert_eq!((media.codec, media.send_payload_type, media.receive_payload_type), (Codec::Opus, 96, 111));
    let event = media.telephone_event.unwrap();
    assert_eq!((event.send_payload_type, event.receive_payload_type, event.clock_rate), (98, 110, 48_000));
    assert!(media.also_receives.is_empty(), "one clock, one stream");
    let media = other.accept_answer(plain(1).as_bytes(), &with_opus()).unwrap().media;
    let event = media.telephone_event.unwrap();
    assert_eq!((media.codec, event.receive_payload_type, event.clock_rate), (Codec::Pcma, 101, 8_000));
}

/// Peers that know events of 8 kHz alone are met beside Opus too, as offerer and as answerer.
#[test]
fn f07_events_of_8_khz_go_beside_opus_where_there_are_no_others() {
    let alone = MediaPolicy::new(vec![Codec::Opus], 20);
    let mut caller = session();
    let body = String::from_utf8(caller.make_offer(local(), &alone, Direction::SendRecv).unwrap()).unwrap();
    assert!(body.contains("RTP/AVP 111 110 101\r\n"), "{body}");
    let theirs =
        "m=audio 5000 RTP/AVP 96 97\r\na=rtpmap:96 opus/48000/2\r\na=rtpmap:97 telephone-event/8000\r\n";
    let media = caller.accept_answer(offer(1, theirs).as_bytes(), &alone).unwrap().media;
    let event = media.telephone_event.unwrap();
    assert_eq!((event.send_payload_type, event.receive_payload_type, event.clock_rate), (97, 101, 8_000));
    let mut called = session();
    called.receive_offer(offer(1, theirs).as_bytes(), &alone).unwrap();
    let answer = called.make_answer(local(), &alone, Direction::SendRecv).unwrap();
    let body = String::from_utf8(answer.body).unwrap();
    assert!(
        body.contains("RTP/AVP 96 97\r\n") && body.contains("a=rtpmap:97 telephone-event/8000\r\n"),
        "{body}"
    );
    assert_eq!(answer.media.telephone_event.map(|event| event.clock_rate), Some(8_000));
}

#[test]
fn f07_opus_that_a_trunk_offers_is_answered_under_its_numbers() {
    let mut with = session();
    with.receive_offer(FREESWITCH.as_bytes(), &with_opus()).unwrap();
    let answer = with.make_answer(local(), &with_opus(), Direction::SendRecv).unwrap();
    let body = String::from_utf8(answer.body).unwrap();
    assert!(body.contains("RTP/AVP 102 103\r\na=rtpmap:102 opus/48000/2\r\n"), "{body}");
    assert!(
        body.contains("a=rtpmap:103 telephone-event/48000\r\n") && !body.contains("8000\r\na=fmtp:104"),
        "{body}"
    );
    let event = answer.media.telephone_event.unwrap();
    let numbers = (answer.media.send_payload_type, event.send_payload_type, event.clock_rate);
    assert_eq!((answer.media.codec, numbers), (Codec::Opus, (102, 103, 48_000)));
    // RFC 3264 8.3.2: what we offer later has the numbers that are known.
    let hold =
        String::from_utf8(with.make_offer(local(), &with_opus(), Direction::SendOnly).unwrap()).unwrap();
    assert!(hold.contains("RTP/AVP 102 8 103 104\r\n"), "{hold}");
    // A trunk without Opus takes the next that is offered, with the events of that.
    let mut without = session();
    without.receive_offer(FREESWITCH.as_bytes(), &policy()).unwrap();
    let media = without.make_answer(local(), &policy(), Direction::SendRecv).unwrap().media;
    assert_eq!(
        media.telephone_event.map(|event| (event.send_payload_type, event.clock_rate)),
        Some((104, 8_000))
    );
    assert_ne!(media.codec, Codec::Opus);
    // RFC 7587 7: one channel, or another clock, is not Opus as it is known.
    for odd in ["opus/48000", "opus/48000/1", "opus/16000/2"] {
        let body = offer(1, &format!("m=audio 5000 RTP/AVP 96\r\na=rtpmap:96 {odd}\r\n"));
        assert_eq!(
            session().receive_offer(body.as_bytes(), &with_opus()),
            Err(NegotiationError::NoCommonCodec)
        );
    }
}

/// RFC 3264 8.3.2: no number of ours stands for two things, whatever the peer's stand for.
#[test]
fn f07_numbers_of_ours_make_room_for_the_peers() {
    let mut session = session();
    let body = offer(
        1,
        "m=audio 5000 RTP/AVP 101 8 111\r\na=rtpmap:101 opus/48000/2\r\na=rtpmap:111 telephone-event/8000\r\n",
    );
    session.receive_offer(body.as_bytes(), &with_opus()).unwrap();
    session.make_answer(local(), &with_opus(), Direction::SendRecv).unwrap();
    let ours = session.make_offer(local(), &with_opus(), Direction::SendRecv).unwrap();
    let ours = String::from_utf8(ours).unwrap();
    assert!(ours.contains("RTP/AVP 101 8 110 111\r\na=rtpmap:101 opus/48000/2\r\n"), "{ours}");
    assert!(ours.contains("a=rtpmap:111 telephone-event/8000\r\n"), "{ours}");
    assert!(ours.contains("a=rtpmap:110 telephone-event/48000\r\n"), "{ours}");
}
