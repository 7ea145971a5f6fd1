//! G.722: wideband audio, 50 Hz to 7 kHz, at 64 kbit/s (ITU-T G.722 mode 1).
//!
//! A pair of mirror filters splits 16 kHz into two bands, each of which is coded as the difference
//! to what its past predicts: six bits for the lower, two for the higher, one octet for two samples.
//! The arithmetic is that of the recommendation to the last bit. RTP counts its time by
//! [`CLOCK_RATE`], which is half of the sampling rate by an old mistake (RFC 3551 4.5.2).

mod band;
mod tables;
#[cfg(test)]
mod tests;

use band::{Band, Kind, fraction, saturate};
use tables::{HIGH_PASS, HIGH_TWO_BITS, LOW_LEVELS, LOW_NEGATIVE, LOW_PASS, LOW_POSITIVE, LOW_SIX_BITS};

/// RTP clock of G.722 in Hz: an octet is a tick (RFC 3551 4.5.2).
pub const CLOCK_RATE: u32 = 8_000;

/// Samples per second.
pub const SAMPLE_RATE: u32 = 16_000;

/// Samples by which what was encoded and decoded comes later: 1.4 ms.
pub const DELAY: usize = 22;

/// Samples that the mirror filters look at.
const SPAN: usize = 24;
/// What is filtered at once, in pairs of samples.
const BLOCK: usize = 80;

/// The past of a mirror filter and the block that follows it, so that no sample is moved more than once a block.
#[derive(Clone, Debug)]
struct Past {
    samples: [i16; SPAN - 2 + 2 * BLOCK],
}

impl Past {
    fn new() -> Self {
        Self { samples: [0; SPAN - 2 + 2 * BLOCK] }
    }

    /// Filters a pair of a block with the low-pass and with the high-pass.
    fn filter(&self, pair: usize) -> (i32, i32) {
        let span = &self.samples[2 * pair..2 * pair + SPAN];
        let dot = |taps: &[i16; SPAN]| -> i32 {
            span.iter().zip(taps).map(|(&sample, &tap)| i32::from(sample) * i32::from(tap)).sum()
        };
        (dot(&LOW_PASS), dot(&HIGH_PASS))
    }

    /// Makes the last of `pairs` the past of the next block.
    fn keep(&mut self, pairs: usize) {
        self.samples.copy_within(2 * pairs..2 * pairs + SPAN - 2, 0);
    }
}

/// Limits to the 15 bits of a band.
fn limit(value: i32) -> i32 {
    value.clamp(-16_384, 16_383)
}

/// Encodes 16 kHz. Holds all its state and allocates nothing.
#[derive(Clone, Debug)]
pub struct Encoder {
    low: Band,
    high: Band,
    past: Past,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// Builds an encoder in the state that the recommendation resets to.
    pub fn new() -> Self {
        Self { low: Band::new(Kind::Low), high: Band::new(Kind::High), past: Past::new() }
    }

    /// Encodes as many pairs of samples as both slices hold and returns how many octets that were. A last sample
    /// without a second is left out.
    pub fn encode(&mut self, samples: &[i16], codes: &mut [u8]) -> usize {
        let octets = (samples.len() / 2).min(codes.len());
        for (samples, codes) in samples[..2 * octets].chunks(2 * BLOCK).zip(codes[..octets].chunks_mut(BLOCK))
        {
            self.past.samples[SPAN - 2..SPAN - 2 + samples.len()].copy_from_slice(samples);
            for (pair, code) in codes.iter_mut().enumerate() {
                let (low, high) = self.past.filter(pair);
                // LOWT and HIGHT: of 16 bits each band gets 15.
                let low = self.encode_low(limit(low >> 14));
                let high = self.encode_high(limit(high >> 14));
                *code = high << 6 | low;
            }
            self.past.keep(codes.len());
        }
        octets
    }

    /// SUBTRA and QUANTL.
    fn encode_low(&mut self, sample: i32) -> u8 {
        let difference = saturate(sample - self.low.prediction);
        let magnitude = if difference < 0 { !difference } else { difference };
        let scale = self.low.scale;
        let interval = LOW_LEVELS.partition_point(|&level| magnitude >= (i32::from(level) * scale) >> 12);
        let code = if difference < 0 { LOW_NEGATIVE[interval] } else { LOW_POSITIVE[interval] };
        self.low.adapt(usize::from(code >> 2));
        code
    }

    /// SUBTRA and QUANTH.
    fn encode_high(&mut self, sample: i32) -> u8 {
        let difference = saturate(sample - self.high.prediction);
        let magnitude = if difference < 0 { !difference } else { difference };
        let beyond = magnitude >= (564 * self.high.scale) >> 12;
        let code = match (difference < 0, beyond) {
            (true, false) => 1,
            (true, true) => 0,
            (false, false) => 3,
            (false, true) => 2,
        };
        self.high.adapt(usize::from(code));
        code
    }

    /// Forgets all history, so that the state may serve another call.
    pub fn reset(&mut self) {
        *self = Self::new();
    }
}

/// Decodes to 16 kHz. Holds all its state and allocates nothing.
#[derive(Clone, Debug)]
pub struct Decoder {
    low: Band,
    high: Band,
    past: Past,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// Builds a decoder in the state that the recommendation resets to.
    pub fn new() -> Self {
        Self { low: Band::new(Kind::Low), high: Band::new(Kind::High), past: Past::new() }
    }

    /// Decodes as many octets as both slices have room for and returns how many samples that were: two an octet.
    /// There is no code that is malformed.
    pub fn decode(&mut self, codes: &[u8], samples: &mut [i16]) -> usize {
        let octets = codes.len().min(samples.len() / 2);
        for (codes, samples) in codes[..octets].chunks(BLOCK).zip(samples[..2 * octets].chunks_mut(2 * BLOCK))
        {
            for (&code, pair) in codes.iter().zip(self.past.samples[SPAN - 2..].as_chunks_mut::<2>().0) {
                let low = reconstruct(&mut self.low, LOW_SIX_BITS[usize::from(code & 0x3f)], code >> 2);
                let high = reconstruct(&mut self.high, HIGH_TWO_BITS[usize::from(code >> 6)], code >> 6);
                // RECA and RECB: both fit in 16 bits.
                *pair = [(low + high) as i16, (low - high) as i16];
            }
            for (n, pair) in samples.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                let (low, high) = self.past.filter(n);
                // ACCUMC and ACCUMD: the sum of both filters is twice what the odd taps alone give, their difference
                // what the even ones do. 15 bits become 16.
                *pair = [saturate((low + high) >> 12) as i16, saturate((low - high) >> 12) as i16];
            }
            self.past.keep(codes.len());
        }
        2 * octets
    }

    /// Forgets all history, so that the state may serve another call.
    pub fn reset(&mut self) {
        *self = Self::new();
    }
}

/// Adds to what a band predicts the difference of a code, a multiple of its scale, and adapts to the code.
fn reconstruct(band: &mut Band, multiple: i16, code: u8) -> i32 {
    let sample = limit(band.prediction + fraction(band.scale, multiple.into()));
    band.adapt(usize::from(code));
    sample
}
