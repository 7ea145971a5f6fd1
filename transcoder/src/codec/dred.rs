//! Deep redundancy of Opus (DRED, draft-ietf-mlcodec-opus-dred): a packet describes up to a second of what came
//! before it, so coarsely that it costs less than a packet, and a neural vocoder speaks it again. It brings back
//! bursts of loss, which in-band FEC - the one frame before - cannot.
//!
//! It works on wideband only: narrowband that is lost is concealed as ever. Versions of libopus understand each
//! other by a number that they carry, and say nothing to one of another.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::ptr::NonNull;

use opusic_sys as sys;

use super::CodecError;
use super::opus::{Decoder, Encoder, check, packet_duration};

/// Longest past that a packet can describe, in milliseconds.
pub const MAX_DURATION_MS: u32 = 1_040;

/// How long before the packet the latest that it describes may be, while there is no pause.
const LATEST_MS: u32 = 60;

/// What a packet says of the past: parsed into memory of its own, which one packet after the other uses.
pub struct Redundancy {
    parser: NonNull<sys::OpusDREDDecoder>,
    parsed: NonNull<sys::OpusDRED>,
    sample_rate: u32,
    /// Samples before the packet that it describes; 0 while nothing was parsed.
    reach: usize,
}

// SAFETY: both states are heap blocks owned by this value alone; the models that they refer to are constant.
unsafe impl Send for Redundancy {}

impl Redundancy {
    /// Builds an empty one for a [`Decoder`] of that rate in Hz: two allocations, the only ones of its life.
    ///
    /// # Errors
    /// [`CodecError::SampleRate`], or [`CodecError::Library`] without memory.
    pub fn new(sample_rate: u32) -> Result<Self, CodecError> {
        if ![8_000, 16_000, 48_000].contains(&sample_rate) {
            return Err(CodecError::SampleRate(sample_rate));
        }
        let mut error = 0;
        // SAFETY: `error` outlives the call.
        let parser = unsafe { sys::opus_dred_decoder_create(&mut error) };
        let parser = NonNull::new(parser).ok_or(CodecError::Library(error))?;
        // SAFETY: as above.
        let Some(parsed) = NonNull::new(unsafe { sys::opus_dred_alloc(&mut error) }) else {
            // SAFETY: the state came from `opus_dred_decoder_create` and is freed once, here.
            unsafe { sys::opus_dred_decoder_destroy(parser.as_ptr()) };
            return Err(CodecError::Library(error));
        };
        Ok(Self { parser, parsed, sample_rate, reach: 0 })
    }

    /// Reads what a packet says of the `longest` samples before it at least, and returns how many it describes: 0
    /// without redundancy. What was parsed before is forgotten.
    ///
    /// # Errors
    /// [`CodecError::Malformed`].
    pub fn parse(&mut self, packet: &[u8], longest: usize) -> Result<usize, CodecError> {
        self.reach = 0;
        packet_duration(packet).ok_or(CodecError::Malformed)?;
        let samples = |ms: u32| self.sample_rate as usize * ms as usize / 1_000;
        // libopus reads so much from the latest that is described on, which may lie well before the packet.
        let longest = longest.saturating_add(samples(LATEST_MS)).min(samples(MAX_DURATION_MS));
        let mut end: c_int = 0;
        // SAFETY: `packet` is valid for its length, `end` outlives the call, the states are ours alone.
        let reach = check(unsafe {
            sys::opus_dred_parse(
                self.parser.as_ptr(),
                self.parsed.as_ptr(),
                packet.as_ptr(),
                packet.len() as i32,
                longest as i32,
                self.sample_rate as i32,
                &mut end,
                0,
            )
        })?;
        self.reach = reach;
        Ok(reach)
    }

    /// Returns how many samples before the packet it describes.
    pub fn reach(&self) -> usize {
        self.reach
    }
}

impl Drop for Redundancy {
    fn drop(&mut self) {
        // SAFETY: both came from libopus and are freed once, here.
        unsafe {
            sys::opus_dred_free(self.parsed.as_ptr());
            sys::opus_dred_decoder_destroy(self.parser.as_ptr());
        }
    }
}

impl Decoder {
    /// Speaks `out.len()` samples again that begin `before` samples ahead of the packet that was parsed. What the
    /// packet does not describe is concealed. The packet itself is still to be decoded afterwards.
    ///
    /// # Errors
    /// [`CodecError::FrameLength`] for no multiple of 2.5 ms up to 120 ms, [`CodecError::SampleRate`] if it was parsed
    /// for another rate.
    pub fn decode_dred(
        &mut self,
        redundancy: &Redundancy,
        before: usize,
        out: &mut [i16],
    ) -> Result<usize, CodecError> {
        self.check_gap(out.len())?;
        if redundancy.sample_rate != self.sample_rate() {
            return Err(CodecError::SampleRate(redundancy.sample_rate));
        }
        // Before anything was parsed its memory holds nothing that may be read.
        if redundancy.reach == 0 {
            return self.conceal(out);
        }
        let before = before.min(redundancy.sample_rate as usize * 2);
        // SAFETY: `out` is valid for its length; what is read was parsed; the decoder is ours alone.
        check(unsafe {
            sys::opus_decoder_dred_decode(
                self.state.as_ptr(),
                redundancy.parsed.as_ptr(),
                before as i32,
                out.as_mut_ptr(),
                out.len() as i32,
            )
        })
    }
}

impl Encoder {
    /// Sets how much of the past each packet describes, in milliseconds up to [`MAX_DURATION_MS`]: 0 turns it off. It
    /// takes effect on wideband from 16 kHz on, with a loss above 0 set by [`Encoder::set_expected_loss`] and a
    /// sufficient rate: above 20 kbit/s with in-band FEC, 12 kbit/s without.
    ///
    /// # Errors
    /// [`CodecError::Setting`] beyond that.
    pub fn set_dred(&mut self, duration_ms: u32) -> Result<(), CodecError> {
        if duration_ms > MAX_DURATION_MS {
            return Err(CodecError::Setting);
        }
        // libopus counts in frames of 10 ms.
        self.control(sys::OPUS_SET_DRED_DURATION_REQUEST, duration_ms.div_ceil(10) as c_int)
    }
}

/// Octets that libopus takes for the states of a call: encoder, decoder, and the redundancy of a packet with its
/// parser.
pub fn state_sizes() -> [usize; 3] {
    // SAFETY: these only compute.
    let sizes = unsafe {
        [
            sys::opus_encoder_get_size(1),
            sys::opus_decoder_get_size(1),
            sys::opus_dred_decoder_get_size() + sys::opus_dred_get_size(),
        ]
    };
    sizes.map(|size| size.max(0) as usize)
}

#[cfg(test)]
mod tests;
