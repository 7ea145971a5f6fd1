//! Row F25: the quality of calls, told to a collector by PUBLISH (RFC 6035 3.2).

use std::time::Duration;

use call_model::CallId;
use sip_trunk::auth::{Credentials, Secret};
use sip_trunk::{
    Collector, CollectorError, Command, CommandError, ConfigError, Endpoint, EndpointConfig, QualityReport,
    Reported, TrunkConfig,
};

use crate::dialogs::{CHALLENGE, release};
use crate::net::{A, B, address, config};
use crate::quality::{Body, FROM, measured};
use crate::raw::{Ask, Lab, SDP, header, headers, reply};
use crate::targets::{Farm, T1, T2, T3, a};

const ELSEWHERE: &str = "10.0.0.50:5060";

fn lab(collector: &str, change: impl FnOnce(&mut TrunkConfig)) -> Lab {
    let collector = collector.parse().unwrap();
    let mut lab = Lab::with(|config| {
        let trunk = &mut config.trunks[0];
        trunk.quality_collector = Some(collector);
        // In one datagram, to be seen as one message.
        trunk.largest_datagram = 4_000;
        trunk.credentials = Some(Credentials {
            username: "gw".to_owned(),
            password: Secret::new("open sesame".to_owned()),
            realm: Some("peer".to_owned()),
        });
        change(trunk);
    });
    lab.add_raw(address(ELSEWHERE));
    lab
}

fn report(call: CallId, reported: Reported) -> Command {
    let (from_unix_ms, until_unix_ms) = (FROM, FROM + 61_000);
    let report = QualityReport { reported, from_unix_ms, until_unix_ms, quality: measured() };
    Command::ReportQuality { call, report: Box::new(report) }
}

/// Ends a call from our side, and has the end confirmed.
fn end(lab: &mut Lab, call: CallId) {
    release(lab, call);
    let bye = lab.inbox(1).pop().unwrap();
    assert!(bye.starts_with("BYE "), "{bye}");
    lab.tell(&reply(&bye, 200, "", "", ""));
}

/// Has an ended call reported; returns what the node got.
fn reported(lab: &mut Lab, call: CallId, node: usize) -> String {
    lab.command(0, report(call, Reported::Session));
    lab.run_ms(20);
    let got = lab.inbox(node);
    assert_eq!(got.len(), 1, "{got:?}");
    assert!(got[0].starts_with("PUBLISH "), "{}", got[0]);
    got.into_iter().next().unwrap()
}

fn counted(lab: &mut Lab) -> Vec<(&'static str, u64)> {
    lab.endpoint(0).counters().quality_reports.into_iter().collect()
}

// RFC 6035 3.2, RFC 3903 4, RFC 3261 22: by the trunk's own way, and its credentials when they are asked for.
#[test]
fn f25_a_call_that_ended_is_reported_through_its_trunk() {
    let mut lab = lab("sip:collector@10.0.0.2", |_| {});
    let (call, invite) = lab.call_out_answered();
    end(&mut lab, call);
    let publish = reported(&mut lab, call, 1);
    assert!(publish.starts_with("PUBLISH sip:collector@10.0.0.2 SIP/2.0\r\n"), "{publish}");
    assert_eq!(header(&publish, "Event"), "vq-rtcpxr");
    assert_eq!(header(&publish, "Content-Type"), "application/vq-rtcpxr");
    assert_eq!(header(&publish, "To"), "<sip:collector@10.0.0.2>");
    assert_eq!(header(&publish, "CSeq"), "1 PUBLISH");
    assert_ne!(header(&publish, "Call-ID"), header(&invite, "Call-ID"), "outside of any dialog");
    let length: usize = header(&publish, "Content-Length").parse().unwrap();
    assert_eq!(length, publish.split_once("\r\n\r\n").unwrap().1.len());
    let body = Body::of(&publish);
    let from = header(&invite, "From");
    let tag = from.split(";tag=").nth(1).unwrap();
    assert_eq!(body.session["VQSessionReport"], "CallTerm");
    assert_eq!(body.session["CallID"], header(&invite, "Call-ID"));
    assert_eq!(body.session["LocalID"], "<sip:+12025550100@10.0.0.1>");
    assert_eq!(body.session["RemoteID"], "<sip:+442079460018@10.0.0.2>");
    assert_eq!(body.session["OrigID"], body.session["LocalID"]);
    assert_eq!(body.session["LocalAddr"], "IP=10.0.0.1 PORT=20000 SSRC=0x1a3b5c7d");
    assert_eq!(body.session["RemoteAddr"], "IP=10.0.0.2 PORT=30000 SSRC=0x2468abcd");
    assert_eq!((&*body.session["LocalGroup"], &*body.session["RemoteGroup"]), ("10.0.0.1", "far"));
    let dialog = format!("{};to-tag=peer;from-tag={tag}", header(&invite, "Call-ID"));
    assert_eq!(body.session["DialogID"], dialog);
    assert_eq!(body.local("SessionDesc", "PT"), Some("8"));
    assert_eq!(body.local("PacketLoss", "NLR"), Some("5.00"));

    let challenge = format!("WWW-Authenticate: {CHALLENGE}");
    let again = lab.tell(&reply(&publish, 401, "c", &challenge, "")).remove(0);
    assert_eq!(header(&again, "CSeq"), "2 PUBLISH");
    assert_ne!(header(&again, "Via"), header(&publish, "Via"));
    let answer = header(&again, "Authorization");
    for part in ["username=\"gw\"", "uri=\"sip:collector@10.0.0.2\"", "nonce=\"n1\"", "nc=00000001"] {
        assert!(answer.contains(part), "{part} in {answer}");
    }
    assert!(!again.contains("open sesame"));
    assert_eq!(Body::of(&again).session, body.session);
    assert!(lab.tell(&reply(&again, 200, "c", "SIP-ETag: 1\r\nExpires: 0\r\n", "")).is_empty());
    assert_eq!(counted(&mut lab), [("accepted", 1)]);
    let gone = lab.try_command(0, report(call, Reported::Session));
    assert_eq!(gone, Err(CommandError::UnknownCall), "of an ended call there is one report");

    // The next one shows the credentials unasked.
    let (call, _) = lab.call_out_answered();
    end(&mut lab, call);
    let publish = reported(&mut lab, call, 1);
    assert!(header(&publish, "Authorization").contains("nc=00000002"), "{publish}");
    // RFC 3261 22.2: refused credentials are not sent again, and not shown unasked any more.
    let other = format!("WWW-Authenticate: {}", CHALLENGE.replace("n1", "n2"));
    let again = lab.tell(&reply(&publish, 401, "c", &other, "")).remove(0);
    let third = other.replace("n2", "n3");
    assert!(lab.tell(&reply(&again, 401, "c", &third, "")).is_empty());
    assert_eq!(counted(&mut lab), [("accepted", 1), ("refused", 1)]);
    let (call, _) = lab.call_out_answered();
    end(&mut lab, call);
    assert!(headers(&reported(&mut lab, call, 1), "Authorization").is_empty());
    lab.run(Duration::from_secs(100));
    lab.assert_empty(0);
}

// RFC 6035 4.6.1: of a call that goes on, from whom called us.
#[test]
fn f25_a_call_that_goes_on_is_reported_too() {
    let mut lab = lab("sip:collector@10.0.0.2", |_| {});
    let (call, ok) = lab.call_in_answered();
    lab.inbox(1);
    for n in 1..=2 {
        lab.command(0, report(call, Reported::Interval));
        lab.run_ms(20);
        let publish = lab.inbox(1).remove(0);
        let body = Body::of(&publish);
        assert!(body.session.contains_key("VQIntervalReport"), "{publish}");
        assert_eq!(body.session["RemoteID"], "<sip:+12025550100@10.0.0.2>");
        assert_eq!(body.session["OrigID"], body.session["RemoteID"]);
        let to = header(&ok, "To");
        let dialog = format!("c1@10.0.0.2;to-tag={};from-tag=bob", to.split(";tag=").nth(1).unwrap());
        assert_eq!(body.session["DialogID"], dialog);
        lab.tell(&reply(&publish, 200, "c", "", ""));
        assert_eq!(counted(&mut lab), [("accepted", n)]);
    }
}

// RFC 3323 4.2, RFC 3325 7: whoever is hidden from the called is hidden from the collector.
#[test]
fn f25_private_callers_are_not_told() {
    let mut lab = lab("sip:collector@10.0.0.2", |_| {});
    let call = lab.call_in(&Ask::invite().line("Privacy: id").text());
    lab.command(0, Command::Answer { call, media: crate::net::media(crate::net::A_RTP) });
    lab.run_ms(20);
    let ok = lab.inbox(1).into_iter().find(|m| m.starts_with("SIP/2.0 200")).unwrap();
    lab.tell(&Ask::within(&ok, "ACK", 1).text());
    end(&mut lab, call);
    let publish = reported(&mut lab, call, 1);
    let body = Body::of(&publish);
    assert_eq!(body.session["RemoteID"], "<sip:anonymous@anonymous.invalid>");
    assert_eq!(body.session["OrigID"], "<sip:anonymous@anonymous.invalid>");
    assert!(!publish.contains("2025550100") && !publish.contains("Bob"), "{publish}");
    assert!(body.session["LocalID"].contains("+442079460018"), "the called is no secret");
    lab.tell(&reply(&publish, 200, "c", "", ""));

    let mut hidden = crate::net::caller("+12025550100");
    hidden.private = true;
    let call = crate::net::call_id(5);
    let (trunk, called) = (crate::net::trunk_name("far"), crate::net::number("+442079460018"));
    let media = crate::net::media(crate::net::A_RTP);
    lab.command(0, Command::Invite { call, trunk, called, caller: hidden, media });
    lab.run_ms(20);
    let invite = lab.inbox(1).remove(0);
    assert!(invite.contains("2025550100"), "the trunk is trusted with it: {invite}");
    lab.tell(&reply(&invite, 200, "peer", crate::raw::CONTACT, SDP));
    end(&mut lab, call);
    let publish = reported(&mut lab, call, 1);
    assert_eq!(Body::of(&publish).session["LocalID"], "<sip:anonymous@anonymous.invalid>");
    assert!(!publish.contains("2025550100"), "{publish}");
}

// RFC 3261 17.1.2.2, 21.5.4: each report is sent once, and who does not answer is left alone.
#[test]
fn f25_refusals_and_silence_are_counted_and_not_repeated() {
    let mut lab = lab("sip:collector@10.0.0.2", |_| {});
    let call = |lab: &mut Lab| {
        let (call, _) = lab.call_out_answered();
        end(lab, call);
        call
    };
    let first = call(&mut lab);
    let publish = reported(&mut lab, first, 1);
    lab.tell(&reply(&publish, 404, "c", "", ""));
    assert_eq!(counted(&mut lab), [("refused", 1)]);
    lab.run(Duration::from_secs(60));
    assert!(lab.inbox(1).is_empty(), "refused, and sent again");

    // Nobody answers: 64 times T1 long it is repeated as any request is.
    let second = call(&mut lab);
    reported(&mut lab, second, 1);
    lab.run(Duration::from_secs(33));
    let again = lab.inbox(1);
    assert_eq!(again.len(), 10, "{again:?}");
    assert_eq!(counted(&mut lab), [("refused", 1), ("unanswered", 1)]);
    assert!(
        lab.endpoint(0).trunk_status()[0].targets[0].state == Default::default(),
        "calls may still go there"
    );
    let third = call(&mut lab);
    lab.command(0, report(third, Reported::Session));
    lab.run(Duration::from_secs(50));
    assert!(lab.inbox(1).is_empty(), "left alone for a minute");
    assert_eq!(counted(&mut lab), [("held_back", 1), ("refused", 1), ("unanswered", 1)]);
    lab.run(Duration::from_secs(10));
    let fourth = call(&mut lab);
    let publish = reported(&mut lab, fourth, 1);
    lab.tell(&reply(&publish, 503, "c", "Retry-After: 300\r\n", ""));
    lab.run(Duration::from_secs(290));
    let fifth = call(&mut lab);
    lab.command(0, report(fifth, Reported::Session));
    lab.run(Duration::from_secs(11));
    assert!(lab.inbox(1).is_empty());
    let sixth = call(&mut lab);
    let publish = reported(&mut lab, sixth, 1);
    lab.tell(&reply(&publish, 200, "c", "", ""));
    assert_eq!(counted(&mut lab), [("accepted", 1), ("held_back", 2), ("refused", 2), ("unanswered", 1)]);
    lab.run(Duration::from_secs(40));
    lab.assert_empty(0);
}

// RFC 3608 5, RFC 3261 22: a trunk that registers reports as its account, by the route it was given.
#[test]
fn f25_a_trunk_that_registers_reports_as_its_account() {
    let mut lab = crate::registration::lab(sip_trunk::Transport::Udp, |trunk, _| {
        trunk.quality_collector = Some("sip:collector@10.0.0.2".parse().unwrap());
        trunk.largest_datagram = 4_000;
    });
    crate::registration::registered(&mut lab, 3600, "Service-Route: <sip:edge@10.0.0.2;lr>\r\n");
    let (call, _) = lab.call_out_answered();
    end(&mut lab, call);
    let publish = reported(&mut lab, call, 1);
    assert!(publish.starts_with("PUBLISH sip:collector@10.0.0.2 SIP/2.0\r\n"), "{publish}");
    assert_eq!(header(&publish, "Route"), "<sip:edge@10.0.0.2;lr>");
    assert!(header(&publish, "From").starts_with("<sip:pbx@example.com>;tag="), "{publish}");
    assert_eq!(Body::of(&publish).session["LocalGroup"], "example.com");
    lab.tell(&reply(&publish, 200, "c", "", ""));
    assert_eq!(counted(&mut lab), [("accepted", 1)]);
}

// A collector that says nothing holds no more than so many.
#[test]
fn f25_reports_under_way_are_bounded() {
    let mut lab = lab("sip:collector@10.0.0.2", |_| {});
    let (call, _) = lab.call_out_answered();
    lab.run(Duration::from_secs(40));
    for _ in 0..70 {
        lab.command(0, report(call, Reported::Interval));
    }
    lab.run_ms(20);
    assert_eq!(lab.inbox(1).len(), 64);
    assert_eq!(counted(&mut lab), [("crowded_out", 6)]);
    assert_eq!(lab.endpoint(0).counters().client_transactions, 64);
    lab.run(Duration::from_secs(40));
    assert_eq!(counted(&mut lab), [("crowded_out", 6), ("unanswered", 64)]);
    end(&mut lab, call);
    lab.run(Duration::from_secs(40));
    lab.assert_empty(0);
}

// Off unless the configuration says otherwise.
#[test]
fn f25_nothing_is_sent_where_the_trunk_does_not_ask_for_it() {
    let mut lab = Lab::new();
    let (call, _) = lab.call_out_answered();
    assert_eq!(lab.try_command(0, report(call, Reported::Interval)), Err(CommandError::NoCollector));
    end(&mut lab, call);
    assert_eq!(lab.try_command(0, report(call, Reported::Session)), Err(CommandError::UnknownCall));
    let unknown = crate::net::call_id(999);
    assert_eq!(lab.try_command(0, report(unknown, Reported::Session)), Err(CommandError::UnknownCall));
    lab.run(Duration::from_secs(60));
    assert_eq!(lab.sent(0, "PUBLISH "), 0);
    assert!(counted(&mut lab).is_empty());

    // A call that has no media yet has no quality; a minute after its end nobody asks for it any more.
    let mut lab = self::lab("sip:collector@10.0.0.2", |_| {});
    let (call, invite) = lab.call_out();
    assert_eq!(lab.try_command(0, report(call, Reported::Interval)), Err(CommandError::WrongState));
    let got = lab.tell(&reply(&invite, 200, "peer", crate::raw::CONTACT, SDP));
    assert!(got[0].starts_with("ACK "));
    end(&mut lab, call);
    lab.run(Duration::from_secs(61));
    assert_eq!(lab.try_command(0, report(call, Reported::Session)), Err(CommandError::UnknownCall));
    assert_eq!(lab.sent(0, "PUBLISH "), 0);

    // A reload turns it off, and on again.
    let mut trunk = config(A, B, sip_trunk::Transport::Udp).trunks.remove(0);
    let now = lab.now;
    lab.endpoint(0).reconfigure_trunk(now, trunk.clone()).unwrap();
    let (call, _) = lab.call_out_answered();
    assert_eq!(lab.try_command(0, report(call, Reported::Interval)), Err(CommandError::NoCollector));
    trunk.quality_collector = Some("sip:c@collector.example".parse().unwrap());
    let now = lab.now;
    assert_eq!(lab.endpoint(0).reconfigure_trunk(now, trunk.clone()), Err(CommandError::Unusable), "no DNS");
    trunk.quality_collector = Some("sip:10.0.0.2".parse().unwrap());
    lab.endpoint(0).reconfigure_trunk(now, trunk).unwrap();
    lab.command(0, report(call, Reported::Interval));
    lab.run_ms(20);
    assert!(lab.inbox(1)[0].starts_with("PUBLISH sip:10.0.0.2 SIP/2.0\r\n"));
}

// A collector need be no trunk: its answers are heard, and nothing else of it is.
#[test]
fn f25_a_collector_elsewhere_is_heard_only_while_it_owes_an_answer() {
    let mut lab = lab("sip:collector@10.0.0.50;transport=udp", |_| {});
    let stranger = |lab: &mut Lab| {
        lab.say(2, address(A), &Ask::new("OPTIONS").text());
        lab.run_ms(20);
        let got = lab.inbox(2);
        assert!(got.iter().all(|m| m.starts_with("SIP/2.0 403")) && got.len() == 1, "{got:?}");
    };
    stranger(&mut lab);
    let (call, _) = lab.call_out_answered();
    end(&mut lab, call);
    let publish = reported(&mut lab, call, 2);
    assert!(publish.starts_with("PUBLISH sip:collector@10.0.0.50;transport=udp SIP/2.0\r\n"));
    assert_eq!(header(&publish, "To"), "<sip:collector@10.0.0.50>", "no transport there");
    stranger(&mut lab);
    lab.say(2, address(A), &reply(&publish, 200, "c", "", ""));
    lab.run_ms(20);
    assert_eq!(counted(&mut lab), [("accepted", 1)]);
    assert!(lab.inbox(2).is_empty());
    let unread = |lab: &mut Lab| lab.endpoint(0).counters().refused["unknown_source"];
    let before = unread(&mut lab);
    lab.say(2, address(A), &reply(&publish, 200, "c", "", ""));
    lab.run_ms(20);
    assert_eq!(unread(&mut lab), before + 1, "no answer is due any more");
    assert!(lab.inbox(2).is_empty(), "a response is not answered");

    // RFC 3261 22.2: a challenge from anywhere else is not answered.
    let (call, _) = lab.call_out_answered();
    end(&mut lab, call);
    let publish = reported(&mut lab, call, 2);
    lab.tell(&reply(&publish, 401, "c", &format!("WWW-Authenticate: {CHALLENGE}"), ""));
    lab.run_ms(20);
    assert!(lab.inbox(2).is_empty() && lab.inbox(1).is_empty());
    assert_eq!(counted(&mut lab), [("accepted", 1), ("refused", 1)]);
}

// RFC 3261 18.1.1: what is too large for a datagram goes by TCP, and by UDP where there is none.
#[test]
fn f25_a_large_report_goes_by_tcp_and_else_by_udp() {
    let mut lab = lab("sip:collector@10.0.0.2", |trunk| trunk.largest_datagram = 1000);
    for open in [true, false] {
        if !open {
            lab.closed_ports.push(address(B));
            lab.cut_all();
            lab.run_ms(20);
            lab.inbox(1);
        }
        let (call, _) = lab.call_out_answered();
        end(&mut lab, call);
        lab.command(0, report(call, Reported::Session));
        lab.run_ms(60);
        let publish = lab.inbox(1).concat();
        let by = if open { "SIP/2.0/TCP" } else { "SIP/2.0/UDP" };
        assert!(publish.starts_with("PUBLISH ") && header(&publish, "Via").starts_with(by), "{publish}");
        assert_eq!(Body::of(&publish).session["VQSessionReport"], "CallTerm");
        let answer = reply(&publish, 200, "c", "", "");
        if open {
            let link = lab.latest_link(1);
            lab.raw_write(1, link, &answer);
            lab.run_ms(20);
        } else {
            lab.tell(&answer);
        }
    }
    assert_eq!(counted(&mut lab), [("accepted", 2)]);
}

// RFC 3263 4: a collector that is a name is looked up; a report waits for that, but not for long.
#[test]
fn f25_a_collector_that_is_a_name_is_found_by_dns() {
    let quality_collector: Option<Collector> = Some("sip:collector@pqos.example".parse().unwrap());
    for found in [true, false] {
        let mut farm = Farm::fixed(|config| {
            config.trunks[0].quality_collector = quality_collector.clone();
        });
        farm.zone = vec![a("pqos.example", T3)];
        farm.mute = !found;
        let call = farm.try_call().unwrap();
        farm.step(20);
        let (node, invite) = farm.invited().unwrap();
        farm.say(node, &reply(&invite, 200, "peer", crate::raw::CONTACT, SDP));
        farm.step(100);
        farm.command(0, report(call, Reported::Interval));
        farm.step(100);
        let published = |farm: &mut Farm| {
            let got: Vec<_> = (1..=3).flat_map(|n| farm.inbox(n).into_iter().map(move |m| (n, m))).collect();
            got.into_iter().filter(|(_, m)| m.starts_with("PUBLISH ")).map(|(n, _)| n).collect::<Vec<_>>()
        };
        if found {
            // T3 has port 5070: where DNS says nothing of it, it is 5060 (RFC 3263 4.2).
            let to = farm.log.iter().rev().find(|(.., text)| text.starts_with("PUBLISH "));
            assert_eq!(to.map(|(_, _, to, _)| *to), Some(address("10.0.0.13:5060")));
            assert!(farm.asked.iter().any(|(name, _)| name == "pqos.example"), "{:?}", farm.asked);
        } else {
            assert!(published(&mut farm).is_empty());
            farm.step(3_000);
            assert!(published(&mut farm).is_empty());
            let counters = farm.endpoint(0).counters();
            assert_eq!(counters.quality_reports.into_iter().collect::<Vec<_>>(), [("unreachable", 1)]);
        }
    }
}

// A name that is known late is not too late for the report that waits for it.
#[test]
fn f25_a_report_waits_for_dns() {
    let collector: Collector = "sip:collector@pqos.example".parse().unwrap();
    let mut farm = Farm::fixed(|config| config.trunks[0].quality_collector = Some(collector));
    farm.zone = vec![a("pqos.example", T2)];
    // The answer that Farm gave when it was made has been forgotten by then.
    farm.step(400_000);
    farm.mute = true;
    let call = farm.try_call().unwrap();
    farm.step(20);
    let (node, invite) = farm.invited().unwrap();
    farm.say(node, &reply(&invite, 200, "peer", crate::raw::CONTACT, SDP));
    farm.command(0, report(call, Reported::Interval));
    farm.step(1_000);
    let sent = |farm: &Farm| farm.sent(0, "PUBLISH ");
    assert_eq!(sent(&farm), 0);
    farm.mute = false;
    farm.step(100);
    assert_eq!(sent(&farm), 1);
    let (.., to, _) = farm.log.iter().rev().find(|(.., text)| text.starts_with("PUBLISH ")).unwrap();
    assert_eq!(*to, address("10.0.0.12:5060"));
    assert_ne!(*to, address(T1));
}

#[test]
fn f25_a_bad_collector_is_a_configuration_error() {
    let cases = [
        ("collector@example.com", CollectorError::Scheme),
        ("sips:collector@example.com", CollectorError::Scheme),
        ("https://example.com", CollectorError::Scheme),
        ("sip:@example.com", CollectorError::User),
        ("sip:a b@example.com", CollectorError::User),
        ("sip:a\r\nb@example.com", CollectorError::User),
        ("sip:collector@", CollectorError::Host),
        ("sip:collector@-_-.1", CollectorError::Host),
        ("sip:collector@[2001:db8::1", CollectorError::Host),
        ("sip:collector@2001:db8::1", CollectorError::Host),
        ("sip:collector@example.com:0", CollectorError::Port),
        ("sip:collector@example.com:sip", CollectorError::Port),
        ("sip:collector@example.com;=x", CollectorError::Parameter),
        ("sip:collector@example.com;a=", CollectorError::Parameter),
        ("sip:collector@example.com;a=\"b\"", CollectorError::Parameter),
        ("sip:collector@example.com;transport=ws", CollectorError::Transport),
        ("sip:collector@example.com>", CollectorError::Host),
        ("sip:collector@example.com?Event=x", CollectorError::Host),
    ];
    for (text, error) in cases {
        assert_eq!(text.parse::<Collector>(), Err(error), "{text:?}");
    }
    for text in ["sip:10.0.0.2", "SIP:c@[2001:db8::1]:5070;transport=TCP;x", "sip:%61@example.com:5060;lr"] {
        let collector: Collector = text.parse().unwrap();
        assert_eq!(collector.to_string(), text);
    }

    let built = |collector: &str, change: &dyn Fn(&mut EndpointConfig)| {
        let mut config = config(A, B, sip_trunk::Transport::Udp);
        config.trunks[0].quality_collector = Some(collector.parse().unwrap());
        change(&mut config);
        let lab = Lab::new();
        Endpoint::new(config, [7; 32], lab.now, 0).map(|_| ())
    };
    let refused = |collector: &str| match built(collector, &|_| {}) {
        Err(ConfigError::Collector { trunk, detail }) => format!("{trunk}: {detail}"),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        refused("sip:c@pqos.example"),
        "far: its collector sip:c@pqos.example is a name, which needs DNS"
    );
    assert_eq!(refused("sip:c@[2001:db8::1]"), "far: no listener is for its collector sip:c@[2001:db8::1]");
    assert!(refused("sip:c@10.0.0.9;transport=tls").contains("trunk's own host"));
    assert_eq!(built("sip:c@pqos.example", &|config| config.dns = true), Ok(()));
    assert_eq!(built("sip:c@10.0.0.9", &|_| {}), Ok(()));
    assert_eq!(built("sip:c@10.0.0.2", &|_| {}), Ok(()));
    // By way of an account nobody reaches its realm: the name must lead there.
    let collector: Collector = "sip:c@gw.example".parse().unwrap();
    let account = |config: &mut EndpointConfig| {
        let mut account = crate::accounts::account();
        account.trunk.quality_collector = Some(collector.clone());
        config.accounts.push(account);
    };
    let refused = built("sip:c@10.0.0.2", &account);
    assert!(matches!(&refused, Err(ConfigError::Collector { trunk, .. }) if trunk == "desk"), "{refused:?}");
    let mut lab = crate::accounts::lab();
    let mut desk = crate::accounts::account().trunk;
    desk.quality_collector = Some(collector.clone());
    let now = lab.now;
    assert_eq!(lab.endpoint(0).reconfigure_trunk(now, desk), Err(CommandError::Unusable));
    let tcp_only = |config: &mut EndpointConfig| config.listeners.truncate(1);
    assert!(built("sip:c@10.0.0.9;transport=tcp", &tcp_only).is_err());
}
