//! The tables of ITU-T G.722 (clause 6.2), with the names that it gives them in brackets.

/// Decision levels of the six-bit quantiser of the lower band, without the first, which is 0 (Q6).
pub(super) const LOW_LEVELS: [i16; 29] = [
    35, 72, 110, 150, 190, 233, 276, 323, 370, 422, 473, 530, 587, 650, 714, 786, 858, 940, 1_023, 1_121,
    1_219, 1_339, 1_458, 1_612, 1_765, 1_980, 2_195, 2_557, 2_919,
];

/// Codes of positive differences of the lower band by interval (ILP).
pub(super) const LOW_POSITIVE: [u8; 30] = [
    61, 60, 59, 58, 57, 56, 55, 54, 53, 52, 51, 50, 49, 48, 47, 46, 45, 44, 43, 42, 41, 40, 39, 38, 37, 36,
    35, 34, 33, 32,
];

/// Codes of negative differences of the lower band by interval (ILN).
pub(super) const LOW_NEGATIVE: [u8; 30] = [
    63, 62, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7,
    6, 5, 4,
];

/// Differences for the six bits of the lower band (QM6).
pub(super) const LOW_SIX_BITS: [i16; 64] = [
    -136, -136, -136, -136, -24_808, -21_904, -19_008, -16_704, -14_984, -13_512, -12_280, -11_192, -10_232,
    -9_360, -8_576, -7_856, -7_192, -6_576, -6_000, -5_456, -4_944, -4_464, -4_008, -3_576, -3_168, -2_776,
    -2_400, -2_032, -1_688, -1_360, -1_040, -728, 24_808, 21_904, 19_008, 16_704, 14_984, 13_512, 12_280,
    11_192, 10_232, 9_360, 8_576, 7_856, 7_192, 6_576, 6_000, 5_456, 4_944, 4_464, 4_008, 3_576, 3_168,
    2_776, 2_400, 2_032, 1_688, 1_360, 1_040, 728, 432, 136, -432, -136,
];

/// Differences for the upper four of those bits, which are all that adapts (QM4).
pub(super) const LOW_FOUR_BITS: [i16; 16] = [
    0, -20_456, -12_896, -8_968, -6_288, -4_240, -2_584, -1_200, 20_456, 12_896, 8_968, 6_288, 4_240, 2_584,
    1_200, 0,
];

/// What the upper four bits add to the logarithmic scale factor of the lower band (WL by RL42).
pub(super) const LOW_WEIGHTS: [i16; 16] =
    [-60, 3_042, 1_198, 538, 334, 172, 58, -30, 3_042, 1_198, 538, 334, 172, 58, -30, -60];

/// Differences for the two bits of the higher band (QM2).
pub(super) const HIGH_TWO_BITS: [i16; 4] = [-7_408, -1_616, 7_408, 1_616];

/// What those bits add to the logarithmic scale factor of the higher band (WH by RH2).
pub(super) const HIGH_WEIGHTS: [i16; 4] = [798, -214, 798, -214];

/// Powers of two by 32nds, from 2048 on (ILB).
pub(super) const POWERS: [i16; 32] = [
    2_048, 2_093, 2_139, 2_186, 2_233, 2_282, 2_332, 2_383, 2_435, 2_489, 2_543, 2_599, 2_656, 2_714, 2_774,
    2_834, 2_896, 2_960, 3_025, 3_091, 3_158, 3_228, 3_298, 3_371, 3_444, 3_520, 3_597, 3_676, 3_756, 3_838,
    3_922, 4_008,
];

/// The low-pass of the pair of mirror filters (H).
pub(super) const LOW_PASS: [i16; 24] = [
    3, -11, -11, 53, 12, -156, 32, 362, -210, -805, 951, 3_876, 3_876, 951, -805, -210, 362, 32, -156, 12,
    53, -11, -11, 3,
];

/// Its mirror image.
pub(super) const HIGH_PASS: [i16; 24] = mirrored();

const fn mirrored() -> [i16; 24] {
    let mut taps = LOW_PASS;
    let mut n = 0;
    while n < taps.len() {
        taps[n] = -taps[n];
        n += 2;
    }
    taps
}
