//! Endpoints against each other and against hand-written peers on a virtual network.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub
)]

mod accounts;
mod authentication;
mod between_trunks;
mod calls;
mod descriptions;
mod dialogs;
mod digits;
mod dtls;
mod emergency;
mod fax;
mod flows;
mod identity;
mod model;
mod net;
mod numbers;
mod overload;
mod profiles;
mod publish;
mod quality;
mod raw;
mod redirect;
mod registrar;
mod registration;
mod reliable;
mod reliable_in;
mod replaces;
mod resilience;
mod secure;
mod sessions;
mod targets;
mod tcp;
mod tls;
mod transactions;
mod transfer;
mod web;
