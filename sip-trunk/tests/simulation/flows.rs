//! Rows B7, B11 and A18: the flow that a trunk registered, kept alive and replaced.

use std::time::Duration;

use sip_trunk::{LargeRequests, Listener, Outbound, Registration, RegistrationState, Transport};

use crate::net::{A, B, address, ended};
use crate::raw::{Lab, header, headers, reply};
use crate::registration::{accepted, call_out, first, health, lab, next, registered, standing, udp};

const INSTANCE: &str = "urn:uuid:00000000-0000-1000-8000-000a95a0e128";

// RFC 5626 4.3.
#[test]
fn b07_calls_leave_by_the_registered_socket() {
    let second = "10.0.0.1:5070";
    let mut lab = Lab::with(|config| {
        config.listeners.insert(0, Listener { transport: Transport::Udp, local: address(second) });
        let trunk = &mut config.trunks[0];
        trunk.local = Some(address(second));
        trunk.large_requests = LargeRequests::PreferTcp;
        trunk.registration = Some(Registration::new("pbx", "example.com"));
        config.user_agent = "z".repeat(900);
    });
    lab.run_ms(2100);
    let register = lab.inbox(1).remove(0);
    lab.say(1, address(second), &accepted(&register, 3600, ""));
    lab.run_ms(20);
    let invite = call_out(&mut lab);
    // Not even its size makes it leave the flow.
    assert!(invite.len() > 1300);
    assert!(header(&invite, "Via").starts_with("SIP/2.0/UDP 10.0.0.1:5070;"), "{invite}");
    let of = |start: &str| lab.log.iter().find(|m| m.3.starts_with(start)).map(|m| (m.1, m.2)).unwrap();
    assert_eq!(of("REGISTER"), of("INVITE"));
}

#[test]
fn b07_calls_leave_by_the_registered_connection() {
    let mut lab = lab(Transport::Tcp, |_, r| {
        r.outbound = Some(Outbound { instance: INSTANCE.to_owned(), reg_id: 1 });
    });
    let register = first(&mut lab);
    let contact = header(&register, "Contact");
    assert_eq!(
        contact,
        format!("<sip:pbx@10.0.0.1:5060;transport=tcp>;+sip.instance=\"<{INSTANCE}>\";reg-id=1")
    );
    assert!(headers(&register, "Supported").iter().any(|v| v.contains("outbound")));
    let link = lab.latest_link(1);
    lab.raw_write(1, link, &accepted(&register, 3600, "Require: outbound\r\n"));
    lab.run_ms(20);
    assert!(standing(&mut lab).outbound);
    // It lives although nothing is said for long, and another connection to us is no rival.
    lab.raw_connect(1, 45_000, address(A));
    lab.run(Duration::from_secs(900));
    lab.inbox(1);
    let invite = call_out(&mut lab);
    assert_eq!(header(&invite, "Contact"), "<sip:pbx@10.0.0.1:5060;transport=tcp;ob>");
    assert_eq!(lab.endpoint(0).counters().connections, 1);
    lab.raw_write(1, link, &reply(&invite, 486, "x", "", ""));
    lab.run_ms(20);
    assert_eq!(ended(&lab.take(0)).len(), 1, "the answer came over the same connection");
}

// RFC 5626 6: 439 says that the proxy in front does not keep flows.
#[test]
fn b07_a_first_hop_without_outbound_is_registered_without() {
    let mut lab = lab(Transport::Udp, |_, r| {
        r.outbound = Some(Outbound { instance: INSTANCE.to_owned(), reg_id: 1 });
    });
    let register = first(&mut lab);
    let second = lab.tell(&reply(&register, 439, "reg", "", "")).remove(0);
    assert_eq!(header(&second, "Contact"), "<sip:pbx@10.0.0.1:5060>");
    assert!(headers(&second, "Supported").iter().all(|v| !v.contains("outbound")));
}

/// A STUN success response with the address we are seen at.
fn stun_answer(request: &[u8], seen: [u8; 4], port: u16) -> Vec<u8> {
    let mut answer = vec![1, 1, 0, 12];
    answer.extend_from_slice(&request[4..20]);
    answer.extend_from_slice(&[0, 0x20, 0, 8, 0, 1]);
    answer.extend_from_slice(&(port ^ 0x2112).to_be_bytes());
    answer.extend(seen.iter().zip([0x21, 0x12, 0xa4, 0x42]).map(|(a, m)| a ^ m));
    answer
}

fn with_keep(register: &str, value: &str) -> String {
    accepted(register, 3600, "").replace(";keep\r\n", &format!(";keep={value}\r\n"))
}

/// Answers the next pings, which come every 24 to 30 seconds.
fn answer_pings(lab: &mut Lab, turns: usize, port: u16) {
    let mut from = lab.binary.last().map_or(lab.now - lab.start, |last| last.0);
    for _ in 0..turns {
        let before = lab.binary.len();
        for _ in 0..310 {
            lab.run_ms(100);
            if lab.binary.len() > before {
                break;
            }
        }
        let (at, local, remote, request) = lab.binary[before].clone();
        assert_eq!((local, remote), (address(A), address(B)));
        assert_eq!((&request[..2], &request[4..8]), (&[0, 1][..], &[0x21, 0x12, 0xa4, 0x42][..]));
        assert!((23_800..=30_200).contains(&(at - from).as_millis()), "{at:?} after {from:?}");
        from = at;
        lab.say_from(address(B), address(A), &stun_answer(&request, [192, 0, 2, 1], port));
    }
}

// RFC 6223 4.3, RFC 5626 4.4.2.
#[test]
fn b11_a_udp_flow_is_kept_alive_as_agreed() {
    let mut lab = udp();
    let register = first(&mut lab);
    assert!(header(&register, "Via").ends_with(";keep"));
    lab.tell(&with_keep(&register, "30"));
    answer_pings(&mut lab, 20, 6000);
    assert_eq!(lab.inbox(1).iter().filter(|m| m.starts_with("REGISTER")).count(), 0);
    // Another address: what is registered leads nowhere any more.
    lab.run_ms(30_100);
    let request = lab.binary.last().unwrap().3.clone();
    lab.inbox(1);
    lab.say_from(address(B), address(A), &stun_answer(&request, [192, 0, 2, 1], 6001));
    let (after, register) = next(&mut lab, 1);
    assert!(after <= Duration::from_millis(200));
    lab.tell(&with_keep(&register, "30"));
    answer_pings(&mut lab, 6, 6001);
    // Silence is repeated seven times and then means the same.
    let before = lab.binary.len();
    let (after, _) = next(&mut lab, 80);
    assert!((63..=71).contains(&after.as_secs()), "{after:?}");
    assert_eq!(lab.binary.len() - before, 7);
}

#[test]
fn b11_a_mute_peer_and_one_that_agreed_nothing() {
    // It never answered: no reason to think that it is gone.
    let mut lab = udp();
    let register = first(&mut lab);
    lab.tell(&with_keep(&register, "20"));
    lab.run(Duration::from_secs(600));
    assert!(lab.binary.len() > 60);
    assert_eq!(standing(&mut lab).state, RegistrationState::Registered);
    assert_eq!(lab.sent(0, "REGISTER"), 1);
    // Nothing was agreed and nothing asked for by us; then by us alone.
    let mut lab = udp();
    registered(&mut lab, 3600, "");
    lab.run(Duration::from_secs(600));
    assert_eq!((lab.binary.len(), lab.sent(0, "\r\n")), (0, 0));
    let mut lab = self::lab(Transport::Udp, |_, r| r.keep_alive = Some(Duration::from_secs(20)));
    registered(&mut lab, 3600, "");
    lab.run(Duration::from_secs(600));
    assert_eq!(lab.binary.len(), 0);
    assert!((29..=38).contains(&lab.sent(0, "\r\n\r\n")));
}

// RFC 5626 4.4.1, 5.4.
#[test]
fn b11_a_connection_is_kept_alive_as_agreed() {
    for by_via in [true, false] {
        kept_connection(by_via);
    }
}

fn kept_connection(by_via: bool) {
    let mut lab = lab(Transport::Tcp, |_, _| {});
    let register = first(&mut lab);
    let link = lab.latest_link(1);
    let timer = accepted(&register, 3600, "Flow-Timer: 40\r\n");
    lab.raw_write(1, link, &if by_via { with_keep(&register, "40") } else { timer });
    lab.run_ms(100);
    let mut pings = 0;
    for _ in 0..1200 {
        lab.run(Duration::from_secs(1));
        if lab.inbox(1).concat().contains("\r\n\r\n") {
            pings += 1;
            lab.raw_write(1, link, "\r\n");
        }
    }
    assert!((28..=38).contains(&pings), "{pings}");
    assert_eq!(standing(&mut lab).state, RegistrationState::Registered);
    assert_eq!(lab.sent(0, "REGISTER"), 1);
    // The pong is missing once: the flow has failed, and another takes its place.
    lab.freeze_all();
    lab.run(Duration::from_secs(60));
    assert_eq!(lab.sent(0, "REGISTER"), 2);
}

// RFC 5626 4.5.
#[test]
fn a18_a_lost_connection_is_replaced_and_registered_again() {
    let mut lab = lab(Transport::Tcp, |_, _| {});
    let register = first(&mut lab);
    let link = lab.latest_link(1);
    lab.raw_write(1, link, &accepted(&register, 3600, ""));
    lab.run(Duration::from_secs(200));
    health(&mut lab);
    lab.inbox(1);
    lab.cut_all();
    lab.run_ms(100);
    let again = lab.inbox(1).concat().replace("<closed>", "");
    assert!(again.starts_with("REGISTER "), "{again}");
    assert_eq!(header(&again, "Call-ID"), header(&register, "Call-ID"));
    assert_eq!(standing(&mut lab).state, RegistrationState::Failed);
    let link = lab.latest_link(1);
    lab.raw_write(1, link, &accepted(&again, 3600, ""));
    lab.run_ms(20);
    let lost = "registration lost or not answered".to_owned();
    assert_eq!(health(&mut lab), [(true, lost), (true, "registered".to_owned())]);
    // One that is cut as soon as it is made is not made again at once.
    let before = lab.sent(0, "REGISTER");
    lab.cut_all();
    lab.run(Duration::from_secs(25));
    assert_eq!(lab.sent(0, "REGISTER"), before);
    lab.run(Duration::from_secs(40));
    assert_eq!(lab.sent(0, "REGISTER"), before + 1);
}

#[test]
fn a18_a_connection_lost_under_a_refresh_or_refused_is_tried_again() {
    let mut lab = lab(Transport::Tcp, |_, _| {});
    let register = first(&mut lab);
    let link = lab.latest_link(1);
    lab.raw_write(1, link, &accepted(&register, 600, ""));
    lab.run_ms(20);
    let (_, _) = next_tcp(&mut lab);
    lab.closed_ports.push(address(B));
    lab.cut_all();
    lab.run(Duration::from_secs(300));
    assert_eq!(standing(&mut lab).state, RegistrationState::Failed);
    lab.closed_ports.clear();
    lab.inbox(1);
    let (_, register) = next_tcp(&mut lab);
    let link = lab.latest_link(1);
    lab.raw_write(1, link, &accepted(&register, 600, ""));
    lab.run_ms(20);
    assert_eq!(standing(&mut lab).state, RegistrationState::Registered);
}

fn next_tcp(lab: &mut Lab) -> (Duration, String) {
    let from = lab.now;
    for _ in 0..2000 {
        lab.run(Duration::from_secs(1));
        let got = lab.inbox(1).concat().replace("<closed>", "");
        if let Some(start) = got.find("REGISTER ") {
            return (lab.now - from, got[start..].to_owned());
        }
    }
    panic!("no REGISTER");
}
