//! Both ends of all calls: one thread that sends a packet of speech every 20 ms from each and counts what comes.
//!
//! It looks at a socket only when it is about to send from it, so an end costs it a few system calls per packet.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use transcoder::WebRtcLeg;
use transcoder::codec::g711::Law;
use transcoder::leg::PayloadKind;
use transcoder::leg::webrtc::LegEvent;

use crate::speech::{Hearing, Payloads};

/// Ends take turns in this many groups within 20 ms, as calls do that began by chance.
const PHASES: usize = 4;
const PHASE: Duration = Duration::from_millis(5);
const DATAGRAM: usize = 2_048;
const RTP_HEADER: usize = 12;

/// What an end speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Opus over DTLS-SRTP.
    WebRtc,
    /// A-law over DTLS-SRTP.
    EdgeAlaw,
    /// Opus over plain RTP.
    Opus,
    /// A-law over plain RTP.
    Alaw,
}

impl Kind {
    /// Payload type, RTP clock ticks of 20 ms.
    fn rtp(self) -> (u8, u32) {
        match self {
            Kind::WebRtc | Kind::Opus => (111, 960),
            Kind::Alaw | Kind::EdgeAlaw => (8, 160),
        }
    }

    /// What a packet of a leg of the overlay carries.
    fn payload(self) -> PayloadKind {
        match self {
            Kind::EdgeAlaw => PayloadKind::G711(Law::A),
            Kind::WebRtc | Kind::Opus | Kind::Alaw => PayloadKind::Audio,
        }
    }

    /// Says whether a payload holds speech, not silence.
    fn is_voiced(self, payload: &[u8]) -> bool {
        match self {
            // Silence takes an encoder of 24 kbit/s a few octets, comfort noise even fewer.
            Kind::WebRtc | Kind::Opus => payload.len() >= 20,
            Kind::Alaw | Kind::EdgeAlaw => {
                let level: i32 = payload.iter().map(|&code| i32::from(Law::A.decode(code)).abs()).sum();
                level > 100 * payload.len() as i32
            }
        }
    }
}

/// What went through an end so far, in packets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow {
    pub(crate) kind: Kind,
    /// What it is to hear.
    pub(crate) hearing: Hearing,
    pub(crate) connected: bool,
    /// Times at which it had something to send.
    pub(crate) due: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Of those received, the ones with speech in them.
    pub(crate) voiced: u64,
}

enum Transport {
    Plain { remote: SocketAddr },
    WebRtc { local: SocketAddr, leg: Box<WebRtcLeg> },
}

/// One end of a call.
pub(crate) struct End {
    socket: UdpSocket,
    transport: Transport,
    payloads: Payloads,
    payload_type: u8,
    next: usize,
    timestamp: u32,
    flow: Flow,
}

impl End {
    /// An end that sends to `remote` at once.
    pub(crate) fn plain(
        kind: Kind,
        socket: UdpSocket,
        remote: SocketAddr,
        payloads: Payloads,
        hearing: Hearing,
    ) -> Result<Self> {
        Self::new(kind, socket, Transport::Plain { remote }, payloads, hearing)
    }

    /// Sends with another payload type than is usual, and expects it.
    pub(crate) fn with_payload_type(self, payload_type: u8) -> Self {
        Self { payload_type, ..self }
    }

    /// An end that sends once it is connected; its leg knows both descriptions.
    pub(crate) fn web_rtc(
        socket: UdpSocket,
        leg: WebRtcLeg,
        payloads: Payloads,
        hearing: Hearing,
    ) -> Result<Self> {
        let local = socket.local_addr()?;
        Self::new(Kind::WebRtc, socket, Transport::WebRtc { local, leg: Box::new(leg) }, payloads, hearing)
    }

    /// The same in A-law, which is not to come as Opus.
    pub(crate) fn g711(
        socket: UdpSocket,
        leg: WebRtcLeg,
        payloads: Payloads,
        hearing: Hearing,
    ) -> Result<Self> {
        let local = socket.local_addr()?;
        Self::new(Kind::EdgeAlaw, socket, Transport::WebRtc { local, leg: Box::new(leg) }, payloads, hearing)
    }

    fn new(
        kind: Kind,
        socket: UdpSocket,
        transport: Transport,
        payloads: Payloads,
        hearing: Hearing,
    ) -> Result<Self> {
        socket.set_nonblocking(true)?;
        let connected = matches!(transport, Transport::Plain { .. });
        let flow = Flow { kind, hearing, connected, due: 0, sent: 0, received: 0, voiced: 0 };
        Ok(Self { socket, transport, payloads, payload_type: kind.rtp().0, next: 0, timestamp: 0, flow })
    }

    /// Reads all that has come.
    fn receive(&mut self, now: Instant, buffer: &mut [u8]) {
        let (socket, flow) = (&self.socket, &mut self.flow);
        loop {
            let (length, source) = match socket.recv_from(buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // An ICMP error of an earlier packet: the socket is still good.
                Err(_) => continue,
            };
            let packet = &buffer[..length];
            match &mut self.transport {
                Transport::Plain { .. } => {
                    if length > RTP_HEADER && packet[0] >> 6 == 2 && packet[1] & 0x7f == self.payload_type {
                        flow.received += 1;
                        flow.voiced += u64::from(flow.kind.is_voiced(&packet[RTP_HEADER..]));
                    }
                }
                Transport::WebRtc { local, leg } => {
                    leg.handle_datagram(now, *local, source, packet, &mut |_, to, bytes| {
                        send(socket, to, bytes);
                    });
                }
            }
        }
        let Transport::WebRtc { leg, .. } = &mut self.transport else { return };
        if leg.poll_timeout().is_some_and(|at| at <= now) {
            leg.handle_timeout(now, &mut |_, to, bytes| send(socket, to, bytes));
        }
        while let Some(event) = leg.poll_event() {
            if let LegEvent::Packet(packet) = event
                && packet.kind == flow.kind.payload()
            {
                flow.received += 1;
                flow.voiced += u64::from(flow.kind.is_voiced(&packet.payload));
            }
        }
        flow.connected = leg.is_connected();
    }

    /// Sends the next 20 ms.
    fn send(&mut self, now: Instant, buffer: &mut [u8]) {
        let (socket, payload) = (&self.socket, &self.payloads[self.next]);
        let (_, step) = self.flow.kind.rtp();
        let sent = match &mut self.transport {
            _ if payload.is_empty() => false,
            Transport::Plain { remote } => {
                let packet = &mut buffer[..RTP_HEADER + payload.len()];
                packet[0] = 0x80;
                packet[1] = self.payload_type;
                packet[2..4].copy_from_slice(&(self.flow.sent as u16).to_be_bytes());
                packet[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
                packet[8..12].copy_from_slice(&u32::from(remote.port()).to_be_bytes());
                packet[RTP_HEADER..].copy_from_slice(payload);
                send(socket, *remote, packet);
                true
            }
            Transport::WebRtc { leg, .. } => {
                let kind = self.flow.kind.payload();
                leg.send(now, kind, self.timestamp, false, payload, &mut |_, to, bytes| {
                    send(socket, to, bytes);
                })
            }
        };
        self.flow.due += u64::from(!payload.is_empty());
        self.flow.sent += u64::from(sent);
        self.timestamp = self.timestamp.wrapping_add(step);
        self.next = (self.next + 1) % self.payloads.len();
    }
}

/// A packet that the system refuses is missing at the far end, and counted there.
fn send(socket: &UdpSocket, to: SocketAddr, bytes: &[u8]) {
    let _ = socket.send_to(bytes, to);
}

enum Order {
    Add(Box<End>),
    Flows(Sender<Vec<Flow>>),
    Clear,
}

/// The thread with all ends.
#[derive(Debug)]
pub(crate) struct Generator {
    orders: Sender<Order>,
}

impl Generator {
    /// Starts the thread. It ends with the last handle.
    pub(crate) fn start() -> Result<Self> {
        let (orders, inbox) = channel();
        thread::Builder::new().name("generator".to_owned()).spawn(move || run(&inbox))?;
        Ok(Self { orders })
    }

    /// Returns another handle.
    pub(crate) fn handle(&self) -> Self {
        Self { orders: self.orders.clone() }
    }

    /// Adds an end.
    pub(crate) fn add(&self, end: End) -> Result<()> {
        self.orders.send(Order::Add(Box::new(end))).ok().context("the generator is gone")
    }

    /// Returns what went through each end, in the order in which they were added.
    pub(crate) fn flows(&self) -> Result<Vec<Flow>> {
        let (answer, flows) = channel();
        self.orders.send(Order::Flows(answer)).ok().context("the generator is gone")?;
        Ok(flows.recv()?)
    }

    /// Drops all ends.
    pub(crate) fn clear(&self) -> Result<()> {
        self.orders.send(Order::Clear).ok().context("the generator is gone")
    }
}

fn run(inbox: &Receiver<Order>) {
    let mut ends: Vec<End> = Vec::new();
    let mut buffer = [0; DATAGRAM];
    let mut next = Instant::now();
    for phase in (0..PHASES).cycle() {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        next += PHASE;
        loop {
            match inbox.try_recv() {
                Ok(Order::Add(end)) => ends.push(*end),
                Ok(Order::Clear) => ends.clear(),
                Ok(Order::Flows(answer)) => {
                    // Whoever asked may have given up.
                    let _ = answer.send(ends.iter().map(|end| end.flow).collect());
                }
                Err(std::sync::mpsc::TryRecvError::Empty) => break,
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
            }
        }
        for (index, end) in ends.iter_mut().enumerate() {
            let now = Instant::now();
            let due = index % PHASES == phase;
            // ICE and DTLS go back and forth: they are not kept waiting.
            if due || !end.flow.connected {
                end.receive(now, &mut buffer);
            }
            if due && end.flow.connected {
                end.send(now, &mut buffer);
            }
        }
    }
}

/// Binds an even port for RTP and the odd one above it for RTCP (RFC 3550 11).
pub(crate) fn bind_pair(address: Ipv4Addr) -> Result<(UdpSocket, UdpSocket)> {
    for _ in 0..1_000 {
        let rtp = UdpSocket::bind((address, 0))?;
        let port = rtp.local_addr()?.port();
        if port % 2 == 0
            && let Ok(rtcp) = UdpSocket::bind((address, port + 1))
        {
            return Ok((rtp, rtcp));
        }
    }
    anyhow::bail!("no free pair of ports on {address}")
}
