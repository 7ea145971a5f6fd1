//! A WebRTC leg against str0m with nothing of ours around it: what a peer that binds streams by MID
//! (RFC 9143) sees, and what becomes of its reports.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::change::SdpAnswer;
use str0m::format::{Codec, FormatParams};
use str0m::media::{Direction, Frequency, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::rtcp::Rtcp;
use str0m::rtp::{RawPacket, RtpWrite};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};
use transcoder::leg::PayloadKind;
use transcoder::leg::webrtc::LegEvent;
use transcoder::{DtlsIdentity, WebRtcConfig, WebRtcLeg};

#[path = "common/mod.rs"]
mod common;
use common::{Network, address, certificate};

const GATEWAY: &str = "192.0.2.1:4000";
const PEER: &str = "198.51.100.7:6000";
const PEER_ELSEWHERE: &str = "203.0.113.9:6001";

/// What the peer saw, in the order of coming.
#[derive(Default)]
struct Seen {
    connected: bool,
    /// Sequence number and whether the packet named its stream.
    rtp: Vec<(u16, bool)>,
    sender_reports: usize,
    reception_reports: usize,
    goodbyes: usize,
}

struct World {
    net: Network,
    leg: WebRtcLeg,
    leg_events: Vec<LegEvent>,
    rtc: Rtc,
    mid: Mid,
    wake: Instant,
    seen: Seen,
    /// One in so many RTP packets to the peer is lost.
    lose_each: usize,
    to_peer: usize,
    /// An address of the peer's to and from which nothing goes.
    dead: Option<SocketAddr>,
    /// Where the last RTP packet for the peer went.
    last_rtp_to: Option<SocketAddr>,
}

impl World {
    /// The peer offers; it is told nothing of sources.
    fn new(peer: &[&str]) -> Self {
        Self::configured(peer, RtcConfig::new())
    }

    fn configured(peer: &[&str], config: RtcConfig) -> Self {
        let net = Network::new(5);
        let mut config = config.set_rtp_mode(true).enable_raw_packets(true).clear_codecs();
        config.codec_config().add_config(
            111.into(),
            None,
            Codec::Opus,
            Frequency::FORTY_EIGHT_KHZ,
            Some(2),
            FormatParams::default(),
        );
        let mut rtc = config.build(net.now);
        for peer in peer {
            rtc.add_local_candidate(Candidate::host(address(peer), "udp").unwrap()).unwrap();
        }
        let mut api = rtc.sdp_api();
        let mid = api.add_media(MediaKind::Audio, Direction::SendRecv, None, None, None);
        let (offer, pending) = api.apply().unwrap();
        let without_sources = |sdp: String| -> String {
            let lines = sdp.lines().filter(|line| !line.starts_with("a=ssrc"));
            lines.map(|line| format!("{line}\r\n")).collect()
        };
        let config =
            WebRtcConfig { local: vec![address(GATEWAY)], ice_lite: true, ..WebRtcConfig::default() };
        let mut leg = WebRtcLeg::new(config, &DtlsIdentity::generate().unwrap(), net.now).unwrap();
        let answer = without_sources(leg.accept_offer(&without_sources(offer.to_sdp_string())).unwrap());
        rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&answer).unwrap()).unwrap();
        let wake = net.now;
        let (leg_events, seen) = (Vec::new(), Seen::default());
        Self {
            net,
            leg,
            leg_events,
            rtc,
            mid,
            wake,
            seen,
            lose_each: usize::MAX,
            to_peer: 0,
            dead: None,
            last_rtp_to: None,
        }
    }

    fn run(&mut self, duration: Duration) {
        let until = self.net.now + duration;
        while self.net.now < until {
            while let Some(datagram) = self.net.due() {
                let now = self.net.now;
                if [datagram.to, datagram.from].iter().any(|end| Some(*end) == self.dead) {
                    continue;
                }
                if datagram.to == address(GATEWAY) {
                    let net = &mut self.net;
                    let emit =
                        &mut |from: SocketAddr, to: SocketAddr, bytes: &[u8]| net.send(from, to, bytes);
                    self.leg.handle_datagram(now, datagram.to, datagram.from, &datagram.bytes, emit);
                } else {
                    assert!(!datagram.bytes.is_empty(), "what asks for the path went out");
                    let rtp = datagram.bytes[0] >> 6 == 2 && datagram.bytes[1] & 0x7f == 111;
                    self.to_peer += usize::from(rtp);
                    self.last_rtp_to = if rtp { Some(datagram.to) } else { self.last_rtp_to };
                    if rtp && self.to_peer.is_multiple_of(self.lose_each) {
                        continue;
                    }
                    let receive =
                        Receive::new(Protocol::Udp, datagram.from, datagram.to, &datagram.bytes).unwrap();
                    self.rtc.handle_input(Input::Receive(now, receive)).unwrap();
                    self.drain();
                }
            }
            let now = self.net.now;
            if self.wake <= now {
                self.rtc.handle_input(Input::Timeout(now)).unwrap();
                self.drain();
            }
            if self.leg.poll_timeout().is_some_and(|at| at <= now) {
                let net = &mut self.net;
                self.leg.handle_timeout(now, &mut |from, to, bytes| net.send(from, to, bytes));
            }
            while let Some(event) = self.leg.poll_event() {
                self.leg_events.push(event);
            }
            self.net.now += Duration::from_millis(1);
        }
    }

    fn drain(&mut self) {
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(at) => {
                    self.wake = at;
                    return;
                }
                Output::Transmit(out) => self.net.send(out.source, out.destination, &out.contents),
                Output::Event(event) => self.see(event),
            }
        }
    }

    fn see(&mut self, event: Event) {
        match event {
            Event::Connected => self.seen.connected = true,
            Event::RtpPacket(packet) => {
                let header = &packet.header;
                self.seen.rtp.push((header.sequence_number, header.ext_vals.mid.is_some()));
            }
            Event::RawPacket(packet) => match *packet {
                RawPacket::RtcpRx(Rtcp::SenderReport(report)) => {
                    self.seen.sender_reports += 1;
                    self.seen.reception_reports += report.reports.iter().count();
                }
                RawPacket::RtcpRx(Rtcp::Goodbye(_)) => self.seen.goodbyes += 1,
                _ => {}
            },
            _ => {}
        }
    }

    /// Both talk for `frames` of 20 ms.
    fn talk(&mut self, frames: u32, first: u32) {
        for n in first..first + frames {
            let (now, net) = (self.net.now, &mut self.net);
            let emit = &mut |from: SocketAddr, to: SocketAddr, bytes: &[u8]| net.send(from, to, bytes);
            assert!(self.leg.send(now, PayloadKind::Audio, n * 960, n == 0, &[n as u8; 40], emit));
            let mut api = self.rtc.direct_api();
            let stream = api.stream_tx_by_mid(self.mid, None).unwrap();
            let payload = vec![n as u8; 30];
            stream.write_rtp(RtpWrite::new(111.into(), u64::from(n + 1).into(), n * 960, now, payload));
            self.rtc.handle_input(Input::Timeout(now)).unwrap();
            self.drain();
            self.run(Duration::from_millis(20));
        }
    }
}

// RFC 9143 15, RFC 8843 9.2: a peer that was told no source finds the stream by MID from the first
// packet on; MID ends with the peer's first report about our source.
#[test]
fn a_peer_that_was_told_no_sources_hears_and_is_heard() {
    let mut world = World::new(&[PEER]);
    world.run(Duration::from_secs(2));
    assert!(world.seen.connected && world.leg.is_connected());
    world.talk(1_000, 0);
    world.run(Duration::from_millis(50));
    assert_eq!(world.seen.rtp.len(), 1_000);
    assert!(world.seen.rtp.windows(2).all(|pair| pair[1].0 == pair[0].0.wrapping_add(1)));
    let named = world.seen.rtp.iter().take_while(|(_, named)| *named).count();
    assert!((1..600).contains(&named), "{named}");
    assert!(world.seen.rtp[named..].iter().all(|(_, named)| !named));

    let heard = world.leg_events.iter().filter_map(|event| match event {
        LegEvent::Packet(packet) => Some(packet.payload.to_vec()),
        _ => None,
    });
    let heard: Vec<_> = heard.collect();
    assert_eq!(heard.len(), 1_000);
    assert!(heard.iter().enumerate().all(|(n, payload)| *payload == [n as u8; 30]));
    assert_eq!(world.leg.counters().refused(), 0, "{:?}", world.leg.counters());

    // RFC 3550 6.1 and 6.4.1: our reports, and BYE at the end.
    assert!(world.seen.sender_reports >= 3 && world.seen.reception_reports >= 3);
    let (now, net) = (world.net.now, &mut world.net);
    world.leg.close(now, &mut |from, to, bytes| net.send(from, to, bytes));
    world.run(Duration::from_millis(50));
    assert_eq!(world.seen.goodbyes, 1);
}

// RFC 3550 6.4.1: what the peer reports as lost is told on.
#[test]
fn a_peers_reports_of_loss_are_told() {
    let mut world = World::new(&[PEER]);
    world.run(Duration::from_secs(2));
    world.lose_each = 5;
    world.talk(1_500, 0);
    let told = world.leg_events.iter().filter_map(|event| match event {
        LegEvent::RemoteLoss { percent } => Some(*percent),
        _ => None,
    });
    let told: Vec<_> = told.collect();
    assert!(told.len() >= 3, "{told:?}");
    assert!(told[1..].iter().all(|percent| (15.0..25.0).contains(percent)), "{told:?}");
}

// RFC 8445 8.1.1: media goes where the pair leads that the other side nominates, and when it nominates
// another, there.
#[test]
fn media_follows_the_nominated_pair() {
    let mut world = World::new(&[PEER, PEER_ELSEWHERE]);
    world.run(Duration::from_secs(2));
    assert!(world.leg.is_connected());
    world.talk(10, 0);
    let first = world.last_rtp_to.unwrap();
    world.dead = Some(first);
    let mut frames = 10;
    while world.last_rtp_to == Some(first) && frames < 1_500 && !world.leg.is_over() {
        world.talk(5, frames);
        frames += 5;
    }
    assert_ne!(world.last_rtp_to, Some(first), "{:?}", world.leg);
    let before = world.seen.rtp.len();
    world.talk(20, frames);
    world.run(Duration::from_millis(20));
    assert_eq!(world.seen.rtp.len(), before + 20);
    assert!(world.leg.is_connected());
}

// str0m has room for 2000 octets of a certificate, and a thread with many calls would end for one more: the peer may be
// anybody.
#[test]
fn a_peer_with_a_certificate_that_is_too_large_is_refused() {
    for (comment, fits) in [(100, true), (5_000, false)] {
        let config = RtcConfig::new().set_dtls_cert(certificate::large(comment));
        let mut world = World::configured(&[PEER], config);
        world.run(Duration::from_secs(2));
        assert_eq!(world.leg.is_connected(), fits, "{comment}");
        let failed = |event: &LegEvent| matches!(event, LegEvent::Failed(_));
        assert_eq!(world.leg_events.iter().any(failed), !fits, "{comment}");
    }
}
