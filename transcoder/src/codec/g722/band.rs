//! One of the two bands: an adaptive quantiser's scale and an adaptive predictor of two poles and six zeros, the same
//! in encoder and decoder (ITU-T G.722 clauses 3.2 to 3.6; the arithmetic is that of clause 6.2).

use super::tables::{HIGH_TWO_BITS, HIGH_WEIGHTS, LOW_FOUR_BITS, LOW_WEIGHTS, POWERS};

/// Which band.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// 0 to 4 kHz.
    Low,
    /// 4 to 8 kHz.
    High,
}

/// Narrows to the 16 bits of the recommendation's arithmetic.
pub(super) fn saturate(value: i32) -> i32 {
    value.clamp(-32_768, 32_767)
}

/// The product of two numbers of 16 bits, as a fraction of 15.
pub(super) fn fraction(a: i32, b: i32) -> i32 {
    (a * b) >> 15
}

/// The state of a band.
#[derive(Clone, Debug)]
pub(super) struct Band {
    kind: Kind,
    /// Prediction of the next sample (SL, SH).
    pub(super) prediction: i32,
    /// What its zeros alone predict (SZ).
    zero_part: i32,
    /// The last two reconstructed samples, the newest first (RLT).
    reconstructed: [i32; 2],
    /// The last two sums of a difference and what the zeros predicted (PLT).
    partial: [i32; 2],
    /// Coefficients of the poles (AL).
    poles: [i32; 2],
    /// The last six quantised differences (DLT).
    differences: [i32; 6],
    /// Coefficients of the zeros (BL).
    zeros: [i32; 6],
    /// Logarithm of the scale factor (NB).
    log_scale: i32,
    /// Scale factor (DET).
    pub(super) scale: i32,
}

impl Band {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            prediction: 0,
            zero_part: 0,
            reconstructed: [0; 2],
            partial: [0; 2],
            poles: [0; 2],
            differences: [0; 6],
            zeros: [0; 6],
            log_scale: 0,
            scale: if kind == Kind::Low { 32 } else { 8 },
        }
    }

    /// Takes the code of a sample, four bits in the lower band and two in the higher, and returns the difference that
    /// it stands for. The next prediction is then due.
    pub(super) fn adapt(&mut self, code: usize) -> i32 {
        let (level, weight, most, shift) = match self.kind {
            Kind::Low => (LOW_FOUR_BITS[code & 15], LOW_WEIGHTS[code & 15], 18_432, 8),
            Kind::High => (HIGH_TWO_BITS[code & 3], HIGH_WEIGHTS[code & 3], 22_528, 10),
        };
        let difference = fraction(self.scale, level.into());
        // LOGSCL, LOGSCH and SCALEL, SCALEH.
        self.log_scale = (fraction(self.log_scale, 32_512) + i32::from(weight)).clamp(0, most);
        let power = i32::from(POWERS[(self.log_scale >> 6 & 31) as usize]);
        let down = shift - (self.log_scale >> 11);
        self.scale = (if down < 0 { power << -down } else { power >> down }) << 2;
        self.predict(difference);
        difference
    }

    /// Block 4: brings the coefficients up to date and predicts.
    fn predict(&mut self, difference: i32) {
        let reconstructed = saturate(self.prediction + difference);
        let partial = saturate(self.zero_part + difference);
        let agrees = |earlier: i32| (partial < 0) == (earlier < 0);
        // UPPOL2.
        let slope = saturate(self.poles[0] << 2);
        let slope = saturate(if agrees(self.partial[0]) { -slope } else { slope }) >> 7;
        let step = if agrees(self.partial[1]) { 128 } else { -128 };
        let second = saturate(slope + step + fraction(self.poles[1], 32_512)).clamp(-12_288, 12_288);
        // UPPOL1.
        let step = if agrees(self.partial[0]) { 192 } else { -192 };
        let most = 15_360 - second;
        let first = saturate(step + fraction(self.poles[0], 32_640)).clamp(-most, most);
        // UPZERO.
        let step = if difference == 0 { 0 } else { 128 };
        for (zero, &earlier) in self.zeros.iter_mut().zip(&self.differences) {
            let step = if (earlier < 0) == (difference < 0) { step } else { -step };
            *zero = saturate(step + fraction(*zero, 32_640));
        }
        // DELAYA and DELAYL.
        self.poles = [first, second];
        self.partial = [partial, self.partial[0]];
        self.reconstructed = [reconstructed, self.reconstructed[0]];
        self.differences.copy_within(..5, 1);
        self.differences[0] = difference;
        // FILTEP, FILTEZ, PREDIC.
        let of = |coefficient: i32, value: i32| fraction(coefficient, saturate(2 * value));
        let pole_part = saturate(of(first, self.reconstructed[0]) + of(second, self.reconstructed[1]));
        // The recommendation adds from the oldest on, and limits each sum.
        let parts = self.zeros.iter().zip(&self.differences).rev();
        self.zero_part = parts.fold(0, |sum, (&b, &d)| saturate(sum + of(b, d)));
        self.prediction = saturate(pole_part + self.zero_part);
    }
}
