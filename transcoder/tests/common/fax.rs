//! Signals of fax machines and modems, made for tests at 8 kHz.

use std::f64::consts::TAU;

use super::keys::peak;

/// A tone of so many Hz, dBm0 and seconds.
pub fn steady(frequency: f64, dbm0: f64, seconds: f64) -> Vec<i16> {
    answer(frequency, dbm0, seconds, false, false)
}

/// The calling tone of a fax machine (ITU-T T.30 4).
pub fn cng(dbm0: f64) -> Vec<i16> {
    steady(1_100.0, dbm0, 0.5)
}

/// An answering tone: modulated as V.8 has it, with its phase reversed every 450 ms, or neither (V.25).
pub fn answer(frequency: f64, dbm0: f64, seconds: f64, modulated: bool, reversed: bool) -> Vec<i16> {
    let sample = |n: usize| {
        let time = n as f64 / 8_000.0;
        let sign = if reversed && (time / 0.45) as u32 % 2 == 1 { -1.0 } else { 1.0 };
        let depth = if modulated { 1.0 + 0.2 * (TAU * 15.0 * time).sin() } else { 1.0 };
        (peak(dbm0) * sign * depth * (TAU * frequency * time).sin()) as i16
    };
    (0..(seconds * 8_000.0) as usize).map(sample).collect()
}

/// Flags on channel 2 of V.21, each with zeros of its own or sharing them with its neighbours (ITU-T T.30 5.3.1).
pub fn flags(dbm0: f64, count: usize, shared: bool) -> Vec<i16> {
    let flag: &[bool] = match shared {
        true => &[false, true, true, true, true, true, true],
        false => &[false, true, true, true, true, true, true, false],
    };
    bits(dbm0, &flag.repeat(count))
}

/// Bits on channel 2 of V.21: 300 in a second, 1650 Hz for a one and 1850 Hz for a zero.
pub fn bits(dbm0: f64, bits: &[bool]) -> Vec<i16> {
    let mut phase = 0.0f64;
    let sample = |n: usize| {
        let one = bits[(n * 300 / 8_000).min(bits.len() - 1)];
        phase += TAU * if one { 1_650.0 } else { 1_850.0 } / 8_000.0;
        (peak(dbm0) * phase.sin()) as i16
    };
    (0..bits.len() * 8_000 / 300).map(sample).collect()
}
