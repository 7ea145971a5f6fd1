//! Those parts of libopus' encoder state that the quantiser reads and writes, as version 1.6.1 lays them out.

/// Longest frame in samples: 20 ms at 16 kHz.
pub(super) const MAX_FRAME: usize = 320;
/// Longest long-term memory, as long.
pub(super) const MAX_MEMORY: usize = 320;
/// Longest subframe: 5 ms at 16 kHz.
pub(super) const MAX_SUBFRAME: usize = 80;
/// Taps of the noise-shaping filter, at most.
pub(super) const MAX_SHAPING_ORDER: usize = 24;
/// Taps of the short-term predictor, at most.
pub(super) const MAX_PREDICTION_ORDER: usize = 16;
/// Taps of the long-term predictor.
pub(super) const LONG_TERM_TAPS: usize = 5;

/// What was decided of a frame.
#[repr(C)]
pub(super) struct Indices {
    before: [i8; 29],
    pub(super) signal_type: i8,
    pub(super) offset_type: i8,
    pub(super) interpolation: i8,
    between: [i8; 2],
    pub(super) seed: i8,
    after: i8,
}

/// What the quantiser carries from frame to frame.
#[repr(C)]
pub(super) struct Memory {
    /// Quantised signal: the past, then this frame.
    pub(super) signal: [i16; MAX_MEMORY + MAX_FRAME],
    /// Shaped quantisation noise, Q14, likewise.
    pub(super) noise: [i32; MAX_MEMORY + MAX_FRAME],
    /// State of the short-term predictor, Q14: the last values, the newest last.
    pub(super) prediction: [i32; MAX_SUBFRAME + MAX_PREDICTION_ORDER],
    /// State of the noise-shaping filter, Q14.
    pub(super) shaping: [i32; MAX_SHAPING_ORDER],
    pub(super) low_frequency: i32,
    pub(super) difference: i32,
    pub(super) last_lag: i32,
    pub(super) long_term_at: i32,
    pub(super) noise_at: i32,
    rand_seed: i32,
    pub(super) last_gain: i32,
    pub(super) rewhitened: i32,
}

/// The settings of an encoder that the quantiser reads.
#[repr(C)]
pub(super) struct Settings {
    before: [u8; 4576],
    pub(super) kilohertz: i32,
    pub(super) subframes: i32,
    pub(super) frame: i32,
    pub(super) subframe: i32,
    pub(super) memory: i32,
    between: [i32; 8],
    pub(super) states: i32,
    interpolates: i32,
    pub(super) shaping_order: i32,
    pub(super) prediction_order: i32,
    between_too: [i32; 7],
    pub(super) warping: i32,
    after: [u8; 432],
    pub(super) architecture: i32,
}

const _: () = {
    assert!(std::mem::offset_of!(Settings, states) == 4628);
    assert!(std::mem::offset_of!(Settings, warping) == 4672);
    assert!(std::mem::offset_of!(Settings, architecture) == 5108);
    assert!(std::mem::size_of::<Memory>() == 4352);
    assert!(std::mem::size_of::<Indices>() == 36);
};

impl Settings {
    /// Says whether every value is one that an encoder of version 1.6.1 can have: a guard against another layout.
    pub(super) fn is_plausible(&self) -> bool {
        let Self { kilohertz, subframes, subframe, .. } = *self;
        matches!(kilohertz, 8 | 12 | 16)
            && matches!(subframes, 2 | 4)
            && subframe == 5 * kilohertz
            && self.frame == subframes * subframe
            && self.memory == 20 * kilohertz
            && (0..=i32::from(i16::MAX)).contains(&self.warping)
            && (0..=7).contains(&self.architecture)
    }
}
