//! Those who are no trunk by their address: what they may send, and who they turn out to be.

use std::net::SocketAddr;

use super::Endpoint;
use super::access::admits;
use super::config::UnknownSource;
use super::io::Path;
use crate::dialog::uas::Refused;
use crate::registrar;
use crate::wire::message::{Method, Request, tag_number};

/// What is counted where nobody knows the far side.
pub(super) const UNKNOWN: &str = "unknown_source";

impl Endpoint {
    /// Says why nothing is read that comes from a source, before anything is.
    pub(super) fn refuses(
        &self,
        trunk: Option<usize>,
        listener: SocketAddr,
        source: SocketAddr,
    ) -> Option<&'static str> {
        if !admits(&self.core.config.access, listener, source.ip()) {
            return Some("access_list");
        }
        // What a neighbour behind the same translator does is not held against who is registered.
        let banned = trunk.is_none() && self.core.accounts.is_banned(source.ip(), self.core.io.now);
        banned.then_some("banned")
    }

    /// Finds the trunk of a path: by the certificate of its connection, by the address, or by what
    /// registered over it.
    pub(super) fn whose(&self, path: &Path, source: SocketAddr) -> Option<usize> {
        let certified = path.connection.and_then(|connection| self.core.io.pool.trunk(connection));
        // Where we went ourselves we have seen whose certificate it is.
        let by_address = || match path.connection {
            Some(connection) if !connection.is_inbound() => self.sources.trunk(source),
            _ => self.sources.of_source(source),
        };
        certified.or_else(by_address).or_else(|| self.core.accounts.of_flow(path))
    }

    /// Says why a connection is closed at once. Those who have yet to say who they are take no more than
    /// half of the connections; `promising`: a certificate may do that yet.
    pub(super) fn refuses_connection(
        &self,
        trunk: Option<usize>,
        listener: SocketAddr,
        remote: SocketAddr,
        promising: bool,
    ) -> Option<&'static str> {
        if let Some(refusal) = self.refuses(trunk, listener, remote) {
            return Some(refusal);
        }
        if trunk.is_some() {
            return None;
        }
        if !self.core.accounts.any() && !promising {
            return Some(UNKNOWN);
        }
        let full = self.core.io.pool.len() * 2 >= self.core.config.limits.connections;
        full.then_some("connections")
    }

    /// Says whether the far side may hear what is wrong with its message.
    pub(super) fn may_hear(&self, trunk: Option<usize>) -> bool {
        trunk.is_some() || self.core.config.unknown_source == UnknownSource::Forbid
    }

    /// Answers a stranger as the configuration says.
    pub(super) fn refuse_stranger(&mut self, path: Path, source: SocketAddr, bytes: &[u8]) {
        self.core.io.counters.refuse(UNKNOWN);
        if self.core.config.unknown_source == UnknownSource::Forbid {
            self.refuse_raw(path, source, bytes, 403);
        }
    }

    /// Says whether a stranger may be asked who it is for a request, or need not be: what belongs to a call
    /// of an account is known by tags and branches nobody else has seen (RFC 3261 22.1: ACK and CANCEL
    /// are never challenged).
    pub(super) fn may_ask(&self, request: &Request) -> bool {
        match request.method {
            Method::Register => true,
            Method::Cancel => {
                let call = self.core.servers.cancelled(request).and_then(|(_, call)| call);
                call.is_some_and(|key| self.is_of_account(key))
            }
            // A stray ACK has no answer whatever it is, and that of a challenge is one.
            Method::Ack => true,
            Method::Invite if request.head.to.tag.is_none() => true,
            _ => self.call_of(request).is_some(),
        }
    }

    /// Finds the trunk of a stranger: by the call its request is of, else by its credentials.
    pub(super) fn identify(&mut self, source: SocketAddr, request: &Request) -> Result<usize, Refused> {
        if let Some(trunk) = self.call_of(request) {
            return Ok(trunk);
        }
        registrar::authenticate(&mut self.core, request, source)
    }

    /// Finds the account whose call a request is of.
    fn call_of(&self, request: &Request) -> Option<usize> {
        let key = request.head.to.tag.as_deref().and_then(tag_number)?;
        let call = self.calls.get(&key).filter(|call| call.owns(request))?;
        self.is_of_account(key).then_some(call.trunk)
    }

    fn is_of_account(&self, key: u64) -> bool {
        let trunk = self.calls.get(&key).and_then(|call| self.core.trunks.get(call.trunk));
        trunk.is_some_and(|trunk| trunk.account.is_some())
    }
}
