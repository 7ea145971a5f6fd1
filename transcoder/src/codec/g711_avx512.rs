//! G.711 32 samples at a time with AVX-512: the segment is looked up in 128 octets held in two
//! registers (VBMI), and every lane shifts by as much as its own segment says.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256i, __m512i, _mm256_loadu_si256, _mm256_mask_storeu_epi8, _mm256_maskz_loadu_epi8,
    _mm256_storeu_si256, _mm512_add_epi16, _mm512_and_si512, _mm512_cvtepi16_epi8, _mm512_cvtepu8_epi16,
    _mm512_loadu_si512, _mm512_mask_add_epi16, _mm512_mask_storeu_epi16, _mm512_mask_sub_epi16,
    _mm512_maskz_loadu_epi16, _mm512_maskz_permutex2var_epi8, _mm512_min_epu16, _mm512_movepi16_mask,
    _mm512_set1_epi16, _mm512_setzero_si512, _mm512_slli_epi16, _mm512_sllv_epi16, _mm512_srai_epi16,
    _mm512_srli_epi16, _mm512_srlv_epi16, _mm512_storeu_si512, _mm512_sub_epi16, _mm512_subs_epu16,
    _mm512_test_epi16_mask, _mm512_xor_si512,
};

use super::g711::Law;

const LANES: usize = 32;

/// Says whether the processor has what this takes: Ice Lake and Zen 4 were the first. AVX-512 without
/// VBMI is left to AVX2, which is as fast there.
pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vbmi")
}

/// Encodes as many samples as both slices hold and returns how many: 0 if not [`is_available`].
pub(super) fn encode(law: Law, samples: &[i16], codes: &mut [u8]) -> usize {
    if !is_available() {
        return 0;
    }
    // SAFETY: the processor has the three, as just asked.
    unsafe {
        match law {
            Law::Mu => encode_mu(samples, codes),
            Law::A => encode_a(samples, codes),
        }
    }
}

/// Decodes as many codes as both slices hold and returns how many: 0 if not [`is_available`].
pub(super) fn decode(law: Law, codes: &[u8], samples: &mut [i16]) -> usize {
    if !is_available() {
        return 0;
    }
    // SAFETY: the processor has the three, as just asked.
    unsafe {
        match law {
            Law::Mu => decode_mu(codes, samples),
            Law::A => decode_a(codes, samples),
        }
    }
}

/// Selects the first `count` lanes of 32.
fn first(count: usize) -> u32 {
    u32::MAX.checked_shr(LANES.saturating_sub(count) as u32).unwrap_or(0)
}

/// The width of the lowest steps that a magnitude's upper seven bits leave out, as a shift: 3 more than the
/// segment. Segments 0 and 1 of the A-law share `lowest` = 4; those of the mu-law do not.
const fn shifts(lowest: u8) -> [u8; 128] {
    let mut table = [lowest; 128];
    let mut index = 1;
    while index < table.len() {
        table[index] = 3 + (index.ilog2() as u8 + 1);
        index += 1;
    }
    table
}

static MU_SHIFTS: [u8; 128] = shifts(3);
static A_SHIFTS: [u8; 128] = shifts(4);

#[target_feature(enable = "avx512bw,avx512vl,avx512vbmi")]
#[inline]
fn word(value: i16) -> __m512i {
    _mm512_set1_epi16(value)
}

/// The halves of a table of shifts.
#[target_feature(enable = "avx512bw,avx512vl,avx512vbmi")]
#[inline]
fn halves(table: &[u8; 128]) -> [__m512i; 2] {
    // SAFETY: both loads lie within the 128 octets; they need no alignment.
    unsafe {
        let start = table.as_ptr();
        [_mm512_loadu_si512(start.cast()), _mm512_loadu_si512(start.add(64).cast())]
    }
}

/// Runs a kernel over samples, 32 at a time and then what is left over.
macro_rules! encode_all {
    ($samples:ident, $codes:ident, $kernel:expr) => {{
        let length = $samples.len().min($codes.len());
        let (samples, codes) = (&$samples[..length], &mut $codes[..length]);
        let (mut input, mut output) = (samples.chunks_exact(LANES), codes.chunks_exact_mut(LANES));
        for (input, output) in input.by_ref().zip(output.by_ref()) {
            // SAFETY: the chunk holds 32 samples, 64 octets; the load needs no alignment.
            let group = unsafe { _mm512_loadu_si512(input.as_ptr().cast()) };
            let octets = _mm512_cvtepi16_epi8($kernel(group));
            // SAFETY: the chunk holds 32 octets; the store needs no alignment.
            unsafe { _mm256_storeu_si256(output.as_mut_ptr().cast::<__m256i>(), octets) };
        }
        let (input, output) = (input.remainder(), output.into_remainder());
        let lanes = first(input.len());
        if lanes != 0 {
            // SAFETY: the mask selects the samples that there are; no other lane is touched.
            let group = unsafe { _mm512_maskz_loadu_epi16(lanes, input.as_ptr()) };
            let octets = _mm512_cvtepi16_epi8($kernel(group));
            // SAFETY: as above; `output` is as long as `input`.
            unsafe { _mm256_mask_storeu_epi8(output.as_mut_ptr().cast(), lanes, octets) };
        }
        length
    }};
}

/// Runs a kernel over codes, 32 at a time and then what is left over.
macro_rules! decode_all {
    ($codes:ident, $samples:ident, $kernel:expr) => {{
        let length = $samples.len().min($codes.len());
        let (codes, samples) = (&$codes[..length], &mut $samples[..length]);
        let (mut input, mut output) = (codes.chunks_exact(LANES), samples.chunks_exact_mut(LANES));
        for (input, output) in input.by_ref().zip(output.by_ref()) {
            // SAFETY: the chunk holds 32 octets; the load needs no alignment.
            let octets = unsafe { _mm256_loadu_si256(input.as_ptr().cast::<__m256i>()) };
            let group = $kernel(_mm512_cvtepu8_epi16(octets));
            // SAFETY: the chunk holds 32 samples, 64 octets; the store needs no alignment.
            unsafe { _mm512_storeu_si512(output.as_mut_ptr().cast(), group) };
        }
        let (input, output) = (input.remainder(), output.into_remainder());
        let lanes = first(input.len());
        if lanes != 0 {
            // SAFETY: the mask selects the codes that there are; no other lane is touched.
            let octets = unsafe { _mm256_maskz_loadu_epi8(lanes, input.as_ptr().cast()) };
            let group = $kernel(_mm512_cvtepu8_epi16(octets));
            // SAFETY: as above; `output` is as long as `input`.
            unsafe { _mm512_mask_storeu_epi16(output.as_mut_ptr(), lanes, group) };
        }
        length
    }};
}

/// Returns segment and step of a magnitude as one number: the shift that the segment means stands 64 too
/// high in the bits of the segment, for it is 3 more and brings the leading one along.
#[target_feature(enable = "avx512bw,avx512vl,avx512vbmi")]
#[inline]
fn segment_and_step(magnitude: __m512i, [low, high]: [__m512i; 2]) -> __m512i {
    const LOW_OCTETS: u64 = 0x5555_5555_5555_5555;
    let index = _mm512_srli_epi16(magnitude, 8);
    let shift = _mm512_maskz_permutex2var_epi8(LOW_OCTETS, low, index, high);
    let value = _mm512_add_epi16(_mm512_slli_epi16(shift, 4), _mm512_srlv_epi16(magnitude, shift));
    _mm512_sub_epi16(value, word(64))
}

/// ITU-T G.711 table 2.
#[target_feature(enable = "avx512bw,avx512vl,avx512vbmi")]
fn encode_mu(samples: &[i16], codes: &mut [u8]) -> usize {
    let table = halves(&MU_SHIFTS);
    encode_all!(samples, codes, |sample: __m512i| {
        let magnitude = _mm512_xor_si512(sample, _mm512_srai_epi16(sample, 15));
        let biased = _mm512_add_epi16(_mm512_min_epu16(magnitude, word(32_767 - 132)), word(132));
        let code = _mm512_sub_epi16(word(0xff), segment_and_step(biased, table));
        _mm512_mask_sub_epi16(code, _mm512_movepi16_mask(sample), code, word(0x80))
    })
}

/// ITU-T G.711 table 1.
#[target_feature(enable = "avx512bw,avx512vl,avx512vbmi")]
fn encode_a(samples: &[i16], codes: &mut [u8]) -> usize {
    let table = halves(&A_SHIFTS);
    encode_all!(samples, codes, |sample: __m512i| {
        let magnitude = _mm512_xor_si512(sample, _mm512_srai_epi16(sample, 15));
        let code = segment_and_step(magnitude, table);
        // Bit 7 is that of positive samples; even bits are inverted.
        let code = _mm512_xor_si512(code, word(0xd5));
        _mm512_mask_sub_epi16(code, _mm512_movepi16_mask(sample), code, word(0x80))
    })
}

/// Takes the segment of a code.
#[target_feature(enable = "avx512bw,avx512vl,avx512vbmi")]
#[inline]
fn segment_of(code: __m512i) -> __m512i {
    _mm512_and_si512(_mm512_srli_epi16(code, 4), word(7))
}

/// Gives a magnitude the sign that bit 7 of a code stands for: negative if set.
#[target_feature(enable = "avx512bw,avx512vl,avx512vbmi")]
#[inline]
fn with_sign(magnitude: __m512i, code: __m512i) -> __m512i {
    let negative = _mm512_test_epi16_mask(code, word(0x80));
    _mm512_mask_sub_epi16(magnitude, negative, _mm512_setzero_si512(), magnitude)
}

#[target_feature(enable = "avx512bw,avx512vl,avx512vbmi")]
fn decode_mu(codes: &[u8], samples: &mut [i16]) -> usize {
    decode_all!(codes, samples, |code: __m512i| {
        let code = _mm512_xor_si512(code, word(0xff));
        let step = _mm512_and_si512(code, word(0x0f));
        let biased = _mm512_add_epi16(_mm512_slli_epi16(step, 3), word(132));
        let magnitude = _mm512_sub_epi16(_mm512_sllv_epi16(biased, segment_of(code)), word(132));
        with_sign(magnitude, code)
    })
}

#[target_feature(enable = "avx512bw,avx512vl,avx512vbmi")]
fn decode_a(codes: &[u8], samples: &mut [i16]) -> usize {
    decode_all!(codes, samples, |code: __m512i| {
        // With the top bit inverted too, a set one means negative, as in the other law.
        let code = _mm512_xor_si512(code, word(0xd5));
        let step = _mm512_and_si512(code, word(0x0f));
        let base = _mm512_add_epi16(_mm512_slli_epi16(step, 4), word(8));
        // From the first segment on there is a leading one, and each after it doubles.
        let leading = _mm512_test_epi16_mask(code, word(0x70));
        let base = _mm512_mask_add_epi16(base, leading, base, word(256));
        let doubled = _mm512_subs_epu16(segment_of(code), word(1));
        with_sign(_mm512_sllv_epi16(base, doubled), code)
    })
}
