//! The ring over sockets on loopback. Where the kernel refuses io_uring, only that is shown.
#![allow(clippy::unwrap_used)]

use std::net::UdpSocket;

use super::*;
use crate::driver::batch::stamp_arrivals;

const LONGEST: usize = 2048;

/// A ring, unless this kernel refuses any.
fn ring(count: u16) -> Option<Ring> {
    match Ring::new(count, LONGEST, Instant::now()) {
        Ok(ring) => Some(ring),
        Err(error) => {
            // Too old a kernel, `kernel.io_uring_disabled`, seccomp.
            let refusals = [libc::ENOSYS, libc::EINVAL, libc::EPERM, libc::EACCES];
            assert!(refusals.contains(&error.raw_os_error().unwrap()), "{error}");
            let plain = IoUring::<squeue::Entry, cqueue::Entry>::builder()
                .setup_single_issuer()
                .setup_defer_taskrun()
                .build(8);
            assert!(plain.is_err(), "a ring is refused though the kernel has them: {error}");
            None
        }
    }
}

fn pair(address: &str) -> (UdpSocket, UdpSocket) {
    let (to, from) = (UdpSocket::bind(address).unwrap(), UdpSocket::bind(address).unwrap());
    to.set_nonblocking(true).unwrap();
    stamp_arrivals(&to).unwrap();
    (to, from)
}

/// What an arrival told.
#[derive(Debug, PartialEq)]
enum Told {
    Datagram(usize, Vec<u8>),
    Failed(usize, Option<i32>),
    Left(usize),
}

/// Has a turn and returns what came.
fn turn(ring: &mut Ring) -> Vec<Told> {
    ring.turn(Instant::now()).unwrap();
    let mut all = Vec::new();
    while let Some(arrival) = ring.poll_arrival() {
        all.push(match arrival {
            Arrival::Datagram { token, bytes, .. } => Told::Datagram(token.0, bytes.to_vec()),
            Arrival::Failed { token, error } => Told::Failed(token.0, error.raw_os_error()),
            Arrival::Left { token } => Told::Left(token.0),
        });
    }
    all
}

#[test]
fn every_datagram_has_its_socket_its_source_and_the_time_it_came() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let pairs = [pair(address), pair(address), pair(address)];
        let Some(mut ring) = ring(64) else { return };
        for (number, (to, _)) in pairs.iter().enumerate() {
            ring.add(Token(number), to);
        }
        assert_eq!(turn(&mut ring), []);
        // The kernel begins to stamp a moment after the first socket of the system asked for it,
        // and fills in the time of reading until then.
        let stamped = (0..20).any(|_| {
            for (to, from) in &pairs {
                for octet in 0..2 {
                    from.send_to(&[octet; 20], to.local_addr().unwrap()).unwrap();
                }
            }
            let sent = Instant::now();
            std::thread::sleep(Duration::from_millis(30)); // the thread comes round to it later
            assert!(ring.is_ready());
            ring.turn(Instant::now()).unwrap();
            let (mut heard, mut early) = (Vec::new(), true);
            while let Some(arrival) = ring.poll_arrival() {
                let Arrival::Datagram { token, at, source, bytes } = arrival else { panic!("{arrival:?}") };
                assert_eq!(source, pairs[token.0].1.local_addr().unwrap());
                assert_eq!(bytes.len(), 20);
                heard.push((token.0, bytes[0]));
                early &= at < sent + Duration::from_millis(15);
            }
            heard.sort_unstable();
            assert_eq!(heard, [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]);
            early
        });
        assert!(stamped, "{address}");
    }
}

#[test]
fn what_waited_before_is_taken_in_order_and_an_oversized_datagram_is_cut() {
    let (to, from) = pair("127.0.0.1:0");
    let Some(mut ring) = ring(64) else { return };
    for octet in 0..11_u8 {
        from.send_to(&[octet], to.local_addr().unwrap()).unwrap();
    }
    from.send_to(&[7; 4000], to.local_addr().unwrap()).unwrap();
    from.send_to(&[], to.local_addr().unwrap()).unwrap();
    ring.add(Token(5), &to);
    let mut expected: Vec<Told> = (0..11).map(|octet| Told::Datagram(5, vec![octet])).collect();
    expected.extend([Told::Datagram(5, vec![7; LONGEST]), Told::Datagram(5, Vec::new())]);
    assert_eq!(turn(&mut ring), expected);
}

#[test]
fn more_than_the_buffers_hold_waits_in_the_socket_and_is_counted() {
    let Some(mut ring) = ring(4) else { return };
    let pairs = [pair("127.0.0.1:0"), pair("127.0.0.1:0")];
    for (number, (to, _)) in pairs.iter().enumerate() {
        ring.add(Token(number), to);
    }
    assert_eq!(turn(&mut ring), []);
    for octet in 0..20_u8 {
        for (to, from) in &pairs {
            from.send_to(&[octet], to.local_addr().unwrap()).unwrap();
        }
    }
    let mut heard = [Vec::new(), Vec::new()];
    for _ in 0..100 {
        let told = turn(&mut ring);
        assert!(told.len() <= 4, "{told:?}");
        for told in told {
            let Told::Datagram(token, bytes) = told else { panic!("{told:?}") };
            heard[token].extend(bytes);
        }
    }
    let all: Vec<u8> = (0..20).collect();
    assert_eq!(heard, [all.clone(), all]);
    assert!(ring.exhausted() >= 8, "{}", ring.exhausted());
    assert!(!ring.is_ready());
}

#[test]
fn an_error_of_an_earlier_send_ends_nothing() {
    let (to, from) = pair("127.0.0.1:0");
    let Some(mut ring) = ring(4) else { return };
    ring.add(Token(1), &to);
    turn(&mut ring);
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // A socket hears of it only where it is connected.
    to.connect(closed).unwrap();
    let _ = to.send(&[1]);
    assert_eq!(turn(&mut ring), [Told::Failed(1, Some(libc::ECONNREFUSED))]);
    to.connect(from.local_addr().unwrap()).unwrap();
    from.send_to(&[2], to.local_addr().unwrap()).unwrap();
    let told: Vec<Told> = (0..2).flat_map(|_| turn(&mut ring)).collect();
    assert_eq!(told, [Told::Datagram(1, vec![2])]);
}

#[test]
fn who_has_left_is_heard_no_more_and_may_be_closed_and_come_again() {
    let Some(mut ring) = ring(8) else { return };
    assert!(!ring.remove(Token(3)));
    let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let from = UdpSocket::bind("127.0.0.1:0").unwrap();
    for round in 0..50_u8 {
        // Nothing of the kernel's keeps the port of the round before.
        let to = UdpSocket::bind(address).unwrap();
        ring.add(Token(3), &to);
        if round % 3 > 0 {
            from.send_to(&[round], address).unwrap();
            assert_eq!(turn(&mut ring), [Told::Datagram(3, vec![round])]);
        }
        if round % 3 > 1 {
            from.send_to(&[0], address).unwrap();
        }
        assert!(ring.remove(Token(3)));
        assert_eq!(turn(&mut ring), [Told::Left(3)], "round {round}");
        from.send_to(&[0], address).unwrap();
        assert_eq!(turn(&mut ring), []);
        assert!(!ring.remove(Token(3)));
    }
}

#[test]
fn a_socket_that_leaves_while_the_buffers_are_used_up_leaves_once() {
    let Some(mut ring) = ring(2) else { return };
    let (to, from) = pair("127.0.0.1:0");
    ring.add(Token(9), &to);
    for octet in 0..9 {
        from.send_to(&[octet], to.local_addr().unwrap()).unwrap();
    }
    assert_eq!(turn(&mut ring).len(), 2);
    assert_eq!(ring.exhausted(), 1);
    assert!(ring.remove(Token(9)));
    let told: Vec<Told> = (0..4).flat_map(|_| turn(&mut ring)).collect();
    assert_eq!(told, [Told::Left(9)]);
}

#[test]
fn what_came_before_a_socket_left_and_was_not_told_is_told_no_more() {
    let Some(mut ring) = ring(2) else { return };
    let (to, from) = pair("127.0.0.1:0");
    for octet in 0..8 {
        ring.add(Token(4), &to);
        for _ in 0..2 {
            from.send_to(&[octet], to.local_addr().unwrap()).unwrap();
        }
        ring.turn(Instant::now()).unwrap();
        assert!(ring.remove(Token(4)));
        assert!(ring.poll_arrival().is_none_or(|arrival| matches!(arrival, Arrival::Left { .. })));
        turn(&mut ring);
        assert!(!ring.remove(Token(4)), "it has left");
        // The buffers are free again.
        ring.add(Token(5), &to);
        from.send_to(&[octet], to.local_addr().unwrap()).unwrap();
        assert_eq!(turn(&mut ring), [Told::Datagram(5, vec![octet])]);
        assert!(ring.remove(Token(5)));
        assert_eq!(turn(&mut ring), [Told::Left(5)]);
    }
}

#[test]
fn more_sockets_than_requests_fit_at_once_are_all_heard() {
    let Some(mut ring) = ring(512) else { return };
    // An address of its own: so many ports may be wanted by other tests.
    let bind = || UdpSocket::bind("127.77.0.1:0").unwrap();
    let (sockets, from) = ((0..400).map(|_| bind()).collect::<Vec<UdpSocket>>(), bind());
    for (number, socket) in sockets.iter().enumerate() {
        ring.add(Token(number), socket);
    }
    assert_eq!(turn(&mut ring), []);
    for (number, socket) in sockets.iter().enumerate() {
        from.send_to(&(number as u16).to_be_bytes(), socket.local_addr().unwrap()).unwrap();
    }
    let mut heard = turn(&mut ring);
    heard.sort_by_key(|told| if let Told::Datagram(token, _) = told { *token } else { usize::MAX });
    let expected: Vec<Told> =
        (0..400).map(|number| Told::Datagram(number, (number as u16).to_be_bytes().to_vec())).collect();
    assert_eq!(heard, expected);
    (0..400).for_each(|number| assert!(ring.remove(Token(number))));
    assert_eq!(turn(&mut ring).len(), 400);
}

/// Where a socket of the test below is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Out,
    In,
    Leaving,
}

#[test]
fn sockets_that_come_and_go_at_random_are_heard_in_order_and_leave_once() {
    for seed in 1..=20_u64 {
        let Some(mut ring) = ring(16) else { return };
        let bind = || UdpSocket::bind("127.77.0.3:0").unwrap();
        let (sockets, from) = ((0..40).map(|_| bind()).collect::<Vec<UdpSocket>>(), bind());
        let (mut places, mut sent, mut heard) = ([Place::Out; 40], [0_u16; 40], [0_u16; 40]);
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut draw = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below) as usize
        };
        let mut check = |ring: &mut Ring, places: &mut [Place; 40], sent: &[u16; 40]| {
            let mut told = 0;
            for arrival in turn(ring) {
                told += 1;
                match arrival {
                    Told::Datagram(token, bytes) => {
                        let number = u16::from_be_bytes([bytes[1], bytes[2]]);
                        assert_eq!((places[token], usize::from(bytes[0])), (Place::In, token), "seed {seed}");
                        assert!(heard[token] < number && number <= sent[token], "seed {seed}");
                        heard[token] = number;
                    }
                    Told::Left(token) => {
                        assert_eq!(places[token], Place::Leaving, "seed {seed}");
                        places[token] = Place::Out;
                    }
                    Told::Failed(..) => panic!("seed {seed}: {arrival:?}"),
                }
            }
            (told, heard)
        };
        for _ in 0..2000 {
            let token = draw(40);
            match (draw(10), places[token]) {
                (0, Place::Out) => {
                    ring.add(Token(token), &sockets[token]);
                    places[token] = Place::In;
                }
                (1, Place::In) => {
                    assert!(ring.remove(Token(token)), "seed {seed}");
                    places[token] = Place::Leaving;
                }
                (2..=6, _) => {
                    sent[token] += 1;
                    let bytes = [&[token as u8][..], &sent[token].to_be_bytes()].concat();
                    from.send_to(&bytes, sockets[token].local_addr().unwrap()).unwrap();
                }
                (7, _) => _ = check(&mut ring, &mut places, &sent),
                _ => {}
            }
        }
        // All that leave have left, and who has stayed has heard the last of what was sent.
        let heard = (0..1000).find_map(|_| match check(&mut ring, &mut places, &sent) {
            (0, heard) if !ring.is_ready() => Some(heard),
            _ => None,
        });
        let heard = heard.unwrap_or_else(|| panic!("seed {seed}: it does not come to rest"));
        for token in 0..40 {
            assert_ne!(places[token], Place::Leaving, "seed {seed}");
            assert!(places[token] == Place::Out || heard[token] == sent[token], "seed {seed}: {token}");
        }
        assert!(places.contains(&Place::In) && ring.exhausted() > 0, "seed {seed}");
    }
}

#[test]
fn a_ring_that_goes_frees_the_ports_and_what_comes_is_written_nowhere() {
    let bind = || UdpSocket::bind("127.77.0.2:0").unwrap();
    for _ in 0..20 {
        let Some(mut ring) = ring(8) else { return };
        let (sockets, from) = ((0..100).map(|_| bind()).collect::<Vec<UdpSocket>>(), bind());
        let addresses: Vec<SocketAddr> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
        for (number, socket) in sockets.iter().enumerate() {
            ring.add(Token(number), socket);
        }
        turn(&mut ring);
        from.send_to(&[1; 100], addresses[0]).unwrap();
        drop(ring);
        // What came is still the socket's.
        sockets[0].set_nonblocking(true).unwrap();
        let mut heard = [0; 200];
        assert_eq!(sockets[0].recv(&mut heard).unwrap(), 100);
        drop(sockets);
        addresses.into_iter().for_each(|address| assert!(UdpSocket::bind(address).is_ok(), "{address}"));
    }
}

#[test]
fn a_poll_is_told_of_what_comes() {
    let Some(mut ring) = ring(8) else { return };
    let mut poll = mio::Poll::new().unwrap();
    ring.watch(poll.registry(), Token(77)).unwrap();
    let (to, from) = pair("127.0.0.1:0");
    ring.add(Token(1), &to);
    turn(&mut ring);
    let mut events = mio::Events::with_capacity(8);
    for octet in 0..20 {
        poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        assert!(turn(&mut ring).is_empty() && !ring.is_ready());
        from.send_to(&[octet], to.local_addr().unwrap()).unwrap();
        poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
        assert_eq!(events.iter().map(|event| event.token()).collect::<Vec<_>>(), [Token(77)]);
        assert_eq!(turn(&mut ring), [Told::Datagram(1, vec![octet])]);
    }
}

#[test]
fn control_messages_and_names_that_are_broken_have_no_stamp_and_no_source() {
    let message = |length: usize, level: i32, kind: i32, value: &[u8]| {
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend([level.to_ne_bytes(), kind.to_ne_bytes()].concat());
        bytes.extend(value);
        bytes
    };
    let time = [7_i64.to_ne_bytes(), 8_i64.to_ne_bytes()].concat();
    let good = message(32, libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, &time);
    let at = UNIX_EPOCH + Duration::new(7, 8);
    assert_eq!(stamp(&good), Some(at));
    let other = message(17, libc::SOL_IP, libc::IP_TTL, &[64, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(stamp(&[&other[..], &good].concat()), Some(at), "another message comes before");
    assert_eq!(stamp(&other), None);
    for length in [0, 1, 15, 16, 31, 33, usize::MAX - 8, usize::MAX] {
        let bad = message(length, libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, &time);
        assert_eq!(stamp(&bad), None, "{length}");
    }
    assert!((0..good.len()).all(|length| stamp(&good[..length]).is_none()));
    let past = message(32, libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, &[0xff; 16]);
    assert_eq!(stamp(&past), None);

    let mut name = (libc::AF_INET as u16).to_ne_bytes().to_vec();
    name.extend([0x13, 0xc4, 192, 0, 2, 1]);
    assert_eq!(source(&name), Some("192.0.2.1:5060".parse().unwrap()));
    assert!((0..name.len()).all(|length| source(&name[..length]).is_none()));
    assert_eq!(source(&[0xff; 32]), None);
}
