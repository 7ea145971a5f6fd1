//! The `[overlay.turn]` table.

use super::*;

fn with(lines: &str) -> Result<Config, ConfigError> {
    parse(&GOOD.replacen("[sip]\n", &format!("[overlay.turn]\n{lines}\n\n[sip]\n"), 1))
}

#[test]
fn a_relay_is_configured_by_its_addresses_alone() {
    assert!(parse(GOOD).unwrap().overlay.turn.is_none());
    let turn = with("udp = [\"192.0.2.1:3478\"]").unwrap().overlay.turn.unwrap();
    assert_eq!(turn.udp, ["192.0.2.1:3478".parse().unwrap()]);
    assert_eq!((turn.relay_ports, turn.allocations, turn.kbit_s), (49_152..=65_535, 4_096, 200));
    let whole =
        "udp = [\"0.0.0.0:3478\"]\ntls = [\"0.0.0.0:443\"]\ncertificate = \"turn.pem\"\nkey = \"/k.pem\"
name = \"turn.example.com\"\nexternal = [\"203.0.113.9\"]\nallow = [\"10.0.0.0/8\"]\nkbit_s = 100";
    let turn = with(whole).unwrap().overlay.turn.unwrap();
    assert_eq!(turn.certificate, Some(("/etc/causeway/turn.pem".into(), "/k.pem".into())));
    assert_eq!((turn.external.len(), turn.allow.len(), turn.kbit_s), (1, 1, 100));
    let beside =
        GOOD.replacen("bootstrap = []", "bootstrap = []\nexternal = [\"/ip4/203.0.113.9/tcp/1\"]", 1);
    let beside = beside.replacen("[sip]\n", "[overlay.turn]\nudp = [\"0.0.0.0:3478\"]\n\n[sip]\n", 1);
    let turn = parse(&beside).unwrap().overlay.turn.unwrap();
    assert_eq!(
        turn.external,
        ["203.0.113.9".parse::<IpAddr>().unwrap()],
        "the node's own, where none is written"
    );
}

#[test]
fn every_mistake_about_the_relay_names_key_and_remedy() {
    for (lines, expected) in [
        (
            "",
            "overlay.turn: no address to listen on; write udp = [\"0.0.0.0:3478\"], and tcp and tls for users whose network stops datagrams",
        ),
        (
            "udp = [\"x\"]",
            "overlay.turn.udp[0]: \"x\": invalid socket address syntax; write ADDRESS:PORT, such as \"0.0.0.0:3478\"",
        ),
        (
            "udp = [\"0.0.0.0:3478\"]",
            "overlay.turn.external: nobody can be told to connect to 0.0.0.0:3478; add external = [\"ADDRESS\"]: where this host is reached",
        ),
        (
            "tls = [\"192.0.2.1:443\"]",
            "overlay.turn.tls: there is no certificate for it; add certificate = \"PATH\" and key = \"PATH\" to [overlay.turn]",
        ),
        (
            "udp = [\"192.0.2.1:1\"]\nkey = \"k\"",
            "overlay.turn.certificate: a certificate goes with its key; name both files: certificate and key",
        ),
        (
            "udp = [\"192.0.2.1:1\"]\nname = \"a b\"",
            "overlay.turn.name: \"a b\" is no name of a host; write the name that the certificate holds, such as \"turn.example.com\"",
        ),
        (
            "udp = [\"192.0.2.1:1\"]\nallow = [\"10/8\"]",
            "overlay.turn.allow[0]: \"10/8\": `10/8` is not a network such as 10.0.0.0/8 or fd00::/8; write such a one",
        ),
        (
            "udp = [\"192.0.2.1:1\"]\nrelay = [\"0.0.0.0\"]",
            "overlay.turn.relay[0]: is any address; write the one that others reach",
        ),
        (
            "udp = [\"192.0.2.1:1\"]\nexternal = [\"192.0.2.1\", \"192.0.2.2\"]",
            "overlay.turn.external[1]: is the second of its family; write one of IPv4 and one of IPv6 at most",
        ),
        (
            "udp = [\"192.0.2.1:1\"]\nrelay_ports = \"21050-22000\"",
            "overlay.turn.relay_ports: overlaps with media.overlay_ports; give relayed addresses and media ranges apart",
        ),
        (
            "udp = [\"192.0.2.1:1\"]\nkbit_s = 1",
            "overlay.turn.kbit_s: 1 is out of range; write a number from 64 to 100000",
        ),
        ("udp = [\"192.0.2.1:1\"]\nuser = \"x\"", "unknown field `user`"),
    ] {
        let error = with(lines).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
