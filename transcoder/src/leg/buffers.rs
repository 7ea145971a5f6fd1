//! Payloads of received packets, without an allocation for each.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Buffers kept for use at most: more payloads than this are not held at once as a rule.
const KEPT: usize = 4;

/// The payload of a packet: a part of a buffer that is used again once nobody holds it.
#[derive(Clone)]
pub struct Payload {
    buffer: Arc<[u8]>,
    range: Range<usize>,
}

impl Payload {
    /// Returns another part of the packet it is of; empty if there is none such.
    pub(crate) fn beside(&self, range: &Range<usize>) -> &[u8] {
        self.buffer.get(range.clone()).unwrap_or_default()
    }
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.buffer.get(self.range.clone()).unwrap_or_default()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({})", self.len())
    }
}

/// The buffers of one leg.
pub(crate) struct Buffers {
    size: usize,
    kept: Vec<Arc<[u8]>>,
}

impl Buffers {
    /// Begins without any, for datagrams of `size` octets at most.
    pub(crate) fn new(size: usize) -> Self {
        Self { size, kept: Vec::with_capacity(KEPT) }
    }

    /// Copies a datagram into a buffer that nobody holds, lets `work` turn it into a payload there, and
    /// returns that with what else `work` says. `None` if the datagram is too long.
    pub(crate) fn fill<T, E>(
        &mut self,
        datagram: &[u8],
        work: impl FnOnce(&mut [u8]) -> Result<(Range<usize>, T), E>,
    ) -> Option<Result<(Payload, T), E>> {
        if datagram.len() > self.size {
            return None;
        }
        let free = self.kept.iter_mut().position(|buffer| Arc::get_mut(buffer).is_some());
        let mut fresh;
        let buffer = match free {
            Some(at) => &mut self.kept[at],
            None => {
                fresh = Arc::from(vec![0; self.size]);
                if self.kept.len() < KEPT {
                    self.kept.push(fresh);
                    self.kept.last_mut()?
                } else {
                    &mut fresh
                }
            }
        };
        let bytes = Arc::get_mut(buffer)?.get_mut(..datagram.len())?;
        bytes.copy_from_slice(datagram);
        Some(work(bytes).map(|(range, facts)| (Payload { buffer: Arc::clone(buffer), range }, facts)))
    }
}
