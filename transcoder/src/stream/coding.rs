//! The sample-based encodings of a trunk leg (RFC 3551 4.3): an octet of each is a tick of a clock of 8 kHz, which is
//! one sample of G.711 and two of G.722.

use call_model::Codec;

use crate::codec::g711::Law;
use crate::codec::g722;
use crate::codec::resample::Resampler;

/// Sampling rate of the narrow band in Hz, and that of the clock in RTP.
pub(crate) const NARROW: u32 = 8_000;
/// Sampling rate of the wide band in Hz.
pub(crate) const WIDE: u32 = g722::SAMPLE_RATE;
/// Octets that are decoded at once: 120 ms.
pub(super) const LONGEST: usize = 960;
/// Samples that are resampled at once.
const BLOCK: usize = 320;

/// What the octets of a payload are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Law(Law),
    G722,
}

impl Coding {
    /// `None` for Opus, which is coded by frames.
    pub(crate) fn of(codec: Codec) -> Option<Self> {
        match codec {
            Codec::G722 => Some(Coding::G722),
            codec => Law::of(codec).map(Coding::Law),
        }
    }

    /// Returns the law, if it is G.711.
    pub(crate) fn law(self) -> Option<Law> {
        match self {
            Coding::Law(law) => Some(law),
            Coding::G722 => None,
        }
    }

    /// Returns the sampling rate in Hz.
    pub(crate) fn sample_rate(self) -> u32 {
        match self {
            Coding::Law(_) => NARROW,
            Coding::G722 => WIDE,
        }
    }
}

/// Returns a resampler between the two bands. Only a rate that there is not could be refused.
pub(crate) fn resampler(from: u32, to: u32) -> Option<Box<Resampler>> {
    if from == to { None } else { Resampler::new(from, to).ok().map(Box::new) }
}

/// Octets in, PCM out at one rate, whatever the coding. Allocates when built, and when G.722 is to be expected or the
/// rates come to differ.
#[derive(Debug)]
pub(super) struct Decoder {
    coding: Coding,
    sample_rate: u32,
    g722: Option<Box<g722::Decoder>>,
    /// From the rate of the coding to that of the output, by coding.
    from_law: Option<Box<Resampler>>,
    from_g722: Option<Box<Resampler>>,
}

impl Decoder {
    pub(super) fn new(sample_rate: u32) -> Self {
        let coding = Coding::Law(Law::A);
        Self { coding, sample_rate, g722: None, from_law: resampler(NARROW, sample_rate), from_g722: None }
    }

    pub(super) fn coding(&self) -> Coding {
        self.coding
    }

    /// Makes all that G.722 takes, so that it may come at any time.
    pub(super) fn expect_g722(&mut self) {
        if self.g722.is_none() {
            self.g722 = Some(Box::default());
            self.from_g722 = resampler(WIDE, self.sample_rate);
        }
    }

    /// Returns whether a coding can be decoded.
    pub(super) fn knows(&self, coding: Coding) -> bool {
        coding != Coding::G722 || self.g722.is_some()
    }

    /// Goes on with another coding, which begins without a past.
    pub(super) fn set_coding(&mut self, coding: Coding) {
        self.coding = coding;
        self.reset();
    }

    /// Forgets all history.
    pub(super) fn reset(&mut self) {
        if let Some(decoder) = &mut self.g722 {
            decoder.reset();
        }
        for resampler in [&mut self.from_law, &mut self.from_g722].into_iter().flatten() {
            resampler.reset();
        }
    }

    /// Decodes 120 ms at most and returns the samples, for which `out` has room.
    pub(super) fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> usize {
        let payload = &payload[..payload.len().min(LONGEST)];
        match (self.coding, &mut self.g722) {
            (Coding::G722, Some(decoder)) => {
                let decode = |octets: &[u8], out: &mut [i16]| decoder.decode(octets, out);
                in_blocks(payload, 2, self.from_g722.as_deref_mut(), out, decode)
            }
            (coding, _) => {
                let law = coding.law().unwrap_or(Law::A);
                let decode = |octets: &[u8], out: &mut [i16]| law.decode_into(octets, out);
                in_blocks(payload, 1, self.from_law.as_deref_mut(), out, decode)
            }
        }
    }
}

/// Decodes and, if there is a resampler, resamples in blocks.
fn in_blocks(
    payload: &[u8],
    samples_per_octet: usize,
    resampler: Option<&mut Resampler>,
    out: &mut [i16],
    mut decode: impl FnMut(&[u8], &mut [i16]) -> usize,
) -> usize {
    let Some(resampler) = resampler else { return decode(payload, out) };
    let (mut pcm, mut written) = ([0; BLOCK], 0);
    for octets in payload.chunks(BLOCK / samples_per_octet) {
        let length = decode(octets, &mut pcm);
        written += resampler.resample(&pcm[..length], &mut out[written..]);
    }
    written
}

/// PCM in at the rate of the coding, octets out.
#[derive(Debug)]
pub(super) struct Encoder {
    coding: Coding,
    g722: Option<Box<g722::Encoder>>,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self { coding: Coding::Law(Law::A), g722: None }
    }

    pub(super) fn coding(&self) -> Coding {
        self.coding
    }

    /// Goes on with a coding. One of G.722 begins without a past, if it was another before.
    pub(super) fn set_coding(&mut self, coding: Coding) {
        if coding != self.coding {
            self.g722 = (coding == Coding::G722).then(Box::default);
        }
        self.coding = coding;
    }

    /// Encodes as much as both slices hold and returns the octets.
    pub(super) fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> usize {
        match (self.coding, &mut self.g722) {
            (Coding::G722, Some(encoder)) => encoder.encode(pcm, out),
            (coding, _) => coding.law().unwrap_or(Law::A).encode_into(pcm, out),
        }
    }
}

/// Makes the payloads of one coding those of another, octet for octet, packet by packet as they come.
#[derive(Debug)]
pub(crate) struct Conversion {
    decoder: Decoder,
    encoder: Encoder,
}

impl Conversion {
    /// Builds a conversion to a coding, from any other.
    pub(crate) fn to(coding: Coding) -> Self {
        let mut decoder = Decoder::new(coding.sample_rate());
        decoder.expect_g722();
        let mut encoder = Encoder::new();
        encoder.set_coding(coding);
        Self { decoder, encoder }
    }

    /// Converts as much as both slices hold and returns the octets.
    pub(crate) fn convert(&mut self, from: Coding, payload: &[u8], out: &mut [u8]) -> usize {
        if from != self.decoder.coding() {
            self.decoder.set_coding(from);
        }
        let length = payload.len().min(out.len());
        for (payload, out) in payload[..length].chunks(BLOCK / 2).zip(out[..length].chunks_mut(BLOCK / 2)) {
            let mut pcm = [0; BLOCK];
            let samples = self.decoder.decode(payload, &mut pcm);
            self.encoder.encode(&pcm[..samples], out);
        }
        length
    }
}
