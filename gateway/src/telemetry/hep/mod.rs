//! What passes on trunks and how good calls were, for a collector that speaks HEP (HOMER, heplify-server and others).
//!
//! A thread of its own writes and sends. The queue to it is bounded and never waited for: what finds it full is dropped
//! and counted. Before anything goes out, what is secret is masked.

mod packet;
mod redact;
mod report;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use sip_trunk::{Captured, SessionReport, Transport};

use crate::config::Hep;
use packet::{Kind, MAX_PACKET, Packet, TCP, UDP};
use report::RtpReport;

/// Messages and reports that may wait to be sent: half a second of 1,000 calls a second.
const QUEUE: usize = 8_192;

/// What became of what was to be exported.
#[derive(Debug, Default)]
pub(crate) struct HepCounters {
    sent: AtomicU64,
    /// Found the queue full.
    dropped: AtomicU64,
    /// Would not go into a datagram.
    oversize: AtomicU64,
    /// The system refused to send: nobody listens there, or there is no way.
    failed: AtomicU64,
}

/// One thing to export.
#[derive(Debug)]
enum Item {
    Message { unix_us: u64, captured: Captured },
    Quality { unix_us: u64, report: Box<SessionReport> },
}

/// The way to the collector.
#[derive(Debug)]
pub(crate) struct Exporter {
    queue: Option<SyncSender<Item>>,
    thread: Option<thread::JoinHandle<()>>,
    counters: Arc<HepCounters>,
    /// The wall clock, in microseconds since 1970, at an instant.
    epoch: (Instant, u64),
}

impl Exporter {
    /// Starts the thread. `unix_us` is the wall clock at `now`.
    ///
    /// # Errors
    /// What the system says when there is no socket or no thread to be had.
    pub(crate) fn start(config: &Hep, now: Instant, unix_us: u64) -> io::Result<Self> {
        let any: IpAddr = match config.collector {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        // A full send buffer is a reason to drop, not to wait.
        socket.set_nonblocking(true)?;
        let (queue, inbox) = sync_channel(QUEUE);
        let counters = Arc::new(HepCounters::default());
        let (config, counts) = (config.clone(), Arc::clone(&counters));
        let thread = thread::Builder::new().name("hep".to_owned()).spawn(move || {
            run(&config, &socket, &inbox, &counts);
        })?;
        Ok(Self { queue: Some(queue), thread: Some(thread), counters, epoch: (now, unix_us) })
    }

    pub(crate) fn counters(&self) -> Arc<HepCounters> {
        Arc::clone(&self.counters)
    }

    /// Exports a message that passed.
    pub(crate) fn message(&self, captured: Captured) {
        self.send(Item::Message { unix_us: self.unix_us(captured.at), captured });
    }

    /// Exports how good a call was.
    pub(crate) fn quality(&self, now: Instant, report: Box<SessionReport>) {
        self.send(Item::Quality { unix_us: self.unix_us(now), report });
    }

    fn unix_us(&self, at: Instant) -> u64 {
        let since: Duration = at.saturating_duration_since(self.epoch.0);
        self.epoch.1.saturating_add(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    fn send(&self, item: Item) {
        let Some(queue) = &self.queue else { return };
        match queue.try_send(item) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.counters.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Exporter {
    /// Sends what waits, and ends the thread.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(config: &Hep, socket: &UdpSocket, inbox: &Receiver<Item>, counters: &HepCounters) {
    let (mut out, mut text) = (Vec::with_capacity(2_048), Vec::with_capacity(2_048));
    for item in inbox {
        write(config, &item, &mut text, &mut out, &mut |packet| {
            let counter = match packet {
                None => &counters.oversize,
                // An ICMP error of an earlier packet shows up here too; the socket is still good.
                Some(bytes) => match socket.send_to(bytes, config.collector) {
                    Ok(_) => &counters.sent,
                    Err(_) => &counters.failed,
                },
            };
            counter.fetch_add(1, Ordering::Relaxed);
        });
    }
}

/// Writes the packets of an item; `None` is one that would be too long. `text` and `out` are used over and over.
fn write(
    config: &Hep,
    item: &Item,
    text: &mut Vec<u8>,
    out: &mut Vec<u8>,
    emit: &mut dyn FnMut(Option<&[u8]>),
) {
    let key = config.key.as_ref().map(|key| key.expose());
    let mut packet = |packet: Packet<'_>| match packet.write(out) {
        Ok(()) => emit(Some(out)),
        Err(packet::TooLong) => emit(None),
    };
    match item {
        Item::Message { unix_us, captured } => {
            text.clear();
            text.extend_from_slice(&captured.bytes);
            redact::redact(text);
            let ends = (captured.local, captured.remote);
            let (source, destination) = if captured.outgoing { ends } else { (ends.1, ends.0) };
            packet(Packet {
                kind: Kind::Sip,
                protocol: if captured.transport == Transport::Udp { UDP } else { TCP },
                source,
                destination,
                unix_us: *unix_us,
                capture_id: config.capture_id,
                key,
                correlation: redact::call_id(text),
                payload: text,
            });
        }
        Item::Quality { unix_us, report } => {
            let whole = Packet {
                kind: Kind::VoiceQuality,
                protocol: UDP,
                source: report.remote_address.address,
                destination: report.local_address.address,
                unix_us: *unix_us,
                capture_id: config.capture_id,
                key,
                correlation: Some(report.call_id.as_str()).filter(|call_id| call_id.len() < MAX_PACKET / 4),
                payload: &[],
            };
            packet(Packet { payload: report.write().as_bytes(), ..whole });
            // Numbers and words: nothing in it can fail to be written.
            let json = serde_json::to_vec(&RtpReport::new(report)).unwrap_or_default();
            packet(Packet { kind: Kind::RtpReport, payload: &json, ..whole });
        }
    }
}

/// Reads the counters when asked for.
#[derive(Debug)]
pub(super) struct HepCollector(pub(super) Arc<HepCounters>);

impl Collector for HepCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "Packets of HEP, by what became of them";
        let mut packets = encoder.encode_descriptor("hep_packets", help, None, MetricType::Counter)?;
        let counters = &self.0;
        for (result, counter) in [
            ("sent", &counters.sent),
            ("dropped", &counters.dropped),
            ("oversize", &counters.oversize),
            ("failed", &counters.failed),
        ] {
            let count = ConstCounter::new(counter.load(Ordering::Relaxed));
            count.encode(packets.encode_family(&[("result", result)])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod decoded;
#[cfg(test)]
mod tests;
