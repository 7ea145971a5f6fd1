//! What presence costs, measured: many users in virtual time, every byte as it is encoded, beside
//! what SIP and XMPP would send for the same behaviour.

mod behaviour;
mod model;
mod stanzas;
mod world;

pub use behaviour::{Happened, MeasureError, Measured, Scenario, measure};
pub use model::{Model, Predicted};
pub use stanzas::{Contacts, Others, Sizes};
pub use world::{Authority, Tally, Traffic, Way, World, total, trusted};
