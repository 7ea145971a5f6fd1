//! Two end users' phones without a gateway between them.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use call_model::DtmfDigit;
use transcoder::{DtlsIdentity, MediaError, Phone, PhoneConfig, PhoneEvent, WebRtcConfig, WebRtcLeg};

#[path = "common/mod.rs"]
mod common;
use common::signal::{mean_tone_share, rms, tone};
use common::{Network, address};

const ADDRESSES: [&str; 2] = ["198.51.100.7:6000", "198.51.100.8:6000"];
const TONES: [f64; 2] = [440.0, 2500.0];
const RATES: [u32; 2] = [48_000, 16_000];

struct Pair {
    net: Network,
    phones: [Phone; 2],
    sources: [Box<dyn FnMut() -> i16>; 2],
    heard: [Vec<i16>; 2],
    events: [Vec<PhoneEvent>; 2],
    frame_at: std::time::Instant,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let net = Network::new(seed);
        let leg = |at: usize| {
            let config = WebRtcConfig {
                local: vec![address(ADDRESSES[at])],
                ice_lite: false,
                ..WebRtcConfig::default()
            };
            WebRtcLeg::new(config, &DtlsIdentity::generate().unwrap(), net.now).unwrap()
        };
        let (mut caller, mut callee) = (leg(0), leg(1));
        let offer = caller.create_offer().unwrap();
        let mut caller = Phone::new(PhoneConfig::new(RATES[0]), caller, seed, net.now).unwrap();
        let answer = callee.accept_offer(&offer).unwrap();
        caller.accept_answer(&answer, net.now).unwrap();
        assert_eq!(caller.accept_answer(&answer, net.now), Err(MediaError::OutOfOrder));
        let callee = Phone::new(PhoneConfig::new(RATES[1]), callee, seed + 1, net.now).unwrap();
        Self {
            frame_at: net.now,
            net,
            phones: [caller, callee],
            sources: [
                Box::new(tone(TONES[0], f64::from(RATES[0]))),
                Box::new(tone(TONES[1], f64::from(RATES[1]))),
            ],
            heard: [Vec::new(), Vec::new()],
            events: [Vec::new(), Vec::new()],
        }
    }

    fn run(&mut self, duration: Duration) {
        let until = self.net.now + duration;
        while self.net.now < until {
            let now = self.net.now;
            let net = &mut self.net;
            while let Some(datagram) = net.due() {
                let at = ADDRESSES.iter().position(|text| address(text) == datagram.to).unwrap();
                self.phones[at].handle_datagram(
                    now,
                    datagram.to,
                    datagram.from,
                    &datagram.bytes,
                    &mut |out| {
                        net.send(out.local, out.destination, out.bytes);
                    },
                );
            }
            let frame = self.frame_at <= now;
            if frame {
                self.frame_at += Duration::from_millis(20);
            }
            for (at, phone) in self.phones.iter_mut().enumerate() {
                phone.handle_timeout(now, &mut |out| net.send(out.local, out.destination, out.bytes));
                if frame {
                    let mut samples = vec![0; phone.frame_samples()];
                    if phone.read_frame(&mut samples) {
                        self.heard[at].extend(&samples);
                    }
                    samples.fill_with(&mut self.sources[at]);
                    phone.write_frame(now, &samples, &mut |out| {
                        net.send(out.local, out.destination, out.bytes)
                    });
                }
                while let Some(event) = phone.poll_event() {
                    self.events[at].push(event);
                }
            }
            self.net.now += Duration::from_millis(1);
        }
    }

    fn last_second(&self, at: usize) -> &[i16] {
        &self.heard[at][self.heard[at].len() - RATES[at] as usize..]
    }
}

#[test]
fn two_phones_hear_each_other_in_wide_band_and_see_each_others_digits() {
    let mut pair = Pair::new(5);
    assert!(!pair.phones[0].read_frame(&mut [0; 960]));
    pair.run(Duration::from_secs(5));
    for at in 0..2 {
        assert_eq!(pair.events[at], [PhoneEvent::Connected, PhoneEvent::FirstPacket]);
        let share = mean_tone_share(pair.last_second(at), TONES[1 - at], f64::from(RATES[at]));
        assert!(share > 0.95, "{at}: {share}");
        assert!(rms(pair.last_second(at)) > 4000.0);
        assert_eq!(pair.phones[at].quality().packets_lost, 0);
    }
    for digit in "42".chars() {
        assert!(pair.phones[0].send_dtmf(DtmfDigit::from_char(digit).unwrap(), 100));
    }
    pair.run(Duration::from_secs(2));
    let digits: String = pair.events[1]
        .iter()
        .filter_map(|event| match event {
            PhoneEvent::Dtmf { digit, .. } => Some(digit.as_char()),
            _ => None,
        })
        .collect();
    assert_eq!(digits, "42");
}

#[test]
fn a_phone_on_hold_sends_nothing_and_a_phone_that_stops_says_so() {
    let mut pair = Pair::new(6);
    pair.run(Duration::from_secs(3));
    pair.phones[0].set_hold(true);
    let before = pair.phones[0].counters().sent;
    pair.run(Duration::from_secs(2));
    assert_eq!(pair.phones[0].counters().sent, before);
    assert!(rms(pair.last_second(1)) < 200.0);
    pair.phones[0].set_hold(false);
    pair.run(Duration::from_secs(2));
    assert!(mean_tone_share(pair.last_second(1), TONES[0], 16_000.0) > 0.95);

    let (now, net) = (pair.net.now, &mut pair.net);
    pair.phones[0].stop(now, &mut |out| net.send(out.local, out.destination, out.bytes));
    pair.run(Duration::from_secs(1));
    assert!(matches!(pair.events[1].last(), Some(PhoneEvent::Failed { .. })), "{:?}", pair.events[1]);
    assert!(!pair.phones[1].is_connected());
}

#[test]
fn loss_between_phones_is_mended() {
    let mut pair = Pair::new(7);
    pair.run(Duration::from_secs(2));
    pair.net.weather.loss_per_mille = 80;
    pair.net.weather.jitter = Duration::from_millis(30);
    pair.run(Duration::from_secs(10));
    for at in 0..2 {
        let quality = pair.phones[at].quality();
        assert!(quality.packets_lost > 20, "{quality:?}");
        assert!(pair.phones[at].frames_recovered() + quality.frames_concealed > 20, "{quality:?}");
        let samples = &pair.heard[at][pair.heard[at].len() - 5 * RATES[at] as usize..];
        let share = mean_tone_share(samples, TONES[1 - at], f64::from(RATES[at]));
        assert!(share > 0.6, "{at}: {share}");
    }
}

/// The first words must not be lost: however late the answer reaches the caller, media is up within
/// a few round trips of it (two of ICE, two of DTLS).
#[test]
fn media_is_up_soon_after_the_answer_arrives() {
    let mut slowest = Duration::ZERO;
    for seed in 0..40 {
        let mut net = Network::new(seed);
        net.weather.delay = Duration::from_millis(seed % 8);
        let signalling = Duration::from_millis(1 + 3 * seed);
        let leg = |at: usize| {
            let config = WebRtcConfig {
                local: vec![address(ADDRESSES[at])],
                ice_lite: false,
                ..WebRtcConfig::default()
            };
            WebRtcLeg::new(config, &DtlsIdentity::generate().unwrap(), net.now).unwrap()
        };
        let mut legs = [leg(0), leg(1)];
        let offer = legs[0].create_offer().unwrap();
        net.now += Duration::from_millis(20);
        let answer = legs[1].accept_offer(&offer).unwrap();
        let answered = net.now + signalling;
        let mut answer = Some(answer);
        let mut up = [None, None];
        let mut waiting: Vec<common::Datagram> = Vec::new();
        while up.iter().any(Option::is_none) && net.now < answered + Duration::from_secs(5) {
            let now = net.now;
            if now >= answered
                && let Some(sdp) = answer.take()
            {
                legs[0].accept_answer(&sdp).unwrap();
                for datagram in waiting.drain(..) {
                    legs[0].handle_datagram(
                        now,
                        datagram.to,
                        datagram.from,
                        &datagram.bytes,
                        &mut |from, to, bytes| {
                            net.send(from, to, bytes);
                        },
                    );
                }
            }
            while let Some(datagram) = net.due() {
                let at = ADDRESSES.iter().position(|text| address(text) == datagram.to).unwrap();
                if at == 0 && answer.is_some() {
                    waiting.push(datagram);
                    continue;
                }
                legs[at].handle_datagram(
                    now,
                    datagram.to,
                    datagram.from,
                    &datagram.bytes,
                    &mut |from, to, bytes| {
                        net.send(from, to, bytes);
                    },
                );
            }
            for (at, leg) in legs.iter_mut().enumerate() {
                if leg.poll_timeout().is_some_and(|due| due <= now) {
                    leg.handle_timeout(now, &mut |from, to, bytes| net.send(from, to, bytes));
                }
                while leg.poll_event().is_some() {}
                if leg.is_connected() && up[at].is_none() {
                    up[at] = Some(now - answered.min(now));
                }
            }
            net.now += Duration::from_millis(1);
        }
        let up = up.map(|at| at.expect("both are connected"));
        println!("seed {seed}: delay {:?} signalling {signalling:?} up {up:?}", net.weather.delay);
        slowest = slowest.max(up[0].saturating_sub(12 * net.weather.delay));
    }
    assert!(slowest < Duration::from_millis(20), "{slowest:?}");
}
