//! Strangers are asked who they are, those who guess are kept out, and our own credentials go where they
//! belong (RFC 3261 22).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use call_model::Cause;
use sip_trunk::auth::Secret;
use sip_trunk::{
    AccessList, AccessRule, AccountSecret, Command, EndedBy, Endpoint, Event, Network, NetworkError,
    Transport, UnknownSource,
};

use crate::accounts::{
    PASSWORD, account, again, authenticated, authenticated_as, credentials, desk, invite, lab, lab_with,
    register, registered, send,
};
use crate::dialogs::{CHALLENGE, assert_clean, with_password};
use crate::net::{A, A_RTP, B, address, config, ended, media, trunk_name};
use crate::raw::{Ask, CONTACT, Lab, SDP, header, headers, reply, sdp, status};

fn refused(lab: &mut Lab, label: &str) -> u64 {
    lab.endpoint(0).counters().refused.get(label).copied().unwrap_or(0)
}

/// A request of the phone in the dialog of a call of its own.
fn within(ok: &str, method: &str, cseq: u32) -> Ask {
    let mut ask = again(&Ask { method: method.to_owned(), body: String::new(), ..invite() }, cseq);
    ask.to = header(ok, "To");
    ask
}

// RFC 3261 22.1, 22.2: an INVITE of a stranger is challenged, and with credentials it is the account's.
// Nothing of its dialog is challenged again, ACK and CANCEL never.
#[test]
fn b08_a_stranger_with_credentials_calls_and_is_not_asked_twice() {
    let mut lab = lab();
    let (asked, got) = authenticated(&mut lab, 2, &invite());
    assert_eq!(status(&got[0]), 100, "{got:?}");
    let events = lab.take(0);
    let [Event::Incoming { call, trunk, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(*trunk, trunk_name("desk"));
    // The 100 was lost: no second call, and no challenge for used credentials.
    assert_eq!(status(&send(&mut lab, 2, &asked)[0]), 100);
    assert!(lab.take(0).is_empty());
    lab.command(0, Command::Answer { call: *call, media: media(A_RTP) });
    lab.run_ms(20);
    let ok = lab.inbox(2).pop().unwrap();
    assert_eq!(status(&ok), 200);
    assert!(send(&mut lab, 2, &within(&ok, "ACK", 2)).is_empty());
    for (cseq, ask) in [
        (3, within(&ok, "INVITE", 3).body(&sdp(2, "sendonly"))),
        (4, within(&ok, "UPDATE", 4)),
        (5, within(&ok, "INFO", 5)),
        (6, within(&ok, "OPTIONS", 6)),
        (7, within(&ok, "BYE", 7)),
    ] {
        let got = send(&mut lab, 2, &ask);
        assert_eq!(status(got.last().unwrap()), 200, "{} {got:?}", ask.method);
        if cseq == 3 {
            send(&mut lab, 2, &within(&ok, "ACK", 3));
        }
    }
    assert_eq!(ended(&lab.take(0)), [(Cause::NORMAL_CALL_CLEARING, None, EndedBy::Far)]);
    assert_eq!(refused(&mut lab, "unauthorized"), 1, "challenged once in all");
    assert_eq!(refused(&mut lab, "unknown_source"), 0);
    lab.run(Duration::from_secs(60));
    lab.assert_empty(0);
}

// RFC 3261 22.1, 9.1; RFC 3262: PRACK and CANCEL of a stranger's call.
#[test]
fn b08_the_prack_and_cancel_of_a_stranger_are_not_challenged() {
    let mut lab = lab();
    let (asked, got) = authenticated(&mut lab, 2, &invite().line("Require: 100rel"));
    assert_eq!(status(&got[0]), 100, "{got:?}");
    let Some(Event::Incoming { call, .. }) = lab.take(0).pop() else { panic!("no call") };
    lab.command(0, Command::Ringing { call });
    lab.run_ms(20);
    let ringing = lab.inbox(2).pop().unwrap();
    let prack = within(&ringing, "PRACK", 3).line(&format!("RAck: {} 2 INVITE", header(&ringing, "RSeq")));
    assert_eq!(status(&send(&mut lab, 2, &prack)[0]), 200);
    let cancel = Ask { method: "CANCEL".to_owned(), body: String::new(), lines: String::new(), ..asked };
    let got = send(&mut lab, 2, &cancel);
    assert_eq!(got.iter().map(|m| status(m)).collect::<Vec<_>>(), [200, 487]);
    assert_eq!(refused(&mut lab, "unauthorized"), 1);
    assert_eq!(ended(&lab.take(0)).len(), 1);
}

// RFC 3261 22.2: the refresh of a session by UPDATE, challenged by 401 and by 407; a wrong password stops.
#[test]
fn b08_a_challenged_update_goes_again_once() {
    for (status_code, asks, answers) in
        [(401, "WWW-Authenticate", "Authorization"), (407, "Proxy-Authenticate", "Proxy-Authorization")]
    {
        let mut lab = with_password();
        let (call, invite) = lab.call_out();
        let lines = format!(
            "{CONTACT}Allow: INVITE, ACK, BYE, CANCEL, UPDATE\r\nRequire: timer\r\n\
             Session-Expires: 120;refresher=uac\r\n"
        );
        lab.tell(&reply(&invite, 200, "peer", &lines, SDP));
        lab.run_ms(60_100);
        let refresh = lab.inbox(1).remove(0);
        assert!(refresh.starts_with("UPDATE "), "{refresh}");
        assert!(headers(&refresh, answers).is_empty());
        let got = lab.tell(&reply(&refresh, status_code, "", &format!("{asks}: {CHALLENGE}"), ""));
        let again = &got[0];
        assert!(again.starts_with("UPDATE ") && header(again, answers).contains("username=\"gw\""));
        assert_eq!(header(again, "Session-Expires"), header(&refresh, "Session-Expires"));
        assert_ne!(header(again, "CSeq"), header(&refresh, "CSeq"));
        assert_ne!(header(again, "Via"), header(&refresh, "Via"));
        let wrong = CHALLENGE.replace("n1", "n2");
        let got = lab.tell(&reply(again, status_code, "", &format!("{asks}: {wrong}"), ""));
        assert!(!got.iter().any(|m| m.starts_with("UPDATE ")), "tried once more: {got:?}");
        lab.command(0, Command::Release { call, cause: Cause::NORMAL_CALL_CLEARING });
        assert_clean(&mut lab);
    }
}

// Each status of each request of ours, with its own pair of headers (RFC 3261 22.2, 22.3).
#[test]
fn b08_both_challenges_are_answered_on_invite_reinvite_and_bye() {
    for (code, asks, answers) in
        [(401, "WWW-Authenticate", "Authorization"), (407, "Proxy-Authenticate", "Proxy-Authorization")]
    {
        let challenge = |nonce: &str| format!("{asks}: {}", CHALLENGE.replace("n1", nonce));
        let mut lab = with_password();
        let (call, invite) = lab.call_out();
        let got = lab.tell(&reply(&invite, code, "c", &challenge("n1"), ""));
        // RFC 3261 17.1.1.3: the ACK of the refusal carries nothing the INVITE did not.
        assert!(got[0].starts_with("ACK ") && headers(&got[0], answers).is_empty());
        let ack = lab.tell(&reply(&got[1], 200, "peer", CONTACT, SDP)).remove(0);
        assert_eq!(header(&ack, answers), header(&got[1], answers));
        lab.command(0, Command::Hold { call, on: true });
        lab.run_ms(20);
        let hold = lab.inbox(1).remove(0);
        // The nonce we had turned stale in between.
        let got = lab.tell(&reply(&hold, code, "", &challenge("n2"), ""));
        assert!(got[1].starts_with("INVITE ") && header(&got[1], answers).contains("nonce=\"n2\""));
        assert_eq!(header(&got[1], "Content-Length"), header(&hold, "Content-Length"), "the same offer");
        lab.tell(&reply(&got[1], 200, "", CONTACT, &sdp(2, "recvonly")));
        lab.command(0, Command::Release { call, cause: Cause::NORMAL_CALL_CLEARING });
        lab.run_ms(20);
        let bye = lab.inbox(1).pop().unwrap();
        let got = lab.tell(&reply(&bye, code, "", &challenge("n3"), ""));
        assert!(got[0].starts_with("BYE ") && header(&got[0], answers).contains("nonce=\"n3\""));
        // A wrong password: no third.
        assert!(lab.tell(&reply(&got[0], code, "", &challenge("n4"), "")).is_empty());
        assert_clean(&mut lab);
    }
}

// Where there are accounts: who has no credentials is routed nowhere, whatever it says it is.
#[test]
fn b09_a_stranger_without_credentials_is_routed_nowhere() {
    for (policy, answers) in [(UnknownSource::Forbid, 1), (UnknownSource::Silent, 0)] {
        let mut lab = lab_with(|config| config.unknown_source = policy);
        let mut spoofed = invite().line("P-Asserted-Identity: <sip:+12025550100@10.0.0.2>");
        spoofed.from = "<sip:+12025550100@10.0.0.2>;tag=phone".to_owned();
        spoofed.lines = spoofed.lines.replace("192.168.1.7:5080", "10.0.0.2:5060");
        for ask in [invite(), again(&spoofed, 2)] {
            let got = send(&mut lab, 2, &ask).remove(0);
            assert_eq!(status(&got), 401);
            assert_eq!(headers(&got, "WWW-Authenticate").len(), 2, "SHA-256 and MD5");
            assert!(got.len() < 1200);
        }
        // Only what may begin something is challenged; for the rest, the policy.
        for method in ["OPTIONS", "SUBSCRIBE", "MESSAGE", "BYE", "INFO", "UPDATE", "PUBLISH", "CANCEL", "FOO"]
        {
            let mut ask = again(&Ask { method: method.to_owned(), body: String::new(), ..invite() }, 3);
            ask.to = "<sip:alice@gw.example>;tag=0123456789abcdef".to_owned();
            let got = send(&mut lab, 2, &ask);
            assert_eq!(got.len(), answers, "{method}");
            assert!(got.iter().all(|m| status(m) == 403), "{method} {got:?}");
        }
        assert!(send(&mut lab, 2, &Ask { method: "ACK".to_owned(), ..invite() }).is_empty());
        // Nor does it learn from what cannot be read that somebody is here.
        let broken = invite().text().replace("CSeq: 1 INVITE", "CSeq: one INVITE");
        let to = lab.gateway;
        lab.say(2, to, &broken);
        lab.run_ms(20);
        assert_eq!(lab.inbox(2).len(), answers);
        assert!(lab.take(0).is_empty(), "nothing was dispatched");
        assert_eq!(refused(&mut lab, "unknown_source"), 9);
        lab.assert_empty(0);
    }
}

// A stranger cannot end or change calls of trunks, whatever it knows of them.
#[test]
fn b09_calls_of_trunks_are_out_of_a_strangers_reach() {
    let mut lab = lab();
    let (call, ok) = lab.call_in_answered();
    let bye = Ask::within(&ok, "BYE", 2);
    assert_eq!(status(&send(&mut lab, 2, &bye)[0]), 403);
    let mut ringing = Ask::invite().branch("second");
    ringing.call_id = "c2".to_owned();
    lab.tell(&ringing.text());
    let cancel = Ask { method: "CANCEL".to_owned(), body: String::new(), ..ringing };
    assert_eq!(status(&send(&mut lab, 2, &cancel)[0]), 403);
    assert!(ended(&lab.take(0)).is_empty());
    let _ = call;
}

/// Tries a wrong password from an address; returns the answers.
fn guess(lab: &mut Lab, from: SocketAddr, user: &str, n: u32) -> Vec<String> {
    let mut ask = register();
    ask.via = format!("SIP/2.0/UDP {from};branch=z9hG4bKg{n}{user};rport",);
    ask.call_id = format!("guess{n}{user}{from}").replace(['[', ']', ':'], "-");
    let to = lab.gateway;
    let exchange = |lab: &mut Lab, ask: &Ask| {
        let seen = lab.log.len();
        lab.say_from(from, to, ask.text().as_bytes());
        lab.run_ms(20);
        let sent = lab.log.iter().skip(seen).filter(|(_, _, to, _)| *to == from);
        sent.map(|(.., text)| text.clone()).collect::<Vec<_>>()
    };
    let first = exchange(lab, &ask);
    let Some(challenged) = first.first() else { return first };
    let second = again(&ask, 2).line(&credentials(challenged, &again(&ask, 2), user, "wrong", 1));
    exchange(lab, &second)
}

/// What must not differ in two answers: all but what each has of its own.
fn comparable(text: &str) -> String {
    let own = ["Via:", "Call-ID:", "To:"];
    let lines = text.split("\r\n").filter(|l| !own.iter().any(|o| l.starts_with(o)));
    let without_nonce = |line: &str| match line.split_once("nonce=\"") {
        Some((head, rest)) => format!("{head}{}", rest.split_once('"').unwrap().1),
        None => line.to_owned(),
    };
    lines.map(without_nonce).collect::<Vec<_>>().join("\n")
}

// Whoever guesses is banned before twenty tries, for a while, longer each time; those who are registered
// from the same address are not.
#[test]
fn b10_guessing_ends_in_a_ban_that_ends() {
    let mut lab = lab();
    registered(&mut lab, 2, &register());
    let guesser = address("10.0.0.3:6666");
    let banned_after = |lab: &mut Lab| {
        (0..40).find(|n| guess(lab, guesser, "200", lab.log.len() as u32 * 100 + n).is_empty())
    };
    let first = banned_after(&mut lab).expect("never banned");
    assert!(first <= 20, "{first}");
    assert_eq!(lab.endpoint(0).counters().banned_sources, 1);
    assert_eq!(refused(&mut lab, "ban"), 1);
    assert!(refused(&mut lab, "banned") >= 1 && refused(&mut lab, "auth_failed") >= u64::from(first));
    // Not even what would be right is read now, and it is not answered.
    let elsewhere = lab.net.add_raw(address("10.0.0.3:6667"));
    assert!(send(&mut lab, elsewhere, &again(&register(), 900)).is_empty());
    // Its neighbour behind the translator calls all the same.
    assert_eq!(status(&send(&mut lab, 2, &invite())[0]), 100);
    // A trunk is no stranger.
    assert_eq!(status(&lab.tell(&Ask::new("OPTIONS").text())[0]), 200);
    lab.run(Duration::from_secs(301));
    assert_eq!(lab.endpoint(0).counters().banned_sources, 0);
    let got = registered(&mut lab, elsewhere, &again(&register(), 902));
    assert_eq!(status(&got), 200);
    banned_after(&mut lab).expect("not banned again");
    lab.run(Duration::from_secs(301));
    assert_eq!(lab.endpoint(0).counters().banned_sources, 1, "twice as long");
    lab.run(Duration::from_secs(300));
    assert_eq!(lab.endpoint(0).counters().banned_sources, 0);
}

// One wrong answer now and then is a phone with an old password, not an attack.
#[test]
fn b10_what_is_forgiven_does_not_add_up() {
    let mut lab = lab();
    for n in 0..60 {
        assert!(!guess(&mut lab, address("10.0.0.8:5060"), "200", n).is_empty(), "{n}");
        lab.run(Duration::from_secs(31));
    }
    assert_eq!(refused(&mut lab, "ban"), 0);
}

// An unknown user, a wrong password: the same answer, letter by letter, and the same work for it.
#[test]
fn b10_an_unknown_user_is_told_nothing_else_than_a_wrong_password() {
    let mut lab = lab();
    let from = address("10.0.0.8:5060");
    let known = guess(&mut lab, from, "200", 1);
    let unknown = guess(&mut lab, from, "20O", 2);
    assert_eq!((status(&known[0]), known.len()), (401, 1));
    assert!(!known[0].contains("stale"));
    assert_eq!(comparable(&known[0]), comparable(&unknown[0]));
    // What the account may do is told to the account alone.
    let mut other = register();
    other.to = "<sip:nobody@gw.example>".to_owned();
    let mut theirs = register();
    theirs.to = "<sip:200@gw.example>".to_owned();
    let asked = [again(&other, 70), again(&theirs, 71)].map(|ask| send(&mut lab, 2, &ask).remove(0));
    assert_eq!(comparable(&asked[0]).replace("70 REG", "71 REG"), comparable(&asked[1]));
}

// Many sources, one user: its answers stop to count, except where it was right before.
#[test]
fn b10_one_user_guessed_from_everywhere_is_withheld() {
    let mut lab = lab();
    registered(&mut lab, 2, &register());
    for n in 0..60u32 {
        let from = SocketAddr::from(([10, 1, (n / 250) as u8, (n % 250) as u8 + 1], 5060));
        guess(&mut lab, from, "200", n);
    }
    assert_eq!(refused(&mut lab, "ban"), 0, "one try each");
    assert!(refused(&mut lab, "auth_withheld") >= 5);
    let new = lab.net.add_raw(address("10.0.0.9:5060"));
    let (_, got) = authenticated(&mut lab, new, &again(&register(), 30));
    assert_eq!(status(&got[0]), 401, "the right password does not count from a new address");
    let got = registered(&mut lab, 2, &again(&register(), 40));
    assert_eq!(status(&got), 200, "but where it was right before");
    lab.run(Duration::from_secs(31 * 30));
    let (_, got) = authenticated(&mut lab, new, &again(&register(), 50));
    assert_eq!(status(&got[0]), 200, "it decays");
}

// Forged sources: who never saw a nonce cannot have anybody banned, and nonces are of use to one source.
#[test]
fn b10_a_forged_source_bans_nobody() {
    let mut lab = lab();
    let victim = lab.net.add_raw(address("10.0.0.8:5060"));
    let stolen = send(&mut lab, 2, &register()).remove(0);
    let to = lab.gateway;
    for n in 0..100 {
        let ask = again(&register(), 200 + n);
        let ask = ask.clone().line(&credentials(&stolen, &ask, "200", "wrong", 1));
        lab.say_from(address("10.0.0.8:5060"), to, ask.text().as_bytes());
    }
    lab.run_ms(50);
    lab.inbox(victim);
    assert_eq!(refused(&mut lab, "auth_stale"), 100);
    assert_eq!(lab.endpoint(0).counters().banned_sources, 0);
    assert_eq!(status(&registered(&mut lab, victim, &again(&register(), 400))), 200);
}

// What is remembered of attackers is bounded, and the attack that fills it goes on being refused.
#[test]
fn b10_what_is_remembered_is_bounded() {
    let mut lab = lab_with(|config| {
        config.authentication.remembered = 8;
        config.authentication.source_failures = 2;
    });
    for n in 0..30u32 {
        let from = SocketAddr::from(([10, 2, 0, n as u8 + 1], 5060));
        guess(&mut lab, from, &format!("user{n}"), 2 * n);
        guess(&mut lab, from, &format!("user{n}"), 2 * n + 1);
    }
    let counters = lab.endpoint(0).counters();
    assert_eq!(counters.banned_sources, 8);
    assert!(counters.refused["guard_full"] >= 20, "{:?}", counters.refused);
    assert_eq!(counters.registered_contacts, 0);
}

// An IPv6 source is the 64 bits its customer has whole.
#[test]
fn b10_a_source_of_ipv6_is_its_network() {
    let mut lab = Lab::with(|config| {
        let local = address("[2001:db8::1]:5060");
        config.listeners.insert(0, sip_trunk::Listener { transport: Transport::Udp, local });
        config.accounts.push(account());
    });
    lab.gateway = address("[2001:db8::1]:5060");
    let from = |network: u16, host: u16| SocketAddr::from(([0x2001, 0xdb8, 0, network, 0, 0, 0, host], 5060));
    let banned = (0..40).find(|n| guess(&mut lab, from(7, *n), "200", u32::from(*n)).is_empty());
    assert!(banned.is_some_and(|n| n <= 20), "{banned:?}");
    assert!(guess(&mut lab, from(7, 999), "200", 999).is_empty());
    assert!(!guess(&mut lab, from(8, 1), "200", 1000).is_empty());
}

// Passwords, hashes and what would be right are in nothing that is printed.
#[test]
fn b10_nothing_secret_is_printed() {
    let mut lab = lab();
    let mut config = config(A, B, Transport::Udp);
    config.accounts.push(account());
    let (ask, _) = authenticated(&mut lab, 2, &register());
    guess(&mut lab, address("10.0.0.8:5060"), "200", 1);
    let right = ask.lines.split("response=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let endpoint = Endpoint::new(config.clone(), [1; 32], Instant::now(), 0).unwrap();
    let own = format!("{:?}", lab.endpoint(0));
    let events = format!("{:?} {:?}", lab.take(0), lab.endpoint(0).counters());
    let hashed =
        AccountSecret::Hashed(sip_trunk::auth::Ha1::of_password("200", "gw.example", &Secret::new(PASSWORD)));
    let printed = format!("{config:?} {endpoint:?} {own} {events} {hashed:?}");
    for secret in [PASSWORD, "sesame", right.as_str()] {
        assert!(!printed.contains(secret), "{secret}");
    }
    let sent: Vec<_> = lab.log.iter().filter(|(_, from, ..)| *from == address(A)).collect();
    assert!(!sent.is_empty() && sent.iter().all(|(.., text)| !text.contains(&right)));
}

// An account of one realm is nobody in another; the challenge is of the realm that is addressed.
#[test]
fn realms_are_apart() {
    let mut lab = lab_with(|config| {
        let mut other = account();
        (other.realm, other.trunk.name) = ("branch.example".to_owned(), trunk_name("branch"));
        other.secret = AccountSecret::Password(Secret::new("another"));
        config.accounts.push(other);
    });
    let mut ask = register();
    ask.to = "<sip:200@branch.example>".to_owned();
    let (_, got) = authenticated_as(&mut lab, 2, &ask, "200", PASSWORD);
    assert_eq!(status(&got[0]), 401);
    let (_, got) = authenticated_as(&mut lab, 2, &again(&ask, 10), "200", "another");
    assert_eq!(status(&got[0]), 200);
    assert!(desk(&mut lab).1.contacts.is_empty());
    let branch = lab.endpoint(0).trunk_status().into_iter().find(|t| t.name == trunk_name("branch"));
    assert_eq!(branch.unwrap().account.unwrap().contacts.len(), 1);
}

// Who is not let in is not read: no answer, no counter but one, whoever it is.
#[test]
fn the_access_list_comes_before_anything_is_read() {
    let rule = |listener: Option<&str>, allow: &[&str], deny: &[&str]| AccessRule {
        listener: listener.map(address),
        list: AccessList {
            allow: allow.iter().map(|text| text.parse().unwrap()).collect(),
            deny: deny.iter().map(|text| text.parse().unwrap()).collect(),
        },
    };
    for (rule, trunk, phone) in [
        (rule(None, &[], &["10.0.0.3"]), true, false),
        (rule(None, &["10.0.0.0/31", "10.0.0.2/32"], &[]), true, false),
        (rule(None, &["10.0.0.0/24"], &["10.0.0.2/31"]), false, false),
        (rule(Some("10.0.0.1:5060"), &["192.0.2.0/24"], &[]), false, false),
        (rule(Some("10.0.0.99:5060"), &["192.0.2.0/24"], &[]), true, true),
        (rule(None, &["::/0"], &[]), false, false),
        (rule(None, &["0.0.0.0/0"], &[]), true, true),
    ] {
        let text = format!("{rule:?}");
        let mut lab = lab_with(|config| config.access.push(rule));
        assert_eq!(!lab.tell(&Ask::new("OPTIONS").text()).is_empty(), trunk, "{text}");
        assert_eq!(!send(&mut lab, 2, &register()).is_empty(), phone, "{text}");
        assert_eq!(!send(&mut lab, 2, &again(&Ask { cseq: 1, ..invite() }, 2)).is_empty(), phone);
        let denied = u64::from(!trunk) + 2 * u64::from(!phone);
        assert_eq!(refused(&mut lab, "access_list"), denied, "{text}");
        // A connection is closed at once.
        let to = lab.gateway;
        lab.raw_connect(2, 42_000, to);
        lab.run_ms(30);
        assert_eq!(lab.inbox(2).contains(&"<closed>".to_owned()), !phone, "{text}");
    }
    for (wrong, error) in [
        ("10.0.0.1/8", NetworkError::HostBits),
        ("10.0.0.0/33", NetworkError::Prefix),
        ("10.0.0.0/", NetworkError::Prefix),
        ("example.org", NetworkError::Address),
        ("2001:db8::/129", NetworkError::Prefix),
    ] {
        assert_eq!(wrong.parse::<Network>(), Err(error), "{wrong}");
    }
    let network: Network = "2001:db8::/32".parse().unwrap();
    assert!(network.contains("2001:db8:ffff::1".parse().unwrap()) && network.to_string() == "2001:db8::/32");
    let mapped: Network = "192.0.2.0/24".parse().unwrap();
    assert!(mapped.contains("::ffff:192.0.2.7".parse().unwrap()));
}

// Those who have yet to say who they are take no more than half of the connections, and say something
// in time.
#[test]
fn strangers_leave_connections_for_trunks() {
    let mut lab = lab_with(|config| {
        config.limits.connections = 8;
        config.limits.connections_per_source = 8;
    });
    let to = lab.gateway;
    for n in 0..6 {
        lab.raw_connect(2, 43_000 + n, to);
        lab.run_ms(20);
    }
    assert_eq!(lab.endpoint(0).counters().connections, 4);
    assert_eq!(refused(&mut lab, "connections"), 2);
    lab.raw_connect(1, 44_000, to);
    lab.run_ms(20);
    assert_eq!(lab.endpoint(0).counters().connections, 5);
    lab.run(Duration::from_secs(31));
    assert_eq!(lab.endpoint(0).counters().connections, 0, "silent ones go");
    assert_eq!(lab.inbox(2).iter().filter(|m| *m == "<closed>").count(), 6);
}
