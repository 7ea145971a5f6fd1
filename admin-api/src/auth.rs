use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Look.
    Read,
    /// Look, and act on calls.
    Operate,
}

/// The SHA-256 of a token, as the configuration holds it: 64 hexadecimal digits. The token itself
/// is never stored.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// Digests a token.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(***)")
    }
}

impl fmt::Display for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A token digest is 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token digest is the SHA-256 of the token in 64 hexadecimal digits")]
pub struct TokenDigestError;

impl FromStr for TokenDigest {
    type Err = TokenDigestError;

    fn from_str(text: &str) -> Result<Self, TokenDigestError> {
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(TokenDigestError);
        }
        let mut digest = [0; 32];
        for (i, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| TokenDigestError)?;
        }
        Ok(Self(digest))
    }
}

/// The tokens that open the API.
#[derive(Clone, Debug, Default)]
pub struct Tokens(Vec<(TokenDigest, Scope)>);

impl Tokens {
    /// Builds the set.
    pub fn new(tokens: Vec<(TokenDigest, Scope)>) -> Self {
        Self(tokens)
    }

    /// Returns what the bearer of an `Authorization` header may do, or `None` if no token matches.
    /// Compares digests in constant time and never stops early, so timing tells nothing.
    pub(crate) fn scope_of(&self, authorization: Option<&str>) -> Option<Scope> {
        // RFC 6750 2.1; the scheme is case-insensitive (RFC 9110 11.1).
        let (scheme, token) = authorization?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let digest = TokenDigest::of(token.trim());
        let mut found = None;
        for (known, scope) in &self.0 {
            if bool::from(known.0.ct_eq(&digest.0)) {
                found = Some(*scope);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_right_token_opens() {
        let digest: TokenDigest = TokenDigest::of("s3cret").to_string().parse().unwrap();
        let tokens = Tokens::new(vec![(digest, Scope::Operate)]);
        assert_eq!(tokens.scope_of(Some("Bearer s3cret")), Some(Scope::Operate));
        assert_eq!(tokens.scope_of(Some("bearer s3cret")), Some(Scope::Operate));
        for bad in [None, Some("Bearer s3cre"), Some("Basic s3cret"), Some("s3cret"), Some("Bearer ")] {
            assert_eq!(tokens.scope_of(bad), None, "{bad:?}");
        }
        assert_eq!(format!("{tokens:?}").matches("s3cret").count(), 0);
        assert_eq!("zz".parse::<TokenDigest>(), Err(TokenDigestError));
    }
}
