//! The media of all calls: ports, sockets and worker threads.

mod batch;
mod kind;
mod ports;
mod session;
mod worker;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use call_model::{CallId, Cause};
use mio::net::UdpSocket;
use rustix::io::Errno;
use tokio::sync::mpsc;
use transcoder::{Bridge, BridgeConfig, DtlsIdentity, Relay, RelayConfig, WebRtcConfig, WebRtcLeg};

use crate::config::Media as MediaConfig;
use crate::switch::{MediaCommand, MediaEvent};
use kind::Media;
use ports::PortPool;
pub(crate) use session::Ports;
use session::Sockets;
use worker::{Order, Worker};
pub(crate) use worker::{PublishedCounters, Report};

/// Ports tried for one call before it is given up: others on this host may sit on some.
const BIND_ATTEMPTS: usize = 16;

/// Owns the ports and the worker threads. Lives with the signalling loop; nothing here waits.
#[derive(Debug)]
pub(crate) struct MediaEngine {
    config: MediaConfig,
    identity: DtlsIdentity,
    trunk_ports: PortPool,
    overlay_ports: PortPool,
    workers: Vec<Worker>,
    placed: HashMap<CallId, Placed>,
    /// Calls of each worker. Counted here: what the threads publish lags behind a burst.
    load: Vec<usize>,
    /// Closings that found the queue of their worker full; one at most for each call.
    closes: VecDeque<(CallId, usize)>,
    next_seed: u64,
    orders_dropped: u64,
}

/// Where a call is.
#[derive(Clone, Copy, Debug)]
struct Placed {
    worker: usize,
    ports: Ports,
}

/// The media threads could not be started.
#[derive(Debug, thiserror::Error)]
pub enum MediaStartError {
    /// No certificate for DTLS.
    #[error("media: {0}")]
    Identity(transcoder::MediaError),
    /// No thread or no poll.
    #[error("media thread: {0}")]
    Thread(io::Error),
    /// The address is not one of this host.
    #[error("{key}: {address} cannot be bound: {source}; write an address of this host")]
    Address {
        /// The key of the configuration.
        key: &'static str,
        /// The address.
        address: std::net::IpAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl MediaEngine {
    pub(crate) fn start(
        config: MediaConfig,
        seed: u64,
        reports: &mpsc::Sender<Report>,
    ) -> Result<Self, MediaStartError> {
        for (key, address) in
            [("media.trunk_address", config.trunk_address), ("media.overlay_address", config.overlay_address)]
        {
            std::net::UdpSocket::bind((address, 0)).map_err(|source| MediaStartError::Address {
                key,
                address,
                source,
            })?;
        }
        let workers = (0..config.threads)
            .map(|index| Worker::spawn(index, reports.clone(), config.port_quarantine))
            .collect::<io::Result<Vec<_>>>()
            .map_err(MediaStartError::Thread)?;
        Ok(Self {
            identity: DtlsIdentity::generate().map_err(MediaStartError::Identity)?,
            trunk_ports: PortPool::pairs(&config.trunk_ports),
            overlay_ports: PortPool::singles(&config.overlay_ports),
            load: vec![0; workers.len()],
            workers,
            placed: HashMap::new(),
            closes: VecDeque::new(),
            next_seed: seed,
            orders_dropped: 0,
            config,
        })
    }

    /// Carries out a command of the switch. What can be said at once is returned.
    pub(crate) fn handle(&mut self, now: Instant, command: MediaCommand) -> Option<MediaEvent> {
        let (call, order) = match command {
            MediaCommand::Open { call, overlay_offer } => {
                return Some(
                    self.open(now, call, overlay_offer.as_deref())
                        .unwrap_or_else(|(cause, detail)| MediaEvent::Refused { call, cause, detail }),
                );
            }
            MediaCommand::OpenRelay { call } => {
                return Some(
                    self.open_relay(now, call).unwrap_or_else(|(cause, detail)| MediaEvent::Refused {
                        call,
                        cause,
                        detail,
                    }),
                );
            }
            MediaCommand::OverlayAnswer { call, sdp } => (call, Order::OverlayAnswer { call, sdp }),
            MediaCommand::TrunkMedia { call, side, media } => (call, Order::TrunkMedia { call, side, media }),
            MediaCommand::OverlayHold { call, on } => (call, Order::OverlayHold { call, on }),
            MediaCommand::SendDtmf { call, side, digit, duration_ms } => {
                (call, Order::SendDtmf { call, side, digit, duration_ms })
            }
            MediaCommand::Close { call } => {
                self.close(call);
                return None;
            }
        };
        let worker = self.placed.get(&call).map(|placed| placed.worker);
        if let Some(worker) = worker
            && self.workers[worker].order(order).is_err()
        {
            self.orders_dropped += 1;
            // A dead thread is found by `look_after`, with all its calls.
            tracing::error!(%call, worker, "the queue of a media thread is full");
        }
        None
    }

    /// An order to close must not be lost: the call would hold its ports for ever.
    fn close(&mut self, call: CallId) {
        let Some(Placed { worker, .. }) = self.placed.remove(&call) else { return };
        self.load[worker] = self.load[worker].saturating_sub(1);
        if self.workers[worker].order(Order::Close { call }).is_err() {
            self.orders_dropped += 1;
            self.closes.push_back((call, worker));
        }
    }

    /// To be called once a second: repeats closings that found no room, and returns the calls whose
    /// thread has died.
    pub(crate) fn look_after(&mut self) -> Vec<CallId> {
        let workers = &self.workers;
        self.closes.retain(|&(call, worker)| {
            !workers[worker].is_dead() && workers[worker].order(Order::Close { call }).is_err()
        });
        let dead = |placed: &Placed| workers[placed.worker].is_dead();
        let lost: Vec<(CallId, Placed)> = self
            .placed
            .iter()
            .filter(|(_, placed)| dead(placed))
            .map(|(call, placed)| (*call, *placed))
            .collect();
        for (call, placed) in &lost {
            tracing::error!(%call, worker = placed.worker, "the media thread of a call has died");
            self.placed.remove(call);
            self.ports_free(placed.ports);
        }
        lost.into_iter().map(|(call, _)| call).collect()
    }

    /// Says whether any thread can take a call.
    pub(crate) fn has_threads(&self) -> bool {
        self.workers.iter().any(|worker| !worker.is_dead())
    }

    /// Returns how many closings wait for room in the queue of their thread.
    pub(crate) fn closes_waiting(&self) -> usize {
        self.closes.len()
    }

    /// Takes ports back that have rested.
    pub(crate) fn ports_free(&mut self, ports: Ports) {
        if let Some(port) = ports.overlay {
            self.overlay_ports.give_back(port);
        }
        for port in [Some(ports.trunk), ports.onward].into_iter().flatten() {
            self.trunk_ports.give_back(port);
        }
    }

    /// Returns the counters of every worker.
    pub(crate) fn counters(&self) -> Vec<Arc<PublishedCounters>> {
        self.workers.iter().map(|worker| Arc::clone(&worker.counters)).collect()
    }

    /// Returns how many orders found the queue of a media thread full.
    pub(crate) fn orders_dropped(&self) -> u64 {
        self.orders_dropped
    }

    /// Returns how many trunk port pairs are free, and how many there are.
    pub(crate) fn trunk_ports(&self) -> (usize, usize) {
        (self.trunk_ports.free(), self.trunk_ports.size())
    }

    fn open(
        &mut self,
        now: Instant,
        call: CallId,
        offer: Option<&str>,
    ) -> Result<MediaEvent, (Cause, String)> {
        let sockets = self.bind()?;
        let (overlay, trunk_rtp) = (sockets.locals[0], sockets.locals[1]);
        let ports = sockets.ports;
        let (bridge, overlay_sdp) =
            self.bridge(now, overlay, trunk_rtp, offer).inspect_err(|_| self.ports_free(ports))?;
        self.place(call, Media::Bridge(Box::new(bridge)), sockets)?;
        Ok(MediaEvent::Opened { call, trunk_rtp, overlay_sdp })
    }

    fn open_relay(&mut self, now: Instant, call: CallId) -> Result<MediaEvent, (Cause, String)> {
        let (trunk, [trunk_rtp, trunk_rtcp]) = self.bind_pair()?;
        let (onward, [onward_rtp, onward_rtcp]) =
            self.bind_pair().inspect_err(|_| self.trunk_ports.give_back(trunk))?;
        let ports = Ports { overlay: None, trunk, onward: Some(onward) };
        let sockets = Sockets::new(vec![onward_rtp, trunk_rtp, trunk_rtcp, onward_rtcp], ports);
        let (trunk_rtp, onward_rtp) = (sockets.locals[1], sockets.locals[0]);
        let config = RelayConfig { trunk_rtp, onward_rtp, media_timeout: self.config.silence_timeout };
        let relay = Relay::new(&config, self.seed(), now);
        self.place(call, Media::Relay(Box::new(relay)), sockets)?;
        Ok(MediaEvent::RelayOpened { call, trunk_rtp, onward_rtp })
    }

    /// Gives a call to the thread that has the least to do.
    fn place(&mut self, call: CallId, media: Media, sockets: Sockets) -> Result<(), (Cause, String)> {
        let ports = sockets.ports;
        let alive = (0..self.workers.len()).filter(|&index| !self.workers[index].is_dead());
        let Some(worker) = alive.min_by_key(|&index| self.load[index]) else {
            drop(sockets);
            self.ports_free(ports);
            return Err((Cause::TEMPORARY_FAILURE, "no media thread is left".to_owned()));
        };
        let order = Order::Add { call, media, sockets: Box::new(sockets) };
        if self.workers[worker].order(order).is_err() {
            self.orders_dropped += 1;
            self.ports_free(ports);
            let detail = "the queue of the media thread is full".to_owned();
            return Err((Cause::SWITCHING_EQUIPMENT_CONGESTION, detail));
        }
        self.load[worker] += 1;
        self.placed.insert(call, Placed { worker, ports });
        Ok(())
    }

    fn seed(&mut self) -> u64 {
        self.next_seed = self.next_seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.next_seed
    }

    fn bridge(
        &mut self,
        now: Instant,
        overlay: SocketAddr,
        trunk: SocketAddr,
        offer: Option<&str>,
    ) -> Result<(Bridge, String), (Cause, String)> {
        let unusable = |error: transcoder::MediaError| {
            (Cause::BEARER_CAPABILITY_NOT_AVAILABLE, format!("the overlay's media cannot be used: {error}"))
        };
        let config = WebRtcConfig { local: vec![overlay], ice_lite: true };
        let mut leg = WebRtcLeg::new(config, &self.identity, now).map_err(unusable)?;
        let sdp = match offer {
            Some(offer) => leg.accept_offer(offer),
            None => leg.create_offer(),
        };
        let sdp = sdp.map_err(unusable)?;
        let seed = self.seed();
        let config = BridgeConfig {
            bitrate: self.config.opus_bitrate,
            complexity: self.config.opus_complexity,
            media_timeout: self.config.silence_timeout,
            suppress_silence: self.config.suppress_silence,
            ..BridgeConfig::new(trunk)
        };
        Ok((Bridge::new(config, leg, seed, now).map_err(unusable)?, sdp))
    }

    fn bind(&mut self) -> Result<Sockets, (Cause, String)> {
        let overlay_ip = self.config.overlay_address;
        let dscp = self.config.dscp;
        let overlay = bind_from(&mut self.overlay_ports, |port| Ok([udp((overlay_ip, port).into(), dscp)?]));
        let (overlay_port, [overlay]) = overlay.map_err(|error| refused("overlay", error))?;
        let (trunk, [rtp, rtcp]) =
            self.bind_pair().inspect_err(|_| self.overlay_ports.give_back(overlay_port))?;
        let ports = Ports { overlay: Some(overlay_port), trunk, onward: None };
        let overlay = (overlay, SocketAddr::new(overlay_ip, overlay_port));
        Ok(Sockets::new(vec![overlay, rtp, rtcp], ports))
    }

    /// Takes the two ports of a leg towards a trunk.
    fn bind_pair(&mut self) -> Result<(u16, [(UdpSocket, SocketAddr); 2]), (Cause, String)> {
        let (ip, dscp) = (self.config.trunk_address, self.config.dscp);
        let bound = bind_from(&mut self.trunk_ports, |port| {
            Ok([udp((ip, port).into(), dscp)?, udp((ip, port + 1).into(), dscp)?])
        });
        let (port, [rtp, rtcp]) = bound.map_err(|error| refused("trunk", error))?;
        Ok((port, [(rtp, SocketAddr::new(ip, port)), (rtcp, SocketAddr::new(ip, port + 1))]))
    }
}

/// Says why a call finds no port, and what would help.
fn refused(which: &str, error: Option<io::Error>) -> (Cause, String) {
    match error {
        None => {
            let detail = format!("no free {which} port: widen media.{which}_ports");
            (Cause::NO_CIRCUIT_AVAILABLE, detail)
        }
        Some(error) => {
            let remedy = match Errno::from_io_error(&error) {
                Some(Errno::MFILE | Errno::NFILE) => ": raise the limit of open files",
                _ => "",
            };
            let detail = format!("no socket for the {which} leg: {error}{remedy}");
            (Cause::SWITCHING_EQUIPMENT_CONGESTION, detail)
        }
    }
}

/// Takes ports until one can be bound; those that another program sits on go to the end of the
/// pool. Fails without an error where there is no port, with one where the system gives no socket.
fn bind_from<const N: usize>(
    pool: &mut PortPool,
    bind: impl Fn(u16) -> io::Result<[UdpSocket; N]>,
) -> Result<(u16, [UdpSocket; N]), Option<io::Error>> {
    for _ in 0..BIND_ATTEMPTS {
        let port = pool.take().ok_or(None)?;
        match bind(port) {
            Ok(sockets) => return Ok((port, sockets)),
            Err(error) => {
                pool.give_back(port);
                if error.kind() != io::ErrorKind::AddrInUse {
                    return Err(Some(error));
                }
                tracing::debug!(port, %error, "media port is taken");
            }
        }
    }
    Err(None)
}

fn udp(address: SocketAddr, dscp: u8) -> io::Result<UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    super::mark(&socket, address, dscp)?;
    socket.bind(&address.into())?;
    Ok(UdpSocket::from_std(socket.into()))
}

#[cfg(test)]
mod tests;
