//! Vectors with bytes changed, cut, doubled and moved: no panic, no hang, bounded state.

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::odd::{Responder, SDP, TYPE, invite};
use crate::rig::{Family, Rig, config};
use crate::{RFC4475, RFC5118};

const CASES: u32 = 2_000;

/// What is done to a message at a place.
fn mutate(bytes: &mut Vec<u8>, kind: u8, at: usize, byte: u8) {
    if bytes.is_empty() {
        return;
    }
    let at = at % bytes.len();
    let end = (at + 1 + usize::from(byte) / 16).min(bytes.len());
    // What spoils a whole message comes seldom, or little would be read beyond its first line.
    match kind % 32 {
        0..=11 => bytes[at] = byte,
        12..=19 => bytes.insert(at, byte),
        20..=23 => drop(bytes.drain(at..end)),
        24..=27 => {
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        28 => bytes.truncate(at),
        29 => bytes.rotate_left(at),
        _ => {
            let mut lines: Vec<&[u8]> = bytes.split_inclusive(|&b| b == b'\n').collect();
            let (a, b) = (at % lines.len(), usize::from(byte) % lines.len());
            lines.swap(a, b);
            *bytes = lines.concat();
        }
    }
}

fn runner(cases: u32) -> TestRunner {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

/// Each edit: its kind, its place, a byte.
fn edits() -> impl Strategy<Value = Vec<(u8, usize, u8)>> {
    prop::collection::vec((any::<u8>(), any::<usize>(), any::<u8>()), 1..6)
}

/// 2,000 cases from a fixed seed, each to an endpoint of its own and to one with little room.
#[test]
fn a16_mutated_torture_messages_leave_bounded_state() {
    let mut small = config();
    small.limits.transactions = 20;
    small.limits.transactions_per_source = 10;
    small.limits.calls = 5;
    let small = RefCell::new(Rig::with(Family::V4, small));
    let total = RFC4475.len() + RFC5118.len();
    let outcome = runner(CASES).run(&(0..total, edits()), |(index, edits)| {
        let vector = RFC4475.iter().chain(RFC5118).nth(index).unwrap();
        let mut bytes = vector.bytes.to_vec();
        for (kind, at, byte) in edits {
            mutate(&mut bytes, kind, at, byte);
        }
        let mut rig = Rig::new(vector.family);
        prop_assert!(rig.hear(&bytes).len() <= 2);
        rig.answer_all();
        rig.stream(&bytes, 100);
        rig.rest();
        let mut small = small.borrow_mut();
        small.hear(&bytes);
        let counters = small.endpoint.counters();
        // A quarter more for what ends calls.
        prop_assert!(counters.server_transactions <= 25 && counters.open_calls <= 5, "{counters:?}");
        Ok(())
    });
    outcome.unwrap();
    let mut small = small.borrow_mut();
    small.rest();
}

/// The same with responses to a call of ours: whatever they say, the call can be ended.
#[test]
fn a16_mutated_responses_leave_nothing() {
    let lines =
        ["100 Trying", "180 Ringing", "183 Session Progress", "200 OK", "401 No", "486 Busy", "503 No"];
    let outcome = runner(CASES / 2).run(&(0..lines.len(), edits()), |(index, edits)| {
        let mut rig = Rig::new(Family::V4);
        let to = Responder(rig.place());
        let body = if matches!(index, 2 | 3) { SDP } else { "" };
        let more = format!("{TYPE}Session-Expires: 90;refresher=uas\r\nRecord-Route: <sip:10.0.0.2;lr>\r\n");
        let mut bytes = to.response(lines[index], ";tag=x", &more, body).into_bytes();
        for (kind, at, byte) in edits {
            mutate(&mut bytes, kind, at, byte);
        }
        prop_assert!(rig.hear(&bytes).len() <= 2);
        rig.hang_up();
        rig.rest();
        Ok(())
    });
    outcome.unwrap();
}

/// The same with requests in the dialog of an answered call.
#[test]
fn a16_mutated_requests_within_a_dialog_leave_nothing() {
    let methods = ["ACK", "INVITE", "UPDATE", "INFO", "PRACK", "OPTIONS", "BYE", "NOTIFY"];
    let outcome = runner(CASES / 2).run(&(0..methods.len(), edits()), |(index, edits)| {
        let mut rig = Rig::new(Family::V4);
        rig.hear(invite().as_bytes());
        let ok = rig.answer_all().remove(0);
        let to = ok.split("\r\n").find(|l| l.starts_with("To: ")).unwrap();
        let within = |method: &str, cseq: u32| {
            let text = invite().replace("INVITE", method).replace("To: <sip:+442079460018@10.0.0.1>", to);
            text.replace("z9hG4bKodd", &format!("z9hG4bK{cseq}{method}"))
                .replace("CSeq: 7", &format!("CSeq: {cseq}"))
        };
        let method = methods[index];
        if method != "ACK" {
            rig.hear(within("ACK", 7).as_bytes());
        }
        let mut bytes = within(method, if method == "ACK" { 7 } else { 8 }).into_bytes();
        for (kind, at, byte) in edits {
            mutate(&mut bytes, kind, at, byte);
        }
        prop_assert!(rig.hear(&bytes).len() <= 2);
        for call in rig.calls() {
            let cause = call_model::Cause::NORMAL_CALL_CLEARING;
            let _ = rig.endpoint.handle_command(rig.now, sip_trunk::Command::Release { call, cause });
        }
        rig.rest();
        Ok(())
    });
    outcome.unwrap();
}
