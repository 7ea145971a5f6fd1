//! Who sent a request, by its credentials (RFC 3261 22.2).

use std::net::SocketAddr;

use super::{Accounts, Realm};
use crate::auth::{Authenticated, VerifyError};
use crate::dialog::uas::Refused;
use crate::endpoint::core::Core;
use crate::wire::message::{Method, Name, Request};

/// Most credentials of one request that are looked at: more than one are for proxies on the way.
const CREDENTIALS_MAX: usize = 4;

/// Finds the account whose credentials a request carries.
///
/// # Errors
/// A challenge. An unknown user gets the same as a wrong password, after the same work.
pub(crate) fn authenticate(core: &mut Core, request: &Request, source: SocketAddr) -> Result<usize, Refused> {
    let now = core.io.now;
    let unix = core.accounts.unix(now);
    let head = &request.head;
    let domain = if request.method == Method::Register { &head.to.value } else { &head.from.value };
    let meant = core.accounts.realm_of(domain);
    let mut values = head.texts(&Name::Authorization);
    values.extend(head.texts(&Name::ProxyAuthorization));
    let asked = Authenticated {
        method: request.method.as_str(),
        uri: &request.uri,
        body: &request.body,
        unix,
        source: source.ip(),
    };
    let (mut answered, mut stale) = (meant, false);
    let mut label = None;
    for value in values.iter().take(CREDENTIALS_MAX) {
        let Some((realm, outcome, name)) = judge(&mut core.accounts, value, &asked, now) else { continue };
        answered = realm;
        let error = match outcome {
            Ok(trunk) => {
                core.accounts.guard.succeeded(realm, &name.unwrap_or_default(), source.ip());
                return Ok(trunk);
            }
            Err(error) => error,
        };
        if error.is_stale() {
            (stale, label) = (true, Some("auth_stale"));
            break;
        }
        label = Some("auth_failed");
        match name {
            Some(name) if core.accounts.guard.withholds(realm, &name, source.ip(), now) => {
                label = Some("auth_withheld");
            }
            name => {
                if let Some(event) = core.accounts.guard.failed(realm, name, source.ip(), now) {
                    core.io.counters.refuse(event);
                }
            }
        }
        break;
    }
    if let Some(label) = label {
        core.io.counters.refuse(label);
    }
    let values = match core.accounts.realms.get_mut(answered) {
        Some(realm) => realm.authenticator.challenge(unix, source.ip(), stale),
        None => Vec::new(),
    };
    Err((401, values.into_iter().map(|value| ("WWW-Authenticate", value)).collect()))
}

type Judged = (usize, Result<usize, VerifyError>, Option<String>);

/// Judges credentials in the realm they are for. `None` if that is none of ours.
fn judge(
    accounts: &mut Accounts,
    value: &str,
    asked: &Authenticated<'_>,
    now: std::time::Instant,
) -> Option<Judged> {
    let Accounts { realms, guard, .. } = accounts;
    for (index, realm) in realms.iter_mut().enumerate() {
        let Realm { authenticator, users } = realm;
        let mut name = None;
        let mut trunk = None;
        let outcome = authenticator.verify(value, asked, |user| {
            name = Some(user.to_owned());
            let known = users.get(user).filter(|_| !guard.withholds(index, user, asked.source, now));
            trunk = known.map(|(trunk, _)| *trunk);
            known.map(|(_, hashes)| hashes)
        });
        match outcome {
            Err(VerifyError::Realm) => {}
            Ok(_) => return trunk.map(|trunk| (index, Ok(trunk), name)),
            Err(error) => return Some((index, Err(error), name)),
        }
    }
    None
}
