//! Counts heap allocations on the path of a packet.
#![allow(clippy::unwrap_used, unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use call_model::{
    Codec, DtlsParameters, DtlsRole, DtmfDigit, Fingerprint, ImageAttributes, ImageMedia, LegMedia,
    MediaSecurity, Side, SrtpKey, SrtpKeys, SrtpSuite,
};
use transcoder::leg::rtp::RtpLeg;
use transcoder::{Bridge, BridgeEvent, DtlsIdentity, EdgeCodec, Port, Relay, RelayConfig};

#[path = "common/mod.rs"]
mod common;
use common::address;
use common::call::{Call, GATEWAY_RTP, Options, TRUNK_RTP, trunk_media};
use common::fax::answer;
use common::keys::Press;
use common::signal::tone;

thread_local! {
    static COUNT: Cell<Option<u64>> = const { Cell::new(None) };
}

struct Counting;

fn count() {
    // The cell is gone while the thread ends; nothing is counted then.
    let _ = COUNT.try_with(|cell| cell.set(cell.get().map(|count| count + 1)));
}

// SAFETY: every call is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn counted<T>(work: impl FnOnce() -> T) -> (T, u64) {
    COUNT.set(Some(0));
    let result = work();
    (result, COUNT.replace(None).unwrap())
}

/// The trunk's packets in, decoded, and silence out to the trunk: all of it our own code.
fn trunk_seconds(bridge: &mut Bridge, packets: &mut [Vec<u8>], now: &mut Instant) -> (u64, u64) {
    let mut sent = 0;
    let ((), allocations) = counted(|| {
        for packet in packets.iter() {
            let (to, from) = (address(GATEWAY_RTP), address(TRUNK_RTP));
            bridge.handle_datagram(*now, Side::Trunk, Port::Rtp, to, from, packet, &mut |_| {});
            *now += Duration::from_millis(20);
            bridge.handle_timeout(*now, &mut |out| sent += u64::from(out.side == Side::Trunk));
        }
    });
    (allocations, sent)
}

#[test]
fn our_own_path_allocates_nothing_per_packet() {
    // The overlay is not connected, so that what is counted is the trunk's leg, jitter buffer and
    // decoder, the mixing of a tick, and the packets to the trunk. ICE is idle.
    let mut call = Call::new(&Options::default());
    let mut now = call.net.now;
    call.bridge.set_trunk_media(&trunk_media(Codec::Pcma, 20), now).unwrap();
    let mut packets: Vec<Vec<u8>> = (0..500u16)
        .map(|n| {
            let mut packet = vec![0x80, 8];
            packet.extend(n.to_be_bytes());
            packet.extend((u32::from(n) * 160).to_be_bytes());
            packet.extend(7u32.to_be_bytes());
            packet.extend((0..160).map(|sample| (sample * 7 + n) as u8));
            packet
        })
        .collect();
    // Lost, doubled and reordered ones take the same path.
    packets.swap(100, 101);
    packets.remove(200);
    packets[300] = packets[299].clone();
    let (allocations, sent) = trunk_seconds(&mut call.bridge, &mut packets, &mut now);
    assert!(sent >= 495, "{sent}");
    assert_eq!(call.bridge.trunk_counters().received, 499);
    // The overlay leg's timer goes off now and then within; ICE then may grow a queue.
    assert!(allocations <= 16, "{allocations} allocations for {sent} packets each way");
}

/// Ten seconds of a connected call. Returns the bridge's allocations and the packets to and from the
/// overlay.
fn connected_seconds(call: &mut Call) -> (u64, u64, u64) {
    call.phone_source = Box::new(tone(440.0, 8000.0));
    call.pbx.source = Box::new(tone(1000.0, 8000.0));
    call.run(Duration::from_secs(3));
    assert!(call.connected());
    let before = (call.bridge.overlay_counters().sent, call.bridge.overlay_counters().received);
    let mut allocations = 0;
    // Takes the place of Call::run, which allocates itself: only the bridge's calls are counted.
    let until = call.net.now + Duration::from_secs(10);
    while call.net.now < until {
        allocations += call.step_counting(&mut |work| counted(&mut *work).1);
    }
    let counters = call.bridge.overlay_counters();
    (allocations, counters.sent - before.0, counters.received - before.1)
}

#[test]
fn a_connected_call_allocates_nothing_per_packet() {
    let mut call = Call::with_trunk(&Options::default());
    let (allocations, sent, received) = connected_seconds(&mut call);
    assert!(sent > 450 && received > 450, "{sent} {received}");
    assert!(allocations <= MOST_IN_TEN_SECONDS, "{allocations} for {sent} packets sent, {received} received");
}

#[test]
fn a_call_with_srtp_on_both_sides_allocates_nothing_per_packet() {
    for suite in SrtpSuite::ALL {
        let mut call = Call::new(&Options::default());
        let key = |seed| SrtpKey::new(suite, &vec![seed; suite.key_len() + suite.salt_len()]).unwrap();
        let keys = SrtpKeys { suite, send: key(1), receive: vec![key(2)] };
        call.pbx.set_keys(&keys.receive[0], &keys.send);
        let mut media = trunk_media(Codec::Pcma, 20);
        media.security = MediaSecurity::Sdes(Box::new(keys));
        let now = call.net.now;
        call.bridge.set_trunk_media(&media, now).unwrap();
        let (allocations, sent, received) = connected_seconds(&mut call);
        assert!(sent > 450 && received > 450, "{sent} {received}");
        assert_eq!((call.bridge.trunk_counters().refused(), call.pbx.unauthentic), (0, 0));
        assert!(allocations <= MOST_IN_TEN_SECONDS, "{suite:?}: {allocations} for {sent} packets each way");
    }
}

#[test]
fn f20_a_call_that_dtls_keyed_allocates_nothing_per_packet() {
    thread_local!(static GATEWAY: DtlsIdentity = DtlsIdentity::generate().unwrap());
    let configure =
        |config: &mut transcoder::BridgeConfig| config.identity = Some(GATEWAY.with(Clone::clone));
    let mut call = Call::new(&Options { configure, ..Options::default() });
    let (now, pbx) = (call.net.now, DtlsIdentity::generate().unwrap());
    let media = |remote: &str, role: DtlsRole, theirs: Fingerprint| {
        let security = DtlsParameters { role, fingerprints: vec![theirs], tls_id: None };
        let security = MediaSecurity::DtlsSrtp(Box::new(security));
        let remote_rtp = remote.parse().unwrap();
        LegMedia { remote_rtp, remote_rtcp: None, security, ..trunk_media(Codec::Pcma, 20) }
    };
    call.bridge.set_trunk_media(&media(TRUNK_RTP, DtlsRole::Active, pbx.fingerprint()), now).unwrap();
    let mut leg = RtpLeg::new(5, now).with_identity(Some(pbx));
    let gateway = GATEWAY.with(DtlsIdentity::fingerprint);
    leg.set_media(&media(GATEWAY_RTP, DtlsRole::Passive, gateway), now).unwrap();
    call.pbx.leg = Some(leg);
    let (allocations, sent, received) = connected_seconds(&mut call);
    assert!(sent > 450 && received > 450, "{sent} {received}");
    assert!(call.bridge.trunk_counters().received > 500 && call.pbx.heard.len() > 80_000);
    assert!(allocations <= MOST_IN_TEN_SECONDS, "{allocations} for {sent} packets each way");
}

/// Tones of a trunk without telephone events, tones sent to it, and voiceband data: what is kept for them is made when
/// the media is set.
#[test]
fn tones_and_voiceband_data_allocate_nothing_per_packet() {
    let configure = |config: &mut transcoder::BridgeConfig| config.in_band_digits = true;
    let mut call = Call::new(&Options { configure, ..Options::default() });
    let media = LegMedia { telephone_event: None, ..trunk_media(Codec::Pcma, 20) };
    call.bridge.set_trunk_media(&media, call.net.now).unwrap();
    call.run(Duration::from_secs(3));
    // The first digit makes room for digits; nothing else does.
    let digit = DtmfDigit::from_char('3').unwrap();
    assert!(call.bridge.send_dtmf(call.net.now, Side::Trunk, digit, 100));
    let key = Press::new('5', 80.0).samples();
    let mut first = [key.clone(), vec![0; 1_600]].concat().into_iter();
    call.pbx.source = Box::new(move || first.next().unwrap_or(0));
    call.run(Duration::from_secs(2));
    assert_eq!(call.phone_digits(), "5");
    let signal =
        [[&key[..], &[0; 800]].concat().repeat(20), answer(2_100.0, -12.0, 4.0, true, true)].concat();
    let mut signal = signal.into_iter();
    call.pbx.source = Box::new(move || signal.next().unwrap_or(0));
    let mut allocations = 0;
    let until = call.net.now + Duration::from_secs(10);
    let mut n = 0;
    while call.net.now < until {
        n += 1;
        if n % 500 == 0 {
            allocations += counted(|| call.bridge.send_dtmf(call.net.now, Side::Trunk, digit, 100)).1;
        }
        call.pbx.lose = u32::from(n % 700 == 0);
        allocations += call.step_counting(&mut |work| counted(&mut *work).1);
    }
    assert_eq!(call.phone_digits(), "5".repeat(21));
    let voiceband = |event: &&BridgeEvent| matches!(event, BridgeEvent::Voiceband { .. });
    assert_eq!(call.bridge_events.iter().filter(voiceband).count(), 2);
    assert!(allocations <= MOST_IN_TEN_SECONDS, "{allocations}");
}

#[test]
fn a_call_in_g711_allocates_nothing_per_packet_nor_as_the_codec_changes() {
    let mut call = Call::with_trunk(&Options { g711: [true; 2], ..Options::default() });
    call.bridge.set_edge(EdgeCodec::Always);
    call.phone.set_edge(EdgeCodec::Always);
    let (allocations, sent, received) = connected_seconds(&mut call);
    assert_eq!((call.bridge.overlay_sends(), call.bridge.overlay_receives()), (Codec::Pcma, Codec::Pcma));
    assert!(sent > 450 && received > 450, "{sent} {received}");
    assert!(allocations <= MOST_IN_TEN_SECONDS, "{allocations} for {sent} packets sent, {received} received");

    // Both sources are known by now.
    call.bridge.set_edge(EdgeCodec::Never);
    call.run(Duration::from_secs(1));
    let (mut allocations, mut codecs) = (0, Vec::new());
    for change in 0..20 {
        let policy = if change % 2 == 0 { EdgeCodec::Always } else { EdgeCodec::Never };
        call.bridge.set_edge(policy);
        call.phone.set_edge(policy);
        let until = call.net.now + Duration::from_millis(500);
        while call.net.now < until {
            allocations += call.step_counting(&mut |work| counted(&mut *work).1);
        }
        codecs.push((call.bridge.overlay_sends(), call.bridge.overlay_receives()));
    }
    let (g711, opus) = ((Codec::Pcma, Codec::Pcma), (Codec::Opus, Codec::Opus));
    assert!(codecs.chunks(2).all(|pair| pair == [g711, opus]), "{codecs:?}");
    assert!(allocations <= MOST_IN_TEN_SECONDS, "{allocations} in twenty changes");
}

#[test]
fn frames_sent_again_and_frames_brought_back_allocate_nothing_per_packet() {
    let mut call = Call::with_trunk(&Options { redundancy: [true; 2], ..Options::default() });
    call.net.weather.loss_per_mille = 37;
    call.net.burst = 3;
    call.phone_source = Box::new(tone(440.0, 8000.0));
    call.pbx.source = Box::new(tone(1000.0, 8000.0));
    // Both sides need a report or two that sees how much is lost.
    for _ in 0..20 {
        call.run(Duration::from_secs(2));
        if call.bridge.redundancy().min(call.phone.redundancy()) == 3 {
            break;
        }
    }
    assert_eq!((call.bridge.redundancy(), call.phone.redundancy()), (3, 3));
    let before = call.bridge.quality(Side::Overlay).frames_redundant;
    let (allocations, sent, received) = connected_seconds(&mut call);
    assert!(sent > 450 && received > 400, "{sent} {received}");
    assert!(call.bridge.quality(Side::Overlay).frames_redundant > before + 20);
    assert!(allocations <= MOST_IN_TEN_SECONDS, "{allocations} for {sent} packets sent, {received} received");
}

#[test]
fn a_call_in_wide_band_allocates_nothing_per_packet() {
    let options =
        Options { codec: Codec::G722, phone_rate: 16_000, playback_rate: 16_000, ..Options::default() };
    let mut call = Call::new(&options);
    // Without telephone events, so that tones are listened for; and whatever else was agreed on may come.
    let also_receives = vec![(8, Codec::Pcma)];
    let media = LegMedia { telephone_event: None, also_receives, ..trunk_media(Codec::G722, 20) };
    let now = call.net.now;
    call.bridge.set_trunk_media(&media, now).unwrap();
    let (allocations, sent, received) = connected_seconds(&mut call);
    assert_eq!(call.bridge.sample_rate(), 16_000);
    assert!(sent > 450 && received > 450, "{sent} {received}");
    assert!(allocations <= MOST_IN_TEN_SECONDS, "{allocations} for {sent} packets sent, {received} received");
    let mut allocations = 0;
    for codec in [Codec::Pcma, Codec::G722, Codec::Pcma] {
        call.pbx.sends = Some(codec);
        let until = call.net.now + Duration::from_secs(1);
        while call.net.now < until {
            allocations += call.step_counting(&mut |work| counted(&mut *work).1);
        }
    }
    assert!(allocations <= MOST_IN_TEN_SECONDS, "{allocations} as the codec that comes changes");
}

/// A relay, the addresses of its parties, and a moment to begin at.
fn relay() -> (Relay, [SocketAddr; 2], Instant) {
    #[allow(clippy::disallowed_methods)]
    let now = Instant::now();
    let (trunk_rtp, onward_rtp) = (address("127.0.0.1:20000"), address("127.0.0.1:20002"));
    let config =
        RelayConfig { trunk_rtp, onward_rtp, media_timeout: Duration::from_secs(60), identity: None };
    (Relay::new(&config, 1, now), [address("127.0.0.1:30000"), address("127.0.0.1:30002")], now)
}

#[test]
fn g722_is_made_of_g711_between_two_trunks_without_an_allocation() {
    let (mut relay, remotes, now) = relay();
    let legs = [(Side::Trunk, Codec::G722), (Side::Onward, Codec::Pcma)].into_iter().zip(remotes);
    for ((side, codec), remote_rtp) in legs.clone() {
        relay.set_media(side, &LegMedia { remote_rtp, ..trunk_media(codec, 20) }, now).unwrap();
    }
    let mut passed = 0;
    let ((), allocations) = counted(|| {
        for n in 0..1_000u16 {
            for ((side, codec), source) in legs.clone() {
                let mut packet = [n as u8; 172];
                packet[..2].copy_from_slice(&[0x80, codec.static_payload_type().unwrap_or(0)]);
                packet[2..4].copy_from_slice(&n.to_be_bytes());
                packet[4..8].copy_from_slice(&(u32::from(n) * 160).to_be_bytes());
                packet[8..12].copy_from_slice(&[side as u8 + 1; 4]);
                relay.handle_datagram(now, side, Port::Rtp, source, &packet, &mut |_| passed += 1);
            }
        }
    });
    // The first packet of each source is not yet believed to be one of a stream.
    assert!(passed >= 1_996, "{passed}");
    // The events that say that media has come.
    assert!(allocations <= 2, "{allocations} for {passed} packets");
}

/// For STUN and its timers, a few times a second at most: not one packet in five.
const MOST_IN_TEN_SECONDS: u64 = 100;

#[test]
fn f14_udptl_passes_without_an_allocation() {
    let (mut relay, remotes, now) = relay();
    for (side, remote_udptl) in [Side::Trunk, Side::Onward].into_iter().zip(remotes) {
        let image = ImageMedia { remote_udptl, attributes: ImageAttributes::default() };
        relay.set_image(side, &image, now).unwrap();
    }
    let mut passed = 0;
    let ((), allocations) = counted(|| {
        for n in 0..1_000u16 {
            let mut datagram = [n as u8; 60];
            datagram[..2].copy_from_slice(&n.to_be_bytes());
            // Every fourth is a stranger's.
            let source = remotes[usize::from(n % 4 == 3)];
            relay.handle_datagram(now, Side::Trunk, Port::Rtp, source, &datagram, &mut |_| passed += 1);
            relay.handle_timeout(now, &mut |_| {});
        }
    });
    assert_eq!((passed, allocations), (750, 0));
}
