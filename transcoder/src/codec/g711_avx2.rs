//! G.711 sixteen samples at a time with AVX2, found at run time. Computes what the tables hold:
//! the segment by counting thresholds, shifts by multiplying with powers of two.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m128i, __m256i, _mm_loadu_si128, _mm_storeu_si128, _mm_unpacklo_epi64, _mm256_add_epi16,
    _mm256_and_si256, _mm256_castsi256_si128, _mm256_cmpgt_epi16, _mm256_cvtepu8_epi16,
    _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_min_epu16, _mm256_mulhi_epu16, _mm256_mullo_epi16,
    _mm256_or_si256, _mm256_packus_epi16, _mm256_set1_epi16, _mm256_setr_epi8, _mm256_setzero_si256,
    _mm256_shuffle_epi8, _mm256_slli_epi16, _mm256_srai_epi16, _mm256_srli_epi16, _mm256_storeu_si256,
    _mm256_sub_epi16, _mm256_xor_si256,
};

use super::g711::Law;

const LANES: usize = 16;

/// Encodes whole groups of sixteen and returns how many samples that were: 0 without AVX2.
pub(super) fn encode(law: Law, samples: &[i16], codes: &mut [u8]) -> usize {
    if samples.len() < LANES || !is_x86_feature_detected!("avx2") {
        return 0;
    }
    // SAFETY: the processor has AVX2, as just asked.
    unsafe { encode_groups(law, samples, codes) }
}

/// Decodes whole groups of sixteen and returns how many codes that were: 0 without AVX2.
pub(super) fn decode(law: Law, codes: &[u8], samples: &mut [i16]) -> usize {
    if codes.len() < LANES || !is_x86_feature_detected!("avx2") {
        return 0;
    }
    // SAFETY: the processor has AVX2, as just asked.
    unsafe { decode_groups(law, codes, samples) }
}

#[target_feature(enable = "avx2")]
fn encode_groups(law: Law, samples: &[i16], codes: &mut [u8]) -> usize {
    let mut done = 0;
    for (input, output) in samples.chunks_exact(LANES).zip(codes.chunks_exact_mut(LANES)) {
        // SAFETY: the chunk holds sixteen samples, 32 octets; the load needs no alignment.
        let group = unsafe { _mm256_loadu_si256(input.as_ptr().cast::<__m256i>()) };
        let words = match law {
            Law::Mu => encode_mu(group),
            Law::A => encode_a(group),
        };
        // Words to octets: each half packs on its own, so the two are put side by side.
        let packed = _mm256_packus_epi16(words, words);
        let octets = _mm_unpacklo_epi64(_mm256_castsi256_si128(packed), _mm256_extracti128_si256(packed, 1));
        // SAFETY: the chunk holds sixteen octets; the store needs no alignment.
        unsafe { _mm_storeu_si128(output.as_mut_ptr().cast::<__m128i>(), octets) };
        done += LANES;
    }
    done
}

#[target_feature(enable = "avx2")]
fn decode_groups(law: Law, codes: &[u8], samples: &mut [i16]) -> usize {
    let mut done = 0;
    for (input, output) in codes.chunks_exact(LANES).zip(samples.chunks_exact_mut(LANES)) {
        // SAFETY: the chunk holds sixteen octets; the load needs no alignment.
        let octets = unsafe { _mm_loadu_si128(input.as_ptr().cast::<__m128i>()) };
        let words = _mm256_cvtepu8_epi16(octets);
        let group = match law {
            Law::Mu => decode_mu(words),
            Law::A => decode_a(words),
        };
        // SAFETY: the chunk holds sixteen samples, 32 octets; the store needs no alignment.
        unsafe { _mm256_storeu_si256(output.as_mut_ptr().cast::<__m256i>(), group) };
        done += LANES;
    }
    done
}

#[target_feature(enable = "avx2")]
fn word(value: i16) -> __m256i {
    _mm256_set1_epi16(value)
}

/// Counts how many of seven thresholds, each twice the one before, a magnitude exceeds.
#[target_feature(enable = "avx2")]
fn segment_of(magnitude: __m256i, first: i16) -> __m256i {
    let mut segment = _mm256_setzero_si256();
    for n in 0..7 {
        let threshold = word(((i32::from(first) + 1) << n) as i16 - 1);
        // A true comparison is -1.
        segment = _mm256_sub_epi16(segment, _mm256_cmpgt_epi16(magnitude, threshold));
    }
    segment
}

/// Looks up a word by an index of 0 to 7: `low` and `high` are its octets.
#[target_feature(enable = "avx2")]
fn look_up(index: __m256i, low: [i8; 8], high: [i8; 8]) -> __m256i {
    let [a, b, c, d, e, f, g, h] = low;
    let [i, j, k, l, m, n, o, p] = high;
    let table = _mm256_setr_epi8(
        a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p,
    );
    // The upper octet of each word asks for the upper half of the table.
    let octets = _mm256_or_si256(index, _mm256_slli_epi16(_mm256_add_epi16(index, word(8)), 8));
    _mm256_shuffle_epi8(table, octets)
}

/// ITU-T G.711 table 2.
#[target_feature(enable = "avx2")]
fn encode_mu(sample: __m256i) -> __m256i {
    let negative = _mm256_srai_epi16(sample, 15);
    let magnitude = _mm256_and_si256(_mm256_xor_si256(sample, negative), word(!3));
    let biased = _mm256_add_epi16(_mm256_min_epu16(magnitude, word(32_767 - 132)), word(132));
    let segment = segment_of(biased, 255);
    // Right by segment + 3 is the upper half of the product with 2^(13 - segment).
    let factor = look_up(segment, [0, 0, 0, 0, 0, 0, -128, 64], [32, 16, 8, 4, 2, 1, 0, 0]);
    let step = _mm256_and_si256(_mm256_mulhi_epu16(biased, factor), word(0x0f));
    let code = _mm256_or_si256(_mm256_slli_epi16(segment, 4), step);
    let sign = _mm256_and_si256(negative, word(0x80));
    _mm256_xor_si256(_mm256_or_si256(code, sign), word(0xff))
}

/// ITU-T G.711 table 1.
#[target_feature(enable = "avx2")]
fn encode_a(sample: __m256i) -> __m256i {
    let negative = _mm256_srai_epi16(sample, 15);
    let magnitude = _mm256_xor_si256(sample, negative);
    let segment = segment_of(magnitude, 255);
    // Right by 4, and by one more per segment from the second on: 2^12, 2^12, 2^11 ... 2^6.
    let factor = look_up(segment, [0, 0, 0, 0, 0, 0, -128, 64], [16, 16, 8, 4, 2, 1, 0, 0]);
    let step = _mm256_and_si256(_mm256_mulhi_epu16(magnitude, factor), word(0x0f));
    let code = _mm256_or_si256(_mm256_slli_epi16(segment, 4), step);
    let sign = _mm256_and_si256(negative, word(0x80));
    // Positive codes have their top bit set, and even bits are inverted: 0x80 ^ 0x55.
    _mm256_xor_si256(_mm256_or_si256(code, sign), word(0xd5))
}

/// Gives a magnitude the sign that bit 7 of a code stands for: negative if set.
#[target_feature(enable = "avx2")]
fn with_sign(magnitude: __m256i, code: __m256i) -> __m256i {
    let negative = _mm256_srai_epi16(_mm256_slli_epi16(code, 8), 15);
    _mm256_sub_epi16(_mm256_xor_si256(magnitude, negative), negative)
}

#[target_feature(enable = "avx2")]
fn decode_mu(code: __m256i) -> __m256i {
    let code = _mm256_xor_si256(code, word(0xff));
    let segment = _mm256_and_si256(_mm256_srli_epi16(code, 4), word(7));
    let step = _mm256_and_si256(code, word(0x0f));
    let factor = look_up(segment, [1, 2, 4, 8, 16, 32, 64, -128], [0; 8]);
    let biased = _mm256_add_epi16(_mm256_slli_epi16(step, 3), word(132));
    let magnitude = _mm256_sub_epi16(_mm256_mullo_epi16(biased, factor), word(132));
    with_sign(magnitude, code)
}

#[target_feature(enable = "avx2")]
fn decode_a(code: __m256i) -> __m256i {
    // With the top bit inverted too, a set one means negative, as in the other law.
    let code = _mm256_xor_si256(code, word(0xd5));
    let segment = _mm256_and_si256(_mm256_srli_epi16(code, 4), word(7));
    let step = _mm256_and_si256(code, word(0x0f));
    // From the first segment on there is a leading one: 256.
    let leading = _mm256_and_si256(_mm256_cmpgt_epi16(segment, _mm256_setzero_si256()), word(256));
    let base = _mm256_add_epi16(_mm256_add_epi16(_mm256_slli_epi16(step, 4), word(8)), leading);
    let factor = look_up(segment, [1, 1, 2, 4, 8, 16, 32, 64], [0; 8]);
    with_sign(_mm256_mullo_epi16(base, factor), code)
}
