//! Rows B1 to B6: a trunk that registers.

use std::time::Duration;

use sip_trunk::auth::{Credentials, Secret};
use sip_trunk::{
    Command, CommandError, Event, Outbound, Registration, RegistrationState, RegistrationStatus, Reliable,
    Transport, TrunkConfig, TrunkState,
};

use crate::dialogs::{CHALLENGE, assert_clean, release, with_password};
use crate::net::{A_RTP, B, address, call_id, caller, media, number, trunk_name};
use crate::raw::{Ask, CONTACT, Lab, SDP, header, headers, reply, sdp, status};

const MD5: &str = "Digest realm=\"peer\", nonce=\"m1\", qop=\"auth\", algorithm=MD5";
const SHA: &str = "Digest realm=\"peer\", nonce=\"s1\", qop=\"auth\", algorithm=SHA-256";

pub fn lab(transport: Transport, change: impl FnOnce(&mut TrunkConfig, &mut Registration)) -> Lab {
    Lab::with(|config| {
        let trunk = &mut config.trunks[0];
        trunk.transport = transport;
        trunk.credentials = Some(Credentials {
            username: "pbx".to_owned(),
            password: Secret::new("open sesame".to_owned()),
            realm: None,
        });
        let mut registration = Registration::new("pbx", "example.com");
        change(trunk, &mut registration);
        trunk.registration = Some(registration);
    })
}

pub fn udp() -> Lab {
    lab(Transport::Udp, |_, _| {})
}

pub fn standing(lab: &mut Lab) -> RegistrationStatus {
    lab.endpoint(0).trunk_status()[0].registration.clone().expect("no registration")
}

pub fn health(lab: &mut Lab) -> Vec<(bool, String)> {
    let told = |e: Event| match e {
        Event::TrunkHealth { up, detail, .. } => Some((up, detail)),
        _ => None,
    };
    lab.take(0).into_iter().filter_map(told).collect()
}

/// Waits for the first REGISTER, which is sent within two seconds.
pub fn first(lab: &mut Lab) -> String {
    for _ in 0..210 {
        lab.run_ms(10);
        let register = lab.inbox(1).concat();
        if register.ends_with("\r\n\r\n") {
            assert!(register.starts_with("REGISTER sip:example.com SIP/2.0\r\n"), "{register}");
            return register;
        }
    }
    panic!("no REGISTER");
}

/// A 2xx with the Contact of the request and its time.
pub fn accepted(register: &str, expires: u32, lines: &str) -> String {
    let lines = format!("Contact: {};expires={expires}\r\n{lines}", header(register, "Contact"));
    reply(register, 200, "reg", &lines, "")
}

pub fn registered(lab: &mut Lab, expires: u32, lines: &str) -> String {
    let register = first(lab);
    lab.tell(&accepted(&register, expires, lines));
    assert_eq!(standing(lab).state, RegistrationState::Registered);
    register
}

/// Waits for the next REGISTER, answering nothing, and says how long that took.
pub fn next(lab: &mut Lab, longest: u64) -> (Duration, String) {
    let from = lab.now;
    for _ in 0..=longest * 10 {
        lab.run_ms(100);
        let got = lab.inbox(1).into_iter().find(|m| m.starts_with("REGISTER "));
        if let Some(register) = got {
            return (lab.now - from, register);
        }
    }
    panic!("no REGISTER within {longest} s");
}

pub fn call_out(lab: &mut Lab) -> String {
    let command = Command::Invite {
        call: call_id(7),
        trunk: trunk_name("far"),
        called: number("+442079460018"),
        caller: caller("+12025550100"),
        media: media(A_RTP),
    };
    lab.command(0, command);
    lab.run_ms(20);
    let invite = lab.inbox(1).concat();
    assert!(invite.starts_with("INVITE "), "{invite}");
    invite
}

// RFC 3261 10.2, RFC 8760 2.4, RFC 7616 3.4.
#[test]
fn b01_the_strongest_algorithm_is_answered_and_the_nonce_counted() {
    let mut lab = udp();
    let register = first(&mut lab);
    assert_eq!(header(&register, "To"), "<sip:pbx@example.com>");
    assert_eq!(header(&register, "Contact"), "<sip:pbx@10.0.0.1:5060>");
    assert_eq!(header(&register, "Expires"), "3600");
    assert!(headers(&register, "Authorization").is_empty());
    let lines = format!("WWW-Authenticate: {MD5}\r\nWWW-Authenticate: {SHA}\r\n");
    let second = lab.tell(&reply(&register, 401, "reg", &lines, "")).remove(0);
    let answers = headers(&second, "Authorization");
    assert_eq!(answers.len(), 1, "{second}");
    for part in ["algorithm=SHA-256", "nonce=\"s1\"", "qop=auth", "nc=00000001", "uri=\"sip:example.com\""] {
        assert!(answers[0].contains(part), "{part} in {}", answers[0]);
    }
    assert!(!second.contains("open sesame"));
    assert_eq!(header(&second, "CSeq"), "2 REGISTER");
    assert_eq!(header(&second, "Call-ID"), header(&register, "Call-ID"));
    assert_eq!(header(&second, "From"), header(&register, "From"));
    assert_ne!(header(&second, "Via"), header(&register, "Via"));
    lab.tell(&accepted(&second, 100, ""));
    assert_eq!(health(&mut lab), [(true, "registered".to_owned())]);
    // The refresh uses the nonce again, and the time granted.
    let (after, refresh) = next(&mut lab, 100);
    assert!((59..=81).contains(&after.as_secs()), "{after:?}");
    assert!(header(&refresh, "Authorization").contains("nc=00000002"), "{refresh}");
    assert_eq!(header(&refresh, "CSeq"), "3 REGISTER");
    assert_eq!(header(&refresh, "Call-ID"), header(&register, "Call-ID"));
}

// RFC 3261 22.3: a proxy and the registrar may both ask.
#[test]
fn b01_both_challenges_of_one_answer_are_met() {
    let mut lab = udp();
    let register = first(&mut lab);
    let lines = format!("WWW-Authenticate: {SHA}\r\nProxy-Authenticate: {MD5}\r\n");
    let second = lab.tell(&reply(&register, 407, "reg", &lines, "")).remove(0);
    assert!(header(&second, "Authorization").contains("nonce=\"s1\""));
    assert!(header(&second, "Proxy-Authorization").contains("nonce=\"m1\""));
}

// RFC 7616 3.3 `stale`, RFC 3261 22.2.
#[test]
fn b02_a_stale_nonce_is_replaced_and_a_wrong_password_not_repeated() {
    let mut lab = udp();
    let register = first(&mut lab);
    let challenge = format!("WWW-Authenticate: {SHA}\r\n");
    let second = lab.tell(&reply(&register, 401, "reg", &challenge, "")).remove(0);
    lab.tell(&accepted(&second, 100, ""));
    health(&mut lab);
    let (_, refresh) = next(&mut lab, 100);
    let stale = challenge.replace("s1", "s2").replace("\r\n", ", stale=true\r\n");
    let again = lab.tell(&reply(&refresh, 401, "reg", &stale, "")).remove(0);
    let answer = header(&again, "Authorization");
    assert!(answer.contains("nonce=\"s2\"") && answer.contains("nc=00000001"), "{answer}");
    lab.tell(&accepted(&again, 100, ""));
    assert!(health(&mut lab).is_empty(), "the registration never failed");

    let (_, refresh) = next(&mut lab, 100);
    let again = lab.tell(&reply(&refresh, 401, "reg", &challenge, "")).remove(0);
    assert!(lab.tell(&reply(&again, 401, "reg", &challenge, "")).is_empty());
    assert_eq!(health(&mut lab), [(true, "registration refused: 401".to_owned())]);
    let (after, retry) = next(&mut lab, 61);
    assert!(after >= Duration::from_secs(29), "{after:?}");
    assert!(headers(&retry, "Authorization").is_empty(), "refused credentials go out unasked");
}

// RFC 3261 22.3, RFC 7616 3.3: the call goes on, whenever it happens.
#[test]
fn b02_a_stale_nonce_does_not_fail_a_call() {
    let mut lab = with_password();
    let (call, invite) = lab.call_out();
    let challenge = |nonce: &str, stale: &str| {
        let challenge = CHALLENGE.replace("n1", nonce).replace("\r\n", stale);
        format!("WWW-Authenticate: {challenge}\r\n")
    };
    let second = lab.tell(&reply(&invite, 401, "c", &challenge("n1", ""), "")).remove(1);
    let third = lab.tell(&reply(&second, 401, "d", &challenge("n2", ", stale=TRUE"), "")).remove(1);
    let answer = header(&third, "Authorization");
    assert!(answer.contains("nonce=\"n2\"") && answer.contains("nc=00000001"), "{answer}");
    lab.tell(&reply(&third, 200, "peer", CONTACT, SDP));
    lab.command(0, Command::Hold { call, on: true });
    lab.run_ms(20);
    let hold = lab.inbox(1).remove(0);
    assert!(header(&hold, "Authorization").contains("nc=00000002"));
    let again = lab.tell(&reply(&hold, 401, "", &challenge("n3", ", stale=true"), "")).remove(1);
    assert!(header(&again, "Authorization").contains("nonce=\"n3\""));
    lab.tell(&reply(&again, 200, "", CONTACT, &sdp(2, "recvonly")));
    assert!(lab.take(0).iter().all(|e| !matches!(e, Event::Ended { .. })));
    release(&mut lab, call);
    assert_clean(&mut lab);
}

// RFC 3261 10.2.8.
#[test]
fn b03_an_interval_too_brief_is_raised() {
    let mut lab = lab(Transport::Udp, |_, r| r.expires = Duration::from_secs(60));
    let register = first(&mut lab);
    let second = lab.tell(&reply(&register, 423, "reg", "Min-Expires: 1800\r\n", "")).remove(0);
    assert_eq!(header(&second, "Expires"), "1800");
    assert_eq!(header(&second, "CSeq"), "2 REGISTER");
    // What asks for no more than was offered is no way out, nor is one without a time.
    assert!(lab.tell(&reply(&second, 423, "reg", "Min-Expires: 1800\r\n", "")).is_empty());
    assert_eq!(standing(&mut lab).state, RegistrationState::Failed);
    let (_, third) = next(&mut lab, 61);
    assert_eq!(header(&third, "Expires"), "1800");
    assert!(lab.tell(&reply(&third, 423, "reg", "", "")).is_empty());
    let (_, fourth) = next(&mut lab, 121);
    lab.tell(&accepted(&fourth, 1800, ""));
    assert_eq!(standing(&mut lab).state, RegistrationState::Registered);
}

// RFC 5626 4.5; jigasi issue 539: whoever gives up is down until somebody restarts it.
#[test]
fn b04_a_registrar_that_is_down_for_hours_is_asked_until_it_is_back() {
    let mut lab = udp();
    let mut at = Vec::new();
    let (mut call_id, start) = (String::new(), lab.now);
    while lab.now - start < Duration::from_secs(8 * 3600) {
        lab.run(Duration::from_secs(1));
        for message in lab.inbox(1) {
            let branch = header(&message, "Via");
            if at.last().is_none_or(|(_, last)| *last != branch) {
                at.push((lab.now - start, branch));
            }
            call_id = header(&message, "Call-ID");
        }
    }
    let gaps: Vec<u64> = at.windows(2).map(|w| (w[1].0 - w[0].0).as_secs()).collect();
    // Each gap holds the 32 s without an answer, and 50 to 100 % of 60, 120, 240 ... 1800 s.
    for (gap, bound) in gaps.iter().zip([60, 120, 240, 480, 960].into_iter().chain(std::iter::repeat(1800))) {
        assert!((31 + bound / 2..=34 + bound).contains(gap), "{gap} of {bound} in {gaps:?}");
    }
    assert!((16..=36).contains(&gaps.len()), "{gaps:?}");
    assert!(gaps.iter().skip(5).collect::<std::collections::HashSet<_>>().len() > 5, "no jitter: {gaps:?}");
    assert_eq!(health(&mut lab), [(true, "registration lost or not answered".to_owned())]);
    assert!(standing(&mut lab).failures >= 16);
    let (_, register) = next(&mut lab, 1900);
    assert_eq!(header(&register, "Call-ID"), call_id);
    lab.tell(&accepted(&register, 3600, ""));
    assert_eq!(health(&mut lab), [(true, "registered".to_owned())]);
    assert_eq!(standing(&mut lab).failures, 0);
}

// RFC 3261 20.33.
#[test]
fn b04_retry_after_is_honoured_within_reason_and_a_short_outage_keeps_the_binding() {
    let mut lab = udp();
    registered(&mut lab, 3600, "");
    health(&mut lab);
    let (after, refresh) = next(&mut lab, 3000);
    assert!((2155..=2881).contains(&after.as_secs()), "{after:?}");
    lab.tell(&reply(&refresh, 503, "reg", "Retry-After: 300 (maintenance)\r\n", ""));
    assert_eq!(standing(&mut lab).state, RegistrationState::Registered);
    let (after, retry) = next(&mut lab, 400);
    assert!((299..=331).contains(&after.as_secs()), "{after:?}");
    // Nobody may put us off for good.
    lab.tell(&reply(&retry, 500, "reg", "Retry-After: 4294967295\r\n", ""));
    let (after, _) = next(&mut lab, 4000);
    assert!((3599..=3961).contains(&after.as_secs()), "{after:?}");
    // By then the binding has run out, which was told.
    assert_eq!(health(&mut lab), [(true, "registration refused: 500".to_owned())]);
}

// RFC 3261 10.2.4: the parameter of our own Contact, then the header.
#[test]
fn b04_the_time_that_was_granted_decides_the_refresh() {
    for (lines, from, to) in [
        (
            "Contact: <sip:other@10.9.9.9>;expires=7200, <sip:pbx@10.0.0.1>;q=1;expires=100\r\nExpires: 3000\r\n",
            60,
            81,
        ),
        ("Contact: <sip:rewritten@192.0.2.1:1234>;expires=100\r\n", 60, 81),
        ("Contact: <sip:a@10.9.9.9>;expires=50, <sip:b@10.9.9.8>;expires=60\r\nExpires: 1000\r\n", 599, 801),
        ("Expires: 200\r\n", 119, 161),
        ("", 2155, 2881),
        ("Expires: 99999999999999999999999\r\n", 2155, 2881),
        ("Expires: 1\r\n", 4, 6),
    ] {
        let mut lab = udp();
        let register = first(&mut lab);
        lab.tell(&reply(&register, 200, "reg", lines, ""));
        let (after, _) = next(&mut lab, 3000);
        assert!((from..=to).contains(&after.as_secs()), "{lines}: {after:?}");
    }
    // What runs out under our hands is told as such.
    let mut lab = udp();
    registered(&mut lab, 1, "");
    health(&mut lab);
    lab.run(Duration::from_secs(2));
    assert_eq!(health(&mut lab), [(true, "registration lost or not answered".to_owned())]);
    // A registrar that keeps nothing has not registered us.
    let mut lab = udp();
    let register = first(&mut lab);
    lab.tell(&accepted(&register, 0, ""));
    assert_eq!(standing(&mut lab).state, RegistrationState::Failed);
}

// RFC 3608 5, RFC 3327 5.1, RFC 7315 4.1.
#[test]
fn b05_the_route_and_identities_of_the_registrar_are_used() {
    let mut lab = lab(Transport::Udp, |trunk, _| trunk.trusted = false);
    let lines = "Service-Route: <sip:p2.example.com;lr>, <sip:hsp.example.com;lr;x=1>\r\n\
        Path: <sip:edge.example.com;lr;ob>\r\n\
        P-Associated-URI: <sip:+12025550199@example.com>, \"Office\" <sip:+12025550100@example.com>\r\n";
    let register = registered(&mut lab, 3600, lines);
    assert!(headers(&register, "Supported").iter().any(|v| v.contains("path")));
    let standing = standing(&mut lab);
    assert_eq!(standing.service_route, ["<sip:p2.example.com;lr>", "<sip:hsp.example.com;lr;x=1>"]);
    assert_eq!(standing.path, ["<sip:edge.example.com;lr;ob>"]);
    assert_eq!(standing.associated, ["sip:+12025550199@example.com", "sip:+12025550100@example.com"]);
    let invite = call_out(&mut lab);
    assert_eq!(headers(&invite, "Route"), ["<sip:p2.example.com;lr>", "<sip:hsp.example.com;lr;x=1>"]);
    assert!(invite.starts_with("INVITE sip:+442079460018@10.0.0.2 "));
    assert_eq!(header(&invite, "P-Preferred-Identity"), "<sip:+12025550100@example.com>");
    assert!(headers(&invite, "P-Asserted-Identity").is_empty());
    assert!(header(&invite, "From").contains("@example.com"), "{invite}");
    assert_eq!(header(&invite, "Contact"), "<sip:pbx@10.0.0.1:5060>");
    // The ACK of a refusal visits the same proxies; a dialog has the route set of its own.
    let ack = lab.tell(&reply(&invite, 486, "x", "", "")).remove(0);
    assert_eq!(headers(&ack, "Route").len(), 2);
    lab.take(0);
    let (_, refresh) = next(&mut lab, 3000);
    lab.tell(&accepted(&refresh, 3600, ""));
    let invite = call_out(&mut lab);
    assert!(headers(&invite, "Route").is_empty(), "a 2xx without Service-Route clears it");
    let got = lab.tell(&reply(&invite, 200, "peer", CONTACT, SDP));
    assert!(got[0].starts_with("ACK sip:peer@10.0.0.2:5060;ob "), "{got:?}");
}

// RFC 3325 9.2: no preferred identity for a caller who hides, nor beside an asserted one.
#[test]
fn b05_an_asserted_identity_stands_alone() {
    let mut lab = udp();
    registered(&mut lab, 3600, "P-Associated-URI: <sip:+12025550199@example.com>\r\n");
    let invite = call_out(&mut lab);
    assert!(headers(&invite, "P-Preferred-Identity").is_empty());
    assert_eq!(header(&invite, "P-Asserted-Identity"), "<sip:+12025550100@example.com>");
}

// RFC 6140 5.2.
#[test]
fn b06_all_numbers_are_registered_at_once() {
    let mut lab = lab(Transport::Udp, |_, r| r.bulk = true);
    let register = first(&mut lab);
    assert_eq!(header(&register, "Require"), "gin");
    assert_eq!(header(&register, "Proxy-Require"), "gin");
    assert_eq!(header(&register, "Contact"), "<sip:10.0.0.1:5060;bnc>");
    assert!(headers(&register, "Supported").iter().any(|v| v.contains("path")));
    lab.tell(&accepted(&register, 3600, ""));
    assert!(standing(&mut lab).bulk);
    let mut invite = Ask::invite();
    invite.uri = "sip:+442079460018@10.0.0.1:5060".to_owned();
    lab.call_in(&invite.text());
    let called = lab.take(0).into_iter().find_map(|e| match e {
        Event::Incoming { called, .. } => called,
        _ => None,
    });
    assert_eq!(called, Some(number("+442079460018")));
}

#[test]
fn b06_a_registrar_without_bulk_gets_the_single_address() {
    let mut lab = lab(Transport::Udp, |_, r| r.bulk = true);
    // Another extension that is missing is not ours to drop.
    let register = first(&mut lab);
    assert!(lab.tell(&reply(&register, 420, "reg", "Unsupported: x\r\n", "")).is_empty());
    let (_, register) = next(&mut lab, 61);
    assert_eq!(header(&register, "Require"), "gin");
    let second = lab.tell(&reply(&register, 420, "reg", "Unsupported: x, GIN\r\n", "")).remove(0);
    assert!(headers(&second, "Require").is_empty() && headers(&second, "Proxy-Require").is_empty());
    assert_eq!(header(&second, "Contact"), "<sip:pbx@10.0.0.1:5060>");
    assert_eq!(header(&second, "CSeq"), "3 REGISTER");
    lab.tell(&accepted(&second, 3600, ""));
    let standing = standing(&mut lab);
    assert_eq!((standing.state, standing.bulk), (RegistrationState::Registered, false));
    // It is not tried again, nor is there anything left to drop.
    let (_, refresh) = next(&mut lab, 3000);
    assert!(headers(&refresh, "Require").is_empty());
    assert!(lab.tell(&reply(&refresh, 420, "reg", "Unsupported: gin\r\n", "")).is_empty());
}

// RFC 3261 10.2.2.
#[test]
fn g04_a_draining_endpoint_ends_its_registration_after_its_last_call() {
    let mut lab = udp();
    registered(&mut lab, 3600, "");
    let invite = call_out(&mut lab);
    lab.tell(&reply(&invite, 200, "peer", CONTACT, SDP));
    lab.command(0, Command::Drain { on: true });
    lab.run_ms(100);
    assert!(lab.inbox(1).is_empty(), "the carrier may hang the call up with the registration");
    release(&mut lab, call_id(7));
    let got = lab.inbox(1);
    let end = got.iter().find(|m| m.starts_with("REGISTER ")).expect("no REGISTER");
    assert_eq!(header(end, "Expires"), "0");
    assert_eq!(header(end, "Contact"), "<sip:pbx@10.0.0.1:5060>");
    let lines = format!("WWW-Authenticate: {SHA}\r\n");
    let second = lab.tell(&reply(end, 401, "reg", &lines, "")).remove(0);
    assert_eq!(header(&second, "Expires"), "0");
    lab.tell(&reply(&second, 200, "reg", "", ""));
    assert_eq!(standing(&mut lab).state, RegistrationState::Unregistered);
    lab.run(Duration::from_secs(4000));
    assert!(lab.inbox(1).iter().all(|m| !m.starts_with("REGISTER ")));
    lab.command(0, Command::Drain { on: false });
    lab.run_ms(20);
    let register = lab.inbox(1).remove(0);
    assert_eq!(header(&register, "Expires"), "3600");
    // Drained while it registers: the answer is waited for.
    lab.command(0, Command::Drain { on: true });
    lab.run_ms(20);
    assert!(lab.inbox(1).is_empty());
    let end = lab.tell(&accepted(&register, 3600, "")).remove(0);
    assert_eq!(header(&end, "Expires"), "0");
    lab.run(Duration::from_secs(40));
    assert_eq!(standing(&mut lab).state, RegistrationState::Unregistered);
    lab.run(Duration::from_secs(300));
    lab.assert_empty(0);
}

#[test]
fn a_trunk_may_insist_on_its_registration() {
    let invite = || Command::Invite {
        call: call_id(9),
        trunk: trunk_name("far"),
        called: number("+442079460018"),
        caller: caller("+12025550100"),
        media: media(A_RTP),
    };
    // By default a call is tried all the same.
    let mut lab = udp();
    lab.command(0, invite());
    let mut lab = self::lab(Transport::Udp, |_, r| r.required = true);
    assert_eq!(lab.try_command(0, invite()), Err(CommandError::Unusable));
    let register = first(&mut lab);
    assert!(lab.tell(&reply(&register, 403, "reg", "", "")).is_empty());
    assert_eq!(health(&mut lab), [(false, "registration refused: 403".to_owned())]);
    assert_eq!(lab.endpoint(0).trunk_status()[0].state, TrunkState::Down);
    let (_, register) = next(&mut lab, 61);
    lab.tell(&accepted(&register, 3600, ""));
    assert_eq!(health(&mut lab), [(true, "registered".to_owned())]);
    assert_eq!(lab.endpoint(0).trunk_status()[0].state, TrunkState::Up);
    lab.command(0, invite());
}

/// Two accounts at one registrar.
fn two_accounts(first: Reliable, second: Reliable) -> Lab {
    Lab::with(|config| {
        let mut other = TrunkConfig::new(trunk_name("other"), address(B));
        other.reliable_provisional = second;
        other.registration = Some(Registration::new("sales", "example.com"));
        config.trunks[0].reliable_provisional = first;
        config.trunks[0].registration = Some(Registration::new("pbx", "example.com"));
        config.trunks.push(other);
    })
}

#[test]
fn an_invite_to_a_registered_contact_is_from_that_trunk() {
    let mut lab = two_accounts(Reliable::default(), Reliable::default());
    lab.run_ms(2100);
    for register in lab.inbox(1) {
        lab.tell(&accepted(&register, 3600, ""));
    }
    lab.take(0);
    for (user, line, trunk, called) in [
        ("sales", "", "other", "+442079460018"),
        ("pbx", "P-Called-Party-ID: <sip:+442079460099@example.com>", "far", "+442079460099"),
        ("%70bx;line=4", "P-Called-Party-ID: <tel:+442079460098>", "far", "+442079460098"),
        ("+442079460077", "", "far", "+442079460077"),
    ] {
        let mut invite = Ask::invite().branch(user);
        invite.uri = format!("sip:{user}@10.0.0.1:5060");
        invite.call_id = format!("{user}@x");
        let invite = if line.is_empty() { invite } else { invite.line(line) };
        assert_eq!(status(&lab.tell(&invite.text())[0]), 100);
        let incoming = lab.take(0).into_iter().find_map(|e| match e {
            Event::Incoming { trunk, called, .. } => Some((trunk, called)),
            _ => None,
        });
        assert_eq!(incoming, Some((trunk_name(trunk), Some(number(called)))), "{user}");
    }
}

// RFC 3261 8.2.2.3: what an INVITE requires, it requires of the account it is for.
#[test]
fn a12_accounts_at_one_address_are_asked_apart() {
    for (first, user, expected) in [
        (Reliable::Off, "sales", 100),
        (Reliable::Off, "pbx", 420),
        (Reliable::Supported, "sales", 420),
        (Reliable::Supported, "pbx", 100),
    ] {
        let second = if first == Reliable::Off { Reliable::Supported } else { Reliable::Off };
        let mut lab = two_accounts(first, second);
        lab.run_ms(2100);
        for register in lab.inbox(1) {
            lab.tell(&accepted(&register, 3600, ""));
        }
        let mut invite = Ask::invite().line("Require: 100rel");
        invite.uri = format!("sip:{user}@10.0.0.1:5060");
        assert_eq!(status(&lab.tell(&invite.text())[0]), expected, "{first:?} {user}");
    }
}

#[test]
fn a_registrar_of_its_own_is_heard_and_a_stranger_is_not() {
    let edge = "10.0.0.9:5060";
    let mut lab = lab(Transport::Udp, |_, r| r.registrar = Some(address(edge)));
    let registrar = lab.add_raw(address(edge));
    lab.run_ms(2100);
    let register = lab.inbox(registrar).remove(0);
    let gateway = lab.gateway;
    let challenge = format!("WWW-Authenticate: {SHA}\r\n");
    // Nobody else can draw credentials out of us.
    lab.say_from(address("10.7.7.7:5060"), gateway, reply(&register, 401, "x", &challenge, "").as_bytes());
    lab.run_ms(20);
    assert!(lab.inbox(registrar).is_empty());
    lab.say(registrar, gateway, &reply(&register, 401, "reg", &challenge, ""));
    lab.run_ms(20);
    let second = lab.inbox(registrar).remove(0);
    lab.say(registrar, gateway, &accepted(&second, 3600, ""));
    lab.run_ms(20);
    assert_eq!(standing(&mut lab).state, RegistrationState::Registered);
    // Calls go where the trunk says.
    call_out(&mut lab);
}

#[test]
fn registrations_that_cannot_be_written_are_refused() {
    let bad: [fn(&mut Registration); 7] = [
        |r| r.user.clear(),
        |r| r.user = "a@b".to_owned(),
        |r| r.contact_user = Some("a b".to_owned()),
        |r| r.domain = "exam ple.com".to_owned(),
        |r| r.expires = Duration::from_secs(1),
        |r| r.keep_alive = Some(Duration::ZERO),
        |r| r.outbound = Some(Outbound { instance: "x".to_owned(), reg_id: 1 }),
    ];
    for change in bad {
        let mut registration = Registration::new("pbx", "example.com");
        assert_eq!(registration.check(), Ok(()));
        change(&mut registration);
        assert!(registration.check().is_err(), "{registration:?}");
    }
}

#[test]
fn rubbish_from_a_registrar_is_survived() {
    let mut dice = crate::net::Dice::new(11);
    let pieces = [
        "Contact: *\r\n",
        "Contact: <sip:pbx@10.0.0.1:5060;expires=0>;expires=\"77\"\r\n",
        "Contact: ;;;expires=x\r\n",
        "Expires: -5\r\n",
        "Min-Expires: 99999999999\r\n",
        "Service-Route: <<<>, ,,\r\n",
        "P-Associated-URI: \"x, <sip:\r\n",
        "Path: \r\n",
        "Flow-Timer: 99999999999\r\n",
        "Retry-After: x\r\n",
        "WWW-Authenticate: Digest realm=\"a\", nonce=\"b\"\r\n",
        "Unsupported: gin, gin\r\n",
    ];
    let mut lab = lab(Transport::Udp, |_, r| r.bulk = true);
    for _ in 0..400 {
        lab.run(Duration::from_secs(dice.below(900)));
        for register in lab.inbox(1) {
            if !register.starts_with("REGISTER ") {
                continue;
            }
            let status = [100, 200, 200, 200, 301, 401, 407, 420, 423, 439, 503][dice.below(11) as usize];
            let lines: String = pieces.iter().filter(|_| dice.chance(25)).copied().collect();
            lab.tell(&reply(&register, status, "reg", &lines, ""));
        }
    }
    assert!(lab.sent(0, "REGISTER") > 50);
    let state = standing(&mut lab);
    assert!(
        state.next.is_some_and(|next| next < lab.now + Duration::from_secs(2 * 3600))
            || state.until.is_some()
    );
    lab.command(0, Command::Drain { on: true });
    lab.run(Duration::from_secs(200));
    lab.assert_empty(0);
}
