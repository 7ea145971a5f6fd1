//! Loopback addresses and ports that no other test uses at the same time.
//!
//! All of 127.0.0.0/8 is this machine. Each process takes a /24 of it by its process id and hands out one address
//! after the other, so servers under test can have their well-known ports.

use std::{
    net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket},
    sync::atomic::{AtomicU32, Ordering},
};

/// Returns a loopback address not returned before in this process and not in use for SIP.
///
/// # Panics
/// When all 127.64.0.0/10 is in use.
#[must_use]
pub fn address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..1_000_000 {
        let index = NEXT.fetch_add(1, Ordering::Relaxed);
        let block = std::process::id().wrapping_add(index / 254 * 7919) % (1 << 14);
        let address = Ipv4Addr::from((127 << 24) | (64 << 16) | (block << 8) | (index % 254 + 1));
        if is_free(SocketAddrV4::new(address, 5060)) {
            return address;
        }
    }
    panic!("no free loopback address");
}

/// Returns a port of `address` free for both UDP and TCP.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn port(address: Ipv4Addr) -> u16 {
    for _ in 0..1000 {
        let Ok(socket) = UdpSocket::bind((address, 0)) else { continue };
        let Ok(local) = socket.local_addr() else { continue };
        if TcpListener::bind(local).is_ok() {
            return local.port();
        }
    }
    panic!("no free port on {address}");
}

fn is_free(address: SocketAddrV4) -> bool {
    UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn addresses_are_loopback_and_each_is_handed_out_once() {
        let all: HashSet<_> = (0..600).map(|_| address()).collect();
        assert_eq!(all.len(), 600);
        assert!(all.iter().all(Ipv4Addr::is_loopback));
    }

    #[test]
    fn an_address_in_use_is_not_handed_out() {
        let first = address();
        // The address after this one, taken by somebody else.
        let next = Ipv4Addr::from(u32::from(first) + 1);
        let _taken = UdpSocket::bind((next, 5060));
        assert_ne!(address(), next);
    }
}
