//! Two decision states side by side: one subframe of the quantiser in SSE4.1/AVX2 registers.
//!
//! A register holds one value of both states, each in a half of 64 bits. While a sample is quantised, the lower 32 bits
//! of a half belong to the better of the two levels tried, the upper to the other.

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_and_si128, _mm_andnot_si128, _mm_blend_epi16, _mm_blendv_epi8, _mm_blendv_ps,
    _mm_castpd_si128, _mm_castps_si128, _mm_castsi128_pd, _mm_castsi128_ps, _mm_cmpgt_epi32,
    _mm_cvtsi128_si64, _mm_extract_epi64, _mm_load_si128, _mm_madd_epi16, _mm_max_epi32, _mm_min_epi32,
    _mm_mul_epi32, _mm_mullo_epi32, _mm_permutevar_pd, _mm_permutevar_ps, _mm_set_epi32, _mm_set1_epi32,
    _mm_shuffle_epi32, _mm_sign_epi32, _mm_slli_epi32, _mm_srai_epi32, _mm_srli_epi64, _mm_store_si128,
    _mm_sub_epi32, _mm_xor_si128,
};

use super::arithmetic::{mul_high, mul_low, mul_q16, round_shift, saturate_16};
use super::layout::{MAX_PREDICTION_ORDER, MAX_SHAPING_ORDER, Memory};

/// Samples that a decision may be put off.
pub(super) const DELAY: usize = 40;
/// What is added to the cost of a state that a decision has ruled out.
const RULED_OUT: i32 = i32::MAX >> 4;
/// How far levels other than 0 are moved towards it, Q10.
const LEVEL_ADJUST: i32 = 80;

const RAND_FACTOR: i32 = 196_314_165;
const RAND_STEP: i32 = 907_633_515;

/// One value of both states, as it lies in a register.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(super) struct Pair(pub(super) [i32; 4]);

impl Pair {
    pub(super) const ZERO: Pair = Pair([0; 4]);

    pub(super) fn both(value: i32) -> Self {
        Pair([value; 4])
    }

    pub(super) fn of(first: i32, second: i32) -> Self {
        Pair([first, first, second, second])
    }

    pub(super) fn state(&self, index: usize) -> i32 {
        self.0[2 * (index & 1)]
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn scale(&mut self, gain: __m128i) {
        self.store(doubled(_mm_srli_epi64::<16>(_mm_mul_epi32(self.load(), gain))));
    }

    fn load(&self) -> __m128i {
        // SAFETY: 16 bytes of plain integers, aligned by the type.
        unsafe { _mm_load_si128((&raw const self.0).cast()) }
    }

    fn store(&mut self, value: __m128i) {
        // SAFETY: as above.
        unsafe { _mm_store_si128((&raw mut self.0).cast(), value) }
    }
}

/// What was decided for one sample in either state.
#[derive(Clone, Copy)]
pub(super) struct Decided {
    /// Level, Q10.
    pub(super) level: Pair,
    /// Quantised signal, Q14.
    pub(super) signal: Pair,
    /// Excitation of the short-term predictor, Q15.
    excitation: Pair,
    /// Shaped noise, Q14.
    pub(super) noise: Pair,
    random: Pair,
    /// Gain, Q10.
    gain: i32,
}

const UNDECIDED: Decided = Decided {
    level: Pair::ZERO,
    signal: Pair::ZERO,
    excitation: Pair::ZERO,
    noise: Pair::ZERO,
    random: Pair::ZERO,
    gain: 0,
};

/// Both states, and the samples that are not decided yet. What a state did is not copied when another takes its place:
/// `ancestry` says in which half each sample of its past lies.
pub(super) struct States {
    pub(super) shaping: [Pair; MAX_SHAPING_ORDER],
    /// The newest first.
    pub(super) prediction: [Pair; MAX_PREDICTION_ORDER],
    pub(super) low_frequency: Pair,
    pub(super) difference: Pair,
    pub(super) noise: Pair,
    seed: Pair,
    pub(super) cost: Pair,
    pub(super) first_seed: [i32; 2],
    /// Bit `n` of a state is the half in which it stood `n + 1` samples ago.
    ancestry: [u64; 2],
    pub(super) past: [Decided; DELAY],
    /// Where in `past` the newest sample is; older ones follow.
    newest: usize,
}

impl States {
    pub(super) fn new(memory: &Memory, newest_noise: i32, seed: i32) -> Self {
        let seeds = [seed & 3, (seed + 1) & 3];
        Self {
            shaping: memory.shaping.map(Pair::both),
            prediction: std::array::from_fn(|age| {
                Pair::both(memory.prediction[MAX_PREDICTION_ORDER - 1 - age])
            }),
            low_frequency: Pair::both(memory.low_frequency),
            difference: Pair::both(memory.difference),
            noise: Pair::both(newest_noise),
            seed: Pair::of(seeds[0], seeds[1]),
            cost: Pair::ZERO,
            first_seed: seeds,
            ancestry: [0; 2],
            past: [UNDECIDED; DELAY],
            newest: 0,
        }
    }

    /// The state that has cost less.
    pub(super) fn cheaper(&self) -> usize {
        usize::from(self.cost.state(1) < self.cost.state(0))
    }

    /// Makes a state so dear that it is given up.
    pub(super) fn rule_out(&mut self, state: usize) {
        let cost = self.cost.state(state).wrapping_add(RULED_OUT);
        self.cost.0[2 * state..2 * state + 2].fill(cost);
    }

    /// What `state` decided `age` samples before its newest, and in which half that lies.
    pub(super) fn decided(&self, state: usize, age: usize) -> (&Decided, usize) {
        let half = (self.ancestry[state & 1] >> age) & 1;
        (&self.past[(self.newest + age) % DELAY], half as usize)
    }

    /// Fits what is carried on to another gain.
    #[target_feature(enable = "avx2")]
    pub(super) fn scale(&mut self, gain: i32) {
        let gain = _mm_set1_epi32(gain);
        self.low_frequency.scale(gain);
        self.difference.scale(gain);
        self.noise.scale(gain);
        for pair in self.prediction.iter_mut().chain(&mut self.shaping) {
            pair.scale(gain);
        }
        for decided in &mut self.past {
            decided.noise.scale(gain);
            decided.excitation.scale(gain);
        }
    }
}

/// What is the same for every sample of a subframe.
pub(super) struct Subframe<'a> {
    /// Input over gain, Q10.
    pub(super) input: &'a [i32],
    /// Where decided samples go; `at` is the place of the first sample of the subframe.
    pub(super) pulses: &'a mut [i8],
    pub(super) pulses_at: usize,
    pub(super) long_term: &'a mut [i32],
    pub(super) predictor: &'a [i16],
    pub(super) long_term_taps: &'a [i16],
    pub(super) shaping: &'a [i16],
    pub(super) lag: usize,
    pub(super) voiced: bool,
    pub(super) harmonic: i32,
    pub(super) tilt: i32,
    pub(super) low_frequency: i32,
    pub(super) gain: i32,
    pub(super) lambda: i32,
    pub(super) offset: i32,
    pub(super) warping: i32,
    /// Samples that a decision is put off.
    pub(super) delay: usize,
    /// Whether samples before this subframe wait for their decision.
    pub(super) pending: bool,
}

/// For each way of replacing a state: which 32 bits the halves come from, and which state each comes from.
/// 0: none; else 1 + 2 * (the state that is replaced) + (the state whose second choice replaces it).
const CHOICE: [Pair; 5] =
    [Pair([0, 0, 2, 2]), Pair([1, 1, 2, 2]), Pair([3, 3, 2, 2]), Pair([0, 0, 1, 1]), Pair([0, 0, 3, 3])];
/// `vpermilpd` takes bit 1 of each half.
const ORIGIN: [Pair; 5] =
    [Pair([0, 0, 2, 0]), Pair([0, 0, 2, 0]), Pair([2, 0, 2, 0]), Pair([0, 0, 0, 0]), Pair([0, 0, 2, 0])];
const ORIGIN_STATES: [[usize; 2]; 5] = [[0, 1], [0, 1], [1, 1], [0, 0], [0, 1]];
/// What a decision adds to the costs: nothing, or to one of the states.
const PENALTY: [Pair; 3] =
    [Pair([0; 4]), Pair([RULED_OUT, RULED_OUT, 0, 0]), Pair([0, 0, RULED_OUT, RULED_OUT])];

/// `sum + b * c / 2^16` in the lower 32 bits of both halves.
#[target_feature(enable = "avx2")]
#[inline]
fn mul_add(sum: __m128i, b: __m128i, c: __m128i) -> __m128i {
    _mm_add_epi32(sum, _mm_srli_epi64::<16>(_mm_mul_epi32(b, c)))
}

#[target_feature(enable = "avx2")]
#[inline]
fn saturating_add(a: __m128i, b: __m128i) -> __m128i {
    let sum = _mm_add_epi32(a, b);
    let overflow = _mm_andnot_si128(_mm_xor_si128(a, b), _mm_xor_si128(a, sum));
    limited(a, sum, overflow)
}

#[target_feature(enable = "avx2")]
#[inline]
fn saturating_sub(a: __m128i, b: __m128i) -> __m128i {
    let difference = _mm_sub_epi32(a, b);
    let overflow = _mm_and_si128(_mm_xor_si128(a, b), _mm_xor_si128(a, difference));
    limited(a, difference, overflow)
}

#[target_feature(enable = "avx2")]
#[inline]
fn limited(a: __m128i, result: __m128i, overflow: __m128i) -> __m128i {
    let limit = _mm_xor_si128(_mm_srai_epi32::<31>(a), _mm_set1_epi32(i32::MAX));
    let [result, limit, overflow] = [result, limit, overflow].map(|v| _mm_castsi128_ps(v));
    _mm_castps_si128(_mm_blendv_ps(result, limit, overflow))
}

/// Negates where the mask is all ones.
#[target_feature(enable = "avx2")]
#[inline]
fn flip(value: __m128i, mask: __m128i) -> __m128i {
    _mm_sub_epi32(_mm_xor_si128(value, mask), mask)
}

#[target_feature(enable = "avx2")]
#[inline]
fn choose(value: __m128i, choice: __m128i) -> __m128i {
    _mm_castps_si128(_mm_permutevar_ps(_mm_castsi128_ps(value), choice))
}

#[target_feature(enable = "avx2")]
#[inline]
fn origin(value: __m128i, origin: __m128i) -> __m128i {
    _mm_castpd_si128(_mm_permutevar_pd(_mm_castsi128_pd(value), origin))
}

/// The lower 32 bits of both halves, in all their 64.
#[target_feature(enable = "avx2")]
#[inline]
fn doubled(value: __m128i) -> __m128i {
    _mm_shuffle_epi32::<0b10_10_00_00>(value)
}

/// Quantises one subframe in both states.
#[target_feature(enable = "avx2")]
pub(super) fn quantise<const SHAPING: usize, const PREDICTION: usize>(
    states: &mut States,
    memory: &mut Memory,
    sub: &mut Subframe<'_>,
) {
    let set = |value: i32| _mm_set1_epi32(value);
    let mut predictor = [Pair::ZERO; PREDICTION];
    predictor.iter_mut().zip(sub.predictor).for_each(|(pair, &tap)| *pair = Pair::both(tap.into()));
    let mut shaper = [Pair::ZERO; SHAPING];
    shaper.iter_mut().zip(sub.shaping).for_each(|(pair, &tap)| *pair = Pair::both(tap.into()));
    let warping = set(i32::from(sub.warping as i16));
    let tilt = set(i32::from(sub.tilt as i16));
    let (low, high) = (set(i32::from(sub.low_frequency as i16)), set(sub.low_frequency >> 16));
    let offset = set(sub.offset);
    let lambda = set(i32::from(sub.lambda as i16));
    let (bottom, top) = (set(-(31 << 10)), set(30 << 10));
    // For a high price of a pulse the bias becomes more than one pulse.
    let bias = (sub.lambda > 2048).then_some(sub.lambda / 2 - 512);
    let gain = sub.gain >> 6;

    let mut difference = states.difference.load();
    let mut low_frequency = states.low_frequency.load();
    let mut noise = states.noise.load();
    let mut seed = states.seed.load();
    let mut cost = states.cost.load();
    let mut pending = ORIGIN[0].load();
    let (memory_at, long_term_at) = (memory.noise_at as usize, memory.long_term_at as usize);

    for (i, &input) in sub.input.iter().enumerate() {
        // Long-term prediction and long-term shaping, which are the same in both states.
        let long_term = if sub.voiced {
            let at = long_term_at + i + 3 - sub.lag;
            let window = &sub.long_term[at - 5..at];
            let taps = window.iter().rev().zip(sub.long_term_taps);
            taps.fold(2_i32, |sum, (&value, &tap)| sum.wrapping_add(mul_low(value, tap.into()))) << 1
        } else {
            0
        };
        let harmonic = if sub.lag > 0 {
            let at = memory_at + i + 2 - sub.lag;
            let window = &memory.noise[at - 3..at];
            let ends = mul_low(window[2].saturating_add(window[0]), sub.harmonic);
            let shaped = ends.wrapping_add(mul_high(window[1], sub.harmonic));
            long_term.wrapping_sub(shaped << 2)
        } else {
            0
        };

        seed = _mm_add_epi32(_mm_mullo_epi32(seed, set(RAND_FACTOR)), set(RAND_STEP));
        let dither = doubled(_mm_srai_epi32::<31>(seed));

        // Short-term prediction. What the last sample left is put in place on the way.
        let mut predicted = set(PREDICTION as i32 / 2);
        let mut newer = states.prediction[0].load();
        predicted = mul_add(predicted, newer, predictor[0].load());
        for (kept, tap) in states.prediction[1..].iter_mut().zip(&predictor[1..]) {
            let value = origin(kept.load(), pending);
            kept.store(std::mem::replace(&mut newer, value));
            predicted = mul_add(predicted, value, tap.load());
        }
        let predicted = doubled(_mm_slli_epi32::<4>(predicted));

        // Noise shaping: a chain of all-pass sections.
        let mut shaped = set(SHAPING as i32 / 2);
        let mut below = origin(states.shaping[0].load(), pending);
        let mut out = mul_add(difference, below, warping);
        states.shaping[0].store(out);
        shaped = mul_add(shaped, out, shaper[0].load());
        for (section, tap) in states.shaping[1..].iter_mut().zip(&shaper[1..]) {
            let above = origin(section.load(), pending);
            out = mul_add(below, _mm_sub_epi32(above, out), warping);
            section.store(out);
            shaped = mul_add(shaped, out, tap.load());
            below = above;
        }
        let shaped = mul_add(_mm_slli_epi32::<1>(shaped), low_frequency, tilt);
        let shaped = doubled(_mm_slli_epi32::<2>(shaped));
        let lows = mul_add(_mm_srli_epi64::<16>(_mm_mul_epi32(noise, low)), low_frequency, high);
        let lows = doubled(_mm_slli_epi32::<2>(lows));

        // What is left to quantise, Q10.
        let feedback = saturating_add(shaped, lows);
        let rest = saturating_sub(_mm_add_epi32(set(harmonic), predicted), feedback);
        let rest = _mm_srai_epi32::<1>(_mm_add_epi32(_mm_srai_epi32::<3>(rest), set(1)));
        let rest = flip(_mm_sub_epi32(set(input), rest), dither);
        let rest = _mm_min_epi32(_mm_max_epi32(rest, bottom), top);

        // The level below and the level above, and what each costs.
        let target = _mm_sub_epi32(rest, offset);
        let below = match bias {
            None => _mm_srai_epi32::<10>(target),
            Some(bias) => {
                let (up, down) = (_mm_cmpgt_epi32(target, set(bias)), _mm_cmpgt_epi32(set(-bias), target));
                let inner = _mm_srai_epi32::<31>(target);
                let upper = _mm_srai_epi32::<10>(_mm_sub_epi32(target, set(bias)));
                let lower = _mm_srai_epi32::<10>(_mm_add_epi32(target, set(bias)));
                _mm_blendv_epi8(_mm_blendv_epi8(inner, lower, down), upper, up)
            }
        };
        let steps = _mm_add_epi32(below, _mm_set_epi32(1, 0, 1, 0));
        let level = _mm_sub_epi32(
            _mm_add_epi32(_mm_slli_epi32::<10>(steps), offset),
            _mm_sign_epi32(set(LEVEL_ADJUST), steps),
        );
        let rate = flip(level, _mm_srai_epi32::<31>(steps));
        let error = _mm_slli_epi32::<16>(_mm_sub_epi32(rest, level));
        let distortion = _mm_madd_epi16(
            _mm_blend_epi16::<0b1010_1010>(rate, error),
            _mm_blend_epi16::<0b1010_1010>(lambda, error),
        );
        let price = _mm_srai_epi32::<10>(distortion);

        // The better one first.
        let keep = doubled(_mm_cmpgt_epi32(_mm_shuffle_epi32::<0b10_11_00_01>(price), price));
        let ordered = |value| _mm_blendv_epi8(_mm_shuffle_epi32::<0b10_11_00_01>(value), value, keep);
        let (level, price) = (ordered(level), ordered(price));
        let costs = _mm_add_epi32(cost, price);
        let excitation = _mm_add_epi32(flip(_mm_slli_epi32::<4>(level), dither), set(long_term));
        let signal = _mm_add_epi32(excitation, predicted);
        let away = _mm_sub_epi32(signal, set(input << 4));
        let towards = _mm_sub_epi32(away, shaped);
        let sum = saturating_sub(towards, lows);

        // Which state wins, whether the other has parted from it too long ago, and whether the winner's second choice is
        // better than the other's first.
        let (first, second) = (_mm_cvtsi128_si64(costs), _mm_extract_epi64::<1>(costs));
        let best = [first as i32, second as i32];
        let winner = usize::from(best[1] < best[0]);
        let newest = if states.newest == 0 { DELAY - 1 } else { states.newest - 1 };
        let oldest = newest + sub.delay;
        let oldest = if oldest >= DELAY { oldest - DELAY } else { oldest };
        let age = sub.delay - 1;
        let half = |state: usize| ((states.ancestry[state] >> age) & 1) as usize;
        let random = &states.past[oldest].random;
        let parted = random.state(half(0)) != random.state(half(1));
        let penalty = if parted { 2 - winner } else { 0 };
        let costs = _mm_add_epi32(costs, PENALTY[penalty].load());
        let (first, second) = (_mm_cvtsi128_si64(costs), _mm_extract_epi64::<1>(costs));
        let (best, next) = ([first as i32, second as i32], [(first >> 32) as i32, (second >> 32) as i32]);
        let worse = usize::from(best[1] > best[0]);
        let better = usize::from(next[1] < next[0]);
        let case = if next[better] < best[worse] { 1 + 2 * worse + better } else { 0 };
        let choice = CHOICE[case].load();
        pending = ORIGIN[case].load();
        let [one, two] = ORIGIN_STATES[case];
        states.ancestry = [states.ancestry[one], states.ancestry[two]];
        states.first_seed = [states.first_seed[one], states.first_seed[two]];

        if sub.pending || i >= sub.delay {
            let half = ((states.ancestry[winner] >> age) & 1) as usize;
            let decided = &states.past[oldest];
            sub.pulses[sub.pulses_at + i - sub.delay] = round_shift(decided.level.state(half), 10) as i8;
            let value = round_shift(mul_q16(decided.signal.state(half), decided.gain), 8);
            let at = memory_at + i - sub.delay;
            memory.signal[at] = saturate_16(value);
            memory.noise[at] = decided.noise.state(half);
            sub.long_term[long_term_at + i - sub.delay] = decided.excitation.state(half);
        }

        // On to the next sample.
        low_frequency = choose(towards, choice);
        difference = choose(away, choice);
        noise = choose(sum, choice);
        cost = choose(costs, choice);
        let level = choose(level, choice);
        let signal = choose(signal, choice);
        let rounded = _mm_srai_epi32::<1>(_mm_add_epi32(_mm_srai_epi32::<9>(level), set(1)));
        seed = _mm_add_epi32(origin(seed, pending), rounded);
        states.prediction[0].store(signal);
        let decided = &mut states.past[newest];
        decided.level.store(level);
        decided.signal.store(signal);
        decided.excitation.store(_mm_slli_epi32::<1>(choose(excitation, choice)));
        decided.noise.store(noise);
        decided.random.store(seed);
        decided.gain = gain;
        states.newest = newest;
        states.ancestry = [states.ancestry[0] << 1, (states.ancestry[1] << 1) | 1];
    }
    for pair in states.prediction[1..PREDICTION].iter_mut().chain(&mut states.shaping[..SHAPING]) {
        pair.store(origin(pair.load(), pending));
    }
    states.difference.store(difference);
    states.low_frequency.store(low_frequency);
    states.noise.store(noise);
    states.seed.store(seed);
    states.cost.store(cost);
    memory.noise_at += sub.input.len() as i32;
    memory.long_term_at += sub.input.len() as i32;
}
