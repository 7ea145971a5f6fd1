//! What is agreed on with the trunk, and the band between the legs, which follows from it: wide where the trunk speaks
//! G.722, narrow else.

use std::time::Instant;

use call_model::{Codec, LegMedia};

use super::edge::TrunkEncoder;
use super::{Bridge, BridgeConfig, Passing};
use crate::codec::CodecError;
use crate::codec::opus::{Bandwidth, Decoder, Encoder, EncoderConfig};
use crate::error::MediaError;
use crate::stream::coding::{Coding, NARROW, WIDE};
use crate::stream::passage::Passage;

/// Bit/s that Opus takes in wide band beside those of narrow band.
const WIDEBAND_BITRATE: u32 = 12_000;

/// What one band takes that the other does not, made before anything is changed.
struct Band {
    sample_rate: u32,
    decoder: Decoder,
    config: EncoderConfig,
    encoder: Encoder,
}

/// Returns how Opus is encoded towards the overlay, of PCM at a rate. What lies above what the user plays is bits thrown
/// away (RFC 7587 6.1).
pub(super) fn encoder_config(config: &BridgeConfig, sample_rate: u32, playback_rate: u32) -> EncoderConfig {
    let heard = sample_rate.min(playback_rate);
    let (max_bandwidth, more) = if heard <= NARROW {
        (Bandwidth::Narrowband, 0)
    } else if heard < WIDE {
        (Bandwidth::Mediumband, WIDEBAND_BITRATE / 2)
    } else {
        (Bandwidth::Wideband, WIDEBAND_BITRATE)
    };
    EncoderConfig {
        sample_rate,
        bitrate: config.bitrate + more,
        complexity: config.complexity,
        fec: false,
        expected_loss_percent: 0,
        dtx: false,
        max_bandwidth,
    }
}

pub(super) fn codec_error(error: CodecError) -> MediaError {
    MediaError::Codec(error.to_string())
}

impl Bridge {
    /// Sets what was negotiated with the trunk: for early media, for the answer, and on every
    /// change after. Media flows from the first time on. On an error everything stays as it was.
    pub fn set_trunk_media(&mut self, media: &LegMedia, now: Instant) -> Result<(), MediaError> {
        let before = self.trunk.media().map(|media| media.remote_rtp);
        let coding = Coding::of(media.codec);
        let band = self.band_for(coding.map_or(NARROW, Coding::sample_rate))?;
        self.trunk.set_media(media, now)?;
        let after = self.trunk.media().map(|media| media.remote_rtp);
        if before.is_some() && before != after {
            self.trunk_in.reset();
        }
        if let Some(band) = band {
            self.set_band(band);
        }
        self.trunk_codec = media.codec;
        let voice = media.codec.clock_rate();
        let events = media.telephone_event.map_or(voice, |event| event.clock_rate);
        self.trunk_in.set_clock_rates(voice, events);
        // Who has no telephone events may send tones (ITU-T Q.24), whatever it is sent.
        let in_band = coding.is_some() && !self.trunk.has_telephone_event();
        self.trunk_in.set_in_band(in_band);
        self.trunk_out.set_in_band(in_band && self.config.in_band_digits);
        if media.also_receives.iter().any(|(_, codec)| *codec == Codec::G722) {
            self.trunk_in.expect_g722();
        }
        match coding {
            Some(coding) => {
                self.passing = None;
                self.trunk_in.set_coding(coding);
                self.trunk_out.set_media(coding, media);
            }
            None => {
                let passage = || Passing {
                    to_overlay: Passage::new(),
                    to_trunk: Passage::new(),
                    encoder: TrunkEncoder::default(),
                };
                let passing = self.passing.get_or_insert_with(|| Box::new(passage()));
                passing.to_trunk.set_event_clock_rate(events);
                self.has_passed = true;
                // What passes is not listened to.
                self.end_voiceband();
            }
        }
        self.trunk_watch.deadline = Some(now);
        self.expect_media(now);
        Ok(())
    }

    /// Holds or resumes towards the overlay user: nothing is sent to a user who holds. While either
    /// side holds, nothing is expected of either.
    pub fn set_overlay_hold(&mut self, on: bool, now: Instant) {
        self.overlay_held = on;
        self.expect_media(now);
    }

    /// Says whether either side holds the other: silence is then as it should be.
    pub(super) fn is_held(&self) -> bool {
        self.overlay_held || self.trunk.is_held()
    }

    /// Counts the time without media from now on, on the sides that had begun to count.
    fn expect_media(&mut self, now: Instant) {
        for watch in [&mut self.overlay_watch, &mut self.trunk_watch] {
            watch.deadline = watch.deadline.map(|_| now + self.config.media_timeout);
        }
    }

    /// Makes what a rate between the legs takes; `None` if it is that which there is.
    fn band_for(&self, sample_rate: u32) -> Result<Option<Band>, MediaError> {
        if sample_rate == self.sample_rate {
            return Ok(None);
        }
        let config = encoder_config(&self.config, sample_rate, self.overlay.remote_playback_rate());
        let decoder = Decoder::new(sample_rate).map_err(codec_error)?;
        let encoder = self.overlay_out.encoder_of(&config).map_err(codec_error)?;
        Ok(Some(Band { sample_rate, decoder, config, encoder }))
    }

    /// Goes on at another rate between the legs. What waits to be played stays.
    fn set_band(&mut self, band: Band) {
        self.sample_rate = band.sample_rate;
        self.overlay_in.set_decoder(band.decoder);
        self.overlay_out.set_encoder(band.encoder, &band.config);
        self.trunk_in.set_sample_rate(band.sample_rate);
        self.voiceband.set_sample_rate(band.sample_rate);
    }

    /// Encodes no wider a band than the user plays, now that this is known.
    pub(super) fn fit_playback_rate(&mut self) {
        let played = self.overlay.remote_playback_rate();
        if self.sample_rate > NARROW && played < self.sample_rate {
            let config = encoder_config(&self.config, self.sample_rate, played);
            // The settings differ from those that worked at first in bandwidth and rate only.
            if let Ok(encoder) = self.overlay_out.encoder_of(&config) {
                self.overlay_out.set_encoder(encoder, &config);
            }
        }
    }

    /// Returns the sampling rate of what passes between the legs in Hz: 16000 where the trunk speaks G.722, else 8000.
    pub fn sample_rate(&self) -> u32 {
        self.sample_rate
    }
}
