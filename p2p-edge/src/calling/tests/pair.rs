//! Two sessions, a stream between them, and virtual time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Random, invite, token};
use crate::calling::*;

pub(super) const LATENCY: Duration = Duration::from_millis(20);

pub(super) struct End {
    pub(super) session: CallSession,
    pub(super) events: Vec<SessionEvent>,
    pub(super) ended: Option<(Duration, SessionEvent)>,
}

impl End {
    fn drain(&mut self, at: Duration) {
        while let Some(event) = self.session.poll_event() {
            assert!(self.ended.is_none(), "{event:?} came after the end");
            if matches!(event, SessionEvent::Ended { .. }) {
                self.ended = Some((at, event));
            } else if !matches!(event, SessionEvent::Exchange(_)) {
                self.events.push(event);
            }
        }
    }

    pub(super) fn end(&self) -> (Cause, EndedBy) {
        match &self.ended {
            Some((_, SessionEvent::Ended { cause, by, .. })) => (*cause, *by),
            other => panic!("not ended: {other:?}, state {:?}", self.session.state()),
        }
    }
}

use call_model::Cause;

/// Bytes on their way, with the time of arrival.
type Wire = VecDeque<(Instant, Vec<u8>)>;

pub(super) struct Pair {
    start: Instant,
    pub(super) now: Instant,
    pub(super) caller: End,
    pub(super) callee: Option<End>,
    to_callee: Wire,
    to_caller: Wire,
    /// Reads the first frame of each stream at the callee.
    opening: Option<FrameDecoder>,
    stream_up: bool,
    redial_at: Option<Instant>,
    pub(super) no_network_until: Instant,
    random: Random,
    timers: SessionTimers,
}

impl Pair {
    pub(super) fn new(seed: u64, timers: SessionTimers) -> Self {
        let start = Instant::now();
        let session = CallSession::outgoing(invite(), token(5), timers, start).unwrap();
        Self {
            start,
            now: start,
            caller: End { session, events: Vec::new(), ended: None },
            callee: None,
            to_callee: Wire::new(),
            to_caller: Wire::new(),
            opening: Some(FrameDecoder::new()),
            stream_up: true,
            redial_at: None,
            no_network_until: start,
            random: Random(seed),
            timers,
        }
    }

    pub(super) fn callee(&mut self) -> &mut End {
        self.callee.as_mut().expect("the invite has arrived")
    }

    pub(super) fn caller_does(&mut self, command: SessionCommand) -> Result<(), CommandError> {
        let result = self.caller.session.handle_command(self.now, command);
        self.flush();
        result
    }

    pub(super) fn callee_does(&mut self, command: SessionCommand) -> Result<(), CommandError> {
        let now = self.now;
        let result = self.callee().session.handle_command(now, command);
        self.flush();
        result
    }

    /// Cuts the stream. What is on its way is lost. `callee_notices`: or it hears of it from the
    /// next stream only.
    pub(super) fn cut(&mut self, callee_notices: bool) {
        self.to_callee.clear();
        self.to_caller.clear();
        self.stream_up = false;
        self.caller.session.handle_closed(self.now);
        if callee_notices && let Some(callee) = &mut self.callee {
            callee.session.handle_closed(self.now);
        }
        self.flush();
    }

    /// Runs for a while.
    pub(super) fn run(&mut self, for_: Duration) {
        let until = self.now + for_;
        self.flush();
        while let Some(at) = self.next_at().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.step();
            self.flush();
        }
        self.now = until;
    }

    pub(super) fn run_ms(&mut self, ms: u64) {
        self.run(Duration::from_millis(ms));
    }

    /// Sets up an answered call with media up on both sides.
    pub(super) fn active(seed: u64) -> Self {
        let mut pair = Self::new(seed, SessionTimers::default());
        pair.run_ms(50);
        pair.callee_does(SessionCommand::Ringing).unwrap();
        pair.run_ms(50);
        pair.callee_does(SessionCommand::Answer { media: "answer".into() }).unwrap();
        pair.run_ms(50);
        pair.caller_does(SessionCommand::MediaUp).unwrap();
        pair.callee_does(SessionCommand::MediaUp).unwrap();
        assert_eq!(pair.caller.session.state(), SessionState::Active);
        assert_eq!(pair.callee().session.state(), SessionState::Active);
        pair
    }

    pub(super) fn finished(&self) -> bool {
        self.caller.session.is_finished()
            && self.callee.as_ref().is_none_or(|callee| callee.session.is_finished())
    }

    fn next_at(&self) -> Option<Instant> {
        let arrivals =
            [self.to_callee.front(), self.to_caller.front()].into_iter().flatten().map(|(at, _)| *at);
        let timers = [
            self.caller.session.poll_timeout(),
            self.callee.as_ref().and_then(|callee| callee.session.poll_timeout()),
            self.redial_at,
        ];
        arrivals.chain(timers.into_iter().flatten()).min()
    }

    fn step(&mut self) {
        let now = self.now;
        if self.caller.session.poll_timeout().is_some_and(|at| at <= now) {
            self.caller.session.handle_timeout(now);
        }
        if let Some(callee) = &mut self.callee
            && callee.session.poll_timeout().is_some_and(|at| at <= now)
        {
            callee.session.handle_timeout(now);
        }
        if self.redial_at.take_if(|at| *at <= now).is_some() && self.caller.session.wants_resume() {
            self.redial(now);
        }
        if self.to_callee.front().is_some_and(|(at, _)| *at <= now) {
            let (_, bytes) = self.to_callee.pop_front().unwrap();
            self.arrive_at_callee(&bytes);
        }
        if self.to_caller.front().is_some_and(|(at, _)| *at <= now) {
            let (_, bytes) = self.to_caller.pop_front().unwrap();
            self.caller.session.handle_bytes(now, &bytes);
        }
    }

    fn redial(&mut self, now: Instant) {
        if now < self.no_network_until {
            return;
        }
        self.stream_up = true;
        self.opening = Some(FrameDecoder::new());
        self.to_callee.clear();
        self.to_caller.clear();
        self.caller.session.resume(now).unwrap();
    }

    fn arrive_at_callee(&mut self, mut bytes: &[u8]) {
        let now = self.now;
        if let Some(decoder) = &mut self.opening {
            let Some(frame) = decoder.feed(&mut bytes).unwrap() else { return };
            self.opening = None;
            if matches!(frame.body, Body::Resume { .. }) {
                let taken =
                    self.callee.as_mut().is_some_and(|callee| callee.session.reattach(now, &frame).is_ok());
                if !taken {
                    let refusal = Frame::resume_refused().encode();
                    self.to_caller.push_back((now + LATENCY, refusal));
                    return;
                }
            } else {
                let session = CallSession::incoming(frame, self.timers, now).unwrap();
                self.callee = Some(End { session, events: Vec::new(), ended: None });
            }
        }
        if let Some(callee) = &mut self.callee {
            callee.session.handle_bytes(now, bytes);
        }
    }

    /// Moves bytes and events out of the sessions. A frame arrives in up to three pieces.
    fn flush(&mut self) {
        let (now, at) = (self.now, self.now.duration_since(self.start));
        while let Some(bytes) = self.caller.session.poll_transmit() {
            Self::send(&mut self.random, &mut self.to_callee, self.stream_up, now, &bytes);
        }
        if let Some(callee) = &mut self.callee {
            while let Some(bytes) = callee.session.poll_transmit() {
                Self::send(&mut self.random, &mut self.to_caller, self.stream_up, now, &bytes);
            }
            callee.drain(at);
        }
        self.caller.drain(at);
        if self.caller.session.wants_resume() && self.redial_at.is_none() {
            self.stream_up = false;
            self.redial_at = Some(now + Duration::from_millis(300));
        }
    }

    fn send(random: &mut Random, wire: &mut Wire, up: bool, now: Instant, mut bytes: &[u8]) {
        while up && !bytes.is_empty() {
            let piece = bytes.len().div_ceil(1 + random.below(3) as usize);
            wire.push_back((now + LATENCY, bytes[..piece].to_vec()));
            bytes = &bytes[piece..];
        }
    }
}
