use std::fmt;

use super::{Challenge, Credentials, Input, Qop, digest, parse_challenges, user_hash};
use crate::text::quote;

/// Most realms that one call or registration has credentials for.
const REALMS_MAX: usize = 4;
/// Most challenges that one request answers, stale ones included.
const ANSWERS_MAX: u8 = 4;

/// Says why a challenge is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No challenge has a scheme, algorithm and protection that we speak.
    #[error("no supported challenge")]
    NoSupportedChallenge,
    /// The credentials are for another realm.
    #[error("the credentials are for another realm")]
    RealmMismatch,
    /// Our credentials were refused (RFC 3261 22.2: they must not be sent again).
    #[error("the credentials were refused")]
    Refused,
    /// More realms than anybody needs.
    #[error("too many realms")]
    TooManyRealms,
}

/// Writes the value of an Authorization or Proxy-Authorization header (RFC 7616 3.4).
/// `nonce_count` is 1 for the first use of the nonce; `cnonce` is random and not empty.
pub fn respond(
    credentials: &Credentials,
    challenge: &Challenge,
    method: &str,
    uri: &str,
    body: &[u8],
    nonce_count: u32,
    cnonce: &str,
) -> String {
    let count = format!("{nonce_count:08x}");
    let response = digest(&Input {
        algorithm: challenge.algorithm,
        qop: challenge.qop,
        key: &user_hash(challenge.algorithm, &credentials.username, &challenge.realm, &credentials.password),
        nonce: &challenge.nonce,
        nonce_count: &count,
        cnonce,
        method,
        uri,
        body,
    });
    let mut value = format!(
        "Digest username={}, realm={}, nonce={}, uri={}, response=\"{response}\", algorithm={}",
        quote(&credentials.username),
        quote(&challenge.realm),
        quote(&challenge.nonce),
        quote(uri),
        challenge.algorithm.as_str(),
    );
    if challenge.qop != Qop::None || challenge.algorithm.is_session() {
        value.push_str(&format!(", cnonce={}", quote(cnonce)));
    }
    match challenge.qop {
        Qop::None => {}
        Qop::Auth => value.push_str(&format!(", qop=auth, nc={count}")),
        Qop::AuthInt => value.push_str(&format!(", qop=auth-int, nc={count}")),
    }
    if let Some(opaque) = &challenge.opaque {
        value.push_str(&format!(", opaque={}", quote(opaque)));
    }
    value
}

/// The credentials of one user agent client, for a call or a registration: remembers the challenge
/// of each realm and counts the uses of its nonce.
#[derive(Clone)]
pub struct ClientAuth {
    credentials: Credentials,
    realms: Vec<Realm>,
}

#[derive(Clone)]
struct Realm {
    proxy: bool,
    challenge: Challenge,
    nonce_count: u32,
    /// The first cnonce: a session algorithm hashes it into its key (RFC 7616 3.4.2).
    cnonce: Option<String>,
}

impl ClientAuth {
    /// Begins without any challenge.
    pub fn new(credentials: Credentials) -> Self {
        Self { credentials, realms: Vec::new() }
    }

    /// Takes the challenges of a 401 or 407, which may both be in one response. `answered` is how
    /// many challenges the same request went through before, 0 at the first.
    ///
    /// # Errors
    /// The request has failed and is not to be sent again (RFC 3261 22.2).
    pub fn challenged<'a>(
        &mut self,
        www: impl IntoIterator<Item = &'a str>,
        proxy: impl IntoIterator<Item = &'a str>,
        answered: u8,
    ) -> Result<(), AuthError> {
        let challenges: Vec<(bool, Challenge)> = parse_challenges(www)
            .into_iter()
            .map(|c| (false, c))
            .chain(parse_challenges(proxy).into_iter().map(|c| (true, c)))
            .collect();
        if challenges.is_empty() {
            return Err(AuthError::NoSupportedChallenge);
        }
        if answered >= ANSWERS_MAX {
            return Err(AuthError::Refused);
        }
        let mut fresh: Vec<(bool, Challenge)> = Vec::new();
        for (proxy, challenge) in challenges {
            let ours = self.credentials.realm.as_ref().is_none_or(|realm| *realm == challenge.realm);
            // The first of a realm is the strongest.
            let taken = fresh.iter().any(|(p, c)| *p == proxy && c.realm == challenge.realm);
            if ours && !taken {
                fresh.push((proxy, challenge));
            }
        }
        if fresh.is_empty() {
            return Err(AuthError::RealmMismatch);
        }
        for (proxy, challenge) in fresh {
            let same = |r: &Realm| r.proxy == proxy && r.challenge.realm == challenge.realm;
            let known = self.realms.iter().position(same);
            let realm = Realm { proxy, challenge, nonce_count: 0, cnonce: None };
            match known {
                Some(_) if answered > 0 && !realm.challenge.stale => return Err(AuthError::Refused),
                Some(index) => self.realms[index] = realm,
                None if self.realms.len() >= REALMS_MAX => return Err(AuthError::TooManyRealms),
                None => self.realms.push(realm),
            }
        }
        Ok(())
    }

    /// Returns the header fields for the next request; none before the first challenge. Counts a
    /// use of each nonce, so it is called once for each request that is sent, but not for ACK,
    /// which repeats the fields of its INVITE (RFC 3261 22.1).
    pub fn headers(
        &mut self,
        method: &str,
        uri: &str,
        body: &[u8],
        cnonce: &str,
    ) -> Vec<(&'static str, String)> {
        let credentials = &self.credentials;
        self.realms
            .iter_mut()
            .map(|realm| {
                realm.nonce_count = realm.nonce_count.saturating_add(1);
                let cnonce = if realm.challenge.algorithm.is_session() {
                    realm.cnonce.get_or_insert_with(|| cnonce.to_owned()).as_str()
                } else {
                    cnonce
                };
                let count = realm.nonce_count;
                let name = if realm.proxy { "Proxy-Authorization" } else { "Authorization" };
                (name, respond(credentials, &realm.challenge, method, uri, body, count, cnonce))
            })
            .collect()
    }
}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAuth").field("realms", &self.realms.len()).finish_non_exhaustive()
    }
}
