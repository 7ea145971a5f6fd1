//! Calls from one trunk to another.

use std::sync::Arc;

use super::*;

mod fax;

const FAR: &str = "+442079460018";

/// A bench whose route is open to calls from both trunks.
fn transit() -> Bench {
    Bench::new(|config| {
        config.routes[0].from = vec!["first".parse().unwrap(), "second".parse().unwrap()];
    })
}

fn onward_rtp() -> SocketAddr {
    "127.0.0.1:20002".parse().unwrap()
}

impl Bench {
    fn relay_opened(&mut self, call: CallId) {
        self.media(MediaEvent::RelayOpened { call, trunk_rtp: rtp(), onward_rtp: onward_rtp() });
    }

    /// The id of the second leg of the last call that was placed.
    fn placed(&self) -> (CallId, String) {
        let invite = |action: &Action| match action {
            Action::Sip(Command::InviteWith { call, trunk, .. }) => Some((*call, trunk.to_string())),
            _ => None,
        };
        self.actions.iter().rev().find_map(invite).unwrap()
    }

    /// What the SIP endpoint was told, of which leg.
    fn told_sip(&self) -> Vec<(CallId, &'static str)> {
        let told = |action: &Action| match action {
            Action::Sip(Command::Ringing { call }) => Some((*call, "ringing")),
            Action::Sip(Command::Progress { call, .. }) => Some((*call, "progress")),
            Action::Sip(Command::Answer { call, .. }) => Some((*call, "answer")),
            Action::Sip(Command::Release { call, .. }) => Some((*call, "release")),
            Action::Sip(Command::Reject { call, .. }) => Some((*call, "reject")),
            Action::Sip(Command::Probe { call }) => Some((*call, "probe")),
            Action::Sip(Command::Hold { call, on: true }) => Some((*call, "hold")),
            Action::Sip(Command::Hold { call, on: false }) => Some((*call, "resume")),
            _ => None,
        };
        self.actions.iter().filter_map(told).collect()
    }

    fn rejected(&self) -> Vec<(u16, Cause)> {
        let rejected = |action: &Action| match action {
            Action::Sip(Command::Reject { status, cause, .. }) => Some((*status, *cause)),
            _ => None,
        };
        self.actions.iter().filter_map(rejected).collect()
    }

    fn answered_transit(&mut self) -> (CallId, CallId) {
        let call = self.trunk_calls(FAR);
        self.relay_opened(call);
        let (onward, _) = self.placed();
        self.sip(Event::Media {
            call: onward,
            media: leg_media(Direction::SendRecv),
            early: false,
            signalling: SIGNALLING,
        });
        self.sip(Event::Answered { call: onward });
        self.sip(Event::Media {
            call,
            media: leg_media(Direction::SendRecv),
            early: false,
            signalling: SIGNALLING,
        });
        self.actions.clear();
        (call, onward)
    }
}

#[test]
fn a_call_goes_from_one_trunk_to_another_and_never_back_out_by_its_own() {
    let mut bench = transit();
    let call = bench.trunk_calls(FAR);
    let open = MediaCommand::OpenRelay { call };
    assert!(bench.actions.iter().any(|action| matches!(action, Action::Media(command) if *command == open)));
    bench.relay_opened(call);
    let (onward, trunk) = bench.placed();
    assert_eq!(trunk, "second", "the route begins with the trunk that the call came by");
    assert_ne!(onward, call);
    let (first, second) = ("first".parse().unwrap(), "second".parse().unwrap());
    assert_eq!((bench.switch.calls_on(&first), bench.switch.calls_on(&second)), (1, 1));
    bench.pass(100);
    bench.sip(Event::Ringing { call: onward });
    bench.pass(900);
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
    assert_eq!(bench.told_sip(), [(call, "ringing"), (call, "answer")]);
    let sides: Vec<Side> = bench
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::Media(MediaCommand::TrunkMedia { call: of, side, .. }) if *of == call => Some(*side),
            _ => None,
        })
        .collect();
    assert_eq!(sides, [Side::Onward, Side::Trunk]);
    bench.pass(2_000);
    bench.sip_ended(onward, None, Cause::NORMAL_CALL_CLEARING, sip_trunk::EndedBy::Far);
    assert_eq!(bench.told_sip().last(), Some(&(call, "release")));
    bench.sip_ended(call, None, Cause::NORMAL_CALL_CLEARING, sip_trunk::EndedBy::Local);
    assert_eq!(bench.ended(), [(Outcome::Success, Cause::NORMAL_CALL_CLEARING)]);
    let record = bench.switch.record(call).unwrap();
    assert_eq!(record.direction, RouteDirection::TrunkToTrunk);
    assert_eq!((&record.trunk, &record.onward), (&Some(first.clone()), &Some(second.clone())));
    assert_eq!(record.alerted, Some(Duration::from_millis(100)));
    assert_eq!(record.released_by, Some(ReleasedBy::Onward));
    assert_eq!((record.trunk_codec, record.onward_codec), (Some(Codec::Pcma), Some(Codec::Pcma)));
    let gates: Vec<Gate> = record.decisions.iter().map(|step| step.gate).collect();
    let order = [
        Gate::Identity,
        Gate::Normalisation,
        Gate::Policy,
        Gate::Credit,
        Gate::Admission,
        Gate::Route,
        Gate::Codec,
        Gate::FarAnswer,
    ];
    assert_eq!(gates, order);
    let said = record.decisions.iter().find(|step| step.gate == Gate::Codec).unwrap();
    assert_eq!(&*said.detail, "PCMA on either trunk");
    assert_eq!((bench.switch.calls_on(&first), bench.switch.calls_on(&second)), (0, 0));
    assert!(bench.told_overlay().is_empty());
}

#[test]
fn a_trunk_reaches_another_only_where_a_route_is_open_to_it() {
    let mut bench = Bench::new(|config| config.routes[0].from = vec!["second".parse().unwrap()]);
    let call = bench.trunk_calls(FAR);
    assert_eq!(bench.refusal(call), (Gate::Route, "numbers".into()));
    assert_eq!(bench.released_on_trunk(), [Cause::UNALLOCATED_NUMBER]);
    assert!(bench.switch.record(call).unwrap().summary().contains("routes[0] is not open"));
    // A number of ours stays with its user, whatever the routes say.
    let mut bench = Bench::new(|config| {
        config.routes[0].prefix = String::new();
        config.routes[0].from = vec!["first".parse().unwrap()];
    });
    let call = bench.trunk_calls("+15551000");
    bench.opened(call);
    assert_eq!(bench.switch.record(call).unwrap().direction, RouteDirection::TrunkToOverlay);
}

#[test]
fn the_gates_are_those_of_any_other_call() {
    let mut bench = transit();
    let denied = bench.trunk_calls("+449001234");
    assert_eq!(bench.refusal(denied), (Gate::Policy, "policy.deny_prefixes".into()));
    let mut bench = transit();
    bench.switch.drain(true);
    let drained = bench.trunk_calls(FAR);
    assert_eq!(bench.refusal(drained), (Gate::Admission, "drain".into()));
    let mut bench = Bench::new(|config| {
        config.routes[0].from = vec!["first".parse().unwrap()];
        config.trunks[1].max_calls = 1;
    });
    let call = bench.trunk_calls(FAR);
    bench.relay_opened(call);
    let origin = Origin::Trunk { name: "first".parse().unwrap() };
    let to: Address = "+4420".parse().unwrap();
    let tested = bench.switch.evaluate(&origin, "+4420", Some(&to)).decisions;
    let full = bench.trunk_calls("+4420");
    assert_eq!(bench.refusal(full), (Gate::Route, "routes[0]".into()));
    let real = &bench.switch.record(full).unwrap().decisions;
    assert_eq!(tested[..], real[..tested.len()], "a test of the routes decides as a call would");
}

#[test]
fn the_next_trunk_is_tried_and_the_callees_word_goes_back() {
    let third = |config: &mut SwitchConfig| {
        config.trunks.push(trunk("third", 10));
        config.routes[0].trunks.push("third".parse().unwrap());
        config.routes[0].from = vec!["first".parse().unwrap()];
    };
    let mut bench = Bench::new(third);
    let call = bench.trunk_calls(FAR);
    bench.relay_opened(call);
    let (onward, _) = bench.placed();
    bench.sip_ended(onward, Some(503), Cause::TEMPORARY_FAILURE, sip_trunk::EndedBy::Far);
    assert_eq!(bench.placed(), (onward, "third".to_owned()));
    let second: TrunkName = "second".parse().unwrap();
    assert_eq!(bench.switch.calls_on(&second), 0);
    bench.sip_ended(onward, Some(480), Cause::NO_USER_RESPONDING, sip_trunk::EndedBy::Far);
    assert_eq!(bench.rejected(), [(480, Cause::NO_USER_RESPONDING)], "480 is not made into 408");
    bench.sip_ended(call, Some(480), Cause::NO_USER_RESPONDING, sip_trunk::EndedBy::Local);
    assert_eq!(bench.ended(), [(Outcome::Upstream, Cause::NO_USER_RESPONDING)]);
    // What is said of the way there is not for the caller: only its cause is.
    let mut bench = Bench::new(third);
    let call = bench.trunk_calls(FAR);
    bench.relay_opened(call);
    let (onward, _) = bench.placed();
    bench.sip_ended(onward, Some(401), Cause::CALL_REJECTED, sip_trunk::EndedBy::Far);
    assert!(bench.rejected().is_empty());
    assert_eq!(bench.released_on_trunk(), [Cause::CALL_REJECTED]);
}

#[test]
fn a_caller_who_gives_up_cancels_the_other_leg() {
    let mut bench = transit();
    let call = bench.trunk_calls(FAR);
    bench.relay_opened(call);
    let (onward, _) = bench.placed();
    bench.sip(Event::Ringing { call: onward });
    bench.sip_ended(call, Some(487), Cause::NORMAL_CALL_CLEARING, sip_trunk::EndedBy::Far);
    assert_eq!(bench.told_sip().last(), Some(&(onward, "release")));
    bench.sip_ended(onward, None, Cause::NORMAL_CALL_CLEARING, sip_trunk::EndedBy::Local);
    assert_eq!(bench.ended(), [(Outcome::Client, Cause::NORMAL_CALL_CLEARING)]);
    assert_eq!(bench.switch.record(call).unwrap().released_by, Some(ReleasedBy::Trunk));
    // What comes late of the second leg still finds the ladder, under its own name.
    use call_model::{Actor, Exchange, Protocol};
    let exchange = |label: &str| Exchange {
        from: Actor::Trunk,
        to: Actor::Gateway,
        protocol: Protocol::Sip,
        label: label.into(),
    };
    bench.sip(Event::Exchange { call: onward, exchange: exchange("487") });
    bench.sip(Event::Exchange { call, exchange: exchange("ACK") });
    let record = bench.switch.record(call).unwrap();
    let last: Vec<Actor> = record.exchanges.iter().map(|(_, exchange)| exchange.from).collect();
    assert_eq!(last, [Actor::Onward, Actor::Trunk]);
}

#[test]
fn early_media_crosses_once_and_waits_for_its_first_packet_after_a_180() {
    let mut bench = transit();
    let call = bench.trunk_calls(FAR);
    bench.relay_opened(call);
    let (onward, _) = bench.placed();
    for _ in 0..2 {
        bench.sip(Event::Media {
            call: onward,
            media: leg_media(Direction::SendRecv),
            early: true,
            signalling: SIGNALLING,
        });
    }
    bench.sip(Event::Ringing { call: onward });
    assert_eq!(bench.told_sip(), [(call, "progress")]);
    let mut bench = transit();
    let call = bench.trunk_calls(FAR);
    bench.relay_opened(call);
    let (onward, _) = bench.placed();
    bench.sip(Event::Ringing { call: onward });
    bench.sip(Event::Media {
        call: onward,
        media: leg_media(Direction::SendRecv),
        early: true,
        signalling: SIGNALLING,
    });
    assert_eq!(bench.told_sip(), [(call, "ringing")]);
    bench.media(MediaEvent::FirstPacket { call, side: Side::Trunk });
    assert_eq!(bench.told_sip(), [(call, "ringing")], "the caller's own packets say nothing");
    bench.media(MediaEvent::FirstPacket { call, side: Side::Onward });
    assert_eq!(bench.told_sip(), [(call, "ringing"), (call, "progress")]);
}

// RFC 3264 8.4.
#[test]
fn hold_crosses_and_a_trunk_that_is_held_by_inactive_does_not_hold_back() {
    let mut bench = transit();
    let (call, onward) = bench.answered_transit();
    let media = |call, direction| Event::Media {
        call,
        media: leg_media(direction),
        early: false,
        signalling: SIGNALLING,
    };
    bench.sip(media(call, Direction::RecvOnly));
    bench.sip(media(onward, Direction::Inactive));
    bench.sip(media(call, Direction::SendRecv));
    bench.sip(media(onward, Direction::SendRecv));
    bench.sip(media(onward, Direction::RecvOnly));
    assert_eq!(bench.told_sip(), [(onward, "hold"), (onward, "resume"), (call, "hold")]);
}

#[test]
fn digits_cross_between_trunks() {
    let mut bench = transit();
    let (call, onward) = bench.answered_transit();
    let digit = DtmfDigit::from_char('7').unwrap();
    bench.sip(Event::Dtmf { call: onward, digit, duration_ms: 100 });
    bench.sip(Event::Dtmf { call, digit, duration_ms: 100 });
    let sides: Vec<Side> = bench
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::Media(MediaCommand::SendDtmf { side, .. }) => Some(*side),
            _ => None,
        })
        .collect();
    assert_eq!(sides, [Side::Trunk, Side::Onward]);
    // Another press of the key, and not the same by another way.
    bench.pass(3_000);
    bench.media(MediaEvent::Dtmf { call, side: Side::Trunk, digit, duration_ms: 100, forwarded: true });
    assert_eq!(bench.switch.record(call).unwrap().dtmf_digits, 3);
}

// RFC 3261 21.4.20.
#[test]
fn g08_a_number_that_comes_back_from_the_trunk_it_was_sent_to_is_a_loop() {
    // first -> second -> first: the second trunk knows nobody but us either.
    let mut bench = transit();
    let call = bench.trunk_calls(FAR);
    bench.relay_opened(call);
    let back = bench.id();
    let incoming = |call, trunk: &str, details: sip_trunk::CallDetails| Event::Incoming {
        call,
        trunk: trunk.parse().unwrap(),
        called_user: FAR.into(),
        called: FAR.parse().ok(),
        caller: Caller::default(),
        source: rtp(),
        has_offer: true,
        details: Arc::new(details),
    };
    bench.sip(incoming(back, "second", sip_trunk::CallDetails::default()));
    assert_eq!(bench.refusal(back), (Gate::Route, "loop".into()));
    assert_eq!(bench.rejected(), [(482, Cause::EXCHANGE_ROUTING_ERROR)]);
    // Out of the overlay and back, for a number that nobody has.
    let mut bench = Bench::new(|config| config.routes[0].trunks.truncate(1));
    let call = bench.overlay_calls(Some("alice"), FAR);
    bench.opened(call);
    let back = bench.trunk_calls(FAR);
    assert_eq!(bench.refusal(back), (Gate::Route, "loop".into()));
    assert_eq!(bench.rejected(), [(482, Cause::EXCHANGE_ROUTING_ERROR)]);
    // Once it is answered, a second call for the number is a call like any other.
    bench.sip(Event::Answered { call });
    let second = bench.trunk_calls(FAR);
    assert_eq!(bench.refusal(second), (Gate::Route, "numbers".into()));
    // A route that leads nowhere but back.
    let mut bench = Bench::new(|config| {
        config.routes[0].trunks.truncate(1);
        config.routes[0].from = vec!["first".parse().unwrap()];
    });
    let back = bench.trunk_calls(FAR);
    assert_eq!(bench.refusal(back), (Gate::Route, "routes[0]".into()));
    assert_eq!(bench.rejected(), [(482, Cause::EXCHANGE_ROUTING_ERROR)]);
    // RFC 5806 4.2: diverted from the number that it is for.
    let mut bench = transit();
    let call = bench.id();
    let mut details = sip_trunk::CallDetails::default();
    details.diversions.push(details::diverted_from(FAR));
    bench.sip(incoming(call, "first", details));
    assert_eq!(bench.refusal(call), (Gate::Route, "loop".into()));
}

#[test]
fn a_trunk_may_get_its_call_back_where_it_is_allowed_to() {
    let mut bench = Bench::new(|config| {
        config.trunks[0].hairpin = true;
        config.routes[0].from = vec!["first".parse().unwrap()];
    });
    let call = bench.trunk_calls(FAR);
    bench.relay_opened(call);
    let first: TrunkName = "first".parse().unwrap();
    assert_eq!((bench.placed().1.as_str(), bench.switch.calls_on(&first)), ("first", 2));
}

// RFC 3261 12.2.1.2, RFC 3326.
#[test]
fn d20_a_silent_trunk_is_asked_before_the_call_is_ended() {
    let mut bench = transit();
    let (call, onward) = bench.answered_transit();
    bench.media(MediaEvent::Silent { call, side: Side::Onward });
    assert_eq!(bench.told_sip(), [(onward, "probe")]);
    bench.sip(Event::Alive { call: onward });
    let due = bench.switch.poll_timeout().unwrap();
    assert_eq!(due, bench.now + Duration::from_secs(10));
    bench.now = due;
    bench.switch.handle_timeout(bench.now);
    bench.drain();
    let expiry = Cause::RECOVERY_ON_TIMER_EXPIRY;
    assert_eq!(bench.released_on_trunk(), [expiry, expiry], "both legs end, with the reason");
    // Nobody is there: the endpoint ends its leg, and so does the switch the other.
    let mut bench = transit();
    let (call, onward) = bench.answered_transit();
    bench.media(MediaEvent::Silent { call, side: Side::Onward });
    bench.sip_ended(onward, None, expiry, sip_trunk::EndedBy::Timeout);
    assert_eq!(bench.told_sip(), [(onward, "probe"), (call, "release")]);
    // Somebody is, and is heard again.
    let mut bench = Bench::new(|_| {});
    let call = answered_outgoing(&mut bench);
    bench.actions.clear();
    for _ in 0..2 {
        bench.media(MediaEvent::Silent { call, side: Side::Trunk });
        bench.sip(Event::Alive { call });
        let heard = bench.switch.record(call).unwrap().trunk_quality.packets_received + 1;
        let trunk = LegQuality { packets_received: heard, ..LegQuality::default() };
        let (overlay, onward) = (LegQuality::default(), LegQuality::default());
        let whole = WholeCall::default();
        bench.media(MediaEvent::Quality { call, overlay, trunk, onward, whole, last: false });
        assert_eq!(bench.switch.poll_timeout(), None);
    }
    assert_eq!(bench.told_sip(), [(call, "probe"), (call, "probe")]);
}

#[test]
fn a_second_leg_has_an_id_that_no_other_call_has() {
    let mut bench = transit();
    let call = bench.trunk_calls(FAR);
    bench.relay_opened(call);
    let (onward, _) = bench.placed();
    // Overlay users choose the ids of their calls.
    let from = VerifiedCaller {
        caller: Caller::default(),
        handle: "mallory".parse().ok(),
        numbers: Vec::new(),
        role: CallerRole::User,
        peer: "peer".into(),
    };
    let (to, media) = (NUMBER.parse().unwrap(), "offer".to_owned());
    bench.switch.handle_overlay(bench.now, NodeEvent::Incoming { call: onward, from, to, media });
    bench.drain();
    assert_eq!(bench.switch.live(), 1);
    bench.sip(Event::Ringing { call: onward });
    assert_eq!(bench.told_sip(), [(call, "ringing")]);
}
