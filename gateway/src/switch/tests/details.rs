//! What a call carries beside who calls whom, emergency calls, and what is told of a party.

use std::sync::Arc;

use sip_trunk::CallDetails;
use sip_trunk::trunk::details::ChargingVector;
use sip_trunk::trunk::diversion::{Diversion, DiversionReason};
use sip_trunk::trunk::emergency::{EmergencyCall, EmergencyService};
use sip_trunk::trunk::location::{Location, Point};
use sip_trunk::trunk::parameters::TrunkGroup;

use super::*;

const FAR: &str = "+442079460018";

pub(super) fn diverted_from(number: &str) -> Diversion {
    let reason = DiversionReason::Unknown;
    Diversion { number: number.parse().ok(), reason, counter: 1, privacy: false }
}

fn from_trunk(bench: &mut Bench, details: CallDetails) -> CallId {
    let call = bench.id();
    bench.sip(Event::Incoming {
        call,
        trunk: "first".parse().unwrap(),
        called_user: FAR.into(),
        called: FAR.parse().ok(),
        caller: Caller::default(),
        source: rtp(),
        has_offer: true,
        details: Arc::new(details),
    });
    bench.media(MediaEvent::RelayOpened { call, trunk_rtp: rtp(), onward_rtp: rtp() });
    call
}

fn placed(bench: &Bench) -> (String, CallDetails) {
    let invite = |action: &Action| match action {
        Action::Sip(Command::InviteWith { trunk, details, .. }) => {
            Some((trunk.to_string(), CallDetails::clone(details)))
        }
        _ => None,
    };
    bench.actions.iter().rev().find_map(invite).unwrap()
}

fn open(config: &mut SwitchConfig) {
    config.routes[0].from = vec!["first".parse().unwrap()];
}

// RFC 4694, RFC 4904, RFC 7044 and RFC 5806, RFC 4412, RFC 7315: the endpoint decides whom it tells.
#[test]
fn e09_e10_e11_e18_e20_details_go_from_one_trunk_to_the_other_and_nowhere_else() {
    let mut details = CallDetails { max_forwards: Some(7), ..CallDetails::default() };
    details.parameters.dipped = true;
    details.parameters.routing_number = Some("+442079460000".into());
    details.parameters.carrier = Some("+441".into());
    details.originating_group = TrunkGroup::new("in", "example.com");
    details.diversions.push(diverted_from("+15550007"));
    details.priorities.push("ets.0".into());
    let charging = ChargingVector { icid: "1234".into(), ..ChargingVector::default() };
    details.charging = Some(Box::new(charging));
    details.connected = Some(Caller::default());
    let mut bench = Bench::new(open);
    from_trunk(&mut bench, details.clone());
    let expected = CallDetails { connected: None, ..details };
    assert_eq!(placed(&bench), ("second".to_owned(), expected));
    let call = bench.overlay_calls(Some("alice"), NUMBER);
    bench.opened(call);
    assert_eq!(placed(&bench).1, CallDetails::default(), "an overlay user's word has no such weight");
}

// RFC 4904 5.
#[test]
fn e10_a_trunk_group_in_the_request_uri_names_the_way_out() {
    let groups = |config: &mut SwitchConfig| {
        open(config);
        config.trunks.push(trunk("third", 10));
        config.routes[0].trunks.push("third".parse().unwrap());
        let form = sip_trunk::trunk::GroupForm::Contact;
        config.trunks[2].trunk_group = TrunkGroup::new("north", "example.com").map(|group| (group, form));
    };
    for (label, expected) in [("north", "third"), ("south", "second")] {
        let mut bench = Bench::new(groups);
        let mut details = CallDetails::default();
        details.parameters.trunk_group = TrunkGroup::new(label, "example.com");
        from_trunk(&mut bench, details);
        assert_eq!(placed(&bench).0, expected, "{label}");
    }
}

// RFC 6881 ED-7.
#[test]
fn e17_an_emergency_call_is_stopped_by_no_gate() {
    let mut bench = Bench::new(|config| {
        config.emergency.trunk = Some("second".parse().unwrap());
        config.policy.deny_prefixes = vec![String::new()];
        config.limits.calls = 0;
        config.limits.calls_per_user = 0;
        config.trunks[1].max_calls = 0;
        config.routes.clear();
    });
    bench.switch.drain(true);
    let call = bench.overlay_calls(Some("alice"), "+112");
    bench.opened(call);
    let (trunk, details) = placed(&bench);
    assert_eq!((trunk.as_str(), details.emergency.as_deref()), ("second", Some(&EmergencyCall::new("112"))));
    let refused = bench.overlay_calls(Some("alice"), "+1120");
    assert_eq!(bench.refusal(refused).0, Gate::Policy, "a longer number is none of them");
}

// RFC 5031 4.2, RFC 6442: the endpoint writes them as the trunk wants them.
#[test]
fn e17_an_emergency_call_says_which_service_and_where() {
    let berlin = Location::new(None, Some(Point::new(52.53, 13.38, 25).unwrap())).unwrap();
    let location = Arc::new(berlin);
    let mut bench = Bench::new(|config| {
        config.emergency.trunk = Some("second".parse().unwrap());
        config.emergency.numbers.push("110".into());
        let police = EmergencyService::parse("sos.police").unwrap();
        config.emergency.services.insert("110".into(), police);
        config.emergency.location = Some(Arc::clone(&location));
    });
    for (dialled, urn) in [("110", "urn:service:sos.police"), ("112", "urn:service:sos")] {
        let call = bench.overlay_calls(None, &format!("+{dialled}"));
        bench.opened(call);
        let emergency = placed(&bench).1.emergency.unwrap();
        assert_eq!((emergency.dialled.as_str(), emergency.service.urn().as_str()), (dialled, urn));
        assert_eq!(emergency.location.as_ref(), Some(&location));
    }
    let call = bench.overlay_calls(Some("alice"), NUMBER);
    bench.opened(call);
    assert_eq!(placed(&bench).1.emergency, None, "any other call says nothing of it");
}

#[test]
fn e17_where_there_is_no_trunk_for_it_an_emergency_call_is_refused_at_once_and_says_so() {
    let mut bench = Bench::new(|_| {});
    for number in ["+112", "+911"] {
        let call = bench.overlay_calls(None, number);
        assert_eq!(bench.refusal(call), (Gate::Route, "emergency.refuse".into()));
    }
    assert!(bench.invites().is_empty());
    let text = "emergency calls cannot be made here: use a telephone".to_owned();
    let reject = SessionCommand::Reject { cause: Cause::SERVICE_NOT_AVAILABLE, sip_status: Some(380), text };
    assert_eq!(bench.told_overlay(), [&reject, &reject]);
}

// RFC 5079.
#[test]
fn e06_a_user_who_takes_no_anonymous_calls_is_433_to_the_trunk() {
    let mut bench = Bench::new(|_| {});
    let call = bench.trunk_calls("+15551000");
    bench.opened(call);
    let (cause, text, by) = (Cause::ANONYMOUS_CALL_REJECTED, String::new(), EndedBy::Far);
    bench.overlay(call, SessionEvent::Ended { cause, sip_status: Some(433), text, by });
    let rejected = bench.actions.iter().any(
        |action| matches!(action, Action::Sip(Command::Reject { status: 433, cause: c, .. }) if *c == cause),
    );
    assert!(rejected);
}

// RFC 4916, RFC 5876.
#[test]
fn e19_a_user_is_told_of_another_party_once_the_call_is_answered() {
    let told = |bench: &Bench| -> Vec<Caller> {
        let connected = |command: &&SessionCommand| match command {
            SessionCommand::Connected { party } => Some(party.clone()),
            _ => None,
        };
        bench.told_overlay().iter().filter_map(connected).collect()
    };
    let party = |number: &str| Caller { address: number.parse().ok(), ..Caller::default() };
    let mut bench = Bench::new(|_| {});
    let call = bench.overlay_calls(Some("alice"), NUMBER);
    bench.opened(call);
    bench.sip(Event::Connected { call, party: party("+442079460099") });
    assert!(told(&bench).is_empty(), "not before the answer");
    bench.sip(Event::Answered { call });
    assert_eq!(told(&bench), [party("+442079460099")]);
    let hidden = Caller { private: true, display_name: Some("Eve".into()), ..party("+442079460098") };
    bench.sip(Event::Connected { call, party: hidden });
    assert_eq!(told(&bench)[1], Caller { private: true, ..Caller::default() });
    let mut bench = Bench::new(|_| {});
    let call = bench.overlay_calls(Some("alice"), NUMBER);
    bench.opened(call);
    bench.sip(Event::Connected { call, party: party(NUMBER) });
    bench.sip(Event::Answered { call });
    assert!(told(&bench).is_empty(), "that the called number answers is no news");
}

// RFC 3960 3.2.
#[test]
fn c06_media_after_a_180_stops_the_tone_of_the_caller_when_it_really_comes() {
    let mut bench = Bench::new(|_| {});
    let call = bench.overlay_calls(Some("alice"), NUMBER);
    bench.opened(call);
    bench.sip(Event::Ringing { call });
    bench.sip(Event::Media {
        call,
        media: leg_media(Direction::SendRecv),
        early: true,
        signalling: SIGNALLING,
    });
    assert_eq!(bench.told_overlay().last(), Some(&&SessionCommand::Ringing));
    bench.media(MediaEvent::FirstPacket { call, side: Side::Trunk });
    let progress = SessionCommand::Progress { media: "sdp".into() };
    assert_eq!(bench.told_overlay().last(), Some(&&progress));
}

#[test]
fn g05_another_configuration_is_for_the_next_call_and_leaves_live_ones_alone() {
    let mut bench = Bench::new(|_| {});
    let live = answered_outgoing(&mut bench);
    let mut config = bench.switch.config.clone();
    config.routes[0].trunks = vec!["second".parse().unwrap()];
    config.policy.deny_prefixes = vec!["4420".into()];
    config.numbers.clear();
    bench.switch.reconfigure(config);
    assert_eq!(bench.switch.record(live).unwrap().phase, Phase::Active);
    let denied = bench.overlay_calls(Some("bob"), NUMBER);
    assert_eq!(bench.refusal(denied).0, Gate::Policy);
    let call = bench.overlay_calls(Some("bob"), "+44161");
    bench.opened(call);
    assert_eq!(placed(&bench).0, "second");
    let unserved = bench.trunk_calls("+15551000");
    assert_eq!(bench.refusal(unserved), (Gate::Route, "numbers".into()));
    bench.overlay_ended(live, Cause::NORMAL_CALL_CLEARING);
    for call in [live, unserved] {
        bench.sip_ended(call, None, Cause::NORMAL_CALL_CLEARING, sip_trunk::EndedBy::Local);
    }
    assert_eq!(bench.switch.calls_on(&"first".parse().unwrap()), 0, "what was taken is given back");
}

// RFC 7362 4: only where the trunk is said to be behind an address translator, and only from where it signals.
#[test]
fn f22_media_may_come_from_the_signalling_address_where_the_trunk_says_so() {
    for nat in [false, true] {
        let mut bench = Bench::new(|config| config.trunks[0].nat = nat);
        let call = answered_outgoing(&mut bench);
        let moved = std::net::IpAddr::from([127, 0, 0, 77]);
        let media = leg_media(Direction::SendOnly);
        bench.sip(Event::Media { call, media, early: false, signalling: moved });
        let rule = |action: &Action| match action {
            Action::Media(MediaCommand::TrunkMedia { source_rule, .. }) => Some(*source_rule),
            _ => None,
        };
        let rules: Vec<_> = bench.actions.iter().filter_map(rule).collect();
        let wanted = [SIGNALLING, moved].map(|from| match nat {
            true => SourceRule::Signalling(from),
            false => SourceRule::Negotiated,
        });
        assert_eq!(rules, wanted);
    }
}
