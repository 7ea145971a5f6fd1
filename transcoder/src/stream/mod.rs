//! What lies between the packets of a leg and linear PCM: for each codec a receiver (jitter
//! buffer, decoder, loss concealment, telephone events) and a sender (encoder, telephone events).

pub(crate) mod coding;
pub(crate) mod edge_receiver;
pub(crate) mod edge_sender;
mod history;
pub(crate) mod opus;
pub(crate) mod passage;
pub(crate) mod sampled;

use std::time::Duration;

/// How much audio moves at once.
pub(crate) const TICK: Duration = Duration::from_millis(20);

/// How long packets are held back at least while they carry voiceband data: what is late then is lost to a modem,
/// and no delay that a call can have disturbs one.
pub(crate) const VOICEBAND_DELAY: Duration = Duration::from_millis(100);

/// What a receiver had to play in a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Played {
    /// The far end's audio, or what conceals its loss.
    Audio,
    /// Nothing comes in at present; the frame is comfort noise.
    Nothing,
}

/// A queue of samples in one allocation, made once.
#[derive(Debug)]
pub(crate) struct Fifo {
    samples: Box<[i16]>,
    length: usize,
    /// Samples up to the last mark.
    marked: usize,
}

impl Fifo {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { samples: vec![0; capacity].into_boxed_slice(), length: 0, marked: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn clear(&mut self) {
        (self.length, self.marked) = (0, 0);
    }

    /// Marks the samples that are there.
    pub(crate) fn mark(&mut self) {
        self.marked = self.length;
    }

    /// Says whether any marked sample is left.
    pub(crate) fn is_marked(&self) -> bool {
        self.marked > 0
    }

    /// Appends samples. The oldest give way when there is no room.
    pub(crate) fn push(&mut self, samples: &[i16]) {
        let samples = &samples[samples.len().saturating_sub(self.samples.len())..];
        let excess = (self.length + samples.len()).saturating_sub(self.samples.len());
        self.drop_oldest(excess);
        self.samples[self.length..self.length + samples.len()].copy_from_slice(samples);
        self.length += samples.len();
    }

    /// Takes what there is, up to the length of `out`, and returns how much that was.
    pub(crate) fn pop_some(&mut self, out: &mut [i16]) -> usize {
        let count = self.length.min(out.len());
        out[..count].copy_from_slice(&self.samples[..count]);
        self.drop_oldest(count);
        count
    }

    /// Fills `out` whole, or takes nothing.
    pub(crate) fn pop(&mut self, out: &mut [i16]) -> bool {
        if self.length < out.len() {
            return false;
        }
        out.copy_from_slice(&self.samples[..out.len()]);
        self.drop_oldest(out.len());
        true
    }

    /// Appends what another queue holds, marked, and empties that.
    pub(crate) fn take_all(&mut self, other: &mut Self) {
        if other.length > 0 {
            self.push(&other.samples[..other.length]);
            self.mark();
        }
        other.clear();
    }

    pub(crate) fn drop_oldest(&mut self, count: usize) {
        let count = count.min(self.length);
        self.samples.copy_within(count..self.length, 0);
        self.length -= count;
        self.marked = self.marked.saturating_sub(count);
    }
}

#[cfg(test)]
mod tests;
