//! Writes messages: requests and responses line by line, what every response to a request repeats,
//! and the ACK and the CANCEL that are made from an INVITE of ours.

use std::net::SocketAddr;

use bytes::Bytes;

use super::fields::Name;
use super::message::{Request, Scheme, find};
use super::tolerance::stamp_via;
use crate::trunk::overload;

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
        for via in head.fields().all(Name::Via) {
            if first {
                let stamped = stamp_via(via.as_bytes(), source);
                let stamped = String::from_utf8_lossy(&stamped);
                asks_for_overload = overload::is_asked(&stamped);
                lines.line("Via", &stamped);
                first = false;
            } else {
                lines.line("Via", via);
            }
        }
        lines.line("From", &head.from.value);
        lines.line("Call-ID", &head.call_id);
        for cseq in head.fields().all(Name::CSeq) {
            lines.line("CSeq", cseq);
        }
        let mut routes = Writer(Vec::new());
        for route in head.fields().all(Name::RecordRoute) {
            routes.line("Record-Route", route);
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
