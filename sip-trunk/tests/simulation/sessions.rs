//! Rows C12, C13, D4, D8 to D10: changes before the answer, hold from both sides, session timers.

use std::time::Duration;

use call_model::{Cause, Codec, Direction};
use sip_trunk::trunk::profile::{Modify, Refresher};
use sip_trunk::{Command, Event};

use crate::dialogs::{assert_clean, body, media_of, release};
use crate::net::{A_RTP, B_RTP, Pair, address, ended, media};
use crate::raw::{Ask, CONTACT, Lab, SDP, header, headers, reply, sdp, status};
use crate::reliable::rel;

fn hold(lab: &mut Lab, call: call_model::CallId, on: bool) -> Vec<String> {
    lab.command(0, Command::Hold { call, on });
    lab.run_ms(20);
    lab.inbox(1)
}

/// The lines of a reliable response whose sender takes UPDATE.
fn rel_update(rseq: u32) -> String {
    format!("{}Allow: INVITE, ACK, BYE, CANCEL, PRACK, UPDATE\r\n", rel(rseq))
}

// RFC 3262 5: a PRACK may offer, but ours never does: what is wanted before the answer goes by UPDATE,
// which no response has to wait for. It carries an answer where the response had the offer (row C2).
#[test]
fn c12_our_prack_never_offers() {
    let mut lab = Lab::new();
    let (call, invite) = lab.call_out();
    assert!(hold(&mut lab, call, true).is_empty(), "nothing is agreed on yet");
    let prack = lab.tell(&reply(&invite, 183, "peer", &rel_update(1), SDP)).remove(0);
    assert!(prack.starts_with("PRACK ") && body(&prack).is_empty(), "{prack}");
    assert!(headers(&prack, "Content-Type").is_empty());
    // A description in its 2xx answers nothing, and is passed over.
    let got = lab.tell(&reply(&prack, 200, "", "", &SDP.replace("30000", "31000")));
    assert!(got[0].starts_with("UPDATE ") && body(&got[0]).contains("a=sendonly"), "{got:?}");
    assert_eq!(media_of(&lab.take(0)).len(), 1);
    lab.command(0, Command::Release { call, cause: Cause::NORMAL_CALL_CLEARING });
    lab.run_ms(20);
    lab.tell(&reply(&invite, 487, "peer", "", ""));
    assert_clean(&mut lab);
}

// RFC 3311 5.1: of a call we placed, in its early dialog, after offer and answer have passed.
#[test]
fn c13_our_update_before_the_answer_moves_the_media_of_a_call_we_placed() {
    let mut lab = Lab::new();
    let (call, invite) = lab.call_out();
    let prack = lab.tell(&reply(&invite, 183, "peer", &rel_update(1), SDP)).remove(0);
    lab.tell(&reply(&prack, 200, "", "", ""));
    lab.take(0);
    let update = hold(&mut lab, call, true).remove(0);
    assert!(update.starts_with("UPDATE sip:peer@10.0.0.2:5060;ob SIP/2.0"), "{update}");
    assert!(header(&update, "To").ends_with(";tag=peer"));
    assert_eq!(header(&update, "CSeq"), "3 UPDATE");
    assert!(body(&update).contains("a=sendonly"), "{update}");
    // C14: one at a time, both ways.
    assert!(hold(&mut lab, call, true).is_empty());
    let got = lab.tell(&Ask::back(&invite, "UPDATE", 1).body(&sdp(2, "sendrecv")).text());
    assert_eq!(status(&got[0]), 491);
    let held = sdp(2, "recvonly").replace("30000", "30010");
    assert!(lab.tell(&reply(&update, 200, "", CONTACT, &held)).is_empty(), "no ACK");
    let events = lab.take(0);
    assert!(matches!(&events[..], [Event::Media { early: true, media, .. }]
        if media.direction == Direction::SendOnly && media.remote_rtp == address("10.0.0.2:30010")));
    // The answer finds it so: nothing is left to do, and it can be taken back.
    let got = lab.tell(&reply(&invite, 200, "peer", CONTACT, ""));
    assert_eq!(got.len(), 1, "{got:?}");
    assert_eq!(header(&got[0], "CSeq"), "1 ACK");
    assert_eq!(media_of(&lab.take(0))[0].direction, Direction::SendOnly);
    let resume = hold(&mut lab, call, false).remove(0);
    assert!(resume.starts_with("INVITE ") && header(&resume, "CSeq") == "4 INVITE", "{resume}");
    lab.tell(&reply(&resume, 200, "", CONTACT, &sdp(3, "sendrecv")));
    release(&mut lab, call);
    assert_clean(&mut lab);
}

// A refusal leaves what was agreed, glare waits, an answer of another fork begins anew.
#[test]
fn c13_an_update_that_fails_before_the_answer_harms_nothing() {
    for refusal in [488, 405, 481, 500] {
        let mut lab = Lab::new();
        let (call, invite) = lab.call_out();
        let prack = lab.tell(&reply(&invite, 183, "peer", &rel_update(1), SDP)).remove(0);
        lab.tell(&reply(&prack, 200, "", "", ""));
        lab.take(0);
        let update = hold(&mut lab, call, true).remove(0);
        assert!(lab.tell(&reply(&update, refusal, "", "", "")).is_empty());
        assert!(ended(&lab.take(0)).is_empty(), "{refusal}");
        let got = lab.tell(&reply(&invite, 200, "peer", CONTACT, ""));
        assert!(got[0].starts_with("ACK "));
        // Where the far side only could not do it so, it goes by re-INVITE now.
        assert_eq!(got.len() > 1, matches!(refusal, 405 | 481), "{refusal} {got:?}");
        release(&mut lab, call);
        lab.run_ms(20);
        assert_clean(&mut lab);
    }
    let mut lab = Lab::new();
    let (call, invite) = lab.call_out();
    let prack = lab.tell(&reply(&invite, 183, "one", &rel_update(1), SDP)).remove(0);
    lab.tell(&reply(&prack, 200, "", "", ""));
    let update = hold(&mut lab, call, true).remove(0);
    lab.tell(&reply(&update, 491, "", "", ""));
    lab.run_ms(4_100);
    let again = lab.inbox(1).remove(0);
    assert!(again.starts_with("UPDATE ") && body(&again).contains("a=sendonly"), "{again}");
    lab.take(0);
    let got = lab.tell(&reply(&invite, 200, "two", CONTACT, &SDP.replace("30000", "31000")));
    let reinvite = got.iter().find(|m| m.starts_with("INVITE ")).unwrap();
    assert!(header(reinvite, "To").ends_with("tag=two") && body(reinvite).contains("a=sendonly"));
    assert_eq!(media_of(&lab.take(0))[0].remote_rtp.port(), 31000);
    lab.tell(&reply(&again, 200, "", CONTACT, &sdp(2, "recvonly")));
    assert!(lab.take(0).is_empty(), "of a dialog that is no more");
    lab.tell(&reply(reinvite, 200, "", CONTACT, &sdp(2, "recvonly").replace("30000", "31000")));
    assert_eq!(media_of(&lab.take(0))[0].direction, Direction::SendOnly);
    release(&mut lab, call);
    assert_clean(&mut lab);
}

// RFC 3311 5.1: of a call we received, once its reliable 183 has its PRACK.
#[test]
fn c13_our_update_before_the_answer_moves_the_media_of_a_call_we_received() {
    let mut lab = Lab::new();
    let ask = Ask::invite().line("Require: 100rel").line("Allow: INVITE, ACK, BYE, CANCEL, PRACK, UPDATE");
    let call = lab.call_in(&ask.text());
    lab.inbox(1);
    lab.command(0, Command::Progress { call, media: media(A_RTP) });
    let progress = hold(&mut lab, call, true).remove(0);
    assert_eq!(status(&progress), 183);
    lab.take(0);
    let prack =
        Ask::within(&progress, "PRACK", 2).line(&format!("RAck: {} 1 INVITE", header(&progress, "RSeq")));
    let got = lab.tell(&prack.text());
    let update = got.iter().find(|m| m.starts_with("UPDATE ")).unwrap();
    assert!(body(update).contains("a=sendonly"), "{update}");
    // C14: our offer is open.
    let glare = lab.tell(&Ask::within(&progress, "UPDATE", 3).body(&sdp(2, "sendrecv")).text());
    assert_eq!(status(&glare[0]), 491);
    lab.tell(&reply(update, 200, "", CONTACT, &sdp(2, "recvonly").replace("30000", "30010")));
    let events = lab.take(0);
    assert!(matches!(&events[..], [Event::Media { early: true, media, .. }]
        if media.direction == Direction::SendOnly && media.remote_rtp.port() == 30010));
    lab.command(0, Command::Answer { call, media: media(A_RTP) });
    lab.run_ms(20);
    let ok = lab.inbox(1).pop().unwrap();
    assert_eq!((status(&ok), body(&ok)), (200, ""));
    assert!(lab.tell(&Ask::within(&ok, "ACK", 1).text()).is_empty(), "it is as wanted");
    let resume = hold(&mut lab, call, false).remove(0);
    assert!(resume.starts_with("INVITE ") && body(&resume).contains("a=sendrecv"));
    release(&mut lab, call);
    lab.tell(&reply(&resume, 487, "", "", ""));
    assert_clean(&mut lab);
}

// A trunk may want UPDATE for changes after the answer too; where the far side cannot, it is a re-INVITE.
#[test]
fn c13_a_trunk_may_want_update_for_changes() {
    for (allow, method) in [("Allow: INVITE, UPDATE\r\n", "UPDATE "), ("Allow: INVITE\r\n", "INVITE ")] {
        let mut lab = Lab::with(|config| config.trunks[0].modify = Modify::Update);
        let (call, invite) = lab.call_out();
        lab.tell(&reply(&invite, 200, "peer", &format!("{CONTACT}{allow}"), SDP));
        lab.take(0);
        let held = hold(&mut lab, call, true).remove(0);
        assert!(held.starts_with(method) && body(&held).contains("a=sendonly"), "{held}");
        let got = lab.tell(&reply(&held, 200, "", CONTACT, &sdp(2, "recvonly")));
        assert_eq!(got.len(), usize::from(method == "INVITE "), "an ACK is for INVITE");
        assert_eq!(media_of(&lab.take(0))[0].direction, Direction::SendOnly);
        release(&mut lab, call);
        assert_clean(&mut lab);
    }
}

/// A call of the peer that both sides hold.
fn held_twice() -> (Lab, call_model::CallId, String) {
    let mut lab = Lab::new();
    let (call, ok) = lab.call_in_answered();
    let got = lab.tell(&Ask::within(&ok, "INVITE", 2).body(&sdp(2, "sendonly")).text());
    assert!(body(&got[0]).contains("a=recvonly"));
    lab.tell(&Ask::within(&ok, "ACK", 2).text());
    assert_eq!(media_of(&lab.take(0))[0].direction, Direction::RecvOnly);
    let ours = hold(&mut lab, call, true).remove(0);
    assert!(body(&ours).contains("a=sendonly"), "{ours}");
    lab.tell(&reply(&ours, 200, "", CONTACT, &sdp(3, "inactive")));
    assert_eq!(media_of(&lab.take(0))[0].direction, Direction::Inactive);
    (lab, call, ok)
}

// RFC 3264 8.4, RFC 6337 5.3: each side takes back its own hold, and only that.
#[test]
fn d04_both_sides_hold_and_resume_in_either_order() {
    let (mut lab, call, ok) = held_twice();
    let got = lab.tell(&Ask::within(&ok, "INVITE", 3).body(&sdp(4, "sendrecv")).text());
    assert!(body(&got[0]).contains("a=sendonly"), "we still hold: {}", got[0]);
    lab.tell(&Ask::within(&ok, "ACK", 3).text());
    assert_eq!(media_of(&lab.take(0))[0].direction, Direction::SendOnly);
    let resume = hold(&mut lab, call, false).remove(0);
    assert!(body(&resume).contains("a=sendrecv"));
    lab.tell(&reply(&resume, 200, "", CONTACT, &sdp(5, "sendrecv")));
    assert_eq!(media_of(&lab.take(0))[0].direction, Direction::SendRecv);
    release(&mut lab, call);
    assert_clean(&mut lab);

    let (mut lab, call, ok) = held_twice();
    let resume = hold(&mut lab, call, false).remove(0);
    assert!(body(&resume).contains("a=sendrecv"));
    lab.tell(&reply(&resume, 200, "", CONTACT, &sdp(4, "sendonly")));
    let agreed = media_of(&lab.take(0));
    assert_eq!(agreed[0].direction, Direction::RecvOnly, "they still hold");
    // The same c= line and port as ever, and the old way to hold in between.
    let zero = sdp(5, "sendonly").replace("c=IN IP4 10.0.0.2", "c=IN IP4 0.0.0.0");
    lab.tell(&Ask::within(&ok, "INVITE", 3).body(&zero).text());
    lab.tell(&Ask::within(&ok, "ACK", 3).text());
    let got = lab.tell(&Ask::within(&ok, "INVITE", 4).body(&sdp(6, "sendrecv")).text());
    assert!(body(&got[0]).contains("a=sendrecv"));
    lab.tell(&Ask::within(&ok, "ACK", 4).text());
    let last = media_of(&lab.take(0)).pop().unwrap();
    assert_eq!((last.direction, last.remote_rtp), (Direction::SendRecv, agreed[0].remote_rtp));
    release(&mut lab, call);
    assert_clean(&mut lab);
}

// Two of us, each of which holds.
#[test]
fn d04_two_endpoints_hold_each_other() {
    let mut pair = Pair::new(sip_trunk::Transport::Udp);
    let (a, b) = pair.answered();
    for (side, call, on) in [(0, a, true), (1, b, true), (0, a, false), (1, b, false)] {
        pair.command(side, Command::Hold { call, on });
        pair.run_ms(100);
    }
    for side in [0, 1] {
        let seen: Vec<_> = media_of(&pair.take(side)).iter().map(|m| m.direction).collect();
        let first = [Direction::SendOnly, Direction::RecvOnly][side];
        assert_eq!(seen[1..], [first, Direction::Inactive, first.reversed(), Direction::SendRecv], "{side}");
    }
    pair.command(0, Command::Release { call: a, cause: Cause::NORMAL_CALL_CLEARING });
    pair.assert_clean();
}

fn timed(seconds: u32, refresher: Refresher) -> Lab {
    Lab::with(|config| {
        config.trunks[0].session_expires = Some(seconds);
        config.trunks[0].refresher = refresher;
    })
}

// RFC 4028 7.3: again with the interval demanded, the same Call-ID and From tag, and the next CSeq.
#[test]
fn d08_a_422_to_an_invite_is_met() {
    let mut lab = timed(120, Refresher::Gateway);
    let (call, invite) = lab.call_out();
    assert_eq!(header(&invite, "Session-Expires"), "120;refresher=uac");
    let got = lab.tell(&reply(&invite, 422, "x", "Min-SE: 300\r\n", ""));
    assert!(got[0].starts_with("ACK ") && got[1].starts_with("INVITE "), "{got:?}");
    let again = &got[1];
    assert_eq!(header(again, "Session-Expires"), "300;refresher=uac");
    assert_eq!(header(again, "Min-SE"), "300");
    for name in ["Call-ID", "From", "To"] {
        assert_eq!(header(again, name), header(&invite, name));
    }
    assert_eq!(header(again, "CSeq"), "2 INVITE");
    assert_eq!(body(again), body(&invite));
    // A proxy behind it wants still more.
    let got = lab.tell(&reply(again, 422, "y", "Min-SE: 600\r\n", ""));
    let third = &got[1];
    assert_eq!(
        (header(third, "Session-Expires").as_str(), header(third, "Min-SE").as_str()),
        ("600;refresher=uac", "600")
    );
    let lines = format!("{CONTACT}Require: timer\r\nSession-Expires: 600;refresher=uac\r\n");
    lab.tell(&reply(third, 200, "peer", &lines, SDP));
    assert!(lab.take(0).contains(&Event::Answered { call }));
    // And every refresh says so.
    lab.run_ms(300_100);
    let refresh = lab.inbox(1).remove(0);
    assert_eq!(
        (header(&refresh, "Session-Expires").as_str(), header(&refresh, "Min-SE").as_str()),
        ("600;refresher=uac", "600")
    );
    release(&mut lab, call);
}

// It is no loop: a peer that asks for ever more, for nothing, or for an interval where we ask for none.
#[test]
fn d08_a_422_is_not_met_for_ever() {
    let mut lab = timed(120, Refresher::AsAsked);
    let (_, invite) = lab.call_out();
    assert_eq!(header(&invite, "Session-Expires"), "120");
    let mut last = invite;
    let mut tries = 1;
    loop {
        let got = lab.tell(&reply(&last, 422, "x", &format!("Min-SE: {}\r\n", tries * 200), ""));
        let Some(next) = got.into_iter().find(|m| m.starts_with("INVITE ")) else { break };
        (last, tries) = (next, tries + 1);
    }
    assert_eq!(tries, 5);
    assert_eq!(ended(&lab.take(0)).iter().map(|e| e.1).collect::<Vec<_>>(), [Some(422)]);
    assert_clean(&mut lab);
    let mut lab = timed(120, Refresher::AsAsked);
    let (_, invite) = lab.call_out();
    let got = lab.tell(&reply(&invite, 422, "x", "", ""));
    assert_eq!(got.len(), 1, "nothing is demanded: {got:?}");
    assert_eq!(ended(&lab.take(0)).len(), 1);
    // A proxy put a timer into an INVITE of ours that had none.
    let mut lab = Lab::new();
    let (_, invite) = lab.call_out();
    assert!(headers(&invite, "Session-Expires").is_empty());
    let got = lab.tell(&reply(&invite, 422, "x", "Min-SE: 1800\r\n", ""));
    assert_eq!(header(&got[1], "Session-Expires"), "1800");
}

// RFC 4028 7.2, 10: a far side without timers is refreshed by us, and no interval that passes ends it.
#[test]
fn d09_a_peer_without_timers_is_refreshed_and_never_expires() {
    for refresher in [Refresher::AsAsked, Refresher::Gateway, Refresher::Peer] {
        let mut lab = timed(120, refresher);
        let (call, invite) = lab.call_out();
        lab.tell(&reply(&invite, 200, "peer", CONTACT, SDP));
        lab.take(0);
        for _ in 0..3 {
            lab.run_ms(60_100);
            let refresh = lab.inbox(1).remove(0);
            assert!(refresh.starts_with("INVITE "), "{refresh}");
            assert_eq!(body(&refresh), body(&invite), "D10: word for word");
            lab.tell(&reply(&refresh, 200, "", CONTACT, SDP));
        }
        // It cannot answer refreshes at all: they are tried, and the call goes on.
        for _ in 0..20 {
            lab.run_ms(30_000);
            for refresh in lab.inbox(1).into_iter().filter(|m| m.starts_with("INVITE ")) {
                lab.tell(&reply(&refresh, 500, "", "", ""));
            }
        }
        assert!(lab.sent(0, "INVITE ") > 8, "{}", lab.sent(0, "INVITE "));
        assert!(lab.take(0).is_empty(), "neither an end nor other media");
        release(&mut lab, call);
        assert_clean(&mut lab);
    }
}

// The same of a call we received; and a caller with timers is told of one.
#[test]
fn d09_a_caller_without_timers_is_refreshed_and_never_expires() {
    let mut lab = timed(120, Refresher::Gateway);
    let (call, ok) = lab.call_in_answered();
    assert_eq!(header(&ok, "Session-Expires"), "120;refresher=uas");
    assert!(headers(&ok, "Require").is_empty());
    lab.run_ms(60_100);
    let refresh = lab.inbox(1).remove(0);
    assert!(refresh.starts_with("INVITE "));
    assert_eq!(body(&refresh), body(&ok), "D10");
    lab.tell(&reply(&refresh, 500, "", "", ""));
    for _ in 0..20 {
        lab.run_ms(30_000);
        for refresh in lab.inbox(1).into_iter().filter(|m| m.starts_with("INVITE ")) {
            lab.tell(&reply(&refresh, 500, "", "", ""));
        }
    }
    assert!(lab.take(0).is_empty());
    release(&mut lab, call);
    assert_clean(&mut lab);
    // RFC 4028 9: who refreshes is ours to say, where the caller knows timers.
    for (refresher, expected) in
        [(Refresher::Peer, "1800;refresher=uac"), (Refresher::Gateway, "1800;refresher=uas")]
    {
        let mut lab = timed(1800, refresher);
        let call = lab.call_in(&Ask::invite().line("Supported: timer").text());
        lab.command(0, Command::Answer { call, media: media(A_RTP) });
        lab.run_ms(20);
        let ok = lab.inbox(1).pop().unwrap();
        assert_eq!(header(&ok, "Session-Expires"), expected);
        assert_eq!(headers(&ok, "Require"), ["timer"], "{refresher:?}");
    }
}

// RFC 4028 7.4, RFC 3264 8: our refresh repeats our last description under its version, whether it was an
// offer or an answer; nothing changes, so nothing is told.
#[test]
fn d10_our_refresh_changes_nothing() {
    let mut lab = Lab::new();
    // The peer prefers what we would not have put first.
    let theirs =
        SDP.replace("8 101", "97 8 96").replace("rtpmap:8 PCMA", "rtpmap:97 PCMU").replace("101", "96");
    let ask = Ask::invite().body(&theirs).line("Session-Expires: 120").line("X-None: 1");
    let call = lab.call_in(&ask.text());
    lab.command(0, Command::Answer { call, media: media(A_RTP) });
    lab.run_ms(20);
    let ok = lab.inbox(1).pop().unwrap();
    lab.tell(&Ask::within(&ok, "ACK", 1).text());
    let before = media_of(&lab.take(0)).remove(0);
    assert_eq!((before.codec, before.receive_payload_type), (Codec::Pcmu, 97));
    for _ in 0..3 {
        lab.run_ms(60_100);
        let refresh = lab.inbox(1).remove(0);
        assert!(refresh.starts_with("INVITE "), "{refresh}");
        assert_eq!(body(&refresh), body(&ok));
        let lines = format!("{CONTACT}Session-Expires: 120;refresher=uac\r\n");
        lab.tell(&reply(&refresh, 200, "", &lines, &theirs));
        assert!(lab.take(0).is_empty());
    }
    // After a hold and its end too, and after one that was refused.
    let held = hold(&mut lab, call, true).remove(0);
    lab.tell(&reply(
        &held,
        200,
        "",
        CONTACT,
        &theirs.replace("1 1 IN", "1 2 IN").replace("sendrecv", "recvonly"),
    ));
    let resumed = hold(&mut lab, call, false).remove(0);
    lab.tell(&reply(
        &resumed,
        200,
        "",
        &format!("{CONTACT}Session-Expires: 120;refresher=uac\r\n"),
        &theirs.replace("1 1 IN", "1 3 IN"),
    ));
    assert_eq!(media_of(&lab.take(0)).pop().unwrap().codec, before.codec);
    lab.run_ms(60_100);
    let refresh = lab.inbox(1).remove(0);
    assert_eq!(body(&refresh), body(&resumed));
    release(&mut lab, call);
}

// The other way round: theirs changes nothing either, by re-INVITE or UPDATE, with SDP or without.
#[test]
fn d10_their_refresh_changes_nothing() {
    let mut lab = Lab::new();
    let (call, ok) = lab.call_in_answered();
    for (method, cseq, description) in [("INVITE", 2, SDP), ("UPDATE", 3, SDP), ("UPDATE", 4, "")] {
        let ask = Ask::within(&ok, method, cseq)
            .line("Supported: timer")
            .line("Session-Expires: 1800;refresher=uac");
        let got = lab.tell(&ask.body(description).text());
        assert_eq!(status(&got[0]), 200);
        if !description.is_empty() {
            assert_eq!(body(&got[0]), body(&ok), "{method}");
        }
        if method == "INVITE" {
            lab.tell(&Ask::within(&ok, "ACK", cseq).text());
        }
        assert!(lab.take(0).is_empty(), "{method} {description}");
    }
    lab.run(Duration::from_secs(600));
    release(&mut lab, call);
    assert_clean(&mut lab);
    let mut pair = Pair::with(sip_trunk::Transport::Udp, |a, _| a.trunks[0].session_expires = Some(90));
    let (a, b) = pair.call();
    pair.command(1, Command::Answer { call: b, media: media(B_RTP) });
    pair.run_ms(100);
    pair.take(0);
    pair.take(1);
    pair.run(Duration::from_secs(3600));
    assert!(pair.take(0).is_empty() && pair.take(1).is_empty());
    pair.command(0, Command::Release { call: a, cause: Cause::NORMAL_CALL_CLEARING });
    pair.assert_clean();
}
