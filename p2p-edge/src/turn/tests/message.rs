//! Messages on the wire.

use proptest::prelude::*;

use super::*;
use crate::turn::message::{Writer, attribute, write_data_indication};

/// RFC 5769 2.1: the sample request, with its password as key.
#[test]
fn the_sample_request_of_rfc_5769_is_read() {
    let bytes: &[u8] = b"\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
        \x80\x22\x00\x10STUN test client\x00\x24\x00\x04\x6e\x00\x01\xff\x80\x29\x00\x08\x93\x2f\xf9\xb1\
        \x51\x26\x3b\x36\x00\x06\x00\x09\x65\x76\x74\x6a\x3a\x68\x36\x76\x59\x20\x20\x20\x00\x08\x00\x14\
        \x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\xc1\xb5\x71\xa2\x80\x28\x00\x04\
        \xe5\x7a\x3b\xcf";
    let message = Message::parse(bytes).unwrap();
    assert_eq!((message.class, message.method), (Class::Request, Method::Binding));
    assert_eq!(message.attribute(attribute::USERNAME), Some(&b"evtj:h6vY"[..]));
    let key = |text: &[u8]| aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, text);
    assert!(message.is_authentic(&key(b"VOkJxbRl1RmTxUk/WvJxBt")));
    assert!(!message.is_authentic(&key(b"VOkJxbRl1RmTxUk/WvJxBT")));
    assert_eq!(message.unknown(), ([0x24, 0, 0, 0, 0, 0, 0, 0], 1), "PRIORITY is for ICE");
    let mut wrong = bytes.to_vec();
    wrong[107] ^= 1;
    assert_eq!(Message::parse(&wrong).err(), Some(MessageError::Fingerprint));
    wrong[107] ^= 1;
    wrong[40] ^= 1;
    assert_eq!(Message::parse(&wrong).err(), Some(MessageError::Fingerprint));
}

/// RFC 5769 2.2: the sample response, as a client reads it.
#[test]
fn the_sample_response_of_rfc_5769_is_read() {
    let bytes: &[u8] = b"\x01\x01\x00\x3c\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
        \x80\x22\x00\x0btest vector\x20\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43\x00\x08\x00\x14\
        \x2b\x91\xf5\x99\xfd\x9e\x90\xc3\x8c\x74\x89\xf9\x2a\xf9\xba\x53\xf0\x6b\xe7\xd7\x80\x28\x00\x04\
        \xc0\x7d\x4c\x96";
    let message = Message::parse(bytes).unwrap();
    assert_eq!((message.class, message.method), (Class::Success, Method::Binding));
    assert_eq!(message.address(attribute::XOR_MAPPED_ADDRESS), Some(at("192.0.2.1:32853")));
    assert_eq!(message.address(attribute::XOR_PEER_ADDRESS), None);
    let key =
        aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"VOkJxbRl1RmTxUk/WvJxBt");
    assert!(message.is_authentic(&key));
}

/// RFC 5769 2.2 and 2.3: XOR-MAPPED-ADDRESS of both families.
#[test]
fn addresses_are_written_as_in_rfc_5769() {
    let transaction = *b"\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae";
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out, Class::Success, Method::Binding, transaction);
    let v6 = "[2001:db8:1234:5678:11:2233:4455:6677]:32853";
    writer.put_address(attribute::XOR_MAPPED_ADDRESS, at("192.0.2.1:32853"));
    writer.put_address(attribute::XOR_MAPPED_ADDRESS, at(v6));
    assert_eq!(&out[..4], b"\x01\x01\x00\x24");
    assert_eq!(&out[24..32], b"\x00\x01\xa1\x47\xe1\x12\xa6\x43");
    assert_eq!(
        &out[36..],
        b"\x00\x02\xa1\x47\x01\x13\xa9\xfa\xa5\xd3\xf1\x79\xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9"
    );
    let read: Vec<_> = Message::parse(&out).unwrap().addresses(attribute::XOR_MAPPED_ADDRESS).collect();
    assert_eq!(read, [Some(at("192.0.2.1:32853")), Some(at(v6))]);
}

#[test]
fn what_comes_after_the_integrity_does_not_count() {
    let mut world = World::new();
    let (who, mut client) = (datagram(1), world.client(1));
    let first = client.allocate();
    world.ask(who, &mut client, &first);
    let mut request = client.request(Method::Allocate, &[]);
    request.extend([0x00, 0x19, 0, 4, 17, 0, 0, 0]);
    let length = u16::try_from(request.len() - HEADER).unwrap().to_be_bytes();
    request[2..4].copy_from_slice(&length);
    assert_eq!(world.ask(who, &mut client, &request).code, Some(400), "no transport is asked for");
}

#[test]
fn an_indication_needs_room_in_front() {
    let mut buffer = [0; HEADROOM + 10 + TAILROOM];
    let (v4, v6) = (at("192.0.2.1:1"), at("[2001:db8::1]:1"));
    let range = write_data_indication(&mut buffer, HEADROOM, HEADROOM + 10, v6, [1; 12]).unwrap();
    assert_eq!(range, 0..HEADROOM + 12, "the longest one fits exactly");
    assert!(write_data_indication(&mut buffer, HEADROOM - 1, HEADROOM + 9, v6, [1; 12]).is_none());
    assert!(write_data_indication(&mut buffer, HEADROOM - 12, HEADROOM, v4, [1; 12]).is_some());
    assert!(
        write_data_indication(&mut buffer[..HEADROOM + 10], HEADROOM, HEADROOM + 10, v4, [1; 12]).is_none()
    );
}

proptest! {
    /// Whatever comes, from a client or a peer: nothing panics, and what is relayed lies within the
    /// packet.
    #[test]
    fn anything_may_come(bytes in proptest::collection::vec(any::<u8>(), 0..200), stun in any::<bool>()) {
        let mut bytes = bytes;
        if stun && bytes.len() >= HEADER {
            let length = (bytes.len() - HEADER) & !3;
            bytes.truncate(HEADER + length);
            bytes[0] &= 0x01;
            bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            bytes[4..8].copy_from_slice(&[0x21, 0x12, 0xA4, 0x42]);
        }
        if let Ok(message) = Message::parse(&bytes) {
            for kind in 0..0x30 {
                let _ = (message.address(kind), message.number(kind), message.text(kind));
            }
            prop_assert!(message.error_code().is_none_or(|code| code < 1_000));
        }
        let mut world = World::new();
        let (who, mut client) = world.connected(1);
        world.client_sends(who, &mut client, &bytes);
        let _ = first_frame(&bytes);
        let framed = world.peer_sends(PEER, &bytes);
        prop_assert_eq!(&framed.unwrap().1[4..], &bytes[..]);
    }

    /// A message changed in one place is never taken for authentic.
    #[test]
    fn a_changed_request_is_not_authentic(at in 0usize..10_000, by in 1u8..) {
        let mut world = World::new();
        let (who, mut client) = (datagram(1), world.client(1));
        let first = client.allocate();
        world.ask(who, &mut client, &first);
        let mut request = client.allocate();
        let at = at % request.len();
        request[at] ^= by;
        let (mut out, unix) = (Vec::new(), world.unix());
        let reaction = world.server.handle_client(world.now, unix, who, &request, &mut out);
        prop_assert!(!matches!(reaction, Reaction::Open { .. }), "byte {}", at);
    }
}
