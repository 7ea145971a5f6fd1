//! Rows C20, C22 to C27, F1, F3, F13: what stands in session descriptions.

use call_model::{Codec, Direction, LegMedia, SrtpSuite};
use sip_trunk::sdp::Srtp;
use sip_trunk::{Command, Event};

use crate::dialogs::{assert_clean, body, media_of, release};
use crate::net::{A_RTP, address, ended, media};
use crate::raw::{Ask, CONTACT, Lab, SDP, header, reply, sdp, status};

/// Calls the gateway with a description; its answer and the media.
fn offer(description: &str) -> (String, LegMedia) {
    let mut lab = Lab::new();
    let call = lab.call_in(&Ask::invite().body(description).text());
    lab.inbox(1);
    lab.command(0, Command::Answer { call, media: media(A_RTP) });
    lab.run_ms(20);
    let ok = lab.inbox(1).pop().unwrap();
    lab.tell(&Ask::within(&ok, "ACK", 1).text());
    let agreed = media_of(&lab.take(0)).remove(0);
    release(&mut lab, call);
    assert_clean(&mut lab);
    (body(&ok).to_owned(), agreed)
}

/// The gateway calls and gets a description as the answer; its offer and the media.
fn answer(description: &str) -> (String, LegMedia) {
    let mut lab = Lab::new();
    let (call, invite) = lab.call_out();
    lab.tell(&reply(&invite, 200, "peer", CONTACT, description));
    let agreed = media_of(&lab.take(0)).remove(0);
    release(&mut lab, call);
    assert_clean(&mut lab);
    (body(&invite).to_owned(), agreed)
}

const HEAD: &str = "v=0\r\no=- 1 1 IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\n";

/// The m-lines of a description.
fn m_lines(description: &str) -> Vec<&str> {
    description.lines().filter(|line| line.starts_with("m=")).collect()
}

// RFC 3264 6, 8: every line is answered in its place, what is not spoken with port 0.
#[test]
fn c20_every_m_line_is_answered_in_its_place() {
    let audio = "m=audio 30000 RTP/AVP 8";
    let others = [
        ("m=video 30002 RTP/AVP 96", "m=video 0 RTP/AVP 96"),
        ("m=image 30004 udptl t38", "m=image 0 udptl t38"),
        ("m=message 30006 TCP/MSRP *", "m=message 0 TCP/MSRP *"),
        ("m=audio 30008 RTP/AVP 8", "m=audio 0 RTP/AVP 8"),
        ("m=application 30010 UDP/BFCP *", "m=application 0 UDP/BFCP *"),
        ("m=audio 30012 RTP/AVP 18", "m=audio 0 RTP/AVP 18"),
        ("m=video 0 RTP/AVP 97", "m=video 0 RTP/AVP 97"),
    ];
    for (other, refused) in others {
        for (before, after) in [(vec![], vec![other]), (vec![other], vec![]), (vec![other], vec![other])] {
            // The first audio line that can be spoken is.
            if before.contains(&"m=audio 30008 RTP/AVP 8") {
                continue;
            }
            let lines: Vec<&str> = before.iter().chain([&audio]).chain(&after).copied().collect();
            let (ours, agreed) = offer(&format!("{HEAD}{}\r\n", lines.join("\r\n")));
            let expected: Vec<&str> = lines
                .iter()
                .map(|line| if *line == audio { "m=audio 20000 RTP/AVP 8" } else { refused })
                .collect();
            assert_eq!(m_lines(&ours), expected);
            assert_eq!(agreed.remote_rtp, address("10.0.0.2:30000"));
        }
    }
}

// RFC 3264 8: the lines of the session stay in our own offers, and in theirs to come.
#[test]
fn c20_a_later_offer_of_ours_keeps_the_lines_and_a_bundle_is_not_joined() {
    let bundled = format!(
        "{HEAD}a=group:BUNDLE v 0\r\nm=video 30002 RTP/AVP 96\r\na=mid:v\r\nm=audio 30000 RTP/AVP 8\r\na=mid:0\r\n\
         m=image 30004 udptl t38\r\na=bundle-only\r\n"
    );
    let mut lab = Lab::new();
    let call = lab.call_in(&Ask::invite().body(&bundled).text());
    lab.command(0, Command::Answer { call, media: media(A_RTP) });
    lab.run_ms(20);
    let ok = lab.inbox(1).pop().unwrap();
    lab.tell(&Ask::within(&ok, "ACK", 1).text());
    // RFC 8843 7.3: without a=group the audio has its own port.
    assert!(!body(&ok).contains("a=group"), "{ok}");
    let expected = ["m=video 0 RTP/AVP 96", "m=audio 20000 RTP/AVP 8", "m=image 0 udptl t38"];
    assert_eq!(m_lines(body(&ok)), expected);
    lab.take(0);
    lab.command(0, Command::Hold { call, on: true });
    lab.run_ms(20);
    let hold = lab.inbox(1).pop().unwrap();
    let ours = m_lines(body(&hold));
    assert_eq!((ours.len(), ours[0], ours[2]), (3, expected[0], expected[2]));
    assert!(ours[1].starts_with("m=audio 20000 RTP/AVP 8 "), "{hold}");
    // The answer has to have them too.
    let short = sdp(2, "recvonly");
    let held = short.replace("m=audio", "m=video 0 RTP/AVP 96\r\nm=audio") + "m=image 0 udptl t38\r\n";
    lab.tell(&reply(&hold, 200, "", CONTACT, &held));
    assert_eq!(media_of(&lab.take(0))[0].direction, Direction::SendOnly);
    release(&mut lab, call);
    assert_clean(&mut lab);
}

// RFC 3264 6.1: the first format that both speak is sent, whatever was agreed on may come.
#[test]
fn c22_one_codec_is_sent_and_all_that_were_answered_are_received() {
    let formats = |list: &str| SDP.replace("8 101", list);
    // The answer, what is sent, what else may come.
    for (list, codec, others) in [
        ("8 101", Codec::Pcma, vec![]),
        ("0 101", Codec::Pcmu, vec![]),
        ("8 0 101", Codec::Pcma, vec![(0, Codec::Pcmu)]),
        ("0 8 101", Codec::Pcmu, vec![(8, Codec::Pcma)]),
        ("18 0 101 8", Codec::Pcmu, vec![(8, Codec::Pcma)]),
    ] {
        let (_, agreed) = answer(&formats(list));
        assert_eq!((agreed.codec, &agreed.also_receives), (codec, &others), "{list}");
        assert_eq!(agreed.send_payload_type, agreed.receive_payload_type);
    }
    // Our answer names one, the first of the offer that is spoken here, so nothing else may come.
    for (list, line, codec) in [
        ("18 0 8 101", "m=audio 20000 RTP/AVP 0 101", Codec::Pcmu),
        ("9 8 0 101", "m=audio 20000 RTP/AVP 8 101", Codec::Pcma),
    ] {
        let (ours, agreed) = offer(&formats(list));
        assert_eq!(m_lines(&ours), [line]);
        assert_eq!((agreed.codec, agreed.also_receives.len()), (codec, 0));
    }
}

// RFC 3264 6.1: each side is sent what it calls the codec.
#[test]
fn c23_payload_types_are_those_of_the_receiver() {
    let dynamic = SDP
        .replace("8 101", "97 96")
        .replace("rtpmap:8 PCMA/8000", "rtpmap:97 PCMU/8000")
        .replace("rtpmap:101", "rtpmap:96");
    let (_, agreed) = answer(&dynamic);
    assert_eq!((agreed.codec, agreed.send_payload_type, agreed.receive_payload_type), (Codec::Pcmu, 97, 0));
    let event = agreed.telephone_event.unwrap();
    assert_eq!((event.send_payload_type, event.receive_payload_type), (96, 101));
    // Their numbers crossed with ours: 101 is their codec, and our events.
    let crossed = dynamic.replace("97", "101");
    let (_, agreed) = answer(&crossed);
    assert_eq!((agreed.send_payload_type, agreed.receive_payload_type), (101, 0));
    let event = agreed.telephone_event.unwrap();
    assert_eq!((event.send_payload_type, event.receive_payload_type), (96, 101));
    // An answer of ours takes over the numbers of the offer, both ways.
    let (ours, agreed) = offer(&dynamic);
    assert_eq!(m_lines(&ours), ["m=audio 20000 RTP/AVP 97 96"]);
    assert_eq!((agreed.send_payload_type, agreed.receive_payload_type), (97, 97));
}

// RFC 3605, RFC 5761 5.1.1, RFC 8035: RTCP on one port with RTP only where that was offered.
#[test]
fn c24_rtcp_goes_where_it_was_agreed_to() {
    let with = |lines: &str| format!("{SDP}{lines}");
    for (lines, rtcp, mux) in [
        ("", Some("10.0.0.2:30001"), false),
        ("a=rtcp:30100\r\n", Some("10.0.0.2:30100"), false),
        ("a=rtcp:30100 IN IP4 10.0.0.3\r\n", Some("10.0.0.3:30100"), false),
        ("a=rtcp-mux\r\n", None, true),
        // RFC 8035: the port of `a=rtcp` is for those who do not multiplex.
        ("a=rtcp:30001\r\na=rtcp-mux\r\n", None, true),
    ] {
        let (ours, agreed) = offer(&with(lines));
        assert_eq!(agreed.remote_rtcp, rtcp.map(address), "{lines}");
        assert_eq!(ours.contains("a=rtcp-mux"), mux, "{lines}");
    }
    // Ours does not offer it, so an answer cannot agree to it.
    let (ours, agreed) = answer(&with("a=rtcp-mux\r\n"));
    assert!(!ours.contains("a=rtcp"));
    assert_eq!(agreed.remote_rtcp, Some(address("10.0.0.2:30001")));
    let (_, agreed) = answer(&with("a=rtcp:30100\r\n"));
    assert_eq!(agreed.remote_rtcp, Some(address("10.0.0.2:30100")));
}

/// As Teams writes its offers: candidates, codecs nobody has, keys.
fn teams() -> String {
    let mut long =
        format!("{HEAD}b=CT:10000000\r\nm=audio 30000 RTP/AVP 104 9 103 111 18 0 8 97 101 13 118\r\n");
    long += "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=rtcp:30001\r\n";
    for n in 1..14 {
        let candidate =
            format!("a=candidate:{n} 1 UDP 2130706431 10.0.0.{n} 30000 typ srflx raddr 10.1.0.{n} rport");
        long += &format!("{candidate} 40000 tcptype passive x-mstrtt 12 generation 0 network-id {n}\r\n");
    }
    for codec in ["104 SILK/16000", "9 G722/8000", "103 SILK/8000", "111 SIREN/16000", "18 G729/8000"] {
        long += &format!("a=rtpmap:{codec}\r\na=fmtp:{} bitrate=16000;useinbandfec=1\r\n", &codec[..2]);
    }
    long + "a=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=ptime:20\r\na=sendrecv\r\n"
}

// RFC 3261 18.1.1: what we write of a session stays far below a datagram, whatever came from the other
// side; a request that is too large all the same goes by TCP (row A14).
#[test]
fn c25_long_descriptions_are_not_passed_on() {
    let long = teams();
    assert!(long.len() > 1500, "{}", long.len());
    let (ours, _) = offer(&long);
    assert!(ours.len() < 300, "{} {ours}", ours.len());
    assert!(!ours.contains("candidate") && !ours.contains("ice") && !ours.contains("SILK"), "{ours}");
    // The most we ever offer: both codecs, events, three keys, a timer.
    let mut lab = Lab::with(|config| {
        let trunk = &mut config.trunks[0];
        trunk.srtp = Srtp::Preferred;
        trunk.srtp_suites = SrtpSuite::ALL[..3].to_vec();
        trunk.session_expires = Some(1800);
        trunk.p_early_media = true;
    });
    let (_, invite) = lab.call_out();
    assert!(body(&invite).len() < 600, "{invite}");
    assert!(invite.len() < 1300 && header(&invite, "Via").contains("/UDP"), "{} {invite}", invite.len());
    let mut lab = Lab::with(|config| {
        config.trunks[0].srtp = Srtp::Preferred;
        config.trunks[0].srtp_suites = SrtpSuite::ALL.to_vec();
        config.trunks[0].largest_datagram = 900;
    });
    let call = crate::net::call_id(77);
    lab.command(
        0,
        Command::Invite {
            call,
            trunk: crate::net::trunk_name("far"),
            called: crate::net::number("+442079460018"),
            caller: crate::net::caller("+12025550100"),
            media: media(A_RTP),
        },
    );
    lab.run_ms(20);
    let invite = lab.log.iter().find(|(_, _, _, text)| text.starts_with("INVITE ")).unwrap().3.clone();
    assert!(invite.len() > 900 && header(&invite, "Via").contains("/TCP"), "{invite}");
}

fn early(lab: &mut Lab) -> Vec<Direction> {
    let events = lab.take(0);
    assert!(events.iter().all(|e| !matches!(e, Event::Media { early: false, .. })));
    media_of(&events).iter().map(|media| media.direction).collect()
}

// RFC 5009 8: what the network has not let through is not heard, until it is.
#[test]
fn c26_early_media_is_let_through_as_the_network_says() {
    let mut lab = Lab::with(|config| config.trunks[0].p_early_media = true);
    let (call, invite) = lab.call_out();
    assert_eq!(header(&invite, "P-Early-Media"), "supported");
    let with = |value: &str| format!("{CONTACT}P-Early-Media: {value}\r\n");
    lab.tell(&reply(&invite, 183, "peer", &with("inactive"), SDP));
    assert_eq!(early(&mut lab), [Direction::Inactive]);
    // Without a word of it, all stays as it is.
    lab.tell(&reply(&invite, 183, "peer", CONTACT, SDP));
    lab.tell(&reply(&invite, 180, "peer", &with("gated, unknown"), ""));
    assert_eq!(early(&mut lab), []);
    // From the far side to us, as it sees it; then both ways; then no more.
    lab.tell(&reply(&invite, 180, "peer", &with("SendOnly"), ""));
    assert_eq!(early(&mut lab), [Direction::RecvOnly]);
    lab.tell(&reply(&invite, 180, "peer", &with("sendrecv, inactive"), ""));
    assert_eq!(early(&mut lab), [Direction::SendRecv]);
    lab.tell(&reply(&invite, 183, "peer", &with("recvonly"), SDP));
    assert_eq!(early(&mut lab), [Direction::SendOnly]);
    lab.tell(&reply(&invite, 183, "peer", &with("inactive"), SDP));
    assert_eq!(early(&mut lab), [Direction::Inactive]);
    // It is early media that is gated.
    lab.tell(&reply(&invite, 200, "peer", CONTACT, SDP));
    let events = lab.take(0);
    assert_eq!(media_of(&events)[0].direction, Direction::SendRecv);
    assert!(events.contains(&Event::Answered { call }));
    release(&mut lab, call);
    assert_clean(&mut lab);
}

// One early dialog is gated, another is not; a trunk that does not ask is not listened to.
#[test]
fn c26_each_early_dialog_is_gated_by_itself_and_only_where_the_trunk_is_asked() {
    let inactive = format!("{CONTACT}P-Early-Media: inactive\r\n");
    let mut lab = Lab::with(|config| config.trunks[0].p_early_media = true);
    let (_, invite) = lab.call_out();
    lab.tell(&reply(&invite, 183, "one", &inactive, SDP));
    lab.tell(&reply(&invite, 183, "two", CONTACT, &SDP.replace("30000", "31000")));
    assert_eq!(early(&mut lab), [Direction::Inactive, Direction::SendRecv]);
    let mut lab = Lab::new();
    let (_, invite) = lab.call_out();
    assert!(!invite.contains("P-Early-Media"));
    lab.tell(&reply(&invite, 183, "one", &inactive, SDP));
    assert_eq!(early(&mut lab), [Direction::SendRecv]);
}

// RFC 5888 6, 9: the identification of a line comes back with it, groups are not joined; what is not
// known is passed over.
#[test]
fn c27_mid_comes_back_and_unknown_attributes_do_no_harm() {
    let grouped = format!(
        "{HEAD}a=group:LS a1 v1\r\na=odd\r\na=msid-semantic: WMS *\r\na=sendrecv:x\r\nm=audio 30000 RTP/AVP 8 101\r\n\
         a=mid:a1\r\na=X-odd:1 2 3\r\na=label:9\r\na=rtcp-fb:* nack\r\na=rtpmap:101 telephone-event/8000\r\n\
         a=extmap:1 urn:odd\r\nm=video 30002 RTP/AVP 96\r\na=mid:v1\r\n"
    );
    let (ours, agreed) = offer(&grouped);
    assert!(!ours.contains("a=group") && !ours.contains("odd") && !ours.contains("label"), "{ours}");
    let (audio, video) = ours.split_once("m=video").unwrap();
    assert!(audio.contains("a=mid:a1\r\n") && video.contains("a=mid:v1\r\n"), "{ours}");
    assert_eq!(agreed.direction, Direction::SendRecv);
    // None where there was none, nor one that is no token.
    let (ours, _) = offer(&format!("{SDP}a=mid:a b\r\n"));
    assert!(!ours.contains("a=mid"), "{ours}");
    let (ours, agreed) = answer(&grouped);
    assert!(!ours.contains("a=mid"));
    assert_eq!(agreed.direction, Direction::SendRecv);
}

// RFC 3551 6: static numbers need no rtpmap; where there is one, it counts.
#[test]
fn f01_static_payload_types_are_taken_with_and_without_rtpmap() {
    for (number, name, codec) in [(0, "PCMU", Codec::Pcmu), (8, "PCMA", Codec::Pcma)] {
        let with = format!("{HEAD}m=audio 30000 RTP/AVP {number}\r\na=rtpmap:{number} {name}/8000\r\n");
        let without = format!("{HEAD}m=audio 30000 RTP/AVP {number}\r\n");
        let channels = with.replace("/8000", "/8000/1").replace(name, &name.to_lowercase());
        for description in [with, without, channels] {
            let (ours, agreed) = offer(&description);
            assert_eq!((agreed.codec, agreed.send_payload_type), (codec, number), "{description}");
            // We write it always: there are those who want it.
            assert!(ours.contains(&format!("a=rtpmap:{number} {name}/8000\r\n")), "{ours}");
            assert_eq!(answer(&description).1.codec, codec, "{description}");
        }
    }
    let mut lab = Lab::new();
    let other = format!("{HEAD}m=audio 30000 RTP/AVP 0\r\na=rtpmap:0 G729/8000\r\n");
    assert_eq!(status(&lab.tell(&Ask::invite().body(&other).text())[0]), 488);
}

// RFC 3261 21.4.1, RFC 8866 5: a body that only calls itself a description is refused before anybody hears
// of the call.
#[test]
fn a_body_that_is_no_description_is_400_and_rings_nobody() {
    let good = sdp(1, "sendrecv");
    let picture = "GIF89a\u{1}\u{0}\u{1}\u{0}".to_owned();
    let letter = "Dear sir,\r\n\r\nplease call me back.\r\n".to_owned();
    let others = [good.replace("v=0\r\n", ""), good.replace("v=0", "w=0"), good.replace("v=0", "v=2")];
    for body in [picture, letter].into_iter().chain(others) {
        let mut lab = Lab::new();
        let got = lab.tell(&Ask::invite().body(&body).text());
        assert_eq!(got.iter().map(|m| status(m)).collect::<Vec<_>>(), [400], "{body}");
        assert!(lab.take(0).is_empty(), "{body}");
    }
    // RFC 3261 14.2: in a call that is up, nothing changes.
    let mut lab = Lab::new();
    let (call, ok) = lab.call_in_answered();
    let got = lab.tell(&Ask::within(&ok, "INVITE", 2).body("m=audio 30050 RTP/AVP 8\r\n").text());
    assert_eq!(status(&got[0]), 400);
    let mut ack = Ask::within(&ok, "ACK", 2);
    ack.via = Ask::within(&ok, "INVITE", 2).via;
    lab.tell(&ack.text());
    assert!(lab.take(0).is_empty());
    release(&mut lab, call);
    assert_clean(&mut lab);
}

// RFC 3551 4.2, RFC 3264 6.1: `ptime` is a wish. Whatever the peer makes of ours is accepted, and its own
// is kept to as far as packets of 10 to 60 ms go.
#[test]
fn f03_an_answer_with_another_packet_time_is_accepted() {
    for (lines, sent) in [
        ("", 20),
        ("a=ptime:20\r\n", 20),
        ("a=ptime:30\r\n", 30),
        ("a=ptime:60\r\na=maxptime:60\r\n", 60),
        ("a=ptime:120\r\n", 60),
        ("a=maxptime:10\r\n", 10),
        ("a=ptime:x\r\n", 20),
    ] {
        let (ours, agreed) = answer(&format!("{SDP}{lines}"));
        assert!(ours.contains("a=ptime:20\r\n"), "{ours}");
        assert_eq!(agreed.packet_time_ms, sent, "{lines}");
    }
}

// A fax machine at the far side: the image line alone is refused, the call goes on, and so do offers.
#[test]
fn f13_a_t38_reinvite_is_488_and_the_call_goes_on() {
    let t38 = "m=image 30004 udptl t38\r\na=T38FaxVersion:0\r\na=T38MaxBitRate:14400\r\n\
        a=T38FaxRateManagement:transferredTCF\r\na=T38FaxUdpEC:t38UDPRedundancy\r\n";
    let mut lab = Lab::new();
    let (call, ok) = lab.call_in_answered();
    let head = HEAD.replace("1 1 IN", "1 2 IN");
    let alone = format!("{head}{t38}");
    let silent = format!("{head}m=audio 0 RTP/AVP 8\r\n{t38}");
    let tcp = format!("{head}m=image 30004 TCPTL t38\r\n");
    for (n, fax) in [alone, silent, tcp].into_iter().enumerate() {
        let cseq = 2 + 2 * n as u32;
        let got = lab.tell(&Ask::within(&ok, "INVITE", cseq).body(&fax).text());
        let refusal = got.iter().find(|m| m.starts_with("SIP/2.0 ")).unwrap();
        assert_eq!(status(refusal), 488, "{fax}");
        let mut ack = Ask::within(&ok, "ACK", cseq);
        ack.via = Ask::within(&ok, "INVITE", cseq).via;
        lab.tell(&ack.text());
        let events = lab.take(0);
        assert!(media_of(&events).is_empty() && ended(&events).is_empty(), "{events:?}");
        // G.711 again: as it was, so nothing changes.
        let got = lab.tell(&Ask::within(&ok, "INVITE", cseq + 1).body(SDP).text());
        assert_eq!((status(&got[0]), body(&got[0])), (200, body(&ok)));
        lab.tell(&Ask::within(&ok, "ACK", cseq + 1).text());
        assert!(lab.take(0).is_empty());
    }
    // Beside audio that goes on it is refused alone, and it may vanish again (RFC 3264 8.2).
    let both = sdp(5, "sendrecv") + t38;
    let got = lab.tell(&Ask::within(&ok, "INVITE", 20).body(&both).text());
    assert_eq!(m_lines(body(&got[0])), ["m=audio 20000 RTP/AVP 8 101", "m=image 0 udptl t38"]);
    lab.tell(&Ask::within(&ok, "ACK", 20).text());
    let moved = sdp(6, "sendrecv").replace("30000", "30050") + "m=image 0 udptl t38\r\n";
    let got = lab.tell(&Ask::within(&ok, "INVITE", 21).body(&moved).text());
    assert_eq!(status(&got[0]), 200);
    lab.tell(&Ask::within(&ok, "ACK", 21).text());
    assert_eq!(media_of(&lab.take(0))[0].remote_rtp.port(), 30050);
    release(&mut lab, call);
    assert_clean(&mut lab);
}
