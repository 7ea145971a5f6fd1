//! The admin API: REST under `/v1` and the metrics endpoint, on a thread of its own so that they
//! answer while the daemon is under load.
//!
//! The crate knows nothing of the daemon but the [`Control`] trait, which the daemon implements:
//! handlers check and convert, then ask. Every answer but `/healthz` needs a bearer token; errors
//! are problem details (RFC 9457).
//!
//! Limits: 250 rows in a list; no resource takes a body.
#![forbid(unsafe_code)]

mod auth;
mod control;
mod error;
mod overlay;
mod server;
mod v1;

pub use auth::{Scope, TokenDigest, TokenDigestError, Tokens};
pub use control::{
    CallFilter, CallList, CallState, CallView, CauseView, Control, Cursor, DecisionView, ExchangeView,
    Health, HealthState, LadderView, LegView, PresenceView, RatingView, ReloadFailure, Reloaded, RemoteView,
    RouteTest, TargetView, TrunkView, Unavailable, WhyView,
};
pub use overlay::{OverlayView, WayView};
pub use server::{AdminServer, ServeError, serve};
