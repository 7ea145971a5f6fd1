//! Everything that happens to a voice packet between two sockets, sans-IO.
//!
//! Nothing here opens a socket, starts a thread, reads a clock or draws a random number: time and
//! seeds come in as arguments, packets go out through callbacks. `unsafe` is confined to
//! [`codec`], which calls libopus.
#![deny(unsafe_code)]

pub mod bridge;
pub mod codec;
pub mod dtmf;
pub mod edge;
pub mod error;
pub mod leg;
pub mod load;
pub mod order;
pub mod phone;
pub mod quality;
pub mod relay;
pub mod rtp;
mod seed;
pub mod srtp;
mod stream;
mod tone;

pub use bridge::{Bridge, BridgeConfig, BridgeEvent, Emit, Outgoing, Port};
pub use codec::fec::FecPolicy;
pub use edge::EdgeCodec;
pub use error::MediaError;
pub use leg::webrtc::{DtlsIdentity, LegFailure, LocalCandidate, MAX_SDP_LENGTH, WebRtcConfig, WebRtcLeg};
pub use load::{LoadControl, LoadDecision};
pub use phone::{Phone, PhoneConfig, PhoneEvent};
pub use relay::{ImageCounters, ImageRefusal, MAX_UDPTL, Relay, RelayConfig};
pub use tone::voiceband::{VoicebandDetector, VoicebandSignal};
