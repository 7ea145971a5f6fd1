//! Nodes of the overlay against each other over real sockets on loopback.
#![allow(missing_docs, clippy::unwrap_used)]

mod attacks;
mod calls;
mod clients;
mod faults;
mod late_relay;
mod life;
mod mute;
mod presence;
mod renewal;
mod revocations;
mod round_trips;
mod support;
