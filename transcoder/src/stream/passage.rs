//! Opus that both legs speak, on its way from one to the other: nothing is decoded and nothing waits, for the far
//! side has a jitter buffer of its own. Digits are made anew, so that one that is signalled goes the same way.

use call_model::DtmfDigit;

use crate::dtmf::{DtmfSender, PAYLOAD_LEN, convert_ticks};
use crate::leg::webrtc::CLOCK_RATE;
use crate::rtp::{Numbering, Renumbering};

/// Ticks of the engine in a second.
const TICKS_PER_SECOND: u32 = 50;

/// One direction.
pub(crate) struct Passage {
    numbers: Renumbering,
    dtmf: DtmfSender,
    /// The clock of the events in Hz, which need not be that of the voice.
    event_clock_rate: u32,
    /// Ticks of that clock since the call began.
    media_time: u64,
    /// The digit that is being sent: when it began in media time, and in RTP.
    digit: Option<(u64, u32)>,
}

/// An event packet of a digit.
pub(crate) struct Event {
    pub(crate) numbering: Numbering,
    pub(crate) marker: bool,
    pub(crate) payload: [u8; PAYLOAD_LEN],
}

impl Passage {
    pub(crate) fn new() -> Self {
        let dtmf = DtmfSender::new(CLOCK_RATE);
        Self {
            numbers: Renumbering::default(),
            dtmf,
            event_clock_rate: CLOCK_RATE,
            media_time: 0,
            digit: None,
        }
    }

    /// Sets the clock of the events, in Hz. Digits that wait in another are given up.
    pub(crate) fn set_event_clock_rate(&mut self, clock_rate: u32) {
        if self.event_clock_rate != clock_rate {
            (self.event_clock_rate, self.dtmf) = (clock_rate, DtmfSender::new(clock_rate));
            (self.media_time, self.digit) = (0, None);
        }
    }

    fn tick_time(&self) -> u32 {
        self.event_clock_rate / TICKS_PER_SECOND
    }

    /// Numbers a packet of voice, where `next` follows all that went out. Returns its marker too. `None` where it
    /// does not go on: a digit takes its place (RFC 4733 2.5.1.2), or it is too late.
    pub(crate) fn number(
        &mut self,
        ssrc: u32,
        packet: Numbering,
        marker: bool,
        next: Numbering,
    ) -> Option<(Numbering, bool)> {
        if self.digit.is_some() {
            self.pause();
            return None;
        }
        let (numbering, resumed) = self.numbers.number(ssrc, packet, next)?;
        Some((numbering, marker || resumed))
    }

    /// Lets the next packet follow what went out, as if there had been none between.
    pub(crate) fn pause(&mut self) {
        self.numbers.pause();
    }

    pub(crate) fn queue_dtmf(&mut self, digit: DtmfDigit, duration_ms: u16) -> bool {
        self.dtmf.queue(digit, duration_ms).is_ok()
    }

    /// Says whether a digit is being sent.
    pub(crate) fn is_sending_digit(&self) -> bool {
        self.digit.is_some()
    }

    /// Lets time pass in which no digit may go out.
    pub(crate) fn skip(&mut self, ticks: u64) {
        self.media_time += ticks * u64::from(self.tick_time());
    }

    /// Returns the packet of a digit that this tick asks for.
    pub(crate) fn tick(&mut self, next: Numbering) -> Option<Event> {
        let time = self.media_time;
        let length = self.tick_time();
        self.media_time += u64::from(length);
        let Some(event) = self.dtmf.next(time, length) else {
            self.digit = None;
            return None;
        };
        if event.marker {
            self.digit = Some((event.media_time, next.timestamp));
        }
        let (began, timestamp) = self.digit?;
        self.numbers.pause();
        // RFC 7160 4: one stream has one clock in its timestamps, that of the voice.
        let since = event.media_time.wrapping_sub(began) as u32;
        let timestamp = timestamp.wrapping_add(convert_ticks(since, self.event_clock_rate, CLOCK_RATE));
        let numbering = Numbering { sequence: next.sequence, timestamp };
        Some(Event { numbering, marker: event.marker, payload: event.payload })
    }
}
