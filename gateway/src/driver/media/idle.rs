//! Sockets that stay open between two calls: opening, watching and closing four for each call took
//! an eighth of the processor time of a gateway between trunks.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mio::Token;
use mio::net::UdpSocket;

use super::sockets::{LegPort, LegSockets, PortRange};

/// The sockets of a media thread that rested and wait for a call. The thread that watches them
/// puts them in and reads away what strays in; the engine takes them out, from then on they are of
/// the call they go to. Whoever holds the lock makes a few system calls at most that do not wait.
#[derive(Debug)]
pub(super) struct IdleSockets {
    /// Legs of each range.
    limit: usize,
    ranges: Mutex<[Idle; PortRange::COUNT]>,
}

/// Those of one range.
#[derive(Debug, Default)]
struct Idle {
    legs: HashMap<u16, LegSockets>,
    /// The keys of `legs`; the first has waited longest.
    order: VecDeque<u16>,
}

impl IdleSockets {
    /// Makes room for `limit` legs of each range.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, ranges: Mutex::default() }
    }

    /// Takes the sockets that have waited longest.
    pub(super) fn take(&self, range: PortRange) -> Option<LegSockets> {
        let idle = &mut self.lock()[range as usize];
        let port = idle.order.pop_front()?;
        idle.legs.remove(&port)
    }

    /// Keeps sockets for the next call, or gives them back: there are enough, or nobody watches them.
    pub(super) fn put(&self, leg: LegSockets) -> Result<(), LegSockets> {
        let LegPort { range, number } = leg.port;
        let idle = &mut self.lock()[range as usize];
        if !leg.watched || idle.legs.len() >= self.limit {
            return Err(leg);
        }
        idle.order.push_back(number);
        idle.legs.insert(number, leg);
        Ok(())
    }

    /// Reads from a socket as `read` does. Where the socket is not here, nothing is read.
    pub(super) fn read(
        &self,
        token: Token,
        read: impl FnOnce(&UdpSocket) -> io::Result<usize>,
    ) -> Option<Result<usize, Broken>> {
        let LegPort { range, number } = LegPort::of_token(token);
        let idle = &mut self.lock()[range as usize];
        let error = match read(idle.legs.get(&number)?.socket(token)?) {
            Ok(count) => return Some(Ok(count)),
            Err(error) => error,
        };
        idle.order.retain(|port| *port != number);
        idle.legs.remove(&number).map(|leg| Err(Broken { leg, error }))
    }

    /// Returns how many legs of a range wait.
    pub(super) fn len(&self, range: PortRange) -> usize {
        self.lock()[range as usize].legs.len()
    }

    /// A thread may have died over a read; what the lock guards is whole nevertheless, since nothing
    /// panics between the two steps of a change.
    fn lock(&self) -> MutexGuard<'_, [Idle; PortRange::COUNT]> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sockets that cannot be kept, and why.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) leg: LegSockets,
    pub(super) error: io::Error,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn leg(range: PortRange, number: u16) -> LegSockets {
        let port = LegPort { range, number };
        let leg = LegSockets::bind(IpAddr::V4(Ipv4Addr::LOCALHOST), port, 0).unwrap();
        LegSockets { watched: true, ..leg }
    }

    #[test]
    fn the_longest_rested_is_used_first_and_ranges_stay_apart() {
        let idle = IdleSockets::new(8);
        for (range, number) in
            [(PortRange::Trunk, 41_402), (PortRange::Overlay, 41_404), (PortRange::Trunk, 41_400)]
        {
            idle.put(leg(range, number)).unwrap();
        }
        let take = |range| idle.take(range).map(|leg| leg.port.number);
        assert_eq!([take(PortRange::Trunk), take(PortRange::Trunk)], [Some(41_402), Some(41_400)]);
        assert_eq!(take(PortRange::Trunk), None);
        assert_eq!([take(PortRange::Overlay), take(PortRange::Overlay)], [Some(41_404), None]);
    }

    #[test]
    fn no_more_are_kept_than_may_be_and_none_that_nobody_watches() {
        let idle = IdleSockets::new(2);
        let unwatched = LegSockets { watched: false, ..leg(PortRange::Trunk, 41_410) };
        assert_eq!(idle.put(unwatched).unwrap_err().port.number, 41_410);
        for number in [41_412, 41_414] {
            idle.put(leg(PortRange::Trunk, number)).unwrap();
        }
        assert_eq!(idle.put(leg(PortRange::Trunk, 41_416)).unwrap_err().port.number, 41_416);
        idle.put(leg(PortRange::Overlay, 41_418)).unwrap();
        assert_eq!([idle.len(PortRange::Trunk), idle.len(PortRange::Overlay)], [2, 1]);
    }

    #[test]
    fn a_socket_that_errs_is_not_kept() {
        let idle = IdleSockets::new(8);
        let kept = leg(PortRange::Trunk, 41_420);
        let (rtp, rtcp) = kept.tokens();
        idle.put(kept).unwrap();
        idle.put(leg(PortRange::Trunk, 41_422)).unwrap();
        assert_eq!(idle.read(rtp, |_| Ok(3)).unwrap().unwrap(), 3);
        let broken =
            idle.read(rtcp.unwrap(), |_| Err(io::ErrorKind::NotConnected.into())).unwrap().unwrap_err();
        assert_eq!((broken.leg.port.number, broken.error.kind()), (41_420, io::ErrorKind::NotConnected));
        assert!(idle.read(rtp, |_| panic!("nothing to read from")).is_none());
        assert_eq!(idle.take(PortRange::Trunk).unwrap().port.number, 41_422);
        assert!(idle.take(PortRange::Trunk).is_none() && idle.len(PortRange::Trunk) == 0);
    }
}
