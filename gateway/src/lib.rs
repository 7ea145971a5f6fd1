//! The Causeway daemon and its command line: wiring, I/O and life cycle around the pure crates.
//!
//! [`config`] is read and checked before anything is bound; [`switch`] decides and remembers every
//! call and is pure; `driver` owns the sockets and threads; [`lifecycle`] starts and stops it all.
// Unsafe code is in two modules: `driver::batch` and `driver::ring`, which read sockets in batches.
#![deny(unsafe_code)]

pub mod cli;
pub mod config;
mod control;
mod driver;
pub mod lifecycle;
mod reload;
pub mod switch;
mod telemetry;
