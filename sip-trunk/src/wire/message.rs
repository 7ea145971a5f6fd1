//! The crate's own view of a SIP message: what was received, with the headers every layer needs
//! read once, and a writer for what is sent. No other module but the transaction layer may name the
//! message crate beneath.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use sipx_sip::headers::Address as NameAddr;
use sipx_sip::{CSeq, Finding, Headers, Host, Limits, Uri as ParsedUri, Via as ParsedVia, validate};

use super::limits::MessageLimits;
use super::tolerance::stamp_via;
use crate::Transport;
use crate::text;
use crate::trunk::overload;

pub(crate) use sipx_sip::HeaderName as Name;

/// The cookie that begins every branch of RFC 3261 8.1.1.7.
pub(crate) const COOKIE: &str = "z9hG4bK";

/// A SIP method (RFC 3261 7.1), compared with case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Method {
    Invite,
    Ack,
    Bye,
    Cancel,
    Register,
    Options,
    Info,
    Prack,
    Update,
    Subscribe,
    Notify,
    Refer,
    Message,
    Publish,
    Other,
}

impl Method {
    /// Returns the token; `other` for a method this crate has no name for, so it is a safe label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Method::Invite => "INVITE",
            Method::Ack => "ACK",
            Method::Bye => "BYE",
            Method::Cancel => "CANCEL",
            Method::Register => "REGISTER",
            Method::Options => "OPTIONS",
            Method::Info => "INFO",
            Method::Prack => "PRACK",
            Method::Update => "UPDATE",
            Method::Subscribe => "SUBSCRIBE",
            Method::Notify => "NOTIFY",
            Method::Refer => "REFER",
            Method::Message => "MESSAGE",
            Method::Publish => "PUBLISH",
            Method::Other => "other",
        }
    }

    fn of(method: &sipx_sip::Method) -> Self {
        use sipx_sip::Method as M;
        match method {
            M::Invite => Method::Invite,
            M::Ack => Method::Ack,
            M::Bye => Method::Bye,
            M::Cancel => Method::Cancel,
            M::Register => Method::Register,
            M::Options => Method::Options,
            M::Info => Method::Info,
            M::Prack => Method::Prack,
            M::Update => Method::Update,
            M::Subscribe => Method::Subscribe,
            M::Notify => Method::Notify,
            M::Refer => Method::Refer,
            M::Message => Method::Message,
            M::Publish => Method::Publish,
            _ => Method::Other,
        }
    }
}

/// A received request or response.
#[derive(Debug)]
pub(crate) enum Message {
    Request(Request),
    Response(Response),
}

/// A received request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) uri: String,
    pub(crate) scheme: Scheme,
    pub(crate) head: Head,
    pub(crate) body: Bytes,
}

/// A received response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) head: Head,
    pub(crate) body: Bytes,
}

/// The scheme of a request URI, as far as it decides anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Sip,
    Sips,
    Tel,
    Other,
}

/// The headers every message has, read once, and access to the others.
#[derive(Debug)]
pub(crate) struct Head {
    headers: Headers,
    pub(crate) via: Via,
    pub(crate) from: Party,
    pub(crate) to: Party,
    pub(crate) call_id: String,
    pub(crate) cseq: u32,
    pub(crate) cseq_method: Method,
}

/// The topmost Via.
#[derive(Debug)]
pub(crate) struct Via {
    pub(crate) host: Bytes,
    pub(crate) port: Option<u16>,
    pub(crate) branch: Bytes,
    /// The branch carries the RFC 3261 cookie and so names the transaction alone.
    pub(crate) cookie: bool,
    /// The sender asked for RFC 3581 routing.
    pub(crate) rport: bool,
    /// The sender takes requests over the same connection (RFC 5923).
    pub(crate) alias: bool,
}

/// A From or To value and its tag.
#[derive(Debug)]
pub(crate) struct Party {
    pub(crate) value: String,
    pub(crate) tag: Option<String>,
}

/// Why a message that framed could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The status to answer a request with.
    pub(crate) status: u16,
    /// The metric label.
    pub(crate) reason: &'static str,
}

const SYNTAX: Fault = Fault { status: 400, reason: "syntax" };

/// Reads one strict message (the tolerance pass went before).
pub(crate) fn parse(bytes: Bytes, limits: &MessageLimits) -> Result<Message, Fault> {
    let limits = Limits {
        max_message_bytes: limits.header_bytes + limits.body_bytes + 4,
        max_body_bytes: limits.body_bytes,
        max_headers: limits.headers,
        max_header_bytes: limits.header_bytes,
        ..Limits::datagram()
    };
    let message = sipx_sip::parse_datagram(bytes, &limits).map_err(|_| SYNTAX)?;
    // A missing Max-Forwards is repaired by taking it as 70: old user agents do not send it.
    if let Some(finding) = validate(&message).iter().find(|f| !f.is_repairable()) {
        // RFC 4475 3.1.2.18: of a method nobody knows, that it is unknown is the better answer.
        let unknown =
            matches!(&message, sipx_sip::Message::Request(r) if Method::of(&r.method) == Method::Other);
        let status = if unknown && *finding == Finding::CSeqMethodMismatch { 501 } else { finding.status() };
        return Err(Fault { status, reason: "invalid" });
    }
    match message {
        sipx_sip::Message::Request(request) => {
            let scheme = match request.uri.scheme() {
                sipx_sip::Scheme::Sip => Scheme::Sip,
                sipx_sip::Scheme::Sips => Scheme::Sips,
                sipx_sip::Scheme::Tel => Scheme::Tel,
                _ => Scheme::Other,
            };
            Ok(Message::Request(Request {
                method: Method::of(&request.method),
                uri: String::from_utf8_lossy(&request.uri.to_bytes()).into_owned(),
                scheme,
                body: request.body().clone(),
                head: Head::of(request.headers)?,
            }))
        }
        // RFC 3261 7.2: the first digit is 1 to 6. What says another ends no call.
        sipx_sip::Message::Response(response) if !(100..700).contains(&response.status.code()) => Err(SYNTAX),
        sipx_sip::Message::Response(response) => Ok(Message::Response(Response {
            status: response.status.code(),
            // It ends up in events and records, where a control character has no business.
            reason: text::printable(&String::from_utf8_lossy(&response.reason)),
            body: response.body().clone(),
            head: Head::of(response.headers)?,
        })),
    }
}

impl Head {
    fn of(headers: Headers) -> Result<Self, Fault> {
        let via = headers.typed::<ParsedVia>().and_then(Result::ok).ok_or(SYNTAX)?;
        let cseq = headers.typed::<CSeq>().and_then(Result::ok).ok_or(SYNTAX)?;
        let party = |name: &Name| {
            let value = headers.value(name).ok_or(SYNTAX)?;
            let parsed = NameAddr::parse(&value, "From").map_err(|_| SYNTAX)?;
            let tag = parsed.tag().map(|t| String::from_utf8_lossy(t).into_owned());
            Ok(Party { value: String::from_utf8_lossy(&value).into_owned(), tag })
        };
        let branch = via.branch().unwrap_or_default();
        // No response can be sent to port 0.
        if via.port == Some(0) {
            return Err(SYNTAX);
        }
        Ok(Self {
            via: Via {
                host: via.host.to_bytes(),
                port: via.port,
                branch: Bytes::copy_from_slice(branch),
                // RFC 4475 3.2.1: the cookie alone names nothing.
                cookie: via.has_rfc3261_branch() && branch.len() > COOKIE.len(),
                rport: via.rport().is_some(),
                alias: via.params.iter().any(|p| p.name.eq_ignore_ascii_case(b"alias")),
            },
            from: party(&Name::From)?,
            to: party(&Name::To)?,
            call_id: String::from_utf8_lossy(&headers.value(&Name::CallId).ok_or(SYNTAX)?).into_owned(),
            cseq: cseq.sequence,
            cseq_method: Method::of(&cseq.method),
            headers,
        })
    }

    /// Returns the first value of a header.
    pub(crate) fn text(&self, name: &Name) -> Option<String> {
        self.headers.value(name).map(|v| String::from_utf8_lossy(&v).into_owned())
    }

    /// Returns every line of a header.
    pub(crate) fn texts(&self, name: &Name) -> Vec<String> {
        self.headers.get_all(name).map(|h| String::from_utf8_lossy(&h.value()).into_owned()).collect()
    }

    /// Returns every line of a header, whether the message library has a name for it or not.
    pub(crate) fn texts_named(&self, name: &'static str) -> Vec<String> {
        self.texts(&Name::parse(&Bytes::from_static(name.as_bytes())))
    }

    /// Returns the comma-separated values of a header, over all its lines.
    pub(crate) fn list(&self, name: &Name) -> Vec<String> {
        let mut out = Vec::new();
        for header in self.headers.get_all(name) {
            let value = header.value();
            let text = String::from_utf8_lossy(&value);
            out.extend(text::split(&text, ',').filter(|part| !part.is_empty()).map(str::to_owned));
        }
        out
    }

    /// Says whether a header of tokens holds `token` (any case).
    pub(crate) fn has_token(&self, name: &Name, token: &str) -> bool {
        self.headers.get_all(name).any(|h| {
            String::from_utf8_lossy(&h.value()).split(',').any(|t| t.trim().eq_ignore_ascii_case(token))
        })
    }

    /// Says whether the topmost Via is the only one.
    pub(crate) fn has_one_via(&self) -> bool {
        let values = |value: &[u8]| text::split(&String::from_utf8_lossy(value), ',').count();
        let mut lines = self.headers.get_all(&Name::Via);
        lines.next().is_some_and(|line| values(&line.value()) == 1) && lines.next().is_none()
    }

    /// Returns Max-Forwards; 70 where the sender left it out.
    pub(crate) fn max_forwards(&self) -> u32 {
        self.text(&Name::MaxForwards).and_then(|v| v.trim().parse().ok()).unwrap_or(70)
    }

    /// Returns the URI of the first Contact, if it is one that requests of a dialog can be sent to:
    /// SIP or SIPS (RFC 3261 8.1.1.8).
    pub(crate) fn contact_uri(&self) -> Option<String> {
        let sip = |uri: &&str| {
            let scheme = uri.split_once(':').filter(|(_, rest)| !rest.is_empty()).map(|(scheme, _)| scheme);
            scheme.is_some_and(|s| s.eq_ignore_ascii_case("sip") || s.eq_ignore_ascii_case("sips"))
        };
        self.list(&Name::Contact).first().and_then(|c| addr_uri(c)).filter(sip).map(str::to_owned)
    }

    /// Returns where requests go in the dialog that this INVITE begins: its Contact (RFC 3261
    /// 12.1.1). Only a user agent of RFC 2543, known by its branch, may leave that out and is
    /// reached at its From then (RFC 4475 3.4.1, RFC 2543 6.13).
    pub(crate) fn invite_target(&self) -> Option<String> {
        let from = || addr_uri(&self.from.value).filter(|_| !self.via.cookie).map(str::to_owned);
        self.contact_uri().or_else(from)
    }

    /// Says whether the sender takes a session description in a response. Without Accept it does;
    /// an empty one takes nothing (RFC 3261 20.1).
    pub(crate) fn accepts_sdp(&self) -> bool {
        const RANGES: [&str; 3] = ["application/sdp", "application/*", "*/*"];
        let takes = |range: &String| {
            let range = range.split(';').next().unwrap_or_default().trim();
            RANGES.iter().any(|known| range.eq_ignore_ascii_case(known))
        };
        self.text(&Name::Accept).is_none() || self.list(&Name::Accept).iter().any(takes)
    }

    /// Returns the Reason values (RFC 3326), unsplit.
    pub(crate) fn reasons(&self) -> Vec<String> {
        self.texts(&Name::Reason)
    }
}

/// What a body was found to hold.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    None,
    Sdp(Bytes),
    /// Another type: 415.
    Other,
}

/// Finds the session description in a body: alone, or as a part of multipart/mixed (RFC 5621 3).
pub(crate) fn content(head: &Head, body: &Bytes) -> Content {
    if body.is_empty() {
        return Content::None;
    }
    let kind = head.text(&Name::ContentType).unwrap_or_else(|| "application/sdp".to_owned());
    let media_type = kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let encoded = head.text(&Name::ContentEncoding);
    if encoded.is_some_and(|e| !e.trim().eq_ignore_ascii_case("identity")) {
        return Content::Other;
    }
    match media_type.as_str() {
        "application/sdp" => Content::Sdp(body.clone()),
        "multipart/mixed" | "multipart/alternative" => {
            multipart_sdp(&kind, body).map_or(Content::Other, Content::Sdp)
        }
        _ => Content::Other,
    }
}

fn multipart_sdp(kind: &str, body: &Bytes) -> Option<Bytes> {
    let boundary = kind.split(';').skip(1).find_map(|p| {
        let (name, value) = p.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"').to_owned())
    })?;
    if boundary.is_empty() || boundary.len() > 70 {
        return None;
    }
    let delimiter = format!("--{boundary}");
    let mut at = find(body, delimiter.as_bytes(), 0)?;
    // RFC 2046 5.1.1; parts are bounded so that a body of delimiters costs little.
    for _ in 0..16 {
        let start = at + delimiter.len();
        if body.get(start..start + 2) == Some(b"--") {
            return None;
        }
        let next = find(body, delimiter.as_bytes(), start).unwrap_or(body.len());
        let part = body.get(start..next)?;
        if let Some(split) = find(part, b"\r\n\r\n", 0) {
            let head = String::from_utf8_lossy(part.get(..split)?).to_ascii_lowercase();
            let is_sdp =
                head.lines().any(|l| l.starts_with("content-type:") && l.contains("application/sdp"));
            if is_sdp {
                let from = start + split + 4;
                let to = if next >= from + 2 { next - 2 } else { next };
                return Some(body.slice(from.min(to)..to));
            }
        }
        if next >= body.len() {
            return None;
        }
        at = next;
    }
    None
}

fn find(haystack: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    haystack.get(from..)?.windows(needle.len()).position(|w| w == needle).map(|p| p + from)
}

/// Returns the URI in a name-addr or addr-spec.
pub(crate) fn addr_uri(value: &str) -> Option<&str> {
    if let Some(open) = text::find_unquoted(value, '<') {
        return value.get(open + 1..)?.split_once('>').map(|(uri, _)| uri.trim());
    }
    let uri = value.split(';').next()?.trim();
    (!uri.is_empty()).then_some(uri)
}

/// Where a URI points, as far as it says so without DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UriTarget {
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: Option<u16>,
    /// `transport=` when it is one this crate speaks.
    pub(crate) transport: Option<Transport>,
    pub(crate) loose: bool,
}

/// Returns the host of a URI, where that is a name.
pub(crate) fn uri_host_name(uri: &str) -> Option<String> {
    let parsed = ParsedUri::parse(Bytes::copy_from_slice(uri.as_bytes())).ok()?;
    match parsed.host()? {
        name @ Host::Name(_) => Some(String::from_utf8_lossy(&name.to_bytes()).into_owned()),
        _ => None,
    }
}

/// Reads the target of a sip or sips URI.
pub(crate) fn uri_target(uri: &str) -> Option<UriTarget> {
    let parsed = ParsedUri::parse(Bytes::copy_from_slice(uri.as_bytes())).ok()?;
    let host = parsed.host()?;
    let address = match host {
        Host::Name(_) => None,
        other => {
            let text = other.to_bytes();
            let text = String::from_utf8_lossy(&text);
            text.trim_start_matches('[').trim_end_matches(']').parse().ok()
        }
    };
    let sips = uri.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("sips:"));
    let transport = match parsed.transport().map(|t| t.to_ascii_lowercase()).as_deref() {
        Some(b"udp") if !sips => Some(Transport::Udp),
        Some(b"tcp") if !sips => Some(Transport::Tcp),
        Some(b"ws") if !sips => Some(Transport::Ws),
        Some(b"ws" | b"wss") => Some(Transport::Wss),
        Some(b"tls") => Some(Transport::Tls),
        // RFC 5630 3.1.4: `sips` is TLS, over TCP where nothing else is said.
        _ if sips => Some(Transport::Tls),
        _ => None,
    };
    let loose = parsed.params().is_some_and(|p| p.contains("lr"));
    Some(UriTarget { address, port: parsed.port(), transport, loose })
}

/// Returns the host of a sip or sips URI, in lower case and without port.
pub(crate) fn uri_host(uri: &str) -> Option<String> {
    let parsed = ParsedUri::parse(Bytes::copy_from_slice(uri.as_bytes())).ok()?;
    let host = parsed.host()?.to_bytes();
    Some(String::from_utf8_lossy(&host).to_ascii_lowercase())
}

/// Writes one message. Control characters in values become spaces, so no value can start a line.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// Begins a run of header lines for [`Self::lines`].
    pub(crate) fn fragment() -> Self {
        Self(Vec::new())
    }

    /// Returns the lines written.
    pub(crate) fn into_lines(self) -> Bytes {
        Bytes::from(self.0)
    }

    /// Begins a request.
    pub(crate) fn request(method: &str, uri: &str) -> Self {
        let mut out = Self(Vec::with_capacity(1200));
        out.clean(method.as_bytes());
        out.0.push(b' ');
        out.clean(uri.as_bytes());
        out.0.extend_from_slice(b" SIP/2.0\r\n");
        out
    }

    /// Begins a response.
    pub(crate) fn response(status: u16, phrase: &str) -> Self {
        let mut out = Self(Vec::with_capacity(1000));
        out.0.extend_from_slice(b"SIP/2.0 ");
        out.0.extend_from_slice(status.to_string().as_bytes());
        out.0.push(b' ');
        out.clean(phrase.as_bytes());
        out.0.extend_from_slice(b"\r\n");
        out
    }

    fn clean(&mut self, value: &[u8]) {
        let from = self.0.len();
        self.0.extend_from_slice(value);
        for byte in self.0.iter_mut().skip(from) {
            if (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f {
                *byte = b' ';
            }
        }
    }

    /// Writes a header line.
    pub(crate) fn line(&mut self, name: &str, value: &str) -> &mut Self {
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b": ");
        self.clean(value.as_bytes());
        self.0.extend_from_slice(b"\r\n");
        self
    }

    /// Writes whole lines that were made by this writer or copied from a checked message.
    pub(crate) fn lines(&mut self, lines: &[u8]) -> &mut Self {
        self.0.extend_from_slice(lines);
        self
    }

    /// Ends the message with a session description, or without a body.
    pub(crate) fn finish(self, sdp: Option<&[u8]>) -> Bytes {
        match sdp {
            Some(body) => self.finish_with("application/sdp", body),
            None => self.end(&[]),
        }
    }

    /// Ends the message with a body of a type.
    pub(crate) fn finish_with(mut self, kind: &str, body: &[u8]) -> Bytes {
        self.line("Content-Type", kind);
        self.end(body)
    }

    fn end(mut self, body: &[u8]) -> Bytes {
        self.0.extend_from_slice(b"Content-Length: ");
        self.0.extend_from_slice(body.len().to_string().as_bytes());
        self.0.extend_from_slice(b"\r\n\r\n");
        self.0.extend_from_slice(body);
        Bytes::from(self.0)
    }
}

/// What every response to one request begins with (RFC 3261 8.2.6.2), kept instead of the request.
#[derive(Clone, Debug)]
pub(crate) struct ReplyHead {
    lines: Bytes,
    to: Bytes,
    tagged: bool,
    routes: Bytes,
    sips: bool,
    /// The top Via takes part in overload control (RFC 7339 5.1).
    pub(crate) asks_for_overload: bool,
}

impl ReplyHead {
    /// Copies what responses repeat. The top Via gets `received` and `rport` (RFC 3261 18.2.1,
    /// RFC 3581 4).
    pub(crate) fn of(request: &Request, source: SocketAddr) -> Self {
        let head = &request.head;
        let mut lines = Writer(Vec::with_capacity(512));
        let (mut first, mut asks_for_overload) = (true, false);
        for via in head.headers.get_all(&Name::Via) {
            let value = via.value();
            if first {
                let stamped = stamp_via(&value, source);
                let stamped = String::from_utf8_lossy(&stamped);
                asks_for_overload = overload::is_asked(&stamped);
                lines.line("Via", &stamped);
                first = false;
            } else {
                lines.line("Via", &String::from_utf8_lossy(&value));
            }
        }
        lines.line("From", &head.from.value);
        lines.line("Call-ID", &head.call_id);
        for cseq in head.headers.get_all(&Name::CSeq) {
            lines.line("CSeq", &String::from_utf8_lossy(&cseq.value()));
        }
        let mut routes = Writer(Vec::new());
        for route in head.headers.get_all(&Name::RecordRoute) {
            routes.line("Record-Route", &String::from_utf8_lossy(&route.value()));
        }
        Self {
            lines: Bytes::from(lines.0),
            to: Bytes::copy_from_slice(head.to.value.as_bytes()),
            tagged: head.to.tag.is_some(),
            routes: Bytes::from(routes.0),
            sips: request.scheme == Scheme::Sips,
            asks_for_overload,
        }
    }

    /// Says whether the request URI was a `sips` one.
    pub(crate) fn sips(&self) -> bool {
        self.sips
    }

    /// Begins a response; `tag` goes into To if the request had none there, and the parameters of
    /// overload control into the top Via.
    pub(crate) fn begin(
        &self,
        overload: Option<&str>,
        status: u16,
        phrase: &str,
        tag: Option<&str>,
    ) -> Writer {
        let mut out = Writer::response(status, phrase);
        let end = overload.and_then(|_| find(&self.lines, b"\r\n", 0));
        match (overload, end.and_then(|end| self.lines.split_at_checked(end))) {
            (Some(ours), Some((via, rest))) => {
                let via = String::from_utf8_lossy(via);
                let via = via.strip_prefix("Via: ").unwrap_or(&via);
                out.line("Via", &overload::answer(via, ours));
                out.lines(rest.get(2..).unwrap_or_default());
            }
            _ => {
                out.lines(&self.lines);
            }
        }
        out.0.extend_from_slice(b"To: ");
        out.clean(&self.to);
        if let (false, Some(tag)) = (self.tagged, tag) {
            out.0.extend_from_slice(b";tag=");
            out.clean(tag.as_bytes());
        }
        out.0.extend_from_slice(b"\r\n");
        if (101..300).contains(&status) {
            out.lines(&self.routes);
        }
        out
    }
}

/// Returns the lines of one of our own requests whose name is in `names`, in order.
fn own_lines<'a>(request: &'a [u8], names: &'a [&'a str]) -> impl Iterator<Item = &'a [u8]> {
    let end = find(request, b"\r\n\r\n", 0).map_or(request.len(), |e| e + 2);
    request.get(..end).unwrap_or_default().split_inclusive(|&b| b == b'\n').skip(1).filter(move |line| {
        names.iter().any(|n| line.get(..n.len()) == Some(n.as_bytes()) && line.get(n.len()) == Some(&b':'))
    })
}

fn own_uri(request: &[u8]) -> String {
    let line = request.split(|&b| b == b'\r').next().unwrap_or_default();
    let uri = line.split(|&b| b == b' ').nth(1).unwrap_or_default();
    String::from_utf8_lossy(uri).into_owned()
}

/// Makes the ACK for a non-2xx final response to `invite` (RFC 3261 17.1.1.3); `to` is the
/// response's To.
pub(crate) fn ack_of(invite: &[u8], to: &str, cseq: u32) -> Bytes {
    let mut out = Writer::request("ACK", &own_uri(invite));
    let names = ["Via", "Max-Forwards", "Route", "From", "Call-ID", "Authorization", "Proxy-Authorization"];
    own_lines(invite, &names).for_each(|l| {
        out.lines(l);
    });
    out.line("To", to).line("CSeq", &format!("{cseq} ACK"));
    out.finish(None)
}

/// Returns the header lines with credentials of one of our own requests.
pub(crate) fn credentials_of(request: &[u8]) -> Bytes {
    Bytes::from(own_lines(request, &["Authorization", "Proxy-Authorization"]).collect::<Vec<_>>().concat())
}

/// Makes the CANCEL of `invite` (RFC 3261 9.1).
pub(crate) fn cancel_of(invite: &[u8], cseq: u32, reason: Option<&str>) -> Bytes {
    let mut out = Writer::request("CANCEL", &own_uri(invite));
    let names = ["Via", "Max-Forwards", "Route", "From", "To", "Call-ID", "User-Agent"];
    own_lines(invite, &names).for_each(|l| {
        out.lines(l);
    });
    out.line("CSeq", &format!("{cseq} CANCEL"));
    if let Some(reason) = reason {
        out.line("Reason", reason);
    }
    out.finish(None)
}

/// Reads the number of one of our own branches.
pub(crate) fn own_branch(branch: &[u8]) -> Option<u64> {
    let hex = branch.strip_prefix(COOKIE.as_bytes())?;
    tag_number(std::str::from_utf8(hex).ok()?)
}

/// Reads the number of one of our own tags: 16 lower-case hexadecimal digits.
pub(crate) fn tag_number(tag: &str) -> Option<u64> {
    let valid = tag.len() == 16 && tag.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if valid { u64::from_str_radix(tag, 16).ok() } else { None }
}
