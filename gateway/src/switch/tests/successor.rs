//! Transfers that a trunk asks for, and calls that take the place of others.

use sip_trunk::{Referral, Replaces, TransferRequest};

use super::*;

const TARGET: &str = "+442070000000";
const BY: &str = "sip:200@127.0.0.10";

fn request(target: &str) -> TransferRequest {
    TransferRequest {
        target: target.parse().ok(),
        target_user: target.into(),
        target_uri: format!("sip:{target}@127.0.0.10"),
        replaces: None,
        replaced: None,
        referred_by: Some(BY.into()),
        reports: true,
    }
}

fn replaces() -> Replaces {
    Replaces { call_id: "c".into(), to_tag: "1".into(), from_tag: "2".into(), early_only: false }
}

impl Bench {
    fn asks(&mut self, call: CallId, request: TransferRequest) {
        self.sip(Event::TransferRequested { call, request: Box::new(request) });
    }

    /// What the SIP endpoint was told since the last time, in short.
    fn told(&mut self) -> Vec<String> {
        let told = std::mem::take(&mut self.actions).into_iter().filter_map(|action| match action {
            Action::Sip(Command::AcceptTransfer { .. }) => Some("accept".to_owned()),
            Action::Sip(Command::RefuseTransfer { status, .. }) => Some(format!("refuse {status}")),
            Action::Sip(Command::ReportTransfer { status, .. }) => Some(format!("report {status}")),
            Action::Sip(Command::InviteWith { trunk, .. }) => Some(format!("invite {trunk}")),
            Action::Sip(Command::Release { .. }) => Some("release".to_owned()),
            Action::Sip(Command::Answer { .. }) => Some("answer".to_owned()),
            Action::Sip(Command::Reject { status, .. }) => Some(format!("reject {status}")),
            Action::Sip(Command::Hold { on, .. }) => Some(format!("hold {on}")),
            Action::Overlay(NodeCommand::Call { command, .. }) => {
                Some(format!("{command:?}").split_whitespace().next().unwrap_or_default().to_owned())
            }
            Action::Media(MediaCommand::TrunkMedia { media, .. }) => {
                Some(format!("media {}", media.remote_rtp))
            }
            _ => None,
        });
        told.collect()
    }

    fn placed_with(&self) -> (CallId, Caller, Referral) {
        let invite = |action: &Action| match action {
            Action::Sip(Command::InviteWith { call, caller, details, .. }) => {
                Some((*call, caller.clone(), details.referral.as_deref().cloned().unwrap()))
            }
            _ => None,
        };
        self.actions.iter().rev().find_map(invite).unwrap()
    }

    fn calls_on(&self, trunk: &str) -> usize {
        self.switch.calls_on(&trunk.parse().unwrap())
    }
}

fn target_media() -> LegMedia {
    LegMedia { remote_rtp: "127.0.0.10:40000".parse().unwrap(), ..leg_media(Direction::SendRecv) }
}

// RFC 3515 2.4.4, RFC 5589 6.1: the transferee stays, the target takes the place of who transferred,
// and hears of them (RFC 3892).
#[test]
fn d12_a_blind_transfer_calls_the_target_and_puts_the_user_through() {
    let mut bench = Bench::new(|_| {});
    let call = answered_outgoing(&mut bench);
    // Who transfers often holds first.
    bench.sip(Event::Media {
        call,
        media: leg_media(Direction::RecvOnly),
        early: false,
        signalling: SIGNALLING,
    });
    bench.actions.clear();
    bench.asks(call, request(TARGET));
    let (target, caller, referral) = bench.placed_with();
    assert_ne!(target, call);
    assert_eq!(caller.address, Some("+15559999".parse().unwrap()), "the user calls, as the trunk is told");
    assert_eq!(referral.referred_by.as_deref(), Some(BY));
    assert_eq!(referral.uri, Some(format!("sip:{TARGET}@127.0.0.10")));
    assert_eq!(bench.told(), ["accept", "invite first"]);
    assert_eq!(bench.calls_on("first"), 2);
    bench.sip(Event::Ringing { call: target });
    bench.sip(Event::Ringing { call: target });
    assert_eq!(bench.told(), ["report 180"]);
    bench.sip(Event::Media { call: target, media: target_media(), early: false, signalling: SIGNALLING });
    assert_eq!(bench.told(), [""; 0], "the one before is there until the answer");
    bench.sip(Event::Answered { call: target });
    assert_eq!(bench.told(), ["report 200", "release", "media 127.0.0.10:40000", "Hold", "Connected"]);
    assert_eq!((bench.calls_on("first"), bench.switch.live()), (1, 1));
    bench.sip_ended(call, None, Cause::NORMAL_CALL_CLEARING, sip_trunk::EndedBy::Local);
    assert_eq!(bench.switch.live(), 1, "who transferred is out of it");
    // The target can transfer on.
    bench.asks(target, request("+442070000009"));
    let (second, ..) = bench.placed_with();
    assert!(second != target && second != call);
    bench.sip_ended(second, Some(486), Cause::USER_BUSY, sip_trunk::EndedBy::Far);
    assert_eq!(bench.told(), ["accept", "invite first", "report 486"]);
    bench.sip_ended(target, None, Cause::NORMAL_CALL_CLEARING, sip_trunk::EndedBy::Far);
    assert_eq!(bench.told(), ["Bye"]);
    bench.overlay_ended(call, Cause::NORMAL_CALL_CLEARING);
    assert_eq!((bench.switch.live(), bench.calls_on("first")), (0, 0));
    assert!(bench.switch.onward.is_empty());
}

// RFC 5589 6.1: who transfers may leave as soon as it was accepted.
#[test]
fn d12_the_transferor_may_leave_early() {
    let mut bench = Bench::new(|config| config.routes[0].from = vec!["first".parse().unwrap()]);
    let call = answered_outgoing(&mut bench);
    bench.actions.clear();
    bench.asks(call, request(TARGET));
    let (target, ..) = bench.placed_with();
    bench.sip_ended(call, None, Cause::NORMAL_CALL_CLEARING, sip_trunk::EndedBy::Far);
    assert_eq!(bench.told(), ["accept", "invite first"], "the user waits for the target");
    // The first trunk has no room, and the route is open to it: the next is tried.
    bench.sip_ended(target, Some(503), Cause::NO_CIRCUIT_AVAILABLE, sip_trunk::EndedBy::Far);
    let (target, _, referral) = bench.placed_with();
    assert_eq!(referral.uri, None, "a name of one trunk means nothing on another");
    assert_eq!(bench.told(), ["invite second"]);
    bench.sip(Event::Answered { call: target });
    bench.sip(Event::Media { call: target, media: target_media(), early: false, signalling: SIGNALLING });
    assert_eq!(bench.told(), ["report 200", "media 127.0.0.10:40000", "Connected"]);
    assert_eq!((bench.calls_on("first"), bench.calls_on("second")), (0, 1));
    bench.overlay_ended(call, Cause::NORMAL_CALL_CLEARING);
    assert_eq!(bench.told(), ["release"]);
    bench.sip_ended(target, None, Cause::NORMAL_CALL_CLEARING, sip_trunk::EndedBy::Local);
    // Where nobody is reached, the user is told.
    let call = answered_outgoing(&mut bench);
    bench.asks(call, request(TARGET));
    let (target, ..) = bench.placed_with();
    bench.sip_ended(call, None, Cause::NORMAL_CALL_CLEARING, sip_trunk::EndedBy::Far);
    bench.actions.clear();
    bench.sip_ended(target, Some(486), Cause::USER_BUSY, sip_trunk::EndedBy::Far);
    assert_eq!(bench.told(), ["report 486", "Bye"]);
    bench.overlay_ended(call, Cause::USER_BUSY);
    assert_eq!(bench.switch.live(), 0);
    // A user who leaves takes the call to the target along.
    let call = answered_outgoing(&mut bench);
    bench.asks(call, request(TARGET));
    bench.actions.clear();
    bench.overlay_ended(call, Cause::NORMAL_CALL_CLEARING);
    assert_eq!(bench.told(), ["report 487", "release", "release"]);
}

// RFC 3261 21.6.2: a transfer that the gates refuse leaves the call as it is.
#[test]
fn d13_a_transfer_that_the_gates_refuse_harms_nothing() {
    for target in ["+449001234", "+33123456789", "+15551000", "nobody at all"] {
        let mut bench = Bench::new(|_| {});
        let call = answered_outgoing(&mut bench);
        bench.actions.clear();
        bench.asks(call, request(target));
        assert_eq!(bench.told(), ["refuse 603"], "{target}");
        let record = bench.switch.record(call).unwrap();
        assert_eq!((record.phase, record.decisions.last().unwrap().verdict), (Phase::Active, Verdict::Skip));
        assert_eq!(bench.calls_on("first"), 1);
    }
    let mut bench = Bench::new(|_| {});
    let call = answered_outgoing(&mut bench);
    bench.switch.drain(true);
    bench.drain();
    bench.actions.clear();
    bench.asks(call, request(TARGET));
    assert_eq!(bench.told(), ["refuse 603"], "no new calls while draining");
    // One at a time, and of answered calls only.
    bench.switch.drain(false);
    bench.asks(call, request(TARGET));
    bench.actions.clear();
    bench.asks(call, request(TARGET));
    let unknown = bench.id();
    bench.asks(unknown, request(TARGET));
    assert_eq!(bench.told(), ["refuse 603", "refuse 603"]);
}

// RFC 5589 7: the two parties of one consultation are joined, and who transfers leaves both calls.
#[test]
fn d14_an_attended_transfer_joins_the_two_far_sides() {
    let mut bench = Bench::new(|_| {});
    let first = answered_outgoing(&mut bench);
    bench.sip(Event::Media {
        call: first,
        media: leg_media(Direction::RecvOnly),
        early: false,
        signalling: SIGNALLING,
    });
    let second = bench.overlay_calls(Some("bob"), NUMBER);
    let other_rtp: SocketAddr = "127.0.0.1:20010".parse().unwrap();
    bench.media(MediaEvent::Opened { call: second, trunk_rtp: other_rtp, overlay_sdp: "sdp".into() });
    bench.sip(Event::Media {
        call: second,
        media: leg_media(Direction::SendRecv),
        early: false,
        signalling: SIGNALLING,
    });
    bench.sip(Event::Answered { call: second });
    bench.actions.clear();
    let attended = TransferRequest { replaces: Some(replaces()), replaced: Some(second), ..request(TARGET) };
    bench.asks(first, attended);
    let expected = [
        "accept",
        "media 127.0.0.1:20010",
        "Hold",
        "media 127.0.0.1:20000",
        "Connected",
        "Connected",
        "report 200",
        "release",
        "release",
    ];
    assert_eq!(bench.told(), expected, "each hears the other, and holds no more");
    assert_eq!(bench.calls_on("first"), 0);
    for call in [first, second] {
        bench.sip_ended(call, None, Cause::NORMAL_CALL_CLEARING, sip_trunk::EndedBy::Local);
    }
    assert_eq!((bench.switch.live(), bench.told()), (2, Vec::new()));
    // What one user does reaches the other.
    bench.overlay(first, SessionEvent::Hold { on: true });
    bench.media(MediaEvent::Silent { call: first, side: Side::Trunk });
    let held: Vec<CallId> = bench
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::Overlay(NodeCommand::Call { call, command: SessionCommand::Hold { on: true } }) => {
                Some(*call)
            }
            _ => None,
        })
        .collect();
    assert_eq!(held, [second]);
    bench.actions.clear();
    bench.overlay_ended(second, Cause::NORMAL_CALL_CLEARING);
    assert_eq!(bench.told(), ["Bye"], "the other call ends with it");
    bench.overlay_ended(first, Cause::NORMAL_CALL_CLEARING);
    assert_eq!(bench.switch.live(), 0);
}

// RFC 3891, RFC 5589 7: a dialog that is not ours is taken over by an INVITE with Replaces.
#[test]
fn d14_a_dialog_of_the_trunk_is_taken_over_by_invite_with_replaces() {
    let mut bench = Bench::new(|config| config.routes[0].from = vec!["first".parse().unwrap()]);
    let call = answered_outgoing(&mut bench);
    bench.actions.clear();
    bench.asks(call, TransferRequest { replaces: Some(replaces()), ..request(TARGET) });
    let (_, _, referral) = bench.placed_with();
    assert_eq!((referral.replaces, referral.referred_by.as_deref()), (Some(replaces()), Some(BY)));
    assert_eq!(referral.uri, Some(format!("sip:{TARGET}@127.0.0.10")));
    assert_eq!(bench.told(), ["accept", "invite first"]);
}

// RFC 3891 3.
#[test]
fn d15_an_invite_with_replaces_takes_over_an_answered_leg() {
    let mut bench = Bench::new(|_| {});
    let call = answered_outgoing(&mut bench);
    bench.actions.clear();
    let pickup = bench.id();
    let caller = Caller { address: Some("+442070000007".parse().unwrap()), ..Caller::default() };
    let replacing = |call, replaced, early| Event::Replacing {
        call,
        replaced,
        early,
        trunk: "first".parse().unwrap(),
        caller: caller.clone(),
        source: "127.0.0.10:5060".parse().unwrap(),
        has_offer: true,
    };
    bench.sip(replacing(pickup, call, false));
    assert_eq!(bench.told(), ["answer"]);
    let again = bench.id();
    bench.sip(replacing(again, call, false));
    assert_eq!(bench.told(), ["reject 603"], "one at a time");
    bench.sip(Event::Media { call: pickup, media: target_media(), early: false, signalling: SIGNALLING });
    assert_eq!(bench.told(), ["media 127.0.0.10:40000", "Connected"]);
    bench.sip_ended(call, None, Cause::NORMAL_CALL_CLEARING, sip_trunk::EndedBy::Local);
    assert_eq!((bench.switch.live(), bench.calls_on("first")), (1, 1));
    bench.sip_ended(pickup, None, Cause::NORMAL_CALL_CLEARING, sip_trunk::EndedBy::Far);
    assert_eq!(bench.told(), ["Bye"]);
    bench.overlay_ended(call, Cause::NORMAL_CALL_CLEARING);
    assert_eq!((bench.switch.live(), bench.calls_on("first")), (0, 0));
    // One that takes over and fails leaves the call as it is.
    let call = answered_outgoing(&mut bench);
    let pickup = bench.id();
    bench.sip(replacing(pickup, call, false));
    bench.actions.clear();
    bench.sip_ended(pickup, Some(488), Cause::INCOMPATIBLE_DESTINATION, sip_trunk::EndedBy::Local);
    assert_eq!((bench.told(), bench.calls_on("first")), (Vec::new(), 1));
    let unknown = bench.id();
    bench.sip(replacing(again, unknown, false));
    assert_eq!(bench.told(), ["reject 603"]);
}

// RFC 3891 3, 7.2: call pickup.
#[test]
fn d15_an_invite_with_replaces_picks_up_a_call_that_rings() {
    let mut bench = Bench::new(|_| {});
    let call = bench.overlay_calls(Some("alice"), NUMBER);
    bench.opened(call);
    bench.sip(Event::Ringing { call });
    bench.actions.clear();
    let pickup = bench.id();
    bench.sip(Event::Replacing {
        call: pickup,
        replaced: call,
        early: true,
        trunk: "first".parse().unwrap(),
        caller: Caller::default(),
        source: "127.0.0.10:5060".parse().unwrap(),
        has_offer: true,
    });
    // The endpoint cancels the one that rings.
    bench.sip_ended(call, Some(487), Cause::NORMAL_CALL_CLEARING, sip_trunk::EndedBy::Local);
    assert_eq!(bench.told(), ["answer"]);
    bench.sip(Event::Media { call: pickup, media: target_media(), early: false, signalling: SIGNALLING });
    let told = bench.told();
    assert_eq!(told[..2], ["media 127.0.0.10:40000", "Answer"]);
    assert_eq!(bench.switch.record(call).unwrap().phase, Phase::Active);
}

// The same between two trunks, whichever of them asks.
#[test]
fn d12_a_call_between_trunks_is_transferred_by_either() {
    for caller_asks in [true, false] {
        let mut bench = Bench::new(|config| {
            config.routes[0].from = vec!["first".parse().unwrap(), "second".parse().unwrap()];
        });
        let call = bench.trunk_calls(NUMBER);
        let rtp2 = "127.0.0.1:20002".parse().unwrap();
        bench.media(MediaEvent::RelayOpened { call, trunk_rtp: rtp(), onward_rtp: rtp2 });
        let onward = bench.actions.iter().rev().find_map(|action| match action {
            Action::Sip(Command::InviteWith { call, .. }) => Some(*call),
            _ => None,
        });
        let onward = onward.unwrap();
        bench.sip(Event::Media {
            call: onward,
            media: leg_media(Direction::SendRecv),
            early: false,
            signalling: SIGNALLING,
        });
        bench.sip(Event::Answered { call: onward });
        bench.sip(Event::Media {
            call,
            media: leg_media(Direction::SendRecv),
            early: false,
            signalling: SIGNALLING,
        });
        bench.actions.clear();
        let asking = if caller_asks { call } else { onward };
        bench.asks(asking, request(TARGET));
        let (target, caller, _) = bench.placed_with();
        let known = if caller_asks { NUMBER } else { "+15550001" };
        assert_eq!(caller.address, Some(known.parse().unwrap()), "who is put through calls");
        bench.sip(Event::Media { call: target, media: target_media(), early: false, signalling: SIGNALLING });
        bench.sip(Event::Answered { call: target });
        let side = if caller_asks { Side::Trunk } else { Side::Onward };
        let moved = |action: &Action| match action {
            Action::Media(MediaCommand::TrunkMedia { side: on, media, .. }) => {
                *on == side && *media == target_media()
            }
            _ => false,
        };
        assert!(bench.actions.iter().any(moved));
        bench.actions.clear();
        bench.sip_ended(asking, None, Cause::NORMAL_CALL_CLEARING, sip_trunk::EndedBy::Local);
        bench.sip_ended(target, None, Cause::NORMAL_CALL_CLEARING, sip_trunk::EndedBy::Far);
        assert_eq!(bench.told(), ["release"]);
        let left = if caller_asks { onward } else { call };
        bench.sip_ended(left, None, Cause::NORMAL_CALL_CLEARING, sip_trunk::EndedBy::Local);
        assert_eq!((bench.switch.live(), bench.calls_on("first"), bench.calls_on("second")), (0, 0, 0));
        assert!(bench.switch.onward.is_empty());
    }
}
