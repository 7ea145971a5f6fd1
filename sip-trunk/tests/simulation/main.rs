//! Endpoints against each other and against hand-written peers on a virtual network.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub
)]

mod between_trunks;
mod calls;
mod dialogs;
mod flows;
mod identity;
mod model;
mod net;
mod numbers;
mod profiles;
mod raw;
mod redirect;
mod registration;
mod reliable;
mod reliable_in;
mod replaces;
mod resilience;
mod secure;
mod tcp;
mod transactions;
mod transfer;
mod web;
