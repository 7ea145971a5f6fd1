//! The `[overlay.turn]` table.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use p2p_edge::turn::Subnet;

use super::{Check, Checked};
use crate::config::{Media, Overlay, Role, Turn, shape};

impl Check<'_> {
    pub(super) fn turn(&self, raw: shape::Turn, external: &[String]) -> Checked<Turn> {
        let key = |name: &str| format!("overlay.turn.{name}");
        let (udp, tcp, tls) = (raw.udp.as_slice(), raw.tcp.as_slice(), raw.tls.as_slice());
        if udp.is_empty() && tcp.is_empty() && tls.is_empty() {
            let remedy =
                "write udp = [\"0.0.0.0:3478\"], and tcp and tls for users whose network stops datagrams";
            return self.error("overlay.turn", "no address to listen on", remedy);
        }
        let listen = |name: &str, texts: &[String]| -> Checked<Vec<SocketAddr>> {
            let one = |(index, text): (usize, &String)| {
                self.parsed(
                    &format!("overlay.turn.{name}[{index}]"),
                    text,
                    "write ADDRESS:PORT, such as \"0.0.0.0:3478\"",
                )
            };
            texts.iter().enumerate().map(one).collect()
        };
        let (udp, tcp, tls) = (listen("udp", udp)?, listen("tcp", tcp)?, listen("tls", tls)?);
        let certificate = match (raw.certificate, raw.key) {
            (Some(certificate), Some(key)) => Some((self.beside(certificate), self.beside(key))),
            (None, None) => None,
            _ => {
                let remedy = "name both files: certificate and key";
                return self.error(key("certificate"), "a certificate goes with its key", remedy);
            }
        };
        if certificate.is_none() && !tls.is_empty() {
            let remedy = "add certificate = \"PATH\" and key = \"PATH\" to [overlay.turn]";
            return self.error(key("tls"), "there is no certificate for it", remedy);
        }
        let is_name = |name: &String| {
            !name.is_empty()
                && name.len() <= 253
                && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'))
        };
        if let Some(name) = raw.name.as_ref().filter(|name| !is_name(name)) {
            let remedy = "write the name that the certificate holds, such as \"turn.example.com\"";
            return self.error(key("name"), format!("\"{name}\" is no name of a host"), remedy);
        }
        let external = match raw.external {
            Some(list) => self.addresses(&key("external"), &list)?,
            None => external.iter().filter_map(|address| ip_of(address)).collect(),
        };
        let unspecified =
            udp.iter().chain(&tcp).chain(&tls).find(|at| {
                at.ip().is_unspecified() && !external.iter().any(|ip| ip.is_ipv4() == at.is_ipv4())
            });
        if let Some(at) = unspecified {
            let remedy = "add external = [\"ADDRESS\"]: where this host is reached";
            return self.error(key("external"), format!("nobody can be told to connect to {at}"), remedy);
        }
        let ports = raw.relay_ports.as_deref().unwrap_or("49152-65535");
        Ok(Turn {
            udp,
            tcp,
            tls,
            certificate,
            name: raw.name,
            external,
            relay: self.addresses(&key("relay"), &raw.relay)?,
            relay_ports: self.ports(&key("relay_ports"), ports)?,
            allow: raw
                .allow
                .iter()
                .enumerate()
                .map(|(index, text)| {
                    self.parsed::<Subnet>(&format!("overlay.turn.allow[{index}]"), text, "write such a one")
                })
                .collect::<Checked<Vec<Subnet>>>()?,
            allocations: self.within(&key("allocations"), raw.allocations, 4_096, 1..=60_000)? as usize,
            allocations_per_user: self.within(
                &key("allocations_per_user"),
                raw.allocations_per_user,
                16,
                1..=1_000,
            )? as usize,
            kbit_s: self.within(&key("kbit_s"), raw.kbit_s, 200, 64..=100_000)? as u64,
            lifetime: self.seconds(&key("lifetime_s"), raw.lifetime_s, 8 * 3600, 600..=86_400)?,
        })
    }

    /// Relayed addresses and media may not take each other's ports.
    pub(super) fn turn_fits(&self, overlay: &Overlay, media: &Media) -> Checked<()> {
        let Some(turn) = overlay.turn.as_ref().filter(|_| overlay.role == Role::Gateway) else {
            return Ok(());
        };
        for (name, taken) in [("trunk_ports", &media.trunk_ports), ("overlay_ports", &media.overlay_ports)] {
            if overlap(&turn.relay_ports, taken) {
                let remedy = "give relayed addresses and media ranges apart";
                return self.error("overlay.turn.relay_ports", format!("overlaps with media.{name}"), remedy);
            }
        }
        Ok(())
    }

    fn addresses(&self, key: &str, list: &[String]) -> Checked<Vec<IpAddr>> {
        let mut found: Vec<IpAddr> = Vec::new();
        for (index, text) in list.iter().enumerate() {
            let at = format!("{key}[{index}]");
            let ip: IpAddr = self.parsed(&at, text, "write an address such as \"203.0.113.9\"")?;
            if ip.is_unspecified() {
                return self.error(at, "is any address", "write the one that others reach");
            }
            if found.iter().any(|known| known.is_ipv4() == ip.is_ipv4()) {
                return self.error(
                    at,
                    "is the second of its family",
                    "write one of IPv4 and one of IPv6 at most",
                );
            }
            found.push(ip);
        }
        Ok(found)
    }
}

fn overlap(one: &RangeInclusive<u16>, other: &RangeInclusive<u16>) -> bool {
    one.start() <= other.end() && other.start() <= one.end()
}

/// Returns the network address that a multiaddress begins with.
fn ip_of(address: &str) -> Option<IpAddr> {
    let mut parts = address.split('/').skip(1);
    match (parts.next()?, parts.next()?) {
        ("ip4" | "ip6", ip) => ip.parse().ok(),
        _ => None,
    }
}
