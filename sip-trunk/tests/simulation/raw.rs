//! A gateway (node 0) and a peer written by hand (node 1).

use std::net::SocketAddr;

use call_model::CallId;
use sip_trunk::{Command, EndpointConfig, Event, Transport};

use crate::net::{A, A_RTP, B, Net, address, call_id, caller, config, media, number, trunk_name};

pub const SDP: &str = "v=0\r\no=- 1 1 IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\n\
    m=audio 30000 RTP/AVP 8 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n";

/// The description again with another origin version and direction.
pub fn sdp(version: u32, direction: &str) -> String {
    SDP.replace("o=- 1 1", &format!("o=- 1 {version}")).replace("sendrecv", direction)
}

pub struct Lab {
    pub net: Net,
    pub gateway: SocketAddr,
}

impl std::ops::Deref for Lab {
    type Target = Net;
    fn deref(&self) -> &Net {
        &self.net
    }
}

impl std::ops::DerefMut for Lab {
    fn deref_mut(&mut self) -> &mut Net {
        &mut self.net
    }
}

impl Lab {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut EndpointConfig)) -> Self {
        let mut net = Net::new(2);
        let mut config = config(A, B, Transport::Udp);
        change(&mut config);
        net.add_endpoint(config);
        net.add_raw(address(B));
        Self { net, gateway: address(A) }
    }

    /// The peer says something, and the answers are awaited.
    pub fn tell(&mut self, text: &str) -> Vec<String> {
        let to = self.gateway;
        self.say(1, to, text);
        self.run_ms(20);
        self.inbox(1)
    }

    /// The gateway calls; returns the id and the INVITE.
    pub fn call_out(&mut self) -> (CallId, String) {
        let id = call_id(77);
        self.command(
            0,
            Command::Invite {
                call: id,
                trunk: trunk_name("far"),
                called: number("+442079460018"),
                caller: caller("+12025550100"),
                media: media(A_RTP),
            },
        );
        self.run_ms(20);
        let invite = self.inbox(1).remove(0);
        assert!(invite.starts_with("INVITE "), "{invite}");
        (id, invite)
    }

    /// The gateway calls and the peer answers; returns the id and the INVITE.
    pub fn call_out_answered(&mut self) -> (CallId, String) {
        let (id, invite) = self.call_out();
        let got = self.tell(&reply(&invite, 200, "peer", CONTACT, SDP));
        assert!(got[0].starts_with("ACK "), "{got:?}");
        (id, invite)
    }

    /// The peer calls; returns the id the gateway gave.
    pub fn call_in(&mut self, invite: &str) -> CallId {
        self.tell(invite);
        self.incoming().expect("no Incoming")
    }

    pub fn incoming(&mut self) -> Option<CallId> {
        self.events[0].iter().rev().find_map(|e| match e {
            Event::Incoming { call, .. } => Some(*call),
            _ => None,
        })
    }

    /// The peer calls, the gateway answers, the peer acknowledges. Returns the id and the 200.
    pub fn call_in_answered(&mut self) -> (CallId, String) {
        let id = self.call_in(&Ask::invite().text());
        self.command(0, Command::Answer { call: id, media: media(A_RTP) });
        self.run_ms(20);
        let ok = self.inbox(1).into_iter().find(|m| m.starts_with("SIP/2.0 200")).expect("no 200");
        self.tell(&Ask::within(&ok, "ACK", 1).text());
        self.take(0);
        (id, ok)
    }
}

pub const CONTACT: &str = "Contact: <sip:peer@10.0.0.2:5060;ob>\r\n";

/// A request of the peer, field by field.
#[derive(Clone)]
pub struct Ask {
    pub method: String,
    pub uri: String,
    pub via: String,
    pub from: String,
    pub to: String,
    pub call_id: String,
    pub cseq: u32,
    pub max_forwards: u32,
    pub lines: String,
    pub body: String,
    pub content_type: String,
}

impl Ask {
    pub fn new(method: &str) -> Self {
        Self {
            method: method.to_owned(),
            uri: "sip:+442079460018@10.0.0.1".to_owned(),
            via: format!("SIP/2.0/UDP 10.0.0.2:5060;branch=z9hG4bK{}1;rport", method.to_lowercase()),
            from: "\"Bob\" <sip:+12025550100@10.0.0.2>;tag=bob".to_owned(),
            to: "<sip:+442079460018@10.0.0.1>".to_owned(),
            call_id: "c1@10.0.0.2".to_owned(),
            cseq: 1,
            max_forwards: 70,
            lines: CONTACT.to_owned(),
            body: String::new(),
            content_type: "application/sdp".to_owned(),
        }
    }

    pub fn invite() -> Self {
        Self { body: SDP.to_owned(), ..Self::new("INVITE") }
    }

    /// A request in the dialog that a response of the gateway (to a call of the peer) made.
    pub fn within(ok: &str, method: &str, cseq: u32) -> Self {
        Self { to: header(ok, "To"), cseq, ..Self::new(method) }.branch(&format!("{method}{cseq}x"))
    }

    /// A request in the dialog that the peer's answer to an INVITE of the gateway made.
    pub fn back(invite: &str, method: &str, cseq: u32) -> Self {
        let mut ask = Self::new(method).branch(&format!("{method}{cseq}y"));
        ask.from = format!("{};tag=peer", header(invite, "To"));
        ask.to = header(invite, "From");
        ask.call_id = header(invite, "Call-ID");
        ask.cseq = cseq;
        ask
    }

    pub fn branch(mut self, branch: &str) -> Self {
        self.via = format!("SIP/2.0/UDP 10.0.0.2:5060;branch=z9hG4bK{branch};rport");
        self
    }

    pub fn line(mut self, line: &str) -> Self {
        self.lines.push_str(line);
        self.lines.push_str("\r\n");
        self
    }

    pub fn body(mut self, body: &str) -> Self {
        self.body = body.to_owned();
        self
    }

    pub fn text(&self) -> String {
        let content = match self.body.is_empty() {
            true => String::new(),
            false => format!("Content-Type: {}\r\n", self.content_type),
        };
        format!(
            "{} {} SIP/2.0\r\nVia: {}\r\nMax-Forwards: {}\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {} {}\r\n{}{}Content-Length: {}\r\n\r\n{}",
            self.method,
            self.uri,
            self.via,
            self.max_forwards,
            self.from,
            self.to,
            self.call_id,
            self.cseq,
            self.method,
            self.lines,
            content,
            self.body.len(),
            self.body
        )
    }
}

/// A response of the peer to a request of the gateway.
pub fn reply(request: &str, status: u16, tag: &str, lines: &str, body: &str) -> String {
    let mut to = header(request, "To");
    if !to.contains(";tag=") && !tag.is_empty() {
        to = format!("{to};tag={tag}");
    }
    let content =
        if body.is_empty() { String::new() } else { "Content-Type: application/sdp\r\n".to_owned() };
    format!(
        "SIP/2.0 {status} Whatever\r\nVia: {}\r\nFrom: {}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {}\r\n{lines}{content}Content-Length: {}\r\n\r\n{body}",
        header(request, "Via"),
        header(request, "From"),
        header(request, "Call-ID"),
        header(request, "CSeq"),
        body.len()
    )
}

/// The first value of a header, as written.
pub fn header(text: &str, name: &str) -> String {
    headers(text, name).into_iter().next().unwrap_or_else(|| panic!("no {name} in {text}"))
}

pub fn headers(text: &str, name: &str) -> Vec<String> {
    let head = text.split("\r\n\r\n").next().unwrap();
    let prefix = format!("{}:", name.to_lowercase());
    let lines = head.split("\r\n").filter(|l| l.to_lowercase().starts_with(&prefix));
    lines.map(|l| l[prefix.len()..].trim().to_owned()).collect()
}

pub fn status(text: &str) -> u16 {
    text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("no response: {text}"))
}
