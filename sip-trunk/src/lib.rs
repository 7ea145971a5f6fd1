//! SIP towards PBXs and carriers, sans-IO.
//!
//! [`Endpoint`] is all of it: it takes datagrams, stream events, [`Command`]s and the time, and gives
//! [`Transmit`]s, [`Event`]s and its next deadline. It has no socket, no clock and no randomness of
//! its own, so every timer of RFC 3261 can be tested without waiting.
//!
//! Layers, from the network up: [`wire`] reads and repairs bytes; transactions repeat and match;
//! dialogs are calls; [`trunk`] knows whose a message is and how that trunk likes its numbers.
#![forbid(unsafe_code)]

pub mod auth;
pub mod cause;
mod dialog;
mod endpoint;
pub mod quality;
pub mod referral;
mod registrar;
pub mod sdp;
mod text;
mod transaction;
pub mod trunk;
pub mod wire;

pub use endpoint::{
    AccessList, AccessRule, Captured, Command, CommandError, ConfigError, ConnectionId, Counters, EndedBy,
    Endpoint, EndpointConfig, Event, Limits, Listener, LocalMedia, Network, NetworkError, StreamEvent,
    Timers, Transmit, Transport, UnknownSource,
};
pub use quality::{Collector, CollectorError, QualityReport, Reported, SessionReport};
pub use referral::{RedirectContact, Referral, Replaces, TransferOutcome, TransferRequest, TransferTarget};
pub use registrar::{
    AccountConfig, AccountError, AccountSecret, AccountStatus, Authentication, ContactStatus,
};
pub use trunk::certificate::{PeerIdentity, SubjectName};
pub use trunk::details::CallDetails;
pub use trunk::overload::Waited;
pub use trunk::{
    InfoDigits, LargeRequests, Outbound, RedirectPolicy, Redirects, Registration, RegistrationError,
    RegistrationState, RegistrationStatus, Reliable, Replacing, TargetState, TargetStatus, Transfers,
    TrunkConfig, TrunkState, TrunkStatus,
};
