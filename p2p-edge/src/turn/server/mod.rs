//! The server: each packet in, what becomes of it out.

mod requests;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use libp2p::PeerId;

use self::requests::Opening;
use super::allocation::{Allocation, AllocationId, CHANNELS};
use super::credential::Secret;
use super::message::{self, Class, INDICATION, Message, MessageError, Method, attribute, padded};
use super::meter::Answers;
use super::{Client, MAX_PACKET, PeerPolicy, TurnCounts, TurnLimits, TurnRefusal};
use crate::identity::RevocationList;
use crate::routing::subscriber;

/// How often expired allocations are searched for.
const SWEEP: Duration = Duration::from_secs(1);
/// Header of channel data (RFC 8656 12.4).
const CHANNEL_HEADER: usize = 4;

/// What a server is told at its start.
#[derive(Debug)]
pub struct Settings {
    /// From which passwords follow.
    pub secret: Secret,
    /// To whom may be relayed.
    pub policy: PeerPolicy,
    /// Bounds.
    pub limits: TurnLimits,
    /// Whether there are relayed addresses of IPv4, and of IPv6.
    pub families: (bool, bool),
    /// What has been revoked.
    pub revocations: RevocationList,
    /// Drawn at random: names the indications that the server sends.
    pub seed: u64,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Nothing.
    Nothing,
    /// The answer in the buffer goes to the client.
    Reply,
    /// A part of the packet goes to a peer, from the relayed address of an allocation.
    Relay {
        /// The allocation.
        id: AllocationId,
        /// The peer.
        to: SocketAddr,
        /// Which part of the packet.
        data: Range<usize>,
    },
    /// A socket is to be opened, and [`Server::opened`] told of it before anything else.
    Open {
        /// Whether for IPv6.
        v6: bool,
        /// Whether its port has to be even (RFC 8656 18.6).
        even: bool,
    },
}

/// A place for an allocation, used again and again.
#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    allocation: Option<Allocation>,
}

/// A STUN and TURN server without sockets and clock.
#[derive(Debug)]
pub struct Server {
    settings: Settings,
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_client: HashMap<Client, u32>,
    by_peer: HashMap<PeerId, usize>,
    by_address: HashMap<IpAddr, usize>,
    opening: Option<Opening>,
    closed: VecDeque<AllocationId>,
    answers: Answers,
    sweep: Option<Instant>,
    indications: u64,
    counts: TurnCounts,
}

impl Server {
    /// Builds a server without allocations.
    pub fn new(settings: Settings) -> Self {
        Self {
            indications: settings.seed,
            settings,
            slots: Vec::new(),
            free: Vec::new(),
            by_client: HashMap::new(),
            by_peer: HashMap::new(),
            by_address: HashMap::new(),
            opening: None,
            closed: VecDeque::new(),
            answers: Answers::default(),
            sweep: None,
            counts: TurnCounts::default(),
        }
    }

    /// Takes a packet of a client; an answer is written into `out`. `unix` is the time in seconds.
    pub fn handle_client(
        &mut self,
        now: Instant,
        unix: u64,
        client: Client,
        packet: &[u8],
        out: &mut Vec<u8>,
    ) -> Reaction {
        if packet.first().is_some_and(|byte| byte & 0xC0 == 0x40) {
            return self.channel_data(now, &client, packet);
        }
        let message = match Message::parse(packet) {
            Ok(message) => message,
            // Anything may come to a port, and it is answered by nothing (RFC 8489 6.3).
            Err(
                MessageError::Length
                | MessageError::Cookie
                | MessageError::Attribute
                | MessageError::Fingerprint,
            ) => return self.refused(TurnRefusal::Malformed),
        };
        let reaction = match (message.class, message.method) {
            (Class::Request, _) => self.request(now, unix, client, &message, out),
            (Class::Indication, Method::Send) => self.send_indication(now, &client, &message),
            // A keep-alive (RFC 8489 6.3.2).
            (Class::Indication, Method::Binding) => Reaction::Nothing,
            // Answers to nothing that was asked: a reflector would answer them.
            (Class::Indication | Class::Success | Class::Error, _) => self.refused(TurnRefusal::Unsolicited),
        };
        self.wake(now);
        reaction
    }

    /// RFC 8656 12.6: data of a client through a channel.
    fn channel_data(&mut self, now: Instant, client: &Client, packet: &[u8]) -> Reaction {
        let (Some([a, b, c, d]), Some(id)) = (packet.first_chunk(), self.id_of(client)) else {
            return self.refused(TurnRefusal::Mismatch);
        };
        let (number, length) = (u16::from_be_bytes([*a, *b]), usize::from(u16::from_be_bytes([*c, *d])));
        let end = CHANNEL_HEADER + length;
        if !CHANNELS.contains(&number) || end > packet.len() {
            return self.refused(TurnRefusal::Malformed);
        }
        let peer = self.get(id).and_then(|allocation| allocation.peer_of(now, number));
        match peer {
            Some(to) => self.relay(now, id, to, CHANNEL_HEADER..end),
            None => self.refused(TurnRefusal::NotPermitted),
        }
    }

    /// RFC 8656 11.1: data of a client for a peer that has no channel.
    fn send_indication(&mut self, now: Instant, client: &Client, message: &Message<'_>) -> Reaction {
        let Some(id) = self.id_of(client) else { return self.refused(TurnRefusal::Mismatch) };
        if message.unknown().1 > 0 {
            return self.refused(TurnRefusal::Unsupported);
        }
        let peer = message.addresses(attribute::XOR_PEER_ADDRESS).next().flatten();
        match (peer, message.position(attribute::DATA)) {
            (Some(to), Some(data)) => self.relay(now, id, to, data),
            _ => self.refused(TurnRefusal::Malformed),
        }
    }

    fn relay(&mut self, now: Instant, id: AllocationId, to: SocketAddr, data: Range<usize>) -> Reaction {
        if !self.settings.policy.may_relay(to) {
            return self.refused(TurnRefusal::Forbidden);
        }
        let limits = &self.settings.limits;
        let Some(allocation) = self.slots.get_mut(id.index as usize).and_then(|s| s.allocation.as_mut())
        else {
            return Reaction::Nothing;
        };
        if !allocation.permits(now, to.ip()) || allocation.relayed.is_ipv4() != to.is_ipv4() {
            return self.refused(TurnRefusal::NotPermitted);
        }
        if !allocation.may_send(now, data.len(), limits) {
            return self.refused(TurnRefusal::Bandwidth);
        }
        self.counts.packets += 1;
        self.counts.bytes += data.len() as u64;
        Reaction::Relay { id, to, data }
    }

    /// Takes a packet that a peer has sent to a relayed address: the bytes of `buffer` at `data`, with
    /// [`super::HEADROOM`] in front and [`super::TAILROOM`] behind. Returns which bytes of the buffer go to
    /// which client.
    pub fn handle_peer(
        &mut self,
        now: Instant,
        id: AllocationId,
        from: SocketAddr,
        buffer: &mut [u8],
        data: Range<usize>,
    ) -> Option<(Client, Range<usize>)> {
        let limits = &self.settings.limits;
        let slot = self.slots.get_mut(id.index as usize)?;
        let allocation = slot.allocation.as_mut().filter(|_| slot.generation == id.generation)?;
        let reason = if allocation.until <= now {
            TurnRefusal::Mismatch
        } else if !allocation.permits(now, from.ip()) {
            TurnRefusal::NotPermitted
        } else if !self.settings.policy.may_relay(from) {
            TurnRefusal::Forbidden
        } else if data.len() > MAX_PACKET - INDICATION {
            TurnRefusal::Oversize
        } else if !allocation.may_receive(now, data.len(), limits) {
            TurnRefusal::Bandwidth
        } else {
            let client = allocation.client;
            let framed = match allocation.channel_of(now, from) {
                Some(number) => frame(buffer, data.clone(), number, client.path.is_stream()),
                None => {
                    self.indications = self.indications.wrapping_add(1);
                    let transaction = transaction(self.settings.seed, self.indications);
                    message::write_data_indication(buffer, data.start, data.end, from, transaction)
                }
            }?;
            self.counts.packets += 1;
            self.counts.bytes += data.len() as u64;
            return Some((client, framed));
        };
        self.counts.refuse(reason);
        None
    }

    /// Ends the allocation of a client whose connection is gone (RFC 8656 3.1).
    pub fn handle_gone(&mut self, client: &Client) {
        if let Some(&index) = self.by_client.get(client) {
            self.end(index);
        }
    }

    /// Goes on under newer revocations: allocations of whoever is revoked end.
    pub fn revoke(&mut self, revocations: RevocationList) {
        self.settings.revocations = revocations;
        let list = &self.settings.revocations;
        let revoked = self.indices(|allocation| allocation.user.is_revoked(list));
        for index in revoked {
            self.counts.refuse(TurnRefusal::Revoked);
            self.end(index);
        }
    }

    /// Returns the next allocation that has ended: its socket is to be closed.
    pub fn poll_closed(&mut self) -> Option<AllocationId> {
        self.closed.pop_front()
    }

    /// Returns when [`Server::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.sweep
    }

    /// Ends allocations that have expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.sweep.is_none_or(|due| due > now) {
            return;
        }
        let expired = self.indices(|allocation| allocation.until <= now);
        for index in expired {
            self.end(index);
        }
        self.answers.forget(now);
        self.sweep = None;
        self.wake(now);
    }

    /// Returns what was counted.
    pub fn counts(&self) -> &TurnCounts {
        &self.counts
    }

    /// Counts something that the sockets have refused.
    pub fn refuse(&mut self, reason: TurnRefusal) {
        self.counts.refuse(reason);
    }

    /// Says whether a client has an allocation.
    pub fn has_allocation(&self, client: &Client) -> bool {
        self.by_client.contains_key(client)
    }

    fn wake(&mut self, now: Instant) {
        if self.sweep.is_none() && !(self.by_client.is_empty() && self.answers.is_empty()) {
            self.sweep = Some(now + SWEEP);
        }
    }

    fn refused(&mut self, reason: TurnRefusal) -> Reaction {
        self.counts.refuse(reason);
        Reaction::Nothing
    }

    fn indices(&self, which: impl Fn(&Allocation) -> bool) -> Vec<u32> {
        let of = |(index, slot): (usize, &Slot)| {
            slot.allocation.as_ref().filter(|allocation| which(allocation)).map(|_| index as u32)
        };
        self.slots.iter().enumerate().filter_map(of).collect()
    }

    fn id_of(&self, client: &Client) -> Option<AllocationId> {
        let index = *self.by_client.get(client)?;
        Some(AllocationId { index, generation: self.slots.get(index as usize)?.generation })
    }

    fn get(&self, id: AllocationId) -> Option<&Allocation> {
        self.slots.get(id.index as usize)?.allocation.as_ref()
    }

    fn end(&mut self, index: u32) {
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        let Some(allocation) = slot.allocation.take() else { return };
        self.closed.push_back(AllocationId { index, generation: slot.generation });
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        self.by_client.remove(&allocation.client);
        release(&mut self.by_peer, &allocation.user.peer);
        release(&mut self.by_address, &subscriber(allocation.client.address.ip()));
        self.counts.allocations -= 1;
    }
}

fn release<K: std::hash::Hash + Eq>(table: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = table.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            table.remove(key);
        }
    }
}

/// Puts the header of channel data in front (RFC 8656 12.4), and padding behind on streams.
fn frame(buffer: &mut [u8], data: Range<usize>, number: u16, padding: bool) -> Option<Range<usize>> {
    let begin = data.start.checked_sub(CHANNEL_HEADER)?;
    let length = u16::try_from(data.len()).ok()?;
    let header = buffer.get_mut(begin..data.start)?;
    header[..2].copy_from_slice(&number.to_be_bytes());
    header[2..].copy_from_slice(&length.to_be_bytes());
    let end = if padding { data.start + padded(data.len()) } else { data.end };
    buffer.get_mut(data.end..end)?.fill(0);
    Some(begin..end)
}

/// The id of an indication, which nobody answers: it has to differ from the others.
fn transaction(seed: u64, count: u64) -> [u8; 12] {
    let mut id = [0; 12];
    id[..8].copy_from_slice(&count.to_be_bytes());
    id[8..].copy_from_slice(&seed.to_le_bytes()[..4]);
    id
}
