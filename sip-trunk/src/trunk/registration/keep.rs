//! Keeping a registered flow alive (RFC 5626 4.4, RFC 6223).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::endpoint::io::Random;

const MAGIC: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];
const XOR_MAPPED_ADDRESS: u16 = 0x0020;

/// The first wait for an answer; each next is twice as long (RFC 5389 7.2.1).
const RTO: Duration = Duration::from_millis(500);
/// How often a request is sent in all (RFC 5389 7.2.1).
const REQUESTS: u32 = 7;

/// The keep-alive of a UDP flow. That of a connection is the pool's.
#[derive(Debug)]
pub(super) struct Keep {
    /// The longest interval.
    every: Duration,
    /// By STUN, as was agreed; else by empty lines, which nobody answers.
    stun: bool,
    pub(super) next: Instant,
    /// The request under way, and how often it was sent.
    transaction: Option<([u8; 12], u32)>,
    /// The far side answers.
    answered: bool,
    /// How it sees us.
    mapped: Option<SocketAddr>,
}

/// What came of a keep-alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Alive,
    /// Nothing came back any more, or we have become another address: register again.
    Lost,
}

impl Keep {
    pub(super) fn new(every: Duration, stun: bool, now: Instant, random: &mut Random) -> Self {
        let next = now + spread(every, random);
        Self { every, stun, next, transaction: None, answered: false, mapped: None }
    }

    /// Changes how often, and leaves what is under way alone.
    pub(super) fn agree(&mut self, every: Duration, stun: bool) {
        (self.every, self.stun) = (every, stun);
    }

    /// Returns what to send, its time having come.
    pub(super) fn due(&mut self, now: Instant, random: &mut Random) -> (Option<Bytes>, Flow) {
        if !self.stun {
            self.next = now + spread(self.every, random);
            return (Some(Bytes::from_static(b"\r\n\r\n")), Flow::Alive);
        }
        let (id, sent) = self.transaction.unwrap_or_else(|| (transaction_id(random), 0));
        if sent == REQUESTS {
            // RFC 5626 4.4.2. Not so for who never answered: many say `keep` and mean empty lines.
            let lost = if self.answered { Flow::Lost } else { Flow::Alive };
            self.transaction = None;
            self.next = now + spread(self.every, random);
            return (None, lost);
        }
        self.transaction = Some((id, sent + 1));
        // The last wait is 16 times the first (RFC 5389 7.2.1).
        self.next = now + if sent + 1 == REQUESTS { RTO * 16 } else { RTO * (1 << sent) };
        let request = [&BINDING_REQUEST[..], &[0, 0], &MAGIC, &id].concat();
        (Some(Bytes::from(request)), Flow::Alive)
    }

    /// Takes an answer in. `None` if it answers nothing of ours.
    pub(super) fn answer(&mut self, bytes: &[u8], now: Instant, random: &mut Random) -> Option<Flow> {
        let (id, _) = self.transaction?;
        if bytes.get(..2)? != BINDING_SUCCESS || bytes.get(8..20)? != id {
            return None;
        }
        self.transaction = None;
        self.answered = true;
        self.next = now + spread(self.every, random);
        let mapped = mapped_address(bytes);
        let moved = self.mapped.is_some() && mapped.is_some() && self.mapped != mapped;
        self.mapped = mapped.or(self.mapped);
        // RFC 5626 4.4.2: whoever sent calls to the old address reaches somebody else now.
        Some(if moved { Flow::Lost } else { Flow::Alive })
    }
}

/// Says whether a datagram is STUN and not SIP.
pub(crate) fn is_stun(bytes: &[u8]) -> bool {
    bytes.len() >= 20 && bytes.first().is_some_and(|b| *b < 4) && bytes.get(4..8) == Some(&MAGIC[..])
}

/// Returns 80 to 100 % of an interval, so that not all flows are refreshed at once (RFC 5626 4.4).
pub(super) fn spread(every: Duration, random: &mut Random) -> Duration {
    every * u32::try_from(random.between(800, 1000)).unwrap_or(1000) / 1000
}

fn transaction_id(random: &mut Random) -> [u8; 12] {
    let (high, low) = (random.number().to_be_bytes(), random.number().to_be_bytes());
    let mut id = [0; 12];
    for (to, from) in id.iter_mut().zip(high.into_iter().chain(low)) {
        *to = from;
    }
    id
}

/// RFC 5389 15.2.
fn mapped_address(bytes: &[u8]) -> Option<SocketAddr> {
    let mut rest = bytes.get(20..)?;
    // Each turn takes four bytes at least.
    while let [a, b, c, d, body @ ..] = rest {
        let (kind, length) = (u16::from_be_bytes([*a, *b]), usize::from(u16::from_be_bytes([*c, *d])));
        let value = body.get(..length)?;
        if kind == XOR_MAPPED_ADDRESS {
            let [_, family, high, low, address @ ..] = value else { return None };
            let port = u16::from_be_bytes([high ^ MAGIC[0], low ^ MAGIC[1]]);
            let mask = bytes.get(4..20)?;
            let plain: Vec<u8> = address.iter().zip(mask).map(|(a, m)| a ^ m).collect();
            let ip: IpAddr = match family {
                1 => <[u8; 4]>::try_from(plain).ok().map(Ipv4Addr::from)?.into(),
                2 => <[u8; 16]>::try_from(plain).ok().map(Ipv6Addr::from)?.into(),
                _ => return None,
            };
            return Some(SocketAddr::new(ip, port));
        }
        rest = body.get(length.next_multiple_of(4)..)?;
    }
    None
}
