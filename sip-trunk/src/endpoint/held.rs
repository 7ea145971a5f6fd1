//! Requests of dialogs whose next hop is a name (RFC 3263 4): they wait until it is known where that
//! leads, for a bounded time. Then they go back to where the far side's messages came from.

use std::time::{Duration, Instant};

use super::api::Transport;
use super::core::Core;
use super::io::Path;
use crate::dialog::Dialog;
use crate::transaction::client::{ClientKey, NewRequest};
use crate::transaction::timer::{Alarm, Due};
use crate::trunk::resolve::{Destination, Families, Located, Service, draw};

/// How long a request waits for DNS.
const PATIENCE: Duration = Duration::from_secs(3);
/// The most requests that wait.
const HELD_MAX: usize = 512;

/// The requests that wait.
#[derive(Debug, Default)]
pub(crate) struct Held {
    waiting: Vec<Waiting>,
    alarm: Alarm,
}

struct Waiting {
    destination: Destination,
    until: Instant,
    what: What,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("until", &self.until).finish_non_exhaustive()
    }
}

enum What {
    Request(Box<NewRequest>),
    Ack { key: ClientKey, tag: String, path: Path },
}

impl What {
    fn path(&self) -> Path {
        match self {
            What::Request(request) => request.path,
            What::Ack { path, .. } => *path,
        }
    }
}

enum Way {
    Found(Path),
    Wait,
}

impl Core {
    /// Starts a request's transaction, or lets it wait for its way.
    pub(super) fn start(&mut self, dialog: &Dialog, mut request: NewRequest) -> ClientKey {
        let key = request.key();
        let named = self.named_hop(dialog, request.path.transport).filter(|_| dialog.established);
        if let Some(destination) = named {
            match self.way(&destination, request.path) {
                Way::Wait if self.held.waiting.len() < HELD_MAX => {
                    self.hold(destination, What::Request(Box::new(request)));
                    return key;
                }
                Way::Wait => self.io.counters.refuse("held_requests"),
                Way::Found(path) => request.path = path,
            }
        }
        self.clients.start(&mut self.io, request)
    }

    /// Sends the ACK of a 2xx, or lets it wait for its way.
    pub(crate) fn acknowledge(
        &mut self,
        dialog: &Dialog,
        key: ClientKey,
        bytes: bytes::Bytes,
        mut path: Path,
    ) {
        let mut wait = None;
        if let Some(destination) = self.named_hop(dialog, path.transport) {
            match self.way(&destination, path) {
                Way::Wait if self.held.waiting.len() < HELD_MAX => wait = Some(destination),
                Way::Wait => self.io.counters.refuse("held_requests"),
                Way::Found(found) => path = found,
            }
        }
        let tag = &dialog.remote_tag;
        self.clients.acknowledge(&mut self.io, key, tag, bytes, path, wait.is_some());
        if let Some(destination) = wait {
            self.hold(destination, What::Ack { key, tag: tag.clone(), path });
        }
    }

    /// Returns the name the next request of a dialog goes to, unless it goes back the way it came anyhow.
    fn named_hop(&self, dialog: &Dialog, transport: Transport) -> Option<Destination> {
        let back = dialog.routes.is_empty() && self.io.goes_back(dialog.trunk, &dialog.fallback);
        if back || !self.config.dns { None } else { dialog.named_hop(transport) }
    }

    fn hold(&mut self, destination: Destination, what: What) {
        let until = self.io.now + PATIENCE;
        self.held.waiting.push(Waiting { destination, until, what });
        self.arm_held();
    }

    fn arm_held(&mut self) {
        let next = self.held.waiting.iter().map(|w| w.until).min();
        self.held.alarm.set(&mut self.io.timers, Due::Held, next);
    }

    /// Finds where a name leads: by the family and the transport of the path that would be taken
    /// otherwise, and along that path if the name leads there too.
    fn way(&mut self, destination: &Destination, path: Path) -> Way {
        let v4 = path.remote.is_ipv4();
        let Some(service) = Service::of(path.transport) else { return Way::Found(path) };
        let offered = [(service, Families { v4, v6: !v4 })];
        match self.resolver.locate(self.io.now, destination, &offered) {
            Located::Known { candidates, .. } => {
                if candidates.iter().any(|c| c.address == path.remote) {
                    return Way::Found(path);
                }
                let random = &mut self.io.random;
                let drawn =
                    draw(&candidates, |c| (c.rank, c.weight, c.group), |limit| random.between(0, limit));
                let found =
                    drawn.first().and_then(|c| self.io.path(path.transport, c.address, Some(path.local)));
                Way::Found(found.unwrap_or(path))
            }
            Located::Pending { .. } => Way::Wait,
            Located::Nowhere { .. } | Located::Unavailable { .. } => Way::Found(path),
        }
    }

    /// Sends what need not wait any more.
    pub(super) fn release_held(&mut self) {
        let now = self.io.now;
        for waiting in std::mem::take(&mut self.held.waiting) {
            let own = waiting.what.path();
            let path = match self.way(&waiting.destination, own) {
                Way::Found(path) => path,
                Way::Wait if waiting.until <= now => own,
                Way::Wait => {
                    self.held.waiting.push(waiting);
                    continue;
                }
            };
            match waiting.what {
                What::Request(request) => {
                    self.clients.start(&mut self.io, NewRequest { path, ..*request });
                }
                What::Ack { key, tag, .. } => self.clients.acknowledge_by(&mut self.io, key, &tag, path),
            }
        }
        self.arm_held();
    }

    /// A deadline surfaced.
    pub(super) fn on_held_timer(&mut self, at: Instant) {
        if self.held.alarm.surfaced(&mut self.io.timers, Due::Held, at, self.io.now) {
            self.release_held();
        }
    }
}
