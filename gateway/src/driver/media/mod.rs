//! The media of all calls: ports, sockets and worker threads.

mod idle;
mod kind;
mod lateness;
mod load;
mod places;
mod ports;
mod ratings;
mod refusals;
mod reporter;
mod session;
mod sockets;
mod turns;
mod worker;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use call_model::{CallId, Cause, Fingerprint};
use rustix::io::Errno;
use tokio::sync::mpsc;
use transcoder::{
    Bridge, BridgeConfig, DtlsIdentity, EdgeCodec, Relay, RelayConfig, WebRtcConfig, WebRtcLeg,
};

use crate::config::{Media as MediaConfig, Receive};
use crate::driver::batch::Inbox;
use crate::switch::{MediaCommand, MediaEvent};
use kind::Media;
pub(crate) use lateness::LatenessTotal;
use ports::PortPool;
pub(crate) use ratings::RatingsTotal;
pub(crate) use refusals::PublishedRefusals;
use session::Sockets;
use sockets::{LegPort, LegSockets, PortRange};
use worker::{Order, Worker};
pub(crate) use worker::{PublishedCounters, Report};

/// Ports tried for one call before it is given up: others on this host may sit on some.
const BIND_ATTEMPTS: usize = 16;
/// Legs of each range, of all threads together, whose sockets stay open for the next call. Between
/// trunks it is what a thousand calls take, so a second of the load that a gateway is built for
/// finds its sockets open, and no more descriptors and memory of the kernel than that are held idle.
const KEPT: usize = 2048;
/// And one for so many descriptors that the system allows, three of which it takes at most for both
/// ranges: most are for calls that have begun.
const DESCRIPTORS_FOR_ONE_KEPT: usize = 16;
/// Kept sockets looked at for one leg before new ones are opened: somebody may flood them all.
const KEPT_ATTEMPTS: usize = 4;

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
    /// For what strayed to sockets before they are used again.
    strays: Inbox,
    next_seed: u64,
    orders_dropped: u64,
}

/// Where a call is.
#[derive(Clone, Copy, Debug)]
struct Placed {
    worker: usize,
    ports: [LegPort; 2],
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
        let kept = kept_by_each(config.threads);
        let receive = receive(config.receive);
        let workers = (0..config.threads)
            .map(|index| {
                let complexity = config.opus_complexity;
                Worker::spawn(
                    index,
                    reports.clone(),
                    config.port_quarantine,
                    kept,
                    complexity,
                    config.thread_niceness,
                    receive,
                )
            })
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
            // They are not looked at.
            strays: Inbox::new(1, Instant::now()),
            next_seed: seed,
            orders_dropped: 0,
            config,
        })
    }

    /// Returns the fingerprint of the certificate that media is keyed with by DTLS, for session descriptions.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.identity.fingerprint()
    }

    /// Carries out a command of the switch. What can be said at once is returned.
    pub(crate) fn handle(&mut self, now: Instant, command: MediaCommand) -> Option<MediaEvent> {
        let (call, order) = match command {
            MediaCommand::Open { call, overlay_offer, playback_rate } => {
                return Some(
                    self.open(now, call, overlay_offer.as_deref(), playback_rate)
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
            MediaCommand::TrunkMedia { call, side, media, in_band_digits, source_rule } => {
                (call, Order::TrunkMedia { call, side, media, in_band_digits, source_rule })
            }
            MediaCommand::TrunkImage { call, side, image } => (call, Order::TrunkImage { call, side, image }),
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
            placed.ports.into_iter().for_each(|port| self.port_free(port));
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

    /// Takes a port back that has rested.
    pub(crate) fn port_free(&mut self, port: LegPort) {
        self.pool(port.range).give_back(port.number);
    }

    fn pool(&mut self, range: PortRange) -> &mut PortPool {
        match range {
            PortRange::Overlay => &mut self.overlay_ports,
            PortRange::Trunk => &mut self.trunk_ports,
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
        let kept: usize = self.workers.iter().map(|worker| worker.idle.len(PortRange::Trunk)).sum();
        (self.trunk_ports.free() + kept, self.trunk_ports.size())
    }

    fn open(
        &mut self,
        now: Instant,
        call: CallId,
        offer: Option<&str>,
        playback_rate: u32,
    ) -> Result<MediaEvent, (Cause, String)> {
        let worker = self.least_loaded()?;
        let sockets = self.sockets(now, worker, PortRange::Overlay)?;
        let (overlay, trunk_rtp) = (sockets.first.rtp.local, sockets.trunk.rtp.local);
        match self.bridge(now, (overlay, trunk_rtp), offer, playback_rate) {
            Ok((bridge, overlay_sdp)) => {
                self.place(call, Media::Bridge(Box::new(bridge)), sockets, worker)?;
                Ok(MediaEvent::Opened { call, trunk_rtp, overlay_sdp })
            }
            Err(refusal) => {
                self.close_sockets(sockets.first);
                self.close_sockets(sockets.trunk);
                Err(refusal)
            }
        }
    }

    fn open_relay(&mut self, now: Instant, call: CallId) -> Result<MediaEvent, (Cause, String)> {
        let worker = self.least_loaded()?;
        let sockets = self.sockets(now, worker, PortRange::Trunk)?;
        let (trunk_rtp, onward_rtp) = (sockets.trunk.rtp.local, sockets.first.rtp.local);
        let config = RelayConfig {
            trunk_rtp,
            onward_rtp,
            media_timeout: self.config.silence_timeout,
            identity: Some(self.identity.clone()),
        };
        let relay = Relay::new(&config, self.seed(), now);
        self.place(call, Media::Relay(Box::new(relay)), sockets, worker)?;
        Ok(MediaEvent::RelayOpened { call, trunk_rtp, onward_rtp })
    }

    /// Returns the thread that has the least to do, of those that keep time.
    fn least_loaded(&mut self) -> Result<usize, (Cause, String)> {
        let alive = || (0..self.workers.len()).filter(|&index| !self.workers[index].is_dead());
        if alive().next().is_none() {
            return Err((Cause::TEMPORARY_FAILURE, "no media thread is left".to_owned()));
        }
        let admits = |index: &usize| self.workers[*index].counters.load.admits();
        if let Some(least) = alive().filter(admits).min_by_key(|&index| self.load[index]) {
            return Ok(least);
        }
        let detail = "the media threads no longer keep time at the least effort of Opus; calls are taken again \
                      when they do: add processors, or let overlay users send G.711 (media.edge_codec)";
        Err((Cause::SWITCHING_EQUIPMENT_CONGESTION, detail.to_owned()))
    }

    /// Gives a call to a thread.
    fn place(
        &mut self,
        call: CallId,
        media: Media,
        sockets: Sockets,
        worker: usize,
    ) -> Result<(), (Cause, String)> {
        let ports = sockets.ports();
        let order = Order::Add { call, media, sockets: Box::new(sockets) };
        if self.workers[worker].order(order).is_err() {
            self.orders_dropped += 1;
            ports.into_iter().for_each(|port| self.port_free(port));
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
        (overlay, trunk): (SocketAddr, SocketAddr),
        offer: Option<&str>,
        playback_rate: u32,
    ) -> Result<(Bridge, String), (Cause, String)> {
        let unusable = |error: transcoder::MediaError| {
            (Cause::BEARER_CAPABILITY_NOT_AVAILABLE, format!("the overlay's media cannot be used: {error}"))
        };
        let g711 = self.config.edge_codec != EdgeCodec::Never;
        // It is not offered: a page in Chromium that takes it was not heard (docs/decisions/0011).
        let redundancy = offer.is_some();
        let config = WebRtcConfig { local: vec![overlay], ice_lite: true, g711, redundancy };
        let mut leg = WebRtcLeg::new(config, &self.identity, now).map_err(unusable)?;
        leg.set_playback_rate(playback_rate);
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
            edge: self.config.edge_codec,
            identity: Some(self.identity.clone()),
            ..BridgeConfig::new(trunk)
        };
        Ok((Bridge::new(config, leg, seed, now).map_err(unusable)?, sdp))
    }

    /// Takes the sockets of a call that goes to a thread.
    fn sockets(&mut self, now: Instant, worker: usize, first: PortRange) -> Result<Sockets, (Cause, String)> {
        let first = self.leg(now, worker, first)?;
        match self.leg(now, worker, PortRange::Trunk) {
            Ok(trunk) => Ok(Sockets { first, trunk }),
            Err(refusal) => {
                self.close_sockets(first);
                Err(refusal)
            }
        }
    }

    /// Takes sockets that the thread keeps, or opens new ones.
    fn leg(&mut self, now: Instant, worker: usize, range: PortRange) -> Result<LegSockets, (Cause, String)> {
        for _ in 0..KEPT_ATTEMPTS {
            let Some(leg) = self.workers[worker].idle.take(range) else { break };
            if leg.read_away(&mut self.strays, now) {
                return Ok(leg);
            }
            tracing::debug!(port = leg.port.number, "a media port is flooded between two calls");
            self.close_sockets(leg);
        }
        let mut bound = self.bind(range);
        // Twice, since new sockets towards a trunk take two descriptors.
        for _ in 0..2 {
            match &bound {
                Err(error) if self.close_kept(range, error.is_some()) => bound = self.bind(range),
                _ => break,
            }
        }
        bound.map_err(|error| refused(range.as_str(), error))
    }

    fn bind(&mut self, range: PortRange) -> Result<LegSockets, Option<io::Error>> {
        let (ip, dscp) = match range {
            PortRange::Overlay => (self.config.overlay_address, self.config.dscp),
            PortRange::Trunk => (self.config.trunk_address, self.config.dscp),
        };
        bind_from(self.pool(range), |number| LegSockets::bind(ip, LegPort { range, number }, dscp))
    }

    /// Closes sockets that any thread keeps, so that their port, or where `descriptors` are wanting
    /// these, go to a call. Returns whether there were any.
    fn close_kept(&mut self, range: PortRange, descriptors: bool) -> bool {
        let other = match range {
            PortRange::Overlay => PortRange::Trunk,
            PortRange::Trunk => PortRange::Overlay,
        };
        let kept = [Some(range), descriptors.then_some(other)]
            .into_iter()
            .flatten()
            .find_map(|range| self.workers.iter().find_map(|worker| worker.idle.take(range)));
        let Some(leg) = kept else { return false };
        let port = leg.port;
        drop(leg);
        self.pool(port.range).give_back_rested(port.number);
        true
    }

    fn close_sockets(&mut self, leg: LegSockets) {
        let port = leg.port;
        drop(leg);
        self.port_free(port);
    }
}

/// Returns how media can be received here.
fn receive(wanted: Receive) -> Receive {
    if wanted == Receive::IoUring
        && let Err(error) = worker::open_ring()
    {
        tracing::warn!(
            %error,
            "io_uring is refused, so media is received with recvmmsg: it wants Linux 6.1, kernel.io_uring_disabled = 0, \
             and a container that allows it; or write media.receive = \"recvmmsg\""
        );
        return Receive::Recvmmsg;
    }
    wanted
}

/// Returns how many legs of a range each thread may keep the sockets of.
fn kept_by_each(threads: usize) -> usize {
    use rustix::process::{Resource, getrlimit};
    let allowed = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| limit as usize);
    (allowed / DESCRIPTORS_FOR_ONE_KEPT).min(KEPT) / threads.max(1)
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
fn bind_from<T>(pool: &mut PortPool, bind: impl Fn(u16) -> io::Result<T>) -> Result<T, Option<io::Error>> {
    for _ in 0..BIND_ATTEMPTS {
        let port = pool.take().ok_or(None)?;
        match bind(port) {
            Ok(bound) => return Ok(bound),
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

#[cfg(test)]
mod tests;
