//! The sockets of a leg, and which ports they are on.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};

use crate::driver::batch::{self, BATCH, Inbox};

/// Batches read away from a kept socket before a call has it. The media thread reads what strays
/// in as it comes; where this much waits nevertheless, somebody floods the port.
const STRAY_BATCHES: usize = 8;

/// Which range of the configuration a port is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortRange {
    /// Single ports, on which RTP and RTCP go together (RFC 5761).
    Overlay,
    /// Even ports for RTP with the odd ones above for RTCP (RFC 3550 11).
    Trunk,
}

impl PortRange {
    /// How many there are; they count from nought.
    pub(super) const COUNT: usize = 2;

    pub(super) fn as_str(self) -> &'static str {
        match self {
            PortRange::Overlay => "overlay",
            PortRange::Trunk => "trunk",
        }
    }
}

/// The port of a leg: of a trunk's, the even one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LegPort {
    pub(crate) range: PortRange,
    pub(crate) number: u16,
}

impl LegPort {
    /// Returns the port whose leg a token of [`token`] is of.
    pub(super) fn of_token(token: Token) -> Self {
        let number = (token.0 % NUMBERS) as u16;
        if token.0 / NUMBERS == PortRange::Overlay as usize {
            Self { range: PortRange::Overlay, number }
        } else {
            Self { range: PortRange::Trunk, number: number & !1 }
        }
    }
}

/// How many numbers a port can have.
const NUMBERS: usize = 1 << 16;
/// How many tokens there can be.
pub(super) const TOKENS: usize = PortRange::COUNT * NUMBERS;

/// Returns what a socket is watched by. It belongs to the port and not to the call, so that it
/// can stay when the socket goes from one call to the next.
fn token(range: PortRange, local: SocketAddr) -> Token {
    Token(range as usize * NUMBERS + usize::from(local.port()))
}

/// A socket with the address it is bound to.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) socket: UdpSocket,
    pub(super) local: SocketAddr,
}

impl Bound {
    fn stamp_arrivals(&self) {
        if let Err(error) = batch::stamp_arrivals(&self.socket) {
            tracing::debug!(%error, "the kernel does not stamp datagrams");
        }
    }
}

/// The sockets of one leg.
#[derive(Debug)]
pub(super) struct LegSockets {
    pub(super) port: LegPort,
    pub(super) rtp: Bound,
    /// Towards a trunk.
    pub(super) rtcp: Option<Bound>,
    /// The media thread watches them already.
    pub(super) watched: bool,
    /// The synchronisation source that the call before was heard from on a trunk leg.
    pub(super) former_source: Option<u32>,
}

impl LegSockets {
    /// Opens the sockets of a port.
    ///
    /// # Errors
    /// What the system says, as that another program sits on the port.
    pub(super) fn bind(ip: IpAddr, port: LegPort, dscp: u8) -> io::Result<Self> {
        let bound = |number| {
            let local = SocketAddr::new(ip, number);
            Ok::<_, io::Error>(Bound { socket: udp(local, dscp)?, local })
        };
        let rtp = bound(port.number)?;
        let rtcp = match port.range {
            PortRange::Overlay => None,
            PortRange::Trunk => Some(bound(port.number + 1)?),
        };
        Ok(Self { port, rtp, rtcp, watched: false, former_source: None })
    }

    /// Has them watched, and what comes to them stamped.
    ///
    /// # Errors
    /// What the system says; they may be watched in part.
    pub(super) fn watch(&mut self, registry: &Registry) -> io::Result<()> {
        for bound in [Some(&mut self.rtp), self.rtcp.as_mut()].into_iter().flatten() {
            let token = token(self.port.range, bound.local);
            registry.register(&mut bound.socket, token, Interest::READABLE)?;
            bound.stamp_arrivals();
        }
        self.watched = true;
        Ok(())
    }

    /// Has what comes to them stamped, and them no longer watched, as somebody else receives from them.
    ///
    /// # Errors
    /// What the system says; they may be watched in part.
    pub(super) fn unwatch(&mut self, registry: &Registry) -> io::Result<()> {
        let was_watched = std::mem::take(&mut self.watched);
        for bound in [Some(&mut self.rtp), self.rtcp.as_mut()].into_iter().flatten() {
            if was_watched {
                registry.deregister(&mut bound.socket)?;
            } else {
                bound.stamp_arrivals();
            }
        }
        Ok(())
    }

    /// Returns the tokens of the socket for RTP and of that for RTCP.
    pub(super) fn tokens(&self) -> (Token, Option<Token>) {
        let token = |bound: &Bound| token(self.port.range, bound.local);
        (token(&self.rtp), self.rtcp.as_ref().map(token))
    }

    /// Returns the socket that a token is of.
    pub(super) fn socket(&self, wanted: Token) -> Option<&UdpSocket> {
        let sockets = [Some(&self.rtp), self.rtcp.as_ref()];
        let bound = sockets.into_iter().flatten().find(|bound| token(self.port.range, bound.local) == wanted);
        bound.map(|bound| &bound.socket)
    }

    /// Reads away what has come since the last call, and the errors of what that one sent. Returns
    /// false if there is no end to it: the sockets are then no good to the next call.
    pub(super) fn read_away(&self, inbox: &mut Inbox, now: Instant) -> bool {
        let mut is_empty = |bound: &Bound| {
            (0..STRAY_BATCHES)
                .any(|_| matches!(inbox.receive(&bound.socket, now), Ok(count) if count < BATCH))
        };
        is_empty(&self.rtp) && self.rtcp.as_ref().is_none_or(is_empty)
    }
}

pub(super) fn udp(address: SocketAddr, dscp: u8) -> io::Result<UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    crate::driver::mark(&socket, address, dscp)?;
    socket.bind(&address.into())?;
    Ok(UdpSocket::from_std(socket.into()))
}
