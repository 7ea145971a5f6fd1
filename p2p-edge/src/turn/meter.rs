//! Buckets of tokens in virtual time: what an allocation may relay, and how often a stranger is
//! answered.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::routing::subscriber;

/// How long the bucket of an address takes to fill, at the longest: it is forgotten then.
const FORGET: Duration = Duration::from_secs(10);
/// Addresses whose answers are counted. While all are in use, strangers from others get none.
const MAX_SOURCES: usize = 65_536;

/// A bucket of tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meter {
    /// In millionths of a token.
    left: u64,
    at: Instant,
}

/// Millionths of a token.
const MICRO: u64 = 1_000_000;

impl Meter {
    /// A full bucket.
    pub(crate) fn full(burst: u64, now: Instant) -> Self {
        Self { left: burst.saturating_mul(MICRO), at: now }
    }

    /// Takes tokens, or none where there are too few. `rate` come back each second, up to `burst`.
    pub(crate) fn take(&mut self, now: Instant, tokens: u64, rate: u64, burst: u64) -> bool {
        let micros = u64::try_from(now.saturating_duration_since(self.at).as_micros()).unwrap_or(u64::MAX);
        let most = burst.saturating_mul(MICRO);
        self.left = self.left.saturating_add(micros.saturating_mul(rate)).min(most);
        self.at = now;
        match self.left.checked_sub(tokens.saturating_mul(MICRO)) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

/// How often strangers are answered, by the address they write. It may be somebody else's, to whom
/// the answers go.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    sources: HashMap<IpAddr, Meter>,
}

impl Answers {
    /// Says whether one more answer may go to an address: `rate` a second, four seconds' worth at
    /// once.
    pub(crate) fn take(&mut self, now: Instant, to: IpAddr, rate: u32) -> bool {
        let (key, rate) = (subscriber(to), u64::from(rate));
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&key) {
            self.sources.retain(|_, meter| now.saturating_duration_since(meter.at) < FORGET);
            if self.sources.len() >= MAX_SOURCES {
                return false;
            }
        }
        self.sources.entry(key).or_insert_with(|| Meter::full(rate * 4, now)).take(now, 1, rate, rate * 4)
    }

    /// Forgets addresses whose buckets are full again.
    pub(crate) fn forget(&mut self, now: Instant) {
        self.sources.retain(|_, meter| now.saturating_duration_since(meter.at) < FORGET);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }
}
