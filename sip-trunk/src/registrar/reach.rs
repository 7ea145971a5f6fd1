//! Where calls to an account go: its contacts, in the order in which they are tried.

use std::cmp::Reverse;

use super::binding::{Binding, Parts};
use crate::endpoint::core::Core;
use crate::endpoint::io::{Io, Path};
use crate::wire::message::{addr_uri, uri_target};

/// A contact as a destination.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    pub(crate) uri: String,
    pub(crate) routes: Vec<String>,
    pub(crate) path: Path,
}

/// Returns the contacts of an account: those that answer first, of these the most preferred
/// (RFC 3261 16.6), of these the latest. `user` is the called user part, for those who stand for many.
pub(crate) fn contacts(core: &Core, index: usize, user: &str) -> Vec<Reach> {
    let Some(account) = core.trunks.get(index).and_then(|trunk| trunk.account.as_ref()) else {
        return Vec::new();
    };
    let mut bindings: Vec<&Binding> = account.bindings().iter().collect();
    bindings.sort_by_key(|b| Reverse((b.answers(), b.contact.q, b.refreshed)));
    let many = account.config().many_users;
    let reach = |binding: &&Binding| Reach {
        uri: uri_for(&binding.contact.uri, user, many),
        routes: binding.path.iter().map(|route| in_brackets(route)).collect(),
        path: path_to(&core.io, binding, account.config().symmetric),
    };
    bindings.iter().map(reach).collect()
}

/// RFC 6140 5.2: of a contact that stands for many, the user part is the one that is called.
fn uri_for(contact: &str, user: &str, many: bool) -> String {
    match Parts::of(contact) {
        Some(parts) if (many || parts.parameter("bnc").is_some()) && !user.is_empty() => {
            parts.with_user(user, "bnc")
        }
        _ => contact.to_owned(),
    }
}

fn in_brackets(route: &str) -> String {
    if route.contains('<') { route.to_owned() } else { format!("<{route}>") }
}

/// Finds the way to a contact: over its connection (RFC 5626 5.3), to the first proxy of its path, back
/// to where it came from if that is how the account is reached, or to what it names.
pub(super) fn path_to(io: &Io, binding: &Binding, symmetric: bool) -> Path {
    let flow = binding.flow;
    if flow.transport.is_reliable() || binding.outbound {
        return flow;
    }
    let uri = match binding.path.first() {
        Some(route) => addr_uri(route).unwrap_or(route),
        None if symmetric => return flow,
        None => &binding.contact.uri,
    };
    let Some(target) = uri_target(uri) else { return flow };
    let Some(address) = target.address.filter(|a| !a.is_unspecified() && !a.is_multicast()) else {
        return flow;
    };
    let transport = target.transport.unwrap_or(flow.transport);
    // RFC 7118 5.2.2: nobody is called by WebSocket but over the connection it opened.
    if transport.is_web() {
        return flow;
    }
    let remote = std::net::SocketAddr::new(address, target.port.unwrap_or(transport.default_port()));
    io.path(transport, remote, Some(flow.local)).unwrap_or(flow)
}

/// Escapes what may not stand in a user part (RFC 3261 25.1).
pub(crate) fn escaped_user(user: &str) -> String {
    let mut out = String::with_capacity(user.len());
    for byte in user.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
