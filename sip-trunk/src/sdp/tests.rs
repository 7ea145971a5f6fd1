#![allow(clippy::unwrap_used)]
use std::net::SocketAddr;

use call_model::{Codec, Direction, LegMedia, MediaSecurity, TelephoneEvent};
use proptest::prelude::*;

use super::*;
use crate::wire::tolerance::Repair;

mod g722;
mod opus;

fn local() -> SocketAddr {
    "198.51.100.1:40000".parse().unwrap()
}

fn policy() -> MediaPolicy {
    MediaPolicy::new(vec![Codec::Pcma, Codec::Pcmu], 20)
}

fn session() -> OfferAnswer {
    OfferAnswer::new(400)
}

fn answer_to(offer: &str) -> (String, LegMedia) {
    let mut session = session();
    session.receive_offer(offer.as_bytes(), &policy()).unwrap();
    let answer = session.make_answer(local(), &policy(), Direction::SendRecv).unwrap();
    (String::from_utf8(answer.body).unwrap(), answer.media)
}

fn refusal_of(offer: &str) -> NegotiationError {
    let mut session = session();
    let error = session.receive_offer(offer.as_bytes(), &policy()).unwrap_err();
    assert_eq!(session.state(), State::Stable);
    error
}

fn offer(version: u64, lines: &str) -> String {
    format!("v=0\r\no=- 7 {version} IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n{lines}")
}

fn plain(version: u64) -> String {
    offer(version, "m=audio 5000 RTP/AVP 8 101\r\na=rtpmap:101 telephone-event/8000\r\n")
}

const HEAD: &str = "v=0\r\no=- 100 1 IN IP4 198.51.100.1\r\ns=-\r\nc=IN IP4 198.51.100.1\r\nt=0 0\r\n";

const ASTERISK: &str = "v=0\r\no=- 1234567 1234567 IN IP4 192.0.2.10\r\ns=Asterisk\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
m=audio 14500 RTP/AVP 0 8 9 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:9 G722/8000\r\n\
a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=maxptime:140\r\na=sendrecv\r\n";

const FREESWITCH: &str = "v=0\r\no=FreeSWITCH 1700000000 1700000001 IN IP4 192.0.2.11\r\ns=FreeSWITCH\r\n\
c=IN IP4 192.0.2.11\r\nt=0 0\r\nm=audio 25000 RTP/AVP 102 9 0 8 103 104 13\r\na=rtpmap:102 opus/48000/2\r\n\
a=fmtp:102 useinbandfec=1; maxaveragebitrate=30000\r\na=rtpmap:9 G722/8000\r\na=rtpmap:0 PCMU/8000\r\n\
a=rtpmap:8 PCMA/8000\r\na=rtpmap:103 telephone-event/48000\r\na=fmtp:103 0-15\r\n\
a=rtpmap:104 telephone-event/8000\r\na=fmtp:104 0-15\r\na=rtpmap:13 CN/8000\r\na=ptime:20\r\n";

const CUBE: &str = "v=0\r\no=CiscoSystemsSIP-GW-UserAgent Release 12 90210 123456789012345678901 IN IP4 192.0.2.12\r\n\
s=SIP Call\r\nc=IN IP4 192.0.2.12\r\nt=0 0\r\nm=audio 16500 RTP/AVP 18 8 0 100 19\r\nc=IN IP4 192.0.2.13\r\n\
a=rtpmap:18 G729/8000\r\na=fmtp:18 annexb=no\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\n\
a=rtpmap:100 telephone-event/8000\r\na=fmtp:100 0-16\r\na=rtpmap:19 CN/8000\r\na=ptime:30\r\n\
m=image 0 udptl t38\r\n";

const TEAMS: &str = "v=0\r\no=- 12345 0 IN IP4 127.0.0.1\r\ns=session\r\nc=IN IP4 192.0.2.14\r\nb=CT:10000000\r\nt=0 0\r\n\
m=audio 50004 RTP/SAVP 104 9 103 111 18 0 8 97 101 13 118\r\na=rtcp:50005\r\na=ice-ufrag:abcd\r\n\
a=ice-pwd:0123456789012345678901\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkw|2^31\r\n\
a=rtpmap:104 SILK/16000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=ptime:20\r\n";

const TWILIO: &str = "v=0\r\no=root 1889955172 1889955172 IN IP4 192.0.2.15\r\ns=Twilio Media Gateway\r\n\
c=IN IP4 192.0.2.15\r\nt=0 0\r\nm=audio 17890 RTP/AVP 0 8 101\r\na=maxptime:150\r\na=rtpmap:0 PCMU/8000\r\n\
a=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=sendrecv\r\na=rtcp-mux\r\n";

#[test]
fn golden_answer_to_asterisk() {
    let (body, media) = answer_to(ASTERISK);
    assert_eq!(
        body,
        format!(
            "{HEAD}m=audio 40000 RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n\
             a=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n"
        )
    );
    assert_eq!(
        media,
        LegMedia {
            codec: Codec::Pcmu,
            send_payload_type: 0,
            receive_payload_type: 0,
            also_receives: Vec::new(),
            telephone_event: Some(TelephoneEvent {
                send_payload_type: 101,
                receive_payload_type: 101,
                clock_rate: 8000
            }),
            comfort_noise: false,
            packet_time_ms: 20,
            remote_rtp: "192.0.2.10:14500".parse().unwrap(),
            remote_rtcp: Some("192.0.2.10:14501".parse().unwrap()),
            direction: Direction::SendRecv,
            security: MediaSecurity::None,
        }
    );
}

/// Of two event clocks the one of the codec is taken.
#[test]
fn golden_answer_to_freeswitch() {
    let (body, media) = answer_to(FREESWITCH);
    assert_eq!(
        body,
        format!(
            "{HEAD}m=audio 40000 RTP/AVP 0 104\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:104 telephone-event/8000\r\n\
             a=fmtp:104 0-15\r\na=ptime:20\r\na=sendrecv\r\n"
        )
    );
    assert_eq!(media.telephone_event.map(|e| (e.send_payload_type, e.clock_rate)), Some((104, 8000)));
}

/// RFC 3264 6: the refused image line stays, the media address counts before the session's.
#[test]
fn golden_answer_to_cisco_cube() {
    let (body, media) = answer_to(CUBE);
    assert_eq!(
        body,
        format!(
            "{HEAD}m=audio 40000 RTP/AVP 8 100\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:100 telephone-event/8000\r\n\
             a=fmtp:100 0-15\r\na=ptime:30\r\na=sendrecv\r\nm=image 0 udptl t38\r\n"
        )
    );
    assert_eq!(media.packet_time_ms, 30);
    assert_eq!(media.remote_rtp, "192.0.2.13:16500".parse().unwrap());
    let repairs = session().receive_offer(CUBE.as_bytes(), &policy()).unwrap().repairs;
    assert_eq!(repairs.iter().collect::<Vec<_>>(), [Repair::SdpOriginFields, Repair::SdpOriginNumber]);
}

/// RFC 4568 7.1.2: SAVP is refused, never answered as AVP.
#[test]
fn teams_with_srtp_is_refused() {
    let error = refusal_of(TEAMS);
    assert_eq!(error, NegotiationError::SecureMedia);
    assert_eq!((error.status(), error.warning().unwrap().0), (488, 302));
    let (_, media) = answer_to(&TEAMS.replace("RTP/SAVP", "RTP/AVP"));
    assert_eq!(media.remote_rtcp, Some("192.0.2.14:50005".parse().unwrap()));
    // Both offered, best effort: the plain line is taken in its place.
    let both = format!("{TEAMS}m=audio 50006 RTP/AVP 8\r\n");
    let (body, media) = answer_to(&both);
    assert!(body.contains("m=audio 0 RTP/SAVP 104\r\nm=audio 40000 RTP/AVP 8\r\n"), "{body}");
    assert_eq!(media.remote_rtp.port(), 50006);
}

/// RFC 8035: `rtcp-mux` in the answer only where it was offered.
#[test]
fn golden_answer_to_twilio() {
    let (body, media) = answer_to(TWILIO);
    assert_eq!(
        body,
        format!(
            "{HEAD}m=audio 40000 RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n\
             a=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\na=rtcp-mux\r\n"
        )
    );
    assert_eq!(media.remote_rtcp, None);
}

#[test]
fn golden_offer() {
    let mut session = session();
    let body = session.make_offer(local(), &policy(), Direction::SendRecv).unwrap();
    assert_eq!(
        String::from_utf8(body).unwrap(),
        format!(
            "{HEAD}m=audio 40000 RTP/AVP 8 0 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\n\
             a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n"
        )
    );
    let v6 =
        OfferAnswer::new(4).make_offer("[2001:db8::1]:4000".parse().unwrap(), &policy(), Direction::SendRecv);
    assert!(String::from_utf8(v6.unwrap()).unwrap().contains("c=IN IP6 2001:db8::1\r\n"));
}

/// RFC 3264 6.1: payload types belong to the side that receives.
#[test]
fn payload_types_differ_by_direction() {
    let mut session = session();
    session.make_offer(local(), &policy(), Direction::SendRecv).unwrap();
    let answer = offer(
        1,
        "m=audio 5000 RTP/AVP 97 96\r\na=rtpmap:97 pcmu/8000/1\r\na=rtpmap:96 TELEPHONE-EVENT/8000\r\n",
    );
    let media = session.accept_answer(answer.as_bytes(), &policy()).unwrap().media;
    assert_eq!((media.codec, media.send_payload_type, media.receive_payload_type), (Codec::Pcmu, 97, 0));
    let event = media.telephone_event.unwrap();
    assert_eq!((event.send_payload_type, event.receive_payload_type), (96, 101));
}

/// RFC 3264 8.3.2: a later offer of ours keeps the event number that the peer chose.
#[test]
fn payload_types_keep_their_meaning() {
    let mut session = session();
    session.receive_offer(CUBE.as_bytes(), &policy()).unwrap();
    session.make_answer(local(), &policy(), Direction::SendRecv).unwrap();
    let hold =
        String::from_utf8(session.make_offer(local(), &policy(), Direction::SendOnly).unwrap()).unwrap();
    assert!(hold.contains("m=audio 40000 RTP/AVP 8 0 100\r\n"), "{hold}");
    assert!(hold.contains("a=sendonly\r\nm=image 0 udptl t38\r\n"), "{hold}");
    assert!(hold.starts_with("v=0\r\no=- 100 2 IN"), "{hold}");
}

/// RFC 8866 5.2 knows no spaces in the user name; those who write some are read from the end of the line.
#[test]
fn a_user_name_of_many_words_hides_no_version() {
    let named = |version| plain(version).replace("o=- ", &format!("o={} ", ["word"; 20].join(" ")));
    let mut session = session();
    assert!(!session.receive_offer(named(1).as_bytes(), &policy()).unwrap().unchanged);
    session.make_answer(local(), &policy(), Direction::SendRecv).unwrap();
    assert!(session.receive_offer(named(1).as_bytes(), &policy()).unwrap().unchanged);
    session.make_answer(local(), &policy(), Direction::SendRecv).unwrap();
    assert!(!session.receive_offer(named(2).as_bytes(), &policy()).unwrap().unchanged);
}

/// RFC 3264 8: the version grows by one with a change and only then.
#[test]
fn versions_count_changes() {
    let mut session = session();
    let version = |body: &[u8]| {
        let text = String::from_utf8(body.to_vec()).unwrap();
        text.split_whitespace().nth(3).unwrap().to_owned()
    };
    assert!(!session.receive_offer(plain(1).as_bytes(), &policy()).unwrap().unchanged);
    let first = session.make_answer(local(), &policy(), Direction::SendRecv).unwrap();
    assert!(first.changed);
    // A session refresh: nothing changes.
    let refresh = session.receive_offer(plain(1).as_bytes(), &policy()).unwrap();
    assert!(refresh.unchanged && refresh.repairs.is_empty());
    let same = session.make_answer(local(), &policy(), Direction::SendRecv).unwrap();
    assert_eq!((same.body.clone(), same.media, same.changed), (first.body, first.media, false));
    assert_eq!(session.local_body(), Some(&same.body[..]));
    // A peer that moves its media under the old version is followed.
    let forgot = plain(1).replace("5000", "5004");
    let offer = session.receive_offer(forgot.as_bytes(), &policy()).unwrap();
    assert!(!offer.unchanged && offer.repairs.contains(Repair::SdpVersion));
    let answer = session.make_answer(local(), &policy(), Direction::SendRecv).unwrap();
    assert!(answer.changed && answer.media.remote_rtp.port() == 5004);
    let moved = plain(2).replace("5000", "5002");
    assert!(!session.receive_offer(moved.as_bytes(), &policy()).unwrap().unchanged);
    let moved = session.make_answer(local(), &policy(), Direction::SendRecv).unwrap();
    assert!(moved.changed);
    assert_eq!(version(&moved.body), "1");
    session.receive_offer(plain(3).as_bytes(), &policy()).unwrap();
    let held = session.make_answer(local(), &policy(), Direction::SendOnly).unwrap();
    assert_eq!((version(&held.body).as_str(), held.media.direction), ("2", Direction::SendOnly));
}

/// RFC 3264 6.1 and 8.4, every form of hold; then the resumption with the same c= line.
#[test]
fn hold_and_resume() {
    use Direction::{Inactive, RecvOnly, SendOnly, SendRecv};
    // The peer's lines, what we want, what comes of it.
    let cases = [
        ("a=sendrecv\r\n", "192.0.2.1", SendRecv, SendRecv),
        ("a=sendonly\r\n", "192.0.2.1", SendRecv, RecvOnly),
        ("a=SendOnly\r\n", "192.0.2.1", SendRecv, RecvOnly),
        ("a=recvonly\r\n", "192.0.2.1", SendRecv, SendOnly),
        ("a=inactive\r\n", "192.0.2.1", SendRecv, Inactive),
        ("", "0.0.0.0", SendRecv, RecvOnly),
        ("a=sendonly\r\n", "0.0.0.0", SendRecv, RecvOnly),
        ("a=inactive\r\n", "0.0.0.0", SendRecv, Inactive),
        ("a=recvonly\r\n", "0.0.0.0", SendRecv, Inactive),
        ("a=sendonly\r\n", "192.0.2.1", SendOnly, Inactive),
        ("a=sendrecv\r\n", "192.0.2.1", SendOnly, SendOnly),
        ("a=recvonly\r\n", "192.0.2.1", SendOnly, SendOnly),
    ];
    for (attribute, address, wanted, expected) in cases {
        let mut session = session();
        session.receive_offer(plain(1).as_bytes(), &policy()).unwrap();
        let before = session.make_answer(local(), &policy(), SendRecv).unwrap().media;
        let hold =
            format!("{}{attribute}", plain(2)).replace("c=IN IP4 192.0.2.1", &format!("c=IN IP4 {address}"));
        let summary = session.receive_offer(hold.as_bytes(), &policy()).unwrap();
        let answer = session.make_answer(local(), &policy(), wanted).unwrap();
        let case = format!("{attribute:?} {address} {wanted:?}");
        assert_eq!(answer.media.direction, expected, "{case}");
        if wanted == SendRecv {
            assert_eq!(summary.direction, expected, "{case}");
        }
        let line = format!("a={}\r\n", expected.as_str());
        assert!(String::from_utf8(answer.body).unwrap().contains(&line), "{case}");
        assert!(!answer.media.remote_rtp.ip().is_unspecified() || !answer.media.direction.sends(), "{case}");
        session.receive_offer(plain(3).as_bytes(), &policy()).unwrap();
        let resumed = session.make_answer(local(), &policy(), SendRecv).unwrap().media;
        assert_eq!(resumed, before, "{case}");
    }
}

/// Our hold, answered as it should be and as it should not.
#[test]
fn our_hold_is_ours() {
    for answered in ["recvonly", "sendrecv", "inactive"] {
        let mut session = session();
        session.make_offer(local(), &policy(), Direction::SendOnly).unwrap();
        let body = format!("{}a={answered}\r\n", plain(1));
        let media = session.accept_answer(body.as_bytes(), &policy()).unwrap().media;
        let expected = if answered == "inactive" { Direction::Inactive } else { Direction::SendOnly };
        assert_eq!(media.direction, expected, "{answered}");
    }
}

/// RFC 3264 6.1; a packet time that cannot be sent becomes one that can.
#[test]
fn packet_times_are_what_the_peer_wants() {
    let cases = [
        ("", 20),
        ("a=ptime:10\r\n", 10),
        ("a=ptime:30\r\n", 30),
        ("a=ptime:60\r\n", 60),
        ("a=ptime:5\r\n", 10),
        ("a=ptime:25\r\n", 20),
        ("a=ptime:200\r\n", 60),
        ("a=ptime:0\r\n", 20),
        ("a=ptime:x\r\n", 20),
        ("a=ptime:40\r\na=maxptime:30\r\n", 30),
        ("a=maxptime:10\r\n", 10),
        ("a=ptime: 30 \r\n", 30),
    ];
    for (lines, expected) in cases {
        let (body, media) = answer_to(&format!("{}{lines}", plain(1)));
        assert_eq!(media.packet_time_ms, expected, "{lines:?}");
        assert!(body.contains(&format!("a=ptime:{expected}\r\n")), "{lines:?}");
    }
}

#[test]
fn what_cannot_be_agreed_on_is_refused_by_name() {
    let line = |lines: &str| offer(1, lines);
    let cases = [
        (line("m=audio 5000 RTP/AVP 18 3\r\n"), NegotiationError::NoCommonCodec, 488, Some(305)),
        (
            line("m=audio 5000 RTP/AVP 96\r\na=rtpmap:96 PCMU/16000\r\n"),
            NegotiationError::NoCommonCodec,
            488,
            Some(305),
        ),
        (
            line("m=audio 5000 RTP/AVP 0\r\na=rtpmap:0 G729/8000\r\n"),
            NegotiationError::NoCommonCodec,
            488,
            Some(305),
        ),
        (
            line("m=audio 5000 RTP/AVP 101\r\na=rtpmap:101 telephone-event/8000\r\n"),
            NegotiationError::NoCommonCodec,
            488,
            Some(305),
        ),
        (line("m=audio 0 RTP/AVP 0\r\n"), NegotiationError::NoAudio, 488, Some(304)),
        (line("m=image 5000 udptl t38\r\n"), NegotiationError::NoAudio, 488, Some(304)),
        (line("m=video 5000 RTP/AVP 31\r\n"), NegotiationError::NoAudio, 488, Some(304)),
        (line(""), NegotiationError::NoAudio, 488, Some(304)),
        (line("m=audio 5000 RTP/SAVP 0\r\n"), NegotiationError::SecureMedia, 488, Some(302)),
        (line("m=audio 5000 UDP/TLS/RTP/SAVPF 0\r\n"), NegotiationError::SecureMedia, 488, Some(302)),
        (line("m=audio 5000 TCP/RTP/AVP 0\r\n"), NegotiationError::Transport, 488, Some(302)),
        (
            line("m=audio 5000 RTP/AVP 0\r\nc=IN IP4 host.example\r\n"),
            NegotiationError::Hostname,
            488,
            Some(301),
        ),
        (
            line("m=audio 5000 RTP/AVP 0\r\nc=IN IP4 169.254.169.254\r\n"),
            NegotiationError::AddressDenied,
            488,
            Some(399),
        ),
        (
            line("m=audio 5000 RTP/AVP 0\r\nc=IN IP6 ::ffff:169.254.169.254\r\n"),
            NegotiationError::AddressDenied,
            488,
            Some(399),
        ),
        (
            line("m=audio 5000 RTP/AVP 0\r\nc=IN IP4 224.2.1.1/127\r\n"),
            NegotiationError::AddressDenied,
            488,
            Some(399),
        ),
        (
            line("m=audio 5000 RTP/AVP 0\r\na=rtcp:53 IN IP4 255.255.255.255\r\n"),
            NegotiationError::AddressDenied,
            488,
            Some(399),
        ),
        (line("m=audio 65535 RTP/AVP 0\r\n"), NegotiationError::Port, 488, Some(399)),
        (
            line("m=audio 5000 RTP/AVP 0\r\n").replace("c=IN IP4 192.0.2.1\r\n", ""),
            NegotiationError::NoAddress,
            488,
            Some(399),
        ),
        (line("m=audio 65536 RTP/AVP 0\r\n"), NegotiationError::Sdp(SdpError::MediaLine), 400, None),
        (line("m=audio 5000\r\n"), NegotiationError::Sdp(SdpError::MediaLine), 400, None),
        (line("c=IN IP4\r\n"), NegotiationError::Sdp(SdpError::Connection), 400, None),
        ("v=1\r\n".into(), NegotiationError::Sdp(SdpError::Version), 400, None),
        (String::new(), NegotiationError::Sdp(SdpError::Empty), 400, None),
        (
            line(&"m=audio 0 RTP/AVP 0\r\n".repeat(17)),
            NegotiationError::Sdp(SdpError::TooManyMedia),
            400,
            None,
        ),
        (
            line(&format!("m=audio 5000 RTP/AVP{}\r\n", " 0".repeat(65))),
            NegotiationError::Sdp(SdpError::TooManyFormats),
            400,
            None,
        ),
        (line(&"a=x\r\n".repeat(14_000)), NegotiationError::Sdp(SdpError::TooLarge), 400, None),
    ];
    for (body, expected, status, warning) in cases {
        let error = refusal_of(&body);
        let short: String = body.chars().take(200).collect();
        assert_eq!(error, expected, "{short}");
        assert_eq!((error.status(), error.warning().map(|w| w.0)), (status, warning), "{short}");
    }
    let only_v4 =
        MediaPolicy { addresses: AddressPolicy { ipv6: false, ..AddressPolicy::default() }, ..policy() };
    let v6 = line("m=audio 5000 RTP/AVP 0\r\nc=IN IP6 2001:db8::1\r\n");
    assert_eq!(session().receive_offer(v6.as_bytes(), &only_v4), Err(NegotiationError::AddressFamily));
    let mut session = session();
    session.receive_offer(v6.as_bytes(), &policy()).unwrap();
    let error = session.make_answer(local(), &policy(), Direction::SendRecv);
    assert_eq!(error, Err(NegotiationError::AddressFamily));
    assert!(
        session.make_answer("[2001:db8::2]:4000".parse().unwrap(), &policy(), Direction::SendRecv).is_ok()
    );
}

/// RFC 3261 14.2: a refused re-INVITE leaves the session as it was, and later ones still work.
#[test]
fn a_refused_offer_changes_nothing() {
    let mut session = session();
    session.receive_offer(plain(1).as_bytes(), &policy()).unwrap();
    let before = session.make_answer(local(), &policy(), Direction::SendRecv).unwrap();
    let fax = offer(2, "m=image 5000 udptl t38\r\n");
    assert_eq!(session.receive_offer(fax.as_bytes(), &policy()), Err(NegotiationError::NoAudio));
    assert_eq!((session.media(), session.local_body()), (Some(&before.media), Some(&before.body[..])));
    session.receive_offer(plain(3).as_bytes(), &policy()).unwrap();
    session.reject_offer();
    assert_eq!((session.state(), session.media()), (State::Stable, Some(&before.media)));
    session.make_offer(local(), &policy(), Direction::SendOnly).unwrap();
    session.withdraw_offer();
    assert_eq!((session.media(), session.local_body()), (Some(&before.media), Some(&before.body[..])));
    session.receive_offer(plain(4).as_bytes(), &policy()).unwrap();
    assert!(session.make_answer(local(), &policy(), Direction::SendRecv).is_ok());
}

/// A carrier whose 200 differs from its 183.
#[test]
fn a_second_answer_moves_the_media() {
    let mut session = session();
    session.make_offer(local(), &policy(), Direction::SendRecv).unwrap();
    let bad = offer(1, "m=audio 5000 RTP/AVP 18\r\n");
    assert_eq!(session.accept_answer(bad.as_bytes(), &policy()), Err(NegotiationError::NoCommonCodec));
    assert_eq!(session.state(), State::LocalOffer);
    assert!(session.accept_answer(plain(1).as_bytes(), &policy()).unwrap().changed);
    assert!(!session.accept_answer(plain(1).as_bytes(), &policy()).unwrap().changed);
    let moved = session.accept_answer(plain(1).replace("5000", "5004").as_bytes(), &policy()).unwrap();
    assert!(moved.changed);
    assert_eq!(moved.media.remote_rtp.port(), 5004);
}

#[test]
fn answers_that_do_not_fit_are_refused() {
    let cases = [
        (offer(1, ""), NegotiationError::MediaLines),
        (offer(1, "m=video 5000 RTP/AVP 0\r\n"), NegotiationError::MediaLines),
        (offer(1, "m=audio 0 RTP/AVP 0\r\n"), NegotiationError::AudioRejected),
        (offer(1, "m=audio 0 RTP/AVP\r\n"), NegotiationError::AudioRejected),
        (offer(1, "m=audio 5000 RTP/SAVP 0\r\n"), NegotiationError::SecureMedia),
        (offer(1, "m=audio 5000 RTP/AVP 0\r\nc=IN IP6 2001:db8::1\r\n"), NegotiationError::AddressFamily),
    ];
    for (body, expected) in cases {
        let mut session = session();
        session.make_offer(local(), &policy(), Direction::SendRecv).unwrap();
        assert_eq!(session.accept_answer(body.as_bytes(), &policy()), Err(expected), "{body}");
        assert_eq!(session.state(), State::LocalOffer);
    }
}

/// RFC 3264 4, RFC 6337 2: one offer at a time.
#[test]
fn offers_do_not_overlap() {
    let wrong = NegotiationError::WrongState;
    let mut session = session();
    assert_eq!(session.accept_answer(plain(1).as_bytes(), &policy()), Err(wrong));
    assert_eq!(session.make_answer(local(), &policy(), Direction::SendRecv), Err(wrong));
    session.make_offer(local(), &policy(), Direction::SendRecv).unwrap();
    assert_eq!(session.receive_offer(plain(1).as_bytes(), &policy()), Err(wrong));
    assert_eq!(session.make_offer(local(), &policy(), Direction::SendRecv), Err(wrong));
    session.accept_answer(plain(1).as_bytes(), &policy()).unwrap();
    session.receive_offer(plain(2).as_bytes(), &policy()).unwrap();
    assert_eq!(session.make_offer(local(), &policy(), Direction::SendRecv), Err(wrong));
    assert_eq!(session.accept_answer(plain(2).as_bytes(), &policy()), Err(wrong));
    let empty = MediaPolicy::new(Vec::new(), 20);
    assert_eq!(
        OfferAnswer::new(1).make_offer(local(), &empty, Direction::SendRecv),
        Err(NegotiationError::NoCommonCodec)
    );
}

#[test]
fn faults_that_cost_nothing_are_mended_and_counted() {
    let good = plain(1);
    let cases = [
        (good.replace("\r\n", "\n"), vec![Repair::SdpBareLf]),
        (good.replace("s=-\r\n", "").replace("t=0 0\r\n", ""), vec![Repair::SdpMissingLine]),
        (good.replace("o=- 7 1 IN IP4 192.0.2.1\r\n", ""), vec![Repair::SdpMissingLine]),
        (format!("\u{feff}{good}"), vec![Repair::SdpIgnoredLine]),
        (good.replace("o=- 7 1", "o=Cisco CCM SIP 7 1"), vec![Repair::SdpOriginFields]),
        (good.replace("o=- 7 1", "o=7 1"), vec![Repair::SdpOriginFields]),
        (good.replace("o=- 7 1", "o=- 123456789012345678901 1"), vec![Repair::SdpOriginNumber]),
        (good.replace("o=- 7 1", "o=- 7 99999999999999999999"), vec![Repair::SdpOriginNumber]),
        (good.replace("t=0 0", "X-nonsense\r\nq=1\r\nt=0 0"), vec![Repair::SdpIgnoredLine]),
        (good.replace("t=0 0", "t=now"), vec![Repair::SdpMissingLine, Repair::SdpIgnoredLine]),
        (good.replace("t=0 0", "t=0 0\r\nb=AS\r\nk=\r\ni=\r\nr=?"), vec![]),
        (good.trim_end().to_owned(), vec![]),
        (good.replace("a=rtpmap:101 telephone-event/8000", "a=rtpmap:101   telephone-event/8000  "), vec![]),
        (good.replace("m=audio 5000 RTP/AVP", "m=audio  5000/2  RTP/AVP "), vec![]),
    ];
    for (body, expected) in cases {
        let mut session = session();
        let summary = session.receive_offer(body.as_bytes(), &policy()).unwrap();
        assert_eq!(summary.repairs.iter().collect::<Vec<_>>(), expected, "{body}");
        let media = session.make_answer(local(), &policy(), Direction::SendRecv).unwrap().media;
        assert_eq!(media, answer_to(&good).1, "{body}");
        let strict = MediaPolicy { tolerant: false, ..policy() };
        let strictly = OfferAnswer::new(1).receive_offer(body.as_bytes(), &strict);
        assert_eq!(strictly.is_ok(), expected.is_empty(), "{body}");
    }
    for other in [good.replace("v=0\r\n", ""), good.replace("v=0", "w=0"), good.replace("v=0", "v=1")] {
        let refused = session().receive_offer(other.as_bytes(), &policy());
        assert_eq!(refused.unwrap_err(), NegotiationError::Sdp(SdpError::Version), "{other}");
    }
    let latin = [good.as_bytes(), b"a=tool:J\xf6rg\r\n"].concat();
    let summary = session().receive_offer(&latin, &policy()).unwrap();
    assert_eq!(summary.repairs.iter().collect::<Vec<_>>(), [Repair::SdpNonUtf8]);
}

/// A version too long for 64 bits still tells a refresh from a change.
#[test]
fn long_versions_still_count() {
    let body = |version: &str| plain(1).replace("o=- 7 1", &format!("o=- 7 {version}"));
    let mut session = session();
    session.receive_offer(body("123456789012345678901").as_bytes(), &policy()).unwrap();
    session.make_answer(local(), &policy(), Direction::SendRecv).unwrap();
    assert!(session.receive_offer(body("123456789012345678901").as_bytes(), &policy()).unwrap().unchanged);
    session.reject_offer();
    assert!(!session.receive_offer(body("123456789012345678902").as_bytes(), &policy()).unwrap().unchanged);
}

/// Every typical body with every line left out, doubled or cut: no panic, and an answer that the
/// other side of the same code can read.
#[test]
fn mangled_bodies_are_survived() {
    for body in [ASTERISK, FREESWITCH, CUBE, TEAMS, TWILIO] {
        let lines: Vec<&str> = body.split_inclusive("\r\n").collect();
        for n in 0..lines.len() {
            let without = [&lines[..n], &lines[n + 1..]].concat().concat();
            let doubled = [&lines[..=n], &lines[n..]].concat().concat();
            let cut = format!("{}{}", lines[..n].concat(), &lines[n][..lines[n].len() / 2]);
            for mangled in [without, doubled, cut] {
                exchange(mangled.as_bytes());
            }
        }
    }
}

fn exchange(offer: &[u8]) {
    let mut ours = session();
    if ours.receive_offer(offer, &policy()).is_err() {
        return;
    }
    let Ok(answer) = ours.make_answer(local(), &policy(), Direction::SendRecv) else { return };
    let mut theirs = OfferAnswer::new(9);
    let strict = MediaPolicy { tolerant: false, ..policy() };
    let read = theirs.receive_offer(&answer.body, &strict);
    assert!(read.is_ok(), "{read:?} {}", String::from_utf8_lossy(&answer.body));
    assert!(!answer.media.remote_rtp.ip().is_unspecified() || !answer.media.direction.sends());
}

proptest! {
    #[test]
    fn rubbish_is_survived(body in prop::collection::vec(any::<u8>(), 0..300)) {
        exchange(&body);
        let mut session = session();
        session.make_offer(local(), &policy(), Direction::SendRecv).unwrap();
        let _ = session.accept_answer(&body, &policy());
    }

    #[test]
    fn changed_bytes_are_survived(which in 0usize..5, edits in prop::collection::vec((any::<u16>(), any::<u8>()), 1..6)) {
        let mut body = [ASTERISK, FREESWITCH, CUBE, TEAMS, TWILIO][which].as_bytes().to_vec();
        for (at, byte) in edits {
            let at = usize::from(at) % body.len();
            body[at] = byte;
        }
        exchange(&body);
    }

    /// Two of us agree, whatever each prefers.
    #[test]
    fn two_sides_see_one_session(
        a_first in any::<bool>(), b_both in any::<bool>(), events in any::<(bool, bool)>(),
        times in (1u16..7, 1u16..7), hold in any::<(bool, bool)>(),
    ) {
        let codecs = if a_first { vec![Codec::Pcma, Codec::Pcmu] } else { vec![Codec::Pcmu] };
        let a_policy = MediaPolicy { telephone_event: events.0, ..MediaPolicy::new(codecs, times.0 * 10) };
        let codecs = if b_both { vec![Codec::Pcmu, Codec::Pcma] } else { vec![Codec::Pcmu] };
        let b_policy = MediaPolicy { telephone_event: events.1, ..MediaPolicy::new(codecs, times.1 * 10) };
        let want = |hold| if hold { Direction::SendOnly } else { Direction::SendRecv };
        let (a_address, b_address) = (local(), "203.0.113.9:6000".parse().unwrap());
        let (mut a, mut b) = (OfferAnswer::new(1 << 40), OfferAnswer::new(u64::MAX));
        let offer = a.make_offer(a_address, &a_policy, want(hold.0)).unwrap();
        b.receive_offer(&offer, &b_policy).unwrap();
        let answer = b.make_answer(b_address, &b_policy, want(hold.1)).unwrap();
        let a_media = a.accept_answer(&answer.body, &a_policy).unwrap().media;
        let b_media = answer.media;
        prop_assert_eq!(a_media.codec, b_media.codec);
        prop_assert_eq!(a_media.send_payload_type, b_media.receive_payload_type);
        prop_assert_eq!(a_media.receive_payload_type, b_media.send_payload_type);
        prop_assert_eq!(a_media.direction, b_media.direction.reversed());
        prop_assert_eq!(a_media.remote_rtp, b_address);
        prop_assert_eq!(b_media.remote_rtp, a_address);
        prop_assert_eq!(a_media.telephone_event.is_some(), events.0 && events.1);
        prop_assert_eq!(b_media.telephone_event.is_some(), events.0 && events.1);
        prop_assert_eq!(a_media.packet_time_ms, b_media.packet_time_ms);
    }
}
