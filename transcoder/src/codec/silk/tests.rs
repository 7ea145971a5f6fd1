//! The loops against those of libopus, bit for bit.

use std::sync::{Mutex, MutexGuard};

use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

use super::*;
use crate::codec::opus::{Bandwidth, Encoder, EncoderConfig, MAX_PACKET};

/// Which loops are used is a switch of the whole process, so tests that turn it take turns.
static SWITCH: Mutex<()> = Mutex::new(());

fn switch() -> MutexGuard<'static, ()> {
    SWITCH.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn encoded(config: &EncoderConfig, frame: usize, signal: &[i16], own: bool) -> Vec<Vec<u8>> {
    use_kernels(own);
    let mut encoder = Encoder::new(config).unwrap();
    let mut packet = [0; MAX_PACKET];
    let packets = signal.chunks_exact(frame).map(|pcm| {
        let length = encoder.encode(pcm, &mut packet).unwrap();
        packet[..length].to_vec()
    });
    let packets = packets.collect();
    use_kernels(true);
    packets
}

/// Something like speech: voiced stretches of gliding pitch, hiss, steps of loudness, clipping, silence.
fn voice(rate: u32, seconds: f32, seed: u64) -> Vec<i16> {
    let mut random = crate::seed::Seeded::new(seed);
    let mut uniform = move || (random.next_u64() >> 40) as f32 / (1 << 23) as f32 - 1.0;
    let length = (rate as f32 * seconds) as usize;
    let (mut phase, mut pitch, mut loud, mut voiced) = (0.0_f32, 120.0_f32, 3000.0_f32, true);
    let mut resonance = [0.0_f32; 2];
    let mut out = Vec::with_capacity(length);
    for at in 0..length {
        if at % (rate as usize / 9) == 0 {
            pitch = 90.0 + 220.0 * uniform().abs();
            loud = [0.0, 60.0, 900.0, 6000.0, 60_000.0][(uniform().abs() * 4.99) as usize];
            voiced = uniform() > -0.4;
        }
        pitch *= 1.0 + 0.000_2 * uniform();
        phase = (phase + pitch / rate as f32).fract();
        let source = if voiced { (1.0 - 2.0 * phase).powi(3) } else { uniform() };
        let value = source + 1.3 * resonance[0] - 0.7 * resonance[1];
        resonance = [value, resonance[0]];
        out.push((value * loud * 0.4) as i16);
    }
    out
}

/// A guard against a program that was linked without them: they would be compared with themselves below.
#[test]
fn libopus_calls_these_loops() {
    let _turn = switch();
    if !is_x86_feature_detected!("avx2") {
        return;
    }
    unsafe extern "C" {
        // Its address alone is asked for; its signature stands with the loops.
        fn silk_warped_autocorrelation_FLP();
    }
    let theirs = silk_warped_autocorrelation_FLP as *const ();
    let called = theirs == __wrap_silk_warped_autocorrelation_FLP as *const ();
    assert!(called, "the linker did not put the loops in their place");
}

#[test]
fn packets_are_those_of_libopus() {
    let _turn = switch();
    let mut packets = 0;
    for (rate, max_bandwidth) in
        [(8_000, Bandwidth::Narrowband), (16_000, Bandwidth::Mediumband), (16_000, Bandwidth::Wideband)]
    {
        for complexity in [0, 2, 3, 4, 5, 6] {
            for (bitrate, fec) in [(8_000, false), (16_000, false), (24_000, true), (40_000, true)] {
                for tens in [1, 2, 6] {
                    let config = EncoderConfig {
                        sample_rate: rate,
                        bitrate,
                        complexity,
                        fec,
                        expected_loss_percent: if fec { 10 } else { 0 },
                        dtx: false,
                        max_bandwidth,
                    };
                    let seed = u64::from(complexity) * 1000 + u64::from(bitrate) + tens as u64;
                    let signal = voice(rate, 1.5, seed);
                    let frame = rate as usize / 100 * tens;
                    let (own, theirs) =
                        (encoded(&config, frame, &signal, true), encoded(&config, frame, &signal, false));
                    packets += own.len();
                    assert!(own == theirs, "{config:?}, frames of {tens}0 ms, seed {seed}");
                }
            }
        }
    }
    assert!(packets > 8_000, "{packets} packets compared");
}

/// Settings change within a call: by load, and by loss.
#[test]
fn packets_are_those_of_libopus_while_settings_change() {
    let _turn = switch();
    let signal = voice(8_000, 30.0, 7);
    let encode = |own| {
        use_kernels(own);
        let mut encoder = Encoder::new(&EncoderConfig::for_rate(8_000)).unwrap();
        let mut packet = [0; MAX_PACKET];
        let mut packets = Vec::new();
        for (at, pcm) in signal.chunks_exact(160).enumerate() {
            if at % 17 == 0 {
                encoder.set_complexity([5, 0, 3, 10, 4, 2][at / 17 % 6]).unwrap();
                encoder.set_bitrate([16_000, 24_000, 12_000][at / 17 % 3]).unwrap();
            }
            let length = encoder.encode(pcm, &mut packet).unwrap();
            packets.push(packet[..length].to_vec());
        }
        use_kernels(true);
        packets
    };
    assert!(encode(true) == encode(false));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn correlations_are_those_of_libopus(
        window in proptest::collection::vec(-40_000.0_f32..40_000.0, 1..=240),
        warping in 0.0_f32..0.3,
        half in 1_usize..=12,
        silent in any::<bool>(),
    ) {
        let _turn = switch();
        let window = if silent { vec![0.0; window.len()] } else { window };
        let order = 2 * half;
        let (mut own, mut theirs) = ([0.0_f32; 25], [0.0_f32; 25]);
        let (length, wanted) = (window.len() as c_int, order as c_int);
        // SAFETY: the window is as long as said, and there is room for 25 values.
        unsafe {
            __wrap_silk_warped_autocorrelation_FLP(own.as_mut_ptr(), window.as_ptr(), warping, length, wanted);
            __real_silk_warped_autocorrelation_FLP(theirs.as_mut_ptr(), window.as_ptr(), warping, length, wanted);
        }
        prop_assert_eq!(own.map(f32::to_bits), theirs.map(f32::to_bits));
    }
}
