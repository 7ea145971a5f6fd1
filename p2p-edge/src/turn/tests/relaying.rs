//! What a client gets: its address, an allocation, permissions, channels, data both ways.

use super::*;

#[test]
fn a_client_learns_from_where_it_is_seen() {
    let mut world = World::new();
    let mut client = world.client(1);
    for address in ["192.0.2.1:1000", "[2001:db8::1]:2000"] {
        let who = Client { address: at(address), path: Path::Datagram(0) };
        let request = client.binding();
        let answer = world.ask(who, &mut client, &request);
        assert_eq!(
            (answer.class, answer.method, answer.mapped),
            (Class::Success, Method::Binding, Some(at(address)))
        );
    }
    assert_eq!(world.server.counts().bindings, 2);
}

/// RFC 8656 7: allocate, permit, send and hear, give back.
#[test]
fn a_client_gets_an_address_and_data_goes_both_ways() {
    let mut world = World::new();
    let (who, mut client) = (datagram(1), world.client(1));
    let answer = world.allocate(who, &mut client);
    assert_eq!((answer.class, answer.is_authentic), (Class::Success, true));
    assert_eq!(answer.relayed, Some(at("203.0.113.99:50000")));
    assert_eq!((answer.mapped, answer.lifetime), (Some(who.address), Some(600)));

    assert_eq!(world.peer_sends(PEER, b"early"), None, "nobody has let it");
    let permit = client.permit(&[at(PEER)]);
    assert_eq!(world.ask(who, &mut client, &permit).class, Class::Success);
    let send = client.send(at(PEER), b"hello");
    assert_eq!(world.client_sends(who, &mut client, &send), Heard::Relayed(at(PEER), b"hello".to_vec()));
    let (to, bytes) = world.peer_sends("198.51.100.7:9", b"abcde").unwrap();
    let heard = client.hear(&bytes).unwrap();
    assert_eq!((to, heard.class, heard.method), (who, Class::Indication, Method::Data));
    assert_eq!(
        heard.data,
        Some((at("198.51.100.7:9"), b"abcde".to_vec())),
        "another port of the same address"
    );

    let bind = client.bind(0x4001, at(PEER));
    assert_eq!(world.ask(who, &mut client, &bind).class, Class::Success);
    let packet = TurnClient::channel(0x4001, b"voice");
    assert_eq!(world.client_sends(who, &mut client, &packet), Heard::Relayed(at(PEER), b"voice".to_vec()));
    assert_eq!(world.peer_sends(PEER, b"voice"), Some((who, b"\x40\x01\0\x05voice".to_vec())));

    let refresh = client.refresh(0);
    assert_eq!(world.ask(who, &mut client, &refresh).lifetime, Some(0));
    assert_eq!(world.server.poll_closed(), Some(world.opened[0]));
    assert_eq!(world.peer_sends(PEER, b"late"), None);
    assert_eq!(world.client_sends(who, &mut client, &packet), Heard::Nothing);
    let counts = world.server.counts();
    assert_eq!((counts.allocations, counts.allocated, counts.packets, counts.bytes), (0, 1, 4, 20));
}

#[test]
fn channel_data_is_padded_on_streams() {
    let mut world = World::new();
    let who = Client { address: at("192.0.2.1:1000"), path: Path::Stream(9) };
    let mut client = world.client(1);
    world.allocate(who, &mut client);
    let bind = client.bind(0x4FFF, at(PEER));
    world.ask(who, &mut client, &bind);
    assert_eq!(world.peer_sends(PEER, b"voice"), Some((who, b"\x4f\xff\0\x05voice\0\0\0".to_vec())));
    world.server.handle_gone(&who);
    assert_eq!(world.server.poll_closed(), Some(world.opened[0]), "it ends with its connection");
}

#[test]
fn an_address_of_ipv6_is_given_to_whoever_asks_for_one() {
    let mut world = World::new();
    let (who, mut client) = (datagram(1), world.client(1));
    let first = client.allocate();
    world.ask(who, &mut client, &first);
    let request = client.request(
        Method::Allocate,
        &[
            (attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]),
            (attribute::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]),
        ],
    );
    assert_eq!(world.ask(who, &mut client, &request).relayed, Some(at("[2001:db8::99]:50000")));
    let permit = client.permit(&[at(PEER)]);
    assert_eq!(world.ask(who, &mut client, &permit).code, Some(443), "a peer of the other family");
    let peer = "[2a00::1]:5";
    let permit = client.permit(&[at(peer)]);
    assert_eq!(world.ask(who, &mut client, &permit).code, None);
    let (_, bytes) = world.peer_sends(peer, b"x").unwrap();
    assert_eq!(client.hear(&bytes).unwrap().data, Some((at(peer), b"x".to_vec())));
}

/// RFC 8656 7.2: the answer may have been lost.
#[test]
fn the_same_request_again_gets_the_same_answer_and_another_none() {
    let mut world = World::new();
    let (who, mut client) = (datagram(1), world.client(1));
    let first = client.allocate();
    world.ask(who, &mut client, &first);
    let request = client.allocate();
    let answer = world.ask(who, &mut client, &request);
    assert_eq!(world.ask(who, &mut client, &request), answer);
    assert_eq!(world.opened.len(), 1);
    let another = client.allocate();
    assert_eq!(world.ask(who, &mut client, &another).code, Some(437));
}

#[test]
fn what_is_not_refreshed_ends() {
    let mut world = World::new();
    let (who, mut client) = world.connected(1);
    world.pass(Duration::from_secs(299));
    assert!(world.peer_sends(PEER, b"x").is_some());
    world.pass(Duration::from_secs(2));
    assert!(world.peer_sends(PEER, b"x").is_none(), "a permission lasts five minutes, its channel ten");
    let permit = client.permit(&[at(PEER)]);
    world.ask(who, &mut client, &permit);
    let refresh = client.refresh(900);
    assert_eq!(world.ask(who, &mut client, &refresh).lifetime, Some(900));
    world.pass(Duration::from_secs(298));
    assert_eq!(world.peer_sends(PEER, b"x").unwrap().1[0], 0x40, "the channel is there");
    world.pass(Duration::from_secs(10));
    let permit = client.permit(&[at(PEER)]);
    world.ask(who, &mut client, &permit);
    assert_eq!(world.peer_sends(PEER, b"x").unwrap().1[0], 0, "the channel has ended: an indication");
    world.pass(Duration::from_secs(600));
    assert_eq!(world.server.poll_closed(), Some(world.opened[0]));
    assert_eq!(world.server.counts().allocations, 0);
    assert!(world.server.poll_timeout().is_none() || world.server.poll_timeout() > Some(world.now));
}

#[test]
fn requests_that_cannot_be_granted_are_told_why() {
    use attribute::*;
    let mut world = World::new();
    let (who, mut client) = (datagram(1), world.client(1));
    let first = client.allocate();
    world.ask(who, &mut client, &first);
    type Attribute<'a> = (u16, &'a [u8]);
    let udp: Attribute<'_> = (REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
    let cases: &[(&[Attribute<'_>], u16)] = &[
        (&[], 400),
        (&[(REQUESTED_TRANSPORT, &[6, 0, 0, 0])], 442),
        (&[udp, (REQUESTED_ADDRESS_FAMILY, &[9, 0, 0, 0])], 440),
        (&[udp, (REQUESTED_ADDRESS_FAMILY, &[1, 0, 0, 0]), (ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0])], 400),
        (&[udp, (EVEN_PORT, &[0x80])], 508),
        (&[udp, (RESERVATION_TOKEN, &[0; 8])], 508),
        (&[udp, (EVEN_PORT, &[0]), (RESERVATION_TOKEN, &[0; 8])], 400),
        (&[udp, (LIFETIME, &[1])], 400),
        (&[udp, (0x001A, &[])], 420),
    ];
    for (attributes, code) in cases {
        let request = client.request(Method::Allocate, attributes);
        let answer = world.ask(who, &mut client, &request);
        assert_eq!((answer.code, answer.is_authentic), (Some(*code), true), "{attributes:x?}");
    }
    let dont_fragment = client.request(Method::Allocate, &[udp, (0x001A, &[])]);
    assert_eq!(world.ask(who, &mut client, &dont_fragment).unknown, [0x001A]);
    for request in [client.refresh(600), client.permit(&[at(PEER)]), client.bind(0x4000, at(PEER))] {
        assert_eq!(world.ask(who, &mut client, &request).code, Some(437), "there is no allocation");
    }
    world.is_exhausted = true;
    let request = client.allocate();
    assert_eq!(world.ask(who, &mut client, &request).code, Some(508), "no socket");
    assert_eq!(world.server.counts().allocations, 0);

    world.is_exhausted = false;
    world.next_port = 50_001;
    let even = client.request(Method::Allocate, &[udp, (EVEN_PORT, &[0])]);
    assert_eq!(world.ask(who, &mut client, &even).relayed, Some(at("203.0.113.99:50002")));
    let bind = |client: &mut TurnClient, number, peer| client.bind(number, at(peer));
    let cases = [
        (bind(&mut client, 0x4000, PEER), None),
        (bind(&mut client, 0x4000, PEER), None),
        (bind(&mut client, 0x4000, "198.51.100.7:4001"), Some(400)),
        (bind(&mut client, 0x4001, PEER), Some(400)),
        (bind(&mut client, 0x3FFF, "198.51.100.7:4001"), Some(400)),
        (bind(&mut client, 0x8000, "198.51.100.7:4001"), Some(400)),
        (bind(&mut client, 0x4001, "[2a00::1]:5"), Some(443)),
        (client.request(Method::ChannelBind, &[]), Some(400)),
        (client.permit(&[]), Some(400)),
        (client.request(Method::CreatePermission, &[(XOR_PEER_ADDRESS, &[0, 1, 2])]), Some(400)),
        (client.request(Method::Refresh, &[(REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0])]), Some(443)),
    ];
    for (at, (request, code)) in cases.iter().enumerate() {
        assert_eq!(world.ask(who, &mut client, request).code, *code, "case {at}");
    }
}

/// RFC 8656 7.2: a second relayed address is told not to be there, the first one is.
#[test]
fn an_additional_family_is_declined_beside_the_address() {
    use attribute::*;
    let mut world = World::new();
    let (who, mut client) = (datagram(1), world.client(1));
    let first = client.allocate();
    world.ask(who, &mut client, &first);
    let request = client.request(
        Method::Allocate,
        &[(REQUESTED_TRANSPORT, &[17, 0, 0, 0]), (ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0])],
    );
    let mut out = Vec::new();
    let (now, unix) = (world.now, world.unix());
    let reaction = world.server.handle_client(now, unix, who, &request, &mut out);
    assert_eq!(reaction, Reaction::Open { v6: false, even: false });
    world.server.opened(now, Some(at("203.0.113.99:50000")), &mut out);
    let answer = Message::parse(&out).unwrap();
    assert_eq!(answer.attribute(ADDRESS_ERROR_CODE), Some(&[2, 0, 4, 40][..]));
    assert_eq!(answer.class, Class::Success);
}
