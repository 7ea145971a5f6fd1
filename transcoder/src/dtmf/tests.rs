// Tests need some first moment; everything after it is virtual.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use call_model::DtmfDigit;
use proptest::prelude::*;

use super::*;

fn digit(c: char) -> DtmfDigit {
    DtmfDigit::from_char(c).unwrap()
}

/// Lets a sender run until it has nothing more to send; returns what goes out in each interval.
fn send(sender: &mut DtmfSender, clock_rate: u32, from: u64) -> Vec<(u64, Option<EventPacket>)> {
    let interval = clock_rate / 50;
    let mut sent = Vec::new();
    let mut time = from;
    while !sender.is_idle() {
        sent.push((time, sender.next(time, interval)));
        time += u64::from(interval);
        assert!(sent.len() < 5_000, "never idle");
    }
    sent
}

fn packets_of(digits: &[(char, u16)], clock_rate: u32) -> Vec<(u64, EventPacket)> {
    let mut sender = DtmfSender::new(clock_rate);
    for &(c, duration) in digits {
        sender.queue(digit(c), duration).unwrap();
    }
    send(&mut sender, clock_rate, 0).into_iter().filter_map(|(time, packet)| Some((time, packet?))).collect()
}

struct Line {
    receiver: DtmfReceiver,
    epoch: Instant,
    clock_rate: u32,
    events: Vec<DtmfEvent>,
}

impl Line {
    fn new(clock_rate: u32) -> Self {
        Self {
            receiver: DtmfReceiver::new(clock_rate),
            epoch: Instant::now(),
            clock_rate,
            events: Vec::new(),
        }
    }

    fn now(&self, time: u64) -> Instant {
        self.epoch + Duration::from_micros(time * 1_000_000 / u64::from(self.clock_rate))
    }

    fn deliver(&mut self, time: u64, packet: &EventPacket, marker: bool) {
        let now = self.now(time);
        self.receiver
            .receive(now, 0xffff_ff00u32.wrapping_add(packet.media_time as u32), marker, &packet.payload)
            .unwrap();
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(event) = self.receiver.poll_event() {
            self.events.push(event);
        }
    }

    /// Lets time pass until nothing more is due, and returns the digits that began and ended.
    fn finish(mut self) -> Vec<(char, u16)> {
        if let Some(at) = self.receiver.poll_timeout() {
            self.receiver.handle_timeout(at);
            self.drain();
        }
        assert!(!self.receiver.is_active());
        assert_eq!(self.receiver.poll_timeout(), None);
        self.events
            .chunks(2)
            .map(|pair| match pair {
                [DtmfEvent::Started { digit: a }, DtmfEvent::Ended { digit: b, duration_ms }] if a == b => {
                    (a.as_char(), *duration_ms)
                }
                other => panic!("start and end do not pair: {other:?}"),
            })
            .collect()
    }
}

// RFC 4733 2.5.1: marker on the first, fixed timestamp, growing duration, three ends.
#[test]
fn a_digit_goes_out_as_the_rfc_has_it() {
    for clock_rate in [8_000, 48_000] {
        let packets = packets_of(&[('5', 100)], clock_rate);
        let ms = clock_rate / 1_000;
        assert_eq!(packets.len(), 7);
        for (n, (time, packet)) in packets.iter().enumerate() {
            assert_eq!(*time, n as u64 * u64::from(20 * ms));
            assert_eq!(packet.media_time, 0);
            assert_eq!(packet.marker, n == 0);
            assert_eq!(packet.payload[0], 5);
            assert_eq!(packet.payload[1], if n >= 4 { 0x80 | 10 } else { 10 });
            let duration = u16::from_be_bytes([packet.payload[2], packet.payload[3]]);
            assert_eq!(u32::from(duration), (n as u32 + 1).min(5) * 20 * ms);
        }
    }
}

#[test]
fn audio_flows_between_two_digits_for_at_least_50_ms() {
    let mut sender = DtmfSender::new(8_000);
    sender.queue(digit('1'), 40).unwrap();
    sender.queue(digit('1'), 40).unwrap();
    let sent = send(&mut sender, 8_000, 1_000);
    let starts: Vec<u64> =
        sent.iter().filter_map(|(time, p)| p.filter(|p| p.marker).map(|_| *time)).collect();
    assert_eq!(starts.len(), 2);
    let gap = starts[1] - (starts[0] + 320);
    assert!((400..=560).contains(&gap), "{gap} ticks");
    let both: Vec<bool> = sent.iter().map(|(_, packet)| packet.is_some()).collect();
    assert_eq!(both, [true, true, true, true, false, true, true, true, true]);
}

#[test]
fn the_queue_is_bounded_and_durations_are_brought_into_range() {
    let mut sender = DtmfSender::new(8_000);
    for _ in 0..32 {
        sender.queue(digit('9'), 0).unwrap();
    }
    assert_eq!(sender.queue(digit('9'), 0), Err(QueueFull));
    let mut line = Line::new(8_000);
    for (time, packet) in send(&mut sender, 8_000, 0) {
        if let Some(packet) = packet {
            line.deliver(time, &packet, packet.marker);
        }
    }
    assert_eq!(line.finish(), vec![('9', 40); 32]);
}

// Exactly once, whatever is lost: every subset of the packets of a 100 ms digit, with and without
// marker bits, between two other digits.
#[test]
fn any_subset_of_a_digits_packets_gives_exactly_one_digit() {
    for clock_rate in [8_000, 48_000] {
        let packets = packets_of(&[('1', 100), ('2', 100), ('2', 40)], clock_rate);
        let middle: Vec<_> =
            packets.iter().filter(|(_, p)| p.media_time == packets[7].1.media_time).collect();
        assert_eq!(middle.len(), 7);
        for kept in 0u32..1 << 7 {
            for markers in [true, false] {
                let mut line = Line::new(clock_rate);
                for (time, packet) in &packets {
                    let place = middle.iter().position(|(t, _)| t == time);
                    if place.is_none_or(|n| kept >> n & 1 == 1) {
                        line.deliver(*time, packet, packet.marker && markers);
                    }
                }
                let digits: String = line.finish().iter().map(|(c, _)| *c).collect();
                assert_eq!(
                    digits,
                    if kept == 0 { "12" } else { "122" },
                    "kept {kept:07b}, markers {markers}"
                );
            }
        }
    }
}

#[test]
fn a_40_ms_digit_survives_the_loss_of_all_but_any_one_packet() {
    let packets = packets_of(&[('#', 40)], 8_000);
    for (time, packet) in &packets {
        let mut line = Line::new(8_000);
        line.deliver(*time, packet, packet.marker);
        let digits = line.finish();
        assert_eq!(digits.len(), 1);
        assert_eq!(digits[0].0, '#');
        assert!((20..=40).contains(&digits[0].1));
    }
}

#[test]
fn duplicates_and_late_copies_are_no_further_digits() {
    let packets = packets_of(&[('7', 60), ('8', 60)], 8_000);
    let mut line = Line::new(8_000);
    for (time, packet) in &packets {
        line.deliver(*time, packet, packet.marker);
        line.deliver(*time, packet, packet.marker);
    }
    // The whole first digit again, long after its end and after the second one.
    for (_, packet) in &packets[..5] {
        line.deliver(4_000, packet, packet.marker);
    }
    assert_eq!(line.finish(), [('7', 60), ('8', 60)]);
}

#[test]
fn reordered_packets_of_two_digits_give_both_once() {
    let packets = packets_of(&[('3', 60), ('4', 60)], 8_000);
    let mut order: Vec<usize> = (0..packets.len()).collect();
    order.swap(1, 2);
    order.swap(4, 5);
    order.swap(6, 7);
    let mut line = Line::new(8_000);
    for (n, &index) in order.iter().enumerate() {
        line.deliver(packets[n].0, &packets[index].1, packets[index].1.marker);
    }
    assert_eq!(line.finish(), [('3', 60), ('4', 60)]);
}

// RFC 4733 2.5.1.3: a duration beyond 0xFFFF goes on in another segment.
#[test]
fn a_long_digit_is_one_digit_at_either_clock() {
    for clock_rate in [8_000, 48_000] {
        let packets = packets_of(&[('0', 10_000)], clock_rate);
        let segments: std::collections::BTreeSet<u64> = packets.iter().map(|(_, p)| p.media_time).collect();
        assert_eq!(segments.len(), if clock_rate == 8_000 { 2 } else { 8 });
        let mut line = Line::new(clock_rate);
        for (time, packet) in &packets {
            line.deliver(*time, packet, packet.marker);
        }
        assert_eq!(line.finish(), [('0', 10_000)], "{clock_rate} Hz");
    }
}

#[test]
fn a_digit_whose_end_is_lost_ends_by_itself() {
    let packets = packets_of(&[('6', 200)], 8_000);
    let mut line = Line::new(8_000);
    for (time, packet) in &packets[..5] {
        line.deliver(*time, packet, packet.marker);
    }
    assert_eq!(line.events, [DtmfEvent::Started { digit: digit('6') }]);
    assert!(line.receiver.is_active());
    let due = line.receiver.poll_timeout().unwrap();
    assert_eq!(due, line.now(packets[4].0) + Duration::from_millis(160));
    assert_eq!(line.finish(), [('6', 100)]);
}

#[test]
fn other_events_and_short_payloads_are_refused_and_counted() {
    let mut receiver = DtmfReceiver::new(8_000);
    let now = Instant::now();
    assert_eq!(receiver.receive(now, 0, true, &[16, 10, 0, 160]), Err(Refused::UnknownEvent(16)));
    assert_eq!(receiver.receive(now, 0, true, &[1, 10, 0]), Err(Refused::Short));
    assert_eq!((receiver.refused(), receiver.poll_event(), receiver.is_active()), (2, None, false));
}

#[test]
fn durations_convert_between_clocks() {
    assert_eq!(convert_ticks(160, 8_000, 48_000), 960);
    assert_eq!(convert_ticks(960, 48_000, 8_000), 160);
    assert_eq!(convert_ticks(3, 48_000, 8_000), 1);
    assert_eq!(convert_ticks(u32::MAX, 8_000, 48_000), u32::MAX);
    assert_eq!(convert_ticks(1, 0, 8_000), 0);
}

proptest! {
    #[test]
    fn anything_received_pairs_starts_with_ends(
        packets in prop::collection::vec((0u64..400_000, any::<u32>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..8)), 0..200),
        near in any::<bool>(),
    ) {
        let mut receiver = DtmfReceiver::new(8_000);
        let mut now = Instant::now();
        let (mut starts, mut ends) = (0, 0);
        for (step, timestamp, marker, mut payload) in packets {
            now += Duration::from_micros(step);
            if near && let Some(first) = payload.first_mut() { *first %= 17; }
            let timestamp = if near { timestamp % 16 * 160 } else { timestamp };
            let _ = receiver.receive(now, timestamp, marker, &payload);
            while let Some(event) = receiver.poll_event() {
                match event { DtmfEvent::Started { .. } => starts += 1, DtmfEvent::Ended { .. } => ends += 1 }
            }
            prop_assert_eq!(starts - ends, i32::from(receiver.is_active()));
        }
    }
}
