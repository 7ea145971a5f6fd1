//! An endpoint with one trunk per address family, and what it does with a datagram from there.

use std::net::SocketAddr;
use std::time::Instant;

use call_model::CallId;
use sip_trunk::{
    Command, ConnectionId, Endpoint, EndpointConfig, Event, Listener, LocalMedia, StreamEvent, Transmit,
    Transport, TrunkConfig, UnknownSource,
};

/// What a message leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An INVITE was taken: 100, and the user of the endpoint hears of a call.
    Call,
    /// One final response.
    Answer(u16),
    /// Nothing is sent.
    Silence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn gateway(self) -> SocketAddr {
        match self {
            Family::V4 => "10.0.0.1:5060",
            Family::V6 => "[2001:db8::10]:5060",
        }
        .parse()
        .unwrap()
    }

    pub fn peer(self) -> SocketAddr {
        match self {
            Family::V4 => "10.0.0.2:5062",
            Family::V6 => "[2001:db8::20]:5062",
        }
        .parse()
        .unwrap()
    }
}

pub fn config() -> EndpointConfig {
    let mut listeners = Vec::new();
    let mut trunks = Vec::new();
    for (name, family) in [("four", Family::V4), ("six", Family::V6)] {
        for transport in [Transport::Udp, Transport::Tcp] {
            listeners.push(Listener { transport, local: family.gateway() });
        }
        trunks.push(TrunkConfig::new(name.parse().unwrap(), family.peer()));
    }
    let mut config = EndpointConfig::new(listeners, trunks);
    config.unknown_source = UnknownSource::Forbid;
    config
}

pub struct Rig {
    pub endpoint: Endpoint,
    pub now: Instant,
    pub events: Vec<Event>,
    pub family: Family,
}

impl Rig {
    pub fn new(family: Family) -> Self {
        Self::with(family, config())
    }

    pub fn with(family: Family, config: EndpointConfig) -> Self {
        let now = Instant::now();
        let endpoint = Endpoint::new(config, [7; 32], now, 1_700_000_000_000).expect("config");
        Self { endpoint, now, events: Vec::new(), family }
    }

    /// Takes what the endpoint wants to send, as text.
    pub fn sent(&mut self) -> Vec<String> {
        while let Some(event) = self.endpoint.poll_event() {
            self.events.push(event);
        }
        let mut out = Vec::new();
        while let Some(transmit) = self.endpoint.poll_transmit() {
            match transmit {
                Transmit::Datagram { remote, bytes, .. } => {
                    assert_ne!(remote.port(), 0, "nothing can be sent to port 0");
                    out.push(String::from_utf8_lossy(&bytes).into_owned());
                }
                Transmit::Stream { bytes, .. } => out.push(String::from_utf8_lossy(&bytes).into_owned()),
                Transmit::Connect { connection, .. } => {
                    self.endpoint.handle_stream(self.now, connection, StreamEvent::ConnectFailed);
                }
                Transmit::Close { .. } => {}
            }
        }
        out
    }

    /// The trunk sends a datagram.
    pub fn hear(&mut self, bytes: &[u8]) -> Vec<String> {
        self.hear_from(self.family.peer(), bytes)
    }

    pub fn hear_from(&mut self, source: SocketAddr, bytes: &[u8]) -> Vec<String> {
        self.endpoint.handle_datagram(self.now, self.family.gateway(), source, bytes);
        self.sent()
    }

    pub fn calls(&self) -> Vec<CallId> {
        let incoming = self.events.iter().filter_map(|e| match e {
            Event::Incoming { call, .. } => Some(*call),
            _ => None,
        });
        incoming.collect()
    }

    fn ended(&self) -> usize {
        self.events.iter().filter(|e| matches!(e, Event::Ended { .. })).count()
    }

    /// The trunk sends a datagram: what comes of it, and the answer.
    pub fn outcome(&mut self, bytes: &[u8]) -> (Outcome, String) {
        let (before, sent) = (self.calls().len(), self.hear(bytes));
        let calls = self.calls().len() - before;
        assert!(sent.len() <= 1, "one message, {} answers: {sent:#?}", sent.len());
        let Some(answer) = sent.into_iter().next() else {
            assert_eq!(calls, 0, "a call without an answer");
            return (Outcome::Silence, String::new());
        };
        well_formed(&answer);
        let status = status(&answer);
        let outcome = if status == 100 { Outcome::Call } else { Outcome::Answer(status) };
        assert_eq!(calls, usize::from(outcome == Outcome::Call), "{answer}");
        (outcome, answer)
    }

    /// Answers every call there is.
    pub fn answer_all(&mut self) -> Vec<String> {
        self.answer_all_at("10.0.0.1:20000")
    }

    /// Answers every call there is, with media there.
    pub fn answer_all_at(&mut self, rtp: &str) -> Vec<String> {
        let rtp = rtp.parse().unwrap();
        for call in self.calls() {
            // A call that has ended meanwhile cannot be answered.
            let _ =
                self.endpoint.handle_command(self.now, Command::Answer { call, media: LocalMedia { rtp } });
        }
        self.sent()
    }

    /// Places a call and returns the INVITE.
    pub fn place(&mut self) -> String {
        let command = Command::Invite {
            call: CallId::new(1, 1),
            trunk: "four".parse().unwrap(),
            called: call_model::Address::Number("+442079460018".parse().unwrap()),
            caller: call_model::Caller { address: None, display_name: None, private: false },
            media: LocalMedia { rtp: "10.0.0.1:20000".parse().unwrap() },
        };
        self.endpoint.handle_command(self.now, command).unwrap();
        self.sent().remove(0)
    }

    /// Ends the call that was placed, if it is still there.
    pub fn hang_up(&mut self) {
        let cause = call_model::Cause::NORMAL_CALL_CLEARING;
        let _ = self.endpoint.handle_command(self.now, Command::Release { call: CallId::new(1, 1), cause });
        self.sent();
    }

    /// The trunk opens a connection and sends the bytes on it in pieces of `size`.
    pub fn stream(&mut self, bytes: &[u8], size: usize) -> Vec<String> {
        let (local, remote) = (self.family.gateway(), self.family.peer());
        let connection = ConnectionId(ConnectionId::INBOUND + 1);
        let opened =
            StreamEvent::Opened { local, remote, inbound: true, transport: Transport::Tcp, identity: None };
        self.endpoint.handle_stream(self.now, connection, opened);
        let mut out = self.sent();
        for piece in bytes.chunks(size) {
            self.endpoint.handle_stream(self.now, connection, StreamEvent::Data(piece));
            out.extend(self.sent());
        }
        self.endpoint.handle_stream(self.now, connection, StreamEvent::Closed);
        out
    }

    /// Lets every timer run out, and asserts that nothing is left.
    pub fn rest(&mut self) {
        let mut steps = 0;
        self.sent();
        while let Some(at) = self.endpoint.poll_timeout() {
            steps += 1;
            assert!(steps < 20_000, "the endpoint does not come to rest");
            self.now = at.max(self.now);
            self.endpoint.handle_timeout(self.now);
            self.sent();
        }
        let counters = self.endpoint.counters();
        let open = (
            counters.open_calls,
            counters.held_calls,
            counters.client_transactions,
            counters.server_transactions,
            counters.connections,
        );
        assert_eq!(open, (0, 0, 0, 0, 0), "calls, remains, client, server transactions, connections");
        assert!(self.endpoint.trunk_status().iter().all(|t| t.calls == 0), "channels in use");
        assert!(self.ended() >= self.calls().len(), "a call without an end");
    }
}

pub fn status(answer: &str) -> u16 {
    let status = answer.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3));
    status.and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("no response: {answer}"))
}

/// Asserts that an answer has a Via, a CSeq, and no line that is none.
fn well_formed(answer: &str) {
    let (head, body) = answer.split_once("\r\n\r\n").expect("no end of the header");
    let lines: Vec<&str> = head.split("\r\n").skip(1).collect();
    for line in &lines {
        let name = line.split(':').next().unwrap();
        let token = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        assert!(token && line.contains(": ") && !line.contains(['\r', '\n']), "{line:?} in {answer}");
    }
    for name in ["Via: ", "CSeq: ", "Content-Length: "] {
        assert!(lines.iter().any(|l| l.starts_with(name)), "no {name} in {answer}");
    }
    assert!(lines.contains(&format!("Content-Length: {}", body.len()).as_str()), "{answer}");
}
