//! One media thread: the sockets and bridges of the calls that were given to it.

mod ringed;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use call_model::{CallId, DtmfDigit, ImageMedia, LegMedia, Side};
use mio::{Events, Poll, Token, Waker};
use tokio::sync::mpsc;
use transcoder::leg::rtp::SourceRule;
use transcoder::{BridgeEvent, LegFailure};

use super::idle::{Broken, IdleSockets};
use super::kind::Media;
use super::lateness::{Lateness, PublishedLateness};
use super::load::{LOOK, Load, PublishedLoad};
use super::places::Places;
use super::ratings::{PublishedRatings, Ratings, SIDES};
use super::refusals::{PublishedRefusals, Refusals};
use super::reporter::{Reporter, quality};
use super::session::{BATCHES, Draining, SOCKETS, Session, Sockets};
use super::sockets::{LegPort, LegSockets, TOKENS};
use super::turns::Turns;
use crate::config::Receive;
use crate::driver::batch::{BATCH, Inbox};
use crate::driver::ring::Ring;
use crate::switch::MediaEvent;
pub(super) use ringed::open_ring;

/// Longest datagram taken; RTP over Ethernet stays below.
const DATAGRAM: usize = 2048;
/// Commands that may wait for a worker. One is a few hundred bytes.
pub(super) const QUEUE: usize = 4096;
/// From this many calls on a thread looks at its sockets in [turns](super::turns) and not at each packet:
/// the wake-ups cost more than the packets, and scatter the codecs' states out of the caches.
const TURNS_FROM_CALLS: usize = 4;
/// How often the figures of a call are reported.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// How soon a report that found no room is tried again.
const PATIENCE: Duration = Duration::from_millis(20);

const WAKE: Token = Token(usize::MAX);
/// Something came to a socket that the ring receives from.
const RING: Token = Token(usize::MAX - 1);

/// What the signalling side tells a worker.
#[derive(Debug)]
pub(super) enum Order {
    Add { call: CallId, media: Media, sockets: Box<Sockets> },
    OverlayAnswer { call: CallId, sdp: String },
    TrunkMedia { call: CallId, side: Side, media: LegMedia, in_band_digits: bool, source_rule: SourceRule },
    TrunkImage { call: CallId, side: Side, image: ImageMedia },
    OverlayHold { call: CallId, on: bool },
    SendDtmf { call: CallId, side: Side, digit: DtmfDigit, duration_ms: u16 },
    Close { call: CallId },
    Stop,
}

/// What a worker tells the signalling side.
#[derive(Debug)]
pub(crate) enum Report {
    /// About a call.
    Media(MediaEvent),
    /// The port of a closed call has rested, and its sockets were not kept.
    PortFree(LegPort),
}

/// Counts of one worker, kept by the thread and published once per turn.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WorkerCounters {
    pub(super) received: u64,
    pub(super) receive_failed: u64,
    pub(super) sent: u64,
    pub(super) send_failed: u64,
    pub(super) stray: u64,
    pub(super) reports_dropped: u64,
    pub(super) ring_exhausted: u64,
    pub(super) lateness: Lateness,
    pub(super) ratings: Ratings,
    pub(super) refusals: Refusals,
}

/// The same, for others to read.
#[derive(Debug, Default)]
pub(crate) struct PublishedCounters {
    /// Datagrams read from the sockets of live calls.
    pub(crate) received: AtomicU64,
    /// Datagrams sent.
    pub(crate) sent: AtomicU64,
    /// Sends and receives that the system refused.
    pub(crate) failed: AtomicU64,
    /// Datagrams that came to the ports of calls that are over.
    pub(crate) stray: AtomicU64,
    /// Reports that found the queue to the signalling loop full.
    pub(crate) reports_dropped: AtomicU64,
    /// Times that all buffers of the thread's ring were used up.
    pub(crate) ring_exhausted: AtomicU64,
    /// The thread receives with io_uring.
    pub(crate) has_ring: AtomicBool,
    /// Live calls.
    pub(crate) calls: AtomicUsize,
    /// How long after their time calls were served.
    pub(crate) lateness: PublishedLateness,
    /// How the legs of calls that are over were judged.
    pub(crate) ratings: PublishedRatings,
    /// What was refused on trunk legs.
    pub(crate) refusals: PublishedRefusals,
    /// What the thread does about its load.
    pub(crate) load: PublishedLoad,
}

/// A running worker thread.
#[derive(Debug)]
pub(super) struct Worker {
    orders: SyncSender<Order>,
    waker: Arc<Waker>,
    /// The thread is about to wait, or does.
    waits: Arc<AtomicBool>,
    pub(super) counters: Arc<PublishedCounters>,
    /// The sockets the thread watches for calls to come.
    pub(super) idle: Arc<IdleSockets>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Worker {
    pub(super) fn spawn(
        index: usize,
        reports: mpsc::Sender<Report>,
        quarantine: Duration,
        kept: usize,
        complexity: u8,
        niceness: i32,
        receive: Receive,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let (orders, inbox) = sync_channel(QUEUE);
        let counters = Arc::new(PublishedCounters::default());
        let published = Arc::clone(&counters);
        let load = Load::new(complexity, Instant::now());
        load.publish(&published.load);
        let (idle, waits) = (Arc::new(IdleSockets::new(kept)), Arc::new(AtomicBool::new(false)));
        let (idle_here, waits_here) = (Arc::clone(&idle), Arc::clone(&waits));
        let thread = thread::Builder::new().name(format!("media-{index}")).spawn(move || {
            keep_time(niceness);
            let ring = match receive {
                Receive::Recvmmsg => None,
                Receive::IoUring => ringed::begin(poll.registry()),
            };
            published.has_ring.store(ring.is_some(), Ordering::Relaxed);
            Loop {
                ring,
                poll,
                inbox,
                waits: waits_here,
                reports,
                quarantine,
                idle: idle_here,
                places: Places::new(),
                sessions: HashMap::new(),
                slots: Vec::new(),
                free_slots: Vec::new(),
                timers: BinaryHeap::new(),
                unread: Vec::new(),
                pending: VecDeque::new(),
                turns: Turns::new(Instant::now()),
                load,
                counters: WorkerCounters::default(),
                published,
                live: 0,
            }
            .run();
        })?;
        Ok(Self { orders, waker, waits, counters, idle, thread: Some(thread) })
    }

    /// Hands an order over. Gives it back if the worker's queue is full.
    pub(super) fn order(&self, order: Order) -> Result<(), Box<Order>> {
        self.orders.try_send(order).map_err(|error| match error {
            TrySendError::Full(order) | TrySendError::Disconnected(order) => Box::new(order),
        })?;
        // Behind the order, as the thread looks for orders behind saying that it waits: one of the two
        // sees what the other did.
        fence(Ordering::SeqCst);
        if self.waits.swap(false, Ordering::SeqCst) {
            // A waker that fails means a dead thread; the next order will say so.
            let _ = self.waker.wake();
        }
        Ok(())
    }

    /// Says whether the thread has ended, which it does by itself only through a fault.
    pub(super) fn is_dead(&self) -> bool {
        self.thread.as_ref().is_none_or(thread::JoinHandle::is_finished)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.orders.send(Order::Stop).is_ok() {
            let _ = self.waker.wake();
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Has the system wake this thread when it asked to be woken, and before others.
fn keep_time(niceness: i32) {
    // Linux rounds what a thread sleeps up by its slack: 50 us, unless it is told otherwise.
    if let Err(error) = rustix::thread::set_current_timer_slack(NonZeroU64::new(1)) {
        tracing::debug!(%error, "the slack of timers stays as it is");
    }
    // Of the calling thread, on Linux.
    if let Err(error) = rustix::process::setpriority_process(None, niceness) {
        tracing::debug!(%error, niceness, "media threads have no other niceness than the rest");
    }
}

#[derive(Debug)]
enum Slot {
    Free,
    Live(Box<Session>),
    Draining(Box<Draining>),
    /// Has rested; the ring still receives from this many of its sockets.
    Leaving(Box<Draining>, usize),
}

struct Loop {
    /// Gone before the sockets that it receives from.
    ring: Option<Ring>,
    poll: Poll,
    inbox: Receiver<Order>,
    waits: Arc<AtomicBool>,
    reports: mpsc::Sender<Report>,
    quarantine: Duration,
    idle: Arc<IdleSockets>,
    places: Places,
    sessions: HashMap<CallId, usize>,
    slots: Vec<Slot>,
    free_slots: Vec<usize>,
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Sockets with more to read than one batch.
    unread: Vec<Token>,
    /// Reports that nobody repeats, for which the queue had no room.
    pending: VecDeque<Report>,
    turns: Turns,
    load: Load,
    counters: WorkerCounters,
    published: Arc<PublishedCounters>,
    live: usize,
}

impl Loop {
    fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        let mut inbox = Inbox::new(DATAGRAM, Instant::now());
        let mut ready = Vec::new();
        loop {
            // With so many calls it looks by itself, soon enough; otherwise it has to be woken.
            if self.live < TURNS_FROM_CALLS && self.unread.is_empty() {
                self.waits.store(true, Ordering::SeqCst);
                fence(Ordering::SeqCst);
                if self.take_orders() {
                    return;
                }
                self.publish();
            }
            let is_ready = !self.unread.is_empty() || self.ring.as_mut().is_some_and(Ring::is_ready);
            let mut timeout = if !is_ready {
                let next = self.timers.peek().map(|Reverse((at, _))| *at);
                next.map(|at| at.saturating_duration_since(Instant::now()))
            } else {
                Some(Duration::ZERO)
            };
            if !self.load.is_at_rest() {
                timeout = Some(timeout.map_or(LOOK, |timeout| timeout.min(LOOK)));
            }
            if self.live >= TURNS_FROM_CALLS {
                thread::sleep(self.turns.until_next(Instant::now()));
                timeout = Some(Duration::ZERO);
            } else if !self.pending.is_empty() {
                timeout = Some(timeout.map_or(PATIENCE, |timeout| timeout.min(PATIENCE)));
            }
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "media poll failed");
                return;
            }
            self.waits.store(false, Ordering::SeqCst);
            self.load.wake(Instant::now());
            ready.clear();
            ready.append(&mut self.unread);
            ready.extend(events.iter().map(|event| event.token()).filter(|token| token.0 < TOKENS));
            for token in ready.drain(..) {
                self.read(token, &mut inbox);
            }
            if let Err(error) = self.read_ring() {
                tracing::error!(%error, "receiving media with io_uring failed");
                return;
            }
            if self.take_orders() {
                return;
            }
            self.fire_timers();
            self.send_pending();
            let now = Instant::now();
            self.turns.end(now, self.load.busy(now));
            if let Some(complexity) = self.load.end_turn(now, &self.published.load) {
                self.set_complexity(complexity);
            }
            self.publish();
        }
    }

    fn set_complexity(&mut self, complexity: u8) {
        for slot in &mut self.slots {
            if let Slot::Live(session) = slot {
                session.media.set_complexity(complexity);
            }
        }
    }

    fn read(&mut self, token: Token, inbox: &mut Inbox) {
        let now = Instant::now();
        let more = match self.places.find(token) {
            Some((slot, index)) => match self.slots.get_mut(slot) {
                Some(Slot::Live(session)) => {
                    let more = session.read(now, index, inbox, &mut self.counters);
                    self.after(slot, now);
                    more
                }
                Some(Slot::Draining(draining)) => {
                    draining.read(now, index, inbox, self.quarantine, &mut self.counters)
                }
                // What has rested is received from by the ring, if at all.
                Some(Slot::Free | Slot::Leaving(..)) | None => false,
            },
            None => self.read_idle(now, token, inbox),
        };
        if more {
            self.unread.push(token);
        }
    }

    /// Reads away what strays to a socket between two calls, so that it does not fill the kernel's
    /// memory. Returns whether more may be waiting.
    fn read_idle(&mut self, now: Instant, token: Token, inbox: &mut Inbox) -> bool {
        let read = self.idle.read(token, |socket| {
            let mut read = inbox.receive(socket, now);
            for _ in 1..BATCHES {
                if read.is_err() {
                    read = inbox.receive(socket, now);
                }
            }
            read
        });
        match read {
            Some(Ok(count)) => {
                self.counters.stray += count as u64;
                count == BATCH
            }
            Some(Err(Broken { leg, error })) => {
                self.counters.receive_failed += 1;
                tracing::debug!(port = leg.port.number, %error, "a media socket errs between two calls");
                self.close_sockets(leg);
                false
            }
            // The engine took it for a call, the order for which is on its way.
            None => {
                self.places.miss(token);
                false
            }
        }
    }

    /// Reports what a bridge has to say and keeps its wake-up in the timer queue.
    fn after(&mut self, slot: usize, now: Instant) {
        let Some(Slot::Live(session)) = self.slots.get_mut(slot) else { return };
        let call = session.call;
        while let Some(event) = session.media.poll_event() {
            let event = match event {
                BridgeEvent::OverlayConnected => MediaEvent::OverlayConnected { call },
                // The user hung up: the word for that comes by signalling, with the cause.
                BridgeEvent::OverlayFailed { failure: LegFailure::Closed } => continue,
                BridgeEvent::OverlayFailed { failure } => {
                    let detail = format!("media with the overlay user failed: {}", failure.as_str());
                    MediaEvent::OverlayFailed { call, detail }
                }
                BridgeEvent::TrunkFailed { side, failure } => {
                    let detail = format!("DTLS with the trunk failed: {}", failure.as_str());
                    MediaEvent::TrunkFailed { call, side, detail }
                }
                // The bridge has done what is to be done.
                BridgeEvent::Voiceband { .. } | BridgeEvent::VoicebandEnded => continue,
                BridgeEvent::FirstPacket { side } => MediaEvent::FirstPacket { call, side },
                BridgeEvent::Silent { side } => MediaEvent::Silent { call, side },
                BridgeEvent::Dtmf { side, digit, duration_ms, forwarded } => {
                    MediaEvent::Dtmf { call, side, digit, duration_ms, forwarded }
                }
            };
            let sender = Reporter::of(&self.reports, &mut self.pending, &mut self.counters);
            sender.send(Report::Media(event));
        }
        if now >= session.next_report {
            session.next_report = now + REPORT_INTERVAL;
            session.count_refusals(&mut self.counters);
            Reporter::of(&self.reports, &mut self.pending, &mut self.counters)
                .send_if_room(quality(session, false));
        }
        let wanted =
            session.media.poll_timeout().map_or(session.next_report, |at| at.min(session.next_report));
        if session.scheduled.is_none_or(|scheduled| wanted < scheduled) {
            session.scheduled = Some(wanted);
            self.timers.push(Reverse((wanted, slot)));
        }
    }

    fn fire_timers(&mut self) {
        loop {
            let now = Instant::now();
            match self.timers.peek() {
                Some(Reverse((at, _))) if *at <= now => {}
                _ => return,
            }
            let Some(Reverse((at, slot))) = self.timers.pop() else { return };
            match self.slots.get_mut(slot) {
                // An entry that an earlier wake-up has overtaken is not the scheduled one.
                Some(Slot::Live(session)) if session.scheduled == Some(at) => {
                    session.scheduled = None;
                    let due = if self.live < TURNS_FROM_CALLS { at } else { self.turns.of(at) };
                    self.load.served(due);
                    self.counters.lateness.count(now.saturating_duration_since(due));
                    session.handle_timeout(now, &mut self.counters);
                    self.after(slot, now);
                }
                Some(Slot::Draining(draining)) => {
                    if draining.free_at <= now {
                        self.free(slot);
                    } else if draining.free_at > at {
                        let again = draining.free_at;
                        self.timers.push(Reverse((again, slot)));
                    }
                }
                _ => {}
            }
        }
    }

    /// Carries out waiting orders. Returns whether to stop.
    fn take_orders(&mut self) -> bool {
        loop {
            let order = match self.inbox.try_recv() {
                Ok(order) => order,
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Disconnected) => return true,
            };
            let now = Instant::now();
            match order {
                Order::Add { call, media, sockets } => self.add(now, call, media, *sockets),
                Order::OverlayAnswer { call, sdp } => {
                    self.on(now, call, |session| session.media.accept_overlay_answer(&sdp, now))
                }
                Order::TrunkMedia { call, side, media, in_band_digits, source_rule } => {
                    self.on(now, call, |session| {
                        session.media.set_source_rule(side, source_rule);
                        session.media.set_trunk_media(side, &media, in_band_digits, now)
                    });
                }
                Order::TrunkImage { call, side, image } => {
                    self.on(now, call, |session| session.media.set_trunk_image(side, &image, now))
                }
                Order::OverlayHold { call, on } => self.on(now, call, |session| {
                    session.media.set_overlay_hold(on, now);
                    Ok(())
                }),
                Order::SendDtmf { call, side, digit, duration_ms } => {
                    self.send_dtmf(now, call, side, digit, duration_ms);
                }
                Order::Close { call } => self.close(now, call),
                Order::Stop => return true,
            }
        }
    }

    fn on(&mut self, now: Instant, call: CallId, act: impl FnOnce(&mut Session) -> Result<(), String>) {
        let Some(&slot) = self.sessions.get(&call) else { return };
        let Some(Slot::Live(session)) = self.slots.get_mut(slot) else { return };
        if let Err(detail) = act(session) {
            self.report(MediaEvent::OverlayFailed { call, detail });
        }
        // What an order changed may have to be sent at once.
        if let Some(Slot::Live(session)) = self.slots.get_mut(slot) {
            session.handle_timeout(now, &mut self.counters);
        }
        self.after(slot, now);
    }

    /// A digit that RTP does not carry on its side comes back, so that signalling may.
    fn send_dtmf(&mut self, now: Instant, call: CallId, side: Side, digit: DtmfDigit, duration_ms: u16) {
        let mut unsent = false;
        self.on(now, call, |session| {
            unsent = !session.media.send_dtmf(now, side, digit, duration_ms);
            Ok(())
        });
        if unsent {
            self.report(MediaEvent::DtmfUnsent { call, side, digit, duration_ms });
        }
    }

    fn add(&mut self, now: Instant, call: CallId, mut media: Media, mut sockets: Sockets) {
        media.set_tick(self.turns.first_tick(now));
        if !self.load.is_at_rest() {
            media.set_complexity(self.load.complexity());
        }
        media.refuse_trunk_source(sockets.trunk.former_source);
        let slot = self.free_slots.pop().unwrap_or_else(|| {
            self.slots.push(Slot::Free);
            self.slots.len() - 1
        });
        for leg in [&mut sockets.first, &mut sockets.trunk] {
            let watched = match self.ring {
                Some(_) => leg.unwatch(self.poll.registry()),
                None if leg.watched => Ok(()),
                None => leg.watch(self.poll.registry()),
            };
            if let Err(error) = watched {
                let detail = format!("media socket cannot be watched: {error}");
                self.report(MediaEvent::OverlayFailed { call, detail });
            }
        }
        for (index, token) in sockets.tokens() {
            let has_missed = self.places.enter(token, slot, index);
            match (&mut self.ring, sockets.get(index)) {
                // It takes what waits, too.
                (Some(ring), Some(bound)) => ring.add(token, &bound.socket),
                _ if has_missed => self.unread.push(token),
                _ => {}
            }
        }
        let next_report = now + REPORT_INTERVAL;
        let (heard, refusals) = ([None; SOCKETS], Refusals::default());
        let session = Session { call, media, sockets, heard, refusals, scheduled: None, next_report };
        self.slots[slot] = Slot::Live(Box::new(session));
        self.sessions.insert(call, slot);
        self.live += 1;
        self.after(slot, now);
    }

    fn close(&mut self, now: Instant, call: CallId) {
        let Some(slot) = self.sessions.remove(&call) else { return };
        if let Slot::Live(session) = std::mem::replace(&mut self.slots[slot], Slot::Free) {
            self.live -= 1;
            let mut session = *session;
            session.stop(now, &mut self.counters);
            session.count_refusals(&mut self.counters);
            session.sockets.trunk.former_source = session.media.trunk_source();
            for side in SIDES {
                if let Some(rating) = session.media.quality(side).rating {
                    self.counters.ratings.count(side, rating);
                }
            }
            Reporter::of(&self.reports, &mut self.pending, &mut self.counters).send(quality(&session, true));
            let draining = Draining::new(now, session, self.quarantine);
            self.timers.push(Reverse((draining.free_at, slot)));
            self.slots[slot] = Slot::Draining(Box::new(draining));
        }
    }

    /// Gives the sockets of a call up, which have rested, once nobody else receives from them.
    fn free(&mut self, slot: usize) {
        if let Slot::Draining(draining) = std::mem::replace(&mut self.slots[slot], Slot::Free) {
            let tokens = draining.sockets.tokens();
            let count =
                self.ring.as_mut().map_or(0, |ring| tokens.filter(|(_, token)| ring.remove(*token)).count());
            if count == 0 {
                self.release(slot, *draining);
            } else {
                self.slots[slot] = Slot::Leaving(draining, count);
            }
        }
    }

    /// Keeps the sockets of a slot for the next call, or closes them.
    fn release(&mut self, slot: usize, draining: Draining) {
        let still_sent_to = draining.is_still_sent_to();
        let mut sockets = draining.sockets;
        // Who has stopped may begin again with the same source: some have but one.
        sockets.trunk.former_source = sockets.trunk.former_source.filter(|_| still_sent_to);
        for (_, token) in sockets.tokens() {
            self.places.clear(token);
        }
        for mut leg in [sockets.first, sockets.trunk] {
            // Those that the ring received from. What strays in is not for it: others may take and close what is kept.
            if !leg.watched
                && let Err(error) = leg.watch(self.poll.registry())
            {
                tracing::debug!(port = leg.port.number, %error, "a media socket cannot be watched");
            }
            if let Err(leg) = self.idle.put(leg) {
                self.close_sockets(leg);
            }
        }
        self.free_slots.push(slot);
    }

    /// Whoever closes a socket need not say that it is no longer watched.
    fn close_sockets(&mut self, leg: LegSockets) {
        let port = leg.port;
        drop(leg);
        Reporter::of(&self.reports, &mut self.pending, &mut self.counters).send(Report::PortFree(port));
    }

    fn report(&mut self, event: MediaEvent) {
        Reporter::of(&self.reports, &mut self.pending, &mut self.counters).send(Report::Media(event));
    }

    fn send_pending(&mut self) {
        while let Some(report) = self.pending.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(report)) = self.reports.try_send(report) {
                self.pending.push_front(report);
                return;
            }
        }
    }

    fn publish(&self) {
        let (counts, published) = (&self.counters, &self.published);
        published.received.store(counts.received, Ordering::Relaxed);
        published.sent.store(counts.sent, Ordering::Relaxed);
        published.failed.store(counts.send_failed + counts.receive_failed, Ordering::Relaxed);
        published.stray.store(counts.stray, Ordering::Relaxed);
        published.reports_dropped.store(counts.reports_dropped, Ordering::Relaxed);
        published.ring_exhausted.store(counts.ring_exhausted, Ordering::Relaxed);
        published.calls.store(self.live, Ordering::Relaxed);
        counts.lateness.publish(&published.lateness);
        counts.ratings.publish(&published.ratings);
        counts.refusals.publish(&published.refusals);
    }
}
