//! The sockets and relays of one call.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use p2p_edge::turn::{Class, Message, Method, TransactionId, Writer, attribute};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use transcoder::{LocalCandidate, Outgoing};

use super::plan::Plan;
use super::server::{IceServer, IceTransport};
use super::stream::{self, Connecting, Stream};
use super::turn::{Credentials, Input, TurnClient, TurnEvent};

/// Waits before a question to a STUN server is repeated: within the time that a call waits for answers, then less and
/// less often.
const FIRST_WAIT: Duration = Duration::from_millis(80);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How often the mapping of a socket is looked at once it is known. It keeps the mapping, which RFC 4787 lets a NAT forget
/// after two minutes and many do after 30 s, and finds out when the NAT has made another one.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Relays of one call, with those that take the place of lost ones.
const MAX_RELAYS: usize = 12;

/// What a network has for its owner.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// A datagram came from `source`, on the address `local` of this machine or a relayed one. It lies at `range` of the
    /// buffer.
    Datagram { local: SocketAddr, source: SocketAddr, range: Range<usize> },
    /// A candidate was found. `instead`: a relayed address that carries nothing any more.
    Found { candidate: LocalCandidate, instead: Option<SocketAddr> },
}

struct Port {
    receiver: UdpSocket,
    /// The same socket. Tokio's own refuses to send until its reactor has seen the socket writable,
    /// which would cost the first connectivity check and with it a quarter of a second.
    sender: std::net::UdpSocket,
    local: SocketAddr,
    /// What was found already.
    mapped: Vec<SocketAddr>,
}

/// A question to a STUN server, asked again and again.
struct Probe {
    port: usize,
    server: SocketAddr,
    id: TransactionId,
    sent: u32,
    due: Instant,
    mapped: Option<SocketAddr>,
}

enum Way {
    Port(usize),
    Connecting(Connecting),
    Stream(Stream),
    Gone,
}

struct Relay {
    server: IceServer,
    credentials: Credentials,
    way: Way,
    /// Absent while the way is being made.
    client: Option<TurnClient>,
    /// The relayed address in whose place this one will come.
    instead: Option<SocketAddr>,
}

/// The sockets of one call, and what servers say of them and relay for them.
pub(crate) struct Network {
    ports: Vec<Port>,
    probes: Vec<Probe>,
    relays: Vec<Relay>,
    /// Relays by streams that were not asked for yet, and when they will be.
    streams: Option<(Instant, Vec<(IceServer, Credentials)>)>,
    udp_heard: bool,
    /// Whether anything at all was asked.
    asked: bool,
    found: VecDeque<Arrival>,
}

fn new_id() -> TransactionId {
    let mut id = [0; 12];
    // Without a source of randomness nothing else here works either.
    let _ = getrandom::fill(&mut id);
    id
}

impl Network {
    /// Binds a socket on each address, on ports that the system chooses. An address that cannot be bound is left
    /// out.
    ///
    /// # Errors
    /// When none can be bound: with what was wrong with the last.
    pub(crate) fn open(addresses: &[IpAddr]) -> io::Result<Self> {
        let mut ports = Vec::with_capacity(addresses.len());
        let mut wrong = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            match Port::bind(*address) {
                Ok(port) => ports.push(port),
                Err(error) => wrong = error,
            }
        }
        if ports.is_empty() {
            return Err(wrong);
        }
        Ok(Self {
            ports,
            probes: Vec::new(),
            relays: Vec::new(),
            streams: None,
            udp_heard: false,
            asked: false,
            found: VecDeque::new(),
        })
    }

    /// Returns the addresses of the sockets: the host candidates.
    pub(crate) fn local(&self) -> Vec<SocketAddr> {
        self.ports.iter().map(|port| port.local).collect()
    }

    /// Asks the servers of a plan that was made for [`local`](Self::local).
    pub(crate) fn ask(&mut self, now: Instant, plan: Plan) {
        self.asked |= !plan.is_empty();
        for (port, server) in plan.probes {
            self.probes.push(Probe { port, server, id: new_id(), sent: 0, due: now, mapped: None });
        }
        for (port, server, credentials) in plan.relays {
            self.allocate(now, port, server, credentials, None);
        }
        if !plan.streams.is_empty() {
            self.streams = Some((now + plan.stream_after, plan.streams));
        }
        self.handle_timeout(now);
    }

    /// Asks for a relay over UDP.
    fn allocate(
        &mut self,
        now: Instant,
        port: usize,
        server: IceServer,
        credentials: Credentials,
        instead: Option<SocketAddr>,
    ) {
        if self.relays.len() >= MAX_RELAYS {
            return;
        }
        let ipv6 = server.address.is_ipv6();
        let client = TurnClient::allocate(now, credentials.clone(), false, ipv6, new_id);
        self.relays.push(Relay { server, credentials, way: Way::Port(port), client: Some(client), instead });
        self.drain(now, self.relays.len() - 1);
    }

    /// Says whether waiting longer would hardly find more.
    pub(crate) fn is_settled(&self) -> bool {
        if !self.asked {
            return true;
        }
        let mut by_udp = self.relays.iter().filter(|relay| matches!(relay.way, Way::Port(_))).peekable();
        let stands = |relay: &Relay| relay.client.as_ref().is_some_and(|client| client.relayed().is_some());
        if self.relays.iter().any(|relay| !matches!(relay.way, Way::Port(_)) && stands(relay)) {
            return true;
        }
        let is_known = |port: usize| {
            let mut probes = self.probes.iter().filter(|probe| probe.port == port).peekable();
            probes.peek().is_none() || probes.any(|probe| probe.mapped.is_some())
        };
        let relayed = by_udp.peek().is_none()
            || by_udp.clone().any(stands)
            || by_udp.all(|relay| relay.client.as_ref().is_none_or(TurnClient::is_over));
        !self.probes.is_empty() && (0..self.ports.len()).all(is_known) && relayed
    }

    /// Says whether servers were asked over UDP and none has answered.
    pub(crate) fn is_udp_dead(&self) -> bool {
        !self.probes.is_empty() && !self.udp_heard
    }

    /// Says by which server and transport what is sent from a local address is relayed; `None` where it is not.
    pub(crate) fn relay_of(&self, local: SocketAddr) -> Option<(SocketAddr, &'static str)> {
        let relay = self.relays.iter().find(|relay| relay.address() == Some(local))?;
        Some((relay.server.address, relay.server.transport.as_str()))
    }

    /// Sends or drops: the network owes us nothing, and we owe it no queue.
    pub(crate) fn send(&mut self, now: Instant, outgoing: &Outgoing<'_>) {
        if let Some(port) = self.ports.iter().find(|port| port.local == outgoing.local) {
            let _ = port.sender.send_to(outgoing.bytes, outgoing.destination);
            return;
        }
        let relay = self.relays.iter_mut().find(|relay| relay.address() == Some(outgoing.local));
        let Some(Relay { server, way, client: Some(client), .. }) = relay else { return };
        client.send(now, outgoing.destination, outgoing.bytes, &mut |bytes| {
            way.write(&self.ports, server.address, bytes);
        });
        while let Some(bytes) = client.poll_transmit() {
            way.write(&self.ports, server.address, &bytes);
        }
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let probes = self.probes.iter().map(|probe| probe.due);
        let clients = self.relays.iter().filter_map(|relay| relay.client.as_ref()?.poll_timeout());
        probes.chain(clients).chain(self.streams.as_ref().map(|(at, _)| *at)).min()
    }

    /// Repeats what was not answered, keeps mappings and allocations alive.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let mut question = Vec::with_capacity(20);
        for probe in self.probes.iter_mut().filter(|probe| probe.due <= now) {
            if probe.mapped.is_some() && probe.sent == 0 {
                probe.id = new_id();
            }
            Writer::new(&mut question, Class::Request, Method::Binding, probe.id);
            let _ = self.ports[probe.port].sender.send_to(&question, probe.server);
            probe.due = now + (FIRST_WAIT * 2u32.pow(probe.sent.min(8))).min(LONGEST_WAIT);
            probe.sent += 1;
        }
        for at in 0..self.relays.len() {
            if let Some(client) = &mut self.relays[at].client {
                client.handle_timeout(now);
            }
            self.drain(now, at);
        }
        if let Some((_, streams)) = self.streams.take_if(|(at, _)| *at <= now)
            && !self.udp_heard
        {
            for (server, credentials) in streams {
                let tls = match &server.transport {
                    IceTransport::Tls(name) => Some(name.clone()),
                    IceTransport::Udp | IceTransport::Tcp => None,
                };
                let way = Way::Connecting(stream::connect(server.address, tls));
                self.relays.push(Relay { server, credentials, way, client: None, instead: None });
            }
        }
    }

    /// Waits for the next datagram or candidate. Nothing is lost where the wait is given up.
    pub(crate) async fn receive(&mut self, packet: &mut [u8]) -> Arrival {
        poll_fn(|context| self.poll_receive(context, packet)).await
    }

    fn poll_receive(&mut self, context: &mut Context<'_>, packet: &mut [u8]) -> Poll<Arrival> {
        let now = Instant::now();
        for at in 0..self.ports.len() {
            loop {
                let mut room = ReadBuf::new(packet);
                match self.ports[at].receiver.poll_recv_from(context, &mut room) {
                    Poll::Ready(Ok(source)) => {
                        let length = room.filled().len();
                        if let Some(arrival) = self.sort(now, at, source, &packet[..length]) {
                            return Poll::Ready(arrival);
                        }
                    }
                    // An ICMP error of an earlier send shows up here; ICE finds out by itself.
                    Poll::Ready(Err(_)) => {}
                    Poll::Pending => break,
                }
            }
        }
        for at in 0..self.relays.len() {
            if let Some(arrival) = self.poll_stream(now, context, at, packet) {
                return Poll::Ready(arrival);
            }
        }
        self.found.pop_front().map_or(Poll::Pending, Poll::Ready)
    }

    /// Sorts what came on a socket: the servers' words are taken here, all else is the owner's.
    fn sort(&mut self, now: Instant, port: usize, source: SocketAddr, bytes: &[u8]) -> Option<Arrival> {
        for at in 0..self.relays.len() {
            let relay = &mut self.relays[at];
            let is_here = matches!(relay.way, Way::Port(of) if of == port) && relay.server.address == source;
            let Some(client) = relay.client.as_mut().filter(|_| is_here) else { continue };
            let relayed = client.relayed();
            match client.handle_input(now, bytes) {
                Input::Data { peer, range } => {
                    return relayed.map(|local| Arrival::Datagram { local, source: peer, range });
                }
                Input::Taken => {
                    self.udp_heard = true;
                    self.drain(now, at);
                    return None;
                }
                // Another allocation there may know it.
                Input::Foreign => {}
            }
        }
        if self.answered(now, port, source, bytes) {
            return None;
        }
        Some(Arrival::Datagram { local: self.ports[port].local, source, range: 0..bytes.len() })
    }

    /// Takes the answer to a probe.
    fn answered(&mut self, now: Instant, port: usize, source: SocketAddr, bytes: &[u8]) -> bool {
        let asked = |probe: &&mut Probe| probe.port == port && probe.server == source;
        let Ok(message @ Message { method: Method::Binding, .. }) = Message::parse(bytes) else {
            return false;
        };
        let probe = self.probes.iter_mut().filter(asked).find(|probe| probe.id == message.transaction());
        let (Some(probe), Class::Success) = (probe, message.class) else { return false };
        let Some(mapped) = message.address(attribute::XOR_MAPPED_ADDRESS) else { return true };
        self.udp_heard = true;
        (probe.sent, probe.due) = (0, now + LOOK_AGAIN);
        let before = probe.mapped.replace(mapped);
        let known = &mut self.ports[port];
        if !known.mapped.contains(&mapped) && known.mapped.len() < 8 {
            known.mapped.push(mapped);
            if mapped != known.local {
                let candidate = LocalCandidate::ServerReflexive { address: mapped, base: known.local };
                self.found.push_back(Arrival::Found { candidate, instead: None });
            }
        }
        if before.is_some_and(|before| before != mapped) {
            self.remapped(now, port);
        }
        true
    }

    /// The NAT has given a socket another mapping: servers know the allocations made through it by the old one.
    fn remapped(&mut self, now: Instant, port: usize) {
        tracing::debug!(local = %self.ports[port].local, "the NAT has another mapping for the socket");
        let mut again = Vec::new();
        for relay in self.relays.iter_mut().filter(|relay| matches!(relay.way, Way::Port(of) if of == port)) {
            if let Some(client) = relay.client.as_mut().filter(|client| !client.is_over()) {
                let instead = client.relayed().or(relay.instead);
                client.lost();
                again.push((relay.server.clone(), relay.credentials.clone(), instead));
            }
        }
        self.relays.retain(|relay| !relay.client.as_ref().is_some_and(TurnClient::is_over));
        for (server, credentials, instead) in again {
            self.allocate(now, port, server, credentials, instead);
        }
    }

    /// Moves a relay by a stream on, and returns what it has brought.
    fn poll_stream(
        &mut self,
        now: Instant,
        context: &mut Context<'_>,
        at: usize,
        packet: &mut [u8],
    ) -> Option<Arrival> {
        let relay = &mut self.relays[at];
        if let Way::Connecting(connecting) = &mut relay.way {
            match connecting.as_mut().poll(context) {
                Poll::Pending => return None,
                Poll::Ready(Ok(stream)) => {
                    let (credentials, ipv6) = (relay.credentials.clone(), relay.server.address.is_ipv6());
                    relay.client = Some(TurnClient::allocate(now, credentials, true, ipv6, new_id));
                    relay.way = Way::Stream(stream);
                    self.drain(now, at);
                }
                Poll::Ready(Err(error)) => {
                    tracing::debug!(server = %relay.server.address, %error, "no connection to the relay");
                    relay.way = Way::Gone;
                }
            }
        }
        loop {
            let Relay { way, client, .. } = &mut self.relays[at];
            let (Way::Stream(stream), Some(client)) = (&mut *way, client) else { return None };
            let written = stream.poll_write(context);
            let frame = match stream.poll_frame(context) {
                Poll::Ready(Ok(frame)) => frame,
                Poll::Pending if !matches!(written, Poll::Ready(Err(_))) => return None,
                Poll::Pending | Poll::Ready(Err(_)) => {
                    *way = Way::Gone;
                    client.lost();
                    self.drain(now, at);
                    return None;
                }
            };
            let local = client.relayed();
            match (client.handle_input(now, frame), local) {
                (Input::Data { peer, range }, Some(local)) => {
                    let bytes = frame.get(range).unwrap_or_default();
                    // One that is too long for the buffer would be too long for UDP as well.
                    let Some(room) = packet.get_mut(..bytes.len()) else { continue };
                    room.copy_from_slice(bytes);
                    return Some(Arrival::Datagram { local, source: peer, range: 0..bytes.len() });
                }
                _ => self.drain(now, at),
            }
        }
    }

    /// Sends what the client of a relay has to say, and takes what has become of it.
    fn drain(&mut self, now: Instant, at: usize) {
        let Relay { server, way, client, instead, .. } = &mut self.relays[at];
        let Some(client) = client else { return };
        while let Some(bytes) = client.poll_transmit() {
            way.write(&self.ports, server.address, &bytes);
        }
        let mut stands = false;
        while let Some(event) = client.poll_event() {
            match event {
                TurnEvent::Allocated { relayed } => {
                    let base = match way {
                        Way::Port(port) => self.ports[*port].local,
                        Way::Stream(stream) => stream.local,
                        Way::Connecting(_) | Way::Gone => continue,
                    };
                    stands = !matches!(way, Way::Port(_));
                    let candidate = LocalCandidate::Relayed { address: relayed, base };
                    self.found.push_back(Arrival::Found { candidate, instead: instead.take() });
                }
                TurnEvent::Failed { reason } => {
                    tracing::debug!(server = %server.address, transport = server.transport.as_str(), reason, "no relay");
                }
            }
        }
        if stands {
            self.keep_stream(now, at);
        }
    }

    /// One relay by a stream is enough: the others are left.
    fn keep_stream(&mut self, now: Instant, kept: usize) {
        for (at, relay) in self.relays.iter_mut().enumerate() {
            if at != kept && !matches!(relay.way, Way::Port(_)) {
                relay.close(now, &self.ports);
            }
        }
    }

    /// Gives back what servers keep for this call.
    pub(crate) fn close(&mut self, now: Instant) {
        for relay in &mut self.relays {
            relay.close(now, &self.ports);
        }
    }
}

impl Port {
    fn bind(address: IpAddr) -> io::Result<Self> {
        let sender = std::net::UdpSocket::bind((address, 0))?;
        sender.set_nonblocking(true)?;
        let local = sender.local_addr()?;
        let receiver = UdpSocket::from_std(sender.try_clone()?)?;
        Ok(Self { receiver, sender, local, mapped: Vec::new() })
    }
}

impl Relay {
    fn address(&self) -> Option<SocketAddr> {
        self.client.as_ref()?.relayed()
    }

    fn close(&mut self, now: Instant, ports: &[Port]) {
        if let Some(client) = &mut self.client {
            client.close(now);
            while let Some(bytes) = client.poll_transmit() {
                self.way.write(ports, self.server.address, &bytes);
            }
        }
        if let Way::Stream(stream) = &mut self.way {
            // What does not go out at once is lost, and the server finds the connection closed.
            let _ = stream.poll_write(&mut Context::from_waker(Waker::noop()));
        }
        if !matches!(self.way, Way::Port(_)) {
            self.way = Way::Gone;
        }
    }
}

impl Way {
    fn write(&mut self, ports: &[Port], server: SocketAddr, bytes: &[u8]) {
        match self {
            Way::Port(port) => drop(ports[*port].sender.send_to(bytes, server)),
            // Goes out with the next look at the stream, which follows each turn of the task.
            Way::Stream(stream) => stream.write(bytes),
            Way::Connecting(_) | Way::Gone => {}
        }
    }
}
