//! What is said in every call: recorded speech without its pauses, encoded once for both kinds of leg.

use std::sync::Arc;

use anyhow::{Result, ensure};
use tests::lab::{self, Speech as Language};
use transcoder::codec::g711::Law;
use transcoder::codec::opus::{Encoder, EncoderConfig, MAX_PACKET};

/// Samples of 20 ms at 8 kHz.
const FRAME: usize = 160;

/// Packets of 20 ms, to be sent over and over.
pub(crate) type Payloads = Arc<Vec<Vec<u8>>>;

/// What an end is to hear, as shares of a packet every 20 ms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Hearing {
    /// Least and most packets.
    pub(crate) received: (f64, f64),
    /// Packets with speech in them, at least.
    pub(crate) voiced: f64,
}

impl Hearing {
    /// A packet every 20 ms within 2 %, four fifths of them speech.
    pub(crate) const STEADY: Self = Self { received: (0.98, 1.02), voiced: 0.8 };
}

/// The same speech for both legs.
#[derive(Debug, Clone)]
pub(crate) struct Speech {
    /// A-law, 160 octets a packet.
    pub(crate) alaw: Payloads,
    /// Opus at 24 kbit/s in narrow band, as a softphone sends it to someone who plays 8 kHz.
    pub(crate) opus: Payloads,
    /// What the telephone side is to hear, and what the overlay is.
    pub(crate) hearing: (Hearing, Hearing),
}

impl Speech {
    /// How long it is.
    pub(crate) fn seconds(&self) -> f64 {
        self.alaw.len() as f64 * 0.02
    }
}

/// Reads the speech and leaves out every frame that a detector of silence might leave out.
pub(crate) fn active() -> Result<Speech> {
    let audio = lab::speech(Language::English)?;
    ensure!(audio.rate == 8_000, "the speech has {} samples a second", audio.rate);
    let loud = audio.rms() / 4.0;
    let frames: Vec<Vec<i16>> = audio
        .samples
        .chunks_exact(FRAME)
        .filter(|frame| rms(frame) > loud)
        .map(|frame| frame.iter().map(|sample| (sample * 32_767.0) as i16).collect())
        .collect();
    ensure!(frames.len() > 100, "no speech");
    let mut alaw = Vec::new();
    let mut opus = Vec::new();
    let mut encoder = Encoder::new(&EncoderConfig::for_rate(8_000))?;
    for frame in &frames {
        let mut codes = vec![0; FRAME];
        Law::A.encode_into(frame, &mut codes);
        alaw.push(codes);
        let mut packet = vec![0; MAX_PACKET];
        let length = encoder.encode(frame, &mut packet)?;
        packet.truncate(length);
        opus.push(packet);
    }
    let hearing = (Hearing::STEADY, Hearing::STEADY);
    Ok(Speech { alaw: Arc::new(alaw), opus: Arc::new(opus), hearing })
}

/// Packets of a turn of a conversation, of which one side speaks 45 %, then the other.
const TURN: usize = 200;
/// The same in seconds.
pub(crate) const TURN_SECONDS: u64 = 4;
const SPOKEN: usize = 90;
/// In silence an encoder says every 400 ms that there is some.
const SILENCE_REPEAT: usize = 20;
/// A line at rest: the smallest steps of A-law in turns, -66 dBov.
const REST: [u8; 2] = [0xd5, 0x55];

/// Makes a conversation of that speech: both sides take turns, and each is silent meanwhile, as people are. The overlay
/// sends nothing in its pauses but what says so.
pub(crate) fn conversation(speech: &Speech) -> Speech {
    let turns = (speech.alaw.len() / SPOKEN).max(1);
    let (mut alaw, mut opus) = (Vec::new(), Vec::new());
    for slot in 0..turns * TURN {
        let (turn, at) = (slot / TURN, slot % TURN);
        let spoken = |at: usize| (turn * SPOKEN + at) % speech.alaw.len();
        alaw.push(match at {
            0..SPOKEN => speech.alaw[spoken(at)].clone(),
            _ => REST.into_iter().cycle().take(FRAME).collect(),
        });
        // The other side begins when half of the turn is over.
        let at = (at + TURN / 2) % TURN;
        opus.push(match at {
            0..SPOKEN => speech.opus[spoken(at)].clone(),
            at if (at - SPOKEN).is_multiple_of(SILENCE_REPEAT) => vec![speech.opus[0][0] & !3],
            _ => Vec::new(),
        });
    }
    let share = SPOKEN as f64 / TURN as f64;
    let voiced = share * Hearing::STEADY.voiced;
    let hearing = (
        Hearing { voiced, ..Hearing::STEADY },
        // Some frames more than are spoken: a detector of silence waits before it says that there is some.
        Hearing { received: (share * 0.98, share * 1.5), voiced },
    );
    Speech { alaw: Arc::new(alaw), opus: Arc::new(opus), hearing }
}

fn rms(frame: &[f32]) -> f64 {
    let sum: f64 = frame.iter().map(|&sample| f64::from(sample).powi(2)).sum();
    (sum / frame.len() as f64).sqrt()
}
