//! What the endpoint does for a gateway that puts two of its calls together: G8, D20, E19, and
//! another configuration while calls are live (G5).

use std::time::Duration;

use call_model::{Caller, Cause};
use sip_trunk::trunk::details::CallDetails;
use sip_trunk::{Command, CommandError, EndedBy, Event, TrunkConfig};

use crate::dialogs::{assert_clean, release};
use crate::identity::invite_with;
use crate::net::{A, A_RTP, B, call_id, caller, ended, media, number, trunk_name};
use crate::raw::{Ask, CONTACT, Lab, SDP, header, reply, status};

// RFC 7332 4: what a call has left to go is one hop less on its way out; by default 70 (RFC 3261 8.1.1.6).
#[test]
fn g08_a_call_that_goes_on_has_one_hop_less_to_go() {
    let mut lab = Lab::new();
    let mut ask = Ask::invite().text();
    ask = ask.replace(&format!("Max-Forwards: {}", header(&ask, "Max-Forwards")), "Max-Forwards: 12");
    let call = lab.call_in(&ask);
    let details = lab.endpoint(0).call_details(call).unwrap().clone();
    assert_eq!(details.max_forwards, Some(12));
    for (hops, written) in [(Some(12), "11"), (Some(255), "70"), (Some(0), "0"), (None, "70")] {
        let details = CallDetails { max_forwards: hops, ..CallDetails::default() };
        let invite = invite_with(&mut Lab::new(), caller("+12025550100"), details);
        assert_eq!(header(&invite, "Max-Forwards"), written, "{hops:?}");
    }
}

// RFC 3261 21.4.20, RFC 3326, RFC 5079.
#[test]
fn e06_g08_a_call_is_refused_with_the_status_that_says_it_best() {
    for (wanted, cause, said) in [
        (482, Cause::EXCHANGE_ROUTING_ERROR, 482),
        (433, Cause::ANONYMOUS_CALL_REJECTED, 433),
        // What is no refusal gives way to the status of the cause.
        (200, Cause::USER_BUSY, 486),
        (380, Cause::USER_BUSY, 486),
    ] {
        let mut lab = Lab::new();
        let call = lab.call_in(&Ask::invite().text());
        lab.inbox(1);
        lab.command(0, Command::Reject { call, status: wanted, cause });
        lab.run_ms(20);
        let answer = lab.inbox(1).remove(0);
        assert_eq!(status(&answer), said);
        assert!(header(&answer, "Reason").starts_with(&format!("Q.850;cause={}", cause.value())));
        assert_eq!(ended(&lab.take(0)).len(), 1);
    }
    // An answered call has no final response to come: it is released.
    let mut lab = Lab::new();
    let (call, _) = lab.call_in_answered();
    lab.inbox(1);
    lab.command(0, Command::Reject { call, status: 486, cause: Cause::USER_BUSY });
    lab.run_ms(20);
    assert!(lab.inbox(1)[0].starts_with("BYE "));
}

fn probe(lab: &mut Lab) -> (call_model::CallId, String) {
    let (call, _) = lab.call_out_answered();
    lab.take(0);
    lab.inbox(1);
    lab.command(0, Command::Probe { call });
    // A second one adds nothing.
    lab.command(0, Command::Probe { call });
    lab.run_ms(20);
    let mut asked = lab.inbox(1);
    assert_eq!(asked.len(), 1, "{asked:?}");
    (call, asked.remove(0))
}

// RFC 3261 12.2.1.2, RFC 5057 5.1: any answer but 481 and 408 shows that somebody knows the call.
#[test]
fn d20_a_far_side_that_answers_is_there() {
    for code in [200, 404, 405, 501, 500] {
        let mut lab = Lab::new();
        let (call, options) = probe(&mut lab);
        assert!(options.starts_with("OPTIONS sip:") && header(&options, "To").contains("tag="), "{options}");
        lab.tell(&reply(&options, code, "", "", ""));
        let told = lab.take(0);
        assert!(told.iter().any(|event| matches!(event, Event::Alive { call: of } if *of == call)), "{code}");
        release(&mut lab, call);
        assert_clean(&mut lab);
    }
}

#[test]
fn d20_a_far_side_that_does_not_know_the_call_or_says_nothing_gets_a_bye_with_the_reason() {
    for (answer, cause) in [
        (Some(481), Cause::NORMAL_UNSPECIFIED),
        (Some(408), Cause::NORMAL_UNSPECIFIED),
        (None, Cause::RECOVERY_ON_TIMER_EXPIRY),
    ] {
        let mut lab = Lab::new();
        let (_, options) = probe(&mut lab);
        match answer {
            Some(code) => {
                lab.tell(&reply(&options, code, "", "", ""));
            }
            None => lab.run(Duration::from_secs(33)),
        }
        assert_eq!(ended(&lab.take(0)), [(cause, None, EndedBy::Timeout)]);
        lab.run_ms(1_000);
        let bye = lab.log.iter().find(|(_, _, _, text)| text.starts_with("BYE ")).unwrap();
        assert!(header(&bye.3, "Reason").starts_with(&format!("Q.850;cause={}", cause.value())));
    }
}

#[test]
fn d20_only_an_answered_call_can_be_asked() {
    let mut lab = Lab::new();
    let (call, _) = lab.call_out();
    assert_eq!(lab.try_command(0, Command::Probe { call }), Err(CommandError::WrongState));
    let unknown = Command::Probe { call: call_id(99) };
    assert_eq!(lab.try_command(0, unknown), Err(CommandError::UnknownCall));
}

// RFC 4916 4.
#[test]
fn e19_a_change_of_the_connected_party_is_told_once() {
    let mut lab = Lab::new();
    let (_, invite) = lab.call_out();
    lab.take(0);
    let line = "P-Asserted-Identity: <sip:+12025550101@x>";
    lab.tell(&reply(&invite, 200, "peer", &format!("{CONTACT}{line}\r\n"), SDP));
    let parties = |lab: &mut Lab| {
        let connected = |event: Event| match event {
            Event::Connected { party, .. } => party.address.map(|address| address.to_string()),
            _ => None,
        };
        lab.take(0).into_iter().filter_map(connected).collect::<Vec<_>>()
    };
    assert_eq!(parties(&mut lab), ["+12025550101"]);
    for n in [1, 2] {
        let changed = "P-Asserted-Identity: <sip:+12025550102@x>";
        lab.tell(&Ask::back(&invite, "UPDATE", n).line(changed).text());
        assert_eq!(parties(&mut lab).len(), usize::from(n == 1), "it is no news the second time");
    }
}

#[test]
fn g05_a_trunk_takes_another_configuration_while_its_calls_go_on() {
    let mut lab = Lab::new();
    let (call, _) = lab.call_out_answered();
    let config = |change: fn(&mut TrunkConfig)| {
        let mut config = crate::net::config(A, B, sip_trunk::Transport::Udp).trunks.remove(0);
        change(&mut config);
        config
    };
    let now = lab.now;
    let take = |lab: &mut Lab, config| lab.endpoint(0).reconfigure_trunk(now, config);
    assert_eq!(take(&mut lab, config(|t| t.max_calls = 1)), Ok(()));
    let invite = Command::Invite {
        call: call_id(55),
        trunk: trunk_name("far"),
        called: number("+442079460018"),
        caller: Caller::default(),
        media: media(A_RTP),
    };
    assert_eq!(lab.try_command(0, invite.clone()), Err(CommandError::NoChannel));
    assert_eq!(take(&mut lab, config(|t| t.target.set_port(5070))), Err(CommandError::Unusable));
    assert_eq!(take(&mut lab, config(|t| t.codecs.clear())), Err(CommandError::Unusable));
    assert_eq!(take(&mut lab, config(|t| t.name = trunk_name("other"))), Err(CommandError::UnknownTrunk));
    assert_eq!(take(&mut lab, config(|_| {})), Ok(()));
    assert_eq!(lab.try_command(0, invite), Ok(()));
    release(&mut lab, call);
}
