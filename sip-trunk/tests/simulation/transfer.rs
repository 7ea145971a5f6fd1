//! Rows D12 to D14 and D17: transfer, asked for by the far side and by us.

use std::sync::Arc;
use std::time::Duration;

use call_model::{CallId, Cause};
use sip_trunk::auth::{Credentials, Secret};
use sip_trunk::{
    CallDetails, Command, CommandError, EndedBy, Event, Replaces, Replacing, TransferOutcome,
    TransferRequest, TransferTarget, Transfers, Transport, TrunkConfig,
};

use crate::dialogs::{assert_clean, body, release};
use crate::identity::{invite_with, lab};
use crate::net::{Pair, call_id, caller, ended, media, number, trunk_name};
use crate::raw::{Ask, CONTACT, Lab, SDP, header, headers, reply, status};

const TARGET: &str = "Refer-To: <sip:+442079460019@10.0.0.1>";
const CHALLENGE: &str = "Digest realm=\"peer\", nonce=\"n1\", qop=\"auth\"\r\n";

fn accepting() -> Lab {
    lab(|trunk| trunk.transfers = Transfers::Accept)
}

fn requested(events: &[Event]) -> TransferRequest {
    match events {
        [Event::TransferRequested { request, .. }] => (**request).clone(),
        other => panic!("{other:?}"),
    }
}

fn outcomes(events: &[Event]) -> Vec<TransferOutcome> {
    let outcome = |e: &Event| match e {
        Event::TransferEnded { outcome, .. } => Some(*outcome),
        _ => None,
    };
    events.iter().filter_map(outcome).collect()
}

/// The peer has asked for a transfer and the gateway has taken it. Returns the call, the 200 that
/// made its dialog, and the first NOTIFY.
fn transferring(lab: &mut Lab) -> (CallId, String, String) {
    let (call, ok) = lab.call_in_answered();
    let got = lab.tell(&Ask::within(&ok, "REFER", 2).line(TARGET).text());
    assert!(got.is_empty(), "{got:?}");
    assert!(requested(&lab.take(0)).reports);
    lab.command(0, Command::AcceptTransfer { call });
    lab.run_ms(20);
    let got = lab.inbox(1);
    assert_eq!((got.len(), status(&got[0])), (2, 202), "{got:?}");
    assert_eq!(header(&got[0], "CSeq"), "2 REFER");
    (call, ok, got[1].clone())
}

/// Reports and returns the NOTIFY, if one goes out.
fn report(lab: &mut Lab, call: CallId, status: u16) -> Option<String> {
    lab.command(0, Command::ReportTransfer { call, status });
    lab.run_ms(20);
    lab.inbox(1).pop()
}

fn accept(lab: &mut Lab, notify: &str) -> Vec<String> {
    assert!(notify.starts_with("NOTIFY "), "{notify}");
    lab.tell(&reply(notify, 200, "", CONTACT, ""))
}

// RFC 3515 2.4.2 to 2.4.5, RFC 3892 3, RFC 5589 6.
#[test]
fn d12_a_blind_transfer_is_taken_and_its_progress_told() {
    let mut lab = accepting();
    let (call, ok) = lab.call_in_answered();
    assert!(header(&ok, "Allow").contains("REFER") && header(&ok, "Supported").contains("norefersub"));
    let refer = Ask::within(&ok, "REFER", 2)
        .line("r: <sip:+442079460019@10.0.0.1;user=phone;method=INVITE?Subject=x>")
        .line("b: \"Bob\" <sip:bob@10.0.0.2>;cid=\"x@y\"");
    assert!(lab.tell(&refer.text()).is_empty(), "it waits for a decision");
    let asked = requested(&lab.take(0));
    assert_eq!(asked.target, Some(number("+442079460019")));
    assert_eq!(asked.target_user, "+442079460019");
    assert_eq!(asked.target_uri, "sip:+442079460019@10.0.0.1;user=phone");
    assert_eq!(asked.referred_by.as_deref(), Some("sip:bob@10.0.0.2"));
    assert_eq!((asked.reports, &asked.replaces, asked.replaced), (true, &None, None));

    lab.command(0, Command::AcceptTransfer { call });
    lab.run_ms(20);
    let got = lab.inbox(1);
    assert_eq!(status(&got[0]), 202);
    assert!(!headers(&got[0], "Contact").is_empty() && headers(&got[0], "Refer-Sub").is_empty());
    let notify = &got[1];
    assert_eq!(header(notify, "Event"), "refer");
    assert_eq!(header(notify, "Subscription-State"), "active;expires=180");
    assert_eq!(header(notify, "Content-Type"), "message/sipfrag");
    assert_eq!(body(notify), "SIP/2.0 100 Trying\r\n");
    assert_eq!(header(notify, "To"), "\"Bob\" <sip:+12025550100@10.0.0.2>;tag=bob");
    assert!(
        notify.starts_with("NOTIFY sip:peer@10.0.0.2:5060;ob ") && !headers(notify, "Contact").is_empty()
    );
    accept(&mut lab, notify);

    // The call to the target tells who asked for it.
    let details = CallDetails { referral: Some(Box::new(asked.referral())), ..CallDetails::default() };
    let invite = invite_with(&mut lab, caller("+12025550100"), details);
    assert!(invite.starts_with("INVITE sip:+442079460019@10.0.0.1;user=phone SIP/2.0"), "{invite}");
    assert_eq!(header(&invite, "Referred-By"), "<sip:bob@10.0.0.2>");
    assert!(headers(&invite, "Replaces").is_empty());
    lab.tell(&reply(&invite, 404, "x", "", ""));

    let ringing = report(&mut lab, call, 180).unwrap();
    assert_eq!(body(&ringing), "SIP/2.0 180 Ringing\r\n");
    assert!(header(&ringing, "Subscription-State").starts_with("active;expires=17"));
    accept(&mut lab, &ringing);
    let last = report(&mut lab, call, 200).unwrap();
    assert_eq!(
        (header(&last, "Subscription-State").as_str(), body(&last)),
        ("terminated;reason=noresource", "SIP/2.0 200 OK\r\n")
    );
    accept(&mut lab, &last);
    let again = lab.try_command(0, Command::ReportTransfer { call, status: 200 });
    assert_eq!(again, Err(CommandError::WrongState));

    // RFC 3515 2.4.6: the subscription of a second REFER has an id.
    lab.take(0);
    lab.tell(&Ask::within(&ok, "REFER", 9).line(TARGET).text());
    assert!(requested(&lab.take(0)).reports);
    lab.command(0, Command::AcceptTransfer { call });
    lab.run_ms(20);
    assert_eq!(header(&lab.inbox(1)[1], "Event"), "refer;id=9");
    release(&mut lab, call);
    let got = lab.inbox(1);
    assert_eq!(header(&got[0], "Subscription-State"), "terminated;reason=noresource");
    assert!(got[1].starts_with("BYE "), "{got:?}");
    lab.tell(&reply(&got[1], 200, "", "", ""));
    assert_clean(&mut lab);
}

// RFC 3515 2.4.2: what cannot be done is said, and the call goes on.
#[test]
fn d12_a_refer_that_cannot_be_taken_gets_its_answer() {
    let mut lab = accepting();
    let call = lab.call_in(&Ask::invite().text());
    lab.command(0, Command::Ringing { call });
    lab.run_ms(20);
    let ringing = lab.inbox(1).pop().unwrap();
    assert_eq!(status(&lab.tell(&Ask::within(&ringing, "REFER", 2).line(TARGET).text())[0]), 491);

    let mut lab = accepting();
    let (call, ok) = lab.call_in_answered();
    let two = format!("{TARGET}, <sip:x@10.0.0.1>");
    let lines =
        [format!("{TARGET}\r\n{TARGET}"), format!("{TARGET}?Replaces=a%3Bto-tag%3D1>").replacen('>', "", 1)];
    let mut cseq = 1;
    for (line, wanted) in [
        ("Subject: x", 400),
        (two.as_str(), 400),
        (lines[0].as_str(), 400),
        (lines[1].as_str(), 400),
        ("Refer-To: <nonsense>", 400),
        ("Refer-To: <http://10.0.0.1/>", 416),
        ("Refer-To: <sips:b@10.0.0.1>", 416),
        ("Refer-To: <sip:b@10.0.0.1;method=BYE>", 403),
    ] {
        cseq += 1;
        let got = lab.tell(&Ask::within(&ok, "REFER", cseq).line(line).text());
        assert_eq!(status(&got[0]), wanted, "{line}");
    }
    assert!(lab.take(0).is_empty());
    // One at a time.
    lab.tell(&Ask::within(&ok, "REFER", 20).line(TARGET).text());
    assert_eq!(status(&lab.tell(&Ask::within(&ok, "REFER", 21).line(TARGET).text())[0]), 491);
    lab.command(0, Command::AcceptTransfer { call });
    lab.run_ms(20);
    lab.inbox(1);
    assert_eq!(status(&lab.tell(&Ask::within(&ok, "REFER", 22).line(TARGET).text())[0]), 491);
    assert_eq!(lab.try_command(0, Command::AcceptTransfer { call }), Err(CommandError::WrongState));
    assert_eq!(lab.endpoint(0).counters().refused["transfer_pending"], 2);
    release(&mut lab, call);
    assert_clean(&mut lab);
}

// RFC 6665 4.2.2: one NOTIFY at a time, and the last word is never lost.
#[test]
fn d12_reports_wait_for_each_other() {
    let mut lab = accepting();
    let (call, _, first) = transferring(&mut lab);
    for status in [180, 183, 200] {
        assert_eq!(report(&mut lab, call, status), None, "the first is not answered");
    }
    // 503 says when to come again.
    let got = lab.tell(&reply(&first, 503, "", "Retry-After: 2\r\n", ""));
    assert!(got.is_empty(), "{got:?}");
    lab.run(Duration::from_secs(2));
    let last = lab.inbox(1).pop().unwrap();
    assert_eq!(body(&last), "SIP/2.0 200 OK\r\n");
    assert!(header(&last, "Subscription-State").starts_with("terminated"));
    accept(&mut lab, &last);
    lab.run(Duration::from_secs(60));
    assert_eq!(lab.inbox(1), Vec::<String>::new());
    release(&mut lab, call);
    assert_clean(&mut lab);
}

// RFC 6665 4.2.2, RFC 5057 5.2: a NOTIFY that is refused ends the subscription, not the call.
#[test]
fn d12_a_refused_report_leaves_the_call() {
    for answer in [Some(481), Some(500), None] {
        let mut lab = accepting();
        let (call, _, first) = transferring(&mut lab);
        match answer {
            Some(status) => drop(lab.tell(&reply(&first, status, "", "", ""))),
            None => lab.run(Duration::from_secs(33)),
        }
        lab.inbox(1);
        let told = lab.try_command(0, Command::ReportTransfer { call, status: 200 });
        assert_eq!(told, Err(CommandError::WrongState), "{answer:?}");
        assert!(ended(&lab.take(0)).is_empty());
        release(&mut lab, call);
        assert_clean(&mut lab);
    }
}

// RFC 6665 4.1.3: nobody reports, so the subscription times out.
#[test]
fn d12_a_subscription_ends_in_time() {
    let mut lab = accepting();
    let (call, _, first) = transferring(&mut lab);
    accept(&mut lab, &first);
    lab.run(Duration::from_secs(179));
    assert!(lab.inbox(1).is_empty());
    lab.run(Duration::from_secs(2));
    let last = lab.inbox(1).remove(0);
    assert_eq!(header(&last, "Subscription-State"), "terminated;reason=timeout");
    accept(&mut lab, &last);
    let told = lab.try_command(0, Command::ReportTransfer { call, status: 200 });
    assert_eq!(told, Err(CommandError::WrongState));
    release(&mut lab, call);
    assert_clean(&mut lab);
}

// RFC 5589 6.1, RFC 5057 3.2: the transferor leaves and hears how it went all the same.
#[test]
fn d12_a_transferor_that_hangs_up_hears_of_its_transfer() {
    let mut lab = accepting();
    let (call, ok, first) = transferring(&mut lab);
    accept(&mut lab, &first);
    assert_eq!(status(&lab.tell(&Ask::within(&ok, "BYE", 3).text())[0]), 200);
    assert_eq!(ended(&lab.take(0)), [(Cause::NORMAL_CALL_CLEARING, None, EndedBy::Far)]);
    assert_eq!(lab.endpoint(0).trunk_status()[0].calls, 0);
    let hold = lab.try_command(0, Command::Hold { call, on: true });
    assert_eq!(hold, Err(CommandError::UnknownCall));
    let last = report(&mut lab, call, 486).unwrap();
    assert_eq!(body(&last), "SIP/2.0 486 Busy Here\r\n");
    accept(&mut lab, &last);
    lab.run(Duration::from_secs(33));
    lab.assert_empty(0);

    // Nobody reports: nothing stays for ever.
    let mut lab = accepting();
    let (_, ok, first) = transferring(&mut lab);
    accept(&mut lab, &first);
    lab.tell(&Ask::within(&ok, "BYE", 3).text());
    lab.run(Duration::from_secs(300));
    lab.assert_empty(0);
}

// RFC 3515 2.4.4, RFC 6665 4.2.1: whoever wants to hear no more says so.
#[test]
fn d12_a_transferor_may_end_its_subscription() {
    let mut lab = accepting();
    let (call, ok, first) = transferring(&mut lab);
    accept(&mut lab, &first);
    let with = |cseq, event: &str, expires: &str| {
        Ask::within(&ok, "SUBSCRIBE", cseq).line(event).line(&format!("Expires: {expires}")).text()
    };
    assert_eq!(status(&lab.tell(&with(3, "Event: presence", "60"))[0]), 489);
    assert_eq!(status(&lab.tell(&with(4, "Event: refer;id=7", "60"))[0]), 481);
    let got = lab.tell(&with(5, "Event: refer", "6000"));
    assert_eq!((status(&got[0]), header(&got[0], "Expires").as_str()), (200, "179"), "no longer than it was");
    assert_eq!(body(&got[1]), "SIP/2.0 100 Trying\r\n");
    accept(&mut lab, &got[1]);
    let got = lab.tell(&with(6, "Event: refer", "0"));
    assert_eq!(header(&got[1], "Subscription-State"), "terminated;reason=timeout");
    accept(&mut lab, &got[1]);
    assert_eq!(status(&lab.tell(&with(7, "Event: refer", "60"))[0]), 481);
    let told = lab.try_command(0, Command::ReportTransfer { call, status: 200 });
    assert_eq!(told, Err(CommandError::WrongState));
    release(&mut lab, call);
    assert_clean(&mut lab);
}

// RFC 3515 2.4.2: by whatever policy, the call is as it was.
#[test]
fn d13_a_transfer_is_refused_as_the_policy_says() {
    for (said, heard) in [(603, 603), (403, 403), (200, 603)] {
        let mut lab = accepting();
        let (call, ok) = lab.call_in_answered();
        lab.tell(&Ask::within(&ok, "REFER", 2).line(TARGET).text());
        lab.take(0);
        lab.command(0, Command::RefuseTransfer { call, status: said });
        lab.run_ms(20);
        let got = lab.inbox(1);
        assert_eq!(got.iter().map(|m| status(m)).collect::<Vec<_>>(), [heard]);
        assert!(lab.take(0).is_empty());
        // The next may be taken.
        lab.tell(&Ask::within(&ok, "REFER", 3).line(TARGET).text());
        lab.command(0, Command::AcceptTransfer { call });
        release(&mut lab, call);
        assert_clean(&mut lab);
    }
}

// RFC 4320 1: a late answer is none.
#[test]
fn d13_a_transfer_nobody_decides_on_is_refused_in_time() {
    let mut lab = accepting();
    let (call, ok) = lab.call_in_answered();
    lab.tell(&Ask::within(&ok, "REFER", 2).line(TARGET).text());
    lab.run_ms(7_900);
    assert!(lab.inbox(1).is_empty());
    lab.run_ms(200);
    assert_eq!(status(&lab.inbox(1)[0]), 603);
    assert_eq!(lab.try_command(0, Command::AcceptTransfer { call }), Err(CommandError::WrongState));
    // RFC 3261 15.1.2: a BYE while it is open.
    lab.tell(&Ask::within(&ok, "REFER", 3).line(TARGET).text());
    let got = lab.tell(&Ask::within(&ok, "BYE", 4).text());
    assert_eq!(got.iter().map(|m| status(m)).collect::<Vec<_>>(), [200, 487]);
    assert_clean(&mut lab);
}

// RFC 4488 4.
#[test]
fn d17_a_transferor_that_wants_no_reports_gets_none() {
    let mut lab = accepting();
    let (call, ok) = lab.call_in_answered();
    let refer =
        Ask::within(&ok, "REFER", 2).line(TARGET).line("Refer-Sub: false").line("Require: norefersub");
    assert!(lab.tell(&refer.text()).is_empty());
    assert!(!requested(&lab.take(0)).reports);
    lab.command(0, Command::AcceptTransfer { call });
    lab.run_ms(20);
    let got = lab.inbox(1);
    assert_eq!((got.len(), status(&got[0]), header(&got[0], "Refer-Sub").as_str()), (1, 202, "false"));
    assert_eq!(report(&mut lab, call, 180), None);
    assert_eq!(report(&mut lab, call, 200), None);
    // That one is done with: another may come.
    lab.tell(&Ask::within(&ok, "REFER", 3).line(TARGET).line("Refer-Sub: false").text());
    lab.command(0, Command::AcceptTransfer { call });
    release(&mut lab, call);
    assert_eq!(lab.sent(0, "NOTIFY "), 0);
    assert_clean(&mut lab);
    // Where transfers are refused, the extension is not known.
    let mut lab = Lab::new();
    let got = lab.tell(&Ask::invite().line("Require: norefersub").text());
    assert_eq!((status(&got[0]), header(&got[0], "Unsupported").as_str()), (420, "norefersub"));
}

// RFC 5589 7, RFC 3891 6.1: whose dialog the Replaces means.
#[test]
fn d14_an_attended_transfer_says_which_call_it_means() {
    let mut lab = lab(|trunk| (trunk.transfers, trunk.replacing) = (Transfers::Accept, Replacing::Both));
    let (call, ok) = lab.call_in_answered();
    let (other, invite) = lab.call_out_answered();
    let tag = header(&invite, "From").split(";tag=").nth(1).unwrap().to_owned();
    let id = header(&invite, "Call-ID");
    let own = format!("Refer-To: <sip:10.0.0.1?Replaces={id}%3Bto-tag%3D{tag}%3Bfrom-tag%3Dpeer>");
    lab.take(0);
    lab.tell(&Ask::within(&ok, "REFER", 2).line(&own).text());
    let asked = requested(&lab.take(0));
    assert_eq!(asked.replaced, Some(other));
    assert_eq!(asked.replaces.as_ref().unwrap().to_tag, tag);
    lab.command(0, Command::RefuseTransfer { call, status: 403 });
    // Another's dialog, or our own with another tag.
    let foreign =
        "Refer-To: <sip:200@10.0.0.2?Replaces=abc%40x%3Bto-tag%3D1%3Bfrom-tag%3D2&Require=replaces>";
    for (cseq, line) in [(3, own.replace("3Dpeer", "3Dpear")), (4, foreign.to_owned())] {
        lab.run_ms(20);
        lab.tell(&Ask::within(&ok, "REFER", cseq).line(&line).text());
        let asked = requested(&lab.take(0));
        assert_eq!(asked.replaced, None, "{line}");
        assert!(asked.replaces.is_some());
        if cseq == 4 {
            lab.command(0, Command::AcceptTransfer { call });
            lab.run_ms(20);
            let notify = lab.inbox(1).pop().unwrap();
            accept(&mut lab, &notify);
            // The INVITE takes the place of that dialog, and does not ring without.
            let details =
                CallDetails { referral: Some(Box::new(asked.referral())), ..CallDetails::default() };
            release(&mut lab, other);
            let bye = lab.inbox(1).pop().unwrap();
            lab.tell(&reply(&bye, 200, "", "", ""));
            let invite = invite_with(&mut lab, caller("+12025550100"), details);
            assert!(invite.starts_with("INVITE sip:200@10.0.0.2 SIP/2.0"), "{invite}");
            assert_eq!(header(&invite, "To"), "<sip:200@10.0.0.2>");
            assert_eq!(header(&invite, "Replaces"), "abc@x;to-tag=1;from-tag=2");
            assert_eq!(headers(&invite, "Require"), ["replaces"]);
            lab.tell(&reply(&invite, 481, "x", "", ""));
        } else {
            lab.command(0, Command::RefuseTransfer { call, status: 603 });
        }
    }
    release(&mut lab, call);
    assert_clean(&mut lab);
}

/// The NOTIFY of the peer to a call that the gateway placed.
fn notify(invite: &str, cseq: u32, state: &str, text: &str) -> String {
    let mut ask = Ask::back(invite, "NOTIFY", cseq).line("Event: refer").body(text);
    ask.content_type = "message/sipfrag;version=2.0".to_owned();
    ask.line(&format!("Subscription-State: {state}")).text()
}

fn blind(call: CallId) -> Command {
    Command::Transfer { call, to: TransferTarget::Address(number("+442079460019")), referred_by: None }
}

/// The gateway has asked for a transfer; returns the call, its INVITE and the REFER.
fn referring(change: impl FnOnce(&mut TrunkConfig)) -> (Lab, CallId, String, String) {
    let mut lab = lab(change);
    let (call, invite) = lab.call_out_answered();
    lab.take(0);
    lab.command(0, blind(call));
    lab.run_ms(20);
    let refer = lab.inbox(1).remove(0);
    assert!(refer.starts_with("REFER sip:peer@10.0.0.2:5060;ob "), "{refer}");
    (lab, call, invite, refer)
}

// RFC 3515 2.4.1, RFC 3892 3.
#[test]
fn d12_our_transfer_is_followed_to_its_end() {
    let (mut lab, call, invite, refer) = referring(|_| {});
    assert_eq!(header(&refer, "Refer-To"), "<sip:+442079460019@10.0.0.2>");
    assert_eq!(header(&refer, "Referred-By"), "<sip:+12025550100@10.0.0.1>");
    assert!(!headers(&refer, "Contact").is_empty() && header(&refer, "Allow").contains("NOTIFY"));
    assert_eq!(lab.try_command(0, blind(call)), Err(CommandError::WrongState), "one at a time");
    // A NOTIFY may overtake the 202 (RFC 6665 4.4.1).
    let active = "active;expires=60";
    assert_eq!(status(&lab.tell(&notify(&invite, 1, active, "SIP/2.0 100 Trying\r\n"))[0]), 200);
    assert!(lab.tell(&reply(&refer, 202, "", CONTACT, "")).is_empty());
    for (cseq, text) in [(2, "SIP/2.0 180 Ringing\r\nTo: x\r\n"), (3, "SIP/2.0 180 Ringing"), (4, "rubbish")]
    {
        assert_eq!(status(&lab.tell(&notify(&invite, cseq, active, text))[0]), 200);
    }
    let told = |status| Event::TransferProgress { call, status };
    assert_eq!(lab.take(0), [told(100), told(180)]);
    let last = notify(&invite, 5, "terminated;reason=noresource", "SIP/2.0 200 OK\r\n");
    assert_eq!(status(&lab.tell(&last)[0]), 200);
    let outcome = TransferOutcome::Reported(200);
    assert_eq!(lab.take(0), [Event::TransferEnded { call, outcome }]);
    // The subscription is gone.
    assert_eq!(status(&lab.tell(&notify(&invite, 6, active, "SIP/2.0 100 Trying"))[0]), 481);
    assert!(lab.take(0).is_empty());
    lab.command(0, blind(call));
    release(&mut lab, call);
    assert_eq!(outcomes(&lab.take(0)), [TransferOutcome::Unreported]);
    assert_clean(&mut lab);
}

// RFC 6665 8.2.1, RFC 3515 2.4.5, 2.4.6: what is no report of ours.
#[test]
fn d12_strange_reports_are_answered_and_do_nothing() {
    let (mut lab, call, invite, refer) = referring(|_| {});
    lab.tell(&reply(&refer, 202, "", CONTACT, ""));
    let with =
        |event: &str, cseq| notify(&invite, cseq, "active", "SIP/2.0 200 OK").replace("Event: refer", event);
    let cseq = header(&refer, "CSeq").split(' ').next().unwrap().parse::<u32>().unwrap();
    assert_eq!(status(&lab.tell(&with("Event: presence", 1))[0]), 489);
    assert_eq!(status(&lab.tell(&with("X: y", 2))[0]), 489);
    assert_eq!(status(&lab.tell(&with(&format!("Event: refer;id={}", cseq + 1), 3))[0]), 481);
    let other = with("Event: refer", 4).replace("message/sipfrag;version=2.0", "text/plain");
    let got = lab.tell(&other);
    assert_eq!((status(&got[0]), header(&got[0], "Accept").as_str()), (415, "message/sipfrag"));
    assert!(lab.take(0).is_empty());
    // A flood of provisional reports is bounded.
    for n in 0..40 {
        let text = format!("SIP/2.0 {} x", 100 + n);
        lab.tell(&notify(&invite, 10 + n, "active", &text));
    }
    assert_eq!(lab.take(0).len(), 16);
    let got = lab.tell(&with(&format!("o: refer;id={cseq}"), 90));
    assert_eq!(status(&got[0]), 200);
    assert_eq!(outcomes(&lab.take(0)), [TransferOutcome::Reported(200)]);
    release(&mut lab, call);
    assert_clean(&mut lab);
    // Nothing was asked for.
    let mut lab = Lab::new();
    let (_, invite) = lab.call_out_answered();
    assert_eq!(status(&lab.tell(&notify(&invite, 1, "active", "SIP/2.0 200 OK"))[0]), 481);
}

// RFC 3515 2.4.1, RFC 4488 4, RFC 3261 12.2.1.2: how a REFER of ours may end.
#[test]
fn d12_d17_our_transfer_ends_one_way_or_the_other() {
    for (answer, lines, outcome, over) in [
        (603, "", TransferOutcome::Refused(603), false),
        (405, "", TransferOutcome::Refused(405), false),
        (202, "Refer-Sub: false\r\n", TransferOutcome::Unreported, false),
        (481, "", TransferOutcome::Refused(481), true),
    ] {
        let (mut lab, call, _, refer) = referring(|_| {});
        lab.tell(&reply(&refer, answer, "", lines, ""));
        let events = lab.take(0);
        assert_eq!(events[0], Event::TransferEnded { call, outcome });
        assert_eq!(ended(&events).len(), usize::from(over), "{answer}");
        if !over {
            release(&mut lab, call);
        }
        assert_clean(&mut lab);
    }
    // Terminated without a result.
    let (mut lab, call, invite, refer) = referring(|_| {});
    lab.tell(&reply(&refer, 202, "", CONTACT, ""));
    lab.tell(&notify(&invite, 1, "terminated;reason=noresource", "SIP/2.0 100 Trying"));
    assert_eq!(outcomes(&lab.take(0)), [TransferOutcome::Unreported]);
    release(&mut lab, call);
    assert_clean(&mut lab);
    // Accepted, and no word since.
    let (mut lab, call, _, refer) = referring(|_| {});
    lab.tell(&reply(&refer, 202, "", CONTACT, ""));
    lab.run(Duration::from_secs(239));
    assert!(lab.take(0).is_empty());
    lab.run(Duration::from_secs(2));
    assert_eq!(outcomes(&lab.take(0)), [TransferOutcome::Timeout]);
    release(&mut lab, call);
    assert_clean(&mut lab);
    // No answer at all: the dialog is gone.
    let (mut lab, _, _, _) = referring(|_| {});
    lab.run(Duration::from_secs(33));
    let events = lab.take(0);
    assert_eq!(outcomes(&events), [TransferOutcome::Timeout]);
    assert_eq!(ended(&events), [(Cause::RECOVERY_ON_TIMER_EXPIRY, None, EndedBy::Timeout)]);
    assert_clean(&mut lab);
}

// RFC 3261 22: in both roles.
#[test]
fn b08_challenges_are_answered_on_refer_and_notify() {
    let password = |trunk: &mut TrunkConfig| {
        trunk.transfers = Transfers::Accept;
        trunk.credentials = Some(Credentials {
            username: "gw".to_owned(),
            password: Secret::new("open sesame".to_owned()),
            realm: Some("peer".to_owned()),
        });
    };
    let (mut lab, call, invite, refer) = referring(password);
    let challenge = format!("WWW-Authenticate: {CHALLENGE}");
    let got = lab.tell(&reply(&refer, 401, "", &challenge, ""));
    assert!(got[0].starts_with("REFER ") && header(&got[0], "Authorization").contains("username=\"gw\""));
    assert_eq!(header(&got[0], "Refer-To"), header(&refer, "Refer-To"));
    lab.tell(&reply(&got[0], 202, "", CONTACT, ""));
    lab.tell(&notify(&invite, 1, "terminated", "SIP/2.0 503 x"));
    assert_eq!(outcomes(&lab.take(0)), [TransferOutcome::Reported(503)]);
    release(&mut lab, call);
    assert_clean(&mut lab);

    let mut lab = crate::identity::lab(password);
    let (call, _, first) = transferring(&mut lab);
    let challenge = format!("Proxy-Authenticate: {CHALLENGE}");
    let got = lab.tell(&reply(&first, 407, "", &challenge, ""));
    assert!(header(&got[0], "Proxy-Authorization").contains("username=\"gw\""), "{got:?}");
    assert_eq!(body(&got[0]), body(&first));
    accept(&mut lab, &got[0]);
    release(&mut lab, call);
    assert_clean(&mut lab);
}

// RFC 5589 7.1: the Replaces is in the words of the target, and each side knows its own.
#[test]
fn d12_d14_two_endpoints_agree_on_a_transfer() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut pair = Pair::with(transport, |a, b| {
            for config in [a, b] {
                config.trunks[0].transfers = Transfers::Accept;
            }
        });
        let (first, theirs) = pair.answered();
        let (second, other) = pair.answered();
        pair.take(0);
        pair.take(1);
        let to = TransferTarget::Call(second);
        let wrong = TransferTarget::Call(first);
        let itself = Command::Transfer { call: first, to: wrong, referred_by: None };
        assert_eq!(pair.try_command(0, itself), Err(CommandError::WrongState));
        let by = Some(number("+12025550111"));
        pair.command(0, Command::Transfer { call: first, to, referred_by: by });
        pair.run_ms(50);
        let events = pair.take(1);
        let asked = requested(&events);
        assert_eq!(asked.replaced, Some(other));
        assert_eq!(asked.referred_by.as_deref(), Some("sip:+12025550111@10.0.0.2"));
        pair.command(1, Command::AcceptTransfer { call: theirs });
        for status in [183, 200] {
            pair.command(1, Command::ReportTransfer { call: theirs, status });
            pair.run_ms(50);
        }
        let events = pair.take(0);
        assert_eq!(outcomes(&events), [TransferOutcome::Reported(200)]);
        for call in [first, second] {
            pair.command(0, Command::Release { call, cause: Cause::NORMAL_CALL_CLEARING });
        }
        pair.assert_clean();
    }
}

// Only what the trunk may be sent is sent; a wrong dialog is nobody's.
#[test]
fn d16_replaces_is_sent_where_the_trunk_takes_it() {
    for (replacing, sent) in [
        (Replacing::Off, false),
        (Replacing::Accept, false),
        (Replacing::Send, true),
        (Replacing::Both, true),
    ] {
        let mut lab = lab(|trunk| trunk.replacing = replacing);
        let replaces =
            Replaces { call_id: "a@b".into(), to_tag: "1".into(), from_tag: "2".into(), early_only: false };
        let mut details = CallDetails::default();
        details.referral.get_or_insert_default().replaces = Some(replaces);
        let command = Command::InviteWith {
            call: call_id(77),
            trunk: trunk_name("far"),
            called: number("+442079460018"),
            caller: caller("+12025550100"),
            media: media(crate::net::A_RTP),
            details: Arc::new(details),
        };
        let done = lab.try_command(0, command);
        assert_eq!(done, if sent { Ok(()) } else { Err(CommandError::Unusable) }, "{replacing:?}");
        lab.run_ms(20);
        let got = lab.inbox(1);
        assert_eq!(got.iter().filter(|m| m.contains("\r\nReplaces: a@b;")).count(), usize::from(sent));
        if let Some(invite) = got.first() {
            lab.tell(&reply(invite, 200, "peer", CONTACT, SDP));
            release(&mut lab, call_id(77));
        }
        assert_clean(&mut lab);
    }
}
