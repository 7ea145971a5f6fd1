//! A user agent of nothing but the SIP endpoint of the daemon: it answers every call, refuses those to +99, and
//! answers the BYE. What it costs is what the trunk side of a call costs: transactions, dialog, offer and answer,
//! session timer, caller's identity. No second leg, no gates, no media, no record.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use call_model::Cause;
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use sip_trunk::{
    Command, Endpoint, EndpointConfig, Event, Listener, LocalMedia, Transmit, Transport, TrunkConfig,
};

/// As the daemon has it: from one reading of the datagrams to the next, at least.
const TURN: Duration = Duration::from_millis(2);

/// Answers the calls of `peer` that come to `address`, until it is killed.
pub(crate) fn answer(address: SocketAddrV4, peer: SocketAddrV4) -> Result<()> {
    let (own, peer) = (SocketAddr::V4(address), SocketAddr::V4(peer));
    let mut socket = UdpSocket::bind(own).with_context(|| format!("{address} cannot be bound"))?;
    // As the daemon has it: a burst must find room.
    socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20)?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut socket, Token(0), Interest::READABLE)?;
    let mut trunk = TrunkConfig::new("peer".parse()?, peer);
    (trunk.max_calls, trunk.options_interval) = (100_000, None);
    let mut config =
        EndpointConfig::new(vec![Listener { transport: Transport::Udp, local: own }], vec![trunk]);
    (config.limits.transactions, config.limits.transactions_per_source) = (400_000, 400_000);
    let mut endpoint = Endpoint::new(config, [7; 32], Instant::now(), 1_700_000_000_000)?;
    let media = LocalMedia { rtp: SocketAddr::new(own.ip(), 30_000) };
    let (mut events, mut bytes) = (Events::with_capacity(8), vec![0; 65_535]);
    loop {
        let timeout = endpoint.poll_timeout().map(|at| at.saturating_duration_since(Instant::now()));
        match poll.poll(&mut events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        let now = Instant::now();
        while let Ok((length, remote)) = socket.recv_from(&mut bytes) {
            endpoint.handle_datagram(now, own, remote, &bytes[..length]);
        }
        endpoint.handle_timeout(now);
        while let Some(event) = endpoint.poll_event() {
            // A call that has ended meanwhile cannot be answered, and needs not be.
            let _ = match event {
                Event::Incoming { call, called_user, .. } if called_user.starts_with("+99") => {
                    let cause = Cause::UNALLOCATED_NUMBER;
                    endpoint.handle_command(now, Command::Reject { call, status: 404, cause })
                }
                Event::Incoming { call, .. } => endpoint.handle_command(now, Command::Answer { call, media }),
                _ => Ok(()),
            };
        }
        while let Some(transmit) = endpoint.poll_transmit() {
            if let Transmit::Datagram { remote, bytes, .. } = transmit {
                // What the system does not take is said again.
                let _ = socket.send_to(&bytes, remote);
            }
        }
        std::thread::sleep(TURN.saturating_sub(now.elapsed()));
    }
}
