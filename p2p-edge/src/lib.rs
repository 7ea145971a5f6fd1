//! Causeway's node in the overlay.
//!
//! [`identity`], [`record`], [`calling`] and [`presence`] are pure: bytes, time and seeds come in as arguments.
//! [`node`] is the only part with sockets.
#![forbid(unsafe_code)]

pub mod calling;
mod cbor;
mod framing;
pub mod identity;
pub mod node;
pub mod presence;
pub mod record;
pub mod testing;
