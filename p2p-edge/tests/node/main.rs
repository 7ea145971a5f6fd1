//! Nodes of the overlay against each other over real sockets on loopback.
#![allow(missing_docs, clippy::unwrap_used)]

mod attacks;
mod bootstrap;
mod calls;
mod clients;
mod faults;
mod floods;
mod gateways;
mod late_relay;
mod liars;
mod life;
mod mute;
mod numbers;
mod presence;
mod renewal;
mod resilience;
mod revocations;
mod round_trips;
mod support;
mod turn;
