//! The crate's own view of a SIP message: what was received, with the headers every layer needs
//! read once, and a writer for what is sent. No other module but the transaction layer may name the
//! message crate beneath.

use std::net::IpAddr;

use bytes::Bytes;
use sipx_sip::headers::Address as NameAddr;
use sipx_sip::{CSeq, Finding, Headers, Host, Limits, Uri as ParsedUri, Via as ParsedVia, validate};

use super::fields::Fields;
use super::limits::MessageLimits;
use super::plain::uri_parts;
use crate::Transport;
use crate::text;

pub(crate) use super::fields::Name;

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

    /// Reads a method that has a name here.
    pub(super) fn known(token: &[u8]) -> Option<Self> {
        Some(match token {
            b"INVITE" => Method::Invite,
            b"ACK" => Method::Ack,
            b"BYE" => Method::Bye,
            b"CANCEL" => Method::Cancel,
            b"REGISTER" => Method::Register,
            b"OPTIONS" => Method::Options,
            b"INFO" => Method::Info,
            b"PRACK" => Method::Prack,
            b"UPDATE" => Method::Update,
            b"SUBSCRIBE" => Method::Subscribe,
            b"NOTIFY" => Method::Notify,
            b"REFER" => Method::Refer,
            b"MESSAGE" => Method::Message,
            b"PUBLISH" => Method::Publish,
            _ => return None,
        })
    }

    fn of(method: &sipx_sip::Method) -> Self {
        Self::known(method.as_bytes()).unwrap_or(Method::Other)
    }
}

/// A received request or response.
#[derive(Debug)]
pub(crate) enum Message {
    Request(Request),
    Response(Response),
}

/// A received request.
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
pub(crate) struct Head {
    fields: Fields,
    pub(crate) via: Via,
    pub(crate) from: Party,
    pub(crate) to: Party,
    pub(crate) call_id: String,
    pub(crate) cseq: u32,
    pub(crate) cseq_method: Method,
}

/// The topmost Via.
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
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
                head: Head::of(&request.headers)?,
            }))
        }
        // RFC 3261 7.2: the first digit is 1 to 6. What says another ends no call.
        sipx_sip::Message::Response(response) if !(100..700).contains(&response.status.code()) => Err(SYNTAX),
        sipx_sip::Message::Response(response) => Ok(Message::Response(Response {
            status: response.status.code(),
            // It ends up in events and records, where a control character has no business.
            reason: text::printable(&String::from_utf8_lossy(&response.reason)),
            body: response.body().clone(),
            head: Head::of(&response.headers)?,
        })),
    }
}

impl Head {
    /// Puts together what was read of a header: the top Via, From and To, Call-ID, CSeq.
    pub(super) fn new(
        fields: Fields,
        via: Via,
        (from, to): (Party, Party),
        call_id: String,
        (cseq, cseq_method): (u32, Method),
    ) -> Self {
        Self { fields, via, from, to, call_id, cseq, cseq_method }
    }

    fn of(headers: &Headers) -> Result<Self, Fault> {
        let via = headers.typed::<ParsedVia>().and_then(Result::ok).ok_or(SYNTAX)?;
        let cseq = headers.typed::<CSeq>().and_then(Result::ok).ok_or(SYNTAX)?;
        let mut fields = Fields::default();
        for header in headers.iter() {
            fields.push(header.name().canonical(), &header.value());
        }
        let party = |name: &sipx_sip::HeaderName| {
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
        let (from, to) = (party(&sipx_sip::HeaderName::From)?, party(&sipx_sip::HeaderName::To)?);
        let call_id = fields.first(Name::CallId).ok_or(SYNTAX)?.to_owned();
        let via = Via {
            host: via.host.to_bytes(),
            port: via.port,
            branch: Bytes::copy_from_slice(branch),
            // RFC 4475 3.2.1: the cookie alone names nothing.
            cookie: via.has_rfc3261_branch() && branch.len() > COOKIE.len(),
            rport: via.rport().is_some(),
            alias: via.params.iter().any(|p| p.name.eq_ignore_ascii_case(b"alias")),
        };
        Ok(Self::new(fields, via, (from, to), call_id, (cseq.sequence, Method::of(&cseq.method))))
    }

    /// Returns the header fields.
    pub(super) fn fields(&self) -> &Fields {
        &self.fields
    }

    /// Returns the first value of a header.
    pub(crate) fn value(&self, name: Name) -> Option<&str> {
        self.fields.first(name)
    }

    /// Returns the first value of a header, to be kept.
    pub(crate) fn text(&self, name: &Name) -> Option<String> {
        self.fields.first(*name).map(str::to_owned)
    }

    /// Returns every line of a header.
    pub(crate) fn texts(&self, name: &Name) -> Vec<String> {
        self.fields.all(*name).map(str::to_owned).collect()
    }

    /// Returns every line of a header, whether there is a [`Name`] for it or not.
    pub(crate) fn texts_named(&self, name: &'static str) -> Vec<String> {
        self.fields.all_named(name).map(str::to_owned).collect()
    }

    /// Returns the comma-separated values of a header, over all its lines.
    pub(crate) fn list(&self, name: &Name) -> Vec<String> {
        let values = self.fields.all(*name).flat_map(|value| text::split(value, ','));
        values.filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    /// Says whether a header of tokens holds `token` (any case).
    pub(crate) fn has_token(&self, name: &Name, token: &str) -> bool {
        self.fields.all(*name).any(|value| value.split(',').any(|t| t.trim().eq_ignore_ascii_case(token)))
    }

    /// Says whether the topmost Via is the only one.
    pub(crate) fn has_one_via(&self) -> bool {
        let mut lines = self.fields.all(Name::Via);
        let alone = |line: &str| !line.contains(',') || text::split(line, ',').count() == 1;
        lines.next().is_some_and(alone) && lines.next().is_none()
    }

    /// Returns Max-Forwards; 70 where the sender left it out.
    pub(crate) fn max_forwards(&self) -> u32 {
        self.value(Name::MaxForwards).and_then(|v| v.trim().parse().ok()).unwrap_or(70)
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
        self.value(Name::Accept).is_none() || self.list(&Name::Accept).iter().any(takes)
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

pub(super) fn find(haystack: &[u8], needle: &[u8], from: usize) -> Option<usize> {
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
    if let Some(parts) = uri_parts(uri.as_bytes()).filter(|parts| parts.scheme != Scheme::Tel) {
        let transport = parts.parameter(b"transport").map(<[u8]>::to_ascii_lowercase);
        return Some(UriTarget {
            address: std::str::from_utf8(parts.host).ok().and_then(|host| host.parse().ok()),
            port: parts.port,
            transport: transport_of(transport.as_deref(), parts.scheme == Scheme::Sips),
            loose: parts.parameter(b"lr").is_some(),
        });
    }
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
    let transport = transport_of(parsed.transport().map(|t| t.to_ascii_lowercase()).as_deref(), sips);
    let loose = parsed.params().is_some_and(|p| p.contains("lr"));
    Some(UriTarget { address, port: parsed.port(), transport, loose })
}

/// Returns the transport that a `transport` parameter in lower case names.
fn transport_of(parameter: Option<&[u8]>, sips: bool) -> Option<Transport> {
    match parameter {
        Some(b"udp") if !sips => Some(Transport::Udp),
        Some(b"tcp") if !sips => Some(Transport::Tcp),
        Some(b"ws") if !sips => Some(Transport::Ws),
        Some(b"ws" | b"wss") => Some(Transport::Wss),
        Some(b"tls") => Some(Transport::Tls),
        // RFC 5630 3.1.4: `sips` is TLS, over TCP where nothing else is said.
        _ if sips => Some(Transport::Tls),
        _ => None,
    }
}

/// Returns the host of a sip or sips URI, in lower case and without port.
pub(crate) fn uri_host(uri: &str) -> Option<String> {
    let parsed = ParsedUri::parse(Bytes::copy_from_slice(uri.as_bytes())).ok()?;
    let host = parsed.host()?.to_bytes();
    Some(String::from_utf8_lossy(&host).to_ascii_lowercase())
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
