//! Each broken file with the exact message that an operator reads.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::*;

const GOOD: &str = r#"
[overlay]
role = "gateway"
identity_file = "gateway.pem"
trust_file = "/etc/causeway/root.pem"
listen = ["/ip4/127.0.0.1/udp/4001/quic-v1"]
bootstrap = []
offer = ["+44", "+1"]

[sip]
listen = ["udp:127.0.0.1:5060", "tcp:127.0.0.1:5060"]

[media]
trunk_ports = "20000-20099"
overlay_ports = "21000-21099"

[[trunks]]
name = "pbx"
target = "udp:127.0.0.10"

[[routes]]
prefix = "+4420"
trunks = ["pbx"]

[[routes]]
prefix = "+44207"
trunks = ["pbx"]

[numbers]
"+15551000" = "Alice"

[admin]
listen = "127.0.0.1:0"
tokens = [{ sha256 = "0000000000000000000000000000000000000000000000000000000000000000", scope = "read" }]
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("/etc/causeway/causeway.toml"), text)
}

#[test]
fn a_good_file_is_read_whole() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.overlay.identity_file, Path::new("/etc/causeway/gateway.pem"));
    assert_eq!(config.overlay.offer, ["44", "1"]);
    let trunk = &config.trunks[0];
    assert_eq!(trunk.target, "127.0.0.10:5060".parse().unwrap());
    assert_eq!(trunk.sources, ["127.0.0.10".parse::<IpAddr>().unwrap()]);
    assert_eq!(trunk.codecs, [Codec::Pcma, Codec::Pcmu]);
    let prefixes: Vec<&str> = config.routes.iter().map(|route| route.prefix.as_str()).collect();
    assert_eq!(prefixes, ["44207", "4420"], "the longest prefix comes first");
    assert_eq!(config.numbers[&"+15551000".parse().unwrap()].as_str(), "alice");
}

/// Replaces one piece of the good file and returns what is said about it.
fn broken(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    parse(&GOOD.replacen(from, to, 1)).unwrap_err().to_string()
}

#[test]
fn every_mistake_names_file_line_key_and_remedy() {
    let cases = [
        (
            "role = \"gateway\"",
            "role = \"boss\"",
            "/etc/causeway/causeway.toml:3: overlay.role: \"boss\" is no role; write \"gateway\" or \"supernode\"",
        ),
        (
            "role = \"gateway\"",
            "role = \"supernode\"",
            "/etc/causeway/causeway.toml:17: trunks: a supernode has no trunks and numbers; set overlay.role = \"gateway\"",
        ),
        (
            "listen = [\"udp:127.0.0.1:5060\", \"tcp:127.0.0.1:5060\"]",
            "listen = [\"udp:127.0.0.1:5060\", \"tls:127.0.0.1:5061\"]",
            "/etc/causeway/causeway.toml:11: sip.listen[1]: \"tls:127.0.0.1:5061\" names no transport; begin with udp: or tcp:, such as \"udp:192.0.2.1:5060\"",
        ),
        (
            "udp:127.0.0.1:5060",
            "udp:0.0.0.0:5060",
            "/etc/causeway/causeway.toml:11: sip.listen[0]: an unspecified address cannot be told to a trunk; write the address that trunks reach this host by; it stands in Via and Contact",
        ),
        (
            "trunk_ports = \"20000-20099\"",
            "trunk_ports = \"20099-20000\"",
            "/etc/causeway/causeway.toml:14: media.trunk_ports: \"20099-20000\" is no range of ports; write FIRST-LAST with 1024 or more, such as \"20000-27999\"",
        ),
        (
            "overlay_ports = \"21000-21099\"",
            "overlay_ports = \"20050-21099\"",
            "/etc/causeway/causeway.toml:15: media.overlay_ports: overlaps with media.trunk_ports; give the two legs ranges apart, or addresses of their own",
        ),
        (
            "name = \"pbx\"",
            "name = \"PBX\"",
            "/etc/causeway/causeway.toml:18: trunks[0].name: \"PBX\": a trunk name is 1 to 32 of a-z 0-9 - _, beginning with a letter; write a short name such as \"carrier-1\"",
        ),
        (
            "target = \"udp:127.0.0.10\"",
            "target = \"udp:127.0.0.10\"\ncodecs = [\"G729\"]",
            "/etc/causeway/causeway.toml:20: trunks[0].codecs: \"G729\" is no codec of a trunk; write \"PCMA\", \"PCMU\"",
        ),
        (
            "target = \"udp:127.0.0.10\"",
            "target = \"udp:127.0.0.10\"\nusername = \"gw\"",
            "/etc/causeway/causeway.toml:20: trunks[0].username: no password beside it; add password_file = \"PATH\"",
        ),
        (
            "prefix = \"+44207\"",
            "prefix = \"+4420\"",
            "/etc/causeway/causeway.toml:26: routes[1].prefix: an earlier route has the prefix \"+4420\"; list several trunks in one route instead",
        ),
        (
            "trunks = [\"pbx\"]",
            "trunks = [\"carrier\"]",
            "/etc/causeway/causeway.toml:23: routes[0].trunks: no trunk is called \"carrier\"; name a [[trunks]] entry of this file",
        ),
        (
            "\"+15551000\" = \"Alice\"",
            "\"15551000\" = \"Alice\"",
            "/etc/causeway/causeway.toml:30: numbers.15551000: \"15551000\": a number is written in E.164 form and begins with +; write \"+442079460018\" = \"alice\"",
        ),
        (
            "scope = \"read\"",
            "scope = \"root\"",
            "/etc/causeway/causeway.toml:34: admin.tokens[0].scope: \"root\" is no scope; write \"read\" or \"operate\"",
        ),
    ];
    for (from, to, expected) in cases {
        assert_eq!(broken(from, to), expected);
    }
}

#[test]
fn unknown_keys_and_broken_syntax_tell_their_line() {
    let unknown = broken("[sip]\n", "[sip]\nlissten = 1\n");
    assert!(unknown.starts_with("/etc/causeway/causeway.toml:11: unknown field `lissten`"), "{unknown}");
    let syntax = broken("[media]", "[media");
    assert!(syntax.starts_with("/etc/causeway/causeway.toml:13: "), "{syntax}");
    let kind = broken("name = \"pbx\"", "name = 7");
    assert!(kind.starts_with("/etc/causeway/causeway.toml:18: invalid type: integer `7`"), "{kind}");
}

#[test]
fn two_trunks_cannot_share_a_source() {
    let second = "[[trunks]]\nname = \"b\"\ntarget = \"udp:127.0.0.11\"\nsources = [\"127.0.0.10\"]\n\n[[routes]]\nprefix = \"+4420\"";
    let said = broken("[[routes]]\nprefix = \"+4420\"", second);
    assert_eq!(
        said,
        "/etc/causeway/causeway.toml:24: trunks[1].sources: 127.0.0.10 is a source of trunk \"pbx\" already; a source address must tell one trunk from another"
    );
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Path::new("/nonexistent/causeway.toml")).unwrap_err().to_string();
    assert!(error.starts_with("/nonexistent/causeway.toml: No such file"), "{error}");
    assert!(error.ends_with("give the path of a readable file with --config"), "{error}");
}
