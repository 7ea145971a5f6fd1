//! The decision itself: loss, bursts, jitter and round trip in, G.711 or Opus out.

use std::time::{Duration, Instant};

use super::EdgeCodec;

/// Peace after the leg is connected, before G.711 is sent for the first time.
const START: Duration = Duration::from_secs(4);
/// Peace before it is sent again, the first time and at most: doubled each time that it was soon given up.
const FIRST_HOLD_OFF: Duration = Duration::from_secs(30);
const LONGEST_HOLD_OFF: Duration = Duration::from_secs(480);
/// G.711 that lasted this long was no mistake, and the hold-off begins small again.
const SETTLED: Duration = Duration::from_secs(120);
/// Loss in per cent at which there is no peace, and at which G.711 is given up: its concealment is heard from
/// there on, where the FEC of Opus still mends.
const UNREST_PERCENT: f32 = 1.0;
const TROUBLE_PERCENT: f32 = 2.0;
/// Jitter in milliseconds, to the same ends. It grows where a queue does.
const UNREST_JITTER_MS: f32 = 30.0;
const TROUBLE_JITTER_MS: f32 = 60.0;
/// A round trip longer than the shortest by this much is a queue that four times the bits would lengthen.
const TROUBLE_QUEUE: Duration = Duration::from_millis(250);
/// Seconds of reception that are looked at together.
const WINDOW: usize = 5;
/// How often reception is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Counts of what came from the other side, since the leg began, and the state of the path.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// Packets received.
    pub(crate) received: u64,
    /// Packets lost.
    pub(crate) lost: u64,
    /// Times that three packets or more were lost in a row.
    pub(crate) bursts: u64,
    /// Interarrival jitter in milliseconds.
    pub(crate) jitter_ms: f32,
    /// The last round trip time, if any.
    pub(crate) round_trip: Option<Duration>,
}

/// Decides between G.711 and Opus. Pure: times are arguments.
#[derive(Clone, Debug)]
pub(crate) struct EdgeControl {
    policy: EdgeCodec,
    connected: bool,
    g711: bool,
    /// When the last loss was, or the beginning.
    peace_since: Option<Instant>,
    hold_off: Duration,
    began: Option<Instant>,
    look_at: Option<Instant>,
    /// The counts of the last seconds, the newest last.
    window: [Seen; WINDOW],
    shortest_round_trip: Option<Duration>,
}

impl EdgeControl {
    pub(crate) fn new(policy: EdgeCodec) -> Self {
        Self {
            policy,
            connected: false,
            g711: false,
            peace_since: None,
            hold_off: START,
            began: None,
            look_at: None,
            window: [Seen::default(); WINDOW],
            shortest_round_trip: None,
        }
    }

    /// Goes on by another policy.
    pub(crate) fn set_policy(&mut self, policy: EdgeCodec) {
        self.policy = policy;
    }

    /// The leg is connected: time counts from here.
    pub(crate) fn connected(&mut self, now: Instant) {
        self.connected = true;
        self.peace_since = Some(now);
        self.look_at = Some(now + LOOK);
    }

    /// Takes the loss in per cent that the other side reports of what was sent to it.
    pub(crate) fn reported(&mut self, now: Instant, percent: f32) {
        if percent >= TROUBLE_PERCENT {
            self.trouble(now);
        } else if percent >= UNREST_PERCENT {
            self.unrest(now);
        }
    }

    /// Says whether it is time for [`look`](Self::look).
    pub(crate) fn wants_look(&self, now: Instant) -> bool {
        self.policy == EdgeCodec::Auto && self.look_at.is_some_and(|at| at <= now)
    }

    /// Takes what was seen here: the path to the other side is likely to be no better than the one back.
    pub(crate) fn look(&mut self, now: Instant, seen: Seen) {
        self.look_at = Some(now + LOOK);
        let [oldest, .., last] = self.window;
        self.window.rotate_left(1);
        self.window[WINDOW - 1] = seen;
        let received = seen.received.saturating_sub(oldest.received);
        let lost = seen.lost.saturating_sub(oldest.lost);
        let percent = if lost == 0 { 0.0 } else { lost as f32 * 100.0 / (received + lost) as f32 };
        let queue = seen.round_trip.is_some_and(|round_trip| {
            let shortest = self.shortest_round_trip.get_or_insert(round_trip);
            *shortest = round_trip.min(*shortest);
            round_trip.saturating_sub(*shortest) >= TROUBLE_QUEUE
        });
        let burst = seen.bursts > last.bursts;
        if percent >= TROUBLE_PERCENT || burst || queue || seen.jitter_ms >= TROUBLE_JITTER_MS {
            self.trouble(now);
        } else if percent >= UNREST_PERCENT || seen.jitter_ms >= UNREST_JITTER_MS {
            self.unrest(now);
        }
    }

    /// Says whether G.711 is to be sent from now on.
    pub(crate) fn wants_g711(&mut self, now: Instant) -> bool {
        match self.policy {
            EdgeCodec::Never => false,
            EdgeCodec::Always => self.connected,
            EdgeCodec::Auto => {
                let peace = self.peace_since.map(|since| now.saturating_duration_since(since));
                if !self.g711 && peace.is_some_and(|peace| peace >= self.hold_off) {
                    self.g711 = true;
                    self.began = Some(now);
                }
                self.g711
            }
        }
    }

    fn unrest(&mut self, now: Instant) {
        if !self.g711 && self.connected {
            self.peace_since = Some(now);
        }
    }

    fn trouble(&mut self, now: Instant) {
        if !self.connected {
            return;
        }
        self.peace_since = Some(now);
        let given_up = std::mem::take(&mut self.g711);
        let lasted = self.began.map(|began| now.saturating_duration_since(began));
        self.hold_off = match lasted {
            Some(lasted) if given_up && lasted < SETTLED && self.hold_off >= FIRST_HOLD_OFF => {
                (self.hold_off * 2).min(LONGEST_HOLD_OFF)
            }
            _ if given_up => FIRST_HOLD_OFF,
            _ => self.hold_off.max(FIRST_HOLD_OFF),
        };
    }
}
