//! One allocation: a relayed address of one client, to whom it may send, and how much.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::credential::User;
use super::meter::Meter;
use super::{Client, TurnLimits};
use crate::defence::{Defence, holds};

/// How long a permission lasts (RFC 8656 9).
pub(crate) const PERMISSION: Duration = Duration::from_secs(300);
/// How long a channel is bound (RFC 8656 12).
pub(crate) const CHANNEL: Duration = Duration::from_secs(600);
/// The numbers that channels have: 0x4000 to 0x4FFF (RFC 8656 12), and above it those that clients of
/// RFC 5766 11 take. These collide with nothing but what a client itself may multiplex.
pub(crate) const CHANNELS: std::ops::RangeInclusive<u16> = 0x4000..=0x7FFF;

/// Names an allocation. A number that is used again has another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AllocationId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

#[derive(Clone, Copy, Debug)]
struct Channel {
    number: u16,
    peer: SocketAddr,
    until: Instant,
}

/// Why a channel is not bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unbound {
    /// The number is bound to another peer, or the peer to another number (RFC 8656 12.2).
    Taken,
    /// There are as many as there may be.
    Full,
}

/// One allocation.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) client: Client,
    pub(crate) user: User,
    pub(crate) username: Box<[u8]>,
    /// The address that peers see.
    pub(crate) relayed: SocketAddr,
    /// Of the request that made it: the same request again is answered the same.
    pub(crate) transaction: [u8; 12],
    pub(crate) until: Instant,
    permissions: Vec<(IpAddr, Instant)>,
    channels: Vec<Channel>,
    up: Meter,
    down: Meter,
}

impl Allocation {
    #[expect(clippy::too_many_arguments, reason = "every part of it is told once, here")]
    pub(crate) fn new(
        client: Client,
        user: User,
        username: &[u8],
        relayed: SocketAddr,
        transaction: [u8; 12],
        until: Instant,
        limits: &TurnLimits,
        now: Instant,
    ) -> Self {
        let burst = limits.burst();
        Self {
            client,
            user,
            username: username.into(),
            relayed,
            transaction,
            until,
            permissions: Vec::new(),
            channels: Vec::new(),
            up: Meter::full(burst, now),
            down: Meter::full(burst, now),
        }
    }

    /// Lets an address send. Returns whether there was room.
    pub(crate) fn permit(&mut self, now: Instant, ip: IpAddr, limits: &TurnLimits) -> bool {
        let until = now + PERMISSION;
        if let Some(known) = self.permissions.iter_mut().find(|(known, _)| *known == ip) {
            known.1 = until;
            return true;
        }
        if self.permissions.len() >= limits.permissions {
            self.permissions.retain(|(_, until)| *until > now);
        }
        if self.permissions.len() >= limits.permissions && holds(Defence::TurnQuota) {
            return false;
        }
        self.permissions.push((ip, until));
        true
    }

    /// Says whether there is room for so many new permissions.
    pub(crate) fn has_room(&self, now: Instant, ips: &[IpAddr], limits: &TurnLimits) -> bool {
        let live = self.permissions.iter().filter(|(ip, until)| *until > now && !ips.contains(ip)).count();
        live + ips.len() <= limits.permissions || !holds(Defence::TurnQuota)
    }

    /// Says whether an address may send and be sent to.
    pub(crate) fn permits(&self, now: Instant, ip: IpAddr) -> bool {
        !holds(Defence::TurnPermission)
            || self.permissions.iter().any(|(known, until)| *known == ip && *until > now)
    }

    /// Binds a channel, or keeps it bound.
    pub(crate) fn bind(
        &mut self,
        now: Instant,
        number: u16,
        peer: SocketAddr,
        limits: &TurnLimits,
    ) -> Result<(), Unbound> {
        self.channels.retain(|channel| channel.until > now);
        let until = now + CHANNEL;
        let is_full = self.channels.len() >= limits.channels && holds(Defence::TurnQuota);
        let of = self.channels.iter_mut().find(|channel| channel.number == number || channel.peer == peer);
        match of {
            Some(channel) if channel.number == number && channel.peer == peer => channel.until = until,
            Some(_) => return Err(Unbound::Taken),
            None if is_full => return Err(Unbound::Full),
            None => self.channels.push(Channel { number, peer, until }),
        }
        Ok(())
    }

    /// Returns the peer of a channel.
    pub(crate) fn peer_of(&self, now: Instant, number: u16) -> Option<SocketAddr> {
        let of = self.channels.iter().find(|channel| channel.number == number)?;
        (of.until > now).then_some(of.peer)
    }

    /// Returns the channel of a peer.
    pub(crate) fn channel_of(&self, now: Instant, peer: SocketAddr) -> Option<u16> {
        let of = self.channels.iter().find(|channel| channel.peer == peer)?;
        (of.until > now).then_some(of.number)
    }

    /// Says whether so many bytes may go to a peer.
    pub(crate) fn may_send(&mut self, now: Instant, bytes: usize, limits: &TurnLimits) -> bool {
        let taken = self.up.take(now, bytes as u64, limits.bytes_per_second, limits.burst());
        taken || !holds(Defence::TurnBandwidth)
    }

    /// Says whether so many bytes may go to the client.
    pub(crate) fn may_receive(&mut self, now: Instant, bytes: usize, limits: &TurnLimits) -> bool {
        let taken = self.down.take(now, bytes as u64, limits.bytes_per_second, limits.burst());
        taken || !holds(Defence::TurnBandwidth)
    }
}
