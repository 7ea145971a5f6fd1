//! Everything that happens to a voice packet between two sockets, sans-IO.
//!
//! Nothing here opens a socket, starts a thread, reads a clock or draws a random number: time and
//! seeds come in as arguments, packets go out through callbacks. `unsafe` is confined to
//! [`codec`], which calls libopus.
#![deny(unsafe_code)]

pub mod codec;
pub mod dtmf;
pub mod order;
pub mod quality;
pub mod rtp;
mod seed;
