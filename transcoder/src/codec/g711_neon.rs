//! G.711 eight samples at a time with NEON, which every 64-bit ARM processor has: the segment by
//! counting leading zeros, and every lane shifts by as much as its own segment says.
#![allow(unsafe_code)]

use std::arch::aarch64::{
    int16x8_t, uint16x8_t, vaddq_u16, vandq_u16, vbslq_s16, vcgtq_u16, vcltzq_s16, vclzq_u16, vdupq_n_u16,
    veorq_u16, vld1_u8, vld1q_s16, vmaxq_u16, vminq_u16, vmovl_u8, vmovn_u16, vnegq_s16, vqsubq_u16,
    vreinterpretq_s16_u16, vreinterpretq_u16_s16, vshlq_n_u16, vshlq_u16, vshrq_n_s16, vshrq_n_u16, vst1_u8,
    vst1q_s16, vsubq_u16, vtstq_u16,
};

use super::g711::Law;

const LANES: usize = 8;

/// Encodes whole groups of eight and returns how many samples that were.
pub(super) fn encode(law: Law, samples: &[i16], codes: &mut [u8]) -> usize {
    let mut done = 0;
    for (input, output) in samples.chunks_exact(LANES).zip(codes.chunks_exact_mut(LANES)) {
        // SAFETY: the processor has NEON; the chunks hold eight samples and eight octets.
        unsafe {
            let group = vld1q_s16(input.as_ptr());
            let words = match law {
                Law::Mu => encode_mu(group),
                Law::A => encode_a(group),
            };
            vst1_u8(output.as_mut_ptr(), vmovn_u16(words));
        }
        done += LANES;
    }
    done
}

/// Decodes whole groups of eight and returns how many codes that were.
pub(super) fn decode(law: Law, codes: &[u8], samples: &mut [i16]) -> usize {
    let mut done = 0;
    for (input, output) in codes.chunks_exact(LANES).zip(samples.chunks_exact_mut(LANES)) {
        // SAFETY: the processor has NEON; the chunks hold eight octets and eight samples.
        unsafe {
            let words = vmovl_u8(vld1_u8(input.as_ptr()));
            let group = match law {
                Law::Mu => decode_mu(words),
                Law::A => decode_a(words),
            };
            vst1q_s16(output.as_mut_ptr(), group);
        }
        done += LANES;
    }
    done
}

/// The magnitude of samples, that of negatives by one's complement.
#[target_feature(enable = "neon")]
fn magnitude_of(sample: int16x8_t) -> uint16x8_t {
    let negative = vreinterpretq_u16_s16(vshrq_n_s16::<15>(sample));
    veorq_u16(vreinterpretq_u16_s16(sample), negative)
}

/// Returns segment and step as one number. `shift` is 3 more than the segment, and what is shifted brings
/// its leading one along: 64 too much.
#[target_feature(enable = "neon")]
fn segment_and_step(magnitude: uint16x8_t, shift: uint16x8_t) -> uint16x8_t {
    let step = vshlq_u16(magnitude, vnegq_s16(vreinterpretq_s16_u16(shift)));
    vsubq_u16(vaddq_u16(vshlq_n_u16::<4>(shift), step), vdupq_n_u16(64))
}

/// ITU-T G.711 table 2.
#[target_feature(enable = "neon")]
fn encode_mu(sample: int16x8_t) -> uint16x8_t {
    let clipped = vminq_u16(magnitude_of(sample), vdupq_n_u16(32_767 - 132));
    let biased = vaddq_u16(clipped, vdupq_n_u16(132));
    let shift = vsubq_u16(vdupq_n_u16(11), vclzq_u16(biased));
    let sign = vandq_u16(vcltzq_s16(sample), vdupq_n_u16(0x80));
    veorq_u16(vaddq_u16(segment_and_step(biased, shift), sign), vdupq_n_u16(0xff))
}

/// ITU-T G.711 table 1.
#[target_feature(enable = "neon")]
fn encode_a(sample: int16x8_t) -> uint16x8_t {
    let magnitude = magnitude_of(sample);
    // Segments 0 and 1 share one step size.
    let zeros = vminq_u16(vclzq_u16(magnitude), vdupq_n_u16(7));
    let shift = vmaxq_u16(vsubq_u16(vdupq_n_u16(11), zeros), vdupq_n_u16(4));
    let sign = vandq_u16(vcltzq_s16(sample), vdupq_n_u16(0x80));
    // Bit 7 is that of positive samples; even bits are inverted.
    veorq_u16(vaddq_u16(segment_and_step(magnitude, shift), sign), vdupq_n_u16(0xd5))
}

/// Takes the segment of a code.
#[target_feature(enable = "neon")]
fn segment_of(code: uint16x8_t) -> uint16x8_t {
    vandq_u16(vshrq_n_u16::<4>(code), vdupq_n_u16(7))
}

/// Gives a magnitude the sign that bit 7 of a code stands for: negative if set.
#[target_feature(enable = "neon")]
fn with_sign(magnitude: uint16x8_t, code: uint16x8_t) -> int16x8_t {
    let positive = vreinterpretq_s16_u16(magnitude);
    vbslq_s16(vtstq_u16(code, vdupq_n_u16(0x80)), vnegq_s16(positive), positive)
}

#[target_feature(enable = "neon")]
fn decode_mu(code: uint16x8_t) -> int16x8_t {
    let code = veorq_u16(code, vdupq_n_u16(0xff));
    let step = vandq_u16(code, vdupq_n_u16(0x0f));
    let biased = vaddq_u16(vshlq_n_u16::<3>(step), vdupq_n_u16(132));
    let shifted = vshlq_u16(biased, vreinterpretq_s16_u16(segment_of(code)));
    with_sign(vsubq_u16(shifted, vdupq_n_u16(132)), code)
}

#[target_feature(enable = "neon")]
fn decode_a(code: uint16x8_t) -> int16x8_t {
    // With the top bit inverted too, a set one means negative, as in the other law.
    let code = veorq_u16(code, vdupq_n_u16(0xd5));
    let (segment, step) = (segment_of(code), vandq_u16(code, vdupq_n_u16(0x0f)));
    // From the first segment on there is a leading one, and each after it doubles.
    let leading = vandq_u16(vcgtq_u16(segment, vdupq_n_u16(0)), vdupq_n_u16(256));
    let base = vaddq_u16(vaddq_u16(vshlq_n_u16::<4>(step), vdupq_n_u16(8)), leading);
    let doubled = vreinterpretq_s16_u16(vqsubq_u16(segment, vdupq_n_u16(1)));
    with_sign(vshlq_u16(base, doubled), code)
}
