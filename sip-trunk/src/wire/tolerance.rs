//! What real trunks send and a strict parser refuses: mended here, on the bytes, one named repair
//! at a time. What must not be mended, because two readers would understand it differently, is
//! refused here by name.

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;

use super::limits::MessageLimits;

/// Which repairs a trunk is allowed. All are on by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance {
    /// Empty lines before the start line (RFC 3261 7.5).
    pub leading_crlf: bool,
    /// Header lines that end in LF alone.
    pub bare_lf: bool,
    /// A datagram without Content-Length (RFC 3261 18.3: the body is the rest of the datagram).
    pub missing_content_length: bool,
    /// A `#` in the user part of a URI that should have been escaped (RFC 3261 25.1 `user`).
    pub raw_hash: bool,
    /// Header bytes that are not UTF-8, such as a Latin-1 display name. They are kept as they are.
    pub non_utf8: bool,
    /// Repairs of session descriptions: `o=` with spaces or long ids, missing lines, LF alone.
    pub sdp: bool,
}

impl Tolerance {
    /// No repair at all.
    pub const STRICT: Self = Self {
        leading_crlf: false,
        bare_lf: false,
        missing_content_length: false,
        raw_hash: false,
        non_utf8: false,
        sdp: false,
    };
}

impl Default for Tolerance {
    fn default() -> Self {
        Self {
            leading_crlf: true,
            bare_lf: true,
            missing_content_length: true,
            raw_hash: true,
            non_utf8: true,
            sdp: true,
        }
    }
}

macro_rules! labels {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident $label:literal)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every value, in a fixed order: the label set of its counter.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Returns the label for metrics.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

labels! {
    /// One thing that was mended in a message.
    Repair {
        /// Empty lines before the start line were dropped.
        LeadingCrlf "leading_crlf"
        /// LF line ends of the header became CRLF.
        BareLf "bare_lf"
        /// A datagram had no Content-Length; its body is what was left.
        MissingContentLength "missing_content_length"
        /// A `#` in a user part was escaped.
        RawHash "raw_hash"
        /// The header holds bytes that are not UTF-8; they were kept.
        NonUtf8 "non_utf8"
        /// The session description had lines ending in LF alone.
        SdpBareLf "sdp_bare_lf"
        /// `o=` had too many or too few fields.
        SdpOriginFields "sdp_origin_fields"
        /// A number in `o=` was not a number of 64 bits.
        SdpOriginNumber "sdp_origin_number"
        /// `v=`, `o=`, `s=` or `t=` was missing.
        SdpMissingLine "sdp_missing_line"
        /// A line that nothing depends on was malformed, repeated or unknown, and left out.
        SdpIgnoredLine "sdp_ignored_line"
        /// A line held bytes that are not UTF-8; they were replaced.
        SdpNonUtf8 "sdp_non_utf8"
        /// A description that differs had the `o=` version of the last one; it was taken.
        SdpVersion "sdp_version"
        /// An answer left out m-lines of an offer of T.38; its image line was taken.
        SdpMediaLines "sdp_media_lines"
    }
}

labels! {
    /// Why a message was not even parsed.
    Refusal {
        /// Nothing but CRLF or NUL: a keep-alive, no fault.
        KeepAlive "keep_alive"
        /// Not SIP at all.
        NotSip "not_sip"
        /// A SIP version other than 2.0.
        Version "version"
        /// A start line of the wrong shape.
        StartLine "start_line"
        /// No empty line ends the header.
        HeaderUnfinished "header_unfinished"
        /// The header is larger than the limit.
        HeaderTooLarge "header_too_large"
        /// More header fields than the limit.
        TooManyHeaders "too_many_headers"
        /// The body is larger than the limit.
        BodyTooLarge "body_too_large"
        /// Content-Length promises more than the datagram holds (RFC 3261 18.3).
        BodyTruncated "body_truncated"
        /// A NUL, a lone CR, or a line end that the trunk may not use.
        HeaderCharacter "header_character"
        /// A header line without a name or a colon.
        HeaderSyntax "header_syntax"
        /// Two Content-Length fields, equal or not.
        ContentLengthTwice "content_length_twice"
        /// Content-Length is not a number.
        ContentLengthInvalid "content_length_invalid"
        /// A message on a stream, or on a strict trunk, without Content-Length.
        ContentLengthMissing "content_length_missing"
        /// Two From fields.
        FromTwice "from_twice"
        /// Two To fields.
        ToTwice "to_twice"
        /// Two Call-ID fields.
        CallIdTwice "call_id_twice"
        /// Two CSeq fields.
        CseqTwice "cseq_twice"
        /// Two Max-Forwards fields.
        MaxForwardsTwice "max_forwards_twice"
        /// Bytes that are not UTF-8, on a strict trunk.
        NonUtf8 "non_utf8"
        /// Empty lines before the start line, on a strict trunk.
        LeadingCrlf "leading_crlf"
        /// An unescaped `#` in a user part, on a strict trunk.
        RawHash "raw_hash"
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    /// Returns the status a *request* refused so deserves, or `None` where silence is the answer.
    /// Responses and ACK are never answered, whatever this says.
    pub fn status(self) -> Option<u16> {
        match self {
            Refusal::KeepAlive | Refusal::NotSip => None,
            Refusal::Version => Some(505),
            Refusal::HeaderTooLarge => Some(513),
            Refusal::BodyTooLarge => Some(413),
            _ => Some(400),
        }
    }
}

/// The repairs done to one message, each once.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Repairs(u16);

impl Repairs {
    /// Adds a repair.
    pub fn insert(&mut self, repair: Repair) {
        self.0 |= 1 << repair as u16;
    }

    /// Says whether a repair was done.
    pub fn contains(self, repair: Repair) -> bool {
        self.0 & (1 << repair as u16) != 0
    }

    /// Says whether nothing was mended.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Walks over the repairs in a fixed order.
    pub fn iter(self) -> impl Iterator<Item = Repair> {
        Repair::ALL.iter().copied().filter(move |&repair| self.contains(repair))
    }
}

impl fmt::Debug for Repairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// What marks the end of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The datagram ends; bytes past Content-Length are noise (RFC 3261 18.3).
    Datagram,
    /// Content-Length alone.
    Stream,
}

/// A message that passed: CRLF line ends in its header, exactly its body behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tolerated {
    /// The message.
    pub bytes: Bytes,
    /// What was mended.
    pub repairs: Repairs,
}

/// Mends what `tolerance` allows in one whole message and refuses what is ambiguous or too large.
///
/// # Errors
/// The first [`Refusal`] found. Nothing of the message may be used then, except for
/// [`refusal_answer`].
pub fn tolerate(
    raw: &[u8],
    framing: Framing,
    tolerance: &Tolerance,
    limits: &MessageLimits,
) -> Result<Tolerated, Refusal> {
    let mut repairs = Repairs::default();
    let start = raw.iter().position(|&b| b != b'\r' && b != b'\n').ok_or(Refusal::KeepAlive)?;
    let message = &raw[start..];
    if message.iter().all(|&b| b == 0) {
        return Err(Refusal::KeepAlive);
    }
    if start > 0 {
        allow(tolerance.leading_crlf, Repair::LeadingCrlf, Refusal::LeadingCrlf, &mut repairs)?;
    }
    if !message[0].is_ascii_graphic() {
        return Err(Refusal::NotSip);
    }
    let head = Head::read(message, limits)?;
    if head.bare_lf {
        allow(tolerance.bare_lf, Repair::BareLf, Refusal::HeaderCharacter, &mut repairs)?;
    }
    if std::str::from_utf8(&message[..head.end]).is_err() {
        allow(tolerance.non_utf8, Repair::NonUtf8, Refusal::NonUtf8, &mut repairs)?;
    }
    let rest = &message[head.end..];
    let body = match head.content_length {
        Some(length) if length > limits.body_bytes => return Err(Refusal::BodyTooLarge),
        Some(length) => rest.get(..length).ok_or(Refusal::BodyTruncated)?,
        None if framing == Framing::Stream => return Err(Refusal::ContentLengthMissing),
        None => {
            allow(
                tolerance.missing_content_length,
                Repair::MissingContentLength,
                Refusal::ContentLengthMissing,
                &mut repairs,
            )?;
            rest
        }
    };
    if body.len() > limits.body_bytes {
        return Err(Refusal::BodyTooLarge);
    }

    let mut bytes = Vec::with_capacity(head.end + body.len() + 64);
    for (index, line) in Lines::new(&message[..head.end]).enumerate() {
        let begins = index == 0 || line.content.first().is_some_and(|&b| !is_blank(b));
        if begins && line.content.contains(&b'#') && has_uri(line.content, index == 0) {
            let before = bytes.len();
            escape_hashes(line.content, &mut bytes);
            if bytes.len() - before != line.content.len() {
                allow(tolerance.raw_hash, Repair::RawHash, Refusal::RawHash, &mut repairs)?;
            }
        } else {
            bytes.extend_from_slice(line.content);
        }
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(body);
    Ok(Tolerated { bytes: bytes.into(), repairs })
}

fn allow(allowed: bool, repair: Repair, refusal: Refusal, repairs: &mut Repairs) -> Result<(), Refusal> {
    if !allowed {
        return Err(refusal);
    }
    repairs.insert(repair);
    Ok(())
}

/// One line of a header without its end.
struct Line<'a> {
    content: &'a [u8],
    /// Whether it ended in CRLF.
    crlf: bool,
}

/// The lines of a header. What follows the last LF is not a line.
struct Lines<'a>(&'a [u8]);

impl<'a> Lines<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let end = self.0.iter().position(|&b| b == b'\n')?;
        let (line, rest) = (&self.0[..end], &self.0[end + 1..]);
        self.0 = rest;
        Some(match line.strip_suffix(b"\r") {
            Some(content) => Line { content, crlf: true },
            None => Line { content: line, crlf: false },
        })
    }
}

/// What the framing of a message needs to know of its header.
pub(super) struct Head {
    /// Offset of the body: behind the empty line.
    pub(super) end: usize,
    pub(super) content_length: Option<usize>,
    bare_lf: bool,
}

impl Head {
    /// Reads the header at the beginning of `message`, which does not begin with an empty line.
    pub(super) fn read(message: &[u8], limits: &MessageLimits) -> Result<Self, Refusal> {
        let mut head = Self { end: 0, content_length: None, bare_lf: false };
        let mut seen = Seen::default();
        let mut finished = false;
        // The value of a Content-Length may be folded: it is read when the next field begins.
        let mut length: Option<Vec<u8>> = None;
        let mut in_length = false;
        let mut count = 0usize;
        for (index, line) in Lines::new(message).enumerate() {
            head.end += line.content.len() + if line.crlf { 2 } else { 1 };
            if head.end > limits.header_bytes {
                return Err(Refusal::HeaderTooLarge);
            }
            head.bare_lf |= !line.crlf;
            if index == 0 {
                check_start_line(line.content)?;
            }
            if line.content.is_empty() {
                finished = true;
                break;
            }
            check_characters(line.content)?;
            if index == 0 {
                continue;
            }
            if is_blank(line.content[0]) {
                if index == 1 {
                    return Err(Refusal::HeaderSyntax);
                }
                if in_length && let Some(value) = &mut length {
                    value.extend_from_slice(line.content);
                }
                continue;
            }
            count += 1;
            if count > limits.headers {
                return Err(Refusal::TooManyHeaders);
            }
            let (name, value) = split_header(line.content).ok_or(Refusal::HeaderSyntax)?;
            in_length = seen.field(name)?;
            if in_length {
                length = Some(value.to_vec());
            }
        }
        if !finished {
            let too_large = message.len() > limits.header_bytes;
            return Err(if too_large { Refusal::HeaderTooLarge } else { Refusal::HeaderUnfinished });
        }
        if let Some(value) = length {
            head.content_length = Some(parse_length(&value).ok_or(Refusal::ContentLengthInvalid)?);
        }
        Ok(head)
    }
}

/// The fields that may appear once (RFC 3261 7.3.1).
#[derive(Default)]
struct Seen {
    from: bool,
    to: bool,
    call_id: bool,
    cseq: bool,
    max_forwards: bool,
    content_length: bool,
}

impl Seen {
    /// Notes a field; says whether it is Content-Length.
    fn field(&mut self, name: &[u8]) -> Result<bool, Refusal> {
        let is = |long: &str, short: &str| {
            name.eq_ignore_ascii_case(long.as_bytes())
                || (!short.is_empty() && name.eq_ignore_ascii_case(short.as_bytes()))
        };
        let (flag, refusal) = if is("from", "f") {
            (&mut self.from, Refusal::FromTwice)
        } else if is("to", "t") {
            (&mut self.to, Refusal::ToTwice)
        } else if is("call-id", "i") {
            (&mut self.call_id, Refusal::CallIdTwice)
        } else if is("cseq", "") {
            (&mut self.cseq, Refusal::CseqTwice)
        } else if is("max-forwards", "") {
            (&mut self.max_forwards, Refusal::MaxForwardsTwice)
        } else if is("content-length", "l") {
            (&mut self.content_length, Refusal::ContentLengthTwice)
        } else {
            return Ok(false);
        };
        if std::mem::replace(flag, true) {
            return Err(refusal);
        }
        Ok(refusal == Refusal::ContentLengthTwice)
    }
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Splits a header line at its colon; blanks may precede the colon (RFC 3261 25.1 HCOLON).
fn split_header(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&b| b == b':')?;
    let name = line[..colon].trim_ascii_end();
    let valid = !name.is_empty() && name.iter().all(|&b| crate::text::is_token(b));
    valid.then(|| (name, line[colon + 1..].trim_ascii()))
}

fn parse_length(value: &[u8]) -> Option<usize> {
    let digits = value.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Tells a SIP start line from anything else (RFC 3261 7.1, 7.2); the parser checks the rest.
fn check_start_line(line: &[u8]) -> Result<(), Refusal> {
    let version = if line.len() >= 4 && line[..4].eq_ignore_ascii_case(b"SIP/") {
        line.split(|&b| b == b' ').next().unwrap_or_default()
    } else {
        let line = line.trim_ascii_end();
        let last = line.rsplit(|&b| is_blank(b)).next().unwrap_or_default();
        if last.len() < 4 || !last[..4].eq_ignore_ascii_case(b"SIP/") {
            let somewhere = line.windows(5).any(|w| w.eq_ignore_ascii_case(b" SIP/"));
            return Err(if somewhere { Refusal::StartLine } else { Refusal::NotSip });
        }
        last
    };
    if version.eq_ignore_ascii_case(b"SIP/2.0") { Ok(()) } else { Err(Refusal::Version) }
}

/// A NUL is allowed behind a backslash only: `quoted-pair` of RFC 3261 25.1 includes it.
fn check_characters(line: &[u8]) -> Result<(), Refusal> {
    let mut previous = 0u8;
    for &byte in line {
        if byte == b'\r' || (byte == 0 && previous != b'\\') {
            return Err(Refusal::HeaderCharacter);
        }
        previous = byte;
    }
    Ok(())
}

/// The fields whose URIs people type telephone keys into.
fn has_uri(line: &[u8], start_line: bool) -> bool {
    const NAMES: [&str; 13] = [
        "from",
        "f",
        "to",
        "t",
        "contact",
        "m",
        "p-asserted-identity",
        "p-preferred-identity",
        "remote-party-id",
        "diversion",
        "refer-to",
        "r",
        "referred-by",
    ];
    start_line
        || split_header(line)
            .is_some_and(|(name, _)| NAMES.iter().any(|n| name.eq_ignore_ascii_case(n.as_bytes())))
}

/// Writes `line` with each `#` between `sip:` and `@` escaped, quoted strings left alone.
fn escape_hashes(line: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    let mut quoted = false;
    while at < line.len() {
        let rest = &line[at..];
        match line[at] {
            b'\\' if quoted && rest.len() > 1 => {
                out.extend_from_slice(&rest[..2]);
                at += 2;
                continue;
            }
            b'"' => quoted = !quoted,
            _ => {}
        }
        let scheme = if quoted {
            None
        } else {
            ["sip:", "sips:"]
                .into_iter()
                .find(|s| rest.len() >= s.len() && rest[..s.len()].eq_ignore_ascii_case(s.as_bytes()))
        };
        if let Some(scheme) = scheme {
            let stop = rest.iter().position(|&b| b"@<>\", \t?".contains(&b)).unwrap_or(rest.len());
            if rest.get(stop) == Some(&b'@') {
                for &byte in &rest[..stop] {
                    if byte == b'#' {
                        out.extend_from_slice(b"%23");
                    } else {
                        out.push(byte);
                    }
                }
                at += stop;
                continue;
            }
            out.extend_from_slice(&rest[..scheme.len()]);
            at += scheme.len();
            continue;
        }
        out.push(line[at]);
        at += 1;
    }
}

/// Builds the answer to a request that was refused, straight from its bytes and without state:
/// the Via fields (with `received` and `rport` in the topmost, RFC 3261 18.2.1, RFC 3581 4), From,
/// To with `to_tag`, Call-ID and CSeq are copied (RFC 3261 8.2.6.2). A sender that forgot From, To
/// or Call-ID is told all the same (RFC 4475 3.3.1): it knows its request by Via and CSeq (17.1.3).
///
/// Returns `None` for a response, an ACK, or a message without a Via and a CSeq.
pub fn refusal_answer(
    raw: &[u8],
    status: u16,
    phrase: &str,
    to_tag: &str,
    remote: SocketAddr,
) -> Option<Vec<u8>> {
    let start = raw.iter().position(|&b| b != b'\r' && b != b'\n')?;
    // What lies beyond is more than anybody needs in order to be told so.
    let raw = &raw[start..raw.len().min(start + 16 * 1024)];
    let mut via: Vec<Vec<u8>> = Vec::new();
    let mut single: [Option<Vec<u8>>; 4] = Default::default();
    let mut slot: Option<Slot> = None;
    for (index, line) in Lines::new(raw).enumerate() {
        if line.content.is_empty() {
            break;
        }
        if index == 0 {
            if line.content.len() < 4 || line.content[..4].eq_ignore_ascii_case(b"SIP/") {
                return None;
            }
            continue;
        }
        if is_blank(line.content[0]) {
            let target = match slot {
                Some(Slot::Via) => via.last_mut(),
                Some(Slot::Single(n)) => single[n].as_mut(),
                None => None,
            };
            if let Some(value) = target {
                value.push(b' ');
                value.extend(printable(line.content.trim_ascii()));
            }
            continue;
        }
        slot = None;
        let Some((name, value)) = split_header(line.content) else { continue };
        let is = |names: [&str; 2]| names.iter().any(|n| name.eq_ignore_ascii_case(n.as_bytes()));
        if is(["via", "v"]) {
            via.push(printable(value).collect());
            slot = Some(Slot::Via);
            continue;
        }
        let fields = [["from", "f"], ["to", "t"], ["call-id", "i"], ["cseq", "cseq"]];
        if let Some(n) = fields.into_iter().position(is)
            && single[n].is_none()
        {
            single[n] = Some(printable(value).collect());
            slot = Some(Slot::Single(n));
        }
    }
    let [from, mut to, call_id, Some(cseq)] = single else { return None };
    let top = via.first_mut().filter(|via| !via.is_empty())?;
    *top = stamp_via(top, remote);
    if cseq.is_empty() || cseq.trim_ascii_end().to_ascii_uppercase().ends_with(b"ACK") {
        return None;
    }
    if let Some(to) = &mut to
        && !to.to_ascii_lowercase().windows(5).any(|w| w == b";tag=")
    {
        to.extend_from_slice(b";tag=");
        to.extend_from_slice(to_tag.as_bytes());
    }
    let mut out = format!("SIP/2.0 {status} {phrase}\r\n").into_bytes();
    let mut field = |name: &str, value: &[u8]| {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    };
    via.iter().for_each(|value| field("Via", value));
    for (name, value) in [("From", from), ("To", to), ("Call-ID", call_id), ("CSeq", Some(cseq))] {
        if let Some(value) = value {
            field(name, &value);
        }
    }
    field("Content-Length", b"0");
    out.extend_from_slice(b"\r\n");
    Some(out)
}

enum Slot {
    Via,
    Single(usize),
}

fn printable(value: &[u8]) -> impl Iterator<Item = u8> {
    value.iter().copied().filter(|&b| b >= 0x20 || b == b'\t')
}

/// Notes in the topmost Via where the request came from (RFC 3261 18.2.1, RFC 3581 4).
pub(crate) fn stamp_via(value: &[u8], remote: SocketAddr) -> Vec<u8> {
    let mut quoted = false;
    let comma = |&b: &u8| {
        quoted ^= b == b'"';
        b == b',' && !quoted
    };
    let end = value.iter().position(comma).unwrap_or(value.len());
    let (first, others) = value.split_at(end);
    let mut out = Vec::with_capacity(value.len() + 48);
    let (mut received, ip) = (false, remote.ip().to_canonical());
    for (n, part) in first.split(|&b| b == b';').enumerate() {
        if n > 0 {
            out.push(b';');
        }
        let name = part.split(|&b| b == b'=').next().unwrap_or_default().trim_ascii();
        if n > 0 && name.eq_ignore_ascii_case(b"rport") {
            out.extend_from_slice(format!("rport={}", remote.port()).as_bytes());
        } else if n > 0 && name.eq_ignore_ascii_case(b"received") {
            received = true;
            out.extend_from_slice(format!("received={ip}").as_bytes());
        } else {
            out.extend_from_slice(part);
        }
    }
    if !received {
        out.extend_from_slice(format!(";received={ip}").as_bytes());
    }
    out.extend_from_slice(others);
    out
}

#[cfg(test)]
#[path = "tolerance_tests.rs"]
mod tests;
