//! The softphone over a real overlay on loopback. One program, because each one that starts nodes
//! takes minutes to link.
#![allow(clippy::unwrap_used)]

mod common;
mod fallback;
mod identity;
mod join;
mod peer_to_peer;
mod presence;
mod program;
mod transfers;
