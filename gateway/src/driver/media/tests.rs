//! The engine with its threads and sockets, on loopback.
#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::time::Duration;

use call_model::{Codec, Direction, DtmfDigit, ImageAttributes, ImageMedia, LegMedia, MediaSecurity, Side};

use transcoder::leg::rtp::SourceRule;

use super::sockets::udp;
use super::*;

mod sources;

thread_local! {
    /// How the engines of a test receive.
    static RECEIVE: Cell<Receive> = const { Cell::new(Receive::Recvmmsg) };
}

/// Returns a port that no other test has: they are all run once more over the other receiver.
fn port(number: u16) -> u16 {
    match RECEIVE.get() {
        Receive::Recvmmsg => number,
        Receive::IoUring => number + 500,
    }
}

fn config(threads: usize) -> MediaConfig {
    let loopback = std::net::IpAddr::from([127, 0, 0, 1]);
    MediaConfig {
        trunk_address: loopback,
        trunk_ports: port(41_000)..=port(41_199),
        overlay_address: loopback,
        overlay_ports: port(41_200)..=port(41_299),
        threads,
        thread_niceness: 0,
        receive: RECEIVE.get(),
        opus_complexity: 5,
        opus_bitrate: 16_000,
        suppress_silence: true,
        edge_codec: EdgeCodec::Auto,
        silence_timeout: Duration::from_secs(60),
        port_quarantine: Duration::from_secs(1),
        dscp: 46,
    }
}

fn start(config: MediaConfig) -> (MediaEngine, mpsc::Receiver<Report>) {
    let (reports, inbox) = mpsc::channel(1024);
    (MediaEngine::start(config, 1, &reports).unwrap(), inbox)
}

fn engine(threads: usize) -> (MediaEngine, mpsc::Receiver<Report>) {
    start(config(threads))
}

/// Lets the threads work until something is so. Returns the sides whose first packet was told.
fn until(
    engine: &mut MediaEngine,
    reports: &mut mpsc::Receiver<Report>,
    is_so: impl Fn(&MediaEngine) -> bool,
) -> Vec<Side> {
    let (began, mut first) = (Instant::now(), Vec::new());
    while !is_so(engine) {
        assert!(began.elapsed() < Duration::from_secs(20));
        match reports.try_recv() {
            Ok(Report::PortFree(port)) => engine.port_free(port),
            Ok(Report::Media(MediaEvent::FirstPacket { side, .. })) => first.push(side),
            Ok(Report::Media(_)) => {}
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    first
}

fn open(engine: &mut MediaEngine, number: u128) -> CallId {
    let call = CallId::new(1, number);
    let opened =
        engine.handle(Instant::now(), MediaCommand::Open { call, overlay_offer: None, playback_rate: 8_000 });
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
        move |_: u16| -> io::Result<LegSockets> {
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
    until(&mut engine, &mut reports, |engine| engine.trunk_ports().0 == free + 1);
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
    let (mut engine, mut reports) = engine(1);
    let (before, _) = engine.trunk_ports();
    let call = CallId::new(1, 1);
    let opened = engine.handle(Instant::now(), MediaCommand::OpenRelay { call });
    let Some(MediaEvent::RelayOpened { trunk_rtp, onward_rtp, .. }) = opened else { panic!("{opened:?}") };
    assert_eq!(engine.trunk_ports().0, before - 2);
    carry_voice(&mut engine, call, trunk_rtp, onward_rtp);
    engine.handle(Instant::now(), MediaCommand::Close { call });
    let first = until(&mut engine, &mut reports, |engine| engine.trunk_ports().0 == before);
    assert_eq!(first, [Side::Trunk, Side::Onward]);
}

// ITU-T T.38 9.1: UDPTL is passed on as it is, over the sockets of the voice before.
#[test]
fn f14_a_relay_carries_udptl_between_two_trunks() {
    let (mut engine, _reports) = engine(1);
    let call = CallId::new(1, 1);
    let opened = engine.handle(Instant::now(), MediaCommand::OpenRelay { call });
    let Some(MediaEvent::RelayOpened { trunk_rtp, onward_rtp, .. }) = opened else { panic!("{opened:?}") };
    carry_voice(&mut engine, call, trunk_rtp, onward_rtp);
    let party = || {
        let socket = std::net::UdpSocket::bind((trunk_rtp.ip(), 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket
    };
    let (pbx, carrier) = (party(), party());
    for (side, socket) in [(Side::Trunk, &pbx), (Side::Onward, &carrier)] {
        let remote_udptl = socket.local_addr().unwrap();
        let image = ImageMedia { remote_udptl, attributes: ImageAttributes::default() };
        engine.handle(Instant::now(), MediaCommand::TrunkImage { call, side, image });
    }
    // Like STUN by its first octet, which is nothing to a relay (RFC 7983).
    let said = [0u8, 7, 3, 0xc0, 1, 0x80, 0];
    let mut heard = [0; 512];
    for (from, to, at, by) in
        [(&pbx, &carrier, trunk_rtp, onward_rtp), (&carrier, &pbx, onward_rtp, trunk_rtp)]
    {
        // The order that brings the image may still be on its way to the thread.
        let came = (0..100).find_map(|_| {
            from.send_to(&said, at).unwrap();
            to.recv_from(&mut heard).ok()
        });
        assert_eq!((came, &heard[..said.len()]), (Some((said.len(), by)), &said[..]));
    }
}

/// Plain RTP without telephone events.
fn plain(codec: Codec, remote_rtp: SocketAddr) -> LegMedia {
    let payload_type = codec.static_payload_type().unwrap();
    LegMedia {
        codec,
        send_payload_type: payload_type,
        receive_payload_type: payload_type,
        also_receives: Vec::new(),
        telephone_event: None,
        comfort_noise: false,
        packet_time_ms: 20,
        remote_rtp,
        remote_rtcp: None,
        direction: Direction::SendRecv,
        security: MediaSecurity::None,
    }
}

/// Has two parties hear each other through a relay.
fn carry_voice(engine: &mut MediaEngine, call: CallId, trunk_rtp: SocketAddr, onward_rtp: SocketAddr) {
    let party = || {
        let socket = std::net::UdpSocket::bind((trunk_rtp.ip(), 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket
    };
    let (pbx, carrier) = (party(), party());
    for (side, socket, codec) in [(Side::Trunk, &pbx, Codec::Pcma), (Side::Onward, &carrier, Codec::Pcmu)] {
        let media = plain(codec, socket.local_addr().unwrap());
        let source_rule = SourceRule::Negotiated;
        let media = MediaCommand::TrunkMedia { call, side, media, in_band_digits: false, source_rule };
        engine.handle(Instant::now(), media);
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
}

/// An engine of which other tests use no ports: 2 `pairs` of them from `first` on, and as many for the
/// overlay.
fn small(first: u16, pairs: u16, threads: usize) -> (MediaEngine, mpsc::Receiver<Report>) {
    let first = port(first);
    start(MediaConfig {
        trunk_ports: first..=first + 2 * pairs - 1,
        overlay_ports: first + 2 * pairs..=first + 4 * pairs - 1,
        port_quarantine: Duration::from_millis(20),
        ..config(threads)
    })
}

fn open_relay(engine: &mut MediaEngine, number: u128) -> (CallId, SocketAddr, SocketAddr) {
    let call = CallId::new(1, number);
    match engine.handle(Instant::now(), MediaCommand::OpenRelay { call }) {
        Some(MediaEvent::RelayOpened { trunk_rtp, onward_rtp, .. }) => (call, trunk_rtp, onward_rtp),
        other => panic!("{other:?}"),
    }
}

/// Ends a call and lets its ports rest.
fn close(engine: &mut MediaEngine, reports: &mut mpsc::Receiver<Report>, call: CallId) {
    let free = engine.trunk_ports().0 + 1 + usize::from(is_relay(engine, call));
    engine.handle(Instant::now(), MediaCommand::Close { call });
    until(engine, reports, |engine| engine.trunk_ports().0 == free);
}

fn is_relay(engine: &MediaEngine, call: CallId) -> bool {
    engine.placed[&call].ports[0].range == PortRange::Trunk
}

/// A digit, which comes back from a relay whose side is not known yet.
fn star(call: CallId) -> MediaCommand {
    let digit = DtmfDigit::from_char('*').unwrap();
    MediaCommand::SendDtmf { call, side: Side::Trunk, digit, duration_ms: 100 }
}

/// Returns by what the system knows the socket that is bound to a port.
fn inode(address: SocketAddr) -> Option<String> {
    let table = if address.is_ipv4() { "/proc/net/udp" } else { "/proc/net/udp6" };
    let table = std::fs::read_to_string(table).unwrap();
    let port = format!(":{:04X}", address.port());
    let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.find(|row| row[1].ends_with(&port)).map(|row| row[9].to_owned())
}

fn counted(engine: &MediaEngine, which: impl Fn(&PublishedCounters) -> &std::sync::atomic::AtomicU64) -> u64 {
    let counters = engine.counters();
    counters.iter().map(|counters| which(counters).load(std::sync::atomic::Ordering::Relaxed)).sum()
}

#[test]
fn sockets_go_from_one_call_to_the_next_of_either_kind_and_family() {
    for (first, address) in [(port(21_400), "127.0.0.1"), (port(21_420), "::1")] {
        let address = address.parse().unwrap();
        let (mut engine, mut reports) = start(MediaConfig {
            trunk_address: address,
            overlay_address: address,
            trunk_ports: first..=first + 3,
            overlay_ports: first + 4..=first + 4,
            port_quarantine: Duration::from_millis(20),
            ..config(1)
        });
        let all = (0..5).map(|offset| SocketAddr::new(address, first + offset));
        let inodes = || all.clone().map(inode).collect::<Vec<_>>();
        let (call, ..) = open_relay(&mut engine, 1);
        close(&mut engine, &mut reports, call);
        let relayed = inodes();
        assert!(relayed[..4].iter().all(Option::is_some) && relayed[4].is_none(), "{relayed:?}");

        let call = open(&mut engine, 2);
        let bridged = inodes();
        assert_eq!(bridged[..4], relayed[..4]);
        assert!(bridged[4].is_some());
        assert_eq!(engine.trunk_ports(), (1, 2));
        close(&mut engine, &mut reports, call);

        for number in 3..6 {
            let (call, trunk_rtp, onward_rtp) = open_relay(&mut engine, number);
            carry_voice(&mut engine, call, trunk_rtp, onward_rtp);
            assert_eq!(engine.trunk_ports(), (0, 2));
            close(&mut engine, &mut reports, call);
        }
        let call = open(&mut engine, 6);
        assert_eq!(inodes(), bridged);
        close(&mut engine, &mut reports, call);
    }
}

#[test]
fn what_came_between_two_calls_is_not_heard_by_the_next() {
    let (mut engine, mut reports) = small(21_440, 2, 1);
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in 0..30 {
        let (call, trunk_rtp, onward_rtp) = open_relay(&mut engine, number);
        // The thread has the call, and has read what the sockets brought with them.
        engine.handle(Instant::now(), star(call));
        while !matches!(reports.blocking_recv(), Some(Report::Media(MediaEvent::DtmfUnsent { .. }))) {}
        close(&mut engine, &mut reports, call);
        for _ in 0..40 {
            for to in [trunk_rtp, onward_rtp] {
                stranger.send_to(&[0x80; 40], to).unwrap();
            }
        }
    }
    assert_eq!(counted(&engine, |counters| &counters.received), 0);
}

#[test]
fn what_strays_in_between_two_calls_does_not_pile_up() {
    let (mut engine, mut reports) = small(21_460, 2, 1);
    let (call, trunk_rtp, onward_rtp) = open_relay(&mut engine, 1);
    close(&mut engine, &mut reports, call);
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let rtcp = SocketAddr::new(onward_rtp.ip(), onward_rtp.port() + 1);
    for _ in 0..100 {
        stranger.send_to(&[0x80; 40], trunk_rtp).unwrap();
        stranger.send_to(&[0x80; 40], rtcp).unwrap();
    }
    until(&mut engine, &mut reports, |engine| counted(engine, |counters| &counters.stray) == 200);
}

#[test]
fn what_comes_before_the_thread_knows_of_the_call_is_heard() {
    let (mut engine, mut reports) = small(21_480, 8, 1);
    let (call, ..) = open_relay(&mut engine, 1);
    close(&mut engine, &mut reports, call);
    // From four calls on the thread looks at its sockets, and then at its orders, once per turn.
    for number in 2..6 {
        open(&mut engine, number);
    }
    until(&mut engine, &mut reports, |engine| {
        engine.counters()[0].calls.load(std::sync::atomic::Ordering::Relaxed) == 4
    });
    let party = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for round in 1..20 {
        let (call, trunk_rtp, _) = open_relay(&mut engine, 5 + u128::from(round));
        party.send_to(&[0x80; 40], trunk_rtp).unwrap();
        until(&mut engine, &mut reports, |engine| counted(engine, |counters| &counters.received) == round);
        close(&mut engine, &mut reports, call);
    }
}

#[test]
fn a_flooded_socket_is_not_used_again() {
    let leg = |number| {
        let port = LegPort { range: PortRange::Trunk, number };
        LegSockets::bind(std::net::IpAddr::from([127, 0, 0, 1]), port, 0).unwrap()
    };
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut inbox = Inbox::new(1, Instant::now());
    for (number, strays, is_good) in [(21_520, 0, true), (21_522, 20, true), (21_524, 100, false)] {
        let leg = leg(number);
        let to = leg.rtcp.as_ref().unwrap();
        for _ in 0..strays {
            stranger.send_to(&[0; 172], to.local).unwrap();
        }
        assert_eq!(leg.read_away(&mut inbox, Instant::now()), is_good, "{strays}");
        assert_eq!(inbox.receive(&to.socket, Instant::now()).unwrap() == 0, is_good, "{strays}");
    }
}

// Some telephones have one synchronisation source for all their calls.
#[test]
fn f23_a_source_that_stopped_is_heard_again_on_the_same_port() {
    let (mut engine, mut reports) = small(21_620, 1, 1);
    let pbx = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut ports = Vec::new();
    for number in 1..=3 {
        let call = CallId::new(1, number);
        let opened = engine
            .handle(Instant::now(), MediaCommand::Open { call, overlay_offer: None, playback_rate: 8_000 });
        let Some(MediaEvent::Opened { trunk_rtp, .. }) = opened else { panic!("{opened:?}") };
        ports.push(trunk_rtp);
        let media = plain(Codec::Pcma, pbx.local_addr().unwrap());
        let media = MediaCommand::TrunkMedia {
            call,
            side: Side::Trunk,
            media,
            in_band_digits: false,
            source_rule: SourceRule::Negotiated,
        };
        engine.handle(Instant::now(), media);
        let began = Instant::now();
        let mut sequence = 0u16;
        let heard = loop {
            assert!(began.elapsed() < Duration::from_secs(10), "call {number} is not heard");
            let mut packet = vec![0x80, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 77];
            packet[2..4].copy_from_slice(&sequence.to_be_bytes());
            packet[4..8].copy_from_slice(&(u32::from(sequence) * 160).to_be_bytes());
            packet.extend([0xd5; 160]);
            pbx.send_to(&packet, trunk_rtp).unwrap();
            sequence += 1;
            std::thread::sleep(Duration::from_millis(5));
            match reports.try_recv() {
                Ok(Report::Media(MediaEvent::FirstPacket { side, .. })) => break side,
                Ok(Report::PortFree(port)) => engine.port_free(port),
                _ => {}
            }
        };
        assert_eq!(heard, Side::Trunk);
        close(&mut engine, &mut reports, call);
    }
    assert!(ports.windows(2).all(|pair| pair[0] == pair[1]), "{ports:?}");
}

#[test]
fn no_call_goes_to_a_thread_that_does_not_keep_time() {
    let (mut engine, mut reports) = small(21_580, 8, 2);
    engine.workers[0].counters.load.refuse();
    for n in 1..=2 {
        let (call, ..) = open_relay(&mut engine, n);
        assert_eq!(engine.placed[&call].worker, 1);
    }
    engine.workers[1].counters.load.refuse();
    let call = CallId::new(1, 98);
    match engine.handle(Instant::now(), MediaCommand::OpenRelay { call }) {
        Some(MediaEvent::Refused { cause: Cause::SWITCHING_EQUIPMENT_CONGESTION, detail, .. }) => {
            assert!(detail.contains("keep time"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
    for n in 1..=2 {
        close(&mut engine, &mut reports, CallId::new(1, n));
    }
}

#[test]
fn no_more_sockets_stay_open_than_may() {
    assert!((1..64).all(|threads| kept_by_each(threads) * threads <= KEPT));
    let (mut engine, _) = small(21_540, 2, 1);
    let (sender, mut reports) = mpsc::channel(1024);
    let quarantine = engine.config.port_quarantine;
    engine.workers = vec![Worker::spawn(0, sender, quarantine, 1, 5, 0, RECEIVE.get()).unwrap()];
    let (call, trunk_rtp, onward_rtp) = open_relay(&mut engine, 1);
    close(&mut engine, &mut reports, call);
    let is_open = |address| inode(address).is_some();
    assert_eq!(is_open(trunk_rtp) as u8 + is_open(onward_rtp) as u8, 1);
    assert_eq!(engine.trunk_ports(), (2, 2));
    let (call, ..) = open_relay(&mut engine, 2);
    assert_eq!(engine.trunk_ports(), (0, 2));
    close(&mut engine, &mut reports, call);
}

#[test]
fn ports_rest_before_they_are_used_again_and_none_is_lost_to_another_thread() {
    let (mut engine, mut reports) = start(MediaConfig {
        trunk_ports: port(21_560)..=port(21_563),
        overlay_ports: port(21_564)..=port(21_565),
        ..config(2)
    });
    let no_circuit = |engine: &mut MediaEngine| {
        let call = CallId::new(1, 99);
        let refused = engine.handle(Instant::now(), MediaCommand::OpenRelay { call });
        matches!(refused, Some(MediaEvent::Refused { cause: Cause::NO_CIRCUIT_AVAILABLE, .. }))
    };
    let (call, ..) = open_relay(&mut engine, 1);
    assert!(no_circuit(&mut engine));
    let (worker, closed) = (engine.placed[&call].worker, Instant::now());
    close_at_once(&mut engine, call);
    assert!(no_circuit(&mut engine), "the ports rest");
    until(&mut engine, &mut reports, |engine| engine.trunk_ports().0 == 2);
    assert!(closed.elapsed() >= Duration::from_secs(1));

    // The next call goes to the other thread, and what the first keeps must not be wanting there.
    engine.load[worker] = 5;
    let (call, trunk_rtp, onward_rtp) = open_relay(&mut engine, 2);
    assert_ne!(engine.placed[&call].worker, worker);
    carry_voice(&mut engine, call, trunk_rtp, onward_rtp);
    assert!(no_circuit(&mut engine));
    close(&mut engine, &mut reports, call);
    assert_eq!(engine.trunk_ports(), (2, 2));
}

fn close_at_once(engine: &mut MediaEngine, call: CallId) {
    engine.handle(Instant::now(), MediaCommand::Close { call });
}

#[test]
fn a_thread_that_waits_hears_every_order() {
    let (mut engine, mut reports) = small(21_580, 2, 1);
    let (call, ..) = open_relay(&mut engine, 1);
    let mut late = 0;
    for round in 0..10_000 {
        engine.handle(Instant::now(), star(call));
        // Any moment after the first, that too at which the thread has found no other and goes to wait.
        let began = Instant::now();
        while began.elapsed() < Duration::from_nanos(100 * (round % 1000)) {}
        let asked = Instant::now();
        engine.handle(asked, star(call));
        let mut answers = 0;
        while answers < 2 {
            let answer = reports.try_recv();
            answers += usize::from(matches!(answer, Ok(Report::Media(MediaEvent::DtmfUnsent { .. }))));
        }
        // A thread that was not woken looks next when it has its figures to report, within a second.
        late += u32::from(asked.elapsed() > Duration::from_millis(400));
    }
    // Other tests, and other machines of the same host, may take the processor now and then.
    assert!(late <= 5, "{late} orders were heard late");
}

/// What the threads of an engine receive with.
fn rings(engine: &MediaEngine) -> usize {
    let has =
        |counters: &&Arc<PublishedCounters>| counters.has_ring.load(std::sync::atomic::Ordering::Relaxed);
    engine.counters().iter().filter(has).count()
}

#[test]
fn a_thread_has_a_ring_where_one_is_wanted_and_the_kernel_has_any() {
    let expected = if worker::open_ring().is_ok() { 2 } else { 0 };
    for (wanted, count) in [(Receive::Recvmmsg, 0), (Receive::IoUring, expected)] {
        let (mut engine, mut reports) = start(MediaConfig { receive: wanted, ..config(2) });
        until(&mut engine, &mut reports, |engine| rings(engine) == count);
        let (call, trunk_rtp, onward_rtp) = open_relay(&mut engine, 1);
        carry_voice(&mut engine, call, trunk_rtp, onward_rtp);
        assert_eq!(rings(&engine), count);
    }
}

#[test]
fn a_thread_that_ends_with_calls_frees_their_ports() {
    for round in 0..5 {
        let (mut engine, _reports) = small(21_660, 16, 1);
        for number in 0..8 {
            open_relay(&mut engine, number + 8 * round);
        }
        let ports: Vec<SocketAddr> =
            (port(21_660)..=port(21_691)).map(|port| ([127, 0, 0, 1], port).into()).collect();
        drop(engine);
        for address in ports {
            std::net::UdpSocket::bind(address).unwrap();
        }
    }
}

#[test]
fn calls_of_a_thread_in_turns_are_heard_and_none_of_their_packets_twice() {
    let (mut engine, mut reports) = small(21_740, 20, 1);
    let party = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for lap in 0..3 {
        let before = counted(&engine, |counters| &counters.received);
        let calls: Vec<_> = (0..10).map(|number| open_relay(&mut engine, number + 10 * lap)).collect();
        for _ in 0..30 {
            for (_, trunk_rtp, onward_rtp) in &calls {
                party.send_to(&[0x80; 40], trunk_rtp).unwrap();
                party.send_to(&[0x80; 40], onward_rtp).unwrap();
            }
        }
        until(&mut engine, &mut reports, |engine| {
            counted(engine, |counters| &counters.received) == before + 600
        });
        for (call, ..) in calls {
            close(&mut engine, &mut reports, call);
        }
        assert_eq!(counted(&engine, |counters| &counters.received), before + 600);
    }
    assert_eq!(counted(&engine, |counters| &counters.failed), 0);
}

/// The tests above in which something is received, with io_uring where the kernel has it.
mod over_io_uring {
    use super::*;

    macro_rules! again {
        ($($name:ident,)*) => {
            $(#[test]
            fn $name() {
                RECEIVE.set(Receive::IoUring);
                super::$name();
            })*
        };
    }

    again!(
        a_burst_of_calls_spreads_over_the_threads,
        a_closing_that_found_no_room_is_repeated_until_the_ports_come_back,
        the_calls_of_a_dead_thread_are_named_and_no_call_goes_there,
        a_relay_carries_voice_between_two_trunks_and_gives_its_ports_back,
        f14_a_relay_carries_udptl_between_two_trunks,
        sockets_go_from_one_call_to_the_next_of_either_kind_and_family,
        what_came_between_two_calls_is_not_heard_by_the_next,
        what_strays_in_between_two_calls_does_not_pile_up,
        what_comes_before_the_thread_knows_of_the_call_is_heard,
        f23_a_source_that_stopped_is_heard_again_on_the_same_port,
        no_more_sockets_stay_open_than_may,
        ports_rest_before_they_are_used_again_and_none_is_lost_to_another_thread,
        a_thread_that_waits_hears_every_order,
        a_thread_that_ends_with_calls_frees_their_ports,
        calls_of_a_thread_in_turns_are_heard_and_none_of_their_packets_twice,
    );
}
