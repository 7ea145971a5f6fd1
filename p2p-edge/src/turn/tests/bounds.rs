//! What is bounded, counted and left unanswered.

use super::*;

#[test]
fn messages_that_ask_nothing_are_not_answered() {
    let mut world = World::new();
    let (who, mut client) = (datagram(1), world.client(1));
    let binding = client.binding();
    let with = |kind: u16| {
        let mut bytes = binding.clone();
        bytes[..2].copy_from_slice(&kind.to_be_bytes());
        bytes
    };
    // Binding indication, success and error of Binding, Data indication, Send request, unknown method.
    for kind in [0x0011, 0x0101, 0x0111, 0x0017, 0x0006, 0x0000, 0x0055, 0x3eef] {
        assert_eq!(world.client_sends(who, &mut client, &with(kind)), Heard::Nothing, "{kind:#x}");
    }
    assert_eq!(world.refused(TurnRefusal::Unsolicited), 4, "a keep-alive is none");
    let long = [&binding[..], &[0; 4]].concat();
    for bytes in [&b""[..], b"\0", b"GET / HTTP/1.1", &binding[..19], &long, &[0x40, 0, 0, 9], &[0x80; 40]] {
        assert_eq!(world.client_sends(who, &mut client, bytes), Heard::Nothing, "{bytes:?}");
    }
    assert_eq!(world.server.poll_timeout(), None, "nothing was kept of it");
}

#[test]
fn an_address_gets_so_many_allocations_whoever_they_are_for() {
    let limits = TurnLimits { allocations_per_address: 2, allocations: 4, ..TurnLimits::default() };
    let mut world = World::with(limits, PeerPolicy::default());
    let from = |ip: &str, port| Client {
        address: SocketAddr::new(ip.parse().unwrap(), port),
        path: Path::Datagram(0),
    };
    let mut codes = Vec::new();
    for (number, who) in (1..).zip([
        from("2001:db8::1", 1),
        from("2001:db8::2", 2),
        from("2001:db8::3", 3),
        from("192.0.2.1", 4),
        from("192.0.2.2", 5),
        from("192.0.2.3", 6),
    ]) {
        let mut client = world.client(number);
        codes.push(world.allocate(who, &mut client).code);
    }
    assert_eq!(codes, [None, None, Some(486), None, None, Some(508)], "one /64 is one subscriber");
    assert_eq!((world.refused(TurnRefusal::AddressQuota), world.refused(TurnRefusal::Full)), (1, 1));
    world.pass(Duration::from_secs(601));
    let mut client = world.client(9);
    assert_eq!(world.allocate(from("2001:db8::3", 3), &mut client).code, None, "room again");
    assert_eq!(world.opened[4].index, world.opened[3].index, "the place is used again");
    assert_ne!(world.opened[4], world.opened[3]);
}

#[test]
fn permissions_and_channels_of_an_allocation_are_bounded() {
    let limits = TurnLimits { permissions: 3, channels: 2, ..TurnLimits::default() };
    let mut world = World::with(limits, PeerPolicy::default());
    let (who, mut client) = world.connected(1);
    let peers: Vec<SocketAddr> = (1..=4).map(|n| SocketAddr::from(([198, 51, 100, n], 1))).collect();
    let all = client.permit(&peers);
    assert_eq!(world.ask(who, &mut client, &all).code, Some(508));
    assert!(world.peer_sends("198.51.100.1:1", b"x").is_none(), "all or none");
    let two = client.permit(&peers[..2]);
    assert_eq!(world.ask(who, &mut client, &two).code, None);
    assert_eq!(world.ask(who, &mut client, &two).code, None, "those that are there need no room");
    let bind = client.bind(0x4001, peers[0]);
    assert_eq!(world.ask(who, &mut client, &bind).code, None);
    let bind = client.bind(0x4002, peers[1]);
    assert_eq!(world.ask(who, &mut client, &bind).code, Some(508));
    let third = client.permit(&peers[2..3]);
    assert_eq!(world.ask(who, &mut client, &third).code, Some(508));
    world.pass(Duration::from_secs(301));
    assert_eq!(world.ask(who, &mut client, &third).code, None, "the others have ended");
    let many: Vec<SocketAddr> = (1..=17).map(|n| SocketAddr::from(([198, 51, 100, n], 1))).collect();
    let many = client.permit(&many);
    assert_eq!(world.ask(who, &mut client, &many).code, Some(508));
}

#[test]
fn what_a_peer_sends_is_bounded_too() {
    let mut world = World::new();
    let (who, _) = world.connected(1);
    let burst = TurnLimits::default().bytes_per_second * 2 / 1000;
    let heard = (0..200).filter(|_| world.peer_sends(PEER, &[1; 1000]).is_some()).count() as u64;
    assert_eq!(heard, burst);
    assert_eq!(world.refused(TurnRefusal::Bandwidth), 200 - burst);
    world.pass(Duration::from_secs(1));
    let heard = (0..200).filter(|_| world.peer_sends(PEER, &[1; 1000]).is_some()).count() as u64;
    assert_eq!(heard, burst / 2);
    let packet = TurnClient::channel(0x4000, &[1; 1000]);
    let mut client = world.client(1);
    assert!(
        matches!(world.client_sends(who, &mut client, &packet), Heard::Relayed(..)),
        "the other way has its own"
    );
    world.pass(Duration::from_secs(10));
    assert!(world.peer_sends(PEER, &[1; MAX_PACKET]).is_none());
    assert_eq!(world.refused(TurnRefusal::Oversize), 1);
}

/// A call of G.711 with 20 ms to a packet, SRTP and RTCP, for an hour.
#[test]
fn a_call_loses_nothing_to_the_bandwidth_it_is_given() {
    let mut world = World::new();
    let (who, mut client) = world.connected(1);
    let packet = TurnClient::channel(0x4000, &[1; 12 + 160 + 10]);
    for n in 0..180_000 {
        world.now += Duration::from_millis(20);
        if n % 5_000 == 0 {
            let unix_left = client.refresh(600);
            let answer = world.ask(who, &mut client, &unix_left);
            if answer.code == Some(438) {
                let again = client.refresh(600);
                world.ask(who, &mut client, &again);
            }
            let permit = client.bind(0x4000, at(PEER));
            world.ask(who, &mut client, &permit);
        }
        assert!(matches!(world.client_sends(who, &mut client, &packet), Heard::Relayed(..)), "packet {n}");
    }
}

#[test]
fn answers_to_strangers_are_short() {
    let mut world = World::new();
    let (who, mut client) = (datagram(1), world.client(1));
    for (request, most) in [(client.binding(), 32), (client.allocate(), 72)] {
        let (mut out, unix) = (Vec::new(), world.unix());
        world.server.handle_client(world.now, unix, who, &request, &mut out);
        assert!(out.len() <= most, "{} bytes to {}", out.len(), request.len());
    }
}
