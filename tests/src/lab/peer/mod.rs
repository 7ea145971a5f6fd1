//! Scripted SIP peers: what a carrier, a PBX or somebody hostile does, message by message, over real sockets.
//!
//! A script is a test's own code: it waits for a message, looks at it, answers as it likes. Nothing here knows the
//! product's SIP code, so that a script judges it.

mod call;
mod describe;
mod link;
mod message;
mod voice;

pub use call::{Call, DidNotAnswer};
pub use describe::Describe;
pub use message::{Media, Message};
pub(super) use voice::alaw;
pub use voice::{Heard, Voice, rtp_of};

use std::{
    collections::VecDeque,
    fmt::Write as _,
    net::SocketAddrV4,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use link::{Link, Tls};

/// How long the gateway may take for a message on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(12);

/// A peer at one SIP address.
#[derive(Debug)]
pub struct Peer {
    name: String,
    link: Link,
    local: SocketAddrV4,
    gateway: SocketAddrV4,
    /// Messages that came while another was awaited.
    waiting: VecDeque<Message>,
    /// Texts that came before: what equals one of them is a repetition.
    seen: Vec<String>,
    repetitions: usize,
    count: u32,
    trace: Vec<(Instant, bool, String)>,
    answers_options: bool,
}

impl Peer {
    /// A peer on UDP that talks to the SIP socket `gateway`.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn udp(name: &str, local: SocketAddrV4, gateway: SocketAddrV4) -> Result<Self> {
        Self::new(name, Link::udp(local, gateway)?, gateway)
    }

    /// A peer on TCP.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn tcp(name: &str, local: SocketAddrV4, gateway: SocketAddrV4) -> Result<Self> {
        Self::new(name, Link::stream(local, gateway, None)?, gateway)
    }

    /// A peer on TLS, in which both ends show a certificate that `authority` issued.
    ///
    /// # Errors
    /// When the address is taken or a file cannot be used.
    pub fn tls(
        name: &str,
        local: SocketAddrV4,
        gateway: SocketAddrV4,
        (certificate, key): (&Path, &Path),
        authority: &Path,
    ) -> Result<Self> {
        let tls = Tls::read(certificate, key, authority)?;
        Self::new(name, Link::stream(local, gateway, Some(tls))?, gateway)
    }

    fn new(name: &str, link: Link, gateway: SocketAddrV4) -> Result<Self> {
        let local = link.local()?;
        Ok(Self {
            name: name.to_owned(),
            link,
            local,
            gateway,
            waiting: VecDeque::new(),
            seen: Vec::new(),
            repetitions: 0,
            count: 0,
            trace: Vec::new(),
            answers_options: true,
        })
    }

    /// Its SIP address.
    #[must_use]
    pub fn local(&self) -> SocketAddrV4 {
        self.local
    }

    /// The gateway's SIP address.
    #[must_use]
    pub fn gateway(&self) -> SocketAddrV4 {
        self.gateway
    }

    /// `UDP`, `TCP` or `TLS`.
    #[must_use]
    pub fn transport(&self) -> &'static str {
        self.link.transport()
    }

    /// Whether OPTIONS are answered with 200 while something else is awaited; they are unless it is said.
    pub fn answer_options(&mut self, yes: bool) {
        self.answers_options = yes;
    }

    /// How many messages came more than once.
    #[must_use]
    pub fn repetitions(&self) -> usize {
        self.repetitions
    }

    /// Whether a connection to the gateway is open.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.link.is_open()
    }

    /// Closes the connection to the gateway.
    pub fn disconnect(&mut self) {
        self.link.close();
    }

    /// A word not used before, for tags, branches and Call-IDs.
    pub fn word(&mut self) -> String {
        self.count += 1;
        format!("{}-{}-{}", self.name, std::process::id(), self.count)
    }

    /// The value of a Via for a new request.
    pub fn via(&mut self) -> String {
        let (transport, local) = (self.link.transport(), self.local);
        format!("SIP/2.0/{transport} {local};branch=z9hG4bK{};rport", self.word())
    }

    /// The URI by which it is reached.
    #[must_use]
    pub fn contact(&self) -> String {
        match self.link.transport() {
            "UDP" => format!("sip:{}@{};line=7f", self.name, self.local),
            other => format!("sip:{}@{};transport={};line=7f", self.name, self.local, other.to_lowercase()),
        }
    }

    /// Sends what may be no message at all.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        let bytes = bytes.as_ref();
        self.trace.push((Instant::now(), true, String::from_utf8_lossy(bytes).into_owned()));
        self.link.send(bytes).with_context(|| format!("{}: sending", self.name))
    }

    /// Waits for the next request of this method. Others that come are kept.
    ///
    /// # Errors
    /// When none comes in time, or the gateway says something that is not well formed.
    pub fn request(&mut self, method: &str) -> Result<Message> {
        self.receive(method, PATIENCE, |message| message.method() == Some(method))
    }

    /// Waits for a message.
    ///
    /// # Errors
    /// As [`Peer::request`].
    pub fn receive(
        &mut self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Message) -> bool,
    ) -> Result<Message> {
        if let Some(at) = self.waiting.iter().position(&wanted) {
            return self.waiting.remove(at).context("it was there");
        }
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(message) = self.next(left)? else {
                bail!("{}: no {what} within {limit:?}\n{}", self.name, self.ladder());
            };
            if wanted(&message) {
                return Ok(message);
            }
            if self.answers_options && message.method() == Some("OPTIONS") && message.tag("to").is_none() {
                self.respond(&message, 200, "OK", "options", "Accept: application/sdp\r\n", "")?;
            } else {
                self.waiting.push_back(message);
            }
        }
    }

    /// Makes sure that no message of this kind comes for a while.
    ///
    /// # Errors
    /// When one does.
    pub fn nothing(&mut self, what: &str, time: Duration, unwanted: impl Fn(&Message) -> bool) -> Result<()> {
        let deadline = Instant::now() + time;
        loop {
            if let Some(message) = self.waiting.iter().find(|message| unwanted(message)) {
                bail!("{}: {what}: {}", self.name, message.text);
            }
            let Some(message) = self.next(deadline.saturating_duration_since(Instant::now()))? else {
                return Ok(());
            };
            self.waiting.push_back(message);
        }
    }

    /// Answers a request. `extra` are more header lines, each with its CRLF; a body is a session description.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn respond(
        &mut self,
        request: &Message,
        status: u16,
        reason: &str,
        tag: &str,
        extra: &str,
        body: &str,
    ) -> Result<()> {
        let mut text = format!("SIP/2.0 {status} {reason}\r\n");
        for (name, value) in &request.headers {
            match name.as_str() {
                "via" => write!(text, "Via: {value}\r\n")?,
                "from" => write!(text, "From: {value}\r\n")?,
                "to" if status > 100 && request.tag("to").is_none() => {
                    write!(text, "To: {value};tag={tag}\r\n")?;
                }
                "to" => write!(text, "To: {value}\r\n")?,
                "call-id" => write!(text, "Call-ID: {value}\r\n")?,
                "cseq" => write!(text, "CSeq: {value}\r\n")?,
                _ => {}
            }
        }
        // RFC 3261 8.2.6.1: 100 says nothing of the dialog.
        if status > 100 && !extra.contains("Contact:") {
            write!(text, "Contact: <{}>\r\n", self.contact())?;
        }
        text.push_str(extra);
        self.send(finish(&text, body))
    }

    /// All that went to and fro, for people.
    #[must_use]
    pub fn ladder(&self) -> String {
        let Some((began, ..)) = self.trace.first() else { return "nothing was said".to_owned() };
        let line = |(at, sent, text): &(Instant, bool, String)| {
            let arrow = if *sent { "<-" } else { "->" };
            let first = text.lines().next().unwrap_or_default();
            format!("{:>8.3} {arrow} {first}", at.duration_since(*began).as_secs_f64())
        };
        let from = self.trace.len().saturating_sub(40);
        self.trace[from..].iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// All that the gateway sent, one text after the other.
    #[must_use]
    pub fn received(&self) -> String {
        let texts = self.trace.iter().filter(|(_, sent, _)| !sent).map(|(_, _, text)| text.as_str());
        texts.collect::<Vec<_>>().join("\r\n")
    }

    /// Ends what is left of a script that went wrong or did not care for the end: refuses, agrees, forgets.
    ///
    /// # Errors
    /// When nothing can be sent.
    pub fn settle(&mut self, time: Duration) -> Result<()> {
        let deadline = Instant::now() + time;
        loop {
            let message = match self.waiting.pop_front() {
                Some(message) => Some(message),
                None => self.next(deadline.saturating_duration_since(Instant::now())).unwrap_or(None),
            };
            let Some(message) = message else { break };
            match message.method() {
                Some("INVITE") => self.respond(&message, 480, "Over", "over", "", "")?,
                Some("ACK") | None => {}
                Some(_) => self.respond(&message, 200, "OK", "over", "", "")?,
            }
        }
        self.waiting.clear();
        Ok(())
    }

    fn next(&mut self, limit: Duration) -> Result<Option<Message>> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(bytes) = self.link.receive(left)? else { return Ok(None) };
            // RFC 5626 4.4.1: empty lines keep a path alive.
            if bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
                continue;
            }
            let text = String::from_utf8_lossy(&bytes).into_owned();
            self.trace.push((Instant::now(), false, text.clone()));
            if self.seen.contains(&text) {
                self.repetitions += 1;
                continue;
            }
            let message = Message::read(&text).with_context(|| self.name.clone())?;
            check(&message).with_context(|| format!("{}: {text}", self.name))?;
            self.seen.push(text);
            return Ok(Some(message));
        }
    }
}

/// What every message needs (RFC 3261 8.1.1, 8.2.6.2, 20).
fn check(message: &Message) -> Result<()> {
    // What was malformed may lack what an answer copies.
    if message.status() == Some(400) {
        return Ok(());
    }
    for name in ["via", "from", "to", "call-id", "cseq"] {
        ensure!(message.header(name).is_some(), "no {name}");
    }
    for name in ["from", "to", "call-id", "cseq", "content-length", "max-forwards"] {
        ensure!(message.headers.iter().filter(|(known, _)| known == name).count() <= 1, "two {name}");
    }
    ensure!(message.tag("from").is_some(), "From without a tag");
    if let Some(method) = message.method() {
        ensure!(message.cseq().1 == method, "CSeq of another method");
        ensure!(message.branch().starts_with("z9hG4bK"), "a branch of RFC 2543");
        let hops: u32 = message.need("max-forwards")?.parse()?;
        ensure!((1..=70).contains(&hops), "Max-Forwards {hops}");
        ensure!(message.start.ends_with(" SIP/2.0"), "no version");
    }
    if message.method() == Some("INVITE") {
        ensure!(message.contact().is_some(), "INVITE without Contact");
    }
    ensure!(message.body.is_empty() || message.header("content-type").is_some(), "a body of no type");
    Ok(())
}

/// Adds the body and what is said of it.
pub(super) fn finish(head: &str, body: &str) -> String {
    let kind = if body.is_empty() || head.contains("Content-Type:") {
        ""
    } else {
        "Content-Type: application/sdp\r\n"
    };
    format!("{head}{kind}Content-Length: {}\r\n\r\n{body}", body.len())
}
