//! Rows E8 to E11: numbers, what they carry, and for whom a call was meant.

use sip_trunk::Event;
use sip_trunk::trunk::details::CallDetails;
use sip_trunk::trunk::diversion::{Diversion, DiversionHeader, DiversionReason};
use sip_trunk::trunk::numbers::NumberFormat;
use sip_trunk::trunk::parameters::TrunkGroup;
use sip_trunk::trunk::{GroupForm, TrunkConfig};

use crate::identity::{invite_with, lab};
use crate::net::{caller, number};
use crate::raw::{Ask, Lab, header, headers};

/// The peer calls a URI; returns the number and the details.
fn called(lab: &mut Lab, uri: &str, lines: &[&str]) -> (Option<String>, CallDetails) {
    let mut ask = lines.iter().fold(Ask::invite(), |ask, line| ask.line(line));
    ask.uri = uri.to_owned();
    let call = lab.call_in(&ask.text());
    let events = lab.take(0);
    let Some(Event::Incoming { called, .. }) = events.first() else { panic!("{events:?}") };
    (called.as_ref().map(ToString::to_string), lab.endpoint(0).call_details(call).unwrap().clone())
}

fn uk(format: NumberFormat) -> impl FnOnce(&mut TrunkConfig) {
    move |trunk| {
        trunk.numbers.country_code = Some("44".into());
        trunk.numbers.national_prefix = Some("0".into());
        trunk.numbers.international_prefix = Some("00".into());
        trunk.numbers.user_phone = true;
        trunk.numbers.format = format;
    }
}

// RFC 3966 5.1.4, 5.1.5, RFC 3261 19.1.6.
#[test]
fn e08_numbers_are_canonical_inside_and_as_the_trunk_likes_outside() {
    for (format, written) in [
        (NumberFormat::E164Plus, "+442079460018"),
        (NumberFormat::E164NoPlus, "442079460018"),
        (NumberFormat::National, "02079460018"),
    ] {
        let mut lab = lab(uk(format));
        let (_, invite) = lab.call_out();
        assert!(invite.starts_with(&format!("INVITE sip:{written}@10.0.0.2;user=phone SIP/2.0")), "{invite}");
        assert!(header(&invite, "To").starts_with(&format!("<sip:{written}@10.0.0.2;user=phone>")));
        for uri in [
            format!("sip:{written}@10.0.0.1;user=phone"),
            "sip:+44-20-7946-0018@10.0.0.1".to_owned(),
            "tel:+44-20-7946-0018".to_owned(),
            "tel:79460018;phone-context=+4420".to_owned(),
        ] {
            let mut lab = self::lab(uk(format));
            assert_eq!(called(&mut lab, &uri, &[]).0.as_deref(), Some("+442079460018"), "{uri} {format:?}");
        }
    }
    // A number of somebody's own plan is no number of the world's: its context is kept.
    let (called, details) = called(&mut Lab::new(), "tel:7042;phone-context=example.com", &[]);
    assert_eq!((called, details.parameters.phone_context.as_deref()), (None, Some("example.com")));
}

// RFC 4694 5.
#[test]
fn e09_portability_is_passed_on() {
    let uri = "sip:+12025550199;npdi;rn=+1-202-544-0000;cic=+16789@10.0.0.1;user=phone";
    let (got, details) = called(&mut Lab::new(), uri, &[]);
    assert_eq!(got.as_deref(), Some("+12025550199"));
    assert_eq!(details.parameters.routing_number.as_deref(), Some("+12025440000"));
    assert!(details.parameters.dipped);
    let invite = invite_with(&mut Lab::new(), caller("+12025550100"), details.clone());
    let target = "INVITE sip:+442079460018;rn=+12025440000;cic=+16789;npdi@10.0.0.2 SIP/2.0";
    assert!(invite.starts_with(target), "{invite}");
    let invite = invite_with(&mut lab(|t| t.portability = false), caller("+12025550100"), details);
    assert!(invite.starts_with("INVITE sip:+442079460018@10.0.0.2 SIP/2.0"), "{invite}");
}

// RFC 4904 4, 5: the group a call came over is in Contact, the one it shall take in the request URI.
#[test]
fn e10_trunk_groups_are_read_and_stamped() {
    let group = TrunkGroup::new("TG-7", "us.example").unwrap();
    let uri = "sip:+12025550199;tgrp=TG-1;trunk-context=c.example@10.0.0.1";
    let mut ask = Ask::invite();
    ask.lines = "Contact: <sip:+1202;tgrp=TG-2;trunk-context=c.example@10.0.0.2>\r\n".to_owned();
    ask.uri = uri.to_owned();
    let mut lab = Lab::new();
    let call = lab.call_in(&ask.text());
    let details = lab.endpoint(0).call_details(call).unwrap().clone();
    assert_eq!(details.parameters.trunk_group, TrunkGroup::new("TG-1", "c.example"));
    assert_eq!(details.originating_group, TrunkGroup::new("TG-2", "c.example"));
    let mut ask = Ask::invite();
    ask.from = "<sip:+12025550100@c.example;otg=TG-3>;tag=peer".to_owned();
    let mut lab = Lab::new();
    let call = lab.call_in(&ask.text());
    let otg = lab.endpoint(0).call_details(call).unwrap().originating_group.clone();
    assert_eq!(otg, TrunkGroup::new("TG-3", "c.example"));

    let stamp = |form| {
        let group = group.clone();
        self::lab(move |t| t.trunk_group = Some((group, form)))
    };
    let mut lab = stamp(GroupForm::Contact);
    let invite = invite_with(&mut lab, caller("+12025550100"), details);
    assert!(invite.starts_with("INVITE sip:+442079460018;tgrp=TG-1;trunk-context=c.example@10.0.0.2 "));
    let contact = "<sip:+12025550100;tgrp=TG-7;trunk-context=us.example@10.0.0.1:5060>";
    assert_eq!(header(&invite, "Contact"), contact);
    let mut lab = stamp(GroupForm::Otg);
    let named = call_model::Caller { display_name: Some("a > b".into()), ..caller("+12025550100") };
    let invite = invite_with(&mut lab, named, CallDetails::default());
    let from = header(&invite, "From");
    assert!(from.starts_with("\"a > b\" <sip:+12025550100@10.0.0.1;otg=TG-7>;tag="), "{from}");
    assert_eq!(header(&invite, "Contact"), "<sip:10.0.0.1:5060>");
}

fn diverted(n: u32, reason: DiversionReason, counter: u8, privacy: bool) -> Diversion {
    Diversion { number: Some(number(&format!("+1202555010{n}"))), reason, counter, privacy }
}

// RFC 7544, RFC 7044 10, RFC 5806: from either header to either.
#[test]
fn e11_diversions_cross_between_diversion_and_history_info() {
    use DiversionReason as R;
    let list = [diverted(2, R::UserBusy, 1, true), diverted(1, R::Unconditional, 2, false)];
    let diversion = "Diversion: <sip:+12025550102@c>;reason=user-busy;privacy=full, \
                     <sip:+12025550101@c>;reason=unconditional;counter=2";
    let history = "History-Info: <sip:+12025550101@c>;index=1, \
                   <sip:+12025550102@c;cause=302?Privacy=history>;index=1.1.1;mp=1, \
                   <sip:+12025550199@c;cause=486>;index=1.1.1.1;mp=1.1.1";
    for line in [diversion, history] {
        let (_, details) = called(&mut Lab::new(), "sip:+12025550199@10.0.0.1", &[line]);
        assert_eq!(details.diversions, list, "{line}");
        assert!(details.is_loop(&number("+12025550101")) && !details.is_loop(&number("+12025550199")));
        for (form, trusted) in [
            (DiversionHeader::Diversion, true),
            (DiversionHeader::HistoryInfo, true),
            (DiversionHeader::Diversion, false),
        ] {
            let mut lab = lab(|t| (t.diversion, t.trusted) = (form, trusted));
            let invite = invite_with(&mut lab, caller("+12025550100"), details.clone());
            let (diversion, history) = (headers(&invite, "Diversion"), headers(&invite, "History-Info"));
            if form == DiversionHeader::Diversion {
                let second = if trusted { "+12025550102@10.0.0.1" } else { "anonymous@anonymous.invalid" };
                let expected = format!(
                    "<sip:{second}>;reason=user-busy;counter=1;privacy=full, \
                     <sip:+12025550101@10.0.0.1>;reason=unconditional;counter=2;privacy=off"
                );
                assert_eq!((diversion, history), (vec![expected], vec![]));
            } else {
                let expected = "<sip:+12025550101@10.0.0.1>;index=1, \
                    <sip:+12025550102@10.0.0.1;cause=302?Privacy=history>;index=1.1.1;mp=1, \
                    <sip:+442079460018@10.0.0.2;cause=486>;index=1.1.1.1;mp=1.1.1";
                assert_eq!((diversion, history), (vec![], vec![expected.to_owned()]));
            }
        }
    }
    let (_, details) = called(&mut lab(|t| t.trusted = false), "sip:+12025550199@10.0.0.1", &[diversion]);
    assert_eq!(details.diversions, [], "who is not trusted diverts nothing");
}

// RFC 7044 10.1.2: one word hides every entry.
#[test]
fn e11_privacy_of_the_whole_history_hides_every_diversion() {
    let history = "History-Info: <sip:+12025550101@c>;index=1, <sip:+12025550199@c;cause=302>;index=1.1;mp=1";
    for (privacy, hidden) in [("history", true), ("Header;id", true), ("id", false), ("history;none", false)]
    {
        let line = format!("Privacy: {privacy}");
        let (_, details) = called(&mut Lab::new(), "sip:+12025550199@10.0.0.1", &[history, &line]);
        assert_eq!(details.diversions, [diverted(1, DiversionReason::Unconditional, 1, hidden)], "{privacy}");
    }
}

// RFC 5806, ISUP: five at most, and a number once.
#[test]
fn e11_loops_are_cut_and_five_diversions_remain() {
    let entries: Vec<_> =
        [1, 2, 3, 2, 4, 5, 6, 7].iter().map(|n| format!("<sip:+1202555010{n}@c>")).collect();
    let line = format!("Diversion: {}", entries.join(", "));
    let (_, details) = called(&mut Lab::new(), "sip:+12025550199@10.0.0.1", &[&line]);
    let got: Vec<_> = details.diversions.iter().map(|d| (d.number.clone().unwrap(), d.counter)).collect();
    let n = |n: u32, counter| (number(&format!("+1202555010{n}")), counter);
    assert_eq!(got, [n(1, 1), n(2, 3), n(4, 1), n(5, 2), n(7, 1)]);
}

#[test]
fn a_plain_invite_has_no_details() {
    let mut lab = Lab::new();
    let (call, invite) = lab.call_out();
    for name in ["Diversion", "History-Info", "Resource-Priority", "P-Charging-Vector"] {
        assert!(headers(&invite, name).is_empty(), "{name}");
    }
    assert_eq!(lab.endpoint(0).call_details(call), Some(&CallDetails::default()));
}
