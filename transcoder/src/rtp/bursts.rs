//! How losses lie in a stream: bursts and gaps (RFC 3611 4.7.2), and the burst ratio of the E-model
//! (ITU-T G.107 7.4.2).

/// Packets in a row that must come before a loss counts as apart from the one before (RFC 3611 4.7.2).
pub const GMIN: u8 = 16;

/// Takes in, in order, what became of each packet. A packet that came too late to be heard is lost here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossPattern {
    total: u64,
    lost: u64,
    /// Runs of packets lost one after the other.
    runs: u64,
    /// Packets heard since the last loss.
    since_loss: u64,
    /// From the first to the last loss of those that lie less than [`GMIN`] apart, and how many these are.
    cluster: u64,
    cluster_lost: u64,
    /// Whether anything was heard before the first burst.
    led: bool,
    bursts: u64,
    burst_packets: u64,
    burst_lost: u64,
}

/// Bursts and gaps of a stream (RFC 3611 4.7.2). All 0 before the first packet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bursts {
    /// Bursts so far.
    pub count: u64,
    /// Share of packets missing within bursts, 0 to 1.
    pub burst_density: f32,
    /// Share of packets missing within gaps, 0 to 1.
    pub gap_density: f32,
    /// Mean length of a burst, in packets.
    pub burst_packets: f32,
    /// Mean length of a gap, in packets.
    pub gap_packets: f32,
}

impl LossPattern {
    /// Notes a packet that is heard.
    pub fn heard(&mut self) {
        self.total += 1;
        self.since_loss += 1;
    }

    /// Notes packets that are not, one after the other.
    pub fn missed(&mut self, count: u64) {
        if count == 0 {
            return;
        }
        if self.lost == 0 || self.since_loss > 0 {
            self.runs += 1;
        }
        if self.cluster_lost > 0 && self.since_loss < u64::from(GMIN) {
            self.cluster += self.since_loss + count;
            self.cluster_lost += count;
        } else {
            self.close_cluster();
            (self.cluster, self.cluster_lost) = (count, count);
        }
        self.total += count;
        self.lost += count;
        self.since_loss = 0;
    }

    /// A single loss belongs to the gap around it; more are a burst.
    fn close_cluster(&mut self) {
        if self.cluster_lost > 1 {
            self.led |= self.bursts == 0 && self.total - self.since_loss > self.cluster;
            self.bursts += 1;
            self.burst_packets += self.cluster;
            self.burst_lost += self.cluster_lost;
        }
        (self.cluster, self.cluster_lost) = (0, 0);
    }

    /// Returns the pattern of this stream and another as one: no burst goes over from one to the other.
    pub fn with(&self, other: &Self) -> Self {
        let (mut both, mut other) = (*self, *other);
        both.close_cluster();
        other.close_cluster();
        both.total += other.total;
        both.lost += other.lost;
        both.runs += other.runs;
        both.led |= other.led;
        both.bursts += other.bursts;
        both.burst_packets += other.burst_packets;
        both.burst_lost += other.burst_lost;
        both
    }

    /// Returns the packets so far, heard or not.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Returns the packets not heard.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Returns the burst ratio: the mean length of a run of losses by what it would be if they were random; 1
    /// without any (ITU-T G.107 7.4.2).
    pub fn burst_ratio(&self) -> f32 {
        if self.runs == 0 {
            return 1.0;
        }
        let mean = self.lost as f64 / self.runs as f64;
        let share = self.lost as f64 / self.total as f64;
        (mean * (1.0 - share)).max(1.0) as f32
    }

    /// Returns bursts and gaps, with what is still under way.
    pub fn bursts(&self) -> Bursts {
        let mut ended = *self;
        ended.close_cluster();
        let gap_total = ended.total - ended.burst_packets;
        let trails = ended.bursts == 0 || self.cluster_lost <= 1 || self.since_loss > 0;
        // One between any two bursts, one before the first and one behind the last if there is anything.
        let gaps =
            ended.bursts.saturating_sub(1) + u64::from(ended.bursts > 0 && ended.led) + u64::from(trails);
        let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f32 / whole as f32 };
        Bursts {
            count: ended.bursts,
            burst_density: share(ended.burst_lost, ended.burst_packets),
            gap_density: share(ended.lost - ended.burst_lost, gap_total),
            burst_packets: share(ended.burst_packets, ended.bursts),
            gap_packets: share(gap_total, gaps),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `.` is heard, `x` is not.
    fn pattern(text: &str) -> LossPattern {
        let mut pattern = LossPattern::default();
        for packet in text.chars() {
            if packet == 'x' { pattern.missed(1) } else { pattern.heard() }
        }
        pattern
    }

    // RFC 3611 4.7.2: losses at least Gmin packets apart are no burst.
    #[test]
    fn f24_losses_far_apart_are_of_the_gap() {
        let heard = ".".repeat(16);
        let apart = pattern(&format!("{heard}x{heard}x{heard}x{heard}"));
        let bursts = apart.bursts();
        assert_eq!((bursts.count, bursts.burst_density, bursts.burst_packets), (0, 0.0, 0.0));
        assert_eq!((apart.total(), apart.lost()), (67, 3));
        assert!((bursts.gap_density - 3.0 / 67.0).abs() < 1e-6 && bursts.gap_packets == 67.0);
        assert_eq!(apart.burst_ratio(), 1.0);
        // One packet nearer, and all three are one burst.
        let near = ".".repeat(15);
        let bursts = pattern(&format!("{heard}x{near}x{near}x{heard}")).bursts();
        assert_eq!((bursts.count, bursts.burst_packets, bursts.gap_packets), (1, 33.0, 16.0));
        assert!((bursts.burst_density - 3.0 / 33.0).abs() < 1e-6 && bursts.gap_density == 0.0);
    }

    #[test]
    fn f24_bursts_and_the_gaps_between_them_are_counted_with_what_is_under_way() {
        let heard = ".".repeat(20);
        let bursts = pattern(&format!("xx{heard}x{heard}xx.x")).bursts();
        assert_eq!((bursts.count, bursts.burst_packets), (2, 3.0));
        assert!((bursts.burst_density - 5.0 / 6.0).abs() < 1e-6);
        // Nothing before the first, nothing behind the last: one gap of 41 with one loss in it.
        assert_eq!(bursts.gap_packets, 41.0);
        assert!((bursts.gap_density - 1.0 / 41.0).abs() < 1e-6);
        assert_eq!(LossPattern::default().bursts(), Bursts::default());
    }

    // ITU-T G.107 7.4.2: the mean run of random loss of a share p is 1 / (1 - p).
    #[test]
    fn the_burst_ratio_is_one_for_random_loss_and_the_length_of_runs_for_bursts() {
        let mut random = crate::seed::Seeded::new(3);
        let mut pattern = LossPattern::default();
        for _ in 0..200_000 {
            if random.below(10) == 0 { pattern.missed(1) } else { pattern.heard() }
        }
        assert!((pattern.burst_ratio() - 1.0).abs() < 0.02, "{}", pattern.burst_ratio());
        let mut pattern = LossPattern::default();
        for _ in 0..1_000 {
            pattern.missed(3);
            (0..97).for_each(|_| pattern.heard());
        }
        assert!((pattern.burst_ratio() - 3.0 * 0.97).abs() < 0.01, "{}", pattern.burst_ratio());
    }
}
