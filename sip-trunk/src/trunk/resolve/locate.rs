//! The procedure of RFC 3263 4: from a destination to addresses, with what is known so far.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::Resolver;
use super::cache::{ALIASES_MAX, Found, Known, Naptr, Srv};
use super::types::{Destination, Domain, Host, RecordType, Service};

/// The address families that can be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

/// An address that a destination leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The address.
    pub address: SocketAddr,
    /// The transport.
    pub service: Service,
    /// Lower comes first: of NAPTR, then the priority of SRV.
    pub rank: u32,
    /// The share within one rank (RFC 2782).
    pub weight: u16,
    /// Addresses of one host share this, and the weight.
    pub group: u16,
}

/// The outcome. `again` says when to look again, at the latest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Located {
    /// The addresses, by rank.
    Known {
        /// At least one.
        candidates: Vec<Candidate>,
        /// No answer is under way that could add to them.
        complete: bool,
        /// When to look again.
        again: Instant,
    },
    /// The answers are not all there.
    Pending {
        /// When to look again.
        again: Instant,
    },
    /// The name leads nowhere: DNS says so.
    Nowhere {
        /// When to look again.
        again: Instant,
    },
    /// DNS does not answer.
    Unavailable {
        /// When to look again.
        again: Instant,
    },
}

impl Located {
    /// Returns when to look again, at the latest.
    #[must_use]
    pub fn again(&self) -> Instant {
        match self {
            Located::Known { again, .. }
            | Located::Pending { again }
            | Located::Nowhere { again }
            | Located::Unavailable { again } => *again,
        }
    }
}

/// A walk through what is known.
struct Walk<'a> {
    resolver: &'a mut Resolver,
    now: Instant,
    offered: &'a [(Service, Families)],
    candidates: Vec<Candidate>,
    again: Option<Instant>,
    pending: bool,
    failed: bool,
    groups: u16,
}

enum Step {
    Known(Known),
    Unknown,
}

impl Resolver {
    /// Finds where a destination leads, by the transports that are `offered` in order of preference.
    /// What is missing is asked for: look again after [`Resolver::handle_answer`], and at the time
    /// the outcome says.
    pub fn locate(
        &mut self,
        now: Instant,
        destination: &Destination,
        offered: &[(Service, Families)],
    ) -> Located {
        let candidates_max = self.limits.candidates;
        let far = now + self.limits.ttl_ceiling;
        let mut walk = Walk {
            resolver: self,
            now,
            offered,
            candidates: Vec::new(),
            again: None,
            pending: false,
            failed: false,
            groups: 0,
        };
        walk.destination(destination);
        let Walk { mut candidates, again, pending, failed, .. } = walk;
        let again = again.unwrap_or(far);
        candidates.sort_by_key(|c| c.rank);
        let mut seen = Vec::new();
        candidates.retain(|c| {
            let new = !seen.contains(&(c.address, c.service));
            seen.push((c.address, c.service));
            new
        });
        candidates.truncate(candidates_max);
        match (candidates.is_empty(), pending, failed) {
            (false, ..) => Located::Known { candidates, complete: !pending, again },
            (true, true, _) => Located::Pending { again },
            (true, false, true) => Located::Unavailable { again },
            (true, false, false) => Located::Nowhere { again },
        }
    }
}

impl Walk<'_> {
    fn destination(&mut self, destination: &Destination) {
        let Some(&(first, _)) = self.offered.first() else { return };
        // RFC 3263 4.1: an address or a port without a transport means UDP, or TLS for sips.
        let fixed = destination.service.unwrap_or(first);
        match (&destination.host, destination.port, destination.service) {
            (Host::Address(address), port, _) => self.push(*address, fixed, port, 0, 0),
            (Host::Name(name), Some(port), _) => {
                self.addresses(name, fixed, port, 0, 0);
            }
            (Host::Name(name), None, Some(service)) => {
                if !self.service(name, service, 0) {
                    self.addresses(name, service, service.port(), 0, 0);
                }
            }
            (Host::Name(name), None, None) => self.any_service(name),
        }
    }

    /// RFC 3263 4.1: NAPTR, then SRV of each transport, then addresses.
    fn any_service(&mut self, name: &Domain) {
        let missing = (self.pending, self.failed);
        match self.look(name, RecordType::Naptr) {
            Step::Known(Known::Naptr(records)) => {
                let known = |record: &&Naptr| self.offered.iter().any(|(s, _)| *s == record.service);
                let records: Vec<_> = records.iter().filter(known).cloned().collect();
                // RFC 3403 4: order must be obeyed, so that of another order is not looked at; within,
                // preference says.
                let first = records.first().map(|record| record.order);
                let records = records.iter().filter(|record| Some(record.order) == first);
                for (n, record) in records.enumerate() {
                    self.srv(&record.replacement, record.service, (n as u32) << 16);
                }
                if first.is_some() {
                    return;
                }
            }
            Step::Known(_) => {}
            Step::Unknown if self.pending && !missing.0 => return,
            // Servers that fail on NAPTR alone are common: it counts as none.
            Step::Unknown => self.failed = missing.1,
        }
        let mut found = false;
        for (n, &(service, _)) in self.offered.iter().enumerate() {
            found |= self.service(name, service, (n as u32) << 16);
        }
        // RFC 3263 4.2: without SRV the name itself, by UDP, or TCP where that is all there is.
        if !found && let Some(&(service, _)) = self.offered.first() {
            self.addresses(name, service, service.port(), 0, 0);
        }
    }

    /// Follows the SRV records of a service. Says whether there are any, or may be.
    fn service(&mut self, name: &Domain, service: Service, rank: u32) -> bool {
        name.below(service.labels()).is_some_and(|name| self.srv(&name, service, rank))
    }

    fn srv(&mut self, name: &Domain, service: Service, rank: u32) -> bool {
        match self.look(name, RecordType::Srv) {
            Step::Known(Known::Srv(records)) => {
                for Srv { priority, weight, port, target } in &records {
                    if let Some(target) = target {
                        let rank = rank.saturating_add(u32::from(*priority));
                        self.addresses(target, service, *port, rank, *weight);
                    }
                }
                true
            }
            Step::Known(_) => false,
            Step::Unknown => true,
        }
    }

    fn addresses(&mut self, name: &Domain, service: Service, port: u16, rank: u32, weight: u16) {
        let Some(families) = self.offered.iter().find(|(s, _)| *s == service).map(|(_, f)| *f) else {
            return;
        };
        self.groups = self.groups.saturating_add(1);
        // RFC 6724: IPv6 goes first where both can be had.
        for (wanted, record) in [(families.v6, RecordType::Aaaa), (families.v4, RecordType::A)] {
            if wanted && let Step::Known(Known::Addresses(addresses)) = self.look(name, record) {
                for address in addresses {
                    self.push(address, service, Some(port), rank, weight);
                }
            }
        }
    }

    fn push(&mut self, address: IpAddr, service: Service, port: Option<u16>, rank: u32, weight: u16) {
        let families = self.offered.iter().find(|(s, _)| *s == service).map(|(_, f)| *f);
        let address = SocketAddr::new(address, port.unwrap_or(service.port()));
        let reachable = families.is_some_and(|f| if address.is_ipv4() { f.v4 } else { f.v6 });
        if reachable {
            self.candidates.push(Candidate { address, service, rank, weight, group: self.groups });
        }
    }

    /// Looks a name up, by way of its aliases.
    fn look(&mut self, name: &Domain, record: RecordType) -> Step {
        let mut name = name.clone();
        for _ in 0..ALIASES_MAX {
            let found = self.resolver.look_up(self.now, &(name, record));
            let again = match found {
                Found::Known { again, .. } | Found::Pending { again } | Found::Failed { again } => again,
            };
            self.again = Some(self.again.map_or(again, |at| at.min(again)));
            match found {
                Found::Known { known: Known::Alias(to), .. } => name = to,
                Found::Known { known, .. } => return Step::Known(known),
                Found::Pending { .. } => {
                    self.pending = true;
                    return Step::Unknown;
                }
                Found::Failed { .. } => {
                    self.failed = true;
                    return Step::Unknown;
                }
            }
        }
        // A circle, or a chain nobody needs.
        Step::Known(Known::Nothing)
    }
}
