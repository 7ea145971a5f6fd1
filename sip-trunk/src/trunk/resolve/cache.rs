//! What one answer said, and how long that holds.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::types::{Domain, Record, RecordData, RecordType, Service};
use super::{Key, RETRY_MAX, ResolverLimits};

/// The most names one leads to by CNAME, one after the other.
pub(super) const ALIASES_MAX: usize = 8;

/// A NAPTR record that leads on to SRV records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Naptr {
    pub(super) order: u16,
    pub(super) preference: u16,
    pub(super) service: Service,
    pub(super) replacement: Domain,
}

/// An SRV record; without a target the service is not offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Srv {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    pub(super) target: Option<Domain>,
}

/// What is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Naptr(Vec<Naptr>),
    Srv(Vec<Srv>),
    Addresses(Vec<IpAddr>),
    /// The same is to be looked up under another name.
    Alias(Domain),
    Nothing,
}

/// The outcome of a look into the cache. `again`: when to look again.
#[derive(Clone, Debug)]
pub(super) enum Found {
    Known { known: Known, again: Instant },
    Pending { again: Instant },
    Failed { again: Instant },
}

#[derive(Debug)]
pub(super) struct Entry {
    known: Option<Known>,
    fresh_until: Instant,
    /// When it is asked again, ahead of its end.
    refresh_at: Instant,
    /// Not asked again before this, after a failure.
    retry_at: Instant,
    failures: u32,
    pub(super) asked: Option<(u64, Instant)>,
    pub(super) used: Instant,
}

impl Entry {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            known: None,
            fresh_until: now,
            refresh_at: now,
            retry_at: now,
            failures: 0,
            asked: None,
            used: now,
        }
    }

    pub(super) fn learn(&mut self, now: Instant, known: Known, ttl: Duration) {
        self.known = Some(known);
        self.failures = 0;
        self.fresh_until = now + ttl;
        self.refresh_at = now + ttl.mul_f32(0.8);
        self.retry_at = now;
    }

    pub(super) fn fail(&mut self, now: Instant, limits: &ResolverLimits) {
        self.failures = self.failures.saturating_add(1);
        let wait = limits.retry.saturating_mul(1 << (self.failures - 1).min(8)).min(RETRY_MAX);
        self.retry_at = now + wait;
    }

    pub(super) fn wants_question(&self, now: Instant) -> bool {
        self.asked.is_none() && self.retry_at <= now && (self.known.is_none() || self.refresh_at <= now)
    }

    /// RFC 8767 4: an old answer is better than none while nobody answers.
    pub(super) fn found(&self, now: Instant, limits: &ResolverLimits) -> Found {
        let patience = |since: Instant| since + limits.patience;
        let again = match self.asked {
            Some((_, since)) => patience(since),
            None if self.known.is_some() => self.refresh_at.max(self.retry_at),
            None => self.retry_at,
        };
        let usable = now < self.fresh_until || (self.failures > 0 && now < self.fresh_until + limits.stale);
        match &self.known {
            Some(known) if usable => Found::Known { known: known.clone(), again },
            _ if self.failures > 0 => Found::Failed { again },
            _ => Found::Pending { again },
        }
    }
}

/// Reads an answer: what it says of the name that was asked for, by way of the aliases within it.
/// Whatever else it holds is not believed.
pub(super) fn read(
    key: &Key,
    mut records: Vec<Record>,
    limits: &ResolverLimits,
) -> Option<(Known, Duration)> {
    records.truncate(limits.records);
    let records: Vec<(Domain, Record)> =
        records.into_iter().filter_map(|r| Some((r.name.parse().ok()?, r))).collect();
    let (mut name, record_type) = key.clone();
    let mut ttl = u32::MAX;
    for _ in 0..ALIASES_MAX {
        let own = || records.iter().filter(|(of, _)| *of == name).map(|(_, record)| record);
        if let Some(known) = collect(record_type, own()) {
            let least = own().map(|record| record.ttl).min().unwrap_or_default();
            return Some((known, Duration::from_secs(u64::from(ttl.min(least)))));
        }
        let alias = own().find_map(|record| match &record.data {
            RecordData::Cname(to) => Some((to.parse::<Domain>().ok()?, record.ttl)),
            _ => None,
        });
        let Some((to, holds)) = alias else { break };
        ttl = ttl.min(holds);
        name = to;
    }
    (name != key.0).then(|| (Known::Alias(name), Duration::from_secs(u64::from(ttl))))
}

fn collect<'a>(wanted: RecordType, records: impl Iterator<Item = &'a Record>) -> Option<Known> {
    let (mut naptr, mut srv, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
    let mut any = false;
    for record in records {
        match (&record.data, wanted) {
            (RecordData::A(address), RecordType::A) => addresses.push(IpAddr::V4(*address)),
            (RecordData::Aaaa(address), RecordType::Aaaa) => addresses.push(IpAddr::V6(*address)),
            (RecordData::Srv { priority, weight, port, target }, RecordType::Srv) => {
                let (priority, weight, port) = (*priority, *weight, *port);
                // RFC 2782: a target of "." says that the service is decidedly not there.
                match target.parse() {
                    Ok(target) if port != 0 => {
                        srv.push(Srv { priority, weight, port, target: Some(target) });
                    }
                    _ if target == "." => srv.push(Srv { priority, weight, port, target: None }),
                    _ => {}
                }
            }
            (
                RecordData::Naptr { order, preference, flags, service, regexp, replacement },
                RecordType::Naptr,
            ) => {
                // RFC 3263 4.1: the flag "s", no expression, and a service of SIP.
                any = true;
                let of = [Service::Udp, Service::Tcp, Service::Tls]
                    .into_iter()
                    .find(|known| service.eq_ignore_ascii_case(known.naptr()));
                if let (Some(service), Ok(replacement), true) =
                    (of, replacement.parse(), flags.eq_ignore_ascii_case("s") && regexp.is_empty())
                {
                    naptr.push(Naptr { order: *order, preference: *preference, service, replacement });
                }
            }
            _ => {}
        }
    }
    naptr.sort_by_key(|record| (record.order, record.preference));
    srv.sort_by_key(|record| record.priority);
    addresses.retain(|address| !address.is_unspecified() && !address.is_multicast());
    match wanted {
        RecordType::Naptr if any => Some(Known::Naptr(naptr)),
        RecordType::Srv if !srv.is_empty() => Some(Known::Srv(srv)),
        RecordType::A | RecordType::Aaaa if !addresses.is_empty() => Some(Known::Addresses(addresses)),
        _ => None,
    }
}
