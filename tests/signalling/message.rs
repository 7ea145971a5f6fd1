//! SIP messages of the generator: written from templates, read no further than the generator needs.
//!
//! It shares no code with `sip-trunk`, which it measures.

use std::fmt::Write as _;
use std::net::SocketAddrV4;

/// Where all ends of the generator say they want media; sockets that nobody reads are there.
pub(crate) const MEDIA_PORT: u16 = 40_000;

/// A message as it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) start: Start<'a>,
    lines: &'a str,
}

/// The first line of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start<'a> {
    Request(&'a str),
    Response(u16),
}

impl<'a> Message<'a> {
    /// Returns nothing for what is no SIP message.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = std::str::from_utf8(bytes.get(..end)?).ok()?;
        let (first, lines) = head.split_once("\r\n")?;
        let start = match first.strip_prefix("SIP/2.0 ") {
            Some(rest) => Start::Response(rest.get(..3)?.parse().ok()?),
            None => Start::Request(first.strip_suffix(" SIP/2.0")?.split(' ').next()?),
        };
        Some(Self { start, lines })
    }

    /// The value of the first header of that name.
    pub(crate) fn header(&self, name: Name) -> Option<&'a str> {
        self.all(name).next()
    }

    /// The values of all header lines of that name, in their order.
    fn all(&self, name: Name) -> impl Iterator<Item = &'a str> {
        self.lines.split("\r\n").filter_map(move |line| {
            let (own, value) = line.split_once(':')?;
            name.is(own.trim_end()).then(|| value.trim())
        })
    }

    /// The method that the message belongs to.
    pub(crate) fn method(&self) -> Option<&'a str> {
        self.header(Name::CSeq)?.split_whitespace().nth(1)
    }

    /// The number that [`invite`] put in front of the Call-ID.
    pub(crate) fn call(&self) -> Option<u64> {
        self.header(Name::CallId)?.split('@').next()?.parse().ok()
    }

    /// The URI of the Contact (RFC 3261 12.1.2: the remote target).
    pub(crate) fn contact(&self) -> Option<&'a str> {
        let value = self.header(Name::Contact)?;
        match value.split_once('<') {
            Some((_, rest)) => rest.split('>').next(),
            None => value.split(';').next(),
        }
    }
}

/// The headers that the generator reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Via,
    From,
    To,
    CallId,
    CSeq,
    Contact,
    RecordRoute,
}

impl Name {
    fn text(self) -> (&'static str, &'static str) {
        match self {
            Name::Via => ("Via", "v"),
            Name::From => ("From", "f"),
            Name::To => ("To", "t"),
            Name::CallId => ("Call-ID", "i"),
            Name::CSeq => ("CSeq", ""),
            Name::Contact => ("Contact", "m"),
            Name::RecordRoute => ("Record-Route", ""),
        }
    }

    fn is(self, name: &str) -> bool {
        let (long, short) = self.text();
        name.eq_ignore_ascii_case(long) || !short.is_empty() && name.eq_ignore_ascii_case(short)
    }
}

/// Writes the INVITE of a call: `call` tells it from all others, `number` is called at `peer`.
pub(crate) fn invite(call: u64, number: &str, own: SocketAddrV4, peer: SocketAddrV4) -> String {
    let ip = own.ip();
    let caller = format!("+1555{:07}", call % 10_000_000);
    let body = description(own, call);
    format!(
        "INVITE sip:{number}@{peer} SIP/2.0\r\n\
         Via: SIP/2.0/UDP {own};branch=z9hG4bK{call}i;rport\r\n\
         Max-Forwards: 70\r\n\
         From: <sip:{caller}@{ip}>;tag=c{call}\r\n\
         To: <sip:{number}@{peer}>\r\n\
         Call-ID: {call}@{ip}\r\n\
         CSeq: 1 INVITE\r\n\
         Contact: <sip:{caller}@{own}>\r\n\
         Allow: INVITE, ACK, CANCEL, BYE, OPTIONS\r\n\
         Content-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Writes a request in the dialog that a response made: ACK of a 2xx, or BYE (RFC 3261 12.2.1.1, 13.2.2.4).
pub(crate) fn in_dialog(method: &str, dialog: &Dialog, own: SocketAddrV4) -> String {
    let Dialog { call, target, from, to, call_id } = dialog;
    let (sequence, letter) = if method == "ACK" { (1, 'a') } else { (2, 'b') };
    format!(
        "{method} {target} SIP/2.0\r\n\
         Via: SIP/2.0/UDP {own};branch=z9hG4bK{call}{letter};rport\r\n\
         Max-Forwards: 70\r\n\
         From: {from}\r\n\
         To: {to}\r\n\
         Call-ID: {call_id}\r\n\
         CSeq: {sequence} {method}\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

/// What requests in a dialog carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dialog {
    pub(crate) call: u64,
    target: String,
    from: String,
    to: String,
    call_id: String,
}

impl Dialog {
    /// Reads the dialog off a 2xx to an INVITE of [`invite`].
    pub(crate) fn of(response: &Message) -> Option<Self> {
        let text = |name| response.header(name).map(str::to_owned);
        Some(Self {
            call: response.call()?,
            target: response.contact()?.to_owned(),
            from: text(Name::From)?,
            to: text(Name::To)?,
            call_id: text(Name::CallId)?,
        })
    }
}

/// Writes the ACK of a refusal, which belongs to the INVITE's transaction (RFC 3261 17.1.1.3).
pub(crate) fn ack_of_refusal(response: &Message, number: &str, peer: SocketAddrV4) -> Option<String> {
    let header = |name| response.header(name);
    Some(format!(
        "ACK sip:{number}@{peer} SIP/2.0\r\n\
         Via: {}\r\n\
         Max-Forwards: 70\r\n\
         From: {}\r\n\
         To: {}\r\n\
         Call-ID: {}\r\n\
         CSeq: 1 ACK\r\n\
         Content-Length: 0\r\n\r\n",
        header(Name::Via)?,
        header(Name::From)?,
        header(Name::To)?,
        header(Name::CallId)?,
    ))
}

/// Writes a response to a request (RFC 3261 8.2.6.2), with SDP where `description` says.
pub(crate) fn response(
    request: &Message,
    status: &str,
    own: SocketAddrV4,
    description: Option<&str>,
) -> Option<String> {
    let mut text = format!("SIP/2.0 {status}\r\n");
    for via in request.all(Name::Via) {
        let _ = write!(text, "Via: {via}\r\n");
    }
    for route in request.all(Name::RecordRoute) {
        let _ = write!(text, "Record-Route: {route}\r\n");
    }
    let to = request.header(Name::To)?;
    let tag = if to.contains(";tag=") { "" } else { ";tag=callee" };
    let _ = write!(
        text,
        "From: {}\r\nTo: {to}{tag}\r\nCall-ID: {}\r\nCSeq: {}\r\nContact: <sip:{own}>\r\n",
        request.header(Name::From)?,
        request.header(Name::CallId)?,
        request.header(Name::CSeq)?,
    );
    let body = description.unwrap_or_default();
    if !body.is_empty() {
        text.push_str("Content-Type: application/sdp\r\n");
    }
    let _ = write!(text, "Content-Length: {}\r\n\r\n{body}", body.len());
    Some(text)
}

/// Writes a session description: A-law, mu-law and digits, which is also the answer to the like.
pub(crate) fn description(own: SocketAddrV4, session: u64) -> String {
    let ip = own.ip();
    format!(
        "v=0\r\no=- {session} 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
         m=audio {MEDIA_PORT} RTP/AVP 8 101\r\na=rtpmap:8 PCMA/8000\r\n\
         a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn address(last: u8) -> SocketAddrV4 {
        SocketAddrV4::new([127, 0, 0, last].into(), 5060)
    }

    #[test]
    fn an_invite_can_be_read_again() {
        let text = invite(17, "+442070000017", address(1), address(2));
        let message = Message::parse(text.as_bytes()).unwrap();
        assert_eq!(message.start, Start::Request("INVITE"));
        assert_eq!((message.method(), message.call()), (Some("INVITE"), Some(17)));
        assert_eq!(message.contact(), Some("sip:+15550000017@127.0.0.1:5060"));
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
    }

    // RFC 3261 8.2.6.2, 12.1.1: every Via and Record-Route in its order, and a tag.
    #[test]
    fn a_response_carries_back_what_the_request_said() {
        let request = "INVITE sip:x@y SIP/2.0\r\nv: SIP/2.0/UDP a;branch=1\r\nVIA : SIP/2.0/UDP b;branch=2\r\n\
             Record-Route: <sip:p;lr>\r\nf: <sip:a@b>;tag=1\r\nTo: <sip:x@y>\r\ni: id@b\r\nCSeq: 7 INVITE\r\n\r\n";
        let request = Message::parse(request.as_bytes()).unwrap();
        let text = response(&request, "200 OK", address(1), Some("v=0\r\n")).unwrap();
        let said = Message::parse(text.as_bytes()).unwrap();
        assert_eq!(said.start, Start::Response(200));
        let vias: Vec<_> = said.all(Name::Via).collect();
        assert_eq!(vias, ["SIP/2.0/UDP a;branch=1", "SIP/2.0/UDP b;branch=2"]);
        assert_eq!(said.header(Name::RecordRoute), Some("<sip:p;lr>"));
        assert_eq!(said.header(Name::To), Some("<sip:x@y>;tag=callee"));
        assert_eq!(said.method(), Some("INVITE"));
        assert!(text.ends_with("Content-Length: 5\r\n\r\nv=0\r\n"));
    }

    // RFC 3261 12.1.2, 13.2.2.4.
    #[test]
    fn requests_in_the_dialog_go_to_the_contact_with_the_tags() {
        let text = "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK5i\r\nFrom: <sip:a@b>;tag=c5\r\n\
             To: <sip:x@y>;tag=t\r\nCall-ID: 5@127.0.0.1\r\nCSeq: 1 INVITE\r\n\
             Contact: \"X\" <sip:x@127.0.0.2:5060;ob>;expires=1\r\n\r\n";
        let dialog = Dialog::of(&Message::parse(text.as_bytes()).unwrap()).unwrap();
        let bye = in_dialog("BYE", &dialog, address(1));
        assert!(bye.starts_with("BYE sip:x@127.0.0.2:5060;ob SIP/2.0\r\n"), "{bye}");
        let bye = Message::parse(bye.as_bytes()).unwrap();
        assert_eq!(bye.header(Name::To), Some("<sip:x@y>;tag=t"));
        assert_eq!(bye.header(Name::CSeq), Some("2 BYE"));
        let ack = in_dialog("ACK", &dialog, address(1));
        assert_eq!(Message::parse(ack.as_bytes()).unwrap().header(Name::CSeq), Some("1 ACK"));
    }

    // RFC 3261 17.1.1.3: the same branch and request URI.
    #[test]
    fn a_refusal_is_acknowledged_in_the_transaction_of_the_invite() {
        let refused = "SIP/2.0 404 Not Found\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK5i\r\nFrom: <sip:a@b>;tag=c5\r\n\
             To: <sip:x@y>;tag=t\r\nCall-ID: 5@127.0.0.1\r\nCSeq: 1 INVITE\r\n\r\n";
        let text = ack_of_refusal(&Message::parse(refused.as_bytes()).unwrap(), "+1", address(2)).unwrap();
        assert!(
            text.starts_with("ACK sip:+1@127.0.0.2:5060 SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK5i\r\n")
        );
    }

    #[test]
    fn what_is_no_message_is_not_read() {
        for bytes in
            [&b""[..], b"\r\n\r\n", b"SIP/2.0 20\r\n\r\n", b"hello\r\nworld\r\n\r\n", b"\xff\r\nv:1\r\n\r\n"]
        {
            assert!(Message::parse(bytes).is_none(), "{bytes:?}");
        }
    }
}
