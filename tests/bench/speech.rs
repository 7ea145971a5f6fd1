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

/// The same speech for both legs.
#[derive(Debug, Clone)]
pub(crate) struct Speech {
    /// A-law, 160 octets a packet.
    pub(crate) alaw: Payloads,
    /// Opus at 24 kbit/s in narrow band, as a softphone sends it to someone who plays 8 kHz.
    pub(crate) opus: Payloads,
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
    Ok(Speech { alaw: Arc::new(alaw), opus: Arc::new(opus) })
}

fn rms(frame: &[f32]) -> f64 {
    let sum: f64 = frame.iter().map(|&sample| f64::from(sample).powi(2)).sum();
    (sum / frame.len() as f64).sqrt()
}
