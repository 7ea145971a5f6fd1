//! The short way in: messages as nearly all are, read in one pass. Whatever is out of the ordinary in any
//! way (folded, repaired, quoted where that is rare, not ASCII, of another method, wrong) is `None` here and
//! goes the long way, by [`tolerate`](super::tolerance::tolerate) and [`parse`](super::message::parse),
//! which alone decide what it is. A message that is read here is read there with the same outcome: the
//! tests compare the two.

use std::net::Ipv4Addr;

use bytes::Bytes;

use super::fields::{Fields, Name};
use super::limits::MessageLimits;
use super::message::{COOKIE, Head, Message, Method, Party, Request, Response, Scheme, Via};
use crate::text::is_token;

/// Reads a message that is whole and plain: exactly its body behind its header.
pub(crate) fn read(raw: &[u8], limits: &MessageLimits) -> Option<Message> {
    let mut lines = Lines { raw, at: 0 };
    let first = lines.next()?;
    let end = head_end(raw, limits)?;
    let head = raw.get(..end)?;
    if !head.is_ascii() {
        return None;
    }
    let mut fields = Fields::of_text(std::str::from_utf8(head).ok()?.to_owned());
    let mut once = 0u8;
    let mut length = None;
    let mut count = 0;
    for (from, to) in lines.by_ref() {
        if from == to {
            break;
        }
        count += 1;
        let (spelt, value) = split(raw, from, to)?;
        let name = fields.note(spelt, value)?;
        if let Some(bit) = single(name) {
            // Which of two counts is not decided here.
            if once & bit != 0 {
                return None;
            }
            once |= bit;
        }
        if name == Name::ContentLength {
            length = Some(number(raw.get(value.0..value.1)?, 8)?);
        }
    }
    if count > limits.headers || lines.at != end {
        return None;
    }
    let body = raw.get(end..)?;
    // Without a length, or with another one than there is, it is not plain.
    if length? != u64::try_from(body.len()).ok()? || body.len() > limits.body_bytes {
        return None;
    }
    let start = raw.get(first.0..first.1)?;
    let body = || Bytes::copy_from_slice(body);
    match start.strip_prefix(b"SIP/2.0 ") {
        Some(rest) => {
            let status = u16::try_from(number(rest.get(..3)?, 3)?).ok()?;
            let reason = std::str::from_utf8(rest.get(3..)?.strip_prefix(b" ")?).ok()?.to_owned();
            let head = read_head(fields, None)?;
            (100..700)
                .contains(&status)
                .then(|| Message::Response(Response { status, reason, body: body(), head }))
        }
        None => {
            let mut words = start.split(|&b| b == b' ');
            let (method, uri, version) = (words.next()?, words.next()?, words.next()?);
            if words.next().is_some() || version != b"SIP/2.0" {
                return None;
            }
            let method = Method::known(method)?;
            let parts = uri_parts(uri)?;
            let uri = std::str::from_utf8(uri).ok()?.to_owned();
            let head = read_head(fields, Some(method))?;
            Some(Message::Request(Request { method, uri, scheme: parts.scheme, body: body(), head }))
        }
    }
}

/// Lines that end in CRLF and hold what can be printed, but for `#`, which the long way knows to escape.
/// Offsets of their content.
struct Lines<'a> {
    raw: &'a [u8],
    at: usize,
}

impl Iterator for Lines<'_> {
    type Item = (usize, usize);

    fn next(&mut self) -> Option<(usize, usize)> {
        let rest = self.raw.get(self.at..)?;
        let length = memchr::memchr(b'\r', rest)?;
        let content = rest.get(..length)?;
        let plain = content.iter().fold(true, |plain, &b| plain & (b >= b' ') & (b != b'#') & (b != 0x7f));
        if !plain || rest.get(length + 1) != Some(&b'\n') {
            return None;
        }
        let from = self.at;
        self.at += length + 2;
        Some((from, from + length))
    }
}

/// Returns where the body begins.
fn head_end(raw: &[u8], limits: &MessageLimits) -> Option<usize> {
    let end = memchr::memmem::find(raw, b"\r\n\r\n")? + 4;
    (end <= limits.header_bytes).then_some(end)
}

/// Splits a header line: a token without blanks before the colon, a value without blanks behind it.
#[allow(clippy::type_complexity, reason = "two pairs of offsets")]
fn split(raw: &[u8], from: usize, to: usize) -> Option<((usize, usize), (usize, usize))> {
    let line = raw.get(from..to)?;
    let colon = memchr::memchr(b':', line)?;
    let name = line.get(..colon)?;
    if name.is_empty() || !name.iter().all(|&b| is_token(b)) {
        return None;
    }
    let value = line.get(colon + 1..)?;
    let blanks = value.iter().take_while(|&&b| b == b' ').count();
    // An empty value, or one with blanks at its end, is not plain.
    if value.last().is_none_or(|&b| b == b' ') {
        return None;
    }
    Some(((from, from + colon), (from + colon + 1 + blanks, to)))
}

/// The fields that may be there once (RFC 3261 7.3.1), each with a bit.
fn single(name: Name) -> Option<u8> {
    Some(match name {
        Name::From => 1,
        Name::To => 2,
        Name::CallId => 4,
        Name::CSeq => 8,
        Name::MaxForwards => 16,
        Name::ContentLength => 32,
        _ => return None,
    })
}

/// Reads a number of at most so many digits.
fn number(digits: &[u8], most: usize) -> Option<u64> {
    if digits.is_empty() || digits.len() > most {
        return None;
    }
    let mut value = 0u64;
    for &digit in digits {
        value = value * 10 + u64::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    Some(value)
}

/// `request` is the method of a request; a response may answer any.
fn read_head(fields: Fields, request: Option<Method>) -> Option<Head> {
    let via = read_via(fields.first(Name::Via)?)?;
    let from = read_party(fields.first(Name::From)?)?;
    let to = read_party(fields.first(Name::To)?)?;
    let call_id = fields.first(Name::CallId)?.to_owned();
    let (sequence, method) = fields.first(Name::CSeq)?.split_once(' ')?;
    let cseq_method = Method::known(method.as_bytes())?;
    if request.is_some_and(|method| method != cseq_method) {
        return None;
    }
    let cseq = u32::try_from(number(sequence.as_bytes(), 10)?).ok()?;
    // RFC 3261 8.1.1.5.
    i32::try_from(cseq).ok()?;
    if request.is_some()
        && let Some(hops) = fields.first(Name::MaxForwards)
    {
        u8::try_from(number(hops.as_bytes(), 3)?).ok()?;
    }
    Some(Head::new(fields, via, (from, to), call_id, (cseq, cseq_method)))
}

/// Reads a topmost Via that is alone in its line (RFC 3261 20.42).
fn read_via(value: &str) -> Option<Via> {
    let rest = value.strip_prefix("SIP/2.0/")?;
    let (transport, rest) = rest.split_once(' ')?;
    if transport.is_empty() || !transport.bytes().all(|b| b.is_ascii_uppercase()) {
        return None;
    }
    let (sent_by, parameters) = match rest.find(';') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let (host, port) = host_and_port(sent_by.as_bytes())?;
    let (mut branch, mut rport, mut alias) = (None, false, false);
    for parameter in parameters_of(parameters.as_bytes()) {
        let (name, value) = parameter?;
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        if is(b"branch") && branch.is_none() {
            branch = Some(value);
        }
        rport |= is(b"rport");
        alias |= is(b"alias");
    }
    let branch = branch.flatten().unwrap_or_default();
    Some(Via {
        host: Bytes::copy_from_slice(host),
        port,
        branch: Bytes::copy_from_slice(branch),
        // RFC 4475 3.2.1: the cookie alone names nothing.
        cookie: branch.len() > COOKIE.len() && branch.starts_with(COOKIE.as_bytes()),
        rport,
        alias,
    })
}

/// Reads a From or To (RFC 3261 20.20, 20.39).
fn read_party(value: &str) -> Option<Party> {
    let bytes = value.as_bytes();
    let parameters = match memchr::memchr(b'<', bytes) {
        Some(open) => {
            let display = bytes.get(..open)?.trim_ascii_end();
            let quoted = match display {
                [b'"', inner @ .., b'"'] => inner.iter().all(|&b| b != b'"' && b != b'\\'),
                _ => false,
            };
            if !quoted && !display.iter().all(|&b| is_token(b) || b == b' ') {
                return None;
            }
            let rest = bytes.get(open + 1..)?;
            let close = memchr::memchr(b'>', rest)?;
            uri_parts(rest.get(..close)?)?;
            rest.get(close + 1..)?
        }
        None => {
            let end = memchr::memchr(b';', bytes).unwrap_or(bytes.len());
            uri_parts(bytes.get(..end)?)?;
            bytes.get(end..)?
        }
    };
    let mut tag = None;
    for parameter in parameters_of(parameters) {
        let (name, value) = parameter?;
        if tag.is_none() && name.eq_ignore_ascii_case(b"tag") {
            tag = Some(value);
        }
    }
    let tag = match tag.flatten() {
        Some(tag) => Some(std::str::from_utf8(tag).ok()?.to_owned()),
        None => None,
    };
    Some(Party { value: value.to_owned(), tag })
}

/// Walks over `;name=value` and `;name`; `None` is anything else, and ends the walk.
fn parameters_of(text: &[u8]) -> impl Iterator<Item = Option<(&[u8], Option<&[u8]>)>> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take().filter(|text| !text.is_empty())?;
        let read = || {
            let text = text.strip_prefix(b";")?;
            let end = memchr::memchr(b';', text).unwrap_or(text.len());
            let (parameter, others) = text.split_at_checked(end)?;
            let (name, value) = match memchr::memchr(b'=', parameter) {
                Some(at) => (parameter.get(..at)?, Some(parameter.get(at + 1..)?)),
                None => (parameter, None),
            };
            let valued = |value: &[u8]| !value.is_empty() && value.iter().all(|&b| is_token(b) || b == b':');
            let plain = !name.is_empty() && name.iter().all(|&b| is_token(b)) && value.is_none_or(valued);
            plain.then_some(((name, value), others))
        };
        let Some((parameter, others)) = read() else { return Some(None) };
        rest = Some(others);
        Some(Some(parameter))
    })
}

/// The parts of a plain URI.
#[derive(Clone, Copy, Debug)]
pub(super) struct UriParts<'a> {
    pub(super) scheme: Scheme,
    /// Empty for `tel`.
    pub(super) host: &'a [u8],
    pub(super) port: Option<u16>,
    /// With the semicolon before each.
    pub(super) parameters: &'a [u8],
}

impl<'a> UriParts<'a> {
    /// Returns the value of a parameter, empty where it has none.
    pub(super) fn parameter(&self, wanted: &[u8]) -> Option<&'a [u8]> {
        let found =
            parameters_of(self.parameters).flatten().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.unwrap_or_default())
    }
}

/// Reads a `sip`, `sips` or `tel` URI without escapes, password, headers or literal IPv6 address
/// (RFC 3261 19.1, RFC 3966 3).
pub(super) fn uri_parts(uri: &[u8]) -> Option<UriParts<'_>> {
    if memchr::memchr(b'%', uri).is_some() {
        return None;
    }
    let colon = memchr::memchr(b':', uri)?;
    let (scheme, rest) = (uri.get(..colon)?, uri.get(colon + 1..)?);
    let scheme = match scheme {
        b"sip" => Scheme::Sip,
        b"sips" => Scheme::Sips,
        b"tel" => Scheme::Tel,
        _ => return None,
    };
    let rest = match memchr::memchr(b'@', rest) {
        _ if scheme == Scheme::Tel => rest,
        Some(at) => {
            let user = rest.get(..at)?;
            // Of the characters that may stand unescaped, those that are seen.
            let plain = |&b: &u8| b.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;".contains(&b);
            if user.is_empty() || !user.iter().all(plain) {
                return None;
            }
            rest.get(at + 1..)?
        }
        None => rest,
    };
    let end = memchr::memchr(b';', rest).unwrap_or(rest.len());
    let (place, parameters) = rest.split_at_checked(end)?;
    let (host, port) = match scheme {
        Scheme::Tel => {
            // A global number; a local one needs its context.
            let digits = place.strip_prefix(b"+")?;
            if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                return None;
            }
            (&[][..], None)
        }
        _ => host_and_port(place)?,
    };
    let mut seen = 0u32;
    for parameter in parameters_of(parameters) {
        parameter?;
        seen += 1;
    }
    // What two parameters of one name mean is not decided here.
    let twice = seen > 1 && {
        let name = |n: usize| parameters_of(parameters).flatten().nth(n).map(|(name, _)| name);
        let seen = seen as usize;
        seen > 8
            || (1..seen)
                .any(|n| (0..n).any(|m| name(n).zip(name(m)).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))))
    };
    (!twice).then_some(UriParts { scheme, host, port, parameters })
}

/// Reads a name or an IPv4 address, and a port that is not 0.
fn host_and_port(text: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let (host, port) = match memchr::memchr(b':', text) {
        Some(at) => {
            let port = u16::try_from(number(text.get(at + 1..)?, 5)?).ok()?;
            (text.get(..at)?, Some(port).filter(|&port| port != 0))
        }
        None => (text, Some(0)),
    };
    let port = match port {
        Some(0) => None,
        Some(port) => Some(port),
        None => return None,
    };
    let plain = |&b: &u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    let numeric = host.iter().all(|&b| b.is_ascii_digit() || b == b'.');
    let address = || std::str::from_utf8(host).is_ok_and(|host| host.parse::<Ipv4Addr>().is_ok());
    (!host.is_empty() && host.iter().all(plain) && (!numeric || address())).then_some((host, port))
}

#[cfg(test)]
#[path = "plain_tests.rs"]
mod tests;
