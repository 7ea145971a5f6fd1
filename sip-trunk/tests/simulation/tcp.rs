//! Rows A14 and A18: large requests, connections that are lost, keep-alive, framing errors.

use std::time::Duration;

use call_model::Cause;
use sip_trunk::{Command, ConnectionId, EndedBy, Event, LargeRequests, Transport};

use crate::net::{A, A_RTP, B, B_RTP, Pair, address, call_id, caller, ended, media, number, trunk_name};
use crate::raw::{Ask, Lab, SDP, header, reply};

const CONTACT_TCP: &str = "Contact: <sip:peer@10.0.0.2:5060;transport=tcp>\r\n";

fn large_invite(pair: &mut Pair) {
    let mut caller = caller("+12025550100");
    caller.display_name = Some("x".repeat(80));
    pair.command(
        0,
        Command::Invite {
            call: call_id(1),
            trunk: trunk_name("far"),
            called: number("+442079460018"),
            caller,
            media: media(A_RTP),
        },
    );
}

fn long_agent(policy: LargeRequests) -> Pair {
    Pair::with(Transport::Udp, |a, _| {
        a.user_agent = "z".repeat(900);
        a.trunks[0].large_requests = policy;
    })
}

// RFC 3261 18.1.1.
#[test]
fn a14_a_large_request_goes_by_tcp() {
    let mut pair = long_agent(LargeRequests::PreferTcp);
    large_invite(&mut pair);
    pair.run_ms(100);
    let invite = &pair.log.iter().find(|m| m.3.starts_with("INVITE")).unwrap().3;
    assert!(invite.len() > 1300);
    assert!(header(invite, "Via").starts_with("SIP/2.0/TCP "), "{invite}");
    assert!(header(invite, "Contact").contains("transport=tcp"));
    assert!(pair.take(1).iter().any(|e| matches!(e, Event::Incoming { .. })));
    assert_eq!(pair.sent(0, "INVITE"), 1);
}

#[test]
fn a14_udp_is_used_where_the_trunk_has_no_tcp_or_it_fails() {
    let mut pair = long_agent(LargeRequests::AllowUdp);
    large_invite(&mut pair);
    pair.run_ms(100);
    let invite = &pair.log.iter().find(|m| m.3.starts_with("INVITE")).unwrap().3;
    assert!(header(invite, "Via").starts_with("SIP/2.0/UDP "));

    let mut pair = long_agent(LargeRequests::PreferTcp);
    pair.closed_ports.push(address(B));
    large_invite(&mut pair);
    pair.run_ms(100);
    let invite = &pair.log.iter().find(|m| m.3.starts_with("INVITE")).unwrap().3;
    assert!(header(invite, "Via").starts_with("SIP/2.0/UDP "), "{invite}");
    assert!(pair.take(1).iter().any(|e| matches!(e, Event::Incoming { .. })));
}

// RFC 3261 18: a dialog does not depend on its connection.
#[test]
fn a18_a_connection_lost_in_a_call_is_opened_again() {
    let mut pair = Pair::new(Transport::Tcp);
    let (a, b) = pair.answered();
    pair.cut_all();
    pair.run_ms(50);
    assert_eq!(pair.endpoint(0).counters().connections, 0);
    pair.take(1);
    pair.command(0, Command::Hold { call: a, on: true });
    pair.run_ms(100);
    assert!(pair.take(1).iter().any(|e| matches!(e, Event::Media { .. })));
    pair.command(1, Command::Release { call: b, cause: Cause::NORMAL_CALL_CLEARING });
    pair.run_ms(100);
    assert_eq!(ended(&pair.take(0)).len(), 1);
    pair.assert_clean();
}

#[test]
fn a_connection_that_cannot_be_opened_ends_the_call() {
    let mut pair = Pair::new(Transport::Tcp);
    pair.closed_ports.push(address(B));
    large_invite(&mut pair);
    pair.run_ms(100);
    assert_eq!(ended(&pair.take(0)), [(Cause::NETWORK_OUT_OF_ORDER, None, EndedBy::Transport)]);
    pair.assert_clean();
}

#[test]
fn connections_are_shared_by_calls_and_by_both_directions_of_a_dialog() {
    let mut pair = Pair::new(Transport::Tcp);
    for _ in 0..3 {
        let (_, b) = pair.call();
        pair.command(1, Command::Answer { call: b, media: media(B_RTP) });
        pair.run_ms(50);
    }
    assert_eq!(pair.endpoint(0).counters().connections, 1);
    assert_eq!(pair.endpoint(1).counters().connections, 1);
}

fn tcp_lab() -> (Lab, ConnectionId) {
    let mut lab = Lab::with(|config| config.trunks[0].transport = Transport::Tcp);
    let connection = lab.raw_connect(1, 45_000, address(A));
    lab.run_ms(20);
    (lab, connection)
}

fn over_tcp(ask: Ask) -> String {
    let via = ask.via.replace("SIP/2.0/UDP", "SIP/2.0/TCP");
    Ask { via, ..ask }.text()
}

// RFC 3261 18.2.2: the response goes over the connection of the request.
#[test]
fn responses_use_the_connection_of_the_request() {
    let (mut lab, connection) = tcp_lab();
    let two = format!("{}{}", over_tcp(Ask::new("OPTIONS")), over_tcp(Ask::new("OPTIONS").branch("b")));
    lab.raw_write(1, connection, &two);
    lab.run_ms(50);
    let got = lab.inbox(1).concat();
    assert_eq!(got.matches("SIP/2.0 200 OK").count(), 2, "{got}");
}

// RFC 5626 4.4.1.
#[test]
fn a_ping_is_answered_by_a_pong() {
    let (mut lab, connection) = tcp_lab();
    lab.raw_write(1, connection, "\r\n\r\n");
    lab.run_ms(50);
    assert_eq!(lab.inbox(1).concat(), "\r\n");
}

// RFC 5626 4.4.1: who answers pings and then does not is gone.
#[test]
fn an_idle_connection_is_pinged_and_a_mute_one_given_up() {
    let mut pair = Pair::new(Transport::Tcp);
    let (a, _) = pair.answered();
    pair.run(Duration::from_secs(200));
    assert_eq!(pair.sent(0, "\r\n\r\n"), 2);
    assert_eq!(pair.endpoint(0).counters().connections, 1);
    pair.take(1);
    pair.freeze_all();
    pair.run(Duration::from_secs(110));
    assert_eq!(pair.endpoint(0).counters().connections, 0);
    pair.command(0, Command::Release { call: a, cause: Cause::NORMAL_CALL_CLEARING });
    pair.run_ms(100);
    assert_eq!(ended(&pair.take(1)).len(), 1);
    // Without messages it is closed all the same.
    pair.run(Duration::from_secs(700));
    assert_eq!(pair.endpoint(0).counters().connections, 0);
    assert_eq!(pair.endpoint(1).counters().connections, 0);
}

#[test]
fn a_peer_that_answers_no_ping_keeps_its_connection() {
    let mut lab = Lab::with(|config| config.trunks[0].transport = Transport::Tcp);
    let command = Command::Invite {
        call: call_id(1),
        trunk: trunk_name("far"),
        called: number("+442079460018"),
        caller: caller("+12025550100"),
        media: media(A_RTP),
    };
    lab.command(0, command);
    lab.run(Duration::from_secs(20));
    let link = lab.latest_link(1);
    let invite = lab.inbox(1).concat();
    lab.raw_write(1, link, &reply(&invite, 200, "peer", CONTACT_TCP, SDP));
    for _ in 0..4 {
        // It pings itself, though.
        lab.raw_write(1, link, "\r\n\r\n");
        lab.run(Duration::from_secs(100));
        assert!(lab.inbox(1).concat().contains("\r\n"));
    }
    assert_eq!(lab.endpoint(0).counters().connections, 1);
    assert!(ended(&lab.take(0)).is_empty());
}

#[test]
fn a_stream_that_cannot_be_framed_is_closed() {
    let (mut lab, connection) = tcp_lab();
    let text = over_tcp(Ask::new("OPTIONS")).replace("Content-Length: 0", "Content-Length: x");
    lab.raw_write(1, connection, &text);
    lab.run_ms(50);
    let got = lab.inbox(1);
    assert!(got.concat().contains("SIP/2.0 400"), "{got:?}");
    assert_eq!(got.last().unwrap(), "<closed>");
    assert_eq!(lab.endpoint(0).counters().connections, 0);
}

#[test]
fn a_silent_connection_is_closed_and_strangers_are_not_let_in() {
    let (mut lab, _) = tcp_lab();
    lab.run(Duration::from_secs(29));
    assert!(lab.inbox(1).is_empty());
    lab.run(Duration::from_secs(2));
    assert_eq!(lab.inbox(1), ["<closed>"]);
    let stranger = lab.net.add_raw(address("10.9.9.9:5060"));
    lab.raw_connect(stranger, 45_001, address(A));
    lab.run_ms(50);
    assert_eq!(lab.inbox(stranger), ["<closed>"]);
    assert_eq!(lab.endpoint(0).counters().connections, 0);
}
