//! The addresses of this machine on which media can be had.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::str::FromStr;

/// Addresses of one family that are used at most.
const MAX_PER_FAMILY: usize = 3;

/// Where media is sent and received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaAddress {
    /// All addresses of this machine that others may reach: up to three of IPv4 and of IPv6 each.
    Auto,
    /// This address of an interface.
    Fixed(IpAddr),
}

impl From<IpAddr> for MediaAddress {
    fn from(address: IpAddr) -> Self {
        MediaAddress::Fixed(address)
    }
}

impl FromStr for MediaAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(MediaAddress::Auto),
            address => address
                .parse()
                .map(MediaAddress::Fixed)
                .map_err(|_| format!("{address:?} is neither `auto` nor an IP address")),
        }
    }
}

impl MediaAddress {
    /// Returns the addresses to use now: they change as a machine moves between networks.
    pub(crate) fn addresses(self) -> Vec<IpAddr> {
        match self {
            MediaAddress::Fixed(address) => vec![address],
            MediaAddress::Auto => {
                // A machine whose interfaces cannot be listed may still have a way out.
                let listed = if_addrs::get_if_addrs().unwrap_or_default();
                let listed =
                    listed.iter().filter(|interface| interface.is_oper_up()).map(if_addrs::Interface::ip);
                let first: Vec<IpAddr> =
                    ["192.0.2.1:9", "[2001:db8::1]:9"].into_iter().filter_map(source_to).collect();
                usable(&first, listed)
            }
        }
    }
}

/// Returns the address from which packets to a destination would leave. Sends nothing.
fn source_to(destination: &str) -> Option<IpAddr> {
    let destination: SocketAddr = destination.parse().ok()?;
    let any = if destination.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(destination).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Picks the addresses that others may reach: those of the default routes first, then the others as they come. A machine
/// without a network has loopback.
fn usable(first: &[IpAddr], listed: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut chosen: Vec<IpAddr> = Vec::new();
    for address in first.iter().copied().chain(listed) {
        let family = chosen.iter().filter(|known| known.is_ipv4() == address.is_ipv4()).count();
        if is_usable(address) && !chosen.contains(&address) && family < MAX_PER_FAMILY {
            chosen.push(address);
        }
    }
    if chosen.is_empty() {
        chosen.push(IpAddr::from([127, 0, 0, 1]));
    }
    chosen
}

fn is_usable(address: IpAddr) -> bool {
    // RFC 8445 5.1.1.1: no loopback, no link-local and no IPv4 in the form of IPv6.
    let usable = match address {
        IpAddr::V4(ip) => !ip.is_link_local(),
        IpAddr::V6(ip) => !is_link_local(ip) && ip.to_ipv4_mapped().is_none(),
    };
    usable && !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
}

/// RFC 4291 2.5.6.
fn is_link_local(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xffc0 == 0xfe80
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn those_of_the_default_routes_come_first_and_each_once() {
        let first = addresses(&["192.168.1.2", "2001:db8::2"]);
        let listed = addresses(&[
            "127.0.0.1",
            "10.8.0.1",
            "192.168.1.2",
            "169.254.1.1",
            "::1",
            "fe80::1",
            "2001:db8::2",
        ]);
        let chosen = usable(&first, listed.into_iter());
        assert_eq!(chosen, addresses(&["192.168.1.2", "2001:db8::2", "10.8.0.1"]));
    }

    #[test]
    fn their_number_is_bounded_in_each_family() {
        let many = (1..=20).map(|n| IpAddr::from([10, 0, 0, n])).chain(addresses(&["2001:db8::2"]));
        let chosen = usable(&[], many);
        assert_eq!(chosen, addresses(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "2001:db8::2"]));
    }

    #[test]
    fn a_machine_without_a_network_talks_to_itself() {
        assert_eq!(usable(&[], addresses(&["127.0.0.1", "::1"]).into_iter()), addresses(&["127.0.0.1"]));
    }

    #[test]
    fn the_setting_is_auto_or_an_address() {
        assert_eq!("auto".parse(), Ok(MediaAddress::Auto));
        assert_eq!("::1".parse(), Ok(MediaAddress::Fixed("::1".parse().unwrap())));
        assert!("eth0".parse::<MediaAddress>().is_err());
    }
}
