//! Which servers are asked for what.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::server::{IceServer, IceTransport};
use super::turn::Credentials;

/// Servers asked for how one address is seen, and servers that relay over UDP for one family of addresses: a second in
/// the place of a first that does not answer.
const SERVERS: usize = 2;
/// Streams tried at once.
const STREAMS: usize = 4;
/// How long UDP may stay silent before relays are sought over streams.
const UDP_PATIENCE: Duration = Duration::from_millis(100);

/// Who is on the other side of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// A gateway: on a public address, it answers where it hears from. A relay is needed only where UDP goes nowhere.
    Gateway,
    /// Another user, behind whatever network.
    User,
}

/// What a call's media sets out to find.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// Socket by socket, the servers that are asked how it is seen.
    pub(super) probes: Vec<(usize, SocketAddr)>,
    /// Sockets by which relays are asked for.
    pub(super) relays: Vec<(usize, IceServer, Credentials)>,
    /// Relays by streams.
    pub(super) streams: Vec<(IceServer, Credentials)>,
    /// How long UDP may stay silent before those are asked for.
    pub(super) stream_after: Duration,
}

impl Plan {
    /// Makes a plan for sockets on these addresses. `udp_dead`: UDP was seen to go nowhere.
    pub(crate) fn new(addresses: &[IpAddr], servers: &[IceServer], reach: Reach, udp_dead: bool) -> Self {
        let mut plan = Self { stream_after: UDP_PATIENCE, ..Self::default() };
        if udp_dead {
            plan.stream_after = Duration::ZERO;
        }
        let by_udp = |ipv4: bool| {
            let of_family = move |server: &&IceServer| {
                server.transport == IceTransport::Udp && server.address.is_ipv4() == ipv4
            };
            servers.iter().filter(of_family)
        };
        let mut families = [false; 2];
        for (at, address) in addresses.iter().enumerate() {
            let usable = |server: &&IceServer| can_reach(*address, server.address);
            let near = by_udp(address.is_ipv4()).filter(usable);
            plan.probes.extend(near.clone().take(SERVERS).map(|server| (at, server.address)));
            // The first address of a family is that of the default route.
            let first = !std::mem::replace(&mut families[usize::from(address.is_ipv4())], true);
            if first && reach == Reach::User {
                let relays =
                    near.filter_map(|server| Some((at, server.clone(), server.credentials.clone()?)));
                plan.relays.extend(relays.take(SERVERS));
            }
        }
        let streams = servers.iter().filter(|server| {
            server.transport != IceTransport::Udp
                && addresses.iter().any(|address| can_reach(*address, server.address))
        });
        let streams = streams.filter_map(|server| Some((server.clone(), server.credentials.clone()?)));
        plan.streams.extend(streams.take(STREAMS));
        plan
    }

    /// Says whether there is nobody to ask.
    pub(super) fn is_empty(&self) -> bool {
        self.probes.is_empty() && self.relays.is_empty() && self.streams.is_empty()
    }
}

/// Loopback leads nowhere else, and nothing else leads there.
fn can_reach(address: IpAddr, server: SocketAddr) -> bool {
    address.is_ipv4() == server.is_ipv4() && (!address.is_loopback() || server.ip().is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn servers() -> Vec<IceServer> {
        let texts = [
            "turn:192.0.2.1:3478,u,p",
            "turn:192.0.2.1:3478?transport=tcp,u,p",
            "turns:192.0.2.1:443,u,p",
            "turn:[2001:db8::1]:3478,u,p",
            "turn:192.0.2.2:3478,u,p",
            "turn:192.0.2.3:3478,u,p",
        ];
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn every_socket_asks_two_servers_of_its_family_and_the_first_asks_for_relays() {
        let addresses = addresses(&["192.168.1.2", "10.8.0.1", "2001:db8:1::2"]);
        let plan = Plan::new(&addresses, &servers(), Reach::User, false);
        let probes: Vec<_> = plan.probes.iter().map(|(at, server)| format!("{at} {server}")).collect();
        let of = |at: usize| [format!("{at} 192.0.2.1:3478"), format!("{at} 192.0.2.2:3478")];
        assert_eq!(probes, [&of(0)[..], &of(1), &["2 [2001:db8::1]:3478".to_owned()]].concat());
        let relays: Vec<_> =
            plan.relays.iter().map(|(at, server, _)| (*at, server.address.to_string())).collect();
        let expected = [(0, "192.0.2.1:3478"), (0, "192.0.2.2:3478"), (2, "[2001:db8::1]:3478")];
        assert_eq!(relays, expected.map(|(at, server)| (at, server.to_owned())));
        assert_eq!(plan.streams.len(), 2);
        assert_eq!(plan.stream_after, UDP_PATIENCE);
    }

    #[test]
    fn a_gateway_needs_no_relay_but_where_udp_goes_nowhere() {
        let plan = Plan::new(&addresses(&["192.168.1.2"]), &servers(), Reach::Gateway, true);
        assert!(plan.relays.is_empty());
        assert_eq!((plan.streams.len(), plan.stream_after), (2, Duration::ZERO));
        // UDP may be back: it is asked all the same.
        assert_eq!(plan.probes.len(), 2);
    }

    #[test]
    fn nobody_is_asked_who_cannot_be_reached() {
        assert!(Plan::new(&addresses(&["127.0.0.1"]), &servers(), Reach::User, false).is_empty());
        assert!(Plan::new(&addresses(&["192.168.1.2"]), &[], Reach::User, false).is_empty());
        let near = ["turn:127.0.0.9:3478,u,p".parse().unwrap()];
        assert!(!Plan::new(&addresses(&["127.0.0.1"]), &near, Reach::User, false).is_empty());
    }
}
