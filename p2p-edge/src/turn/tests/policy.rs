//! To whom is relayed.

use std::net::IpAddr;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn only_public_unicast_addresses_are_open() {
    let policy = PeerPolicy::default();
    for open in [
        "8.8.8.8",
        "100.63.255.255",
        "100.128.0.1",
        "172.15.0.1",
        "172.32.0.1",
        "192.0.1.1",
        "2a00::1",
        "2001:4860::1",
    ] {
        assert!(policy.may_permit(ip(open)), "{open}");
    }
    for closed in [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.168.1.1",
        "224.0.0.1",
        "239.1.2.3",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::7f00:1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2001::1",
        "2002:7f00:1::",
        "fc00::1",
        "fdff::1",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "ff02::1",
    ] {
        assert!(!policy.may_permit(ip(closed)), "{closed}");
    }
    assert!(policy.may_permit(ip("::ffff:8.8.8.8")), "what it becomes is open");
    assert!(!policy.may_relay(at("8.8.8.8:0")));
}

#[test]
fn a_network_may_be_allowed_by_name() {
    let allow = ["127.0.0.0/8", "fd00::/8", "10.1.2.3"].map(|text| text.parse().unwrap()).to_vec();
    let policy = PeerPolicy { allow, own: vec![ip("127.0.0.1")], ..PeerPolicy::default() };
    for (address, open) in [
        ("127.0.0.1:80", true),
        ("[::1]:80", false),
        ("[fd00::1]:80", true),
        ("10.1.2.3:1", true),
        ("10.1.2.4:1", false),
    ] {
        assert_eq!(policy.may_relay(at(address)), open, "{address}");
    }
}

/// A gateway whose user is behind a firewall that lets no datagrams through: its media is reached, its
/// other services are not, in a public network as in an allowed one.
#[test]
fn of_the_own_machine_only_media_is_reached() {
    let policy = PeerPolicy {
        allow: vec!["10.0.0.0/8".parse().unwrap()],
        own: vec![ip("203.0.113.9"), ip("10.0.0.9")],
        own_ports: vec![20_000..=20_010],
    };
    for (address, open) in [
        ("203.0.113.9:20000", true),
        ("203.0.113.9:20010", true),
        ("203.0.113.9:20011", false),
        ("203.0.113.9:22", false),
        ("[::ffff:203.0.113.9]:22", false),
        ("10.0.0.9:8080", false),
        ("10.0.0.9:20000", true),
        ("10.0.0.8:8080", true),
    ] {
        assert_eq!(policy.may_relay(at(address)), open, "{address}");
    }
    let closed = PeerPolicy { own_ports: Vec::new(), ..policy };
    assert!(!closed.may_permit(ip("203.0.113.9")));
}

#[test]
fn networks_are_read_and_written() {
    for text in ["10.0.0.0/8", "0.0.0.0/0", "192.0.2.1/32", "fd00::/8", "::/0"] {
        assert_eq!(text.parse::<Subnet>().unwrap().to_string(), text);
    }
    assert_eq!("192.0.2.1".parse::<Subnet>().unwrap().to_string(), "192.0.2.1/32");
    assert!("0.0.0.0/0".parse::<Subnet>().unwrap().contains(ip("1.2.3.4")));
    assert!("::/0".parse::<Subnet>().unwrap().contains(ip("2001:db8::1")));
    assert!(!"::/0".parse::<Subnet>().unwrap().contains(ip("1.2.3.4")));
    for wrong in ["", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "10.0.0.0/", "10.0.0.0/-1", "x"] {
        let error = wrong.parse::<Subnet>().unwrap_err();
        assert_eq!(error.to_string(), format!("`{wrong}` is not a network such as 10.0.0.0/8 or fd00::/8"));
    }
}
