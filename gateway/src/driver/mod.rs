//! All I/O of the daemon but the overlay's: the signalling loop, the SIP sockets, the media threads.

mod media;
mod resolve;
mod signalling;
mod streams;

pub use media::MediaStartError;
pub(crate) use media::{MediaEngine, PublishedCounters, Report};
pub(crate) use resolve::Asker;
pub use signalling::SipBindError;
pub(crate) use signalling::{LoopError, Request, Signalling, SipSockets};
