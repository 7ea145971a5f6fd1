//! RTP of a scripted peer: A-law tones out, and what came in (RFC 3550, RFC 3551, RFC 4733).

use std::{
    f64::consts::TAU,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::audio::Audio;

/// RTP of one call, in a thread of its own.
#[derive(Debug)]
pub struct Voice {
    local: SocketAddrV4,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What came in.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// Packets of A-law.
    pub packets: usize,
    /// Samples of A-law in each of them, in order.
    pub lengths: Vec<usize>,
    /// Packets whose timestamp is not where the one before ended.
    pub jumps: usize,
    /// The sound, packets put together as they came.
    pub samples: Vec<f32>,
    /// Digits and their length in samples, told apart by timestamp.
    pub digits: Vec<(char, u16)>,
    /// Payload types other than A-law.
    pub others: Vec<u8>,
    /// Sources of packets.
    pub sources: Vec<u32>,
}

impl Heard {
    /// The sound.
    #[must_use]
    pub fn audio(&self) -> Audio {
        Audio { rate: 8000, samples: self.samples.clone() }
    }

    /// The digits.
    #[must_use]
    pub fn typed(&self) -> String {
        self.digits.iter().map(|(digit, _)| *digit).collect()
    }
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    remote: Option<SocketAddrV4>,
    /// The tones sent together; none is silence.
    tones: Vec<f64>,
    packet_ms: u32,
    /// Digits still to be sent, and by which payload type.
    digits: Vec<(char, u8)>,
    heard: Heard,
    expected: Option<u32>,
    event: Option<u32>,
}

impl Voice {
    /// Opens a socket for RTP; nothing is sent yet.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn open(address: Ipv4Addr) -> Result<Self> {
        let socket = UdpSocket::bind((address, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(2)))?;
        let SocketAddr::V4(local) = socket.local_addr()? else { bail!("not IPv4") };
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name("voice".to_owned()).spawn(move || run(&socket, &theirs))?;
        Ok(Self { local, shared, thread: Some(thread) })
    }

    /// Where RTP is awaited.
    #[must_use]
    pub fn local(&self) -> SocketAddrV4 {
        self.local
    }

    /// Sends tones of these frequencies to `remote`, in packets of `packet_ms`; no frequency is silence.
    pub fn speak(&self, remote: SocketAddrV4, tones: &[f64], packet_ms: u32) {
        let mut state = self.state();
        state.remote = Some(remote);
        state.tones = tones.to_vec();
        state.packet_ms = packet_ms;
    }

    /// Sends nothing any more.
    pub fn hush(&self) {
        self.state().remote = None;
    }

    /// Sends digits as telephone events of a payload type, 100 ms each, while the tone pauses.
    pub fn press(&self, digits: &str, payload: u8) {
        self.state().digits.extend(digits.chars().map(|digit| (digit, payload)));
    }

    /// What came in so far.
    #[must_use]
    pub fn heard(&self) -> Heard {
        self.state().heard.clone()
    }

    /// Forgets what came in.
    pub fn forget(&self) {
        let mut state = self.state();
        (state.heard, state.expected) = (Heard::default(), None);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What is sent: a stream with its own numbers.
struct Sender {
    sequence: u16,
    timestamp: u32,
    due: Instant,
    /// The digit under way, its payload type and the packets of it sent.
    digit: Option<(u8, u8, u16)>,
}

/// RFC 4733 2.5.1.4: the end is sent three times.
const EVENT_PACKETS: u16 = 5;
const END_PACKETS: u16 = 3;
const SOURCE: u32 = 0x5c41_97ed;
const EVENTS: &str = "0123456789*#ABCD";

fn run(socket: &UdpSocket, shared: &Shared) {
    let mut sender = Sender { sequence: 100, timestamp: 4_000, due: Instant::now(), digit: None };
    let mut buffer = [0; 2048];
    while !shared.stop.load(Ordering::Relaxed) {
        let received = socket.recv_from(&mut buffer);
        let mut state = shared.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Ok((length, _)) = received {
            state.receive(&buffer[..length]);
        }
        let Some(remote) = state.remote else {
            sender.due = Instant::now();
            continue;
        };
        while sender.due <= Instant::now() {
            let packet = sender.next(&mut state);
            // Nobody listens any more once the call is over.
            let _ = socket.send_to(&packet, remote);
        }
    }
}

impl Sender {
    fn next(&mut self, state: &mut State) -> Vec<u8> {
        let samples = state.packet_ms * 8;
        self.due += Duration::from_millis(u64::from(state.packet_ms));
        if self.digit.is_none() && !state.digits.is_empty() {
            let (digit, payload) = state.digits.remove(0);
            self.digit = EVENTS.find(digit).map(|event| (event as u8, payload, 0));
        }
        let Some((event, payload, sent)) = self.digit else {
            let body: Vec<u8> = (0..samples).map(|n| alaw(tone(&state.tones, self.timestamp + n))).collect();
            let packet = self.packet(8, false, &body);
            self.timestamp = self.timestamp.wrapping_add(samples);
            return packet;
        };
        let duration = (sent + 1).min(EVENT_PACKETS) * samples as u16;
        let end = if sent + 1 >= EVENT_PACKETS { 0x80 } else { 0 };
        let [high, low] = duration.to_be_bytes();
        let packet = self.packet(payload, sent == 0, &[event, end | 10, high, low]);
        self.digit = Some((event, payload, sent + 1));
        if sent + 1 == EVENT_PACKETS + END_PACKETS - 1 {
            // A pause after the digit, or the next is no other to those who go by time.
            self.timestamp = self.timestamp.wrapping_add(samples * u32::from(EVENT_PACKETS + END_PACKETS));
            self.due += Duration::from_millis(60);
            self.digit = None;
        }
        packet
    }

    fn packet(&mut self, payload: u8, marker: bool, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x80, payload | if marker { 0x80 } else { 0 }];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(self.timestamp.to_be_bytes());
        packet.extend(SOURCE.to_be_bytes());
        packet.extend(body);
        self.sequence = self.sequence.wrapping_add(1);
        packet
    }
}

impl State {
    fn receive(&mut self, packet: &[u8]) {
        let word = |at: usize| {
            packet.get(at..at + 4).map(|four| u32::from_be_bytes([four[0], four[1], four[2], four[3]]))
        };
        // No extensions and no contributing sources are sent to a plain trunk.
        let (Some(timestamp), Some(source), Some([0x80, second])) = (word(4), word(8), packet.get(..2))
        else {
            return self.heard.others.push(u8::MAX);
        };
        if !self.heard.sources.contains(&source) {
            self.heard.sources.push(source);
        }
        let (payload, body) = (second & 0x7f, &packet[12..]);
        if payload == 8 {
            self.heard.jumps += usize::from(self.expected.is_some_and(|expected| expected != timestamp));
            self.expected = Some(timestamp.wrapping_add(body.len() as u32));
            self.heard.packets += 1;
            self.heard.lengths.push(body.len());
            self.heard.samples.extend(body.iter().map(|&byte| linear(byte)));
            return;
        }
        if !self.heard.others.contains(&payload) {
            self.heard.others.push(payload);
        }
        if let [event, _, high, low] = *body {
            let duration = u16::from_be_bytes([high, low]);
            let digit = EVENTS.chars().nth(usize::from(event)).unwrap_or('?');
            match self.heard.digits.last_mut() {
                Some(last) if self.event == Some(timestamp) => last.1 = last.1.max(duration),
                _ => self.heard.digits.push((digit, duration)),
            }
            self.event = Some(timestamp);
        }
    }
}

fn tone(tones: &[f64], at: u32) -> f64 {
    let sum: f64 = tones.iter().map(|hz| (TAU * hz * f64::from(at % 8000) / 8000.0).sin()).sum();
    0.5 * sum / tones.len().max(1) as f64
}

/// ITU-T G.711 A-law: sign, three bits of segment, four of place, every other bit turned over.
pub(in crate::lab) fn alaw(sample: f64) -> u8 {
    let value = (sample.clamp(-1.0, 1.0) * 4095.0) as i32;
    let (sign, size) = if value >= 0 { (0x80, value as u32) } else { (0, (-value - 1).max(0) as u32) };
    let segment = (32 - size.leading_zeros()).saturating_sub(5);
    let place = if segment < 2 { size >> 1 } else { size >> segment } & 0x0f;
    (sign | (segment << 4) as u8 | place as u8) ^ 0x55
}

fn linear(byte: u8) -> f32 {
    let byte = byte ^ 0x55;
    let (segment, place) = (u32::from(byte >> 4) & 7, u32::from(byte) & 0x0f);
    let size = if segment == 0 { 2 * place + 1 } else { (2 * place + 33) << (segment - 1) };
    let size = size as f32 / 4096.0;
    if byte & 0x80 != 0 { size } else { -size }
}

/// The socket that a description names.
///
/// # Errors
/// When its port is 0: the stream is refused.
pub fn rtp_of(media: &super::Media) -> Result<SocketAddrV4> {
    (media.port != 0).then(|| SocketAddrV4::new(media.address, media.port)).context("the stream is refused")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::audio::tone_share;

    #[test]
    fn a_law_keeps_what_it_is_given() {
        for sample in [-0.99_f64, -0.5, -0.1, -0.01, 0.0, 0.003, 0.02, 0.2, 0.7, 0.99] {
            let back = f64::from(linear(alaw(sample)));
            assert!((back - sample).abs() < sample.abs() / 16.0 + 0.001, "{sample} {back}");
        }
        // ITU-T G.711 table 1a: the largest value, and zero.
        assert_eq!((alaw(1.0), alaw(0.0)), (0xaa, 0xd5));
    }

    #[test]
    fn two_voices_hear_each_other() {
        let address = crate::lab::ports::address();
        let (one, other) = (Voice::open(address).unwrap(), Voice::open(address).unwrap());
        one.speak(other.local(), &[440.0], 30);
        thread::sleep(Duration::from_millis(400));
        one.press("5#", 100);
        let patience = Duration::from_secs(10);
        let typed = || Some(other.heard()).filter(|heard| heard.typed() == "5#");
        let before = crate::lab::until("digits", patience, typed).unwrap().samples.len();
        // The tone begins elsewhere after a digit: what came since the last is in one piece.
        let more = || Some(other.heard()).filter(|heard| heard.samples.len() >= before + 2_000);
        let heard = crate::lab::until("the tone again", patience, more).unwrap();
        assert!(heard.lengths.iter().all(|length| *length == 240));
        assert!(tone_share(&heard.samples[before..before + 2_000], 8000, 440.0) > 0.9);
        assert_eq!((heard.others.as_slice(), heard.digits[0].1), (&[100][..], 1200));
    }
}
