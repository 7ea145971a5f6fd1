use std::net::SocketAddr;
use std::time::{Duration, Instant};

use call_model::{CallId, Side};
use mio::Token;
use transcoder::{Outgoing, Port};

use super::kind::Media;
use super::refusals::Refusals;
use super::sockets::{Bound, LegPort, LegSockets};
use super::worker::WorkerCounters;
use crate::driver::batch::{BATCH, Inbox};

/// Sockets of one call, by index: the overlay's or those of the trunk by which a call from another
/// goes on, and those of the trunk.
const FIRST: usize = 0;
const TRUNK_RTP: usize = 1;
const TRUNK_RTCP: usize = 2;
const ONWARD_RTCP: usize = 3;
/// How many there are at most.
pub(super) const SOCKETS: usize = 4;

/// Batches taken from one socket before the others have their turn.
pub(super) const BATCHES: usize = 4;

/// The sockets of one call.
#[derive(Debug)]
pub(super) struct Sockets {
    /// Of the overlay, or of the trunk by which a call from another goes on.
    pub(super) first: LegSockets,
    pub(super) trunk: LegSockets,
}

impl Sockets {
    /// Returns the ports to give back.
    pub(super) fn ports(&self) -> [LegPort; 2] {
        [self.first.port, self.trunk.port]
    }

    /// Returns the tokens of the sockets, each with its index.
    pub(super) fn tokens(&self) -> impl Iterator<Item = (usize, Token)> {
        let ((first, onward_rtcp), (rtp, rtcp)) = (self.first.tokens(), self.trunk.tokens());
        let tokens =
            [(FIRST, Some(first)), (TRUNK_RTP, Some(rtp)), (TRUNK_RTCP, rtcp), (ONWARD_RTCP, onward_rtcp)];
        tokens.into_iter().filter_map(|(index, token)| token.map(|token| (index, token)))
    }

    /// Returns the socket of an index.
    pub(super) fn get(&self, index: usize) -> Option<&Bound> {
        match index {
            FIRST => Some(&self.first.rtp),
            TRUNK_RTP => Some(&self.trunk.rtp),
            TRUNK_RTCP => self.trunk.rtcp.as_ref(),
            ONWARD_RTCP => self.first.rtcp.as_ref(),
            _ => None,
        }
    }

    fn send(&self, index: usize, outgoing: &Outgoing<'_>, counters: &mut WorkerCounters) {
        // A full send buffer or an unreachable peer costs this packet only, as on any network.
        match self.get(index).map(|bound| bound.socket.send_to(outgoing.bytes, outgoing.destination)) {
            Some(Ok(_)) => counters.sent += 1,
            Some(Err(_)) | None => counters.send_failed += 1,
        }
    }
}

fn index_of(side: Side, port: Port) -> usize {
    match (side, port) {
        (Side::Overlay, _) | (Side::Onward, Port::Rtp) => FIRST,
        (Side::Trunk, Port::Rtp) => TRUNK_RTP,
        (Side::Trunk, Port::Rtcp) => TRUNK_RTCP,
        (Side::Onward, Port::Rtcp) => ONWARD_RTCP,
    }
}

/// A call in a worker: its media between its sockets.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) call: CallId,
    pub(super) media: Media,
    pub(super) sockets: Sockets,
    /// Where the latest datagram of each socket came from.
    pub(super) heard: [Option<SocketAddr>; SOCKETS],
    /// What was refused, as far as the thread has counted it.
    pub(super) refusals: Refusals,
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
        for _ in 0..BATCHES {
            let Some(bound) = self.sockets.get(index) else { return false };
            // An ICMP error of an earlier send shows up here; the socket is still good.
            let Ok(count) = inbox.receive(&bound.socket, now) else {
                counters.receive_failed += 1;
                continue;
            };
            for number in 0..count {
                let (at, source, bytes) = inbox.datagram(number);
                self.handle_datagram(at, index, source, bytes, counters);
            }
            if count < BATCH {
                return false;
            }
        }
        true
    }

    /// Takes what came to a socket.
    pub(super) fn handle_datagram(
        &mut self,
        at: Instant,
        index: usize,
        source: SocketAddr,
        bytes: &[u8],
        counters: &mut WorkerCounters,
    ) {
        let (side, port) = match index {
            FIRST => (self.media.first_side(), Port::Rtp),
            TRUNK_RTP => (Side::Trunk, Port::Rtp),
            TRUNK_RTCP => (Side::Trunk, Port::Rtcp),
            _ => (Side::Onward, Port::Rtcp),
        };
        let Some(&Bound { local, .. }) = self.sockets.get(index) else { return };
        counters.received += 1;
        self.heard[index] = Some(source);
        let (media, sockets) = (&mut self.media, &self.sockets);
        media.handle_datagram(at, side, port, local, source, bytes, &mut |outgoing| {
            sockets.send(index_of(outgoing.side, outgoing.port), &outgoing, counters);
        });
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, counters: &mut WorkerCounters) {
        let (media, sockets) = (&mut self.media, &self.sockets);
        media.handle_timeout(now, &mut |outgoing| {
            sockets.send(index_of(outgoing.side, outgoing.port), &outgoing, counters);
        });
    }

    /// Counts what was refused since the last time.
    pub(super) fn count_refusals(&mut self, counters: &mut WorkerCounters) {
        let now = self.media.refusals();
        counters.refusals.add_since(&now, &self.refusals);
        self.refusals = now;
    }

    /// Says goodbye on both legs.
    pub(super) fn stop(&mut self, now: Instant, counters: &mut WorkerCounters) {
        let (media, sockets) = (&mut self.media, &self.sockets);
        media.stop(now, &mut |outgoing| {
            sockets.send(index_of(outgoing.side, outgoing.port), &outgoing, counters);
        });
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
    /// Says whether the parties of the call never stopped sending: only then the next call may hear them.
    pub(super) fn is_still_sent_to(&self) -> bool {
        self.free_at >= self.give_up_at
    }

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
            let Some(bound) = self.sockets.get(index) else { return false };
            let Ok(count) = inbox.receive(&bound.socket, now) else {
                counters.receive_failed += 1;
                continue;
            };
            for number in 0..count {
                self.handle_datagram(now, index, inbox.datagram(number).1, quarantine, counters);
            }
            if count < BATCH {
                return false;
            }
        }
        true
    }

    /// Takes what came to a socket, of which only the source counts.
    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        index: usize,
        source: SocketAddr,
        quarantine: Duration,
        counters: &mut WorkerCounters,
    ) {
        counters.stray += 1;
        // A stranger's datagrams must not keep a port from being used again.
        if self.heard[index] == Some(source) {
            self.free_at = (now + quarantine).min(self.give_up_at);
        }
    }
}
