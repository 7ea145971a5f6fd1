//! Rows C, D and B8: offers and answers, forks, hold, session timers, requests within a call.

use std::net::IpAddr;
use std::time::Duration;

use call_model::{CallId, Cause, Direction, LegMedia};
use sip_trunk::auth::{Credentials, Secret};
use sip_trunk::{Command, EndedBy, Event};

use crate::net::{A_RTP, address, ended, media};
use crate::raw::{Ask, CONTACT, Lab, SDP, header, headers, reply, sdp, status};

pub fn media_of(events: &[Event]) -> Vec<LegMedia> {
    let media = |e: &Event| match e {
        Event::Media { media, .. } => Some(media.clone()),
        _ => None,
    };
    events.iter().filter_map(media).collect()
}

pub fn body(text: &str) -> &str {
    text.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

pub fn release(lab: &mut Lab, call: CallId) {
    lab.command(0, Command::Release { call, cause: Cause::NORMAL_CALL_CLEARING });
    lab.run_ms(20);
}

/// The peer answers a BYE of the gateway, every timer runs out, nothing is left.
pub fn assert_clean(lab: &mut Lab) {
    lab.run_ms(20);
    for message in lab.inbox(1) {
        if message.starts_with("BYE ") {
            lab.tell(&reply(&message, 200, "", "", ""));
        }
    }
    lab.run(Duration::from_secs(300));
    lab.assert_empty(0);
}

// RFC 3261 13.2.1: no offer in the INVITE: ours in the 200, the answer in the ACK.
#[test]
fn c01_a_delayed_offer_is_answered_in_the_ack() {
    let mut lab = Lab::new();
    let call = lab.call_in(&Ask::new("INVITE").text());
    assert!(matches!(lab.take(0)[0], Event::Incoming { has_offer: false, .. }));
    lab.command(0, Command::Progress { call, media: media(A_RTP) });
    lab.run_ms(20);
    let progress = lab.inbox(1).pop().unwrap();
    assert_eq!((status(&progress), body(&progress)), (183, ""));
    lab.command(0, Command::Answer { call, media: media(A_RTP) });
    lab.run_ms(20);
    let ok = lab.inbox(1).pop().unwrap();
    assert!(body(&ok).contains("m=audio 20000 RTP/AVP 8 0"), "{ok}");
    assert!(media_of(&lab.take(0)).is_empty(), "nothing is agreed yet");
    lab.tell(&Ask::within(&ok, "ACK", 1).body(SDP).text());
    let agreed = media_of(&lab.take(0));
    assert_eq!(agreed.len(), 1);
    assert_eq!(agreed[0].remote_rtp, address("10.0.0.2:30000"));
    release(&mut lab, call);
    assert_clean(&mut lab);
}

#[test]
fn c01_a_delayed_offer_without_an_answer_ends_the_call() {
    let mut lab = Lab::new();
    let call = lab.call_in(&Ask::new("INVITE").text());
    lab.command(0, Command::Answer { call, media: media(A_RTP) });
    lab.run_ms(20);
    let ok = lab.inbox(1).pop().unwrap();
    let got = lab.tell(&Ask::within(&ok, "ACK", 1).text());
    assert!(got[0].starts_with("BYE "));
    assert_eq!(ended(&lab.take(0)), [(Cause::PROTOCOL_ERROR, None, EndedBy::Local)]);
}

// Against RFC 3261 13.2.1, but carriers do it: the 183 had the answer, the 200 has none.
#[test]
fn c03_a_183_with_sdp_then_a_200_without_keeps_the_answer() {
    let mut lab = Lab::new();
    let (call, invite) = lab.call_out();
    lab.tell(&reply(&invite, 183, "peer", CONTACT, SDP));
    assert_eq!(media_of(&lab.take(0)).len(), 1);
    // C4: a 180 afterwards restarts nothing.
    lab.tell(&reply(&invite, 180, "peer", CONTACT, ""));
    assert!(media_of(&lab.take(0)).is_empty());
    lab.tell(&reply(&invite, 200, "peer", CONTACT, ""));
    let events = lab.take(0);
    assert_eq!(media_of(&events)[0].remote_rtp, address("10.0.0.2:30000"));
    assert!(events.contains(&Event::Answered { call }));
    assert_eq!(lab.endpoint(0).counters().repaired["answer_in_provisional"], 1);
    release(&mut lab, call);
    assert_clean(&mut lab);
}

#[test]
fn c03_a_200_without_any_answer_ends_the_call() {
    let mut lab = Lab::new();
    let (_, invite) = lab.call_out();
    let got = lab.tell(&reply(&invite, 200, "peer", CONTACT, ""));
    assert!(got[0].starts_with("ACK ") && got[1].starts_with("BYE "), "{got:?}");
    assert!(!lab.endpoint(0).counters().repaired.contains_key("answer_in_provisional"));
    assert_eq!(ended(&lab.take(0)).len(), 1);
    lab.tell(&reply(&got[1], 200, "", "", ""));
    assert_clean(&mut lab);
}

#[test]
fn c05_a_180_rings_once() {
    let mut lab = Lab::new();
    let (call, invite) = lab.call_out();
    lab.tell(&reply(&invite, 180, "peer", CONTACT, ""));
    lab.tell(&reply(&invite, 180, "peer", CONTACT, ""));
    assert_eq!(lab.take(0), [Event::Trying { call }, Event::Ringing { call }]);
}

// RFC 3261 12.1: one early dialog per To tag; the 2xx decides.
#[test]
fn c07_early_dialogs_are_kept_apart_by_tag() {
    let mut lab = Lab::new();
    let (call, invite) = lab.call_out();
    let second = SDP.replace("30000", "31000");
    lab.tell(&reply(&invite, 183, "one", CONTACT, SDP));
    lab.tell(&reply(&invite, 183, "two", "Contact: <sip:two@10.0.0.2>\r\n", &second));
    let early: Vec<_> = media_of(&lab.take(0)).iter().map(|m| m.remote_rtp.port()).collect();
    assert_eq!(early, [30000, 31000]);
    lab.tell(&reply(&invite, 200, "one", CONTACT, ""));
    assert_eq!(media_of(&lab.take(0))[0].remote_rtp.port(), 30000);
    release(&mut lab, call);
    let bye = lab.inbox(1).pop().unwrap();
    assert!(header(&bye, "To").ends_with("tag=one"));
}

// The 183 was only a preview: a 200 that says something else is followed.
#[test]
fn c08_a_200_with_other_sdp_is_followed() {
    let mut lab = Lab::new();
    let (_, invite) = lab.call_out();
    lab.tell(&reply(&invite, 183, "peer", CONTACT, SDP));
    lab.take(0);
    lab.tell(&reply(
        &invite,
        200,
        "peer",
        CONTACT,
        &SDP.replace("30000", "32000").replace("1 1 IN", "1 2 IN"),
    ));
    assert_eq!(media_of(&lab.take(0))[0].remote_rtp.port(), 32000);
}

// RFC 3311 5.2: an UPDATE is answered as a re-INVITE.
#[test]
fn c13_update_with_an_offer_is_answered() {
    let mut lab = Lab::new();
    let (_, ok) = lab.call_in_answered();
    let got = lab.tell(&Ask::within(&ok, "UPDATE", 2).body(&sdp(2, "sendonly")).text());
    assert_eq!(status(&got[0]), 200);
    assert!(body(&got[0]).contains("a=recvonly"), "{}", got[0]);
    assert_eq!(media_of(&lab.take(0))[0].direction, Direction::RecvOnly);
    let got = lab.tell(&Ask::within(&ok, "UPDATE", 3).text());
    assert_eq!((status(&got[0]), body(&got[0])), (200, ""));
}

// RFC 3261 14.1, 14.2: glare.
#[test]
fn c15_a_reinvite_that_crosses_ours_is_491_and_ours_is_tried_again() {
    let mut lab = Lab::new();
    let (call, invite) = lab.call_out_answered();
    lab.take(0);
    lab.command(0, Command::Hold { call, on: true });
    lab.run_ms(20);
    let ours = lab.inbox(1).remove(0);
    assert!(ours.starts_with("INVITE ") && body(&ours).contains("a=sendonly"));
    let got = lab.tell(&Ask::back(&invite, "INVITE", 1).body(&sdp(2, "sendrecv")).text());
    assert_eq!(status(&got[0]), 491);
    lab.tell(&Ask { via: got_via(&got[0]), ..Ask::back(&invite, "ACK", 1) }.text());
    let ack = lab.tell(&reply(&ours, 491, "", "", ""));
    assert!(ack[0].starts_with("ACK "));
    let from = lab.now - lab.start;
    lab.run_ms(5000);
    let again = lab.inbox(1).remove(0);
    assert!(again.starts_with("INVITE "));
    let at = lab.log.iter().rfind(|m| m.3 == again).unwrap().0;
    // We chose the Call-ID: 2.1 to 4 s. It may have been sent more than once since.
    let first = lab.log.iter().find(|m| m.3 == again).unwrap().0 - from;
    assert!((2000..=4000).contains(&first.as_millis()), "{first:?} {at:?}");
    lab.tell(&reply(&again, 200, "", CONTACT, &sdp(3, "recvonly")));
    assert_eq!(media_of(&lab.take(0)).last().unwrap().direction, Direction::SendOnly);
    release(&mut lab, call);
    assert_clean(&mut lab);
}

fn got_via(response: &str) -> String {
    header(response, "Via").replace(";received=10.0.0.2", "").replace("rport=5060", "rport")
}

// RFC 3261 14.2: an INVITE before the final response to the first.
#[test]
fn c16_a_second_invite_before_the_answer_is_500_with_retry_after() {
    let mut lab = Lab::new();
    let call = lab.call_in(&Ask::invite().text());
    lab.command(0, Command::Ringing { call });
    lab.run_ms(20);
    let ringing = lab.inbox(1).pop().unwrap();
    let got = lab.tell(&Ask::within(&ringing, "INVITE", 2).body(SDP).text());
    assert_eq!(status(&got[0]), 500);
    assert!(header(&got[0], "Retry-After").parse::<u32>().unwrap() <= 10);
    assert!(ended(&lab.take(0)).is_empty());
}

#[test]
fn c17_a_reinvite_without_sdp_gets_an_offer() {
    let mut lab = Lab::new();
    let (call, ok) = lab.call_in_answered();
    let got = lab.tell(&Ask::within(&ok, "INVITE", 2).text());
    assert_eq!(status(&got[0]), 200);
    assert!(body(&got[0]).contains("m=audio 20000 RTP/AVP 8 0"), "all we can: {}", got[0]);
    // Until the answer is here, nothing else may be offered.
    let glare = lab.tell(&Ask::within(&ok, "INVITE", 3).body(&sdp(2, "sendrecv")).text());
    assert_eq!(status(&glare[0]), 491);
    lab.tell(&Ask::within(&ok, "ACK", 2).body(&sdp(2, "inactive")).text());
    assert_eq!(media_of(&lab.take(0)).last().unwrap().direction, Direction::Inactive);
    release(&mut lab, call);
}

// RFC 3261 14.2: a re-INVITE we cannot take changes nothing.
#[test]
fn c18_a_refused_reinvite_leaves_the_session() {
    let mut lab = Lab::new();
    let (_, ok) = lab.call_in_answered();
    let g729 = sdp(2, "sendrecv")
        .replace("RTP/AVP 8 101", "RTP/AVP 18")
        .replace("a=rtpmap:8 PCMA/8000", "a=rtpmap:18 G729/8000");
    let got = lab.tell(&Ask::within(&ok, "INVITE", 2).body(&g729).text());
    assert_eq!(status(&got[0]), 488);
    assert!(lab.take(0).is_empty());
    let fax =
        "v=0\r\no=- 1 3 IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\nm=image 4000 udptl t38\r\n";
    let got = lab.tell(&Ask::within(&ok, "INVITE", 3).body(fax).text());
    assert_eq!(got.iter().map(|m| status(m)).max(), Some(488));
    // A later one works.
    let got = lab.tell(&Ask::within(&ok, "INVITE", 4).body(&sdp(4, "sendonly")).text());
    assert!(got.iter().any(|m| status(m) == 200), "{got:?}");
}

// RFC 3264 8: the same origin version means the same description.
#[test]
fn c19_a_refresh_with_the_same_version_changes_nothing() {
    let mut lab = Lab::new();
    let (_, ok) = lab.call_in_answered();
    for cseq in 2..4 {
        let got = lab.tell(&Ask::within(&ok, "INVITE", cseq).body(SDP).text());
        assert_eq!((status(&got[0]), body(&got[0])), (200, body(&ok)));
        lab.tell(&Ask::within(&ok, "ACK", cseq).text());
        assert!(lab.take(0).is_empty());
    }
}

// Against RFC 3264 8, but a peer that moves its media and keeps the version is to be heard.
#[test]
fn c19_other_media_under_the_same_version_is_followed() {
    let mut lab = Lab::new();
    let (_, ok) = lab.call_in_answered();
    let got = lab.tell(&Ask::within(&ok, "INVITE", 2).body(&SDP.replace("30000", "30002")).text());
    assert_eq!(status(&got[0]), 200);
    assert_eq!(media_of(&lab.take(0))[0].remote_rtp.port(), 30002);
    lab.tell(&Ask::within(&ok, "ACK", 2).text());
    let hold = SDP.replace("30000", "30002").replace("sendrecv", "sendonly");
    let got = lab.tell(&Ask::within(&ok, "INVITE", 3).body(&hold).text());
    assert!(body(&got[0]).contains("a=recvonly"), "{}", got[0]);
    assert_eq!(lab.endpoint(0).counters().repaired["sdp_version"], 2);
}

// RFC 3261 21.4.26.
#[test]
fn c21_no_codec_in_common_is_488_with_a_warning() {
    let mut lab = Lab::new();
    let offer =
        SDP.replace("RTP/AVP 8 101", "RTP/AVP 18").replace("a=rtpmap:8 PCMA/8000", "a=rtpmap:18 G729/8000");
    let got = lab.tell(&Ask::new("INVITE").body(&offer).text());
    assert_eq!(status(&got[0]), 488);
    assert!(header(&got[0], "Warning").starts_with("30"), "{}", got[0]);
    assert!(lab.take(0).is_empty());
    lab.assert_empty(0);
}

// RFC 3264 8.4: the three ways to hold.
#[test]
fn d01_d02_d03_hold_is_answered_and_seen() {
    for (form, answer, seen) in [
        (sdp(2, "sendonly"), "a=recvonly", Direction::RecvOnly),
        (sdp(2, "inactive"), "a=inactive", Direction::Inactive),
        (sdp(2, "sendonly").replace("c=IN IP4 10.0.0.2", "c=IN IP4 0.0.0.0"), "a=", Direction::RecvOnly),
    ] {
        let mut lab = Lab::new();
        let (call, ok) = lab.call_in_answered();
        let got = lab.tell(&Ask::within(&ok, "INVITE", 2).body(&form).text());
        assert_eq!(status(&got[0]), 200);
        assert!(body(&got[0]).contains(answer), "{}", got[0]);
        lab.tell(&Ask::within(&ok, "ACK", 2).text());
        let media = media_of(&lab.take(0));
        assert_eq!(media.len(), 1);
        assert!(!media[0].direction.sends(), "{:?}", media[0].direction);
        if seen == Direction::Inactive {
            assert_eq!(media[0].direction, seen);
        }
        let got = lab.tell(&Ask::within(&ok, "INVITE", 3).body(&sdp(3, "sendrecv")).text());
        assert!(body(&got[0]).contains("a=sendrecv"), "{}", got[0]);
        lab.tell(&Ask::within(&ok, "ACK", 3).text());
        assert_eq!(media_of(&lab.take(0))[0].direction, Direction::SendRecv);
        release(&mut lab, call);
        assert_clean(&mut lab);
    }
}

// RFC 4028 9, 10: the far side refreshes, or the session ends before its time.
#[test]
fn d06_a_session_nobody_refreshes_ends() {
    let mut lab = Lab::new();
    let call = lab.call_in(&Ask::invite().line("Supported: timer").line("Session-Expires: 90").text());
    lab.command(0, Command::Answer { call, media: media(A_RTP) });
    lab.run_ms(20);
    let ok = lab.inbox(1).pop().unwrap();
    assert_eq!(header(&ok, "Session-Expires"), "90;refresher=uac");
    assert_eq!(header(&ok, "Require"), "timer");
    lab.tell(&Ask::within(&ok, "ACK", 1).text());
    lab.run(Duration::from_secs(50));
    let refresh =
        Ask::within(&ok, "UPDATE", 2).line("Supported: timer").line("Session-Expires: 90;refresher=uac");
    let got = lab.tell(&refresh.text());
    assert_eq!(header(&got[0], "Session-Expires"), "90;refresher=uac");
    lab.run(Duration::from_secs(59));
    assert!(lab.inbox(1).is_empty());
    lab.run(Duration::from_secs(2));
    assert!(lab.inbox(1)[0].starts_with("BYE "));
    let ends = ended(&lab.take(0));
    assert_eq!(ends, [(Cause::RECOVERY_ON_TIMER_EXPIRY, None, EndedBy::Timeout)]);
}

#[test]
fn d06_we_refresh_where_that_is_asked_of_us() {
    let mut lab = Lab::new();
    let (call, invite) = lab.call_out();
    let lines = format!("{CONTACT}Require: timer\r\nSession-Expires: 120;refresher=uac\r\n");
    lab.tell(&reply(&invite, 200, "peer", &lines, SDP));
    lab.take(0);
    lab.run_ms(60_100);
    let refresh = lab.inbox(1).remove(0);
    assert!(refresh.starts_with("INVITE "));
    assert_eq!(header(&refresh, "Session-Expires"), "120;refresher=uac");
    // D8: a larger interval is demanded.
    let got = lab.tell(&reply(&refresh, 422, "", "Min-SE: 200\r\n", ""));
    assert_eq!(header(&got[1], "Session-Expires"), "200;refresher=uac");
    // RFC 4028 7.4: and in every later refresh.
    assert_eq!(header(&got[1], "Min-SE"), "200");
    let lines = format!("{CONTACT}Session-Expires: 200;refresher=uac\r\n");
    lab.tell(&reply(&got[1], 200, "", &lines, SDP));
    // D10: nothing about the media has changed.
    assert!(media_of(&lab.take(0)).is_empty());
    lab.run_ms(99_000);
    assert!(lab.inbox(1).is_empty());
    lab.run_ms(2_000);
    let next = lab.inbox(1).remove(0);
    assert!(next.starts_with("INVITE "));
    assert_eq!(header(&next, "Min-SE"), "200");
    release(&mut lab, call);
}

// RFC 4028 5, 6.
#[test]
fn d07_too_small_an_interval_is_422() {
    let mut lab = Lab::new();
    let got = lab.tell(&Ask::invite().line("Supported: timer").line("Session-Expires: 60").text());
    assert_eq!(status(&got[0]), 422);
    assert_eq!(header(&got[0], "Min-SE"), "90");
    lab.assert_empty(0);
}

// RFC 3261 12.2.1.2.
#[test]
fn d11_481_to_a_reinvite_ends_the_call() {
    let mut lab = Lab::new();
    let (call, _) = lab.call_out_answered();
    lab.take(0);
    lab.command(0, Command::Hold { call, on: true });
    lab.run_ms(20);
    let hold = lab.inbox(1).remove(0);
    lab.tell(&reply(&hold, 481, "", "", ""));
    let ends = ended(&lab.take(0));
    assert_eq!((ends.len(), ends[0].1, ends[0].2), (1, Some(481), EndedBy::Far));
    assert_clean(&mut lab);
}

// RFC 3515 2.4.2.
#[test]
fn d13_refer_is_declined_and_the_call_goes_on() {
    let mut lab = Lab::new();
    let (call, ok) = lab.call_in_answered();
    let got = lab.tell(&Ask::within(&ok, "REFER", 2).line("Refer-To: <sip:x@10.0.0.2>").text());
    assert_eq!(status(&got[0]), 603);
    assert!(lab.take(0).is_empty());
    release(&mut lab, call);
    assert_clean(&mut lab);
}

// RFC 3261 15: an early BYE, a BYE before the ACK, and both at once.
#[test]
fn d19_byes_of_all_kinds_end_the_call_once() {
    let mut lab = Lab::new();
    let call = lab.call_in(&Ask::invite().text());
    lab.command(0, Command::Ringing { call });
    lab.run_ms(20);
    let ringing = lab.inbox(1).pop().unwrap();
    let got = lab.tell(&Ask::within(&ringing, "BYE", 2).text());
    assert_eq!(got.iter().map(|m| status(m)).collect::<Vec<_>>(), [200, 487]);
    assert_eq!(ended(&lab.take(0)).len(), 1);
    let mut ack = Ask::new("ACK");
    (ack.via, ack.to) = (Ask::invite().via, header(&ringing, "To"));
    lab.tell(&ack.text());
    assert_clean(&mut lab);

    let mut lab = Lab::new();
    let call = lab.call_in(&Ask::invite().text());
    lab.command(0, Command::Answer { call, media: media(A_RTP) });
    lab.run_ms(20);
    let ok = lab.inbox(1).pop().unwrap();
    let got = lab.tell(&Ask::within(&ok, "BYE", 2).line("Reason: Q.850;cause=31").text());
    assert_eq!(status(&got[0]), 200);
    assert_eq!(ended(&lab.take(0)), [(Cause::NORMAL_UNSPECIFIED, None, EndedBy::Far)]);
    lab.run_ms(2000);
    assert!(lab.inbox(1).is_empty(), "the 200 is not repeated any more");
    assert_clean(&mut lab);

    let mut lab = Lab::new();
    let (call, ok) = lab.call_in_answered();
    release(&mut lab, call);
    let bye = lab.inbox(1).pop().unwrap();
    let got = lab.tell(&Ask::within(&ok, "BYE", 2).text());
    assert_eq!(status(&got[0]), 200);
    lab.tell(&reply(&bye, 481, "", "", ""));
    assert_eq!(ended(&lab.take(0)).len(), 1);
    assert_clean(&mut lab);
}

// RFC 3261 15: the callee sends no BYE before the ACK.
#[test]
fn d19_our_bye_waits_for_the_ack_of_our_2xx() {
    let mut lab = Lab::new();
    let call = lab.call_in(&Ask::invite().text());
    lab.command(0, Command::Answer { call, media: media(A_RTP) });
    lab.run_ms(20);
    let ok = lab.inbox(1).pop().unwrap();
    release(&mut lab, call);
    assert!(lab.inbox(1).is_empty());
    let got = lab.tell(&Ask::within(&ok, "ACK", 1).text());
    assert!(got[0].starts_with("BYE "), "{got:?}");
    lab.tell(&reply(&got[0], 200, "", "", ""));
    assert_eq!(ended(&lab.take(0)).len(), 1);
    assert_clean(&mut lab);
}

#[test]
fn f11_info_digits_become_events() {
    let mut lab = Lab::new();
    let (call, ok) = lab.call_in_answered();
    let mut info = Ask::within(&ok, "INFO", 2).body("Signal=5\r\nDuration=160\r\n");
    info.content_type = "application/dtmf-relay".to_owned();
    assert_eq!(status(&lab.tell(&info.text())[0]), 200);
    let mut info = Ask::within(&ok, "INFO", 3).body("#");
    info.content_type = "application/dtmf".to_owned();
    assert_eq!(status(&lab.tell(&info.text())[0]), 200);
    let digits: Vec<_> = lab.take(0);
    assert!(
        matches!(&digits[0], Event::Dtmf { call: c, digit, duration_ms: 160 } if *c == call && digit.as_char() == '5')
    );
    assert!(matches!(&digits[1], Event::Dtmf { digit, .. } if digit.as_char() == '#'));
    let mut info = Ask::within(&ok, "INFO", 4).body("x");
    info.content_type = "application/odd".to_owned();
    assert_eq!(status(&lab.tell(&info.text())[0]), 415);
}

// RFC 3261 12.2.2: what is older than what was seen is refused.
#[test]
fn requests_out_of_order_are_500_and_of_unknown_dialogs_481() {
    let mut lab = Lab::new();
    let (_, ok) = lab.call_in_answered();
    assert_eq!(status(&lab.tell(&Ask::within(&ok, "INFO", 1).text())[0]), 500);
    let mut bye = Ask::within(&ok, "BYE", 5);
    bye.from = "<sip:x@10.0.0.2>;tag=mallory".to_owned();
    assert_eq!(status(&lab.tell(&bye.text())[0]), 481);
    bye = Ask::within(&ok, "BYE", 6);
    bye.to = "<sip:x@10.0.0.1>;tag=0123456789abcdef".to_owned();
    assert_eq!(status(&lab.tell(&bye.text())[0]), 481);
    assert!(ended(&lab.take(0)).is_empty());
}

// RFC 3261 12.1.1, 12.2.1.1, 16.12: the route set, loose and strict.
#[test]
fn routes_are_kept_and_followed() {
    let mut lab = Lab::new();
    let invite = Ask::invite().line("Record-Route: <sip:10.0.0.2:5060;lr>, <sip:10.7.7.7;lr>").text();
    let call = lab.call_in(&invite);
    lab.command(0, Command::Answer { call, media: media(A_RTP) });
    lab.run_ms(20);
    let ok = lab.inbox(1).pop().unwrap();
    assert_eq!(headers(&ok, "Record-Route"), ["<sip:10.0.0.2:5060;lr>, <sip:10.7.7.7;lr>"]);
    lab.tell(&Ask::within(&ok, "ACK", 1).text());
    release(&mut lab, call);
    let bye = lab.inbox(1).pop().unwrap();
    assert!(bye.starts_with("BYE sip:peer@10.0.0.2:5060;ob SIP/2.0"));
    assert_eq!(headers(&bye, "Route"), ["<sip:10.0.0.2:5060;lr>", "<sip:10.7.7.7;lr>"]);

    let mut lab = Lab::new();
    let (call, invite) = lab.call_out();
    let lines = format!("{CONTACT}Record-Route: <sip:10.7.7.7;lr>\r\nRecord-Route: <sip:10.0.0.2:5060>\r\n");
    let ack = lab.tell(&reply(&invite, 200, "peer", &lines, SDP)).remove(0);
    assert!(ack.starts_with("ACK sip:10.0.0.2:5060 SIP/2.0"), "{ack}");
    assert_eq!(headers(&ack, "Route"), ["<sip:10.7.7.7;lr>", "<sip:peer@10.0.0.2:5060;ob>"]);
    release(&mut lab, call);
}

#[test]
fn an_outgoing_call_nobody_answers_is_cancelled() {
    let mut lab = Lab::with(|config| config.trunks[0].ring_timeout = Duration::from_secs(10));
    let (_, invite) = lab.call_out();
    lab.tell(&reply(&invite, 180, "peer", CONTACT, ""));
    lab.run_ms(10_000);
    let cancel = lab.inbox(1).pop().unwrap();
    assert!(cancel.starts_with("CANCEL "));
    assert_eq!(ended(&lab.take(0)), [(Cause::NO_ANSWER_FROM_USER, None, EndedBy::Timeout)]);
    lab.tell(&reply(&cancel, 200, "peer", "", ""));
    lab.tell(&reply(&invite, 487, "peer", "", ""));
    lab.run(Duration::from_secs(70));
    lab.assert_empty(0);
}

#[test]
fn an_incoming_call_our_user_forgets_is_ended() {
    let mut lab = Lab::new();
    lab.call_in(&Ask::invite().text());
    lab.run(Duration::from_secs(191));
    assert!(lab.inbox(1).iter().any(|m| status(m) == 480));
    let ends = ended(&lab.take(0));
    assert_eq!(ends, [(Cause::NO_ANSWER_FROM_USER, Some(480), EndedBy::Timeout)]);
    lab.run(Duration::from_secs(70));
    lab.assert_empty(0);
}

pub fn with_password() -> Lab {
    Lab::with(|config| {
        config.trunks[0].credentials = Some(Credentials {
            username: "gw".to_owned(),
            password: Secret::new("open sesame".to_owned()),
            realm: Some("peer".to_owned()),
        });
    })
}

pub const CHALLENGE: &str = "Digest realm=\"peer\", nonce=\"n1\", qop=\"auth\", algorithm=SHA-256\r\n";

// RFC 3261 22: credentials go with a new branch and CSeq; the ACK of the 2xx repeats them; a second
// refusal ends it.
#[test]
fn b08_challenges_are_answered_on_invite_reinvite_and_bye() {
    let mut lab = with_password();
    let (call, invite) = lab.call_out();
    let got = lab.tell(&reply(&invite, 401, "c", &format!("WWW-Authenticate: {CHALLENGE}"), ""));
    assert!(got[0].starts_with("ACK "));
    let second = &got[1];
    assert_eq!(header(second, "CSeq"), "2 INVITE");
    assert_ne!(header(second, "Via"), header(&invite, "Via"));
    assert_eq!(header(second, "Call-ID"), header(&invite, "Call-ID"));
    assert!(header(second, "Authorization").contains("username=\"gw\""));
    assert!(!second.contains("open sesame"));
    let ack = lab.tell(&reply(second, 200, "peer", CONTACT, SDP)).remove(0);
    assert!(ack.starts_with("ACK "));
    assert_eq!(header(&ack, "Authorization"), header(second, "Authorization"), "the same, not made anew");
    lab.command(0, Command::Hold { call, on: true });
    lab.run_ms(20);
    let hold = lab.inbox(1).remove(0);
    let got = lab.tell(&reply(&hold, 407, "", &format!("Proxy-Authenticate: {CHALLENGE}"), ""));
    assert!(header(&got[1], "Proxy-Authorization").contains("username=\"gw\""));
    lab.tell(&reply(&got[1], 200, "", CONTACT, &sdp(2, "recvonly")));
    release(&mut lab, call);
    let bye = lab.inbox(1).pop().unwrap();
    let stale =
        format!("WWW-Authenticate: {}", CHALLENGE.replace("n1", "n2").replace("qop", "stale=true, qop"));
    let got = lab.tell(&reply(&bye, 401, "", &stale, ""));
    assert!(got[0].starts_with("BYE ") && header(&got[0], "Authorization").contains("nonce=\"n2\""));
    assert_eq!(header(&got[0], "Reason"), header(&bye, "Reason"));
    lab.tell(&reply(&got[0], 200, "", "", ""));
    assert_clean(&mut lab);
}

#[test]
fn b08_a_wrong_password_or_a_foreign_realm_stops() {
    let mut lab = with_password();
    let (_, invite) = lab.call_out();
    let challenge = format!("WWW-Authenticate: {CHALLENGE}");
    let got = lab.tell(&reply(&invite, 401, "c", &challenge, ""));
    let got = lab.tell(&reply(&got[1], 401, "c", &challenge.replace("n1", "n9"), ""));
    assert_eq!(got.len(), 1, "only the ACK: {got:?}");
    assert_eq!(ended(&lab.take(0)).len(), 1);
    let mut lab = with_password();
    let (_, invite) = lab.call_out();
    let got = lab.tell(&reply(&invite, 401, "c", &challenge.replace("realm=\"peer\"", "realm=\"evil\""), ""));
    assert_eq!(got.len(), 1, "only the ACK: {got:?}");
    assert!(!got[0].contains("Authorization"));
}

// RFC 3581 4, RFC 7362 4: behind an address translator Via, Contact and the description name what nobody else can
// reach. Where the messages come from is where the media may come from too.
#[test]
fn f22_media_tells_where_the_signalling_came_from_whatever_it_says() {
    let told = |events: &[Event]| -> Vec<IpAddr> {
        let signalling = |event: &Event| match event {
            Event::Media { signalling, .. } => Some(*signalling),
            _ => None,
        };
        events.iter().filter_map(signalling).collect()
    };
    let private = |text: &str| {
        let there = text.replace("UDP 10.0.0.2:5060", "UDP 192.168.1.7:5060");
        there.replace("@10.0.0.2:5060;ob", "@192.168.1.7:5060;ob").replace("IP4 10.0.0.2", "IP4 192.168.1.7")
    };
    let (seen, other) = (address("10.0.0.2:5060"), address("10.0.0.3:5060"));
    let mut lab = Lab::with(|config| config.trunks[0].sources.extend([seen.ip(), other.ip()]));
    let call = lab.call_in(&private(&Ask::invite().text()));
    lab.command(0, Command::Answer { call, media: media(A_RTP) });
    lab.run_ms(20);
    let ok = lab.inbox(1).pop().unwrap();
    let events = lab.take(0);
    assert_eq!(media_of(&events)[0].remote_rtp, address("192.168.1.7:30000"));
    assert_eq!(told(&events), [seen.ip()]);
    lab.tell(&private(&Ask::within(&ok, "ACK", 1).text()));
    // The same description again is no news, unless it comes from elsewhere.
    let again = |cseq| private(&Ask::within(&ok, "UPDATE", cseq).body(SDP).text());
    lab.tell(&again(2));
    assert!(told(&lab.take(0)).is_empty());
    let gateway = lab.gateway;
    for (cseq, from, news) in [(3, other, true), (4, other, false), (5, seen, true)] {
        lab.net.say_from(from, gateway, again(cseq).as_bytes());
        lab.run_ms(20);
        assert_eq!(told(&lab.take(0)), Vec::from_iter(news.then_some(from.ip())), "{cseq}");
    }
    release(&mut lab, call);

    let mut lab = Lab::new();
    let (_, invite) = lab.call_out();
    lab.tell(&reply(&invite, 183, "peer", CONTACT, &private(SDP)));
    lab.tell(&reply(&invite, 200, "peer", CONTACT, &private(SDP)));
    assert_eq!(told(&lab.take(0)), [seen.ip(), seen.ip()]);
}
