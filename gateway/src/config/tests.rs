//! Each broken file with the exact message that an operator reads.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::*;

mod emergency;
mod secure;
mod sessions;
mod telemetry;
mod turn;

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

#[test]
fn media_is_received_as_is_written_and_with_recvmmsg_otherwise() {
    let receive = |line: &str| parse(&GOOD.replacen("[media]\n", &format!("[media]\n{line}\n"), 1));
    for (line, expected) in [
        ("", Receive::Recvmmsg),
        ("receive = \"recvmmsg\"", Receive::Recvmmsg),
        ("receive = \"io_uring\"", Receive::IoUring),
    ] {
        assert_eq!(receive(line).unwrap().media.receive, expected, "{line}");
    }
    let refused = receive("receive = \"epoll\"").unwrap_err().to_string();
    let expected = "media.receive: \"epoll\" is no choice; write \"recvmmsg\" or \"io_uring\"";
    assert!(refused.ends_with(expected), "{refused}");
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
            "/etc/causeway/causeway.toml:17: trunks: a supernode has no trunks, numbers and offers; set overlay.role = \"gateway\"",
        ),
        (
            "listen = [\"udp:127.0.0.1:5060\", \"tcp:127.0.0.1:5060\"]",
            "listen = [\"udp:127.0.0.1:5060\", \"sctp:127.0.0.1:5061\"]",
            "/etc/causeway/causeway.toml:11: sip.listen[1]: \"sctp:127.0.0.1:5061\" names no transport; begin with udp:, tcp:, tls:, ws: or wss:, such as \"udp:192.0.2.1:5060\"",
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
            "/etc/causeway/causeway.toml:20: trunks[0].codecs: \"G729\" is no codec of a trunk; write \"PCMA\", \"PCMU\", \"G722\", \"opus\"",
        ),
        (
            "target = \"udp:127.0.0.10\"",
            "target = \"udp:127.0.0.10\"\nquality_reports = \"collector@example.com\"",
            "/etc/causeway/causeway.toml:20: trunks[0].quality_reports: \"collector@example.com\": a collector is a sip: URI, such as \"sip:collector@example.com\"; write the URI of a collector, such as \"sip:collector@example.com\"",
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

/// Adds lines to the trunk of the good file and returns what is said about them.
fn trunk_with(lines: &str) -> String {
    broken("target = \"udp:127.0.0.10\"", &format!("target = \"udp:127.0.0.10\"\n{lines}"))
}

#[test]
fn a_trunk_with_national_numbers_is_read_whole() {
    let lines = r#"target = "udp:127.0.0.10"
number_format = "national"
country_code = "44"
national_prefix = "0"
international_prefix = "00"
user_phone = true
trusted = true
identity = "rpid"
tolerance = "strict"
large_requests = "udp""#;
    let trunk = &parse(&GOOD.replacen("target = \"udp:127.0.0.10\"", lines, 1)).unwrap().trunks[0];
    let user = |number: &str| trunk.numbers.user_of(&number.parse().unwrap());
    assert_eq!((user("+442079460018"), user("+12025550100")), ("02079460018".into(), "0012025550100".into()));
    assert!(trunk.numbers.user_phone && trunk.trusted);
    assert_eq!(trunk.identity, IdentityHeader::RemotePartyId);
    assert_eq!(trunk.tolerance, Tolerance::STRICT);
    assert_eq!(trunk.large_requests, LargeRequests::AllowUdp);
}

#[test]
fn a_profile_is_taken_where_nothing_is_written() {
    let with = |lines: &str| {
        let lines = format!("target = \"udp:127.0.0.10\"\n{lines}");
        parse(&GOOD.replacen("target = \"udp:127.0.0.10\"", &lines, 1)).map(|config| config.trunks[0].clone())
    };
    for profile in sip_trunk::trunk::profile::Profile::all() {
        let trunk = with(&format!(
            "profile = {:?}\ncountry_code = \"44\"\ninternational_prefix = \"00\"",
            profile.name
        ));
        let trunk = trunk.unwrap_or_else(|error| panic!("{}: {error}", profile.name));
        assert_eq!(trunk.identity, profile.identity, "{}", profile.name);
        assert_eq!(trunk.packet_time_ms, profile.packet_time_ms);
        assert_eq!(
            (trunk.options_interval, trunk.retry_statuses),
            (profile.options_interval, profile.retry.to_vec())
        );
    }
    let own = with("profile = \"teams\"\npacket_time_ms = 40\nretry_statuses = [503]").unwrap();
    assert_eq!((own.packet_time_ms, own.retry_statuses), (40, vec![503]));
    let said = with("profile = \"other\"").unwrap_err().to_string();
    assert!(said.contains("trunks[0].profile: \"other\" is no profile; write one of \"asterisk\""), "{said}");
    // RFC 3261 21.4.20: busy is the callee's word.
    let said = with("retry_statuses = [486]").unwrap_err().to_string();
    assert!(said.contains("trunks[0].retry_statuses: a call is not tried again after 486"), "{said}");
}

// RFC 3261 10, RFC 6140, RFC 5626.
#[test]
fn a_trunk_may_register() {
    let with = |lines: &str| {
        let table = format!("target = \"udp:127.0.0.10\"\n{lines}");
        parse(&GOOD.replacen("target = \"udp:127.0.0.10\"", &table, 1))
    };
    let config = with(r#"register = { user = "+15550000", domain = "carrier.example", registrar = "127.0.0.11:5070",
        expires_s = 600, contact_user = "gw", bulk = true, instance = "urn:uuid:1", keep_alive_s = 30, required = true }"#)
    .unwrap();
    let registration = config.trunks[0].registration.clone().unwrap();
    assert_eq!((registration.user.as_str(), registration.domain.as_str()), ("+15550000", "carrier.example"));
    assert_eq!(registration.registrar, Some("127.0.0.11:5070".parse().unwrap()));
    assert!(registration.bulk && registration.required && registration.outbound.is_some());
    assert_eq!((registration.expires.as_secs(), registration.keep_alive.unwrap().as_secs()), (600, 30));
    // The domain of an account is most often the host of the trunk.
    let plain = with("register = { user = \"pbx\" }").unwrap().trunks[0].registration.clone().unwrap();
    assert_eq!((plain.domain.as_str(), plain.expires.as_secs(), plain.required), ("127.0.0.10", 3600, false));
    for (lines, expected) in [
        ("{ user = \"a b\" }", "register.user: "),
        ("{ user = \"a\", domain = \"x y\" }", "register.domain: "),
        ("{ user = \"a\", expires_s = 5 }", "register.expires_s: 5 is out of range"),
        ("{ user = \"a\", keep_alive_s = 1 }", "register.keep_alive_s: 1 is out of range"),
        ("{ user = \"a\", instance = \"me\" }", "register.instance: "),
        ("{ user = \"a\", registrar = \"there\" }", "register.registrar: "),
    ] {
        let said = with(&format!("register = {lines}")).unwrap_err().to_string();
        assert!(said.contains(&format!("trunks[0].{expected}")) && said.contains("; write "), "{said}");
    }
}

// RFC 3261 10.3: a trunk that registers here has an account instead of a target.
#[test]
fn a_trunk_may_have_an_account_here() {
    let folder = std::env::temp_dir().join(format!("causeway-accounts-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let password = file("password", "open sesame\n");
    let hashes = file("hashes", &format!("{}\n{}\n", "0a".repeat(16), "0B".repeat(32)));
    let with = |lines: &str| parse(&GOOD.replacen("target = \"udp:127.0.0.10\"", lines, 1));
    let config = with(&format!(
        "account = {{ user = \"200\", realm = \"gw.example\", password_file = {password:?}, transports = [\"tcp\"],
        max_contacts = 2, when_full = \"refuse\", min_expires_s = 30, max_expires_s = 600, symmetric = false,
        keep_alive_s = 0, many_users = true }}"
    ))
    .unwrap();
    let account = config.trunks[0].account.clone().unwrap();
    assert_eq!((account.user.as_str(), account.realm.as_str()), ("200", "gw.example"));
    assert_eq!(account.secret, AccountSecret::Password(sip_trunk::auth::Secret::new("open sesame")));
    assert_eq!((account.transports, account.max_contacts), (vec![Transport::Tcp], 2));
    assert!(!account.replace_oldest && !account.symmetric && account.many_users);
    assert_eq!((account.min_expires.as_secs(), account.max_expires.as_secs()), (30, 600));
    assert_eq!((account.keep_alive, config.trunks[0].sources.len()), (None, 0));
    let hashed = with(&format!("account = {{ user = \"200\", ha1_file = {hashes:?} }}")).unwrap();
    let account = hashed.trunks[0].account.clone().unwrap();
    assert!(matches!(account.secret, AccountSecret::Hashed(_)) && account.keep_alive.is_some());
    assert!(!format!("{config:?} {hashed:?}").contains("sesame"));
    let (empty, rubbish) = (file("empty", " \n"), file("rubbish", "secret"));
    let known = format!("password_file = {password:?}");
    for (lines, expected) in [
        ("".to_owned(), "name: no target; add target"),
        (
            format!("account = {{ user = \"2\", {known} }}\ntarget = \"udp:127.0.0.1\""),
            "target: an account beside it",
        ),
        (format!("account = {{ user = \"2\", {known} }}\nsources = []"), "sources: an account beside it"),
        ("account = { user = \"2\" }".to_owned(), "account: an account has one secret; add"),
        (
            format!("account = {{ user = \"2\", {known}, ha1_file = {hashes:?} }}"),
            "account: an account has one",
        ),
        (format!("account = {{ user = \"2\", password_file = {empty:?} }}"), "account.password_file: "),
        (
            "account = { user = \"2\", password_file = \"/nonexistent\" }".to_owned(),
            "account.password_file: ",
        ),
        (format!("account = {{ user = \"2\", ha1_file = {rubbish:?} }}"), "account.ha1_file: no hash"),
        (format!("account = {{ user = \"a:b\", {known} }}"), "account.user: "),
        (format!("account = {{ user = \"2\", realm = \"\", {known} }}"), "account.realm: "),
        (
            format!("account = {{ user = \"2\", {known}, transports = [\"sctp\"] }}"),
            "account.transports: \"sctp\"",
        ),
        (
            format!("account = {{ user = \"2\", {known}, transports = [] }}"),
            "account.transports: no transport",
        ),
        (format!("account = {{ user = \"2\", {known}, max_contacts = 99 }}"), "account.max_contacts: 99"),
        (format!("account = {{ user = \"2\", {known}, when_full = \"x\" }}"), "account.when_full: \"x\""),
        (format!("account = {{ user = \"2\", {known}, min_expires_s = 7200 }}"), "account.min_expires_s: "),
        (format!("account = {{ user = \"2\", {known}, keep_alive_s = 2 }}"), "account.keep_alive_s: "),
    ] {
        let said = with(&lines).unwrap_err().to_string();
        assert!(said.contains(&format!("trunks[0].{expected}")) && said.contains("; "), "{said}");
        assert!(!said.contains("sesame") && !said.contains("secret into it: secret"), "{said}");
    }
    let twice = format!(
        "account = {{ user = \"2\", {known} }}\n[[trunks]]\nname = \"b\"\naccount = {{ user = \"2\", {known} }}"
    );
    let said = with(&twice).unwrap_err().to_string();
    assert!(said.contains("trunks[1].account.user: \"2\" is the user of trunk \"pbx\" already"), "{said}");
    let udp_only = GOOD.replace(", \"tcp:127.0.0.1:5060\"", "");
    let lines = format!("account = {{ user = \"2\", {known} }}");
    let said = parse(&udp_only.replacen("target = \"udp:127.0.0.10\"", &lines, 1)).unwrap_err().to_string();
    assert!(said.contains("trunks[0].account.transports: no listener of sip.listen is for TCP"), "{said}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn who_may_send_at_all_is_read() {
    let with = |lines: &str| {
        let listen = "listen = [\"udp:127.0.0.1:5060\", \"tcp:127.0.0.1:5060\"]";
        parse(&GOOD.replacen(listen, &format!("{listen}\n{lines}"), 1))
    };
    let sip = with(
        "allow = [\"127.0.0.0/8\", \"2001:db8::1\"]\ndeny = [\"127.0.0.66\"]\nban_after = 3\nban_s = 60",
    );
    let sip = sip.unwrap().sip.unwrap();
    assert!(
        sip.access.admits("127.0.0.5".parse().unwrap()) && !sip.access.admits("127.0.0.66".parse().unwrap())
    );
    assert!(!sip.access.admits("192.0.2.1".parse().unwrap()));
    assert_eq!((sip.authentication.source_failures, sip.authentication.ban.as_secs()), (3, 60));
    for (lines, expected) in [
        ("allow = [\"127.0.0.1/8\"]", "sip.allow[0]: "),
        ("deny = [\"127.0.0.1\", \"host\"]", "sip.deny[1]: "),
        ("ban_after = 0", "sip.ban_after: 0 is out of range"),
        ("ban_s = 0", "sip.ban_s: 0 is out of range"),
    ] {
        let said = with(lines).unwrap_err().to_string();
        assert!(said.contains(expected) && said.contains("; "), "{said}");
    }
}

// RFC 3325 7: who is not known to be within the trust domain is outside.
#[test]
fn a_trunk_is_not_trusted_unless_it_is_written() {
    assert!(!parse(GOOD).unwrap().trunks[0].trusted);
}

#[test]
fn what_a_trunk_cannot_be_names_the_key_and_the_remedy() {
    let cases = [
        (
            "number_format = \"national\"",
            "number_format: the national format needs country_code and international_prefix; add country_code = \"44\" and international_prefix = \"00\", or yours",
        ),
        (
            "country_code = \"044\"",
            "country_code: a country code has 1 to 3 digits and does not begin with 0; write digits such as \"44\"",
        ),
        (
            "country_code = \"44\"\nnational_prefix = \"zero\"",
            "national_prefix: a dialling prefix has 1 to 7 digits; write what is dialled before a national number, such as \"0\"",
        ),
        (
            "international_prefix = \"\"",
            "international_prefix: a dialling prefix has 1 to 7 digits; write what is dialled before a country code, such as \"00\"",
        ),
        (
            "national_prefix = \"0\"",
            "national_prefix: nobody can tell which country a national number is in; add country_code = \"44\", or yours",
        ),
        (
            "identity = \"pai\"",
            "identity: an identity header is not told to a trunk that is not trusted; add trusted = true, or write \"from\"",
        ),
        (
            "identity = \"sip\"",
            "identity: \"sip\" is no choice; write \"from\", \"pai\" (P-Asserted-Identity) or \"rpid\" (Remote-Party-ID)",
        ),
        ("tolerance = \"some\"", "tolerance: \"some\" is no choice; write \"lenient\" or \"strict\""),
        (
            "large_requests = \"sctp\"",
            "large_requests: \"sctp\" is no choice; write \"tcp\", or \"udp\" for a trunk without TCP",
        ),
        (
            "listener = \"192.0.2.9:5060\"",
            "listener: UDP:192.0.2.9:5060 is not in sip.listen; write the address of one of sip.listen with the transport of the target",
        ),
        (
            "contact_host = \"sbc.example.com:5061\"",
            "contact_host: \"sbc.example.com:5061\": no domain name; write a name without a port, such as \"sbc.example.com\"",
        ),
        (
            "reliable_provisional = \"maybe\"",
            "reliable_provisional: \"maybe\" is no choice; write \"off\", \"supported\" or \"required\"",
        ),
        ("ring_timeout_s = 181", "ring_timeout_s: 181 is out of range; write a number from 5 to 180"),
        (
            "realm = \"pbx\"",
            "realm: no username beside it; add username = \"NAME\" and password_file = \"PATH\"",
        ),
    ];
    for (lines, expected) in cases {
        let said = trunk_with(lines);
        let (_, said) = said.split_once(": trunks[0].").unwrap_or_else(|| panic!("{said}"));
        assert_eq!(said, expected);
    }
}

#[test]
fn targets_are_read_in_either_family() {
    let target = |target: &str| {
        let text = GOOD.replacen("\"tcp:127.0.0.1:5060\"", "\"udp:[::1]:5060\"", 1).replacen(
            "udp:127.0.0.10",
            target,
            1,
        );
        parse(&text).map(|config| (config.trunks[0].target.to_string(), config.trunks[0].host.clone()))
    };
    let good = [
        ("udp:[::1]", "[::1]:5060", "[::1]"),
        ("udp:[::1]:5070", "[::1]:5070", "[::1]"),
        ("udp:127.0.0.9:5070", "127.0.0.9:5070", "127.0.0.9"),
    ];
    for (text, address, host) in good {
        assert_eq!(target(text).unwrap(), (address.to_owned(), host.to_owned()));
    }
    for bad in ["udp:2001:db8::1", "udp:2001:db8::1:5060"] {
        let said = target(bad).unwrap_err().to_string();
        assert!(said.contains("trunks[0].target") && said.contains("in brackets"), "{said}");
    }
    let said = target("udp:127.0.0.9:0").unwrap_err().to_string();
    assert!(said.contains("\"127.0.0.9:0\" is no reachable host"), "{said}");
}

// RFC 3263 4: what is a name is asked of DNS while the daemon works, not when it starts.
#[test]
fn a25_targets_may_be_names() {
    let trunk = |lines: &str| {
        let text = GOOD.replacen("target = \"udp:127.0.0.10\"", lines, 1);
        parse(&text).map(|config| config.trunks[0].clone())
    };
    let cases = [
        ("tcp:sip.carrier.example", Some(sip_trunk::trunk::resolve::Service::Tcp), None),
        ("udp:sip.carrier.example:5070", Some(sip_trunk::trunk::resolve::Service::Udp), Some(5070)),
        ("sip:sip.carrier.example", None, None),
    ];
    for (target, service, port) in cases {
        let trunk = trunk(&format!("target = \"{target}\"")).unwrap();
        let named = trunk.destination.unwrap();
        assert_eq!((named.service, named.port, trunk.host.as_str()), (service, port, "sip.carrier.example"));
        assert!(trunk.sources.is_empty(), "where the name leads is a source");
    }
    let fixed = trunk(
        "target = \"udp:127.0.0.10\"\nbackup_targets = [\"127.0.0.11:5070\"]\nmax_calls_per_second = 20",
    )
    .unwrap();
    assert_eq!(fixed.backups, ["127.0.0.11:5070".parse().unwrap()]);
    assert_eq!(fixed.sources.len(), 2);
    assert_eq!(fixed.max_call_rate, Some(20));
    let said = |lines: &str| trunk(lines).unwrap_err().to_string();
    assert!(
        said("target = \"udp:bad_name..x\"")
            .contains("\"bad_name..x\" is no reachable host; write TRANSPORT:HOST:PORT")
    );
    assert!(
        said("target = \"udp:a.example\"\nbackup_targets = [\"127.0.0.11:5070\"]")
            .contains("causeway.toml:20: trunks[0].backup_targets: the target is a name")
    );
    assert!(
        said("target = \"udp:127.0.0.10\"\nmax_calls_per_second = 0")
            .contains("max_calls_per_second: 0 is out of range")
    );
    let dns = |lines: &str| parse(&GOOD.replacen("[media]", &format!("[dns]\n{lines}\n\n[media]"), 1));
    let config = dns("servers = [\"127.0.0.53\", \"[::1]:5353\"]\ntimeout_ms = 500").unwrap();
    assert_eq!(config.dns.servers, ["127.0.0.53:53".parse().unwrap(), "[::1]:5353".parse().unwrap()]);
    let said = dns("servers = [\"dns.example\"]").unwrap_err().to_string();
    assert!(
        said.contains("dns.servers: \"dns.example\"") && said.contains("write the address of a server"),
        "{said}"
    );
}

/// What passes the check must start: the SIP endpoint refuses these.
#[test]
fn what_cannot_start_is_refused_before() {
    let cases = [
        (
            "udp:127.0.0.10",
            "udp:[::1]:5060",
            "trunks[0].target: no listener of sip.listen is for UDP over IPv6; add one, or change the target's transport or address",
        ),
        (
            "udp:127.0.0.1:5060",
            "udp:127.0.0.1:0",
            "sip.listen[0]: port 0 cannot be told to a trunk; write the port that trunks send to, such as 5060",
        ),
        (
            "\"tcp:127.0.0.1:5060\"",
            "\"udp:127.0.0.1:5060\"",
            "sip.listen[1]: 127.0.0.1:5060 stands twice; keep one of them",
        ),
    ];
    for (from, to, expected) in cases {
        let said = broken(from, to);
        assert!(said.ends_with(expected), "{said}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let cases = [
        (
            "trunk_ports = \"20000-20099\"",
            "trunk_ports = \"20001-20002\"",
            "media.trunk_ports: no even port with the odd one above it; begin with an even port, such as \"20000-27999\"",
        ),
        (
            "[admin]",
            "[limits]\ncalls = 51\n\n[admin]",
            "limits.calls: the media ports are enough for 50 calls; widen media.trunk_ports (two to a call) and media.overlay_ports (one), or lower it",
        ),
        (
            "listen = [\"udp:127.0.0.1:5060\"",
            "listen = [\"udp:192.0.2.1:5060\"",
            "media.trunk_address: none is written, and nobody else reaches 127.0.0.1; write one, such as \"192.0.2.1\"",
        ),
        (
            "sha256 = \"0000000000000000000000000000000000000000000000000000000000000000\"",
            "sha256 = \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"",
            "admin.tokens[0].sha256: this is the digest of no token at all; make one with `causeway token new`",
        ),
    ];
    for (from, to, expected) in cases {
        let said = broken(from, to);
        assert!(said.ends_with(expected), "{said}");
    }
}

#[test]
fn calls_are_limited_to_the_ports_where_nothing_is_written() {
    assert_eq!(parse(GOOD).unwrap().limits.calls, 50);
    let wide = GOOD.replacen("trunk_ports = \"20000-20099\"\noverlay_ports = \"21000-21099\"\n", "", 1);
    assert_eq!(parse(&wide).unwrap().limits.calls, 2000);
}

#[test]
fn an_api_in_clear_text_on_the_network_is_warned_of() {
    assert!(parse(GOOD).unwrap().warnings.is_empty());
    let public = GOOD.replacen("listen = \"127.0.0.1:0\"", "listen = \"192.0.2.1:8085\"", 1);
    let warnings = parse(&public).unwrap().warnings;
    let expected = "/etc/causeway/causeway.toml:33: admin.listen: the API speaks clear HTTP, and this is no loopback address; write \"127.0.0.1:8085\" and put a proxy with TLS before it";
    assert_eq!(warnings.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
}

/// The example of the documentation, which operators begin with, passes its own check.
#[test]
fn the_example_is_good() {
    let text = include_str!("../../../docs/examples/causeway.toml");
    let config = parse(text).unwrap();
    assert!(config.warnings.is_empty() && config.trunks[0].trusted);
}

#[test]
fn what_calls_between_trunks_need_is_read_whole() {
    let lines = r#"target = "udp:127.0.0.10"
hairpin = true
portability = false
trunk_group = { label = "tg-1", context = "example.com", form = "otg" }
interconnect = { operator = "example.net" }"#;
    let text = GOOD.replacen("target = \"udp:127.0.0.10\"", lines, 1);
    let text = text.replacen("trunks = [\"pbx\"]", "trunks = [\"pbx\"]\nfrom = [\"pbx\"]", 1);
    let config = parse(&text).unwrap();
    let trunk = &config.trunks[0];
    assert!(trunk.hairpin && trunk.portability == Some(false));
    assert_eq!(
        trunk.trunk_group,
        TrunkGroup::new("tg-1", "example.com").map(|group| (group, GroupForm::Otg))
    );
    assert_eq!(trunk.interconnect.as_ref().unwrap().operator.as_deref(), Some("example.net"));
    assert_eq!(config.routes[1].from, std::slice::from_ref(&trunk.name));
    assert!(config.routes[0].from.is_empty(), "a route is open to overlay users alone");
    let said = trunk_with("trunk_group = { label = \"a b\", context = \"x\" }");
    assert!(
        said.contains(":20: trunks[0].trunk_group: the label or the context cannot stand in a URI"),
        "{said}"
    );
    let said = trunk_with("trunk_group = { label = \"a\", context = \"x\", form = \"y\" }");
    assert!(said.contains("trunks[0].trunk_group.form: \"y\" is no form"), "{said}");
    let said = trunk_with("interconnect = { operator = \"a b\" }");
    assert!(said.contains("trunks[0].interconnect.operator: no name of a network"), "{said}");
    let said = broken("trunks = [\"pbx\"]", "trunks = [\"pbx\"]\nfrom = [\"x\"]");
    assert!(said.contains(":24: routes[0].from: no trunk is called \"x\""), "{said}");
}

#[test]
fn f22_a_trunk_is_behind_a_translator_where_it_says_so() {
    assert!(!parse(GOOD).unwrap().trunks[0].nat);
    let with = |line: &str| {
        GOOD.replacen("target = \"udp:127.0.0.10\"", &format!("target = \"udp:127.0.0.10\"\n{line}"), 1)
    };
    assert!(parse(&with("nat = true")).unwrap().trunks[0].nat);
    let said = parse(&with("nat = \"yes\"")).unwrap_err().to_string();
    let wanted = "causeway.toml:20: trunks[0].nat: neither true nor false; write true if the trunk is behind an address translator, or leave it out";
    assert!(said.ends_with(wanted), "{said}");
}
