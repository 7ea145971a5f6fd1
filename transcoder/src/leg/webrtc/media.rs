//! RTP and RTCP of a connected leg.

use std::time::{Duration, Instant};

use super::g711::AgreedG711;
use super::{CLOCK_RATE, MAX_DATAGRAM};
use crate::leg::keying::MasterKeys;
use crate::leg::rtp::RemoteReport;
use crate::leg::{Buffers, CopyPlaces, LegPacket, PayloadKind, rtp};
use crate::rtp::redundancy::{self, Copy, Layout, RedundancyError};
use crate::rtp::rtcp::{self, NtpTime, Report, ReportBlock, RtcpPacket};
use crate::rtp::{HEADER_LEN, Numbering, ReceiverStatistics, RtpPacket, RtpSender};
use crate::seed::Seeded;
use crate::srtp::{SrtpReceiver, SrtpSender};

/// Mean time between RTCP reports (RFC 3550 6.2).
const RTCP_INTERVAL: Duration = Duration::from_secs(5);
/// Reports of the other side's that come closer together than this are summed up.
const LOSS_INTERVAL: Duration = Duration::from_secs(2);

/// What both descriptions agreed on.
#[derive(Clone, Debug)]
pub(super) struct Agreed {
    pub(super) opus: u8,
    pub(super) telephone_event: Option<u8>,
    pub(super) g711: AgreedG711,
    /// Redundant audio data (RFC 2198) whose blocks are Opus.
    pub(super) redundancy: Option<u8>,
    /// Our source of Opus, as our description names it.
    pub(super) ssrc: u32,
    pub(super) cname: String,
    /// The header extension that names the stream, if the other side takes it.
    pub(super) mid: Vec<u8>,
}

/// Writes a header extension of one element in the one-byte form (RFC 8285 4.2): the MID
/// (RFC 9143 15.1). Empty if it cannot be written.
pub(super) fn mid_extension(id: u8, mid: &str) -> Vec<u8> {
    if !(1..=14).contains(&id) || !(1..=16).contains(&mid.len()) {
        return Vec::new();
    }
    let words = (1 + mid.len()).div_ceil(4);
    let mut extension = vec![0xbe, 0xde, 0, words as u8, id << 4 | (mid.len() - 1) as u8];
    extension.extend(mid.as_bytes());
    extension.resize(4 + 4 * words, 0);
    extension
}

/// Where a packet stands in the stream.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// Behind the one before.
    Next {
        /// On the clock of its stream.
        timestamp: u32,
    },
    /// Where it stood in the stream it comes from.
    At(Numbering),
}

/// What was received, if it was worth anything.
pub(super) enum Refused {
    /// It failed authentication, was replayed, or has an unknown payload type.
    Unauthentic,
    /// It is authentic and cannot be read.
    Malformed,
    /// It is authentic, and not the redundant audio data that it says it is.
    Redundancy(RedundancyError),
}

/// The streams of one clock, ours and theirs.
struct Clocked {
    clock_rate: u32,
    sender: RtpSender,
    statistics: ReceiverStatistics,
    /// Packets that had come by the last report.
    reported: u64,
    /// Whether the other side has said that it knows our source.
    bound: bool,
}

impl Clocked {
    fn new(clock_rate: u32, ssrc: u32) -> Self {
        Self {
            clock_rate,
            sender: RtpSender::for_source(ssrc),
            statistics: ReceiverStatistics::new(clock_rate),
            reported: 0,
            bound: false,
        }
    }

    /// RFC 3550 6.1: reports are about sources that were heard since the last one.
    fn report_block(&mut self, now: Instant) -> Option<ReportBlock> {
        let packets = self.statistics.packets();
        let heard = std::mem::replace(&mut self.reported, packets) != packets;
        self.statistics.report_block(now).filter(|_| heard)
    }
}

/// The streams of a leg, from the moment there are keys.
pub(super) struct Media {
    agreed: Agreed,
    outgoing: SrtpSender,
    incoming: SrtpReceiver,
    /// Those of Opus, and those of G.711 (RFC 7160 4.1: a source for each clock).
    streams: [Clocked; 2],
    epoch: Instant,
    random: Seeded,
    report_at: Instant,
    /// Fractions of loss that were reported and not yet told, in 1/256, and their number.
    loss: (u32, u32),
    loss_told: Option<Instant>,
    round_trip: Option<Duration>,
    remote: Option<RemoteReport>,
    buffers: Buffers,
    packet: Box<[u8]>,
}

impl Media {
    pub(super) fn new(agreed: Agreed, keys: &MasterKeys, now: Instant) -> Self {
        // The source is random, and that is enough for the times of reports and another source.
        let mut random = Seeded::new(u64::from(agreed.ssrc));
        let other = match random.next_u64() as u32 {
            same if same == agreed.ssrc => same.wrapping_add(1),
            other => other,
        };
        let mut media = Self {
            outgoing: SrtpSender::new(&keys.send),
            incoming: SrtpReceiver::new(std::slice::from_ref(&keys.receive)),
            streams: [Clocked::new(CLOCK_RATE, agreed.ssrc), Clocked::new(rtp::CLOCK_RATE, other)],
            epoch: now,
            random,
            report_at: now,
            loss: (0, 0),
            loss_told: None,
            round_trip: None,
            remote: None,
            buffers: Buffers::new(MAX_DATAGRAM),
            packet: vec![0; MAX_DATAGRAM].into_boxed_slice(),
            agreed,
        };
        // RFC 3550 6.2: the first report comes after half of the interval.
        media.report_at = now + media.report_interval() / 2;
        media
    }

    pub(super) fn receive_rtp(&mut self, now: Instant, datagram: &[u8]) -> Result<LegPacket, Refused> {
        let (incoming, agreed) = (&mut self.incoming, &self.agreed);
        let filled = self.buffers.fill(datagram, |bytes| {
            let plain = incoming.unprotect_rtp(bytes).map_err(|_| Refused::Unauthentic)?;
            let packet = RtpPacket::parse(plain).map_err(|_| Refused::Malformed)?;
            let facts = (packet.payload_type(), packet.sequence(), packet.timestamp(), packet.marker());
            let (mut range, mut copies) = (packet.payload_range(), CopyPlaces::default());
            if Some(packet.payload_type()) == agreed.redundancy {
                let layout = Layout::parse(packet.payload(), agreed.opus).map_err(Refused::Redundancy)?;
                copies = CopyPlaces::new(&layout, range.start);
                range.start += layout.frame().start;
            }
            Ok((range, (facts, packet.ssrc(), copies)))
        });
        let (payload, ((payload_type, sequence, timestamp, marker), ssrc, copies)) =
            filled.ok_or(Refused::Malformed)??;
        let kind = if payload_type == self.agreed.opus || Some(payload_type) == self.agreed.redundancy {
            PayloadKind::Audio
        } else if Some(payload_type) == self.agreed.telephone_event {
            PayloadKind::TelephoneEvent
        } else if let Some(law) = self.agreed.g711.law(payload_type) {
            PayloadKind::G711(law)
        } else if Some(payload_type) == self.agreed.g711.telephone_event {
            PayloadKind::G711Event
        } else {
            return Err(Refused::Unauthentic);
        };
        self.streams[usize::from(kind.is_g711())].statistics.receive(now, ssrc, sequence, timestamp);
        Ok(LegPacket { kind, sequence, timestamp, marker, ssrc, payload, copies })
    }

    /// Takes in RTCP and returns what the other side lost since this last returned something, in per
    /// cent (RFC 3550 6.4.1).
    pub(super) fn receive_rtcp(&mut self, now: Instant, datagram: &[u8]) -> Result<Option<f32>, Refused> {
        let mut buffer = [0; MAX_DATAGRAM];
        let copy = buffer.get_mut(..datagram.len()).ok_or(Refused::Malformed)?;
        copy.copy_from_slice(datagram);
        let plain = self.incoming.unprotect_rtcp(copy).map_err(|_| Refused::Unauthentic)?;
        let ntp = NtpTime::from_elapsed(now.saturating_duration_since(self.epoch));
        for packet in rtcp::parse(plain).map_err(|_| Refused::Malformed)? {
            let blocks = match packet {
                RtcpPacket::SenderReport { ssrc, info, blocks } => {
                    for stream in &mut self.streams {
                        if stream.statistics.ssrc() == Some(ssrc) {
                            stream.statistics.handle_sender_report(now, info.ntp);
                        }
                    }
                    blocks
                }
                RtcpPacket::ReceiverReport { blocks, .. } => blocks,
                RtcpPacket::ExtendedReport { mut voip, .. } => {
                    if let Some(metrics) = voip.find(|metrics| metrics.ssrc == self.agreed.ssrc) {
                        self.remote.get_or_insert_default().metrics = Some(metrics);
                    }
                    continue;
                }
                _ => continue,
            };
            for block in blocks {
                let ours = self.streams.iter_mut().find(|stream| stream.sender.ssrc() == block.ssrc);
                let Some(stream) = ours else { continue };
                stream.bound = true;
                self.loss.0 += u32::from(block.fraction_lost);
                self.loss.1 += 1;
                self.round_trip = rtcp::round_trip(ntp, &block).or(self.round_trip);
                self.remote.get_or_insert_default().take(&block, stream.clock_rate);
            }
        }
        let (sum, count) = self.loss;
        if count == 0 || self.loss_told.is_some_and(|told| now < told + LOSS_INTERVAL) {
            return Ok(None);
        }
        self.loss = (0, 0);
        self.loss_told = Some(now);
        Ok(Some(sum as f32 * 100.0 / (256.0 * count as f32)))
    }

    /// Returns the datagram of a payload, with the copies given if it is Opus; `None` if it was not negotiated, does
    /// not fit, or the key has done its work.
    pub(super) fn write(
        &mut self,
        now: Instant,
        kind: PayloadKind,
        place: Place,
        marker: bool,
        payload: &[u8],
        copies: &[Copy<'_>],
    ) -> Option<&[u8]> {
        let redundancy = self.agreed.redundancy.filter(|_| kind == PayloadKind::Audio && !copies.is_empty());
        let payload_type = match kind {
            PayloadKind::Audio => redundancy.unwrap_or(self.agreed.opus),
            PayloadKind::TelephoneEvent => self.agreed.telephone_event?,
            PayloadKind::ComfortNoise => return None,
            PayloadKind::G711(law) => self.agreed.g711.payload_type(law)?,
            PayloadKind::G711Event => self.agreed.g711.telephone_event?,
        };
        let stream = &mut self.streams[usize::from(kind.is_g711())];
        // RFC 9143 15 and RFC 8843 9.2: until the other side is known to have bound our source to
        // the stream. Its first report about it says so.
        let extension = if stream.bound { &[][..] } else { &self.agreed.mid };
        let start = HEADER_LEN + extension.len();
        let payload_len =
            if redundancy.is_some() { redundancy::encoded_len(copies, payload.len()) } else { payload.len() };
        let packet = self.packet.get_mut(..start + payload_len)?;
        let length = packet.len();
        match place {
            Place::Next { timestamp } => {
                let time = u64::from(timestamp);
                stream.sender.write_header(now, payload_type, marker, time, payload_len, packet).ok()?;
            }
            Place::At(numbering) => {
                stream
                    .sender
                    .write_numbered(now, payload_type, marker, numbering, payload_len, packet)
                    .ok()?;
            }
        }
        if !extension.is_empty() {
            packet[0] |= 0x10;
            packet[HEADER_LEN..start].copy_from_slice(extension);
        }
        if redundancy.is_some() {
            redundancy::encode(self.agreed.opus, copies, payload, &mut packet[start..]).ok()?;
        } else {
            packet[start..].copy_from_slice(payload);
        }
        let length = self.outgoing.protect_rtp(&mut self.packet, length).ok()?;
        self.packet.get(..length)
    }

    /// Returns the numbers of a packet that follows all that were sent in the stream of a kind.
    pub(super) fn next_numbering(&self, now: Instant, kind: PayloadKind) -> Numbering {
        let stream = &self.streams[usize::from(kind.is_g711())];
        stream.sender.next(now, stream.clock_rate)
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    pub(super) fn remote_report(&self) -> Option<&RemoteReport> {
        self.remote.as_ref()
    }

    pub(super) fn report_at(&self) -> Instant {
        self.report_at
    }

    /// Returns the datagram of a report: SR or RR, SDES, and BYE if asked for (RFC 3550 6.1), and
    /// says when the next is due.
    pub(super) fn report(&mut self, now: Instant, bye: bool) -> Option<&[u8]> {
        self.report_at = now + self.report_interval();
        let ntp = NtpTime::from_elapsed(now.saturating_duration_since(self.epoch));
        let mut heard = [ReportBlock::default(); 2];
        let mut count = 0;
        for block in self.streams.iter_mut().filter_map(|stream| stream.report_block(now)) {
            heard[count] = block;
            count += 1;
        }
        let mut length = 0;
        for (at, stream) in self.streams.iter().enumerate() {
            // What was never sent is no source yet.
            if at > 0 && stream.sender.packets() == 0 {
                continue;
            }
            let report = Report {
                ssrc: stream.sender.ssrc(),
                sender: stream.sender.sender_info(now, ntp, stream.clock_rate),
                blocks: if at == 0 { &heard[..count] } else { &[] },
                cname: &self.agreed.cname,
                metrics: None,
                bye,
            };
            length += report.write(self.packet.get_mut(length..)?).ok()?;
        }
        let length = self.outgoing.protect_rtcp(&mut self.packet, length).ok()?;
        self.packet.get(..length)
    }

    /// RFC 3550 6.2: half to one and a half of the mean.
    fn report_interval(&mut self) -> Duration {
        let fraction = (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        RTCP_INTERVAL / 2 + RTCP_INTERVAL.mul_f64(fraction)
    }
}

#[cfg(test)]
mod tests;
