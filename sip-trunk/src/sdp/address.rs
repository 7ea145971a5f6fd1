use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which media addresses a trunk may name. Packets are sent where a session description says, so
/// without a limit anybody who can call can aim them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPolicy {
    /// Whether IPv4 is spoken on this trunk.
    pub ipv4: bool,
    /// Whether IPv6 is spoken on this trunk.
    pub ipv6: bool,
    /// 127.0.0.0/8 and `::1`.
    pub loopback: bool,
    /// 10/8, 172.16/12, 192.168/16 (RFC 1918), 100.64/10 (RFC 6598) and fc00::/7 (RFC 4193).
    pub private: bool,
    /// 169.254/16 (RFC 3927), where clouds keep their metadata service, and fe80::/10.
    pub link_local: bool,
}

impl Default for AddressPolicy {
    /// Everything but link-local: PBXs live in private networks.
    fn default() -> Self {
        Self { ipv4: true, ipv6: true, loopback: true, private: true, link_local: false }
    }
}

/// Says whether media must not be sent to an address. Multicast, broadcast, reserved and
/// unspecified addresses are always denied; an IPv4 address inside an IPv6 one (RFC 4291 2.5.5.2,
/// RFC 6052 2.1) is judged as the IPv4 address that it is.
pub fn is_denied(address: IpAddr, policy: &AddressPolicy) -> bool {
    match address {
        IpAddr::V4(v4) => !policy.ipv4 || v4_denied(v4, policy),
        IpAddr::V6(v6) => match embedded(v6) {
            Some(v4) => v4_denied(v4, policy),
            None => !policy.ipv6 || v6_denied(v6, policy),
        },
    }
}

/// The IPv4 address inside a mapped or NAT64 address.
fn embedded(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    if let Some(v4) = v6.to_ipv4_mapped() {
        return Some(v4);
    }
    let [a, b, c, d, e, f, g, h] = v6.segments();
    ([a, b, c, d, e, f] == [0x64, 0xff9b, 0, 0, 0, 0]).then(|| {
        let [w, x] = g.to_be_bytes();
        let [y, z] = h.to_be_bytes();
        Ipv4Addr::new(w, x, y, z)
    })
}

fn v4_denied(v4: Ipv4Addr, policy: &AddressPolicy) -> bool {
    let [a, b, ..] = v4.octets();
    match a {
        0 | 224..=255 => true,
        127 => !policy.loopback,
        169 if b == 254 => !policy.link_local,
        100 if (64..128).contains(&b) => !policy.private,
        _ => v4.is_private() && !policy.private,
    }
}

fn v6_denied(v6: Ipv6Addr, policy: &AddressPolicy) -> bool {
    if v6.is_loopback() {
        return !policy.loopback;
    }
    match v6.segments()[0] {
        // Unspecified, IPv4-compatible (deprecated) and the rest of the reserved first block.
        0 => true,
        first if first & 0xff00 == 0xff00 => true,
        first if first & 0xffc0 == 0xfe80 => !policy.link_local,
        // Site-local, deprecated by RFC 3879.
        first if first & 0xffc0 == 0xfec0 => true,
        first if first & 0xfe00 == 0xfc00 => !policy.private,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_judged_by_what_they_are() {
        let open = AddressPolicy::default();
        let closed = AddressPolicy { loopback: false, private: false, ..open };
        // Address, denied by default, denied towards a carrier in the open network.
        let table = [
            ("192.0.2.1", false, false),
            ("8.8.8.8", false, false),
            ("127.0.0.1", false, true),
            ("127.255.0.1", false, true),
            ("10.1.2.3", false, true),
            ("172.16.0.1", false, true),
            ("172.32.0.1", false, false),
            ("192.168.1.1", false, true),
            ("100.64.0.1", false, true),
            ("100.128.0.1", false, false),
            ("169.254.169.254", true, true),
            ("0.0.0.0", true, true),
            ("0.1.2.3", true, true),
            ("224.0.0.1", true, true),
            ("240.0.0.1", true, true),
            ("255.255.255.255", true, true),
            ("2001:db8::1", false, false),
            ("::1", false, true),
            ("::", true, true),
            ("::7f00:1", true, true),
            ("ff02::1", true, true),
            ("fe80::1", true, true),
            ("fec0::1", true, true),
            ("fd00::1", false, true),
            ("::ffff:127.0.0.1", false, true),
            ("::ffff:10.0.0.1", false, true),
            ("::ffff:169.254.169.254", true, true),
            ("::ffff:255.255.255.255", true, true),
            ("::ffff:192.0.2.1", false, false),
            ("64:ff9b::a9fe:a9fe", true, true),
            ("64:ff9b::7f00:1", false, true),
            ("64:ff9b::c000:201", false, false),
        ];
        for (text, by_default, in_the_open) in table {
            let address = text.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            assert_eq!(is_denied(address, &open), by_default, "{text}");
            assert_eq!(is_denied(address, &closed), in_the_open, "{text}");
        }
        let only_v4 = AddressPolicy { ipv6: false, ..open };
        assert!(is_denied(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), &only_v4));
    }
}
