//! Candidates that servers tell of, and NATs that forget: in virtual time, with the NATs and relays played here.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use transcoder::leg::PayloadKind;
use transcoder::leg::webrtc::{LegEvent, MAX_ADDED_CANDIDATES};
use transcoder::{DtlsIdentity, LocalCandidate, MediaError, WebRtcConfig, WebRtcLeg};

#[path = "common/mod.rs"]
mod common;
use common::{Network, address};

/// A leg, and what is between it and the network: packets from a base leave from `seen`, and what comes there is the
/// base's. An address that nothing is known of leads nowhere.
struct End {
    leg: WebRtcLeg,
    nat: Vec<(SocketAddr, SocketAddr)>,
    received: usize,
    sent: usize,
    connected: bool,
    failed: bool,
}

impl End {
    fn new(net: &Network, base: &str, ice_lite: bool) -> Self {
        let base = address(base);
        let identity = DtlsIdentity::generate().unwrap();
        let config = WebRtcConfig { local: vec![base], ice_lite, ..WebRtcConfig::default() };
        let leg = WebRtcLeg::new(config, &identity, net.now).unwrap();
        Self { leg, nat: vec![(base, base)], received: 0, sent: 0, connected: false, failed: false }
    }

    fn behind(net: &Network, base: &str, seen: &str) -> Self {
        let mut end = Self::new(net, base, false);
        end.nat = vec![(address(base), address(seen))];
        end
    }

    fn collect(&mut self) {
        while let Some(event) = self.leg.poll_event() {
            match event {
                LegEvent::Connected => self.connected = true,
                LegEvent::Packet(_) => self.received += 1,
                LegEvent::Failed(_) => self.failed = true,
                LegEvent::RemoteLoss { .. } => {}
            }
        }
    }

    fn local(&self, seen: SocketAddr) -> Option<SocketAddr> {
        self.nat.iter().find(|(_, outside)| *outside == seen).map(|(base, _)| *base)
    }
}

fn seen(nat: &[(SocketAddr, SocketAddr)], local: SocketAddr) -> Option<SocketAddr> {
    nat.iter().find(|(base, _)| *base == local).map(|(_, seen)| *seen)
}

/// Runs, both sides sending a packet of voice every 20 ms once they can.
fn run(net: &mut Network, ends: &mut [End; 2], duration: Duration) {
    let until = net.now + duration;
    let mut voice = net.now;
    loop {
        while let Some(datagram) = net.due() {
            let now = net.now;
            for End { leg, nat, .. } in ends.iter_mut() {
                let Some((base, _)) = nat.iter().find(|(_, outside)| *outside == datagram.to) else {
                    continue;
                };
                leg.handle_datagram(now, *base, datagram.from, &datagram.bytes, &mut |from, to, bytes| {
                    if let Some(from) = seen(nat, from) {
                        net.send(from, to, bytes);
                    }
                });
            }
            ends.iter_mut().for_each(End::collect);
        }
        let now = net.now;
        let speak = voice <= now;
        for end in ends.iter_mut() {
            let End { leg, nat, sent, .. } = end;
            let mut emit = |from, to, bytes: &[u8]| {
                if let Some(from) = seen(nat, from) {
                    net.send(from, to, bytes);
                }
            };
            if leg.poll_timeout().is_some_and(|at| at <= now) {
                leg.handle_timeout(now, &mut emit);
            }
            if speak && leg.send(now, PayloadKind::Audio, *sent as u32 * 960, false, &[1, 2, 3], &mut emit) {
                *sent += 1;
            }
            end.collect();
        }
        if speak {
            voice += Duration::from_millis(20);
        }
        let timers = ends.iter().filter_map(|end| end.leg.poll_timeout());
        let next = timers.chain(net.next_at()).chain([voice]).min().unwrap_or(until);
        if next >= until {
            net.now = until;
            return;
        }
        net.now = next.max(net.now + Duration::from_micros(10));
    }
}

fn describe(offerer: &mut End, answerer: &mut End) -> String {
    let offer = offerer.leg.create_offer().unwrap();
    let answer = answerer.leg.accept_offer(&offer).unwrap();
    offerer.leg.accept_answer(&answer).unwrap();
    offer
}

fn reflexive(end: &End) -> LocalCandidate {
    let (base, address) = end.nat[0];
    LocalCandidate::ServerReflexive { address, base }
}

#[test]
fn users_behind_nats_meet_at_their_server_reflexive_addresses() {
    let mut net = Network::new(1);
    let mut caller = End::behind(&net, "10.0.0.1:4000", "198.51.100.1:5000");
    let mut called = End::behind(&net, "10.0.0.9:4000", "198.51.100.9:5000");
    let candidate = reflexive(&caller);
    let line = caller.leg.add_local_candidate(candidate).unwrap().unwrap();
    assert!(line.starts_with("candidate:") && line.contains("198.51.100.1 5000 typ srflx"), "{line}");
    let candidate = reflexive(&called);
    called.leg.add_local_candidate(candidate).unwrap();
    let offer = describe(&mut caller, &mut called);
    assert!(offer.contains("198.51.100.1 5000 typ srflx"), "{offer}");
    let mut ends = [caller, called];
    run(&mut net, &mut ends, Duration::from_secs(2));
    assert!(ends.iter().all(|end| end.connected && end.received > 50));
    assert_eq!(ends[0].leg.path(), Some((address("10.0.0.1:4000"), address("198.51.100.9:5000"))));
}

#[test]
fn candidates_that_come_after_the_descriptions_bring_a_call_about() {
    let mut net = Network::new(1);
    let mut caller = End::behind(&net, "10.0.0.1:4000", "198.51.100.1:5000");
    let mut called = End::behind(&net, "10.0.0.9:4000", "198.51.100.9:5000");
    describe(&mut caller, &mut called);
    let mut ends = [caller, called];
    run(&mut net, &mut ends, Duration::from_millis(500));
    assert!(ends.iter().all(|end| !end.connected), "their own networks lead nowhere");
    for (from, to) in [(0, 1), (1, 0)] {
        let candidate = reflexive(&ends[from]);
        let line = ends[from].leg.add_local_candidate(candidate).unwrap().unwrap();
        ends[to].leg.add_remote_candidate(&line).unwrap();
    }
    run(&mut net, &mut ends, Duration::from_secs(2));
    assert!(ends.iter().all(|end| end.connected && end.received > 50));
}

#[test]
fn what_a_relay_carries_leaves_from_the_relayed_address() {
    let mut net = Network::new(1);
    let mut caller = End::behind(&net, "10.0.0.1:4000", "198.51.100.1:5000");
    let mut called = End::behind(&net, "10.0.0.9:4000", "198.51.100.9:5000");
    // No packet gets out of the caller's network but by the relay.
    let relayed = address("203.0.113.3:50000");
    caller.nat = vec![(relayed, relayed)];
    let base = address("10.0.0.1:4000");
    caller.leg.add_local_candidate(LocalCandidate::Relayed { address: relayed, base }).unwrap();
    let candidate = reflexive(&called);
    called.leg.add_local_candidate(candidate).unwrap();
    describe(&mut caller, &mut called);
    let mut ends = [caller, called];
    run(&mut net, &mut ends, Duration::from_secs(2));
    assert!(ends.iter().all(|end| end.connected && end.received > 50));
    assert_eq!(ends[0].leg.path(), Some((relayed, address("198.51.100.9:5000"))));
    assert_eq!(ends[1].leg.path().map(|(_, remote)| remote), Some(relayed));
    // Its server forgets the allocation; another one stands.
    let other = address("203.0.113.3:50001");
    ends[0].nat = vec![(other, other)];
    let line = ends[0].leg.add_local_candidate(LocalCandidate::Relayed { address: other, base }).unwrap();
    ends[1].leg.add_remote_candidate(&line.unwrap()).unwrap();
    ends[0].leg.replace_local(relayed, other);
    run(&mut net, &mut ends, Duration::from_secs(4));
    let before = [ends[0].received, ends[1].received];
    run(&mut net, &mut ends, Duration::from_secs(2));
    assert!(ends[0].received - before[0] > 90 && ends[1].received - before[1] > 90, "voices go the new way");
    run(&mut net, &mut ends, Duration::from_secs(60));
    assert!(ends.iter().all(|end| !end.failed), "and the call lasts");
    assert_eq!(ends[0].leg.path(), Some((other, address("198.51.100.9:5000"))));
}

/// With a gateway, which is ICE-lite, nobody tells of candidates: it hears where the user is.
#[test]
fn media_follows_a_user_whose_nat_has_forgotten_it() {
    for user_calls in [true, false] {
        let mut net = Network::new(1);
        let mut user = End::behind(&net, "10.0.0.1:4000", "198.51.100.1:5000");
        let mut gateway = End::new(&net, "192.0.2.2:4000", true);
        if user_calls {
            describe(&mut user, &mut gateway);
        } else {
            describe(&mut gateway, &mut user);
        }
        let mut ends = [user, gateway];
        run(&mut net, &mut ends, Duration::from_secs(3));
        assert!(ends.iter().all(|end| end.connected && end.received > 50));
        let moved = address("198.51.100.1:6000");
        assert_eq!(ends[0].local(address("198.51.100.1:5000")), Some(address("10.0.0.1:4000")));
        ends[0].nat[0].1 = moved;
        run(&mut net, &mut ends, Duration::from_secs(6));
        let before = [ends[0].received, ends[1].received];
        run(&mut net, &mut ends, Duration::from_secs(1));
        assert!(ends[1].received - before[1] > 40, "the gateway hears the user");
        assert!(ends[0].received - before[0] > 40, "and the user the gateway");
        assert_eq!(ends[1].leg.path(), Some((address("192.0.2.2:4000"), moved)));
        run(&mut net, &mut ends, Duration::from_secs(60));
        assert!(ends.iter().all(|end| !end.failed), "and the call lasts");
        let before = ends[0].received;
        run(&mut net, &mut ends, Duration::from_secs(1));
        assert!(ends[0].received - before > 40);
    }
}

#[test]
fn candidates_are_bounded_and_refused_with_a_reason() {
    let net = Network::new(1);
    let mut caller = End::new(&net, "192.0.2.1:4000", false);
    let mut called = End::new(&net, "192.0.2.2:4000", false);
    assert_eq!(
        caller.leg.add_remote_candidate("candidate:1 1 udp 1 192.0.2.9 9 typ host"),
        Err(MediaError::OutOfOrder)
    );
    describe(&mut caller, &mut called);
    for bad in [
        "",
        "candidate:",
        "candidate:1 1 udp 1 host.local 9 typ host",
        "a=candidate:1 1 udp 1 192.0.2.9 9 typ host",
    ] {
        assert_eq!(caller.leg.add_remote_candidate(bad), Err(MediaError::SdpSyntax), "{bad}");
    }
    for port in 0..MAX_ADDED_CANDIDATES {
        let line = format!("candidate:1 1 udp {} 192.0.2.9 {} typ host", port + 1, 1000 + port);
        caller.leg.add_remote_candidate(&line).unwrap();
        let (base, seen) =
            (address("192.0.2.1:4000"), SocketAddr::new([198, 51, 100, 1].into(), 1000 + port as u16));
        caller.leg.add_local_candidate(LocalCandidate::ServerReflexive { address: seen, base }).unwrap();
    }
    let line = "candidate:1 1 udp 1 192.0.2.9 9 typ host";
    assert_eq!(caller.leg.add_remote_candidate(line), Err(MediaError::SdpTooLong));
    let (base, other) = (address("192.0.2.1:4000"), address("198.51.100.1:9"));
    let one_more = LocalCandidate::ServerReflexive { address: other, base };
    assert_eq!(caller.leg.add_local_candidate(one_more), Err(MediaError::LocalAddressCount));
    let unusable = LocalCandidate::Relayed { address: address("0.0.0.0:9"), base };
    assert_eq!(called.leg.add_local_candidate(unusable), Err(MediaError::LocalAddress));
}
