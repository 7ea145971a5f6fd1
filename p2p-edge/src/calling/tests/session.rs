use std::time::{Duration, Instant};

use call_model::{Caller, Cause, DtmfDigit};

use super::pair::Pair;
use super::{invite, token};
use crate::calling::*;

const S: Duration = Duration::from_secs(1);

fn answer() -> SessionCommand {
    SessionCommand::Answer { media: "answer".into() }
}

fn bye() -> SessionCommand {
    SessionCommand::Bye { cause: Cause::NORMAL_CALL_CLEARING, text: String::new() }
}

fn cancel() -> SessionCommand {
    SessionCommand::Cancel { answered_elsewhere: false }
}

fn busy() -> SessionCommand {
    SessionCommand::Reject { cause: Cause::USER_BUSY, sip_status: Some(486), text: "busy".into() }
}

fn fresh() -> Pair {
    let mut pair = Pair::new(1, SessionTimers::default());
    pair.run_ms(50);
    pair
}

#[test]
fn a_call_goes_through_all_its_states() {
    let mut pair = fresh();
    assert_eq!(pair.callee().events, [SessionEvent::Invited(invite())]);
    assert!(pair.caller.session.is_acknowledged());
    let steps = [
        (SessionCommand::Trying, SessionState::Trying),
        (SessionCommand::Ringing, SessionState::Ringing),
        (SessionCommand::Progress { media: "early".into() }, SessionState::Early),
        (answer(), SessionState::Answered),
    ];
    for (command, state) in steps {
        pair.callee_does(command).unwrap();
        pair.run_ms(50);
        assert_eq!(pair.caller.session.state(), state);
        assert_eq!(pair.callee().session.state(), state);
    }
    pair.caller_does(SessionCommand::MediaUp).unwrap();
    pair.callee_does(SessionCommand::MediaUp).unwrap();
    pair.caller_does(SessionCommand::Hold { on: true }).unwrap();
    pair.callee_does(SessionCommand::Hold { on: true }).unwrap();
    pair.run_ms(50);
    pair.caller_does(SessionCommand::Hold { on: false }).unwrap();
    pair.run_ms(50);
    assert_eq!(pair.caller.session.state(), SessionState::Held, "the other side still holds");
    pair.callee_does(SessionCommand::Hold { on: false }).unwrap();
    let digit = DtmfDigit::from_char('5').unwrap();
    pair.caller_does(SessionCommand::Dtmf { digit, duration_ms: 100 }).unwrap();
    pair.callee_does(SessionCommand::Message { text: "hello".into() }).unwrap();
    let party =
        Caller { address: "+15550001".parse().ok(), display_name: Some("Carol".into()), private: false };
    pair.callee_does(SessionCommand::Connected { party: party.clone() }).unwrap();
    pair.run_ms(50);
    assert_eq!(pair.caller.session.state(), SessionState::Active);
    pair.caller_does(bye()).unwrap();
    pair.run_ms(100);
    assert!(pair.finished());
    assert_eq!(pair.caller.end(), (Cause::NORMAL_CALL_CLEARING, EndedBy::Local));
    assert_eq!(pair.callee().end(), (Cause::NORMAL_CALL_CLEARING, EndedBy::Far));
    assert_eq!(
        pair.caller.events,
        [
            SessionEvent::Trying,
            SessionEvent::Ringing,
            SessionEvent::Progress { media: "early".into() },
            SessionEvent::Answered { media: "answer".into() },
            SessionEvent::Hold { on: true },
            SessionEvent::Hold { on: false },
            SessionEvent::Message { text: "hello".into() },
            SessionEvent::Connected { party },
        ]
    );
    assert_eq!(
        pair.callee().events[1..],
        [
            SessionEvent::Hold { on: true },
            SessionEvent::Hold { on: false },
            SessionEvent::Dtmf { digit, duration_ms: 100 },
        ]
    );
    assert_eq!(pair.caller_does(bye()), Err(CommandError::Ended));
}

#[test]
fn early_media_that_is_up_makes_the_answer_active_at_once() {
    let mut pair = fresh();
    pair.callee_does(SessionCommand::Progress { media: "early".into() }).unwrap();
    pair.run_ms(50);
    pair.caller_does(SessionCommand::MediaUp).unwrap();
    pair.callee_does(SessionCommand::MediaUp).unwrap();
    pair.callee_does(answer()).unwrap();
    pair.run(20 * S);
    assert_eq!(pair.caller.session.state(), SessionState::Active);
    assert_eq!(pair.callee().session.state(), SessionState::Active);
}

#[test]
fn a_device_that_does_not_acknowledge_is_given_up_after_four_seconds() {
    let mut pair = Pair::new(1, SessionTimers::default());
    let start = Instant::now();
    let mut alone = CallSession::outgoing(invite(), token(1), SessionTimers::default(), start).unwrap();
    while alone.poll_transmit().is_some() {}
    assert_eq!(alone.poll_timeout(), Some(start + 4 * S));
    alone.handle_timeout(start + 4 * S);
    let ended = std::iter::from_fn(|| alone.poll_event()).filter(|e| matches!(e, SessionEvent::Ended { .. }));
    assert!(matches!(
        ended.last(),
        Some(SessionEvent::Ended {
            cause: Cause::NO_USER_RESPONDING,
            sip_status: Some(408),
            by: EndedBy::Timeout,
            ..
        })
    ));
    // A stream that closes before the acknowledgement means that the device does not take calls.
    pair.cut(true);
    assert_eq!(pair.caller.end(), (Cause::DESTINATION_OUT_OF_ORDER, EndedBy::Lost));
    assert!(pair.finished());
}

#[test]
fn ringing_ends_by_policy_and_it_is_the_caller_who_gives_up() {
    let mut pair = Pair::new(1, SessionTimers::default().with_ringing(60 * S));
    pair.run_ms(50);
    pair.callee_does(SessionCommand::Ringing).unwrap();
    pair.run(61 * S);
    assert_eq!(pair.caller.end(), (Cause::NO_ANSWER_FROM_USER, EndedBy::Timeout));
    assert_eq!(pair.caller.ended.as_ref().unwrap().0, 60 * S);
    assert_eq!(pair.callee().end().1, EndedBy::Far);
    assert!(pair.finished());
}

#[test]
fn a_call_whose_media_does_not_come_up_ends_eight_seconds_after_the_answer() {
    let mut pair = fresh();
    pair.callee_does(answer()).unwrap();
    pair.run_ms(50);
    pair.caller_does(SessionCommand::MediaUp).unwrap();
    pair.run(9 * S);
    assert_eq!(pair.callee().end(), (Cause::BEARER_CAPABILITY_NOT_AVAILABLE, EndedBy::Timeout));
    assert_eq!(pair.caller.end(), (Cause::BEARER_CAPABILITY_NOT_AVAILABLE, EndedBy::Far));
    assert!(pair.finished());
}

#[test]
fn a_reject_carries_its_reason_even_after_early_media() {
    let mut pair = fresh();
    pair.callee_does(SessionCommand::Progress { media: "announcement".into() }).unwrap();
    pair.run_ms(50);
    pair.callee_does(busy()).unwrap();
    pair.run_ms(50);
    let Some((_, SessionEvent::Ended { cause, sip_status, text, by })) = &pair.caller.ended else { panic!() };
    assert_eq!(
        (*cause, *sip_status, text.as_str(), *by),
        (Cause::USER_BUSY, Some(486), "busy", EndedBy::Far)
    );
    pair.run_ms(50);
    assert!(pair.finished());
}

#[test]
fn a_cancel_that_crosses_the_answer_ends_both_sides() {
    for command in [cancel(), bye()] {
        let mut pair = fresh();
        pair.callee_does(answer()).unwrap();
        pair.caller_does(command).unwrap();
        pair.run_ms(200);
        assert_eq!(pair.caller.end(), (Cause::NORMAL_CALL_CLEARING, EndedBy::Local));
        assert_eq!(pair.callee().end(), (Cause::NORMAL_CALL_CLEARING, EndedBy::Far));
        assert_eq!(pair.caller.events, [], "the answer came after the end");
        assert!(pair.finished());
    }
}

#[test]
fn a_bye_and_a_reject_that_cross_each_other_end_both_sides_locally() {
    let mut pair = fresh();
    pair.callee_does(busy()).unwrap();
    pair.caller_does(cancel()).unwrap();
    pair.run_ms(200);
    assert_eq!(pair.caller.end().1, EndedBy::Local);
    assert_eq!(pair.callee().end(), (Cause::USER_BUSY, EndedBy::Local));
    assert!(pair.finished());

    let mut pair = Pair::active(1);
    pair.caller_does(bye()).unwrap();
    pair.callee_does(bye()).unwrap();
    pair.run_ms(200);
    assert_eq!(pair.caller.end().1, EndedBy::Local);
    assert_eq!(pair.callee().end().1, EndedBy::Local);
    assert!(pair.finished());
}

#[test]
fn a_cancel_after_the_answer_has_arrived_becomes_a_bye() {
    let mut pair = Pair::active(1);
    pair.caller_does(SessionCommand::Cancel { answered_elsewhere: true }).unwrap();
    pair.run_ms(200);
    assert_eq!(pair.callee().end(), (Cause::NON_SELECTED_USER_CLEARING, EndedBy::Far));
    assert!(pair.finished());
}

#[test]
fn commands_out_of_place_are_refused_and_send_nothing() {
    let mut pair = fresh();
    for command in [SessionCommand::Ringing, answer(), busy(), SessionCommand::Hold { on: true }] {
        assert_eq!(pair.caller_does(command), Err(CommandError::State));
    }
    assert_eq!(pair.callee_does(SessionCommand::Hold { on: true }), Err(CommandError::State));
    let party = Caller { display_name: Some("two\nlines".into()), ..Caller::default() };
    let unclean = CommandError::Invalid(FrameError::BadField("display_name"));
    assert_eq!(pair.callee_does(SessionCommand::Connected { party }), Err(unclean));
    assert_eq!(
        pair.callee_does(SessionCommand::Connected { party: Caller::default() }),
        Err(CommandError::State),
        "who is connected can change after the answer only"
    );
    let long = SessionCommand::Message { text: "x".repeat(MAX_TEXT + 1) };
    assert_eq!(pair.caller_does(long), Err(CommandError::Invalid(FrameError::FieldTooLong("text"))));
    let before = *pair.callee().session.counters();
    pair.run_ms(100);
    assert_eq!(*pair.callee().session.counters(), before);
    pair.callee_does(answer()).unwrap();
    assert_eq!(pair.callee_does(answer()), Err(CommandError::State));
}

#[test]
fn a_refer_is_answered_as_not_supported_and_the_call_goes_on() {
    let mut pair = Pair::active(1);
    pair.caller_does(SessionCommand::Refer { target: "carol".parse().unwrap() }).unwrap();
    pair.run_ms(100);
    assert_eq!(pair.caller.events.last(), Some(&SessionEvent::NotSupported { request: "refer" }));
    assert_eq!(pair.callee().session.counters().not_supported, 1);
    assert_eq!(pair.caller.session.state(), SessionState::Active);
}

#[test]
fn unknown_and_misplaced_frames_are_acknowledged_counted_and_skipped() {
    let mut pair = fresh();
    let now = pair.now;
    let session = &mut pair.callee().session;
    session.handle_bytes(now, &Frame { sequence: 2, body: Body::Unknown { kind: 77 } }.encode());
    session.handle_bytes(now, &Frame { sequence: 3, body: Body::Ringing }.encode());
    session.handle_bytes(now, &Frame { sequence: 3, body: Body::Ringing }.encode());
    let acks = std::iter::from_fn(|| session.poll_transmit()).count();
    assert_eq!(acks, 3);
    let counters = session.counters();
    assert_eq!((counters.unknown, counters.misplaced, counters.duplicate), (1, 1, 1));
    assert!(!session.has_ended());
}

#[test]
fn broken_bytes_gaps_and_floods_end_the_call_with_a_named_error() {
    let flood: Vec<u8> = (2..300).flat_map(|n| Frame { sequence: n, body: Body::Ping }.encode()).collect();
    let cases = [
        (vec![0x02, 0xff, 0xff], FrameError::BadCbor, Cause::PROTOCOL_ERROR),
        (vec![0xff; 8], FrameError::BadVarint, Cause::PROTOCOL_ERROR),
        (Frame { sequence: 9, body: Body::Ping }.encode(), FrameError::SequenceGap, Cause::PROTOCOL_ERROR),
        (flood, FrameError::Flood, Cause::SWITCHING_EQUIPMENT_CONGESTION),
    ];
    for (bytes, error, cause) in cases {
        let mut pair = fresh();
        let now = pair.now;
        pair.callee().session.handle_bytes(now, &bytes);
        assert_eq!(pair.callee().session.last_error(), Some(error));
        pair.run_ms(100);
        assert_eq!(pair.callee().end(), (cause, EndedBy::Local));
        // Who floods gets as many acknowledgements back, and may be flooded by them in turn.
        let by = if error == FrameError::Flood { EndedBy::Local } else { EndedBy::Far };
        assert_eq!(pair.caller.end(), (cause, by));
        assert!(pair.finished());
    }
}

#[test]
fn an_active_call_survives_the_loss_of_its_stream() {
    for callee_notices in [true, false] {
        let mut pair = Pair::active(3);
        let digit = DtmfDigit::from_char('7').unwrap();
        // These are under way when the stream goes.
        pair.caller_does(SessionCommand::Dtmf { digit, duration_ms: 100 }).unwrap();
        pair.callee_does(SessionCommand::Message { text: "lost?".into() }).unwrap();
        pair.no_network_until = pair.now + 10 * S;
        pair.cut(callee_notices);
        pair.caller_does(SessionCommand::Hold { on: true }).unwrap();
        pair.run(15 * S);
        assert_eq!(pair.caller.session.counters().resumed, 1);
        assert_eq!(
            pair.callee().events[1..],
            [SessionEvent::Dtmf { digit, duration_ms: 100 }, SessionEvent::Hold { on: true }],
            "nothing lost, nothing twice, in order"
        );
        assert_eq!(pair.caller.events.last(), Some(&SessionEvent::Message { text: "lost?".into() }));
        assert_eq!(pair.caller.session.state(), SessionState::Held);
        pair.callee_does(bye()).unwrap();
        pair.run_ms(200);
        assert_eq!(pair.caller.end(), (Cause::NORMAL_CALL_CLEARING, EndedBy::Far));
        assert!(pair.finished());
    }
}

#[test]
fn a_call_that_cannot_be_resumed_in_time_ends_on_both_sides() {
    let mut pair = Pair::active(3);
    let cut_at = pair.now;
    let window = SessionTimers::default().resume;
    pair.no_network_until = pair.now + 2 * window;
    pair.cut(true);
    pair.run(window + 10 * S);
    assert_eq!(pair.caller.end(), (Cause::NETWORK_OUT_OF_ORDER, EndedBy::Lost));
    assert_eq!(pair.callee().end(), (Cause::NETWORK_OUT_OF_ORDER, EndedBy::Lost));
    assert!(pair.now - cut_at >= window && pair.finished());
}

#[test]
fn a_call_outlives_the_slowest_recovery() {
    // Pings tell the two ends up to 25 s apart; the callee's new address is stored in 3 s; a dial that
    // began before that takes 5 s more.
    let mut pair = Pair::active(3);
    pair.no_network_until = pair.now + (25 + 3 + 5 + 5) * S;
    pair.cut(true);
    pair.run(50 * S);
    assert_eq!(pair.caller.session.state(), SessionState::Active);
    assert_eq!(pair.callee().session.counters().resumed, 1);
}

#[test]
fn a_bye_said_while_the_stream_is_lost_is_delivered_after_resumption() {
    for by_caller in [true, false] {
        let mut pair = Pair::active(4);
        pair.no_network_until = pair.now + 8 * S;
        pair.cut(true);
        if by_caller { pair.caller_does(bye()) } else { pair.callee_does(bye()) }.unwrap();
        pair.run(12 * S);
        let (local, far) = (EndedBy::Local, EndedBy::Far);
        let (at_caller, at_callee) = if by_caller { (local, far) } else { (far, local) };
        assert_eq!(pair.caller.end(), (Cause::NORMAL_CALL_CLEARING, at_caller));
        assert_eq!(pair.callee().end(), (Cause::NORMAL_CALL_CLEARING, at_callee));
        assert!(pair.finished());
    }
}

#[test]
fn a_stranger_cannot_take_a_call_over() {
    let mut pair = Pair::active(4);
    let now = pair.now;
    let resume = |call, token, received| Frame { sequence: 0, body: Body::Resume { call, token, received } };
    let call = invite().call;
    for bad in [
        resume(call, token(6), 1),
        resume(CallId::from_bytes([1; 16]), token(5), 1),
        resume(call, token(5), 1_000),
        Frame { sequence: 0, body: Body::Ping },
    ] {
        assert_eq!(pair.callee().session.reattach(now, &bad), Err(ResumeError::Refused));
    }
    assert_eq!(pair.caller.session.reattach(now, &resume(call, token(5), 1)), Err(ResumeError::NotCallee));
    assert_eq!(pair.caller.session.resume(now), Err(ResumeError::NotLost));
    assert_eq!(pair.callee().session.resume(now), Err(ResumeError::NotCaller));
}

#[test]
fn a_quiet_call_is_pinged_and_a_dead_stream_is_noticed() {
    let mut pair = Pair::active(5);
    pair.run(60 * 60 * S);
    assert_eq!(pair.caller.session.state(), SessionState::Active);
    assert!(pair.callee().session.counters().frames_in >= 10);
    // The stream swallows everything: the ping goes unanswered, the caller asks for another one.
    let mut alone = Pair::active(6);
    let now = alone.now;
    let session = &mut alone.caller.session;
    session.handle_timeout(now + 300 * S);
    assert!(session.poll_transmit().is_some());
    session.handle_timeout(now + 310 * S);
    assert!(session.wants_resume());
    assert_eq!(session.poll_timeout(), Some(now + 310 * S + SessionTimers::default().resume));
}

#[test]
fn requests_wait_in_a_bounded_queue() {
    let mut pair = Pair::active(7);
    let now = pair.now;
    let message = || SessionCommand::Message { text: "m".into() };
    let taken = (0..200).take_while(|_| pair.caller.session.handle_command(now, message()).is_ok()).count();
    assert_eq!(taken, 64);
    assert_eq!(pair.caller.session.handle_command(now, message()), Err(CommandError::Congested));
    assert_eq!(pair.caller.session.handle_command(now, bye()), Ok(()), "an end is always taken");
}

#[test]
fn only_an_invite_opens_a_call() {
    let now = Instant::now();
    let first = Frame { sequence: 1, body: Body::Ping };
    let error = CallSession::incoming(first, SessionTimers::default(), now).unwrap_err();
    assert_eq!(error, FrameError::NotAnInvite);
    let mut long = invite();
    long.certificate = vec![0; MAX_CERTIFICATE + 1];
    let error = CallSession::outgoing(long, token(1), SessionTimers::default(), now).unwrap_err();
    assert_eq!(error, CommandError::Invalid(FrameError::FieldTooLong("certificate")));
}

/// Somebody waits for an answer: a device that is silent is noticed within seconds, one that answers
/// the pings may ring for as long as it likes.
#[test]
fn a_device_that_dies_while_it_rings_is_noticed_within_seconds() {
    let mut pair = fresh();
    pair.callee_does(SessionCommand::Ringing).unwrap();
    pair.run(100 * S);
    assert_eq!(pair.caller.session.state(), SessionState::Ringing);
    assert!(pair.callee().session.counters().frames_in > 40, "asked every two seconds");

    let mut alone = fresh();
    alone.callee_does(SessionCommand::Ringing).unwrap();
    alone.run_ms(100);
    let (begin, session) = (alone.now, &mut alone.caller.session);
    while !session.wants_resume() {
        let next = session.poll_timeout().unwrap();
        assert!(next <= begin + 5 * S, "not noticed {:?} later", next - begin);
        session.handle_timeout(next);
        while session.poll_transmit().is_some() {}
    }
    // Where another waits in its place it is given up at once, or soon.
    let lost = session.poll_timeout().unwrap();
    session.resume_by(begin + 5 * S);
    assert!(session.poll_timeout().unwrap() <= begin + 5 * S && lost > begin + 5 * S);
    session.give_up();
    assert!(session.has_ended());
    let end = std::iter::from_fn(|| session.poll_event()).last();
    assert!(matches!(end, Some(SessionEvent::Ended { by: EndedBy::Lost, .. })), "{end:?}");
}

#[test]
fn an_answered_call_is_given_up_for_no_other() {
    let mut pair = Pair::active(8);
    pair.no_network_until = pair.now + 60 * S;
    pair.cut(true);
    let session = &mut pair.caller.session;
    assert!(session.wants_resume());
    session.resume_by(pair.now);
    session.give_up();
    session.handle_timeout(pair.now);
    assert!(session.wants_resume() && !session.has_ended());
}

#[test]
fn a_refer_is_passed_on_where_that_is_wished_and_once_the_call_is_answered() {
    let mut pair = Pair::active(9);
    let session =
        std::mem::replace(&mut pair.callee().session, Pair::new(1, SessionTimers::default()).caller.session);
    pair.callee().session = session.taking_refer(true);
    let target: call_model::Address = "carol".parse().unwrap();
    pair.caller_does(SessionCommand::Refer { target: target.clone() }).unwrap();
    pair.run_ms(100);
    assert_eq!(pair.callee().events.last(), Some(&SessionEvent::Refer { target: target.clone() }));
    assert!(!pair.caller.events.contains(&SessionEvent::NotSupported { request: "refer" }));
    assert_eq!(pair.caller.session.state(), SessionState::Active, "the call goes on until somebody ends it");
}
