//! The fixed-point words of SILK: 32-bit values times 16-bit fractions, bit for bit as libopus computes them on 64-bit machines.

/// `a * b / 2^16` with the low half of `b`, rounded down.
pub(super) fn mul_low(a: i32, b: i32) -> i32 {
    ((i64::from(a) * i64::from(b as i16)) >> 16) as i32
}

/// `a * b / 2^16` with the high half of `b`, rounded down.
pub(super) fn mul_high(a: i32, b: i32) -> i32 {
    ((i64::from(a) * i64::from(b >> 16)) >> 16) as i32
}

/// `a * b / 2^16`, rounded down.
pub(super) fn mul_q16(a: i32, b: i32) -> i32 {
    ((i64::from(a) * i64::from(b)) >> 16) as i32
}

/// `a / 2^shift`, rounded half up. `shift` is 2 or more.
pub(super) fn round_shift(a: i32, shift: u32) -> i32 {
    ((a >> (shift - 1)) + 1) >> 1
}

pub(super) fn saturate_16(a: i32) -> i16 {
    a.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
}

/// `a` moved up until one bit of headroom is left, and by how much.
fn normalised(a: i32) -> (i32, i32) {
    let headroom = a.unsigned_abs().leading_zeros() as i32 - 1;
    (a.wrapping_shl(headroom as u32), headroom)
}

/// `a / 2^shift`, or `a * 2^-shift` within 32 bits.
fn scaled(a: i32, shift: i32) -> i32 {
    match shift {
        ..0 => {
            let up = (-shift).min(31) as u32;
            a.clamp(i32::MIN >> up, i32::MAX >> up) << up
        }
        0..32 => a >> shift,
        _ => 0,
    }
}

/// About `a * 2^q / b`.
pub(super) fn divide(a: i32, b: i32, q: i32) -> i32 {
    let ((a, a_headroom), (b, b_headroom)) = (normalised(a), normalised(b));
    let inverse = (i32::MAX >> 2) / (b >> 16);
    let first = mul_low(a, inverse);
    let product = ((i64::from(b) * i64::from(first)) >> 32) as i32;
    let rest = a.wrapping_sub(product.wrapping_shl(3));
    scaled(first.wrapping_add(mul_low(rest, inverse)), 29 + a_headroom - b_headroom - q)
}

/// About `2^q / b`.
pub(super) fn invert(b: i32, q: i32) -> i32 {
    let (b, headroom) = normalised(b);
    let inverse = (i32::MAX >> 2) / (b >> 16);
    let first = inverse << 16;
    let rest = (1_i32 << 29).wrapping_sub(mul_low(b, inverse)).wrapping_shl(3);
    scaled(first.wrapping_add(mul_q16(rest, inverse)), 61 - headroom - q)
}
