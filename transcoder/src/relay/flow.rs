//! One direction of a relay: packets that one leg accepted, on their way out on the other.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use call_model::{DigitFilter, DigitPath, DtmfDigit};

use crate::dtmf::{DtmfEvent, DtmfReceiver, DtmfSender};
use crate::leg::PayloadKind;
use crate::leg::rtp::{CLOCK_RATE, Received, RtpEmit, RtpLeg};
use crate::rtp::{Numbering, Renumbering, RtpPacket};
use crate::stream::coding::{Coding, Conversion};

/// Octets of the longest payload that is passed on.
const MAX_PAYLOAD: usize = 1_280;
/// Digits that wait to be reported.
const MAX_DIGITS: usize = 32;
/// Ticks of the RTP clock in a millisecond.
const TICKS_PER_MS: u64 = CLOCK_RATE as u64 / 1_000;

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
    /// What goes out.
    outgoing: Option<Coding>,
    /// Whether G.722 may come in.
    expects_g722: bool,
    /// Where G.722 comes in or goes out, and G.711 on the other side.
    conversion: Option<Box<Conversion>>,
    numbers: Renumbering,
    heard: DtmfReceiver,
    /// The digit that is heard now goes on packet by packet.
    passing: bool,
    ours: DtmfSender,
    sending: Option<Sending>,
    digits: VecDeque<(DtmfDigit, u16, bool)>,
    /// Tells digits that come with the media from those that are signalled beside it.
    known: DigitFilter,
    refused: u64,
}

impl Flow {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            outgoing: None,
            expects_g722: false,
            conversion: None,
            numbers: Renumbering::default(),
            heard: DtmfReceiver::new(CLOCK_RATE),
            passing: false,
            ours: DtmfSender::new(CLOCK_RATE),
            sending: None,
            digits: VecDeque::new(),
            known: DigitFilter::default(),
            refused: 0,
        }
    }

    /// Sets the coding that goes out; what comes in says its own.
    pub(super) fn set_coding(&mut self, outgoing: Coding) {
        if self.outgoing != Some(outgoing) {
            self.conversion = None;
        }
        self.outgoing = Some(outgoing);
        self.prepare();
    }

    /// Says whether G.722 may come in.
    pub(super) fn expect(&mut self, g722: bool) {
        self.expects_g722 = g722;
        self.prepare();
    }

    /// Builds what a packet may need, so that none has to.
    fn prepare(&mut self) {
        let Some(outgoing) = self.outgoing else { return };
        if (self.expects_g722 || outgoing == Coding::G722) && self.conversion.is_none() {
            self.conversion = Some(Box::new(Conversion::to(outgoing)));
        }
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
            Received::Audio(..) | Received::G722(_) if self.is_sending() => self.numbers.pause(),
            Received::Audio(packet, law) => self.pass(now, &packet, Some(Coding::Law(law)), out, emit),
            Received::G722(packet) => self.pass(now, &packet, Some(Coding::G722), out, emit),
            // Nobody has agreed to comfort noise on the other side: a pause says as much.
            Received::ComfortNoise(_) => self.numbers.pause(),
            Received::TelephoneEvent(packet) => self.receive_event(now, &packet, out, emit),
            // No leg of a relay agrees to Opus.
            Received::Opus(_) | Received::Nothing => {}
        }
    }

    fn receive_event(&mut self, now: Instant, packet: &RtpPacket<'_>, out: &mut RtpLeg, emit: RtpEmit<'_>) {
        if self.heard.receive(now, packet.timestamp(), packet.marker(), packet.payload()).is_err() {
            self.refused += 1;
            return;
        }
        let can = out.has_telephone_event();
        self.take_heard(now, can);
        if can && self.passing && !self.is_sending() {
            self.pass(now, packet, None, out, emit);
        } else {
            self.numbers.pause();
        }
    }

    /// Says whether a digit of ours is under way, not only waiting.
    fn is_sending(&self) -> bool {
        self.sending.is_some_and(|sending| sending.began)
    }

    fn take_heard(&mut self, now: Instant, can: bool) {
        while let Some(event) = self.heard.poll_event() {
            let (digit, duration_ms) = match event {
                DtmfEvent::Ended { digit, duration_ms } => (digit, duration_ms),
                DtmfEvent::Started { digit } => {
                    // One that was signalled goes out, or has gone, as a digit of ours.
                    let signalled = self.known.knows(now, DigitPath::Media, digit);
                    self.passing = can && !self.is_sending() && !signalled;
                    continue;
                }
            };
            // What could not be passed on while a digit of ours was being sent goes out after it, unless that
            // was it.
            let lasted = Duration::from_millis(duration_ms.into());
            let new = can && self.known.take(now, lasted, DigitPath::Media, digit);
            let forwarded = self.passing || (can && (!new || self.queue(now, digit, duration_ms)));
            if self.digits.len() < MAX_DIGITS {
                self.digits.push_back((digit, duration_ms, forwarded));
            }
        }
    }

    /// Passes a packet of audio in some coding on, or one of a telephone event.
    fn pass(
        &mut self,
        now: Instant,
        packet: &RtpPacket<'_>,
        audio: Option<Coding>,
        out: &mut RtpLeg,
        emit: RtpEmit<'_>,
    ) {
        let kind = if audio.is_some() { PayloadKind::Audio } else { PayloadKind::TelephoneEvent };
        let numbered = self.numbers.number(packet.ssrc(), packet.numbering(), out.next_numbering(now));
        let Some((numbering, resumed)) = numbered else { return };
        let marker = packet.marker() || (resumed && kind == PayloadKind::Audio);
        let mut made = [0; MAX_PAYLOAD];
        let payload = match (self.outgoing, audio) {
            (Some(Coding::Law(outgoing)), Some(Coding::Law(law))) if law != outgoing => {
                let table = outgoing.codes_of_other();
                let length = packet.payload().len().min(MAX_PAYLOAD);
                for (made, code) in made.iter_mut().zip(packet.payload()) {
                    *made = table[usize::from(*code)];
                }
                &made[..length]
            }
            (Some(outgoing), Some(coding)) if coding != outgoing => {
                let Some(conversion) = &mut self.conversion else { return self.numbers.pause() };
                let length = conversion.convert(coding, packet.payload(), &mut made);
                &made[..length]
            }
            _ => packet.payload(),
        };
        if !out.forward(now, kind, marker, numbering, payload, emit) {
            // Held, or not negotiated yet: no gap is to be seen when it goes on.
            self.numbers.pause();
        }
    }

    /// Takes a digit that was signalled beside the media: it goes out once, as an event of ours unless it is,
    /// or was, one that passes. Returns false when too many wait.
    pub(super) fn take_signalled(&mut self, now: Instant, digit: DtmfDigit, duration_ms: u16) -> bool {
        let passes = self.passing
            && self.heard.active() == Some(digit)
            && !self.known.knows(now, DigitPath::Media, digit);
        let new = self.known.take(now, Duration::ZERO, DigitPath::Signalling, digit);
        passes || !new || self.queue(now, digit, duration_ms)
    }

    /// Something else than voice goes over the call for a time: what is under way of digits is over.
    pub(super) fn interrupt(&mut self) {
        (self.heard, self.ours) = (DtmfReceiver::new(CLOCK_RATE), DtmfSender::new(CLOCK_RATE));
        (self.passing, self.sending) = (false, None);
        self.pause();
    }

    /// What comes now goes nowhere: no gap is to be seen when it goes on.
    pub(super) fn pause(&mut self) {
        self.numbers.pause();
    }

    /// Queues a digit of ours. Returns false when too many wait.
    fn queue(&mut self, now: Instant, digit: DtmfDigit, duration_ms: u16) -> bool {
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
        // Digits wait while hold or the lack of keys forbids to send, and while one that is heard goes on by itself.
        if out.can_send() && !(self.passing && self.heard.is_active() && !sending.began) {
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
                self.numbers.pause();
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
        self.numbers.late()
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused
    }
}
