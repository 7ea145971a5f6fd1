//! The sockets of a call's media as ICE wants them (RFC 8445): host, server-reflexive and relayed candidates.
//!
//! ```text
//! Network -- sockets, one on each address of this machine     (host candidates)
//!    |------ a question to STUN servers on each of them       (server-reflexive)
//!    +------ TurnClient: by UDP on those sockets, or by TCP
//!            or TLS where UDP goes nowhere                    (relayed)
//! ```
//! Which pair of candidates is used is worked out by the leg; what the leg sends from a relayed address is wrapped here.

mod interfaces;
mod network;
mod plan;
mod server;
mod stream;
mod turn;

pub use interfaces::MediaAddress;
pub(crate) use network::{Arrival, Network};
pub(crate) use plan::{Plan, Reach};
pub use server::{IceServer, IceServerError, IceTransport};
