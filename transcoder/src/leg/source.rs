//! Which of the synchronisation sources on a negotiated address is heard (RFC 3550 8.2, A.1).

use std::time::{Duration, Instant};

use super::rtp::{Refusal, SSRC_RUN};

/// A source that went on beside the one after it this many times is the rest of another call, or of a stream that
/// the other side has left ...
const OVERLAPS: u8 = 3;
/// ... and is heard again only once the one after it has been silent this long.
const SILENCE: Duration = Duration::from_secs(1);
/// Sources of earlier calls that are remembered.
pub(super) const MAX_FORMER: usize = 4;

#[derive(Clone, Copy, Debug)]
struct Source {
    ssrc: u32,
    /// Of two that both send, the one that was heard first is the one that was left.
    born: u32,
    heard_at: Instant,
}

/// The source that is heard, and the one before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sources {
    pinned: Option<Source>,
    former: Option<Source>,
    /// Another, the number of its last packet, and how many came in sequence.
    candidate: Option<(u32, u16, u8)>,
    /// How often the pinned source was heard after a packet of the former, and whether one just came.
    overlaps: u8,
    overlapping: bool,
    births: u32,
    /// Of calls before this on the same port.
    foreign: [Option<u32>; MAX_FORMER],
}

impl Sources {
    /// Begins anew for another address. What earlier calls left stays unwanted.
    pub(super) fn reset(&mut self) {
        *self = Self { foreign: self.foreign, ..Self::default() };
    }

    /// Never hears these sources: the last [`MAX_FORMER`] that were told.
    pub(super) fn refuse(&mut self, sources: &[u32]) {
        for &ssrc in sources {
            if !self.foreign.contains(&Some(ssrc)) {
                self.foreign.rotate_right(1);
                self.foreign[0] = Some(ssrc);
            }
        }
    }

    /// Returns the source that is heard.
    pub(super) fn pinned(&self) -> Option<u32> {
        self.pinned.map(|source| source.ssrc)
    }

    /// Says whether a packet is heard, and whether its source takes over with it. What SRTP has authenticated is of
    /// the other side, and needs no run.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        ssrc: u32,
        sequence: u16,
        authentic: bool,
    ) -> Result<bool, Refusal> {
        if self.foreign.contains(&Some(ssrc)) && !authentic {
            return Err(Refusal::Ssrc);
        }
        let Some(pinned) = &mut self.pinned else {
            self.pin(now, ssrc);
            return Ok(false);
        };
        let is_former = self.former.is_some_and(|former| former.ssrc == ssrc);
        if pinned.ssrc == ssrc {
            pinned.heard_at = now;
            let left_first = self.former.is_some_and(|former| former.born < pinned.born);
            if std::mem::take(&mut self.overlapping) && left_first {
                self.overlaps = self.overlaps.saturating_add(1);
            }
            // What the other side has left is to be heard alone before it is believed again. A source that is new,
            // or was heard after this one, takes over whether this one goes on or not.
            if self.candidate.is_some_and(|(candidate, ..)| self.is_older(candidate)) {
                self.candidate = None;
            }
            return Ok(false);
        }
        self.overlapping |= is_former;
        let silent = now.saturating_duration_since(pinned.heard_at) >= SILENCE;
        let run = match self.candidate {
            Some((candidate, last, run)) if candidate == ssrc && sequence == last.wrapping_add(1) => {
                run.saturating_add(1)
            }
            _ => 1,
        };
        let believed = run >= SSRC_RUN || (authentic && !is_former);
        let stale = is_former && self.is_older(ssrc) && self.overlaps >= OVERLAPS && !silent;
        if !believed || stale {
            self.candidate = Some((ssrc, sequence, run));
            return Err(Refusal::Ssrc);
        }
        self.pin(now, ssrc);
        Ok(true)
    }

    /// Says whether a source was heard before the pinned one was.
    fn is_older(&self, ssrc: u32) -> bool {
        let born = self.former.filter(|former| former.ssrc == ssrc).map(|former| former.born);
        born.zip(self.pinned).is_some_and(|(born, pinned)| born < pinned.born)
    }

    fn pin(&mut self, now: Instant, ssrc: u32) {
        let born = match self.former.filter(|former| former.ssrc == ssrc) {
            Some(former) => former.born,
            None => {
                self.births = self.births.wrapping_add(1);
                self.overlaps = 0;
                self.births
            }
        };
        self.former = self.pinned.replace(Source { ssrc, born, heard_at: now });
        (self.candidate, self.overlapping) = (None, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 3550 8.2: of two that send at once, the one that was left is not heard for a moment's gap of the other.
    #[test]
    fn f23_a_source_that_was_left_and_goes_on_is_heard_again_after_a_second_alone() {
        #[allow(clippy::disallowed_methods)]
        let mut now = Instant::now();
        let mut sources = Sources::default();
        let mut admit = |sources: &mut Sources, ssrc, sequence| {
            now += Duration::from_millis(10);
            sources.admit(now, ssrc, sequence, false)
        };
        assert_eq!(admit(&mut sources, 1, 0), Ok(false));
        // The second takes over although the first goes on.
        for n in 0..10u16 {
            let new = admit(&mut sources, 2, 500 + n);
            assert_eq!(new, if n == 0 { Err(Refusal::Ssrc) } else { Ok(n == 1) }, "{n}");
            let old = admit(&mut sources, 1, 1 + n);
            assert_eq!(old, if n == 0 { Ok(false) } else { Err(Refusal::Ssrc) }, "{n}");
        }
        // A gap of the second, and then only the first.
        for n in 0..95u16 {
            assert_eq!(admit(&mut sources, 1, 11 + n), Err(Refusal::Ssrc), "{n}");
        }
        assert!((95..120).any(|n| admit(&mut sources, 1, 11 + n) == Ok(true)));
        // The second was heard last: it needs no more than its two packets.
        assert_eq!(admit(&mut sources, 2, 900), Err(Refusal::Ssrc));
        assert_eq!(admit(&mut sources, 1, 200), Ok(false));
        assert_eq!(admit(&mut sources, 2, 901), Ok(true));
    }

    #[test]
    fn a_source_that_comes_back_after_another_has_ended_needs_two_packets() {
        #[allow(clippy::disallowed_methods)]
        let now = Instant::now();
        let mut sources = Sources::default();
        for (ssrc, sequence, outcome) in [
            (1, 5, Ok(false)),
            (2, 90, Err(Refusal::Ssrc)),
            (2, 91, Ok(true)),
            (1, 6, Err(Refusal::Ssrc)),
            (2, 92, Ok(false)),
            (1, 7, Err(Refusal::Ssrc)),
            (1, 8, Ok(true)),
        ] {
            assert_eq!(sources.admit(now, ssrc, sequence, false), outcome, "{ssrc} {sequence}");
        }
    }
}
