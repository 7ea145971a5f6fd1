//! To whom may be relayed. A relay that sends anywhere reaches what is behind the firewall of
//! whoever runs it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::defence::{Defence, holds};

/// A network: an address and how many of its bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    address: IpAddr,
    bits: u8,
}

/// A text that is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a network such as 10.0.0.0/8 or fd00::/8")]
pub struct SubnetError(String);

impl Subnet {
    const fn v4(a: u8, b: u8, c: u8, bits: u8) -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::new(a, b, c, 0)), bits }
    }

    const fn v6(a: u16, b: u16, bits: u8) -> Self {
        Self { address: IpAddr::V6(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0)), bits }
    }

    /// Says whether an address is in the network.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip) {
            (IpAddr::V4(network), IpAddr::V4(ip)) => {
                (network.to_bits() ^ ip.to_bits()).checked_shr(32 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(ip)) => {
                (network.to_bits() ^ ip.to_bits()).checked_shr(128 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let error = || SubnetError(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().map_err(|_| error())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits: u8 = bits.unwrap_or(most);
        if bits > most {
            return Err(error());
        }
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// What is never relayed to unless it is allowed by name: everything that is not a unicast address
/// of the public network (RFC 6890), and what carries such an address within.
const CLOSED: [Subnet; 17] = [
    Subnet::v4(0, 0, 0, 8),
    Subnet::v4(10, 0, 0, 8),
    Subnet::v4(100, 64, 0, 10),
    Subnet::v4(127, 0, 0, 8),
    Subnet::v4(169, 254, 0, 16),
    Subnet::v4(172, 16, 0, 12),
    Subnet::v4(192, 0, 0, 24),
    Subnet::v4(192, 168, 0, 16),
    // Multicast, and everything above it up to the broadcast address.
    Subnet::v4(224, 0, 0, 3),
    // `::`, `::1` and what maps IPv4 (RFC 4291 2.5).
    Subnet::v6(0, 0, 8),
    // Translation to IPv4 (RFC 6052, RFC 8215), Teredo, 6to4: an IPv4 address within.
    Subnet::v6(0x64, 0xff9b, 32),
    Subnet::v6(0x2001, 0, 32),
    Subnet::v6(0x2002, 0, 16),
    // Unique local, link-local, site-local, multicast.
    Subnet::v6(0xfc00, 0, 7),
    Subnet::v6(0xfe80, 0, 10),
    Subnet::v6(0xfec0, 0, 10),
    Subnet::v6(0xff00, 0, 8),
];

/// The rule about peers to whom a client may send, and from whom it may hear.
#[derive(Clone, Debug, Default)]
pub struct PeerPolicy {
    /// Networks that are open though they are not public.
    pub allow: Vec<Subnet>,
    /// Addresses of the supernode itself.
    pub own: Vec<IpAddr>,
    /// Ports at its own addresses that may be reached: relayed addresses of others, and media.
    pub own_ports: Vec<RangeInclusive<u16>>,
}

impl PeerPolicy {
    /// Says whether a client may have a permission for an address, which has no port (RFC 8656 9).
    pub fn may_permit(&self, ip: IpAddr) -> bool {
        if !holds(Defence::TurnPeer) {
            return true;
        }
        // A mapped address is sent to as IPv4 by the system: it is judged as what it becomes.
        let ip = ip.to_canonical();
        let allowed = self.allow.iter().any(|network| network.contains(ip));
        if self.is_own(ip) {
            return !self.own_ports.is_empty();
        }
        allowed || !CLOSED.iter().any(|network| network.contains(ip))
    }

    /// Says whether data may go to an address or come from it.
    pub fn may_relay(&self, peer: SocketAddr) -> bool {
        if !holds(Defence::TurnPeer) {
            return true;
        }
        if peer.port() == 0 || !self.may_permit(peer.ip()) {
            return false;
        }
        !self.is_own(peer.ip().to_canonical())
            || self.own_ports.iter().any(|ports| ports.contains(&peer.port()))
    }

    /// Says whether an address is one of the supernode. Loopback is not among them: whoever allows
    /// it allows what listens there.
    fn is_own(&self, ip: IpAddr) -> bool {
        !ip.is_loopback() && self.own.contains(&ip)
    }
}
