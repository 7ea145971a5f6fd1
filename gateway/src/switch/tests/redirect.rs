//! Calls that a trunk sends elsewhere by 302.

use sip_trunk::RedirectContact;

use super::*;

impl Bench {
    fn redirects(&mut self, call: CallId, contacts: &[&str]) {
        let contact = |text: &&str| RedirectContact {
            uri: format!("sip:{text}@127.0.0.10"),
            target: text.parse().ok(),
            preference: 1000,
        };
        let contacts = contacts.iter().map(contact).collect();
        self.sip(Event::Redirected { call, status: 302, contacts });
    }

    fn followed(&self) -> Vec<usize> {
        let followed = |action: &Action| match action {
            Action::Sip(Command::FollowRedirect { contact, .. }) => Some(*contact),
            _ => None,
        };
        self.actions.iter().filter_map(followed).collect()
    }
}

// RFC 3261 8.1.3.4: the first contact that the caller may call is called; the caller hears nothing of it.
#[test]
fn d18_a_redirection_is_followed_where_the_gates_let_the_caller() {
    // The only call that may be, of a user and on the trunk: it does not stand in its own way.
    let mut bench = Bench::new(|config| {
        config.limits.calls = 1;
        config.limits.calls_per_user = 1;
        config.trunks[0].max_calls = 1;
    });
    let call = bench.overlay_calls(Some("alice"), NUMBER);
    bench.opened(call);
    bench.redirects(call, &["+449001234", "+33123456789", "+442070000000", "+442070000001"]);
    assert_eq!(bench.followed(), [2], "denied, without a route, good");
    assert_eq!(bench.switch.calls_on(&"first".parse().unwrap()), 1);
    // That one refuses, and another is left.
    bench.sip(Event::Redirected {
        call,
        status: 486,
        contacts: vec![RedirectContact {
            uri: "sip:x".into(),
            target: "+442070000001".parse().ok(),
            preference: 1000,
        }],
    });
    assert_eq!(bench.followed(), [2, 0]);
    bench.sip(Event::Media {
        call,
        media: leg_media(Direction::SendRecv),
        early: false,
        signalling: SIGNALLING,
    });
    bench.sip(Event::Answered { call });
    assert!(matches!(bench.told_overlay().last(), Some(SessionCommand::Answer { .. })));
    let record = bench.switch.record(call).unwrap();
    let said: Vec<_> =
        record.decisions.iter().filter(|step| &*step.rule == "trunks.first.redirects").collect();
    let gates: Vec<Gate> = said.iter().map(|step| step.gate).collect();
    assert_eq!(gates, [Gate::Policy, Gate::Route, Gate::Route, Gate::Route]);
    // What was held for the user is held once.
    let second = bench.overlay_calls(Some("alice"), NUMBER);
    assert_eq!(bench.refusal(second).0, Gate::Admission);
}

#[test]
fn d18_a_redirection_with_nothing_to_follow_ends_the_call() {
    let mut bench = Bench::new(|_| {});
    let call = bench.overlay_calls(Some("alice"), NUMBER);
    bench.opened(call);
    bench.redirects(call, &["+449001234", "not an address!"]);
    assert!(bench.followed().is_empty());
    assert_eq!(bench.refusal(call), (Gate::FarAnswer, "trunks.first".into()));
    assert_eq!(bench.released_on_trunk().len(), 1);
    assert!(matches!(bench.told_overlay().last(), Some(SessionCommand::Reject { .. })));
    bench.sip_ended(call, None, Cause::NORMAL_UNSPECIFIED, sip_trunk::EndedBy::Local);
    bench.overlay_ended(call, Cause::NORMAL_UNSPECIFIED);
    assert_eq!(bench.switch.live(), 0);
    // One that comes for a call that is gone is released.
    let gone = bench.id();
    bench.redirects(gone, &[NUMBER]);
    assert!(
        matches!(bench.actions.last(), Some(Action::Sip(Command::Release { call, .. })) if *call == gone)
    );
}
