//! What a leg's media was worth: its counts, and the E-model's estimate of how it was heard
//! (ITU-T G.107, narrowband). Wide band is rated on the same scale, on which it is as good as narrow band can be: that of
//! ITU-T G.107.1 goes to 129, and figures of both could not be compared, nor fit into RFC 3611 4.7.5.

mod audio;
mod meter;

use call_model::{Codec, Impairment, LegQuality, Rating};

pub(crate) use audio::AudioMeter;
pub(crate) use meter::{Heard, Meter, delay_ms, remote_conditions, remote_quality, voip_metrics};

/// Transmission rating of a path with all of G.107's defaults, before delay and codec.
const BASE_RATING: f32 = 93.2;
/// An impairment smaller than this is not worth naming.
const NOTABLE: f32 = 0.5;

/// What the media of one leg went through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditions {
    /// Its codec.
    pub codec: Codec,
    /// Packets lost on the way and not brought back, 0 to 100 per cent.
    pub lost_percent: f32,
    /// Packets that came and could not be played, 0 to 100 per cent.
    pub discarded_percent: f32,
    /// Mean length of a run of losses by that of random loss (ITU-T G.107 7.4.2), 1 at least.
    pub burst_ratio: f32,
    /// Time from one end of the leg to the other in milliseconds, jitter buffer included.
    pub delay_ms: f32,
}

/// Rates media that goes through legs one after the other: their delays add, and what their codecs and losses cost
/// (ITU-T G.107 7.1, 7.4.2; G.113 7).
pub fn rate(legs: &[Conditions]) -> Rating {
    let delay = delay_impairment(legs.iter().map(|leg| leg.delay_ms).sum());
    let (mut network, mut jitter, mut codec) = (0.0, 0.0, 0.0);
    for leg in legs {
        let (impairment, robustness) = of_codec(leg.codec);
        let missed = (leg.lost_percent + leg.discarded_percent).clamp(0.0, 100.0);
        let cost = loss_impairment(missed, leg.burst_ratio, impairment, robustness);
        codec += impairment;
        if missed > 0.0 {
            network += cost * leg.lost_percent.clamp(0.0, 100.0) / missed;
            jitter += cost * leg.discarded_percent.clamp(0.0, 100.0) / missed;
        }
    }
    let r_factor = (BASE_RATING - delay - network - jitter - codec).clamp(0.0, 100.0);
    let costs = [
        (network, Impairment::NetworkLoss),
        (jitter, Impairment::JitterDiscard),
        (delay, Impairment::Delay),
        (codec, Impairment::Codec),
    ];
    let worst =
        costs.into_iter().fold(
            (NOTABLE, None),
            |worst, (cost, cause)| {
                if cost > worst.0 { (cost, Some(cause)) } else { worst }
            },
        );
    Rating { r_factor, mos: mos(r_factor), cause: worst.1 }
}

/// Returns the percentage of packets that could not be played: lost on the way or late. 0 when
/// nothing was expected.
pub fn loss_percent(quality: &LegQuality) -> f32 {
    let missed = quality.packets_lost + quality.packets_late;
    let expected = quality.packets_received + quality.packets_lost;
    if expected == 0 { 0.0 } else { (missed as f64 * 100.0 / expected as f64).min(100.0) as f32 }
}

/// Returns the transmission rating R, 0 to 100 (ITU-T G.107 7.1).
///
/// `burst_ratio` is 1 for random loss and greater for bursts (G.107 7.4.2); `one_way_delay_ms`
/// is from mouth to ear, with echo cancelled.
pub fn r_factor(loss_percent: f32, burst_ratio: f32, one_way_delay_ms: f32, codec: Codec) -> f32 {
    let (impairment, robustness) = of_codec(codec);
    let loss = loss_impairment(loss_percent.clamp(0.0, 100.0), burst_ratio, impairment, robustness);
    (BASE_RATING - delay_impairment(one_way_delay_ms) - impairment - loss).clamp(0.0, 100.0)
}

/// Returns what a codec costs without loss, Ie, and how well it stands loss, Bpl.
fn of_codec(codec: Codec) -> (f32, f32) {
    match codec {
        // G.113 table I.4: G.711 with concealment.
        Codec::Pcmu | Codec::Pcma => (0.0, 25.1),
        // Without loss it is better than anything that this scale is of; with loss it has the concealment of G.711.
        Codec::G722 => (0.0, 25.1),
        // No value is published for narrowband Opus; at 24 kb/s it was measured close to G.711,
        // and its concealment and FEC somewhat better.
        Codec::Opus => (2.0, 27.0),
    }
}

/// Returns what loss in per cent adds to the impairment of a codec (G.107 7.4.2).
fn loss_impairment(loss: f32, burst_ratio: f32, impairment: f32, robustness: f32) -> f32 {
    (95.0 - impairment) * loss / (loss / burst_ratio.max(1.0) + robustness)
}

/// Returns Idd, the impairment by delay with perfect echo cancelling (G.107 7.3.3).
fn delay_impairment(delay_ms: f32) -> f32 {
    if delay_ms <= 100.0 {
        return 0.0;
    }
    let x = (delay_ms / 100.0).log2();
    let term = |divisor: f32| (1.0 + (x / divisor).powi(6)).powf(1.0 / 6.0);
    25.0 * (term(1.0) - 3.0 * term(3.0) + 2.0)
}

/// Returns the mean opinion score of a rating, 1 to 4.5 (G.107 annex B).
pub fn mos(r: f32) -> f32 {
    if r <= 0.0 {
        1.0
    } else if r >= 100.0 {
        4.5
    } else {
        (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // ITU-T G.107 annex B and G.109: ratings and the scores published for them.
    #[test]
    fn ratings_give_the_published_scores() {
        for (r, score) in [(93.2, 4.41), (90.0, 4.34), (80.0, 4.03), (70.0, 3.60), (60.0, 3.10), (50.0, 2.58)]
        {
            assert!((mos(r) - score).abs() < 0.01, "R {r}: {} against {score}", mos(r));
        }
        assert_eq!(mos(-3.0), 1.0);
        assert_eq!(mos(100.0), 4.5);
        // The cubic dips below 1 near R = 4; a score never does.
        assert!((0..=100).all(|r| (1.0..=4.5).contains(&mos(r as f32))));
    }

    // ITU-T G.107 table 3 / figure: Idd at some delays.
    #[test]
    fn delay_costs_nothing_up_to_100_ms_and_then_more_and_more() {
        assert_eq!(r_factor(0.0, 1.0, 100.0, Codec::Pcma), 93.2);
        let at = |ms: f32| delay_impairment(ms);
        assert!((at(200.0) - 3.06).abs() < 0.1, "{}", at(200.0));
        assert!(at(400.0) > 20.0 && at(400.0) < 26.0, "{}", at(400.0));
        assert!(at(150.0) < at(200.0) && at(200.0) < at(300.0));
    }

    #[test]
    fn loss_costs_what_g113_says_and_bursts_cost_more() {
        // Ie-eff = 95 * 5 / (5 + 25.1) = 15.8.
        let random = r_factor(5.0, 1.0, 0.0, Codec::Pcmu);
        assert!((random - (93.2 - 15.78)).abs() < 0.05, "{random}");
        assert!(r_factor(5.0, 3.0, 0.0, Codec::Pcmu) < random);
        assert!(r_factor(100.0, 100.0, 1_000.0, Codec::Opus) >= 0.0);
    }

    // One scale for all: a call in wide band is not rated below one in narrow band, nor above what that can be.
    #[test]
    fn wide_band_is_rated_on_the_narrowband_scale() {
        for loss in [0.0, 1.0, 10.0] {
            let [wide, narrow] = [Codec::G722, Codec::Pcma].map(|codec| r_factor(loss, 1.0, 0.0, codec));
            assert_eq!(wide, narrow, "{loss} % lost");
        }
        assert_eq!(r_factor(0.0, 1.0, 0.0, Codec::G722), BASE_RATING);
    }

    #[test]
    fn late_packets_count_as_missed_but_not_as_lost() {
        let quality =
            LegQuality { packets_received: 95, packets_late: 3, packets_lost: 5, ..LegQuality::default() };
        assert!((loss_percent(&quality) - 8.0).abs() < 1e-4);
        assert_eq!(loss_percent(&LegQuality::default()), 0.0);
    }

    const CLEAN: Conditions = Conditions {
        codec: Codec::Pcma,
        lost_percent: 0.0,
        discarded_percent: 0.0,
        burst_ratio: 1.0,
        delay_ms: 0.0,
    };

    #[test]
    fn the_dearest_impairment_is_named() {
        assert_eq!(rate(&[CLEAN]), Rating { r_factor: 93.2, mos: mos(93.2), cause: None });
        let opus = Conditions { codec: Codec::Opus, ..CLEAN };
        let lossy = Conditions { lost_percent: 3.0, discarded_percent: 1.0, ..opus };
        let late = Conditions { lost_percent: 1.0, discarded_percent: 3.0, ..opus };
        let far = Conditions { delay_ms: 400.0, ..lossy };
        for (conditions, cause) in [
            (opus, Impairment::Codec),
            (lossy, Impairment::NetworkLoss),
            (late, Impairment::JitterDiscard),
            (far, Impairment::Delay),
        ] {
            assert_eq!(rate(&[conditions]).cause, Some(cause), "{conditions:?}");
            let missed = conditions.lost_percent + conditions.discarded_percent;
            let whole = r_factor(missed, 1.0, conditions.delay_ms, conditions.codec);
            assert!((rate(&[conditions]).r_factor - whole).abs() < 0.01, "{conditions:?}");
        }
    }

    // G.107 7.3.3: delays add before they cost; G.113 7: equipment impairments add as they are.
    #[test]
    fn legs_one_after_the_other_cost_more_than_each() {
        let near = Conditions { delay_ms: 90.0, lost_percent: 2.0, ..CLEAN };
        assert_eq!(delay_impairment(90.0), 0.0);
        let (one, two) = (rate(&[near]).r_factor, rate(&[near, near]).r_factor);
        let loss = BASE_RATING - one;
        assert!((BASE_RATING - two - 2.0 * loss - delay_impairment(180.0)).abs() < 0.01, "{one} {two}");
        assert!(rate(&[near; 40]).r_factor >= 0.0);
    }
}
