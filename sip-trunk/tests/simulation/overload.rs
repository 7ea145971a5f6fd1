//! Rows G02 and G03: overload control between neighbours (RFC 7339), and the limits of a trunk.

use std::collections::BTreeMap;
use std::time::Duration;

use call_model::Cause;
use sip_trunk::{Command, CommandError, Event, Limits, Timers, Waited};

use crate::net::{A_RTP, address, call_id, caller, media, number, trunk_name};
use crate::raw::{Ask, Lab, header, headers, reply, status};
use crate::targets::{Farm, T1};

/// An INVITE of a peer that takes part.
fn ask(n: u32) -> Ask {
    let mut ask = Ask::invite().branch(&format!("oc{n};oc;oc-algo=\"loss,A\""));
    ask.call_id = format!("oc{n}");
    ask
}

fn parameters(text: &str) -> BTreeMap<String, String> {
    let via = header(text, "Via");
    let pairs = via.split(';').skip(1).filter_map(|p| p.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect()
}

fn late(lab: &mut Lab, delay_ms: u64) {
    let now = lab.now;
    lab.endpoint(0).handle_load(now, Waited::Datagram, 10, Duration::from_millis(delay_ms));
}

/// Tells the gateway for some seconds how late it is.
fn load(lab: &mut Lab, seconds: u64, delay_ms: u64) {
    for _ in 0..seconds * 50 {
        late(lab, delay_ms);
        lab.run_ms(20);
    }
}

// RFC 7339 4, 5.2.
#[test]
fn g02_a_peer_that_takes_part_is_told_how_much_to_hold_back() {
    let mut lab = Lab::new();
    let got = lab.tell(&ask(1).text());
    assert_eq!(status(&got[0]), 100);
    let idle = parameters(&got[0]);
    assert_eq!(
        (idle["oc"].as_str(), idle["oc-algo"].as_str(), idle["oc-validity"].as_str()),
        ("0", "loss", "0")
    );
    assert!(header(&got[0], "Via").contains("branch=z9hG4bKoc1;"));
    load(&mut lab, 1, 150);
    let got = lab.tell(&ask(2).text());
    assert_eq!(status(&got[0]), 100, "it holds back by itself");
    let busy = parameters(&got[0]);
    let percent: u32 = busy["oc"].parse().unwrap();
    assert!((50..=95).contains(&percent), "{percent}");
    assert_eq!(busy["oc-validity"], "500");
    let sequence = |p: &BTreeMap<String, String>| p["oc-seq"].parse::<f64>().unwrap();
    assert!(sequence(&busy) > sequence(&idle));
    let (whole, part) = busy["oc-seq"].split_once('.').unwrap();
    assert!(whole.len() <= 12 && (1..=5).contains(&part.len()));
    // Who does not take part is told nothing in its Via, and refused instead.
    let mut refused = 0;
    for n in 0..200 {
        late(&mut lab, 60);
        let mut plain = Ask::invite().branch(&format!("plain{n}"));
        plain.call_id = format!("plain{n}");
        let got = lab.tell(&plain.text());
        assert!(!header(&got[0], "Via").contains("oc="));
        if status(&got[0]) == 503 {
            refused += 1;
            let after: u32 = header(&got[0], "Retry-After").parse().unwrap();
            assert!((1..=10).contains(&after));
            assert!(header(&got[0], "Warning").contains("Overloaded"));
        }
    }
    assert!(refused > 20, "{refused}");
    // Who says so and does not hold back is refused as well, when it is very late; 503 says it too.
    load(&mut lab, 2, 400);
    let mut refusals = Vec::new();
    for n in 100..140 {
        late(&mut lab, 400);
        refusals.extend(lab.tell(&ask(n).text()).into_iter().filter(|m| status(m) == 503));
    }
    assert!(!refusals.is_empty());
    assert!(parameters(&refusals[0])["oc"].parse::<u32>().unwrap() > 80);
    // It is over soon.
    load(&mut lab, 5, 0);
    for n in 200..230 {
        let got = lab.tell(&ask(n).text());
        assert_eq!(status(&got[0]), 100);
        assert_eq!(parameters(&got[0])["oc"], "0");
    }
}

// RFC 7339 5.10.1, RFC 7135.
#[test]
fn g02_emergency_calls_and_calls_that_stand_are_not_held_back() {
    let mut lab = Lab::with(|config| {
        config.emergency = vec!["112".to_owned()];
        config.trunks[0].max_call_rate = Some(1);
    });
    let (call, ok) = lab.call_in_answered();
    load(&mut lab, 20, 2000);
    for n in 0..50 {
        late(&mut lab, 2000);
        let mut sos = Ask::invite().branch(&format!("sos{n}"));
        sos.call_id = format!("sos{n}");
        match n % 2 {
            0 => sos.uri = "sip:112@10.0.0.1".to_owned(),
            _ => sos = sos.line("Resource-Priority: esnet.1"),
        }
        assert_eq!(status(&lab.tell(&sos.text())[0]), 100, "{n}");
    }
    let mut refused = 0;
    for n in 0..4 {
        let mut ordinary = Ask::invite().branch(&format!("ordinary{n}"));
        ordinary.call_id = format!("ordinary{n}");
        refused += u32::from(status(&lab.tell(&ordinary.text())[0]) == 503);
    }
    assert!(refused >= 3, "{refused}");
    let info = Ask::within(&ok, "INFO", 2).text();
    assert_eq!(status(&lab.tell(&info)[0]), 200);
    let bye = Ask::within(&ok, "BYE", 3).text();
    assert_eq!(status(&lab.tell(&bye)[0]), 200);
    assert!(lab.take(0).iter().any(|e| matches!(e, Event::Ended { call: of, .. } if *of == call)));
}

// RFC 7339 5.3.
#[test]
fn g02_a_peer_that_asks_to_be_spared_is_spared() {
    let mut farm = Farm::fixed(|config| {
        config.trunks[0].backups.clear();
        config.trunks[0].overload_control = true;
        config.emergency = vec!["442079460018".to_owned()];
    });
    let invite = farm.call().1;
    assert!(header(&invite, "Via").ends_with(";oc;oc-algo=\"loss\""), "{invite}");
    let told = reply(&invite, 486, "x", "", "").replacen(
        ";oc;oc-algo=\"loss\"",
        ";oc=60;oc-algo=\"loss\";oc-validity=30000;oc-seq=1.5",
        1,
    );
    farm.say(1, &told);
    assert_eq!(farm.endpoint(0).trunk_status()[0].targets[0].reduction_percent, 60);
    let place = |farm: &mut Farm, n: u64, called: &str| {
        let invite = Command::Invite {
            call: call_id(1000 + n),
            trunk: trunk_name("far"),
            called: number(called),
            caller: caller("+12025550100"),
            media: media(A_RTP),
        };
        farm.try_command(0, invite)
    };
    let results: Vec<_> = (0..400).map(|n| place(&mut farm, n, "+12025550199")).collect();
    let spared = results.iter().filter(|r| **r == Err(CommandError::Overloaded)).count();
    assert!((200..280).contains(&spared), "{spared} of 400");
    // An emergency call goes out all the same.
    for n in 500..550 {
        assert_eq!(place(&mut farm, n, "+442079460018"), Ok(()));
    }
    farm.step(31_000);
    assert!((600..650).all(|n| place(&mut farm, n, "+12025550199").is_ok()), "its time is over");
    assert_eq!(farm.endpoint(0).trunk_status()[0].targets[0].address, address(T1));
}

#[test]
fn g03_calls_a_second_channels_and_load_are_told_apart() {
    let mut lab = Lab::with(|config| config.trunks[0].max_call_rate = Some(5));
    let call = |lab: &mut Lab, n: u32| {
        let mut invite = Ask::invite().branch(&format!("rate{n}"));
        invite.call_id = format!("rate{n}");
        let to = lab.gateway;
        lab.say(1, to, &invite.text());
        lab.run_ms(10);
        lab.inbox(1).remove(0)
    };
    let mut answers: Vec<_> = (0..8).map(|n| call(&mut lab, n)).collect();
    assert_eq!(answers.iter().filter(|m| status(m) == 100).count(), 5);
    let refused = answers.pop().unwrap();
    assert_eq!(status(&refused), 503);
    assert!(header(&refused, "Reason").starts_with("Q.850;cause=42"));
    assert_eq!(header(&refused, "Warning"), "399 causeway \"Too many calls a second\"");
    assert!(header(&refused, "Retry-After").parse::<u32>().unwrap() >= 1);
    assert_eq!(lab.endpoint(0).counters().refused["call_rate"], 3);
    // The limit is of both ways together.
    let placed = lab.try_command(
        0,
        Command::Invite {
            call: call_id(9),
            trunk: trunk_name("far"),
            called: number("+442079460018"),
            caller: caller("+12025550100"),
            media: media(A_RTP),
        },
    );
    assert_eq!(placed, Err(CommandError::TooFast));
    lab.run_ms(1000);
    assert_eq!(status(&call(&mut lab, 20)), 100);

    let mut lab = Lab::with(|config| config.trunks[0].max_calls = 1);
    assert_eq!(status(&call(&mut lab, 0)), 100);
    let refused = call(&mut lab, 1);
    assert_eq!(status(&refused), 503);
    assert!(header(&refused, "Reason").starts_with("Q.850;cause=34"), "{refused}");
    assert_eq!(header(&refused, "Warning"), "399 causeway \"All channels are in use\"");
    assert_eq!(lab.endpoint(0).counters().refused["channels"], 1);
    assert_eq!(headers(&refused, "Reason").len(), 1);
    assert_eq!(Cause::NO_CIRCUIT_AVAILABLE.value(), 34);
}

// RFC 3261 17.2.2, RFC 6026 7.1: over UDP a transaction that is over stays for 64 times T1. What a gateway is rated
// for must fit, with all calls from one PBX, for longer than that.
#[test]
fn g03_the_tables_hold_what_a_thousand_calls_a_second_leave() {
    let mut lab = Lab::new();
    let (_, ok) = lab.call_in_answered();
    assert_eq!(status(&lab.tell(&Ask::within(&ok, "BYE", 2).text())[0]), 200);
    let stays = Timers::default().give_up();
    lab.run_ms(stays.as_millis() as u64 - 100);
    let of_a_call = lab.endpoint(0).counters().server_transactions;
    assert_eq!((of_a_call, lab.endpoint(0).counters().held_calls), (2, 0));
    let (limits, at_a_time) = (Limits::default(), of_a_call * 1_000 * stays.as_secs() as usize);
    assert!(limits.transactions_per_source >= 2 * at_a_time && limits.transactions >= 4 * at_a_time);
    lab.run_ms(200);
    assert_eq!(lab.endpoint(0).counters().server_transactions, 0);
}
