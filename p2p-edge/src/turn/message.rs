//! STUN messages (RFC 8489 5) as servers and clients of TURN read and write them, in place and without
//! allocation.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aws_lc_rs::{constant_time, hmac};

/// Length of the header of a message (RFC 8489 5).
pub const HEADER: usize = 20;
/// The constant in each message (RFC 8489 5).
const MAGIC_COOKIE: u32 = 0x2112_A442;
/// What the checksum of FINGERPRINT is combined with (RFC 8489 14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554e;
/// Length of MESSAGE-INTEGRITY with its header (RFC 8489 14.5).
const INTEGRITY: usize = 24;
/// Unknown attributes that an answer names at the most.
const MAX_UNKNOWN: usize = 8;

/// Names one request and its answer (RFC 8489 5).
pub type TransactionId = [u8; 12];

/// Types of attributes (RFC 8489 18.3, RFC 8656 18).
pub mod attribute {
    #![allow(missing_docs, reason = "the names are those of the RFCs")]

    pub const USERNAME: u16 = 0x0006;
    pub const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub const ERROR_CODE: u16 = 0x0009;
    pub const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
    pub const CHANNEL_NUMBER: u16 = 0x000C;
    pub const LIFETIME: u16 = 0x000D;
    pub const XOR_PEER_ADDRESS: u16 = 0x0012;
    pub const DATA: u16 = 0x0013;
    pub const REALM: u16 = 0x0014;
    pub const NONCE: u16 = 0x0015;
    pub const XOR_RELAYED_ADDRESS: u16 = 0x0016;
    pub const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
    pub const EVEN_PORT: u16 = 0x0018;
    pub const REQUESTED_TRANSPORT: u16 = 0x0019;
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    pub const RESERVATION_TOKEN: u16 = 0x0022;
    pub const ADDITIONAL_ADDRESS_FAMILY: u16 = 0x8000;
    pub const ADDRESS_ERROR_CODE: u16 = 0x8001;
    pub const FINGERPRINT: u16 = 0x8028;

    /// Says whether a message with this attribute may be read by somebody who does not know it:
    /// from 0x8000 on (RFC 8489 14).
    pub(crate) fn is_optional(kind: u16) -> bool {
        kind >= 0x8000
    }

    /// Says whether this server knows an attribute that it has to know.
    pub(crate) fn is_known(kind: u16) -> bool {
        matches!(
            kind,
            USERNAME
                | MESSAGE_INTEGRITY
                | ERROR_CODE
                | UNKNOWN_ATTRIBUTES
                | CHANNEL_NUMBER
                | LIFETIME
                | XOR_PEER_ADDRESS
                | DATA
                | REALM
                | NONCE
                | REQUESTED_ADDRESS_FAMILY
                | EVEN_PORT
                | REQUESTED_TRANSPORT
                | RESERVATION_TOKEN
        )
    }
}

/// What a message is (RFC 8489 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Wants an answer.
    Request,
    /// Wants none.
    Indication,
    /// Answers a request that was granted.
    Success,
    /// Answers a request that was not.
    Error,
}

impl Class {
    fn bits(self) -> u16 {
        match self {
            Class::Request => 0x0000,
            Class::Indication => 0x0010,
            Class::Success => 0x0100,
            Class::Error => 0x0110,
        }
    }
}

/// What a message is about (RFC 8489 18.2, RFC 8656 17).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Tells a client the address from which it is seen.
    Binding,
    /// Asks for a relayed address.
    Allocate,
    /// Keeps an allocation, or gives it up.
    Refresh,
    /// Data of a client for a peer.
    Send,
    /// Data of a peer for a client.
    Data,
    /// Lets peers send to a client.
    CreatePermission,
    /// Gives a peer a short name.
    ChannelBind,
    /// Anything else.
    Other(u16),
}

impl Method {
    fn of(number: u16) -> Self {
        match number {
            0x001 => Method::Binding,
            0x003 => Method::Allocate,
            0x004 => Method::Refresh,
            0x006 => Method::Send,
            0x007 => Method::Data,
            0x008 => Method::CreatePermission,
            0x009 => Method::ChannelBind,
            other => Method::Other(other),
        }
    }

    fn number(self) -> u16 {
        match self {
            Method::Binding => 0x001,
            Method::Allocate => 0x003,
            Method::Refresh => 0x004,
            Method::Send => 0x006,
            Method::Data => 0x007,
            Method::CreatePermission => 0x008,
            Method::ChannelBind => 0x009,
            Method::Other(number) => number,
        }
    }
}

/// Why bytes are no STUN message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Shorter than a header, or not as long as its header says.
    #[error("the length of the message is wrong")]
    Length,
    /// The constant of RFC 8489 is not there.
    #[error("the magic cookie is missing")]
    Cookie,
    /// An attribute reaches beyond the end.
    #[error("an attribute is longer than the message")]
    Attribute,
    /// The checksum at the end is wrong.
    #[error("the fingerprint is wrong")]
    Fingerprint,
}

/// A message that was received, whose attributes lie within its bounds and whose FINGERPRINT, where
/// there is one, is right.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    /// What it is.
    pub class: Class,
    /// What it is about.
    pub method: Method,
}

impl<'a> Message<'a> {
    /// Reads a message that fills `bytes`.
    ///
    /// # Errors
    /// What makes it no message.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, MessageError> {
        let (Some(kind), Some(length), Some(cookie)) = (u16_at(bytes, 0), u16_at(bytes, 2), u32_at(bytes, 4))
        else {
            return Err(MessageError::Length);
        };
        let length = usize::from(length);
        // RFC 8489 5: the first two bits are 0, and attributes are padded to four bytes.
        if bytes.len() < HEADER || bytes.len() != HEADER + length || length % 4 != 0 || kind >= 0x4000 {
            return Err(MessageError::Length);
        }
        if cookie != MAGIC_COOKIE {
            return Err(MessageError::Cookie);
        }
        let class = match (kind & 0x0100 != 0, kind & 0x0010 != 0) {
            (false, false) => Class::Request,
            (false, true) => Class::Indication,
            (true, false) => Class::Success,
            (true, true) => Class::Error,
        };
        let method = Method::of((kind & 0x000f) | (kind & 0x00e0) >> 1 | (kind & 0x3e00) >> 2);
        let message = Self { bytes, class, method };
        let mut at = HEADER;
        while at < bytes.len() {
            let Some((kind, value)) = attribute_at(bytes, at) else { return Err(MessageError::Attribute) };
            if kind == attribute::FINGERPRINT && !message.is_fingerprint(at, value) {
                return Err(MessageError::Fingerprint);
            }
            at += 4 + padded(value.len());
        }
        Ok(message)
    }

    /// Says whether a FINGERPRINT at `at` is right, and the last (RFC 8489 14.7).
    fn is_fingerprint(&self, at: usize, value: &[u8]) -> bool {
        let (Some(before), Some(found)) = (self.bytes.get(..at), u32_at(value, 0)) else { return false };
        at + 8 == self.bytes.len() && value.len() == 4 && found == crc32(before) ^ FINGERPRINT_XOR
    }

    /// Returns the id of the transaction: 12 bytes.
    pub fn transaction(&self) -> TransactionId {
        let mut id = [0; 12];
        if let Some(found) = self.bytes.get(8..HEADER) {
            id.copy_from_slice(found);
        }
        id
    }

    /// Returns the attributes up to the integrity: what comes after it is not protected and does not
    /// count (RFC 8489 14.5).
    fn attributes(&self) -> impl Iterator<Item = (usize, u16, &'a [u8])> + use<'a> {
        let (bytes, mut at, mut over) = (self.bytes, HEADER, false);
        std::iter::from_fn(move || {
            let (kind, value) = attribute_at(bytes, at).filter(|_| !over)?;
            over = kind == attribute::MESSAGE_INTEGRITY;
            let begin = at;
            at += 4 + padded(value.len());
            Some((begin, kind, value))
        })
    }

    /// Returns the first attribute of a type (RFC 8489 14: only the first one counts).
    pub fn attribute(&self, kind: u16) -> Option<&'a [u8]> {
        self.attributes().find(|(_, found, _)| *found == kind).map(|(_, _, value)| value)
    }

    /// Returns where the value of an attribute lies in the message.
    pub fn position(&self, kind: u16) -> Option<std::ops::Range<usize>> {
        let (at, _, value) = self.attributes().find(|(_, found, _)| *found == kind)?;
        Some(at + 4..at + 4 + value.len())
    }

    /// Returns every address in attributes of a type; an item is `None` where it is malformed.
    pub fn addresses(&self, kind: u16) -> impl Iterator<Item = Option<SocketAddr>> + use<'a> {
        let transaction = self.transaction();
        let of_kind = self.attributes().filter(move |(_, found, _)| *found == kind);
        of_kind.map(move |(_, _, value)| decode_address(value, &transaction))
    }

    /// Returns the first address in attributes of a type.
    pub fn address(&self, kind: u16) -> Option<SocketAddr> {
        self.addresses(kind).next().flatten()
    }

    /// Returns the first attribute of a type as text.
    pub fn text(&self, kind: u16) -> Option<&'a str> {
        std::str::from_utf8(self.attribute(kind)?).ok()
    }

    /// Returns the first attribute of a type as a number of 32 bits.
    pub fn number(&self, kind: u16) -> Option<u32> {
        self.attribute(kind).filter(|value| value.len() == 4).and_then(|value| u32_at(value, 0))
    }

    /// Returns the code of an error, 300 to 699 (RFC 8489 14.8).
    pub fn error_code(&self) -> Option<u16> {
        let value = self.attribute(attribute::ERROR_CODE)?;
        Some(u16::from(*value.get(2)? & 7) * 100 + u16::from(*value.get(3)?))
    }

    /// Returns the attributes that have to be known and are not (RFC 8489 6.3.1), the first eight.
    pub fn unknown(&self) -> ([u16; MAX_UNKNOWN], usize) {
        let (mut unknown, mut count) = ([0; MAX_UNKNOWN], 0);
        for (_, kind, _) in self.attributes() {
            if !attribute::is_optional(kind) && !attribute::is_known(kind) && count < MAX_UNKNOWN {
                unknown[count] = kind;
                count += 1;
            }
        }
        (unknown, count)
    }

    /// Says whether the message was made by somebody who knows the key (RFC 8489 14.5).
    pub fn is_authentic(&self, key: &hmac::Key) -> bool {
        let Some((at, _, value)) =
            self.attributes().find(|(_, kind, _)| *kind == attribute::MESSAGE_INTEGRITY)
        else {
            return false;
        };
        let (Some(head), Some(rest)) = (self.bytes.get(..4), self.bytes.get(4..at)) else { return false };
        // The length that counts is that of a message which ends with the integrity.
        let length = u16::try_from(at - HEADER + INTEGRITY).unwrap_or(u16::MAX).to_be_bytes();
        let mut context = hmac::Context::with_key(key);
        context.update(&[head[0], head[1], length[0], length[1]]);
        context.update(rest);
        constant_time::verify_slices_are_equal(context.sign().as_ref(), value).is_ok()
    }
}

/// Returns type and value of the attribute at an offset.
fn attribute_at(bytes: &[u8], at: usize) -> Option<(u16, &[u8])> {
    let (kind, length) = (u16_at(bytes, at)?, usize::from(u16_at(bytes, at + 2)?));
    bytes.get(at + 4..at + 4 + padded(length))?;
    Some((kind, bytes.get(at + 4..at + 4 + length)?))
}

/// Returns a length with the padding to four bytes (RFC 8489 14).
pub(crate) const fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Reads an address that was combined with cookie and transaction (RFC 8489 14.2).
fn decode_address(value: &[u8], transaction: &[u8; 12]) -> Option<SocketAddr> {
    let port = u16_at(value, 2)? ^ (MAGIC_COOKIE >> 16) as u16;
    let ip: IpAddr = match (value.get(1)?, value.len()) {
        (1, 8) => Ipv4Addr::from(u32_at(value, 4)? ^ MAGIC_COOKIE).into(),
        (2, 20) => {
            let bits = u128::from_be_bytes(value.get(4..20)?.try_into().ok()?);
            Ipv6Addr::from(bits ^ mask(transaction)).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// What an IPv6 address is combined with: the cookie and the transaction.
fn mask(transaction: &[u8; 12]) -> u128 {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    bytes[4..].copy_from_slice(transaction);
    u128::from_be_bytes(bytes)
}

/// Writes an address combined with cookie and transaction. Returns its length: 8 or 20 bytes.
fn encode_address(address: SocketAddr, transaction: &[u8; 12]) -> ([u8; 20], usize) {
    let mut value = [0; 20];
    value[2..4].copy_from_slice(&(address.port() ^ (MAGIC_COOKIE >> 16) as u16).to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => {
            value[1] = 1;
            value[4..8].copy_from_slice(&(ip.to_bits() ^ MAGIC_COOKIE).to_be_bytes());
            (value, 8)
        }
        IpAddr::V6(ip) => {
            value[1] = 2;
            value[4..20].copy_from_slice(&(ip.to_bits() ^ mask(transaction)).to_be_bytes());
            (value, 20)
        }
    }
}

/// Writes one message into a buffer, which is emptied before.
#[derive(Debug)]
pub struct Writer<'b> {
    out: &'b mut Vec<u8>,
    transaction: TransactionId,
}

impl<'b> Writer<'b> {
    /// Begins a message.
    pub fn new(out: &'b mut Vec<u8>, class: Class, method: Method, transaction: TransactionId) -> Self {
        out.clear();
        out.extend_from_slice(&kind_of(class, method).to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
        out.extend_from_slice(&transaction);
        Self { out, transaction }
    }

    /// Appends an attribute.
    pub fn put(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.out.extend_from_slice(&kind.to_be_bytes());
        self.out.extend_from_slice(&length.to_be_bytes());
        self.out.extend_from_slice(value);
        self.out.resize(padded(self.out.len()), 0);
        self.set_length(0);
        self
    }

    /// Appends an address (RFC 8489 14.2).
    pub fn put_address(&mut self, kind: u16, address: SocketAddr) -> &mut Self {
        let (value, length) = encode_address(address, &self.transaction);
        self.put(kind, value.get(..length).unwrap_or_default())
    }

    /// Appends ERROR-CODE without a phrase (RFC 8489 14.8): answers to strangers are kept short.
    pub fn put_error(&mut self, code: u16) -> &mut Self {
        self.put(attribute::ERROR_CODE, &[0, 0, (code / 100) as u8, (code % 100) as u8])
    }

    /// Appends MESSAGE-INTEGRITY (RFC 8489 14.5).
    pub fn sign(&mut self, key: &hmac::Key) {
        self.set_length(INTEGRITY);
        let tag = hmac::sign(key, self.out);
        self.put(attribute::MESSAGE_INTEGRITY, tag.as_ref());
    }

    fn set_length(&mut self, more: usize) {
        let length = u16::try_from(self.out.len() - HEADER + more).unwrap_or(u16::MAX);
        if let Some(field) = self.out.get_mut(2..4) {
            field.copy_from_slice(&length.to_be_bytes());
        }
    }
}

fn kind_of(class: Class, method: Method) -> u16 {
    let number = method.number();
    class.bits() | (number & 0x000f) | (number & 0x0070) << 1 | (number & 0x0f80) << 2
}

/// The most bytes that [`write_data_indication`] puts in front of the data.
pub(crate) const INDICATION: usize = HEADER + 24 + 4;

/// Writes what makes the bytes of `buffer` from `begin` to `end` a Data indication (RFC 8656 11.3)
/// in front of and behind them. Returns where the message begins and ends, or `None` where there is
/// too little room.
pub(crate) fn write_data_indication(
    buffer: &mut [u8],
    begin: usize,
    end: usize,
    peer: SocketAddr,
    transaction: [u8; 12],
) -> Option<std::ops::Range<usize>> {
    let (address, length) = encode_address(peer, &transaction);
    let head = HEADER + 4 + length + 4;
    let (start, data) = (begin.checked_sub(head)?, u16::try_from(end - begin).ok()?);
    let total = padded(end - begin) + head;
    let message = buffer.get_mut(start..start + total)?;
    message[0..2].copy_from_slice(&kind_of(Class::Indication, Method::Data).to_be_bytes());
    message[2..4].copy_from_slice(&u16::try_from(total - HEADER).ok()?.to_be_bytes());
    message[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    message[8..HEADER].copy_from_slice(&transaction);
    let (at, value) = (HEADER + 4, length as u16);
    message[HEADER..HEADER + 2].copy_from_slice(&attribute::XOR_PEER_ADDRESS.to_be_bytes());
    message[HEADER + 2..at].copy_from_slice(&value.to_be_bytes());
    message[at..at + length].copy_from_slice(&address[..length]);
    message[at + length..at + length + 2].copy_from_slice(&attribute::DATA.to_be_bytes());
    message[at + length + 2..head].copy_from_slice(&data.to_be_bytes());
    message[head + end - begin..].fill(0);
    Some(start..start + total)
}

/// The checksum of ITU-T V.42 8.1.1.6.2, bit by bit: few messages carry it, none with media.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}
