//! `[overlay.join]`.

use super::*;

fn with(table: &str) -> Result<Config, ConfigError> {
    parse(&GOOD.replacen("\n[sip]\n", &format!("\n[overlay.join]\n{table}\n\n[sip]\n"), 1))
}

#[test]
fn every_way_of_joining_is_read_and_none_is_taken_without_being_written() {
    assert_eq!(parse(GOOD).unwrap().overlay.join, BootstrapWays::default());
    let peer = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
    let text = format!(
        r#"
list_file = "bootstrap.pem"
dns = ["boot.example.org", "boot.example.net"]
mirrors = ["https://example.org/causeway.list"]
mirror_ca_file = "/etc/ssl/mirrors.pem"
peers_file = "/var/lib/causeway/peers"
lan = true
invites = ["causeway:invite?v=1&a=/ip4/192.0.2.1/tcp/4001/p2p/{peer}"]
"#
    );
    let join = with(&text).unwrap().overlay.join;
    assert_eq!(join.list_file.as_deref(), Some(Path::new("/etc/causeway/bootstrap.pem")));
    assert_eq!((join.dns_names.len(), join.mirrors.len(), join.invites.len(), join.lan), (2, 1, 1, true));
    assert_eq!(join.peers_file.as_deref(), Some(Path::new("/var/lib/causeway/peers")));
    assert_eq!(join.mirror_ca_file.as_deref(), Some(Path::new("/etc/ssl/mirrors.pem")));
}

#[test]
fn what_cannot_be_asked_is_refused_with_what_to_write() {
    for (line, expected) in [
        (
            "dns = [\"boot example\"]",
            "overlay.join.dns[0]: \"boot example\" cannot be asked; write a domain name such as \"boot.example.org\"",
        ),
        (
            "mirrors = [\"https://a.example/\", \"http://b.example/\"]",
            "overlay.join.mirrors[1]: \"http://b.example/\" cannot be asked; write an address that begins with https://",
        ),
        (
            "invites = [\"hello\"]",
            "overlay.join.invites[0]: this is no invite: one begins with causeway:invite? or is an https address with # in it; paste the link as it was sent, or make one with `causeway overlay invite`",
        ),
        (
            "dns = [\"a\", \"b\", \"c\", \"d\", \"e\", \"f\", \"g\", \"h\", \"i\"]",
            "overlay.join.dns: 9 are more than 8; leave some out",
        ),
    ] {
        let said = with(line).unwrap_err().to_string();
        assert!(said.ends_with(expected) && said.contains("causeway.toml:"), "{said}");
    }
}
