//! Rows D15 and D16: an INVITE that takes the place of a call (RFC 3891).

use call_model::{CallId, Cause};
use sip_trunk::trunk::profile::Profile;
use sip_trunk::{Command, EndedBy, Event, Replacing, TrunkConfig};

use crate::dialogs::{assert_clean, body, release};
use crate::identity::lab;
use crate::net::{A, A_RTP, B, address, ended, media, number, trunk_name};
use crate::raw::{Ask, CONTACT, Lab, SDP, header, reply, status};

fn accepting() -> Lab {
    lab(|trunk| trunk.replacing = Replacing::Accept)
}

/// Our tag in a message of ours.
fn tag(value: &str) -> String {
    value.split(";tag=").nth(1).unwrap().to_owned()
}

/// An INVITE of the peer, in a dialog of its own, with these lines.
fn taking(branch: &str, line: &str) -> Ask {
    let mut ask = Ask::invite().branch(branch).line(line);
    ask.call_id = format!("{branch}@10.0.0.2");
    ask.from = format!("<sip:+12025550199@10.0.0.2>;tag={branch}");
    ask
}

/// The Replaces that means the call the peer placed, from the gateway's 200.
fn of_call_in(ok: &str) -> String {
    format!("Replaces: c1@10.0.0.2;to-tag={};from-tag=bob", tag(&header(ok, "To")))
}

/// The Replaces that means the call the gateway placed.
fn of_call_out(invite: &str, theirs: &str) -> String {
    let (id, own) = (header(invite, "Call-ID"), tag(&header(invite, "From")));
    format!("Replaces: {id};to-tag={own};from-tag={theirs}")
}

fn replacing(events: &[Event]) -> (CallId, CallId, bool) {
    match events {
        [Event::Replacing { call, replaced, early, has_offer: true, .. }] => (*call, *replaced, *early),
        other => panic!("{other:?}"),
    }
}

// RFC 3891 3: the new dialog is answered, and the old one ended by BYE.
#[test]
fn d15_an_answered_call_is_taken_over() {
    for outgoing in [false, true] {
        let mut lab = accepting();
        let (old, line) = if outgoing {
            let (old, invite) = lab.call_out_answered();
            lab.take(0);
            (old, of_call_out(&invite, "peer"))
        } else {
            let (old, ok) = lab.call_in_answered();
            assert!(header(&ok, "Supported").contains("replaces"));
            (old, of_call_in(&ok))
        };
        let got = lab.tell(&taking("new", &line).line("Require: replaces").text());
        assert_eq!(status(&got[0]), 100);
        let events = lab.take(0);
        let (call, replaced, early) = replacing(&events);
        assert_eq!((replaced, early), (old, false));
        let Event::Replacing { trunk, caller, .. } = &events[0] else { panic!() };
        assert_eq!((trunk, &caller.address), (&trunk_name("far"), &Some(number("+12025550199"))));
        // Until then the old one goes on.
        assert!(lab.inbox(1).is_empty());
        lab.command(0, Command::Answer { call, media: media(A_RTP) });
        lab.run_ms(20);
        let got = lab.inbox(1);
        assert_eq!((got.len(), status(&got[0])), (2, 200), "{got:?}");
        assert!(body(&got[0]).contains("m=audio 20000"));
        assert!(got[1].starts_with("BYE ") && header(&got[1], "Call-ID") != header(&got[0], "Call-ID"));
        let mut ack = taking("new", "X: y");
        (ack.method, ack.body, ack.to) = ("ACK".to_owned(), String::new(), header(&got[0], "To"));
        lab.tell(&ack.branch("ack").text());
        lab.tell(&reply(&got[1], 200, "", "", ""));
        let events = lab.take(0);
        assert_eq!(ended(&events), [(Cause::NORMAL_CALL_CLEARING, None, EndedBy::Far)]);
        assert!(events.iter().any(|e| matches!(e, Event::Ended { call, .. } if *call == old)));
        release(&mut lab, call);
        assert!(lab.inbox(1)[0].starts_with("BYE "));
        assert!(lab.try_command(0, Command::Hold { call: old, on: true }).is_err());
    }
}

// RFC 3891 3: if the new one fails, nothing has happened to the old one.
#[test]
fn d15_a_takeover_that_fails_leaves_the_call() {
    let mut lab = accepting();
    let (old, ok) = lab.call_in_answered();
    let line = of_call_in(&ok);
    lab.tell(&taking("one", &line).text());
    let (call, _, _) = replacing(&lab.take(0));
    lab.command(0, Command::Release { call, cause: Cause::CALL_REJECTED });
    lab.run_ms(20);
    assert_eq!(status(&lab.inbox(1)[0]), 403);
    // What cannot be agreed on never reaches the user.
    let g729 = SDP.replace("RTP/AVP 8 101", "RTP/AVP 18").replace("8 PCMA/8000", "18 G729/8000");
    assert_eq!(status(&lab.tell(&taking("two", &line).body(&g729).text())[0]), 488);
    lab.take(0);
    lab.command(0, Command::Hold { call: old, on: true });
    lab.run_ms(20);
    assert!(lab.inbox(1).iter().any(|m| m.starts_with("INVITE ")), "the old call lives");
    assert!(ended(&lab.take(0)).is_empty());
}

// RFC 3891 3: of early dialogs, those we began may be taken over (call pickup).
#[test]
fn d15_a_ringing_call_of_ours_is_picked_up() {
    let mut lab = accepting();
    let (old, invite) = lab.call_out();
    lab.tell(&reply(&invite, 180, "peer", CONTACT, ""));
    lab.take(0);
    let line = of_call_out(&invite, "peer");
    assert_eq!(status(&lab.tell(&taking("no", &line.replace("=peer", "=pear")).text())[0]), 481);
    lab.tell(&taking("new", &format!("{line};early-only")).text());
    let (call, replaced, early) = replacing(&lab.take(0));
    assert_eq!((replaced, early), (old, true));
    lab.command(0, Command::Answer { call, media: media(A_RTP) });
    lab.run_ms(20);
    let got = lab.inbox(1);
    assert_eq!(status(&got[0]), 200);
    let cancel = got.iter().find(|m| m.starts_with("CANCEL ")).unwrap();
    assert_eq!(header(cancel, "Call-ID"), header(&invite, "Call-ID"));
    lab.tell(&reply(cancel, 200, "peer", "", ""));
    lab.tell(&reply(&invite, 487, "peer", "", ""));
    assert_eq!(ended(&lab.take(0)).len(), 1);
    let mut ack = taking("new", "X: y");
    (ack.method, ack.body, ack.to) = ("ACK".to_owned(), String::new(), header(&got[0], "To"));
    lab.tell(&ack.branch("ack").text());
    release(&mut lab, call);
    assert_clean(&mut lab);
}

// RFC 3891 3: everything else has its answer.
#[test]
fn d15_a_replaces_that_means_no_call_is_refused() {
    let mut lab = accepting();
    let (old, ok) = lab.call_in_answered();
    let line = of_call_in(&ok);
    let to = tag(&header(&ok, "To"));
    let mut n = 0;
    for (line, wanted) in [
        (line.replace("c1@", "c2@"), 481),
        (line.replace("=bob", "=rob"), 481),
        (line.replace(&to, "0000000000000000"), 481),
        (line.replace(&to, "x"), 481),
        (format!("Replaces: c1@10.0.0.2;to-tag={to}"), 400),
        ("Replaces: c1@10.0.0.2;from-tag=bob".to_owned(), 400),
        (format!("{line};to-tag=again"), 400),
        ("Replaces: ".to_owned(), 400),
        (format!("{line}\r\n{line}"), 400),
        (format!("{line}, x;to-tag=1;from-tag=2"), 400),
        (format!("{line}\r\nJoin: x;to-tag=1;from-tag=2"), 400),
        (format!("{line};early-only"), 486),
    ] {
        n += 1;
        let got = lab.tell(&taking(&format!("t{n}"), &line).text());
        assert_eq!((got.len(), status(&got[0])), (1, wanted), "{line}");
    }
    let options = Ask::new("OPTIONS").line(&line).text();
    assert_eq!(status(&lab.tell(&options)[0]), 400, "in an INVITE alone");
    assert!(lab.take(0).is_empty());
    // It has ended, and its BYE is not answered yet.
    release(&mut lab, old);
    lab.inbox(1);
    assert_eq!(status(&lab.tell(&taking("late", &line).text())[0]), 603);
    // A call of theirs that we have not answered is not theirs to replace.
    let mut lab = accepting();
    let call = lab.call_in(&Ask::invite().text());
    lab.command(0, Command::Ringing { call });
    lab.run_ms(20);
    let ringing = lab.inbox(1).pop().unwrap();
    assert_eq!(status(&lab.tell(&taking("early", &of_call_in(&ringing)).text())[0]), 481);
}

// RFC 3891 5: a dialog is known to its own trunk alone.
#[test]
fn d15_no_trunk_takes_over_the_call_of_another() {
    let stranger = "10.0.0.9:5060";
    let mut lab = Lab::with(|config| {
        config.trunks[0].replacing = Replacing::Accept;
        let mut other = TrunkConfig::new(trunk_name("other"), address(stranger));
        other.replacing = Replacing::Accept;
        config.trunks.push(other);
    });
    let thief = lab.add_raw(address(stranger));
    let (_, ok) = lab.call_in_answered();
    let mut invite = taking("thief", &of_call_in(&ok));
    invite.via = invite.via.replace(B, stranger);
    lab.say(thief, address(A), &invite.text());
    lab.run_ms(20);
    assert_eq!(status(&lab.inbox(thief)[0]), 481);
    assert!(lab.take(0).is_empty());
}

// A trunk at its limit may still take over what it has.
#[test]
fn d15_a_takeover_needs_no_free_channel() {
    let mut lab = lab(|trunk| (trunk.replacing, trunk.max_calls) = (Replacing::Accept, 1));
    let (_, ok) = lab.call_in_answered();
    assert_eq!(status(&lab.tell(&taking("more", "X: y").text())[0]), 503);
    assert_eq!(status(&lab.tell(&taking("new", &of_call_in(&ok)).text())[0]), 100);
}

// RFC 3261 8.2.2, RFC 3891 4: what the trunk may not do is not announced, and an INVITE that insists
// is refused; the profile of Teams lets it take over and sends it nothing.
#[test]
fn d16_a_trunk_says_whether_its_replaces_counts() {
    for (policy, counts) in [
        (Replacing::Off, false),
        (Replacing::Send, false),
        (Replacing::Accept, true),
        (Replacing::Both, true),
    ] {
        let mut lab = lab(|trunk| trunk.replacing = policy);
        let (_, ok) = lab.call_in_answered();
        assert_eq!(header(&ok, "Supported").contains("replaces"), counts, "{policy:?}");
        let line = of_call_in(&ok);
        let got = lab.tell(&taking("insists", &line).line("Require: replaces").text());
        assert_eq!(status(&got[0]), if counts { 100 } else { 420 }, "{policy:?}");
        lab.take(0);
        lab.tell(&taking("asks", &line).text());
        let replaces = matches!(lab.take(0)[0], Event::Replacing { .. });
        assert_eq!(replaces, counts, "{policy:?}: else a call as any other");
    }
    let trunk = TrunkConfig::new(trunk_name("far"), address(B)).with_profile(&Profile::teams());
    assert_eq!(trunk.replacing, Replacing::Accept);
}
