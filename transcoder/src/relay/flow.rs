//! One direction of a relay: packets that one leg accepted, on their way out on the other.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use call_model::DtmfDigit;

use crate::codec::g711::Law;
use crate::dtmf::{DtmfEvent, DtmfReceiver, DtmfSender};
use crate::leg::PayloadKind;
use crate::leg::rtp::{CLOCK_RATE, Received, RtpEmit, RtpLeg};
use crate::rtp::{Numbering, RtpPacket};

/// Packets after which the point that numbers are counted from moves on, and how far it stays
/// behind: later packets than that are too late for anybody.
const MOVE_ANCHOR: u16 = 1_024;
const KEEP_BEHIND: u16 = 512;
/// Octets of the longest payload that is passed on.
const MAX_PAYLOAD: usize = 1_280;
/// Digits that wait to be reported.
const MAX_DIGITS: usize = 32;
/// Ticks of the RTP clock in a millisecond.
const TICKS_PER_MS: u64 = CLOCK_RATE as u64 / 1_000;

/// The number that a packet had, and the one that it got.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    from: u16,
    to: u16,
}

/// A digit of ours that is being sent: the clock of its sender, and what that is in RTP.
#[derive(Clone, Copy, Debug)]
struct Sending {
    next: Instant,
    start_media: u64,
    start_timestamp: u32,
    began: bool,
}

pub(super) struct Flow {
    epoch: Instant,
    /// The other law's code for each, where the laws differ.
    table: Option<Box<[u8; 256]>>,
    payload: [u8; MAX_PAYLOAD],
    anchor: Option<Anchor>,
    /// The source that is passed on, and what its timestamps are moved by.
    offset: Option<(u32, u32)>,
    heard: DtmfReceiver,
    /// The digit that is heard now goes on packet by packet.
    passing: bool,
    ours: DtmfSender,
    sending: Option<Sending>,
    digits: VecDeque<(DtmfDigit, u16, bool)>,
    late: u64,
    refused: u64,
}

impl Flow {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            table: None,
            payload: [0; MAX_PAYLOAD],
            anchor: None,
            offset: None,
            heard: DtmfReceiver::new(CLOCK_RATE),
            passing: false,
            ours: DtmfSender::new(CLOCK_RATE),
            sending: None,
            digits: VecDeque::new(),
            late: 0,
            refused: 0,
        }
    }

    /// Sets the laws that come in and go out (ITU-T G.711 tables 3 and 4 map one code to one).
    pub(super) fn set_laws(&mut self, incoming: Law, outgoing: Law) {
        self.table = (incoming != outgoing).then(|| {
            let mut table = Box::new([0; 256]);
            for (code, made) in (0..=u8::MAX).zip(table.iter_mut()) {
                *made = outgoing.encode(incoming.decode(code));
            }
            table
        });
    }

    pub(super) fn receive(
        &mut self,
        now: Instant,
        received: Received<'_>,
        out: &mut RtpLeg,
        emit: RtpEmit<'_>,
    ) {
        match received {
            // A digit of ours takes the place of what is said (RFC 4733 2.5.1.2).
            Received::Audio(_) if self.is_sending() => self.anchor = None,
            Received::Audio(packet) => self.pass(now, &packet, PayloadKind::Audio, out, emit),
            // Nobody has agreed to comfort noise on the other side: a pause says as much.
            Received::ComfortNoise(_) => self.anchor = None,
            Received::TelephoneEvent(packet) => self.receive_event(now, &packet, out, emit),
            Received::Nothing => {}
        }
    }

    fn receive_event(&mut self, now: Instant, packet: &RtpPacket<'_>, out: &mut RtpLeg, emit: RtpEmit<'_>) {
        let was_active = self.heard.is_active();
        if self.heard.receive(now, packet.timestamp(), packet.marker(), packet.payload()).is_err() {
            self.refused += 1;
            return;
        }
        let can = out.has_telephone_event();
        if !was_active && self.heard.is_active() {
            self.passing = can && !self.is_sending();
        }
        if can && !self.is_sending() {
            self.pass(now, packet, PayloadKind::TelephoneEvent, out, emit);
        } else {
            self.anchor = None;
        }
        self.take_heard(now, can);
    }

    /// Says whether a digit of ours is under way, not only waiting.
    fn is_sending(&self) -> bool {
        self.sending.is_some_and(|sending| sending.began)
    }

    fn take_heard(&mut self, now: Instant, can: bool) {
        while let Some(event) = self.heard.poll_event() {
            let DtmfEvent::Ended { digit, duration_ms } = event else { continue };
            // What could not be passed on while a digit of ours was being sent goes out after it.
            let forwarded = self.passing || (can && self.queue(now, digit, duration_ms));
            if self.digits.len() < MAX_DIGITS {
                self.digits.push_back((digit, duration_ms, forwarded));
            }
        }
    }

    fn pass(
        &mut self,
        now: Instant,
        packet: &RtpPacket<'_>,
        kind: PayloadKind,
        out: &mut RtpLeg,
        emit: RtpEmit<'_>,
    ) {
        let next = out.next_numbering(now);
        let offset = match self.offset {
            Some((ssrc, offset)) if ssrc == packet.ssrc() => offset,
            // Another source, another clock: it begins where the one before stands by now.
            _ => {
                self.anchor = None;
                let offset = next.timestamp.wrapping_sub(packet.timestamp());
                self.offset = Some((packet.ssrc(), offset));
                offset
            }
        };
        let resumed = self.anchor.is_none();
        let anchor = self.anchor.get_or_insert(Anchor { from: packet.sequence(), to: next.sequence });
        let ahead = packet.sequence().wrapping_sub(anchor.from);
        if ahead.cast_signed() < 0 {
            // From before a pause: its number has been given away.
            self.late += 1;
            return;
        }
        let numbering = Numbering {
            sequence: anchor.to.wrapping_add(ahead),
            timestamp: packet.timestamp().wrapping_add(offset),
        };
        if ahead > MOVE_ANCHOR {
            let step = ahead - KEEP_BEHIND;
            (anchor.from, anchor.to) = (anchor.from.wrapping_add(step), anchor.to.wrapping_add(step));
        }
        let marker = packet.marker() || (resumed && kind == PayloadKind::Audio);
        let payload = match (&self.table, kind) {
            (Some(table), PayloadKind::Audio) => {
                let length = packet.payload().len().min(MAX_PAYLOAD);
                for (made, code) in self.payload.iter_mut().zip(packet.payload()) {
                    *made = table[usize::from(*code)];
                }
                &self.payload[..length]
            }
            _ => packet.payload(),
        };
        if !out.forward(now, kind, marker, numbering, payload, emit) {
            // Held, or not negotiated yet: no gap is to be seen when it goes on.
            self.anchor = None;
        }
    }

    /// Queues a digit of ours. Returns false when too many wait.
    pub(super) fn queue(&mut self, now: Instant, digit: DtmfDigit, duration_ms: u16) -> bool {
        let queued = self.ours.queue(digit, duration_ms).is_ok();
        if queued && self.sending.is_none() {
            self.sending = Some(Sending { next: now, start_media: 0, start_timestamp: 0, began: false });
        }
        queued
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut RtpLeg, emit: RtpEmit<'_>) {
        self.heard.handle_timeout(now);
        self.take_heard(now, out.has_telephone_event());
        let Some(mut sending) = self.sending.filter(|sending| sending.next <= now) else { return };
        let interval_ms = out.media().map_or(20, |media| media.packet_time_ms).max(10);
        let sends = out.media().is_some_and(|media| media.direction.sends());
        // Digits wait while hold forbids to send, and while one that is heard goes on by itself.
        if sends && !(self.passing && self.heard.is_active() && !sending.began) {
            let next = out.next_numbering(now);
            let elapsed = now.saturating_duration_since(self.epoch).as_millis() as u64;
            let media = elapsed * TICKS_PER_MS;
            if !sending.began {
                (sending.began, sending.start_media, sending.start_timestamp) = (true, media, next.timestamp);
            }
            let ticks = u32::from(interval_ms) * TICKS_PER_MS as u32;
            if let Some(event) = self.ours.next(media, ticks) {
                let since = event.media_time.wrapping_sub(sending.start_media) as u32;
                let timestamp = sending.start_timestamp.wrapping_add(since);
                let numbering = Numbering { sequence: next.sequence, timestamp };
                let kind = PayloadKind::TelephoneEvent;
                out.forward(now, kind, event.marker, numbering, &event.payload, emit);
                self.anchor = None;
            }
        }
        sending.next = now + Duration::from_millis(u64::from(interval_ms));
        self.sending = (!self.ours.is_idle()).then_some(sending);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let sending = self.sending.map(|sending| sending.next);
        self.heard.poll_timeout().into_iter().chain(sending).min()
    }

    /// Returns a digit that ended, its length in milliseconds, and whether it goes on in RTP.
    pub(super) fn poll_digit(&mut self) -> Option<(DtmfDigit, u16, bool)> {
        self.digits.pop_front()
    }

    pub(super) fn late(&self) -> u64 {
        self.late
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused
    }
}
