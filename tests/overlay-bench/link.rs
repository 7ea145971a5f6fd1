//! A network in which every message takes its time, between nodes of one machine.
//!
//! The kernel at hand may have no delay of its own (netem), so packets pass a queue of this program. A node has the
//! address 10.1.x.y and is told to others as 10.2.x.y; whatever goes to 10.2.0.0/16 is routed to a TUN device, from
//! where it comes here. After half a round trip it goes back with both second bytes exchanged: the far end sees it come
//! from 10.2, and answers the same way. No checksum changes, since the sum of both addresses does not. So every packet
//! of TCP and UDP is late, that of a handshake too; what would go straight to 10.1 is refused by a rule of routing.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio_tun::Tun;

/// Packets under way at one time; more are lost, and counted.
const QUEUE: usize = 65_536;
/// Octets of a packet.
const MTU: usize = 1_500;
/// Where programs that choose no address send from.
const OWN: &str = "10.1.255.254";

/// The delayed network. Its threads end with the process.
#[derive(Debug)]
pub(crate) struct Link {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    octets: AtomicU64,
    lost: AtomicU64,
}

struct Packet {
    due: Instant,
    octets: Vec<u8>,
}

impl Link {
    /// Opens the network, in which every round trip takes so long. Needs a network namespace of its own.
    pub(crate) fn open(round_trip: Duration) -> Result<Self> {
        let counts = Arc::<Counts>::default();
        let (sender, receiver) = sync_channel(QUEUE);
        let (opened, name) = sync_channel(1);
        let of_reader = Arc::clone(&counts);
        // Threads of their own: a node that computes does not make the network slower.
        thread::Builder::new()
            .name("link".to_owned())
            .spawn(move || read(round_trip / 2, &sender, receiver, &of_reader, &opened))?;
        let name: String = name.recv().context("the device was not opened")??;
        for command in [
            format!("addr add {OWN}/32 dev {name}"),
            "route add local 10.1.0.0/16 dev lo".to_owned(),
            format!("route add 10.2.0.0/16 dev {name} src {OWN}"),
            // The rule for what is local comes after one that nobody takes the short way.
            "rule add pref 20 lookup local".to_owned(),
            "rule del pref 0".to_owned(),
            "rule add pref 10 iif lo to 10.1.0.0/16 prohibit".to_owned(),
        ] {
            let output = Command::new("ip").args(command.split(' ')).output().context("ip")?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "ip {command}: {}", said.trim());
        }
        Ok(Self { counts })
    }

    /// Octets that have passed, with the headers of IP.
    pub(crate) fn octets(&self) -> u64 {
        self.counts.octets.load(Ordering::Relaxed)
    }

    /// Packets for which there was no room.
    pub(crate) fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }
}

/// The address of a party, and the one that others are told.
pub(crate) fn addresses(network: u8, host: u8) -> (Ipv4Addr, Ipv4Addr) {
    (Ipv4Addr::new(10, 1, network, host), Ipv4Addr::new(10, 2, network, host))
}

/// Opens the device, and takes packets from it.
fn read(
    delay: Duration,
    sender: &SyncSender<Packet>,
    receiver: Receiver<Packet>,
    counts: &Counts,
    opened: &SyncSender<Result<String>>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(opened.send(Err(error.into()))),
    };
    runtime.block_on(async {
        let device = match open() {
            Ok(device) => device,
            Err(error) => return drop(opened.send(Err(error))),
        };
        let writer = Arc::clone(&device);
        let writing =
            thread::Builder::new().name("link-out".to_owned()).spawn(move || write(&writer, &receiver));
        // Errs when nobody waits any more.
        let _ = opened.send(writing.map(|_| device.name().to_owned()).map_err(Into::into));
        let mut buffer = [0; MTU];
        while let Ok(length) = device.recv(&mut buffer).await {
            let Some(octets) = turned(&buffer[..length]) else { continue };
            counts.octets.fetch_add(length as u64, Ordering::Relaxed);
            match sender.try_send(Packet { due: Instant::now() + delay, octets }) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => {
                    counts.lost.fetch_add(1, Ordering::Relaxed);
                }
                Err(TrySendError::Disconnected(_)) => return,
            }
        }
    });
}

fn open() -> Result<Arc<Tun>> {
    let devices = Tun::builder().mtu(MTU as i32).up().build().context("a TUN device")?;
    Ok(Arc::new(devices.into_iter().next().context("no TUN device")?))
}

/// Gives packets back when their time has come. They come in that order, since all wait as long.
fn write(device: &Tun, packets: &Receiver<Packet>) {
    while let Ok(Packet { due, octets }) = packets.recv() {
        let wait = due.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            thread::sleep(wait);
        }
        // What the kernel does not take is lost, as anywhere.
        let _ = device.try_send(&octets);
    }
}

/// The packet as it goes on: from the address under which others know its sender, to the own one of who gets it.
/// Nothing else than IPv4 between the two networks goes on.
fn turned(packet: &[u8]) -> Option<Vec<u8>> {
    if packet.len() < 20 || packet[0] >> 4 != 4 || packet[12..14] != [10, 1] || packet[16..18] != [10, 2] {
        return None;
    }
    let mut turned = packet.to_vec();
    (turned[13], turned[17]) = (2, 1);
    Some(turned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The checksum of RFC 1071.
    fn sum(octets: &[u8]) -> u16 {
        let words = octets.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
        let mut sum: u32 = words.sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn a_packet_changes_sides_and_keeps_its_checksums() {
        let mut packet = vec![0x45, 0, 0, 40, 7, 7, 0, 0, 64, 6, 0x12, 0x34, 10, 1, 3, 1, 10, 2, 4, 1];
        packet.extend([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
        let turned = turned(&packet).unwrap();
        assert_eq!(turned[12..20], [10, 2, 3, 1, 10, 1, 4, 1]);
        assert_eq!((sum(&turned), &turned[20..]), (sum(&packet), &packet[20..]));
    }

    #[test]
    fn nothing_else_goes_on() {
        let mut straight = vec![0x45; 20];
        straight[12..20].copy_from_slice(&[10, 1, 3, 1, 10, 1, 4, 1]);
        assert_eq!(turned(&straight), None);
        assert_eq!(turned(&[0x60; 40]), None, "IPv6");
        assert_eq!(turned(&[0x45; 19]), None);
    }
}
