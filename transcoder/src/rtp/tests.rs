// Tests need some first moment; everything after it is virtual.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::rtcp::{Cname, NtpTime, Report, ReportBlock, RtcpPacket, SenderInfo};
use super::*;

#[test]
fn a_packet_with_everything_is_read() {
    let mut bytes = vec![0b1011_0010, 0x80 | 96, 0x12, 0x34, 0, 0, 0, 5, 0xde, 0xad, 0xbe, 0xef];
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 2]); // two CSRCs
    bytes.extend([0xbe, 0xde, 0, 1, 0x10, 0xaa, 0, 0]); // extension of one word
    bytes.extend([1, 2, 3, 0, 2]); // three octets, padding of two
    let packet = RtpPacket::parse(&bytes).unwrap();
    assert_eq!((packet.payload_type(), packet.marker(), packet.sequence()), (96, true, 0x1234));
    assert_eq!((packet.timestamp(), packet.ssrc()), (5, 0xdead_beef));
    assert_eq!(packet.csrcs().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(packet.extension(), Some((0xbede, &[0x10, 0xaa, 0, 0][..])));
    assert_eq!(packet.payload(), [1, 2, 3]);
}

// RFC 3550 A.1: what a header promises must be there.
#[test]
fn promises_that_are_not_kept_are_refused_by_name() {
    let header = |first: u8| [first, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let error = |bytes: &[u8]| RtpPacket::parse(bytes).unwrap_err();
    assert_eq!(error(&[]), RtpError::TooShort);
    assert_eq!(error(&header(0x80)[..11]), RtpError::TooShort);
    assert_eq!(error(&header(0x40)), RtpError::Version);
    assert_eq!(error(&header(0x81)), RtpError::Csrc);
    assert_eq!(error(&header(0x90)), RtpError::Extension);
    assert_eq!(error(&[&header(0x90)[..], &[0, 0, 0, 2, 0, 0, 0, 0]].concat()), RtpError::Extension);
    assert_eq!(error(&header(0xa0)), RtpError::Padding);
    assert_eq!(error(&[&header(0xa0)[..], &[9, 0]].concat()), RtpError::Padding);
    assert_eq!(error(&[&header(0xa0)[..], &[9, 3]].concat()), RtpError::Padding);
    assert_eq!(RtpPacket::parse(&[&header(0xa0)[..], &[9, 2]].concat()).unwrap().payload(), []);
}

#[test]
fn what_a_sender_writes_is_read_back_in_sequence() {
    let mut sender = RtpSender::new(42);
    let now = Instant::now();
    let mut out = [0; HEADER_LEN + 4];
    let mut last = None;
    for n in 0..70_000u64 {
        sender.write_header(now, 8, n == 0, n * 160, 4, &mut out).unwrap();
        let packet = RtpPacket::parse(&out).unwrap();
        assert_eq!((packet.payload_type(), packet.marker(), packet.ssrc()), (8, n == 0, sender.ssrc()));
        assert_eq!(packet.sequence(), sender.last_sequence());
        if let Some((sequence, timestamp)) = last {
            assert_eq!(packet.sequence(), u16::wrapping_add(sequence, 1));
            assert_eq!(packet.timestamp(), u32::wrapping_add(timestamp, 160));
        }
        last = Some((packet.sequence(), packet.timestamp()));
    }
    assert_eq!((sender.packets(), sender.octets()), (70_000, 280_000));
    assert_eq!(sender.write_header(now, 8, false, 0, 5, &mut out), Err(RtpError::OutputTooShort));
    assert_eq!(sender.packets(), 70_000);
    assert_ne!(RtpSender::new(1).ssrc(), RtpSender::new(2).ssrc());
    let later = now + Duration::from_millis(500);
    let info = sender.sender_info(later, NtpTime::from_elapsed(Duration::from_secs(9)), 8_000).unwrap();
    assert_eq!(info.rtp_timestamp, last.unwrap().1.wrapping_add(4_000));
    assert_eq!((info.packets, info.octets, info.ntp), (70_000, 280_000, NtpTime(9 << 32)));
}

#[test]
fn numbers_are_extended_over_wraps_in_any_order() {
    let mut unwrapper = Unwrapper::<16>::default();
    let first = unwrapper.extend(65_534);
    assert_eq!(unwrapper.extend(2), first + 4);
    assert_eq!(unwrapper.extend(65_535), first + 1);
    assert_eq!(unwrapper.peek(65_000), first - 534);
    assert_eq!(unwrapper.highest(), Some(first + 4));
    let mut wide = Unwrapper::<32>::default();
    let first = wide.extend(u32::MAX);
    assert_eq!(wide.extend(159), first + 160);
    assert_eq!(wide.extend(u32::MAX - 10), first - 10);
}

// RFC 3550 A.3: expected less received; the fraction per interval in 1/256.
#[test]
fn loss_is_reported_as_a_3_has_it() {
    let mut statistics = ReceiverStatistics::new(8_000);
    let now = Instant::now();
    assert_eq!(statistics.report_block(now), None);
    for n in (0..100u32).filter(|n| n % 4 != 1) {
        let at = now + Duration::from_millis(u64::from(n) * 20);
        statistics.receive(at, 5, 65_530u16.wrapping_add(n as u16), n * 160);
    }
    let block = statistics.report_block(now).unwrap();
    assert_eq!((block.ssrc, block.cumulative_lost, block.fraction_lost), (5, 25, 64));
    assert_eq!(block.highest_sequence, (1 << 16) + 93);
    assert_eq!((statistics.packets(), statistics.lost(), statistics.jitter_ms()), (75, 25, 0.0));
    for n in 100..200u32 {
        let at = now + Duration::from_millis(u64::from(n) * 20);
        statistics.receive(at, 5, 65_530u16.wrapping_add(n as u16), n * 160);
    }
    let block = statistics.report_block(now).unwrap();
    assert_eq!((block.cumulative_lost, block.fraction_lost), (25, 0));
}

// RFC 3550 A.8: J += (|D| - J) / 16. A constant |D| of 10 ms converges to 10 ms.
#[test]
fn jitter_converges_to_the_mean_deviation() {
    let mut statistics = ReceiverStatistics::new(8_000);
    let now = Instant::now();
    let mut reference = 0f64;
    for n in 0..400u64 {
        let late = if n % 2 == 1 { 10 } else { 0 };
        if n > 0 {
            reference += (80.0 - reference) / 16.0;
        }
        statistics.receive(now + Duration::from_millis(n * 20 + late), 5, n as u16, n as u32 * 160);
        let ticks = f64::from(statistics.jitter_ms()) * 8.0;
        assert!((ticks - reference).abs() <= 1.5, "packet {n}: {ticks} against {reference}");
    }
    assert!((statistics.jitter_ms() - 10.0).abs() < 0.3, "{}", statistics.jitter_ms());
}

// RFC 3550 A.1: two packets in a row make a restart; one stray packet does not.
#[test]
fn totals_survive_restarts_and_a_change_of_source() {
    let mut statistics = ReceiverStatistics::new(8_000);
    let now = Instant::now();
    for n in [0, 1, 3, 30_000, 4, 20_000, 20_001, 20_002] {
        statistics.receive(now, 5, n, u32::from(n) * 160);
    }
    assert_eq!((statistics.lost(), statistics.packets()), (1, 6));
    statistics.receive(now, 6, 9, 0);
    assert_eq!((statistics.ssrc(), statistics.lost(), statistics.packets()), (Some(6), 1, 7));
}

#[test]
fn a_compound_report_is_read_back() {
    let block = ReportBlock {
        ssrc: 9,
        fraction_lost: 12,
        cumulative_lost: -3,
        highest_sequence: 0x1_0002,
        jitter: 55,
        last_sr: 0x1234_5678,
        delay_since_last_sr: 65_536,
    };
    let info = SenderInfo { ntp: NtpTime(0x1122_3344_5566_7788), rtp_timestamp: 1, packets: 2, octets: 3 };
    let cname = Cname::new(7);
    let mut out = [0; 200];
    for (sender, bye) in [(Some(info), false), (None, true)] {
        let report =
            Report { ssrc: 4, sender, blocks: &[block, block], cname: cname.as_str(), metrics: None, bye };
        let len = report.write(&mut out).unwrap();
        assert!(is_rtcp(&out[..len]) && len.is_multiple_of(4));
        let packets: Vec<_> = rtcp::parse(&out[..len]).unwrap().collect();
        assert_eq!(packets.len(), 2 + usize::from(bye));
        let blocks = match packets[0] {
            RtcpPacket::SenderReport { ssrc: 4, info: read, blocks } if sender.is_some() => {
                assert_eq!(read, info);
                blocks
            }
            RtcpPacket::ReceiverReport { ssrc: 4, blocks } if sender.is_none() => blocks,
            other => panic!("{other:?}"),
        };
        assert_eq!(blocks.collect::<Vec<_>>(), [block, block]);
        assert!(
            matches!(packets[1], RtcpPacket::Description { ssrc: 4, cname: name } if name == cname.as_str().as_bytes())
        );
        assert!(!bye || matches!(packets[2], RtcpPacket::Goodbye { ssrc: Some(4) }));
        assert_eq!(report.write(&mut out[..len - 1]), Err(RtpError::OutputTooShort));
    }
}

// RFC 3550 6.5: every length of name ends in at least one zero octet on a word boundary.
#[test]
fn names_of_every_length_are_padded_right() {
    for len in 0..=255 {
        let name = "n".repeat(len);
        let report = Report { ssrc: 1, sender: None, blocks: &[], cname: &name, metrics: None, bye: false };
        let mut out = [0xff; 300];
        let written = report.write(&mut out).unwrap();
        let read = rtcp::parse(&out[..written]).unwrap().nth(1).unwrap();
        assert!(matches!(read, RtcpPacket::Description { cname, .. } if cname == name.as_bytes()), "{len}");
    }
}

#[test]
fn rtcp_that_lies_about_its_length_is_refused() {
    let error = |bytes: &[u8]| rtcp::parse(bytes).map(Iterator::count).unwrap_err();
    assert_eq!(error(&[]), RtpError::TooShort);
    assert_eq!(error(&[0x80, 203, 0, 0]), RtpError::Compound);
    assert_eq!(error(&[0x80, 201, 0, 2, 0, 0, 0, 1]), RtpError::Length);
    assert_eq!(error(&[0x81, 201, 0, 1, 0, 0, 0, 1]), RtpError::Length);
    assert_eq!(error(&[0x80, 200, 0, 1, 0, 0, 0, 1]), RtpError::Length);
    assert_eq!(error(&[0x40, 201, 0, 1, 0, 0, 0, 1]), RtpError::Version);
    assert_eq!(error(&[0xa0, 201, 0, 1, 0, 0, 0, 9]), RtpError::Padding);
    assert_eq!(error(&[0x80, 201, 0, 1, 0, 0, 0, 1, 0x81, 202, 0, 1, 0, 0, 0, 1]), RtpError::Length);
    assert!(rtcp::parse(&[0x80, 201, 0, 1, 0, 0, 0, 1]).is_ok());
}

// RFC 3550 6.4.1, figure 2: 0xb710:8000 received at A, LSR b705:2000, DLSR 0005:4000 -> 6.125 s.
#[test]
fn the_round_trip_of_figure_2() {
    let block =
        ReportBlock { last_sr: 0xb705_2000, delay_since_last_sr: 0x0005_4000, ..ReportBlock::default() };
    let now = NtpTime(0x0000_b710_8000_0000);
    assert_eq!(rtcp::round_trip(now, &block), Some(Duration::from_millis(6_125)));
    assert_eq!(rtcp::round_trip(now, &ReportBlock::default()), None);
}

#[test]
fn our_report_answers_the_far_sides() {
    let mut statistics = ReceiverStatistics::new(8_000);
    let now = Instant::now();
    statistics.receive(now, 5, 1, 0);
    statistics.handle_sender_report(now, NtpTime(0x0011_2233_4455_6677));
    let block = statistics.report_block(now + Duration::from_millis(1_500)).unwrap();
    assert_eq!((block.last_sr, block.delay_since_last_sr), (0x2233_4455, 98_304));
}

proptest! {
    #[test]
    fn no_octets_make_the_parsers_fail_otherwise_than_by_an_error(mut bytes in prop::collection::vec(any::<u8>(), 0..200), plausible in any::<bool>()) {
        if plausible && let Some(first) = bytes.first_mut() { *first = *first & 0x3f | 0x80; }
        if let Ok(packet) = RtpPacket::parse(&bytes) {
            prop_assert!(packet.payload().len() <= bytes.len() - HEADER_LEN);
            prop_assert!(packet.csrcs().count() <= 15);
            prop_assert!(packet.extension().is_none_or(|(_, contents)| contents.len() % 4 == 0));
        }
        if plausible && let Some(kind) = bytes.get_mut(1) { *kind = 200 + *kind % 8; }
        if plausible && bytes.len() >= 8 {
            let words = bytes.len() as u16 / 4 - 1;
            bytes.truncate(usize::from(words) * 4 + 4);
            bytes[2..4].copy_from_slice(&words.to_be_bytes());
        }
        if let Ok(packets) = rtcp::parse(&bytes) {
            for packet in packets {
                if let RtcpPacket::SenderReport { blocks, .. } | RtcpPacket::ReceiverReport { blocks, .. } = packet {
                    prop_assert!(blocks.count() <= 31);
                }
            }
        }
    }

    #[test]
    fn statistics_take_anything(packets in prop::collection::vec((0u64..100, 0u32..2, any::<u16>(), any::<u32>()), 0..300)) {
        let mut statistics = ReceiverStatistics::new(48_000);
        let mut now = Instant::now();
        for (step, ssrc, sequence, timestamp) in packets {
            now += Duration::from_millis(step);
            statistics.receive(now, ssrc, sequence, timestamp);
            prop_assert!(statistics.jitter_ms() >= 0.0);
            prop_assert!(statistics.report_block(now).is_some());
        }
    }
}
