use std::collections::VecDeque;
use std::ops::RangeInclusive;

/// Hands out UDP ports in turn, so that a port that was given back is the last to be used again.
/// The quarantine itself is kept by the media worker, which holds the socket open meanwhile.
#[derive(Debug)]
pub(crate) struct PortPool {
    free: VecDeque<u16>,
    size: usize,
}

impl PortPool {
    /// Builds a pool of even ports whose odd neighbour is in the range too (RFC 3550 11).
    pub(crate) fn pairs(range: &RangeInclusive<u16>) -> Self {
        let last = *range.end();
        Self::of(range.clone().filter(|port| port % 2 == 0 && *port < last))
    }

    /// Builds a pool of single ports.
    pub(crate) fn singles(range: &RangeInclusive<u16>) -> Self {
        Self::of(range.clone())
    }

    fn of(ports: impl Iterator<Item = u16>) -> Self {
        let free: VecDeque<u16> = ports.collect();
        Self { size: free.len(), free }
    }

    /// Takes the port that has rested longest.
    pub(crate) fn take(&mut self) -> Option<u16> {
        self.free.pop_front()
    }

    /// Gives a port back.
    pub(crate) fn give_back(&mut self, port: u16) {
        debug_assert!(!self.free.contains(&port), "port {port} was given back twice");
        self.free.push_back(port);
    }

    /// Gives a port back that has rested: it is the next to be used.
    pub(crate) fn give_back_rested(&mut self, port: u16) {
        debug_assert!(!self.free.contains(&port), "port {port} was given back twice");
        self.free.push_front(port);
    }

    /// Returns how many ports can be taken.
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// Returns how many ports there are in all.
    pub(crate) fn size(&self) -> usize {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_even_and_complete() {
        let mut pool = PortPool::pairs(&(10_001..=10_006));
        assert_eq!([pool.take(), pool.take(), pool.take()], [Some(10_002), Some(10_004), None]);
    }

    #[test]
    fn a_port_given_back_is_used_last() {
        let mut pool = PortPool::singles(&(10..=12));
        assert_eq!(pool.take(), Some(10));
        pool.give_back(10);
        assert_eq!([pool.take(), pool.take(), pool.take()], [Some(11), Some(12), Some(10)]);
        assert_eq!((pool.free(), pool.size()), (0, 3));
        pool.give_back(12);
        pool.give_back_rested(11);
        assert_eq!([pool.take(), pool.take()], [Some(11), Some(12)], "unless it rested elsewhere");
    }
}
