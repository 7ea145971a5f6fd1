//! Both ends of the calls on their sockets, and the schedule.
//!
//! The schedule is open: a call is begun when its time has come, whatever became of those before. How late that
//! was is counted, since a generator that cannot follow measures itself.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use mio::{Events, Interest, Poll, Token};

use crate::callee::Callee;
use crate::caller::{Caller, Plan, Tally};
use crate::message::MEDIA_PORT;

/// Messages taken from a socket before the other has its turn.
const BATCH: usize = 128;
/// What a socket may hold while the other end is served.
const BUFFER: usize = 4 << 20;
/// How long calls may take to end when no more are begun.
const DRAIN: Duration = Duration::from_secs(15);

/// Calls to one subject.
pub(crate) struct Generator {
    poll: Poll,
    events: Events,
    caller: (Caller, mio::net::UdpSocket),
    callee: (Callee, mio::net::UdpSocket),
    plan: Plan,
    /// Milliseconds that calls were begun after their time.
    late: Vec<f64>,
    /// Datagrams that the system did not take.
    dropped: u64,
    _sinks: Vec<UdpSocket>,
}

impl Generator {
    /// Calls from port 5060 of `caller` to `peer`, which calls port 5060 of `callee`.
    pub(crate) fn new(caller: Ipv4Addr, callee: Ipv4Addr, peer: SocketAddrV4) -> Result<Self> {
        let poll = Poll::new()?;
        let open = |address: Ipv4Addr, token: usize| -> Result<(SocketAddrV4, mio::net::UdpSocket)> {
            let own = SocketAddrV4::new(address, 5060);
            let socket = UdpSocket::bind(own).with_context(|| format!("binding {own}"))?;
            let raw = socket2::SockRef::from(&socket);
            let _ = raw.set_recv_buffer_size(BUFFER);
            let _ = raw.set_send_buffer_size(BUFFER);
            socket.connect(peer)?;
            socket.set_nonblocking(true)?;
            let mut socket = mio::net::UdpSocket::from_std(socket);
            poll.registry().register(&mut socket, Token(token), Interest::READABLE)?;
            Ok((own, socket))
        };
        let (caller, calling) = open(caller, 0)?;
        let (callee, called) = open(callee, 1)?;
        // What media comes is taken and not answered by the system with an error.
        let mut sinks = Vec::new();
        for address in [*caller.ip(), *callee.ip()] {
            for port in [MEDIA_PORT, MEDIA_PORT + 1] {
                sinks.push(UdpSocket::bind((address, port))?);
            }
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(16),
            caller: (Caller::new(caller, peer), calling),
            callee: (Callee::new(callee), called),
            plan: Plan::Held,
            late: Vec::new(),
            dropped: 0,
            _sinks: sinks,
        })
    }

    /// Says what the calls are from here on, and counts them by themselves.
    pub(crate) fn begin_phase(&mut self, plan: Plan) -> usize {
        self.plan = plan;
        self.late.clear();
        self.caller.0.begin_phase()
    }

    /// What came of the calls of a phase so far.
    pub(crate) fn tally(&self, phase: usize) -> &Tally {
        self.caller.0.tally(phase)
    }

    /// Calls answered and calls completed so far, whenever they were begun.
    pub(crate) fn counts(&self) -> (u64, u64) {
        self.caller.0.counts()
    }

    /// The called end.
    pub(crate) fn callee(&self) -> &Callee {
        &self.callee.0
    }

    /// Calls that are not over at the calling end.
    pub(crate) fn open(&self) -> usize {
        self.caller.0.open()
    }

    /// Milliseconds that each call of this phase was begun after its time.
    pub(crate) fn late(&self) -> Vec<f64> {
        self.late.clone()
    }

    /// Datagrams that the system did not take.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Begins `rate` calls a second for a while.
    pub(crate) fn offer(&mut self, rate: f64, time: Duration) -> Result<()> {
        let began = Instant::now();
        let count = (rate * time.as_secs_f64()).round() as u64;
        let at = |index: u64| began + Duration::from_secs_f64(index as f64 / rate);
        let mut index = 0;
        loop {
            let now = Instant::now();
            // Answers have their turn even where the schedule is far behind.
            for _ in 0..32 {
                if index == count || at(index) > now {
                    break;
                }
                self.late.push(1000.0 * now.saturating_duration_since(at(index)).as_secs_f64());
                let Self { caller: (caller, socket), dropped, plan, .. } = self;
                caller.begin(*plan, now, &mut |bytes| post(socket, bytes, dropped));
                index += 1;
            }
            if index == count && now >= began + time {
                return Ok(());
            }
            let next = if index == count { began + time } else { at(index) };
            self.turn(next)?;
        }
    }

    /// Lets things go on for a while without new calls.
    pub(crate) fn wait(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn(end)?;
        }
        Ok(())
    }

    /// Hangs up every call that is held, so many a second, and waits until all are over.
    pub(crate) fn hang_up_all(&mut self, rate: f64) -> Result<()> {
        let limit = Duration::from_secs_f64(self.open() as f64 / rate);
        self.caller.0.hang_up_all(Instant::now(), rate);
        self.drain_within(limit + DRAIN)
    }

    /// Waits until all calls are over. Those that are not in 15 s count as unanswered.
    pub(crate) fn drain(&mut self) -> Result<()> {
        self.drain_within(DRAIN)
    }

    fn drain_within(&mut self, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        while self.open() > 0 || self.callee.0.open() > 0 {
            if Instant::now() > end {
                self.caller.0.abandon();
                self.callee.0.abandon();
                break;
            }
            self.turn(Instant::now() + Duration::from_millis(20))?;
        }
        Ok(())
    }

    /// Does what is due, takes what has come, and waits for more until `end` at the latest.
    fn turn(&mut self, end: Instant) -> Result<()> {
        let now = Instant::now();
        let Self { caller: (caller, calling), callee: (callee, called), dropped, .. } = self;
        caller.on_time(now, &mut |bytes| post(calling, bytes, dropped));
        callee.on_time(now, &mut |bytes| post(called, bytes, dropped));
        let mut buffer = [0; 8192];
        let mut more = false;
        for index in 0..=BATCH {
            more = index == BATCH;
            let Some(length) = take(called, &mut buffer)? else { break };
            callee.receive(&buffer[..length], Instant::now(), &mut |bytes| post(called, bytes, dropped));
        }
        for index in 0..=BATCH {
            more |= index == BATCH;
            let Some(length) = take(calling, &mut buffer)? else { break };
            let now = Instant::now();
            caller.receive(&buffer[..length], now, &mut |bytes| post(calling, bytes, dropped));
        }
        let due = [Some(end), caller.next_due(), callee.next_due()].into_iter().flatten().min();
        let left = due.unwrap_or(end).saturating_duration_since(Instant::now());
        if more || left.is_zero() {
            return Ok(());
        }
        match self.poll.poll(&mut self.events, Some(left)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Takes a datagram.
fn take(socket: &mio::net::UdpSocket, buffer: &mut [u8]) -> Result<Option<usize>> {
    match socket.recv(buffer) {
        Ok(length) => Ok(Some(length)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            bail!("nobody listens any more at {}", socket.peer_addr()?)
        }
        Err(error) => Err(error.into()),
    }
}

fn post(socket: &mio::net::UdpSocket, bytes: &[u8], dropped: &mut u64) {
    if socket.send(bytes).is_err() {
        *dropped += 1;
    }
}
