//! Random commands at random times over a stream that is lost at random: whatever happens, both
//! sides come to an end, once, and for reasons that fit together.

use std::time::Duration;

use call_model::{Cause, DtmfDigit};

use super::Random;
use super::pair::Pair;
use crate::calling::*;

fn random_command(random: &mut Random) -> SessionCommand {
    let text = String::new();
    match random.below(17) {
        0 => SessionCommand::Trying,
        1 | 2 => SessionCommand::Ringing,
        3 => SessionCommand::Progress { media: "early".into() },
        4..=6 => SessionCommand::Answer { media: "answer".into() },
        7 | 8 => SessionCommand::MediaUp,
        9 => SessionCommand::Hold { on: random.below(2) == 0 },
        10 => SessionCommand::Dtmf { digit: DtmfDigit::from_event(3).unwrap(), duration_ms: 100 },
        11 => SessionCommand::Message { text: "hello".into() },
        16 => SessionCommand::Connected { party: call_model::Caller::default() },
        12 => SessionCommand::Refer { target: "carol".parse().unwrap() },
        13 if random.below(4) == 0 => {
            SessionCommand::Reject { cause: Cause::USER_BUSY, sip_status: Some(486), text }
        }
        14 if random.below(4) == 0 => SessionCommand::Bye { cause: Cause::NORMAL_UNSPECIFIED, text },
        15 if random.below(4) == 0 => SessionCommand::Cancel { answered_elsewhere: random.below(2) == 0 },
        _ => SessionCommand::Candidate { candidate: "candidate".into() },
    }
}

fn play(seed: u64) -> &'static str {
    let mut random = Random(seed);
    let mut pair = Pair::new(seed, SessionTimers::default().with_ringing(Duration::from_secs(60)));
    for _ in 0..random.below(40) {
        let longest = if random.below(4) == 0 { 9_000 } else { 60 };
        pair.run_ms(random.below(longest));
        match random.below(20) {
            0 => {
                let outage = if random.below(3) == 0 { 30_000 } else { 3_000 };
                pair.no_network_until = pair.now + Duration::from_millis(random.below(outage));
                pair.cut(random.below(2) == 0);
            }
            1..=8 => drop(pair.caller_does(random_command(&mut random))),
            _ if pair.callee.is_some() => drop(pair.callee_does(random_command(&mut random))),
            _ => {}
        }
    }
    // Whoever still lives hangs up.
    let bye = SessionCommand::Bye { cause: Cause::NORMAL_CALL_CLEARING, text: String::new() };
    if random.below(2) == 0 || pair.callee.is_none() {
        let _ = pair.caller_does(bye);
    } else {
        let _ = pair.callee_does(bye);
    }
    // A callee that did not notice the loss finds out by the next ping, five minutes later.
    pair.run(Duration::from_secs(400));
    assert!(pair.finished(), "seed {seed}: {:?}", pair.caller.session);

    let (caller_cause, caller_by) = pair.caller.end();
    if pair.callee.is_none() {
        return "unreached";
    }
    let (callee_cause, callee_by) = pair.callee().end();
    match (caller_by, callee_by) {
        (EndedBy::Far, EndedBy::Far) => panic!("seed {seed}: nobody ended it"),
        (EndedBy::Far, _) => assert_eq!(caller_cause, callee_cause, "seed {seed}"),
        (_, EndedBy::Far) => {
            let cancelled = [Cause::NORMAL_CALL_CLEARING, Cause::NON_SELECTED_USER_CLEARING];
            let fits = callee_cause == caller_cause || cancelled.contains(&callee_cause);
            assert!(fits, "seed {seed}: {caller_cause:?} {callee_cause:?}");
        }
        _ => {}
    }
    let told = |events: &[SessionEvent]| {
        events.iter().filter(|e| matches!(e, SessionEvent::Answered { .. })).count()
    };
    assert!(told(&pair.caller.events) <= 1, "seed {seed}: answered twice");
    match (caller_by, callee_by) {
        (EndedBy::Far, _) | (_, EndedBy::Far) => "told",
        (EndedBy::Lost, _) | (_, EndedBy::Lost) => "lost",
        _ => "crossed",
    }
}

#[test]
fn both_sides_always_end_once_and_for_fitting_reasons() {
    let mut seen = std::collections::BTreeMap::new();
    for seed in 0..4_000 {
        let outcome = std::panic::catch_unwind(|| play(seed));
        *seen.entry(outcome.unwrap_or_else(|_| panic!("failed with seed {seed}"))).or_insert(0) += 1;
    }
    for outcome in ["told", "lost", "crossed"] {
        assert!(seen.get(outcome).is_some_and(|n| *n > 20), "{outcome} was hardly tried: {seen:?}");
    }
}
