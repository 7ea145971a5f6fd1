//! Row F14: T.38 through a relay (ITU-T T.38 9.1), in virtual time.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use call_model::{
    Codec, Direction, DtmfDigit, ImageAttributes, ImageMedia, LegMedia, MediaSecurity, Side, TelephoneEvent,
};
use transcoder::leg::rtp::SourceRule;
use transcoder::rtp::is_rtcp;
use transcoder::{BridgeEvent, ImageRefusal, MAX_UDPTL, Port, Relay, RelayConfig};

const SILENCE: Duration = Duration::from_secs(60);
const BOTH: [Side; 2] = [Side::Trunk, Side::Onward];

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn other(side: Side) -> Side {
    if side == Side::Trunk { Side::Onward } else { Side::Trunk }
}

/// Where each trunk has its voice.
fn voice(side: Side) -> SocketAddr {
    address(if side == Side::Trunk { "192.0.2.10:4000" } else { "192.0.2.20:5000" })
}

/// Where each has its facsimile: one at the port of its voice, as most have, and one elsewhere.
fn fax(side: Side) -> SocketAddr {
    address(if side == Side::Trunk { "192.0.2.10:4000" } else { "192.0.2.21:5100" })
}

fn local(side: Side) -> SocketAddr {
    address(if side == Side::Trunk { "198.51.100.1:20000" } else { "198.51.100.1:20002" })
}

fn media(side: Side, direction: Direction) -> LegMedia {
    LegMedia {
        codec: Codec::Pcma,
        send_payload_type: 8,
        receive_payload_type: 8,
        also_receives: Vec::new(),
        telephone_event: Some(TelephoneEvent {
            send_payload_type: 101,
            receive_payload_type: 101,
            clock_rate: 8_000,
        }),
        comfort_noise: false,
        packet_time_ms: 20,
        remote_rtp: voice(side),
        remote_rtcp: Some(SocketAddr::new(voice(side).ip(), voice(side).port() + 1)),
        direction,
        security: MediaSecurity::None,
    }
}

fn image(remote_udptl: SocketAddr) -> ImageMedia {
    ImageMedia { remote_udptl, attributes: ImageAttributes::default() }
}

#[derive(Clone, Debug, PartialEq)]
struct Sent {
    side: Side,
    port: Port,
    local: SocketAddr,
    destination: SocketAddr,
    bytes: Vec<u8>,
}

struct Line {
    relay: Relay,
    now: Instant,
    sent: Vec<Sent>,
    events: Vec<BridgeEvent>,
    sequence: u16,
}

impl Line {
    fn new() -> Self {
        #[allow(clippy::disallowed_methods)]
        let now = Instant::now();
        let (trunk_rtp, onward_rtp) = (local(Side::Trunk), local(Side::Onward));
        let mut relay = Relay::new(
            &RelayConfig { trunk_rtp, onward_rtp, media_timeout: SILENCE, identity: None },
            7,
            now,
        );
        for side in BOTH {
            relay.set_media(side, &media(side, Direction::SendRecv), now).unwrap();
        }
        Self { relay, now, sent: Vec::new(), events: Vec::new(), sequence: 0 }
    }

    /// A line whose sides have talked, and carry T.38 now.
    fn carrying() -> Self {
        let mut line = Self::new();
        line.talk();
        for side in BOTH {
            line.relay.set_image(side, &image(fax(side)), line.now).unwrap();
        }
        line
    }

    fn from(&mut self, side: Side, port: Port, source: SocketAddr, packet: &[u8]) -> Vec<Sent> {
        let sent = &mut self.sent;
        self.relay.handle_datagram(self.now, side, port, source, packet, &mut |out| {
            sent.push(Sent {
                side: out.side,
                port: out.port,
                local: out.local,
                destination: out.destination,
                bytes: out.bytes.to_vec(),
            });
        });
        self.events.extend(std::iter::from_fn(|| self.relay.poll_event()));
        std::mem::take(&mut self.sent)
    }

    /// A packet of voice of a side, and what went on of it.
    fn say(&mut self, side: Side) -> Vec<Sent> {
        let packet = self.spoken(side);
        self.from(side, Port::Rtp, voice(side), &packet)
    }

    fn spoken(&mut self, side: Side) -> Vec<u8> {
        self.sequence += 1;
        let mut packet = vec![0x80, 8];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend((u32::from(self.sequence) * 160).to_be_bytes());
        packet.extend(if side == Side::Trunk { [7; 4] } else { [9; 4] });
        packet.extend([0xd5; 160]);
        packet
    }

    /// Voice passes both ways.
    fn talk(&mut self) {
        for side in BOTH {
            let out = self.say(side);
            assert_eq!((out.len(), out[0].side, out[0].destination), (1, other(side), voice(other(side))));
            assert_eq!((out[0].bytes.len(), &out[0].bytes[12..]), (172, &[0xd5; 160][..]));
        }
    }

    /// What goes out by itself.
    fn pass(&mut self, time: Duration) -> Vec<Sent> {
        let until = self.now + time;
        let mut turns = 0;
        while let Some(at) = self.relay.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            let sent = &mut self.sent;
            self.relay.handle_timeout(self.now, &mut |out| {
                sent.push(Sent {
                    side: out.side,
                    port: out.port,
                    local: out.local,
                    destination: out.destination,
                    bytes: out.bytes.to_vec(),
                });
            });
            self.events.extend(std::iter::from_fn(|| self.relay.poll_event()));
            turns += 1;
            assert!(turns < 10_000, "a deadline stays due");
        }
        self.now = until;
        std::mem::take(&mut self.sent)
    }

    fn silent(&mut self) -> Vec<Side> {
        let silent = |event: BridgeEvent| match event {
            BridgeEvent::Silent { side } => Some(side),
            _ => None,
        };
        std::mem::take(&mut self.events).into_iter().filter_map(silent).collect()
    }

    fn refused(&self, side: Side, refusal: ImageRefusal) -> u64 {
        self.relay.image_counters(side).refused_for(refusal)
    }
}

/// UDPTL with a sequence number, an IFP packet and one that repeats the one before (ITU-T T.38 9.1.2).
fn udptl(sequence: u16, length: usize) -> Vec<u8> {
    let mut bytes = sequence.to_be_bytes().to_vec();
    bytes.resize(length, sequence as u8);
    bytes
}

#[test]
fn f14_udptl_goes_through_as_it_is_between_the_negotiated_addresses() {
    let mut line = Line::carrying();
    // Sequence numbers look like RTP, RTCP, STUN and DTLS at times (RFC 7983), and it is all the same.
    let sequences = [0, 1, 0x0100, 0x1603, 0x8008, 0x8000, 0x80c8, 0xffff];
    for side in BOTH {
        for sequence in sequences {
            for length in [4, 12, 60, MAX_UDPTL] {
                let bytes = udptl(sequence, length);
                let out = line.from(side, Port::Rtp, fax(side), &bytes);
                let to = other(side);
                let expected =
                    Sent { side: to, port: Port::Rtp, local: local(to), destination: fax(to), bytes };
                assert_eq!(out, [expected]);
            }
        }
        let count = sequences.len() as u64 * 4;
        assert_eq!(line.relay.image_counters(side).received, count);
        assert_eq!(line.relay.image_counters(other(side)).sent, count);
        assert_eq!(line.relay.image_counters(side).refused(), 0);
        let quality = line.relay.quality(side);
        assert_eq!((quality.packets_received, quality.packets_lost), (1 + count, 0));
    }
}

#[test]
fn f14_a_foreign_source_and_what_is_no_udptl_are_refused_and_counted() {
    let mut line = Line::carrying();
    let side = Side::Onward;
    let good = udptl(1, 60);
    let strangers = ["192.0.2.21:5101", "192.0.2.22:5100", "192.0.2.20:5000", "[2001:db8::1]:5100"];
    for source in strangers {
        assert!(line.from(side, Port::Rtp, address(source), &good).is_empty(), "{source}");
    }
    assert!(line.from(side, Port::Rtcp, fax(side), &good).is_empty());
    assert_eq!(line.refused(side, ImageRefusal::Source), 5);
    // An address in the form that a socket of both families gives it is the same.
    assert_eq!(line.from(side, Port::Rtp, address("[::ffff:192.0.2.21]:5100"), &good).len(), 1);
    for length in [MAX_UDPTL + 1, 9_000, 65_507] {
        assert!(line.from(side, Port::Rtp, fax(side), &udptl(2, length)).is_empty());
    }
    assert_eq!(line.refused(side, ImageRefusal::Oversize), 3);
    for length in 0..4 {
        assert!(line.from(side, Port::Rtp, fax(side), &udptl(2, 4)[..length]).is_empty());
    }
    assert_eq!(line.refused(side, ImageRefusal::Malformed), 4);
    assert_eq!(line.relay.image_counters(side).refused(), 12);
    assert_eq!(line.relay.quality(side).packets_refused, 12);
    assert_eq!(line.relay.image_counters(Side::Trunk).sent, 1);
    // What a stranger sends keeps no call alive.
    for _ in 0..7 {
        line.pass(Duration::from_secs(10));
        line.from(side, Port::Rtp, address(strangers[0]), &good);
    }
    assert_eq!(line.silent(), BOTH);
}

// The two ends do not change over at the same moment.
#[test]
fn f14_voice_that_is_still_under_way_goes_nowhere() {
    let mut line = Line::new();
    line.talk();
    line.relay.set_image(Side::Trunk, &image(fax(Side::Trunk)), line.now).unwrap();
    // From the side that has changed, to one that has not: its last voice, its first UDPTL.
    assert!(line.say(Side::Trunk).is_empty());
    assert!(line.from(Side::Trunk, Port::Rtp, fax(Side::Trunk), &udptl(0, 60)).is_empty());
    assert_eq!(line.refused(Side::Trunk, ImageRefusal::Audio), 1);
    assert_eq!(line.refused(Side::Trunk, ImageRefusal::NotNegotiated), 1);
    // And the other way.
    assert!(line.say(Side::Onward).is_empty());
    assert_eq!(line.relay.counters(Side::Onward).refused(), 0);
    line.relay.set_image(Side::Onward, &image(fax(Side::Onward)), line.now).unwrap();
    let late = line.spoken(Side::Onward);
    assert!(line.from(Side::Onward, Port::Rtp, fax(Side::Onward), &late).is_empty());
    assert_eq!(line.refused(Side::Onward, ImageRefusal::Audio), 1);
    assert_eq!(line.from(Side::Onward, Port::Rtp, fax(Side::Onward), &udptl(0, 60)).len(), 1);
}

#[test]
fn f14_no_rtcp_and_no_digits_go_to_a_facsimile() {
    let mut line = Line::carrying();
    let digit = DtmfDigit::from_char('5').unwrap();
    for side in BOTH {
        assert!(!line.relay.has_telephone_event(side));
        assert!(!line.relay.send_dtmf(line.now, side, digit, 100));
    }
    for _ in 0..20 {
        assert!(line.pass(Duration::from_secs(2)).is_empty());
        line.from(Side::Trunk, Port::Rtp, fax(Side::Trunk), &udptl(3, 60));
    }
    // A digit that is being sent when the facsimile begins is over.
    let mut line = Line::new();
    line.talk();
    assert!(line.relay.send_dtmf(line.now, Side::Onward, digit, 400));
    assert!(!line.pass(Duration::from_millis(60)).is_empty());
    for side in BOTH {
        line.relay.set_image(side, &image(fax(side)), line.now).unwrap();
    }
    assert!(line.pass(Duration::from_secs(5)).is_empty());
    let mut sent = Vec::new();
    line.relay.stop(line.now, &mut |out| sent.push(out.port));
    assert!(sent.is_empty());
    assert!(line.from(Side::Trunk, Port::Rtp, fax(Side::Trunk), &udptl(4, 60)).is_empty());
    assert_eq!(line.relay.poll_timeout(), None);
}

#[test]
fn f14_voice_comes_back_as_it_was() {
    let mut line = Line::new();
    let first = line.say(Side::Trunk).remove(0);
    for side in BOTH {
        line.relay.set_image(side, &image(fax(side)), line.now).unwrap();
    }
    line.from(Side::Trunk, Port::Rtp, fax(Side::Trunk), &udptl(1, 60));
    line.pass(Duration::from_secs(30));
    for side in BOTH {
        line.relay.set_media(side, &media(side, Direction::SendRecv), line.now).unwrap();
    }
    // RTCP goes on, and is due at once after so long.
    let sent = line.pass(Duration::from_millis(1));
    assert!(sent.iter().all(|sent| sent.port == Port::Rtcp && is_rtcp(&sent.bytes)), "{sent:?}");
    let again = line.say(Side::Trunk).remove(0);
    let number = |sent: &Sent| u16::from_be_bytes([sent.bytes[2], sent.bytes[3]]);
    assert_eq!(number(&again), number(&first).wrapping_add(1), "no gap is to be seen");
    assert_eq!((&again.bytes[8..12], &again.bytes[12..]), (&first.bytes[8..12], &[0xd5; 160][..]));
    line.talk();
    // What is left of the facsimile is no voice.
    let side = Side::Trunk;
    assert!(line.from(side, Port::Rtp, fax(side), &udptl(2, 60)).is_empty());
    assert!(line.relay.counters(side).refused() > 0);
    let digit = DtmfDigit::from_char('5').unwrap();
    assert!(line.relay.send_dtmf(line.now, Side::Onward, digit, 100));
}

// ITU-T T.30: one side sends a page, and the other listens for minutes.
#[test]
fn f14_the_watch_over_silence_hears_udptl_of_either_side() {
    let mut line = Line::carrying();
    for n in 0..30 {
        line.pass(Duration::from_secs(10));
        line.from(Side::Trunk, Port::Rtp, fax(Side::Trunk), &udptl(n, 60));
    }
    assert!(line.silent().is_empty());
    line.pass(Duration::from_secs(59));
    assert!(line.silent().is_empty());
    line.pass(Duration::from_secs(2));
    assert_eq!(line.silent(), BOTH);
    // A hold before the facsimile is over with it.
    let mut line = Line::new();
    line.relay.set_media(Side::Trunk, &media(Side::Trunk, Direction::Inactive), line.now).unwrap();
    for side in BOTH {
        line.relay.set_image(side, &image(fax(side)), line.now).unwrap();
    }
    line.pass(SILENCE);
    assert_eq!(line.silent(), BOTH);
}

#[test]
fn f14_a_facsimile_moves_with_what_was_negotiated_and_not_elsewhere() {
    let mut line = Line::carrying();
    let moved = address("192.0.2.99:7000");
    line.relay.set_image(Side::Onward, &image(moved), line.now).unwrap();
    assert!(line.from(Side::Onward, Port::Rtp, fax(Side::Onward), &udptl(1, 60)).is_empty());
    assert_eq!(line.from(Side::Onward, Port::Rtp, moved, &udptl(1, 60)).len(), 1);
    assert_eq!(line.from(Side::Trunk, Port::Rtp, fax(Side::Trunk), &udptl(1, 60))[0].destination, moved);
    for wrong in ["192.0.2.99:0", "0.0.0.0:7000", "[2001:db8::1]:7000"] {
        assert!(line.relay.set_image(Side::Onward, &image(address(wrong)), line.now).is_err(), "{wrong}");
    }
    assert!(line.relay.set_image(Side::Overlay, &image(moved), line.now).is_err());
    assert_eq!(line.from(Side::Onward, Port::Rtp, moved, &udptl(2, 60)).len(), 1, "as it was");
}

// RFC 7362 4: UDPTL of a side behind an address translator is followed as its voice is, and goes where that went.
#[test]
fn f22_udptl_is_followed_to_where_the_signalling_comes_from() {
    let public = address("203.0.113.9:6000");
    let datagram = [0, 7, 3, 0xc0, 1, 0x80, 0];
    for rule in [SourceRule::Negotiated, SourceRule::Signalling(public.ip())] {
        let learns = rule != SourceRule::Negotiated;
        let mut line = Line::new();
        // As a description of the trunk would have it: the rule, and the media.
        line.relay.set_source_rule(Side::Trunk, rule);
        line.relay.set_media(Side::Trunk, &media(Side::Trunk, Direction::SendRecv), line.now).unwrap();
        for side in BOTH {
            line.relay.set_image(side, &image(fax(side)), line.now).unwrap();
        }
        let stranger = address("203.0.113.10:6000");
        assert!(line.from(Side::Trunk, Port::Rtp, stranger, &datagram).is_empty());
        assert!(line.from(Side::Trunk, Port::Rtcp, public, &datagram).is_empty());
        assert_eq!(line.from(Side::Trunk, Port::Rtp, public, &datagram).len(), usize::from(learns));
        let towards = line.from(Side::Onward, Port::Rtp, fax(Side::Onward), &datagram)[0].destination;
        assert_eq!(towards, if learns { public } else { fax(Side::Trunk) });
        let counters = line.relay.image_counters(Side::Trunk);
        assert_eq!(
            (counters.refused_for(ImageRefusal::Source), counters.moves),
            (3 - u64::from(learns), u64::from(learns))
        );
    }
    // Voice that was followed before: the facsimile at the same address is there at once.
    let mut line = Line::new();
    line.relay.set_source_rule(Side::Trunk, SourceRule::Signalling(public.ip()));
    let spoken = line.spoken(Side::Trunk);
    assert_eq!(line.from(Side::Trunk, Port::Rtp, public, &spoken).len(), 1);
    for side in BOTH {
        line.relay.set_image(side, &image(fax(side)), line.now).unwrap();
    }
    let towards = line.from(Side::Onward, Port::Rtp, fax(Side::Onward), &datagram)[0].destination;
    assert_eq!(towards, public);
}
