//! What a packet costs in the legs, and in the cipher alone: two legs in virtual time, and the CPU
//! time of sending and of receiving apart. No codec, no jitter buffer, no sockets. 64 octets of payload
//! on the overlay side, 160 on the trunk's.
//!
//! `cargo run --release -p transcoder --example leg_cost [packets]`
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use call_model::{Codec, Direction, LegMedia, MediaSecurity, SrtpKey, SrtpKeys, SrtpSuite};
use transcoder::leg::PayloadKind;
use transcoder::leg::rtp::{Received, RtpLeg};
use transcoder::rtp::{HEADER_LEN, RtpSender};
use transcoder::srtp::{MAX_OVERHEAD, SrtpReceiver, SrtpSender};
use transcoder::{DtlsIdentity, Port, WebRtcConfig, WebRtcLeg};

const PAYLOAD: usize = 64;
/// Packets made before they are received.
const BATCH: u64 = 50;

fn cpu_seconds() -> f64 {
    // Field 1 of proc_pid_schedstat(5): nanoseconds on the processor.
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e9
}

fn key(suite: SrtpSuite) -> SrtpKey {
    SrtpKey::new(suite, &vec![7; suite.key_len() + suite.salt_len()]).unwrap()
}

/// Prints the mean of a packet.
fn print(what: &str, suite: &str, packets: u64, received: u64, [sending, receiving]: [f64; 2]) {
    let each = |seconds: f64| seconds * 1e9 / packets as f64;
    println!(
        "RESULT {what} suite={suite} packets={packets} received={received} send_ns={:.0} receive_ns={:.0}",
        each(sending),
        each(receiving)
    );
}

/// Protection alone, of packets with `payload` octets.
fn cipher(suite: SrtpSuite, payload: usize, packets: u64) {
    let key = key(suite);
    let (mut sender, mut receiver) = (SrtpSender::new(&key), SrtpReceiver::new(&[key]));
    let mut source = RtpSender::new(1);
    let now = Instant::now();
    let (mut cost, mut received, mut sent) = ([0.0; 2], 0, 0);
    while sent < packets {
        let length = HEADER_LEN + payload;
        let mut batch = vec![vec![7; length + MAX_OVERHEAD]; BATCH as usize];
        for packet in &mut batch {
            source.write_header(now, 111, false, sent * 960, payload, packet).unwrap();
            sent += 1;
        }
        let before = cpu_seconds();
        for packet in &mut batch {
            let length = sender.protect_rtp(packet, length).unwrap();
            packet.truncate(length);
        }
        let between = cpu_seconds();
        for packet in &mut batch {
            received += u64::from(receiver.unprotect_rtp(packet).is_ok());
        }
        cost[1] += cpu_seconds() - between;
        cost[0] += between - before;
    }
    print(&format!("cipher payload={payload}"), suite.as_str(), packets, received, cost);
}

fn trunk(security: MediaSecurity, packets: u64) {
    let addresses: [SocketAddr; 2] =
        ["192.0.2.1:4000", "192.0.2.2:5000"].map(|address| address.parse().unwrap());
    let mut now = Instant::now();
    let suite = match &security {
        MediaSecurity::Sdes(keys) => keys.suite.as_str(),
        _ => "none",
    };
    let [mut from, mut to] = [1, 0].map(|remote| {
        let media = LegMedia {
            codec: Codec::Pcma,
            send_payload_type: 8,
            receive_payload_type: 8,
            also_receives: Vec::new(),
            telephone_event: None,
            comfort_noise: false,
            packet_time_ms: 20,
            remote_rtp: addresses[remote],
            remote_rtcp: None,
            direction: Direction::SendRecv,
            security: security.clone(),
        };
        let mut leg = RtpLeg::new(remote as u64, now);
        leg.set_media(&media, now).unwrap();
        leg
    });
    let (mut cost, mut received, mut sent) = ([0.0; 2], 0, 0);
    while sent < packets {
        let mut wire = Vec::with_capacity(BATCH as usize);
        let before = cpu_seconds();
        for _ in 0..BATCH {
            let mut emit = |_: Port, _: SocketAddr, bytes: &[u8]| wire.push(bytes.to_vec());
            from.send(now, PayloadKind::Audio, false, sent * 160, &[7; 160], &mut emit);
            now += Duration::from_millis(20);
            sent += 1;
        }
        let between = cpu_seconds();
        for packet in &wire {
            let accepted = to.handle_datagram(now, Port::Rtp, addresses[0], packet);
            received += u64::from(matches!(accepted, Ok(Received::Audio(..))));
        }
        cost[1] += cpu_seconds() - between;
        cost[0] += between - before;
    }
    print("trunk_leg", suite, packets, received, cost);
}

fn main() {
    let packets: u64 = std::env::args().nth(1).map_or(100_000, |argument| argument.parse().unwrap());
    for suite in SrtpSuite::ALL {
        cipher(suite, 64, packets);
        cipher(suite, 160, packets);
    }
    trunk(MediaSecurity::None, packets);
    for suite in SrtpSuite::ALL {
        trunk(
            MediaSecurity::Sdes(Box::new(SrtpKeys { suite, send: key(suite), receive: vec![key(suite)] })),
            packets,
        );
    }
    overlay(packets);
}

fn overlay(packets: u64) {
    let identity = DtlsIdentity::generate().unwrap();
    let addresses: [SocketAddr; 2] =
        ["192.0.2.1:4000", "192.0.2.2:5000"].map(|address| address.parse().unwrap());
    let mut now = Instant::now();
    let [mut user, mut gateway] = [(0, false), (1, true)].map(|(at, ice_lite)| {
        let config = WebRtcConfig { local: vec![addresses[at]], ice_lite, ..WebRtcConfig::default() };
        WebRtcLeg::new(config, &identity, now).unwrap()
    });
    let offer = user.create_offer().unwrap();
    let answer = gateway.accept_offer(&offer).unwrap();
    user.accept_answer(&answer).unwrap();
    let exchange = |now: Instant, user: &mut WebRtcLeg, gateway: &mut WebRtcLeg| {
        let (mut to_user, mut to_gateway) = (Vec::new(), Vec::new());
        loop {
            user.handle_timeout(now, &mut |_, _, bytes| to_gateway.push(bytes.to_vec()));
            gateway.handle_timeout(now, &mut |_, _, bytes| to_user.push(bytes.to_vec()));
            if to_user.is_empty() && to_gateway.is_empty() {
                break;
            }
            for packet in std::mem::take(&mut to_gateway) {
                let emit = &mut |_: SocketAddr, _: SocketAddr, bytes: &[u8]| to_user.push(bytes.to_vec());
                gateway.handle_datagram(now, addresses[1], addresses[0], &packet, emit);
            }
            for packet in std::mem::take(&mut to_user) {
                let emit = &mut |_: SocketAddr, _: SocketAddr, bytes: &[u8]| to_gateway.push(bytes.to_vec());
                user.handle_datagram(now, addresses[0], addresses[1], &packet, emit);
            }
        }
        while user.poll_event().is_some() {}
        while gateway.poll_event().is_some() {}
    };
    while !(user.is_connected() && gateway.is_connected()) {
        exchange(now, &mut user, &mut gateway);
        now += Duration::from_millis(5);
    }
    let (mut sending, mut receiving, mut received) = (0.0, 0.0, 0);
    let mut sent = 0;
    while sent < packets {
        let (mut wire, mut answers) = (Vec::with_capacity(BATCH as usize), Vec::new());
        let (began, before) = (now, cpu_seconds());
        for _ in 0..BATCH {
            let timestamp = sent as u32 * 960;
            user.send(now, PayloadKind::Audio, timestamp, false, &[7; PAYLOAD], &mut |_, _, bytes| {
                wire.push(bytes.to_vec());
            });
            now += Duration::from_millis(20);
            sent += 1;
        }
        let between = cpu_seconds();
        for (packet, at) in wire.iter().zip(0..) {
            let at = began + Duration::from_millis(20) * at;
            let emit = &mut |_: SocketAddr, _: SocketAddr, bytes: &[u8]| answers.push(bytes.to_vec());
            gateway.handle_datagram(at, addresses[1], addresses[0], packet, emit);
            while let Some(event) = gateway.poll_event() {
                received += u64::from(matches!(event, transcoder::leg::webrtc::LegEvent::Packet(_)));
            }
        }
        receiving += cpu_seconds() - between;
        sending += between - before;
        // Checks of ICE may have gone out with the packets.
        for packet in answers {
            user.handle_datagram(now, addresses[0], addresses[1], &packet, &mut |_, _, _| {});
        }
        exchange(now, &mut user, &mut gateway);
    }
    // What DTLS agrees on with itself.
    print("overlay_leg", SrtpSuite::AeadAes256Gcm.as_str(), sent, received, [sending, receiving]);
}
