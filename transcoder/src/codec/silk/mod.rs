//! The two loops in which libopus' voice encoder spends half of its time, for AVX2: the noise-shaping quantiser with two
//! decision states (complexities 2 to 5) and the warped autocorrelation. Their results are those of libopus to the last bit.
//!
//! The linker puts them in the place of libopus' own (`--wrap`, see `build.rs`), under the names that it makes up for
//! that. libopus' own code stays: other complexities and processors without AVX2 use it, and so does everyone after
//! [`use_kernels`]`(false)`. The layout of libopus' state is that of the one version this crate is tied to; what does not
//! look like it is left to libopus too. See `docs/decisions/0006-loops-of-libopus.md`.
#![allow(unsafe_code)]

mod arithmetic;
mod autocorrelation;
mod lanes;
mod layout;
mod quantiser;
#[cfg(test)]
mod tests;

use std::ffi::c_int;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};

use layout::{Indices, Memory, Settings};

static ENABLED: AtomicBool = AtomicBool::new(true);

/// Says whether encoders of this process use the loops of this crate; they do unless told otherwise. What they encode is
/// the same either way. For comparisons of their cost.
pub(super) fn use_kernels(on: bool) {
    ENABLED.store(on, Ordering::Relaxed);
}

fn enabled() -> bool {
    ENABLED.load(Ordering::Relaxed) && is_x86_feature_detected!("avx2")
}

unsafe extern "C" {
    fn silk_LPC_analysis_filter(
        out: *mut i16,
        signal: *const i16,
        taps: *const i16,
        length: i32,
        order: i32,
        architecture: c_int,
    );
}

/// Puts a loop of this crate (`$wrap`) in the place of one of libopus (`$real`), which does what `$attempt` says by
/// `false` that it has not done. The signature stands once: of what libopus calls, and of its own.
macro_rules! in_place_of {
    ($real:ident, $(#[$about:meta])* $wrap:ident($($name:ident: $kind:ty),* $(,)?) $attempt:block) => {
        unsafe extern "C" {
            /// libopus' own.
            fn $real($($name: $kind),*);
        }

        $(#[$about])*
        #[unsafe(no_mangle)]
        // libopus' own signature.
        #[allow(clippy::too_many_arguments)]
        unsafe extern "C" fn $wrap($($name: $kind),*) {
            if !$attempt {
                // SAFETY: the arguments are passed on as they came.
                unsafe { $real($($name),*) }
            }
        }
    };
}

/// Filters a signal with the short-term predictor, as libopus does. `taps` are 10 or 16.
fn whiten(out: &mut [i16], signal: &[i16], taps: &[i16], architecture: c_int) {
    let length = out.len().min(signal.len()).min(i32::MAX as usize);
    if length < taps.len() {
        return;
    }
    // SAFETY: the function reads `length` samples and `taps.len()` taps, and writes `length` samples.
    unsafe {
        silk_LPC_analysis_filter(
            out.as_mut_ptr(),
            signal.as_ptr(),
            taps.as_ptr(),
            length as i32,
            taps.len() as i32,
            architecture,
        );
    }
}

in_place_of! {
    __real_silk_warped_autocorrelation_FLP,
    /// Called by libopus in the place of `silk_warped_autocorrelation_FLP`.
    ///
    /// # Safety
    /// As libopus promises: `window` has `length` values, `correlation` room for `order + 1`.
    __wrap_silk_warped_autocorrelation_FLP(
        correlation: *mut f32,
        window: *const f32,
        warping: f32,
        length: c_int,
        order: c_int,
    ) {
        let fits = (1..=autocorrelation::MAX_WINDOW as c_int).contains(&length)
            && (2..=autocorrelation::MAX_ORDER as c_int).contains(&order);
        let ours = enabled() && fits;
        if ours {
            // SAFETY: by the promise of the caller, and the processor has AVX2.
            unsafe {
                let correlation = slice::from_raw_parts_mut(correlation, order as usize + 1);
                let window = slice::from_raw_parts(window, length as usize);
                match order {
                    ..=12 => autocorrelation::correlate::<3>(correlation, window, warping),
                    13..=16 => autocorrelation::correlate::<4>(correlation, window, warping),
                    _ => autocorrelation::correlate::<6>(correlation, window, warping),
                }
            }
        }
        ours
    }
}

in_place_of! {
    __real_silk_NSQ_del_dec_avx2,
    /// Called by libopus in the place of `silk_NSQ_del_dec_avx2`.
    ///
    /// # Safety
    /// As libopus promises: the first three are its own state, the others arrays as long as that state says.
    __wrap_silk_NSQ_del_dec_avx2(
        settings: *const Settings,
        memory: *mut Memory,
        indices: *mut Indices,
        input: *const i16,
        pulses: *mut i8,
        predictors: *const i16,
        long_term_taps: *const i16,
        shapers: *const i16,
        harmonics: *const c_int,
        tilts: *const c_int,
        low_frequencies: *const i32,
        gains: *const i32,
        lags: *const c_int,
        lambda: c_int,
        long_term_scale: c_int,
    ) {
        // SAFETY: by the promise of the caller. The lengths are those of the settings once they were found plausible.
        unsafe {
            if enabled()
                && let Some(kernel) = quantiser::kernel(&*settings)
            {
                let (subframes, length) = ((*settings).subframes as usize, (*settings).frame as usize);
                let frame = quantiser::Frame {
                    input: slice::from_raw_parts(input, length),
                    predictors: &*predictors.cast(),
                    long_term_taps: slice::from_raw_parts(long_term_taps, subframes * layout::LONG_TERM_TAPS),
                    shapers: slice::from_raw_parts(shapers, subframes * layout::MAX_SHAPING_ORDER),
                    harmonics: slice::from_raw_parts(harmonics, subframes),
                    tilts: slice::from_raw_parts(tilts, subframes),
                    low_frequencies: slice::from_raw_parts(low_frequencies, subframes),
                    gains: slice::from_raw_parts(gains, subframes),
                    lags: slice::from_raw_parts(lags, subframes),
                    lambda,
                    long_term_scale,
                };
                let sound = quantiser::is_sound(&*settings, &*memory, &*indices, &frame);
                if sound {
                    let pulses = slice::from_raw_parts_mut(pulses, length);
                    quantiser::frame(kernel, &*settings, &mut *memory, &mut *indices, &frame, pulses);
                }
                sound
            } else {
                false
            }
        }
    }
}
