//! The state calls and trunks share.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use call_model::{Actor, CallId, Exchange, Protocol};

use super::api::{Event, Transport};
use super::config::EndpointConfig;
use super::held::Held;
use super::io::{Io, Path, contact, sips, via};
use crate::cause::reason_phrase;
use crate::dialog::Dialog;
use crate::dialog::call::Call;
use crate::registrar::Accounts;
use crate::transaction::client::{ClientKey, Clients, NewRequest, Owner};
use crate::transaction::server::Servers;
use crate::trunk::numbers::user_part;
use crate::trunk::overload::Controller;
use crate::trunk::resolve::Resolver;
use crate::trunk::{GroupForm, Reliable, Transfers, Trunk, parameters};
use crate::wire::message::{Method, Request, addr_uri};
use crate::wire::write::{ReplyHead, Writer};

/// How many hops a request of ours may go (RFC 3261 8.1.1.6).
const MAX_FORWARDS: u8 = 70;

/// What this endpoint can do, for Allow headers. NOTIFY comes in answer to a REFER of ours
/// (RFC 3515 2.4.1).
const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, PRACK, UPDATE, INFO, NOTIFY";

/// The same towards a trunk that may ask for transfers. SUBSCRIBE comes from whoever wants to hear of
/// its transfer no longer (RFC 3515 2.4.4).
const ALLOW_WITH_REFER: &str =
    "INVITE, ACK, BYE, CANCEL, OPTIONS, PRACK, UPDATE, INFO, NOTIFY, REFER, SUBSCRIBE";

/// User-Agent and Allow: part of most messages.
#[derive(Debug)]
pub(crate) struct CommonLines {
    plain: Bytes,
    with_refer: Bytes,
}

impl CommonLines {
    /// `registrar` says whether anybody may register here.
    pub(crate) fn new(user_agent: &str, registrar: bool) -> Self {
        let lines = |allow: &str| {
            let mut lines = Writer::fragment();
            let allow = if registrar { format!("{allow}, REGISTER") } else { allow.to_owned() };
            lines.line("User-Agent", user_agent).line("Allow", &allow);
            lines.into_lines()
        };
        Self { plain: lines(ALLOW), with_refer: lines(ALLOW_WITH_REFER) }
    }

    pub(crate) fn of(&self, transfers: Transfers) -> &Bytes {
        match transfers {
            Transfers::Refuse => &self.plain,
            Transfers::Accept => &self.with_refer,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: EndpointConfig,
    pub(crate) io: Io,
    pub(crate) clients: Clients,
    pub(crate) servers: Servers,
    pub(crate) trunks: Vec<Trunk>,
    pub(crate) accounts: Accounts,
    pub(crate) events: VecDeque<Event>,
    /// Dialogs nobody wants, to be kept until their BYE is answered.
    pub(crate) strays: Vec<Call>,
    /// Calls (by the number of our tag) whose dialog another has taken the place of, to be ended.
    pub(crate) replaced: Vec<u64>,
    pub(crate) draining: bool,
    pub(crate) resolver: Resolver,
    /// Requests that wait for their way.
    pub(crate) held: Held,
    pub(crate) overload: Controller,
    /// The targets of a trunk have changed.
    pub(crate) sources_changed: bool,
    pub(crate) common: CommonLines,
    /// Where answers to quality reports are due from, and how many.
    pub(crate) awaited: HashMap<IpAddr, u32>,
}

/// What is particular about a request within a dialog.
#[derive(Default)]
pub(crate) struct Extra<'a> {
    pub(crate) lines: Vec<(&'static str, String)>,
    /// Whole lines of a request of ours.
    pub(crate) copied: Bytes,
    pub(crate) sdp: Option<&'a [u8]>,
    /// A body that is no session description, with its type.
    pub(crate) body: Option<(&'a str, &'a [u8])>,
    /// Instead of a description: how far another call is (RFC 3420).
    pub(crate) sipfrag: Option<&'a str>,
    /// How many hops it may go, where that is less than the usual 70 (RFC 3261 8.1.1.6).
    pub(crate) hops: Option<u8>,
}

impl Extra<'_> {
    fn finish(&self, out: Writer) -> Bytes {
        match (self.sipfrag, self.body) {
            (Some(fragment), _) => out.finish_with(SIPFRAG, fragment.as_bytes()),
            (None, Some((kind, body))) => out.finish_with(kind, body),
            (None, None) => out.finish(self.sdp),
        }
    }
}

/// The type of a fragment of a SIP message (RFC 3420).
pub(crate) const SIPFRAG: &str = "message/sipfrag";

impl Core {
    /// Sends a request of a dialog. The caller has set its CSeq.
    pub(crate) fn request(
        &mut self,
        dialog: &Dialog,
        method: Method,
        mut path: Path,
        owner: Owner,
        extra: &Extra<'_>,
    ) -> ClientKey {
        let trunk = dialog.trunk;
        // A registered flow is not left for the size of a request: to the registrar's proxy whatever
        // comes by another is a stranger's.
        let leaves = |t: &Trunk| t.may_use_tcp() && t.flow().is_none_or(|flow| flow.remote != path.remote);
        let allow_tcp = !dialog.udp_only && self.trunks.get(trunk).is_some_and(leaves);
        let branch = self.io.random.number();
        let mut bytes = self.write_request(dialog, method, dialog.cseq, &path, branch, extra);
        // RFC 3261 18.1.1: 1300 bytes, if the trunk does not say otherwise.
        let largest = self.trunks.get(trunk).map_or(usize::MAX, |t| t.config.largest_datagram);
        if bytes.len() > largest
            && allow_tcp
            && path.transport == Transport::Udp
            && let Some(tcp) = self.io.path(Transport::Tcp, path.remote, Some(path.local))
        {
            path = tcp;
            bytes = self.write_request(dialog, method, dialog.cseq, &path, branch, extra);
        }
        let (cseq, in_dialog, patience) = (dialog.cseq, dialog.established, None);
        let request = NewRequest { branch, method, cseq, bytes, path, owner, trunk, in_dialog, patience };
        self.start(dialog, request)
    }

    /// Writes a request of a dialog.
    pub(crate) fn write_request(
        &self,
        dialog: &Dialog,
        method: Method,
        cseq: u32,
        path: &Path,
        branch: u64,
        extra: &Extra<'_>,
    ) -> Bytes {
        let (uri, routes) = dialog.uri_and_routes();
        let name = method.as_str();
        let mut out = Writer::request(name, uri);
        let mut via = via(path, branch);
        if self.trunks.get(dialog.trunk).is_some_and(|t| t.config.overload_control) {
            // RFC 7339 5.1.
            via.push_str(";oc;oc-algo=\"loss\"");
        }
        out.line("Via", &via);
        out.line("Max-Forwards", &extra.hops.map_or(MAX_FORWARDS, |hops| hops.min(MAX_FORWARDS)).to_string());
        for route in routes {
            out.line("Route", &route);
        }
        out.line("From", &dialog.local);
        out.line("To", &dialog.remote);
        out.line("Call-ID", &dialog.call_id);
        out.line("CSeq", &format!("{cseq} {name}"));
        // RFC 3261 12.2.1.1, RFC 3515 2.2, RFC 6665 8.2.1: what may refresh the target. RFC 3261 11.1:
        // an OPTIONS of its own may say where we are; Teams hears no other.
        let own_query = method == Method::Options && !dialog.established;
        if own_query || matches!(method, Method::Invite | Method::Update | Method::Refer | Method::Notify) {
            let contact = self.contact_of(dialog, path);
            // RFC 3261 8.1.1.8.
            let secure = dialog.target.get(..5).is_some_and(|s| s.eq_ignore_ascii_case("sips:"));
            out.line("Contact", &if secure { sips(&contact) } else { contact });
        }
        out.lines(self.common_lines(dialog.trunk));
        // A re-INVITE rings nobody: what it comes to is wanted at once, not provisionally.
        let reliable = match (method, dialog.established) {
            (Method::Invite, true) => Reliable::Off,
            _ => self.reliable(dialog.trunk),
        };
        out.line("Supported", self.supported_with(dialog.trunk, reliable));
        out.lines(&extra.copied);
        for (name, value) in &extra.lines {
            out.line(name, value);
        }
        extra.finish(out)
    }

    /// Writes our Contact, with the trunk group that calls of the trunk come over
    /// (RFC 4904 5).
    fn contact_of(&self, dialog: &Dialog, path: &Path) -> String {
        let trunk = self.trunks.get(dialog.trunk);
        let plain = trunk.map_or_else(|| contact(path), |t| t.contact(path));
        let stamp = trunk.and_then(|t| t.config.trunk_group.as_ref());
        let Some((group, GroupForm::Contact)) = stamp else { return plain };
        // A registered contact has a user part of its own.
        if let Some((user, host)) = plain.split_once('@') {
            return format!("{user}{}@{host}", parameters::group(group));
        }
        // The group is a parameter of a number: ours in this dialog.
        let user = addr_uri(&dialog.local).and_then(user_part).unwrap_or_default();
        let fits =
            !user.is_empty() && user.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-._".contains(&b));
        let user = if fits { user } else { "anonymous".to_owned() };
        plain.replacen("<sip:", &format!("<sip:{user}{}@", parameters::group(group)), 1)
    }

    /// Answers through a server transaction. `tag` is ours.
    pub(crate) fn respond(
        &mut self,
        trunk: usize,
        server: u64,
        status: u16,
        tag: &str,
        extra: &Extra<'_>,
    ) -> Bytes {
        let Some(head) = self.servers.head(server) else { return Bytes::new() };
        let ours = head.asks_for_overload.then(|| self.overload.parameters(self.io.now));
        let mut out =
            head.begin(ours.as_deref(), status, reason_phrase(status), (status > 100).then_some(tag));
        if status > 100 {
            if status < 300
                && let Some(path) = self.servers.path(server)
            {
                let contact =
                    self.trunks.get(trunk).map_or_else(|| contact(&path), |t| t.plain_contact(&path));
                // RFC 3261 12.1.1.
                out.line("Contact", &if head.sips() { sips(&contact) } else { contact });
            }
            out.lines(self.common_lines(trunk));
            out.line("Supported", self.supported(trunk));
        }
        for (name, value) in &extra.lines {
            out.line(name, value);
        }
        let bytes = extra.finish(out);
        self.servers.respond(&mut self.io, server, status, bytes.clone());
        bytes
    }

    /// Answers without a transaction (RFC 3261 8.2.7): the same request gets the same answer, with
    /// `tag` or one made of the request.
    pub(crate) fn respond_statelessly(
        &mut self,
        trunk: usize,
        request: &Request,
        (mut path, source): (Path, SocketAddr),
        status: u16,
        lines: &[(&'static str, String)],
        tag: Option<String>,
    ) {
        if request.method == Method::Ack {
            return;
        }
        let head = ReplyHead::of(request, source);
        let tag = tag.unwrap_or_else(|| stateless_tag(request));
        let ours = head.asks_for_overload.then(|| self.overload.parameters(self.io.now));
        let mut out = head.begin(ours.as_deref(), status, reason_phrase(status), Some(&tag));
        out.lines(self.common_lines(trunk));
        for (name, value) in lines {
            out.line(name, value);
        }
        self.io.count_response(status);
        self.io.send(&mut path, out.finish(None));
    }

    /// Takes a new call of a trunk into its count of the second. Says whether it fits.
    pub(crate) fn within_rate(&mut self, trunk: usize) -> bool {
        let now = self.io.now;
        self.trunks.get_mut(trunk).and_then(|t| t.rate.as_mut()).is_none_or(|rate| rate.take(now))
    }

    /// Returns the option tags this endpoint understands from a trunk, for Supported headers.
    pub(crate) fn supported(&self, trunk: usize) -> &'static str {
        self.supported_with(trunk, self.reliable(trunk))
    }

    fn supported_with(&self, trunk: usize, reliable: Reliable) -> &'static str {
        let replacing = self.trunks.get(trunk).map(|t| t.config.replacing).unwrap_or_default();
        reliable.supported(self.transfers(trunk), replacing)
    }

    /// Returns what becomes of a trunk's transfers.
    pub(crate) fn transfers(&self, trunk: usize) -> Transfers {
        self.trunks.get(trunk).map(|t| t.config.transfers).unwrap_or_default()
    }

    pub(crate) fn common_lines(&self, trunk: usize) -> &Bytes {
        self.common.of(self.transfers(trunk))
    }

    /// Returns what a trunk wants of reliable provisional responses.
    pub(crate) fn reliable(&self, trunk: usize) -> Reliable {
        self.trunks.get(trunk).map(|t| t.config.reliable_provisional).unwrap_or_default()
    }

    pub(crate) fn exchange(&mut self, call: CallId, incoming: bool, label: Box<str>) {
        let (from, to) =
            if incoming { (Actor::Trunk, Actor::Gateway) } else { (Actor::Gateway, Actor::Trunk) };
        let exchange = Exchange { from, to, protocol: Protocol::Sip, label };
        self.events.push_back(Event::Exchange { call, exchange });
    }
}

/// A To tag that is the same for every repetition of a request (RFC 3261 8.2.7).
fn stateless_tag(request: &Request) -> String {
    let mut hasher = DefaultHasher::new();
    (&request.head.call_id, &request.head.from.tag, request.head.cseq).hash(&mut hasher);
    // A leading letter keeps these apart from the tags of calls.
    format!("s{:016x}", hasher.finish())
}
