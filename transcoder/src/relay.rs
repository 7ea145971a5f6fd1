//! The media of a call between two trunks: RTP, plain or under SRTP, on both sides, in G.711 or G.722. Where the codecs
//! differ, each packet is made one of the other: a law of G.711 by a table, G.722 by decoding and encoding.
//!
//! Nothing waits: a packet goes on as it comes, with the size it had, for an octet is a tick of the clock in all of them
//! (RFC 3551 4.5.2, 4.5.14). There is no jitter buffer, for the far side has one; so that it can do its work, gaps and order are
//! passed on as they came, under a synchronisation source of our own (RFC 3550 7.1).
//!
//! A facsimile may take the place of voice: UDPTL over the same ports, passed on as it is (ITU-T T.38).

mod flow;
mod image;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use call_model::{Codec, DtmfDigit, ImageMedia, LegMedia, LegQuality, Side};

use crate::bridge::{BridgeEvent, Emit, MAX_DIGIT_MS, MIN_DIGIT_MS, Outgoing, Port, Watch, report};
use crate::error::MediaError;
use crate::leg::rtp::{Received, RtpCounters, RtpLeg, SourceRule};
use crate::leg::webrtc::DtlsIdentity;
use crate::quality::{Heard, Meter, delay_ms, remote_quality};
use crate::seed::Seeded;
use crate::stream::coding::Coding;
use flow::Flow;
use image::ImageLeg;
pub use image::{ImageCounters, ImageRefusal, MAX_UDPTL};

/// The sides, in the order of the legs.
const SIDES: [Side; 2] = [Side::Trunk, Side::Onward];

/// Settings of a relay.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// Our RTP address towards the trunk that the call came by; RTCP is on the port above.
    pub trunk_rtp: SocketAddr,
    /// Our RTP address towards the trunk by which it goes on; RTCP is on the port above.
    pub onward_rtp: SocketAddr,
    /// How long a side may send nothing before [`BridgeEvent::Silent`].
    pub media_timeout: Duration,
    /// Our certificate towards a trunk whose media DTLS keys (RFC 5764); `None`: no such trunk.
    pub identity: Option<DtlsIdentity>,
}

/// The media of one call between two trunks. Sans-IO and `Send`; used as a
/// [`Bridge`](crate::Bridge) is, with the sides [`Side::Trunk`] and [`Side::Onward`].
pub struct Relay {
    legs: [RtpLeg; 2],
    codecs: [Codec; 2],
    images: [ImageLeg; 2],
    /// What each leg receives, on its way to the other.
    flows: [Flow; 2],
    watches: [Watch; 2],
    /// Ours for RTP.
    locals: [SocketAddr; 2],
    media_timeout: Duration,
    events: VecDeque<BridgeEvent>,
}

impl Relay {
    /// Builds a relay that passes nothing on until both sides have media. The seed decides SSRCs,
    /// first sequence numbers and timestamps, and RTCP times.
    pub fn new(config: &RelayConfig, seed: u64, now: Instant) -> Self {
        let mut seeds = Seeded::new(seed);
        Self {
            legs: [(); 2].map(|()| RtpLeg::new(seeds.next_u64(), now).with_identity(config.identity.clone())),
            codecs: [Codec::Pcma; 2],
            images: [ImageLeg::default(), ImageLeg::default()],
            flows: [Flow::new(now), Flow::new(now)],
            watches: [Watch::default(), Watch::default()],
            locals: [config.trunk_rtp, config.onward_rtp],
            media_timeout: config.media_timeout,
            events: VecDeque::new(),
        }
    }

    /// Sets what was negotiated with a side: for early media, for the answer, and on every change
    /// after. A side that carried T.38 carries audio again.
    ///
    /// # Errors
    /// Where a leg does not carry it; everything stays as it was then.
    pub fn set_media(&mut self, side: Side, media: &LegMedia, now: Instant) -> Result<(), MediaError> {
        let Some(at) = index_of(side) else { return Err(MediaError::TrunkMedia("side")) };
        let coding =
            Coding::of(media.codec).ok_or(MediaError::TrunkMedia("codec is neither G.711 nor G.722"))?;
        self.legs[at].set_media(media, now)?;
        self.codecs[at] = media.codec;
        // Whatever was agreed on may come (RFC 3264 6.1).
        let codecs = media.also_receives.iter().map(|(_, codec)| *codec).chain([media.codec]);
        self.flows[at].expect(codecs.filter_map(Coding::of).any(|coding| coding == Coding::G722));
        self.flows[1 - at].set_coding(coding);
        self.images[at].clear();
        self.watches[at].deadline = Some(now);
        // A hold ends the wait on either side, and what ends it begins the wait anew.
        self.wait_anew(now);
        Ok(())
    }

    /// Lets a side carry T.38 in place of audio, or go on with another address: UDPTL passes between the two addresses
    /// as soon as both sides do. Until then, and while they do, no voice and no digits go to that side, and no RTCP.
    ///
    /// # Errors
    /// Where UDPTL cannot go there; everything stays as it was then.
    pub fn set_image(&mut self, side: Side, image: &ImageMedia, now: Instant) -> Result<(), MediaError> {
        let Some(at) = index_of(side) else { return Err(MediaError::TrunkMedia("side")) };
        self.images[at].set(image, self.locals[at], &self.legs[at])?;
        self.flows.iter_mut().for_each(Flow::interrupt);
        self.watches[at].deadline = Some(now);
        self.wait_anew(now);
        Ok(())
    }

    /// Returns the counts of UDPTL datagrams of a side.
    pub fn image_counters(&self, side: Side) -> ImageCounters {
        index_of(side).map(|at| self.images[at].counters).unwrap_or_default()
    }

    /// Begins the wait for media anew, on the sides that have any.
    fn wait_anew(&mut self, now: Instant) {
        for watch in &mut self.watches {
            watch.deadline = watch.deadline.map(|_| now + self.media_timeout);
        }
    }

    /// Queues a digit that the other side signalled to be sent on a side, unless it is one that goes there with the
    /// media. Returns false if the side has no telephone events in RTP, or too many digits wait: then signalling
    /// may carry it.
    pub fn send_dtmf(&mut self, now: Instant, side: Side, digit: DtmfDigit, duration_ms: u16) -> bool {
        let Some(to) = index_of(side) else { return false };
        self.has_telephone_event(side)
            && self.flows[1 - to].take_signalled(now, digit, duration_ms.clamp(MIN_DIGIT_MS, MAX_DIGIT_MS))
    }

    /// Says whether a side carries digits in RTP.
    pub fn has_telephone_event(&self, side: Side) -> bool {
        index_of(side).is_some_and(|at| self.legs[at].has_telephone_event() && !self.images[at].is_active())
    }

    /// Takes a datagram that came from `source`. Anything at all may come: what is not wanted is
    /// counted.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        side: Side,
        port: Port,
        source: SocketAddr,
        packet: &[u8],
        emit: Emit<'_>,
    ) {
        let Some(from) = index_of(side) else { return };
        if self.images[from].is_active() {
            return self.pass_image(now, from, port, source, packet, emit);
        }
        let [first, second] = &mut self.legs;
        let (leg, other) = if from == 0 { (first, second) } else { (second, first) };
        let Ok(received) = leg.handle_datagram(now, port, source, packet) else {
            return self.poll_leg(now, from, emit);
        };
        let watch = &mut self.watches[from];
        watch.deadline = Some(now + self.media_timeout);
        if !matches!(received, Received::Nothing) && !std::mem::replace(&mut watch.heard, true) {
            report(&mut self.events, BridgeEvent::FirstPacket { side });
        }
        let flow = &mut self.flows[from];
        if self.images[1 - from].is_active() {
            // What is said before this side carries T.38 too is heard by nobody.
            return flow.pause();
        }
        flow.receive(now, received, other, &mut leg_emit(SIDES[1 - from], self.locals[1 - from], emit));
        Self::take_digits(flow, side, &mut self.events);
        self.poll_leg(now, from, emit);
    }

    /// Sends what a handshake of DTLS calls for, and says if it failed.
    fn poll_leg(&mut self, now: Instant, at: usize, emit: Emit<'_>) {
        let leg = &mut self.legs[at];
        leg.poll_transmit(now, &mut leg_emit(SIDES[at], self.locals[at], emit));
        if let Some(failure) = leg.poll_failure() {
            report(&mut self.events, BridgeEvent::TrunkFailed { side: SIDES[at], failure });
        }
    }

    /// Passes a datagram of a side that carries T.38 on.
    fn pass_image(
        &mut self,
        now: Instant,
        from: usize,
        port: Port,
        source: SocketAddr,
        datagram: &[u8],
        emit: Emit<'_>,
    ) {
        let [first, second] = &mut self.images;
        let (image, to) = if from == 0 { (first, second) } else { (second, first) };
        let source = (port == Port::Rtp).then_some(source);
        let Ok(destination) = image.receive(&self.legs[from], source, datagram, to) else { return };
        let at = 1 - from;
        let (side, local) = (SIDES[at], self.locals[at]);
        emit(Outgoing { side, port: Port::Rtp, local, destination, bytes: datagram });
        // One side of a facsimile sends for minutes while the other listens (ITU-T T.30): whichever is heard, both
        // are there.
        self.wait_anew(now);
    }

    /// Does what is due: RTCP, DTLS, digits of ours, the watch over silence.
    pub fn handle_timeout(&mut self, now: Instant, emit: Emit<'_>) {
        // What goes out on a leg came in on the other.
        let flows = self.flows.iter_mut().zip(SIDES).rev();
        let legs = self.legs.iter_mut().zip(SIDES.into_iter().zip(self.locals));
        let active = self.images.each_ref().map(ImageLeg::is_active);
        for (((leg, (side, local)), (flow, from)), image) in legs.zip(flows).zip(active) {
            if image {
                continue;
            }
            let mut out = leg_emit(side, local, &mut *emit);
            leg.handle_timeout(now, &mut out);
            if let Some(failure) = leg.poll_failure() {
                report(&mut self.events, BridgeEvent::TrunkFailed { side, failure });
            }
            flow.handle_timeout(now, leg, &mut out);
            Self::take_digits(flow, from, &mut self.events);
        }
        // Facsimile is not held.
        let held = self.legs.iter().zip(active).any(|(leg, image)| leg.is_held() && !image);
        for (watch, side) in self.watches.iter_mut().zip(SIDES) {
            if watch.deadline.is_some_and(|at| at <= now) {
                watch.deadline = Some(now + self.media_timeout);
                if !held {
                    report(&mut self.events, BridgeEvent::Silent { side });
                }
            }
        }
    }

    fn take_digits(flow: &mut Flow, side: Side, events: &mut VecDeque<BridgeEvent>) {
        while let Some((digit, duration_ms, forwarded)) = flow.poll_digit() {
            report(events, BridgeEvent::Dtmf { side, digit, duration_ms, forwarded });
        }
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let audio = |at: &usize| !self.images[*at].is_active();
        let legs = (0..SIDES.len()).filter(audio).filter_map(|at| self.legs[at].poll_timeout());
        let flows = (0..SIDES.len()).filter(audio).filter_map(|at| self.flows[1 - at].poll_timeout());
        let watches = self.watches.iter().filter_map(|watch| watch.deadline);
        legs.chain(flows).chain(watches).min()
    }

    /// Returns the next event. To be called until `None` after every call that takes a time.
    pub fn poll_event(&mut self) -> Option<BridgeEvent> {
        self.events.pop_front()
    }

    /// Ends the media with an RTCP BYE to the sides that carry audio. Nothing is sent after.
    pub fn stop(&mut self, now: Instant, emit: Emit<'_>) {
        let images = self.images.iter_mut();
        for (((leg, watch), (side, local)), image) in
            self.legs.iter_mut().zip(&mut self.watches).zip(SIDES.into_iter().zip(self.locals)).zip(images)
        {
            if image.is_active() {
                leg.stop(now, &mut |_, _, _| {});
            } else {
                leg.stop(now, &mut leg_emit(side, local, &mut *emit));
            }
            image.clear();
            watch.deadline = None;
        }
    }

    /// Returns what was measured of the media that a side sent us. UDPTL is counted with the packets, and is no part
    /// of what is said of voice.
    pub fn quality(&self, side: Side) -> LegQuality {
        let Some(at) = index_of(side) else { return LegQuality::default() };
        let (leg, flow) = (&self.legs[at], &self.flows[at]);
        let (statistics, counters, image) = (leg.statistics(), leg.counters(), &self.images[at].counters);
        let mut quality = LegQuality {
            packets_received: counters.received,
            packets_sent: counters.sent,
            packets_lost: statistics.lost(),
            packets_late: flow.late(),
            packets_refused: counters.refused() + flow.refused() + image.refused(),
            jitter_ms: statistics.jitter_ms(),
            round_trip_ms: leg.round_trip().map(|time| time.as_secs_f32() * 1_000.0),
            source: leg.source(),
            own_source: Some(leg.own_source()),
            ..LegQuality::default()
        };
        let codec = self.codecs[at];
        quality.remote = leg.remote_report().map(|report| remote_quality(codec, report, leg.round_trip()));
        let delay = delay_ms(leg.round_trip(), Duration::ZERO);
        Meter::default().fill(codec, &Heard::passed(statistics), delay, &mut quality);
        quality.packets_received += image.received;
        quality.packets_sent += image.sent;
        quality
    }

    /// Never hears these sources on a side, unless SRTP says that they are the other side's: what an earlier call on
    /// the same port was heard from ([`source`](Self::source)). The last four are kept.
    pub fn refuse_sources(&mut self, side: Side, sources: &[u32]) {
        if let Some(at) = index_of(side) {
            self.legs[at].refuse_sources(sources);
        }
    }

    /// Returns the synchronisation source that is heard on a side.
    pub fn source(&self, side: Side) -> Option<u32> {
        index_of(side).and_then(|at| self.legs[at].source())
    }

    /// Sets where the packets of a side may come from.
    pub fn set_source_rule(&mut self, side: Side, rule: SourceRule) {
        if let Some(at) = index_of(side) {
            self.legs[at].set_source_rule(rule);
        }
    }

    /// Returns the counts of packets of a side.
    pub fn counters(&self, side: Side) -> RtpCounters {
        index_of(side).map(|at| *self.legs[at].counters()).unwrap_or_default()
    }
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay")
            .field("trunk", self.legs[0].counters())
            .field("onward", self.legs[1].counters())
            .finish_non_exhaustive()
    }
}

fn index_of(side: Side) -> Option<usize> {
    SIDES.iter().position(|&known| known == side)
}

fn leg_emit<'a>(
    side: Side,
    rtp: SocketAddr,
    emit: Emit<'a>,
) -> impl FnMut(Port, SocketAddr, &[u8]) + use<'a> {
    move |port, destination, bytes| {
        let local = match port {
            Port::Rtp => rtp,
            Port::Rtcp => SocketAddr::new(rtp.ip(), rtp.port().wrapping_add(1)),
        };
        emit(Outgoing { side, port, local, destination, bytes });
    }
}
