//! Calls between two endpoints.

use std::time::Duration;

use call_model::{Cause, Codec, Direction};
use sip_trunk::{Command, EndedBy, Event, Transport};

use crate::net::{A_RTP, B_RTP, Pair, address, ended, media, number};

fn media_of(events: &[Event]) -> Vec<(bool, Direction)> {
    events
        .iter()
        .filter_map(|e| match e {
            Event::Media { media, early, .. } => Some((*early, media.direction)),
            _ => None,
        })
        .collect()
}

#[test]
fn a_call_rings_has_early_media_is_answered_and_ends_on_udp_and_tcp() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut pair = Pair::new(transport);
        let (a, b) = pair.call();
        let incoming = pair.take(1);
        let Event::Incoming { called, caller, has_offer, called_user, .. } = &incoming[0] else { panic!() };
        assert_eq!(called.clone(), Some(number("+442079460018")));
        assert_eq!(called_user, "+442079460018");
        assert_eq!(caller.address, Some(number("+12025550100")));
        assert!(has_offer);

        pair.command(1, Command::Ringing { call: b });
        pair.run_ms(20);
        pair.command(1, Command::Progress { call: b, media: media(B_RTP) });
        pair.run_ms(20);
        pair.command(1, Command::Answer { call: b, media: media(B_RTP) });
        pair.run_ms(50);
        let ladder = pair.ladder(0);
        let wanted = [
            "> INVITE (SDP)",
            "< 100 Trying",
            "< 180 Ringing",
            "< 183 Session Progress (SDP)",
            "< 200 OK (SDP)",
            "> ACK",
        ];
        assert_eq!(ladder, wanted, "{transport:?}");
        let events = pair.take(0);
        assert!(matches!(events[0], Event::Trying { .. }));
        assert!(matches!(events[1], Event::Ringing { .. }));
        let Event::Media { media, early: true, .. } = &events[2] else { panic!("{events:?}") };
        assert_eq!((media.codec, media.remote_rtp), (Codec::Pcma, address(B_RTP)));
        assert!(matches!(events[3], Event::Media { early: false, .. }));
        assert_eq!(events[4], Event::Answered { call: a });
        let theirs = pair.take(1);
        let Event::Media { media, .. } = &theirs[0] else { panic!("{theirs:?}") };
        assert_eq!(media.remote_rtp, address(A_RTP));

        pair.command(0, Command::Release { call: a, cause: Cause::NORMAL_CALL_CLEARING });
        pair.run_ms(50);
        assert_eq!(ended(&pair.take(0)), [(Cause::NORMAL_CALL_CLEARING, None, EndedBy::Local)]);
        assert_eq!(ended(&pair.take(1)), [(Cause::NORMAL_CALL_CLEARING, None, EndedBy::Far)]);
        pair.assert_clean();
    }
}

#[test]
fn the_called_side_may_hang_up() {
    let mut pair = Pair::new(Transport::Udp);
    let (_, b) = pair.answered();
    pair.command(1, Command::Release { call: b, cause: Cause::NORMAL_CALL_CLEARING });
    pair.run(Duration::from_millis(50));
    assert_eq!(ended(&pair.take(0)), [(Cause::NORMAL_CALL_CLEARING, None, EndedBy::Far)]);
    assert_eq!(ended(&pair.take(1)), [(Cause::NORMAL_CALL_CLEARING, None, EndedBy::Local)]);
    pair.assert_clean();
}

// RFC 3326: the cause travels in a Reason header, whatever the status.
#[test]
fn d21_the_cause_of_a_refusal_travels_in_reason() {
    for (cause, status) in [
        (Cause::USER_BUSY, 486),
        (Cause::UNALLOCATED_NUMBER, 404),
        (Cause::CALL_REJECTED, 403),
        (Cause::NO_CIRCUIT_AVAILABLE, 503),
    ] {
        let mut pair = Pair::new(Transport::Udp);
        let (_, b) = pair.call();
        pair.command(1, Command::Release { call: b, cause });
        pair.run_ms(50);
        let ends = ended(&pair.take(0));
        assert_eq!(ends.len(), 1);
        assert_eq!((ends[0].0, ends[0].2), (cause, EndedBy::Far));
        assert_eq!(ends[0].1, Some(sip_trunk::cause::status_of_cause(cause)), "{status}");
        pair.assert_clean();
    }
}

#[test]
fn hold_and_resume_show_on_both_sides() {
    let mut pair = Pair::new(Transport::Udp);
    let (a, b) = pair.answered();
    pair.take(0);
    pair.take(1);
    pair.command(0, Command::Hold { call: a, on: true });
    pair.run_ms(100);
    assert_eq!(media_of(&pair.take(0)), [(false, Direction::SendOnly)]);
    assert_eq!(media_of(&pair.take(1)), [(false, Direction::RecvOnly)]);
    // D4: both hold, then each resumes.
    pair.command(1, Command::Hold { call: b, on: true });
    pair.run_ms(100);
    assert_eq!(media_of(&pair.take(1)).last().map(|m| m.1.receives()), Some(false));
    pair.command(0, Command::Hold { call: a, on: false });
    pair.run_ms(100);
    pair.command(1, Command::Hold { call: b, on: false });
    pair.run_ms(100);
    assert_eq!(media_of(&pair.take(0)).last(), Some(&(false, Direction::SendRecv)));
    assert_eq!(media_of(&pair.take(1)).last(), Some(&(false, Direction::SendRecv)));
    pair.command(0, Command::Release { call: a, cause: Cause::NORMAL_CALL_CLEARING });
    pair.assert_clean();
}

// RFC 3261 13.2.2.4, 13.3.1.4: the 2xx is repeated until an ACK comes through, and each repetition is
// acknowledged.
#[test]
fn a02_a_lost_ack_is_sent_again() {
    let mut pair = Pair::new(Transport::Udp);
    let mut lost = 0;
    pair.filter = Some(Box::new(move |_, text| {
        lost += u32::from(text.starts_with("ACK ") && lost < 2);
        text.starts_with("ACK ") && lost < 2
    }));
    let (a, b) = pair.call();
    pair.command(1, Command::Answer { call: b, media: media(B_RTP) });
    pair.run_ms(10_000);
    assert!(pair.sent(0, "ACK ") >= 2);
    assert_eq!(pair.sent(0, "ACK "), pair.sent(1, "SIP/2.0 200"));
    assert!(ended(&pair.take(0)).is_empty() && ended(&pair.take(1)).is_empty());
    pair.command(0, Command::Release { call: a, cause: Cause::NORMAL_CALL_CLEARING });
    pair.assert_clean();
}
