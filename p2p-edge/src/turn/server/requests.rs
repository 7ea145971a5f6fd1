//! Requests: who asks, and what is granted.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;

use super::{Reaction, Server, Slot};
use crate::defence::{Defence, holds};
use crate::routing::subscriber;
use crate::turn::allocation::{Allocation, AllocationId, CHANNELS, Unbound};
use crate::turn::credential::{REALM, User};
use crate::turn::message::{Class, Message, Method, Writer, attribute};
use crate::turn::{Client, DEFAULT_LIFETIME, MAX_LIFETIME, TurnRefusal};

/// UDP, the only transport of relayed addresses (RFC 8656 18.7).
const UDP: u8 = 17;
/// Address families (RFC 8656 18.5).
const IPV4: u8 = 1;
const IPV6: u8 = 2;
/// Peers in one request for permissions.
const MAX_PEERS: usize = 16;

/// Codes of errors (RFC 8489 14.8, RFC 8656 19).
mod code {
    pub(super) const BAD_REQUEST: u16 = 400;
    pub(super) const UNAUTHENTICATED: u16 = 401;
    pub(super) const FORBIDDEN: u16 = 403;
    pub(super) const UNKNOWN_ATTRIBUTE: u16 = 420;
    pub(super) const ALLOCATION_MISMATCH: u16 = 437;
    pub(super) const STALE_NONCE: u16 = 438;
    pub(super) const ADDRESS_FAMILY_NOT_SUPPORTED: u16 = 440;
    pub(super) const WRONG_CREDENTIALS: u16 = 441;
    pub(super) const UNSUPPORTED_TRANSPORT: u16 = 442;
    pub(super) const PEER_ADDRESS_FAMILY_MISMATCH: u16 = 443;
    pub(super) const ALLOCATION_QUOTA_REACHED: u16 = 486;
    pub(super) const INSUFFICIENT_CAPACITY: u16 = 508;
}

/// An allocation that waits for its socket.
#[derive(Debug)]
pub(super) struct Opening {
    client: Client,
    user: User,
    username: Box<[u8]>,
    key: hmac::Key,
    transaction: [u8; 12],
    lifetime: Duration,
    /// Whether a second relayed address was wanted, which nobody gets.
    additional: bool,
}

/// Who has sent a request, as it was proved.
struct Asker<'a> {
    user: User,
    username: &'a [u8],
    key: hmac::Key,
}

/// Why a request is not granted: the code of the answer, and how it is counted.
struct Denied(u16, TurnRefusal);

impl Server {
    pub(super) fn request(
        &mut self,
        now: Instant,
        unix: u64,
        client: Client,
        message: &Message<'_>,
        out: &mut Vec<u8>,
    ) -> Reaction {
        match message.method {
            Method::Binding => return self.binding(now, client, message, out),
            Method::Allocate | Method::Refresh | Method::CreatePermission | Method::ChannelBind => {}
            Method::Send | Method::Data | Method::Other(_) => {
                return self.refused(TurnRefusal::Unsupported);
            }
        }
        let asker = match self.authenticate(unix, &client, message) {
            Ok(asker) => asker,
            Err(denied) => return self.turn_away(now, unix, client, message, denied, out),
        };
        let (unknown, count) = message.unknown();
        if count > 0 {
            let mut writer = Writer::new(out, Class::Error, message.method, message.transaction());
            put_unknown(writer.put_error(code::UNKNOWN_ATTRIBUTE), &unknown[..count]);
            writer.sign(&asker.key);
            self.counts.refuse(TurnRefusal::Unsupported);
            return Reaction::Reply;
        }
        let granted = match message.method {
            Method::Allocate => match self.allocate(now, unix, client, message, &asker, out) {
                Ok(reaction) => return reaction,
                Err(denied) => Err(denied),
            },
            Method::Refresh => self.refresh(now, unix, &client, message, &asker, out),
            Method::CreatePermission => self.create_permission(now, &client, message, &asker, out),
            _ => self.channel_bind(now, &client, message, &asker, out),
        };
        if let Err(Denied(code, reason)) = granted {
            self.counts.refuse(reason);
            Writer::new(out, Class::Error, message.method, message.transaction())
                .put_error(code)
                .sign(&asker.key);
        }
        Reaction::Reply
    }

    /// RFC 8489 6.3.1: the address from which a client is seen. The answer is 12 or 24 bytes longer
    /// than the shortest request, and strangers get only so many.
    fn binding(
        &mut self,
        now: Instant,
        client: Client,
        message: &Message<'_>,
        out: &mut Vec<u8>,
    ) -> Reaction {
        if !self.may_answer(now, &client) {
            return self.refused(TurnRefusal::AnswerRate);
        }
        let (unknown, count) = message.unknown();
        if count > 0 {
            let mut writer = Writer::new(out, Class::Error, message.method, message.transaction());
            put_unknown(writer.put_error(code::UNKNOWN_ATTRIBUTE), &unknown[..count]);
            self.counts.refuse(TurnRefusal::Unsupported);
            return Reaction::Reply;
        }
        Writer::new(out, Class::Success, Method::Binding, message.transaction())
            .put_address(attribute::XOR_MAPPED_ADDRESS, client.address);
        self.counts.bindings += 1;
        Reaction::Reply
    }

    /// Says whether a client may be answered that has proved nothing. On a stream it is where it says
    /// it is.
    fn may_answer(&mut self, now: Instant, client: &Client) -> bool {
        client.path.is_stream()
            || self.answers.take(now, client.address.ip(), self.settings.limits.answers_per_second)
            || !holds(Defence::TurnAnswers)
    }

    /// RFC 8489 9.2.4, with the user whose allocation it is (RFC 8656 5).
    fn authenticate<'a>(
        &self,
        unix: u64,
        client: &Client,
        message: &Message<'a>,
    ) -> Result<Asker<'a>, Option<Denied>> {
        if message.attribute(attribute::MESSAGE_INTEGRITY).is_none() {
            return Err(None);
        }
        let denied = |code, reason| Err(Some(Denied(code, reason)));
        let (Some(username), Some(_), Some(nonce)) = (
            message.attribute(attribute::USERNAME),
            message.attribute(attribute::REALM),
            message.attribute(attribute::NONCE),
        ) else {
            return denied(code::BAD_REQUEST, TurnRefusal::Malformed);
        };
        let secret = &self.settings.secret;
        if !secret.is_fresh(nonce, unix, client.address) {
            return denied(code::STALE_NONCE, TurnRefusal::StaleNonce);
        }
        let Some(user) = User::parse(username) else {
            return denied(code::UNAUTHENTICATED, TurnRefusal::Unauthorized);
        };
        let key = secret.key(username);
        if !message.is_authentic(&key) && holds(Defence::TurnIntegrity) {
            return denied(code::UNAUTHENTICATED, TurnRefusal::Unauthorized);
        }
        if user.has_expired(unix) {
            return denied(code::UNAUTHENTICATED, TurnRefusal::Expired);
        }
        if user.is_revoked(&self.settings.revocations) {
            return denied(code::UNAUTHENTICATED, TurnRefusal::Revoked);
        }
        let allocation = self.id_of(client).and_then(|id| self.get(id));
        if message.method != Method::Allocate
            && allocation.is_some_and(|allocation| *allocation.username != *username)
            && holds(Defence::TurnUser)
        {
            return denied(code::WRONG_CREDENTIALS, TurnRefusal::WrongUser);
        }
        Ok(Asker { user, username, key })
    }

    /// Answers whoever has not proved who it is: with what it needs to do so, or with what is wrong.
    fn turn_away(
        &mut self,
        now: Instant,
        unix: u64,
        client: Client,
        message: &Message<'_>,
        denied: Option<Denied>,
        out: &mut Vec<u8>,
    ) -> Reaction {
        if !self.may_answer(now, &client) {
            return self.refused(TurnRefusal::AnswerRate);
        }
        let code = match denied {
            // The first request of every client is without credentials (RFC 8489 9.2.3).
            None => code::UNAUTHENTICATED,
            Some(Denied(code, reason)) => {
                self.counts.refuse(reason);
                code
            }
        };
        let mut writer = Writer::new(out, Class::Error, message.method, message.transaction());
        writer.put_error(code);
        if matches!(code, code::UNAUTHENTICATED | code::STALE_NONCE) {
            let nonce = self.settings.secret.nonce(unix, client.address);
            writer.put(attribute::REALM, REALM.as_bytes()).put(attribute::NONCE, nonce.as_bytes());
        }
        Reaction::Reply
    }

    /// RFC 8656 7.2.
    fn allocate(
        &mut self,
        now: Instant,
        unix: u64,
        client: Client,
        message: &Message<'_>,
        asker: &Asker<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Reaction, Denied> {
        if let Some(known) = self.id_of(&client).and_then(|id| self.get(id)) {
            // The answer was lost: the same request again gets the same.
            if known.transaction != message.transaction() || *known.username != *asker.username {
                return Err(Denied(code::ALLOCATION_MISMATCH, TurnRefusal::Mismatch));
            }
            let left = known.until.saturating_duration_since(now);
            write_allocated(out, known.transaction, known.relayed, left, client.address, false, &asker.key);
            return Ok(Reaction::Reply);
        }
        let bad = |reason| Denied(code::BAD_REQUEST, reason);
        match message.attribute(attribute::REQUESTED_TRANSPORT) {
            Some([UDP, _, _, _]) => {}
            Some([_, _, _, _]) => {
                return Err(Denied(code::UNSUPPORTED_TRANSPORT, TurnRefusal::Unsupported));
            }
            _ => return Err(bad(TurnRefusal::Malformed)),
        }
        let even = match (
            message.attribute(attribute::EVEN_PORT),
            message.attribute(attribute::RESERVATION_TOKEN),
        ) {
            (None, None) => false,
            (Some([flags]), None) if flags & 0x80 == 0 => true,
            (Some(_), Some(_)) => return Err(bad(TurnRefusal::Malformed)),
            // No port is kept for a second allocation: RTCP shares that of RTP (RFC 5761).
            _ => return Err(Denied(code::INSUFFICIENT_CAPACITY, TurnRefusal::Unsupported)),
        };
        let additional = message.attribute(attribute::ADDITIONAL_ADDRESS_FAMILY);
        let family = message.attribute(attribute::REQUESTED_ADDRESS_FAMILY);
        let v6 = match (family, additional) {
            (Some(_), Some(_)) => return Err(bad(TurnRefusal::Malformed)),
            (None, None | Some([IPV6, ..])) | (Some([IPV4, _, _, _]), None) => false,
            (Some([IPV6, _, _, _]), None) => true,
            (None, Some(_)) => return Err(bad(TurnRefusal::Malformed)),
            _ => return Err(Denied(code::ADDRESS_FAMILY_NOT_SUPPORTED, TurnRefusal::Unsupported)),
        };
        let (has_v4, has_v6) = self.settings.families;
        if !(if v6 { has_v6 } else { has_v4 }) {
            return Err(Denied(code::ADDRESS_FAMILY_NOT_SUPPORTED, TurnRefusal::Unsupported));
        }
        self.has_quota(&client, &asker.user)?;
        self.opening = Some(Opening {
            client,
            user: asker.user.clone(),
            username: asker.username.into(),
            key: asker.key.clone(),
            transaction: message.transaction(),
            lifetime: lifetime(message, &asker.user, unix)?.max(DEFAULT_LIFETIME),
            additional: additional.is_some(),
        });
        Ok(Reaction::Open { v6, even })
    }

    fn has_quota(&self, client: &Client, user: &User) -> Result<(), Denied> {
        let limits = &self.settings.limits;
        if !holds(Defence::TurnQuota) {
            return Ok(());
        }
        if self.by_client.len() >= limits.allocations {
            return Err(Denied(code::INSUFFICIENT_CAPACITY, TurnRefusal::Full));
        }
        if self.by_peer.get(&user.peer).is_some_and(|count| *count >= limits.allocations_per_peer) {
            return Err(Denied(code::ALLOCATION_QUOTA_REACHED, TurnRefusal::PeerQuota));
        }
        let address = subscriber(client.address.ip());
        if self.by_address.get(&address).is_some_and(|count| *count >= limits.allocations_per_address) {
            return Err(Denied(code::ALLOCATION_QUOTA_REACHED, TurnRefusal::AddressQuota));
        }
        Ok(())
    }

    /// Takes the socket that [`Reaction::Open`] has asked for, by the address that peers see, or
    /// nothing where none could be opened. The answer to the client is written into `out`. Returns the
    /// allocation where there is one.
    pub fn opened(
        &mut self,
        now: Instant,
        relayed: Option<SocketAddr>,
        out: &mut Vec<u8>,
    ) -> Option<AllocationId> {
        let opening = self.opening.take()?;
        let Some(relayed) = relayed else {
            self.counts.refuse(TurnRefusal::Full);
            Writer::new(out, Class::Error, Method::Allocate, opening.transaction)
                .put_error(code::INSUFFICIENT_CAPACITY)
                .sign(&opening.key);
            return None;
        };
        let Opening { client, user, username, key, transaction, lifetime, additional } = opening;
        *self.by_peer.entry(user.peer).or_default() += 1;
        *self.by_address.entry(subscriber(client.address.ip())).or_default() += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            // There are at most as many as allocations at one time.
            (self.slots.len() - 1) as u32
        });
        self.by_client.insert(client, index);
        let limits = &self.settings.limits;
        let until = now + lifetime;
        let slot = self.slots.get_mut(index as usize)?;
        let made = Allocation::new(client, user, &username, relayed, transaction, until, limits, now);
        slot.allocation = Some(made);
        let generation = slot.generation;
        write_allocated(out, transaction, relayed, lifetime, client.address, additional, &key);
        self.counts.allocations += 1;
        self.counts.allocated += 1;
        self.wake(now);
        Some(AllocationId { index, generation })
    }

    fn own(&mut self, now: Instant, client: &Client) -> Result<(u32, &mut Allocation), Denied> {
        let none = Denied(code::ALLOCATION_MISMATCH, TurnRefusal::Mismatch);
        let Some(&index) = self.by_client.get(client) else { return Err(none) };
        let slot = self.slots.get_mut(index as usize).and_then(|slot| slot.allocation.as_mut());
        slot.filter(|allocation| allocation.until > now).map(|allocation| (index, allocation)).ok_or(none)
    }

    /// RFC 8656 8.2.
    fn refresh(
        &mut self,
        now: Instant,
        unix: u64,
        client: &Client,
        message: &Message<'_>,
        asker: &Asker<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Denied> {
        let lifetime = lifetime(message, &asker.user, unix)?;
        let (index, allocation) = self.own(now, client)?;
        if let Some(family) = message.attribute(attribute::REQUESTED_ADDRESS_FAMILY)
            && family.first() != Some(if allocation.relayed.is_ipv4() { &IPV4 } else { &IPV6 })
        {
            return Err(Denied(code::PEER_ADDRESS_FAMILY_MISMATCH, TurnRefusal::Unsupported));
        }
        if lifetime.is_zero() {
            self.end(index);
        } else {
            allocation.until = now + lifetime.max(DEFAULT_LIFETIME);
        }
        let granted = if lifetime.is_zero() { lifetime } else { lifetime.max(DEFAULT_LIFETIME) };
        Writer::new(out, Class::Success, Method::Refresh, message.transaction())
            .put(attribute::LIFETIME, &seconds(granted))
            .sign(&asker.key);
        Ok(())
    }

    /// RFC 8656 10.2: all addresses of a request are permitted, or none.
    fn create_permission(
        &mut self,
        now: Instant,
        client: &Client,
        message: &Message<'_>,
        asker: &Asker<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Denied> {
        let mut ips: Vec<IpAddr> = Vec::new();
        let v4 = self.own(now, client)?.1.relayed.is_ipv4();
        for peer in message.addresses(attribute::XOR_PEER_ADDRESS) {
            let peer = peer.ok_or(Denied(code::BAD_REQUEST, TurnRefusal::Malformed))?;
            if peer.is_ipv4() != v4 {
                return Err(Denied(code::PEER_ADDRESS_FAMILY_MISMATCH, TurnRefusal::Unsupported));
            }
            if !self.settings.policy.may_permit(peer.ip()) {
                return Err(Denied(code::FORBIDDEN, TurnRefusal::Forbidden));
            }
            if ips.len() == MAX_PEERS {
                return Err(Denied(code::INSUFFICIENT_CAPACITY, TurnRefusal::PermissionQuota));
            }
            if !ips.contains(&peer.ip()) {
                ips.push(peer.ip());
            }
        }
        if ips.is_empty() {
            return Err(Denied(code::BAD_REQUEST, TurnRefusal::Malformed));
        }
        let limits = self.settings.limits.clone();
        let (_, allocation) = self.own(now, client)?;
        if !allocation.has_room(now, &ips, &limits) {
            return Err(Denied(code::INSUFFICIENT_CAPACITY, TurnRefusal::PermissionQuota));
        }
        for ip in ips {
            allocation.permit(now, ip, &limits);
        }
        Writer::new(out, Class::Success, Method::CreatePermission, message.transaction()).sign(&asker.key);
        Ok(())
    }

    /// RFC 8656 12.2.
    fn channel_bind(
        &mut self,
        now: Instant,
        client: &Client,
        message: &Message<'_>,
        asker: &Asker<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Denied> {
        let bad = || Denied(code::BAD_REQUEST, TurnRefusal::Malformed);
        let v4 = self.own(now, client)?.1.relayed.is_ipv4();
        let number = match message.attribute(attribute::CHANNEL_NUMBER) {
            Some([high, low, _, _]) => u16::from_be_bytes([*high, *low]),
            _ => return Err(bad()),
        };
        let peer = message.addresses(attribute::XOR_PEER_ADDRESS).next().flatten().ok_or_else(bad)?;
        if !CHANNELS.contains(&number) {
            return Err(bad());
        }
        if peer.is_ipv4() != v4 {
            return Err(Denied(code::PEER_ADDRESS_FAMILY_MISMATCH, TurnRefusal::Unsupported));
        }
        if !self.settings.policy.may_relay(peer) {
            return Err(Denied(code::FORBIDDEN, TurnRefusal::Forbidden));
        }
        let limits = self.settings.limits.clone();
        let (_, allocation) = self.own(now, client)?;
        if !allocation.has_room(now, &[peer.ip()], &limits) {
            return Err(Denied(code::INSUFFICIENT_CAPACITY, TurnRefusal::PermissionQuota));
        }
        allocation.bind(now, number, peer, &limits).map_err(|unbound| match unbound {
            Unbound::Taken => bad(),
            Unbound::Full => Denied(code::INSUFFICIENT_CAPACITY, TurnRefusal::ChannelQuota),
        })?;
        allocation.permit(now, peer.ip(), &limits);
        Writer::new(out, Class::Success, Method::ChannelBind, message.transaction()).sign(&asker.key);
        Ok(())
    }
}

/// Returns the lifetime that a request gets (RFC 8656 7.2): what it asks for, but at most an hour and
/// not beyond its credential.
fn lifetime(message: &Message<'_>, user: &User, unix: u64) -> Result<Duration, Denied> {
    let wanted = match message.attribute(attribute::LIFETIME) {
        None => DEFAULT_LIFETIME,
        Some([a, b, c, d]) => Duration::from_secs(u32::from_be_bytes([*a, *b, *c, *d]).into()),
        Some(_) => return Err(Denied(code::BAD_REQUEST, TurnRefusal::Malformed)),
    };
    Ok(wanted.min(MAX_LIFETIME).min(Duration::from_secs(user.expiry.saturating_sub(unix).max(1))))
}

fn seconds(duration: Duration) -> [u8; 4] {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX).to_be_bytes()
}

fn put_unknown(writer: &mut Writer<'_>, unknown: &[u16]) {
    let mut value = [0; 16];
    for (to, kind) in value.chunks_exact_mut(2).zip(unknown) {
        to.copy_from_slice(&kind.to_be_bytes());
    }
    writer.put(attribute::UNKNOWN_ATTRIBUTES, value.get(..unknown.len() * 2).unwrap_or_default());
}

/// Writes the answer to a request that was granted (RFC 8656 7.2).
fn write_allocated(
    out: &mut Vec<u8>,
    transaction: [u8; 12],
    relayed: SocketAddr,
    lifetime: Duration,
    mapped: SocketAddr,
    additional: bool,
    key: &hmac::Key,
) {
    let mut writer = Writer::new(out, Class::Success, Method::Allocate, transaction);
    writer
        .put_address(attribute::XOR_RELAYED_ADDRESS, relayed)
        .put(attribute::LIFETIME, &seconds(lifetime))
        .put_address(attribute::XOR_MAPPED_ADDRESS, mapped);
    if additional {
        let code = code::ADDRESS_FAMILY_NOT_SUPPORTED;
        let error = [IPV6, 0, (code / 100) as u8, (code % 100) as u8];
        writer.put(attribute::ADDRESS_ERROR_CODE, &error);
    }
    writer.sign(key);
}
