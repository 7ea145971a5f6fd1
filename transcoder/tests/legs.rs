//! WebRTC legs against each other: negotiation, ICE in every pairing, DTLS, refusals.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use transcoder::codec::g711::Law;
use transcoder::codec::opus::{Encoder, EncoderConfig, MAX_PACKET};
use transcoder::leg::PayloadKind;
use transcoder::leg::webrtc::{LegEvent, LegFailure};
use transcoder::{DtlsIdentity, MediaError, WebRtcConfig, WebRtcLeg};

#[path = "common/mod.rs"]
mod common;
use common::{Network, Random, address};

struct End {
    leg: WebRtcLeg,
    address: SocketAddr,
    events: Vec<LegEvent>,
}

impl End {
    fn new(net: &Network, identity: &DtlsIdentity, text: &str, ice_lite: bool) -> Self {
        Self::with_g711(net, identity, text, ice_lite, false)
    }

    fn with_g711(net: &Network, identity: &DtlsIdentity, text: &str, ice_lite: bool, g711: bool) -> Self {
        let address = address(text);
        let config = WebRtcConfig { local: vec![address], ice_lite, g711, redundancy: false };
        Self { leg: WebRtcLeg::new(config, identity, net.now).unwrap(), address, events: Vec::new() }
    }

    fn collect(&mut self) {
        while let Some(event) = self.leg.poll_event() {
            self.events.push(event);
        }
    }

    fn packets(&self, kind: PayloadKind) -> Vec<Vec<u8>> {
        let packets = self.events.iter().filter_map(|event| match event {
            LegEvent::Packet(packet) if packet.kind == kind => Some(packet.payload.to_vec()),
            _ => None,
        });
        packets.collect()
    }

    fn failure(&self) -> Option<LegFailure> {
        self.events.iter().find_map(|event| match event {
            LegEvent::Failed(failure) => Some(*failure),
            _ => None,
        })
    }
}

fn run(net: &mut Network, ends: &mut [End; 2], duration: Duration) {
    let until = net.now + duration;
    loop {
        while let Some(datagram) = net.due() {
            let now = net.now;
            for end in ends.iter_mut().filter(|end| end.address == datagram.to) {
                end.leg.handle_datagram(
                    now,
                    datagram.to,
                    datagram.from,
                    &datagram.bytes,
                    &mut |from, to, bytes| {
                        net.send(from, to, bytes);
                    },
                );
                end.collect();
            }
        }
        let now = net.now;
        for end in ends.iter_mut() {
            if end.leg.poll_timeout().is_some_and(|at| at <= now) {
                end.leg.handle_timeout(now, &mut |from, to, bytes| net.send(from, to, bytes));
                end.collect();
            }
        }
        let timers = ends.iter().filter_map(|end| end.leg.poll_timeout());
        let next = timers.chain(net.next_at()).min().unwrap_or(until);
        if next >= until {
            net.now = until;
            return;
        }
        // A timer that is still due waits a moment, as it would in a real loop.
        net.now = next.max(net.now + Duration::from_micros(10));
    }
}

fn connected(net: &mut Network, offerer_lite: bool, answerer_lite: bool) -> [End; 2] {
    connected_with_g711(net, offerer_lite, answerer_lite, false)
}

fn connected_with_g711(net: &mut Network, offerer_lite: bool, answerer_lite: bool, g711: bool) -> [End; 2] {
    let (a, b) = (DtlsIdentity::generate().unwrap(), DtlsIdentity::generate().unwrap());
    let mut offerer = End::with_g711(net, &a, "192.0.2.1:4000", offerer_lite, g711);
    let mut answerer = End::with_g711(net, &b, "192.0.2.2:5000", answerer_lite, g711);
    let offer = offerer.leg.create_offer().unwrap();
    let answer = answerer.leg.accept_offer(&offer).unwrap();
    offerer.leg.accept_answer(&answer).unwrap();
    let mut ends = [offerer, answerer];
    run(net, &mut ends, Duration::from_secs(3));
    ends
}

#[test]
fn every_pairing_of_ice_and_ice_lite_carries_voice_and_digits() {
    for (offerer_lite, answerer_lite) in [(false, false), (true, false), (false, true)] {
        let mut net = Network::new(1);
        let mut ends = connected(&mut net, offerer_lite, answerer_lite);
        assert!(ends[0].leg.is_connected() && ends[1].leg.is_connected(), "{offerer_lite} {answerer_lite}");
        assert!(ends.iter().all(|end| end.leg.has_telephone_event()));
        for (from, to) in [(0, 1), (1, 0)] {
            for n in 0..10u8 {
                let now = net.now;
                let timestamp = u32::from(n) * 960;
                let event = n >= 5;
                let kind = if event { PayloadKind::TelephoneEvent } else { PayloadKind::Audio };
                assert!(ends[from].leg.send(
                    now,
                    kind,
                    timestamp,
                    n == 0,
                    &[n, 1, 2, 3],
                    &mut |from, to, bytes| {
                        net.send(from, to, bytes);
                    }
                ));
                run(&mut net, &mut ends, Duration::from_millis(20));
            }
            let audio: Vec<u8> = ends[to].packets(PayloadKind::Audio).iter().map(|p| p[0]).collect();
            assert_eq!(audio, [0, 1, 2, 3, 4]);
            let events: Vec<u8> =
                ends[to].packets(PayloadKind::TelephoneEvent).iter().map(|p| p[0]).collect();
            assert_eq!(events, [5, 6, 7, 8, 9]);
        }
        // An idle leg outlives consent checks.
        run(&mut net, &mut ends, Duration::from_secs(60));
        assert!(ends.iter().all(|end| end.leg.is_connected() && end.failure().is_none()));
    }
}

/// RFC 7587 6.1 and 7, RFC 4733 2.4.
#[test]
fn a_gateway_describes_narrow_band_opus_and_telephone_events() {
    let net = Network::new(1);
    let identity = DtlsIdentity::generate().unwrap();
    let mut gateway = End::new(&net, &identity, "192.0.2.1:4000", true);
    let offer = gateway.leg.create_offer().unwrap();
    assert!(offer.contains("a=rtpmap:111 opus/48000/2\r\n"), "{offer}");
    let fmtp = offer.lines().find(|line| line.starts_with("a=fmtp:111 ")).unwrap();
    for parameter in ["useinbandfec=1", "maxplaybackrate=8000", "sprop-maxcapturerate=8000"] {
        assert!(fmtp.contains(parameter), "{fmtp}");
    }
    assert!(!fmtp.contains("stereo=1"));
    assert!(offer.contains("a=rtpmap:110 telephone-event/48000\r\n") && offer.contains("a=fmtp:110 0-15"));
    assert!(offer.contains("a=ice-lite") && offer.contains("a=rtcp-mux"));

    let mut peer = End::new(&net, &identity, "192.0.2.2:5000", false);
    let answer = peer.leg.accept_offer(&offer).unwrap();
    assert_eq!(peer.leg.remote_playback_rate(), 8_000);
    assert!(!answer.contains("maxplaybackrate"));
    gateway.leg.accept_answer(&answer).unwrap();
    assert_eq!(gateway.leg.remote_playback_rate(), 48_000);
}

#[test]
fn a_peer_without_telephone_events_or_without_opus() {
    let net = Network::new(1);
    let identity = DtlsIdentity::generate().unwrap();
    let mut peer = End::new(&net, &identity, "192.0.2.2:5000", false);
    let offer = peer.leg.create_offer().unwrap();
    let only_voice: String = offer
        .lines()
        .filter(|line| !line.starts_with("a=rtpmap:110") && !line.starts_with("a=fmtp:110"))
        .map(|line| format!("{}\r\n", line.replace(" 111 110", " 111")))
        .collect();
    let mut gateway = End::new(&net, &identity, "192.0.2.1:4000", true);
    gateway.leg.accept_offer(&only_voice).unwrap();
    assert!(!gateway.leg.has_telephone_event());

    let no_opus = offer.replace("opus/48000/2", "isac/48000/2");
    let mut gateway = End::new(&net, &identity, "192.0.2.1:4000", true);
    assert_eq!(gateway.leg.accept_offer(&no_opus), Err(MediaError::NoOpus));
    assert!(gateway.leg.is_over());
}

/// RFC 8122 5.
#[test]
fn a_certificate_that_is_not_the_described_one_ends_the_leg() {
    let mut net = Network::new(1);
    let (a, b) = (DtlsIdentity::generate().unwrap(), DtlsIdentity::generate().unwrap());
    let mut gateway = End::new(&net, &a, "192.0.2.1:4000", true);
    let mut peer = End::new(&net, &b, "192.0.2.2:5000", false);
    let offer = peer.leg.create_offer().unwrap();
    let line = offer.lines().find(|line| line.starts_with("a=fingerprint:")).unwrap();
    let last = line.chars().last().unwrap();
    let forged = format!("{}{}", &line[..line.len() - 1], if last == '0' { '1' } else { '0' });
    let answer = gateway.leg.accept_offer(&offer.replace(line, &forged)).unwrap();
    peer.leg.accept_answer(&answer).unwrap();
    let mut ends = [gateway, peer];
    run(&mut net, &mut ends, Duration::from_secs(5));
    assert_eq!(ends[0].failure(), Some(LegFailure::Fingerprint));
    assert!(!ends[0].leg.is_connected() && ends[0].leg.poll_timeout().is_none());
    let failures = ends[0].events.iter().filter(|event| matches!(event, LegEvent::Failed(_))).count();
    assert_eq!(failures, 1);
}

#[test]
fn a_peer_that_never_comes_or_goes_away_is_reported() {
    let mut net = Network::new(1);
    let mut ends = connected(&mut net, false, true);
    assert!(ends[1].leg.is_connected());
    net.weather.loss_per_mille = 1000;
    run(&mut net, &mut ends, Duration::from_secs(90));
    assert_eq!(ends[0].failure(), Some(LegFailure::Lost));
    assert_eq!(ends[1].failure(), Some(LegFailure::Lost));

    let mut net = Network::new(1);
    net.weather.loss_per_mille = 1000;
    let ends = connected(&mut net, false, false);
    let mut ends = ends;
    run(&mut net, &mut ends, Duration::from_secs(30));
    assert_eq!(ends[0].failure(), Some(LegFailure::Unreachable));
}

#[test]
fn a_closed_leg_tells_the_other() {
    let mut net = Network::new(1);
    let mut ends = connected(&mut net, false, true);
    let now = net.now;
    ends[0].leg.close(now, &mut |from, to, bytes| net.send(from, to, bytes));
    assert!(ends[0].leg.is_over());
    run(&mut net, &mut ends, Duration::from_secs(1));
    assert_eq!(ends[1].failure(), Some(LegFailure::Closed));
}

#[test]
fn bad_descriptions_are_errors_and_never_panic() {
    let net = Network::new(1);
    let identity = DtlsIdentity::generate().unwrap();
    let offer = End::new(&net, &identity, "192.0.2.2:5000", false).leg.create_offer().unwrap();
    let refuse = |sdp: &str| {
        let mut gateway = End::new(&net, &identity, "192.0.2.1:4000", true);
        let result = gateway.leg.accept_offer(sdp);
        assert_eq!(result.is_err(), gateway.leg.is_over());
        // A dead leg takes no harm from time.
        gateway.leg.handle_timeout(net.now, &mut |_, _, _| {});
        result
    };
    assert_eq!(refuse(&format!("{offer}{}", "a=x:y\r\n".repeat(4000))), Err(MediaError::SdpTooLong));
    let candidate = "a=candidate:1 1 udp 2130706175 192.0.2.9 9 typ host\r\n";
    assert_eq!(refuse(&format!("{offer}{}", candidate.repeat(64))), Err(MediaError::SdpTooLong));
    assert_eq!(refuse(""), Err(MediaError::NotOneAudio));
    assert_eq!(refuse(&offer.replace("m=audio", "m=video")), Err(MediaError::NotOneAudio));
    let rejected = offer.replace("m=audio 9", "m=audio 0");
    assert_eq!(refuse(&rejected), Err(MediaError::NotOneAudio));
    let without = |prefix: &str| -> String {
        offer.lines().filter(|line| !line.starts_with(prefix)).map(|line| format!("{line}\r\n")).collect()
    };
    for prefix in ["a=fingerprint", "a=ice-ufrag", "a=ice-pwd"] {
        assert!(
            matches!(refuse(&without(prefix)), Err(MediaError::SdpRefused(_) | MediaError::SdpSyntax)),
            "{prefix}"
        );
    }
    assert!(matches!(
        refuse(&offer.replace("m=audio", "a=ice-lite\r\nm=audio")),
        Err(MediaError::SdpRefused(_))
    ));
    // Every line left out, every line cut short, and bytes turned at random.
    let lines: Vec<&str> = offer.lines().collect();
    for skipped in 0..lines.len() {
        let rest: String = lines
            .iter()
            .enumerate()
            .filter(|(n, _)| *n != skipped)
            .map(|(_, line)| format!("{line}\r\n"))
            .collect();
        let _ = refuse(&rest);
        let half: String =
            lines[..skipped].join("\r\n") + "\r\n" + &lines[skipped][..lines[skipped].len() / 2];
        let _ = refuse(&half);
    }
    let mut random = Random(7);
    for _ in 0..500 {
        let mut bytes = offer.clone().into_bytes();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = random.next() as u8 & 0x7f;
        }
        let _ = refuse(&String::from_utf8(bytes).unwrap());
    }
}

#[test]
fn answers_and_offers_out_of_order_are_refused() {
    let net = Network::new(1);
    let identity = DtlsIdentity::generate().unwrap();
    let mut peer = End::new(&net, &identity, "192.0.2.2:5000", false);
    assert_eq!(peer.leg.accept_answer("v=0"), Err(MediaError::OutOfOrder));
    let offer = peer.leg.create_offer().unwrap();
    assert_eq!(peer.leg.create_offer(), Err(MediaError::OutOfOrder));
    assert_eq!(peer.leg.accept_offer(&offer), Err(MediaError::OutOfOrder));
    let empty = WebRtcConfig { local: vec![], ice_lite: true, ..WebRtcConfig::default() };
    assert_eq!(WebRtcLeg::new(empty, &identity, net.now).unwrap_err(), MediaError::LocalAddressCount);
    let any = WebRtcConfig { local: vec![address("0.0.0.0:0")], ice_lite: true, ..WebRtcConfig::default() };
    assert_eq!(WebRtcLeg::new(any, &identity, net.now).unwrap_err(), MediaError::LocalAddress);
}

/// Strangers and garbage, also from the right address, change nothing but counts.
#[test]
fn garbage_is_counted_and_the_leg_lives() {
    let seed = 42;
    let mut random = Random(seed);
    let mut net = Network::new(seed);
    let mut ends = connected(&mut net, false, true);
    let (peer, gateway) = (ends[0].address, ends[1].address);
    let stranger = address("203.0.113.66:4000");
    let before = *ends[1].leg.counters();
    let mut answers_to_stranger = 0;
    for n in 0..4000u64 {
        let length = random.below(200) as usize;
        let mut bytes = random.bytes(length);
        // One of each class of RFC 7983 in turn.
        if let Some(first) = bytes.first_mut() {
            *first = match n % 6 {
                0 => 0,
                1 => 1,
                2 => 22,
                3 => 0x80,
                4 => 70,
                _ => *first,
            };
        }
        if n % 6 < 2 && bytes.len() >= 20 {
            let length = (bytes.len() - 20) as u16;
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
            bytes[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
        }
        let source = if n % 2 == 0 { stranger } else { peer };
        let now = net.now;
        ends[1].leg.handle_datagram(now, gateway, source, &bytes, &mut |from, to, bytes| {
            if to == stranger {
                answers_to_stranger += 1;
            }
            net.send(from, to, bytes);
        });
        ends[1].collect();
    }
    assert_eq!(answers_to_stranger, 0);
    let after = *ends[1].leg.counters();
    assert!(after.malformed > before.malformed && after.foreign > before.foreign, "{after:?} seed {seed}");
    assert!(after.unauthentic > before.unauthentic, "{after:?} seed {seed}");
    run(&mut net, &mut ends, Duration::from_secs(2));
    assert!(ends.iter().all(|end| end.leg.is_connected()), "{:?} {:?}", ends[0].failure(), ends[1].failure());
    let now = net.now;
    assert!(ends[0].leg.send(now, PayloadKind::Audio, 0, true, &[9; 40], &mut |from, to, bytes| {
        net.send(from, to, bytes);
    }));
    run(&mut net, &mut ends, Duration::from_secs(1));
    assert_eq!(ends[1].packets(PayloadKind::Audio), [vec![9; 40]]);
}

// RFC 7160 4.1: a source for each clock; RFC 8843 9.2: each says by its MID where it belongs until it is known to be
// understood; RFC 3550 6.4.1: each is reported on.
#[test]
fn g711_goes_in_a_stream_of_its_own() {
    let mut net = Network::new(3);
    let mut ends = connected_with_g711(&mut net, true, false, true);
    let kinds = [
        PayloadKind::Audio,
        PayloadKind::TelephoneEvent,
        PayloadKind::G711(Law::Mu),
        PayloadKind::G711(Law::A),
        PayloadKind::G711Event,
    ];
    assert!(ends.iter().all(|end| end.leg.has_g711(Law::A) && end.leg.has_g711(Law::Mu)));
    // Payload type, source, and whether there is a header extension, of what each sends first and last.
    let mut first = [Vec::new(), Vec::new()];
    let mut last = first.clone();
    for n in 0..600u32 {
        for (from, headers) in [0, 1].into_iter().zip(&mut last) {
            headers.clear();
            for kind in kinds {
                let now = net.now;
                let ticks = if kind.is_g711() { 160 } else { 960 };
                assert!(ends[from].leg.send(
                    now,
                    kind,
                    n * ticks,
                    false,
                    &[n as u8; 160],
                    &mut |from, to, bytes| {
                        let ssrc = u32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
                        headers.push((bytes[1] & 0x7f, ssrc, bytes[0] & 0x10 != 0));
                        net.send(from, to, bytes);
                    }
                ));
            }
        }
        if n == 0 {
            first = last.clone();
        }
        run(&mut net, &mut ends, Duration::from_millis(20));
        if n < 599 {
            ends.iter_mut().for_each(|end| end.events.clear());
        }
    }
    for (end, (first, last)) in ends.iter().zip(first.iter().zip(&last)) {
        let numbers: Vec<u8> = first.iter().map(|header| header.0).collect();
        assert_eq!(numbers, [111, 110, 0, 8, 101]);
        let (opus, g711) = (first[0].1, first[2].1);
        assert_ne!(opus, g711);
        for headers in [first, last] {
            let sources: Vec<u32> = headers.iter().map(|header| header.1).collect();
            assert_eq!(sources, [opus, opus, g711, g711, g711]);
        }
        assert!(first.iter().all(|header| header.2), "the first say where they belong");
        assert!(last.iter().all(|header| !header.2), "12 s later that is known");
        let came: Vec<PayloadKind> = end
            .events
            .iter()
            .filter_map(|event| match event {
                LegEvent::Packet(packet) => Some(packet.kind),
                _ => None,
            })
            .collect();
        assert_eq!(came, kinds);
        let round_trip = end.leg.round_trip().unwrap();
        assert!((9..=12).contains(&round_trip.as_millis()), "{round_trip:?}");
        assert_eq!(end.leg.counters().refused(), 0);
    }

    // Who has Opus alone takes nothing else.
    let mut ends = connected(&mut net, true, false);
    let now = net.now;
    for kind in &kinds[2..] {
        assert!(!ends[0].leg.send(now, *kind, 0, false, &[1; 160], &mut |_, _, _| panic!("sent")));
    }
    assert!(!ends[0].leg.has_g711(Law::A) && !ends[0].leg.has_g711_event());
}

/// A stranger's ClientHello that overtakes the peer's must not take the handshake over.
#[test]
fn dtls_from_an_address_that_ice_did_not_validate_is_ignored() {
    let mut net = Network::new(3);
    let (a, b) = (DtlsIdentity::generate().unwrap(), DtlsIdentity::generate().unwrap());
    let mut gateway = End::new(&net, &a, "192.0.2.1:4000", true);
    let mut peer = End::new(&net, &b, "192.0.2.2:5000", false);
    let offer = peer.leg.create_offer().unwrap();
    let answer = gateway.leg.accept_offer(&offer).unwrap();
    peer.leg.accept_answer(&answer).unwrap();
    let stranger = address("203.0.113.66:4000");
    // A DTLS 1.2 ClientHello with the NULL cipher only.
    let mut hello =
        vec![22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 54, 1, 0, 0, 42, 0, 0, 0, 0, 0, 0, 0, 42, 254, 253];
    hello.extend([7; 32]);
    hello.extend([0, 0, 0, 2, 0, 1, 1, 0]);
    let mut ends = [gateway, peer];
    for _ in 0..200 {
        let now = net.now;
        let to = ends[0].address;
        let mut answered = false;
        ends[0].leg.handle_datagram(now, to, stranger, &hello, &mut |_, to, _| answered |= to == stranger);
        assert!(!answered);
        ends[0].collect();
        run(&mut net, &mut ends, Duration::from_millis(10));
    }
    assert_eq!(ends[0].leg.counters().foreign, 200);
    assert!(ends.iter().all(|end| end.leg.is_connected()));
}

/// A telephone may ring for minutes between the offer that the gateway took and the answer that it
/// gives; the leg must still be there then.
#[test]
fn an_ice_lite_answerer_waits_for_as_long_as_a_telephone_rings() {
    let mut net = Network::new(9);
    let (a, b) = (DtlsIdentity::generate().unwrap(), DtlsIdentity::generate().unwrap());
    let mut offerer = End::new(&net, &a, "192.0.2.1:4000", false);
    let mut answerer = End::new(&net, &b, "192.0.2.2:5000", true);
    let offer = offerer.leg.create_offer().unwrap();
    let answer = answerer.leg.accept_offer(&offer).unwrap();
    let mut ends = [offerer, answerer];
    run(&mut net, &mut ends, Duration::from_secs(150));
    assert_eq!((ends[0].failure(), ends[1].failure()), (None, None));
    ends[0].leg.accept_answer(&answer).unwrap();
    run(&mut net, &mut ends, Duration::from_secs(3));
    assert!(ends.iter().all(|end| end.leg.is_connected()));
}

/// Media must flow at once after the answer: no message of ICE or DTLS may be lost to the other
/// side's not being ready, for its repetition comes a second later.
#[test]
fn legs_connect_within_a_few_round_trips() {
    for (offerer_lite, answerer_lite) in [(false, false), (true, false), (false, true)] {
        let mut net = Network::new(3);
        let (a, b) = (DtlsIdentity::generate().unwrap(), DtlsIdentity::generate().unwrap());
        let mut offerer = End::new(&net, &a, "192.0.2.1:4000", offerer_lite);
        let mut answerer = End::new(&net, &b, "192.0.2.2:5000", answerer_lite);
        let offer = offerer.leg.create_offer().unwrap();
        let answer = answerer.leg.accept_offer(&offer).unwrap();
        // The answerer runs a while before the offerer has its answer.
        let mut ends = [offerer, answerer];
        run(&mut net, &mut ends, Duration::from_millis(30));
        ends[0].leg.accept_answer(&answer).unwrap();
        let began = net.now;
        while !ends.iter().all(|end| end.leg.is_connected()) && net.now < began + Duration::from_secs(5) {
            run(&mut net, &mut ends, Duration::from_millis(5));
        }
        let took = net.now - began;
        println!("{offerer_lite} {answerer_lite}: {took:?}");
        assert!(took <= Duration::from_millis(250), "lite {offerer_lite} {answerer_lite}: {took:?}");
    }
}

/// RFC 7587 7: the rtpmap is `opus/48000/2` whatever is coded; RFC 7587 6.1: the hints say what is played and captured, and
/// the voice sent is mono (RFC 6716 3.1: bit 2 of the first octet tells stereo).
#[test]
fn f04_opus_is_48000_with_two_channels_and_hints_and_the_voice_is_mono() {
    let net = Network::new(4);
    let identity = DtlsIdentity::generate().unwrap();
    let mut gateway = End::new(&net, &identity, "192.0.2.1:4000", true);
    let offer = gateway.leg.create_offer().unwrap();
    let mut user = End::new(&net, &identity, "192.0.2.2:5000", false);
    let answer = user.leg.accept_offer(&offer).unwrap();
    let hints = |sdp: &str, payload_type: &str| {
        let line = sdp.lines().find_map(|line| line.strip_prefix(&format!("a=fmtp:{payload_type} ")));
        line.unwrap_or_default().split(';').map(|hint| hint.trim().to_owned()).collect::<Vec<_>>()
    };
    for sdp in [&offer, &answer] {
        let maps = sdp.lines().filter_map(|line| line.strip_prefix("a=rtpmap:"));
        let opus: Vec<_> =
            maps.filter_map(|map| map.split_once(' ')).filter(|(_, e)| e.starts_with("opus")).collect();
        let [(payload_type, encoding)] = opus[..] else { panic!("{opus:?}") };
        assert_eq!(encoding, "opus/48000/2");
        let hints = hints(sdp, payload_type);
        assert!(hints.contains(&"useinbandfec=1".to_owned()), "{hints:?}");
        assert!(!hints.iter().any(|hint| hint == "stereo=1" || hint == "sprop-stereo=1"), "{hints:?}");
        let narrow = ["maxplaybackrate=8000", "sprop-maxcapturerate=8000"];
        let is_narrow = narrow.iter().all(|hint| hints.iter().any(|given| given == hint));
        assert_eq!(is_narrow, sdp == &offer, "a telephone is behind the gateway alone: {hints:?}");
    }
    user.leg.accept_offer(&offer).unwrap_err();
    assert_eq!(user.leg.remote_playback_rate(), 8_000);

    let mut encoder = Encoder::new(&EncoderConfig::for_rate(8_000)).unwrap();
    let mut packet = [0; MAX_PACKET];
    for at in 0..50_i16 {
        let length = encoder.encode(&[at * 300; 160], &mut packet).unwrap();
        assert_eq!(packet[..length][0] & 0b100, 0, "mono");
        assert!(packet[0] >> 3 < 4, "narrow band, SILK");
    }
}
