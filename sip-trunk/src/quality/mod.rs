//! The quality of a call, told to a collector: PUBLISH of the event package `vq-rtcpxr` (RFC 6035).
//!
//! [`SessionReport`] writes the body. The endpoint makes one of what it knows of a call and of what
//! [`Command::ReportQuality`](crate::Command) brings, and sends it to the [`Collector`] that the trunk's
//! configuration names. A trunk without one has nothing sent.

mod body;
mod collector;
pub(crate) mod publish;
mod session;

pub use self::body::{MediaAddress, Reported, SessionReport, StreamDescription};
pub(crate) use self::collector::check;
pub use self::collector::{Collector, CollectorError};
pub(crate) use self::session::{EndedCalls, Session};

use call_model::LegQuality;

/// The event package (RFC 6035 4.1).
pub const EVENT_PACKAGE: &str = "vq-rtcpxr";

/// The type of the body (RFC 6035 5).
pub const CONTENT_TYPE: &str = "application/vq-rtcpxr";

/// What the user of the endpoint has measured of a call, to be reported.
#[derive(Clone, Debug, PartialEq)]
pub struct QualityReport {
    /// The call is over, or goes on.
    pub reported: Reported,
    /// Wall clock at the beginning of what was measured, in milliseconds since 1970.
    pub from_unix_ms: u64,
    /// Wall clock at its end, in milliseconds since 1970.
    pub until_unix_ms: u64,
    /// What was measured of the media that the trunk sent.
    pub quality: LegQuality,
}
