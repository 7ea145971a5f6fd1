//! The words about a call that every crate of Causeway uses: ids, numbers, handles, the media of
//! a leg, Q.850 causes, decision reasons and redacted personal data.
//!
//! Nothing here knows a protocol. The crate depends on the standard library alone, reads no clock
//! and draws no random number: both come in as arguments.
#![forbid(unsafe_code)]

mod address;
mod cause;
mod decision;
mod dtls;
mod dtmf;
mod id;
mod image;
mod ladder;
mod media;
mod pii;
mod presence;
mod quality;
mod srtp;
mod text;

pub use address::{Address, AddressError, Caller, Handle, Number};
pub use cause::Cause;
pub use decision::{Decision, Gate, Outcome, Verdict};
pub use dtls::{DtlsParameters, DtlsRole, Fingerprint, FingerprintHash};
pub use dtmf::{DigitFilter, DigitPath};
pub use id::{CallId, IdError, Side, TrunkName};
pub use image::{ImageAttributes, ImageMedia};
pub use ladder::{Actor, Exchange, Protocol};
pub use media::{Codec, Direction, DtmfDigit, LegMedia, MediaSecurity, TelephoneEvent};
pub use pii::{Pii, set_redaction};
pub use presence::Availability;
pub use quality::{CallAudio, Impairment, LegQuality, LossBursts, Rating, RemoteQuality};
pub use srtp::{SrtpKey, SrtpKeys, SrtpSuite};
pub use text::printable;
