//! rtpengine in user space, spoken to in its own control protocol: bencode over UDP.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tests::lab::{self, Process, ports, until};

use crate::generator::{End, Generator, Kind, bind_pair};
use crate::speech::Speech;
use crate::usage::{Round, Shortfall, measure};

/// The first time its package is fetched, too.
const START: Duration = Duration::from_secs(180);

/// A running rtpengine.
pub(crate) struct Rtpengine {
    process: Process,
    control: UdpSocket,
    address: Ipv4Addr,
    requests: AtomicU64,
}

/// How many calls it is given beside so many of ours: it carries a third of them, and measures worst when it cannot keep
/// up.
pub(crate) fn calls_beside(calls: usize) -> usize {
    (calls / 2).max(5)
}

/// How often a request is said again; each waits 5 s for its response.
const REPEATS: usize = 3;

impl Rtpengine {
    /// Starts it through the laboratory's script and waits until it answers.
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let address = ports::address();
        let mut command = Command::new(lab::scripts().join("rtpengine.sh"));
        command.arg("run").arg(folder.join("rtpengine")).env("RTPENGINE_ADDRESS", address.to_string());
        let process = Process::spawn("rtpengine", folder, &command)?;
        let control = UdpSocket::bind((address, 0))?;
        control.set_read_timeout(Some(Duration::from_millis(500)))?;
        let engine = Self { process, control, address, requests: AtomicU64::new(1) };
        until("rtpengine answers", START, || engine.ask([("command", text("ping"))]).ok())?;
        engine.control.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(engine)
    }

    /// A round with `calls` calls, or with half as many where it cannot carry them, and so on: the figures are per call.
    pub(crate) fn round_or_fewer(
        &self,
        generator: &Generator,
        speech: &Speech,
        calls: &mut usize,
        seconds: u64,
    ) -> Result<Round> {
        loop {
            match self.round(generator, speech, *calls, seconds) {
                Err(error) if error.is::<Shortfall>() && *calls >= 10 => {
                    println!("rtpengine with {calls} calls: {error}");
                    *calls /= 2;
                }
                outcome => return outcome.context("rtpengine"),
            }
        }
    }

    /// Sets up calls between Opus and A-law, measures while all of them talk, and takes them down.
    pub(crate) fn round(
        &self,
        generator: &Generator,
        speech: &Speech,
        count: usize,
        seconds: u64,
    ) -> Result<Round> {
        let ends = ports::address();
        let mut rtcp = Vec::new();
        for index in 0..count {
            rtcp.push(self.call(&format!("call{index}"), ends, generator, speech)?);
        }
        let outcome = measure("rtpengine", &self.process, generator, count, seconds);
        generator.clear()?;
        for index in 0..count {
            let call = format!("call{index}");
            self.ask([("command", text("delete")), ("call-id", text(&call)), ("from-tag", text("caller"))])?;
        }
        outcome
    }

    /// Sets up one call. Returns the sockets for RTCP, which nobody reads.
    fn call(
        &self,
        name: &str,
        ends: Ipv4Addr,
        generator: &Generator,
        speech: &Speech,
    ) -> Result<(UdpSocket, UdpSocket)> {
        let ((caller, caller_rtcp), (callee, callee_rtcp)) = (bind_pair(ends)?, bind_pair(ends)?);
        let offer = description(&caller, "111", "a=rtpmap:111 opus/48000/2\r\n")?;
        let list = |name: &str| Value::List(vec![text(name)]);
        let codec = dictionary([
            ("mask", list("opus")),
            ("transcode", list("PCMA")),
            // The bit rate of the other; without this it chooses more.
            ("set", list("opus/48000/2/24000")),
        ]);
        let common = || [("call-id", text(name)), ("from-tag", text("caller")), ("ICE", text("remove"))];
        let request = [("command", text("offer")), ("sdp", text(&offer)), ("codec", codec)];
        let offered = self.ask(request.into_iter().chain(common()))?;
        let to_callee = media_of(&offered)?;
        let answer = description(&callee, "8", "a=rtpmap:8 PCMA/8000\r\n")?;
        let request = [("command", text("answer")), ("to-tag", text("callee")), ("sdp", text(&answer))];
        let answered = self.ask(request.into_iter().chain(common()))?;
        ensure!(answered.contains("opus/48000"), "no Opus in the answer:\n{answered}");
        let to_caller = media_of(&answered)?;
        generator.add(End::plain(Kind::Opus, caller, to_caller, speech.opus.clone(), speech.hearing.1)?)?;
        generator.add(End::plain(Kind::Alaw, callee, to_callee, speech.alaw.clone(), speech.hearing.0)?)?;
        Ok((caller_rtcp, callee_rtcp))
    }

    /// Sends a request and returns the SDP of the response, empty where it has none.
    fn ask(&self, request: impl IntoIterator<Item = (&'static str, Value)>) -> Result<String> {
        // It answers a cookie that it has seen with what it said the first time.
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let cookie = format!("{number} ");
        let mut message = cookie.clone().into_bytes();
        dictionary(request).encode(&mut message);
        self.control.send_to(&message, (self.address, 2223))?;
        let mut buffer = [0; 65_536];
        let mut repeats = 0;
        let response = loop {
            let length = match self.control.recv(&mut buffer) {
                Ok(length) => length,
                // The control protocol is datagrams: what is lost is said again, with the same cookie.
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && repeats < REPEATS => {
                    repeats += 1;
                    self.control.send_to(&message, (self.address, 2223))?;
                    continue;
                }
                Err(error) => return Err(error).context("rtpengine does not answer"),
            };
            // A response to a request that was given up may come now.
            if let Some(response) = buffer[..length].strip_prefix(cookie.as_bytes()) {
                break response;
            }
        };
        let (Value::Dictionary(response), _) = Value::decode(response)? else { bail!("no dictionary") };
        let field = |name: &str| match response.get(name.as_bytes()) {
            Some(Value::Text(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            _ => String::new(),
        };
        ensure!(field("result") != "error", "rtpengine: {}", field("error-reason"));
        Ok(field("sdp"))
    }
}

fn description(socket: &UdpSocket, payload_type: &str, lines: &str) -> Result<String> {
    let local = socket.local_addr()?;
    let (ip, port) = (local.ip(), local.port());
    Ok(format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP {payload_type}\r\n\
         {lines}a=ptime:20\r\na=sendrecv\r\n"
    ))
}

/// Reads where a description wants media.
fn media_of(sdp: &str) -> Result<SocketAddr> {
    let after = |prefix: &str| {
        let found = sdp.lines().find_map(|line| line.strip_prefix(prefix));
        found
            .and_then(|rest| rest.split_whitespace().next())
            .with_context(|| format!("no {prefix:?} in\n{sdp}"))
    };
    Ok(SocketAddr::new(after("c=IN IP4 ")?.parse()?, after("m=audio ")?.parse()?))
}

/// A value of bencode.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Integer(i64),
    Text(Vec<u8>),
    List(Vec<Value>),
    Dictionary(BTreeMap<Vec<u8>, Value>),
}

fn text(text: &str) -> Value {
    Value::Text(text.as_bytes().to_vec())
}

fn dictionary(entries: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    Value::Dictionary(entries.into_iter().map(|(key, value)| (key.as_bytes().to_vec(), value)).collect())
}

impl Value {
    fn encode(&self, out: &mut Vec<u8>) {
        let put_text = |text: &[u8], out: &mut Vec<u8>| {
            out.extend(format!("{}:", text.len()).bytes());
            out.extend(text);
        };
        match self {
            Value::Integer(number) => out.extend(format!("i{number}e").bytes()),
            Value::Text(text) => put_text(text, out),
            Value::List(items) => {
                out.push(b'l');
                items.iter().for_each(|item| item.encode(out));
                out.push(b'e');
            }
            Value::Dictionary(entries) => {
                out.push(b'd');
                for (key, value) in entries {
                    put_text(key, out);
                    value.encode(out);
                }
                out.push(b'e');
            }
        }
    }

    /// Reads one value and returns what follows it.
    fn decode(bytes: &[u8]) -> Result<(Value, &[u8])> {
        let (first, rest) = bytes.split_first().context("cut short")?;
        match first {
            b'i' => {
                let (number, rest) = until_byte(rest, b'e')?;
                Ok((Value::Integer(number.parse()?), rest))
            }
            b'l' => {
                let (mut items, mut rest) = (Vec::new(), rest);
                while rest.first() != Some(&b'e') {
                    let (item, after) = Value::decode(rest)?;
                    items.push(item);
                    rest = after;
                }
                Ok((Value::List(items), &rest[1..]))
            }
            b'd' => {
                let (mut entries, mut rest) = (BTreeMap::new(), rest);
                while rest.first() != Some(&b'e') {
                    let (Value::Text(key), after) = Value::decode(rest)? else {
                        bail!("a key that is no text")
                    };
                    let (value, after) = Value::decode(after)?;
                    entries.insert(key, value);
                    rest = after;
                }
                Ok((Value::Dictionary(entries), &rest[1..]))
            }
            _ => {
                let (length, rest) = until_byte(bytes, b':')?;
                let (text, rest) = rest.split_at_checked(length.parse()?).context("cut short")?;
                Ok((Value::Text(text.to_vec()), rest))
            }
        }
    }
}

fn until_byte(bytes: &[u8], end: u8) -> Result<(&str, &[u8])> {
    let at = bytes.iter().position(|&byte| byte == end).context("cut short")?;
    Ok((std::str::from_utf8(&bytes[..at])?, &bytes[at + 1..]))
}
