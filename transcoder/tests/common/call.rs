//! One call in virtual time: Phone, Bridge and an RTP endpoint on the trunk.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use call_model::{Codec, Direction, DtmfDigit, LegMedia, MediaSecurity, Side, SrtpKey, TelephoneEvent};
use transcoder::codec::g711::Law;
use transcoder::codec::g722;
use transcoder::dtmf::{DtmfEvent, DtmfReceiver, DtmfSender};
use transcoder::leg::PayloadKind;
use transcoder::leg::rtp::{Received, RtpLeg};
use transcoder::rtp::{HEADER_LEN, RtpPacket, RtpSender, is_rtcp};
use transcoder::srtp::{MAX_OVERHEAD, SrtpReceiver, SrtpSender};
use transcoder::{
    Bridge, BridgeConfig, BridgeEvent, DtlsIdentity, Outgoing, Phone, PhoneConfig, PhoneEvent, Port,
    WebRtcConfig, WebRtcLeg,
};

use super::{Datagram, Network, address};

pub const PHONE: &str = "198.51.100.7:6000";
pub const OVERLAY: &str = "192.0.2.1:4000";
pub const GATEWAY_RTP: &str = "192.0.2.1:20000";
pub const GATEWAY_RTCP: &str = "192.0.2.1:20001";
pub const TRUNK_RTP: &str = "203.0.113.5:30000";
pub const TRUNK_RTCP: &str = "203.0.113.5:30001";
pub const FRAME: Duration = Duration::from_millis(20);

pub fn trunk_media(codec: Codec, packet_time_ms: u16) -> LegMedia {
    let payload_type = codec.static_payload_type().unwrap();
    LegMedia {
        codec,
        send_payload_type: payload_type,
        receive_payload_type: payload_type,
        also_receives: Vec::new(),
        telephone_event: Some(TelephoneEvent {
            send_payload_type: 101,
            receive_payload_type: 96,
            clock_rate: 8000,
        }),
        comfort_noise: false,
        packet_time_ms,
        remote_rtp: address(TRUNK_RTP),
        remote_rtcp: Some(address(TRUNK_RTCP)),
        direction: Direction::SendRecv,
        security: MediaSecurity::None,
    }
}

/// Turns a packet into those that are sent for it, each so much later.
pub type Mangle = Box<dyn FnMut(Vec<u8>) -> Vec<(Duration, Vec<u8>)>>;

/// An RTP endpoint such as a PBX would be.
pub struct Pbx {
    pub law: Law,
    pub payload_type: u8,
    /// The codec it sends with, where that is another than it hears.
    pub sends: Option<Codec>,
    g722: (g722::Encoder, g722::Decoder),
    /// Ticks of the clock of RTP in a packet: samples of G.711, half of the samples of G.722.
    pub packet_samples: usize,
    pub talks: bool,
    /// Whether audio goes on beside telephone events, as some endpoints do.
    pub talks_over_digits: bool,
    pub source: Box<dyn FnMut() -> i16>,
    pub sent: Vec<i16>,
    pub heard: Vec<i16>,
    pub timestamps: Vec<(u16, u32, bool)>,
    pub digits: Vec<(DtmfDigit, u16)>,
    pub rtcp: Vec<Vec<u8>>,
    /// Comfort noise that came (RFC 3389).
    pub noise: Vec<(Instant, Vec<u8>)>,
    pub last_packet: Vec<u8>,
    /// Not `None`: the RTP packets that come are kept here, and not read.
    pub kept: Option<Vec<Vec<u8>>>,
    /// Packets that are lost before they are sent.
    pub lose: u32,
    /// Packets that SRTP did not let in.
    pub unauthentic: u64,
    /// How much faster its clock runs than ours, in thousandths.
    pub clock_permille: i64,
    /// What becomes of its packets on their way: each with a delay on top. `None`: they go as they are.
    pub mangle: Option<Mangle>,
    security: Option<(SrtpSender, SrtpReceiver)>,
    /// Not `None`: its media goes by this leg, which speaks DTLS.
    pub leg: Option<RtpLeg>,
    sender: RtpSender,
    dtmf_in: DtmfReceiver,
    dtmf_out: DtmfSender,
    media_time: u64,
    next_at: Instant,
}

impl Pbx {
    /// Speaks SRTP from now on, or goes on with other keys.
    pub fn set_keys(&mut self, send: &SrtpKey, receive: &SrtpKey) {
        let receive = std::slice::from_ref(receive);
        match &mut self.security {
            Some((sender, receiver)) => {
                sender.rekey(send);
                receiver.rekey(receive);
            }
            None => self.security = Some((SrtpSender::new(send), SrtpReceiver::new(receive))),
        }
    }

    fn receive(&mut self, now: Instant, bytes: &[u8]) {
        let mut copy = bytes.to_vec();
        let bytes = match &mut self.security {
            Some((_, receiver)) => {
                let plain = if is_rtcp(bytes) {
                    receiver.unprotect_rtcp(&mut copy)
                } else {
                    receiver.unprotect_rtp(&mut copy)
                };
                let Ok(plain) = plain else {
                    self.unauthentic += 1;
                    return;
                };
                &*plain
            }
            None => bytes,
        };
        if is_rtcp(bytes) {
            self.rtcp.push(bytes.to_vec());
            return;
        }
        if let Some(kept) = &mut self.kept {
            kept.push(bytes.to_vec());
            return;
        }
        let packet = RtpPacket::parse(bytes).unwrap();
        if packet.payload_type() == 101 {
            self.dtmf_in.receive(now, packet.timestamp(), packet.marker(), packet.payload()).unwrap();
            return;
        }
        if packet.payload_type() == 13 {
            self.noise.push((now, packet.payload().to_vec()));
            return;
        }
        assert_eq!(packet.payload_type(), self.payload_type);
        let mut pcm = vec![0; packet.payload().len()];
        if Some(self.payload_type) == Codec::G722.static_payload_type() {
            pcm.resize(2 * packet.payload().len(), 0);
            self.g722.1.decode(packet.payload(), &mut pcm);
        } else {
            self.law.decode_into(packet.payload(), &mut pcm);
        }
        self.heard.extend(pcm);
        self.timestamps.push((packet.sequence(), packet.timestamp(), packet.marker()));
    }

    /// Lets its leg take a datagram, or what is due, and sends what comes of it.
    fn work(&mut self, net: &mut Network, datagram: Option<&Datagram>) {
        let (now, Some(leg)) = (net.now, &mut self.leg) else { return };
        let mut emit = |port: Port, to: SocketAddr, bytes: &[u8]| {
            net.send(address(if port == Port::Rtp { TRUNK_RTP } else { TRUNK_RTCP }), to, bytes);
        };
        let Some(Datagram { from, to, bytes }) = datagram else { return leg.handle_timeout(now, &mut emit) };
        let port = if *to == address(TRUNK_RTP) { Port::Rtp } else { Port::Rtcp };
        match leg.handle_datagram(now, port, *from, bytes) {
            Ok(Received::Audio(packet, law)) => {
                let mut pcm = vec![0; packet.payload().len()];
                law.decode_into(packet.payload(), &mut pcm);
                self.heard.extend(pcm);
                self.timestamps.push((packet.sequence(), packet.timestamp(), packet.marker()));
            }
            Ok(_) => {}
            Err(_) => self.unauthentic += 1,
        }
        leg.poll_transmit(now, &mut emit);
    }

    fn tick(&mut self, now: Instant) -> Vec<Vec<u8>> {
        self.dtmf_in.handle_timeout(now);
        while let Some(event) = self.dtmf_in.poll_event() {
            if let DtmfEvent::Ended { digit, duration_ms } = event {
                self.digits.push((digit, duration_ms));
            }
        }
        let time = self.media_time;
        self.media_time += self.packet_samples as u64;
        let mut packets = Vec::new();
        if !self.talks {
            return packets;
        }
        let event = self.dtmf_out.next(time, self.packet_samples as u32);
        if let Some(event) = event {
            let mut packet = vec![0; HEADER_LEN + event.payload.len()];
            packet[HEADER_LEN..].copy_from_slice(&event.payload);
            self.sender
                .write_header(now, 96, event.marker, event.media_time, event.payload.len(), &mut packet)
                .unwrap();
            packets.push(packet);
        }
        if event.is_none() || self.talks_over_digits {
            let mut packet = vec![0; HEADER_LEN + self.packet_samples];
            let payload_type =
                self.sends.map_or(self.payload_type, |codec| codec.static_payload_type().unwrap());
            let wide = Some(payload_type) == Codec::G722.static_payload_type();
            let samples = self.packet_samples * if wide { 2 } else { 1 };
            let pcm: Vec<i16> = (0..samples).map(|_| (self.source)()).collect();
            if wide {
                self.g722.0.encode(&pcm, &mut packet[HEADER_LEN..]);
            } else {
                let law = self.sends.map_or(self.law, |codec| Law::of(codec).unwrap());
                law.encode_into(&pcm, &mut packet[HEADER_LEN..]);
            }
            self.sent.extend(pcm);
            if let Some(leg) = &mut self.leg {
                let mut wire = Vec::new();
                leg.send(
                    now,
                    PayloadKind::Audio,
                    time == 0,
                    time,
                    &packet[HEADER_LEN..],
                    &mut |_, _, bytes| {
                        wire.push(bytes.to_vec());
                    },
                );
                return wire;
            }
            self.sender
                .write_header(now, payload_type, time == 0, time, self.packet_samples, &mut packet)
                .unwrap();
            packets.push(packet);
        }
        if let Some((sender, _)) = &mut self.security {
            for packet in &mut packets {
                let length = packet.len();
                packet.resize(length + MAX_OVERHEAD, 0);
                let length = sender.protect_rtp(packet, length).unwrap();
                packet.truncate(length);
            }
        }
        self.last_packet = packets[packets.len() - 1].clone();
        if self.lose > 0 {
            self.lose -= 1;
            packets.clear();
        }
        packets
    }

    pub fn dial(&mut self, digit: char, duration_ms: u16) {
        self.dtmf_out.queue(DtmfDigit::from_char(digit).unwrap(), duration_ms).unwrap();
    }
}

pub struct Call {
    pub net: Network,
    pub phone: Phone,
    pub phone_events: Vec<PhoneEvent>,
    pub phone_source: Box<dyn FnMut() -> i16>,
    pub phone_sent: Vec<i16>,
    pub phone_heard: Vec<i16>,
    pub phone_talks: bool,
    phone_frame_at: Instant,
    pub bridge: Bridge,
    pub bridge_events: Vec<BridgeEvent>,
    pub pbx: Pbx,
    /// Datagrams that the bridge sent anywhere but to the phone and the PBX.
    pub strays: Vec<SocketAddr>,
}

pub struct Options {
    pub seed: u64,
    pub phone_rate: u32,
    pub codec: Codec,
    pub packet_time_ms: u16,
    /// Whether the phone calls (the bridge answers) or is called.
    pub phone_calls: bool,
    /// Whether signalling shows the bridge another certificate than the phone's.
    pub forge_fingerprint: bool,
    pub configure: fn(&mut BridgeConfig),
    /// Whether the bridge and the phone have G.711 beside Opus.
    pub g711: [bool; 2],
    /// Whether they have redundancy (RFC 2198) beside it.
    pub redundancy: [bool; 2],
    /// What the bridge says it plays at most, in Hz.
    pub playback_rate: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            phone_rate: 8000,
            codec: Codec::Pcma,
            packet_time_ms: 20,
            phone_calls: true,
            forge_fingerprint: false,
            configure: |_| {},
            g711: [false; 2],
            redundancy: [false; 2],
            playback_rate: 8_000,
        }
    }
}

impl Call {
    pub fn new(options: &Options) -> Self {
        let net = Network::new(options.seed);
        let now = net.now;
        let (gateway, user) = (DtlsIdentity::generate().unwrap(), DtlsIdentity::generate().unwrap());
        let [gateway_g711, phone_g711] = options.g711;
        let [gateway_redundancy, phone_redundancy] = options.redundancy;
        let overlay = WebRtcConfig {
            local: vec![address(OVERLAY)],
            ice_lite: true,
            g711: gateway_g711,
            redundancy: gateway_redundancy,
        };
        let mut overlay = WebRtcLeg::new(overlay, &gateway, now).unwrap();
        overlay.set_playback_rate(options.playback_rate);
        let leg = WebRtcConfig {
            local: vec![address(PHONE)],
            ice_lite: false,
            g711: phone_g711,
            redundancy: phone_redundancy,
        };
        let mut leg = WebRtcLeg::new(leg, &user, now).unwrap();
        let mut config = BridgeConfig::new(address(GATEWAY_RTP));
        (options.configure)(&mut config);
        let phone_config = PhoneConfig::new(options.phone_rate);
        let (phone, bridge) = if options.phone_calls {
            let mut offer = leg.create_offer().unwrap();
            if options.forge_fingerprint {
                let line = offer.lines().find(|line| line.starts_with("a=fingerprint:")).unwrap().to_owned();
                let other = if line.ends_with('0') { "1" } else { "0" };
                offer = offer.replace(&line, &format!("{}{other}", &line[..line.len() - 1]));
            }
            let answer = overlay.accept_offer(&offer).unwrap();
            let mut phone = Phone::new(phone_config, leg, options.seed, now).unwrap();
            phone.accept_answer(&answer, now).unwrap();
            (phone, Bridge::new(config, overlay, options.seed + 1, now).unwrap())
        } else {
            let offer = overlay.create_offer().unwrap();
            let mut bridge = Bridge::new(config, overlay, options.seed + 1, now).unwrap();
            let answer = leg.accept_offer(&offer).unwrap();
            bridge.accept_overlay_answer(&answer, now).unwrap();
            (Phone::new(phone_config, leg, options.seed, now).unwrap(), bridge)
        };
        let pbx = Pbx {
            law: Law::of(options.codec).unwrap_or(Law::A),
            payload_type: options.codec.static_payload_type().unwrap(),
            sends: None,
            g722: Default::default(),
            packet_samples: usize::from(options.packet_time_ms) * 8,
            talks: true,
            talks_over_digits: false,
            source: Box::new(|| 0),
            sent: Vec::new(),
            heard: Vec::new(),
            timestamps: Vec::new(),
            digits: Vec::new(),
            rtcp: Vec::new(),
            noise: Vec::new(),
            last_packet: Vec::new(),
            kept: None,
            lose: 0,
            unauthentic: 0,
            clock_permille: 0,
            mangle: None,
            security: None,
            leg: None,
            sender: RtpSender::new(options.seed + 2),
            dtmf_in: DtmfReceiver::new(8000),
            dtmf_out: DtmfSender::new(8000),
            media_time: 0,
            next_at: now + Duration::from_millis(3),
        };
        Self {
            net,
            phone,
            phone_events: Vec::new(),
            phone_source: Box::new(|| 0),
            phone_sent: Vec::new(),
            phone_heard: Vec::new(),
            phone_talks: true,
            phone_frame_at: now + Duration::from_millis(7),
            bridge,
            bridge_events: Vec::new(),
            pbx,
            strays: Vec::new(),
        }
    }

    pub fn with_trunk(options: &Options) -> Self {
        let mut call = Self::new(options);
        let now = call.net.now;
        call.bridge.set_trunk_media(&trunk_media(options.codec, options.packet_time_ms), now).unwrap();
        call
    }

    pub fn run(&mut self, duration: Duration) {
        let until = self.net.now + duration;
        loop {
            let now = self.net.now;
            while let Some(datagram) = self.net.due() {
                self.deliver(now, datagram.from, datagram.to, &datagram.bytes);
            }
            if self.phone.poll_timeout().is_some_and(|at| at <= now) {
                let net = &mut self.net;
                self.phone.handle_timeout(now, &mut |out| net.send(out.local, out.destination, out.bytes));
            }
            if self.bridge.poll_timeout().is_some_and(|at| at <= now) {
                let (net, strays) = (&mut self.net, &mut self.strays);
                self.bridge.handle_timeout(now, &mut |out| bridge_sends(net, strays, out));
            }
            if self.phone_frame_at <= now {
                self.phone_frame_at += FRAME;
                self.phone_frame(now);
            }
            if self.pbx.leg.as_ref().and_then(RtpLeg::poll_timeout).is_some_and(|at| at <= now) {
                self.pbx.work(&mut self.net, None);
            }
            if self.pbx.next_at <= now {
                let nanoseconds = self.pbx.packet_samples as i64 * 125_000 * 1_000;
                self.pbx.next_at +=
                    Duration::from_nanos((nanoseconds / (1_000 + self.pbx.clock_permille)) as u64);
                for packet in self.pbx.tick(now) {
                    let packets = match &mut self.pbx.mangle {
                        Some(mangle) => mangle(packet),
                        None => vec![(Duration::ZERO, packet)],
                    };
                    for (later, packet) in packets {
                        self.net.send_later(later, address(TRUNK_RTP), address(GATEWAY_RTP), &packet);
                    }
                }
            }
            self.collect();
            let timers = [
                self.net.next_at(),
                self.phone.poll_timeout(),
                self.bridge.poll_timeout(),
                Some(self.phone_frame_at),
                Some(self.pbx.next_at),
                self.pbx.leg.as_ref().and_then(RtpLeg::poll_timeout),
            ];
            let next = timers.into_iter().flatten().min().unwrap();
            if next >= until {
                self.net.now = until;
                return;
            }
            // A timer that is still due waits a moment, as it would in a real loop.
            self.net.now = next.max(now + Duration::from_micros(10));
        }
    }

    /// As [`run`](Self::run) for a millisecond, with every call into the bridge under `count`, which
    /// returns what it counted. What the bridge sends is kept aside meanwhile in a buffer of its own.
    pub fn step_counting(&mut self, count: &mut dyn FnMut(&mut dyn FnMut()) -> u64) -> u64 {
        let now = self.net.now;
        let mut counted = 0;
        let mut out = Outbox::default();
        while let Some(datagram) = self.net.due() {
            let side = if datagram.to == address(OVERLAY) {
                Side::Overlay
            } else if datagram.to == address(GATEWAY_RTP) {
                Side::Trunk
            } else {
                self.deliver(now, datagram.from, datagram.to, &datagram.bytes);
                continue;
            };
            let Datagram { from, to, bytes } = datagram;
            let bridge = &mut self.bridge;
            counted += count(&mut || {
                bridge.handle_datagram(now, side, Port::Rtp, to, from, &bytes, &mut |packet| out.put(packet));
            });
        }
        let bridge = &mut self.bridge;
        counted += count(&mut || bridge.handle_timeout(now, &mut |packet| out.put(packet)));
        for (from, to, length, bytes) in &out.packets[..out.count] {
            self.net.send(*from, *to, &bytes[..*length]);
        }
        let net = &mut self.net;
        self.phone.handle_timeout(now, &mut |out| net.send(out.local, out.destination, out.bytes));
        if self.phone_frame_at <= now {
            self.phone_frame_at += FRAME;
            self.phone_frame(now);
        }
        if self.pbx.next_at <= now {
            self.pbx.next_at += FRAME;
            for packet in self.pbx.tick(now) {
                self.net.send(address(TRUNK_RTP), address(GATEWAY_RTP), &packet);
            }
        }
        self.collect();
        self.net.now += Duration::from_millis(1);
        counted
    }

    fn phone_frame(&mut self, now: Instant) {
        let samples = self.phone.frame_samples();
        let mut frame = vec![0; samples];
        if self.phone.read_frame(&mut frame) {
            self.phone_heard.extend(&frame);
        }
        if self.phone_talks {
            for sample in &mut frame {
                *sample = (self.phone_source)();
            }
            self.phone_sent.extend(&frame);
            let net = &mut self.net;
            self.phone.write_frame(now, &frame, &mut |out| net.send(out.local, out.destination, out.bytes));
        }
    }

    /// Hands a datagram to whoever has the address.
    pub fn deliver(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let (side, port) = if to == address(OVERLAY) {
            (Side::Overlay, Port::Rtp)
        } else if to == address(GATEWAY_RTP) {
            (Side::Trunk, Port::Rtp)
        } else if to == address(GATEWAY_RTCP) {
            (Side::Trunk, Port::Rtcp)
        } else if to == address(PHONE) {
            let net = &mut self.net;
            self.phone.handle_datagram(now, to, from, bytes, &mut |out| {
                net.send(out.local, out.destination, out.bytes)
            });
            return;
        } else {
            assert!(to == address(TRUNK_RTP) || to == address(TRUNK_RTCP), "datagram for {to}");
            if self.pbx.leg.is_some() {
                self.pbx.work(&mut self.net, Some(&Datagram { from, to, bytes: bytes.to_vec() }));
            } else {
                self.pbx.receive(now, bytes);
            }
            return;
        };
        let (net, strays) = (&mut self.net, &mut self.strays);
        self.bridge
            .handle_datagram(now, side, port, to, from, bytes, &mut |out| bridge_sends(net, strays, out));
    }

    fn collect(&mut self) {
        while let Some(event) = self.phone.poll_event() {
            self.phone_events.push(event);
        }
        while let Some(event) = self.bridge.poll_event() {
            self.bridge_events.push(event);
        }
    }

    pub fn connected(&self) -> bool {
        self.phone_events.contains(&PhoneEvent::Connected)
            && self.bridge_events.contains(&BridgeEvent::OverlayConnected)
    }

    pub fn bridge_digits(&self, from: Side) -> String {
        let digits = self.bridge_events.iter().filter_map(|event| match event {
            BridgeEvent::Dtmf { side, digit, forwarded: true, .. } if *side == from => Some(digit.as_char()),
            _ => None,
        });
        digits.collect()
    }

    pub fn phone_digits(&self) -> String {
        let digits = self.phone_events.iter().filter_map(|event| match event {
            PhoneEvent::Dtmf { digit, .. } => Some(digit.as_char()),
            _ => None,
        });
        digits.collect()
    }

    pub fn pbx_digits(&self) -> String {
        self.pbx.digits.iter().map(|(digit, _)| digit.as_char()).collect()
    }
}

/// Source, destination, length, bytes.
type Kept = (SocketAddr, SocketAddr, usize, [u8; 1500]);

/// Keeps packets without an allocation.
struct Outbox {
    packets: Box<[Kept]>,
    count: usize,
}

impl Default for Outbox {
    fn default() -> Self {
        let nowhere = address("0.0.0.0:0");
        Self { packets: vec![(nowhere, nowhere, 0, [0; 1500]); 32].into_boxed_slice(), count: 0 }
    }
}

impl Outbox {
    fn put(&mut self, packet: Outgoing<'_>) {
        let slot = &mut self.packets[self.count];
        *slot = (packet.local, packet.destination, packet.bytes.len(), slot.3);
        slot.3[..packet.bytes.len()].copy_from_slice(packet.bytes);
        self.count += 1;
    }
}

fn bridge_sends(net: &mut Network, strays: &mut Vec<SocketAddr>, out: Outgoing<'_>) {
    let (local, known) = match (out.side, out.port) {
        (Side::Overlay, _) => (OVERLAY, PHONE),
        (Side::Trunk, Port::Rtp) => (GATEWAY_RTP, TRUNK_RTP),
        (_, _) => (GATEWAY_RTCP, TRUNK_RTCP),
    };
    assert_eq!(out.local, address(local));
    if out.destination == address(known) && out.side == Side::Trunk {
        // The PBX here has neither jitter buffer nor concealment.
        net.send_safely(out.local, out.destination, out.bytes);
    } else if out.destination == address(known) {
        net.send(out.local, out.destination, out.bytes);
    } else {
        strays.push(out.destination);
    }
}
