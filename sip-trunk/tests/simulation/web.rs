//! SIP over WebSocket (RFC 7118): messages come whole, and nobody is called back elsewhere.

use std::time::Duration;

use call_model::Cause;
use sip_trunk::{
    Command, CommandError, ConfigError, ConnectionId, Endpoint, Event, Listener, Transport, TrunkState,
};

use crate::accounts::{PASSWORD, again, credentials, desk, lab_with, register};
use crate::net::{A, A_RTP, B, address, call_id, caller, config, media, number, trunk_name};
use crate::raw::{Ask, Lab, SDP, header, reply, status};

fn web_lab(transport: Transport) -> (Lab, ConnectionId) {
    let mut lab = Lab::with(|config| {
        let local = config.listeners[0].local;
        config.listeners.push(Listener { transport, local });
    });
    let connection = lab.raw_connect_by(1, 45_000, address(A), transport);
    lab.run_ms(20);
    (lab, connection)
}

/// What a telephone in a browser sends: it knows no address of its own.
fn of_browser(mut ask: Ask, transport: Transport) -> Ask {
    ask.via = format!("SIP/2.0/{} df7jal23ls0d.invalid;branch=z9hG4bK{}", transport.as_str(), ask.cseq);
    ask.lines = "Contact: <sip:bob@df7jal23ls0d.invalid;transport=ws>\r\n".to_owned();
    ask
}

fn without_length(text: &str) -> String {
    let lines = text.split("\r\n").filter(|line| !line.starts_with("Content-Length"));
    lines.collect::<Vec<_>>().join("\r\n")
}

// RFC 7118 4, 5.2: one message per frame, whose length says where it ends.
#[test]
fn a_browser_calls_and_is_hung_up_on_over_its_connection() {
    for transport in [Transport::Ws, Transport::Wss] {
        let (mut lab, connection) = web_lab(transport);
        lab.raw_write(1, connection, &without_length(&of_browser(Ask::invite(), transport).text()));
        lab.run_ms(20);
        let call = lab.incoming().expect("no Incoming");
        lab.command(0, Command::Answer { call, media: media(A_RTP) });
        lab.run_ms(20);
        let got = lab.inbox(1).concat();
        let ok = got[got.find("SIP/2.0 200").unwrap()..].to_owned();
        assert_eq!(header(&ok, "Contact"), "<sip:10.0.0.1:5060;transport=ws>");
        let ack = of_browser(Ask::within(&ok, "ACK", 1), transport);
        lab.raw_write(1, connection, &ack.text());
        lab.run_ms(20);
        lab.command(0, Command::Release { call, cause: Cause::NORMAL_CALL_CLEARING });
        lab.run_ms(20);
        let bye = lab.inbox(1).concat();
        assert!(bye.starts_with("BYE sip:bob@df7jal23ls0d.invalid"), "{bye}");
        assert!(header(&bye, "Via").starts_with(&format!("SIP/2.0/{} ", transport.as_str())), "{bye}");
        assert!(lab.dialled.is_empty());
    }
}

// RFC 7118 5.2.2: a client that is gone can be reached nowhere.
#[test]
fn a_call_whose_websocket_is_gone_ends_without_dialling() {
    let (mut lab, connection) = web_lab(Transport::Ws);
    lab.raw_write(1, connection, &of_browser(Ask::invite(), Transport::Ws).text());
    lab.run_ms(20);
    let call = lab.incoming().expect("no Incoming");
    lab.command(0, Command::Answer { call, media: media(A_RTP) });
    lab.run_ms(20);
    lab.cut_all();
    lab.run_ms(20);
    lab.command(0, Command::Release { call, cause: Cause::NORMAL_CALL_CLEARING });
    lab.run(Duration::from_secs(100));
    assert!(lab.take(0).iter().any(|e| matches!(e, Event::Ended { .. })));
    assert!(lab.dialled.is_empty());
    assert!(lab.endpoint(0).counters().refused["no_connection"] > 0);
    lab.assert_empty(0);
}

// RFC 7118 6, RFC 5626 4.4.1.
#[test]
fn keep_alives_are_answered_and_rubbish_does_not_end_the_connection() {
    let (mut lab, connection) = web_lab(Transport::Ws);
    for rubbish in ["", "\r\n", "hello", "\u{1}\u{2}"] {
        lab.raw_write(1, connection, rubbish);
    }
    lab.raw_write(1, connection, "\r\n\r\n");
    lab.run_ms(20);
    assert_eq!(lab.inbox(1).concat(), "\r\n");
    lab.raw_write(1, connection, &of_browser(Ask::new("OPTIONS"), Transport::Ws).text());
    lab.run_ms(20);
    assert!(lab.inbox(1).concat().starts_with("SIP/2.0 200"));
}

#[test]
fn a_trunk_cannot_be_called_by_websocket() {
    let mut config = config(A, B, Transport::Ws);
    config.listeners.push(Listener { transport: Transport::Ws, local: address(A) });
    let refused = Endpoint::new(config, [0; 32], std::time::Instant::now(), 0);
    assert_eq!(refused.unwrap_err(), ConfigError::WebTarget("far".to_owned()));
}

// RFC 7118 5, RFC 5626 3.1, 5.3: who registers over a connection is called over it, as long as it lives;
// the host of its Contact is no name to ask DNS for.
#[test]
fn a_telephone_that_registers_is_called_over_its_connection() {
    for transport in [Transport::Tls, Transport::Ws, Transport::Wss] {
        let mut lab = lab_with(|config| {
            config.listeners.push(Listener { transport, local: address(A) });
            config.accounts[0].transports = vec![transport];
            config.dns = true;
        });
        let connection = lab.raw_connect_by(2, 45_000, address(A), transport);
        lab.run_ms(20);
        let first = of_browser(register(), transport);
        lab.raw_write(2, connection, &first.text());
        lab.run_ms(20);
        let challenged = lab.inbox(2).concat();
        let second = again(&first, 2);
        let second = second.clone().line(&credentials(&challenged, &second, "200", PASSWORD, 1));
        lab.raw_write(2, connection, &second.text());
        lab.run_ms(20);
        assert_eq!(status(&lab.inbox(2).concat()), 200);
        // Longer than idle connections are kept.
        lab.run(Duration::from_secs(1500));
        let (state, account) = desk(&mut lab);
        assert_eq!((state, account.contacts[0].transport), (TrunkState::Up, transport));
        let invite = |n: u64| Command::Invite {
            call: call_id(n),
            trunk: trunk_name("desk"),
            called: number("+442079460018"),
            caller: caller("+12025550100"),
            media: media(A_RTP),
        };
        lab.command(0, invite(1));
        lab.run_ms(20);
        let invited = lab.inbox(2).concat();
        assert!(invited.starts_with("INVITE sip:bob@df7jal23ls0d.invalid;transport=ws "), "{invited}");
        let contact = "Contact: <sip:bob@df7jal23ls0d.invalid;transport=ws>\r\n";
        lab.raw_write(2, connection, &reply(&invited, 200, "t", contact, SDP));
        lab.run_ms(20);
        assert!(lab.inbox(2).concat().starts_with("ACK "));
        lab.command(0, Command::Release { call: call_id(1), cause: Cause::NORMAL_CALL_CLEARING });
        lab.run_ms(20);
        let bye = lab.inbox(2).concat();
        assert!(bye.starts_with("BYE sip:bob@"), "{bye}");
        lab.raw_write(2, connection, &reply(&bye, 200, "t", "", ""));
        lab.run_ms(20);
        assert_eq!(lab.endpoint(0).poll_query(), None);
        assert!(lab.dialled.is_empty());
        lab.cut_all();
        lab.run_ms(20);
        assert_eq!(desk(&mut lab).0, TrunkState::Down);
        assert_eq!(lab.try_command(0, invite(2)), Err(CommandError::NotRegistered));
    }
}
