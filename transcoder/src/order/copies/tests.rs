// Tests need some first moment; everything after it is virtual.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]
//! Streams whose packets carry the frames before their own, in virtual time.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::{Frame, Inserted, JitterConfig, JitterCounters};
use super::*;
use crate::seed::Seeded;

const TICK: Duration = Duration::from_millis(20);
const FRAME: u32 = 960;

fn arrival(number: u32) -> Arrival {
    Arrival {
        ssrc: 7,
        sequence: 65_500u16.wrapping_add(number as u16),
        timestamp: 0xffff_f000u32.wrapping_add(number * FRAME),
        marker: number == 0,
        duration: FRAME,
        silence: false,
    }
}

/// A stream of so many copies a packet, and what is heard of it.
struct Line {
    start: Instant,
    depth: u32,
    buffer: JitterBuffer,
    /// What was played, in order; `None` was made up.
    heard: Vec<Option<u32>>,
}

impl Line {
    fn new(depth: u32) -> Self {
        let config = JitterConfig { min_delay: Duration::from_millis(30), ..JitterConfig::opus() };
        Self { start: Instant::now(), depth, buffer: JitterBuffer::new(config), heard: Vec::new() }
    }

    fn receive(&mut self, now: Instant, number: u32) -> (Inserted, Vec<Copied>) {
        let packet = arrival(number);
        let inserted = self.buffer.insert(now, packet, &number.to_be_bytes());
        let copies = (1..=self.depth.min(number)).rev();
        let copies =
            copies.map(|back| self.copy(now, &packet, back, &(number - back).to_be_bytes())).collect();
        (inserted, copies)
    }

    fn copy(&mut self, now: Instant, of: &Arrival, back: u32, payload: &[u8]) -> Copied {
        let copy = FrameCopy { offset: back * FRAME, duration: FRAME, silence: false, payload };
        self.buffer.insert_copy(now, of, copy)
    }

    fn tick(&mut self, now: Instant) {
        let heard = match self.buffer.pop(now, 0) {
            Frame::Packet { payload, .. } => Some(u32::from_be_bytes(payload.try_into().unwrap())),
            Frame::Lost { .. } => None,
            Frame::Silence { .. } | Frame::Empty => return,
        };
        self.heard.push(heard);
    }

    /// Runs packets `from..to`, each 20 ms and 40 ms of path after the one before; `lost` says which do not come.
    fn run(&mut self, numbers: std::ops::Range<u32>, lost: impl Fn(u32) -> bool) {
        for number in numbers {
            let arrives = self.start + number * TICK + 2 * TICK;
            if !lost(number) {
                self.receive(arrives, number);
            }
            self.tick(arrives + TICK / 2);
        }
    }

    fn counters(&self) -> JitterCounters {
        self.buffer.counters()
    }
}

#[test]
fn a_copy_is_played_in_the_place_of_what_never_came() {
    let mut line = Line::new(1);
    line.run(0..300, |number| number % 10 == 5);
    let c = line.counters();
    assert_eq!(
        (c.lost, c.recovered, c.received, c.duplicates, c.late, c.discarded),
        (30, 30, 270, 0, 0, 0),
        "{c:?}"
    );
    assert!(line.heard.iter().zip(0..).all(|(heard, number)| *heard == Some(number)), "{:?}", line.heard);
    assert_eq!(line.buffer.pattern().lost(), 0);
    // A copy that lies back one frame is there before it is due: nothing is held back for it.
    assert_eq!(line.buffer.target_delay(), Duration::from_millis(30));
}

#[test]
fn a_single_burst_does_not_make_the_delay_grow_and_bursts_do_until_they_end() {
    let mut line = Line::new(3);
    let burst = |every: u32| move |number: u32| number > 200 && number % every < 3;
    line.run(0..300, |number| (250..253).contains(&number));
    let short = line.buffer.target_delay();
    assert!(short <= Duration::from_millis(50), "{short:?}");
    line.run(300..900, burst(30));
    let long = line.buffer.target_delay();
    // The oldest copy comes 60 ms after its frame, and 5 ms are held on top.
    assert!((60..=70).contains(&long.as_millis()), "{long:?}");
    let (before, from) = (line.counters(), line.heard.len());
    line.run(900..1_500, burst(30));
    let after = line.counters();
    assert_eq!((after.lost - before.lost, after.recovered - before.recovered), (60, 60), "{after:?}");
    assert!(line.heard[from..].iter().all(Option::is_some));
    line.run(1_500..2_600, |_| false);
    assert_eq!(line.buffer.target_delay(), Duration::from_millis(30));
    let c = line.counters();
    assert_eq!((c.duplicates, c.discarded), (0, 0), "{c:?}");
}

#[test]
fn copies_of_what_came_change_nothing_at_all() {
    let (mut with, mut without) = (Line::new(3), Line::new(0));
    for line in [&mut with, &mut without] {
        line.run(0..500, |_| false);
    }
    assert_eq!(with.counters(), without.counters());
    assert_eq!(with.heard, without.heard);
    assert_eq!(with.buffer.target_delay(), without.buffer.target_delay());
}

#[test]
fn a_packet_that_comes_after_its_copy_is_neither_lost_nor_late_nor_twice_there() {
    // The first while its copy waits, the second when that was played.
    for (later, waits) in [(25, true), (90, false)] {
        let mut line = Line::new(1);
        line.run(0..50, |_| false);
        let at = |number: u32| line.start + number * TICK + 2 * TICK;
        let (next, late) = (at(51), at(50) + Duration::from_millis(later));
        line.receive(next, 51);
        if waits {
            assert_eq!(line.receive(late, 50).0, Inserted::Queued);
        }
        for number in 50..52 {
            line.tick(line.start + number * TICK + 2 * TICK + TICK / 2 + TICK);
        }
        line.run(52..54, |_| false);
        if !waits {
            assert_eq!((line.counters().lost, line.counters().recovered), (1, 1));
            assert_eq!(line.receive(late, 50).0, Inserted::Duplicate);
        }
        line.run(54..80, |_| false);
        let c = line.counters();
        assert_eq!(
            (c.lost, c.recovered, c.late, c.duplicates, c.discarded),
            (0, 0, 0, 0, 0),
            "{later}: {c:?}"
        );
        assert_eq!((c.received, c.played + line.buffer.queued() as u64), (80, 80), "{later}: {c:?}");
        // And once more is once too often.
        assert_eq!(line.receive(late, 50).0, Inserted::Duplicate);
        assert_eq!(line.counters().duplicates, 1, "{later}");
    }
}

#[test]
fn what_fits_nowhere_is_not_believed() {
    let mut line = Line::new(0);
    line.run(0..20, |number| number == 18);
    let now = line.start + 30 * TICK;
    let of = arrival(19);
    assert_eq!(line.copy(now, &Arrival { ssrc: 8, ..of }, 1, &[1]), Copied::Unplaced, "another source");
    assert_eq!(line.copy(now, &of, 0, &[1]), Copied::Unplaced, "of the packet itself");
    assert_eq!(line.copy(now, &of, 17, &[1]), Copied::Unplaced, "too far back");
    assert_eq!(line.copy(now, &of, 2, &[1]), Copied::Known);
    let odd = FrameCopy { offset: FRAME + 1, duration: FRAME, silence: false, payload: &[1] };
    assert_eq!(line.buffer.insert_copy(now, &of, odd), Copied::Unplaced, "within a frame");
    assert_eq!(line.buffer.insert_copy(now, &of, FrameCopy { duration: 0, ..odd }), Copied::Unplaced);
    // Twice as long, it would reach back over one that waits.
    line.buffer.insert(now, arrival(22), &[1]);
    let long = FrameCopy { offset: 2 * FRAME, duration: 2 * FRAME, silence: false, payload: &[1] };
    line.buffer.insert(now, arrival(20), &[1]);
    assert_eq!(line.buffer.insert_copy(now, &arrival(22), long), Copied::Unplaced);
    let huge = [0; 2_000];
    assert_eq!(line.copy(now, &arrival(22), 1, &huge), Copied::Unplaced);
    assert_eq!(line.copy(now, &arrival(22), 1, &[1]), Copied::Queued);
    assert_eq!(line.copy(now, &arrival(22), 1, &[1]), Copied::Known);
}

proptest! {
    #[test]
    fn every_packet_is_counted_once_whatever_is_copied(
        seed in any::<u64>(),
        loss in 0u64..40,
        spread in 1u64..120,
        depth in 0u32..5,
    ) {
        let mut random = Seeded::new(seed);
        let mut line = Line::new(depth);
        let mut packets: Vec<(Instant, u32)> = Vec::new();
        for number in 0..300 {
            let at = line.start + number * TICK + Duration::from_millis(random.below(spread));
            if random.below(100) >= loss {
                packets.push((at, number));
            }
        }
        packets.extend(packets.clone().into_iter().step_by(17));
        packets.sort_unstable();
        let mut waiting = packets.iter().peekable();
        for tick in 0..320 {
            let now = line.start + tick * TICK + TICK / 2;
            while let Some((at, number)) = waiting.next_if(|(at, _)| *at <= now) {
                line.receive(*at, *number);
            }
            line.tick(now);
        }
        let c = line.counters();
        let queued = line.buffer.slots.iter().filter(|slot| slot.occupied && !slot.is_copy).count() as u64;
        prop_assert_eq!(c.received, c.played + c.late + c.discarded + c.duplicates + queued, "seed {}: {:?}", seed, c);
        prop_assert!(c.recovered <= c.lost, "seed {}: {:?}", seed, c);
        let heard: Vec<u32> = line.heard.iter().copied().flatten().collect();
        prop_assert!(heard.windows(2).all(|pair| pair[0] < pair[1]), "seed {}: {:?}", seed, heard);
        prop_assert_eq!(heard.len() as u64, c.played + c.recovered, "seed {}: {:?}", seed, c);
    }

    #[test]
    fn copies_of_anything_at_any_time_keep_the_buffer_whole(
        steps in prop::collection::vec(
            (0u64..60_000, any::<u16>(), any::<u32>(), 0u32..20_000, any::<u32>(), 0usize..200, any::<bool>()), 0..200),
        near in any::<bool>(),
    ) {
        let mut now = Instant::now();
        let mut buffer = JitterBuffer::new(JitterConfig::opus());
        for (step, sequence, timestamp, offset, duration, len, silence) in steps {
            now += Duration::from_micros(step);
            let (sequence, timestamp, offset, duration) = if near {
                (sequence % 64, u32::from(sequence % 64) * FRAME, offset / FRAME * FRAME, FRAME)
            } else {
                (sequence, timestamp, offset, duration)
            };
            let of = Arrival { ssrc: 1, sequence, timestamp, marker: false, duration, silence };
            buffer.insert(now, of, &vec![0; len]);
            buffer.insert_copy(now, &of, FrameCopy { offset, duration, silence, payload: &vec![1; len] });
            for _ in 0..3 {
                buffer.pop(now, 0);
            }
        }
        let c = buffer.counters();
        let waiting = buffer.slots.iter().filter(|slot| slot.occupied && !slot.is_copy).count();
        let held = waiting as u64 + u64::from(buffer.probation.is_some());
        prop_assert_eq!(c.received, c.played + c.late + c.discarded + c.duplicates + held);
        prop_assert!(buffer.target_delay() <= buffer.config().max_delay);
    }
}
