//! Reads packets of HEP as a collector does: written from the specification, not from the encoder.
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a collector knows of a packet.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) kind: u8,
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) unix_us: u64,
    pub(crate) capture_id: u32,
    pub(crate) key: Option<String>,
    pub(crate) correlation: Option<String>,
    payload: Vec<u8>,
}

impl Decoded {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).unwrap()
    }
}

/// Takes a packet apart; `None` if it is none, or says lengths that are not so.
pub(crate) fn decode(packet: &[u8]) -> Option<Decoded> {
    let number = |value: &[u8]| value.iter().fold(0u64, |sum, octet| sum << 8 | u64::from(*octet));
    let mut rest = packet.strip_prefix(b"HEP3")?;
    if number(rest.get(..2)?) != packet.len() as u64 {
        return None;
    }
    rest = &rest[2..];
    let mut chunks = std::collections::BTreeMap::new();
    while !rest.is_empty() {
        let (vendor, kind) = (number(rest.get(..2)?), number(rest.get(2..4)?));
        let length = number(rest.get(4..6)?) as usize;
        assert_eq!(vendor, 0);
        assert!(chunks.insert(kind, rest.get(6..length)?).is_none(), "chunk {kind} comes twice");
        rest = &rest[length..];
    }
    let family = chunks[&1];
    let ip = |four: u64, six: u64| -> IpAddr {
        match family {
            [2] => Ipv4Addr::from(<[u8; 4]>::try_from(chunks[&four]).unwrap()).into(),
            [10] => Ipv6Addr::from(<[u8; 16]>::try_from(chunks[&six]).unwrap()).into(),
            other => panic!("family {other:?}"),
        }
    };
    let at = |ip: IpAddr, port: u64| SocketAddr::new(ip, number(chunks[&port]) as u16);
    let text = |kind: u64| chunks.get(&kind).map(|value| String::from_utf8(value.to_vec()).unwrap());
    assert!([6, 17].contains(&number(chunks[&2])));
    Some(Decoded {
        kind: number(chunks[&11]) as u8,
        source: at(ip(3, 5), 7),
        destination: at(ip(4, 6), 8),
        unix_us: number(chunks[&9]) * 1_000_000 + number(chunks[&10]),
        capture_id: number(chunks[&12]) as u32,
        key: text(14),
        correlation: text(17),
        payload: chunks[&15].to_vec(),
    })
}
