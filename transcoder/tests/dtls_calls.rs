//! Calls by way of trunks whose media DTLS keys (RFC 5763, RFC 5764): through a bridge and through a relay.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use call_model::{
    Codec, DtlsParameters, DtlsRole, DtmfDigit, Fingerprint, LegMedia, MediaSecurity, Side, TelephoneEvent,
};
use transcoder::leg::PayloadKind;
use transcoder::leg::rtp::{Received, Refusal, RtpLeg};
use transcoder::{BridgeConfig, BridgeEvent, DtlsIdentity, LegFailure, Port, Relay, RelayConfig};

#[path = "common/mod.rs"]
mod common;
use common::call::{Call, GATEWAY_RTCP, GATEWAY_RTP, Options, trunk_media};
use common::signal::{mean_tone_share, tone};
use common::{Network, address};

const SECOND: Duration = Duration::from_secs(1);

fn secured(mut media: LegMedia, role: DtlsRole, theirs: Fingerprint) -> LegMedia {
    let parameters = DtlsParameters { role, fingerprints: vec![theirs], tls_id: None };
    media.security = MediaSecurity::DtlsSrtp(Box::new(parameters));
    media
}

/// A call whose PBX has a leg with a certificate; returned are the media of both sides.
fn call(role: DtlsRole, mux: bool) -> (Call, LegMedia, LegMedia) {
    // `configure` is a function, and the bridge makes no secret of its certificate.
    thread_local!(static GATEWAY: DtlsIdentity = DtlsIdentity::generate().unwrap());
    let configure = |config: &mut BridgeConfig| config.identity = Some(GATEWAY.with(Clone::clone));
    let mut call = Call::new(&Options { configure, ..Options::default() });
    let pbx = DtlsIdentity::generate().unwrap();
    call.pbx.leg = Some(RtpLeg::new(5, call.net.now).with_identity(Some(pbx.clone())));
    call.phone_source = Box::new(tone(440.0, 8000.0));
    call.pbx.source = Box::new(tone(1000.0, 8000.0));
    let mut ours = secured(trunk_media(Codec::Pcma, 20), role, pbx.fingerprint());
    let mut theirs =
        secured(trunk_media(Codec::Pcma, 20), role.reversed(), GATEWAY.with(DtlsIdentity::fingerprint));
    (theirs.remote_rtp, theirs.remote_rtcp) = (address(GATEWAY_RTP), Some(address(GATEWAY_RTCP)));
    if mux {
        (ours.remote_rtcp, theirs.remote_rtcp) = (None, None);
    }
    (call, ours, theirs)
}

fn failures(call: &Call) -> Vec<LegFailure> {
    let failure = |event: &BridgeEvent| match event {
        BridgeEvent::TrunkFailed { side: Side::Trunk, failure } => Some(*failure),
        _ => None,
    };
    call.bridge_events.iter().filter_map(failure).collect()
}

// RFC 5763, RFC 5764: voice both ways from the handshake on, nothing of it before.
#[test]
fn f20_a_call_to_a_trunk_with_dtls_is_heard() {
    for (role, mux) in [(DtlsRole::Active, true), (DtlsRole::Passive, false)] {
        let (mut call, ours, theirs) = call(role, mux);
        let now = call.net.now;
        call.bridge.set_trunk_media(&ours, now).unwrap();
        call.run(SECOND);
        assert!(call.pbx.heard.is_empty() && call.strays.is_empty(), "no voice for who has no keys");
        let now = call.net.now;
        call.pbx.leg.as_mut().unwrap().set_media(&theirs, now).unwrap();
        // A client asks again within 2 s.
        call.run(3 * SECOND);
        call.run(3 * SECOND);
        assert!(call.connected());
        assert!(call.bridge_events.contains(&BridgeEvent::FirstPacket { side: Side::Trunk }));
        let quality = call.bridge.quality(Side::Trunk);
        assert_eq!((quality.packets_lost, call.pbx.unauthentic), (0, 0), "{quality:?}");
        assert!(quality.packets_received >= 200, "{quality:?}");
        let heard = &call.phone_heard[call.phone_heard.len() - 16_000..];
        assert!(mean_tone_share(heard, 1000.0, 8000.0) > 0.9);
        let heard = &call.pbx.heard[call.pbx.heard.len() - 16_000..];
        assert!(mean_tone_share(heard, 440.0, 8000.0) > 0.9);
        assert_eq!(failures(&call), []);
    }
}

// RFC 8842 4.1: a later description of the same certificate and role does not interrupt anybody.
#[test]
fn f20_a_call_is_heard_through_hold_and_another_certificate() {
    let (mut call, ours, theirs) = call(DtlsRole::Passive, true);
    let set = |call: &mut Call, ours: &LegMedia, theirs: &LegMedia| {
        let now = call.net.now;
        call.bridge.set_trunk_media(ours, now).unwrap();
        call.pbx.leg.as_mut().unwrap().set_media(theirs, now).unwrap();
    };
    set(&mut call, &ours, &theirs);
    call.run(3 * SECOND);
    let before = call.pbx.heard.len();
    set(&mut call, &ours, &theirs);
    call.run(SECOND);
    assert!((7_840..=8_160).contains(&(call.pbx.heard.len() - before)));
    // The media goes to another device.
    let other = DtlsIdentity::generate().unwrap();
    let now = call.net.now;
    call.pbx.leg = Some(RtpLeg::new(6, now).with_identity(Some(other.clone())));
    let ours = secured(ours, DtlsRole::Passive, other.fingerprint());
    set(&mut call, &ours, &theirs);
    let before = call.pbx.heard.len();
    call.run(SECOND);
    assert!(call.pbx.heard.len() - before >= 7_500, "{}", call.pbx.heard.len() - before);
    // What was on its way to the first device reaches the other.
    assert!(failures(&call).is_empty() && call.pbx.unauthentic <= 1);
}

// RFC 8122 5: the switch is told, and the overlay user hears nothing of whoever it is.
#[test]
fn f20_a_call_with_a_wrong_certificate_is_reported() {
    let (mut call, ours, theirs) = call(DtlsRole::Active, true);
    let wrong = secured(ours, DtlsRole::Active, DtlsIdentity::generate().unwrap().fingerprint());
    let now = call.net.now;
    call.bridge.set_trunk_media(&wrong, now).unwrap();
    call.pbx.leg.as_mut().unwrap().set_media(&theirs, now).unwrap();
    call.run(5 * SECOND);
    assert_eq!(failures(&call), [LegFailure::Fingerprint]);
    assert!(call.pbx.heard.is_empty());
    let quality = call.bridge.quality(Side::Trunk);
    assert_eq!((quality.packets_received, quality.packets_sent), (0, 0));
    // The certificate, and the flight that came again.
    assert!(quality.packets_refused >= 1);
}

const SIDES: [Side; 2] = [Side::Trunk, Side::Onward];
const OURS: [&str; 2] = ["192.0.2.1:20000", "192.0.2.1:20002"];
const THEIRS: [&str; 2] = ["203.0.113.5:30000", "198.51.100.8:30000"];

fn media(remote: &str) -> LegMedia {
    let mut media = trunk_media(Codec::Pcma, 20);
    let event = TelephoneEvent { send_payload_type: 101, receive_payload_type: 101, clock_rate: 8000 };
    media.telephone_event = Some(event);
    (media.remote_rtp, media.remote_rtcp) = (address(remote), None);
    media
}

/// Two phones and a relay between them.
struct Line {
    net: Network,
    relay: Relay,
    phones: [RtpLeg; 2],
    heard: [Vec<Vec<u8>>; 2],
    events: [usize; 2],
    reported: Vec<BridgeEvent>,
}

impl Line {
    fn run(&mut self, duration: Duration) {
        let until = self.net.now + duration;
        loop {
            let now = self.net.now;
            while let Some(datagram) = self.net.due() {
                let to = |list: [&str; 2]| list.iter().position(|known| address(known) == datagram.to);
                let net = &mut self.net;
                if let Some(side) = to(OURS) {
                    let side = SIDES[side];
                    self.relay.handle_datagram(
                        now,
                        side,
                        Port::Rtp,
                        datagram.from,
                        &datagram.bytes,
                        &mut |out| {
                            net.send(out.local, out.destination, out.bytes);
                        },
                    );
                } else if let Some(at) = to(THEIRS) {
                    match self.phones[at].handle_datagram(now, Port::Rtp, datagram.from, &datagram.bytes) {
                        Ok(Received::Audio(packet, _)) => self.heard[at].push(packet.payload().to_vec()),
                        Ok(Received::TelephoneEvent(_)) => self.events[at] += 1,
                        Ok(_) => {}
                        Err(refusal) => panic!("{refusal:?}"),
                    }
                    self.phones[at].poll_transmit(now, &mut sends(net, at));
                }
            }
            let net = &mut self.net;
            self.relay.handle_timeout(now, &mut |out| net.send(out.local, out.destination, out.bytes));
            for (at, phone) in self.phones.iter_mut().enumerate() {
                phone.handle_timeout(now, &mut sends(net, at));
            }
            self.reported.extend(std::iter::from_fn(|| self.relay.poll_event()));
            let phones = self.phones.iter().filter_map(RtpLeg::poll_timeout);
            let next = phones.chain(self.net.next_at()).chain(self.relay.poll_timeout()).min().unwrap();
            if next >= until {
                self.net.now = until;
                return;
            }
            self.net.now = next.max(now + Duration::from_micros(10));
        }
    }

    fn speak(&mut self, at: usize, time: u64, payload: &[u8]) {
        let (now, net) = (self.net.now, &mut self.net);
        let emit = &mut sends(net, at);
        assert!(self.phones[at].send(now, PayloadKind::Audio, false, time, payload, emit));
    }
}

fn sends(net: &mut Network, at: usize) -> impl FnMut(Port, SocketAddr, &[u8]) {
    move |_, to, bytes| net.send(address(THEIRS[at]), to, bytes)
}

// A call between two trunks: one keys by DTLS and the other not at all, or each by DTLS of its own.
#[test]
fn f20_a_relay_keys_each_side_by_itself() {
    for both in [false, true] {
        let net = Network::new(3);
        let now: Instant = net.now;
        let identity = DtlsIdentity::generate().unwrap();
        let config = RelayConfig {
            trunk_rtp: address(OURS[0]),
            onward_rtp: address(OURS[1]),
            media_timeout: 600 * SECOND,
            identity: Some(identity.clone()),
        };
        let mut line = Line {
            net,
            relay: Relay::new(&config, 1, now),
            phones: [RtpLeg::new(2, now), RtpLeg::new(3, now)],
            heard: [Vec::new(), Vec::new()],
            events: [0, 0],
            reported: Vec::new(),
        };
        let roles = [DtlsRole::Active, DtlsRole::Passive];
        let mut later = Vec::new();
        for at in 0..2 {
            let (mut ours, mut theirs) = (media(THEIRS[at]), media(OURS[at]));
            if both || at == 1 {
                let phone = DtlsIdentity::generate().unwrap();
                line.phones[at] = RtpLeg::new(8, now).with_identity(Some(phone.clone()));
                ours = secured(ours, roles[at], phone.fingerprint());
                theirs = secured(theirs, roles[at].reversed(), identity.fingerprint());
            }
            line.relay.set_media(SIDES[at], &ours, now).unwrap();
            if at == 0 {
                line.phones[at].set_media(&theirs, now).unwrap();
            } else {
                later.push(theirs);
            }
        }
        // The first side talks and dials while the other has no keys: a digit waits for them, voice does not.
        line.run(SECOND);
        for n in 0..10 {
            line.speak(0, n * 160, &[n as u8; 160]);
            line.run(Duration::from_millis(20));
        }
        let digit = DtmfDigit::from_char('5').unwrap();
        assert!(line.relay.send_dtmf(line.net.now, Side::Onward, digit, 100));
        line.run(SECOND);
        assert!(line.heard[1].is_empty());
        line.phones[1].set_media(&later[0], line.net.now).unwrap();
        line.run(2 * SECOND);
        assert!(line.events[1] >= 5, "{:?}", line.events);
        for n in 20..40 {
            line.speak(0, n * 160, &[n as u8; 160]);
            line.speak(1, n * 160, &[!n as u8; 160]);
            line.run(Duration::from_millis(20));
        }
        line.run(SECOND);
        let voice = |at: usize| -> Vec<u8> { line.heard[at].iter().map(|payload| payload[0]).collect() };
        assert_eq!(voice(1), (20..40).collect::<Vec<u8>>());
        assert_eq!(voice(0), (20..40).map(|n: u8| !n).collect::<Vec<u8>>());
        let failed = |event: &BridgeEvent| matches!(event, BridgeEvent::TrunkFailed { .. });
        assert!(!line.reported.iter().any(failed));
        // Another certificate than described, on the second side alone.
        let mut wrong = media(THEIRS[1]);
        wrong = secured(wrong, DtlsRole::Active, identity.fingerprint());
        line.relay.set_media(Side::Onward, &wrong, line.net.now).unwrap();
        let theirs = secured(media(OURS[1]), DtlsRole::Passive, identity.fingerprint());
        line.phones[1].set_media(&theirs, line.net.now).unwrap();
        line.run(3 * SECOND);
        let failure = LegFailure::Fingerprint;
        assert!(line.reported.contains(&BridgeEvent::TrunkFailed { side: Side::Onward, failure }));
        assert_eq!(line.relay.counters(Side::Onward).refused_for(Refusal::Fingerprint), 1);
    }
}
