//! TLS, WebSocket and code points in the configuration.

use sip_trunk::Transport;
use sip_trunk::trunk::resolve::Service;

use super::*;

/// The good file with a TLS listener, and the trunk with these lines.
fn with_tls(sip: &str, trunk: &str) -> Result<Config, ConfigError> {
    let listen = "\"tcp:127.0.0.1:5060\"]";
    let sip = format!("\"tls:127.0.0.1:5061\", \"tls:[::1]:5061\"]\n{sip}");
    let trunk = format!("target = \"tls:127.0.0.10\"\n{trunk}");
    parse(&GOOD.replacen(listen, &sip, 1).replacen("target = \"udp:127.0.0.10\"", &trunk, 1))
}

const CERTIFICATE: &str =
    "tls = { certificate = \"gw.pem\", key = \"/keys/gw.key\", client_ca = \"ca.pem\" }";

// RFC 3261 19.1.2, RFC 5922, RFC 4594.
#[test]
fn a_trunk_with_tls_is_read_whole() {
    let config = with_tls(CERTIFICATE, "").unwrap();
    let sip = config.sip.unwrap();
    let tls = sip.tls.unwrap();
    assert_eq!(tls.certificate, Path::new("/etc/causeway/gw.pem"));
    assert_eq!(tls.key, Path::new("/keys/gw.key"));
    assert!(!tls.only_1_3 && !tls.require_client_certificate);
    assert_eq!((sip.dscp, config.media.dscp), (24, 46));
    let trunk = &config.trunks[0];
    assert_eq!(trunk.target.port(), 5061);
    let tls = trunk.tls.clone().unwrap();
    assert_eq!((tls.server_name.as_str(), tls.names.len(), tls.ca), ("127.0.0.10", 0, None));
    let lines = r#"auth = "mtls"
        tls = { ca = "c.pem", server_name = "pbx.example.com", client_certificate = "both.pem" }"#;
    let trunk = with_tls(CERTIFICATE, lines).unwrap().trunks[0].clone();
    let tls = trunk.tls.unwrap();
    assert_eq!(tls.names, ["pbx.example.com"], "whom we expect is who may come");
    let (certificate, key) = tls.client_certificate.unwrap();
    assert!(certificate == key && key == Path::new("/etc/causeway/both.pem"));
    assert!(trunk.sources.is_empty(), "no address makes it known");
    let many =
        "auth = \"mtls\"\ntls = { names = [\"a.example.com\", \"b.example.com\"], allow_common_name = true }";
    let tls = with_tls(CERTIFICATE, many).unwrap().trunks[0].tls.clone().unwrap();
    assert!(tls.names.len() == 2 && tls.allow_common_name);
}

#[test]
fn code_points_have_names_and_numbers() {
    let read = |text: &str| {
        let sip = format!("{CERTIFICATE}\ndscp = {text:?}");
        with_tls(&sip, "").map(|config| config.sip.unwrap().dscp).map_err(|error| error.to_string())
    };
    let good = [("EF", 46), ("CS0", 0), ("CS5", 40), ("AF11", 10), ("AF31", 26), ("AF43", 38), ("63", 63)];
    for (text, value) in good {
        assert_eq!(read(text).unwrap(), value, "{text}");
    }
    for text in ["", "CS8", "AF44", "AF01", "64", "-1", "gold"] {
        let said = read(text).unwrap_err();
        let expected =
            "is no code point; write \"EF\", \"CS0\" to \"CS7\", \"AF11\" to \"AF43\", or \"0\" to \"63\"";
        assert!(said.contains("sip.dscp") && said.ends_with(expected), "{said}");
    }
}

#[test]
fn what_cannot_be_of_tls_and_websocket_is_refused() {
    let cases = [
        (
            "",
            "",
            "sip.listen[1]: there is no certificate for it; add [sip.tls] with certificate = \"PATH\" and key = \"PATH\"",
        ),
        (
            "tls = { certificate = \"a\", key = \"b\", require_client_certificate = true }",
            "",
            "sip.tls.require_client_certificate: nobody's would be believed; add client_ca = \"PATH\": who may have issued the certificates of peers",
        ),
        (
            "tls = { certificate = \"a\", key = \"b\", minimum = \"1.1\" }",
            "",
            "sip.tls.minimum: \"1.1\" is not spoken; write \"1.2\" or \"1.3\"; what came before is not safe",
        ),
        (
            "tls = { certificate = \"a\", key = \"b\" }",
            "auth = \"mtls\"",
            "trunks[0].auth: no certificate of a peer is believed; add client_ca = \"PATH\" to [sip.tls]: who may have issued its certificate",
        ),
        (
            CERTIFICATE,
            "auth = \"trust\"",
            "trunks[0].auth: \"trust\" is no choice; write \"address\" (by its sources) or \"mtls\" (by its certificate)",
        ),
        (
            CERTIFICATE,
            "tls = { names = [\"a.example.com\"] }",
            "trunks[0].tls.names: nothing asks for them; add auth = \"mtls\", or take them out: they tell whose requests these are",
        ),
        (
            CERTIFICATE,
            "auth = \"mtls\"\ntls = { names = [\"*.example.com\"] }",
            "trunks[0].tls.names: no wildcard matches a SIP domain; write whole names, such as \"pbx.example.com\"",
        ),
        (
            CERTIFICATE,
            "tls = { client_key = \"k\" }",
            "trunks[0].tls.client_key: no certificate beside it; add client_certificate = \"PATH\"",
        ),
        (
            &format!("{CERTIFICATE}\nwebsocket_origins = [\"phone.example.com\"]"),
            "",
            "sip.websocket_origins[0]: \"phone.example.com\" is no origin; write scheme, host and port as browsers do, such as \"https://phone.example.com\"",
        ),
    ];
    for (sip, trunk, expected) in cases {
        let said = with_tls(sip, trunk).unwrap_err().to_string();
        assert!(said.ends_with(expected), "{said}");
    }
    let said = broken("\"tcp:127.0.0.1:5060\"", "\"ws:127.0.0.1:5066\"");
    assert!(said.ends_with("sip.listen[1]: no page may open a WebSocket; add websocket_origins = [\"https://phone.example.com\"] to [sip]"), "{said}");
    let said = broken("udp:127.0.0.10", "ws:127.0.0.10");
    assert!(said.ends_with("trunks[0].target: a trunk cannot be called by WebSocket; only its client opens a WebSocket: write udp:, tcp: or tls:"), "{said}");
    let said = broken("\"tcp:127.0.0.1:5060\"]", "\"tcp:127.0.0.1:5060\", \"ws:127.0.0.1:5060\"]");
    assert!(said.ends_with("sip.listen[2]: 127.0.0.1:5060 stands twice; keep one of them"), "{said}");
}

// RFC 3263 4.1, RFC 5922 7: a name is asked of DNS by `_sips._tcp`, and the certificate is for the name.
#[test]
fn a_target_of_tls_may_be_a_name() {
    let named = |target: &str, lines: &str| {
        let listen = "\"tcp:127.0.0.1:5060\"]";
        let sip = format!("\"tls:127.0.0.1:5061\"]\n{CERTIFICATE}");
        let trunk = format!("target = \"{target}\"\n{lines}");
        let text = GOOD.replacen(listen, &sip, 1).replacen("target = \"udp:127.0.0.10\"", &trunk, 1);
        parse(&text).map(|config| config.trunks[0].clone())
    };
    for (target, service, port, transport) in [
        ("tls:sip.carrier.example", Some(Service::Tls), None, Transport::Tls),
        ("tls:sip.carrier.example:5071", Some(Service::Tls), Some(5071), Transport::Tls),
        // NAPTR may say TLS.
        ("sip:sip.carrier.example", None, None, Transport::Udp),
    ] {
        let trunk = named(target, "").unwrap();
        let destination = trunk.destination.unwrap();
        assert_eq!((destination.service, destination.port, trunk.transport), (service, port, transport));
        let tls = trunk.tls.unwrap();
        assert_eq!((tls.server_name.as_str(), tls.names.len()), ("sip.carrier.example", 0));
        assert!(trunk.sources.is_empty());
    }
    assert!(named("udp:sip.carrier.example", "").unwrap().tls.is_none());
    let trunk = named("tls:sip.carrier.example", "auth = \"mtls\"").unwrap();
    assert_eq!(trunk.tls.unwrap().names, ["sip.carrier.example"]);
}

#[test]
fn an_account_may_come_by_tls_and_websocket_and_by_no_certificate() {
    let folder = std::env::temp_dir().join(format!("causeway-secure-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let password = folder.join("password");
    std::fs::write(&password, "open sesame").unwrap();
    let with = |transports: &str, lines: &str| {
        let listen = "\"tcp:127.0.0.1:5060\"]";
        let origins = "websocket_origins = [\"https://phone.example.com\"]";
        let sip = format!("\"tls:127.0.0.1:5061\", \"wss:127.0.0.1:5443\"]\n{CERTIFICATE}\n{origins}");
        let account = format!(
            "account = {{ user = \"200\", password_file = {password:?}, transports = [{transports}] }}\n{lines}"
        );
        let text = GOOD.replacen(listen, &sip, 1).replacen("target = \"udp:127.0.0.10\"", &account, 1);
        parse(&text).map(|config| config.trunks[0].clone()).map_err(|error| error.to_string())
    };
    let trunk = with("\"wss\", \"tls\"", "").unwrap();
    assert_eq!(trunk.account.unwrap().transports, [Transport::Wss, Transport::Tls]);
    assert!(trunk.tls.is_none());
    let said = with("\"ws\"", "").unwrap_err();
    assert!(said.contains("account.transports: no listener of sip.listen is for WS"), "{said}");
    for (lines, key) in [("auth = \"mtls\"", "auth"), ("tls = { ca = \"a.pem\" }", "tls")] {
        let said = with("\"tls\"", lines).unwrap_err();
        assert!(said.contains(&format!("trunks[0].{key}: an account beside it")), "{said}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
