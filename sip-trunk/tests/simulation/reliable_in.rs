//! Rows C1, C10 to C14: reliable provisional responses and UPDATE of calls we receive.

use std::time::Duration;

use call_model::{CallId, Cause, Direction};
use sip_trunk::{Command, CommandError, EndedBy, Event, Reliable};

use crate::dialogs::{assert_clean, body, media_of, release};
use crate::net::{A_RTP, address, ended, media};
use crate::raw::{Ask, Lab, SDP, header, headers, sdp, status};

/// The peer calls and requires reliable provisional responses.
fn required() -> (Lab, CallId) {
    let mut lab = Lab::new();
    let call = lab.call_in(&Ask::invite().line("Require: 100rel").text());
    lab.inbox(1);
    lab.take(0);
    (lab, call)
}

fn ask(lab: &mut Lab, command: Command) -> Vec<String> {
    lab.command(0, command);
    lab.run_ms(20);
    lab.inbox(1)
}

fn prack(response: &str, cseq: u32) -> Ask {
    let rack = format!("RAck: {} 1 INVITE", header(response, "RSeq"));
    Ask::within(response, "PRACK", cseq).line(&rack)
}

// RFC 3262 3: at T1, doubled each time, until the PRACK.
#[test]
fn c10_a_reliable_response_is_repeated_until_its_prack() {
    let (mut lab, call) = required();
    let ringing = ask(&mut lab, Command::Ringing { call }).remove(0);
    assert_eq!(status(&ringing), 180);
    assert_eq!(header(&ringing, "Require"), "100rel");
    let rseq: u32 = header(&ringing, "RSeq").parse().unwrap();
    assert!((1..1 << 31).contains(&rseq));
    assert!(!headers(&ringing, "Contact").is_empty());
    lab.run_ms(8_000);
    assert_eq!(lab.inbox(1), vec![ringing.clone(); 4]);
    let at: Vec<u128> = lab.log.iter().filter(|m| m.3 == ringing).map(|m| m.0.as_millis()).collect();
    let gaps: Vec<u128> = at.windows(2).map(|w| w[1] - w[0]).collect();
    assert_eq!(gaps, [500, 1000, 2000, 4000]);
    // Of another response, of another INVITE, of none.
    for wrong in [format!("RAck: {} 1 INVITE", rseq + 1), format!("RAck: {rseq} 9 INVITE"), "X: y".to_owned()]
    {
        let cseq = 2 + lab.log.len() as u32;
        let got = lab.tell(&Ask::within(&ringing, "PRACK", cseq).line(&wrong).text());
        assert_eq!(status(&got[0]), 481, "{wrong}");
    }
    let acknowledgement = prack(&ringing, 90).text();
    let got = lab.tell(&acknowledgement);
    assert_eq!(status(&got[0]), 200);
    assert_eq!(lab.tell(&acknowledgement), got, "the same transaction");
    assert_eq!(status(&lab.tell(&prack(&ringing, 91).text())[0]), 481, "it waits no more");
    lab.run_ms(30_000);
    assert!(lab.inbox(1).is_empty());
    // RFC 3261 13.3.1.1: every minute, with a number of its own.
    lab.run_ms(35_000);
    let again = lab.inbox(1).remove(0);
    assert_eq!((status(&again), header(&again, "RSeq")), (180, (rseq + 1).to_string()));
    lab.tell(&prack(&again, 92).text());
    release(&mut lab, call);
    assert_eq!(lab.inbox(1).len(), 1);
}

// RFC 3262 3: a 5xx after 64 times T1.
#[test]
fn c10_without_a_prack_the_call_is_refused() {
    let (mut lab, call) = required();
    ask(&mut lab, Command::Progress { call, media: media(A_RTP) });
    lab.run_ms(32_100);
    let got = lab.inbox(1);
    let repeated = got.iter().filter(|m| status(m) == 183).count();
    assert_eq!((repeated, status(got.last().unwrap())), (6, 504));
    let ends = ended(&lab.take(0));
    assert_eq!(ends, [(Cause::RECOVERY_ON_TIMER_EXPIRY, Some(504), EndedBy::Timeout)]);
    assert_clean(&mut lab);
}

// RFC 3262 3: the next goes out when the one before is acknowledged, with the next RSeq.
#[test]
fn c10_reliable_responses_go_one_at_a_time() {
    let (mut lab, call) = required();
    let ringing = ask(&mut lab, Command::Ringing { call }).remove(0);
    assert!(ask(&mut lab, Command::Progress { call, media: media(A_RTP) }).is_empty());
    assert!(ask(&mut lab, Command::Progress { call, media: media(A_RTP) }).is_empty());
    let got = lab.tell(&prack(&ringing, 2).text());
    assert_eq!(got.iter().map(|m| status(m)).collect::<Vec<_>>(), [200, 183]);
    let rseq: u32 = header(&ringing, "RSeq").parse().unwrap();
    assert_eq!(header(&got[1], "RSeq"), (rseq + 1).to_string());
    assert!(body(&got[1]).contains("m=audio 20000 RTP/AVP 8 101"));
    assert!(matches!(lab.take(0)[..], [Event::Media { early: true, .. }]));
    let got = lab.tell(&prack(&got[1], 3).text());
    assert_eq!(got.len(), 1, "the second Progress was the first: {got:?}");
    // RFC 3261 13.2.1: the answer has been given.
    let more = ask(&mut lab, Command::Progress { call, media: media(A_RTP) }).remove(0);
    assert_eq!((status(&more), body(&more)), (183, ""));
    lab.tell(&prack(&more, 4).text());
    let ok = ask(&mut lab, Command::Answer { call, media: media(A_RTP) }).remove(0);
    assert_eq!((status(&ok), body(&ok)), (200, ""));
    lab.tell(&Ask::within(&ok, "ACK", 1).text());
    // A re-INVITE gets what was agreed.
    let got = lab.tell(&Ask::within(&ok, "INVITE", 5).body(SDP).text());
    assert!(body(&got[0]).contains("m=audio 20000 RTP/AVP 8 101"));
    lab.tell(&Ask::within(&ok, "ACK", 5).text());
    assert!(ended(&lab.take(0)).is_empty());
    release(&mut lab, call);
    assert_clean(&mut lab);
}

// By the trunk's choice: reliable where the INVITE supports it, refused where it does not.
#[test]
fn c10_the_trunk_may_insist() {
    let mut lab = Lab::with(|config| config.trunks[0].reliable_provisional = Reliable::Required);
    let got = lab.tell(&Ask::invite().text());
    assert_eq!((status(&got[0]), header(&got[0], "Require").as_str()), (421, "100rel"));
    assert!(lab.take(0).is_empty());
    let call = lab.call_in(&Ask::invite().branch("able").line("Supported: 100rel").text());
    lab.inbox(1);
    let ringing = ask(&mut lab, Command::Ringing { call }).remove(0);
    assert_eq!(header(&ringing, "Require"), "100rel");
    // And where nobody insists, they are as ever.
    let mut lab = Lab::new();
    let call = lab.call_in(&Ask::invite().line("Supported: 100rel").text());
    lab.inbox(1);
    let ringing = ask(&mut lab, Command::Ringing { call }).remove(0);
    assert!(headers(&ringing, "RSeq").is_empty() && headers(&ringing, "Require").is_empty());
}

#[test]
fn c10_a_cancel_stops_the_repetition() {
    let (mut lab, call) = required();
    ask(&mut lab, Command::Progress { call, media: media(A_RTP) });
    let cancel = Ask { via: Ask::invite().via, ..Ask::new("CANCEL") };
    let got = lab.tell(&cancel.text());
    assert_eq!(got.iter().map(|m| status(m)).collect::<Vec<_>>(), [200, 487]);
    lab.run_ms(20_000);
    assert!(lab.inbox(1).iter().all(|m| status(m) == 487));
    assert_clean(&mut lab);
}

// RFC 3262 3: no 2xx while a description waits for its PRACK.
#[test]
fn c11_the_2xx_waits_for_the_prack_of_a_183_with_sdp() {
    let (mut lab, call) = required();
    let progress = ask(&mut lab, Command::Progress { call, media: media(A_RTP) }).remove(0);
    assert!(ask(&mut lab, Command::Answer { call, media: media(A_RTP) }).is_empty());
    let again = lab.try_command(0, Command::Answer { call, media: media(A_RTP) });
    assert_eq!(again, Err(CommandError::WrongState));
    lab.run_ms(3_000);
    assert!(lab.inbox(1).iter().all(|m| *m == progress));
    let got = lab.tell(&prack(&progress, 2).text());
    assert_eq!(got.iter().map(|m| status(m)).collect::<Vec<_>>(), [200, 200]);
    assert!(header(&got[0], "CSeq").ends_with("PRACK") && header(&got[1], "CSeq").ends_with("INVITE"));
    assert_eq!(body(&got[1]), "");
    assert!(lab.tell(&Ask::within(&got[1], "ACK", 1).text()).is_empty());
    release(&mut lab, call);
    assert_clean(&mut lab);
}

#[test]
fn c11_the_2xx_does_not_wait_for_a_180_whose_prack_may_follow() {
    let (mut lab, call) = required();
    let ringing = ask(&mut lab, Command::Ringing { call }).remove(0);
    let ok = ask(&mut lab, Command::Answer { call, media: media(A_RTP) }).remove(0);
    assert_eq!(status(&ok), 200);
    assert!(body(&ok).contains("m=audio 20000"));
    assert_eq!(status(&lab.tell(&prack(&ringing, 2).text())[0]), 200);
    assert_eq!(status(&lab.tell(&prack(&ringing, 3).text())[0]), 481);
    lab.tell(&Ask::within(&ok, "ACK", 1).text());
    release(&mut lab, call);
    assert_clean(&mut lab);
}

#[test]
fn c11_a_release_does_not_wait() {
    let (mut lab, call) = required();
    ask(&mut lab, Command::Progress { call, media: media(A_RTP) });
    ask(&mut lab, Command::Answer { call, media: media(A_RTP) });
    let got = ask(&mut lab, Command::Release { call, cause: Cause::USER_BUSY });
    assert_eq!(status(&got[0]), 486);
    assert_clean(&mut lab);
}

// RFC 3262 5: a further offer in the PRACK is answered in its 2xx.
#[test]
fn c12_an_offer_in_a_prack_is_answered() {
    let (mut lab, call) = required();
    let progress = ask(&mut lab, Command::Progress { call, media: media(A_RTP) }).remove(0);
    lab.take(0);
    let moved = sdp(2, "sendonly").replace("30000", "30010");
    let got = lab.tell(&prack(&progress, 2).body(&moved).text());
    assert_eq!(status(&got[0]), 200);
    assert!(body(&got[0]).contains("a=recvonly"), "{}", got[0]);
    let agreed = media_of(&lab.take(0));
    assert_eq!((agreed[0].remote_rtp, agreed[0].direction), (address("10.0.0.2:30010"), Direction::RecvOnly));
    let ok = ask(&mut lab, Command::Answer { call, media: media(A_RTP) }).remove(0);
    assert_eq!((status(&ok), body(&ok)), (200, ""));
    lab.tell(&Ask::within(&ok, "ACK", 1).text());
    release(&mut lab, call);
    assert_clean(&mut lab);
}

#[test]
fn c12_an_offer_in_a_prack_that_cannot_be_taken_changes_nothing() {
    let (mut lab, call) = required();
    let progress = ask(&mut lab, Command::Progress { call, media: media(A_RTP) }).remove(0);
    lab.take(0);
    let got = lab.tell(&prack(&progress, 2).body(&SDP.replace("RTP/AVP 8 101", "RTP/AVP 18")).text());
    assert_eq!(status(&got[0]), 488);
    assert!(lab.take(0).is_empty());
    lab.run_ms(10_000);
    assert!(lab.inbox(1).is_empty(), "it was acknowledged");
    release(&mut lab, call);
    // Nor may there be one before the first exchange has ended.
    let (mut lab, call) = required();
    let ringing = ask(&mut lab, Command::Ringing { call }).remove(0);
    let got = lab.tell(&prack(&ringing, 2).body(&sdp(2, "sendonly")).text());
    assert_eq!(status(&got[0]), 500);
    assert!(header(&got[0], "Retry-After").parse::<u32>().unwrap() <= 10);
}

// RFC 3311 5.2: before the answer, after the exchange of the INVITE has ended.
#[test]
fn c13_an_update_of_the_caller_before_the_answer_moves_the_media() {
    let (mut lab, call) = required();
    let progress = ask(&mut lab, Command::Progress { call, media: media(A_RTP) }).remove(0);
    lab.tell(&prack(&progress, 2).text());
    lab.take(0);
    let moved = sdp(2, "sendonly").replace("30000", "30010");
    let got = lab.tell(&Ask::within(&progress, "UPDATE", 3).body(&moved).text());
    assert_eq!(status(&got[0]), 200);
    assert!(body(&got[0]).contains("a=recvonly"), "{}", got[0]);
    let events = lab.take(0);
    assert!(matches!(&events[0], Event::Media { early: true, media, .. }
        if media.remote_rtp == address("10.0.0.2:30010") && media.direction == Direction::RecvOnly));
    let ok = ask(&mut lab, Command::Answer { call, media: media(A_RTP) }).remove(0);
    assert_eq!((status(&ok), body(&ok)), (200, ""));
    lab.tell(&Ask::within(&ok, "ACK", 1).text());
    let got = lab.tell(&Ask::within(&ok, "UPDATE", 4).body(&sdp(3, "sendrecv")).text());
    assert_eq!(status(&got[0]), 200);
    assert_eq!(media_of(&lab.take(0))[0].direction, Direction::SendRecv);
    release(&mut lab, call);
    assert_clean(&mut lab);
}

// RFC 3311 5.2: their offer is open, or its answer was not sent reliably.
#[test]
fn c14_an_update_while_their_offer_is_open_is_500_with_retry_after() {
    let mut lab = Lab::new();
    let call = lab.call_in(&Ask::invite().text());
    lab.inbox(1);
    let ringing = ask(&mut lab, Command::Ringing { call }).remove(0);
    for cseq in 2..4 {
        let got = lab.tell(&Ask::within(&ringing, "UPDATE", cseq).body(SDP).text());
        assert_eq!(status(&got[0]), 500);
        assert!(header(&got[0], "Retry-After").parse::<u32>().unwrap() <= 10);
        // An unreliable answer is none.
        ask(&mut lab, Command::Progress { call, media: media(A_RTP) });
    }
    // Without an offer it is in order.
    assert_eq!(status(&lab.tell(&Ask::within(&ringing, "UPDATE", 4).text())[0]), 200);
    assert!(ended(&lab.take(0)).is_empty());
}

// RFC 3262 5: no offer in the INVITE: ours in the reliable 183, the answer in the PRACK.
#[test]
fn c01_a_delayed_offer_in_a_reliable_183_is_answered_in_the_prack() {
    let mut lab = Lab::new();
    let call = lab.call_in(&Ask::new("INVITE").line("Require: 100rel").text());
    lab.inbox(1);
    lab.take(0);
    // RFC 3261 13.2.1: the first reliable response holds the offer, so no 180 goes before it.
    assert!(ask(&mut lab, Command::Ringing { call }).is_empty());
    let progress = ask(&mut lab, Command::Progress { call, media: media(A_RTP) }).remove(0);
    assert!(body(&progress).contains("m=audio 20000 RTP/AVP 8 0"), "{progress}");
    // C14: our offer is open.
    let got = lab.tell(&Ask::within(&progress, "UPDATE", 2).body(SDP).text());
    assert_eq!(status(&got[0]), 491);
    assert!(media_of(&lab.take(0)).is_empty());
    // C11: the answer waits for it too.
    assert!(ask(&mut lab, Command::Answer { call, media: media(A_RTP) }).is_empty());
    let got = lab.tell(&prack(&progress, 3).body(SDP).text());
    assert_eq!(got.iter().map(|m| status(m)).collect::<Vec<_>>(), [200, 200]);
    assert!(body(&got[0]).is_empty() && body(&got[1]).is_empty());
    assert_eq!(media_of(&lab.take(0))[0].remote_rtp, address("10.0.0.2:30000"));
    lab.tell(&Ask::within(&got[1], "ACK", 1).text());
    assert!(ended(&lab.take(0)).is_empty());
    release(&mut lab, call);
    assert_clean(&mut lab);
}

#[test]
fn c01_a_prack_without_the_answer_refuses_the_call() {
    let mut lab = Lab::new();
    let call = lab.call_in(&Ask::new("INVITE").line("Require: 100rel").text());
    lab.inbox(1);
    let progress = ask(&mut lab, Command::Progress { call, media: media(A_RTP) }).remove(0);
    let got = lab.tell(&prack(&progress, 2).text());
    assert_eq!(status(&got[0]), 200);
    assert!(status(&got[1]) >= 400, "{got:?}");
    assert_eq!(ended(&lab.take(0)).len(), 1);
    lab.run(Duration::from_secs(70));
    assert_clean(&mut lab);
}
