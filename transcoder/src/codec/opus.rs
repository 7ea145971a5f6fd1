//! Opus (RFC 6716) over libopus: with `dred`, the only module that calls foreign code.
//!
//! Encoder and decoder are mono, hold all their state from creation on and allocate nothing per
//! frame. Bitrates below 20 kb/s (narrowband) leave no room for FEC: libopus then omits it
//! without a word, which [`has_fec`] tells.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::ptr::{self, NonNull};

use opusic_sys as sys;

use super::CodecError;

/// RTP clock of Opus in Hz, whatever rate is coded (RFC 7587 4.1).
pub const CLOCK_RATE: u32 = 48_000;

/// Longest single-frame packet in octets (RFC 6716 3.4); a sufficient output buffer for 20 ms.
pub const MAX_PACKET: usize = 1275;

/// Longest packet accepted for decoding in octets: three frames of 20 ms at the highest rate,
/// padding and all.
const MAX_INPUT: usize = 4 * MAX_PACKET;

/// The audio band an encoder may use at most (RFC 6716 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bandwidth {
    /// 4 kHz.
    Narrowband,
    /// 6 kHz.
    Mediumband,
    /// 8 kHz.
    Wideband,
    /// 12 kHz.
    SuperWideband,
    /// 20 kHz.
    Fullband,
}

impl Bandwidth {
    fn code(self) -> c_int {
        match self {
            Bandwidth::Narrowband => sys::OPUS_BANDWIDTH_NARROWBAND,
            Bandwidth::Mediumband => sys::OPUS_BANDWIDTH_MEDIUMBAND,
            Bandwidth::Wideband => sys::OPUS_BANDWIDTH_WIDEBAND,
            Bandwidth::SuperWideband => sys::OPUS_BANDWIDTH_SUPERWIDEBAND,
            Bandwidth::Fullband => sys::OPUS_BANDWIDTH_FULLBAND,
        }
    }
}

/// How an [`Encoder`] works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncoderConfig {
    /// Rate of the input in Hz: 8000, 16000 or 48000.
    pub sample_rate: u32,
    /// Target rate in bit/s: 6000 to 510000.
    pub bitrate: u32,
    /// Effort, 0 (cheapest) to 10.
    pub complexity: u8,
    /// Whether a packet carries a coarse copy of the frame before it (RFC 6716 2.1.7).
    pub fec: bool,
    /// Loss to arm against in percent, 0 to 100.
    pub expected_loss_percent: u8,
    /// Whether silence shrinks to packets of at most two octets (RFC 6716 2.1.9).
    pub dtx: bool,
    /// The widest band coded.
    pub max_bandwidth: Bandwidth,
}

impl Default for EncoderConfig {
    fn default() -> Self {
        Self::for_rate(8_000)
    }
}

impl EncoderConfig {
    /// Returns the usual settings for voice sampled at `sample_rate` Hz: the band that rate can
    /// hold, complexity 5, no FEC, no DTX.
    pub fn for_rate(sample_rate: u32) -> Self {
        let (bitrate, max_bandwidth) = match sample_rate {
            0..=8_000 => (24_000, Bandwidth::Narrowband),
            8_001..=16_000 => (28_000, Bandwidth::Wideband),
            _ => (32_000, Bandwidth::Fullband),
        };
        Self {
            sample_rate,
            bitrate,
            complexity: 5,
            fec: false,
            expected_loss_percent: 0,
            dtx: false,
            max_bandwidth,
        }
    }
}

fn check_rate(sample_rate: u32) -> Result<c_int, CodecError> {
    match sample_rate {
        8_000 | 16_000 | 48_000 => Ok(sample_rate as c_int),
        other => Err(CodecError::SampleRate(other)),
    }
}

pub(super) fn check(code: c_int) -> Result<usize, CodecError> {
    match code {
        0.. => Ok(code as usize),
        sys::OPUS_BUFFER_TOO_SMALL => Err(CodecError::OutputTooShort),
        sys::OPUS_INVALID_PACKET => Err(CodecError::Malformed),
        sys::OPUS_BAD_ARG => Err(CodecError::Setting),
        other => Err(CodecError::Library(other)),
    }
}

/// A mono voice encoder.
pub struct Encoder {
    pub(super) state: NonNull<sys::OpusEncoder>,
    sample_rate: u32,
}

// SAFETY: the state is one heap block owned by this value alone; libopus keeps no thread-local or
// shared mutable data, so it may move between threads. It is not `Sync`: no method takes `&self`
// into a function that writes.
unsafe impl Send for Encoder {}

impl Encoder {
    /// Builds an encoder: the only allocation of its life.
    ///
    /// # Errors
    /// [`CodecError::SampleRate`], [`CodecError::Setting`], or [`CodecError::Library`] without memory.
    pub fn new(config: &EncoderConfig) -> Result<Self, CodecError> {
        let rate = check_rate(config.sample_rate)?;
        let mut error = 0;
        // SAFETY: arguments are valid by the check above; `error` outlives the call.
        let state = unsafe { sys::opus_encoder_create(rate, 1, sys::OPUS_APPLICATION_VOIP, &mut error) };
        let state = NonNull::new(state).ok_or(CodecError::Library(error))?;
        let mut encoder = Self { state, sample_rate: config.sample_rate };
        encoder.control(sys::OPUS_SET_SIGNAL_REQUEST, sys::OPUS_SIGNAL_VOICE)?;
        encoder.control(sys::OPUS_SET_MAX_BANDWIDTH_REQUEST, config.max_bandwidth.code())?;
        encoder.set_bitrate(config.bitrate)?;
        encoder.set_complexity(config.complexity)?;
        encoder.set_fec(config.fec)?;
        encoder.set_expected_loss(config.expected_loss_percent)?;
        encoder.set_dtx(config.dtx)?;
        Ok(encoder)
    }

    /// Encodes one frame of 10, 20, 40 or 60 ms and returns the packet's length in octets. Two
    /// octets or fewer mean silence that need not be sent (RFC 7587 3.1.3).
    ///
    /// # Errors
    /// [`CodecError::FrameLength`], [`CodecError::OutputTooShort`].
    pub fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> Result<usize, CodecError> {
        let ten_ms = self.sample_rate as usize / 100;
        if ![1, 2, 4, 6].iter().any(|n| n * ten_ms == pcm.len()) {
            return Err(CodecError::FrameLength(pcm.len()));
        }
        if out.len() < 3 {
            return Err(CodecError::OutputTooShort);
        }
        let room = out.len().min(MAX_INPUT) as i32;
        // SAFETY: `pcm` holds `pcm.len()` mono samples, `out` at least `room` octets; the state
        // came from `opus_encoder_create` and is borrowed exclusively.
        check(unsafe {
            sys::opus_encode(self.state.as_ptr(), pcm.as_ptr(), pcm.len() as c_int, out.as_mut_ptr(), room)
        })
    }

    /// Sets the effort, 0 to 10; may change between any two frames.
    ///
    /// # Errors
    /// [`CodecError::Setting`] above 10.
    pub fn set_complexity(&mut self, complexity: u8) -> Result<(), CodecError> {
        self.control(sys::OPUS_SET_COMPLEXITY_REQUEST, c_int::from(complexity))
    }

    /// Sets the target rate in bit/s, 6000 to 510000.
    ///
    /// # Errors
    /// [`CodecError::Setting`] outside of that range.
    pub fn set_bitrate(&mut self, bitrate: u32) -> Result<(), CodecError> {
        if !(6_000..=510_000).contains(&bitrate) {
            return Err(CodecError::Setting);
        }
        self.control(sys::OPUS_SET_BITRATE_REQUEST, bitrate as c_int)
    }

    /// Turns in-band FEC on or off. It takes effect only with a loss above 0 set by
    /// [`Encoder::set_expected_loss`] and a sufficient rate.
    ///
    /// # Errors
    /// [`CodecError::Library`].
    pub fn set_fec(&mut self, on: bool) -> Result<(), CodecError> {
        self.control(sys::OPUS_SET_INBAND_FEC_REQUEST, c_int::from(on))
    }

    /// Sets the loss to arm against in percent, 0 to 100.
    ///
    /// # Errors
    /// [`CodecError::Setting`] above 100.
    pub fn set_expected_loss(&mut self, percent: u8) -> Result<(), CodecError> {
        self.control(sys::OPUS_SET_PACKET_LOSS_PERC_REQUEST, c_int::from(percent))
    }

    /// Turns discontinuous transmission on or off.
    ///
    /// # Errors
    /// [`CodecError::Library`].
    pub fn set_dtx(&mut self, on: bool) -> Result<(), CodecError> {
        self.control(sys::OPUS_SET_DTX_REQUEST, c_int::from(on))
    }

    /// Returns the delay of the encoder in samples of its rate.
    pub fn lookahead(&mut self) -> usize {
        let mut samples: i32 = 0;
        // SAFETY: this request writes one `opus_int32` through the pointer, which outlives the call.
        let code = unsafe {
            sys::opus_encoder_ctl(self.state.as_ptr(), sys::OPUS_GET_LOOKAHEAD_REQUEST, &raw mut samples)
        };
        if code == sys::OPUS_OK { samples.max(0) as usize } else { 0 }
    }

    /// Forgets all signal history, so that the state may serve another call. Settings stay.
    pub fn reset(&mut self) {
        // SAFETY: this request takes no further argument.
        unsafe { sys::opus_encoder_ctl(self.state.as_ptr(), sys::OPUS_RESET_STATE) };
    }

    pub(super) fn control(&mut self, request: c_int, value: c_int) -> Result<(), CodecError> {
        // SAFETY: every caller passes a SET request, which takes one `opus_int32` by value.
        check(unsafe { sys::opus_encoder_ctl(self.state.as_ptr(), request, value) }).map(drop)
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // SAFETY: the state came from `opus_encoder_create` and is freed once, here.
        unsafe { sys::opus_encoder_destroy(self.state.as_ptr()) }
    }
}

/// A mono decoder. Whatever was coded comes out at its sample rate.
pub struct Decoder {
    pub(super) state: NonNull<sys::OpusDecoder>,
    sample_rate: u32,
}

// SAFETY: as for `Encoder`.
unsafe impl Send for Decoder {}

impl Decoder {
    /// Builds a decoder to 8000, 16000 or 48000 Hz: the only allocation of its life.
    ///
    /// # Errors
    /// [`CodecError::SampleRate`], or [`CodecError::Library`] without memory.
    pub fn new(sample_rate: u32) -> Result<Self, CodecError> {
        let rate = check_rate(sample_rate)?;
        let mut error = 0;
        // SAFETY: arguments are valid by the check above; `error` outlives the call.
        let state = unsafe { sys::opus_decoder_create(rate, 1, &mut error) };
        let state = NonNull::new(state).ok_or(CodecError::Library(error))?;
        Ok(Self { state, sample_rate })
    }

    /// Decodes a packet and returns the samples written: at most 120 ms.
    ///
    /// # Errors
    /// [`CodecError::Malformed`], [`CodecError::OutputTooShort`]; the state stays usable.
    pub fn decode(&mut self, packet: &[u8], out: &mut [i16]) -> Result<usize, CodecError> {
        // Before libopus sees it: an empty packet would mean concealment there.
        let duration = packet_duration(packet).ok_or(CodecError::Malformed)?;
        let samples = (u64::from(duration) * u64::from(self.sample_rate) / u64::from(CLOCK_RATE)) as usize;
        if samples > out.len() {
            return Err(CodecError::OutputTooShort);
        }
        // SAFETY: `packet` and `out` are valid for the lengths passed; the state is ours alone.
        check(unsafe {
            sys::opus_decode(
                self.state.as_ptr(),
                packet.as_ptr(),
                packet.len() as i32,
                out.as_mut_ptr(),
                samples as c_int,
                0,
            )
        })
    }

    /// Makes up `out.len()` samples for a packet that is not there (RFC 6716 4.4): a multiple of
    /// 2.5 ms up to 120 ms.
    ///
    /// # Errors
    /// [`CodecError::FrameLength`].
    pub fn conceal(&mut self, out: &mut [i16]) -> Result<usize, CodecError> {
        self.check_gap(out.len())?;
        // SAFETY: a null packet of length 0 asks for concealment; `out` is valid for its length.
        check(unsafe {
            sys::opus_decode(self.state.as_ptr(), ptr::null(), 0, out.as_mut_ptr(), out.len() as c_int, 0)
        })
    }

    /// Rebuilds the lost `out.len()` samples right before `next` from its FEC, and by concealment
    /// as far as that does not reach. `next` itself is still to be decoded afterwards.
    ///
    /// # Errors
    /// [`CodecError::Malformed`], [`CodecError::FrameLength`].
    pub fn decode_fec(&mut self, next: &[u8], out: &mut [i16]) -> Result<usize, CodecError> {
        packet_duration(next).ok_or(CodecError::Malformed)?;
        self.check_gap(out.len())?;
        // SAFETY: `next` and `out` are valid for the lengths passed.
        check(unsafe {
            sys::opus_decode(
                self.state.as_ptr(),
                next.as_ptr(),
                next.len() as i32,
                out.as_mut_ptr(),
                out.len() as c_int,
                1,
            )
        })
    }

    /// Sets the effort, 0 (as built) to 10. From 5 on gaps in wideband are filled by a neural model, where libopus
    /// has it: with the feature `dred`.
    ///
    /// # Errors
    /// [`CodecError::Setting`] above 10.
    pub fn set_complexity(&mut self, complexity: u8) -> Result<(), CodecError> {
        let complexity = c_int::from(complexity);
        // SAFETY: this request takes one `opus_int32` by value.
        let code = unsafe {
            sys::opus_decoder_ctl(self.state.as_ptr(), sys::OPUS_SET_COMPLEXITY_REQUEST, complexity)
        };
        check(code).map(drop)
    }

    /// Returns the rate of the output in Hz.
    pub fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    /// Forgets all signal history, so that the state may serve another call.
    pub fn reset(&mut self) {
        // SAFETY: this request takes no further argument.
        unsafe { sys::opus_decoder_ctl(self.state.as_ptr(), sys::OPUS_RESET_STATE) };
    }

    pub(super) fn check_gap(&self, samples: usize) -> Result<(), CodecError> {
        let step = self.sample_rate as usize / 400;
        if samples == 0 || !samples.is_multiple_of(step) || samples > 48 * step {
            return Err(CodecError::FrameLength(samples));
        }
        Ok(())
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: the state came from `opus_decoder_create` and is freed once, here.
        unsafe { sys::opus_decoder_destroy(self.state.as_ptr()) }
    }
}

/// Returns the audio in a packet in ticks of 48 kHz (RFC 6716 3.1), or `None` when it is empty,
/// malformed or holds more than 120 ms.
pub fn packet_duration(packet: &[u8]) -> Option<u32> {
    if packet.is_empty() || packet.len() > MAX_INPUT {
        return None;
    }
    // SAFETY: the pointer is valid for the length passed, which is at least 1.
    let samples =
        unsafe { sys::opus_packet_get_nb_samples(packet.as_ptr(), packet.len() as i32, CLOCK_RATE as i32) };
    u32::try_from(samples).ok().filter(|&ticks| ticks > 0)
}

/// Says whether a packet carries a copy of the frame before it (RFC 6716 2.1.7).
pub fn has_fec(packet: &[u8]) -> bool {
    if packet.is_empty() || packet.len() > MAX_INPUT {
        return false;
    }
    // SAFETY: the pointer is valid for the length passed, which is at least 1.
    unsafe { sys::opus_packet_has_lbrr(packet.as_ptr(), packet.len() as i32) == 1 }
}

/// Says whether encoders of this process use this crate's own loops in place of libopus', as they do unless told
/// otherwise. What they encode is the same to the last bit; this is for measuring what the loops gain.
pub fn use_own_loops(on: bool) {
    #[cfg(target_arch = "x86_64")]
    super::silk::use_kernels(on);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = on;
}

/// Says whether a packet stands for silence: at most two octets (RFC 7587 3.1.3).
pub fn is_dtx(packet: &[u8]) -> bool {
    packet.len() <= 2
}
