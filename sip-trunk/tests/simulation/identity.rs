//! Rows E1 to E7, E16 to E20 and the profile switches of C8 and A27: who calls, and who may know.

use std::sync::Arc;

use call_model::{Caller, Cause};
use sip_trunk::cause::anonymity_disallowed;
use sip_trunk::trunk::AnswerChange;
use sip_trunk::trunk::details::{CallDetails, ChargingVector, Interconnect};
use sip_trunk::trunk::identity::{CliSource, IdentityHeader, PrivacyWish};
use sip_trunk::{Command, EndedBy, Event, TrunkConfig};

use crate::dialogs::{assert_clean, media_of, release};
use crate::net::{A_RTP, call_id, caller, ended, media, number, trunk_name};
use crate::raw::{Ask, CONTACT, Lab, SDP, header, headers, reply, status};
use crate::reliable::rel;

const ANONYMOUS: &str = "\"Anonymous\" <sip:anonymous@anonymous.invalid>";

/// A lab whose trunk was changed.
pub fn lab(change: impl FnOnce(&mut TrunkConfig)) -> Lab {
    Lab::with(|config| change(&mut config.trunks[0]))
}

/// The peer calls with these header lines; returns the caller as the gateway was told.
fn calls(lab: &mut Lab, from: &str, lines: &[&str]) -> Caller {
    let mut ask = Ask::invite();
    ask.from = format!("{from};tag=peer");
    let invite = lines.iter().fold(ask, |ask, line| ask.line(line)).text();
    lab.call_in(&invite);
    let events = lab.take(0);
    let Some(Event::Incoming { caller, .. }) = events.first() else { panic!("{events:?}") };
    caller.clone()
}

fn told(from: &str, lines: &[&str], change: impl FnOnce(&mut TrunkConfig)) -> (String, bool) {
    let caller = calls(&mut lab(change), from, lines);
    (caller.address.map(|a| a.to_string()).unwrap_or_default(), caller.private)
}

/// The gateway calls with details; returns the INVITE.
pub fn invite_with(lab: &mut Lab, caller: Caller, details: CallDetails) -> String {
    let command = Command::InviteWith {
        call: call_id(77),
        trunk: trunk_name("far"),
        called: number("+442079460018"),
        caller,
        media: media(A_RTP),
        details: Arc::new(details),
    };
    lab.command(0, command);
    lab.run_ms(20);
    lab.inbox(1).remove(0)
}

fn hidden() -> Caller {
    Caller { private: true, display_name: Some("Ann".into()), ..caller("+12025550100") }
}

// RFC 3325 9.1, RFC 5876: one value or two, the number counts.
#[test]
fn e01_an_asserted_identity_of_a_trusted_trunk_is_the_caller() {
    let from = "\"Desk\" <sip:200@pbx.example>";
    for asserted in [
        "P-Asserted-Identity: \"Ann\" <sip:+12025550100@pbx.example>",
        "P-Asserted-Identity: \"Ann\" <sip:ann@pbx.example>, <tel:+12025550100>",
        "P-Asserted-Identity: <tel:+12025550100>, \"Ann\" <sip:ann@pbx.example>",
        "P-Asserted-Identity: \"Ann\" <sip:ann@pbx.example>\r\nP-Asserted-Identity: <tel:+12025550100>",
    ] {
        let got = calls(&mut Lab::new(), from, &[asserted]);
        assert_eq!(got, Caller { display_name: Some("Ann".into()), ..caller("+12025550100") }, "{asserted}");
    }
}

// RFC 3325 5, 9.2.
#[test]
fn e02_an_untrusted_trunk_asserts_nothing_and_is_asserted_nothing() {
    let asserted = ["P-Asserted-Identity: <sip:+12025550199@x>", "Remote-Party-ID: <sip:+12025550188@x>"];
    let got = told("<sip:+12025550100@pbx>", &asserted, |t| t.trusted = false);
    assert_eq!(got, ("+12025550100".to_owned(), false));
    for header in [IdentityHeader::PAssertedIdentity, IdentityHeader::PPreferredIdentity] {
        for trusted in [true, false] {
            let mut lab = lab(|t| (t.identity, t.trusted) = (header, trusted));
            let (_, invite) = lab.call_out();
            let asserted = headers(&invite, "P-Asserted-Identity");
            let preferred = headers(&invite, "P-Preferred-Identity");
            assert!(asserted.len() + preferred.len() <= 1, "never both: {invite}");
            assert!(trusted || asserted.is_empty(), "{invite}");
            if header == IdentityHeader::PPreferredIdentity {
                assert_eq!(preferred, ["<sip:+12025550100@10.0.0.1>"]);
            }
        }
    }
}

// RFC 3323 4.1.1.3, RFC 3325 7.
#[test]
fn e03_a_hidden_caller_is_known_to_trusted_trunks_alone() {
    for trusted in [true, false] {
        let mut lab = lab(|t| t.trusted = trusted);
        let invite = invite_with(&mut lab, hidden(), CallDetails::default());
        assert!(header(&invite, "From").starts_with(&format!("{ANONYMOUS};tag=")));
        assert_eq!(header(&invite, "Privacy"), "id");
        let asserted = headers(&invite, "P-Asserted-Identity");
        if trusted {
            assert_eq!(asserted, ["\"Ann\" <sip:+12025550100@10.0.0.1>"]);
            // Nowhere else: once in the whole message.
            assert_eq!(invite.matches("12025550100").count(), 1, "{invite}");
        } else {
            assert!(!invite.contains("2025550100") && !invite.contains("Ann"), "{invite}");
        }
    }
}

// RFC 3325 7, RFC 3261 7.3.1: the word in any letter case hides; we still know who it is.
#[test]
fn e04_privacy_hides_in_any_letter_case() {
    for privacy in ["Privacy: id", "Privacy: ID", "privacy: Id; critical", "PRIVACY: header;User"] {
        let lines = ["P-Asserted-Identity: <sip:+12025550100@x>", privacy];
        assert_eq!(told(ANONYMOUS, &lines, |_| {}), ("+12025550100".to_owned(), true), "{privacy}");
    }
}

// RFC 3323 4.2, 5.
#[test]
fn e05_none_overrides_and_critical_is_heeded() {
    let lines = ["P-Asserted-Identity: <sip:+12025550100@x>", "Privacy: none"];
    assert_eq!(told("<sip:+12025550100@x>", &lines, |_| {}), ("+12025550100".to_owned(), false));
    // A privacy that is not known is let be, unless the caller cannot do without.
    let mut lab = Lab::new();
    assert!(calls(&mut lab, "<sip:+12025550100@x>", &["Privacy: id;x-cloak"]).private);
    let mut lab = Lab::new();
    let got = lab.tell(&Ask::invite().line("Privacy: id;x-cloak;critical").text());
    assert_eq!(status(&got[0]), 500);
    assert!(header(&got[0], "Warning").contains("privacy unavailable: x-cloak"));
    assert!(lab.take(0).is_empty());
    // And both go out as they came.
    for (wish, privacy) in [(PrivacyWish::Critical, "id;critical"), (PrivacyWish::Open, "none")] {
        let details = CallDetails { privacy: wish, ..CallDetails::default() };
        let invite = invite_with(&mut Lab::new(), hidden(), details);
        assert_eq!(header(&invite, "Privacy"), privacy);
        assert_eq!(header(&invite, "From").contains("anonymous"), wish == PrivacyWish::Critical);
    }
}

// RFC 5079: both ways.
#[test]
fn e06_an_anonymous_call_that_is_not_taken_gets_433() {
    let mut lab = Lab::new();
    let mut ask = Ask::invite();
    ask.from = format!("{ANONYMOUS};tag=peer");
    let call = lab.call_in(&ask.text());
    let told = lab.take(0);
    assert!(matches!(&told[0], Event::Incoming { caller, .. } if caller.private), "{told:?}");
    lab.inbox(1);
    lab.command(0, Command::Release { call, cause: anonymity_disallowed() });
    lab.run_ms(20);
    let got = lab.inbox(1).pop().unwrap();
    assert!(got.starts_with("SIP/2.0 433 Anonymity Disallowed"), "{got}");
    let mut lab = Lab::new();
    let (_, invite) = lab.call_out();
    lab.tell(&reply(&invite, 433, "peer", "", ""));
    assert_eq!(ended(&lab.take(0)), [(anonymity_disallowed(), Some(433), EndedBy::Far)]);
    assert!(!TrunkConfig::new(trunk_name("t"), lab.gateway).may_try_elsewhere(Some(433)));
}

// SIPconnect and carriers differ in which field is the number to show.
#[test]
fn e07_the_trunk_says_which_field_is_the_number() {
    let lines = [
        "P-Asserted-Identity: <sip:+12025550101@x>",
        "P-Preferred-Identity: <sip:+12025550102@x>",
        "Remote-Party-ID: <sip:+12025550103@x>;privacy=off",
        "Diversion: <sip:+12025550104@x>;reason=unconditional, <sip:+12025550105@x>",
    ];
    for (cli, expected) in [
        (CliSource::Asserted, "+12025550101"),
        (CliSource::From, "+12025550100"),
        (CliSource::Preferred, "+12025550102"),
        (CliSource::RemoteParty, "+12025550103"),
        (CliSource::Diversion, "+12025550104"),
    ] {
        let (got, _) = told("<sip:+12025550100@x>", &lines, |t| t.cli = cli);
        assert_eq!(got, expected, "{cli:?}");
        // What is missing is looked for in the next.
        let (got, _) = told("<sip:+12025550100@x>", &[], |t| t.cli = cli);
        assert_eq!(got, "+12025550100", "{cli:?}");
    }
    let lines = ["Diversion: <sip:+12025550104@x>"];
    let untrusted = |t: &mut TrunkConfig| (t.cli, t.trusted) = (CliSource::Diversion, false);
    assert_eq!(told("<sip:+12025550100@x>", &lines, untrusted).0, "+12025550100");
}

// RFC 8197, RFC 8688, RFC 3261 21.6.
#[test]
fn e16_an_unwanted_call_is_not_tried_again_and_says_so() {
    for (code, phrase) in [(607, "Unwanted"), (608, "Rejected")] {
        let mut lab = Lab::new();
        let (_, invite) = lab.call_out();
        let answer = reply(&invite, code, "peer", "", "").replace("Whatever", phrase);
        let got = lab.tell(&answer);
        assert!(got.iter().all(|m| m.starts_with("ACK ")), "{got:?}");
        let events = lab.take(0);
        let Some(Event::Ended { cause, status, text, .. }) = events.last() else { panic!("{events:?}") };
        assert_eq!((*cause, *status, text.as_str()), (Cause::CALL_REJECTED, Some(code), phrase));
        lab.run_ms(60_000);
        assert_eq!(lab.sent(0, "INVITE "), 1);
        let mut trunk = TrunkConfig::new(trunk_name("t"), lab.gateway);
        trunk.retry_statuses.push(code);
        assert!(!trunk.may_try_elsewhere(Some(code)), "whatever the list says");
    }
}

// RFC 3261 21.4, 21.6: what the callee or the numbering plan said is the last word.
#[test]
fn a27_the_word_of_the_callee_is_not_tried_on_another_trunk() {
    let trunk = TrunkConfig::new(trunk_name("t"), crate::net::address(crate::net::B));
    for code in [404, 480, 484, 486, 600, 603, 604, 607, 608] {
        assert!(!trunk.may_try_elsewhere(Some(code)), "{code}");
        let mut lab = Lab::new();
        let (_, invite) = lab.call_out();
        lab.tell(&reply(&invite, code, "peer", "", ""));
        lab.run_ms(60_000);
        assert_eq!((lab.sent(0, "INVITE "), ended(&lab.take(0))[0].1), (1, Some(code)));
    }
    for code in [408, 503, 504] {
        assert!(trunk.may_try_elsewhere(Some(code)), "{code}");
    }
}

// RFC 4412 3.1: kept between those who trust each other.
#[test]
fn e18_a_priority_is_kept_between_trusted_trunks() {
    for trusted in [true, false] {
        let mut lab = lab(|t| t.trusted = trusted);
        let call = lab.call_in(&Ask::invite().line("Resource-Priority: ets.0, wps.1, x y").text());
        let details = lab.endpoint(0).call_details(call).unwrap().clone();
        let expected: &[&str] = if trusted { &["ets.0", "wps.1"] } else { &[] };
        assert_eq!(details.priorities, expected);
        let known = CallDetails { priorities: vec!["ets.0".into(), "a\r\nX: y".into()], ..details };
        let mut lab = self::lab(|t| t.trusted = trusted);
        let invite = invite_with(&mut lab, hidden(), known);
        let sent = headers(&invite, "Resource-Priority");
        assert_eq!(sent, if trusted { vec!["ets.0"] } else { vec![] });
    }
}

// RFC 4916 4, RFC 5876: in the 2xx, in a re-INVITE and in an UPDATE.
#[test]
fn e19_the_connected_party_is_known() {
    let party = |n: u32| format!("P-Asserted-Identity: \"P{n}\" <sip:+1202555010{n}@x>\r\n");
    for trusted in [true, false] {
        let mut lab = lab(|t| t.trusted = trusted);
        let (call, invite) = lab.call_out();
        let connected = |lab: &mut Lab| {
            let caller = lab.endpoint(0).call_details(call).unwrap().connected.clone();
            caller.map(|c| (c.address.unwrap().to_string(), c.display_name.unwrap(), c.private))
        };
        let expected =
            |n: u32, private| trusted.then(|| (format!("+1202555010{n}"), format!("P{n}"), private));
        assert_eq!(connected(&mut lab), None);
        lab.tell(&reply(&invite, 200, "peer", &format!("{CONTACT}{}", party(1)), SDP));
        assert_eq!(connected(&mut lab), expected(1, false));
        let update = Ask::back(&invite, "UPDATE", 1).line(party(2).trim()).line("Privacy: id");
        assert_eq!(status(&lab.tell(&update.text())[0]), 200);
        assert_eq!(connected(&mut lab), expected(2, true));
        let again = Ask::back(&invite, "INVITE", 2).line(party(3).trim()).body(SDP);
        assert!(lab.tell(&again.text()).iter().any(|m| m.starts_with("SIP/2.0 200")));
        assert_eq!(connected(&mut lab), expected(3, false));
        lab.tell(&Ask::back(&invite, "ACK", 2).text());
        // One that says nothing changes nothing.
        lab.tell(&Ask::back(&invite, "UPDATE", 3).text());
        assert_eq!(connected(&mut lab), expected(3, false));
        release(&mut lab, call);
        assert_clean(&mut lab);
        assert_eq!(lab.endpoint(0).call_details(call), None);
    }
}

// RFC 4916 4: an UPDATE says so before the answer too.
#[test]
fn e19_the_connected_party_is_known_of_an_early_dialog() {
    let mut lab = Lab::new();
    let (call, invite) = lab.call_out();
    let prack = lab.tell(&reply(&invite, 183, "peer", &rel(1), SDP)).remove(0);
    lab.tell(&reply(&prack, 200, "", "", ""));
    let update = Ask::back(&invite, "UPDATE", 1).line("P-Asserted-Identity: <sip:+12025550101@x>");
    assert_eq!(status(&lab.tell(&update.text())[0]), 200);
    let connected = lab.endpoint(0).call_details(call).unwrap().connected.clone();
    assert_eq!(connected.unwrap().address.unwrap().to_string(), "+12025550101");
}

// RFC 7315 4.6.
#[test]
fn e20_a_charging_vector_lives_between_networks_alone() {
    let line = "P-Charging-Vector: icid-value=abc;icid-generated-at=c.example;orig-ioi=them.example";
    let vector = ChargingVector {
        icid: "abc".into(),
        generated_at: Some("c.example".into()),
        originating: Some("them.example".into()),
        terminating: None,
    };
    let network = |t: &mut TrunkConfig| {
        t.interconnect = Some(Interconnect { operator: Some("us.example".into()) });
    };
    let read = |change: &dyn Fn(&mut TrunkConfig), lines: &[&str]| {
        let mut lab = lab(|t| change(t));
        let ask = lines.iter().fold(Ask::invite(), |ask, line| ask.line(line));
        let call = lab.call_in(&ask.text());
        lab.endpoint(0).call_details(call).unwrap().clone()
    };
    assert_eq!(read(&|_| {}, &[line]).charging, None, "stripped at the edge");
    assert_eq!(read(&network, &[line]).charging.as_deref(), Some(&vector));
    assert_eq!(read(&network, &[]).charging.unwrap().icid.len(), 16, "made where it was missing");

    let details = read(&network, &[line]);
    let invite = invite_with(&mut Lab::new(), hidden(), details.clone());
    assert!(headers(&invite, "P-Charging-Vector").is_empty());
    let invite = invite_with(&mut lab(network), hidden(), details);
    let sent = "icid-value=abc;icid-generated-at=c.example;orig-ioi=us.example";
    assert_eq!(header(&invite, "P-Charging-Vector"), sent);
    let invite = invite_with(&mut lab(network), hidden(), CallDetails::default());
    let made = header(&invite, "P-Charging-Vector");
    assert!(made.ends_with(";icid-generated-at=10.0.0.1;orig-ioi=us.example"), "{made}");
}

// RFC 3261 13.2.1 to the letter, where a trunk wants it so.
#[test]
fn c08_a_200_with_other_sdp_is_ignored_where_the_trunk_says_so() {
    let mut lab = lab(|t| t.answer_change = AnswerChange::Ignore);
    let (call, invite) = lab.call_out();
    lab.tell(&reply(&invite, 183, "peer", CONTACT, SDP));
    let other = SDP.replace("30000", "32000").replace("1 1 IN", "1 2 IN");
    lab.tell(&reply(&invite, 183, "peer", CONTACT, &other));
    lab.tell(&reply(&invite, 200, "peer", CONTACT, &other));
    let events = lab.take(0);
    let ports: Vec<_> = media_of(&events).iter().map(|m| m.remote_rtp.port()).collect();
    assert_eq!(ports, [30000, 30000], "once early, once answered");
    assert!(events.contains(&Event::Answered { call }));
    assert!(!lab.endpoint(0).counters().repaired.contains_key("answer_in_provisional"));
    release(&mut lab, call);
    assert_clean(&mut lab);
}

// RFC 3261 13.2.1: so it is where the later one comes reliably, which ends the exchange all the same.
#[test]
fn c08_a_reliable_183_with_other_sdp_is_ignored_where_the_trunk_says_so() {
    for (answer_change, port) in [(AnswerChange::Ignore, 30000), (AnswerChange::Follow, 32000)] {
        let mut lab = lab(|t| t.answer_change = answer_change);
        let (call, invite) = lab.call_out();
        lab.tell(&reply(&invite, 183, "peer", CONTACT, SDP));
        let other = SDP.replace("30000", "32000").replace("1 1 IN", "1 2 IN");
        let prack = lab.tell(&reply(&invite, 183, "peer", &rel(1), &other)).remove(0);
        assert!(prack.starts_with("PRACK "), "{prack}");
        lab.tell(&reply(&prack, 200, "", "", ""));
        lab.tell(&reply(&invite, 200, "peer", CONTACT, &other));
        let events = lab.take(0);
        assert_eq!(media_of(&events).last().unwrap().remote_rtp.port(), port, "{answer_change:?}");
        assert!(events.contains(&Event::Answered { call }));
        release(&mut lab, call);
        assert_clean(&mut lab);
    }
    // The exchange is over: the far side may begin another (RFC 3311 5.1).
    let mut lab = lab(|t| t.answer_change = AnswerChange::Ignore);
    let (_, invite) = lab.call_out();
    lab.tell(&reply(&invite, 183, "peer", CONTACT, SDP));
    lab.tell(&reply(&invite, 183, "peer", &rel(1), SDP));
    let moved = SDP.replace("30000", "34000").replace("1 1 IN", "1 2 IN");
    assert_eq!(status(&lab.tell(&Ask::back(&invite, "UPDATE", 1).body(&moved).text())[0]), 200);
    assert_eq!(media_of(&lab.take(0)).last().unwrap().remote_rtp.port(), 34000);
}
