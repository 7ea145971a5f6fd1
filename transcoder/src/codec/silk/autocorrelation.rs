//! Autocorrelation on a warped frequency axis: what the noise shaping of each subframe begins with.
//!
//! Sample by sample, a chain of all-pass sections has to be walked from end to end. Here each lane of the registers is
//! a section, and each works on the sample before that of its neighbour, so that a step moves all sections at once. The
//! sums and products are those of libopus, in its order: the result is the same to the last bit.

use std::arch::x86_64::{
    _mm_cvtsd_f64, _mm_unpackhi_pd, _mm256_add_pd, _mm256_castpd256_pd128, _mm256_extractf128_pd,
    _mm256_mul_pd, _mm256_permute2f128_pd, _mm256_set_pd, _mm256_set1_pd, _mm256_setzero_pd,
    _mm256_shuffle_pd, _mm256_sub_pd,
};

/// Longest window in samples: 15 ms at 16 kHz.
pub(super) const MAX_WINDOW: usize = 240;
/// Most all-pass sections.
pub(super) const MAX_ORDER: usize = 24;

const LANES: usize = 4;

/// Writes `correlation[0..=order]`. `REGISTERS` times four lanes must hold `order`, which is at most [`MAX_ORDER`], as
/// the window's length is at most [`MAX_WINDOW`].
#[target_feature(enable = "avx2")]
pub(super) fn correlate<const REGISTERS: usize>(correlation: &mut [f32], window: &[f32], warping: f32) {
    let order = correlation.len() - 1;
    // The input backwards, so that the lanes of a step find their samples side by side; nothing before and after it.
    let mut samples = [0.0_f64; MAX_WINDOW + 3 * MAX_ORDER];
    let end = MAX_WINDOW + 2 * MAX_ORDER;
    for (at, &sample) in window.iter().enumerate() {
        samples[end - 1 - at] = f64::from(sample);
    }
    let warping = _mm256_set1_pd(f64::from(warping));
    let zero = _mm256_setzero_pd();
    let mut out = [zero; REGISTERS];
    let mut shifted_before = [zero; REGISTERS];
    let mut sums = [zero; REGISTERS];
    // Lane `n` of step `t` is section `n + 1`, at sample `t - n - 1`.
    for step in 1..window.len() + order {
        let now = end - 1 - step;
        let inputs = &samples[now..=now + LANES * REGISTERS];
        let mut carried = _mm256_set1_pd(inputs[1]);
        let samples = inputs[1..].chunks_exact(LANES);
        let state = out.iter_mut().zip(&mut shifted_before).zip(&mut sums);
        for (((out, shifted_before), sum), lanes) in state.zip(samples) {
            let across = _mm256_permute2f128_pd::<0x21>(carried, *out);
            let shifted = _mm256_shuffle_pd::<0b0101>(across, *out);
            carried = *out;
            let kept = _mm256_add_pd(*shifted_before, _mm256_mul_pd(warping, *out));
            *out = _mm256_sub_pd(kept, _mm256_mul_pd(warping, shifted));
            *shifted_before = shifted;
            let sample = _mm256_set_pd(lanes[3], lanes[2], lanes[1], lanes[0]);
            *sum = _mm256_add_pd(*sum, _mm256_mul_pd(sample, *out));
        }
    }
    correlation[0] =
        window.iter().fold(0.0_f64, |sum, &sample| sum + f64::from(sample) * f64::from(sample)) as f32;
    for (register, sum) in sums.into_iter().enumerate() {
        let high = _mm256_extractf128_pd::<1>(sum);
        let low = _mm256_castpd256_pd128(sum);
        let lanes = [
            _mm_cvtsd_f64(low),
            _mm_cvtsd_f64(_mm_unpackhi_pd(low, low)),
            _mm_cvtsd_f64(high),
            _mm_cvtsd_f64(_mm_unpackhi_pd(high, high)),
        ];
        let rest = correlation.get_mut(1 + register * LANES..).unwrap_or_default();
        for (out, lane) in rest.iter_mut().zip(lanes) {
            *out = lane as f32;
        }
    }
}
