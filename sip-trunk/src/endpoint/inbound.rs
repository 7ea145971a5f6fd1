//! Messages received: whose they are, the checks of RFC 3261 8.2, and where they go.

use std::net::SocketAddr;

use bytes::Bytes;
use call_model::CallId;

use super::api::{ConnectionId, Transmit, Transport};
use super::counters::class;
use super::io::{Path, hex};
use super::{Endpoint, Io};
use crate::cause::reason_phrase;
use crate::dialog::{uac, uas};
use crate::registrar;
use crate::transaction::server::Match;
use crate::trunk::numbers::user_part;
use crate::trunk::{by_registration, overload, registration};
use crate::wire::message::{Message, Method, Name, Request, Response, Scheme, parse, tag_number};
use crate::wire::plain;
use crate::wire::tolerance::{Framing, Refusal, refusal_answer, tolerate};

/// What a client is asked to wait, in seconds, spread so that not all come back at once.
const RETRY_AFTER: (u64, u64) = (2, 10);

impl Endpoint {
    pub(super) fn receive_datagram(&mut self, local: SocketAddr, remote: SocketAddr, bytes: &[u8]) {
        let path = Path { transport: Transport::Udp, local, remote, connection: None };
        self.receive(path, remote, bytes, Framing::Datagram);
    }

    pub(super) fn receive_stream_message(&mut self, connection: ConnectionId, raw: &[u8]) {
        let Some((transport, local, remote)) = self.core.io.pool.addresses(connection) else { return };
        let local = self.core.io.listener(transport, local);
        let path = Path { transport, local, remote, connection: Some(connection) };
        // RFC 7118 4: the WebSocket says how long a message is.
        let framing = if transport.is_web() { Framing::Datagram } else { Framing::Stream };
        self.receive(path, remote, raw, framing);
    }

    /// The access list comes before anything is read. A connection we opened ourselves may lead
    /// elsewhere, to the address in a Contact: responses are heard there, requests are not.
    fn receive(&mut self, path: Path, source: SocketAddr, bytes: &[u8], framing: Framing) {
        let trunk = self.whose(&path, source);
        if path.connection.is_none_or(ConnectionId::is_inbound) {
            if let Some(refusal) = self.refuses(trunk, path.local, source) {
                return self.core.io.counters.refuse(refusal);
            }
            // A collector of quality reports is no trunk: what it answers is heard, what it asks is not.
            let awaited = || self.core.awaited.contains_key(&source.ip().to_canonical());
            if trunk.is_none() && !self.core.accounts.any() && !awaited() {
                return self.refuse_stranger(path, source, bytes);
            }
        }
        if path.transport == Transport::Udp && registration::is_stun(bytes) {
            // RFC 5626 8: who registered may ask whether its flow lives, and no other.
            let flow = self.core.accounts.of_flow(&path);
            if let Some(answer) = flow.and_then(|_| registrar::stun_answer(bytes, source)) {
                let datagram = Transmit::Datagram { local: path.local, remote: source, bytes: answer };
                return self.core.io.transmits.push_back(datagram);
            }
            return registration::on_stun(&mut self.core, path.local, source, bytes);
        }
        let Io { captures, now, .. } = &mut self.core.io;
        captures.come(*now, path.transport, (path.local, source), bytes);
        let limits = self.core.config.limits.message;
        if let Some(message) = plain::read(bytes, &limits) {
            return self.receive_message(trunk, path, source, message, bytes);
        }
        let tolerance = trunk.and_then(|index| self.core.trunks.get(index));
        let tolerance = tolerance.map(|t| t.config.tolerance).unwrap_or_default();
        let tolerated = match tolerate(bytes, framing, &tolerance, &limits) {
            Ok(tolerated) => tolerated,
            Err(Refusal::KeepAlive) => return,
            Err(refusal) => {
                self.core.io.counters.refuse(refusal.as_str());
                if let Some(status) = refusal.status().filter(|_| self.may_hear(trunk)) {
                    self.refuse_raw(path, source, bytes, status);
                }
                return;
            }
        };
        for repair in tolerated.repairs.iter() {
            self.core.io.counters.repair(repair.as_str());
        }
        match parse(tolerated.bytes.clone(), &limits) {
            Ok(message) => self.receive_message(trunk, path, source, message, &tolerated.bytes),
            Err(fault) => {
                self.core.io.counters.refuse(fault.reason);
                if self.may_hear(trunk) {
                    self.refuse_raw(path, source, &tolerated.bytes, fault.status);
                }
            }
        }
    }

    fn receive_message(
        &mut self,
        trunk: Option<usize>,
        path: Path,
        source: SocketAddr,
        message: Message,
        bytes: &[u8],
    ) {
        match message {
            Message::Request(request) => {
                let guest = path.connection.is_none_or(ConnectionId::is_inbound) && self.core.accounts.any();
                if trunk.is_none() && !guest {
                    self.core.io.counters.refuse("unknown_source");
                    return self.refuse_raw(path, source, bytes, 403);
                }
                *self.core.io.counters.requests_in.entry(request.method.as_str()).or_default() += 1;
                if !self.receive_request(trunk, path, source, &request) {
                    self.refuse_stranger(path, source, bytes);
                }
            }
            Message::Response(response) => {
                *self.core.io.counters.responses_in.entry(class(response.status)).or_default() += 1;
                self.receive_response(response, source);
            }
        }
    }

    /// Answers what could not be read, from its bytes.
    pub(super) fn refuse_raw(&mut self, path: Path, source: SocketAddr, bytes: &[u8], status: u16) {
        let Some(answer) = refusal_answer(bytes, status, reason_phrase(status), "refused", source) else {
            return;
        };
        self.core.io.count_response(status);
        let bytes = Bytes::from(answer);
        match path.connection {
            Some(connection) => self.core.io.transmits.push_back(Transmit::Stream { connection, bytes }),
            None => {
                let datagram = Transmit::Datagram { local: path.local, remote: path.remote, bytes };
                self.core.io.transmits.push_back(datagram);
            }
        }
    }

    fn receive_response(&mut self, response: Response, source: SocketAddr) {
        // RFC 3261 8.1.3.3: with another Via beneath ours it went astray.
        let ours = response.head.has_one_via();
        if !ours || !self.core.clients.on_response(&mut self.core.io, response, source) {
            self.core.io.counters.refuse("stray_response");
        }
    }

    /// Takes a request in, of a trunk or of somebody who has yet to say who it is. False if it is not for
    /// strangers.
    fn receive_request(
        &mut self,
        trunk: Option<usize>,
        path: Path,
        source: SocketAddr,
        request: &Request,
    ) -> bool {
        // RFC 3261 18.2.2, RFC 3581 4: with rport to the source port, else to the port of the Via;
        // but for UDP over the same connection while it lives.
        let mut reply_path = path;
        let port = request.head.via.port.unwrap_or(path.transport.default_port());
        if !request.head.via.rport || path.reliable() {
            reply_path.remote.set_port(port);
        }
        if let Some(connection) = path.connection.filter(|_| request.head.via.alias) {
            self.core.io.pool.alias(connection, port);
        }
        match self.core.servers.on_request(&mut self.core.io, request) {
            Match::Absorbed => return true,
            Match::AckOfSuccess | Match::New => {}
        }
        if trunk.is_none() && !self.may_ask(request) {
            return false;
        }
        // To those who are no trunk yet we say what we say to any.
        let known = trunk.unwrap_or(usize::MAX);
        match request.method {
            Method::Ack => self.receive_ack(request),
            Method::Cancel => self.receive_cancel(known, request, reply_path, source),
            _ => {
                let routed = match (request.method, trunk) {
                    (Method::Register, _) if self.core.accounts.any() => {
                        registrar::on_register(&mut self.core, path, reply_path, source, request)
                    }
                    (_, Some(trunk)) => self.route(trunk, path, reply_path, source, request),
                    (_, None) => self
                        .identify(source, request)
                        .and_then(|trunk| self.route(trunk, path, reply_path, source, request)),
                };
                if let Err((status, lines)) = routed {
                    self.core.io.counters.refuse(refusal_label(status));
                    self.core.respond_statelessly(known, request, (reply_path, source), status, &lines, None);
                }
            }
        }
        true
    }

    fn receive_ack(&mut self, request: &Request) {
        let Some(key) = request.head.to.tag.as_deref().and_then(tag_number) else { return };
        if let Some(call) = self.calls.get_mut(&key)
            && call.owns(request)
        {
            call.on_ack(&mut self.core, request);
            self.review(key);
        }
    }

    /// RFC 3261 9.2.
    fn receive_cancel(&mut self, trunk: usize, request: &Request, path: Path, source: SocketAddr) {
        let Some((server, call)) = self.core.servers.cancelled(request) else {
            self.core.io.counters.refuse("cancel_unknown");
            return self.core.respond_statelessly(trunk, request, (path, source), 481, &[], None);
        };
        // RFC 3261 9.2: the same tag as in the responses to the INVITE.
        self.core.respond_statelessly(trunk, request, (path, source), 200, &[], call.map(hex));
        if let Some(key) = call
            && let Some(call) = self.calls.get_mut(&key)
        {
            call.on_cancel(&mut self.core, server, request);
            self.review(key);
        }
    }

    /// The checks of RFC 3261 8.2, then to a call or a new one.
    fn route(
        &mut self,
        trunk: usize,
        path: Path,
        reply_path: Path,
        source: SocketAddr,
        request: &Request,
    ) -> Result<(), uas::Refused> {
        let head = &request.head;
        let plain = |status: u16| (status, Vec::new());
        match request.scheme {
            Scheme::Sip | Scheme::Tel => {}
            // RFC 5630 3.1.1: TLS on every hop, and this is the last.
            Scheme::Sips if path.transport.is_secure() => {}
            // RFC 5630 4.3; and no other scheme is known (8.2.2.1).
            Scheme::Sips | Scheme::Other => return Err(plain(416)),
        }
        // Within a dialog the request has arrived: there is no further hop (RFC 3261 16.3).
        if head.max_forwards() == 0 && request.method != Method::Options && head.to.tag.is_none() {
            return Err(plain(483));
        }
        // Several accounts may share one address: what is asked for is asked of the one that is meant.
        let trunk = match request.method {
            Method::Invite if head.to.tag.is_none() => {
                let own = by_registration(&self.core.trunks, source, path.connection, &request.uri);
                let account = || self.core.accounts.of_request(&self.core.trunks, &path, request);
                own.or_else(account).unwrap_or(trunk)
            }
            _ => trunk,
        };
        // RFC 3261 8.2.2.3.
        let supported = self.core.supported(trunk);
        let known = |tag: &str| supported.split(", ").any(|known| tag.eq_ignore_ascii_case(known));
        let unsupported: Vec<_> = head.list(&Name::Require).into_iter().filter(|tag| !known(tag)).collect();
        if !unsupported.is_empty() {
            return Err((420, vec![("Unsupported", unsupported.join(", "))]));
        }
        // RFC 3891 3: it means something in an INVITE alone.
        if request.method != Method::Invite
            && head.text(&Name::Replaces).is_some()
            && self.accepts_replaces(trunk)
        {
            return Err(plain(400));
        }
        if head.to.tag.is_some() {
            return self.route_in_dialog(reply_path, source, request);
        }
        match request.method {
            Method::Invite => self.receive_invite(trunk, path, reply_path, source, request),
            Method::Options if self.core.draining => Err(self.busy()),
            Method::Options => {
                let able =
                    [("Accept", crate::sdp::CONTENT_TYPE.to_owned()), ("Supported", supported.to_owned())];
                self.core.respond_statelessly(trunk, request, (reply_path, source), 200, &able, None);
                Ok(())
            }
            Method::Bye | Method::Update | Method::Info | Method::Prack | Method::Notify => Err(plain(481)),
            Method::Refer => Err(plain(603)),
            Method::Other => Err(plain(501)),
            _ => Err(plain(405)),
        }
    }

    fn route_in_dialog(
        &mut self,
        path: Path,
        source: SocketAddr,
        request: &Request,
    ) -> Result<(), uas::Refused> {
        let key = request.head.to.tag.as_deref().and_then(tag_number);
        let known = key.and_then(|key| self.calls.get(&key)).is_some_and(|call| call.owns(request));
        let Some(key) = key.filter(|_| known) else {
            return Err((481, Vec::new()));
        };
        if !self.core.servers.room(source.ip(), true) {
            return Err(self.busy());
        }
        let replaced = self.meant_by_refer(key, request);
        if let Some(call) = self.calls.get_mut(&key) {
            call.on_request(&mut self.core, request, source, path, replaced);
            self.review(key);
        }
        Ok(())
    }

    fn receive_invite(
        &mut self,
        trunk: usize,
        path: Path,
        reply_path: Path,
        source: SocketAddr,
        request: &Request,
    ) -> Result<(), uas::Refused> {
        // RFC 3261 8.2.2.2.
        if self.core.servers.is_merged(request) {
            return Err((482, Vec::new()));
        }
        // RFC 3261 21.4.7, RFC 4475 3.3.15: the answer to an INVITE is a session description.
        if !request.head.accepts_sdp() {
            let warning = "399 causeway \"Only application/sdp can be sent\"".to_owned();
            return Err((406, vec![("Warning", warning)]));
        }
        let urgent = self.is_urgent(trunk, request);
        if !urgent {
            self.admit_load(trunk, request)?;
        }
        // What takes the place of a call needs no channel of its own for long.
        let replaced = self.replaced_by(trunk, request)?;
        if self.core.draining || !self.has_room() || !self.core.servers.room(source.ip(), false) {
            return Err(self.busy());
        }
        if replaced.is_none() && !self.has_channel(trunk) {
            self.core.io.counters.refuse("channels");
            return Err(self.limited(call_model::Cause::NO_CIRCUIT_AVAILABLE, "All channels are in use"));
        }
        let Io { now, random, .. } = &mut self.core.io;
        let elapsed = now.saturating_duration_since(self.started).as_millis() as u64;
        let random = (u128::from(random.number()) << 64) | u128::from(random.number());
        let id = CallId::new(self.unix_ms + elapsed, random);
        // The dialog's own requests go back to the source, not to the port responses go to.
        let call = uas::receive(&mut self.core, trunk, request, source, (reply_path, path), id, replaced)?;
        self.insert(call);
        Ok(())
    }

    /// Says whether a call is not to be refused for load (RFC 7339 5.10.1).
    fn is_urgent(&self, trunk: usize, request: &Request) -> bool {
        let named = || {
            let user = user_part(&request.uri).unwrap_or_default();
            self.core.config.emergency.iter().any(|number| number == user.trim_start_matches('+'))
        };
        let trusted = self.core.trunks.get(trunk).is_some_and(|t| t.config.trusted);
        // RFC 4412 3.1: a priority counts for those who trust each other.
        named() || trusted && uac::has_emergency_priority(&request.head.texts_named("Resource-Priority"))
    }

    /// Refuses a new call while there is too much to do, or where its trunk has sent its share of the
    /// second.
    fn admit_load(&mut self, trunk: usize, request: &Request) -> Result<(), uas::Refused> {
        let takes_part = request.head.text(&Name::Via).is_some_and(|via| overload::is_asked(&via));
        let (now, lot) = (self.core.io.now, self.core.io.random.between(0, 999_999));
        if self.core.overload.sheds(now, takes_part, lot) {
            self.core.io.counters.refuse("overload");
            return Err(self.limited(call_model::Cause::SWITCHING_EQUIPMENT_CONGESTION, "Overloaded"));
        }
        if !self.core.within_rate(trunk) {
            self.core.io.counters.refuse("call_rate");
            let cause = call_model::Cause::SWITCHING_EQUIPMENT_CONGESTION;
            return Err(self.limited(cause, "Too many calls a second"));
        }
        Ok(())
    }

    /// As [`Self::busy`], with the limit that was met named in words.
    fn limited(&mut self, cause: call_model::Cause, limit: &str) -> uas::Refused {
        let (status, mut lines) = self.busy();
        lines.retain(|(name, _)| *name != "Reason");
        lines.push(("Reason", crate::cause::reason_value(cause)));
        lines.push(("Warning", format!("399 causeway \"{limit}\"")));
        (status, lines)
    }

    /// 503 with a Retry-After that spreads the clients.
    fn busy(&mut self) -> uas::Refused {
        let (from, to) = RETRY_AFTER;
        let seconds = self.core.io.random.between(from, to);
        let reason = crate::cause::reason_value(call_model::Cause::SWITCHING_EQUIPMENT_CONGESTION);
        (503, vec![("Retry-After", seconds.to_string()), ("Reason", reason)])
    }
}

/// The metric label of a refusal by status.
fn refusal_label(status: u16) -> &'static str {
    match status {
        400 => "bad_request",
        401 => "unauthorized",
        405 => "method_not_allowed",
        406 => "no_sdp_accepted",
        415 => "unsupported_media_type",
        416 => "unsupported_scheme",
        420 => "bad_extension",
        421 => "extension_required",
        422 => "session_interval",
        481 => "unknown_dialog",
        482 => "merged",
        483 => "too_many_hops",
        488 => "not_acceptable",
        501 => "unknown_method",
        503 => "busy",
        603 => "declined",
        _ => "other",
    }
}
