//! Bytes from and to the network: limits, repairs, framing and the view of a message.

mod fields;
pub mod framer;
pub mod limits;
pub(crate) mod message;
pub(crate) mod plain;
pub mod tolerance;
pub(crate) mod write;

#[cfg(test)]
mod torture_tests;
