//! The media of one call: a task with its own UDP socket, a phone and a 20 ms clock.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use call_model::{CallId, DtmfDigit, LegQuality};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use transcoder::{
    DtlsIdentity, LegFailure, MediaError, Outgoing, Phone, PhoneConfig, PhoneEvent, WebRtcConfig, WebRtcLeg,
};

use crate::audio::{Clip, Recorder};

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

/// Says why the media of a call could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("cannot open a media port on {address}: {reason}")]
    Socket { address: IpAddr, reason: String },
    #[error("media negotiation: {0}")]
    Negotiation(#[from] MediaError),
}

/// What the media of every call of a softphone shares.
#[derive(Clone)]
pub(crate) struct MediaSettings {
    pub(crate) address: IpAddr,
    pub(crate) sample_rate: u32,
    pub(crate) identity: DtlsIdentity,
    pub(crate) events: mpsc::Sender<(CallId, MediaEvent)>,
}

pub(crate) enum MediaCommand {
    /// Takes the answer to the offer.
    Accept(String),
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

/// Starts the media of an outgoing call. Returns the SDP offer.
pub(crate) async fn open_offer(
    settings: &MediaSettings,
    call: CallId,
) -> Result<(MediaHandle, String), OpenError> {
    let (socket, mut leg) = open_leg(settings).await?;
    let offer = leg.create_offer()?;
    Ok((start(settings, call, socket, leg)?, offer))
}

/// Starts the media of an incoming call. Returns the SDP answer.
pub(crate) async fn open_answer(
    settings: &MediaSettings,
    call: CallId,
    offer: &str,
) -> Result<(MediaHandle, String), OpenError> {
    let (socket, mut leg) = open_leg(settings).await?;
    let answer = leg.accept_offer(offer)?;
    Ok((start(settings, call, socket, leg)?, answer))
}

async fn open_leg(settings: &MediaSettings) -> Result<(Socket, WebRtcLeg), OpenError> {
    let failed =
        |error: std::io::Error| OpenError::Socket { address: settings.address, reason: error.to_string() };
    let sender = std::net::UdpSocket::bind((settings.address, 0)).map_err(failed)?;
    sender.set_nonblocking(true).map_err(failed)?;
    let local = sender.local_addr().map_err(failed)?;
    let receiver = UdpSocket::from_std(sender.try_clone().map_err(failed)?).map_err(failed)?;
    // G.711 is heard and said at 8 kHz.
    let config = WebRtcConfig {
        local: vec![local],
        ice_lite: false,
        g711: settings.sample_rate == 8_000,
        redundancy: true,
    };
    let leg = WebRtcLeg::new(config, &settings.identity, Instant::now())?;
    Ok((Socket { receiver, sender, local }, leg))
}

fn start(
    settings: &MediaSettings,
    call: CallId,
    socket: Socket,
    leg: WebRtcLeg,
) -> Result<MediaHandle, OpenError> {
    let seed = getrandom::u64().unwrap_or_default();
    let phone = Phone::new(PhoneConfig::new(settings.sample_rate), leg, seed, Instant::now())?;
    let frame = vec![0; phone.frame_samples()];
    let (sender, commands) = mpsc::channel(COMMAND_QUEUE);
    let task = Task {
        call,
        socket,
        phone,
        rate: settings.sample_rate,
        commands,
        events: settings.events.clone(),
        clip: None,
        echo: None,
        recorder: None,
        digits: VecDeque::new(),
        next_digit: Instant::now(),
        microphone: frame.clone(),
        loudspeaker: frame,
    };
    tokio::spawn(task.run());
    Ok(MediaHandle { commands: sender })
}

struct Socket {
    receiver: UdpSocket,
    /// The same socket. Tokio's own refuses to send until its reactor has seen the socket writable,
    /// which would cost the first connectivity check and with it a quarter of a second.
    sender: std::net::UdpSocket,
    local: SocketAddr,
}

impl Socket {
    /// Sends or drops: the network owes us nothing, and we owe it no queue.
    fn send(&self, outgoing: &Outgoing<'_>) {
        let _ = self.sender.send_to(outgoing.bytes, outgoing.destination);
    }
}

struct Task {
    call: CallId,
    socket: Socket,
    phone: Phone,
    rate: u32,
    commands: mpsc::Receiver<MediaCommand>,
    events: mpsc::Sender<(CallId, MediaEvent)>,
    /// What is being played, and how far.
    clip: Option<(Clip, usize)>,
    /// Frames heard that wait to be sent back.
    echo: Option<VecDeque<Vec<i16>>>,
    recorder: Option<Recorder>,
    digits: VecDeque<DtmfDigit>,
    next_digit: Instant,
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
            let due = self.phone.poll_timeout().unwrap_or_else(|| Instant::now() + TICK);
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(MediaCommand::Stop) | None => break,
                    Some(command) => self.handle_command(command).await,
                },
                received = self.socket.receiver.recv_from(&mut packet) => {
                    // An ICMP error of an earlier send shows up here; ICE finds out by itself.
                    if let Ok((length, source)) = received {
                        let (socket, local) = (&self.socket, self.socket.local);
                        self.phone.handle_datagram(Instant::now(), local, source, &packet[..length], &mut |out| socket.send(&out));
                    }
                }
                _ = clock.tick() => self.tick().await,
                () = sleep_until(due.into()) => {
                    let socket = &self.socket;
                    self.phone.handle_timeout(Instant::now(), &mut |out| socket.send(&out));
                }
            }
            self.report_phone().await;
        }
        let socket = &self.socket;
        self.phone.stop(Instant::now(), &mut |out| socket.send(&out));
        if let Some(Err(error)) = self.recorder.take().map(Recorder::finish) {
            self.report(MediaEvent::RecordFailed { reason: error.to_string() }).await;
        }
        let quality = self.phone.quality();
        self.report(MediaEvent::Stopped { quality }).await;
    }

    async fn handle_command(&mut self, command: MediaCommand) {
        match command {
            MediaCommand::Accept(answer) => {
                if let Err(error) = self.phone.accept_answer(&answer, Instant::now()) {
                    self.report(MediaEvent::Failed { reason: error.to_string() }).await;
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
            MediaCommand::Record(path) => match Recorder::create(&path, self.rate) {
                Ok(recorder) => self.recorder = Some(recorder),
                Err(error) => self.report(MediaEvent::RecordFailed { reason: error.to_string() }).await,
            },
            MediaCommand::Dtmf(digit) => {
                if self.digits.len() < MAX_DIGITS {
                    self.digits.push_back(digit);
                }
            }
            MediaCommand::Hold(on) => self.phone.set_hold(on),
            MediaCommand::Stop => {}
        }
    }

    /// 20 ms of a user: listens, then speaks.
    async fn tick(&mut self) {
        if self.phone.read_frame(&mut self.loudspeaker) {
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
        if !self.phone.is_connected() {
            return;
        }
        let played = self.fill_microphone();
        let socket = &self.socket;
        self.phone.write_frame(Instant::now(), &self.microphone, &mut |out| socket.send(&out));
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
            if !self.phone.send_dtmf(digit, DIGIT_MS) {
                self.report(MediaEvent::DigitUnsent { digit, duration_ms: DIGIT_MS }).await;
            }
        }
    }

    async fn report_phone(&mut self) {
        while let Some(event) = self.phone.poll_event() {
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
    }

    /// The softphone never waits for a media task, so this wait is short; without a softphone the
    /// event concerns nobody.
    async fn report(&mut self, event: MediaEvent) {
        let _ = self.events.send((self.call, event)).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use call_model::Side;
    use transcoder::Port;

    /// The first connectivity check leaves in the same breath as the socket is made.
    #[tokio::test]
    async fn a_new_socket_sends_at_once() {
        let far = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        far.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        let (events, _kept) = mpsc::channel(1);
        let settings = MediaSettings {
            address: "127.0.0.1".parse().unwrap(),
            sample_rate: 8_000,
            identity: DtlsIdentity::generate().unwrap(),
            events,
        };
        let (socket, _leg) = open_leg(&settings).await.unwrap();
        socket.send(&Outgoing {
            side: Side::Overlay,
            port: Port::Rtp,
            local: socket.local,
            destination: far.local_addr().unwrap(),
            bytes: b"check",
        });
        let mut buffer = [0; 16];
        let (length, source) = far.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], source), (&b"check"[..], socket.local));
    }
}
