//! The telephone side: answers every call at once and lets the generator speak in it.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use call_model::{CallId, Codec};
use sip_trunk::{
    Command, Endpoint, EndpointConfig, Event, Listener, LocalMedia, Transmit, Transport, TrunkConfig,
};

use crate::generator::{End, Generator, Kind, bind_pair};
use crate::speech::{Hearing, Payloads, Speech};

/// A PBX made of the product's own SIP endpoint, in a thread.
#[derive(Debug)]
pub(crate) struct Pbx {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Calls with media that have not ended.
    calls: AtomicUsize,
}

impl Pbx {
    /// Starts it on port 5060 of `address`.
    pub(crate) fn start(
        address: Ipv4Addr,
        gateway: SocketAddrV4,
        generator: Generator,
        speech: &Speech,
        kind: Kind,
    ) -> Result<Self> {
        let local = SocketAddr::from((address, 5060));
        let socket = UdpSocket::bind(local)?;
        let trunk = TrunkConfig {
            codecs: vec![codec_of(kind)],
            ..TrunkConfig::new("gateway".parse()?, gateway.into())
        };
        let config = EndpointConfig::new(vec![Listener { transport: Transport::Udp, local }], vec![trunk]);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH)?;
        // The seed makes tags of dialogs unpredictable to strangers; on loopback there are none.
        let endpoint = Endpoint::new(config, [1; 32], Instant::now(), unix.as_millis() as u64)?;
        let shared = Arc::new(Shared::default());
        let mut exchange = Exchange {
            socket,
            local,
            endpoint,
            generator,
            kind,
            speech: Arc::clone(if kind == Kind::Alaw { &speech.alaw } else { &speech.opus }),
            hearing: speech.hearing.0,
            calls: HashMap::new(),
            shared: Arc::clone(&shared),
        };
        let run = move || {
            if let Err(error) = exchange.run() {
                eprintln!("causeway-bench: PBX: {error:#}");
            }
        };
        let thread = thread::Builder::new().name("pbx".to_owned()).spawn(run)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Calls that have media now.
    pub(crate) fn calls(&self) -> usize {
        self.shared.calls.load(Ordering::Relaxed)
    }
}

impl Drop for Pbx {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn codec_of(kind: Kind) -> Codec {
    match kind {
        Kind::Alaw | Kind::EdgeAlaw => Codec::Pcma,
        Kind::Opus | Kind::WebRtc => Codec::Opus,
    }
}

/// The sockets of a call. That for RTP goes to the generator; nobody reads that for RTCP.
struct Sockets {
    rtp: Option<UdpSocket>,
    _rtcp: UdpSocket,
}

struct Exchange {
    socket: UdpSocket,
    local: SocketAddr,
    endpoint: Endpoint,
    generator: Generator,
    kind: Kind,
    speech: Payloads,
    hearing: Hearing,
    calls: HashMap<CallId, Sockets>,
    shared: Arc<Shared>,
}

impl Exchange {
    fn run(&mut self) -> Result<()> {
        let mut buffer = [0; 8_192];
        while !self.shared.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            self.endpoint.handle_timeout(now);
            while let Some(event) = self.endpoint.poll_event() {
                self.on_event(now, event)?;
            }
            while let Some(transmit) = self.endpoint.poll_transmit() {
                if let Transmit::Datagram { remote, bytes, .. } = transmit {
                    self.socket.send_to(&bytes, remote)?;
                }
            }
            let due = self.endpoint.poll_timeout().map(|at| at.saturating_duration_since(Instant::now()));
            let wait =
                due.unwrap_or(Duration::MAX).clamp(Duration::from_millis(1), Duration::from_millis(100));
            self.socket.set_read_timeout(Some(wait))?;
            if let Ok((length, remote)) = self.socket.recv_from(&mut buffer) {
                self.endpoint.handle_datagram(Instant::now(), self.local, remote, &buffer[..length]);
            }
        }
        Ok(())
    }

    fn on_event(&mut self, now: Instant, event: Event) -> Result<()> {
        match event {
            Event::Incoming { call, .. } => {
                let SocketAddr::V4(local) = self.local else { unreachable!("bound to IPv4") };
                let (rtp, rtcp) = bind_pair(*local.ip())?;
                let media = LocalMedia { rtp: rtp.local_addr()? };
                self.calls.insert(call, Sockets { rtp: Some(rtp), _rtcp: rtcp });
                self.endpoint.handle_command(now, Command::Answer { call, media })?;
            }
            Event::Media { call, media, .. } => {
                let sockets = self.calls.get_mut(&call).context("media of an unknown call")?;
                // The first description opens media; the gateway does not move it afterwards.
                if let Some(rtp) = sockets.rtp.take() {
                    anyhow::ensure!(media.codec == codec_of(self.kind), "{:?} was negotiated", media.codec);
                    let speech = Arc::clone(&self.speech);
                    let end = End::plain(self.kind, rtp, media.remote_rtp, speech, self.hearing)?;
                    self.generator.add(end.with_payload_type(media.send_payload_type))?;
                    self.shared.calls.fetch_add(1, Ordering::Relaxed);
                }
            }
            Event::Ended { call, .. }
                if self.calls.remove(&call).is_some_and(|sockets| sockets.rtp.is_none()) =>
            {
                self.shared.calls.fetch_sub(1, Ordering::Relaxed);
            }
            _ => {}
        }
        Ok(())
    }
}
