//! TLS, WebSocket and code points: `[sip.tls]`, `tls` and `auth` of a trunk, `dscp`.

use std::net::SocketAddr;

use sip_trunk::Transport;

use super::{Check, Checked};
use crate::config::{Tls, TrunkTls, shape};

impl Check<'_> {
    pub(super) fn tls(&self, raw: shape::Tls) -> Checked<Tls> {
        let require_client_certificate = raw.require_client_certificate.unwrap_or(false);
        if require_client_certificate && raw.client_ca.is_none() {
            let remedy = "add client_ca = \"PATH\": who may have issued the certificates of peers";
            return self.error("sip.tls.require_client_certificate", "nobody's would be believed", remedy);
        }
        let only_1_3 = match raw.minimum.as_deref() {
            None | Some("1.2") => false,
            Some("1.3") => true,
            // RFC 9325 3.1.1.
            Some(other) => {
                let remedy = "write \"1.2\" or \"1.3\"; what came before is not safe";
                return self.error("sip.tls.minimum", format!("\"{other}\" is not spoken"), remedy);
            }
        };
        Ok(Tls {
            certificate: self.beside(raw.certificate),
            key: self.beside(raw.key),
            client_ca: raw.client_ca.map(|file| self.beside(file)),
            require_client_certificate,
            only_1_3,
        })
    }

    pub(super) fn secure_listeners(
        &self,
        listen: &[(Transport, SocketAddr)],
        tls: Option<&Tls>,
        origins: &[String],
    ) -> Checked<()> {
        for (index, (transport, _)) in listen.iter().enumerate() {
            let key = format!("sip.listen[{index}]");
            if transport.is_secure() && tls.is_none() {
                let remedy = "add [sip.tls] with certificate = \"PATH\" and key = \"PATH\"";
                return self.error(key, "there is no certificate for it", remedy);
            }
            // RFC 6455 10.2: any page a user looks at could speak for them.
            if transport.is_web() && origins.is_empty() {
                let remedy = "add websocket_origins = [\"https://phone.example.com\"] to [sip]";
                return self.error(key, "no page may open a WebSocket", remedy);
            }
        }
        for (index, origin) in origins.iter().enumerate() {
            let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            if origin != "*" && host.is_none_or(|host| host.is_empty() || host.contains('/')) {
                let remedy =
                    "write scheme, host and port as browsers do, such as \"https://phone.example.com\"";
                let problem = format!("\"{origin}\" is no origin");
                return self.error(format!("sip.websocket_origins[{index}]"), problem, remedy);
            }
        }
        Ok(())
    }

    /// Reads `auth` and `tls` of a trunk, which may be called by TLS or not. Certificates are for the host of the target where nothing is
    /// written.
    pub(super) fn trunk_tls(
        &self,
        at: &str,
        auth: Option<&str>,
        raw: Option<shape::TrunkTls>,
        calls_by_tls: bool,
        host: &str,
    ) -> Checked<Option<TrunkTls>> {
        let key = |name: &str| format!("{at}.tls.{name}");
        let mutual = match auth {
            None | Some("address") => false,
            Some("mtls") => true,
            Some(other) => {
                let remedy = "write \"address\" (by its sources) or \"mtls\" (by its certificate)";
                return self.error(format!("{at}.auth"), format!("\"{other}\" is no choice"), remedy);
            }
        };
        if raw.is_none() && !mutual && !calls_by_tls {
            return Ok(None);
        }
        let raw = raw.unwrap_or_default();
        let server_name = raw.server_name.unwrap_or_else(|| {
            host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_owned()
        });
        let names = raw.names.unwrap_or_default();
        if !names.is_empty() && !mutual {
            let remedy = "add auth = \"mtls\", or take them out: they tell whose requests these are";
            return self.error(key("names"), "nothing asks for them", remedy);
        }
        let names = match (mutual, names.is_empty()) {
            (true, true) => vec![server_name.clone()],
            _ => names,
        };
        // RFC 5922 7.2.
        let wildcard = |name: &String| name.contains('*') || name.is_empty();
        if wildcard(&server_name) || names.iter().any(wildcard) {
            let which = if wildcard(&server_name) { "server_name" } else { "names" };
            let remedy = "write whole names, such as \"pbx.example.com\"";
            return self.error(key(which), "no wildcard matches a SIP domain", remedy);
        }
        let client_certificate = match (raw.client_certificate, raw.client_key) {
            (Some(certificate), Some(file)) => Some((self.beside(certificate), self.beside(file))),
            // A file may hold both.
            (Some(certificate), None) => {
                let certificate = self.beside(certificate);
                Some((certificate.clone(), certificate))
            }
            (None, None) => None,
            (None, Some(_)) => {
                let remedy = "add client_certificate = \"PATH\"";
                return self.error(key("client_key"), "no certificate beside it", remedy);
            }
        };
        Ok(Some(TrunkTls {
            ca: raw.ca.map(|file| self.beside(file)),
            server_name,
            client_certificate,
            names,
            allow_common_name: raw.allow_common_name.unwrap_or(false),
        }))
    }

    /// Reads a code point by the name of its class (RFC 4594) or as a number.
    pub(super) fn dscp(&self, key: &str, text: Option<&str>, usual: &str) -> Checked<u8> {
        let text = text.unwrap_or(usual);
        let digits = |rest: &str| match rest.as_bytes() {
            [class @ b'1'..=b'4', drop @ b'1'..=b'3'] => Some((class - b'0') * 8 + (drop - b'0') * 2),
            _ => None,
        };
        let value = match (text.strip_prefix("CS"), text.strip_prefix("AF")) {
            (Some(class), _) => class.parse().ok().filter(|class: &u8| *class < 8).map(|class| class * 8),
            (_, Some(rest)) => digits(rest),
            _ if text == "EF" => Some(46),
            _ => text.parse().ok().filter(|value: &u8| *value < 64),
        };
        match value {
            Some(value) => Ok(value),
            None => {
                let remedy = "write \"EF\", \"CS0\" to \"CS7\", \"AF11\" to \"AF43\", or \"0\" to \"63\"";
                self.error(key, format!("\"{text}\" is no code point"), remedy)
            }
        }
    }
}
