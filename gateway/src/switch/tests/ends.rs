//! What is told of a call and of its end: to the other side, to the operator, to the counters.

use std::sync::Arc;

use admin_api::CallFilter;

use super::*;
use crate::control::views;

fn invited(bench: &Bench) -> Caller {
    let invite = |action: &Action| match action {
        Action::Overlay(NodeCommand::Invite { from, .. }) => Some(from.clone()),
        _ => None,
    };
    bench.actions.iter().find_map(invite).unwrap()
}

fn from_trunk_as(bench: &mut Bench, caller: Caller) -> CallId {
    let call = bench.id();
    let (trunk, source) = ("first".parse().unwrap(), "127.0.0.10:5060".parse().unwrap());
    let (called, called_user) = ("+15551000".parse().ok(), "+15551000".to_owned());
    let details = Arc::default();
    bench.sip(Event::Incoming { call, trunk, called_user, called, caller, source, has_offer: true, details });
    call
}

// RFC 3325 7.
#[test]
fn a_withheld_number_is_not_told_to_an_overlay_user() {
    let mut bench = Bench::new(|_| {});
    let (address, display_name) = ("+15550001".parse().ok(), Some("Anna".to_owned()));
    let caller = Caller { address, display_name, private: true };
    let call = from_trunk_as(&mut bench, caller.clone());
    bench.opened(call);
    assert_eq!(invited(&bench), Caller { address: None, display_name: None, private: true });
    assert_eq!(bench.switch.record(call).unwrap().from, caller, "the operator still knows");
}

#[test]
fn only_the_users_own_word_is_blamed_on_the_user() {
    use Outcome::{Server, Upstream};
    let cases = [
        (EndedBy::Far, Cause::USER_BUSY, ReleasedBy::Overlay, Upstream),
        (EndedBy::Timeout, Cause::SUBSCRIBER_ABSENT, ReleasedBy::Gateway, Upstream),
        (EndedBy::Timeout, Cause::NO_ANSWER_FROM_USER, ReleasedBy::Gateway, Upstream),
        (EndedBy::Lost, Cause::NETWORK_OUT_OF_ORDER, ReleasedBy::Gateway, Server),
        (EndedBy::Local, Cause::PROTOCOL_ERROR, ReleasedBy::Gateway, Server),
    ];
    for (by, cause, released_by, outcome) in cases {
        let mut bench = Bench::new(|_| {});
        let call = bench.trunk_calls("+15551000");
        bench.opened(call);
        bench.overlay(call, SessionEvent::Ended { cause, sip_status: None, text: "the words".into(), by });
        bench.sip_ended(call, None, cause, sip_trunk::EndedBy::Local);
        assert_eq!(bench.ended(), [(outcome, cause)], "{by:?}");
        let record = bench.switch.record(call).unwrap();
        assert_eq!(record.released_by, Some(released_by), "{by:?}");
        assert!(record.summary().contains("the words"), "{}", record.summary());
    }
}

#[test]
fn an_answered_call_that_is_lost_says_why() {
    let mut bench = Bench::new(|_| {});
    let call = answered_outgoing(&mut bench);
    let (cause, text, by) = (Cause::NETWORK_OUT_OF_ORDER, "the stream is lost".to_owned(), EndedBy::Lost);
    bench.overlay(call, SessionEvent::Ended { cause, sip_status: None, text, by });
    let record = bench.switch.record(call).unwrap();
    assert_eq!(record.released_by, Some(ReleasedBy::Gateway));
    assert!(record.summary().contains("the stream is lost"), "{}", record.summary());
    let mut bench = Bench::new(|_| {});
    let call = answered_outgoing(&mut bench);
    bench.overlay_ended(call, Cause::NORMAL_CALL_CLEARING);
    let refused = |step: &call_model::Decision| step.verdict == Verdict::Refuse;
    assert!(!bench.switch.record(call).unwrap().decisions.iter().any(refused), "hanging up is no fault");
}

#[test]
fn a_full_user_is_no_fault_of_the_gateway() {
    let mut bench = Bench::new(|config| config.limits.calls_per_user = 1);
    bench.overlay_calls(Some("alice"), NUMBER);
    let second = bench.overlay_calls(Some("alice"), NUMBER);
    let from_trunk = bench.trunk_calls("+15551000");
    bench.overlay_ended(second, Cause::RESOURCE_UNAVAILABLE);
    bench.sip_ended(from_trunk, Some(486), Cause::USER_BUSY, sip_trunk::EndedBy::Local);
    let ended = [(Outcome::Client, Cause::RESOURCE_UNAVAILABLE), (Outcome::Upstream, Cause::USER_BUSY)];
    assert_eq!(bench.ended(), ended);
}

#[test]
fn a_trunk_that_is_not_there_is_no_way_in() {
    let bench = Bench::new(|_| {});
    let origin = Origin::Trunk { name: "nobody".parse().unwrap() };
    let to: Address = "+15551000".parse().unwrap();
    let decisions = bench.switch.evaluate(&origin, "+15551000", Some(&to)).decisions;
    let last = decisions.last().unwrap();
    assert_eq!((last.gate, last.verdict, &*last.rule), (Gate::Identity, Verdict::Refuse, "trunks"));
}

#[test]
fn text_from_the_network_cannot_drive_a_terminal() {
    use call_model::{Actor, Exchange, Protocol};
    let mut bench = Bench::new(|_| {});
    let call = bench.trunk_calls(&format!("\u{1b}[2J{}", "x".repeat(1000)));
    let call_out = bench.overlay_calls(Some("alice"), NUMBER);
    bench.opened(call_out);
    let label = format!("183 \u{1b}]0;{}", "y".repeat(1000)).into();
    let exchange = Exchange { from: Actor::Trunk, to: Actor::Gateway, protocol: Protocol::Sip, label };
    bench.sip(Event::Exchange { call: call_out, exchange });
    let (text, by) = (format!("\u{9b}31m{}", "z".repeat(1000)), sip_trunk::EndedBy::Far);
    bench.sip(Event::Ended { call: call_out, cause: Cause::USER_BUSY, status: Some(486), text, by });
    let trunk: TrunkName = "first".parse().unwrap();
    let detail = format!("\u{7}{}", "d".repeat(1000));
    bench.sip(Event::TrunkHealth { trunk: trunk.clone(), up: false, detail });
    let mut texts = vec![bench.switch.trunk_health(&trunk).unwrap().1.to_owned()];
    for record in [call, call_out].map(|id| bench.switch.record(id).unwrap()) {
        texts.push(record.to.clone());
        texts.extend(record.decisions.iter().map(|step| step.detail.to_string()));
        texts.extend(record.exchanges.iter().map(|(_, exchange)| exchange.label.to_string()));
    }
    for text in texts {
        assert!(text.chars().count() <= 256 && !text.contains(char::is_control), "{text:?}");
    }
}

#[test]
fn every_call_stands_on_some_page_although_calls_end_between_pages() {
    let mut bench = Bench::new(|config| config.limits.history = 10);
    let calls: Vec<CallId> =
        ["a", "b", "c", "d"].iter().map(|user| bench.overlay_calls(Some(user), NUMBER)).collect();
    let old = bench.overlay_calls(Some("e"), "+3912345");
    bench.overlay_ended(old, Cause::NO_ROUTE_TO_DESTINATION);
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let filter = CallFilter { limit: 1, after, live: false };
        let page = views::calls(&bench.switch, &filter, bench.now);
        seen.extend(page.calls.iter().map(|call| call.id.parse::<CallId>().unwrap()));
        // The call that was listed just now ends, and with it its place in the list.
        if let Some(&last) = seen.last() {
            bench.overlay_ended(last, Cause::NORMAL_CALL_CLEARING);
        }
        match page.next {
            Some(next) => after = Some(next.parse().unwrap()),
            None => break,
        }
    }
    for call in calls.iter().chain([&old]) {
        assert!(seen.contains(call), "{call} is on no page: {seen:?}");
    }
}

#[test]
fn calls_of_a_trunk_are_counted_and_given_back() {
    let mut bench = Bench::new(|_| {});
    let (first, second) = ("first".parse().unwrap(), "second".parse().unwrap());
    let call = bench.overlay_calls(Some("alice"), NUMBER);
    bench.opened(call);
    let inward = bench.trunk_calls("+15551000");
    assert_eq!((bench.switch.calls_on(&first), bench.switch.calls_on(&second)), (2, 0));
    bench.sip_ended(call, Some(503), Cause::TEMPORARY_FAILURE, sip_trunk::EndedBy::Far);
    assert_eq!((bench.switch.calls_on(&first), bench.switch.calls_on(&second)), (1, 1));
    bench.overlay_ended(call, Cause::NORMAL_CALL_CLEARING);
    bench.sip_ended(call, None, Cause::NORMAL_CALL_CLEARING, sip_trunk::EndedBy::Local);
    bench.sip_ended(inward, None, Cause::NORMAL_CALL_CLEARING, sip_trunk::EndedBy::Far);
    assert_eq!((bench.switch.calls_on(&first), bench.switch.calls_on(&second)), (0, 0));
    assert_eq!(bench.switch.poll_timeout(), None, "a call that is over waits for nothing");
}

// RFC 6035 4.6.1: with the last figures of the media, which come after the end of the call.
#[test]
fn f25_the_quality_of_a_call_is_reported_once_where_its_trunk_wants_it() {
    for wanted in [true, false] {
        let collector = wanted.then(|| "sip:collector@127.0.0.10".parse().unwrap());
        let mut bench = Bench::new(|config| config.trunks[0].quality_reports = collector);
        let call = answered_outgoing(&mut bench);
        let figures = |packets_received, last| MediaEvent::Quality {
            call,
            overlay: LegQuality::default(),
            trunk: LegQuality { packets_received, ..LegQuality::default() },
            onward: LegQuality::default(),
            whole: WholeCall::default(),
            last,
        };
        bench.pass(5_000);
        bench.media(figures(240, false));
        bench.overlay_ended(call, Cause::NORMAL_CALL_CLEARING);
        bench.sip_ended(call, None, Cause::NORMAL_CALL_CLEARING, sip_trunk::EndedBy::Local);
        bench.media(figures(245, false));
        bench.media(figures(250, true));
        bench.media(figures(250, true));
        let report = |action: &Action| match action {
            Action::Sip(Command::ReportQuality { call, report }) => Some((*call, report.clone())),
            _ => None,
        };
        let reports: Vec<_> = bench.actions.iter().filter_map(report).collect();
        assert_eq!(reports.len(), usize::from(wanted));
        for (of, report) in reports {
            assert_eq!((of, report.reported), (call, sip_trunk::Reported::Session));
            assert_eq!(report.quality.packets_received, 250);
            assert_eq!(report.until_unix_ms - report.from_unix_ms, 5_000);
        }
    }
}
