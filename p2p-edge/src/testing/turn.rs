//! A TURN client for tests, without sockets: writes requests and reads answers.

use std::net::SocketAddr;

use aws_lc_rs::hmac;
use md5::{Digest, Md5};

use crate::turn::{Class, Message, Method, REALM};
use crate::turn::{Writer, attribute};

/// A client with one credential.
#[derive(Debug)]
pub struct TurnClient {
    username: String,
    key: hmac::Key,
    nonce: Vec<u8>,
    count: u64,
}

/// What a server has answered, or sent by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnAnswer {
    /// What it is.
    pub class: Class,
    /// What it is about.
    pub method: Method,
    /// The code of an error.
    pub code: Option<u16>,
    /// Whether it was made with the password of the client.
    pub is_authentic: bool,
    /// From where the client is seen.
    pub mapped: Option<SocketAddr>,
    /// The relayed address.
    pub relayed: Option<SocketAddr>,
    /// Seconds for which something was granted.
    pub lifetime: Option<u32>,
    /// Data of a peer.
    pub data: Option<(SocketAddr, Vec<u8>)>,
    /// Attributes that the server does not know.
    pub unknown: Vec<u16>,
}

impl TurnClient {
    /// Builds a client.
    pub fn new(username: &str, password: &str) -> Self {
        let digest = Md5::digest(format!("{username}:{REALM}:{password}"));
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &digest);
        Self { username: username.to_owned(), key, nonce: Vec::new(), count: 0 }
    }

    /// Returns the user name.
    pub fn username(&self) -> &str {
        &self.username
    }

    fn message(&mut self, class: Class, method: Method, put: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        self.count += 1;
        let mut transaction = [0; 12];
        transaction[4..].copy_from_slice(&self.count.to_be_bytes());
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, class, method, transaction);
        put(&mut writer);
        if class == Class::Request && method != Method::Binding && !self.nonce.is_empty() {
            writer.put(attribute::USERNAME, self.username.as_bytes());
            writer.put(attribute::REALM, REALM.as_bytes());
            writer.put(attribute::NONCE, &self.nonce);
            writer.sign(&self.key);
        }
        out
    }

    /// A request with one attribute given as it is; signed once a nonce is known.
    pub fn request(&mut self, method: Method, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        self.message(Class::Request, method, |writer| {
            for (kind, value) in attributes {
                writer.put(*kind, value);
            }
        })
    }

    /// Asks from where the client is seen.
    pub fn binding(&mut self) -> Vec<u8> {
        self.request(Method::Binding, &[])
    }

    /// Asks for a relayed address of IPv4.
    pub fn allocate(&mut self) -> Vec<u8> {
        self.request(Method::Allocate, &[(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0])])
    }

    /// Keeps the allocation for so many seconds.
    pub fn refresh(&mut self, seconds: u32) -> Vec<u8> {
        self.request(Method::Refresh, &[(attribute::LIFETIME, &seconds.to_be_bytes())])
    }

    /// Lets peers send.
    pub fn permit(&mut self, peers: &[SocketAddr]) -> Vec<u8> {
        self.message(Class::Request, Method::CreatePermission, |writer| {
            for peer in peers {
                writer.put_address(attribute::XOR_PEER_ADDRESS, *peer);
            }
        })
    }

    /// Binds a channel.
    pub fn bind(&mut self, number: u16, peer: SocketAddr) -> Vec<u8> {
        self.message(Class::Request, Method::ChannelBind, |writer| {
            let [high, low] = number.to_be_bytes();
            writer.put(attribute::CHANNEL_NUMBER, &[high, low, 0, 0]);
            writer.put_address(attribute::XOR_PEER_ADDRESS, peer);
        })
    }

    /// Sends data to a peer.
    pub fn send(&mut self, peer: SocketAddr, data: &[u8]) -> Vec<u8> {
        self.message(Class::Indication, Method::Send, |writer| {
            writer.put_address(attribute::XOR_PEER_ADDRESS, peer).put(attribute::DATA, data);
        })
    }

    /// Sends data through a channel, padded as on a stream.
    pub fn channel(number: u16, data: &[u8]) -> Vec<u8> {
        let mut out = number.to_be_bytes().to_vec();
        out.extend((data.len() as u16).to_be_bytes());
        out.extend(data);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    /// Reads an answer, and keeps the nonce where it holds one. `None` for what is no message.
    pub fn hear(&mut self, bytes: &[u8]) -> Option<TurnAnswer> {
        let message = Message::parse(bytes).ok()?;
        if let Some(nonce) = message.attribute(attribute::NONCE) {
            self.nonce = nonce.to_vec();
        }
        let address = |kind| message.addresses(kind).next().flatten();
        let code = message.attribute(attribute::ERROR_CODE).and_then(|value| value.get(2..4));
        let peer = address(attribute::XOR_PEER_ADDRESS);
        let data = message.attribute(attribute::DATA).map(<[u8]>::to_vec);
        let unknown = message.attribute(attribute::UNKNOWN_ATTRIBUTES).unwrap_or_default();
        Some(TurnAnswer {
            class: message.class,
            method: message.method,
            code: code.map(|code| u16::from(code[0]) * 100 + u16::from(code[1])),
            is_authentic: message.is_authentic(&self.key),
            mapped: address(attribute::XOR_MAPPED_ADDRESS),
            relayed: address(attribute::XOR_RELAYED_ADDRESS),
            lifetime: message
                .attribute(attribute::LIFETIME)
                .and_then(|value| Some(u32::from_be_bytes(value.try_into().ok()?))),
            data: peer.zip(data),
            unknown: unknown.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect(),
        })
    }
}
