use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use call_model::{CallId, Side};
use mio::net::UdpSocket;
use transcoder::{Bridge, Outgoing, Port};

use super::worker::WorkerCounters;

/// Sockets of one call, by index.
pub(super) const OVERLAY: usize = 0;
pub(super) const TRUNK_RTP: usize = 1;
pub(super) const TRUNK_RTCP: usize = 2;
/// How many there are.
pub(super) const SOCKETS: usize = 3;

/// Datagrams taken from one socket before the others have their turn.
const BATCH: usize = 32;

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
    /// The wake-up that stands in the worker's timer queue.
    pub(super) scheduled: Option<Instant>,
    pub(super) next_report: Instant,
}

impl Session {
    /// Reads one batch from a socket. Returns whether more may be waiting.
    pub(super) fn read(
        &mut self,
        now: Instant,
        index: usize,
        buffer: &mut [u8],
        counters: &mut WorkerCounters,
    ) -> bool {
        let (side, port) = match index {
            OVERLAY => (Side::Overlay, Port::Rtp),
            TRUNK_RTP => (Side::Trunk, Port::Rtp),
            _ => (Side::Trunk, Port::Rtcp),
        };
        for _ in 0..BATCH {
            match self.sockets.sockets[index].recv_from(buffer) {
                Ok((length, source)) => {
                    counters.received += 1;
                    let (bridge, sockets) = (&mut self.bridge, &self.sockets);
                    let local = sockets.locals[index];
                    bridge.handle_datagram(
                        now,
                        side,
                        port,
                        local,
                        source,
                        &buffer[..length],
                        &mut |outgoing| {
                            sockets.send(index_of(outgoing.side, outgoing.port), &outgoing, counters);
                        },
                    );
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // An ICMP error of an earlier send shows up here; the socket is still good.
                Err(_) => counters.receive_failed += 1,
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
}

/// Sockets after their call: what still comes in is read and thrown away until nothing has come
/// for the quarantine, so that the next call cannot inherit it.
#[derive(Debug)]
pub(super) struct Draining {
    pub(super) sockets: Sockets,
    pub(super) free_at: Instant,
    pub(super) give_up_at: Instant,
}

impl Draining {
    pub(super) fn new(now: Instant, sockets: Sockets, quarantine: Duration) -> Self {
        // Somebody who never stops sending must not keep a port for ever.
        let longest = Duration::from_secs(600).max(quarantine);
        Self { sockets, free_at: now + quarantine, give_up_at: now + longest }
    }

    pub(super) fn read(
        &mut self,
        now: Instant,
        index: usize,
        buffer: &mut [u8],
        quarantine: Duration,
        counters: &mut WorkerCounters,
    ) -> bool {
        for _ in 0..BATCH {
            match self.sockets.sockets[index].recv_from(buffer) {
                Ok(_) => {
                    counters.stray += 1;
                    self.free_at = (now + quarantine).min(self.give_up_at);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => counters.receive_failed += 1,
            }
        }
        true
    }
}
