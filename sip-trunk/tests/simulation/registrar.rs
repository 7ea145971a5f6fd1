//! PBXs and phones register here, and are trunks while they do (RFC 3261 10.3).

use std::sync::Arc;
use std::time::Duration;

use call_model::{Address, CallId, Cause};
use sip_trunk::auth::{Ha1, Secret};
use sip_trunk::{
    AccountSecret, CallDetails, Command, CommandError, ConfigError, EndedBy, Endpoint, Event, Registration,
    Transport, TrunkConfig, TrunkState,
};

use crate::accounts::{
    PASSWORD, PHONE, account, again, authenticated, contacts, credentials, desk, invite, lab, lab_with,
    register, registered, send,
};
use crate::net::{
    A, A_RTP, B, B_RTP, Net, address, call_id, caller, config, ended, media, number, trunk_name,
};
use crate::raw::{Ask, Lab, SDP, header, headers, reply, status};

fn call_desk(lab: &mut Lab, n: u64) -> Result<CallId, CommandError> {
    let call = call_id(n);
    let (called, caller) = (number("+442079460018"), caller("+12025550100"));
    let command = Command::Invite { call, trunk: trunk_name("desk"), called, caller, media: media(A_RTP) };
    lab.try_command(0, command)?;
    lab.run_ms(20);
    Ok(call)
}

fn health(events: &[Event]) -> Vec<bool> {
    let up = |e: &Event| match e {
        Event::TrunkHealth { trunk, up, .. } if *trunk == trunk_name("desk") => Some(*up),
        _ => None,
    };
    events.iter().filter_map(up).collect()
}

// RFC 3261 10.3: challenged, bound, listed, expired. While there is a contact the account is a trunk.
#[test]
fn an_account_is_a_trunk_while_it_is_registered() {
    let mut lab = lab();
    assert_eq!(desk(&mut lab).0, TrunkState::Down);
    assert_eq!(call_desk(&mut lab, 1), Err(CommandError::NotRegistered));
    let ask = register().line("Expires: 120").line("User-Agent: Desk Phone 1");
    let ok = registered(&mut lab, 2, &ask);
    assert_eq!(status(&ok), 200);
    assert_eq!(headers(&ok, "Contact"), ["<sip:line1@192.168.1.7:5080>;expires=120"], "and not our own");
    assert!(header(&ok, "Allow").contains("REGISTER"));
    assert_eq!(health(&lab.take(0)), [true]);
    let (state, account) = desk(&mut lab);
    assert_eq!((state, account.user.as_str(), account.contacts.len()), (TrunkState::Up, "200", 1));
    let contact = &account.contacts[0];
    assert_eq!((contact.source, contact.transport), (address(PHONE), Transport::Udp));
    assert_eq!(contact.user_agent, "Desk Phone 1");
    assert!(contact.expires_in > Duration::from_secs(118) && contact.expires_in <= Duration::from_secs(120));
    assert_eq!(lab.endpoint(0).counters().registered_contacts, 1);
    lab.run(Duration::from_secs(119));
    assert_eq!(desk(&mut lab).0, TrunkState::Up);
    lab.run(Duration::from_secs(2));
    assert_eq!(desk(&mut lab).0, TrunkState::Down);
    assert_eq!(health(&lab.take(0)), [false]);
    assert_eq!(call_desk(&mut lab, 2), Err(CommandError::NotRegistered));
    lab.run(Duration::from_secs(60));
    lab.assert_empty(0);
}

// The 200 was lost: the same REGISTER is no replay of its credentials (RFC 3261 17.2.2).
#[test]
fn a_repeated_register_gets_the_same_answer() {
    let mut lab = lab();
    let (ask, first) = authenticated(&mut lab, 2, &register());
    assert_eq!(send(&mut lab, 2, &ask), first);
    // A real replay, under another branch, is stale (RFC 7616 5.12).
    let mut replayed = ask.clone();
    replayed.via = replayed.via.replace("branch=z9hG4bK", "branch=z9hG4bKother");
    let got = send(&mut lab, 2, &replayed).remove(0);
    assert_eq!(status(&got), 401);
    assert!(headers(&got, "WWW-Authenticate").iter().all(|c| c.contains("stale=true")), "{got}");
    // One nonce serves many requests, counted.
    let next = again(&register(), 9);
    let next = next.clone().line(&credentials(&got, &next, "200", PASSWORD, 1));
    assert_eq!(status(&send(&mut lab, 2, &next)[0]), 200);
    let next = again(&register(), 10);
    let next = next.clone().line(&credentials(&got, &next, "200", PASSWORD, 2));
    assert_eq!(status(&send(&mut lab, 2, &next)[0]), 200);
}

// RFC 3261 10.3 steps 6 and 7: the order of REGISTERs, removal, all or nothing.
#[test]
fn bindings_change_in_order_and_all_or_nothing() {
    let mut lab = lab();
    let with = |contacts: &str, cseq: u32| Ask { lines: contacts.to_owned(), cseq, ..register() };
    let two = "Contact: <sip:a@192.168.1.7>, <sip:b@192.168.1.7>;expires=90\r\n";
    assert_eq!(headers(&registered(&mut lab, 2, &with(two, 10)), "Contact").len(), 2);
    // An older one of the same Call-ID, overtaken on the way.
    let old = registered(&mut lab, 2, &with("Contact: <sip:a@192.168.1.7>;expires=0\r\n", 5));
    assert_eq!((status(&old), contacts(&mut lab).len()), (500, 2));
    let old = Ask { cseq: 6, ..with("Contact: *\r\nExpires: 0\r\n", 6) };
    assert_eq!(status(&registered(&mut lab, 2, &old)), 500);
    // One that cannot be: none is.
    let impossible = [
        ("Contact: <sip:c@192.168.1.7>, <sip:d@192.168.1.7>;expires=5\r\n", 423),
        ("Contact: <sip:c@192.168.1.7>, <mailto:d@192.168.1.7>\r\n", 400),
        ("Contact: <sip:c@192.168.1.7>, <sip:a@192.168.1.7>;q=7\r\n", 400),
        ("Contact: *, <sip:c@192.168.1.7>\r\nExpires: 0\r\n", 400),
        ("Contact: *\r\nExpires: 60\r\n", 400),
        ("Contact: *\r\n", 400),
    ];
    for (n, (lines, expected)) in impossible.into_iter().enumerate() {
        let got = registered(&mut lab, 2, &with(lines, 20 + 2 * n as u32));
        assert_eq!(status(&got), expected, "{lines}");
        if expected == 423 {
            assert_eq!(header(&got, "Min-Expires"), "60");
        }
        assert_eq!(contacts(&mut lab).len(), 2, "{lines}");
    }
    // Without a Contact it asks only.
    let listed = headers(&registered(&mut lab, 2, &with("", 50)), "Contact");
    assert_eq!(listed.len(), 2, "{listed:?}");
    // Another Call-ID is another source of truth: it removes, refreshes, adds.
    let mut other = with("Contact: <sip:a@192.168.1.7>;expires=0, <sip:e@192.168.1.7>;q=0.5\r\n", 1);
    other.call_id = "reg2".to_owned();
    let listed = headers(&registered(&mut lab, 2, &other), "Contact");
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert!(listed.iter().any(|c| c.starts_with("<sip:e@192.168.1.7>;expires=3600;q=0.500")), "{listed:?}");
    let mut all = with("Contact: *\r\nExpires: 0\r\n", 60);
    all.call_id = "reg3".to_owned();
    assert!(headers(&registered(&mut lab, 2, &all), "Contact").is_empty());
    assert_eq!(desk(&mut lab).0, TrunkState::Down);
    assert_eq!(lab.endpoint(0).counters().refused["register_out_of_order"], 2);
}

#[test]
fn contacts_are_no_more_than_allowed() {
    let contact = |n: u32| Ask {
        lines: format!("Contact: <sip:line@192.168.1.{n}>\r\n"),
        call_id: format!("reg{n}"),
        ..register()
    };
    for replace in [true, false] {
        let mut lab = lab_with(|config| {
            config.accounts[0].max_contacts = 2;
            config.accounts[0].replace_oldest = replace;
        });
        assert_eq!(status(&registered(&mut lab, 2, &contact(1))), 200);
        assert_eq!(status(&registered(&mut lab, 2, &contact(2))), 200);
        let third = status(&registered(&mut lab, 2, &contact(3)));
        let expected = if replace {
            (200, ["sip:line@192.168.1.3", "sip:line@192.168.1.2"])
        } else {
            (403, ["sip:line@192.168.1.2", "sip:line@192.168.1.1"])
        };
        assert_eq!((third, contacts(&mut lab)), (expected.0, expected.1.map(str::to_owned).to_vec()));
        let mut three = contact(4);
        three.lines = "Contact: <sip:a@10.1.1.1>, <sip:b@10.1.1.1>, <sip:c@10.1.1.1>\r\n".to_owned();
        assert_eq!(status(&registered(&mut lab, 2, &three)), 403, "more than it may have in one");
    }
}

// RFC 3261 10.3 steps 2 to 5.
#[test]
fn nobody_registers_for_another_or_by_the_wrong_way() {
    let mut lab = lab_with(|config| config.accounts[0].transports = vec![Transport::Tcp]);
    let mut other = register();
    other.to = "<sip:201@gw.example>".to_owned();
    assert_eq!(status(&registered(&mut lab, 2, &other)), 403);
    assert_eq!(status(&registered(&mut lab, 2, &register())), 403, "by UDP");
    let got = send(&mut lab, 2, &register().line("Require: foo, path")).remove(0);
    assert_eq!((status(&got), header(&got, "Unsupported").as_str()), (420, "foo"));
    let got = registered(&mut lab, 2, &register().line("Require: gin"));
    assert_eq!(status(&got), 403, "the transport first");
    // Without accounts nobody is asked who it is: strangers are strangers, and trunks do not register.
    let mut lab = Lab::new();
    lab.net.add_raw(address(PHONE));
    assert_eq!(status(&send(&mut lab, 2, &register())[0]), 403);
    let got = lab.tell(&register().text()).remove(0);
    assert_eq!(status(&got), 405);
    assert!(!header(&got, "Allow").contains("REGISTER"));
}

// A phone behind a translator: calls go to where it registered from, with its Contact as request URI, and
// so does everything in the dialog, whatever the Contact of its 200 says.
#[test]
fn a_phone_behind_a_translator_is_reached() {
    let mut lab = lab();
    registered(&mut lab, 2, &register());
    lab.take(0);
    let call = call_desk(&mut lab, 1).unwrap();
    let sent = lab.inbox(2).remove(0);
    assert!(sent.starts_with("INVITE sip:line1@192.168.1.7:5080 SIP/2.0"), "{sent}");
    assert_eq!(header(&sent, "To"), "<sip:+442079460018@gw.example>");
    let private = "Contact: <sip:line1@192.168.1.7:5080>\r\n";
    let to = lab.gateway;
    lab.say(2, to, &reply(&sent, 200, "phone", private, SDP));
    lab.run_ms(20);
    let ack = lab.inbox(2).remove(0);
    assert!(ack.starts_with("ACK sip:line1@192.168.1.7:5080"), "{ack}");
    // Its own requests come from there, or from another port of the translator: the dialog tells.
    let mut bye = Ask::back(&sent, "BYE", 1);
    bye.from = bye.from.replace("tag=peer", "tag=phone");
    let ended_by = |lab: &mut Lab| ended(&lab.take(0));
    lab.say_from(address("10.0.0.3:9999"), to, bye.text().as_bytes());
    lab.run_ms(20);
    assert_eq!(ended_by(&mut lab), [(Cause::NORMAL_CALL_CLEARING, None, EndedBy::Far)]);
    let _ = call;
    // Where the account is not symmetric, its Contact counts.
    let mut lab = lab_with(|config| config.accounts[0].symmetric = false);
    registered(&mut lab, 2, &register());
    call_desk(&mut lab, 1).unwrap();
    let (_, _, to, _) = lab.log.iter().find(|(.., text)| text.starts_with("INVITE ")).unwrap();
    assert_eq!(*to, address("192.168.1.7:5080"));
}

// RFC 3327 5.1, 5.3.
#[test]
fn path_is_kept_and_followed() {
    let mut lab = lab();
    let path = "Path: <sip:10.0.0.4:5062;lr>, <sip:10.0.0.5;lr>";
    let got = registered(&mut lab, 2, &register().line(path));
    assert_eq!((status(&got), header(&got, "Unsupported").as_str()), (420, "path"));
    let got = registered(&mut lab, 2, &again(&register(), 5).line(path).line("Supported: path"));
    assert_eq!(status(&got), 200);
    assert_eq!(headers(&got, "Path"), [path[6..].to_owned()]);
    let proxy = lab.net.add_raw(address("10.0.0.4:5062"));
    call_desk(&mut lab, 1).unwrap();
    let sent = lab.inbox(proxy).remove(0);
    assert!(sent.starts_with("INVITE sip:line1@192.168.1.7:5080 "), "{sent}");
    assert_eq!(headers(&sent, "Route"), ["<sip:10.0.0.4:5062;lr>", "<sip:10.0.0.5;lr>"]);
}

// RFC 5626 3.1, 5.3: a contact over a connection is reached by it, and is gone with it.
#[test]
fn a_contact_lives_and_dies_with_its_connection() {
    let mut lab = lab();
    let to = lab.gateway;
    let wire = lab.raw_connect(2, 41_000, to);
    lab.run_ms(20);
    let mut ask = register();
    ask.via = ask.via.replace("UDP", "TCP");
    lab.raw_write(2, wire, &ask.text());
    lab.run_ms(20);
    let challenged = lab.inbox(2).concat();
    let second = again(&ask, 2);
    let second = second.clone().line(&credentials(&challenged, &second, "200", PASSWORD, 1));
    lab.raw_write(2, wire, &second.text());
    lab.run_ms(20);
    assert_eq!(status(&lab.inbox(2).concat()), 200);
    // It stays though nothing passes, longer than idle connections do.
    lab.run(Duration::from_secs(1500));
    assert_eq!(desk(&mut lab).0, TrunkState::Up);
    call_desk(&mut lab, 1).unwrap();
    let sent = lab.inbox(2).concat();
    assert!(sent.starts_with("INVITE sip:line1@192.168.1.7:5080 "), "by the connection: {sent}");
    assert!(header(&sent, "Via").starts_with("SIP/2.0/TCP"));
    assert!(header(&sent, "Contact").contains("transport=tcp"));
    lab.take(0);
    lab.cut_all();
    lab.run_ms(20);
    assert_eq!(desk(&mut lab).0, TrunkState::Down);
    let events = lab.take(0);
    assert_eq!(health(&events), [false]);
    assert_eq!(ended(&events), [(Cause::NETWORK_OUT_OF_ORDER, None, EndedBy::Transport)]);
    assert_eq!(call_desk(&mut lab, 2), Err(CommandError::NotRegistered));
    assert_eq!(lab.endpoint(0).counters().connections, 0);
}

// RFC 5626 6: a flow of an instance replaces itself, whatever its Contact; the first proxy must keep it.
#[test]
fn flows_of_an_instance_replace_themselves() {
    let mut lab = lab();
    let flow = |n: u32, id: u32| {
        let lines = format!(
            "Contact: <sip:line@192.168.1.{n};ob>;reg-id={id};+sip.instance=\"<urn:uuid:1>\"\r\n\
             Supported: path, outbound\r\n"
        );
        Ask { lines, call_id: format!("reg{n}"), ..register() }
    };
    let got = registered(&mut lab, 2, &flow(1, 1));
    assert_eq!((status(&got), header(&got, "Require").as_str()), (200, "outbound"));
    let contact = header(&got, "Contact");
    assert!(contact.contains("+sip.instance=\"<urn:uuid:1>\";reg-id=1"), "{contact}");
    registered(&mut lab, 2, &flow(2, 2));
    assert_eq!(contacts(&mut lab).len(), 2);
    registered(&mut lab, 2, &flow(3, 1));
    assert_eq!(contacts(&mut lab), ["sip:line@192.168.1.3;ob", "sip:line@192.168.1.2;ob"]);
    // Without `outbound` the URI counts.
    let mut plain = flow(4, 1);
    plain.lines = plain.lines.replace(", outbound", "");
    let got = registered(&mut lab, 2, &plain);
    assert!(headers(&got, "Require").is_empty());
    assert_eq!(contacts(&mut lab).len(), 3);
    // A proxy that keeps no flow, and one that does.
    let mut behind = flow(5, 1).line("Path: <sip:10.0.0.5;lr>");
    assert_eq!(status(&registered(&mut lab, 2, &behind)), 439);
    behind.lines = behind.lines.replace("10.0.0.5;lr", "10.0.0.5;lr;ob");
    behind.call_id = "reg6".to_owned();
    assert_eq!(status(&registered(&mut lab, 2, &behind)), 200);
    let mut both = flow(7, 1);
    both.lines = format!("{}{}", both.lines, flow(8, 2).lines);
    assert_eq!(status(&registered(&mut lab, 2, &both)), 400);
}

// RFC 5626 8: who is registered may ask by STUN whether its flow lives; others get nothing.
#[test]
fn stun_is_answered_on_a_registered_flow() {
    let mut lab = lab();
    let request = [&[0u8, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[0xf0; 12]].concat();
    let to = lab.gateway;
    lab.say_from(address(PHONE), to, &request);
    lab.run_ms(20);
    assert!(lab.binary.is_empty() && lab.inbox(2).is_empty());
    registered(&mut lab, 2, &register());
    lab.say_from(address(PHONE), to, &request);
    lab.run_ms(20);
    let (_, _, to, answer) = &lab.binary[0];
    assert_eq!(*to, address(PHONE));
    assert_eq!((&answer[..2], &answer[8..20]), (&[1u8, 1][..], &[0xf0u8; 12][..]));
    let port = u16::from_be_bytes([answer[26], answer[27]]) ^ 0x2112;
    let ip: Vec<u8> = answer[28..32].iter().zip([0x21, 0x12, 0xa4, 0x42]).map(|(a, m)| a ^ m).collect();
    assert_eq!((port, ip), (5060, vec![10, 0, 0, 3]));
}

// Contacts are tried one after another: those that answer, the preferred, the latest.
#[test]
fn contacts_are_tried_in_order_until_one_is_reached() {
    let mut lab = lab_with(|config| config.accounts[0].keep_alive = None);
    let second = lab.net.add_raw(address("10.0.0.6:5060"));
    let third = lab.net.add_raw(address("10.0.0.7:5060"));
    for (node, lines) in [
        (2, "Contact: <sip:last@192.168.1.7>;q=0.2\r\n"),
        (second, "Contact: <sip:old@192.168.1.8>\r\n"),
        (third, "Contact: <sip:new@192.168.1.9>\r\n"),
    ] {
        let ask = Ask { lines: lines.to_owned(), call_id: format!("reg{node}"), ..register() };
        let mut ask = ask;
        ask.via = format!("SIP/2.0/UDP {};branch=z9hG4bKn{node};rport", lab.nodes[node].0);
        assert_eq!(status(&registered(&mut lab, node, &ask)), 200);
    }
    lab.take(0);
    let call = call_desk(&mut lab, 1).unwrap();
    let to = lab.gateway;
    let first = lab.inbox(third).remove(0);
    assert!(first.starts_with("INVITE sip:new@") && lab.inbox(second).is_empty());
    lab.say(third, to, &reply(&first, 480, "t", "", ""));
    lab.run_ms(20);
    let next = lab.inbox(second).remove(0);
    assert!(next.starts_with("INVITE sip:old@"), "{next}");
    assert_eq!(header(&next, "Call-ID"), header(&first, "Call-ID"));
    assert_eq!(header(&next, "CSeq"), "2 INVITE");
    assert!(ended(&lab.take(0)).is_empty());
    // Silence is no answer either.
    lab.run(Duration::from_secs(33));
    let last = lab.inbox(2).remove(0);
    assert!(last.starts_with("INVITE sip:last@"), "{last}");
    // The user has spoken: nobody else is tried, and there is nobody.
    lab.say(2, to, &reply(&last, 486, "t", "", ""));
    lab.run_ms(20);
    assert_eq!(ended(&lab.take(0)), [(Cause::USER_BUSY, Some(486), EndedBy::Far)]);
    let _ = call;
    // Busy at the first is busy.
    let before = lab.sent(0, "INVITE ");
    call_desk(&mut lab, 2).unwrap();
    let first = lab.inbox(third).into_iter().find(|m| m.starts_with("INVITE")).unwrap();
    lab.say(third, to, &reply(&first, 486, "t", "", ""));
    lab.run_ms(20);
    assert_eq!(ended(&lab.take(0)).len(), 1);
    assert_eq!(lab.sent(0, "INVITE "), before + 1);
}

// OPTIONS keep the way open, and tell who does not answer any more: that one is tried last.
#[test]
fn contacts_over_udp_are_asked_whether_they_live() {
    let mut lab = lab();
    let dead = lab.net.add_raw(address("10.0.0.6:5060"));
    registered(&mut lab, 2, &register());
    let ask =
        Ask { lines: "Contact: <sip:gone@192.168.1.8>\r\n".to_owned(), call_id: "g".into(), ..register() };
    registered(&mut lab, dead, &again(&ask, 7));
    assert_eq!(contacts(&mut lab)[0], "sip:gone@192.168.1.8");
    let to = lab.gateway;
    for _ in 0..130 {
        lab.run(Duration::from_secs(1));
        for text in lab.inbox(2) {
            assert!(text.starts_with("OPTIONS sip:line1@192.168.1.7:5080 "), "{text}");
            lab.say(2, to, &reply(&text, 404, "o", "", ""));
        }
    }
    let (_, account) = desk(&mut lab);
    assert_eq!(account.contacts.iter().map(|c| c.answers).collect::<Vec<_>>(), [false, true]);
    lab.inbox(dead);
    lab.take(0);
    call_desk(&mut lab, 1).unwrap();
    assert!(lab.inbox(2).iter().any(|m| m.starts_with("INVITE ")));
    assert!(!lab.inbox(dead).iter().any(|m| m.starts_with("INVITE ")), "the latest, but silent");
    assert_eq!(health(&lab.take(0)), [] as [bool; 0]);
}

// A call by the registered flow is the account's: alice is called by it.
#[test]
fn a_call_by_a_registered_flow_is_of_the_account() {
    let mut lab = lab_with(|config| {
        let mut other = account();
        (other.user, other.trunk.name) = ("201".to_owned(), trunk_name("desk2"));
        config.accounts.push(other);
    });
    registered(&mut lab, 2, &register());
    let mut second = register();
    (second.to, second.call_id) = ("<sip:201@gw.example>".to_owned(), "reg201".to_owned());
    let (_, got) = crate::accounts::authenticated_as(&mut lab, 2, &again(&second, 3), "201", PASSWORD);
    assert_eq!(status(&got[0]), 200);
    lab.take(0);
    for (n, (user, trunk)) in [("200", "desk"), ("201", "desk2"), ("999", "desk")].into_iter().enumerate() {
        let mut ask = again(&invite(), 50);
        ask.call_id = format!("call{n}");
        ask.via = format!("SIP/2.0/UDP 10.0.0.3:5060;branch=z9hG4bKc{n};rport");
        ask.from = format!("<sip:{user}@gw.example>;tag=phone");
        let got = send(&mut lab, 2, &ask);
        assert_eq!(status(&got[0]), 100, "not challenged: {got:?}");
        let events = lab.take(0);
        let [Event::Incoming { trunk: of, called_user, called, .. }] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!((of, called_user.as_str()), (&trunk_name(trunk), "alice"));
        assert_eq!(*called, Some(Address::Handle("alice".parse().unwrap())));
    }
}

// A PBX stands for many: the called user part goes out, also one that is no E.164 number (RFC 6140 5.2 for
// the form with `bnc`).
#[test]
fn a_pbx_is_called_by_the_extension() {
    let mut lab = lab_with(|config| config.accounts[0].many_users = true);
    registered(&mut lab, 2, &register());
    let invite_with = |lab: &mut Lab, n: u64, called_user: Option<&str>| {
        let details = CallDetails { called_user: called_user.map(str::to_owned), ..CallDetails::default() };
        lab.command(
            0,
            Command::InviteWith {
                call: call_id(n),
                trunk: trunk_name("desk"),
                called: number("+442079460018"),
                caller: caller("+12025550100"),
                media: media(A_RTP),
                details: Arc::new(details),
            },
        );
        lab.run_ms(20);
        lab.inbox(2).into_iter().find(|m| m.starts_with("INVITE ")).unwrap()
    };
    let sent = invite_with(&mut lab, 1, None);
    assert!(sent.starts_with("INVITE sip:+442079460018@192.168.1.7:5080 "), "{sent}");
    let sent = invite_with(&mut lab, 2, Some("200"));
    assert!(sent.starts_with("INVITE sip:200@192.168.1.7:5080 "), "{sent}");
    assert_eq!(header(&sent, "To"), "<sip:200@gw.example>");
    let sent = invite_with(&mut lab, 3, Some("2 0;0@x"));
    assert!(sent.starts_with("INVITE sip:2%200%3B0%40x@192.168.1.7:5080 "), "{sent}");
    let bulk = Ask { lines: "Contact: <sip:192.168.1.7;bnc>\r\nRequire: gin\r\n".into(), ..register() };
    let got = registered(&mut lab, 2, &Ask { call_id: "bulk".into(), ..again(&bulk, 20) });
    assert_eq!(status(&got), 200);
    let sent = invite_with(&mut lab, 4, None);
    assert!(sent.starts_with("INVITE sip:+442079460018@192.168.1.7 "), "{sent}");
    let mut plain = crate::accounts::lab();
    assert_eq!(status(&registered(&mut plain, 2, &bulk)), 420, "a phone is no group");
}

/// Two endpoints: 0 registers at 1, over `transport`.
fn pair(transport: Transport, change: impl FnOnce(&mut TrunkConfig)) -> Net {
    let mut net = Net::new(3);
    let mut client = config(A, B, transport);
    let trunk = &mut client.trunks[0];
    trunk.registration = Some(Registration::new("200", "gw.example"));
    trunk.credentials = Some(sip_trunk::auth::Credentials {
        username: "200".to_owned(),
        password: Secret::new(PASSWORD),
        realm: None,
    });
    change(trunk);
    net.add_endpoint(client);
    let mut registrar = config(B, "10.7.7.7:5060", transport);
    registrar.accounts.push(account());
    net.add_endpoint(registrar);
    net.run(Duration::from_secs(3));
    net
}

// Our registration machine at our registrar: calls pass both ways, for hours, over UDP and TCP.
#[test]
fn our_own_registration_is_accepted_and_calls_pass_both_ways() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut net = pair(transport, |_| {});
        for round in 0..2 {
            let status = net.endpoint(1).trunk_status();
            assert_eq!(status[1].account.as_ref().unwrap().contacts.len(), 1, "{transport:?} {round}");
            for (from, to, trunk) in [(1, 0, "desk"), (0, 1, "far")] {
                let call = call_id(100 + from as u64 + 10 * round);
                net.command(
                    from,
                    Command::Invite {
                        call,
                        trunk: trunk_name(trunk),
                        called: number("+442079460018"),
                        caller: caller("+12025550100"),
                        media: media(if from == 0 { A_RTP } else { B_RTP }),
                    },
                );
                net.run_ms(50);
                let incoming = net.take(to).into_iter().find_map(|e| match e {
                    Event::Incoming { call, trunk, .. } => Some((call, trunk)),
                    _ => None,
                });
                let (theirs, of) = incoming.unwrap_or_else(|| panic!("{transport:?} {trunk}"));
                assert_eq!(of, trunk_name(if to == 1 { "desk" } else { "far" }));
                net.command(to, Command::Answer { call: theirs, media: media("10.0.0.9:4000") });
                net.run_ms(50);
                assert!(net.take(from).contains(&Event::Answered { call }));
                net.command(from, Command::Release { call, cause: Cause::NORMAL_CALL_CLEARING });
                net.run_ms(50);
                assert_eq!(ended(&net.take(to)).len(), 1, "{transport:?} {trunk}");
            }
            net.run(Duration::from_secs(5000));
        }
        net.command(0, Command::Drain { on: true });
        net.run(Duration::from_secs(40));
        assert_eq!(net.endpoint(1).counters().registered_contacts, 0, "it unregistered");
        net.assert_empty(1);
    }
}

#[test]
fn accounts_that_contradict_themselves_are_refused() {
    let new = |change: &dyn Fn(&mut sip_trunk::EndpointConfig)| {
        let mut config = config(A, B, Transport::Udp);
        config.accounts.push(account());
        change(&mut config);
        let made = Endpoint::new(config, [1; 32], std::time::Instant::now(), 0);
        made.map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(new(&|_| {}), Ok(()));
    let twice = new(&|config| config.accounts.push(account()));
    assert_eq!(twice, Err(ConfigError::DuplicateTrunk("desk".to_owned()).to_string()));
    let same_user = new(&|config| {
        let mut other = account();
        other.trunk.name = trunk_name("desk2");
        config.accounts.push(other);
    });
    assert!(same_user.unwrap_err().contains("user name is that of an earlier account"));
    assert!(new(&|config| config.accounts[0].user = "a:b".into()).unwrap_err().contains("colon"));
    assert!(new(&|config| config.accounts[0].max_contacts = 0).unwrap_err().contains("1 to 64"));
    assert!(new(&|config| config.accounts[0].transports.clear()).unwrap_err().contains("no transport"));
    let apart = new(&|config| {
        let (md5, sha256) = (Secret::new("0".repeat(32)), Secret::new("0".repeat(64)));
        let hashed = |md5, sha256| AccountSecret::Hashed(Ha1::new(md5, sha256).unwrap());
        config.accounts[0].secret = hashed(Some(&md5), None);
        let mut other = account();
        (other.user, other.trunk.name) = ("201".into(), trunk_name("desk2"));
        other.secret = hashed(None, Some(&sha256));
        config.accounts.push(other);
    });
    assert!(apart.unwrap_err().contains("no algorithm in common"));
}
