// The clock is read once, for a first instant; all time after is added to it.
#![allow(clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use super::{EdgeCodec, EdgeControl, Seen};

const SECOND: Duration = Duration::from_secs(1);

/// A path in virtual time, on which so many packets of a second are lost.
struct Path {
    control: EdgeControl,
    now: Instant,
    seen: Seen,
}

impl Path {
    fn new(policy: EdgeCodec) -> Self {
        let now = Instant::now();
        let mut control = EdgeControl::new(policy);
        control.connected(now);
        Self { control, now, seen: Seen::default() }
    }

    /// Lets seconds pass, and says in which of them G.711 was wanted.
    fn pass(&mut self, seconds: u32, lost: u64) -> Vec<bool> {
        let wanted = (0..seconds).map(|_| {
            self.now += SECOND;
            self.seen.received += 50 - lost;
            self.seen.lost += lost;
            if self.control.wants_look(self.now) {
                self.control.look(self.now, self.seen);
            }
            self.control.wants_g711(self.now)
        });
        wanted.collect()
    }

    fn wants(&mut self) -> bool {
        self.control.wants_g711(self.now)
    }

    /// How many seconds of peace it takes until G.711 is wanted again.
    fn peace(&mut self) -> u32 {
        (1..2_000).find(|_| self.pass(1, 0)[0]).expect("wanted again")
    }
}

#[test]
fn the_policy_is_spelt_as_in_the_configuration() {
    for policy in [EdgeCodec::Auto, EdgeCodec::Always, EdgeCodec::Never] {
        assert_eq!(policy.to_string().parse(), Ok(policy));
    }
    let error = "Auto".parse::<EdgeCodec>().expect_err("case counts");
    assert_eq!(error.to_string(), "not one of auto, always, never");
    assert_eq!(EdgeCodec::default(), EdgeCodec::Auto);
}

#[test]
fn always_and_never_look_at_nothing() {
    let mut always = Path::new(EdgeCodec::Always);
    let mut never = Path::new(EdgeCodec::Never);
    for lost in [0, 25, 0] {
        assert!(always.pass(60, lost).into_iter().all(|wanted| wanted));
        assert!(!never.pass(60, lost).into_iter().any(|wanted| wanted));
        always.control.reported(always.now, 40.0);
    }
    assert!(!EdgeControl::new(EdgeCodec::Always).wants_g711(always.now), "not before it is connected");
}

#[test]
fn g711_begins_after_some_seconds_of_peace() {
    let mut path = Path::new(EdgeCodec::Auto);
    assert_eq!(path.pass(6, 0), [false, false, false, true, true, true]);
    // A path that is bad from the start has to prove itself for longer.
    let mut path = Path::new(EdgeCodec::Auto);
    path.pass(2, 5);
    assert!(!path.pass(30, 0).into_iter().any(|wanted| wanted));
    assert!(path.pass(6, 0).into_iter().any(|wanted| wanted));
}

#[test]
fn two_per_cent_end_it_at_once_and_less_does_not() {
    let mut path = Path::new(EdgeCodec::Auto);
    path.pass(20, 0);
    path.control.reported(path.now, 1.9);
    assert!(path.wants());
    // One of 50 in each of three seconds: 1.2 % of five seconds.
    assert!(path.pass(3, 1).into_iter().all(|wanted| wanted));
    path.pass(10, 0);
    path.control.reported(path.now, 2.0);
    assert!(!path.wants());
    assert!((29..=31).contains(&path.peace()));
    // The same as it is seen here.
    assert_eq!(path.pass(2, 5), [false, false]);
}

#[test]
fn a_burst_a_queue_and_jitter_end_it() {
    type Change = fn(&mut Seen);
    let changes: [Change; 3] = [
        |seen| seen.bursts += 1,
        |seen| seen.round_trip = Some(Duration::from_millis(340)),
        |seen| seen.jitter_ms = 60.0,
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut path = Path::new(EdgeCodec::Auto);
        path.seen.round_trip = Some(Duration::from_millis(80));
        path.pass(10, 0);
        assert!(path.wants());
        change(&mut path.seen);
        assert_eq!(path.pass(1, 0), [false], "change {at}");
    }
    // What is no worse than it was is no queue.
    let mut path = Path::new(EdgeCodec::Auto);
    path.seen.round_trip = Some(Duration::from_millis(600));
    path.pass(10, 0);
    assert!(path.wants());
}

#[test]
fn it_does_not_swing() {
    let mut path = Path::new(EdgeCodec::Auto);
    path.pass(200, 0);
    let mut waits = Vec::new();
    for _ in 0..7 {
        path.control.reported(path.now, 10.0);
        assert!(!path.wants());
        waits.push(path.peace());
    }
    assert_eq!(waits, [30, 60, 120, 240, 480, 480, 480]);
    // What lasted is forgiven.
    path.pass(130, 0);
    path.control.reported(path.now, 10.0);
    assert_eq!(path.peace(), 30);
    // Loss of one per cent is no peace.
    path.control.reported(path.now, 10.0);
    for _ in 0..100 {
        path.pass(5, 0);
        path.control.reported(path.now, 1.0);
        assert!(!path.wants());
    }
}
