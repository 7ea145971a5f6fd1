//! What goes wrong on the way: requests that hang, connections that die, answers in the wrong order,
//! and far sides that send more than they should.

use std::time::Duration;

use call_model::{Cause, Direction};
use sip_trunk::{
    Command, CommandError, EndedBy, Endpoint, EndpointConfig, Event, LargeRequests, Listener, Transport,
    TrunkConfig,
};

use crate::dialogs::{CHALLENGE, assert_clean, media_of, release, with_password};
use crate::net::{A_RTP, B, B_RTP, Pair, address, call_id, caller, config, ended, media, number, trunk_name};
use crate::raw::{Ask, CONTACT, Lab, SDP, header, headers, reply, sdp, status};

/// The gateway holds, and the peer says no more than 100. Returns the re-INVITE.
fn hanging_hold(lab: &mut Lab, call: call_model::CallId) -> String {
    lab.take(0);
    lab.command(0, Command::Hold { call, on: true });
    lab.run_ms(20);
    let hold = lab.inbox(1).remove(0);
    lab.tell(&reply(&hold, 100, "", "", ""));
    hold
}

// RFC 3261 17.1.1.2 has no timer in Proceeding: without one the dialog would be blocked for good.
#[test]
fn a_reinvite_that_never_ends_is_cancelled_and_ends_the_call() {
    let mut lab = Lab::new();
    let (call, invite) = lab.call_out_answered();
    let hold = hanging_hold(&mut lab, call);
    lab.run(Duration::from_secs(31));
    let got = lab.tell(&Ask::back(&invite, "INVITE", 1).body(&sdp(2, "sendrecv")).text());
    assert_eq!(status(&got[0]), 491);
    lab.run(Duration::from_secs(2));
    let got = lab.inbox(1);
    let cancel = got.iter().find(|m| m.starts_with("CANCEL ")).expect("no CANCEL");
    assert_eq!(header(cancel, "Via"), header(&hold, "Via"));
    let bye = got.iter().find(|m| m.starts_with("BYE ")).expect("no BYE");
    assert_eq!(ended(&lab.take(0)), [(Cause::RECOVERY_ON_TIMER_EXPIRY, None, EndedBy::Timeout)]);
    lab.tell(&reply(cancel, 200, "", "", ""));
    lab.tell(&reply(bye, 200, "", "", ""));
    assert_clean(&mut lab);
}

#[test]
fn a_bye_either_way_leaves_no_reinvite_behind() {
    for ours in [true, false] {
        let mut lab = Lab::new();
        let (call, invite) = lab.call_out_answered();
        let hold = hanging_hold(&mut lab, call);
        if ours {
            release(&mut lab, call);
            let bye = lab.inbox(1).pop().unwrap();
            lab.tell(&reply(&bye, 200, "", "", ""));
        } else {
            assert_eq!(status(&lab.tell(&Ask::back(&invite, "BYE", 1).text())[0]), 200);
        }
        assert_eq!(ended(&lab.take(0)).len(), 1);
        // RFC 3261 13.2.2.4: a late answer is acknowledged, and that is all.
        let got = lab.tell(&reply(&hold, 200, "", CONTACT, &sdp(2, "recvonly")));
        assert_eq!(got.len(), 1, "{got:?}");
        assert!(got[0].starts_with("ACK "));
        lab.run(Duration::from_secs(70));
        lab.assert_empty(0);
    }
    let mut lab = Lab::new();
    let (call, _) = lab.call_out_answered();
    hanging_hold(&mut lab, call);
    release(&mut lab, call);
    assert_clean(&mut lab);
}

// RFC 4028 10: there is time for another try before the session expires.
#[test]
fn d06_a_refused_refresh_is_tried_again() {
    let mut lab = Lab::new();
    let (call, invite) = lab.call_out();
    let lines = format!("{CONTACT}Session-Expires: 120;refresher=uac\r\n");
    lab.tell(&reply(&invite, 200, "peer", &lines, SDP));
    lab.take(0);
    lab.run_ms(60_100);
    let refresh = lab.inbox(1).remove(0);
    lab.tell(&reply(&refresh, 500, "", "Retry-After: 7 (in a moment);duration=3\r\n", ""));
    lab.run_ms(6_800);
    assert!(lab.inbox(1).is_empty());
    lab.run_ms(300);
    let refresh = lab.inbox(1).remove(0);
    assert!(refresh.starts_with("INVITE "), "{refresh}");
    lab.tell(&reply(&refresh, 503, "", "", ""));
    lab.run_ms(11_000);
    let refresh = lab.inbox(1).remove(0);
    assert!(refresh.starts_with("INVITE "), "{refresh}");
    lab.tell(&reply(&refresh, 200, "", &lines, SDP));
    lab.run_ms(59_000);
    let events = lab.take(0);
    assert!(events.is_empty(), "neither ended nor changed: {events:?}");
    release(&mut lab, call);
    assert_clean(&mut lab);
}

// RFC 3261 14.1: the session goes on as it was, and the user learns that.
#[test]
fn d05_a_refused_hold_is_reported() {
    let mut lab = Lab::new();
    let (call, _) = lab.call_out_answered();
    lab.take(0);
    lab.command(0, Command::Hold { call, on: true });
    lab.run_ms(20);
    let hold = lab.inbox(1).remove(0);
    lab.tell(&reply(&hold, 488, "", "", ""));
    assert_eq!(media_of(&lab.take(0))[0].direction, Direction::SendRecv);
    // Another try is another re-INVITE.
    lab.command(0, Command::Hold { call, on: true });
    lab.run_ms(20);
    assert!(lab.inbox(1)[0].starts_with("INVITE "));
    release(&mut lab, call);
    assert_clean(&mut lab);
}

fn invite(pair: &mut Pair, call: u64) {
    let command = Command::Invite {
        call: call_id(call),
        trunk: trunk_name("far"),
        called: number("+442079460018"),
        caller: caller("+12025550100"),
        media: media(A_RTP),
    };
    pair.command(0, command);
}

// RFC 5923 leaves reuse to us: what carried nothing back for 64 T1 is not used again.
#[test]
fn a18_a_connection_that_died_silently_is_replaced() {
    let mut pair = Pair::new(Transport::Tcp);
    let (a, _) = pair.answered();
    pair.take(1);
    pair.freeze_all();
    pair.command(0, Command::Release { call: a, cause: Cause::NORMAL_CALL_CLEARING });
    pair.run(Duration::from_secs(33));
    assert_eq!(ended(&pair.take(1)), [(Cause::NORMAL_CALL_CLEARING, None, EndedBy::Far)]);
    assert_eq!(pair.endpoint(0).counters().refused["dead_connection"], 1);
    pair.assert_clean();

    let mut pair = Pair::new(Transport::Tcp);
    pair.answered();
    pair.take(0);
    pair.take(1);
    pair.freeze_all();
    invite(&mut pair, 900);
    pair.run(Duration::from_secs(33));
    assert_eq!(ended(&pair.take(0)), [(Cause::RECOVERY_ON_TIMER_EXPIRY, None, EndedBy::Timeout)]);
    invite(&mut pair, 901);
    pair.run_ms(100);
    assert!(pair.take(1).iter().any(|e| matches!(e, Event::Incoming { .. })));
}

// RFC 3261 18.4, 17.1.4: whoever is not told of the end keeps the call.
#[test]
fn a18_a_bye_that_was_lost_with_its_connection_is_sent_again() {
    let mut pair = Pair::new(Transport::Tcp);
    let (a, _) = pair.answered();
    pair.take(1);
    pair.freeze_all();
    pair.command(0, Command::Release { call: a, cause: Cause::USER_BUSY });
    pair.run_ms(100);
    assert!(ended(&pair.take(1)).is_empty());
    pair.reset_frozen();
    pair.run_ms(100);
    assert_eq!(ended(&pair.take(1)), [(Cause::USER_BUSY, None, EndedBy::Far)], "with its Reason");
    pair.assert_clean();
}

// RFC 3261 18.1.1: TCP was chosen for the size alone.
#[test]
fn a14_requests_in_a_dialog_fall_back_to_udp_too() {
    let mut pair = Pair::with(Transport::Udp, |a, _| {
        a.user_agent = "z".repeat(900);
        a.trunks[0].large_requests = LargeRequests::PreferTcp;
    });
    let (a, _) = pair.answered();
    pair.closed_ports.push(address(B));
    pair.cut_all();
    pair.run_ms(50);
    pair.take(1);
    pair.command(0, Command::Hold { call: a, on: true });
    pair.run_ms(2_200);
    assert_eq!(media_of(&pair.take(1))[0].direction, Direction::RecvOnly);
    pair.command(0, Command::Release { call: a, cause: Cause::NORMAL_CALL_CLEARING });
    pair.run_ms(100);
    assert_eq!(ended(&pair.take(1)).len(), 1);
    let bye = &pair.log.iter().find(|m| m.3.starts_with("BYE ")).unwrap().3;
    assert!(header(bye, "Via").starts_with("SIP/2.0/UDP "), "{bye}");
    pair.assert_clean();

    let mut pair = Pair::with(Transport::Udp, |a, _| a.user_agent = "z".repeat(900));
    let (a, _) = pair.answered();
    pair.closed_ports.push(address(B));
    pair.cut_all();
    pair.run_ms(50);
    pair.take(1);
    pair.command(0, Command::Release { call: a, cause: Cause::NORMAL_CALL_CLEARING });
    pair.run_ms(100);
    assert_eq!(ended(&pair.take(1)).len(), 1);
    pair.assert_clean();
}

// RFC 3261 17.1.4, 18.2.2: the final response comes over a new connection.
#[test]
fn a18_a_call_that_rings_survives_its_connection() {
    let mut pair = Pair::new(Transport::Tcp);
    let (a, b) = pair.call();
    pair.command(1, Command::Ringing { call: b });
    pair.run_ms(50);
    pair.cut_all();
    pair.run_ms(50);
    pair.command(1, Command::Answer { call: b, media: media(B_RTP) });
    pair.run_ms(100);
    let events = pair.take(0);
    assert!(events.contains(&Event::Answered { call: a }), "{events:?}");
    assert_eq!(pair.sent(0, "INVITE"), 1);
    pair.command(0, Command::Release { call: a, cause: Cause::NORMAL_CALL_CLEARING });
    pair.assert_clean();

    let mut pair = Pair::new(Transport::Tcp);
    let (a, b) = pair.call();
    pair.command(1, Command::Ringing { call: b });
    pair.run_ms(50);
    pair.cut_all();
    pair.run_ms(50);
    pair.take(1);
    pair.command(0, Command::Release { call: a, cause: Cause::NORMAL_CALL_CLEARING });
    pair.run_ms(100);
    assert_eq!(ended(&pair.take(1)), [(Cause::NORMAL_CALL_CLEARING, Some(487), EndedBy::Far)]);
    assert_eq!(pair.sent(0, "INVITE"), 1);
    pair.assert_clean();
}

// Each 2xx costs an ACK and a BYE to wherever it says.
#[test]
fn a04_the_forks_of_one_invite_are_bounded() {
    let mut lab = Lab::new();
    let (_, invite) = lab.call_out_answered();
    for n in 0..20 {
        let contact = format!("Contact: <sip:x@10.0.0.2:5060;n={n}>\r\n");
        for _ in 0..2 {
            lab.tell(&reply(&invite, 200, &format!("fork{n}"), &contact, SDP));
        }
    }
    let sent = |start: &str| {
        let new = lab.log.iter().filter(|m| m.3.starts_with(start)).map(|m| header(&m.3, "To"));
        new.collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!((sent("ACK "), sent("BYE ")), (8, 7));
    assert_eq!(lab.endpoint(0).counters().refused["forks"], 26);
    assert!(ended(&lab.take(0)).is_empty());
}

#[test]
fn g03_client_transactions_are_bounded() {
    let mut lab = Lab::with(|config| config.limits.transactions = 4);
    let mut invites = Vec::new();
    for n in 1..=5 {
        let command = Command::Invite {
            call: call_id(n),
            trunk: trunk_name("far"),
            called: number("+442079460018"),
            caller: caller("+12025550100"),
            media: media(A_RTP),
        };
        let done = lab.try_command(0, command);
        assert_eq!(done, if n <= 4 { Ok(()) } else { Err(CommandError::NoChannel) });
        lab.run_ms(20);
        invites.extend(lab.inbox(1));
    }
    for invite in &invites {
        lab.tell(&reply(invite, 200, "peer", CONTACT, SDP));
    }
    for n in 1..=4 {
        lab.command(0, Command::Release { call: call_id(n), cause: Cause::NORMAL_CALL_CLEARING });
        assert!(lab.endpoint(0).counters().client_transactions <= 5);
    }
    assert!(lab.endpoint(0).counters().refused["client_transactions"] >= 3);
    assert_eq!(ended(&lab.take(0)).len(), 4);
    lab.run(Duration::from_secs(200));
    lab.assert_empty(0);
}

// RFC 3261 22: the BYE of a dialog nobody wants is a request like any other.
#[test]
fn b08_the_bye_of_an_unwanted_fork_answers_a_challenge() {
    let mut lab = with_password();
    let (call, invite) = lab.call_out();
    lab.tell(&reply(&invite, 180, "peer", CONTACT, ""));
    release(&mut lab, call);
    lab.inbox(1);
    let got = lab.tell(&reply(&invite, 200, "peer", CONTACT, SDP));
    assert!(got[0].starts_with("ACK ") && got[1].starts_with("BYE "), "{got:?}");
    let challenge = format!("WWW-Authenticate: {CHALLENGE}");
    let again = lab.tell(&reply(&got[1], 401, "", &challenge, ""));
    assert_eq!(again.len(), 1);
    assert!(header(&again[0], "Authorization").contains("username=\"gw\""));
    assert_eq!(header(&again[0], "Reason"), header(&got[1], "Reason"));
    lab.tell(&reply(&again[0], 200, "", "", ""));
    assert_eq!(lab.endpoint(0).counters().held_calls, 0);
    lab.run(Duration::from_secs(100));
    lab.assert_empty(0);
}

// The access list is about who comes to us, not about where a Contact sends us.
#[test]
fn a_connection_to_a_contact_of_no_trunk_is_kept_and_takes_responses_only() {
    let mut lab = Lab::new();
    let elsewhere = lab.net.add_raw(address("10.0.0.9:5060"));
    let (call, invite) = lab.call_out();
    let contact = "Contact: <sip:peer@10.0.0.9:5060;transport=tcp>\r\n";
    lab.tell(&reply(&invite, 200, "peer", contact, SDP));
    lab.run_ms(50);
    assert!(lab.inbox(elsewhere).concat().starts_with("ACK "));
    assert_eq!(lab.endpoint(0).counters().connections, 1);
    let link = lab.latest_link(elsewhere);
    let request = Ask::invite().text();
    lab.raw_write(elsewhere, link, &request);
    lab.run_ms(50);
    assert!(lab.inbox(elsewhere).concat().starts_with("SIP/2.0 403 "));
    assert_eq!(lab.incoming(), None);
    release(&mut lab, call);
    let bye = lab.inbox(elsewhere).concat();
    assert!(bye.starts_with("BYE "), "{bye}");
    lab.raw_write(elsewhere, link, &reply(&bye, 200, "", "", ""));
    lab.run_ms(50);
    assert_eq!(lab.endpoint(0).counters().held_calls, 0);
}

#[test]
fn requests_leave_by_the_listener_of_their_trunk() {
    let second = address("10.0.0.3:5070");
    let mut lab = Lab::with(|config| {
        config.listeners.push(Listener { transport: Transport::Udp, local: second });
        config.trunks[0].local = Some(second);
    });
    let command = Command::Invite {
        call: call_id(1),
        trunk: trunk_name("far"),
        called: number("+442079460018"),
        caller: caller("+12025550100"),
        media: media(A_RTP),
    };
    lab.command(0, command);
    lab.run_ms(20);
    let invite = lab.inbox(1).remove(0);
    assert_eq!(lab.log[0].1, second);
    assert!(header(&invite, "Via").starts_with("SIP/2.0/UDP 10.0.0.3:5070;"));
    assert_eq!(header(&invite, "Contact"), "<sip:10.0.0.3:5070>");
    // What the peer names another port for goes out by it too.
    let text = reply(&invite, 200, "peer", "Contact: <sip:x@10.0.0.2:5999>\r\n", SDP);
    let now = lab.now;
    lab.endpoint(0).handle_datagram(now, second, address(B), text.as_bytes());
    lab.run_ms(20);
    let ack = lab.log.iter().find(|m| m.3.starts_with("ACK ")).unwrap();
    assert_eq!((ack.1, ack.2), (second, address("10.0.0.2:5999")));

    let mut foreign = config(crate::net::A, B, Transport::Udp);
    let trunk = TrunkConfig { local: Some(second), ..foreign.trunks[0].clone() };
    foreign.trunks[0] = trunk;
    assert!(Endpoint::new(foreign, [0; 32], lab.now, 0).is_err());
}

// RFC 3261 13.3.1.1: a provisional response every minute.
#[test]
fn an_incoming_call_rings_as_long_as_its_trunk_lets_it_and_says_so_every_minute() {
    let mut lab = Lab::with(|config| config.trunks[0].answer_timeout = Some(Duration::from_secs(290)));
    let call = lab.call_in(&Ask::invite().text());
    lab.command(0, Command::Ringing { call });
    lab.run(Duration::from_secs(289));
    let got = lab.inbox(1);
    assert_eq!(got.iter().filter(|m| status(m) == 180).count(), 5, "at once and after 60, 120, 180, 240 s");
    assert!(got.iter().all(|m| status(m) < 200));
    lab.run(Duration::from_secs(2));
    assert_eq!(status(&lab.inbox(1)[0]), 480);
    let ends = ended(&lab.take(0));
    assert_eq!(ends, [(Cause::NO_ANSWER_FROM_USER, Some(480), EndedBy::Timeout)]);
}

// RFC 3261 12.1.2: RFC 2543 peers send no tag.
#[test]
fn c05_a_180_without_a_tag_rings() {
    let mut lab = Lab::new();
    let (call, invite) = lab.call_out();
    lab.tell(&reply(&invite, 180, "", CONTACT, ""));
    assert_eq!(lab.take(0), [Event::Trying { call }, Event::Ringing { call }]);
    lab.tell(&reply(&invite, 183, "", CONTACT, SDP));
    assert_eq!(media_of(&lab.take(0)).len(), 1);
}

#[test]
fn control_characters_reach_no_event() {
    let mut lab = Lab::new();
    let (_, invite) = lab.call_out();
    lab.tell(&reply(&invite, 486, "peer", "", "").replace("Whatever", "Bu\u{1b}[2Jsy"));
    let events = lab.take(0);
    let text = events.iter().find_map(|e| match e {
        Event::Ended { text, .. } => Some(text.as_str()),
        _ => None,
    });
    assert_eq!(text, Some("Bu[2Jsy"));
    let mut lab = Lab::new();
    let mut ask = Ask::invite();
    ask.uri = "sip:4%0d%0a%1b2@10.0.0.1".to_owned();
    lab.tell(&ask.text());
    let Event::Incoming { called_user, .. } = &lab.take(0)[0] else { panic!() };
    assert_eq!(called_user, "42");
}

// RFC 3261 15: the callee's BYE may be faster than its 2xx.
#[test]
fn d19_a_bye_that_overtakes_its_2xx_ends_the_call() {
    for seen in [true, false] {
        let mut lab = Lab::new();
        let (_, invite) = lab.call_out();
        lab.tell(&reply(&invite, 180, if seen { "peer" } else { "other" }, CONTACT, ""));
        lab.take(0);
        let bye = Ask::back(&invite, "BYE", 1).line("Reason: Q.850;cause=17");
        assert_eq!(status(&lab.tell(&bye.text())[0]), 200);
        assert!(ended(&lab.take(0)).is_empty(), "another fork may still answer");
        let got = lab.tell(&reply(&invite, 200, "peer", CONTACT, SDP));
        assert_eq!(got.len(), 1, "{got:?}");
        assert!(got[0].starts_with("ACK "));
        let events = lab.take(0);
        assert_eq!(ended(&events), [(Cause::USER_BUSY, None, EndedBy::Far)]);
        assert_eq!(events.len(), 1, "never answered: {events:?}");
        lab.run(Duration::from_secs(70));
        lab.assert_empty(0);
    }
}

// RFC 3261 19.1.1 table 1.
#[test]
fn e08_from_and_to_name_no_port() {
    let mut lab = Lab::with(|config| {
        config.trunks[0].host = "pbx.example:5080".to_owned();
        config.trunks[0].options_interval = Some(Duration::from_secs(30));
    });
    let (_, invite) = lab.call_out();
    assert!(invite.starts_with("INVITE sip:+442079460018@pbx.example:5080 SIP/2.0"), "{invite}");
    assert_eq!(header(&invite, "To"), "<sip:+442079460018@pbx.example>");
    assert!(header(&invite, "From").starts_with("<sip:+12025550100@10.0.0.1>;tag="));
    lab.run_ms(2100);
    let options = lab.inbox(1).into_iter().find(|m| m.starts_with("OPTIONS ")).unwrap();
    assert!(options.starts_with("OPTIONS sip:pbx.example:5080 SIP/2.0"));
    assert_eq!(header(&options, "To"), "<sip:pbx.example>");
    assert!(header(&options, "From").starts_with("<sip:10.0.0.1>;tag="));
}

// RFC 3261 11.1; Teams takes no OPTIONS without a Contact for a sign of life.
#[test]
fn a28_options_say_where_we_are() {
    let mut lab = Lab::with(|config| config.trunks[0].options_interval = Some(Duration::from_secs(30)));
    lab.run_ms(2100);
    let options = lab.inbox(1).into_iter().find(|m| m.starts_with("OPTIONS ")).unwrap();
    assert_eq!(headers(&options, "Contact"), ["<sip:10.0.0.1:5060>"]);
}

// RFC 3261 8.1.1.8, 12.1.1: a name of ours stands in Contact both ways, for peers that know no address.
#[test]
fn contact_has_our_name_where_one_is_given() {
    let named = |config: &mut EndpointConfig| {
        config.trunks[0].contact_host = Some("sbc.example.com".to_owned());
        config.trunks[0].options_interval = Some(Duration::from_secs(30));
    };
    let mut lab = Lab::with(named);
    let (_, invite) = lab.call_out();
    assert_eq!(headers(&invite, "Contact"), ["<sip:sbc.example.com:5060>"]);
    lab.run_ms(2100);
    let options = lab.inbox(1).into_iter().find(|m| m.starts_with("OPTIONS ")).unwrap();
    assert_eq!(headers(&options, "Contact"), ["<sip:sbc.example.com:5060>"]);
    let mut lab = Lab::with(named);
    let (call, ok) = lab.call_in_answered();
    assert_eq!(headers(&ok, "Contact"), ["<sip:sbc.example.com:5060>"]);
    release(&mut lab, call);
    let bye = lab.inbox(1).into_iter().find(|m| m.starts_with("BYE ")).unwrap();
    assert!(headers(&bye, "Contact").is_empty(), "{bye}");
}

// RFC 3261 9.1: what was not sent is not shown.
#[test]
fn a08_a_cancel_that_waits_is_not_in_the_ladder() {
    let mut lab = Lab::new();
    let (call, invite) = lab.call_out();
    release(&mut lab, call);
    assert!(!lab.ladder(0).iter().any(|line| line.contains("CANCEL")));
    assert!(headers(&invite, "Reason").is_empty());
    let mut lab = Lab::new();
    let (call, invite) = lab.call_out();
    lab.tell(&reply(&invite, 180, "peer", CONTACT, ""));
    release(&mut lab, call);
    assert!(lab.ladder(0).contains(&"> CANCEL".to_owned()));
}
