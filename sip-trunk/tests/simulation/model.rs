//! Random commands on both sides of a bad network: every call ends exactly once on each side that
//! knew it, and nothing is left behind.

use std::collections::BTreeMap;
use std::time::Duration;

use call_model::{CallId, Cause, DtmfDigit};
use sip_trunk::sdp::Srtp;
use sip_trunk::trunk::profile::Modify;
use sip_trunk::{
    Command, Event, InfoDigits, RedirectPolicy, Reliable, Replacing, TransferTarget, Transfers, Transport,
};

use crate::net::{A_RTP, B_RTP, Dice, Pair, Weather, call_id, caller, media, number, trunk_name};

#[derive(Default)]
struct Known {
    incoming: bool,
    ends: usize,
    answered: bool,
}

fn play(seed: u64, transport: Transport) {
    let mut pair = Pair::with(transport, |a, b| {
        for (side, config) in [a, b].into_iter().enumerate() {
            config.trunks[0].ring_timeout = Duration::from_secs(40);
            // Every pair of policies comes up.
            let policy = seed as usize / [1, 3][side] % 3;
            config.trunks[0].reliable_provisional =
                [Reliable::Supported, Reliable::Required, Reliable::Off][policy];
            config.trunks[0].delayed_offer = seed % 4 == 3;
            config.trunks[0].srtp = [Srtp::Never, Srtp::Preferred][seed as usize / [2, 5][side] % 2];
            config.trunks[0].session_expires = (seed % 5 == 4).then_some(90);
            config.trunks[0].modify = [Modify::ReInvite, Modify::Update][seed as usize / 7 % 2];
            config.trunks[0].p_early_media = seed.is_multiple_of(3);
            config.trunks[0].info_digits = Some(InfoDigits::Relay);
            config.trunks[0].transfers = Transfers::Accept;
        }
    });
    let mut dice = Dice::new(seed);
    pair.net.dice = Dice::new(seed ^ 0xfeed);
    pair.net.weather = Weather {
        loss_percent: dice.below(30),
        duplicate_percent: dice.below(20),
        jitter_ms: dice.below(700),
    };
    let mut known: [BTreeMap<CallId, Known>; 2] = Default::default();
    let mut next = 1;
    for _ in 0..60 {
        let side = dice.below(2) as usize;
        let rtp = media([A_RTP, B_RTP][side]);
        let calls: Vec<_> = known[side].iter().filter(|(_, k)| k.ends == 0).map(|(id, _)| *id).collect();
        let command = if calls.is_empty() || dice.chance(30) {
            next += 1;
            let call = call_id(next);
            known[side].insert(call, Known::default());
            Command::Invite {
                call,
                trunk: trunk_name("far"),
                called: number("+442079460018"),
                caller: caller("+12025550100"),
                media: rtp,
            }
        } else {
            let call = calls[dice.below(calls.len() as u64) as usize];
            let other = calls[dice.below(calls.len() as u64) as usize];
            let to = |blind| match blind {
                true => TransferTarget::Address(number("+442079460019")),
                false => TransferTarget::Call(other),
            };
            match dice.below(13) {
                12 => Command::Dtmf { call, digit: DtmfDigit::from_char('5').unwrap(), duration_ms: 100 },
                0 => Command::Ringing { call },
                1 => Command::Progress { call, media: rtp },
                2..=4 => Command::Answer { call, media: rtp },
                5 => Command::Hold { call, on: dice.chance(50) },
                6 => Command::Transfer { call, to: to(dice.chance(50)), referred_by: None },
                7 => Command::RefuseTransfer { call, status: 403 },
                8 => Command::AcceptTransfer { call },
                9 => Command::ReportTransfer { call, status: 100 + dice.below(300) as u16 },
                _ => Command::Release { call, cause: Cause::USER_BUSY },
            }
        };
        let invited = match &command {
            Command::Invite { call, .. } => Some(*call),
            _ => None,
        };
        if pair.try_command(side, command).is_err()
            && let Some(call) = invited
        {
            known[side].remove(&call);
        }
        let pause = dice.below(1500);
        pair.run_ms(pause);
        note(&mut pair, &mut known, seed);
        if transport == Transport::Tcp && dice.chance(5) {
            pair.cut_all();
        }
    }
    // Whoever is still in a call hangs up.
    for (side, calls) in known.iter().enumerate() {
        for (call, state) in calls {
            if state.ends == 0 {
                let _ = pair
                    .try_command(side, Command::Release { call: *call, cause: Cause::NORMAL_CALL_CLEARING });
            }
        }
    }
    pair.run(Duration::from_secs(400));
    note(&mut pair, &mut known, seed);
    for (side, calls) in known.iter().enumerate() {
        for (call, state) in calls {
            assert_eq!(
                state.ends, 1,
                "seed {seed} {transport:?}: side {side} call {call} ended {} times",
                state.ends
            );
        }
    }
    println!("seed {seed} {transport:?}: {} and {} calls", known[0].len(), known[1].len());
    pair.assert_empty(0);
    pair.assert_empty(1);
}

fn note(pair: &mut Pair, known: &mut [BTreeMap<CallId, Known>; 2], seed: u64) {
    for (side, known) in known.iter_mut().enumerate() {
        for event in pair.take(side) {
            let (call, incoming, end, answered) = match &event {
                Event::Incoming { call, .. } => (*call, true, false, false),
                Event::Ended { call, .. } => (*call, false, true, false),
                Event::Answered { call } => (*call, false, false, true),
                Event::Trying { call }
                | Event::Ringing { call }
                | Event::Media { call, .. }
                | Event::TransferRequested { call, .. }
                | Event::TransferProgress { call, .. }
                | Event::TransferEnded { call, .. } => (*call, false, false, false),
                _ => continue,
            };
            if incoming {
                let new = known.insert(call, Known { incoming, ..Known::default() });
                assert!(new.is_none(), "seed {seed}: Incoming twice");
            }
            let state = known.get_mut(&call).unwrap_or_else(|| panic!("seed {seed}: {event:?} of nothing"));
            assert_eq!(state.ends, 0, "seed {seed}: {event:?} after Ended");
            assert!(!(answered && (state.answered || state.incoming)), "seed {seed}: {event:?}");
            state.answered |= answered;
            state.ends += usize::from(end);
        }
    }
}

#[test]
fn calls_end_once_and_nothing_is_left_on_a_bad_udp_network() {
    for seed in 0..150 {
        play(seed, Transport::Udp);
    }
}

#[test]
fn calls_end_once_and_nothing_is_left_on_tcp_that_breaks() {
    for seed in 1000..1060 {
        play(seed, Transport::Tcp);
    }
}

/// Nothing that comes from a trunk's address may panic or leave anything behind.
#[test]
fn mutated_messages_do_no_harm() {
    use crate::raw::{Ask, CONTACT, Lab, SDP, header, reply};
    for seed in 0..40 {
        let mut dice = Dice::new(seed);
        let mut lab = Lab::with(|config| {
            config.trunks[0].srtp = Srtp::Preferred;
            config.trunks[0].p_early_media = true;
            let trunk = &mut config.trunks[0];
            (trunk.transfers, trunk.replacing) = (Transfers::Accept, Replacing::Both);
            trunk.redirects.policy = RedirectPolicy::SameHost;
        });
        let (out, invite) = lab.call_out();
        let call = lab.call_in(&Ask::invite().text());
        lab.command(0, Command::Answer { call, media: media(A_RTP) });
        lab.run_ms(20);
        let ok = lab.inbox(1).into_iter().find(|m| m.starts_with("SIP/2.0 200")).unwrap();
        let secure = format!("{SDP}{}", crate::secure::TEAMS_KEY);
        let seeds = [
            reply(&invite, 183, "peer", CONTACT, SDP),
            reply(&invite, 183, "key", &format!("{CONTACT}P-Early-Media: inactive\r\n"), &secure),
            Ask::within(&ok, "INVITE", 6).body(&secure).text(),
            Ask::within(&ok, "INFO", 7)
                .body("Signal=5\r\nDuration=160\r\n")
                .text()
                .replace("/sdp", "/dtmf-relay"),
            reply(&invite, 183, "fork", &format!("{CONTACT}Require: 100rel\r\nRSeq: 1\r\n"), SDP),
            Ask::back(&invite, "UPDATE", 1).body(SDP).text(),
            Ask::invite().branch("rel").line("Require: 100rel").text(),
            Ask::within(&ok, "PRACK", 2).line("RAck: 1 1 INVITE").body(SDP).text(),
            reply(&invite, 200, "peer", CONTACT, SDP),
            reply(&invite, 401, "peer", "WWW-Authenticate: Digest realm=\"x\", nonce=\"y\"\r\n", ""),
            Ask::invite().branch("q").text(),
            Ask::within(&ok, "ACK", 1).text(),
            Ask::within(&ok, "INVITE", 2).body(SDP).text(),
            Ask::within(&ok, "UPDATE", 3).line("Session-Expires: 90;refresher=uas").text(),
            Ask::within(&ok, "INFO", 4).text(),
            Ask::within(&ok, "BYE", 5).text(),
            Ask::within(&ok, "REFER", 6)
                .line("Refer-To: <sip:+442079460019@h?Replaces=a%3Bto-tag%3D1%3Bfrom-tag%3D2>")
                .text(),
            Ask::within(&ok, "NOTIFY", 7)
                .line("Event: refer;id=9")
                .line("Subscription-State: terminated")
                .body("SIP/2.0 200 OK")
                .text()
                .replace("application/sdp", "message/sipfrag"),
            reply(
                &invite,
                302,
                "peer",
                "Contact: <sip:+442079460019@10.0.0.2>;q=0.5, <tel:+442079460020>\r\n",
                "",
            ),
            Ask::invite()
                .branch("r")
                .line(&format!(
                    "Replaces: c1@10.0.0.2;to-tag={};from-tag=bob",
                    header(&ok, "To").split("tag=").nth(1).unwrap()
                ))
                .text(),
        ];
        for _ in 0..200 {
            let mut bytes = seeds[dice.below(seeds.len() as u64) as usize].clone().into_bytes();
            for _ in 0..=dice.below(4) {
                let at = dice.below(bytes.len() as u64) as usize;
                match dice.below(4) {
                    0 => bytes[at] = dice.number() as u8,
                    1 => bytes.truncate(at.max(1)),
                    2 => bytes.insert(at, b"\r\n;,<>\"=:@ 0"[dice.below(12) as usize]),
                    _ => {
                        bytes.remove(at);
                        if bytes.is_empty() {
                            bytes.push(b' ');
                        }
                    }
                }
            }
            let to = lab.gateway;
            lab.say_from(crate::net::address(crate::net::B), to, &bytes);
            lab.run_ms(30);
            let _ = match dice.below(8) {
                0 => lab.try_command(0, Command::AcceptTransfer { call }),
                1 => lab.try_command(0, Command::ReportTransfer { call, status: 180 }),
                2 => lab.try_command(0, Command::FollowRedirect { call: out, contact: 0 }),
                3 => {
                    let to = TransferTarget::Call(out);
                    lab.try_command(0, Command::Transfer { call, to, referred_by: None })
                }
                _ => Ok(()),
            };
        }
        lab.run(Duration::from_secs(90_000));
        for call in lab.events[0]
            .iter()
            .filter_map(|e| match e {
                Event::Incoming { call, .. } | Event::Replacing { call, .. } => Some(*call),
                _ => None,
            })
            .chain([call_id(77)])
            .collect::<Vec<_>>()
        {
            let _ = lab.try_command(0, Command::Release { call, cause: Cause::NORMAL_CALL_CLEARING });
        }
        lab.run(Duration::from_secs(300));
        lab.assert_empty(0);
        println!("seed {seed} done");
    }
}
