//! All I/O of the daemon but the overlay's: the signalling loop, the SIP sockets, the media threads.

mod batch;
mod media;
mod resolve;
mod ring;
mod signalling;
mod streams;

use std::io;
use std::net::SocketAddr;

pub use media::MediaStartError;
pub(crate) use media::{
    LatenessTotal, MediaEngine, PublishedCounters, PublishedRefusals, RatingsTotal, Report,
};
pub(crate) use resolve::Asker;
pub use signalling::SipBindError;
pub(crate) use signalling::{LoopError, Request, Signalling, SipSockets};
pub(crate) use streams::StreamSettings;
pub use streams::TlsFileError;
pub(crate) use streams::{OwnCertificate, TlsStore};

/// Marks what leaves a socket with a code point (RFC 2474), so that voice goes first where the network
/// looks at it (RFC 4594).
fn mark(socket: &socket2::Socket, address: SocketAddr, dscp: u8) -> io::Result<()> {
    // The two bits below are for congestion notification (RFC 3168).
    let class = u32::from(dscp) << 2;
    match address {
        SocketAddr::V4(_) => socket.set_tos_v4(class),
        SocketAddr::V6(_) => socket.set_tclass_v6(class),
    }
}
