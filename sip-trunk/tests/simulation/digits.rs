//! Rows F7, F11, F12: how digits are agreed on and signalled.

use call_model::DtmfDigit;
use sip_trunk::{Command, CommandError, Event, InfoDigits};

use crate::dialogs::{CHALLENGE, assert_clean, body, media_of, release, with_password};
use crate::net::{A_RTP, media};
use crate::raw::{Ask, CONTACT, Lab, SDP, header, reply, sdp, status};

// RFC 4733 2.4.1, RFC 3264 6.1: any number, each way its own, with the clock of G.711.
#[test]
fn f07_events_have_the_number_each_side_chose() {
    for number in [96, 97, 100, 101, 110, 127] {
        let theirs = SDP.replace("101", &number.to_string());
        let mut lab = Lab::new();
        let (call, invite) = lab.call_out();
        assert!(body(&invite).contains("a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\n"));
        lab.tell(&reply(&invite, 200, "peer", CONTACT, &theirs));
        let event = media_of(&lab.take(0))[0].telephone_event.unwrap();
        assert_eq!((event.send_payload_type, event.receive_payload_type), (number, 101));
        assert_eq!(event.clock_rate, 8000);
        release(&mut lab, call);
        assert_clean(&mut lab);
        let mut lab = Lab::new();
        let call = lab.call_in(&Ask::invite().body(&theirs).text());
        lab.command(0, Command::Answer { call, media: media(A_RTP) });
        lab.run_ms(20);
        let ok = lab.inbox(1).pop().unwrap();
        assert!(body(&ok).contains(&format!("a=rtpmap:{number} telephone-event/8000\r\n")), "{ok}");
        let event = media_of(&lab.take(0))[0].telephone_event.unwrap();
        assert_eq!((event.send_payload_type, event.receive_payload_type), (number, number));
    }
    // Of two clocks that of the codec; the other alone is of no use beside G.711.
    for (lines, number) in [
        ("a=rtpmap:96 telephone-event/48000\r\na=rtpmap:97 telephone-event/8000\r\n", Some(97)),
        ("a=rtpmap:96 telephone-event/48000\r\na=rtpmap:97 opus/48000/2\r\n", None),
    ] {
        let theirs = SDP.replace("8 101", "8 96 97").replace("a=rtpmap:101 telephone-event/8000\r\n", lines);
        let mut lab = Lab::new();
        let call = lab.call_in(&Ask::invite().body(&theirs).text());
        lab.command(0, Command::Answer { call, media: media(A_RTP) });
        lab.run_ms(20);
        let event = media_of(&lab.take(0))[0].telephone_event;
        assert_eq!(event.map(|e| (e.send_payload_type, e.clock_rate)), number.map(|n| (n, 8000)));
    }
}

// RFC 3264 8.3.2: what was not there at first comes with a later offer, and may go again.
#[test]
fn f12_events_that_come_with_a_later_reinvite_are_taken() {
    let mut lab = Lab::new();
    let without = SDP.replace("8 101", "8").replace("a=rtpmap:101 telephone-event/8000\r\n", "");
    let call = lab.call_in(&Ask::invite().body(&without).text());
    lab.command(0, Command::Answer { call, media: media(A_RTP) });
    lab.run_ms(20);
    let ok = lab.inbox(1).pop().unwrap();
    assert!(!body(&ok).contains("telephone-event"));
    lab.tell(&Ask::within(&ok, "ACK", 1).text());
    assert_eq!(media_of(&lab.take(0))[0].telephone_event, None);
    let with = sdp(2, "sendrecv").replace("101", "100");
    let got = lab.tell(&Ask::within(&ok, "INVITE", 2).body(&with).text());
    assert!(body(&got[0]).contains("a=rtpmap:100 telephone-event/8000"), "{}", got[0]);
    lab.tell(&Ask::within(&ok, "ACK", 2).text());
    let event = media_of(&lab.take(0))[0].telephone_event.unwrap();
    assert_eq!((event.send_payload_type, event.receive_payload_type), (100, 100));
    let again = without.replace("1 1 IN", "1 3 IN");
    lab.tell(&Ask::within(&ok, "INVITE", 3).body(&again).text());
    assert_eq!(media_of(&lab.take(0))[0].telephone_event, None);
    release(&mut lab, call);
}

fn digit(c: char) -> DtmfDigit {
    DtmfDigit::from_char(c).unwrap()
}

// By the trunk's choice, in the trunk's form, one after the other.
#[test]
fn f11_digits_go_by_info_where_the_trunk_wants_them_so() {
    for (form, kind, content) in [
        (InfoDigits::Relay, "application/dtmf-relay", "Signal=#\r\nDuration=160\r\n"),
        (InfoDigits::Plain, "application/dtmf", "#"),
    ] {
        let mut lab = Lab::with(|config| config.trunks[0].info_digits = Some(form));
        let (call, _) = lab.call_out_answered();
        lab.take(0);
        for c in "#12".chars() {
            lab.command(0, Command::Dtmf { call, digit: digit(c), duration_ms: 160 });
        }
        lab.run_ms(20);
        let first = lab.inbox(1);
        assert_eq!(first.len(), 1, "the next waits for the answer");
        assert!(first[0].starts_with("INFO sip:peer@10.0.0.2:5060;ob SIP/2.0"), "{}", first[0]);
        assert_eq!((header(&first[0], "Content-Type").as_str(), body(&first[0])), (kind, content));
        // A refusal loses the digit, not the call.
        let second = lab.tell(&reply(&first[0], 415, "", "", "")).remove(0);
        assert!(body(&second).contains('1'));
        let third = lab.tell(&reply(&second, 200, "", "", "")).remove(0);
        assert!(body(&third).contains('2'));
        assert!(lab.tell(&reply(&third, 200, "", "", "")).is_empty());
        assert!(lab.take(0).is_empty());
        release(&mut lab, call);
        assert_clean(&mut lab);
    }
    // With the media, where the trunk does not say otherwise.
    let mut lab = Lab::new();
    let (call, _) = lab.call_out_answered();
    let command = Command::Dtmf { call, digit: digit('1'), duration_ms: 100 };
    assert_eq!(lab.try_command(0, command), Err(CommandError::WrongState));
}

// Bounded, and challenged as any request (B8).
#[test]
fn f11_digits_that_wait_are_bounded_and_challenges_answered() {
    let mut lab = with_password();
    let (call, _) = lab.call_out_answered();
    let one = Command::Dtmf { call, digit: digit('1'), duration_ms: 100 };
    assert!(lab.try_command(0, one).is_err());
    let mut lab = Lab::with(|config| config.trunks[0].info_digits = Some(InfoDigits::Relay));
    let (call, _) = lab.call_out();
    let one = || Command::Dtmf { call, digit: digit('1'), duration_ms: 100 };
    assert!(lab.try_command(0, one()).is_err(), "not answered yet");
    let (call, _) = {
        lab = Lab::with(|config| {
            config.trunks[0].info_digits = Some(InfoDigits::Relay);
            config.trunks[0].credentials = Some(sip_trunk::auth::Credentials {
                username: "gw".to_owned(),
                password: sip_trunk::auth::Secret::new("open sesame".to_owned()),
                realm: None,
            });
        });
        lab.call_out_answered()
    };
    let taken = (0..50)
        .filter(|_| lab.try_command(0, Command::Dtmf { call, digit: digit('1'), duration_ms: 100 }).is_ok())
        .count();
    assert_eq!(taken, 33);
    assert_eq!(lab.endpoint(0).counters().refused["info_digits"], 17);
    lab.run_ms(20);
    let info = lab.inbox(1).remove(0);
    let got = lab.tell(&reply(&info, 401, "", &format!("WWW-Authenticate: {CHALLENGE}"), ""));
    assert!(got[0].starts_with("INFO ") && header(&got[0], "Authorization").contains("gw"), "{got:?}");
    assert_eq!(body(&got[0]), body(&info));
    release(&mut lab, call);
    assert_clean(&mut lab);
}

// A hook flash is understood and means nothing here; rubbish is 400.
#[test]
fn f11_what_is_no_digit_is_no_event() {
    let mut lab = Lab::new();
    let (_, ok) = lab.call_in_answered();
    for (cseq, text, expected) in [(2, "Signal=flash\r\n", 200), (3, "Signal=xyz\r\n", 400), (4, "\r\n", 400)]
    {
        let mut info = Ask::within(&ok, "INFO", cseq).body(text);
        info.content_type = "Application/DTMF-Relay; charset=utf-8".to_owned();
        assert_eq!(status(&lab.tell(&info.text())[0]), expected, "{text}");
    }
    assert!(!lab.take(0).iter().any(|event| matches!(event, Event::Dtmf { .. })));
}
