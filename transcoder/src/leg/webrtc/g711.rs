//! G.711 beside Opus on one leg (RFC 3551 4.5.14).
//!
//! The two run on clocks of 8000 and 48000 Hz, so each has a stream, an SSRC, of its own (RFC 7160 4.1):
//! jitter and sender reports have one meaning in each, and each counts its own losses. The session
//! description names the source of Opus; packets of the other say by their MID where they belong, until a
//! report shows that they were understood (RFC 8843 9.2).

use str0m::format::{Codec, CodecConfig, FormatParams};
use str0m::media::Frequency;

use crate::codec::g711::Law;

/// Payload type that is offered for telephone events at 8000 Hz.
const TELEPHONE_EVENT_PAYLOAD_TYPE: u8 = 101;

/// What both descriptions agreed on beside Opus.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AgreedG711 {
    pub(super) pcmu: Option<u8>,
    pub(super) pcma: Option<u8>,
    /// RFC 4733 2.1: events run on the clock of the voice beside them.
    pub(super) telephone_event: Option<u8>,
}

impl AgreedG711 {
    /// Reads what was agreed on, where `payload_type` finds the number of a codec with its clock.
    pub(super) fn read(payload_type: impl Fn(Codec, Frequency) -> Option<u8>) -> Self {
        let clock = Frequency::EIGHT_KHZ;
        Self {
            pcmu: payload_type(Codec::PCMU, clock),
            pcma: payload_type(Codec::PCMA, clock),
            telephone_event: payload_type(Codec::Tele, clock),
        }
    }

    pub(super) fn payload_type(&self, law: Law) -> Option<u8> {
        match law {
            Law::Mu => self.pcmu,
            Law::A => self.pcma,
        }
    }

    pub(super) fn law(&self, payload_type: u8) -> Option<Law> {
        [Law::A, Law::Mu].into_iter().find(|&law| self.payload_type(law) == Some(payload_type))
    }
}

/// Adds both laws and events on their clock to what is offered and accepted, after all that is there.
pub(super) fn configure(codecs: &mut CodecConfig) {
    codecs.enable_pcma(true, false);
    codecs.enable_pcmu(true, false);
    codecs.add_config(
        TELEPHONE_EVENT_PAYLOAD_TYPE.into(),
        None,
        Codec::Tele,
        Frequency::EIGHT_KHZ,
        None,
        FormatParams { telephone_event_max: Some(15), ..Default::default() },
    );
}
