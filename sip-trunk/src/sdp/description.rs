use sdp_types::Session;

use super::{BODY_BYTES_MAX, FORMATS_MAX, MEDIA_LINES_MAX};
use crate::wire::tolerance::{Repair, Repairs};

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
    /// A version other than 0.
    #[error("v= is not 0")]
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
    /// Anything else the grammar forbids.
    #[error("the session description is malformed")]
    Syntax,
}

/// A session description that was read.
#[derive(Clone, Debug)]
pub(super) struct Description {
    pub(super) session: Session,
    /// What identifies this version of this session (RFC 8866 5.2); `None` where `o=` was unusable.
    pub(super) version: Option<Version>,
    pub(super) repairs: Repairs,
}

/// The fields of `o=` that tell two versions of a session apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    username: Option<String>,
    session_id: String,
    version: u64,
    address: String,
}

impl Description {
    /// Reads a body. Lines that no negotiation depends on are dropped before the parser sees them,
    /// so that their faults cost nothing.
    pub(super) fn parse(body: &[u8], tolerant: bool) -> Result<Self, SdpError> {
        if body.len() > BODY_BYTES_MAX {
            return Err(SdpError::TooLarge);
        }
        let mut mender = Mender::default();
        for line in body.split(|&b| b == b'\n') {
            let (line, crlf) = match line.strip_suffix(b"\r") {
                Some(line) => (line, true),
                None => (line, false),
            };
            mender.line(line, crlf)?;
        }
        let (text, repairs, origin_usable) = mender.finish()?;
        if !tolerant && !repairs.is_empty() {
            return Err(SdpError::Strict);
        }
        let session = Session::parse(text.as_bytes()).map_err(|_| SdpError::Syntax)?;
        let version = origin_usable.then(|| Version {
            username: session.origin.username.clone(),
            session_id: session.origin.sess_id.clone(),
            version: session.origin.sess_version,
            address: session.origin.unicast_address.clone(),
        });
        Ok(Self { session, version, repairs })
    }
}

/// Rewrites a description line by line into one that the parser takes.
#[derive(Default)]
struct Mender {
    repairs: Repairs,
    version: bool,
    origin: Option<String>,
    origin_usable: bool,
    name: bool,
    time: bool,
    session_connection: bool,
    media_lines: usize,
    /// Everything from `c=` on, in the order it came.
    rest: String,
    lines: usize,
    bare_lf: bool,
}

impl Mender {
    fn line(&mut self, line: &[u8], crlf: bool) -> Result<(), SdpError> {
        if line.is_empty() {
            return Ok(());
        }
        let text = match std::str::from_utf8(line) {
            Ok(text) => text.into(),
            Err(_) => {
                self.repairs.insert(Repair::SdpNonUtf8);
                String::from_utf8_lossy(line)
            }
        };
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
            "v" => self.version = true,
            "o" if self.origin.is_none() && self.media_lines == 0 => self.origin(value),
            "s" if !self.name && self.media_lines == 0 => self.name = true,
            "t" if self.media_lines == 0 => self.time(value),
            "c" => self.connection(value)?,
            "m" => self.media(value)?,
            "a" if !value.trim().is_empty() => self.push('a', value.trim_end()),
            // Legal, and nothing to us.
            "i" | "u" | "e" | "p" | "b" | "r" | "z" | "k" => {}
            _ => self.repairs.insert(Repair::SdpIgnoredLine),
        }
        Ok(())
    }

    fn push(&mut self, key: char, value: &str) {
        self.rest.push(key);
        self.rest.push('=');
        self.rest.push_str(value);
        self.rest.push_str("\r\n");
    }

    /// `o=username id version net type address`: a user name with spaces is joined, a missing
    /// one added, a version that is too long keeps its last digits (they are those that grow).
    fn origin(&mut self, value: &str) {
        let fields: Vec<&str> = value.split_whitespace().collect();
        let Some(split) = fields.len().checked_sub(5) else {
            self.repairs.insert(Repair::SdpOriginFields);
            return;
        };
        if split != 1 {
            self.repairs.insert(Repair::SdpOriginFields);
        }
        let (user, fixed) = fields.split_at(split);
        let user = if user.is_empty() { "-".to_owned() } else { user.join("_") };
        let &[id, version, net, kind, address] = fixed else { return };
        let token = |s: &str| s.bytes().all(|b| b.is_ascii_alphanumeric());
        if !token(net) || !token(kind) {
            self.repairs.insert(Repair::SdpOriginFields);
            return;
        }
        if id.parse::<u64>().is_err() {
            self.repairs.insert(Repair::SdpOriginNumber);
        }
        let number = if version.parse::<u64>().is_ok() {
            self.origin_usable = true;
            version
        } else {
            self.repairs.insert(Repair::SdpOriginNumber);
            let digits = version.bytes().all(|b| b.is_ascii_digit());
            self.origin_usable = digits;
            if digits { &version[version.len() - version.len().min(18)..] } else { "0" }
        };
        self.origin = Some(format!("{user} {id} {number} {net} {kind} {address}"));
    }

    fn time(&mut self, value: &str) {
        let mut fields = value.split_whitespace();
        let numbers = fields.by_ref().take(2).filter(|f| f.parse::<u64>().is_ok()).count();
        if numbers == 2 && fields.next().is_none() {
            self.time = true;
            let value = value.trim().to_owned();
            self.push('t', &value);
        } else {
            self.repairs.insert(Repair::SdpIgnoredLine);
        }
    }

    fn connection(&mut self, value: &str) -> Result<(), SdpError> {
        let fields: Vec<&str> = value.split_whitespace().collect();
        let [net, kind, address] = fields[..] else { return Err(SdpError::Connection) };
        if self.media_lines == 0 && std::mem::replace(&mut self.session_connection, true) {
            self.repairs.insert(Repair::SdpIgnoredLine);
            return Ok(());
        }
        self.push('c', &format!("{net} {kind} {address}"));
        Ok(())
    }

    fn media(&mut self, value: &str) -> Result<(), SdpError> {
        self.media_lines += 1;
        if self.media_lines > MEDIA_LINES_MAX {
            return Err(SdpError::TooManyMedia);
        }
        let mut fields: Vec<&str> = value.split_whitespace().collect();
        if fields.len() == 3 && fields[1] == "0" {
            // A refused m-line without formats: some leave them out.
            self.repairs.insert(Repair::SdpIgnoredLine);
            fields.push("0");
        }
        if fields.len() < 4 {
            return Err(SdpError::MediaLine);
        }
        if fields.len() > 3 + FORMATS_MAX {
            return Err(SdpError::TooManyFormats);
        }
        let port = fields[1].split('/').next().unwrap_or_default();
        if port.parse::<u16>().is_err() {
            return Err(SdpError::MediaLine);
        }
        fields[1] = port;
        self.push('m', &fields.join(" "));
        Ok(())
    }

    fn finish(mut self) -> Result<(String, Repairs, bool), SdpError> {
        if self.lines == 0 {
            return Err(SdpError::Empty);
        }
        if !(self.version && self.origin.is_some() && self.name && self.time) {
            self.repairs.insert(Repair::SdpMissingLine);
        }
        let origin = self.origin.map(|o| format!("o={o}\r\n")).unwrap_or_default();
        Ok((format!("v=0\r\n{origin}s=-\r\n{}", self.rest), self.repairs, self.origin_usable))
    }
}
