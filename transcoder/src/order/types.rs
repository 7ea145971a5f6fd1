//! What goes into a jitter buffer, what comes out of it, and what it counts.

use std::time::Duration;

use call_model::Codec;

use super::stretch::Pace;

/// How a [`JitterBuffer`](super::JitterBuffer) works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JitterConfig {
    /// Clock of the timestamps in Hz, at least 1000.
    pub clock_rate: u32,
    /// The least a packet is held back.
    pub min_delay: Duration,
    /// The most a packet is held back.
    pub max_delay: Duration,
    /// The consumer's tick.
    pub tick: Duration,
    /// Longest payload kept, in octets.
    pub max_payload: usize,
}

impl JitterConfig {
    /// Returns the usual settings for G.711 and G.722, of which an octet is a tick: payloads up to 80 ms.
    pub fn g711() -> Self {
        Self::with(8_000, 640)
    }

    /// Returns the usual settings for Opus.
    pub fn opus() -> Self {
        Self::with(48_000, crate::codec::opus::MAX_PACKET + 1)
    }

    /// Returns the usual settings for a codec.
    pub fn for_codec(codec: Codec) -> Self {
        match codec {
            Codec::Opus => Self::opus(),
            Codec::Pcmu | Codec::Pcma | Codec::G722 => Self::g711(),
        }
    }

    fn with(clock_rate: u32, max_payload: usize) -> Self {
        Self {
            clock_rate,
            min_delay: Duration::from_millis(20),
            max_delay: Duration::from_millis(200),
            tick: Duration::from_millis(20),
            max_payload,
        }
    }
}

/// What the buffer needs to know of a packet besides its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its source.
    pub ssrc: u32,
    /// Its sequence number.
    pub sequence: u16,
    /// Its timestamp.
    pub timestamp: u32,
    /// Its marker bit.
    pub marker: bool,
    /// The audio in it, in ticks; 0 if unknown, which means as much as in the one before.
    pub duration: u32,
    /// Whether it is DTX or comfort noise: nothing following it is then no loss.
    pub silence: bool,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It waits for its turn.
    Queued,
    /// Its number was there before, or a copy of it was played (RFC 2198).
    Duplicate,
    /// Its time has passed.
    Late,
    /// Newer packets fill the buffer.
    Overflow,
    /// Its payload is longer than configured.
    TooLarge,
    /// It does not continue the stream; it is kept until a second packet confirms it.
    Probation,
    /// It waits for its turn in a stream that started over with it or the one before.
    Restarted,
}

/// What to play next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A packet.
    Packet {
        /// Its payload.
        payload: &'a [u8],
        /// Its RTP timestamp.
        timestamp: u32,
        /// The audio in it, in ticks; 0 if it was never known.
        duration: u32,
        /// Its marker bit.
        marker: bool,
        /// Whether it is DTX or comfort noise.
        silence: bool,
        /// How its playout should differ from what was sent.
        pace: Pace,
    },
    /// A packet is missing.
    Lost {
        /// The audio to make up, in ticks.
        duration: u32,
        /// The packet straight after the gap, if it is there: it may carry FEC. It will be
        /// popped in its turn all the same.
        next: Option<&'a [u8]>,
    },
    /// The sender paused: comfort noise.
    Silence {
        /// The audio to make up, in ticks.
        duration: u32,
    },
    /// Nothing is being received: comfort noise for one tick.
    Empty,
}

/// Counts since the buffer was built. Every packet received is, in the end, exactly one of
/// played, late, discarded or duplicate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JitterCounters {
    /// Packets inserted.
    pub received: u64,
    /// Packets popped.
    pub played: u64,
    /// Packets that never came.
    pub lost: u64,
    /// Those of them of which a copy was played (RFC 2198).
    pub recovered: u64,
    /// Packets that came after their time.
    pub late: u64,
    /// Packets dropped by the buffer: too large, overflow, excess delay, unconfirmed or
    /// outdated by a restart.
    pub discarded: u64,
    /// Packets that had come before.
    pub duplicates: u64,
    /// Times the stream started over: another SSRC, a jump, a slower path.
    pub restarts: u64,
    /// Packets that came when something had been made up in their place, and were played after it.
    pub waits: u64,
}
