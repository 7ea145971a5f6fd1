//! Bytes from and to the network: limits, repairs, framing and the view of a message.

pub mod framer;
pub mod limits;
pub(crate) mod message;
pub mod tolerance;

#[cfg(test)]
mod torture_tests;
