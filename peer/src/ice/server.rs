//! The servers of STUN and TURN that a softphone uses.

use std::net::SocketAddr;
use std::str::FromStr;

use super::turn::Credentials;

/// How a server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IceTransport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// TLS over TCP; the name is shown to the server.
    Tls(String),
}

impl IceTransport {
    /// Returns the name that events and logs use.
    pub fn as_str(&self) -> &'static str {
        match self {
            IceTransport::Udp => "udp",
            IceTransport::Tcp => "tcp",
            IceTransport::Tls(_) => "tls",
        }
    }
}

/// One address of a server of STUN (RFC 8489) or TURN (RFC 8656).
///
/// As text, `stun:ADDRESS:PORT`, or `turn:ADDRESS:PORT?transport=udp,USERNAME,PASSWORD` with `udp` or `tcp`, or
/// `turns:...` for TLS: RFC 7064 and 7065, with an address instead of a name, and the credentials behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceServer {
    /// How it is reached.
    pub transport: IceTransport,
    /// Where it is.
    pub address: SocketAddr,
    /// What it relays for; absent where it is asked by STUN alone.
    pub(crate) credentials: Option<Credentials>,
}

impl IceServer {
    /// A server that says how this host is seen, and relays nothing.
    #[must_use]
    pub fn stun(address: SocketAddr) -> Self {
        Self { transport: IceTransport::Udp, address, credentials: None }
    }

    /// A server that relays.
    #[must_use]
    pub fn turn(transport: IceTransport, address: SocketAddr, username: String, password: String) -> Self {
        Self { transport, address, credentials: Some(Credentials { username, password }) }
    }
}

/// Says what is wrong with the text of an [`IceServer`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IceServerError {
    /// Neither `stun:`, `turn:` nor `turns:`.
    #[error("a server begins with stun:, turn: or turns:")]
    Scheme,
    /// Not an address and a port.
    #[error("{0:?} is not ADDRESS:PORT; a name has to be resolved first")]
    Address(String),
    /// Neither `transport=udp` nor `transport=tcp`, or one that the scheme does not go with.
    #[error("{0:?} is not a transport of this server: transport=udp or transport=tcp")]
    Transport(String),
    /// TURN without user name and password.
    #[error("turn: needs ,USERNAME,PASSWORD behind it, stun: takes none")]
    Credentials,
}

impl FromStr for IceServer {
    type Err = IceServerError;

    fn from_str(text: &str) -> Result<Self, IceServerError> {
        let (uri, credentials) = match text.split_once(',') {
            Some((uri, credentials)) => (uri, Some(credentials)),
            None => (text, None),
        };
        let (scheme, rest) = uri.split_once(':').ok_or(IceServerError::Scheme)?;
        let (address, query) = match rest.split_once('?') {
            Some((address, query)) => (address, Some(query)),
            None => (rest, None),
        };
        let address = address.parse().map_err(|_| IceServerError::Address(address.to_owned()))?;
        let wrong = || IceServerError::Transport(query.unwrap_or_default().to_owned());
        let transport = match (scheme, query) {
            ("stun", None) | ("turn", None | Some("transport=udp")) => IceTransport::Udp,
            ("turn", Some("transport=tcp")) => IceTransport::Tcp,
            ("turns", None | Some("transport=tcp")) => IceTransport::Tls(String::new()),
            ("stun" | "turn" | "turns", _) => return Err(wrong()),
            _ => return Err(IceServerError::Scheme),
        };
        let credentials = match (scheme, credentials.and_then(|both| both.split_once(','))) {
            ("stun", None) if credentials.is_none() => None,
            ("turn" | "turns", Some((username, password))) => {
                Some(Credentials { username: username.to_owned(), password: password.to_owned() })
            }
            _ => return Err(IceServerError::Credentials),
        };
        Ok(Self { transport, address, credentials })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn servers_are_read_as_they_are_written() {
        let server: IceServer = "stun:192.0.2.1:3478".parse().unwrap();
        assert_eq!(server, IceServer::stun("192.0.2.1:3478".parse().unwrap()));
        let server: IceServer = "turn:[2001:db8::1]:3478?transport=tcp,1700:abc,s3,cret".parse().unwrap();
        assert_eq!(
            (server.transport, server.address),
            (IceTransport::Tcp, "[2001:db8::1]:3478".parse().unwrap())
        );
        let credentials = server.credentials.unwrap();
        assert_eq!((&credentials.username[..], &credentials.password[..]), ("1700:abc", "s3,cret"));
        assert!(!format!("{credentials:?}").contains("cret"));
        let server: IceServer = "turns:192.0.2.1:443,user,word".parse().unwrap();
        assert_eq!(server.transport, IceTransport::Tls(String::new()));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases = [
            ("", IceServerError::Scheme),
            ("http:192.0.2.1:80", IceServerError::Scheme),
            ("stun:example.org:3478", IceServerError::Address("example.org:3478".into())),
            ("turn:192.0.2.1:3478?transport=sctp,a,b", IceServerError::Transport("transport=sctp".into())),
            ("turns:192.0.2.1:443?transport=udp,a,b", IceServerError::Transport("transport=udp".into())),
            ("turn:192.0.2.1:3478", IceServerError::Credentials),
            ("turn:192.0.2.1:3478,name", IceServerError::Credentials),
            ("stun:192.0.2.1:3478,a,b", IceServerError::Credentials),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<IceServer>(), Err(error), "{text}");
        }
    }
}
