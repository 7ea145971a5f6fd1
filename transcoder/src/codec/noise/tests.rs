#![allow(clippy::unwrap_used)]
use super::*;

fn dbov(samples: &[i16]) -> f32 {
    10.0 * (mean_power(samples) / power_of(0)).log10()
}

/// First over zeroth autocorrelation: near 1 for dull noise, below 0 for bright.
fn tilt(samples: &[i16]) -> f32 {
    autocorrelation(samples, 1) / autocorrelation(samples, 0)
}

/// Noise of a level in dBov through a pole.
fn background(level: f32, pole: f32, count: usize, seed: u64) -> Vec<i16> {
    let mut random = Seeded::new(seed);
    let gain = (3.0 * power_of(0) * 10f32.powf(level / 10.0) * (1.0 - pole * pole)).sqrt();
    let mut value = 0.0;
    (0..count)
        .map(|_| {
            let white = (random.next_u64() >> 40) as f32 / (1u32 << 23) as f32 - 1.0;
            value = pole * value + gain * white;
            value.round() as i16
        })
        .collect()
}

/// RFC 3389: noise goes on as the background was in the pauses, in level within 2 dB and in colour.
#[test]
fn f06_noise_is_like_the_background_that_was_heard_last() {
    let mut seed = 0;
    for level in [-70.0, -60.0, -50.0, -42.0] {
        for pole in [-0.5, 0.0, 0.5, 0.9] {
            seed += 1;
            let mut noise = ComfortNoise::new(seed);
            // A second of speech: loud, and of another colour; then a hangover of 100 ms, and silence.
            for frame in background(-20.0, 0.7, 8_000, seed + 100).chunks_exact(160) {
                noise.hear(frame);
            }
            let heard = background(level, pole, 16_000, seed);
            heard[..800].chunks_exact(160).for_each(|frame| noise.hear(frame));
            let mut made = vec![0; 16_000];
            made.chunks_exact_mut(160).for_each(|frame| noise.fill(frame));
            let label = format!("seed {seed}, {level} dBov, pole {pole}");
            assert!((dbov(&made) - level).abs() < 2.0, "{label}: {}", dbov(&made));
            assert!((tilt(&made) - tilt(&heard)).abs() < 0.15, "{label}: {} {}", tilt(&made), tilt(&heard));
            // It begins at that level; 40 ms of dull noise vary by some dB.
            assert!((dbov(&made[..320]) - level).abs() < 4.5, "{label}: {}", dbov(&made[..320]));
            assert!((f32::from(noise.model().level()) + level).abs() < 2.0, "{label}");
        }
    }
}

/// In silence a frame now and then tells how the background is now; the noise goes there without a step.
#[test]
fn f06_the_level_follows_without_a_step() {
    let mut noise = ComfortNoise::new(3);
    background(-60.0, 0.5, 1_600, 1).chunks_exact(160).for_each(|frame| noise.hear(frame));
    let mut made = vec![0; 8_000];
    noise.fill(&mut made);
    noise.describe(&[45]);
    let mut after = vec![0; 8_000];
    noise.fill(&mut after);
    assert!((dbov(&after[1_600..]) + 45.0).abs() < 2.0, "{}", dbov(&after[1_600..]));
    made.extend(after);
    let levels: Vec<f32> = made[7_200..9_600].chunks_exact(80).map(dbov).collect();
    assert!(levels.windows(2).all(|pair| (pair[1] - pair[0]).abs() < 9.0), "{levels:?}");
    for n in 0..8 {
        noise.hear(&background(-55.0, 0.5, 160, 50 + n));
        let mut made = [0; 3_200];
        noise.fill(&mut made);
    }
    let mut settled = vec![0; 8_000];
    noise.fill(&mut settled);
    assert!((dbov(&settled) + 55.0).abs() < 2.0, "{}", dbov(&settled));
}

/// RFC 3389 3: what is written of a noise makes the same noise.
#[test]
fn f06_a_payload_carries_level_and_colour() {
    for (seed, pole) in [(1, -0.6), (2, 0.0), (3, 0.85)] {
        let mut from = ComfortNoise::new(seed);
        background(-52.0, pole, 3_200, seed).chunks_exact(160).for_each(|frame| from.hear(frame));
        let payload = from.model().payload();
        assert!(payload[0].abs_diff(52) <= 1 && payload[0] < 128, "{payload:?}");
        assert!(payload[1..].iter().all(|&code| code < 255));
        // RFC 3389 3.2: k1 = 258 (N1 - 127) / 32768 is -r1 / r0, here the pole.
        let first = (f32::from(payload[1]) - 127.0) * 258.0 / 32_768.0;
        assert!((first + pole).abs() < 0.06, "seed {seed}: {first} for {pole}");
        let mut to = ComfortNoise::new(seed + 10);
        to.describe(&payload);
        let mut made = vec![0; 16_000];
        to.fill(&mut made[..800]);
        to.fill(&mut made);
        assert!((dbov(&made) + 52.0).abs() < 1.0, "seed {seed}: {}", dbov(&made));
        assert!((tilt(&made) - pole).abs() < 0.1, "seed {seed}: {} for {pole}", tilt(&made));
        // RFC 3389 3.2: fewer coefficients are a lower order, more than are known are left out.
        to.describe(&payload[..3]);
        assert_eq!(to.model().payload()[..3], payload[..3]);
        assert!(to.model().payload()[3..].iter().all(|&code| code == ZERO));
        to.describe(&[payload.as_slice(), &[200; 20]].concat());
        assert_eq!(to.model().payload(), payload);
        // The level alone leaves the colour.
        to.describe(&[60 | 0x80]);
        assert_eq!((to.model().level(), &to.model().payload()[1..]), (60, &payload[1..]));
    }
}

#[test]
fn f06_no_payload_and_no_sound_makes_noise_loud_or_endless() {
    let mut random = Seeded::new(77);
    let mut noise = ComfortNoise::new(8);
    for step in 0..2_000 {
        let payload: Vec<u8> = (0..random.below(12)).map(|_| random.next_u64() as u8).collect();
        noise.describe(&payload);
        if random.below(3) == 0 {
            let (level, pole) = (-(random.below(90) as f32), random.below(19) as f32 / 10.0 - 0.9);
            noise.hear(&background(level, pole, random.below(400) as usize, step));
        }
        let mut made = [0; 480];
        noise.fill(&mut made);
        assert!(dbov(&made) < -26.0, "step {step}: {}", dbov(&made));
    }
    noise.describe(&[0]);
    let mut made = vec![0; 8_000];
    noise.fill(&mut made);
    noise.fill(&mut made);
    assert!(dbov(&made) < -29.0, "{}", dbov(&made));
    // What stops at full level was no background.
    let mut fresh = ComfortNoise::new(9);
    background(-20.0, 0.0, 1_600, 9).chunks_exact(160).for_each(|frame| fresh.hear(frame));
    fresh.fill(&mut made);
    assert!(dbov(&made) < -60.0, "{}", dbov(&made));
    // Digital silence goes on as such.
    (0..10).for_each(|_| noise.hear(&[0; 160]));
    noise.fill(&mut made);
    noise.fill(&mut made);
    assert!(made.iter().all(|sample| sample.unsigned_abs() <= 1));
}
