//! The targets of the media: each takes any bytes and panics if a promise is broken.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use call_model::{
    Codec, Direction, DtlsParameters, DtlsRole, LegMedia, MediaSecurity, Side, SrtpKey, SrtpKeys, SrtpSuite,
};
use transcoder::leg::rtp::RtpLeg;
use transcoder::rtp::redundancy::{self, Copy, Layout};
use transcoder::{Bridge, BridgeConfig, DtlsIdentity, Port, Relay, RelayConfig, WebRtcConfig, WebRtcLeg};

const TICK: Duration = Duration::from_millis(20);

fn address(text: &str) -> SocketAddr {
    text.parse().expect("address")
}

fn trunk() -> SocketAddr {
    address("192.0.2.10:4000")
}

fn gateway() -> SocketAddr {
    address("198.51.100.1:20000")
}

fn key(seed: u8) -> SrtpKey {
    let suite = SrtpSuite::ALL[0];
    SrtpKey::new(suite, &vec![seed; suite.key_len() + suite.salt_len()]).expect("key")
}

fn media(secured: bool) -> LegMedia {
    let keys = SrtpKeys { suite: SrtpSuite::ALL[0], send: key(1), receive: vec![key(2)] };
    LegMedia {
        codec: Codec::Pcma,
        send_payload_type: 8,
        receive_payload_type: 8,
        also_receives: vec![(0, Codec::Pcmu)],
        telephone_event: Some(call_model::TelephoneEvent {
            send_payload_type: 96,
            receive_payload_type: 96,
            clock_rate: 8_000,
        }),
        comfort_noise: secured,
        packet_time_ms: 20,
        remote_rtp: trunk(),
        remote_rtcp: None,
        direction: Direction::SendRecv,
        security: if secured { MediaSecurity::Sdes(Box::new(keys)) } else { MediaSecurity::None },
    }
}

thread_local! {
    /// A key pair is dear.
    static IDENTITY: DtlsIdentity = DtlsIdentity::generate().expect("certificate");
}

/// A bridge whose overlay leg has offered, and whose trunk leg is negotiated.
fn bridge(secured: bool, now: Instant) -> Bridge {
    let local = vec![address("198.51.100.1:4000")];
    let config = WebRtcConfig { local, ice_lite: true, g711: true, redundancy: true };
    let mut leg = IDENTITY.with(|identity| WebRtcLeg::new(config, identity, now)).expect("leg");
    leg.create_offer().expect("offer");
    let mut bridge = Bridge::new(BridgeConfig::new(gateway()), leg, 7, now).expect("bridge");
    bridge.set_trunk_media(&media(secured), now).expect("media");
    bridge
}

/// Hands a datagram to the trunk leg, with changed numbers some times over, and lets a second pass.
fn hear(data: &[u8], port: Port, secured: bool) {
    let mut now = Instant::now();
    let mut bridge = bridge(secured, now);
    let mut packet = data.to_vec();
    let mut sent = 0;
    for n in 0..50u8 {
        let mut emit = |out: transcoder::Outgoing<'_>| {
            assert!(out.side == Side::Trunk && out.destination == trunk(), "sent to a stranger");
            sent += 1;
        };
        bridge.handle_datagram(now, Side::Trunk, port, gateway(), trunk(), &packet, &mut emit);
        bridge.handle_timeout(now, &mut emit);
        while bridge.poll_event().is_some() {}
        if let (Port::Rtp, Some(number)) = (port, packet.get_mut(3)) {
            *number = number.wrapping_add(1 + n % 2);
        }
        now += TICK;
    }
    assert!(sent <= 60, "{sent} packets in a second");
    let quality = bridge.quality(Side::Trunk);
    let counters = bridge.trunk_counters();
    assert!(quality.rating.is_none_or(|rating| (1.0..=4.5).contains(&rating.mos)), "{quality:?}");
    assert!(counters.received + counters.rtcp_received + counters.refused() >= 50, "{counters:?}");
    assert!((0.0..=1.0).contains(&quality.concealment_ratio()), "{quality:?}");
    if secured {
        assert_eq!((counters.received, counters.rtcp_received), (0, 0), "nobody has the key");
    }
}

/// RTP of a trunk, and the same to a relay.
pub fn rtp(data: &[u8]) {
    hear(data, Port::Rtp, false);
    let now = Instant::now();
    let config = RelayConfig {
        trunk_rtp: gateway(),
        onward_rtp: address("198.51.100.1:20002"),
        media_timeout: Duration::from_secs(60),
        identity: None,
    };
    let mut relay = Relay::new(&config, 7, now);
    for side in [Side::Trunk, Side::Onward] {
        relay.set_media(side, &media(false), now).expect("media");
    }
    let mut sent = 0;
    for _ in 0..3 {
        relay.handle_datagram(now, Side::Trunk, Port::Rtp, trunk(), data, &mut |out| {
            assert!(out.bytes.len() <= data.len() + 12);
            sent += 1;
        });
    }
    assert!(sent <= 3, "one packet, many answers");
}

/// RTCP of a trunk.
pub fn rtcp(data: &[u8]) {
    hear(data, Port::Rtcp, false);
}

/// SRTP and SRTCP under a key that nobody else has.
pub fn srtp(data: &[u8]) {
    hear(data, Port::Rtp, true);
    hear(data, Port::Rtcp, true);
}

/// DTLS of a trunk whose media it keys, from an address and with a certificate that are right and wrong.
pub fn dtls(data: &[u8]) {
    for role in [DtlsRole::Active, DtlsRole::Passive] {
        let mut now = Instant::now();
        let identity = IDENTITY.with(Clone::clone);
        let mut media = media(false);
        media.security = MediaSecurity::DtlsSrtp(Box::new(DtlsParameters {
            role,
            fingerprints: vec![identity.fingerprint()],
            tls_id: None,
        }));
        let mut leg = RtpLeg::new(7, now).with_identity(Some(identity));
        let _ = leg.handle_datagram(now, Port::Rtp, trunk(), data).is_ok();
        leg.set_media(&media, now).expect("media");
        let mut sent = 0;
        for _ in 0..10 {
            let mut emit = |_: Port, to: SocketAddr, bytes: &[u8]| {
                assert!(to == trunk(), "sent to a stranger");
                assert!(matches!(bytes, [20..=63, ..]), "media without keys");
                sent += 1;
            };
            let _ = leg.handle_datagram(now, Port::Rtp, trunk(), data).is_ok();
            leg.poll_transmit(now, &mut emit);
            leg.handle_timeout(now, &mut emit);
            now += TICK;
        }
        assert!(sent <= 60, "{sent} datagrams for eleven");
        assert!(!leg.can_send() && leg.counters().received + leg.counters().rtcp_received == 0);
    }
}

/// STUN, DTLS and all else on the overlay's port, before there is a peer.
pub fn stun(data: &[u8]) {
    let mut now = Instant::now();
    let mut bridge = bridge(false, now);
    let stranger = address("203.0.113.9:9");
    let mut sent = 0;
    for _ in 0..5 {
        let local = address("198.51.100.1:4000");
        let mut emit = |out: transcoder::Outgoing<'_>| sent += usize::from(out.side == Side::Overlay);
        bridge.handle_datagram(now, Side::Overlay, Port::Rtp, local, stranger, data, &mut emit);
        bridge.handle_timeout(now, &mut emit);
        now += TICK;
    }
    assert_eq!(sent, 0, "a stranger is not answered");
    assert!(!bridge.is_overlay_connected());
    assert_eq!(bridge.overlay_counters().refused(), 5, "{:?}", bridge.overlay_counters());
}

/// Redundant audio data (RFC 2198): what is read lies within its octets, and is written as the same octets again.
pub fn redundancy(data: &[u8]) {
    const OPUS: u8 = 111;
    let Ok(layout) = Layout::parse(data, OPUS) else { return };
    let copies: Vec<Copy<'_>> = layout
        .copies()
        .iter()
        .map(|place| Copy { offset: place.offset, payload: &data[place.range.clone()] })
        .collect();
    let mut out = vec![0; data.len()];
    assert_eq!(redundancy::encode(OPUS, &copies, &data[layout.frame()], &mut out), Ok(data.len()));
    assert_eq!(out, data);
}
