//! What is counted, and what comes of it.

use std::time::Duration;

/// What a request is sent for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    LookUp,
    Publish,
    /// Searches for servers by supernodes.
    Refresh,
    /// Searches for servers by users.
    UserRefresh,
    /// Joining, relays.
    Upkeep,
}

pub(crate) const KINDS: [(Kind, &str); 5] = [
    (Kind::LookUp, "look-up"),
    (Kind::Publish, "publication"),
    (Kind::Refresh, "search for servers by a supernode"),
    (Kind::UserRefresh, "search for servers by a user"),
    (Kind::Upkeep, "joining and relays"),
];

/// What one kind of work took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Effort {
    /// Look-ups, publications, searches.
    pub(crate) done: u64,
    pub(crate) requests: u64,
    pub(crate) connections: u64,
    pub(crate) bytes: u64,
    /// Records verified, by whoever stores or reads them.
    pub(crate) records: u64,
}

impl Effort {
    /// The mean of one, of a number that all took together.
    pub(crate) fn each(&self, of_all: u64) -> f64 {
        of_all as f64 / self.done.max(1) as f64
    }
}

/// What a supernode has done for others.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Load {
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    pub(crate) connections: u64,
    pub(crate) records: u64,
}

/// A look-up that is over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finished {
    pub(crate) began: Duration,
    pub(crate) by: u32,
    pub(crate) callee: usize,
    /// How long until there was a record, and how many requests led there.
    pub(crate) found: Option<(Duration, u8)>,
    pub(crate) settled: Duration,
    /// Whether the record is the newest that its owner has read back.
    pub(crate) newest: bool,
    /// Whether one of its relays is up.
    pub(crate) reachable: bool,
    pub(crate) requests: u32,
}

/// How the records were at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Census {
    /// Records that were read back and have not ended.
    pub(crate) confirmed: usize,
    /// Of these, those that no supernode holds any more.
    pub(crate) lost: usize,
    /// Holders of one record, on average.
    pub(crate) holders: f64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    efforts: [Effort; KINDS.len()],
    pub(crate) look_ups: Vec<Finished>,
    pub(crate) census: Vec<Census>,
    /// Puts that could not be read back.
    pub(crate) unconfirmed: u64,
    pub(crate) refused: u64,
}

impl Tally {
    pub(crate) fn of(&mut self, kind: Kind) -> &mut Effort {
        &mut self.efforts[kind as usize]
    }

    pub(crate) fn effort(&self, kind: Kind) -> Effort {
        self.efforts[kind as usize]
    }

    /// Look-ups that began in a span of time.
    pub(crate) fn between(&self, from: Duration, to: Duration) -> Summary {
        Summary::of(self.look_ups.iter().filter(|one| one.began >= from && one.began < to))
    }

    pub(crate) fn all(&self) -> Summary {
        Summary::of(self.look_ups.iter())
    }
}

/// Many look-ups together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Summary {
    pub(crate) count: usize,
    pub(crate) found: usize,
    pub(crate) newest: usize,
    pub(crate) reachable: usize,
    /// Milliseconds until there was a record, in order.
    first: Vec<f64>,
    settled: Vec<f64>,
    pub(crate) hops: f64,
    pub(crate) requests: f64,
}

impl Summary {
    pub(crate) fn of<'a>(look_ups: impl Iterator<Item = &'a Finished>) -> Self {
        let mut summary = Self::default();
        for one in look_ups {
            summary.count += 1;
            summary.newest += usize::from(one.newest);
            summary.reachable += usize::from(one.reachable);
            summary.requests += f64::from(one.requests);
            summary.settled.push(1000.0 * one.settled.as_secs_f64());
            if let Some((after, hops)) = one.found {
                summary.found += 1;
                summary.hops += f64::from(hops);
                summary.first.push(1000.0 * after.as_secs_f64());
            }
        }
        summary.hops /= summary.found.max(1) as f64;
        summary.requests /= summary.count.max(1) as f64;
        summary.first.sort_by(f64::total_cmp);
        summary.settled.sort_by(f64::total_cmp);
        summary
    }

    pub(crate) fn found_percent(&self) -> f64 {
        percent(self.found, self.count)
    }

    pub(crate) fn newest_percent(&self) -> f64 {
        percent(self.newest, self.count)
    }

    pub(crate) fn reachable_percent(&self) -> f64 {
        percent(self.reachable, self.count)
    }

    pub(crate) fn first_ms(&self, share: f64) -> f64 {
        quantile(&self.first, share)
    }

    pub(crate) fn settled_ms(&self, share: f64) -> f64 {
        quantile(&self.settled, share)
    }

    /// Pairs of milliseconds and the share of look-ups that had a record by then.
    pub(crate) fn curve(&self) -> Vec<(f64, f64)> {
        let of = |(at, ms): (usize, &f64)| (*ms, 100.0 * (at + 1) as f64 / self.count as f64);
        let step = (self.first.len() / 400).max(1);
        self.first.iter().enumerate().step_by(step).map(of).collect()
    }
}

pub(crate) fn percent(part: usize, whole: usize) -> f64 {
    if whole == 0 { f64::NAN } else { 100.0 * part as f64 / whole as f64 }
}

/// The value below which this share of sorted values lies.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_up_without_a_record_counts_against_all() {
        let one = |ms: Option<u64>, newest| Finished {
            began: Duration::from_secs(5),
            by: 0,
            callee: 0,
            found: ms.map(|ms| (Duration::from_millis(ms), 2)),
            settled: Duration::from_millis(900),
            newest,
            reachable: newest,
            requests: 10,
        };
        let tally = Tally {
            look_ups: vec![
                one(Some(100), true),
                one(Some(300), false),
                one(Some(200), true),
                one(None, false),
            ],
            ..Tally::default()
        };
        let all = tally.all();
        assert_eq!((all.count, all.found_percent(), all.newest_percent()), (4, 75.0, 50.0));
        assert_eq!(
            (all.first_ms(0.5), all.first_ms(0.99), all.hops, all.requests),
            (200.0, 300.0, 2.0, 10.0)
        );
        assert_eq!(all.curve().last(), Some(&(300.0, 75.0)));
        assert_eq!(tally.between(Duration::ZERO, Duration::from_secs(5)).count, 0);
    }
}
