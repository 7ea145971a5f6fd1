//! Rows A: transactions, matching, and the checks before a call.

use std::time::Duration;

use call_model::Cause;
use sip_trunk::{Command, EndedBy, Event, Reliable, UnknownSource};

use crate::dialogs::{assert_clean, release};
use crate::net::{A_RTP, address, ended, media};
use crate::raw::{Ask, CONTACT, Lab, SDP, header, headers, reply, status};

// RFC 3261 17.2.1: the 100 comes at once, a repeated INVITE gets the last response again.
#[test]
fn a01_a_repeated_invite_is_one_call_and_gets_the_same_answer() {
    let mut lab = Lab::new();
    let invite = Ask::invite().text();
    let first = lab.tell(&invite);
    assert_eq!(first.len(), 1);
    assert_eq!(status(&first[0]), 100);
    lab.run_ms(480);
    assert_eq!(lab.tell(&invite), first);
    let call = lab.incoming().unwrap();
    assert_eq!(lab.take(0).len(), 1, "one Incoming");
    lab.command(0, Command::Release { call, cause: Cause::USER_BUSY });
    lab.run_ms(20);
    let busy = lab.inbox(1).pop().unwrap();
    assert_eq!(status(&busy), 486);
    assert_eq!(lab.tell(&invite), std::slice::from_ref(&busy));
    // Timer G repeats it too, until the ACK.
    lab.run_ms(1600);
    assert_eq!(lab.inbox(1), [busy.clone(), busy.clone()]);
    let mut ack = Ask::new("ACK");
    (ack.via, ack.to) = (Ask::invite().via, header(&busy, "To"));
    assert!(lab.tell(&ack.text()).is_empty());
    lab.run_ms(30_000);
    assert!(lab.inbox(1).is_empty(), "the ACK stopped it");
    lab.run(Duration::from_secs(60));
    lab.assert_empty(0);
}

// RFC 3261 13.3.1.4: at T1, 2 T1 .. T2 until the ACK; none for 64 T1: BYE.
#[test]
fn a02_an_unacknowledged_2xx_is_repeated_and_then_the_call_ends() {
    let mut lab = Lab::new();
    let call = lab.call_in(&Ask::invite().text());
    lab.command(0, Command::Answer { call, media: media(A_RTP) });
    lab.run_ms(31_900);
    let oks = lab.log.iter().filter(|m| m.3.starts_with("SIP/2.0 200")).map(|m| m.0.as_millis());
    let times: Vec<_> = oks.collect();
    let gaps: Vec<_> = times.windows(2).map(|w| w[1] - w[0]).collect();
    assert_eq!(gaps, [500, 1000, 2000, 4000, 4000, 4000, 4000, 4000, 4000, 4000]);
    lab.inbox(1);
    lab.run_ms(300);
    let bye = lab.inbox(1).into_iter().find(|m| m.starts_with("BYE ")).expect("no BYE");
    assert!(bye.starts_with("BYE sip:peer@10.0.0.2:5060;ob SIP/2.0"), "{bye}");
    let ends = ended(&lab.take(0));
    assert_eq!(ends, [(Cause::RECOVERY_ON_TIMER_EXPIRY, None, EndedBy::Timeout)]);
    lab.tell(&reply(&bye, 200, "", "", ""));
    lab.run(Duration::from_secs(70));
    lab.assert_empty(0);
}

// RFC 6026 7.1: in Accepted a repeated INVITE is absorbed.
#[test]
fn a03_an_invite_repeated_after_our_2xx_makes_no_new_call() {
    let mut lab = Lab::new();
    let (call, _) = lab.call_in_answered();
    assert!(lab.tell(&Ask::invite().text()).is_empty());
    lab.run_ms(20_000);
    assert!(lab.tell(&Ask::invite().text()).is_empty());
    assert!(lab.take(0).is_empty());
    lab.command(0, Command::Release { call, cause: Cause::NORMAL_CALL_CLEARING });
}

// RFC 3261 13.2.2.4: the answer of a second fork is acknowledged and that dialog ended.
#[test]
fn a04_the_2xx_of_a_second_fork_gets_ack_and_bye() {
    let mut lab = Lab::new();
    let (_, invite) = lab.call_out_answered();
    let second = reply(&invite, 200, "other", "Contact: <sip:other@10.0.0.2:5060>\r\n", SDP);
    let got = lab.tell(&second);
    assert_eq!(got.len(), 2, "{got:?}");
    assert!(got[0].starts_with("ACK sip:other@10.0.0.2:5060 "));
    assert!(got[1].starts_with("BYE sip:other@10.0.0.2:5060 "));
    assert!(header(&got[1], "To").ends_with("tag=other"));
    lab.tell(&reply(&got[1], 200, "", "", ""));
    // The first dialog lives; its 2xx repeated gets the same ACK again.
    let again = lab.tell(&reply(&invite, 200, "peer", CONTACT, SDP));
    assert_eq!(again.len(), 1);
    assert!(again[0].starts_with("ACK sip:peer@10.0.0.2:5060;ob "));
    assert!(ended(&lab.take(0)).is_empty());
}

// RFC 3261 9.1, 15: an answer that crosses our CANCEL.
#[test]
fn a05_cancel_crosses_200() {
    let mut lab = Lab::new();
    let (call, invite) = lab.call_out();
    lab.tell(&reply(&invite, 180, "peer", CONTACT, ""));
    lab.take(0);
    lab.command(0, Command::Release { call, cause: Cause::NORMAL_CALL_CLEARING });
    lab.run_ms(20);
    let cancel = lab.inbox(1).remove(0);
    assert!(cancel.starts_with("CANCEL "));
    assert_eq!(header(&cancel, "Via"), header(&invite, "Via"));
    assert_eq!(header(&cancel, "Reason"), "Q.850;cause=16;text=\"normal call clearing\"");
    let got = lab.tell(&reply(&invite, 200, "peer", CONTACT, SDP));
    assert!(got[0].starts_with("ACK ") && got[1].starts_with("BYE "), "{got:?}");
    let events = lab.take(0);
    assert_eq!(ended(&events), [(Cause::NORMAL_CALL_CLEARING, None, EndedBy::Local)]);
    assert!(!events.iter().any(|e| matches!(e, Event::Answered { .. })));
    lab.tell(&reply(&cancel, 200, "peer", "", ""));
    lab.tell(&reply(&got[1], 200, "", "", ""));
    lab.run(Duration::from_secs(100));
    lab.assert_empty(0);
}

// RFC 3261 9.2: a CANCEL after the final response changes nothing.
#[test]
fn a06_cancel_after_our_200_leaves_the_call() {
    let mut lab = Lab::new();
    let call = lab.call_in(&Ask::invite().text());
    lab.command(0, Command::Answer { call, media: media(A_RTP) });
    lab.run_ms(20);
    lab.inbox(1);
    let mut cancel = Ask::new("CANCEL");
    cancel.via = Ask::invite().via;
    let got = lab.tell(&cancel.text());
    assert_eq!(got.iter().map(|m| header(m, "CSeq")).collect::<Vec<_>>(), ["1 CANCEL"]);
    assert_eq!(status(&got[0]), 200);
    assert!(ended(&lab.take(0)).is_empty());
}

#[test]
fn a06_cancel_before_our_answer_ends_the_call_with_487() {
    let mut lab = Lab::new();
    let call = lab.call_in(&Ask::invite().text());
    let mut cancel = Ask::new("CANCEL").line("Reason: SIP;cause=200;text=\"Call completed elsewhere\"");
    cancel.via = Ask::invite().via;
    let got = lab.tell(&cancel.text());
    let statuses: Vec<_> = got.iter().map(|m| status(m)).collect();
    assert_eq!(statuses, [200, 487]);
    assert_eq!(header(&got[0], "To"), header(&got[1], "To"));
    let ends = ended(&lab.take(0));
    assert_eq!(ends.len(), 1);
    assert_eq!((ends[0].1, ends[0].2), (Some(487), EndedBy::Far));
    let late = lab.try_command(0, Command::Ringing { call });
    assert_eq!(late, Err(sip_trunk::CommandError::UnknownCall));
}

#[test]
fn a07_cancel_of_nothing_is_481() {
    let mut lab = Lab::new();
    let got = lab.tell(&Ask::new("CANCEL").text());
    assert_eq!(status(&got[0]), 481);
    lab.assert_empty(0);
}

// RFC 3261 9.1: no CANCEL before a provisional response.
#[test]
fn a08_cancel_waits_for_a_provisional_response() {
    let mut lab = Lab::new();
    let (call, invite) = lab.call_out();
    lab.command(0, Command::Release { call, cause: Cause::NORMAL_CALL_CLEARING });
    lab.run_ms(300);
    assert!(lab.inbox(1).is_empty());
    let got = lab.tell(&reply(&invite, 100, "", "", ""));
    assert!(got[0].starts_with("CANCEL "), "{got:?}");
    lab.tell(&reply(&got[0], 200, "peer", "", ""));
    let ack = lab.tell(&reply(&invite, 487, "peer", "", ""));
    assert!(ack[0].starts_with("ACK ") && header(&ack[0], "Via") == header(&invite, "Via"));
    assert_eq!(ended(&lab.take(0)).len(), 1);
    lab.run(Duration::from_secs(70));
    lab.assert_empty(0);
}

// RFC 3261 16.3.
#[test]
fn a09_no_hops_left_is_483_but_options_may_be_answered() {
    let mut lab = Lab::new();
    let mut invite = Ask::invite();
    invite.max_forwards = 0;
    assert_eq!(status(&lab.tell(&invite.text())[0]), 483);
    let mut options = Ask::new("OPTIONS");
    options.max_forwards = 0;
    assert_eq!(status(&lab.tell(&options.text())[0]), 200);
    assert!(lab.take(0).is_empty());
    // Within a dialog nothing has to go any further.
    let (_, ok) = lab.call_in_answered();
    let mut bye = Ask::within(&ok, "BYE", 2);
    bye.max_forwards = 0;
    assert_eq!(status(&lab.tell(&bye.text())[0]), 200);
}

// RFC 3261 8.2.2.2: the same request by another way, told by its branch.
#[test]
fn a10_a_merged_invite_is_482() {
    let mut lab = Lab::new();
    lab.call_in(&Ask::invite().text());
    let got = lab.tell(&Ask::invite().branch("second").text());
    assert_eq!(status(&got[0]), 482);
    assert_eq!(lab.take(0).len(), 1);
}

// A proxy that rings two numbers here sends one INVITE to two URIs.
#[test]
fn a10_a_ring_group_is_not_a_merged_request() {
    let mut lab = Lab::new();
    lab.call_in(&Ask::invite().text());
    let mut second = Ask::invite().branch("second");
    second.uri = "sip:+442079460019@10.0.0.1".to_owned();
    assert_eq!(status(&lab.tell(&second.text())[0]), 100);
    assert_eq!(lab.take(0).len(), 2);

    // RFC 3261 8.2.2.2: only while the first is under way.
    let mut lab = Lab::new();
    lab.call_in_answered();
    assert_eq!(status(&lab.tell(&Ask::invite().branch("second").text())[0]), 482);
    lab.run(Duration::from_secs(40));
    assert_eq!(status(&lab.tell(&Ask::invite().branch("third").text())[0]), 100);
}

// RFC 3261 8.2.1.
#[test]
fn a11_unknown_methods_are_501_and_unwanted_ones_405_with_allow() {
    let mut lab = Lab::new();
    for (method, wanted) in
        [("PUBLISH", 405), ("REGISTER", 405), ("MESSAGE", 405), ("SUBSCRIBE", 405), ("FROB", 501)]
    {
        let got = lab.tell(&Ask::new(method).text());
        assert_eq!(status(&got[0]), wanted, "{method}");
        assert!(header(&got[0], "Allow").contains("INVITE"));
    }
    assert_eq!(status(&lab.tell(&Ask::new("REFER").text())[0]), 603);
    lab.assert_empty(0);
    let (_, ok) = lab.call_in_answered();
    for (cseq, (method, wanted)) in
        [("MESSAGE", 405), ("FROB", 501), ("REFER", 603), ("PRACK", 481)].iter().enumerate()
    {
        let got = lab.tell(&Ask::within(&ok, method, 2 + cseq as u32).text());
        assert_eq!(status(&got[0]), *wanted, "{method}");
        assert!(header(&got[0], "Allow").contains("INVITE"));
    }
    assert!(ended(&lab.take(0)).is_empty());
}

// RFC 3261 8.2.2.3. 100rel is known, unless the trunk is set up without.
#[test]
fn a12_required_extensions_we_lack_are_420() {
    let mut lab = Lab::new();
    let got = lab.tell(&Ask::invite().line("Require: foo, timer").line("Require: 100rel").text());
    assert_eq!(status(&got[0]), 420);
    assert_eq!(header(&got[0], "Unsupported"), "foo");
    assert!(lab.take(0).is_empty());
    let got = lab.tell(&Ask::invite().branch("second").line("Require: timer, 100rel").text());
    assert_eq!(status(&got[0]), 100);
}

#[test]
fn a12_a_trunk_without_100rel_refuses_it() {
    let mut lab = Lab::with(|config| config.trunks[0].reliable_provisional = Reliable::Off);
    let got = lab.tell(&Ask::invite().line("Require: foo, 100rel").text());
    assert_eq!(status(&got[0]), 420);
    assert_eq!(header(&got[0], "Unsupported"), "foo, 100rel");
    assert!(lab.take(0).is_empty());
}

// RFC 3261 8.2.3.
#[test]
fn a13_unknown_bodies_are_415_with_accept() {
    let mut lab = Lab::new();
    let mut invite = Ask::invite();
    invite.content_type = "application/x-odd".to_owned();
    let got = lab.tell(&invite.text());
    assert_eq!(status(&got[0]), 415);
    assert!(header(&got[0], "Accept").contains("application/sdp"));
    assert!(lab.take(0).is_empty());
}

// RFC 3261 7.3, RFC 5621: compact names, folding, and a session description in multipart/mixed.
#[test]
fn a15_compact_folded_and_multipart() {
    let mut lab = Lab::new();
    let body = format!(
        "preamble\r\n--b0\r\nContent-Type: application/isup;version=x\r\n\r\n\u{1}\u{2}\r\n--b0\r\n\
         Content-Type: application/sdp\r\n\r\n{SDP}\r\n--b0--\r\n"
    );
    let text = format!(
        "INVITE sip:+442079460018@10.0.0.1 SIP/2.0\r\nv: SIP/2.0/UDP\r\n 10.0.0.2:5060;branch=z9hG4bKm1;rport\r\n\
         Max-Forwards:   70\r\nf:\t\"Bob, B\" <sip:+12025550100@10.0.0.2>\r\n ;tag=bob\r\nt: sip:+442079460018@10.0.0.1\r\n\
         i: m1\r\nCSeq:  7   INVITE\r\nm: <sip:peer@10.0.0.2:5060>\r\nc: multipart/mixed; boundary=\"b0\"\r\nl: {}\r\n\r\n{body}",
        body.len()
    );
    let got = lab.tell(&text);
    assert_eq!(status(&got[0]), 100, "{got:?}");
    let events = lab.take(0);
    assert!(matches!(events[0], Event::Incoming { has_offer: true, .. }), "{events:?}");
}

// RFC 3581: the response goes to the source port when rport was asked for, to the Via's otherwise.
#[test]
fn a17_responses_go_where_the_request_came_from() {
    let mut lab = Lab::new();
    let natted = lab.net.add_raw(address("10.0.0.2:33333"));
    let to = lab.gateway;
    let mut options = Ask::new("OPTIONS");
    options.via = "SIP/2.0/UDP 192.168.1.1:5999;rport;branch=z9hG4bKr".to_owned();
    lab.say(natted, to, &options.text());
    lab.run_ms(20);
    let got = lab.inbox(natted);
    assert_eq!(
        header(&got[0], "Via"),
        "SIP/2.0/UDP 192.168.1.1:5999;rport=33333;branch=z9hG4bKr;received=10.0.0.2"
    );
    options.via = "SIP/2.0/UDP 192.168.1.1:5060;branch=z9hG4bKs".to_owned();
    lab.say(natted, to, &options.text());
    lab.run_ms(20);
    assert!(lab.inbox(natted).is_empty());
    let got = lab.inbox(1);
    assert_eq!(header(&got[0], "Via"), "SIP/2.0/UDP 192.168.1.1:5060;branch=z9hG4bKs;received=10.0.0.2");
}

// RFC 5630 3.3: sips means TLS on every hop.
#[test]
fn a21_sips_without_tls_is_416() {
    let mut lab = Lab::new();
    for uri in ["sips:+442079460018@10.0.0.1", "nobody:what"] {
        let mut invite = Ask::invite().branch(&uri[..4]);
        invite.uri = uri.to_owned();
        assert_eq!(status(&lab.tell(&invite.text())[0]), 416, "{uri}");
    }
    assert!(lab.take(0).is_empty());
}

// RFC 3261 17.1.1.2: a silent target is asked for 64 T1; then the call ends.
#[test]
fn a24_a_silent_target_ends_the_call_after_timer_b() {
    let mut lab = Lab::new();
    lab.call_out();
    lab.run(Duration::from_secs(31));
    let times: Vec<_> =
        lab.log.iter().filter(|m| m.3.starts_with("INVITE")).map(|m| m.0.as_millis()).collect();
    assert_eq!(times, [0, 500, 1500, 3500, 7500, 15500, 31500][..times.len()]);
    lab.run(Duration::from_secs(2));
    let ends = ended(&lab.take(0));
    assert_eq!(ends, [(Cause::RECOVERY_ON_TIMER_EXPIRY, None, EndedBy::Timeout)]);
    lab.run(Duration::from_secs(64));
    lab.assert_empty(0);
}

// RFC 3261 17.1.1.3: the ACK of a 503 is sent by the transaction, on its branch.
#[test]
fn a23_a_503_is_acknowledged_and_ends_the_call() {
    let mut lab = Lab::new();
    let (_, invite) = lab.call_out();
    let busy = reply(&invite, 503, "peer", "Retry-After: 5\r\nReason: Q.850;cause=34\r\n", "");
    let got = lab.tell(&busy);
    assert!(got[0].starts_with("ACK "));
    assert_eq!(header(&got[0], "Via"), header(&invite, "Via"));
    assert_eq!(header(&got[0], "CSeq"), "1 ACK");
    assert!(header(&got[0], "To").ends_with(";tag=peer"));
    assert_eq!(ended(&lab.take(0)), [(Cause::NO_CIRCUIT_AVAILABLE, Some(503), EndedBy::Far)]);
    assert_eq!(lab.tell(&busy).len(), 1, "repeated, acknowledged again");
    lab.run(Duration::from_secs(40));
    lab.assert_empty(0);
}

#[test]
fn a28_options_decide_health_with_hysteresis() {
    let mut lab = Lab::with(|config| config.trunks[0].options_interval = Some(Duration::from_secs(30)));
    lab.run_ms(2100);
    let options = lab.inbox(1).remove(0);
    assert!(options.starts_with("OPTIONS sip:10.0.0.2 SIP/2.0"), "{options}");
    // Any final answer but 408 and 503 is a sign of life.
    lab.tell(&reply(&options, 405, "x", "", ""));
    let health = |lab: &mut Lab| -> Vec<bool> {
        let up = |e: &Event| match e {
            Event::TrunkHealth { up, .. } => Some(*up),
            _ => None,
        };
        lab.take(0).iter().filter_map(up).collect()
    };
    assert_eq!(health(&mut lab), [true]);
    // Silence: the third miss decides.
    lab.run(Duration::from_secs(70));
    assert!(health(&mut lab).is_empty());
    lab.run(Duration::from_secs(30));
    assert_eq!(health(&mut lab), [false]);
    assert_eq!(lab.endpoint(0).trunk_status()[0].state, sip_trunk::TrunkState::Down);
    // A 503 is no life; of two answers in a row the second decides.
    let mut seen = Vec::new();
    for answer in [503, 200, 200] {
        lab.inbox(1);
        while lab.sent(0, "OPTIONS") == lab.log.iter().filter(|m| m.3.starts_with("SIP/2.0")).count() {
            lab.run_ms(100);
        }
        lab.inbox(1);
        let mut options = Vec::new();
        while options.is_empty() {
            lab.run_ms(100);
            options = lab.inbox(1);
        }
        lab.tell(&reply(&options[0], answer, "x", "", ""));
        seen.push(health(&mut lab));
    }
    assert_eq!(seen, [vec![], vec![], vec![true]]);
}

#[test]
fn a29_options_are_answered_and_refused_while_draining() {
    let mut lab = Lab::new();
    let mut options = Ask::new("OPTIONS");
    options.uri = "sip:10.0.0.1".to_owned();
    let got = lab.tell(&options.text());
    assert_eq!(status(&got[0]), 200);
    assert!(header(&got[0], "Accept").contains("application/sdp"));
    lab.command(0, Command::Drain { on: true });
    let got = lab.tell(&options.text());
    assert_eq!(status(&got[0]), 503);
    let got = lab.tell(&Ask::invite().text());
    assert_eq!(status(&got[0]), 503);
    assert!(header(&got[0], "Retry-After").parse::<u32>().unwrap() >= 1);
    assert!(header(&got[0], "Reason").starts_with("Q.850;cause=42"));
    lab.assert_empty(0);
}

#[test]
fn b09_strangers_get_403_or_silence_and_nothing_is_routed() {
    for (policy, answers) in [(UnknownSource::Forbid, 1), (UnknownSource::Silent, 0)] {
        let mut lab = Lab::with(|config| config.unknown_source = policy);
        let stranger = lab.net.add_raw(address("10.9.9.9:5060"));
        let to = lab.gateway;
        lab.say(stranger, to, &Ask::invite().text());
        lab.run_ms(50);
        let got = lab.inbox(stranger);
        assert_eq!(got.len(), answers);
        assert!(got.iter().all(|m| status(m) == 403));
        assert!(lab.take(0).is_empty());
        assert_eq!(lab.endpoint(0).counters().refused["unknown_source"], 1);
        lab.assert_empty(0);
    }
}

#[test]
fn g03_a_full_trunk_and_a_full_table_answer_503() {
    let mut lab = Lab::with(|config| config.trunks[0].max_calls = 1);
    let (call, _) = lab.call_in_answered();
    let mut invite = Ask::invite().branch("two");
    invite.call_id = "two".to_owned();
    assert_eq!(status(&lab.tell(&invite.text())[0]), 503);
    lab.command(0, Command::Release { call, cause: Cause::NORMAL_CALL_CLEARING });
    assert_eq!(status(&lab.tell(&invite.branch("three").text()).pop().unwrap()), 100);

    let mut lab = Lab::with(|config| config.limits.transactions_per_source = 3);
    for n in 0..5 {
        let mut invite = Ask::invite().branch(&format!("n{n}"));
        invite.call_id = format!("n{n}");
        let got = lab.tell(&invite.text());
        assert_eq!(status(&got[0]), if n < 3 { 100 } else { 503 });
    }
    assert_eq!(lab.endpoint(0).counters().server_transactions, 3);
}

#[test]
fn responses_nobody_waits_for_are_counted_and_dropped() {
    let mut lab = Lab::new();
    let (_, invite) = lab.call_out();
    let stray = reply(&invite, 200, "peer", CONTACT, SDP).replace("z9hG4bK", "z9hG4bKx");
    assert!(lab.tell(&stray).is_empty());
    assert_eq!(lab.endpoint(0).counters().refused["stray_response"], 1);
    assert!(headers(&stray, "Via").len() == 1);
}

// RFC 3261 8.2.6.2: a response copies Call-ID and CSeq. One that has others ends no call, and answers none.
#[test]
fn responses_of_another_call_are_dropped() {
    let mut lab = Lab::new();
    let (call, invite) = lab.call_out();
    lab.tell(&reply(&invite, 180, "peer", CONTACT, ""));
    lab.take(0);
    let others = [("Call-ID: ", "Call-ID: not-"), ("CSeq: ", "CSeq: 7")];
    for (n, (from, to)) in others.into_iter().enumerate() {
        for (status, body) in [(200, SDP), (200, ""), (486, "")] {
            let other = reply(&invite, status, "peer", CONTACT, body).replacen(from, to, 1);
            assert!(lab.tell(&other).is_empty(), "{other}");
            assert!(lab.take(0).is_empty(), "{other}");
        }
        assert_eq!(lab.endpoint(0).counters().refused["stray_response"], 3 * (n as u64 + 1));
    }
    let ack = lab.tell(&reply(&invite, 200, "peer", CONTACT, SDP));
    assert!(ack[0].starts_with("ACK "), "{ack:?}");
    release(&mut lab, call);
    assert_clean(&mut lab);
}
