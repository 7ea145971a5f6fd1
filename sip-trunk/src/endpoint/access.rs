//! Who may send anything at all: asked before a message is read.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// A range of addresses: `192.0.2.0/24`, `2001:db8::/32`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text names no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Before the slash stands no address.
    #[error("no address")]
    Address,
    /// The length of the prefix is none, or longer than the address.
    #[error("no prefix length of that address family")]
    Prefix,
    /// Bits after the prefix are set: `192.0.2.1/24` is an address and a network at once.
    #[error("the address has bits beyond the prefix")]
    HostBits,
}

impl Network {
    /// Says whether an address is in it. An IPv4 address mapped into IPv6 counts as what it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()) & mask_v4(self.prefix) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()) & mask_v6(self.prefix) == 0
            }
            _ => false,
        }
    }
}

fn mask_v4(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

fn mask_v6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0)
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        let full = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => full,
            Some(digits) => digits.parse().ok().filter(|p| *p <= full).ok_or(NetworkError::Prefix)?,
        };
        let beyond = match address {
            IpAddr::V4(address) => address.to_bits() & !mask_v4(prefix) != 0,
            IpAddr::V6(address) => address.to_bits() & !mask_v6(prefix) != 0,
        };
        if beyond {
            return Err(NetworkError::HostBits);
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Whose messages are read. What it does not let in is dropped unread, and counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessList {
    /// If there are any, only these are let in.
    pub allow: Vec<Network>,
    /// These are not, whatever else is said of them.
    pub deny: Vec<Network>,
}

impl AccessList {
    /// Says whether messages of an address are read.
    pub fn admits(&self, source: IpAddr) -> bool {
        let among = |list: &[Network]| list.iter().any(|network| network.contains(source));
        !among(&self.deny) && (self.allow.is_empty() || among(&self.allow))
    }
}

/// An access list, of one listener or of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRule {
    /// The address of the listener; `None`: every one.
    pub listener: Option<SocketAddr>,
    /// The list.
    pub list: AccessList,
}

/// Says whether every rule for a listener admits a source.
pub(crate) fn admits(rules: &[AccessRule], listener: SocketAddr, source: IpAddr) -> bool {
    let concerns = |rule: &&AccessRule| rule.listener.is_none_or(|local| local == listener);
    rules.iter().filter(concerns).all(|rule| rule.list.admits(source))
}
