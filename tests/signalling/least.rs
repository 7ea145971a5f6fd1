//! The least that a user agent can do for an INVITE that it refuses: one socket, one thread, and an answer made by
//! copying lines. It keeps no transaction, reads no field and tells nobody. What it costs is the system's work for
//! three datagrams, and below that nothing gets.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context as _, Result};

/// The lines of a request that its response repeats (RFC 3261 8.2.6.2).
const REPEATED: [&str; 5] = ["Via:", "From:", "To:", "Call-ID:", "CSeq:"];

/// Refuses every INVITE that comes to `address`, until it is killed.
pub(crate) fn refuse(address: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind(address).with_context(|| format!("{address} cannot be bound"))?;
    let mut bytes = [0; 65_535];
    let mut answer = String::new();
    loop {
        let (length, remote) = socket.recv_from(&mut bytes)?;
        let Ok(request) = std::str::from_utf8(&bytes[..length]) else { continue };
        if answer_to(request, &mut answer) {
            socket.send_to(answer.as_bytes(), remote)?;
        }
    }
}

/// Writes the 404 to a request, if it is an INVITE.
fn answer_to(request: &str, answer: &mut String) -> bool {
    if !request.starts_with("INVITE ") {
        return false;
    }
    answer.clear();
    answer.push_str("SIP/2.0 404 Not Found\r\n");
    for line in request.split("\r\n").take_while(|line| !line.is_empty()) {
        if REPEATED.iter().any(|name| line.starts_with(name)) {
            answer.push_str(line);
            answer.push_str(if line.starts_with("To:") { ";tag=least\r\n" } else { "\r\n" });
        }
    }
    answer.push_str("Content-Length: 0\r\n\r\n");
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invite_is_refused_and_nothing_else_answered() {
        let mut answer = String::new();
        let head = "Via: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bK1\r\nTo: <sip:a@b>\r\nCSeq: 1 INVITE\r\n";
        assert!(answer_to(&format!("INVITE sip:a@b SIP/2.0\r\n{head}X: y\r\n\r\nTo: body\r\n"), &mut answer));
        assert_eq!(
            answer,
            "SIP/2.0 404 Not Found\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bK1\r\n\
             To: <sip:a@b>;tag=least\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
        );
        assert!(!answer_to(&format!("ACK sip:a@b SIP/2.0\r\n{head}\r\n"), &mut answer));
    }
}
