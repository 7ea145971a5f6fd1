//! Rows C2, C8, C9, C13, C14, B8, D6: reliable provisional responses and UPDATE of calls we place.

use call_model::{Cause, Direction};
use sip_trunk::{Command, EndedBy, Event, Reliable, Transport};

use crate::dialogs::{CHALLENGE, assert_clean, body, media_of, release, with_password};
use crate::net::{A_RTP, B_RTP, Pair, address, ended, media};
use crate::raw::{Ask, CONTACT, Lab, SDP, header, headers, reply, sdp, status};

/// The lines of a reliable provisional response.
pub fn rel(rseq: u32) -> String {
    format!("{CONTACT}Require: 100rel\r\nRSeq: {rseq}\r\n")
}

// RFC 3262 3: what our INVITE says of it.
#[test]
fn c09_the_invite_offers_100rel_as_the_trunk_says() {
    for (policy, supported, required) in
        [(Reliable::Off, false, 0), (Reliable::Supported, true, 0), (Reliable::Required, true, 1)]
    {
        let mut lab = Lab::with(|config| config.trunks[0].reliable_provisional = policy);
        let (_, invite) = lab.call_out();
        assert_eq!(header(&invite, "Supported").contains("100rel"), supported, "{policy:?}");
        assert_eq!(headers(&invite, "Require").len(), required, "{policy:?}");
        assert!(header(&invite, "Allow").contains("PRACK"));
    }
}

// RFC 3262 4: PRACK within the early dialog of the response: its Contact, route set and To tag.
#[test]
fn c09_prack_goes_to_the_early_dialog_once_and_in_order() {
    let mut lab = Lab::new();
    let (call, invite) = lab.call_out();
    let routes = "Record-Route: <sip:10.7.7.7;lr>\r\nRecord-Route: <sip:10.0.0.2:5060;lr>\r\n";
    let ringing = reply(&invite, 180, "peer", &format!("{}{routes}", rel(7)), "");
    let got = lab.tell(&ringing);
    assert_eq!(got.len(), 1, "{got:?}");
    let prack = &got[0];
    assert!(prack.starts_with("PRACK sip:peer@10.0.0.2:5060;ob SIP/2.0"), "{prack}");
    assert_eq!(headers(prack, "Route"), ["<sip:10.0.0.2:5060;lr>", "<sip:10.7.7.7;lr>"]);
    assert!(header(prack, "To").ends_with(";tag=peer"));
    assert_eq!(header(prack, "From"), header(&invite, "From"));
    assert_eq!(header(prack, "Call-ID"), header(&invite, "Call-ID"));
    assert_eq!(header(prack, "CSeq"), "2 PRACK");
    assert_eq!(header(prack, "RAck"), "7 1 INVITE");
    assert_eq!(header(prack, "Max-Forwards"), "70");
    lab.tell(&reply(prack, 200, "", "", ""));
    // A repetition is neither acknowledged nor reported again.
    assert!(lab.tell(&ringing).is_empty());
    assert_eq!(lab.ladder(0), ["> INVITE (SDP)", "< 180 Whatever", "> PRACK", "< 200 Whatever"]);
    assert_eq!(lab.take(0), [Event::Trying { call }, Event::Ringing { call }]);
    // What came ahead of the one before it waits to be repeated.
    assert!(lab.tell(&reply(&invite, 183, "peer", &rel(9), SDP)).is_empty());
    assert!(lab.take(0).is_empty());
    let got = lab.tell(&reply(&invite, 183, "peer", &rel(8), ""));
    assert_eq!(header(&got[0], "RAck"), "8 1 INVITE");
    lab.tell(&reply(&got[0], 200, "", "", ""));
    let got = lab.tell(&reply(&invite, 183, "peer", &rel(9), SDP));
    assert_eq!(
        (header(&got[0], "RAck").as_str(), header(&got[0], "CSeq").as_str()),
        ("9 1 INVITE", "4 PRACK")
    );
    lab.tell(&reply(&got[0], 200, "", "", ""));
    assert_eq!(media_of(&lab.take(0)).len(), 1);
    // RFC 3261 13.2.2.4: the ACK has the CSeq of the INVITE, what follows counts on.
    let ack = lab.tell(&reply(&invite, 200, "peer", CONTACT, "")).remove(0);
    assert_eq!(header(&ack, "CSeq"), "1 ACK");
    release(&mut lab, call);
    let bye = lab.inbox(1).pop().unwrap();
    assert_eq!(header(&bye, "CSeq"), "5 BYE");
    lab.tell(&reply(&bye, 200, "", "", ""));
    assert_clean(&mut lab);
}

// A reliable response to a re-INVITE would be one more thing to wait for.
#[test]
fn c09_a_reinvite_does_not_offer_100rel() {
    let mut lab = Lab::with(|config| config.trunks[0].reliable_provisional = Reliable::Required);
    let (call, _) = lab.call_out_answered();
    lab.command(0, Command::Hold { call, on: true });
    lab.run_ms(20);
    let hold = lab.inbox(1).remove(0);
    assert!(hold.starts_with("INVITE ") && headers(&hold, "Require").is_empty());
    assert_eq!(headers(&hold, "Supported"), ["timer"]);
}

// RFC 3262 4: 100 is never reliable, whatever it says; nor is a response without the option tag.
#[test]
fn c09_only_reliable_responses_are_acknowledged() {
    let mut lab = Lab::new();
    let (_, invite) = lab.call_out();
    assert!(lab.tell(&reply(&invite, 100, "", &rel(1), "")).is_empty());
    assert!(lab.tell(&reply(&invite, 180, "peer", &format!("{CONTACT}RSeq: 1\r\n"), "")).is_empty());
    let odd = format!("{CONTACT}Require: 100rel\r\nRSeq: many\r\n");
    assert!(lab.tell(&reply(&invite, 180, "peer", &odd, "")).is_empty());
}

// RFC 3261 12.2.1.1: to the address of the Contact, from the listener of the INVITE.
#[test]
fn c09_prack_follows_the_contact() {
    let mut lab = Lab::new();
    let (_, invite) = lab.call_out();
    let lines = "Contact: <sip:media@10.0.0.9:5070>\r\nRequire: 100rel\r\nRSeq: 1\r\n";
    lab.tell(&reply(&invite, 183, "peer", lines, SDP));
    let prack = lab.log.iter().find(|m| m.3.starts_with("PRACK ")).unwrap();
    assert_eq!((prack.1, prack.2), (lab.gateway, address("10.0.0.9:5070")));
    assert!(prack.3.starts_with("PRACK sip:media@10.0.0.9:5070 SIP/2.0"));
    assert!(header(&prack.3, "Via").starts_with("SIP/2.0/UDP"));
}

#[test]
fn c09_prack_is_repeated_until_answered_and_its_loss_ends_nothing() {
    let mut lab = Lab::new();
    let (call, invite) = lab.call_out();
    lab.tell(&reply(&invite, 180, "peer", &rel(1), ""));
    lab.run_ms(40_000);
    let pracks = lab.inbox(1);
    assert!(pracks.len() > 5 && pracks.iter().all(|m| *m == pracks[0]), "{pracks:?}");
    assert!(ended(&lab.take(0)).is_empty());
    lab.tell(&reply(&invite, 200, "peer", CONTACT, SDP));
    release(&mut lab, call);
    assert_clean(&mut lab);
}

// RFC 3262 3: each early dialog counts for itself.
#[test]
fn c09_forks_count_apart() {
    let mut lab = Lab::new();
    let (call, invite) = lab.call_out();
    let first = lab.tell(&reply(&invite, 183, "one", &rel(10), SDP)).remove(0);
    let second = lab.tell(&reply(&invite, 180, "two", &rel(10), "")).remove(0);
    assert!(header(&first, "To").ends_with("tag=one") && header(&second, "To").ends_with("tag=two"));
    assert_eq!(header(&second, "RAck"), "10 1 INVITE");
    let third = lab.tell(&reply(&invite, 183, "two", &rel(11), &SDP.replace("30000", "31000"))).remove(0);
    assert_eq!(header(&third, "CSeq"), "3 PRACK");
    // RFC 6228: a reliable 199 is acknowledged, once, and closes its dialog.
    let closing = reply(&invite, 199, "two", &rel(12), "");
    assert_eq!(header(&lab.tell(&closing)[0], "RAck"), "12 1 INVITE");
    assert!(!lab.tell(&closing).iter().any(|m| m.contains("CSeq: 5 PRACK")));
    let mut update = Ask::back(&invite, "UPDATE", 1);
    update.from = update.from.replace("tag=peer", "tag=two");
    let got = lab.tell(&update.text());
    assert!(got.iter().any(|m| m.starts_with("SIP/2.0 481")), "{got:?}");
    lab.take(0);
    lab.tell(&reply(&invite, 200, "one", CONTACT, ""));
    assert_eq!(media_of(&lab.take(0))[0].remote_rtp.port(), 30000);
    assert!(!lab.endpoint(0).counters().repaired.contains_key("answer_in_provisional"));
    release(&mut lab, call);
    assert_clean(&mut lab);
}

// The number of PRACKs is not left to the far side.
#[test]
fn c09_the_pracks_of_a_call_are_bounded() {
    let mut lab = Lab::new();
    let (_, invite) = lab.call_out();
    for rseq in 1..200 {
        lab.tell(&reply(&invite, 183, "peer", &rel(rseq), ""));
    }
    let rack = |m: &(_, _, _, String)| m.3.starts_with("PRACK ").then(|| header(&m.3, "RAck"));
    let mut racks: Vec<_> = lab.log.iter().filter_map(rack).collect();
    racks.dedup();
    racks.sort();
    racks.dedup();
    assert_eq!(racks.len(), 64);
}

#[test]
fn c09_prack_goes_by_the_transport_of_the_invite() {
    let mut pair = Pair::with(Transport::Tcp, |a, b| {
        a.trunks[0].reliable_provisional = Reliable::Required;
        b.trunks[0].reliable_provisional = Reliable::Required;
    });
    let (a, b) = pair.call();
    pair.command(1, Command::Ringing { call: b });
    pair.command(1, Command::Progress { call: b, media: media(B_RTP) });
    pair.command(1, Command::Answer { call: b, media: media(B_RTP) });
    pair.run_ms(200);
    assert!(pair.take(0).contains(&Event::Answered { call: a }));
    let pracks: Vec<_> = pair.log.iter().filter(|m| m.3.starts_with("PRACK ")).collect();
    assert_eq!(pracks.len(), 1, "the 180; its PRACK and the answer overtook the 183");
    assert!(pracks.iter().all(|m| header(&m.3, "Via").starts_with("SIP/2.0/TCP")));
    pair.command(0, Command::Release { call: a, cause: Cause::NORMAL_CALL_CLEARING });
    pair.assert_clean();
}

// RFC 3261 13.2.1: a description in a reliable response is the answer; later ones are ignored.
#[test]
fn c08_a_200_that_differs_from_a_reliable_183_is_not_followed() {
    let mut lab = Lab::new();
    let (call, invite) = lab.call_out();
    let other = SDP.replace("30000", "32000").replace("1 1 IN", "1 2 IN");
    lab.tell(&reply(&invite, 183, "peer", &rel(1), SDP));
    assert_eq!(media_of(&lab.take(0)).len(), 1);
    lab.tell(&reply(&invite, 183, "peer", &rel(2), &other));
    assert!(media_of(&lab.take(0)).is_empty());
    // A number in a final response means nothing.
    lab.tell(&reply(&invite, 200, "peer", &rel(2), &other));
    let events = lab.take(0);
    assert_eq!(media_of(&events)[0].remote_rtp.port(), 30000);
    assert!(events.contains(&Event::Answered { call }));
    assert_eq!(lab.endpoint(0).counters().refused["second_answer"], 2);
    release(&mut lab, call);
    assert_clean(&mut lab);
}

// RFC 3261 22: the PRACK goes again, with credentials and the next CSeq.
#[test]
fn b08_a_challenge_of_a_prack_is_answered() {
    let mut lab = with_password();
    let (_, invite) = lab.call_out();
    let prack = lab.tell(&reply(&invite, 183, "peer", &rel(4), SDP)).remove(0);
    assert!(headers(&prack, "Proxy-Authorization").is_empty());
    let challenge = format!("Proxy-Authenticate: {CHALLENGE}");
    let again = lab.tell(&reply(&prack, 407, "", &challenge, "")).remove(0);
    assert!(again.starts_with("PRACK ") && header(&again, "Proxy-Authorization").contains("username=\"gw\""));
    assert_eq!(header(&again, "CSeq"), "3 PRACK");
    assert_eq!(header(&again, "RAck"), header(&prack, "RAck"));
    assert_ne!(header(&again, "Via"), header(&prack, "Via"));
    // A wrong password stops after one.
    assert!(lab.tell(&reply(&again, 407, "", &challenge.replace("n1", "n2"), "")).is_empty());
    // The next one has them from the start.
    let next = lab.tell(&reply(&invite, 180, "peer", &rel(5), "")).remove(0);
    assert!(header(&next, "Proxy-Authorization").contains("username=\"gw\""));
    lab.tell(&reply(&next, 200, "", "", ""));
    assert!(ended(&lab.take(0)).is_empty());
}

// RFC 3311 5.2, in an early dialog whose offer/answer exchange has ended.
#[test]
fn c13_an_update_of_the_callee_before_the_answer_moves_the_media() {
    let mut lab = Lab::new();
    let (call, invite) = lab.call_out();
    let prack = lab.tell(&reply(&invite, 183, "peer", &rel(1), SDP)).remove(0);
    lab.tell(&reply(&prack, 200, "", "", ""));
    lab.take(0);
    let moved = sdp(2, "sendonly").replace("30000", "30010");
    let got = lab.tell(&Ask::back(&invite, "UPDATE", 1).body(&moved).text());
    assert_eq!(status(&got[0]), 200);
    assert!(body(&got[0]).contains("a=recvonly"), "{}", got[0]);
    assert!(header(&got[0], "Contact").contains("10.0.0.1"));
    let events = lab.take(0);
    assert!(matches!(&events[0], Event::Media { early: true, media, .. }
        if media.remote_rtp == address("10.0.0.2:30010") && media.direction == Direction::RecvOnly));
    // RFC 3261 12.2.2: out of order.
    assert_eq!(status(&lab.tell(&Ask::back(&invite, "UPDATE", 1).branch("again").text())[0]), 500);
    // Without a body it refreshes the target alone.
    let got = lab.tell(&Ask::back(&invite, "UPDATE", 2).text());
    assert_eq!((status(&got[0]), body(&got[0])), (200, ""));
    lab.tell(&reply(&invite, 200, "peer", CONTACT, ""));
    assert_eq!(media_of(&lab.take(0))[0].remote_rtp, address("10.0.0.2:30010"));
    // The far side's CSeq has counted.
    assert_eq!(status(&lab.tell(&Ask::back(&invite, "INFO", 2).branch("old").text())[0]), 500);
    assert_eq!(status(&lab.tell(&Ask::back(&invite, "INFO", 3).text())[0]), 200);
    release(&mut lab, call);
    assert_clean(&mut lab);
}

// RFC 3311 5.2: our offer is open.
#[test]
fn c14_an_update_while_our_offer_is_open_is_491() {
    let mut lab = Lab::new();
    let (_, invite) = lab.call_out();
    lab.tell(&reply(&invite, 180, "peer", CONTACT, ""));
    let got = lab.tell(&Ask::back(&invite, "UPDATE", 1).body(SDP).text());
    assert_eq!(status(&got[0]), 491);
    // An unreliable answer has not closed it.
    lab.tell(&reply(&invite, 183, "peer", CONTACT, SDP));
    let got = lab.tell(&Ask::back(&invite, "UPDATE", 2).body(&sdp(2, "sendonly")).text());
    assert_eq!(status(&got[0]), 491);
    // No such dialog.
    let mut stranger = Ask::back(&invite, "UPDATE", 3);
    stranger.from = stranger.from.replace("tag=peer", "tag=else");
    assert_eq!(status(&lab.tell(&stranger.text())[0]), 481);
    assert!(ended(&lab.take(0)).is_empty());
}

#[test]
fn c14_an_update_while_our_reinvite_is_open_is_491() {
    let mut lab = Lab::new();
    let (call, invite) = lab.call_out_answered();
    lab.command(0, Command::Hold { call, on: true });
    lab.run_ms(20);
    let got = lab.tell(&Ask::back(&invite, "UPDATE", 1).body(&sdp(2, "sendonly")).text());
    assert!(got.iter().any(|m| m.starts_with("SIP/2.0 491")), "{got:?}");
}

// RFC 4028 7.4: by UPDATE where the far side allows it, without an offer.
#[test]
fn d06_a_refresh_goes_by_update_where_allowed() {
    let mut lab = with_password();
    let (call, invite) = lab.call_out();
    let session = "Require: timer\r\nSession-Expires: 120;refresher=uac\r\n";
    let lines = format!("{CONTACT}Allow: INVITE, UPDATE\r\n{session}");
    lab.tell(&reply(&invite, 200, "peer", &lines, SDP));
    lab.take(0);
    lab.run_ms(60_100);
    let refresh = lab.inbox(1).remove(0);
    assert!(refresh.starts_with("UPDATE sip:peer@10.0.0.2:5060;ob SIP/2.0"), "{refresh}");
    assert_eq!((header(&refresh, "Session-Expires").as_str(), body(&refresh)), ("120;refresher=uac", ""));
    assert!(header(&refresh, "Supported").contains("timer") && !headers(&refresh, "Contact").is_empty());
    // B8: a challenge of UPDATE.
    let got = lab.tell(&reply(&refresh, 401, "", &format!("WWW-Authenticate: {CHALLENGE}"), ""));
    assert!(got[0].starts_with("UPDATE ") && header(&got[0], "Authorization").contains("username=\"gw\""));
    // D8: a larger interval is demanded.
    let got = lab.tell(&reply(&got[0], 422, "", "Min-SE: 200\r\n", ""));
    assert!(got[0].starts_with("UPDATE "));
    assert_eq!(header(&got[0], "Session-Expires"), "200;refresher=uac");
    let lines = format!("{CONTACT}Session-Expires: 200;refresher=uac\r\n");
    assert!(lab.tell(&reply(&got[0], 200, "", &lines, "")).is_empty(), "no ACK");
    // While an UPDATE without an offer is open, the far side may offer.
    lab.run_ms(101_000);
    let next = lab.inbox(1).remove(0);
    assert!(next.starts_with("UPDATE "));
    let got = lab.tell(&Ask::back(&invite, "INVITE", 1).body(&sdp(2, "sendonly")).text());
    assert!(got.iter().any(|m| m.starts_with("SIP/2.0 200")), "{got:?}");
    lab.tell(&Ask::back(&invite, "ACK", 1).text());
    // It cannot after all: by re-INVITE.
    let got = lab.tell(&reply(&next, 501, "", "", ""));
    assert!(got.iter().any(|m| m.starts_with("INVITE ")), "{got:?}");
    let again = got.into_iter().find(|m| m.starts_with("INVITE ")).unwrap();
    let answer = sdp(3, "sendonly");
    lab.tell(&reply(&again, 200, "", &format!("{CONTACT}Session-Expires: 200;refresher=uac\r\n"), &answer));
    assert!(ended(&lab.take(0)).is_empty());
    release(&mut lab, call);
    assert_clean(&mut lab);
}

// What becomes of our UPDATE says nothing of an offer of ours in another transaction.
#[test]
fn d06_a_refused_update_leaves_the_offer_of_a_2xx_open() {
    let mut lab = Lab::new();
    let (call, invite) = lab.call_out();
    let lines = format!("{CONTACT}Allow: INVITE, UPDATE\r\nSession-Expires: 120;refresher=uac\r\n");
    lab.tell(&reply(&invite, 200, "peer", &lines, SDP));
    lab.run_ms(60_100);
    let refresh = lab.inbox(1).pop().unwrap();
    let ok =
        lab.tell(&Ask::back(&invite, "INVITE", 1).text()).into_iter().find(|m| status(m) == 200).unwrap();
    assert!(body(&ok).contains("m=audio 20000"));
    lab.tell(&reply(&refresh, 503, "", "", ""));
    lab.take(0);
    let got = lab.tell(&Ask::back(&invite, "UPDATE", 2).body(&sdp(2, "sendrecv")).text());
    assert!(got.iter().any(|m| m.starts_with("SIP/2.0 491")), "{got:?}");
    lab.tell(&Ask::back(&invite, "ACK", 1).body(&sdp(2, "sendonly")).text());
    let events = lab.take(0);
    assert_eq!(media_of(&events)[0].direction, Direction::RecvOnly);
    assert!(ended(&events).is_empty());
    release(&mut lab, call);
    assert_clean(&mut lab);
}

#[test]
fn d06_no_answer_to_an_update_ends_the_call() {
    let mut lab = Lab::new();
    let (_, invite) = lab.call_out();
    let lines = format!("{CONTACT}Allow: INVITE, UPDATE\r\nSession-Expires: 120;refresher=uac\r\n");
    lab.tell(&reply(&invite, 200, "peer", &lines, SDP));
    lab.run_ms(93_000);
    let ends = ended(&lab.take(0));
    assert_eq!(ends, [(Cause::RECOVERY_ON_TIMER_EXPIRY, None, EndedBy::Timeout)]);
    assert_clean(&mut lab);
}

fn delayed() -> Lab {
    Lab::with(|config| config.trunks[0].delayed_offer = true)
}

// RFC 3261 13.2.1: the offer comes in the 2xx, the answer goes in the ACK.
#[test]
fn c02_a_delayed_offer_is_answered_in_the_ack() {
    let mut lab = delayed();
    let (call, invite) = lab.call_out();
    assert_eq!((body(&invite), headers(&invite, "Content-Type").len()), ("", 0));
    // In an unreliable response a description is no offer.
    assert!(lab.tell(&reply(&invite, 183, "peer", CONTACT, SDP)).is_empty());
    assert!(media_of(&lab.take(0)).is_empty());
    // RFC 3311 5.2: nothing is agreed, and the next word is theirs.
    let got = lab.tell(&Ask::back(&invite, "UPDATE", 1).body(SDP).text());
    assert_eq!(status(&got[0]), 500);
    assert!(header(&got[0], "Retry-After").parse::<u32>().unwrap() <= 10);
    let ok = reply(&invite, 200, "peer", CONTACT, SDP);
    let ack = lab.tell(&ok).remove(0);
    assert!(ack.starts_with("ACK ") && body(&ack).contains("m=audio 20000 RTP/AVP 8 101"), "{ack}");
    let events = lab.take(0);
    assert_eq!(media_of(&events)[0].remote_rtp, address("10.0.0.2:30000"));
    assert!(events.contains(&Event::Answered { call }));
    assert_eq!(lab.tell(&ok), [ack], "the same again");
    release(&mut lab, call);
    assert_clean(&mut lab);
}

#[test]
fn c02_a_2xx_without_an_offer_or_with_a_useless_one_ends_the_call() {
    for description in ["", &SDP.replace("RTP/AVP 8 101", "RTP/AVP 18")] {
        let mut lab = delayed();
        let (_, invite) = lab.call_out();
        let got = lab.tell(&reply(&invite, 200, "peer", CONTACT, description));
        assert!(got[0].starts_with("ACK ") && body(&got[0]).is_empty());
        assert!(got[1].starts_with("BYE "));
        lab.tell(&reply(&got[1], 200, "", "", ""));
        assert_eq!(ended(&lab.take(0)).len(), 1);
        assert_clean(&mut lab);
    }
}

// RFC 3262 5: the offer comes in a reliable response, the answer goes in the PRACK.
#[test]
fn c02_an_offer_in_a_reliable_183_is_answered_in_the_prack() {
    let mut lab = delayed();
    let (call, invite) = lab.call_out();
    let prack = lab.tell(&reply(&invite, 183, "peer", &rel(1), SDP)).remove(0);
    assert!(prack.starts_with("PRACK ") && body(&prack).contains("m=audio 20000 RTP/AVP 8 101"), "{prack}");
    assert!(matches!(lab.take(0).last(), Some(Event::Media { early: true, .. })));
    lab.tell(&reply(&prack, 200, "", "", ""));
    let ack = lab.tell(&reply(&invite, 200, "peer", CONTACT, "")).remove(0);
    assert_eq!((body(&ack), header(&ack, "CSeq").as_str()), ("", "1 ACK"));
    let events = lab.take(0);
    assert_eq!(media_of(&events)[0].remote_rtp, address("10.0.0.2:30000"));
    assert!(events.contains(&Event::Answered { call }));
    release(&mut lab, call);
    assert_clean(&mut lab);
}

#[test]
fn c02_a_useless_offer_in_a_reliable_183_cancels_the_call() {
    let mut lab = delayed();
    let (_, invite) = lab.call_out();
    let got = lab.tell(&reply(&invite, 183, "peer", &rel(1), &SDP.replace("RTP/AVP 8 101", "RTP/AVP 18")));
    assert!(got[0].starts_with("PRACK ") && body(&got[0]).is_empty(), "{got:?}");
    assert!(got[1].starts_with("CANCEL "), "{got:?}");
    assert_eq!(ended(&lab.take(0)).len(), 1);
    lab.tell(&reply(&got[1], 200, "", "", ""));
    lab.tell(&reply(&invite, 487, "peer", "", ""));
    assert_clean(&mut lab);
}

#[test]
fn c02_two_endpoints_agree_on_a_delayed_offer() {
    for reliable in [Reliable::Supported, Reliable::Required] {
        let mut pair = Pair::with(Transport::Udp, |a, b| {
            a.trunks[0].delayed_offer = true;
            a.trunks[0].reliable_provisional = reliable;
            b.trunks[0].reliable_provisional = reliable;
        });
        let (a, b) = pair.call();
        pair.command(1, Command::Ringing { call: b });
        pair.run_ms(20);
        pair.command(1, Command::Progress { call: b, media: media(B_RTP) });
        pair.run_ms(50);
        pair.command(1, Command::Answer { call: b, media: media(B_RTP) });
        pair.run_ms(100);
        let events = pair.take(0);
        assert_eq!(media_of(&events).last().unwrap().remote_rtp, address(B_RTP));
        assert!(events.contains(&Event::Answered { call: a }));
        assert_eq!(media_of(&pair.take(1)).last().unwrap().remote_rtp, address(A_RTP));
        pair.command(0, Command::Release { call: a, cause: Cause::NORMAL_CALL_CLEARING });
        pair.assert_clean();
    }
}
