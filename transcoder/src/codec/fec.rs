//! How much in-band FEC (RFC 6716 2.1.7) a stream of Opus carries.
//!
//! FEC costs an encoder a second, coarser pass over each frame of speech, and bits that the frame
//! itself then lacks. So a stream whose packets arrive has none; one whose packets are lost has it
//! from the first report on, made for what is lost.

/// Reported loss in per cent from which FEC is worth what it costs.
const ON_PERCENT: f32 = 1.0;
/// Loss in per cent that FEC is made for at least: below it the copies are too coarse to be of use.
const LEAST_PERCENT: u8 = 5;
/// Loss in per cent that FEC is made for at most: beyond it neither frame nor copy is worth hearing.
const MOST_PERCENT: u8 = 30;
/// Reports without loss in a row after which FEC ends; half a minute at the usual five seconds.
const CLEAR_REPORTS: u8 = 6;

/// Bit rate with FEC at least, in bit/s: below, libopus leaves the copies out without a word. What it asks for grows
/// as the effort shrinks. In narrowband made for a loss of 5 % it is 16800 at complexity 5 but 24800 at complexity 0,
/// to which a busy gateway falls.
pub const FEC_BITRATE: u32 = 26_000;

/// The same in wide band.
pub const WIDEBAND_FEC_BITRATE: u32 = 36_000;

/// When a stream carries in-band FEC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FecPolicy {
    /// Never.
    Never,
    /// From a reported loss of 1 % on, until half a minute passed without it.
    #[default]
    ByLoss,
    /// From the first packet on, made for a loss of 5 % until more is reported.
    Always,
}

/// The state of one stream. Pure: loss reports go in, the loss to arm against comes out.
#[derive(Clone, Copy, Debug)]
pub struct FecControl {
    policy: FecPolicy,
    percent: u8,
    clear: u8,
}

impl FecControl {
    /// Builds the state before any report.
    pub fn new(policy: FecPolicy) -> Self {
        let percent = if policy == FecPolicy::Always { LEAST_PERCENT } else { 0 };
        Self { policy, percent, clear: 0 }
    }

    /// Returns the loss in per cent that FEC is made for: 0 without it, else 5 to 30.
    pub fn percent(&self) -> u8 {
        self.percent
    }

    /// Takes what the other side lost since its last report, in per cent. Returns the new
    /// [`percent`](Self::percent) if it changed. It grows at once and shrinks by a quarter of the
    /// difference, for loss comes in spells.
    pub fn report(&mut self, lost: f32) -> Option<u8> {
        let lost = if lost.is_finite() { lost.clamp(0.0, 100.0) } else { return None };
        let floor = Self::new(self.policy).percent;
        let before = self.percent;
        if lost >= ON_PERCENT {
            self.clear = 0;
        } else {
            self.clear = self.clear.saturating_add(1);
        }
        let armed = lost >= ON_PERCENT || before > floor && self.clear < CLEAR_REPORTS;
        self.percent = if self.policy == FecPolicy::Never || !armed {
            floor
        } else {
            let wanted = (lost.ceil() as u8).clamp(LEAST_PERCENT, MOST_PERCENT);
            wanted.max(before - before.saturating_sub(wanted).div_ceil(4))
        };
        (self.percent != before).then_some(self.percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(policy: FecPolicy, reports: &[f32]) -> u8 {
        let mut control = FecControl::new(policy);
        for &lost in reports {
            control.report(lost);
        }
        control.percent()
    }

    #[test]
    fn a_stream_that_loses_nothing_pays_nothing() {
        assert_eq!(after(FecPolicy::ByLoss, &[]), 0);
        assert_eq!(after(FecPolicy::ByLoss, &[0.0, 0.9, 0.3, 0.0]), 0);
    }

    #[test]
    fn one_per_cent_arms_at_once_and_half_a_minute_of_peace_disarms() {
        assert_eq!(after(FecPolicy::ByLoss, &[1.0]), 5);
        assert_eq!(after(FecPolicy::ByLoss, &[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]), 5);
        assert_eq!(after(FecPolicy::ByLoss, &[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]), 0);
        assert_eq!(after(FecPolicy::ByLoss, &[1.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0]), 5);
    }

    #[test]
    fn strength_follows_loss_up_at_once_and_down_slowly() {
        assert_eq!(after(FecPolicy::ByLoss, &[17.2]), 18);
        assert_eq!(after(FecPolicy::ByLoss, &[80.0]), 30);
        let falling = after(FecPolicy::ByLoss, &[30.0, 6.0]);
        assert!((7..30).contains(&falling), "{falling}");
        assert_eq!(after(FecPolicy::ByLoss, &[30.0, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0]), 6);
    }

    #[test]
    fn policies_that_do_not_follow_loss_do_not() {
        assert_eq!(after(FecPolicy::Never, &[50.0]), 0);
        assert_eq!(after(FecPolicy::Always, &[]), 5);
        assert_eq!(after(FecPolicy::Always, &[12.0]), 12);
        assert_eq!(after(FecPolicy::Always, &[12.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]), 5);
    }

    #[test]
    fn a_report_of_no_number_changes_nothing() {
        assert_eq!(after(FecPolicy::ByLoss, &[f32::NAN, f32::INFINITY]), 0);
        assert_eq!(after(FecPolicy::ByLoss, &[-3.0]), 0);
    }
}
