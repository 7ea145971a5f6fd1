//! The media of one call: a task with its own sockets, a phone and a 20 ms clock.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use call_model::{CallId, DtmfDigit, LegQuality};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use transcoder::{
    DtlsIdentity, LegFailure, LocalCandidate, MediaError, Phone, PhoneConfig, PhoneEvent, WebRtcConfig,
    WebRtcLeg,
};

use crate::audio::{Clip, Recorder};
use crate::ice::{Arrival, IceServer, MediaAddress, Network, Plan, Reach};

/// Commands that may wait for the task.
const COMMAND_QUEUE: usize = 160;
/// Digits that may wait to be sent.
const MAX_DIGITS: usize = 128;
/// Length of a digit, and of the pause before the next (RFC 4733 asks for no more than to be told
/// apart; detectors behind a gateway want 40 ms each).
const DIGIT_MS: u16 = 160;
const DIGIT_PACE: Duration = Duration::from_millis(280);
/// Frames of 20 ms that an echo keeps at most.
const MAX_ECHO: usize = 25;
const TICK: Duration = Duration::from_millis(20);
const MAX_DATAGRAM: usize = 2_048;

/// How long candidates are gathered before a description is made of those that were found; others follow it. With
/// nothing over UDP there is no call without a relay, and that takes longer to get.
const GATHERING: Duration = Duration::from_millis(300);
const GATHERING_BY_STREAM: Duration = Duration::from_millis(1_200);
/// Candidates kept for the description.
const MAX_FOUND: usize = 16;

/// Says why the media of a call could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("cannot open a media port on {address}: {reason}")]
    Socket { address: String, reason: String },
}

/// What the media of every call of a softphone shares.
#[derive(Clone)]
pub(crate) struct MediaSettings {
    pub(crate) address: MediaAddress,
    /// Servers of STUN and TURN, as they are now.
    pub(crate) servers: watch::Receiver<Vec<IceServer>>,
    /// Whether UDP went nowhere in the last call that asked.
    pub(crate) udp_dead: Arc<AtomicBool>,
    pub(crate) sample_rate: u32,
    pub(crate) identity: DtlsIdentity,
    pub(crate) events: mpsc::Sender<(CallId, MediaEvent)>,
}

pub(crate) enum MediaCommand {
    /// Makes an offer; answered by `Described`.
    Offer,
    /// Answers this offer; answered by `Described`.
    Answer(String),
    /// Takes the answer to the offer.
    Accept(String),
    /// Takes one more candidate of the other side.
    Candidate(String),
    /// Plays a clip from its beginning, once media is up, instead of what was played before.
    Play(Clip),
    /// Sends back what is heard.
    Echo(bool),
    /// Records what is heard.
    Record(PathBuf),
    Dtmf(DtmfDigit),
    Hold(bool),
    /// Ends the media; answered by `Stopped`.
    Stop,
}

#[derive(Debug)]
pub(crate) enum MediaEvent {
    /// The session description that was asked for.
    Described {
        sdp: Result<String, MediaError>,
    },
    /// One more candidate of this side, for the other.
    Candidate {
        candidate: String,
    },
    /// Media goes another way than before, or goes at all. `relay`: the server that relays for this side, and how it is
    /// reached.
    Path {
        local: SocketAddr,
        remote: SocketAddr,
        relay: Option<(SocketAddr, &'static str)>,
    },
    Connected,
    FirstPacket,
    Silent,
    Played,
    Dtmf {
        digit: DtmfDigit,
        duration_ms: u16,
    },
    /// The other side takes no digits in media.
    DigitUnsent {
        digit: DtmfDigit,
        duration_ms: u16,
    },
    /// The file could not be written.
    RecordFailed {
        reason: String,
    },
    /// The other side has closed its media.
    Closed,
    /// Media is over and cannot come back.
    Failed {
        reason: String,
    },
    /// The task has ended.
    Stopped {
        quality: LegQuality,
    },
}

/// Speaks to the media task of a call.
pub(crate) struct MediaHandle {
    commands: mpsc::Sender<MediaCommand>,
}

impl MediaHandle {
    /// Sends a command. Returns false where the queue is full or the task has ended.
    pub(crate) fn send(&self, command: MediaCommand) -> bool {
        self.commands.try_send(command).is_ok()
    }
}

/// Opens the sockets of a call and begins to gather candidates.
pub(crate) fn open(settings: &MediaSettings, call: CallId, reach: Reach) -> Result<MediaHandle, OpenError> {
    let addresses = settings.address.addresses();
    let failed = |error: std::io::Error| OpenError::Socket {
        address: addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        reason: error.to_string(),
    };
    let now = Instant::now();
    let mut network = Network::open(&addresses).map_err(failed)?;
    let udp_dead = settings.udp_dead.load(Ordering::Relaxed);
    let local: Vec<IpAddr> = network.local().iter().map(SocketAddr::ip).collect();
    network.ask(now, Plan::new(&local, &settings.servers.borrow(), reach, udp_dead));
    let (sender, commands) = mpsc::channel(COMMAND_QUEUE);
    let frame = vec![0; settings.sample_rate as usize / 50];
    let task = Task {
        call,
        network,
        gathered_by: now + if udp_dead { GATHERING_BY_STREAM } else { GATHERING },
        found: Vec::new(),
        wanted: None,
        phone: None,
        path: None,
        settings: settings.clone(),
        commands,
        clip: None,
        echo: None,
        recorder: None,
        digits: VecDeque::new(),
        next_digit: now,
        held: false,
        microphone: frame.clone(),
        loudspeaker: frame,
    };
    tokio::spawn(task.run());
    Ok(MediaHandle { commands: sender })
}

/// The description that waits for candidates.
enum Wanted {
    Offer,
    Answer { offer: String },
}

struct Task {
    call: CallId,
    network: Network,
    gathered_by: Instant,
    /// Candidates for the description.
    found: Vec<LocalCandidate>,
    wanted: Option<Wanted>,
    /// There once this side has described its media.
    phone: Option<Phone>,
    /// Between what addresses media went when that was last told.
    path: Option<(SocketAddr, SocketAddr)>,
    settings: MediaSettings,
    commands: mpsc::Receiver<MediaCommand>,
    /// What is being played, and how far.
    clip: Option<(Clip, usize)>,
    /// Frames heard that wait to be sent back.
    echo: Option<VecDeque<Vec<i16>>>,
    recorder: Option<Recorder>,
    digits: VecDeque<DtmfDigit>,
    next_digit: Instant,
    held: bool,
    microphone: Vec<i16>,
    loudspeaker: Vec<i16>,
}

impl Task {
    async fn run(mut self) {
        let mut clock = interval(TICK);
        // A late tick is made up for: media time goes by ticks.
        clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut packet = vec![0; MAX_DATAGRAM];
        loop {
            let due = self.poll_timeout().unwrap_or_else(|| Instant::now() + TICK);
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(MediaCommand::Stop) | None => break,
                    Some(command) => self.handle_command(command).await,
                },
                arrival = self.network.receive(&mut packet) => match arrival {
                    Arrival::Datagram { local, source, range } => {
                        let (network, now) = (&mut self.network, Instant::now());
                        if let (Some(phone), Some(bytes)) = (&mut self.phone, packet.get(range)) {
                            phone.handle_datagram(now, local, source, bytes, &mut |out| network.send(now, &out));
                        }
                    }
                    Arrival::Found { candidate, instead } => self.found(candidate, instead).await,
                },
                _ = clock.tick() => self.tick().await,
                () = sleep_until(due.into()) => {
                    let (network, now) = (&mut self.network, Instant::now());
                    network.handle_timeout(now);
                    if let Some(phone) = &mut self.phone {
                        phone.handle_timeout(now, &mut |out| network.send(now, &out));
                    }
                }
            }
            if self.wanted.is_some() && (self.network.is_settled() || self.gathered_by <= Instant::now()) {
                self.describe().await;
            }
            self.report_phone().await;
        }
        let (network, now) = (&mut self.network, Instant::now());
        if let Some(phone) = &mut self.phone {
            phone.stop(now, &mut |out| network.send(now, &out));
        }
        network.close(now);
        if let Some(Err(error)) = self.recorder.take().map(Recorder::finish) {
            self.report(MediaEvent::RecordFailed { reason: error.to_string() }).await;
        }
        let quality = self.phone.as_ref().map(Phone::quality).unwrap_or_default();
        self.report(MediaEvent::Stopped { quality }).await;
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let phone = self.phone.as_ref().and_then(Phone::poll_timeout);
        let gathered_by = self.wanted.as_ref().map(|_| self.gathered_by);
        phone.into_iter().chain(self.network.poll_timeout()).chain(gathered_by).min()
    }

    /// A candidate of this side is told to the other, in the description or after it.
    async fn found(&mut self, candidate: LocalCandidate, instead: Option<SocketAddr>) {
        let Some(phone) = &mut self.phone else {
            if self.found.len() < MAX_FOUND {
                self.found.push(candidate);
            }
            return;
        };
        let added = phone.add_local_candidate(candidate);
        if let (LocalCandidate::Relayed { address, .. }, Some(gone)) = (candidate, instead) {
            phone.replace_local(gone, address);
        }
        match added {
            Ok(Some(candidate)) => self.report(MediaEvent::Candidate { candidate }).await,
            Ok(None) => {}
            Err(error) => tracing::debug!(call = %self.call, %error, "a candidate is not used"),
        }
    }

    /// Makes the description that is wanted.
    async fn describe(&mut self) {
        let Some(wanted) = self.wanted.take() else { return };
        // What has come at the same time belongs to it.
        self.settings.udp_dead.store(self.network.is_udp_dead(), Ordering::Relaxed);
        let described = self.start(wanted).map(|(phone, sdp)| {
            self.phone = Some(phone);
            sdp
        });
        if let Some(phone) = &mut self.phone {
            phone.set_hold(self.held);
        }
        self.report(MediaEvent::Described { sdp: described }).await;
    }

    fn start(&mut self, wanted: Wanted) -> Result<(Phone, String), MediaError> {
        let (now, rate) = (Instant::now(), self.settings.sample_rate);
        // G.711 is heard and said at 8 kHz.
        let config = WebRtcConfig {
            local: self.network.local(),
            ice_lite: false,
            g711: rate == 8_000,
            redundancy: true,
        };
        let mut leg = WebRtcLeg::new(config, &self.settings.identity, now)?;
        for candidate in self.found.drain(..) {
            // One that cannot be used is no reason to do without the others.
            if let Err(error) = leg.add_local_candidate(candidate) {
                tracing::debug!(call = %self.call, %error, "a candidate is not used");
            }
        }
        let sdp = match wanted {
            Wanted::Offer => leg.create_offer()?,
            Wanted::Answer { offer } => leg.accept_offer(&offer)?,
        };
        let seed = getrandom::u64().unwrap_or_default();
        Ok((Phone::new(PhoneConfig::new(rate), leg, seed, now)?, sdp))
    }

    async fn handle_command(&mut self, command: MediaCommand) {
        match command {
            MediaCommand::Offer => self.wanted = Some(Wanted::Offer),
            MediaCommand::Answer(offer) => self.wanted = Some(Wanted::Answer { offer }),
            MediaCommand::Accept(answer) => {
                let Some(phone) = &mut self.phone else { return };
                if let Err(error) = phone.accept_answer(&answer, Instant::now()) {
                    self.report(MediaEvent::Failed { reason: error.to_string() }).await;
                }
            }
            MediaCommand::Candidate(candidate) => {
                let Some(phone) = &mut self.phone else { return };
                if let Err(error) = phone.add_remote_candidate(&candidate) {
                    tracing::debug!(call = %self.call, %error, "a candidate of the other side is not used");
                }
            }
            MediaCommand::Play(clip) => {
                self.clip = Some((clip, 0));
                self.echo = None;
            }
            MediaCommand::Echo(on) => {
                self.echo = on.then(VecDeque::new);
                if on {
                    self.clip = None;
                }
            }
            MediaCommand::Record(path) => match Recorder::create(&path, self.settings.sample_rate) {
                Ok(recorder) => self.recorder = Some(recorder),
                Err(error) => self.report(MediaEvent::RecordFailed { reason: error.to_string() }).await,
            },
            MediaCommand::Dtmf(digit) => {
                if self.digits.len() < MAX_DIGITS {
                    self.digits.push_back(digit);
                }
            }
            MediaCommand::Hold(on) => {
                self.held = on;
                if let Some(phone) = &mut self.phone {
                    phone.set_hold(on);
                }
            }
            MediaCommand::Stop => {}
        }
    }

    /// 20 ms of a user: listens, then speaks.
    async fn tick(&mut self) {
        let Some(phone) = &mut self.phone else { return };
        if phone.read_frame(&mut self.loudspeaker) {
            if let Some(echo) = &mut self.echo {
                if echo.len() == MAX_ECHO {
                    echo.pop_front();
                }
                echo.push_back(self.loudspeaker.clone());
            }
            let recorded =
                self.recorder.as_mut().map_or(Ok(()), |recorder| recorder.write(&self.loudspeaker));
            if let Err(error) = recorded {
                self.recorder = None;
                self.report(MediaEvent::RecordFailed { reason: error.to_string() }).await;
            }
        }
        if !self.phone.as_ref().is_some_and(Phone::is_connected) {
            return;
        }
        let played = self.fill_microphone();
        let (network, now) = (&mut self.network, Instant::now());
        if let Some(phone) = &mut self.phone {
            phone.write_frame(now, &self.microphone, &mut |out| network.send(now, &out));
        }
        if played {
            self.report(MediaEvent::Played).await;
        }
        self.send_digit().await;
    }

    /// Takes the next 20 ms from clip or echo, else silence. Returns true at the end of a clip.
    fn fill_microphone(&mut self) -> bool {
        self.microphone.fill(0);
        if let Some(frame) = self.echo.as_mut().and_then(VecDeque::pop_front) {
            self.microphone.copy_from_slice(&frame);
            return false;
        }
        let Some((clip, position)) = &mut self.clip else { return false };
        let rest = clip.samples().get(*position..).unwrap_or_default();
        let count = rest.len().min(self.microphone.len());
        self.microphone[..count].copy_from_slice(&rest[..count]);
        *position += count;
        let over = *position >= clip.samples().len();
        if over {
            self.clip = None;
        }
        over
    }

    async fn send_digit(&mut self) {
        let now = Instant::now();
        if now < self.next_digit {
            return;
        }
        if let Some(digit) = self.digits.pop_front() {
            self.next_digit = now + DIGIT_PACE;
            if !self.phone.as_mut().is_some_and(|phone| phone.send_dtmf(digit, DIGIT_MS)) {
                self.report(MediaEvent::DigitUnsent { digit, duration_ms: DIGIT_MS }).await;
            }
        }
    }

    async fn report_phone(&mut self) {
        while let Some(event) = self.phone.as_mut().and_then(Phone::poll_event) {
            let event = match event {
                PhoneEvent::Connected => MediaEvent::Connected,
                PhoneEvent::FirstPacket => MediaEvent::FirstPacket,
                PhoneEvent::Dtmf { digit, duration_ms } => MediaEvent::Dtmf { digit, duration_ms },
                PhoneEvent::Silent => MediaEvent::Silent,
                PhoneEvent::Failed { failure: LegFailure::Closed } => MediaEvent::Closed,
                PhoneEvent::Failed { failure } => MediaEvent::Failed { reason: failure.as_str().to_owned() },
            };
            self.report(event).await;
        }
        let path = self.phone.as_ref().and_then(Phone::path);
        if let Some((local, remote)) = path
            && self.path != path
        {
            self.path = path;
            self.report(MediaEvent::Path { local, remote, relay: self.network.relay_of(local) }).await;
        }
    }

    /// The softphone never waits for a media task, so this wait is short; without a softphone the
    /// event concerns nobody.
    async fn report(&mut self, event: MediaEvent) {
        let _ = self.settings.events.send((self.call, event)).await;
    }
}
