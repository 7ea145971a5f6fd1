//! Rows D18 and D22: redirection by policy (RFC 3261 8.1.3.4), and numbers that are incomplete.

use std::time::Duration;

use call_model::{CallId, Cause};
use sip_trunk::trunk::diversion::{Diversion, DiversionHeader, DiversionReason};
use sip_trunk::{
    CallDetails, Command, CommandError, EndedBy, Event, RedirectContact, RedirectPolicy, TrunkConfig,
};

use crate::dialogs::{assert_clean, release};
use crate::identity::{invite_with, lab};
use crate::net::{call_id, caller, ended, number};
use crate::raw::{Ask, CONTACT, Lab, SDP, header, headers, reply, status};

fn following(change: impl FnOnce(&mut TrunkConfig)) -> Lab {
    lab(|trunk| {
        trunk.redirects.policy = RedirectPolicy::SameHost;
        change(trunk);
    })
}

/// The answer of the peer to an INVITE with this status and these contacts.
fn moved(lab: &mut Lab, invite: &str, status: u16, contacts: &[&str]) -> Vec<Event> {
    let lines: String = contacts.iter().map(|c| format!("Contact: {c}\r\n")).collect();
    let got = lab.tell(&reply(invite, status, "moved", &lines, ""));
    assert!(got[0].starts_with("ACK "), "{got:?}");
    assert_eq!(got.len(), 1, "nothing more without a word of the user: {got:?}");
    lab.take(0)
}

fn contacts(events: &[Event]) -> Vec<RedirectContact> {
    let found = events.iter().find_map(|e| match e {
        Event::Redirected { contacts, .. } => Some(contacts.clone()),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("{events:?}"))
}

fn follow(lab: &mut Lab, contact: usize) -> String {
    lab.command(0, Command::FollowRedirect { call: call_id(77), contact });
    lab.run_ms(20);
    lab.inbox(1).remove(0)
}

fn ended_with(events: &[Event]) -> (Cause, Option<u16>) {
    match ended(events)[..] {
        [(cause, status, EndedBy::Far)] => (cause, status),
        _ => panic!("{events:?}"),
    }
}

// RFC 3261 8.1.3.4, RFC 5806, RFC 7544: the same To, From and Call-ID, another URI, one diversion more.
#[test]
fn d18_a_redirection_is_followed_and_the_diversion_told() {
    let mut lab = following(|_| {});
    let (call, invite) = lab.call_out();
    let lines = [
        "<sip:+442079460001@10.0.0.2>;q=0.2, <sip:+442079460002@10.0.0.2;user=phone?Subject=x>;q=0.9",
        "tel:+442079460003;q=nonsense",
    ];
    let events = moved(&mut lab, &invite, 302, &lines);
    assert!(events.iter().any(|e| matches!(e, Event::Redirected { call: c, status: 302, .. } if *c == call)));
    let found = contacts(&events);
    let seen: Vec<_> = found.iter().map(|c| (c.uri.as_str(), c.preference)).collect();
    assert_eq!(
        seen,
        [
            ("tel:+442079460003", 1000),
            ("sip:+442079460002@10.0.0.2;user=phone", 900),
            ("sip:+442079460001@10.0.0.2", 200),
        ]
    );
    assert_eq!(found[1].target, Some(number("+442079460002")));
    let wrong = lab.try_command(0, Command::FollowRedirect { call, contact: 3 });
    assert_eq!(wrong, Err(CommandError::WrongState));
    let second = follow(&mut lab, 1);
    assert!(second.starts_with("INVITE sip:+442079460002@10.0.0.2;user=phone SIP/2.0"), "{second}");
    for name in ["To", "From", "Call-ID", "P-Asserted-Identity"] {
        assert_eq!(header(&second, name), header(&invite, name));
    }
    assert_eq!(header(&second, "CSeq"), "2 INVITE");
    assert_ne!(header(&second, "Via"), header(&invite, "Via"));
    assert_eq!(second.split("\r\n\r\n").nth(1), invite.split("\r\n\r\n").nth(1), "the same offer");
    let diversion = "<sip:+442079460018@10.0.0.1>;reason=unconditional;counter=1;privacy=off";
    assert_eq!(headers(&second, "Diversion"), [diversion]);
    let twice = lab.try_command(0, Command::FollowRedirect { call, contact: 0 });
    assert_eq!(twice, Err(CommandError::WrongState));
    lab.tell(&reply(&second, 200, "peer", CONTACT, SDP));
    assert!(lab.take(0).contains(&Event::Answered { call }));
    release(&mut lab, call);
    assert_clean(&mut lab);
}

// RFC 3261 8.1.3.4: what is left is tried after a refusal, unless that speaks for everyone (21.6).
#[test]
fn d18_the_contacts_that_are_left_come_next() {
    for (refusal, goes_on) in [(480, true), (486, true), (603, false)] {
        let mut lab = following(|_| {});
        let (_, invite) = lab.call_out();
        let list = ["<sip:+442079460001@10.0.0.2>;q=0.5", "<sip:+442079460002@10.0.0.2>;q=0.4"];
        moved(&mut lab, &invite, 300, &list);
        let second = follow(&mut lab, 0);
        let events = moved(&mut lab, &second, refusal, &[]);
        if !goes_on {
            assert_eq!(ended_with(&events).1, Some(refusal));
            assert_clean(&mut lab);
            continue;
        }
        assert_eq!(contacts(&events)[0].uri, "sip:+442079460002@10.0.0.2");
        let third = follow(&mut lab, 0);
        // Who diverted is who redirected, not who refused.
        assert!(header(&third, "Diversion").starts_with("<sip:+442079460018@"), "{third}");
        let events = moved(&mut lab, &third, 404, &[]);
        assert_eq!(ended_with(&events), (Cause::UNALLOCATED_NUMBER, Some(404)));
        assert_clean(&mut lab);
    }
}

// Whose contacts count is the trunk's to say; what is not followed ends with its cause.
#[test]
fn d18_what_the_policy_does_not_let_is_not_followed() {
    use RedirectPolicy as P;
    let (own, foreign) = ("<sip:+442079460001@10.0.0.2:5080>", "<sip:+442079460001@carrier.example>");
    for (policy, contact, lets) in [
        (P::Never, own, false),
        (P::SameHost, own, true),
        (P::SameHost, foreign, false),
        (P::SameHost, "<sip:+442079460001@10.0.0.3>", false),
        (P::Listed, own, true),
        (P::Listed, foreign, false),
        (P::Listed, "<sip:+442079460001@EDGE.example:5070;transport=tcp>", true),
        (P::Listed, "<sip:+442079460001@edge.example.evil>", false),
        (P::Listed, "<sip:edge.example@evil.example>", false),
        (P::Listed, "<sip:+442079460001@[2001:db8::1]>", true),
        (P::SameHost, "<tel:+442079460001>", true),
        (P::SameHost, "<tel:911;phone-context=x>", false),
        (P::SameHost, "<sips:+442079460001@10.0.0.2>", false),
        (P::SameHost, "<mailto:a@10.0.0.2>", false),
        (P::SameHost, "<sip:+442079460001@10.0.0.2;method=BYE>", false),
        (P::SameHost, "*", false),
        (P::SameHost, "<sip:+442079460001@10.0.0.2", false),
    ] {
        let mut lab = lab(|trunk| {
            trunk.redirects.policy = policy;
            trunk.redirects.hosts = vec!["edge.example".to_owned(), "2001:db8::1".to_owned()];
        });
        let (_, invite) = lab.call_out();
        let events = moved(&mut lab, &invite, 302, &[contact]);
        if lets {
            assert_eq!(contacts(&events).len(), 1, "{policy:?} {contact}");
            // Wherever the URI says: the way is the trunk's.
            follow(&mut lab, 0);
        } else {
            let cause = Cause::REDIRECTION_TO_NEW_DESTINATION;
            assert_eq!(ended_with(&events), (cause, Some(302)), "{policy:?} {contact}");
            assert_eq!(lab.sent(0, "INVITE "), 1);
            assert_clean(&mut lab);
        }
    }
    // 305 and 380 ask for something else.
    for code in [305, 380] {
        let mut lab = following(|_| {});
        let (_, invite) = lab.call_out();
        let events = moved(&mut lab, &invite, code, &[own]);
        assert_eq!(ended_with(&events).1, Some(code));
    }
}

// RFC 3261 8.1.3.4: no URI twice; and no number that has diverted the call already.
#[test]
fn d18_loops_are_cut_and_hops_counted() {
    let mut lab = following(|trunk| trunk.redirects.hops = 2);
    let (call, invite) = lab.call_out();
    let back = "<sip:+442079460018@10.0.0.2;x=y>";
    let events = moved(&mut lab, &invite, 302, &[back, "<sip:+442079460001@10.0.0.2>"]);
    assert_eq!(contacts(&events).len(), 1, "not where it came from");
    let second = follow(&mut lab, 0);
    let events = moved(&mut lab, &second, 302, &[back, "tel:+442079460018"]);
    assert_eq!(ended_with(&events).0, Cause::REDIRECTION_TO_NEW_DESTINATION);
    assert_eq!(lab.endpoint(0).counters().refused["redirect_loop"], 3);

    // Another place under the same number is no loop and no diversion, and counts as a hop.
    let mut lab = following(|trunk| trunk.redirects.hops = 2);
    let (_, invite) = lab.call_out();
    let other = |port: u16| format!("<sip:+442079460018@10.0.0.2:{port}>");
    moved(&mut lab, &invite, 302, &[&other(5070)]);
    let second = follow(&mut lab, 0);
    assert!(headers(&second, "Diversion").is_empty(), "{second}");
    moved(&mut lab, &second, 302, &[&other(5071)]);
    let third = follow(&mut lab, 0);
    let events = moved(&mut lab, &third, 302, &[&other(5072)]);
    assert_eq!(ended_with(&events).1, Some(302));
    assert_eq!(lab.endpoint(0).counters().refused["redirect_hops"], 1);
    assert_eq!(
        lab.try_command(0, Command::FollowRedirect { call, contact: 0 }),
        Err(CommandError::UnknownCall)
    );
    assert_clean(&mut lab);
}

// A 3xx may say much; little of it is kept.
#[test]
fn d18_the_number_of_contacts_is_bounded() {
    let mut lab = following(|_| {});
    let (call, invite) = lab.call_out();
    let list: Vec<_> = (0..40).map(|n| format!("<sip:+4420794600{n:02}@10.0.0.2>")).collect();
    let list: Vec<_> = list.iter().map(String::as_str).collect();
    let events = moved(&mut lab, &invite, 302, &list);
    assert_eq!(contacts(&events).len(), 8);
    lab.command(0, Command::Release { call, cause: Cause::CALL_REJECTED });
    assert_eq!(ended(&lab.take(0)), [(Cause::CALL_REJECTED, None, EndedBy::Local)]);
    assert_clean(&mut lab);
}

// Nobody decides: the call rings no longer than its trunk lets it.
#[test]
fn d18_a_redirection_nobody_decides_on_ends_in_time() {
    let mut lab = following(|trunk| trunk.ring_timeout = Duration::from_secs(30));
    let (_, invite) = lab.call_out();
    moved(&mut lab, &invite, 302, &["<sip:+442079460001@10.0.0.2>"]);
    lab.run(Duration::from_secs(31));
    assert_eq!(ended(&lab.take(0)), [(Cause::NO_ANSWER_FROM_USER, None, EndedBy::Timeout)]);
    assert_clean(&mut lab);
}

fn diverted(text: &str) -> Diversion {
    let reason = DiversionReason::NoAnswer;
    Diversion { number: Some(number(text)), reason, counter: 1, privacy: false }
}

// RFC 7544 3: diversions from before stay, those that the 3xx tells of are taken over.
#[test]
fn d18_diversions_are_kept_in_either_header() {
    for (form, name) in
        [(DiversionHeader::Diversion, "Diversion"), (DiversionHeader::HistoryInfo, "History-Info")]
    {
        let mut lab = following(|trunk| trunk.diversion = form);
        let mut details = CallDetails::default();
        details.diversions.push(diverted("+12025550111"));
        let invite = invite_with(&mut lab, caller("+12025550100"), details);
        lab.tell(&reply(&invite, 180, "peer", CONTACT, ""));
        let told = "Contact: <sip:+442079460001@10.0.0.2>\r\nDiversion: <sip:+442079460055@10.0.0.2>;reason=user-busy\r\n";
        lab.tell(&reply(&invite, 302, "peer", told, ""));
        let second = follow(&mut lab, 0);
        assert_eq!(headers(&second, name).len(), 1);
        let value = header(&second, name);
        let at = |number: &str| value.find(number).unwrap_or_else(|| panic!("{number} in {value}"));
        let mut order = [at("+442079460055"), at("+442079460018"), at("+12025550111")];
        if form == DiversionHeader::HistoryInfo {
            // The oldest first, and at the end whom it is for now.
            order.reverse();
            assert!(at("+442079460001") > at("+442079460055"));
        }
        assert!(order.is_sorted(), "{value}");
        // It rang: deflected (RFC 5806).
        let word = if form == DiversionHeader::Diversion { "reason=deflection" } else { "cause=480" };
        assert!(value.contains(word), "{value}");
    }
}

fn call_in_with(lab: &mut Lab, uri: &str) -> CallId {
    let mut ask = Ask::invite();
    ask.uri = uri.to_owned();
    lab.call_in(&ask.text())
}

// RFC 3578: digits come en bloc. What is incomplete is said to be so in both directions, and no
// further digits are waited for.
#[test]
fn d22_an_incomplete_number_is_484_both_ways() {
    let incomplete = Cause::INVALID_NUMBER_FORMAT;
    let mut lab = Lab::new();
    let (_, invite) = lab.call_out();
    lab.tell(&reply(&invite, 484, "peer", "", ""));
    assert_eq!(ended(&lab.take(0)), [(incomplete, Some(484), EndedBy::Far)]);
    lab.run_ms(60_000);
    assert_eq!(lab.sent(0, "INVITE "), 1);

    let call = call_in_with(&mut lab, "sip:+44207@10.0.0.1");
    lab.inbox(1);
    lab.command(0, Command::Release { call, cause: incomplete });
    lab.run_ms(20);
    let refused = lab.inbox(1).remove(0);
    assert_eq!((status(&refused), header(&refused, "Reason").contains("cause=28")), (484, true));
    lab.take(0);
    // More digits in another INVITE are another call (RFC 3578 3.1), whole in itself.
    let mut longer = Ask::invite().branch("longer");
    (longer.uri, longer.cseq) = ("sip:+442079460018@10.0.0.1".to_owned(), 2);
    lab.tell(&longer.text());
    let events = lab.take(0);
    let Event::Incoming { called, .. } = &events[0] else { panic!("{events:?}") };
    assert_eq!(called, &Some(number("+442079460018")));
}
