//! The program: from the command line to an exit code.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use p2p_edge::bootstrap::Invite;
use p2p_edge::files::{self, FilesError};
use p2p_edge::identity::{BackupCost, NumberAssignment, is_mirror, is_name};
use p2p_edge::node::{BootstrapWays, Node, NodeConfig, NodeEvent, NodeRole};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{broadcast, mpsc};

use crate::audio::{AudioError, Clip};
use crate::cli::{
    Action, AnswerArguments, Cli, InviteArguments, JoinArguments, NodeArguments, ScriptArguments,
};
use crate::control::{Controller, parse_mode};
use crate::event::{Ended, Event};
use crate::identity_files::{self, FileError, Identity, public_key_text};
use crate::softphone::{AnswerPolicy, CallOptions, Command, Softphone, SoftphoneConfig, StartError};

/// Lines that a control connection may lag behind.
const SHOWN_QUEUE: usize = 1024;

/// Files of an identity directory: the signed list of supernodes, and those that were of use. The
/// latter is hidden: it is no part of the identity, and not backed up with it.
const LIST: &str = "bootstrap.pem";
const PEERS: &str = ".peers";

/// How long the goodbye of a node may take that has only looked.
const LEAVE: Duration = Duration::from_secs(1);

/// Exit codes; see `causeway-peer --help`.
pub mod exit {
    /// Answered and ended normally, or nothing went wrong.
    pub const OK: u8 = 0;
    /// Busy.
    pub const BUSY: u8 = 10;
    /// No answer.
    pub const NO_ANSWER: u8 = 11;
    /// Rejected.
    pub const REJECTED: u8 = 12;
    /// Not found or not reachable.
    pub const UNREACHABLE: u8 = 13;
    /// Network or overlay failure.
    pub const NETWORK: u8 = 14;
    /// Media failed.
    pub const MEDIA: u8 = 15;
    /// Another cause.
    pub const OTHER: u8 = 16;
    /// Wrong usage.
    pub const USAGE: u8 = 64;
    /// A file or socket failed.
    pub const IO: u8 = 74;
    /// Wrong configuration or identity.
    pub const CONFIGURATION: u8 = 78;
}

/// Returns the exit code for the end of a call.
pub fn exit_code(ended: &Ended) -> u8 {
    if ended.media_failed {
        return exit::MEDIA;
    }
    match ended.cause {
        // ITU-T Q.850 table 1.
        16 | 31 if ended.answered => exit::OK,
        17 => exit::BUSY,
        18 | 19 => exit::NO_ANSWER,
        1 | 2 | 3 | 20 | 22 | 25 | 27 | 28 => exit::UNREACHABLE,
        16 | 21 | 29 | 31 | 50 | 55 | 57 | 63 | 79 | 87 => exit::REJECTED,
        58 | 65 | 88 => exit::MEDIA,
        34 | 38 | 41 | 42 | 44 | 47 | 102 => exit::NETWORK,
        _ => exit::OTHER,
    }
}

/// Why the program ends before it has begun.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Identity(#[from] FileError),
    #[error(transparent)]
    Audio(#[from] AudioError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{what}: {error}")]
    Io { what: String, error: std::io::Error },
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) => exit::USAGE,
            Failure::Identity(_) | Failure::Start(_) => exit::CONFIGURATION,
            Failure::Audio(_) | Failure::Io { .. } => exit::IO,
        }
    }

    fn remedy(&self) -> &'static str {
        match self {
            Failure::Usage(_) => "see --help",
            Failure::Identity(_) => "make the identity with `key`, the authority and `import`",
            Failure::Audio(_) | Failure::Io { .. } => "check the path and its permissions",
            Failure::Start(_) => "check identity, addresses and the clock of this machine",
        }
    }
}

/// Runs the program and returns its exit code.
pub async fn run(cli: Cli) -> u8 {
    match act(cli.action).await {
        Ok(code) => code,
        Err(failure) => {
            show_line(&Event::error(None, &failure, failure.remedy()).to_line()).await;
            failure.exit_code()
        }
    }
}

/// Returns what the node of the user is told at its start: one that listens nowhere.
fn node_config(identity: Identity, bootstrap: Vec<String>, ways: BootstrapWays) -> NodeConfig {
    let role = NodeRole::User { certificate: identity.certificate };
    let revocations = identity.revocations;
    NodeConfig { revocations, bootstrap, ways, ..NodeConfig::new(identity.key, identity.trust, role) }
}

/// Joins, and prints a link for others: it leads to the supernodes that have worked best.
async fn invite(arguments: &InviteArguments, page: Option<&str>) -> Result<u8, Failure> {
    let InviteArguments { identity, root, bootstrap, join, online_timeout } = arguments;
    let ways = ways(identity, bootstrap, join)?;
    let identity = Identity::read(identity, root.as_deref(), unix_now())?;
    let from = identity.certificate.claims().handle.clone();
    let config = node_config(identity, bootstrap.clone(), ways);
    let (node, mut events) = Node::spawn(config).await.map_err(StartError::from)?;
    let online = async {
        while let Some(event) = events.recv().await {
            if event == NodeEvent::Online {
                return true;
            }
        }
        false
    };
    let is_online = tokio::time::timeout(*online_timeout, online).await.unwrap_or(false);
    let known = node.status().await.known_servers;
    node.shutdown(LEAVE).await;
    if !is_online {
        show_line(&not_online(*online_timeout).to_line()).await;
        return Ok(exit::NETWORK);
    }
    let made = Invite::new(Some(from), &known).map_err(|error| Failure::Usage(error.to_string()))?;
    let link = page.map_or_else(|| made.to_string(), |page| made.to_web(page));
    show_line(&serde_json::json!({ "invite": link }).to_string()).await;
    Ok(exit::OK)
}

fn not_online(patience: Duration) -> Event {
    let message = format!("not online within {} s", patience.as_secs());
    let remedy = "check --bootstrap and the other ways to join, the network and the clock of this machine";
    Event::error(None, message, remedy)
}

/// Returns the ways of joining of the command line, and those that the identity directory has.
fn ways(identity: &Path, bootstrap: &[String], join: &JoinArguments) -> Result<BootstrapWays, Failure> {
    let invite =
        |link: &String| Invite::parse(link).map_err(|error| Failure::Usage(format!("--invite: {error}")));
    if let Some(name) = join.bootstrap_dns.iter().find(|name| !is_name(name)) {
        return Err(Failure::Usage(format!("--bootstrap-dns: `{name}` is no domain name")));
    }
    if let Some(mirror) = join.bootstrap_mirror.iter().find(|mirror| !is_mirror(mirror)) {
        return Err(Failure::Usage(format!("--bootstrap-mirror: `{mirror}` does not begin with https://")));
    }
    let folder = Some(identity).filter(|identity| identity.is_dir());
    let in_folder = |name: &str| folder.map(|folder| folder.join(name));
    let ways = BootstrapWays {
        list_file: join.bootstrap_list.clone().or_else(|| in_folder(LIST).filter(|list| list.is_file())),
        dns_names: join.bootstrap_dns.clone(),
        dns_servers: join.dns_server.clone(),
        mirrors: join.bootstrap_mirror.clone(),
        mirror_ca_file: join.mirror_ca.clone(),
        peers_file: join.peers_file.clone().or_else(|| in_folder(PEERS)),
        lan: join.lan,
        invites: join.invite.iter().map(invite).collect::<Result<_, _>>()?,
    };
    let remembers = ways.peers_file.as_ref().is_some_and(|file| file.is_file());
    let none = BootstrapWays { peers_file: ways.peers_file.clone(), ..BootstrapWays::default() };
    if bootstrap.is_empty() && ways == none && !remembers {
        let message = "no way to join: give --bootstrap, --bootstrap-list, --bootstrap-dns, --bootstrap-mirror, --invite or --lan";
        return Err(Failure::Usage(message.to_owned()));
    }
    Ok(ways)
}

/// Asks on the terminal, without showing what is typed.
fn ask(text: &str) -> std::io::Result<String> {
    rpassword::prompt_password(text)
}

/// Sorts out what the file system refused: it has an exit code of its own.
fn file(error: FilesError) -> Failure {
    match error {
        FilesError::Io { path, error } => Failure::Io { what: path.display().to_string(), error },
        other => Failure::Identity(FileError::Files(other)),
    }
}

async fn act(action: Action) -> Result<u8, Failure> {
    match action {
        Action::Key { out, request, handle } => {
            let key = identity_files::create_key(&out)?;
            if let (Some(path), Some(handle)) = (&request, &handle) {
                identity_files::write_request(path, handle, &key)?;
            }
            let shown = serde_json::json!({ "public_key": public_key_text(&key), "peer_id": key.peer_id().to_string() });
            show_line(&shown.to_string()).await;
            Ok(exit::OK)
        }
        Action::Import { identity, key, certificate, root } => {
            let identity = identity_files::import(&identity, &key, &certificate, &root, unix_now())?;
            show_identity(&identity).await;
            Ok(exit::OK)
        }
        Action::Show { identity } => {
            show_identity(&Identity::read(&identity, None, unix_now())?).await;
            Ok(exit::OK)
        }
        Action::Renew { identity, out, new_key } => {
            identity_files::write_renewal(&identity, &out, new_key.as_deref(), unix_now())?;
            Ok(exit::OK)
        }
        Action::Update { identity, certificate, root } => {
            let updated = identity_files::update(&identity, &certificate, root.as_deref(), unix_now())?;
            show_identity(&updated).await;
            Ok(exit::OK)
        }
        Action::ImportNumber { identity, number, root } => {
            let updated = identity_files::import_number(&identity, &number, root.as_deref(), unix_now())?;
            show_identity(&updated).await;
            Ok(exit::OK)
        }
        Action::Backup { identity, out, passphrase_file } => {
            let passphrase = files::passphrase(passphrase_file.as_deref(), true, ask).map_err(file)?;
            let names = files::back_up(&identity, &out, &passphrase, BackupCost::RECOMMENDED);
            show_line(&serde_json::json!({ "files": names.map_err(file)? }).to_string()).await;
            Ok(exit::OK)
        }
        Action::Restore { backup, identity, passphrase_file } => {
            let passphrase = files::passphrase(passphrase_file.as_deref(), false, ask).map_err(file)?;
            let names = files::restore(&backup, &identity, &passphrase).map_err(file)?;
            show_line(&serde_json::json!({ "files": names }).to_string()).await;
            Ok(exit::OK)
        }
        Action::Run { node, control, answer } => {
            let policy = policy(&answer, node.sample_rate).await?;
            let session = Session::start(&node, policy).await?;
            session.interactive(control.as_deref()).await
        }
        Action::Invite { node, page } => invite(&node, page.as_deref()).await,
        Action::Call { target, node, script, display_name, private, ring_timeout } => {
            let options = options(&script, node.sample_rate).await?;
            let mut session = Session::start(&node, AnswerPolicy::default()).await?;
            if !session.wait_online(node.online_timeout).await {
                session.leave().await;
                return Ok(exit::NETWORK);
            }
            let call = Command::Call { to: target, display_name, private, ring_timeout, options };
            session.send(call).await;
            let code = session.until_ended(1).await;
            session.leave().await;
            Ok(code)
        }
        Action::Answer { node, answer, calls } => {
            let policy = policy(&answer, node.sample_rate).await?;
            let mut session = Session::start(&node, policy).await?;
            if !session.wait_online(node.online_timeout).await {
                session.leave().await;
                return Ok(exit::NETWORK);
            }
            let code = session.until_ended(calls).await;
            session.leave().await;
            // A call that was refused or not answered as it was asked for is no failure here.
            Ok(if code == exit::MEDIA || code == exit::NETWORK { code } else { exit::OK })
        }
    }
}

/// A running softphone whose events are shown.
struct Session {
    softphone: Softphone,
    events: mpsc::Receiver<Event>,
    interrupted: mpsc::Receiver<()>,
    /// SIGHUP: the identity is to be read again.
    renewed: Signal,
    /// The identity, and the root in the place of its own.
    identity: (PathBuf, Option<PathBuf>),
    sample_rate: u32,
}

impl Session {
    async fn start(arguments: &NodeArguments, policy: AnswerPolicy) -> Result<Self, Failure> {
        let ways = ways(&arguments.identity, &arguments.bootstrap, &arguments.join)?;
        let identity = Identity::read(&arguments.identity, arguments.root.as_deref(), unix_now())?;
        let numbers = identity.good_numbers(unix_now());
        let (listen, external) = (arguments.listen.clone(), arguments.external.clone());
        let node =
            NodeConfig { listen, external, ..node_config(identity, arguments.bootstrap.clone(), ways) };
        let config = SoftphoneConfig {
            node,
            media_address: arguments.media_address,
            ice_servers: arguments.ice_server.clone(),
            sample_rate: arguments.sample_rate,
            policy,
        };
        let signals = |error| Failure::Io { what: "signals".into(), error };
        let interrupted = interruptions().map_err(signals)?;
        let renewed = signal(SignalKind::hangup()).map_err(signals)?;
        let (softphone, events) = Softphone::start(config).await?;
        if !numbers.is_empty() {
            // A softphone that has stopped ends its events: that is noticed there.
            let _ = softphone.send(Command::Numbers(numbers)).await;
        }
        let identity = (arguments.identity.clone(), arguments.root.clone());
        Ok(Self { softphone, events, interrupted, renewed, identity, sample_rate: arguments.sample_rate })
    }

    /// Takes commands until `quit`, a signal, or the end of standard input.
    async fn interactive(mut self, control: Option<&Path>) -> Result<u8, Failure> {
        let (shown, _) = broadcast::channel(SHOWN_QUEUE);
        let controller = Controller { softphone: self.softphone.clone(), sample_rate: self.sample_rate };
        match control {
            Some(path) => controller
                .listen(path, &shown)
                .map_err(|error| Failure::Io { what: format!("control socket {}", path.display()), error })?,
            None => {
                tokio::spawn(async move {
                    controller.read_commands(BufReader::new(tokio::io::stdin())).await;
                    let _ = controller.softphone.send(Command::Quit).await;
                });
            }
        }
        loop {
            let event = tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => event,
                    None => break,
                },
                Some(()) = self.interrupted.recv() => {
                    self.send(Command::Quit).await;
                    continue;
                }
                Some(()) = self.renewed.recv() => {
                    self.read_identity_again().await;
                    continue;
                }
            };
            let line = event.to_line();
            // Nobody may be connected. Before standard output: who connects because of what is
            // said there hears what comes after it.
            let _ = shown.send(format!("{line}\n"));
            show_line(&line).await;
        }
        if let Some(path) = control {
            let _ = std::fs::remove_file(path);
        }
        Ok(exit::OK)
    }

    /// Takes over what has changed in the files of the identity, without ending a call.
    async fn read_identity_again(&self) {
        let (identity, root) = &self.identity;
        let command = match Identity::read(identity, root.as_deref(), unix_now()) {
            Ok(read) => {
                let numbers = read.good_numbers(unix_now());
                let Identity { certificate, revocations, .. } = read;
                let lists = revocations.lists().cloned().collect();
                self.send(Command::Certificate(Box::new(certificate), lists)).await;
                Command::Numbers(numbers)
            }
            Err(error) => Command::Show(Event::error(None, &error, "the certificate in use stays")),
        };
        self.send(command).await;
    }

    async fn send(&self, command: Command) {
        // A softphone that has stopped ends its events: that is noticed there.
        let _ = self.softphone.send(command).await;
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            tokio::select! {
                event = self.events.recv() => {
                    let event = event?;
                    show_line(&event.to_line()).await;
                    return Some(event);
                }
                Some(()) = self.interrupted.recv() => self.send(Command::Quit).await,
                Some(()) = self.renewed.recv() => self.read_identity_again().await,
            }
        }
    }

    async fn wait_online(&mut self, patience: Duration) -> bool {
        let online = async {
            while let Some(event) = self.next().await {
                if event == Event::Online {
                    return true;
                }
            }
            false
        };
        let online = tokio::time::timeout(patience, online).await.unwrap_or(false);
        if !online {
            show_line(&not_online(patience).to_line()).await;
        }
        online
    }

    /// Runs until so many calls have ended (0: for ever) and returns the worst of their codes.
    async fn until_ended(&mut self, calls: u32) -> u8 {
        let (mut ended, mut worst) = (0, exit::OK);
        loop {
            match self.next().await {
                Some(Event::Ended(end)) => {
                    ended += 1;
                    worst = worst.max(exit_code(&end));
                    if ended == calls {
                        return worst;
                    }
                }
                // A call that could not even be started.
                Some(Event::Error { call: None, .. }) if calls == 1 => return worst.max(exit::MEDIA),
                Some(_) => {}
                None => return worst,
            }
        }
    }

    async fn leave(mut self) {
        self.send(Command::Quit).await;
        while self.next().await.is_some() {}
    }
}

async fn policy(arguments: &AnswerArguments, rate: u32) -> Result<AnswerPolicy, Failure> {
    let early = clip(arguments.early.as_deref(), rate).await?;
    let mode =
        parse_mode(&arguments.mode, early).map_err(|message| Failure::Usage(format!("--mode: {message}")))?;
    let (reject_anonymous, follow_transfers) = (arguments.reject_anonymous, arguments.follow_transfers);
    let options = options(&arguments.script, rate).await?;
    Ok(AnswerPolicy { mode, options, reject_anonymous, follow_transfers })
}

async fn options(arguments: &ScriptArguments, rate: u32) -> Result<CallOptions, Failure> {
    Ok(CallOptions {
        play: clip(arguments.play.as_deref(), rate).await?,
        record: arguments.record.clone(),
        echo: arguments.echo,
        dtmf: arguments.dtmf.clone().map(|digits| digits.0).unwrap_or_default(),
        duration: arguments.duration,
        replaces: None,
    })
}

async fn clip(path: Option<&Path>, rate: u32) -> Result<Option<Clip>, Failure> {
    let Some(path) = path.map(Path::to_path_buf) else { return Ok(None) };
    let read = tokio::task::spawn_blocking(move || Clip::read(&path, rate)).await;
    match read {
        Ok(clip) => Ok(Some(clip?)),
        Err(_) => Err(Failure::Usage("the clip could not be read".into())),
    }
}

async fn show_identity(identity: &Identity) {
    let claims = identity.certificate.claims();
    let shown = serde_json::json!({
        "handle": claims.handle.to_string(),
        "numbers": claims.numbers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "assigned_numbers": identity.numbers.iter().map(assigned).collect::<Vec<_>>(),
        "not_after_unix": claims.validity.not_after,
        "peer_id": identity.key.peer_id().to_string(),
        "public_key": public_key_text(&identity.key),
    });
    show_line(&shown.to_string()).await;
}

fn assigned(assignment: &NumberAssignment) -> serde_json::Value {
    let claims = assignment.claims();
    serde_json::json!({ "number": claims.number.to_string(), "not_after_unix": claims.expires_unix })
}

/// Writes a line to standard output. Where nobody reads any more, the calls go on.
async fn show_line(line: &str) {
    let mut output = tokio::io::stdout();
    let _ = output.write_all(format!("{line}\n").as_bytes()).await;
    let _ = output.flush().await;
}

/// Makes one message of each SIGINT or SIGTERM.
fn interruptions() -> std::io::Result<mpsc::Receiver<()>> {
    let (sender, receiver) = mpsc::channel(1);
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if sender.send(()).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_the_classes_apart() {
        let ended = |cause, answered, media_failed| Ended {
            call: call_model::CallId::from_bytes([0; 16]),
            cause,
            cause_text: String::new(),
            sip_status: None,
            text: String::new(),
            by: "far",
            answered,
            media_up: answered,
            media_failed,
            duration_ms: 0,
            digits: String::new(),
            quality: None,
        };
        let cases = [
            (16, true, false, exit::OK),
            (16, false, false, exit::REJECTED),
            (17, false, false, exit::BUSY),
            (19, false, false, exit::NO_ANSWER),
            (21, false, false, exit::REJECTED),
            (1, false, false, exit::UNREACHABLE),
            (20, false, false, exit::UNREACHABLE),
            (38, true, false, exit::NETWORK),
            (58, true, false, exit::MEDIA),
            (16, true, true, exit::MEDIA),
            (127, false, false, exit::OTHER),
        ];
        for (cause, answered, media_failed, code) in cases {
            assert_eq!(exit_code(&ended(cause, answered, media_failed)), code, "{cause}");
        }
    }
}
