//! Causeway's node in the overlay.
//!
//! [`identity`], [`record`], [`bootstrap`], [`routing`], [`calling`], [`presence`] and [`turn`] are pure: bytes,
//! time and seeds come in as arguments. [`node`] is the only part with sockets; files are read and
//! written by [`files`], and by [`node`] for who it may join by.
#![forbid(unsafe_code)]

pub mod bootstrap;
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
