//! Causeway's node in the overlay.
//!
//! [`identity`], [`record`], [`routing`] and [`calling`] are pure: bytes, time and seeds come in as arguments.
//! [`node`] is the only part with sockets.
#![forbid(unsafe_code)]

pub mod calling;
mod cbor;
pub mod identity;
pub mod node;
pub mod record;
pub mod routing;
pub mod testing;
