//! The engine with its threads and sockets, on loopback.
#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::time::Duration;

use super::*;

fn engine(threads: usize) -> (MediaEngine, mpsc::Receiver<Report>) {
    let (reports, inbox) = mpsc::channel(1024);
    let loopback = std::net::IpAddr::from([127, 0, 0, 1]);
    let config = MediaConfig {
        trunk_address: loopback,
        trunk_ports: 41_000..=41_199,
        overlay_address: loopback,
        overlay_ports: 41_200..=41_299,
        threads,
        opus_complexity: 5,
        opus_bitrate: 16_000,
        suppress_silence: true,
        silence_timeout: Duration::from_secs(60),
        port_quarantine: Duration::from_secs(1),
        dscp: 46,
    };
    (MediaEngine::start(config, 1, &reports).unwrap(), inbox)
}

fn open(engine: &mut MediaEngine, number: u128) -> CallId {
    let call = CallId::new(1, number);
    let opened = engine.handle(Instant::now(), MediaCommand::Open { call, overlay_offer: None });
    assert!(matches!(opened, Some(MediaEvent::Opened { .. })), "{opened:?}");
    call
}

#[test]
fn a_burst_of_calls_spreads_over_the_threads() {
    let (mut engine, _reports) = engine(4);
    let calls: Vec<CallId> = (0..8).map(|number| open(&mut engine, number)).collect();
    assert_eq!(engine.load, [2, 2, 2, 2]);
    for call in calls {
        engine.handle(Instant::now(), MediaCommand::Close { call });
    }
    assert_eq!(engine.load, [0, 0, 0, 0]);
    assert!(engine.look_after().is_empty() && engine.has_threads() && engine.closes_waiting() == 0);
}

// RFC 2474, RFC 4594 4.1: media is EF, over IPv4 and IPv6.
#[test]
fn f26_media_is_marked_over_both_families() {
    for (address, dscp) in [("127.0.0.1:0", 46), ("[::1]:0", 46), ("127.0.0.1:0", 0), ("[::1]:0", 34)] {
        let address: SocketAddr = address.parse().unwrap();
        let socket = udp(address, dscp).unwrap();
        let raw = socket2::SockRef::from(&socket);
        let mark = if address.is_ipv4() { raw.tos_v4() } else { raw.tclass_v6() };
        assert_eq!(mark.unwrap() >> 2, u32::from(dscp), "{address}");
    }
}

#[test]
fn only_a_port_that_is_taken_is_tried_elsewhere() {
    let tries = Cell::new(0);
    let refuse = |error: Errno| {
        tries.set(0);
        let tries = &tries;
        move |_: u16| -> io::Result<[UdpSocket; 1]> {
            tries.set(tries.get() + 1);
            Err(error.into())
        }
    };
    let mut pool = PortPool::singles(&(41_300..=41_399));
    assert!(matches!(bind_from(&mut pool, refuse(Errno::ADDRINUSE)), Err(None)));
    assert_eq!(tries.get(), BIND_ATTEMPTS);
    let no_descriptor = bind_from(&mut pool, refuse(Errno::MFILE));
    assert_eq!(no_descriptor.unwrap_err().unwrap().raw_os_error(), Some(Errno::MFILE.raw_os_error()));
    assert_eq!((tries.get(), pool.free()), (1, 100), "and the port is not lost");
}

#[test]
fn a_closing_that_found_no_room_is_repeated_until_the_ports_come_back() {
    let (mut engine, mut reports) = engine(1);
    let call = open(&mut engine, 1);
    let (free, _) = engine.trunk_ports();
    // As `close` leaves it behind when the queue of the thread is full.
    let placed = engine.placed.remove(&call).unwrap();
    engine.closes.push_back((call, placed.worker));
    assert_eq!(engine.closes_waiting(), 1);
    assert!(engine.look_after().is_empty());
    assert_eq!(engine.closes_waiting(), 0);
    while let Some(report) = reports.blocking_recv() {
        if let Report::PortsFree(ports) = report {
            engine.ports_free(ports);
            break;
        }
    }
    assert_eq!(engine.trunk_ports().0, free + 1);
}

#[test]
fn the_calls_of_a_dead_thread_are_named_and_no_call_goes_there() {
    let (mut engine, _reports) = engine(2);
    let calls = [open(&mut engine, 1), open(&mut engine, 2)];
    let (dead, lost) = (engine.placed[&calls[0]].worker, calls[0]);
    engine.workers[dead].order(Order::Stop).unwrap();
    let began = Instant::now();
    while !engine.workers[dead].is_dead() {
        assert!(began.elapsed() < Duration::from_secs(20));
        std::thread::yield_now();
    }
    assert_eq!(engine.look_after(), [lost]);
    assert!(engine.look_after().is_empty() && engine.has_threads());
    let next = open(&mut engine, 3);
    assert_ne!(engine.placed[&next].worker, dead);
}

#[test]
fn a_relay_carries_voice_between_two_trunks_and_gives_its_ports_back() {
    use call_model::{Codec, Direction, LegMedia, MediaSecurity, Side};
    let (mut engine, mut reports) = engine(1);
    let (before, _) = engine.trunk_ports();
    let call = CallId::new(1, 1);
    let opened = engine.handle(Instant::now(), MediaCommand::OpenRelay { call });
    let Some(MediaEvent::RelayOpened { trunk_rtp, onward_rtp, .. }) = opened else { panic!("{opened:?}") };
    assert_eq!(engine.trunk_ports().0, before - 2);
    let party = || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket
    };
    let (pbx, carrier) = (party(), party());
    for (side, socket, codec) in [(Side::Trunk, &pbx, Codec::Pcma), (Side::Onward, &carrier, Codec::Pcmu)] {
        let payload_type = codec.static_payload_type().unwrap();
        let media = LegMedia {
            codec,
            send_payload_type: payload_type,
            receive_payload_type: payload_type,
            also_receives: Vec::new(),
            telephone_event: None,
            packet_time_ms: 20,
            remote_rtp: socket.local_addr().unwrap(),
            remote_rtcp: None,
            direction: Direction::SendRecv,
            security: MediaSecurity::None,
        };
        engine.handle(Instant::now(), MediaCommand::TrunkMedia { call, side, media });
    }
    let said = |kind: u8, code: u8| {
        let mut packet = vec![0x80, kind, 0, 1, 0, 0, 0, 0, 0, 0, 0, kind];
        packet.extend([code; 160]);
        packet
    };
    let mut heard = [0; 512];
    for (from, to, at, sent, expected) in [
        // ITU-T G.711 tables 3 and 4: the smallest value of A-law is the second smallest of mu-law.
        (&pbx, &carrier, trunk_rtp, said(8, 0xd5), (0, 0xfe)),
        (&carrier, &pbx, onward_rtp, said(0, 0xff), (8, 0xd5)),
    ] {
        // The order that brings the media may still be on its way to the thread.
        to.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let length = (0..100).find_map(|_| {
            from.send_to(&sent, at).unwrap();
            let (length, source) = to.recv_from(&mut heard).ok().filter(|_| heard[1] & 0x7f < 64)?;
            assert_eq!(source, if at == trunk_rtp { onward_rtp } else { trunk_rtp });
            Some(length)
        });
        let length = length.unwrap();
        assert_eq!((length, heard[1] & 0x7f, heard[100]), (172, expected.0, expected.1));
    }
    engine.handle(Instant::now(), MediaCommand::Close { call });
    let mut first = Vec::new();
    while let Some(report) = reports.blocking_recv() {
        match report {
            Report::PortsFree(ports) => {
                engine.ports_free(ports);
                break;
            }
            Report::Media(MediaEvent::FirstPacket { side, .. }) => first.push(side),
            Report::Media(_) => {}
        }
    }
    assert_eq!((engine.trunk_ports().0, first), (before, vec![Side::Trunk, Side::Onward]));
}
