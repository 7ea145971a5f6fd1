//! Concealment of gaps in decoded G.711 and G.722: the last pitch periods are repeated and faded out, and
//! the first good frame is faded in (the approach of ITU-T G.711 Appendix I, without its delay).

/// Everything here is counted in samples of 8 kHz, and scaled from there.
const BASE_RATE: u32 = 8_000;
/// Ratio of the highest rate to 8 kHz.
const MAX_SCALE: usize = 2;
/// Samples in 10 ms.
const TEN_MS: usize = 80;
/// Shortest pitch period considered: 200 Hz.
const MIN_PERIOD: usize = 40;
/// Longest pitch period considered: 66.7 Hz.
const MAX_PERIOD: usize = 120;
/// Samples compared when the pitch is sought: 20 ms.
const WINDOW: usize = 2 * TEN_MS;
/// Periods repeated once a gap is long; a single one would buzz.
const MAX_CYCLES: usize = 3;
/// Samples kept: three periods and a quarter for the seam.
const HISTORY: usize = MAX_CYCLES * MAX_PERIOD + MAX_PERIOD / 4;
/// Samples over which a jump at a seam is spread.
const SEAM: usize = 24;
/// Samples at full level before the fade begins, and length of the fade to silence.
const HOLD: usize = TEN_MS;
const FADE: usize = 5 * TEN_MS;

/// Fills gaps in audio at 8 or 16 kHz. Every good frame passes through [`Concealer::receive`], every gap
/// is filled by [`Concealer::conceal`]. Allocates only when built.
#[derive(Clone, Debug)]
pub struct Concealer {
    scale: usize,
    history: Box<[i16]>,
    cycle: Box<[f32]>,
    cycle_len: usize,
    cycles: usize,
    period: usize,
    position: usize,
    /// Jump at the last seam, still to be taken back over `seam_left` samples.
    seam: f32,
    seam_left: usize,
    /// Samples made up in the present gap; 0 outside of one.
    concealed: usize,
}

impl Default for Concealer {
    fn default() -> Self {
        Self::new()
    }
}

impl Concealer {
    /// Builds a concealer for 8 kHz whose past is silence.
    pub fn new() -> Self {
        Self::for_rate(BASE_RATE)
    }

    /// Builds a concealer for 8000 or 16000 Hz whose past is silence; any other rate is taken for the nearest of both.
    pub fn for_rate(sample_rate: u32) -> Self {
        let scale = ((sample_rate / BASE_RATE) as usize).clamp(1, MAX_SCALE);
        Self {
            scale,
            history: vec![0; HISTORY * scale].into_boxed_slice(),
            cycle: vec![0.0; MAX_CYCLES * MAX_PERIOD * scale].into_boxed_slice(),
            cycle_len: MIN_PERIOD * scale,
            cycles: 0,
            period: MIN_PERIOD * scale,
            position: 0,
            seam: 0.0,
            seam_left: 0,
            concealed: 0,
        }
    }

    /// Takes in a good frame; after a gap its beginning is blended with the made-up signal.
    pub fn receive(&mut self, frame: &mut [i16]) {
        if self.concealed > 0 {
            // The longer the gap, the further apart the two signals may be: 4 ms more per 10 ms.
            let ten_ms = TEN_MS * self.scale;
            let further = 32 * self.scale * (self.concealed / ten_ms);
            let blend = (self.period / 4 + further).min(ten_ms).min(frame.len());
            for (n, sample) in frame.iter_mut().take(blend).enumerate() {
                let made_up = self.next_sample();
                let weight = (n + 1) as f32 / (blend + 1) as f32;
                *sample = (made_up + (f32::from(*sample) - made_up) * weight) as i16;
            }
            self.concealed = 0;
        }
        self.remember(frame);
    }

    /// Makes up a frame of any length. The signal is silent after 60 ms without a good frame.
    pub fn conceal(&mut self, out: &mut [i16]) {
        if self.concealed == 0 {
            self.period = self.find_period();
            self.position = 0;
            self.cycles = 0;
            self.lengthen_cycle();
        }
        for sample in out.iter_mut() {
            *sample = self.next_sample() as i16;
        }
    }

    /// Forgets the past, for another stream.
    pub fn reset(&mut self) {
        self.history.fill(0);
        (self.seam, self.seam_left, self.concealed) = (0.0, 0, 0);
    }

    fn next_sample(&mut self) -> f32 {
        let scale = self.scale;
        if self.concealed > (HOLD + FADE) * scale {
            return 0.0;
        }
        if self.concealed > 0 && self.concealed.is_multiple_of(TEN_MS * scale) && self.cycles < MAX_CYCLES {
            self.lengthen_cycle();
        }
        let mut value = self.cycle[self.position];
        self.position = (self.position + 1) % self.cycle_len;
        if self.seam_left > 0 {
            value += self.seam * self.seam_left as f32 / (SEAM * scale) as f32;
            self.seam_left -= 1;
        }
        let faded = self.concealed.saturating_sub(HOLD * scale) as f32 / (FADE * scale) as f32;
        self.concealed += 1;
        (value * (1.0 - faded).max(0.0)).clamp(-32_768.0, 32_767.0)
    }

    /// Builds the repeated stretch from one more period of history, its end blended into what
    /// precedes its beginning so that it wraps without a jump.
    fn lengthen_cycle(&mut self) {
        let leaving = if self.cycles == 0 {
            f32::from(self.history[self.history.len() - 1])
        } else {
            self.cycle[self.position]
        };
        self.cycles += 1;
        self.cycle_len = self.cycles * self.period;
        let start = self.history.len() - self.cycle_len;
        for (value, &sample) in self.cycle.iter_mut().zip(&self.history[start..]) {
            *value = f32::from(sample);
        }
        let quarter = self.period / 4;
        for n in 0..quarter {
            let weight = (n + 1) as f32 / (quarter + 1) as f32;
            let before = f32::from(self.history[start - quarter + n]);
            let tail = &mut self.cycle[self.cycle_len - quarter + n];
            *tail += (before - *tail) * weight;
        }
        let entering =
            if self.cycles == 1 { f32::from(self.history[start - 1]) } else { self.cycle[self.position] };
        self.seam = leaving - entering;
        self.seam_left = SEAM * self.scale;
    }

    /// Returns the lag at which the last 20 ms resemble what came before them most.
    fn find_period(&self) -> usize {
        const SPAN: usize = WINDOW + MAX_PERIOD;
        let scale = self.scale;
        let recent = &self.history[self.history.len() - SPAN * scale..];
        let mut span = [0i16; SPAN];
        for (sample, group) in span.iter_mut().zip(recent.chunks_exact(scale)) {
            *sample = (group.iter().map(|&sample| i32::from(sample)).sum::<i32>() / scale as i32) as i16;
        }
        // Twelve bits of magnitude keep a sum of 160 products within 32 bits, where it is cheap.
        let loudest = span.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or(0);
        let shift = 5u32.saturating_sub(loudest.leading_zeros());
        for sample in &mut span {
            *sample >>= shift;
        }
        let product = |a: &[i16], b: &[i16]| -> f32 {
            a.iter().zip(b).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum::<i32>() as f32
        };
        let coarse = most_alike(&span, MIN_PERIOD..=MAX_PERIOD, MAX_PERIOD, product);
        if scale == 1 {
            return coarse;
        }
        // At the full rate the period lies within one sample of the lower rate; what is above 4 kHz needs it exactly.
        let wide = |a: &[i16], b: &[i16]| -> f32 {
            a.iter().zip(b).map(|(&a, &b)| i64::from(a) * i64::from(b)).sum::<i64>() as f32
        };
        let around = coarse * scale - scale + 1..=(coarse * scale + scale - 1).min(MAX_PERIOD * scale);
        most_alike(recent, around, MAX_PERIOD * scale, wide)
    }

    fn remember(&mut self, frame: &[i16]) {
        let length = self.history.len();
        let fresh = &frame[frame.len().saturating_sub(length)..];
        self.history.copy_within(fresh.len().., 0);
        self.history[length - fresh.len()..].copy_from_slice(fresh);
    }
}

/// Returns the lag at which the end of a span, from `from` on, is most like what came before it.
fn most_alike(
    span: &[i16],
    lags: std::ops::RangeInclusive<usize>,
    from: usize,
    product: impl Fn(&[i16], &[i16]) -> f32,
) -> usize {
    let mut best = (f32::MIN, *lags.end());
    for lag in lags {
        let earlier = &span[from - lag..span.len() - lag];
        let score = product(&span[from..], earlier) / (product(earlier, earlier) + 1.0).sqrt();
        if score > best.0 {
            best = (score, lag);
        }
    }
    best.1
}
