//! Dialogs (RFC 3261 12) and the calls made of them.

pub(crate) mod call;
mod digits;
mod early;
mod failover;
mod image;
mod in_dialog;
mod modify;
mod probe;
mod redirect;
mod refer;
mod reliable;
mod session_timer;
pub(crate) mod transfer;
pub(crate) mod uac;
pub(crate) mod uas;

use std::net::SocketAddr;

use crate::endpoint::api::Transport;
use crate::endpoint::io::{Io, Path};
use crate::trunk::resolve::{Destination, Host, Service};
use crate::wire::message::{Head, Name, Response, addr_uri, uri_host_name, uri_target};

/// The state of a dialog (RFC 3261 12), from our side.
#[derive(Clone, Debug)]
pub(crate) struct Dialog {
    pub(crate) trunk: usize,
    /// It is more than an INVITE without an answer.
    pub(crate) established: bool,
    /// TCP was tried for a large request and failed.
    pub(crate) udp_only: bool,
    pub(crate) call_id: String,
    /// Our From or To value, tag included.
    pub(crate) local: String,
    /// Theirs; the tag is missing until a response has brought it.
    pub(crate) remote: String,
    pub(crate) remote_tag: String,
    /// Of our last request.
    pub(crate) cseq: u32,
    /// Of their last request.
    pub(crate) remote_cseq: Option<u32>,
    /// The remote target: the URI of their Contact.
    pub(crate) target: String,
    /// The route set, in the order our requests visit it.
    pub(crate) routes: Vec<String>,
    /// Where requests go if target and route set name no address: where the far side's came from.
    pub(crate) fallback: Path,
}

/// The most Record-Route values that are kept.
const MAX_ROUTES: usize = 32;

impl Dialog {
    /// Builds the dialog that a response to our INVITE makes, from nothing but the response
    /// (RFC 3261 12.1.2). A peer that forgot its Contact is reached by its To URI.
    pub(crate) fn of_response(response: &Response, trunk: usize, fallback: Path) -> Self {
        let head = &response.head;
        let mut routes = head.list(&Name::RecordRoute);
        routes.truncate(MAX_ROUTES);
        routes.reverse();
        let to_uri = || addr_uri(&head.to.value).unwrap_or("sip:unknown.invalid").to_owned();
        Self {
            trunk,
            established: true,
            udp_only: false,
            call_id: head.call_id.clone(),
            local: head.from.value.clone(),
            remote: head.to.value.clone(),
            remote_tag: head.to.tag.clone().unwrap_or_default(),
            cseq: head.cseq,
            remote_cseq: None,
            target: head.contact_uri().unwrap_or_else(to_uri),
            routes,
            fallback,
        }
    }

    /// Builds the dialog that an INVITE makes with our tag (RFC 3261 12.1.1). `None` without a
    /// Contact.
    pub(crate) fn of_invite(head: &Head, tag: &str, trunk: usize, fallback: Path) -> Option<Self> {
        let mut routes = head.list(&Name::RecordRoute);
        routes.truncate(MAX_ROUTES);
        Some(Self {
            trunk,
            established: true,
            udp_only: false,
            call_id: head.call_id.clone(),
            local: format!("{};tag={tag}", head.to.value),
            remote: head.from.value.clone(),
            // RFC 2543 peers send no tag: compare it as empty (RFC 3261 12.1.1).
            remote_tag: head.from.tag.clone().unwrap_or_default(),
            cseq: 0,
            remote_cseq: Some(head.cseq),
            target: head.invite_target()?,
            routes,
            fallback,
        })
    }

    /// Returns the request URI and Route values (RFC 3261 12.2.1.1). A strict router at the front
    /// gets its own URI as request URI, and the target goes last.
    pub(crate) fn uri_and_routes(&self) -> (&str, Vec<String>) {
        let Some((first, rest)) = self.routes.split_first() else { return (&self.target, Vec::new()) };
        let strict = addr_uri(first).filter(|uri| uri_target(uri).is_some_and(|t| !t.loose));
        match strict {
            Some(uri) => {
                let target = format!("<{}>", self.target);
                (uri, rest.iter().cloned().chain([target]).collect())
            }
            None => (&self.target, self.routes.clone()),
        }
    }

    /// Finds where the next request goes: the first route or else the target, where that names an
    /// address; without DNS, else back to where the far side's messages came from.
    pub(crate) fn path(&self, io: &Io) -> Path {
        let path = self.preferred_path(io);
        if self.udp_only && path.transport == Transport::Tcp {
            return io.path(Transport::Udp, path.remote, Some(path.local)).unwrap_or(path);
        }
        path
    }

    fn preferred_path(&self, io: &Io) -> Path {
        if self.routes.is_empty() && io.goes_back(self.trunk, &self.fallback) {
            return self.fallback;
        }
        let uri = self.routes.first().and_then(|r| addr_uri(r)).unwrap_or(&self.target);
        let Some(target) = uri_target(uri) else { return self.fallback };
        let Some(address) = target.address else { return self.fallback };
        if address.is_unspecified() || address.is_multicast() {
            return self.fallback;
        }
        let transport = target.transport.unwrap_or(self.fallback.transport);
        // RFC 7118 5.2.2: nobody else leads to a WebSocket client than the connection it opened.
        if self.fallback.transport.is_web() || transport.is_web() {
            return self.fallback;
        }
        let remote = SocketAddr::new(address, target.port.unwrap_or(transport.default_port()));
        if transport == self.fallback.transport && remote == self.fallback.remote {
            return self.fallback;
        }
        io.path(transport, remote, Some(self.fallback.local)).unwrap_or(self.fallback)
    }

    /// Returns the next hop, if that is a name: of the first route, or the target (RFC 3261 12.2.1.1).
    /// The transport is decided already.
    pub(crate) fn named_hop(&self, transport: Transport) -> Option<Destination> {
        let uri = self.routes.first().and_then(|r| addr_uri(r)).unwrap_or(&self.target);
        let name = uri_host_name(uri)?.parse().ok()?;
        let port = uri_target(uri)?.port;
        Some(Destination { host: Host::Name(name), port, service: Some(Service::of(transport)?) })
    }

    /// Takes over a new remote target from a target refresh (RFC 3261 12.2.1.2, 12.2.2).
    pub(crate) fn refresh_target(&mut self, head: &Head) {
        if let Some(uri) = head.contact_uri() {
            self.target = uri;
        }
    }
}

/// Returns an address of ours as the host of a URI in From: no port there (RFC 3261 19.1.1).
pub(crate) fn host_of(address: SocketAddr) -> String {
    without_port(&address.to_string()).to_owned()
}

/// Returns a host without its port.
pub(crate) fn without_port(host: &str) -> &str {
    match host.find(']') {
        Some(end) => host.get(..=end).unwrap_or(host),
        None => host.split(':').next().unwrap_or(host),
    }
}
