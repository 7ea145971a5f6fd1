// Tests need some first moment; everything after it is virtual.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]
//! Simulated networks in virtual time: a sender, delays and losses drawn from a seed, and a
//! consumer that ticks every 20 ms.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::seed::Seeded;

const MS: u64 = 1_000;

/// One packet on its way: arrival in microseconds, then what arrives. The payload holds its number.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: u64,
    number: u32,
    arrival: Arrival,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Packet(u32),
    Lost { duration: u32, fec: Option<u32> },
    Silence,
    Empty,
}

struct Outcome {
    heard: Vec<(u64, Heard)>,
    counters: JitterCounters,
    queued: usize,
    buffer: JitterBuffer,
}

impl Outcome {
    fn packets(&self) -> Vec<u32> {
        self.heard
            .iter()
            .filter_map(|(_, heard)| if let Heard::Packet(number) = heard { Some(*number) } else { None })
            .collect()
    }

    fn count(&self, kind: impl Fn(&Heard) -> bool) -> usize {
        self.heard.iter().filter(|(_, heard)| kind(heard)).count()
    }

    fn at(&self, number: u32) -> Option<u64> {
        self.heard.iter().find(|(_, heard)| *heard == Heard::Packet(number)).map(|(at, _)| *at)
    }

    /// Every packet received is accounted for exactly once, and order is kept.
    fn check(&self, seed: u64) {
        let c = self.counters;
        assert_eq!(
            c.received,
            c.played + c.late + c.discarded + c.duplicates + self.queued as u64,
            "seed {seed}: {c:?}"
        );
        let packets = self.packets();
        assert!(packets.windows(2).all(|pair| pair[0] < pair[1]), "seed {seed}: out of order: {packets:?}");
        assert_eq!(packets.len() as u64, c.played, "seed {seed}");
    }
}

fn stream(count: u32, packet_ms: u64, clock_rate: u32) -> Vec<Sent> {
    let ticks = (packet_ms * u64::from(clock_rate) / 1_000) as u32;
    (0..count)
        .map(|number| Sent {
            at: u64::from(number) * packet_ms * MS,
            number,
            arrival: Arrival {
                ssrc: 7,
                sequence: 65_500u16.wrapping_add(number as u16),
                timestamp: 0xffff_f000u32.wrapping_add(number.wrapping_mul(ticks)),
                marker: number == 0,
                duration: ticks,
                silence: false,
            },
        })
        .collect()
}

/// A time in ticks of the timestamp.
fn part(time: Duration, config: JitterConfig) -> u32 {
    (time.as_micros() as u64 * u64::from(config.clock_rate) / 1_000_000) as u32
}

fn run(config: JitterConfig, mut sent: Vec<Sent>, phase: u64) -> Outcome {
    sent.sort_by_key(|packet| packet.at);
    let epoch = Instant::now();
    let mut buffer = JitterBuffer::new(config);
    let last = sent.last().map_or(0, |packet| packet.at);
    let tick_ticks = config.clock_rate / 50;
    let mut heard = Vec::new();
    let mut waiting = sent.into_iter().peekable();
    let mut stored = 0u32;
    let mut tick = phase;
    while tick < last + 500 * MS {
        while let Some(packet) = waiting.next_if(|packet| packet.at <= tick) {
            let now = epoch + Duration::from_micros(packet.at);
            buffer.insert(now, packet.arrival, &packet.number.to_be_bytes());
        }
        let now = epoch + Duration::from_micros(tick);
        while stored < tick_ticks {
            let number = |payload: &[u8]| u32::from_be_bytes(payload.try_into().unwrap());
            let (what, ticks) = match buffer.pop(now, stored) {
                // One frame in four can be changed, by up to 10 ms.
                Frame::Packet { payload, duration, pace, .. } => {
                    let played = match pace {
                        Pace::Shorten(by) if number(payload) % 4 == 0 => {
                            duration - part(by, config).min(duration / 2)
                        }
                        Pace::Stretch(by) if number(payload) % 4 == 0 => {
                            duration + part(by, config).min(duration / 2)
                        }
                        _ => duration,
                    };
                    (Heard::Packet(number(payload)), played)
                }
                Frame::Lost { duration, next } => (Heard::Lost { duration, fec: next.map(number) }, duration),
                Frame::Silence { duration } => (Heard::Silence, duration),
                Frame::Empty => (Heard::Empty, tick_ticks - stored),
            };
            assert!(ticks > 0, "no progress at {tick}: {what:?}");
            heard.push((tick, what));
            stored += ticks;
        }
        stored -= tick_ticks;
        tick += 20 * MS;
    }
    Outcome { heard, counters: buffer.counters(), queued: buffer.queued(), buffer }
}

#[test]
fn a_perfect_network_loses_nothing_at_any_packet_time_and_phase() {
    for (clock_rate, packet_ms) in
        [(8_000, 10), (8_000, 20), (8_000, 30), (8_000, 40), (8_000, 60), (48_000, 20), (48_000, 60)]
    {
        for phase in [0, 3 * MS, 9_999, 10 * MS, 15 * MS, 19_999] {
            let config = JitterConfig { clock_rate, ..JitterConfig::g711() };
            let outcome = run(config, stream(500, packet_ms, clock_rate), phase);
            outcome.check(0);
            let c = outcome.counters;
            assert_eq!(
                (c.played, c.lost, c.late, c.discarded),
                (500, 0, 0, 0),
                "{packet_ms} ms, phase {phase}"
            );
            assert!(c.waits <= 1, "{packet_ms} ms, phase {phase}: {c:?}");
            // Never held back by more than the least delay and one tick.
            let delay = outcome.at(400).unwrap() - 400 * packet_ms * MS;
            assert!(delay <= 60 * MS + packet_ms * MS / 2, "{packet_ms} ms, phase {phase}: {delay}");
        }
    }
}

#[test]
fn one_lost_packet_is_one_gap_and_the_packet_behind_it_is_offered_for_fec() {
    let mut sent = stream(100, 20, 48_000);
    sent.remove(50);
    let config = JitterConfig { min_delay: Duration::from_millis(40), ..JitterConfig::opus() };
    let outcome = run(config, sent, 5 * MS);
    outcome.check(0);
    let gaps: Vec<_> = outcome
        .heard
        .iter()
        .filter(|(at, heard)| *at < 1_900 * MS && matches!(heard, Heard::Lost { .. }))
        .collect();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(gaps[0].1, Heard::Lost { duration: 960, fec: Some(51) });
    assert_eq!((outcome.counters.lost, outcome.counters.late, outcome.counters.played), (1, 0, 99));
}

#[test]
fn a_burst_of_three_offers_fec_for_the_last_of_them_only() {
    let mut sent = stream(100, 20, 48_000);
    sent.drain(50..53);
    let config = JitterConfig { min_delay: Duration::from_millis(100), ..JitterConfig::opus() };
    let outcome = run(config, sent, 5 * MS);
    let gaps: Vec<_> = outcome
        .heard
        .iter()
        .filter_map(|(at, heard)| match heard {
            Heard::Lost { fec, .. } if *at < 1_900 * MS => Some(*fec),
            _ => None,
        })
        .collect();
    assert_eq!(gaps, [None, None, Some(53)]);
    assert_eq!(outcome.counters.lost, 3);
}

// What reaches back further than FEC needs the packet after the whole of a gap from its first frame on.
#[test]
fn in_a_burst_the_packet_ahead_is_shown_with_what_is_missing_before_it() {
    let epoch = Instant::now();
    let mut buffer =
        JitterBuffer::new(JitterConfig { min_delay: Duration::from_millis(80), ..JitterConfig::opus() });
    assert_eq!(buffer.ahead(), None);
    let mut sent = stream(20, 20, 48_000);
    sent.drain(10..13);
    let mut sent = sent.into_iter().peekable();
    let mut gaps = Vec::new();
    for tick in 0..25u64 {
        let now = epoch + Duration::from_millis(tick * 20 + 5);
        while let Some(packet) = sent.next_if(|packet| packet.at <= tick * 20 * MS) {
            buffer.insert(
                epoch + Duration::from_micros(packet.at),
                packet.arrival,
                &packet.number.to_be_bytes(),
            );
        }
        // After the end of the stream nothing is ahead.
        if matches!(buffer.pop(now, 0), Frame::Lost { .. })
            && let Some((missing, payload)) = buffer.ahead()
        {
            gaps.push((missing, u32::from_be_bytes(payload.try_into().unwrap())));
        }
    }
    assert_eq!(gaps, [(1_920, 13), (960, 13), (0, 13)]);
    assert_eq!(buffer.ahead(), None, "nothing waits any more");
}

#[test]
fn reordering_by_up_to_ten_is_put_right_once_the_delay_has_grown() {
    for seed in 0..20 {
        let mut random = Seeded::new(seed);
        let mut sent = stream(1_000, 20, 8_000);
        for packet in &mut sent {
            // One in eight is overtaken by up to nine others.
            if random.below(8) == 0 {
                packet.at += 20 * MS * random.below(10);
            }
        }
        let outcome = run(JitterConfig::g711(), sent, seed * MS % 20);
        outcome.check(seed);
        let c = outcome.counters;
        assert_eq!(c.lost, 0, "seed {seed}: {c:?}");
        assert!(c.late < 30, "seed {seed}: {c:?}");
        let late_half = outcome.heard.iter().filter(|(at, _)| (10_000 * MS..19_900 * MS).contains(at));
        let gaps = late_half.filter(|(_, heard)| matches!(heard, Heard::Lost { .. })).count();
        assert!(gaps < 12, "seed {seed}: {gaps} gaps after the delay was learnt");
    }
}

#[test]
fn jitter_loss_and_duplicates_are_counted_apart_and_exactly() {
    for seed in 0..50 {
        let mut random = Seeded::new(seed);
        let jitter = (5 + random.below(70)) * MS;
        let (mut sent, mut dropped, mut doubled) = (Vec::new(), 0, 0);
        for mut packet in stream(2_000, 20, 8_000) {
            packet.at += random.below(jitter);
            let edge = packet.number == 0 || packet.number == 1_999;
            if !edge && random.below(100) < 5 {
                dropped += 1;
                continue;
            }
            if random.below(100) < 3 {
                doubled += 1;
                sent.push(Sent { at: packet.at + random.below(30 * MS), ..packet });
            }
            sent.push(packet);
        }
        let outcome = run(JitterConfig::g711(), sent, random.below(20 * MS));
        outcome.check(seed);
        let c = outcome.counters;
        assert_eq!(c.lost, dropped, "seed {seed}, jitter {jitter}: {c:?}");
        assert_eq!(c.duplicates, doubled, "seed {seed}, jitter {jitter}: {c:?}");
        assert!(c.late + c.discarded < 20, "seed {seed}, jitter {jitter}: {c:?}");
        assert_eq!(c.restarts, 0, "seed {seed}: {c:?}");
    }
}

#[test]
fn the_delay_grows_at_once_and_shrinks_slowly() {
    let mut sent = stream(4_000, 20, 8_000);
    for packet in &mut sent[500..510] {
        packet.at += 120 * MS;
    }
    let outcome = run(JitterConfig::g711(), sent.clone(), 0);
    outcome.check(0);
    let delay = |number: u32| outcome.at(number).map(|at| at - u64::from(number) * 20 * MS);
    let (before, after, long_after) = (delay(490).unwrap(), delay(520).unwrap(), delay(3_900).unwrap());
    assert!(before <= 40 * MS, "{before}");
    assert!(after >= 100 * MS, "grown to {after}");
    assert!(long_after <= 70 * MS, "still {long_after}");
    // The first of the ten are late; once the delay has grown the others are played.
    assert!(outcome.counters.late <= 6, "{:?}", outcome.counters);
    assert!((600..700).all(|number| outcome.at(number).is_some()), "shrank too fast");
    assert!(
        outcome.buffer.target_delay() <= Duration::from_millis(40),
        "{:?}",
        outcome.buffer.target_delay()
    );
}

#[test]
fn a_stall_longer_than_the_longest_delay_ends_in_a_resumption_not_in_a_backlog() {
    let mut sent = stream(1_000, 20, 8_000);
    for packet in &mut sent {
        if (10_000 * MS..11_000 * MS).contains(&packet.at) {
            packet.at = 11_000 * MS;
        }
    }
    let outcome = run(JitterConfig::g711(), sent, 7 * MS);
    outcome.check(0);
    let c = outcome.counters;
    assert_eq!(c.lost, 0, "{c:?}");
    for number in [600, 700, 900] {
        let delay = outcome.at(number).unwrap() - u64::from(number) * 20 * MS;
        assert!(delay <= 300 * MS, "{number} held back by {delay}");
    }
}

#[test]
fn a_path_that_gets_slower_for_good_costs_five_packets_and_the_pause() {
    for step in [150, 260, 400, 900] {
        let mut sent = stream(1_000, 20, 8_000);
        for packet in &mut sent[500..] {
            packet.at += step * MS;
        }
        let outcome = run(JitterConfig::g711(), sent, 3 * MS);
        outcome.check(step);
        let c = outcome.counters;
        assert_eq!(c.lost, 0, "{step} ms: {c:?}");
        assert!(c.late + c.discarded <= 12, "{step} ms: {c:?}");
        assert!((540..990).filter(|&n| outcome.at(n).is_none()).count() <= 8, "{step} ms: {c:?}");
    }
}

#[test]
fn pauses_of_dtx_and_voice_detection_are_no_loss() {
    for silence in [true, false] {
        // Talk for 2 s, pause for 3 s with timestamps going on and numbers not.
        let mut sent = stream(400, 20, 8_000);
        for packet in &mut sent {
            let pauses = packet.number / 100;
            packet.at += u64::from(pauses) * 3_000 * MS;
            packet.arrival.timestamp = packet.arrival.timestamp.wrapping_add(pauses * 24_000);
            packet.arrival.marker = packet.number.is_multiple_of(100);
            packet.arrival.silence = silence && packet.number % 100 >= 97;
        }
        let outcome = run(JitterConfig::g711(), sent, 11 * MS);
        outcome.check(0);
        let c = outcome.counters;
        assert_eq!((c.played, c.lost, c.late, c.restarts), (400, 0, 0, 0), "{c:?}");
        let made_up = outcome.count(|heard| matches!(heard, Heard::Lost { .. }));
        // Without a sign of silence the first 60 ms of a pause might have been a loss.
        assert_eq!(made_up, if silence { 0 } else { 12 }, "{c:?}");
    }
}

#[test]
fn a_sender_whose_clock_stands_still_in_silence_is_followed() {
    for pause in [300, 700, 5_000] {
        let mut sent = stream(400, 20, 8_000);
        for packet in &mut sent {
            packet.at += u64::from(packet.number / 100) * pause * MS;
            packet.arrival.marker = packet.number.is_multiple_of(100);
        }
        let outcome = run(JitterConfig::g711(), sent, 2 * MS);
        outcome.check(pause);
        let c = outcome.counters;
        assert!(c.played >= 380, "{pause} ms: {c:?}");
        assert_eq!(c.lost, 0, "{pause} ms: {c:?}");
    }
}

#[test]
fn another_source_takes_over_after_two_packets_and_one_stray_packet_does_not() {
    let mut sent = stream(300, 20, 8_000);
    sent[50].arrival.ssrc = 99;
    for packet in &mut sent[150..] {
        packet.arrival.ssrc = 8;
        packet.arrival.sequence = packet.arrival.sequence.wrapping_add(30_000);
        packet.arrival.timestamp = packet.arrival.timestamp.wrapping_mul(77);
        packet.arrival.timestamp = packet.number * 160;
    }
    let outcome = run(JitterConfig::g711(), sent, 4 * MS);
    outcome.check(0);
    let c = outcome.counters;
    assert_eq!((c.restarts, c.lost), (1, 1), "{c:?}");
    assert!((150..300).all(|number| outcome.at(number).is_some()), "{c:?}");
    assert!(outcome.at(50).is_none());
}

#[test]
fn jumps_of_timestamp_and_of_sequence_number_restart_the_stream() {
    for (sequence, timestamp) in
        [(0u16, 1_000_000u32), (0, 3_000_000_000), (20_000, 0), (45_000, 123_456_789)]
    {
        let mut sent = stream(300, 20, 8_000);
        for packet in &mut sent[150..] {
            packet.arrival.sequence = packet.arrival.sequence.wrapping_add(sequence);
            packet.arrival.timestamp = packet.arrival.timestamp.wrapping_add(timestamp);
        }
        let outcome = run(JitterConfig::g711(), sent, 4 * MS);
        outcome.check(0);
        let c = outcome.counters;
        assert_eq!((c.restarts, c.lost), (1, 0), "{sequence} {timestamp}: {c:?}");
        assert!((150..300).all(|number| outcome.at(number).is_some()), "{sequence} {timestamp}: {c:?}");
    }
}

#[test]
fn numbers_marked_as_events_are_no_loss() {
    let epoch = Instant::now();
    let mut buffer = JitterBuffer::new(JitterConfig::g711());
    for packet in stream(40, 20, 8_000) {
        let now = epoch + Duration::from_micros(packet.at);
        if (10..18).contains(&packet.number) {
            buffer.mark(7, packet.arrival.sequence);
        } else {
            buffer.insert(now, packet.arrival, &[0; 160]);
        }
        buffer.pop(now, 0);
    }
    assert_eq!(buffer.counters().lost, 0, "{:?}", buffer.counters());
    assert!(buffer.counters().played >= 29, "{:?}", buffer.counters());
}

#[test]
fn clocks_that_drift_by_200_ppm_are_followed_without_loss() {
    for fast in [true, false] {
        let mut sent = stream(30_000, 20, 8_000);
        for packet in &mut sent {
            let drift = packet.at / 5_000;
            packet.at = if fast { packet.at - drift } else { packet.at + drift };
        }
        let outcome = run(JitterConfig::g711(), sent, 6 * MS);
        outcome.check(0);
        let c = outcome.counters;
        assert_eq!(c.lost, 0, "{c:?}");
        // 600 s at 200 ppm are 120 ms: about six packets more or fewer than were needed.
        assert!(c.late + c.discarded + c.waits <= 12, "fast {fast}: {c:?}");
        let delay = outcome.at(29_000).unwrap() as i64 - 29_000 * 20_000;
        let drift = if fast { -116_000 } else { 116_000 };
        assert!((0..110_000).contains(&(delay - drift)), "fast {fast}: {delay}");
    }
}

#[test]
fn a_payload_too_long_is_refused_and_counted() {
    let mut buffer = JitterBuffer::new(JitterConfig::g711());
    let packet = stream(1, 20, 8_000)[0];
    assert_eq!(buffer.insert(Instant::now(), packet.arrival, &[0; 641]), Inserted::TooLarge);
    assert_eq!(buffer.counters().discarded, 1);
}

proptest! {
    #[test]
    fn anything_at_any_time_keeps_the_counts_true_and_makes_progress(
        packets in prop::collection::vec(
            (0u64..60_000, 0u32..2, any::<u16>(), any::<u32>(), any::<bool>(), any::<u32>(), 0usize..700), 0..200),
        near in any::<bool>(),
    ) {
        let epoch = Instant::now();
        let mut now = epoch;
        let mut buffer = JitterBuffer::new(JitterConfig::g711());
        for (step, ssrc, sequence, timestamp, flag, duration, len) in packets {
            now += Duration::from_micros(step);
            let (sequence, timestamp) =
                if near { (sequence % 64, timestamp % 64 * 160) } else { (sequence, timestamp) };
            let arrival = Arrival { ssrc, sequence, timestamp, marker: flag, duration, silence: flag };
            buffer.insert(now, arrival, &vec![0; len]);
            if flag {
                buffer.mark(ssrc, sequence.wrapping_add(1));
            }
            for _ in 0..3 {
                if let Frame::Packet { payload, .. } = buffer.pop(now, 0) {
                    prop_assert!(payload.len() <= 640);
                }
            }
        }
        let c = buffer.counters();
        let held = buffer.queued() as u64 + u64::from(buffer.probation.is_some());
        prop_assert_eq!(c.received, c.played + c.late + c.discarded + c.duplicates + held);
    }
}
