//! Calls between overlay users: from the command to the answer, and from the answer to the first packet.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use call_model::Address;
use p2p_edge::calling::{SessionCommand, SessionEvent};
use tests::lab::overlay::{Issuer, Ring, User, handle};
use tests::lab::ports;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep_until, timeout};
use transcoder::WebRtcLeg;
use transcoder::leg::PayloadKind;
use transcoder::leg::webrtc::LegEvent;

use crate::daemon::Stage;
use crate::speech::{Payloads, Speech};
use crate::usage::{median, quantile};

/// The number of the caller; callees count from 1.
const CALLER: u8 = 251;
const PATIENCE: Duration = Duration::from_secs(20);

/// What was measured, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct LookUps {
    answer: Vec<f64>,
    first_rtp: Vec<f64>,
    /// Calls that did not come about, and why the last of them did not.
    failed: Option<(usize, String)>,
}

impl LookUps {
    /// Median from the command to the answer.
    pub(crate) fn answer_ms(&self) -> f64 {
        median(self.answer.clone())
    }

    /// Calls that did not come about.
    pub(crate) fn failed(&self) -> usize {
        self.failed.as_ref().map_or(0, |(count, _)| *count)
    }

    /// Median from the answer to the first packet of speech.
    pub(crate) fn first_rtp_ms(&self) -> f64 {
        median(self.first_rtp.clone())
    }
}

impl fmt::Display for LookUps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |values: &[f64]| {
            format!(
                "median {:.1} ms, 90 % within {:.1} ms",
                median(values.to_vec()),
                quantile(values.to_vec(), 0.9)
            )
        };
        writeln!(
            f,
            "{} first calls, each to another user who is reached through a relay reservation only:",
            self.answer.len()
        )?;
        writeln!(f, "  look-up to answer:          {}", show(&self.answer))?;
        write!(f, "  answer to first RTP packet: {}", show(&self.first_rtp))?;
        match &self.failed {
            Some((count, why)) => write!(f, "\n  failed: {count}, the last because {why}"),
            None => Ok(()),
        }
    }
}

/// Calls `count` users one after the other: for each the caller has neither a record nor a connection yet.
pub(crate) async fn measure(stage: &Stage, speech: &Speech, count: usize) -> Result<LookUps> {
    let (issuer, bootstrap): (&Issuer, _) = (&stage.issuer, stage.bootstrap());
    let address = ports::address();
    let count = u8::try_from(count)?.clamp(1, 200);
    let mut callees = JoinSet::new();
    for number in 1..=count {
        let callee = User::join(issuer, number, &bootstrap, address).await?;
        callees.spawn(answer_calls(callee, speech.opus.clone()));
    }
    let caller = User::join(issuer, CALLER, &bootstrap, address).await?;
    let mut measured = LookUps::default();
    for number in 1..=count {
        // What a call leaves behind is over before the next.
        tokio::time::sleep(Duration::from_millis(200)).await;
        match call(&caller, number, &speech.opus).await {
            Ok((answer, first_rtp)) => {
                measured.answer.push(1000.0 * answer.as_secs_f64());
                measured.first_rtp.push(1000.0 * first_rtp.as_secs_f64());
            }
            Err(error) => {
                measured.failed = Some((measured.failed() + 1, format!("{}: {error:#}", handle(number))));
            }
        }
    }
    // A median over the lucky half would say nothing.
    ensure!(2 * measured.failed() < usize::from(count), "{measured}");
    Ok(measured)
}

async fn call(caller: &User, number: u8, speech: &Payloads) -> Result<(Duration, Duration)> {
    let answered = caller.call(Address::Handle(handle(number).parse()?)).await?;
    let mut media = Media::new(answered.socket, answered.leg, speech)?;
    let first = timeout(PATIENCE, media.run_until(Heard::Packet)).await.context("no packet")??;
    caller.command(answered.call, SessionCommand::MediaUp).await?;
    caller.bye(answered.call).await?;
    Ok((answered.after, first - answered.at))
}

/// Answers every call at once and speaks until the other side hangs up.
async fn answer_calls(user: User, speech: Payloads) {
    loop {
        let ring = std::future::poll_fn(|context| {
            user.rings.lock().unwrap_or_else(std::sync::PoisonError::into_inner).poll_recv(context)
        });
        let Some(ring) = ring.await else { return };
        let name = ring.call;
        if let Err(error) = answer(&user, ring, &speech).await {
            eprintln!("causeway-bench: call {name}: {error:#}");
        }
    }
}

async fn answer(user: &User, ring: Ring, speech: &Payloads) -> Result<()> {
    let Ring { call, offer, mut events } = ring;
    let (socket, mut leg) = user.open_media()?;
    let media = leg.accept_offer(&offer)?;
    user.command(call, SessionCommand::Answer { media }).await?;
    let mut media = Media::new(socket, leg, speech)?;
    let ended = async {
        while let Some(event) = events.recv().await {
            if matches!(event, SessionEvent::Ended { .. }) {
                return;
            }
        }
    };
    let speak = async {
        media.run_until(Heard::Connected).await?;
        user.command(call, SessionCommand::MediaUp).await?;
        media.run_until(Heard::Nothing).await
    };
    tokio::select! {
        () = ended => Ok(()),
        outcome = speak => outcome.map(|_| ()),
    }
}

/// What [`Media::run_until`] waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heard {
    Connected,
    Packet,
    /// It runs until it is dropped.
    Nothing,
}

/// The media of one call: speech every 20 ms from the moment it is connected.
struct Media {
    socket: UdpSocket,
    /// The same socket; tokio's own loses what is sent before its reactor has seen the socket writable.
    sender: std::net::UdpSocket,
    leg: WebRtcLeg,
    speech: Payloads,
    next: usize,
}

impl Media {
    fn new(socket: std::net::UdpSocket, leg: WebRtcLeg, speech: &Payloads) -> Result<Self> {
        socket.set_nonblocking(true)?;
        let sender = socket.try_clone()?;
        Ok(Self { socket: UdpSocket::from_std(socket)?, sender, leg, speech: speech.clone(), next: 0 })
    }

    async fn run_until(&mut self, wanted: Heard) -> Result<Instant> {
        let local = self.socket.local_addr()?;
        let mut buffer = [0; 2_048];
        let mut clock = interval(Duration::from_millis(20));
        loop {
            let (socket, sender, leg) = (&self.socket, &self.sender, &mut self.leg);
            // A packet that cannot be sent at once is lost, as on any network.
            let mut emit = |_: SocketAddr, to: SocketAddr, bytes: &[u8]| {
                let _ = sender.send_to(bytes, to);
            };
            while let Some(event) = leg.poll_event() {
                match event {
                    LegEvent::Connected => {
                        clock.reset_immediately();
                        if wanted == Heard::Connected {
                            return Ok(Instant::now());
                        }
                    }
                    LegEvent::Packet(_) if wanted == Heard::Packet => return Ok(Instant::now()),
                    LegEvent::Packet(_) | LegEvent::RemoteLoss { .. } => {}
                    LegEvent::Failed(failure) => anyhow::bail!("media: {}", failure.as_str()),
                }
            }
            let due = leg.poll_timeout().unwrap_or_else(Instant::now);
            tokio::select! {
                biased;
                received = socket.recv_from(&mut buffer) => {
                    // An ICMP error of an earlier packet shows up here; ICE finds out by itself.
                    if let Ok((length, source)) = received {
                        leg.handle_datagram(Instant::now(), local, source, &buffer[..length], &mut emit);
                    }
                }
                () = sleep_until(due.into()) => leg.handle_timeout(Instant::now(), &mut emit),
                _ = clock.tick(), if leg.is_connected() => {
                    let timestamp = 960_u32.wrapping_mul(self.next as u32);
                    let payload = &self.speech[self.next % self.speech.len()];
                    leg.send(Instant::now(), PayloadKind::Audio, timestamp, self.next == 0, payload, &mut emit);
                    self.next += 1;
                }
            }
        }
    }
}
