//! A SIP message as text, read without the product's own parser.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};

/// A message as it came: the start line, the headers in order, the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The whole of it.
    pub text: String,
    /// The request line or status line.
    pub start: String,
    /// Names in lower case, in their long form, and values.
    pub headers: Vec<(String, String)>,
    /// What follows the empty line.
    pub body: String,
}

impl Message {
    /// Reads a message that must be well formed: lines end with CRLF, a body is as long as is said.
    ///
    /// # Errors
    /// When it is not; tells why.
    pub fn read(text: &str) -> Result<Self> {
        let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no empty line: {text:?}"))?;
        ensure!(!head.replace("\r\n", "").contains(['\r', '\n']), "a bare CR or LF: {text:?}");
        let mut lines = head.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in lines {
            // RFC 3261 7.3.1: a line that begins with white space goes on with the one before.
            if let (true, Some((_, value))) = (line.starts_with([' ', '\t']), headers.last_mut()) {
                value.push(' ');
                value.push_str(line.trim());
                continue;
            }
            let (name, value) = line.split_once(':').with_context(|| format!("no header: {line:?}"))?;
            headers.push((long(name.trim()), value.trim().to_owned()));
        }
        let message = Self { text: text.to_owned(), start, headers, body: body.to_owned() };
        if let Some(length) = message.header("content-length") {
            ensure!(length.parse() == Ok(body.len()), "Content-Length {length}, but {} bytes", body.len());
        }
        Ok(message)
    }

    /// The first value of a header, its name in lower case and long form.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The value of a header that must be there.
    ///
    /// # Errors
    /// When it is not.
    pub fn need(&self, name: &str) -> Result<&str> {
        self.header(name).with_context(|| format!("no {name} in {}", self.text))
    }

    /// All values of a header, lists taken apart at commas outside of quotes and angle brackets.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<String> {
        let values = self.headers.iter().filter(|(known, _)| known == name);
        values.flat_map(|(_, value)| split_list(value)).collect()
    }

    /// Whether a list header has a word, in any letter case.
    #[must_use]
    pub fn lists(&self, name: &str, word: &str) -> bool {
        self.all(name).iter().any(|value| value.eq_ignore_ascii_case(word))
    }

    /// The method of a request; nothing for a response.
    #[must_use]
    pub fn method(&self) -> Option<&str> {
        let method = self.start.split(' ').next()?;
        (method != "SIP/2.0").then_some(method)
    }

    /// The request URI.
    #[must_use]
    pub fn uri(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The status of a response; nothing for a request.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.start.strip_prefix("SIP/2.0 ")?.split(' ').next()?.parse().ok()
    }

    /// The number and method of CSeq.
    #[must_use]
    pub fn cseq(&self) -> (u32, String) {
        let mut words = self.header("cseq").unwrap_or_default().split_whitespace();
        let number = words.next().and_then(|number| number.parse().ok()).unwrap_or(0);
        (number, words.next().unwrap_or_default().to_owned())
    }

    /// The branch of the topmost Via.
    #[must_use]
    pub fn branch(&self) -> String {
        self.all("via").first().and_then(|via| parameter(via, "branch")).unwrap_or_default()
    }

    /// The tag of From or To.
    #[must_use]
    pub fn tag(&self, name: &str) -> Option<String> {
        let value = self.header(name)?;
        parameter(value.rsplit_once('>').map_or(value, |(_, rest)| rest), "tag")
    }

    /// The URI of the first Contact.
    #[must_use]
    pub fn contact(&self) -> Option<String> {
        self.all("contact").first().map(|value| uri_of(value))
    }

    /// The media the body describes.
    ///
    /// # Errors
    /// When there is none.
    pub fn media(&self) -> Result<Media> {
        let kind = self.need("content-type")?;
        ensure!(kind.eq_ignore_ascii_case("application/sdp"), "Content-Type {kind}");
        Media::read(&self.body)
    }
}

/// The first audio stream of a session description (RFC 8866).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// The id and version of `o=`.
    pub origin: (String, String),
    /// Where media goes.
    pub address: Ipv4Addr,
    /// The port of RTP.
    pub port: u16,
    /// `RTP/AVP` or `RTP/SAVP`.
    pub profile: String,
    /// Payload types in order.
    pub formats: Vec<u8>,
    /// Values of `a=` in order, of the session and of the stream.
    pub attributes: Vec<String>,
}

impl Media {
    fn read(body: &str) -> Result<Self> {
        let line = |kind: &'static str| body.lines().filter_map(move |line| line.strip_prefix(kind));
        let mut origin = line("o=").next().context("no o=")?.split(' ').skip(1).map(str::to_owned);
        let origin = (origin.next().context("no id")?, origin.next().context("no version")?);
        let address = line("c=").next_back().context("no c=")?.strip_prefix("IN IP4 ").context("not IPv4")?;
        let media = line("m=").next().context("no m=")?.strip_prefix("audio ").context("not audio")?;
        let mut words = media.split(' ');
        let port = words.next().context("no port")?.parse()?;
        let profile = words.next().context("no profile")?.to_owned();
        let formats = words.map(str::parse).collect::<Result<_, _>>()?;
        let attributes = line("a=").map(str::to_owned).collect();
        Ok(Self { origin, address: address.trim().parse()?, port, profile, formats, attributes })
    }

    /// The value of an attribute `NAME:VALUE`.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    }

    /// `sendrecv`, `sendonly`, `recvonly` or `inactive`.
    #[must_use]
    pub fn direction(&self) -> &str {
        let known = ["sendrecv", "sendonly", "recvonly", "inactive"];
        self.attributes.iter().find(|line| known.contains(&line.as_str())).map_or("sendrecv", String::as_str)
    }

    /// The payload type of an encoding such as `telephone-event/8000`.
    #[must_use]
    pub fn format_of(&self, encoding: &str) -> Option<u8> {
        let maps = self.attributes.iter().filter_map(|line| line.strip_prefix("rtpmap:"));
        maps.filter_map(|map| map.split_once(' ')).find(|(_, name)| *name == encoding)?.0.parse().ok()
    }
}

/// What stands between angle brackets, or all before the parameters.
pub(super) fn uri_of(value: &str) -> String {
    match value.split_once('<').and_then(|(_, rest)| rest.split_once('>')) {
        Some((uri, _)) => uri.to_owned(),
        None => value.split(';').next().unwrap_or_default().trim().to_owned(),
    }
}

/// The value of `;NAME=VALUE`, in any letter case of the name.
pub(super) fn parameter(value: &str, name: &str) -> Option<String> {
    value.split(';').skip(1).find_map(|part| {
        let (known, value) = part.split_once('=')?;
        known.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"').to_owned())
    })
}

/// RFC 3261 7.3.3: one letter may stand for a name.
fn long(name: &str) -> String {
    match name.to_ascii_lowercase().as_str() {
        "i" => "call-id".to_owned(),
        "m" => "contact".to_owned(),
        "e" => "content-encoding".to_owned(),
        "l" => "content-length".to_owned(),
        "c" => "content-type".to_owned(),
        "f" => "from".to_owned(),
        "s" => "subject".to_owned(),
        "k" => "supported".to_owned(),
        "t" => "to".to_owned(),
        "v" => "via".to_owned(),
        "x" => "session-expires".to_owned(),
        "r" => "refer-to".to_owned(),
        "b" => "referred-by".to_owned(),
        "o" => "event".to_owned(),
        other => other.to_owned(),
    }
}

fn split_list(value: &str) -> Vec<String> {
    let (mut parts, mut quoted, mut depth) = (vec![String::new()], false, 0_usize);
    for character in value.chars() {
        match character {
            '"' => quoted = !quoted,
            '<' if !quoted => depth += 1,
            '>' if !quoted => depth = depth.saturating_sub(1),
            ',' if !quoted && depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const INVITE: &str = "INVITE sip:a@b;user=phone SIP/2.0\r\nv: SIP/2.0/UDP c;branch=z9hG4bK1, SIP/2.0/TCP d\r\n\
        f: \"x, <y\" <sip:x@y;tag=no>;tag=yes\r\nRecord-Route: <sip:p1;lr>\r\nRecord-Route: <sip:p2;lr>,\r\n <sip:p3>\r\n\
        CSeq: 7 INVITE\r\nc: application/sdp\r\nl: 118\r\n\r\n";
    const SDP: &str = "v=0\r\no=- 5 6 IN IP4 127.0.0.9\r\nc=IN IP4 127.0.0.9\r\nm=audio 4000 RTP/AVP 8 100\r\n\
        a=rtpmap:100 telephone-event/8000\r\na=inactive\r\n";

    #[test]
    fn a_request_is_read() {
        let text = INVITE.replace("118", &SDP.len().to_string()) + SDP;
        let message = Message::read(&text).unwrap();
        assert_eq!((message.method(), message.uri()), (Some("INVITE"), "sip:a@b;user=phone"));
        assert_eq!((message.branch().as_str(), message.cseq()), ("z9hG4bK1", (7, "INVITE".to_owned())));
        assert_eq!(message.tag("from").as_deref(), Some("yes"));
        assert_eq!(message.all("record-route"), ["<sip:p1;lr>", "<sip:p2;lr>", "<sip:p3>"]);
        assert_eq!(message.all("via").len(), 2);
        let media = message.media().unwrap();
        assert_eq!(
            (media.port, media.direction(), media.formats.as_slice()),
            (4000, "inactive", &[8, 100][..])
        );
        assert_eq!(media.format_of("telephone-event/8000"), Some(100));
    }

    #[test]
    fn what_is_not_well_formed_is_refused() {
        for text in
            ["SIP/2.0 200 OK\r\n", "SIP/2.0 200 OK\nTo: a\r\n\r\n", "SIP/2.0 200 OK\r\nl: 2\r\n\r\nabc"]
        {
            assert!(Message::read(text).is_err(), "{text:?}");
        }
        assert_eq!(
            Message::read("SIP/2.0 183 Session Progress\r\nl: 0\r\n\r\n").unwrap().status(),
            Some(183)
        );
    }
}
