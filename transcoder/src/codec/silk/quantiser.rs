//! A frame of the noise-shaping quantiser with two decision states (complexities 2 to 5).

use super::arithmetic::{divide, invert, mul_low, mul_q16, round_shift, saturate_16};
use super::lanes::{self, DELAY, States, Subframe};
use super::layout::{
    Indices, LONG_TERM_TAPS, MAX_FRAME, MAX_MEMORY, MAX_PREDICTION_ORDER, MAX_SHAPING_ORDER, MAX_SUBFRAME,
    Memory, Settings,
};

const VOICED: i8 = 2;
/// Quantisation offsets, Q10: unvoiced or inactive low and high, voiced low and high (RFC 6716 4.2.7.8.6).
const OFFSETS: [[i32; 2]; 2] = [[100, 240], [32, 100]];

/// The parameters of a frame, one value or set of taps for each subframe.
pub(super) struct Frame<'a> {
    pub(super) input: &'a [i16],
    pub(super) predictors: &'a [i16; 2 * MAX_PREDICTION_ORDER],
    pub(super) long_term_taps: &'a [i16],
    pub(super) shapers: &'a [i16],
    pub(super) harmonics: &'a [i32],
    pub(super) tilts: &'a [i32],
    pub(super) low_frequencies: &'a [i32],
    pub(super) gains: &'a [i32],
    pub(super) lags: &'a [i32],
    pub(super) lambda: i32,
    pub(super) long_term_scale: i32,
}

pub(super) type Quantise = unsafe fn(&mut States, &mut Memory, &mut Subframe<'_>);

/// The kernel for an encoder's settings, if there is one.
pub(super) fn kernel(settings: &Settings) -> Option<Quantise> {
    if settings.states != 2 || !settings.is_plausible() {
        return None;
    }
    let kernel: Quantise = match (settings.shaping_order, settings.prediction_order) {
        (12, 10) => lanes::quantise::<12, 10>,
        (14, 10) => lanes::quantise::<14, 10>,
        (16, 10) => lanes::quantise::<16, 10>,
        (12, 16) => lanes::quantise::<12, 16>,
        (14, 16) => lanes::quantise::<14, 16>,
        (16, 16) => lanes::quantise::<16, 16>,
        _ => return None,
    };
    Some(kernel)
}

/// Says whether a frame is one that libopus can make: every sample that a lag points at is in memory, and no gain is nought.
pub(super) fn is_sound(settings: &Settings, memory: &Memory, indices: &Indices, frame: &Frame<'_>) -> bool {
    let longest = settings.memory - settings.prediction_order - LONG_TERM_TAPS as i32;
    let lags_fit = if indices.signal_type == VOICED {
        frame.lags.iter().all(|lag| (4..longest).contains(lag))
    } else {
        memory.last_lag == 0 || (4..longest).contains(&memory.last_lag)
    };
    lags_fit && frame.gains.iter().all(|&gain| gain > 0) && (0..=2).contains(&indices.signal_type)
}

/// Quantises a frame.
#[target_feature(enable = "avx2")]
pub(super) fn frame(
    quantise: Quantise,
    settings: &Settings,
    memory: &mut Memory,
    indices: &mut Indices,
    frame: &Frame<'_>,
    pulses: &mut [i8],
) {
    let (memory_length, subframe) = (settings.memory as usize, settings.subframe as usize);
    let order = settings.prediction_order as usize;
    let voiced = indices.signal_type == VOICED;
    let mut lag = memory.last_lag;
    let delays = if voiced { frame.lags } else { std::slice::from_ref(&lag) };
    let delay = delays
        .iter()
        .filter(|&&lag| lag > 0)
        .fold(DELAY.min(subframe), |delay, &lag| delay.min(lag as usize - LONG_TERM_TAPS / 2 - 1));
    let offset = OFFSETS[usize::from(voiced)][usize::from(indices.offset_type != 0)];
    let interpolated = indices.interpolation != 4;

    let mut states = States::new(memory, memory.noise[memory_length - 1], indices.seed.into());
    let mut long_term = [0; MAX_MEMORY + MAX_FRAME];
    let mut whitened = [0; MAX_MEMORY];
    let mut scaled = [0; MAX_SUBFRAME];
    memory.noise_at = settings.memory;
    memory.long_term_at = settings.memory;
    let mut pending = false;
    for (index, input) in frame.input.chunks_exact(subframe).enumerate() {
        let predictor =
            &frame.predictors[if index < 2 && interpolated { 0 } else { MAX_PREDICTION_ORDER }..][..order];
        memory.rewhitened = 0;
        if voiced {
            lag = frame.lags[index];
            if index == 0 || (index == 2 && interpolated) {
                if index == 2 {
                    // The new filter starts from what is decided, so everything is.
                    let winner = states.cheaper();
                    states.rule_out(1 - winner);
                    for age in 0..delay {
                        let (decided, half) = states.decided(winner, age);
                        pulses[2 * subframe - 1 - age] = round_shift(decided.level.state(half), 10) as i8;
                        let signal = mul_q16(decided.signal.state(half), frame.gains[1]);
                        let at = memory.noise_at as usize - 1 - age;
                        memory.signal[at] = saturate_16(round_shift(signal, 14));
                        memory.noise[at] = decided.noise.state(half);
                    }
                    pending = false;
                }
                let start = memory_length - lag as usize - order - LONG_TERM_TAPS / 2;
                let signal = &memory.signal[start + index * subframe..][..memory_length - start];
                let out = &mut whitened[start..memory_length];
                super::whiten(out, signal, predictor, settings.architecture);
                memory.long_term_at = settings.memory;
                memory.rewhitened = 1;
            }
        }
        let gain = frame.gains[index];
        scale_input(gain, input, &mut scaled);
        if memory.rewhitened != 0 {
            let past = memory_length - lag as usize - LONG_TERM_TAPS / 2;
            let inverse = invert(gain.max(1), 47);
            // The first subframe can rely least on what came before it.
            let factor = if index == 0 { mul_low(inverse, frame.long_term_scale) << 2 } else { inverse };
            let out = long_term[past..memory_length].iter_mut().zip(&whitened[past..memory_length]);
            out.for_each(|(out, &sample)| *out = mul_low(factor, sample.into()));
        }
        if gain != memory.last_gain {
            let adjustment = divide(memory.last_gain, gain, 16);
            memory.last_gain = gain;
            let at = memory.noise_at as usize;
            scale(&mut memory.noise[at - memory_length..at], adjustment);
            if voiced && memory.rewhitened == 0 {
                let at = memory.long_term_at as usize;
                scale(&mut long_term[at - lag as usize - LONG_TERM_TAPS / 2..at - delay], adjustment);
            }
            states.scale(adjustment);
        }
        let gain_shaping = frame.harmonics[index];
        let mut sub = Subframe {
            input: &scaled[..subframe],
            pulses,
            pulses_at: index * subframe,
            long_term: &mut long_term,
            predictor,
            long_term_taps: &frame.long_term_taps[index * LONG_TERM_TAPS..][..LONG_TERM_TAPS],
            shaping: &frame.shapers[index * MAX_SHAPING_ORDER..][..settings.shaping_order as usize],
            lag: lag as usize,
            voiced,
            harmonic: (gain_shaping >> 2) | ((gain_shaping >> 1) << 16),
            tilt: frame.tilts[index],
            low_frequency: frame.low_frequencies[index],
            gain,
            lambda: frame.lambda,
            offset,
            warping: settings.warping,
            delay,
            pending,
        };
        // SAFETY: this function needs what the kernel needs of the processor.
        unsafe { quantise(&mut states, memory, &mut sub) };
        pending = true;
    }

    let winner = states.cheaper();
    indices.seed = states.first_seed[winner] as i8;
    let last = frame.gains.len() - 1;
    let gain = frame.gains[last] >> 6;
    let end = frame.input.len();
    for age in 0..delay {
        let (decided, half) = states.decided(winner, age);
        pulses[end - 1 - age] = round_shift(decided.level.state(half), 10) as i8;
        let at = memory.noise_at as usize - 1 - age;
        memory.signal[at] = saturate_16(round_shift(mul_q16(decided.signal.state(half), gain), 8));
        memory.noise[at] = decided.noise.state(half);
    }
    for age in 0..MAX_PREDICTION_ORDER {
        let (decided, half) = states.decided(winner, age);
        memory.prediction[MAX_PREDICTION_ORDER - 1 - age] = decided.signal.state(half);
    }
    memory.shaping = states.shaping.map(|pair| pair.state(winner));
    memory.low_frequency = states.low_frequency.state(winner);
    memory.difference = states.difference.state(winner);
    memory.last_lag = frame.lags[last];
    memory.signal.copy_within(end..end + memory_length, 0);
    memory.noise.copy_within(end..end + memory_length, 0);
}

/// Divides the input by the gain: to Q10.
fn scale_input(gain: i32, input: &[i16], scaled: &mut [i32]) {
    let factor = round_shift(invert(gain.max(1), 47), 5);
    scaled.iter_mut().zip(input).for_each(|(out, &sample)| *out = mul_q16(sample.into(), factor));
}

fn scale(values: &mut [i32], adjustment: i32) {
    values.iter_mut().for_each(|value| *value = mul_q16(adjustment, *value));
}
