//! Signals to send and means to recognise them.

/// Part of a signal's energy that lies at a frequency, 0 to 1 (Goertzel).
pub fn tone_share(samples: &[i16], frequency: f64, rate: f64) -> f64 {
    let energy: f64 = samples.iter().map(|&s| f64::from(s) * f64::from(s)).sum();
    if energy == 0.0 {
        return 0.0;
    }
    let (mut re, mut im) = (0.0, 0.0);
    for (n, &sample) in samples.iter().enumerate() {
        let angle = std::f64::consts::TAU * frequency * n as f64 / rate;
        re += f64::from(sample) * angle.cos();
        im += f64::from(sample) * angle.sin();
    }
    2.0 * (re * re + im * im) / (energy * samples.len() as f64)
}

/// Mean over windows of 100 ms of [`tone_share`]: a glitch elsewhere does not turn the phase of all.
pub fn mean_tone_share(samples: &[i16], frequency: f64, rate: f64) -> f64 {
    let windows: Vec<f64> =
        samples.chunks_exact(rate as usize / 10).map(|w| tone_share(w, frequency, rate)).collect();
    windows.iter().sum::<f64>() / windows.len() as f64
}

pub fn rms(samples: &[i16]) -> f64 {
    let energy: f64 = samples.iter().map(|&s| f64::from(s) * f64::from(s)).sum();
    (energy / samples.len().max(1) as f64).sqrt()
}

pub fn tone(frequency: f64, rate: f64) -> impl FnMut() -> i16 {
    let mut n = 0u64;
    move || {
        n += 1;
        (8000.0 * (std::f64::consts::TAU * frequency * n as f64 / rate).sin()) as i16
    }
}

/// Something like a voice at 8 kHz: harmonics of a gliding pitch in syllables with pauses.
pub fn speech() -> impl FnMut() -> i16 {
    let mut n = 0u64;
    let mut phase = 0.0f64;
    move || {
        let t = n as f64 / 8000.0;
        n += 1;
        let pitch = 140.0 + 40.0 * (t * 1.7).sin() + 15.0 * (t * 5.1).sin();
        phase += std::f64::consts::TAU * pitch / 8000.0;
        let syllable = (std::f64::consts::PI * 3.3 * t).sin().abs().powf(1.5);
        let phrase = if (t * 0.37).fract() < 0.7 { 1.0 } else { 0.0 };
        let formant = 1.0 + (t * 2.3).sin();
        let voice: f64 = (1..12)
            .map(|h| (phase * f64::from(h)).sin() / f64::from(h) * (1.0 + formant * f64::from(h % 3)))
            .sum();
        (2200.0 * syllable * phrase * voice) as i16
    }
}

/// Best normalised correlation of a piece of `sent` within `heard`, and the lag in samples.
pub fn correlation(sent: &[i16], heard: &[i16], max_lag: usize) -> (f64, usize) {
    let mut best = (0.0, 0);
    for lag in 0..=max_lag.min(heard.len().saturating_sub(sent.len())) {
        let window = &heard[lag..lag + sent.len()];
        let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
        for (&x, &y) in sent.iter().zip(window) {
            xy += f64::from(x) * f64::from(y);
            xx += f64::from(x) * f64::from(x);
            yy += f64::from(y) * f64::from(y);
        }
        let value = xy / (xx * yy).sqrt().max(1.0);
        if value > best.0 {
            best = (value, lag);
        }
    }
    best
}
