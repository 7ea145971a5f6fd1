//! Voice codecs and what stands in for missing voice: Opus (RFC 6716), G.711, G.722,
//! resampling between their rates, concealment, comfort noise and the detector that keeps silence away from the encoder.

mod activity;
mod conceal;
#[cfg(feature = "dred")]
pub mod dred;
pub mod fec;
pub mod g711;
#[cfg(target_arch = "x86_64")]
mod g711_avx2;
#[cfg(target_arch = "x86_64")]
mod g711_avx512;
#[cfg(target_arch = "aarch64")]
mod g711_neon;
pub mod g722;
pub mod noise;
pub mod opus;
pub mod redundancy;
pub mod resample;
#[cfg(target_arch = "x86_64")]
mod silk;

pub use activity::ActivityDetector;
pub use conceal::Concealer;
pub use noise::ComfortNoise;

/// Why a codec refused its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The sample rate is not 8000, 16000 or 48000 Hz.
    #[error("sample rate {0} Hz is not 8000, 16000 or 48000")]
    SampleRate(u32),
    /// The frame length is not one the codec knows.
    #[error("{0} samples are no frame of this codec")]
    FrameLength(usize),
    /// The output buffer is too short.
    #[error("output buffer too short")]
    OutputTooShort,
    /// The packet is malformed.
    #[error("malformed packet")]
    Malformed,
    /// A setting is out of range.
    #[error("setting out of range")]
    Setting,
    /// libopus failed in another way.
    #[error("libopus error {0}")]
    Library(i32),
}

impl CodecError {
    /// Returns the metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            CodecError::SampleRate(_) => "sample_rate",
            CodecError::FrameLength(_) => "frame_length",
            CodecError::OutputTooShort => "output_too_short",
            CodecError::Malformed => "malformed",
            CodecError::Setting => "setting",
            CodecError::Library(_) => "library",
        }
    }
}

/// Mean power of a frame, in squared sample units; 0 for an empty one.
pub(crate) fn mean_power(frame: &[i16]) -> f32 {
    if frame.is_empty() {
        return 0.0;
    }
    let energy: i64 = frame.iter().map(|&s| i64::from(s) * i64::from(s)).sum();
    energy as f32 / frame.len() as f32
}

/// Says whether a frame is so quiet that leaving it out is not heard: below -50 dBov.
pub(crate) fn is_quiet(frame: &[i16]) -> bool {
    const POWER: u64 = 104 * 104;
    let energy: u64 = frame.iter().map(|&sample| u64::from(sample.unsigned_abs()).pow(2)).sum();
    energy <= POWER * frame.len() as u64
}

#[cfg(test)]
mod tests;
