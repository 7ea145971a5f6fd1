//! Those who try passwords: what is held against a source and against a user name, and for how long.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::config::Authentication;

/// How often a full table is searched for what may be forgotten.
const SWEEP: Duration = Duration::from_secs(1);

/// Both tables.
#[derive(Debug)]
pub(crate) struct Guard {
    config: Authentication,
    sources: Table<IpAddr>,
    users: Table<(usize, String)>,
    /// Where the latest right answers came from, for the users that are under attack.
    trusted: HashMap<(usize, String), IpAddr>,
}

#[derive(Debug)]
struct Table<K> {
    entries: HashMap<K, Score>,
    swept: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Score {
    failures: u32,
    /// When the last of them was forgotten, or the first was made.
    since: Instant,
    bans: u32,
    banned_until: Option<Instant>,
}

impl Score {
    /// Forgets what time has forgiven.
    fn decay(&mut self, now: Instant, forgive: Duration) {
        if self.banned_until.is_some_and(|until| until <= now) {
            self.banned_until = None;
            (self.failures, self.since) = (0, now);
        }
        let forgive = forgive.max(Duration::from_millis(1));
        let past = now.saturating_duration_since(self.since).as_millis() / forgive.as_millis();
        let past = u32::try_from(past).unwrap_or(u32::MAX);
        if past > 0 {
            self.failures = self.failures.saturating_sub(past);
            self.since = now;
        }
        // Who behaved for that long starts afresh.
        if self.failures == 0 && self.banned_until.is_none() && past > 64 {
            self.bans = 0;
        }
    }
}

impl<K: Eq + Hash> Table<K> {
    fn new() -> Self {
        Self { entries: HashMap::new(), swept: None }
    }

    /// Finds or makes an entry. `None` if the table is full of those that count.
    fn entry(&mut self, key: K, now: Instant, config: &Authentication) -> Option<&mut Score> {
        if self.entries.len() >= config.remembered && !self.entries.contains_key(&key) {
            if self.swept.is_some_and(|at| now.saturating_duration_since(at) < SWEEP) {
                return None;
            }
            self.swept = Some(now);
            self.entries.retain(|_, score| {
                score.decay(now, config.forgive);
                score.failures > 0 || score.banned_until.is_some()
            });
            if self.entries.len() >= config.remembered {
                return None;
            }
        }
        let fresh = Score { failures: 0, since: now, bans: 0, banned_until: None };
        Some(self.entries.entry(key).or_insert(fresh))
    }
}

impl Guard {
    pub(crate) fn new(config: Authentication) -> Self {
        Self { config, sources: Table::new(), users: Table::new(), trusted: HashMap::new() }
    }

    /// Says whether nothing of a source is to be read.
    pub(crate) fn is_banned(&self, source: IpAddr, now: Instant) -> bool {
        let score = self.sources.entries.get(&block(source));
        score.and_then(|score| score.banned_until).is_some_and(|until| until > now)
    }

    /// Counts the sources that are banned.
    pub(crate) fn bans(&self, now: Instant) -> usize {
        let banned = |score: &&Score| score.banned_until.is_some_and(|until| until > now);
        self.sources.entries.values().filter(banned).count()
    }

    /// Says whether answers for a user name do not count from here. Names nobody has are treated as
    /// those somebody has, so that nothing is learned by that.
    pub(crate) fn withholds(&mut self, realm: usize, user: &str, source: IpAddr, now: Instant) -> bool {
        let key = (realm, user.to_owned());
        if self.trusted.get(&key) == Some(&block(source)) {
            return false;
        }
        let Some(score) = self.users.entries.get_mut(&key) else { return false };
        score.decay(now, self.config.forgive);
        score.failures >= self.config.user_failures
    }

    /// Notes a wrong answer. Returns what is to be counted beside it.
    pub(crate) fn failed(
        &mut self,
        realm: usize,
        user: Option<String>,
        source: IpAddr,
        now: Instant,
    ) -> Option<&'static str> {
        let config = self.config;
        if let Some(user) = user
            && let Some(score) = self.users.entry((realm, user), now, &config)
        {
            score.decay(now, config.forgive);
            // No more than counts, so that it is over as soon as the attack is.
            score.failures = score.failures.saturating_add(1).min(config.user_failures);
        }
        let Some(score) = self.sources.entry(block(source), now, &config) else { return Some("guard_full") };
        score.decay(now, config.forgive);
        score.failures = score.failures.saturating_add(1);
        if score.failures < config.source_failures || score.banned_until.is_some() {
            return None;
        }
        let ban = config.ban.saturating_mul(1u32.checked_shl(score.bans).unwrap_or(u32::MAX));
        score.banned_until = Some(now + ban.min(config.longest_ban));
        score.bans = score.bans.saturating_add(1);
        Some("ban")
    }

    /// Notes a right answer. It takes nothing off what stands against the source: an account of one's
    /// own would buy tries at those of others.
    pub(crate) fn succeeded(&mut self, realm: usize, user: &str, source: IpAddr) {
        // There are no more of these than accounts: only right answers make one.
        self.trusted.insert((realm, user.to_owned()), block(source));
    }
}

/// What counts as one source: an IPv4 address, or the 64 bits of IPv6 that one customer gets whole.
fn block(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}
