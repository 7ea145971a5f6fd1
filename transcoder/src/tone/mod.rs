//! Tones in linear PCM at 8 kHz: what the detectors of DTMF and of fax and modem signals have in common.

mod correlator;
pub(crate) mod voiceband;

pub(crate) use correlator::{Complex, Correlator};

/// Samples in a second.
pub(crate) const SAMPLE_RATE: f32 = 8_000.0;
/// Peak of a sine of 0 dBm0: 22,470 in A-law, whose largest sine has 3.14 dBm0, and 22,300 in mu-law, whose largest has
/// 3.17 dBm0 (ITU-T G.711 tables 1 and 2).
const PEAK_AT_0_DBM0: f32 = 22_400.0;

/// Returns the peak of a sine of so many dBm0.
pub(crate) fn peak_of(dbm0: f32) -> f32 {
    PEAK_AT_0_DBM0 * 10f32.powf(dbm0 / 20.0)
}
