//! Endpoints against each other and against hand-written peers on a virtual network.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub
)]

mod calls;
mod dialogs;
mod flows;
mod identity;
mod model;
mod net;
mod numbers;
mod profiles;
mod raw;
mod registration;
mod reliable;
mod reliable_in;
mod resilience;
mod secure;
mod tcp;
mod transactions;
mod web;
