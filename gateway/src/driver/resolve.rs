//! Questions of the SIP endpoint to DNS, asked of real servers. What is remembered, and for how long, is
//! the endpoint's matter; here is a bounded number of questions under way, and an answer to each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType as Wire};
use sip_trunk::trunk::resolve::{Failure, Query, Record, RecordData, RecordType};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

use crate::config::Dns;

/// Questions asked at the same time; the endpoint asks no more than that either.
const IN_FLIGHT: usize = 64;
/// How often one question is asked of a server that does not answer.
const ATTEMPTS: usize = 2;

/// The answer to one question.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) id: u64,
    pub(crate) answer: Result<Vec<Record>, Failure>,
}

/// Asks DNS.
pub(crate) struct Asker {
    resolver: Option<Arc<TokioResolver>>,
    answers: mpsc::Sender<Answer>,
    places: Arc<Semaphore>,
    /// Where the questions are asked.
    runtime: Handle,
    /// A question takes no longer, whatever happens.
    patience: Duration,
}

impl Asker {
    /// Builds one that asks the servers of the configuration, or those of the system, in the runtime it
    /// is called in.
    pub(crate) fn new(config: &Dns) -> (Self, mpsc::Receiver<Answer>) {
        let resolver = match config.servers.as_slice() {
            [] => TokioResolver::builder_tokio(),
            servers => {
                let servers = servers.iter().map(|server| name_server(*server)).collect();
                let known = ResolverConfig::from_name_servers(servers);
                Ok(TokioResolver::builder_with_config(known, TokioRuntimeProvider::default()))
            }
        };
        let resolver = resolver.and_then(|mut builder| {
            let options = builder.options_mut();
            options.cache_size = 0;
            options.timeout = config.timeout;
            options.attempts = ATTEMPTS;
            options.try_tcp_on_error = false;
            builder.build()
        });
        if let Err(error) = &resolver {
            tracing::warn!(%error, "no DNS: names of trunks lead nowhere; name servers under [dns] servers");
        }
        let (answers, inbox) = mpsc::channel(IN_FLIGHT);
        let patience = config.timeout * (ATTEMPTS as u32 * 2 + 1);
        let resolver = resolver.ok().map(Arc::new);
        let (places, runtime) = (Arc::new(Semaphore::new(IN_FLIGHT)), Handle::current());
        (Self { resolver, answers, places, runtime, patience }, inbox)
    }

    /// Asks. An answer to each question comes in time, if only that there is none.
    pub(crate) fn ask(&self, query: Query) {
        let (resolver, answers, patience) = (self.resolver.clone(), self.answers.clone(), self.patience);
        let place = Arc::clone(&self.places).try_acquire_owned();
        self.runtime.spawn(async move {
            let answer = match (resolver, place) {
                (Some(resolver), Ok(_place)) => {
                    let asked = tokio::time::timeout(patience, look_up(&resolver, &query)).await;
                    asked.unwrap_or(Err(Failure::Unavailable))
                }
                _ => Err(Failure::Unavailable),
            };
            if answer == Err(Failure::Unavailable) {
                tracing::debug!(name = %query.name, record = ?query.record, "DNS gave no answer");
            }
            // The loop has ended: nobody waits any more.
            let _ = answers.send(Answer { id: query.id, answer }).await;
        });
    }
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

async fn look_up(resolver: &TokioResolver, query: &Query) -> Result<Vec<Record>, Failure> {
    let wanted = match query.record {
        RecordType::Naptr => Wire::NAPTR,
        RecordType::Srv => Wire::SRV,
        RecordType::A => Wire::A,
        RecordType::Aaaa => Wire::AAAA,
    };
    // The dot at the end: no search list makes another name of it.
    let name = Name::from_ascii(format!("{}.", query.name)).map_err(|_| Failure::Nothing { ttl: None })?;
    match resolver.lookup(name, wanted).await {
        Ok(found) => Ok(found.answers().iter().filter_map(record).collect()),
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
            ResponseCode::NXDomain | ResponseCode::NoError => {
                Err(Failure::Nothing { ttl: none.negative_ttl })
            }
            _ => Err(Failure::Unavailable),
        },
        Err(_) => Err(Failure::Unavailable),
    }
}

fn record(found: &hickory_resolver::proto::rr::Record) -> Option<Record> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let data = match &found.data {
        RData::A(address) => RecordData::A(address.0),
        RData::AAAA(address) => RecordData::Aaaa(address.0),
        RData::CNAME(to) => RecordData::Cname(to.0.to_ascii()),
        RData::SRV(srv) => RecordData::Srv {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: srv.target.to_ascii(),
        },
        RData::NAPTR(naptr) => RecordData::Naptr {
            order: naptr.order,
            preference: naptr.preference,
            flags: text(&naptr.flags),
            service: text(&naptr.services),
            regexp: text(&naptr.regexp),
            replacement: naptr.replacement.to_ascii(),
        },
        _ => return None,
    };
    Some(Record { name: found.name.to_ascii(), ttl: found.ttl, data })
}

#[cfg(test)]
mod tests;
