//! The network between an overlay user and the gateway: every datagram of a call goes through it, and media suffers.
//!
//! Each side knows the other by an address of the passage, which is written into the candidates of both session
//! descriptions (RFC 8839 5.1); to ICE it looks like a NAT on either side. Only RTP is lost, and only once it is said;
//! checks, handshakes and RTCP arrive.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ::tests::lab::ports;
use anyhow::{Context as _, Result, ensure};
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};

use crate::impairment::Impairment;

/// Datagrams on their way in one direction; more are lost, and not counted as drawn.
const ROOM: usize = 1_024;
const DATAGRAM: usize = 2_048;
/// How long the thread sleeps at most, so that it sees that it is over.
const LONGEST_SLEEP: Duration = Duration::from_millis(20);

/// What became of the RTP packets of one direction since the loss began.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Count {
    pub(crate) packets: u64,
    pub(crate) lost: u64,
}

impl Count {
    /// The share lost, 0 to 1.
    pub(crate) fn share(self) -> f64 {
        self.lost as f64 / self.packets.max(1) as f64
    }
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.lost += other.lost;
    }
}

#[derive(Debug, Default)]
struct Counter {
    packets: AtomicU64,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    loses: AtomicBool,
    gateway: OnceLock<SocketAddr>,
    /// To the gateway, to the user.
    counters: [Counter; 2],
}

/// The network of one call, in a thread of its own.
#[derive(Debug)]
pub(crate) struct Passage {
    /// What the user takes for the gateway, and the gateway for the user.
    near: SocketAddr,
    far: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Passage {
    /// Opens it for the user whose media is on `user`: what it does to packets to the gateway, and from it.
    pub(crate) fn open(
        user: SocketAddr,
        towards_gateway: Impairment,
        towards_user: Impairment,
    ) -> Result<Self> {
        let address = ports::address();
        let (near, far) = (socket(address.into())?, socket(address.into())?);
        let shared = Arc::new(Shared::default());
        let (near_address, far_address) = (near.local_addr()?, far.local_addr()?);
        let mut carrier = Carrier {
            near: Arc::new(near),
            far: Arc::new(far),
            user,
            shared: Arc::clone(&shared),
            ways: [Way::new(towards_gateway), Way::new(towards_user)],
        };
        let poll = carrier.register()?;
        let run = move || {
            if let Err(error) = carrier.run(poll) {
                eprintln!("causeway-quality: passage: {error:#}");
            }
        };
        let thread = thread::Builder::new().name("passage".to_owned()).spawn(run)?;
        Ok(Self { near: near_address, far: far_address, shared, thread: Some(thread) })
    }

    /// Makes the offer of the user one that leads through here.
    pub(crate) fn offer(&self, sdp: &str) -> Result<String> {
        Ok(redirect(sdp, self.far)?.1)
    }

    /// Makes the answer of the gateway one that leads through here.
    pub(crate) fn answer(&self, sdp: &str) -> Result<String> {
        let (gateway, sdp) = redirect(sdp, self.near)?;
        ensure!(self.shared.gateway.set(gateway).is_ok(), "a second answer");
        Ok(sdp)
    }

    /// Begins to lose packets, and to count them.
    pub(crate) fn impair(&self) {
        self.shared.loses.store(true, Ordering::Relaxed);
    }

    /// What became of the packets to the gateway, and of those to the user.
    pub(crate) fn counts(&self) -> [Count; 2] {
        self.shared.counters.each_ref().map(|counter| Count {
            packets: counter.packets.load(Ordering::Relaxed),
            lost: counter.lost.load(Ordering::Relaxed),
        })
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn socket(address: std::net::IpAddr) -> Result<UdpSocket> {
    Ok(UdpSocket::bind(SocketAddr::new(address, 0))?)
}

/// Puts `to` into the candidate of a session description. Returns where it led before.
fn redirect(sdp: &str, to: SocketAddr) -> Result<(SocketAddr, String)> {
    let mut before = None;
    let mut lines = Vec::new();
    for line in sdp.lines() {
        let Some(candidate) = line.strip_prefix("a=candidate:") else {
            lines.push(line.to_owned());
            continue;
        };
        // foundation component transport priority address port "typ" type ...
        let mut words: Vec<String> = candidate.split(' ').map(str::to_owned).collect();
        ensure!(words.len() >= 8 && words[7] == "host", "not a host candidate: {line}");
        let known = SocketAddr::new(words[4].parse()?, words[5].parse()?);
        ensure!(before.replace(known).is_none_or(|other| other == known), "several candidates: {sdp}");
        (words[4], words[5]) = (to.ip().to_string(), to.port().to_string());
        lines.push(format!("a=candidate:{}", words.join(" ")));
    }
    Ok((before.with_context(|| format!("no candidate: {sdp}"))?, lines.join("\r\n") + "\r\n"))
}

/// One direction: what it does, and what is on its way.
struct Way {
    impairment: Impairment,
    queue: VecDeque<(Instant, Vec<u8>)>,
}

impl Way {
    fn new(impairment: Impairment) -> Self {
        Self { impairment, queue: VecDeque::new() }
    }

    fn take(&mut self, now: Instant, datagram: &[u8], shared: &Shared, counter: &Counter) {
        if is_rtp(datagram) && shared.loses.load(Ordering::Relaxed) {
            counter.packets.fetch_add(1, Ordering::Relaxed);
            if self.impairment.loses() {
                counter.lost.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        if self.queue.len() < ROOM {
            // None overtakes another: what is measured is loss.
            let due = now + self.impairment.transit();
            let due = self.queue.back().map_or(due, |(last, _)| due.max(*last));
            self.queue.push_back((due, datagram.to_vec()));
        }
    }
}

/// RFC 7983 7: RTP and RTCP begin with 128 to 191. RFC 5761 4: of those, RTCP has types of 192 to 223.
fn is_rtp(datagram: &[u8]) -> bool {
    matches!(datagram, [128..=191, kind, ..] if !(192..=223).contains(kind))
}

struct Carrier {
    near: Arc<UdpSocket>,
    far: Arc<UdpSocket>,
    user: SocketAddr,
    shared: Arc<Shared>,
    /// To the gateway, to the user.
    ways: [Way; 2],
}

impl Carrier {
    fn register(&mut self) -> Result<Poll> {
        let poll = Poll::new()?;
        for (token, socket) in [(Token(0), &mut self.near), (Token(1), &mut self.far)] {
            let socket = Arc::get_mut(socket).context("the socket has one owner")?;
            poll.registry().register(socket, token, Interest::READABLE)?;
        }
        Ok(poll)
    }

    fn run(&mut self, mut poll: Poll) -> Result<()> {
        let mut events = Events::with_capacity(8);
        while !self.shared.stop.load(Ordering::Relaxed) {
            let due = self.ways.iter().filter_map(|way| way.queue.front()).map(|(due, _)| *due).min();
            let wait = due.map_or(LONGEST_SLEEP, |due| due.saturating_duration_since(Instant::now()));
            match poll.poll(&mut events, Some(wait.min(LONGEST_SLEEP))) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => outcome?,
            }
            self.receive();
            self.send();
        }
        Ok(())
    }

    fn receive(&mut self) {
        let mut buffer = [0; DATAGRAM];
        let gateway = self.shared.gateway.get().copied();
        let sides = [(&self.near, Some(self.user)), (&self.far, gateway)];
        for (index, (socket, expected)) in sides.into_iter().enumerate() {
            loop {
                match socket.recv_from(&mut buffer) {
                    // Strangers are not carried.
                    Ok((length, source)) if Some(source) == expected => {
                        let counter = &self.shared.counters[index];
                        self.ways[index].take(Instant::now(), &buffer[..length], &self.shared, counter);
                    }
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // An ICMP error of an earlier packet: the socket is still good.
                    Err(_) => {}
                }
            }
        }
    }

    fn send(&mut self) {
        let now = Instant::now();
        let targets = [(&self.far, self.shared.gateway.get().copied()), (&self.near, Some(self.user))];
        for (way, (socket, target)) in self.ways.iter_mut().zip(targets) {
            while way.queue.front().is_some_and(|(due, _)| *due <= now) {
                let Some((_, datagram)) = way.queue.pop_front() else { break };
                if let Some(target) = target {
                    // A packet that the system refuses is missing at the far end, as on any path.
                    let _ = socket.send_to(&datagram, target);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::impairment::{Pattern, Transit};

    const STILL: Transit = Transit { delay: Duration::ZERO, jitter: Duration::ZERO };
    const SDP: &str = "v=0\r\na=ice-lite\r\na=candidate:1 1 UDP 2130706175 127.1.2.3 4000 typ host generation 0\r\n\
                       a=mid:0\r\n";

    #[test]
    fn a_description_leads_elsewhere() {
        let to: SocketAddr = "127.9.9.9:77".parse().unwrap();
        let (before, sdp) = redirect(SDP, to).unwrap();
        assert_eq!(before, "127.1.2.3:4000".parse().unwrap());
        assert_eq!(sdp, SDP.replace("127.1.2.3 4000", "127.9.9.9 77"));
    }

    #[test]
    fn a_description_without_candidate_or_with_two_is_no_good() {
        let to: SocketAddr = "127.9.9.9:77".parse().unwrap();
        assert!(redirect("v=0\r\na=mid:0\r\n", to).is_err());
        let other = SDP.replace("v=0", "a=candidate:2 1 UDP 1 127.1.2.4 4000 typ host");
        assert!(redirect(&other, to).is_err());
        assert!(redirect(&SDP.replace("host", "srflx"), to).is_err());
    }

    #[test]
    fn only_rtp_is_lost() {
        assert!(is_rtp(&[0x80, 111, 0, 1]) && is_rtp(&[0x90, 0x80 | 111, 0, 1]));
        // STUN, DTLS, RTCP SR and RR, and what is too short for anything.
        for other in
            [&[0, 1, 0, 0][..], &[22, 254, 253, 0], &[0x80, 200, 0, 6], &[0x81, 201, 0, 7], &[0x80], &[]]
        {
            assert!(!is_rtp(other), "{other:?}");
        }
    }

    #[test]
    fn losses_are_those_of_the_seed_and_are_counted() {
        let pattern = Pattern::Bursts { percent: 10, length: 3 };
        let impairment = Impairment::new(pattern, STILL, 5);
        let (mut drawn, mut way) = (impairment.clone(), Way::new(impairment));
        let (shared, counter, now) = (Shared::default(), Counter::default(), Instant::now());
        let sent = |way: &mut Way, kind: u8| {
            way.take(now, &[0x80, kind], &shared, &counter);
            way.queue.pop_front().is_some()
        };
        // Nothing is lost, drawn or counted before it is said.
        assert!((0..200).all(|_| sent(&mut way, 111)));
        shared.loses.store(true, Ordering::Relaxed);
        for index in 0..2_000 {
            assert_eq!(sent(&mut way, 111), !drawn.loses(), "packet {index} of seed 5");
            assert!(sent(&mut way, 200), "RTCP beside packet {index}");
        }
        let count = Count {
            packets: counter.packets.load(Ordering::Relaxed),
            lost: counter.lost.load(Ordering::Relaxed),
        };
        assert_eq!(count.packets, 2_000);
        assert!((count.share() - 0.1).abs() < 0.02, "{count:?}");
    }
}
