//! Concealment of gaps in decoded G.711: the last pitch periods are repeated and faded out, and
//! the first good frame is faded in (the approach of ITU-T G.711 Appendix I, without its delay).

/// Samples in 10 ms at 8 kHz.
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

/// Fills gaps in 8 kHz audio. Every good frame passes through [`Concealer::receive`], every gap
/// is filled by [`Concealer::conceal`].
#[derive(Clone, Debug)]
pub struct Concealer {
    history: [i16; HISTORY],
    cycle: [f32; MAX_CYCLES * MAX_PERIOD],
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
    /// Builds a concealer whose past is silence.
    pub fn new() -> Self {
        Self {
            history: [0; HISTORY],
            cycle: [0.0; MAX_CYCLES * MAX_PERIOD],
            cycle_len: MIN_PERIOD,
            cycles: 0,
            period: MIN_PERIOD,
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
            let blend = (self.period / 4 + 32 * (self.concealed / TEN_MS)).min(TEN_MS).min(frame.len());
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
        *self = Self::new();
    }

    fn next_sample(&mut self) -> f32 {
        if self.concealed > HOLD + FADE {
            return 0.0;
        }
        if self.concealed > 0 && self.concealed.is_multiple_of(TEN_MS) && self.cycles < MAX_CYCLES {
            self.lengthen_cycle();
        }
        let mut value = self.cycle[self.position];
        self.position = (self.position + 1) % self.cycle_len;
        if self.seam_left > 0 {
            value += self.seam * self.seam_left as f32 / SEAM as f32;
            self.seam_left -= 1;
        }
        let faded = self.concealed.saturating_sub(HOLD) as f32 / FADE as f32;
        self.concealed += 1;
        (value * (1.0 - faded).max(0.0)).clamp(-32_768.0, 32_767.0)
    }

    /// Builds the repeated stretch from one more period of history, its end blended into what
    /// precedes its beginning so that it wraps without a jump.
    fn lengthen_cycle(&mut self) {
        let leaving =
            if self.cycles == 0 { f32::from(self.history[HISTORY - 1]) } else { self.cycle[self.position] };
        self.cycles += 1;
        self.cycle_len = self.cycles * self.period;
        let start = HISTORY - self.cycle_len;
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
        self.seam_left = SEAM;
    }

    /// Returns the lag at which the last 20 ms resemble what came before them most.
    fn find_period(&self) -> usize {
        const SPAN: usize = WINDOW + MAX_PERIOD;
        let mut span = [0i16; SPAN];
        span.copy_from_slice(&self.history[HISTORY - SPAN..]);
        // Twelve bits of magnitude keep a sum of 160 products within 32 bits, where it is cheap.
        let loudest = span.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or(0);
        let shift = 5u32.saturating_sub(loudest.leading_zeros());
        for sample in &mut span {
            *sample >>= shift;
        }
        let product = |a: &[i16], b: &[i16]| -> i32 {
            a.iter().zip(b).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum()
        };
        let recent = &span[MAX_PERIOD..];
        let mut best = (f32::MIN, MAX_PERIOD);
        for lag in MIN_PERIOD..=MAX_PERIOD {
            let earlier = &span[MAX_PERIOD - lag..SPAN - lag];
            let score = product(recent, earlier) as f32 / (product(earlier, earlier) as f32 + 1.0).sqrt();
            if score > best.0 {
                best = (score, lag);
            }
        }
        best.1
    }

    fn remember(&mut self, frame: &[i16]) {
        let fresh = &frame[frame.len().saturating_sub(HISTORY)..];
        self.history.copy_within(fresh.len().., 0);
        self.history[HISTORY - fresh.len()..].copy_from_slice(fresh);
    }
}
