use std::borrow::Cow;

use super::{BODY_BYTES_MAX, FORMATS_MAX, MEDIA_LINES_MAX};
use crate::text::is_token;
use crate::wire::tolerance::{Repair, Repairs};

/// What some put before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Says why a body cannot be read as a session description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// Larger than 64 KiB.
    #[error("the session description is larger than 64 KiB")]
    TooLarge,
    /// More than 16 m-lines.
    #[error("the session description has more than 16 m-lines")]
    TooManyMedia,
    /// More than 64 payload types in an m-line.
    #[error("an m-line has more than 64 payload types")]
    TooManyFormats,
    /// No line of a session description in it.
    #[error("the body is no session description")]
    Empty,
    /// No version, or another than 0.
    #[error("v= is missing or not 0")]
    Version,
    /// An m-line that is not `media port proto formats`.
    #[error("an m-line is malformed")]
    MediaLine,
    /// A c-line that is not `net type address`.
    #[error("a c-line is malformed")]
    Connection,
    /// A fault that a tolerant trunk would have mended.
    #[error("the session description is not well formed")]
    Strict,
}

/// A body as text.
pub(super) struct Text<'a> {
    text: Cow<'a, str>,
    repairs: Repairs,
}

impl<'a> Text<'a> {
    pub(super) fn of(body: &'a [u8]) -> Result<Self, SdpError> {
        if body.len() > BODY_BYTES_MAX {
            return Err(SdpError::TooLarge);
        }
        let mut repairs = Repairs::default();
        let marked = body.strip_prefix(BYTE_ORDER_MARK);
        if marked.is_some() {
            repairs.insert(Repair::SdpIgnoredLine);
        }
        let text = String::from_utf8_lossy(marked.unwrap_or(body));
        if let Cow::Owned(_) = text {
            repairs.insert(Repair::SdpNonUtf8);
        }
        Ok(Self { text, repairs })
    }
}

/// A session description that was read, as far as a negotiation depends on it.
#[derive(Debug)]
pub(super) struct Description<'a> {
    /// The address of the session's `c=`.
    pub(super) connection: Option<&'a str>,
    /// Start and end of each `t=`.
    pub(super) times: Vec<[u64; 2]>,
    /// Of the session.
    pub(super) attributes: Vec<Attribute<'a>>,
    pub(super) medias: Vec<Media<'a>>,
    /// What identifies this version of this session (RFC 8866 5.2); `None` where `o=` was unusable.
    pub(super) version: Option<Version>,
    pub(super) repairs: Repairs,
}

/// `a=name` or `a=name:value`.
#[derive(Debug)]
pub(super) struct Attribute<'a> {
    pub(super) name: &'a str,
    pub(super) value: Option<&'a str>,
}

/// An m-line with the lines that belong to it.
#[derive(Debug)]
pub(super) struct Media<'a> {
    pub(super) media: &'a str,
    pub(super) port: u16,
    pub(super) proto: &'a str,
    /// One at least, between spaces.
    pub(super) formats: &'a str,
    /// The address of its first `c=`.
    pub(super) connection: Option<&'a str>,
    pub(super) attributes: Vec<Attribute<'a>>,
}

/// The fields of `o=` that tell two versions of a session apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// User name, session and address.
    session: Box<str>,
    version: u64,
}

impl<'a> Description<'a> {
    /// Reads a body. Lines that no negotiation depends on are passed over, so that their faults cost nothing.
    pub(super) fn parse(text: &'a Text<'_>, tolerant: bool) -> Result<Self, SdpError> {
        let mut reader = Reader { repairs: text.repairs, ..Reader::default() };
        for line in text.text.split('\n') {
            let (line, crlf) = match line.strip_suffix('\r') {
                Some(line) => (line, true),
                None => (line, false),
            };
            reader.line(line, crlf)?;
        }
        let description = reader.finish()?;
        if !tolerant && !description.repairs.is_empty() {
            return Err(SdpError::Strict);
        }
        Ok(description)
    }
}

/// Reads a description line by line, and mends what can be mended.
#[derive(Default)]
struct Reader<'a> {
    repairs: Repairs,
    has_version: bool,
    has_origin: bool,
    version: Option<Version>,
    name: bool,
    connection: Option<&'a str>,
    times: Vec<[u64; 2]>,
    attributes: Vec<Attribute<'a>>,
    medias: Vec<Media<'a>>,
    lines: usize,
    bare_lf: bool,
}

impl<'a> Reader<'a> {
    fn line(&mut self, text: &'a str, crlf: bool) -> Result<(), SdpError> {
        if text.is_empty() {
            return Ok(());
        }
        // A missing end of the last line is common and harmless, one inside is another matter.
        if std::mem::replace(&mut self.bare_lf, !crlf) {
            self.repairs.insert(Repair::SdpBareLf);
        }
        let Some((key, value)) = text.split_once('=').filter(|(key, _)| key.len() == 1) else {
            self.repairs.insert(Repair::SdpIgnoredLine);
            return Ok(());
        };
        if value.contains(['\0', '\r']) {
            self.repairs.insert(Repair::SdpIgnoredLine);
            return Ok(());
        }
        self.lines += 1;
        match key {
            "v" if value.trim() != "0" => return Err(SdpError::Version),
            "v" => self.has_version = true,
            "o" if !self.has_origin && self.medias.is_empty() => self.origin(value),
            "s" if !self.name && self.medias.is_empty() => self.name = true,
            "t" if self.medias.is_empty() => self.time(value),
            "c" => self.connection(value)?,
            "m" => self.media(value)?,
            "a" if !value.trim().is_empty() => self.attribute(value.trim_end()),
            // Legal, and nothing to us.
            "i" | "u" | "e" | "p" | "b" | "r" | "z" | "k" => {}
            _ => self.repairs.insert(Repair::SdpIgnoredLine),
        }
        Ok(())
    }

    fn attribute(&mut self, text: &'a str) {
        let attribute = match text.split_once(':') {
            Some((name, value)) => Attribute { name, value: Some(value) },
            None => Attribute { name: text, value: None },
        };
        self.medias.last_mut().map_or(&mut self.attributes, |media| &mut media.attributes).push(attribute);
    }

    /// `o=username id version net type address`: a user name with spaces is joined, a missing
    /// one added, a version that is too long keeps its last digits (they are those that grow).
    fn origin(&mut self, value: &str) {
        let mut fields = value.split_whitespace();
        let mut last = || fields.next_back();
        let (Some(address), Some(kind), Some(net), Some(version), Some(id)) =
            (last(), last(), last(), last(), last())
        else {
            self.repairs.insert(Repair::SdpOriginFields);
            return;
        };
        let user: Vec<&str> = fields.collect();
        if user.len() != 1 {
            self.repairs.insert(Repair::SdpOriginFields);
        }
        let token = |s: &str| s.bytes().all(|b| b.is_ascii_alphanumeric());
        if !token(net) || !token(kind) {
            self.repairs.insert(Repair::SdpOriginFields);
            return;
        }
        self.has_origin = true;
        if id.parse::<u64>().is_err() {
            self.repairs.insert(Repair::SdpOriginNumber);
        }
        let number = version.parse::<u64>().ok().or_else(|| {
            self.repairs.insert(Repair::SdpOriginNumber);
            let digits = version.bytes().all(|b| b.is_ascii_digit());
            version.get(version.len().saturating_sub(18)..).filter(|_| digits)?.parse().ok()
        });
        let session = || [&user.join("_"), " ", id, " ", address].concat().into_boxed_str();
        self.version = number.map(|version| Version { session: session(), version });
    }

    fn time(&mut self, value: &str) {
        let mut fields = value.split_whitespace();
        let mut number = || fields.next().and_then(|field| field.parse::<u64>().ok());
        let (start, end) = (number(), number());
        match (start, end, fields.next()) {
            (Some(start), Some(end), None) => self.times.push([start, end]),
            _ => self.repairs.insert(Repair::SdpIgnoredLine),
        }
    }

    fn connection(&mut self, value: &'a str) -> Result<(), SdpError> {
        let mut fields = value.split_whitespace();
        let (Some(net), Some(kind), Some(address), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(SdpError::Connection);
        };
        if ![net, kind].iter().all(|field| field.bytes().all(is_token)) {
            return Err(SdpError::Connection);
        }
        match self.medias.last_mut() {
            Some(media) => _ = media.connection.get_or_insert(address),
            None if self.connection.is_some() => self.repairs.insert(Repair::SdpIgnoredLine),
            None => self.connection = Some(address),
        }
        Ok(())
    }

    fn media(&mut self, value: &'a str) -> Result<(), SdpError> {
        if self.medias.len() >= MEDIA_LINES_MAX {
            return Err(SdpError::TooManyMedia);
        }
        let (media, rest) = field(value).ok_or(SdpError::MediaLine)?;
        let (port, rest) = field(rest).ok_or(SdpError::MediaLine)?;
        let (proto, formats) = field(rest).ok_or(SdpError::MediaLine)?;
        let mut formats = formats.trim();
        if formats.is_empty() && port == "0" {
            // A refused m-line without formats: some leave them out.
            self.repairs.insert(Repair::SdpIgnoredLine);
            formats = "0";
        }
        if formats.is_empty() {
            return Err(SdpError::MediaLine);
        }
        if formats.split_whitespace().nth(FORMATS_MAX).is_some() {
            return Err(SdpError::TooManyFormats);
        }
        let port = port.split('/').next().unwrap_or_default();
        let port = port.parse().map_err(|_| SdpError::MediaLine)?;
        let (connection, attributes) = (None, Vec::new());
        self.medias.push(Media { media, port, proto, formats, connection, attributes });
        Ok(())
    }

    fn finish(mut self) -> Result<Description<'a>, SdpError> {
        if self.lines == 0 {
            return Err(SdpError::Empty);
        }
        // RFC 8866 5: every description has a version, and what has none is some other text.
        if !self.has_version {
            return Err(SdpError::Version);
        }
        if !self.has_origin || !self.name || self.times.is_empty() {
            self.repairs.insert(Repair::SdpMissingLine);
        }
        let Self { connection, times, attributes, medias, version, repairs, .. } = self;
        Ok(Description { connection, times, attributes, medias, version, repairs })
    }
}

/// The first field of a line, and what is behind it.
fn field(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    text.split_at_checked(end).filter(|(field, _)| !field.is_empty())
}
