//! Both ends of a call: an overlay user and a telephone, which speak at once and write down what they hear.

use std::io::ErrorKind;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use call_model::{Codec, LegQuality};
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use transcoder::codec::g711::Law;
use transcoder::{EdgeCodec, Phone, PhoneConfig, PhoneEvent, WebRtcLeg};

use crate::script::{FRAME, RATE, Script};

const TICK: Duration = Duration::from_millis(20);
const DATAGRAM: usize = 2_048;
const RTP_HEADER: usize = 12;
/// RFC 3551 6: PCMA.
const PCMA: u8 = 8;
/// The synchronisation source of the telephone (RFC 3550 8).
const SOURCE: u32 = 0x0ca5_e0a1;

/// When all begin to speak, and for how many ticks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begin {
    pub(crate) at: Instant,
    pub(crate) ticks: usize,
}

/// What was heard from the beginning on.
#[derive(Debug)]
pub(crate) struct Heard {
    /// By the telephone, from the overlay user.
    pub(crate) telephone: Vec<i16>,
    /// By the overlay user, from the telephone.
    pub(crate) user: Vec<i16>,
    /// What the overlay user measured of what came to it.
    pub(crate) quality: LegQuality,
}

/// The two ends of a call, in a thread.
#[derive(Debug)]
pub(crate) struct Ends {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<Heard>>,
}

#[derive(Debug, Default)]
struct Shared {
    connected: AtomicBool,
    begin: OnceLock<Begin>,
    stop: AtomicBool,
}

impl Ends {
    /// Starts them: the user on a leg that knows both descriptions, and the telephone, which sends RTP to `remote`.
    pub(crate) fn start(
        socket: std::net::UdpSocket,
        leg: WebRtcLeg,
        telephone: std::net::UdpSocket,
        remote: SocketAddrV4,
        script: Arc<Script>,
        seed: u64,
    ) -> Result<Self> {
        // Opus on the overlay, whatever the gateway would like better.
        let config = PhoneConfig { edge: EdgeCodec::Never, ..PhoneConfig::new(RATE) };
        let phone = Phone::new(config, leg, seed, Instant::now())?;
        let local = socket.local_addr()?;
        let shared = Arc::new(Shared::default());
        let mut run = Run {
            phone,
            socket: non_blocking(socket)?,
            local,
            telephone: Telephone {
                socket: non_blocking(telephone)?,
                remote: remote.into(),
                sequence: seed as u16,
                timestamp: (seed >> 16) as u32,
                first: None,
                strangers: 0,
                heard: Vec::new(),
            },
            heard: Vec::new(),
            script,
            shared: Arc::clone(&shared),
        };
        let thread = thread::Builder::new().name("ends".to_owned()).spawn(move || {
            run.run()?;
            run.finish()
        })?;
        Ok(Self { shared, thread })
    }

    /// Whether media is up.
    pub(crate) fn is_connected(&self) -> bool {
        self.shared.connected.load(Ordering::Relaxed)
    }

    /// Says when to begin.
    pub(crate) fn begin(&self, begin: Begin) -> Result<()> {
        ensure!(self.shared.begin.set(begin).is_ok(), "they have begun");
        Ok(())
    }

    /// Waits until all is said, and returns what was heard.
    pub(crate) fn heard(self) -> Result<Heard> {
        if self.shared.begin.get().is_none() {
            self.shared.stop.store(true, Ordering::Relaxed);
        }
        match self.thread.join() {
            Ok(heard) => heard,
            Err(_) => bail!("the ends of a call panicked"),
        }
    }
}

fn non_blocking(socket: std::net::UdpSocket) -> Result<UdpSocket> {
    socket.set_nonblocking(true)?;
    Ok(UdpSocket::from_std(socket))
}

struct Run {
    phone: Phone,
    socket: UdpSocket,
    local: SocketAddr,
    telephone: Telephone,
    heard: Vec<i16>,
    script: Arc<Script>,
    shared: Arc<Shared>,
}

impl Run {
    fn run(&mut self) -> Result<()> {
        let mut poll = Poll::new()?;
        poll.registry().register(&mut self.socket, Token(0), Interest::READABLE)?;
        poll.registry().register(&mut self.telephone.socket, Token(1), Interest::READABLE)?;
        let mut events = Events::with_capacity(8);
        let mut next = Instant::now();
        let mut said = None;
        while !self.shared.stop.load(Ordering::Relaxed) {
            let due = self.phone.poll_timeout().map_or(next, |at| at.min(next));
            match poll.poll(&mut events, Some(due.saturating_duration_since(Instant::now()))) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => outcome?,
            }
            self.receive();
            let socket = &self.socket;
            self.phone.handle_timeout(Instant::now(), &mut |out| send(socket, out.destination, out.bytes));
            self.take_events()?;
            // Ticks that are late are made up for: media time goes by ticks.
            while next <= Instant::now() {
                if let Some(begin) = self.shared.begin.get().filter(|begin| begin.at <= next) {
                    let said = said.get_or_insert(0);
                    if *said == begin.ticks {
                        return Ok(());
                    }
                    self.telephone.open(begin.at, begin.ticks);
                    self.tick(Some(*said));
                    *said += 1;
                } else {
                    self.tick(None);
                }
                next += TICK;
            }
        }
        bail!("it never began")
    }

    fn receive(&mut self) {
        let mut buffer = [0; DATAGRAM];
        let (socket, local) = (&self.socket, self.local);
        while let Some((length, source)) = read(socket, &mut buffer) {
            let out = &mut |out: transcoder::Outgoing<'_>| send(socket, out.destination, out.bytes);
            self.phone.handle_datagram(Instant::now(), local, source, &buffer[..length], out);
        }
        while let Some((length, _)) = read(&self.telephone.socket, &mut buffer) {
            self.telephone.receive(Instant::now(), &buffer[..length]);
        }
    }

    fn take_events(&mut self) -> Result<()> {
        while let Some(event) = self.phone.poll_event() {
            match event {
                PhoneEvent::Connected => self.shared.connected.store(true, Ordering::Relaxed),
                PhoneEvent::Silent => bail!(
                    "the user hears nothing any more, after {:.1} s",
                    self.heard.len() as f64 / f64::from(RATE)
                ),
                PhoneEvent::Failed { failure } => bail!("media failed: {}", failure.as_str()),
                PhoneEvent::FirstPacket | PhoneEvent::Dtmf { .. } => {}
            }
        }
        Ok(())
    }

    /// 20 ms of both: they listen, then speak.
    fn tick(&mut self, said: Option<usize>) {
        const SILENCE: [i16; FRAME] = [0; FRAME];
        let mut loudspeaker = SILENCE;
        self.phone.read_frame(&mut loudspeaker);
        if said.is_some() {
            self.heard.extend(loudspeaker);
        }
        let frame = said.map_or(&SILENCE[..], |tick| self.script.frame(tick));
        if self.phone.is_connected() {
            let socket = &self.socket;
            self.phone
                .write_frame(Instant::now(), frame, &mut |out| send(socket, out.destination, out.bytes));
        }
        self.telephone.speak(frame);
    }

    fn finish(self) -> Result<Heard> {
        let codecs = (self.phone.sends(), self.phone.receives());
        ensure!(codecs == (Codec::Opus, Codec::Opus), "the overlay spoke {codecs:?}");
        ensure!(self.telephone.strangers == 0, "the gateway changed its source in the middle of a call");
        let quality = self.phone.quality();
        Ok(Heard { telephone: self.telephone.heard, user: self.heard, quality })
    }
}

/// A telephone behind a trunk, which no packet is lost on: what comes is played where its timestamp says.
struct Telephone {
    socket: UdpSocket,
    remote: SocketAddr,
    sequence: u16,
    timestamp: u32,
    /// The first packet: when it came, its source and its timestamp.
    first: Option<(Instant, u32, u32)>,
    /// Packets of another source than the first.
    strangers: u64,
    heard: Vec<i16>,
}

impl Telephone {
    /// Gets ready to hear from `begin` on. May be called again.
    fn open(&mut self, begin: Instant, ticks: usize) {
        if self.heard.is_empty() {
            self.heard.resize(ticks * FRAME, 0);
            // From here on the first packet counts from the beginning.
            if let Some((came, source, timestamp)) = self.first {
                let ahead = begin.saturating_duration_since(came).as_micros() as u64;
                let samples = (ahead * u64::from(RATE) / 1_000_000) as u32;
                self.first = Some((begin, source, timestamp.wrapping_add(samples)));
            }
        }
    }

    fn speak(&mut self, frame: &[i16]) {
        let mut packet = Vec::with_capacity(RTP_HEADER + FRAME);
        packet.extend([0x80, PCMA]);
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(self.timestamp.to_be_bytes());
        packet.extend(SOURCE.to_be_bytes());
        packet.extend(frame.iter().map(|&sample| Law::A.encode(sample)));
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(FRAME as u32);
        send(&self.socket, self.remote, &packet);
    }

    fn receive(&mut self, now: Instant, packet: &[u8]) {
        let Some((header, codes)) = packet.split_at_checked(RTP_HEADER) else { return };
        let word =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if header[0] != 0x80 || header[1] & 0x7f != PCMA {
            return;
        }
        let (_, source, first) = *self.first.get_or_insert((now, word(8), word(4)));
        // What is before the beginning lies far behind the end, modulo 2^32.
        let at = word(4).wrapping_sub(first) as usize;
        if source != word(8) {
            self.strangers += 1;
        } else if let Some(room) = self.heard.get_mut(at..at + codes.len()) {
            Law::A.decode_into(codes, room);
        }
    }
}

/// The next datagram, if there is one.
fn read(socket: &UdpSocket, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
    loop {
        match socket.recv_from(buffer) {
            Ok(received) => return Some(received),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            // An ICMP error of an earlier packet: the socket is still good.
            Err(_) => {}
        }
    }
}

/// A packet that the system refuses is missing at the far end, as on any path.
fn send(socket: &UdpSocket, to: SocketAddr, bytes: &[u8]) {
    let _ = socket.send_to(bytes, to);
}
