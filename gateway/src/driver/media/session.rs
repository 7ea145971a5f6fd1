use std::net::SocketAddr;
use std::time::{Duration, Instant};

use call_model::{CallId, DtmfDigit, Side};
use mio::net::UdpSocket;
use transcoder::{Bridge, Outgoing, Port};

use super::batch::{BATCH, Inbox};
use super::worker::WorkerCounters;

/// Sockets of one call, by index.
pub(super) const OVERLAY: usize = 0;
pub(super) const TRUNK_RTP: usize = 1;
pub(super) const TRUNK_RTCP: usize = 2;
/// How many there are.
pub(super) const SOCKETS: usize = 3;

/// Batches taken from one socket before the others have their turn.
const BATCHES: usize = 4;

/// The sockets of one call, with the ports to give back.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) sockets: [UdpSocket; SOCKETS],
    pub(super) locals: [SocketAddr; SOCKETS],
}

impl Sockets {
    fn send(&self, index: usize, outgoing: &Outgoing<'_>, counters: &mut WorkerCounters) {
        // A full send buffer or an unreachable peer costs this packet only, as on any network.
        match self.sockets[index].send_to(outgoing.bytes, outgoing.destination) {
            Ok(_) => counters.sent += 1,
            Err(_) => counters.send_failed += 1,
        }
    }
}

pub(super) fn index_of(side: Side, port: Port) -> usize {
    match (side, port) {
        (Side::Overlay, _) => OVERLAY,
        (Side::Trunk, Port::Rtp) => TRUNK_RTP,
        (Side::Trunk, Port::Rtcp) => TRUNK_RTCP,
    }
}

/// A call in a worker: its bridge between its sockets.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) call: CallId,
    pub(super) bridge: Bridge,
    pub(super) sockets: Sockets,
    /// Where the latest datagram of each socket came from.
    pub(super) heard: [Option<SocketAddr>; SOCKETS],
    /// The wake-up that stands in the worker's timer queue.
    pub(super) scheduled: Option<Instant>,
    pub(super) next_report: Instant,
}

impl Session {
    /// Reads from a socket. Returns whether more may be waiting.
    pub(super) fn read(
        &mut self,
        now: Instant,
        index: usize,
        inbox: &mut Inbox,
        counters: &mut WorkerCounters,
    ) -> bool {
        let (side, port) = match index {
            OVERLAY => (Side::Overlay, Port::Rtp),
            TRUNK_RTP => (Side::Trunk, Port::Rtp),
            _ => (Side::Trunk, Port::Rtcp),
        };
        for _ in 0..BATCHES {
            // An ICMP error of an earlier send shows up here; the socket is still good.
            let Ok(count) = inbox.receive(&self.sockets.sockets[index], now) else {
                counters.receive_failed += 1;
                continue;
            };
            counters.received += count as u64;
            let (bridge, sockets) = (&mut self.bridge, &self.sockets);
            for number in 0..count {
                let (at, source, bytes) = inbox.datagram(number);
                self.heard[index] = Some(source);
                let local = sockets.locals[index];
                bridge.handle_datagram(at, side, port, local, source, bytes, &mut |outgoing| {
                    sockets.send(index_of(outgoing.side, outgoing.port), &outgoing, counters);
                });
            }
            if count < BATCH {
                return false;
            }
        }
        true
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, counters: &mut WorkerCounters) {
        let (bridge, sockets) = (&mut self.bridge, &self.sockets);
        bridge.handle_timeout(now, &mut |outgoing| {
            sockets.send(index_of(outgoing.side, outgoing.port), &outgoing, counters);
        });
    }

    /// Sends a digit on a side. Returns false if it cannot go in RTP there.
    pub(super) fn send_dtmf(&mut self, side: Side, digit: DtmfDigit, duration_ms: u16) -> bool {
        self.bridge.send_dtmf(side, digit, duration_ms)
    }
}

/// Sockets after their call: what still comes in is read and thrown away until the parties of the
/// call have been quiet for the quarantine, so that the next call cannot inherit them.
#[derive(Debug)]
pub(super) struct Draining {
    pub(super) sockets: Sockets,
    pub(super) free_at: Instant,
    heard: [Option<SocketAddr>; SOCKETS],
    give_up_at: Instant,
}

impl Draining {
    pub(super) fn new(now: Instant, session: Session, quarantine: Duration) -> Self {
        // Somebody who never stops sending must not keep a port for ever.
        let give_up_at = now + 2 * quarantine;
        Self { sockets: session.sockets, heard: session.heard, free_at: now + quarantine, give_up_at }
    }

    pub(super) fn read(
        &mut self,
        now: Instant,
        index: usize,
        inbox: &mut Inbox,
        quarantine: Duration,
        counters: &mut WorkerCounters,
    ) -> bool {
        for _ in 0..BATCHES {
            let Ok(count) = inbox.receive(&self.sockets.sockets[index], now) else {
                counters.receive_failed += 1;
                continue;
            };
            counters.stray += count as u64;
            // A stranger's datagrams must not keep a port from being used again.
            if (0..count).any(|number| Some(inbox.datagram(number).1) == self.heard[index]) {
                self.free_at = (now + quarantine).min(self.give_up_at);
            }
            if count < BATCH {
                return false;
            }
        }
        true
    }
}
