//! What a bridged call costs: N bridges in virtual time, each fed by a phone and a trunk whose
//! packets were made beforehand, so that the CPU time measured is the bridges' alone (ICE, SRTP,
//! jitter buffers, Opus, G.711, RTCP; no sockets). With G.711 on the overlay leg nothing is encoded or decoded but
//! that: in the same law on both legs, and in the other. With G.722 on the trunk everything is at 16 kHz.
//!
//! `cargo run --release -p transcoder --example bridge_cost [calls] [seconds]`
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use call_model::{Codec, Direction, LegMedia, MediaSecurity, Side};
use transcoder::codec::g711::Law;
use transcoder::codec::g722;
use transcoder::codec::resample::Resampler;
use transcoder::rtp::{HEADER_LEN, RtpSender};
use transcoder::{
    Bridge, BridgeConfig, DtlsIdentity, EdgeCodec, Phone, PhoneConfig, Port, WebRtcConfig, WebRtcLeg,
};

#[allow(dead_code, unreachable_pub)]
#[path = "../tests/common/signal.rs"]
mod signal;

const TICK: Duration = Duration::from_millis(20);
const OVERLAY: &str = "192.0.2.1:4000";
const PHONE: &str = "198.51.100.7:6000";
const GATEWAY_RTP: &str = "192.0.2.1:20000";
const TRUNK_RTP: &str = "203.0.113.5:30000";

struct Call {
    bridge: Bridge,
    /// Per tick the datagrams of the phone and the packet of the trunk.
    overlay: Vec<Vec<Vec<u8>>>,
    trunk: Vec<Vec<u8>>,
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// One side of a conversation: speaks for seconds, then listens, in antiphase to the other.
fn talker(conversation: bool, turn: u64, rate: u32) -> impl FnMut(u64) -> Vec<i16> {
    let mut voice = signal::speech();
    let mut resampler = Resampler::new(8_000, rate).unwrap();
    move |tick| {
        let speaks = !conversation || (tick / 100) % 2 == turn;
        let spoken: Vec<i16> =
            (0..160).map(|_| voice()).map(|sample| if speaks { sample } else { 0 }).collect();
        let mut pcm = vec![0; rate as usize / 50];
        resampler.resample(&spoken, &mut pcm);
        pcm
    }
}

/// What is measured.
#[derive(Clone, Copy)]
struct Case {
    complexity: u8,
    conversation: bool,
    /// The law of the trunk, where the overlay leg carries G.711: A-law towards us.
    g711: Option<Law>,
    /// The trunk speaks G.722.
    wide: bool,
}

fn prepare(
    identity: &DtlsIdentity,
    Case { complexity, conversation, g711, wide }: Case,
    seed: u64,
    start: Instant,
    ticks: u64,
) -> Call {
    let leg = |local: &str, ice_lite| {
        WebRtcLeg::new(
            WebRtcConfig { local: vec![address(local)], ice_lite, g711: g711.is_some(), redundancy: false },
            identity,
            start,
        )
        .unwrap()
    };
    let (mut user, mut gateway) = (leg(PHONE, false), leg(OVERLAY, true));
    let rate = if wide { 16_000 } else { 8_000 };
    gateway.set_playback_rate(rate);
    let offer = user.create_offer().unwrap();
    let answer = gateway.accept_offer(&offer).unwrap();
    let edge = if g711.is_some() { EdgeCodec::Always } else { EdgeCodec::Never };
    let mut phone = Phone::new(PhoneConfig { edge, ..PhoneConfig::new(rate) }, user, seed, start).unwrap();
    phone.accept_answer(&answer, start).unwrap();
    let mut config = BridgeConfig::new(address(GATEWAY_RTP));
    config.complexity = complexity;
    config.suppress_silence = conversation;
    config.edge = edge;
    let law = g711.unwrap_or(Law::A);
    let codec = match (wide, law) {
        (true, _) => Codec::G722,
        (false, Law::A) => Codec::Pcma,
        (false, Law::Mu) => Codec::Pcmu,
    };
    let payload_type = codec.static_payload_type().unwrap();
    let mut bridge = Bridge::new(config, gateway, seed, start).unwrap();
    let media = LegMedia {
        codec,
        send_payload_type: payload_type,
        receive_payload_type: payload_type,
        also_receives: Vec::new(),
        telephone_event: None,
        comfort_noise: false,
        packet_time_ms: 20,
        remote_rtp: address(TRUNK_RTP),
        remote_rtcp: None,
        direction: Direction::SendRecv,
        security: MediaSecurity::None,
    };
    bridge.set_trunk_media(&media, start).unwrap();

    let mut now = start;
    let (mut to_bridge, mut to_phone) = (Vec::new(), Vec::new());
    while !(phone.is_connected() && bridge.is_overlay_connected()) {
        assert!(now < start + Duration::from_secs(5), "no connection");
        phone.handle_timeout(now, &mut |out| to_bridge.push(out.bytes.to_vec()));
        bridge.handle_timeout(now, &mut |out| {
            if out.side == Side::Overlay {
                to_phone.push(out.bytes.to_vec());
            }
        });
        for packet in to_bridge.drain(..) {
            let (to, from) = (address(OVERLAY), address(PHONE));
            bridge.handle_datagram(now, Side::Overlay, Port::Rtp, to, from, &packet, &mut |out| {
                to_phone.push(out.bytes.to_vec());
            });
        }
        for packet in to_phone.drain(..) {
            phone.handle_datagram(now, address(PHONE), address(OVERLAY), &packet, &mut |out| {
                to_bridge.push(out.bytes.to_vec());
            });
        }
        now += Duration::from_millis(1);
    }
    let mut sender = RtpSender::new(seed);
    let (mut microphone, mut far_end) = (talker(conversation, 0, rate), talker(conversation, 1, rate));
    let mut encoder = g722::Encoder::new();
    let mut call = Call { bridge, overlay: Vec::new(), trunk: Vec::new() };
    for tick in 0..ticks {
        let now = start + Duration::from_secs(5) + TICK * u32::try_from(tick).unwrap();
        let mut datagrams = Vec::new();
        phone.handle_timeout(now, &mut |out| datagrams.push(out.bytes.to_vec()));
        phone.write_frame(now, &microphone(tick), &mut |out| datagrams.push(out.bytes.to_vec()));
        call.overlay.push(datagrams);
        let mut packet = vec![0; HEADER_LEN + 160];
        if wide {
            encoder.encode(&far_end(tick), &mut packet[HEADER_LEN..]);
        } else {
            law.encode_into(&far_end(tick), &mut packet[HEADER_LEN..]);
        }
        sender.write_header(now, payload_type, tick == 0, tick * 160, 160, &mut packet).unwrap();
        call.trunk.push(packet);
    }
    // The bridge's clock has stood still meanwhile; its pause before the measurement is given up.
    call
}

fn cpu_seconds() -> f64 {
    // Fields 14 and 15 of proc_pid_stat(5), in ticks of 10 ms.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>().unwrap());
    let calls = arguments.next().unwrap_or(50);
    let seconds = arguments.next().unwrap_or(8);
    let identity = DtlsIdentity::generate().unwrap();
    let opus = |complexity, conversation| Case { complexity, conversation, g711: None, wide: false };
    let g722 = |complexity, conversation| Case { wide: true, ..opus(complexity, conversation) };
    let g711 = |law| Case { g711: Some(law), ..opus(0, false) };
    for case in [
        opus(0, false),
        opus(3, false),
        opus(5, false),
        opus(10, false),
        opus(5, true),
        opus(0, true),
        g722(0, false),
        g722(5, false),
        g722(5, true),
        g711(Law::A),
        g711(Law::Mu),
    ] {
        let start = Instant::now();
        let mut prepared: Vec<Call> =
            (0..calls).map(|seed| prepare(&identity, case, seed, start, seconds * 50)).collect();
        let (mut to_overlay, mut to_trunk) = (0u64, 0u64);
        let before = cpu_seconds();
        for tick in 0..(seconds * 50) as usize {
            let now = start + Duration::from_secs(5) + TICK * u32::try_from(tick).unwrap();
            for call in &mut prepared {
                let mut emit = |out: transcoder::Outgoing<'_>| match out.side {
                    Side::Overlay => to_overlay += 1,
                    Side::Trunk | Side::Onward => to_trunk += 1,
                };
                for packet in &call.overlay[tick] {
                    let (to, from) = (address(OVERLAY), address(PHONE));
                    call.bridge.handle_datagram(now, Side::Overlay, Port::Rtp, to, from, packet, &mut emit);
                }
                let (to, from) = (address(GATEWAY_RTP), address(TRUNK_RTP));
                call.bridge.handle_datagram(
                    now,
                    Side::Trunk,
                    Port::Rtp,
                    to,
                    from,
                    &call.trunk[tick],
                    &mut emit,
                );
                call.bridge.handle_timeout(now, &mut emit);
                while call.bridge.poll_event().is_some() {}
            }
        }
        let cpu = cpu_seconds() - before;
        let call_seconds = (calls * seconds) as f64;
        let quality = prepared[0].bridge.quality(Side::Overlay);
        let Case { complexity, conversation, g711, wide } = case;
        let edge = g711.map_or("opus".to_owned(), |law| format!("g711(trunk={law:?})"));
        let bridge = &prepared[0].bridge;
        let expected =
            |law: Option<Law>| law.map_or(Codec::Opus, |law| [Codec::Pcmu, Codec::Pcma][law as usize]);
        assert_eq!(bridge.overlay_sends(), expected(g711));
        assert_eq!(bridge.overlay_receives(), expected(g711.map(|_| Law::A)));
        let material = if conversation { "conversation" } else { "speech" };
        println!(
            "RESULT bridge_cost edge={edge} wide={wide} complexity={complexity} material={material} calls={calls} seconds={seconds} \
             ms_per_call_second={:.3} calls_per_core={:.0} packets_to_overlay={to_overlay} packets_to_trunk={to_trunk} \
             received={} lost={} concealed={}",
            1000.0 * cpu / call_seconds,
            call_seconds / cpu,
            quality.packets_received,
            quality.packets_lost,
            quality.frames_concealed,
        );
    }
}
