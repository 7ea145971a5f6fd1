//! Overload (RFC 7339): what a peer asks to be spared, and what we ask of ours. Loss is the only
//! algorithm.

use std::time::{Duration, Instant};

/// The longest that a reduction is obeyed without being repeated.
const VALIDITY_MAX: u64 = 60_000;
/// What is told to peers holds for this long, in milliseconds: the default of RFC 7339 4.2.
const VALIDITY_MS: u64 = 500;

/// What a downstream peer asked for in the Via of its responses (RFC 7339 5.3).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Feedback {
    percent: u8,
    until: Option<Instant>,
    /// The last `oc-seq`, in units of 10 microseconds.
    sequence: Option<u64>,
}

impl Feedback {
    /// Takes the parameters of a response's Via in.
    pub(crate) fn take(&mut self, via: &str, now: Instant) {
        let Some(percent) = parameter(via, "oc").and_then(|v| v.parse::<u8>().ok()).filter(|p| *p <= 100)
        else {
            return;
        };
        if parameter(via, "oc-algo").is_some_and(|v| !v.trim_matches('"').eq_ignore_ascii_case("loss")) {
            return;
        }
        // RFC 7339 4.4: an older one is not obeyed.
        let sequence = parameter(via, "oc-seq").and_then(sequence);
        if let (Some(new), Some(last)) = (sequence, self.sequence)
            && new <= last
        {
            return;
        }
        self.sequence = sequence.or(self.sequence);
        let validity = parameter(via, "oc-validity").and_then(|v| v.parse().ok()).unwrap_or(VALIDITY_MS);
        self.percent = percent;
        // RFC 7339 4.3: zero ends it.
        self.until = (validity > 0).then(|| now + Duration::from_millis(validity.min(VALIDITY_MAX)));
    }

    /// Returns the part of new calls to be spared now, in percent.
    pub(crate) fn percent(&self, now: Instant) -> u8 {
        if self.until.is_some_and(|until| now < until) { self.percent } else { 0 }
    }

    /// Says whether a call is one of those to be spared; `lot` is 0 to 99.
    pub(crate) fn spares(&self, now: Instant, lot: u64) -> bool {
        lot < u64::from(self.percent(now))
    }
}

/// `1282321615.782` in units of 10 microseconds (RFC 7339 4.4: at most five decimals).
fn sequence(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let part: String = part.chars().chain("00000".chars()).take(5).collect();
    whole.parse::<u64>().ok()?.checked_mul(100_000)?.checked_add(part.parse().ok()?)
}

/// Returns the value of a parameter of the first Via in a header value; empty without a value.
fn parameter<'a>(via: &'a str, name: &str) -> Option<&'a str> {
    parts(via).skip(1).find_map(|part| {
        let (own, value) = part.split_once('=').unwrap_or((part, ""));
        own.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The parts of the first Via between semicolons.
fn parts(via: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let end = via.find(|c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    });
    let mut quoted = false;
    via.get(..end.unwrap_or(via.len())).unwrap_or(via).split(move |c| {
        quoted ^= c == '"';
        c == ';' && !quoted
    })
}

/// Says whether the sender of a request takes part: `oc` without a value, and `loss` among its
/// algorithms (RFC 7339 5.1).
pub(crate) fn is_asked(via: &str) -> bool {
    // Hardly anybody does.
    via.as_bytes().windows(3).any(|word| word.eq_ignore_ascii_case(b"oc-")) && {
        let algorithms = parameter(via, "oc-algo").unwrap_or_default().trim_matches('"').to_ascii_lowercase();
        parameter(via, "oc").is_some() && algorithms.split(',').any(|a| a.trim() == "loss")
    }
}

/// Writes our answer into the first Via of a request (RFC 7339 5.2): in place of what it asked.
pub(crate) fn answer(via: &str, ours: &str) -> String {
    let own = parts(via);
    let length: usize = own.map(|part| part.len() + 1).sum::<usize>().saturating_sub(1);
    let rest = via.get(length..).unwrap_or_default();
    let kept = parts(via).enumerate().filter(|(n, part)| {
        let name = part.split('=').next().unwrap_or_default().trim();
        let ours = ["oc", "oc-algo", "oc-validity", "oc-seq"];
        *n == 0 || !ours.iter().any(|own| name.eq_ignore_ascii_case(own))
    });
    let kept: Vec<_> = kept.map(|(_, part)| part).collect();
    format!("{};{ours}{rest}", kept.join(";"))
}

/// What is measured for the load: what has waited, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// The last datagram of those that were read together.
    Datagram,
    /// What came on a connection.
    Stream,
    /// A timer that was due.
    Timer,
}

/// What is asked of those who have calls for us, by how long everything waits here: the controller of RFC 8033 4.2,
/// with calls in place of packets. What counts is the least of a turn, as in RFC 8289 3.1: a moment in which the
/// machine stood still leaves a queue that is gone soon after, a load that is too high leaves one that stays. Where
/// little comes there is no load, however late it is done: the machine is slow to wake, and to refuse spares it nothing.
#[derive(Debug)]
pub(crate) struct Controller {
    /// The part of new calls that is refused, in millionths.
    refuse: i64,
    /// Since the last look, for each that may wait.
    seen: [Seen; 3],
    /// How long what is at work now has waited.
    present: Duration,
    /// The delay at the last look.
    last: Duration,
    looked: Instant,
    started: Instant,
    unix_ms: u64,
    told: u64,
}

/// What has waited since the last look, of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    least: Option<Duration>,
    count: u32,
}

/// The delay that is aimed at. Less than half of it is none.
const AIM: Duration = Duration::from_millis(10);
/// So late that those who say that they hold back are refused as well.
const LATE: Duration = Duration::from_millis(200);
/// How often the part is adapted, at most.
const TURN: Duration = Duration::from_millis(50);
/// What has come in a turn, at least, where there is a load: 8 calls/s between trunks are as much.
const BUSY: u32 = 5;
/// In millionths: the most that is refused, the most that this changes by in a turn, and by how much it
/// falls in a turn without delay.
const MOST: i64 = 980_000;
const STEP: i64 = 300_000;
const FALL: i64 = 12_500;

impl Controller {
    pub(crate) fn new(now: Instant, unix_ms: u64) -> Self {
        Self {
            refuse: 0,
            seen: [Seen::default(); 3],
            present: Duration::ZERO,
            last: Duration::ZERO,
            looked: now,
            started: now,
            unix_ms,
            told: 0,
        }
    }

    /// Takes in how late so many were done together.
    pub(crate) fn load(&mut self, now: Instant, waited: Waited, count: u32, delay: Duration) {
        let seen = &mut self.seen[waited as usize];
        seen.least = Some(seen.least.map_or(delay, |least| least.min(delay)));
        seen.count = seen.count.saturating_add(count);
        if waited != Waited::Timer {
            self.present = delay;
        }
        self.turn(now);
    }

    fn turn(&mut self, now: Instant) {
        let turns = now.saturating_duration_since(self.looked).as_millis() / TURN.as_millis();
        if turns == 0 {
            return;
        }
        let turns = u32::try_from(turns).unwrap_or(u32::MAX);
        let busy = self.seen.iter().filter(|seen| seen.count >= BUSY.saturating_mul(turns));
        let delay = busy.filter_map(|seen| seen.least).max().unwrap_or_default();
        if delay * 2 <= AIM {
            self.refuse -= FALL * i64::from(turns.min(80));
        } else {
            // By a quarter of how far it is from the aim, in seconds, and by one and a half of how far it moved.
            let micros = |d: Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX).min(60_000_000);
            let (delay, last) = (micros(delay), micros(self.last));
            // What stays begins it, not what comes and goes by itself.
            let begins = last > micros(AIM) && delay >= last - last / 8;
            let change = ((delay - micros(AIM)) / 4 + (delay - last) * 3 / 2).clamp(-STEP, STEP);
            self.refuse += if self.refuse > 0 || begins { change } else { 0 };
        }
        self.refuse = self.refuse.clamp(0, MOST);
        (self.last, self.looked) = (delay, now);
        self.seen = [Seen::default(); 3];
    }

    /// Says whether a new call is to be refused; `lot` is 0 to 999999. Who takes part is trusted to hold
    /// back by itself until it is very late.
    pub(crate) fn sheds(&mut self, now: Instant, takes_part: bool, lot: u64) -> bool {
        self.turn(now);
        if takes_part && self.last < LATE {
            return false;
        }
        // What has waited too long already goes first: the queue is short again at once.
        self.refuse > 0 && (self.present > AIM * 2 || lot < self.refuse.unsigned_abs())
    }

    /// Writes the parameters for the Via of a response (RFC 7339 4).
    pub(crate) fn parameters(&mut self, now: Instant) -> String {
        self.turn(now);
        let percent = (self.refuse + 9999) / 10_000;
        let validity = if percent == 0 { 0 } else { VALIDITY_MS };
        let elapsed = now.saturating_duration_since(self.started).as_micros() as u64 / 10;
        // RFC 7339 4.4: each is larger than the one before.
        self.told = (self.unix_ms * 100 + elapsed).max(self.told + 1);
        let (whole, part) = (self.told / 100_000, self.told % 100_000);
        format!("oc={percent};oc-algo=\"loss\";oc-validity={validity};oc-seq={whole}.{part:05}")
    }
}

/// So many calls a second, and as many at once (a token bucket).
#[derive(Debug)]
pub(crate) struct RateLimit {
    per_second: u32,
    /// In thousandths of a call.
    tokens: u64,
    filled: Option<Instant>,
}

impl RateLimit {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second, tokens: u64::from(per_second) * 1000, filled: None }
    }

    /// Takes one call, if there is one left.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let rate = u64::from(self.per_second);
        let since = self.filled.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let more = (since.as_millis() as u64).saturating_mul(rate);
        if more > 0 || self.filled.is_none() {
            self.filled = Some(now);
        }
        self.tokens = self.tokens.saturating_add(more).min(rate * 1000);
        let left = self.tokens.checked_sub(1000);
        self.tokens = left.unwrap_or(self.tokens);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Instant {
        #[allow(clippy::disallowed_methods)]
        Instant::now()
    }

    // RFC 7339 4, 5.3.
    #[test]
    fn a_peer_is_spared_as_it_asked_and_no_longer() {
        let (mut feedback, now) = (Feedback::default(), now());
        let via = |text: &str| {
            format!("SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKx;oc-x=\"a;oc=99\";{text}, SIP/2.0/UDP b;oc=77")
        };
        feedback.take(&via("oc=20;oc-algo=\"loss\";oc-validity=1000;oc-seq=1282321615.782"), now);
        assert_eq!(feedback.percent(now), 20);
        feedback.take(&via("oc=90;oc-algo=\"loss\";oc-seq=1282321615.781"), now);
        assert_eq!(feedback.percent(now), 20, "an older one");
        assert_eq!(feedback.percent(now + Duration::from_millis(1000)), 0);
        feedback.take(&via("oc=30;oc-algo=\"loss\";oc-seq=1282321615.7821"), now);
        assert_eq!((feedback.percent(now), feedback.percent(now + Duration::from_millis(500))), (30, 0));
        assert!(feedback.spares(now, 29) && !feedback.spares(now, 30));
        feedback.take(&via("oc=0;oc-algo=\"loss\";oc-validity=0;oc-seq=1282321616.0"), now);
        assert_eq!(feedback.percent(now), 0);
        for bad in ["oc", "oc=101", "oc=x", "oc=50;oc-algo=\"rate\""] {
            feedback.take(&via(bad), now);
            assert_eq!(feedback.percent(now), 0, "{bad}");
        }
    }

    #[test]
    fn our_answer_takes_the_place_of_the_question() {
        let via = "SIP/2.0/UDP a;branch=z9hG4bK1;oc;oc-algo=\"loss,A\";rport=5, SIP/2.0/UDP b;oc";
        assert!(is_asked(via));
        assert!(
            !is_asked("SIP/2.0/UDP a;oc;oc-algo=\"rate\"") && !is_asked("SIP/2.0/UDP a;oc-algo=\"loss\"")
        );
        assert_eq!(answer(via, "oc=1"), "SIP/2.0/UDP a;branch=z9hG4bK1;rport=5;oc=1, SIP/2.0/UDP b;oc");
    }

    /// A server that does 1000 calls a second or refuses 20,000, a queue, and callers who do not hold back.
    #[test]
    fn three_times_the_load_keeps_the_server_busy_and_ends_soon() {
        let start = now();
        let mut controller = Controller::new(start, 0);
        let mut random = 7_u64;
        let mut lot = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % 1_000_000
        };
        let (mut queue, mut time, mut accepted) = (std::collections::VecDeque::new(), 0_u64, 0_u64);
        let (mut refused_after, mut refusals) = (0, Vec::new());
        // In microseconds; a batch of up to eight is taken at once. 60 s of 3000 a second, then 500 a second.
        let mut next = 0;
        while time < 90_000_000 {
            while next <= time {
                queue.push_back(next);
                next += if next < 60_000_000 { 333 } else { 2_000 };
            }
            let Some(&oldest) = queue.front() else {
                time = next;
                continue;
            };
            let at = |micros| start + Duration::from_micros(micros);
            let (now, batch) = (at(time), queue.len().min(8));
            controller.load(now, Waited::Datagram, batch as u32, now - at(oldest));
            for _ in 0..batch {
                let came = queue.pop_front().unwrap();
                let sheds = controller.sheds(now, false, lot());
                time += if sheds { 50 } else { 1_000 };
                match sheds {
                    true => refusals.push(time - came),
                    false => accepted += u64::from(came < 60_000_000),
                }
                refused_after += u32::from(sheds && came > 64_000_000);
            }
        }
        // What can be done beside 2000 refusals a second.
        assert!(accepted > 95 * 60 * 890 / 100, "{accepted}");
        refusals.sort_unstable();
        let common = refusals[refusals.len() * 99 / 100];
        assert!(common < 50_000, "{common} us");
        assert_eq!(refused_after, 0, "four seconds later");
    }

    /// RFC 8289 3.1: a queue that is gone soon is none. The host of a virtual machine takes the processor away now and
    /// then.
    #[test]
    fn a_server_that_stood_still_for_a_moment_refuses_nobody() {
        for (per_ms, stall) in [(0.01, 60), (0.1, 150), (0.5, 400), (0.7, 90)] {
            let start = now();
            let mut controller = Controller::new(start, 0);
            let (mut queue, mut came) = (Vec::new(), 0.0_f64);
            for step in 0..20_000_u64 {
                let now = start + Duration::from_millis(step);
                came += per_ms;
                while came >= 1.0 {
                    came -= 1.0;
                    queue.push(now);
                }
                // It stands still every second. Otherwise it does one in a millisecond, in batches of eight.
                if step % 1000 < stall || step % 8 != 0 || queue.is_empty() {
                    continue;
                }
                let batch = queue.len().min(8);
                controller.load(now, Waited::Datagram, batch as u32, now.duration_since(queue[0]));
                for _ in queue.drain(..batch) {
                    assert!(!controller.sheds(now, false, 0), "{per_ms} a ms, {stall} ms, after {step} ms");
                }
            }
        }
    }

    /// A machine that is slow to wake does everything late, and no less late for having refused a call.
    #[test]
    fn a_few_late_calls_are_no_load() {
        for (every_ms, refuses) in [(2, true), (20, false), (200, false)] {
            let (start, mut refused) = (now(), false);
            let mut controller = Controller::new(start, 0);
            for step in (0..20_000).step_by(every_ms) {
                let now = start + Duration::from_millis(step);
                for (waited, delay_ms) in [(Waited::Datagram, 45), (Waited::Timer, 60)] {
                    controller.load(now, waited, 1, Duration::from_millis(delay_ms));
                    refused |= controller.sheds(now, false, 0);
                }
            }
            assert_eq!(refused, refuses, "one in {every_ms} ms");
        }
    }
}
