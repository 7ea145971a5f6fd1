//! The switch through its public verbs, in virtual time.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use call_model::{
    Address, CallId, Caller, Cause, Codec, Direction, DtmfDigit, Gate, Handle, Impairment, LegMedia,
    LegQuality, MediaSecurity, Number, Outcome, Rating, Side, TrunkName, Verdict,
};
use p2p_edge::calling::{EndedBy, SessionCommand, SessionEvent};
use p2p_edge::node::{CallerRole, NodeCommand, NodeEvent, VerifiedCaller};
use sip_trunk::trunk::numbers::NumberRules;
use sip_trunk::{Command, Event, Transport};
use transcoder::leg::rtp::SourceRule;

use super::*;
use crate::config::{Emergency, Limits, Policy, Route, Trunk};

mod band;
mod details;
mod digits;
mod ends;
mod numbers;
mod redirect;
mod successor;
mod transit;

const NUMBER: &str = "+442079460018";
/// Where trunks signal from.
const SIGNALLING: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 10));

fn rtp() -> SocketAddr {
    "127.0.0.1:20000".parse().unwrap()
}

fn trunk(name: &str, max_calls: usize) -> Trunk {
    Trunk {
        name: name.parse().unwrap(),
        transport: Transport::Udp,
        target: "127.0.0.10:5060".parse().unwrap(),
        destination: None,
        backups: Vec::new(),
        target_timeout: Duration::from_secs(8),
        failover_limit: Duration::from_secs(40),
        max_call_rate: None,
        overload_control: false,
        host: "127.0.0.10".into(),
        contact_host: None,
        sources: Vec::new(),
        credentials: None,
        codecs: vec![Codec::Pcma],
        packet_time_ms: 20,
        options_interval: None,
        max_calls,
        ring_timeout: Duration::from_secs(60),
        numbers: NumberRules::default(),
        trusted: false,
        identity: Default::default(),
        tolerance: Default::default(),
        large_requests: Default::default(),
        listener: None,
        tls: None,
        account: None,
        registration: None,
        profile: None,
        reliable_provisional: None,
        delayed_offer: false,
        retry_statuses: vec![408, 503, 504],
        default_caller: Some("+15559999".parse().unwrap()),
        hairpin: false,
        portability: None,
        trunk_group: None,
        interconnect: None,
        quality_reports: None,
        nat: false,
        sessions: Default::default(),
    }
}

struct Bench {
    switch: Switch,
    now: Instant,
    actions: Vec<Action>,
    next: u128,
}

impl Bench {
    fn new(change: impl FnOnce(&mut SwitchConfig)) -> Self {
        let name = |name: &str| name.parse::<TrunkName>().unwrap();
        let mut config = SwitchConfig {
            trunks: vec![trunk("first", 10), trunk("second", 10)],
            routes: vec![Route {
                index: 0,
                prefix: "44".into(),
                trunks: vec![name("first"), name("second")],
                from: Vec::new(),
            }],
            numbers: HashMap::from([("+15551000".parse().unwrap(), "alice".parse().unwrap())]),
            policy: Policy { deny_prefixes: vec!["44900".into()], ..Policy::default() },
            limits: Limits { calls: 5, calls_per_user: 2, history: 3, drain: Duration::ZERO },
            emergency: Emergency::default(),
            tell_quality: false,
        };
        change(&mut config);
        let now = Instant::now();
        Self { switch: Switch::new(config, now, 1_000_000), now, actions: Vec::new(), next: 1 }
    }

    fn drain(&mut self) {
        while let Some(action) = self.switch.poll_action() {
            self.actions.push(action);
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    fn overlay(&mut self, call: CallId, event: SessionEvent) {
        self.switch.handle_overlay(self.now, NodeEvent::Call { call, event });
        self.drain();
    }

    fn sip(&mut self, event: Event) {
        self.switch.handle_sip(self.now, event);
        self.drain();
    }

    fn media(&mut self, event: MediaEvent) {
        self.switch.handle_media(self.now, event);
        self.drain();
    }

    fn id(&mut self) -> CallId {
        // Far enough from each other for the ids of second legs.
        self.next += 16;
        CallId::new(1, self.next)
    }

    /// A call from the overlay as far as the gates let it come.
    fn overlay_calls(&mut self, handle: Option<&str>, to: &str) -> CallId {
        let call = self.id();
        let handle: Option<Handle> = handle.map(|handle| handle.parse().unwrap());
        let from = VerifiedCaller {
            caller: Caller { address: handle.clone().map(Address::Handle), ..Caller::default() },
            handle,
            numbers: Vec::new(),
            role: CallerRole::User,
            peer: "peer".into(),
        };
        let (to, media) = (to.parse().unwrap(), "offer".to_owned());
        self.switch.handle_overlay(self.now, NodeEvent::Incoming { call, from, to, media });
        self.drain();
        call
    }

    fn opened(&mut self, call: CallId) {
        self.media(MediaEvent::Opened { call, trunk_rtp: rtp(), overlay_sdp: "sdp".into() });
    }

    /// A call from a trunk as far as the gates let it come.
    fn trunk_calls(&mut self, to: &str) -> CallId {
        let call = self.id();
        let called = to.parse::<Address>().ok();
        let (trunk, source) = ("first".parse().unwrap(), "127.0.0.10:5060".parse().unwrap());
        let caller = Caller { address: Some("+15550001".parse().unwrap()), ..Caller::default() };
        self.sip(Event::Incoming {
            call,
            trunk,
            called_user: to.into(),
            called,
            caller,
            source,
            has_offer: true,
            details: Arc::default(),
        });
        call
    }

    fn sip_ended(&mut self, call: CallId, status: Option<u16>, cause: Cause, by: sip_trunk::EndedBy) {
        self.sip(Event::Ended { call, cause, status, text: "text".into(), by });
    }

    fn overlay_ended(&mut self, call: CallId, cause: Cause) {
        let event = SessionEvent::Ended { cause, sip_status: None, text: String::new(), by: EndedBy::Far };
        self.overlay(call, event);
    }

    fn invites(&self) -> Vec<(String, Option<Address>)> {
        let invite = |action: &Action| match action {
            Action::Sip(Command::InviteWith { trunk, caller, .. }) => {
                Some((trunk.to_string(), caller.address.clone()))
            }
            _ => None,
        };
        self.actions.iter().filter_map(invite).collect()
    }

    fn told_overlay(&self) -> Vec<&SessionCommand> {
        let told = |action| match action {
            &Action::Overlay(NodeCommand::Call { ref command, .. }) => Some(command),
            _ => None,
        };
        self.actions.iter().filter_map(told).collect()
    }

    fn released_on_trunk(&self) -> Vec<Cause> {
        let released = |action: &Action| match action {
            Action::Sip(Command::Release { cause, .. }) => Some(*cause),
            _ => None,
        };
        self.actions.iter().filter_map(released).collect()
    }

    fn ended(&self) -> Vec<(Outcome, Cause)> {
        let ended = |action: &Action| match action {
            Action::Ended { outcome, cause, .. } => Some((*outcome, *cause)),
            _ => None,
        };
        self.actions.iter().filter_map(ended).collect()
    }

    fn refusal(&self, call: CallId) -> (Gate, String) {
        let record = self.switch.record(call).unwrap();
        let refused = record.decisions.iter().find(|step| step.verdict == Verdict::Refuse).unwrap();
        (refused.gate, refused.rule.to_string())
    }
}

fn leg_media(direction: Direction) -> LegMedia {
    LegMedia {
        codec: Codec::Pcma,
        send_payload_type: 8,
        receive_payload_type: 8,
        also_receives: Vec::new(),
        telephone_event: None,
        comfort_noise: false,
        packet_time_ms: 20,
        remote_rtp: "127.0.0.10:30000".parse().unwrap(),
        remote_rtcp: None,
        direction,
        security: MediaSecurity::None,
    }
}

fn answered_outgoing(bench: &mut Bench) -> CallId {
    let call = bench.overlay_calls(Some("alice"), NUMBER);
    bench.opened(call);
    bench.sip(Event::Ringing { call });
    bench.sip(Event::Media {
        call,
        media: leg_media(Direction::SendRecv),
        early: false,
        signalling: SIGNALLING,
    });
    bench.sip(Event::Answered { call });
    call
}

#[test]
fn an_overlay_user_reaches_a_number() {
    let mut bench = Bench::new(|_| {});
    let call = bench.overlay_calls(Some("alice"), NUMBER);
    assert!(matches!(bench.told_overlay()[..], [SessionCommand::Trying]));
    let offer = "offer".to_owned();
    let open = MediaCommand::Open { call, overlay_offer: Some(offer), playback_rate: 8_000 };
    assert!(bench.actions.iter().any(|action| matches!(action, Action::Media(command) if *command == open)));
    assert!(bench.invites().is_empty(), "no INVITE goes out before there is a port for its media");
    bench.opened(call);
    let shown = Some("+15559999".parse().unwrap());
    assert_eq!(bench.invites(), [("first".to_owned(), shown)]);
    bench.pass(100);
    bench.sip(Event::Ringing { call });
    bench.pass(900);
    bench.sip(Event::Media {
        call,
        media: leg_media(Direction::SendRecv),
        early: false,
        signalling: SIGNALLING,
    });
    bench.sip(Event::Answered { call });
    bench.media(MediaEvent::OverlayConnected { call });
    let answer = SessionCommand::Answer { media: "sdp".into() };
    let told: Vec<SessionCommand> = bench.told_overlay().into_iter().cloned().collect();
    assert_eq!(told, [SessionCommand::Trying, SessionCommand::Ringing, answer, SessionCommand::MediaUp]);
    bench.pass(5_000);
    bench.overlay_ended(call, Cause::NORMAL_CALL_CLEARING);
    assert_eq!(bench.released_on_trunk(), [Cause::NORMAL_CALL_CLEARING]);
    assert!(bench.ended().is_empty(), "the trunk has not confirmed yet");
    bench.sip_ended(call, None, Cause::NORMAL_CALL_CLEARING, sip_trunk::EndedBy::Local);
    assert_eq!(bench.ended(), [(Outcome::Success, Cause::NORMAL_CALL_CLEARING)]);
    assert_eq!(bench.switch.live(), 0);
    let record = bench.switch.record(call).unwrap();
    assert_eq!(record.alerted, Some(Duration::from_millis(100)));
    assert_eq!(record.answered, Some(Duration::from_secs(1)));
    assert_eq!(record.ended, Some(Duration::from_secs(6)));
    assert_eq!(record.released_by, Some(ReleasedBy::Overlay));
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
    let closed = |action: &&Action| matches!(action, Action::Media(MediaCommand::Close { .. }));
    assert_eq!(bench.actions.iter().filter(closed).count(), 1);
}

// RFC 3960 3.2.
#[test]
fn c04_early_media_comes_before_the_answer_once_and_a_180_after_it_changes_nothing() {
    let mut bench = Bench::new(|_| {});
    let call = bench.overlay_calls(Some("alice"), NUMBER);
    bench.opened(call);
    for _ in 0..2 {
        bench.sip(Event::Media {
            call,
            media: leg_media(Direction::SendRecv),
            early: true,
            signalling: SIGNALLING,
        });
    }
    // RFC 3960 3.2: a 180 that follows does not take the early media away.
    bench.sip(Event::Ringing { call });
    bench.sip(Event::Answered { call });
    let told: Vec<SessionCommand> = bench.told_overlay().into_iter().cloned().collect();
    let media = "sdp".to_owned();
    let expected = [
        SessionCommand::Trying,
        SessionCommand::Progress { media: media.clone() },
        SessionCommand::Answer { media },
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_number_reaches_its_overlay_user() {
    let mut bench = Bench::new(|_| {});
    let call = bench.trunk_calls("+15551000");
    bench.opened(call);
    let invited = bench.actions.iter().find_map(|action| match action {
        Action::Overlay(NodeCommand::Invite { to, media, from, .. }) => Some((to, media, from)),
        _ => None,
    });
    let (to, media, from) = invited.unwrap();
    assert_eq!((to.to_string().as_str(), media.as_str()), ("alice", "sdp"));
    assert_eq!(from.address, Some("+15550001".parse().unwrap()), "the user is shown who calls");
    bench.overlay(call, SessionEvent::Ringing);
    bench.overlay(call, SessionEvent::Progress { media: "answer".into() });
    bench.overlay(call, SessionEvent::Answered { media: "answer".into() });
    let sip = |action: &Action| match action {
        Action::Sip(Command::Ringing { .. }) => Some("ringing"),
        Action::Sip(Command::Progress { .. }) => Some("progress"),
        Action::Sip(Command::Answer { .. }) => Some("answer"),
        Action::Media(MediaCommand::OverlayAnswer { .. }) => Some("apply"),
        _ => None,
    };
    let order: Vec<&str> = bench.actions.iter().filter_map(sip).collect();
    assert_eq!(order, ["ringing", "apply", "progress", "answer"], "the overlay's answer is applied once");
    bench.sip_ended(call, None, Cause::NORMAL_CALL_CLEARING, sip_trunk::EndedBy::Far);
    let bye = SessionCommand::Bye { cause: Cause::NORMAL_CALL_CLEARING, text: String::new() };
    assert_eq!(bench.told_overlay().last(), Some(&&bye));
    bench.overlay_ended(call, Cause::NORMAL_CALL_CLEARING);
    assert_eq!(bench.switch.record(call).unwrap().released_by, Some(ReleasedBy::Trunk));
    assert_eq!(bench.ended(), [(Outcome::Success, Cause::NORMAL_CALL_CLEARING)]);
}

#[test]
fn a_busy_user_is_busy_on_the_trunk() {
    let mut bench = Bench::new(|_| {});
    let call = bench.trunk_calls("+15551000");
    bench.opened(call);
    bench.overlay_ended(call, Cause::USER_BUSY);
    assert_eq!(bench.released_on_trunk(), [Cause::USER_BUSY]);
    bench.sip_ended(call, Some(486), Cause::USER_BUSY, sip_trunk::EndedBy::Local);
    assert_eq!(bench.ended(), [(Outcome::Upstream, Cause::USER_BUSY)]);
}

#[test]
fn each_gate_refuses_with_its_own_cause_and_rule() {
    let mut bench = Bench::new(|_| {});
    let anonymous = bench.overlay_calls(None, NUMBER);
    assert_eq!(bench.refusal(anonymous), (Gate::Identity, "overlay.certificate".into()));
    let denied = bench.overlay_calls(Some("alice"), "+449001234");
    assert_eq!(bench.refusal(denied), (Gate::Policy, "policy.deny_prefixes".into()));
    let unrouted = bench.overlay_calls(Some("alice"), "+3912345");
    assert_eq!(bench.refusal(unrouted), (Gate::Route, "routes".into()));
    let user = bench.overlay_calls(Some("alice"), "bob");
    assert_eq!(bench.refusal(user), (Gate::Route, "routes".into()));
    let unserved = bench.trunk_calls("+15552222");
    assert_eq!(bench.refusal(unserved), (Gate::Route, "numbers".into()));
    let meaningless = bench.trunk_calls("???");
    assert_eq!(bench.refusal(meaningless), (Gate::Normalisation, "numbers".into()));
    let rejected: Vec<Cause> = bench
        .told_overlay()
        .into_iter()
        .filter_map(|command| match command {
            SessionCommand::Reject { cause, .. } => Some(*cause),
            _ => None,
        })
        .collect();
    let no_route = Cause::NO_ROUTE_TO_DESTINATION;
    assert_eq!(rejected, [Cause::CALL_REJECTED, Cause::CALL_REJECTED, no_route, no_route]);
    assert_eq!(bench.released_on_trunk(), [Cause::UNALLOCATED_NUMBER, Cause::INVALID_NUMBER_FORMAT]);
    assert!(bench.invites().is_empty());
}

#[test]
fn the_next_trunk_is_tried_only_where_nobody_answered() {
    for (status, cause, tried) in [
        (None, Cause::RECOVERY_ON_TIMER_EXPIRY, 2),
        (Some(408), Cause::NO_USER_RESPONDING, 2),
        (Some(503), Cause::TEMPORARY_FAILURE, 2),
        (Some(486), Cause::USER_BUSY, 1),
        (Some(404), Cause::UNALLOCATED_NUMBER, 1),
        (Some(603), Cause::CALL_REJECTED, 1),
    ] {
        let mut bench = Bench::new(|_| {});
        let call = bench.overlay_calls(Some("alice"), NUMBER);
        bench.opened(call);
        bench.sip_ended(call, status, cause, sip_trunk::EndedBy::Far);
        let trunks: Vec<String> = bench.invites().into_iter().map(|(trunk, _)| trunk).collect();
        assert_eq!(trunks, ["first", "second"][..tried], "{status:?}");
        if tried == 1 {
            let refused = bench.told_overlay().last().copied().cloned();
            let expected = SessionCommand::Reject { cause, sip_status: status, text: String::new() };
            assert_eq!(refused, Some(expected), "the user hears the far side's own cause");
        }
    }
}

#[test]
fn a_trunk_that_never_spoke_leaves_the_outcome_open() {
    let mut bench = Bench::new(|config| config.trunks.truncate(1));
    let call = bench.overlay_calls(Some("alice"), NUMBER);
    bench.opened(call);
    let cause = Cause::RECOVERY_ON_TIMER_EXPIRY;
    for _ in 0..2 {
        bench.sip_ended(call, None, cause, sip_trunk::EndedBy::Timeout);
    }
    bench.overlay_ended(call, cause);
    assert_eq!(bench.ended(), [(Outcome::Indeterminate, cause)]);
}

#[test]
fn a_trunk_that_rang_is_not_left_for_another() {
    let mut bench = Bench::new(|_| {});
    let call = bench.overlay_calls(Some("alice"), NUMBER);
    bench.opened(call);
    bench.sip(Event::Ringing { call });
    bench.sip_ended(call, Some(503), Cause::TEMPORARY_FAILURE, sip_trunk::EndedBy::Far);
    assert_eq!(bench.invites().len(), 1);
}

#[test]
fn a_trunk_that_is_down_is_tried_last() {
    let mut bench = Bench::new(|_| {});
    let first: TrunkName = "first".parse().unwrap();
    bench.sip(Event::TrunkHealth { trunk: first.clone(), up: false, detail: "no answer".into() });
    let call = bench.overlay_calls(Some("alice"), NUMBER);
    bench.opened(call);
    assert_eq!(bench.invites()[0].0, "second");
    assert_eq!(bench.switch.trunk_health(&first), Some((false, "no answer")));
    bench.sip(Event::TrunkHealth { trunk: first, up: true, detail: "200 OK".into() });
    let call = bench.overlay_calls(Some("alice"), NUMBER);
    bench.opened(call);
    assert_eq!(bench.invites()[1].0, "first");
}

#[test]
fn limits_hold_and_are_given_back() {
    let mut bench = Bench::new(|_| {});
    let calls: Vec<CallId> = (0..2).map(|_| bench.overlay_calls(Some("alice"), NUMBER)).collect();
    let third = bench.overlay_calls(Some("alice"), NUMBER);
    assert_eq!(bench.refusal(third), (Gate::Admission, "limits.calls_per_user".into()));
    let from_trunk = bench.trunk_calls("+15551000");
    assert_eq!(bench.refusal(from_trunk), (Gate::Admission, "limits.calls_per_user".into()));
    assert_eq!(bench.released_on_trunk(), [Cause::USER_BUSY]);
    for call in [calls[0], calls[1], third] {
        bench.overlay_ended(call, Cause::NORMAL_CALL_CLEARING);
    }
    bench.sip_ended(from_trunk, Some(486), Cause::USER_BUSY, sip_trunk::EndedBy::Local);
    assert_eq!(bench.switch.live(), 0);
    for user in ["a", "b", "c", "d", "e"] {
        bench.overlay_calls(Some(user), NUMBER);
    }
    let sixth = bench.overlay_calls(Some("f"), NUMBER);
    assert_eq!(bench.refusal(sixth), (Gate::Admission, "limits.calls".into()));
}

#[test]
fn a_full_trunk_leaves_its_calls_to_the_next() {
    let mut bench = Bench::new(|config| config.trunks[0].max_calls = 1);
    for _ in 0..2 {
        let call = bench.overlay_calls(Some("alice"), NUMBER);
        bench.opened(call);
    }
    let trunks: Vec<String> = bench.invites().into_iter().map(|(trunk, _)| trunk).collect();
    assert_eq!(trunks, ["first", "second"]);
}

#[test]
fn draining_refuses_new_calls_and_lets_live_ones_run() {
    let mut bench = Bench::new(|_| {});
    let live = answered_outgoing(&mut bench);
    bench.switch.drain(true);
    bench.drain();
    let refused = bench.overlay_calls(Some("bob"), NUMBER);
    assert_eq!(bench.refusal(refused), (Gate::Admission, "drain".into()));
    assert_eq!(bench.switch.record(live).unwrap().phase, Phase::Active);
    bench.switch.hang_up_all(bench.now, Cause::NORMAL_UNSPECIFIED);
    bench.drain();
    let bye = SessionCommand::Bye { cause: Cause::NORMAL_UNSPECIFIED, text: String::new() };
    assert!(bench.told_overlay().contains(&&bye));
    assert_eq!(bench.released_on_trunk(), [Cause::NORMAL_UNSPECIFIED]);
}

#[test]
fn hold_and_digits_cross_over() {
    let mut bench = Bench::new(|_| {});
    let call = answered_outgoing(&mut bench);
    bench.sip(Event::Media {
        call,
        media: leg_media(Direction::RecvOnly),
        early: false,
        signalling: SIGNALLING,
    });
    bench.sip(Event::Media {
        call,
        media: leg_media(Direction::RecvOnly),
        early: false,
        signalling: SIGNALLING,
    });
    bench.sip(Event::Media {
        call,
        media: leg_media(Direction::SendRecv),
        early: false,
        signalling: SIGNALLING,
    });
    let holds: Vec<bool> = bench
        .told_overlay()
        .into_iter()
        .filter_map(|command| match command {
            SessionCommand::Hold { on } => Some(*on),
            _ => None,
        })
        .collect();
    assert_eq!(holds, [true, false], "an unchanged hold is not told twice");
    bench.overlay(call, SessionEvent::Hold { on: true });
    assert!(bench.actions.iter().any(|action| matches!(action, Action::Sip(Command::Hold { on: true, .. }))));
    let digit = DtmfDigit::from_char('7').unwrap();
    for forwarded in [true, false] {
        bench.media(MediaEvent::Dtmf { call, side: Side::Trunk, digit, duration_ms: 100, forwarded });
    }
    let digits = |command: &&&SessionCommand| matches!(command, SessionCommand::Dtmf { .. });
    assert_eq!(
        bench.told_overlay().iter().filter(digits).count(),
        1,
        "a digit that went in media is not repeated"
    );
    bench.overlay(call, SessionEvent::Dtmf { digit, duration_ms: 100 });
    let send = MediaCommand::SendDtmf { call, side: Side::Trunk, digit, duration_ms: 100 };
    assert!(bench.actions.iter().any(|action| matches!(action, Action::Media(command) if *command == send)));
    assert_eq!(bench.switch.record(call).unwrap().dtmf_digits, 3);
}

#[test]
fn what_the_media_cannot_do_ends_the_call() {
    let mut bench = Bench::new(|_| {});
    let call = bench.overlay_calls(Some("alice"), NUMBER);
    let (cause, detail) = (Cause::NO_CIRCUIT_AVAILABLE, "no free trunk port".to_owned());
    bench.media(MediaEvent::Refused { call, cause, detail });
    assert!(
        bench
            .told_overlay()
            .iter()
            .any(|told| matches!(told, SessionCommand::Reject { cause: c, .. } if *c == cause))
    );
    let call = answered_outgoing(&mut bench);
    bench.media(MediaEvent::Silent { call, side: Side::Overlay });
    assert_eq!(bench.released_on_trunk(), [Cause::RECOVERY_ON_TIMER_EXPIRY]);
    let mut bench = Bench::new(|_| {});
    let call = answered_outgoing(&mut bench);
    bench.media(MediaEvent::OverlayFailed { call, detail: "DTLS".into() });
    assert_eq!(bench.released_on_trunk(), [Cause::TEMPORARY_FAILURE]);
    let mut bench = Bench::new(|_| {});
    let call = answered_outgoing(&mut bench);
    bench.media(MediaEvent::TrunkFailed { call, side: Side::Onward, detail: "fingerprint".into() });
    assert!(bench.released_on_trunk().is_empty(), "no leg of this call");
    bench.media(MediaEvent::TrunkFailed { call, side: Side::Trunk, detail: "fingerprint".into() });
    assert_eq!(bench.released_on_trunk(), [Cause::TEMPORARY_FAILURE]);
}

#[test]
fn silence_before_the_answer_is_no_fault() {
    let mut bench = Bench::new(|_| {});
    let call = bench.overlay_calls(Some("alice"), NUMBER);
    bench.opened(call);
    bench.media(MediaEvent::Silent { call, side: Side::Trunk });
    assert!(bench.released_on_trunk().is_empty());
}

#[test]
fn ports_opened_for_a_call_that_is_gone_are_closed() {
    let mut bench = Bench::new(|_| {});
    let call = bench.overlay_calls(Some("alice"), NUMBER);
    bench.overlay_ended(call, Cause::NORMAL_CALL_CLEARING);
    bench.opened(call);
    let close = MediaCommand::Close { call };
    assert!(bench.actions.iter().any(|action| matches!(action, Action::Media(command) if *command == close)));
    assert!(bench.invites().is_empty());
}

#[test]
fn a_leg_that_never_confirms_is_dropped_after_the_guard() {
    let mut bench = Bench::new(|_| {});
    let call = answered_outgoing(&mut bench);
    bench.overlay_ended(call, Cause::NORMAL_CALL_CLEARING);
    assert_eq!(bench.switch.live(), 1);
    assert_eq!(bench.switch.poll_timeout(), Some(bench.now + RELEASE_GUARD));
    bench.now += RELEASE_GUARD;
    bench.switch.handle_timeout(bench.now);
    bench.drain();
    assert_eq!(bench.switch.live(), 0);
    assert_eq!(bench.ended(), [(Outcome::Success, Cause::NORMAL_CALL_CLEARING)]);
}

#[test]
fn the_history_is_bounded_and_takes_late_figures() {
    let mut bench = Bench::new(|_| {});
    let mut calls = Vec::new();
    for _ in 0..5 {
        let call = bench.overlay_calls(Some("alice"), "+3912345");
        bench.overlay_ended(call, Cause::NO_ROUTE_TO_DESTINATION);
        calls.push(call);
    }
    let kept: Vec<CallId> = bench.switch.finished_records().map(|record| record.id).collect();
    assert_eq!(kept, [calls[4], calls[3], calls[2]]);
    let overlay = LegQuality { packets_received: 9, ..LegQuality::default() };
    let (trunk, onward) = (LegQuality::default(), LegQuality::default());
    let rating = Rating { r_factor: 70.0, mos: 3.6, cause: Some(Impairment::NetworkLoss) };
    let whole = WholeCall { to_trunk: Some(rating), ..WholeCall::default() };
    bench.media(MediaEvent::Quality { call: calls[4], overlay, trunk, onward, whole, last: true });
    assert_eq!(bench.switch.record(calls[4]).unwrap().whole, whole);
    assert_eq!(bench.switch.record(calls[4]).unwrap().overlay_quality.packets_received, 9);
}

#[test]
fn a_test_of_the_routes_decides_as_a_call_would() {
    let mut bench = Bench::new(|_| {});
    let alice = Origin::Overlay { handle: Some("alice".parse().unwrap()) };
    for number in [NUMBER, "+449001", "+391", "+4"] {
        let Ok(number) = number.parse::<Number>() else { continue };
        let to = Address::Number(number.clone());
        let tested = bench.switch.evaluate(&alice, number.as_str(), Some(&to));
        let call = bench.overlay_calls(Some("alice"), number.as_str());
        let real = &bench.switch.record(call).unwrap().decisions;
        assert_eq!(tested.decisions[..], real[..tested.decisions.len()]);
        bench.overlay_ended(call, Cause::NORMAL_CALL_CLEARING);
    }
}

#[test]
fn crossing_ends_leave_one_record() {
    let mut bench = Bench::new(|_| {});
    let call = answered_outgoing(&mut bench);
    bench.overlay_ended(call, Cause::NORMAL_CALL_CLEARING);
    bench.sip_ended(call, None, Cause::USER_BUSY, sip_trunk::EndedBy::Far);
    bench.overlay_ended(call, Cause::USER_BUSY);
    assert_eq!(bench.ended(), [(Outcome::Success, Cause::NORMAL_CALL_CLEARING)], "the first cause stays");
}

#[test]
fn the_ladder_begins_with_the_invite_and_goes_on_after_the_end() {
    use call_model::{Actor, Exchange, Protocol};
    let mut bench = Bench::new(|_| {});
    let call = bench.overlay_calls(Some("alice"), NUMBER);
    let of = |from, to, protocol, label: &str| Exchange { from, to, protocol, label: label.into() };
    let overlay =
        |label| SessionEvent::Exchange(of(Actor::Overlay, Actor::Gateway, Protocol::Overlay, label));
    bench.overlay(call, overlay("invite"));
    let exchange = of(Actor::Gateway, Actor::Trunk, Protocol::Sip, "INVITE (SDP)");
    bench.sip(Event::Exchange { call, exchange });
    bench.overlay_ended(call, Cause::NORMAL_CALL_CLEARING);
    assert_eq!(bench.switch.live(), 0);
    bench.overlay(call, overlay("bye"));
    let record = bench.switch.record(call).unwrap();
    let labels: Vec<&str> = record.exchanges.iter().map(|(_, exchange)| &*exchange.label).collect();
    assert_eq!(labels, ["invite", "INVITE (SDP)", "bye"]);
}
