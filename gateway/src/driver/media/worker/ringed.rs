//! A media thread that receives with io_uring.
//!
//! The ring receives from the sockets of calls, until they have rested. Between two calls they are watched as always:
//! others may then take and close them.

use std::io;
use std::time::Instant;

use mio::{Registry, Token};

use super::{DATAGRAM, Loop, RING, Slot};
use crate::driver::ring::{Arrival, Ring};

/// Buffers of a thread. Where more comes in a turn, the rest waits in its sockets until the next. They are used one after
/// the other, so that many would leave the caches before their turn comes again.
const BUFFERS: u16 = 512;

/// Makes the ring of a media thread.
///
/// # Errors
/// That the kernel refuses it.
pub(in crate::driver::media) fn open_ring() -> io::Result<Ring> {
    Ring::new(BUFFERS, DATAGRAM, Instant::now())
}

/// Makes the ring of this thread, if that can be.
pub(super) fn begin(registry: &Registry) -> Option<Ring> {
    let ring = open_ring().and_then(|ring| ring.watch(registry, RING).map(|()| ring));
    if let Err(error) = &ring {
        tracing::warn!(%error, "a media thread gets no io_uring and receives with recvmmsg");
    }
    ring.ok()
}

impl Loop {
    /// Handles what came to the sockets that the ring receives from.
    ///
    /// # Errors
    /// That the ring is of no more use.
    pub(super) fn read_ring(&mut self) -> io::Result<()> {
        let Some(mut ring) = self.ring.take() else { return Ok(()) };
        let now = Instant::now();
        let turned = ring.turn(now);
        while let Some(arrival) = ring.poll_arrival() {
            self.arrive(now, arrival);
        }
        self.counters.ring_exhausted = ring.exhausted();
        self.ring = Some(ring);
        turned
    }

    fn arrive(&mut self, now: Instant, arrival: Arrival<'_>) {
        match arrival {
            Arrival::Datagram { token, at, source, bytes } => {
                let Some((slot, index)) = self.places.find(token) else { return };
                match self.slots.get_mut(slot) {
                    Some(Slot::Live(session)) => {
                        session.handle_datagram(at, index, source, bytes, &mut self.counters);
                        self.after(slot, now);
                    }
                    Some(Slot::Draining(draining)) => {
                        draining.handle_datagram(now, index, source, self.quarantine, &mut self.counters);
                    }
                    Some(Slot::Free | Slot::Leaving(..)) | None => {}
                }
            }
            Arrival::Failed { token, error } => {
                self.counters.receive_failed += 1;
                tracing::trace!(token = token.0, %error, "receiving with io_uring");
            }
            Arrival::Left { token } => self.leave(token),
        }
    }

    fn leave(&mut self, token: Token) {
        let Some((slot, _)) = self.places.find(token) else { return };
        let Some(entry) = self.slots.get_mut(slot) else { return };
        match entry {
            Slot::Leaving(_, count) if *count > 1 => *count -= 1,
            Slot::Leaving(..) => {
                if let Slot::Leaving(draining, _) = std::mem::replace(entry, Slot::Free) {
                    self.release(slot, *draining);
                }
            }
            _ => {}
        }
    }
}
