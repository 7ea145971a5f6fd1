//! Messages of STUN (RFC 8489) as a client of STUN and TURN servers writes and reads them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use aws_lc_rs::hmac;
use md5::{Digest as _, Md5};

const COOKIE: u32 = 0x2112_a442;
pub(super) const HEADER: usize = 20;
/// Longest message that is read, in octets.
const MAX_MESSAGE: usize = 2_048;
/// A message's integrity, in octets (RFC 8489 14.5).
const INTEGRITY: usize = 20;

pub(super) type TransactionId = [u8; 12];

/// Methods (RFC 8489 18.2, RFC 8656 17).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Binding,
    Allocate,
    Refresh,
    Send,
    Data,
    CreatePermission,
    ChannelBind,
}

impl Method {
    fn code(self) -> u16 {
        match self {
            Method::Binding => 0x001,
            Method::Allocate => 0x003,
            Method::Refresh => 0x004,
            Method::Send => 0x006,
            Method::Data => 0x007,
            Method::CreatePermission => 0x008,
            Method::ChannelBind => 0x009,
        }
    }
}

/// Classes, as their bits of the message type (RFC 8489 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Request = 0x000,
    Indication = 0x010,
    Success = 0x100,
    Error = 0x110,
}

/// Attributes (RFC 8489 18.3, RFC 8656 18).
pub(super) mod attribute {
    pub(crate) const USERNAME: u16 = 0x0006;
    pub(crate) const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub(crate) const ERROR_CODE: u16 = 0x0009;
    pub(crate) const CHANNEL_NUMBER: u16 = 0x000c;
    pub(crate) const LIFETIME: u16 = 0x000d;
    pub(crate) const XOR_PEER_ADDRESS: u16 = 0x0012;
    pub(crate) const DATA: u16 = 0x0013;
    pub(crate) const REALM: u16 = 0x0014;
    pub(crate) const NONCE: u16 = 0x0015;
    pub(crate) const XOR_RELAYED_ADDRESS: u16 = 0x0016;
    pub(crate) const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
    pub(crate) const REQUESTED_TRANSPORT: u16 = 0x0019;
    pub(crate) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
}

/// Returns the key of long-term credentials (RFC 8489 9.2.2).
pub(super) fn long_term_key(username: &str, realm: &str, password: &str) -> [u8; 16] {
    Md5::digest(format!("{username}:{realm}:{password}")).into()
}

fn integrity(key: &[u8], parts: &[&[u8]]) -> [u8; INTEGRITY] {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
    let mut context = hmac::Context::with_key(&key);
    parts.iter().for_each(|part| context.update(part));
    let tag = context.sign();
    let mut out = [0; INTEGRITY];
    out.copy_from_slice(tag.as_ref());
    out
}

/// Writes one message.
pub(super) struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Begins a message in the place of what `out` holds.
    pub(super) fn new(
        out: &'a mut Vec<u8>,
        method: Method,
        class: Class,
        transaction: &TransactionId,
    ) -> Self {
        out.clear();
        out.extend((method.code() | class as u16).to_be_bytes());
        out.extend([0, 0]);
        out.extend(COOKIE.to_be_bytes());
        out.extend(transaction);
        Self { out }
    }

    /// Adds an attribute.
    pub(super) fn add(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let Ok(length) = u16::try_from(value.len()) else { return self };
        self.out.extend(kind.to_be_bytes());
        self.out.extend(length.to_be_bytes());
        self.out.extend(value);
        self.out.resize(self.out.len().next_multiple_of(4), 0);
        self.set_length(0);
        self
    }

    /// Adds an address in the form of RFC 8489 14.2.
    pub(super) fn add_address(&mut self, kind: u16, address: SocketAddr) -> &mut Self {
        let mut value = [0; 20];
        let cookie = COOKIE.to_be_bytes();
        value[2..4].copy_from_slice(&(address.port() ^ (COOKIE >> 16) as u16).to_be_bytes());
        let length = match address.ip() {
            IpAddr::V4(ip) => {
                value[1] = 1;
                value[4..8].copy_from_slice(&ip.octets());
                value[4..8].iter_mut().zip(cookie).for_each(|(byte, mask)| *byte ^= mask);
                8
            }
            IpAddr::V6(ip) => {
                value[1] = 2;
                value[4..20].copy_from_slice(&ip.octets());
                // The cookie and the transaction follow each other in the header.
                value[4..20].iter_mut().zip(&self.out[4..HEADER]).for_each(|(byte, mask)| *byte ^= mask);
                20
            }
        };
        self.add(kind, &value[..length])
    }

    /// Adds MESSAGE-INTEGRITY under a key. Nothing may follow.
    pub(super) fn sign(&mut self, key: &[u8]) {
        // RFC 8489 14.5: the length in the header counts the attribute that is being computed.
        self.set_length(4 + INTEGRITY);
        let tag = integrity(key, &[self.out]);
        self.add(attribute::MESSAGE_INTEGRITY, &tag);
    }

    fn set_length(&mut self, more: usize) {
        let length = (self.out.len() - HEADER + more) as u16;
        self.out[2..4].copy_from_slice(&length.to_be_bytes());
    }
}

/// A message that was read. Attributes are found on demand; those unknown are passed over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) method: Method,
    pub(super) class: Class,
    pub(super) transaction: TransactionId,
    bytes: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads a message that fills `bytes`; `None` for anything else.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.get(..HEADER)?;
        let kind = u16::from_be_bytes([header[0], header[1]]);
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header[4..8] != COOKIE.to_be_bytes()
            || length % 4 != 0
            || HEADER + length != bytes.len()
            || bytes.len() > MAX_MESSAGE
        {
            return None;
        }
        let class = match kind & 0x110 {
            0x000 => Class::Request,
            0x010 => Class::Indication,
            0x100 => Class::Success,
            _ => Class::Error,
        };
        let method = match kind & !0x110 {
            0x001 => Method::Binding,
            0x003 => Method::Allocate,
            0x004 => Method::Refresh,
            0x006 => Method::Send,
            0x007 => Method::Data,
            0x008 => Method::CreatePermission,
            0x009 => Method::ChannelBind,
            _ => return None,
        };
        let transaction = header[8..].try_into().ok()?;
        Some(Self { method, class, transaction, bytes })
    }

    /// Returns the value of the first attribute of a kind, and where its header begins.
    fn find(&self, kind: u16) -> Option<(usize, &'a [u8])> {
        let mut at = HEADER;
        while let Some(&[k0, k1, l0, l1]) = self.bytes.get(at..at + 4) {
            let length = usize::from(u16::from_be_bytes([l0, l1]));
            let value = self.bytes.get(at + 4..at + 4 + length)?;
            if u16::from_be_bytes([k0, k1]) == kind {
                return Some((at, value));
            }
            at += 4 + length.next_multiple_of(4);
        }
        None
    }

    pub(super) fn attribute(&self, kind: u16) -> Option<&'a [u8]> {
        self.find(kind).map(|(_, value)| value)
    }

    /// Returns where the value of an attribute lies in the message.
    pub(super) fn range(&self, kind: u16) -> Option<Range<usize>> {
        self.find(kind).map(|(at, value)| at + 4..at + 4 + value.len())
    }

    pub(super) fn text(&self, kind: u16) -> Option<&'a str> {
        std::str::from_utf8(self.attribute(kind)?).ok()
    }

    pub(super) fn number(&self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.attribute(kind)?.try_into().ok()?))
    }

    /// Returns an address in the form of RFC 8489 14.2.
    pub(super) fn address(&self, kind: u16) -> Option<SocketAddr> {
        let value = self.attribute(kind)?;
        let port = u16::from_be_bytes([*value.get(2)?, *value.get(3)?]) ^ (COOKIE >> 16) as u16;
        let masked = value.get(4..)?.iter().zip(&self.bytes[4..HEADER]).map(|(byte, mask)| byte ^ mask);
        let plain: Vec<u8> = masked.collect();
        let ip = match value.get(1)? {
            1 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(plain).ok()?)),
            2 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(plain).ok()?)),
            _ => return None,
        };
        Some(SocketAddr::new(ip, port))
    }

    /// Returns the code of an error, 300 to 699.
    pub(super) fn error_code(&self) -> Option<u16> {
        let value = self.attribute(attribute::ERROR_CODE)?;
        Some(u16::from(*value.get(2)? & 7) * 100 + u16::from(*value.get(3)?))
    }

    /// Says whether the message carries an integrity under this key.
    pub(super) fn is_signed_by(&self, key: &[u8]) -> bool {
        let Some((at, value)) = self.find(attribute::MESSAGE_INTEGRITY) else { return false };
        // As it was when the attribute was computed: its end was the end of the message.
        let length = ((at - HEADER + 4 + INTEGRITY) as u16).to_be_bytes();
        let tag = integrity(key, &[&self.bytes[..2], &length, &self.bytes[4..at]]);
        aws_lc_rs::constant_time::verify_slices_are_equal(&tag, value).is_ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_of_both_families_are_read_as_written() {
        for text in ["192.0.2.1:32853", "[2001:db8:1234:5678:11:2233:4455:6677]:32853"] {
            let mut bytes = Vec::new();
            let mut writer = Writer::new(&mut bytes, Method::Binding, Class::Success, &[7; 12]);
            writer.add_address(attribute::XOR_MAPPED_ADDRESS, text.parse().unwrap());
            let message = Message::read(&bytes).unwrap();
            assert_eq!(message.address(attribute::XOR_MAPPED_ADDRESS), Some(text.parse().unwrap()));
            assert_eq!(message.address(attribute::XOR_PEER_ADDRESS), None);
        }
    }

    /// RFC 5769 2.2: a response with an address and an integrity.
    #[test]
    fn the_sample_response_of_rfc_5769_is_understood() {
        let bytes = [
            0x01, 0x01, 0x00, 0x3c, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86,
            0xfa, 0x87, 0xdf, 0xae, 0x80, 0x22, 0x00, 0x0b, 0x74, 0x65, 0x73, 0x74, 0x20, 0x76, 0x65, 0x63,
            0x74, 0x6f, 0x72, 0x20, 0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43,
            0x00, 0x08, 0x00, 0x14, 0x2b, 0x91, 0xf5, 0x99, 0xfd, 0x9e, 0x90, 0xc3, 0x8c, 0x74, 0x89, 0xf9,
            0x2a, 0xf9, 0xba, 0x53, 0xf0, 0x6b, 0xe7, 0xd7, 0x80, 0x28, 0x00, 0x04, 0xc0, 0x7d, 0x4c, 0x96,
        ];
        let message = Message::read(&bytes).unwrap();
        assert_eq!((message.method, message.class), (Method::Binding, Class::Success));
        let mapped = message.address(attribute::XOR_MAPPED_ADDRESS).unwrap();
        assert_eq!(mapped, "192.0.2.1:32853".parse().unwrap());
        assert!(message.is_signed_by(b"VOkJxbRl1RmTxUk/WvJxBt"));
        assert!(!message.is_signed_by(b"VOkJxbRl1RmTxUk/WvJxBu"));
    }

    #[test]
    fn what_is_signed_here_is_accepted_and_what_was_changed_is_not() {
        let key = long_term_key("user", "realm", "password");
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, Method::Refresh, Class::Request, &[1; 12]);
        writer.add(attribute::USERNAME, b"user").add(attribute::REALM, b"realm").sign(&key);
        assert!(Message::read(&bytes).unwrap().is_signed_by(&key));
        bytes[HEADER + 4] ^= 1;
        assert!(!Message::read(&bytes).unwrap().is_signed_by(&key));
    }

    #[test]
    fn no_cut_or_flipped_message_panics() {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, Method::Allocate, Class::Error, &[1; 12]);
        writer.add(attribute::ERROR_CODE, &[0, 0, 4, 1]).add(attribute::REALM, b"realm");
        writer.add_address(attribute::XOR_RELAYED_ADDRESS, "[2001:db8::1]:1".parse().unwrap()).sign(b"key");
        for length in 0..=bytes.len() {
            for at in 0..length {
                let mut broken = bytes[..length].to_vec();
                broken[at] ^= 0xff;
                let Some(message) = Message::read(&broken) else { continue };
                for kind in 0..0x30 {
                    let _ = (message.address(kind), message.number(kind), message.text(kind));
                }
                let _ = (message.error_code(), message.is_signed_by(b"key"));
            }
        }
    }
}
