//! Whom a certificate is for (RFC 5922 7). Chain and signatures are the driver's business.

use std::net::IpAddr;

/// One name of a certificate's subjectAltName (RFC 5280 4.2.1.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectName {
    /// A uniformResourceIdentifier.
    Uri(String),
    /// A dNSName.
    Dns(String),
    /// An iPAddress.
    Address(IpAddr),
}

/// The identities of a peer whose certificate was verified (RFC 5922 7.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerIdentity {
    domains: Vec<String>,
    addresses: Vec<IpAddr>,
    common_name: Option<String>,
}

impl PeerIdentity {
    /// Takes the identities out of the names of a certificate. A SIP URI counts for its host; DNS
    /// names count where there is no SIP URI. `common_name` is kept for certificates without any
    /// subjectAltName, and counts only for whoever allows that.
    pub fn new(names: &[SubjectName], common_name: Option<&str>) -> Self {
        let uris: Vec<_> = names
            .iter()
            .filter_map(|name| match name {
                SubjectName::Uri(uri) => sip_domain(uri),
                _ => None,
            })
            .collect();
        let dns = || {
            names.iter().filter_map(|name| match name {
                SubjectName::Dns(name) => Some(normal(name)),
                _ => None,
            })
        };
        let addresses = names.iter().filter_map(|name| match name {
            SubjectName::Address(address) => Some(address.to_canonical()),
            _ => None,
        });
        Self {
            domains: if uris.is_empty() { dns().collect() } else { uris },
            addresses: addresses.collect(),
            // RFC 5922 7.1: if and only if there is no subjectAltName.
            common_name: common_name.filter(|_| names.is_empty()).map(normal),
        }
    }

    /// Says whether the certificate is for a domain or an address. No wildcard matches
    /// (RFC 5922 7.2).
    pub fn is(&self, expected: &str, allow_common_name: bool) -> bool {
        let bare = expected.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return self.addresses.contains(&address.to_canonical());
        }
        let expected = normal(expected);
        let common_name = self.common_name.as_ref().filter(|_| allow_common_name);
        !expected.contains('*') && self.domains.iter().chain(common_name).any(|name| *name == expected)
    }

    /// Says whether the certificate is for one of several domains or addresses.
    pub fn is_one_of(&self, expected: &[String], allow_common_name: bool) -> bool {
        expected.iter().any(|name| self.is(name, allow_common_name))
    }
}

impl std::fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let addresses = self.addresses.iter().map(IpAddr::to_string);
        let common_name = self.common_name.iter().map(|name| format!("CN {name}"));
        let names: Vec<_> = self.domains.iter().cloned().chain(addresses).chain(common_name).collect();
        if names.is_empty() { f.write_str("nobody by name") } else { f.write_str(&names.join(", ")) }
    }
}

/// Returns the domain that a SIP URI stands for: not with a user part, and `sip` alone
/// (RFC 5922 7.1).
fn sip_domain(uri: &str) -> Option<String> {
    let (scheme, rest) = uri.split_once(':')?;
    if !scheme.eq_ignore_ascii_case("sip") || rest.contains('@') {
        return None;
    }
    let host = rest.split([';', '?']).next().unwrap_or_default();
    let host = normal(crate::dialog::without_port(host));
    (!host.is_empty()).then_some(host)
}

fn normal(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn identity(uris: &[&str], dns: &[&str], common_name: Option<&str>) -> PeerIdentity {
        let uris = uris.iter().map(|uri| SubjectName::Uri((*uri).to_owned()));
        let dns = dns.iter().map(|name| SubjectName::Dns((*name).to_owned()));
        PeerIdentity::new(&uris.chain(dns).collect::<Vec<_>>(), common_name)
    }

    // RFC 5922 7.1, 7.2.
    #[test]
    fn a_sip_uri_counts_before_a_dns_name_and_no_wildcard_does() {
        let cases = [
            (identity(&["sip:example.com"], &["other.example.com"], None), "Example.COM", true),
            (identity(&["sip:example.com"], &["other.example.com"], None), "other.example.com", false),
            (identity(&["sips:example.com"], &["other.example.com"], None), "example.com", false),
            (identity(&["sip:alice@example.com"], &["other.example.com"], None), "example.com", false),
            (identity(&["https://example.com"], &["other.example.com"], None), "other.example.com.", true),
            (identity(&[], &["*.example.com"], None), "pbx.example.com", false),
            (identity(&[], &["*.example.com"], None), "*.example.com", false),
            (identity(&[], &["example.com"], None), "pbx.example.com", false),
            (identity(&[], &["127.0.0.1"], None), "127.0.0.1", false),
        ];
        for (identity, expected, is) in cases {
            assert_eq!(identity.is(expected, false), is, "{identity} for {expected}");
        }
        let names = [SubjectName::Address("::ffff:192.0.2.1".parse().unwrap())];
        assert!(PeerIdentity::new(&names, None).is("192.0.2.1", false));
        assert!(!PeerIdentity::new(&names, None).is("[2001:db8::1]", false));
    }

    // RFC 5922 7.1: the common name is looked at only where there is no subjectAltName.
    #[test]
    fn the_common_name_counts_only_alone_and_where_it_is_allowed() {
        let alone = identity(&[], &[], Some("pbx.example.com"));
        assert!(alone.is("pbx.example.com", true) && !alone.is("pbx.example.com", false));
        let beside = identity(&[], &["other.example.com"], Some("pbx.example.com"));
        assert!(!beside.is("pbx.example.com", true));
        assert_eq!(beside.to_string(), "other.example.com");
        assert_eq!(alone.to_string(), "CN pbx.example.com");
        assert_eq!(PeerIdentity::default().to_string(), "nobody by name");
    }
}
