//! Transactions: RFC 3261 17 with the Accepted states of RFC 6026.

pub(crate) mod client;
pub(crate) mod server;
pub(crate) mod timer;
