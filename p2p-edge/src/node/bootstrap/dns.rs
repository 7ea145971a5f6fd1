//! DNS: the name servers of the system, and TXT records that name nodes. These have `dnsaddr=` and a multiaddress,
//! at `_dnsaddr` under a name, as all libp2p nodes read them; one may lead to another name with `/dnsaddr/`.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// How long one server may take, and all of it.
const TIMEOUT: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(8);
/// Names that are asked for at one time, and how often a name may lead to another.
const MAX_NAMES: usize = 16;
const MAX_DEPTH: usize = 3;
/// Addresses that are taken in all.
const MAX_ADDRESSES: usize = 256;
/// What such a record begins with.
const PREFIX: &str = "dnsaddr=";

/// Asks for every name. Returns the addresses of nodes that they lead to.
///
/// # Errors
/// What is wrong, where no name has any answer.
pub(super) async fn ask(names: &[String], servers: &[SocketAddr]) -> Result<Vec<Multiaddr>, String> {
    let resolver = resolver(servers).map_err(|error| error.to_string())?;
    tokio::time::timeout(PATIENCE, follow(&resolver, names))
        .await
        .unwrap_or_else(|_| Err("DNS did not answer in time".to_owned()))
}

/// Returns the name servers of the system. There may be none, as in a network that is closed: then names are not
/// found, and addresses are enough.
pub(in super::super) fn system_name_servers() -> (ResolverConfig, ResolverOpts) {
    system_conf::read_system_conf().unwrap_or_else(|error| {
        tracing::warn!(%error, "no name servers: addresses with names are not dialled");
        (ResolverConfig::from_name_servers(Vec::new()), ResolverOpts::default())
    })
}

fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, hickory_resolver::net::NetError> {
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let servers = servers.iter().map(|server| name_server(*server)).collect();
        let config = ResolverConfig::from_name_servers(servers);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    options.timeout = TIMEOUT;
    options.attempts = 2;
    builder.build()
}

fn name_server(server: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    let mut known = NameServerConfig::udp_and_tcp(server.ip());
    known.connections = connections.into();
    known
}

/// Asks for names, and for those that they lead to.
async fn follow(resolver: &TokioResolver, names: &[String]) -> Result<Vec<Multiaddr>, String> {
    let mut asked: HashSet<String> = HashSet::new();
    let mut next: Vec<String> = names.to_vec();
    let (mut found, mut answered, mut problems) = (Vec::new(), false, Vec::new());
    for _ in 0..MAX_DEPTH {
        next.retain(|name| asked.len() < MAX_NAMES && asked.insert(name.to_ascii_lowercase()));
        let answers = join_all(next.iter().map(|name| records(resolver, name))).await;
        let asked_for = std::mem::take(&mut next);
        for (name, answer) in asked_for.iter().zip(answers) {
            match answer {
                Ok(texts) => {
                    answered = true;
                    for address in texts.iter().filter_map(|text| read(text)) {
                        match other_name(&address) {
                            Some(other) => next.push(other),
                            None if found.len() < MAX_ADDRESSES => found.push(address),
                            None => {}
                        }
                    }
                }
                Err(problem) => problems.push(format!("{name}: {problem}")),
            }
        }
    }
    if answered { Ok(found) } else { Err(problems.join("; ")) }
}

/// Returns the TXT records of one name, the strings of each put together (RFC 7208 3.3).
async fn records(resolver: &TokioResolver, name: &str) -> Result<Vec<String>, String> {
    // The dot at the end: no search list makes another name of it.
    let full = format!("_dnsaddr.{}.", name.trim_end_matches('.'));
    let full = Name::from_ascii(full).map_err(|error| error.to_string())?;
    let answer = resolver.lookup(full, RecordType::TXT).await.map_err(|error| error.to_string())?;
    let text = |data: &RData| match data {
        RData::TXT(txt) => {
            let bytes: Vec<u8> = txt.txt_data.iter().flat_map(|part| part.iter().copied()).collect();
            String::from_utf8(bytes).ok()
        }
        _ => None,
    };
    Ok(answer.answers().iter().filter_map(|record| text(&record.data)).collect())
}

/// Reads one record; others may stand at the same name.
fn read(text: &str) -> Option<Multiaddr> {
    text.strip_prefix(PREFIX)?.trim().parse().ok()
}

/// Returns the name that an address leads to, where it is no address of a node itself.
fn other_name(address: &Multiaddr) -> Option<String> {
    match address.iter().next()? {
        Protocol::Dnsaddr(name) => Some(name.into_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_record_is_an_address_or_leads_to_another_name() {
        let peer = crate::testing::key(1).peer_id();
        let node = format!("/ip4/192.0.2.1/tcp/4001/p2p/{peer}");
        assert_eq!(read(&format!("dnsaddr={node}")).unwrap().to_string(), node);
        assert_eq!(other_name(&node.parse().unwrap()), None);
        let other = read(&format!("dnsaddr=/dnsaddr/eu.example.org/p2p/{peer}")).unwrap();
        assert_eq!(other_name(&other).as_deref(), Some("eu.example.org"));
        for text in ["", "v=spf1 -all", "dnsaddr=", "dnsaddr=rubbish", &node] {
            assert!(read(text).is_none_or(|address| address.is_empty()), "{text}");
        }
    }
}
