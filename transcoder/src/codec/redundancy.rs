//! How many former frames a packet of Opus carries once more (RFC 2198).
//!
//! A copy costs the bits of a frame and no processor time; in-band FEC costs time, is coarser, and brings back the last
//! frame of a burst alone. So where both sides have redundancy it takes the place of FEC as soon as anything is lost:
//! one copy mends single losses, more mend bursts as long as they are many. With three, 16 kbit/s become 64, as much as
//! G.711.

/// Frames that are sent once more at most.
pub const MAX_DEPTH: u8 = 3;

/// Reported loss in per cent from which copies are sent.
const ON_PERCENT: f32 = 1.0;
/// Loss at which one copy leaves enough unmended for a second to be worth its bits, if losses are known to be single.
const SECOND_PERCENT: f32 = 5.0;
/// The same for the second and the third, where it is not known how losses lie: most paths that lose this much lose it
/// in bursts.
const UNKNOWN_SECOND_PERCENT: f32 = 3.0;
const UNKNOWN_THIRD_PERCENT: f32 = 6.0;
/// Share of packets missing within bursts (RFC 3611 4.7.2) from which these are runs of losses, and not single ones
/// that lie near each other: those are 15 to 20 per cent of theirs.
const BURSTY: f32 = 0.28;
/// Reports in a row that ask for less after which it becomes less; half a minute at the usual five seconds.
const CLEAR_REPORTS: u8 = 6;
/// Loss that doubles, and grows by this many per cent, with the report after a step up: the bits themselves may be too
/// many. They are if it halves once the step is taken back; loss that has just begun grows by itself.
const CONGESTED_PERCENT: f32 = 15.0;
/// Reports for which such a step is not tried again; a minute at the usual five seconds.
const BARRED_REPORTS: u8 = 12;

/// What the other side reports of what it was sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossReport {
    /// Packets lost since its last report, 0 to 100 per cent (RFC 3550 6.4.1).
    pub percent: f32,
    /// Share of packets missing within bursts, 0 to 1, if it tells (RFC 3611 4.7.2).
    pub burst_density: Option<f32>,
}

/// The state of one stream. Pure: reports go in, the number of copies comes out.
#[derive(Clone, Copy, Debug, Default)]
pub struct RedundancyControl {
    depth: u8,
    /// Reports in a row that asked for less, and the most that they asked for.
    clear: u8,
    asked: u8,
    /// Depth and loss before the last report, if that was followed by a step up.
    step: Option<(u8, f32)>,
    /// Depth to which a step was taken back, to see if that helps, and the loss that it had made.
    trial: Option<(u8, f32)>,
    /// It did not help: until the next beginning loss is not of our making.
    cleared: bool,
    /// What a step up is not to go beyond, and for how many reports.
    barred: Option<(u8, u8)>,
}

impl RedundancyControl {
    /// Returns how many of the frames before its own a packet carries, 0 to [`MAX_DEPTH`].
    pub fn depth(&self) -> u8 {
        self.depth
    }

    /// Takes in a report and returns the new [`depth`](Self::depth). It grows at once, and shrinks when half a minute
    /// asked for less: loss comes in spells.
    pub fn report(&mut self, report: LossReport) -> u8 {
        if !report.percent.is_finite() {
            return self.depth;
        }
        self.watch_congestion(report.percent);
        let barred = self.barred.map_or(MAX_DEPTH, |(most, _)| most);
        let most = self.trial.map_or(barred, |(most, _)| most);
        let wanted = wanted(report).min(most);
        if wanted > self.depth {
            self.step = Some((self.depth, report.percent));
            self.depth = wanted;
        }
        if wanted >= self.depth {
            (self.clear, self.asked) = (0, 0);
        } else {
            self.clear += 1;
            self.asked = self.asked.max(wanted);
            if self.clear >= CLEAR_REPORTS {
                self.depth = self.asked;
                (self.clear, self.asked) = (0, 0);
            }
        }
        self.depth
    }

    /// Takes a step back that may have made the loss greater, and says by the next report whether it had.
    fn watch_congestion(&mut self, percent: f32) {
        self.barred = self.barred.and_then(|(most, left)| Some((most, left.checked_sub(1)?)));
        self.cleared &= self.depth > 0;
        if let Some((depth, greater)) = self.trial.take() {
            let helped = 2.0 * percent <= greater;
            self.barred = helped.then_some((depth, BARRED_REPORTS));
            self.cleared = !helped;
            return;
        }
        let Some((depth, before)) = self.step.take() else { return };
        if !self.cleared && percent >= 2.0 * before && percent >= before + CONGESTED_PERCENT {
            self.depth = depth;
            self.trial = Some((depth, percent));
        }
    }
}

/// Returns the copies that a loss asks for.
fn wanted(LossReport { percent, burst_density }: LossReport) -> u8 {
    let (second, third) = match burst_density {
        Some(density) if density >= BURSTY => (ON_PERCENT, ON_PERCENT),
        Some(_) => (SECOND_PERCENT, f32::INFINITY),
        None => (UNKNOWN_SECOND_PERCENT, UNKNOWN_THIRD_PERCENT),
    };
    [ON_PERCENT, second, third].into_iter().map(|from| u8::from(percent >= from)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(reports: &[(f32, Option<f32>)]) -> u8 {
        let mut control = RedundancyControl::default();
        for &(percent, burst_density) in reports {
            control.report(LossReport { percent, burst_density });
        }
        control.depth()
    }

    fn of(losses: &[f32]) -> u8 {
        after(&losses.iter().map(|&percent| (percent, None)).collect::<Vec<_>>())
    }

    #[test]
    fn a_stream_that_loses_nothing_carries_nothing_twice() {
        assert_eq!((of(&[]), of(&[0.0, 0.9, 0.3])), (0, 0));
        assert_eq!(of(&[f32::NAN, f32::INFINITY, -3.0]), 0);
    }

    #[test]
    fn loss_and_how_it_lies_say_how_many_copies_there_are() {
        assert_eq!([1.0, 2.9, 3.0, 5.9, 6.0, 60.0].map(|percent| of(&[percent])), [1, 1, 2, 2, 3, 3]);
        let single = |percent| after(&[(percent, Some(0.18))]);
        assert_eq!([1.0, 4.9, 5.0, 10.0, 60.0].map(single), [1, 1, 2, 2, 2]);
        let bursts = |percent| after(&[(percent, Some(0.58))]);
        assert_eq!([0.9, 1.0, 10.0].map(bursts), [0, 3, 3]);
    }

    // What the densities are that the limit lies between, by the definition of RFC 3611 4.7.2.
    #[test]
    fn bursts_of_three_are_told_from_single_losses() {
        let mut random = crate::seed::Seeded::new(4);
        for (run, bursty) in [(1, false), (2, true), (3, true)] {
            for percent in [3, 5, 10] {
                let mut pattern = crate::rtp::LossPattern::default();
                for _ in 0..20_000 / run {
                    if random.below(100 * run) < percent { pattern.missed(run) } else { pattern.heard() }
                }
                let density = pattern.bursts().burst_density;
                assert_eq!(density >= BURSTY, bursty, "runs of {run} at {percent} %: {density}");
            }
        }
    }

    #[test]
    fn it_grows_at_once_and_shrinks_after_half_a_minute_of_less() {
        assert_eq!(of(&[2.0, 7.0]), 3);
        assert_eq!(of(&[7.0, 0.0, 0.0, 0.0, 0.0, 0.0]), 3);
        assert_eq!(of(&[7.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]), 0);
        assert_eq!(of(&[7.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0]), 2);
        assert_eq!(of(&[7.0, 0.0, 0.0, 0.0, 0.0, 8.0, 0.0]), 3);
    }

    #[test]
    fn a_step_that_makes_the_loss_greater_is_taken_back_for_a_minute() {
        assert_eq!(of(&[4.0, 20.0]), 0);
        assert_eq!(of(&[[4.0, 20.0].as_slice(), &[4.0; 13]].concat()), 0);
        assert_eq!(of(&[[4.0, 20.0].as_slice(), &[4.0; 14]].concat()), 2);
        // One copy was borne, and no more is tried.
        assert_eq!(of(&[2.0, 2.0, 7.0, 30.0, 7.0, 7.0]), 1);
    }

    #[test]
    fn loss_that_grows_by_itself_is_mended() {
        // What has begun within a report is small in it.
        assert_eq!((of(&[4.0, 18.0]), of(&[10.0, 24.0]), of(&[1.0, 15.0])), (3, 3, 3));
        // Without the copies it is as great: a report is all that is lost by asking.
        assert_eq!(of(&[4.0, 20.0, 20.0]), 3);
        assert_eq!(of(&[4.0, 20.0, 20.0, 60.0]), 3);
    }
}
