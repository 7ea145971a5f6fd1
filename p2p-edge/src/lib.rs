//! Causeway's node in the overlay.
//!
//! [`identity`], [`record`], [`routing`], [`calling`], [`presence`] and [`turn`] are pure: bytes, time and seeds come in as arguments.
//! [`node`] is the only part with sockets, [`files`] the only one with files.
#![forbid(unsafe_code)]

pub mod calling;
mod cbor;
mod defence;
pub mod files;
mod framing;
pub mod identity;
pub mod node;
pub mod presence;
pub mod record;
pub mod routing;
pub mod testing;
pub mod turn;
