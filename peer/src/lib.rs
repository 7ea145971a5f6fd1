//! The reference overlay user: a softphone without a sound card, driven by a script.
//!
//! [`Softphone`] is the library: commands in, events out. The program `causeway-peer` speaks both
//! as JSON lines, and has one-shot forms that place or take calls and end with a telling exit code.
//!
//! ```text
//! commands -> Softphone (one task: calls, policy) <-> overlay node (p2p-edge)
//!                 |  one task per call, its own sockets and relays (`ice`), a 20 ms clock
//!                 +-> media (transcoder::Phone) <-> wav files, echo
//! ```
//! Every queue is bounded. Nothing is kept between runs but the identity files.
#![forbid(unsafe_code)]

pub mod audio;
mod call;
pub mod cli;
pub mod control;
pub mod event;
mod ice;
pub mod identity_files;
mod media;
pub mod run;
mod softphone;

pub use ice::{IceServer, IceServerError, IceTransport, MediaAddress};
pub use softphone::{
    AnswerMode, AnswerPolicy, CallOptions, Command, MAX_CALLS, Softphone, SoftphoneClosed, SoftphoneConfig,
    StartError, Starting, TransferTarget,
};
