//! Proves that once a call is set up no packet of it allocates: a counting allocator watches the
//! jitter buffer, the codecs, concealment, DTMF and the statistics at work.
// A global allocator cannot be written without `unsafe`; this one forwards every call.
#![allow(unsafe_code, clippy::disallowed_methods)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

use call_model::DtmfDigit;
use transcoder::codec::g711::Law;
use transcoder::codec::g722;
use transcoder::codec::opus::{self, Decoder, Encoder, EncoderConfig};
use transcoder::codec::resample::Resampler;
use transcoder::codec::{ActivityDetector, ComfortNoise, Concealer};
use transcoder::dtmf::{DtmfReceiver, DtmfSender, ToneDetector, ToneSender};
use transcoder::order::{Arrival, Frame, JitterBuffer, JitterConfig, Pace, TimeScaler};
use transcoder::rtp::rtcp::{Cname, NtpTime, Report};
use transcoder::rtp::{HEADER_LEN, ReceiverStatistics, RtpPacket, RtpSender, VoipMetrics};
use transcoder::{LoadControl, VoicebandDetector};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every method forwards to the system allocator with the arguments it was given.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

#[test]
fn ten_seconds_of_a_call_allocate_nothing() -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let config =
        EncoderConfig { fec: true, expected_loss_percent: 10, dtx: true, ..EncoderConfig::default() };
    let mut encoder = Encoder::new(&config)?;
    let mut decoder = Decoder::new(8_000)?;
    let mut g711 = JitterBuffer::new(JitterConfig::g711());
    let mut overlay = JitterBuffer::new(JitterConfig::opus());
    let (mut concealer, mut noise) = (Concealer::new(), ComfortNoise::new(1));
    let mut activity = ActivityDetector::new();
    let mut scaler = TimeScaler::new(8_000);
    let mut load = LoadControl::new(5);
    let (mut dtmf_sender, mut dtmf_receiver) = (DtmfSender::new(8_000), DtmfReceiver::new(8_000));
    let mut sender = RtpSender::new(3);
    let mut statistics = ReceiverStatistics::new(8_000);
    let (cname, metrics) = (Cname::new(4), VoipMetrics::default());
    let digit = DtmfDigit::from_char('5').ok_or("a digit")?;
    let (mut packet, mut pcm, mut coded) = ([0u8; 200], [0i16; 960], [0u8; opus::MAX_PACKET]);
    let (mut played, mut digits) = (0, 0);

    let mut before = 0;
    for n in 0..600u32 {
        if n == 100 {
            // The first digit makes room for digits; nothing else does.
            before = allocations();
        }
        let now = start + Duration::from_millis(u64::from(n) * 20);
        let media_time = u64::from(n) * 160;
        if n % 100 == 50 {
            dtmf_sender.queue(digit, 100)?;
        }
        // Trunk to overlay: a packet is written, lost now and then, read, ordered, decoded, encoded.
        let event = dtmf_sender.next(media_time, 160);
        let payload_len = if let Some(event) = event {
            packet[HEADER_LEN..HEADER_LEN + 4].copy_from_slice(&event.payload);
            4
        } else {
            let wave: [i16; 160] = std::array::from_fn(|i| ((i as i16 * 37) % 100 - 50) * ((n % 80) as i16));
            Law::A.encode_into(&wave, &mut packet[HEADER_LEN..])
        };
        let payload_type = if event.is_some() { 101 } else { 8 };
        let time = event.map_or(media_time, |event| event.media_time);
        sender.write_header(
            now,
            payload_type,
            event.is_some_and(|e| e.marker),
            time,
            payload_len,
            &mut packet,
        )?;
        if n % 17 != 3 {
            let read = RtpPacket::parse(&packet[..HEADER_LEN + payload_len])?;
            statistics.receive(now, read.ssrc(), read.sequence(), read.timestamp());
            if read.payload_type() == 101 {
                dtmf_receiver.receive(now, read.timestamp(), read.marker(), read.payload())?;
                g711.mark(read.ssrc(), read.sequence());
            } else {
                let arrival = Arrival {
                    ssrc: read.ssrc(),
                    sequence: read.sequence(),
                    timestamp: read.timestamp(),
                    marker: read.marker(),
                    duration: read.payload().len() as u32,
                    silence: false,
                };
                g711.insert(now, arrival, read.payload());
            }
        }
        dtmf_receiver.handle_timeout(now);
        while dtmf_receiver.poll_event().is_some() {
            digits += 1;
        }
        let frame = &mut pcm[..160];
        match g711.pop(now, 0) {
            Frame::Packet { payload, .. } => {
                Law::A.decode_into(payload, frame);
                concealer.receive(frame);
                played += 1;
            }
            Frame::Lost { .. } => concealer.conceal(frame),
            Frame::Silence { .. } | Frame::Empty => noise.fill(frame),
        }
        activity.is_active(frame);
        noise.hear(frame);
        load.handle_turn(now, Duration::ZERO, Duration::from_millis(1));
        let mut scaled = [0; 320];
        scaled[..160].copy_from_slice(frame);
        let by = Duration::from_millis(10);
        let length =
            scaler.apply(&mut scaled, 160, if n % 2 == 0 { Pace::Shorten(by) } else { Pace::Stretch(by) });
        assert!(length <= 280);
        let len = encoder.encode(frame, &mut coded)?;
        // Overlay to trunk: ordered and decoded, with FEC or concealment for what is lost.
        if n % 13 != 5 {
            let arrival = Arrival {
                ssrc: 1,
                sequence: n as u16,
                timestamp: n * 960,
                marker: false,
                duration: opus::packet_duration(&coded[..len]).unwrap_or(0),
                silence: opus::is_dtx(&coded[..len]),
            };
            overlay.insert(now, arrival, &coded[..len]);
        }
        match overlay.pop(now, 0) {
            Frame::Packet { payload, .. } => {
                decoder.decode(payload, &mut pcm)?;
            }
            Frame::Lost { next: Some(next), .. } => {
                decoder.decode_fec(next, &mut pcm[..160])?;
            }
            _ => {
                decoder.conceal(&mut pcm[..160])?;
            }
        }
        if n % 250 == 249 {
            let block = statistics.report_block(now);
            let ntp = NtpTime::from_elapsed(now.saturating_duration_since(start));
            let report = Report {
                ssrc: sender.ssrc(),
                sender: sender.sender_info(now, ntp, 8_000),
                blocks: block.as_slice(),
                cname: cname.as_str(),
                metrics: Some(&metrics),
                bye: false,
            };
            report.write(&mut packet)?;
        }
    }
    let after = allocations();
    assert_eq!(after - before, 0, "allocations in 500 frames");
    assert!(before > 0, "the allocator counts");
    assert!(played > 500, "{played} frames played");
    assert_eq!(digits, 12, "six digits began and ended");
    assert!(scaler.shortened() > 0 && scaler.stretched() > 0, "frames were made shorter and longer");
    Ok(())
}

// A trunk of wideband: resampled, coded, decoded and resampled back.
#[test]
fn ten_seconds_of_wideband_allocate_nothing() -> Result<(), Box<dyn std::error::Error>> {
    let (mut encoder, mut decoder) = (g722::Encoder::new(), g722::Decoder::new());
    let (mut up, mut down) = (Resampler::new(8_000, 16_000)?, Resampler::new(16_000, 8_000)?);
    let (mut higher, mut lower) = (Resampler::new(16_000, 48_000)?, Resampler::new(48_000, 8_000)?);
    let (mut wide, mut full, mut narrow, mut codes) = ([0; 320], [0; 960], [0; 160], [0; 160]);
    let before = allocations();
    let mut heard = 0u64;
    for n in 0..500usize {
        let wave: [i16; 160] = std::array::from_fn(|i| ((i as i16 * 37) % 100 - 50) * ((n % 80) as i16));
        assert_eq!(up.resample(&wave, &mut wide), 320);
        assert_eq!(encoder.encode(&wide, &mut codes), 160);
        assert_eq!(decoder.decode(&codes, &mut wide), 320);
        assert_eq!(down.resample(&wide, &mut narrow), 160);
        assert_eq!(higher.resample(&wide, &mut full), 960);
        assert_eq!(lower.resample(&full, &mut narrow), 160);
        heard += narrow.iter().filter(|sample| sample.unsigned_abs() > 100).count() as u64;
    }
    assert_eq!(allocations() - before, 0, "allocations in 500 frames");
    assert!(before > 0, "the allocator counts");
    assert!(heard > 40_000, "{heard} samples heard");
    Ok(())
}

/// Not one, from the first frame on: tones made, heard and taken out, and fax signals.
#[test]
fn detectors_and_tones_allocate_nothing() -> Result<(), Box<dyn std::error::Error>> {
    let (mut sender, mut detector, mut voiceband) =
        (ToneSender::new(), ToneDetector::new(), VoicebandDetector::new());
    let digit = DtmfDigit::from_char('5').ok_or("a digit")?;
    let (mut digits, mut signals) = (0, 0);
    let before = allocations();
    for n in 0..500u32 {
        if n % 25 == 0 && n < 250 {
            sender.queue(digit, 100)?;
        }
        // Behind the digits 2100 Hz.
        let mut frame = [0i16; 160];
        if n >= 300 {
            frame = std::array::from_fn(|i| {
                let turn = 2_100.0 * (n * 160 + i as u32) as f64 / 8_000.0;
                (6_000.0 * (std::f64::consts::TAU * turn.fract()).sin()) as i16
            });
        }
        sender.fill(&mut frame);
        signals += u32::from(voiceband.process(&frame).is_some());
        detector.process(&mut frame);
        while detector.poll_digit().is_some() {
            digits += 1;
        }
    }
    assert_eq!(allocations() - before, 0);
    assert_eq!((digits, signals), (10, 1));
    Ok(())
}
