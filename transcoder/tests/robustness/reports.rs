//! RTCP of the trunk leg: SR, RR, SDES, BYE (RFC 3550 6) and VoIP metrics (RFC 3611 4.7), sent and read.

use std::time::Duration;

use call_model::Side;
use transcoder::leg::rtp::Refusal;
use transcoder::rtp::rtcp::{self, NtpTime, Report, ReportBlock, RtcpPacket};
use transcoder::rtp::{GMIN, JitterAdaptation, LossConcealment, RtpPacket, VoipMetrics};

use crate::common::address;
use crate::common::call::{Call, GATEWAY_RTCP, Options, TRUNK_RTCP};
use crate::common::signal::{mean_tone_share, tone};
use crate::{SECOND, last};

fn call(seed: u64) -> Call {
    let mut call = Call::with_trunk(&Options { seed, ..Options::default() });
    call.phone_source = Box::new(tone(440.0, 8000.0));
    call.pbx.source = Box::new(tone(1000.0, 8000.0));
    call
}

/// The VoIP metrics of a compound packet.
fn metrics_of(compound: &[u8]) -> Option<VoipMetrics> {
    rtcp::parse(compound).unwrap().find_map(|packet| match packet {
        RtcpPacket::ExtendedReport { mut voip, .. } => voip.next(),
        _ => None,
    })
}

/// Our source towards the trunk, as its packets show it.
fn our_source(call: &mut Call) -> u32 {
    call.pbx.kept = Some(Vec::new());
    call.run(SECOND / 10);
    let kept = call.pbx.kept.take().unwrap();
    RtpPacket::parse(&kept[0]).unwrap().ssrc()
}

fn answer(call: &mut Call, report: &Report<'_>) {
    let mut out = [0; 400];
    let length = report.write(&mut out).unwrap();
    call.deliver(call.net.now, address(TRUNK_RTCP), address(GATEWAY_RTCP), &out[..length]);
}

// RFC 3611 4.7: what the trunk is told of its stream is what was done to it.
#[test]
fn f24_voip_metrics_tell_the_trunk_of_its_stream() {
    let mut call = call(4);
    call.run(2 * SECOND);
    // Every 100 packets three in a row are lost, and one alone: 4 %, of which three quarters lie in bursts.
    let mut n = 0;
    call.pbx.mangle = Some(Box::new(move |packet| {
        n += 1;
        if [10, 11, 12, 60].contains(&(n % 100)) { Vec::new() } else { vec![(Duration::ZERO, packet)] }
    }));
    call.run(60 * SECOND);
    let metrics = metrics_of(call.pbx.rtcp.last().unwrap()).unwrap();
    assert_eq!(Some(metrics.ssrc), call.bridge.trunk_source());
    assert!((9..=11).contains(&metrics.loss_rate), "4 % is 10/256: {metrics:?}");
    assert_eq!((metrics.discard_rate, metrics.gmin), (0, GMIN));
    assert_eq!((metrics.burst_density, metrics.burst_duration_ms), (255, 60), "{metrics:?}");
    assert!((2..=4).contains(&metrics.gap_density), "1 in 97: {metrics:?}");
    assert!((1_800..=2_100).contains(&metrics.gap_duration_ms), "{metrics:?}");
    assert!(metrics.r_factor.is_some_and(|r| (70..90).contains(&r)), "{metrics:?}");
    assert!(metrics.mos_lq.is_some_and(|mos| (37..44).contains(&mos)) && metrics.mos_cq <= metrics.mos_lq);
    assert_eq!(metrics.concealment, LossConcealment::Enhanced);
    assert_eq!(metrics.adaptation, JitterAdaptation::Adaptive);
    assert!((20..=60).contains(&metrics.jitter_buffer_ms) && metrics.jitter_buffer_limit_ms == 200);
    // A tone of amplitude 8000 has -15.3 dBov, and 0 dBm0 lies 6.15 dB below full scale.
    assert!(metrics.signal_level_dbm0.is_none_or(|level| (-11..=-7).contains(&level)), "{metrics:?}");
    let quality = call.bridge.quality(Side::Trunk);
    let rating = quality.rating.unwrap();
    assert!((rating.r_factor - f32::from(metrics.r_factor.unwrap())).abs() < 3.0, "{rating:?}");
}

// RFC 3550 6.1: the parts of a compound packet, in their order; the last says farewell.
#[test]
fn f24_reports_have_their_parts_in_order_and_the_last_says_bye() {
    let mut call = call(5);
    call.run(12 * SECOND);
    let mut out = Vec::new();
    call.bridge.stop(call.net.now, &mut |packet| {
        if packet.side == Side::Trunk {
            out = packet.bytes.to_vec();
        }
    });
    let parts: Vec<u8> = rtcp::parse(&out)
        .unwrap()
        .map(|packet| match packet {
            RtcpPacket::SenderReport { .. } => 200,
            RtcpPacket::Description { .. } => 202,
            RtcpPacket::Goodbye { .. } => 203,
            RtcpPacket::ExtendedReport { .. } => 207,
            _ => 0,
        })
        .collect();
    assert_eq!(parts, [200, 202, 207, 203]);
    // What was measured is there for the record.
    assert_eq!(metrics_of(&out).unwrap().loss_rate, 0);
    assert!(call.bridge.quality(Side::Trunk).rating.is_some_and(|rating| rating.r_factor > 90.0));
}

#[test]
fn f24_what_the_trunk_reports_is_read_into_the_figures() {
    let mut call = call(6);
    call.run(7 * SECOND);
    assert_eq!(call.bridge.quality(Side::Trunk).remote, None);
    let ssrc = our_source(&mut call);
    // RFC 3550 6.4.1: the report of ours that it answers, and how long ago it came.
    let count = call.pbx.rtcp.len();
    while call.pbx.rtcp.len() == count {
        call.run(SECOND / 50);
    }
    let ours = call.pbx.rtcp.last().unwrap().clone();
    let Some(RtcpPacket::SenderReport { info, .. }) = rtcp::parse(&ours).unwrap().next() else { panic!() };
    let block = ReportBlock {
        ssrc,
        fraction_lost: 13,
        jitter: 80,
        last_sr: info.ntp.middle(),
        delay_since_last_sr: 0,
        ..ReportBlock::default()
    };
    let metrics = VoipMetrics {
        ssrc,
        loss_rate: 26,
        discard_rate: 51,
        r_factor: Some(60),
        mos_cq: Some(31),
        end_system_delay_ms: 80,
        ..VoipMetrics::default()
    };
    let report = Report { ssrc: 9, sender: None, blocks: &[block], cname: "x", metrics: None, bye: false };
    answer(&mut call, &report);
    let remote = call.bridge.quality(Side::Trunk).remote.unwrap();
    assert!((remote.loss_percent - 5.08).abs() < 0.1 && remote.jitter_ms == 10.0, "{remote:?}");
    let quality = call.bridge.quality(Side::Trunk);
    assert!(quality.round_trip_ms.is_some_and(|ms| ms < 30.0), "{quality:?}");
    answer(&mut call, &Report { metrics: Some(&metrics), ..report });
    let remote = call.bridge.quality(Side::Trunk).remote.unwrap();
    assert!((remote.loss_percent - 10.2).abs() < 0.1 && (remote.discard_percent - 19.9).abs() < 0.1);
    let rating = remote.rating.unwrap();
    assert_eq!((rating.r_factor, rating.mos), (60.0, 3.1));
    assert_eq!(rating.cause, Some(call_model::Impairment::JitterDiscard));
    // Of another's stream: not ours to count.
    let other = VoipMetrics { ssrc: ssrc ^ 1, r_factor: Some(5), ..metrics };
    answer(&mut call, &Report { metrics: Some(&other), blocks: &[], ..report });
    assert_eq!(call.bridge.quality(Side::Trunk).remote.unwrap().rating, Some(rating));
}

// RFC 3550 6.6: signalling ends a call, not RTCP; RFC 3611 3: blocks of unknown types are passed over.
#[test]
fn f24_a_bye_and_reports_that_cannot_be_read_end_nothing() {
    let mut call = call(7);
    call.run(3 * SECOND);
    let source = call.bridge.trunk_source().unwrap();
    let report = Report { ssrc: source, sender: None, blocks: &[], cname: "x", metrics: None, bye: true };
    answer(&mut call, &report);
    assert_eq!(call.bridge.trunk_counters().byes, 1);
    answer(&mut call, &Report { ssrc: source ^ 1, ..report });
    assert_eq!(call.bridge.trunk_counters().byes, 1, "of a source that is not heard");
    let before = call.bridge.trunk_counters().refused_for(Refusal::MalformedRtcp);
    let xr = |body: &[u8]| {
        let mut bytes = vec![0x80, 207, 0, (body.len() / 4 + 1) as u8, 0, 0, 0, 9];
        bytes.extend(body);
        bytes
    };
    for (packet, refused) in [
        // An unknown block, one of VoIP metrics without content, and one that is longer than its packet.
        (xr(&[99, 0, 0, 1, 1, 2, 3, 4]), 0),
        (xr(&[7, 0, 0, 0]), 0),
        (xr(&[7, 0, 0, 8, 0, 0, 0, 1]), 0),
        (vec![0x80, 207, 0, 0], 1),
        (vec![0x80, 207, 0, 9, 0, 0, 0, 1], 1),
    ] {
        let count = |call: &Call| call.bridge.trunk_counters().refused_for(Refusal::MalformedRtcp);
        let before = count(&call);
        call.deliver(call.net.now, address(TRUNK_RTCP), address(GATEWAY_RTCP), &packet);
        assert_eq!(count(&call) - before, refused, "{packet:?}");
    }
    assert_eq!(call.bridge.trunk_counters().refused_for(Refusal::MalformedRtcp), before + 2);
    call.run(2 * SECOND);
    assert!(mean_tone_share(last(&call.phone_heard, 8_000), 1000.0, 8000.0) > 0.98);
    assert_eq!(call.bridge.quality(Side::Trunk).remote, None);
}

// RFC 3550 6.5.1, RFC 7022 4.2: the name is of one call, and says nothing of who or where.
#[test]
fn f24_the_canonical_name_carries_no_private_data() {
    let mut names = Vec::new();
    for seed in 10..14 {
        let mut call = call(seed);
        // A peer that never reports anything is heard and told all the same.
        call.run(12 * SECOND);
        assert!(!call.pbx.rtcp.is_empty());
        assert_eq!(call.bridge.trunk_counters().rtcp_received, 0);
        for compound in &call.pbx.rtcp {
            let name = rtcp::parse(compound).unwrap().find_map(|packet| match packet {
                RtcpPacket::Description { cname, .. } => Some(cname.to_vec()),
                _ => None,
            });
            let name = String::from_utf8(name.unwrap()).unwrap();
            assert!(name.len() == 24 && name.bytes().all(|c| c.is_ascii_hexdigit()), "{name}");
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    assert_eq!(names.len(), 4, "one for each call");
    assert_eq!(NtpTime::from_elapsed(SECOND).middle(), 65_536);
}
