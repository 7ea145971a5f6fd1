//! What a leg's media was worth: its counts, and the E-model's estimate of how it was heard
//! (ITU-T G.107, narrowband).

use call_model::{Codec, LegQuality};

use crate::order::JitterCounters;
use crate::rtp::ReceiverStatistics;

/// Transmission rating of a path with all of G.107's defaults, before delay and codec.
const BASE_RATING: f32 = 93.2;

/// Puts together what one leg has measured of the media it received.
pub fn leg_quality(
    statistics: &ReceiverStatistics,
    jitter: &JitterCounters,
    packets_sent: u64,
    packets_refused: u64,
    frames_concealed: u64,
) -> LegQuality {
    LegQuality {
        packets_received: jitter.received.saturating_sub(jitter.duplicates),
        packets_sent,
        packets_lost: jitter.lost,
        packets_late: jitter.late,
        packets_refused,
        frames_concealed,
        jitter_ms: statistics.jitter_ms(),
    }
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
    let (impairment, robustness) = match codec {
        // G.113 table I.4: G.711 with concealment.
        Codec::Pcmu | Codec::Pcma => (0.0, 25.1),
        // No value is published for narrowband Opus; at 24 kb/s it was measured close to G.711,
        // and its concealment and FEC somewhat better.
        Codec::Opus => (2.0, 27.0),
    };
    let loss = loss_percent.clamp(0.0, 100.0);
    let burst_ratio = burst_ratio.max(1.0);
    let equipment = impairment + (95.0 - impairment) * loss / (loss / burst_ratio + robustness);
    (BASE_RATING - delay_impairment(one_way_delay_ms) - equipment).clamp(0.0, 100.0)
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

    #[test]
    fn late_packets_count_as_missed_but_not_as_lost() {
        let jitter = JitterCounters { received: 97, duplicates: 2, late: 3, lost: 5, ..Default::default() };
        let quality = leg_quality(&ReceiverStatistics::new(8_000), &jitter, 7, 2, 8);
        assert_eq!((quality.packets_lost, quality.packets_late, quality.packets_received), (5, 3, 95));
        assert_eq!((quality.packets_sent, quality.packets_refused, quality.frames_concealed), (7, 2, 8));
        assert!((loss_percent(&quality) - 8.0).abs() < 1e-4);
        assert_eq!(loss_percent(&LegQuality::default()), 0.0);
    }
}
